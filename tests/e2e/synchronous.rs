//! Synchronous replication: which standbys count, what each level waits for, what becomes of a commit that nobody confirmed.

use std::process::{Child, Stdio};

use crate::support::node::{Node, signal, until};

/// Sessions that wait for a standby.
const WAITING: &str = "select count(*) from pg_stat_activity where wait_event_type = 'IPC' and wait_event = 'SyncRep'";

fn begin(node: &Node, sql: &[&str]) -> Child {
    let mut psql = node.psql(sql[0]);
    for more in &sql[1..] {
        psql.args(["-c", more]);
    }
    psql.args(["-v", "VERBOSITY=verbose"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("psql")
}

/// Whether it succeeded, and what it said.
fn end(psql: Child) -> (bool, String) {
    let output = psql.wait_with_output().expect("psql");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn set_names(node: &Node, names: &str) {
    node.conf(&format!("synchronous_standby_names = '{names}'"));
    node.reload();
}

/// A primary with a table, and a standby called b that counts.
fn pair(conf: &str) -> (Node, Node) {
    let a = Node::start_new("a", conf);
    a.sql("create table t (id int)");
    let b = a.standby("b");
    set_names(&a, "b");
    a.wait_for("select sync_state from pg_stat_replication", "sync");
    (a, b)
}

fn stop_standby(a: &Node, b: &Node) {
    b.stop("fast");
    a.wait_for("select count(*) from pg_stat_replication", "0");
}

#[test]
fn what_a_session_that_waits_for_less_wrote_is_known_to_whoever_makes_the_table_anew() {
    let (a, b) = pair("autovacuum = off");
    a.sql("create table kept as select g id, 'v' v from generate_series(1, 100) g");
    a.sql("create table parent as select generate_series(1, 3) id; alter table parent add primary key (id)");
    a.sql("create table child (id int references parent)");
    a.wait_for_catchup(&b);
    let server = b.server_pids();
    server.iter().for_each(|pid| signal(*pid, "STOP"));

    // Committed here, and not where sessions at level "on" read.
    for sql in ["insert into kept select g, 'v' from generate_series(101, 200) g", "insert into child values (1)"] {
        a.sql(&format!("set synchronous_commit = local; {sql}"));
    }
    let error = a.sql_error("delete from parent where id = 1");
    assert!(error.contains("23503"), "{error}");
    let waiting = begin(&a, &["alter table kept alter id type bigint"]);
    a.wait_for(WAITING, "1");
    server.iter().for_each(|pid| signal(*pid, "CONT"));
    let (done, said) = end(waiting);
    assert!(done, "{said}");
    assert_eq!(a.sql("select count(*), max(id) from kept"), "200|200");
}

#[test]
fn what_a_session_that_waits_for_less_made_of_a_table_is_known_to_whoever_writes_to_it() {
    let (a, b) = pair("autovacuum = off");
    a.sql("create table indexed as select generate_series(1, 100) id; create table emptied as select 1 id; create table remade as select 1 id");
    a.wait_for_catchup(&b);
    let server = b.server_pids();
    server.iter().for_each(|pid| signal(*pid, "STOP"));
    // Committed here, with no lock left, and not where sessions at level "on" read.
    a.sql("set synchronous_commit = local; create index i on indexed (id); truncate emptied; alter table remade alter id type bigint");
    let waiting = ["indexed", "emptied", "remade"].map(|table| begin(&a, &[&format!("insert into {table} values (1000)")]));
    a.wait_for("select count(*) from pg_stat_activity where query like 'insert into%' and wait_event_type = 'IPC'", "3");
    server.iter().for_each(|pid| signal(*pid, "CONT"));
    for psql in waiting {
        let (done, said) = end(psql);
        assert!(done, "{said}");
    }
    a.sql("select bt_index_check('i', true)");
    assert_eq!(a.sql("select * from emptied"), "1000");
    assert_eq!(a.sql("select count(*), max(id) from remade"), "2|1000");
    a.wait_for_catchup(&b);
    assert_eq!(a.table_hashes(), b.table_hashes());
}

#[test]
fn what_a_session_that_waits_for_less_made_of_a_table_is_not_yet_met_by_who_reads() {
    let (a, b) = pair("autovacuum = off");
    let tables = ["indexed", "emptied", "remade", "moved", "whole", "sorted", "dropped", "rebuilt"];
    for table in tables {
        a.sql(&format!(
            "create table {table} as select g id, repeat('v', 3000) v from generate_series(1, 50) g;
             alter table {table} alter v set storage external; update {table} set v = v || 'w' where id = 1;
             create index {table}_i on {table} (id)"
        ));
    }
    a.wait_for_catchup(&b);
    let server = b.server_pids();
    server.iter().for_each(|pid| signal(*pid, "STOP"));
    a.sql(
        "set synchronous_commit = local; create index i on indexed (id); truncate emptied; alter table remade alter id type bigint;
         alter table moved set unlogged; cluster sorted using sorted_i; drop table dropped; reindex table rebuilt",
    );
    assert!(end(begin(&a, &["set synchronous_commit = local", "vacuum full whole", "checkpoint"])).0);
    // The setting before the transaction.
    let count = |node: &Node, setting: &str, table: &str| {
        let mut psql = node.psql(setting);
        let output = psql.args(["-c", &format!("select count(*), sum(length(v)) from {table} where id > 0")]).output().expect("psql");
        let said = String::from_utf8_lossy(&output.stdout);
        said.lines().last().unwrap_or_default().to_owned()
    };
    // Who reads at a higher level sees all as it was, files and all, and waits for nobody.
    for table in tables {
        for settings in [
            "set enable_seqscan = on",
            "set enable_seqscan = off",
            "set synchronous_commit = remote_write",
            "begin isolation level repeatable read",
        ] {
            assert_eq!(count(&a, settings, table), "50|150001", "{table}, {settings}");
        }
    }
    assert_eq!(count(&a, "set synchronous_commit = local", "emptied"), "0|");
    assert_eq!(count(&a, "set synchronous_commit = local", "dropped"), "");

    // Who writes waits for the standby, unless he will not.
    let insert = "insert into emptied values (1)";
    assert!(a.sql_error(&format!("set lock_timeout = '10ms'; {insert}")).contains("55P03"));
    assert!(a.sql_error(&format!("set statement_timeout = '10ms'; {insert}")).contains("57014"));
    assert!(a.sql_error("begin; lock table emptied in row share mode nowait").contains("55P03"));
    let waiting = begin(&a, &[insert]);
    a.wait_for(WAITING, "1");
    a.sql("select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'");
    let (done, said) = end(waiting);
    assert!(!done && said.contains("57014"), "{said}");

    // A primary that starts again shows what it has; a standby that takes over has it, or what was.
    a.kill();
    a.start();
    assert_eq!(count(&a, "set enable_seqscan = off", "emptied"), "0|");
    assert_eq!(count(&a, "set enable_seqscan = off", "remade"), "50|150001");
    a.kill();
    server.iter().for_each(|pid| signal(*pid, "CONT"));
    b.promote();
    for table in ["indexed", "remade", "whole", "sorted", "rebuilt"] {
        assert_eq!(count(&b, "set enable_seqscan = off", table), "50|150001", "{table} on the standby");
    }
}

#[test]
fn who_counts_follows_the_setting_at_each_reload() {
    const STATES: &str = "select string_agg(application_name || ' ' || sync_state || ' ' || sync_priority, ', ' order by application_name) \
                          from pg_stat_replication";
    let a = Node::start_new("a", "");
    a.sql("create table t (id int)");
    let (b, c) = (a.standby("b"), a.standby("c"));
    for (names, states) in [
        ("b", "b sync 1, c async 0"),
        ("c, b", "b potential 2, c sync 1"),
        ("2 (c, b)", "b sync 2, c sync 1"),
        ("FIRST 1 (B, \"c\")", "b sync 1, c potential 2"),
        ("ANY 1 (b, c)", "b quorum 1, c quorum 1"),
        ("any 2 (*)", "b quorum 1, c quorum 1"),
        ("", "b async 0, c async 0"),
    ] {
        set_names(&a, names);
        a.wait_for(STATES, states);
        a.sql("insert into t values (0)");
    }
    // On a standby the setting is for later.
    let d = b.standby("d");
    set_names(&b, "*");
    b.wait_for("show synchronous_standby_names", "*");
    b.wait_for("select sync_state, sync_priority from pg_stat_replication", "async|0");
    drop(d);
    set_names(&a, "*");
    a.wait_for("select string_agg(sync_state || sync_priority, ' ' order by sync_state) from pg_stat_replication", "potential1 sync1");
    a.sql("insert into t values (0)");

    // A text that is none is refused, and what was in force stays.
    set_names(&a, "ANY 1 b");
    until("the refusal", || a.log().contains("invalid value for parameter \"synchronous_standby_names\": \"ANY 1 b\""));
    assert_eq!(a.sql("show synchronous_standby_names"), "*");
    let error = a.sql_error("alter system set synchronous_standby_names = 'ANY 1 b'");
    assert!(error.contains("42601") && error.contains("DETAIL:  syntax error at or near \"b\""), "{error}");
    let error = a.sql_error("alter system set synchronous_standby_names = 'ANY 0 (b)'");
    assert!(error.contains("22023") && error.contains("number of synchronous standbys (0) must be greater than zero"), "{error}");

    // Fewer than asked for: commits wait, and go on when fewer are asked for.
    set_names(&a, "ANY 2 (b, c)");
    a.wait_for(STATES, "b quorum 1, c quorum 1");
    c.stop("fast");
    let waiting = begin(&a, &["insert into t values (1)"]);
    a.wait_for(WAITING, "1");
    set_names(&a, "FIRST 1 (c, b)");
    assert!(end(waiting).0);
    a.wait_for(STATES, "b sync 2");
    // The one with priority comes back.
    c.start();
    a.wait_for(STATES, "b potential 2, c sync 1");
    c.stop("fast");
    b.stop("fast");
    let waiting = begin(&a, &["insert into t values (2)"]);
    a.wait_for(WAITING, "1");
    assert_eq!(a.sql("select count(*) from t where id > 0"), "1");
    set_names(&a, "");
    assert!(end(waiting).0);
    assert_eq!(a.sql("select count(*) from t where id > 0"), "2");
}

#[test]
fn each_level_waits_for_what_it_names() {
    let (a, b) = pair("");
    b.sql("select pg_wal_replay_pause()");
    for level in ["off", "local", "remote_write", "on"] {
        a.sql(&format!("set synchronous_commit = {level}; insert into t values (1)"));
    }
    let waiting = begin(&a, &["set synchronous_commit = remote_apply; insert into t values (2)"]);
    a.wait_for(WAITING, "1");
    assert_eq!(b.sql("select count(*) from t"), "0");
    b.sql("select pg_wal_replay_resume()");
    assert!(end(waiting).0);
    assert_eq!(b.sql("select count(*) from t"), "5");

    let server = b.server_pids();
    server.iter().for_each(|pid| signal(*pid, "STOP"));
    for level in ["off", "local"] {
        a.sql(&format!("set synchronous_commit = {level}; insert into t values (3)"));
    }
    let waiting: Vec<_> = ["remote_write", "on", "remote_apply"]
        .iter()
        .map(|level| begin(&a, &[&format!("set synchronous_commit = {level}; insert into t values (4)")]))
        .collect();
    a.wait_for(WAITING, "3");
    assert_eq!(a.sql("select count(*) from t where id = 4"), "0");
    server.iter().for_each(|pid| signal(*pid, "CONT"));
    for psql in waiting {
        assert!(end(psql).0);
    }
    assert_eq!(a.sql("select count(*) from t where id = 4"), "3");
}

#[test]
fn a_wait_that_is_cut_short_is_of_unknown_outcome_whatever_waited() {
    let (a, b) = pair("max_prepared_transactions = 10\nautovacuum = off");
    a.sql("begin; insert into t values (3); prepare transaction 'before'");
    stop_standby(&a, &b);
    let cancel = ("pg_cancel_backend", "canceling wait for synchronous replication due to user request");
    let terminate =
        ("pg_terminate_backend", "canceling the wait for synchronous replication and terminating connection due to administrator command");
    let cases: [(&[&str], _); 6] = [
        (&["insert into t values (1)"], cancel),
        (&["begin", "insert into t values (2)", "commit"], terminate),
        (&["commit prepared 'before'"], cancel),
        (&["begin", "insert into t values (4)", "prepare transaction 'after'"], terminate),
        (&["create index concurrently i on t (id)"], cancel),
        (&["create table u as select 5 id"], terminate),
    ];
    for (sql, (how, message)) in cases {
        let waiting = begin(&a, sql);
        a.wait_for(WAITING, "1");
        assert_eq!(a.sql(&format!("select count({how}(pid)) from pg_stat_activity where wait_event = 'SyncRep'")), "1");
        let (succeeded, error) = end(waiting);
        assert!(!succeeded && error.contains(&format!("FATAL:  40003: {message}\n")), "{sql:?}: {error}");
        assert!(
            error.contains("DETAIL:  The transaction has already committed locally, but might not have been replicated to the standby."),
            "{sql:?}: {error}"
        );
        assert_eq!(a.sql("select count(*) from t"), "0", "{sql:?}");
        assert_eq!(a.sql("select to_regclass('u') is null"), "t", "{sql:?}");
    }

    // A stop in order does not wait for a standby that is not there, and says no success either.
    let waiting = [begin(&a, &["insert into t values (6)"]), begin(&a, &["create table v ()", "create index concurrently on v ((1))"])];
    a.wait_for(WAITING, "2");
    a.stop("fast");
    for psql in waiting {
        let (succeeded, error) = end(psql);
        assert!(!succeeded && error.contains("40003"), "{error}");
    }
    a.start();
    b.start();
    a.wait_for("select sync_state from pg_stat_replication", "sync");
    a.sql("rollback prepared 'after'");
    assert_eq!(a.sql("select string_agg(id::text, ' ' order by id) from t"), "1 2 3 6");
    a.wait_for_catchup(&b);
    assert_eq!(a.table_hashes(), b.table_hashes());
}

#[test]
fn what_was_prepared_is_not_rolled_back_before_the_standby_knows() {
    let (a, b) = pair("max_prepared_transactions = 10");
    a.sql("begin; insert into t values (1); prepare transaction 'p'");
    stop_standby(&a, &b);
    let waiting = begin(&a, &["rollback prepared 'p'"]);
    a.wait_for(WAITING, "1");
    b.start();
    assert!(end(waiting).0);
    a.kill();
    b.promote();
    assert_eq!(b.sql("select count(*) from pg_prepared_xacts"), "0");
}

#[test]
fn the_first_commit_of_a_new_or_restarted_primary_waits_too() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int)");
    let b = a.clone_to("b");
    b.conf("synchronous_standby_names = 'nobody'");
    b.start();
    a.wait_for_catchup(&b);
    a.kill();
    let first = begin(&b, &["select pg_promote()", "insert into t values (1)"]);
    b.wait_for(WAITING, "1");
    assert_eq!(b.sql("select count(*) from t"), "0");
    b.kill();
    assert!(!end(first).0);
    b.start();
    let second = begin(&b, &["insert into t values (2)"]);
    b.wait_for(WAITING, "1");
    set_names(&b, "");
    assert!(end(second).0);
    assert_eq!(b.sql("select string_agg(id::text, ' ' order by id) from t"), "1 2");
}
