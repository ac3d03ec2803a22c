//! The storage engine put together: WAL, pages, transactions, opened from a data directory.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use afterimage_wal::{
    Lsn, Oid, RecordBuilder, StartId, SystemId, TimelineId, Wal, WalEnd, WalError, WalOptions, WalReader, Xid,
    control_file::{ClusterState, ControlFile, Parameters},
    disk::{Disk, RealDisk, durable_replace},
    history::History,
    lineage::Lineage,
    reader::FollowLimit,
    rmgr,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub use crate::control::checkpoint::{CheckpointRequest, CheckpointSettings};
use crate::{
    access::AccessCtx,
    control::{
        background_writer::BackgroundWriter,
        checkpoint::{CheckpointEnv, Checkpointer, RestartPoints, Retention},
        control_store::ControlStore,
        error::ControlError,
        failpoint,
        node_state::{Event, NodeState, State},
        oids::OidCounter,
    },
    recovery::{
        Ending, Progress, RecoveryError, Replay,
        dispatch::{Dispatcher, EndOfRecovery, OverwrittenRecord},
        replay::{Consistency, Redo, ReplaySettings, Step},
        restore::{self, Commands},
        start::{self, Mode, Promotion, RecoveryOptions, Start},
        target::RestorePoint,
    },
    storage::{
        BufferPool, Files, PoolOptions, StorageError,
        critical::stop_node,
        database::PG_VERSION,
        double_write::{DoubleWrite, REGION_SLOTS},
        unlogged,
    },
    txn::{LockManager, Transactions, TransactionsStart, TxnError},
};

/// Failures of the engine as a whole.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Pages or files.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// WAL.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// Transactions.
    #[error(transparent)]
    Txn(#[from] TxnError),
    /// Checkpoints and the control file.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Recovery.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The directory is not a data directory of ours, or not one that can be opened.
    #[error("{what}")]
    DataDirectory {
        /// What is wrong.
        what: String,
    },
    /// Recovery came to its end before its target.
    #[error("recovery ended before configured recovery target was reached")]
    TargetNotReached,
    /// The request does not fit what the node is doing.
    #[error("{what}")]
    WrongState {
        /// State it is in.
        state: State,
        /// Why not.
        what: &'static str,
    },
}

/// How to lay a new data directory.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Size of WAL segments.
    pub segment_bytes: u32,
    /// Page cache of the bootstrap.
    pub pool: PoolOptions,
    /// Slots in each of the eight regions of the double-write area.
    pub area_slots: usize,
    /// The disk.
    pub disk: Arc<dyn Disk>,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            segment_bytes: afterimage_wal::format::SEGMENT_DEFAULT_BYTES,
            pool: PoolOptions::default(),
            area_slots: REGION_SLOTS,
            disk: RealDisk::shared(),
        }
    }
}

/// How to open a data directory.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Page cache.
    pub pool: PoolOptions,
    /// Slots in each of the eight regions of the double-write area.
    pub area_slots: usize,
    /// WAL; the segment size is taken from the control file.
    pub wal: WalOptions,
    /// Checkpoints.
    pub checkpoint: CheckpointSettings,
    /// How often a long recovery tells how far it is (`log_startup_progress_interval`); `None`: never.
    pub startup_progress: Option<Duration>,
    /// The node's state, if somebody wants to watch it from before the engine exists.
    pub node: Arc<NodeState>,
    /// What recovery is to do.
    pub recovery: RecoveryOptions,
    /// No WAL is recycled before somebody has said what else needs it: [`Engine::add_wal_retention`].
    pub hold_wal: bool,
    /// Settings that standbys depend on; `None`: as the control file has them.
    pub parameters: Option<Parameters>,
    /// Below which temporary files lie; `None`: in the data directory.
    pub temp_root: Option<PathBuf>,
    /// The disk.
    pub disk: Arc<dyn Disk>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            pool: PoolOptions::default(),
            area_slots: REGION_SLOTS,
            wal: WalOptions::default(),
            checkpoint: CheckpointSettings::default(),
            startup_progress: Some(Duration::from_secs(10)),
            node: Arc::new(NodeState::default()),
            recovery: RecoveryOptions::default(),
            hold_wal: false,
            parameters: None,
            temp_root: None,
            disk: RealDisk::shared(),
        }
    }
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// With a checkpoint: the next start has nothing to redo.
    Fast,
    /// As it is: the next start recovers.
    Immediate,
}

/// A base backup in progress. WAL from its redo point on stays while this lives.
#[derive(Clone, Debug)]
pub struct BackupStart {
    /// Start of the checkpoint's record.
    pub checkpoint_lsn: Lsn,
    /// Where recovery of the backup begins.
    pub redo_lsn: Lsn,
    /// Timeline of the checkpoint.
    pub tli: TimelineId,
    hold: Arc<Lsn>,
}

/// Version of the system catalogs' layout; a directory with another one is refused.
pub const CATALOG_VERSION: u32 = 202_601_014;
/// Directories of a data directory, PostgreSQL's.
const DIRECTORIES: [&str; 22] = [
    "global",
    "base",
    "pg_wal",
    "pg_wal/archive_status",
    "pg_xact",
    "pg_tblspc",
    "pg_replslot",
    "pg_twophase",
    "pg_stat",
    "pg_stat_tmp",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_logical/snapshots",
    "pg_logical/mappings",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_notify",
    "pg_serial",
    "pg_snapshots",
    "pg_subtrans",
];

