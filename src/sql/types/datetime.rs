//! `date`, `time`, `timetz`, `timestamp`, `timestamptz`: calendar, time zones, text forms.
//!
//! Days and microseconds count from 2000-01-01. PostgreSQL: utils/adt/datetime.c, timestamp.c, date.c.

use std::fmt::Write as _;

use jiff::civil;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

use super::Datum;
use super::scalar::is_space;
use super::settings::{DateOrder, DateStyle, IoSettings};
use crate::sqlstate::{SqlError, SqlState};

/// Microseconds in a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds in a minute.
pub const MINUTE: i64 = 60 * SECOND;
/// Microseconds in an hour.
pub const HOUR: i64 = 60 * MINUTE;
/// Microseconds in a day.
pub const DAY: i64 = 24 * HOUR;
/// 1970-01-01 in microseconds from 2000-01-01.
pub const UNIX_EPOCH: i64 = -10_957 * DAY;
/// First timestamp: 4714-11-24 BC.
pub const TIMESTAMP_MIN: i64 = -211_813_488_000_000_000;
/// One past the last timestamp: 294277-01-01.
pub const TIMESTAMP_END: i64 = 9_223_371_331_200_000_000;
/// First date: 4714-11-24 BC.
pub const DATE_MIN: i32 = -2_451_545;
/// One past the last date: 5874898-01-01.
pub const DATE_END: i32 = 2_145_031_949;
/// Julian day of 2000-01-01.
pub const JULIAN_2000: i32 = 2_451_545;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// Full month names.
pub const MONTH_NAMES: [&str; 12] =
    ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
/// Full day names, Sunday first.
pub const DAY_NAMES: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Zone abbreviations PostgreSQL's `Default` set knows, with minutes east of UTC.
const ABBREVIATIONS: &[(&str, i32)] = &[
    ("utc", 0),
    ("gmt", 0),
    ("z", 0),
    ("zulu", 0),
    ("ut", 0),
    ("uct", 0),
    ("wet", 0),
    ("west", 60),
    ("bst", 60),
    ("cet", 60),
    ("cest", 120),
    ("met", 60),
    ("mest", 120),
    ("mez", 60),
    ("eet", 120),
    ("eest", 180),
    ("msk", 180),
    ("msd", 240),
    ("ist", 120),
    ("idt", 180),
    ("sast", 120),
    ("eat", 180),
    ("est", -300),
    ("edt", -240),
    ("cst", -360),
    ("cdt", -300),
    ("mst", -420),
    ("mdt", -360),
    ("pst", -480),
    ("pdt", -420),
    ("akst", -540),
    ("akdt", -480),
    ("hst", -600),
    ("ast", -240),
    ("adt", -180),
    ("nst", -210),
    ("ndt", -150),
    ("brt", -180),
    ("brst", -120),
    ("clt", -240),
    ("art", -180),
    ("pkt", 300),
    ("npt", 345),
    ("bdt", 360),
    ("ict", 420),
    ("wib", 420),
    ("wit", 540),
    ("hkt", 480),
    ("pht", 480),
    ("sgt", 480),
    ("awst", 480),
    ("kst", 540),
    ("jst", 540),
    ("acst", 570),
    ("acdt", 630),
    ("aest", 600),
    ("aedt", 660),
    ("aesst", 660),
    ("nzst", 720),
    ("nzdt", 780),
    ("nzt", 720),
];

/// A calendar date; years count astronomically (0 is 1 BC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ymd {
    /// Year; 0 is 1 BC.
    pub year: i32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
}

/// Is it a leap year (Gregorian rules at all times)?
pub fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days of a month.
pub fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(is_leap(year)),
        _ => 31,
    }
}

/// Days from 2000-01-01.
pub fn days_from_ymd(year: i64, month: u32, day: u32) -> i64 {
    // Years from March, so that the leap day is the last of its year.
    let y = if month <= 2 { year - 1 } else { year };
    let m = i64::from((month + 9) % 12);
    let era = y.div_euclid(400);
    let of_era = y.rem_euclid(400);
    let of_year = (153 * m + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 730_425
}

/// The calendar date of a day counted from 2000-01-01.
pub fn ymd_from_days(days: i64) -> Ymd {
    let z = days + 730_425;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = u32::try_from(doy - (153 * mp + 2) / 5 + 1).unwrap_or(1);
    let month = u32::try_from(if mp < 10 { mp + 3 } else { mp - 9 }).unwrap_or(1);
    let year = yoe + era * 400 + i64::from(month <= 2);
    Ymd { year: i32::try_from(year).unwrap_or(i32::MAX), month, day }
}

/// Day of the week, 0 Sunday.
pub fn weekday(days: i64) -> u32 {
    u32::try_from((days + 6).rem_euclid(7)).unwrap_or(0)
}

/// Splits a timestamp into days and microseconds of the day.
pub fn split(micros: i64) -> (i64, i64) {
    (micros.div_euclid(DAY), micros.rem_euclid(DAY))
}

/// Is this timestamp (or the same as a date) one of the infinities?
pub fn is_infinite(ts: i64) -> bool {
    ts == i64::MIN || ts == i64::MAX
}

/// `22008`.
pub fn timestamp_out_of_range() -> SqlError {
    SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp out of range")
}

/// `22008`.
pub fn date_out_of_range() -> SqlError {
    SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "date out of range")
}

/// A timestamp within PostgreSQL's range.
///
/// # Errors
/// `22008`.
pub fn check_timestamp(micros: i128) -> Result<i64, SqlError> {
    i64::try_from(micros).ok().filter(|t| (TIMESTAMP_MIN..TIMESTAMP_END).contains(t)).ok_or_else(timestamp_out_of_range)
}

/// Seconds east of UTC, abbreviation and whether it is summer time, at an instant.
pub fn offset_at(zone: &TimeZone, utc: i64) -> (i32, String, bool) {
    let info = zone.to_offset_info(instant(utc));
    (info.offset().seconds(), info.abbreviation().to_owned(), info.dst().is_dst())
}

