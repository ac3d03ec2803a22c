//! Vacuum by itself and by hand: what it counts, what it says, what it gives way to.

use crate::client::{block_on, connect, describe, error, text};
use crate::support::node::{Node, until};
use tokio_postgres::Client;

const COUNTS: &str = "select n_tup_ins, n_tup_upd, n_tup_del, n_live_tup, n_dead_tup, n_mod_since_analyze, n_ins_since_vacuum \
                      from pg_stat_user_tables where relname = 't'";

#[test]
fn table_counters_follow_commits_and_aborts_and_survive_a_clean_stop() {
    let node = Node::start_new("counters", "autovacuum = off");
    node.sql("create table t (id int primary key, v int)");
    node.sql("insert into t select g, g from generate_series(1, 100) g");
    node.sql("update t set v = 0 where id <= 10");
    node.sql("delete from t where id > 90");
    assert_eq!(node.sql(COUNTS), "100|10|10|90|20|120|100");
    node.sql("begin; insert into t select g, g from generate_series(201, 205) g; rollback");
    assert_eq!(node.sql(COUNTS), "105|10|10|90|25|120|100");
    node.sql(
        "begin; insert into t values (301, 1); savepoint s; insert into t values (302, 1); rollback to s; \
         savepoint r; insert into t values (303, 1); release r; commit",
    );
    assert_eq!(node.sql(COUNTS), "108|10|10|92|26|122|102");
    node.sql("select * from t");
    node.sql("set enable_seqscan = off; select * from t where id = 5; select * from t where id in (1, 2, 1000)");
    assert_eq!(node.sql("select seq_tup_read >= 92 and seq_scan > 0, idx_scan >= 2 from pg_stat_user_tables where relname = 't'"), "t|t");
    assert_eq!(node.sql("select idx_scan >= 2, idx_tup_fetch >= 3 from pg_stat_user_indexes where indexrelname = 't_pkey'"), "t|t");
    node.sql("analyze t");
    node.sql("vacuum t");
    assert_eq!(node.sql(COUNTS), "108|10|10|92|0|0|0");
    let times = "select vacuum_count, autovacuum_count, analyze_count, last_vacuum > now() - interval '1 minute', last_autovacuum is null \
                 from pg_stat_user_tables where relname = 't'";
    assert_eq!(node.sql(times), "1|0|1|t|t");
    node.sql("insert into t values (400, 1)");
    node.restart();
    assert_eq!(node.sql(COUNTS), "109|10|10|93|0|1|1");
    assert_eq!(node.sql(times), "1|0|1|t|t");
    node.sql("truncate t");
    assert_eq!(node.sql(COUNTS), "109|10|10|0|0|1|0");
    node.kill();
    node.start();
    assert_eq!(node.sql(COUNTS), "0|0|0|0|0|0|0");
}

#[test]
fn vacuum_verbose_reads_as_postgresql_prints_it() {
    let node = Node::start_new("verbose", "autovacuum = off");
    node.sql("create table t (id int primary key, v int); insert into t select g, g from generate_series(1, 2000) g");
    node.sql("delete from t where id % 2 = 0");
    let output = node.psql("vacuum (verbose) t").output().expect("psql");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for line in [
        "INFO:  vacuuming \"postgres.public.t\"",
        "INFO:  finished vacuuming \"postgres.public.t\": index scans: 1",
        "tuples: 1000 removed, 1000 remain, 0 are dead but not yet removable",
        " had 1000 dead item identifiers removed",
        "index \"t_pkey\": pages: ",
        "buffer usage: ",
        "system usage: CPU: user: ",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    node.sql("delete from t where id < 1000");
    let output = node.psql("vacuum (verbose, index_cleanup off) t").output().expect("psql");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("index scan bypassed: ") && said.contains("index scans: 0"), "{said}");
    // A later vacuum takes up what was left.
    node.sql("vacuum t");
    assert_eq!(node.sql("select count(*), min(id) from t where id > 0"), "500|1001");
}

