//! Visibility, HOT, waiting, savepoints, levels; and that a replica's pages are equal.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use afterimage_wal::disk::RealDisk;
use afterimage_wal::reader::FollowLimit;
use afterimage_wal::{BlockNo, Fork, Lsn, RelId, SystemId, Wal, WalOptions, WalReader, Xid, rmgr};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::tuple::mask_page;
use super::*;
use crate::access::btree::tests::TestScratch;
use crate::access::sequence::{self, SequenceOptions, SequenceState};
use crate::access::{AccessCtx, AccessError, Persistence, RelHandle, Tid, btree};
use crate::storage::double_write::DoubleWrite;
use crate::storage::{BufferPool, Files, LinePointer, PoolOptions, smgr_redo};
use crate::txn::transactions::TransactionsStart;
use crate::txn::{
    CancelFlag, CancelReason, CommitLevel, Isolation, Proc, ProcId, RowLockMode, Snapshot, SyncPositions, Transaction, TransactionOptions,
    Transactions, TxnError, WaitPolicy,
};

struct TestNode {
    dir: tempfile::TempDir,
    ctx: AccessCtx,
    start: Lsn,
    next_proc: AtomicI32,
}

const REL: RelHandle = RelHandle { oid: 20_000, file: RelId::new(1663, 5, 20_000), persistence: Persistence::Permanent, reserve: 0 };
const SEQ: RelHandle = RelHandle { oid: 20_001, file: RelId::new(1663, 5, 20_001), persistence: Persistence::Permanent, reserve: 0 };

fn empty_node() -> TestNode {
    node_of(1024)
}

fn node_of(buffers: usize) -> TestNode {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::shared();
    for sub in ["pg_wal", "pg_xact", "base/5", "global"] {
        std::fs::create_dir_all(dir.path().join(sub)).unwrap();
    }
    let system = SystemId::new(7);
    let options = WalOptions { segment_bytes: 1 << 20, ..WalOptions::default() };
    let wal = Wal::create(Arc::clone(&disk), &dir.path().join("pg_wal"), system, options).unwrap();
    let files = Arc::new(Files::new(Arc::clone(&disk), dir.path()));
    let area = DoubleWrite::open_sized(&*disk, dir.path(), system, 64).unwrap();
    let pool = Arc::new(BufferPool::new(&PoolOptions { buffers }, files, Arc::clone(&wal), area));
    let start = wal.inserted();
    let txns = transactions(&dir, &wal);
    TestNode { dir, ctx: AccessCtx::new(pool, txns), start, next_proc: AtomicI32::new(1) }
}

fn transactions(dir: &tempfile::TempDir, wal: &Arc<Wal>) -> Arc<Transactions> {
    Transactions::new(TransactionsStart {
        dir: dir.path().join("pg_xact"),
        disk: RealDisk::shared(),
        position: wal.inserted(),
        wal: Arc::clone(wal),
        next_xid: Xid::FIRST_NORMAL,
        oldest_xid: Xid::FIRST_NORMAL,
    })
}

fn node() -> TestNode {
    let n = empty_node();
    n.ctx.txns.end_recovery(n.start);
    n.ctx.pool.create_fork(REL.file, Fork::Main).unwrap();
    n.ctx.pool.create_fork(SEQ.file, Fork::Main).unwrap();
    n
}

impl TestNode {
    fn session(&self) -> Arc<Proc> {
        let p = self.ctx.txns.enter(ProcId(self.next_proc.fetch_add(1, Ordering::Relaxed)), CancelFlag::new());
        p.set_lock_timeouts(Duration::from_millis(100), None);
        p
    }

    fn begin(&self, p: &Arc<Proc>) -> Transaction {
        self.ctx.txns.begin(p, TransactionOptions::default())
    }

    fn begin_rr(&self, p: &Arc<Proc>) -> Transaction {
        let isolation = Isolation::RepeatableRead;
        self.ctx.txns.begin(p, TransactionOptions { isolation, ..TransactionOptions::default() })
    }

    fn put(&self, t: &mut Transaction, row: &str) -> Tid {
        let tid = insert(&self.ctx, t, &REL, row.as_bytes()).unwrap();
        t.command_counter_increment().unwrap();
        tid
    }

    fn change(&self, t: &mut Transaction, tid: Tid, row: &str, hot_ok: bool) -> ChangeResult {
        let s = t.snapshot().unwrap();
        let o = UpdateOptions { hot_ok, ..UpdateOptions::default() };
        let r = update(&self.ctx, t, &REL, &s, tid, row.as_bytes(), o).unwrap();
        t.command_counter_increment().unwrap();
        r
    }

    fn remove(&self, t: &mut Transaction, tid: Tid) -> ChangeResult {
        let s = t.snapshot().unwrap();
        let r = delete(&self.ctx, t, &REL, &s, tid, ChangeOptions::default()).unwrap();
        t.command_counter_increment().unwrap();
        r
    }

    fn rows_at(&self, s: &Snapshot) -> Vec<String> {
        let mut scan = HeapScan::new(&self.ctx, &REL, s).unwrap();
        let mut out = Vec::new();
        while let Some((tid, row)) = scan.next(&self.ctx).unwrap() {
            let row = row.to_vec();
            // A fetch by exact place agrees with the scan.
            let again = fetch_exact(&self.ctx, &REL, tid, s, |_, r| r.to_vec()).unwrap();
            assert_eq!(again.as_ref(), Some(&row));
            out.push(String::from_utf8(row).unwrap());
        }
        out.sort();
        out
    }

    fn rows(&self, t: &mut Transaction) -> Vec<String> {
        let s = t.snapshot().unwrap();
        self.rows_at(&s)
    }

    fn seen(&self) -> Vec<String> {
        let p = self.session();
        self.rows(&mut self.begin(&p))
    }

    fn by_index(&self, tid: Tid) -> Option<String> {
        let p = self.session();
        let s = self.begin(&p).snapshot().unwrap();
        fetch(&self.ctx, &REL, tid, &s, |_, r| String::from_utf8(r.to_vec()).unwrap()).unwrap()
    }

    fn flush(&self) {
        self.ctx.wal.flush(self.ctx.wal.inserted()).unwrap();
    }

    fn pages(&self) -> Vec<Vec<u8>> {
        self.pages_of(&REL)
    }

    fn pages_of(&self, rel: &RelHandle) -> Vec<Vec<u8>> {
        let n = self.ctx.pool.n_blocks(rel.file, Fork::Main).unwrap().get();
        (0..n)
            .map(|b| {
                let mut page = self.ctx.pool.read(rel.file, Fork::Main, BlockNo::new(b)).unwrap().read().clone();
                mask_page(&mut page);
                page.bytes().to_vec()
            })
            .collect()
    }
}

