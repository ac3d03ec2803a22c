//! A load that writes down, on the client's side, which commits were acknowledged.
//!
//! Each client inserts `(client, n)` for n = 1, 2, .. one transaction each, and updates a counter row in the same transaction.
//! After a crash or failover every acknowledged pair must be there, and nothing that was never sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use tokio_postgres::NoTls;

use super::node::{Node, until};

/// A running load.
pub struct Journal {
    acknowledged: Vec<Arc<AtomicU64>>,
    sent: Vec<Arc<AtomicU64>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

/// What the load saw when it ended.
#[derive(Debug)]
pub struct Outcome {
    /// Highest n each client has an acknowledgement for.
    pub acknowledged: Vec<u64>,
    /// Highest n each client sent.
    pub sent: Vec<u64>,
}

/// The tables the load uses.
pub const SCHEMA: &str = "create table journal (client int, n bigint, primary key (client, n)); create table counter (client int primary key, n bigint not null)";

impl Journal {
    /// Starts `clients` clients against a node; each runs until its connection breaks or the load is stopped.
    pub fn start(node: &Node, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counters = |n| (0..n).map(|_| Arc::new(AtomicU64::new(0))).collect::<Vec<_>>();
        let (acknowledged, sent) = (counters(clients), counters(clients));
        let threads = (0..clients)
            .map(|client| {
                let conninfo = format!("{} dbname=postgres", node.conninfo("journal"));
                let (stop, acknowledged, sent) = (Arc::clone(&stop), Arc::clone(&acknowledged[client]), Arc::clone(&sent[client]));
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                    // The connection's end is how a crash looks from here.
                    drop(runtime.block_on(client_loop(
                        &conninfo,
                        i32::try_from(client).expect("few clients"),
                        &stop,
                        &acknowledged,
                        &sent,
                    )));
                })
            })
            .collect();
        Self { acknowledged, sent, stop, clients: threads }
    }

    /// Commits acknowledged so far.
    pub fn count(&self) -> u64 {
        self.acknowledged.iter().map(|n| n.load(Ordering::Acquire)).sum()
    }

    /// Waits until `n` commits have been acknowledged.
    pub fn wait_for(&self, n: u64) {
        until(&format!("{n} acknowledged commits"), || self.count() >= n);
    }

    /// Ends the load.
    pub fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Release);
        for client in self.clients {
            client.join().expect("a client of the load does not panic");
        }
        let values = |v: &[Arc<AtomicU64>]| v.iter().map(|n| n.load(Ordering::Acquire)).collect();
        Outcome { acknowledged: values(&self.acknowledged), sent: values(&self.sent) }
    }
}

async fn client_loop(
    conninfo: &str,
    client: i32,
    stop: &AtomicBool,
    acknowledged: &AtomicU64,
    sent: &AtomicU64,
) -> Result<(), tokio_postgres::Error> {
    let (connection, io) = tokio_postgres::connect(conninfo, NoTls).await?;
    let io = tokio::spawn(io);
    let insert = connection.prepare("insert into journal values ($1, $2)").await?;
    let count = connection.prepare("insert into counter values ($1, $2) on conflict (client) do update set n = excluded.n").await?;
    let mut n = 0_i64;
    while !stop.load(Ordering::Acquire) {
        n += 1;
        sent.store(n.unsigned_abs(), Ordering::Release);
        connection.batch_execute("begin").await?;
        connection.execute(&insert, &[&client, &n]).await?;
        connection.execute(&count, &[&client, &n]).await?;
        connection.batch_execute("commit").await?;
        acknowledged.store(n.unsigned_abs(), Ordering::Release);
    }
    drop(connection);
    drop(io.await);
    Ok(())
}

impl Outcome {
    /// Acknowledged commits in all.
    pub fn count(&self) -> u64 {
        self.acknowledged.iter().sum()
    }

    /// Checks a node against the journal: nothing acknowledged is missing, nothing is there that was not sent, no gaps, and the
    /// counters agree with the rows of the same transactions.
    pub fn check(&self, node: &Node) {
        let rows = node.sql(&format!(
            "select (select count(*) from journal where client = c), (select coalesce(max(n), 0) from journal where client = c), \
                    coalesce((select n from counter where client = c), 0) from generate_series(0, {} - 1) c order by c",
            self.sent.len()
        ));
        assert_eq!(rows.lines().count(), self.sent.len());
        for (client, ((&acknowledged, &sent), row)) in self.acknowledged.iter().zip(&self.sent).zip(rows.lines()).enumerate() {
            let fields: Vec<u64> = row.split('|').map(|f| f.parse().expect("a number")).collect();
            let [count, max, counter] = fields[..] else { panic!("three fields in {row}") };
            assert!(max >= acknowledged, "client {client}: {acknowledged} commits were acknowledged, the node has {max}");
            assert!(max <= sent, "client {client}: {sent} were sent, the node has {max}");
            assert_eq!(count, max, "client {client}: rows are missing in the middle");
            assert_eq!(counter, max, "client {client}: half of a transaction");
        }
    }
}
