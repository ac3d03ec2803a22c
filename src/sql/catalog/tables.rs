//! Reading and writing rows of the stored catalogs, their indexes included.

use std::sync::{Arc, LazyLock};

use afterimage_wal::{Lsn, Oid, Xid};
use parking_lot::Mutex;

use super::builtin::catalog_file;
use super::chunks;
use super::load::{CatalogReader, CatalogRow, by};
use super::schema::{CATALOGS, CatalogDef, IndexDef, Keep, afterimage_large_value};
use crate::access::btree::{self, Direction, Inserted, KeyRange, Scan, ScanOptions, UniqueProbe};
use crate::access::heap::tuple::{HEADER, MAX_TUPLE, mask};
use crate::access::heap::{self, ChangeOptions, ChangeResult, HeapScan, UpdateOptions};
use crate::access::{AccessCtx, RelHandle, Tid};
use crate::sql::types::key::{self, KeyOrder};
use crate::sql::types::packed::POINTER_BYTES;
use crate::sql::types::{ColDesc, Compression, Datum, Held, Packed, Repr, ToastTable, TupleDesc, row, stored};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{RowLockMode, Snapshot, Transaction, WaitPolicy};

/// Rank 12. Held while a large value of a catalog gets its id: proposed at random, looked for, written. Taken with no page latched.
static LARGE_VALUE_IDS: Mutex<()> = Mutex::new(());

/// Row descriptors of the catalogs, in the order of [`CATALOGS`].
static DESCS: LazyLock<Vec<Arc<TupleDesc>>> = LazyLock::new(|| {
    let desc = |def: &&CatalogDef| {
        let cols = def.columns.iter().map(|c| ColDesc { not_null: c.not_null, ..ColDesc::new(c.name, c.type_oid, -1) });
        // Which database's large values is for the reader to say.
        let toast = (def.keep != Keep::Shared).then(|| large_values(0));
        Arc::new(TupleDesc { packed: true, toast, ..TupleDesc::new(cols.collect()) })
    };
    CATALOGS.iter().map(desc).collect()
});

/// The row descriptor of a catalog.
pub fn desc_of(def: &CatalogDef) -> Arc<TupleDesc> {
    let position = CATALOGS.iter().position(|d| d.oid == def.oid);
    position.and_then(|i| DESCS.get(i)).cloned().unwrap_or_default()
}

/// The catalog's heap.
pub fn heap_handle(def: &CatalogDef, database: Oid) -> RelHandle {
    RelHandle::permanent(def.oid, catalog_file(def, def.oid, database))
}

/// One of its indexes.
pub fn index_handle(def: &CatalogDef, index: Oid, database: Oid) -> RelHandle {
    RelHandle::permanent(index, catalog_file(def, index, database))
}

/// Where the catalogs of a database have values that are too large for their rows.
pub(super) fn large_values(database: Oid) -> ToastTable {
    let def = &afterimage_large_value::DEF;
    ToastTable { table: heap_handle(def, database), index: index_handle(def, by::LARGE_VALUE, database) }
}

fn encode_key<'a>(values: impl IntoIterator<Item = &'a Datum>, out: &mut Vec<u8>) -> Result<(), SqlError> {
    values.into_iter().try_for_each(|value| key::encode(value, KeyOrder::ASC, out))
}

fn index_key(index: &IndexDef, values: &[Datum], out: &mut Vec<u8>) -> Result<(), SqlError> {
    out.clear();
    encode_key(index.columns.iter().filter_map(|&i| values.get(i)), out)
}

/// Reads stored catalogs at one snapshot.
pub struct StoredReader {
    ctx: AccessCtx,
    database: Oid,
    snapshot: Snapshot,
}

impl StoredReader {
    /// A reader of a database's catalogs and the shared ones.
    pub fn new(ctx: AccessCtx, database: Oid, snapshot: Snapshot) -> Self {
        Self { ctx, database, snapshot }
    }

    /// The position it reads at.
    pub fn lsn(&self) -> Lsn {
        self.snapshot.lsn()
    }

    fn by_index(&self, def: &'static CatalogDef, index: Oid, key: &[Datum]) -> Result<Vec<CatalogRow>, SqlError> {
        let desc = desc_of(def);
        let heap = heap_handle(def, self.database);
        let mut prefix = Vec::new();
        encode_key(key, &mut prefix)?;
        let handle = index_handle(def, index, self.database);
        let mut scan = Scan::new(&handle, KeyRange::prefix(&prefix), Direction::Forward, ScanOptions::default());
        let mut rows = Vec::new();
        while let Some((_, tid)) = scan.next(&self.ctx)? {
            let found = heap::fetch(&self.ctx, &heap, tid, &self.snapshot, |tid, bytes| decode(&desc, tid, bytes))?;
            if let Some(row) = found {
                rows.push(self.unpacked(row?)?);
            }
        }
        Ok(rows)
    }

