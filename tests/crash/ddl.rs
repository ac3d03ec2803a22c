//! SIGKILL in the middle of statements that make, rewrite and drop relations and databases: each happened whole or not at all, on a primary
//! that comes back, on its standby, on a standby that was itself killed while it replayed, and on one that is promoted.
//!
//! `AFTERIMAGE_DDL_ROUNDS` (3) and `AFTERIMAGE_SEED` choose the run.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng, SeedableRng};

use crate::support::node::{Node, holds_within, run};
use crate::support::number;

/// A statement, and how to tell whether it happened. Both answers are written down here; nothing that a statement did is asked what is right.
struct Case {
    prepare: &'static [&'static str],
    statement: &'static str,
    sees: &'static str,
    before: &'static str,
    after: &'static str,
}

/// The rows of `t`, whatever is done to its files.
const ROWS: &str = "select count(*), sum(id), sum(length(v)), count(*) filter (where a = id % 10 + 1) from t";
const ALL_ROWS: &str = "3000|4501500|120000|1000";
const INDEXES: &str = "select count(*) from pg_index where indrelid = 't'::regclass and indisvalid";

const CASES: &[Case] = &[
    same("vacuum full t"),
    same("cluster t using t_a"),
    same("vacuum (freeze) t"),
    same("reindex table t"),
    same("reindex table concurrently t"),
    same("alter table t set tablespace elsewhere"),
    Case { prepare: &[], statement: "create index made on t (v, id)", sees: INDEXES, before: "2", after: "3" },
    Case { prepare: &[], statement: "create unique index concurrently made on t (id, v)", sees: INDEXES, before: "2", after: "3" },
    Case { prepare: &[], statement: "drop index concurrently t_a", sees: INDEXES, before: "2", after: "1" },
    Case {
        prepare: &[],
        statement: "alter table t alter a type bigint",
        sees: "select count(*), pg_typeof(min(a)) from t",
        before: "3000|integer",
        after: "3000|bigint",
    },
    Case {
        prepare: &[],
        statement: "alter table t add more float8 default random() + 1",
        sees: "select count(*), (select count(*) from pg_attribute where attrelid = 't'::regclass and attname = 'more') from t",
        before: "3000|0",
        after: "3000|1",
    },
    Case {
        prepare: &["drop table t", "create unlogged table t as select id, repeat('v', 40) v, 1 a from generate_series(1, 3000) id"],
        statement: "alter table t set logged",
        sees: "select relpersistence, (select count(*) from t) from pg_class where relname = 't'",
        before: "u|0",
        after: "p|3000",
    },
    Case {
        prepare: &[],
        statement: "truncate t, other",
        sees: "select (select count(*) from t), (select count(*) from other)",
        before: "3000|500",
        after: "0|0",
    },
    Case {
        prepare: &[],
        statement: "begin; truncate t; insert into t select g, 1, 'new' from generate_series(1, 2000) g; create index made on t (v); commit",
        sees: "select count(*), max(length(v)) from t",
        before: "3000|40",
        after: "2000|3",
    },
    Case {
        prepare: &[],
        statement: "begin; create table made as select * from t; create unique index on made (id); drop table other; commit",
        sees: "select to_regclass('made'), to_regclass('other')",
        before: "|other",
        after: "made|",
    },
    Case {
        prepare: &[
            "create materialized view made as select id, v from t",
            "create unique index on made (id)",
            "delete from t where id > 1000",
        ],
        statement: "refresh materialized view made",
        sees: "select count(*) from made",
        before: "3000",
        after: "1000",
    },
    Case {
        prepare: &[
            "create table made (id int primary key, big text)",
            "alter table made alter big set storage external",
            "insert into made select g, repeat('b', 20000) from generate_series(1, 60) g",
        ],
        statement: "update made set big = big || 'more'",
        sees: "select count(*), sum(length(big)) from made",
        before: "60|1200000",
        after: "60|1200240",
    },
    Case {
        prepare: &[],
        statement: "create database made",
        sees: "select count(*) from pg_database where datname = 'made'",
        before: "0",
        after: "1",
    },
    Case {
        prepare: &["create database made"],
        statement: "drop database made",
        sees: "select count(*) from pg_database where datname = 'made'",
        before: "1",
        after: "0",
    },
    Case {
        prepare: &[],
        statement: "begin; alter table t alter a type text; create index made on t (v); drop table other; prepare transaction 'ddl'",
        sees: "select count(*) from pg_prepared_xacts",
        before: "0",
        after: "1",
    },
    Case {
        prepare: &["begin; truncate t; create table made as select generate_series(1, 2000) n; prepare transaction 'ddl'"],
        statement: "commit prepared 'ddl'",
        sees: "select count(*), to_regclass('made') is not null from pg_prepared_xacts",
        before: "1|f",
        after: "0|t",
    },
    Case {
        prepare: &["begin; truncate t; create table made as select generate_series(1, 2000) n; prepare transaction 'ddl'"],
        statement: "rollback prepared 'ddl'",
        sees: "select count(*), (select count(*) from pg_class where relname = 'made') from pg_prepared_xacts",
        before: "1|0",
        after: "0|0",
    },
];

