//! One row by its place.

use afterimage_wal::ids::{Fork, Xid};

use super::log::Latched;
use super::prune::{next_in_chain, prune_sometimes};
use super::tuple::{HEADER, Header, header, mask};
use super::visibility::{Lookup, made_at};
use crate::access::{AccessCtx, AccessError, RelHandle, Tid, btree};
use crate::storage::page::FLAG_ALL_VISIBLE;
use crate::storage::{Buffer, LinePointer, Page};
use crate::txn::{LockMode, Serializable, Snapshot, Transaction, WaitPolicy, XidStatus};

/// Whether a unique key's row counts as there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// No version of the chain can ever be seen again by this or a later transaction.
    Dead,
    /// This version is committed, or this transaction's own, and not deleted.
    Live(Tid),
    /// Another transaction is inserting it: wait for it, then look again.
    Inserting(Tid, Xid),
    /// Another transaction is deleting it, or moving it away: wait for it, then look again.
    Deleting(Tid, Xid),
}

/// Versions walked after which a reader prunes the page it walked on.
const LONG_CHAIN: usize = 12;

fn page(ctx: &AccessCtx, rel: &RelHandle, tid: Tid) -> Result<Option<Buffer>, AccessError> {
    if tid.block >= ctx.pool.n_blocks(rel.file, Fork::Main)? {
        return Ok(None);
    }
    Ok(Some(ctx.pool.read(rel.file, Fork::Main, tid.block)?))
}

/// A serializable transaction meets a version, its page latched: marks what it sees, reports who wrote what it does not see.
fn read_by(
    s: &Serializable,
    rel: &RelHandle,
    tid: Tid,
    look: &mut Lookup<'_>,
    h: &Header,
    snapshot: &Snapshot,
    seen: bool,
) -> Result<(), AccessError> {
    if seen {
        s.reads_row(rel.file, tid.block, tid.offset);
    }
    if let Some(writer) = look.unseen_writer(h, snapshot, seen)? {
        s.met_writer(writer)?;
    }
    Ok(())
}

/// Where the chain that an index entry names begins; `None`: the entry is older than its row's removal.
fn chain_start(page: &Page, root: u16) -> Option<u16> {
    match page.line(root) {
        // A heap-only version here was put in a line pointer that was freed since the entry was read.
        LinePointer::Normal { .. } => header(page, root).filter(|h| !h.has(mask::HEAP_ONLY)).map(|_| root),
        LinePointer::Redirect(to) => Some(to),
        LinePointer::Unused | LinePointer::Dead => None,
    }
}

/// Gives `f` the version that `snapshot` sees of the HOT chain at `tid`, an index entry's place, under the page latch. `None`: it sees none.
///
/// `f` must not call into heap, index or buffer pool.
///
/// # Errors
/// I/O. A place that does not exist is `None`: on a standby an index entry may be there before its row.
pub fn fetch<R>(
    ctx: &AccessCtx,
    rel: &RelHandle,
    tid: Tid,
    snapshot: &Snapshot,
    f: impl FnOnce(Tid, &[u8]) -> R,
) -> Result<Option<R>, AccessError> {
    let Some(buffer) = page(ctx, rel, tid)? else { return Ok(None) };
    let (found, walked) = {
        let page = buffer.read();
        let mut look = Lookup::new(&ctx.txns);
        let all = page.has_flag(FLAG_ALL_VISIBLE);
        let (mut at, mut expect, mut walked) = (chain_start(&page, tid.offset), None::<Xid>, 0usize);
        let mut found = None;
        let serializable = snapshot.serializable().filter(|_| rel.is_marked());
        while let Some(off) = at {
            let Some(item) = page.item(off) else { break };
            let Some(h) = header(&page, off).filter(|h| expect.is_none_or(|x| x == h.xmin)) else { break };
            let seen = all || look.visible(&h, snapshot)?;
            if let Some(s) = serializable {
                read_by(s, rel, Tid::new(tid.block, off), &mut look, &h, snapshot, seen)?;
            }
            if seen {
                found = Some(f(Tid::new(tid.block, off), &item[HEADER..]));
                break;
            }
            walked += 1;
            // A damaged page may link in a circle.
            let next = next_in_chain(&h, tid.block).filter(|_| walked <= usize::from(page.max_offset()));
            (at, expect) = (next.map(|n| n.0), next.map(|n| n.1));
        }
        (found, walked)
    };
    if walked >= LONG_CHAIN && !ctx.txns.in_recovery() && buffer.try_write().is_some() {
        prune_sometimes(ctx, rel, &mut Latched::new(ctx, rel, &buffer)?)?;
    }
    Ok(found)
}

