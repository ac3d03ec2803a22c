//! The engine on a disk in memory that loses, keeps or tears what was not synced, and fails when told.
//!
//! `load` has the load and what must be found after it. A failing seed is printed, and becomes a named test.
//! The long forms: `SIMULATION_SEEDS=from..upto cargo test --release --lib simulation -- --ignored`.

mod load;
mod sites;

use std::{
    ops::Range,
    sync::mpsc,
    time::{Duration, Instant},
};

use afterimage_wal::{
    disk::SimDisk,
    lineage::{Claim, Shared},
};
use load::{Model, check, create_tables, live, same_pages};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;
use crate::storage::critical::simulated;

const POOL: PoolOptions = PoolOptions { buffers: 64 };
const AREA_SLOTS: usize = 8;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn options(disk: &SimDisk) -> EngineOptions {
    EngineOptions {
        pool: POOL,
        area_slots: AREA_SLOTS,
        disk: disk.for_this_life(),
        checkpoint: CheckpointSettings { log: false, timeout: Duration::from_secs(3600), ..CheckpointSettings::default() },
        ..EngineOptions::default()
    }
}

fn create(disk: &SimDisk, dir: &Path) {
    let create = CreateOptions { segment_bytes: 1 << 20, pool: POOL, area_slots: AREA_SLOTS, disk: disk.shared() };
    let engine = Engine::create(dir, create).unwrap();
    create_tables(&engine);
    engine.shutdown(ShutdownMode::Fast).unwrap();
}

fn forced() -> CheckpointRequest {
    CheckpointRequest { immediate: true, force: true, ..CheckpointRequest::default() }
}

/// The records of a directory's WAL that could be read, with `SIMULATION_TRACE` set: what a failing seed did.
fn trace(disk: &SimDisk, dir: &Path) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    if std::env::var_os("SIMULATION_TRACE").is_none() {
        return out;
    }
    let control = ControlStore::open(disk.shared(), dir).unwrap().get();
    let from = control.checkpoint_copy.redo;
    writeln!(out, "\nredo from {from}, checkpoint {}, minimum recovery {}", control.checkpoint, control.min_recovery_point).unwrap();
    let files = Files::new(disk.shared(), dir);
    for path in disk.files().iter().filter(|p| p.starts_with(dir.join("base/5"))) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Ok(rel) = name.parse() else { continue };
        let rel = afterimage_wal::RelId { spc: 1663, db: 5, rel };
        for block in (0..files.n_blocks(rel, afterimage_wal::Fork::Main).unwrap().get()).map(afterimage_wal::BlockNo::new) {
            let mut page = crate::storage::Page::zeroed();
            let tag = crate::storage::PageTag { rel, fork: afterimage_wal::Fork::Main, block };
            let bytes = files.read_raw(tag, &mut page).unwrap();
            let sound = page.verifies(rel, tag.fork, block);
            writeln!(out, "{name} block {block}: {bytes} bytes, {page:?}, verifies {sound}, zero {}", page.is_zero()).unwrap();
        }
    }
    let wal = dir.join("pg_wal");
    let mut reader = WalReader::open(disk.shared(), &wal, control.system_id, control.segment_bytes, History::first(), from);
    while let Ok(Some(record)) = reader.next() {
        write!(out, "{}..{} xid {} {}/{:#04x}", record.start(), record.end(), record.xid(), record.rmgr(), record.kind()).unwrap();
        for i in 0.. {
            let Some(block) = record.block(i) else { break };
            let init = if block.is_fpi() || block.will_init() { " init" } else { "" };
            write!(out, "; {}/{} block {}{init}", block.rel.rel, block.fork.as_u8(), block.block).unwrap();
        }
        out.push('\n');
    }
    out
}

