//! Damage in data files: queries that touch it fail and say where, nobody else is harmed, `afterimage verify` and the SQL functions find it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::time::SystemTime;

use crate::client::{block_on, connect, text};
use crate::support::node::{Node, PATIENCE, file, holds_within};

/// Changes bytes of a file in place.
pub(crate) fn change(path: &Path, at: u64, change: impl FnOnce(&mut [u8]), len: usize) {
    let f = fs::OpenOptions::new().read(true).write(true).open(path).expect("the file is there");
    let mut bytes = vec![0; len];
    f.read_exact_at(&mut bytes, at).expect("the file is long enough");
    change(&mut bytes);
    f.write_all_at(&bytes, at).expect("the file is writable");
}

/// The main file of a relation.
pub(crate) fn relation_file(node: &Node, relation: &str) -> PathBuf {
    file(node, &node.sql(&format!("select pg_relation_filepath('{relation}')")))
}

fn verify(node: &Node) -> Output {
    node.tool("verify").arg("-D").arg(node.data()).output().expect("afterimage verify")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn loaded(name: &str) -> Node {
    let node = Node::start_new(name, "autovacuum = off");
    node.sql("create table t (id int primary key, v text, n int); create index t_n on t (n) where n > 5; create index t_expr on t (lower(v), id desc)");
    node.sql("insert into t select g, 'Value ' || g || repeat('x', 60), g % 100 from generate_series(1, 5000) g");
    node.sql("update t set v = 'Changed ' || id where id % 3 = 0; delete from t where id % 7 = 0; create table other as select 1 a");
    node
}

#[test]
fn sound_directory_verifies_running_stopped_killed_and_as_a_standby() {
    let node = loaded("sound");
    node.sql("create index t_carries on t (n) include (v, id)");
    assert_eq!(node.sql("select count(*) from verify_heapam('t')"), "0");
    for index in ["t_pkey", "t_n", "t_expr", "t_carries", "pg_class_oid_index"] {
        node.sql(&format!("select bt_index_check('{index}'), bt_index_check('{index}', true), bt_index_parent_check('{index}', true)"));
    }
    assert!(node.sql_error("select bt_index_check('t')").contains("\"t\" is not an index"));
    assert!(node.sql_error("select * from verify_heapam('t_n')").contains("cannot check relation \"t_n\""));
    assert!(node.sql_error("select * from verify_heapam('t', skip => 'some')").contains("invalid skip option"));
    let running = verify(&node);
    assert_eq!(running.status.code(), Some(1), "{}", said(&running));
    assert!(said(&running).contains("a server is running"));

    let standby = node.standby("sound_standby");
    node.sql("insert into t select g, 'more', 50 from generate_series(5001, 6000) g; update t set v = repeat(v, 20) where id % 5 = 0");
    node.sql("vacuum t");
    node.sql("create unlogged table u as select id from t; create index u_id on u (id)");
    node.wait_for_catchup(&standby);
    assert_eq!(standby.sql("select count(*) from verify_heapam('t')"), "0");
    // Which has no content here.
    assert_eq!(standby.sql("select count(*) from verify_heapam('u')"), "0");
    standby.sql("select bt_index_check('u_id', true)");
    standby.sql("select bt_index_check('t_n', true), bt_index_check('t_expr', true), bt_index_check('t_carries', true)");
    assert!(standby.sql_error("select bt_index_parent_check('t_n')").contains("recovery is in progress"));
    standby.stop("fast");
    // An index that was not finished lacks rows: no damage.
    assert!(node.sql_error("create unique index concurrently t_half on t (n)").contains("23505"));
    assert_eq!(node.sql("select indisvalid from pg_index where indexrelid = 't_half'::regclass"), "f");
    // A database that is gone, whose files recovery removes while they are looked at.
    node.sql("create database dropped");
    node.sql("drop database dropped");
    node.sql("insert into t select g, 'unsaved', g from generate_series(6001, 6500) g");
    node.kill();
    let before = fs::read(file(&node, "global/pg_control")).expect("pg_control");
    for stopped in [&node, &standby] {
        let output = verify(stopped);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(said(&output).contains("no damage found"), "{}", said(&output));
    }
    assert_eq!(fs::read(file(&node, "global/pg_control")).expect("pg_control"), before, "verify changed the directory");
    node.start();
    assert_eq!(node.sql("select count(*) from t where v = 'unsaved'"), "500");
    node.sql("vacuum t");
    node.sql("select bt_index_parent_check('t_carries', true)");
    // What the index carries is what the table has, values too long for it as they are among them.
    let sum = |off: &str, scan: &str| {
        let set = format!("set enable_bitmapscan = off; set enable_{off} = off");
        let shown = node.sql(&format!("{set}; explain (costs off) select v, id from t where n >= 0"));
        assert!(shown.contains(scan), "{shown}");
        node.sql(&format!("{set}; select count(*), md5(string_agg(v || id, ',' order by id)) from t where n >= 0"))
    };
    assert_eq!(sum("indexscan", "Seq Scan"), sum("seqscan", "Index Only Scan using t_carries"));
}

/// Everything below a directory: when it was changed, and its bytes, or where it leads.
fn tree(dir: &Path, found: &mut BTreeMap<PathBuf, (SystemTime, Vec<u8>)>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let meta = fs::symlink_metadata(&path).expect("its kind");
        let content = if meta.is_symlink() {
            fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
        } else if meta.is_dir() {
            tree(&path, found);
            Vec::new()
        } else {
            fs::read(&path).expect("a file")
        };
        found.insert(path, (meta.modified().expect("a time"), content));
    }
}

