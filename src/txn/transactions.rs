//! All transactions of a node: xids, their status and commit LSNs, the visible positions, the removal horizon.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use afterimage_wal::disk::Disk;
use afterimage_wal::ids::{Lsn, Oid, RelId, Xid};
use afterimage_wal::{RecordBuilder, Wal, rmgr};
use parking_lot::{Mutex, RwLock};

use super::cancel::CancelFlag;
use super::commit_lsns::CommitLsns;
use super::conflicts::Conflicts;
use super::error::TxnError;
use super::exported::ExportedNode;
use super::locks::{LockHolder, LockManager, WaitsFor};
use super::positions::{CommitLevel, CommitQueue, CommitWait, CommitWaiter, Positions, Queued, Released, SyncPositions, acknowledge};
use super::proc::{Proc, ProcId, Procs};
use super::record::{Decision, Invalidation, KIND_ABORT, KIND_ABORT_PREPARED, KIND_COMMIT_PREPARED, KIND_PREPARE, KIND_TRIM};
use super::serializable::{Serializable, SerializableNode};
use super::snapshot::{OwnXids, Registration, Snapshot};
use super::standby::StandbyLocks;
use super::table_stats::TableStats;
use super::transaction::{Transaction, TransactionOptions};
use super::two_phase::{Prepared, PreparedNode, PreparedState};
use super::xact_status::{Status, XactStatus};
use crate::storage::CriticalSection;

/// Where an xid stands, for visibility.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XidStatus {
    /// Not decided.
    Running,
    /// Committed at this LSN; INVALID: before anything that can ask.
    Committed(Lsn),
    /// Rolled back, or ended by a crash.
    Aborted,
}

/// What a node's transactions start from: the checkpoint it recovers from, or initdb's.
pub struct TransactionsStart {
    /// `pg_xact`.
    pub dir: PathBuf,
    /// The disk it is on.
    pub disk: Arc<dyn Disk>,
    /// The WAL that commits go to. It knows the cluster's identity.
    pub wal: Arc<Wal>,
    /// Next xid as of the checkpoint.
    pub next_xid: Xid,
    /// Oldest xid that was not settled then.
    pub oldest_xid: Xid,
    /// Where redo starts, or the end of the WAL if there is nothing to redo.
    pub position: Lsn,
}

/// What a checkpoint keeps of the transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointXids {
    /// Next xid to assign.
    pub next_xid: Xid,
    /// Every xid below is finished.
    pub oldest_xid: Xid,
    /// The redo point must not lie after this: a commit record may be there that is not recorded yet.
    pub redo_limit: Option<Lsn>,
}

type InvalidationHook = Box<dyn Fn(Lsn, &[Invalidation]) + Send + Sync>;
type UnlinkHook = Box<dyn Fn(Lsn, &[RelId]) + Send + Sync>;

/// The node's transactions.
pub struct Transactions {
    wal: Arc<Wal>,
    locks: Arc<LockManager>,
    serializable: Arc<SerializableNode>,
    prepared: PreparedNode,
    exported: ExportedNode,
    procs: Arc<Procs>,
    status: XactStatus,
    lsns: CommitLsns,
    queue: Arc<CommitQueue>,
    next_xid: AtomicU64,
    /// An xid below it of which nothing is recorded was ended by a crash.
    crashed_below: AtomicU64,
    /// Replaying: positions follow replay, no xid is assigned.
    recovering: Arc<AtomicBool>,
    /// The horizon as last computed: monotone, at or below `replicated`. `SeqCst`, see `SnapshotSlot`.
    horizon: AtomicU64,
    /// By level: where the last commit ends that changed catalogs at a lower one while synchronous standbys are waited for.
    ddl_below: [AtomicU64; CommitLevel::COUNT],
    /// What standbys ask to be kept; `u64::MAX`: nothing.
    feedback: AtomicU64,
    /// A checkpoint's redo point lies at or before this; later records will be replayed after a crash.
    redo_bound: AtomicU64,
    /// One at a time raises the settled floor. Rank 77.
    settling: Mutex<()>,
    decided: AtomicU64,
    /// Told of a commit's stale cache entries before it becomes visible. Rank 76.
    invalidation_hooks: RwLock<Vec<InvalidationHook>>,
    /// Told of files to unlink: dropped by a commit, or created by what rolled back. Rank 76.
    unlink_hooks: RwLock<Vec<UnlinkHook>>,
    table_stats: TableStats,
    conflicts: Conflicts,
    standby_locks: StandbyLocks,
}

impl std::fmt::Debug for Transactions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transactions").field("next_xid", &self.next_xid).field("positions", &self.positions()).finish_non_exhaustive()
    }
}

