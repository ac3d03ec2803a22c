//! What one node has of replication, put together: slots, senders, receiver, synchronous waiting, archiving.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU64, Ordering};

use afterimage_wal::WalEnd;
use afterimage_wal::format::SEGMENT_HEADER_BYTES;
use afterimage_wal::history::History;
use afterimage_wal::ids::{Lsn, SegNo, TimelineId};
use afterimage_wal::lineage::{Claim, Shared};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::base_backup::file_copy::FileCopies;
use super::base_backup::parallel::ParallelBackups;
use super::receiver::ReceiverStatus;
use super::senders::Senders;
use super::slot::{SlotError, SlotInfo, Slots};
use super::{archive, receiver, sync_wait};
use crate::config::{Config, Setting};
use crate::control::node_state::State;
use crate::engine::Engine;
use crate::recovery::Ending;
use crate::sqlstate::{Reach, SqlError, SqlState};
use crate::txn::ProcId;

/// Numbers of what has no process from here on: no process has one as high, and sessions begin far below.
const WORKER_PIDS: i32 = 0x7000_0000;

/// Why a node stops by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `recovery_target_action = shutdown`.
    Shutdown,
    /// Recovery cannot go on; the message is for the log.
    Fatal(String),
}

/// Since when counters count: the start, or their reset. Microseconds since 2000.
#[derive(Debug)]
pub struct CountersSince {
    /// `pg_stat_wal`.
    pub wal: AtomicI64,
    /// `pg_stat_archiver`.
    pub archiver: AtomicI64,
    /// `pg_stat_bgwriter`.
    pub bgwriter: AtomicI64,
    /// `pg_stat_recovery_prefetch`.
    pub prefetch: AtomicI64,
}

impl CountersSince {
    fn now() -> Self {
        let now = || AtomicI64::new(super::timestamp_now());
        Self { wal: now(), archiver: now(), bgwriter: now(), prefetch: now() }
    }
}

/// Replication of one node.
pub struct Replication {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Settings.
    pub config: Arc<Config>,
    /// Slots.
    pub slots: Arc<Slots>,
    /// Who streams from us.
    pub senders: Arc<Senders>,
    /// Our own receiver.
    pub receiver: ReceiverStatus,
    /// Counters of the archiver.
    pub archiver: archive::ArchiverStats,
    /// Base backups that go over several connections.
    pub parallel_backups: ParallelBackups,
    /// Backups whose files somebody else copies.
    pub file_copies: FileCopies,
    wal_moved: watch::Sender<Lsn>,
    segment_moved: watch::Sender<u64>,
    sync_begins: watch::Sender<()>,
    stopping: watch::Sender<bool>,
    receiver_stop: watch::Sender<bool>,
    verdict: watch::Sender<Option<Verdict>>,
    /// Leaf.
    archiver_task: Mutex<Option<tokio::task::JoinHandle<()>>>,
    /// Held while recovery ends.
    going_over: tokio::sync::Mutex<()>,
    next_pid: AtomicI32,
    /// How often WAL was cut back here: a stream that began before may have sent bytes that are no more.
    cuts: AtomicU64,
    /// Since when the counters count.
    pub since: CountersSince,
}

impl std::fmt::Debug for Replication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replication").finish_non_exhaustive()
    }
}

