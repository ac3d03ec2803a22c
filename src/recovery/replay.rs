//! The redo loop, and the thread that runs it on a standby.
//!
//! The thread sleeps until WAL is durable here and confirmed, a promotion or a stop is asked for, or a pause ends: events, not polls. It never
//! passes the confirmed position, so no page can know what a crash of this node or of its upstream could take back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use afterimage_wal::{Lsn, WalEnd, WalReader, reader::FollowLimit};
use parking_lot::{Condvar, Mutex};

use super::{
    conflict::{self, Patience},
    dispatch::{Applied, Dispatcher},
    error::RecoveryError,
    prefetch::{PrefetchSettings, Prefetcher},
    progress::{Ending, Progress},
    target::{self, Action, Goal, Stop},
};
use crate::{
    control::{
        control_store::ControlStore,
        node_state::{Event, NodeState},
    },
    storage::critical::stop_node,
    txn::{LockManager, Need},
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

/// Records between two looks at what the thread is told.
const BATCH: u32 = 128;
/// Publish the position at least every so many records; sooner when there is no next one, or when the next one removes what a snapshot
/// taken at the position known so far might need.
const PUBLISH_EVERY: u32 = 32;

/// What replay waits for on a standby, and how far it looks ahead. Reloadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplaySettings {
    /// `recovery_min_apply_delay`.
    pub min_apply_delay: Duration,
    /// `max_standby_streaming_delay`; `None`: queries are never cancelled.
    pub streaming_delay: Option<Duration>,
    /// `max_standby_archive_delay`; `None`: queries are never cancelled.
    pub archive_delay: Option<Duration>,
    /// `deadlock_timeout`.
    pub deadlock_timeout: Duration,
    /// `log_recovery_conflict_waits`.
    pub log_conflict_waits: bool,
    /// Whether and how far to look ahead.
    pub prefetch: PrefetchSettings,
}

impl Default for ReplaySettings {
    fn default() -> Self {
        let delay = Some(Duration::from_secs(30));
        Self {
            min_apply_delay: Duration::ZERO,
            streaming_delay: delay,
            archive_delay: delay,
            deadlock_timeout: LockManager::DEADLOCK_TIMEOUT,
            log_conflict_waits: false,
            prefetch: PrefetchSettings::default(),
        }
    }
}

/// The target of recovery was reached here.
#[derive(Clone, Debug)]
pub struct Reached {
    /// WAL up to here is applied.
    pub end: WalEnd,
    /// Why here.
    pub stop: Stop,
}

/// What one step did.
#[derive(Debug)]
pub enum Step {
    /// Applied a record.
    Applied,
    /// There is none now.
    Nothing,
    /// Nothing more is to be applied.
    Reached(Reached),
    /// Told to end while it waited; nothing was applied.
    Interrupted,
}

/// How a replay ended.
#[derive(Clone, Debug, Default)]
pub struct Finished {
    /// How consistency stands.
    pub consistency: Consistency,
    /// The target, if it was reached.
    pub reached: Option<Reached>,
}

/// The redo loop over one source of records.
pub struct Redo {
    dispatcher: Dispatcher,
    control: Arc<ControlStore>,
    node: Arc<NodeState>,
    reader: WalReader,
    prefetcher: Prefetcher,
    consistency: Consistency,
    unpublished: u32,
    /// What everybody was told last.
    published: Lsn,
    /// When it last had nothing to do.
    caught_up: Instant,
    goal: Goal,
    /// On a standby: where it is told what to do.
    door: Option<Arc<Door>>,
}

