//! The engine on a disk in memory that loses, keeps or tears what was not synced.
//!
//! The model is the list of states after each commit. After a crash the rows must be one of these states, and not one before the last
//! commit that was acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::AtomicI32,
    time::Duration,
};

use afterimage_wal::{Fork, RelId, disk::SimDisk};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IteratorRandom};

use super::*;
use crate::{
    access::{AccessError, RelHandle, Tid, heap},
    txn::{CancelFlag, CommitLevel, CommitWait, Proc, ProcId, TransactionOptions},
};

const REL: RelId = RelId { spc: 1663, db: 5, rel: 16_384 };
const POOL: PoolOptions = PoolOptions { buffers: 24 };
const AREA_SLOTS: usize = 8;

fn options(disk: &SimDisk) -> EngineOptions {
    EngineOptions {
        pool: POOL,
        area_slots: AREA_SLOTS,
        disk: disk.shared(),
        checkpoint: CheckpointSettings { log: false, timeout: Duration::from_secs(3600), ..CheckpointSettings::default() },
        ..EngineOptions::default()
    }
}

fn create(disk: &SimDisk, dir: &Path) {
    let create = CreateOptions { segment_bytes: 1 << 20, pool: POOL, area_slots: AREA_SLOTS, disk: disk.shared() };
    let engine = Engine::create(dir, create).unwrap();
    engine.pool().create_database_dir(5, 1663, Xid::INVALID).unwrap();
    engine.pool().create_fork(REL, Fork::Main).unwrap();
    engine.shutdown(ShutdownMode::Fast).unwrap();
}

fn session(engine: &Engine) -> Arc<Proc> {
    static NEXT: AtomicI32 = AtomicI32::new(1);
    engine.txns().enter(ProcId(NEXT.fetch_add(1, Ordering::Relaxed)), CancelFlag::new())
}

fn rel() -> RelHandle {
    RelHandle::permanent(16_384, REL)
}

fn rows(engine: &Engine) -> BTreeMap<u32, Tid> {
    let proc = session(engine);
    let mut txn = engine.txns().begin(&proc, TransactionOptions::default());
    let snapshot = txn.snapshot().unwrap();
    let mut scan = heap::HeapScan::new(engine.ctx(), &rel(), &snapshot).unwrap();
    let mut found = BTreeMap::new();
    while let Some((tid, row)) = scan.next(engine.ctx()).unwrap() {
        let n = u32::from_le_bytes(*row.first_chunk().unwrap());
        assert!(row[4..].iter().all(|b| u32::from(*b) == n % 251), "row {n} is garbled");
        assert!(found.insert(n, tid).is_none(), "row {n} twice");
    }
    found
}

/// The states a crash may leave, oldest first; the first is the last acknowledged one.
struct Model {
    states: Vec<BTreeSet<u32>>,
    next: u32,
}

/// One life of a node: random transactions, some acknowledged, some not, checkpoints, writes, vacuum.
fn live(engine: &Engine, model: &mut Model, rng: &mut StdRng) {
    let proc = session(engine);
    let mut rows = rows(engine);
    let mut waits: Vec<(usize, CommitWait)> = Vec::new();
    for _ in 0..rng.random_range(1..25) {
        match rng.random_range(0..12) {
            0 => {
                let request = CheckpointRequest { immediate: true, force: true, ..CheckpointRequest::default() };
                engine.checkpoint(request).unwrap();
            }
            1 => {
                engine.pool().write_dirty(|_, _| {}).unwrap();
            }
            2 => {
                let txn = engine.txns().begin(&proc, TransactionOptions::default());
                let no_index = |_: &heap::DeadTids| Ok::<(), AccessError>(());
                heap::vacuum(engine.ctx(), &txn, &rel(), heap::VacuumOptions::default(), no_index).unwrap();
            }
            _ => {
                let mut txn = engine.txns().begin(&proc, TransactionOptions::default());
                let mut state = model.states.last().unwrap().clone();
                let mut changed = rows.clone();
                for _ in 0..rng.random_range(1..12) {
                    if rng.random_bool(0.7) {
                        let n = model.next;
                        model.next += 1;
                        let mut row = n.to_le_bytes().to_vec();
                        row.resize(rng.random_range(4..1500), u8::try_from(n % 251).unwrap());
                        let tid = heap::insert(engine.ctx(), &mut txn, &rel(), &row).unwrap();
                        state.insert(n);
                        changed.insert(n, tid);
                    } else if let Some((n, tid)) = changed.clone().into_iter().choose(rng)
                        && rows.contains_key(&n)
                    {
                        let snapshot = txn.snapshot().unwrap();
                        heap::delete(engine.ctx(), &mut txn, &rel(), &snapshot, tid, heap::ChangeOptions::default()).unwrap();
                        state.remove(&n);
                        changed.remove(&n);
                    }
                }
                if rng.random_bool(0.15) {
                    txn.abort().unwrap();
                    continue;
                }
                let wait = txn.commit(CommitLevel::On).unwrap();
                rows = changed;
                model.states.push(state);
                if rng.random_bool(0.6) {
                    wait.wait().unwrap();
                    let last = model.states.pop().unwrap();
                    model.states = vec![last];
                    waits.clear();
                } else {
                    waits.push((model.states.len() - 1, wait));
                }
            }
        }
    }
}

fn check(engine: &Engine, model: &mut Model, what: &str) {
    let found: BTreeSet<u32> = rows(engine).into_keys().collect();
    assert!(
        model.states.contains(&found),
        "{what}: {} rows found, {} acknowledged, {} at the end",
        found.len(),
        model.states[0].len(),
        model.states.last().unwrap().len()
    );
    model.states = vec![found];
}

fn crashes(seed: u64, lives: u32) {
    let mut rng = StdRng::seed_from_u64(seed);
    let disk = SimDisk::new();
    let dir = Path::new("/data");
    create(&disk, dir);
    let mut model = Model { states: vec![BTreeSet::new()], next: 0 };
    for life in 0..lives {
        let engine = match Engine::open(dir, options(&disk)) {
            Ok(engine) => engine,
            Err(error) => panic!("seed {seed}, life {life}: {error}"),
        };
        check(&engine, &mut model, &format!("seed {seed}, life {life}"));
        live(&engine, &mut model, &mut rng);
        if rng.random_bool(0.1) {
            engine.shutdown(ShutdownMode::Fast).unwrap();
            let last = model.states.pop().unwrap();
            model.states = vec![last];
        }
        drop(engine);
        disk.crash(rng.random());
    }
}

#[test]
fn crashes_lose_nothing_that_was_acknowledged() {
    for seed in 0..40 {
        crashes(seed, 6);
    }
}

/// The long form: `SIMULATION_SEEDS=from..upto cargo test --release --lib simulation -- --ignored`.
#[test]
#[ignore = "long; see its comment"]
fn many_crashes_lose_nothing_that_was_acknowledged() {
    let range = std::env::var("SIMULATION_SEEDS").unwrap_or_else(|_| "1000..2000".to_owned());
    let (from, upto) = range.split_once("..").unwrap();
    for seed in from.parse::<u64>().unwrap()..upto.parse::<u64>().unwrap() {
        crashes(seed, 8);
    }
}
