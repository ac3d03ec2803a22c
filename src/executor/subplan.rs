//! Subqueries in expressions.

use super::eval::Exec;
use crate::sql::types::Datum;
use crate::sqlstate::SqlError;

/// A subplan's execution.
pub struct SubplanRun {}

pub(super) fn eval(_x: &mut Exec<'_>, _number: usize, _row: &[Datum]) -> Result<Datum, SqlError> {
    Err(SqlError::unsupported("subqueries"))
}
