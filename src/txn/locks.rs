//! The lock manager: eight modes on tables, objects, rows and advisory keys; waiting for transactions; who waits for whom.
//!
//! Row locks taken by SELECT FOR ... and by foreign keys live here only: a row version is written when a row changes, never because it
//! is locked. So sharers need no multixacts, and after a crash there is nothing to clean up. PostgreSQL: storage/lmgr/lock.c.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};

use afterimage_wal::ids::{BlockNo, Lsn, Oid, RelId, Xid};
use hashbrown::HashMap;
use parking_lot::Mutex;
use rustc_hash::FxHasher;
use smallvec::SmallVec;

use super::cancel::CancelReason;
use super::deadlock;
use super::error::TxnError;
use super::proc::{Proc, ProcId, Procs};
use super::transactions::Transactions;
use super::wait::{Waiter, blocking};

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockTag {
    /// A table, index, sequence, view.
    Relation {
        /// Its database, 0 if shared.
        db: Oid,
        /// Its oid.
        rel: Oid,
    },
    /// Any other catalog object.
    Object {
        /// Its database, 0 if shared.
        db: Oid,
        /// The catalog it is described in.
        class: Oid,
        /// Its oid.
        object: Oid,
    },
    /// A row, by the version's place. Requests are granted as they can be, not in order: see `TupleQueue`.
    Tuple {
        /// The table's files.
        rel: RelId,
        /// Block.
        block: BlockNo,
        /// Line pointer.
        offset: u16,
    },
    /// A place among those who wait for a row, by the version's place. Taken before the first wait and given up when it is over, so that
    /// writers get a row in order, while those who need not wait pass by.
    TupleQueue {
        /// The table's files.
        rel: RelId,
        /// Block.
        block: BlockNo,
        /// Line pointer.
        offset: u16,
    },
    /// A row that INSERT ... ON CONFLICT has made, but may take back at once: who finds it by its key waits for that first.
    Speculative {
        /// The table's files.
        rel: RelId,
        /// Block.
        block: BlockNo,
        /// Line pointer.
        offset: u16,
    },
    /// `pg_advisory_lock`.
    Advisory {
        /// Database.
        db: Oid,
        /// Upper half of the key, or the first of two.
        key1: u32,
        /// Lower half, or the second.
        key2: u32,
        /// Whether two keys were given: their space is another.
        two_keys: bool,
    },
}

impl LockTag {
    const PG_CLASS: Oid = 1259;

    /// What LOCK TABLE on a standby and replay of DDL exclude each other by. Readers there do not take it: replay does not wait for them, nor
    /// they for it.
    pub fn replayed_relation(db: Oid, rel: Oid) -> Self {
        Self::Object { db, class: Self::PG_CLASS, object: rel }
    }

    /// The relation, if it is a [`Self::replayed_relation`].
    pub fn as_replayed_relation(&self) -> Option<(Oid, Oid)> {
        match *self {
            Self::Object { db, class: Self::PG_CLASS, object } => Some((db, object)),
            Self::Object { .. }
            | Self::Relation { .. }
            | Self::Tuple { .. }
            | Self::TupleQueue { .. }
            | Self::Speculative { .. }
            | Self::Advisory { .. } => None,
        }
    }

    /// What a login and DROP DATABASE exclude each other by.
    pub fn database(database: Oid) -> Self {
        const PG_DATABASE: Oid = 1262;
        Self::Object { db: 0, class: PG_DATABASE, object: database }
    }
}

impl std::fmt::Display for LockTag {
    /// As PostgreSQL's DescribeLockTag.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Relation { db, rel } | Self::Object { db, class: Self::PG_CLASS, object: rel } => {
                write!(f, "relation {rel} of database {db}")
            }
            Self::Object { db, class, object } => write!(f, "object {object} of class {class} of database {db}"),
            Self::Tuple { rel, block, offset } | Self::TupleQueue { rel, block, offset } => {
                write!(f, "tuple ({},{}) of relation {} of database {}", block.get(), offset, rel.rel, rel.db)
            }
            Self::Speculative { rel, block, offset } => {
                write!(f, "speculative insertion ({},{}) of relation {} of database {}", block.get(), offset, rel.rel, rel.db)
            }
            Self::Advisory { db, key1, key2, two_keys } => {
                write!(f, "advisory lock [{},{},{},{}]", db, key1, key2, if *two_keys { 2 } else { 1 })
            }
        }
    }
}

/// The eight modes of a heavyweight lock, with PostgreSQL's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LockMode {
    /// SELECT.
    AccessShare = 1,
    /// SELECT FOR ....
    RowShare = 2,
    /// INSERT, UPDATE, DELETE.
    RowExclusive = 3,
    /// VACUUM, ANALYZE, CREATE INDEX CONCURRENTLY.
    ShareUpdateExclusive = 4,
    /// CREATE INDEX.
    Share = 5,
    /// CREATE TRIGGER and others.
    ShareRowExclusive = 6,
    /// REFRESH MATERIALIZED VIEW CONCURRENTLY.
    Exclusive = 7,
    /// DROP, TRUNCATE, most of ALTER TABLE.
    AccessExclusive = 8,
}

impl LockMode {
    /// All modes, weakest first.
    pub const ALL: [Self; 8] = [
        Self::AccessShare,
        Self::RowShare,
        Self::RowExclusive,
        Self::ShareUpdateExclusive,
        Self::Share,
        Self::ShareRowExclusive,
        Self::Exclusive,
        Self::AccessExclusive,
    ];

    const fn bit(self) -> u16 {
        1 << self as u8
    }

    /// Modes that conflict with it (PostgreSQL: LockConflicts).
    const fn conflicts(self) -> u16 {
        const fn from(m: LockMode) -> u16 {
            // This mode and all stronger ones.
            0x1fe & !(m.bit() - 1)
        }
        match self {
            Self::AccessShare => Self::AccessExclusive.bit(),
            Self::RowShare => from(Self::Exclusive),
            Self::RowExclusive => from(Self::Share),
            Self::ShareUpdateExclusive => from(Self::ShareUpdateExclusive),
            Self::Share => from(Self::ShareUpdateExclusive) & !Self::Share.bit() | Self::RowExclusive.bit(),
            Self::ShareRowExclusive => from(Self::RowExclusive),
            Self::Exclusive => from(Self::RowShare),
            Self::AccessExclusive => from(Self::AccessShare),
        }
    }

    /// Whether two holders exclude each other.
    pub fn conflicts_with(self, other: Self) -> bool {
        self.conflicts() & other.bit() != 0
    }

