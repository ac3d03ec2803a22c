//! One execution's state.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::code::SearchedArray;
use super::context::SessionContext;
use super::node::Node;
use super::plan::{PlanNode, PlannedStmt};
use super::row_store::SharedRows;
use super::subplan::SubplanRun;
use crate::access::{AccessCtx, Tid};
use crate::engine::Engine;
use crate::sql::types::Datum;
use crate::sqlstate::SqlError;
use crate::txn::Snapshot;

/// A row between nodes.
pub type Row = Vec<Datum>;

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
    /// The engine, so that access functions can be called while the session is changed.
    pub engine: Option<Arc<Engine>>,
    /// What it sees.
    pub snapshot: Option<Snapshot>,
    /// What has to see a row as well, for it to be changed.
    pub crosscheck: Option<Snapshot>,
    /// `$1`, `$2`, ...
    pub params: Arc<[Datum]>,
    /// Exec slots.
    pub exec: Vec<Datum>,
    /// Values `CASE x` and array casts work on, innermost last.
    pub case_values: Vec<Datum>,
    /// Subplans, taken out while they run.
    pub subplans: Vec<Option<Box<SubplanRun>>>,
    /// WITH queries.
    pub ctes: Vec<CteState>,
    /// Working tables of recursive queries, by WITH query number.
    pub(super) working: Vec<SharedRows>,
    /// Rows changed so far, for the command tag.
    pub processed: u64,
    /// In a re-check: the rows scans return instead of scanning, by scan number.
    #[expect(clippy::type_complexity, reason = "one use")]
    pub replaced: Option<FxHashMap<usize, Option<(Tid, Vec<u8>)>>>,
    /// What the changes so far ask of foreign keys.
    pub foreign: super::referential::Events,
    /// Long arrays that values were compared with.
    pub searched: Vec<SearchedArray>,
    /// EXPLAIN ANALYZE: per node.
    pub stats: Option<Vec<NodeStats>>,
}

/// What EXPLAIN ANALYZE measured of a node.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeStats {
    /// Rows returned, over all loops.
    pub rows: u64,
    /// Times it was started.
    pub loops: u64,
    /// Until the first row, over all loops.
    pub startup: Duration,
    /// In all.
    pub total: Duration,
    /// Rows a filter threw away.
    pub removed: u64,
    /// Of a hash table: its batches now, and at first.
    pub batches: (u64, u64),
    /// Of a hash table: buckets.
    pub buckets: u64,
    /// Bytes of memory at most.
    pub memory: u64,
    /// Bytes in temporary files.
    pub disk: u64,
    /// Of an index-only scan: rows looked at in the table.
    pub heap_fetches: u64,
    /// Of a sort: how.
    pub sort_method: Option<&'static str>,
}

/// A WITH query's execution.
#[derive(Default)]
pub struct CteState {
    /// Its node while rows are left; taken out while it runs.
    pub node: Option<Box<dyn Node>>,
    /// It was started.
    pub started: bool,
    /// It has no more rows.
    pub done: bool,
    /// Rows so far.
    pub(super) rows: SharedRows,
    /// Values of the slots it reads, when it was started.
    pub slots: Vec<Datum>,
}

impl ExecState {
    /// For expressions outside of any plan.
    pub fn bare() -> Self {
        Self {
            plan: None,
            engine: None,
            snapshot: None,
            crosscheck: None,
            params: Arc::from([]),
            exec: Vec::new(),
            case_values: Vec::new(),
            subplans: Vec::new(),
            ctes: Vec::new(),
            working: Vec::new(),
            processed: 0,
            replaced: None,
            foreign: super::referential::Events::default(),
            searched: Vec::new(),
            stats: None,
        }
    }

    /// For one execution of a plan.
    pub fn new(plan: &Arc<PlannedStmt>, engine: &Arc<Engine>, snapshot: Snapshot, params: Arc<[Datum]>) -> Self {
        let mut state = Self { plan: Some(plan.clone()), engine: Some(engine.clone()), snapshot: Some(snapshot), params, ..Self::bare() };
        state.exec.resize(plan.exec_slots, Datum::Null);
        state.subplans.resize_with(plan.subplans.len(), || None);
        state.ctes.resize_with(plan.ctes.len(), CteState::default);
        state.working.resize_with(plan.ctes.len(), Arc::default);
        state
    }

    /// The snapshot.
    ///
    /// # Errors
    /// 40001 if what it sees is no longer all there. None was taken: a bug.
    pub fn snapshot(&self) -> Result<&Snapshot, SqlError> {
        let snapshot = self.snapshot.as_ref().ok_or_else(|| SqlError::internal("execution without a snapshot"))?;
        snapshot.check()?;
        Ok(snapshot)
    }

    /// The engine.
    ///
    /// # Errors
    /// There is none: a bug.
    pub fn engine(&self) -> Result<&Arc<Engine>, SqlError> {
        self.engine.as_ref().ok_or_else(|| SqlError::internal("execution without an engine"))
    }

    /// The statement.
    ///
    /// # Errors
    /// There is none: a bug.
    pub fn plan(&self) -> Result<&Arc<PlannedStmt>, SqlError> {
        self.plan.as_ref().ok_or_else(|| SqlError::internal("execution without a plan"))
    }
}

impl Exec<'_> {
    /// Lets EXPLAIN ANALYZE know something about a node.
    pub fn note(&mut self, id: usize, f: impl FnOnce(&mut NodeStats)) {
        if let Some(s) = self.state.stats.as_mut().and_then(|s| s.get_mut(id)) {
            f(s);
        }
    }

    /// What access functions get.
    ///
    /// # Errors
    /// There is no engine: a bug.
    pub fn access(&self) -> Result<&AccessCtx, SqlError> {
        Ok(self.state.engine()?.ctx())
    }

    /// Runs a plan for one row with some scans' rows replaced: the re-check of a row that another transaction changed.
    ///
    /// # Errors
    /// What the plan fails with.
    ///
    /// Its values may be packed.
    pub fn recheck(&mut self, plan: &Arc<PlanNode>, replaced: FxHashMap<usize, Option<(Tid, Vec<u8>)>>) -> Result<Option<Row>, SqlError> {
        let stmt = self.state.plan()?.clone();
        let engine = self.state.engine()?.clone();
        let mut state = ExecState::new(&stmt, &engine, self.state.snapshot()?.clone(), self.state.params.clone());
        state.exec.clone_from(&self.state.exec);
        for (to, from) in state.ctes.iter_mut().zip(&self.state.ctes) {
            if from.done {
                to.started = true;
                to.done = true;
                to.rows = from.rows.clone();
                to.slots.clone_from(&from.slots);
            }
        }
        state.replaced = Some(replaced);
        let mut x = Exec { session: self.session, state: &mut state };
        let mut node = super::node::build_as(plan, &mut x, true)?;
        let mut row = Row::new();
        Ok(if node.next(&mut x, &mut row)? { Some(row) } else { None })
    }
}
