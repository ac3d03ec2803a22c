//! Checkpoints on a primary, restartpoints on a standby, and the thread that makes them.
//!
//! A checkpoint chooses a redo point, then makes durable whatever was logged before it: transaction statuses, dirty pages (spread over
//! `checkpoint_completion_target` of the interval), the files they went to, the list of relations still to be unlinked. Then a record says
//! so and the control file names it. A crash at any instant leaves the previous checkpoint in force.
//!
//! Why the redo point is sound: see `storage::buffer_pool` (pages are looked at under their latch after it was chosen) and
//! `txn::Transactions::checkpoint_xids` (no commit before it is unrecorded).
//!
//! A restartpoint is the same on a standby, at the redo point of a checkpoint record that replay has passed; it writes no WAL.
//!
//! PostgreSQL: postmaster/checkpointer.c, `CreateCheckPoint` and `CreateRestartPoint` in access/transam/xlog.c.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use afterimage_wal::{
    Lsn, RecordBuilder, RelId, TimelineId, WalError, Xid,
    control_file::{Checkpoint, ClusterState},
    disk::{durable_replace, read_all},
    rmgr,
};
use parking_lot::{Condvar, Mutex, RwLock};

use super::{control_store::ControlStore, error::ControlError, oids::OidCounter};
use crate::{
    access::AccessCtx,
    storage::{critical::stop_node, files::PendingDrop},
};

/// When and how checkpoints are made. Reloadable.
#[derive(Clone, Debug)]
pub struct CheckpointSettings {
    /// `checkpoint_timeout`.
    pub timeout: Duration,
    /// `max_wal_size`, bytes.
    pub max_wal_bytes: u64,
    /// `wal_keep_size`, bytes.
    pub wal_keep_bytes: u64,
    /// `checkpoint_completion_target`.
    pub completion_target: f64,
    /// `checkpoint_warning`; zero is off.
    pub warning: Duration,
    /// `log_checkpoints`.
    pub log: bool,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(300),
            max_wal_bytes: 1 << 30,
            wal_keep_bytes: 0,
            completion_target: 0.9,
            warning: Duration::from_secs(30),
            log: true,
        }
    }
}

/// How a checkpoint is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointRequest {
    /// As fast as possible, not spread.
    pub immediate: bool,
    /// Even if nothing happened since the last one.
    pub force: bool,
    /// Recovery just ended.
    pub end_of_recovery: bool,
    /// Somebody waits for it; for the log.
    pub wait: bool,
}

/// What brought it about, for the log.
#[derive(Clone, Copy, Debug, Default)]
struct Causes {
    shutdown: bool,
    time: bool,
    wal: bool,
}

/// The checkpoint that replay passed last: where a restartpoint may be.
#[derive(Clone, Debug)]
pub struct RestartCandidate {
    /// Start of the record.
    pub at: Lsn,
    /// End of the record.
    pub end: Lsn,
    /// What it says.
    pub checkpoint: Checkpoint,
}

/// Set by replay, taken by restartpoints. Leaf lock.
#[derive(Debug, Default)]
pub struct RestartPoints(Mutex<Option<RestartCandidate>>);

impl RestartPoints {
    /// Replay passed a checkpoint record and knew of no unexplained blocks.
    pub fn offer(&self, candidate: RestartCandidate) {
        *self.0.lock() = Some(candidate);
    }

    /// Its redo point; INVALID without one.
    fn redo(&self) -> Lsn {
        self.0.lock().as_ref().map_or(Lsn::INVALID, |c| c.checkpoint.redo)
    }

    fn get(&self) -> Option<RestartCandidate> {
        self.0.lock().clone()
    }
}

/// A promise of WAL: nothing at or past the LSN it returns is recycled. `None`: needs nothing.
pub type Retention = Box<dyn Fn() -> Option<Lsn> + Send + Sync>;

/// Called after a restartpoint, with its redo point and timeline.
pub type AfterRestartpoint = Box<dyn Fn(Lsn, TimelineId) + Send + Sync>;

