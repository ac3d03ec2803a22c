//! COPY: rows as lines of text, CSV, or PostgreSQL's binary format.
//!
//! PostgreSQL: commands/copyfrom.c, copyfromparse.c, copyto.c.

mod input;
mod options;
mod output;
mod parse;
mod run;

pub use input::CopyInState;
pub(crate) use run::run;
