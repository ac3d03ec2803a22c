//! Date and time arithmetic, fields, truncation, construction.

use jiff::tz::TimeZone;

use super::call::{Call, ScalarFn};
use super::integer::division_by_zero;
use crate::sql::types::compare::interval_span;
use crate::sql::types::datetime::{
    self as dt, DAY, HOUR, JULIAN_2000, MINUTE, SECOND, Ymd, days_from_ymd, days_in_month, is_infinite, split, to_local, to_utc, weekday,
    ymd_from_days,
};
use crate::sql::types::interval::out_of_range as interval_out_of_range;
use crate::sql::types::{Datum, Interval, Numeric};
use crate::sqlstate::{SqlError, SqlState};

type Out = Result<Datum, SqlError>;

/// `timestamp + interval`: months first (the day clipped to the month), then days, then time.
///
/// # Errors
/// `22008`.
pub(super) fn add_interval(ts: i64, i: Interval) -> Result<i64, SqlError> {
    if is_infinite(ts) {
        return Ok(ts);
    }
    let (days, micros) = split(ts);
    let days = add_months(days, i.months)? + i64::from(i.days);
    dt::check_timestamp(i128::from(days) * i128::from(DAY) + i128::from(micros) + i128::from(i.micros))
}

fn add_months(days: i64, months: i32) -> Result<i64, SqlError> {
    if months == 0 {
        return Ok(days);
    }
    let d = ymd_from_days(days);
    let total = i64::from(d.year) * 12 + i64::from(d.month) - 1 + i64::from(months);
    let (year, month) = (total.div_euclid(12), total.rem_euclid(12));
    let month = u32::try_from(month + 1).unwrap_or(1);
    Ok(days_from_ymd(year, month, d.day.min(days_in_month(year, month))))
}

/// `timestamptz + interval`: months and days move the local calendar of `zone`, time the instant.
///
/// # Errors
/// `22008`.
pub(super) fn add_interval_tz(ts: i64, i: Interval, zone: &TimeZone) -> Result<i64, SqlError> {
    if is_infinite(ts) {
        return Ok(ts);
    }
    let mut at = ts;
    if i.months != 0 || i.days != 0 {
        let local = to_local(at, zone);
        at = to_utc(add_interval(local, Interval { micros: 0, ..i })?, zone)?;
    }
    dt::check_timestamp(i128::from(at) + i128::from(i.micros))
}

fn neg(i: Interval) -> Result<Interval, SqlError> {
    i.checked_neg()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn ts(a: &Datum) -> Result<i64, SqlError> {
    match a {
        Datum::Timestamp(v) | Datum::TimestampTz(v) => Ok(*v),
        other => Err(other.mismatch("Timestamp")),
    }
}

/// Difference of instants: days and time.
fn minus(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (x, y) = (ts(&a[0])?, ts(&a[1])?);
    if is_infinite(x) || is_infinite(y) {
        return Err(SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "cannot subtract infinite timestamps"));
    }
    let micros = x.checked_sub(y).ok_or_else(interval_out_of_range)?;
    Interval { months: 0, days: 0, micros }.justify_hours().map(Datum::Interval)
}

/// `age`: years, months, days and time between two local times.
fn age_between(x: i64, y: i64) -> Interval {
    let sign = if x < y { -1 } else { 1 };
    let ((dx, tx), (dy, ty)) = (split(x), split(y));
    let (a, b) = (ymd_from_days(dx), ymd_from_days(dy));
    let s = i64::from(sign);
    let mut years = s * (i64::from(a.year) - i64::from(b.year));
    let mut months = s * (i64::from(a.month) - i64::from(b.month));
    let mut days = s * (i64::from(a.day) - i64::from(b.day));
    let mut micros = s * (tx - ty);
    if micros < 0 {
        micros += DAY;
        days -= 1;
    }
    while days < 0 {
        // Borrow the length of the earlier date's month.
        let of = if x < y { a } else { b };
        days += i64::from(days_in_month(i64::from(of.year), of.month));
        months -= 1;
    }
    while months < 0 {
        months += 12;
        years -= 1;
    }
    Interval {
        months: i32::try_from(s * (years * 12 + months)).unwrap_or(0),
        days: i32::try_from(s * days).unwrap_or(0),
        micros: s * micros,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn age(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let zone = c.io().time_zone.clone();
    let local = |d: &Datum| match d {
        Datum::TimestampTz(t) => Ok(to_local(*t, &zone)),
        other => ts(other),
    };
    let (x, y) = (local(&a[0])?, local(&a[1])?);
    if is_infinite(x) || is_infinite(y) {
        return Err(dt::timestamp_out_of_range());
    }
    Ok(Datum::Interval(age_between(x, y)))
}

/// `age(x)`: from today's midnight.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn age_today(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let (today, _) = split(to_local(c.ctx.transaction_timestamp(), &c.io().time_zone));
    let zone = c.io().time_zone.clone();
    let then = match &a[0] {
        Datum::TimestampTz(t) => to_local(*t, &zone),
        other => ts(other)?,
    };
    Ok(Datum::Interval(age_between(today * DAY, then)))
}

// ---------------------------------------------------------------------------------------------------------------------
// Fields

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    Dow,
    IsoDow,
    Doy,
    IsoYear,
    Epoch,
    Julian,
    Timezone,
    TimezoneHour,
    TimezoneMinute,
}

