//! Random histories over a few rows, kept by the graph alone: what commits must have a serial order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use afterimage_wal::ids::{BlockNo, Lsn, RelId, Xid};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::marks::Marks;
use super::*;
use crate::txn::positions::CommitQueue;
use crate::txn::proc::ProcId;

const REL: RelId = RelId::new(1663, 5, 20_000);
const ROWS: u16 = 6;

/// A committed version: who made it, where.
#[derive(Clone, Copy, Debug)]
struct Version {
    by: u64,
    lsn: u64,
}

struct Txn {
    id: u64,
    snapshot: u64,
    handle: Arc<Serializable>,
    read: BTreeMap<u16, u64>,
    wrote: BTreeSet<u16>,
    read_only: bool,
}

struct Done {
    read: BTreeMap<u16, u64>,
    wrote: BTreeSet<u16>,
}

/// A small multi-version store. `checks`: whether the graph's verdicts count.
struct Store {
    rng: StdRng,
    node: Arc<SerializableNode>,
    queue: Arc<CommitQueue>,
    versions: HashMap<u16, Vec<Version>>,
    running: Vec<Txn>,
    done: BTreeMap<u64, Done>,
    next: u64,
    lsn: u64,
    checks: bool,
    failed: usize,
}

impl Store {
    fn new(seed: u64, checks: bool) -> Self {
        let queue = Arc::new(CommitQueue::new(Lsn::from_u64(1000)));
        let versions = (0..ROWS).map(|r| (r, vec![Version { by: 0, lsn: 1000 }])).collect();
        let node = SerializableNode::new(Arc::clone(&queue));
        let rng = StdRng::seed_from_u64(seed);
        Self { rng, node, queue, versions, running: vec![], done: BTreeMap::new(), next: 1, lsn: 1000, checks, failed: 0 }
    }

    fn visible(&self) -> u64 {
        self.queue.reached(crate::txn::CommitLevel::On).as_u64()
    }

    fn begin(&mut self) {
        let read_only = self.rng.random_bool(0.25);
        let visible = Lsn::from_u64(self.visible());
        let id = self.next;
        self.next += 1;
        let handle = self.node.enter(ProcId(1), read_only, || visible);
        handle.began(visible);
        if !read_only {
            handle.add_xid(Xid::from_u64(id + 100));
        }
        self.running.push(Txn { id, snapshot: visible.as_u64(), handle, read: BTreeMap::new(), wrote: BTreeSet::new(), read_only });
    }

    /// One read or write; false: it must roll back.
    fn step(&mut self, at: usize) -> bool {
        let row = self.rng.random_range(0..ROWS);
        let block = BlockNo::new(u32::from(row));
        let write = !self.running[at].read_only && self.rng.random_bool(0.4);
        let others: Vec<u64> = self.running.iter().filter(|t| t.wrote.contains(&row)).map(|t| t.id).collect();
        let t = &mut self.running[at];
        let list = &self.versions[&row];
        if write {
            // First committer wins, and nobody waits here.
            if list.iter().any(|v| v.lsn > t.snapshot) || others.iter().any(|o| *o != t.id) {
                return false;
            }
            t.wrote.insert(row);
            return t.handle.wrote_row(REL, Some((block, 1))).is_ok() || !self.checks;
        }
        if t.wrote.contains(&row) {
            return true;
        }
        t.handle.reads_row(REL, block, 1);
        let seen = list.iter().filter(|v| v.lsn <= t.snapshot).max_by_key(|v| v.lsn).unwrap();
        t.read.insert(row, seen.by);
        let unseen = list.iter().filter(|v| v.lsn > t.snapshot).map(|v| v.by).chain(others);
        unseen.map(|by| Xid::from_u64(by + 100)).all(|x| t.handle.met_writer(x).is_ok()) || !self.checks
    }