    fn all(&self, def: &'static CatalogDef) -> Result<Vec<CatalogRow>, SqlError> {
        let desc = desc_of(def);
        let mut scan = HeapScan::new(&self.ctx, &heap_handle(def, self.database), &self.snapshot)?;
        let mut rows = Vec::new();
        while let Some((tid, bytes)) = scan.next(&self.ctx)? {
            rows.push(decode(&desc, tid, bytes)?);
        }
        rows.into_iter().map(|row| self.unpacked(row)).collect()
    }

    /// The row with its compressed and large values as they are.
    fn unpacked(&self, mut row: CatalogRow) -> Result<CatalogRow, SqlError> {
        for value in &mut row.values {
            let Datum::Packed(packed) = value else { continue };
            let (bytes, method) = match &packed.held {
                Held::Inline { bytes, method, .. } => (bytes.to_vec(), Some(*method)),
                Held::OutOfLine(pointer, _) => {
                    row.large.push(*pointer);
                    let len = usize::try_from(pointer.stored_len()).unwrap_or(usize::MAX);
                    (chunks::fetch(&self.ctx, pointer, &large_values(self.database), 0, len)?, pointer.method())
                }
            };
            let bytes = if method.is_some() { stored::decompress(&bytes, packed.raw_len())? } else { bytes };
            *value = stored::from_bytes(packed.repr, &bytes)?;
        }
        Ok(row)
    }
}

impl CatalogReader for StoredReader {
    fn rows(&self, def: &'static CatalogDef, index: Oid, key: &[Datum]) -> Result<Vec<CatalogRow>, SqlError> {
        if index == 0 { self.all(def) } else { self.by_index(def, index, key) }
    }

    fn maker(&self, def: &'static CatalogDef, row: &CatalogRow) -> Result<Option<Xid>, SqlError> {
        let header = heap::read_version(&self.ctx, &heap_handle(def, self.database), row.tid, &mut Vec::new())?;
        Ok(header.filter(|h| !h.has(mask::FROZEN)).map(|h| h.xmin))
    }
}

fn decode(desc: &TupleDesc, tid: Tid, bytes: &[u8]) -> Result<CatalogRow, SqlError> {
    let mut values = vec![Datum::Null; desc.len()];
    row::decode(desc, bytes, desc.len(), &mut values)?;
    Ok(CatalogRow { tid, values, large: Vec::new() })
}

/// Changes stored catalogs in a transaction. Each change is its own command: what comes after sees it.
pub struct CatalogWriter<'a> {
    ctx: AccessCtx,
    database: Oid,
    txn: &'a mut Transaction,
}

impl<'a> CatalogWriter<'a> {
    /// A writer of a database's catalogs and the shared ones.
    pub fn new(ctx: AccessCtx, database: Oid, txn: &'a mut Transaction) -> Self {
        Self { ctx, database, txn }
    }

    /// The transaction.
    pub fn txn(&mut self) -> &mut Transaction {
        self.txn
    }

    /// A reader that sees what was written so far.
    ///
    /// # Errors
    /// If the node stops.
    pub fn reader(&self) -> Result<StoredReader, SqlError> {
        Ok(StoredReader::new(self.ctx.clone(), self.database, self.txn.latest_snapshot()?))
    }

