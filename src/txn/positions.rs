//! The visible positions, and the queue of commits that wait for them.
//!
//! A commit enters `pending` before its record is inserted and leaves it once its LSN and status are recorded; no position and
//! no checkpoint redo point passes the lower bound of a pending commit. It then waits in the queue of its level. When the level's
//! position reaches it, whoever advanced the position releases its locks and wakes its waiters: who synced the WAL, or heard from a standby.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use afterimage_wal::Wal;
use afterimage_wal::ids::{Lsn, Xid};
use parking_lot::{Condvar, Mutex};
use smallvec::SmallVec;

use super::cancel::{CancelFlag, CancelReason};
use super::error::TxnError;
use super::locks::LockHolder;
use super::wait::Waiter;

/// `synchronous_commit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum CommitLevel {
    /// Return once the commit is in the WAL's memory.
    Off,
    /// Wait for the local sync.
    Local,
    /// Wait until the synchronous standbys have it written.
    RemoteWrite,
    /// Wait until the synchronous standbys have it synced. Without any, as `Local`.
    #[default]
    On,
    /// Wait until the synchronous standbys have it applied.
    RemoteApply,
}

impl CommitLevel {
    pub(super) const COUNT: usize = 5;
    pub(super) const ALL: [Self; Self::COUNT] = [Self::Off, Self::Local, Self::RemoteWrite, Self::On, Self::RemoteApply];

    /// The level whose position sessions at this level read at.
    fn reads_at(self) -> Self {
        match self {
            Self::Off => Self::Off,
            Self::Local => Self::Local,
            Self::RemoteWrite | Self::On | Self::RemoteApply => Self::On,
        }
    }
}

/// How far the synchronous standbys are: the least, or the k-th best, as `synchronous_standby_names` asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncPositions {
    /// Written there.
    pub written: Lsn,
    /// Synced there.
    pub flushed: Lsn,
    /// Applied there.
    pub applied: Lsn,
}

impl SyncPositions {
    /// Synchronous standbys are named but none is there: commits wait.
    pub const NONE_THERE: Self = Self { written: Lsn::INVALID, flushed: Lsn::INVALID, applied: Lsn::INVALID };
}

/// The three positions readers read at: `replicated <= flushed <= recorded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// Every commit at or before it is recorded.
    pub recorded: Lsn,
    /// ... and durable here.
    pub flushed: Lsn,
    /// ... and durable on the synchronous standbys.
    pub replicated: Lsn,
}

/// A commit that is recorded but whose level is not reached yet.
#[derive(Debug)]
pub(super) struct Queued {
    /// Its locks, to be released.
    pub locks: Option<Arc<LockHolder>>,
    /// Its xids, whose waiters are to be woken.
    pub top: Xid,
    pub subs: Vec<Xid>,
    /// Its session, if it waits.
    pub waiter: Option<Arc<CommitWaiter>>,
}

