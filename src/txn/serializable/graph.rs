//! Who conflicts with whom, and when that is one conflict too many. PostgreSQL: storage/lmgr/predicate.c.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use afterimage_wal::ids::{BlockNo, Lsn, RelId, Xid};
use hashbrown::HashMap;
use parking_lot::Mutex;
use rustc_hash::FxHasher;
use smallvec::SmallVec;

use super::marks::{Mark, MarkLimits, Marks, SxId};
use crate::txn::error::TxnError;
use crate::txn::positions::{CommitLevel, CommitQueue};
use crate::txn::proc::ProcId;
use crate::txn::wait::Waiter;

/// Finished transactions that are kept one by one. Those before them are summed up.
pub(super) const KEPT: usize = 1024;

/// Stands for the finished transactions that were summed up.
const OLD: SxId = 0;

/// How far a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// It will commit unless the node stops: nobody can make it fail any more. The number orders it among prepares and commits.
    Prepared(u64),
    Committed {
        prepared: u64,
        /// When its commit was known here.
        known: u64,
        /// Where. For one that wrote nothing: what was recorded when it ended.
        lsn: Lsn,
    },
}

#[derive(Debug)]
struct Node {
    proc: ProcId,
    /// What it reads at; a lower bound until it has taken its snapshot.
    snapshot: Lsn,
    xids: SmallVec<[Xid; 1]>,
    /// Declared so; or committed without having written.
    read_only: bool,
    phase: Phase,
    /// Chosen to fail at its next step.
    doomed: bool,
    /// Who read what this one wrote over.
    readers: BTreeSet<SxId>,
    /// Who wrote over what this one read.
    writers: BTreeSet<SxId>,
    /// It has such readers, writers among those that were summed up.
    old_readers: bool,
    old_writers: bool,
    /// The first commit among the writers over its reads that committed before it did. Set when it commits.
    first_writer: Option<Lsn>,
    /// Of a read-only one: writers whose end decides whether its snapshot is safe.
    unsettled: BTreeSet<SxId>,
    /// Of a writer: the read-only ones that wait so.
    watched_by: BTreeSet<SxId>,
    /// Its snapshot shows what no serial order can, should it go on reading unmarked.
    spoiled: bool,
    handle: Arc<Shared>,
}

impl Node {
    fn is_prepared(&self) -> bool {
        self.phase != Phase::Running
    }

    fn is_committed(&self) -> bool {
        matches!(self.phase, Phase::Committed { .. })
    }

    fn prepared(&self) -> Option<u64> {
        match self.phase {
            Phase::Running => None,
            Phase::Prepared(n) | Phase::Committed { prepared: n, .. } => Some(n),
        }
    }

    fn known(&self) -> Option<u64> {
        match self.phase {
            Phase::Committed { known, .. } => Some(known),
            Phase::Running | Phase::Prepared(_) => None,
        }
    }

    fn commit_lsn(&self) -> Option<Lsn> {
        match self.phase {
            Phase::Committed { lsn, .. } => Some(lsn),
            Phase::Running | Phase::Prepared(_) => None,
        }
    }

    /// Whether it committed before a snapshot at `lsn` was taken.
    fn is_before(&self, lsn: Lsn) -> bool {
        self.commit_lsn().is_some_and(|c| c <= lsn)
    }

    fn name(&self) -> Xid {
        self.xids.first().copied().unwrap_or(Xid::INVALID)
    }
}

/// What the graph and the transaction share.
#[derive(Debug, Default)]
struct Shared {
    /// Nothing it reads can matter to others, nor others to it: it is left alone. Relaxed: a late look costs a mark too many.
    safe: AtomicBool,
    /// Woken when it is known whether its snapshot is safe.
    settled: Arc<Waiter>,
}

/// One line of `pg_locks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkInfo {
    /// What was read.
    pub mark: Mark,
    /// By whom.
    pub proc: ProcId,
}

