//! The tree against a `BTreeSet`, against itself after redo, and under concurrent change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use afterimage_wal::disk::RealDisk;
use afterimage_wal::reader::FollowLimit;
use afterimage_wal::{BlockNo, Fork, Lsn, RelId, SystemId, Wal, WalOptions, WalReader, Xid, rmgr};
use parking_lot::Mutex;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::node::{Fence, Node, NodeBuilder, Shape, common_prefix, separator};
use super::*;
use crate::access::{AccessCtx, AccessError, RelHandle, Tid};
use crate::storage::double_write::DoubleWrite;
use crate::storage::{BufferPool, Files, PoolOptions, smgr_redo};
use crate::txn::Transactions;
use crate::txn::transactions::TransactionsStart;

/// The tids of these tests are numbers, a thousand to a block.
fn tid_of(n: u64) -> Tid {
    Tid::new(BlockNo::new(u32::try_from(n / 1000).unwrap()), u16::try_from(n % 1000 + 1).unwrap())
}

fn number(tid: Tid) -> u64 {
    u64::from(tid.block.get()) * 1000 + u64::from(tid.offset) - 1
}

/// What the entry of a key and a number carries: nothing, or up to as much as there may be.
fn carried_of(key: &[u8], n: u64) -> Vec<u8> {
    let most = (MAX_KEY_BYTES - key.len()).saturating_sub(2);
    let len = match n % 4 {
        0 => 0,
        1 => 3,
        2 => 300,
        _ => 2500,
    };
    (0..u8::MAX).cycle().skip(usize::try_from(n % 200).unwrap()).take(most.min(len)).collect()
}

struct TestNode {
    _dir: tempfile::TempDir,
    ctx: AccessCtx,
    start: Lsn,
    /// Entries carry something.
    carries: bool,
}

const REL: RelHandle =
    RelHandle { oid: 20_000, file: RelId::new(1663, 5, 20_000), persistence: crate::access::Persistence::Permanent, reserve: 0 };

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
    let txns = Transactions::new(TransactionsStart {
        dir: dir.path().join("pg_xact"),
        disk,
        wal,
        next_xid: Xid::FIRST_NORMAL,
        oldest_xid: Xid::FIRST_NORMAL,
        position: start,
    });
    txns.end_recovery(start);
    TestNode { _dir: dir, ctx: AccessCtx::new(pool, txns), start, carries: false }
}

fn node_with_index() -> TestNode {
    let n = node_of(4096);
    n.ctx.pool.create_fork(REL.file, Fork::Main).unwrap();
    create(&n.ctx, &REL).unwrap();
    n
}

impl TestNode {
    fn flush(&self) {
        let upto = self.ctx.wal.inserted();
        self.ctx.wal.flush(upto).unwrap();
        // The horizon follows when the flusher tells.
        while self.ctx.txns.horizon() < upto {
            std::thread::yield_now();
        }
    }

    fn carried(&self, key: &[u8], n: u64) -> Vec<u8> {
        if self.carries { carried_of(key, n) } else { Vec::new() }
    }

    fn insert(&self, key: &[u8], tid: u64) {
        let carried = self.carried(key, tid);
        let item = Item { key, carried: &carried };
        assert_eq!(insert(&self.ctx, Xid::new(3), &REL, item, tid_of(tid), None).unwrap(), Inserted::Yes);
    }

    fn vacuum(&self, is_dead: impl Fn(u64) -> bool) -> VacuumStats {
        self.flush();
        vacuum(&self.ctx, &REL, self.ctx.txns.horizon(), &mut |t| is_dead(number(t)), &mut || Ok(())).unwrap()
    }

    fn scan(&self, range: KeyRange, direction: Direction) -> Vec<(Vec<u8>, u64)> {
        let mut scan = Scan::new(&REL, range, direction, ScanOptions { keys: true, pin: false });
        let mut found = Vec::new();
        while let Some((key, tid)) = scan.next(&self.ctx).unwrap() {
            let (key, tid) = (key.to_vec(), number(tid));
            assert_eq!(scan.last(), Item { key: &key, carried: &self.carried(&key, tid) });
            found.push((key, tid));
        }
        found
    }

    fn all(&self) -> Vec<(Vec<u8>, u64)> {
        self.scan(KeyRange::all(), Direction::Forward)
    }