/// Seconds east of UTC at an instant.
pub fn offset_seconds(zone: &TimeZone, utc: i64) -> i32 {
    zone.to_offset(instant(utc)).seconds()
}

/// An instant for the time zone library; beyond its years 400-year cycles are taken off, which keep calendar and weekdays.
fn instant(utc: i64) -> jiff::Timestamp {
    const CYCLE: i64 = 146_097 * 86_400;
    // Divided first: the difference of the last instants and the epoch is beyond 64 bits of microseconds.
    let mut seconds = utc.div_euclid(SECOND) - UNIX_EPOCH / SECOND;
    while seconds > 250_000_000_000 {
        seconds -= CYCLE;
    }
    while seconds < -370_000_000_000 {
        seconds += CYCLE;
    }
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// Seconds east of UTC that a local time has. In a gap the offset before it counts, in an overlap the one after.
pub fn local_offset(zone: &TimeZone, local: i64) -> i32 {
    let (days, micros) = split(local);
    let ymd = ymd_from_days(days);
    let year = if (-9998..=9998).contains(&ymd.year) { ymd.year } else { ymd.year.rem_euclid(400) + 2000 };
    let seconds = micros / SECOND;
    let part = |v: i64| i8::try_from(v).unwrap_or(0);
    let civil = civil::DateTime::new(
        i16::try_from(year).unwrap_or(2000),
        part(i64::from(ymd.month)),
        part(i64::from(ymd.day)),
        part(seconds / 3600),
        part(seconds / 60 % 60),
        part(seconds % 60),
        0,
    );
    let Ok(civil) = civil else { return 0 };
    match zone.to_ambiguous_timestamp(civil).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.seconds(),
        AmbiguousOffset::Gap { before, .. } => before.seconds(),
        AmbiguousOffset::Fold { after, .. } => after.seconds(),
    }
}

/// Local time in a zone of an instant. Infinities stay.
pub fn to_local(utc: i64, zone: &TimeZone) -> i64 {
    if is_infinite(utc) { utc } else { utc.saturating_add(i64::from(offset_seconds(zone, utc)) * SECOND) }
}

/// Instant of a local time in a zone. Infinities stay.
///
/// # Errors
/// `22008` when the result is out of range.
pub fn to_utc(local: i64, zone: &TimeZone) -> Result<i64, SqlError> {
    if is_infinite(local) {
        return Ok(local);
    }
    check_timestamp(i128::from(local) - i128::from(local_offset(zone, local)) * i128::from(SECOND))
}

/// Rounds microseconds to so many digits of a second, half away from zero.
pub fn round_micros(micros: i64, digits: i32) -> i64 {
    if !(0..6).contains(&digits) || is_infinite(micros) {
        return micros;
    }
    let unit = 10i64.pow(6 - digits.unsigned_abs());
    let half = unit / 2;
    if micros >= 0 { (micros.saturating_add(half)) / unit * unit } else { -((half.saturating_sub(micros)) / unit * unit) }
}

/// Fits a date/time value to its precision.
///
/// # Errors
/// `22015` for intervals.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
pub fn fit(value: Datum, typmod: i32) -> Result<Datum, SqlError> {
    Ok(match value {
        Datum::Time(t) => Datum::Time(round_micros(t, typmod)),
        Datum::TimeTz(t, z) => Datum::TimeTz(round_micros(t, typmod), z),
        Datum::Timestamp(t) => Datum::Timestamp(round_micros(t, typmod)),
        Datum::TimestampTz(t) => Datum::TimestampTz(round_micros(t, typmod)),
        Datum::Interval(i) => Datum::Interval(super::interval::fit(i, typmod)?),
        other => other,
    })
}

// ---------------------------------------------------------------------------------------------------------------------
// Time zones by name

/// `22023`: no such zone.
pub fn unknown_zone(name: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("time zone \"{name}\" not recognized"))
}

/// The zone of an abbreviation such as `PST`.
pub fn abbreviation_offset(name: &str) -> Option<i32> {
    let name = name.to_ascii_lowercase();
    ABBREVIATIONS.iter().find(|(a, _)| *a == name).map(|(_, minutes)| minutes * 60)
}

/// A zone as `AT TIME ZONE` and `SET TimeZone` name it: IANA name, abbreviation, POSIX offset (`UTC+3`: west), or hours.
///
/// # Errors
/// `22023`.
pub fn time_zone(name: &str) -> Result<TimeZone, SqlError> {
    let trimmed = name.trim();
    if let Ok(hours) = trimmed.parse::<f64>() {
        #[expect(clippy::cast_possible_truncation, reason = "range checked by the offset")]
        let seconds = (hours * 3600.0) as i32;
        return Offset::from_seconds(seconds).map(TimeZone::fixed).map_err(|_| unknown_zone(name));
    }
    if trimmed.eq_ignore_ascii_case("utc") || trimmed.eq_ignore_ascii_case("gmt") {
        return Ok(TimeZone::UTC);
    }
    if let Some(seconds) = abbreviation_offset(trimmed) {
        return Offset::from_seconds(seconds).map(TimeZone::fixed).map_err(|_| unknown_zone(name));
    }
    if let Ok(zone) = TimeZone::get(trimmed) {
        return Ok(zone);
    }
    if let Some(seconds) = parse_offset(trimmed) {
        // POSIX: positive is west.
        return Offset::from_seconds(-seconds).map(TimeZone::fixed).map_err(|_| unknown_zone(name));
    }
    if let Some(zone) = posix_zone(trimmed) {
        return Ok(zone);
    }
    Err(unknown_zone(name))
}

/// `UTC+3`, `<+03>-3`, `EST5EDT`-like: a POSIX zone.
fn posix_zone(name: &str) -> Option<TimeZone> {
    if let Ok(zone) = TimeZone::posix(name) {
        return Some(zone);
    }
    let at = name.find(['+', '-'])?;
    name[..at].bytes().all(|c| c.is_ascii_alphabetic()).then_some(())?;
    let seconds = parse_offset(&name[at..])?;
    Offset::from_seconds(-seconds).ok().map(TimeZone::fixed)
}