/// Gives `f` the version at exactly `tid`, if `snapshot` sees it.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_exact<R>(
    ctx: &AccessCtx,
    rel: &RelHandle,
    tid: Tid,
    snapshot: &Snapshot,
    f: impl FnOnce(Tid, &[u8]) -> R,
) -> Result<Option<R>, AccessError> {
    let Some(buffer) = page(ctx, rel, tid)? else { return Ok(None) };
    let page = buffer.read();
    let (Some(h), Some(item)) = (header(&page, tid.offset), page.item(tid.offset)) else { return Ok(None) };
    let mut look = Lookup::new(&ctx.txns);
    let seen = look.visible(&h, snapshot)?;
    if let Some(s) = snapshot.serializable().filter(|_| rel.is_marked()) {
        read_by(s, rel, tid, &mut look, &h, snapshot, seen)?;
    }
    if seen { Ok(Some(f(tid, &item[HEADER..]))) } else { Ok(None) }
}

/// The bytes of the version at exactly `tid`, visible or not: one this transaction just ended.
///
/// # Errors
/// As [`fetch`].
pub fn row_bytes(ctx: &AccessCtx, rel: &RelHandle, tid: Tid) -> Result<Option<Vec<u8>>, AccessError> {
    let Some(buffer) = page(ctx, rel, tid)? else { return Ok(None) };
    let page = buffer.read();
    Ok(page.item(tid.offset).and_then(|item| item.get(HEADER..)).map(<[u8]>::to_vec))
}

/// Gives `f` every version of the HOT chain at `tid`, an index entry's place, whoever may see it; the oldest first.
///
/// `f` must not call into heap, index or buffer pool.
///
/// # Errors
/// As [`fetch`].
pub fn versions_of(ctx: &AccessCtx, rel: &RelHandle, tid: Tid, mut f: impl FnMut(Tid, Header, &[u8])) -> Result<(), AccessError> {
    let Some(buffer) = page(ctx, rel, tid)? else { return Ok(()) };
    let page = buffer.read();
    let (mut at, mut expect, mut walked) = (chain_start(&page, tid.offset), None::<Xid>, 0u16);
    while let Some(off) = at {
        let Some(item) = page.item(off) else { break };
        let Some(h) = header(&page, off).filter(|h| expect.is_none_or(|x| x == h.xmin)) else { break };
        f(Tid::new(tid.block, off), h, &item[HEADER..]);
        walked += 1;
        let next = next_in_chain(&h, tid.block).filter(|_| walked <= page.max_offset());
        (at, expect) = (next.map(|n| n.0), next.map(|n| n.1));
    }
    Ok(())
}

/// What the newest version of a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latest<R> {
    /// What was made of it.
    Row(R),
    /// The row is gone.
    Gone,
    /// This transaction made it, in the statement's command or a later one, which the statement is not to see.
    SelfModified {
        /// In the statement's own command.
        same_command: bool,
    },
}

impl<R> Latest<R> {
    /// The row, if there is one to be seen.
    pub fn row(self) -> Option<R> {
        match self {
            Self::Row(r) => Some(r),
            Self::Gone | Self::SelfModified { .. } => None,
        }
    }
}