    fn verify(&self) -> Verified {
        let check = &mut |item: &Item<'_>, tid| {
            assert_eq!(item.carried, self.carried(item.key, number(tid)));
            Ok(())
        };
        verify(&self.ctx, &REL, check).unwrap()
    }

    fn pages(&self) -> Vec<Vec<u8>> {
        let n = self.ctx.pool.n_blocks(REL.file, Fork::Main).unwrap().get();
        (0..n)
            .map(|b| {
                let buffer = self.ctx.pool.read(REL.file, Fork::Main, BlockNo::new(b)).unwrap();
                let page = buffer.read();
                let mut bytes = page.bytes().to_vec();
                // Checksum and hint LSN are not logged.
                bytes[8..12].fill(0);
                bytes[24..32].fill(0);
                bytes
            })
            .collect()
    }
}

/// Applies the first `upto` records of `from` to `to`; returns how many there were.
fn replay(from: &TestNode, to: &TestNode, upto: usize, mut after: impl FnMut(usize)) -> usize {
    from.flush();
    let mut reader = WalReader::follow(Arc::clone(&from.ctx.wal), from.start, FollowLimit::Published);
    let mut n = 0;
    while n < upto
        && let Some(record) = reader.next().unwrap()
    {
        match record.rmgr() {
            rmgr::SMGR => smgr_redo::redo(&to.ctx.pool, &record).unwrap(),
            rmgr::BTREE => redo(&to.ctx, &record).unwrap(),
            _ => continue,
        }
        n += 1;
        after(n);
    }
    n
}

fn key_strategy() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => proptest::collection::vec(prop_oneof![Just(0_u8), Just(b'a'), Just(b'b'), Just(0xff_u8)], 0..12),
        4 => (0_u32..2000).prop_map(|n| n.to_be_bytes().to_vec()),
        2 => (0_u32..50).prop_map(|n| { let mut k = vec![b'p'; 300]; k.extend(n.to_be_bytes()); k }),
        1 => (0_u8..8, 2000_usize..=MAX_KEY_BYTES).prop_map(|(n, len)| { let mut k = vec![b'q'; len]; k[len - 1] = n; k }),
        1 => (0_u8..8, 2000_usize..=MAX_KEY_BYTES).prop_map(|(n, len)| { let mut k = vec![b'q'; len]; k[0] = n; k }),
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Insert(Vec<u8>, u64),
    /// Vacuum away tids whose number modulo the first is below the second.
    Vacuum(u64, u64),
    Range(Vec<u8>, Option<Vec<u8>>, bool),
    Prefix(Vec<u8>, bool),
}

fn op_strategy() -> impl Strategy<Value = Op> {
    prop_oneof![
        200 => (key_strategy(), 1_u64..5000).prop_map(|(k, t)| Op::Insert(k, t)),
        1 => (1_u64..5, 1_u64..5).prop_map(|(m, r)| Op::Vacuum(m, r)),
        4 => (key_strategy(), proptest::option::of(key_strategy()), any::<bool>()).prop_map(|(a, b, f)| Op::Range(a, b, f)),
        4 => (key_strategy(), any::<bool>()).prop_map(|(a, f)| Op::Prefix(a, f)),
    ]
}

fn direction(forward: bool) -> Direction {
    if forward { Direction::Forward } else { Direction::Backward }
}