#[derive(Debug, Default)]
struct Graph {
    nodes: HashMap<SxId, Node, BuildHasherDefault<FxHasher>>,
    by_xid: HashMap<Xid, SxId, BuildHasherDefault<FxHasher>>,
    /// Finished ones, by commit.
    finished: BTreeSet<(Lsn, SxId)>,
    /// Xids of finished ones that were summed up, and the first commit among the writers over their reads.
    old: BTreeMap<Xid, Option<Lsn>>,
    /// The last commit among them.
    old_until: Lsn,
    marks: Marks,
    next: SxId,
    /// Orders prepares and commits.
    clock: u64,
    /// Running or prepared ones that may write.
    writers: usize,
}

/// Why a transaction is to fail.
struct Reason(String);

impl From<Reason> for TxnError {
    fn from(r: Reason) -> Self {
        Self::Dependencies { detail: format!("Reason code: {}", r.0) }
    }
}

impl Graph {
    fn reader_matters(reader: &Node, writer: &Node, later: &Node) -> bool {
        // `later` committed first of the three.
        let Some(first) = later.prepared() else { return false };
        reader.known().is_none_or(|k| first <= k)
            && writer.known().is_none_or(|k| first <= k)
            && (!reader.read_only || later.is_before(reader.snapshot))
    }

    /// Whether a conflict `reader -> writer` completes a dangerous structure. Either may be `OLD`.
    fn is_dangerous(&self, reader: SxId, writer: SxId) -> bool {
        let (r, w) = (self.nodes.get(&reader), self.nodes.get(&writer));
        if let Some(w) = w {
            // The writer is the pivot and committed after the one behind it.
            if w.is_committed() && (w.first_writer.is_some() || w.old_writers) {
                return true;
            }
            // The writer is the pivot, the one behind it commits first.
            if w.old_writers {
                return true;
            }
            if let Some(r) = r
                && w.writers.iter().filter_map(|t| self.nodes.get(t)).any(|later| Self::reader_matters(r, w, later))
            {
                return true;
            }
        }
        // The reader is the pivot, the writer commits first.
        let Some(r) = r else { return false };
        let first = match (writer, w) {
            (OLD, _) => 0,
            (_, Some(w)) => match w.prepared() {
                Some(n) => n,
                None => return false,
            },
            (_, None) => return false,
        };
        if r.read_only {
            return false;
        }
        r.old_readers
            || r.readers.iter().filter_map(|t| self.nodes.get(t)).any(|t0| {
                !t0.doomed && t0.known().is_none_or(|k| k >= first) && (!t0.read_only || w.is_some_and(|w| w.is_before(t0.snapshot)))
            })
    }

    /// `reader` read what `writer` wrote over; `me` is the one of them that runs.
    fn conflict(&mut self, reader: SxId, writer: SxId, me: SxId) -> Result<(), Reason> {
        if self.is_dangerous(reader, writer) {
            if writer == me {
                return Err(Reason("Canceled on identification as a pivot, during write.".into()));
            }
            match self.nodes.get_mut(&writer) {
                Some(w) if !w.is_prepared() => w.doomed = true,
                w => {
                    let name = w.map_or(Xid::INVALID, |w| w.name());
                    return Err(Reason(format!("Canceled on conflict out to pivot {name}, during read.")));
                }
            }
        }
        match (reader, writer) {
            (OLD, _) => {
                if let Some(w) = self.nodes.get_mut(&writer) {
                    w.old_readers = true;
                }
            }
            (_, OLD) => {
                if let Some(r) = self.nodes.get_mut(&reader) {
                    r.old_writers = true;
                }
            }
            (_, _) => {
                if let Some(r) = self.nodes.get_mut(&reader) {
                    r.writers.insert(writer);
                }
                if let Some(w) = self.nodes.get_mut(&writer) {
                    w.readers.insert(reader);
                }
            }
        }
        Ok(())
    }

    fn check_doomed(&self, me: SxId, doing: &str) -> Result<(), Reason> {
        match self.nodes.get(&me) {
            Some(n) if n.doomed => Err(Reason(format!("Canceled on identification as a pivot, during {doing}."))),
            _ => Ok(()),
        }
    }

