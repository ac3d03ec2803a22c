//! Text forms of the small types: booleans, integers, identifiers, strings, `bytea`, `uuid`, `pg_lsn`, `tid`.

use std::fmt::Write as _;

use super::Datum;
use super::datum::{Text, Tid};
use super::settings::ByteaOutput;
use crate::sqlstate::{SqlError, SqlState};

/// Longest identifier, in bytes (`NAMEDATALEN - 1`).
pub const NAME_BYTES: usize = 63;

/// `22P02` in PostgreSQL's words.
#[cold]
pub fn bad_syntax(type_name: &str, text: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("invalid input syntax for type {type_name}: \"{text}\""))
}

#[cold]
fn out_of_range(type_name: &str, text: &str) -> SqlError {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("value \"{text}\" is out of range for type {type_name}"))
}

/// C's `isspace`.
pub fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// Reads a signed integer; `type_name` as in messages: `smallint`, `integer`, `bigint`.
///
/// # Errors
/// `22P02`, `22003`.
pub fn parse_int<T: std::str::FromStr>(text: &str, type_name: &str) -> Result<T, SqlError> {
    if let Ok(v) = text.parse() {
        return Ok(v);
    }
    let s = text.trim_matches(is_space);
    if let Ok(v) = s.parse() {
        return Ok(v);
    }
    let digits = s.strip_prefix(['-', '+']).unwrap_or(s);
    if !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) {
        Err(out_of_range(type_name, text))
    } else {
        Err(bad_syntax(type_name, text))
    }
}

/// Reads an `oid`, `xid`, `cid`: 32 bits, negative numbers wrap.
///
/// # Errors
/// `22P02`, `22003`.
pub fn parse_oid(text: &str, type_name: &str) -> Result<u32, SqlError> {
    let s = text.trim_matches(is_space);
    let v: i128 = match s.parse() {
        Ok(v) => v,
        Err(_) => return Err(parse_int::<i64>(text, type_name).err().unwrap_or_else(|| bad_syntax(type_name, text))),
    };
    u32::try_from(v).ok().or_else(|| i32::try_from(v).ok().map(i32::cast_unsigned)).ok_or_else(|| out_of_range(type_name, text))
}

/// Reads a `bool`.
///
/// # Errors
/// `22P02`.
pub fn parse_bool(text: &str) -> Result<bool, SqlError> {
    parse_bool_opt(text.trim_matches(is_space)).ok_or_else(|| bad_syntax("boolean", text))
}

/// The boolean a word means, prefixes allowed where unambiguous.
pub fn parse_bool_opt(s: &str) -> Option<bool> {
    let prefix = |word: &str, least: usize| {
        s.len() >= least && s.len() <= word.len() && word.as_bytes()[..s.len()].eq_ignore_ascii_case(s.as_bytes())
    };
    if prefix("true", 1) || prefix("yes", 1) || prefix("on", 2) || s == "1" {
        Some(true)
    } else if prefix("false", 1) || prefix("no", 1) || prefix("off", 2) || s == "0" {
        Some(false)
    } else {
        None
    }
}

