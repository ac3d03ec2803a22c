//! Scans: a page at a time, visibility decided under the latch, rows lent from the scan's own copy of the page.

use afterimage_wal::ids::{BlockNo, Lsn};

use crate::access::{AccessCtx, AccessError, RelHandle, Tid};
use crate::txn::{Snapshot, Transaction};

/// A sequential scan.
pub struct HeapScan {
    rel: RelHandle,
    snapshot: Snapshot,
    next: BlockNo,
    end: BlockNo,
}

impl HeapScan {
    /// A scan of the blocks there are now.
    ///
    /// # Errors
    /// I/O.
    pub fn new(ctx: &AccessCtx, rel: &RelHandle, snapshot: &Snapshot) -> Result<Self, AccessError> {
        let _ = ctx;
        Ok(Self { rel: *rel, snapshot: snapshot.clone(), next: BlockNo::new(0), end: BlockNo::new(0) })
    }

    /// The next visible row; `None` at the end. The bytes are lent until the next call.
    ///
    /// # Errors
    /// I/O.
    pub fn next(&mut self, ctx: &AccessCtx) -> Result<Option<(Tid, &[u8])>, AccessError> {
        let _ = (ctx, &self.rel, &self.snapshot, self.next, self.end);
        Err(AccessError::BadRecord { at: Lsn::INVALID, what: "heap is being built" })
    }

    /// Loads the next page that has visible rows; false at the end. [`Self::rows`] then lends them all.
    ///
    /// # Errors
    /// I/O.
    pub fn next_batch(&mut self, ctx: &AccessCtx) -> Result<bool, AccessError> {
        let _ = ctx;
        Err(AccessError::BadRecord { at: Lsn::INVALID, what: "heap is being built" })
    }

    /// The visible rows of the page last loaded.
    pub fn rows(&self) -> impl Iterator<Item = (Tid, &[u8])> {
        std::iter::empty()
    }

    /// Starts over with the same snapshot.
    pub fn rewind(&mut self) {
        self.next = BlockNo::new(0);
    }
}

/// One row for an index build.
#[derive(Clone, Copy, Debug)]
pub struct BuildRow<'a> {
    /// The place index entries must point to: the HOT chain's root.
    pub root: Tid,
    /// The version the bytes are of.
    pub tid: Tid,
    /// The row.
    pub row: &'a [u8],
    /// Whether it counts for uniqueness: not deleted by a finished transaction or by this one.
    pub live: bool,
}

/// Gives `f` every version an index has to know: those some snapshot may still see.
///
/// # Errors
/// I/O, and what `f` returns.
pub fn build_scan<E: From<AccessError>>(
    ctx: &AccessCtx,
    txn: &Transaction,
    rel: &RelHandle,
    f: impl FnMut(BuildRow<'_>) -> Result<(), E>,
) -> Result<u64, E> {
    let _ = (ctx, txn, rel, f);
    Err(AccessError::BadRecord { at: Lsn::INVALID, what: "heap is being built" }.into())
}