    /// `me` does not see what `xid` wrote.
    fn met_writer(&mut self, me: SxId, xid: Xid) -> Result<(), Reason> {
        self.check_doomed(me, "conflict out checking")?;
        let Some(mine) = self.nodes.get(&me) else { return Ok(()) };
        let Some(writer) = self.by_xid.get(&xid).copied() else {
            let Some(first) = self.old.get(&xid) else { return Ok(()) };
            if first.is_some_and(|f| !mine.read_only || f <= mine.snapshot) {
                return Err(Reason(format!("Canceled on conflict out to old pivot {xid}.")));
            }
            if mine.old_readers || !mine.readers.is_empty() {
                return Err(Reason(format!(
                    "Canceled on identification as a pivot, with conflict out to old committed transaction {xid}."
                )));
            }
            if let Some(mine) = self.nodes.get_mut(&me) {
                mine.old_writers = true;
            }
            return Ok(());
        };
        let Some(other) = self.nodes.get_mut(&writer).filter(|o| writer != me && !o.doomed) else { return Ok(()) };
        if other.old_writers {
            if other.is_prepared() {
                return Err(Reason("Canceled on conflict out to old pivot.".into()));
            }
            other.doomed = true;
            return Ok(());
        }
        let (Some(mine), Some(other)) = (self.nodes.get(&me), self.nodes.get(&writer)) else { return Ok(()) };
        // A read-only one takes no harm from a writer all of whose own conflicts committed after its snapshot.
        if mine.read_only && other.is_committed() && other.first_writer.is_none_or(|f| f > mine.snapshot) {
            return Ok(());
        }
        if mine.writers.contains(&writer) {
            return Ok(());
        }
        self.conflict(me, writer, me)
    }

    /// `me` has written what `holders` have read.
    fn met_marks(&mut self, me: SxId, holders: &[SxId]) -> Result<(), Reason> {
        self.check_doomed(me, "conflict in checking")?;
        let Some(snapshot) = self.nodes.get(&me).map(|n| n.snapshot) else { return Ok(()) };
        for holder in holders.iter().copied().filter(|h| *h != me) {
            let concurrent = match self.nodes.get(&holder) {
                Some(n) => !n.doomed && !n.is_before(snapshot) && !n.writers.contains(&me),
                None => holder == OLD && self.old_until > snapshot,
            };
            if concurrent {
                self.conflict(holder, me, me)?;
            }
        }
        Ok(())
    }

    /// Everything is written: may it commit? From now on nobody can make it fail.
    fn prepare(&mut self, me: SxId, wrote: bool) -> Result<(), Reason> {
        self.check_doomed(me, "commit attempt")?;
        let Some(mine) = self.nodes.get(&me) else { return Ok(()) };
        // `far -> pivot -> me`, and I commit first: the pivot must not.
        let mut doomed: SmallVec<[SxId; 4]> = SmallVec::new();
        for pivot in mine.readers.iter().copied() {
            let Some(p) = self.nodes.get(&pivot).filter(|p| !p.is_committed() && !p.doomed) else { continue };
            let threatened = p
                .readers
                .iter()
                .any(|far| *far == me || self.nodes.get(far).is_some_and(|f| !f.is_committed() && !f.read_only && !f.doomed));
            if threatened {
                if p.is_prepared() {
                    return Err(Reason("Canceled on commit attempt with conflict in from prepared pivot.".into()));
                }
                doomed.push(pivot);
            }
        }
        for pivot in doomed {
            if let Some(p) = self.nodes.get_mut(&pivot) {
                p.doomed = true;
            }
        }
        self.clock += 1;
        let now = self.clock;
        if let Some(mine) = self.nodes.get_mut(&me) {
            if !wrote && !mine.read_only {
                mine.read_only = true;
                self.writers -= 1;
            }
            mine.phase = Phase::Prepared(now);
        }
        Ok(())
    }