/// `+hh[:mm[:ss]]`, `+hhmm`: seconds east.
fn parse_offset(s: &str) -> Option<i32> {
    let (sign, body) = match s.as_bytes().first()? {
        b'+' => (1, &s[1..]),
        b'-' => (-1, &s[1..]),
        _ => return None,
    };
    if body.is_empty() || !body.bytes().all(|c| c.is_ascii_digit() || c == b':') {
        return None;
    }
    let (h, m, sec): (i32, i32, i32) = if body.contains(':') {
        let mut parts = body.split(':').map(|p| p.parse::<i32>().ok());
        let h = parts.next()??;
        let m = parts.next()??;
        let s = match parts.next() {
            Some(v) => v?,
            None => 0,
        };
        (h, m, s)
    } else {
        let v: i32 = body.parse().ok()?;
        match body.len() {
            1 | 2 => (v, 0, 0),
            3 | 4 => (v / 100, v % 100, 0),
            6 => (v / 10_000, v / 100 % 100, v % 100),
            _ => return None,
        }
    };
    (h <= 15 && m < 60 && sec < 60).then_some(sign * (h * 3600 + m * 60 + sec))
}

// ---------------------------------------------------------------------------------------------------------------------
// Reading

/// What the words of a date/time literal say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    date: Option<Ymd>,
    time: Option<i64>,
    zone: Option<Zone>,
    special: Option<Special>,
}

#[derive(Clone, Debug)]
enum Zone {
    /// Seconds east.
    Fixed(i32),
    Named(TimeZone),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Special {
    Infinity,
    NegInfinity,
    Epoch,
    Now,
    Today,
    Tomorrow,
    Yesterday,
}

enum Problem {
    Syntax,
    Range,
    MonthRange,
    ZoneRange,
    UnknownZone(String),
}

fn problem(p: Problem, type_name: &str, text: &str) -> SqlError {
    match p {
        Problem::Syntax => {
            SqlError::new(SqlState::INVALID_DATETIME_FORMAT, format!("invalid input syntax for type {type_name}: \"{text}\""))
        }
        Problem::Range => SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("date/time field value out of range: \"{text}\"")),
        Problem::MonthRange => problem(Problem::Range, type_name, text).hint("Perhaps you need a different \"datestyle\" setting."),
        Problem::ZoneRange => {
            SqlError::new(SqlState::INVALID_TIME_ZONE_DISPLACEMENT_VALUE, format!("time zone displacement out of range: \"{text}\""))
        }
        Problem::UnknownZone(name) => unknown_zone(&name),
    }
}

fn month_by_name(s: &str) -> Option<u32> {
    let s = s.trim_end_matches('.');
    if s.len() < 3 {
        return None;
    }
    MONTH_NAMES
        .iter()
        .position(|m| m.eq_ignore_ascii_case(s) || (s.len() == 3 && m[..3].eq_ignore_ascii_case(s)))
        .map_or_else(|| s.eq_ignore_ascii_case("sept").then_some(9), |i| u32::try_from(i + 1).ok())
}

fn is_day_name(s: &str) -> bool {
    let s = s.trim_end_matches('.');
    s.len() >= 3
        && (DAY_NAMES.iter().any(|d| d.eq_ignore_ascii_case(s) || (s.len() == 3 && d[..3].eq_ignore_ascii_case(s)))
            || ["tues", "wednes", "weds", "thur", "thurs"].iter().any(|d| d.eq_ignore_ascii_case(s)))
}

/// `hh:mm[:ss[.ffffff]]`: microseconds; 24:00:00 and second 60 allowed.
fn parse_clock(s: &str) -> Result<i64, Problem> {
    let mut parts = s.splitn(3, ':');
    let number = |p: Option<&str>| {
        p.filter(|p| !p.is_empty() && p.len() <= 2 && p.bytes().all(|c| c.is_ascii_digit()))
            .and_then(|p| p.parse::<i64>().ok())
            .ok_or(Problem::Syntax)
    };
    let h = number(parts.next())?;
    let m = number(parts.next())?;
    let micros = match parts.next() {
        None => 0,
        Some(sec) => {
            let (whole, fraction) = sec.split_once('.').unwrap_or((sec, ""));
            number(Some(whole))? * SECOND + parse_fraction(fraction)?
        }
    };
    clock(h, m, micros)
}

fn clock(h: i64, m: i64, micros: i64) -> Result<i64, Problem> {
    if h > 24 || m > 59 || micros > 60 * SECOND || (h == 24 && (m > 0 || micros > 0)) {
        return Err(Problem::Range);
    }
    Ok(h * HOUR + m * MINUTE + micros)
}

/// Digits after the point of a second, as microseconds, rounded.
fn parse_fraction(digits: &str) -> Result<i64, Problem> {
    if digits.is_empty() {
        return Ok(0);
    }
    if !digits.bytes().all(|c| c.is_ascii_digit()) {
        return Err(Problem::Syntax);
    }
    let mut v = 0i64;
    for i in 0..6 {
        v = v * 10 + digits.as_bytes().get(i).map_or(0, |c| i64::from(c - b'0'));
    }
    Ok(v + i64::from(digits.as_bytes().get(6).is_some_and(|&c| c >= b'5')))
}