/// The running engine.
#[derive(Debug)]
pub struct Engine {
    data_dir: PathBuf,
    /// Below which temporary files lie.
    temp_root: PathBuf,
    disk: Arc<dyn Disk>,
    ctx: AccessCtx,
    node: Arc<NodeState>,
    control: Arc<ControlStore>,
    oids: Arc<OidCounter>,
    progress: Arc<Progress>,
    checkpointer: Arc<Checkpointer>,
    background_writer: BackgroundWriter,
    dispatcher: Dispatcher,
    /// Rank 3: promotion, following and shutdown, one at a time. Held as long as they take.
    transition: Mutex<()>,
    /// `Some` on a standby. Leaf: whoever only wants to know does not wait for a promotion.
    replay: Mutex<Option<Arc<Replay>>>,
    /// Leaf.
    history: Arc<RwLock<Arc<History>>>,
    /// The history recovery follows: the current one, or one that goes on from it. Leaf.
    goal: RwLock<Arc<History>>,
    /// What recovery was told to do. Leaf.
    recovery: Arc<RwLock<RecoveryOptions>>,
    /// Settings that standbys depend on; `None`: those of the control file.
    parameters: Option<Parameters>,
    /// There was a recovery signal and no standby signal: recovery ends where the archive does.
    archive_only: AtomicBool,
    /// Backups in progress. Leaf.
    backups: Arc<Mutex<Vec<Weak<Lsn>>>>,
    /// Nobody has said yet what WAL is needed besides recovery's. Release when somebody has, Acquire in checkpoints.
    wal_held: Arc<AtomicBool>,
}

