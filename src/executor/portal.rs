//! Prepared statements and their executions.

use std::sync::Arc;

use afterimage_wal::ids::{Fork, RelId};
use arc_swap::ArcSwap;

use super::code::Code;
use super::context::SessionContext;
use super::copy::CopyInState;
use super::ddl::tablespace;
use super::eval::{Exec, ExecState, NodeStats, Row};
use super::node::{self, Node};
use super::plan::{Command, LockStrength, PlanNode, PlanOp, PlannedStmt, RelationUse};
use super::sink::RowSink;
use super::statement::RawStmt;
use super::{explain, privileges, utility};
use crate::config::Setting;
use crate::sql::catalog::relation::Persistence;
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{Isolation, LockMode, LockTag, WaitPolicy};

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
    /// Where each of them is first used, for errors.
    pub param_places: Vec<u32>,
    /// What it returns; `None` if no rows.
    pub columns: Option<Vec<ColumnDesc>>,
    /// How to run it.
    pub body: Body,
}

impl Prepared {
    /// Whether its plan is good for more than the statement it was made in.
    pub fn is_lasting(&self) -> bool {
        !matches!(&self.body, Body::Plan(cell) if !cell.is_lasting())
    }

    /// The expression, over a row of the parameters, if the statement is no more than one expression of operators and immutable functions: it
    /// can be evaluated without being run.
    pub fn simple(&self) -> Option<Code> {
        let Body::Plan(cell) = &self.body else { return None };
        let version = cell.0.load();
        let plan = &version.plan;
        let alone = plan.subplans.is_empty() && plan.ctes.is_empty() && plan.relations.is_empty() && !plan.modifies;
        let PlanOp::Result { exprs, condition: None } = &plan.root.op else { return None };
        match &**exprs {
            [code] if alone && version.version.is_some() => code.over_params(),
            _ => None,
        }
    }

    /// Locks what the statement reads and changes; whether it may then be run as it is. If not, somebody has changed a relation since, maybe
    /// while its lock was waited for: prepare the statement anew.
    ///
    /// # Errors
    /// A lock cannot be had.
    pub fn lock(&self, session: &mut SessionContext) -> Result<bool, SqlError> {
        let Body::Plan(cell) = &self.body else { return Ok(true) };
        session.transaction()?.begin_query()?;
        lock_relations(session, &cell.plan())?;
        Ok(cell.is_current(session))
    }
}

/// How a prepared statement runs.
#[derive(Debug)]
pub enum Body {
    /// By a plan.
    Plan(PlanCell),
    /// EXPLAIN of a plan.
    Explain(Box<Explain>),
    /// By `executor::utility`.
    Utility,
}

/// A plan and what it was made under; replaced when that has changed.
#[derive(Debug)]
pub struct PlanCell(ArcSwap<PlanVersion>);

/// A plan and what it was made under.
#[derive(Debug)]
pub struct PlanVersion {
    /// The plan.
    pub plan: Arc<PlannedStmt>,
    /// `CatalogHandle::version` then; `None`: good for the statement it was made in only.
    pub version: Option<u64>,
    /// Search path then.
    pub search_path: Box<[Oid]>,
    /// `statement_timestamp()` then.
    pub statement: i64,
}

impl PlanVersion {
    /// A plan made now.
    pub fn now(session: &SessionContext, plan: PlannedStmt) -> Self {
        Self {
            plan: Arc::new(plan),
            version: session.catalog.version(),
            search_path: session.catalog.search_path().into(),
            statement: session.statement_timestamp,
        }
    }

    fn is_current(&self, session: &SessionContext) -> bool {
        let version = session.catalog.version();
        let same = match (self.version, version) {
            (Some(a), Some(b)) => a == b,
            (None, _) | (_, None) => self.version == version && self.statement == session.statement_timestamp,
        };
        same
            && *self.search_path == *session.catalog.search_path()
            && (!self.plan.passed_over || self.statement == session.statement_timestamp)
            // An error of a status file is met by whoever plans anew.
            && self.plan.young.iter().all(|xid| session.transaction.as_ref().is_some_and(|t| t.reads_after(*xid).unwrap_or(false)))
    }
}

