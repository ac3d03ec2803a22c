//! A mixed load on one table with two indexes, and what must be found after it.
//!
//! The model is the list of states after each commit. After a crash the rows must be one of these states, and not one before the last
//! commit that was acknowledged; both indexes and the heap must agree, and the trees be well formed.
//!
//! A small catalog table of one row says which files the table and its indexes have; `TRUNCATE` and a rebuild of an index change it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

use afterimage_wal::{BlockNo, Fork, RelId, WalError, Xid};
use parking_lot::Mutex;
use rand::{Rng, rngs::StdRng, seq::IteratorRandom};

use super::super::{CheckpointRequest, Engine, EngineError};
use crate::{
    access::{
        AccessError, RelHandle, Tid,
        btree::{self, BuildOptions, Built, Direction, KeyRange, Scan, ScanOptions},
        heap::{self, ChangeOptions, ChangeResult, UpdateOptions, VacuumOptions},
        vacuum_table,
    },
    control::error::ControlError,
    sqlstate::SqlError,
    storage::{PAGE_SIZE, Page, StorageError, page::FLAG_ALL_VISIBLE, vm},
    txn::{CancelFlag, CommitLevel, CommitWait, Proc, ProcId, Snapshot, Transaction, TransactionOptions, TxnError},
};

const CATALOG: RelId = RelId { spc: 1663, db: 5, rel: 10_000 };
const FIRST_FILES: Place = Place { table: 10_001, by_id: 10_002, by_version: 10_003 };

/// What went wrong with a statement; the transaction is rolled back.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) enum Failure {
    Access(#[from] AccessError),
    Engine(#[from] EngineError),
    Control(#[from] ControlError),
    Storage(#[from] StorageError),
    Txn(#[from] TxnError),
    Wal(#[from] WalError),
}

impl From<Failure> for SqlError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Access(e) => e.into(),
            Failure::Engine(e) => e.into(),
            Failure::Control(e) => EngineError::Control(e).into(),
            Failure::Storage(e) => e.into(),
            Failure::Txn(e) => e.into(),
            Failure::Wal(e) => e.into(),
        }
    }
}

/// The relfilenodes in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    table: u32,
    by_id: u32,
    by_version: u32,
}

fn handle(rel: u32) -> RelHandle {
    RelHandle::permanent(rel, RelId { rel, ..CATALOG })
}

fn catalog() -> RelHandle {
    RelHandle::permanent(CATALOG.rel, CATALOG)
}

impl Place {
    fn encode(self) -> Vec<u8> {
        [self.table, self.by_id, self.by_version].iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    fn decode(row: &[u8]) -> Self {
        let word = |i: usize| u32::from_le_bytes(row[i * 4..i * 4 + 4].try_into().unwrap());
        Self { table: word(0), by_id: word(1), by_version: word(2) }
    }

    fn indexes(self) -> [RelHandle; 2] {
        [handle(self.by_id), handle(self.by_version)]
    }
}

/// What the model knows of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    version: u32,
    note: u32,
}

/// Rows by id.
pub(super) type Rows = BTreeMap<u32, Row>;

fn filler(n: u32, len: u32) -> impl Iterator<Item = u8> {
    let byte = u8::try_from(n % 251).unwrap();
    (0..len).map(move |_| byte)
}

impl Row {
    fn encode(self, id: u32) -> Vec<u8> {
        let mut row: Vec<u8> = [id, self.version, self.note].iter().flat_map(|n| n.to_le_bytes()).collect();
        row.extend(filler(id ^ self.note, self.note % 1400));
        row
    }

    fn decode(row: &[u8]) -> (u32, Self) {
        let word = |i: usize| u32::from_le_bytes(row[i * 4..i * 4 + 4].try_into().unwrap());
        let (id, found) = (word(0), Self { version: word(1), note: word(2) });
        assert_eq!(found.encode(id), row, "row {id} is garbled");
        (id, found)
    }

    fn by_version(self, id: u32) -> Vec<u8> {
        [self.version, id].iter().flat_map(|n| n.to_be_bytes()).collect()
    }
}

fn by_id(id: u32) -> Vec<u8> {
    let mut key = id.to_be_bytes().to_vec();
    key.extend(filler(id, id * 37 % 300));
    key
}

/// The states a crash may leave, oldest first; the first is the last acknowledged one.
#[derive(Clone, Debug)]
pub(super) struct Model {
    states: Vec<Rows>,
    next_id: u32,
}

impl Model {
    pub(super) fn new() -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { states: vec![Rows::new()], next_id: 0 }))
    }

    fn last(&self) -> &Rows {
        self.states.last().unwrap()
    }

    /// Everything is acknowledged: WAL was synced to its end.
    pub(super) fn acknowledge(&mut self) {
        let last = self.states.pop().unwrap();
        self.states = vec![last];
    }
}

