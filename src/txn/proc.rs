//! A session as other sessions see it: PostgreSQL's PGPROC.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use afterimage_wal::ids::{BlockNo, Lsn, Oid, RelId, Xid};
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use super::cancel::CancelFlag;
use super::locks::LockHolder;
use super::snapshot::{InTablespace, OwnXids, SnapshotGone, SnapshotSlot};

/// The number clients know a session by: what `pg_backend_pid()` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcId(pub i32);

impl ProcId {
    /// Nobody's session: what only replay, or the end of a prepared transaction, gives up.
    pub const NOBODY: Self = Self(0);
    /// How replay is called in views and messages. No process has so high a number.
    pub const STARTUP: Self = Self(0x7000_0004);
}

/// Takes to the log what a session tells of its waits for locks (`log_lock_waits`).
pub trait LockLog: Send + Sync + std::fmt::Debug {
    /// One entry of level LOG.
    fn waited(&self, message: &str, detail: Option<&str>);
}

/// One session's entry in the node's list. Leaves the list when dropped.
#[derive(Debug)]
pub struct Proc {
    id: ProcId,
    cancel: Arc<CancelFlag>,
    registry: Arc<Procs>,
    /// Oldest registered snapshot.
    pub(super) slot: Arc<SnapshotSlot>,
    /// Locks held across transactions (advisory).
    pub(super) session_locks: Arc<LockHolder>,
    /// The running transaction's xids. Rank 84.
    own: Mutex<Option<Arc<OwnXids>>>,
    /// Transactions begun so far, as PostgreSQL's local transaction ids. Relaxed: only the session changes it.
    begun: AtomicU32,
    /// The number of the running one; 0: none. Relaxed: for `pg_locks`.
    local: AtomicU32,
    /// The commit LSN of this session's last commit: it never reads below it.
    last_commit: AtomicU64,
    /// The commit it waits for; 0: none. Relaxed, for a view.
    committing: AtomicU64,
    /// It vacuums of its own accord: gives way to whoever waits for its locks.
    autovacuum: AtomicBool,
    deadlock_timeout_ms: AtomicU64,
    /// 0: none.
    lock_timeout_ms: AtomicU64,
    /// Who hears of long waits for locks. Rank 87, leaf.
    lock_log: Mutex<Option<Arc<dyn LockLog>>>,
    /// Where this session last inserted, per relation. Rank 87, leaf.
    targets: Mutex<SmallVec<[(RelId, BlockNo); 8]>>,
}

impl Proc {
    /// Its number.
    pub fn id(&self) -> ProcId {
        self.id
    }

    /// Its stop flag.
    pub fn cancel(&self) -> &Arc<CancelFlag> {
        &self.cancel
    }

    /// A transaction begins: its number, never 0.
    pub(super) fn begin_local(&self) -> u32 {
        let number = self.begun.load(Ordering::Relaxed).wrapping_add(1).max(1);
        self.begun.store(number, Ordering::Relaxed);
        self.local.store(number, Ordering::Relaxed);
        number
    }