#[test]
fn autovacuum_cleans_what_is_due_and_gives_way() {
    let conf = "autovacuum_naptime = 1\nlog_autovacuum_min_duration = 0\nautovacuum_vacuum_scale_factor = 0\ndeadlock_timeout = '20ms'";
    let node = Node::start_new("auto", conf);
    node.sql("create table kept (id int) with (autovacuum_enabled = false); create table t (id int primary key, v text)");
    node.sql("insert into kept select generate_series(1, 1000); insert into t select g, repeat('x', 100) from generate_series(1, 1000) g");
    node.sql("delete from kept; update t set v = 'y'");
    node.wait_for("select autovacuum_count > 0 and autoanalyze_count > 0, n_dead_tup from pg_stat_user_tables where relname = 't'", "t|0");
    assert_eq!(node.sql("select reltuples from pg_class where relname = 't'"), "1000");
    until("the log to tell", || node.log().contains("automatic vacuum of table \"postgres.public.t\": index scans: "));
    assert!(node.log().contains("automatic analyze of table \"postgres.public.t\""));
    assert_eq!(node.sql("select autovacuum_count, n_dead_tup from pg_stat_user_tables where relname = 'kept'"), "0|1000");

    // One that rests after every page is in the way of a lock; it goes.
    node.sql("alter table t set (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)");
    node.sql("update t set v = 'z'");
    node.wait_for("select count(*) > 0 from pg_stat_progress_vacuum where relid = 't'::regclass", "t");
    assert_eq!(node.sql("select backend_type from pg_stat_activity where query like 'autovacuum: VACUUM%public.t'"), "autovacuum worker");
    block_on(async {
        let c = connect(&node).await;
        text(&c, "begin; lock table t in access exclusive mode; commit").await;
    });
    until("the worker to say so", || node.log().contains("canceling autovacuum task"));
    // A stop does not wait for one either.
    node.wait_for("select count(*) > 0 from pg_stat_progress_vacuum where relid = 't'::regclass", "t");
    node.stop("smart");
    node.start();
    assert_eq!(node.sql("select count(*) from t where v = 'z'"), "1000");
}

