//! Statements without a plan: DDL, settings, maintenance.

use std::sync::Arc;

use super::context::SessionContext;
use super::portal::{PortalStatus, Prepared};
use super::sink::RowSink;
use crate::sql::types::Datum;
use crate::sqlstate::SqlError;

/// Result columns of a utility statement (`SHOW`, ...), known before it runs; `None` for most.
///
/// # Errors
/// The statement names something that does not exist.
pub fn describe(_session: &mut SessionContext, _statement: &super::RawStmt) -> Result<Option<Vec<super::ColumnDesc>>, SqlError> {
    Ok(None)
}

/// Runs a utility statement.
///
/// # Errors
/// PostgreSQL's.
pub fn run(_session: &mut SessionContext, _prepared: &Arc<Prepared>, _params: &[Datum], _sink: &mut dyn RowSink) -> Result<PortalStatus, SqlError> {
    Err(SqlError::unsupported("this statement"))
}
