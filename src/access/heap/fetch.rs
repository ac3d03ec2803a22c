//! One row by its place.

use afterimage_wal::ids::{Lsn, Xid};

use crate::access::{AccessCtx, AccessError, RelHandle, Tid};
use crate::txn::{Snapshot, Transaction};

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

/// Gives `f` the version that `snapshot` sees of the HOT chain at `tid`, under the page latch. `None`: it sees none.
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
    let _ = (ctx, rel, tid, snapshot, f);
    Err(AccessError::BadRecord { at: Lsn::INVALID, what: "heap is being built" })
}

/// Gives `f` the newest committed (or own) version that follows `tid`, for the re-check in READ COMMITTED. `None`: the row is gone.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_latest<R>(
    ctx: &AccessCtx,
    txn: &Transaction,
    rel: &RelHandle,
    tid: Tid,
    f: impl FnOnce(Tid, &[u8]) -> R,
) -> Result<Option<R>, AccessError> {
    let _ = (ctx, txn, rel, tid, f);
    Err(AccessError::BadRecord { at: Lsn::INVALID, what: "heap is being built" })
}

/// Whether the row at `tid` counts for a unique check by `txn`.
///
/// # Errors
/// I/O.
pub fn liveness(ctx: &AccessCtx, txn: &Transaction, rel: &RelHandle, tid: Tid) -> Result<Liveness, AccessError> {
    let _ = (ctx, txn, rel, tid);
    Err(AccessError::BadRecord { at: Lsn::INVALID, what: "heap is being built" })
}