/// Reads a `"char"`: a byte, or `\ooo`.
pub fn parse_char(text: &str) -> u8 {
    match text.as_bytes() {
        [b'\\', a @ b'0'..=b'7', b @ b'0'..=b'7', c @ b'0'..=b'7'] => (a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'),
        [first, ..] => *first,
        [] => 0,
    }
}

/// Writes a `"char"`.
pub fn write_char(c: u8, out: &mut Vec<u8>) {
    if c & 0x80 != 0 {
        out.extend_from_slice(&[b'\\', b'0' + (c >> 6), b'0' + (c >> 3 & 7), b'0' + (c & 7)]);
    } else if c != 0 {
        out.push(c);
    }
}

/// Cuts an identifier to what `name` holds, at a character.
pub fn clip_name(s: &str) -> &str {
    if s.len() <= NAME_BYTES { s } else { &s[..s.floor_char_boundary(NAME_BYTES)] }
}

/// Fits a `varchar(n)`: too long is an error unless only blanks are lost, or the cast is explicit.
///
/// # Errors
/// `22001`.
pub fn fit_varchar(text: Text, typmod: i32, explicit: bool) -> Result<Text, SqlError> {
    let Some(limit) = usize::try_from(typmod - 4).ok().filter(|_| typmod >= 4) else { return Ok(text) };
    let Some(end) = nth_char(&text, limit) else { return Ok(text) };
    if !explicit && !text[end..].bytes().all(|b| b == b' ') {
        return Err(SqlError::new(SqlState::STRING_DATA_RIGHT_TRUNCATION, format!("value too long for type character varying({limit})")));
    }
    Ok(Text::from(&text[..end]))
}

/// Fits a `char(n)`: as [`fit_varchar`], and padded with blanks.
///
/// # Errors
/// `22001`.
pub fn fit_bpchar(text: Text, typmod: i32, explicit: bool) -> Result<Text, SqlError> {
    Ok(fitted_bpchar(&text, typmod, explicit)?.unwrap_or(text))
}

/// As [`fit_bpchar`]; `None`: it fits as it is.
pub(super) fn fitted_bpchar(text: &str, typmod: i32, explicit: bool) -> Result<Option<Text>, SqlError> {
    let Some(limit) = usize::try_from(typmod - 4).ok().filter(|_| typmod >= 4) else { return Ok(None) };
    if let Some(end) = nth_char(text, limit) {
        if !explicit && !text[end..].bytes().all(|b| b == b' ') {
            return Err(SqlError::new(SqlState::STRING_DATA_RIGHT_TRUNCATION, format!("value too long for type character({limit})")));
        }
        return Ok(Some(Text::from(&text[..end])));
    }
    // A modifier no column can have, from a direct call of the cast function.
    if limit > 1 << 30 {
        return Err(SqlError::internal(format!("invalid memory alloc request size {typmod}")));
    }
    let chars = if text.is_ascii() { text.len() } else { text.chars().count() };
    if chars == limit {
        return Ok(None);
    }
    const SPACES: &str = "                                                                ";
    let mut missing = limit - chars;
    let mut padded = String::with_capacity(text.len() + missing);
    padded.push_str(text);
    while missing > 0 {
        let some = missing.min(SPACES.len());
        padded.push_str(&SPACES[..some]);
        missing -= some;
    }
    Ok(Some(Text::from(padded)))
}

/// Byte offset of the `n`th character (from 0), `None` if the string has no more than `n`.
fn nth_char(s: &str, n: usize) -> Option<usize> {
    if s.len() <= n {
        return None;
    }
    s.char_indices().nth(n).map(|(i, _)| i)
}

/// Reads `bytea`, hex or escape form.
///
/// # Errors
/// `22P02`, `22023` for bad hex.
pub fn parse_bytea(text: &str) -> Result<Vec<u8>, SqlError> {
    if let Some(hex) = text.strip_prefix("\\x") {
        return parse_hex(hex);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => return Ok(out),
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                tail
            }
            [b'\\', b'\\', tail @ ..] => {
                out.push(b'\\');
                tail
            }
            [b'\\', ..] => {
                return Err(SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type bytea"));
            }
            [c, tail @ ..] => {
                out.push(*c);
                tail
            }
        };
    }
}

/// Reads hexadecimal digits, white space between bytes allowed.
///
/// # Errors
/// `22023`.
pub fn parse_hex(hex: &str) -> Result<Vec<u8>, SqlError> {
    let fail = |m: String| Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, m));
    let mut out = Vec::with_capacity(hex.len() / 2);
    let mut chars = hex.chars();
    let digit = |c: char| c.to_digit(16).and_then(|d| u8::try_from(d).ok());
    while let Some(c) = chars.next() {
        if matches!(c, ' ' | '\n' | '\t' | '\r') {
            continue;
        }
        let Some(high) = digit(c) else { return fail(format!("invalid hexadecimal digit: \"{c}\"")) };
        let Some(d) = chars.next() else { return fail("invalid hexadecimal data: odd number of digits".to_owned()) };
        let Some(low) = digit(d) else { return fail(format!("invalid hexadecimal digit: \"{d}\"")) };
        out.push(high << 4 | low);
    }
    Ok(out)
}

/// Appends lower-case hexadecimal digits.
pub fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() * 2);
    for b in bytes {
        out.push(DIGITS[usize::from(b >> 4)]);
        out.push(DIGITS[usize::from(b & 15)]);
    }
}

/// Writes `bytea`.
pub fn write_bytea(bytes: &[u8], style: ByteaOutput, out: &mut Vec<u8>) {
    match style {
        ByteaOutput::Hex => {
            out.extend_from_slice(b"\\x");
            write_hex(bytes, out);
        }
        ByteaOutput::Escape => {
            for &c in bytes {
                match c {
                    b'\\' => out.extend_from_slice(b"\\\\"),
                    0x20..=0x7E => out.push(c),
                    _ => out.extend_from_slice(&[b'\\', b'0' + (c >> 6), b'0' + (c >> 3 & 7), b'0' + (c & 7)]),
                }
            }
        }
    }
}