    /// As in `pg_locks.mode` and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::AccessShare => "AccessShareLock",
            Self::RowShare => "RowShareLock",
            Self::RowExclusive => "RowExclusiveLock",
            Self::ShareUpdateExclusive => "ShareUpdateExclusiveLock",
            Self::Share => "ShareLock",
            Self::ShareRowExclusive => "ShareRowExclusiveLock",
            Self::Exclusive => "ExclusiveLock",
            Self::AccessExclusive => "AccessExclusiveLock",
        }
    }
}

/// Strength of a row lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowLockMode {
    /// FOR KEY SHARE: the key must stay.
    KeyShare,
    /// FOR SHARE: the row must stay.
    Share,
    /// FOR NO KEY UPDATE, and an UPDATE that leaves the keys alone.
    NoKeyUpdate,
    /// FOR UPDATE, DELETE, and an UPDATE of a key.
    Update,
}

impl RowLockMode {
    /// The lock mode that stands for it on a row (PostgreSQL: tupleLockExtraInfo).
    pub fn lock_mode(self) -> LockMode {
        match self {
            Self::KeyShare => LockMode::AccessShare,
            Self::Share => LockMode::RowShare,
            Self::NoKeyUpdate => LockMode::Exclusive,
            Self::Update => LockMode::AccessExclusive,
        }
    }

    /// Whether two lockers exclude each other.
    pub fn conflicts_with(self, other: Self) -> bool {
        self.lock_mode().conflicts_with(other.lock_mode())
    }
}

/// What to do when something is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WaitPolicy {
    /// Wait for it.
    #[default]
    Block,
    /// SKIP LOCKED: leave it.
    Skip,
    /// NOWAIT: fail.
    Error,
}

/// Who holds locks: one transaction, or a session across its transactions.
///
/// The lock table and the holder both know of each grant; the table's shard is locked first.
#[derive(Debug)]
pub struct LockHolder {
    /// 0 once its transaction is prepared. Relaxed: changed by the session itself, before it can ask for more.
    proc: AtomicI32,
    /// The xid of its transaction once that is prepared. Relaxed: for `pg_locks`.
    prepared: AtomicU64,
    /// Its transaction committed and waits for its level; its session may be doing other things. Relaxed: only the detector asks.
    detached: AtomicBool,
    /// Rank 82, below the shards of the table (81).
    held: Mutex<HeldLocks>,
}

/// Locks are numbered as they are taken. Those a savepoint is rolled back with are those from its first number on, so that releasing a
/// savepoint costs nothing, however many locks there are.
#[derive(Debug, Default)]
struct HeldLocks {
    /// The holder has released everything for good.
    ended: bool,
    /// Number of the next lock.
    next: u64,
    /// `next` when the outermost open savepoint began.
    first_mark: Option<u64>,
    /// What was taken since then, in order; some of it may have been given up.
    since: Vec<(u64, LockTag, LockMode)>,
    /// Of locks taken since then, those that others carried to a row's new version: by the number of the lock, and one of their own.
    carried: BTreeMap<(u64, u64), (LockTag, LockMode)>,
    list: Vec<HeldLock>,
    /// Places in `list`, kept once it is long.
    index: HashMap<LockTag, usize, BuildHasherDefault<FxHasher>>,
}

#[derive(Debug)]
struct HeldLock {
    tag: LockTag,
    /// Modes held, with their numbers, and how often.
    modes: SmallVec<[(LockMode, u64, u32); 1]>,
}

const INDEX_FROM: usize = 12;

impl HeldLocks {
    fn place(&self, tag: &LockTag) -> Option<usize> {
        if self.list.len() < INDEX_FROM { self.list.iter().position(|h| h.tag == *tag) } else { self.index.get(tag).copied() }
    }

    fn mask(&self, tag: &LockTag) -> u16 {
        self.place(tag).map_or(0, |i| self.list[i].modes.iter().fold(0, |m, x| m | x.0.bit()))
    }

    fn add(&mut self, tag: LockTag, mode: LockMode) {
        let number = self.next;
        self.next += 1;
        if self.add_as(tag, mode, number) && self.first_mark.is_some() {
            self.since.push((number, tag, mode));
        }
    }

    /// Adds what goes with the lock of this number, and is given up with it.
    fn add_carried(&mut self, tag: LockTag, mode: LockMode, number: u64) {
        if self.add_as(tag, mode, number) && self.first_mark.is_some_and(|mark| number >= mark) {
            self.carried.insert((number, self.next), (tag, mode));
            self.next += 1;
        }
    }

    /// False: the mode was held already, and is once more.
    fn add_as(&mut self, tag: LockTag, mode: LockMode, number: u64) -> bool {
        let at = self.place(&tag).unwrap_or_else(|| {
            self.list.push(HeldLock { tag, modes: SmallVec::new() });
            match self.list.len() {
                INDEX_FROM => self.index = self.list.iter().enumerate().map(|(i, h)| (h.tag, i)).collect(),
                n if n > INDEX_FROM => {
                    self.index.insert(tag, n - 1);
                }
                _ => {}
            }
            self.list.len() - 1
        });
        let modes = &mut self.list[at].modes;
        match modes.iter_mut().find(|m| m.0 == mode) {
            Some(m) => {
                m.2 += 1;
                false
            }
            None => {
                modes.push((mode, number, 1));
                true
            }
        }
    }

    /// Gives up one hold of a mode; true if it was the last.
    fn sub(&mut self, tag: &LockTag, mode: LockMode) -> Option<bool> {
        let at = self.place(tag)?;
        let modes = &mut self.list[at].modes;
        let i = modes.iter().position(|m| m.0 == mode)?;
        modes[i].2 -= 1;
        if modes[i].2 > 0 {
            return Some(false);
        }
        let (_, number, _) = modes.swap_remove(i);
        if modes.is_empty() {
            self.remove(at);
        }
        // Locks held for a moment only leave nothing behind.
        if self.since.last().is_some_and(|last| last.0 == number) {
            self.since.pop();
        }
        Some(true)
    }

    /// Gives up a mode if it is still held as the lock of this number.
    fn sub_numbered(&mut self, number: u64, tag: &LockTag, mode: LockMode) -> bool {
        let Some(at) = self.place(tag) else { return false };
        let modes = &mut self.list[at].modes;
        let before = modes.len();
        modes.retain(|m| m.0 != mode || m.1 != number);
        let gone = modes.len() < before;
        if modes.is_empty() {
            self.remove(at);
        }
        gone
    }

    fn remove(&mut self, at: usize) {
        let gone = self.list.swap_remove(at);
        if !self.index.is_empty() {
            self.index.remove(&gone.tag);
            if let Some(moved) = self.list.get(at) {
                self.index.insert(moved.tag, at);
            }
            if self.list.len() < INDEX_FROM {
                self.index.clear();
            }
        }
    }
}

/// A place among the locks of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LockMark(u64);

