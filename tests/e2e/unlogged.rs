//! Unlogged tables, indexes and sequences: kept by a clean stop, emptied by a crash, empty on a standby that takes over.

use crate::support::node::Node;

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
    std::fs::write(a.data().join("standby.signal"), "").expect("standby.signal");
    a.follow(&b);
    a.start();
    b.wait_for_catchup(&a);
    assert!(a.sql_error("select * from u").contains("0A000"));
    b.stop("fast");
    a.promote();
    assert_eq!(count(&a), "0");
}
