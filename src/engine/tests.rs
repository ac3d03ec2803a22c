//! Crash, restart, standby and promotion of an engine in one process. A crash is a dropped engine: nothing is flushed or written.

use std::{collections::BTreeSet, fs, os::unix::fs::FileExt, sync::atomic::AtomicI32, time::Duration};

use afterimage_wal::{BlockNo, Fork, RelId};

use super::*;
use crate::{
    access::{RelHandle, heap},
    storage::page::PAGE_SIZE,
    txn::{CancelFlag, CommitLevel, Proc, ProcId, TransactionOptions},
};

const REL: RelId = RelId { spc: 1663, db: 5, rel: 16_384 };

fn small() -> EngineOptions {
    EngineOptions {
        pool: PoolOptions { buffers: 64 },
        checkpoint: CheckpointSettings { log: false, timeout: Duration::from_secs(3600), ..CheckpointSettings::default() },
        ..EngineOptions::default()
    }
}

fn create(dir: &Path) {
    let engine =
        Engine::create(dir, CreateOptions { segment_bytes: 1 << 20, pool: PoolOptions { buffers: 64 }, ..CreateOptions::default() })
            .unwrap();
    engine.pool().create_database_dir(5, 1663, Xid::INVALID).unwrap();
    engine.pool().create_fork(REL, Fork::Main).unwrap();
    engine.shutdown(ShutdownMode::Fast).unwrap();
}

fn open(dir: &Path) -> Arc<Engine> {
    Engine::open(dir, small()).unwrap()
}

fn session(engine: &Engine) -> Arc<Proc> {
    static NEXT: AtomicI32 = AtomicI32::new(1);
    engine.txns().enter(ProcId(NEXT.fetch_add(1, Ordering::Relaxed)), CancelFlag::new())
}

fn rel() -> RelHandle {
    RelHandle::permanent(16_384, REL)
}

/// Inserts rows `from..upto`, each of `bytes` bytes, and commits durably.
fn insert(engine: &Engine, from: u32, upto: u32, bytes: usize) {
    let proc = session(engine);
    let mut txn = engine.txns().begin(&proc, TransactionOptions::default());
    for n in from..upto {
        let mut row = n.to_le_bytes().to_vec();
        row.resize(bytes, u8::try_from(n % 251).unwrap());
        heap::insert(engine.ctx(), &mut txn, &rel(), &row).unwrap();
    }
    txn.commit(CommitLevel::On).unwrap().wait().unwrap();
}

fn rows(engine: &Engine) -> BTreeSet<u32> {
    let proc = session(engine);
    let mut txn = engine.txns().begin(&proc, TransactionOptions::default());
    let snapshot = txn.snapshot().unwrap();
    let mut scan = heap::HeapScan::new(engine.ctx(), &rel(), &snapshot).unwrap();
    let mut found = BTreeSet::new();
    while let Some((_, row)) = scan.next(engine.ctx()).unwrap() {
        let n = u32::from_le_bytes(*row.first_chunk().unwrap());
        assert!(row[4..].iter().all(|b| u32::from(*b) == n % 251), "row {n}");
        assert!(found.insert(n), "row {n} twice");
    }
    found
}

fn expect(upto: u32) -> BTreeSet<u32> {
    (0..upto).collect()
}

#[test]
fn clean_restart_keeps_rows() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path());
    let engine = open(dir.path());
    insert(&engine, 0, 100, 50);
    engine.shutdown(ShutdownMode::Fast).unwrap();
    drop(engine);
    let engine = open(dir.path());
    assert_eq!(rows(&engine), expect(100));
    assert_eq!(engine.node().get(), State::Primary);
}

#[test]
fn table_ten_times_the_pool_survives_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path());
    let engine = open(dir.path());
    // 64 buffers; 8 rows a page.
    for batch in 0..10 {
        insert(&engine, batch * 512, (batch + 1) * 512, 1000);
    }
    assert!(engine.pool().n_blocks(REL, Fork::Main).unwrap().get() >= 640);
    assert_eq!(rows(&engine), expect(5120));
    drop(engine);
    let engine = open(dir.path());
    assert_eq!(rows(&engine), expect(5120));
}

#[test]
fn uncommitted_rows_are_gone_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path());
    let engine = open(dir.path());
    insert(&engine, 0, 10, 50);
    let proc = session(&engine);
    let mut txn = engine.txns().begin(&proc, TransactionOptions::default());
    heap::insert(engine.ctx(), &mut txn, &rel(), &[77; 60]).unwrap();
    engine.wal().flush(engine.wal().inserted()).unwrap();
    std::mem::forget(txn);
    drop(engine);
    let engine = open(dir.path());
    assert_eq!(rows(&engine), expect(10));
}

