//! `to_char`, `to_date`, `to_timestamp`, `to_number`: values by template.
//!
//! PostgreSQL: utils/adt/formatting.c.

use std::fmt::Write as _;

use super::call::{Call, ScalarFn};
use super::datetime::{day_of_year, iso_week};
use crate::sql::types::datetime::{
    self as dt, DAY, DAY_NAMES, HOUR, JULIAN_2000, MINUTE, MONTH_NAMES, SECOND, days_from_ymd, days_in_month, is_infinite, split, to_utc,
    weekday, ymd_from_days,
};
use crate::sql::types::{Datum, Numeric};
use crate::sqlstate::{SqlError, SqlState};

type Out = Result<Datum, SqlError>;

// ---------------------------------------------------------------------------------------------------------------------
// Date and time templates

/// Patterns, longest first among those that share a beginning. Case decides the case of names only.
const PATTERNS: &[&str] = &[
    "A.D.", "A.M.", "AD", "AM", "B.C.", "BC", "CC", "DAY", "DDD", "DD", "DY", "D", "FF1", "FF2", "FF3", "FF4", "FF5", "FF6", "HH24",
    "HH12", "HH", "IDDD", "ID", "IW", "IYYY", "IYY", "IY", "I", "J", "MI", "MM", "MONTH", "MON", "MS", "OF", "P.M.", "PM", "Q", "RM",
    "SSSSS", "SSSS", "SS", "TZH", "TZM", "TZ", "US", "WW", "W", "Y,YYY", "YYYY", "YYY", "YY", "Y",
];

#[derive(Debug, Clone)]
enum Node {
    /// A pattern, upper-cased; how it was written; FM; TH or th.
    Field { name: &'static str, written: String, fill: bool, ordinal: Option<bool> },
    /// Other text. Quoted text is matched loosely on input.
    Literal(String),
}

fn template(text: &str) -> Vec<Node> {
    let mut out: Vec<Node> = Vec::new();
    let mut rest = text;
    let mut fill = true;
    let literal = |s: &str, out: &mut Vec<Node>| match out.last_mut() {
        Some(Node::Literal(l)) => l.push_str(s),
        _ => out.push(Node::Literal(s.to_owned())),
    };
    'next: while let Some(c) = rest.chars().next() {
        let starts = |p: &str| rest.get(..p.len()).is_some_and(|r| r.eq_ignore_ascii_case(p));
        if starts("FM") {
            fill = false;
            rest = &rest[2..];
            continue;
        }
        if starts("FX") || starts("TM") {
            rest = &rest[2..];
            continue;
        }
        for p in PATTERNS {
            if starts(p) {
                let written = rest[..p.len()].to_owned();
                rest = &rest[p.len()..];
                let ordinal = match rest.get(..2) {
                    Some("TH") => Some(true),
                    Some("th") => Some(false),
                    _ => None,
                };
                if ordinal.is_some() {
                    rest = &rest[2..];
                }
                if rest.get(..2) == Some("SP") {
                    rest = &rest[2..];
                }
                out.push(Node::Field { name: p, written, fill, ordinal });
                fill = true;
                continue 'next;
            }
        }
        if c == '"' {
            let mut quoted = String::new();
            let mut chars = rest[1..].char_indices();
            let mut end = rest.len();
            while let Some((i, c)) = chars.next() {
                match c {
                    '"' => {
                        end = i + 2;
                        break;
                    }
                    '\\' => {
                        if let Some((_, c)) = chars.next() {
                            quoted.push(c);
                        }
                    }
                    c => quoted.push(c),
                }
            }
            literal(&quoted, &mut out);
            rest = &rest[end.min(rest.len())..];
            continue;
        }
        if c == '\\' && rest[1..].starts_with('"') {
            literal("\"", &mut out);
            rest = &rest[2..];
            continue;
        }
        literal(&rest[..c.len_utf8()], &mut out);
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// A name in the case its pattern was written in.
fn cased(name: &str, written: &str) -> String {
    let mut letters = written.chars().filter(|c| c.is_ascii_alphabetic());
    let first_upper = letters.next().is_some_and(|c| c.is_ascii_uppercase());
    let second_upper = letters.next().is_some_and(|c| c.is_ascii_uppercase());
    match (first_upper, second_upper) {
        (true, true) => name.to_uppercase(),
        (true, false) => name.to_owned(),
        _ => name.to_lowercase(),
    }
}

fn ordinal_suffix(v: i64, upper: bool) -> &'static str {
    let tens = v.unsigned_abs() / 10 % 10;
    let i = match (tens, v.unsigned_abs() % 10) {
        (1, _) => 0,
        (_, 1) => 1,
        (_, 2) => 2,
        (_, 3) => 3,
        _ => 0,
    };
    if upper { ["TH", "ST", "ND", "RD"][i] } else { ["th", "st", "nd", "rd"][i] }
}

fn roman_month(m: usize) -> &'static str {
    ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"][m.clamp(1, 12) - 1]
}

/// What a date/time template can show.
struct Parts {
    year: i64,
    month: i64,
    day: i64,
    micros: i64,
    /// Days from 2000-01-01; `None` for intervals.
    days: Option<i64>,
    zone: Option<(i32, String)>,
}

