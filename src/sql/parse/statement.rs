//! Query strings to statements.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf;

use super::depth;
use super::error::syntax_error;
use crate::executor::RawStmt;
use crate::sqlstate::{SqlError, SqlState};
use crate::stack::too_deep;

/// Nesting up to which the caller's own stack is enough.
const INLINE_DEPTH: usize = 400;
/// Stack bytes the parser and the decoder may need per level.
const STACK_PER_LEVEL: usize = 8192;
/// Nesting beyond which a text is refused unparsed: its tree could still be released on a session's stack.
const REFUSED_DEPTH: usize = 60_000;

/// Parses a query string: zero or more statements.
///
/// # Errors
/// 42601 with position for what the grammar refuses, 54001 for what nests too deeply.
pub fn parse_statements(text: &str) -> Result<Vec<RawStmt>, SqlError> {
    let source: Arc<str> = Arc::from(text);
    let parsed = parse_nodes(text)?;
    let mut statements = Vec::with_capacity(parsed.len());
    for raw in parsed {
        let Some(node) = raw.stmt.and_then(|node| node.node) else { continue };
        let start = usize::try_from(raw.stmt_location).unwrap_or(0);
        let len = usize::try_from(raw.stmt_len).unwrap_or(0);
        let end = if len == 0 { text.len() } else { (start + len).min(text.len()) };
        // The grammar counts the blanks before a statement as its own.
        let blanks = text.get(start..end).map_or(0, |s| s.len() - s.trim_start().len());
        statements.push(RawStmt { node: Arc::new(node), source: source.clone(), start: start + blanks, end });
    }
    Ok(statements)
}

/// Parses one expression, as stored for column defaults and check constraints.
///
/// # Errors
/// As [`parse_statements`].
pub fn parse_expression(text: &str) -> Result<protobuf::Node, SqlError> {
    let parsed = parse_nodes(&format!("SELECT {text}"))?;
    let stmt = parsed.into_iter().next().and_then(|raw| raw.stmt).and_then(|node| node.node);
    if let Some(NodeEnum::SelectStmt(select)) = stmt
        && let Some(NodeEnum::ResTarget(target)) = select.target_list.into_iter().next().and_then(|node| node.node)
        && let Some(value) = target.val
    {
        return Ok(*value);
    }
    Err(SqlError::internal(format!("stored expression does not parse: {text}")))
}

fn parse_nodes(text: &str) -> Result<Vec<protobuf::RawStmt>, SqlError> {
    let bound = depth::bound(text);
    if bound <= INLINE_DEPTH {
        return parse_here(text);
    }
    if bound > REFUSED_DEPTH {
        return Err(too_deep());
    }
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("parse".into())
            .stack_size((bound * STACK_PER_LEVEL).max(8 << 20))
            .spawn_scoped(scope, || parse_here(text))
            .map_err(|_| too_deep())?
            .join()
            .unwrap_or_else(|_| Err(SqlError::internal("the parser failed")))
    })
}

fn parse_here(text: &str) -> Result<Vec<protobuf::RawStmt>, SqlError> {
    match pg_query::parse(text) {
        Ok(result) => Ok(result.protobuf.stmts),
        Err(pg_query::Error::Parse(message)) => Err(syntax_error(text, &message)),
        Err(pg_query::Error::Conversion(_)) => {
            Err(SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, "invalid byte sequence for encoding \"UTF8\": 0x00"))
        }
        Err(pg_query::Error::Decode(_)) => Err(too_deep()),
        Err(
            other @ (pg_query::Error::InvalidJson(_)
            | pg_query::Error::InvalidPointer
            | pg_query::Error::Scan(_)
            | pg_query::Error::Split(_)),
        ) => Err(SqlError::internal(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::{StmtKind, TransactionKind};

    #[test]
    fn statements_keep_their_text() {
        let list = parse_statements("select 1;  begin isolation level repeatable read read only;;commit and chain").unwrap();
        assert_eq!(
            list.iter().map(RawStmt::text).collect::<Vec<_>>(),
            ["select 1", "begin isolation level repeatable read read only", "commit and chain"]
        );
        assert_eq!(
            list[1].kind(),
            StmtKind::Transaction(TransactionKind::Begin(
                vec![("transaction_isolation".into(), "repeatable read".into()), ("transaction_read_only".into(), "on".into())],
                "BEGIN"
            ))
        );
        assert_eq!(list[2].kind(), StmtKind::Transaction(TransactionKind::Commit(true)));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_an_overflow() {
        for text in [
            format!("select {}1", " -".repeat(100_001)),
            format!("select {}", vec!["1"; 90_000].join("+")),
            format!("select {}1{}", "(".repeat(50_000), ")".repeat(50_000)),
        ] {
            match parse_statements(&text) {
                Ok(_) => {}
                Err(e) => assert!(matches!(e.state().0, "54001" | "42601"), "{e}"),
            }
        }
    }
}