#[test]
fn crash_after_checkpoint_redoes_only_what_follows() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path());
    let engine = open(dir.path());
    insert(&engine, 0, 500, 200);
    let before = engine.wal().inserted();
    engine.checkpoint(CheckpointRequest { immediate: true, force: true, ..CheckpointRequest::default() }).unwrap();
    assert!(engine.redo_lsn() >= before);
    insert(&engine, 500, 600, 200);
    drop(engine);
    let engine = open(dir.path());
    assert!(engine.redo_lsn() >= before);
    assert_eq!(rows(&engine), expect(600));
}

fn pages_of(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("base/5/16384")).unwrap()
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn replay_twice_is_replay_once() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path());
    let engine = open(dir.path());
    insert(&engine, 0, 300, 300);
    drop(engine);
    // Recover a copy, write its pages, and put back only the control file and WAL of before: redo runs again over newer pages.
    let (once, twice) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for target in [&once, &twice] {
        copy_dir(dir.path(), target.path());
        let engine = open(target.path());
        engine.pool().flush_all().unwrap();
    }
    let again = twice.path();
    fs::remove_dir_all(again.join("pg_wal")).unwrap();
    copy_dir(&dir.path().join("pg_wal"), &again.join("pg_wal"));
    fs::copy(dir.path().join("global/pg_control"), again.join("global/pg_control")).unwrap();
    let engine = open(again);
    engine.pool().flush_all().unwrap();
    assert_eq!(rows(&engine), expect(300));
    drop(engine);
    let (mut a, mut b) = (pages_of(once.path()), pages_of(again));
    assert_eq!(a.len(), b.len());
    for (a, b) in a.chunks_exact_mut(PAGE_SIZE).zip(b.chunks_exact_mut(PAGE_SIZE)) {
        let mask = |bytes: &mut [u8]| {
            let mut page = crate::storage::Page::zeroed();
            page.bytes_mut().copy_from_slice(bytes);
            heap::tuple::mask_page(&mut page);
            bytes.copy_from_slice(page.bytes());
        };
        mask(a);
        mask(b);
    }
    assert!(a == b, "pages differ after a second replay");
}

#[test]
fn torn_page_is_healed_from_the_double_write_area() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path());
    let engine = open(dir.path());
    insert(&engine, 0, 200, 400);
    engine.checkpoint(CheckpointRequest { immediate: true, force: true, ..CheckpointRequest::default() }).unwrap();
    // Changed after the checkpoint and written in place: only the area and the WAL since then can make it whole.
    insert(&engine, 200, 210, 400);
    engine.pool().flush_all().unwrap();
    drop(engine);
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("base/5/16384")).unwrap();
    file.write_all_at(&[0xAB; 4096], 3 * 8192 + 4096).unwrap();
    let engine = open(dir.path());
    assert_eq!(rows(&engine), expect(210));
}

#[test]
fn damaged_page_names_relation_fork_and_block() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path());
    let engine = open(dir.path());
    insert(&engine, 0, 200, 400);
    engine.shutdown(ShutdownMode::Fast).unwrap();
    drop(engine);
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("base/5/16384")).unwrap();
    file.write_all_at(&[0xAB; 1], 3 * 8192 + 5000).unwrap();
    let engine = open(dir.path());
    let error = engine.pool().read(REL, Fork::Main, BlockNo::new(3)).unwrap_err();
    assert_eq!(error.to_string(), "invalid page in block 3 of relation base/5/16384");
    let sql = crate::sqlstate::SqlError::from(error);
    assert_eq!(sql.state().0, "XX001");
    assert!(engine.pool().read(REL, Fork::Main, BlockNo::new(2)).is_ok());
}

#[test]
fn dropped_relation_is_unlinked_and_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path());
    let engine = open(dir.path());
    insert(&engine, 0, 100, 400);
    let proc = session(&engine);
    let mut txn = engine.txns().begin(&proc, TransactionOptions::default());
    txn.xid().unwrap();
    txn.drop_on_commit(REL);
    txn.commit(CommitLevel::On).unwrap().wait().unwrap();
    engine.checkpoint(CheckpointRequest { immediate: true, force: true, ..CheckpointRequest::default() }).unwrap();
    assert!(!dir.path().join("base/5/16384").exists());
    drop(engine);
    let engine = open(dir.path());
    assert!(!engine.files().exists(REL, Fork::Main).unwrap());
}