impl Transactions {
    /// Transactions of a node that is still recovering; [`Self::end_recovery`] lets it write.
    pub fn new(start: TransactionsStart) -> Arc<Self> {
        let procs = Arc::new(Procs::default());
        let system = start.wal.system_id();
        let oldest = start.oldest_xid.min(start.next_xid).max(Xid::FIRST_NORMAL);
        let queue = Arc::new(CommitQueue::new(start.position));
        let this = Arc::new(Self {
            serializable: SerializableNode::new(Arc::clone(&queue)),
            exported: ExportedNode::default(),
            prepared: PreparedNode::new(start.dir.with_file_name("pg_twophase"), Arc::clone(&start.disk), system),
            locks: Arc::new(LockManager::new(Arc::clone(&procs))),
            procs,
            status: XactStatus::new(start.dir, start.disk, system, oldest),
            lsns: CommitLsns::new(oldest),
            queue,
            next_xid: AtomicU64::new(start.next_xid.max(Xid::FIRST_NORMAL).as_u64()),
            crashed_below: AtomicU64::new(oldest.as_u64()),
            recovering: Arc::new(AtomicBool::new(true)),
            horizon: AtomicU64::new(start.position.as_u64()),
            ddl_below: Default::default(),
            feedback: AtomicU64::new(u64::MAX),
            redo_bound: AtomicU64::new(start.position.as_u64()),
            settling: Mutex::default(),
            decided: AtomicU64::new(0),
            invalidation_hooks: RwLock::default(),
            unlink_hooks: RwLock::default(),
            table_stats: TableStats::default(),
            conflicts: Conflicts::default(),
            standby_locks: StandbyLocks::default(),
            wal: start.wal,
        });
        // The WAL's own thread calls this, so nothing in it may own the WAL.
        let (queue, locks, recovering) = (Arc::clone(&this.queue), Arc::clone(&this.locks), Arc::clone(&this.recovering));
        this.wal.add_position_listener(Box::new(move |p| {
            if !recovering.load(Ordering::Acquire) {
                release(&locks, queue.advance(p.flushed));
            }
        }));
        this
    }

    /// A new session.
    pub fn enter(&self, id: ProcId, cancel: Arc<CancelFlag>) -> Arc<Proc> {
        self.procs.enter(id, cancel)
    }

    /// Begins a transaction of `proc`.
    pub fn begin(self: &Arc<Self>, proc: &Arc<Proc>, options: TransactionOptions) -> Transaction {
        Transaction::new(Arc::clone(self), Arc::clone(proc), options)
    }

    /// The lock manager.
    pub fn locks(&self) -> &Arc<LockManager> {
        &self.locks
    }

    /// The serializable transactions.
    pub fn serializable(&self) -> &Arc<SerializableNode> {
        &self.serializable
    }

    pub(super) fn standby_locks(&self) -> &StandbyLocks {
        &self.standby_locks
    }

    pub(super) fn procs_list(&self) -> &Procs {
        &self.procs
    }

    pub(super) fn exported(&self) -> &ExportedNode {
        &self.exported
    }

    /// The WAL.
    pub fn wal(&self) -> &Arc<Wal> {
        &self.wal
    }

    /// What happened to each table.
    pub fn table_stats(&self) -> &TableStats {
        &self.table_stats
    }

    /// Sessions, for `pg_stat_activity` and the like.
    pub fn procs(&self) -> Vec<Arc<Proc>> {
        self.procs.all()
    }

    /// Adds a listener for stale cache entries. It runs before the commit is visible to anyone, on the primary and in redo.
    pub fn on_invalidations(&self, hook: impl Fn(Lsn, &[Invalidation]) + Send + Sync + 'static) {
        self.invalidation_hooks.write().push(Box::new(hook));
    }

    /// Adds a listener for files that are to be unlinked once no snapshot here is older than the LSN given.
    pub fn on_unlink(&self, hook: impl Fn(Lsn, &[RelId]) + Send + Sync + 'static) {
        self.unlink_hooks.write().push(Box::new(hook));
    }

    // ---- xids and their status

    /// The next xid to be assigned.
    pub fn next_xid(&self) -> Xid {
        Xid::from_u64(self.next_xid.load(Ordering::SeqCst))
    }

    /// Whether the node replays and may not write.
    pub fn in_recovery(&self) -> bool {
        self.recovering.load(Ordering::Acquire)
    }

    pub(super) fn assign_xid(&self) -> Result<Xid, TxnError> {
        if self.in_recovery() {
            return Err(TxnError::InRecovery("assign TransactionIds"));
        }
        let xid = Xid::from_u64(self.next_xid.fetch_add(1, Ordering::SeqCst));
        self.status.prepare(xid)?;
        Ok(xid)
    }