fn draw_system_id() -> SystemId {
    // As PostgreSQL's: seconds, then microseconds, then bits of the process id.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let low = u64::from(now.subsec_micros()) << 12 | u64::from(std::process::id() & 0xfff);
    SystemId::new(now.as_secs() << 32 | low)
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// What both `create` and `open` put together.
/// What [`Engine::write_first_records`] has logged.
struct Begun {
    tli: TimelineId,
    /// End of what recovery's end needs.
    end: Lsn,
    recovered: bool,
    /// If they changed.
    parameters: Option<Parameters>,
}

struct Parts {
    data_dir: PathBuf,
    temp_root: Option<PathBuf>,
    disk: Arc<dyn Disk>,
    wal: Arc<Wal>,
    files: Arc<Files>,
    control: Arc<ControlStore>,
    node: Arc<NodeState>,
    history: History,
    goal: History,
    recovery: RecoveryOptions,
    parameters: Option<Parameters>,
    pool: PoolOptions,
    area_slots: usize,
    checkpoint: CheckpointSettings,
    next_xid: Xid,
    oldest_xid: Xid,
    next_oid: Oid,
    position: Lsn,
}

impl Engine {
    /// Lays a new, empty data directory in `dir` (which exists and is empty) and opens it as a primary, for the bootstrap.
    /// [`Self::shutdown`] afterwards makes it durable; before that it is not a database yet.
    ///
    /// # Errors
    /// I/O; the directory is then to be removed.
    pub fn create(dir: &Path, options: CreateOptions) -> Result<Arc<Self>, EngineError> {
        let disk = options.disk;
        let file_error = |path: &Path| {
            let path = path.display().to_string();
            move |source: io::Error| EngineError::from(ControlError::File { path, source })
        };
        for name in DIRECTORIES {
            let path = dir.join(name);
            disk.create_dir(&path).map_err(file_error(&path))?;
        }
        let version = dir.join("PG_VERSION");
        durable_replace(disk.as_ref(), &version, PG_VERSION.as_bytes()).map_err(file_error(&version))?;
        let system_id = draw_system_id();
        let wal_options = WalOptions { segment_bytes: options.segment_bytes, ..WalOptions::default() };
        let wal = Wal::create(Arc::clone(&disk), &dir.join("pg_wal"), system_id, wal_options)?;
        let mut file = ControlFile::new(system_id, CATALOG_VERSION, options.segment_bytes);
        file.push_start(wal.start_id());
        let control = Arc::new(ControlStore::create(Arc::clone(&disk), dir, file)?);
        let end = wal.inserted();
        let engine = Self::assemble(Parts {
            data_dir: dir.to_owned(),
            temp_root: None,
            files: Arc::new(Files::new(Arc::clone(&disk), dir)),
            disk,
            wal,
            control,
            node: Arc::new(NodeState::default()),
            history: History::first(),
            goal: History::first(),
            recovery: RecoveryOptions::default(),
            parameters: None,
            pool: options.pool,
            area_slots: options.area_slots,
            checkpoint: CheckpointSettings { log: false, ..CheckpointSettings::default() },
            next_xid: Xid::FIRST_NORMAL,
            oldest_xid: Xid::FIRST_NORMAL,
            next_oid: crate::control::oids::FIRST_NORMAL,
            position: end,
        })?;
        engine.ctx.txns.end_recovery(end);
        engine.event(Event::BeginPrimary)?;
        engine.checkpointer.start()?;
        Ok(engine)
    }

    /// Opens a data directory: recovers it if it needs recovery; as a standby if there is `standby.signal`, whose replay then runs
    /// on its own thread. Blocks during crash recovery; `options.node` tells meanwhile.
    ///
    /// # Errors
    /// What refuses a start: `docs/recovery.md` has the list.
    pub fn open(dir: &Path, options: EngineOptions) -> Result<Arc<Self>, EngineError> {
        let node = Arc::clone(&options.node);
        let result = Self::open_inner(dir, options);
        if result.is_err() {
            // The caller learns why from the result; watchers only that it is over.
            let _told = node.apply(Event::Fail);
        }
        result
    }

    fn open_inner(dir: &Path, options: EngineOptions) -> Result<Arc<Self>, EngineError> {
        let control = Arc::new(ControlStore::open(Arc::clone(&options.disk), dir)?);
        let start = start::prepare(&options.disk, dir, &control, &options.wal, &options.recovery)?;
        let (mode, state, event) = match start.mode {
            Mode::Clean => (Mode::Clean, None, Event::BeginPrimary),
            Mode::Crash => (Mode::Crash, Some(ClusterState::InCrashRecovery), Event::BeginCrashRecovery),
            Mode::Archive => (Mode::Archive, Some(ClusterState::InArchiveRecovery), Event::BeginStandby),
            Mode::Standby => (Mode::Standby, Some(ClusterState::InArchiveRecovery), Event::BeginStandby),
        };
        if let Some(state) = state {
            control.update(|c| c.state = state)?;
        }
        let (asks_for_pages, hold_wal) = (options.recovery.asks_for_pages, options.hold_wal);
        let engine = Self::assemble(Parts {
            data_dir: dir.to_owned(),
            temp_root: options.temp_root,
            disk: Arc::clone(&options.disk),
            wal: Arc::clone(&start.wal),
            files: Arc::clone(&start.files),
            control,
            node: Arc::clone(&options.node),
            history: start.history.clone(),
            goal: start.goal.clone(),
            recovery: options.recovery,
            parameters: options.parameters,
            pool: options.pool,
            area_slots: options.area_slots,
            checkpoint: options.checkpoint,
            next_xid: start.checkpoint.next_xid,
            oldest_xid: start.checkpoint.oldest_xid,
            next_oid: start.checkpoint.next_oid,
            position: start.checkpoint.redo,
        })?;
        // Before the checkpointer starts: after a crash it makes a checkpoint at once.
        engine.wal_held.store(hold_wal, Ordering::Release);
        let kept = mode == Mode::Clean || start.stopped_in_recovery;
        engine.ctx.txns.table_stats().load(options.disk.as_ref(), dir, engine.wal().system_id(), kept);
        engine.ctx.txns.conflicts().load(options.disk.as_ref(), dir, engine.wal().system_id(), kept);
        match mode {
            Mode::Clean => {
                engine.progress.set(start.end.end);
                engine.begin_writing(&start, false)?;
                engine.event(event)?;
                engine.checkpointer.start()?;
            }
            Mode::Crash => {
                engine.event(event)?;
                tracing::info!("database system was not properly shut down; automatic recovery in progress");
                if start.given_up.is_some() {
                    engine.pool().missing().tolerate();
                }
                engine.redo_to_end(&start, options.startup_progress)?;
                if let Some(upto) = start.given_up {
                    engine.settle_given_up(start.end.end, upto)?;
                }
                engine.begin_writing(&start, true)?;
                engine.event(Event::Recovered)?;
                engine.checkpointer.start()?;
                // Not spread: killed again before it ends, the server would read all of this WAL again, and more each time.
                engine.checkpointer.request(CheckpointRequest { end_of_recovery: true, immediate: true, ..CheckpointRequest::default() });
            }
            Mode::Standby | Mode::Archive => {
                engine.event(event)?;
                engine.guard_min_recovery();
                if asks_for_pages {
                    engine.pool().expect_page_source();
                }
                engine.archive_only.store(mode == Mode::Archive, Ordering::Relaxed);
                tracing::info!("{}", engine.recovery_words(mode));
                tracing::info!("redo starts at {}", start.checkpoint.redo);
                engine.start_replay(start.checkpoint.redo, start.consistency.clone())?;
                engine.checkpointer.start()?;
            }
        }
        Ok(engine)
    }

    fn assemble(parts: Parts) -> Result<Arc<Self>, EngineError> {
        let area = DoubleWrite::open_sized(parts.disk.as_ref(), &parts.data_dir, parts.wal.system_id(), parts.area_slots)?;
        parts.wal.on_failure(Box::new(|error| stop_node(&error.to_string())));
        let pool = Arc::new(BufferPool::new(&parts.pool, Arc::clone(&parts.files), Arc::clone(&parts.wal), area));
        let txns = Transactions::new(TransactionsStart {
            dir: parts.data_dir.join("pg_xact"),
            disk: Arc::clone(&parts.disk),
            wal: Arc::clone(&parts.wal),
            next_xid: parts.next_xid,
            oldest_xid: parts.oldest_xid,
            position: parts.position,
        });
        txns.load_prepared(parts.position)?;
        let ctx = AccessCtx::new(Arc::clone(&pool), Arc::clone(&txns));
        let oids = Arc::new(OidCounter::new(parts.next_oid));
        let restart = Arc::new(RestartPoints::default());
        let progress = Arc::new(Progress::default());
        progress.set(parts.position);
        let env =
            CheckpointEnv { ctx: ctx.clone(), control: Arc::clone(&parts.control), oids: Arc::clone(&oids), restart: Arc::clone(&restart) };
        let checkpointer = Arc::new(Checkpointer::new(env, parts.checkpoint));
        let (weak_pool, weak_checkpointer) = (Arc::downgrade(&pool), Arc::downgrade(&checkpointer));
        txns.on_unlink(move |lsn, rels| {
            if let Some(pool) = weak_pool.upgrade() {
                for rel in rels {
                    if rel.is_database() {
                        pool.missing().forget_database(rel.spc, rel.db);
                    } else {
                        pool.missing().forget_relation(*rel);
                    }
                }
                pool.files().schedule_drop(rels, lsn);
            }
            if let Some(checkpointer) = weak_checkpointer.upgrade() {
                checkpointer.drops_are_pending();
            }
        });
        let recovery = Arc::new(RwLock::new(parts.recovery));
        let (commands, data_dir, segment_bytes) = (Arc::clone(&recovery), parts.data_dir.clone(), parts.wal.segment_bytes());
        checkpointer.after_restartpoint(Box::new(move |redo, tli| {
            let command = commands.read().commands.cleanup.clone();
            let restart = restore::restart_file(redo, tli, segment_bytes);
            if let Err(error) = restore::run_command(&data_dir, "archive_cleanup_command", &command, &restart) {
                tracing::warn!("{error}");
            }
        }));
        let backups: Arc<Mutex<Vec<Weak<Lsn>>>> = Arc::default();
        let held = Arc::clone(&backups);
        checkpointer.add_retention(Box::new(move || {
            let mut held = held.lock();
            held.retain(|b| b.strong_count() > 0);
            held.iter().filter_map(Weak::upgrade).map(|lsn| *lsn).min()
        }));
        let wal_held = Arc::new(AtomicBool::new(false));
        let held_at_first = Arc::clone(&wal_held);
        checkpointer.add_retention(Box::new(move || held_at_first.load(Ordering::Acquire).then_some(Lsn::INVALID)));
        let background_writer = BackgroundWriter::start(&pool)?;
        let dispatcher = Dispatcher { ctx: ctx.clone(), oids: Arc::clone(&oids), restart, progress: Arc::clone(&progress) };
        Ok(Arc::new(Self {
            temp_root: parts.temp_root.unwrap_or_else(|| parts.data_dir.clone()),
            data_dir: parts.data_dir,
            disk: parts.disk,
            ctx,
            node: parts.node,
            control: parts.control,
            oids,
            progress,
            checkpointer,
            background_writer,
            dispatcher,
            transition: Mutex::default(),
            replay: Mutex::new(None),
            history: Arc::new(RwLock::new(Arc::new(parts.history))),
            goal: RwLock::new(Arc::new(parts.goal)),
            recovery,
            parameters: parts.parameters,
            archive_only: AtomicBool::new(false),
            backups,
            wal_held,
        }))
    }

    fn event(&self, event: Event) -> Result<(), EngineError> {
        match self.node.apply(event) {
            Ok(_) => Ok(()),
            Err(state) => Err(EngineError::WrongState { state, what: "the database system is in a state that does not allow this" }),
        }
    }

    /// Crash recovery: everything from the redo point to the end.
    fn redo_to_end(&self, start: &Start, progress: Option<Duration>) -> Result<(), EngineError> {
        let end = start.end.end;
        self.progress.begin();
        let consistency = Consistency { min_recovery: start.consistency.min_recovery.max(end), ..start.consistency.clone() };
        let reader = WalReader::follow(Arc::clone(self.wal()), start.checkpoint.redo, FollowLimit::Confirmed);
        let (control, node, prefetch) = (Arc::clone(&self.control), Arc::clone(&self.node), self.recovery.read().replay.prefetch);
        let mut redo = Redo::new(self.dispatcher.clone(), control, node, reader, consistency, prefetch);
        tracing::info!("redo starts at {}", start.checkpoint.redo);
        let began = Instant::now();
        let mut told = began;
        let mut records = 0_u32;
        while redo.position() < end && matches!(redo.step()?, Step::Applied) {
            records = records.wrapping_add(1);
            if records.is_multiple_of(64)
                && let Some(interval) = progress
                && told.elapsed() >= interval
            {
                told = Instant::now();
                let at = redo.position();
                tracing::info!("redo in progress, elapsed time: {:.2} s, current LSN: {at}", began.elapsed().as_secs_f64());
            }
        }
        redo.publish();
        redo.check_start()?;
        tracing::info!("redo done at {} system usage: elapsed: {:.2} s", self.wal().last_record(), began.elapsed().as_secs_f64());
        if !redo.consistency().reached {
            let what = if redo.consistency().backup_start.is_some() {
                "WAL ends before end of online backup"
            } else {
                "WAL ends before consistent recovery point"
            };
            return Err(RecoveryError::Inconsistent { what, end: redo.position(), needed: redo.consistency().min_recovery }.into());
        }
        Ok(())
    }

    /// WAL from `end` up to at least `upto` was durable and is given up: pages written meanwhile are taken as they are, as of `end`, and the
    /// xids that may be on them are never given again.
    fn settle_given_up(&self, end: Lsn, upto: Lsn) -> Result<(), EngineError> {
        /// The least WAL a transaction that wrote something takes.
        const BYTES_PER_XID: u64 = 32;
        /// For what was inserted behind the last position known to be durable.
        const SPARE_XIDS: u64 = 1 << 20;
        let xids = upto.bytes_since(end).unwrap_or(0) / BYTES_PER_XID + SPARE_XIDS;
        let next = self.ctx.txns.next_xid().as_u64().saturating_add(xids);
        self.ctx.txns.note_writer_restart(Xid::from_u64(next));
        let pages = self.ctx.pool.forget_after(end)?;
        tracing::warn!(
            hint = "Indexes and tables may disagree: check with bt_index_check or \"afterimage verify\", dump what is needed, and make the cluster anew.",
            "{pages} pages hold changes of the WAL that was given up"
        );
        Ok(())
    }

    /// Draws a start id and begins writing; after a crash or promotion with a record that says so, durable before anything else.
    fn begin_writing(&self, start: &Start, recovered: bool) -> Result<(), EngineError> {
        let from = start.promotion.map_or(start.end.tli, |p| p.from);
        let begun = self.write_first_records(from, recovered, start.torn)?;
        self.note_production(&begun)?;
        self.ctx.txns.end_recovery(begun.end);
        if start.promotion.is_some() {
            Promotion::clear(self.disk.as_ref(), &self.data_dir)?;
        }
        Ok(())
    }

    /// What a writer logs first; after a recovery durable.
    fn write_first_records(&self, prev_tli: TimelineId, recovered: bool, torn: Option<Lsn>) -> Result<Begun, EngineError> {
        let wal = self.wal();
        let (start_id, tli) = (StartId::draw(), wal.tli());
        self.control.update(|c| {
            // Known before the first mark written under it.
            c.push_start(start_id);
        })?;
        failpoint::pass("promotion: start id");
        let mut end = wal.begin_writing(start_id)?.end;
        if let Some(at) = torn {
            let mut record = RecordBuilder::new(rmgr::XLOG, rmgr::xlog::OVERWRITE_CONTRECORD, Xid::INVALID);
            record.main(&OverwrittenRecord { at, time: crate::recovery::target::now() }.encode());
            end = wal.insert(&record)?.end;
        }
        if recovered {
            unlogged::reset(&self.ctx.pool)?;
            let eor = EndOfRecovery { tli, prev_tli, time: unix_seconds(), next_xid: self.ctx.txns.next_xid() };
            let mut record = RecordBuilder::new(rmgr::XLOG, rmgr::xlog::END_OF_RECOVERY, Xid::INVALID);
            record.main(&eor.encode()).carry_flushed_mark();
            end = wal.insert(&record)?.end;
            wal.flush(end)?;
            failpoint::pass("promotion: first records");
        }
        let parameters = self.parameters.filter(|p| *p != self.control.get().parameters);
        if let Some(parameters) = parameters {
            let mut record = RecordBuilder::new(rmgr::XLOG, rmgr::xlog::PARAMETER_CHANGE, Xid::INVALID);
            record.main(&parameters.encode());
            let logged = wal.insert(&record)?.end;
            // Before the control file says so: standbys must learn of it.
            wal.flush(logged)?;
        }
        Ok(Begun { tli, end, recovered, parameters })
    }

    /// The control file says that the node is in production, and no longer guards what is written to pages.
    fn note_production(&self, begun: &Begun) -> Result<(), EngineError> {
        self.control.update(|c| {
            c.state = ClusterState::InProduction;
            c.ahead_from = Lsn::INVALID;
            if let Some(parameters) = begun.parameters {
                c.parameters = parameters;
            }
            // Until the checkpoint that follows this is what says which timeline is ours.
            if begun.recovered && c.checkpoint_copy.redo < begun.end {
                c.min_recovery_point = begun.end;
                c.min_recovery_tli = begun.tli;
            }
        })?;
        self.ctx.pool.set_write_gate(None);
        Ok(())
    }

    /// On a standby no page is written before the control file covers its LSNs.
    fn guard_min_recovery(&self) {
        let (control, progress, history) = (Arc::clone(&self.control), Arc::clone(&self.progress), Arc::clone(&self.history));
        let covered = AtomicU64::new(control.get().min_recovery_point.as_u64());
        self.ctx.pool.set_write_gate(Some(Box::new(move |newest: Lsn| {
            if newest.as_u64() <= covered.load(Ordering::Relaxed) {
                return Ok(());
            }
            // As far as replay is: then the next batches need no write of their own.
            let upto = newest.max(progress.replayed());
            let tli = history.read().tli_of_end(upto);
            control.update(|c| {
                if c.min_recovery_point < upto {
                    c.min_recovery_point = upto;
                    c.min_recovery_tli = tli;
                }
            })?;
            covered.fetch_max(upto.as_u64(), Ordering::Relaxed);
            Ok(())
        })));
    }

    fn start_replay(&self, from: Lsn, consistency: Consistency) -> Result<(), EngineError> {
        self.progress.begin();
        let replay = self.new_replay(from, consistency)?;
        *self.replay.lock() = Some(replay);
        Ok(())
    }

    fn new_replay(&self, from: Lsn, consistency: Consistency) -> Result<Arc<Replay>, EngineError> {
        let recovery = self.recovery.read();
        let plan = (recovery.goal.clone(), recovery.replay);
        let replay = Replay::start(self.dispatcher.clone(), Arc::clone(&self.control), Arc::clone(&self.node), from, consistency, plan)?;
        Ok(Arc::new(replay))
    }

    /// Our WAL as segment files, to be compared with another node's.
    pub fn lineage<'a>(&'a self, history: &'a History, wal_dir: &'a Path) -> Lineage<'a> {
        let wal = self.wal();
        Lineage { disk: Arc::clone(&self.disk), dir: wal_dir, system_id: wal.system_id(), segment_bytes: wal.segment_bytes(), history }
    }

    /// A standby is about to receive WAL ahead of its upstream's sync: it is held back from replay until confirmed, after a restart too.
    ///
    /// # Errors
    /// I/O of the control file.
    pub fn receive_ahead(&self) -> Result<(), EngineError> {
        let confirmed = self.wal().confirmed();
        if self.control.get().ahead_from < confirmed {
            // Before the first such byte is here.
            self.control.update(|c| c.ahead_from = confirmed)?;
        }
        self.wal().hold();
        Ok(())
    }

    /// Cuts a standby's WAL back to `common`, the end of a record: what lies behind is no longer part of its upstream's history. False, and
    /// nothing done, if it was replayed already: then pages know of it.
    ///
    /// # Errors
    /// [`EngineError::WrongState`] on a primary; `common` is not the end of a record here; I/O.
    pub fn discard_wal_after(&self, common: Lsn) -> Result<bool, EngineError> {
        let _one_at_a_time = self.transition.lock();
        let running = self.replay().ok_or(EngineError::WrongState { state: self.node.get(), what: "recovery is not in progress" })?;
        let paused = running.is_paused();
        let consistency = running.stop()?.unwrap_or_default().consistency;
        let from = self.progress.replayed();
        let unapplied = from <= common && self.control.get().min_recovery_point <= common;
        let outcome = if unapplied {
            if self.control.get().ahead_from > common {
                self.control.update(|c| c.ahead_from = common)?;
            }
            let (history, wal_dir) = (self.history(), self.data_dir.join("pg_wal"));
            self.lineage(&history, &wal_dir).end_at(common).and_then(|end| self.wal().discard_after(end)).map(|()| true)
        } else {
            Ok(false)
        };
        let again = self.new_replay(from, consistency)?;
        if paused {
            again.pause();
        }
        *self.replay.lock() = Some(again);
        Ok(outcome?)
    }

    /// Stops checkpointer and replay; with [`ShutdownMode::Fast`] writes the shutdown checkpoint (a restartpoint on a standby). Sessions
    /// are gone by now. The WAL takes no more records but can be read until the engine is dropped.
    ///
    /// # Errors
    /// I/O of the checkpoint; the next start recovers then.
    pub fn shutdown(&self, mode: ShutdownMode) -> Result<(), EngineError> {
        self.event(Event::Shutdown)?;
        self.background_writer.stop();
        self.checkpointer.stop();
        {
            let _one_at_a_time = self.transition.lock();
            if let Some(replay) = self.replay() {
                replay.stop()?;
            }
        }
        if mode == ShutdownMode::Fast {
            self.checkpointer.shutdown_checkpoint()?;
            self.wal().close()?;
            let (disk, system) = (self.disk.as_ref(), self.wal().system_id());
            let kept = self.ctx.txns.table_stats().save(disk, &self.data_dir, system);
            if let Err(e) = kept.and_then(|()| self.ctx.txns.conflicts().save(disk, &self.data_dir, system)) {
                tracing::warn!("could not write statistics file: {e}");
            }
        }
        self.ctx.txns.stop();
        self.event(Event::ShutdownDone)?;
        tracing::info!("database system is shut down");
        Ok(())
    }

    /// Makes a standby the primary of a new timeline: applies all WAL that was received, confirmed or not, whoever receives having stopped. Returns the
    /// timeline. A crash before the signal file is gone leaves the standby, after it the new primary.
    ///
    /// # Errors
    /// [`EngineError::WrongState`] on a primary or before consistency. Later failures stop the node.
    pub fn promote(&self) -> Result<TimelineId, EngineError> {
        let _one_at_a_time = self.transition.lock();
        let running = self.replay().ok_or(EngineError::WrongState { state: self.node.get(), what: "recovery is not in progress" })?;
        let wal = Arc::clone(self.wal());
        wal.drop_incomplete();
        wal.flush(wal.published())?;
        let mut finished = running.finish()?.unwrap_or_default();
        if finished.consistency.reached && finished.reached.is_none() && wal.held_from().is_some() {
            // A commit that was acknowledged because it is durable here may lie behind what the old primary confirmed.
            tracing::info!("applying WAL from {} to {}, which the primary has not confirmed", wal.confirmed(), wal.flushed());
            wal.release()?;
            let rest = self.new_replay(self.progress.replayed(), finished.consistency)?;
            finished = rest.finish()?.unwrap_or_default();
        }
        if !finished.consistency.reached {
            drop(running);
            let again = self.new_replay(self.progress.replayed(), finished.consistency)?;
            *self.replay.lock() = Some(again);
            let what = "the standby has not reached a consistent state";
            return Err(EngineError::WrongState { state: self.node.get(), what });
        }
        let recovery = self.recovery.read().clone();
        if recovery.goal.target.is_some() && finished.reached.is_none() {
            return Err(EngineError::TargetNotReached);
        }
        failpoint::pass("promotion: replayed");
        self.event(Event::Promote)?;
        let wal_dir = self.data_dir.join("pg_wal");
        let prepared = (|| -> Result<(Promotion, String), EngineError> {
            let reason = match finished.reached {
                Some(reached) => {
                    self.end_wal_at(reached.end)?;
                    reached.stop.reason
                }
                None => "no recovery target specified".to_owned(),
            };
            let end = self.progress.replayed();
            tracing::info!("redo done at {}", wal.last_record());
            if let Some(time) = self.progress.last_commit_time() {
                tracing::info!("last completed transaction was at log time {}", crate::recovery::target::time_text(time));
            }
            let from = wal.tli();
            let mut to = History::newest(self.disk.as_ref(), &wal_dir, from)?.next();
            if !recovery.commands.restore.is_empty() {
                // Its lines begin the new timeline's file: the archive's copy is the one others know.
                if from > TimelineId::FIRST {
                    restore::fetch_history(&self.data_dir, &recovery.commands, from)?;
                }
                while restore::has_history(&self.data_dir, &recovery.commands, to)? {
                    to = to.next();
                }
            }
            tracing::info!("selected new timeline ID: {to}");
            let promotion = Promotion { from, to, at: end };
            promotion.write(self.disk.as_ref(), &self.data_dir)?;
            failpoint::pass("promotion: noted");
            let child = self.history().child(to, end, &reason, wal.start_id());
            child.write(self.disk.as_ref(), &wal_dir)?;
            failpoint::pass("promotion: history");
            *self.goal.write() = Arc::new(child.clone());
            *self.history.write() = Arc::new(child);
            Ok((promotion, reason))
        })();
        let promotion = match prepared {
            Ok((promotion, _)) => promotion,
            // The next start undoes what was begun.
            Err(error @ EngineError::Recovery(RecoveryError::Restore { .. })) => return Err(error),
            Err(error) => stop_node(&format!("promotion failed, the standby restarts: {error}")),
        };
        // From here a failure stops the node: what it comes up as is decided by the signal file.
        let rest = (|| -> Result<Result<(), EngineError>, EngineError> {
            wal.start_timeline(promotion.to, promotion.at)?;
            failpoint::pass("promotion: segment");
            start::remove(self.disk.as_ref(), &self.data_dir, start::RECOVERY_SIGNAL)?;
            failpoint::pass("promotion: before the point of no return");
            // The point of no return.
            start::remove(self.disk.as_ref(), &self.data_dir, start::STANDBY_SIGNAL)?;
            failpoint::pass("promotion: after the point of no return");
            tracing::info!("archive recovery complete");
            if let Err(error) = restore::run_command(&self.data_dir, "recovery_end_command", &recovery.commands.end, &self.restart_file()) {
                return Ok(Err(error.into()));
            }
            failpoint::pass("promotion: end command");
            for leftover in [restore::RESTORED_SEGMENT, restore::RESTORED_HISTORY] {
                start::remove(self.disk.as_ref(), &self.data_dir, leftover)?;
            }
            let begun = self.write_first_records(promotion.from, true, None)?;
            // Sessions may write before the control file says so: who saw it say so need not wait (pg_ctl promote -w). After a crash in between the
            // note of the promotion leads recovery to the end of the new timeline, as after a crash before.
            self.ctx.txns.end_recovery(begun.end);
            *self.replay.lock() = None;
            let promoted = self.event(Event::Promoted);
            failpoint::pass("promotion: writable");
            self.note_production(&begun)?;
            failpoint::pass("promotion: in production");
            Promotion::clear(self.disk.as_ref(), &self.data_dir)?;
            failpoint::pass("promotion: cleared");
            Ok(promoted)
        })();
        match rest {
            // Told to stop meanwhile, or a command that was killed: the next start completes it.
            Ok(promoted) => promoted?,
            Err(error) => stop_node(&format!("promotion failed: {error}")),
        }
        failpoint::pass("promotion: done");
        self.checkpointer.request(CheckpointRequest { force: true, ..CheckpointRequest::default() });
        Ok(promotion.to)
    }

    /// The WAL is to end where recovery did, though more of it may be here, even of later timelines.
    fn end_wal_at(&self, end: WalEnd) -> Result<(), EngineError> {
        if end.end == self.wal().published() {
            return Ok(());
        }
        let history = self.history();
        let tli = history.tli_of_end(end.end);
        self.wal().discard_after(WalEnd { tli, ..end })?;
        if let Some(shorter) = history.up_to(tli) {
            *self.history.write() = Arc::new(shorter);
        }
        Ok(())
    }

    fn recovery_words(&self, mode: Mode) -> String {
        use crate::recovery::target::Target;
        if mode == Mode::Standby {
            return "entering standby mode".to_owned();
        }
        match &self.recovery.read().goal.target {
            None => "starting archive recovery".to_owned(),
            Some(Target::Immediate) => "starting point-in-time recovery to earliest consistent point".to_owned(),
            Some(Target::Xid(xid)) => format!("starting point-in-time recovery to XID {xid}"),
            Some(Target::Time(time)) => {
                format!("starting point-in-time recovery to {}", crate::recovery::target::time_text(*time))
            }
            Some(Target::Name(name)) => format!("starting point-in-time recovery to \"{name}\""),
            Some(Target::Lsn(lsn)) => format!("starting point-in-time recovery to WAL location (LSN) \"{lsn}\""),
        }
    }

    /// Recovery ends where the archive does: a recovery signal, no standby signal.
    pub fn is_archive_recovery(&self) -> bool {
        self.archive_only.load(Ordering::Relaxed) && self.is_in_recovery()
    }

    /// How far recovery is, and what it read ahead.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// What recovery was told to do.
    pub fn recovery_options(&self) -> RecoveryOptions {
        self.recovery.read().clone()
    }

    /// Replaces what can change while recovery runs (SIGHUP).
    pub fn set_recovery_settings(&self, commands: Commands, settings: ReplaySettings) {
        {
            let mut recovery = self.recovery.write();
            recovery.commands = commands;
            recovery.replay = settings;
        }
        if let Some(replay) = self.replay() {
            replay.set_settings(settings);
        }
    }

    /// The history recovery follows: the current one, or one that goes on from it.
    pub fn goal(&self) -> Arc<History> {
        Arc::clone(&self.goal.read())
    }

    /// Follows another history from now on, which goes on from the current one.
    pub fn set_goal(&self, goal: History) {
        tracing::info!("new target timeline is {}", goal.tli());
        *self.goal.write() = Arc::new(goal);
    }

    /// Logs a named restore point; returns its end.
    ///
    /// # Errors
    /// If the WAL takes no records.
    pub fn create_restore_point(&self, name: &str) -> Result<Lsn, EngineError> {
        let mut record = RecordBuilder::new(rmgr::XLOG, rmgr::xlog::RESTORE_POINT, Xid::INVALID);
        record.main(&RestorePoint { time: crate::recovery::target::now(), name: name.to_owned() }.encode());
        let end = self.wal().insert(&record)?.end;
        tracing::info!("restore point \"{name}\" created at {end}");
        Ok(end)
    }

    /// Puts a message of no meaning to us into the WAL; returns its end. `xid` is the transaction it belongs to, if it is to.
    ///
    /// # Errors
    /// If the WAL takes no records.
    pub fn log_message(&self, xid: Option<Xid>, database: Oid, prefix: &str, message: &[u8]) -> Result<Lsn, EngineError> {
        let mut record = RecordBuilder::new(rmgr::LOGICAL_MESSAGE, 0, xid.unwrap_or(Xid::INVALID));
        let prefix_bytes = u32::try_from(prefix.len()).unwrap_or(u32::MAX);
        record.main(&[u8::from(xid.is_some()), 0, 0, 0]).main(&database.to_le_bytes()).main(&prefix_bytes.to_le_bytes());
        record.main(prefix.as_bytes()).main(message);
        Ok(self.wal().insert(&record)?.end)
    }

    /// A standby whose WAL has reached `switch_lsn` goes over to the child timeline that `history` leads to.
    ///
    /// # Errors
    /// If the WAL here does not end at `switch_lsn`; I/O.
    pub fn follow_timeline(&self, history: History, switch_lsn: Lsn) -> Result<(), EngineError> {
        let _one_at_a_time = self.transition.lock();
        if self.replay().is_none() {
            return Err(EngineError::WrongState { state: self.node.get(), what: "recovery is not in progress" });
        }
        self.wal().start_timeline(history.tli(), switch_lsn)?;
        // Part of the upstream's history, which has gone on from here.
        self.wal().confirm(switch_lsn)?;
        if !self.goal().contains(history.tli()) {
            self.set_goal(history.clone());
        }
        *self.history.write() = Arc::new(history);
        Ok(())
    }

    /// Makes a checkpoint (a restartpoint on a standby) and waits for it.
    ///
    /// # Errors
    /// If it failed, or the engine stops.
    pub fn checkpoint(&self, request: CheckpointRequest) -> Result<(), EngineError> {
        Ok(self.checkpointer.request_and_wait(request)?)
    }

    /// The checkpointer, for its counters and its door.
    pub fn checkpointer(&self) -> &Arc<Checkpointer> {
        &self.checkpointer
    }

    /// Replaces the checkpoint settings (SIGHUP).
    pub fn set_checkpoint_settings(&self, settings: CheckpointSettings) {
        self.checkpointer.set_settings(settings);
    }

    /// Adds a promise of WAL: nothing at or past the LSN it returns is recycled (slots, archiver, backups).
    pub fn add_wal_retention(&self, oldest_needed: Retention) {
        self.checkpointer.add_retention(oldest_needed);
        self.wal_held.store(false, Ordering::Release);
    }

    /// Begins a base backup: a checkpoint, and WAL from its redo point on is kept while the result lives. On a standby the last
    /// restartpoint is taken.
    ///
    /// # Errors
    /// If the checkpoint failed.
    pub fn backup_start(&self, fast: bool) -> Result<BackupStart, EngineError> {
        // Held before the checkpoint chooses its redo point, so that nothing slips away in between.
        let provisional = Arc::new(self.redo_lsn());
        self.backups.lock().push(Arc::downgrade(&provisional));
        self.checkpoint(CheckpointRequest { immediate: fast, force: true, ..CheckpointRequest::default() })?;
        let file = self.control.get();
        let hold = Arc::new(file.checkpoint_copy.redo);
        self.backups.lock().push(Arc::downgrade(&hold));
        Ok(BackupStart { checkpoint_lsn: file.checkpoint, redo_lsn: file.checkpoint_copy.redo, tli: file.checkpoint_copy.tli, hold })
    }

    /// Ends a base backup: up to where its WAL must be there, durable. Copy the control file after this.
    ///
    /// # Errors
    /// I/O.
    pub fn backup_stop(&self, start: &BackupStart) -> Result<(Lsn, TimelineId), EngineError> {
        if self.is_in_recovery() {
            // Pages were copied from memory: the copy is consistent only where replay is now.
            let at = self.replayed_lsn();
            let tli = self.history().tli_of_end(at);
            self.control.update(|c| {
                if c.min_recovery_point < at {
                    c.min_recovery_point = at;
                    c.min_recovery_tli = tli;
                }
            })?;
            let file = self.control.get();
            return Ok((file.min_recovery_point, file.min_recovery_tli));
        }
        let mut record = RecordBuilder::new(rmgr::XLOG, rmgr::xlog::BACKUP_END, Xid::INVALID);
        record.main(&start.hold.to_le_bytes());
        let end = self.wal().insert(&record)?.end;
        // The segment ends here, so that an archive gets all that the backup needs at once.
        let boundary = self.wal().switch_segment()?;
        self.wal().flush(boundary)?;
        Ok((end, self.wal().tli()))
    }

    /// Counters of checkpoints.
    pub fn checkpoint_stats(&self) -> &crate::control::checkpoint::CheckpointStats {
        self.checkpointer.stats()
    }

    /// What access functions get.
    pub fn ctx(&self) -> &AccessCtx {
        &self.ctx
    }

    /// Pages.
    pub fn pool(&self) -> &Arc<BufferPool> {
        &self.ctx.pool
    }

    /// Relation files.
    pub fn files(&self) -> &Arc<Files> {
        self.ctx.pool.files()
    }

    /// WAL.
    pub fn wal(&self) -> &Arc<Wal> {
        &self.ctx.wal
    }

    /// Transactions.
    pub fn txns(&self) -> &Arc<Transactions> {
        &self.ctx.txns
    }

    /// Heavyweight locks.
    pub fn locks(&self) -> &Arc<LockManager> {
        &self.ctx.locks
    }

    /// What the node is doing.
    pub fn node(&self) -> &Arc<NodeState> {
        &self.node
    }

    /// The disk.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Below which temporary files lie, as in the data directory.
    pub fn temp_root(&self) -> &Path {
        &self.temp_root
    }

    /// The control file as it is now.
    pub fn control_file(&self) -> ControlFile {
        self.control.get()
    }

    /// The cluster's identity.
    pub fn system_id(&self) -> SystemId {
        self.ctx.wal.system_id()
    }

    /// The history that leads to the current timeline.
    pub fn history(&self) -> Arc<History> {
        Arc::clone(&self.history.read())
    }

    /// Redo point of the last checkpoint or restartpoint: where a crash would begin.
    pub fn redo_lsn(&self) -> Lsn {
        self.control.get().checkpoint_copy.redo
    }

    /// Name of the segment that recovery would begin with now, on the timeline it was written on: `%r`.
    pub fn restart_file(&self) -> String {
        let checkpoint = self.control.get().checkpoint_copy;
        restore::restart_file(checkpoint.redo, checkpoint.tli, self.wal().segment_bytes())
    }

    /// `pg_is_in_recovery()`.
    pub fn is_in_recovery(&self) -> bool {
        self.node.get().in_recovery()
    }

    /// End of the last record applied to pages; on a primary, where its recovery ended.
    pub fn replayed_lsn(&self) -> Lsn {
        self.progress.replayed()
    }

    /// A receiver of how replay ended by itself.
    pub fn subscribe_ending(&self) -> watch::Receiver<Option<Ending>> {
        self.progress.subscribe_ending()
    }

    /// A receiver of the replayed position.
    pub fn subscribe_replayed(&self) -> watch::Receiver<Lsn> {
        self.progress.subscribe()
    }

    /// Commit time of the last transaction replayed, microseconds since 2000 (`pg_last_xact_replay_timestamp`).
    pub fn last_replayed_commit_time(&self) -> Option<i64> {
        self.progress.last_commit_time()
    }

    /// Replay of a standby: pause, resume. `None` on a primary.
    pub fn replay(&self) -> Option<Arc<Replay>> {
        self.replay.lock().as_ref().map(Arc::clone)
    }

    /// A new OID (also used as relfilenode): at least 16384, wraps as PostgreSQL's; the caller checks uniqueness.
    ///
    /// # Errors
    /// If the WAL takes no records.
    pub fn allocate_oid(&self) -> Result<Oid, EngineError> {
        Ok(self.oids.allocate(self.wal())?)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.background_writer.stop();
        self.checkpointer.stop();
        if let Some(replay) = self.replay.get_mut().take() {
            // A failure of replay has stopped the process already.
            drop(replay.stop());
        }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
