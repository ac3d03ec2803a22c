//! SIGKILL under load, again and again, on one data directory: nothing acknowledged is lost, nothing half done shows, indexes and
//! heap agree.
//!
//! `AFTERIMAGE_CRASH_ROUNDS` (6), `AFTERIMAGE_DDL_ROUNDS` (3), `AFTERIMAGE_FAILOVER_ROUNDS` (2), `AFTERIMAGE_PGBENCH_SCALE` (1) and `AFTERIMAGE_SEED`
//! (printed) choose the run.

#[path = "../support/mod.rs"]
mod support;

mod bank;
mod ddl;
mod pgbench;

use std::time::{Duration, Instant};

use bank::Bank;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::journal::{self, Journal};
use support::node::{Node, holds_within, until};
use support::number;

fn seed() -> u64 {
    let seed = number("AFTERIMAGE_SEED", 1);
    println!("AFTERIMAGE_SEED={seed}");
    seed
}

fn rounds() -> u64 {
    number("AFTERIMAGE_CRASH_ROUNDS", 6)
}

/// Rows through the index and rows through the heap are the same, and each is where the other says.
fn indexes_agree(node: &Node, table: &str, key: &str) {
    let sum = format!(
        "select count(*), coalesce(sum({key}), 0), coalesce(min({key}), 0), coalesce(max({key}), 0) from {table} where {key} > -1000000000"
    );
    let answers = node.sql(&format!(
        "set enable_indexscan = off; set enable_indexonlyscan = off; set enable_bitmapscan = off; {sum}; reset all; \
         set enable_seqscan = off; {sum}; explain {sum}; \
         select bt_index_check(indexrelid::regclass, true) from pg_index where indrelid = '{table}'::regclass"
    ));
    let mut lines = answers.lines();
    assert_eq!(lines.next(), lines.next(), "{table} by {key}");
    assert!(answers.contains("Index") && !answers.contains("Seq Scan"), "{answers}");
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let mut rng = StdRng::seed_from_u64(seed());
    let node = Node::start_new("crash", "checkpoint_timeout = 30s\nmax_wal_size = 32MB\nshared_buffers = 4MB");
    node.sql(journal::SCHEMA);
    Bank::create(&node);
    let whole = Instant::now();
    let mut slowest = Duration::ZERO;
    let (mut acknowledged, mut moved) = (0, 0);
    for round in 0..rounds() {
        let journal = Journal::start(&node, 3);
        let bank = Bank::start(&node, 3, rng.random());
        journal.wait_for(rng.random_range(1..300));
        // Now and then in the middle of a checkpoint or a vacuum.
        let busy = match rng.random_range(0..4) {
            0 => node.psql("checkpoint").spawn().ok(),
            1 => node.psql("vacuum account").spawn().ok(),
            _ => None,
        };
        let restarts_itself = rng.random_bool(0.3);
        let before = node.server_pids();
        if restarts_itself {
            node.kill_server();
        } else {
            node.kill();
        }
        let outcome = journal.stop();
        moved += bank.stop();
        if let Some(mut psql) = busy {
            drop(psql.wait());
        }
        let began = Instant::now();
        if restarts_itself {
            until("the supervisor to start another server", || {
                let now = node.server_pids();
                !now.is_empty() && now != before
            });
            node.wait_for("select 1", "1");
        } else {
            // Killed once more, while it recovers.
            if rng.random_bool(0.3) {
                let mut start = node
                    .tool("start")
                    .arg("-D")
                    .arg(node.data())
                    .args(["-W", "-l"])
                    .arg(node.home.path().join("log"))
                    .spawn()
                    .expect("start");
                drop(start.wait());
                // It may not have come so far as to say who it is.
                until("the supervisor to be there", || node.pid().is_some_and(support::node::is_running));
                let wait = Duration::from_micros(rng.random_range(0..80_000));
                holds_within(wait, || false);
                node.kill();
            }
            node.start();
        }
        let back = began.elapsed();
        slowest = slowest.max(back);
        acknowledged += outcome.count();
        outcome.check(&node);
        Bank::check(&node);
        indexes_agree(&node, "account", "id");
        indexes_agree(&node, "account", "balance");
        indexes_agree(&node, "journal", "client");
        node.sql("truncate journal, counter");
        println!("round {round}: {} commits acknowledged, back after {back:?}, checked after {:?}", outcome.count(), began.elapsed());
    }
    println!(
        "{acknowledged} commits and {moved} transfers acknowledged, none lost; slowest start {slowest:?}; {:?} in all",
        whole.elapsed()
    );
}

#[test]
fn a_table_larger_than_memory_survives() {
    let node = Node::start_new("large", "shared_buffers = 2MB\nmax_wal_size = 64MB");
    node.sql("create table big (id int primary key, v text, n int); create index big_n on big (n)");
    node.sql("insert into big select g, repeat('x', 200), g % 1000 from generate_series(1, 80000) g");
    assert_eq!(node.sql("select pg_relation_size('big') > 10 * 2 * 1024 * 1024 - 4 * 1024 * 1024"), "t");
    node.sql("update big set n = n + 1000 where id % 7 = 0; delete from big where id % 11 = 0");
    let hash = "select count(*), sum(n), sum(length(v)), count(distinct n) from big";
    let before = node.sql(hash);
    node.kill();
    node.start();
    assert_eq!(node.sql(hash), before);
    indexes_agree(&node, "big", "id");
    indexes_agree(&node, "big", "n");
    node.restart();
    assert_eq!(node.sql(hash), before);
}
