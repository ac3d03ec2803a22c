//! Text to plan: parse, bind, plan; with the types, functions and catalogs they resolve against.

pub mod bind;
pub mod catalog;
pub mod functions;
pub mod parse;
pub mod plan;
pub mod plan_cache;
pub mod types;