fn publish(dispatcher: &Dispatcher, unpublished: &mut u32, published: &mut Lsn) {
    if *unpublished > 0 {
        *unpublished = 0;
        *published = dispatcher.progress.replayed();
        dispatcher.ctx.txns.set_replayed(*published);
        dispatcher.progress.publish();
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
        prefetch: PrefetchSettings,
    ) -> Self {
        let ctx = &dispatcher.ctx;
        ctx.pool.set_inside_backup(consistency.backup_start.is_some());
        let prefetcher = Prefetcher::new(&ctx.pool, &ctx.wal, &dispatcher.progress, prefetch);
        Self {
            dispatcher,
            control,
            node,
            reader,
            prefetcher,
            consistency,
            unpublished: 0,
            published: Lsn::INVALID,
            caught_up: Instant::now(),
            goal: Goal::default(),
            door: None,
        }
    }

    /// How consistency stands.
    pub fn consistency(&self) -> &Consistency {
        &self.consistency
    }

    /// End of the last record applied.
    pub fn position(&self) -> Lsn {
        self.reader.position()
    }

    /// Applies one record, unless there is none or recovery is to end before it.
    ///
    /// # Errors
    /// Redo failed, or the WAL cannot be read.
    pub fn step(&mut self) -> Result<Step, RecoveryError> {
        let before = self.reader.end();
        self.prefetcher.look_ahead(before.end);
        let Some(record) = self.reader.next().map_err(|stop| RecoveryError::Unreadable { stop })? else {
            self.caught_up = Instant::now();
            return Ok(Step::Nothing);
        };
        let consistent = self.consistency.reached;
        if let Some(stop) = self.goal.stops_before(&record, consistent) {
            return Ok(Step::Reached(Reached { end: before, stop }));
        }
        let mut closed = None;
        if consistent && let Some(door) = &self.door {
            if door.delays()
                && let Some(time) = target::commit_time(&record)
            {
                publish(&self.dispatcher, &mut self.unpublished, &mut self.published);
                if !door.wait_for_delay(time) {
                    return Ok(Step::Interrupted);
                }
            }
            for need in conflict::needs(&self.dispatcher.ctx, &record) {
                let publish_first = match &need {
                    // Or a new snapshot would be older than need be, and in the way of this record.
                    Need::Snapshots(horizon) => *horizon > self.published,
                    // Who waits for that lock sees by then what was before it.
                    Need::Locks(..) => true,
                    Need::Pages(_) | Need::Tablespace(_) | Need::Database(_) => false,
                };
                if publish_first {
                    publish(&self.dispatcher, &mut self.unpublished, &mut self.published);
                }
                closed = conflict::resolve(&self.dispatcher.ctx, &need, &door.patience(self.caught_up)).or(closed);
            }
        }
        let (mut applied, end) = (self.dispatcher.apply(&record), record.end());
        if let (Err(error), Some(door)) = (&applied, &self.door)
            && error.is_disk_full()
        {
            // Redo of a record may be repeated, so sessions go on reading what there was until somebody makes room.
            tracing::warn!(hint = "Free disk space; replay goes on when there is some.", "replay waits at {}: {error}", record.start());
            publish(&self.dispatcher, &mut self.unpublished, &mut self.published);
            while matches!(&applied, Err(error) if error.is_disk_full()) {
                if !door.wait_for_room() {
                    return Ok(Step::Interrupted);
                }
                applied = self.dispatcher.apply(&record);
            }
        }
        let applied = applied?;
        if let Applied::Parameters(parameters) = applied {
            self.control.update(|c| c.parameters = parameters)?;
            if self.door.is_some() && parameters.wal_level == 0 {
                return Err(RecoveryError::WalLevelMinimal);
            }
        }
        let stop_after = self.goal.stops_after(&record, consistent);
        drop(record);
        self.dispatcher.progress.advance(end);
        self.unpublished += 1;
        if self.unpublished >= PUBLISH_EVERY || closed.is_some() {
            self.publish();
        }
        // Logins that waited find that the database is gone.
        drop(closed);
        let consistent = self.consistency.note(applied, end);
        if matches!(applied, Applied::BackupEnd(_)) {
            self.dispatcher.ctx.pool.set_inside_backup(self.consistency.backup_start.is_some());
        }
        if consistent {
            self.become_consistent()?;
            if self.goal.target == Some(target::Target::Immediate) {
                return Ok(Step::Reached(Reached { end: self.reader.end(), stop: target::at_consistency() }));
            }
        }
        Ok(match stop_after {
            Some(stop) => Step::Reached(Reached { end: self.reader.end(), stop }),
            None => Step::Applied,
        })
    }

    /// Tells everybody how far replay is.
    pub fn publish(&mut self) {
        publish(&self.dispatcher, &mut self.unpublished, &mut self.published);
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
        let at = self.dispatcher.progress.replayed();
        pool.mend_missing(at)?;
        pool.missing().reach_consistency(pool.files())?;
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

/// `pg_get_wal_replay_pause_state()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseState {
    /// Nobody asked.
    NotPaused,
    /// Asked; a record is still being applied.
    Requested,
    /// Nothing is applied.
    Paused,
}

impl PauseState {
    /// PostgreSQL's words.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotPaused => "not paused",
            Self::Requested => "pause requested",
            Self::Paused => "paused",
        }
    }
}

#[derive(Default)]
struct Orders {
    /// Apply what is durable and confirmed, then end.
    finish: bool,
    /// End now.
    stop: bool,
    /// Somebody wants a pause.
    paused: bool,
    /// The thread does pause.
    pausing: bool,
    /// The target is reached.
    at_target: bool,
    settings: ReplaySettings,
    /// The newest WAL came from the archive.
    from_archive: bool,
}

struct Door {
    /// Leaf. What the thread is told; it sleeps on `wake`.
    orders: Mutex<Orders>,
    wake: Condvar,
    /// Set by the WAL's listener, taken by the thread under `orders`: WAL moved since it last looked.
    moved: AtomicBool,
}

