//! FOREIGN KEY constraints.

use std::sync::Arc;

use super::constraint::{NewConstraint, NewForeign};
use crate::executor::SessionContext;
use crate::sql::catalog::relation::Relation;
use crate::sql::types::Oid;
use crate::sqlstate::SqlError;

/// Adds a foreign key to an existing table, checking its rows. Returns its OID.
pub(crate) fn add(
    _ctx: &mut SessionContext,
    _relation: &Arc<Relation>,
    _new: &NewConstraint,
    _foreign: &NewForeign,
    _source: &str,
) -> Result<Oid, SqlError> {
    Err(SqlError::unsupported("FOREIGN KEY"))
}
