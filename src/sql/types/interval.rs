//! `interval`: text forms, modifiers, arithmetic.

use std::fmt::Write as _;

use super::datetime::{DAY, HOUR, MINUTE, SECOND, round_micros};
use super::datum::Interval;
use super::scalar::is_space;
use super::settings::{IntervalStyle, IoSettings};
use crate::sqlstate::{SqlError, SqlState};

const MONTH_BIT: i32 = 1 << 1;
const YEAR_BIT: i32 = 1 << 2;
const DAY_BIT: i32 = 1 << 3;
const HOUR_BIT: i32 = 1 << 10;
const MINUTE_BIT: i32 = 1 << 11;
const SECOND_BIT: i32 = 1 << 12;
const FULL_RANGE: i32 = 0x7FFF;
const FULL_PRECISION: i32 = 0xFFFF;

/// `22008` in PostgreSQL's words.
pub fn out_of_range() -> SqlError {
    SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "interval out of range")
}

fn range_name(range: i32) -> Option<&'static str> {
    Some(match range {
        YEAR_BIT => " year",
        MONTH_BIT => " month",
        DAY_BIT => " day",
        HOUR_BIT => " hour",
        MINUTE_BIT => " minute",
        SECOND_BIT => " second",
        r if r == YEAR_BIT | MONTH_BIT => " year to month",
        r if r == DAY_BIT | HOUR_BIT => " day to hour",
        r if r == DAY_BIT | HOUR_BIT | MINUTE_BIT => " day to minute",
        r if r == DAY_BIT | HOUR_BIT | MINUTE_BIT | SECOND_BIT => " day to second",
        r if r == HOUR_BIT | MINUTE_BIT => " hour to minute",
        r if r == HOUR_BIT | MINUTE_BIT | SECOND_BIT => " hour to second",
        r if r == MINUTE_BIT | SECOND_BIT => " minute to second",
        FULL_RANGE => "",
        _ => return None,
    })
}

/// `interval year to month`, `interval(3)`.
pub fn typmod_name(typmod: i32) -> String {
    let (range, precision) = (typmod >> 16 & FULL_RANGE, typmod & 0xFFFF);
    let fields = range_name(range).unwrap_or("");
    if precision == FULL_PRECISION { format!("interval{fields}") } else { format!("interval{fields}({precision})") }
}

/// The field mask of words such as `day to second`.
pub fn range_by_name(words: &str) -> Option<i32> {
    (1..=FULL_RANGE).find(|&r| range_name(r).is_some_and(|n| !n.is_empty() && n.trim_start() == words))
}

/// `intervaltypmodin`: the field mask, and the precision.
///
/// # Errors
/// `22023`.
pub fn typmod_in(args: &[i32]) -> Result<i32, SqlError> {
    let bad = |m: &str| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, m);
    match *args {
        [range] => {
            range_name(range).ok_or_else(|| bad("invalid INTERVAL type modifier"))?;
            Ok(if range == FULL_RANGE { -1 } else { range << 16 | FULL_PRECISION })
        }
        [range, precision] => {
            range_name(range).ok_or_else(|| bad("invalid INTERVAL type modifier"))?;
            if precision < 0 {
                return Err(bad(&format!("INTERVAL({precision}) precision must not be negative")));
            }
            Ok(range << 16 | precision.min(6))
        }
        _ => Err(bad("invalid INTERVAL type modifier")),
    }
}

/// Fits an interval to its fields and precision.
///
/// # Errors
/// None today.
pub fn fit(mut i: Interval, typmod: i32) -> Result<Interval, SqlError> {
    if typmod < 0 {
        return Ok(i);
    }
    let (range, precision) = (typmod >> 16 & FULL_RANGE, typmod & 0xFFFF);
    match range {
        YEAR_BIT => i = Interval { months: i.months / 12 * 12, days: 0, micros: 0 },
        MONTH_BIT => i = Interval { months: i.months, days: 0, micros: 0 },
        r if r == YEAR_BIT | MONTH_BIT => i = Interval { months: i.months, days: 0, micros: 0 },
        DAY_BIT => i.micros = 0,
        HOUR_BIT => i.micros = i.micros / HOUR * HOUR,
        MINUTE_BIT => i.micros = i.micros / MINUTE * MINUTE,
        r if r == DAY_BIT | HOUR_BIT => i.micros = i.micros / HOUR * HOUR,
        r if r & SECOND_BIT == 0 && r & MINUTE_BIT != 0 => i.micros = i.micros / MINUTE * MINUTE,
        _ => {}
    }
    if precision < 6 {
        i.micros = round_micros(i.micros, precision);
    }
    Ok(i)
}