fn expect(model: &BTreeSet<(Vec<u8>, u64)>, keep: impl Fn(&[u8]) -> bool, forward: bool) -> Vec<(Vec<u8>, u64)> {
    let mut v: Vec<_> = model.iter().filter(|(k, _)| keep(k)).cloned().collect();
    if !forward {
        v.reverse();
    }
    v
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn tree_behaves_as_a_sorted_set_and_redo_makes_the_same_pages(
        ops in proptest::collection::vec(op_strategy(), 1..1500),
        carries in any::<bool>(),
    ) {
        let n = TestNode { carries, ..node_with_index() };
        let mut model = BTreeSet::new();
        for op in ops {
            match op {
                Op::Insert(k, t) => {
                    n.insert(&k, t);
                    model.insert((k, t));
                }
                Op::Vacuum(m, r) => {
                    let before = model.len();
                    model.retain(|(_, t)| t % m >= r);
                    let stats = n.vacuum(|t| t % m < r);
                    prop_assert_eq!(stats.entries, model.len() as u64);
                    prop_assert_eq!(stats.removed, (before - model.len()) as u64);
                }
                Op::Range(a, b, f) => {
                    let range = KeyRange::between(&a, b.as_deref());
                    let keep = |k: &[u8]| k >= &a[..] && b.as_ref().is_none_or(|b| k < &b[..]);
                    prop_assert_eq!(n.scan(range, direction(f)), expect(&model, keep, f));
                }
                Op::Prefix(p, f) => {
                    prop_assert_eq!(n.scan(KeyRange::prefix(&p), direction(f)), expect(&model, |k| k.starts_with(&p), f));
                    prop_assert_eq!(n.scan(KeyRange::all().above(&p), direction(f)), expect(&model, |k| k > &p[..] && !k.starts_with(&p), f));
                    prop_assert_eq!(n.scan(KeyRange::all().at_most(&p), direction(f)), expect(&model, |k| k < &p[..] || k.starts_with(&p), f));
                    prop_assert_eq!(n.scan(KeyRange::all().below(&p), direction(f)), expect(&model, |k| k < &p[..], f));
                }
            }
        }
        prop_assert_eq!(n.verify().entries, model.len() as u64);
        let all: Vec<_> = model.into_iter().collect();
        prop_assert_eq!(n.all(), all);

        let copy = node_of(4096);
        replay(&n, &copy, usize::MAX, |_| {});
        prop_assert!(n.pages() == copy.pages(), "pages differ after redo");
        replay(&n, &copy, usize::MAX, |_| {});
        prop_assert!(n.pages() == copy.pages(), "pages differ after a second redo");
    }

    #[test]
    fn separator_lies_between_and_is_short(mut a in key_strategy(), mut b in key_strategy(), mut s in 1_u64..9, mut t in 1_u64..9) {
        if (&a, s) == (&b, t) {
            t += 1;
        }
        if (&a, s) > (&b, t) {
            std::mem::swap(&mut a, &mut b);
            std::mem::swap(&mut s, &mut t);
        }
        let f = separator((&a, s), (&b, t));
        prop_assert!((&a[..], s) < f.as_ref());
        prop_assert!(f.as_ref() <= (&b[..], t));
        prop_assert!(f.key.len() <= common_prefix(&a, &b) + 1);
    }

    #[test]
    fn search_in_a_node_agrees_with_a_sorted_list(
        set in proptest::collection::btree_set((proptest::collection::vec(0_u8..3, 0..6), 1_u64..4), 0..60),
        probes in proptest::collection::vec((proptest::collection::vec(0_u8..4, 0..7), 0_u64..5), 1..40),
        level in 0_u16..2,
        fenced in any::<bool>(),
    ) {
        let entries: Vec<_> = set.into_iter().collect();
        let mut shape = Shape { level, right: BlockNo::new(0), low: Default::default(), high: Default::default(), incomplete: false, deleted: false };
        if fenced && let (Some(first), Some(last)) = (entries.first(), entries.last()) {
            shape.right = BlockNo::new(9);
            shape.low = Fence::new(&first.0, first.1);
            shape.high = Fence::new(&last.0, last.1 + 1);
        }
        let mut b = NodeBuilder::new(&shape).unwrap();
        for (i, (k, t)) in entries.iter().enumerate() {
            prop_assert!(b.push(*t, BlockNo::new(u32::try_from(i).unwrap() + 1), k, &[]));
        }
        let page = b.finish();
        let node = Node::new(&page).unwrap();
        prop_assert_eq!(usize::from(node.count()), entries.len());
        for (k, t) in &probes {
            let mut want = entries.iter().filter(|(ek, et)| (ek, et) < (k, t)).count();
            if level > 0 && !entries.is_empty() {
                want = want.max(1);
                let covering = entries.iter().skip(1).filter(|(ek, et)| (ek, et) <= (k, t)).count();
                prop_assert_eq!(node.child_index((k, *t)).map(usize::from), Some(covering));
            }
            prop_assert_eq!(node.lower_bound((k, *t)).map(usize::from), Some(want));
        }
        for (i, (k, t)) in entries.iter().enumerate() {
            if level == 0 || i > 0 {
                prop_assert_eq!(node.fence_of(u16::try_from(i).unwrap()), Some(Fence::new(k, *t)));
            }
        }
    }
}

#[test]
fn ascending_inserts_leave_full_leaves_behind() {
    let n = node_with_index();
    for i in 0..50_000_u32 {
        n.insert(&[&[1], &i.to_be_bytes()[..]].concat(), u64::from(i) + 1);
    }
    let v = n.verify();
    assert_eq!((v.entries, v.levels), (50_000, 2));
    let pages = n.ctx.pool.n_blocks(REL.file, Fork::Main).unwrap().get();
    // PostgreSQL needs 137 pages (20 bytes an entry).
    assert!(pages < 110, "{pages}");
}

