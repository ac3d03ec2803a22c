//! Chunks of large values: written, read, deleted.
//!
//! The catalogs of a database share one table for their large values, `afterimage_large_value`; other tables have their own in `pg_toast`
//! (`executor::large`).

use afterimage_wal::ids::Fork;

use crate::access::btree::{self, Direction, Item, KeyRange, ScanOptions, Sorted, SortedEntries, SortedEntry, Sorter};
use crate::access::heap::{self, ChangeOptions, ChangeResult, Rewrite, RewriteCounts, tuple::HEADER};
use crate::access::{AccessCtx, AccessError, Tid};
use crate::sql::catalog::relation::FIRST_NORMAL_OID;
use crate::sql::types::key::{self, KeyOrder};
use crate::sql::types::{Compression, Datum, Oid, Pointer, ToastTable};
use crate::sqlstate::{SqlError, SqlState};
use crate::storage::Buffer;
use crate::txn::{LockMode, LockTag, Transaction, WaitPolicy};

/// Bytes of value in a chunk: four chunks fill a page. PostgreSQL: `TOAST_MAX_CHUNK_SIZE`.
const CHUNK_BYTES: usize = 1984;
/// A chunk's row before its data: row header, chunk_id, chunk_seq.
const ROW_HEAD: usize = 12;
/// Chunks written with one call.
const BATCH: usize = 64;

fn chunk_key(chunk_id: Oid, chunk_seq: Option<u32>) -> Result<Vec<u8>, SqlError> {
    let mut out = Vec::with_capacity(16);
    key::encode(&Datum::Oid(chunk_id), KeyOrder::ASC, &mut out)?;
    if let Some(n) = chunk_seq {
        key::encode(&Datum::Int4(i32::try_from(n).unwrap_or(i32::MAX)), KeyOrder::ASC, &mut out)?;
    }
    Ok(out)
}

/// A chunk's row, as `sql::types::row` has it for (oid, int4, bytea).
fn chunk_row(chunk_id: Oid, chunk_seq: u32, data: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(ROW_HEAD + 4 + data.len());
    row.extend_from_slice(&[3, 0, 0, 0]);
    row.extend_from_slice(&chunk_id.to_le_bytes());
    row.extend_from_slice(&chunk_seq.to_le_bytes());
    match u8::try_from(data.len()) {
        Ok(n) if n <= 126 => row.push(n << 1),
        _ => {
            // At most a chunk: it fits with room to spare.
            let n = u32::try_from(data.len()).unwrap_or(0);
            row.extend_from_slice(&(n << 2 | 1).to_le_bytes());
        }
    }
    row.extend_from_slice(data);
    row
}

/// Chunk id, sequence number and data of a chunk's row.
fn parse_chunk(row: &[u8]) -> Option<(Oid, u32, &[u8])> {
    let (head, rest) = row.split_first_chunk::<ROW_HEAD>()?;
    let word = |at: usize| head.get(at..at + 4)?.first_chunk::<4>().map(|b| u32::from_le_bytes(*b));
    if !head.starts_with(&[3, 0, 0, 0]) {
        return None;
    }
    let first = *rest.first()?;
    let (len, at): (usize, usize) = if first & 1 == 0 {
        (usize::from(first >> 1), 1)
    } else {
        let len = u32::from_le_bytes(*rest.first_chunk::<4>()?);
        (to_usize(len >> 2), 4)
    };
    Some((word(4)?, word(8)?, rest.get(at..at.checked_add(len)?)?))
}

fn damaged(pointer: &Pointer, what: std::fmt::Arguments<'_>) -> SqlError {
    SqlError::new(SqlState::DATA_CORRUPTED, format!("{what} for toast value {} in relation {}", pointer.chunk_id, pointer.toast))
}

