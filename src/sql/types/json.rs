//! `json` and `jsonb`: reading, writing.

use std::fmt::Write as _;

use super::{Numeric, Text};
use crate::sqlstate::{SqlError, SqlState};

/// Deepest nesting that is read.
pub const MAX_DEPTH: u32 = 3000;

/// A parsed JSON value, as `jsonb` keeps it: object keys unique and sorted by length, then bytes.
#[derive(Clone, Debug)]
pub enum Json {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A number, exact.
    Number(Numeric),
    /// A string.
    String(Text),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Vec<(Text, Json)>),
}

impl Json {
    /// Reads `jsonb`: object keys are sorted and the last of equal ones wins.
    ///
    /// # Errors
    /// `22P02`.
    pub fn parse(text: &str) -> Result<Self, SqlError> {
        Parser { text, at: 0, keep_order: false }.document()
    }

    /// Reads `json`, keeping the order of keys and duplicates: for `json` functions.
    ///
    /// # Errors
    /// `22P02`.
    pub fn parse_ordered(text: &str) -> Result<Self, SqlError> {
        Parser { text, at: 0, keep_order: true }.document()
    }

    /// An object from its members, sorted and made unique.
    pub fn object(mut members: Vec<(Text, Json)>) -> Self {
        members.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.as_bytes().cmp(b.as_bytes())));
        // The last of equal keys wins: the sort is stable, so drop the earlier ones.
        let mut unique: Vec<(Text, Json)> = Vec::with_capacity(members.len());
        for m in members {
            match unique.last_mut() {
                Some(last) if last.0 == m.0 => *last = m,
                _ => unique.push(m),
            }
        }
        Self::Object(unique)
    }

    /// The member of an object.
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Self::Object(o) => o.iter().rev().find(|(k, _)| &**k == key).map(|(_, v)| v),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) | Self::Array(_) => None,
        }
    }

    /// The element of an array; negative counts from the end.
    pub fn at(&self, index: i64) -> Option<&Json> {
        match self {
            Self::Array(a) => {
                let i = if index < 0 { i64::try_from(a.len()).ok()? + index } else { index };
                usize::try_from(i).ok().and_then(|i| a.get(i))
            }
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) | Self::Object(_) => None,
        }
    }

    /// What `jsonb_typeof` calls it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// Appends `jsonb`'s text form: `{"a": 1, "b": [2, 3]}`.
    pub fn write(&self, out: &mut String) {
        self.write_with(", ", ": ", out);
    }

    /// Appends the compact form of `json` functions: `{"a":1}`.
    pub fn write_compact(&self, out: &mut String) {
        self.write_with(",", ":", out);
    }

    fn write_with(&self, comma: &str, colon: &str, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Self::Number(n) => {
                let _infallible = write!(out, "{n}");
            }
            Self::String(s) => write_string(s, out),
            Self::Array(a) => {
                out.push('[');
                for (i, v) in a.iter().enumerate() {
                    if i > 0 {
                        out.push_str(comma);
                    }
                    v.write_with(comma, colon, out);
                }
                out.push(']');
            }
            Self::Object(o) => {
                out.push('{');
                for (i, (k, v)) in o.iter().enumerate() {
                    if i > 0 {
                        out.push_str(comma);
                    }
                    write_string(k, out);
                    out.push_str(colon);
                    v.write_with(comma, colon, out);
                }
                out.push('}');
            }
        }
    }

    /// `jsonb_pretty`.
    pub fn write_pretty(&self, indent: usize, out: &mut String) {
        let pad = |n: usize, out: &mut String| {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', n * 4));
        };
        match self {
            Self::Array(a) if !a.is_empty() => {
                out.push('[');
                for (i, v) in a.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    pad(indent + 1, out);
                    v.write_pretty(indent + 1, out);
                }
                pad(indent, out);
                out.push(']');
            }
            Self::Object(o) if !o.is_empty() => {
                out.push('{');
                for (i, (k, v)) in o.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    pad(indent + 1, out);
                    write_string(k, out);
                    out.push_str(": ");
                    v.write_pretty(indent + 1, out);
                }
                pad(indent, out);
                out.push('}');
            }
            Self::Array(_) => {
                out.push('[');
                pad(indent, out);
                out.push(']');
            }
            Self::Object(_) => {
                out.push('{');
                pad(indent, out);
                out.push('}');
            }
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => self.write(out),
        }
    }
}