fn write_template(nodes: &[Node], p: &Parts) -> Result<String, SqlError> {
    let mut out = String::new();
    let interval = p.days.is_none();
    let days = p.days.unwrap_or(0);
    let hour = p.micros / HOUR;
    let twelve = if hour % 12 == 0 { 12 } else { hour.abs() % 12 };
    // Year 0 is 1 BC.
    let shown_year = if interval || p.year > 0 { p.year } else { 1 - p.year };
    for node in nodes {
        let (name, written, fill, ordinal) = match node {
            Node::Literal(s) => {
                out.push_str(s);
                continue;
            }
            Node::Field { name, written, fill, ordinal } => (*name, written, *fill, *ordinal),
        };
        let needs_date = |what: &str| {
            if interval {
                Err(SqlError::new(SqlState::INVALID_DATETIME_FORMAT, "invalid format specification for an interval value")
                    .hint(format!("Intervals are not tied to specific calendar dates.{what}")))
            } else {
                Ok(())
            }
        };
        let number = |v: i64, width: usize, out: &mut String| {
            let width = if fill { width } else { 0 };
            if v < 0 {
                let _infallible = write!(out, "-{:0width$}", v.unsigned_abs(), width = width);
            } else {
                let _infallible = write!(out, "{v:0width$}");
            }
            if let Some(upper) = ordinal {
                out.push_str(ordinal_suffix(v, upper));
            }
        };
        let word = |name: &str, width: usize, out: &mut String| {
            let text = cased(name, written);
            out.push_str(&text);
            if fill {
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(text.len())));
            }
        };
        let fraction = |digits: u32, out: &mut String| {
            let v = p.micros.rem_euclid(SECOND) / 10i64.pow(6 - digits);
            let _infallible = write!(out, "{v:0width$}", width = digits as usize);
            if let Some(upper) = ordinal {
                out.push_str(ordinal_suffix(v, upper));
            }
        };
        match name {
            "HH" | "HH12" => number(twelve, if hour < 0 { 3 } else { 2 }, &mut out),
            "HH24" => number(hour, if hour < 0 { 3 } else { 2 }, &mut out),
            "MI" => number(p.micros % HOUR / MINUTE, 2, &mut out),
            "SS" => number(p.micros % MINUTE / SECOND, 2, &mut out),
            "FF1" => fraction(1, &mut out),
            "FF2" => fraction(2, &mut out),
            "FF3" | "MS" => fraction(3, &mut out),
            "FF4" => fraction(4, &mut out),
            "FF5" => fraction(5, &mut out),
            "FF6" | "US" => fraction(6, &mut out),
            "SSSS" | "SSSSS" => number(p.micros / SECOND, 0, &mut out),
            "AM" | "PM" | "A.M." | "P.M." => {
                let text = match (hour.rem_euclid(24) >= 12, name.contains('.')) {
                    (false, false) => "AM",
                    (true, false) => "PM",
                    (false, true) => "A.M.",
                    (true, true) => "P.M.",
                };
                out.push_str(&if written.starts_with(|c: char| c.is_ascii_lowercase()) { text.to_lowercase() } else { text.to_owned() });
            }
            "AD" | "BC" | "A.D." | "B.C." => {
                needs_date("")?;
                let text = match (p.year <= 0, name.contains('.')) {
                    (false, false) => "AD",
                    (true, false) => "BC",
                    (false, true) => "A.D.",
                    (true, true) => "B.C.",
                };
                out.push_str(&if written.starts_with(|c: char| c.is_ascii_lowercase()) { text.to_lowercase() } else { text.to_owned() });
            }
            "YYYY" => number(shown_year, 4, &mut out),
            "YYY" => number(shown_year % 1000, 3, &mut out),
            "YY" => number(shown_year % 100, 2, &mut out),
            "Y" => number(shown_year % 10, 1, &mut out),
            "Y,YYY" => {
                let _infallible = write!(out, "{},{:03}", shown_year / 1000, shown_year % 1000);
            }
            "IYYY" | "IYY" | "IY" | "I" => {
                needs_date("")?;
                let y = iso_week(days).1;
                let y = if y > 0 { y } else { 1 - y };
                match name {
                    "IYYY" => number(y, 4, &mut out),
                    "IYY" => number(y % 1000, 3, &mut out),
                    "IY" => number(y % 100, 2, &mut out),
                    _ => number(y % 10, 1, &mut out),
                }
            }
            "MONTH" => {
                needs_date("")?;
                word(MONTH_NAMES[usize::try_from(p.month - 1).unwrap_or(0)], 9, &mut out);
            }
            "MON" => {
                needs_date("")?;
                word(&MONTH_NAMES[usize::try_from(p.month - 1).unwrap_or(0)][..3], 0, &mut out);
            }
            "MM" => number(p.month, 2, &mut out),
            "DAY" => {
                needs_date("")?;
                word(DAY_NAMES[weekday(days) as usize], 9, &mut out);
            }
            "DY" => {
                needs_date("")?;
                word(&DAY_NAMES[weekday(days) as usize][..3], 0, &mut out);
            }
            "DDD" => number(if interval { p.day } else { day_of_year(days) }, 3, &mut out),
            "IDDD" => {
                let monday = days - i64::from((weekday(days) + 6) % 7);
                number((iso_week(days).0 - 1) * 7 + (days - monday) + 1, 3, &mut out);
            }
            "DD" => number(p.day, 2, &mut out),
            "D" => {
                needs_date("")?;
                number(i64::from(weekday(days)) + 1, 1, &mut out);
            }
            "ID" => {
                needs_date("")?;
                number(i64::from((weekday(days) + 6) % 7) + 1, 1, &mut out);
            }
            "W" => number((p.day - 1) / 7 + 1, 1, &mut out),
            "WW" => number((day_of_year(days) - 1) / 7 + 1, 2, &mut out),
            "IW" => number(iso_week(days).0, 2, &mut out),
            "Q" if p.month > 0 => {
                number((p.month - 1) / 3 + 1, 1, &mut out);
            }
            "CC" => {
                let c = if interval {
                    p.year / 100
                } else if p.year > 0 {
                    (p.year + 99) / 100
                } else {
                    -((99 - (p.year - 1)) / 100)
                };
                number(c, if c < 0 { 3 } else { 2 }, &mut out);
            }
            "J" => number(days + i64::from(JULIAN_2000), 0, &mut out),
            "RM" if p.month != 0 => {
                let m = usize::try_from(p.month.rem_euclid(12)).unwrap_or(0);
                let text = roman_month(if m == 0 { 12 } else { m });
                let text = if written.starts_with('r') { text.to_lowercase() } else { text.to_owned() };
                if fill {
                    let _infallible = write!(out, "{text:<4}");
                } else {
                    out.push_str(&text);
                }
            }
            "TZ" | "TZH" | "TZM" | "OF" => {
                needs_date("")?;
                let (east, zone_name) = p.zone.clone().unwrap_or((0, String::new()));
                match name {
                    "TZ" => {
                        let lower = written.starts_with('t');
                        out.push_str(&if lower { zone_name.to_lowercase() } else { zone_name });
                    }
                    "TZH" => {
                        let _infallible = write!(out, "{}{:02}", if east < 0 { '-' } else { '+' }, east.abs() / 3600);
                    }
                    "TZM" => {
                        let _infallible = write!(out, "{:02}", east.abs() / 60 % 60);
                    }
                    _ => {
                        let _infallible = write!(out, "{}{:02}", if east < 0 { '-' } else { '+' }, east.abs() / 3600);
                        if east.abs() % 3600 != 0 {
                            let _infallible = write!(out, ":{:02}", east.abs() / 60 % 60);
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Ok(out)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn moment_to_char(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let text = a[1].as_str()?;
    if text.is_empty() {
        return Ok(Datum::Null);
    }
    let (local, zone) = match &a[0] {
        Datum::Timestamp(t) => (*t, None),
        Datum::TimestampTz(t) if !is_infinite(*t) => {
            let (east, name, _) = dt::offset_at(&c.io().time_zone, *t);
            (*t + i64::from(east) * SECOND, Some((east, name)))
        }
        Datum::TimestampTz(t) => (*t, None),
        other => return Err(other.mismatch("Timestamp")),
    };
    if is_infinite(local) {
        return Ok(Datum::Null);
    }
    let (days, micros) = split(local);
    let d = ymd_from_days(days);
    let parts = Parts { year: i64::from(d.year), month: i64::from(d.month), day: i64::from(d.day), micros, days: Some(days), zone };
    write_template(&template(text), &parts).map(Datum::from)
}

fn interval_to_char(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let text = a[1].as_str()?;
    if text.is_empty() {
        return Ok(Datum::Null);
    }
    let i = a[0].as_interval()?;
    let parts = Parts {
        year: i64::from(i.months / 12),
        month: i64::from(i.months % 12),
        day: i64::from(i.days),
        micros: i.micros,
        days: None,
        zone: None,
    };
    write_template(&template(text), &parts).map(Datum::from)
}

/// What a template found in a text.
#[derive(Default)]
struct Found {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    week: Option<i64>,
    iso_year: Option<i64>,
    iso_week: Option<i64>,
    iso_day: Option<i64>,
    julian: Option<i64>,
    hour: Option<i64>,
    twelve: bool,
    minute: i64,
    second: i64,
    micros: i64,
    seconds_of_day: Option<i64>,
    pm: Option<bool>,
    bc: bool,
    century: Option<i64>,
    short_year: Option<i64>,
    zone: Option<i32>,
}

fn bad_value(text: &str, pattern: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_DATETIME_FORMAT, format!("invalid value \"{text}\" for \"{pattern}\""))
}

/// Two-digit years around 2000.
fn adjust_year(y: i64, digits: usize) -> i64 {
    match digits {
        1 => y + 2000,
        2 if y < 70 => y + 2000,
        2 => y + 1900,
        3 if y < 100 => y + 2000,
        3 if y < 520 => y + 2000,
        3 => y + 1000,
        _ => y,
    }
}

fn read_template(text: &str, format: &str) -> Result<Found, SqlError> {
    let nodes = template(format);
    let mut f = Found::default();
    let mut rest = text;
    for (i, node) in nodes.iter().enumerate() {
        let Node::Field { name, written, fill: _, ordinal } = node else {
            // Separators match any separators, other text any text of its length.
            if let Node::Literal(l) = node {
                for c in l.chars() {
                    if c.is_alphanumeric() {
                        rest = rest.chars().next().map_or(rest, |r| &rest[r.len_utf8()..]);
                    } else if c.is_whitespace() {
                        rest = rest.trim_start();
                    } else {
                        let trimmed = rest.trim_start();
                        rest = match trimmed.chars().next() {
                            Some(r) if !r.is_alphanumeric() && !matches!(r, '+' | '-') => &trimmed[r.len_utf8()..],
                            Some('-') if c == '-' => &trimmed[1..],
                            Some(r) if matches!(r, '+' | '-') && !matches!(nodes.get(i + 1), Some(Node::Field { name: "TZH", .. })) => {
                                &trimmed[1..]
                            }
                            _ => trimmed,
                        };
                    }
                }
            }
            continue;
        };
        rest = rest.trim_start();
        if rest.is_empty() {
            break;
        }
        // Digits are bounded when the next pattern is numeric too and nothing separates them.
        let adjoining = matches!(nodes.get(i + 1), Some(Node::Field { .. }));
        let mut number = |most: usize| -> Result<(i64, usize), SqlError> {
            let sign = usize::from(rest.starts_with(['-', '+']));
            let limit = if adjoining { most } else { usize::MAX };
            let len = rest[sign..].bytes().take_while(u8::is_ascii_digit).count().min(limit);
            if len == 0 {
                let shown: String = rest.chars().take(most).collect();
                return Err(bad_value(&shown, written).detail("Value must be an integer."));
            }
            let token = &rest[..sign + len];
            let v: i64 = token.parse::<i32>().map(i64::from).map_err(|_| {
                SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("value for \"{written}\" in source string is out of range"))
            })?;
            rest = &rest[sign + len..];
            Ok((v, len))
        };
        match *name {
            "YYYY" => {
                let (v, len) = number(4)?;
                f.year = Some(if len < 4 { adjust_year(v, len) } else { v });
            }
            "IYYY" => f.iso_year = Some(number(4)?.0),
            "YYY" => {
                let (v, len) = number(3)?;
                f.year = Some(adjust_year(v, len));
            }
            "YY" => {
                let (v, len) = number(2)?;
                f.year = Some(if len > 2 { v } else { adjust_year(v, 2) });
                f.short_year = (len <= 2).then_some(v);
            }
            "Y" => f.year = Some(number(1)?.0 + 2000),
            "Y,YYY" => {
                let (thousands, _) = number(3)?;
                rest = rest.strip_prefix(',').unwrap_or(rest);
                let len = rest.bytes().take_while(u8::is_ascii_digit).count().min(3);
                let units: i64 = rest[..len].parse().map_err(|_| bad_value(rest, "Y,YYY"))?;
                rest = &rest[len..];
                f.year = Some(thousands * 1000 + units);
            }
            "IYY" => f.iso_year = Some(number(3)?.0 + 2000),
            "IY" => f.iso_year = Some(adjust_year(number(2)?.0, 2)),
            "I" => f.iso_year = Some(number(1)?.0 + 2000),
            "CC" => f.century = Some(number(2)?.0),
            "MM" => f.month = Some(number(2)?.0),
            "DD" => f.day = Some(number(2)?.0),
            "DDD" => f.day_of_year = Some(number(3)?.0),
            "IDDD" => {
                let v = number(3)?.0;
                f.iso_week = Some((v - 1) / 7 + 1);
                f.iso_day = Some((v - 1) % 7 + 1);
            }
            "D" | "Q" => {
                number(1)?;
            }
            "ID" => f.iso_day = Some(number(1)?.0),
            "W" => f.day = Some((number(1)?.0 - 1) * 7 + 1),
            "WW" => f.week = Some(number(2)?.0),
            "IW" => f.iso_week = Some(number(2)?.0),
            "J" => f.julian = Some(number(9)?.0),
            "HH24" => f.hour = Some(number(2)?.0),
            "HH" | "HH12" => {
                f.hour = Some(number(2)?.0);
                f.twelve = true;
            }
            "MI" => f.minute = number(2)?.0,
            "SS" => f.second = number(2)?.0,
            "SSSS" | "SSSSS" => f.seconds_of_day = Some(number(5)?.0),
            "MS" | "US" | "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
                let digits = match *name {
                    "FF1" => 1,
                    "FF2" => 2,
                    "MS" | "FF3" => 3,
                    "FF4" => 4,
                    "FF5" => 5,
                    _ => 6,
                };
                let (v, len) = number(digits)?;
                // Digits after the point: `.5` is half a second.
                let scale = u32::try_from(len).unwrap_or(6).min(18);
                f.micros += if scale <= 6 { v * 10i64.pow(6 - scale) } else { v / 10i64.pow(scale - 6) };
            }
            "AM" | "PM" | "A.M." | "P.M." => {
                let found = ["A.M.", "P.M.", "AM", "PM"]
                    .into_iter()
                    .find(|w| rest.get(..w.len()).is_some_and(|r| r.eq_ignore_ascii_case(w)))
                    .ok_or_else(|| bad_value(&rest.chars().take(2).collect::<String>(), written))?;
                f.pm = Some(found.starts_with('P'));
                f.twelve = true;
                rest = &rest[found.len()..];
            }
            "AD" | "BC" | "A.D." | "B.C." => {
                let found = ["A.D.", "B.C.", "AD", "BC"]
                    .into_iter()
                    .find(|w| rest.get(..w.len()).is_some_and(|r| r.eq_ignore_ascii_case(w)))
                    .ok_or_else(|| bad_value(&rest.chars().take(2).collect::<String>(), written))?;
                f.bc = found.starts_with('B');
                rest = &rest[found.len()..];
            }
            "MONTH" | "MON" => {
                let full = *name == "MONTH";
                let hit = MONTH_NAMES.iter().position(|m| {
                    let m = if full { m } else { &m[..3] };
                    rest.get(..m.len()).is_some_and(|r| r.eq_ignore_ascii_case(m))
                });
                let Some(i) = hit else {
                    let shown: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
                    return Err(
                        bad_value(&shown, written).detail("The given value did not match any of the allowed values for this field.")
                    );
                };
                rest = &rest[if full { MONTH_NAMES[i].len() } else { 3 }..];
                f.month = i64::try_from(i + 1).ok();
            }
            "DAY" | "DY" => {
                let full = *name == "DAY";
                let hit = DAY_NAMES.iter().find(|d| {
                    let d = if full { d } else { &d[..3] };
                    rest.get(..d.len()).is_some_and(|r| r.eq_ignore_ascii_case(d))
                });
                let Some(d) = hit else {
                    let shown: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
                    return Err(
                        bad_value(&shown, written).detail("The given value did not match any of the allowed values for this field.")
                    );
                };
                rest = &rest[if full { d.len() } else { 3 }..];
            }
            "RM" => {
                let hit =
                    (1..=12).rev().find(|&m| rest.get(..roman_month(m).len()).is_some_and(|r| r.eq_ignore_ascii_case(roman_month(m))));
                let best = (1..=12)
                    .filter(|&m| rest.get(..roman_month(m).len()).is_some_and(|r| r.eq_ignore_ascii_case(roman_month(m))))
                    .max_by_key(|&m| roman_month(m).len())
                    .or(hit)
                    .ok_or_else(|| bad_value(rest, written))?;
                rest = &rest[roman_month(best).len()..];
                f.month = i64::try_from(best).ok();
            }
            "TZH" => {
                let v = number(2)?.0;
                f.zone = i32::try_from(v * 3600).ok();
            }
            "TZM" => {
                let v = i32::try_from(number(2)?.0 * 60).unwrap_or(0);
                let zone = f.zone.unwrap_or(0);
                f.zone = Some(if zone < 0 { zone - v } else { zone + v });
            }
            "TZ" | "OF" => {
                return Err(SqlError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    format!("formatting field \"{written}\" is only supported in to_char"),
                ));
            }
            _ => {}
        }
        if ordinal.is_some() {
            rest = rest.get(2..).unwrap_or("");
        }
    }
    Ok(f)
}

/// The local time found: days from 2000-01-01, and microseconds.
fn assemble(f: &Found, text: &str) -> Result<(i64, i64), SqlError> {
    let out_of_range = || SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("date/time field value out of range: \"{text}\""));
    let mut year = f.year.unwrap_or(match f.century {
        Some(c) => (c - 1) * 100 + 1,
        None => 0,
    });
    if let (Some(c), Some(y)) = (f.century, f.short_year) {
        year = if y == 0 { c * 100 } else { (c - 1) * 100 + y };
    }
    if f.bc {
        year = 1 - year;
    } else if year == 0 && f.year.is_some() {
        return Err(out_of_range());
    }
    let days = if let Some(j) = f.julian {
        j - i64::from(JULIAN_2000)
    } else if let Some(week) = f.iso_week {
        let y = f.iso_year.unwrap_or(year);
        let fourth = days_from_ymd(y, 1, 4);
        fourth - i64::from((weekday(fourth) + 6) % 7) + (week - 1) * 7 + f.iso_day.unwrap_or(1) - 1
    } else if let (Some(doy), None) = (f.day_of_year, f.month) {
        if !(1..=365 + i64::from(dt::is_leap(year))).contains(&doy) {
            return Err(out_of_range());
        }
        days_from_ymd(year, 1, 1) + doy - 1
    } else if let Some(week) = f.week {
        days_from_ymd(year, 1, 1) + (week - 1) * 7
    } else {
        let (m, d) = (f.month.unwrap_or(1), f.day.unwrap_or(1));
        let y = f.iso_year.unwrap_or(year);
        let month = u32::try_from(m).ok().filter(|m| (1..=12).contains(m)).ok_or_else(out_of_range)?;
        let day = u32::try_from(d).ok().filter(|d| (1..=days_in_month(y, month)).contains(d)).ok_or_else(out_of_range)?;
        days_from_ymd(y, month, day)
    };
    let mut hour = f.hour.unwrap_or(0);
    if f.twelve {
        if !(1..=12).contains(&hour) && f.hour.is_some() {
            return Err(SqlError::new(SqlState::INVALID_DATETIME_FORMAT, format!("hour \"{hour}\" is invalid for the 12-hour clock"))
                .hint("Use the 24-hour clock, or give an hour between 1 and 12."));
        }
        match f.pm {
            Some(true) if hour < 12 => hour += 12,
            Some(false) | None if hour == 12 && f.pm == Some(false) => hour = 0,
            _ => {}
        }
    }
    let (minute, second) = (f.minute, f.second);
    if !(0..=24).contains(&hour) || !(0..60).contains(&minute) || !(0..=60).contains(&second) {
        return Err(out_of_range());
    }
    let clock = match f.seconds_of_day {
        Some(s) => s * SECOND,
        None => hour * HOUR + minute * MINUTE + second * SECOND,
    };
    Ok((days, clock + f.micros))
}