enum Problem {
    Syntax,
    Range,
}

/// Collects fields, in wide integers.
#[derive(Default)]
struct Sum {
    months: i128,
    days: i128,
    micros: i128,
}

impl Sum {
    /// Adds `whole.fraction` of a unit; the fraction carries into smaller units as PostgreSQL does it.
    fn add(&mut self, unit: Unit, n: Number) -> Result<(), Problem> {
        let whole = i128::from(n.whole);
        let f = n.fraction;
        if !matches!(unit, Unit::Micros(_)) && i32::try_from(n.whole).is_err() {
            return Err(Problem::Range);
        }
        match unit {
            Unit::Micros(size) => {
                #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "below one unit")]
                let part = (f * size as f64).round() as i128;
                self.micros += whole * i128::from(size) + part;
            }
            Unit::Days(size) => {
                self.days += whole * i128::from(size);
                self.add_days(f * f64::from(size));
            }
            Unit::Months(1) => {
                self.months += whole;
                self.add_days(f * 30.0);
            }
            Unit::Months(size) => {
                #[expect(clippy::cast_possible_truncation, reason = "below one unit")]
                let part = (f * f64::from(size)).round() as i128;
                self.months += whole * i128::from(size) + part;
            }
        }
        Ok(())
    }

    fn add_days(&mut self, days: f64) {
        let whole = days.trunc();
        #[expect(clippy::cast_possible_truncation, reason = "below a few hundred")]
        {
            self.days += whole as i128;
            self.micros += ((days - whole) * 86_400_000_000.0).round() as i128;
        }
    }

    fn negate(&mut self) {
        self.months = -self.months;
        self.days = -self.days;
        self.micros = -self.micros;
    }
}

#[derive(Clone, Copy)]
enum Unit {
    Months(i32),
    Days(i32),
    Micros(i64),
}

#[derive(Clone, Copy)]
struct Number {
    whole: i64,
    /// With the sign of the number.
    fraction: f64,
}

fn unit(word: &str) -> Option<Unit> {
    let w = word.to_ascii_lowercase();
    Some(match w.as_str() {
        "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecond" | "microseconds" | "microsec" | "microsecs" => Unit::Micros(1),
        "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecond" | "milliseconds" | "millisec" | "millisecs" => Unit::Micros(1000),
        "s" | "sec" | "secs" | "second" | "seconds" => Unit::Micros(SECOND),
        "m" | "min" | "mins" | "minute" | "minutes" => Unit::Micros(MINUTE),
        "h" | "hr" | "hrs" | "hour" | "hours" => Unit::Micros(HOUR),
        "d" | "day" | "days" => Unit::Days(1),
        "w" | "week" | "weeks" => Unit::Days(7),
        "mon" | "mons" | "month" | "months" => Unit::Months(1),
        "y" | "yr" | "yrs" | "year" | "years" => Unit::Months(12),
        "dec" | "decs" | "decade" | "decades" => Unit::Months(120),
        "c" | "cent" | "century" | "centuries" => Unit::Months(1200),
        "mil" | "mils" | "millennium" | "millennia" | "millenia" => Unit::Months(12_000),
        _ => return None,
    })
}

fn number(s: &str) -> Result<Number, Problem> {
    let (negative, body) = match s.as_bytes().first() {
        Some(b'-') => (true, &s[1..]),
        Some(b'+') => (false, &s[1..]),
        _ => (false, s),
    };
    let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
    let digits = |p: &str| p.bytes().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(Problem::Syntax);
    }
    let w: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| Problem::Range)? };
    let f: f64 = if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse().map_err(|_| Problem::Syntax)? };
    Ok(if negative { Number { whole: -w, fraction: -f } } else { Number { whole: w, fraction: f } })
}

