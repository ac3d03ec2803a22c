//! Raw parse nodes to typed queries: names to columns, operators and functions to the registry's, literals to values.
//!
//! Every error carries the position of what it is about. [`Binder`] holds a stack of [`scope::Scope`]s, one per query level;
//! the result is a [`query::Query`] over [`expr::Expr`]s.

pub mod coerce;
pub mod deparse;
pub mod expr;
mod expression;
mod from;
mod function;
mod modify;
pub mod query;
mod recursion;
pub mod scope;
mod select;
mod target;
mod type_name;

pub use expr::{Expr, ExprKind};
pub use query::Query;
pub use scope::Binder;