impl LockHolder {
    pub(super) fn new(proc: ProcId) -> Arc<Self> {
        Arc::new(Self {
            proc: AtomicI32::new(proc.0),
            prepared: AtomicU64::new(0),
            detached: AtomicBool::new(false),
            held: Mutex::default(),
        })
    }

    /// Whose it is; 0 for a prepared transaction's.
    pub(super) fn proc(&self) -> ProcId {
        ProcId(self.proc.load(Ordering::Relaxed))
    }

    /// Its transaction is prepared: no session's any more.
    pub(super) fn disown(&self, xid: Xid) {
        self.prepared.store(xid.as_u64(), Ordering::Relaxed);
        self.proc.store(0, Ordering::Relaxed);
    }

    /// Everything it holds.
    pub(super) fn list(&self) -> Vec<(LockTag, LockMode)> {
        self.held.lock().list.iter().flat_map(|h| h.modes.iter().map(|m| (h.tag, m.0))).collect()
    }

    /// Where a savepoint begins: what is taken from now on is released when it is rolled back.
    pub(super) fn mark(&self) -> LockMark {
        let mut held = self.held.lock();
        let next = held.next;
        held.first_mark.get_or_insert(next);
        LockMark(next)
    }

    /// No savepoint is open any more.
    pub(super) fn forget_marks(&self) {
        let mut held = self.held.lock();
        held.first_mark = None;
        held.since.clear();
        held.carried.clear();
    }

    /// Its transaction is over, though its locks wait for its level.
    pub(super) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Relaxed)
    }

    /// Its locks are released by a position's advance from now on, not by its session.
    pub(super) fn detach(&self) {
        self.detached.store(true, Ordering::Relaxed);
    }

    /// Whether it holds `tag` in this mode or one that conflicts with more.
    pub fn holds(&self, tag: &LockTag, mode: LockMode) -> bool {
        self.held.lock().mask(tag) & mode.bit() != 0
    }

    /// Whether it holds `tag` in any mode.
    pub fn holds_any(&self, tag: &LockTag) -> bool {
        self.held.lock().mask(tag) != 0
    }

    /// Number of locked things.
    pub fn count(&self) -> usize {
        self.held.lock().list.len()
    }
}

#[derive(Debug)]
struct Grant {
    holder: Arc<LockHolder>,
    mask: u16,
}

#[derive(Debug)]
struct Request {
    holder: Arc<LockHolder>,
    mode: LockMode,
    waiter: Arc<Waiter>,
    /// Set under the shard's lock by whoever grants it.
    granted: AtomicBool,
}

#[derive(Debug)]
struct Watcher {
    proc: ProcId,
    mode: LockMode,
    waiter: Arc<Waiter>,
}

#[derive(Debug, Default)]
struct LockState {
    granted: SmallVec<[Grant; 2]>,
    waiting: VecDeque<Arc<Request>>,
    /// Who waits for holders to go and asks for nothing itself; told of every lock given up.
    watchers: Vec<Watcher>,
}

impl LockState {
    /// Whether a grant of another session excludes `mode`.
    fn excluded(&self, proc: ProcId, mode: LockMode) -> bool {
        self.granted.iter().any(|g| g.mask & mode.conflicts() != 0 && g.holder.proc() != proc)
    }

    fn mask_of(&self, proc: ProcId) -> u16 {
        self.granted.iter().filter(|g| g.holder.proc() == proc).fold(0, |m, g| m | g.mask)
    }

    fn grant(&mut self, tag: LockTag, holder: &Arc<LockHolder>, mode: LockMode) {
        match self.granted.iter_mut().find(|g| Arc::ptr_eq(&g.holder, holder)) {
            Some(g) => g.mask |= mode.bit(),
            None => self.granted.push(Grant { holder: Arc::clone(holder), mask: mode.bit() }),
        }
        holder.held.lock().add(tag, mode);
    }

    fn ungrant(&mut self, holder: &Arc<LockHolder>, bits: u16) {
        if let Some(i) = self.granted.iter().position(|g| Arc::ptr_eq(&g.holder, holder)) {
            self.granted[i].mask &= !bits;
            if self.granted[i].mask == 0 {
                self.granted.swap_remove(i);
            }
            self.watchers.iter().for_each(|w| w.waiter.notify());
        }
    }

    /// Grants what can be granted, in order; nobody overtakes an earlier request that excludes it.
    fn wake(&mut self, tag: LockTag) {
        let mut ahead = 0u16;
        let mut i = 0;
        let in_order = !matches!(tag, LockTag::Tuple { .. });
        while let Some(r) = self.waiting.get(i) {
            if (r.mode.conflicts() & ahead == 0 || !in_order) && !self.excluded(r.holder.proc(), r.mode) {
                let r = Arc::clone(r);
                self.waiting.remove(i);
                self.grant(tag, &r.holder, r.mode);
                r.granted.store(true, Ordering::Release);
                r.waiter.notify();
            } else {
                ahead |= r.mode.bit();
                i += 1;
            }
        }
    }
}

type Shard = Mutex<HashMap<LockTag, LockState, BuildHasherDefault<FxHasher>>>;

type XidWaiters = Mutex<HashMap<Xid, Vec<Arc<Waiter>>>>;

const SHARDS: usize = 64;

/// What a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    Lock(LockTag, LockMode),
    Xid(Xid),
    /// The position that sessions of its level read at.
    Position(Lsn),
    /// Serializable writers, whose end tells whether its snapshot is safe.
    SafeSnapshot,
    /// Another session's old snapshots; its transaction by its number.
    Snapshots(ProcId, u32),
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    what: WaitsFor,
    number: u64,
    /// Microseconds since 2000.
    since: i64,
}

impl WaitsFor {
    fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Lock(t, m) => (m.name(), t.to_string()),
            Self::Xid(x) => (LockMode::Share.name(), format!("transaction {x}")),
            Self::Position(lsn) => (LockMode::Share.name(), format!("position {lsn}")),
            Self::SafeSnapshot => (LockMode::Share.name(), "a safe snapshot".to_owned()),
            Self::Snapshots(p, n) => (LockMode::Share.name(), format!("virtual transaction {}/{n}", p.0)),
        }
    }
}

/// What a line of `pg_locks` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    /// What is locked.
    Tag(LockTag),
    /// A transaction, by its xid.
    Xid(Xid),
    /// A transaction, by its session and its number there.
    Virtual(ProcId, u32),
}

/// One line of `pg_locks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockInfo {
    /// What.
    pub what: Locked,
    /// How.
    pub mode: LockMode,
    /// Who; 0: a prepared transaction.
    pub proc: ProcId,
    /// The number of its running transaction, 0 if there is none; of a prepared one its xid.
    pub transaction: u64,
    /// Held, or waited for.
    pub granted: bool,
    /// Since when it is waited for, in microseconds since 2000.
    pub waiting_since: Option<i64>,
}

