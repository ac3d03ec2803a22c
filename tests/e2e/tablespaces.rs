//! Tablespaces: made, used, replicated, backed up, rewound, dropped.

use std::fs;
use std::process::Command;

use crate::support::node::{Node, PG_BIN};

#[test]
fn relations_lie_where_they_are_told_and_survive_a_crash() {
    let a = Node::init("a");
    a.start();
    let place = a.home.path().join("elsewhere");
    let create = format!("create tablespace fast location '{}'", place.display());
    assert!(a.sql_error(&create).contains("58P01"), "the directory must be there");
    fs::create_dir(&place).expect("a directory");
    assert!(a.sql_error(&format!("begin; {create}")).contains("25001"));
    assert!(a.sql_error("create tablespace bad location 'relative'").contains("42P17"));
    assert!(a.sql_error(&create.replace("fast", "pg_fast")).contains("42939"));
    a.sql(&create);
    assert!(a.sql_error(&create.replace("fast", "slow")).contains("55006"), "two tablespaces in one directory");
    assert_eq!(a.sql("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'fast'"), place.display().to_string());

    a.sql("create table t (id int primary key, v text) tablespace fast; create index i on t (v) tablespace fast");
    a.sql("insert into t select g, repeat('v', g % 200) from generate_series(1, 3000) g");
    for relation in ["t", "i"] {
        let path = a.sql(&format!("select pg_relation_filepath('{relation}')"));
        assert!(path.starts_with("pg_tblspc/") && a.data().join(&path).is_file(), "{relation}: {path}");
    }
    a.kill();
    a.start();
    assert_eq!(a.sql("select count(*), sum(length(v)) from t"), "3000|298500");
    a.sql("truncate t; insert into t values (1, 'again'); reindex table t");
    assert!(a.sql("select pg_relation_filepath('t')").starts_with("pg_tblspc/"));
    a.sql("set default_tablespace = fast; create table u as select 1 as x; set default_tablespace = nowhere; create table w (x int)");
    assert!(a.sql("select pg_relation_filepath('u')").starts_with("pg_tblspc/"));
    assert!(a.sql("select pg_relation_filepath('w')").starts_with("base/"));
    assert!(a.sql_error("create table x (i int) tablespace nowhere").contains("42704"));

    let refused = a.sql_error("drop tablespace fast");
    assert!(refused.contains("55000") && refused.contains("tablespace \"fast\" is not empty"), "{refused}");
    a.sql("drop table t, u");
    a.sql("drop tablespace fast");
    assert!(fs::read_dir(&place).expect("the directory stays").next().is_none());
    a.sql("drop tablespace if exists fast");
    assert!(a.sql_error("drop tablespace fast").contains("42704"));
}

#[test]
fn a_standby_and_a_backup_hold_what_lies_in_tablespaces() {
    let a = Node::start_new("a", "allow_in_place_tablespaces = on");
    let b = a.standby("b");
    a.sql("create tablespace here location ''");
    a.sql("create table t (id int primary key) tablespace here; insert into t select generate_series(1, 500)");
    a.wait_for_catchup(&b);
    assert_eq!(b.sql("select count(*) from t"), "500");
    b.kill();
    b.start();
    // A killed standby answers as soon as its pages are consistent, which may be before it has replayed all it had.
    a.wait_for_catchup(&b);
    assert_eq!(b.sql("select count(*) from t"), "500");

    // One that lies elsewhere: the stock client maps it, ours too.
    let place = a.home.path().join("elsewhere");
    fs::create_dir(&place).expect("a directory");
    b.stop("fast");
    a.sql(&format!("create tablespace far location '{}'", place.display()));
    a.sql("create table far_t tablespace far as select g from generate_series(1, 1000) g");
    for (program, name) in [(format!("{PG_BIN}/pg_basebackup"), "stock"), (env!("CARGO_BIN_EXE_afterimage").to_owned(), "ours")] {
        let copy = Node::init(name);
        fs::remove_dir_all(copy.data()).expect("an empty place");
        let mapping = format!("-T{}={}", place.display(), copy.home.path().join("far").display());
        let mut command = Command::new(&program);
        if name == "ours" {
            command.arg("basebackup");
        }
        command.args(["-N", "-c", "fast", "-d", &a.conninfo(name), "-D"]).arg(copy.data()).arg(&mapping);
        crate::support::node::run(&mut command);
        crate::support::node::run(Command::new(format!("{PG_BIN}/pg_verifybackup")).args(["-n", "-q"]).arg(copy.data()));
        copy.conf(&format!("port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''", copy.port));
        copy.start();
        assert_eq!(copy.sql("select (select count(*) from t), (select count(*) from far_t)"), "500|1000", "{name}");
        let link =
            fs::read_dir(copy.data().join("pg_tblspc")).expect("pg_tblspc").filter_map(|e| fs::read_link(e.ok()?.path()).ok()).next();
        assert_eq!(link, Some(copy.home.path().join("far")), "{name}");
    }
}

