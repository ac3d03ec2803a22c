use std::sync::atomic::AtomicUsize;
use std::thread;

use super::*;
use crate::txn::CancelFlag;

struct Table {
    procs: Arc<Procs>,
    locks: Arc<LockManager>,
}

struct Session {
    proc: Arc<Proc>,
    holder: Arc<LockHolder>,
}

fn table() -> Table {
    let procs = Arc::new(Procs::default());
    Table { locks: Arc::new(LockManager::new(Arc::clone(&procs))), procs }
}

impl Table {
    fn session(&self, id: i32) -> Session {
        let proc = self.procs.enter(ProcId(id), CancelFlag::new());
        proc.set_lock_timeouts(Duration::from_millis(30), None);
        Session { proc, holder: LockHolder::new(ProcId(id)) }
    }

    fn take(&self, s: &Session, tag: LockTag, mode: LockMode, policy: WaitPolicy) -> Result<bool, TxnError> {
        self.locks.acquire(&s.proc, &s.holder, tag, mode, policy)
    }

    fn end(&self, s: &Session) {
        self.locks.release_all(&s.holder);
    }

    fn wait_until_waiting(&self, id: i32) {
        while self.locks.waiting_for(ProcId(id)).is_none() {
            thread::yield_now();
        }
    }

    fn is_empty(&self) -> bool {
        self.locks.list().is_empty() && self.locks.tuple_locks.load(Ordering::SeqCst) == 0
    }
}

const T: LockTag = LockTag::Relation { db: 5, rel: 100 };
const U: LockTag = LockTag::Relation { db: 5, rel: 101 };
const ROW: LockTag = LockTag::Tuple { rel: RelId::new(1663, 5, 100), block: BlockNo::new(0), offset: 1 };

#[test]
fn conflicts_are_those_of_postgresqls_table() {
    // Rows and columns in order of the modes; from the documentation's table, "Conflicting Lock Modes".
    let table = ["00000001", "00000011", "00001111", "00011111", "00110111", "00111111", "01111111", "11111111"];
    for (i, a) in LockMode::ALL.into_iter().enumerate() {
        for (j, b) in LockMode::ALL.into_iter().enumerate() {
            assert_eq!(a.conflicts_with(b), table[i].as_bytes()[j] == b'1', "{a:?} {b:?}");
            assert_eq!(a.conflicts_with(b), b.conflicts_with(a));
        }
    }
}

#[test]
fn everything_is_gone_after_the_end() {
    let t = table();
    let (a, b) = (t.session(1), t.session(2));
    for i in 0..1000 {
        let tag = LockTag::Tuple { rel: RelId::new(1, 2, 3), block: BlockNo::new(i), offset: 1 };
        assert!(t.take(&a, tag, LockMode::RowShare, WaitPolicy::Block).unwrap());
        assert!(t.take(&b, tag, LockMode::AccessShare, WaitPolicy::Block).unwrap());
        assert!(t.take(&a, tag, LockMode::RowShare, WaitPolicy::Block).unwrap());
        assert!(!t.take(&b, tag, LockMode::AccessExclusive, WaitPolicy::Skip).unwrap());
    }
    assert_eq!(a.holder.count(), 1000);
    t.end(&a);
    t.end(&b);
    assert!(t.is_empty());
}

#[test]
fn a_savepoints_locks_go_with_it_and_a_released_ones_stay() {
    let t = table();
    let (a, b) = (t.session(1), t.session(2));
    let free = |tag| t.take(&b, tag, LockMode::AccessExclusive, WaitPolicy::Skip).unwrap();
    t.take(&a, T, LockMode::AccessShare, WaitPolicy::Block).unwrap();
    let outer = a.holder.mark();
    t.take(&a, T, LockMode::AccessExclusive, WaitPolicy::Block).unwrap();
    // A savepoint in it, released: nothing is to be done.
    a.holder.mark();
    t.take(&a, U, LockMode::AccessExclusive, WaitPolicy::Block).unwrap();
    t.locks.release_since(&a.holder, a.holder.mark());
    assert!(!free(U));
    t.locks.release_since(&a.holder, outer);
    assert!(free(U));
    assert!(!free(T), "taken before the savepoint as well");
    assert!(a.holder.holds(&T, LockMode::AccessShare));
    assert!(!a.holder.holds(&T, LockMode::AccessExclusive));
    t.end(&a);
    t.end(&b);
    assert!(t.is_empty());
}

