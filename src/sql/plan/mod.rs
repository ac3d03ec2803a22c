//! Bound queries to plans: which access path, which join order, which way to group, sort and limit.
//!
//! [`planner::Planner`] walks a query level by level. Below aggregation it compares paths by cost ([`path`], [`join`]) and makes the
//! nodes of the cheapest ([`create`]); above, it stacks nodes ([`upper`]). While it builds nodes it compiles their expressions ([`compile`])
//! against the layout of the rows they get. Costs are PostgreSQL's constants and formulas, simplified.

pub mod change;
pub mod compile;
pub mod create;
pub mod join;
mod join_tree;
mod merge;
pub mod path;
pub mod pattern;
pub mod planner;
pub mod predicate;
pub mod selectivity;
pub mod text;
pub mod upper;

pub use planner::{Planner, plan};
