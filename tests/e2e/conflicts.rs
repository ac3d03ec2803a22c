//! Replay of a standby against its sessions: each kind of conflict, who is cancelled and told what, what is counted, and what is left.

use std::time::Duration;

use tokio_postgres::Client;

use crate::client::{block_on, connect, describe, error, text, try_connect};
use crate::support::node::{Node, until};

/// A primary and a standby that cancels soon and logs its waits.
fn pair(conf: &str) -> (Node, Node) {
    let a = Node::start_new("a", &format!("autovacuum = off\nallow_in_place_tablespaces = on\nmax_prepared_transactions = 5\n{conf}"));
    let b = a.clone_to("b");
    b.conf("max_standby_streaming_delay = 100ms\nlog_recovery_conflict_waits = on\ndeadlock_timeout = 10ms");
    (a, b)
}

/// The session was ended, by an error with this code if it was still told.
async fn assert_ended(session: &Client, code: &str) {
    let error = session.simple_query("select 1").await.expect_err("the session is over");
    let said = describe(&error);
    assert!(session.is_closed() || said.contains(&format!("{code} terminating connection due to conflict with recovery")), "{said}");
}

fn count(node: &Node, kind: &str) -> String {
    node.sql(&format!("select confl_{kind} from pg_stat_database_conflicts where datname = 'postgres'"))
}

#[test]
fn ddl_waits_for_lock_table_on_a_standby_and_for_no_reader() {
    let (a, b) = pair("");
    a.sql("create table t (id int); insert into t select generate_series(1, 100); create table u as table t; create table v as table t");
    b.start();
    a.wait_for_catchup(&b);
    block_on(async {
        let (reader, locker) = (connect(&b).await, connect(&b).await);
        assert_eq!(text(&reader, "begin; select count(*) from t").await, "100");
        text(&locker, "begin; lock table u in access share mode").await;
        a.sql("drop table t");
        a.wait_for_catchup(&b);
        assert_eq!(text(&reader, "select count(*) from u; commit").await, "100");
        assert_eq!(count(&b, "lock"), "0");

        a.sql("drop table u");
        a.wait_for_catchup(&b);
        assert_ended(&locker, "40001").await;
        for line in [
            "User was holding a relation lock for too long.",
            "recovery still waiting after ",
            "Conflicting process: ",
            "recovery finished waiting after ",
            " ms: recovery conflict on lock",
        ] {
            until(line, || b.log().contains(line));
        }
        assert_eq!(count(&b, "lock"), "1");

        // While a transaction of the primary has the table, who locks it here waits; who reads it does not.
        let ddl = connect(&a).await;
        text(&ddl, "begin; alter table v add column more int").await;
        a.sql("create table w (id int)");
        a.wait_for_catchup(&b);
        let locker = connect(&b).await;
        let refused = error(&locker, "begin; set lock_timeout = '50ms'; lock table v in access share mode").await;
        assert!(refused.starts_with("55P03"), "{refused}");
        assert_eq!(text(&locker, "rollback; select count(*) from v").await, "100");
        text(&ddl, "commit").await;
        a.wait_for_catchup(&b);
        text(&locker, "set lock_timeout = 0; begin; lock table v in access share mode; select more from v; commit").await;
    });
    let refused = b.sql_error("begin; lock table v in share mode");
    assert!(refused.contains("25006") && refused.contains("cannot execute LOCK TABLE during recovery"), "{refused}");
    // Counted until a crash.
    b.restart();
    assert_eq!(count(&b, "lock"), "1");
    assert_eq!(b.sql("select conflicts from pg_stat_database where datname = 'postgres'"), "1");
    b.kill();
    b.start();
    assert_eq!(count(&b, "lock"), "0");
}

