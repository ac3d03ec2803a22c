//! A table written anew, as it is: VACUUM FULL and CLUSTER.
//!
//! Whoever reads with a snapshot from before sees what it saw: versions that were replaced or deleted since come along
//! ([`heap::Rewrite`]), with their large values, which keep their numbers, so that pointers to them stay true. Rows go over byte for byte but for columns that were
//! dropped, or added without a rewrite. PostgreSQL: `copy_table_data` in commands/cluster.c.

use std::borrow::Cow;

use super::{alter, toast};
use crate::access::btree::{self, Direction, KeyRange, ScanOptions, Sorter};
use crate::access::heap::{self, AllVersions, Rewrite};
use crate::access::{AccessError, RelHandle};
use crate::config::Setting;
use crate::executor::SessionContext;
use crate::executor::large::{self, RowWriter};
use crate::executor::temp_file;
use crate::executor::vacuum::{Stopwatch, store_counts};
use crate::sql::catalog::chunks::Needed;
use crate::sql::catalog::relation::{Index, Relation};
use crate::sql::types::{Datum, row};
use crate::sqlstate::{SqlError, SqlState};

/// Versions between two looks at whether the command was cancelled.
const CHECK_EVERY: u64 = 512;

/// Writes a table anew, in the order of an index if one is given, and rebuilds its indexes. The caller has locked it.
pub(crate) fn write_anew(ctx: &mut SessionContext, relation: &Relation, order: Option<&Index>, verbose: bool) -> Result<(), SqlError> {
    let watch = Stopwatch::start();
    let name = format!("{}.{}", relation.namespace_name, relation.name);
    if verbose {
        let doing = match order {
            Some(index) => format!("clustering \"{name}\" using index scan on \"{}\"", index.name),
            None => format!("vacuuming \"{name}\""),
        };
        ctx.info(SqlError::new(SqlState::SUCCESSFUL_COMPLETION, doing));
    }
    let old = relation.rel_handle().ok_or_else(|| SqlError::internal("table without file"))?;
    let file = ctx.new_file(old.file.spc, relation.persistence)?;
    let new = RelHandle { file, ..old };
    let new_toast = toast::bare_files(ctx, relation, relation.persistence)?;
    let access = ctx.access();
    // What is settled is frozen. Once, before the first look: nothing that is kept names an older xid.
    access.txns.settle()?;
    let floor = access.txns.settled_floor();
    let memory = ctx.settings.bytes(Setting::MaintenanceWorkMem).and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(64 << 20);
    let sorter = |ctx: &SessionContext| Sorter::new(temp_file::scratch(ctx), memory / 2);
    let mut rewrite = Rewrite::new(&access, &new, floor, [sorter(ctx), sorter(ctx)]);
    let mut needed = Needed::new(sorter(ctx));
    let rows = Rows::of(relation);
    let mut seen = 0_u64;
    let mut each = |ctx: &mut SessionContext, tid, h, bytes: &[u8]| -> Result<(), SqlError> {
        seen += 1;
        if seen.is_multiple_of(CHECK_EVERY) {
            ctx.check_cancel()?;
        }
        let Some(kept) = rewrite.keep(tid, &h)? else { return Ok(()) };
        let row = rows.written(ctx, bytes)?;
        needed.add(&row::pointers(&relation.desc, &row)?)?;
        rewrite.put(&kept, &row)?;
        Ok(())
    };
    match order {
        None => {
            let mut versions = AllVersions::new(&access, &old)?;
            while let Some((tid, h, bytes)) = versions.next(&access)? {
                each(ctx, tid, h, bytes)?;
            }
        }
        Some(index) => {
            let mut scan = btree::Scan::new(&relation.index_handle(index), KeyRange::all(), Direction::Forward, ScanOptions::default());
            let mut chain = Vec::new();
            while let Some((_, root)) = scan.next(&access)? {
                heap::versions_of(&access, &old, root, |tid, h, bytes| chain.push((tid, h, bytes.to_vec())))?;
                for (tid, h, bytes) in chain.drain(..) {
                    each(ctx, tid, h, &bytes)?;
                }
            }
        }
    }
    let counts = rewrite.finish()?;
    if let (Some(from), Some(to)) = (&relation.toast, &new_toast) {
        let rewrite = Rewrite::new(&access, &to.table, floor, [sorter(ctx), sorter(ctx)]);
        let cancel = ctx.cancel.clone();
        needed.copy(&access, from, to, rewrite, &mut || Ok::<(), AccessError>(cancel.check()?))?;
    }
    let pages = access.pool.n_blocks(old.file, afterimage_wal::Fork::Main)?.get();
    if verbose {
        let found = format!("\"{name}\": found {} removable, {} nonremovable row versions in {pages} pages", counts.removed, counts.kept);
        let detail = format!("{} dead row versions cannot be removed yet.\n{}.", counts.recently_dead, watch.times());
        ctx.info(SqlError::new(SqlState::SUCCESSFUL_COMPLETION, found).detail(detail));
    }
    toast::put_files(ctx, relation, new_toast, floor)?;
    // Nothing is checked that was not true before.
    alter::drop_old_file(ctx, relation, file.rel, floor, false)?;
    if relation.indexes.is_empty() {
        // Else the last of them that was built has counted.
        let pages = access.pool.n_blocks(file, afterimage_wal::Fork::Main)?.get();
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let rows = counts.kept as f32;
        store_counts(ctx, relation.oid, pages, rows, None)?;
    }
    Ok(())
}

/// How the rows of a table are written anew.
struct Rows<'r> {
    relation: &'r Relation,
    /// Some columns were dropped or added since rows were written.
    reshaped: bool,
    /// Columns whose values are to be in the row from now on, and may not be.
    inline: Vec<bool>,
}

impl<'r> Rows<'r> {
    fn of(relation: &'r Relation) -> Self {
        Self {
            relation,
            reshaped: relation.columns.iter().any(|c| c.dropped || c.missing.is_some()),
            inline: relation.columns.iter().map(|c| c.storage == b'p' && c.len < 0).collect(),
        }
    }

    /// The bytes to be written for a row.
    fn written<'b>(&self, ctx: &mut SessionContext, bytes: &'b [u8]) -> Result<Cow<'b, [u8]>, SqlError> {
        let relation = self.relation;
        let engine = ctx.engine.clone();
        let writer = RowWriter::new(&engine, &ctx.settings, relation);
        let stays = !self.inline.contains(&true) || row::pointers(&relation.desc, bytes)?.is_empty();
        if stays && !self.reshaped && !writer.is_wide(bytes.len()) {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut values = vec![Datum::Null; relation.columns.len()];
        row::decode(&relation.desc, bytes, relation.desc.len(), &mut values)?;
        for ((value, column), inline) in values.iter_mut().zip(&relation.columns).zip(&self.inline) {
            if column.dropped {
                *value = Datum::Null;
            } else if *inline && matches!(value, Datum::Packed(p) if p.pointer().is_some()) {
                large::unpack_in_place(engine.ctx(), value)?;
            }
        }
        let mut out = Vec::with_capacity(bytes.len());
        let txn = ctx.transaction.as_mut().ok_or_else(|| SqlError::internal("no transaction"))?;
        // What is out of line stays where it is. What moves there now goes to the old large values first, with which it is copied.
        writer.write(txn, &values, &values, &mut out)?;
        Ok(Cow::Owned(out))
    }
}