#[test]
fn relations_move_between_tablespaces_with_their_pages_and_their_large_values() {
    let a = Node::start_new("a", "allow_in_place_tablespaces = on");
    let b = a.standby("b");
    a.sql("create tablespace here location ''");
    a.sql("create table t (id int primary key, v text); create index i on t (substr(v, 1, 20))");
    // Some values are stored elsewhere; some rows are dead, some moved within their page.
    a.sql("alter table t alter v set storage external; insert into t select g, repeat('v', case when g = 7 then 100000 else g % 50 end) from generate_series(1, 2000) g where g % 50 > 0");
    a.sql("update t set v = v || 'w' where id % 5 = 0 and id <> 7; delete from t where id % 11 = 0");
    a.sql("create unlogged table l as select g from generate_series(1, 100) g; create materialized view m as select count(*) from t");
    let content = "select count(*), sum(length(v)), max(id) from t";
    let before = a.sql(content);
    let large = "select pg_relation_filepath(reltoastrelid) from pg_class where oid = 't'::regclass";
    for (place, prefix) in [("here", "pg_tblspc/"), ("pg_default", "base/")] {
        a.sql(&format!("begin; alter table t set tablespace {place}; insert into t values (-1, 'gone'); rollback"));
        assert!(!a.sql("select pg_relation_filepath('t')").starts_with(prefix));
        assert_eq!(a.sql(content), before);
        a.sql(&format!("alter table t set tablespace {place}; alter table t set tablespace {place}; alter index i set tablespace {place}"));
        a.sql(&format!("alter table l set tablespace {place}; alter materialized view m set tablespace {place}"));
        a.sql("insert into t values (3000, 'new'); update t set v = 'changed' where id = 3000; delete from t where id = 3000; reindex index t_pkey");
        a.wait_for_catchup(&b);
        for node in [&a, &b] {
            for relation in ["t", "i", "l", "m"] {
                let path = node.sql(&format!("select pg_relation_filepath('{relation}')"));
                assert!(path.starts_with(prefix), "{relation}: {path}");
            }
            assert!(node.sql(large).starts_with(prefix));
            assert_eq!(node.sql(content), before);
            let by = |off: &str| node.sql(&format!("set enable_{off} = off; select count(*) from t where substr(v, 1, 20) = 'vvvvvw'"));
            assert_eq!((by("seqscan"), by("indexscan")), ("36".to_owned(), "36".to_owned()));
        }
        assert_eq!(a.sql("select count(*) from l"), "100");
        for node in [&a, &b] {
            node.kill();
            node.start();
            assert_eq!(node.sql(content), before);
        }
        assert_eq!(a.sql("select count(*) from l"), "0", "emptied by the crash");
        a.sql("insert into l select generate_series(1, 100)");
    }
    assert!(a.sql_error("alter view pg_tables set tablespace here").contains("42"));
    assert!(a.sql_error("alter table t set tablespace nowhere").contains("42704"));
    a.sql("drop tablespace here");
    assert!(a.sql_error("alter database template1 set tablespace pg_default").contains("0A000"));
}
