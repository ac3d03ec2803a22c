//! A load of list appends, every operation written down on the client's side: what was acknowledged, what failed, what nobody can tell.
//!
//! Clients append unique numbers to lists, one or two in a transaction, roll some back, and read lists on all nodes. The lists at the end say in
//! which order it all happened. An acknowledged number is in its list once, a failed one is not, one of unknown outcome is in all its lists or in
//! none; what anybody ever read, wherever, is how a list began.

use std::collections::{BTreeMap, HashMap};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

use super::node::{Node, PATIENCE};

/// The table the load uses.
pub const SCHEMA: &str = "create table list (key int primary key, v bigint[] not null)";

/// Lists in use at a time.
pub const KEYS: u32 = 6;
/// So many numbers each client may append.
const VALUES: u64 = 1_000_000_000;

/// Numbers by list.
pub type Lists = BTreeMap<u32, Vec<u64>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Acknowledged,
    /// Nobody can tell.
    Unknown,
    /// An error undid it, or it was rolled back.
    Failed,
}

#[derive(Debug)]
struct Append {
    keys: Vec<u32>,
    value: u64,
    outcome: Outcome,
}

#[derive(Debug)]
struct Read {
    node: usize,
    key: u32,
    list: Vec<u64>,
}

/// What one client did, in order.
#[derive(Debug, Default)]
struct Record {
    appends: Vec<Append>,
    reads: Vec<Read>,
}

/// Where clients go; another number tells them to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    number: u64,
    port: u16,
    /// Who does not answer at all.
    silent: Option<u16>,
}

/// A running load.
pub struct Appends {
    runtime: Runtime,
    place: watch::Sender<Place>,
    ended: watch::Sender<bool>,
    acknowledged: watch::Sender<u64>,
    clients: Vec<JoinHandle<Record>>,
    first_key: u32,
}

/// What the load saw when it ended.
#[derive(Debug)]
pub struct History {
    clients: Vec<Record>,
    first_key: u32,
}

struct Session {
    ports: Vec<u16>,
    place: watch::Receiver<Place>,
    ended: watch::Receiver<bool>,
    acknowledged: watch::Sender<u64>,
    /// Leaves a primary that does not answer as soon as there is another.
    leaves: bool,
    first_key: u32,
    next: u64,
    rng: StdRng,
    readers: Vec<Option<Client>>,
    record: Record,
}

impl Appends {
    /// Makes new lists on the primary, number `round`, and starts clients. Every second one stays with a primary that does not answer until the
    /// connection ends.
    pub fn start(nodes: &[Node], primary: usize, round: u32, seed: u64) -> Self {
        let first_key = round * KEYS;
        nodes[primary].sql(&format!("insert into list select g, '{{}}' from generate_series({first_key}, {first_key} + {KEYS} - 1) g"));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (place, ended) = (watch::Sender::new(Place { number: 0, port: nodes[primary].port, silent: None }), watch::Sender::new(false));
        let acknowledged = watch::Sender::new(0);
        let clients = (0..4)
            .map(|client| {
                let session = Session {
                    ports: nodes.iter().map(|node| node.port).collect(),
                    place: place.subscribe(),
                    ended: ended.subscribe(),
                    acknowledged: acknowledged.clone(),
                    leaves: client % 2 == 1,
                    first_key,
                    next: (u64::from(round) * 4 + client + 1) * VALUES,
                    rng: StdRng::seed_from_u64(seed ^ client),
                    readers: nodes.iter().map(|_| None).collect(),
                    record: Record::default(),
                };
                runtime.spawn(session.run())
            })
            .collect();
        Self { runtime, place, ended, acknowledged, clients, first_key }
    }

    /// Where the primary is, and that it is there: those who lost their connection come back.
    pub fn at(&self, primary: &Node) {
        self.at_without(primary, None);
    }

    /// As [`Appends::at`]; one node does not answer and is not asked.
    pub fn at_without(&self, primary: &Node, silent: Option<&Node>) {
        let (port, silent) = (primary.port, silent.map(|node| node.port));
        self.place.send_modify(|place| *place = Place { number: place.number + 1, port, silent });
    }

    /// Waits for so many more acknowledgements.
    pub fn wait_for_more(&self, n: u64) {
        let mut acknowledged = self.acknowledged.subscribe();
        let target = *acknowledged.borrow() + n;
        let reached = acknowledged.wait_for(|n| *n >= target);
        let in_time = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, reached).await.is_ok() });
        assert!(in_time, "waited in vain for {n} acknowledgements");
    }

    /// Ends the load. Nobody may still wait for a primary that does not answer.
    pub fn stop(self) -> History {
        self.ended.send_replace(true);
        let clients = self.clients.into_iter().map(|client| {
            let ended = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, client).await });
            ended.expect("a client ends in time").expect("a client does not panic")
        });
        History { clients: clients.collect(), first_key: self.first_key }
    }
}