fn to_date(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let text = a[0].as_str()?;
    let (days, _) = assemble(&read_template(text, a[1].as_str()?)?, text)?;
    i32::try_from(days)
        .ok()
        .filter(|d| (dt::DATE_MIN..dt::DATE_END).contains(d))
        .map(Datum::Date)
        .ok_or_else(|| SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, format!("date out of range: \"{text}\"")))
}

fn to_timestamp(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let text = a[0].as_str()?;
    let f = read_template(text, a[1].as_str()?)?;
    let (days, micros) = assemble(&f, text)?;
    let local = dt::check_timestamp(i128::from(days) * i128::from(DAY) + i128::from(micros))?;
    match f.zone {
        Some(east) => Ok(Datum::TimestampTz(local - i64::from(east) * SECOND)),
        None => to_utc(local, &c.io().time_zone).map(Datum::TimestampTz),
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Number templates

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Num {
    Nine,
    Zero,
    Point,
    Group,
    Currency,
    Sign,
    Minus,
    Plus,
    PlusMinus,
    Literal(char),
}

/// A number template, taken apart.
#[derive(Debug, Default)]
struct NumFormat {
    tokens: Vec<Num>,
    fill: bool,
    angle: bool,
    roman: Option<bool>,
    ordinal: Option<bool>,
    exponent: bool,
    /// Digits after V.
    shift: u32,
}

fn number_template(text: &str) -> Result<NumFormat, SqlError> {
    let mut f = NumFormat { fill: true, ..NumFormat::default() };
    let mut rest = text;
    let mut after_v = false;
    while let Some(c) = rest.chars().next() {
        let starts = |p: &str| rest.get(..p.len()).is_some_and(|r| r.eq_ignore_ascii_case(p));
        let mut skip = c.len_utf8();
        if starts("FM") {
            f.fill = false;
            skip = 2;
        } else if starts("EEEE") {
            f.exponent = true;
            skip = 4;
        } else if starts("RN") {
            f.roman = Some(c == 'R');
            skip = 2;
        } else if starts("PR") {
            f.angle = true;
            skip = 2;
        } else if starts("MI") {
            f.tokens.push(Num::Minus);
            skip = 2;
        } else if starts("PL") {
            f.tokens.push(Num::Plus);
            skip = 2;
        } else if starts("SG") {
            f.tokens.push(Num::PlusMinus);
            skip = 2;
        } else if starts("TH") {
            f.ordinal = Some(c == 'T');
            skip = 2;
        } else {
            match c {
                '9' => {
                    f.tokens.push(Num::Nine);
                    f.shift += u32::from(after_v);
                }
                '0' => {
                    f.tokens.push(Num::Zero);
                    f.shift += u32::from(after_v);
                }
                '.' | 'D' | 'd' => {
                    if f.tokens.contains(&Num::Point) {
                        return Err(SqlError::new(SqlState::SYNTAX_ERROR, "multiple decimal points"));
                    }
                    f.tokens.push(Num::Point);
                }
                ',' | 'G' | 'g' => f.tokens.push(Num::Group),
                'L' | 'l' => f.tokens.push(Num::Currency),
                'C' | 'c' => {}
                'S' | 's' => {
                    if f.tokens.contains(&Num::Sign) {
                        return Err(SqlError::new(SqlState::SYNTAX_ERROR, "cannot use \"S\" twice"));
                    }
                    f.tokens.push(Num::Sign);
                }
                'V' | 'v' => after_v = true,
                'B' | 'b' => {}
                '"' => {
                    let end = rest[1..].find('"').map_or(rest.len(), |i| i + 2);
                    for q in rest[1..end].trim_end_matches('"').chars() {
                        f.tokens.push(Num::Literal(q));
                    }
                    skip = end;
                }
                c => f.tokens.push(Num::Literal(c)),
            }
        }
        rest = &rest[skip..];
    }
    Ok(f)
}

fn roman(mut n: i64) -> String {
    let mut out = String::new();
    for (v, s) in [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ] {
        while n >= v {
            out.push_str(s);
            n -= v;
        }
    }
    out
}

fn number_to_char(n: &Numeric, text: &str) -> Result<String, SqlError> {
    let f = number_template(text)?;
    if let Some(upper) = f.roman {
        let v = n.round(0)?.to_i128().unwrap_or(0);
        let digits = if (1..4000).contains(&v) { roman(i64::try_from(v).unwrap_or(0)) } else { "#".repeat(15) };
        let digits = if upper { digits } else { digits.to_lowercase() };
        return Ok(if f.fill { format!("{digits:>15}") } else { digits });
    }
    let is_digit = |t: &Num| matches!(t, Num::Nine | Num::Zero);
    let point = f.tokens.iter().position(|t| *t == Num::Point);
    let pre = f.tokens[..point.unwrap_or(f.tokens.len())].iter().filter(|t| is_digit(t)).count();
    let post = point.map_or(0, |p| f.tokens[p..].iter().filter(|t| is_digit(t)).count());
    if f.exponent {
        return exponent_form(n, post, &f);
    }
    let negative = n.signum() < 0 && !n.is_nan();
    let places = i32::try_from(post).unwrap_or(0);
    let (whole, fraction) = if n.is_finite() {
        let mut v = n.abs();
        if f.shift > 0 {
            v = v.mul(&Numeric::from(10i64).power(&Numeric::from(i64::from(f.shift)))?)?;
        }
        let digits = v.round(places)?.to_string();
        let (w, fr) = digits.split_once('.').map_or((digits.as_str(), ""), |(w, fr)| (w, fr));
        (w.to_owned(), fr.to_owned())
    } else {
        // No digits for what has none.
        ("#".repeat(pre + 1), "#".repeat(post))
    };
    let negative = negative && (whole.bytes().any(|b| b != b'0') || fraction.bytes().any(|b| b != b'0'));
    // A zero before the point shows only if the template asks for it, or nothing else would.
    let significant = if whole == "0" && (point.is_some() && post > 0) { "" } else { whole.as_str() };
    let overflow = significant.len() > pre && !(significant == "0" && pre == 0);
    let digits: Vec<char> = if overflow { vec!['#'; pre] } else { significant.chars().collect() };
    let first_zero =
        f.tokens[..point.unwrap_or(f.tokens.len())].iter().filter(|t| is_digit(t)).position(|t| *t == Num::Zero).unwrap_or(pre);
    let begin = first_zero.min(pre - digits.len().min(pre));
    let has_sign = f.tokens.iter().any(|t| matches!(t, Num::Sign | Num::Minus | Num::Plus | Num::PlusMinus)) || f.angle;
    // S before the first digit floats; after the last it stays there.
    let sign_at = f.tokens.iter().position(|t| *t == Num::Sign);
    let first_digit_token = f.tokens.iter().position(|t| is_digit(t) || *t == Num::Point).unwrap_or(0);
    let floating_sign = sign_at.is_some_and(|s| s < first_digit_token);
    let lead = if f.angle {
        if negative { "<" } else { " " }
    } else if floating_sign {
        if negative { "-" } else { "+" }
    } else if !has_sign {
        if negative { "-" } else { " " }
    } else {
        ""
    };
    // In FM, zeros at the end of the fraction go, down to the last 0 of the template.
    let mut keep = post;
    if !f.fill {
        let forced = point.map_or(0, |p| {
            f.tokens[p..]
                .iter()
                .filter(|t| is_digit(t))
                .enumerate()
                .filter(|(_, t)| **t == Num::Zero)
                .map(|(i, _)| i + 1)
                .max()
                .unwrap_or(0)
        });
        let shown = fraction.trim_end_matches('0').len();
        keep = forced.max(shown);
    }
    let mut out = String::new();
    let mut put_lead = false;
    let lead_now = |out: &mut String, done: &mut bool| {
        if !*done {
            *done = true;
            if f.fill || lead != " " {
                out.push_str(lead);
            }
        }
    };
    let (mut at, mut after) = (0usize, 0usize);
    let mut past_point = false;
    for (i, t) in f.tokens.iter().enumerate() {
        match t {
            Num::Nine | Num::Zero if !past_point => {
                if at < begin {
                    if f.fill {
                        out.push(' ');
                    }
                } else {
                    lead_now(&mut out, &mut put_lead);
                    let from = pre - digits.len().min(pre);
                    out.push(if overflow {
                        '#'
                    } else if at < from {
                        '0'
                    } else {
                        digits[at - from]
                    });
                }
                at += 1;
            }
            Num::Nine | Num::Zero => {
                if after < keep {
                    out.push(if overflow { '#' } else { fraction.chars().nth(after).unwrap_or('0') });
                }
                after += 1;
            }
            Num::Point => {
                lead_now(&mut out, &mut put_lead);
                past_point = true;
                out.push('.');
            }
            Num::Group => {
                if at > begin || (at >= begin && put_lead) {
                    out.push(',');
                } else if f.fill {
                    out.push(' ');
                }
            }
            Num::Currency => out.push(' '),
            Num::Sign if sign_at == Some(i) && !floating_sign => out.push(if negative { '-' } else { '+' }),
            Num::Sign => {}
            Num::Minus => {
                if negative {
                    out.push('-');
                } else if f.fill {
                    out.push(' ');
                }
            }
            Num::Plus => {
                if !negative {
                    out.push('+');
                } else if f.fill {
                    out.push(' ');
                }
            }
            Num::PlusMinus => out.push(if negative { '-' } else { '+' }),
            Num::Literal(c) => out.push(*c),
        }
    }
    // Without a sign column of its own a minus stands before PL too.
    if f.tokens.contains(&Num::Plus)
        && negative
        && !f.tokens.contains(&Num::Minus)
        && let Some(i) = out.find(|c: char| c.is_ascii_digit() || c == '.')
    {
        out.insert(i, '-');
    }
    if f.angle {
        if negative {
            out.push('>');
        } else if f.fill {
            out.push(' ');
        }
    }
    if let Some(upper) = f.ordinal
        && !negative
        && post == 0
        && !overflow
    {
        out.push_str(ordinal_suffix(whole.parse::<i64>().unwrap_or(0), upper));
    }
    Ok(out)
}

fn exponent_form(n: &Numeric, post: usize, f: &NumFormat) -> Result<String, SqlError> {
    if !n.is_finite() {
        return Ok("#".repeat(post + 2 + 5));
    }
    let text = n.abs().to_string();
    let plain: String = text.chars().filter(|c| *c != '.').collect();
    let point = text.find('.').unwrap_or(text.len());
    let first = plain.find(|c| c != '0');
    let (mut exponent, mut digits) = match first {
        None => (0i64, Numeric::ZERO),
        Some(i) => {
            let exponent = i64::try_from(point).unwrap_or(0) - 1 - i64::try_from(i).unwrap_or(0);
            let mantissa = format!("{}.{}", &plain[i..=i], &plain[i + 1..]);
            (exponent, Numeric::parse(mantissa.trim_end_matches('.'))?)
        }
    };
    let places = i32::try_from(post).unwrap_or(0);
    digits = digits.round(places)?;
    if digits >= Numeric::from(10i64) {
        exponent += 1;
        digits = digits.div(&Numeric::from(10i64))?.round(places)?;
    }
    let sign = if n.signum() < 0 {
        "-"
    } else if f.tokens.contains(&Num::Sign) {
        "+"
    } else if f.fill {
        " "
    } else {
        ""
    };
    let e = if exponent < 0 { '-' } else { '+' };
    Ok(format!("{sign}{digits}e{e}{:02}", exponent.abs()))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn numeric_to_char(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let n = match &a[0] {
        Datum::Numeric(n) => n.clone(),
        Datum::Int4(v) => Numeric::from(i64::from(*v)),
        Datum::Int8(v) => Numeric::from(*v),
        Datum::Float4(v) => Numeric::from_f64(f64::from(*v), 6)?,
        Datum::Float8(v) => Numeric::from_f64(*v, 15)?,
        other => return Err(other.mismatch("Numeric")),
    };
    number_to_char(&n, a[1].as_str()?).map(Datum::from)
}

fn to_number(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let f = number_template(a[1].as_str()?)?;
    let text = a[0].as_str()?;
    let mut digits = String::new();
    let mut negative = false;
    let mut chars = text.trim_start().chars().peekable();
    let sign = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>, negative: &mut bool| {
        while let Some(c) = chars.next_if(|c| matches!(c, ' ' | '-' | '+' | '<')) {
            *negative |= matches!(c, '-' | '<');
        }
    };
    sign(&mut chars, &mut negative);
    for t in &f.tokens {
        match t {
            Num::Nine | Num::Zero => {
                while chars.next_if_eq(&' ').is_some() {}
                if let Some(d) = chars.next_if(char::is_ascii_digit) {
                    digits.push(d);
                }
            }
            Num::Point => {
                if chars.next_if_eq(&'.').is_some() {
                    digits.push('.');
                }
            }
            Num::Group => {
                chars.next_if_eq(&',');
            }
            Num::Currency => {
                chars.next_if(|c| !c.is_ascii_digit());
            }
            Num::Literal(_) => {
                chars.next_if(|c| !c.is_ascii_digit() && !matches!(c, '.' | ',' | '-' | '+'));
            }
            Num::Sign | Num::Minus | Num::Plus | Num::PlusMinus => sign(&mut chars, &mut negative),
        }
    }
    if chars.any(|c| c == '-') {
        negative = true;
    }
    if digits.bytes().all(|b| b == b'.') {
        return Err(SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type numeric: \" \""));
    }
    let mut n = Numeric::parse(&digits)?;
    if f.shift > 0 {
        n = n.div(&Numeric::from(10i64).power(&Numeric::from(i64::from(f.shift)))?)?;
    }
    Ok(Datum::Numeric(if negative { n.neg() } else { n }))
}

/// By `prosrc`.
pub(super) const SCALARS: &[(&str, ScalarFn)] = &[
    ("timestamp_to_char", moment_to_char),
    ("timestamptz_to_char", moment_to_char),
    ("interval_to_char", interval_to_char),
    ("numeric_to_char", numeric_to_char),
    ("int4_to_char", numeric_to_char),
    ("int8_to_char", numeric_to_char),
    ("float4_to_char", numeric_to_char),
    ("float8_to_char", numeric_to_char),
    ("to_date", to_date),
    ("to_timestamp", to_timestamp),
    ("numeric_to_number", to_number),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_by_template() {
        let f = |v: &str, t: &str| number_to_char(&Numeric::parse(v).unwrap(), t).unwrap();
        for (v, t, want) in [
            ("485", "999", " 485"),
            ("-485", "999", "-485"),
            ("485", "9999", "  485"),
            ("148.5", "999.999", " 148.500"),
            ("148.5", "FM999.999", "148.5"),
            ("148.5", "FM999.990", "148.500"),
            ("-0.1", "99.99", "  -.10"),
            ("-0.1", "FM9.99", "-.1"),
            ("0.1", "0.9", " 0.1"),
            ("12", "9990999.9", "    0012.0"),
            ("12", "FM9990999.9", "0012."),
            ("1485", "9,999", " 1,485"),
            ("485", "999MI", "485 "),
            ("-485", "999MI", "485-"),
            ("485", "SG999", "+485"),
            ("-485", "999PR", "<485>"),
            ("485", "RN", "        CDLXXXV"),
            ("482", "999th", " 482nd"),
            ("12.45", "99V9", " 125"),
            ("0.0004859", "9.99EEEE", " 4.86e-04"),
            ("1234", "99", " ##"),
            ("0", "999", "   0"),
        ] {
            assert_eq!(f(v, t), want, "{v} {t}");
        }
    }
}
