//! Checking tables and indexes: `verify_heapam`, `bt_index_check`, `bt_index_parent_check`, and what `afterimage verify` does with every
//! relation.
//!
//! PostgreSQL: contrib/amcheck. Here the functions are built in.

use std::sync::Arc;

use afterimage_wal::{BlockNo, Fork};

use super::SessionContext;
use super::ddl::index::{KeyMaker, bind_expressions};
use crate::access::btree::{self, Item, SortedEntries, Sorter};
use crate::access::heap::{self, BuildRow, Finding};
use crate::access::{AccessCtx, AccessError, RelHandle, Tid};
use crate::config::Setting;
use crate::sql::catalog::index_key::EntryBytes;
use crate::sql::catalog::relation::{Index, Persistence, RelKind, Relation};
use crate::sql::functions::{CallTypes, ProcEntry, SetRows};
use crate::sql::types::datum::RecordValue;
use crate::sql::types::{Datum, Oid, oids, row};
use crate::sqlstate::{SqlError, SqlState};
use crate::storage::{Page, vm};
use crate::txn::{LockMode, WaitPolicy, blocking};

/// How thorough a check of an index is.
#[derive(Clone, Copy, Debug)]
pub struct IndexCheck {
    /// Every row that should be in the index is.
    pub heap_all_indexed: bool,
    /// Writers are kept out, so that every entry can be checked against the table's line pointers too.
    pub exclusive: bool,
}

/// As PostgreSQL's messages have it.
fn superuser_only(ctx: &SessionContext, func: &ProcEntry) -> Result<(), SqlError> {
    if ctx.catalog.is_superuser(ctx.user)? {
        return Ok(());
    }
    Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied for function {}", func.name)))
}

pub(super) fn call(ctx: &mut SessionContext, func: &'static ProcEntry, args: &[Datum]) -> Result<Option<Datum>, SqlError> {
    let exclusive = match func.name {
        "bt_index_check" => false,
        "bt_index_parent_check" => true,
        _ => return Ok(None),
    };
    superuser_only(ctx, func)?;
    let Some(oid) = args.first().filter(|a| !a.is_null()) else { return Ok(Some(Datum::Null)) };
    let oid = oid.as_oid()?;
    let heap_all_indexed = args.get(1).is_some_and(Datum::is_true);
    let mode = if exclusive { LockMode::Share } else { LockMode::AccessShare };
    let relation = ctx
        .catalog
        .relation(oid)?
        .ok_or_else(|| SqlError::new(SqlState::INTERNAL_ERROR, format!("could not open relation with OID {oid}")))?;
    if relation.kind != RelKind::Index {
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not an index", relation.name)));
    }
    if exclusive && ctx.engine.is_in_recovery() {
        let error = SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "cannot acquire lock mode ShareLock on database objects while recovery is in progress",
        );
        return Err(error.hint("Only RowExclusiveLock or less can be acquired on database objects during recovery."));
    }
    let (table, _) = ctx.catalog.index(oid)?.ok_or_else(|| SqlError::internal("index without a table"))?;
    // The table first, as all who use both.
    ctx.lock_oid(table.oid, table.shared, mode, WaitPolicy::Block)?;
    ctx.lock_oid(oid, table.shared, mode, WaitPolicy::Block)?;
    ctx.refresh_catalog();
    let (table, index) = ctx.catalog.index(oid)?.ok_or_else(|| SqlError::internal("index without a table"))?;
    if !index.valid {
        return Err(
            SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("cannot check index \"{}\"", index.name)).detail("Index is not valid.")
        );
    }
    // An unlogged index has no content on a standby.
    if table.persistence != Persistence::Unlogged || !ctx.engine.is_in_recovery() {
        check_index(ctx, &table, &index, IndexCheck { heap_all_indexed, exclusive })?;
    }
    Ok(Some(Datum::Void))
}