/// Power cuts between the lives of a node and, more often, at any call a life makes: in recovery, in a checkpoint, in a vacuum. Returns
/// how many there were.
fn crashes(seed: u64, lives: u32) -> u32 {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut disk = SimDisk::new();
    let dir = Path::new("/data");
    create(&disk, dir);
    let mut model = Model::new();
    for life in 0..lives {
        let what = format!("seed {seed}, life {life}");
        // What was possible at the moment of the cut.
        let at_cut = Arc::new(Mutex::new(None));
        let reach: u64 = *[40, 150, 600, 3000].get(rng.random_range(0..5)).unwrap_or(&0);
        if reach > 0 {
            let (model, at_cut) = (Arc::clone(&model), Arc::clone(&at_cut));
            let call = disk.calls() + rng.random_range(1..reach);
            disk.freeze_at(call, move || *at_cut.lock() = Some(model.lock().clone()));
        }
        let before = disk.copy();
        let engine = Engine::open(dir, options(&disk)).unwrap_or_else(|e| panic!("{what}: {e}{}", trace(&before, dir)));
        check(&engine, &model, &what);
        live(&engine, &model, &mut rng, false);
        if rng.random_bool(0.1) {
            engine.shutdown(ShutdownMode::Fast).unwrap();
            model.lock().acknowledge();
        }
        drop(engine);
        if let Some(image) = disk.take_frozen() {
            disk = image;
            let then = at_cut.lock().take().expect("told when the copy was taken");
            model = Arc::new(Mutex::new(then));
        }
        disk.crash(rng.random());
    }
    let engine = Engine::open(dir, options(&disk)).unwrap_or_else(|e| panic!("seed {seed}, at the end: {e}"));
    check(&engine, &model, &format!("seed {seed}, at the end"));
    lives
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
    // The standby is away now and then, and has no slot.
    primary.add_wal_retention(Box::new(|| Some(Lsn::from_u64(1))));
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

/// What a standby does when its upstream started anew: asks where their WAL parts, and discards what the upstream no longer has. True if it had to.
fn reconnect(primary: &Engine, standby: &Engine, what: &str) -> bool {
    let wal_dir = primary.data_dir().join("pg_wal");
    let (theirs, ours) = (primary.history(), standby.history());
    // A checkpoint may be under way, and a simulated file shows nothing of its map that was not synced.
    primary.wal().flush(primary.wal().inserted()).unwrap();
    let upto = primary.wal().flushed();
    let mut end = standby.wal().end();
    loop {
        let claim = Claim { end: end.end, start_id: end.start_id, last_crc: end.last_crc };
        let common = match primary.lineage(&theirs, &wal_dir).compare(&claim, upto).unwrap() {
            Shared::All if end.end == standby.wal().published() => return false,
            Shared::All => end.end,
            Shared::UpTo(common) => common,
            // Of the start that wrote it nothing at all is left.
            Shared::Foreign => {
                let bound = standby.wal().held_from().filter(|bound| *bound < end.end).unwrap_or_else(|| panic!("{what}: foreign"));
                end = standby.lineage(&ours, &wal_dir).end_at(bound).unwrap();
                continue;
            }
            other @ (Shared::Ahead | Shared::Unknown) => panic!("{what}: {other:?}"),
        };
        assert!(standby.discard_wal_after(common).unwrap(), "{what}: WAL that the primary lost was replayed");
        return true;
    }
}

/// Ships WAL up to `published`, of which the primary has made `flushed` durable; waits for replay to do what it may, and no more.
fn ship_ahead(from: &Engine, to: &Engine, (flushed, published): (Lsn, Lsn), what: &str) {
    to.receive_ahead().unwrap();
    ship(from, to, published, false);
    to.wal().flush(to.wal().published()).unwrap();
    to.wal().confirm(flushed).unwrap();
    let may = to.wal().confirmed();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(to.subscribe_replayed().wait_for(|lsn| *lsn >= may)).unwrap();
    assert!(to.replayed_lsn() <= flushed, "{what}: replayed {} of {flushed}", to.replayed_lsn());
}

/// The primary ships WAL before it has synced it, and loses power, now and then together with the standby. What it lost the standby discards, what
/// it kept is confirmed; in the end the standby, with a tail that was never confirmed, is promoted and has all of it. Returns how often WAL was lost.
fn primary_cuts(seed: u64, lives: u32) -> u32 {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut disk_a, disk_b) = (SimDisk::new(), SimDisk::new());
    let dir = Path::new("/data");
    create(&disk_a, dir);
    let mut model = Model::new();
    let open = |disk: &SimDisk, what: &str| {
        let options = EngineOptions { hold_wal: true, ..options(disk) };
        let primary = Engine::open(dir, options).unwrap_or_else(|e| panic!("{what}: {e}"));
        primary.add_wal_retention(Box::new(|| Some(Lsn::from_u64(1))));
        primary
    };
    let mut primary = open(&disk_a, "at first");
    live(&primary, &model, &mut rng, false);
    clone_to(&primary, &disk_b, dir);
    let mut standby = Engine::open(dir, options(&disk_b)).unwrap();
    let mut lost = 0;
    for life in 0..lives {
        let what = format!("seed {seed}, life {life}");
        let at_cut = Arc::new(Mutex::new(None));
        let reach: u64 = [20, 60, 200, 600][rng.random_range(0..4)];
        {
            // Weak: the disk drops this under its lock, and the WAL's threads need the disk to end.
            let (model, at_cut, wal) = (Arc::clone(&model), Arc::clone(&at_cut), Arc::downgrade(primary.wal()));
            let call = disk_a.calls() + rng.random_range(1..reach);
            disk_a.freeze_at(call, move || {
                if let Some(wal) = wal.upgrade() {
                    *at_cut.lock() = Some((model.lock().clone(), (wal.flushed(), wal.published())));
                }
            });
        }
        live(&primary, &model, &mut rng, false);
        if rng.random_bool(0.2) {
            primary.shutdown(ShutdownMode::Fast).unwrap();
        }
        let then = at_cut.lock().take();
        let positions = then.as_ref().map_or_else(|| (primary.wal().flushed(), primary.wal().published()), |(_, positions)| *positions);
        ship_ahead(&primary, &standby, positions, &what);
        let image = disk_a.take_frozen();
        drop(primary);
        if let (Some(image), Some((at_cut, _))) = (image, then) {
            disk_a = image;
            model = Arc::new(Mutex::new(at_cut));
        }
        disk_a.crash(rng.random());
        if rng.random_bool(0.4) {
            drop(standby);
            disk_b.crash(rng.random());
            standby = Engine::open(dir, options(&disk_b)).unwrap_or_else(|e| panic!("{what}, standby: {e}"));
            assert!(standby.wal().confirmed() <= positions.0, "{what}: {} of {positions:?}", standby.wal().confirmed());
        }
        primary = open(&disk_a, &what);
        check(&primary, &model, &what);
        lost += u32::from(reconnect(&primary, &standby, &what));
        primary.wal().flush(primary.wal().inserted()).unwrap();
        ship_ahead(&primary, &standby, (primary.wal().flushed(), primary.wal().published()), &what);
        check(&standby, &model, &what);
        same_pages(&primary, &standby, &what);
    }
    let what = format!("seed {seed}, at the end");
    let durable = primary.wal().flushed();
    live(&primary, &model, &mut rng, false);
    primary.wal().flush(primary.wal().inserted()).unwrap();
    // Acknowledged, since both have it; only the standby was never told so.
    model.lock().acknowledge();
    ship_ahead(&primary, &standby, (durable, primary.wal().published()), &what);
    drop(primary);
    if rng.random_bool(0.5) {
        drop(standby);
        disk_b.crash(rng.random());
        standby = Engine::open(dir, options(&disk_b)).unwrap();
    }
    standby.promote().unwrap();
    check(&standby, &model, &what);
    live(&standby, &model, &mut rng, false);
    drop(standby);
    disk_b.crash(rng.random());
    check(&Engine::open(dir, options(&disk_b)).unwrap(), &model, &what);
    lost
}