    /// Where `xid` stands. Looks at the status first, then at the commit LSN.
    ///
    /// # Errors
    /// If its status file is damaged.
    #[inline]
    pub fn xid_status(&self, xid: Xid) -> Result<XidStatus, TxnError> {
        Ok(match self.status.get(xid)? {
            Status::Committed => XidStatus::Committed(self.lsns.get(xid)),
            Status::Aborted => XidStatus::Aborted,
            Status::Unknown if xid.as_u64() < self.crashed_below.load(Ordering::Acquire) && !self.prepared.contains(xid) => {
                XidStatus::Aborted
            }
            Status::Unknown => XidStatus::Running,
        })
    }

    /// The oldest xid that ran where a snapshot reads, for views; an older one where that would take long to find out.
    pub fn oldest_running_at(&self, lsn: Lsn) -> Xid {
        const LOOK: u64 = 1 << 16;
        let from = self.lsns.floor().max(self.status.oldest());
        let upto = self.next_xid().min(Xid::from_u64(from.as_u64().saturating_add(LOOK)));
        let mut xid = from;
        while xid < upto && matches!(self.xid_status(xid), Ok(XidStatus::Committed(_) | XidStatus::Aborted)) && self.lsns.get(xid) <= lsn {
            xid = xid.next();
        }
        xid
    }

    /// The LSN at which a decided xid was decided; INVALID if that is long ago. For hints: they need the record to be durable.
    #[inline]
    pub fn decided_at(&self, xid: Xid) -> Lsn {
        self.lsns.get(xid)
    }

    /// Whether an xid that is committed is so for every snapshot.
    #[inline]
    pub fn is_settled(&self, xid: Xid) -> bool {
        xid < self.lsns.floor()
    }

    /// Xids below are finished and decided before any snapshot.
    pub fn settled_floor(&self) -> Xid {
        self.lsns.floor()
    }

    /// Whether `xid` still counts as running for others: undecided, or committed with its level not yet reached.
    ///
    /// # Errors
    /// If its status file is damaged.
    pub fn is_in_progress(&self, xid: Xid) -> Result<bool, TxnError> {
        Ok(match self.xid_status(xid)? {
            XidStatus::Running => true,
            XidStatus::Committed(lsn) => self.queue.is_waiting(lsn),
            XidStatus::Aborted => false,
        })
    }

    /// Whether the commit at `lsn` has not reached its level yet: its transaction still counts as running, and holds its locks.
    #[inline]
    pub fn is_waiting(&self, lsn: Lsn) -> bool {
        self.queue.is_waiting(lsn)
    }

    /// Sleeps until `xid` is finished for others, and, if it committed, until sessions at `level` read its changes.
    ///
    /// # Errors
    /// Deadlock, timeout, cancel.
    pub fn wait_for_xid(&self, proc: &Proc, xid: Xid, level: CommitLevel) -> Result<(), TxnError> {
        if self.is_in_progress(xid)? {
            self.locks.wait_for_xid(proc, xid, || !matches!(self.is_in_progress(xid), Ok(true)))?;
        }
        if let XidStatus::Committed(lsn) = self.xid_status(xid)? {
            self.wait_readable(proc, level, lsn)?;
        }
        Ok(())
    }

    /// Sleeps until sessions at `level` read at `lsn` or later. Own commits are always read.
    ///
    /// # Errors
    /// If the node stops.
    pub fn wait_readable(&self, proc: &Proc, level: CommitLevel, lsn: Lsn) -> Result<(), TxnError> {
        if lsn <= proc.last_commit() { Ok(()) } else { self.sleep_until(proc, level, lsn) }
    }

    /// Sleeps until it is settled whether a read-only serializable transaction has a safe snapshot.
    pub(super) fn wait_settled(&self, proc: &Proc, serializable: &Serializable) -> Result<(), TxnError> {
        let settled = || serializable.is_safe() || serializable.spoiled();
        if settled() { Ok(()) } else { self.locks.sleep(proc, WaitsFor::SafeSnapshot, &serializable.settled(), settled) }
    }

    /// Whether sessions at `level` read the catalogs as those left them who committed at a lower level, and whose locks are gone.
    #[inline]
    pub(super) fn knows_ddl(&self, proc: &Proc, level: CommitLevel) -> bool {
        let Some(ddl) = self.ddl_below.get(level as usize) else { return true };
        let lsn = Lsn::from_u64(ddl.load(Ordering::SeqCst));
        lsn <= self.queue.readable(level) || lsn <= proc.last_commit()
    }

    /// Sleeps until sessions at `level` read the catalogs as those left them who committed at a lower level, and whose locks are gone.
    ///
    /// # Errors
    /// If the node stops; a timeout, a cancel.
    pub(super) fn wait_for_ddl(&self, proc: &Proc, level: CommitLevel) -> Result<(), TxnError> {
        let Some(ddl) = self.ddl_below.get(level as usize) else { return Ok(()) };
        self.wait_readable(proc, level, Lsn::from_u64(ddl.load(Ordering::SeqCst)))
    }