/// Everything a checkpoint reads and writes.
pub struct CheckpointEnv {
    /// Pages, WAL, transactions.
    pub ctx: AccessCtx,
    /// Control file.
    pub control: Arc<ControlStore>,
    /// OIDs.
    pub oids: Arc<OidCounter>,
    /// Where a restartpoint may be.
    pub restart: Arc<RestartPoints>,
}

/// Counters for `pg_stat_bgwriter`.
#[derive(Debug, Default)]
pub struct CheckpointStats {
    /// Checkpoints because of the time.
    pub timed: AtomicU64,
    /// Checkpoints asked for, or because of the WAL's size.
    pub requested: AtomicU64,
    /// Milliseconds spent writing.
    pub write_ms: AtomicU64,
    /// Milliseconds spent syncing.
    pub sync_ms: AtomicU64,
}

impl CheckpointStats {
    /// Back to zero.
    pub fn reset(&self) {
        for counter in [&self.timed, &self.requested, &self.write_ms, &self.sync_ms] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
struct State {
    /// Requests made, and how many of them the last started and the last finished checkpoint covers.
    asked: u64,
    started: u64,
    done: u64,
    /// What the requests not yet started want, together.
    wanted: Option<CheckpointRequest>,
    /// WAL since the redo point is near `max_wal_size`.
    wal_full: bool,
    /// Dropped relations may be due.
    drops: bool,
    stop: bool,
    /// Why the last one failed.
    failed: Option<String>,
}

struct Shared {
    env: CheckpointEnv,
    settings: RwLock<CheckpointSettings>,
    retention: RwLock<Vec<Retention>>,
    after_restartpoint: RwLock<Option<AfterRestartpoint>>,
    /// Leaf. Requests; the thread sleeps on `wake`, requesters on `finished`.
    state: Mutex<State>,
    wake: Condvar,
    finished: Condvar,
    /// Rank 5: one checkpoint at a time.
    running: Mutex<Running>,
    /// Redo point of the last checkpoint; for the WAL listener.
    last_redo: AtomicU64,
    /// WAL bytes from there that bring the next one; for the WAL listener.
    trigger_bytes: AtomicU64,
    /// Dropped relations wait for old snapshots.
    drops_pending: AtomicBool,
    stats: CheckpointStats,
}

#[derive(Default)]
struct Running {
    /// End of the last checkpoint's record: if the WAL still ends there, nothing happened.
    idle_end: Option<Lsn>,
    last_started: Option<Instant>,
    last_wal_started: Option<Instant>,
    /// Estimate of WAL between checkpoints, for the log. PostgreSQL: `CheckPointDistanceEstimate`.
    estimate: f64,
    previous_redo: Lsn,
}

/// The checkpointer: thread and door.
pub struct Checkpointer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Checkpointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checkpointer")
    }
}

/// File with the relations that are dropped and not unlinked yet.
pub const PENDING_DROPS_FILE: &str = "global/pg_pending_drops";
/// Longest a spread checkpoint waits for each page it has written, as PostgreSQL's `CheckpointWriteDelay`.
const LONGEST_NAP: Duration = Duration::from_millis(100);
const DROPS_MAGIC: [u8; 8] = *b"AIDROPS1";