impl Door {
    fn delays(&self) -> bool {
        !self.orders.lock().settings.min_apply_delay.is_zero()
    }

    fn patience(&self, since: Instant) -> Patience {
        let orders = self.orders.lock();
        let delay = if orders.from_archive { orders.settings.archive_delay } else { orders.settings.streaming_delay };
        Patience {
            deadline: delay.map(|delay| since + delay),
            deadlock_timeout: orders.settings.deadlock_timeout,
            log_waits: orders.settings.log_conflict_waits,
        }
    }

    /// Waits until `min_apply_delay` after a commit's time, by this node's clock. False: told to end.
    fn wait_for_delay(&self, commit_time: i64) -> bool {
        let mut orders = self.orders.lock();
        loop {
            if orders.stop {
                return false;
            }
            let delay = i64::try_from(orders.settings.min_apply_delay.as_micros()).unwrap_or(i64::MAX);
            let left = commit_time.saturating_add(delay).saturating_sub(target::now());
            // A promotion takes what is here at once.
            let left = u64::try_from(left).unwrap_or(0);
            if left == 0 || orders.finish {
                return true;
            }
            self.wake.wait_for(&mut orders, Duration::from_micros(left));
        }
    }

    /// Waits a moment for what nobody tells of: room on a disk. False: told to end.
    fn wait_for_room(&self) -> bool {
        const MOMENT: Duration = Duration::from_secs(1);
        let until = Instant::now() + MOMENT;
        let mut orders = self.orders.lock();
        while !orders.stop && !self.wake.wait_until(&mut orders, until).timed_out() {}
        !orders.stop
    }

    /// Waits as long as somebody wants a pause. False: told to end.
    fn wait_while_paused(&self, say: impl FnOnce()) -> bool {
        let mut orders = self.orders.lock();
        if orders.paused && !orders.stop && !orders.finish {
            orders.pausing = true;
            say();
            while orders.paused && !orders.stop && !orders.finish {
                self.wake.wait(&mut orders);
            }
            orders.pausing = false;
        }
        !orders.stop
    }
}

/// Replay on its own thread, following a live WAL.
pub struct Replay {
    door: Arc<Door>,
    progress: Arc<Progress>,
    thread: Mutex<Option<JoinHandle<Result<Finished, RecoveryError>>>>,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replay(at {})", self.progress.replayed())
    }
}

impl Replay {
    /// Starts the thread `replay`, from the record at or behind `from`, towards `goal`. A failure of redo stops the node.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(
        dispatcher: Dispatcher,
        control: Arc<ControlStore>,
        node: Arc<NodeState>,
        from: Lsn,
        consistency: Consistency,
        (goal, settings): (Goal, ReplaySettings),
    ) -> Result<Self, RecoveryError> {
        let orders = Mutex::new(Orders { settings, ..Orders::default() });
        let door = Arc::new(Door { orders, wake: Condvar::new(), moved: AtomicBool::new(true) });
        let wal = Arc::clone(&dispatcher.ctx.wal);
        let weak = Arc::downgrade(&door);
        let seen = AtomicU64::new(0);
        wal.add_position_listener(Box::new(move |positions| {
            // A sync of what is held back changes nothing here.
            if seen.swap(positions.confirmed.as_u64(), Ordering::AcqRel) == positions.confirmed.as_u64() {
                return;
            }
            if let Some(door) = weak.upgrade() {
                door.moved.store(true, Ordering::Release);
                let _orders = door.orders.lock();
                door.wake.notify_all();
            }
        }));
        let progress = Arc::clone(&dispatcher.progress);
        let reader = WalReader::follow(wal, from, FollowLimit::Confirmed);
        let mut redo = Redo::new(dispatcher, control, node, reader, consistency, settings.prefetch);
        redo.goal = goal;
        redo.door = Some(Arc::clone(&door));
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
        Ok(Self { door, progress, thread: Mutex::new(Some(thread)) })
    }

    /// How far it is.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Replaces the settings.
    pub fn set_settings(&self, settings: ReplaySettings) {
        self.door.orders.lock().settings = settings;
        self.door.wake.notify_all();
    }

    /// The settings.
    pub fn settings(&self) -> ReplaySettings {
        self.door.orders.lock().settings
    }

    /// Where the WAL comes from now: it decides how long queries may hold up replay.
    pub fn set_from_archive(&self, from_archive: bool) {
        self.door.orders.lock().from_archive = from_archive;
    }

    /// `pg_wal_replay_pause()`.
    pub fn pause(&self) {
        self.door.orders.lock().paused = true;
        self.door.wake.notify_all();
    }

    /// `pg_wal_replay_resume()`.
    pub fn resume(&self) {
        self.door.orders.lock().paused = false;
        self.door.wake.notify_all();
    }

    /// Whether a pause is asked for (`pg_is_wal_replay_paused()`).
    pub fn is_paused(&self) -> bool {
        self.door.orders.lock().paused
    }

    /// Whether the target of recovery is reached.
    pub fn is_at_target(&self) -> bool {
        self.door.orders.lock().at_target
    }

    /// How a pause stands.
    pub fn pause_state(&self) -> PauseState {
        let orders = self.door.orders.lock();
        match (orders.paused, orders.pausing) {
            (false, _) => PauseState::NotPaused,
            (true, false) => PauseState::Requested,
            (true, true) => PauseState::Paused,
        }
    }

    /// Applies all that is durable here and confirmed, up to the target, and ends. `None` if the thread had ended already.
    ///
    /// # Errors
    /// None that returns: a failure of redo stops the node.
    pub fn finish(&self) -> Result<Option<Finished>, RecoveryError> {
        self.order(|orders| {
            orders.finish = true;
            orders.paused = false;
        })
    }

    /// Ends after the current record. Returns as [`Self::finish`].
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn stop(&self) -> Result<Option<Finished>, RecoveryError> {
        self.order(|orders| orders.stop = true)
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) -> Result<Option<Finished>, RecoveryError> {
        change(&mut self.door.orders.lock());
        self.door.wake.notify_all();
        match self.thread.lock().take().map(JoinHandle::join) {
            None => Ok(None),
            Some(Ok(result)) => result.map(Some),
            Some(Err(_panic)) => stop_node("replay panicked"),
        }
    }
}