pub(super) fn call_set(
    ctx: &mut SessionContext,
    func: &'static ProcEntry,
    _types: &CallTypes,
    args: &[Datum],
) -> Result<Option<SetRows>, SqlError> {
    if func.name != "verify_heapam" {
        return Ok(None);
    }
    superuser_only(ctx, func)?;
    let null = |what: &str| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("{what} cannot be null"));
    let arg = |i: usize| args.get(i).filter(|a| !a.is_null());
    let oid = arg(0).ok_or_else(|| null("relation"))?.as_oid()?;
    let stop_at_first = arg(1).ok_or_else(|| null("on_error_stop"))?.is_true();
    arg(2).ok_or_else(|| null("check_toast"))?;
    let skip = match arg(3).ok_or_else(|| null("skip"))?.as_str()?.to_ascii_lowercase().as_str() {
        "none" => 0,
        "all-visible" => vm::VISIBLE,
        "all-frozen" => vm::FROZEN,
        _ => {
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "invalid skip option")
                .hint("Valid skip options are \"all-visible\", \"all-frozen\", and \"none\"."));
        }
    };
    let relation = ctx
        .catalog
        .relation(oid)?
        .ok_or_else(|| SqlError::new(SqlState::UNDEFINED_TABLE, format!("could not open relation with OID {oid}")))?;
    ctx.lock_oid(oid, relation.shared, LockMode::AccessShare, WaitPolicy::Block)?;
    let relation = ctx.reopen(oid)?;
    let Some(handle) = relation.rel_handle().filter(|_| matches!(relation.kind, RelKind::Table | RelKind::MatView | RelKind::Toast)) else {
        let error = SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("cannot check relation \"{}\"", relation.name));
        return Err(error.detail(format!("This operation is not supported for {}.", relation.kind.plural())));
    };
    if relation.persistence == Persistence::Unlogged && ctx.engine.is_in_recovery() {
        return Ok(Some(Box::new(std::iter::empty())));
    }
    let blocks = ctx.engine.pool().n_blocks(handle.file, Fork::Main)?.get();
    let bound = |i: usize, name: &str, default: u32| -> Result<u32, SqlError> {
        let Some(Datum::Int8(n)) = arg(i) else { return Ok(default) };
        u32::try_from(*n).ok().filter(|n| *n < blocks).ok_or_else(|| {
            let message = format!("{name} block number must be between 0 and {}", blocks.saturating_sub(1));
            SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
        })
    };
    if blocks == 0 {
        return Ok(Some(Box::new(std::iter::empty())));
    }
    let (from, upto) = (bound(4, "starting", 0)?, bound(5, "ending", blocks - 1)?);
    let desc = func.out_columns().ok_or_else(|| SqlError::internal("verify_heapam has no columns"))?;
    let (mut found, mut maps) = (Vec::new(), vm::MapPin::default());
    for block in (from..=upto).map(BlockNo::new) {
        ctx.check_cancel()?;
        if skip != 0 && maps.bits(ctx.engine.pool(), handle.file, block)? & skip != 0 {
            continue;
        }
        for finding in check_heap_page(ctx, &relation, &handle, block)? {
            let values = vec![
                Datum::Int8(i64::from(block.get())),
                Datum::Int4(i32::from(finding.offset)),
                Datum::Null,
                Datum::text(finding.message),
            ];
            found.push(Datum::Record(Arc::new(RecordValue {
                type_oid: oids::RECORD,
                desc: Arc::clone(&desc),
                values: values.into_boxed_slice(),
            })));
        }
        if stop_at_first && !found.is_empty() {
            break;
        }
    }
    Ok(Some(Box::new(found.into_iter().map(Ok))))
}

/// Checks one page of a table: its structure, and that every row on it decodes.
///
/// # Errors
/// XX001 if the page does not verify; I/O.
pub fn check_heap_page(ctx: &SessionContext, relation: &Relation, handle: &RelHandle, block: BlockNo) -> Result<Vec<Finding>, SqlError> {
    let mut page = Box::<Page>::default();
    // The xid first: a row made after the page was copied is none of ours.
    page.bytes_mut().copy_from_slice(ctx.engine.pool().read(handle.file, Fork::Main, block)?.read().bytes());
    let mut found = heap::verify_page(&page, block, ctx.engine.txns().next_xid());
    let columns = relation.columns.len();
    let mut values = Vec::new();
    for offset in 1..=page.max_offset() {
        let Some(bytes) = page.item(offset).and_then(|item| item.get(heap::tuple::HEADER..)) else { continue };
        values.clear();
        values.resize(columns, Datum::Null);
        if let Err(error) = row::decode(&relation.desc, bytes, columns, &mut values) {
            found.push(Finding { offset, message: format!("tuple cannot be decoded: {}", error.fields().message) });
        }
    }
    found.sort_by_key(|f| f.offset);
    Ok(found)
}