    /// It committed at `lsn`. `visible`: what every snapshot to come sees.
    fn commit(&mut self, me: SxId, lsn: Lsn, visible: Lsn) {
        self.clock += 1;
        let now = self.clock;
        let Some(mine) = self.nodes.get_mut(&me) else { return };
        let prepared = mine.prepared().unwrap_or(now);
        mine.phase = Phase::Committed { prepared, known: now, lsn };
        mine.spoiled = false;
        let (read_only, writers, readers) = (mine.read_only, mine.writers.clone(), mine.readers.clone());
        if !read_only {
            self.writers -= 1;
        }
        let mut first: Option<Lsn> = None;
        for w in writers {
            let Some(at) = self.nodes.get(&w).and_then(Node::commit_lsn) else { continue };
            if !read_only {
                first = Some(first.map_or(at, |f| f.min(at)));
            }
            self.unlink(me, w);
        }
        for r in readers {
            if self.nodes.get(&r).is_none_or(|n| n.is_committed() || n.read_only) {
                self.unlink(r, me);
            }
        }
        if let Some(mine) = self.nodes.get_mut(&me) {
            mine.first_writer = first;
        }
        self.settle_watchers(me, first);
        self.unwatch(me);
        self.finished.insert((lsn, me));
        self.sum_up();
        self.forget(visible);
    }

    fn unlink(&mut self, reader: SxId, writer: SxId) {
        if let Some(r) = self.nodes.get_mut(&reader) {
            r.writers.remove(&writer);
        }
        if let Some(w) = self.nodes.get_mut(&writer) {
            w.readers.remove(&reader);
        }
    }

    /// A writer has ended: read-only transactions that began beside it may know now whether they are safe.
    fn settle_watchers(&mut self, me: SxId, first: Option<Lsn>) {
        let watchers = self.nodes.get_mut(&me).map(|m| std::mem::take(&mut m.watched_by)).unwrap_or_default();
        for id in watchers {
            let Some(ro) = self.nodes.get_mut(&id) else { continue };
            ro.unsettled.remove(&me);
            if first.is_some_and(|f| f <= ro.snapshot) {
                ro.spoiled = true;
                ro.handle.settled.notify();
                self.unwatch(id);
            } else if ro.unsettled.is_empty() && !ro.spoiled {
                self.make_safe(id);
            }
        }
    }

    fn make_safe(&mut self, id: SxId) {
        if let Some(n) = self.nodes.get(&id) {
            n.handle.safe.store(true, Ordering::Relaxed);
            n.handle.settled.notify();
        }
        self.remove(id);
    }

    /// A read-only transaction no longer cares.
    fn unwatch(&mut self, id: SxId) {
        let watched = self.nodes.get_mut(&id).map(|n| std::mem::take(&mut n.unsettled)).unwrap_or_default();
        for w in watched {
            if let Some(w) = self.nodes.get_mut(&w) {
                w.watched_by.remove(&id);
            }
        }
    }

    /// Takes a transaction out, with all it left.
    fn remove(&mut self, id: SxId) {
        self.unwatch(id);
        let Some(n) = self.nodes.remove(&id) else { return };
        for w in n.writers {
            if let Some(w) = self.nodes.get_mut(&w) {
                w.readers.remove(&id);
            }
        }
        for r in n.readers {
            if let Some(r) = self.nodes.get_mut(&r) {
                r.writers.remove(&id);
            }
        }
        for x in n.xids {
            self.by_xid.remove(&x);
        }
        match n.phase {
            Phase::Committed { lsn, .. } => {
                self.finished.remove(&(lsn, id));
            }
            Phase::Running | Phase::Prepared(_) if !n.read_only => self.writers -= 1,
            Phase::Running | Phase::Prepared(_) => {}
        }
        self.marks.release(id);
    }

    fn roll_back(&mut self, me: SxId, visible: Lsn) {
        self.settle_watchers(me, None);
        self.remove(me);
        self.forget(visible);
    }

    /// Forgets finished transactions that are concurrent with no snapshot, neither of now nor to come.
    fn forget(&mut self, visible: Lsn) {
        let oldest = self.nodes.values().filter(|n| !n.is_committed()).map(|n| n.snapshot).min();
        let upto = oldest.map_or(visible, |o| o.min(visible));
        while let Some((lsn, id)) = self.finished.first().copied().filter(|f| f.0 <= upto) {
            self.finished.remove(&(lsn, id));
            self.remove(id);
        }
        if self.old_until <= upto {
            self.old.clear();
            self.marks.release(OLD);
        }
        if self.writers == 0 && !self.marks.is_empty() {
            // Only readers run, and writers to come begin after those: what they read no longer matters.
            for (_, id) in self.finished.range(..=(visible, SxId::MAX)) {
                self.marks.release(*id);
            }
        }
    }

