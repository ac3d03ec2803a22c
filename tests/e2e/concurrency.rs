//! Sessions in each other's way: row locks, re-checks, serialization failures, deadlocks, timeouts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::Client;

use crate::client::{block_on, connect, describe, error, text, try_connect};
use crate::support::node::{Node, PATIENCE, until};

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
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while text(c, sql).await != "t" {
        assert!(tokio::time::Instant::now() < deadline, "nobody waits for a lock");
        tokio::task::yield_now().await;
    }
}

#[test]
fn advisory_locks_of_a_session_end_with_it() {
    let node = Node::start_new("advisory", "");
    block_on(async {
        let (a, b, watch) = (connect(&node).await, connect(&node).await, connect(&node).await);
        text(&a, "select pg_advisory_lock(1)").await;
        text(&b, "select pg_advisory_lock(2)").await;
        // One hangs up, one ends itself.
        drop(a);
        let e = b.simple_query("select pg_terminate_backend(pg_backend_pid())").await.expect_err("it is over");
        assert_eq!(e.code().map(tokio_postgres::error::SqlState::code), Some("57P01"));
        text(&watch, "select pg_advisory_lock(1), pg_advisory_lock(2)").await;
        assert_eq!(text(&watch, "select count(*) from pg_locks where locktype = 'advisory'").await, "2");
    });
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
        text(&b, "set lock_timeout = 0; set statement_timeout = '300ms'").await;
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
fn long_waits_for_locks_are_logged() {
    let node = Node::start_new("lock_log", "log_lock_waits = on\ndeadlock_timeout = '20ms'");
    block_on(async {
        let (a, b) = (fresh(&node).await, connect(&node).await);
        let (a_pid, b_pid) = (text(&a, "select pg_backend_pid()").await, text(&b, "select pg_backend_pid()").await);
        let logged = |what: String| until(&what, || node.log().contains(&what));
        for (hold, wait, on) in [
            ("update t set v = 1 where id = 1", "update t set v = 2 where id = 1".to_owned(), "ShareLock on transaction ".to_owned()),
            (
                "lock table t",
                "select count(*) from t".to_owned(),
                format!("AccessShareLock on relation {} of database ", text(&a, "select 't'::regclass::oid").await),
            ),
        ] {
            text(&a, &format!("begin; {hold}")).await;
            let c = try_connect(&node.conninfo("waiter")).await.expect("a connection");
            let c_pid = text(&c, "select pg_backend_pid()").await;
            let statement = wait.clone();
            let waiting = tokio::spawn(async move { text(&c, &statement).await });
            logged(format!("process {c_pid} still waiting for {on}"));
            logged(format!("Process holding the lock: {a_pid}. Wait queue: {c_pid}."));
            logged(format!("STATEMENT:  {wait}"));
            text(&a, "commit").await;
            waiting.await.expect("joined");
            logged(format!("process {c_pid} acquired {on}"));
        }
        // A deadlock is told of as well.
        text(&a, "begin; update t set v = 1 where id = 1").await;
        text(&b, "begin; update t set v = 2 where id = 2").await;
        let one = tokio::spawn(async move { a.simple_query("update t set v = 1 where id = 2; commit").await.map(drop) });
        let two = b.simple_query("update t set v = 2 where id = 1; commit").await.map(drop);
        assert!(one.await.expect("joined").is_err() != two.is_err());
        logged("detected deadlock while waiting for ShareLock on transaction ".to_owned());
        assert!([&a_pid, &b_pid].iter().any(|pid| node.log().contains(&format!("process {pid} detected deadlock"))));
        // Without the setting nobody is told.
        let (a, quiet) = (connect(&node).await, connect(&node).await);
        text(&quiet, "set log_lock_waits = off; set lock_timeout = '100ms'").await;
        let quiet_pid = text(&quiet, "select pg_backend_pid()").await;
        text(&a, "begin; lock table t").await;
        assert_eq!(error(&quiet, "select * from t").await, "55P03 canceling statement due to lock timeout");
        assert!(!node.log().contains(&format!("process {quiet_pid} ")));
    });
}

#[test]
fn a_view_is_locked_with_what_it_reads() {
    let node = Node::start_new("lock_view", "");
    block_on(async {
        let (a, b) = (connect(&node).await, connect(&node).await);
        text(
            &a,
            "create table t (i int); create table u (i int); create view v as select t.i from t where i in (select i from u);
             create view w as select * from v; create role bob; grant all on w to bob; create table alone (i int)",
        )
        .await;
        text(&a, "begin; lock table w in access exclusive mode").await;
        for name in ["t", "u", "v", "w"] {
            let e = error(&b, &format!("begin; lock table {name} in access share mode nowait")).await;
            // A view is tried first, then what it reads.
            assert_eq!(e, format!("55P03 could not obtain lock on relation \"{name}\""));
            text(&b, "rollback").await;
        }
        text(&b, "begin; lock table alone nowait; commit").await;
        text(&a, "commit; begin; lock table u in share mode").await;
        assert_eq!(error(&b, "begin; lock table w in exclusive mode nowait").await, "55P03 could not obtain lock on relation \"u\"");
        text(&b, "rollback").await;
        text(&a, "commit").await;
        // The views' owner may; bob himself may not.
        text(&b, "set role bob; begin; lock table w; commit").await;
        assert_eq!(error(&b, "begin; lock table t").await, "42501 permission denied for table t");
        text(&b, "rollback").await;
        assert_eq!(error(&b, "begin; lock table v").await, "42501 permission denied for view v");
        text(&b, "rollback; reset role").await;
    });
}

#[test]
fn upserts_of_the_same_keys_lose_nothing() {
    let node = Node::start_new("upserts", "");
    block_on(async {
        let a = connect(&node).await;
        // A second unique index, that decides as well; and one that does not.
        text(&a, "create table c (k int unique, l text, n int); create unique index on c ((l || '!')); create index on c (n)").await;
        let mut all = Vec::new();
        for who in 0..4 {
            let c = connect(&node).await;
            all.push(tokio::spawn(async move {
                let mut inserted = 0;
                for i in 0..100_i32 {
                    let k = i % 5;
                    let sql = match (who + i) % 4 {
                        0 => format!("delete from c where k = {k} and n < 0"),
                        1 => format!("insert into c values ({k}, 'l{k}', 1) on conflict do nothing"),
                        _ => format!("insert into c values ({k}, 'l{k}', 1) on conflict (k) do update set n = c.n + 1 returning n"),
                    };
                    // The other unique index decides nothing then: a session that was faster shows there.
                    match c.simple_query(&sql).await {
                        Ok(_) if sql.contains("returning") => inserted += 1,
                        Ok(_) => {}
                        Err(e) => assert_eq!(describe(&e), "23505 duplicate key value violates unique constraint \"c_expr_idx\""),
                    }
                }
                inserted
            }));
        }
        let mut updates = 0;
        for one in all {
            updates += one.await.expect("joined");
        }
        let sum: i32 = text(&a, "select sum(n) from c").await.parse().expect("a number");
        // Of each key one insert counted 1, whichever statement made it.
        assert!((updates..=updates + 5).contains(&sum), "{sum} of {updates}");
        assert_eq!(text(&a, "select count(*), count(distinct k), count(distinct l) from c").await, "5|5|5");
        assert_eq!(text(&a, "select bt_index_check('c_k_key', true), bt_index_check('c_expr_idx', true)").await, "|");
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

/// Two sessions that insert, update and delete until told to stop; they return how often they did.
fn write_meanwhile(node: &Node, stop: &Arc<AtomicBool>) -> Vec<std::thread::JoinHandle<i32>> {
    let writer = |n: i32| {
        let (conninfo, stop) = (node.conninfo("writer"), Arc::clone(stop));
        std::thread::spawn(move || {
            block_on(async {
                let w = try_connect(&conninfo).await.expect("a connection");
                let mut i = 0;
                while !stop.load(Ordering::Relaxed) {
                    let (id, row) = (10_000 * (n + 1) + i, i * 7 % 2000 + 1);
                    let sql = format!(
                        "insert into t values ({id}, {i} % 50, -{id}); update t set v = v + 1 where id = {row}; \
                         update t set x = x + 1 where id = {row} + 3; delete from t where id = {id} - 5"
                    );
                    text(&w, &sql).await;
                    let undone = format!(
                        "begin; update t set v = 0 where id = {id}; insert into t values ({id} + 5000000, 1, -{id} - 5000000); rollback"
                    );
                    text(&w, &undone).await;
                    i += 1;
                }
                i
            })
        })
    };
    (0..2).map(writer).collect()
}

#[test]
fn indexes_are_rebuilt_and_dropped_while_others_use_them() {
    let node = Node::start_new("reindex", "");
    let stop = Arc::new(AtomicBool::new(false));
    let files = "select string_agg(relname || ' ' || c.oid, ',' order by relname), string_agg(relfilenode::text, ',' order by relname) \
                 from pg_index i join pg_class c on c.oid = indexrelid where indrelid = 't'::regclass";
    block_on(async {
        let (a, b, c) = (connect(&node).await, connect(&node).await, connect(&node).await);
        text(&a, "create table t (id int primary key, v int, w int unique, x int default 0)").await;
        text(&a, "insert into t select g, g % 50, -g from generate_series(1, 2100) g").await;
        text(&a, "create index i on t (v) include (w); create index p on t ((v % 7), id desc) where id % 2 = 0").await;
        let before = text(&c, files).await;

        // It waits for who writes, and lets others write.
        text(&a, "begin; insert into t values (5000, 7, -5000)").await;
        let making = tokio::spawn(async move {
            text(&b, "reindex index concurrently i").await;
            b
        });
        until_waiting(&c).await;
        text(&c, "insert into t values (5001, 7, -5001); update t set v = 8 where id = 5001").await;
        text(&a, "commit").await;
        let b = making.await.expect("joined");

        let writers = write_meanwhile(&node, &stop);
        text(&b, "reindex (concurrently) table t").await;
        text(&b, "reindex index concurrently p").await;
        stop.store(true, Ordering::Relaxed);
        for one in writers {
            assert!(one.join().expect("joined") > 0);
        }
        let after = text(&c, files).await;
        let (names, numbers) = after.split_once('|').expect("two columns");
        let (old_names, old_numbers) = before.split_once('|').expect("two columns");
        assert_eq!(names, old_names, "the same indexes, by OID");
        for (old, new) in old_numbers.split(',').zip(numbers.split(',')) {
            assert_ne!(old, new, "files: {before} {after}");
        }
        text(&c, "select bt_index_check(indexrelid, true) from pg_index where indrelid = 't'::regclass").await;
        assert_eq!(error(&c, "insert into t values (1, 1, 1)").await, "23505 duplicate key value violates unique constraint \"t_pkey\"");
        let other = error(&c, "insert into t values (-1, 1, -1)").await;
        assert_eq!(other, "23505 duplicate key value violates unique constraint \"t_w_key\"");

        // DROP waits for who reads, and lets others write.
        text(&a, "begin; set local enable_seqscan = off; select count(*) from t where v = 1").await;
        let dropping = tokio::spawn(async move {
            text(&b, "drop index concurrently i").await;
            b
        });
        until_waiting(&c).await;
        text(&c, "insert into t values (5002, 1, -5002)").await;
        assert_eq!(text(&c, "select indisvalid from pg_index where indexrelid = 'i'::regclass").await, "f");
        text(&a, "commit").await;
        let b = dropping.await.expect("joined");
        assert_eq!(text(&c, "select to_regclass('i')").await, "");

        // What cannot be.
        for (sql, expected) in [
            ("drop index concurrently t_pkey", "2BP01 cannot drop index t_pkey because constraint t_pkey on table t requires it"),
            ("drop index concurrently p, t_pkey", "0A000 DROP INDEX CONCURRENTLY does not support dropping multiple objects"),
            ("drop index concurrently p cascade", "0A000 DROP INDEX CONCURRENTLY does not support CASCADE"),
            ("drop index concurrently none", "42704 index \"none\" does not exist"),
            ("reindex table concurrently pg_class", "0A000 cannot reindex system catalogs concurrently"),
            ("begin; drop index concurrently p", "25001 DROP INDEX CONCURRENTLY cannot run inside a transaction block"),
            ("begin; reindex index concurrently p", "25001 REINDEX CONCURRENTLY cannot run inside a transaction block"),
        ] {
            assert_eq!(error(&b, sql).await, expected);
            text(&b, "rollback").await;
        }

        // A failure leaves the twin, not valid; it can be dropped, or made valid.
        let flags = "select relname, indisvalid, indisready from pg_index join pg_class c on c.oid = indexrelid where relname like 'p%' and \
                     indrelid = 't'::regclass order by 1";
        text(&a, "begin; insert into t values (5003, 1, -5003)").await;
        let pid = text(&b, "select pg_backend_pid()").await;
        let (failed, ()) = tokio::join!(error(&b, "reindex index concurrently p"), async {
            until_waiting(&c).await;
            text(&c, &format!("select pg_cancel_backend({pid})")).await;
        });
        assert_eq!(failed, "57014 canceling statement due to user request");
        assert_eq!(text(&c, flags).await, "p|t|t\np_ccnew|f|f");
        text(&a, "commit").await;
        text(&c, "insert into t values (5004, 1, -5004); reindex index p_ccnew").await;
        assert_eq!(text(&c, flags).await, "p|t|t\np_ccnew|t|t");
        text(&c, "select bt_index_check('p_ccnew', true); drop index p_ccnew").await;

        // A crash in the middle does the same; the drop is done again.
        text(&a, "begin; select count(*) from t").await;
        tokio::spawn(async move { b.simple_query("drop index concurrently p").await.map(drop) });
        until_waiting(&c).await;
        node.kill();
    });
    node.start();
    assert_eq!(node.sql("select indisvalid, indisready from pg_index where indexrelid = 'p'::regclass"), "f|t");
    node.sql("insert into t values (5005, 1, -5005)");
    node.sql("drop index concurrently p");
    assert_eq!(node.sql("select count(*) from pg_index where indrelid = 't'::regclass and indisvalid"), "2");
}

#[test]
fn an_index_that_is_not_finished_is_the_same_after_a_kill_and_on_a_standby() {
    const FLAGS: &str = "select relname, indisvalid, indisready, indislive from pg_index join pg_class c on c.oid = indexrelid where relname like 'u%' order by 1";
    let node = Node::start_new("unfinished", "");
    let standby = node.standby("unfinished_too");
    node.sql("create table t (id int primary key, v int); insert into t select g, g from generate_series(1, 100) g");
    // What is begun, who is in the way, until when, and what a kill leaves: not built, built and not looked through, not known to all; of a REINDEX, with
    // the files exchanged, and given up; of a DROP, not valid, and given up.
    let writer = "begin; insert into t values (1000, 1000)";
    let reader = "begin; select count(*) from t";
    let snapshot = "begin isolation level repeatable read; select count(*) from t";
    for (begun, before, ways, when, left) in [
        ("create unique index concurrently u on t (v)", "", [writer, ""], "not indisready", "u|f|f|t"),
        ("create unique index concurrently u on t (v)", "", [writer, writer], "indisready", "u|f|t|t"),
        ("create unique index concurrently u on t (v)", "", [snapshot, ""], "indisready", "u|f|t|t"),
        ("reindex index concurrently u", "create unique index u on t (v)", [reader, ""], "relname = 'u_ccold'", "u|t|t|t\nu_ccold|f|t|t"),
        ("reindex index concurrently u", "create unique index u on t (v)", [reader, reader], "not indislive", "u|t|t|t\nu_ccold|f|f|f"),
        ("drop index concurrently u", "create unique index u on t (v)", [reader, ""], "not indisvalid", "u|f|t|t"),
        ("drop index concurrently u", "create unique index u on t (v)", [reader, reader], "not indislive", "u|f|f|f"),
    ] {
        node.sql(&format!("drop index if exists u, u_ccold; {before}"));
        let terminated = block_on(async {
            let (first, second, b, c) = (connect(&node).await, connect(&node).await, connect(&node).await, connect(&node).await);
            text(&first, ways[0]).await;
            let pid = text(&b, "select pg_backend_pid()").await;
            let begun = tokio::spawn(async move { b.simple_query(begun).await.map(drop) });
            until_waiting(&c).await;
            if !ways[1].is_empty() {
                text(&second, &ways[1].replace("1000", "1001")).await;
                text(&first, "commit").await;
            }
            let there =
                format!("select count(*) > 0 from pg_index join pg_class c on c.oid = indexrelid where relname like 'u%' and {when}");
            while text(&c, &there).await != "t" {}
            // One at each place is ended by itself, the others with the server.
            if when == "indisready" || when == "not indislive" {
                text(&c, &format!("select pg_terminate_backend({pid}, 60000)")).await;
                assert!(begun.await.expect("joined").is_err());
                true
            } else {
                node.kill();
                false
            }
        });
        if !terminated {
            node.start();
        }
        assert_eq!(node.sql(FLAGS), left, "{begun}, {when}");
        node.wait_for_catchup(&standby);
        assert_eq!(standby.sql(FLAGS), left, "{begun}, {when}, on the standby");
        // Who writes heeds what is ready.
        let refused = left.contains("u|f|t|t") || left.contains("u|t|t|t");
        let twice = "insert into t values (2000, 2)";
        if refused {
            assert!(node.sql_error(twice).contains("23505"), "{begun}, {when}");
        } else {
            node.sql(&format!("{twice}; delete from t where id = 2000"));
        }
        node.sql("delete from t where id > 100");
    }
    // A standby that takes over can make it whole.
    node.kill();
    standby.promote();
    assert_eq!(standby.sql(FLAGS), "u|f|f|f");
    standby.sql("reindex index u");
    assert_eq!(standby.sql(FLAGS), "u|t|t|t");
    standby.sql("select bt_index_check('u', true)");
}

#[test]
fn an_index_in_the_making_is_part_of_a_deadlock() {
    let node = Node::start_new("index_deadlock", "");
    block_on(async {
        let (a, b, c) = (connect(&node).await, connect(&node).await, connect(&node).await);
        text(&c, "create table t (id int primary key, v int)").await;
        text(&a, "begin isolation level repeatable read; select * from t").await;
        text(&b, "set deadlock_timeout = '1h'").await;
        let making = tokio::spawn(async move { b.simple_query("create index concurrently i on t (v)").await.map(drop) });
        // It waits for the snapshot, which waits for its lock.
        while text(&c, "select wait_event from pg_stat_activity where query like 'create index%'").await != "virtualxid" {}
        assert_eq!(text(&c, "select mode, granted from pg_locks where locktype = 'virtualxid' and not granted").await, "ShareLock|f");
        assert_eq!(error(&a, "lock table t in share update exclusive mode").await, "40P01 deadlock detected");
        text(&a, "rollback").await;
        making.await.expect("joined").expect("an index");
        assert_eq!(text(&c, "select indisvalid from pg_index where indexrelid = 'i'::regclass").await, "t");
    });
}

#[test]
fn a_deferred_unique_constraint_waits_at_commit() {
    let node = Node::start_new("deferred", "");
    block_on(async {
        let (a, b, c) = (connect(&node).await, connect(&node).await, connect(&node).await);
        text(&a, "create table t (id int primary key deferrable initially deferred, v int)").await;
        for (end, outcome) in [("commit", "23505 duplicate key value violates unique constraint \"t_pkey\""), ("rollback", "")] {
            text(&a, "truncate t").await;
            text(&a, "begin; insert into t values (1, 1)").await;
            text(&b, "begin; insert into t values (1, 2), (2, 2)").await;
            let waiting = b.simple_query("commit");
            let ended = async {
                until_waiting(&c).await;
                text(&a, end).await;
            };
            let (result, ()) = tokio::join!(waiting, ended);
            assert_eq!(result.err().map_or_else(String::new, |e| describe(&e)), outcome);
            assert_eq!(text(&c, "select sum(v) from t").await, if outcome.is_empty() { "4" } else { "1" });
        }
        // COPY and a bulk INSERT are checked at their end.
        assert_eq!(error(&a, "insert into t select g % 5, 0 from generate_series(1, 2000) g").await, outcome_of("t_pkey"));
        text(&a, "truncate t; insert into t select g, 0 from generate_series(1, 2000) g").await;
        text(&a, "update t set id = id + 1").await;
        assert_eq!(text(&c, "select min(id), max(id), bt_index_check('t_pkey', true) from t").await, "2|2001|");
    });
    node.sql("update t set id = 2001 - id");
    assert_eq!(node.sql("select min(id), max(id) from t"), "0|1999");
}

fn outcome_of(index: &str) -> String {
    format!("23505 duplicate key value violates unique constraint \"{index}\"")
}

#[test]
fn an_index_is_made_while_others_write() {
    let node = Node::start_new("concurrently", "");
    block_on(async {
        let (a, c) = (connect(&node).await, connect(&node).await);
        text(&a, "create table t (id int primary key, v int, w int, x int default 0)").await;
        text(&a, "insert into t select g, g % 50, 0 from generate_series(1, 2100) g").await;
        text(&a, "update t set v = v + 1 where id % 3 = 0").await;

        // Waits for who wrote before, lets others write.
        text(&a, "begin; insert into t values (5000, 7, 0)").await;
        let b = connect(&node).await;
        let making = tokio::spawn(async move {
            text(&b, "create index concurrently i on t (v)").await;
            b
        });
        until_waiting(&c).await;
        text(&c, "insert into t values (5001, 7, 0); update t set v = 8 where id = 5001").await;
        assert_eq!(text(&c, "select indisvalid, indisready from pg_index where indexrelid = 'i'::regclass").await, "f|f");
        text(&a, "commit").await;
        let b = making.await.expect("joined");
        assert_eq!(text(&c, "select indisvalid from pg_index where indexrelid = 'i'::regclass").await, "t");
        text(&c, "drop index i").await;

        // Under load: what the index finds is what the table has.
        let stop = Arc::new(AtomicBool::new(false));
        let writers = write_meanwhile(&node, &stop);
        for round in 0..3 {
            text(&b, &format!("create index concurrently i{round} on t (v)")).await;
        }
        text(&b, "create unique index concurrently u on t (id, v)").await;
        stop.store(true, Ordering::Relaxed);
        for one in writers {
            assert!(one.join().expect("joined") > 0);
        }
        let sums = "select count(*), sum(id::bigint * v) from t where v >= 0";
        text(&c, "set enable_indexscan = off; set enable_bitmapscan = off; set enable_indexonlyscan = off").await;
        let expected = text(&c, sums).await;
        text(&c, "reset enable_indexscan; reset enable_bitmapscan; set enable_seqscan = off").await;
        for round in 0..3 {
            text(&c, &format!("select bt_index_check('i{round}', true)")).await;
            assert_eq!(text(&c, sums).await, expected, "round {round}");
            text(&c, &format!("drop index i{round}")).await;
        }
        assert_eq!(text(&c, "select count(*) from pg_index where indexrelid = 'u'::regclass and indisvalid").await, "1");

        // A duplicate leaves an index that is there and not valid.
        let e = error(&b, "create unique index concurrently bad on t (x)").await;
        assert_eq!(e, "23505 could not create unique index \"bad\"");
        assert_eq!(text(&c, "select indisvalid from pg_index where indexrelid = 'bad'::regclass").await, "f");
        text(&c, "drop index bad").await;
        assert_eq!(
            error(&b, "begin; create index concurrently j on t (v)").await,
            "25001 CREATE INDEX CONCURRENTLY cannot run inside a transaction block"
        );
    });
}
