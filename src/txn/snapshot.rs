//! Snapshots: which versions a statement sees, and how the removal horizon learns of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use afterimage_wal::ids::{Lsn, Xid};
use parking_lot::{Condvar, Mutex, RwLock};
use smallvec::SmallVec;

use super::cancel::CancelReason;
use super::error::TxnError;
use super::serializable::Serializable;

/// The xids a transaction writes under, and its combined command ids. Shared with its snapshots and with the deadlock detector.
#[derive(Debug)]
pub struct OwnXids {
    /// The top-level xid. The lowest of all.
    top: Xid,
    /// Whether `subs` was ever filled. Relaxed: only the owning session changes and decides by it.
    has_subs: AtomicBool,
    /// Sub-xids neither rolled back nor, being released, merged away; ascending. Rank 85.
    subs: RwLock<Vec<Xid>>,
    /// (cmin, cmax) of versions this transaction both made and ended. Rank 85.
    combo: RwLock<Vec<(u32, u32)>>,
}

impl OwnXids {
    pub(super) fn new(top: Xid) -> Self {
        Self { top, has_subs: AtomicBool::new(false), subs: RwLock::default(), combo: RwLock::default() }
    }

    /// The top-level xid.
    pub fn top(&self) -> Xid {
        self.top
    }

    /// Whether `xid` is one of them.
    #[inline]
    pub fn contains(&self, xid: Xid) -> bool {
        xid == self.top || (xid > self.top && self.has_subs.load(Ordering::Relaxed) && self.subs.read().binary_search(&xid).is_ok())
    }

    /// Sub-xids, ascending.
    pub(super) fn subs(&self) -> Vec<Xid> {
        if self.has_subs.load(Ordering::Relaxed) { self.subs.read().clone() } else { Vec::new() }
    }

    /// How many sub-xids there are: the mark to cut back to.
    pub(super) fn sub_count(&self) -> usize {
        if self.has_subs.load(Ordering::Relaxed) { self.subs.read().len() } else { 0 }
    }

    pub(super) fn push_sub(&self, xid: Xid) {
        self.has_subs.store(true, Ordering::Relaxed);
        self.subs.write().push(xid);
    }

    /// Removes and returns the sub-xids from `mark` on.
    pub(super) fn cut_subs(&self, mark: usize) -> Vec<Xid> {
        let mut s = self.subs.write();
        let at = mark.min(s.len());
        s.split_off(at)
    }

    /// An id that stands for both command ids in a version's one field.
    pub fn combine(&self, cmin: u32, cmax: u32) -> u32 {
        let mut c = self.combo.write();
        // The same pair repeats for every row of one statement, so it is one of the last. An older one is noted again: with a savepoint for every
        // change there may be a million.
        if let Some(back) = c.iter().rev().take(16).position(|p| *p == (cmin, cmax)) {
            return u32::try_from(c.len() - 1 - back).unwrap_or(u32::MAX);
        }
        c.push((cmin, cmax));
        u32::try_from(c.len() - 1).unwrap_or(u32::MAX)
    }

    /// The pair behind a combined id.
    pub fn split(&self, combo: u32) -> Option<(u32, u32)> {
        self.combo.read().get(usize::try_from(combo).ok()?).copied()
    }
}

/// A session's oldest snapshot, where the horizon looks for it.
///
/// A snapshot registers first (with the published horizon, a lower bound), then reads its position; both `SeqCst`, paired with
/// the scan in `Transactions::horizon`, which reads the position before it scans.
#[derive(Debug)]
pub(super) struct SnapshotSlot {
    /// Oldest registered LSN, or `NONE`.
    oldest: AtomicU64,
    /// Registered LSNs with their counts. Rank 86, leaf.
    held: Mutex<SmallVec<[(u64, u32); 4]>>,
    /// The session waits for replay itself: replay does not wait for it. SeqCst, as `oldest`.
    aside: AtomicBool,
    /// Replay removed what a snapshot held here may need. Set under `held`; lowered when nothing is held.
    stale: AtomicBool,
    gone: Arc<SnapshotGone>,
}

/// Wakes replay, which waits for old snapshots to go.
#[derive(Debug, Default)]
pub(super) struct SnapshotGone {
    /// SeqCst with the slots: a waiter raises it, then looks at them.
    waiters: AtomicUsize,
    lock: Mutex<()>,
    moved: Condvar,
}

impl SnapshotGone {
    fn tell(&self) {
        if self.waiters.load(Ordering::SeqCst) > 0 {
            let _held = self.lock.lock();
            self.moved.notify_all();
        }
    }

    /// Waits until `oldest` is at or above `horizon`, or the deadline; returns whether it is.
    pub(super) fn wait(&self, horizon: u64, deadline: Option<Instant>, oldest: impl Fn() -> u64) -> bool {
        if oldest() >= horizon {
            return true;
        }
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let mut held = self.lock.lock();
        // A release after this look takes the lock to tell, so it is not missed.
        let reached = loop {
            if oldest() >= horizon {
                break true;
            }
            match deadline {
                Some(at) if Instant::now() >= at => break false,
                Some(at) => {
                    self.moved.wait_until(&mut held, at);
                }
                None => self.moved.wait(&mut held),
            }
        };
        self.waiters.fetch_sub(1, Ordering::SeqCst);
        reached
    }
}

impl SnapshotSlot {
    pub(super) const NONE: u64 = u64::MAX;

