//! One transaction from the inside: very many savepoints, its characteristics, timeouts, what `pg_locks` shows of it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio_postgres::Client;

use crate::client::{block_on, connect, error, text};
use crate::support::node::Node;
use crate::support::number;

/// Runs statements, a thousand in each query.
async fn run_many(c: &Client, statements: impl Iterator<Item = String>) {
    let (mut query, mut n) = (String::new(), 0);
    for statement in statements {
        write!(query, "{statement};").expect("a string");
        n += 1;
        if n % 1000 == 0 {
            c.batch_execute(&query).await.expect("savepoints");
            query.clear();
        }
    }
    c.batch_execute(&query).await.expect("savepoints");
}

/// One transaction with `n` savepoints of a kind; it leaves one row for each in `t` unless it says otherwise.
async fn savepoints(c: &Client, kind: &str, n: u64) -> u64 {
    let block = |body: &str| {
        format!("do $$ begin for i in 1..{n} loop begin {body} exception when division_by_zero then null; end; end loop; end $$")
    };
    match kind {
        "exception blocks" => text(c, &block("insert into t values (i);")).await,
        "exception blocks that lock a row each" => {
            text(c, &block("perform from keys where id = i for key share; insert into t values (i);")).await
        }
        "exception blocks that fail" => text(c, &block("insert into t values (i); perform 1 / 0;")).await,
        "SAVEPOINT and RELEASE" => {
            text(c, "begin").await;
            run_many(c, (1..=n).map(|i| format!("savepoint s; insert into t values ({i}); release s"))).await;
            text(c, "commit").await
        }
        "nested" => {
            text(c, "begin").await;
            run_many(c, (1..=n).map(|i| format!("savepoint s{i}; insert into t values ({i})"))).await;
            text(c, "release s1; commit").await
        }
        "nested, released one by one" => {
            text(c, "begin").await;
            run_many(c, (1..=n).map(|i| format!("savepoint s{i}; insert into t values ({i})"))).await;
            run_many(c, (1..=n).rev().map(|i| format!("release s{i}"))).await;
            text(c, "commit").await
        }
        "nested, rolled back" => {
            text(c, "begin").await;
            run_many(c, (1..=n).map(|i| format!("savepoint s{i}; insert into t values ({i})"))).await;
            text(c, "rollback to s1; commit").await
        }
        other => panic!("{other}"),
    };
    if kind.ends_with("fail") || kind.ends_with("rolled back") { 0 } else { n }
}

/// `AFTERIMAGE_SAVEPOINTS=1000000` makes it long; the times are printed.
#[test]
fn very_many_savepoints_in_one_transaction() {
    let n = number("AFTERIMAGE_SAVEPOINTS", 100_000);
    // Statements that clients send one by one take longer.
    let sent = if n > 100_000 { n } else { n / 10 };
    let node = Node::start_new("savepoints", "");
    let standby = node.standby("savepoints_standby");
    block_on(async {
        let c = connect(&node).await;
        text(
            &c,
            &format!("create table t (i int); create table keys (id int primary key); insert into keys select generate_series(1, {n})"),
        )
        .await;
        node.wait_for_catchup(&standby);
        let kinds = [
            ("exception blocks", n),
            ("exception blocks that lock a row each", sent),
            ("exception blocks that fail", n),
            ("SAVEPOINT and RELEASE", sent),
            ("nested", sent),
            ("nested, released one by one", sent),
            ("nested, rolled back", sent),
        ];
        for (kind, n) in kinds {
            text(&c, "truncate t").await;
            node.wait_for_catchup(&standby);
            // Whoever looks meanwhile sees none of them, or all.
            let over = Arc::new(AtomicBool::new(false));
            let readers: Vec<_> = [&node, &standby]
                .into_iter()
                .map(|on| {
                    let (conninfo, over) = (on.conninfo("e2e"), Arc::clone(&over));
                    tokio::spawn(async move {
                        let r = crate::client::try_connect(&conninfo).await.expect("a connection");
                        let mut seen = std::collections::BTreeSet::new();
                        while !over.load(Ordering::Relaxed) {
                            seen.insert(text(&r, "select count(*) from t").await);
                        }
                        seen
                    })
                })
                .collect();
            let began = Instant::now();
            let rows = savepoints(&c, kind, n).await;
            println!("{n} savepoints, {kind}: {:.2} s", began.elapsed().as_secs_f64());
            node.wait_for_catchup(&standby);
            over.store(true, Ordering::Relaxed);
            for reader in readers {
                let seen = reader.await.expect("joined");
                assert!(seen.iter().all(|s| *s == "0" || *s == rows.to_string()), "{kind}: {seen:?}");
            }
            for on in [&node, &standby] {
                assert_eq!(text(&connect(on).await, "select count(*), count(distinct i) from t").await, format!("{rows}|{rows}"), "{kind}");
            }
        }
    });
}