impl PlanCell {
    /// A cell with this plan.
    pub fn new(version: PlanVersion) -> Self {
        Self(ArcSwap::from_pointee(version))
    }

    /// May the plan be run now as it is?
    pub fn is_current(&self, session: &SessionContext) -> bool {
        self.0.load().is_current(session)
    }

    /// Is it good for more than the statement it was made in?
    pub fn is_lasting(&self) -> bool {
        let made = self.0.load();
        made.version.is_some() && !made.plan.passed_over
    }

    /// The plan as it is.
    pub fn plan(&self) -> Arc<PlannedStmt> {
        self.0.load().plan.clone()
    }
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
    run: Run,
    /// It runs as a parallel worker would (`force_parallel_mode`).
    worker: bool,
    /// It may be asked to begin again: a cursor.
    keep: bool,
    /// See [`Self::detect_new_rows`].
    new_rows: bool,
}

/// How far an execution is.
enum Run {
    Ready,
    Rows(Box<Running>),
    Lines(std::vec::IntoIter<String>),
    Done(String),
    /// Done, and kept to begin again.
    Ended(Box<Running>, String),
}

struct Running {
    state: ExecState,
    node: Box<dyn Node>,
    sent: u64,
}

impl std::fmt::Debug for Portal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Portal").field("statement", &self.prepared.statement.text()).finish_non_exhaustive()
    }
}