    pub(super) fn new(gone: Arc<SnapshotGone>) -> Self {
        Self {
            oldest: AtomicU64::new(Self::NONE),
            held: Mutex::default(),
            aside: AtomicBool::new(false),
            stale: AtomicBool::new(false),
            gone,
        }
    }

    /// Replay no longer waits for this session, or does again.
    pub(super) fn set_aside(&self, aside: bool) {
        self.aside.store(aside, Ordering::SeqCst);
        self.gone.tell();
    }

    /// Oldest registered LSN that replay waits for.
    pub(super) fn oldest_in_the_way(&self) -> u64 {
        if self.aside.load(Ordering::SeqCst) { Self::NONE } else { self.oldest() }
    }

    /// Replay goes on past `horizon`: what is held here and is older can no longer be read with.
    pub(super) fn pass(&self, horizon: u64) {
        if self.oldest() < horizon {
            let held = self.held.lock();
            if held.iter().any(|(lsn, _)| *lsn < horizon) {
                self.stale.store(true, Ordering::SeqCst);
            }
        }
    }

    pub(super) fn oldest(&self) -> u64 {
        self.oldest.load(Ordering::SeqCst)
    }

    /// Registers what `position` returns. `floor` is at or below anything `position` can return.
    fn register(&self, floor: u64, position: impl FnOnce() -> Lsn) -> Lsn {
        let mut held = self.held.lock();
        if held.is_empty() {
            self.oldest.store(floor, Ordering::SeqCst);
        }
        let lsn = position();
        let v = lsn.as_u64();
        match held.iter_mut().find(|(l, _)| *l == v) {
            Some((_, n)) => *n += 1,
            None => held.push((v, 1)),
        }
        self.publish(&held);
        lsn
    }

    fn again(&self, lsn: Lsn) {
        let mut held = self.held.lock();
        match held.iter_mut().find(|(l, _)| *l == lsn.as_u64()) {
            Some((_, n)) => *n += 1,
            None => held.push((lsn.as_u64(), 1)),
        }
        self.publish(&held);
    }

    fn release(&self, lsn: Lsn) {
        let mut held = self.held.lock();
        if let Some(i) = held.iter().position(|(l, _)| *l == lsn.as_u64()) {
            held[i].1 -= 1;
            if held[i].1 == 0 {
                held.swap_remove(i);
                if held.is_empty() {
                    self.stale.store(false, Ordering::SeqCst);
                }
                self.publish(&held);
            }
        }
    }

    fn publish(&self, held: &[(u64, u32)]) {
        let oldest = held.iter().map(|(l, _)| *l).min().unwrap_or(Self::NONE);
        if self.oldest.load(Ordering::Relaxed) != oldest {
            self.oldest.store(oldest, Ordering::SeqCst);
            self.gone.tell();
        }
    }
}

/// Keeps an LSN registered while it lives.
#[derive(Debug)]
pub(super) struct Registration {
    slot: Arc<SnapshotSlot>,
    lsn: Lsn,
}

impl Registration {
    pub(super) fn new(slot: &Arc<SnapshotSlot>, floor: Lsn, position: impl FnOnce() -> Lsn) -> Self {
        let lsn = slot.register(floor.as_u64(), position);
        Self { slot: Arc::clone(slot), lsn }
    }
}

impl Clone for Registration {
    fn clone(&self) -> Self {
        self.slot.again(self.lsn);
        Self { slot: Arc::clone(&self.slot), lsn: self.lsn }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.slot.release(self.lsn);
    }
}

/// What a statement sees: commits at or before `lsn`, and its transaction's own changes before command `cid`.
///
/// Registered while it lives, so that nothing it needs is removed. Clones share nothing that must be waited for.
#[derive(Clone, Debug)]
pub struct Snapshot {
    lsn: Lsn,
    cid: u32,
    /// `None` if the transaction had no xid when the snapshot was taken. What it wrote later is in progress to this snapshot,
    /// which comes to the same: those changes carry a command id at or above `cid`.
    own: Option<Arc<OwnXids>>,
    /// Marks what is read with it.
    serializable: Option<Arc<Serializable>>,
    registration: Registration,
}

impl Snapshot {
    pub(super) fn new(registration: Registration, cid: u32, own: Option<Arc<OwnXids>>) -> Self {
        Self { lsn: registration.lsn, cid, own, serializable: None, registration }
    }

    /// Whether all it sees is still there.
    ///
    /// # Errors
    /// 40001: its session stepped aside for replay, which removed what it may need.
    #[inline]
    pub fn check(&self) -> Result<(), TxnError> {
        if self.registration.slot.stale.load(Ordering::Relaxed) {
            return Err(TxnError::Cancelled(CancelReason::RecoveryConflict));
        }
        Ok(())
    }

    /// The commit LSN it reads at.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Own changes with a command id below this are seen.
    pub fn cid(&self) -> u32 {
        self.cid
    }

    /// The own xids, if any.
    pub fn own(&self) -> Option<&OwnXids> {
        self.own.as_deref()
    }

    /// The serializable transaction that reads with it; `None` for any other, and for catalogs and constraints.
    #[inline]
    pub fn serializable(&self) -> Option<&Arc<Serializable>> {
        self.serializable.as_ref()
    }

    pub(super) fn with_serializable(mut self, serializable: Arc<Serializable>) -> Self {
        self.serializable = Some(serializable);
        self
    }

    /// The same commits, with the own changes of commands before `cid`.
    #[must_use]
    pub fn with_cid(&self, cid: u32, own: Option<Arc<OwnXids>>) -> Self {
        Self { cid, own, ..self.clone() }
    }
}
