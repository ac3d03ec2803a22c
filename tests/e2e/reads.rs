//! Reads that know where they are: a client carries the position of its commit to another node, and reads there what it wrote.

use crate::client::{block_on, connect, describe, text};
use crate::support::node::Node;

#[test]
fn a_client_reads_its_writes_on_a_standby_that_is_behind() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int)");
    let b = a.standby("b");
    a.wait_for_catchup(&b);
    block_on(async {
        let (writer, reader, operator) = (connect(&a).await, connect(&b).await, connect(&b).await);
        assert_eq!(text(&writer, "select afterimage_last_commit_lsn() is null").await, "t");
        for round in 1..=20 {
            text(&operator, "select pg_wal_replay_pause()").await;
            text(&writer, &format!("insert into t values ({round})")).await;
            let commit = text(&writer, "select afterimage_last_commit_lsn()").await;
            text(&reader, &format!("set read_after_lsn = '{commit}'")).await;
            let read = async {
                // Simple, prepared, and a cursor: whatever reads, waits.
                match round % 3 {
                    0 => text(&reader, "select count(*) from t").await,
                    1 => reader.query_one("select count(*)::text from t", &[]).await.expect("a row").get(0),
                    _ => text(&reader, "begin; declare c cursor for select count(*) from t; fetch c; commit").await,
                }
            };
            let resume = text(&operator, "select pg_wal_replay_resume()");
            let (read, _) = tokio::join!(read, resume);
            assert_eq!(read, round.to_string());
        }
        // Statements that read nothing do not wait, and a wait ends as any other.
        text(&operator, "select pg_wal_replay_pause()").await;
        text(&writer, "insert into t values (21)").await;
        let commit = text(&writer, "select afterimage_last_commit_lsn()").await;
        text(&reader, &format!("set read_after_lsn = '{commit}'; show read_after_lsn; set statement_timeout = '300ms'")).await;
        let timed_out = reader.simple_query("select count(*) from t").await.expect_err("a timeout");
        assert_eq!(describe(&timed_out), "57014 canceling statement due to statement timeout");
        let timed_out = reader.query("select count(*) from t", &[]).await.expect_err("a timeout");
        assert_eq!(describe(&timed_out), "57014 canceling statement due to statement timeout");
        text(&reader, "reset read_after_lsn").await;
        assert_eq!(text(&reader, "select count(*) from t").await, "20");
        text(&operator, "select pg_wal_replay_resume()").await;

        // A primary that does not have the position says so: after a failover that lost it nothing would ever bring it.
        text(&writer, "set read_after_lsn = 'FF/0'").await;
        let ahead = writer.simple_query("select 1").await.expect_err("an error");
        assert!(describe(&ahead).starts_with("55000 read_after_lsn FF/0 is ahead of the WAL insert position of this server"), "{ahead}");
        text(&writer, "reset read_after_lsn").await;
        let bad = writer.simple_query("set read_after_lsn = 'x'").await.expect_err("an error");
        assert_eq!(describe(&bad), "22023 invalid value for parameter \"read_after_lsn\": \"x\"");
    });
}

#[test]
fn wait_for_lsn_works_as_a_prepared_statement() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int)");
    let b = a.standby("b");
    block_on(async {
        let (writer, reader) = (connect(&a).await, connect(&b).await);
        for n in 1..=10 {
            text(&writer, &format!("insert into t values ({n})")).await;
            let commit = text(&writer, "select afterimage_last_commit_lsn()").await;
            let wait = reader.prepare(&format!("WAIT FOR LSN '{commit}' WITH (TIMEOUT '60s')")).await.expect("a statement");
            assert_eq!(wait.columns()[0].name(), "status");
            let row = reader.query_one(&wait, &[]).await.expect("a row");
            assert_eq!(row.get::<_, String>(0), "success");
            assert_eq!(text(&reader, "select count(*) from t").await, n.to_string());
        }
        let status = reader.query_one("WAIT FOR LSN 'FF/0' WITH (TIMEOUT '50ms', NO_THROW)", &[]).await.expect("a row");
        assert_eq!(status.get::<_, String>(0), "timeout");
        let late = reader.query("WAIT FOR LSN 'FF/0' WITH (TIMEOUT '50ms')", &[]).await.expect_err("a timeout");
        assert!(describe(&late).starts_with("57014 timed out while waiting for target LSN FF/0 to be replayed"), "{late}");
        let not_here = writer.query("WAIT FOR LSN '0/1'", &[]).await.expect_err("an error");
        assert!(describe(&not_here).starts_with("55000 recovery is not in progress"), "{not_here}");
        assert_eq!(text(&reader, "select count(*) from t").await, "10");
    });
}