    fn sleep_until(&self, proc: &Proc, level: CommitLevel, lsn: Lsn) -> Result<(), TxnError> {
        let Some(waiter) = self.queue.sleeper(level, lsn) else { return Ok(()) };
        let done = || self.queue.readable(level) >= lsn || self.queue.is_stopped();
        let r = self.locks.sleep(proc, WaitsFor::Position(lsn), &waiter, done);
        self.queue.forget_sleeper(level, lsn, &waiter);
        r?;
        if self.queue.readable(level) >= lsn { Ok(()) } else { Err(TxnError::CommitUnknown(lsn)) }
    }

    // ---- positions

    /// The visible positions.
    pub fn positions(&self) -> Positions {
        Positions {
            recorded: self.queue.reached(CommitLevel::Off),
            flushed: self.queue.reached(CommitLevel::Local),
            replicated: self.queue.reached(CommitLevel::On),
        }
    }

    /// The position sessions at `level` read at.
    #[inline]
    pub fn readable(&self, level: CommitLevel) -> Lsn {
        self.queue.readable(level)
    }

    /// How far the synchronous standbys are; `None`: none are asked for, so `flushed` counts. In recovery it is only remembered: the first commit
    /// after a promotion waits already.
    pub fn set_replicated(&self, sync: Option<SyncPositions>) {
        if self.in_recovery() {
            self.queue.expect_sync(sync);
        } else {
            self.release(self.queue.set_sync(sync, || self.wal.flushed()));
            self.procs.gone.tell();
        }
    }

    /// Whether commits wait for synchronous standbys.
    pub fn is_synchronous(&self) -> bool {
        self.queue.is_synchronous()
    }

    /// Replay has applied everything before `lsn`: sessions on this standby read there.
    pub fn set_replayed(&self, lsn: Lsn) {
        self.release(self.queue.set_all(lsn));
        self.standby_locks.let_go(&self.locks);
        self.procs.gone.tell();
    }

    /// Calls `hook` when the horizon may have moved, once for each [`Self::watch_horizon`].
    pub fn on_horizon(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.procs.gone.on_move(hook);
    }

    /// Asks for one call of the hook of [`Self::on_horizon`]; to be asked before the look at the horizon.
    pub fn watch_horizon(&self, wanted: bool) {
        self.procs.gone.watch(wanted);
    }

    /// The node stops: commits that wait learn that their outcome is unknown.
    pub fn stop(&self) {
        self.queue.stop();
    }

    fn release(&self, released: Released) {
        release(&self.locks, released);
    }

    /// A fresh snapshot for reads outside a transaction's statements, as of catalogs; `cid` and `own` are the transaction's, if
    /// there is one.
    ///
    /// # Errors
    /// If the node stops.
    pub fn snapshot_for(&self, proc: &Proc, level: CommitLevel, cid: u32, own: Option<Arc<OwnXids>>) -> Result<Snapshot, TxnError> {
        Ok(Snapshot::new(self.register(proc, level)?, cid, own))
    }

    /// Where a snapshot of `proc` taken now would read at least; registers nothing.
    pub fn readable_for(&self, proc: &Proc, level: CommitLevel) -> Lsn {
        self.queue.readable(level).max(proc.last_commit())
    }

    // ---- horizon

    pub(super) fn register(&self, proc: &Proc, level: CommitLevel) -> Result<Registration, TxnError> {
        let own = proc.last_commit();
        if self.queue.reached(CommitLevel::Off) < own {
            // Behind another commit that is just being recorded.
            self.sleep_until(proc, CommitLevel::Off, own)?;
        }
        let floor = Lsn::from_u64(self.horizon.load(Ordering::SeqCst));
        Ok(Registration::new(&proc.slot, floor, || self.queue.readable(level).max(own)))
    }

    /// No snapshot, here or on a standby that asked, needs a version whose end committed at or before this.
    pub fn horizon(&self) -> Lsn {
        // The position before the snapshots: one that registers after the scan reads at or above it.
        let replicated = self.queue.reached(CommitLevel::On).as_u64();
        let h = replicated.min(self.procs.oldest_snapshot()).min(self.feedback.load(Ordering::SeqCst));
        Lsn::from_u64(self.horizon.fetch_max(h, Ordering::SeqCst).max(h))
    }

    /// Whether a version ended at `lsn` is needed by nobody. Looks at the sessions only if the last answer does not suffice.
    pub fn is_removable(&self, lsn: Lsn) -> bool {
        lsn.as_u64() <= self.horizon.load(Ordering::SeqCst) || (lsn <= self.queue.reached(CommitLevel::On) && lsn <= self.horizon())
    }

