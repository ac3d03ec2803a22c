//! String and `bytea` functions.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};

use super::call::{Call, MAX_VALUE_BYTES, ScalarFn, enlarged};
use super::integer::wide;
use crate::sql::types::names::{quote_ident, split_on};
use crate::sql::types::scalar::{parse_hex, write_hex};
use crate::sql::types::{ArrayValue, Datum, Oid, Text, io, oids};
use crate::sqlstate::{SqlError, SqlState};

type Out = Result<Datum, SqlError>;

fn length(s: &str) -> i32 {
    let n = if s.is_ascii() { s.len() } else { s.chars().count() };
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// Characters `from..to` (1-based, `to` exclusive) of a string, clipped to it.
fn chars(s: &str, from: i64, to: i64) -> &str {
    let from = usize::try_from(from - 1).unwrap_or(0);
    let to = usize::try_from(to - 1).unwrap_or(0);
    if to <= from {
        return "";
    }
    if s.is_ascii() {
        return &s[from.min(s.len())..to.min(s.len())];
    }
    let at = |n: usize| s.char_indices().nth(n).map_or(s.len(), |(i, _)| i);
    let start = at(from);
    let end = at(to);
    &s[start..end]
}

fn negative_length() -> SqlError {
    SqlError::new(SqlState::SUBSTRING_ERROR, "negative substring length not allowed")
}

/// Bounds of `substring(... from start for len)`.
fn bounds(a: &[Datum]) -> Result<(i64, i64), SqlError> {
    let start = i64::from(a[1].as_i32()?);
    let end = match a.get(2) {
        None => i64::from(i32::MAX) + 1,
        Some(len) => {
            let len = i64::from(len.as_i32()?);
            if len < 0 {
                return Err(negative_length());
            }
            start + len
        }
    };
    Ok((start.max(1), end))
}

fn substring(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (from, to) = bounds(a)?;
    Ok(Datum::text(chars(a[0].as_str()?, from, to)))
}

fn bytea_substring(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (from, to) = bounds(a)?;
    let b = a[0].as_bytes()?;
    let clip = |n: i64| usize::try_from(n - 1).unwrap_or(0).min(b.len());
    let (from, to) = (clip(from), clip(to));
    Ok(Datum::bytea(b.get(from..to.max(from)).unwrap_or(&[])))
}

fn overlay(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (s, new, start) = (a[0].as_str()?, a[1].as_str()?, i64::from(a[2].as_i32()?));
    let len = a.get(3).map_or(Ok(length(new)), Datum::as_i32)?;
    if start <= 0 {
        return Err(negative_length());
    }
    let tail = start + i64::from(len);
    if i32::try_from(tail).is_err() {
        return Err(super::integer::out_of_range("integer"));
    }
    Ok(Datum::from([chars(s, 1, start), new, chars(s, tail.max(1), i64::MAX)].concat()))
}

fn bytea_overlay(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (s, new, start) = (a[0].as_bytes()?, a[1].as_bytes()?, i64::from(a[2].as_i32()?));
    let len = match a.get(3) {
        Some(n) => i64::from(n.as_i32()?),
        None => i64::try_from(new.len()).unwrap_or(i64::MAX),
    };
    if start <= 0 {
        return Err(negative_length());
    }
    if i32::try_from(start + len).is_err() {
        return Err(super::integer::out_of_range("integer"));
    }
    let at = |n: i64| usize::try_from(n).unwrap_or(0).min(s.len());
    Ok(Datum::bytea([&s[..at(start - 1)], new, &s[at(start - 1 + len)..]].concat()))
}

/// 1-based position of `needle`, 0 when absent.
fn position(s: &str, needle: &str) -> i32 {
    s.find(needle).map_or(0, |i| length(&s[..i]) + 1)
}

fn too_long() -> SqlError {
    SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "requested length too large")
}

fn pad(a: &[Datum], left: bool) -> Out {
    let (s, len) = (a[0].as_str()?, a[1].as_i32()?.max(0));
    let fill = a.get(2).map_or(Ok(" "), Datum::as_str)?;
    // PostgreSQL reckons with four bytes a character.
    if len > 268_435_454 {
        return Err(too_long());
    }
    let have = length(s);
    if have >= len || fill.is_empty() {
        return Ok(Datum::text(chars(s, 1, i64::from(len) + 1)));
    }
    let wanted = usize::try_from(len - have).unwrap_or(0);
    let padding: String = fill.chars().cycle().take(wanted).collect();
    Ok(Datum::from(if left { padding + s } else { s.to_owned() + &padding }))
}