/// `[-]hh:mm[:ss[.f]]`; with two parts and `minutes_first`, `mm:ss`.
fn clock(s: &str, minutes_first: bool) -> Result<i128, Problem> {
    let (negative, body) = match s.as_bytes().first() {
        Some(b'-') => (true, &s[1..]),
        Some(b'+') => (false, &s[1..]),
        _ => (false, s),
    };
    let parts: Vec<&str> = body.split(':').collect();
    let int = |p: &str| -> Result<i128, Problem> {
        if p.is_empty() || !p.bytes().all(|c| c.is_ascii_digit()) { Err(Problem::Syntax) } else { p.parse().map_err(|_| Problem::Range) }
    };
    let seconds = |p: &str| -> Result<i128, Problem> {
        let n = number(p)?;
        #[expect(clippy::cast_possible_truncation, reason = "below a second")]
        let part = (n.fraction * 1e6).round() as i128;
        Ok(i128::from(n.whole) * i128::from(SECOND) + part)
    };
    let (h, m, s) = match parts.as_slice() {
        [m, s] if minutes_first || s.contains('.') => (0, int(m)?, seconds(s)?),
        [h, m] => (int(h)?, int(m)?, 0),
        [h, m, s] => (int(h)?, int(m)?, seconds(s)?),
        _ => return Err(Problem::Syntax),
    };
    if (parts.len() == 3 && (m > 59 || s > 60 * i128::from(SECOND))) || (parts.len() == 2 && (m > 59 || s > 60 * i128::from(SECOND))) {
        return Err(Problem::Range);
    }
    let v = h * i128::from(HOUR) + m * i128::from(MINUTE) + s;
    Ok(if negative { -v } else { v })
}

/// Reads an `interval`.
///
/// # Errors
/// `22007` bad syntax, `22015` field out of range.
pub fn parse(text: &str, typmod: i32, io: &IoSettings) -> Result<Interval, SqlError> {
    let range = if typmod >= 0 { typmod >> 16 & FULL_RANGE } else { FULL_RANGE };
    let parsed = if text.trim_start_matches(is_space).starts_with('P') { parse_iso8601(text.trim()) } else { parse_words(text, range, io) };
    let sum = parsed.map_err(|p| match p {
        Problem::Syntax => SqlError::new(SqlState::INVALID_DATETIME_FORMAT, format!("invalid input syntax for type interval: \"{text}\"")),
        Problem::Range => SqlError::new(SqlState::INTERVAL_FIELD_OVERFLOW, format!("interval field value out of range: \"{text}\"")),
    })?;
    let i = Interval {
        months: i32::try_from(sum.months).map_err(|_| out_of_range())?,
        days: i32::try_from(sum.days).map_err(|_| out_of_range())?,
        micros: i64::try_from(sum.micros).map_err(|_| out_of_range())?,
    };
    fit(i, typmod)
}

/// Splits `1day2:03` at the borders of numbers and letters.
fn words(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let b = text.as_bytes();
    let mut i = 0;
    while i < b.len() {
        let start = i;
        let c = b[i];
        if is_space(char::from(c)) || c == b'@' || c == b',' {
            i += 1;
            continue;
        }
        if c.is_ascii_alphabetic() {
            while i < b.len() && b[i].is_ascii_alphabetic() {
                i += 1;
            }
        } else {
            i += 1;
            while i < b.len() && !b[i].is_ascii_alphabetic() && !is_space(char::from(b[i])) && b[i] != b',' {
                i += 1;
            }
        }
        if let Some(w) = text.get(start..i) {
            out.push(w);
        } else {
            out.push(text);
            break;
        }
    }
    out
}