/// A statement after which a table has the rows it had.
const fn same(statement: &'static str) -> Case {
    Case { prepare: &[], statement, sees: ROWS, before: ALL_ROWS, after: ALL_ROWS }
}

/// Who is killed in the middle of it.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Primary,
    Standby,
    /// The primary, for good.
    Failover,
}

impl Case {
    /// Makes everything as it is before the statement, whatever the last one left.
    fn set_up(&self, node: &Node) {
        for gid in node.sql("select gid from pg_prepared_xacts").lines() {
            node.sql(&format!("rollback prepared '{gid}'"));
        }
        let mut statements = vec!["drop table if exists t, other cascade", "drop database if exists made"];
        // What is left of it: an index went with its table.
        if node.sql("select count(*) from pg_class where relname = 'made' and relkind = 'r'") == "1" {
            statements.push("drop table made");
        }
        statements.extend([
            "create table t (id int primary key, a int, v text)",
            "insert into t select g, g % 10, repeat('v', 40) from generate_series(1, 3000) g",
            "create index t_a on t (a)",
            "update t set a = a + 1 where id % 3 = 0",
            "create table other as select generate_series(1, 500) n",
        ]);
        statements.extend(self.prepare);
        let mut psql = node.psql("set client_min_messages = warning");
        for statement in statements {
            psql.args(["-c", statement]);
        }
        run(&mut psql);
    }

    fn begin(&self, node: &Node) -> Child {
        node.psql(self.statement).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("psql")
    }
}

/// Tables and indexes are whole and agree, catalogs included; what is left of a concurrent build can be dropped; the next DDL works.
fn sound(node: &Node, writes: bool) {
    if writes {
        for index in
            node.sql("select indexrelid::regclass from pg_index where not indisvalid and indexrelid::regclass::text !~ '^pg_toast'").lines()
        {
            node.sql(&format!("drop index {index}"));
        }
        node.sql("create table next (id int primary key); insert into next values (1); drop table next");
    }
    let ours =
        "c.relpersistence = 'p' and c.relnamespace in (2200, 99) or c.relname in ('pg_class', 'pg_attribute', 'pg_index', 'pg_depend')";
    // A prepared transaction's tables are its own until it ends.
    let free = "not exists (select from pg_locks l where l.relation = c.oid and l.mode = 'AccessExclusiveLock')";
    for (check, rest, of) in [
        ("select * from verify_heapam(", ")", "select oid from pg_class c where relkind in ('r', 'm', 't')"),
        ("select bt_index_check(", ", true)", "select indexrelid from pg_index i join pg_class c on c.oid = i.indrelid where i.indisvalid"),
    ] {
        let all = node.sql(&format!("{of} and ({ours}) and {free}"));
        let checks: Vec<String> = all.lines().map(|oid| format!("{check}{oid}{rest}")).collect();
        assert_eq!(node.sql(&checks.join("; ")), "", "{}", node.name);
    }
    // An index without its relation, columns of nothing, a TOAST table of nothing.
    let astray = node.sql(
        "select 'index', indexrelid from pg_index where indexrelid not in (select oid from pg_class) union all \
         select 'column', attrelid from pg_attribute where attrelid not in (select oid from pg_class) union all \
         select 'toast', oid from pg_class t where relkind = 't' and not exists (select from pg_class where reltoastrelid = t.oid)",
    );
    assert_eq!(astray, "", "{}", node.name);
}

