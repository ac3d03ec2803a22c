//! Values that do not fit a page: stored out of line, read in part, kept, replaced, deleted, through a crash and on a standby.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use crate::client::{block_on, connect, error, text};
use crate::support::node::{Node, file, until};

/// 8 bytes per number: a value of which any place is known.
const NUMBERS: &str = "(select string_agg(lpad(g::text, 8, '0'), '') from generate_series(0, 19999) g)";

fn numbers() -> String {
    (0..20_000).map(|g| format!("{g:08}")).collect()
}

/// Chunks that `table`'s large-value table has, as seen now, and the ids they belong to.
fn chunks(node: &Node, table: &str) -> (String, String) {
    let toast = node.sql(&format!("select reltoastrelid::regclass from pg_class where oid = '{table}'::regclass"));
    assert!(toast.starts_with("pg_toast.pg_toast_"), "{toast}");
    (node.sql(&format!("select count(*) from {toast}")), node.sql(&format!("select distinct chunk_id from {toast} order by 1")))
}

#[test]
fn large_values_are_kept_replaced_and_deleted_with_their_rows() {
    let node = Node::start_new("large", "");
    node.sql("create table t (id int primary key, v text, n int default 0)");
    node.sql(&format!("insert into t values (1, {NUMBERS}), (2, 'small'), (3, repeat('abc', 40000)), (4, null)"));
    let expected = numbers();
    block_on(async {
        let c = connect(&node).await;
        assert!(text(&c, "select v from t where id = 1").await == expected);
        assert_eq!(text(&c, "select v from t where id = 3").await, "abc".repeat(40_000));
        assert_eq!(
            text(&c, "select id, octet_length(v), pg_column_compression(v) from t order by id").await,
            "1|160000|pglz\n2|5|\n3|120000|pglz\n4||"
        );
        assert_eq!(text(&c, "select id from t where v is not null and v >= '00000000' order by v").await, "1\n3\n2");
    });

    // An update of another column leaves the value where it is; one of the value replaces it; a rollback leaves nothing to be seen.
    let before = chunks(&node, "t");
    node.sql("update t set n = n + 1; update t set v = v where id = 1");
    assert_eq!(chunks(&node, "t"), before);
    node.sql(&format!("begin; update t set v = v || 'x'; insert into t values (5, {NUMBERS}); rollback"));
    assert_eq!(chunks(&node, "t"), before);
    node.sql("update t set v = v || 'x' where id = 1");
    let after = chunks(&node, "t");
    assert_ne!(after.1, before.1);
    assert_eq!(node.sql("select length(v), right(v, 4), n from t where id = 1"), "160001|999x|1");
    assert_eq!(
        node.sql("insert into t values (1, 'c') on conflict (id) do update set v = t.v || excluded.v returning length(v)"),
        "160002"
    );

    // Both rows' values through a crash.
    node.kill();
    node.start();
    assert_eq!(node.sql("select md5(v) from t where id = 1"), node.sql(&format!("select md5({NUMBERS} || 'xc')")));
    node.sql("delete from t where id <> 2");
    assert_eq!(chunks(&node, "t").0, "0");
    node.sql("vacuum t");
    assert_eq!(node.sql("select pg_relation_size(reltoastrelid) from pg_class where oid = 't'::regclass"), "0");

    // Rewritten, copied, emptied, dropped.
    let file = node.home.path().join("t.copy");
    node.sql(&format!("insert into t values (1, {NUMBERS}); copy t to '{0}'; truncate t; copy t from '{0}'", file.display()));
    for sql in ["alter table t alter n type bigint", "vacuum full t", "create table t2 as select * from t"] {
        node.sql(sql);
    }
    for table in ["t", "t2"] {
        assert_eq!(node.sql(&format!("select length(v), substr(v, 80001, 8) from {table} where id = 1")), "160000|00010000");
        assert_ne!(chunks(&node, table).0, "0");
    }
    node.sql("drop table t, t2");
    assert_eq!(node.sql("select count(*) from pg_class where relnamespace = 'pg_toast'::regnamespace"), "0");
}