fn trim(a: &[Datum], left: bool, right: bool) -> Out {
    let s = a[0].as_str()?;
    let set = a.get(1).map_or(Ok(" "), Datum::as_str)?;
    let mut out = s;
    if left {
        out = out.trim_start_matches(|c| set.contains(c));
    }
    if right {
        out = out.trim_end_matches(|c| set.contains(c));
    }
    Ok(Datum::text(out))
}

fn trim_bytes(a: &[Datum], left: bool, right: bool) -> Out {
    let (mut b, set) = (a[0].as_bytes()?, a[1].as_bytes()?);
    while let [first, rest @ ..] = b
        && left
        && set.contains(first)
    {
        b = rest;
    }
    while let [rest @ .., last] = b
        && right
        && set.contains(last)
    {
        b = rest;
    }
    Ok(Datum::bytea(b))
}

fn repeat(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (s, n) = (a[0].as_str()?, usize::try_from(a[1].as_i32()?).unwrap_or(0));
    if s.len().checked_mul(n).is_none_or(|l| l > MAX_VALUE_BYTES) {
        return Err(too_long());
    }
    Ok(Datum::from(s.repeat(n)))
}

fn replace(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (s, from, to) = (a[0].as_str()?, a[1].as_str()?, a[2].as_str()?);
    if from.is_empty() || !s.contains(from) {
        return Ok(a[0].clone());
    }
    let mut out = String::with_capacity(s.len());
    let mut rest = s;
    while let Some((before, after)) = rest.split_once(from) {
        enlarged(out.len(), before.len() + to.len())?;
        out.push_str(before);
        out.push_str(to);
        rest = after;
    }
    enlarged(out.len(), rest.len())?;
    out.push_str(rest);
    Ok(Datum::from(out))
}

fn translate(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (s, from, to) = (a[0].as_str()?, a[1].as_str()?, a[2].as_str()?);
    let to: Vec<char> = to.chars().collect();
    let from: Vec<char> = from.chars().collect();
    Ok(Datum::from(
        s.chars()
            .filter_map(|c| match from.iter().position(|f| *f == c) {
                None => Some(c),
                Some(i) => to.get(i).copied(),
            })
            .collect::<String>(),
    ))
}

fn initcap(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut inside = false;
    for c in s.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphanumeric();
    }
    out
}

/// Left part of `n` characters; negative counts from the end.
fn left(s: &str, n: i32) -> &str {
    let n = if n < 0 { length(s).saturating_add(n).max(0) } else { n };
    chars(s, 1, i64::from(n) + 1)
}

fn right(s: &str, n: i32) -> &str {
    let len = length(s);
    let skip = if n < 0 { -i64::from(n) } else { i64::from(len) - i64::from(n) };
    chars(s, skip.max(0) + 1, i64::MAX)
}

fn split_part(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (s, by, n) = (a[0].as_str()?, a[1].as_str()?, a[2].as_i32()?);
    if n == 0 {
        return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "field position must not be zero"));
    }
    if s.is_empty() {
        return Ok(Datum::text(""));
    }
    if by.is_empty() {
        return Ok(Datum::text(if n == 1 || n == -1 { s } else { "" }));
    }
    let at = usize::try_from(n.unsigned_abs() - 1).unwrap_or(usize::MAX);
    let part = if n > 0 { s.split(by).nth(at) } else { s.rsplit(by).nth(at) };
    Ok(Datum::text(part.unwrap_or("")))
}

fn chr(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let n = a[0].as_i32()?;
    let fail = |m: String| Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, m));
    if n == 0 {
        return fail("null character not permitted".to_owned());
    }
    match u32::try_from(n).ok() {
        None => Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "character number must be positive")),
        Some(v) if v > 0x10_FFFF => fail(format!("requested character too large for encoding: {n}")),
        Some(v) => match char::from_u32(v) {
            Some(c) => Ok(Datum::from(c.to_string())),
            None => fail(format!("requested character not valid for encoding: {n}")),
        },
    }
}

fn hex_of(bytes: &[u8]) -> Datum {
    let mut out = Vec::new();
    write_hex(bytes, &mut out);
    Datum::from(String::from_utf8_lossy(&out).into_owned())
}