fn same_pages(primary: &Node, standby: &Node) {
    let conninfo = |node: &Node| format!("{} dbname=postgres", node.conninfo("compare"));
    let mut tool = primary.tool("compare");
    let output = tool.arg("-q").arg("--primary").arg(conninfo(primary)).arg("--standby").arg(conninfo(standby)).output().expect("compare");
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn killed_in_the_middle_of_ddl_it_happened_whole_or_not_at_all() {
    let mut rng = StdRng::seed_from_u64(super::seed());
    let conf = "shared_buffers = 2MB\nmax_wal_size = 32MB\nautovacuum = off\nmaintenance_work_mem = 1MB\nmax_prepared_transactions = 5\n\
                allow_in_place_tablespaces = on\nwal_keep_size = 512MB\nrestart_after_crash = off";
    let mut node = Node::start_new("ddl", conf);
    node.sql("create tablespace elsewhere location ''");
    let mut standby = node.standby("ddl_standby");
    let rounds = number("AFTERIMAGE_DDL_ROUNDS", 3);
    let mut order: Vec<usize> = (0..CASES.len()).collect();
    let (mut done, mut undone) = (0, 0);
    for round in 0..rounds {
        let turn = usize::try_from(round).expect("few rounds") % CASES.len();
        if turn == 0 {
            order.shuffle(&mut rng);
        }
        let case = &CASES[order[turn]];
        let victim = match rng.random_range(0..6) {
            0 | 1 => Victim::Standby,
            2 => Victim::Failover,
            _ => Victim::Primary,
        };
        // Which is of the order of what the statement itself will take, whatever the machine.
        let began = Instant::now();
        case.set_up(&node);
        let takes = began.elapsed() / 2;
        node.wait_for_catchup(&standby);

        let mut psql = case.begin(&node);
        let checkpoint = rng.random_bool(0.3).then(|| node.psql("checkpoint").stderr(Stdio::null()).spawn().expect("psql"));
        let moment = takes.mul_f64(rng.random_range(0.0..1.0));
        holds_within(moment.max(Duration::from_micros(1)), || false);
        match victim {
            Victim::Primary | Victim::Failover => node.kill(),
            Victim::Standby => standby.kill(),
        }
        let acknowledged = psql.wait().expect("psql").success();
        if let Some(mut other) = checkpoint {
            drop(other.wait());
        }
        match victim {
            Victim::Primary => node.start(),
            Victim::Standby => {
                assert!(acknowledged, "{} failed on a primary whose standby was killed", case.statement);
                standby.start();
            }
            Victim::Failover => {
                standby.promote();
                node = standby;
                standby = node.standby("ddl_standby");
            }
        }
        let now = node.sql(case.sees);
        println!("round {round}: {} after {moment:?}, {victim:?}: acknowledged {acknowledged}, then {now}", case.statement);
        assert!(now == case.before || now == case.after, "{}: {now}, neither {} nor {}", case.statement, case.before, case.after);
        // A standby is not waited for: what was acknowledged may not have come there.
        if acknowledged && !matches!(victim, Victim::Failover) {
            assert_eq!(now, case.after, "{} was acknowledged", case.statement);
        }
        if now == case.after {
            done += 1;
        } else {
            undone += 1;
        }
        sound(&node, true);
        node.wait_for_catchup(&standby);
        // What is not logged cannot be asked there.
        if !now.starts_with("u|") {
            assert_eq!(standby.sql(case.sees), now, "{} on the standby", case.statement);
        }
        sound(&standby, false);
        same_pages(&node, &standby);
        // Whatever a prepared transaction holds can be had.
        if now == case.after && case.statement.ends_with("prepare transaction 'ddl'") {
            node.sql("commit prepared 'ddl'");
            assert_eq!(node.sql("select count(*), pg_typeof(min(a)) from t"), "3000|text");
            sound(&node, true);
        }
    }
    node.stop("fast");
    standby.stop("fast");
    for stopped in [&node, &standby] {
        let output = stopped.tool("verify").arg("-q").arg("-D").arg(stopped.data()).output().expect("verify");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    println!("{rounds} statements killed: {done} happened, {undone} did not");
}