pub(super) fn session(engine: &Engine) -> Arc<Proc> {
    static NEXT: AtomicI32 = AtomicI32::new(1);
    engine.txns().enter(ProcId(NEXT.fetch_add(1, Ordering::Relaxed)), CancelFlag::new())
}

/// Makes the catalog, the table and its indexes in a new directory.
pub(super) fn create_tables(engine: &Engine) {
    engine.pool().create_database_dir(CATALOG.db, CATALOG.spc, Xid::INVALID).unwrap();
    let proc = session(engine);
    let mut txn = engine.txns().begin(&proc, TransactionOptions::default());
    engine.pool().create_fork(CATALOG, Fork::Main).unwrap();
    new_files(engine, &mut txn, FIRST_FILES).unwrap();
    heap::insert(engine.ctx(), &mut txn, &catalog(), &FIRST_FILES.encode()).unwrap();
    txn.commit(CommitLevel::On).unwrap().wait().unwrap();
}

fn new_files(engine: &Engine, txn: &mut Transaction, place: Place) -> Result<(), Failure> {
    for rel in [place.table, place.by_id, place.by_version] {
        new_file(engine, txn, rel)?;
    }
    for index in place.indexes() {
        btree::create(engine.ctx(), &index)?;
    }
    Ok(())
}

fn new_file(engine: &Engine, txn: &mut Transaction, rel: u32) -> Result<(), Failure> {
    // Noted first: an error in between must not leave a file nobody owns.
    txn.xid()?;
    txn.drop_on_abort(handle(rel).file);
    engine.pool().create_fork(handle(rel).file, Fork::Main)?;
    Ok(())
}

fn place(engine: &Engine, snapshot: &Snapshot) -> Result<(Tid, Place), Failure> {
    let mut scan = heap::HeapScan::new(engine.ctx(), &catalog(), snapshot)?;
    let found = scan.next(engine.ctx())?.map(|(tid, row)| (tid, Place::decode(row)));
    assert!(scan.next(engine.ctx())?.is_none(), "the catalog has two rows");
    Ok(found.expect("the catalog has its row"))
}

fn set_place(engine: &Engine, txn: &mut Transaction, to: Place) -> Result<(), Failure> {
    let snapshot = txn.snapshot()?;
    let (tid, _) = place(engine, &snapshot)?;
    let done = heap::update(
        engine.ctx(),
        txn,
        &catalog(),
        &snapshot,
        tid,
        &to.encode(),
        UpdateOptions { hot_ok: true, ..UpdateOptions::default() },
    )?;
    assert!(matches!(done, ChangeResult::Done { .. }), "{done:?}");
    drop(snapshot);
    Ok(txn.command_counter_increment()?)
}

/// The visible version of a row, by the index on its id.
fn find(engine: &Engine, rels: Place, snapshot: &Snapshot, id: u32) -> Result<Tid, Failure> {
    let mut scan = Scan::new(&handle(rels.by_id), KeyRange::prefix(&id.to_be_bytes()), Direction::Forward, ScanOptions::default());
    let mut found = None;
    while let Some((_, root)) = scan.next(engine.ctx())? {
        let seen = heap::fetch(engine.ctx(), &handle(rels.table), root, snapshot, |tid, row| (tid, Row::decode(row).0))?;
        if let Some((tid, there)) = seen {
            assert_eq!(there, id, "an index entry leads to another row");
            assert!(found.is_none_or(|f| f == tid), "row {id} twice");
            found = Some(tid);
        }
    }
    Ok(found.unwrap_or_else(|| panic!("row {id} is not in the index")))
}

fn index(engine: &Engine, txn: &mut Transaction, rels: Place, id: u32, row: Row, tid: Tid) -> Result<(), Failure> {
    let xid = txn.xid()?;
    btree::insert(engine.ctx(), xid, &handle(rels.by_id), &by_id(id), tid, None)?;
    btree::insert(engine.ctx(), xid, &handle(rels.by_version), &row.by_version(id), tid, None)?;
    Ok(())
}