/// Bytes `from..from + len` of what is stored, fewer if it ends before.
///
/// # Errors
/// XX001; I/O.
pub(crate) fn fetch(ctx: &AccessCtx, pointer: &Pointer, toast: &ToastTable, from: usize, len: usize) -> Result<Vec<u8>, SqlError> {
    let total = to_usize(pointer.stored_len());
    let upto = from.saturating_add(len).min(total);
    if from >= upto {
        return Ok(Vec::new());
    }
    let number = |at: usize| u32::try_from(at / CHUNK_BYTES).unwrap_or(u32::MAX);
    let (first, last) = (number(from), number(upto - 1));
    let range = KeyRange::prefix(&chunk_key(pointer.chunk_id, None)?)
        .at_least(&chunk_key(pointer.chunk_id, Some(first))?)
        .at_most(&chunk_key(pointer.chunk_id, Some(last))?);
    let mut scan = btree::Scan::new(&toast.index, range, Direction::Forward, ScanOptions::default());
    // Not all at once: a damaged pointer may claim a gigabyte.
    let mut out = Vec::with_capacity((upto - from).min(1 << 20));
    let mut expected = first;
    let mut held: Option<Buffer> = None;
    while let Some((_, tid)) = scan.next(ctx)? {
        let buffer = match held.take().filter(|b| b.block() == tid.block) {
            Some(buffer) => buffer,
            None => ctx.pool.read(toast.table.file, Fork::Main, tid.block)?,
        };
        {
            let page = buffer.read();
            let row = page.item(tid.offset).and_then(|item| item.get(HEADER..));
            let (id, number, data) =
                row.and_then(parse_chunk).ok_or_else(|| damaged(pointer, format_args!("missing chunk number {expected}")))?;
            if id != pointer.chunk_id || number != expected {
                return Err(damaged(pointer, format_args!("unexpected chunk number {number} (expected {expected})")));
            }
            let at = to_usize(number) * CHUNK_BYTES;
            let whole = CHUNK_BYTES.min(total - at);
            if data.len() != whole {
                return Err(damaged(pointer, format_args!("unexpected chunk size {} (expected {whole}) in chunk {number}", data.len())));
            }
            out.extend_from_slice(data.get(from.saturating_sub(at)..(upto - at).min(whole)).unwrap_or_default());
        }
        held = Some(buffer);
        expected += 1;
    }
    if expected != last + 1 {
        return Err(damaged(pointer, format_args!("missing chunk number {expected}")));
    }
    Ok(out)
}

/// A value to be written.
pub(crate) struct Stored<'a> {
    /// Its bytes, compressed or not.
    pub(crate) bytes: &'a [u8],
    /// How many there were before.
    pub(crate) raw_len: u32,
    /// How it is compressed.
    pub(crate) method: Option<Compression>,
}

/// The lock of who writes rows, until the transaction ends. That of the table they belong to is not enough: VACUUM looks at this one by itself,
/// and cuts empty pages off its end while nobody writes to it. It does not cut catalogs, whose writers hold no locks.
fn lock(txn: &Transaction, toast: &ToastTable) -> Result<(), SqlError> {
    let tag = LockTag::Relation { db: toast.table.file.db, rel: toast.table.oid };
    if toast.table.oid >= FIRST_NORMAL_OID && !txn.holds(&tag, LockMode::RowExclusive) {
        txn.lock(tag, LockMode::RowExclusive, WaitPolicy::Block)?;
    }
    Ok(())
}

/// Writes a value under an id that `next_id` proposes, and returns where it is.
///
/// # Errors
/// I/O; those of `next_id`.
pub(crate) fn put(
    ctx: &AccessCtx,
    txn: &mut Transaction,
    toast: &ToastTable,
    stored: &Stored<'_>,
    next_id: &mut dyn FnMut() -> Result<Oid, SqlError>,
) -> Result<Pointer, SqlError> {
    let Stored { bytes: stored, raw_len, method } = *stored;
    lock(txn, toast)?;
    let stored_len = u32::try_from(stored.len()).map_err(|_| SqlError::internal("value too long"))?;
    let chunk_id = loop {
        let id = next_id()?;
        let range = KeyRange::prefix(&chunk_key(id, None)?);
        // OIDs come round again: an old value may have this one.
        if btree::Scan::new(&toast.index, range, Direction::Forward, ScanOptions::default()).next(ctx)?.is_none() {
            break id;
        }
    };
    let xid = txn.xid()?;
    let mut tids: Vec<Tid> = Vec::with_capacity(BATCH);
    let mut number = 0_u32;
    let chunks: Vec<&[u8]> = stored.chunks(CHUNK_BYTES).collect();
    for batch in chunks.chunks(BATCH) {
        txn.check_cancel()?;
        let rows: Vec<Vec<u8>> = (number..).zip(batch).map(|(n, data)| chunk_row(chunk_id, n, data)).collect();
        tids.clear();
        heap::multi_insert(ctx, txn, &toast.table, &rows, false, &mut tids)?;
        for tid in &tids {
            btree::insert(ctx, xid, &toast.index, &chunk_key(chunk_id, Some(number))?, *tid, None)?;
            number += 1;
        }
    }
    Ok(Pointer::new(raw_len, stored_len, method, chunk_id, toast.table.oid))
}

/// Deletes values that no row points to any more.
///
/// # Errors
/// XX001; I/O.
pub(crate) fn delete_values(ctx: &AccessCtx, txn: &mut Transaction, toast: &ToastTable, pointers: &[Pointer]) -> Result<(), SqlError> {
    for pointer in pointers.iter().filter(|p| p.toast == toast.table.oid) {
        let snapshot = txn.latest_snapshot()?;
        let range = KeyRange::prefix(&chunk_key(pointer.chunk_id, None)?);
        let mut scan = btree::Scan::new(&toast.index, range, Direction::Forward, ScanOptions::default());
        while let Some((_, tid)) = scan.next(ctx)? {
            txn.check_cancel()?;
            match heap::delete(ctx, txn, &toast.table, &snapshot, tid, ChangeOptions::default())? {
                ChangeResult::Done { .. } | ChangeResult::SelfModified { .. } | ChangeResult::Deleted { .. } => {}
                ChangeResult::Updated { .. } | ChangeResult::Skipped => {
                    return Err(damaged(pointer, format_args!("chunk changed by another transaction")));
                }
            }
        }
    }
    Ok(())
}

