//! `float4` and `float8`: text forms.

use std::fmt::Write as _;

use super::settings::IoSettings;
use crate::sqlstate::{SqlError, SqlState};

/// Reads a float (`float8in`, `float4in`); `type_name` is the SQL name for messages.
fn parse_special(s: &str) -> Option<f64> {
    let (negative, body) = match s.as_bytes().first()? {
        b'-' => (true, &s[1..]),
        b'+' => (false, &s[1..]),
        _ => (false, s),
    };
    if body.eq_ignore_ascii_case("nan") {
        return (body.len() == s.len() || negative).then_some(f64::NAN);
    }
    (body.eq_ignore_ascii_case("infinity") || body.eq_ignore_ascii_case("inf")).then_some(if negative {
        f64::NEG_INFINITY
    } else {
        f64::INFINITY
    })
}

fn bad_syntax(text: &str, type_name: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("invalid input syntax for type {type_name}: \"{text}\""))
}

fn out_of_range(text: &str, type_name: &str) -> SqlError {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("\"{text}\" is out of range for type {type_name}"))
}

fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b')
}

fn is_number(s: &str) -> bool {
    s.bytes().all(|c| matches!(c, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) && s.bytes().any(|c| c.is_ascii_digit())
}

fn is_zero_text(s: &str) -> bool {
    let mantissa = s.split(['e', 'E']).next().unwrap_or(s);
    !mantissa.bytes().any(|c| matches!(c, b'1'..=b'9'))
}

/// Reads a `float8`.
///
/// # Errors
/// `22P02` bad syntax, `22003` out of range.
pub fn parse_f64(text: &str) -> Result<f64, SqlError> {
    let s = trim(text);
    if let Some(v) = parse_special(s) {
        return Ok(v);
    }
    if !is_number(s) {
        return Err(bad_syntax(text, "double precision"));
    }
    let v: f64 = s.parse().map_err(|_| bad_syntax(text, "double precision"))?;
    if v.is_infinite() || (v == 0.0 && !is_zero_text(s)) {
        return Err(out_of_range(s, "double precision"));
    }
    Ok(v)
}

/// Reads a `float4`.
///
/// # Errors
/// `22P02` bad syntax, `22003` out of range.
pub fn parse_f32(text: &str) -> Result<f32, SqlError> {
    let s = trim(text);
    if let Some(v) = parse_special(s) {
        #[expect(clippy::cast_possible_truncation, reason = "NaN or infinite")]
        return Ok(v as f32);
    }
    if !is_number(s) {
        return Err(bad_syntax(text, "real"));
    }
    let v: f32 = s.parse().map_err(|_| bad_syntax(text, "real"))?;
    if v.is_infinite() || (v == 0.0 && !is_zero_text(s)) {
        return Err(out_of_range(s, "real"));
    }
    Ok(v)
}

fn special_name(v: f64) -> Option<&'static str> {
    if v.is_nan() {
        Some("NaN")
    } else if v.is_infinite() {
        Some(if v > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        None
    }
}

/// Writes a `float8` as `extra_float_digits` asks: the shortest that reads back, or so many significant digits.
pub fn write_f64(v: f64, out: &mut String, io: &IoSettings) {
    if let Some(name) = special_name(v) {
        out.push_str(name);
    } else if io.extra_float_digits > 0 {
        layout(&format!("{v:e}"), 15, out);
    } else {
        let digits = usize::try_from(15 + io.extra_float_digits.max(-14)).unwrap_or(1);
        out.push_str(&format_g(v, digits));
    }
}

/// Writes a `float4`.
pub fn write_f32(v: f32, out: &mut String, io: &IoSettings) {
    if let Some(name) = special_name(f64::from(v)) {
        out.push_str(name);
    } else if io.extra_float_digits > 0 {
        layout(&format!("{v:e}"), 6, out);
    } else {
        let digits = usize::try_from(6 + io.extra_float_digits.max(-5)).unwrap_or(1);
        out.push_str(&format_g(f64::from(v), digits));
    }
}

/// C's `%.{digits}g`.
pub fn format_g(v: f64, digits: usize) -> String {
    if let Some(name) = special_name(v) {
        return name.to_owned();
    }
    let digits = digits.max(1);
    let text = format!("{v:.*e}", digits - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    let mut out = String::new();
    layout(&format!("{mantissa}e{exponent}"), i32::try_from(digits).unwrap_or(i32::MAX), &mut out);
    out
}

/// Lays out Rust's `d.ddde-x`: positional for exponents from -4 up to `limit`, else `d.ddde-xx`.
fn layout(scientific: &str, limit: i32, out: &mut String) {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    out.push_str(sign);
    if !(-4..limit).contains(&exponent) {
        let _infallible = write!(out, "{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
        return;
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    match usize::try_from(exponent) {
        Ok(e) => {
            out.push_str(whole);
            if fraction.len() > e {
                out.push_str(&fraction[..e]);
                out.push('.');
                out.push_str(&fraction[e..]);
            } else {
                out.push_str(fraction);
                out.extend(std::iter::repeat_n('0', e - fraction.len()));
            }
        }
        Err(_) => {
            out.push_str("0.");
            out.extend(std::iter::repeat_n('0', exponent.unsigned_abs() as usize - 1));
            out.push_str(whole);
            out.push_str(fraction);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(v: f64) -> String {
        let mut s = String::new();
        write_f64(v, &mut s, &IoSettings::default());
        s
    }

    #[test]
    fn shortest_form_is_laid_out_as_postgres_does() {
        assert_eq!(out(1.0), "1");
        assert_eq!(out(0.1), "0.1");
        assert_eq!(out(-0.0), "-0");
        assert_eq!(out(1e15), "1e+15");
        assert_eq!(out(123_456_789_012_345.0), "123456789012345");
        assert_eq!(out(1e-5), "1e-05");
        assert_eq!(out(0.000_123), "0.000123");
        assert_eq!(out(1.5e300), "1.5e+300");
        assert_eq!(format_g(1.0 / 3.0, 15), "0.333333333333333");
        assert_eq!(format_g(100.0, 6), "100");
    }

    #[test]
    fn range_and_syntax_are_checked() {
        assert_eq!(parse_f64("1e400").unwrap_err().state(), SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
        assert_eq!(parse_f64("abc").unwrap_err().state(), SqlState::INVALID_TEXT_REPRESENTATION);
        assert!(parse_f64("NaN").unwrap().is_nan());
        assert_eq!(parse_f64(" -inf ").unwrap(), f64::NEG_INFINITY);
    }
}