fn parse_words(text: &str, range: i32, io: &IoSettings) -> Result<Sum, Problem> {
    let words = words(text);
    if words.is_empty() {
        return Err(Problem::Syntax);
    }
    let mut sum = Sum::default();
    let mut seen = Vec::new();
    let mut ago = false;
    // SQL style: one leading minus and no other sign negates everything.
    let leading_minus = io.interval_style == IntervalStyle::SqlStandard
        && words[0].starts_with('-')
        && !words.iter().skip(1).any(|w| w.starts_with(['-', '+']));
    let mut i = 0;
    while i < words.len() {
        let w = words[i];
        i += 1;
        if w.as_bytes()[0].is_ascii_alphabetic() {
            if w.eq_ignore_ascii_case("ago") && i == words.len() {
                ago = true;
                continue;
            }
            return Err(Problem::Syntax);
        }
        if w.contains(':') {
            let mut v = clock(w, range == MINUTE_BIT | SECOND_BIT)?;
            if leading_minus && i > 1 {
                v = -v;
            }
            sum.micros += v;
            continue;
        }
        let (sign, body) = match w.as_bytes()[0] {
            b'-' => (-1, &w[1..]),
            b'+' => (1, &w[1..]),
            _ => (if leading_minus && i > 1 { -1 } else { 1 }, w),
        };
        if let Some((y, m)) = body.split_once('-') {
            let (y, m) = (number(y)?, number(m)?);
            if !(0..12).contains(&m.whole) {
                return Err(Problem::Range);
            }
            sum.months += sign * (i128::from(y.whole) * 12 + i128::from(m.whole));
            continue;
        }
        let mut n = number(body)?;
        if sign < 0 {
            n = Number { whole: -n.whole, fraction: -n.fraction };
        }
        let next_unit = words.get(i).and_then(|w| unit(w));
        let u = match next_unit {
            Some(u) => {
                i += 1;
                u
            }
            None if words.get(i).is_some_and(|w| w.as_bytes()[0].is_ascii_alphabetic() && !w.eq_ignore_ascii_case("ago")) => {
                return Err(Problem::Syntax);
            }
            // A number before a clock is days; a last bare number is in the smallest unit of the type's fields.
            None if words.get(i).is_some_and(|w| w.contains(':')) => Unit::Days(1),
            None if i == words.len() || words.get(i).is_some_and(|w| w.eq_ignore_ascii_case("ago")) => match range {
                YEAR_BIT => Unit::Months(12),
                r if r & MONTH_BIT != 0 && r != FULL_RANGE => Unit::Months(1),
                DAY_BIT => Unit::Days(1),
                r if r == HOUR_BIT || r == DAY_BIT | HOUR_BIT => Unit::Micros(HOUR),
                r if r != FULL_RANGE && r & MINUTE_BIT != 0 && r & SECOND_BIT == 0 => Unit::Micros(MINUTE),
                _ => Unit::Micros(SECOND),
            },
            None => return Err(Problem::Syntax),
        };
        // A unit may be given once.
        let kind = match u {
            Unit::Months(size) => (0, i64::from(size)),
            Unit::Days(size) => (1, i64::from(size)),
            Unit::Micros(size) => (2, size),
        };
        if seen.contains(&kind) {
            return Err(Problem::Syntax);
        }
        seen.push(kind);
        sum.add(u, n)?;
    }
    if ago {
        sum.negate();
    }
    Ok(sum)
}

fn parse_iso8601(text: &str) -> Result<Sum, Problem> {
    let mut sum = Sum::default();
    let mut rest = &text[1..];
    let mut in_time = false;
    if rest.is_empty() {
        return Err(Problem::Syntax);
    }
    while !rest.is_empty() {
        if let Some(r) = rest.strip_prefix('T') {
            in_time = true;
            rest = r;
            continue;
        }
        let end = rest.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(rest.len());
        let body = &rest[..end];
        let letter = rest[end..].chars().next();
        if letter.is_none() || (letter == Some('T') && body.matches('-').count() > 0 && !body.starts_with('-')) || letter == Some(':') {
            // The alternative format: P0001-02-03T04:05:06.
            return parse_iso8601_alternative(&text[1..]);
        }
        let n = number(body)?;
        let u = match (letter, in_time) {
            (Some('Y'), false) => Unit::Months(12),
            (Some('M'), false) => Unit::Months(1),
            (Some('W'), false) => Unit::Days(7),
            (Some('D'), false) => Unit::Days(1),
            (Some('H'), true) => Unit::Micros(HOUR),
            (Some('M'), true) => Unit::Micros(MINUTE),
            (Some('S'), true) => Unit::Micros(SECOND),
            _ => return Err(Problem::Syntax),
        };
        sum.add(u, n)?;
        rest = &rest[end + 1..];
    }
    Ok(sum)
}

