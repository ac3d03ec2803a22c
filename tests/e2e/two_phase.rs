//! PREPARE TRANSACTION: what is prepared stays so through crash, restart, standby and promotion, and holds what it held.

use tokio_postgres::Client;

use crate::client::{block_on, connect, error, text};
use crate::support::node::Node;

const CONF: &str = "max_prepared_transactions = 10\nlock_timeout = '100ms'";

async fn tables(node: &Node) -> Client {
    let c = connect(node).await;
    text(&c, "create table t (id int primary key, v int, w int); insert into t select g, g * 10, 0 from generate_series(1, 9) g").await;
    c
}

async fn gids(c: &Client) -> String {
    text(c, "select string_agg(gid, ',' order by gid) from pg_prepared_xacts").await
}

#[test]
fn errors_are_those_of_postgresql() {
    let node = Node::start_new("2pc-errors", "");
    block_on(async {
        let c = tables(&node).await;
        text(&c, "begin; insert into t values (100, 1)").await;
        assert_eq!(error(&c, "prepare transaction 'a'").await, "55000 prepared transactions are disabled");
        assert_eq!(text(&c, "select count(*) from t").await, "9");
        node.conf("max_prepared_transactions = 2");
        drop(c);
        node.restart();
        let c = connect(&node).await;
        text(&c, "begin; insert into t values (100, 1); prepare transaction 'a'").await;
        assert_eq!(error(&c, "begin; prepare transaction 'a'").await, "42710 transaction identifier \"a\" is already in use");
        assert_eq!(text(&c, "show transaction_isolation").await, "read committed");
        text(&c, "begin; prepare transaction 'b'").await;
        assert_eq!(error(&c, "begin; prepare transaction 'c'").await, "53200 maximum number of prepared transactions reached");
        let long = "x".repeat(200);
        assert_eq!(
            error(&c, &format!("begin; prepare transaction '{long}'")).await,
            format!("22023 transaction identifier \"{long}\" is too long")
        );
        assert_eq!(error(&c, "commit prepared 'nope'").await, "42704 prepared transaction with identifier \"nope\" does not exist");
        text(&c, "begin").await;
        assert_eq!(error(&c, "commit prepared 'a'").await, "25001 COMMIT PREPARED cannot run inside a transaction block");
        text(&c, "rollback; create role other login").await;
        text(&c, "rollback prepared 'b'").await;
        text(&c, "begin; create temp table tt (i int)").await;
        let refused = "0A000 cannot PREPARE a transaction that has operated on temporary objects";
        assert_eq!(error(&c, "prepare transaction 'd'").await, refused);
        text(&c, "create temp table tt (i int); create function pg_temp.tf() returns int language sql as 'select 1'").await;
        for sql in ["select * from tt", "lock tt", "alter table tt add j int", "drop function pg_temp.tf()", "drop table tt"] {
            text(&c, "begin").await;
            text(&c, sql).await;
            assert_eq!(error(&c, "prepare transaction 'd'").await, refused, "{sql}");
        }
        text(&c, "set role other").await;
        assert_eq!(error(&c, "rollback prepared 'a'").await, "42501 permission denied to finish prepared transaction");
        text(&c, "reset role").await;
        text(&c, "create database elsewhere").await;
        let there = crate::client::try_connect(&format!("{} dbname=elsewhere", node.conninfo("e2e"))).await.expect("a connection");
        assert_eq!(error(&there, "rollback prepared 'a'").await, "0A000 prepared transaction belongs to another database");
        // A failed block is rolled back instead.
        assert_eq!(error(&c, "begin; select 1 / 0").await, "22012 division by zero");
        text(&c, "prepare transaction 'e'").await;
        assert_eq!(gids(&c).await, "a");
        text(&c, "commit prepared 'a'").await;
        assert_eq!(text(&c, "select count(*) from t").await, "10");
    });
}

/// Prepares one to commit, one to roll back, and one that shares a row that has been changed since.
async fn prepare_three(c: &Client) {
    text(
        c,
        "begin; savepoint s; insert into t values (50, 1); savepoint s2; update t set v = 0 where id = 1; prepare transaction 'commit'",
    )
    .await;
    text(c, "begin; create table made (i int); insert into made values (1); delete from t where id = 2; prepare transaction 'abort'").await;
    text(c, "begin; select * from t where id = 3 for key share; select pg_advisory_xact_lock(77); prepare transaction 'share'").await;
    // Other columns may change; the row's key may not, wherever its newest version lies.
    text(c, "update t set w = w + 1 where id = 3; update t set w = w + 1 where id = 3").await;
    assert_eq!(gids(c).await, "abort,commit,share");
}

