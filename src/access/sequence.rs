//! Sequences: values logged ahead.

use afterimage_wal::ids::Lsn;

use crate::access::{AccessCtx, AccessError, RelHandle};
use crate::txn::Transaction;

/// A sequence's definition, from `pg_sequence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceOptions {
    /// First value.
    pub start: i64,
    /// Step; not 0.
    pub increment: i64,
    /// Least value.
    pub min: i64,
    /// Greatest value.
    pub max: i64,
    /// Values a session takes at a time; at least 1.
    pub cache: i64,
    /// Start over at the bound.
    pub cycle: bool,
}

/// A sequence's state: what `SELECT * FROM seq` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceState {
    /// Last value handed out, or the next one if not called.
    pub last_value: i64,
    /// Values still covered by the last record.
    pub log_count: i64,
    /// Whether `last_value` was handed out.
    pub is_called: bool,
}

/// Values taken at once: `first`, `first + increment`, ... `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// First of them: what `nextval` returns.
    pub first: i64,
    /// Last of them; a session may hand out the rest by itself.
    pub last: i64,
}

fn missing<T>() -> Result<T, AccessError> {
    Err(AccessError::BadRecord { at: Lsn::INVALID, what: "sequences are being built" })
}

/// Makes the page of a new sequence, whose relation file exists and is empty.
///
/// # Errors
/// I/O.
pub fn create(ctx: &AccessCtx, txn: &mut Transaction, rel: &RelHandle, state: SequenceState) -> Result<(), AccessError> {
    let _ = (ctx, txn, rel, state);
    missing()
}

/// Takes the next `cache` values.
///
/// # Errors
/// `SequenceExhausted`; I/O.
pub fn take(ctx: &AccessCtx, txn: &mut Transaction, rel: &RelHandle, options: &SequenceOptions) -> Result<Taken, AccessError> {
    let _ = (ctx, txn, rel, options);
    missing()
}

/// `setval` and ALTER SEQUENCE RESTART. Not undone by a rollback.
///
/// # Errors
/// I/O.
pub fn set(ctx: &AccessCtx, txn: &mut Transaction, rel: &RelHandle, state: SequenceState) -> Result<(), AccessError> {
    let _ = (ctx, txn, rel, state);
    missing()
}

/// The state now.
///
/// # Errors
/// I/O.
pub fn read(ctx: &AccessCtx, rel: &RelHandle) -> Result<SequenceState, AccessError> {
    let _ = (ctx, rel);
    missing()
}
