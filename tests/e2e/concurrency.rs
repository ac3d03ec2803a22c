//! Sessions in each other's way: row locks, re-checks, serialization failures, deadlocks, timeouts.

use std::time::Duration;

use tokio_postgres::Client;

use crate::client::{block_on, connect, describe, error, text};
use crate::support::node::Node;

async fn fresh(node: &Node) -> Client {
    let c = connect(node).await;
    text(
        &c,
        "drop table if exists t; create table t (id int primary key, v int); insert into t select g, g * 10 from generate_series(1, 5) g",
    )
    .await;
    c
}

/// Waits until another session waits for a lock.
async fn until_waiting(c: &Client) {
    let sql = "select count(*) > 0 from pg_locks where not granted";
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while text(c, sql).await != "t" {
        assert!(tokio::time::Instant::now() < deadline, "nobody waits for a lock");
        tokio::task::yield_now().await;
    }
}

#[test]
fn writers_of_a_row_wait_and_look_again() {
    let node = Node::start_new("locks", "");
    block_on(async {
        let (a, b, watch) = (fresh(&node).await, connect(&node).await, connect(&node).await);
        // READ COMMITTED: the waiter sees what the other committed, and its condition is checked again on that.
        text(&a, "begin; update t set v = v + 1 where id = 1").await;
        let waiting = tokio::spawn(async move {
            let n = b.execute("update t set v = v * 2 where id = 1 and v < 12", &[]).await.expect("the update goes on");
            (b, n)
        });
        until_waiting(&watch).await;
        text(&a, "commit").await;
        let (b, n) = waiting.await.expect("joined");
        assert_eq!(n, 1);
        assert_eq!(text(&a, "select v from t where id = 1").await, "22");

        // The other rolls back: nothing changed.
        text(&a, "begin; update t set v = 0 where id = 2").await;
        let waiting = tokio::spawn(async move {
            text(&b, "update t set v = v + 5 where id = 2").await;
            b
        });
        until_waiting(&watch).await;
        text(&a, "rollback").await;
        let b = waiting.await.expect("joined");
        assert_eq!(text(&a, "select v from t where id = 2").await, "25");

        // The other deletes: no row.
        text(&a, "begin; delete from t where id = 3").await;
        let waiting = tokio::spawn(async move { (b.execute("update t set v = 1 where id = 3", &[]).await.expect("no error"), b) });
        until_waiting(&watch).await;
        text(&a, "commit").await;
        let (n, b) = waiting.await.expect("joined");
        assert_eq!(n, 0);

        // REPEATABLE READ: the second writer fails.
        text(&b, "begin isolation level repeatable read; select count(*) from t").await;
        text(&a, "update t set v = -1 where id = 4").await;
        assert_eq!(text(&b, "select v from t where id = 4").await, "40");
        assert_eq!(error(&b, "update t set v = 1 where id = 4").await, "40001 could not serialize access due to concurrent update");
        text(&b, "rollback").await;
        text(&b, "begin isolation level repeatable read; select count(*) from t").await;
        text(&a, "delete from t where id = 4").await;
        assert_eq!(error(&b, "delete from t where id = 4").await, "40001 could not serialize access due to concurrent delete");
        text(&b, "rollback").await;
    });
}

#[test]
fn lost_updates_do_not_happen() {
    let node = Node::start_new("counters", "");
    block_on(async {
        let a = fresh(&node).await;
        let mut all = Vec::new();
        for _ in 0..6 {
            let c = connect(&node).await;
            all.push(tokio::spawn(async move {
                let s = c.prepare("update t set v = v + 1 where id = $1").await.expect("prepared");
                for i in 0..100_i32 {
                    assert_eq!(c.execute(&s, &[&(i % 5 + 1)]).await.expect("updated"), 1);
                }
            }));
        }
        for one in all {
            one.await.expect("joined");
        }
        assert_eq!(text(&a, "select sum(v) from t").await, (150 + 600).to_string());
    });
}