fn corrupted(index: &Index, message: String) -> SqlError {
    SqlError::new(SqlState::INDEX_CORRUPTED, message).detail(format!("Index \"{}\".", index.name))
}

/// Damage found in an index becomes XX002; a page that does not verify stays XX001.
fn index_error(ctx: &SessionContext, index: &Index, error: AccessError) -> SqlError {
    if let AccessError::Damaged { block, what, .. } = error {
        return SqlError::new(SqlState::INDEX_CORRUPTED, format!("index \"{}\" is corrupted: {what}", index.name))
            .detail(format!("Block {block} of file \"{}\".", ctx.engine.files().relative_path(index.file, Fork::Main, 0)));
    }
    error.into()
}

/// Checks an index: its tree, and as `check` says the table against it. Returns the number of entries.
///
/// # Errors
/// XX002 names the first thing that is wrong; XX001 for a page that does not verify; I/O.
pub fn check_index(ctx: &mut SessionContext, table: &Relation, index: &Index, check: IndexCheck) -> Result<u64, SqlError> {
    let access = ctx.access();
    let handle = table.rel_handle().ok_or_else(|| SqlError::internal("table without file"))?;
    let index_handle = table.index_handle(index);
    // Rows are looked for first: an entry made meanwhile is one too many, which is no harm, and none is missing.
    let mut expected =
        if check.heap_all_indexed { Some(Expected::new(&access, index, expected_entries(ctx, table, index, &handle)?)?) } else { None };
    let cancel = Arc::clone(&ctx.cancel);
    let mut page_of = PageOf { ctx: access.clone(), handle, at: None, page: Box::default() };
    let mut wrong = None;
    let walked = blocking(|| {
        let mut count = 0_u64;
        btree::verify(&access, &index_handle, &mut |item, tid| {
            count += 1;
            if count.is_multiple_of(1024) {
                cancel.check()?;
            }
            if wrong.is_none() && check.exclusive && !page_of.may_be_indexed(tid)? {
                wrong = Some(corrupted(
                    index,
                    format!("index tuple in index \"{}\" points to {tid} in table \"{}\", where no row can be", index.name, table.name),
                ));
            }
            if let Some(expected) = &mut expected {
                expected.meet(item, tid)?;
            }
            Ok(())
        })
    });
    let verified = walked.map_err(|e| index_error(ctx, index, e))?;
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    if let Some(mut expected) = expected {
        expected.finish()?;
        if let Some(tid) = expected.missing {
            let message =
                format!("heap tuple {tid} from table \"{}\" lacks matching index tuple within index \"{}\"", table.name, index.name);
            let error = SqlError::new(SqlState::INDEX_CORRUPTED, message);
            return Err(if check.exclusive {
                error
            } else {
                error.hint("Retrying verification using the function bt_index_parent_check() might provide a more specific error.")
            });
        }
    }
    Ok(verified.entries)
}

/// The entries the index must have, sorted as it is.
fn expected_entries(ctx: &mut SessionContext, table: &Relation, index: &Index, handle: &RelHandle) -> Result<btree::Sorted, SqlError> {
    let access = ctx.access();
    let (expressions, predicate) = bind_expressions(ctx, table, index)?;
    let memory = ctx.settings.bytes(Setting::MaintenanceWorkMem).unwrap_or(64 << 20);
    let mut sorter = Sorter::new(super::temp_file::scratch(ctx), usize::try_from(memory).unwrap_or(usize::MAX));
    let snapshot = ctx.transaction()?.latest_snapshot()?;
    let own = ctx.transaction()?.own().cloned();
    let mut keys = KeyMaker::new(table, index, &expressions, predicate.as_ref());
    let mut entry = EntryBytes::default();
    let mut count = 0_u32;
    let scanned = blocking(|| {
        heap::build_scan(&access, own.as_deref(), handle, heap::Versions::All, |found: BuildRow<'_>| -> Result<(), SqlError> {
            count = count.wrapping_add(1);
            if count.is_multiple_of(1024) {
                ctx.check_cancel()?;
            }
            // A row whose insertion is still under way may not have its entry yet; one nobody sees any more may have lost it.
            let seen = found.live && heap::fetch_exact(&access, handle, found.tid, &snapshot, |_, _| ())?.is_some();
            if seen && keys.make(ctx, found.row, &mut entry)?.is_some() {
                sorter.push(entry.item(), found.root, true)?;
            }
            Ok(())
        })
    });
    scanned?;
    Ok(sorter.finish()?)
}

