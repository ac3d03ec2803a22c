//! Copying a database's files, through the WAL, so that a standby has them too.

use afterimage_wal::{BlockNo, Fork, Oid, RecordBuilder, RelId, Xid, record, rmgr};

use super::load::CatalogReader;
use super::relation::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE};
use super::schema::pg_class;
use super::tables::StoredReader;
use crate::access::AccessCtx;
use crate::sqlstate::SqlError;
use crate::storage::CriticalSection;
use crate::txn::Transaction;

/// Copies every relation of `source` to the same file number in `target`. The caller made sure that nobody changes `source`.
///
/// PostgreSQL: `CreateDatabaseUsingWalLog` in commands/dbcommands.c.
///
/// # Errors
/// I/O; cancel.
pub fn copy(ctx: &AccessCtx, txn: &mut Transaction, source: Oid, target: Oid) -> Result<(), SqlError> {
    let files = files(ctx, txn, source, target)?;
    let mut places: Vec<Oid> = files.iter().map(|(_, to, _)| to.spc).collect();
    places.sort_unstable();
    places.dedup();
    for spc in places {
        txn.drop_database_on_abort(spc, target);
        ctx.pool.create_database_dir(target, spc, txn.xid()?)?;
    }
    for (from, to, unlogged) in files {
        if unlogged {
            ctx.pool.copy_unlogged(from, to)?;
            continue;
        }
        ctx.pool.create_fork(to, Fork::Main)?;
        copy_file(ctx, txn, from, to)?;
    }
    Ok(())
}

/// The files of `database`, where they lie as `target`'s, and whether they are unlogged.
fn files(ctx: &AccessCtx, txn: &Transaction, database: Oid, target: Oid) -> Result<Vec<(RelId, RelId, bool)>, SqlError> {
    let reader = StoredReader::new(ctx.clone(), database, txn.latest_snapshot()?);
    let mut out = Vec::new();
    for class in reader.rows(&pg_class::DEF, 0, &[])? {
        let rel = class.oid(pg_class::relfilenode)?;
        let persistence = class.char(pg_class::relpersistence)?;
        if rel == 0 || class.bool(pg_class::relisshared)? || persistence == b't' {
            continue;
        }
        let tablespace = class.oid(pg_class::reltablespace)?;
        let spc = if tablespace == 0 { DEFAULT_TABLESPACE } else { tablespace };
        if spc != GLOBAL_TABLESPACE {
            out.push((RelId { spc, db: database, rel }, RelId { spc, db: target, rel }, persistence == b'u'));
        }
    }
    Ok(out)
}

fn copy_file(ctx: &AccessCtx, txn: &Transaction, from: RelId, to: RelId) -> Result<(), SqlError> {
    let blocks = ctx.pool.n_blocks(from, Fork::Main)?;
    let mut builder = RecordBuilder::new(rmgr::XLOG, rmgr::xlog::FPI, Xid::INVALID);
    for block in 0..blocks.get() {
        txn.check_cancel()?;
        let source = ctx.pool.read(from, Fork::Main, BlockNo::new(block))?;
        let target = ctx.pool.extend(to, Fork::Main, 1)?;
        let number = target.block();
        let source = source.read();
        let mut page = target.write();
        CriticalSection::run("copy a page", || -> Result<(), SqlError> {
            page.bytes_mut().copy_from_slice(source.bytes());
            builder.clear();
            builder.block(to, Fork::Main, number, record::FPI | record::WILL_INIT, page.bytes());
            page.set_lsn(ctx.wal.insert(&builder)?.end);
            Ok(())
        });
    }
    Ok(())
}
