//! Promotion of a standby that is behind, paused, in the middle of a cascade, asked by a session with a snapshot; and replay against readers.

use std::time::{Duration, Instant};

use crate::client::{block_on, connect, describe, error, text};
use crate::support::node::{Node, run, until};

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
fn a_delayed_standby_holds_commits_back_and_applies_them_when_it_is_promoted() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int primary key)");
    let b = a.clone_to("b");
    b.conf("recovery_min_apply_delay = '1h'");
    b.start();
    let c = b.clone_to("c");
    c.conf("recovery_min_apply_delay = 0");
    c.start();
    a.sql("insert into t select generate_series(1, 100)");
    let end = a.sql("select pg_current_wal_flush_lsn()");
    // The cascade has no delay: what it gets it applies.
    for node in [&b, &c] {
        node.wait_for(&format!("select pg_last_wal_receive_lsn() >= '{end}'"), "t");
    }
    c.wait_for("select count(*) from t", "100");
    assert_eq!(b.sql("select count(*), pg_last_wal_replay_lsn() < pg_last_wal_receive_lsn() from t"), "0|t");
    a.kill();
    b.promote();
    assert_eq!(b.sql("select count(*) from t"), "100");
    b.sql("insert into t values (101)");
    b.wait_for_catchup(&c);
    assert_eq!(c.sql("select count(*) from t"), "101");
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
fn a_command_of_recovery_that_is_killed_ends_it_and_one_that_fails_does_not() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int); insert into t values (1)");
    let gives_up = |node: &Node, said: &str| {
        until("the server to give up", || node.pid().is_none());
        assert!(node.log().contains(said), "{}", node.log());
    };
    let b = a.clone_to("b");
    b.conf("restore_command = 'exit 126'");
    drop(b.try_start());
    gives_up(&b, "FATAL:  could not restore file \"00000002.history\" from archive: command not executable");
    // No such file, as far as the archive's keeper knows: the upstream has it.
    b.conf("restore_command = 'exit 125'\narchive_cleanup_command = 'kill -9 $$'\nrecovery_end_command = 'kill -15 $$; : %p'");
    b.start();
    a.sql("checkpoint");
    a.wait_for_catchup(&b);
    b.sql("checkpoint");
    let said = "WARNING:  archive_cleanup_command \"kill -9 $$\": child process was terminated by signal 9: Killed";
    until(said, || b.log().contains(said));
    // While it runs, too: a command that hangs half way is killed by hand.
    b.conf("restore_command = 'test ! -e gone || kill -9 $$; false'");
    b.reload();
    a.sql("insert into t values (2)");
    a.wait_for_catchup(&b);
    std::fs::write(b.data().join("gone"), "").expect("a file");
    // It asks again when its upstream is gone.
    b.follow_at("");
    b.reload();
    gives_up(&b, "child process was terminated by signal 9: Killed");
    std::fs::remove_file(b.data().join("gone")).expect("a file");

    b.start();
    let _dies = b.psql("select pg_promote(false)").output().expect("psql");
    gives_up(&b, "FATAL:  recovery_end_command \"kill -15 $$; : %p\": child process was terminated by signal 15: Terminated");
    // The promotion had passed its point of no return: it is completed, and the command not asked again.
    b.start();
    assert_eq!(b.sql("select pg_is_in_recovery(), count(*) from t"), "f|2");
    b.sql("insert into t values (3); checkpoint");
    assert_eq!(b.sql("select timeline_id from pg_control_checkpoint()"), "2");
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

/// What the directory of a server that died at a step of its promotion comes up as.
const STEPS: [(&str, bool); 14] = [
    ("promotion: replayed", true),
    ("promotion: noted", true),
    ("promotion: history", true),
    ("promotion: segment", true),
    ("promotion: before the point of no return", true),
    ("promotion: after the point of no return", false),
    ("promotion: end command", false),
    ("promotion: start id", false),
    ("promotion: first records", false),
    ("promotion: writable", false),
    ("promotion: in production", false),
    ("promotion: cleared", false),
    ("promotion: done", false),
    // Not a step: the same story without a death in it.
    ("", false),
];

#[test]
fn a_server_killed_at_any_step_of_its_promotion_is_the_old_standby_or_the_new_primary() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int primary key, v text); insert into t select g, repeat('x', 100) from generate_series(1, 1000) g");
    let b = a.clone_to("b");
    b.conf("restart_after_crash = off\nrecovery_end_command = 'echo done >> ended'");
    b.start();
    a.sql("update t set v = v || 'y' where id % 3 = 0; delete from t where id % 7 = 0");
    a.wait_for_catchup(&b);
    b.stop("immediate");
    let mut known = a.sql("select count(*), sum(length(v)) from t");
    let mut last = 1000;
    for (step, stays_standby) in STEPS {
        let c = b.copy("c");
        c.start_with(&[("AFTERIMAGE_KILL_AT", step)]);
        a.wait_for_catchup(&c);
        if step.is_empty() {
            c.promote();
        } else {
            // It dies before it can answer, or right after.
            let _killed = c.psql("select pg_promote(false)").output().expect("psql");
            until(step, || c.pid().is_none_or(|pid| !crate::support::node::is_running(pid)));
            assert!(c.log().contains(&format!("the server dies at \"{step}\"")), "{}", c.log());
            c.start();
        }
        c.wait_for("select pg_is_in_recovery()", if stays_standby { "t" } else { "f" });
        assert_eq!(c.sql("select count(*), sum(length(v)) from t"), known, "{step}");
        if stays_standby {
            // It still follows, and can be promoted.
            last += 1;
            a.sql(&format!("insert into t values ({last}, 'after')"));
            known = a.sql("select count(*), sum(length(v)) from t");
            a.wait_for_catchup(&c);
            c.promote();
            assert_eq!(c.sql("select count(*), sum(length(v)) from t"), known, "{step}");
        }
        c.sql("insert into t values (0, 'mine'); checkpoint");
        assert_eq!(c.sql("select timeline_id from pg_control_checkpoint()"), "2", "{step}");
        if !stays_standby {
            // A second start has nothing left to decide.
            c.kill();
            c.start();
        }
        assert_eq!(c.sql("select pg_is_in_recovery(), (select v from t where id = 0)"), "f|mine", "{step}");
        assert!(!c.data().join("pg_wal/promotion").exists() && !c.data().join("standby.signal").exists(), "{step}");
    }

    // Sessions write before the control file says that they may: what they commit meanwhile is there after a crash.
    let c = b.copy("c");
    c.start_with(&[("AFTERIMAGE_HOLD_AT", "promotion: writable")]);
    a.wait_for_catchup(&c);
    c.sql("select pg_promote(false)");
    c.wait_for("select pg_is_in_recovery()", "f");
    c.sql("insert into t values (0, 'early')");
    let state = run(c.tool("controldata").arg(c.data()));
    assert!(state.contains("in archive recovery"), "{state}");
    c.kill();
    c.start();
    assert_eq!(c.sql("select pg_is_in_recovery(), (select v from t where id = 0)"), "f|early");
    c.sql("insert into t values (-1, 'late'); checkpoint");
    assert_eq!(c.sql("select timeline_id from pg_control_checkpoint()"), "2");
}