#[test]
fn storage_and_limits() {
    let node = Node::start_new("storage", "");
    block_on(async {
        let c = connect(&node).await;
        text(&c, "create table t (id int primary key, v text, b bytea, n int)").await;
        text(&c, "alter table t alter v set storage external; alter table t alter b set storage external").await;
        text(&c, &format!("insert into t select 1, v, convert_to(v, 'UTF8') from {NUMBERS} x(v)")).await;
        // Not compressed; parts of it are read where they are.
        assert_eq!(text(&c, "select pg_column_size(v), pg_column_compression(v) from t").await, "160000|");
        assert_eq!(
            text(
                &c,
                "select substr(v, 80001, 8), substring(v from 159993 for 99), left(v, 9), substr(v, 170000, 5), substr(v, -1, 4) from t"
            )
            .await,
            "00010000|00019999|000000000||00"
        );
        assert_eq!(text(&c, "select encode(substr(b, 80001, 8), 'escape'), length(b) from t").await, "00010000|160000");
        text(&c, "insert into t values (2, repeat('äöü', 10000))").await;
        assert_eq!(text(&c, "select substr(v, 29999, 2), length(v), octet_length(v) from t where id = 2").await, "öü|30000|60000");
        assert_eq!(error(&c, "select substr(v, 5, -1) from t").await, "22011 negative substring length not allowed");

        text(&c, "alter table t alter v set storage main, alter v set compression lz4; truncate t").await;
        text(&c, "insert into t values (1, repeat('x', 100000))").await;
        assert_eq!(text(&c, "select pg_column_size(v) < 1000, pg_column_compression(v) from t").await, "t|lz4");
        assert_eq!(
            text(&c, "select attstorage, attcompression from pg_attribute where attrelid = 't'::regclass and attname = 'v'").await,
            "m|l"
        );
        text(&c, "alter table t alter v set storage plain").await;
        let too_big = error(&c, "insert into t values (9, repeat('x', 9000))").await;
        assert!(too_big.starts_with("54000 row is too big: size 90"), "{too_big}");
        assert_eq!(
            error(&c, "alter table t alter n set storage external").await,
            "0A000 column data type integer can only have storage PLAIN"
        );
        assert_eq!(error(&c, "alter table t alter v set compression zstd").await, "22023 invalid compression method \"zstd\"");

        text(&c, "alter table t alter v set storage extended; truncate t; create index i on t (id, v)").await;
        let wide = format!("insert into t select 1, v from {NUMBERS} x(v)");
        let e = error(&c, &wide).await;
        assert!(e.starts_with("54000 index row size ") && e.ends_with(" exceeds btree version 4 maximum 2704 for index \"i\""), "{e}");
        text(&c, &format!("drop index i; {wide}")).await;
        let e = error(&c, "create index i on t (v)").await;
        assert!(e.starts_with("54000 index row size ") && e.ends_with(" for index \"i\""), "{e}");
    });
}

#[test]
fn large_values_are_read_on_a_standby_while_they_change() {
    let a = Node::start_new("a", "max_standby_streaming_delay = -1");
    a.sql("create table t (id int primary key, v text)");
    let b = a.standby("b");
    a.sql(&format!("insert into t select i, i || {NUMBERS} from generate_series(1, 3) i"));
    a.wait_for_catchup(&b);
    assert_eq!(a.table_hashes(), b.table_hashes());
    block_on(async {
        let reader = connect(&b).await;
        text(&reader, "begin isolation level repeatable read; declare c cursor for select v from t order by id; fetch 1 from c").await;
        a.sql("update t set v = id || 'new'");
        a.sql("vacuum t");
        // The old values are there for the old snapshot; replay waits.
        assert!(text(&reader, "fetch 1 from c").await == format!("2{}", numbers()));
        text(&reader, "commit").await;
    });
    a.wait_for_catchup(&b);
    assert_eq!(b.sql("select v from t order by id"), "1new\n2new\n3new");
    b.kill();
    b.start();
    b.promote();
    b.sql(&format!("update t set v = {NUMBERS} where id = 1"));
    until("the promoted standby to have the value", || b.sql("select length(v) from t where id = 1") == "160000");
}