    /// The oldest snapshot of this node's sessions; `None`: there is none.
    pub fn oldest_snapshot(&self) -> Option<Lsn> {
        match self.procs.oldest_snapshot() {
            u64::MAX => None,
            v => Some(Lsn::from_u64(v)),
        }
    }

    /// What replay cancelled here.
    pub fn conflicts(&self) -> &Conflicts {
        &self.conflicts
    }

    /// Replay: waits until no snapshot here is older than `horizon`, or the deadline; returns whether that is so.
    pub fn wait_for_snapshots(&self, horizon: Lsn, deadline: Option<Instant>) -> bool {
        self.procs.wait_for_snapshots(horizon, deadline)
    }

    /// Sleeps until no other session of the database has a snapshot older than `upto`.
    ///
    /// # Errors
    /// Deadlock, timeout, cancel.
    ///
    /// PostgreSQL: `WaitForOlderSnapshots` in commands/indexcmds.c.
    pub fn wait_for_older_snapshots(&self, proc: &Proc, database: Oid, upto: Lsn) -> Result<(), TxnError> {
        let waiter = Arc::default();
        let _told = self.procs.gone.tell_too(&waiter);
        while let Some((id, transaction)) = self.procs.older_than(proc.id(), database, upto) {
            self.locks.sleep(proc, WaitsFor::Snapshots(id, transaction), &waiter, || !self.procs.is_older(id, upto))?;
        }
        Ok(())
    }

    /// What the standbys' queries and slots need kept: the least of them; `None`: nothing.
    pub fn set_feedback(&self, oldest: Option<Lsn>) {
        self.feedback.store(oldest.map_or(u64::MAX, Lsn::as_u64), Ordering::SeqCst);
        self.procs.gone.tell();
    }

    /// Raises the settled floor past xids that are finished and decided at or before the horizon.
    ///
    /// # Errors
    /// If a status file is damaged.
    pub fn settle(&self) -> Result<(), TxnError> {
        let Some(_one) = self.settling.try_lock() else { return Ok(()) };
        let horizon = self.horizon();
        // A checkpoint may know an older floor than what was trimmed since.
        let (mut xid, next) = (self.lsns.floor().max(self.status.oldest()), self.next_xid());
        while xid < next {
            match self.xid_status(xid)? {
                XidStatus::Running => break,
                XidStatus::Committed(lsn) if lsn > horizon => break,
                XidStatus::Committed(_) | XidStatus::Aborted => xid = xid.next(),
            }
        }
        // Below the floor nothing recorded means aborted; so that must be true for all of them.
        self.crashed_below.fetch_max(xid.as_u64(), Ordering::AcqRel);
        self.lsns.settle(xid);
        Ok(())
    }

    fn settle_sometimes(&self) -> Result<(), TxnError> {
        if self.decided.fetch_add(1, Ordering::Relaxed) % 256 == 255 { self.settle() } else { Ok(()) }
    }

    // ---- deciding