/// Replay waits for a lock; see [`LockManager::replay_waits`].
#[derive(Debug)]
pub(crate) struct ReplayWaits<'a>(&'a LockManager);

impl Drop for ReplayWaits<'_> {
    fn drop(&mut self) {
        self.0.waits.lock().remove(&ProcId::NOBODY);
    }
}

/// What the search for a deadlock came to, if it found none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    /// There is none.
    Free,
    /// There was one, until a queue's order was changed.
    Rearranged,
    /// A cycle was seen, but it was gone at the second look.
    Moving,
}

/// All heavyweight locks of the node.
#[derive(Debug)]
pub struct LockManager {
    /// Rank 81: the holder's list (82) and a waiter's flag are taken inside.
    shards: Box<[Shard]>,
    /// Row locks held or waited for. Lets a change of a row see at one glance that there are none.
    tuple_locks: AtomicUsize,
    /// Who sleeps for which transaction. Rank 83.
    xid_waiters: Box<[XidWaiters]>,
    /// How many do.
    xid_waiting: AtomicUsize,
    /// What each sleeping session waits for. Rank 83. Taken to begin and end a wait and by the deadlock detector.
    waits: Mutex<HashMap<ProcId, Wait>>,
    /// Numbers waits: the same number, the same wait.
    next_wait: AtomicU64,
    /// One deadlock check at a time, so that of two waiters in one cycle only one gives up. Rank 79.
    checking: Mutex<()>,
    procs: Arc<Procs>,
}