/// One statement of a transaction; `rows` follows.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
fn statement(engine: &Engine, txn: &mut Transaction, rows: &mut Rows, next_id: &mut u32, rng: &mut StdRng) -> Result<(), Failure> {
    let snapshot = txn.snapshot()?;
    let (_, rels) = place(engine, &snapshot)?;
    let table = handle(rels.table);
    let what = rng.random_range(0..100);
    let some = rows.iter().choose(rng).map(|(id, row)| (*id, *row));
    match (what, some) {
        (0..45, _) | (_, None) => {
            for _ in 0..rng.random_range(1..4) {
                let id = *next_id;
                *next_id += 1;
                let row = Row { version: rng.random_range(0..1000), note: rng.random_range(0..5000) };
                let tid = heap::insert(engine.ctx(), txn, &table, &row.encode(id))?;
                index(engine, txn, rels, id, row, tid)?;
                rows.insert(id, row);
            }
        }
        (45..70, Some((id, old))) => {
            let key_changes = rng.random_bool(0.4);
            let version = if key_changes { rng.random_range(0..1000) } else { old.version };
            let row = Row { version, note: rng.random_range(0..5000) };
            let tid = find(engine, rels, &snapshot, id)?;
            let options = UpdateOptions { hot_ok: !key_changes, ..UpdateOptions::default() };
            match heap::update(engine.ctx(), txn, &table, &snapshot, tid, &row.encode(id), options)? {
                ChangeResult::Done { hot: true, .. } => {}
                ChangeResult::Done { tid, hot: false } => index(engine, txn, rels, id, row, tid)?,
                other => panic!("update of {id}: {other:?}"),
            }
            rows.insert(id, row);
        }
        (70..88, Some((id, _))) => delete(engine, txn, rels, &snapshot, rows, id)?,
        (88..93, Some((from, _))) => {
            // All from here on: vacuum will give blocks back.
            for id in rows.keys().copied().filter(|id| *id >= from).collect::<Vec<_>>() {
                delete(engine, txn, rels, &snapshot, rows, id)?;
            }
        }
        (93..95, _) => {
            drop(snapshot);
            let file = || -> Result<u32, Failure> { Ok(engine.allocate_oid()?) };
            let to = Place { table: file()?, by_id: file()?, by_version: file()? };
            new_files(engine, txn, to)?;
            for old in [rels.table, rels.by_id, rels.by_version] {
                txn.drop_on_commit(handle(old).file);
            }
            set_place(engine, txn, to)?;
            rows.clear();
        }
        (95..97, _) => {
            drop(snapshot);
            rebuild(engine, txn, rels)?;
        }
        _ => {
            drop(snapshot);
            let mark = txn.begin_sub(None);
            let before = rows.clone();
            let result = (0..rng.random_range(1..6)).try_for_each(|_| statement(engine, txn, rows, next_id, rng));
            if result.is_err() || rng.random() {
                txn.rollback_sub(mark)?;
                *rows = before;
            } else {
                txn.release_sub(mark);
            }
            result?;
        }
    }
    Ok(txn.command_counter_increment()?)
}

fn delete(engine: &Engine, txn: &mut Transaction, rels: Place, snapshot: &Snapshot, rows: &mut Rows, id: u32) -> Result<(), Failure> {
    let tid = find(engine, rels, snapshot, id)?;
    let done = heap::delete(engine.ctx(), txn, &handle(rels.table), snapshot, tid, ChangeOptions::default())?;
    assert!(matches!(done, ChangeResult::Done { .. }), "delete of {id}: {done:?}");
    rows.remove(&id);
    Ok(())
}

/// REINDEX of the index on ids.
fn rebuild(engine: &Engine, txn: &mut Transaction, rels: Place) -> Result<(), Failure> {
    let mut sorter = btree::Sorter::new(Box::new(|| panic!("it fits")), 1 << 24);
    heap::build_scan(engine.ctx(), txn.own().map(|own| &**own), &handle(rels.table), heap::Versions::All, |found| {
        sorter.push(&by_id(Row::decode(found.row).0), found.root, found.live)
    })?;
    let to = engine.allocate_oid()?;
    new_file(engine, txn, to)?;
    let built = btree::build(engine.ctx(), &handle(to), &mut sorter.finish()?, &BuildOptions::default(), &mut || Ok(()))?;
    assert!(matches!(built, Built::Entries(_)));
    txn.drop_on_commit(handle(rels.by_id).file);
    set_place(engine, txn, Place { by_id: to, ..rels })
}