/// Gives `f` the newest committed (or own) version of the row whose version `tid` is, for the re-check in READ COMMITTED of a statement with
/// command id `cid`. PostgreSQL: `heapam_tuple_lock`, looking for the last version.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_latest<R>(
    ctx: &AccessCtx,
    txn: &Transaction,
    rel: &RelHandle,
    mut tid: Tid,
    cid: u32,
    f: impl FnOnce(Tid, &[u8]) -> R,
) -> Result<Latest<R>, AccessError> {
    let mut look = Lookup::new(&ctx.txns);
    let mut expect: Option<Xid> = None;
    loop {
        let Some(buffer) = page(ctx, rel, tid)? else { return Ok(Latest::Gone) };
        let page = buffer.read();
        let (Some(h), Some(item)) = (header(&page, tid.offset), page.item(tid.offset)) else { return Ok(Latest::Gone) };
        // Another row took the place of a version that was removed.
        if expect.is_some_and(|x| x != h.xmin) {
            return Ok(Latest::Gone);
        }
        let made = made_at(txn, &h);
        if made.is_none() && !matches!(look.xmin(&h)?, XidStatus::Committed(_)) {
            return Ok(Latest::Gone);
        }
        let ended = match look.xmax(&h)? {
            Some(XidStatus::Committed(_)) => true,
            Some(XidStatus::Running) => txn.owns(h.xmax),
            Some(XidStatus::Aborted) | None => false,
        };
        if !ended {
            if let Some(made) = made.filter(|made| *made >= cid) {
                return Ok(Latest::SelfModified { same_command: made == cid });
            }
            return Ok(Latest::Row(f(tid, &item[HEADER..])));
        }
        if h.next == tid {
            return Ok(Latest::Gone);
        }
        (tid, expect) = (h.next, Some(h.xmax));
    }
}

/// Whether the row an index entry at `tid` names counts for a unique check by `txn`.
///
/// # Errors
/// I/O.
pub fn liveness(ctx: &AccessCtx, txn: &Transaction, rel: &RelHandle, tid: Tid) -> Result<Liveness, AccessError> {
    let Some(buffer) = page(ctx, rel, tid)? else { return Ok(Liveness::Dead) };
    let page = buffer.read();
    let mut look = Lookup::new(&ctx.txns);
    let (mut at, mut expect, mut walked) = (chain_start(&page, tid.offset), None::<Xid>, 0u16);
    while let Some(off) = at {
        let Some(h) = header(&page, off).filter(|h| expect.is_none_or(|x| x == h.xmin)) else { break };
        let here = Tid::new(tid.block, off);
        // Taken back by the command that made it: nobody will ever see it, whatever becomes of the transaction.
        let taken_back = h.xmax == h.xmin && !h.has(mask::COMBO_CID);
        if !txn.owns(h.xmin) && !taken_back {
            match look.xmin(&h)? {
                XidStatus::Running => return Ok(Liveness::Inserting(here, h.xmin)),
                XidStatus::Aborted => break,
                XidStatus::Committed(lsn) if ctx.txns.is_waiting(lsn) => {
                    return Ok(Liveness::Inserting(here, h.xmin));
                }
                XidStatus::Committed(_) => {}
            }
        }
        if (!txn.owns(h.xmax) || !h.xmax.is_valid()) && !taken_back {
            match look.xmax(&h)? {
                None => return Ok(Liveness::Live(here)),
                Some(XidStatus::Running | XidStatus::Aborted) => return Ok(Liveness::Deleting(here, h.xmax)),
                Some(XidStatus::Committed(lsn)) if ctx.txns.is_waiting(lsn) => {
                    return Ok(Liveness::Deleting(here, h.xmax));
                }
                Some(XidStatus::Committed(_)) => {}
            }
        }
        walked += 1;
        let next = next_in_chain(&h, tid.block).filter(|_| walked <= page.max_offset());
        (at, expect) = (next.map(|n| n.0), next.map(|n| n.1));
    }
    Ok(Liveness::Dead)
}

/// What a unique index asks the heap its entries lead to, on behalf of a transaction.
///
/// A row that only this transaction, or only some snapshots, hold for deleted is gone and not dead: its entry serves whoever still sees it, and
/// everybody should the deletion be rolled back.
#[derive(Debug)]
pub struct Probe<'a> {
    ctx: &'a AccessCtx,
    heap: RelHandle,
    txn: &'a Transaction,
    /// The version whose writer is to be waited for.
    busy: Option<Tid>,
}

