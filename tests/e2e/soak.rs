//! Three nodes, synchronous `ANY 1`, and a seed that kills, restarts, cuts off, promotes and rewinds: nothing acknowledged is lost, and all nodes
//! end equal.
//!
//! `SOAK_SEED` draws another story, `SOAK_CHANGES` says how often the role of the primary changes hands in it:
//! `SOAK_CHANGES=210 cargo test --release --test e2e soak -- --nocapture`, or `scripts/prove soak`.

use crate::support::journal::{self, Journal};
use crate::support::node::{Node, run, signal};
use crate::support::number;

/// What happens in one step.
#[derive(Debug)]
enum Event {
    /// The primary's server process dies and comes back.
    PrimaryCrash,
    /// A standby dies with its supervisor and is started again.
    StandbyCrash,
    /// A standby is stopped and started.
    StandbyRestart,
    /// The primary is stopped in order, a standby takes over, and the two change roles.
    Switchover,
    /// The primary is gone; the standby that received most takes over, the old primary is rewound.
    Failover,
    /// The primary stands still, as one that is cut off does for the others; a standby takes over. Woken, the old one may acknowledge nothing more
    /// than what the new one has; then it is rewound.
    Partition,
}

impl Event {
    fn changes_roles(&self) -> bool {
        matches!(self, Self::Switchover | Self::Failover | Self::Partition)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn event(&mut self) -> Event {
        match self.below(7) {
            0 => Event::PrimaryCrash,
            1 => Event::StandbyCrash,
            2 => Event::StandbyRestart,
            3 => Event::Switchover,
            4 => Event::Partition,
            _ => Event::Failover,
        }
    }
}

struct Cluster {
    nodes: Vec<Node>,
    primary: usize,
}

impl Cluster {
    fn new() -> Self {
        let conf = "synchronous_standby_names = 'ANY 1 (n0, n1, n2)'\nwal_keep_size = '256MB'\nwal_receiver_status_interval = 1";
        let n0 = Node::start_new("n0", "wal_keep_size = '256MB'");
        n0.sql(journal::SCHEMA);
        let (n1, n2) = (n0.clone_to("n1"), n0.clone_to("n2"));
        for node in [&n0, &n1, &n2] {
            node.conf(conf);
        }
        n1.start();
        n2.start();
        n0.reload();
        let cluster = Self { nodes: vec![n0, n1, n2], primary: 0 };
        cluster.settle();
        cluster
    }

    fn primary(&self) -> &Node {
        &self.nodes[self.primary]
    }

    fn standbys(&self) -> [usize; 2] {
        [(self.primary + 1) % 3, (self.primary + 2) % 3]
    }

    /// Waits until both standbys stream from the primary and have replayed all of it.
    fn settle(&self) {
        self.primary().wait_for("select count(*) from pg_stat_replication where state = 'streaming'", "2");
        for standby in self.standbys() {
            self.primary().wait_for_catchup(&self.nodes[standby]);
        }
    }

    /// The standby that received most.
    fn furthest(&self) -> usize {
        let [a, b] = self.standbys();
        let at = |n: usize| {
            self.nodes[n]
                .sql("select coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn")
                .parse::<u64>()
                .expect("a position")
        };
        if at(a) >= at(b) { a } else { b }
    }

    /// Makes `new` the primary; the others follow it. The old primary is down.
    fn take_over(&mut self, new: usize) {
        let old = self.primary;
        self.nodes[new].promote();
        self.primary = new;
        let other = 3 - old - new;
        self.nodes[other].follow(&self.nodes[new]);
        self.nodes[other].reload();
    }

    /// The old primary follows the new one, rewound if it went its own way.
    fn rejoin(&self, old: usize) {
        let node = &self.nodes[old];
        let conf = std::fs::read(node.data().join("postgresql.conf")).expect("postgresql.conf");
        let source = format!("{} dbname=postgres", self.primary().conninfo("rewind"));
        run(node.tool("rewind").arg("-D").arg(node.data()).args(["--source-server", &source, "-N"]));
        // A rewind brings the source's settings along.
        std::fs::write(node.data().join("postgresql.conf"), conf).expect("postgresql.conf");
        node.follow(self.primary());
        node.start();
    }

    fn step(&mut self, event: &Event, random: &mut Random) {
        let load = Journal::start(self.primary(), 3);
        load.wait_for(20 + random.below(60));
        let [a, b] = self.standbys();
        let standby = if random.below(2) == 0 { a } else { b };
        let outcome = match event {
            Event::PrimaryCrash => {
                self.primary().kill_server();
                let outcome = load.stop();
                self.primary().wait_for("select 1", "1");
                outcome
            }
            Event::StandbyCrash => {
                self.nodes[standby].kill();
                // The other one is enough.
                let so_far = load.count();
                load.wait_for(so_far + 20);
                self.nodes[standby].start();
                load.stop()
            }
            Event::StandbyRestart => {
                self.nodes[standby].restart();
                let so_far = load.count();
                load.wait_for(so_far + 20);
                load.stop()
            }
            Event::Switchover => {
                let old = self.primary;
                self.primary().stop("fast");
                let outcome = load.stop();
                let new = self.furthest();
                self.take_over(new);
                self.nodes[old].follow(&self.nodes[new]);
                self.nodes[old].start();
                outcome
            }
            Event::Failover => {
                let old = self.primary;
                self.primary().kill();
                let outcome = load.stop();
                let new = self.furthest();
                self.take_over(new);
                self.rejoin(old);
                outcome
            }
            Event::Partition => {
                let old = self.primary;
                let stopped = self.primary().server_pids();
                stopped.iter().for_each(|pid| signal(*pid, "STOP"));
                let new = self.furthest();
                self.take_over(new);
                self.nodes[new].sql("insert into counter values (-1, 0)");
                stopped.iter().for_each(|pid| signal(*pid, "CONT"));
                // It serves reads; whoever writes waits for a standby that does not come back.
                self.nodes[old].wait_for("select count(*) from counter where client = -1", "0");
                self.nodes[old].kill();
                let outcome = load.stop();
                self.rejoin(old);
                outcome
            }
        };
        outcome.check(self.primary());
        self.settle();
        let [a, b] = self.standbys();
        let expected = self.primary().table_hashes();
        for standby in [a, b] {
            assert_eq!(self.nodes[standby].table_hashes(), expected, "{}", self.nodes[standby].name);
        }
        self.primary().sql("truncate journal, counter");
    }
}

#[test]
fn nothing_acknowledged_is_lost_whatever_dies() {
    let (seed, changes) = (number("SOAK_SEED", 39), number("SOAK_CHANGES", 3));
    let mut random = Random(seed);
    let mut cluster = Cluster::new();
    let (mut changed, mut step) = (0, 0);
    while changed < changes {
        let event = random.event();
        step += 1;
        changed += u64::from(event.changes_roles());
        eprintln!("seed {seed}, step {step}, change {changed}: {event:?} of {}", cluster.primary().name);
        cluster.step(&event, &mut random);
    }
}