fn done(r: ChangeResult) -> Tid {
    match r {
        ChangeResult::Done { tid, .. } => tid,
        other @ (ChangeResult::Updated { .. }
        | ChangeResult::Deleted { .. }
        | ChangeResult::SelfModified { .. }
        | ChangeResult::Skipped) => panic!("{other:?}"),
    }
}

fn commit(t: Transaction) {
    t.commit(CommitLevel::On).unwrap().wait().unwrap();
}

/// Replays all of `from`'s WAL on `to`, which stays a standby.
fn replay(from: &TestNode, to: &TestNode) {
    from.flush();
    let mut reader = WalReader::follow(Arc::clone(&from.ctx.wal), from.start, FollowLimit::Published);
    while let Some(record) = reader.next().unwrap() {
        to.ctx.txns.note_xid(record.xid());
        match record.rmgr() {
            rmgr::SMGR => smgr_redo::redo(&to.ctx.pool, &record).unwrap(),
            rmgr::HEAP => redo::redo(&to.ctx, &record).unwrap(),
            rmgr::XLOG if record.kind() == rmgr::xlog::FPI => {
                for at in 0..record.blocks().len() {
                    to.ctx.pool.redo_block(&record, at, |_, _| Ok::<_, AccessError>(())).unwrap();
                }
            }
            rmgr::SEQUENCE => sequence::redo(&to.ctx, &record).unwrap(),
            rmgr::XACT => crate::txn::redo::redo(&to.ctx.txns, &record).unwrap(),
            _ => {}
        }
        to.ctx.txns.set_replayed(record.end());
    }
}

#[test]
fn own_rows_are_seen_by_later_commands_and_others_rows_once_committed() {
    let n = node();
    let (a, b) = (n.session(), n.session());
    let mut t = n.begin(&a);
    let before = t.snapshot().unwrap();
    n.put(&mut t, "one");
    assert_eq!(n.rows_at(&before), [""; 0]);
    assert_eq!(n.rows(&mut t), ["one"]);
    let mut other = n.begin(&b);
    assert_eq!(n.rows(&mut other), [""; 0]);
    commit(t);
    assert_eq!(n.rows(&mut other), ["one"]);
}

#[test]
fn a_command_does_not_see_its_own_changes() {
    let n = node();
    let p = n.session();
    let mut t = n.begin(&p);
    let s = t.snapshot().unwrap();
    insert(&n.ctx, &mut t, &REL, b"x").unwrap();
    assert!(n.rows_at(&s).is_empty());
    let same = t.snapshot().unwrap();
    assert!(n.rows_at(&same).is_empty(), "same command");
    t.command_counter_increment().unwrap();
    let tid = n.put(&mut t, "y");
    let s = t.snapshot().unwrap();
    assert_eq!(delete(&n.ctx, &mut t, &REL, &s, tid, ChangeOptions::default()).unwrap(), ChangeResult::Done { tid, hot: false });
    // Made and ended by one transaction: both command ids count.
    assert_eq!(n.rows_at(&s), ["x", "y"]);
    let again = delete(&n.ctx, &mut t, &REL, &s, tid, ChangeOptions::default()).unwrap();
    assert_eq!(again, ChangeResult::SelfModified { same_command: true });
    t.command_counter_increment().unwrap();
    assert_eq!(n.rows(&mut t), ["x"]);
}

#[test]
fn repeatable_read_keeps_its_snapshot_and_read_committed_does_not() {
    let n = node();
    let (a, b, c) = (n.session(), n.session(), n.session());
    let mut w = n.begin(&a);
    let tid = n.put(&mut w, "v1");
    commit(w);
    let (mut rr, mut rc) = (n.begin_rr(&b), n.begin(&c));
    assert_eq!(n.rows(&mut rr), ["v1"]);
    assert_eq!(n.rows(&mut rc), ["v1"]);
    let mut w = n.begin(&a);
    done(n.change(&mut w, tid, "v2", true));
    n.put(&mut w, "new");
    assert_eq!(n.rows(&mut rr), ["v1"]);
    commit(w);
    assert_eq!(n.rows(&mut rr), ["v1"]);
    assert_eq!(n.rows(&mut rc), ["new", "v2"]);
    assert!(matches!(n.change(&mut rr, tid, "lost", true), ChangeResult::Updated { .. }));
}

#[test]
fn aborted_work_is_seen_by_nobody_and_its_ends_are_undone() {
    let n = node();
    let p = n.session();
    let mut t = n.begin(&p);
    let tid = n.put(&mut t, "kept");
    commit(t);
    let mut t = n.begin(&p);
    n.put(&mut t, "gone");
    n.remove(&mut t, tid);
    assert_eq!(n.rows(&mut t), ["gone"]);
    drop(t);
    assert_eq!(n.seen(), ["kept"]);
    let mut t = n.begin(&p);
    done(n.change(&mut t, tid, "kept2", true));
    t.abort().unwrap();
    let mut t = n.begin(&p);
    done(n.change(&mut t, tid, "kept3", true));
    commit(t);
    assert_eq!(n.seen(), ["kept3"]);
    assert_eq!(n.by_index(tid).as_deref(), Some("kept3"));
}

#[test]
fn rollback_to_a_savepoint_undoes_what_came_after_and_releases_its_locks() {
    let n = node();
    let (a, b) = (n.session(), n.session());
    let mut t = n.begin(&a);
    let tid = n.put(&mut t, "base");
    commit(t);
    let mut t = n.begin(&a);
    n.put(&mut t, "1");
    t.begin_sub(Some("s"));
    n.put(&mut t, "2");
    let locked = done(n.change(&mut t, tid, "base2", true));
    t.begin_sub(Some("inner"));
    n.put(&mut t, "3");
    t.release("inner").unwrap();
    n.remove(&mut t, locked);
    assert_eq!(n.rows(&mut t), ["1", "2", "3"]);
    t.rollback_to("s").unwrap();
    assert_eq!(n.rows(&mut t), ["1", "base"]);
    // Nobody waits for what was rolled back.
    let mut o = n.begin(&b);
    done(n.change(&mut o, tid, "other", true));
    o.abort().unwrap();
    n.put(&mut t, "4");
    t.rollback_to("s").unwrap();
    n.put(&mut t, "5");
    t.release("s").unwrap();
    assert!(matches!(t.rollback_to("s"), Err(TxnError::NoSuchSavepoint(_))));
    commit(t);
    assert_eq!(n.seen(), ["1", "5", "base"]);
}

#[test]
fn ten_thousand_nested_savepoints_commit_as_one() {
    let n = node();
    let p = n.session();
    let mut t = n.begin(&p);
    for i in 0..10_000 {
        t.begin_sub(None);
        n.put(&mut t, &i.to_string());
    }
    assert_eq!(n.rows(&mut t).len(), 10_000);
    assert_eq!(n.seen().len(), 0);
    commit(t);
    assert_eq!(n.seen().len(), 10_000);
}

