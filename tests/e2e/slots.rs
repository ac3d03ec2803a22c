//! Physical replication slots, made and used over SQL and over the replication protocol.

use std::process::{Command, Output};

use crate::support::node::{Node, until};

/// psql on a replication connection.
fn replication(node: &Node, commands: &[&str]) -> Output {
    let mut psql = Command::new("psql");
    psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-d", &format!("{} replication=true", node.conninfo("slots"))]);
    for command in commands {
        psql.args(["-c", command]);
    }
    psql.output().expect("psql")
}

fn answer(node: &Node, commands: &[&str]) -> String {
    let output = replication(node, commands);
    assert!(output.status.success(), "{commands:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

fn refusal(node: &Node, command: &str) -> String {
    let output = replication(node, &[command]);
    assert!(!output.status.success(), "{command} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn slots_are_made_in_both_spellings_copied_advanced_dropped_and_survive_a_crash() {
    let node = Node::start_new("slots", "max_replication_slots = 5\nautovacuum = off");
    node.sql("create table t (id int)");
    let reserved = answer(&node, &["CREATE_REPLICATION_SLOT \"new\" PHYSICAL (RESERVE_WAL)"]);
    assert!(reserved.starts_with("new|"), "{reserved}");
    answer(&node, &["CREATE_REPLICATION_SLOT old PHYSICAL RESERVE_WAL;"]);
    assert_eq!(node.sql("select pg_create_physical_replication_slot('lazy')"), "(lazy,)");
    // A temporary one, seen by its session and by others, and gone with it.
    let shown = answer(&node, &["CREATE_REPLICATION_SLOT passing TEMPORARY PHYSICAL (RESERVE_WAL true)", "READ_REPLICATION_SLOT passing"]);
    let lsn = node.sql("select restart_lsn from pg_replication_slots where slot_name = 'new'");
    assert_eq!(shown.lines().last(), Some(&*format!("physical|{lsn}|1")), "{shown}");
    node.wait_for("select count(*) from pg_replication_slots where slot_name = 'passing'", "0");
    assert_eq!(answer(&node, &["READ_REPLICATION_SLOT nothing"]), "||");
    assert_eq!(
        node.sql("select (pg_create_physical_replication_slot('passing', true, true)).slot_name, (select temporary and active from pg_replication_slots where slot_name = 'passing')").lines().count(),
        1
    );
    node.wait_for("select count(*) from pg_replication_slots where slot_name = 'passing'", "0");

    let view = "select slot_name, slot_type, temporary, active, restart_lsn is null, wal_status, safe_wal_size from pg_replication_slots order by 1";
    assert_eq!(node.sql(view), "lazy|physical|f|f|t||\nnew|physical|f|f|f|reserved|\nold|physical|f|f|f|reserved|");
    node.conf("max_slot_wal_keep_size = '32MB'");
    node.reload();
    node.wait_for("show max_slot_wal_keep_size", "32MB");
    // The slot's segment, two more, and the one in which it breaks.
    let safe = "select safe_wal_size = (div(restart_lsn - '0/0', 16777216) + 3) * 16777216 - (pg_current_wal_insert_lsn() - '0/0') \
                from pg_replication_slots where slot_name = 'new'";
    assert_eq!(node.sql(safe), "t");

    node.sql("insert into t select generate_series(1, 1000)");
    assert_eq!(node.sql("select pg_copy_physical_replication_slot('new', 'copy')"), "(copy,)");
    assert_eq!(node.sql("select count(distinct restart_lsn) from pg_replication_slots where slot_name in ('new', 'copy')"), "1");
    let error = node.sql_error("select pg_copy_physical_replication_slot('lazy', 'other')");
    assert!(error.contains("55000") && error.contains("cannot copy a replication slot that doesn't reserve WAL"), "{error}");
    let end = node.sql("select pg_current_wal_flush_lsn()");
    assert_eq!(node.sql(&format!("select end_lsn from pg_replication_slot_advance('copy', '{end}')")), end);
    let error = node.sql_error(&format!("select pg_replication_slot_advance('copy', '{lsn}')"));
    assert!(error.contains("55000") && error.contains(&format!("cannot advance replication slot to {lsn}, minimum is {end}")), "{error}");
    assert_eq!(node.sql("select end_lsn <= pg_current_wal_insert_lsn() from pg_replication_slot_advance('copy', 'FF/0')"), "t");
    let error = node.sql_error(&format!("select pg_replication_slot_advance('lazy', '{end}')"));
    assert!(error.contains("55000") && error.contains("replication slot \"lazy\" cannot be advanced"), "{error}");

    for (name, state, message) in [
        ("new", "42710", "replication slot \"new\" already exists"),
        ("", "42602", "replication slot name \"\" is too short"),
        ("Upper", "42602", "replication slot name \"Upper\" contains invalid character"),
    ] {
        let error = node.sql_error(&format!("select pg_create_physical_replication_slot('{name}')"));
        assert!(error.contains(state) && error.contains(message), "{error}");
    }
    for (command, state, message) in [
        ("select 1", "0A000", "cannot execute SQL commands in WAL sender for physical replication"),
        ("CREATE_REPLICATION_SLOT x PHYSICAL (RESERVE_WAL, RESERVE_WAL)", "42601", "conflicting or redundant options"),
        ("START_REPLICATION 0/1000000 TIMELINE 7", "XX000", "requested timeline 7 is not in this server's history"),
        ("BASE_BACKUP (TARGET 'x')", "0A000", "unrecognized target: \"x\""),
    ] {
        let error = refusal(&node, command);
        assert!(error.contains(state) && error.contains(message), "{error}");
    }
    let error = refusal(&node, "DROP_REPLICATION_SLOT nothing");
    assert!(error.contains("42704") && error.contains("replication slot \"nothing\" does not exist"), "{error}");
    node.sql("select pg_create_physical_replication_slot('fifth')");
    let error = node.sql_error("select pg_create_physical_replication_slot('sixth')");
    assert!(error.contains("53400") && error.contains("HINT:  Free one or increase max_replication_slots."), "{error}");
    node.sql("create role plain login");
    for sql in
        ["pg_create_physical_replication_slot('x')", "pg_drop_replication_slot('new')", "pg_copy_physical_replication_slot('new', 'x')"]
    {
        let error = node.sql_error(&format!("set role plain; select {sql}"));
        assert!(error.contains("42501") && error.contains("must be superuser or replication role to use replication slots"), "{error}");
    }

    node.sql("checkpoint");
    let kept = "select slot_name, temporary, active, restart_lsn, wal_status from pg_replication_slots order by 1";
    let before = node.sql(kept);
    node.kill();
    node.start();
    assert_eq!(node.sql(kept), before);
    answer(&node, &["DROP_REPLICATION_SLOT \"old\" WAIT"]);
    node.sql("select pg_drop_replication_slot(slot_name) from pg_replication_slots");
    assert_eq!(node.sql("select count(*) from pg_replication_slots"), "0");
}

#[test]
fn a_slot_in_use_is_one_standbys_and_a_slot_that_asks_too_much_is_lost() {
    let a = Node::start_new("a", "min_wal_size = '32MB'\nmax_slot_wal_keep_size = '32MB'");
    a.sql("create table t (id int); select pg_create_physical_replication_slot('s')");
    let b = a.clone_to("b");
    b.conf("primary_slot_name = 's'");
    b.start();
    a.wait_for("select active and wal_status = 'reserved' from pg_replication_slots", "t");
    let pid = a.sql("select active_pid from pg_replication_slots");
    for sql in ["select pg_drop_replication_slot('s')", "select pg_replication_slot_advance('s', pg_current_wal_insert_lsn())"] {
        let error = a.sql_error(sql);
        assert!(error.contains("55006") && error.contains(&format!("replication slot \"s\" is active for PID {pid}")), "{error}");
    }
    let error = refusal(&a, "DROP_REPLICATION_SLOT s");
    assert!(error.contains("55006"), "{error}");
    assert_eq!(a.sql("select pid = active_pid from pg_stat_replication, pg_replication_slots"), "t");

    b.stop("fast");
    a.wait_for("select active from pg_replication_slots", "f");
    let restart = a.sql("select restart_lsn from pg_replication_slots");
    // Its WAL is kept until it is more than allowed.
    a.sql("select pg_switch_wal(); insert into t values (1); checkpoint");
    assert_eq!(a.sql("select wal_status in ('reserved', 'extended') and safe_wal_size > 0 from pg_replication_slots"), "t");
    for n in 0..5 {
        a.sql(&format!("select pg_switch_wal(); insert into t values ({n})"));
    }
    assert_eq!(a.sql("select wal_status, safe_wal_size < 0 from pg_replication_slots"), "unreserved|t");
    a.sql("checkpoint");
    assert_eq!(a.sql("select wal_status, restart_lsn is null, safe_wal_size is null from pg_replication_slots"), "lost|t|t");
    assert_eq!(answer(&a, &["READ_REPLICATION_SLOT s"]), "physical||");
    let said = format!("invalidating slot \"s\" because its restart_lsn {restart} exceeds max_slot_wal_keep_size");
    assert!(a.log().contains(&said), "{said}: {}", a.log());
    a.restart();
    assert_eq!(a.sql("select wal_status from pg_replication_slots"), "lost");
    b.start();
    let refusals = || b.log().matches("has already been removed").count();
    until("the standby to say that its WAL is gone", || refusals() > 0);
    // It asks again, but not without a pause: 0.1 s, then every 0.2 s.
    let (before, began) = (refusals(), std::time::Instant::now());
    until("more of the same", || refusals() >= before + 8);
    assert!(began.elapsed() >= std::time::Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(b.sql("select count(*) from t"), "0");
}

#[test]
fn a_standby_reconnects_at_once_however_long_the_retry_interval() {
    let a = Node::start_new("a", "");
    let b = a.clone_to("b");
    b.conf("wal_retrieve_retry_interval = '10min'");
    b.start();
    let streams = "select count(*) from pg_stat_replication where state = 'streaming'";
    a.wait_for(streams, "1");
    for how in ["stop", "end", "kill"] {
        let before = b.log().matches("started streaming WAL from primary").count();
        match how {
            "stop" => {
                a.stop("fast");
                let said = format!(
                    "could not connect to the primary server: connection to server at \"127.0.0.1\", port {} failed: Connection refused\n",
                    a.port
                );
                until(&said, || b.log().contains(&said));
                a.start();
            }
            "end" => assert_eq!(a.sql("select pg_terminate_backend(pid) from pg_stat_replication"), "t"),
            _ => {
                a.kill();
                a.start();
            }
        }
        until("another stream", || b.log().matches("started streaming WAL from primary").count() > before);
        a.wait_for(streams, "1");
    }
}