#[test]
fn verify_leaves_everything_as_it_is_whatever_the_wal_made_and_removed() {
    let node = Node::start_new("untouched", "autovacuum = off\nallow_in_place_tablespaces = on\nmax_prepared_transactions = 5");
    let places = tempfile::tempdir().expect("a directory");
    let place = |name: &str| {
        let path = places.path().join(name);
        fs::create_dir_all(&path).expect("a directory");
        path.display().to_string()
    };
    node.sql(&format!("create tablespace old location '{}'", place("old")));
    node.sql(&format!("create tablespace goes location '{}'", place("goes")));
    node.sql("create table t tablespace old as select g id, repeat('v', 100) v from generate_series(1, 2000) g");
    node.sql("create database dropped");
    node.sql("create table moved tablespace goes as select 1 id");
    node.sql("checkpoint");
    // All of it is in the WAL only.
    node.sql("alter table moved set tablespace pg_default");
    node.sql("drop tablespace goes");
    node.sql(&format!("create tablespace again location '{}'", place("goes")));
    node.sql(&format!("create tablespace short location '{}'", place("short")));
    node.sql("drop tablespace short");
    node.sql("create tablespace inside location ''");
    node.sql("create tablespace inside_short location ''");
    node.sql("drop tablespace inside_short");
    node.sql("create table made tablespace again as select * from t; create index on made (id) tablespace inside; alter table t set tablespace again");
    node.sql("create database made");
    node.sql("drop database dropped");
    node.sql("truncate moved");
    node.sql("begin; insert into made values (0, 'prepared'); create table p (); prepare transaction 'one'");
    node.sql("begin; create table q (); prepare transaction 'two'");
    node.sql("commit prepared 'two'");
    node.sql("select pg_create_physical_replication_slot('slot', true)");
    assert!(end_of(&node, "vacuum full pg_class").success());
    node.sql("create table large as select repeat(md5(g::text), 60) v from generate_series(1, 1500) g; drop table large; create unlogged table u as select 1 id");
    node.kill();

    let everything = || {
        let mut found = BTreeMap::new();
        tree(&node.data(), &mut found);
        tree(places.path(), &mut found);
        found
    };
    let before = everything();
    let output = verify(&node);
    let after = everything();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let changed = |path: &PathBuf| before.get(path) != after.get(path);
    let names: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).filter(|path| changed(path)).collect();
    assert!(names.is_empty(), "verify changed {names:?}");
    node.start();
    assert_eq!(node.sql("select count(*) from made"), "2000");
    node.sql("commit prepared 'one'");
    assert_eq!(node.sql("select count(*) from made"), "2001");
}

fn end_of(node: &Node, sql: &str) -> ExitStatus {
    node.psql(sql).status().expect("psql")
}

