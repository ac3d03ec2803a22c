//! Removing dead versions that index entries still point to.

use afterimage_wal::ids::Lsn;

use crate::access::{AccessCtx, AccessError, RelHandle, Tid};
use crate::txn::Transaction;

/// Places whose index entries are to be removed; sorted.
#[derive(Clone, Debug, Default)]
pub struct DeadTids(Vec<u64>);

impl DeadTids {
    /// Whether the index entry that points to `tid` is to go.
    pub fn contains(&self, tid: Tid) -> bool {
        self.0.binary_search(&tid.as_u64()).is_ok()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a vacuum found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VacuumStats {
    /// Blocks of the table.
    pub pages: u32,
    /// Blocks in which every row is visible to all.
    pub all_visible: u32,
    /// Rows that stay.
    pub live_rows: u64,
    /// Versions that are dead but still needed by someone.
    pub recently_dead: u64,
    /// Versions removed.
    pub removed: u64,
    /// Blocks given back at the end.
    pub truncated: u32,
}

/// Vacuums a table. `clean_indexes` removes the entries that point to the given places from every index; it runs between the
/// pass that finds them and the pass that frees them, as often as memory needs.
///
/// # Errors
/// I/O, and what `clean_indexes` returns.
pub fn vacuum<E: From<AccessError>>(
    ctx: &AccessCtx,
    txn: &Transaction,
    rel: &RelHandle,
    clean_indexes: impl FnMut(&DeadTids) -> Result<(), E>,
) -> Result<VacuumStats, E> {
    let _ = (ctx, txn, rel, clean_indexes);
    Err(AccessError::BadRecord { at: Lsn::INVALID, what: "heap is being built" }.into())
}
