//! A load of every kind of change, whose sum never changes: transfers between accounts, accounts opened and closed, savepoints rolled back,
//! whole transactions rolled back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::{Client, Error, NoTls};

use crate::support::node::Node;

const ACCOUNTS: i32 = 200;
const START: i64 = 1000;

/// A running load.
pub(crate) struct Bank {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Bank {
    /// Makes its tables.
    pub(crate) fn create(node: &Node) {
        node.sql(
            "create table account (id int primary key, balance bigint not null, note text); create index account_balance on account (balance); \
             create table transfer (id bigserial primary key, source int, target int, amount bigint)",
        );
        node.sql(&format!("insert into account select g, {START}, repeat('n', g % 100) from generate_series(1, {ACCOUNTS}) g"));
    }

    /// Starts clients that run until their connection breaks or the load is stopped.
    pub(crate) fn start(node: &Node, clients: u64, seed: u64) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..clients)
            .map(|i| {
                let conninfo = format!("{} dbname=postgres", node.conninfo("bank"));
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                    // The end of the connection is how a crash looks from here.
                    drop(runtime.block_on(run(&conninfo, seed ^ i, &stop, &done)));
                })
            })
            .collect();
        Self { stop, done, clients }
    }

    /// Ends it; how many transactions were acknowledged.
    pub(crate) fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        for client in self.clients {
            client.join().expect("a client of the bank does not panic");
        }
        self.done.load(Ordering::Acquire)
    }

    /// No money was made or lost, and what each account did adds up.
    pub(crate) fn check(node: &Node) {
        let answer = node.sql(
            "select sum(balance), count(*) filter (where balance < 0), \
                    (select count(*) from transfer where amount is null or source = target) from account",
        );
        assert_eq!(answer, format!("{}|0|0", i64::from(ACCOUNTS) * START));
    }
}

async fn run(conninfo: &str, seed: u64, stop: &AtomicBool, done: &AtomicU64) -> Result<(), Error> {
    let (mut client, io) = tokio_postgres::connect(conninfo, NoTls).await?;
    tokio::spawn(io);
    let mut rng = StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::Acquire) {
        match step(&mut client, &mut rng).await {
            Ok(()) => done.fetch_add(1, Ordering::AcqRel),
            // A deadlock or a clash is part of the load; a broken connection ends it.
            Err(e) if e.as_db_error().is_some_and(|e| ["40P01", "40001", "23505"].contains(&e.code().code())) => {
                client.batch_execute("rollback").await?;
                continue;
            }
            Err(e) => return Err(e),
        };
    }
    Ok(())
}

/// One transaction.
async fn step(client: &mut Client, rng: &mut StdRng) -> Result<(), Error> {
    let (a, b) = (rng.random_range(1..=ACCOUNTS), rng.random_range(1..=ACCOUNTS));
    let amount = rng.random_range(1..50_i64);
    client.batch_execute("begin").await?;
    let sources = client.query("select balance from account where id = $1 for update", &[&a]).await?;
    let rich = sources.first().is_some_and(|row| row.get::<_, i64>(0) >= amount);
    if rich && a != b {
        client.execute("update account set balance = balance - $2 where id = $1", &[&a, &amount]).await?;
        let moved = client.execute("update account set balance = balance + $2 where id = $1", &[&b, &amount]).await?;
        if moved == 0 {
            client.execute("update account set balance = balance + $2 where id = $1", &[&a, &amount]).await?;
        } else {
            client.execute("insert into transfer (source, target, amount) values ($1, $2, $3)", &[&a, &b, &amount]).await?;
        }
    }
    match rng.random_range(0..10) {
        0 => {
            // An account is closed: what it holds goes to another; and opened again, empty.
            client.batch_execute("savepoint s").await?;
            let closed = client.query("delete from account where id = $1 returning balance", &[&b]).await?;
            if let Some(row) = closed.first() {
                let left: i64 = row.get(0);
                let taken = client.execute("update account set balance = balance + $2 where id = $1", &[&a, &left]).await?;
                if a == b || taken == 0 {
                    client.batch_execute("rollback to s").await?;
                } else {
                    client.execute("insert into account values ($1, 0, 'again')", &[&b]).await?;
                }
            }
        }
        1 => {
            client.batch_execute("savepoint s").await?;
            client.execute("update account set balance = balance + 1000000 where id = $1", &[&a]).await?;
            client.execute("insert into transfer (source, target, amount) values ($1, $1, null)", &[&a]).await?;
            client.batch_execute("rollback to s").await?;
        }
        2 => {
            client.execute("update account set note = repeat('z', $2) where id = $1", &[&a, &rng.random_range(0..400_i32)]).await?;
        }
        3 => {
            client.execute("update account set balance = balance + 7 where id = $1", &[&a]).await?;
            return client.batch_execute("rollback").await;
        }
        _ => {}
    }
    client.batch_execute("commit").await
}