async fn connect(port: u16) -> Result<Client, Error> {
    let conninfo = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres application_name=lists");
    let (client, connection) = tokio_postgres::connect(&conninfo, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Whether only the statement failed: it is undone, and the session goes on.
fn is_undone(error: &Error) -> bool {
    error.as_db_error().is_some_and(|e| e.severity() == "ERROR")
}

/// Appends a number to lists in one transaction, to be committed or rolled back.
async fn append(client: &Client, keys: &[u32], value: u64, commits: bool) -> Outcome {
    let update = |key: &u32| format!("update list set v = v || {value}::bigint where key = {key}");
    if let ([key], true) = (keys, commits) {
        return match client.simple_query(&update(key)).await {
            Ok(_) => Outcome::Acknowledged,
            Err(e) if is_undone(&e) => Outcome::Failed,
            Err(_) => Outcome::Unknown,
        };
    }
    for sql in std::iter::once("begin".to_owned()).chain(keys.iter().map(update)) {
        if client.simple_query(&sql).await.is_err() {
            drop(client.simple_query("rollback").await);
            return Outcome::Failed;
        }
    }
    match client.simple_query(if commits { "commit" } else { "rollback" }).await {
        Ok(_) if commits => Outcome::Acknowledged,
        Err(e) if commits && !is_undone(&e) => Outcome::Unknown,
        Ok(_) | Err(_) => Outcome::Failed,
    }
}

fn numbers(list: &str) -> Vec<u64> {
    list.trim_matches(['{', '}']).split(',').filter(|n| !n.is_empty()).map(|n| n.parse().expect("a number")).collect()
}

async fn read(client: &Client, key: u32) -> Option<Vec<u64>> {
    let messages = client.simple_query(&format!("select v from list where key = {key}")).await.ok()?;
    // A standby may not have heard of the list yet.
    messages.iter().find_map(|m| if let SimpleQueryMessage::Row(row) = m { row.get(0).map(numbers) } else { None })
}

impl Session {
    async fn run(mut self) -> Record {
        while !*self.ended.borrow() {
            let place = *self.place.borrow_and_update();
            if let Ok(client) = connect(place.port).await {
                self.work(&client, place).await;
            }
            // The connection is over. There is nothing to do before the story says where to go.
            tokio::select! {
                _ = self.place.wait_for(|now| *now != place) => {}
                _ = self.ended.wait_for(|ended| *ended) => {}
            }
        }
        self.record
    }

    /// Until the connection ends, or somebody else is primary.
    async fn work(&mut self, client: &Client, place: Place) {
        while !(client.is_closed() || *self.ended.borrow() || (self.leaves && *self.place.borrow() != place)) {
            let mut keys = vec![self.key()];
            if self.rng.random_bool(0.2) {
                keys.push(self.key());
                // In one order: nobody waits for each other in a circle.
                keys.sort_unstable();
                keys.dedup();
            }
            let commits = self.rng.random_bool(0.9);
            let value = self.next;
            self.next += 1;
            let mut elsewhere = self.place.clone();
            let outcome = tokio::select! {
                outcome = append(client, &keys, value, commits) => outcome,
                _ = elsewhere.wait_for(|now| *now != place), if self.leaves => if commits { Outcome::Unknown } else { Outcome::Failed },
            };
            if outcome == Outcome::Acknowledged {
                self.acknowledged.send_modify(|n| *n += 1);
            }
            self.record.appends.push(Append { keys, value, outcome });
            if self.rng.random_bool(0.5) {
                tokio::select! {
                    () = self.read_somewhere() => {}
                    _ = elsewhere.wait_for(|now| *now != place), if self.leaves => {}
                }
            }
        }
    }

    fn key(&mut self) -> u32 {
        self.first_key + self.rng.random_range(0..KEYS)
    }

    async fn read_somewhere(&mut self) {
        let (node, key) = (self.rng.random_range(0..self.ports.len()), self.key());
        if self.place.borrow().silent == Some(self.ports[node]) {
            return;
        }
        let client = match self.readers[node].take() {
            Some(client) => client,
            None => match connect(self.ports[node]).await {
                Ok(client) => client,
                Err(_) => return,
            },
        };
        if let Some(list) = read(&client, key).await {
            self.record.reads.push(Read { node, key, list });
        }
        if !client.is_closed() {
            self.readers[node] = Some(client);
        }
    }
}

/// All lists of a node from number `first` on.
pub fn all(node: &Node, first: u32) -> Lists {
    let rows = node.sql(&format!("select key, v from list where key >= {first} order by key"));
    rows.lines()
        .map(|row| {
            let (key, list) = row.split_once('|').expect("key and list");
            (key.parse().expect("a number"), numbers(list))
        })
        .collect()
}

impl History {
    /// Acknowledged appends.
    pub fn acknowledged(&self) -> usize {
        self.count(Outcome::Acknowledged)
    }

    /// Appends of unknown outcome.
    pub fn unknown(&self) -> usize {
        self.count(Outcome::Unknown)
    }

    /// Lists read.
    pub fn reads(&self) -> usize {
        self.clients.iter().map(|c| c.reads.len()).sum()
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.clients.iter().flat_map(|c| &c.appends).filter(|a| a.outcome == outcome).count()
    }

    /// Judges the lists as they are in the end, which it returns.
    pub fn check(&self, node: &Node) -> Lists {
        let lists = all(node, self.first_key);
        let found = self.wrong(&lists);
        assert!(found.is_empty(), "{}: {found:#?}", node.name);
        lists
    }

    /// What is wrong with these lists, after all this.
    pub fn wrong(&self, lists: &Lists) -> Vec<String> {
        let mut found = Vec::new();
        // Where each number is: list and place.
        let mut places: HashMap<u64, Vec<(u32, usize)>> = HashMap::new();
        for (key, list) in lists {
            for (at, value) in list.iter().enumerate() {
                places.entry(*value).or_default().push((*key, at));
            }
        }
        for (number, client) in self.clients.iter().enumerate() {
            let mut last: HashMap<u32, usize> = HashMap::new();
            for append in &client.appends {
                let mut there = places.remove(&append.value).unwrap_or_default();
                there.sort_unstable();
                let complete = there.iter().map(|(key, _)| key).eq(&append.keys);
                let fine = match append.outcome {
                    Outcome::Acknowledged => complete,
                    Outcome::Unknown => complete || there.is_empty(),
                    Outcome::Failed => there.is_empty(),
                };
                if !fine {
                    found.push(format!("client {number}: {append:?} is at {there:?}"));
                }
                for (key, at) in there {
                    if last.insert(key, at).is_some_and(|before| before > at) {
                        found.push(format!("client {number}: {append:?} comes before what it appended earlier"));
                    }
                }
            }
            for read in &client.reads {
                if !lists.get(&read.key).is_some_and(|list| list.starts_with(&read.list)) {
                    found.push(format!("client {number}: {read:?} is not how that list begins: {:?}", lists.get(&read.key)));
                }
            }
        }
        found.extend(places.into_iter().map(|(value, there)| format!("{value} was never sent and is at {there:?}")));
        found
    }
}

#[test]
fn the_judge_of_lists_sees_what_is_lost_doubled_half_done_made_up_and_out_of_order() {
    let append = |keys: &[u32], value, outcome| Append { keys: keys.to_vec(), value, outcome };
    let history = History {
        clients: vec![
            Record {
                appends: vec![
                    append(&[1], 11, Outcome::Acknowledged),
                    append(&[1, 2], 12, Outcome::Acknowledged),
                    append(&[1, 2], 13, Outcome::Unknown),
                    append(&[2], 14, Outcome::Failed),
                ],
                reads: vec![Read { node: 0, key: 1, list: vec![11] }],
            },
            Record { appends: vec![append(&[1], 21, Outcome::Acknowledged)], reads: vec![Read { node: 1, key: 1, list: vec![11, 21] }] },
        ],
        first_key: 1,
    };
    let wrong = |one: &[u64], two: &[u64]| history.wrong(&Lists::from([(1, one.to_vec()), (2, two.to_vec())])).len();
    assert_eq!(wrong(&[11, 21, 12], &[12]), 0);
    assert_eq!(wrong(&[11, 21, 12, 13], &[12, 13]), 0);
    for (what, one, two) in [
        ("lost", &[11, 21, 12][..], &[][..]),
        ("twice", &[11, 21, 12, 12], &[12]),
        ("half of it", &[11, 21, 12, 13], &[12]),
        ("failed and there", &[11, 21, 12], &[12, 14]),
        ("never sent", &[11, 21, 12, 99], &[12]),
        ("another order than was read", &[11, 12, 21], &[12]),
        ("a client's own order", &[11, 21, 13, 12], &[12, 13]),
    ] {
        assert!(wrong(one, two) > 0, "{what}");
    }
}