/// One transaction; `Ok(None)` if it was rolled back by choice.
fn transaction(engine: &Engine, proc: &Arc<Proc>, model: &Mutex<Model>, rng: &mut StdRng) -> Result<Option<CommitWait>, Failure> {
    let mut txn = engine.txns().begin(proc, TransactionOptions::default());
    let (mut rows, mut next_id) = {
        let model = model.lock();
        (model.last().clone(), model.next_id)
    };
    let result = (0..rng.random_range(1..9)).try_for_each(|_| statement(engine, &mut txn, &mut rows, &mut next_id, rng));
    model.lock().next_id = next_id;
    if result.is_err() || rng.random_bool(0.15) {
        txn.abort()?;
        return result.map(|()| None);
    }
    // Possible from here on, whatever becomes of the commit.
    model.lock().states.push(rows);
    match txn.commit(CommitLevel::On) {
        Ok(wait) => Ok(Some(wait)),
        Err(error) => {
            model.lock().states.pop();
            Err(error.into())
        }
    }
}

/// One life of a node: random transactions, some acknowledged, some not, checkpoints, writes, vacuum. A failed statement is
/// returned; with `tolerant` it is what the test is about.
pub(super) fn live(engine: &Engine, model: &Mutex<Model>, rng: &mut StdRng, tolerant: bool) -> Vec<SqlError> {
    let proc = session(engine);
    let mut failed = Vec::new();
    // A new session sees what the one before did once that is durable.
    let known = engine.wal().flush(engine.wal().inserted()).map_err(Failure::from);
    if let Err(error) = known.and_then(|()| Ok(engine.txns().wait_readable(&proc, CommitLevel::On, engine.wal().flushed())?)) {
        assert!(tolerant, "begin: {error}");
        return vec![error.into()];
    }
    let mut note = |what: &str, result: Result<(), Failure>| {
        if let Err(error) = result {
            assert!(tolerant, "{what}: {error}");
            failed.push(error.into());
        }
    };
    for _ in 0..rng.random_range(1..25) {
        match rng.random_range(0..14) {
            0 => {
                let request = CheckpointRequest { immediate: true, force: true, ..CheckpointRequest::default() };
                note("checkpoint", engine.checkpoint(request).map_err(Failure::from));
            }
            1 => note("write", engine.pool().write_dirty(|_, _| {}).map(drop).map_err(Failure::from)),
            2 | 3 => note("vacuum", vacuum(engine, &proc, rng)),
            _ => {
                let wait = match transaction(engine, &proc, model, rng) {
                    Ok(Some(wait)) => wait,
                    Ok(None) => continue,
                    Err(error) => {
                        note("transaction", Err(error));
                        continue;
                    }
                };
                if rng.random_bool(0.6) {
                    match wait.wait() {
                        Ok(()) => model.lock().acknowledge(),
                        Err(error) => note("commit", Err(error.into())),
                    }
                }
            }
        }
    }
    failed
}

fn vacuum(engine: &Engine, proc: &Arc<Proc>, rng: &mut StdRng) -> Result<(), Failure> {
    let mut txn = engine.txns().begin(proc, TransactionOptions::default());
    let snapshot = txn.snapshot()?;
    let (_, rels) = place(engine, &snapshot)?;
    drop(snapshot);
    let freeze_below = if rng.random_bool(0.3) { engine.txns().settled_floor() } else { Xid::INVALID };
    let options = VacuumOptions {
        all_pages: rng.random(),
        aggressive: rng.random(),
        freeze_below,
        max_dead: rng.random_range(1..200),
        ..VacuumOptions::default()
    };
    vacuum_table(engine.ctx(), &txn, &handle(rels.table), &rels.indexes(), options, &mut |_| Ok(()))?;
    Ok(())
}

