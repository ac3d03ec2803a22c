//! Three nodes, synchronous `ANY 1`, and a seed that kills, restarts, cuts off, promotes and rewinds: nothing acknowledged is lost, nobody reads
//! what is taken back later, and all nodes end byte for byte equal.
//!
//! `SOAK_SEED` draws another story, `SOAK_CHANGES` says how often the role of the primary changes hands in it:
//! `SOAK_CHANGES=210 cargo test --release --test e2e soak -- --nocapture`, or `scripts/prove soak`.

use std::time::{Duration, Instant};

use crate::support::lists::{self, Appends, History, Lists};
use crate::support::node::{Node, run, signal};
use crate::support::number;
use crate::support::proxy::Proxy;
use crate::verify::compare;

/// What happens in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The primary's server process dies and comes back.
    PrimaryCrash,
    /// The primary is stopped and started.
    PrimaryRestart,
    /// A standby dies with its supervisor and is started again.
    StandbyCrash,
    /// A standby is stopped and started.
    StandbyRestart,
    /// The connection of one standby hangs half open, and comes back or breaks.
    LinkCut,
    /// The primary loses both standbys for a while: nothing is acknowledged, then all of it.
    Blackout,
    /// The primary is stopped in order, a standby takes over, and the two change roles.
    Switchover,
    /// The primary is gone; the standby that received most takes over, the old primary is rewound.
    Failover,
    /// The primary is cut off from its standbys and not from all its clients; a standby takes over. The old one may acknowledge nothing more than
    /// what the new one has; then it is stopped or killed, and rewound.
    Partition,
    /// The primary stands still; a standby takes over. Woken, it is as one that was cut off.
    Freeze,
}

impl Event {
    fn changes_roles(self) -> bool {
        matches!(self, Self::Switchover | Self::Failover | Self::Partition | Self::Freeze)
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn event(&mut self) -> Event {
        match self.below(14) {
            0 => Event::PrimaryCrash,
            1 => Event::PrimaryRestart,
            2 => Event::StandbyCrash,
            3 => Event::StandbyRestart,
            4 => Event::LinkCut,
            5 => Event::Blackout,
            6 | 7 => Event::Switchover,
            8 | 9 => Event::Partition,
            10 | 11 => Event::Freeze,
            _ => Event::Failover,
        }
    }
}

struct Cluster {
    nodes: Vec<Node>,
    /// What each follows each other through: first who follows, then whom.
    links: Vec<Vec<Proxy>>,
    primary: usize,
    /// Every list there ever was, as it ended.
    lists: Lists,
    steps: u32,
    /// Appends acknowledged, of unknown outcome; lists read.
    counts: (usize, usize, usize),
}

impl Cluster {
    fn new() -> Self {
        let conf = "synchronous_standby_names = 'ANY 1 (n0, n1, n2)'\nwal_keep_size = '256MB'\nwal_receiver_status_interval = 1";
        let n0 = Node::start_new("n0", "wal_keep_size = '256MB'");
        n0.sql(lists::SCHEMA);
        let (n1, n2) = (n0.clone_to("n1"), n0.clone_to("n2"));
        let nodes = vec![n0, n1, n2];
        let links = nodes.iter().map(|_| nodes.iter().map(Proxy::new).collect()).collect();
        let cluster = Self { nodes, links, primary: 0, lists: Lists::new(), steps: 0, counts: (0, 0, 0) };
        for node in &cluster.nodes {
            node.conf(conf);
        }
        for standby in cluster.standbys() {
            cluster.follow(standby);
            cluster.nodes[standby].start();
        }
        cluster.primary().reload();
        cluster.settle();
        cluster
    }

    fn primary(&self) -> &Node {
        &self.nodes[self.primary]
    }

    fn standbys(&self) -> [usize; 2] {
        [(self.primary + 1) % 3, (self.primary + 2) % 3]
    }

    fn link(&self, standby: usize) -> &Proxy {
        &self.links[standby][self.primary]
    }