fn parse_iso8601_alternative(body: &str) -> Result<Sum, Problem> {
    let mut sum = Sum::default();
    let (date, time) = body.split_once('T').unwrap_or((body, ""));
    let parts: Vec<&str> = date.split('-').collect();
    if let [y, m, d] = parts.as_slice() {
        sum.add(Unit::Months(12), number(y)?)?;
        sum.add(Unit::Months(1), number(m)?)?;
        sum.add(Unit::Days(1), number(d)?)?;
    } else if !date.is_empty() {
        return Err(Problem::Syntax);
    }
    if !time.is_empty() {
        sum.micros += clock(time, false)?;
    }
    Ok(sum)
}

/// Writes an `interval`.
pub fn write(i: Interval, io: &IoSettings, out: &mut String) {
    match io.interval_style {
        IntervalStyle::Postgres => write_postgres(i, out),
        IntervalStyle::PostgresVerbose => write_verbose(i, out),
        IntervalStyle::SqlStandard => write_sql(i, out),
        IntervalStyle::Iso8601 => write_iso8601(i, out),
    }
}

/// Hours, minutes, seconds and microseconds, all with the sign of the whole.
fn clock_parts(micros: i64) -> (i64, i64, i64, i64) {
    (micros / HOUR, micros % HOUR / MINUTE, micros % MINUTE / SECOND, micros % SECOND)
}

fn push_seconds(s: i64, f: i64, width: usize, out: &mut String) {
    let _infallible = write!(out, "{:0width$}", s.abs());
    if f != 0 {
        let digits = format!("{:06}", f.abs());
        let _infallible = write!(out, ".{}", digits.trim_end_matches('0'));
    }
}

fn write_postgres(i: Interval, out: &mut String) {
    let (y, m) = (i.months / 12, i.months % 12);
    let mut first = true;
    let mut before_negative = false;
    let mut field = |v: i32, name: &str, out: &mut String| {
        if v == 0 {
            return;
        }
        let _infallible = write!(
            out,
            "{}{}{v} {name}{}",
            if first { "" } else { " " },
            if before_negative && v > 0 { "+" } else { "" },
            if v == 1 { "" } else { "s" }
        );
        before_negative = v < 0;
        first = false;
    };
    field(y, "year", out);
    field(m, "mon", out);
    field(i.days, "day", out);
    if first || i.micros != 0 {
        let (h, m, s, f) = clock_parts(i.micros);
        if !first {
            out.push(' ');
        }
        if i.micros < 0 {
            out.push('-');
        } else if before_negative {
            out.push('+');
        }
        let _infallible = write!(out, "{:02}:{:02}:", h.abs(), m.abs());
        push_seconds(s, f, 2, out);
    }
}

fn write_verbose(i: Interval, out: &mut String) {
    out.push('@');
    let (h, m, s, f) = clock_parts(i.micros);
    let fields =
        [(i64::from(i.months / 12), "year"), (i64::from(i.months % 12), "mon"), (i64::from(i.days), "day"), (h, "hour"), (m, "min")];
    // The first field decides whether the whole is "ago"; later ones are relative to that.
    let mut ago = false;
    let mut empty = true;
    for (v, name) in fields {
        if v == 0 {
            continue;
        }
        if empty {
            ago = v < 0;
            empty = false;
        }
        let v = if ago { -v } else { v };
        let _infallible = write!(out, " {v} {name}{}", if v == 1 { "" } else { "s" });
    }
    if s != 0 || f != 0 {
        let negative = s < 0 || f < 0;
        if empty {
            ago = negative;
            empty = false;
        }
        out.push(' ');
        if negative != ago {
            out.push('-');
        }
        push_seconds(s, f, 1, out);
        out.push_str(if s.abs() == 1 && f == 0 { " sec" } else { " secs" });
    }
    if empty {
        out.push_str(" 0");
    }
    if ago {
        out.push_str(" ago");
    }
}