/// Splits a literal into words: numbers with their separators, letters, zone offsets.
fn tokens(text: &str) -> Result<Vec<&str>, Problem> {
    let mut out = Vec::new();
    let b = text.as_bytes();
    let mut i = 0;
    while i < b.len() {
        let c = char::from(b[i]);
        let start = i;
        if is_space(c) || c == ',' {
            i += 1;
            continue;
        }
        if c.is_ascii_digit() {
            // A date, a clock or a plain number; letters may follow within a date (12-Jan-2024).
            while i < b.len() && b[i].is_ascii_digit() {
                i += 1;
            }
            let first_end = i;
            match b.get(i) {
                Some(b':') => {
                    while i < b.len() && (b[i].is_ascii_digit() || b[i] == b':' || b[i] == b'.') {
                        i += 1;
                    }
                }
                Some(&sep @ (b'-' | b'/' | b'.')) => {
                    let next_alpha = b.get(i + 1).is_some_and(u8::is_ascii_alphabetic);
                    let next_digit = b.get(i + 1).is_some_and(u8::is_ascii_digit);
                    // `0530-08`: a clock without colons and a zone; `20240131-08` likewise.
                    let long = sep == b'-' && first_end - start > 4 && first_end - start != 7 && !is_long_year(&b[i..]);
                    if (next_digit || next_alpha) && !long {
                        i += 1;
                        while i < b.len()
                            && (b[i].is_ascii_alphanumeric() || b[i] == sep)
                            && !(b[i].eq_ignore_ascii_case(&b't')
                                && b.get(i + 1).is_some_and(u8::is_ascii_digit)
                                && b[i - 1].is_ascii_digit())
                        {
                            i += 1;
                        }
                    } else if sep == b'.' {
                        i += 1;
                        while i < b.len() && b[i].is_ascii_digit() {
                            i += 1;
                        }
                    }
                }
                _ => {}
            }
            out.push(&text[start..i]);
        } else if c.is_ascii_alphabetic() {
            while i < b.len()
                && (b[i].is_ascii_alphanumeric() || matches!(b[i], b'_' | b'.') || (matches!(b[i], b'/' | b'-' | b'+') && i - start >= 1))
            {
                // A sign belongs to a zone name (`Etc/GMT+3`, `GMT-3`), not to a following offset unless digits come.
                if b[i].is_ascii_digit() && i - start == 1 && matches!(b[start], b't' | b'T' | b'j' | b'J') {
                    break;
                }
                i += 1;
            }
            out.push(&text[start..i]);
        } else if matches!(c, '+' | '-') {
            i += 1;
            while i < b.len() && is_space(char::from(b[i])) {
                i += 1;
            }
            while i < b.len() && (b[i].is_ascii_alphanumeric() || b[i] == b':' || b[i] == b'.') {
                i += 1;
            }
            out.push(&text[start..i]);
        } else {
            return Err(Problem::Syntax);
        }
    }
    Ok(out)
}

/// Does `-mm-dd` follow, so that the digits before it are a year of more than four?
fn is_long_year(b: &[u8]) -> bool {
    let digits = |b: &[u8]| b.iter().take_while(|c| c.is_ascii_digit()).count();
    let Some(rest) = b.strip_prefix(b"-") else { return false };
    let month = digits(rest);
    (1..=2).contains(&month) && rest.get(month) == Some(&b'-') && digits(&rest[month + 1..]) > 0
}

/// A date with separators: `2024-01-31`, `1/31/2024`, `31-Jan-2024`, `31.1.2024`.
fn parse_date_token(s: &str, order: DateOrder) -> Result<(Ymd, bool), Problem> {
    let sep = s.chars().find(|c| matches!(c, '-' | '/' | '.')).ok_or(Problem::Syntax)?;
    let parts: Vec<&str> = s.split(sep).collect();
    let number = |p: &str| {
        if p.is_empty() || !p.bytes().all(|c| c.is_ascii_digit()) {
            Err(Problem::Syntax)
        } else {
            p.parse::<i32>().map(i64::from).map_err(|_| Problem::Range)
        }
    };
    // year-dayofyear
    if let [y, doy] = parts.as_slice()
        && doy.len() == 3
        && y.len() >= 4
    {
        let (y, doy) = (number(y)?, number(doy)?);
        if doy < 1 || doy > 365 + i64::from(is_leap(y)) {
            return Err(Problem::Range);
        }
        return Ok((ymd_from_days(days_from_ymd(y, 1, 1) + doy - 1), true));
    }
    let [a, b, c] = parts.as_slice() else { return Err(Problem::Syntax) };
    let named = |p: &str| month_by_name(p).map(i64::from);
    // (year text, month, day)
    let (y, m, d) = if let Some(m) = named(b) {
        if a.len() > 2 { (*a, m, number(c)?) } else { (*c, m, number(a)?) }
    } else if let Some(m) = named(a) {
        (*c, m, number(b)?)
    } else if a.len() > 2 {
        (*a, number(b)?, number(c)?)
    } else {
        match order {
            DateOrder::Ymd if c.len() <= 2 => (*a, number(b)?, number(c)?),
            DateOrder::Dmy => (*c, number(b)?, number(a)?),
            DateOrder::Mdy | DateOrder::Ymd => (*c, number(a)?, number(b)?),
        }
    };
    let ambiguous = a.len() <= 2 && named(a).is_none() && named(b).is_none();
    let year = number(y)?;
    let explicit = y.len() > 2;
    let year = if explicit { year } else { full_year(year) };
    check_date(year, m, d, explicit).map(|d| (d, explicit)).map_err(|p| if ambiguous { Problem::MonthRange } else { p })
}

fn full_year(y: i64) -> i64 {
    if y < 70 { y + 2000 } else { y + 1900 }
}

fn check_date(year: i64, month: i64, day: i64, _explicit: bool) -> Result<Ymd, Problem> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return Err(Problem::MonthRange);
    }
    let year = i32::try_from(year).map_err(|_| Problem::Range)?;
    let (month, day) = (u32::try_from(month).unwrap_or(1), u32::try_from(day).unwrap_or(1));
    // Day against month is checked once the era is known.
    Ok(Ymd { year, month, day })
}