impl Checkpointer {
    /// A checkpointer whose thread is not started yet.
    pub fn new(env: CheckpointEnv, settings: CheckpointSettings) -> Self {
        let redo = env.control.get().checkpoint_copy.redo;
        let shared = Arc::new(Shared {
            trigger_bytes: AtomicU64::new(trigger_bytes(&settings)),
            env,
            settings: RwLock::new(settings),
            retention: RwLock::default(),
            after_restartpoint: RwLock::default(),
            state: Mutex::default(),
            wake: Condvar::new(),
            finished: Condvar::new(),
            running: Mutex::new(Running { previous_redo: redo, ..Running::default() }),
            last_redo: AtomicU64::new(redo.as_u64()),
            drops_pending: AtomicBool::new(false),
            stats: CheckpointStats::default(),
        });
        let weak = Arc::downgrade(&shared);
        let for_drops = Arc::downgrade(&shared);
        shared.env.ctx.txns.on_horizon(move || {
            if let Some(shared) = for_drops.upgrade() {
                shared.wake_for_drops();
            }
        });
        shared.env.ctx.wal.add_position_listener(Box::new(move |positions| {
            let Some(shared) = weak.upgrade() else { return };
            shared.wake_for_drops();
            if shared.env.ctx.txns.in_recovery() && shared.env.restart.redo().as_u64() <= shared.last_redo.load(Ordering::Relaxed) {
                // Nothing to make a restartpoint of yet.
                return;
            }
            let since = positions.flushed.as_u64().saturating_sub(shared.last_redo.load(Ordering::Relaxed));
            if since >= shared.trigger_bytes.load(Ordering::Relaxed) {
                let mut state = shared.state.lock();
                if !state.wal_full {
                    state.wal_full = true;
                    shared.wake.notify_all();
                }
            }
        }));
        Self { shared, thread: Mutex::new(None) }
    }

    /// Starts the thread `checkpointer`.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(&self) -> Result<(), ControlError> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name("checkpointer".to_owned())
            .spawn(move || shared.run())
            .map_err(|source| ControlError::File { path: "thread".to_owned(), source })?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Asks for a checkpoint and returns at once.
    pub fn request(&self, request: CheckpointRequest) {
        self.shared.ask(request);
    }

    /// Asks for a checkpoint and waits for one that began after the call.
    ///
    /// # Errors
    /// [`ControlError::RequestFailed`] if it failed, [`ControlError::ShuttingDown`].
    pub fn request_and_wait(&self, request: CheckpointRequest) -> Result<(), ControlError> {
        let ticket = self.shared.ask(CheckpointRequest { wait: true, ..request });
        let mut state = self.shared.state.lock();
        loop {
            if state.done >= ticket {
                return Ok(());
            }
            if state.started >= ticket
                && let Some(why) = &state.failed
            {
                return Err(ControlError::RequestFailed { why: why.clone() });
            }
            if state.stop {
                return Err(ControlError::ShuttingDown);
            }
            self.shared.finished.wait(&mut state);
        }
    }

    /// Replaces the settings.
    pub fn set_settings(&self, settings: CheckpointSettings) {
        self.shared.trigger_bytes.store(trigger_bytes(&settings), Ordering::Relaxed);
        *self.shared.settings.write() = settings;
        let _state = self.shared.state.lock();
        self.shared.wake.notify_all();
    }

    /// Adds a promise of WAL.
    pub fn add_retention(&self, retention: Retention) {
        self.shared.retention.write().push(retention);
    }

    /// Calls `hook` after each restartpoint (`archive_cleanup_command`).
    pub fn after_restartpoint(&self, hook: AfterRestartpoint) {
        *self.shared.after_restartpoint.write() = Some(hook);
    }

    /// Counters.
    pub fn stats(&self) -> &CheckpointStats {
        &self.shared.stats
    }

    /// Relations wait to be unlinked: look at them now, and whenever the WAL or the horizon moved.
    pub fn drops_are_pending(&self) {
        self.shared.drops_pending.store(true, Ordering::Release);
        self.shared.wake_for_drops();
    }