#[test]
fn crash_between_any_two_records_loses_nothing_and_is_repaired_by_the_next_writer() {
    let n = node_with_index();
    let mut rng = StdRng::seed_from_u64(11);
    let mut order = Vec::new();
    for i in 0..4000_u64 {
        // Long keys, so that internal nodes split too.
        let mut key = vec![rng.random_range(0..20_u8); 150];
        key.extend(rng.random::<u32>().to_be_bytes());
        n.insert(&key, i + 1);
        order.push((key, i + 1));
    }
    let copy = node_of(4096);
    let total = replay(&n, &copy, usize::MAX, |_| {});
    let mut inserted = 0;
    let mut stops = Vec::new();
    for cut in 0..60 {
        stops.push(total * cut / 60 + usize::try_from(rng.random_range(0..total as u64 / 60)).unwrap());
    }
    // Also right after each split, while its parent does not know.
    {
        let mut reader = WalReader::follow(Arc::clone(&n.ctx.wal), n.start, FollowLimit::Published);
        let mut i = 0;
        while let Some(r) = reader.next().unwrap() {
            if r.rmgr() == rmgr::SMGR || r.rmgr() == rmgr::BTREE {
                i += 1;
                if r.rmgr() == rmgr::BTREE && r.kind() == record::SPLIT && i % 7 == 0 {
                    stops.push(i);
                }
            }
        }
    }
    for stop in stops {
        let copy = node_of(4096);
        replay(&n, &copy, stop, |_| {});
        if copy.ctx.pool.n_blocks(REL.file, Fork::Main).unwrap().get() < 2 {
            continue;
        }
        let found = copy.all();
        let mut backward = copy.scan(KeyRange::all(), Direction::Backward);
        backward.reverse();
        assert_eq!(found, backward, "cut at {stop}");
        let mut want: Vec<_> = order[..found.len()].to_vec();
        want.sort();
        assert_eq!(found, want, "cut at {stop}");
        for (k, t) in &order[found.len()..] {
            copy.insert(k, *t);
        }
        assert_eq!(copy.verify().entries, order.len() as u64);
        inserted += 1;
    }
    assert!(inserted > 20);
}

#[test]
fn emptied_nodes_leave_the_tree_and_their_blocks_are_used_again() {
    let n = node_with_index();
    let key = |i: u64| {
        let mut k = vec![b'x'; 100];
        k.extend(i.to_be_bytes());
        k.extend(vec![b'y'; 100]);
        k
    };
    // A queue: inserted at the right, removed at the left.
    let mut most = 0;
    for round in 0..30_u64 {
        for i in 0..2000 {
            n.insert(&key(round * 2000 + i), i + 1 + round * 2000);
        }
        let stats = n.vacuum(|t| t <= round * 2000 + 1500);
        assert_eq!(stats.entries, 500);
        n.flush();
        let v = n.verify();
        assert_eq!(v.entries, 500);
        if round == 5 {
            most = stats.pages;
        }
        if round > 5 {
            assert!(stats.pages <= most + 60, "round {round}: {} pages, {most} at first", stats.pages);
            assert!(v.nodes < 80, "{} nodes for 500 entries", v.nodes);
        }
    }
    n.vacuum(|_| true);
    let v = n.verify();
    assert_eq!(v.entries, 0);
    assert!(v.nodes < 12, "{v:?}");
    let copy = node_of(8192);
    replay(&n, &copy, usize::MAX, |_| {});
    assert!(n.pages() == copy.pages());
}

#[test]
fn standby_readers_find_every_entry_at_every_step_of_redo() {
    let n = node_with_index();
    let mut rng = StdRng::seed_from_u64(5);
    // These stay from the beginning to the end; everything else comes and goes.
    for i in 0..300_u32 {
        n.insert(&[&[2_u8], &(i * 1000).to_be_bytes()[..]].concat(), u64::from(i) + 1);
    }
    let stable = {
        let copy = node_of(4096);
        replay(&n, &copy, usize::MAX, |_| {})
    };
    for round in 0..4 {
        for _ in 0..6000 {
            let mut k = vec![2_u8];
            k.extend(rng.random_range(0..300_000_u32).to_be_bytes());
            k.extend(vec![7; 80]);
            n.insert(&k, 1000 + u64::from(rng.random::<u32>() >> 4));
        }
        n.vacuum(|t| t >= 1000 && (round == 3 || t % 16 != 0));
    }
    let copy = Arc::new(node_of(4096));
    let done = Arc::new(AtomicBool::new(false));
    let ready = Arc::new(AtomicBool::new(false));
    std::thread::scope(|s| {
        for seed in 0..2 {
            let (copy, done, ready) = (Arc::clone(&copy), Arc::clone(&done), Arc::clone(&ready));
            s.spawn(move || {
                let mut rng = StdRng::seed_from_u64(seed);
                while !ready.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                let mut scans = 0;
                while !done.load(Ordering::Acquire) || scans < 3 {
                    let forward = rng.random::<bool>();
                    let seen = copy.scan(KeyRange::all(), direction(forward));
                    let mut keys: Vec<_> = seen.iter().filter(|(_, t)| *t <= 300).map(|(_, t)| *t).collect();
                    if !forward {
                        keys.reverse();
                    }
                    assert_eq!(keys, (1..=300).collect::<Vec<_>>());
                    let one = rng.random_range(0..300_u32);
                    let point = copy.scan(KeyRange::prefix(&[&[2_u8], &(one * 1000).to_be_bytes()[..]].concat()), Direction::Forward);
                    assert!(point.iter().any(|(_, t)| *t == u64::from(one) + 1));
                    scans += 1;
                }
            });
        }
        replay(&n, &copy, usize::MAX, |i| {
            if i == stable {
                ready.store(true, Ordering::Release);
            }
        });
        done.store(true, Ordering::Release);
    });
    assert!(n.pages() == copy.pages());
}