impl Portal {
    /// A new execution; nothing runs yet.
    ///
    /// # Errors
    /// Parameters do not match.
    pub fn open(_session: &mut SessionContext, prepared: Arc<Prepared>, params: Vec<Datum>) -> Result<Self, SqlError> {
        if params.len() < prepared.param_types.len() {
            let error = SqlError::new(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter ${}", params.len() + 1));
            return Err(match prepared.param_places.get(params.len()) {
                Some(place) if *place > 0 => error.at(*place),
                _ => error,
            });
        }
        Ok(Self { prepared, params: params.into(), run: Run::Ready, worker: false, keep: false, new_rows: false })
    }

    /// It sees what is committed now, even if the transaction has a snapshot that it keeps; but to change a row that this one does not see
    /// fails with 40001.
    pub fn detect_new_rows(&mut self) {
        self.new_rows = true;
    }

    /// The values of `$1`, `$2`, ...
    pub fn params(&self) -> &Arc<[Datum]> {
        &self.params
    }

    /// Runs until `max_rows` rows were sent (0: all), the statement is done, or COPY needs input.
    ///
    /// # Errors
    /// Whatever the statement fails with; the portal is then of no more use.
    pub fn run(&mut self, session: &mut SessionContext, max_rows: u64, sink: &mut dyn RowSink) -> Result<PortalStatus, SqlError> {
        let status = self.run_on(session, max_rows, sink);
        if self.worker && !matches!(status, Ok(PortalStatus::Suspended)) {
            self.worker = false;
            if let Some(t) = &mut session.transaction {
                t.end_worker();
            }
        }
        status
    }

    /// Makes it a cursor: what it sees is settled now, though nothing is read yet.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn begin(&mut self, session: &mut SessionContext) -> Result<(), SqlError> {
        self.keep = self.scrolls();
        if let (Body::Plan(cell), Run::Ready) = (&self.prepared.body, &self.run) {
            tablespace::reserve_temporary(session)?;
            let plan = current_plan(session, &self.prepared, cell)?;
            if plan.modifies {
                let message = "DECLARE CURSOR must not contain data-modifying statements in WITH";
                return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message));
            }
            self.run = Run::Rows(Box::new(start(session, &plan, self.params.clone(), false)?));
        }
        Ok(())
    }

    /// Whether it can be read again from its beginning, at little cost: PostgreSQL's `ExecSupportsBackwardScan`.
    pub fn scrolls(&self) -> bool {
        let Body::Plan(cell) = &self.prepared.body else { return false };
        scrolls(&cell.plan().root)
    }

    /// Begins again, seeing what it saw.
    ///
    /// # Errors
    /// It cannot.
    pub fn rewind(&mut self, session: &mut SessionContext) -> Result<(), SqlError> {
        match std::mem::replace(&mut self.run, Run::Ready) {
            Run::Rows(mut running) | Run::Ended(mut running, _) => {
                running.node.rescan(&mut Exec { session, state: &mut running.state })?;
                running.sent = 0;
                self.run = Run::Rows(running);
                Ok(())
            }
            Run::Ready => Ok(()),
            Run::Lines(_) | Run::Done(_) => Err(SqlError::internal("a cursor that cannot begin again")),
        }
    }

    /// Lets go of what it looks at; it has no more rows.
    pub fn release(&mut self) {
        self.run = Run::Done("SELECT 0".into());
    }

    fn run_on(&mut self, session: &mut SessionContext, max_rows: u64, sink: &mut dyn RowSink) -> Result<PortalStatus, SqlError> {
        match &self.prepared.body {
            Body::Utility => return utility::run(session, &self.prepared, &self.params, sink),
            Body::Plan(cell) => {
                if let Run::Ready = self.run {
                    tablespace::reserve_temporary(session)?;
                    let plan = current_plan(session, &self.prepared, cell)?;
                    // Here it is the session itself that plays the worker: what shows is when advisory locks go.
                    self.worker = plan.parallel_safe
                        && session.settings.str(Setting::ForceParallelMode) != "off"
                        && session.transaction()?.begin_worker();
                    let mut running = start(session, &plan, self.params.clone(), false)?;
                    let t = session.transaction()?;
                    if self.new_rows && t.isolation() != Isolation::ReadCommitted {
                        running.state.crosscheck = running.state.snapshot.replace(t.newest_snapshot()?);
                    }
                    self.run = Run::Rows(Box::new(running));
                }
            }
            Body::Explain(e) => {
                if let Run::Ready = self.run {
                    self.run = Run::Lines(explain_lines(session, e, &self.params)?.into_iter());
                }
            }
        }
        match &mut self.run {
            Run::Rows(running) => {
                let done = if is_short(session, running.state.plan()?) {
                    running.pull(session, max_rows, sink)?
                } else {
                    crate::txn::blocking(|| running.pull(session, max_rows, sink))?
                };
                if !done {
                    return Ok(PortalStatus::Suspended);
                }
                let tag = running.tag()?;
                self.run = match std::mem::replace(&mut self.run, Run::Ready) {
                    Run::Rows(running) if self.keep => Run::Ended(running, tag.clone()),
                    Run::Ready | Run::Rows(_) | Run::Lines(_) | Run::Done(_) | Run::Ended(..) => Run::Done(tag.clone()),
                };
                Ok(PortalStatus::Complete(tag))
            }
            Run::Lines(lines) => {
                let mut sent = 0;
                while max_rows == 0 || sent < max_rows {
                    let Some(line) = lines.next() else {
                        self.run = Run::Done("EXPLAIN".into());
                        return Ok(PortalStatus::Complete("EXPLAIN".into()));
                    };
                    sink.row(&[Datum::text(line)])?;
                    sent += 1;
                }
                Ok(PortalStatus::Suspended)
            }
            Run::Done(tag) | Run::Ended(_, tag) => {
                // Asked again: nothing more to send.
                let mut tag = tag.clone();
                if let Some((word, _)) = tag.rsplit_once(' ')
                    && word == "SELECT"
                {
                    tag = "SELECT 0".into();
                }
                Ok(PortalStatus::Complete(tag))
            }
            Run::Ready => Err(SqlError::internal("portal that did not start")),
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these nodes can be read backwards in PostgreSQL")]
fn scrolls(node: &PlanNode) -> bool {
    match &node.op {
        PlanOp::SeqScan(_) | PlanOp::TidScan(..) | PlanOp::Values(_) | PlanOp::Function(_) | PlanOp::Sort(..) | PlanOp::Materialize(_) => {
            true
        }
        PlanOp::IndexScan(scan) => !scan.bitmap,
        PlanOp::Project(input, _) | PlanOp::Filter(input, _) => scrolls(input),
        PlanOp::Limit(limit) => scrolls(&limit.child),
        PlanOp::Append(inputs) => inputs.iter().all(|input| scrolls(input)),
        _ => false,
    }
}

/// A table of more blocks may take longer to scan than half a millisecond.
const SMALL_TABLE_BLOCKS: u32 = 32;

/// Whether the plan may run on the session's task, where others would wait for it: moving them away costs two switches of threads.
fn is_short(session: &SessionContext, plan: &PlannedStmt) -> bool {
    let small = |table: &RelId| session.engine.ctx().pool.n_blocks(*table, Fork::Main).is_ok_and(|n| n.get() <= SMALL_TABLE_BLOCKS);
    plan.short.as_ref().is_some_and(|tables| tables.iter().all(small))
}

/// The plan, made anew if what it was made under has changed; its relations are locked.
fn current_plan(session: &mut SessionContext, prepared: &Arc<Prepared>, cell: &PlanCell) -> Result<Arc<PlannedStmt>, SqlError> {
    session.transaction()?.begin_query()?;
    for _ in 0..10 {
        let version = cell.0.load_full();
        if version.is_current(session) {
            lock_relations(session, &version.plan)?;
            // Somebody may have changed a relation while we waited for its lock.
            if version.is_current(session) {
                return Ok(version.plan.clone());
            }
        }
        let again = session.front_end.prepare(session, &prepared.statement, &prepared.param_types)?;
        let Body::Plan(new) = &again.body else { return Err(SqlError::internal("statement changed its kind")) };
        let types = |c: &Option<Vec<ColumnDesc>>| c.as_ref().map(|c| c.iter().map(|c| (c.type_oid, c.name.clone())).collect::<Vec<_>>());
        if types(&again.columns) != types(&prepared.columns) {
            return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "cached plan must not change result type"));
        }
        cell.0.store(new.0.load_full());
    }
    Err(SqlError::internal("the catalogs changed again and again while the statement was planned"))
}