#[test]
fn damaged_pages_are_named_and_harm_nobody_else() {
    let node = loaded("damaged");
    let (table, index) = (relation_file(&node, "t"), relation_file(&node, "t_n"));
    let shown = node.sql("select pg_relation_filepath('t')");
    let first = node.sql("select min(id) from t where ctid >= '(3,0)' and ctid < '(4,0)'");
    node.stop("fast");
    // A flipped bit, a zeroed page, and one that was written to another's place: right in itself, wrong here.
    change(&table, 3 * 8192 + 5000, |b| b[0] ^= 4, 1);
    change(&table, 5 * 8192, |b| b.fill(0), 8192);
    let stray = {
        let mut page = vec![0; 8192];
        fs::File::open(&table).and_then(|f| f.read_exact_at(&mut page, 8 * 8192)).expect("page 8");
        page
    };
    change(&table, 7 * 8192, |b| b.copy_from_slice(&stray), 8192);
    let output = verify(&node);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    for (block, more) in [(3, ""), (5, " (all zero)"), (7, "")] {
        let line = format!("invalid page in block {block} of relation {shown}{more}\n");
        assert!(said(&output).contains(&line), "{line}: {}", said(&output));
    }
    assert!(said(&output).contains("3 pieces of damage found"), "{}", said(&output));

    node.start();
    let error = node.sql_error("select count(*) from t");
    assert!(error.contains(&format!("XX001: invalid page in block 3 of relation {shown}")), "{error}");
    let error = node.sql_error(&format!("select v from t where id = {first}"));
    assert!(error.contains("XX001"), "{error}");
    assert_eq!(node.sql("select v from t where id = 2"), format!("Value 2{}", "x".repeat(60)));
    assert_eq!(node.sql("select a from other"), "1");
    assert!(node.sql_error("select count(*) from verify_heapam('t')").contains("XX001"));

    // An index page: found by its own check, and REINDEX mends it.
    node.sql("delete from t where false; create table copy as select * from other");
    node.stop("fast");
    change(&index, 8192 + 4000, |b| b[0] ^= 1, 1);
    node.start();
    let error = node.sql_error("set enable_seqscan = off; select bt_index_check('t_n')");
    assert!(
        error.contains(&format!("XX001: invalid page in block 1 of relation {}", node.sql("select pg_relation_filepath('t_n')"))),
        "{error}"
    );
}

#[test]
fn index_that_disagrees_with_its_table_is_found() {
    let node = loaded("disagree");
    // The index as it was before some rows came: right in every page, wrong as a whole.
    node.sql("checkpoint");
    let index = relation_file(&node, "t_n");
    node.stop("fast");
    let old = fs::read(&index).expect("the index");
    node.start();
    node.sql("insert into t select g, 'late', 7 from generate_series(10001, 10003) g");
    node.stop("fast");
    fs::write(&index, &old).expect("the index is writable");
    let output = verify(&node);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("lacks matching index tuple within index \"t_n\""), "{}", said(&output));
    node.start();
    node.sql("select bt_index_check('t_n')");
    let error = node.sql_error("select bt_index_check('t_n', true)");
    assert!(error.contains("XX002: heap tuple (") && error.contains("from table \"t\" lacks matching index tuple"), "{error}");
    node.sql("reindex index t_n");
    node.sql("select bt_index_parent_check('t_n', true)");
}

/// `afterimage compare`: exit code and what it said.
pub(crate) fn compare(primary: &Node, standby: &Node) -> (Option<i32>, String) {
    let conninfo = |node: &Node| format!("{} dbname=postgres", node.conninfo("compare"));
    let mut tool = primary.tool("compare");
    let output = tool.arg("--primary").arg(conninfo(primary)).arg("--standby").arg(conninfo(standby)).output().expect("afterimage compare");
    (output.status.code(), said(&output))
}

