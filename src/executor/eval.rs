//! One execution's state.

use std::sync::Arc;

use super::context::SessionContext;
use super::plan::PlannedStmt;
use super::subplan::SubplanRun;
use crate::sql::types::Datum;

/// What a plan's nodes share while they run: the session, lent, and the execution's own state.
pub struct Exec<'a> {
    /// The session.
    pub session: &'a mut SessionContext,
    /// The execution.
    pub state: &'a mut ExecState,
}

/// State of one execution of a statement, kept between fetches.
pub struct ExecState {
    /// The statement.
    pub plan: Option<Arc<PlannedStmt>>,
    /// `$1`, `$2`, ...
    pub params: Arc<[Datum]>,
    /// Exec slots.
    pub exec: Vec<Datum>,
    /// Values `CASE x` and array casts work on, innermost last.
    pub case_values: Vec<Datum>,
    /// Subplans, taken out while they run.
    pub subplans: Vec<Option<Box<SubplanRun>>>,
}

impl ExecState {
    /// For expressions outside of any plan.
    pub fn bare() -> Self {
        Self { plan: None, params: Arc::from([]), exec: Vec::new(), case_values: Vec::new(), subplans: Vec::new() }
    }
}