/// Lower-case hexadecimal MD5 of some bytes.
pub(super) fn md5_hex(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    write_hex(&<Md5 as md5::Digest>::digest(bytes), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn encode(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let b = a[0].as_bytes()?;
    let format = a[1].as_str()?;
    Ok(match format.to_ascii_lowercase().as_str() {
        "hex" => hex_of(b),
        "base64" => {
            let flat = STANDARD.encode(b);
            // Lines of 76, as MIME has them.
            let mut out = String::with_capacity(flat.len() + flat.len() / 76);
            for (i, line) in flat.as_bytes().chunks(76).enumerate() {
                if i > 0 {
                    out.push('\n');
                }
                out.push_str(&String::from_utf8_lossy(line));
            }
            Datum::from(out)
        }
        "escape" => {
            let mut out = String::new();
            for &c in b {
                match c {
                    b'\\' => out.push_str("\\\\"),
                    0 | 0x80.. => out.push_str(&format!("\\{c:03o}")),
                    c => out.push(char::from(c)),
                }
            }
            Datum::from(out)
        }
        _ => return Err(unknown_encoding(format)),
    })
}

fn unknown_encoding(format: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("unrecognized encoding: \"{format}\""))
}

fn decode(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let s = a[0].as_str()?;
    let format = a[1].as_str()?;
    Ok(Datum::Bytea(match format.to_ascii_lowercase().as_str() {
        "hex" => parse_hex(s)?.into(),
        "base64" => {
            let flat: String = s.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            STANDARD
                .decode(&flat)
                .map_err(|_| {
                    let bad = flat.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=')));
                    match bad {
                        Some(c) => SqlError::new(
                            SqlState::INVALID_PARAMETER_VALUE,
                            format!("invalid symbol \"{c}\" found while decoding base64 sequence"),
                        ),
                        None => SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "invalid base64 end sequence")
                            .hint("Input data is missing padding, is truncated, or is otherwise corrupted."),
                    }
                })?
                .into()
        }
        "escape" => crate::sql::types::scalar::parse_bytea(s)?.into(),
        _ => return Err(unknown_encoding(format)),
    }))
}

fn quote_literal(s: &str) -> String {
    let body = s.replace('\'', "''");
    if s.contains('\\') { format!("E'{}'", body.replace('\\', "\\\\")) } else { format!("'{body}'") }
}

/// The arguments of a variadic `"any"` function from `skip` on.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn rest<'a>(c: &Call<'_>, a: &'a [Datum], skip: usize) -> Result<Vec<(std::borrow::Cow<'a, Datum>, Oid)>, SqlError> {
    use std::borrow::Cow;
    if c.types.variadic_array
        && let Some(last) = a.get(skip)
        && a.len() == skip + 1
    {
        return match last {
            Datum::Null => Ok(Vec::new()),
            Datum::Array(array) => Ok(array.values.iter().map(|v| (Cow::Borrowed(v), array.elem)).collect()),
            _ => Err(SqlError::new(SqlState::DATATYPE_MISMATCH, "VARIADIC argument must be an array")),
        };
    }
    Ok(a.iter().enumerate().skip(skip).map(|(i, v)| (Cow::Borrowed(v), c.arg_type(i))).collect())
}

fn concat(c: &mut Call<'_>, a: &[Datum]) -> Out {
    if c.types.variadic_array && a.first().is_some_and(Datum::is_null) {
        return Ok(Datum::Null);
    }
    let mut out = Vec::new();
    for (v, t) in rest(c, a, 0)? {
        if !v.is_null() {
            let have = out.len();
            io::text_out(&v, t, &mut out, c.io())?;
            enlarged(have, out.len() - have)?;
        }
    }
    Ok(Datum::from(String::from_utf8_lossy(&out).into_owned()))
}

fn concat_ws(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let Datum::Text(separator) = &a[0] else { return Ok(Datum::Null) };
    if c.types.variadic_array && a.get(1).is_some_and(Datum::is_null) {
        return Ok(Datum::Null);
    }
    let mut out = Vec::new();
    let mut first = true;
    for (v, t) in rest(c, a, 1)? {
        if v.is_null() {
            continue;
        }
        if !first {
            out.extend_from_slice(separator.as_bytes());
        }
        first = false;
        let have = out.len();
        io::text_out(&v, t, &mut out, c.io())?;
        enlarged(have, out.len() - have)?;
    }
    Ok(Datum::from(String::from_utf8_lossy(&out).into_owned()))
}

fn text_concat_any(c: &mut Call<'_>, a: &[Datum], any_first: bool) -> Out {
    let i = usize::from(!any_first);
    let other = io::text_string(&a[i], c.arg_type(i), c.io())?;
    let text = a[1 - i].as_str()?;
    Ok(Datum::from(if any_first { other + text } else { [text, &other].concat() }))
}

