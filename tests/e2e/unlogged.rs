//! Unlogged tables, indexes and sequences: kept by a clean stop, emptied by a crash, empty on a standby that takes over. Temporary ones:
//! not logged either, seen by their session alone, gone with it or with a crash.

use std::fs;

use crate::client::{block_on, connect, error, text};
use crate::support::node::{Node, until};

const SCHEMA: &str = "create unlogged table u (id serial primary key, k int default 1, v text); create index u_k on u (k); create unlogged sequence s start 5 increment 2; \
                      create table l (id int primary key, v text)";
const FILL: &str = "insert into u (v) select repeat('x', 3000) || g from generate_series(1, 500) g; \
                    insert into u (v) select string_agg(md5((g * i)::text), '') from generate_series(1, 300) g, generate_series(1, 3) i group by i; \
                    insert into l select g, g from generate_series(1, 100) g on conflict do nothing; select nextval('s'), nextval('s')";

fn filled(name: &str) -> Node {
    let node = Node::start_new(name, "autovacuum = off");
    node.sql(SCHEMA);
    node.sql(FILL);
    node
}

/// Rows by the table and by its index.
fn count(node: &Node) -> String {
    node.sql("select bt_index_check(indexrelid, true) from pg_index where indrelid = 'u'::regclass");
    let heap = node.sql("set enable_indexscan = off; set enable_bitmapscan = off; set enable_indexonlyscan = off; select count(*) from u");
    let index = node.sql("set enable_seqscan = off; set enable_bitmapscan = off; select count(*) from u where k > 0");
    assert_eq!(heap, index);
    heap
}

/// Which forks of a relation there are.
fn forks(node: &Node, name: &str) -> (bool, bool) {
    let path = node.data().join(node.sql(&format!("select pg_relation_filepath('{name}')")));
    (path.exists(), path.with_file_name(format!("{}_init", path.file_name().unwrap_or_default().to_string_lossy())).exists())
}