impl<'a> Probe<'a> {
    /// A probe into the table that the index is on.
    pub fn new(ctx: &'a AccessCtx, heap: RelHandle, txn: &'a Transaction) -> Self {
        Self { ctx, heap, txn, busy: None }
    }
}

impl btree::UniqueProbe for Probe<'_> {
    fn check(&mut self, tid: Tid) -> Result<btree::Liveness, AccessError> {
        self.busy = None;
        Ok(match liveness(self.ctx, self.txn, &self.heap, tid)? {
            Liveness::Live(_) => btree::Liveness::Live,
            Liveness::Inserting(at, xid) | Liveness::Deleting(at, xid) => {
                self.busy = Some(at);
                btree::Liveness::InProgress(xid)
            }
            Liveness::Dead if is_dead_to_all(self.ctx, &self.heap, tid)? => btree::Liveness::Dead,
            Liveness::Dead => btree::Liveness::Gone,
        })
    }

    fn wait(&mut self, xid: Xid) -> Result<(), AccessError> {
        match self.busy.take() {
            Some(tid) => wait_for_writer(self.ctx, self.txn, &self.heap, tid, xid),
            None => Ok(self.ctx.txns.wait_for_xid(self.txn.proc(), xid, self.txn.options().level)?),
        }
    }
}

/// Waits for whoever makes or ends the version `tid`: until he knows whether it stays, if it may be taken back at once, else until he is done.
///
/// # Errors
/// Cancel, deadlock, lock timeout.
pub fn wait_for_writer(ctx: &AccessCtx, txn: &Transaction, rel: &RelHandle, tid: Tid, xid: Xid) -> Result<(), AccessError> {
    let (token, mode) = (super::change::speculative_tag(rel, tid), LockMode::Share);
    if txn.locks().is_held(txn.proc(), &token, mode) {
        txn.lock(token, mode, WaitPolicy::Block)?;
        txn.unlock(token, mode);
        return Ok(());
    }
    Ok(ctx.txns.wait_for_xid(txn.proc(), xid, txn.options().level)?)
}

/// As [`Probe`], for a constraint that is looked at again later: a row whose fate is open counts, and nobody waits for it.
#[derive(Debug)]
pub struct HastyProbe<'a>(pub Probe<'a>);

impl btree::UniqueProbe for HastyProbe<'_> {
    fn check(&mut self, tid: Tid) -> Result<btree::Liveness, AccessError> {
        Ok(match self.0.check(tid)? {
            btree::Liveness::InProgress(_) => btree::Liveness::Live,
            decided @ (btree::Liveness::Live | btree::Liveness::Dead | btree::Liveness::Gone) => decided,
        })
    }

    fn wait(&mut self, xid: Xid) -> Result<(), AccessError> {
        self.0.wait(xid)
    }
}

/// Whether every version of the chain at `tid` is dead to all snapshots: an index entry for it may be marked killed.
///
/// # Errors
/// I/O.
pub fn is_dead_to_all(ctx: &AccessCtx, rel: &RelHandle, tid: Tid) -> Result<bool, AccessError> {
    let Some(buffer) = page(ctx, rel, tid)? else { return Ok(false) };
    let page = buffer.read();
    let mut look = Lookup::of(&ctx.txns, rel);
    let (mut at, mut expect, mut walked) = (chain_start(&page, tid.offset), None::<Xid>, 0u16);
    while let Some(off) = at {
        let Some(h) = header(&page, off).filter(|h| expect.is_none_or(|x| x == h.xmin)) else { break };
        if !matches!(look.fate(&h)?, super::visibility::Fate::Dead { .. }) {
            return Ok(false);
        }
        walked += 1;
        let next = next_in_chain(&h, tid.block).filter(|_| walked <= page.max_offset());
        (at, expect) = (next.map(|n| n.0), next.map(|n| n.1));
    }
    Ok(true)
}