/// Reads the words of a literal.
fn parse_fields(text: &str, time_only: bool, io: &IoSettings) -> Result<Fields, Problem> {
    let mut f = Fields::default();
    let mut bc = false;
    let mut pm: Option<bool> = None;
    let mut month_word: Option<u32> = None;
    let mut numbers: Vec<&str> = Vec::new();
    let words = tokens(text)?;
    if words.is_empty() {
        return Err(Problem::Syntax);
    }
    let mut i = 0;
    while i < words.len() {
        let w = words[i];
        i += 1;
        let first = w.as_bytes()[0];
        if matches!(first, b'+' | b'-') {
            let body: String = w.chars().filter(|c| !is_space(*c)).collect();
            if body.eq_ignore_ascii_case("-infinity") || body.eq_ignore_ascii_case("-inf") {
                f.special = Some(Special::NegInfinity);
                continue;
            }
            if f.zone.is_some() && !matches!(f.zone, Some(Zone::Fixed(0))) {
                return Err(Problem::Syntax);
            }
            let all_numeric = body[1..].bytes().all(|c| c.is_ascii_digit() || c == b':');
            let seconds = parse_offset(&body).ok_or(if all_numeric { Problem::ZoneRange } else { Problem::Syntax })?;
            f.zone = Some(Zone::Fixed(seconds));
            continue;
        }
        if first.is_ascii_digit() {
            if w.contains(':') {
                if f.time.is_some() {
                    return Err(Problem::Syntax);
                }
                f.time = Some(parse_clock(w)?);
            } else if w.contains(['-', '/']) || w.bytes().filter(|c| *c == b'.').count() == 2 || w.bytes().any(|c| c.is_ascii_alphabetic())
            {
                if f.date.is_some() {
                    return Err(Problem::Syntax);
                }
                f.date = Some(parse_date_token(w, io.date_order)?.0);
            } else {
                numbers.push(w);
            }
            continue;
        }
        let lower = w.to_ascii_lowercase();
        match lower.as_str() {
            "t" if f.date.is_some() || !numbers.is_empty() => {
                // The next word is a clock: with colons it is seen as one, without it is hhmmss.
                if let Some(next) = words.get(i).filter(|n| n.bytes().all(|c| c.is_ascii_digit() || c == b'.')) {
                    f.time = Some(compact_clock(next)?);
                    i += 1;
                }
            }
            "t" => {
                if let Some(next) = words.get(i).filter(|n| n.bytes().all(|c| c.is_ascii_digit() || c == b'.')) {
                    f.time = Some(compact_clock(next)?);
                    i += 1;
                }
            }
            "j" => {
                let next = words.get(i).ok_or(Problem::Syntax)?;
                let julian = next.parse::<i32>().map(i64::from).map_err(|_| Problem::Syntax)?;
                f.date = Some(ymd_from_days(julian - i64::from(JULIAN_2000)));
                i += 1;
            }
            "ad" => {}
            "bc" => bc = true,
            "am" => pm = Some(false),
            "pm" => pm = Some(true),
            "at" | "on" | "th" | "st" | "nd" | "rd" => {}
            "infinity" | "inf" => f.special = Some(Special::Infinity),
            "epoch" => f.special = Some(Special::Epoch),
            "now" => f.special = Some(Special::Now),
            "today" => f.special = Some(Special::Today),
            "tomorrow" => f.special = Some(Special::Tomorrow),
            "yesterday" => f.special = Some(Special::Yesterday),
            "allballs" => {
                f.time = Some(0);
                f.zone = Some(Zone::Fixed(0));
            }
            _ => {
                if let Some(m) = month_by_name(&lower) {
                    month_word = Some(m);
                } else if is_day_name(&lower) {
                } else if let Some((head, tail)) = split_date_word(w) {
                    // Jan-31-2024 and the like.
                    let _ = (head, tail);
                    f.date = Some(parse_date_token(w, io.date_order)?.0);
                } else if let Some(seconds) = abbreviation_offset(&lower) {
                    f.zone = Some(Zone::Fixed(seconds));
                } else if lower == "dst" {
                    return Err(Problem::Syntax);
                } else if w.contains('/') || w.contains(['+', '-']) || w.len() > 2 {
                    match time_zone(w) {
                        Ok(z) => f.zone = Some(Zone::Named(z)),
                        Err(_) if w.contains('/') => return Err(Problem::UnknownZone(lower)),
                        Err(_) => return Err(Problem::Syntax),
                    }
                } else {
                    return Err(Problem::Syntax);
                }
            }
        }
    }
    take_numbers(&mut f, &numbers, month_word, time_only, bc, io)?;
    if let Some(pm) = pm {
        let t = f.time.ok_or(Problem::Syntax)?;
        let h = t / HOUR;
        if !(1..=12).contains(&h) {
            return Err(Problem::Range);
        }
        f.time = Some(t % HOUR + (h % 12 + if pm { 12 } else { 0 }) * HOUR);
    }
    if let Some(d) = &mut f.date {
        if bc {
            if d.year <= 0 {
                return Err(Problem::Range);
            }
            d.year = 1 - d.year;
        } else if d.year <= 0 && !words.iter().any(|w| w.starts_with(['J', 'j'])) {
            return Err(Problem::Range);
        }
        if d.day > days_in_month(i64::from(d.year), d.month) {
            return Err(Problem::Range);
        }
    }
    Ok(f)
}

fn split_date_word(w: &str) -> Option<(&str, &str)> {
    let (head, tail) = w.split_once(['-', '/', '.'])?;
    (month_by_name(head).is_some() && tail.bytes().next()?.is_ascii_digit()).then_some((head, tail))
}

fn compact_clock(s: &str) -> Result<i64, Problem> {
    let (whole, fraction) = s.split_once('.').unwrap_or((s, ""));
    let v: i64 = whole.parse().map_err(|_| Problem::Syntax)?;
    let micros = parse_fraction(fraction)?;
    match whole.len() {
        2 => clock(v, 0, micros),
        4 => clock(v / 100, v % 100, micros),
        6 => clock(v / 10_000, v / 100 % 100, v % 100 * SECOND + micros),
        _ => Err(Problem::Syntax),
    }
}