/// The standby loses power again and again while the primary goes on; in the end it is promoted and must have everything. Whenever it
/// has caught up its pages are the primary's.
fn standby_crashes(seed: u64, lives: u32) -> u32 {
    let mut rng = StdRng::seed_from_u64(seed);
    let (disk_a, disk_b) = (SimDisk::new(), SimDisk::new());
    let dir = Path::new("/data");
    create(&disk_a, dir);
    let model = Model::new();
    let primary = Engine::open(dir, options(&disk_a)).unwrap();
    live(&primary, &model, &mut rng, false);
    clone_to(&primary, &disk_b, dir);
    let mut seen = Lsn::INVALID;
    let more = |rng: &mut StdRng| {
        live(&primary, &model, rng, false);
        primary.wal().flush(primary.wal().inserted()).unwrap();
        model.lock().acknowledge();
    };
    for life in 0..lives {
        let what = format!("seed {seed}, life {life}");
        let standby = Engine::open(dir, options(&disk_b)).unwrap_or_else(|e| panic!("{what}: {e}"));
        for _ in 0..rng.random_range(1..4) {
            more(&mut rng);
            ship(&primary, &standby, primary.wal().flushed(), true);
            check(&standby, &model, &what);
            if rng.random_bool(0.5) {
                same_pages(&primary, &standby, &what);
            }
            if rng.random_bool(0.3) {
                standby.checkpoint(forced()).unwrap();
            }
            if rng.random_bool(0.3) {
                standby.pool().write_dirty(|_, _| {}).unwrap();
            }
        }
        seen = seen.max(standby.wal().flushed());
        if rng.random_bool(0.5) {
            // Received, not synced: may be gone after the crash, and must be asked for again.
            more(&mut rng);
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
    check(&standby, &model, &format!("seed {seed}, promoted"));
    live(&standby, &model, &mut rng, false);
    drop(standby);
    disk_b.crash(rng.random());
    let again = Engine::open(dir, options(&disk_b)).unwrap();
    assert_eq!(again.wal().tli(), TimelineId::new(2));
    check(&again, &model, &format!("seed {seed}, promoted and crashed"));
    lives + 1
}

/// The power is cut before each call that a promotion makes of the disk: the standby comes up as it was and can be promoted again, or the new
/// primary does. Returns how often it was either.
fn promotion_cuts(seed: u64) -> (u32, u32) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (disk_a, disk_b) = (SimDisk::new(), SimDisk::new());
    let dir = Path::new("/data");
    create(&disk_a, dir);
    let model = Model::new();
    let primary = Engine::open(dir, options(&disk_a)).unwrap();
    primary.add_wal_retention(Box::new(|| Some(Lsn::INVALID)));
    live(&primary, &model, &mut rng, false);
    clone_to(&primary, &disk_b, dir);
    let standby = Engine::open(dir, options(&disk_b)).unwrap();
    live(&primary, &model, &mut rng, false);
    primary.wal().flush(primary.wal().inserted()).unwrap();
    model.lock().acknowledge();
    ship(&primary, &standby, primary.wal().flushed(), true);
    drop((standby, primary));
    disk_b.crash(seed);
    let (mut standbys, mut primaries) = (0, 0);
    for call in 1.. {
        let what = format!("seed {seed}, call {call}");
        let disk = disk_b.copy();
        let standby = Engine::open(dir, options(&disk)).unwrap();
        let before = disk.calls();
        disk.freeze_at(before + call, || {});
        standby.promote().unwrap();
        let calls = disk.calls() - before;
        drop(standby);
        if calls < call {
            return (standbys, primaries);
        }
        let cut = disk.take_frozen().expect("the call was made");
        cut.crash(rng.random());
        let again = Engine::open(dir, options(&cut)).unwrap_or_else(|e| panic!("{what}: {e}"));
        if again.is_in_recovery() {
            standbys += 1;
            again.promote().unwrap();
        } else {
            primaries += 1;
        }
        assert_eq!(again.wal().tli(), TimelineId::new(2), "{what}");
        check(&again, &model, &what);
        let copy = model.lock().clone();
        let model = Arc::new(Mutex::new(copy));
        live(&again, &model, &mut rng, false);
        drop(again);
        cut.crash(rng.random());
        let at_last = Engine::open(dir, options(&cut)).unwrap_or_else(|e| panic!("{what}, again: {e}"));
        check(&at_last, &model, &what);
    }
    (standbys, primaries)
}

/// How a life with a failing call ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// The call was never made, or its failure was absorbed.
    Well,
    /// Statements failed, the node lived: SQLSTATE and message of each.
    Statements(Vec<(String, String)>),
    /// The start was refused.
    Refused(String),
    /// The node stopped itself.
    Stopped(String),
}