    /// The bytes of a row. If it is too long for a page its largest values go out of line.
    fn encode(&mut self, def: &'static CatalogDef, values: &[Datum], bytes: &mut Vec<u8>) -> Result<(), SqlError> {
        let desc = desc_of(def);
        row::encode(&desc, values, bytes)?;
        if bytes.len() + HEADER <= MAX_TUPLE || def.keep == Keep::Shared {
            return Ok(());
        }
        let toast = large_values(self.database);
        let mut values = values.to_vec();
        while bytes.len() + HEADER > MAX_TUPLE {
            let mut largest: Option<(usize, Vec<u8>)> = None;
            for (i, (value, column)) in values.iter().zip(&desc.cols).enumerate() {
                if value.is_null() || matches!(value, Datum::Packed(_)) || !column.repr.has_header() {
                    continue;
                }
                let mut held = Vec::new();
                stored::put(value, false, &mut held)?;
                if held.len() > POINTER_BYTES && largest.as_ref().is_none_or(|(_, known)| known.len() < held.len()) {
                    largest = Some((i, held));
                }
            }
            // As many short ones as a page cannot hold: the heap says so.
            let Some((i, held)) = largest else { break };
            let raw = held.get(stored::header_of(&held).0..).unwrap_or_default();
            let block = stored::compress(raw);
            let value = chunks::Stored {
                bytes: block.as_deref().unwrap_or(raw),
                raw_len: u32::try_from(raw.len()).map_err(|_| SqlError::internal("value too long"))?,
                method: block.is_some().then_some(Compression::Pglz),
            };
            let pointer = {
                let _one_at_a_time = LARGE_VALUE_IDS.lock();
                chunks::put(&self.ctx, self.txn, &toast, &value, &mut || Ok(rand::random::<u32>().max(1)))?
            };
            let repr = desc.cols.get(i).map_or(Repr::Text, |c| c.repr);
            if let Some(place) = values.get_mut(i) {
                *place = Datum::Packed(Arc::new(Packed { repr, held: Held::OutOfLine(pointer, toast) }));
            }
            bytes.clear();
            row::encode(&desc, &values, bytes)?;
        }
        Ok(())
    }

    /// Removes what a row that is no more had out of line.
    fn drop_large(&mut self, old: &CatalogRow) -> Result<(), SqlError> {
        if old.large.is_empty() {
            return Ok(());
        }
        chunks::delete_values(&self.ctx, self.txn, &large_values(self.database), &old.large)
    }

    /// Inserts a row.
    ///
    /// # Errors
    /// 23505 if a unique index has it; I/O.
    pub fn insert(&mut self, def: &'static CatalogDef, values: &[Datum]) -> Result<Tid, SqlError> {
        let mut bytes = Vec::new();
        self.encode(def, values, &mut bytes)?;
        let tid = heap::insert(&self.ctx, self.txn, &heap_handle(def, self.database), &bytes)?;
        self.insert_keys(def, values, None, tid)?;
        self.txn.command_counter_increment()?;
        Ok(tid)
    }