/// What a session's commit wait and the queue share.
#[derive(Debug, Default)]
pub(super) struct CommitWaiter {
    /// Rank 89, leaf.
    state: Mutex<WaitState>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct WaitState {
    outcome: Outcome,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Outcome {
    #[default]
    Waiting,
    Reached,
    Stopped,
}

impl CommitWaiter {
    fn finish(&self, outcome: Outcome) {
        let waker = {
            let mut s = self.state.lock();
            if s.outcome == Outcome::Waiting {
                s.outcome = outcome;
            }
            self.wake.notify_all();
            s.waker.take()
        };
        if let Some(w) = waker {
            w.wake();
        }
    }
}

/// Resolves when the commit has reached its level. Dropping it leaves the commit and its locks where they are: the advance of the
/// position releases them.
#[derive(Debug)]
#[must_use = "a commit is not acknowledged before its wait is over"]
pub struct CommitWait {
    lsn: Lsn,
    level: CommitLevel,
    waiter: Option<Arc<CommitWaiter>>,
    /// The WAL that is still to be asked for the sync: when the wait begins, or is dropped. A wait that nobody minds does not keep it.
    unasked: Option<Weak<Wal>>,
}

impl CommitWait {
    /// Nothing to wait for.
    pub(super) fn done(lsn: Lsn) -> Self {
        Self { lsn, level: CommitLevel::Off, waiter: None, unasked: None }
    }

    /// A recorded commit. Who does not wait for the sync has it asked for at once.
    pub(super) fn new(lsn: Lsn, level: CommitLevel, waiter: Arc<CommitWaiter>, wal: &Arc<Wal>) -> Self {
        let mut wait = Self { lsn, level, waiter: Some(waiter), unasked: Some(Arc::downgrade(wal)) };
        if level == CommitLevel::Off {
            wait.ask();
        }
        wait
    }

    fn ask(&mut self) {
        if let Some(wal) = self.unasked.take().and_then(|wal| wal.upgrade()) {
            wal.request_flush(self.lsn);
        }
    }

    /// Makes the commit durable on this thread if that is quick ([`Wal::sync_here`]); what else it waits for is still to be waited for. The caller holds
    /// no lock, and no other session needs this thread meanwhile.
    pub fn sync_here(&mut self) {
        if let Some(wal) = self.unasked.take().and_then(|wal| wal.upgrade()) {
            wal.sync_here(self.lsn);
        }
    }

    /// Whether it may have to wait for standbys: only such a wait is worth being cut short.
    pub fn may_need_standbys(&self) -> bool {
        self.level >= CommitLevel::RemoteWrite
    }

    /// The commit record's end; INVALID if the transaction wrote nothing.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Whether its level is reached already.
    pub fn is_done(&self) -> bool {
        self.waiter.as_ref().is_none_or(|w| w.state.lock().outcome == Outcome::Reached)
    }

    /// Sleeps on this thread until the level is reached.
    ///
    /// # Errors
    /// [`TxnError::CommitUnknown`] if the node stops first.
    pub fn wait(mut self) -> Result<(), TxnError> {
        self.ask();
        let Some(w) = self.waiter.take() else { return Ok(()) };
        let mut s = w.state.lock();
        while s.outcome == Outcome::Waiting {
            w.wake.wait(&mut s);
        }
        outcome(s.outcome, self.lsn)
    }

    /// Sleeps on this thread until the level is reached, or the session is told to stop while standbys are missing. The commit stays what it is:
    /// recorded here, seen by others once the standbys have it.
    ///
    /// # Errors
    /// [`TxnError::Unconfirmed`]; [`TxnError::CommitUnknown`] if the node stops first.
    pub fn wait_unless(mut self, cancel: &CancelFlag, is_synchronous: impl Fn() -> bool) -> Result<(), TxnError> {
        let woken = Arc::<Waiter>::default();
        cancel.enter_wait(&woken);
        let waker = Waker::from(Arc::clone(&woken));
        let result = loop {
            if let Poll::Ready(result) = Pin::new(&mut self).poll(&mut Context::from_waker(&waker)) {
                break result;
            }
            if let Some(reason) = cancel.reason()
                && reason != CancelReason::StatementTimeout
                && self.may_need_standbys()
                && is_synchronous()
            {
                break Err(TxnError::Unconfirmed(reason));
            }
            woken.wait(None);
        };
        cancel.leave_wait();
        result
    }
}

fn outcome(o: Outcome, lsn: Lsn) -> Result<(), TxnError> {
    if o == Outcome::Reached { Ok(()) } else { Err(TxnError::CommitUnknown(lsn)) }
}

impl Future for CommitWait {
    type Output = Result<(), TxnError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.ask();
        let Some(w) = &self.waiter else { return Poll::Ready(Ok(())) };
        let mut s = w.state.lock();
        if s.outcome == Outcome::Waiting {
            match &mut s.waker {
                Some(k) => k.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            Poll::Pending
        } else {
            Poll::Ready(outcome(s.outcome, self.lsn))
        }
    }
}

impl Drop for CommitWait {
    fn drop(&mut self) {
        self.ask();
    }
}

/// A commit on its way into the WAL.
#[derive(Debug)]
pub(super) struct Pending {
    /// Its record starts at or after this.
    bound: Lsn,
    done: bool,
}

/// Position waits that are not commits: a writer that met a version above its position, a session whose own commit is recorded
/// behind another one in flight.
type Sleepers = BTreeMap<Lsn, Vec<Arc<Waiter>>>;

#[derive(Debug, Default)]
struct Queue {
    /// In the order they registered, so bounds ascend. `base` is the ticket of the front.
    pending: VecDeque<Pending>,
    base: u64,
    /// Per level, by LSN.
    waiting: [BTreeMap<Lsn, Queued>; CommitLevel::COUNT],
    sleepers: [Sleepers; CommitLevel::COUNT],
    /// Largest recorded commit LSN.
    newest: Lsn,
    sync: Option<SyncPositions>,
    stopped: bool,
}

/// Positions and queue. One per node.
#[derive(Debug)]
pub(super) struct CommitQueue {
    /// One per level; monotone. `SeqCst`, see `SnapshotSlot`.
    positions: [AtomicU64; CommitLevel::COUNT],
    /// Rank 40, below page latches (30). No I/O, no waiting. Locks are released and waiters woken after it is let go.
    queue: Mutex<Queue>,
}

/// A ticket of `CommitQueue::enter`.
#[derive(Debug)]
pub(super) struct Ticket(u64);

/// Commits whose level was reached: what is to be done once the queue's lock is let go.
pub(super) type Released = SmallVec<[Queued; 2]>;

impl CommitQueue {
    pub(super) fn new(at: Lsn) -> Self {
        Self {
            positions: std::array::from_fn(|_| AtomicU64::new(at.as_u64())),
            queue: Mutex::new(Queue { newest: at, ..Queue::default() }),
        }
    }

    /// The position commits at `level` wait for.
    #[inline]
    pub(super) fn reached(&self, level: CommitLevel) -> Lsn {
        Lsn::from_u64(self.positions[level as usize].load(Ordering::SeqCst))
    }

    /// The position sessions at `level` read at.
    #[inline]
    pub(super) fn readable(&self, level: CommitLevel) -> Lsn {
        self.reached(level.reads_at())
    }

    /// Registers a commit whose record is about to be inserted. `inserted` is read under the lock.
    pub(super) fn enter(&self, inserted: impl FnOnce() -> Lsn) -> Ticket {
        let mut q = self.queue.lock();
        let bound = inserted();
        q.pending.push_back(Pending { bound, done: false });
        Ticket(q.base + u64::try_from(q.pending.len() - 1).unwrap_or(u64::MAX))
    }

    /// The commit is recorded: it now waits for its level. `None` if it came to nothing. `flushed` is read under the lock: a flush
    /// that ended while this commit was still pending could not advance the positions past it, and nobody else would.
    pub(super) fn leave(&self, ticket: &Ticket, commit: Option<(Lsn, CommitLevel, Queued)>, flushed: impl FnOnce() -> Lsn) -> Released {
        let mut q = self.queue.lock();
        let flushed = flushed();
        if let Some(p) = ticket.0.checked_sub(q.base).and_then(|i| usize::try_from(i).ok()).and_then(|i| q.pending.get_mut(i)) {
            p.done = true;
        }
        while q.pending.front().is_some_and(|p| p.done) {
            q.pending.pop_front();
            q.base += 1;
        }
        if let Some((lsn, level, queued)) = commit {
            q.newest = q.newest.max(lsn);
            q.waiting[level as usize].insert(lsn, queued);
        }
        self.advance_locked(&mut q, flushed)
    }

    /// Least lower bound of the commits in flight: a checkpoint's redo point must not pass it.
    pub(super) fn oldest_pending(&self) -> Option<Lsn> {
        self.queue.lock().pending.front().map(|p| p.bound)
    }

    /// The WAL is flushed up to `flushed`.
    pub(super) fn advance(&self, flushed: Lsn) -> Released {
        // Published moves with every record; only a sync, or a commit leaving, can move a position.
        if flushed <= self.reached(CommitLevel::Local) {
            return Released::new();
        }
        self.advance_locked(&mut self.queue.lock(), flushed)
    }

    /// The synchronous standbys moved; `None`: there are none to wait for.
    pub(super) fn set_sync(&self, sync: Option<SyncPositions>, flushed: impl FnOnce() -> Lsn) -> Released {
        let mut q = self.queue.lock();
        let flushed = flushed();
        q.sync = sync;
        self.advance_locked(&mut q, flushed)
    }

    /// Whether commits wait for standbys.
    pub(super) fn is_synchronous(&self) -> bool {
        self.queue.lock().sync.is_some()
    }

    /// What [`Self::set_sync`] is told, for commits to come: no position moves now.
    pub(super) fn expect_sync(&self, sync: Option<SyncPositions>) {
        self.queue.lock().sync = sync;
    }

    /// All positions at once: a standby's replayed LSN, a recovery's end.
    pub(super) fn set_all(&self, lsn: Lsn) -> Released {
        let mut q = self.queue.lock();
        q.newest = q.newest.max(lsn);
        for p in &self.positions {
            p.fetch_max(lsn.as_u64(), Ordering::SeqCst);
        }
        self.reap(&mut q)
    }

    fn advance_locked(&self, q: &mut Queue, wal_flushed: Lsn) -> Released {
        let limit = q.pending.front().map(|p| p.bound);
        let recorded = limit.unwrap_or(q.newest);
        let flushed = limit.map_or(wal_flushed, |l| l.min(wal_flushed));
        let sync = q.sync.unwrap_or(SyncPositions { written: flushed, flushed, applied: flushed });
        // `recorded` may lag behind `flushed` in number only: what lies between are not commits.
        let to = [recorded.max(flushed), flushed, flushed.min(sync.written), flushed.min(sync.flushed), flushed.min(sync.applied)];
        for (p, lsn) in self.positions.iter().zip(to) {
            p.fetch_max(lsn.as_u64(), Ordering::SeqCst);
        }
        self.reap(q)
    }

    fn reap(&self, q: &mut Queue) -> Released {
        let mut out = Released::new();
        for level in CommitLevel::ALL {
            let at = self.reached(level);
            let i = level as usize;
            while let Some(e) = q.waiting[i].first_entry() {
                if *e.key() > at {
                    break;
                }
                out.push(e.remove());
            }
            while let Some(e) = q.sleepers[i].first_entry() {
                if *e.key() > at {
                    break;
                }
                for w in e.remove() {
                    w.notify();
                }
            }
        }
        out
    }

    /// A sleeper that is notified when sessions at `level` read at `lsn` or later, or the node stops. `None`: they do already.
    pub(super) fn sleeper(&self, level: CommitLevel, lsn: Lsn) -> Option<Arc<Waiter>> {
        let level = level.reads_at();
        if self.reached(level) >= lsn {
            return None;
        }
        let mut q = self.queue.lock();
        if self.reached(level) >= lsn {
            return None;
        }
        let w = Arc::<Waiter>::default();
        q.sleepers[level as usize].entry(lsn).or_default().push(Arc::clone(&w));
        Some(w)
    }

    /// A sleeper that gave up.
    pub(super) fn forget_sleeper(&self, level: CommitLevel, lsn: Lsn, waiter: &Arc<Waiter>) {
        let mut q = self.queue.lock();
        let sleepers = &mut q.sleepers[level.reads_at() as usize];
        if let Some(list) = sleepers.get_mut(&lsn) {
            list.retain(|w| !Arc::ptr_eq(w, waiter));
            if list.is_empty() {
                sleepers.remove(&lsn);
            }
        }
    }

    /// Whether the node stops.
    pub(super) fn is_stopped(&self) -> bool {
        self.queue.lock().stopped
    }

    /// Whether the commit at `lsn` still waits for its level.
    pub(super) fn is_waiting(&self, lsn: Lsn) -> bool {
        // Reached by the strictest level: no need to look.
        if CommitLevel::ALL.iter().all(|l| self.reached(*l) >= lsn) {
            return false;
        }
        self.queue.lock().waiting.iter().any(|m| m.contains_key(&lsn))
    }

    /// The node stops: whoever waits learns that its outcome is unknown.
    pub(super) fn stop(&self) {
        let (waiting, sleepers) = {
            let mut q = self.queue.lock();
            q.stopped = true;
            (std::mem::take(&mut q.waiting), std::mem::take(&mut q.sleepers))
        };
        for w in waiting.iter().flat_map(BTreeMap::values).filter_map(|e| e.waiter.as_ref()) {
            w.finish(Outcome::Stopped);
        }
        for w in sleepers.iter().flat_map(BTreeMap::values).flatten() {
            w.notify();
        }
    }
}

/// Ends the session's wait; after its locks are released.
pub(super) fn acknowledge(q: &Queued) {
    if let Some(w) = &q.waiter {
        w.finish(Outcome::Reached);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(v: u64) -> Lsn {
        Lsn::from_u64(v)
    }

    fn queued() -> (Queued, Arc<CommitWaiter>) {
        let w = Arc::new(CommitWaiter::default());
        (Queued { locks: None, top: Xid::from_u64(3), subs: vec![], waiter: Some(Arc::clone(&w)) }, w)
    }

    #[test]
    fn no_position_passes_a_commit_in_flight() {
        let q = CommitQueue::new(lsn(100));
        let a = q.enter(|| lsn(100));
        let b = q.enter(|| lsn(100));
        let (e, _) = queued();
        assert!(q.leave(&b, Some((lsn(180), CommitLevel::Off, e)), || lsn(100)).is_empty());
        assert_eq!(q.readable(CommitLevel::Off), lsn(100));
        assert!(q.advance(lsn(200)).is_empty());
        assert_eq!(q.readable(CommitLevel::On), lsn(100));
        assert_eq!(q.oldest_pending(), Some(lsn(100)));
        let (e, _) = queued();
        assert_eq!(q.leave(&a, Some((lsn(140), CommitLevel::On, e)), || lsn(200)).len(), 2);
        assert_eq!(q.readable(CommitLevel::Off), lsn(200));
        assert_eq!(q.readable(CommitLevel::On), lsn(200));
    }

    #[test]
    fn the_first_commit_after_a_recovery_waits_for_the_standbys_named_before() {
        let q = CommitQueue::new(lsn(100));
        q.expect_sync(Some(SyncPositions::NONE_THERE));
        assert!(q.set_all(lsn(200)).is_empty());
        let t = q.enter(|| lsn(200));
        assert!(q.leave(&t, Some((lsn(240), CommitLevel::On, queued().0)), || lsn(300)).is_empty());
        assert_eq!((q.readable(CommitLevel::On), q.readable(CommitLevel::Local)), (lsn(200), lsn(300)));
        assert_eq!(q.set_sync(None, || lsn(300)).len(), 1);
    }

    #[test]
    fn each_level_waits_for_its_own_position() {
        let q = CommitQueue::new(lsn(0));
        q.set_sync(Some(SyncPositions::NONE_THERE), || lsn(0));
        for (i, level) in CommitLevel::ALL.into_iter().enumerate() {
            let at = 10 + 10 * u64::try_from(i).unwrap();
            let t = q.enter(|| lsn(at - 10));
            let n = q.leave(&t, Some((lsn(at), level, queued().0)), || lsn(0)).len();
            assert_eq!(n, usize::from(level == CommitLevel::Off));
        }
        assert_eq!(q.advance(lsn(100)).len(), 1);
        assert_eq!(q.readable(CommitLevel::Local), lsn(100));
        assert_eq!(q.readable(CommitLevel::On), lsn(0));
        let s = |written, flushed, applied| Some(SyncPositions { written: lsn(written), flushed: lsn(flushed), applied: lsn(applied) });
        assert_eq!(q.set_sync(s(100, 0, 0), || lsn(100)).len(), 1);
        assert!(q.is_waiting(lsn(40)));
        assert_eq!(q.set_sync(s(100, 100, 0), || lsn(100)).len(), 1);
        assert!(!q.is_waiting(lsn(40)));
        assert!(q.is_waiting(lsn(50)));
        assert_eq!(q.set_sync(None, || lsn(100)).len(), 1);
        assert_eq!(q.readable(CommitLevel::RemoteApply), lsn(100));
    }
}
