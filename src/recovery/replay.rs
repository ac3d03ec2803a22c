//! The redo loop, and the thread that runs it on a standby.
//!
//! The thread sleeps until WAL is durable here, a promotion or a stop is asked for, or a pause ends: events, not polls. It never
//! passes the flushed position, so no page can know what a crash of this node could take back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use afterimage_wal::{Lsn, WalReader, reader::FollowLimit};
use parking_lot::{Condvar, Mutex};

use super::{
    conflict,
    dispatch::{Applied, Dispatcher},
    error::RecoveryError,
    progress::Progress,
};
use crate::{
    control::{
        control_store::ControlStore,
        node_state::{Event, NodeState},
    },
    storage::critical::stop_node,
};

/// When the pages are consistent, and what is missing for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consistency {
    /// Replay must reach this.
    pub min_recovery: Lsn,
    /// And see the end of the base backup that began at this redo point.
    pub backup_start: Option<Lsn>,
    /// Done.
    pub reached: bool,
}

impl Consistency {
    /// Takes note of a record; true at the moment consistency is reached.
    fn note(&mut self, applied: Applied, end: Lsn) -> bool {
        if let Applied::BackupEnd(start) = applied
            && self.backup_start == Some(start)
        {
            self.backup_start = None;
        }
        self.check(end)
    }

    /// True at the moment consistency is reached.
    fn check(&mut self, end: Lsn) -> bool {
        if self.reached || self.backup_start.is_some() || end < self.min_recovery {
            return false;
        }
        self.reached = true;
        true
    }
}

/// Publish the position at least every so many records.
const PUBLISH_EVERY: u32 = 128;

/// The redo loop over one source of records.
pub struct Redo {
    dispatcher: Dispatcher,
    control: Arc<ControlStore>,
    node: Arc<NodeState>,
    reader: WalReader,
    consistency: Consistency,
    unpublished: u32,
    /// When it last had nothing to do.
    caught_up: Instant,
    max_delay: Arc<MaxDelay>,
}

/// `max_standby_streaming_delay`; `None`: queries are never cancelled.
#[derive(Debug)]
pub struct MaxDelay(Mutex<Option<Duration>>);

impl Default for MaxDelay {
    fn default() -> Self {
        Self(Mutex::new(Some(Duration::from_secs(30))))
    }
}

impl MaxDelay {
    /// Sets it.
    pub fn store(&self, delay: Option<Duration>) {
        *self.0.lock() = delay;
    }

    fn load(&self) -> Option<Duration> {
        *self.0.lock()
    }
}

impl Redo {
    /// Replays what `reader` gives.
    pub fn new(
        dispatcher: Dispatcher,
        control: Arc<ControlStore>,
        node: Arc<NodeState>,
        reader: WalReader,
        consistency: Consistency,
    ) -> Self {
        Self { dispatcher, control, node, reader, consistency, unpublished: 0, caught_up: Instant::now(), max_delay: Arc::default() }
    }

    /// How consistency stands.
    pub fn consistency(&self) -> &Consistency {
        &self.consistency
    }

    /// End of the last record applied.
    pub fn position(&self) -> Lsn {
        self.reader.position()
    }

    /// Applies one record; false if there is none now.
    ///
    /// # Errors
    /// Redo failed, or the WAL cannot be read.
    pub fn step(&mut self) -> Result<bool, RecoveryError> {
        let (applied, end) = match self.reader.next().map_err(|stop| RecoveryError::Unreadable { stop })? {
            Some(record) => {
                if self.consistency.reached
                    && let Some(horizon) = conflict::horizon_of(&record)
                {
                    let deadline = self.max_delay.load().map(|delay| self.caught_up + delay);
                    conflict::resolve(&self.dispatcher.ctx, horizon, deadline);
                }
                (self.dispatcher.apply(&record)?, record.end())
            }
            None => {
                self.caught_up = Instant::now();
                return Ok(false);
            }
        };
        self.dispatcher.progress.advance(end);
        self.unpublished += 1;
        if applied == Applied::Decision || self.unpublished >= PUBLISH_EVERY {
            self.publish();
        }
        if self.consistency.note(applied, end) {
            self.become_consistent()?;
        }
        Ok(true)
    }

    /// Tells everybody how far replay is.
    pub fn publish(&mut self) {
        if self.unpublished > 0 {
            self.unpublished = 0;
            let progress = &self.dispatcher.progress;
            self.dispatcher.ctx.txns.set_replayed(progress.replayed());
            progress.publish();
        }
    }

    /// Looks whether the start itself is consistent already.
    ///
    /// # Errors
    /// Unexplained missing blocks; the control file.
    pub fn check_start(&mut self) -> Result<(), RecoveryError> {
        let at = self.reader.position();
        if self.consistency.check(at) { self.become_consistent() } else { Ok(()) }
    }

    fn become_consistent(&mut self) -> Result<(), RecoveryError> {
        let pool = &self.dispatcher.ctx.pool;
        pool.missing().reach_consistency(pool.files())?;
        let at = self.dispatcher.progress.replayed();
        let known = self.control.get();
        if known.backup_start.is_valid() || known.backup_end_required {
            self.control.update(|c| {
                c.min_recovery_point = c.min_recovery_point.max(at);
                c.backup_start = Lsn::INVALID;
                c.backup_end = Lsn::INVALID;
                c.backup_end_required = false;
            })?;
        }
        self.unpublished += 1;
        self.publish();
        tracing::info!("consistent recovery state reached at {at}");
        // A promotion or a stop may have come first; then the state is theirs.
        let _refused = self.node.apply(Event::Consistent);
        Ok(())
    }
}