    fn commit(&mut self, at: usize) -> bool {
        let t = &self.running[at];
        if t.handle.prepare(!t.wrote.is_empty()).is_err() && self.checks {
            return false;
        }
        let t = self.running.remove(at);
        if t.wrote.is_empty() {
            t.handle.committed(None);
        } else {
            self.lsn += 8;
            for row in &t.wrote {
                self.versions.get_mut(row).unwrap().push(Version { by: t.id, lsn: self.lsn });
            }
            t.handle.committed(Some(Lsn::from_u64(self.lsn)));
        }
        self.done.insert(t.id, Done { read: t.read, wrote: t.wrote });
        true
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            if self.running.len() < 4 || (self.running.len() < 8 && self.rng.random_bool(0.2)) {
                self.begin();
            }
            let at = self.rng.random_range(0..self.running.len());
            let ok = if self.rng.random_bool(0.25) { self.commit(at) } else { self.step(at) };
            if !ok {
                self.failed += 1;
                self.running.remove(at).handle.rolled_back();
            }
            // What is committed is readable at once, or later.
            if self.rng.random_bool(0.5) {
                let to = self.rng.random_range(self.visible()..=self.lsn);
                drop(self.queue.set_all(Lsn::from_u64(to)));
            }
        }
    }

    /// Whether no serial order of the committed ones gives what they read.
    fn has_cycle(&self) -> bool {
        let mut edges: HashMap<u64, BTreeSet<u64>> = HashMap::new();
        for (id, d) in &self.done {
            for (row, by) in &d.read {
                let list = &self.versions[row];
                let at = list.iter().position(|v| v.by == *by).unwrap();
                edges.entry(*by).or_default().insert(*id);
                if let Some(next) = list.get(at + 1) {
                    edges.entry(*id).or_default().insert(next.by);
                }
            }
            for row in &d.wrote {
                let list = &self.versions[row];
                let at = list.iter().position(|v| v.by == *id).unwrap();
                edges.entry(list[at - 1].by).or_default().insert(*id);
            }
        }
        // Take away what nothing points to until nothing is left.
        let mut into: HashMap<u64, usize> = HashMap::new();
        for (from, to) in edges.iter().flat_map(|(f, ts)| ts.iter().map(move |t| (f, t))) {
            if from != to {
                into.entry(*from).or_default();
                *into.entry(*to).or_default() += 1;
            }
        }
        let mut free: Vec<u64> = into.iter().filter(|(_, n)| **n == 0).map(|(id, _)| *id).collect();
        let mut left = into.len();
        while let Some(id) = free.pop() {
            left -= 1;
            for to in edges.get(&id).into_iter().flatten().filter(|t| **t != id) {
                let n = into.get_mut(to).unwrap();
                *n -= 1;
                if *n == 0 {
                    free.push(*to);
                }
            }
        }
        left > 0
    }
}

#[test]
fn what_commits_has_a_serial_order() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    for i in 0..40 {
        let mut s = Store::new(seed.wrapping_add(i), true);
        s.run(1500);
        assert!(!s.has_cycle(), "seed {} commits a history without a serial order", seed.wrapping_add(i));
        assert!(s.done.len() > 100, "seed {}: only {} of {} commit", seed.wrapping_add(i), s.done.len(), s.next);
    }
}

#[test]
fn the_oracle_sees_anomalies_of_plain_snapshots() {
    let found = (0..10).filter(|seed| {
        let mut s = Store::new(*seed, false);
        s.run(1500);
        s.has_cycle()
    });
    assert_eq!(found.count(), 10);
}

#[test]
fn a_long_reader_sums_the_finished_ones_up() {
    let mut s = Store::new(7, true);
    s.begin();
    let old = s.running.remove(0);
    // Far more than are kept one by one.
    for _ in 0..60 {
        s.run(400);
        while !s.running.is_empty() {
            s.running.remove(0).handle.rolled_back();
        }
    }
    assert!(!s.has_cycle());
    assert!(s.node.known() <= graph::KEPT + 2, "{}", s.node.known());
    s.running.push(old);
    for _ in 0..20 {
        if !s.step(0) {
            s.running.remove(0).handle.rolled_back();
            s.begin();
        }
    }
    let to = Lsn::from_u64(s.lsn);
    drop(s.queue.set_all(to));
    while !s.running.is_empty() {
        s.running.remove(0).handle.rolled_back();
    }
    assert_eq!(s.node.known(), 0);
    assert!(s.node.list().is_empty());
}

#[test]
fn marks_move_up_and_ranges_merge() {
    let mut m = Marks::default();
    let row = |m: &mut Marks, b: u32, o: u16| m.mark_row(1, REL, BlockNo::new(b), o);
    row(&mut m, 3, 1);
    row(&mut m, 3, 2);
    assert!(m.holders_of_row(REL, Some((BlockNo::new(3), 9))).is_empty());
    row(&mut m, 3, 3);
    assert_eq!(m.holders_of_row(REL, Some((BlockNo::new(3), 9))).as_slice(), [1]);
    assert!(m.holders_of_row(REL, None).is_empty());
    for b in 10..50 {
        row(&mut m, b, 1);
    }
    assert_eq!(m.holders_of_row(REL, None).as_slice(), [1]);
    assert_eq!(m.list(), [(1, Mark::Relation(REL))]);

    let index = RelId::new(1663, 5, 20_001);
    m.mark_range(2, index, b"b", Some(b"d"));
    m.mark_range(2, index, b"f", Some(b"h"));
    m.mark_range(2, index, b"d", Some(b"e"));
    for (key, hit) in [("a", false), ("b", true), ("d", true), ("dz", true), ("e", false), ("f", true), ("h", false)] {
        assert_eq!(!m.holders_of_key(index, key.as_bytes()).is_empty(), hit, "{key}");
    }
    m.mark_range(2, index, b"c", None);
    assert!(!m.holders_of_key(index, b"zzz").is_empty());
    assert!(m.holders_of_key(index, b"a").is_empty());
    m.release(1);
    m.release(2);
    assert!(m.is_empty() && m.list().is_empty());
}