#[test]
fn statuses_of_old_transactions_are_forgotten_once_no_row_names_them() {
    let a = Node::init("trim");
    a.conf("autovacuum = off");
    a.start();
    a.sql("create table t (id int primary key, v text); insert into t select g, g from generate_series(1, 1000) g");
    a.sql("create unlogged table u (id int); insert into u select generate_series(1, 1000)");
    a.sql("update t set v = 'x' where id <= 10; delete from t where id > 990");
    a.sql("begin; update t set v = 'undone' where id > 500; delete from t where id < 100; rollback");
    a.stop("fast");
    // As if a million transactions had been.
    let reset = a.tool("resetwal").args(["-x", "1000000", "-D"]).arg(a.data()).output().expect("resetwal");
    assert!(reset.status.success(), "{}", String::from_utf8_lossy(&reset.stderr));
    a.start();
    let b = a.standby("b");
    a.sql("update t set v = 'y' where id = 1");
    let sum = "select count(*), sum(id), md5(string_agg(v, ',' order by id)) from t";
    let expected = a.sql(sum);
    let first = |node: &Node| node.data().join("pg_xact/0000");
    let frozen = "select datfrozenxid::text::bigint >= 1000000 from pg_database where datname = 'postgres'";

    // One database is not all of them.
    assert_eq!(a.sql(frozen), "f");
    a.sql("vacuum (freeze)");
    assert_eq!(a.sql(frozen), "t");
    assert_eq!(
        a.sql("select bool_and(relfrozenxid::text::bigint >= 1000000) from pg_class where relkind in ('r', 't') and oid >= 16384"),
        "t"
    );
    assert!(first(&a).exists());
    assert_eq!(a.sql(sum), expected);

    // Autovacuum goes through all, template0 included.
    a.conf("autovacuum = on\nautovacuum_naptime = 1s\nautovacuum_freeze_max_age = 100000");
    a.restart();
    until("autovacuum to freeze every database", || !first(&a).exists());
    a.wait_for_catchup(&b);
    until("the standby to follow", || !first(&b).exists());
    let check = |node: &Node| {
        assert_eq!(node.sql(sum), expected);
        assert_eq!(node.sql("select pg_xact_status('100') is null, pg_xact_status('1000000')"), "t|committed");
        assert!(!first(node).exists());
    };
    check(&a);
    check(&b);
    a.kill();
    a.start();
    check(&a);
    b.kill();
    b.start();
    a.sql("create database other");
    a.sql("create table n (id int); insert into n values (1)");
    a.wait_for_catchup(&b);
    check(&b);

    // A snapshot of the standby that is older than what was frozen loses to it.
    b.conf("max_standby_streaming_delay = 0");
    b.reload();
    block_on(async {
        let old = connect(&b).await;
        text(&old, "begin isolation level repeatable read; select count(*) from n").await;
        let reading = tokio::spawn(async move { error(&old, "select count(*), pg_sleep(60) from n").await });
        b.wait_for(
            "select count(*) from pg_stat_activity where state = 'active' and query like '%pg_sleep(60)%' and pid <> pg_backend_pid()",
            "1",
        );
        a.sql("insert into n values (2)");
        a.sql("vacuum (freeze) n");
        assert!(reading.await.expect("joined").starts_with("40001"));
    });
    a.sql("update t set v = v");
    check(&a);
    a.wait_for_catchup(&b);
    a.stop("fast");
    b.promote();
    check(&b);
    b.sql("update t set v = v; delete from t where id > 980; insert into t select g, g from generate_series(981, 990) g");
    b.sql("vacuum t");
    b.stop("fast");
    let verified = b.tool("verify").args(["-q", "-D"]).arg(b.data()).output().expect("verify");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// What VACUUM (VERBOSE) says of a line that begins so.
fn said_of(node: &Node, vacuum: &str, line: &str) -> String {
    let output = node.psql(vacuum).output().expect("psql");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said.lines().find(|l| l.starts_with(line)).unwrap_or_else(|| panic!("no {line:?} in {said}")).to_owned()
}

#[test]
fn frozen_pages_are_left_alone_by_aggressive_vacuums_too() {
    let node = Node::start_new("frozen", "autovacuum = off");
    node.sql("create table t (id int primary key, v text) with (fillfactor = 100)");
    node.sql("insert into t select g, repeat('x', 200) from generate_series(1, 20000) g");
    let pages: u32 = node.sql("select pg_relation_size('t') / 8192").parse().expect("a number");
    let scanned = |node: &Node, options: &str| -> u32 {
        let line = said_of(node, &format!("vacuum (verbose, {options}) t"), "pages: ");
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|w| *w == "scanned").expect("a count");
        words[at - 1].parse().expect("a number")
    };
    let frozen = "select relfrozenxid::text::bigint from pg_class where relname = 't'";
    // All visible, not yet frozen: a plain vacuum passes over it, an aggressive one does not.
    assert_eq!(scanned(&node, "analyze off"), pages);
    assert_eq!(scanned(&node, "analyze off"), 0);
    assert_eq!(scanned(&node, "freeze"), pages);
    let before: u64 = node.sql(frozen).parse().expect("an xid");
    for _ in 0..5 {
        node.sql("select txid_current()");
    }
    assert_eq!(scanned(&node, "freeze"), 0);
    assert!(node.sql(frozen).parse::<u64>().expect("an xid") > before);
    assert_eq!(node.sql("select count(*) from verify_heapam('t', skip => 'all-frozen')"), "0");

    // What changes is looked at again: the page of the old version, and that of the new one.
    let standby = node.standby("frozen-standby");
    node.sql("update t set v = repeat('y', 1000) where id = 5000");
    assert_eq!(scanned(&node, "freeze, index_cleanup on"), 2);
    assert_eq!(scanned(&node, "disable_page_skipping"), node.sql("select pg_relation_size('t') / 8192").parse::<u32>().expect("a number"));
    node.sql("delete from t where id = 10000");
    node.wait_for_catchup(&standby);
    node.kill();
    standby.promote();
    node.start();
    // The map came through the crash, and came to the standby.
    for node in [&node, &standby] {
        assert_eq!(scanned(node, "freeze"), 1);
        assert_eq!(node.sql("set enable_seqscan = off; select count(*) from t where id > 0"), "19999");
        assert_eq!(node.sql("select count(*) from verify_heapam('t')"), "0");
    }
}

#[test]
fn indexes_are_left_alone_where_next_to_nothing_is_dead() {
    let node = Node::start_new("bypass", "autovacuum = off");
    node.sql("create table t (id int primary key, v text); insert into t select g, repeat('x', 200) from generate_series(1, 20000) g");
    node.sql("vacuum t");
    node.sql("delete from t where id in (1, 7000, 14000)");
    assert_eq!(
        said_of(&node, "vacuum (verbose) t", "index scan "),
        "index scan bypassed: 3 pages from table (0.49% of total) have 3 dead item identifiers"
    );
    assert_eq!(node.sql("select count(*) from t where id in (1, 2, 7000)"), "1");
    let line = said_of(&node, "vacuum (verbose, index_cleanup on) t", "index scan ");
    assert_eq!(line, "index scan needed: 3 pages from table (0.49% of total) had 3 dead item identifiers removed");
    node.sql("delete from t where id % 30 = 0");
    assert!(said_of(&node, "vacuum (verbose) t", "index scan ").starts_with("index scan needed: "));
    assert_eq!(node.sql("select bt_index_check('t_pkey', true); select count(*) from t where id > 0"), "\n19331");
}

