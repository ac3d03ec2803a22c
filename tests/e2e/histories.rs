//! Random transactions of many sessions, on the primary and on its standby, judged by what they read.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::client::{block_on, connect, text};
use crate::support::histories::{Level, Op, Txn, anomalies};
use crate::support::node::{Node, PATIENCE};

const KEYS: u32 = 6;

fn append(key: u32, value: u64) -> Op {
    Op::Append { key, value }
}

fn read(key: u32, list: &[u64]) -> Op {
    Op::Read { key, list: list.to_vec() }
}

/// One session each, all committed.
fn history(ops: &[&[Op]]) -> Vec<Txn> {
    ops.iter().enumerate().map(|(session, ops)| Txn { session, ops: ops.to_vec(), committed: true }).collect()
}

#[test]
fn the_judge_sees_what_each_level_forbids() {
    let end = [read(1, &[1, 2]), read(2, &[3, 4])];
    let by = |h: &[Txn]| [Level::ReadCommitted, Level::Snapshot, Level::Serializable].map(|l| !anomalies(h, l).is_empty());
    // One after the other.
    let fine = history(&[&[append(1, 1), append(2, 3)], &[read(1, &[1]), append(1, 2)], &[append(2, 4)], &end]);
    assert_eq!(by(&fine), [false; 3], "{:?}", anomalies(&fine, Level::Serializable));
    // Write skew: each reads what the other writes over.
    let skew = history(&[&[append(1, 1), append(2, 3)], &[read(1, &[1]), append(2, 4)], &[read(2, &[3]), append(1, 2)], &end]);
    assert_eq!(by(&skew), [false, false, true]);
    // Long fork: two writers, two readers who see them in different order.
    let fork = history(&[
        &[append(1, 1)],
        &[append(2, 3)],
        &[read(1, &[1]), read(2, &[])],
        &[read(1, &[]), read(2, &[3])],
        &[read(1, &[1]), read(2, &[3])],
    ]);
    assert_eq!(by(&fork), [false, true, true]);
    // Read skew: half of another's writes.
    let half = history(&[&[append(1, 1), append(2, 3)], &[read(1, &[1]), read(2, &[])], &[read(1, &[1]), read(2, &[3])]]);
    assert_eq!(by(&half), [false, true, true]);
    // Lost update.
    let lost = history(&[&[append(1, 1)], &[append(1, 2)], &[read(1, &[2])]]);
    assert_eq!(by(&lost), [true; 3]);
    // Circular information flow.
    let flow = history(&[&[append(1, 1), read(2, &[3])], &[append(2, 3), read(1, &[1])], &[read(1, &[1]), read(2, &[3])]]);
    assert_eq!(by(&flow), [true; 3]);
    // Dirty write: two orders.
    let dirty = history(&[&[append(1, 1), append(2, 4)], &[append(1, 2), append(2, 3)], &end]);
    assert_eq!(by(&dirty), [true; 3]);
    // Intermediate and aborted reads.
    let part = history(&[&[append(1, 1), append(1, 2)], &[read(1, &[1])], &[read(1, &[1, 2])]]);
    assert_eq!(by(&part), [true; 3]);
    let mut aborted = history(&[&[append(1, 1)], &[read(1, &[1])]]);
    aborted[0].committed = false;
    assert_eq!(by(&aborted), [true; 3]);
    // A session that goes back in time, on a standby say.
    let mut back = history(&[&[append(1, 1)], &[read(1, &[1])], &[read(1, &[])], &[read(1, &[1])]]);
    back[2].session = 1;
    assert_eq!(by(&back), [false, true, false]);
}

fn list_of(messages: &[SimpleQueryMessage]) -> Vec<u64> {
    let text = messages.iter().find_map(|m| if let SimpleQueryMessage::Row(r) = m { r.get(0) } else { None }).unwrap_or("{}");
    text.trim_matches(['{', '}']).split(',').filter(|n| !n.is_empty()).map(|n| n.parse().expect("a number")).collect()
}