    /// Stops the thread; a spread checkpoint in progress hurries up and ends.
    pub fn stop(&self) {
        {
            let mut state = self.shared.state.lock();
            state.stop = true;
            self.shared.wake.notify_all();
            self.shared.finished.notify_all();
        }
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            stop_node("checkpointer panicked");
        }
    }

    /// The last checkpoint of a primary or restartpoint of a standby, made by the caller; the thread is stopped.
    ///
    /// # Errors
    /// I/O; the next start recovers then.
    pub fn shutdown_checkpoint(&self) -> Result<(), ControlError> {
        self.shared.env.control.update(|c| {
            if !self.shared.env.ctx.txns.in_recovery() {
                c.state = ClusterState::ShuttingDown;
            }
        })?;
        let request = CheckpointRequest { immediate: true, ..CheckpointRequest::default() };
        self.shared.perform(request, Causes { shutdown: true, ..Causes::default() })?;
        Ok(())
    }

    /// Makes a checkpoint on the calling thread (bootstrap, end of a recovery that must not wait).
    ///
    /// # Errors
    /// I/O; the checkpoint before stays in force.
    pub fn checkpoint_here(&self, request: CheckpointRequest) -> Result<(), ControlError> {
        self.shared.perform(request, Causes::default())?;
        Ok(())
    }
}

/// WAL since the redo point at which the next checkpoint should start, so that it ends before `max_wal_size` is reached.
fn trigger_bytes(settings: &CheckpointSettings) -> u64 {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
    let bytes = (settings.max_wal_bytes as f64 / (1.0 + settings.completion_target.clamp(0.0, 1.0))) as u64;
    bytes.max(1 << 20)
}

/// What one did, for the log.
#[derive(Default)]
struct Outcome {
    written: usize,
    synced_files: usize,
    recycled: usize,
    write: Duration,
    sync: Duration,
    longest: Duration,
    distance_kb: u64,
    estimate_kb: u64,
}

impl Shared {
    fn ask(&self, request: CheckpointRequest) -> u64 {
        let mut state = self.state.lock();
        state.asked += 1;
        let old = state.wanted.unwrap_or_default();
        state.wanted = Some(CheckpointRequest {
            immediate: old.immediate | request.immediate,
            force: old.force | request.force,
            end_of_recovery: old.end_of_recovery | request.end_of_recovery,
            wait: old.wait | request.wait,
        });
        let ticket = state.asked;
        self.wake.notify_all();
        ticket
    }

    fn run(&self) {
        let mut last = Instant::now();
        loop {
            let (request, causes, ticket) = {
                let mut state = self.state.lock();
                loop {
                    if state.stop {
                        return;
                    }
                    let timeout = self.settings.read().timeout;
                    let mut causes = Causes { wal: std::mem::take(&mut state.wal_full), ..Causes::default() };
                    if let Some(request) = state.wanted.take() {
                        state.started = state.asked;
                        state.failed = None;
                        break (request, causes, state.asked);
                    }
                    if std::mem::take(&mut state.drops) {
                        parking_lot::MutexGuard::unlocked(&mut state, || self.unlink_due());
                        continue;
                    }
                    causes.time = last.elapsed() >= timeout;
                    if causes.wal || causes.time {
                        state.started = state.asked;
                        break (CheckpointRequest::default(), causes, state.asked);
                    }
                    self.wake.wait_until(&mut state, last + timeout);
                }
            };
            last = Instant::now();
            if causes.wal {
                self.warn_if_too_frequent();
            }
            let result = self.perform(request, causes);
            let mut state = self.state.lock();
            match result {
                Ok(_) => {
                    state.done = ticket;
                    state.failed = None;
                }
                Err(error) => {
                    if is_fatal(&error) {
                        stop_node(&error.to_string());
                    }
                    tracing::error!("{error}");
                    state.failed = Some(error.to_string());
                }
            }
            self.finished.notify_all();
        }
    }

    fn wake_for_drops(&self) {
        if self.drops_pending.load(Ordering::Acquire) {
            self.state.lock().drops = true;
            self.wake.notify_all();
        }
    }