#[test]
fn timeouts_hold_for_each_statement_from_when_they_are_set() {
    let node = Node::start_new("timeouts", "");
    block_on(async {
        let (a, b) = (connect(&node).await, connect(&node).await);
        text(&a, "create table t (id int primary key); insert into t values (1), (2)").await;
        // Within one query.
        assert_eq!(
            error(&b, "set statement_timeout = '30ms'; select pg_sleep(60)").await,
            "57014 canceling statement due to statement timeout"
        );
        // Each statement of a query has its own time: half of it each, ten times.
        text(&b, "set statement_timeout = '2s'").await;
        text(&b, &"select pg_sleep(0.4);".repeat(10)).await;
        text(&b, "reset statement_timeout").await;
        // While a statement is only parsed.
        text(&a, "begin; lock table t").await;
        text(&b, "set statement_timeout = '30ms'").await;
        let e = b.prepare("select * from t").await.expect_err("it waits too long");
        assert_eq!(crate::client::describe(&e), "57014 canceling statement due to statement timeout");
        text(&b, "reset statement_timeout; set lock_timeout = '30ms'").await;
        for _ in 0..3 {
            // However well known the statement is.
            assert_eq!(error(&b, "select * from t where id = 1").await, "55P03 canceling statement due to lock timeout");
        }
        text(&b, "reset lock_timeout").await;
        // Inside a function, by its own setting.
        assert_eq!(
            error(&b, "do $$ begin perform set_config('lock_timeout', '30ms', true); lock table t; end $$").await,
            "55P03 canceling statement due to lock timeout"
        );
        assert_eq!(
            error(&b, "do $$ begin set local lock_timeout = '30ms'; perform * from t; end $$").await,
            "55P03 canceling statement due to lock timeout"
        );
        // And caught.
        let caught = "do $$ begin set lock_timeout = '30ms'; perform * from t; exception when lock_not_available then null; end $$";
        text(&b, caught).await;
        assert_eq!(text(&b, "show lock_timeout").await, "0");
        text(&a, "commit").await;
        text(&b, "select * from t").await;
    });
}

/// Waits until the session is no more, and gives what its last statement was told.
async fn ended(c: &Client) -> String {
    loop {
        if let Err(e) = c.simple_query("select 1").await {
            return crate::client::describe(&e);
        }
    }
}

#[test]
fn idle_sessions_end_when_their_time_is_up() {
    let node = Node::start_new("idle", "");
    block_on(async {
        let watch = connect(&node).await;
        let gone = |pid: String| {
            let watch = &watch;
            async move { while text(watch, &format!("select count(*) from pg_stat_activity where pid = {pid}")).await != "0" {} }
        };
        for (sql, line) in [
            ("set idle_session_timeout = '30ms'", "57P05: terminating connection due to idle-session timeout"),
            ("set idle_in_transaction_session_timeout = '30ms'; begin", "25P03: terminating connection due to idle-in-transaction timeout"),
        ] {
            let c = connect(&node).await;
            let pid = text(&c, "select pg_backend_pid()").await;
            text(&c, sql).await;
            gone(pid).await;
            let state = line.split(':').next().expect("a state");
            let said = ended(&c).await;
            assert!(c.is_closed() || said.starts_with(state), "{said}");
        }
        // In a block that failed too; the other timeout does not hold there.
        let c = connect(&node).await;
        let pid = text(&c, "select pg_backend_pid()").await;
        text(&c, "set idle_in_transaction_session_timeout = '300ms'; set idle_session_timeout = '20ms'; begin").await;
        error(&c, "select 1 / 0").await;
        gone(pid).await;
        let log = node.log();
        assert_eq!(log.matches("terminating connection due to idle-session timeout").count(), 1, "{log}");
        assert_eq!(log.matches("terminating connection due to idle-in-transaction timeout").count(), 2, "{log}");
    });
}