/// A base backup as a file copy: label, data, WAL.
fn clone_of(primary: &Engine, to: &Path) {
    // It has no slot.
    primary.add_wal_retention(Box::new(|| Some(Lsn::from_u64(1))));
    let start = primary.backup_start(true).unwrap();
    copy_dir(primary.data_dir(), to);
    let label = format!(
        "START WAL LOCATION: {} (file 000000010000000000000001)\nCHECKPOINT LOCATION: {}\nBACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIMELINE: {}\n",
        start.redo_lsn, start.checkpoint_lsn, start.tli
    );
    fs::write(to.join("backup_label"), label).unwrap();
    fs::write(to.join("standby.signal"), "").unwrap();
    primary.backup_stop(&start).unwrap();
}

/// What a receiver does: all durable WAL of `from` that `to` does not have.
fn ship(from: &Engine, to: &Engine) {
    let mut at = to.wal().received();
    let end = from.wal().flushed();
    let mut buf = vec![0; 100_000];
    while at < end {
        let room = usize::try_from(end.bytes_since(at).unwrap()).unwrap().min(buf.len());
        let n = from.wal().read_at(at, &mut buf[..room]).unwrap();
        assert!(n > 0);
        to.wal().append_received(at, &buf[..n]).unwrap();
        at = at.advance(n as u64);
    }
    to.wal().flush(to.wal().published()).unwrap();
    let mut replayed = to.subscribe_replayed();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(replayed.wait_for(|lsn| *lsn >= to.wal().published())).unwrap();
    // Replay tells its position before the node learns that it is consistent.
    to.node().wait_until(|state| state != State::StandbyRecovering);
}

#[test]
fn standby_follows_and_is_promoted() {
    let (p, s) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    create(p.path());
    let primary = open(p.path());
    insert(&primary, 0, 100, 300);
    clone_of(&primary, s.path());
    insert(&primary, 100, 200, 300);
    let standby = open(s.path());
    assert!(standby.is_in_recovery());
    ship(&primary, &standby);
    assert_eq!(standby.node().get(), State::HotStandby);
    assert_eq!(rows(&standby), expect(200));
    for batch in 2..8 {
        insert(&primary, batch * 100, (batch + 1) * 100, 300);
        ship(&primary, &standby);
        assert_eq!(rows(&standby), expect((batch + 1) * 100));
    }
    // A restart in the middle resumes from what is here.
    standby.shutdown(ShutdownMode::Fast).unwrap();
    drop(standby);
    let standby = open(s.path());
    insert(&primary, 800, 900, 300);
    ship(&primary, &standby);
    assert_eq!(rows(&standby), expect(900));
    // So does a crash.
    drop(standby);
    let standby = open(s.path());
    insert(&primary, 900, 1000, 300);
    ship(&primary, &standby);
    assert_eq!(rows(&standby), expect(1000));
    drop(primary);

    assert_eq!(standby.promote().unwrap(), TimelineId::new(2));
    assert_eq!(standby.node().get(), State::Primary);
    assert!(!s.path().join("standby.signal").exists());
    insert(&standby, 1000, 1100, 300);
    assert_eq!(rows(&standby), expect(1100));
    drop(standby);
    let again = open(s.path());
    assert_eq!(again.wal().tli(), TimelineId::new(2));
    assert_eq!(rows(&again), expect(1100));
    again.shutdown(ShutdownMode::Fast).unwrap();
    drop(again);
    let again = open(s.path());
    assert_eq!(again.wal().tli(), TimelineId::new(2));
    insert(&again, 1100, 1101, 300);
    assert_eq!(rows(&again), expect(1101));
    assert!(matches!(again.promote(), Err(EngineError::WrongState { .. })));
}

/// A standby whose redo begins before changes to blocks that are gone from its disk.
fn standby_at_a_restartpoint() -> (tempfile::TempDir, tempfile::TempDir, Arc<Engine>, Arc<Engine>) {
    let (p, s) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    create(p.path());
    let primary = open(p.path());
    insert(&primary, 0, 100, 400);
    clone_of(&primary, s.path());
    let standby = open(s.path());
    let now = CheckpointRequest { immediate: true, force: true, ..CheckpointRequest::default() };
    primary.checkpoint(now).unwrap();
    ship(&primary, &standby);
    standby.checkpoint(now).unwrap();
    insert(&primary, 100, 103, 400);
    ship(&primary, &standby);
    standby.pool().flush_all().unwrap();
    (p, s, primary, standby)
}