/// One transaction; `None` if it did nothing that counts.
async fn run(c: &Client, level: &str, session: usize, rng: &mut StdRng, next: &mut u64, writes: bool) -> Txn {
    let mut ops = Vec::new();
    let mut ok = c.simple_query(&format!("begin isolation level {level}")).await.is_ok();
    for _ in 0..rng.random_range(1..5) {
        if !ok {
            break;
        }
        let key = rng.random_range(0..KEYS);
        if writes && rng.random_bool(0.5) {
            let value = u64::try_from(session).expect("small") * 1_000_000 + *next;
            *next += 1;
            ops.push(append(key, value));
            ok = c.simple_query(&format!("update lists set v = v || {value} where id = {key}")).await.is_ok();
        } else {
            // By index or not.
            let sql = if rng.random_bool(0.8) {
                format!("select v from lists where id = {key}")
            } else {
                format!("select v from lists where id + 0 = {key}")
            };
            match c.simple_query(&sql).await {
                Ok(messages) => ops.push(Op::Read { key, list: list_of(&messages) }),
                Err(_) => ok = false,
            }
        }
    }
    let commit = ok && rng.random_bool(0.95);
    let committed = c.simple_query(if commit { "commit" } else { "rollback" }).await.is_ok() && commit;
    Txn { session, ops, committed }
}

/// Runs sessions on both nodes and judges what they saw.
fn judge(primary: &Node, standby: Option<&Node>, level: &'static str, promised: Level, transactions: usize) {
    let seed: u64 = rand::rng().random();
    println!("{level}: seed {seed}");
    block_on(async {
        let c = connect(primary).await;
        text(&c, "drop table if exists lists; create table lists (id int primary key, v bigint[] not null)").await;
        text(&c, &format!("insert into lists select g, '{{}}' from generate_series(0, {}) g", KEYS - 1)).await;
        if let Some(s) = standby {
            primary.wait_for_catchup(s);
        }
        let mut tasks = Vec::new();
        for session in 0..6_usize {
            // Two read only, on the standby if there is one.
            let writes = session < 4;
            let c = connect(standby.filter(|_| !writes).unwrap_or(primary)).await;
            let level = if writes || standby.is_none() { level } else { "repeatable read" };
            let mut rng = StdRng::seed_from_u64(seed.wrapping_add(u64::try_from(session).expect("small")));
            tasks.push(tokio::spawn(async move {
                let (mut all, mut next) = (Vec::new(), 1);
                for _ in 0..transactions {
                    all.push(run(&c, level, session, &mut rng, &mut next, writes).await);
                }
                all
            }));
        }
        let mut history = Vec::new();
        for task in tasks {
            history.extend(tokio::time::timeout(PATIENCE, task).await.expect("in time").expect("joined"));
        }
        let mut ops = Vec::new();
        for key in 0..KEYS {
            let messages = c.simple_query(&format!("select v from lists where id = {key}")).await.expect("a list");
            ops.push(Op::Read { key, list: list_of(&messages) });
        }
        history.push(Txn { session: 6, ops, committed: true });
        let committed = history.iter().filter(|t| t.committed).count();
        assert!(committed > transactions, "only {committed} committed");
        let found = anomalies(&history, promised);
        assert!(found.is_empty(), "seed {seed}: {found:#?}");
    });
}

#[test]
fn levels_keep_their_promises() {
    let node = Node::start_new("histories", "deadlock_timeout = '10ms'");
    judge(&node, None, "read committed", Level::ReadCommitted, 60);
    judge(&node, None, "repeatable read", Level::Snapshot, 60);
    judge(&node, None, "serializable", Level::Serializable, 60);
}

#[test]
fn readers_on_primary_and_standby_see_one_order() {
    let node = Node::start_new("orders", "deadlock_timeout = '10ms'");
    let standby = node.standby("orders_standby");
    judge(&node, Some(&standby), "repeatable read", Level::Snapshot, 60);
    // With a synchronous standby readers here stay at what it has.
    node.conf("synchronous_standby_names = '*'");
    node.reload();
    judge(&node, Some(&standby), "serializable", Level::Snapshot, 60);
}