#[test]
fn a_standby_that_starts_in_the_middle_holds_what_the_primary_has_locked() {
    let a = Node::start_new("a", "autovacuum = off");
    a.sql("create table t (id int); create table u (id int); insert into t values (1)");
    block_on(async {
        let (ddl, other) = (connect(&a).await, connect(&a).await);
        // Locked before the backup's checkpoint, from which the standby starts: by one that goes on, and by one that ends meanwhile.
        text(&ddl, "begin; lock table t").await;
        text(&other, "begin; lock table u").await;
        let b = a.standby("b");
        let relations = "select string_agg(relation::regclass || ' ' || backend_type, ',' order by relation) \
                         from pg_locks join pg_stat_activity using (pid) where mode = 'AccessExclusiveLock' and granted";
        b.wait_for(relations, "t startup,u startup");
        text(&other, "commit").await;
        a.wait_for_catchup(&b);
        b.wait_for(relations, "t startup");
        let refused = b.sql_error("begin; set lock_timeout = '10ms'; lock table t in access share mode");
        assert!(refused.contains("55P03"), "{refused}");
        b.sql("begin; lock table u in access share mode; commit");
        // Over a restartpoint, and a start from it.
        a.sql("checkpoint");
        a.wait_for_catchup(&b);
        b.sql("checkpoint");
        b.kill();
        b.start();
        a.wait_for_catchup(&b);
        assert_eq!(b.sql(relations), "t startup");
        text(&ddl, "alter table t add column more int; commit").await;
        a.wait_for_catchup(&b);
        assert_eq!(b.sql(relations), "");
        b.sql("begin; lock table t in access share mode; select more from t; commit");
    });
}

#[test]
fn a_session_that_replay_waits_for_and_that_waits_for_replay_finds_the_deadlock() {
    let (a, b) = pair("");
    a.sql("create table t (id int); create table u (id int)");
    b.conf("max_standby_streaming_delay = -1");
    b.start();
    a.wait_for_catchup(&b);
    block_on(async {
        let (ddl, one, two) = (connect(&a).await, connect(&b).await, connect(&b).await);
        // The first waits for the second, which waits for the primary's lock of u; replay waits for the first.
        text(&one, "begin; lock table t in access share mode").await;
        text(&two, "begin; select pg_advisory_xact_lock(1)").await;
        text(&ddl, "begin; lock table u").await;
        b.wait_for("select count(*) from pg_locks where relation = 'u'::regclass", "1");
        let second = tokio::spawn(async move { text(&two, "lock table u in access share mode; commit").await });
        b.wait_for("select count(*) from pg_locks where not granted", "1");
        let first = tokio::spawn(async move { (error(&one, "select pg_advisory_xact_lock(1)").await, one) });
        b.wait_for("select count(*) from pg_locks where not granted", "2");
        text(&ddl, "lock table t").await;
        let (said, one) = tokio::time::timeout(Duration::from_secs(60), first).await.expect("in time").expect("the task");
        assert_eq!(said, "40P01 deadlock detected");
        let startup = b.sql("select pid from pg_stat_activity where backend_type = 'startup'");
        let detail = format!("Process {startup} waits for AccessExclusiveLock on relation ");
        until("the detail", || b.log().contains(&detail));
        // Its lock went with the statement that failed.
        text(&ddl, "commit").await;
        a.wait_for_catchup(&b);
        second.await.expect("the task");
        text(&one, "rollback").await;
    });
    assert_eq!((count(&b, "deadlock"), count(&b, "lock")), ("0".to_owned(), "0".to_owned()));
}

