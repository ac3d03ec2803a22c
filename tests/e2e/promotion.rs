//! Promotion of a standby that is behind, paused, in the middle of a cascade, asked by a session with a snapshot; and replay against readers.

use std::time::{Duration, Instant};

use crate::client::{block_on, connect, describe, error, text};
use crate::support::node::{Node, until};

/// Far below `max_standby_streaming_delay`.
const AT_ONCE: Duration = Duration::from_secs(20);

/// Rows that come and go, so that replay has to remove what an old snapshot may see.
fn churn(node: &Node) {
    node.sql("update t set v = v + 1; delete from t where id > 900");
    node.sql("vacuum t");
    node.sql("update t set v = v + 1");
    node.sql("vacuum t");
}

#[test]
fn pg_promote_of_a_standby_that_is_behind_waits_for_nobody_and_applies_everything() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int primary key, v int); insert into t select g, 0 from generate_series(1, 1000) g");
    let b = a.standby("b");
    a.wait_for_catchup(&b);
    b.sql("select pg_wal_replay_pause()");
    churn(&a);
    let end = a.sql("select pg_current_wal_flush_lsn()");
    b.wait_for(&format!("select pg_last_wal_receive_lsn() >= '{end}'"), "t");
    a.kill();
    let began = Instant::now();
    block_on(async {
        let session = connect(&b).await;
        assert_eq!(text(&session, "select pg_promote()").await, "t");
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        assert_eq!(text(&session, "select count(*), min(v), max(v) from t").await, "900|2|2");
        text(&session, "insert into t values (1001, 0)").await;
    });
    assert_eq!(b.sql("select pg_is_in_recovery()"), "f");
}

#[test]
fn rows_that_replay_removed_under_a_promoting_session_are_an_error_and_not_missing() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int primary key, v int); insert into t select g, 0 from generate_series(1, 1000) g");
    let b = a.standby("b");
    a.wait_for_catchup(&b);
    b.sql("select pg_wal_replay_pause()");
    block_on(async {
        let session = connect(&b).await;
        text(&session, "begin isolation level repeatable read").await;
        assert_eq!(text(&session, "select count(*), sum(v) from t").await, "1000|0");
        churn(&a);
        let end = a.sql("select pg_current_wal_flush_lsn()");
        b.wait_for(&format!("select pg_last_wal_receive_lsn() >= '{end}'"), "t");
        assert_eq!(text(&session, "select pg_promote()").await, "t");
        let error = error(&session, "select count(*), sum(v) from t").await;
        assert!(error.contains("40001 canceling statement due to conflict with recovery"), "{error}");
        text(&session, "rollback").await;
        assert_eq!(text(&session, "select count(*), min(v) from t").await, "900|2");
    });
}

#[test]
fn a_cancelled_pg_promote_gives_the_session_back_and_the_promotion_goes_on() {
    let a = Node::start_new("a", "");
    let b = a.clone_to("b");
    let gate = b.home.path().join("gate");
    assert!(std::process::Command::new("mkfifo").arg(&gate).status().expect("mkfifo").success());
    b.conf(&format!("recovery_end_command = 'cat \"{}\"'", gate.display()));
    b.start();
    let cancelled = b.psql("select pg_promote()").args(["-v", "VERBOSITY=verbose"]).env("PGOPTIONS", "-c statement_timeout=200").output();
    let error = String::from_utf8_lossy(&cancelled.expect("psql").stderr).into_owned();
    assert!(error.contains("57014"), "{error}");
    assert_eq!(b.sql("select pg_promote(true, 1)"), "f");
    assert_eq!(b.sql("select pg_is_in_recovery()"), "t");
    std::fs::write(&gate, "").expect("the gate opens");
    b.wait_for("select pg_is_in_recovery()", "f");
    b.sql("create table t (id int)");
}

#[test]
fn a_cascade_follows_its_promoted_upstream_by_itself() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int primary key)");
    let b = a.standby("b");
    let c = b.standby("c");
    a.sql("insert into t select generate_series(1, 100)");
    a.wait_for_catchup(&c);
    let receiver = c.sql("select pid from pg_stat_wal_receiver");
    // It is behind when its upstream is promoted, and paused.
    c.sql("select pg_wal_replay_pause()");
    a.sql("insert into t select generate_series(101, 200)");
    a.wait_for_catchup(&b);
    a.kill();
    b.promote();
    b.sql("insert into t values (201)");
    until("the cascade to stream the new timeline", || c.sql("select received_tli from pg_stat_wal_receiver") == "2");
    assert_eq!(c.sql("select count(*) from t"), "100");
    c.sql("select pg_wal_replay_resume()");
    b.wait_for_catchup(&c);
    assert_eq!(c.sql("select count(*) from t"), "201");
    assert_eq!(c.sql("select pid from pg_stat_wal_receiver"), receiver);
    assert_eq!(b.table_hashes(), c.table_hashes());
    // Promoted in its turn, while paused.
    c.sql("select pg_wal_replay_pause()");
    b.sql("insert into t values (202)");
    let end = b.sql("select pg_current_wal_flush_lsn()");
    c.wait_for(&format!("select pg_last_wal_receive_lsn() >= '{end}'"), "t");
    b.kill();
    c.promote();
    c.sql("insert into t values (203)");
    assert_eq!(c.sql("select count(*), max(id) from t"), "203|203");
}

#[test]
fn readers_in_the_way_of_replay_are_cancelled_counted_and_told_why() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int primary key, v int); insert into t select g, 0 from generate_series(1, 1000) g");
    let b = a.clone_to("b");
    b.conf("max_standby_streaming_delay = 0");
    b.start();
    a.wait_for_catchup(&b);
    block_on(async {
        let idle = connect(&b).await;
        text(&idle, "begin isolation level repeatable read").await;
        text(&idle, "select count(*) from t").await;
        churn(&a);
        a.wait_for_catchup(&b);
        // It sat idle in its transaction: nothing to cancel but the session.
        let error = idle.simple_query("select count(*) from t").await.expect_err("the session is over");
        let said = describe(&error);
        assert!(idle.is_closed() || said.contains("40001 terminating connection due to conflict with recovery"), "{said}");
        assert_eq!(b.sql("select confl_snapshot from pg_stat_database_conflicts where datname = 'postgres'"), "1");
        assert_eq!(b.sql("select conflicts from pg_stat_database where datname = 'postgres'"), "1");
        assert!(b.log().contains("User query might have needed to see row versions that must be removed."), "{}", b.log());
    });
}