#[test]
fn inserts_scans_and_vacuum_run_together() {
    let n = Arc::new(node_with_index());
    const THREADS: u64 = 3;
    const EACH: u64 = 12_000;
    // Multiples of 5 stay; what is not is removed by vacuum as it goes.
    let key = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
    let progress: Arc<Vec<AtomicU64>> = Arc::new((0..THREADS).map(|_| AtomicU64::new(0)).collect());
    let done = Arc::new(AtomicBool::new(false));
    std::thread::scope(|s| {
        let mut inserters = Vec::new();
        for t in 0..THREADS {
            let (n, progress) = (Arc::clone(&n), Arc::clone(&progress));
            inserters.push(s.spawn(move || {
                for i in 0..EACH {
                    let id = i * THREADS + t + 1;
                    n.insert(&key(id), id);
                    progress[usize::try_from(t).unwrap()].store(i + 1, Ordering::Release);
                }
            }));
        }
        for forward in [true, false] {
            let (n, progress, done) = (Arc::clone(&n), Arc::clone(&progress), Arc::clone(&done));
            s.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    let before: Vec<u64> = progress.iter().map(|p| p.load(Ordering::Acquire)).collect();
                    let seen = n.scan(KeyRange::all(), direction(forward));
                    for w in seen.windows(2) {
                        assert!(if forward { w[0] < w[1] } else { w[0] > w[1] });
                    }
                    let ids: BTreeSet<u64> = seen.iter().map(|(_, t)| *t).collect();
                    for (t, upto) in before.iter().enumerate() {
                        for i in 0..*upto {
                            let id = i * THREADS + t as u64 + 1;
                            assert!(!id.is_multiple_of(5) || ids.contains(&id), "{id} is missing");
                        }
                    }
                }
            });
        }
        {
            let (n, done) = (Arc::clone(&n), Arc::clone(&done));
            s.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    n.vacuum(|t| t % 5 != 0);
                }
            });
        }
        for i in inserters {
            i.join().unwrap();
        }
        done.store(true, Ordering::Release);
    });
    n.vacuum(|t| t % 5 != 0);
    let v = n.verify();
    assert_eq!(v.entries, (1..=THREADS * EACH).filter(|i| i % 5 == 0).count() as u64);
    let copy = node_of(4096);
    replay(&n, &copy, usize::MAX, |_| {});
    assert!(n.pages() == copy.pages(), "pages differ after redo");
}

/// A heap of rows that are live, dead or being inserted.
#[derive(Default)]
struct Rows(Mutex<HashMap<u64, Liveness>>);

struct Probe<'a> {
    rows: &'a Rows,
    waited: Vec<Xid>,
}

impl UniqueProbe for Probe<'_> {
    fn check(&mut self, tid: Tid) -> Result<Liveness, AccessError> {
        Ok(self.rows.0.lock()[&number(tid)])
    }

    fn wait(&mut self, xid: Xid) -> Result<(), AccessError> {
        self.waited.push(xid);
        for v in self.rows.0.lock().values_mut() {
            if *v == Liveness::InProgress(xid) {
                *v = if xid.get().is_multiple_of(2) { Liveness::Live } else { Liveness::Dead };
            }
        }
        Ok(())
    }
}