#[test]
fn lock_clauses_and_timeouts() {
    let node = Node::start_new("clauses", "");
    block_on(async {
        let (a, b) = (fresh(&node).await, connect(&node).await);
        text(&a, "begin; select * from t where id = 1 for update").await;
        assert_eq!(
            error(&b, "select * from t where id = 1 for update nowait").await,
            "55P03 could not obtain lock on row in relation \"t\""
        );
        assert_eq!(text(&b, "select id from t order by id for update skip locked limit 2").await, "2\n3");
        assert_eq!(text(&b, "select v from t where id = 1").await, "10");
        text(&b, "set lock_timeout = '50ms'").await;
        assert_eq!(error(&b, "update t set v = 0 where id = 1").await, "55P03 canceling statement due to lock timeout");
        text(&b, "set lock_timeout = 0; set statement_timeout = '50ms'").await;
        assert_eq!(error(&b, "update t set v = 0 where id = 1").await, "57014 canceling statement due to statement timeout");
        assert_eq!(
            error(&b, "select count(*) from generate_series(1, 1000000000)").await,
            "57014 canceling statement due to statement timeout"
        );
        text(&b, "reset statement_timeout").await;
        text(&a, "commit; begin; select * from t where id = 1 for share").await;
        text(&b, "begin; select * from t where id = 1 for share; commit").await;
        text(&a, "commit; begin; lock table t in access exclusive mode").await;
        assert_eq!(error(&b, "begin; lock table t in access share mode nowait").await, "55P03 could not obtain lock on relation \"t\"");
        text(&b, "rollback").await;
        text(&a, "commit").await;
    });
}

#[test]
fn a_deadlock_ends_one_of_the_two() {
    let node = Node::start_new("deadlock", "deadlock_timeout = '20ms'");
    block_on(async {
        let (a, b) = (fresh(&node).await, connect(&node).await);
        text(&a, "begin; update t set v = 1 where id = 1").await;
        text(&b, "begin; update t set v = 2 where id = 2").await;
        let one = tokio::spawn(async move { (a.simple_query("update t set v = 1 where id = 2; commit").await.map(drop), a) });
        let two = b.simple_query("update t set v = 2 where id = 1; commit").await.map(drop);
        let (one, a) = one.await.expect("joined");
        let errors: Vec<String> = [one, two].into_iter().filter_map(|r| r.err().map(|e| describe(&e))).collect();
        assert_eq!(errors, ["40P01 deadlock detected"]);
        text(&a, "rollback").await;
        text(&b, "rollback").await;
        let sum = text(&a, "select sum(v) from t where id <= 2").await;
        assert!(sum == "2" || sum == "4", "{sum}");
    });
}

#[test]
fn unique_inserts_wait_for_each_other() {
    let node = Node::start_new("unique", "");
    block_on(async {
        let (a, b, watch) = (fresh(&node).await, connect(&node).await, connect(&node).await);
        let mut b = Some(b);
        for (end, expected) in [("commit", "23505 duplicate key value violates unique constraint \"t_pkey\""), ("rollback", "ok")] {
            text(&a, "begin; insert into t values (100, 1)").await;
            let c = b.take().expect("given back");
            let waiting = tokio::spawn(async move {
                let r = c.simple_query("insert into t values (100, 2)").await;
                (r.map_or_else(|e| describe(&e), |_| "ok".to_owned()), c)
            });
            until_waiting(&watch).await;
            text(&a, end).await;
            let (got, c) = waiting.await.expect("joined");
            assert_eq!(got, expected);
            b = Some(c);
            text(&a, "delete from t where id = 100").await;
        }
        // ON CONFLICT waits, then takes the other branch.
        text(&a, "begin; insert into t values (200, 1)").await;
        let c = b.take().expect("given back");
        let waiting = tokio::spawn(async move {
            text(&c, "insert into t values (200, 5) on conflict (id) do update set v = t.v + excluded.v returning v").await
        });
        until_waiting(&watch).await;
        text(&a, "commit").await;
        assert_eq!(waiting.await.expect("joined"), "6");
    });
}

#[test]
fn snapshots_stay_as_they_were() {
    let node = Node::start_new("snapshots", "");
    block_on(async {
        let (a, b) = (fresh(&node).await, connect(&node).await);
        text(&b, "begin isolation level repeatable read; select sum(v) from t").await;
        text(&a, "update t set v = 0; insert into t values (6, 1); delete from t where id = 1").await;
        text(&a, "vacuum t").await;
        assert_eq!(text(&b, "select count(*), sum(v) from t").await, "5|150");
        assert_eq!(text(&b, "select v from t where id = 1").await, "10");
        text(&b, "commit").await;
        assert_eq!(text(&b, "select count(*), sum(v) from t").await, "5|1");
        // A cursor keeps its snapshot too.
        text(&b, "begin; declare c cursor for select id from t order by id").await;
        assert_eq!(text(&b, "fetch 2 from c").await, "2\n3");
        text(&a, "delete from t").await;
        assert_eq!(text(&b, "fetch all from c").await, "4\n5\n6");
        text(&b, "commit").await;
    });
}