#[test]
fn definitions_and_statistics_longer_than_a_page() {
    let node = Node::start_new("catalogs", "autovacuum = off");
    let standby = node.standby("catalogs_standby");
    // Nothing that compresses.
    let noise = |seed: u64, n: usize| -> String {
        use rand::{Rng as _, SeedableRng as _};
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        (0..n).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect()
    };
    let run = |sql: &str| {
        let file = node.home.path().join("statement.sql");
        std::fs::write(&file, sql).expect("a file");
        let mut psql = std::process::Command::new("psql");
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &format!("{} dbname=postgres", node.conninfo("test")), "-f"]).arg(&file);
        crate::support::node::run(&mut psql)
    };
    let body = noise(1, 300_000);
    run(&format!("create function f() returns int language plpgsql as $$begin /* {body} */ return 7; end$$"));
    let default = noise(2, 40_000);
    run(&format!("create table d (a text default '{default}', check (a <> '{}'))", noise(3, 20_000)));
    let columns: Vec<String> = (0..1600).map(|i| format!("{i} as c{i}")).collect();
    run(&format!("create view v as select {}", columns.join(", ")));
    run(&format!("comment on table d is '{}'", noise(4, 100_000)));
    run(
        "create table words as select (select string_agg(md5((g % 200)::text || i), '') from generate_series(1, 25) i) w from generate_series(1, 2000) g; analyze words",
    );
    let ask = "select f(), (select c1599 from v), length(obj_description('d'::regclass)), (select length(pg_get_expr(adbin, adrelid)) from pg_attrdef where adrelid = 'd'::regclass), \
               (select length(prosrc) from pg_proc where proname = 'f'), (select length(stavalues1::text) > 50000 from pg_statistic where starelid = to_regclass('words'))";
    let answer = format!("7|1599|100000|{}|{}|t", default.len() + "''::text".len(), body.len() + "begin /*  */ return 7; end".len());
    assert_eq!(node.sql(ask), answer);
    node.wait_for_catchup(&standby);
    assert_eq!(standby.sql(ask), answer);
    node.sql("insert into d default values");
    assert_eq!(node.sql("select length(a) from d"), default.len().to_string());

    // Replaced and dropped: nothing is left of what they had out of line; undone: all of it.
    let chunks = "select count(*) from pg_catalog.afterimage_large_value";
    let before: u32 = node.sql(chunks).parse().expect("a number");
    assert!(before > 100, "{before}");
    node.sql("begin; drop view v; drop function f(); analyze words; rollback");
    assert_eq!(node.sql(chunks), before.to_string());
    node.kill();
    node.start();
    assert_eq!(node.sql(ask), answer);
    node.sql("analyze words; create or replace function f() returns int language sql as 'select 8'; drop view v; drop table words");
    node.sql("comment on table d is null; drop table d");
    assert_eq!(node.sql("select f()"), "8");
    assert_eq!(node.sql(chunks), "0");
    let verified = {
        node.stop("fast");
        node.tool("verify").arg("-D").arg(node.data()).output().expect("verify")
    };
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[test]
fn the_index_of_large_values_can_be_made_anew() {
    let node = Node::start_new("toast_reindex", "");
    block_on(async {
        let (a, b) = (connect(&node).await, connect(&node).await);
        text(&a, "create table t (id int primary key, v text); alter table t alter v set storage external").await;
        text(&a, "insert into t select g, repeat(g::text, 20000) from generate_series(1, 9) g").await;
        let sum = "select count(*), sum(length(v)), min(left(v, 3)) from t";
        assert_eq!(text(&b, sum).await, "9|180000|111");
        let table = text(&a, "select reltoastrelid::regclass from pg_class where relname = 't'").await;
        let index = text(&a, &format!("select indexrelid::regclass from pg_index where indrelid = '{table}'::regclass")).await;
        for (n, what) in [format!("index {index}"), format!("table {table}"), format!("index concurrently {index}")].iter().enumerate() {
            text(&a, &format!("reindex {what}")).await;
            // Who knew of the old one finds the new one, for old values and new ones.
            assert_eq!(text(&b, sum).await.split('|').next(), Some((9 + n).to_string().as_str()), "{what}");
            text(&b, &format!("insert into t values ({}, repeat('x', 20000))", 10 + n)).await;
            assert_eq!(text(&a, "select count(*) from t where length(v || '') = 20000").await, (10 + n).to_string(), "{what}");
        }
        // A writer's new values are not missed.
        text(&b, "begin; insert into t values (100, repeat('y', 20000))").await;
        let reindex = format!("reindex index {index}");
        let waiting = tokio::spawn(async move {
            text(&a, &reindex).await;
            a
        });
        let watch = connect(&node).await;
        while text(&watch, "select count(*) from pg_locks where not granted").await != "1" {}
        text(&b, "commit").await;
        let a = waiting.await.expect("joined");
        assert_eq!(text(&a, "select right(v, 2) from t where id = 100").await, "yy");
    });
}