#[test]
fn unique_insert_waits_for_the_other_and_decides() {
    let n = node_with_index();
    let rows = Rows::default();
    let put = |key: &[u8], tid: u64, state: Liveness| {
        rows.0.lock().insert(tid, state);
        let mut probe = Probe { rows: &rows, waited: Vec::new() };
        let r = insert(&n.ctx, Xid::new(3), &REL, key, tid_of(tid), Some((&mut probe, key.len()))).unwrap();
        (r, probe.waited)
    };
    assert_eq!(put(b"k", 1, Liveness::Live), (Inserted::Yes, vec![]));
    assert_eq!(put(b"k", 2, Liveness::Live), (Inserted::Duplicate(tid_of(1)), vec![]));
    assert_eq!(put(b"m", 3, Liveness::InProgress(Xid::new(9))), (Inserted::Yes, vec![]));
    assert_eq!(put(b"m", 4, Liveness::Live), (Inserted::Yes, vec![Xid::new(9)]));
    assert_eq!(put(b"m", 5, Liveness::Live), (Inserted::Duplicate(tid_of(4)), vec![]));
    assert_eq!(put(b"n", 6, Liveness::InProgress(Xid::new(8))), (Inserted::Yes, vec![]));
    assert_eq!(put(b"n", 7, Liveness::Live), (Inserted::Duplicate(tid_of(6)), vec![Xid::new(8)]));
    // A row that was deleted but some snapshot still sees.
    assert_eq!(put(b"o", 8, Liveness::Gone).0, Inserted::Yes);
    assert_eq!(put(b"o", 9, Liveness::Live).0, Inserted::Yes);
    let mut probe = Probe { rows: &rows, waited: Vec::new() };
    assert_eq!(find_duplicate(&n.ctx, &REL, b"o", &mut probe).unwrap(), Some(tid_of(9)));
    assert_eq!(find_duplicate(&n.ctx, &REL, b"p", &mut probe).unwrap(), None);
}

#[test]
fn of_many_who_insert_one_key_one_wins_whatever_lies_between() {
    let n = Arc::new(node_with_index());
    let rows = Arc::new(Rows::default());
    // Many dead versions of each key, so that the run spans leaves.
    for k in 0..20_u32 {
        for v in 0..900_u64 {
            let tid = u64::from(k) * 10_000 + v + 1;
            rows.0.lock().insert(tid, Liveness::Gone);
            n.insert(&k.to_be_bytes(), tid);
        }
    }
    let won: Arc<Mutex<BTreeMap<u32, u32>>> = Arc::default();
    std::thread::scope(|s| {
        for t in 0..4_u64 {
            let (n, rows, won) = (Arc::clone(&n), Arc::clone(&rows), Arc::clone(&won));
            s.spawn(move || {
                for k in 0..20_u32 {
                    let tid = u64::from(k) * 10_000 + 2000 * (t + 1);
                    rows.0.lock().insert(tid, Liveness::Live);
                    let mut probe = Probe { rows: &rows, waited: Vec::new() };
                    let r = insert(&n.ctx, Xid::new(3), &REL, &k.to_be_bytes(), tid_of(tid), Some((&mut probe, 4))).unwrap();
                    if r == Inserted::Yes {
                        *won.lock().entry(k).or_default() += 1;
                    }
                }
            });
        }
    });
    assert_eq!(won.lock().values().copied().collect::<Vec<_>>(), vec![1; 20]);
    n.verify();
}

#[test]
fn killed_entries_make_room_before_a_leaf_splits() {
    let n = node_with_index();
    let mut tid = 1;
    let key = |i: u32| i.to_be_bytes();
    for i in 0..200 {
        n.insert(&key(i), tid);
        tid += 1;
    }
    for _ in 0..50 {
        n.flush();
        // Every row is updated: a new version, the old one dead to everyone.
        let mut scan = Scan::new(&REL, KeyRange::all(), Direction::Forward, ScanOptions::default());
        while scan.next(&n.ctx).unwrap().is_some() {
            scan.mark_dead();
        }
        for i in 0..200 {
            n.insert(&key(i), tid);
            tid += 1;
        }
    }
    assert!(n.ctx.pool.n_blocks(REL.file, Fork::Main).unwrap().get() <= 5);
    assert_eq!(n.all().len(), 200);
}

struct FromSet<'a> {
    entries: std::collections::btree_set::Iter<'a, (Vec<u8>, u64)>,
    carries: bool,
    carried: Vec<u8>,
}

impl<'a> FromSet<'a> {
    fn new(set: &'a BTreeSet<(Vec<u8>, u64)>, carries: bool) -> Self {
        Self { entries: set.iter(), carries, carried: Vec::new() }
    }
}