/// Empties every page of `t`, and keeps them.
fn make_room(node: &Node) {
    node.sql("delete from t");
    node.sql("vacuum (truncate off) t");
}

/// Rows go into the room there is: the file does not grow.
fn fills_the_room(node: &Node, from: u32) {
    let size = || node.sql("select pg_relation_size('t')");
    let before = size();
    node.sql(&format!("insert into t select g, repeat('x', 200) from generate_series({from}, {}) g", from + 7_999));
    assert_eq!(size(), before);
}

#[test]
fn room_that_vacuum_made_is_found_after_crash_restart_and_promotion() {
    let a = Node::start_new("room", "autovacuum = off");
    a.sql("create table t (id int primary key, v text)");
    let b = a.standby("room-b");
    a.sql("insert into t select g, repeat('x', 200) from generate_series(1, 10000) g");
    make_room(&a);
    a.kill();
    a.start();
    fills_the_room(&a, 20_000);
    make_room(&a);
    a.restart();
    fills_the_room(&a, 40_000);
    // Its map is its own: what it knows it has from replay.
    make_room(&a);
    a.wait_for_catchup(&b);
    a.stop("fast");
    b.promote();
    fills_the_room(&b, 60_000);
    assert_eq!(b.sql("select count(*) from t"), "8000");
}

#[test]
fn empty_pages_at_the_end_are_given_back_here_and_on_the_standby() {
    let a = Node::start_new("tail", "autovacuum = off");
    a.sql("create table t (id int primary key, v text)");
    let b = a.standby("tail-b");
    let fill = "insert into t select g, repeat('x', 200) from generate_series(1, 10000) g on conflict do nothing";
    a.sql(fill);
    let whole = a.sql("select pg_relation_size('t')");
    // Not while somebody reads the table.
    block_on(async {
        let reader = connect(&a).await;
        text(&reader, "begin; select count(*) from t").await;
        a.sql("delete from t where id > 100");
        text(&reader, "commit; begin; lock table t in access share mode").await;
        a.sql("vacuum t");
        assert_eq!(a.sql("select pg_relation_size('t')"), whole);
        text(&reader, "commit").await;
    });
    a.sql("alter table t set (vacuum_truncate = off)");
    a.sql("vacuum t");
    assert_eq!(a.sql("select pg_relation_size('t')"), whole);
    a.sql("alter table t reset (vacuum_truncate)");
    a.sql("vacuum t");
    let cut = a.sql("select pg_relation_size('t')");
    assert!(cut.parse::<u32>().is_ok_and(|n| n <= 5 * 8192), "{cut}");
    a.wait_for_catchup(&b);
    assert_eq!(b.sql("select pg_relation_size('t'), count(*) from t"), format!("{cut}|100"));
    a.kill();
    a.start();
    assert_eq!(a.sql("select pg_relation_size('t'), count(*) from t"), format!("{cut}|100"));
    a.sql(fill);
    a.wait_for_catchup(&b);
    assert_eq!(a.table_hashes(), b.table_hashes());
    assert_eq!(b.sql("select count(*) from t"), "10000");
}

#[test]
fn rows_copied_as_frozen_need_no_vacuum() {
    let a = Node::start_new("frozen", "autovacuum = off");
    let b = a.standby("frozen-b");
    let file = a.home.path().join("rows");
    a.sql(&format!("copy (select g, 'row ' || g from generate_series(1, 20000) g) to '{}'", file.display()));
    a.sql(&format!("begin; create table t (id int, v text); copy t from '{}' with (freeze); commit", file.display()));
    let verbose = a.psql("vacuum (verbose) t").output().expect("psql");
    let said = String::from_utf8_lossy(&verbose.stderr).into_owned();
    assert!(said.contains("pages: 0 removed, ") && said.contains(" 0 scanned (0.00% of total)"), "{said}");
    // Of two who copy one fails, and leaves nothing.
    assert!(
        a.sql_error(&format!("begin; truncate t; copy t from '{}' with (freeze); select 1 / 0", file.display()))
            .contains("division by zero")
    );
    a.kill();
    a.start();
    let sums = "select count(*), sum(id), max(v) from t";
    assert_eq!(a.sql(sums), "20000|200010000|row 9999");
    a.sql("delete from t where id % 2 = 0; update t set v = 'new' where id = 1");
    a.wait_for_catchup(&b);
    assert_eq!(b.sql(sums), "10000|100000000|row 9999");
    assert_eq!(a.table_hashes(), b.table_hashes());
    a.sql("vacuum (freeze, disable_page_skipping) t");
    assert_eq!(a.sql("select count(*) from verify_heapam('t')"), "0");
}