fn lock_relations(session: &mut SessionContext, plan: &PlannedStmt) -> Result<(), SqlError> {
    for (oid, how) in &plan.relations {
        let mode = match how {
            RelationUse::Read => LockMode::AccessShare,
            RelationUse::LockRows => LockMode::RowShare,
            RelationUse::Change => LockMode::RowExclusive,
        };
        lock_relation(session, *oid, mode)?;
    }
    Ok(())
}

/// Locks a relation for a statement that reads or changes its rows; false if it was locked so already.
///
/// # Errors
/// The lock cannot be had.
pub fn lock_relation(session: &mut SessionContext, oid: Oid, mode: LockMode) -> Result<bool, SqlError> {
    // System catalogs are only read here, and what changes them does not wait for readers.
    if oid < crate::sql::catalog::relation::FIRST_NORMAL_OID {
        return Ok(false);
    }
    let tag = LockTag::Relation { db: session.database, rel: oid };
    let t = session.transaction()?;
    if t.holds(&tag, mode) {
        return Ok(false);
    }
    Ok(t.lock(tag, mode, WaitPolicy::Block)?)
}

/// `25006` if the transaction may not write and the plan changes, or locks rows of, what is no temporary table. PostgreSQL:
/// `ExecCheckXactReadOnly`.
fn check_read_only(session: &mut SessionContext, plan: &PlannedStmt) -> Result<(), SqlError> {
    if !session.transaction()?.is_read_only() {
        return Ok(());
    }
    for (oid, _) in plan.relations.iter().filter(|(_, usage)| *usage != RelationUse::Read) {
        if session.catalog.relation(*oid)?.is_some_and(|r| r.persistence == Persistence::Temporary) {
            continue;
        }
        let word = match plan.command {
            Command::Insert => "INSERT",
            Command::Update => "UPDATE",
            Command::Delete => "DELETE",
            Command::Merge => "MERGE",
            Command::Select => locking_word(&plan.root).unwrap_or("SELECT"),
        };
        return session.check_writable(word);
    }
    Ok(())
}