/// The sorted entries an index must have, met one by one as its leaves are walked.
struct Expected<'a> {
    access: &'a AccessCtx,
    index: &'a Index,
    sorted: btree::Sorted,
    next: Option<(EntryBytes, Tid)>,
    missing: Option<Tid>,
}

impl<'a> Expected<'a> {
    fn new(access: &'a AccessCtx, index: &'a Index, sorted: btree::Sorted) -> Result<Self, AccessError> {
        let mut this = Self { access, index, sorted, next: None, missing: None };
        this.advance()?;
        Ok(this)
    }

    fn advance(&mut self) -> Result<(), AccessError> {
        self.next = self.sorted.next()?.map(|e| (EntryBytes::from(e.item), e.tid));
        Ok(())
    }

    /// The index has this entry: all that should come before it are missing.
    fn meet(&mut self, item: &Item<'_>, tid: Tid) -> Result<(), AccessError> {
        while let Some((entry, t)) = &self.next {
            match (entry.key.as_slice(), t.as_u64()).cmp(&(item.key, tid.as_u64())) {
                std::cmp::Ordering::Less => {
                    self.missing.get_or_insert(*t);
                }
                std::cmp::Ordering::Equal => {
                    // An entry that is older than INCLUDE columns in indexes carries none.
                    let unpack = |values: &mut [Datum]| super::large::unpack_row(self.access, values);
                    // What cannot be read is not the same.
                    if !item.carried.is_empty() && !self.index.carries_same(&entry.carried, item.carried, unpack).unwrap_or(false) {
                        self.missing.get_or_insert(*t);
                    }
                }
                std::cmp::Ordering::Greater => break,
            }
            self.advance()?;
        }
        Ok(())
    }

    /// The index has no more.
    fn finish(&mut self) -> Result<(), AccessError> {
        if let Some((_, tid)) = &self.next {
            self.missing.get_or_insert(*tid);
        }
        Ok(())
    }
}

/// The heap page looked at last: entries of equal keys often lead to the same one.
struct PageOf {
    ctx: AccessCtx,
    handle: RelHandle,
    at: Option<BlockNo>,
    page: Box<Page>,
}

impl PageOf {
    fn may_be_indexed(&mut self, tid: Tid) -> Result<bool, AccessError> {
        if tid.block >= self.ctx.pool.n_blocks(self.handle.file, Fork::Main)? {
            return Ok(false);
        }
        if self.at != Some(tid.block) {
            let buffer = self.ctx.pool.read(self.handle.file, Fork::Main, tid.block)?;
            self.page.bytes_mut().copy_from_slice(buffer.read().bytes());
            self.at = Some(tid.block);
        }
        Ok(heap::may_be_indexed(&self.page, tid.offset))
    }
}

/// Every table with a file in the connected database, with what to call it. Shared ones come with the database that is asked first.
///
/// # Errors
/// Catalogs that cannot be read.
pub fn tables(ctx: &mut SessionContext) -> Result<Vec<Oid>, SqlError> {
    use crate::sql::catalog::load::CatalogReader;
    use crate::sql::catalog::schema::pg_class;
    let mut found = Vec::new();
    for row in ctx.catalog_reader()?.rows(&pg_class::DEF, 0, &[])? {
        if matches!(row.char(pg_class::relkind)?, b'r' | b'm' | b't') {
            found.push(row.oid(pg_class::oid)?);
        }
    }
    Ok(found)
}