impl SortedEntries for FromSet<'_> {
    fn next(&mut self) -> Result<Option<SortedEntry<'_>>, AccessError> {
        let Some((key, t)) = self.entries.next() else { return Ok(None) };
        if self.carries {
            self.carried = carried_of(key, *t);
        }
        Ok(Some(SortedEntry { item: Item { key, carried: &self.carried }, tid: tid_of(*t), live: true }))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn built_index_equals_an_inserted_one(
        set in proptest::collection::btree_set((key_strategy(), 1_u64..100), 0..3000),
        more in proptest::collection::vec((key_strategy(), 1_u64..100), 0..200),
        fill in 10_usize..=100,
        carries in any::<bool>(),
    ) {
        let n = TestNode { carries, ..node_of(4096) };
        n.ctx.pool.create_fork(REL.file, Fork::Main).unwrap();
        let options = BuildOptions { fill: Some(fill), unique: None };
        let built = build(&n.ctx, &REL, &mut FromSet::new(&set, carries), &options, &mut || Ok(())).unwrap();
        prop_assert_eq!(built, Built::Entries(set.len() as u64));
        prop_assert_eq!(n.verify().entries, set.len() as u64);
        let mut all = set;
        for (k, t) in more {
            n.insert(&k, t);
            all.insert((k, t));
        }
        prop_assert_eq!(n.verify().entries, all.len() as u64);
        prop_assert_eq!(n.all(), all.into_iter().collect::<Vec<_>>());
        let copy = node_of(4096);
        replay(&n, &copy, usize::MAX, |_| {});
        prop_assert!(n.pages() == copy.pages());
    }

    #[test]
    fn sorter_sorts_in_memory_and_through_files(
        entries in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..300), 0_u64..50, any::<bool>()), 0..2500),
    ) {
        let dir = tempfile::tempdir().unwrap();
        for budget in [64 * 1024, 64 * 1024 * 1024] {
            let path = dir.path().to_owned();
            let mut sorter = Sorter::new(Box::new(move || Ok(Box::new(TestScratch(tempfile::tempfile_in(&path).unwrap())))), budget);
            for (k, t, live) in &entries {
                sorter.push(Item { key: k, carried: &carried_of(k, *t) }, tid_of(*t), *live).unwrap();
            }
            let mut sorted = sorter.finish().unwrap();
            let mut found = Vec::new();
            while let Some(e) = sorted.next().unwrap() {
                prop_assert_eq!(e.item.carried, carried_of(e.item.key, number(e.tid)));
                found.push((e.item.key.to_vec(), number(e.tid)));
            }
            let mut want: Vec<_> = entries.iter().map(|(k, t, _)| (k.clone(), *t)).collect();
            want.sort();
            prop_assert_eq!(found, want);
        }
    }
}

/// A temporary file of a test.
pub(in crate::access) struct TestScratch(pub(in crate::access) std::fs::File);

impl Scratch for TestScratch {
    fn write_at(&mut self, bytes: &[u8], at: u64) -> Result<(), AccessError> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, at).unwrap();
        Ok(())
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> Result<(), AccessError> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, bytes, at).unwrap();
        Ok(())
    }
}

#[test]
fn many_runs_are_sorted_through_few_files() {
    let dir = tempfile::tempdir().unwrap();
    let open = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (path, opened) = (dir.path().to_owned(), open.clone());
    let mut sorter = Sorter::new(
        Box::new(move || {
            opened.fetch_add(1, Ordering::Relaxed);
            Ok(Box::new(TestScratch(tempfile::tempfile_in(&path).unwrap())))
        }),
        64 << 10,
    );
    // 110 runs, four of which are merged at once: no more files are open than levels, but each merge begins a new one.
    let n = 60_000_u64;
    let key = |i: u64| (i * 7919 % n).to_be_bytes().repeat(8);
    let mut most = 0;
    for i in 0..n {
        sorter.push(Item { key: &key(i), carried: &[] }, tid_of(i + 1), true).unwrap();
        if i % 500 == 0 {
            let files = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|f| std::fs::read_link(f.unwrap().path()).ok());
            most = most.max(files.filter(|f| f.starts_with(dir.path())).count());
        }
    }
    let mut sorted = sorter.finish().unwrap();
    let mut next = 0_u64;
    while let Some(e) = sorted.next().unwrap() {
        assert_eq!(e.item.key, next.to_be_bytes().repeat(8));
        next += 1;
    }
    assert_eq!(next, n);
    assert!((2..8).contains(&most), "{most} files");
    assert!(open.load(Ordering::Relaxed) > most);
}