#[test]
fn hot_chain_is_followed_pruned_and_redirected() {
    let n = node();
    let p = n.session();
    let mut t = n.begin(&p);
    let root = n.put(&mut t, &"a".repeat(1000));
    commit(t);
    let mut tid = root;
    for i in 0..50 {
        let mut t = n.begin(&p);
        let r = n.change(&mut t, tid, &format!("{i:01000}"), true);
        assert!(matches!(r, ChangeResult::Done { hot: true, .. }), "{i}: {r:?}");
        tid = done(r);
        commit(t);
        assert_eq!(n.by_index(root).unwrap(), format!("{i:01000}"));
        assert_eq!(tid.block, root.block);
    }
    let buffer = n.ctx.pool.read(REL.file, Fork::Main, root.block).unwrap();
    assert!(matches!(buffer.read().line(root.offset), LinePointer::Redirect(_)));
    assert_eq!(n.ctx.pool.n_blocks(REL.file, Fork::Main).unwrap().get(), 1);
}

#[test]
fn an_old_snapshot_keeps_versions_from_being_pruned() {
    let n = node();
    let (a, b) = (n.session(), n.session());
    let mut t = n.begin(&a);
    let root = n.put(&mut t, &"old".repeat(200));
    commit(t);
    let mut rr = n.begin_rr(&b);
    let s = rr.snapshot().unwrap();
    let mut tid = root;
    for i in 0..30 {
        let mut t = n.begin(&a);
        tid = done(n.change(&mut t, tid, &format!("{i:0600}"), true));
        commit(t);
        assert_eq!(n.rows_at(&s), ["old".repeat(200)]);
    }
    drop((rr, s));
    let mut t = n.begin(&a);
    let stats = vacuum::<AccessError>(&n.ctx, &t, &REL, VacuumOptions::default(), |_| Ok(())).unwrap();
    assert_eq!((stats.live_rows, stats.recently_dead), (1, 0));
    assert_eq!(n.rows(&mut t), [format!("{:0600}", 29)]);
}

#[test]
fn a_second_updater_waits_and_sees_the_first_ones_version() {
    let n = node();
    let p = n.session();
    let mut t = n.begin(&p);
    let tid = n.put(&mut t, "0");
    commit(t);
    // Eight sessions add one each, twenty times, with READ COMMITTED's re-check. All versions fit on the page: one whose thread sleeps
    // keeps the others from pruning, and what no longer fits would be found by an index only.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let p = n.session();
                for _ in 0..20 {
                    let mut t = n.begin(&p);
                    let s = t.snapshot().unwrap();
                    let (mut at, mut v) = fetch(&n.ctx, &REL, tid, &s, |at, r| (at, number(r))).unwrap().unwrap();
                    loop {
                        let row = (v + 1).to_string();
                        let o = UpdateOptions { hot_ok: true, ..UpdateOptions::default() };
                        match update(&n.ctx, &mut t, &REL, &s, at, row.as_bytes(), o).unwrap() {
                            ChangeResult::Done { .. } => break,
                            ChangeResult::Updated { next, .. } => {
                                (at, v) = fetch_latest(&n.ctx, &t, &REL, next, u32::MAX, |at, r| (at, number(r))).unwrap().row().unwrap();
                            }
                            other @ (ChangeResult::Deleted { .. } | ChangeResult::SelfModified { .. } | ChangeResult::Skipped) => {
                                panic!("{other:?}")
                            }
                        }
                    }
                    commit(t);
                }
            });
        }
    });
    assert_eq!(n.by_index(tid).unwrap(), "160");
}

fn number(row: &[u8]) -> u32 {
    std::str::from_utf8(row).unwrap().parse().unwrap()
}

#[test]
fn a_deadlock_ends_with_one_victim_and_postgresqls_detail() {
    let n = node();
    let p = n.session();
    let mut t = n.begin(&p);
    let (x, y) = (n.put(&mut t, "x"), n.put(&mut t, "y"));
    commit(t);
    let barrier = std::sync::Barrier::new(2);
    let outcomes: Vec<Result<(), TxnError>> = std::thread::scope(|scope| {
        let go = |first: Tid, second: Tid| {
            let (n, barrier) = (&n, &barrier);
            scope.spawn(move || {
                let p = n.session();
                let mut t = n.begin(&p);
                done(n.change(&mut t, first, "mine", true));
                barrier.wait();
                let s = t.snapshot().unwrap();
                match update(&n.ctx, &mut t, &REL, &s, second, b"both", UpdateOptions::default()) {
                    Ok(r) => {
                        done(r);
                        commit(t);
                        Ok(())
                    }
                    Err(AccessError::Txn(e)) => Err(e),
                    Err(e) => panic!("{e}"),
                }
            })
        };
        [go(x, y), go(y, x)].map(|h| h.join().unwrap()).into_iter().collect()
    });
    let failed: Vec<&TxnError> = outcomes.iter().filter_map(|r| r.as_ref().err()).collect();
    assert_eq!(failed.len(), 1);
    let TxnError::Deadlock { detail } = failed[0] else { panic!("{:?}", failed[0]) };
    assert_eq!(detail.lines().count(), 2);
    assert!(detail.contains("waits for ShareLock on transaction"), "{detail}");
    assert_eq!(n.seen(), ["both", "mine"]);
}

#[test]
fn row_locks_exclude_as_their_modes_say_and_policies_do_not_wait() {
    use RowLockMode::{KeyShare, NoKeyUpdate, Share, Update};
    let n = node();
    let (a, b) = (n.session(), n.session());
    let mut t = n.begin(&a);
    let tid = n.put(&mut t, "row");
    commit(t);
    let modes = [KeyShare, Share, NoKeyUpdate, Update];
    for held in modes {
        for wanted in modes {
            let (mut t, mut o) = (n.begin(&a), n.begin(&b));
            let s = t.snapshot().unwrap();
            lock_row(&n.ctx, &mut t, &REL, &s, tid, held, WaitPolicy::Block).unwrap();
            let r = lock_row(&n.ctx, &mut o, &REL, &s, tid, wanted, WaitPolicy::Skip).unwrap();
            let clash = held.conflicts_with(wanted);
            assert_eq!(r == ChangeResult::Skipped, clash, "{held:?} {wanted:?}");
            if clash {
                let r = lock_row(&n.ctx, &mut o, &REL, &s, tid, wanted, WaitPolicy::Error);
                assert!(matches!(r, Err(AccessError::Txn(TxnError::LockNotAvailable))));
            }
            // And a change: an update that leaves the key alone goes past a key share only.
            let skip = UpdateOptions { wait: WaitPolicy::Skip, hot_ok: true, key_changed: false };
            let r = update(&n.ctx, &mut o, &REL, &s, tid, b"row", skip).unwrap();
            assert_eq!(r == ChangeResult::Skipped, held != KeyShare, "{held:?}");
            drop((t, o));
        }
    }
}