fn field(name: &str) -> Option<Field> {
    use Field::*;
    Some(match name.to_ascii_lowercase().as_str() {
        "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecond" | "microseconds" | "microsec" | "microsecs" => Microsecond,
        "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecond" | "milliseconds" | "millisec" | "millisecs" => Millisecond,
        "s" | "sec" | "secs" | "second" | "seconds" => Second,
        "m" | "min" | "mins" | "minute" | "minutes" => Minute,
        "h" | "hr" | "hrs" | "hour" | "hours" => Hour,
        "d" | "day" | "days" => Day,
        "w" | "week" | "weeks" => Week,
        "mon" | "mons" | "month" | "months" => Month,
        "qtr" | "quarter" => Quarter,
        "y" | "yr" | "yrs" | "year" | "years" => Year,
        "dec" | "decs" | "decade" | "decades" => Decade,
        "c" | "cent" | "century" | "centuries" => Century,
        "mil" | "mils" | "millennium" | "millennia" => Millennium,
        "dow" => Dow,
        "isodow" => IsoDow,
        "doy" => Doy,
        "isoyear" => IsoYear,
        "epoch" => Epoch,
        "julian" | "jd" | "j" => Julian,
        "timezone" | "tz" => Timezone,
        "timezone_h" | "timezone_hour" => TimezoneHour,
        "timezone_m" | "timezone_minute" => TimezoneMinute,
        _ => return None,
    })
}

fn unknown_unit(name: &str, type_name: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("unit \"{}\" not recognized for type {type_name}", name.to_lowercase()))
}

fn unsupported_unit(name: &str, type_name: &str) -> SqlError {
    SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("unit \"{}\" not supported for type {type_name}", name.to_lowercase()))
}

/// ISO week number and its year.
pub(super) fn iso_week(days: i64) -> (i64, i64) {
    // The week belongs to the year its Thursday is in.
    let from_monday = i64::from((weekday(days) + 6) % 7);
    let thursday = days - from_monday + 3;
    let year = i64::from(ymd_from_days(thursday).year);
    ((thursday - days_from_ymd(year, 1, 1)) / 7 + 1, year)
}

/// Day of the year, from 1.
pub(super) fn day_of_year(days: i64) -> i64 {
    days - days_from_ymd(i64::from(ymd_from_days(days).year), 1, 1) + 1
}

/// An exact number with so many decimal places.
fn decimal(v: i128, scale: u16) -> Numeric {
    Numeric::from_i128(v, scale)
}

/// A field of a local time; `east` is the zone's offset where the type has one.
fn local_field(f: Field, local: i64, east: Option<i32>, utc: i64) -> Option<Numeric> {
    use Field::*;
    let (days, micros) = split(local);
    let d = ymd_from_days(days);
    let year = i64::from(d.year);
    let second = micros % MINUTE;
    // Year 0 is 1 BC, and is shown as -1.
    let shown = if year > 0 { year } else { year - 1 };
    let whole = |v: i64| Some(decimal(i128::from(v), 0));
    match f {
        Microsecond => whole(second),
        Millisecond => Some(decimal(i128::from(second), 3)),
        Second => Some(decimal(i128::from(second), 6)),
        Minute => whole(micros / MINUTE % 60),
        Hour => whole(micros / HOUR),
        Day => whole(i64::from(d.day)),
        Week => whole(iso_week(days).0),
        Month => whole(i64::from(d.month)),
        Quarter => whole((i64::from(d.month) - 1) / 3 + 1),
        Year => whole(shown),
        Decade => whole(year.div_euclid(10)),
        Century => whole(if year > 0 { (year + 99) / 100 } else { -((99 - (year - 1)) / 100) }),
        Millennium => whole(if year > 0 { (year + 999) / 1000 } else { -((999 - (year - 1)) / 1000) }),
        Dow => whole(i64::from(weekday(days))),
        IsoDow => whole(i64::from((weekday(days) + 6) % 7) + 1),
        Doy => whole(day_of_year(days)),
        IsoYear => {
            let y = iso_week(days).1;
            whole(if y > 0 { y } else { y - 1 })
        }
        Epoch => Some(decimal(i128::from(utc) - i128::from(dt::UNIX_EPOCH), 6)),
        Julian => {
            let n = decimal(i128::from(days) + i128::from(JULIAN_2000), 0);
            let part = decimal(i128::from(micros), 6).div(&decimal(86_400, 0)).ok()?;
            n.add(&part).ok()
        }
        Timezone => whole(i64::from(east?)),
        TimezoneHour => whole(i64::from(east? / 3600)),
        TimezoneMinute => whole(i64::from(east? / 60 % 60)),
    }
}