#[test]
fn a_database_dropped_on_the_primary_goes_with_its_sessions_and_its_directory() {
    let (a, b) = pair("");
    a.sql("create database d");
    let directory = format!("base/{}", a.sql("select oid from pg_database where datname = 'd'"));
    b.start();
    a.wait_for_catchup(&b);
    assert!(b.data().join(&directory).join("PG_VERSION").is_file());
    block_on(async {
        let there = format!("{} dbname=d", b.conninfo("e2e"));
        let idle = try_connect(&there).await.expect("a connection");
        text(&idle, "begin; select 1").await;
        let busy = try_connect(&there).await.expect("a connection");
        let sleeping = tokio::spawn(async move { error(&busy, "select pg_sleep(600)").await });
        b.wait_for("select count(*) from pg_stat_activity where datname = 'd' and query ~ 'pg_sleep' and state = 'active'", "1");
        a.sql("drop database d");
        a.wait_for_catchup(&b);
        assert_ended(&idle, "57P04").await;
        let said = sleeping.await.expect("the task");
        assert!(said.starts_with("57P04") || said.contains("closed"), "{said}");
        assert!(b.log().contains("User was connected to a database that must be dropped."));
        let Err(refused) = try_connect(&there).await else { panic!("a session in a database that is gone") };
        assert!(describe(&refused).starts_with("3D000"), "{}", describe(&refused));
    });
    for node in [&a, &b] {
        until("the directory to go", || !node.data().join(&directory).exists());
    }

    // Dropped, then both are killed before anybody removed anything for sure; one session would not leave.
    block_on(async {
        a.sql("create database d template postgres");
        let directory = format!("base/{}", a.sql("select oid from pg_database where datname = 'd'"));
        a.wait_for_catchup(&b);
        b.sql("select pg_wal_replay_pause()");
        let stays = try_connect(&format!("{} dbname=d", a.conninfo("e2e"))).await.expect("a connection");
        a.sql("drop database d with (force)");
        let error = stays.simple_query("select 1").await.expect_err("the session is over");
        assert!(stays.is_closed() || describe(&error).starts_with("57P01"), "{}", describe(&error));
        for node in [&a, &b] {
            node.kill();
            node.start();
        }
        a.wait_for_catchup(&b);
        for node in [&a, &b] {
            until("the directory to go", || !node.data().join(&directory).exists());
            assert_eq!(node.sql("select count(*) from pg_database where datname = 'd'"), "0");
        }
    });
}

#[test]
fn a_tablespace_that_temporary_files_may_be_in_is_dropped_over_their_session() {
    let (a, b) = pair("");
    a.sql("create tablespace here location ''");
    let place = format!("pg_tblspc/{}", a.sql("select oid from pg_tablespace where spcname = 'here'"));
    b.start();
    a.wait_for_catchup(&b);
    block_on(async {
        let (user, other) = (connect(&b).await, connect(&b).await);
        text(&other, "begin; select 1").await;
        // Sorting spills: the file is there, in the directory that the tablespace has for such.
        text(&user, "set temp_tablespaces = here; set work_mem = '64kB'; begin").await;
        text(&user, "declare c cursor for select g from generate_series(1, 60000) g order by g desc").await;
        assert_eq!(text(&user, "fetch 1 from c").await, "60000");
        let version = std::fs::read_dir(b.data().join(&place)).expect("the tablespace").next().expect("its directory").expect("an entry");
        assert!(version.path().join("pgsql_tmp").is_dir());
        a.sql("drop tablespace here");
        a.wait_for_catchup(&b);
        assert_ended(&user, "40001").await;
        assert_eq!(text(&other, "select 2").await, "2");
    });
    assert!(b.log().contains("User was or might have been using tablespace that must be dropped."), "{}", b.log());
    assert_eq!(count(&b, "tablespace"), "1");
    assert!(!b.data().join(&place).exists());
    // One that names it still goes on without it.
    assert_eq!(b.sql("set temp_tablespaces = here; set work_mem = '64kB'; select max(g) from (select g from generate_series(1, 60000) g order by g desc offset 0) x"), "60000");
}