#[test]
fn damaged_page_of_a_standby_comes_again_from_its_primary() {
    let node = loaded("mended");
    let standby = node.standby("mended_standby");
    node.sql("update t set v = 'seen by both ' || id where id % 5 = 0");
    // A replica of a sequence has the values that are logged ahead.
    node.sql("create sequence s increment 3; select nextval('s'), nextval('s'); create table numbered (id serial, n int)");
    node.sql("insert into numbered (n) select generate_series(1, 50)");
    node.sql("vacuum t");
    node.wait_for_catchup(&standby);
    let (code, text) = compare(&node, &standby);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("the same on both"), "{text}");

    // A flipped bit, a zeroed page, a page of before, and a torn index page: each named by the comparison, each mended, at work.
    let path = |relation: &str| node.sql(&format!("select pg_relation_filepath('{relation}')"));
    let (table, index) = (path("t"), path("t_n"));
    let on_standby = |path: &str| file(&standby, path);
    // All that was replayed is on disk: the next start has nothing to redo.
    let settle = || {
        node.sql("checkpoint");
        node.wait_for_catchup(&standby);
        standby.sql("checkpoint");
        standby.stop("fast");
    };
    settle();
    let old = fs::read(on_standby(&table)).expect("the table");
    standby.start();
    node.sql("update t set n = n + 1 where id between 1 and 400");
    settle();
    change(&on_standby(&table), 9 * 8192 + 5000, |b| b[0] ^= 4, 1);
    change(&on_standby(&table), 11 * 8192, |b| b.fill(0), 8192);
    change(&on_standby(&table), 0, |b| b.copy_from_slice(&old[..8192]), 8192);
    change(&on_standby(&index), 2 * 8192 + 4096, |b| b.fill(7), 512);
    standby.start();
    let error = standby.sql_error("select count(*) from t where v like 'x%'");
    assert!(error.contains(&format!("XX001: invalid page in block 9 of relation {table}")), "{error}");
    let (code, text) = compare(&node, &standby);
    assert_eq!(code, Some(1), "{text}");
    for line in [
        format!("block 9 of relation {table} (\"t\"): damaged on the standby"),
        format!("block 11 of relation {table} (\"t\"): damaged on the standby"),
        format!("block 0 of relation {table} (\"t\"): LSN "),
        format!("block 2 of relation {index} (\"t_n\"): damaged on the standby"),
    ] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    assert!(text.contains("4 of them differ"), "{text}");
    for (path, block) in [(&table, 9), (&table, 11), (&table, 0), (&index, 2)] {
        // At work: the page on the primary is ahead of the standby now and then.
        node.sql("update t set n = n + 1 where id between 700 and 900");
        assert!(!standby.sql(&format!("select afterimage_repair_page('{path}', {block})")).is_empty());
    }
    node.wait_for_catchup(&standby);
    let (code, text) = compare(&node, &standby);
    assert_eq!(code, Some(0), "{text}");
    let sum = "select count(*), sum(n), sum(hashtext(v)::int8) from t";
    assert_eq!(standby.sql(sum), node.sql(sum));
    assert!(standby.log().contains(&format!("replaced block 9 of relation {table} by the upstream's copy")), "{}", standby.log());

    // Replay that needs a damaged page asks for it by itself, from its first record on.
    settle();
    change(&on_standby(&table), 5 * 8192 + 4000, |b| b[0] ^= 1, 1);
    change(&on_standby(&table), 6 * 8192, |b| b.fill(0), 8192);
    node.sql("update t set v = 'again ' || id");
    standby.start();
    node.wait_for_catchup(&standby);
    standby.wait_for(sum, &node.sql(sum));
    assert!(standby.log().contains("asking the upstream for a copy"), "{}", standby.log());
    node.wait_for_catchup(&standby);
    standby.wait_for(
        &format!("select afterimage_page_digests('{table}', 5, 1) = substr(afterimage_page_digests('{table}', 5, 1), 1, 17)"),
        "t",
    );
    let (code, text) = compare(&node, &standby);
    assert_eq!(code, Some(0), "{text}");

    // What is refused.
    let error = node.sql_error(&format!("select afterimage_repair_page('{table}', 0)"));
    assert!(error.contains("55000") && error.contains("recovery is not in progress"), "{error}");
    let error = standby.sql_error("select afterimage_repair_page('pg_wal/1', 0)");
    assert!(error.contains("22023"), "{error}");
    let error = standby.sql_error(&format!("select afterimage_repair_page('{table}', 100000)"));
    assert!(error.contains("could not fetch the page from the primary"), "{error}");
    node.sql("create role plain login");
    node.wait_for_catchup(&standby);
    let error = standby.sql_error(&format!("set role plain; select afterimage_repair_page('{table}', 0)"));
    assert!(error.contains("42501: permission denied for function afterimage_repair_page"), "{error}");
    let (code, text) = compare(&node, &node);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("the server given as standby is not in recovery"), "{text}");
}

#[test]
fn comparison_passes_over_what_is_dropped_meanwhile() {
    let node = Node::start_new("compared", "");
    let standby = node.standby("compared_standby");
    node.sql("create table gone as select generate_series(1, 500)");
    let path = node.sql("select pg_relation_filepath('gone')");
    let listed = format!("select count(*) from afterimage_relation_files() where path = '{path}'");
    // The first byte of a digest says whether there is a page.
    let seen = format!("select get_byte(afterimage_page_digests('{path}', 0, 1), 0)");
    node.wait_for_catchup(&standby);
    assert_eq!((node.sql(&listed), node.sql(&seen), standby.sql(&seen)), ("1".to_owned(), "2".to_owned(), "2".to_owned()));
    block_on(async {
        // One node still has the file, for a snapshot from before; the other has not.
        let old = connect(&node).await;
        text(&old, "begin isolation level repeatable read; select 1").await;
        node.sql("drop table gone");
        node.wait_for_catchup(&standby);
        assert!(file(&node, &path).exists());
        assert_eq!((node.sql(&listed), node.sql(&seen), standby.sql(&seen)), ("0".to_owned(), "0".to_owned(), "0".to_owned()));
        text(&old, "commit").await;
    });
    assert!(holds_within(PATIENCE, || !file(&node, &path).exists()), "the file stays");
    assert_eq!((node.sql(&listed), node.sql(&seen)), ("0".to_owned(), "0".to_owned()));
    let (code, text) = compare(&node, &standby);
    assert_eq!(code, Some(0), "{text}");
}