#[test]
fn a_part_of_a_large_value_is_read_without_the_rest() {
    let node = Node::start_new("part", "autovacuum = off");
    node.sql("create table t (b bytea); alter table t alter b set storage external");
    node.sql(&format!("insert into t select convert_to(v, 'UTF8') from {NUMBERS} x(v)"));
    let path = node.sql("select pg_relation_filepath(reltoastrelid) from pg_class where oid = 't'::regclass");
    node.stop("fast");
    // The second of some twenty pages that the value lies on.
    let pages = OpenOptions::new().write(true).open(file(&node, &path)).expect("the large values' file");
    pages.write_all_at(&[0xff; 16], 8192 + 5000).expect("writable");
    drop(pages);
    node.start();
    block_on(async {
        let c = connect(&node).await;
        assert_eq!(text(&c, "select encode(substr(b, 80001, 8), 'escape'), length(b) from t").await, "00010000|160000");
        assert_eq!(text(&c, "select encode(substring(b from 159993), 'escape'), length(substr(b, 170000)) from t").await, "00019999|0");
        assert_eq!(text(&c, "select encode(substr(b, -3, 12), 'escape'), encode(substr(b, 1, 0), 'escape') from t").await, "00000000|");
        assert_eq!(error(&c, "select substr(b, 5, -1) from t").await, "22011 negative substring length not allowed");
        let e = error(&c, "select md5(b) from t").await;
        assert!(e.starts_with("XX001 "), "{e}");
    });
}

#[test]
fn vacuum_cuts_nothing_off_that_others_write() {
    let node = Node::start_new("largevacuum", "autovacuum = off");
    node.sql("create table t (id int primary key, n int, v text); alter table t alter v set storage external");
    // Who writes a large value locks the table it goes to, as in PostgreSQL.
    let locks =
        "select mode from pg_locks where relation = (select reltoastrelid from pg_class where relname = 't') and pid = pg_backend_pid()";
    let seen = node.sql(&format!("begin; insert into t values (0, 0, repeat('x', 10000)); {locks}; commit"));
    assert_eq!(seen, "RowExclusiveLock");
    block_on(async {
        let (done, cuts) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        let writer = async |id: i32| {
            let c = connect(&node).await;
            for n in 0..100 {
                let len = 1000 + (n * 7919 + id * 104_729) % 40_000;
                let value = format!("repeat('{id}', {len})");
                let put =
                    format!("insert into t values ({id}, {n}, {value}) on conflict (id) do update set n = excluded.n, v = excluded.v");
                c.batch_execute(&put).await.expect("written");
                let same = format!("select n = {n} and v = {value} from t where id = {id}");
                assert_eq!(text(&c, &same).await, "t", "{id} {n}");
                if n % 2 == 0 {
                    c.batch_execute(&format!("delete from t where id = {id}")).await.expect("deleted");
                }
            }
            done.set(done.get() + 1);
        };
        let vacuum = async {
            let c = connect(&node).await;
            while done.get() < 3 {
                c.batch_execute("vacuum t").await.expect("vacuumed");
                cuts.set(cuts.get() + 1);
            }
        };
        tokio::join!(writer(1), writer(2), writer(3), vacuum);
        assert!(cuts.get() > 0);
    });
    assert_eq!(node.sql("select count(*), sum(length(v)) = sum(length(v || '')) from t"), "4|t");
    assert_eq!(node.sql("select count(*) from verify_heapam('t')"), "0");
}
