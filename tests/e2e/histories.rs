//! Random transactions of many sessions, on the primary and on its standby, judged by what they read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::client::{block_on, connect, text, try_connect};
use crate::support::histories::{Level, Op, Txn, adya_finds, anomalies};
use crate::support::node::{Node, PATIENCE};
use crate::support::number;

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
    const LEVELS: [Level; 3] = [Level::ReadCommitted, Level::Snapshot, Level::Serializable];
    let by = |h: &[Txn]| {
        let ours = LEVELS.map(|l| !anomalies(h, l).is_empty());
        for (level, found) in LEVELS.into_iter().zip(ours) {
            assert!(found || adya_finds(h, level).is_empty(), "{level:?}: {:?}", adya_finds(h, level));
        }
        ours
    };
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
    // The other judge is young: it must see what was planted too. An append that nobody reads again is not its matter.
    let seen = |h: &[Txn]| LEVELS.map(|l| !adya_finds(h, l).is_empty());
    assert_eq!(seen(&skew), [false, false, true]);
    assert_eq!(seen(&fork), [false, true, true]);
    assert_eq!(seen(&half), [false, true, true]);
    for history in [&flow, &dirty, &part, &aborted] {
        assert_eq!(seen(history), [true; 3], "{history:?}");
    }
}

fn list_of(messages: &[SimpleQueryMessage]) -> Vec<u64> {
    let text = messages.iter().find_map(|m| if let SimpleQueryMessage::Row(r) = m { r.get(0) } else { None }).unwrap_or("{}");
    text.trim_matches(['{', '}']).split(',').filter(|n| !n.is_empty()).map(|n| n.parse().expect("a number")).collect()
}

/// Whether an error ended the connection, so that nobody said what came of the statement.
fn is_gone(e: &Error) -> bool {
    e.as_db_error().is_none_or(|e| e.code().code().starts_with("57P"))
}

/// One transaction. `None`: the connection ended at its COMMIT, and it may have committed or not.
async fn run(c: &Client, level: &str, session: usize, rng: &mut StdRng, next: &mut u64, writes: bool) -> (Txn, Option<bool>) {
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
    let outcome = match c.simple_query(if commit { "commit" } else { "rollback" }).await {
        Ok(_) => Some(commit),
        Err(e) if commit && is_gone(&e) => None,
        Err(_) => Some(false),
    };
    (Txn { session, ops, committed: outcome == Some(true) }, outcome)
}