    fn warn_if_too_frequent(&self) {
        let settings = self.settings.read().clone();
        let mut running = self.running.lock();
        let previous = running.last_wal_started.replace(Instant::now());
        if let Some(elapsed) = previous.map(|p| p.elapsed())
            && elapsed < settings.warning
            && !self.env.ctx.txns.in_recovery()
        {
            let seconds = elapsed.as_secs();
            let unit = if seconds == 1 { "second" } else { "seconds" };
            tracing::info!(
                hint = "Consider increasing the configuration parameter \"max_wal_size\".",
                "checkpoints are occurring too frequently ({seconds} {unit} apart)"
            );
        }
    }

    /// Makes a checkpoint or restartpoint; `Ok(false)` if there was nothing to do.
    fn perform(&self, request: CheckpointRequest, causes: Causes) -> Result<bool, ControlError> {
        let mut running = self.running.lock();
        let began = Instant::now();
        running.last_started = Some(began);
        if self.env.ctx.txns.in_recovery() {
            self.restartpoint(&mut running, request, causes, began)
        } else {
            self.checkpoint(&mut running, request, causes, began)
        }
    }

    fn checkpoint(&self, running: &mut Running, request: CheckpointRequest, causes: Causes, began: Instant) -> Result<bool, ControlError> {
        let env = &self.env;
        let wal = &env.ctx.wal;
        let forced = request.force || request.end_of_recovery || causes.shutdown;
        if !forced && running.idle_end == Some(wal.inserted()) {
            env.ctx.pool.files().try_drops_again();
            self.unlink_due();
            return Ok(false);
        }
        let settings = self.settings.read().clone();
        if settings.log {
            log_start("checkpoint", request, causes);
        }
        // Everything logged before this is in pages looked at after it. A commit not recorded yet holds the point back, and a file
        // about to be cut.
        let inserted = wal.inserted();
        let xids = env.ctx.txns.checkpoint_xids();
        let limits = [xids.redo_limit, env.ctx.pool.redo_limit()];
        let redo = limits.into_iter().flatten().fold(inserted, Lsn::min);
        let tli = wal.tli();
        env.ctx.txns.log_locks_held()?;
        env.ctx.txns.checkpoint_status(xids.oldest_xid)?;
        env.ctx.txns.checkpoint_prepared()?;
        let mut outcome = self.write_pages(request, causes, began, redo)?;
        self.write_pending_drops()?;
        let xids_now = env.ctx.txns.checkpoint_xids();
        let checkpoint = Checkpoint {
            redo,
            tli,
            prev_tli: tli,
            full_page_writes: false,
            // Assigned before the redo point or seen by redo after it: either value is right, the later one is not less.
            next_xid: xids_now.next_xid,
            next_oid: if causes.shutdown { env.oids.exact() } else { env.oids.upper_bound() },
            oldest_xid: xids.oldest_xid,
            oldest_active_xid: if causes.shutdown { Xid::INVALID } else { xids.oldest_xid },
            time: unix_seconds(),
        };
        let kind = if causes.shutdown { rmgr::xlog::CHECKPOINT_SHUTDOWN } else { rmgr::xlog::CHECKPOINT_ONLINE };
        let mut record = RecordBuilder::new(rmgr::XLOG, kind, Xid::INVALID);
        record.main(&checkpoint.encode()).carry_flushed_mark();
        let range = wal.insert(&record)?;
        wal.flush(range.end)?;
        env.control.update(|c| {
            c.state = if causes.shutdown { ClusterState::Shutdowned } else { ClusterState::InProduction };
            c.checkpoint = range.start;
            c.checkpoint_copy = checkpoint;
            c.min_recovery_point = Lsn::INVALID;
            c.min_recovery_tli = TimelineId::INVALID;
        })?;
        running.idle_end = Some(range.end);
        self.finish(running, redo, range.end, &mut outcome)?;
        if settings.log {
            log_complete("checkpoint", &outcome, began, env.ctx.pool.len());
        }
        Ok(true)
    }

