//! Statement text to raw parse nodes, by PostgreSQL's own grammar.
//!
//! The grammar's C code and the decoding of its result recurse, so a text is measured before it is parsed: what nests
//! deeply is parsed on a thread with a stack to match, and what nests deeper than the rest of the server can take is
//! refused with 54001.

mod depth;
mod error;
mod statement;

pub use depth::MAX_DEPTH;
pub(crate) use error::char_position;
pub use error::syntax_error;
pub use statement::{parse_expression, parse_statements};

pub use crate::executor::{RawStmt, StmtKind, TransactionKind};