    /// Keeps memory bounded while an old snapshot holds finished transactions up.
    fn sum_up(&mut self) {
        while self.finished.len() > KEPT {
            let Some((lsn, id)) = self.finished.pop_first() else { return };
            self.marks.give(id, OLD);
            let Some(n) = self.nodes.get(&id) else { continue };
            let (first, old_writers) = (n.first_writer, n.old_writers);
            let (readers, writers, xids) = (n.readers.clone(), n.writers.clone(), n.xids.clone());
            for r in readers {
                if let Some(r) = self.nodes.get_mut(&r) {
                    r.old_writers = true;
                }
            }
            for w in writers {
                if let Some(w) = self.nodes.get_mut(&w) {
                    w.old_readers = true;
                }
            }
            for x in xids {
                // Of a writer behind it that was summed up itself nothing is known but that it was first.
                self.old.insert(x, if old_writers { Some(Lsn::INVALID) } else { first });
            }
            self.old_until = self.old_until.max(lsn);
            self.remove(id);
        }
    }
}

/// The serializable transactions of a node.
#[derive(Debug)]
pub struct SerializableNode {
    /// Rank 75. Taken with page latches held; sleepers are woken under it (91).
    graph: Mutex<Graph>,
    /// How many are known of, so that nobody else looks further.
    count: AtomicUsize,
    /// Every snapshot to come sees what has reached the strictest level.
    queue: Arc<CommitQueue>,
}

/// A transaction's own hold on its place in the graph. Dropping it rolls it back, unless it committed.
#[derive(Debug)]
pub struct Serializable {
    node: Arc<SerializableNode>,
    id: SxId,
    shared: Arc<Shared>,
    ended: AtomicBool,
}

impl SerializableNode {
    pub(in crate::txn) fn new(queue: Arc<CommitQueue>) -> Arc<Self> {
        Arc::new(Self { graph: Mutex::default(), count: AtomicUsize::new(0), queue })
    }

    /// How many transactions it knows of.
    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        self.graph.lock().nodes.len()
    }

    /// Changes when marks move up.
    pub fn set_limits(&self, limits: MarkLimits) {
        self.graph.lock().marks.limits = limits;
    }

    /// Enters a transaction that is about to take its snapshot, which will be at or above `at_least`.
    pub(in crate::txn) fn enter(self: &Arc<Self>, proc: ProcId, read_only: bool, at_least: impl FnOnce() -> Lsn) -> Arc<Serializable> {
        let shared = Arc::<Shared>::default();
        let mut g = self.graph.lock();
        let id = g.add(proc, read_only, at_least(), Arc::clone(&shared));
        self.count.store(g.nodes.len(), Ordering::Relaxed);
        drop(g);
        Arc::new(Serializable { node: Arc::clone(self), id, shared, ended: AtomicBool::new(false) })
    }

    /// Everything marked, for `pg_locks`.
    pub fn list(&self) -> Vec<MarkInfo> {
        let mut g = self.graph.lock();
        // Commits that were not readable yet when they ended may be so by now.
        g.forget(self.queue.reached(CommitLevel::On));
        let proc = |id: &SxId| g.nodes.get(id).map_or(ProcId(0), |n| n.proc);
        g.marks.list().iter().map(|(id, mark)| MarkInfo { mark: *mark, proc: proc(id) }).collect()
    }

    /// Whom `proc` waits for to know whether its snapshot is safe.
    pub fn safe_snapshot_blockers(&self, proc: ProcId) -> Vec<ProcId> {
        let g = self.graph.lock();
        let waiting = g.nodes.values().filter(|n| n.proc == proc && n.read_only && !n.is_committed());
        waiting.flat_map(|n| &n.unsettled).filter_map(|w| g.nodes.get(w)).map(|w| w.proc).collect()
    }

    /// A relation's rows have moved, or it is gone and `to` stands for it.
    pub fn transfer(&self, from: RelId, to: RelId) {
        if self.count.load(Ordering::Relaxed) > 0 {
            self.graph.lock().marks.transfer(from, to);
        }
    }
}

