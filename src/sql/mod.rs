//! Text to plan: parse, bind, plan; with the types, functions and catalogs they resolve against.

pub mod bind;
pub mod catalog;
pub mod functions;
pub mod parse;
pub mod plan;
pub mod plan_cache;
pub mod plpgsql;
pub mod types;

mod prepare;

pub use parse::{RawStmt, StmtKind, TransactionKind, parse_statements};
pub use plan_cache::{Lookup, PlanCache};
pub use prepare::{FRONT_END, open_portal, prepare};

pub use crate::executor::{ColumnDesc, Portal, PortalStatus, Prepared, RowSink, SessionContext};