impl Replication {
    /// Puts it together and starts its tasks on the current runtime.
    ///
    /// # Errors
    /// A damaged slot file.
    pub fn start(engine: Arc<Engine>, config: Arc<Config>) -> Result<Arc<Self>, SlotError> {
        let max_slots = usize::try_from(config.current().int(Setting::MaxReplicationSlots)).unwrap_or(0);
        let slots = Slots::open(engine.data_dir(), max_slots)?;
        let node = Arc::new(Self {
            slots,
            senders: Arc::default(),
            receiver: ReceiverStatus::default(),
            archiver: archive::ArchiverStats::load(engine.data_dir()),
            file_copies: FileCopies::default(),
            parallel_backups: ParallelBackups::default(),
            wal_moved: watch::Sender::new(engine.wal().confirmed()),
            segment_moved: watch::Sender::new(engine.wal().confirmed().as_u64() / u64::from(engine.wal().segment_bytes())),
            sync_begins: watch::Sender::new(()),
            stopping: watch::Sender::new(false),
            receiver_stop: watch::Sender::new(false),
            verdict: watch::Sender::new(None),
            archiver_task: Mutex::default(),
            going_over: tokio::sync::Mutex::default(),
            next_pid: AtomicI32::new(WORKER_PIDS + 16),
            cuts: AtomicU64::new(0),
            since: CountersSince::now(),
            engine,
            config,
        });
        let (moved, segment_moved) = (node.wal_moved.clone(), node.segment_moved.clone());
        let segment_bytes = u64::from(node.engine.wal().segment_bytes());
        node.engine.wal().add_position_listener(Box::new(move |positions| {
            moved.send_replace(positions.confirmed);
            let segment = positions.confirmed.as_u64() / segment_bytes;
            segment_moved.send_if_modified(|old| std::mem::replace(old, segment) != segment);
        }));
        let begins = node.sync_begins.clone();
        node.engine.wal().add_sync_listener(Box::new(move |_| {
            if begins.receiver_count() > 0 {
                begins.send_replace(());
            }
        }));
        // A session's thread that syncs may be the one that waited for the sockets of all: another does once it hears of something to do.
        let runtime = tokio::runtime::Handle::current();
        node.engine.wal().on_stalled_sync(Box::new(move || drop(runtime.spawn(async {}))));
        let retention = Arc::downgrade(&node);
        node.engine.add_wal_retention(Box::new(move || retention.upgrade().and_then(|node| node.oldest_needed())));

        let state = Arc::clone(node.engine.node());
        sync_wait::start(&node.senders, Arc::clone(&node.config), Arc::clone(&node.engine.ctx().txns), state.subscribe());
        if node.engine.is_in_recovery() {
            let upstream = super::repair::Upstream { node: Arc::downgrade(&node), runtime: tokio::runtime::Handle::current() };
            node.engine.pool().set_page_source(Arc::new(upstream));
            node.start_receiver();
            tokio::spawn(Arc::clone(&node).watch_replay());
        }
        *node.archiver_task.lock() = Some(tokio::spawn(archive::run(Arc::clone(&node))));
        Ok(node)
    }

    /// The durable and confirmed end of WAL. Told also when only the durable end moves.
    pub fn wal_moved(&self) -> watch::Receiver<Lsn> {
        self.wal_moved.subscribe()
    }

    /// The segment that the durable and confirmed end of WAL lies in. Told once for each.
    pub fn segment_moved(&self) -> watch::Receiver<u64> {
        self.segment_moved.subscribe()
    }

    /// Told before each sync of WAL, while anybody listens.
    pub fn sync_begins(&self) -> watch::Receiver<()> {
        self.sync_begins.subscribe()
    }

    /// True once the node stops and senders should ship the rest and leave.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// True once the receiver should end: promotion or stop.
    pub fn receiver_stop(&self) -> watch::Receiver<bool> {
        self.receiver_stop.subscribe()
    }

    fn start_receiver(self: &Arc<Self>) {
        self.receiver_stop.send_replace(false);
        if let Err(error) = receiver::start(Arc::clone(self)) {
            self.give_verdict(Verdict::Fatal(format!("could not fork WAL receiver process: {error}")));
        }
    }

    /// Whether the receiver was told to end: a promotion or a stop has begun.
    pub(super) fn receiver_ends(&self) -> bool {
        *self.receiver_stop.borrow()
    }

    /// Ends the receiver, for a promotion or a stop; returns when it takes nothing more.
    pub async fn stop_receiver(&self) {
        self.receiver_stop.send_replace(true);
        drop(self.receiver.taking.lock().await);
        drop(self.receiver.changing.write().await);
    }