    fn restartpoint(
        &self,
        running: &mut Running,
        request: CheckpointRequest,
        causes: Causes,
        began: Instant,
    ) -> Result<bool, ControlError> {
        let env = &self.env;
        let settings = self.settings.read().clone();
        let candidate = env.restart.get();
        let known = env.control.get();
        let fresh = candidate.filter(|c| c.checkpoint.redo > known.checkpoint_copy.redo);
        let Some(candidate) = fresh else {
            // Nothing newer to restart from. A clean stop still leaves all that was written synced: the next start empties the
            // double-write area.
            if causes.shutdown {
                env.ctx.txns.checkpoint_status(known.checkpoint_copy.oldest_xid)?;
                env.ctx.txns.checkpoint_prepared()?;
                env.ctx.pool.flush_all()?;
                self.write_pending_drops()?;
                env.control.update(|c| c.state = ClusterState::ShutdownedInRecovery)?;
            }
            self.unlink_due();
            return Ok(false);
        };
        if settings.log {
            log_start("restartpoint", request, causes);
        }
        let redo = candidate.checkpoint.redo;
        env.ctx.txns.checkpoint_status(candidate.checkpoint.oldest_xid)?;
        env.ctx.txns.checkpoint_prepared()?;
        let mut outcome = self.write_pages(request, causes, began, redo)?;
        self.write_pending_drops()?;
        env.control.update(|c| {
            c.checkpoint = candidate.at;
            c.checkpoint_copy = candidate.checkpoint;
            if c.min_recovery_point < candidate.end {
                c.min_recovery_point = candidate.end;
                c.min_recovery_tli = candidate.checkpoint.tli;
            }
            if causes.shutdown {
                c.state = ClusterState::ShutdownedInRecovery;
            }
        })?;
        self.finish(running, redo, env.ctx.wal.flushed(), &mut outcome)?;
        if settings.log {
            log_complete("restartpoint", &outcome, began, env.ctx.pool.len());
            tracing::info!("recovery restart point at {redo}");
        }
        if let Some(hook) = self.after_restartpoint.read().as_ref() {
            hook(redo, candidate.checkpoint.tli);
        }
        Ok(true)
    }

    /// Dirty pages out, spread unless in a hurry, and the files synced.
    fn write_pages(&self, request: CheckpointRequest, causes: Causes, began: Instant, redo: Lsn) -> Result<Outcome, ControlError> {
        let pool = &self.env.ctx.pool;
        let hurry = request.immediate || request.end_of_recovery || causes.shutdown;
        let mut paced = 0;
        let written = pool.write_dirty(|done, total| {
            if !hurry {
                self.pace(done, total, LONGEST_NAP * u32::try_from(done - paced).unwrap_or(u32::MAX), began, redo);
                paced = done;
            }
        })?;
        let write = began.elapsed();
        let sync_began = Instant::now();
        let (synced_files, longest) = pool.files().sync_written_timed()?;
        let sync = sync_began.elapsed();
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        self.stats.write_ms.fetch_add(millis(write), Ordering::Relaxed);
        self.stats.sync_ms.fetch_add(millis(sync), Ordering::Relaxed);
        let counter = if causes.time { &self.stats.timed } else { &self.stats.requested };
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(Outcome { written, synced_files, write, sync, longest, ..Outcome::default() })
    }

    /// Waits while the writes are ahead of the schedule, but no longer than `most`, unless somebody is in a hurry. Few pages are not worth the whole
    /// interval: whoever begins a backup waits for it.
    fn pace(&self, done: usize, total: usize, most: Duration, began: Instant, redo: Lsn) {
        let until = Instant::now() + most;
        let mut state = self.state.lock();
        loop {
            if state.stop || state.wanted.is_some_and(|w| w.immediate) {
                return;
            }
            if std::mem::take(&mut state.drops) {
                parking_lot::MutexGuard::unlocked(&mut state, || self.unlink_due());
                continue;
            }
            let (timeout, target) = {
                let settings = self.settings.read();
                (settings.timeout, settings.completion_target)
            };
            #[expect(clippy::cast_precision_loss, reason = "a fraction")]
            let progress = done as f64 / total.max(1) as f64 * target;
            #[expect(clippy::cast_precision_loss, reason = "a fraction")]
            let by_wal = self.env.ctx.wal.published().as_u64().saturating_sub(redo.as_u64()) as f64
                / self.trigger_bytes.load(Ordering::Relaxed).max(1) as f64;
            let by_time = began.elapsed().as_secs_f64() / timeout.as_secs_f64().max(0.001);
            if progress < by_wal || progress < by_time || Instant::now() >= until {
                return;
            }
            // Not a poll for an event: the schedule itself moves with time. Requests wake it.
            let ahead = Duration::from_secs_f64((progress - by_time) * timeout.as_secs_f64());
            let ahead = ahead.clamp(Duration::from_millis(1), LONGEST_NAP);
            self.wake.wait_for(&mut state, ahead);
        }
    }