/// What a field of an infinite value is: infinite if it grows with time, else NULL.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
fn infinite_field(f: Field, positive: bool) -> Datum {
    use Field::*;
    match f {
        Year | Decade | Century | Millennium | Julian | IsoYear | Epoch => {
            Datum::Numeric(if positive { Numeric::Infinity } else { Numeric::NegInfinity })
        }
        _ => Datum::Null,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
fn extract(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let name = a[0].as_str()?;
    let f = field(name);
    let (type_name, value) = match &a[1] {
        Datum::Timestamp(t) => {
            let type_name = "timestamp without time zone";
            let f = f.ok_or_else(|| unknown_unit(name, type_name))?;
            if is_infinite(*t) {
                return Ok(infinite_field(f, *t > 0));
            }
            (type_name, local_field(f, *t, None, *t))
        }
        Datum::TimestampTz(t) => {
            let type_name = "timestamp with time zone";
            let f = f.ok_or_else(|| unknown_unit(name, type_name))?;
            if is_infinite(*t) {
                return Ok(infinite_field(f, *t > 0));
            }
            let east = dt::offset_seconds(&c.io().time_zone, *t);
            (type_name, local_field(f, *t + i64::from(east) * SECOND, Some(east), *t))
        }
        Datum::Date(d) => {
            let f = f.ok_or_else(|| unknown_unit(name, "date"))?;
            use Field::*;
            if matches!(f, Microsecond | Millisecond | Second | Minute | Hour | Timezone | TimezoneHour | TimezoneMinute) {
                return Err(unsupported_unit(name, "date"));
            }
            if *d == i32::MAX || *d == i32::MIN {
                return Ok(infinite_field(f, *d > 0));
            }
            let days = i64::from(*d);
            let v = match f {
                Epoch => Some(decimal((i128::from(days) + 10_957) * 86_400, 0)),
                Julian => Some(decimal(i128::from(days) + i128::from(JULIAN_2000), 0)),
                f => local_field(f, days * DAY, None, 0),
            };
            ("date", v)
        }
        Datum::Time(t) => {
            let type_name = "time without time zone";
            let f = f.ok_or_else(|| unknown_unit(name, type_name))?;
            (type_name, time_field(f, *t, None))
        }
        Datum::TimeTz(t, west) => {
            let type_name = "time with time zone";
            let f = f.ok_or_else(|| unknown_unit(name, type_name))?;
            (type_name, time_field(f, *t, Some(-west)))
        }
        Datum::Interval(i) => {
            let f = f.ok_or_else(|| unknown_unit(name, "interval"))?;
            ("interval", interval_field(f, *i))
        }
        other => return Err(other.mismatch("Timestamp")),
    };
    value.map(Datum::Numeric).ok_or_else(|| unsupported_unit(name, type_name))
}

fn time_field(f: Field, t: i64, east: Option<i32>) -> Option<Numeric> {
    use Field::*;
    match f {
        Epoch => Some(decimal(i128::from(t) - i128::from(east.unwrap_or(0)) * i128::from(SECOND), 6)),
        Microsecond | Millisecond | Second | Minute | Hour | Timezone | TimezoneHour | TimezoneMinute => local_field(f, t, east, 0),
        Day | Week | Month | Quarter | Year | Decade | Century | Millennium | Dow | IsoDow | Doy | IsoYear | Julian => None,
    }
}

fn interval_field(f: Field, i: Interval) -> Option<Numeric> {
    use Field::*;
    let second = i.micros % MINUTE;
    let (years, months) = (i64::from(i.months / 12), i64::from(i.months % 12));
    let whole = |v: i64| Some(decimal(i128::from(v), 0));
    match f {
        Microsecond => whole(second),
        Millisecond => Some(decimal(i128::from(second), 3)),
        Second => Some(decimal(i128::from(second), 6)),
        Minute => whole(i.micros % HOUR / MINUTE),
        Hour => whole(i.micros / HOUR),
        Day => whole(i64::from(i.days)),
        Month => whole(months),
        Quarter => whole(months / 3 + 1),
        Year => whole(years),
        Decade => whole(years / 10),
        Century => whole(years / 100),
        Millennium => whole(years / 1000),
        // A year counts 365.25 days here.
        Epoch => {
            let seconds = i128::from(years) * 31_557_600 + i128::from(months) * 2_592_000 + i128::from(i.days) * 86_400;
            Some(decimal(seconds * i128::from(SECOND) + i128::from(i.micros), 6))
        }
        Week | Dow | IsoDow | Doy | IsoYear | Julian | Timezone | TimezoneHour | TimezoneMinute => None,
    }
}

/// `date_part`: the same as a float.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn date_part(c: &mut Call<'_>, a: &[Datum]) -> Out {
    // Of a date: as if it were a timestamp.
    let midnight = match &a[1] {
        Datum::Date(d) => Some([a[0].clone(), Datum::Timestamp(super::cast::midnight(*d)?)]),
        _ => None,
    };
    Ok(match extract(c, midnight.as_ref().map_or(a, |m| m.as_slice()))? {
        Datum::Numeric(n) => Datum::Float8(n.to_f64()),
        other => other,
    })
}

// ---------------------------------------------------------------------------------------------------------------------
// Truncation

fn truncate_local(f: Field, local: i64) -> Option<i64> {
    use Field::*;
    let (days, micros) = split(local);
    let d = ymd_from_days(days);
    let year = i64::from(d.year);
    let midnight = |y: i64, m: u32| Some(days_from_ymd(y, m, 1) * DAY);
    match f {
        Microsecond => Some(local),
        Millisecond => Some(days * DAY + micros / 1000 * 1000),
        Second => Some(days * DAY + micros / SECOND * SECOND),
        Minute => Some(days * DAY + micros / MINUTE * MINUTE),
        Hour => Some(days * DAY + micros / HOUR * HOUR),
        Day => Some(days * DAY),
        Week => Some((days - i64::from((weekday(days) + 6) % 7)) * DAY),
        Month => midnight(year, d.month),
        Quarter => midnight(year, (d.month - 1) / 3 * 3 + 1),
        Year => midnight(year, 1),
        Decade => midnight(year.div_euclid(10) * 10, 1),
        Century => midnight(if year > 0 { (year - 1) / 100 * 100 + 1 } else { -((99 - (year - 1)) / 100) * 100 + 1 }, 1),
        Millennium => midnight(if year > 0 { (year - 1) / 1000 * 1000 + 1 } else { -((999 - (year - 1)) / 1000) * 1000 + 1 }, 1),
        Dow | IsoDow | Doy | IsoYear | Epoch | Julian | Timezone | TimezoneHour | TimezoneMinute => None,
    }
}

fn truncate_tz(name: &str, utc: i64, zone: &TimeZone) -> Out {
    let type_name = "timestamp with time zone";
    let f = field(name).ok_or_else(|| unknown_unit(name, type_name))?;
    if is_infinite(utc) {
        return Ok(Datum::TimestampTz(utc));
    }
    let local = truncate_local(f, to_local(utc, zone)).ok_or_else(|| unsupported_unit(name, type_name))?;
    // Within a day the offset stays what it is, so that overlapping hours keep theirs.
    use Field::*;
    if matches!(f, Microsecond | Millisecond | Second | Minute | Hour) {
        return Ok(Datum::TimestampTz(local - i64::from(dt::offset_seconds(zone, utc)) * SECOND));
    }
    to_utc(local, zone).map(Datum::TimestampTz)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn date_trunc(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let name = a[0].as_str()?;
    match &a[1] {
        Datum::Timestamp(t) => {
            let type_name = "timestamp without time zone";
            if is_infinite(*t) {
                return Ok(a[1].clone());
            }
            let f = field(name).ok_or_else(|| unknown_unit(name, type_name))?;
            truncate_local(f, *t).map(Datum::Timestamp).ok_or_else(|| unsupported_unit(name, type_name))
        }
        Datum::TimestampTz(t) if is_infinite(*t) => Ok(a[1].clone()),
        Datum::TimestampTz(t) => {
            let zone = match a.get(2) {
                Some(z) => dt::time_zone(z.as_str()?)?,
                None => c.io().time_zone.clone(),
            };
            truncate_tz(name, *t, &zone)
        }
        Datum::Interval(i) => {
            let f = field(name).ok_or_else(|| unknown_unit(name, "interval"))?;
            use Field::*;
            let m = i.months;
            let months = |months| Interval { months, days: 0, micros: 0 };
            let micros = |unit: i64| Interval { micros: i.micros / unit * unit, ..*i };
            Ok(Datum::Interval(match f {
                Millennium => months(m / 12_000 * 12_000),
                Century => months(m / 1200 * 1200),
                Decade => months(m / 120 * 120),
                Year => months(m / 12 * 12),
                Quarter => months(m / 3 * 3),
                Month => months(m),
                Day => Interval { micros: 0, ..*i },
                Hour => micros(HOUR),
                Minute => micros(MINUTE),
                Second => micros(SECOND),
                Millisecond => micros(1000),
                Microsecond => *i,
                Week | Dow | IsoDow | Doy | IsoYear | Epoch | Julian | Timezone | TimezoneHour | TimezoneMinute => {
                    return Err(unsupported_unit(name, "interval"));
                }
            }))
        }
        other => Err(other.mismatch("Timestamp")),
    }
}

fn date_bin(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (stride, t, origin) = (a[0].as_interval()?, ts(&a[1])?, ts(&a[2])?);
    if is_infinite(t) {
        return Ok(a[1].clone());
    }
    if is_infinite(origin) {
        return Err(SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "origin out of range"));
    }
    if stride.months != 0 {
        return Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "timestamps cannot be binned into intervals containing months or years",
        ));
    }
    let step = interval_span(stride);
    if step <= 0 {
        return Err(SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "stride must be greater than zero"));
    }
    let diff = i128::from(t) - i128::from(origin);
    let binned = dt::check_timestamp(i128::from(origin) + diff.div_euclid(step) * step)?;
    Ok(if matches!(a[1], Datum::TimestampTz(_)) { Datum::TimestampTz(binned) } else { Datum::Timestamp(binned) })
}