/// Reads a `uuid`: 32 hexadecimal digits, a hyphen allowed after each group of four, braces allowed.
///
/// # Errors
/// `22P02`.
pub fn parse_uuid(text: &str) -> Result<[u8; 16], SqlError> {
    let fail = || bad_syntax("uuid", text);
    let body = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or_else(fail)?,
        None => text,
    };
    let mut out = [0u8; 16];
    let mut rest = body.as_bytes();
    for (i, slot) in out.iter_mut().enumerate() {
        let [a, b, tail @ ..] = rest else { return Err(fail()) };
        let pair = [*a, *b];
        let pair = std::str::from_utf8(&pair).ok().filter(|p| p.bytes().all(|c| c.is_ascii_hexdigit()));
        *slot = u8::from_str_radix(pair.ok_or_else(fail)?, 16).map_err(|_| fail())?;
        rest = match tail {
            [b'-', more @ ..] if i % 2 == 1 && i < 15 => more,
            _ => tail,
        };
    }
    if rest.is_empty() { Ok(out) } else { Err(fail()) }
}

/// Writes a `uuid`.
pub fn write_uuid(u: &[u8; 16], out: &mut Vec<u8>) {
    for (i, part) in [&u[..4], &u[4..6], &u[6..8], &u[8..10], &u[10..]].into_iter().enumerate() {
        if i > 0 {
            out.push(b'-');
        }
        write_hex(part, out);
    }
}

/// Reads a `pg_lsn`.
///
/// # Errors
/// `22P02`.
pub fn parse_lsn(text: &str) -> Result<u64, SqlError> {
    let half = |s: &str| {
        (1..=8).contains(&s.len()).then_some(()).filter(|()| s.bytes().all(|c| c.is_ascii_hexdigit()))?;
        u64::from_str_radix(s, 16).ok()
    };
    text.split_once('/').and_then(|(hi, lo)| Some(half(hi)? << 32 | half(lo)?)).ok_or_else(|| bad_syntax("pg_lsn", text))
}

/// Writes a `pg_lsn`.
pub fn write_lsn(v: u64, out: &mut String) {
    let _infallible = write!(out, "{:X}/{:X}", v >> 32, v & 0xFFFF_FFFF);
}

/// Reads a `tid`.
///
/// # Errors
/// `22P02`.
pub fn parse_tid(text: &str) -> Result<Tid, SqlError> {
    let inner = text.trim_matches(is_space).strip_prefix('(').and_then(|s| s.strip_suffix(')'));
    inner
        .and_then(|s| s.split_once(','))
        .and_then(|(b, o)| Some(Tid { block: b.trim().parse().ok()?, offset: o.trim().parse().ok()? }))
        .ok_or_else(|| bad_syntax("tid", text))
}

/// Reads an `xid8`.
///
/// # Errors
/// `22P02`, `22003`.
pub fn parse_xid8(text: &str) -> Result<Datum, SqlError> {
    // PostgreSQL 15 takes the leading digits, whatever follows.
    let s = text.trim_start_matches(is_space);
    let end = s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    if end == 0 {
        return Ok(Datum::Xid8(0));
    }
    s[..end].parse().map(Datum::Xid8).map_err(|_| bad_syntax("xid8", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_read_as_postgres_does() {
        assert_eq!(parse_int::<i32>(" 42 ", "integer").unwrap(), 42);
        assert_eq!(parse_int::<i32>("+7", "integer").unwrap(), 7);
        let e = parse_int::<i32>("x", "integer").unwrap_err();
        assert_eq!((e.state().0, e.to_string().as_str()), ("22P02", "invalid input syntax for type integer: \"x\""));
        let e = parse_int::<i32>("99999999999", "integer").unwrap_err();
        assert_eq!(e.to_string(), "value \"99999999999\" is out of range for type integer");
        assert_eq!(parse_oid("-1", "oid").unwrap(), u32::MAX);
    }

    #[test]
    fn booleans_read_prefixes() {
        for (s, v) in [("t", true), ("TRUE", true), ("yes", true), ("on", true), ("1", true), ("of", false), ("n", false)] {
            assert_eq!(parse_bool(s).unwrap(), v);
        }
        assert!(parse_bool("o").is_err() && parse_bool("").is_err() && parse_bool("truex").is_err());
    }

    #[test]
    fn strings_fit_their_length() {
        assert_eq!(&*fit_varchar("ab  ".into(), 6, false).unwrap(), "ab");
        assert!(fit_varchar("abc".into(), 6, false).is_err());
        assert_eq!(&*fit_bpchar("é".into(), 7, false).unwrap(), "é  ");
    }

    #[test]
    fn uuid_and_lsn_round_trip() {
        let u = parse_uuid("{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}").unwrap();
        let mut out = Vec::new();
        write_uuid(&u, &mut out);
        assert_eq!(out, b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
        assert_eq!(parse_lsn("16/B374D848").unwrap(), 0x16_B374_D848);
        assert!(parse_lsn("16").is_err() && parse_lsn("123456789/0").is_err());
    }
}