    /// That transaction is over; another may have begun already.
    pub(super) fn end_local(&self, number: u32) {
        let _another = self.local.compare_exchange(number, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The number of its running transaction, 0 if there is none: the second half of its virtual transaction id.
    pub fn local_transaction(&self) -> u32 {
        self.local.load(Ordering::Relaxed)
    }

    /// Top-level xid of its running transaction.
    pub fn xid(&self) -> Option<Xid> {
        self.own.lock().as_ref().map(|o| o.top())
    }

    /// All xids of its running transaction, its savepoints' included; the top-level one first.
    pub fn xids(&self) -> Vec<Xid> {
        let own = self.own.lock().clone();
        own.map_or_else(Vec::new, |own| {
            let mut all = vec![own.top()];
            all.extend(own.subs());
            all
        })
    }

    /// The commit it waits for.
    pub fn committing(&self) -> Option<Lsn> {
        Some(Lsn::from_u64(self.committing.load(Ordering::Relaxed))).filter(|lsn| lsn.is_valid())
    }

    /// It waits for this commit, or no longer.
    pub fn set_committing(&self, lsn: Option<Lsn>) {
        self.committing.store(lsn.unwrap_or(Lsn::INVALID).as_u64(), Ordering::Relaxed);
    }

    /// LSN of its oldest snapshot.
    pub fn oldest_snapshot(&self) -> Option<Lsn> {
        match self.slot.oldest() {
            SnapshotSlot::NONE => None,
            v => Some(Lsn::from_u64(v)),
        }
    }

    /// Whether replay has to wait for it before it removes what snapshots older than `horizon` see.
    pub fn is_in_the_way(&self, horizon: Lsn) -> bool {
        self.slot.oldest_in_the_way() < horizon.as_u64()
    }

    /// Notes that its temporary files are, or may be, in a tablespace.
    pub fn use_tablespace(&self, space: Oid) -> InTablespace {
        self.slot.use_space(space)
    }

    /// Lets replay go past this session's snapshots while the result lives: the session waits for replay itself. If replay removed what they may
    /// need, [`Snapshot::check`](super::Snapshot::check) says so afterwards.
    pub fn step_aside(&self) -> Aside<'_> {
        self.slot.set_aside(true);
        Aside { proc: self }
    }

    /// LSN of its last commit; INVALID if none.
    pub fn last_commit(&self) -> Lsn {
        Lsn::from_u64(self.last_commit.load(Ordering::Relaxed))
    }

    pub(super) fn set_last_commit(&self, lsn: Lsn) {
        self.last_commit.fetch_max(lsn.as_u64(), Ordering::Relaxed);
    }

    /// Says which database it is connected to.
    pub fn set_database(&self, database: Oid) {
        self.slot.set_database(database);
    }

    /// The database it is connected to; 0 while it logs in.
    pub fn database(&self) -> Oid {
        self.slot.database()
    }

    /// Marks an autovacuum worker.
    pub fn set_autovacuum(&self) {
        self.autovacuum.store(true, Ordering::Relaxed);
    }

    /// Whether it is an autovacuum worker.
    pub fn is_autovacuum(&self) -> bool {
        self.autovacuum.load(Ordering::Relaxed)
    }

    /// `deadlock_timeout` and `lock_timeout` (`None`: wait for ever) of this session.
    pub fn set_lock_timeouts(&self, deadlock: Duration, lock: Option<Duration>) {
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX).max(1);
        self.deadlock_timeout_ms.store(ms(deadlock), Ordering::Relaxed);
        self.lock_timeout_ms.store(lock.map_or(0, ms), Ordering::Relaxed);
    }

    /// Who hears of waits that are longer than `deadlock_timeout`.
    pub fn set_lock_log(&self, log: Option<Arc<dyn LockLog>>) {
        *self.lock_log.lock() = log;
    }

    pub(super) fn lock_log(&self) -> Option<Arc<dyn LockLog>> {
        self.lock_log.lock().clone()
    }

    pub(super) fn deadlock_timeout(&self) -> Duration {
        Duration::from_millis(self.deadlock_timeout_ms.load(Ordering::Relaxed))
    }

    pub(super) fn lock_timeout(&self) -> Option<Duration> {
        match self.lock_timeout_ms.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(Duration::from_millis(ms)),
        }
    }

    pub(super) fn set_own(&self, own: Option<Arc<OwnXids>>) {
        *self.own.lock() = own;
    }

    pub(super) fn owns_xid(&self, xid: Xid) -> bool {
        self.own.lock().as_ref().is_some_and(|o| o.contains(xid))
    }

    /// The block this session last inserted into.
    pub fn insert_target(&self, rel: RelId) -> Option<BlockNo> {
        self.targets.lock().iter().find(|(r, _)| *r == rel).map(|(_, b)| *b)
    }

    /// Remembers the block for the next insert; the oldest of a few is forgotten.
    pub fn set_insert_target(&self, rel: RelId, block: Option<BlockNo>) {
        let mut t = self.targets.lock();
        let at = t.iter().position(|(r, _)| *r == rel);
        match (at, block) {
            (Some(i), Some(b)) => t[i].1 = b,
            (Some(i), None) => {
                t.remove(i);
            }
            (None, Some(b)) => {
                if t.len() == t.inline_size() {
                    t.remove(0);
                }
                t.push((rel, b));
            }
            (None, None) => {}
        }
    }
}

