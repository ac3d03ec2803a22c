//! Vacuum of a table with its indexes: what `VACUUM` and autovacuum run.

use super::{AccessCtx, AccessError, RelHandle, btree, heap};
use crate::txn::Transaction;

/// What vacuum did to a table and to each of its indexes, in the order they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableVacuum {
    /// The table.
    pub heap: heap::VacuumStats,
    /// The indexes; `None` if they needed no cleaning.
    pub indexes: Option<Vec<btree::VacuumStats>>,
}

/// Vacuums a table and its indexes. The caller holds `ShareUpdateExclusive` on the table.
///
/// # Errors
/// Storage, WAL, cancel, damage.
pub fn vacuum_table(
    ctx: &AccessCtx,
    txn: &Transaction,
    table: &RelHandle,
    indexes: &[RelHandle],
    options: heap::VacuumOptions,
    watch: &mut heap::Watch<'_>,
) -> Result<TableVacuum, AccessError> {
    let mut cleaned: Option<Vec<btree::VacuumStats>> = None;
    let heap = heap::vacuum_watched(ctx, txn, table, options, watch, |dead, progress, watch| -> Result<(), AccessError> {
        // The dead places were dead to everyone when they were collected, so at the latest now.
        let horizon = ctx.txns.horizon();
        let totals = cleaned.get_or_insert_with(|| vec![btree::VacuumStats::default(); indexes.len()]);
        for (index, total) in indexes.iter().zip(totals) {
            let stats = btree::vacuum(ctx, index, horizon, &mut |tid| dead.contains(tid), &mut || {
                txn.check_cancel()?;
                progress.hits += 1;
                watch(progress)
            })?;
            *total = btree::VacuumStats {
                removed: total.removed + stats.removed,
                pages_deleted: total.pages_deleted + stats.pages_deleted,
                ..stats
            };
        }
        Ok(())
    })?;
    Ok(TableVacuum { heap, indexes: cleaned })
}