fn write_sql(i: Interval, out: &mut String) {
    let (y, mon) = (i.months / 12, i.months % 12);
    let (h, m, s, f) = clock_parts(i.micros);
    let has_negative = i.months < 0 || i.days < 0 || i.micros < 0;
    let has_positive = i.months > 0 || i.days > 0 || i.micros > 0;
    let (has_ym, has_d, has_t) = (i.months != 0, i.days != 0, i.micros != 0);
    if has_negative && has_positive || (has_ym && (has_d || has_t)) {
        // Mixed signs or kinds: every part shows its sign.
        let sign = |neg: bool| if neg { '-' } else { '+' };
        let _infallible = write!(
            out,
            "{}{}-{} {}{} {}{}:{:02}:",
            sign(i.months < 0),
            y.abs(),
            mon.abs(),
            sign(i.days < 0),
            i.days.abs(),
            sign(i.micros < 0),
            h.abs(),
            m.abs()
        );
        push_seconds(s, f, 2, out);
        return;
    }
    if !has_negative && !has_positive {
        out.push('0');
        return;
    }
    if has_negative {
        out.push('-');
    }
    if has_ym {
        let _infallible = write!(out, "{}-{}", y.abs(), mon.abs());
    } else if has_d {
        let _infallible = write!(out, "{} {}:{:02}:", i.days.abs(), h.abs(), m.abs());
        push_seconds(s, f, 2, out);
    } else {
        let _infallible = write!(out, "{}:{:02}:", h.abs(), m.abs());
        push_seconds(s, f, 2, out);
    }
}

fn write_iso8601(i: Interval, out: &mut String) {
    let (h, m, s, f) = clock_parts(i.micros);
    if i.months == 0 && i.days == 0 && i.micros == 0 {
        out.push_str("PT0S");
        return;
    }
    out.push('P');
    let field = |v: i64, c: char, out: &mut String| {
        if v != 0 {
            let _infallible = write!(out, "{v}{c}");
        }
    };
    field(i64::from(i.months / 12), 'Y', out);
    field(i64::from(i.months % 12), 'M', out);
    field(i64::from(i.days), 'D', out);
    if i.micros != 0 {
        out.push('T');
    }
    field(h, 'H', out);
    field(m, 'M', out);
    if s != 0 || f != 0 {
        if s < 0 || f < 0 {
            out.push('-');
        }
        push_seconds(s, f, 1, out);
        out.push('S');
    }
}

impl Interval {
    /// Sum.
    ///
    /// # Errors
    /// `22008`.
    pub fn checked_add(self, o: Self) -> Result<Self, SqlError> {
        Ok(Self {
            months: self.months.checked_add(o.months).ok_or_else(out_of_range)?,
            days: self.days.checked_add(o.days).ok_or_else(out_of_range)?,
            micros: self.micros.checked_add(o.micros).ok_or_else(out_of_range)?,
        })
    }

    /// Negation.
    ///
    /// # Errors
    /// `22008`.
    pub fn checked_neg(self) -> Result<Self, SqlError> {
        Ok(Self {
            months: self.months.checked_neg().ok_or_else(out_of_range)?,
            days: self.days.checked_neg().ok_or_else(out_of_range)?,
            micros: self.micros.checked_neg().ok_or_else(out_of_range)?,
        })
    }

    /// Product with a number; fractions of months go to days, of days to time, as PostgreSQL cascades them.
    ///
    /// # Errors
    /// `22008`.
    pub fn scaled(self, factor: f64) -> Result<Self, SqlError> {
        self.cascade(|v| v * factor)
    }

    /// Quotient by a number.
    ///
    /// # Errors
    /// `22008`, `22012`.
    pub fn divided(self, factor: f64) -> Result<Self, SqlError> {
        if factor == 0.0 {
            return Err(SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero"));
        }
        self.cascade(|v| v / factor)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "range checked; fractions intended")]
    fn cascade(self, apply: impl Fn(f64) -> f64) -> Result<Self, SqlError> {
        let fits = |v: f64| {
            if v.is_nan() || v < f64::from(i32::MIN) || v > f64::from(i32::MAX) { Err(out_of_range()) } else { Ok(v as i32) }
        };
        let months_exact = apply(f64::from(self.months));
        let days_exact = apply(f64::from(self.days));
        let months = fits(months_exact)?;
        let mut days = fits(days_exact)?;
        let round = |v: f64| (v * 1e6).round() / 1e6;
        let month_remainder = round((months_exact - f64::from(months)) * 30.0);
        let mut seconds = round((days_exact - f64::from(days) + month_remainder - month_remainder.trunc()) * 86_400.0);
        if seconds.abs() >= 86_400.0 {
            days = days.checked_add((seconds / 86_400.0) as i32).ok_or_else(out_of_range)?;
            seconds -= (seconds / 86_400.0).trunc() * 86_400.0;
        }
        days = days.checked_add(month_remainder as i32).ok_or_else(out_of_range)?;
        let micros = (apply(self.micros as f64) + seconds * 1e6).round();
        if micros.is_nan() || micros.abs() >= 9.2e18 {
            return Err(out_of_range());
        }
        Ok(Self { months, days, micros: micros as i64 })
    }