/// What a snapshot from before sees of the table of the tests below, by a scan and by its indexes.
const SEEN: &str = "select count(*) || ' ' || sum(v) || ' ' || md5(string_agg(w, '' order by id)) from t; set enable_seqscan = off; \
                    select count(*) || ' ' || sum(v) from t where id > 0; select count(*) from t where v >= 0; select count(*) from t where v * 2 >= 0; \
                    select count(w) from t where id = 3; reset enable_seqscan";

/// Changes all kinds of rows: new versions on the page and elsewhere, deleted ones, new ones; with values out of line.
const CHANGES: [&str; 4] = [
    "update t set v = v + 1000 where id % 3 = 0",
    "update t set v = v + 1000, w = repeat('changed', 900) where id % 5 = 0",
    "delete from t where id % 7 = 0",
    "insert into t select m + g, 100000 + m + g, repeat('more', 1500) from generate_series(1, 100) g, (select max(id) m from t) m",
];

fn versioned(name: &str, conf: &str) -> Node {
    let node = Node::start_new(name, &format!("autovacuum = off\n{conf}"));
    node.sql("create table t (id int primary key, v int, w text); alter table t alter w set storage external");
    node.sql("create index t_v on t (v); create unique index t_twice on t ((v * 2 + id % 2)); create index t_part on t (id) where v > 500");
    node.sql("insert into t select g, g, case when g % 10 < 5 then repeat(g::text, 2000) else 'short' end from generate_series(1, 500) g");
    node
}

fn assert_sound(node: &Node) {
    let toast = node.sql("select reltoastrelid::regclass from pg_class where relname = 't'");
    assert_eq!(node.sql(&format!("select * from verify_heapam('t'); select * from verify_heapam('{toast}')")), "");
    node.sql("select bt_index_check(indexrelid, true) from pg_index where indrelid = 't'::regclass");
    node.sql(&format!("select bt_index_check('{toast}_index', true)"));
}