    pub(super) fn now() -> i64 {
        const EPOCH_2000: u64 = 946_684_800;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX) - i64::try_from(EPOCH_2000 * 1_000_000).unwrap_or(0)
    }

    /// Writes and records a commit. The locks pass to the queue.
    pub(super) fn commit_xid(
        &self,
        kind: u8,
        proc: &Proc,
        top: Xid,
        mut decision: Decision,
        level: CommitLevel,
        locks: Option<Arc<LockHolder>>,
    ) -> Result<CommitWait, TxnError> {
        decision.time = Self::now();
        // Others go by changed catalogs, and without the dropped files, as soon as the locks are gone. PostgreSQL: `forceSyncCommit`.
        let is_ddl = !decision.invalidations.is_empty() || !decision.drops.is_empty();
        let level = if is_ddl { level.max(CommitLevel::Local) } else { level };
        let ticket = self.queue.enter(|| self.wal.inserted());
        let inserted = {
            let mut main = Vec::with_capacity(64);
            decision.encode(top, &mut main);
            let mut record = RecordBuilder::new(rmgr::XACT, kind, top);
            record.carry_flushed_mark().main(&main);
            self.wal.insert(&record)
        };
        let lsn = match inserted {
            Ok(range) => range.end,
            Err(e) => {
                self.release(self.queue.leave(&ticket, None, || self.wal.flushed()));
                return Err(e.into());
            }
        };
        if is_ddl && self.is_synchronous() {
            // Before its locks go.
            for below in self.ddl_below.iter().skip(level as usize + 1) {
                below.fetch_max(lsn.as_u64(), Ordering::SeqCst);
            }
        }
        // From here the commit is in the WAL: what fails now must stop the node, not report an abort.
        let critical = CriticalSection::begin("record a commit");
        self.record(top, &decision.subs, Status::Committed, lsn)?;
        if !decision.invalidations.is_empty() {
            self.invalidation_hooks.read().iter().for_each(|h| h(lsn, &decision.invalidations));
        }
        critical.end();
        proc.set_last_commit(lsn);
        proc.set_own(None);
        if let Some(l) = &locks {
            l.detach();
        }
        let waiter = Arc::<CommitWaiter>::default();
        let queued = Queued { locks, top, subs: decision.subs, waiter: Some(Arc::clone(&waiter)) };
        self.release(self.queue.leave(&ticket, Some((lsn, level, queued)), || self.wal.flushed()));
        let wait = CommitWait::new(lsn, level, waiter, &self.wal);
        if !decision.drops.is_empty() {
            self.unlink_hooks.read().iter().for_each(|h| h(lsn, &decision.drops));
        }
        self.settle_sometimes()?;
        Ok(wait)
    }

    /// Writes and records the abort of `xids` (ascending, the first stands for all), then wakes who waits for them.
    pub(super) fn abort_xids(&self, xids: &[Xid], created: Vec<RelId>) -> Result<(), TxnError> {
        self.abort_as(KIND_ABORT, xids, created).map(drop)
    }

    fn abort_as(&self, kind: u8, xids: &[Xid], created: Vec<RelId>) -> Result<Lsn, TxnError> {
        let Some((first, rest)) = xids.split_first() else { return Ok(Lsn::INVALID) };
        let decision = Decision { time: Self::now(), subs: rest.to_vec(), drops: created, ..Decision::default() };
        let mut main = Vec::with_capacity(32);
        decision.encode(*first, &mut main);
        let mut record = RecordBuilder::new(rmgr::XACT, kind, *first);
        record.main(&main);
        let lsn = self.wal.insert(&record)?.end;
        self.record(*first, rest, Status::Aborted, lsn)?;
        self.locks.xid_finished(xids.iter().copied());
        if !decision.drops.is_empty() {
            self.unlink_hooks.read().iter().for_each(|h| h(lsn, &decision.drops));
        }
        self.settle_sometimes()?;
        Ok(lsn)
    }

    // ---- two-phase commit

    /// Prepares the transaction of `own`: from now on it is no session's. Resolves like a commit once the record is as safe as `level` asks.
    pub(super) fn prepare_xids(
        &self,
        own: &Arc<OwnXids>,
        state: PreparedState,
        holder: &Arc<LockHolder>,
        serializable: Option<Arc<Serializable>>,
        limit: usize,
        level: CommitLevel,
    ) -> Result<CommitWait, TxnError> {
        let top = own.top();
        let reserved = self.prepared.reserve(&state.gid, limit)?;
        let ticket = self.queue.enter(|| self.wal.inserted());
        let inserted = {
            let mut main = Vec::new();
            state.encode(top, &mut main);
            let mut record = RecordBuilder::new(rmgr::XACT, KIND_PREPARE, top);
            record.main(&main);
            self.wal.insert(&record)
        };
        let lsn = match inserted {
            Ok(range) => range.end,
            Err(e) => {
                self.release(self.queue.leave(&ticket, None, || self.wal.flushed()));
                return Err(e.into());
            }
        };
        let proc = self.procs.enter(ProcId(0), CancelFlag::new());
        proc.set_own(Some(Arc::clone(own)));
        holder.disown(top);
        let prepared = Prepared::new(top, state, lsn, proc, Arc::clone(holder), serializable);
        self.prepared.add(prepared);
        drop(reserved);
        let waiter = Arc::<CommitWaiter>::default();
        let queued = Queued { locks: None, top, subs: Vec::new(), waiter: Some(Arc::clone(&waiter)) };
        // Whoever may commit it elsewhere must find it after a crash.
        let level = level.max(CommitLevel::Local);
        self.release(self.queue.leave(&ticket, Some((lsn, level, queued)), || self.wal.flushed()));
        Ok(CommitWait::new(lsn, level, waiter, &self.wal))
    }

    /// The prepared transactions, oldest first.
    pub fn prepared(&self) -> Vec<Arc<Prepared>> {
        self.prepared.list()
    }

    /// The prepared transaction of this identifier.
    pub fn find_prepared(&self, gid: &str) -> Option<Arc<Prepared>> {
        self.prepared.find(gid)
    }

    /// COMMIT PREPARED, ROLLBACK PREPARED.
    ///
    /// # Errors
    /// If another session is at it, or has done it; if the WAL fails.
    pub fn finish_prepared(&self, proc: &Proc, p: &Prepared, commit: bool, level: CommitLevel) -> Result<CommitWait, TxnError> {
        if p.ending.swap(true, Ordering::SeqCst) {
            return Err(TxnError::PreparedBusy(p.state.gid.clone()));
        }
        let serializable = p.serializable.write().take();
        let wait = if commit {
            let decision = p.state.commit.clone();
            // As safe as the PREPARE was: after a crash it must not be prepared again.
            let level = level.max(CommitLevel::Local);
            let wait = self.commit_xid(KIND_COMMIT_PREPARED, proc, p.xid, decision, level, Some(Arc::clone(&p.holder)))?;
            if let Some(s) = serializable {
                s.committed(Some(wait.lsn()));
            }
            wait
        } else {
            let mut xids = vec![p.xid];
            xids.extend(&p.state.commit.subs);
            let ticket = self.queue.enter(|| self.wal.inserted());
            let lsn = match self.abort_as(KIND_ABORT_PREPARED, &xids, p.state.creates.clone()) {
                Ok(lsn) => lsn,
                Err(e) => {
                    self.release(self.queue.leave(&ticket, None, || self.wal.flushed()));
                    return Err(e);
                }
            };
            if let Some(s) = serializable {
                s.rolled_back();
            }
            self.locks.release_all(&p.holder);
            // A standby that takes over must not find it prepared.
            let (level, waiter) = (level.max(CommitLevel::Local), Arc::<CommitWaiter>::default());
            let queued = Queued { locks: None, top: p.xid, subs: Vec::new(), waiter: Some(Arc::clone(&waiter)) };
            self.release(self.queue.leave(&ticket, Some((lsn, level, queued)), || self.wal.flushed()));
            CommitWait::new(lsn, level, waiter, &self.wal)
        };
        p.proc.set_own(None);
        self.prepared.remove(p.xid);
        Ok(wait)
    }

    /// A prepared transaction as redo, or its state file, tells of it.
    pub(super) fn add_recovered(&self, xid: Xid, state: PreparedState, lsn: Lsn) -> Result<(), TxnError> {
        self.note_xid(state.commit.subs.last().copied().unwrap_or(xid).max(xid));
        if self.prepared.contains(xid) {
            return Ok(());
        }
        let own = Arc::new(OwnXids::new(xid));
        state.commit.subs.iter().for_each(|s| own.push_sub(*s));
        let proc = self.procs.enter(ProcId(0), CancelFlag::new());
        proc.set_own(Some(own));
        let holder = LockHolder::new(ProcId(0));
        holder.disown(xid);
        state.locks.iter().for_each(|(tag, mode)| self.locks.grant_recovered(&holder, *tag, *mode));
        self.prepared.add(Prepared::new(xid, state, lsn, proc, holder, None));
        Ok(())
    }

    /// A decision was replayed: if it was a prepared transaction's, that is over.
    fn forget_recovered(&self, xid: Xid) {
        if let Some(p) = self.prepared.remove(xid) {
            p.proc.set_own(None);
            self.locks.release_all(&p.holder);
            self.locks.xid_finished(p.state.commit.subs.iter().copied().chain([xid]));
        }
    }

    /// Before redo from `redo`: what was prepared before it, as the state files tell. Those prepared later redo will meet.
    ///
    /// # Errors
    /// A file that is damaged or cannot be read.
    pub fn load_prepared(&self, redo: Lsn) -> Result<(), TxnError> {
        for (xid, lsn, state) in self.prepared.read()? {
            if lsn <= redo && self.status.get(xid)? == Status::Unknown {
                self.add_recovered(xid, state, lsn)?;
            }
        }
        Ok(())
    }

    /// Makes the states of prepared transactions durable; before the checkpoint record.
    ///
    /// # Errors
    /// If the WAL cannot be flushed or a file not written.
    pub fn checkpoint_prepared(&self) -> Result<(), TxnError> {
        // A decision must be durable before the file it makes superfluous goes.
        if !self.in_recovery() {
            self.wal.flush(self.wal.inserted())?;
        }
        self.prepared.checkpoint()
    }

    /// LSN first, status second: readers look the other way round.
    fn record(&self, top: Xid, subs: &[Xid], status: Status, lsn: Lsn) -> Result<(), TxnError> {
        for xid in subs.iter().copied().chain([top]) {
            self.lsns.set(xid, lsn);
        }
        for xid in subs.iter().copied().chain([top]) {
            self.status.set(xid, status)?;
        }
        Ok(())
    }

    // ---- recovery and checkpoint

    /// A record of `xid` was replayed: it is assigned.
    pub fn note_xid(&self, xid: Xid) {
        self.next_xid.fetch_max(xid.as_u64().saturating_add(1), Ordering::SeqCst);
    }

    /// Redo of a decision. Its position follows with [`Self::set_replayed`].
    pub(super) fn redo_decision(&self, top: Xid, d: &Decision, commit: bool, lsn: Lsn) -> Result<(), TxnError> {
        self.note_xid(d.subs.last().copied().unwrap_or(top).max(top));
        let status = if commit { Status::Committed } else { Status::Aborted };
        self.record(top, &d.subs, status, lsn)?;
        self.forget_recovered(top);
        self.standby_locks.end(d.subs.iter().copied().chain([top]));
        if !d.invalidations.is_empty() {
            self.invalidation_hooks.read().iter().for_each(|h| h(lsn, &d.invalidations));
        }
        if !d.drops.is_empty() {
            d.drops.iter().filter(|rel| commit && rel.is_database()).for_each(|rel| self.conflicts.forget(rel.db));
            self.unlink_hooks.read().iter().for_each(|h| h(lsn, &d.drops));
        }
        self.settle_sometimes()
    }

    /// The writer that this node replays began anew with `next_xid`: what it left undecided before is aborted.
    pub fn note_writer_restart(&self, next_xid: Xid) {
        self.next_xid.fetch_max(next_xid.as_u64(), Ordering::SeqCst);
        self.crashed_below.fetch_max(next_xid.as_u64(), Ordering::AcqRel);
        self.standby_locks.end_where(|xid| xid < next_xid && !self.prepared.contains(xid));
    }

    /// Recovery is over, everything before `at` is applied: this node writes from now on. What is undecided is aborted.
    pub fn end_recovery(&self, at: Lsn) {
        self.note_writer_restart(self.next_xid());
        self.release(self.queue.set_all(at));
        for p in self.prepared.list() {
            if let Some(marks) = &p.state.marks {
                let s = self.serializable.enter(ProcId(0), false, || at);
                let xids: Vec<Xid> = [p.xid].into_iter().chain(p.state.commit.subs.iter().copied()).collect();
                s.recovered(&xids, at, marks);
                *p.serializable.write() = Some(s);
            }
        }
        self.standby_locks.end_where(|_| true);
        self.standby_locks.let_go(&self.locks);
        self.recovering.store(false, Ordering::Release);
        self.procs.gone.tell();
    }

    /// What a checkpoint has to keep. Call after choosing the redo point, and take the lesser of it and `redo_limit`.
    pub fn checkpoint_xids(&self) -> CheckpointXids {
        self.redo_bound.fetch_max(self.wal.inserted().as_u64(), Ordering::SeqCst);
        CheckpointXids { redo_limit: self.queue.oldest_pending(), oldest_xid: self.lsns.floor(), next_xid: self.next_xid() }
    }

    /// Whether a record that ends at `lsn` is surely replayed by a recovery from the last checkpoint.
    pub fn is_past_redo(&self, lsn: Lsn) -> bool {
        lsn.as_u64() > self.redo_bound.load(Ordering::SeqCst)
    }

    /// Makes the statuses durable; after `checkpoint_xids`, before the checkpoint record, whose oldest xid is `finished`.
    ///
    /// # Errors
    /// If the WAL cannot be flushed or a file not written.
    pub fn checkpoint_status(&self, finished: Xid) -> Result<(), TxnError> {
        self.settle()?;
        self.status.checkpoint(self.lsns.floor(), finished, || {
            if !self.in_recovery() {
                self.wal.flush(self.wal.inserted())?;
            }
            Ok(())
        })
    }

    /// Forgets statuses of xids below `oldest`, which no row version names any more: as many as fill whole files. Logged, so that standbys
    /// do the same.
    ///
    /// # Errors
    /// WAL; if a file cannot be removed.
    pub fn trim_status(&self, oldest: Xid) -> Result<(), TxnError> {
        let oldest = oldest.min(self.lsns.floor());
        if self.in_recovery() || !self.status.can_trim(oldest) {
            return Ok(());
        }
        let mut record = RecordBuilder::new(rmgr::XACT, KIND_TRIM, Xid::INVALID);
        record.main(&oldest.to_le_bytes());
        let end = self.wal.insert(&record)?.end;
        // What says that nobody needs them is durable before they go.
        self.wal.flush(end)?;
        self.status.trim(oldest)
    }

    pub(super) fn redo_trim(&self, oldest: Xid) -> Result<(), TxnError> {
        self.settle()?;
        self.status.trim(oldest.min(self.lsns.floor()))
    }

    /// Statuses below are gone.
    pub fn oldest_status(&self) -> Xid {
        self.status.oldest()
    }
}

/// Commits whose level was reached let go: locks first, then those who wait for the xid, then the session.
fn release(locks: &LockManager, released: Released) {
    for q in &released {
        if let Some(l) = &q.locks {
            locks.release_all(l);
        }
        locks.xid_finished(std::iter::once(q.top).chain(q.subs.iter().copied()));
        acknowledge(q);
    }
}
