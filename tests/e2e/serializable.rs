//! SERIALIZABLE: anomalies that snapshots alone let pass, and what is not one.

use tokio_postgres::Client;

use crate::client::{block_on, connect, error, text};
use crate::support::node::Node;

const DEPENDENCIES: &str = "40001 could not serialize access due to read/write dependencies among transactions";

async fn doctors(node: &Node) -> (Client, Client) {
    let (a, b) = (connect(node).await, connect(node).await);
    text(&a, "drop table if exists doctors; create table doctors (name text primary key, on_call bool)").await;
    text(&a, "insert into doctors values ('a', true), ('b', true)").await;
    (a, b)
}

#[test]
fn write_skew_ends_one_of_the_two() {
    let node = Node::start_new("skew", "");
    block_on(async {
        for level in ["serializable", "repeatable read"] {
            let (a, b) = doctors(&node).await;
            for (c, name) in [(&a, "a"), (&b, "b")] {
                text(c, &format!("begin isolation level {level}")).await;
                assert_eq!(text(c, "select count(*) from doctors where on_call").await, "2");
                text(c, &format!("update doctors set on_call = false where name = '{name}'")).await;
            }
            text(&a, "commit").await;
            if level == "serializable" {
                let e = b.simple_query("commit").await.expect_err("one must fail");
                let e = e.as_db_error().expect("the server's error");
                assert_eq!(format!("{} {}", e.code().code(), e.message()), DEPENDENCIES);
                assert_eq!(e.detail(), Some("Reason code: Canceled on identification as a pivot, during commit attempt."));
                assert_eq!(e.hint(), Some("The transaction might succeed if retried."));
                assert_eq!(text(&b, "select count(*) from doctors where on_call").await, "1");
            } else {
                text(&b, "commit").await;
                assert_eq!(text(&b, "select count(*) from doctors where on_call").await, "0");
            }
        }
    });
}

#[test]
fn index_ranges_are_marked_no_further_than_they_were_read() {
    let node = Node::start_new("phantom", "");
    block_on(async {
        let (a, b) = (connect(&node).await, connect(&node).await);
        text(&a, "create table t (id int primary key, v int); insert into t select g * 10, 0 from generate_series(1, 5000) g; analyze t")
            .await;
        // Each reads a range and writes into the other's, or not.
        for (theirs, conflict) in [(205, true), (30_005, false)] {
            text(&a, "begin isolation level serializable; select count(*) from t where id between 200 and 210").await;
            text(&b, "begin isolation level serializable; select count(*) from t where id between 40000 and 40010").await;
            let marks = "select count(*) from pg_locks where mode = 'SIReadLock' and pid = pg_backend_pid() and relation = 't'::regclass and locktype = 'relation'";
            assert_eq!(text(&a, marks).await, "0");
            text(&a, &format!("insert into t values ({}, 1)", if conflict { 40_005 } else { 39_995 })).await;
            text(&b, &format!("insert into t values ({theirs}, 1)")).await;
            text(&a, "commit").await;
            if conflict {
                assert_eq!(error(&b, "commit").await, DEPENDENCIES);
            } else {
                text(&b, "commit").await;
            }
        }
        assert_eq!(text(&a, "select count(*) from pg_locks where mode = 'SIReadLock'").await, "0");
    });
}

#[test]
fn a_reader_can_be_one_too_many() {
    let node = Node::start_new("read-only", "");
    block_on(async {
        let (a, b, c) = (connect(&node).await, connect(&node).await, connect(&node).await);
        text(&a, "create table bank (id text primary key, balance int); insert into bank values ('x', 0), ('y', 0)").await;
        // Fekete, O'Neil, O'Neil 2004: without the report all is well.
        for report in [false, true] {
            text(&a, "update bank set balance = 0").await;
            text(&a, "begin isolation level serializable; select balance from bank where id in ('x', 'y')").await;
            text(&b, "begin isolation level serializable; update bank set balance = balance + 20 where id = 'y'; commit").await;
            if report {
                text(&c, "begin isolation level serializable read only").await;
                assert_eq!(text(&c, "select id, balance from bank order by id").await, "x|0\ny|20");
                text(&c, "commit").await;
                assert_eq!(error(&a, "update bank set balance = balance - 11 where id = 'x'").await, DEPENDENCIES);
                text(&a, "rollback").await;
            } else {
                text(&a, "update bank set balance = balance - 11 where id = 'x'; commit").await;
            }
        }
        // A deferrable one waits for a snapshot that harms nobody.
        text(&a, "begin isolation level serializable; update bank set balance = 1 where id = 'x'").await;
        let pid = text(&a, "select pg_backend_pid()").await;
        let waiting = tokio::spawn(async move {
            text(&c, "begin isolation level serializable read only deferrable").await;
            text(&c, "select balance from bank where id = 'x'").await
        });
        let blocked = "select pg_safe_snapshot_blocking_pids(pid) from pg_stat_activity where wait_event = 'SafeSnapshot'";
        loop {
            match text(&b, blocked).await {
                none if none.is_empty() => tokio::task::yield_now().await,
                pids => break assert_eq!(pids, format!("{{{pid}}}")),
            }
        }
        text(&a, "commit").await;
        // It reads from before the writer it has waited for.
        assert_eq!(waiting.await.expect("joined"), "0");
    });
}

#[test]
fn a_standby_refuses() {
    let node = Node::start_new("refuses", "");
    let standby = node.standby("refuses_standby");
    block_on(async {
        let c = connect(&standby).await;
        assert_eq!(error(&c, "begin isolation level serializable").await, "0A000 cannot use serializable mode in a hot standby");
        text(&c, "rollback; set default_transaction_isolation = 'serializable'").await;
        assert_eq!(error(&c, "select 1 from pg_class").await, "0A000 cannot use serializable mode in a hot standby");
        text(&c, "begin isolation level repeatable read; select 1 from pg_class limit 1; commit").await;
    });
}
