//! Operators, functions, casts, aggregates and window functions: one registry with PostgreSQL's OIDs, and the rules that
//! choose among them.
//!
//! The tables under `tables/` are PostgreSQL 15's `pg_proc`, `pg_operator`, `pg_cast`, ... as tab-separated text (`dump.sql`
//! makes them). Bodies are bound to them by `prosrc`. A function without a body here goes to [`FnCtx::external`], where the
//! layers above answer what needs catalogs or the engine.

pub mod aggregate;
mod array;
mod bodies;
pub mod call;
mod cast;
mod comparison;
mod datetime;
mod float;
mod format;
mod hash;
mod integer;
mod json;
mod misc;
pub(crate) mod names;
mod numeric;
mod pattern;
pub mod registry;
pub mod resolve;
mod series;
mod string;
pub mod window;

#[cfg(test)]
mod tests;

pub use aggregate::{Accumulator, AggEntry, NewAccumulator};
pub use call::{Call, CallTypes, FnCtx, ScalarFn, SetFn, SetRows};
pub use registry::{CastEntry, OperEntry, ProcBody, ProcEntry, oper_by_oid, proc_by_oid, procs_by_name};
pub use resolve::{Coercion, CoercionContext, ResolvedFn, ResolvedOp, coercion, resolve_function, resolve_operator, select_common_type};
pub use window::{WindowFn, WindowFrame};

/// OIDs of everything.
pub use crate::sql::types::Oid;