/// `format(text, ...)`.
fn format_text(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let Datum::Text(template) = &a[0] else { return Ok(Datum::Null) };
    let args = rest(c, a, 1)?;
    let fail = |m: &str| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, m.to_owned());
    let unterminated = || fail("unterminated format() type specifier").hint("For a single \"%\" use \"%%\".");
    let mut out = String::new();
    let mut next = 0usize;
    let mut chars = template.chars().peekable();
    while let Some(ch) = chars.next() {
        if ch != '%' {
            out.push(ch);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let digits = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| -> Result<Option<i32>, SqlError> {
            let mut text = String::new();
            while let Some(d) = chars.next_if(char::is_ascii_digit) {
                text.push(d);
            }
            if text.is_empty() {
                return Ok(None);
            }
            text.parse().map(Some).map_err(|_| SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "number is out of range"))
        };
        // [n$][-][width]type; a leading number is a position if `$` follows.
        let mut position = None;
        let mut width = None;
        let leading = digits(&mut chars)?;
        if let Some(n) = leading {
            if chars.next_if_eq(&'$').is_some() {
                if n == 0 {
                    return Err(fail("format specifies argument 0, but arguments are numbered from 1"));
                }
                position = usize::try_from(n).ok();
            } else {
                width = Some(n);
            }
        }
        let mut left_justify = false;
        let mut width_from: Option<Option<usize>> = None;
        if width.is_none() {
            while chars.next_if_eq(&'-').is_some() {
                left_justify = true;
            }
            if chars.next_if_eq(&'*').is_some() {
                let n = digits(&mut chars)?;
                if let Some(n) = n {
                    if chars.next_if_eq(&'$').is_none() {
                        return Err(fail("width argument position must be ended by \"$\""));
                    }
                    if n == 0 {
                        return Err(fail("format specifies argument 0, but arguments are numbered from 1"));
                    }
                    width_from = Some(usize::try_from(n).ok());
                } else {
                    width_from = Some(None);
                }
            } else {
                width = digits(&mut chars)?;
            }
        }
        let Some(kind) = chars.next() else { return Err(unterminated()) };
        if !matches!(kind, 's' | 'I' | 'L') {
            return Err(fail(&format!("unrecognized format() type specifier \"{kind}\"")).hint("For a single \"%\" use \"%%\"."));
        }
        let mut take = |explicit: Option<usize>| {
            let at = explicit.unwrap_or(next + 1);
            next = at;
            args.get(at - 1).ok_or_else(|| fail("too few arguments for format()"))
        };
        if let Some(explicit) = width_from {
            let (v, _) = take(explicit)?;
            let w = if v.is_null() { 0 } else { wide(v)? };
            width = i32::try_from(w).ok();
        }
        let (v, t) = take(position)?;
        let text = match (kind, v.is_null()) {
            ('I', true) => {
                return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "null values cannot be formatted as an SQL identifier"));
            }
            ('L', true) => "NULL".to_owned(),
            (_, true) => String::new(),
            ('I', false) => quote_ident(&io::text_string(v, *t, c.io())?).into_owned(),
            ('L', false) => quote_literal(&io::text_string(v, *t, c.io())?),
            (_, false) => io::text_string(v, *t, c.io())?,
        };
        let mut width = width.unwrap_or(0);
        if width < 0 {
            left_justify = true;
            width = width.saturating_neg();
        }
        let padding = usize::try_from(width - length(&text)).unwrap_or(0);
        enlarged(out.len(), text.len().saturating_add(padding))?;
        if left_justify {
            out.push_str(&text);
            out.extend(std::iter::repeat_n(' ', padding));
        } else {
            out.extend(std::iter::repeat_n(' ', padding));
            out.push_str(&text);
        }
    }
    Ok(Datum::from(out))
}

fn only_utf8(name: &str, what: &str) -> Result<(), SqlError> {
    match name.to_ascii_lowercase().replace(['-', '_'], "").as_str() {
        "utf8" | "unicode" | "sqlascii" => Ok(()),
        "latin1" | "iso88591" => Ok(()),
        _ => Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid {what} encoding name \"{name}\""))),
    }
}

fn is_latin1(name: &str) -> bool {
    matches!(name.to_ascii_lowercase().replace(['-', '_'], "").as_str(), "latin1" | "iso88591")
}

fn convert_from(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (b, name) = (a[0].as_bytes()?, a[1].as_str()?);
    only_utf8(name, "source")?;
    if is_latin1(name) {
        return Ok(Datum::from(b.iter().map(|&c| char::from(c)).collect::<String>()));
    }
    io::check_text(b).map(Datum::text)
}

fn convert_to(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (s, name) = (a[0].as_str()?, a[1].as_str()?);
    only_utf8(name, "destination")?;
    if is_latin1(name) {
        let bytes: Result<Vec<u8>, SqlError> = s
            .chars()
            .map(|c| {
                u8::try_from(u32::from(c)).map_err(|_| {
                    let shown: Vec<String> = c.to_string().bytes().map(|b| format!("0x{b:02x}")).collect();
                    SqlError::new(
                        SqlState::UNTRANSLATABLE_CHARACTER,
                        format!(
                            "character with byte sequence {} in encoding \"UTF8\" has no equivalent in encoding \"LATIN1\"",
                            shown.join(" ")
                        ),
                    )
                })
            })
            .collect();
        return bytes.map(Datum::bytea);
    }
    Ok(Datum::bytea(s.as_bytes()))
}