/// One life in a thread of its own whose n-th call fails; if the node stops itself the thread is left where it is.
fn life_with_failing_call(disk: &SimDisk, dir: &Path, model: &Arc<Mutex<Model>>, seed: u64, call: u64, errno: i32) -> Ended {
    let (tell, told) = mpsc::channel();
    let on_stop = tell.clone();
    let (dying, life) = (disk.clone(), disk.life());
    simulated::on_stop(Box::new(move |why| {
        // Nothing of this life reaches the disk any more, as after an abort.
        dying.cut(life);
        // The test may have moved on already.
        drop(on_stop.send(Ended::Stopped(why.to_owned())));
    }));
    disk.fail_call(disk.calls() + call, errno);
    // Of this life, however late the thread begins: were it over by then, the two would share the disk of the next.
    let (of_this_life, dir, model) = (options(disk), dir.to_owned(), Arc::clone(model));
    std::thread::spawn(move || {
        let ended = match Engine::open(&dir, of_this_life) {
            Err(error) => Ended::Refused(error.to_string()),
            Ok(engine) => {
                let failed = live(&engine, &model, &mut StdRng::seed_from_u64(seed), true);
                drop(engine);
                let failed: Vec<_> = failed.iter().map(|e| (e.fields().state.to_string(), e.to_string())).collect();
                if failed.is_empty() { Ended::Well } else { Ended::Statements(failed) }
            }
        };
        drop(tell.send(ended));
    });
    told.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("seed {seed}, call {call}, errno {errno}: the life hangs"))
}