    /// Points a node at the primary.
    fn follow(&self, standby: usize) {
        self.nodes[standby].follow_at(&self.link(standby).conninfo(&self.nodes[standby].name));
    }

    /// Waits until both standbys stream from the primary and have replayed all of it.
    fn settle(&self) {
        self.primary().wait_for("select count(*) from pg_stat_replication where state = 'streaming'", "2");
        for standby in self.standbys() {
            self.primary().wait_for_catchup(&self.nodes[standby]);
        }
    }

    /// Both standbys let go of the primary: what they have received is final, and whatever it acknowledged one of them has.
    fn fence(&self) {
        for standby in self.standbys() {
            self.nodes[standby].follow_at("");
            self.nodes[standby].reload();
        }
        for standby in self.standbys() {
            self.nodes[standby].wait_for("select current_setting('primary_conninfo') || count(*) from pg_stat_wal_receiver", "0");
        }
    }

    /// The standby that received most takes over; the other one follows it. The old primary is down, or its standbys have let go of it.
    fn take_over(&mut self) {
        let [a, b] = self.standbys();
        let at = |n: usize| {
            let received = "select greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn";
            self.nodes[n].sql(received).parse::<u64>().expect("a position")
        };
        let (new, other) = if at(a) >= at(b) { (a, b) } else { (b, a) };
        self.nodes[new].promote();
        self.primary = new;
        self.follow(other);
        self.nodes[other].reload();
    }

    /// The old primary, which is down, follows the new one, rewound to where they parted.
    fn rejoin(&self, old: usize) {
        let node = &self.nodes[old];
        let conf = std::fs::read(node.data().join("postgresql.conf")).expect("postgresql.conf");
        let source = format!("{} dbname=postgres", self.primary().conninfo("rewind"));
        run(node.tool("rewind").arg("-D").arg(node.data()).args(["--source-server", &source, "-N"]));
        // A rewind brings the source's settings along.
        std::fs::write(node.data().join("postgresql.conf"), conf).expect("postgresql.conf");
        self.follow(old);
        node.start();
    }

    /// The standbys take over from a primary that runs on but reaches nobody.
    fn leave_behind(&mut self, load: &Appends, is_silent: bool) {
        let old = self.primary;
        self.fence();
        self.take_over();
        load.at_without(self.primary(), is_silent.then_some(&self.nodes[old]));
        load.wait_for_more(20);
    }

    fn step(&mut self, event: Event, random: &mut Random) {
        let load = Appends::start(&self.nodes, self.primary, self.steps, random.below(u64::MAX >> 33));
        self.steps += 1;
        let [a, b] = self.standbys();
        // One is behind the other, sometimes.
        let (standby, other) = if random.below(2) == 0 { (a, b) } else { (b, a) };
        self.link(standby).delay(Duration::from_millis(random.below(3) * 10));
        self.link(other).delay(Duration::ZERO);
        load.wait_for_more(20 + random.below(60));
        let history = self.happen(event, load, standby, random);
        self.settle();
        self.counts.0 += history.acknowledged();
        self.counts.1 += history.unknown();
        self.counts.2 += history.reads();
        let ended = history.check(self.primary());
        for standby in self.standbys() {
            assert_eq!(lists::all(&self.nodes[standby], self.steps * lists::KEYS - lists::KEYS), ended, "{}", self.nodes[standby].name);
        }
        self.lists.extend(ended);
    }