impl LockManager {
    pub(super) fn new(procs: Arc<Procs>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            tuple_locks: AtomicUsize::new(0),
            xid_waiters: (0..SHARDS).map(|_| Mutex::default()).collect(),
            xid_waiting: AtomicUsize::new(0),
            waits: Mutex::default(),
            next_wait: AtomicU64::new(0),
            checking: Mutex::default(),
            procs,
        }
    }

    fn shard(&self, tag: &LockTag) -> &Shard {
        let h = BuildHasherDefault::<FxHasher>::default().hash_one(tag);
        &self.shards[usize::try_from(h >> 32).unwrap_or(0) % SHARDS]
    }

    /// Takes a lock for `holder`, waiting as `policy` says. False: it is held and `policy` is to skip.
    ///
    /// # Errors
    /// Deadlock, timeout, cancel; `LockNotAvailable` with [`WaitPolicy::Error`].
    pub(super) fn acquire(
        &self,
        proc: &Proc,
        holder: &Arc<LockHolder>,
        tag: LockTag,
        mode: LockMode,
        policy: WaitPolicy,
    ) -> Result<bool, TxnError> {
        let session = Arc::ptr_eq(holder, &proc.session_locks);
        if holder.held.lock().mask(&tag) & mode.bit() != 0 {
            if session {
                holder.held.lock().add(tag, mode);
            }
            return Ok(true);
        }
        let is_tuple = matches!(tag, LockTag::Tuple { .. });
        let request = {
            if is_tuple {
                // Before the look at the row version; paired with the fence in `tuple_locked`.
                self.tuple_locks.fetch_add(1, Ordering::SeqCst);
            }
            let mut shard = self.shard(&tag).lock();
            let state = shard.entry(tag).or_default();
            let mine = state.mask_of(proc.id());
            // Requests ahead that exclude this one go first, unless they wait for what this session already holds.
            let behind = state
                .waiting
                .iter()
                .rposition(|r| !is_tuple && r.holder.proc() != proc.id() && r.mode.conflicts_with(mode) && r.mode.conflicts() & mine == 0);
            if behind.is_none() && !state.excluded(proc.id(), mode) {
                state.grant(tag, holder, mode);
                return Ok(true);
            }
            if policy != WaitPolicy::Block {
                if state.granted.is_empty() && state.waiting.is_empty() {
                    shard.remove(&tag);
                }
                if is_tuple {
                    self.tuple_locks.fetch_sub(1, Ordering::SeqCst);
                }
                return if policy == WaitPolicy::Skip { Ok(false) } else { Err(TxnError::LockNotAvailable) };
            }
            // One that waits for what this session holds, and holds what it asks for: neither can ever go on.
            let stuck = state.waiting.iter().find(|r| {
                r.holder.proc() != proc.id() && r.mode.conflicts() & mine != 0 && mode.conflicts() & state.mask_of(r.holder.proc()) != 0
            });
            if let Some(other) = stuck {
                let edge = |a: ProcId, m: LockMode, b: ProcId| {
                    format!("Process {} waits for {} on {tag}; blocked by process {}.", a.0, m.name(), b.0)
                };
                let (me, they) = (proc.id(), other.holder.proc());
                if is_tuple {
                    self.tuple_locks.fetch_sub(1, Ordering::SeqCst);
                }
                return Err(TxnError::Deadlock { detail: format!("{}\n{}", edge(me, mode, they), edge(they, other.mode, me)) });
            }
            let request = Arc::new(Request { holder: Arc::clone(holder), mode, waiter: Arc::default(), granted: AtomicBool::new(false) });
            // Before the first request that waits for what this session holds: it cannot go first anyway.
            let at = state
                .waiting
                .iter()
                .position(|r| r.mode.conflicts() & mine != 0)
                .filter(|at| behind.is_none_or(|b| *at > b))
                .unwrap_or(state.waiting.len());
            state.waiting.insert(at, Arc::clone(&request));
            request
        };
        let granted = || request.granted.load(Ordering::Acquire);
        let r = self.sleep(proc, WaitsFor::Lock(tag, mode), &request.waiter, granted);
        if let Err(e) = r {
            let mut shard = self.shard(&tag).lock();
            // Granted while giving up: the error stands, the lock goes back.
            if let Some(state) = shard.get_mut(&tag) {
                if granted() {
                    if holder.held.lock().sub(&tag, mode) == Some(true) {
                        state.ungrant(holder, mode.bit());
                    }
                } else {
                    state.waiting.retain(|r| !Arc::ptr_eq(r, &request));
                }
                state.wake(tag);
                if state.granted.is_empty() && state.waiting.is_empty() {
                    shard.remove(&tag);
                }
            }
            if is_tuple {
                self.tuple_locks.fetch_sub(1, Ordering::SeqCst);
            }
            return Err(e);
        }
        Ok(true)
    }

    /// Sleeps until none of those who now hold `tag` in a mode that excludes `mode` holds it any more; those who come later do not count.
    /// PostgreSQL: `WaitForLockers`.
    ///
    /// # Errors
    /// Deadlock, timeout, cancel.
    pub fn wait_for_lockers(&self, proc: &Proc, tag: LockTag, mode: LockMode) -> Result<(), TxnError> {
        let waiter = Arc::<Waiter>::default();
        let excludes = |g: &Grant| g.mask & mode.conflicts() != 0 && g.holder.proc() != proc.id();
        let holders: Vec<Arc<LockHolder>> = {
            let mut shard = self.shard(&tag).lock();
            let Some(state) = shard.get_mut(&tag) else { return Ok(()) };
            state.watchers.push(Watcher { proc: proc.id(), mode, waiter: Arc::clone(&waiter) });
            state.granted.iter().filter(|g| excludes(g)).map(|g| Arc::clone(&g.holder)).collect()
        };
        let gone = || {
            let shard = self.shard(&tag).lock();
            let Some(state) = shard.get(&tag) else { return true };
            !state.granted.iter().any(|g| excludes(g) && holders.iter().any(|h| Arc::ptr_eq(h, &g.holder)))
        };
        let r = if gone() { Ok(()) } else { self.sleep(proc, WaitsFor::Lock(tag, mode), &waiter, gone) };
        if let Some(state) = self.shard(&tag).lock().get_mut(&tag) {
            state.watchers.retain(|w| !Arc::ptr_eq(&w.waiter, &waiter));
        }
        r
    }

    /// Sleeps until `done`, looking for deadlocks once `deadlock_timeout` has passed.
    pub(super) fn sleep(&self, proc: &Proc, what: WaitsFor, waiter: &Arc<Waiter>, done: impl Fn() -> bool) -> Result<(), TxnError> {
        let wait = Wait { what, number: self.next_wait.fetch_add(1, Ordering::Relaxed), since: Transactions::now() };
        self.waits.lock().insert(proc.id(), wait);
        proc.cancel().enter_wait(waiter);
        let r = blocking(|| {
            let start = Instant::now();
            let give_up = proc.lock_timeout().and_then(|t| start.checked_add(t));
            let mut check = start.checked_add(proc.deadlock_timeout());
            let mut told = false;
            loop {
                if done() {
                    if told {
                        self.log_wait(proc, &what, start, "acquired", "");
                    }
                    return Ok(());
                }
                proc.cancel().check()?;
                let now = Instant::now();
                if give_up.is_some_and(|t| t <= now) {
                    return Err(TxnError::LockTimeout);
                }
                let asked = proc.cancel().is_to_look();
                if asked || check.is_some_and(|t| t <= now) {
                    let found = self.find_deadlock(proc);
                    if found.is_err() {
                        self.log_wait(proc, &what, start, "detected deadlock while waiting for", "");
                    }
                    let later = check.filter(|t| *t > now);
                    check = match found? {
                        // A cycle that would not hold still is looked for once more later.
                        Looked::Moving => now.checked_add(proc.deadlock_timeout()),
                        Looked::Free => later,
                        Looked::Rearranged => {
                            self.log_wait(proc, &what, start, "avoided deadlock for", " by rearranging queue order");
                            later
                        }
                    };
                    if check.is_none() && !std::mem::replace(&mut told, true) && !done() {
                        self.log_wait(proc, &what, start, "still waiting for", "");
                    }
                    self.cancel_autovacuum(proc);
                    continue;
                }
                let until = match (check, give_up) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
                waiter.wait(until);
            }
        });
        proc.cancel().leave_wait();
        self.waits.lock().remove(&proc.id());
        r
    }

    /// `log_lock_waits`: how a wait that is longer than `deadlock_timeout` goes. PostgreSQL: `ProcSleep`.
    fn log_wait(&self, proc: &Proc, what: &WaitsFor, start: Instant, how: &str, why: &str) {
        let Some(log) = proc.lock_log() else { return };
        let (holders, waiting): (Vec<ProcId>, Vec<ProcId>) = match what {
            WaitsFor::Position(_) | WaitsFor::SafeSnapshot => return,
            WaitsFor::Snapshots(other, _) => (vec![*other], vec![proc.id()]),
            WaitsFor::Lock(tag, _) => {
                let shard = self.shard(tag).lock();
                let state = shard.get(tag);
                let holders = state.map_or(&[][..], |s| &s.granted).iter().map(|g| g.holder.proc());
                let waiting = state.into_iter().flat_map(|s| {
                    let watching = s.watchers.iter().map(|w| w.proc);
                    s.waiting.iter().map(|r| r.holder.proc()).chain(watching)
                });
                (holders.collect(), waiting.collect())
            }
            WaitsFor::Xid(x) => {
                let mut all: Vec<(u64, ProcId)> = {
                    let waits = self.waits.lock();
                    waits.iter().filter(|(_, w)| w.what == WaitsFor::Xid(*x)).map(|(p, w)| (w.number, *p)).collect()
                };
                all.sort_unstable();
                (self.procs.owner_of(*x).into_iter().collect(), all.into_iter().map(|w| w.1).collect())
            }
        };
        let list = |all: &[ProcId]| all.iter().map(|p| p.0.to_string()).collect::<Vec<_>>().join(", ");
        let (mode, on) = what.describe();
        let took = start.elapsed();
        let message =
            format!("process {} {how} {mode} on {on}{why} after {}.{:03} ms", proc.id().0, took.as_millis(), took.as_micros() % 1000);
        let noun = if holders.len() == 1 { "Process" } else { "Processes" };
        let detail = format!("{noun} holding the lock: {}. Wait queue: {}.", list(&holders), list(&waiting));
        log.waited(&message, (how != "acquired").then_some(&detail));
    }

    /// Looks for a cycle of waits that the session is part of, and breaks it if that can be done by changing an order.
    ///
    /// Sessions go on while this looks from one to the next, so that what it sees may never have been true at one time. But a session
    /// that sleeps keeps what it holds and its place in the queue: edges between sessions that slept in the same waits all along are true
    /// together.
    fn find_deadlock(&self, proc: &Proc) -> Result<Looked, TxnError> {
        let _one = self.checking.lock();
        let waits = self.waits.lock().clone();
        let blockers = |p: ProcId| waits.get(&p).map_or_else(Vec::new, |w| self.blockers_of(p, &w.what));
        let Some(cycle) = deadlock::find_cycle(proc.id(), blockers) else {
            return Ok(Looked::Free);
        };
        let held = cycle.iter().zip(cycle.iter().cycle().skip(1)).all(|(p, next)| blockers(*p).contains(next));
        let now = self.waits.lock().clone();
        if !held || cycle.iter().any(|p| now.get(p).map(|w| w.number) != waits.get(p).map(|w| w.number)) {
            return Ok(Looked::Moving);
        }
        if self.rearrange(proc.id(), &cycle, &waits) {
            return Ok(Looked::Rearranged);
        }
        let mut detail = String::new();
        for (i, p) in cycle.iter().enumerate() {
            let next = cycle[(i + 1) % cycle.len()];
            let (mode, what) = waits.get(p).map_or(("", String::new()), |w| w.what.describe());
            if i > 0 {
                detail.push('\n');
            }
            let shown = |p: ProcId| if p == ProcId::NOBODY { ProcId::STARTUP.0 } else { p.0 };
            detail.push_str(&format!("Process {} waits for {mode} on {what}; blocked by process {}.", shown(*p), shown(next)));
        }
        // Leave the list at once: the next checker must see the cycle broken.
        self.waits.lock().remove(&proc.id());
        Err(TxnError::Deadlock { detail })
    }

    /// Tries to break a cycle by letting someone go before a request that is ahead of him in a queue and excludes him: that request waits
    /// for others anyway. PostgreSQL: `DS_SOFT_DEADLOCK`.
    fn rearrange(&self, me: ProcId, cycle: &[ProcId], waits: &HashMap<ProcId, Wait>) -> bool {
        let blockers = |p: ProcId| waits.get(&p).map_or_else(Vec::new, |w| self.blockers_of(p, &w.what));
        let mut cycle = cycle.to_vec();
        let mut moved: Vec<(LockTag, Vec<Arc<Request>>)> = Vec::new();
        let mut reversed: Vec<(ProcId, ProcId)> = Vec::new();
        loop {
            let edges: Vec<(ProcId, ProcId)> = cycle.iter().copied().zip(cycle.iter().copied().cycle().skip(1)).collect();
            let soft = edges.iter().rev().find_map(|(p, ahead)| match waits.get(p)?.what {
                WaitsFor::Lock(tag, mode) if !reversed.contains(&(*ahead, *p)) && !reversed.contains(&(*p, *ahead)) => {
                    let mut shard = self.shard(&tag).lock();
                    let state = shard.get_mut(&tag)?;
                    if state.granted.iter().any(|g| g.holder.proc() == *ahead && g.mask & mode.conflicts() != 0) {
                        return None;
                    }
                    let before = state.waiting.iter().position(|r| r.holder.proc() == *ahead)?;
                    let from = state.waiting.iter().position(|r| r.holder.proc() == *p).filter(|from| *from > before)?;
                    let order = state.waiting.iter().cloned().collect();
                    let request = state.waiting.remove(from)?;
                    state.waiting.insert(before, request);
                    Some((tag, order, (*p, *ahead)))
                }
                WaitsFor::Lock(..) | WaitsFor::Xid(_) | WaitsFor::Position(_) | WaitsFor::SafeSnapshot | WaitsFor::Snapshots(..) => None,
            });
            let Some((tag, order, edge)) = soft else { break };
            moved.push((tag, order));
            reversed.push(edge);
            match reversed.iter().map(|e| e.1).chain([me]).find_map(|p| deadlock::find_cycle(p, blockers)) {
                Some(next) => cycle = next,
                None => {
                    for (tag, _) in moved {
                        if let Some(state) = self.shard(&tag).lock().get_mut(&tag) {
                            state.wake(tag);
                        }
                    }
                    return true;
                }
            }
        }
        // In vain: everyone back to his place.
        for (tag, order) in moved.into_iter().rev() {
            if let Some(state) = self.shard(&tag).lock().get_mut(&tag) {
                let place = |r: &Arc<Request>| order.iter().position(|o| Arc::ptr_eq(o, r)).unwrap_or(usize::MAX);
                state.waiting.make_contiguous().sort_by_key(place);
            }
        }
        false
    }

    /// Autovacuum gives way to whoever waits for it. PostgreSQL: `ProcSleep`, DS_BLOCKED_BY_AUTOVACUUM.
    fn cancel_autovacuum(&self, proc: &Proc) {
        for id in self.blockers(proc.id()) {
            if let Some(worker) = self.procs.find(id).filter(|p| p.is_autovacuum()) {
                worker.cancel().cancel(CancelReason::Query);
            }
        }
    }

    fn blockers_of(&self, p: ProcId, what: &WaitsFor) -> Vec<ProcId> {
        match what {
            // The WAL's flusher and the standbys wait for no session; who waits for a safe snapshot keeps nobody waiting.
            WaitsFor::Position(_) | WaitsFor::SafeSnapshot => Vec::new(),
            WaitsFor::Snapshots(other, _) => vec![*other],
            WaitsFor::Xid(x) => self.procs.owner_of(*x).into_iter().filter(|o| *o != p).collect(),
            WaitsFor::Lock(tag, mode) => {
                let shard = self.shard(tag).lock();
                let Some(state) = shard.get(tag) else { return Vec::new() };
                let held = state
                    .granted
                    .iter()
                    .filter(|g| g.mask & mode.conflicts() != 0 && g.holder.proc() != p)
                    .filter(|g| !g.holder.detached.load(Ordering::Relaxed))
                    .map(|g| g.holder.proc());
                // Replay stands in no queue: it has the lock already, and waits for those who have it too.
                let in_order = !matches!(tag, LockTag::Tuple { .. }) && p != ProcId::NOBODY;
                let earlier = state.waiting.iter().take_while(|r| in_order && r.holder.proc() != p);
                let ahead = earlier.filter(|r| r.mode.conflicts_with(*mode)).map(|r| r.holder.proc());
                held.chain(ahead).collect()
            }
        }
    }

    /// `pg_blocking_pids`: who keeps `p` waiting.
    pub fn blockers(&self, p: ProcId) -> Vec<ProcId> {
        let wait = self.waits.lock().get(&p).copied();
        wait.map_or_else(Vec::new, |w| self.blockers_of(p, &w.what))
    }

    /// Gives a prepared transaction what it held: nobody else can hold what excludes it.
    pub(super) fn grant_recovered(&self, holder: &Arc<LockHolder>, tag: LockTag, mode: LockMode) {
        if holder.holds(&tag, mode) {
            return;
        }
        if matches!(tag, LockTag::Tuple { .. }) {
            self.tuple_locks.fetch_add(1, Ordering::SeqCst);
        }
        self.shard(&tag).lock().entry(tag).or_default().grant(tag, holder, mode);
    }

    /// Gives up one hold of a session lock. False: it was not held.
    pub(super) fn release(&self, holder: &Arc<LockHolder>, tag: LockTag, mode: LockMode) -> bool {
        let mut shard = self.shard(&tag).lock();
        match holder.held.lock().sub(&tag, mode) {
            None => return false,
            Some(false) => return true,
            Some(true) => {}
        }
        self.ungrant_locked(&mut shard, holder, tag, mode.bit());
        true
    }

    fn ungrant_locked(
        &self,
        shard: &mut HashMap<LockTag, LockState, BuildHasherDefault<FxHasher>>,
        holder: &Arc<LockHolder>,
        tag: LockTag,
        bits: u16,
    ) {
        if let Some(state) = shard.get_mut(&tag) {
            state.ungrant(holder, bits);
            state.wake(tag);
            if state.granted.is_empty() && state.waiting.is_empty() {
                shard.remove(&tag);
            }
        }
        if matches!(tag, LockTag::Tuple { .. }) {
            let n = usize::try_from(bits.count_ones()).unwrap_or(0);
            self.tuple_locks.fetch_sub(n, Ordering::SeqCst);
        }
    }

    /// A session ends: what it holds across its transactions (`pg_advisory_lock`) is free.
    pub fn end_session(&self, proc: &Proc) {
        self.release_session(proc);
    }

    /// Releases everything `holder` has, for good.
    pub(super) fn release_all(&self, holder: &Arc<LockHolder>) {
        let gone: SmallVec<[HeldLock; 8]> = {
            let mut held = holder.held.lock();
            let list = std::mem::take(&mut held.list).into_iter().collect();
            *held = HeldLocks { ended: true, ..HeldLocks::default() };
            list
        };
        for h in gone {
            let bits = h.modes.iter().fold(0, |m, x| m | x.0.bit());
            let mut shard = self.shard(&h.tag).lock();
            self.ungrant_locked(&mut shard, holder, h.tag, bits);
        }
        self.procs.gone.tell();
    }

    /// Releases what a session holds across its transactions; it may take more.
    pub(super) fn release_session(&self, proc: &Proc) {
        let holder = &proc.session_locks;
        self.release_all(holder);
        holder.held.lock().ended = false;
    }

    /// Releases what `holder` took since the mark.
    pub(super) fn release_since(&self, holder: &Arc<LockHolder>, mark: LockMark) {
        let mut gone: SmallVec<[(LockTag, u16); 8]> = SmallVec::new();
        {
            let mut held = holder.held.lock();
            while let Some((number, tag, mode)) = held.since.pop_if(|last| last.0 >= mark.0) {
                if held.sub_numbered(number, &tag, mode) {
                    gone.push((tag, mode.bit()));
                }
            }
            for ((number, _), (tag, mode)) in held.carried.split_off(&(mark.0, 0)) {
                if held.sub_numbered(number, &tag, mode) {
                    gone.push((tag, mode.bit()));
                }
            }
        }
        for (tag, bits) in gone {
            let mut shard = self.shard(&tag).lock();
            self.ungrant_locked(&mut shard, holder, tag, bits);
        }
        self.procs.gone.tell();
    }

    /// Sessions that hold `tag` in a mode that excludes `mode`.
    pub(super) fn holders(&self, tag: &LockTag, mode: LockMode) -> Vec<ProcId> {
        let shard = self.shard(tag).lock();
        let granted = shard.get(tag).map_or(&[][..], |state| &state.granted);
        granted.iter().filter(|g| g.mask & mode.conflicts() != 0).map(|g| g.holder.proc()).filter(|p| p.0 != 0).collect()
    }

    /// Replay waits, until the result is dropped, for those who hold `tag` beside it. What is nobody's is given up by replay only, so this is what
    /// whoever waits for it waits for.
    pub(super) fn replay_waits(&self, tag: LockTag) -> ReplayWaits<'_> {
        let what = WaitsFor::Lock(tag, LockMode::AccessExclusive);
        let wait = Wait { what, number: self.next_wait.fetch_add(1, Ordering::Relaxed), since: Transactions::now() };
        self.waits.lock().insert(ProcId::NOBODY, wait);
        ReplayWaits(self)
    }

    /// Relations that are locked in ACCESS EXCLUSIVE mode, and by whom. Prepared transactions' are not: their state tells of them.
    pub(super) fn exclusive_relations(&self) -> Vec<(Arc<LockHolder>, LockTag)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            for (tag, state) in &*shard.lock() {
                if matches!(tag, LockTag::Relation { .. }) {
                    let exclusive = state.granted.iter().filter(|g| g.mask & LockMode::AccessExclusive.bit() != 0);
                    all.extend(exclusive.filter(|g| g.holder.proc() != ProcId::NOBODY).map(|g| (Arc::clone(&g.holder), *tag)));
                }
            }
        }
        all
    }

    /// Whether another session holds `tag` in a mode that excludes `mode`.
    pub fn is_held(&self, proc: &Proc, tag: &LockTag, mode: LockMode) -> bool {
        self.shard(tag).lock().get(tag).is_some_and(|s| s.excluded(proc.id(), mode))
    }

    /// Whether a session waits for a lock that only replay gives up: one of a prepared transaction, or of DDL that runs on the primary.
    pub(super) fn waits_for_replay(&self, proc: ProcId) -> bool {
        let mut todo = vec![proc];
        let mut seen = Vec::new();
        while let Some(p) = todo.pop() {
            if p.0 == 0 {
                return true;
            }
            if !seen.contains(&p) {
                seen.push(p);
                todo.extend(self.blockers(p));
            }
        }
        false
    }

    /// Whether another session holds, or waits for, a row lock on `tag` that excludes `mode`.
    ///
    /// Called with the row's page latched exclusively, before the row is changed. A locker takes its lock first and then looks at the row
    /// under the latch, so either it is seen here or it sees the change.
    pub fn tuple_locked(&self, proc: &Proc, tag: &LockTag, mode: RowLockMode) -> bool {
        fence(Ordering::SeqCst);
        if self.tuple_locks.load(Ordering::SeqCst) == 0 {
            return false;
        }
        self.shard(tag).lock().get(tag).is_some_and(|s| s.excluded(proc.id(), mode.lock_mode()))
    }

    /// A row with sharers got a new version: they share it too, so that whoever meets the new version first meets them.
    ///
    /// Called by the session that changes the row, with the row's page latched exclusively. Its own locks need not come along: nobody
    /// else can have the new version before it commits.
    pub fn carry_tuple_locks(&self, proc: &Proc, from: &LockTag, to: LockTag) {
        self.carry(proc.id(), from, to);
    }

    /// The same in redo: the row locks of prepared transactions.
    pub fn carry_in_redo(&self, from: &LockTag, to: LockTag) {
        self.carry(ProcId(-1), from, to);
    }

    fn carry(&self, proc: ProcId, from: &LockTag, to: LockTag) {
        if self.tuple_locks.load(Ordering::SeqCst) == 0 {
            return;
        }
        let carried: SmallVec<[(Arc<LockHolder>, LockMode, u64); 4]> = {
            let shard = self.shard(from).lock();
            let Some(state) = shard.get(from) else { return };
            let mut all = SmallVec::new();
            for g in state.granted.iter().filter(|g| g.holder.proc() != proc) {
                let held = g.holder.held.lock();
                if let Some(at) = held.place(from) {
                    for m in &held.list[at].modes {
                        all.push((Arc::clone(&g.holder), m.0, m.1));
                    }
                }
            }
            all
        };
        if carried.is_empty() {
            return;
        }
        let mut shard = self.shard(&to).lock();
        for (holder, mode, number) in carried {
            // A holder that ended in between never looks at its list again: what were added now would stay for ever.
            let mut held = holder.held.lock();
            if held.ended || held.mask(from) & mode.bit() == 0 || held.mask(&to) & mode.bit() != 0 {
                continue;
            }
            held.add_carried(to, mode, number);
            self.tuple_locks.fetch_add(1, Ordering::SeqCst);
            let state = shard.entry(to).or_default();
            match state.granted.iter_mut().find(|g| Arc::ptr_eq(&g.holder, &holder)) {
                Some(g) => g.mask |= mode.bit(),
                None => state.granted.push(Grant { holder: Arc::clone(&holder), mask: mode.bit() }),
            }
        }
    }

    /// Sleeps until `finished`, which `xid_finished` announces.
    pub(super) fn wait_for_xid(&self, proc: &Proc, xid: Xid, finished: impl Fn() -> bool) -> Result<(), TxnError> {
        let waiter: Arc<Waiter> = Arc::default();
        let bucket = &self.xid_waiters[usize::try_from(xid.as_u64() % 64).unwrap_or(0) % SHARDS];
        // SeqCst: counted before the look at the status; the finisher sets the status before it looks at the count.
        self.xid_waiting.fetch_add(1, Ordering::SeqCst);
        bucket.lock().entry(xid).or_default().push(Arc::clone(&waiter));
        fence(Ordering::SeqCst);
        let r = self.sleep(proc, WaitsFor::Xid(xid), &waiter, finished);
        {
            let mut b = bucket.lock();
            if let Some(list) = b.get_mut(&xid) {
                list.retain(|w| !Arc::ptr_eq(w, &waiter));
                if list.is_empty() {
                    b.remove(&xid);
                }
            }
        }
        self.xid_waiting.fetch_sub(1, Ordering::SeqCst);
        r
    }

    /// `xid` is decided and, if committed, its level reached: wakes who waits for it.
    pub(super) fn xid_finished(&self, xids: impl Iterator<Item = Xid>) {
        fence(Ordering::SeqCst);
        if self.xid_waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        for xid in xids {
            let bucket = &self.xid_waiters[usize::try_from(xid.as_u64() % 64).unwrap_or(0) % SHARDS];
            if let Some(list) = bucket.lock().get(&xid) {
                for w in list {
                    w.notify();
                }
            }
        }
    }

    /// Everything held and waited for, for `pg_locks`.
    pub fn list(&self) -> Vec<LockInfo> {
        let procs = self.procs.all();
        let numbers: HashMap<ProcId, u64> = procs.iter().map(|p| (p.id(), u64::from(p.local_transaction()))).collect();
        let waits = self.waits.lock().clone();
        let number = |p: ProcId| numbers.get(&p).copied().unwrap_or_default();
        let held = |what, mode, proc, transaction| LockInfo { what, mode, proc, transaction, granted: true, waiting_since: None };
        let wanted = |what, mode, proc| {
            let since = waits.get(&proc).map(|w| w.since);
            LockInfo { what, mode, proc, transaction: number(proc), granted: false, waiting_since: since }
        };
        let mut out = Vec::new();
        for shard in &self.shards {
            for (tag, s) in &*shard.lock() {
                let what = Locked::Tag(*tag);
                for g in &s.granted {
                    let proc = g.holder.proc();
                    let transaction = if proc.0 == 0 { g.holder.prepared.load(Ordering::Relaxed) } else { number(proc) };
                    let awaited = waits.get(&proc).is_some_and(|w| {
                        proc == ProcId::NOBODY && transaction == 0 && w.what == WaitsFor::Lock(*tag, LockMode::AccessExclusive)
                    });
                    for mode in LockMode::ALL.into_iter().filter(|m| g.mask & m.bit() != 0) {
                        out.push(if awaited { wanted(what, mode, proc) } else { held(what, mode, proc, transaction) });
                    }
                }
                out.extend(s.waiting.iter().map(|r| wanted(what, r.mode, r.holder.proc())));
                out.extend(s.watchers.iter().map(|w| wanted(what, w.mode, w.proc)));
            }
        }
        for p in &procs {
            let local = p.local_transaction();
            if local != 0 {
                out.push(held(Locked::Virtual(p.id(), local), LockMode::Exclusive, p.id(), u64::from(local)));
            }
            let xids = p.xids();
            if let Some(top) = xids.first() {
                let transaction = if p.id().0 == 0 { top.as_u64() } else { u64::from(local) };
                out.extend(xids.iter().map(|xid| held(Locked::Xid(*xid), LockMode::Exclusive, p.id(), transaction)));
            }
        }
        for (p, w) in &waits {
            match &w.what {
                WaitsFor::Xid(x) => out.push(wanted(Locked::Xid(*x), LockMode::Share, *p)),
                WaitsFor::Snapshots(other, n) => out.push(wanted(Locked::Virtual(*other, *n), LockMode::Share, *p)),
                WaitsFor::Lock(..) | WaitsFor::Position(_) | WaitsFor::SafeSnapshot => {}
            }
        }
        out
    }

    /// Whether the session sleeps in a lock wait (`pg_stat_activity.wait_event_type`), and for how it is named.
    pub fn waiting_for(&self, p: ProcId) -> Option<&'static str> {
        self.waits.lock().get(&p).map(|w| match w.what {
            WaitsFor::Xid(_) => "transactionid",
            WaitsFor::Position(_) => "SyncRep",
            WaitsFor::SafeSnapshot => "SafeSnapshot",
            WaitsFor::Snapshots(..) => "virtualxid",
            WaitsFor::Lock(LockTag::Relation { .. } | LockTag::Object { class: LockTag::PG_CLASS, .. }, _) => "relation",
            WaitsFor::Lock(LockTag::Object { .. }, _) => "object",
            WaitsFor::Lock(LockTag::Tuple { .. } | LockTag::TupleQueue { .. }, _) => "tuple",
            WaitsFor::Lock(LockTag::Speculative { .. }, _) => "spectoken",
            WaitsFor::Lock(LockTag::Advisory { .. }, _) => "advisory",
        })
    }

    /// How long a wait may last before the detector looks, when a session sets nothing.
    pub const DEADLOCK_TIMEOUT: Duration = Duration::from_secs(1);
}

#[cfg(test)]
mod tests;
