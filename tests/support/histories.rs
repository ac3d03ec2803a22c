//! Judges histories of list appends, as Elle does (Kingsbury and Alvaro 2020): which anomalies, and does the isolation level allow them?
//!
//! Every transaction appends unique numbers to lists and reads lists. The longest list read of a key is the order of its versions; from it
//! follows who read whose version (wr), who wrote over whose (ww), and who wrote over what whom read (rw). An anomaly is a cycle.
//! History must end with a committed read of every key.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a transaction did, in order.
#[derive(Clone, Debug)]
pub enum Op {
    /// Appended a number that nobody else appends.
    Append { key: u32, value: u64 },
    /// Read a list.
    Read { key: u32, list: Vec<u64> },
}

/// A transaction. Those of one session are in the order they ran.
#[derive(Clone, Debug)]
pub struct Txn {
    /// Whose.
    pub session: usize,
    /// What.
    pub ops: Vec<Op>,
    /// Whether it committed.
    pub committed: bool,
}

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// No dirty writes, dirty or intermediate reads, circular information flow (G0, G1).
    ReadCommitted,
    /// And one snapshot for each transaction, all snapshots of one order, which sessions see grow: every cycle has two rw edges in a row.
    Snapshot,
    /// And no cycle at all.
    Serializable,
}

/// What the crate `adya` finds, which nobody here wrote: the anomalies that `level` forbids.
pub fn adya_finds(history: &[Txn], level: Level) -> Vec<String> {
    let model = match level {
        Level::ReadCommitted => "read-committed",
        Level::Snapshot => "strong-session-snapshot-isolation",
        Level::Serializable => "serializable",
    };
    let mut lines = String::new();
    for t in history {
        let ops = |done: bool| -> Vec<serde_json::Value> {
            let one = |op: &Op| match op {
                Op::Append { key, value } => serde_json::json!(["append", key, value]),
                Op::Read { key, list } if done => serde_json::json!(["r", key, list]),
                Op::Read { key, .. } => serde_json::json!(["r", key, null]),
            };
            t.ops.iter().map(one).collect()
        };
        // Who saw whom follows from what they read; of when they ran only the order within a session counts.
        let ended = if t.committed { "ok" } else { "fail" };
        for (kind, done) in [("invoke", false), (ended, t.committed)] {
            let event = serde_json::json!({"type": kind, "process": t.session, "value": ops(done)});
            lines.push_str(&format!("{event}\n"));
        }
    }
    let history = adya::History::from_json(&lines).expect("a history");
    let options = adya::Opts { models: vec![model.to_owned()], ..adya::Opts::default() };
    let report = adya::check(&history, adya::Workload::ListAppend, &options);
    if report.valid == adya::Valid::True {
        return Vec::new();
    }
    let mut found = vec![format!("adya: not {model}: {:?}", report.anomaly_types)];
    found.extend(report.anomalies.into_values().flatten().map(|a| a.explanation));
    found
}

type Graph = BTreeMap<usize, BTreeSet<usize>>;

#[derive(Default)]
struct Edges {
    /// ww, wr.
    depends: Graph,
    /// rw.
    anti: Graph,
    /// One session's transactions.
    session: Graph,
}