/// What a SELECT that locks rows is called.
fn locking_word(node: &PlanNode) -> Option<&'static str> {
    if let PlanOp::LockRows(_, marks) = &node.op {
        return marks.first().map(|mark| match mark.strength {
            LockStrength::KeyShare => "SELECT FOR KEY SHARE",
            LockStrength::Share => "SELECT FOR SHARE",
            LockStrength::NoKeyUpdate => "SELECT FOR NO KEY UPDATE",
            LockStrength::Update => "SELECT FOR UPDATE",
        });
    }
    explain::children(node).into_iter().find_map(locking_word)
}

fn start(session: &mut SessionContext, plan: &Arc<PlannedStmt>, params: Arc<[Datum]>, measure: bool) -> Result<Running, SqlError> {
    privileges::check(session, plan)?;
    check_read_only(session, plan)?;
    let engine = session.engine.clone();
    let t = session.transaction()?;
    t.command_counter_increment()?;
    let snapshot = t.snapshot()?;
    if plan.modifies {
        // What functions do that it calls are later commands, so that it can tell their changes from its own.
        t.write_cid();
    }
    let mut state = ExecState::new(plan, &engine, snapshot, params);
    if measure {
        state.stats = Some(vec![NodeStats::default(); plan.nodes]);
    }
    let node = node::build_as(&plan.root, &mut Exec { session, state: &mut state }, true)?;
    Ok(Running { state, node, sent: 0 })
}

impl Running {
    /// Sends up to `max_rows` rows (0: all); true at the end.
    fn pull(&mut self, session: &mut SessionContext, max_rows: u64, sink: &mut dyn RowSink) -> Result<bool, SqlError> {
        let mut x = Exec { session, state: &mut self.state };
        let mut row = Row::new();
        let mut sent = 0u64;
        while max_rows == 0 || sent < max_rows {
            if !self.node.next(&mut x, &mut row)? {
                // Changes in WITH run to their end, read or not.
                let stmt = x.state.plan()?.clone();
                for (n, cte) in stmt.ctes.iter().enumerate() {
                    if cte.modifies && x.state.ctes.get(n).is_some_and(|c| !c.done) {
                        super::set::pull_cte(&mut x, n)?;
                    }
                }
                if stmt.modifies {
                    x.session.transaction()?.command_counter_increment()?;
                    let events = std::mem::take(&mut x.state.foreign);
                    if !events.is_empty() {
                        super::referential::after_statement(x.session, events)?;
                    }
                }
                return Ok(true);
            }
            super::large::unpack_row(x.session.engine.ctx(), &mut row)?;
            sink.row(&row)?;
            sent += 1;
            self.sent += 1;
        }
        Ok(false)
    }

    fn tag(&self) -> Result<String, SqlError> {
        let changed = self.state.processed;
        Ok(match self.state.plan()?.command {
            Command::Select => format!("SELECT {}", self.sent),
            Command::Insert => format!("INSERT 0 {changed}"),
            Command::Update => format!("UPDATE {changed}"),
            Command::Delete => format!("DELETE {changed}"),
            Command::Merge => format!("MERGE {changed}"),
        })
    }
}

fn explain_lines(session: &mut SessionContext, e: &Explain, params: &Arc<[Datum]>) -> Result<Vec<String>, SqlError> {
    let Some(plan) = &e.plan else {
        let line = if e.json { "[\n  \"Utility Statement\"\n]" } else { "Utility statements have no plan structure" };
        return Ok(vec![line.to_owned()]);
    };
    let mut state = None;
    let mut spent = None;
    if e.analyze {
        lock_relations(session, plan)?;
        let mut running = start(session, plan, params.clone(), true)?;
        let begin = std::time::Instant::now();
        crate::txn::blocking(|| running.pull(session, 0, &mut super::sink::Discard))?;
        spent = Some(begin.elapsed());
        state = Some(running.state);
    }
    if e.json {
        return Ok(vec![explain::to_json(e, plan, state.as_ref(), spent)]);
    }
    Ok(explain::text(e, plan, state.as_ref(), spent))
}