#[test]
fn ddl_waits_for_users_and_is_seen_by_all_at_once() {
    let node = Node::start_new("ddl", "");
    block_on(async {
        let (a, b, watch) = (fresh(&node).await, connect(&node).await, connect(&node).await);
        text(&b, "begin; select count(*) from t").await;
        let altering = tokio::spawn(async move {
            text(&a, "alter table t add column w text default 'new'").await;
            a
        });
        until_waiting(&watch).await;
        assert_eq!(text(&b, "select * from t where id = 1").await, "1|10");
        text(&b, "commit").await;
        let a = altering.await.expect("joined");
        assert_eq!(text(&b, "select * from t where id = 1").await, "1|10|new");
        // A prepared statement notices.
        let s = b.prepare("select * from t where id = 1").await.expect("prepared");
        text(&a, "alter table t drop column w").await;
        let e = b.query(&s, &[]).await.expect_err("the result type changed");
        assert_eq!(describe(&e), "0A000 cached plan must not change result type");
    });
}

#[test]
fn cancel_and_terminate() {
    let node = Node::start_new("cancel", "");
    block_on(async {
        let (a, b) = (fresh(&node).await, connect(&node).await);
        let token = b.cancel_token();
        let pid = text(&b, "select pg_backend_pid()").await;
        let running = tokio::spawn(async move { (error(&b, "select count(*) from generate_series(1, 10000000000)").await, b) });
        let busy = format!("select count(*) from pg_stat_activity where pid = {pid} and state = 'active'");
        while text(&a, &busy).await != "1" {
            tokio::task::yield_now().await;
        }
        token.cancel_query(tokio_postgres::NoTls).await.expect("a cancel request");
        let (e, b) = running.await.expect("joined");
        assert_eq!(e, "57014 canceling statement due to user request");
        assert_eq!(text(&b, "select 'alive'").await, "alive");
        // While it waits for a lock, from SQL.
        text(&a, "begin; update t set v = 0 where id = 1").await;
        let watch = connect(&node).await;
        let running = tokio::spawn(async move { (error(&b, "update t set v = 1 where id = 1").await, b) });
        until_waiting(&watch).await;
        assert_eq!(text(&watch, &format!("select pg_cancel_backend({pid})")).await, "t");
        let (e, b) = running.await.expect("joined");
        assert_eq!(e, "57014 canceling statement due to user request");
        assert_eq!(text(&watch, &format!("select pg_terminate_backend({pid})")).await, "t");
        let ended = b.simple_query("select 1").await.is_err() || b.is_closed();
        assert!(ended);
        text(&a, "rollback").await;
    });
}

#[test]
fn snapshots_are_handed_to_other_sessions() {
    let node = Node::start_new("export", "");
    block_on(async {
        let (a, b) = (fresh(&node).await, connect(&node).await);
        text(&a, "begin isolation level repeatable read").await;
        let id = text(&a, "select pg_export_snapshot()").await;
        text(&b, "update t set v = 0; insert into t values (6, 1)").await;
        text(&b, "vacuum t").await;
        // Another session reads what the first does, before and beside it.
        text(&b, "begin isolation level repeatable read").await;
        text(&b, &format!("set transaction snapshot '{id}'")).await;
        assert_eq!(text(&b, "select count(*), sum(v) from t").await, "5|150");
        let late = format!("set transaction snapshot '{id}'");
        assert_eq!(error(&b, &late).await, "25001 SET TRANSACTION SNAPSHOT must be called before any query");
        text(&b, "rollback; begin").await;
        let level = "0A000 a snapshot-importing transaction must have isolation level SERIALIZABLE or REPEATABLE READ";
        assert_eq!(error(&b, &late).await, level);
        text(&b, "rollback; begin isolation level serializable").await;
        let mixed = "0A000 a serializable transaction cannot import a snapshot from a non-serializable transaction";
        assert_eq!(error(&b, &late).await, mixed);
        text(&b, "rollback").await;
        // It ends with its transaction.
        text(&a, "commit").await;
        text(&b, "begin isolation level repeatable read").await;
        assert_eq!(error(&b, &late).await, format!("22023 invalid snapshot identifier: \"{id}\""));
        text(&b, "rollback").await;
    });
}