/// Every anomaly that `level` forbids; empty if there is none.
pub fn anomalies(history: &[Txn], level: Level) -> Vec<String> {
    let mut found = Vec::new();
    let mut writer: HashMap<u64, usize> = HashMap::new();
    let mut order: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for (i, t) in history.iter().enumerate() {
        for op in &t.ops {
            match op {
                Op::Append { value, .. } => {
                    writer.insert(*value, i);
                }
                Op::Read { key, list } if t.committed => {
                    let longest = order.entry(*key).or_default();
                    let (short, long) = if list.len() > longest.len() { (&*longest, list) } else { (list, &*longest) };
                    if !long.starts_with(short) {
                        found.push(format!("key {key}: {list:?} and {longest:?} are of two orders"));
                    }
                    if list.len() > longest.len() {
                        longest.clone_from(list);
                    }
                }
                Op::Read { .. } => {}
            }
        }
    }
    // What each appended to each key, in order.
    let appended = |t: &Txn, k: u32| -> Vec<u64> {
        t.ops.iter().filter_map(|o| if let Op::Append { key, value } = o { (*key == k).then_some(*value) } else { None }).collect()
    };
    let mut edges = Edges::default();
    for (key, list) in &order {
        for pair in list.windows(2) {
            let (a, b) = (writer.get(&pair[0]), writer.get(&pair[1]));
            if let (Some(a), Some(b)) = (a, b)
                && a != b
            {
                edges.depends.entry(*a).or_default().insert(*b);
            }
        }
        for (i, t) in history.iter().enumerate().filter(|(_, t)| t.committed) {
            for lost in appended(t, *key).iter().filter(|v| !list.contains(v)) {
                found.push(format!("transaction {i}: its append of {lost} to {key} is lost"));
            }
        }
    }
    let mut last_of: HashMap<usize, usize> = HashMap::new();
    for (i, t) in history.iter().enumerate().filter(|(_, t)| t.committed) {
        if let Some(before) = last_of.insert(t.session, i) {
            edges.session.entry(before).or_default().insert(i);
        }
        let mut own: HashMap<u32, Vec<u64>> = HashMap::new();
        let mut seen: HashMap<u32, Vec<u64>> = HashMap::new();
        for op in &t.ops {
            let (key, list) = match op {
                Op::Append { key, value } => {
                    own.entry(*key).or_default().push(*value);
                    continue;
                }
                Op::Read { key, list } => (*key, list),
            };
            let mine = own.get(&key).cloned().unwrap_or_default();
            if !list.ends_with(&mine) {
                found.push(format!("transaction {i}: does not see its own appends to {key}"));
                continue;
            }
            let others = &list[..list.len() - mine.len()];
            if level != Level::ReadCommitted && seen.insert(key, others.to_vec()).is_some_and(|before| before != others) {
                found.push(format!("transaction {i}: two reads of {key} differ"));
            }
            for v in others {
                match writer.get(v) {
                    None => found.push(format!("transaction {i}: reads {v}, which nobody wrote")),
                    Some(w) if !history[*w].committed => found.push(format!("transaction {i}: reads {v}, whose writer rolled back")),
                    Some(w) if *w == i => found.push(format!("transaction {i}: sees {v} before it wrote it")),
                    Some(w) if appended(&history[*w], key).iter().any(|all| !others.contains(all)) => {
                        found.push(format!("transaction {i}: sees a part of what {w} wrote to {key}"));
                    }
                    Some(_) => {}
                }
            }
            if let Some(w) = others.last().and_then(|v| writer.get(v)).filter(|w| **w != i) {
                edges.depends.entry(*w).or_default().insert(i);
            }
            let next = order.get(&key).and_then(|o| o.get(others.len())).and_then(|v| writer.get(v));
            if let Some(next) = next.filter(|n| **n != i) {
                edges.anti.entry(i).or_default().insert(*next);
            }
        }
    }
    let cycle = match level {
        Level::ReadCommitted => has_cycle(&edges.depends),
        Level::Snapshot => {
            // A step is a dependency, or a dependency and one rw after it: a cycle of such steps has no two rw in a row.
            let mut steps: Graph = BTreeMap::new();
            for (from, to) in edges.depends.iter().chain(&edges.session).flat_map(|(f, ts)| ts.iter().map(move |t| (*f, *t))) {
                let out = steps.entry(from).or_default();
                out.insert(to);
                out.extend(edges.anti.get(&to).into_iter().flatten());
            }
            has_cycle(&steps)
        }
        Level::Serializable => {
            let mut all = edges.depends.clone();
            for (from, to) in &edges.anti {
                all.entry(*from).or_default().extend(to);
            }
            has_cycle(&all)
        }
    };
    if let Some(members) = cycle {
        found.push(format!("a cycle among transactions {members:?}"));
    }
    found
}

/// Some transactions that no order can satisfy: what is left when those without predecessors, then those without successors, are taken away.
fn has_cycle(graph: &Graph) -> Option<Vec<usize>> {
    let mut left: Graph = graph.clone();
    loop {
        let before = left.len();
        let pointed: BTreeSet<usize> = left.values().flatten().copied().collect();
        left.retain(|id, _| pointed.contains(id));
        let alive: BTreeSet<usize> = left.keys().copied().collect();
        left.values_mut().for_each(|to| to.retain(|t| alive.contains(t)));
        left.retain(|_, to| !to.is_empty());
        if left.is_empty() {
            return None;
        }
        if left.len() == before {
            return Some(left.into_keys().collect());
        }
    }
}
