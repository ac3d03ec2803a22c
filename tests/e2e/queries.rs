//! What a statement may cost: how deeply it may nest, how much memory it takes.

use crate::client::{block_on, connect, text};
use crate::support::node::{Node, until};

/// A statement that nests `n` levels in some way, and what it returns.
type Nested = (&'static str, fn(usize) -> String);

#[test]
fn statements_nest_as_deeply_as_postgresql_has_them_or_fail_with_54001() {
    let shapes: [Nested; 13] = [
        ("operators", |n| format!("select {}", vec!["1"; n].join("+"))),
        ("operators on columns", |n| format!("select {} from (values (1)) v(a)", vec!["a"; n].join("+"))),
        ("parentheses", |n| format!("select {}1{}", "(".repeat(n), ")".repeat(n))),
        ("not", |n| format!("select {}true", "not ".repeat(n))),
        ("case", |n| format!("select {}1{}", "case when true then ".repeat(n), " end".repeat(n))),
        ("calls", |n| format!("select {}1{}", "abs(".repeat(n), ")".repeat(n))),
        ("casts", |n| format!("select 1{}", "::int".repeat(n))),
        ("subselects", |n| format!("select {}1{}", "(select ".repeat(n), ")".repeat(n))),
        ("exists", |n| format!("select 1 where {}true{}", "exists (select 1 where ".repeat(n), ")".repeat(n))),
        ("escaped quotes before", |n| format!(r"select E'\'' is null, {}1{}", "(".repeat(n), ")".repeat(n))),
        ("list", |n| format!("select 5 in ({})", vec!["5"; n].join(","))),
        ("and, or", |n| format!("select {}", vec!["true and false"; n].join(" or "))),
        ("union", |n| format!("select count(*) from ({}) u", vec!["select 1, 2"; n].join(" union all "))),
    ];
    let node = Node::start_new("deep", "");
    let pids = node.server_pids();
    block_on(async {
        let c = connect(&node).await;
        for (name, text) in shapes {
            for n in [100, 1_000, 10_000, 100_000] {
                // Subqueries are planned level by level: enough is seen at a hundred, and beyond what is accepted.
                if n == 1_000 && matches!(name, "subselects" | "exists") {
                    continue;
                }
                match c.simple_query(&text(n)).await {
                    Ok(_) => {}
                    Err(e) => {
                        let e = e.as_db_error().unwrap_or_else(|| panic!("{name} of {n} levels ended the session: {e}"));
                        // The grammar's own stack ends at 10,000 open brackets, in PostgreSQL too.
                        assert!(
                            n >= 10_000 && (e.code().code() == "54001" || e.message().starts_with("memory exhausted")),
                            "{name} of {n} levels: {e}"
                        );
                        if e.code().code() == "54001" {
                            assert!(e.hint().is_some_and(|h| h.contains("max_stack_depth")), "{e:?}");
                        }
                    }
                }
            }
        }
    });
    assert_eq!(node.server_pids(), pids, "the server was restarted");
}

/// The `Batches: n` of the one line of a plan that has `what`, and whether it tells of a disk.
fn batches(plan: &str, what: &str) -> (u64, bool) {
    let line = plan.lines().find(|l| l.contains(what)).unwrap_or_else(|| panic!("no {what} in\n{plan}"));
    let rest = line.split("Batches: ").nth(1).unwrap_or_else(|| panic!("no batches in\n{plan}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (digits.parse().expect("a number"), line.contains("Disk Usage"))
}

#[test]
fn hash_joins_and_groups_larger_than_work_mem_go_to_disk_and_give_the_same_rows() {
    let node = Node::start_new("spill", "");
    node.sql(
        "create table l as select i as id, case when i % 11 = 0 then null else i % 7000 end as k, repeat('l', i % 40) as pad, array[i, -i] as a
            from generate_series(1, 20000) i;
         create table r as select i as id, case when i % 13 = 0 then null else i end as k, i * 1.5 as n from generate_series(1, 9000) i;
         analyze l; analyze r",
    );
    let small = "set work_mem = '64kB'; set hash_mem_multiplier = 1; ";
    let large = "set work_mem = '256MB'; ";
    let queries = [
        "select count(*), sum(l.id), sum(r.n), sum(cardinality(l.a)), sum(length(l.pad)) from l {} join r on l.k = r.k",
        "select count(*), sum(k), count(distinct pad) from l where k in (select k from r where id > 20)",
        "select count(*), sum(c), sum(s), max(m) from (select k, pad, count(*) as c, sum(id) as s, max(a) as m from l group by k, pad) g",
        "select count(*), sum(k) from (select distinct k, pad from l) d",
        "select count(*), sum(k) from (select k, n from r union select id, n + 1 from r) u",
        "select count(*), sum(c) from (select k % 1000 as x, pad, count(*) as c from l group by grouping sets ((1, 2), (1), ())) g",
    ];
    for q in queries {
        let forms: &[&str] = match q {
            q if q.contains("{} join") => &["inner", "left", "right", "full"],
            _ => &[""],
        };
        for form in forms {
            let sql = q.replace("{}", form);
            assert_eq!(node.sql(&format!("{small}{sql}")), node.sql(&format!("{large}{sql}")), "{sql}");
        }
    }
    let explain = |settings: &str, sql: &str| node.sql(&format!("{settings}explain (analyze, costs off, timing off) {sql}"));
    let join = "select count(*) from l full join r on l.k = r.k";
    assert!(batches(&explain(small, join), "Buckets").0 > 1);
    assert_eq!(batches(&explain(large, join), "Buckets").0, 1);
    let union = "select k, n from r union select id, n from r";
    let (several, disk) = batches(&explain(small, union), "Batches");
    assert!(several > 1 && disk);
    assert_eq!(batches(&explain(large, union), "Batches"), (1, false));
    let sort = explain(small, "select * from l order by pad, id");
    assert!(sort.contains("Sort Method: external merge  Disk: "), "{sort}");
    // One key that alone is more than the memory cannot be split, and is joined all the same.
    let skew = "select count(*) from (select 1 as k, id from l) a join (select 1 as k, id from r where id <= 200) b using (k)";
    assert_eq!(node.sql(&format!("{small}{skew}")), "4000000");
    // No file is left; one that a crash might leave goes when the server starts.
    let dir = node.data().join("base/pgsql_tmp");
    let files = || std::fs::read_dir(&dir).map(|d| d.flatten().map(|e| e.file_name()).collect::<Vec<_>>()).unwrap_or_default();
    assert!(files().is_empty(), "temporary files are left: {:?}", files());
    node.kill();
    std::fs::write(dir.join("pgsql_tmp4711.0"), "left").expect("written");
    node.start();
    assert!(files().is_empty(), "temporary files are left: {:?}", files());
}

/// Runs a statement three times in the simple protocol, so that the last comes from the plan cache; all must give the same.
async fn thrice(c: &tokio_postgres::Client, sql: &str) -> Result<Vec<String>, String> {
    let mut last = None;
    for _ in 0..3 {
        let result = match c.simple_query(sql).await {
            Ok(messages) => Ok(messages
                .iter()
                .filter_map(|m| match m {
                    tokio_postgres::SimpleQueryMessage::Row(r) => {
                        Some((0..r.len()).map(|i| r.get(i).unwrap_or("null")).collect::<Vec<_>>().join("|"))
                    }
                    tokio_postgres::SimpleQueryMessage::CommandComplete(_) | _ => None,
                })
                .collect::<Vec<_>>()),
            Err(e) => {
                let e = e.as_db_error().expect("an error of the server");
                Err(format!("{} {:?}", e.code().code(), e.position()))
            }
        };
        if let Some(before) = last.replace(result.clone()) {
            assert_eq!(before, result, "{sql}");
        }
    }
    last.expect("it ran")
}

async fn rows(c: &tokio_postgres::Client, sql: &str) -> String {
    thrice(c, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")).join(",")
}

#[test]
fn simple_queries_share_plans_and_no_literal_is_taken_for_another() {
    let node = Node::start_new("plans", "");
    block_on(async {
        let c = connect(&node).await;
        c.batch_execute(
            "create table t (id int primary key, s varchar(5), n numeric, small int2, at timestamptz, done bool);
             create unique index on t (s) where done;
             insert into t values (1, 'a', 1.5, 1, '2024-01-01 00:00+00', false), (-2, 'it''s', -2, 2, null, true), (3, 'c', 3, 3, 'now', false);
             create schema other; create table other.t (id int, s text); insert into other.t values (1, 'other')",
        )
        .await
        .expect("made");
        // Types and values.
        for _ in 0..2 {
            assert_eq!(rows(&c, "select s from t where id = 1").await, "a");
            assert_eq!(rows(&c, "select s from t where id = 3").await, "c");
            assert_eq!(rows(&c, "select s from t where id = -2").await, "it's");
            assert_eq!(rows(&c, "select id from t where s = 'it''s'").await, "-2");
            assert_eq!(rows(&c, "select id from t where s = 'a'").await, "1");
            assert_eq!(rows(&c, "select count(*) from t where id = 3000000000").await, "0");
            assert_eq!(rows(&c, "select count(*) from t where id > -3000000000").await, "3");
            assert_eq!(rows(&c, "select count(*) from t where id = 2147483648").await, "0");
            assert_eq!(rows(&c, "select s from t where n = 1.5").await, "a");
            assert_eq!(rows(&c, "select s from t where n = 3").await, "c");
            assert_eq!(rows(&c, "select s from t where id = '3'").await, "c");
            assert_eq!(thrice(&c, "select s from t where id = 'x'").await, Err("22P02 Some(Original(28))".into()));
            assert_eq!(rows(&c, "select id from t where id between 0 and 2").await, "1");
            assert_eq!(rows(&c, "select id from t where id between 0 and 3 order by id").await, "1,3");
            assert_eq!(rows(&c, "select id - 1 from t where id = 0 or id = 3").await, "2");
            assert_eq!(rows(&c, "select id -2 from t where id=3").await, "1");
        }
        // Literals that are more than values.
        assert_eq!(rows(&c, "select id from t order by id limit 1").await, "-2");
        assert_eq!(rows(&c, "select id from t order by id limit 0").await, "");
        assert_eq!(rows(&c, "select id, -id from t order by 1").await, "-2|2,1|-1,3|-3");
        assert_eq!(rows(&c, "select id, -id from t order by 2").await, "3|-3,1|-1,-2|2");
        assert_eq!(rows(&c, "select 1 as a, pg_typeof(1), pg_typeof(3000000000), pg_typeof('a')").await, "1|integer|bigint|unknown");
        assert_eq!(rows(&c, "select 2 as a, pg_typeof(2), pg_typeof(3000000001), pg_typeof('b')").await, "2|integer|bigint|unknown");
        assert_eq!(rows(&c, "select interval(0) '1.6 s', interval '1' day, interval '1' hour").await, "00:00:02|1 day|01:00:00");
        assert_eq!(rows(&c, "select interval(1) '1.6 s', interval '2' day, interval '2' hour").await, "00:00:01.6|2 days|02:00:00");
        assert_eq!(rows(&c, "select id from t where s = 'it''s' and done").await, "-2");
        assert_eq!(rows(&c, "select id from t where s = 'a' and done").await, "");
        let mut times = Vec::new();
        for _ in 0..4 {
            times.push(text(&c, "select 'now'::timestamptz").await);
        }
        times.dedup();
        assert_eq!(times.len(), 4, "{times:?}");
        // What a session has set.
        for (zone, shown) in
            [("UTC", "2024-01-01 00:00:00+00"), ("Asia/Tokyo", "2024-01-01 09:00:00+09"), ("UTC", "2024-01-01 00:00:00+00")]
        {
            c.batch_execute(&format!("set timezone = '{zone}'")).await.expect("set");
            assert_eq!(rows(&c, "select at from t where id = 1").await, shown);
            let midnight = if zone == "UTC" { "t" } else { "f" };
            assert_eq!(rows(&c, "select '2024-01-01 00:00'::timestamptz = at from t where id = 1").await, midnight);
        }
        assert_eq!(rows(&c, "select 't'::regclass::oid = 'public.t'::regclass").await, "t");
        c.batch_execute("set search_path = other").await.expect("set");
        assert_eq!(rows(&c, "select s from t where id = 1").await, "other");
        assert_eq!(rows(&c, "select 't'::regclass::oid = 'public.t'::regclass").await, "f");
        c.batch_execute("reset search_path").await.expect("reset");
        assert_eq!(rows(&c, "select s from t where id = 1").await, "a");
        // Changes, and what does not fit.
        for i in 10..15 {
            c.simple_query(&format!("insert into t values ({i}, 'n{i}', {i}.5, -{i}, '2024-02-{i}', true)")).await.expect("inserted");
        }
        assert_eq!(rows(&c, "select sum(small), sum(n), max(s), max(at)::date from t where id >= 10").await, "-60|62.5|n14|2024-02-14");
        for _ in 0..3 {
            let n = c.execute("update t set small = small + -5, s = 'z' where id = 3", &[]).await.expect("updated");
            assert_eq!(n, 1);
            c.simple_query("update t set small = small - 1 where id = 3").await.expect("updated");
        }
        assert_eq!(rows(&c, "select small from t where id = 3").await, "-15");
        for _ in 0..3 {
            for (sql, state) in [
                ("insert into t values (1, 'a', 1, 1, null, false)", "23505"),
                ("insert into t values (20, 'too long', 1, 1, null, false)", "22001"),
                ("insert into t values (20, 'a', 1, 40000, null, false)", "22003"),
                ("insert into t values (20, 'a', 'x', 1, null, false)", "22P02"),
                ("insert into t values (20, 'a', 1, 1, 'no date', false)", "22007"),
            ] {
                let e = c.simple_query(sql).await.expect_err(sql);
                assert_eq!(e.code().map(|c| c.code()), Some(state), "{sql}");
            }
        }
    });
}

#[test]
fn cached_plans_follow_ddl_on_the_primary_and_on_a_standby() {
    let node = Node::start_new("plans_ddl", "");
    let standby = node.standby("plans_ddl_standby");
    block_on(async {
        let (c, d) = (connect(&node).await, connect(&node).await);
        c.batch_execute("create table t (id int, s text); insert into t values (1, 'a')").await.expect("made");
        node.wait_for_catchup(&standby);
        let s = connect(&standby).await;
        let all = "select * from t where id = 1";
        let steps = [
            ("select 1", "1|a"),
            ("alter table t add column x int default 7", "1|a|7"),
            ("alter table t drop column s", "1|7"),
            ("create index on t (id)", "1|7"),
            ("alter table t alter column id type text using id::text || ''", ""),
            ("alter table t alter column id type int using id::int", "1|7"),
            ("drop table t; create table t (id int, y text); insert into t values (1, 'new')", "1|new"),
            ("alter table t rename to u; create view t as select id, y || '!' as z from u", "1|new!"),
        ];
        for (ddl, expected) in steps {
            c.batch_execute(ddl).await.expect(ddl);
            node.wait_for_catchup(&standby);
            for client in [&c, &d, &s] {
                if expected.is_empty() {
                    // text = integer
                    assert_eq!(
                        thrice(client, all).await.map_err(|e| e.split(' ').next().map(str::to_owned)),
                        Err(Some("42883".into())),
                        "{ddl}"
                    );
                } else {
                    assert_eq!(rows(client, all).await, expected, "{ddl}");
                }
            }
        }
        // A transaction sees its own DDL; afterwards it is as before.
        let base = "select * from u where id = 1";
        assert_eq!(rows(&c, base).await, "1|new");
        c.batch_execute("begin; alter table u add column w int default 5").await.expect("begun");
        assert_eq!(rows(&c, base).await, "1|new|5");
        c.batch_execute("rollback").await.expect("rolled back");
        for client in [&c, &d, &s] {
            assert_eq!(rows(client, base).await, "1|new");
        }
        // Temporary tables hide others, in their session only.
        c.batch_execute("create temp table t as select 1 as id, 'temp' as z").await.expect("made");
        assert_eq!(rows(&c, all).await, "1|temp");
        assert_eq!(rows(&d, all).await, "1|new!");
        c.batch_execute("drop table pg_temp.t").await.expect("dropped");
        assert_eq!(rows(&c, all).await, "1|new!");
        // Privileges are asked for each time.
        c.batch_execute("create role r; grant select on t to r; set role r").await.expect("made");
        assert_eq!(rows(&c, all).await, "1|new!");
        d.batch_execute("revoke select on t from r").await.expect("revoked");
        assert_eq!(thrice(&c, all).await, Err("42501 None".into()));
        d.batch_execute("drop view t").await.expect("dropped");
        assert_eq!(thrice(&d, all).await, Err("42P01 Some(Original(15))".into()));
        node.wait_for_catchup(&standby);
        assert_eq!(thrice(&s, all).await, Err("42P01 Some(Original(15))".into()));
    });
}

#[test]
fn index_only_scans_look_at_the_table_only_where_it_changed() {
    let node = Node::start_new("index_only", "autovacuum = off");
    let standby = node.standby("index_only_standby");
    node.sql(
        "create table t (a int, b text, c int); insert into t select i, 'b' || i, i from generate_series(1, 5000) i;
         create index t_ab on t (a, b desc)",
    );
    node.sql("vacuum analyze t");
    let plan = |n: &Node, sql: &str| n.sql(&format!("explain (analyze, costs off, timing off, summary off) {sql}"));
    let fetches = |plan: &str| -> u64 {
        let line = plan.lines().find(|l| l.contains("Heap Fetches: ")).unwrap_or_else(|| panic!("no index-only scan in\n{plan}"));
        line.trim().trim_start_matches("Heap Fetches: ").parse().expect("a number")
    };
    let range = "select a, b from t where a between 100 and 199";
    let shown = plan(&node, range);
    assert!(shown.contains("Index Only Scan using t_ab on t"), "{shown}");
    assert_eq!(fetches(&shown), 0);
    assert!(!plan(&node, "select a, c from t where a = 100").contains("Only"));
    let off = node.sql(&format!("set enable_indexonlyscan = off; explain {range}"));
    assert!(!off.contains("Only"), "{off}");
    let sums = "select count(*), sum(a), max(b) from t where a between 100 and 199";
    let same = |expected: &str| {
        assert_eq!(node.sql(sums), expected);
        node.wait_for_catchup(&standby);
        assert_eq!(standby.sql(sums), expected);
    };
    same("100|14950|b199");
    node.sql("update t set b = 'zz' where a = 150");
    same("100|14950|zz");
    assert!(fetches(&plan(&node, range)) > 0);
    node.sql("delete from t where a between 160 and 199");
    same("60|7770|zz");
    node.sql("vacuum t");
    same("60|7770|zz");
    assert_eq!(fetches(&plan(&node, range)), 0);
    // Rows that take the places of removed ones are seen, and only they.
    node.sql("insert into t select i, 'new', 0 from generate_series(160, 169) i");
    same("70|9415|zz");
    // An old snapshot goes on seeing what it saw.
    block_on(async {
        let (c, d) = (connect(&node).await, connect(&node).await);
        c.batch_execute("begin isolation level repeatable read").await.expect("begun");
        let before = text(&c, sums).await;
        d.batch_execute("delete from t where a < 150").await.expect("deleted");
        d.batch_execute("vacuum t").await.expect("vacuumed");
        assert_eq!(text(&c, sums).await, before);
        c.batch_execute("commit").await.expect("committed");
        d.batch_execute("vacuum t").await.expect("vacuumed");
        assert_eq!(text(&c, sums).await, "20|3190|zz");
    });
    same("20|3190|zz");
}

/// `n` times something, numbered, between commas.
fn list(n: usize, one: impl Fn(usize) -> String) -> String {
    (0..n).map(one).collect::<Vec<_>>().join(", ")
}

#[test]
fn beyond_each_limit_there_is_an_error_and_the_server_lives() {
    let node = Node::start_new("limits", "");
    let columns = |n| list(n, |i| format!("c{i} int"));
    let items = |n| list(n, |i| format!("{i} as c{i}"));
    node.sql(&format!("create table wide ({}); create table keys ({}, unique (c0))", columns(1600), columns(40)));
    node.sql(&format!("insert into wide values ({})", list(1600, |i| i.to_string())));
    assert_eq!(node.sql("select c1599 from wide"), "1599");
    assert_eq!(node.sql(&format!("select {}", list(1664, |_| "1".to_owned()))).len(), 2 * 1664 - 1);
    let names = |n| list(n, |i| format!("c{i}"));
    node.sql(&format!("create index on keys ({})", names(32)));
    // What PostgreSQL 15 says to the same.
    let refused: [(&str, String); 23] = [
        ("54011: tables can have at most 1600 columns", format!("create table t ({})", columns(1601))),
        ("54011: tables can have at most 1600 columns", "alter table wide add x int".to_owned()),
        ("54011: tables can have at most 1600 columns", format!("create table t as select {}", items(1601))),
        ("54011: tables can have at most 1600 columns", format!("create view v as select {}", items(1601))),
        ("54011: target lists can have at most 1664 entries", format!("select {}", items(1665))),
        ("54011: target lists can have at most 1664 entries", "select * from wide a, wide b".to_owned()),
        ("54011: target lists can have at most 1664 entries", format!("values ({})", list(1665, |_| "1".to_owned()))),
        ("54011: target lists can have at most 1664 entries", format!("select 1 group by {}", list(1664, |i| format!("{i}::text")))),
        ("54011: cannot use more than 32 columns in an index", format!("create index on keys ({})", names(33))),
        (
            "54011: cannot have more than 32 keys in a foreign key",
            format!("alter table keys add foreign key ({0}) references keys ({0})", names(33)),
        ),
        ("54023: cannot pass more than 100 arguments to a function", format!("select concat({})", list(101, |i| i.to_string()))),
        (
            "54023: functions cannot have more than 100 arguments",
            format!("create function f({}) returns int language sql as 'select 1'", list(101, |_| "int".to_owned())),
        ),
        ("54000: requested length too large", "select repeat('x', 1073741820)".to_owned()),
        ("54000: requested length too large", "select lpad('x', 268435455)".to_owned()),
        ("54000: out of memory", "select format('%2000000000s', 'x')".to_owned()),
        ("54000: array size exceeds the maximum allowed (134217727)", "select array_fill(1, array[200000000])".to_owned()),
        ("54000: number of array dimensions (7) exceeds the maximum allowed (6)", "select '{{{{{{{1}}}}}}}'::int[]".to_owned()),
        ("22023: length for type varchar cannot exceed 10485760", "select 'a'::varchar(10485761)".to_owned()),
        ("22003: value overflows numeric format", "select ('0.' || repeat('9', 16384))::numeric".to_owned()),
        ("22003: value overflows numeric format", "select repeat('9', 131073)::numeric".to_owned()),
        ("42601: memory exhausted at or near \"(\"", format!("select {}1{}", "(".repeat(40_000), ")".repeat(40_000))),
        ("54001: stack depth limit exceeded", "select (repeat('[', 3000000))::json".to_owned()),
        (
            "54001: stack depth limit exceeded",
            "create function deep(int) returns int language plpgsql as $$begin return deep($1 + 1); end$$; select deep(1)".to_owned(),
        ),
    ];
    for (expected, sql) in refused {
        let error = node.sql_error(&sql);
        assert!(error.contains(&format!("ERROR:  {expected}")), "{}: {error}", sql.get(..100).unwrap_or(&sql));
    }
    node.sql(&format!("create table eights ({})", list(1600, |i| format!("c{i} int8"))));
    let error = node.sql_error(&format!("insert into eights values ({})", list(1600, |i| i.to_string())));
    assert!(error.contains("54000: row is too big: size "), "{error}");
    assert_eq!(node.server_pids().len(), 1);
    assert!(!node.log().contains("terminated by signal"), "{}", node.log());
}

/// Most memory the server took since the last call, in kB.
fn peak(node: &Node) -> u64 {
    let pid = node.server_pids()[0];
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server's status");
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the peak can be reset");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("the peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// What keeps rows to read them again spills: windows, WITH, recursion, the inner side of a nested loop.
#[test]
fn rows_kept_to_be_read_again_stay_within_work_mem() {
    let node = Node::start_new("kept_rows", "autovacuum = off\nwork_mem = 1MB\nshared_buffers = 16MB");
    let n = 60_000_u64;
    let sum = n * (n + 1) / 2;
    node.sql(&format!(
        "create table t (i int, k int, v text); insert into t select g, g / 2, repeat('v', 1000) from generate_series(1, {n}) g"
    ));
    node.sql("analyze t");
    node.sql("select count(*), max(v) from (select * from t order by i offset 1) x");
    peak(&node);
    let before = peak(&node);
    for (sql, expected) in [
        (
            "select count(v), sum(n), sum(p), max(length(e)) from (
                select row_number() over w n, lag(i) over w p, first_value(v) over w e, v from t window w as (order by i)) x",
            format!("{n}|{sum}|{}|1000", sum - n),
        ),
        (
            "select sum(s), max(length(v)) from (select sum(i) over (order by i rows between 2 preceding and current row) s, v from t) x",
            format!("{}|1000", 3 * sum - 2 * n - (n - 1)),
        ),
        (
            "select max(c), sum(c), max(length(v)) from (
                select count(*) over (order by k range between 1 preceding and 1 following) c, v from t) x",
            format!("6|{}|1000", (n / 2 - 3) * 12 + 26),
        ),
        (
            "select max(d), max(r), max(length(v)) from (select dense_rank() over (order by k) d, rank() over (order by k) r, v from t) x",
            format!("{}|{n}|1000", n / 2 + 1),
        ),
        (
            "select sum(c), count(v) from (select count(*) filter (where i % 2 = 0) over (partition by k % 2) c, v from t) x",
            format!("{}|{n}", n * n / 4),
        ),
        ("with m as materialized (select * from t) select (select sum(i) from m), (select max(length(v)) from m)", format!("{sum}|1000")),
        (
            "with recursive r (i, v, d) as (select i, v, 0 from t union all select i, v, d + 1 from r where d < 1) select count(v), sum(d) from r",
            format!("{}|{n}", 2 * n),
        ),
        (
            "select count(*), max(length(v)) from (values (0), (1)) a (x) left join (select * from t) b on b.i % 2 = a.x",
            format!("{n}|1000"),
        ),
    ] {
        assert_eq!(node.sql(&format!("set enable_hashjoin = off; set enable_mergejoin = off; {sql}")), expected, "{sql}");
        let took = peak(&node).saturating_sub(before);
        println!("{took} kB: {sql}");
        // All rows are 66 MB.
        assert!(took < 45_000, "{sql} took {took} kB");
    }
    // Every kind of frame gives the same, wherever the rows are.
    node.sql("create table f as select i, i * 7919 % 1009 o, nullif(i % 13, 5) m, v from t where i <= 300");
    // RANGE is what it says.
    let said = |order: &str, condition: &str| {
        let frame = format!("order by {order} range between 3 preceding and 2 following");
        format!(
            "set work_mem = '64kB'; select count(*) from (select *, sum(i) over (partition by i % 2 {frame}) s from f) a \
             where s is distinct from (select sum(i) from f b where b.i % 2 = a.i % 2 and ({condition}))"
        )
    };
    for (order, condition) in [
        ("o", "b.o between a.o - 3 and a.o + 2"),
        ("o desc", "b.o between a.o - 2 and a.o + 3"),
        ("m", "b.m between a.m - 3 and a.m + 2 or a.m is null and b.m is null"),
        ("m desc", "b.m between a.m - 2 and a.m + 3 or a.m is null and b.m is null"),
    ] {
        assert_eq!(node.sql(&said(order, condition)), "0", "{order}");
    }
    let edges = ["unbounded preceding", "3 preceding", "current row", "2 following", "unbounded following"];
    let mut frames = Vec::new();
    for mode in ["rows", "range", "groups"] {
        for (at, start) in edges[..4].iter().enumerate() {
            for end in edges[at.max(1)..].iter().filter(|end| start != *end || *start == "current row") {
                for exclude in ["", " exclude current row", " exclude group", " exclude ties"] {
                    frames.push(format!("{mode} between {start} and {end}{exclude}"));
                }
            }
        }
    }
    for order in ["o", "m desc nulls first"] {
        let columns: Vec<String> = frames
            .iter()
            .enumerate()
            .map(|(n, frame)| format!("sum(i) over (partition by i % 2 order by {order} {frame}) c{n}, last_value(i) over (partition by i % 2 order by {order}, i {}) l{n}", frame.replace("range", "groups")))
            .collect();
        for some in columns.chunks(40) {
            let sql = format!("select md5(string_agg(x::text, ',' order by i)) from (select i, v, {} from f) x", some.join(", "));
            let wide = node.sql(&format!("set work_mem = '1GB'; {sql}"));
            assert_eq!(node.sql(&format!("set work_mem = '64kB'; {sql}")), wide, "{sql}");
        }
    }
}

/// What has to keep rows by value, or in an order, spills: set operations, hashed subqueries, ordered aggregates of many groups, joins over one key,
/// and what functions return. The results follow from how the rows were made.
#[test]
fn sets_subqueries_aggregates_and_functions_stay_within_work_mem() {
    let node = Node::start_new("sets", "autovacuum = off\nwork_mem = 1MB\nshared_buffers = 16MB");
    let n = 20_000_u64;
    let half = n / 2;
    node.sql(&format!(
        "create table t (i int, k int, v text); insert into t select g, g / 2, repeat('v', 1000) from generate_series(1, {n}) g; analyze t;
         create function rows_of_sql() returns setof t volatile language sql as 'select * from t';
         create function rows_of_query() returns setof t language plpgsql as 'begin return query select * from t; end';
         create function next_of_all() returns setof text language plpgsql as
           'declare r record; begin for r in select * from t loop return next r.v; end loop; end'"
    ));
    node.sql("select count(*), max(v) from (select * from t order by i offset 1) x");
    peak(&node);
    let before = peak(&node);
    let files = |what: &str| format!("select {what} from pg_stat_database where datname = 'postgres'");
    for (sql, expected) in [
        (format!("select count(*), max(length(v)) from (select i, v from t except select i + {half}, v from t) x"), format!("{half}|1000")),
        (
            "select count(*), sum(k), max(length(v)) from (select k, v from t except all select k, v from t where i % 2 = 0) x".to_owned(),
            format!("{half}|{}|1000", half * (half - 1) / 2),
        ),
        (format!("select count(*), max(length(v)) from (select i, v from t intersect select i + {half}, v from t) x"), format!("{half}|1000")),
        (
            "select count(*), sum(k), max(length(v)) from (select k, v from t intersect all select k, v from t where i % 2 = 0) x".to_owned(),
            format!("{half}|{}|1000", half * (half + 1) / 2),
        ),
        (format!("select count(*), max(i) from t where v || i not in (select v || (i + {half}) from t)"), format!("{half}|{half}")),
        (format!("select count(*), min(i) from t where v || i in (select v || (i + {half}) from t) or i < 0"), format!("{half}|{}", half + 1)),
        (
            "select count(*) filter (where b), count(*) filter (where not b), count(*) from
               (select (i, v) in (select nullif(i, 7), v from t) b from t) x"
                .to_owned(),
            format!("{}|0|{n}", n - 1),
        ),
        (
            "select count(*), sum(c), max(length(a)) from
               (select k % 100 g, count(distinct v || i) c, max(v || i order by i desc) a from t group by k % 100 offset 0) x"
                .to_owned(),
            format!("100|{n}|1004"),
        ),
        (
            "select count(*), sum(c) from (select k % 100 a, i % 3 b, count(distinct v || i) c from t group by grouping sets (1, 2, ())) x".to_owned(),
            format!("104|{}", 3 * n),
        ),
        (
            "select substr(percentile_disc(0.5) within group (order by v || lpad(i::text, 6, '0')), 1001)::int, percentile_cont(0.25) within group (order by i),
                    length(mode() within group (order by v)) from t"
                .to_owned(),
            format!("{half}|{}|1000", 1.0 + 0.25 * (n - 1) as f64),
        ),
        (
            "select count(*), max(length(b.v)) from (select 1 j, i, v from t where i <= 1500) a join (select 1 j, i, v from t where i <= 1500) b
               on a.j = b.j and a.i - b.i = 1 and length(a.v) > 0"
                .to_owned(),
            "1499|1000".to_owned(),
        ),
        ("select count(*), sum(i), max(length(v)) from rows_of_sql()".to_owned(), format!("{n}|{}|1000", n * (n + 1) / 2)),
        ("select count(*), sum(i), max(length(v)) from rows_of_query()".to_owned(), format!("{n}|{}|1000", n * (n + 1) / 2)),
        ("select count(*), max(length(v)) from (select next_of_all() v offset 0) x".to_owned(), format!("{n}|1000")),
    ] {
        let (used, settings) = (node.sql(&files("temp_files")), "set hash_mem_multiplier = 1; set enable_mergejoin = off; set enable_nestloop = off");
        assert_eq!(node.sql(&format!("{settings}; {sql}")), expected, "{sql}");
        let took = peak(&node).saturating_sub(before);
        println!("{took} kB: {sql}");
        // All rows are 22 MB.
        assert!(took < 14_000, "{sql} took {took} kB");
        // It wrote some.
        node.wait_for(&files(&format!("temp_files > {used}")), "t");
    }
    until("temporary files to be gone", || node.temporary_files() == 0);
}

/// What a statement leaves to be looked at later takes a few bytes for each row, whatever the row or its key takes.
#[test]
fn events_that_wait_take_little_memory() {
    let node = Node::start_new("events", "autovacuum = off\nwork_mem = 1MB\nshared_buffers = 4MB\nmax_wal_size = 64MB");
    let n = 30_000_u64;
    node.sql(&format!(
        "create table p (k text primary key);
         insert into p select repeat('k', 200) || g from generate_series(1, 10) g;
         create table c (i int, k text references p on update no action deferrable initially deferred);
         create table u (i int, v text, unique (i) deferrable initially deferred);
         insert into u select g, repeat('v', 100) from generate_series(1, {n}) g;
         create table k (i int primary key, v text);
         insert into k select g, 'v' from generate_series(1, {n}) g;
         create function see() returns trigger language plpgsql as 'begin return null; end';
         create table w (i int, v text);
         create constraint trigger later after insert on w deferrable initially deferred for each row when (new.i >= 0) execute function see()"
    ));
    // What is kept beside shared buffers and WAL.
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", node.server_pids()[0])).expect("the server's status");
        let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).expect("its own memory");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    // Each transaction looks at nothing before it is rolled back: that would take long here.
    block_on(async {
        let client = connect(&node).await;
        for sql in [
            format!("insert into c select g, repeat('k', 200) || g % 10 + 1 from generate_series(1, {n}) g"),
            "update u set i = i + 1".to_owned(),
            format!("insert into w select g, repeat('w', 100) from generate_series(1, {n}) g"),
            // It locks each row before it is changed.
            format!("insert into k select g, 'w' from generate_series(1, {n}) g on conflict (i) do update set v = excluded.v"),
        ] {
            text(&client, &format!("begin; {}", sql.replace(&n.to_string(), "100").replace("i + 1", "i + 1 where i < 100"))).await;
            text(&client, "rollback").await;
            let before = memory();
            text(&client, &format!("begin; {sql}")).await;
            let took = memory().saturating_sub(before);
            println!("{took} kB: {sql}");
            // With its key and its constraint each event took 380 bytes.
            assert!(took < 7_000, "{sql} took {took} kB");
            text(&client, "rollback").await;
        }
    });
    // What they say is true all the same, of what is there once they are looked at.
    let failure = |sql: &str| node.sql_error(sql);
    let missing =
        failure("begin; insert into c values (1, 'none'), (2, 'none'), (3, repeat('k', 200) || 3); delete from c where i = 1; commit");
    assert!(missing.contains("Key (k)=(none) is not present in table \"p\"."), "{missing}");
    node.sql("begin; insert into c values (1, 'none'), (2, 'none'); delete from c where i = 1; update c set k = repeat('k', 200) || 3 where i = 2; commit");
    let twice = failure("begin; update u set i = i + 1; update u set i = 7 where i = 8; update u set i = 7 where i = 9; commit");
    assert!(twice.contains("Key (i)=(7) already exists."), "{twice}");
    node.sql("begin; update u set i = i + 1; update u set i = i - 1 where i > 50; update u set i = 51 where i = 51; update u set i = 1 where i = 50; rollback");
    node.sql("begin; update u set i = 101 - i where i <= 100; commit");
    assert_eq!(node.sql("select count(distinct i), sum(i) from u"), format!("{n}|{}", n * (n + 1) / 2));
    let gone = failure("begin; update p set k = 'k' where k like '%k3'; insert into c values (5, 'k'); commit");
    assert!(gone.contains("is still referenced from table \"c\""), "{gone}");
    // SET CONSTRAINTS looks at what waits, and again once that is rolled back.
    let again = failure(
        "begin; insert into c values (1, 'none'); savepoint a; delete from c where k = 'none'; set constraints all immediate; rollback to a; commit",
    );
    assert!(again.contains("Key (k)=(none) is not present"), "{again}");
}

/// Set operations, subqueries and joins give the same from disk, with NULLs and rows that are there several times.
#[test]
fn spilled_sets_subqueries_and_joins_give_what_those_in_memory_give() {
    let node = Node::start_new("spilled_sets", "autovacuum = off");
    node.sql(
        "create table l as select i, case when i % 17 = 0 then null else i * 31 % 1301 end a, case when i % 23 = 0 then null else i % 5 end b,
                repeat('l', i % 30) c from generate_series(1, 4000) i;
         create table r as select i, case when i % 13 = 0 then null else i * 37 % 1001 end a, case when i % 29 = 0 then null else i % 4 end b,
                repeat('l', i % 40) c from generate_series(1, 3000) i;
         create table s as select i, case when i % 2 = 0 then 1 else i end k, repeat('s', 50) || i v from generate_series(1, 2000) i;
         analyze l; analyze r; analyze s",
    );
    let small = "set work_mem = '64kB'; set hash_mem_multiplier = 1; set enable_mergejoin = off; set enable_nestloop = off; ";
    let digest = |sql: &str| format!("select count(*), md5(string_agg(x::text, ',' order by x::text)) from ({sql}) x");
    let mut queries = Vec::new();
    for operation in ["except", "except all", "intersect", "intersect all"] {
        for columns in ["a", "a, b", "a, b, c"] {
            queries.push((
                digest(&format!("select {columns} from l {operation} select {columns} from r")),
                // The same, counted.
                {
                    let all = operation.ends_with("all");
                    let result = match (operation.starts_with("except"), all) {
                        (true, true) => "generate_series(1, greatest(l - r, 0))",
                        (true, false) => "generate_series(1, case when l > 0 and r = 0 then 1 else 0 end)",
                        (false, true) => "generate_series(1, least(l, r))",
                        (false, false) => "generate_series(1, case when l > 0 and r > 0 then 1 else 0 end)",
                    };
                    digest(&format!(
                        "select {columns} from (select {columns}, sum(l)::int l, sum(r)::int r from
                           (select {columns}, 1 l, 0 r from l union all select {columns}, 0, 1 from r) u group by {columns}) g, {result}"
                    ))
                },
            ));
        }
    }
    // Each value of the comparison, by looking at every row.
    for (left, right, condition, truth, possible) in [
        ("l.a", "a", "true", "r.a = l.a", "r.a is null or l.a is null"),
        ("l.a", "a", "a is not null", "r.a = l.a", "l.a is null"),
        ("(l.a, l.b)", "a, b", "true", "r.a = l.a and r.b = l.b", "(r.a = l.a) is not false and (r.b = l.b) is not false"),
    ] {
        let few = "select * from l where i % 40 = 0";
        queries.push((
            digest(&format!("select i, {left} in (select {right} from r where {condition}) q from ({few}) l")),
            digest(&format!(
                "select i, case when exists (select from r where {condition} and {truth}) then true
                               when exists (select from r where {condition} and ({possible})) then null else false end q from ({few}) l"
            )),
        ));
        queries.push((
            digest(&format!("select i from ({few}) l where {left} not in (select {right} from r where {condition} and i > 50)")),
            digest(&format!(
                "select i from ({few}) l where not exists (select from r where {condition} and i > 50 and (({truth}) or ({possible})))"
            )),
        ));
    }
    for (sql, same) in &queries {
        let expected = node.sql(same);
        assert_eq!(node.sql(&format!("{small}{sql}")), expected, "{sql}");
        assert_eq!(node.sql(sql), expected, "in memory: {sql}");
    }
    // Rows of few and of many kinds, by which of their columns are NULL, looked for by rows of as many.
    let columns: Vec<String> =
        (1..=7).map(|n| format!("case when hashint4(i * 8 + {n}) % 3 = 0 then null else i / 2 % {} end c{n}", n + 2)).collect();
    node.sql(&format!("create table n as select i, {} from generate_series(1, 1200) i; analyze n", columns.join(", ")));
    for width in [2, 3, 4, 7] {
        let of = |row: &str| (1..=width).map(|n| format!("{row}.c{n}")).collect::<Vec<_>>().join(", ");
        let same = |test: &str| (1..=width).map(|n| format!("(m.c{n} = l.c{n}) {test}")).collect::<Vec<_>>().join(" and ");
        let (left, right) = ("select * from n where i % 5 = 0", "select * from n where i % 5 in (1, 2) and i % 7 < 5");
        let sql = digest(&format!("select i, ({}) in (select {} from ({right}) m) q from ({left}) l", of("l"), of("m")));
        let expected = node.sql(&digest(&format!(
            "select i, case when exists (select from ({right}) m where {}) then true when exists (select from ({right}) m where {}) then null
                       else false end q from ({left}) l",
            same("is true"),
            same("is not false")
        )));
        assert_eq!(node.sql(&format!("{small}{sql}")), expected, "{sql}");
        assert_eq!(node.sql(&sql), expected, "in memory: {sql}");
    }
    // What has so many rows is looked up, not gone through: that would take hours.
    let n = 20_000;
    node.sql(&format!(
        "create table b as select i, case when i % 10 = 0 then null else i end a, case when i % 10 = 5 then null else i end b
           from generate_series(1, {n}) i; analyze b"
    ));
    for settings in ["", small] {
        for (sql, expected) in [
            // Only rows with a NULL may be others, and each such row may be.
            (
                format!(
                    "select count(*), count(q), count(*) filter (where q) from (select (a, b) in (select a, b + {n} from b) q from b) x"
                ),
                format!("{n}|{}|0", n - n / 5),
            ),
            // A row with a NULL first may be another if that is there with the same second value.
            (
                format!(
                    "select count(*), count(q), count(*) filter (where q) from
                       (select (a, b) in (select a + {n}, b from b where i % 3 > 0 and i % 10 <> 5) q from b) x"
                ),
                format!("{n}|{}|0", n - n / 10 - (1..=n / 10).filter(|k| k % 3 > 0).count()),
            ),
            (
                "select count(*), sum(i) from b where i = any (array(select i * 2 from b))".to_owned(),
                format!("{}|{}", n / 2, n / 2 * (n / 2 + 1)),
            ),
            (
                "select count(*), sum(i) from b where i <> all (array(select i * 2 from b))".to_owned(),
                format!("{}|{}", n / 2, n / 2 * (n / 2)),
            ),
        ] {
            assert_eq!(node.sql(&format!("{settings}{sql}")), expected, "{settings}{sql}");
        }
    }
    // Of an array that is another one each time, each is the one that counts.
    let sql =
        "select sum(i), count(*) from b where i <= 100 and i = any (case when i % 3 = 0 then array(select generate_series(1, 50)) else
                 array(select generate_series(51, 90)) end)";
    assert_eq!(node.sql(sql), format!("{}|{}", (1..=90).filter(|i| (i % 3 == 0) == (*i <= 50)).sum::<i32>(), 16 + 26), "{sql}");
    // A long list of constants is looked up, not gone through.
    for (column, constant) in [("a", ""), ("c || a", "::text")] {
        for null in ["", ", null"] {
            let list = |f: fn(u32) -> String| (1..=200).map(f).collect::<Vec<_>>().join(", ");
            let list = if constant.is_empty() { list(|n| (n * 3).to_string()) } else { list(|n| format!("'llllllllll{n}'")) };
            let sql = |of: &str| digest(&format!("select i, {column} in ({of}) y, {column} not in ({of}) n from l"));
            let rows = format!("select * from (values ({})) v", format!("{list}{null}").replace(", ", "), ("));
            assert_eq!(node.sql(&sql(&format!("{list}{null}"))), node.sql(&sql(&rows)), "{column}{null}");
        }
    }
    // Half of a side has one key.
    for (join, condition) in
        [("join", "(a.i + b.i) % 3 < 2"), ("left join", "(a.i + b.i) % 3 < 2"), ("right join", "a.i < b.i"), ("full join", "true")]
    {
        let sql = format!(
            "select count(*), sum(a.i), sum(b.i), count(a.i), count(b.i), sum(length(a.v)), sum(length(b.v))
             from (select * from s where i % 7 < 3 or i > 1950) a {join} (select * from s where i % 7 > 1) b on a.k = b.k and {condition}"
        );
        let wide = node.sql(&format!("set enable_hashjoin = off; set work_mem = '64MB'; {sql}"));
        assert_eq!(node.sql(&format!("{small}{sql}")), wide, "{sql}");
    }
}