#[test]
fn runs_of_equal_keys_take_little_room_however_they_came() {
    let key = |n: u64| [format!("{n:02}").as_bytes(), &[b'x'; 40]].concat();
    let set: BTreeSet<(Vec<u8>, u64)> = (0..20_000_u64).map(|i| (key(i % 20), i + 1)).collect();
    let bytes = |n: &TestNode| u64::from(n.ctx.pool.n_blocks(REL.file, Fork::Main).unwrap().get()) * 8192 / set.len() as u64;
    let built = node_of(4096);
    built.ctx.pool.create_fork(REL.file, Fork::Main).unwrap();
    build(&built.ctx, &REL, &mut FromSet::new(&set, false), &BuildOptions::default(), &mut || Ok(())).unwrap();
    assert_eq!(built.verify().entries, 20_000);
    assert!(bytes(&built) < 26, "{}", bytes(&built));
    // As rows come: keys in turn, tids ascending.
    let grown = node_with_index();
    for i in 0..20_000_u64 {
        grown.insert(&key(i % 20), i + 1);
    }
    assert!(bytes(&grown) < 80, "{}", bytes(&grown));
    for n in [&built, &grown] {
        assert_eq!(n.all(), set.iter().cloned().collect::<Vec<_>>());
        // Emptied in between and filled again: no node is lost, and room is used again.
        n.vacuum(|t| t % 3 != 0);
        assert_eq!(n.verify().entries, 6666);
        for i in (0..20_000_u64).filter(|i| (i + 1) % 3 != 0) {
            n.insert(&key(i % 20), i + 1);
        }
        assert_eq!(n.verify().entries, 20_000);
        n.vacuum(|_| true);
        assert!(n.all().is_empty());
    }
    let copy = node_of(4096);
    replay(&built, &copy, usize::MAX, |_| {});
    assert!(built.pages() == copy.pages());
}

#[test]
fn building_a_unique_index_finds_duplicates_among_live_rows_only() {
    let unique = |k: &[u8]| if k.first() == Some(&0) { None } else { Some(k.len()) };
    let try_build = |entries: &[(&[u8], u64, bool)]| {
        let n = node_of(64);
        n.ctx.pool.create_fork(REL.file, Fork::Main).unwrap();
        let mut sorter = Sorter::new(Box::new(|| panic!("it fits")), 1 << 20);
        for (k, t, live) in entries {
            sorter.push(*k, tid_of(*t), *live).unwrap();
        }
        let options = BuildOptions { fill: None, unique: Some(&unique) };
        build(&n.ctx, &REL, &mut sorter.finish().unwrap(), &options, &mut || Ok(())).unwrap()
    };
    assert_eq!(try_build(&[(b"a", 1, true), (b"b", 2, true)]), Built::Entries(2));
    assert_eq!(try_build(&[(b"a", 1, true), (b"a", 2, false), (b"a", 3, false)]), Built::Entries(3));
    assert_eq!(try_build(&[(&[0, 1], 1, true), (&[0, 1], 2, true)]), Built::Entries(2));
    let Built::Duplicate { key, first, second } = try_build(&[(b"a", 1, true), (b"a", 2, false), (b"a", 3, true)]) else {
        panic!("not found");
    };
    assert_eq!((&key[..], number(first), number(second)), (&b"a"[..], 1, 3));
}

#[test]
fn key_longer_than_a_third_of_a_page_is_refused() {
    let n = node_with_index();
    let r = insert(&n.ctx, Xid::new(3), &REL, &[7; MAX_KEY_BYTES + 1], tid_of(1), None);
    assert!(matches!(r, Err(AccessError::KeyTooBig { size: 2705, max: 2704 })), "{r:?}");
}

#[test]
fn pinned_scan_keeps_vacuum_from_its_leaf() {
    let n = Arc::new(node_with_index());
    for i in 0..100_u32 {
        n.insert(&i.to_be_bytes(), u64::from(i) + 1);
    }
    let mut scan = Scan::new(&REL, KeyRange::all(), Direction::Forward, ScanOptions { keys: false, pin: true });
    assert!(scan.next(&n.ctx).unwrap().is_some());
    let finished = Arc::new(AtomicBool::new(false));
    let vacuuming = {
        let (n, finished) = (Arc::clone(&n), Arc::clone(&finished));
        std::thread::spawn(move || {
            n.vacuum(|_| true);
            finished.store(true, Ordering::Release);
        })
    };
    for _ in 0..1000 {
        std::thread::yield_now();
    }
    assert!(!finished.load(Ordering::Acquire));
    scan.end(&n.ctx).unwrap();
    vacuuming.join().unwrap();
    assert!(n.all().is_empty());
}