#[derive(Default)]
struct Orders {
    /// Apply what is durable, then end.
    finish: bool,
    /// End now.
    stop: bool,
    paused: bool,
}

struct Door {
    /// Leaf. What the thread is told; it sleeps on `wake`.
    orders: Mutex<Orders>,
    wake: Condvar,
    /// Set by the WAL's listener, taken by the thread under `orders`: WAL moved since it last looked.
    moved: AtomicBool,
}

/// Replay on its own thread, following a live WAL.
pub struct Replay {
    door: Arc<Door>,
    progress: Arc<Progress>,
    max_delay: Arc<MaxDelay>,
    thread: Mutex<Option<JoinHandle<Result<Consistency, RecoveryError>>>>,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replay(at {})", self.progress.replayed())
    }
}

impl Replay {
    /// Starts the thread `replay`, from the record at or behind `from`. A failure of redo stops the node.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        dispatcher: Dispatcher,
        control: Arc<ControlStore>,
        node: Arc<NodeState>,
        from: Lsn,
        consistency: Consistency,
    ) -> Result<Self, RecoveryError> {
        let door = Arc::new(Door { orders: Mutex::default(), wake: Condvar::new(), moved: AtomicBool::new(true) });
        let wal = Arc::clone(&dispatcher.ctx.wal);
        let weak = Arc::downgrade(&door);
        wal.add_position_listener(Box::new(move |_| {
            if let Some(door) = weak.upgrade() {
                door.moved.store(true, Ordering::Release);
                let _orders = door.orders.lock();
                door.wake.notify_all();
            }
        }));
        let progress = Arc::clone(&dispatcher.progress);
        let reader = WalReader::follow(wal, from, FollowLimit::Flushed);
        let redo = Redo::new(dispatcher, control, node, reader, consistency);
        let max_delay = Arc::clone(&redo.max_delay);
        let inside = Arc::clone(&door);
        let thread = std::thread::Builder::new()
            .name("replay".to_owned())
            .spawn(move || {
                let result = run(redo, &inside);
                if let Err(error) = &result {
                    stop_node(&error.to_string());
                }
                result
            })
            .map_err(|source| RecoveryError::File { path: "replay thread".to_owned(), source })?;
        Ok(Self { door, progress, max_delay, thread: Mutex::new(Some(thread)) })
    }

    /// How far it is.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// `max_standby_streaming_delay`.
    pub fn max_delay(&self) -> &MaxDelay {
        &self.max_delay
    }

    /// Whether all WAL up to `flushed` is applied.
    pub fn has_caught_up(&self, flushed: Lsn) -> bool {
        self.progress.replayed() >= flushed
    }

    /// `pg_wal_replay_pause()`.
    pub fn pause(&self) {
        self.door.orders.lock().paused = true;
    }

    /// `pg_wal_replay_resume()`.
    pub fn resume(&self) {
        self.door.orders.lock().paused = false;
        self.door.wake.notify_all();
    }

    /// `pg_is_wal_replay_paused()`.
    pub fn is_paused(&self) -> bool {
        self.door.orders.lock().paused
    }

    /// Applies all that is durable here and ends. Returns how consistency stands; `None` if the thread had ended already.
    ///
    /// # Errors
    /// None that returns: a failure of redo stops the node.
    pub fn finish(&self) -> Result<Option<Consistency>, RecoveryError> {
        self.order(|orders| {
            orders.finish = true;
            orders.paused = false;
        })
    }

    /// Ends after the current record. Returns how consistency stands, as [`Self::finish`].
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn stop(&self) -> Result<Option<Consistency>, RecoveryError> {
        self.order(|orders| orders.stop = true)
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) -> Result<Option<Consistency>, RecoveryError> {
        change(&mut self.door.orders.lock());
        self.door.wake.notify_all();
        match self.thread.lock().take().map(JoinHandle::join) {
            None => Ok(None),
            Some(Ok(result)) => result.map(Some),
            Some(Err(_panic)) => stop_node("replay panicked"),
        }
    }
}

fn run(mut redo: Redo, door: &Door) -> Result<Consistency, RecoveryError> {
    redo.check_start()?;
    loop {
        let finishing = {
            let mut orders = door.orders.lock();
            while orders.paused && !orders.stop && !orders.finish {
                redo.publish();
                door.wake.wait(&mut orders);
            }
            if orders.stop {
                return Ok(redo.consistency().clone());
            }
            orders.finish
        };
        door.moved.store(false, Ordering::Release);
        // A batch without looking at the orders: they are not that urgent.
        let mut more = true;
        for _ in 0..PUBLISH_EVERY {
            more = redo.step()?;
            if !more {
                break;
            }
        }
        if more {
            continue;
        }
        redo.publish();
        if finishing {
            return Ok(redo.consistency().clone());
        }
        let mut orders = door.orders.lock();
        while !door.moved.load(Ordering::Acquire) && !orders.stop && !orders.finish {
            door.wake.wait(&mut orders);
        }
    }
}