    fn happen(&mut self, event: Event, load: Appends, standby: usize, random: &mut Random) -> History {
        let old = self.primary;
        match event {
            Event::PrimaryCrash => {
                self.primary().kill_server();
                self.primary().wait_for("select 1", "1");
                load.at(self.primary());
                load.wait_for_more(20);
                load.stop()
            }
            Event::PrimaryRestart => {
                self.primary().restart();
                load.at(self.primary());
                load.wait_for_more(20);
                load.stop()
            }
            Event::StandbyCrash => {
                self.nodes[standby].kill();
                // The other one is enough.
                load.wait_for_more(20);
                self.nodes[standby].start();
                load.stop()
            }
            Event::StandbyRestart => {
                self.nodes[standby].restart();
                load.wait_for_more(20);
                load.stop()
            }
            Event::LinkCut => {
                self.link(standby).stall_all();
                load.wait_for_more(20);
                if random.below(2) == 0 {
                    self.link(standby).cut();
                }
                self.link(standby).release();
                load.stop()
            }
            Event::Blackout => {
                self.standbys().into_iter().for_each(|standby| self.link(standby).stall_all());
                assert_eq!(self.primary().sql("select pg_is_in_recovery()"), "f");
                if random.below(2) == 0 {
                    self.standbys().into_iter().for_each(|standby| self.link(standby).cut());
                }
                self.standbys().into_iter().for_each(|standby| self.link(standby).release());
                load.wait_for_more(20);
                load.stop()
            }
            Event::Switchover => {
                self.primary().stop("fast");
                self.fence();
                self.take_over();
                self.follow(old);
                self.nodes[old].start();
                load.at(self.primary());
                load.wait_for_more(20);
                load.stop()
            }
            Event::Failover => {
                self.primary().kill();
                self.fence();
                self.take_over();
                load.at(self.primary());
                load.wait_for_more(20);
                self.rejoin(old);
                load.stop()
            }
            Event::Partition => {
                let links = self.standbys().map(|standby| (standby, old));
                for (standby, _) in links {
                    self.link(standby).stall_all();
                }
                self.leave_behind(&load, false);
                // Healed: what was held back arrives, at standbys that follow another.
                for (standby, old) in links {
                    self.links[standby][old].release();
                }
                if random.below(2) == 0 {
                    self.nodes[old].stop("fast")
                } else {
                    self.nodes[old].kill()
                }
                self.rejoin(old);
                load.stop()
            }
            Event::Freeze => {
                let stopped = self.primary().server_pids();
                stopped.iter().for_each(|pid| signal(*pid, "STOP"));
                self.leave_behind(&load, true);
                stopped.iter().for_each(|pid| signal(*pid, "CONT"));
                // It serves reads; whoever writes waits for a standby that does not come back.
                self.nodes[old].wait_for("select pg_is_in_recovery()", "f");
                self.nodes[old].kill();
                self.rejoin(old);
                load.stop()
            }
        }
    }

    /// Every list of every step is on every node as it ended, and every page of the standbys is the primary's.
    fn is_equal(&self) {
        for node in &self.nodes {
            assert!(lists::all(node, 0) == self.lists, "lists of {}", node.name);
        }
        for standby in self.standbys() {
            let (code, said) = compare(self.primary(), &self.nodes[standby]);
            assert_eq!(code, Some(0), "{}: {said}", self.nodes[standby].name);
            assert!(said.contains("the same on both") && !said.contains("changed too fast"), "{said}");
            eprintln!("{} and {}: {}", self.primary().name, self.nodes[standby].name, said.trim_end());
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_whatever_dies() {
    let (seed, changes) = (number("SOAK_SEED", 39), number("SOAK_CHANGES", 3));
    let mut random = Random(seed);
    let mut cluster = Cluster::new();
    let mut changed = 0;
    while changed < changes {
        let event = random.event();
        changed += u64::from(event.changes_roles());
        let (primary, began) = (cluster.primary, Instant::now());
        cluster.step(event, &mut random);
        let name = &cluster.nodes[primary].name;
        eprintln!("seed {seed}, step {}, change {changed}: {event:?} of {name}, {:?}", cluster.steps, began.elapsed());
        if event.changes_roles() && changed.is_multiple_of(10) {
            cluster.is_equal();
        }
    }
    cluster.is_equal();
    let (acknowledged, unknown, reads) = cluster.counts;
    eprintln!(
        "seed {seed}: {changed} changes of roles in {} steps; {acknowledged} appends acknowledged, none lost; {unknown} of unknown outcome, {reads} lists read",
        cluster.steps
    );
}