fn assert_same_pages(primary: &Node, standby: &Node) {
    let conninfo = |node: &Node| format!("{} dbname=postgres", node.conninfo("compare"));
    let mut tool = primary.tool("compare");
    let output = tool.arg("-q").arg("--primary").arg(conninfo(primary)).arg("--standby").arg(conninfo(standby)).output().expect("compare");
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

fn change(node: &Node, times: usize) {
    for _ in 0..times {
        CHANGES.iter().take(3).for_each(|sql| _ = node.sql(sql));
    }
    node.sql(CHANGES[3]);
}

/// What a transaction sees, which lets go of the table afterwards.
async fn seen(session: &Client) -> String {
    text(session, &format!("savepoint s; {SEEN}; rollback to s")).await
}

fn verbose(node: &Node, sql: &str) -> String {
    let output = node.psql(sql).output().expect("psql");
    assert!(output.status.success(), "{sql}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn vacuum_full_keeps_versions_through_crash_replay_and_promotion() {
    let node = versioned("anew", "");
    let standby = node.standby("anew_standby");
    node.wait_for_catchup(&standby);
    let before = node.sql(SEEN);
    block_on(async {
        let (old, there) = (connect(&node).await, connect(&standby).await);
        for session in [&old, &there] {
            text(session, "begin isolation level repeatable read; select 1").await;
        }
        change(&node, 3);
        let now = node.sql(SEEN);
        let said = verbose(&node, "vacuum (full, verbose) t");
        // Thrice a third is replaced, a fifth replaced, a seventh deleted, which leaves less to replace.
        let dead: usize = (0..3)
            .map(|round| {
                (1..=500).filter(|id| round == 0 || id % 7 != 0).map(|id| [3, 5, 7].iter().filter(|n| id % **n == 0).count()).sum::<usize>()
            })
            .sum();
        let kept = 529 + dead;
        assert!(said.contains(&format!("INFO:  \"public.t\": found 0 removable, {kept} nonremovable row versions in ")), "{said}");
        assert!(said.contains("INFO:  vacuuming \"public.t\"\n"), "{said}");
        assert!(said.contains(&format!("DETAIL:  {dead} dead row versions cannot be removed yet.\nCPU: user: ")), "{said}");
        assert_eq!(node.sql(SEEN), now);
        assert_eq!(seen(&old).await, before, "beside VACUUM FULL");
        let said = verbose(&node, "cluster verbose t using t_v");
        assert!(said.contains("INFO:  clustering \"public.t\" using index scan on \"t_v\"\n"), "{said}");
        assert!(said.contains(&format!("{dead} dead row versions cannot be removed yet.\n")), "{said}");
        assert_eq!(seen(&old).await, before, "beside CLUSTER");
        // What is kept names no xid whose status may be forgotten.
        let frozen = node.sql("select relfrozenxid from pg_class where relname = 't'");
        let oldest = text(&old, "savepoint s; select min(xmax::text::bigint) from t where xmax::text <> '0'; rollback to s").await;
        assert!(frozen.parse::<u64>().expect("an xid") <= oldest.parse().expect("an xid"), "{frozen} {oldest}");
        node.wait_for_catchup(&standby);
        assert_eq!(seen(&there).await, before, "on the standby");
        assert_eq!(standby.sql(SEEN), now);
        assert_sound(&node);
        assert_same_pages(&node, &standby);
        assert!(error(&old, "update t set v = 0 where id = 3").await.contains("40001 could not serialize access due to concurrent update"));
        // Who made and who ended the versions, only the WAL and pg_xact know now.
        node.kill();
        node.start();
        assert_eq!(node.sql(SEEN), now);
        assert_sound(&node);
        node.wait_for_catchup(&standby);
        assert_eq!(seen(&there).await, before, "on the standby, after the crash");
        node.stop("fast");
        let verified = node.tool("verify").arg("-D").arg(node.data()).output().expect("afterimage verify");
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        standby.promote();
        assert_eq!(seen(&there).await, before, "on what was the standby");
        let said = verbose(&standby, "vacuum (full, verbose) t");
        assert!(said.contains(&format!("{dead} dead row versions cannot be removed yet.\n")), "{said}");
        assert_eq!(seen(&there).await, before, "on what was the standby, written anew");
        text(&there, "commit").await;
        let said = verbose(&standby, "vacuum (verbose) t");
        assert!(said.contains(&format!("tuples: {dead} removed, 529 remain, 0 are dead but not yet removable")), "{said}");
        assert_eq!(standby.sql(SEEN), now);
        assert_sound(&standby);
        let said = verbose(&standby, "vacuum (full, verbose) t");
        assert!(said.contains("found 0 removable, 529 nonremovable row versions in "), "{said}");
        assert_eq!(standby.sql("select count(*) from t"), "529");
        // Nothing of the large values of versions that are gone is left.
        let toast = standby.sql("select reltoastrelid::regclass from pg_class where relname = 't'");
        let chunks = "select sum((octet_length(w) + 1983) / 1984) from t where pg_column_size(w) >= 2000";
        assert_eq!(standby.sql(&format!("select count(*) from {toast}")), standby.sql(chunks));
    });
}

#[test]
fn a_standby_is_cancelled_only_over_versions_that_vacuum_full_left_out() {
    let node = versioned("left_out", "");
    let standby = node.clone_to("left_out_standby");
    standby.conf("max_standby_streaming_delay = 100ms\nwal_receiver_status_interval = 1");
    standby.start();
    node.wait_for_catchup(&standby);
    let begin = "begin isolation level repeatable read; select 1";
    block_on(async {
        // Nobody on the primary needs them.
        let there = connect(&standby).await;
        text(&there, begin).await;
        change(&node, 1);
        let now = node.sql(SEEN);
        node.sql("vacuum full t");
        node.wait_for_catchup(&standby);
        let refused = there.simple_query("select count(*) from t").await.expect_err("what it saw is gone");
        assert!(there.is_closed() || describe(&refused).contains("40001"), "{}", describe(&refused));
        assert_eq!(standby.sql(SEEN), now);
        let there = connect(&standby).await;
        // The primary is told what is needed here.
        standby.conf("hot_standby_feedback = on");
        standby.reload();
        node.wait_for("select backend_xmin is not null from pg_stat_replication", "t");
        text(&there, begin).await;
        change(&node, 1);
        node.sql("vacuum full t");
        node.wait_for_catchup(&standby);
        assert_eq!(seen(&there).await, now);
        text(&there, "commit").await;
    });
    assert_eq!(standby.sql(SEEN), node.sql(SEEN));
    assert_sound(&node);
    assert_same_pages(&node, &standby);
}
