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

/// A copy of all files, as a base backup is, taken while nobody writes.
fn clone_to(primary: &Engine, to: &SimDisk, dir: &Path) {
    fn copy(from: &dyn Disk, to: &dyn Disk, dir: &Path) {
        to.create_dir(dir).unwrap();
        for name in from.list(dir).unwrap() {
            let path = dir.join(name);
            match afterimage_wal::disk::read_all(from, &path) {
                Ok(bytes) => durable_replace(to, &path, &bytes).unwrap(),
                Err(_) if from.exists(&path).unwrap() => copy(from, to, &path),
                // A new segment got its name meanwhile.
                Err(_) => {}
            }
        }
    }
    let start = primary.backup_start(true).unwrap();
    let disk = to.shared();
    copy(primary.disk().as_ref(), disk.as_ref(), dir);
    let label = format!(
        "START WAL LOCATION: {} (file 000000010000000000000001)\nCHECKPOINT LOCATION: {}\nBACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIMELINE: 1\n",
        start.redo_lsn, start.checkpoint_lsn
    );
    durable_replace(disk.as_ref(), &dir.join("backup_label"), label.as_bytes()).unwrap();
    durable_replace(disk.as_ref(), &dir.join("standby.signal"), b"").unwrap();
    primary.backup_stop(&start).unwrap();
}

/// Ships durable WAL up to `upto`; waits for replay if asked.
fn ship(from: &Engine, to: &Engine, upto: Lsn, flush: bool) {
    let mut at = to.wal().received();
    let mut buf = vec![0; 10_000];
    while at < upto {
        let room = usize::try_from(upto.bytes_since(at).unwrap()).unwrap().min(buf.len());
        let n = from.wal().read_at(at, &mut buf[..room]).unwrap();
        to.wal().append_received(at, &buf[..n]).unwrap();
        at = at.advance(u64::try_from(n).unwrap());
    }
    if flush {
        to.wal().flush(to.wal().published()).unwrap();
        let mut replayed = to.subscribe_replayed();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(replayed.wait_for(|lsn| *lsn >= to.wal().published())).unwrap();
    }
}

/// The standby loses power again and again while the primary goes on; in the end it is promoted and must have everything.
fn standby_crashes(seed: u64, lives: u32) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (disk_a, disk_b) = (SimDisk::new(), SimDisk::new());
    let dir = Path::new("/data");
    create(&disk_a, dir);
    let mut model = Model { states: vec![BTreeSet::new()], next: 0 };
    let primary = Engine::open(dir, options(&disk_a)).unwrap();
    live(&primary, &mut model, &mut rng);
    clone_to(&primary, &disk_b, dir);
    let mut seen = Lsn::INVALID;
    for life in 0..lives {
        let standby = Engine::open(dir, options(&disk_b)).unwrap_or_else(|e| panic!("seed {seed}, life {life}: {e}"));
        for _ in 0..rng.random_range(1..4) {
            live(&primary, &mut model, &mut rng);
            primary.wal().flush(primary.wal().inserted()).unwrap();
            let last = model.states.pop().unwrap();
            model.states = vec![last];
            ship(&primary, &standby, primary.wal().flushed(), true);
            let found: BTreeSet<u32> = rows(&standby).into_keys().collect();
            assert_eq!(found, model.states[0], "seed {seed}, life {life}");
            if rng.random_bool(0.3) {
                let request = CheckpointRequest { immediate: true, force: true, ..CheckpointRequest::default() };
                standby.checkpoint(request).unwrap();
            }
            if rng.random_bool(0.3) {
                standby.pool().write_dirty(|_, _| {}).unwrap();
            }
        }
        seen = seen.max(standby.wal().flushed());
        if rng.random_bool(0.5) {
            // Received, not synced: may be gone after the crash, and must be asked for again.
            live(&primary, &mut model, &mut rng);
            primary.wal().flush(primary.wal().inserted()).unwrap();
            let last = model.states.pop().unwrap();
            model.states = vec![last];
            ship(&primary, &standby, primary.wal().flushed(), false);
        }
        if rng.random_bool(0.15) {
            standby.shutdown(ShutdownMode::Fast).unwrap();
        }
        drop(standby);
        disk_b.crash(rng.random());
    }
    let standby = Engine::open(dir, options(&disk_b)).unwrap();
    assert!(standby.wal().flushed() >= seen, "seed {seed}: synced WAL is gone");
    ship(&primary, &standby, primary.wal().flushed(), true);
    drop(primary);
    standby.promote().unwrap();
    check(&standby, &mut model, &format!("seed {seed}, promoted"));
    live(&standby, &mut model, &mut rng);
    drop(standby);
    disk_b.crash(rng.random());
    let again = Engine::open(dir, options(&disk_b)).unwrap();
    assert_eq!(again.wal().tli(), TimelineId::new(2));
    check(&again, &mut model, &format!("seed {seed}, promoted and crashed"));
}

#[test]
fn standby_crashes_lose_nothing_that_was_synced_there() {
    for seed in 0..12 {
        standby_crashes(seed, 4);
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
        standby_crashes(seed, 4);
    }
}