    /// Inserts many rows; unique indexes are checked as for one.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn insert_all(&mut self, def: &'static CatalogDef, rows: &[Vec<Datum>]) -> Result<(), SqlError> {
        let mut encoded = Vec::with_capacity(rows.len());
        for values in rows {
            let mut bytes = Vec::new();
            self.encode(def, values, &mut bytes)?;
            encoded.push(bytes);
        }
        let mut tids = Vec::with_capacity(rows.len());
        heap::multi_insert(&self.ctx, self.txn, &heap_handle(def, self.database), &encoded, false, &mut tids)?;
        for (values, &tid) in rows.iter().zip(&tids) {
            self.insert_keys(def, values, None, tid)?;
        }
        self.txn.command_counter_increment()?;
        Ok(())
    }

    /// Replaces a row that was read before.
    ///
    /// # Errors
    /// XX000 `tuple concurrently updated`; 23505; I/O.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    pub fn update(&mut self, def: &'static CatalogDef, old: &CatalogRow, values: &[Datum]) -> Result<Tid, SqlError> {
        let mut bytes = Vec::new();
        self.encode(def, values, &mut bytes)?;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let mut hot_ok = true;
        for index in def.indexes {
            index_key(index, &old.values, &mut before)?;
            index_key(index, values, &mut after)?;
            hot_ok &= before == after;
        }
        let snapshot = self.txn.latest_snapshot()?;
        let options = UpdateOptions { wait: WaitPolicy::Block, hot_ok, key_changed: !hot_ok };
        let heap = heap_handle(def, self.database);
        let tid = match heap::update(&self.ctx, self.txn, &heap, &snapshot, old.tid, &bytes, options)? {
            ChangeResult::Done { tid, hot } => {
                if !hot {
                    self.insert_keys(def, values, Some(&old.values), tid)?;
                }
                tid
            }
            other => return Err(concurrent(&other)),
        };
        self.drop_large(old)?;
        self.txn.command_counter_increment()?;
        Ok(tid)
    }

    /// Changes some columns of a row that was read before.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn set(&mut self, def: &'static CatalogDef, old: &CatalogRow, changes: &[(usize, Datum)]) -> Result<Tid, SqlError> {
        let mut values = old.values.clone();
        for (position, value) in changes {
            if let Some(place) = values.get_mut(*position) {
                place.clone_from(value);
            }
        }
        self.update(def, old, &values)
    }

    /// Changes columns of fixed length where the row is, once nobody else changes it or has locked it: for everybody at once, and whatever becomes
    /// of the transaction. False: somebody has changed the row since it was read. PostgreSQL: `systable_inplace_update_begin`.
    ///
    /// # Errors
    /// XX000 `tuple already updated by self`; what waiting ends with; I/O.
    pub fn overwrite(&mut self, def: &'static CatalogDef, old: &CatalogRow, changes: &[(usize, Datum)]) -> Result<bool, SqlError> {
        if !old.large.is_empty() && !changes.is_empty() {
            // Written anew its large values would have other places.
            return self.set(def, old, changes).map(|_| true);
        }
        let mut bytes = Vec::new();
        if !changes.is_empty() {
            let mut values = old.values.clone();
            for (position, value) in changes {
                if let Some(place) = values.get_mut(*position) {
                    place.clone_from(value);
                }
            }
            self.encode(def, &values, &mut bytes)?;
        }
        let heap = heap_handle(def, self.database);
        let (tag, mode) = (heap::row_tag(&heap, old.tid), RowLockMode::NoKeyUpdate);
        let held = self.txn.holds(&tag, mode.lock_mode());
        let snapshot = self.txn.latest_snapshot()?;
        let free = match heap::lock_row(&self.ctx, self.txn, &heap, &snapshot, old.tid, mode, WaitPolicy::Block)? {
            ChangeResult::Done { .. } => true,
            ChangeResult::Updated { .. } | ChangeResult::Deleted { .. } | ChangeResult::Skipped => false,
            own @ ChangeResult::SelfModified { .. } => return Err(concurrent(&own)),
        };
        if free {
            if !changes.is_empty() {
                heap::overwrite_in_place(&self.ctx, &heap, old.tid, &bytes)?;
            }
            if !held {
                self.txn.unlock(tag, mode.lock_mode());
            }
        }
        Ok(free)
    }

    /// Deletes a row that was read before.
    ///
    /// # Errors
    /// XX000 `tuple concurrently deleted`; I/O.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    pub fn delete(&mut self, def: &'static CatalogDef, old: &CatalogRow) -> Result<(), SqlError> {
        let snapshot = self.txn.latest_snapshot()?;
        let options = ChangeOptions { wait: WaitPolicy::Block };
        let heap = heap_handle(def, self.database);
        match heap::delete(&self.ctx, self.txn, &heap, &snapshot, old.tid, options)? {
            ChangeResult::Done { .. } => {}
            other => return Err(concurrent(&other)),
        }
        self.drop_large(old)?;
        self.txn.command_counter_increment()?;
        Ok(())
    }

    fn insert_keys(&mut self, def: &'static CatalogDef, values: &[Datum], old: Option<&[Datum]>, tid: Tid) -> Result<(), SqlError> {
        let xid = self.txn.xid()?;
        let (mut key, mut old_key) = (Vec::new(), Vec::new());
        for index in def.indexes {
            index_key(index, values, &mut key)?;
            let same = match old {
                Some(old) => {
                    index_key(index, old, &mut old_key)?;
                    key == old_key
                }
                None => false,
            };
            let handle = index_handle(def, index.oid, self.database);
            let mut probe = heap::Probe::new(&self.ctx, heap_handle(def, self.database), self.txn);
            // A new version with the same key is no duplicate of its own older one.
            let unique = (index.unique && !same).then_some((&mut probe as &mut dyn UniqueProbe, key.len()));
            if let Inserted::Duplicate(_) = btree::insert(&self.ctx, xid, &handle, &key, tid, unique)? {
                return Err(duplicate(def, index, values));
            }
        }
        Ok(())
    }
}

fn concurrent(result: &ChangeResult) -> SqlError {
    SqlError::internal(match result {
        ChangeResult::Deleted { .. } => "tuple concurrently deleted",
        ChangeResult::SelfModified { .. } => "tuple already updated by self",
        ChangeResult::Done { .. } | ChangeResult::Updated { .. } | ChangeResult::Skipped => "tuple concurrently updated",
    })
}

fn duplicate(def: &CatalogDef, index: &IndexDef, values: &[Datum]) -> SqlError {
    let names = index.columns.iter().map(|&i| def.columns[i].name).collect::<Vec<_>>().join(", ");
    let shown = |&i: &usize| match values.get(i) {
        Some(Datum::Text(t)) => t.to_string(),
        Some(Datum::Oid(o)) => o.to_string(),
        Some(Datum::Int2(n)) => n.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    };
    let shown = index.columns.iter().map(shown).collect::<Vec<_>>().join(", ");
    SqlError::new(SqlState::UNIQUE_VIOLATION, format!("duplicate key value violates unique constraint \"{}\"", index.name))
        .detail(format!("Key ({names})=({shown}) already exists."))
        .constraint("pg_catalog", def.name, index.name)
}