#[test]
fn a_cursor_on_a_page_that_vacuum_cleans_ends_and_one_that_waits_for_replay_is_a_deadlock() {
    let (a, b) = pair("");
    a.sql("create table t (id int); insert into t select generate_series(1, 20); create table u (id int)");
    let aborted = "begin; insert into t select generate_series(100, 150); rollback; create table flush_{}()";
    a.sql(&aborted.replace("{}", "1"));
    b.start();
    a.wait_for_catchup(&b);
    block_on(async {
        let cursor = connect(&b).await;
        assert_eq!(text(&cursor, "begin; declare c cursor for select id from t; fetch 1 from c").await, "1");
        a.sql("vacuum t");
        a.wait_for_catchup(&b);
        assert_ended(&cursor, "40001").await;
        assert!(b.log().contains("User was holding shared buffer pin for too long."), "{}", b.log());
        assert_eq!((count(&b, "bufferpin"), count(&b, "snapshot")), ("1".to_owned(), "0".to_owned()));

        // Replay waits for the cursor, whose session waits for a lock that only replay gives up.
        b.conf("max_standby_streaming_delay = -1");
        b.reload();
        a.sql(&aborted.replace("{}", "2"));
        a.sql("begin; lock table u; prepare transaction 'p'");
        a.wait_for_catchup(&b);
        let stuck = connect(&b).await;
        assert_eq!(text(&stuck, "begin; declare c cursor for select id from t; fetch 1 from c").await, "1");
        let waiting = tokio::spawn(async move { (error(&stuck, "select * from u").await, stuck) });
        b.wait_for("select count(*) from pg_locks where not granted", "1");
        a.sql("vacuum t");
        let (said, stuck) = tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("in time").expect("the task");
        assert_eq!(said, "40001 canceling statement due to conflict with recovery");
        a.wait_for_catchup(&b);
        text(&stuck, "rollback; select count(*) from t").await;
        until("the detail", || b.log().contains("User transaction caused buffer deadlock with recovery."));
        assert_eq!(count(&b, "deadlock"), "1");
        a.sql("rollback prepared 'p'");
    });
}

/// What PostgreSQL 15.16 says on a hot standby: the statement, then the end of the message. 25006 unless another code stands before it.
const REFUSED: &str = "
insert into t values (1)                            | INSERT in a read-only transaction
update t set id = 2                                 | UPDATE in a read-only transaction
delete from t                                       | DELETE in a read-only transaction
with w as (delete from t returning id) select from w| SELECT in a read-only transaction
select from t for update                            | SELECT FOR UPDATE in a read-only transaction
select from t for no key update                     | SELECT FOR NO KEY UPDATE in a read-only transaction
select from t for share                             | SELECT FOR SHARE in a read-only transaction
select from t limit 1 for key share                 | SELECT FOR KEY SHARE in a read-only transaction
truncate t                                          | TRUNCATE TABLE in a read-only transaction
create table x (id int)                             | CREATE TABLE in a read-only transaction
create temp table x (id int)                        | CREATE TABLE in a read-only transaction
create table x as select 1                          | CREATE TABLE AS in a read-only transaction
select 1 into x                                     | SELECT INTO in a read-only transaction
create materialized view x as select 1              | CREATE MATERIALIZED VIEW in a read-only transaction
create index on t (id)                              | CREATE INDEX in a read-only transaction
create role x                                       | CREATE ROLE in a read-only transaction
create database x                                   | CREATE DATABASE in a read-only transaction
drop table t                                        | DROP TABLE in a read-only transaction
alter table t add column x int                      | ALTER TABLE in a read-only transaction
grant select on t to public                         | GRANT in a read-only transaction
comment on table t is 'x'                           | COMMENT in a read-only transaction
do $$ begin create table x (id int); end $$         | CREATE TABLE in a read-only transaction
reindex table t                                     | REINDEX during recovery
vacuum t                                            | VACUUM during recovery
analyze t                                           | ANALYZE during recovery
copy t from stdin                                   | COPY during recovery
lock table t                                        | LOCK TABLE during recovery
begin read write                                    | 0A000 cannot set transaction read-write mode during recovery
select nextval('s')                                 | nextval() in a read-only transaction
select setval('s', 5)                               | setval() in a read-only transaction
select pg_current_xact_id()                         | pg_current_xact_id() during recovery
prepare transaction 'x'                             | PREPARE TRANSACTION during recovery
select pg_switch_wal()                              | 55000 recovery is in progress
select * from l                                     | 0A000 cannot access temporary or unlogged relations during recovery
begin isolation level serializable; select 1        | 0A000 cannot use serializable mode in a hot standby
";