    /// Changes which WAL there is, for the receiver. Begun, it is carried out, though the receiver be stopped; who stops it waits for that.
    ///
    /// # Errors
    /// The change panicked.
    pub(super) async fn change_wal<T: Send + 'static>(
        &self,
        change: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        let under_way = Arc::clone(&self.receiver.changing).read_owned().await;
        let changed = tokio::task::spawn_blocking(move || {
            let _under_way = under_way;
            change()
        });
        changed.await
    }

    /// After the shutdown checkpoint: lets every standby have all of it, then closes the streams. Bounded by `wal_sender_timeout`,
    /// which ends the stream of a standby that no longer answers.
    pub async fn finish_senders(&self) {
        self.stopping.send_replace(true);
        let mut changed = self.senders.subscribe();
        while !self.senders.list().is_empty() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Before the shutdown checkpoint: the last segment is ended, so that the archive gets all records of this run.
    pub fn prepare_shutdown(&self) {
        if self.engine.wal().is_writing()
            && archive::is_on(self)
            && let Err(error) = self.engine.wal().switch_segment()
        {
            tracing::warn!("{error}");
        }
    }

    /// After [`Self::finish_senders`]: waits until the archiver has tried what is ready.
    pub async fn finish_archiver(&self) {
        let task = self.archiver_task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::warn!("{error}");
        }
        self.archiver.save(self.engine.data_dir());
    }

    /// A number for an activity that has no process of its own: one that no process and no session has.
    pub fn next_pid(&self) -> i32 {
        self.next_pid.fetch_add(1, Ordering::Relaxed)
    }

    /// What runs here beside sessions, for `pg_stat_activity`: number, PostgreSQL's name of it, and what it waits for when it has nothing to do. All are threads or tasks of one process.
    pub fn workers(&self) -> Vec<(i32, &'static str, &'static str)> {
        let mut workers = vec![(1, "checkpointer", "CheckpointerMain"), (2, "background writer", "BgWriterHibernate")];
        if self.engine.is_in_recovery() {
            workers.push((ProcId::STARTUP.0 - WORKER_PIDS, "startup", "RecoveryWalStream"));
        } else {
            workers.push((3, "walwriter", "WalWriterMain"));
            let on = self.config.current();
            if on.bool(Setting::Autovacuum) && on.bool(Setting::TrackCounts) {
                workers.push((6, "autovacuum launcher", "AutoVacuumMain"));
            }
        }
        if archive::is_on(self) {
            workers.push((5, "archiver", "ArchiverMain"));
        }
        let mut workers: Vec<_> = workers.into_iter().map(|(n, name, wait)| (WORKER_PIDS + n, name, wait)).collect();
        workers.extend(self.receiver.get().map(|receiver| (receiver.pid, "walreceiver", "WalReceiverMain")));
        workers
    }

    /// The history of the current timeline.
    pub fn history(&self) -> Arc<History> {
        self.engine.history()
    }

    /// The history that leads to `tli`, from `pg_wal`.
    ///
    /// # Errors
    /// A missing or unreadable file.
    pub fn history_of(&self, tli: TimelineId) -> Result<History, SqlError> {
        let dir = self.engine.data_dir().join("pg_wal");
        match History::read(&afterimage_wal::disk::RealDisk, &dir, tli) {
            Ok(Some(history)) => Ok(history),
            Ok(None) => Err(SqlError::new(
                SqlState::UNDEFINED_FILE,
                format!("could not open file \"pg_wal/{}\": No such file or directory", History::file_name(tli)),
            )),
            Err(error) => Err(SqlError::new(SqlState::IO_ERROR, error.to_string())),
        }
    }

    /// Name and text of a history file, for TIMELINE_HISTORY.
    ///
    /// # Errors
    /// 58P01 without it.
    pub fn history_file(&self, tli: TimelineId) -> Result<(String, String), SqlError> {
        let name = History::file_name(tli);
        let path = self.engine.data_dir().join("pg_wal").join(&name);
        let text = std::fs::read_to_string(&path)
            .map_err(|e| SqlError::new(SqlState::UNDEFINED_FILE, format!("could not open file \"pg_wal/{name}\": {e}")))?;
        Ok((name, text))
    }

    /// `SHOW name`, with the server-wide values.
    ///
    /// # Errors
    /// 42704.
    pub fn show(&self, name: &str) -> Result<String, SqlError> {
        crate::config::SessionSettings::new(self.config.current()).show(name)
    }

    /// Where a slot that reserves WAL now starts: the last checkpoint's redo point, from where recovery of a clone may begin.
    ///
    /// Of a redo point between two segments the first byte of the next is what counts: a name made of it is that segment's.
    pub fn reserve_position(&self) -> Lsn {
        let redo = self.engine.redo_lsn();
        let between = redo.as_u64().is_multiple_of(u64::from(self.engine.wal().segment_bytes()));
        if between { redo.advance(SEGMENT_HEADER_BYTES as u64) } else { redo }
    }

    /// The oldest WAL that slots, `wal_keep_size` or the archiver still need.
    ///
    /// Slots that hold more than `max_slot_wal_keep_size` are invalidated here, right before removal, as at PostgreSQL's checkpoints.
    fn oldest_needed(&self) -> Option<Lsn> {
        let segment = u64::from(self.engine.wal().segment_bytes());
        let start = |segno: u64| Lsn::from_u64(segno * segment);
        let end = self.engine.wal().published().as_u64();
        // What recovery needs stays anyway, so a slot that needs no more than that is not in the way.
        let kept = self.kept_segment(end).min(self.engine.redo_lsn().as_u64() / segment);
        for slot in self.slots.invalidate_before(start(kept)) {
            if let Some(pid) = slot.active_pid {
                tracing::info!("terminating process {pid} to release replication slot \"{}\"", slot.name);
            }
            let restart = slot.restart_lsn.unwrap_or(Lsn::INVALID);
            tracing::info!("invalidating slot \"{}\" because its restart_lsn {restart} exceeds max_slot_wal_keep_size", slot.name);
        }
        // Streams that use an invalidated slot look at it when woken.
        self.wal_moved.send_modify(|_| ());
        if let Err(error) = self.slots.save() {
            tracing::error!("{error}");
        }
        archive::tidy(self, SegNo::new(kept));
        [Some(start(self.kept_segment(end))), archive::oldest_unarchived(self)].into_iter().flatten().min()
    }

    /// The oldest segment that slots, within `max_slot_wal_keep_size`, and `wal_keep_size` hold. PostgreSQL: `KeepLogSeg`.
    pub(super) fn kept_segment(&self, end: u64) -> u64 {
        let settings = self.config.current();
        let segment = u64::from(self.engine.wal().segment_bytes());
        let segments = |setting| settings.bytes(setting).map(|bytes| bytes / segment);
        let current = end / segment;
        let mut kept = current;
        if let Some(slots) = self.slots.min_restart_lsn().filter(|lsn| lsn.as_u64() < end) {
            kept = slots.as_u64() / segment;
            if let Some(limit) = segments(Setting::MaxSlotWalKeepSize) {
                kept = kept.max(current.saturating_sub(limit));
            }
        }
        match segments(Setting::WalKeepSize) {
            Some(keep) if keep > 0 && current - kept < keep => current.saturating_sub(keep).max(1),
            Some(_) | None => kept,
        }
    }

    /// Slots for `pg_replication_slots`.
    pub fn slot_list(&self) -> Vec<SlotInfo> {
        self.slots.list()
    }

    /// Compares the end of another node's WAL with ours, as far as that may be known elsewhere.
    ///
    /// # Errors
    /// I/O.
    pub fn compare(&self, claim: &Claim) -> Result<Shared, SqlError> {
        let (history, wal_dir, wal) = (self.history(), self.engine.data_dir().join("pg_wal"), self.engine.wal());
        // What a writer has published and not synced may have been sent ahead: whether it is the same is in the file already.
        let upto = if wal.is_writing() { wal.published() } else { wal.confirmed() };
        Ok(self.engine.lineage(&history, &wal_dir).compare(claim, upto)?)
    }

    /// The end of our WAL if it ended at `at`.
    ///
    /// # Errors
    /// No record ends there; I/O.
    pub fn end_at(&self, at: Lsn) -> Result<WalEnd, SqlError> {
        let (history, wal_dir) = (self.history(), self.engine.data_dir().join("pg_wal"));
        Ok(self.engine.lineage(&history, &wal_dir).end_at(at)?)
    }

    /// How often WAL was cut back here.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    /// Cuts our WAL back to `common` unless that was replayed; streams to our own standbys end.
    ///
    /// # Errors
    /// The engine's.
    pub fn discard_wal_after(&self, common: Lsn) -> Result<bool, SqlError> {
        self.cuts.fetch_add(1, Ordering::AcqRel);
        let done = self.engine.discard_wal_after(common)?;
        self.wal_moved.send_replace(self.engine.wal().confirmed());
        Ok(done)
    }

    /// A history we are to follow, or the archive's copy of ours, leaves our WAL at `fork`, before its end. If what lies behind was received ahead
    /// and never confirmed, it is discarded, and true.
    ///
    /// # Errors
    /// The engine's.
    pub async fn discard_held_after(self: &Arc<Self>, fork: Lsn) -> Result<bool, SqlError> {
        let wal = self.engine.wal();
        let upto = wal.published();
        if wal.confirmed() > fork || self.engine.replayed_lsn() > fork {
            return Ok(false);
        }
        let node = Arc::clone(self);
        let discarding = self.change_wal(move || node.discard_wal_after(fork));
        let done = discarding.await.map_err(|e| SqlError::internal(e.to_string()))??;
        if done {
            tracing::info!("discarded WAL from {fork} to {upto}, which the primary never confirmed");
        }
        Ok(done)
    }

    /// A standby's feedback changed, or it left: its horizon counts, or no longer does.
    pub fn feedback_changed(&self) {
        let horizon = [self.senders.feedback_horizon(), self.slots.horizon()].into_iter().flatten().min();
        self.engine.ctx().txns.set_feedback(horizon);
    }

    /// True once a receiver has streamed here.
    pub fn has_received(&self) -> bool {
        self.receiver.was_streaming()
    }

    /// Why the node is to stop, once it is.
    pub fn verdict(&self) -> watch::Receiver<Option<Verdict>> {
        self.verdict.subscribe()
    }

    /// Recovery cannot go on, or is over: the node stops.
    pub(super) fn give_verdict(&self, verdict: Verdict) {
        self.verdict.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(verdict);
            }
            first
        });
    }

    /// Acts on what replay says when it ends by itself.
    async fn watch_replay(self: Arc<Self>) {
        let mut ending = self.engine.subscribe_ending();
        let ended = match ending.wait_for(Option::is_some).await {
            Ok(ended) => ended.clone(),
            Err(_) => return,
        };
        match ended {
            Some(Ending::Promote) => self.end_recovery().await,
            Some(Ending::Shutdown) => self.give_verdict(Verdict::Shutdown),
            Some(Ending::Fatal(message)) => self.give_verdict(Verdict::Fatal(message)),
            None => {}
        }
    }

    /// Recovery has come to its end: becomes a primary, or says why it cannot.
    async fn end_recovery(self: &Arc<Self>) {
        if let Err(error) = self.go_over().await {
            self.give_verdict(Verdict::Fatal(error.to_string()));
        }
    }

    /// The archive has no more: applies what came from it, then ends recovery, unless replay has ended by itself.
    pub(super) async fn end_archive_recovery(self: &Arc<Self>) {
        let wal = Arc::clone(self.engine.wal());
        wal.drop_incomplete();
        let end = wal.published();
        wal.request_flush(end);
        let (mut replayed, mut ending) = (self.engine.subscribe_replayed(), self.engine.subscribe_ending());
        tokio::select! {
            _ = ending.wait_for(Option::is_some) => return,
            _ = replayed.wait_for(|at| *at >= end) => {}
        }
        // The target may be the last record itself.
        if ending.borrow().is_some() || self.engine.replay().is_some_and(|replay| replay.is_at_target()) {
            return;
        }
        let options = self.engine.recovery_options();
        if self.engine.node().get() == State::StandbyRecovering {
            let in_backup = self.engine.control_file().backup_end_required;
            let what = if in_backup { "WAL ends before end of online backup" } else { "WAL ends before consistent recovery point" };
            self.give_verdict(Verdict::Fatal(what.to_owned()));
        } else if options.goal.target.is_some() {
            self.give_verdict(Verdict::Fatal(crate::engine::EngineError::TargetNotReached.to_string()));
        } else {
            self.end_recovery().await;
        }
    }

    /// Makes this standby the primary: ends the receiver, then the engine replays what is here and goes over to a new timeline.
    ///
    /// # Errors
    /// 55000 when not in recovery; the engine's.
    pub async fn promote(self: &Arc<Self>) -> Result<(), SqlError> {
        if !self.engine.is_in_recovery() {
            return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "recovery is not in progress")
                .hint("Recovery control functions can only be executed during recovery."));
        }
        tracing::info!("received promote request");
        match self.go_over().await {
            Err(error) if error.fields().reach == Reach::Session => {
                self.give_verdict(Verdict::Fatal(error.to_string()));
                Err(error)
            }
            other => other,
        }
    }

    async fn go_over(self: &Arc<Self>) -> Result<(), SqlError> {
        // Asked for twice, or at the moment recovery ends by itself: once.
        let _one_at_a_time = self.going_over.lock().await;
        if !self.engine.is_in_recovery() {
            return Ok(());
        }
        self.stop_receiver().await;
        // What the archive has is taken first, as PostgreSQL does; a promotion at a target or at the archive's end has seen it.
        let at_target = self.engine.replay().is_some_and(|replay| replay.is_at_target());
        if !at_target
            && !self.engine.is_archive_recovery()
            && !self.engine.recovery_options().commands.restore.is_empty()
            && let Err(error) = archive::feed(self).await
        {
            if archive::ends_recovery(self, &error) {
                return Err(SqlError::new(SqlState::IO_ERROR, error.to_string()).fatal());
            }
            tracing::warn!("{error}");
        }
        // From the promotion on what has no status is this node's to archive.
        if let Err(error) = archive::mark_streamed(self, SegNo::of(self.engine.wal().published(), self.engine.wal().segment_bytes())) {
            tracing::warn!("{error}");
        }
        let engine = Arc::clone(&self.engine);
        let promoted = tokio::task::spawn_blocking(move || engine.promote()).await.map_err(|e| SqlError::internal(e.to_string()))?;
        let promoted = promoted.map_err(SqlError::from);
        if promoted.as_ref().is_err_and(|error| error.fields().reach == Reach::Statement) && self.engine.is_in_recovery() {
            // Still a standby: it goes on as one.
            self.start_receiver();
        }
        promoted?;
        let history = self.history();
        if let Some(fork) = history.ancestors().last() {
            archive::set_partial_aside(self, fork.tli, fork.switch_lsn);
        }
        Ok(())
    }
}