#[test]
fn a_shared_lock_follows_the_row_to_its_new_version() {
    let n = node();
    let (a, b, c) = (n.session(), n.session(), n.session());
    let mut t = n.begin(&a);
    let tid = n.put(&mut t, "row");
    commit(t);
    let mut sharer = n.begin(&a);
    let s = sharer.snapshot().unwrap();
    lock_row(&n.ctx, &mut sharer, &REL, &s, tid, RowLockMode::KeyShare, WaitPolicy::Block).unwrap();
    let mut w = n.begin(&b);
    let new = done(n.change(&mut w, tid, "row2", true));
    commit(w);
    let mut d = n.begin(&c);
    let s = d.snapshot().unwrap();
    let skip = ChangeOptions { wait: WaitPolicy::Skip };
    assert_eq!(delete(&n.ctx, &mut d, &REL, &s, new, skip).unwrap(), ChangeResult::Skipped);
    drop(sharer);
    done(delete(&n.ctx, &mut d, &REL, &s, new, skip).unwrap());
    // The other order: the lock comes while the update runs.
    drop(d);
    let mut w = n.begin(&b);
    let newest = done(n.change(&mut w, new, "row3", true));
    let mut sharer = n.begin(&a);
    let s = sharer.snapshot().unwrap();
    lock_row(&n.ctx, &mut sharer, &REL, &s, new, RowLockMode::KeyShare, WaitPolicy::Block).unwrap();
    commit(w);
    let mut d = n.begin(&c);
    let s = d.snapshot().unwrap();
    assert_eq!(delete(&n.ctx, &mut d, &REL, &s, newest, skip).unwrap(), ChangeResult::Skipped);
}

#[test]
fn cancel_and_lock_timeout_end_a_wait() {
    let n = node();
    let (a, b) = (n.session(), n.session());
    let mut t = n.begin(&a);
    let tid = n.put(&mut t, "row");
    commit(t);
    let mut holder = n.begin(&a);
    done(n.change(&mut holder, tid, "held", true));
    b.set_lock_timeouts(Duration::from_secs(1), Some(Duration::from_millis(30)));
    let mut t = n.begin(&b);
    let s = t.snapshot().unwrap();
    let r = update(&n.ctx, &mut t, &REL, &s, tid, b"x", UpdateOptions::default());
    assert!(matches!(r, Err(AccessError::Txn(TxnError::LockTimeout))));
    b.set_lock_timeouts(Duration::from_secs(1), None);
    std::thread::scope(|scope| {
        let h = scope.spawn(|| update(&n.ctx, &mut t, &REL, &s, tid, b"x", UpdateOptions::default()));
        while n.ctx.locks.waiting_for(b.id()).is_none() {
            std::thread::yield_now();
        }
        assert_eq!(n.ctx.locks.blockers(b.id()), [a.id()]);
        b.cancel().cancel(CancelReason::Query);
        let r = h.join().unwrap();
        assert!(matches!(r, Err(AccessError::Txn(TxnError::Cancelled(CancelReason::Query)))));
    });
}

#[test]
fn a_commit_is_visible_and_lets_go_only_when_its_level_is_reached() {
    let n = node();
    let (a, b) = (n.session(), n.session());
    let mut t = n.begin(&a);
    let tid = n.put(&mut t, "v1");
    commit(t);
    // A synchronous standby is asked for and away.
    n.ctx.txns.set_replicated(Some(SyncPositions::NONE_THERE));
    let mut t = n.begin(&a);
    let new = done(n.change(&mut t, tid, "v2", true));
    let wait = t.commit(CommitLevel::On).unwrap();
    let lsn = wait.lsn();
    n.ctx.txns.wait_readable(&b, CommitLevel::Local, lsn).unwrap();
    assert!(!wait.is_done());
    assert_eq!(n.seen(), ["v1"]);
    // Its own session sees it; a session at a lower level does too, but cannot change it before it lets go.
    assert_eq!(n.rows(&mut n.begin(&a)), ["v2"]);
    let options = TransactionOptions { level: CommitLevel::Local, ..TransactionOptions::default() };
    let mut local = n.ctx.txns.begin(&b, options);
    assert_eq!(n.rows(&mut local), ["v2"]);
    let s = local.snapshot().unwrap();
    let skip = UpdateOptions { wait: WaitPolicy::Skip, ..UpdateOptions::default() };
    assert_eq!(update(&n.ctx, &mut local, &REL, &s, new, b"v3", skip).unwrap(), ChangeResult::Skipped);
    drop(local);
    let mut late = n.begin(&b);
    let s = late.snapshot().unwrap();
    assert_eq!(update(&n.ctx, &mut late, &REL, &s, tid, b"v3", skip).unwrap(), ChangeResult::Skipped);
    n.ctx.txns.set_replicated(Some(SyncPositions { written: lsn, flushed: lsn, applied: Lsn::INVALID }));
    assert!(wait.is_done());
    assert_eq!(n.seen(), ["v2"]);
    assert_eq!(update(&n.ctx, &mut late, &REL, &s, tid, b"v3", skip).unwrap(), ChangeResult::Updated { next: new, by: Xid::new(4) });
}