/// Gives plain numbers their meaning: `Jan 31 2024`, `20240131`, `20240131 103000`.
fn take_numbers(f: &mut Fields, numbers: &[&str], month: Option<u32>, time_only: bool, bc: bool, io: &IoSettings) -> Result<(), Problem> {
    let parse = |s: &str| s.parse::<i64>().map_err(|_| Problem::Syntax);
    if let Some(m) = month {
        if f.date.is_some() {
            return Err(Problem::Syntax);
        }
        let (y, d) = match numbers {
            [a, b] if a.len() > 2 => (*a, *b),
            [a, b] => (*b, *a),
            _ => return Err(Problem::Syntax),
        };
        let year = if y.len() > 2 || bc { parse(y)? } else { full_year(parse(y)?) };
        f.date = Some(check_date(year, i64::from(m), parse(d)?, y.len() > 2)?);
        return Ok(());
    }
    let mut rest = numbers;
    if f.date.is_none()
        && !time_only
        && let [first, tail @ ..] = rest
    {
        let whole = first.split('.').next().unwrap_or(first);
        match whole.len() {
            // Year and day of the year.
            4 if first.len() == 8 && first.as_bytes()[4] == b'.' => {
                let (year, of_year) = (parse(whole)?, parse(&first[5..])?);
                if of_year < 1 || of_year > 365 + i64::from(is_leap(year)) {
                    return Err(Problem::Range);
                }
                f.date = Some(ymd_from_days(days_from_ymd(year, 1, 1) + of_year - 1));
                rest = tail;
            }
            8 => {
                let v = parse(whole)?;
                f.date = Some(check_date(v / 10_000, v / 100 % 100, v % 100, true)?);
                rest = tail;
            }
            6 if f.time.is_some() || !tail.is_empty() || !first.contains('.') => {
                let v = parse(whole)?;
                f.date = Some(check_date(full_year(v / 10_000), v / 100 % 100, v % 100, false)?);
                rest = tail;
            }
            7 => {
                let v = parse(whole)?;
                f.date = Some(ymd_from_days(days_from_ymd(v / 1000, 1, 1) + v % 1000 - 1));
                rest = tail;
            }
            14 => {
                f.date = Some(check_date(parse(&whole[..4])?, parse(&whole[4..6])?, parse(&whole[6..8])?, true)?);
                f.time = Some(compact_clock(&first[8..])?);
                rest = tail;
            }
            _ => {
                // Three numbers apart: in the order of DateStyle.
                if let [a, b, c] = rest {
                    let (y, m, d) = match io.date_order {
                        _ if a.len() > 2 => (*a, *b, *c),
                        DateOrder::Ymd => (*a, *b, *c),
                        DateOrder::Dmy => (*c, *b, *a),
                        DateOrder::Mdy => (*c, *a, *b),
                    };
                    let year = if y.len() > 2 { parse(y)? } else { full_year(parse(y)?) };
                    f.date = Some(check_date(year, parse(m)?, parse(d)?, true)?);
                    rest = &[];
                }
            }
        }
    }
    match rest {
        [] => Ok(()),
        [clock] if f.time.is_none() => {
            f.time = Some(compact_clock(clock)?);
            Ok(())
        }
        _ => Err(Problem::Syntax),
    }
}

/// `YYYY-MM-DD[ HH:MM:SS[.ffffff]]`, nothing else: (days, micros).
fn parse_iso(text: &str) -> Option<(i64, i64)> {
    let b = text.as_bytes();
    let two = |i: usize| {
        let (x, y) = (b.get(i)?.wrapping_sub(b'0'), b.get(i + 1)?.wrapping_sub(b'0'));
        (x < 10 && y < 10).then_some(i64::from(x) * 10 + i64::from(y))
    };
    if b.len() < 10 || b[4] != b'-' || b[7] != b'-' {
        return None;
    }
    let (year, month, day) = (two(0)? * 100 + two(2)?, u32::try_from(two(5)?).ok()?, u32::try_from(two(8)?).ok()?);
    if year == 0 || !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let days = days_from_ymd(year, month, day);
    if b.len() == 10 {
        return Some((days, 0));
    }
    if b.len() < 19 || !matches!(b[10], b' ' | b'T') || b[13] != b':' || b[16] != b':' {
        return None;
    }
    let (h, m, s) = (two(11)?, two(14)?, two(17)?);
    if h > 23 || m > 59 || s > 59 {
        return None;
    }
    let fraction = match b.get(19) {
        None => 0,
        Some(b'.') if b.len() > 20 => parse_fraction(&text[20..]).ok()?,
        Some(_) => return None,
    };
    Some((days, h * HOUR + m * MINUTE + s * SECOND + fraction))
}

/// Reads a `timestamp`. A zone in the text is ignored, as PostgreSQL does.
///
/// # Errors
/// `22007`, `22008`.
pub fn parse_timestamp(text: &str, io: &IoSettings) -> Result<i64, SqlError> {
    if let Some((days, micros)) = parse_iso(text) {
        return Ok(days * DAY + micros);
    }
    let fail = |p| problem(p, "timestamp", text);
    let f = parse_fields(text, false, io).map_err(fail)?;
    if let Some(special) = f.special {
        return match special {
            Special::Infinity => Ok(i64::MAX),
            Special::NegInfinity => Ok(i64::MIN),
            Special::Epoch => Ok(UNIX_EPOCH),
            Special::Now => Ok(to_local(io.now, &io.time_zone)),
            Special::Today | Special::Tomorrow | Special::Yesterday => Ok(special_day(special, io) * DAY + f.time.unwrap_or(0)),
        };
    }
    let local = local_time(&f).ok_or_else(|| fail(Problem::Syntax))?;
    check_timestamp(local).map_err(|_| out_of_range("timestamp", text))
}

fn out_of_range(what: &str, text: &str) -> SqlError {
    SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("{what} out of range: \"{text}\""))
}

fn special_day(special: Special, io: &IoSettings) -> i64 {
    let (today, _) = split(to_local(io.now, &io.time_zone));
    today
        + match special {
            Special::Tomorrow => 1,
            Special::Yesterday => -1,
            Special::Infinity | Special::NegInfinity | Special::Epoch | Special::Now | Special::Today => 0,
        }
}

fn local_time(f: &Fields) -> Option<i128> {
    let d = f.date?;
    let days = days_from_ymd(i64::from(d.year), d.month, d.day);
    Some(i128::from(days) * i128::from(DAY) + i128::from(f.time.unwrap_or(0)))
}