#[test]
fn standby_killed_after_replaying_a_truncation_starts_again() {
    let (_p, s, primary, standby) = standby_at_a_restartpoint();
    primary.pool().truncate(REL, Fork::Main, BlockNo::new(0), Lsn::INVALID).unwrap();
    ship(&primary, &standby);
    assert_eq!(standby.pool().n_blocks(REL, Fork::Main).unwrap(), BlockNo::new(0));
    drop(standby);
    let standby = open(s.path());
    insert(&primary, 0, 10, 400);
    ship(&primary, &standby);
    assert_eq!(standby.node().get(), State::HotStandby);
    assert_eq!(rows(&standby), expect(10));
}

#[test]
fn standby_killed_with_a_drop_pending_starts_again() {
    let (_p, s, primary, standby) = standby_at_a_restartpoint();
    // Holds the file back, so that the restartpoint finds it pending.
    let reader = session(&standby);
    let mut reading = standby.txns().begin(&reader, TransactionOptions::default());
    let snapshot = reading.snapshot().unwrap();
    let proc = session(&primary);
    let mut txn = primary.txns().begin(&proc, TransactionOptions::default());
    txn.xid().unwrap();
    txn.drop_on_commit(REL);
    txn.commit(CommitLevel::On).unwrap().wait().unwrap();
    ship(&primary, &standby);
    standby.checkpoint(CheckpointRequest { immediate: true, force: true, ..CheckpointRequest::default() }).unwrap();
    assert!(s.path().join("base/5/16384").exists());
    drop((snapshot, reading));
    drop(standby);
    let standby = open(s.path());
    ship(&primary, &standby);
    assert_eq!(standby.node().get(), State::HotStandby);
    standby.checkpoint(CheckpointRequest { immediate: true, force: true, ..CheckpointRequest::default() }).unwrap();
    assert!(!s.path().join("base/5/16384").exists());
}

fn delete_all_and_vacuum(engine: &Engine) {
    let proc = session(engine);
    let mut txn = engine.txns().begin(&proc, TransactionOptions::default());
    let snapshot = txn.snapshot().unwrap();
    let mut tids = Vec::new();
    let mut scan = heap::HeapScan::new(engine.ctx(), &rel(), &snapshot).unwrap();
    while let Some((tid, _)) = scan.next(engine.ctx()).unwrap() {
        tids.push(tid);
    }
    for tid in tids {
        heap::delete(engine.ctx(), &mut txn, &rel(), &snapshot, tid, heap::ChangeOptions::default()).unwrap();
    }
    drop((scan, snapshot));
    txn.commit(CommitLevel::On).unwrap().wait().unwrap();
    let txn = engine.txns().begin(&proc, TransactionOptions::default());
    let no_index = |_: &heap::DeadTids| Ok::<(), crate::access::AccessError>(());
    let stats = heap::vacuum(engine.ctx(), &txn, &rel(), heap::VacuumOptions::default(), no_index).unwrap();
    assert!(stats.removed > 0);
    engine.wal().flush(engine.wal().inserted()).unwrap();
}

#[test]
fn replay_waits_for_old_snapshots_then_cancels_them() {
    for patient in [true, false] {
        let (p, s) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        create(p.path());
        let primary = open(p.path());
        insert(&primary, 0, 100, 300);
        clone_of(&primary, s.path());
        let standby = open(s.path());
        ship(&primary, &standby);
        let delay = if patient { None } else { Some(Duration::ZERO) };
        standby.replay().unwrap().set_settings(ReplaySettings { streaming_delay: delay, ..ReplaySettings::default() });
        let proc = session(&standby);
        let mut txn = standby.txns().begin(&proc, TransactionOptions::default());
        let snapshot = txn.snapshot().unwrap();
        delete_all_and_vacuum(&primary);
        std::thread::scope(|threads| {
            let shipping = threads.spawn(|| ship(&primary, &standby));
            if patient {
                let mut scan = heap::HeapScan::new(standby.ctx(), &rel(), &snapshot).unwrap();
                let mut seen = 0;
                while scan.next(standby.ctx()).unwrap().is_some() {
                    seen += 1;
                }
                assert_eq!(seen, 100);
                assert!(txn.check_cancel().is_ok());
            } else {
                while txn.check_cancel().is_ok() {
                    std::thread::yield_now();
                }
            }
            drop((snapshot, txn));
            shipping.join().unwrap();
        });
        assert!(rows(&standby).is_empty());
    }
}