fn say_paused() {
    tracing::info!(hint = "Execute pg_wal_replay_resume() to continue.", "recovery has paused");
}

fn run(mut redo: Redo, door: &Door) -> Result<Finished, RecoveryError> {
    redo.check_start()?;
    loop {
        redo.publish();
        if !door.wait_while_paused(say_paused) {
            return Ok(Finished { consistency: redo.consistency, reached: None });
        }
        let finishing = {
            let orders = door.orders.lock();
            redo.prefetcher.set(orders.settings.prefetch);
            orders.finish
        };
        door.moved.store(false, Ordering::Release);
        // A batch without looking at the orders: they are not that urgent.
        let mut step = Step::Nothing;
        for _ in 0..BATCH {
            step = match redo.step() {
                Ok(step) => step,
                Err(error) if error.refuses_more() => {
                    redo.publish();
                    redo.dispatcher.progress.end(Ending::Fatal(error.to_string()));
                    return Ok(wait_for_end(redo, door, None));
                }
                Err(error) => return Err(error),
            };
            if !matches!(step, Step::Applied) {
                break;
            }
        }
        match step {
            Step::Applied | Step::Interrupted => {}
            Step::Reached(reached) => {
                redo.publish();
                return Ok(at_target(redo, door, reached));
            }
            Step::Nothing => {
                redo.publish();
                if finishing {
                    return Ok(Finished { consistency: redo.consistency, reached: None });
                }
                let mut orders = door.orders.lock();
                while !door.moved.load(Ordering::Acquire) && !orders.stop && !orders.finish && !orders.paused {
                    door.wake.wait(&mut orders);
                }
                drop(orders);
                // What comes now has not waited for anybody yet.
                redo.caught_up = Instant::now();
            }
        }
    }
}

/// The target is reached: what follows is as configured. Nothing more is applied in any case.
fn at_target(redo: Redo, door: &Door, reached: Reached) -> Finished {
    tracing::info!("{}", reached.stop.message);
    door.orders.lock().at_target = true;
    let ending = if !redo.consistency.reached {
        Ending::Fatal("requested recovery stop point is before consistent recovery point".to_owned())
    } else {
        match redo.goal.action {
            Action::Promote => Ending::Promote,
            Action::Shutdown => Ending::Shutdown,
            Action::Pause => {
                door.orders.lock().paused = true;
                let told = door.wait_while_paused(|| {
                    tracing::info!(hint = "Execute pg_wal_replay_resume() to promote.", "pausing at the end of recovery");
                });
                if !told || door.orders.lock().finish {
                    // Somebody else decides: a stop, or a promotion that is under way.
                    return Finished { consistency: redo.consistency, reached: Some(reached) };
                }
                Ending::Promote
            }
        }
    };
    redo.dispatcher.progress.end(ending);
    wait_for_end(redo, door, Some(reached))
}

fn wait_for_end(redo: Redo, door: &Door, reached: Option<Reached>) -> Finished {
    let mut orders = door.orders.lock();
    while !orders.stop && !orders.finish {
        door.wake.wait(&mut orders);
    }
    Finished { consistency: redo.consistency, reached }
}
