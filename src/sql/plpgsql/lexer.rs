//! Words of a PL/pgSQL body.

use crate::sqlstate::{SqlError, SqlState};

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An identifier or key word, folded to lower case unless quoted.
    Word { quoted: bool },
    /// A string constant, its value in `text`.
    Text,
    /// A number.
    Number,
    /// `$1`.
    Param,
    /// Anything else: `:=`, `..`, `<<`, `>>`, one character.
    Mark,
    /// The end.
    End,
}

/// A token and its place.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// The word, the value of a string, the mark.
    pub(super) text: String,
    /// First byte.
    pub(super) start: usize,
    /// Byte behind it.
    pub(super) end: usize,
    /// From 1.
    pub(super) line: u32,
}

fn unterminated(what: &str) -> SqlError {
    SqlError::new(SqlState::SYNTAX_ERROR, format!("unterminated {what}"))
}

/// Splits a body.
pub(super) fn tokens(source: &str) -> Result<Vec<Token>, SqlError> {
    let bytes = source.as_bytes();
    let at = |i: usize| bytes.get(i).copied().unwrap_or(0);
    let (mut out, mut i, mut line) = (Vec::new(), 0, 1);
    while i < bytes.len() {
        let (start, first_line) = (i, line);
        let c = at(i);
        let (kind, text) = match c {
            b'\n' => {
                line += 1;
                i += 1;
                continue;
            }
            _ if c.is_ascii_whitespace() => {
                i += 1;
                continue;
            }
            b'-' if at(i + 1) == b'-' => {
                while i < bytes.len() && at(i) != b'\n' {
                    i += 1;
                }
                continue;
            }
            b'/' if at(i + 1) == b'*' => {
                let mut depth = 0_usize;
                loop {
                    match (at(i), at(i + 1)) {
                        (b'/', b'*') => {
                            depth += 1;
                            i += 2;
                        }
                        (b'*', b'/') => {
                            depth -= 1;
                            i += 2;
                            if depth == 0 {
                                break;
                            }
                        }
                        _ if i >= bytes.len() => return Err(unterminated("/* comment")),
                        (c, _) => {
                            line += u32::from(c == b'\n');
                            i += 1;
                        }
                    }
                }
                continue;
            }
            b'\'' => {
                let (text, end) = string(source, i + 1, false)?;
                i = end;
                (Kind::Text, text)
            }
            b'e' | b'E' if at(i + 1) == b'\'' => {
                let (text, end) = string(source, i + 2, true)?;
                i = end;
                (Kind::Text, text)
            }
            b'"' => {
                let mut text = String::new();
                i += 1;
                loop {
                    let rest = source.get(i..).unwrap_or_default();
                    let Some(quote) = rest.find('"') else { return Err(unterminated("quoted identifier")) };
                    text.push_str(&rest[..quote]);
                    i += quote + 1;
                    if at(i) != b'"' {
                        break;
                    }
                    text.push('"');
                    i += 1;
                }
                (Kind::Word { quoted: true }, text)
            }
            b'$' if at(i + 1).is_ascii_digit() => {
                i += 1;
                while at(i).is_ascii_digit() {
                    i += 1;
                }
                (Kind::Param, source[start..i].to_owned())
            }
            b'$' => {
                let rest = source.get(i + 1..).unwrap_or_default();
                let Some(len) = rest.find('$') else { return Err(unterminated("dollar-quoted string")) };
                let tag = source[start..=start + 1 + len].to_owned();
                let body = start + tag.len();
                let Some(close) = source.get(body..).and_then(|s| s.find(&tag)) else {
                    return Err(unterminated("dollar-quoted string"));
                };
                i = body + close + tag.len();
                (Kind::Text, source[body..body + close].to_owned())
            }
            _ if c.is_ascii_digit() || (c == b'.' && at(i + 1).is_ascii_digit()) => {
                while at(i).is_ascii_alphanumeric() || (at(i) == b'.' && at(i + 1) != b'.') || at(i) == b'_' {
                    i += 1;
                }
                (Kind::Number, source[start..i].to_owned())
            }
            _ if c.is_ascii_alphabetic() || c == b'_' || c >= 0x80 => {
                while at(i).is_ascii_alphanumeric() || matches!(at(i), b'_' | b'$') || at(i) >= 0x80 {
                    i += 1;
                }
                (Kind::Word { quoted: false }, source[start..i].to_ascii_lowercase())
            }
            _ => {
                let two = source.get(i..i + 2).unwrap_or_default();
                i += if matches!(two, ":=" | ".." | "<<" | ">>" | "::" | "=>" | "<=" | ">=" | "<>" | "!=") { 2 } else { 1 };
                (Kind::Mark, source[start..i].to_owned())
            }
        };
        line += u32::try_from(source.get(start..i).unwrap_or_default().matches('\n').count()).unwrap_or(0);
        out.push(Token { kind, text, start, end: i, line: first_line });
    }
    out.push(Token { kind: Kind::End, text: String::new(), start: bytes.len(), end: bytes.len(), line });
    Ok(out)
}

/// A string constant from behind its first quote; its value and the byte behind its last.
fn string(source: &str, from: usize, escapes: bool) -> Result<(String, usize), SqlError> {
    let mut text = String::new();
    let mut chars = source.get(from..).unwrap_or_default().char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        match c {
            '\'' if chars.peek().is_some_and(|(_, c)| *c == '\'') => {
                chars.next();
                text.push('\'');
            }
            '\'' => return Ok((text, from + i + 1)),
            '\\' if escapes => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, c)) => text.push(c),
                None => break,
            },
            c => text.push(c),
        }
    }
    Err(unterminated("quoted string"))
}