#[test]
fn second_standby_follows_the_new_timeline_without_restart() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    create(dirs[0].path());
    let a = open(dirs[0].path());
    insert(&a, 0, 50, 300);
    clone_of(&a, dirs[1].path());
    clone_of(&a, dirs[2].path());
    let (b, c) = (open(dirs[1].path()), open(dirs[2].path()));
    insert(&a, 50, 100, 300);
    ship(&a, &b);
    ship(&a, &c);
    drop(a);
    let tli = b.promote().unwrap();
    let history = (*b.history()).clone();
    let fork = history.ancestors().last().unwrap().switch_lsn;
    history.write(c.disk().as_ref(), &dirs[2].path().join("pg_wal")).unwrap();
    c.follow_timeline(history, fork).unwrap();
    insert(&b, 100, 300, 300);
    ship(&b, &c);
    assert_eq!(c.wal().tli(), tli);
    assert_eq!(rows(&c), expect(300));
    drop(c);
    let c = open(dirs[2].path());
    insert(&b, 300, 310, 300);
    ship(&b, &c);
    assert_eq!(rows(&c), expect(310));
    drop(b);
    assert_eq!(c.promote().unwrap(), TimelineId::new(3));
    insert(&c, 310, 320, 300);
    assert_eq!(rows(&c), expect(320));
}

/// The steps of a promotion, cut after each: either the old standby or the new primary comes up.
#[test]
fn promotion_cut_at_any_step_leaves_standby_or_primary() {
    let (p, s) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    create(p.path());
    let primary = open(p.path());
    insert(&primary, 0, 20, 300);
    clone_of(&primary, s.path());
    let standby = open(s.path());
    insert(&primary, 20, 40, 300);
    ship(&primary, &standby);
    let end = standby.wal().flushed();
    drop(standby);
    let to = TimelineId::new(2);
    let disk = RealDisk::shared();
    for step in 0..5 {
        let t = tempfile::tempdir().unwrap();
        copy_dir(s.path(), t.path());
        let wal_dir = t.path().join("pg_wal");
        if step >= 1 {
            Promotion { from: TimelineId::FIRST, to, at: end }.write(disk.as_ref(), t.path()).unwrap();
        }
        if step >= 2 {
            History::first().child(to, end, "test", StartId::NONE).write(disk.as_ref(), &wal_dir).unwrap();
        }
        if step >= 3 {
            let name = |tli| afterimage_wal::segment::file_name(tli, afterimage_wal::SegNo::of_end(end, 1 << 20), 1 << 20);
            fs::copy(wal_dir.join(name(TimelineId::FIRST)), wal_dir.join(name(to))).unwrap();
        }
        if step >= 4 {
            fs::remove_file(t.path().join("standby.signal")).unwrap();
        }
        let engine = open(t.path());
        if step < 4 {
            assert!(engine.is_in_recovery(), "step {step}");
            assert!(!wal_dir.join("00000002.history").exists());
            insert(&primary, 40 + step * 10, 50 + step * 10, 300);
            ship(&primary, &engine);
            assert_eq!(rows(&engine), expect(50 + step * 10));
            assert_eq!(engine.promote().unwrap(), to);
        } else {
            assert_eq!(engine.node().get(), State::Primary);
            assert_eq!(engine.wal().tli(), to);
            assert_eq!(rows(&engine), expect(40));
        }
        insert(&engine, 1000, 1001, 300);
        drop(engine);
        let engine = open(t.path());
        assert_eq!(engine.wal().tli(), to);
        assert!(rows(&engine).contains(&1000));
    }
}

#[test]
fn wal_that_was_durable_and_is_damaged_refuses_the_start() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path());
    let engine = open(dir.path());
    insert(&engine, 0, 100, 300);
    let middle = engine.wal().inserted();
    insert(&engine, 100, 200, 300);
    drop(engine);
    let segno = middle.as_u64() >> 20;
    let path = dir.path().join(format!("pg_wal/00000001{:08X}{:08X}", segno >> 12, segno & 0xfff));
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let at = middle.as_u64() % (1 << 20) + 40;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    let error = Engine::open(dir.path(), small()).unwrap_err();
    assert!(error.to_string().contains("WAL is damaged"), "{error}");
    assert!(error.to_string().contains(&middle.to_string()), "{error}");
}