async fn they_hold(c: &Client) {
    assert_eq!(gids(c).await, "abort,commit,share");
    assert_eq!(text(c, "select count(*), sum(v) from t").await, "9|450");
    for sql in [
        "update t set v = 1 where id = 1",
        "delete from t where id = 2",
        "update t set id = 33 where id = 3",
        "delete from t where id = 3",
        "select pg_advisory_lock(77)",
        "insert into t values (50, 2)",
        "drop table t",
    ] {
        assert_eq!(error(c, sql).await, "55P03 canceling statement due to lock timeout", "{sql}");
    }
    text(c, "update t set w = w + 1 where id = 3").await;
    assert_eq!(error(c, "select * from made").await, "42P01 relation \"made\" does not exist");
}

async fn they_end(c: &Client) {
    text(c, "commit prepared 'commit'").await;
    text(c, "rollback prepared 'abort'").await;
    text(c, "rollback prepared 'share'").await;
    assert_eq!(gids(c).await, "");
    assert_eq!(text(c, "select count(*), sum(v) from t").await, "10|441");
    text(c, "delete from t where id in (2, 3); select pg_advisory_lock(77); create table made (i int)").await;
}

#[test]
fn a_crash_and_a_restart_leave_them_prepared() {
    let node = Node::start_new("2pc-crash", CONF);
    block_on(async {
        let mut c = tables(&node).await;
        prepare_three(&c).await;
        they_hold(&c).await;
        // From the records alone; from state files; from a state file and records after it; after a clean stop.
        for round in 0..4 {
            match round {
                1 => drop(text(&c, "checkpoint").await),
                2 => drop(text(&c, "checkpoint; update t set w = w + 1 where id = 3").await),
                _ => {}
            }
            drop(c);
            if round == 3 {
                node.restart();
            } else {
                node.kill();
                node.start();
            }
            c = connect(&node).await;
            they_hold(&c).await;
        }
        they_end(&c).await;
        // Their end is as durable as a commit, whether a checkpoint came between or not.
        node.kill();
        node.start();
        let c = connect(&node).await;
        assert_eq!(gids(&c).await, "");
        assert_eq!(text(&c, "select count(*), sum(v) from t").await, "8|391");
        text(&c, "checkpoint").await;
        assert_eq!(text(&c, "select count(*) from pg_ls_dir('pg_twophase')").await, "0");
    });
}

#[test]
fn a_promoted_standby_ends_what_the_primary_prepared() {
    let node = Node::start_new("2pc-primary", CONF);
    let standby = node.standby("2pc-standby");
    block_on(async {
        let c = tables(&node).await;
        prepare_three(&c).await;
        node.wait_for_catchup(&standby);
        let s = connect(&standby).await;
        assert_eq!(gids(&s).await, "abort,commit,share");
        assert_eq!(text(&s, "select count(*), sum(v) from t").await, "9|450");
        assert_eq!(error(&s, "commit prepared 'commit'").await, "25006 cannot execute COMMIT PREPARED during recovery");
        node.kill();
        standby.promote();
        they_hold(&s).await;
        they_end(&s).await;
    });
}

#[test]
fn a_prepared_serializable_transaction_keeps_its_conflicts() {
    let node = Node::start_new("2pc-skew", CONF);
    block_on(async {
        for crash in [false, true] {
            let (a, b) = (tables_again(&node).await, connect(&node).await);
            let read = "begin isolation level serializable; select sum(v) from t where id <= 2";
            text(&b, read).await;
            text(&a, &format!("{read}; update t set v = -1 where id = 1; prepare transaction 'skew'")).await;
            let failed = if crash {
                node.kill();
                node.start();
                // Whom it had met is not known any more: the worst is assumed.
                error(&connect(&node).await, read).await
            } else {
                error(&b, "update t set v = -1 where id = 2; commit").await
            };
            assert_eq!(failed, "40001 could not serialize access due to read/write dependencies among transactions");
            let a = connect(&node).await;
            text(&a, "commit prepared 'skew'").await;
            assert_eq!(text(&a, "select sum(v) from t where id <= 2").await, "19");
        }
    });
}

async fn tables_again(node: &Node) -> Client {
    let c = connect(node).await;
    text(&c, "drop table if exists t").await;
    drop(c);
    tables(node).await
}
