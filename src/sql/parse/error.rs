//! What the grammar says about a wrong text, as PostgreSQL reports it.
//!
//! The parser library's safe interface gives the message only. The position is found again from the token the message
//! names: the first of its occurrences at which a text cut just behind it fails with the same message.

use crate::sqlstate::{SqlError, SqlState};

/// The grammar's message for `text` as an error with SQLSTATE and position.
pub fn syntax_error(text: &str, message: &str) -> SqlError {
    let error = SqlError::new(state_of(message), message);
    match position_of(text, message) {
        Some(byte) => error.at(char_position(text, byte)),
        None => error,
    }
}

/// 1-based character position of byte `byte`.
pub(crate) fn char_position(text: &str, byte: usize) -> u32 {
    let chars = text.char_indices().take_while(|(at, _)| *at < byte).count();
    u32::try_from(chars + 1).unwrap_or(u32::MAX)
}

fn state_of(message: &str) -> SqlState {
    if message.starts_with("stack depth limit") {
        SqlState::STATEMENT_TOO_COMPLEX
    } else if message.contains("not supported")
        || message.contains("not yet")
        || message.contains("not implemented")
        || message.contains("cannot be marked ")
    {
        SqlState::FEATURE_NOT_SUPPORTED
    } else if message.starts_with("invalid Unicode") {
        SqlState::SYNTAX_ERROR
    } else if message.starts_with("invalid byte sequence") {
        SqlState::CHARACTER_NOT_IN_REPERTOIRE
    } else {
        SqlState::SYNTAX_ERROR
    }
}

fn position_of(text: &str, message: &str) -> Option<usize> {
    if message.ends_with("at end of input") {
        return Some(text.len());
    }
    let (_, rest) = message.split_once(" at or near \"")?;
    let token = rest.strip_suffix('"')?;
    let candidates: Vec<usize> = text.match_indices(token).map(|(at, _)| at).collect();
    if message.starts_with("unterminated") {
        // The named token is the rest of the text.
        return text.len().checked_sub(token.len()).filter(|at| text.is_char_boundary(*at));
    }
    if candidates.len() <= 1 {
        return candidates.first().copied();
    }
    // The longer the text, the more of the failing token's predecessors it holds, so the search can halve.
    let fails = |at: usize| {
        let cut = text.get(..at + token.len()).unwrap_or(text);
        matches!(pg_query::parse(cut), Err(pg_query::Error::Parse(m)) if m == message)
    };
    let (mut low, mut high) = (0, candidates.len() - 1);
    while low < high {
        let mid = low.midpoint(high);
        if candidates.get(mid).is_some_and(|at| fails(*at)) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    candidates.get(low).copied()
}

#[cfg(test)]
mod tests {
    use super::syntax_error;

    fn error(text: &str) -> (String, Option<u32>) {
        let Err(pg_query::Error::Parse(message)) = pg_query::parse(text) else { panic!("{text} parses") };
        let e = syntax_error(text, &message);
        (e.fields().message.clone(), e.fields().position)
    }

    #[test]
    fn position_is_that_of_the_failing_token() {
        assert_eq!(error("select 1 from from t"), ("syntax error at or near \"from\"".into(), Some(15)));
        assert_eq!(error("selec 1"), ("syntax error at or near \"selec\"".into(), Some(1)));
        assert_eq!(error("select (1"), ("syntax error at end of input".into(), Some(10)));
        assert_eq!(error("select 'é' x y"), ("syntax error at or near \"y\"".into(), Some(14)));
        assert_eq!(error("select 'abc"), ("unterminated quoted string at or near \"'abc\"".into(), Some(8)));
    }
}