#[test]
fn pg_locks_tells_of_transactions() {
    let node = Node::start_new("pg_locks", "max_prepared_transactions = 2");
    block_on(async {
        let (a, b, watch) = (connect(&node).await, connect(&node).await, connect(&node).await);
        text(&a, "create table t (id int primary key); insert into t values (1)").await;
        let pid = text(&a, "select pg_backend_pid()").await;
        let b_pid = text(&b, "select pg_backend_pid()").await;
        let held = |columns: &str, pid: &str| {
            format!("select {columns} from pg_locks where pid = {pid} order by locktype, relation::regclass::text, mode")
        };
        assert_eq!(text(&watch, &held("*", &pid)).await, "", "no transaction runs");
        text(&a, "begin").await;
        assert_eq!(text(&watch, &held("locktype, mode, granted", &pid)).await, "virtualxid|ExclusiveLock|t");
        assert_eq!(
            text(&watch, &held("virtualxid = virtualtransaction, virtualxid ~ '^[0-9]+/[1-9][0-9]*$', waitstart is null", &pid)).await,
            "t|t|t"
        );
        text(&a, "select * from t; update t set id = 2").await;
        assert_eq!(
            text(&watch, &held("locktype, relation::regclass, mode, granted", &pid)).await,
            "relation|t|AccessShareLock|t\nrelation|t|RowExclusiveLock|t\ntransactionid||ExclusiveLock|t\nvirtualxid||ExclusiveLock|t"
        );
        assert_eq!(text(&watch, &format!("select count(distinct virtualtransaction) from pg_locks where pid = {pid}")).await, "1");
        // Another waits for it.
        let waiting = tokio::spawn(async move {
            text(&b, "update t set id = 3").await;
            b
        });
        while text(&watch, "select count(*) from pg_locks where not granted").await != "1" {}
        assert_eq!(
            text(
                &watch,
                "select locktype, mode, pid, waitstart between now() - interval '1 minute' and now() from pg_locks where not granted"
            )
            .await,
            format!("transactionid|ShareLock|{b_pid}|t")
        );
        assert_eq!(text(&watch, "select count(*) from pg_locks where locktype = 'tuple'").await, "1", "its place in the row's queue");
        // A prepared transaction has no session, and its xid for a number.
        text(&a, "prepare transaction 'p'").await;
        let prepared = "select locktype, relation::regclass, mode, virtualtransaction = '-1/' || (select transaction from pg_prepared_xacts) \
                        from pg_locks where pid is null order by locktype, relation::regclass::text, mode";
        assert_eq!(
            text(&watch, prepared).await,
            "relation|t|AccessShareLock|t\nrelation|t|RowExclusiveLock|t\ntransactionid||ExclusiveLock|t"
        );
        text(&a, "commit prepared 'p'").await;
        let b = waiting.await.expect("joined");
        assert_eq!(text(&watch, "select count(*) from pg_locks where pid <> pg_backend_pid()").await, "0");
        drop(b);
    });
}