/// Reads a `timestamptz`; without a zone in the text, the session's.
///
/// # Errors
/// `22007`, `22008`, `22009`, `22023` for an unknown zone.
pub fn parse_timestamptz(text: &str, io: &IoSettings) -> Result<i64, SqlError> {
    if let Some((days, micros)) = parse_iso(text) {
        return to_utc(days * DAY + micros, &io.time_zone);
    }
    let fail = |p| problem(p, "timestamp with time zone", text);
    let f = parse_fields(text, false, io).map_err(fail)?;
    let local = match f.special {
        Some(Special::Infinity) => return Ok(i64::MAX),
        Some(Special::NegInfinity) => return Ok(i64::MIN),
        Some(Special::Epoch) => return Ok(UNIX_EPOCH),
        Some(Special::Now) => return Ok(io.now),
        Some(special) => i128::from(special_day(special, io) * DAY + f.time.unwrap_or(0)),
        None => local_time(&f).ok_or_else(|| fail(Problem::Syntax))?,
    };
    let near = i64::try_from(local).map_err(|_| out_of_range("timestamp", text))?;
    let east = match &f.zone {
        Some(Zone::Fixed(s)) => *s,
        Some(Zone::Named(z)) => local_offset(z, near),
        None => local_offset(&io.time_zone, near),
    };
    check_timestamp(local - i128::from(east) * i128::from(SECOND)).map_err(|_| out_of_range("timestamp", text))
}

/// Reads a `date`.
///
/// # Errors
/// `22007`, `22008`.
pub fn parse_date(text: &str, io: &IoSettings) -> Result<i32, SqlError> {
    let fail = |p| problem(p, "date", text);
    let days = if let Some((days, _)) = parse_iso(text) {
        days
    } else {
        let f = parse_fields(text, false, io).map_err(fail)?;
        match f.special {
            Some(Special::Infinity) => return Ok(i32::MAX),
            Some(Special::NegInfinity) => return Ok(i32::MIN),
            Some(Special::Epoch) => UNIX_EPOCH / DAY,
            Some(special) => special_day(special, io),
            None => {
                let d = f.date.ok_or_else(|| fail(Problem::Syntax))?;
                days_from_ymd(i64::from(d.year), d.month, d.day)
            }
        }
    };
    i32::try_from(days).ok().filter(|d| (DATE_MIN..DATE_END).contains(d)).ok_or_else(|| out_of_range("date", text))
}

/// Reads a `time`.
///
/// # Errors
/// `22007`, `22008`.
pub fn parse_time(text: &str, io: &IoSettings) -> Result<i64, SqlError> {
    parse_time_fields(text, io, "time").map(|(t, _)| t)
}

/// Reads a `timetz`: microseconds, and the zone in seconds west.
///
/// # Errors
/// `22007`, `22008`.
pub fn parse_timetz(text: &str, io: &IoSettings) -> Result<(i64, i32), SqlError> {
    let (t, f) = parse_time_fields(text, io, "time with time zone")?;
    let day = f.date.map_or_else(|| split(to_local(io.now, &io.time_zone)).0, |d| days_from_ymd(i64::from(d.year), d.month, d.day));
    let east = match &f.zone {
        Some(Zone::Fixed(s)) => *s,
        Some(Zone::Named(z)) => local_offset(z, day * DAY + t),
        None => local_offset(&io.time_zone, day * DAY + t),
    };
    Ok((t, -east))
}

