//! The storage engine put together: WAL, pages, transactions, opened from a data directory.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use afterimage_wal::{Lsn, Oid, SystemId, TimelineId, Wal, WalError, WalOptions, disk::{Disk, RealDisk}};

use crate::{
    access::AccessCtx,
    control::node_state::{NodeState, State},
    storage::{BufferPool, Files, PoolOptions, StorageError},
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
    /// The directory is not a data directory of ours, or not one that can be opened.
    #[error("{what}")]
    DataDirectory {
        /// What is wrong.
        what: String,
    },
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
    /// The disk.
    pub disk: Arc<dyn Disk>,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            segment_bytes: afterimage_wal::format::SEGMENT_DEFAULT_BYTES,
            pool: PoolOptions::default(),
            disk: RealDisk::shared(),
        }
    }
}

/// When and how checkpoints are made. Reloadable.
#[derive(Clone, Debug)]
pub struct CheckpointSettings {
    /// `checkpoint_timeout`.
    pub timeout: Duration,
    /// `max_wal_size`, bytes.
    pub max_wal_bytes: u64,
    /// `min_wal_size`, bytes.
    pub min_wal_bytes: u64,
    /// `wal_keep_size`, bytes.
    pub wal_keep_bytes: u64,
    /// `checkpoint_completion_target`.
    pub completion_target: f64,
    /// `checkpoint_warning`.
    pub warning: Duration,
    /// `log_checkpoints`.
    pub log: bool,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(300),
            max_wal_bytes: 1 << 30,
            min_wal_bytes: 80 << 20,
            wal_keep_bytes: 0,
            completion_target: 0.9,
            warning: Duration::from_secs(30),
            log: true,
        }
    }
}

/// How to open a data directory.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Page cache.
    pub pool: PoolOptions,
    /// WAL; the segment size is taken from the control file.
    pub wal: WalOptions,
    /// Checkpoints.
    pub checkpoint: CheckpointSettings,
    /// The node's state, if somebody wants to watch it from before the engine exists.
    pub node: Arc<NodeState>,
    /// The disk.
    pub disk: Arc<dyn Disk>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            pool: PoolOptions::default(),
            wal: WalOptions::default(),
            checkpoint: CheckpointSettings::default(),
            node: Arc::new(NodeState::default()),
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

/// How a requested checkpoint is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointRequest {
    /// As fast as possible, not spread.
    pub immediate: bool,
    /// Even if nothing happened since the last one.
    pub force: bool,
    /// Why, for the log: `time`, `wal` and so on are derived; this one is set at the end of recovery.
    pub end_of_recovery: bool,
}

/// The running engine.
#[derive(Debug)]
pub struct Engine {
    data_dir: PathBuf,
    ctx: AccessCtx,
    node: Arc<NodeState>,
}

impl Engine {
    /// Lays a new, empty data directory in `dir` (which exists and is empty) and opens it as a primary, for the bootstrap.
    /// [`Self::shutdown`] afterwards makes it durable.
    pub fn create(dir: &Path, options: CreateOptions) -> Result<Arc<Self>, EngineError> {
        let _unused = options;
        Err(EngineError::DataDirectory { what: format!("cannot create {}: not built yet", dir.display()) })
    }

    /// Opens a data directory: recovers it if it needs recovery; as a standby if there is `standby.signal`, whose replay then runs
    /// on its own thread. Blocks during crash recovery.
    pub fn open(dir: &Path, options: EngineOptions) -> Result<Arc<Self>, EngineError> {
        let _unused = options;
        Err(EngineError::DataDirectory { what: format!("cannot open {}: not built yet", dir.display()) })
    }

    /// Stops checkpointer and replay; with [`ShutdownMode::Fast`] writes the shutdown checkpoint. Sessions are gone by now.
    pub fn shutdown(&self, mode: ShutdownMode) -> Result<(), EngineError> {
        let _unused = mode;
        Ok(())
    }

    /// Makes a standby the primary of a new timeline. Returns it.
    pub fn promote(&self) -> Result<TimelineId, EngineError> {
        Err(EngineError::WrongState { state: self.node.get(), what: "recovery is not in progress" })
    }

    /// Makes a checkpoint (a restartpoint on a standby) and waits for it.
    pub fn checkpoint(&self, request: CheckpointRequest) -> Result<(), EngineError> {
        let _unused = request;
        Ok(())
    }

    /// Replaces the checkpoint settings (SIGHUP).
    pub fn set_checkpoint_settings(&self, settings: CheckpointSettings) {
        let _unused = settings;
    }

    /// Adds a promise of WAL: nothing at or past the LSN it returns is recycled (slots, archiver, backups).
    pub fn add_wal_retention(&self, oldest_needed: Box<dyn Fn() -> Option<Lsn> + Send + Sync>) {
        let _unused = oldest_needed;
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

    /// What the node is doing.
    pub fn node(&self) -> &Arc<NodeState> {
        &self.node
    }

    /// Data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The cluster's identity.
    pub fn system_id(&self) -> SystemId {
        self.ctx.wal.system_id()
    }

    /// `pg_is_in_recovery()`.
    pub fn is_in_recovery(&self) -> bool {
        self.node.get().in_recovery()
    }

    /// End of the last record applied to pages; on a primary, where its recovery ended.
    pub fn replayed_lsn(&self) -> Lsn {
        Lsn::INVALID
    }

    /// A new OID (also used as relfilenode): below 2^32, at least 16384, wraps as PostgreSQL's; the caller checks uniqueness.
    pub fn allocate_oid(&self) -> Result<Oid, EngineError> {
        Err(EngineError::WrongState { state: self.node.get(), what: "not built yet" })
    }

    /// Replayed LSN, whenever it moves.
    pub fn subscribe_replayed(&self) -> tokio::sync::watch::Receiver<Lsn> {
        tokio::sync::watch::Sender::new(Lsn::INVALID).subscribe()
    }

    /// History of the current timeline.
    pub fn history(&self) -> Arc<afterimage_wal::history::History> {
        Arc::new(afterimage_wal::history::History::first())
    }

    /// Redo point of the last checkpoint.
    pub fn redo_lsn(&self) -> Lsn {
        Lsn::INVALID
    }

    /// A standby goes over to the child timeline at the fork, where its WAL ends.
    ///
    /// # Errors
    /// The WAL's.
    pub fn follow_timeline(&self, history: afterimage_wal::history::History, switch_lsn: Lsn) -> Result<(), EngineError> {
        let _unused = (history, switch_lsn);
        Err(EngineError::DataDirectory { what: "the engine is not open".to_owned() })
    }

    /// Begins a base backup: a checkpoint, and where recovery of the copy starts.
    ///
    /// # Errors
    /// The checkpoint's.
    pub fn backup_start(&self, fast: bool) -> Result<BackupStart, EngineError> {
        let _unused = fast;
        Err(EngineError::DataDirectory { what: "the engine is not open".to_owned() })
    }

    /// Ends a base backup: the position at which the copy is consistent.
    ///
    /// # Errors
    /// The WAL's.
    pub fn backup_stop(&self, start: &BackupStart) -> Result<(Lsn, TimelineId), EngineError> {
        let _unused = start;
        Err(EngineError::DataDirectory { what: "the engine is not open".to_owned() })
    }
}

/// Where recovery of a base backup starts.
#[derive(Clone, Copy, Debug)]
pub struct BackupStart {
    /// The checkpoint record.
    pub checkpoint_lsn: Lsn,
    /// Its redo point.
    pub redo_lsn: Lsn,
    /// Its timeline.
    pub tli: TimelineId,
}
