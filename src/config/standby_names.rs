//! The text of `synchronous_standby_names`.
//!
//! PostgreSQL: replication/syncrep_gram.y, syncrep_scanner.l.

use crate::sqlstate::{SqlError, SqlState};

/// How several synchronous standbys count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMethod {
    /// `FIRST n`: the n listed first that are connected.
    First,
    /// `ANY n`: any n of those listed.
    Any,
}

/// A parsed `synchronous_standby_names`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncNames {
    /// FIRST or ANY.
    pub method: SyncMethod,
    /// How many must have confirmed; at least 1.
    pub count: usize,
    /// Names in order of priority; `*` matches every standby.
    pub names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Name,
    Number,
    First,
    Any,
    Mark(char),
}

#[derive(Debug)]
struct Token {
    kind: Kind,
    value: String,
}

fn near(text: &str) -> String {
    format!("syntax error at or near \"{text}\"")
}

fn tokenize(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    let is_name = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
    while let Some(c) = chars.next() {
        let mut value = String::from(c);
        let kind = match c {
            c if c.is_ascii_whitespace() => continue,
            '(' | ')' | ',' => Kind::Mark(c),
            '*' => Kind::Name,
            '"' => {
                value.clear();
                loop {
                    value.extend(std::iter::from_fn(|| chars.next_if(|c| *c != '"')));
                    if chars.next().is_none() {
                        return Err("unterminated quoted identifier at end of input".to_owned());
                    }
                    // Two of them stand for one.
                    if chars.next_if_eq(&'"').is_none() {
                        break Kind::Name;
                    }
                    value.push('"');
                }
            }
            c if c.is_ascii_digit() => {
                value.extend(std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)));
                Kind::Number
            }
            c if is_name(c) => {
                value.extend(std::iter::from_fn(|| chars.next_if(|c| is_name(*c) || c.is_ascii_digit() || *c == '$')));
                match value.to_ascii_lowercase().as_str() {
                    "first" => Kind::First,
                    "any" => Kind::Any,
                    _ => Kind::Name,
                }
            }
            _ => return Err(near(&value)),
        };
        tokens.push(Token { kind, value });
    }
    Ok(tokens)
}

impl SyncNames {
    /// Parses the setting; `None` for the empty one (no synchronous replication).
    ///
    /// # Errors
    /// 42601 and 22023 with PostgreSQL's texts.
    pub fn parse(text: &str) -> Result<Option<Self>, SqlError> {
        let malformed = |detail: String| {
            let message = format!("invalid value for parameter \"synchronous_standby_names\": \"{text}\"");
            SqlError::new(SqlState::SYNTAX_ERROR, message).detail(detail)
        };
        let tokens = tokenize(text).map_err(malformed)?;
        if text.is_empty() {
            return Ok(None);
        }
        let kind = |i: usize| tokens.get(i).map(|t: &Token| t.kind);
        let wrong = |i: usize| malformed(tokens.get(i).map_or_else(|| "syntax error at end of input".to_owned(), |t| near(&t.value)));
        let (method, number) = match kind(0) {
            Some(Kind::First) => (SyncMethod::First, Some(1)),
            Some(Kind::Any) => (SyncMethod::Any, Some(1)),
            // A number is a name as well.
            Some(Kind::Number) if kind(1) == Some(Kind::Mark('(')) => (SyncMethod::First, Some(0)),
            Some(Kind::Name | Kind::Number | Kind::Mark(_)) | None => (SyncMethod::First, None),
        };
        let (count, mut at) = match number {
            None => (1, 0),
            Some(i) if kind(i) != Some(Kind::Number) => return Err(wrong(i)),
            Some(i) if kind(i + 1) != Some(Kind::Mark('(')) => return Err(wrong(i + 1)),
            Some(i) => (tokens[i].value.parse().unwrap_or(0), i + 2),
        };
        let mut names = Vec::new();
        loop {
            if !matches!(kind(at), Some(Kind::Name | Kind::Number)) {
                return Err(wrong(at));
            }
            names.push(tokens[at].value.clone());
            at += 1;
            if kind(at) != Some(Kind::Mark(',')) {
                break;
            }
            at += 1;
        }
        if number.is_some() {
            if kind(at) != Some(Kind::Mark(')')) {
                return Err(wrong(at));
            }
            at += 1;
        }
        if at < tokens.len() {
            return Err(wrong(at));
        }
        if count == 0 {
            let message = format!("number of synchronous standbys ({count}) must be greater than zero");
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
        }
        Ok(Some(Self { method, count, names }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        assert_eq!(SyncNames::parse("").unwrap(), None);
        let parsed = |text: &str| SyncNames::parse(text).unwrap().unwrap();
        let names = |method, count, list: &[&str]| SyncNames { method, count, names: list.iter().map(|s| (*s).to_owned()).collect() };
        assert_eq!(parsed("a"), names(SyncMethod::First, 1, &["a"]));
        assert_eq!(parsed("*"), names(SyncMethod::First, 1, &["*"]));
        assert_eq!(parsed(" a,\t\"B \"\"c\"\"\" ,3"), names(SyncMethod::First, 1, &["a", "B \"c\"", "3"]));
        assert_eq!(parsed("2 (a,b,c$1)"), names(SyncMethod::First, 2, &["a", "b", "c$1"]));
        assert_eq!(parsed("FIRST 2 (a, b)"), names(SyncMethod::First, 2, &["a", "b"]));
        assert_eq!(parsed("any 1(*)"), names(SyncMethod::Any, 1, &["*"]));
        assert_eq!(parsed("\"first\", \"\""), names(SyncMethod::First, 1, &["first", ""]));
    }

    #[test]
    fn mistakes_are_named_as_postgresql_names_them() {
        for (bad, detail) in [
            ("first", "syntax error at end of input"),
            ("ANY x (a)", "syntax error at or near \"x\""),
            ("ANY 1 a", "syntax error at or near \"a\""),
            ("ANY 1 (a", "syntax error at end of input"),
            ("ANY 1 ()", "syntax error at or near \")\""),
            ("a b", "syntax error at or near \"b\""),
            ("a,", "syntax error at end of input"),
            ("1 (a,,b)", "syntax error at or near \",\""),
            ("1 (a) b", "syntax error at or near \"b\""),
            ("n-1", "syntax error at or near \"-\""),
            (" ", "syntax error at end of input"),
            ("\"a", "unterminated quoted identifier at end of input"),
        ] {
            let error = SyncNames::parse(bad).unwrap_err();
            assert_eq!((error.state(), error.fields().detail.as_deref()), (SqlState::SYNTAX_ERROR, Some(detail)), "{bad}");
        }
        let error = SyncNames::parse("ANY 0 (a)").unwrap_err();
        assert_eq!(error.to_string(), "number of synchronous standbys (0) must be greater than zero");
    }
}