/// A session that replay need not wait for.
#[derive(Debug)]
pub struct Aside<'a> {
    proc: &'a Proc,
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.proc.slot.set_aside(false);
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.registry.leave(self);
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Procs {
    /// Rank 80. Read by the horizon and the deadlock detector, written when a session comes or goes.
    list: RwLock<Vec<(Weak<Proc>, Arc<SnapshotSlot>)>>,
    /// Wakes whoever waits for sessions to get out of the way.
    pub(super) gone: Arc<SnapshotGone>,
}

impl Procs {
    pub(super) fn enter(self: &Arc<Self>, id: ProcId, cancel: Arc<CancelFlag>) -> Arc<Proc> {
        let slot = Arc::new(SnapshotSlot::new(Arc::clone(&self.gone)));
        let proc = Arc::new(Proc {
            id,
            cancel,
            registry: Arc::clone(self),
            slot: Arc::clone(&slot),
            session_locks: LockHolder::new(id),
            own: Mutex::new(None),
            begun: AtomicU32::new(0),
            local: AtomicU32::new(0),
            last_commit: AtomicU64::new(0),
            committing: AtomicU64::new(0),
            autovacuum: AtomicBool::new(false),
            deadlock_timeout_ms: AtomicU64::new(1000),
            lock_timeout_ms: AtomicU64::new(0),
            lock_log: Mutex::new(None),
            targets: Mutex::default(),
        });
        self.list.write().push((Arc::downgrade(&proc), slot));
        proc
    }

    fn leave(&self, proc: &Proc) {
        self.list.write().retain(|(_, s)| !Arc::ptr_eq(s, &proc.slot));
        self.gone.tell();
    }

    /// Oldest registered snapshot of all, or `u64::MAX`.
    pub(super) fn oldest_snapshot(&self) -> u64 {
        self.list.read().iter().map(|(_, s)| s.oldest()).min().unwrap_or(SnapshotSlot::NONE)
    }

    /// Waits until no snapshot is older than `horizon`, or the deadline; returns whether that is so.
    pub(super) fn wait_for_snapshots(&self, horizon: Lsn, deadline: Option<Instant>) -> bool {
        let in_the_way = || self.list.read().iter().map(|(_, s)| s.oldest_in_the_way()).min().unwrap_or(SnapshotSlot::NONE);
        let reached = self.gone.wait(deadline, || in_the_way() >= horizon.as_u64());
        if reached {
            self.list.read().iter().for_each(|(_, s)| s.pass(horizon.as_u64()));
        }
        reached
    }

    /// A session of the database, other than `me`, that has a snapshot older than `upto`, and the number of its transaction.
    pub(super) fn older_than(&self, me: ProcId, database: Oid, upto: Lsn) -> Option<(ProcId, u32)> {
        let older =
            |(p, s): &(Weak<Proc>, Arc<SnapshotSlot>)| (s.database() == database && s.oldest() < upto.as_u64()).then(|| Weak::clone(p));
        let found: Vec<Weak<Proc>> = self.list.read().iter().filter_map(older).collect();
        found.into_iter().filter_map(|p| p.upgrade()).find(|p| p.id() != me).map(|p| (p.id(), p.local_transaction()))
    }

    /// Whether the session has a snapshot older than `upto`.
    pub(super) fn is_older(&self, id: ProcId, upto: Lsn) -> bool {
        self.find(id).is_some_and(|p| p.slot.oldest() < upto.as_u64())
    }

    /// Waits until no session is `in_the_way`, or the deadline; returns whether that is so.
    ///
    /// The condition sees sessions by their slots: to hold a [`Proc`] might be to drop it, and that wakes those who wait here.
    pub(super) fn wait_until_none(&self, deadline: Option<Instant>, in_the_way: impl Fn(&SnapshotSlot) -> bool) -> bool {
        self.gone.wait(deadline, || !self.list.read().iter().any(|(_, s)| in_the_way(s)))
    }

    /// Every session.
    pub(super) fn all(&self) -> Vec<Arc<Proc>> {
        self.list.read().iter().filter_map(|(p, _)| p.upgrade()).collect()
    }

    /// The session with this number.
    pub(super) fn find(&self, id: ProcId) -> Option<Arc<Proc>> {
        self.all().into_iter().find(|p| p.id() == id)
    }

    /// The session whose running transaction writes under `xid`.
    pub(super) fn owner_of(&self, xid: Xid) -> Option<ProcId> {
        self.all().iter().find(|p| p.owns_xid(xid)).map(|p| p.id())
    }
}