fn byte_index(b: &[u8], n: i64, per_byte: i64) -> Result<usize, SqlError> {
    let most = i64::try_from(b.len()).unwrap_or(i64::MAX) * per_byte;
    if n < 0 || n >= most {
        return Err(SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, format!("index {n} out of valid range, 0..{}", most - 1)));
    }
    usize::try_from(n / per_byte).map_err(|_| SqlError::internal("byte index"))
}

fn parse_ident(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let s = a[0].as_str()?;
    let strict = a.get(1).is_none_or(Datum::is_true);
    let fail = || SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("string is not a valid identifier: \"{s}\""));
    // What does not belong to an identifier ends the list; strictly, it may not be there.
    let mut end = s.len();
    let mut quoted = false;
    let mut start_of_part = true;
    for (i, c) in s.char_indices() {
        let part = c.is_alphabetic() || c == '_' || !c.is_ascii() || (!start_of_part && (c.is_ascii_digit() || c == '$'));
        if c == '"' {
            quoted = !quoted;
        }
        if quoted || part || c == '"' {
            start_of_part = false;
        } else if c == '.' {
            start_of_part = true;
        } else if crate::sql::types::scalar::is_space(c) {
            let rest = s[i..].trim_start();
            if !start_of_part && !rest.is_empty() && !rest.starts_with('.') {
                end = i;
                break;
            }
        } else {
            end = i;
            break;
        }
    }
    if strict && end < s.len() {
        return Err(fail());
    }
    let parts = split_on(&s[..end], '.').ok_or_else(fail)?;
    Ok(Datum::array(ArrayValue::one_dim(oids::TEXT, parts.into_iter().map(Datum::from).collect())))
}

fn unistr(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let s = a[0].as_str()?;
    let fail = || {
        SqlError::new(SqlState::SYNTAX_ERROR, "invalid Unicode escape")
            .hint("Unicode escapes must be \\XXXX, \\+XXXXXX, \\uXXXX, or \\UXXXXXXXX.")
    };
    let mut out = String::new();
    let mut rest = s;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let body = &rest[at + 1..];
        if let Some(tail) = body.strip_prefix('\\') {
            out.push('\\');
            rest = tail;
            continue;
        }
        let (skip, digits) = match body.as_bytes().first() {
            Some(b'+') => (1, 6),
            Some(b'u') => (1, 4),
            Some(b'U') => (1, 8),
            _ => (0, 4),
        };
        let hex = body.get(skip..skip + digits).ok_or_else(fail)?;
        let code = u32::from_str_radix(hex, 16).map_err(|_| fail())?;
        rest = &body[skip + digits..];
        let code = if (0xD800..0xDC00).contains(&code) {
            let low = rest.strip_prefix('\\').ok_or_else(fail)?;
            let low = low.strip_prefix('u').unwrap_or(low);
            let value = low.get(..4).and_then(|h| u32::from_str_radix(h, 16).ok()).ok_or_else(fail)?;
            if !(0xDC00..0xE000).contains(&value) {
                return Err(SqlError::new(SqlState::SYNTAX_ERROR, "invalid Unicode surrogate pair"));
            }
            rest = &low[4..];
            0x10000 + ((code - 0xD800) << 10) + (value - 0xDC00)
        } else {
            code
        };
        out.push(
            char::from_u32(code)
                .filter(|c| *c != '\0')
                .ok_or_else(|| SqlError::new(SqlState::SYNTAX_ERROR, "invalid Unicode escape value"))?,
        );
    }
    out.push_str(rest);
    Ok(Datum::from(out))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn bits(d: &Datum) -> Result<&std::sync::Arc<crate::sql::types::bits::BitString>, SqlError> {
    match d {
        Datum::Bits(b) => Ok(b),
        other => Err(other.mismatch("Bits")),
    }
}

fn bit_op(a: &[Datum], name: &str, op: fn(bool, bool) -> bool) -> Out {
    let (x, y) = (bits(&a[0])?, bits(&a[1])?);
    if x.len != y.len {
        return Err(SqlError::new(SqlState("22026"), format!("cannot {name} bit strings of different sizes")));
    }
    let out: Vec<bool> = x.bits().zip(y.bits()).map(|(a, b)| op(a, b)).collect();
    Ok(bit_datum(out))
}

fn bit_datum(b: Vec<bool>) -> Datum {
    Datum::Bits(std::sync::Arc::new(crate::sql::types::bits::BitString::from_bits(b.into_iter())))
}

fn bit_shift(a: &[Datum], left: bool) -> Out {
    let (b, n) = (bits(&a[0])?, i64::from(a[1].as_i32()?));
    let n = if left { n } else { -n };
    let old: Vec<bool> = b.bits().collect();
    let len = i64::try_from(old.len()).unwrap_or(0);
    let out = (0..len).map(|i| usize::try_from(i + n).ok().and_then(|j| old.get(j).copied()).unwrap_or(false)).collect();
    Ok(bit_datum(out))
}