#[test]
fn a_lock_carried_to_a_new_version_goes_with_the_savepoint_of_the_old_ones() {
    let t = table();
    let (a, b) = (t.session(1), t.session(2));
    let row = |n| LockTag::Tuple { rel: RelId::new(1, 2, 3), block: BlockNo::new(n), offset: 1 };
    t.take(&a, row(0), LockMode::AccessShare, WaitPolicy::Block).unwrap();
    let outer = a.holder.mark();
    t.take(&a, row(10), LockMode::AccessShare, WaitPolicy::Block).unwrap();
    let inner = a.holder.mark();
    t.take(&a, row(20), LockMode::AccessShare, WaitPolicy::Block).unwrap();
    for n in [0, 10, 20] {
        t.locks.carry_tuple_locks(&b.proc, &row(n), row(n + 1));
        t.locks.carry_tuple_locks(&b.proc, &row(n + 1), row(n + 2));
    }
    let held = || [0, 1, 2, 10, 11, 12, 20, 21, 22].map(|n| a.holder.holds_any(&row(n)));
    assert_eq!(held(), [true; 9]);
    t.locks.release_since(&a.holder, inner);
    assert_eq!(held(), [true, true, true, true, true, true, false, false, false]);
    t.locks.release_since(&a.holder, outer);
    assert_eq!(held(), [true, true, true, false, false, false, false, false, false]);
    t.end(&a);
    assert!(t.is_empty());
}

#[test]
fn locks_given_up_early_leave_nothing_to_a_savepoint() {
    let t = table();
    let a = t.session(1);
    let mark = a.holder.mark();
    for _ in 0..1000 {
        t.take(&a, T, LockMode::Exclusive, WaitPolicy::Block).unwrap();
        assert!(t.locks.release(&a.holder, T, LockMode::Exclusive));
    }
    assert!(a.holder.held.lock().since.is_empty());
    // One that came before another: its note stays, and does not mean a later lock of the same name.
    t.take(&a, T, LockMode::Exclusive, WaitPolicy::Block).unwrap();
    t.take(&a, U, LockMode::Exclusive, WaitPolicy::Block).unwrap();
    assert!(t.locks.release(&a.holder, T, LockMode::Exclusive));
    t.take(&a, T, LockMode::Exclusive, WaitPolicy::Block).unwrap();
    t.locks.release_since(&a.holder, mark);
    assert!(t.is_empty());
    a.holder.forget_marks();
    t.take(&a, T, LockMode::Exclusive, WaitPolicy::Block).unwrap();
    assert!(a.holder.held.lock().since.is_empty(), "no savepoint, nothing noted");
    t.end(&a);
    assert!(t.is_empty());
}

#[test]
fn session_locks_count_and_outlive_the_transaction() {
    let t = table();
    let (a, b) = (t.session(1), t.session(2));
    let key = LockTag::Advisory { db: 5, key1: 0, key2: 7, two_keys: false };
    let own = &a.proc.session_locks;
    for _ in 0..2 {
        assert!(t.locks.acquire(&a.proc, own, key, LockMode::Exclusive, WaitPolicy::Block).unwrap());
    }
    // Its own transaction takes it as well.
    assert!(t.take(&a, key, LockMode::Exclusive, WaitPolicy::Skip).unwrap());
    t.end(&a);
    assert!(t.locks.release(own, key, LockMode::Exclusive));
    assert!(!t.take(&b, key, LockMode::Exclusive, WaitPolicy::Skip).unwrap());
    assert!(t.locks.release(own, key, LockMode::Exclusive));
    assert!(!t.locks.release(own, key, LockMode::Exclusive));
    assert!(t.take(&b, key, LockMode::Exclusive, WaitPolicy::Skip).unwrap());
}

