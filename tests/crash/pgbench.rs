//! The same under pgbench's own load: a killed primary comes back, or its synchronous standby takes over.

use std::process::{Child, Stdio};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::journal::{self, Journal};
use crate::support::node::{Node, until};
use crate::support::number;
use crate::{indexes_agree, rounds, seed};

fn initialized(name: &str) -> Node {
    let node = Node::start_new(name, "");
    node.pgbench(&["-i", "-s", &number("AFTERIMAGE_PGBENCH_SCALE", 1).to_string(), "-q"]);
    node.sql(journal::SCHEMA);
    node
}

/// pgbench in the background, until its server is gone or it is told to end.
fn load(node: &Node, options: &[&str]) -> Child {
    let mut command = node.pgbench_command(&["-c", "8", "-j", "2", "-M", "prepared", "-n", "-T", "600"]);
    command.args(options).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pgbench")
}

fn history(node: &Node) -> u64 {
    node.sql("select count(*) from pgbench_history").parse().expect("a count")
}

/// Transactions pgbench was told had committed, once its server is gone.
fn acknowledged(load: Child) -> u64 {
    let output = load.wait_with_output().expect("pgbench ends");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|l| l.strip_prefix("number of transactions actually processed: "))
        .and_then(|n| n.split('/').next()?.trim().parse().ok())
        .expect("pgbench says how many it did")
}

/// What must hold of a node that came back or took over: `least` rows of history at the least. Returns how many there are.
fn check(node: &Node, least: u64) -> u64 {
    let history = history(node);
    assert!(history >= least, "pgbench was told of {least} commits, {history} are there");
    node.assert_pgbench_adds_up();
    indexes_agree(node, "pgbench_accounts", "aid");
    history
}

#[test]
fn a_killed_primary_comes_back_with_every_acknowledged_commit() {
    let mut rng = StdRng::seed_from_u64(seed());
    let node = initialized("tpcb");
    let (mut there, mut told) = (0, 0);
    for round in 0..rounds() {
        let load = load(&node, &[]);
        let journal = Journal::start(&node, 2);
        let more = rng.random_range(50..600);
        until("pgbench to get going", || history(&node) >= there + more);
        journal.wait_for(rng.random_range(1..50));
        node.kill();
        let outcome = journal.stop();
        let processed = acknowledged(load);
        node.start();
        // What was committed without the client hearing of it counts as well.
        there = check(&node, there + processed);
        outcome.check(&node);
        node.sql("truncate journal, counter");
        told += processed + outcome.count();
        println!("round {round}: {processed} transactions of pgbench and {} of the journal acknowledged", outcome.count());
    }
    println!("{told} commits acknowledged, none lost");
}

#[test]
fn a_synchronous_standby_takes_over_with_every_acknowledged_commit() {
    let mut rng = StdRng::seed_from_u64(seed());
    let mut primary = initialized("n0");
    let (mut there, mut told) = (0, 0);
    for round in 1..=number("AFTERIMAGE_FAILOVER_ROUNDS", 2) {
        let name = format!("n{round}");
        let standby = primary.standby(&name);
        // Its own, for when it is the primary; a clone brings its upstream's.
        standby.conf("synchronous_standby_names = ''");
        standby.reload();
        primary.conf(&format!("synchronous_standby_names = '{name}'"));
        primary.reload();
        primary.wait_for("select sync_state from pg_stat_replication", "sync");
        let writes = load(&primary, &[]);
        let mut reads = load(&standby, &["-S"]);
        let journal = Journal::start(&primary, 4);
        let more = rng.random_range(50..600);
        until("pgbench to get going", || history(&primary) >= there + more);
        journal.wait_for(rng.random_range(50..300));
        primary.kill();
        let outcome = journal.stop();
        let processed = acknowledged(writes);
        standby.promote();
        assert!(reads.try_wait().expect("pgbench's state").is_none(), "the readers of the standby were sent away");
        reads.kill().expect("pgbench ends");
        drop(reads.wait());
        there = check(&standby, there + processed);
        outcome.check(&standby);
        standby.sql("truncate journal, counter");
        told += processed + outcome.count();
        println!("round {round}: {processed} transactions of pgbench and {} of the journal acknowledged", outcome.count());
        primary = standby;
    }
    println!("{told} commits acknowledged, none lost");
}