fn bit_substring(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (from, to) = bounds(a)?;
    let b = bits(&a[0])?;
    let skip = usize::try_from(from - 1).unwrap_or(0);
    let count = usize::try_from(to - from).unwrap_or(0);
    Ok(bit_datum(b.bits().skip(skip).take(count).collect()))
}

fn bit_overlay(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (s, new, start) = (bits(&a[0])?, bits(&a[1])?, i64::from(a[2].as_i32()?));
    let len = a.get(3).map_or(Ok(i64::from(new.len)), |n| n.as_i32().map(i64::from))?;
    if start <= 0 {
        return Err(negative_length());
    }
    if i32::try_from(start + len).is_err() {
        return Err(super::integer::out_of_range("integer"));
    }
    let at = |n: i64| usize::try_from(n).unwrap_or(0);
    let old: Vec<bool> = s.bits().collect();
    let head = old.iter().take(at(start - 1)).copied();
    let tail = old.iter().skip(at(start - 1 + len)).copied();
    Ok(bit_datum(head.chain(new.bits()).chain(tail).collect()))
}

fn bit_position(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (s, needle): (Vec<bool>, Vec<bool>) = (bits(&a[0])?.bits().collect(), bits(&a[1])?.bits().collect());
    if s.is_empty() || needle.len() > s.len() {
        return Ok(Datum::Int4(0));
    }
    if needle.is_empty() {
        return Ok(Datum::Int4(1));
    }
    let at = s.windows(needle.len()).position(|w| w == needle);
    Ok(Datum::Int4(at.map_or(0, |i| i32::try_from(i + 1).unwrap_or(i32::MAX))))
}

fn bit_index(b: &[bool], n: i32) -> Result<usize, SqlError> {
    usize::try_from(n).ok().filter(|&i| i < b.len()).ok_or_else(|| {
        SqlError::new(
            SqlState::ARRAY_SUBSCRIPT_ERROR,
            format!("bit index {n} out of valid range (0..{})", i64::try_from(b.len()).unwrap_or(0) - 1),
        )
    })
}

fn text(s: &str) -> Out {
    Ok(Datum::text(s))
}