#[test]
fn pg_stat_activity_shows_what_snapshots_hold_back_and_the_servers_own_work() {
    let node = Node::start_new("activity", "");
    let standby = node.standby("activity_standby");
    let own = "select string_agg(backend_type || ' ' || wait_event_type || ' ' || wait_event, ', ' order by backend_type) \
               from pg_stat_activity where backend_type not in ('client backend', 'walsender', 'autovacuum worker')";
    let common = "background writer Activity BgWriterHibernate, checkpointer Activity CheckpointerMain";
    assert_eq!(node.sql(own), format!("autovacuum launcher Activity AutoVacuumMain, {common}, walwriter Activity WalWriterMain"));
    standby.wait_for(own, &format!("{common}, startup Activity RecoveryWalStream, walreceiver Activity WalReceiverMain"));
    block_on(async {
        let (writer, reader, other) = (connect(&node).await, connect(&node).await, connect(&node).await);
        text(&other, "create table t (i int)").await;
        let pid = |text: String| text.parse::<i64>().expect("a pid");
        let (w, r) = (pid(text(&writer, "select pg_backend_pid()").await), pid(text(&reader, "select pg_backend_pid()").await));
        let xmin = |pid: i64| format!("select backend_xmin::text::bigint from pg_stat_activity where pid = {pid}");
        text(&writer, "begin; insert into t values (1)").await;
        let xid = text(&writer, "select txid_current()").await;
        text(&reader, "begin isolation level repeatable read; select count(*) from t").await;
        assert_eq!(text(&other, &xmin(r)).await, xid);
        assert_eq!(text(&other, &format!("select backend_xid::text from pg_stat_activity where pid = {w}")).await, xid);
        // As old as it was, however much commits since.
        text(&writer, "commit").await;
        text(&other, "insert into t values (2)").await;
        assert_eq!(text(&other, &xmin(r)).await, xid);
        assert_eq!(text(&other, &format!("select backend_xmin is null from pg_stat_activity where pid = {w}")).await, "t");
        let newer = "select backend_xmin::text::bigint > $1::bigint from pg_stat_activity where pid = pg_backend_pid()";
        assert_eq!(text(&other, &newer.replace("$1", &xid)).await, "t");
        text(&reader, "commit").await;
        assert_eq!(text(&other, &format!("select backend_xmin is null from pg_stat_activity where pid = {r}")).await, "t");
    });
}

/// A statement that locks rows to change them gives the locks up once they are changed; the change keeps others away. What was locked before, or is
/// not changed after all, stays locked.
#[test]
fn rows_that_were_changed_are_kept_from_others_and_locks_of_before_stay() {
    let node = Node::start_new("passing_locks", "");
    node.sql(
        "create table t (id int primary key, v text, w text);
         alter table t alter w set storage external;
         create table s (like t including all);
         create function see() returns trigger language plpgsql as 'begin if old.id = 13 then return null; end if; return coalesce(new, old); end';
         create trigger see before update or delete on s for each row execute function see();
         insert into t select g, 'v', repeat('w', 3000) from generate_series(1, 100) g;
         insert into s select * from t",
    );
    block_on(async {
        let (a, b) = (connect(&node).await, connect(&node).await);
        for (sql, table) in [
            ("insert into t select id, 'c' from t on conflict (id) do update set v = excluded.v", "t"),
            ("insert into t select id, 'c' from t on conflict (id) do update set v = excluded.v where t.id > 50", "t"),
            ("update t set w = w || 'u'", "t"),
            ("update s set v = 'u', w = w || 'u'", "s"),
            ("delete from s", "s"),
            ("merge into s using t on s.id = t.id when matched then update set v = 'm'", "s"),
        ] {
            text(&a, &format!("begin; {sql}")).await;
            for id in [13, 99] {
                let other = error(&b, &format!("select from {table} where id = {id} for share nowait")).await;
                assert_eq!(other, format!("55P03 could not obtain lock on row in relation \"{table}\""), "{sql}: {id}");
            }
            text(&a, "rollback").await;
            text(&b, &format!("begin; select from {table} for update nowait; rollback")).await;
        }
        for change in [
            "insert into t values (5, 'c'), (6, 'c') on conflict (id) do update set v = excluded.v",
            "update t set w = w || 'u' where id < 7",
        ] {
            text(&a, "begin; select from t where id = 5 for no key update; savepoint s").await;
            text(&a, &format!("{change}; rollback to s")).await;
            let other = error(&b, "select from t where id = 5 for share nowait").await;
            assert_eq!(other, "55P03 could not obtain lock on row in relation \"t\"", "{change}");
            text(&b, "begin; select from t where id = 6 for update nowait; commit").await;
            text(&a, "commit").await;
        }
    });
}
