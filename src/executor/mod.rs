//! Plan to rows: scans, joins, aggregates, sorts, windows, changes, DDL, COPY.
//!
//! A [`plan::PlanNode`] tree is immutable and shared by every execution of a statement; a [`Portal`] holds one
//! execution's state, owned, so that it can wait between two fetches. Expressions arrive compiled ([`code::Code`]).
//! Everything runs on a [`SessionContext`], which a session lends for each call.

mod aggregate;
mod analyze;
pub mod catalog_function;
pub mod code;
pub mod context;
pub mod copy;
pub(crate) mod ddl;
pub mod deferral;
pub mod eval;
pub mod explain;
pub mod front_end;
mod hash;
mod join;
pub(crate) mod large;
pub(crate) mod loader;
mod lock_rows;
mod merge;
pub mod modify;
pub mod node;
pub mod plan;
pub mod portal;
pub mod privileges;
pub mod referential;
pub mod routine;
mod row_store;
mod scan;
mod set;
pub mod setting;
mod simple;
pub mod sink;
mod sort;
mod spill;
pub mod statement;
pub mod subplan;
mod temp_file;
pub mod trigger;
mod tuplestore;
mod unsupported;
pub mod utility;
pub(crate) mod vacuum;
pub mod verify;
mod window;

pub use context::{ExternalFunctions, Notice, SessionContext};
pub use ddl::temp::OnCommit;
pub use eval::{Exec, ExecState};
pub use front_end::{SqlFrontEnd, TableExpr};
pub use portal::{ColumnDesc, Portal, PortalStatus, Prepared};
pub use sink::RowSink;
pub use statement::{RawStmt, StmtKind, TransactionKind};
pub use temp_file::{TempSpace, remove_temporary_files, temporary_files_of};
pub use tuplestore::{TupleStore, ValueStore};