#[test]
fn unlogged_relations_are_not_logged_kept_by_a_clean_stop_and_emptied_by_a_crash() {
    let node = Node::start_new("unlogged", "autovacuum = off");
    node.sql(SCHEMA);
    for relation in ["u", "u_k", "u_pkey", "s", "u_id_seq", "(select reltoastrelid::regclass from pg_class where oid = 'u'::regclass)"] {
        let name = if relation.starts_with('(') { node.sql(&format!("select {relation}")) } else { relation.to_owned() };
        assert_eq!(forks(&node, &name), (true, true), "{name}");
        assert_eq!(node.sql(&format!("select relpersistence from pg_class where oid = '{name}'::regclass")), "u", "{name}");
    }
    let before = node.sql("select pg_current_wal_insert_lsn()");
    node.sql("insert into u (v) select repeat('x', 3000) || g from generate_series(1, 500) g; update u set v = v || 'y'; delete from u where id > 400");
    node.sql("vacuum u");
    let logged = node.sql(&format!("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '{before}') < 60000"));
    assert_eq!(logged, "t", "{}", node.sql(&format!("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '{before}')")));
    node.sql(FILL);
    assert_eq!(count(&node), "903");
    node.sql("checkpoint");
    node.restart();
    assert_eq!(count(&node), "903");
    assert_eq!(node.sql("select last_value from s; select nextval('s')"), "7\n9");

    // A crash: gone, and what is rolled back or made in the meantime too. What is logged stays.
    node.sql("begin; create unlogged table r (id int primary key); insert into r values (1); rollback");
    node.sql("create unlogged table late (id int); insert into late values (1)");
    node.kill();
    node.start();
    assert_eq!(count(&node), "0");
    assert_eq!(node.sql("select count(*) from late; select count(*) from l; select to_regclass('r') is null"), "0\n100\nt");
    assert_eq!(node.sql("select nextval('s'), nextval('u_id_seq')"), "5|1");
    node.sql(FILL);
    assert_eq!(count(&node), "503");

    // TRUNCATE, VACUUM FULL and REINDEX keep it so; a crash again, twice.
    node.sql("truncate u; insert into u (v) values ('a'), ('b')");
    node.sql("vacuum full u");
    node.sql("reindex table u; create index u_late on u (id, k)");
    assert_eq!(count(&node), "2");
    for _ in 0..2 {
        node.kill();
        node.start();
    }
    assert_eq!(count(&node), "0");
    node.sql(FILL);
    assert_eq!(count(&node), "503");
    node.stop("fast");
    let verified = node.tool("verify").args(["-q", "-D"]).arg(node.data()).output().expect("verify");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[test]
fn set_logged_and_set_unlogged_move_the_rows() {
    let node = filled("set-logged");
    node.sql("alter table u set logged; alter table l set unlogged");
    node.sql("create database other template postgres");
    assert_eq!(
        node.sql(
            "select string_agg(relpersistence, '' order by relname) from pg_class where relname in ('u', 'u_k', 'u_pkey', 'u_id_seq')"
        ),
        "pppp"
    );
    assert_eq!(node.sql("select string_agg(relpersistence, '' order by relname) from pg_class where relname in ('l', 'l_pkey')"), "uu");
    assert_eq!(forks(&node, "u"), (true, false));
    let moved = node.sql("alter table u set unlogged; alter table u set logged; select count(*) from u");
    assert_eq!(moved, "503");
    node.kill();
    node.start();
    assert_eq!(count(&node), "503");
    assert_eq!(node.sql("select count(*) from l"), "0");
    assert_eq!(node.sql("select nextval('u_id_seq') >= 504"), "t");
    let there = node
        .psql("select count(*) from u; select count(*) from l; select nextval('s')")
        .args(["-d", &format!("{} dbname=other", node.conninfo("test"))])
        .output()
        .expect("psql");
    assert!(there.status.success(), "{}", String::from_utf8_lossy(&there.stderr));
    assert_eq!(String::from_utf8_lossy(&there.stdout).trim(), "503\n0\n5");

    node.sql(
        "create table f (id int references u); create unlogged table g (id int primary key); create unlogged table h (id int references g)",
    );
    for (sql, expected) in [
        ("alter table u set unlogged", "could not change table \"u\" to unlogged because it references logged table \"f\""),
        ("alter table h set logged", "could not change table \"h\" to logged because it references unlogged table \"g\""),
        ("create temp table t (id int); alter table t set logged", "cannot change logged status of table \"t\" because it is temporary"),
    ] {
        let error = node.sql_error(sql);
        assert!(error.contains("42P16") && error.contains(expected), "{error}");
    }
    let error = node.sql_error("create unlogged materialized view m as select 1");
    assert!(error.contains("0A000") && error.contains("materialized views cannot be unlogged"), "{error}");
}

#[test]
fn a_standby_has_no_content_of_unlogged_relations_and_begins_empty_when_promoted() {
    let a = filled("a");
    let b = a.standby("b");
    a.sql("create unlogged table later (id int primary key); insert into later select generate_series(1, 1000)");
    a.sql("vacuum later");
    a.sql("insert into u (v) values ('more'); delete from u where id < 100");
    a.sql("vacuum u");
    a.wait_for_catchup(&b);
    for relation in ["u", "later"] {
        assert_eq!(forks(&b, relation), (false, true));
        let error = b.sql_error(&format!("select * from {relation}"));
        assert!(error.contains("0A000") && error.contains("cannot access temporary or unlogged relations during recovery"), "{error}");
    }
    assert_eq!(b.sql("select count(*) from l; select pg_sequence_last_value('s') is null"), "100\nt");
    b.kill();
    b.start();
    a.sql("alter table later set logged; alter table l set unlogged");
    a.wait_for_catchup(&b);
    assert_eq!(b.sql("select count(*) from later"), "1000");
    a.stop("fast");
    b.promote();
    assert_eq!(b.sql("select count(*) from l; select count(*) from later; select nextval('s')"), "0\n1000\n5");
    assert_eq!(count(&b), "0");
    b.sql(FILL);
    assert_eq!(count(&b), "503");
    b.restart();
    assert_eq!(count(&b), "503");
    // The old primary comes back as a standby: what its files held is not seen again.
    a.conf("");
    fs::write(a.data().join("standby.signal"), "").expect("standby.signal");
    a.follow(&b);
    a.start();
    b.wait_for_catchup(&a);
    assert!(a.sql_error("select * from u").contains("0A000"));
    b.stop("fast");
    a.promote();
    assert_eq!(count(&a), "0");
}

/// Files of temporary relations in a node's databases.
fn temporary_files(node: &Node) -> Vec<String> {
    let mut found = Vec::new();
    for database in fs::read_dir(node.data().join("base")).expect("base").flatten() {
        for file in fs::read_dir(database.path()).expect("a database").flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if name.starts_with('t') && name[1..].starts_with(|c: char| c.is_ascii_digit()) {
                found.push(name);
            }
        }
    }
    found
}