/// Each of these calls of one life fails once: nothing acknowledged is lost, whatever the node made of it.
fn failing_calls(seed: u64, calls: impl Iterator<Item = u64>) -> (u32, u32, u32, u32) {
    let dir = Path::new("/data");
    let (mut well, mut statements, mut refused, mut stopped) = (0, 0, 0, 0);
    for call in calls {
        for errno in [EIO, ENOSPC] {
            let what = format!("seed {seed}, call {call}, errno {errno}");
            let disk = SimDisk::new();
            create(&disk, dir);
            let model = Model::new();
            // A life before it, so that there is something to recover.
            let engine = Engine::open(dir, options(&disk)).unwrap();
            live(&engine, &model, &mut StdRng::seed_from_u64(seed), false);
            drop(engine);
            disk.crash(seed);
            let before = disk.calls();
            match life_with_failing_call(&disk, dir, &model, seed + 1, call, errno) {
                Ended::Well => well += 1,
                Ended::Statements(_) => statements += 1,
                Ended::Refused(_) => refused += 1,
                Ended::Stopped(_) => stopped += 1,
            }
            let made = disk.calls() - before;
            disk.crash(seed + call);
            let engine = Engine::open(dir, options(&disk)).unwrap_or_else(|e| panic!("{what}: {e}"));
            check(&engine, &model, &what);
            drop(engine);
            disk.wipe();
            if made < call {
                return (well, statements, refused, stopped);
            }
        }
    }
    (well, statements, refused, stopped)
}

fn seeds(default: Range<u64>) -> Range<u64> {
    let Ok(range) = std::env::var("SIMULATION_SEEDS") else { return default };
    let (from, upto) = range.split_once("..").expect("SIMULATION_SEEDS=from..upto");
    from.parse().expect("a number")..upto.parse().expect("a number")
}

fn report(began: Instant, crashes: u32) {
    println!("{crashes} power cuts in {:?}, nothing lost", began.elapsed());
}

#[test]
fn standby_crashes_lose_nothing_that_was_synced_there() {
    let began = Instant::now();
    report(began, seeds(0..20).map(|seed| standby_crashes(seed, 4)).sum());
}

#[test]
fn what_a_primary_shipped_and_lost_is_never_replayed() {
    let lost: u32 = seeds(0..12).map(|seed| primary_cuts(seed, 6)).sum();
    println!("WAL was lost behind a standby {lost} times");
    assert!(lost > 5, "{lost}");
}

#[test]
fn a_promotion_cut_at_any_call_leaves_the_standby_or_the_new_primary() {
    let (standbys, primaries) = promotion_cuts(3);
    println!("{standbys} cuts left the standby, {primaries} the new primary");
    assert!(standbys > 10 && primaries > 2, "{standbys} standbys, {primaries} primaries");
}

#[test]
fn crashes_lose_nothing_that_was_acknowledged() {
    let began = Instant::now();
    report(began, seeds(0..60).map(|seed| crashes(seed, 8)).sum());
}

#[test]
fn failing_call_loses_nothing_that_was_acknowledged() {
    let ends = failing_calls(7, (1..2000).step_by(23));
    println!("{ends:?} lives ended well, with failed statements, refused, stopped");
    assert!(ends.1 > 0 && ends.2 > 0 && ends.3 > 0, "{ends:?}");
}

#[test]
fn every_call_site_that_fails_loses_nothing_that_was_acknowledged() {
    let began = Instant::now();
    let (all, met) = sites::fail_each(&seeds(2..4), 1);
    println!("{met} of {all} failures in {:?}, nothing lost", began.elapsed());
    assert!(met > 100 && met * 4 > all * 3, "{met} of {all}");
}

#[test]
#[ignore = "long; see the module"]
fn every_way_to_a_call_site_that_fails_loses_nothing_that_was_acknowledged() {
    let began = Instant::now();
    let (all, met) = sites::fail_each(&seeds(2..8), 4);
    println!("{met} of {all} failures in {:?}, nothing lost", began.elapsed());
}

#[test]
#[ignore = "long; see the module"]
fn many_crashes_lose_nothing_that_was_acknowledged() {
    let began = Instant::now();
    let mut cuts = 0;
    for seed in seeds(1000..1500) {
        cuts += crashes(seed, 10) + standby_crashes(seed, 4);
        primary_cuts(seed, 6);
    }
    report(began, cuts);
}

#[test]
#[ignore = "long; see the module"]
fn every_failing_call_loses_nothing_that_was_acknowledged() {
    for seed in seeds(7..8) {
        println!("seed {seed}: {:?} lives ended well, with failed statements, refused, stopped", failing_calls(seed, 1..));
    }
}