// ---------------------------------------------------------------------------------------------------------------------
// Zones

fn fixed_zone(c: &Call<'_>, i: Interval) -> Result<i64, SqlError> {
    if i.months != 0 || i.days != 0 {
        let mut shown = String::new();
        crate::sql::types::interval::write(i, c.io(), &mut shown);
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("interval time zone \"{shown}\" must not include months or days"),
        ));
    }
    Ok(i.micros)
}

/// `AT TIME ZONE` with a zone's name.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn at_zone(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let zone = dt::time_zone(a[0].as_str()?)?;
    match &a[1] {
        Datum::Timestamp(t) => to_utc(*t, &zone).map(Datum::TimestampTz),
        Datum::TimestampTz(t) => Ok(Datum::Timestamp(to_local(*t, &zone))),
        other => Err(other.mismatch("Timestamp")),
    }
}

/// `AT TIME ZONE` with an offset.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn at_offset(c: &mut Call<'_>, a: &[Datum]) -> Out {
    match &a[1] {
        Datum::Timestamp(t) if is_infinite(*t) => return Ok(Datum::TimestampTz(*t)),
        Datum::TimestampTz(t) if is_infinite(*t) => return Ok(Datum::Timestamp(*t)),
        _ => {}
    }
    let offset = fixed_zone(c, a[0].as_interval()?)?;
    match &a[1] {
        Datum::Timestamp(t) => dt::check_timestamp(i128::from(*t) - i128::from(offset)).map(Datum::TimestampTz),
        Datum::TimestampTz(t) => dt::check_timestamp(i128::from(*t) + i128::from(offset)).map(Datum::Timestamp),
        other => Err(other.mismatch("Timestamp")),
    }
}