impl Graph {
    fn add(&mut self, proc: ProcId, read_only: bool, snapshot: Lsn, handle: Arc<Shared>) -> SxId {
        self.next += 1;
        let node = Node {
            proc,
            snapshot,
            xids: SmallVec::new(),
            read_only,
            phase: Phase::Running,
            doomed: false,
            readers: BTreeSet::new(),
            writers: BTreeSet::new(),
            old_readers: false,
            old_writers: false,
            first_writer: None,
            unsettled: BTreeSet::new(),
            watched_by: BTreeSet::new(),
            spoiled: false,
            handle,
        };
        self.nodes.insert(self.next, node);
        self.writers += usize::from(!read_only);
        self.next
    }

    /// The snapshot is taken. A read-only transaction learns who can still make it unsafe.
    fn began(&mut self, me: SxId, snapshot: Lsn) {
        let Some(mine) = self.nodes.get_mut(&me) else { return };
        mine.snapshot = snapshot;
        if !mine.read_only {
            return;
        }
        let mut watched = BTreeSet::new();
        let mut spoiled = self.old_until > snapshot;
        for (id, n) in self.nodes.iter_mut().filter(|(id, n)| **id != me && !n.read_only) {
            match n.commit_lsn() {
                None => {
                    n.watched_by.insert(me);
                    watched.insert(*id);
                }
                Some(lsn) if lsn > snapshot => {
                    spoiled |= n.old_writers || n.first_writer.is_some_and(|f| f <= snapshot);
                }
                Some(_) => {}
            }
        }
        let none = watched.is_empty();
        if let Some(mine) = self.nodes.get_mut(&me) {
            mine.unsettled = watched;
            mine.spoiled = spoiled;
        }
        if spoiled {
            self.unwatch(me);
        } else if none {
            self.make_safe(me);
        }
    }
}

impl Serializable {
    fn graph<R>(&self, f: impl FnOnce(&mut Graph, SxId) -> R) -> R {
        f(&mut self.node.graph.lock(), self.id)
    }

    /// Whether it reads from a safe snapshot: no marks, no checks.
    #[inline]
    pub fn is_safe(&self) -> bool {
        self.shared.safe.load(Ordering::Relaxed)
    }

    pub(in crate::txn) fn began(&self, snapshot: Lsn) {
        self.graph(|g, me| g.began(me, snapshot));
    }

    /// Whether it is settled that its snapshot is not safe.
    pub(in crate::txn) fn spoiled(&self) -> bool {
        self.graph(|g, me| g.nodes.get(&me).is_some_and(|n| n.spoiled))
    }

    /// Notified when it is settled whether its snapshot is safe.
    pub(in crate::txn) fn settled(&self) -> Arc<Waiter> {
        Arc::clone(&self.shared.settled)
    }

    pub(in crate::txn) fn add_xid(&self, xid: Xid) {
        self.graph(|g, me| {
            if let Some(n) = g.nodes.get_mut(&me) {
                n.xids.push(xid);
                g.by_xid.insert(xid, me);
            }
        });
    }

    /// All of a table, or index, is about to be read.
    pub fn reads_relation(&self, rel: RelId) {
        if !self.is_safe() {
            self.graph(|g, me| {
                if g.nodes.contains_key(&me) {
                    g.marks.mark_relation(me, rel)
                }
            });
        }
    }

    /// The rows of a page are about to be read.
    pub fn reads_page(&self, rel: RelId, block: BlockNo) {
        if !self.is_safe() {
            self.graph(|g, me| {
                if g.nodes.contains_key(&me) {
                    g.marks.mark_page(me, rel, block)
                }
            });
        }
    }

    /// A row version is read; its page is latched.
    pub fn reads_row(&self, rel: RelId, block: BlockNo, offset: u16) {
        if !self.is_safe() {
            self.graph(|g, me| {
                if g.nodes.contains_key(&me) {
                    g.marks.mark_row(me, rel, block, offset)
                }
            });
        }
    }

    /// Index keys from `lower` up to `upper` are about to be read, or are read with the page that holds them latched.
    pub fn reads_keys(&self, index: RelId, lower: &[u8], upper: Option<&[u8]>) {
        if !self.is_safe() {
            self.graph(|g, me| {
                if g.nodes.contains_key(&me) {
                    g.marks.mark_range(me, index, lower, upper)
                }
            });
        }
    }