/// Appends a JSON string with its quotes.
pub fn write_string(s: &str, out: &mut String) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 => {
                let _infallible = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    keep_order: bool,
}

impl Parser<'_> {
    fn document(&mut self) -> Result<Json, SqlError> {
        let v = self.value(0)?;
        self.blanks();
        if self.at < self.text.len() {
            return Err(self.unexpected("Expected end of input, but found"));
        }
        Ok(v)
    }

    fn error(&self, detail: String) -> SqlError {
        let line = self.text[..self.at.min(self.text.len())].matches('\n').count() + 1;
        let end = self.token_end();
        let line_start = self.text[..self.at.min(self.text.len())].rfind('\n').map_or(0, |i| i + 1);
        let shown = &self.text[line_start..end];
        let more = if end < self.text.len() { "..." } else { "" };
        SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type json")
            .detail(detail)
            .context(format!("JSON data, line {line}: {shown}{more}"))
    }

    /// End of the offending token, as PostgreSQL's lexer cuts it.
    fn token_end(&self) -> usize {
        let rest = &self.text[self.at.min(self.text.len())..];
        let word = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii())).unwrap_or(rest.len());
        let len = if word > 0 { word } else { rest.chars().next().map_or(0, char::len_utf8) };
        self.at + len
    }

    fn unexpected(&self, wanted: &str) -> SqlError {
        if self.at >= self.text.len() {
            return self.error("The input string ended unexpectedly.".to_owned());
        }
        let token = &self.text[self.at..self.token_end()];
        if token.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
            && !token.bytes().next().is_some_and(|c| c.is_ascii_digit())
            && !matches!(token, "true" | "false" | "null")
        {
            return self.error(format!("Token \"{token}\" is invalid."));
        }
        self.error(format!("{wanted} \"{token}\"."))
    }

    fn blanks(&mut self) {
        while self.text.as_bytes().get(self.at).is_some_and(|c| matches!(c, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.blanks();
        self.text.as_bytes().get(self.at).copied()
    }

    fn value(&mut self, depth: u32) -> Result<Json, SqlError> {
        if depth > MAX_DEPTH {
            return Err(SqlError::new(SqlState::STATEMENT_TOO_COMPLEX, "stack depth limit exceeded"));
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(|s| Json::String(s.into())),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                for (word, v) in [("true", Json::Bool(true)), ("false", Json::Bool(false)), ("null", Json::Null)] {
                    if &self.text[self.at..self.token_end()] == word {
                        self.at += word.len();
                        return Ok(v);
                    }
                }
                Err(self.unexpected("Expected JSON value, but found"))
            }
        }
    }

    fn object(&mut self, depth: u32) -> Result<Json, SqlError> {
        self.at += 1;
        let mut members = Vec::new();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(members));
        }
        loop {
            if self.peek() != Some(b'"') {
                let wanted = if members.is_empty() { "Expected string or \"}\", but found" } else { "Expected string, but found" };
                return Err(self.unexpected(wanted));
            }
            let key = self.string()?;
            if self.peek() != Some(b':') {
                return Err(self.unexpected("Expected \":\", but found"));
            }
            self.at += 1;
            members.push((Text::from(key), self.value(depth + 1)?));
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(if self.keep_order { Json::Object(members) } else { Json::object(members) });
                }
                _ => return Err(self.unexpected("Expected \",\" or \"}\", but found")),
            }
        }
    }

    fn array(&mut self, depth: u32) -> Result<Json, SqlError> {
        self.at += 1;
        let mut values = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(values));
        }
        loop {
            values.push(self.value(depth + 1)?);
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Json::Array(values));
                }
                _ => return Err(self.unexpected("Expected \",\" or \"]\", but found")),
            }
        }
    }

    fn number(&mut self) -> Result<Json, SqlError> {
        let b = self.text.as_bytes();
        let start = self.at;
        let digits = |mut i: usize| {
            let from = i;
            while b.get(i).is_some_and(u8::is_ascii_digit) {
                i += 1;
            }
            (i, i > from)
        };
        let mut i = start + usize::from(b[start] == b'-');
        let mut good;
        if b.get(i) == Some(&b'0') {
            i += 1;
            good = true;
        } else {
            (i, good) = digits(i);
        }
        if good && b.get(i) == Some(&b'.') {
            (i, good) = digits(i + 1);
        }
        if good && b.get(i).is_some_and(|c| matches!(c, b'e' | b'E')) {
            i += 1;
            i += usize::from(b.get(i).is_some_and(|c| matches!(c, b'+' | b'-')));
            (i, good) = digits(i);
        }
        let trailing = b.get(i).is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_');
        if !good || trailing {
            while b.get(i).is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'+' | b'-')) {
                i += 1;
            }
            let token = &self.text[start..i];
            return Err(self.error(format!("Token \"{token}\" is invalid.")));
        }
        self.at = i;
        Numeric::parse(&self.text[start..i]).map(Json::Number)
    }

    fn string(&mut self) -> Result<String, SqlError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(c) = rest.chars().next() else {
                return Err(self.error("The input string ended unexpectedly.".to_owned()));
            };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(out),
                '\\' => out.push(self.escape()?),
                c if u32::from(c) < 0x20 => {
                    return Err(self.error(format!("Character with value 0x{:02x} must be escaped.", u32::from(c))));
                }
                c => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, SqlError> {
        let Some(c) = self.text[self.at..].chars().next() else {
            return Err(self.error("The input string ended unexpectedly.".to_owned()));
        };
        self.at += c.len_utf8();
        Ok(match c {
            '"' | '\\' | '/' => c,
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let first = self.hex4()?;
                let code = match first {
                    0 => {
                        return Err(SqlError::new(SqlState::UNTRANSLATABLE_CHARACTER, "unsupported Unicode escape sequence")
                            .detail("\\u0000 cannot be converted to text."));
                    }
                    0xD800..=0xDBFF => {
                        if !self.text[self.at..].starts_with("\\u") {
                            return Err(self.error("Unicode low surrogate must follow a high surrogate.".to_owned()));
                        }
                        self.at += 2;
                        let low = self.hex4()?;
                        if !(0xDC00..=0xDFFF).contains(&low) {
                            return Err(self.error("Unicode low surrogate must follow a high surrogate.".to_owned()));
                        }
                        0x10000 + ((first - 0xD800) << 10) + (low - 0xDC00)
                    }
                    0xDC00..=0xDFFF => {
                        return Err(self.error("Unicode low surrogate must follow a high surrogate.".to_owned()));
                    }
                    c => c,
                };
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            c => return Err(self.error(format!("Escape sequence \"\\{c}\" is invalid."))),
        })
    }

    fn hex4(&mut self) -> Result<u32, SqlError> {
        let four = self.text.get(self.at..self.at + 4).filter(|s| s.bytes().all(|c| c.is_ascii_hexdigit()));
        let Some(code) = four.and_then(|s| u32::from_str_radix(s, 16).ok()) else {
            return Err(self.error("\"\\u\" must be followed by four hexadecimal digits.".to_owned()));
        };
        self.at += 4;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(s: &str) -> String {
        let mut out = String::new();
        Json::parse(s).unwrap().write(&mut out);
        out
    }

    #[test]
    fn jsonb_sorts_keys_and_keeps_numbers() {
        assert_eq!(round(r#"{"bb":1.50,"a":[true,null,"x\n"], "bb": 2.0}"#), r#"{"a": [true, null, "x\n"], "bb": 2.0}"#);
        assert_eq!(round("  12345678901234567890.10 "), "12345678901234567890.10");
        assert_eq!(round(r#""\ud83d\ude00""#), "\"😀\"");
    }

    #[test]
    fn errors_name_the_token() {
        let e = Json::parse("{\"a\": nope}").unwrap_err();
        assert_eq!(e.fields().detail.as_deref(), Some("Token \"nope\" is invalid."));
        assert!(Json::parse("[1,]").is_err() && Json::parse("").is_err() && Json::parse("01").is_err());
    }
}
