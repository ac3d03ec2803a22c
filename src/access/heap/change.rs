//! Insert, update, delete, lock.

use afterimage_wal::ids::{Lsn, Xid};

use crate::access::{AccessCtx, AccessError, RelHandle, Tid};
use crate::txn::{RowLockMode, Snapshot, Transaction, WaitPolicy};

/// How a change treats rows others hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeOptions {
    /// What to do when another transaction holds the row.
    pub wait: WaitPolicy,
}

/// How an update goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateOptions {
    /// What to do when another transaction holds the row.
    pub wait: WaitPolicy,
    /// No indexed column changes: the new version may be heap-only.
    pub hot_ok: bool,
    /// A column of a unique index that foreign keys may refer to changes.
    pub key_changed: bool,
}

/// What came of a change or a row lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeResult {
    /// Done. For an update `tid` is the new version; `hot`: indexes need no new entries. For others `tid` is the row's.
    Done {
        /// The version that is now current.
        tid: Tid,
        /// Heap-only.
        hot: bool,
    },
    /// Another transaction changed the row and committed. READ COMMITTED re-checks `next`; others fail with 40001.
    Updated {
        /// The next version.
        next: Tid,
        /// Who.
        by: Xid,
    },
    /// Another transaction deleted the row and committed.
    Deleted {
        /// Who.
        by: Xid,
    },
    /// This transaction changed the row already, after the statement's snapshot: the statement itself, or a trigger.
    SelfModified {
        /// By this very command (else by a later one).
        same_command: bool,
    },
    /// Held by another, and the policy is to skip.
    Skipped,
}

fn missing<T>() -> Result<T, AccessError> {
    Err(AccessError::BadRecord { at: Lsn::INVALID, what: "heap is being built" })
}

/// Inserts a row and returns its place.
///
/// # Errors
/// `RowTooBig`; I/O.
pub fn insert(ctx: &AccessCtx, txn: &mut Transaction, rel: &RelHandle, row: &[u8]) -> Result<Tid, AccessError> {
    let _ = (ctx, txn, rel, row);
    missing()
}

/// Inserts many rows, a page per record where possible; places come back in order.
///
/// # Errors
/// As [`insert`].
pub fn multi_insert<R: AsRef<[u8]>>(
    ctx: &AccessCtx,
    txn: &mut Transaction,
    rel: &RelHandle,
    rows: &[R],
    tids: &mut Vec<Tid>,
) -> Result<(), AccessError> {
    let _ = (ctx, txn, rel, rows, tids);
    missing()
}

/// Replaces the version `tid`, which `snapshot` sees. Waits for others as `options` say.
///
/// # Errors
/// `NoSuchRow`, `Invisible`, `RowTooBig`; lock errors; I/O.
pub fn update(
    ctx: &AccessCtx,
    txn: &mut Transaction,
    rel: &RelHandle,
    snapshot: &Snapshot,
    tid: Tid,
    row: &[u8],
    options: UpdateOptions,
) -> Result<ChangeResult, AccessError> {
    let _ = (ctx, txn, rel, snapshot, tid, row, options);
    missing()
}

/// Deletes the version `tid`, which `snapshot` sees.
///
/// # Errors
/// As [`update`].
pub fn delete(
    ctx: &AccessCtx,
    txn: &mut Transaction,
    rel: &RelHandle,
    snapshot: &Snapshot,
    tid: Tid,
    options: ChangeOptions,
) -> Result<ChangeResult, AccessError> {
    let _ = (ctx, txn, rel, snapshot, tid, options);
    missing()
}

/// Locks the row whose version `tid` is, until the transaction ends.
///
/// # Errors
/// As [`update`].
pub fn lock_row(
    ctx: &AccessCtx,
    txn: &mut Transaction,
    rel: &RelHandle,
    snapshot: &Snapshot,
    tid: Tid,
    mode: RowLockMode,
    wait: WaitPolicy,
) -> Result<ChangeResult, AccessError> {
    let _ = (ctx, txn, rel, snapshot, tid, mode, wait);
    missing()
}