    /// A version was met that `xid`, which the snapshot does not see, has made or ended.
    ///
    /// # Errors
    /// [`TxnError::Dependencies`].
    pub fn met_writer(&self, xid: Xid) -> Result<(), TxnError> {
        if self.is_safe() {
            return Ok(());
        }
        self.graph(|g, me| g.met_writer(me, xid)).map_err(Into::into)
    }

    /// A row was inserted (`place` is `None`), or the version at `place` ended.
    ///
    /// # Errors
    /// [`TxnError::Dependencies`].
    pub fn wrote_row(&self, rel: RelId, place: Option<(BlockNo, u16)>) -> Result<(), TxnError> {
        self.graph(|g, me| {
            let holders = g.marks.holders_of_row(rel, place);
            g.met_marks(me, &holders)
        })
        .map_err(Into::into)
    }

    /// A key was entered into an index, or is about to be refused as a duplicate.
    ///
    /// # Errors
    /// [`TxnError::Dependencies`].
    pub fn wrote_key(&self, index: RelId, key: &[u8]) -> Result<(), TxnError> {
        self.graph(|g, me| {
            let holders = g.marks.holders_of_key(index, key);
            g.met_marks(me, &holders)
        })
        .map_err(Into::into)
    }

    /// A relation is about to be emptied or dropped.
    ///
    /// # Errors
    /// [`TxnError::Dependencies`].
    pub fn wrote_relation(&self, rel: RelId) -> Result<(), TxnError> {
        self.graph(|g, me| {
            let holders = g.marks.holders_of_any(rel);
            g.met_marks(me, &holders)
        })
        .map_err(Into::into)
    }

    /// May it commit? Once it may, nobody makes it fail.
    pub(in crate::txn) fn prepare(&self, wrote: bool) -> Result<(), TxnError> {
        if self.is_safe() {
            return Ok(());
        }
        self.graph(|g, me| g.prepare(me, wrote)).map_err(Into::into)
    }

    /// It has committed: at `lsn`, or nowhere, if it wrote nothing.
    pub(in crate::txn) fn committed(&self, lsn: Option<Lsn>) {
        let lsn = lsn.unwrap_or_else(|| self.node.queue.reached(CommitLevel::Off));
        if !self.ended.swap(true, Ordering::Relaxed) {
            let visible = self.node.queue.reached(CommitLevel::On);
            self.graph(|g, me| {
                g.commit(me, lsn, visible);
                self.node.count.store(g.nodes.len(), Ordering::Relaxed);
            });
        }
    }

    /// It has rolled back.
    pub(in crate::txn) fn rolled_back(&self) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            let visible = self.node.queue.reached(CommitLevel::On);
            self.graph(|g, me| {
                g.roll_back(me, visible);
                self.node.count.store(g.nodes.len(), Ordering::Relaxed);
            });
        }
    }

    /// What it has read, for the state of a prepared transaction.
    pub(in crate::txn) fn marks(&self) -> Vec<Mark> {
        self.graph(|g, me| g.marks.of(me))
    }

    /// It was prepared before a crash: what it read is marked again, and whom it met is not known, so the worst is assumed.
    pub(in crate::txn) fn recovered(&self, xids: &[Xid], snapshot: Lsn, marks: &[Mark]) {
        self.graph(|g, me| {
            g.clock += 1;
            let now = g.clock;
            if let Some(n) = g.nodes.get_mut(&me) {
                n.snapshot = snapshot;
                (n.old_readers, n.old_writers) = (true, true);
                n.phase = Phase::Prepared(now);
                n.xids.extend(xids.iter().copied());
                for x in xids {
                    g.by_xid.insert(*x, me);
                }
            }
            for mark in marks {
                match *mark {
                    Mark::Relation(rel) => g.marks.mark_relation(me, rel),
                    Mark::Page(rel, block) => g.marks.mark_page(me, rel, block),
                    Mark::Row(rel, block, offset) => g.marks.mark_row(me, rel, block, offset),
                }
            }
        });
    }
}

impl Drop for Serializable {
    fn drop(&mut self) {
        self.rolled_back();
    }
}