    /// 24 hours become days (`justify_hours`).
    ///
    /// # Errors
    /// `22008`.
    pub fn justify_hours(self) -> Result<Self, SqlError> {
        let mut days = i64::from(self.days) + self.micros / DAY;
        let mut micros = self.micros % DAY;
        if days > 0 && micros < 0 {
            micros += DAY;
            days -= 1;
        } else if days < 0 && micros > 0 {
            micros -= DAY;
            days += 1;
        }
        Ok(Self { months: self.months, days: i32::try_from(days).map_err(|_| out_of_range())?, micros })
    }

    /// 30 days become months (`justify_days`).
    ///
    /// # Errors
    /// `22008`.
    pub fn justify_days(self) -> Result<Self, SqlError> {
        let mut months = i64::from(self.months) + i64::from(self.days / 30);
        let mut days = self.days % 30;
        if months > 0 && days < 0 {
            days += 30;
            months -= 1;
        } else if months < 0 && days > 0 {
            days -= 30;
            months += 1;
        }
        Ok(Self { months: i32::try_from(months).map_err(|_| out_of_range())?, days, micros: self.micros })
    }

    /// Both, and signs made to agree (`justify_interval`).
    ///
    /// # Errors
    /// `22008`.
    pub fn justify(self) -> Result<Self, SqlError> {
        let mut i = self.justify_hours()?.justify_days()?;
        if i.months > 0 && (i.days < 0 || (i.days == 0 && i.micros < 0)) {
            i.days += 30;
            i.months -= 1;
        } else if i.months < 0 && (i.days > 0 || (i.days == 0 && i.micros > 0)) {
            i.days -= 30;
            i.months += 1;
        }
        if i.days > 0 && i.micros < 0 {
            i.micros += DAY;
            i.days -= 1;
        } else if i.days < 0 && i.micros > 0 {
            i.micros -= DAY;
            i.days += 1;
        }
        Ok(i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(style: IntervalStyle, s: &str) -> String {
        let io = IoSettings { interval_style: style, ..IoSettings::default() };
        let mut out = String::new();
        write(parse(s, -1, &IoSettings::default()).unwrap(), &io, &mut out);
        out
    }

    #[test]
    fn styles() {
        let s = "1 year 2 mons 3 days 04:05:06.789";
        assert_eq!(with(IntervalStyle::Postgres, s), s);
        assert_eq!(with(IntervalStyle::PostgresVerbose, s), "@ 1 year 2 mons 3 days 4 hours 5 mins 6.789 secs");
        assert_eq!(with(IntervalStyle::SqlStandard, s), "+1-2 +3 +4:05:06.789");
        assert_eq!(with(IntervalStyle::Iso8601, s), "P1Y2M3DT4H5M6.789S");
        assert_eq!(with(IntervalStyle::Postgres, "P1Y2M3DT4H5M6.789S"), s);
        assert_eq!(with(IntervalStyle::Postgres, "-1 day +02:03"), "-1 days +02:03:00");
        assert_eq!(with(IntervalStyle::Postgres, "1.5 days ago"), "-1 days -12:00:00");
        assert_eq!(with(IntervalStyle::Postgres, "1-2"), "1 year 2 mons");
        assert_eq!(with(IntervalStyle::Postgres, "90"), "00:01:30");
        assert_eq!(with(IntervalStyle::Postgres, "0"), "00:00:00");
        assert!(parse("1 fortnight", -1, &IoSettings::default()).is_err());
    }
}