fn timetz_at(t: i64, west: i32, new_west: i32) -> Datum {
    let utc = t + i64::from(west) * SECOND;
    Datum::TimeTz((utc - i64::from(new_west) * SECOND).rem_euclid(DAY), new_west)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn timetz_parts(d: &Datum) -> Result<(i64, i32), SqlError> {
    match d {
        Datum::TimeTz(t, w) => Ok((*t, *w)),
        other => Err(other.mismatch("TimeTz")),
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Construction

fn field_out_of_range(what: String) -> SqlError {
    SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, what)
}

fn make_days(year: i32, month: i32, day: i32) -> Result<i64, SqlError> {
    let fail = || field_out_of_range(format!("date field value out of range: {year}-{month:02}-{day:02}"));
    // Negative years are BC.
    let y = if year < 0 { i64::from(year) + 1 } else { i64::from(year) };
    let (m, d) = (u32::try_from(month).map_err(|_| fail())?, u32::try_from(day).map_err(|_| fail())?);
    if year == 0 || !(1..=12).contains(&m) || d == 0 || d > days_in_month(y, m) {
        return Err(fail());
    }
    Ok(days_from_ymd(y, m, d))
}

fn make_micros(hour: i32, minute: i32, second: f64) -> Result<i64, SqlError> {
    let fail = || {
        field_out_of_range(format!(
            "time field value out of range: {hour}:{minute:02}:{:0>2}",
            crate::sql::types::float::format_g(second, 6)
        ))
    };
    if !(0..=24).contains(&hour) || !(0..60).contains(&minute) || !(0.0..=60.0).contains(&second) {
        return Err(fail());
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most sixty million")]
    let micros = (second * 1e6).round() as i64;
    let total = i64::from(hour) * HOUR + i64::from(minute) * MINUTE + micros;
    if total > DAY { Err(fail()) } else { Ok(total) }
}

fn make_local(a: &[Datum]) -> Result<i64, SqlError> {
    let days = make_days(a[0].as_i32()?, a[1].as_i32()?, a[2].as_i32()?)?;
    let micros = make_micros(a[3].as_i32()?, a[4].as_i32()?, a[5].as_f64()?)?;
    dt::check_timestamp(i128::from(days) * i128::from(DAY) + i128::from(micros))
}

fn make_interval(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let n = |i: usize| a.get(i).map_or(Ok(0), |d| d.as_i32().map(i64::from));
    let secs = a.get(6).map_or(Ok(0.0), Datum::as_f64)?;
    let months = n(0)? * 12 + n(1)?;
    let days = n(2)? * 7 + n(3)?;
    if !secs.is_finite() || secs.abs() > 9e12 {
        return Err(interval_out_of_range());
    }
    #[expect(clippy::cast_possible_truncation, reason = "range checked")]
    let micros = i128::from(n(4)?) * i128::from(HOUR) + i128::from(n(5)?) * i128::from(MINUTE) + (secs * 1e6).round() as i128;
    Ok(Datum::Interval(Interval {
        months: i32::try_from(months).map_err(|_| interval_out_of_range())?,
        days: i32::try_from(days).map_err(|_| interval_out_of_range())?,
        micros: i64::try_from(micros).map_err(|_| interval_out_of_range())?,
    }))
}

#[expect(clippy::cast_possible_truncation, reason = "range checked")]
fn from_epoch(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let s = a[0].as_f64()?;
    if s.is_nan() {
        return Err(SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "timestamp cannot be NaN"));
    }
    if s.is_infinite() {
        return Ok(Datum::TimestampTz(if s > 0.0 { i64::MAX } else { i64::MIN }));
    }
    let fail = || {
        SqlError::new(
            SqlState::DATETIME_FIELD_OVERFLOW,
            format!("timestamp out of range: \"{}\"", crate::sql::types::float::format_g(s, 6)),
        )
    };
    let micros = ((s - 946_684_800.0) * 1e6).round_ties_even();
    if micros.abs() > 9.2e18 {
        return Err(fail());
    }
    dt::check_timestamp(i128::from(micros as i64)).map(Datum::TimestampTz).map_err(|_| fail())
}

fn add_days(d: i32, n: i32) -> Out {
    if d == i32::MAX || d == i32::MIN {
        return Ok(Datum::Date(d));
    }
    d.checked_add(n).filter(|d| (dt::DATE_MIN..dt::DATE_END).contains(d)).map(Datum::Date).ok_or_else(dt::date_out_of_range)
}

fn overlaps(_: &mut Call<'_>, a: &[Datum]) -> Out {
    // (s1, e1) overlaps (s2, e2), NULLs allowed; the ends may come in either order.
    let pair = |x: &Datum, y: &Datum| -> Option<(Datum, Datum)> {
        use crate::sql::types::compare;
        match (x.is_null(), y.is_null()) {
            (true, true) => None,
            (true, false) => Some((y.clone(), Datum::Null)),
            (false, true) => Some((x.clone(), Datum::Null)),
            (false, false) if compare(x, y).is_gt() => Some((y.clone(), x.clone())),
            (false, false) => Some((x.clone(), y.clone())),
        }
    };
    let (Some((s1, e1)), Some((s2, e2))) = (pair(&a[0], &a[1]), pair(&a[2], &a[3])) else { return Ok(Datum::Null) };
    let order = crate::sql::types::compare(&s1, &s2);
    // Does the later start lie before the other's end? If not, its own end must be known for a plain no.
    let before = |s: &Datum, e: &Datum, own: &Datum| {
        if e.is_null() {
            Datum::Null
        } else if crate::sql::types::compare(s, e).is_lt() {
            Datum::Bool(true)
        } else if own.is_null() {
            Datum::Null
        } else {
            Datum::Bool(false)
        }
    };
    Ok(match order {
        std::cmp::Ordering::Greater => before(&s1, &e2, &e1),
        std::cmp::Ordering::Less => before(&s2, &e1, &e2),
        std::cmp::Ordering::Equal => {
            if e1.is_null() || e2.is_null() {
                Datum::Null
            } else {
                Datum::Bool(true)
            }
        }
    })
}

/// `overlaps` with lengths in place of ends.
fn overlaps_spans(c: &mut Call<'_>, a: &[Datum], first: bool, second: bool) -> Out {
    let mut end = |at: usize, span: bool| match (&a[at], &a[at + 1]) {
        (_, e) if !span => Ok(e.clone()),
        (Datum::Null, _) | (_, Datum::Null) => Ok(Datum::Null),
        (s, i) => moved(c, s, i.as_interval()?),
    };
    let (e1, e2) = (end(0, first)?, end(2, second)?);
    overlaps(c, &[a[0].clone(), e1, a[2].clone(), e2])
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn date_plus_time(a: &[Datum]) -> Out {
    let (d, t) = match (&a[0], &a[1]) {
        (Datum::Date(d), t) | (t, Datum::Date(d)) => (super::cast::midnight(*d)?, t),
        (other, _) => return Err(other.mismatch("Date")),
    };
    match t {
        _ if is_infinite(d) => Ok(if matches!(t, Datum::TimeTz(..)) { Datum::TimestampTz(d) } else { Datum::Timestamp(d) }),
        Datum::Time(t) => dt::check_timestamp(i128::from(d) + i128::from(*t)).map(Datum::Timestamp),
        Datum::TimeTz(t, west) => {
            dt::check_timestamp(i128::from(d) + i128::from(*t) + i128::from(*west) * i128::from(SECOND)).map(Datum::TimestampTz)
        }
        other => Err(other.mismatch("Time")),
    }
}

fn commuted(f: ScalarFn, c: &mut Call<'_>, a: &[Datum]) -> Out {
    f(c, &[a[1].clone(), a[0].clone()])
}

fn plus(c: &mut Call<'_>, a: &[Datum]) -> Out {
    moved(c, &a[0], a[1].as_interval()?)
}

fn less(c: &mut Call<'_>, a: &[Datum]) -> Out {
    moved(c, &a[0], neg(a[1].as_interval()?)?)
}

/// A date/time value moved by an interval.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn moved(c: &mut Call<'_>, v: &Datum, i: Interval) -> Out {
    match v {
        Datum::Timestamp(t) => add_interval(*t, i).map(Datum::Timestamp),
        Datum::TimestampTz(t) => add_interval_tz(*t, i, &c.io().time_zone).map(Datum::TimestampTz),
        Datum::Date(d) => add_interval(super::cast::midnight(*d)?, i).map(Datum::Timestamp),
        Datum::Time(t) => Ok(Datum::Time((*t + i.micros.rem_euclid(DAY)).rem_euclid(DAY))),
        Datum::TimeTz(t, w) => Ok(Datum::TimeTz((*t + i.micros.rem_euclid(DAY)).rem_euclid(DAY), *w)),
        other => Err(other.mismatch("Timestamp")),
    }
}

/// `timeofday()`: the form of C's `ctime`, with the zone.
fn timeofday(c: &mut Call<'_>, _: &[Datum]) -> Out {
    let now = c.ctx.clock_timestamp();
    let zone = &c.io().time_zone;
    let (_, name, _) = dt::offset_at(zone, now);
    let (days, micros) = split(to_local(now, zone));
    let d: Ymd = ymd_from_days(days);
    let mut clock = String::new();
    dt::write_time(micros / SECOND * SECOND, &mut clock);
    Ok(Datum::from(format!(
        "{} {} {:02} {clock}.{:06} {:04} {name}",
        &dt::DAY_NAMES[weekday(days) as usize][..3],
        &dt::MONTH_NAMES[d.month as usize - 1][..3],
        d.day,
        micros % SECOND,
        d.year
    )))
}

/// By `prosrc`.
pub(super) const SCALARS: &[(&str, ScalarFn)] = &[
    ("now", |c, _| Ok(Datum::TimestampTz(c.ctx.transaction_timestamp()))),
    ("statement_timestamp", |c, _| Ok(Datum::TimestampTz(c.ctx.statement_timestamp()))),
    ("clock_timestamp", |c, _| Ok(Datum::TimestampTz(c.ctx.clock_timestamp()))),
    ("timeofday", timeofday),
    ("timestamp_pl_interval", plus),
    ("timestamp_mi_interval", less),
    ("timestamptz_pl_interval", plus),
    ("timestamptz_mi_interval", less),
    ("date_pl_interval", plus),
    ("date_mi_interval", less),
    ("time_pl_interval", plus),
    ("time_mi_interval", less),
    ("timetz_pl_interval", plus),
    ("timetz_mi_interval", less),
    ("interval_pl_date@1186,1082", |c, a| commuted(plus, c, a)),
    ("interval_pl_time@1186,1083", |c, a| commuted(plus, c, a)),
    ("interval_pl_timestamp@1186,1114", |c, a| commuted(plus, c, a)),
    ("interval_pl_timestamptz@1186,1184", |c, a| commuted(plus, c, a)),
    ("interval_pl_timetz@1186,1266", |c, a| commuted(plus, c, a)),
    ("timestamp_mi", minus),
    ("date_mi", |_, a| {
        let (x, y) = (a[0].as_date()?, a[1].as_date()?);
        if [x, y].iter().any(|d| *d == i32::MAX || *d == i32::MIN) {
            return Err(SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "cannot subtract infinite dates"));
        }
        Ok(Datum::Int4(x - y))
    }),
    ("date_pli", |_, a| add_days(a[0].as_date()?, a[1].as_i32()?)),
    ("date_mii", |_, a| add_days(a[0].as_date()?, a[1].as_i32()?.checked_neg().ok_or_else(dt::date_out_of_range)?)),
    ("integer_pl_date@23,1082", |_, a| add_days(a[1].as_date()?, a[0].as_i32()?)),
    ("time_mi_time", |_, a| Ok(Datum::Interval(Interval { months: 0, days: 0, micros: a[0].as_time()? - a[1].as_time()? }))),
    ("datetime_timestamp", |_, a| date_plus_time(a)),
    ("datetimetz_timestamptz", |_, a| date_plus_time(a)),
    ("timedate_pl@1083,1082", |_, a| date_plus_time(a)),
    ("timetzdate_pl@1266,1082", |_, a| date_plus_time(a)),
    ("timestamptz@1082,1083", |c, a| {
        let Datum::Timestamp(t) = date_plus_time(a)? else { return Ok(Datum::Null) };
        to_utc(t, &c.io().time_zone).map(Datum::TimestampTz)
    }),
    ("interval_pl", |_, a| a[0].as_interval()?.checked_add(a[1].as_interval()?).map(Datum::Interval)),
    ("interval_mi", |_, a| a[0].as_interval()?.checked_add(neg(a[1].as_interval()?)?).map(Datum::Interval)),
    ("interval_um", |_, a| neg(a[0].as_interval()?).map(Datum::Interval)),
    ("interval_mul", |_, a| a[0].as_interval()?.scaled(a[1].as_f64()?).map(Datum::Interval)),
    ("mul_d_interval", |_, a| a[1].as_interval()?.scaled(a[0].as_f64()?).map(Datum::Interval)),
    ("interval_div", |_, a| {
        let by = a[1].as_f64()?;
        if by == 0.0 {
            return Err(division_by_zero());
        }
        a[0].as_interval()?.divided(by).map(Datum::Interval)
    }),
    ("interval_justify_hours", |_, a| a[0].as_interval()?.justify_hours().map(Datum::Interval)),
    ("interval_justify_days", |_, a| a[0].as_interval()?.justify_days().map(Datum::Interval)),
    ("interval_justify_interval", |_, a| a[0].as_interval()?.justify().map(Datum::Interval)),
    ("timestamp_age", age),
    ("timestamptz_age", age),
    ("age@1114", age_today),
    ("age@1184", age_today),
    ("extract_timestamp", extract),
    ("extract_timestamptz", extract),
    ("extract_date", extract),
    ("extract_time", extract),
    ("extract_timetz", extract),
    ("extract_interval", extract),
    ("timestamp_part", date_part),
    ("timestamptz_part", date_part),
    ("time_part", date_part),
    ("timetz_part", date_part),
    ("interval_part", date_part),
    ("date_part@25,1082", date_part),
    ("timestamp_trunc", date_trunc),
    ("timestamptz_trunc", date_trunc),
    ("timestamptz_trunc_zone", date_trunc),
    ("interval_trunc", date_trunc),
    ("timestamp_bin", date_bin),
    ("timestamptz_bin", date_bin),
    ("timestamp_zone", at_zone),
    ("timestamptz_zone", at_zone),
    ("timestamp_izone", at_offset),
    ("timestamptz_izone", at_offset),
    ("timetz_zone", |c, a| {
        let zone = dt::time_zone(a[0].as_str()?)?;
        let (t, west) = timetz_parts(&a[1])?;
        Ok(timetz_at(t, west, -dt::offset_seconds(&zone, c.ctx.transaction_timestamp())))
    }),
    ("timetz_izone", |c, a| {
        let offset = fixed_zone(c, a[0].as_interval()?)? / SECOND;
        let (t, west) = timetz_parts(&a[1])?;
        Ok(timetz_at(t, west, i32::try_from(-offset).unwrap_or(0)))
    }),
    ("timestamp_finite", |_, a| Ok(Datum::Bool(!is_infinite(ts(&a[0])?)))),
    ("date_finite", |_, a| Ok(Datum::Bool(!matches!(a[0].as_date()?, i32::MAX | i32::MIN)))),
    ("interval_finite", |_, _| Ok(Datum::Bool(true))),
    ("make_date", |_, a| {
        let days = make_days(a[0].as_i32()?, a[1].as_i32()?, a[2].as_i32()?)?;
        i32::try_from(days).ok().filter(|d| (dt::DATE_MIN..dt::DATE_END).contains(d)).map(Datum::Date).ok_or_else(dt::date_out_of_range)
    }),
    ("make_time", |_, a| make_micros(a[0].as_i32()?, a[1].as_i32()?, a[2].as_f64()?).map(Datum::Time)),
    ("make_timestamp", |_, a| make_local(a).map(Datum::Timestamp)),
    ("make_timestamptz", |c, a| to_utc(make_local(a)?, &c.io().time_zone).map(Datum::TimestampTz)),
    ("make_timestamptz_at_timezone", |_, a| to_utc(make_local(a)?, &dt::time_zone(a[6].as_str()?)?).map(Datum::TimestampTz)),
    ("make_interval", make_interval),
    ("float8_timestamptz", from_epoch),
    ("overlaps@1083,1083,1083,1186", |c, a| overlaps_spans(c, a, false, true)),
    ("overlaps@1083,1186,1083,1083", |c, a| overlaps_spans(c, a, true, false)),
    ("overlaps@1083,1186,1083,1186", |c, a| overlaps_spans(c, a, true, true)),
    ("overlaps@1114,1114,1114,1186", |c, a| overlaps_spans(c, a, false, true)),
    ("overlaps@1114,1186,1114,1114", |c, a| overlaps_spans(c, a, true, false)),
    ("overlaps@1114,1186,1114,1186", |c, a| overlaps_spans(c, a, true, true)),
    ("overlaps@1184,1184,1184,1186", |c, a| overlaps_spans(c, a, false, true)),
    ("overlaps@1184,1186,1184,1184", |c, a| overlaps_spans(c, a, true, false)),
    ("overlaps@1184,1186,1184,1186", |c, a| overlaps_spans(c, a, true, true)),
    ("overlaps_time", overlaps),
    ("overlaps_timetz", overlaps),
    ("overlaps_timestamp", overlaps),
];
