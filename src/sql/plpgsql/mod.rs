//! PL/pgSQL, and functions in SQL: bodies to trees, and what runs them.
//!
//! A body is read into an [`ast::Function`]; expressions and queries stay text until they first run, when they are bound with the
//! variables in scope and kept for the session. A variable is a parameter of the plan: parameter `i` is variable `i`, so a plan made
//! again after a catalog change finds them where they were.
//!
//! PostgreSQL: src/pl/plpgsql.

pub mod ast;
mod conditions;
mod lexer;
mod parse;
mod routine;
mod run;

pub use routine::{call_columns, call_procedure, call_scalar, call_set, call_trigger, do_block, validate};