    fn finish(&self, running: &mut Running, redo: Lsn, end: Lsn, outcome: &mut Outcome) -> Result<(), ControlError> {
        self.last_redo.store(redo.as_u64(), Ordering::Relaxed);
        self.state.lock().wal_full = false;
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let distance = redo.bytes_since(running.previous_redo).unwrap_or(0) as f64;
        running.previous_redo = redo;
        // Up at once, down slowly, as PostgreSQL's UpdateCheckPointDistanceEstimate.
        running.estimate = if running.estimate < distance { distance } else { 0.90 * running.estimate + 0.10 * distance };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "kilobytes for the log")]
        {
            outcome.distance_kb = (distance / 1024.0) as u64;
            outcome.estimate_kb = (running.estimate / 1024.0) as u64;
        }
        self.env.ctx.pool.files().try_drops_again();
        self.unlink_due();
        outcome.recycled = self.recycle(redo, end)?;
        Ok(())
    }

    /// Gives back WAL that nobody needs: not recovery, not `wal_keep_size`, not those who were promised some.
    fn recycle(&self, redo: Lsn, end: Lsn) -> Result<usize, ControlError> {
        let keep = self.settings.read().wal_keep_bytes;
        let mut upto = redo;
        if keep > 0 {
            upto = upto.min(Lsn::from_u64(end.as_u64().saturating_sub(keep)));
        }
        for oldest_needed in self.retention.read().iter() {
            if let Some(lsn) = oldest_needed() {
                upto = upto.min(lsn);
            }
        }
        Ok(self.env.ctx.wal.recycle_upto(upto, &|_name| true)?)
    }

    /// Unlinks dropped relations that no snapshot here can still read. A failure is logged: the file stays until a checkpoint has more luck, nothing
    /// else is harmed.
    fn unlink_due(&self) {
        let ctx = &self.env.ctx;
        let files = ctx.pool.files();
        // Both before the look: what comes after it wakes this thread again.
        self.drops_pending.store(true, Ordering::Release);
        ctx.txns.watch_horizon(true);
        let horizon = ctx.txns.horizon().min(ctx.wal.flushed());
        let due = files.take_due_drops(horizon);
        if !files.has_waiting_drops() {
            self.drops_pending.store(false, Ordering::Release);
            ctx.txns.watch_horizon(false);
        }
        if due.is_empty() {
            return;
        }
        // A standby's consistent point must lie behind the drop before the file goes: redo from an older checkpoint meets records of it.
        if let Err(error) = ctx.pool.pass_write_gate(horizon) {
            tracing::warn!("{error}");
            return;
        }
        let rels: Vec<_> = due.iter().map(|drop| drop.rel).collect();
        let failed = ctx.pool.drop_relations(&rels);
        for (_, error) in &failed {
            tracing::warn!("{error}");
        }
        for drop in due {
            if !failed.iter().any(|(rel, _)| *rel == drop.rel) {
                files.dropped(drop);
            }
        }
    }

    fn write_pending_drops(&self) -> Result<(), ControlError> {
        let files = self.env.ctx.pool.files();
        let mut bytes = DROPS_MAGIC.to_vec();
        bytes.extend_from_slice(&self.env.ctx.wal.system_id().to_le_bytes());
        for drop in files.pending_drops() {
            bytes.extend_from_slice(&drop.commit_lsn.to_le_bytes());
            bytes.extend_from_slice(&drop.rel.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let path = files.root().join(PENDING_DROPS_FILE);
        durable_replace(files.disk().as_ref(), &path, &bytes)
            .map_err(|source| ControlError::File { path: PENDING_DROPS_FILE.to_owned(), source })
    }
}

/// After a start: the relations that were dropped before it and not unlinked. No snapshot is older than any commit now.
pub fn read_pending_drops(files: &crate::storage::Files) -> Vec<PendingDrop> {
    let path = files.root().join(PENDING_DROPS_FILE);
    let Ok(bytes) = read_all(files.disk().as_ref(), &path) else { return Vec::new() };
    let Some((body, crc)) = bytes.split_last_chunk::<4>() else { return Vec::new() };
    if u32::from_le_bytes(*crc) != crc32c::crc32c(body) || !body.starts_with(&DROPS_MAGIC) {
        tracing::warn!("ignoring damaged file \"{PENDING_DROPS_FILE}\": files of dropped relations may be left behind");
        return Vec::new();
    }
    let entries = body.get(16..).unwrap_or(&[]);
    let (entries, _) = entries.as_chunks::<20>();
    let entry = |e: &[u8; 20]| {
        let (lsn, rel) = e.split_first_chunk::<8>()?;
        Some(PendingDrop { commit_lsn: Lsn::from_le_bytes(*lsn), rel: RelId::from_le_bytes(rel.try_into().ok()?) })
    };
    entries.iter().filter_map(entry).collect()
}

fn is_fatal(error: &ControlError) -> bool {
    use crate::{storage::StorageError as S, txn::TxnError};
    match error {
        // Old segments stay; the next checkpoint tries again.
        ControlError::Wal(WalError::Io { action: "list" | "remove", .. }) => false,
        ControlError::Wal(_) | ControlError::Storage(S::Sync { .. } | S::Wal(_)) | ControlError::Txn(TxnError::Storage(S::Sync { .. })) => {
            true
        }
        ControlError::Storage(_)
        | ControlError::Txn(_)
        | ControlError::File { .. }
        | ControlError::RequestFailed { .. }
        | ControlError::ShuttingDown => false,
    }
}

fn unix_seconds() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn log_start(what: &str, request: CheckpointRequest, causes: Causes) {
    let words = [
        (causes.shutdown, " shutdown"),
        (request.end_of_recovery, " end-of-recovery"),
        (request.immediate, " immediate"),
        (request.force, " force"),
        (request.wait, " wait"),
        (causes.wal, " wal"),
        (causes.time, " time"),
    ];
    let flags: String = words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
    tracing::info!("{what} starting:{flags}");
}

fn log_complete(what: &str, outcome: &Outcome, began: Instant, buffers: usize) {
    let seconds = |d: Duration| format!("{}.{:03} s", d.as_secs(), d.subsec_millis());
    #[expect(clippy::cast_precision_loss, reason = "a percentage")]
    let percent = outcome.written as f64 * 100.0 / buffers.max(1) as f64;
    let average = outcome.sync / u32::try_from(outcome.synced_files.max(1)).unwrap_or(1);
    tracing::info!(
        "{what} complete: wrote {} buffers ({percent:.1}%); 0 WAL file(s) added, 0 removed, {} recycled; \
         write={}, sync={}, total={}; sync files={}, longest={}, average={}; distance={} kB, estimate={} kB",
        outcome.written,
        outcome.recycled,
        seconds(outcome.write),
        seconds(outcome.sync),
        seconds(began.elapsed()),
        outcome.synced_files,
        seconds(outcome.longest),
        seconds(average),
        outcome.distance_kb,
        outcome.estimate_kb,
    );
}