#[test]
fn nobody_overtakes_an_earlier_request_that_excludes_him() {
    let t = table();
    let (reader, ddl, late) = (t.session(1), t.session(2), t.session(3));
    t.take(&reader, T, LockMode::AccessShare, WaitPolicy::Block).unwrap();
    thread::scope(|scope| {
        let d = scope.spawn(|| t.take(&ddl, T, LockMode::AccessExclusive, WaitPolicy::Block));
        t.wait_until_waiting(2);
        assert!(!t.take(&late, T, LockMode::AccessShare, WaitPolicy::Skip).unwrap());
        // But who holds what the request waits for goes first.
        assert!(t.take(&reader, T, LockMode::RowExclusive, WaitPolicy::Skip).unwrap());
        assert_eq!(t.locks.blockers(ProcId(2)), [ProcId(1)]);
        t.end(&reader);
        assert!(d.join().unwrap().unwrap());
    });
    assert!(!t.take(&late, T, LockMode::AccessShare, WaitPolicy::Skip).unwrap());
    t.end(&ddl);
    assert!(t.take(&late, T, LockMode::AccessShare, WaitPolicy::Skip).unwrap());
    t.end(&late);
    assert!(t.is_empty());
}

#[test]
fn two_who_strengthen_their_locks_deadlock_and_one_gives_up() {
    let t = table();
    let (a, b) = (t.session(1), t.session(2));
    for s in [&a, &b] {
        t.take(s, ROW, LockMode::RowShare, WaitPolicy::Block).unwrap();
    }
    let victims = AtomicUsize::new(0);
    thread::scope(|scope| {
        for s in [&a, &b] {
            let (t, victims) = (&t, &victims);
            scope.spawn(move || {
                match t.take(s, ROW, LockMode::AccessExclusive, WaitPolicy::Block) {
                    Ok(got) => assert!(got),
                    Err(TxnError::Deadlock { detail }) => {
                        assert!(detail.contains("AccessExclusiveLock on tuple (0,1) of relation 100 of database 5"), "{detail}");
                        victims.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(e) => panic!("{e}"),
                }
                t.end(s);
            });
        }
    });
    assert_eq!(victims.load(Ordering::SeqCst), 1);
    assert!(t.is_empty());
}

#[test]
fn a_long_ring_is_broken_once() {
    let t = table();
    let n = 12;
    let tag = |i: u32| LockTag::Relation { db: 1, rel: i % n };
    let sessions: Vec<Session> = (0..n).map(|i| t.session(i32::try_from(i).unwrap() + 1)).collect();
    for (i, s) in (0..n).zip(&sessions) {
        t.take(s, tag(i), LockMode::Exclusive, WaitPolicy::Block).unwrap();
    }
    let victims = AtomicUsize::new(0);
    thread::scope(|scope| {
        for (i, s) in (0..n).zip(&sessions) {
            let (t, victims) = (&t, &victims);
            scope.spawn(move || {
                if let Err(e) = t.take(s, tag(i + 1), LockMode::Exclusive, WaitPolicy::Block) {
                    assert!(matches!(e, TxnError::Deadlock { .. }), "{e}");
                    victims.fetch_add(1, Ordering::SeqCst);
                }
                t.end(s);
            });
        }
    });
    assert_eq!(victims.load(Ordering::SeqCst), 1);
    assert!(t.is_empty());
}

#[test]
fn exclusive_locks_exclude_under_load() {
    let t = table();
    let inside = AtomicUsize::new(0);
    thread::scope(|scope| {
        for i in 0..8 {
            let (t, inside) = (&t, &inside);
            scope.spawn(move || {
                let proc = t.procs.enter(ProcId(i), CancelFlag::new());
                for round in 0..300 {
                    let s = Session { proc: Arc::clone(&proc), holder: LockHolder::new(ProcId(i)) };
                    let mode = if round % 3 == 0 { LockMode::AccessExclusive } else { LockMode::RowShare };
                    t.take(&s, ROW, mode, WaitPolicy::Block).unwrap();
                    let weight = if mode == LockMode::AccessExclusive { 1000 } else { 1 };
                    let before = inside.fetch_add(weight, Ordering::SeqCst);
                    assert!(before == 0 || (before < 1000 && weight == 1), "{before} {weight}");
                    inside.fetch_sub(weight, Ordering::SeqCst);
                    t.end(&s);
                }
            });
        }
    });
    assert!(t.is_empty());
}
