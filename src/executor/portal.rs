//! Prepared statements and their executions.

use std::sync::Arc;

use super::context::SessionContext;
use super::copy::CopyInState;
use super::plan::PlannedStmt;
use super::sink::RowSink;
use super::statement::RawStmt;
use super::utility;
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::SqlError;

/// One result column, as RowDescription tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnDesc {
    /// Its name.
    pub name: Arc<str>,
    /// Table it comes from, or 0.
    pub table: Oid,
    /// Attribute number in that table, or 0.
    pub attnum: i16,
    /// Its type.
    pub type_oid: Oid,
    /// Its type's length, `pg_type.typlen`.
    pub type_len: i16,
    /// Its type modifier.
    pub typmod: i32,
}

/// A statement ready to run, any number of times.
#[derive(Debug)]
pub struct Prepared {
    /// The statement.
    pub statement: RawStmt,
    /// Types of `$1`, `$2`, ...
    pub param_types: Vec<Oid>,
    /// What it returns; `None` if no rows.
    pub columns: Option<Vec<ColumnDesc>>,
    /// How to run it.
    pub body: Body,
}

/// How a prepared statement runs.
#[derive(Debug)]
pub enum Body {
    /// By a plan.
    Plan(Arc<PlannedStmt>),
    /// EXPLAIN of a plan.
    Explain(Box<Explain>),
    /// By `executor::utility`.
    Utility,
}

/// `EXPLAIN` and its options.
#[derive(Debug)]
pub struct Explain {
    /// The explained statement; `None` for a utility statement, which has no plan.
    pub plan: Option<Arc<PlannedStmt>>,
    /// ANALYZE.
    pub analyze: bool,
    /// VERBOSE.
    pub verbose: bool,
    /// COSTS.
    pub costs: bool,
    /// TIMING.
    pub timing: bool,
    /// SUMMARY.
    pub summary: bool,
    /// BUFFERS.
    pub buffers: bool,
    /// FORMAT JSON.
    pub json: bool,
    /// Planning took this long.
    pub planning: std::time::Duration,
}

/// What a call of [`Portal::run`] ended with.
#[derive(Debug)]
pub enum PortalStatus {
    /// `max_rows` were sent, there may be more.
    Suspended,
    /// Done: the command tag.
    Complete(String),
    /// COPY FROM STDIN waits for data.
    CopyIn(Box<CopyInState>),
}

/// One execution of a prepared statement.
pub struct Portal {
    /// What it runs.
    pub prepared: Arc<Prepared>,
    params: Arc<[Datum]>,
}

impl Portal {
    /// A new execution; nothing runs yet.
    ///
    /// # Errors
    /// Parameters do not match.
    pub fn open(_session: &mut SessionContext, prepared: Arc<Prepared>, params: Vec<Datum>) -> Result<Self, SqlError> {
        Ok(Self { prepared, params: params.into() })
    }

    /// The values of `$1`, `$2`, ...
    pub fn params(&self) -> &Arc<[Datum]> {
        &self.params
    }

    /// Runs until `max_rows` rows were sent (0: all), the statement is done, or COPY needs input.
    ///
    /// # Errors
    /// Whatever the statement fails with; the portal is then of no more use.
    pub fn run(&mut self, session: &mut SessionContext, _max_rows: u64, sink: &mut dyn RowSink) -> Result<PortalStatus, SqlError> {
        match &self.prepared.body {
            Body::Utility => utility::run(session, &self.prepared, &self.params, sink),
            Body::Plan(_) | Body::Explain(_) => Err(SqlError::unsupported("running plans")),
        }
    }
}