#[test]
fn what_a_standby_refuses_it_refuses_in_postgresqls_words() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int); insert into t values (1); create sequence s; create unlogged table l (id int)");
    let b = a.standby("b");
    block_on(async {
        let session = connect(&b).await;
        for line in REFUSED.trim().lines() {
            let (statement, expected) = line.split_once('|').expect("two columns");
            let said = error(&session, statement.trim()).await;
            let expected = match expected.trim() {
                whole if whole.starts_with(|c: char| c.is_ascii_digit()) => whole.to_owned(),
                what => format!("25006 cannot execute {what}"),
            };
            assert!(said.contains(&expected), "{statement}: {said}");
            text(&session, "rollback").await;
        }
    });
    // A transaction that only reads writes to temporary tables, and locks and reindexes, on a primary.
    a.sql("create temp table x (id int); begin read only; insert into x values (1); update x set id = 2; select from x for update; commit");
    a.sql("begin read only; lock table t; select pg_current_xact_id() is not null; reindex table t; commit");
    let refused = a.sql_error("begin read only; select from t for update");
    assert!(refused.contains("25006") && refused.contains("cannot execute SELECT FOR UPDATE in a read-only transaction"), "{refused}");
}

#[test]
fn a_standby_spills_exports_snapshots_and_tells_how_far_it_is() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int, v text); insert into t select g, repeat('v', 200) from generate_series(1, 20000) g");
    let b = a.standby("b");
    assert_eq!(
        b.sql("set work_mem = '64kB'; select count(*), max(r) from (select id, row_number() over (order by v, id desc) r from t) x"),
        "20000|20000"
    );
    assert_eq!(b.sql("set work_mem = '64kB'; select count(*) from t a join t b using (id)"), "20000");
    assert_eq!(b.sql("set work_mem = '64kB'; select count(*), min(id) from (select id, v from t except select id + 1, v from t) x"), "1|1");
    assert_eq!(b.sql("set work_mem = '64kB'; select count(*) from t where v || id not in (select v || (id + 5000) from t)"), "5000");
    assert_eq!(
        b.sql("set work_mem = '64kB'; select count(*), max(c) from (select count(distinct v || id) c from t group by id % 10) x"),
        "10|2000"
    );
    b.wait_for("select temp_files >= 5 from pg_stat_database where datname = 'postgres'", "t");
    until("temporary files to be gone", || b.temporary_files() == 0);
    block_on(async {
        let (first, second) = (connect(&b).await, connect(&b).await);
        text(&first, "begin isolation level repeatable read").await;
        let snapshot = text(&first, "select pg_export_snapshot()").await;
        a.sql("insert into t values (0, 'later')");
        a.wait_for_catchup(&b);
        text(&second, &format!("begin isolation level repeatable read; set transaction snapshot '{snapshot}'")).await;
        assert_eq!(text(&second, "select count(*) from t").await, "20000");
        text(&first, "commit").await;
        assert_eq!(text(&second, "select count(*) from t").await, "20000");
        text(&second, "commit").await;
        assert_eq!(text(&second, "select count(*) from t").await, "20001");
        let gone = error(&second, &format!("begin isolation level repeatable read; set transaction snapshot '{snapshot}'")).await;
        assert!(gone.starts_with("22023 invalid snapshot identifier") || gone.starts_with("42704"), "{gone}");
    });
    assert_eq!(b.sql("select now() - pg_last_xact_replay_timestamp() between '0' and '10 minutes'"), "t");
    assert_eq!(b.sql("select pg_last_wal_replay_lsn() = pg_last_wal_receive_lsn(), status from pg_stat_wal_receiver"), "t|streaming");
    assert_eq!(b.sql("select seq_scan > 0, n_tup_ins from pg_stat_user_tables where relname = 't'"), "t|0");
}