fn parse_time_fields(text: &str, io: &IoSettings, type_name: &str) -> Result<(i64, Fields), SqlError> {
    let fail = |p| problem(p, type_name, text);
    let words = tokens(text).map_err(fail)?;
    // `0405`, `040506`: a clock without colons stands alone here.
    if let [one] = words.as_slice()
        && one.bytes().all(|c| c.is_ascii_digit() || c == b'.')
        && one.split('.').next().is_some_and(|w| w.len() > 2)
    {
        return compact_clock(one).map(|t| (t, Fields::default())).map_err(fail);
    }
    let f = parse_fields(text, true, io).map_err(fail)?;
    match (f.time, f.special) {
        (_, Some(Special::Now)) => {
            let (_, t) = split(to_local(io.now, &io.time_zone));
            Ok((t, f))
        }
        (Some(t), None) => Ok((t, f)),
        _ => Err(fail(Problem::Syntax)),
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Writing

fn push_fraction(micros: i64, out: &mut String) {
    if micros != 0 {
        let digits = format!("{micros:06}");
        out.push('.');
        out.push_str(digits.trim_end_matches('0'));
    }
}

/// `hh:mm:ss[.ffffff]`.
pub fn write_time(micros: i64, out: &mut String) {
    let seconds = micros / SECOND;
    push2(out, seconds / 3600);
    out.push(':');
    push2(out, seconds / 60 % 60);
    out.push(':');
    push2(out, seconds % 60);
    push_fraction(micros % SECOND, out);
}

fn push2(out: &mut String, v: i64) {
    let _infallible = write!(out, "{v:02}");
}

/// `+hh[:mm[:ss]]`, given seconds east.
pub fn write_offset(east: i32, out: &mut String) {
    out.push(if east < 0 { '-' } else { '+' });
    let s = i64::from(east.abs());
    push2(out, s / 3600);
    if s % 3600 != 0 {
        out.push(':');
        push2(out, s / 60 % 60);
        if s % 60 != 0 {
            out.push(':');
            push2(out, s % 60);
        }
    }
}

/// `timetz`: the zone in seconds west.
pub fn write_timetz(micros: i64, west: i32, out: &mut String) {
    write_time(micros, out);
    write_offset(-west, out);
}

/// Year as shown (1 BC is year 0), and whether it is BC.
fn shown_year(year: i32) -> (i32, bool) {
    if year <= 0 { (1 - year, true) } else { (year, false) }
}

/// `date`.
pub fn write_date(days: i32, io: &IoSettings, out: &mut String) {
    match days {
        i32::MAX => return out.push_str("infinity"),
        i32::MIN => return out.push_str("-infinity"),
        _ => {}
    }
    let d = ymd_from_days(i64::from(days));
    let (y, bc) = shown_year(d.year);
    let dmy = io.date_order == DateOrder::Dmy;
    let _infallible = match io.date_style {
        DateStyle::Iso => write!(out, "{y:04}-{:02}-{:02}", d.month, d.day),
        DateStyle::Sql if dmy => write!(out, "{:02}/{:02}/{y:04}", d.day, d.month),
        DateStyle::Sql => write!(out, "{:02}/{:02}/{y:04}", d.month, d.day),
        DateStyle::Postgres if dmy => write!(out, "{:02}-{:02}-{y:04}", d.day, d.month),
        DateStyle::Postgres => write!(out, "{:02}-{:02}-{y:04}", d.month, d.day),
        DateStyle::German => write!(out, "{:02}.{:02}.{y:04}", d.day, d.month),
    };
    if bc {
        out.push_str(" BC");
    }
}

/// `timestamp`.
pub fn write_timestamp(ts: i64, io: &IoSettings, out: &mut String) {
    write_moment(ts, None, io, out);
}

/// `timestamptz`, in the session's zone.
pub fn write_timestamptz(ts: i64, io: &IoSettings, out: &mut String) {
    if is_infinite(ts) {
        return write_moment(ts, None, io, out);
    }
    let (east, abbreviation) = if io.date_style == DateStyle::Iso {
        (offset_seconds(&io.time_zone, ts), String::new())
    } else {
        let (east, name, _) = offset_at(&io.time_zone, ts);
        (east, name)
    };
    write_moment(ts + i64::from(east) * SECOND, Some((east, &abbreviation)), io, out);
}

fn write_moment(local: i64, zone: Option<(i32, &str)>, io: &IoSettings, out: &mut String) {
    match local {
        i64::MAX => return out.push_str("infinity"),
        i64::MIN => return out.push_str("-infinity"),
        _ => {}
    }
    let (days, micros) = split(local);
    let d = ymd_from_days(days);
    let (y, bc) = shown_year(d.year);
    let dmy = io.date_order == DateOrder::Dmy;
    let month = MONTHS[d.month as usize - 1];
    let _infallible = match io.date_style {
        DateStyle::Iso => write!(out, "{y:04}-{:02}-{:02} ", d.month, d.day),
        DateStyle::Sql if dmy => write!(out, "{:02}/{:02}/{y:04} ", d.day, d.month),
        DateStyle::Sql => write!(out, "{:02}/{:02}/{y:04} ", d.month, d.day),
        DateStyle::German => write!(out, "{:02}.{:02}.{y:04} ", d.day, d.month),
        DateStyle::Postgres => {
            let day_name = DAYS[weekday(days) as usize];
            if dmy { write!(out, "{day_name} {:02} {month} ", d.day) } else { write!(out, "{day_name} {month} {:02} ", d.day) }
        }
    };
    write_time(micros, out);
    if io.date_style == DateStyle::Postgres {
        let _infallible = write!(out, " {y:04}");
    }
    if let Some((east, name)) = zone {
        let word = !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphabetic());
        match io.date_style {
            DateStyle::Iso => write_offset(east, out),
            DateStyle::Sql | DateStyle::German | DateStyle::Postgres => {
                out.push(' ');
                if word { out.push_str(name) } else { write_offset(east, out) }
            }
        }
    }
    if bc {
        out.push_str(" BC");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ts(s: &str) -> String {
        let io = IoSettings::default();
        let mut out = String::new();
        match parse_timestamp(s, &io) {
            Ok(t) => write_timestamp(t, &io, &mut out),
            Err(e) => out = format!("{}: {e}", e.state()),
        }
        out
    }

    #[test]
    fn calendar_inverts() {
        for days in [-2_451_545i64, -730_426, -730_425, -1, 0, 59, 60, 366, 10_000, 2_000_000] {
            let d = ymd_from_days(days);
            assert_eq!(days_from_ymd(i64::from(d.year), d.month, d.day), days);
        }
        assert_eq!(ymd_from_days(0), Ymd { year: 2000, month: 1, day: 1 });
        assert_eq!(weekday(0), 6);
        assert_eq!(days_from_ymd(1970, 1, 1), UNIX_EPOCH / DAY);
    }

    #[test]
    fn timestamps_read_many_spellings() {
        for s in [
            "2024-01-31 10:20:30.5",
            "2024-01-31T10:20:30.5",
            "20240131T102030.5",
            "Jan 31 10:20:30.5 2024",
            "Wed Jan 31 10:20:30.5 2024",
            "31 January 2024 10:20:30.5",
            "1/31/2024 10:20:30.5",
            "31-Jan-2024 10:20:30.5",
            "2024-01-31 10:20:30.5+05",
            "2024-01-31 10:20:30.5 AD",
            "2024-01-31 10:20:30.5 AM",
        ] {
            assert_eq!(ts(s), "2024-01-31 10:20:30.5", "{s}");
        }
        assert_eq!(ts("infinity"), "infinity");
        assert_eq!(ts("epoch"), "1970-01-01 00:00:00");
        assert_eq!(ts("0044-03-15 BC"), "0044-03-15 00:00:00 BC");
        assert_eq!(ts("2024-13-01"), "22008: date/time field value out of range: \"2024-13-01\"");
        assert_eq!(ts("2024-02-30"), "22008: date/time field value out of range: \"2024-02-30\"");
        assert_eq!(ts("nonsense"), "22007: invalid input syntax for type timestamp: \"nonsense\"");
    }

    #[test]
    fn zones_apply_on_input_and_output() {
        let mut io = IoSettings { time_zone: TimeZone::get("America/New_York").unwrap(), ..IoSettings::default() };
        let mut out = String::new();
        write_timestamptz(parse_timestamptz("2024-07-01 12:00:00", &io).unwrap(), &io, &mut out);
        assert_eq!(out, "2024-07-01 12:00:00-04");
        out.clear();
        write_timestamptz(parse_timestamptz("2024-01-01 12:00:00Z", &io).unwrap(), &io, &mut out);
        assert_eq!(out, "2024-01-01 07:00:00-05");
        out.clear();
        io.date_style = DateStyle::Postgres;
        write_timestamptz(parse_timestamptz("2024-01-01 12:00:00 Europe/Paris", &io).unwrap(), &io, &mut out);
        assert_eq!(out, "Mon Jan 01 06:00:00 2024 EST");
    }
}