#[test]
fn commits_in_flight_are_seen_in_the_order_of_their_lsns() {
    let n = node();
    let p = n.session();
    let mut t = n.begin(&p);
    let tids: Vec<Tid> = (0..4).map(|i| n.put(&mut t, &format!("{} 000", i / 2))).collect();
    commit(t);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (n, stop) = (&n, &stop);
        let writers: Vec<_> = tids
            .chunks(2)
            .enumerate()
            .map(|(which, pair)| {
                scope.spawn(move || {
                    // Both rows of a pair always change together.
                    let p = n.session();
                    let mut at = pair.to_vec();
                    for i in 1..300 {
                        let mut t = n.begin(&p);
                        for tid in &mut at {
                            *tid = done(n.change(&mut t, *tid, &format!("{which} {i:03}"), true));
                        }
                        commit(t);
                    }
                })
            })
            .collect();
        let reader = scope.spawn(move || {
            let p = n.session();
            let mut last = vec![String::new(); 4];
            while !stop.load(Ordering::Relaxed) {
                let s = n.begin(&p).snapshot().unwrap();
                // By a scan: with a snapshot in the way for long, chains outgrow their page.
                let now = n.rows_at(&s);
                assert!(now.len() == 4 && now[0] == now[1] && now[2] == now[3], "{now:?}");
                assert!(now.iter().zip(&last).all(|(a, b)| a >= b), "{last:?} then {now:?}");
                last = now;
            }
        });
        for w in writers {
            w.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
}

#[test]
fn vacuum_frees_places_after_the_indexes_and_marks_pages_visible() {
    let n = node();
    let p = n.session();
    let mut t = n.begin(&p);
    let mut tids = Vec::new();
    let rows: Vec<String> = (0..1000).map(|i| format!("{i:0100}")).collect();
    multi_insert(&n.ctx, &mut t, &REL, &rows, false, &mut tids).unwrap();
    assert_eq!(tids.len(), 1000);
    commit(t);
    let mut t = n.begin(&p);
    for tid in &tids[..500] {
        n.remove(&mut t, *tid);
    }
    commit(t);
    let t = n.begin(&p);
    let mut cleaned = Vec::new();
    let stats = vacuum::<AccessError>(&n.ctx, &t, &REL, VacuumOptions::default(), |d| {
        cleaned.extend(tids.iter().filter(|t| d.contains(**t)).copied());
        Ok(())
    })
    .unwrap();
    assert_eq!(cleaned, tids[..500]);
    assert_eq!((stats.removed, stats.live_rows, stats.all_visible), (500, 500, stats.pages));
    assert_eq!(n.seen().len(), 500);
    drop(t);
    // A change takes the page's mark away again, and the places are used again.
    let mut t = n.begin(&p);
    let tid = n.put(&mut t, &"z".repeat(3000));
    assert!(tid.block < BlockNo::new(stats.pages), "{tid}");
    n.remove(&mut t, tids[700]);
    commit(t);
    assert_eq!(n.seen().len(), 500);
    let t = n.begin(&p);
    let again = vacuum::<AccessError>(&n.ctx, &t, &REL, VacuumOptions::default(), |_| Ok(())).unwrap();
    assert_eq!(again.scanned, 2);
}

fn random_work(n: &TestNode, seed: u64, steps: usize) {
    let mut live: Vec<Tid> = Vec::new();
    more_random_work(n, &mut StdRng::seed_from_u64(seed), &mut live, steps);
    assert_eq!(n.seen().len(), live.len());
}

/// Changes the rows whose versions are `live`.
fn more_random_work(n: &TestNode, rng: &mut StdRng, live: &mut Vec<Tid>, steps: usize) {
    let p = n.session();
    for _ in 0..steps {
        let mut t = n.begin(&p);
        let mut now = live.clone();
        for _ in 0..rng.random_range(1..6) {
            let row: String = (0..rng.random_range(0..400)).map(|_| char::from(rng.random_range(b'a'..b'd'))).collect();
            let sub = rng.random_bool(0.2);
            let before = now.clone();
            if sub {
                t.begin_sub(Some("s"));
            }
            match rng.random_range(0..10) {
                0..3 => now.push(n.put(&mut t, &row)),
                3 => {
                    let rows = vec![row; rng.random_range(1..100)];
                    multi_insert(&n.ctx, &mut t, &REL, &rows, false, &mut now).unwrap();
                    t.command_counter_increment().unwrap();
                }
                4..8 if !now.is_empty() => {
                    let i = rng.random_range(0..now.len());
                    now[i] = done(n.change(&mut t, now[i], &row, rng.random()));
                }
                8 if !now.is_empty() => {
                    let tid = now.swap_remove(rng.random_range(0..now.len()));
                    done(n.remove(&mut t, tid));
                }
                _ => {}
            }
            if sub && rng.random() {
                t.rollback_to("s").unwrap();
                now = before;
            }
        }
        if rng.random_bool(0.8) {
            commit(t);
            *live = now;
        }
        if rng.random_bool(0.05) {
            let t = n.begin(&p);
            let options = VacuumOptions { freeze_below: n.ctx.txns.settled_floor(), all_pages: true, ..VacuumOptions::default() };
            vacuum::<AccessError>(&n.ctx, &t, &REL, options, |_| Ok(())).unwrap();
            n.ctx.txns.settle().unwrap();
        }
    }
}

/// The file that [`REL`] is written anew into.
const ANEW: RelHandle = RelHandle { oid: 20_000, file: RelId::new(1663, 5, 20_002), persistence: Persistence::Permanent, reserve: 0 };

/// Writes all versions of [`REL`] anew, in random order, and returns where those that are kept went.
fn write_anew(n: &TestNode, rng: &mut StdRng) -> (HashMap<Tid, Tid>, RewriteCounts) {
    n.ctx.pool.create_fork(ANEW.file, Fork::Main).unwrap();
    n.ctx.txns.settle().unwrap();
    let mut versions = Vec::new();
    let mut scan = AllVersions::new(&n.ctx, &REL).unwrap();
    while let Some((tid, h, row)) = scan.next(&n.ctx).unwrap() {
        versions.push((tid, h, row.to_vec()));
    }
    versions.shuffle(rng);
    // So little memory that links are sorted in files.
    let sorter = || btree::Sorter::new(Box::new(|| Ok(Box::new(TestScratch(tempfile::tempfile().unwrap())))), 0);
    let mut rewrite = Rewrite::new(&n.ctx, &ANEW, n.ctx.txns.settled_floor(), [sorter(), sorter()]);
    let mut places = HashMap::new();
    for (tid, h, row) in versions {
        if let Some(kept) = rewrite.keep(tid, &h).unwrap() {
            places.insert(tid, rewrite.put(&kept, &row).unwrap());
        }
    }
    (places, rewrite.finish().unwrap())
}

#[test]
fn a_table_written_anew_shows_every_snapshot_what_it_saw_and_leads_on_as_before() {
    let mut removed = 0;
    for seed in 0..6 {
        let (n, b) = (node(), empty_node());
        let mut rng = StdRng::seed_from_u64(seed);
        let (mut live, mut old) = (Vec::new(), Vec::new());
        more_random_work(&n, &mut rng, &mut live, 100);
        for _ in 0..4 {
            let mut t = n.begin_rr(&n.session());
            let snapshot = t.snapshot().unwrap();
            old.push((t, snapshot));
            more_random_work(&n, &mut rng, &mut live, 100);
        }
        // One that runs meanwhile, and is the one that writes anew.
        let p = n.session();
        let mut own = n.begin(&p);
        for (at, tid) in live.iter().take(40).enumerate() {
            match at % 4 {
                0 => n.remove(&mut own, *tid),
                1 => n.change(&mut own, *tid, "changed by who writes anew", false),
                _ => continue,
            };
            n.put(&mut own, "made by who writes anew");
        }
        let snapshot = own.snapshot().unwrap();
        let (places, counts) = write_anew(&n, &mut rng);
        assert_eq!(counts.kept, u64::try_from(places.len()).unwrap());
        removed += counts.removed;
        assert!(counts.recently_dead > 100, "seed {seed}: {counts:?}");
        old.push((own, snapshot));
        for (i, (t, snapshot)) in old.iter().enumerate() {
            let mut scan = HeapScan::new(&n.ctx, &REL, snapshot).unwrap();
            let mut was = Vec::new();
            while let Some((tid, row)) = scan.next(&n.ctx).unwrap() {
                was.push((places[&tid], row.to_vec()));
                let latest = |rel, tid| fetch_latest(&n.ctx, t, rel, tid, u32::MAX, |_, row| row.to_vec()).unwrap();
                assert_eq!(latest(&REL, tid), latest(&ANEW, places[&tid]), "seed {seed}, snapshot {i}");
            }
            let mut scan = HeapScan::new(&n.ctx, &ANEW, snapshot).unwrap();
            let mut is = Vec::new();
            while let Some((tid, row)) = scan.next(&n.ctx).unwrap() {
                is.push((tid, row.to_vec()));
                assert_eq!(fetch(&n.ctx, &ANEW, tid, snapshot, |at, _| at).unwrap(), Some(tid), "an entry of its own");
            }
            was.sort();
            assert!(is == was, "seed {seed}, snapshot {i}");
        }
        let pages = |n: &TestNode| n.pages_of(&ANEW);
        for block in 0..u32::try_from(pages(&n).len()).unwrap() {
            let page = n.ctx.pool.read(ANEW.file, Fork::Main, BlockNo::new(block)).unwrap().read().clone();
            assert_eq!(verify_page(&page, BlockNo::new(block), n.ctx.txns.next_xid()), []);
        }
        for twice in [false, true] {
            replay(&n, &b);
            assert!(pages(&n) == pages(&b), "seed {seed}, replayed twice {twice}");
        }
        // Once nobody needs them, what is dead goes, and the rest is frozen.
        let (own, _) = old.pop().unwrap();
        commit(own);
        drop(old);
        n.ctx.txns.settle().unwrap();
        let t = n.begin(&p);
        let options = VacuumOptions { freeze_below: n.ctx.txns.settled_floor(), all_pages: true, ..VacuumOptions::default() };
        let stats = vacuum::<AccessError>(&n.ctx, &t, &ANEW, options, |_| Ok(())).unwrap();
        assert_eq!((stats.recently_dead, stats.tuples_removed), (0, counts.recently_dead), "seed {seed}");
        assert_eq!(stats.frozen_below(), Some(n.ctx.txns.settled_floor()));
    }
    assert!(removed > 0);
}

#[test]
fn a_replica_has_equal_pages_and_sees_the_same_rows() {
    for seed in 0..20 {
        let (a, b) = (node(), empty_node());
        random_work(&a, seed, 150);
        replay(&a, &b);
        assert!(a.pages() == b.pages(), "seed {seed}");
        assert_eq!(a.seen(), b.seen(), "seed {seed}");
        // Once more: nothing changes.
        replay(&a, &b);
        assert!(a.pages() == b.pages(), "seed {seed}, replayed twice");
    }
}

#[test]
fn every_cut_of_the_wal_shows_a_prefix_of_the_commits() {
    let (a, b) = (node(), empty_node());
    let p = a.session();
    for i in 0..40 {
        let mut t = a.begin(&p);
        a.put(&mut t, &format!("{i:03}"));
        if i % 3 == 0 {
            t.begin_sub(None);
            a.put(&mut t, &format!("{i:03}sub"));
        }
        if i % 5 == 4 {
            t.abort().unwrap();
        } else {
            commit(t);
        }
    }
    let all = a.seen();
    a.flush();
    let mut reader = WalReader::follow(Arc::clone(&a.ctx.wal), a.start, FollowLimit::Published);
    let mut seen = 0;
    while let Some(record) = reader.next().unwrap() {
        b.ctx.txns.note_xid(record.xid());
        match record.rmgr() {
            rmgr::SMGR => smgr_redo::redo(&b.ctx.pool, &record).unwrap(),
            rmgr::HEAP => redo::redo(&b.ctx, &record).unwrap(),
            rmgr::XACT => crate::txn::redo::redo(&b.ctx.txns, &record).unwrap(),
            _ => {}
        }
        b.ctx.txns.set_replayed(record.end());
        let rows = b.seen();
        assert_eq!(rows, all[..rows.len()]);
        assert!(rows.len() >= seen);
        seen = rows.len();
    }
    assert_eq!(seen, all.len());
}

#[test]
fn statuses_survive_a_checkpoint_and_what_ran_at_a_crash_is_aborted() {
    let n = node();
    let p = n.session();
    let mut t = n.begin(&p);
    n.put(&mut t, "committed");
    commit(t);
    let mut running = n.begin(&p);
    n.put(&mut running, "running");
    n.ctx.txns.checkpoint_status(n.ctx.txns.checkpoint_xids().oldest_xid).unwrap();
    let next = n.ctx.txns.next_xid();
    // Another life, from the checkpoint: nothing to redo.
    let txns = Transactions::new(TransactionsStart {
        dir: n.dir.path().join("pg_xact"),
        disk: RealDisk::shared(),
        wal: Arc::clone(&n.ctx.wal),
        next_xid: next,
        oldest_xid: n.ctx.txns.checkpoint_xids().oldest_xid,
        position: n.ctx.wal.inserted(),
    });
    txns.end_recovery(n.ctx.wal.inserted());
    let ctx = AccessCtx::new(Arc::clone(&n.ctx.pool), txns);
    let again = TestNode { dir: tempfile::tempdir().unwrap(), ctx, start: n.start, next_proc: AtomicI32::new(1) };
    assert_eq!(again.seen(), ["committed"]);
    let p2 = again.session();
    let mut t = again.begin(&p2);
    again.put(&mut t, "later");
    commit(t);
    assert_eq!(again.seen(), ["committed", "later"]);
    std::mem::forget(running);
}

#[test]
fn unique_checks_learn_whom_to_wait_for() {
    let n = node();
    let (a, b) = (n.session(), n.session());
    let mut t = n.begin(&a);
    let tid = n.put(&mut t, "row");
    let other = n.begin(&b);
    let xid = t.top_xid().unwrap();
    assert_eq!(liveness(&n.ctx, &other, &REL, tid).unwrap(), Liveness::Inserting(tid, xid));
    assert_eq!(liveness(&n.ctx, &t, &REL, tid).unwrap(), Liveness::Live(tid));
    commit(t);
    assert_eq!(liveness(&n.ctx, &other, &REL, tid).unwrap(), Liveness::Live(tid));
    let mut t = n.begin(&a);
    n.remove(&mut t, tid);
    let xid = t.top_xid().unwrap();
    assert_eq!(liveness(&n.ctx, &other, &REL, tid).unwrap(), Liveness::Deleting(tid, xid));
    assert_eq!(liveness(&n.ctx, &t, &REL, tid).unwrap(), Liveness::Dead);
    commit(t);
    assert_eq!(liveness(&n.ctx, &other, &REL, tid).unwrap(), Liveness::Dead);
    assert!(is_dead_to_all(&n.ctx, &REL, tid).unwrap());
}

#[test]
fn sequences_count_log_ahead_and_never_repeat_on_a_replica() {
    let (n, b) = (node(), empty_node());
    let p = n.session();
    let o = SequenceOptions { start: 1, increment: 1, min: 1, max: 100, cache: 1, cycle: false };
    let mut t = n.begin(&p);
    sequence::create(&n.ctx, &mut t, &SEQ, SequenceState { last_value: 1, log_count: 0, is_called: false }).unwrap();
    commit(t);
    let before = n.ctx.wal.inserted();
    for i in 1..=33 {
        let mut t = n.begin(&p);
        assert_eq!(sequence::take(&n.ctx, &mut t, &SEQ, &o).unwrap().first, i);
        commit(t);
    }
    let mut reader = WalReader::follow(Arc::clone(&n.ctx.wal), before, FollowLimit::Published);
    n.flush();
    let mut records = 0;
    while let Some(r) = reader.next().unwrap() {
        records += u32::from(r.rmgr() == rmgr::SEQUENCE);
    }
    assert_eq!(records, 1);
    replay(&n, &b);
    let there = sequence::read(&b.ctx, &SEQ).unwrap();
    assert!(there.last_value >= 33);
    let mut t = n.begin(&p);
    let ten = SequenceOptions { cache: 10, ..o };
    let r = sequence::take(&n.ctx, &mut t, &SEQ, &ten).unwrap();
    assert_eq!((r.first, r.last), (34, 43));
    sequence::set(&n.ctx, &mut t, &SEQ, SequenceState { last_value: 99, log_count: 0, is_called: true }).unwrap();
    assert_eq!(sequence::take(&n.ctx, &mut t, &SEQ, &ten).unwrap(), sequence::Taken { first: 100, last: 100 });
    let r = sequence::take(&n.ctx, &mut t, &SEQ, &o);
    assert!(matches!(r, Err(AccessError::SequenceExhausted { max: true, bound: 100 })));
    let round = SequenceOptions { cycle: true, ..o };
    assert_eq!(sequence::take(&n.ctx, &mut t, &SEQ, &round).unwrap().first, 1);
    let down = SequenceOptions { increment: -5, min: -3, ..o };
    let r = sequence::take(&n.ctx, &mut t, &SEQ, &down);
    assert!(matches!(r, Err(AccessError::SequenceExhausted { max: false, bound: -3 })));
}

#[test]
fn rows_too_long_and_places_that_are_not_there_are_errors() {
    let n = node();
    let p = n.session();
    let mut t = n.begin(&p);
    let long = vec![0u8; 8193];
    assert!(matches!(insert(&n.ctx, &mut t, &REL, &long), Err(AccessError::RowTooBig { .. })));
    let full = vec![1u8; tuple::MAX_TUPLE - tuple::HEADER];
    let tid = insert(&n.ctx, &mut t, &REL, &full).unwrap();
    t.command_counter_increment().unwrap();
    let s = t.snapshot().unwrap();
    let none = Tid::new(tid.block, 9);
    let r = delete(&n.ctx, &mut t, &REL, &s, none, ChangeOptions::default());
    assert!(matches!(r, Err(AccessError::NoSuchRow { .. })));
    assert!(fetch(&n.ctx, &REL, Tid::new(BlockNo::new(77), 1), &s, |_, _| ()).unwrap().is_none());
    assert_eq!(fetch(&n.ctx, &REL, tid, &s, |_, r| r.len()).unwrap(), Some(full.len()));
}

/// Rates of the hot paths: `cargo test --release --lib heap::tests::rates -- --ignored --nocapture`. Without syncs in the way: level off.
#[test]
#[ignore = "a measurement"]
fn rates() {
    let n = node_of(16_384);
    n.ctx.txns.end_recovery(n.start);
    n.ctx.pool.create_fork(REL.file, Fork::Main).unwrap();
    let p = n.session();
    let rows: Vec<String> = (0..100_000).map(|i| format!("{i:090}")).collect();
    let mut tids = Vec::new();
    let time = |what: &str, ops: u32, f: &mut dyn FnMut()| {
        // CPU of this thread: other work on the machine does not count.
        let cpu = || {
            let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            f64::from(u32::try_from(t.tv_sec).unwrap()) * 1e9 + f64::from(u32::try_from(t.tv_nsec).unwrap())
        };
        let start = cpu();
        f();
        println!("{what:40} {:8.0} ns", (cpu() - start) / f64::from(ops));
    };
    time("multi_insert, a row", 100_000, &mut || {
        let mut t = n.begin(&p);
        for chunk in rows.chunks(1000) {
            multi_insert(&n.ctx, &mut t, &REL, chunk, false, &mut tids).unwrap();
        }
        commit(t);
    });
    time("insert, a row", 100_000, &mut || {
        let mut t = n.begin(&p);
        for r in &rows {
            insert(&n.ctx, &mut t, &REL, r.as_bytes()).unwrap();
        }
        commit(t);
    });
    let mut t = n.begin(&p);
    let s = t.snapshot().unwrap();
    time("scan, a row", 20 * 200_000, &mut || {
        (0..20).for_each(|_| {
            let mut scan = HeapScan::new(&n.ctx, &REL, &s).unwrap();
            let mut bytes = 0;
            while let Some((_, r)) = scan.next(&n.ctx).unwrap() {
                bytes += r.len();
            }
            assert_eq!(bytes, 200_000 * 90);
        })
    });
    time("fetch by place", 100_000, &mut || {
        for tid in &tids {
            fetch(&n.ctx, &REL, *tid, &s, |_, r| r.len()).unwrap().unwrap();
        }
    });
    time("begin, snapshot, end", 100_000, &mut || {
        for _ in 0..100_000 {
            n.begin(&p).snapshot().unwrap();
        }
    });
    drop((t, s));
    let off = |n: &TestNode| n.ctx.txns.begin(&p, TransactionOptions { level: CommitLevel::Off, ..Default::default() });
    time("begin, insert, commit", 100_000, &mut || {
        for r in &rows {
            let mut t = off(&n);
            insert(&n.ctx, &mut t, &REL, r.as_bytes()).unwrap();
            t.commit(CommitLevel::Off).unwrap().wait().unwrap();
        }
    });
    let at = n.ctx.wal.inserted();
    time("begin, update one place, commit", 100_000, &mut || {
        for tid in &tids {
            let mut t = off(&n);
            let s = t.snapshot().unwrap();
            update(&n.ctx, &mut t, &REL, &s, *tid, rows[0].as_bytes(), UpdateOptions { hot_ok: true, ..Default::default() }).unwrap();
            t.commit(CommitLevel::Off).unwrap().wait().unwrap();
        }
    });
    println!("WAL per update {} bytes", n.ctx.wal.inserted().bytes_since(at).unwrap() / 100_000);
    let mut t = n.begin(&p);
    let hot_root = insert(&n.ctx, &mut t, &REL, rows[0].as_bytes()).unwrap();
    commit(t);
    let hot_root = std::cell::Cell::new(hot_root);
    let hot = || {
        let mut t = off(&n);
        let s = t.snapshot().unwrap();
        let at = fetch(&n.ctx, &REL, hot_root.get(), &s, |at, _| at).unwrap().unwrap();
        let o = UpdateOptions { hot_ok: true, ..Default::default() };
        if let ChangeResult::Done { tid, hot: false } = update(&n.ctx, &mut t, &REL, &s, at, rows[0].as_bytes(), o).unwrap() {
            hot_root.set(tid);
        }
        t.commit(CommitLevel::Off).unwrap().wait().unwrap();
    };
    time("begin, fetch+update one hot row, commit", 20_000, &mut || (0..20_000).for_each(|_| hot()));
}

#[test]
fn a_replica_of_concurrent_work_is_equal() {
    for seed in 0..4u64 {
        let (a, b) = (node(), empty_node());
        let shared: Vec<Tid> = {
            let p = a.session();
            let mut t = a.begin(&p);
            let tids = (0..20).map(|i| a.put(&mut t, &format!("shared {i}"))).collect();
            commit(t);
            tids
        };
        std::thread::scope(|scope| {
            for worker in 0..6 {
                let (a, shared) = (&a, &shared);
                scope.spawn(move || {
                    let mut rng = StdRng::seed_from_u64(seed * 100 + worker);
                    let p = a.session();
                    p.set_lock_timeouts(Duration::from_millis(20), None);
                    for _ in 0..120 {
                        let mut t = a.begin(&p);
                        if concurrent_step(a, &mut t, &mut rng, shared).is_ok() && rng.random_bool(0.9) {
                            commit(t);
                        }
                    }
                });
            }
            scope.spawn(|| {
                let p = a.session();
                for _ in 0..15 {
                    let t = a.begin(&p);
                    let options = VacuumOptions { all_pages: true, freeze_below: a.ctx.txns.next_xid(), ..Default::default() };
                    vacuum::<AccessError>(&a.ctx, &t, &REL, options, |_| Ok(())).unwrap();
                    a.ctx.txns.settle().unwrap();
                    std::thread::yield_now();
                }
            });
        });
        replay(&a, &b);
        assert!(a.pages() == b.pages(), "seed {seed}");
        assert_eq!(a.seen(), b.seen(), "seed {seed}");
        assert!(a.ctx.locks.list().is_empty());
    }
}

/// Some changes of shared rows, found by a scan; deadlocks and rows that are gone end the transaction.
fn concurrent_step(n: &TestNode, t: &mut Transaction, rng: &mut StdRng, shared: &[Tid]) -> Result<(), AccessError> {
    for _ in 0..rng.random_range(1..5) {
        let row = "x".repeat(rng.random_range(0..300));
        let s = t.snapshot()?;
        let root = shared[rng.random_range(0..shared.len())];
        let sub = rng.random_bool(0.2).then(|| t.begin_sub(None));
        match rng.random_range(0..6) {
            0 => {
                insert(&n.ctx, t, &REL, row.as_bytes())?;
            }
            1 => {
                if let Some(at) = fetch(&n.ctx, &REL, root, &s, |at, _| at)? {
                    let mode = if rng.random() { RowLockMode::KeyShare } else { RowLockMode::Update };
                    lock_row(&n.ctx, t, &REL, &s, at, mode, WaitPolicy::Block)?;
                }
            }
            _ => {
                let mut at = fetch(&n.ctx, &REL, root, &s, |at, _| at)?;
                while let Some(tid) = at {
                    let options = UpdateOptions { hot_ok: rng.random_bool(0.8), ..UpdateOptions::default() };
                    match update(&n.ctx, t, &REL, &s, tid, row.as_bytes(), options)? {
                        ChangeResult::Updated { next, .. } => at = fetch_latest(&n.ctx, t, &REL, next, u32::MAX, |at, _| at)?.row(),
                        ChangeResult::Done { .. }
                        | ChangeResult::Deleted { .. }
                        | ChangeResult::SelfModified { .. }
                        | ChangeResult::Skipped => break,
                    }
                }
            }
        }
        if let Some(mark) = sub {
            if rng.random() {
                t.rollback_sub(mark)?;
            } else {
                t.release_sub(mark);
            }
        }
        t.command_counter_increment()?;
    }
    Ok(())
}

#[test]
fn a_wait_for_a_position_can_be_cancelled() {
    let n = node();
    let (a, b) = (n.session(), n.session());
    let mut t = n.begin(&a);
    let tid = n.put(&mut t, "v1");
    commit(t);
    n.ctx.txns.set_replicated(Some(SyncPositions::NONE_THERE));
    let mut t = n.begin(&a);
    n.change(&mut t, tid, "v2", true);
    // Durable here, and that is all it asked for; but no standby has it.
    t.commit(CommitLevel::Local).unwrap().wait().unwrap();
    std::thread::scope(|scope| {
        let h = scope.spawn(|| {
            let mut t = n.begin(&b);
            let s = t.snapshot().unwrap();
            update(&n.ctx, &mut t, &REL, &s, tid, b"v3", UpdateOptions::default())
        });
        while n.ctx.locks.waiting_for(b.id()) != Some("SyncRep") {
            std::thread::yield_now();
        }
        b.cancel().cancel(CancelReason::Query);
        assert!(matches!(h.join().unwrap(), Err(AccessError::Txn(TxnError::Cancelled(CancelReason::Query)))));
        b.cancel().reset();
        let h = scope.spawn(|| {
            let mut t = n.begin(&b);
            let s = t.snapshot().unwrap();
            update(&n.ctx, &mut t, &REL, &s, tid, b"v3", UpdateOptions::default())
        });
        while n.ctx.locks.waiting_for(b.id()) != Some("SyncRep") {
            std::thread::yield_now();
        }
        n.ctx.txns.set_replicated(None);
        assert!(matches!(h.join().unwrap(), Ok(ChangeResult::Updated { .. })));
    });
}