#[test]
fn temporary_relations_are_not_logged_and_are_gone_with_their_session_or_a_crash() {
    let node = Node::start_new("temp", "autovacuum = off");
    let standby = node.standby("temp-standby");
    block_on(async {
        let c = connect(&node).await;
        text(&c, "create temp table t (id serial primary key, k int default 1, v text); create index t_k on t (k)").await;
        let path = text(&c, "select pg_relation_filepath('t')").await;
        assert!(path.rsplit('/').next().is_some_and(|name| name.starts_with('t') && name.contains('_')), "{path}");
        assert!(node.data().join(&path).exists());
        let before = text(&c, "select pg_current_wal_insert_lsn()").await;
        text(&c, "insert into t (v) select repeat('x', 100) || g from generate_series(1, 20000) g").await;
        text(&c, "insert into t (v) select string_agg(md5((g * i)::text), '') from generate_series(1, 300) g, generate_series(1, 3) i group by i").await;
        text(&c, "update t set v = v || 'y' where id % 2 = 0; delete from t where id > 10000 and id <= 20000").await;
        text(&c, "vacuum t").await;
        text(&c, "reindex table t; truncate t; insert into t (v) select g from generate_series(1, 500) g; analyze t").await;
        text(&c, "create temp table copy as select * from t; alter table copy add column w int default 7, alter column id type bigint")
            .await;
        let logged = text(&c, &format!("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '{before}')")).await;
        assert!(logged.parse::<i64>().is_ok_and(|bytes| bytes < 120_000), "{logged}");
        assert_eq!(text(&c, "select count(*), sum(k) from t where k = 1; select sum(w), max(id) from copy").await, "500|500\n3500|20503");

        // Rolled back: what came is gone, what was truncated is back.
        text(&c, "begin; truncate t; insert into t (v) values ('new'); create temp table r as select 1; savepoint s; create temp table q (i int)").await;
        text(&c, "rollback to s; rollback").await;
        assert_eq!(text(&c, "select count(*) from t; select to_regclass('r') is null").await, "500\nt");
        text(&c, "create temp table emptied (i int primary key) on commit delete rows").await;
        text(&c, "insert into emptied select generate_series(1, 100)").await;
        assert_eq!(text(&c, "select count(*) from emptied").await, "0");

        // Others: neither another session nor a standby nor a backup has its rows.
        let schema = text(&c, "select nspname from pg_namespace where oid = pg_my_temp_schema()").await;
        for sql in
            [format!("select * from {schema}.t"), format!("insert into {schema}.t default values"), format!("delete from {schema}.t")]
        {
            let other = node.sql_error(&sql);
            assert!(other.contains("0A000") && other.contains("cannot access temporary tables of other sessions"), "{sql}: {other}");
        }
        node.sql("vacuum");
        node.sql("analyze; checkpoint");
        node.wait_for_catchup(&standby);
        assert!(temporary_files(&standby).is_empty());
        let other = standby.sql_error(&format!("select * from {schema}.t"));
        assert!(other.contains("0A000") && other.contains("cannot access temporary or unlogged relations during recovery"), "{other}");
        let refused = standby.sql_error("create temp table t (i int)");
        assert!(refused.contains("25006"), "{refused}");
        let clone = node.clone_to("temp-clone");
        assert!(temporary_files(&clone).is_empty());
        assert_eq!(error(&c, "select 1 / (select count(*) - 500 from t)").await, "22012 division by zero");

        // A session that ends takes its files along, once no snapshot is older.
        let short = connect(&node).await;
        text(&short, "create temp table s as select generate_series(1, 1000) as i").await;
        let file = node.data().join(text(&short, "select pg_relation_filepath('s')").await);
        drop(short);
        node.wait_for("select count(*) from pg_class where relname = 's'", "0");
        node.sql("checkpoint");
        until("its file to be gone", || !file.exists());

        assert!(!temporary_files(&node).is_empty());
        node.kill();
        node.start();
        assert!(temporary_files(&node).is_empty());
        node.wait_for("select count(*) from pg_class where relpersistence = 't'", "0");
        node.wait_for_catchup(&standby);
        assert_eq!(standby.sql("select count(*) from pg_class where relpersistence = 't'"), "0");
    });
    // Killed right after a checkpoint wrote their pages, then promoted: no trace.
    block_on(async {
        let c = connect(&node).await;
        text(
            &c,
            "create temp table t (id int primary key, v text); insert into t select g, repeat('x', 500) from generate_series(1, 5000) g",
        )
        .await;
        text(&c, "checkpoint; update t set v = 'short'").await;
        node.wait_for_catchup(&standby);
        node.kill();
    });
    let verified = node.tool("verify").args(["-q", "-D"]).arg(node.data()).output().expect("verify");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    standby.promote();
    standby.wait_for("select count(*) from pg_class where relpersistence = 't'", "0");
    node.start();
    assert!(temporary_files(&node).is_empty());
    node.wait_for("select count(*) from pg_class where relpersistence = 't'", "0");
}