/// A session of a node that may just be down.
async fn reconnect(conninfo: &str) -> Client {
    loop {
        match try_connect(conninfo).await {
            Ok(c) => return c,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Runs sessions on both nodes and judges what they saw; how many transactions committed. `kills`: so often the primary's server is killed
/// meanwhile, and started again by its supervisor.
fn judge(primary: &Node, standby: Option<&Node>, level: &'static str, promised: Level, transactions: usize, kills: u64) -> usize {
    let seed: u64 = rand::rng().random();
    println!("{level}: seed {seed}");
    block_on(async {
        let c = connect(primary).await;
        text(&c, "drop table if exists lists; create table lists (id int primary key, v bigint[] not null)").await;
        text(&c, &format!("insert into lists select g, '{{}}' from generate_series(0, {}) g", KEYS - 1)).await;
        if let Some(s) = standby {
            primary.wait_for_catchup(s);
        }
        let done = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for session in 0..6_usize {
            // Two read only, on the standby if there is one.
            let writes = session < 4;
            let conninfo = standby.filter(|_| !writes).unwrap_or(primary).conninfo("e2e");
            let level = if writes || standby.is_none() { level } else { "repeatable read" };
            let mut rng = StdRng::seed_from_u64(seed.wrapping_add(u64::try_from(session).expect("small")));
            let done = Arc::clone(&done);
            tasks.push(tokio::spawn(async move {
                let mut c = reconnect(&conninfo).await;
                let (mut all, mut next) = (Vec::new(), 1);
                for _ in 0..transactions {
                    all.push(run(&c, level, session, &mut rng, &mut next, writes).await);
                    done.fetch_add(1, Ordering::Relaxed);
                    if c.simple_query("").await.is_err() {
                        c = reconnect(&conninfo).await;
                    }
                }
                all
            }));
        }
        let all = u64::try_from(6 * transactions).expect("small");
        for n in 1..=kills {
            // Spread over the run; the last transactions find it up again.
            let deadline = tokio::time::Instant::now() + PATIENCE * 5;
            while done.load(Ordering::Relaxed) < all * n / (kills + 2) {
                assert!(tokio::time::Instant::now() < deadline, "seed {seed}: transactions stand still");
                tokio::task::yield_now().await;
            }
            primary.kill_server();
        }
        let mut history = Vec::new();
        for task in tasks {
            history.extend(tokio::time::timeout(PATIENCE * 5, task).await.expect("in time").expect("joined"));
        }
        let c = reconnect(&primary.conninfo("e2e")).await;
        let mut ops = Vec::new();
        for key in 0..KEYS {
            let messages = c.simple_query(&format!("select v from lists where id = {key}")).await.expect("a list");
            ops.push(Op::Read { key, list: list_of(&messages) });
        }
        // What nobody was told is seen at the end. Who only read and was told nothing may be left out.
        let kept = |t: &Txn| {
            let there = |op: &Op| matches!(op, Op::Append { key, value } if ops.iter().any(|o| matches!(o, Op::Read { key: k, list } if k == key && list.contains(value))));
            t.ops.iter().any(there)
        };
        let mut history: Vec<Txn> =
            history.into_iter().map(|(t, outcome)| Txn { committed: outcome.unwrap_or_else(|| kept(&t)), ..t }).collect();
        history.push(Txn { session: 6, ops, committed: true });
        let committed = history.iter().filter(|t| t.committed).count();
        assert!(committed > transactions, "only {committed} committed");
        let mut found = anomalies(&history, promised);
        found.extend(adya_finds(&history, promised));
        assert!(found.is_empty(), "seed {seed}: {found:#?}");
        committed
    })
}

#[test]
fn levels_keep_their_promises() {
    let node = Node::start_new("histories", "deadlock_timeout = '10ms'");
    judge(&node, None, "read committed", Level::ReadCommitted, 60, 0);
    judge(&node, None, "repeatable read", Level::Snapshot, 60, 0);
    judge(&node, None, "serializable", Level::Serializable, 60, 0);
}

#[test]
fn readers_on_primary_and_standby_see_one_order() {
    let node = Node::start_new("orders", "deadlock_timeout = '10ms'");
    let standby = node.standby("orders_standby");
    judge(&node, Some(&standby), "repeatable read", Level::Snapshot, 60, 0);
    // With a synchronous standby readers here stay at what it has.
    node.conf("synchronous_standby_names = '*'");
    node.reload();
    judge(&node, Some(&standby), "serializable", Level::Snapshot, 60, 0);
}

/// `AFTERIMAGE_HISTORY_TRANSACTIONS=100000` makes it long: rounds of some hundred transactions, each with fresh lists and a kill.
///
/// A killed process loses nothing that the kernel has, so nothing is synced here; what a power cut does is for the simulation.
#[test]
fn levels_keep_their_promises_through_crashes() {
    let node = Node::start_new("crashes", "deadlock_timeout = '10ms'\nfsync = off");
    let standby = node.standby("crashes_standby");
    let wanted = usize::try_from(number("AFTERIMAGE_HISTORY_TRANSACTIONS", 1000)).expect("a number");
    let (mut ran, mut committed) = (0, 0);
    let levels = [("read committed", Level::ReadCommitted), ("repeatable read", Level::Snapshot), ("serializable", Level::Serializable)];
    for (level, promised) in levels.into_iter().cycle() {
        // Readers on the standby see snapshots: with them the promise is one order for all, not a serial one.
        let with = if promised == Level::Serializable { None } else { Some(&standby) };
        committed += judge(&node, with, level, promised, 60, 1);
        ran += 360;
        if ran >= wanted {
            break;
        }
    }
    println!("{ran} transactions, {committed} committed");
}
