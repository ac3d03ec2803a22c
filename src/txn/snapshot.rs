//! Snapshots: which versions a statement sees, and how the removal horizon learns of them.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use afterimage_wal::ids::{BlockNo, Lsn, Oid, RelId, Xid};
use parking_lot::{Condvar, Mutex, RwLock};
use smallvec::SmallVec;

use super::cancel::{CancelReason, Conflict};
use super::error::TxnError;
use super::serializable::Serializable;
use super::wait::Waiter;

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

/// A session's oldest snapshot, where the horizon looks for it, and on a standby what else of the session replay may have to wait for.
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
    /// The database it is connected to; 0 while it logs in. SeqCst: set before the login's look at the catalog, see `standby`.
    database: AtomicU32,
    /// Pages that its scans stand on, on a standby. Rank 86, leaf.
    pages: Mutex<SmallVec<[(RelId, BlockNo); 2]>>,
    /// Tablespaces that its temporary files are in, or may be. Rank 86, leaf.
    spaces: Mutex<SmallVec<[Oid; 2]>>,
    gone: Arc<SnapshotGone>,
}

type Hook = Box<dyn Fn() + Send + Sync>;

/// Wakes replay, which waits for sessions to get out of its way: for old snapshots to go, say. And whoever waits for the horizon to move.
#[derive(Default)]
pub(super) struct SnapshotGone {
    /// Somebody wants to hear once that the horizon may have moved. SeqCst: raised before the look at the horizon.
    watched: AtomicBool,
    /// How many pages scans stand on: mostly none, and then replay need not ask each session. Relaxed.
    standing: AtomicUsize,
    hook: OnceLock<Hook>,
    /// SeqCst with the slots: a waiter raises it, then looks at them.
    waiters: AtomicUsize,
    /// Who sleeps otherwise than on `moved`.
    lock: Mutex<Vec<Arc<Waiter>>>,
    moved: Condvar,
}

impl std::fmt::Debug for SnapshotGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SnapshotGone(waiters {})", self.waiters.load(Ordering::Relaxed))
    }
}

impl SnapshotGone {
    /// What is called, once, when the horizon may have moved after [`Self::watch`]. The first caller counts.
    pub(super) fn on_move(&self, hook: impl Fn() + Send + Sync + 'static) {
        // Only the engine does this, once.
        let _once = self.hook.set(Box::new(hook));
    }

    /// Whether any scan stands on a page.
    pub(super) fn any_standing(&self) -> bool {
        self.standing.load(Ordering::Relaxed) > 0
    }

    /// Asks for the call, or no longer.
    pub(super) fn watch(&self, wanted: bool) {
        self.watched.store(wanted, Ordering::SeqCst);
    }

    /// Something went. No lock is held that a waiter's condition takes: 80, 81, `pages`, `spaces`.
    pub(super) fn tell(&self) {
        if self.waiters.load(Ordering::SeqCst) > 0 {
            let others = self.lock.lock();
            self.moved.notify_all();
            others.iter().for_each(|w| w.notify());
        }
        if self.watched.load(Ordering::SeqCst)
            && self.watched.swap(false, Ordering::SeqCst)
            && let Some(hook) = self.hook.get()
        {
            hook();
        }
    }

    /// Wakes `waiter` too, each time, until the result is dropped.
    pub(super) fn tell_too(&self, waiter: &Arc<Waiter>) -> ToldToo<'_> {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        self.lock.lock().push(Arc::clone(waiter));
        ToldToo { gone: self, waiter: Arc::clone(waiter) }
    }

    /// Waits until it is `clear`, or the deadline; returns whether it is.
    pub(super) fn wait(&self, deadline: Option<Instant>, clear: impl Fn() -> bool) -> bool {
        if clear() {
            return true;
        }
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let mut held = self.lock.lock();
        // A release after this look takes the lock to tell, so it is not missed.
        let reached = loop {
            if clear() {
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

/// See [`SnapshotGone::tell_too`].
pub(super) struct ToldToo<'a> {
    gone: &'a SnapshotGone,
    waiter: Arc<Waiter>,
}

impl Drop for ToldToo<'_> {
    fn drop(&mut self) {
        self.gone.lock.lock().retain(|w| !Arc::ptr_eq(w, &self.waiter));
        self.gone.waiters.fetch_sub(1, Ordering::SeqCst);
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
            database: AtomicU32::new(0),
            pages: Mutex::default(),
            spaces: Mutex::default(),
            gone,
        }
    }

    pub(super) fn set_database(&self, database: Oid) {
        self.database.store(database, Ordering::SeqCst);
    }

    pub(super) fn database(&self) -> Oid {
        self.database.load(Ordering::SeqCst)
    }

    /// Whether a scan stands on one of `pages`.
    pub(super) fn stands_on(&self, pages: &[(RelId, BlockNo)]) -> bool {
        self.pages.lock().iter().any(|p| pages.contains(p))
    }

    /// Whether it has, or may have, temporary files in a tablespace.
    pub(super) fn uses_space(&self, space: Oid) -> bool {
        self.spaces.lock().contains(&space)
    }

    pub(super) fn use_space(self: &Arc<Self>, space: Oid) -> InTablespace {
        self.spaces.lock().push(space);
        InTablespace { slot: Arc::clone(self), space }
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

/// A page that a scan on a standby stands on, while it lives.
#[derive(Debug)]
pub struct OnPage {
    slot: Arc<SnapshotSlot>,
    at: (RelId, BlockNo),
}

impl Drop for OnPage {
    fn drop(&mut self) {
        self.slot.gone.standing.fetch_sub(1, Ordering::Relaxed);
        {
            let mut pages = self.slot.pages.lock();
            if let Some(i) = pages.iter().position(|p| *p == self.at) {
                pages.swap_remove(i);
            }
        }
        self.slot.gone.tell();
    }
}

/// A tablespace that temporary files are in, or may be, while it lives.
#[derive(Debug)]
pub struct InTablespace {
    slot: Arc<SnapshotSlot>,
    space: Oid,
}

impl Drop for InTablespace {
    fn drop(&mut self) {
        {
            let mut spaces = self.slot.spaces.lock();
            if let Some(i) = spaces.iter().position(|s| *s == self.space) {
                spaces.swap_remove(i);
            }
        }
        self.slot.gone.tell();
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
            return Err(TxnError::Cancelled(CancelReason::RecoveryConflict(Conflict::Snapshot)));
        }
        Ok(())
    }

    /// A scan that reads with it stands on this page from now on, on a standby.
    pub fn stand_on(&self, rel: RelId, block: BlockNo) -> OnPage {
        let slot = &self.registration.slot;
        slot.pages.lock().push((rel, block));
        slot.gone.standing.fetch_add(1, Ordering::Relaxed);
        OnPage { slot: Arc::clone(slot), at: (rel, block) }
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