/// By `prosrc`.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
pub(super) const SCALARS: &[(&str, ScalarFn)] = &[
    ("textcat", |_, a| Ok(Datum::from([a[0].as_str()?, a[1].as_str()?].concat()))),
    ("byteacat", |_, a| Ok(Datum::bytea([a[0].as_bytes()?, a[1].as_bytes()?].concat()))),
    ("textanycat@25,2776", |c, a| text_concat_any(c, a, false)),
    ("anytextcat@2776,25", |c, a| text_concat_any(c, a, true)),
    ("textlen", |_, a| Ok(Datum::Int4(length(a[0].as_str()?)))),
    ("bpcharlen", |_, a| Ok(Datum::Int4(length(a[0].as_str()?.trim_end_matches(' '))))),
    ("textoctetlen", |_, a| Ok(Datum::Int4(i32::try_from(a[0].as_str()?.len()).unwrap_or(i32::MAX)))),
    ("bpcharoctetlen", |_, a| Ok(Datum::Int4(i32::try_from(a[0].as_str()?.len()).unwrap_or(i32::MAX)))),
    ("byteaoctetlen", |_, a| Ok(Datum::Int4(i32::try_from(a[0].as_bytes()?.len()).unwrap_or(i32::MAX)))),
    ("bit_length@25", |_, a| Ok(Datum::Int4(i32::try_from(a[0].as_str()?.len() * 8).unwrap_or(i32::MAX)))),
    ("bit_length@17", |_, a| Ok(Datum::Int4(i32::try_from(a[0].as_bytes()?.len() * 8).unwrap_or(i32::MAX)))),
    ("length_in_encoding", |_, a| {
        let name = a[1].as_str()?;
        if is_latin1(name) {
            return Ok(Datum::Int4(i32::try_from(a[0].as_bytes()?.len()).unwrap_or(i32::MAX)));
        }
        only_utf8(name, "source")
            .map_err(|_| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid encoding name \"{name}\"")))?;
        io::check_text(a[0].as_bytes()?).map(|s| Datum::Int4(length(s)))
    }),
    ("lower", |_, a| Ok(Datum::from(a[0].as_str()?.to_lowercase()))),
    ("upper", |_, a| Ok(Datum::from(a[0].as_str()?.to_uppercase()))),
    ("initcap", |_, a| Ok(Datum::from(initcap(a[0].as_str()?)))),
    ("text_substr", substring),
    ("text_substr_no_len", substring),
    ("bytea_substr", bytea_substring),
    ("bytea_substr_no_len", bytea_substring),
    ("textoverlay", overlay),
    ("textoverlay_no_len", overlay),
    ("byteaoverlay", bytea_overlay),
    ("byteaoverlay_no_len", bytea_overlay),
    ("textpos", |_, a| Ok(Datum::Int4(position(a[0].as_str()?, a[1].as_str()?)))),
    ("byteapos", |_, a| {
        let (b, needle) = (a[0].as_bytes()?, a[1].as_bytes()?);
        let at = if needle.is_empty() { Some(0) } else { b.windows(needle.len()).position(|w| w == needle) };
        Ok(Datum::Int4(at.map_or(0, |i| i32::try_from(i + 1).unwrap_or(i32::MAX))))
    }),
    ("lpad", |_, a| pad(a, true)),
    ("rpad", |_, a| pad(a, false)),
    ("lpad@25,23", |_, a| pad(a, true)),
    ("rpad@25,23", |_, a| pad(a, false)),
    ("btrim", |_, a| trim(a, true, true)),
    ("btrim1", |_, a| trim(a, true, true)),
    ("ltrim", |_, a| trim(a, true, false)),
    ("ltrim1", |_, a| trim(a, true, false)),
    ("rtrim", |_, a| trim(a, false, true)),
    ("byteatrim", |_, a| trim_bytes(a, true, true)),
    ("bytealtrim", |_, a| trim_bytes(a, true, false)),
    ("byteartrim", |_, a| trim_bytes(a, false, true)),
    ("repeat", repeat),
    ("replace_text", replace),
    ("translate", translate),
    ("text_left", |_, a| text(left(a[0].as_str()?, a[1].as_i32()?))),
    ("text_right", |_, a| text(right(a[0].as_str()?, a[1].as_i32()?))),
    ("text_reverse", |_, a| Ok(Datum::from(a[0].as_str()?.chars().rev().collect::<String>()))),
    ("split_part", split_part),
    ("text_starts_with", |_, a| Ok(Datum::Bool(a[0].as_str()?.starts_with(a[1].as_str()?)))),
    ("ascii", |_, a| Ok(Datum::Int4(a[0].as_str()?.chars().next().map_or(0, |c| u32::from(c).cast_signed())))),
    ("chr", chr),
    ("to_hex32", |_, a| Ok(Datum::from(format!("{:x}", a[0].as_i32()?)))),
    ("to_hex64", |_, a| Ok(Datum::from(format!("{:x}", a[0].as_i64()?)))),
    ("md5_text", |_, a| Ok(Datum::from(md5_hex(a[0].as_str()?.as_bytes())))),
    ("md5_bytea", |_, a| Ok(Datum::from(md5_hex(a[0].as_bytes()?)))),
    ("sha224_bytea", |_, a| Ok(Datum::bytea(Sha224::digest(a[0].as_bytes()?)))),
    ("sha256_bytea", |_, a| Ok(Datum::bytea(Sha256::digest(a[0].as_bytes()?)))),
    ("sha384_bytea", |_, a| Ok(Datum::bytea(Sha384::digest(a[0].as_bytes()?)))),
    ("sha512_bytea", |_, a| Ok(Datum::bytea(Sha512::digest(a[0].as_bytes()?)))),
    ("binary_encode", encode),
    ("binary_decode", decode),
    ("pg_convert_from", convert_from),
    ("pg_convert_to", convert_to),
    ("quote_ident", |_, a| Ok(Datum::text(quote_ident(a[0].as_str()?)))),
    ("quote_literal", |_, a| Ok(Datum::from(quote_literal(a[0].as_str()?)))),
    ("quote_nullable", |_, a| match &a[0] {
        Datum::Null => text("NULL"),
        v => Ok(Datum::from(quote_literal(v.as_str()?))),
    }),
    // SQL-language overloads that take any element go through the text form.
    ("quote_literal@2283", |c, a| Ok(Datum::from(quote_literal(&io::text_string(&a[0], c.arg_type(0), c.io())?)))),
    ("quote_nullable@2283", |c, a| match &a[0] {
        Datum::Null => text("NULL"),
        v => Ok(Datum::from(quote_literal(&io::text_string(v, c.arg_type(0), c.io())?))),
    }),
    ("text_concat", concat),
    ("text_concat_ws", concat_ws),
    ("text_format", format_text),
    ("text_format_nv", format_text),
    ("parse_ident", parse_ident),
    ("unistr", unistr),
    ("nameconcatoid", |_, a| {
        let suffix = format!("_{}", a[1].as_oid()?);
        let name = a[0].as_str()?;
        let room = crate::sql::types::scalar::NAME_BYTES - suffix.len();
        let head = &name[..name.floor_char_boundary(room.min(name.len()))];
        Ok(Datum::from([head, &suffix].concat()))
    }),
    ("text_larger", |_, a| Ok(if a[0].as_str()? > a[1].as_str()? { a[0].clone() } else { a[1].clone() })),
    ("text_smaller", |_, a| Ok(if a[0].as_str()? < a[1].as_str()? { a[0].clone() } else { a[1].clone() })),
    ("byteaGetByte", |_, a| {
        let b = a[0].as_bytes()?;
        let at = byte_index(b, wide(&a[1])?, 1)?;
        Ok(Datum::Int4(i32::from(b[at])))
    }),
    ("byteaSetByte", |_, a| {
        let mut b = a[0].as_bytes()?.to_vec();
        let at = byte_index(&b, wide(&a[1])?, 1)?;
        #[expect(clippy::cast_possible_truncation, reason = "the low byte is what is stored")]
        let v = wide(&a[2])? as u8;
        b[at] = v;
        Ok(Datum::bytea(b))
    }),
    ("byteaGetBit", |_, a| {
        let (b, n) = (a[0].as_bytes()?, wide(&a[1])?);
        let at = byte_index(b, n, 8)?;
        Ok(Datum::Int4(i32::from(b[at] >> (n % 8) & 1)))
    }),
    ("byteaSetBit", |_, a| {
        let mut b = a[0].as_bytes()?.to_vec();
        let n = wide(&a[1])?;
        let at = byte_index(&b, n, 8)?;
        match wide(&a[2])? {
            0 => b[at] &= !(1 << (n % 8)),
            1 => b[at] |= 1 << (n % 8),
            _ => return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "new bit must be 0 or 1")),
        }
        Ok(Datum::bytea(b))
    }),
    ("bytea_bit_count", |_, a| Ok(Datum::Int8(a[0].as_bytes()?.iter().map(|b| i64::from(b.count_ones())).sum()))),
    ("bit_and", |_, a| bit_op(a, "AND", |x, y| x && y)),
    ("bit_or", |_, a| bit_op(a, "OR", |x, y| x || y)),
    ("bitxor", |_, a| bit_op(a, "XOR", |x, y| x != y)),
    ("bitnot", |_, a| Ok(bit_datum(bits(&a[0])?.bits().map(|b| !b).collect()))),
    ("bitcat", |_, a| Ok(bit_datum(bits(&a[0])?.bits().chain(bits(&a[1])?.bits()).collect()))),
    ("bitshiftleft", |_, a| bit_shift(a, true)),
    ("bitshiftright", |_, a| bit_shift(a, false)),
    ("bitsubstr", bit_substring),
    ("bitsubstr_no_len", bit_substring),
    ("bitoverlay", bit_overlay),
    ("bitoverlay_no_len", bit_overlay),
    ("bitposition", bit_position),
    ("bitgetbit", |_, a| {
        let b: Vec<bool> = bits(&a[0])?.bits().collect();
        let at = bit_index(&b, a[1].as_i32()?)?;
        Ok(Datum::Int4(i32::from(b[at])))
    }),
    ("bitsetbit", |_, a| {
        let mut b: Vec<bool> = bits(&a[0])?.bits().collect();
        let at = bit_index(&b, a[1].as_i32()?)?;
        b[at] = match a[2].as_i32()? {
            0 => false,
            1 => true,
            _ => return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "new bit must be 0 or 1")),
        };
        Ok(bit_datum(b))
    }),
    ("bit_length@1560", |_, a| Ok(Datum::Int4(i32::try_from(bits(&a[0])?.len).unwrap_or(i32::MAX)))),
    ("bitlength", |_, a| Ok(Datum::Int4(i32::try_from(bits(&a[0])?.len).unwrap_or(i32::MAX)))),
    ("bitoctetlength", |_, a| Ok(Datum::Int4(i32::try_from(bits(&a[0])?.bytes.len()).unwrap_or(i32::MAX)))),
    ("bit_bit_count", |_, a| Ok(Datum::Int8(bits(&a[0])?.bytes.iter().map(|b| i64::from(b.count_ones())).sum()))),
];

/// Splits for `string_to_array` and `string_to_table`: by a delimiter, or into characters when it is NULL.
pub(super) fn split<'a>(s: &'a str, by: Option<&str>) -> Vec<&'a str> {
    match by {
        _ if s.is_empty() => Vec::new(),
        None => s.char_indices().map(|(i, c)| &s[i..i + c.len_utf8()]).collect(),
        Some("") => vec![s],
        Some(by) => s.split(by).collect(),
    }
}

/// A text value, for modules that make them.
pub(super) fn datum(s: &str) -> Datum {
    Datum::Text(Text::from(s))
}