/// What a new session sees: the rows, the same by heap and by both indexes, whose trees are well formed.
pub(super) fn rows(engine: &Engine, what: &str) -> Rows {
    let proc = session(engine);
    let mut txn = engine.txns().begin(&proc, TransactionOptions::default());
    let snapshot = txn.snapshot().unwrap();
    let (_, rels) = place(engine, &snapshot).unwrap();
    let table = handle(rels.table);
    let mut scan = heap::HeapScan::new(engine.ctx(), &table, &snapshot).unwrap();
    let mut found = Rows::new();
    while let Some((_, row)) = scan.next(engine.ctx()).unwrap() {
        let (id, row) = Row::decode(row);
        assert!(found.insert(id, row).is_none(), "{what}: row {id} twice");
    }
    check_map(engine, &table, what);
    for (i, index) in rels.indexes().iter().enumerate() {
        let mut entries = Vec::new();
        btree::verify(engine.ctx(), index, &mut |item, tid| {
            entries.push((item.key.to_vec(), tid));
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{what}: index {i}: {e}"));
        let mut seen = Rows::new();
        for (key, root) in entries {
            let fetched = heap::fetch(engine.ctx(), &table, root, &snapshot, |_, row| Row::decode(row)).unwrap();
            let Some((id, row)) = fetched else { continue };
            let own = if i == 0 { by_id(id) } else { row.by_version(id) };
            assert_eq!(key, own, "{what}: an entry of index {i} leads to a row of another key");
            assert!(seen.insert(id, row).is_none(), "{what}: row {id} twice in index {i}");
        }
        let missing: Vec<_> = found.keys().filter(|id| !seen.contains_key(id)).collect();
        assert!(seen == found, "{what}: index {i} has {} rows, the heap {}; missing {missing:?}", seen.len(), found.len());
    }
    found
}

/// A block the map calls all-visible says so itself: else an index-only scan would show what nobody may see.
fn check_map(engine: &Engine, table: &RelHandle, what: &str) {
    let blocks = engine.pool().n_blocks(table.file, Fork::Main).unwrap();
    for block in (0..blocks.get()).map(BlockNo::new) {
        if vm::all_visible(engine.pool(), table.file, block).unwrap() {
            let buffer = engine.pool().read(table.file, Fork::Main, block).unwrap();
            let flagged = buffer.read().has_flag(FLAG_ALL_VISIBLE);
            assert!(flagged, "{what}: block {block} is all-visible in the map only");
        }
    }
    for block in 0..200 {
        let block = BlockNo::new(blocks.get() + block);
        assert!(!vm::all_visible(engine.pool(), table.file, block).unwrap(), "{what}: the map knows block {block} past the end");
    }
}

/// After a crash: what is there is one of the possible states, and from now on the only one.
pub(super) fn check(engine: &Engine, model: &Mutex<Model>, what: &str) {
    let found = rows(engine, what);
    let mut model = model.lock();
    let ends = |rows: &Rows| (rows.len(), rows.keys().next_back().copied());
    assert!(
        model.states.contains(&found),
        "{what}: found {:?}, possible are {:?}",
        ends(&found),
        model.states.iter().map(ends).collect::<Vec<_>>()
    );
    model.states = vec![found];
}

/// The pages of table and indexes are the same on both nodes, hints masked, at the same LSN.
pub(super) fn same_pages(a: &Engine, b: &Engine, what: &str) {
    let proc = session(a);
    let mut txn = a.txns().begin(&proc, TransactionOptions::default());
    let (_, rels) = place(a, &txn.snapshot().unwrap()).unwrap();
    for rel in [CATALOG.rel, rels.table, rels.by_id, rels.by_version] {
        let file = handle(rel).file;
        let blocks = a.pool().n_blocks(file, Fork::Main).unwrap();
        assert_eq!(blocks, b.pool().n_blocks(file, Fork::Main).unwrap(), "{what}: length of {rel}");
        for block in (0..blocks.get()).map(BlockNo::new) {
            let masked = |engine: &Engine| {
                let mut page = Page::zeroed();
                page.bytes_mut().copy_from_slice(engine.pool().read(file, Fork::Main, block).unwrap().read().bytes());
                if rel == rels.by_id || rel == rels.by_version {
                    btree::mask_page(&mut page)
                } else {
                    heap::tuple::mask_page(&mut page)
                }
                page
            };
            let (mine, other) = (masked(a), masked(b));
            let differ: BTreeSet<usize> = (0..PAGE_SIZE).filter(|i| mine.bytes()[*i] != other.bytes()[*i]).collect();
            assert!(differ.is_empty(), "{what}: block {} of {rel} differs at {differ:?}", block.get());
        }
    }
}
