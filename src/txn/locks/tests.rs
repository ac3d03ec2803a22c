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
        self.locks.acquire(&s.proc, &s.holder, 1, tag, mode, policy)
    }

    fn end(&self, s: &Session) {
        self.locks.release_from(&s.holder, 0);
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
    let free = |tag| t.locks.acquire(&b.proc, &b.holder, 1, tag, LockMode::AccessExclusive, WaitPolicy::Skip).unwrap();
    t.locks.acquire(&a.proc, &a.holder, 1, T, LockMode::AccessShare, WaitPolicy::Block).unwrap();
    t.locks.acquire(&a.proc, &a.holder, 2, T, LockMode::AccessExclusive, WaitPolicy::Block).unwrap();
    t.locks.acquire(&a.proc, &a.holder, 3, U, LockMode::AccessExclusive, WaitPolicy::Block).unwrap();
    t.locks.merge_depth(&a.holder, 3);
    assert!(!free(U));
    t.locks.release_from(&a.holder, 2);
    assert!(free(U));
    assert!(!free(T), "taken before the savepoint as well");
    assert!(a.holder.holds(&T, LockMode::AccessShare));
    assert!(!a.holder.holds(&T, LockMode::AccessExclusive));
}

#[test]
fn session_locks_count_and_outlive_the_transaction() {
    let t = table();
    let (a, b) = (t.session(1), t.session(2));
    let key = LockTag::Advisory { db: 5, key1: 0, key2: 7, two_keys: false };
    let own = &a.proc.session_locks;
    for _ in 0..2 {
        assert!(t.locks.acquire(&a.proc, own, 1, key, LockMode::Exclusive, WaitPolicy::Block).unwrap());
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