/// The values that the rows of a table written anew point to.
pub(crate) struct Needed(Sorter);

impl Needed {
    /// None so far; to be sorted by `sorter`.
    pub(crate) fn new(sorter: Sorter) -> Self {
        Self(sorter)
    }

    /// Notes the values of a row, some of which others may point to as well.
    ///
    /// # Errors
    /// Writing a run.
    pub(crate) fn add(&mut self, pointers: &[Pointer]) -> Result<(), SqlError> {
        for pointer in pointers {
            self.0.push(&chunk_key(pointer.chunk_id, None)?[..], Tid::from_u64(0), true)?;
        }
        Ok(())
    }

    /// Copies them, each once, from one large-value table to the empty files of another, chunks with who made and who ended them.
    ///
    /// # Errors
    /// I/O; those of `check`, which is called now and then.
    pub(crate) fn copy<'a>(
        self,
        ctx: &'a AccessCtx,
        from: &ToastTable,
        to: &ToastTable,
        rewrite: Rewrite<'a>,
        check: &mut dyn FnMut() -> Result<(), AccessError>,
    ) -> Result<RewriteCounts, SqlError> {
        let ids = self.0.finish()?;
        let mut copy = Copy { ctx, from: *from, ids, id: Vec::new(), scan: None, rewrite, key: Vec::new(), row: Vec::new() };
        btree::build(ctx, &to.index, &mut copy, &btree::BuildOptions::default(), check)?;
        Ok(copy.rewrite.finish()?)
    }
}

/// Chunks on their way to another table, in the order of their index.
struct Copy<'a> {
    ctx: &'a AccessCtx,
    from: ToastTable,
    ids: Sorted,
    /// Key of the value that is being copied.
    id: Vec<u8>,
    scan: Option<btree::Scan>,
    rewrite: Rewrite<'a>,
    key: Vec<u8>,
    row: Vec<u8>,
}

impl SortedEntries for Copy<'_> {
    fn next(&mut self) -> Result<Option<SortedEntry<'_>>, AccessError> {
        loop {
            if let Some(scan) = &mut self.scan {
                let found = scan.next(self.ctx)?.map(|(key, tid)| {
                    self.key.clear();
                    self.key.extend_from_slice(key);
                    tid
                });
                let Some(tid) = found else {
                    self.scan = None;
                    continue;
                };
                let Some(h) = heap::read_version(self.ctx, &self.from.table, tid, &mut self.row)? else { continue };
                if let Some(kept) = self.rewrite.follow(tid, &h)? {
                    let tid = self.rewrite.put(&kept, &self.row)?;
                    return Ok(Some(SortedEntry { item: Item::from(&self.key[..]), tid, live: true }));
                }
                continue;
            }
            let Some(next) = self.ids.next()? else { return Ok(None) };
            if next.item.key != self.id {
                self.id.clear();
                self.id.extend_from_slice(next.item.key);
                let options = ScanOptions { keys: true, ..ScanOptions::default() };
                self.scan = Some(btree::Scan::new(&self.from.index, KeyRange::prefix(&self.id), Direction::Forward, options));
            }
        }
    }
}

fn to_usize(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::types::{ColDesc, TupleDesc, oids, row};

    #[test]
    fn chunk_rows_are_rows_of_the_large_value_table() {
        let desc = TupleDesc::new(vec![
            ColDesc::new("chunk_id", oids::OID, -1),
            ColDesc::new("chunk_seq", oids::INT4, -1),
            ColDesc::new("chunk_data", oids::BYTEA, -1),
        ]);
        for len in [0, 1, 126, 127, CHUNK_BYTES] {
            let data: Vec<u8> = (0..len).map(|i| u8::try_from(i % 256).unwrap()).collect();
            let bytes = chunk_row(77, 3, &data);
            let mut values = vec![Datum::Null; 3];
            row::decode(&desc, &bytes, 3, &mut values).unwrap();
            assert!(matches!(values.as_slice(), [Datum::Oid(77), Datum::Int4(3), Datum::Bytea(b)] if **b == *data));
            assert_eq!(parse_chunk(&bytes), Some((77, 3, data.as_slice())));
            for cut in 0..bytes.len() {
                assert_eq!(parse_chunk(&bytes[..cut]), None);
            }
        }
    }

    #[test]
    fn four_chunks_fit_a_page() {
        let item = HEADER + ROW_HEAD + 4 + CHUNK_BYTES + crate::storage::page::LINE_POINTER_SIZE;
        assert!(4 * item <= crate::storage::PAGE_SIZE - crate::storage::page::HEADER_SIZE);
    }
}
