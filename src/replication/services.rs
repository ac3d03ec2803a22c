//! What one node has of replication, put together: slots, senders, receiver, synchronous waiting, archiving.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use afterimage_wal::history::History;
use afterimage_wal::ids::{Lsn, TimelineId};
use afterimage_wal::lineage::{Claim, Shared};
use tokio::sync::watch;

use super::receiver::ReceiverStatus;
use super::senders::Senders;
use super::slot::{SlotError, SlotInfo, Slots};
use super::sync_wait;
use super::{archive, receiver};
use crate::config::{Config, Setting};
use crate::engine::Engine;
use crate::sqlstate::{SqlError, SqlState};

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
    wal_moved: watch::Sender<Lsn>,
    stopping: watch::Sender<bool>,
    receiver_stop: watch::Sender<bool>,
    next_pid: AtomicI32,
    /// How often WAL was cut back here: a stream that began before may have sent bytes that are no more.
    cuts: AtomicU64,
    /// Since when the counters count, microseconds since 2000.
    pub started_at: i64,
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
            archiver: archive::ArchiverStats::default(),
            wal_moved: watch::Sender::new(engine.wal().flushed()),
            stopping: watch::Sender::new(false),
            receiver_stop: watch::Sender::new(false),
            next_pid: AtomicI32::new(1),
            cuts: AtomicU64::new(0),
            started_at: super::timestamp_now(),
            engine,
            config,
        });
        let moved = node.wal_moved.clone();
        node.engine.wal().add_position_listener(Box::new(move |positions| {
            moved.send_replace(positions.flushed);
        }));
        let retention = Arc::downgrade(&node);
        node.engine.add_wal_retention(Box::new(move || retention.upgrade().and_then(|node| node.oldest_needed())));

        let state = Arc::clone(node.engine.node());
        tokio::spawn(sync_wait::run(
            Arc::clone(&node.senders),
            Arc::clone(&node.config),
            Arc::clone(&node.engine.ctx().txns),
            state.subscribe(),
        ));
        if node.engine.is_in_recovery() {
            tokio::spawn(receiver::run(Arc::clone(&node)));
        }
        tokio::spawn(archive::run(Arc::clone(&node)));
        Ok(node)
    }

    /// The durable end of WAL, whenever it moves.
    pub fn wal_moved(&self) -> watch::Receiver<Lsn> {
        self.wal_moved.subscribe()
    }

    /// True once the node stops and senders should ship the rest and leave.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// True once the receiver should end: promotion or stop.
    pub fn receiver_stop(&self) -> watch::Receiver<bool> {
        self.receiver_stop.subscribe()
    }

    /// Ends the receiver, for a promotion or a stop; returns when it takes nothing more.
    pub async fn stop_receiver(&self) {
        self.receiver_stop.send_replace(true);
        while self.receiver.get().is_some() {
            tokio::task::yield_now().await;
        }
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

    /// A number for a session-like entry that has no process of its own.
    pub fn next_pid(&self) -> i32 {
        let own = i32::try_from(std::process::id()).unwrap_or(1);
        own.wrapping_add(self.next_pid.fetch_add(1, Ordering::Relaxed))
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
    pub fn reserve_position(&self) -> Lsn {
        self.engine.redo_lsn()
    }

    /// The oldest WAL that slots, `wal_keep_size` or the archiver still need.
    ///
    /// Slots that hold more than `max_slot_wal_keep_size` are invalidated here, right before removal, as at PostgreSQL's checkpoints.
    fn oldest_needed(&self) -> Option<Lsn> {
        let settings = self.config.current();
        let end = self.engine.wal().flushed().as_u64();
        let behind = |bytes: u64| Lsn::from_u64(end.saturating_sub(bytes));
        if let Some(keep) = settings.bytes(Setting::MaxSlotWalKeepSize) {
            for slot in self.slots.invalidate_before(behind(keep)) {
                let restart = slot.restart_lsn.unwrap_or(Lsn::INVALID);
                tracing::info!("invalidating slot \"{}\" because its restart_lsn {restart} exceeds max_slot_wal_keep_size", slot.name);
            }
        }
        if let Err(error) = self.slots.save() {
            tracing::error!("{error}");
        }
        let kept = settings.bytes(Setting::WalKeepSize).filter(|&b| b > 0).map(behind);
        [self.slots.min_restart_lsn(), kept, archive::oldest_unarchived(self)].into_iter().flatten().min()
    }

    /// Slots for `pg_replication_slots`.
    pub fn slot_list(&self) -> Vec<SlotInfo> {
        self.slots.list()
    }

    /// Compares the end of another node's WAL with ours.
    ///
    /// # Errors
    /// I/O.
    pub fn compare(&self, claim: &Claim) -> Result<Shared, SqlError> {
        let (history, wal_dir) = (self.history(), self.engine.data_dir().join("pg_wal"));
        Ok(self.engine.lineage(&history, &wal_dir).compare(claim, self.engine.wal().flushed())?)
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
        self.wal_moved.send_replace(self.engine.wal().flushed());
        Ok(done)
    }

    /// A standby's feedback changed, or it left: its horizon counts, or no longer does.
    pub fn feedback_changed(&self) {
        self.engine.ctx().txns.set_feedback(self.senders.feedback_horizon());
    }

    /// True once a receiver has streamed here.
    pub fn has_received(&self) -> bool {
        self.receiver.was_streaming()
    }

    /// Makes this standby the primary: ends the receiver, then the engine replays what is here and goes over to a new timeline.
    ///
    /// # Errors
    /// 55000 when not in recovery; the engine's.
    pub async fn promote(&self) -> Result<(), SqlError> {
        if !self.engine.is_in_recovery() {
            return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "recovery is not in progress")
                .hint("Recovery control functions can only be executed during recovery."));
        }
        tracing::info!("received promote request");
        self.stop_receiver().await;
        let engine = Arc::clone(&self.engine);
        tokio::task::spawn_blocking(move || engine.promote()).await.map_err(|e| SqlError::internal(e.to_string()))??;
        Ok(())
    }
}
