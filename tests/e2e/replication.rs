//! A primary and its hot standbys: clone, stream, read, restart, fail over, follow.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};

use crate::support::journal::{self, Journal};
use crate::support::node::{Node, until};

/// Every table is the same on both, and replay has no lag.
fn assert_same(primary: &Node, standby: &Node) {
    primary.wait_for_catchup(standby);
    assert_eq!(primary.table_hashes(), standby.table_hashes());
}

#[test]
fn rows_arrive_on_a_standby_that_refuses_writes() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int primary key, v text); insert into t select g, 'row ' || g from generate_series(1, 1000) g");
    let b = a.standby("b");
    a.wait_for_catchup(&b);
    assert_eq!(b.sql("select count(*), min(v), max(id) from t"), "1000|row 1|1000");
    assert_eq!(b.sql("select pg_is_in_recovery()"), "t");
    assert_eq!(a.sql("select pg_is_in_recovery()"), "f");

    a.sql("update t set v = 'changed' where id <= 10; delete from t where id > 990");
    assert_same(&a, &b);

    let error = b.sql_error("insert into t values (0, 'no')");
    assert!(error.contains("25006") && error.contains("cannot execute INSERT in a read-only transaction"), "{error}");
    assert_eq!(a.sql("select application_name, state from pg_stat_replication"), "b|streaming");
    assert_eq!(b.sql("select status from pg_stat_wal_receiver"), "streaming");
}

#[test]
fn the_stock_pg_basebackup_clones_a_loaded_primary() {
    let a = Node::start_new("a", "");
    a.sql(journal::SCHEMA);
    let load = Journal::start(&a, 3);
    load.wait_for(50);
    let b = a.clone_with_pg_basebackup("b");
    let before = load.count();
    b.start();
    load.wait_for(before + 100);
    let outcome = load.stop();
    assert_same(&a, &b);
    outcome.check(&b);
}

#[test]
fn either_side_may_restart_and_streaming_goes_on() {
    let a = Node::start_new("a", "");
    a.sql(journal::SCHEMA);
    let b = a.standby("b");
    for round in 0..3 {
        let load = Journal::start(&a, 2);
        load.wait_for(30);
        match round {
            0 => b.restart(),
            1 => {
                b.kill();
                b.start();
            }
            _ => {
                a.kill();
                a.start();
            }
        }
        let outcome = load.stop();
        a.wait_for("select count(*) from pg_stat_replication where state = 'streaming'", "1");
        assert_same(&a, &b);
        outcome.check(&b);
        a.sql("truncate journal, counter");
    }
}

#[test]
fn a_promoted_standby_takes_writes_and_others_follow_it() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int primary key)");
    let b = a.standby("b");
    let c = a.standby("c");
    a.sql("insert into t select generate_series(1, 100)");
    a.wait_for_catchup(&b);
    a.wait_for_catchup(&c);
    a.stop("fast");

    b.promote();
    assert_eq!(b.sql("select pg_is_in_recovery()"), "f");
    b.sql("insert into t values (101)");
    c.follow(&b);
    c.reload();
    b.wait_for_catchup(&c);
    assert_eq!(c.sql("select count(*) from t"), "101");
    assert_eq!(c.sql("select received_tli from pg_stat_wal_receiver"), "2");
    assert!(std::fs::read_to_string(c.data().join("pg_wal/00000002.history")).is_ok_and(|h| h.starts_with('1')));

    // An upstream of an older timeline will not do, and harms nothing.
    a.start();
    c.follow(&a);
    c.reload();
    let said = "FATAL:  highest timeline 1 of the primary is behind recovery timeline 2";
    until("the refusal", || c.log().contains(said));
    c.follow(&b);
    c.reload();
    b.sql("insert into t values (102)");
    b.wait_for_catchup(&c);
    assert_eq!(b.table_hashes(), c.table_hashes());
}

#[test]
fn sessions_stay_connected_through_a_promotion() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int primary key)");
    let b = a.standby("b");
    a.wait_for_catchup(&b);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (client, io) =
            tokio_postgres::connect(&format!("{} dbname=postgres", b.conninfo("kept")), tokio_postgres::NoTls).await.expect("connect");
        tokio::spawn(io);
        let error = client.execute("insert into t values (1)", &[]).await.expect_err("a standby refuses writes");
        assert_eq!(error.code().map(|c| c.code().to_owned()).as_deref(), Some("25006"));
        a.kill();
        let promoted: bool = client.query_one("select pg_promote()", &[]).await.expect("pg_promote").get(0);
        assert!(promoted);
        client.execute("insert into t values (1)", &[]).await.expect("the same session writes now");
    });
    assert_eq!(b.sql("select count(*) from t"), "1");
}

#[test]
fn a_former_primary_that_went_on_is_refused_where_its_history_forked() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int primary key)");
    let b = a.standby("b");
    a.wait_for_catchup(&b);
    b.promote();
    b.sql("insert into t values (2)");
    a.sql("insert into t values (1)");
    a.stop("fast");
    a.follow(&b);
    a.start();
    until("the refusal in the log", || a.log().contains("forked off current database system timeline 1 before current recovery point"));
    assert_eq!(a.sql("select id from t"), "1");
    assert_eq!(b.sql("select id from t"), "2");
}

#[test]
fn no_acknowledged_commit_is_lost_when_a_synchronous_standby_takes_over() {
    for _ in 0..3 {
        let a = Node::start_new("a", "");
        a.sql(journal::SCHEMA);
        let b = a.standby("b");
        a.conf("synchronous_standby_names = 'b'");
        a.reload();
        a.wait_for("select sync_state from pg_stat_replication", "sync");
        let load = Journal::start(&a, 4);
        load.wait_for(100);
        a.kill();
        let outcome = load.stop();
        b.promote();
        assert!(outcome.count() >= 100);
        outcome.check(&b);
        b.sql("insert into journal values (99, 1)");
    }
}

#[test]
fn commits_wait_for_the_synchronous_standby_and_readers_do_not_see_them_before() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int)");
    let b = a.standby("b");
    a.conf("synchronous_standby_names = 'b'");
    a.reload();
    a.wait_for("select sync_state from pg_stat_replication", "sync");
    b.stop("fast");
    a.wait_for("select count(*) from pg_stat_replication", "0");
    let mut waiting = a.psql("insert into t values (1)").spawn().expect("psql");
    // A commit that asks for less goes through, and proves that the other had its time.
    assert_eq!(a.sql("set synchronous_commit = local; insert into t values (2); select count(*) from t where id = 2"), "1");
    assert!(waiting.try_wait().expect("psql's state").is_none(), "the commit must wait");
    assert_eq!(a.sql("select count(*) from t where id = 1"), "0");
    b.start();
    assert!(waiting.wait().expect("psql").success());
    assert_eq!(a.sql("select count(*) from t where id = 1"), "1");
    a.wait_for_catchup(&b);
    assert_eq!(b.sql("select count(*) from t"), "2");
}

#[test]
fn a_slot_or_wal_keep_size_keeps_wal_while_its_standby_is_away() {
    for slot in [true, false] {
        let a = Node::start_new("a", "max_wal_size = '32MB'\nmin_wal_size = '32MB'");
        a.sql("create table t (id int, filler text)");
        let b = a.clone_to("b");
        if slot {
            a.sql("select pg_create_physical_replication_slot('s')");
            b.conf("primary_slot_name = 's'");
        } else {
            a.conf("wal_keep_size = '160MB'");
            a.reload();
            a.wait_for("show wal_keep_size", "160MB");
        }
        b.start();
        a.wait_for("select count(*) from pg_stat_replication where state = 'streaming'", "1");
        assert_eq!(a.sql("select count(*) from pg_replication_slots where active"), if slot { "1" } else { "0" });
        b.stop("fast");
        for _ in 0..4 {
            a.sql("insert into t select g, repeat('x', 200) from generate_series(1, 1000) g; select pg_switch_wal()");
            a.sql("checkpoint");
        }
        b.start();
        assert_same(&a, &b);
    }
}

#[test]
fn a_cancelled_commit_that_waits_for_its_standby_is_no_success_and_not_seen() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int)");
    let b = a.standby("b");
    a.conf("synchronous_standby_names = 'b'");
    a.reload();
    a.wait_for("select sync_state from pg_stat_replication", "sync");
    b.stop("fast");
    a.wait_for("select count(*) from pg_stat_replication", "0");
    for (id, how) in [(1, "pg_cancel_backend"), (2, "pg_terminate_backend")] {
        let waiting = a
            .psql(&format!("insert into t values ({id})"))
            .args(["-v", "VERBOSITY=verbose"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("psql");
        let pid = format!("select pid from pg_stat_activity where query like 'insert into t values ({id})' and wait_event = 'SyncRep'");
        until("the commit to wait", || !a.sql(&pid).is_empty());
        a.wait_for(&format!("select count(*) from ({pid}) p where {how}(pid)"), "1");
        let output = waiting.wait_with_output().expect("psql");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains("FATAL:  40003"), "{error}");
        assert!(error.contains("might not have been replicated"), "{error}");
        assert_eq!(a.sql(&format!("select count(*) from t where id = {id}")), "0");
    }
    b.start();
    a.wait_for("select count(*) from t", "2");
}

/// A primary that archives, and a base backup of it.
fn archived(name: &str) -> (Node, tempfile::TempDir, Node) {
    let archive = tempfile::tempdir().expect("a directory");
    let path = archive.path().display().to_string();
    let a = Node::start_new(name, &format!("archive_mode = on\narchive_command = 'cp \"%p\" \"{path}/%f\"'"));
    a.sql("create table t (id int)");
    let restored = a.clone_to("restored");
    std::fs::remove_file(restored.data().join("standby.signal")).expect("standby.signal");
    std::fs::write(restored.data().join("recovery.signal"), "").expect("recovery.signal");
    restored.conf(&format!("archive_mode = off\nrestore_command = 'cp \"{path}/%f\" \"%p\"'"));
    (a, archive, restored)
}

#[test]
fn a_backup_and_an_archive_recover_to_the_moment_before_a_mistake() {
    let (a, _archive, restored) = archived("a");
    a.sql("insert into t select generate_series(1, 1000)");
    let moment = a.sql("select clock_timestamp()");
    a.sql("delete from t");
    let file = a.sql("select pg_walfile_name(pg_switch_wal())");
    a.wait_for(&format!("select last_archived_wal >= '{file}' from pg_stat_archiver"), "t");
    a.kill();
    restored.conf(&format!("recovery_target_time = '{moment}'"));
    restored.start();
    // Paused at the target: a look is possible, a write is not.
    restored.wait_for("select pg_get_wal_replay_pause_state()", "paused");
    assert_eq!(restored.sql("select count(*) from t"), "1000");
    assert!(restored.sql_error("insert into t values (0)").contains("25006"));
    restored.sql("select pg_wal_replay_resume()");
    restored.wait_for("select pg_is_in_recovery()", "f");
    restored.sql("insert into t values (0)");
    assert_eq!(restored.sql("select left(pg_walfile_name(pg_current_wal_lsn()), 8)"), "00000002");
    assert!(std::fs::read_to_string(restored.data().join("pg_wal/00000002.history")).expect("history").contains("before 20"));
    restored.kill();
    restored.start();
    assert_eq!(restored.sql("select count(*) from t"), "1001");
}

#[test]
fn recovery_that_cannot_reach_its_target_or_its_archive_says_so_and_stays_down() {
    let (a, archive, restored) = archived("a");
    a.sql("insert into t values (1)");
    a.stop("fast");
    restored.conf("recovery_target_name = 'never made'");
    // It may accept connections for a moment before the archive ends.
    drop(restored.try_start());
    until("the server to give up", || restored.pid().is_none());
    assert!(restored.log().contains("FATAL:  recovery ended before configured recovery target was reached"), "{}", restored.log());
    restored.conf("recovery_target_name = ''\nrestore_command = 'exit 127'");
    drop(restored.try_start());
    until("the server to give up", || restored.pid().is_none());
    assert!(restored.log().contains("FATAL:  could not restore file"), "{}", restored.log());
    // Without the target, all that the archive has.
    restored.conf(&format!("restore_command = 'cp \"{}/%f\" \"%p\"'", archive.path().display()));
    restored.start();
    restored.wait_for("select pg_is_in_recovery()", "f");
    assert_eq!(restored.sql("select count(*) from t"), "1");
}

#[test]
fn a_reader_waits_for_the_position_it_saw_elsewhere() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int)");
    let b = a.standby("b");
    b.sql("select pg_wal_replay_pause()");
    let seen =
        a.sql("insert into t values (1) returning id; select pg_current_wal_insert_lsn()").lines().last().expect("a position").to_owned();
    assert_eq!(b.sql(&format!("wait for lsn '{seen}' with (timeout '50ms', no_throw)")), "timeout");
    let error = b.sql_error(&format!("WAIT FOR LSN '{seen}' WITH (TIMEOUT 50)"));
    assert!(error.contains("57014") && error.contains(&format!("timed out while waiting for target LSN {seen} to be replayed")), "{error}");
    // The flushed position moves although replay stands still.
    assert_eq!(b.sql(&format!("wait for lsn '{seen}' with (mode 'standby_flush')")), "success");
    let waiting = b.psql(&format!("wait for lsn '{seen}'")).stdout(std::process::Stdio::piped()).spawn().expect("psql");
    b.sql("select pg_wal_replay_resume()");
    let output = waiting.wait_with_output().expect("psql");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "success");
    assert_eq!(b.sql("select count(*) from t"), "1");
    assert!(a.sql_error(&format!("wait for lsn '{seen}'")).contains("55000"));
    assert_eq!(a.sql(&format!("wait for lsn '{seen}' with (mode 'primary_flush')")), "success");
    // A promotion ends the wait.
    let waiting = b.psql("wait for lsn 'F/0' with (no_throw)").stdout(std::process::Stdio::piped()).spawn().expect("psql");
    b.wait_for("select count(*) from pg_stat_activity where query like 'wait for lsn%' and state = 'active'", "1");
    b.promote();
    let output = waiting.wait_with_output().expect("psql");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "not in recovery");
}

/// Holds up every sync of a node's WAL from now on, as a disk that does not answer.
struct StuckDisk(Child);

impl StuckDisk {
    fn under(node: &Node) -> Self {
        let [server] = node.server_pids()[..] else { panic!("one server process") };
        let mut strace = Command::new("strace");
        strace.args([
            "-f",
            "-q",
            "-e",
            "trace=msync",
            "-e",
            "inject=msync:delay_enter=900000000",
            "-o",
            "/dev/null",
            "-p",
            &server.to_string(),
        ]);
        let stuck = Self(strace.spawn().expect("strace: run scripts/install-deps test"));
        until("strace to attach to every thread", || {
            let tasks = std::fs::read_dir(format!("/proc/{server}/task")).into_iter().flatten().flatten();
            tasks
                .map(|task| std::fs::read_to_string(task.path().join("status")).unwrap_or_default())
                .all(|status| status.is_empty() || status.lines().any(|l| l.starts_with("TracerPid:") && !l.ends_with("\t0")))
        });
        stuck
    }
}

impl Drop for StuckDisk {
    fn drop(&mut self) {
        // Told nicely, it would first wait for the calls that it holds up.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_commit_at_remote_write_does_not_wait_for_the_disk_of_the_standby() {
    let a = Node::start_new("a", "autovacuum = off");
    a.sql("create table t (id int)");
    let b = a.standby("b");
    a.conf("synchronous_standby_names = 'b'");
    a.reload();
    a.wait_for("select sync_state from pg_stat_replication", "sync");
    a.wait_for_catchup(&b);
    let stuck = StuckDisk::under(&b);
    a.sql("set synchronous_commit = remote_write; insert into t values (1)");
    assert_eq!(a.sql("select write_lsn > flush_lsn from pg_stat_replication"), "t");
    let mut waiting = a.psql("insert into t values (2)").spawn().expect("psql");
    a.wait_for("select count(*) from pg_stat_activity where wait_event = 'SyncRep'", "1");
    drop(stuck);
    assert!(waiting.wait().expect("psql").success());
    b.wait_for("select count(*) from t", "2");
}

/// The segment that holds the end of what a node had synced, and where in it that is: what `pg_wal/flushed` says.
fn durable_end(node: &Node) -> (PathBuf, u64) {
    let wal = node.data().join("pg_wal");
    let mark = std::fs::read(wal.join("flushed")).expect("pg_wal/flushed");
    let lsn = u64::from_le_bytes(mark[24..32].try_into().expect("eight bytes"));
    let tli = u32::from_le_bytes(mark[16..20].try_into().expect("four bytes"));
    (wal.join(format!("{tli:08X}{:08X}{:08X}", lsn >> 32, (lsn >> 24) & 0xff)), lsn & 0xff_ffff)
}

/// A killed node loses its WAL behind what was synced, as in a power cut.
fn lose_unsynced_wal(node: &Node) {
    let (segment, from) = durable_end(node);
    let file = std::fs::OpenOptions::new().write(true).open(segment).expect("the last segment");
    let bytes = file.metadata().expect("its length").len() - from;
    file.write_all_at(&vec![0; usize::try_from(bytes).expect("a segment fits in memory")], from).expect("zeros");
}

/// A primary with a row that it has shipped and cannot sync, and its standby that holds that row back. With `anew`, the record of the primary's
/// last start was not synced either, and is what was shipped at least.
fn with_a_row_in_flight(anew: bool) -> (Node, Node) {
    // Only the commit asks for a sync.
    let a = Node::start_new("a", "autovacuum = off\nwal_writer_delay = '10s'");
    a.sql("create table t (n int primary key); insert into t values (1)");
    let b = a.standby("b");
    a.wait_for_catchup(&b);
    if anew {
        a.restart();
    }
    let stuck = StuckDisk::under(&a);
    b.wait_for("select count(*) from pg_stat_wal_receiver where status = 'streaming'", "1");
    let durable = a.sql("select pg_current_wal_flush_lsn()");
    let mut writer = a.psql("insert into t values (2)").spawn().expect("psql");
    a.wait_for(&format!("select pg_current_wal_lsn() > '{durable}'::pg_lsn + 100"), "t");
    let end = a.sql("select pg_current_wal_lsn()");
    let shipped = if anew { format!("> '{durable}'") } else { format!(">= '{end}'") };
    // It is durable on the standby, and the primary knows; yet nobody sees it.
    a.wait_for(&format!("select flush_lsn {shipped} from pg_stat_replication"), "t");
    assert_eq!(a.sql("select pg_current_wal_flush_lsn()"), durable);
    assert_eq!(
        b.sql(&format!("select pg_last_wal_receive_lsn() {shipped}, pg_last_wal_replay_lsn() <= '{durable}', count(*) from t")),
        "t|t|1"
    );
    assert!(writer.try_wait().expect("psql").is_none(), "a commit was acknowledged that is not durable on the primary");
    // Nor after a restart of the standby, which knows how far it may go.
    b.kill();
    b.start();
    assert_eq!(b.sql(&format!("select pg_last_wal_replay_lsn() <= '{durable}', count(*) from t")), "t|1");
    a.kill();
    drop(stuck);
    drop(writer.wait());
    lose_unsynced_wal(&a);
    (a, b)
}

/// Every byte of WAL that both have is the same, and so are their tables.
fn assert_same_wal(a: &Node, b: &Node) {
    assert_same(a, b);
    let (segment, upto) = durable_end(b);
    let ours = std::fs::read(&segment).expect("a segment");
    let theirs = std::fs::read(a.data().join("pg_wal").join(segment.file_name().expect("a name"))).expect("the same segment");
    let upto = usize::try_from(upto).expect("a segment fits in memory");
    assert!(ours[..upto] == theirs[..upto], "the WAL of {} and {} differs", a.name, b.name);
}

#[test]
fn wal_that_the_primary_shipped_and_lost_is_discarded() {
    // The second time the standby has WAL of a start that the primary has forgotten.
    for anew in [false, true] {
        let (a, b) = with_a_row_in_flight(anew);
        a.start();
        assert_eq!(a.sql("select * from t"), "1");
        a.sql("insert into t values (3)");
        assert_same_wal(&a, &b);
        assert_eq!(b.sql("select * from t order by 1"), "1\n3");
        assert!(b.log().contains("LOG:  discarded WAL from "), "{}", b.log());
    }
}

#[test]
fn wal_that_may_be_lost_goes_to_those_who_hold_it_back_and_no_further() {
    let a = Node::start_new("a", "autovacuum = off\nwal_writer_delay = '10s'");
    a.sql("create table t (n int primary key); insert into t values (1)");
    // One that takes it, one below that, and one that did not ask for it.
    let b = a.standby("b");
    let (c, d) = (a.clone_to("c"), a.clone_to("d"));
    c.follow(&b);
    d.conf("wal_receiver_ahead = off");
    for node in [&c, &d] {
        node.start();
    }
    for node in [&b, &c, &d] {
        a.wait_for_catchup(node);
    }
    let stuck = StuckDisk::under(&a);
    let durable = a.sql("select pg_current_wal_flush_lsn()");
    let mut writer = a.psql("insert into t values (2)").spawn().expect("psql");
    b.wait_for(&format!("select pg_last_wal_receive_lsn() > '{durable}'::pg_lsn + 100"), "t");
    // Nor to one that asks anew.
    d.restart();
    d.wait_for("select status from pg_stat_wal_receiver", "streaming");
    a.wait_for("select state from pg_stat_replication where application_name = 'd'", "streaming");
    for node in [&b, &c, &d] {
        let far = if node.name == "b" { "t" } else { "f" };
        let shown = format!("select pg_last_wal_receive_lsn() > '{durable}', pg_last_wal_replay_lsn() > '{durable}', count(*) from t");
        assert_eq!(node.sql(&shown), format!("{far}|f|1"), "{}", node.name);
    }
    assert_eq!(a.sql(&format!("select application_name from pg_stat_replication where sent_lsn > '{durable}'")), "b");
    // Now it is durable there.
    drop(stuck);
    assert!(writer.wait().expect("psql").success());
    for node in [&b, &c, &d] {
        a.wait_for_catchup(node);
        assert_eq!(node.sql("select count(*) from t"), "2", "{}", node.name);
    }
}

#[test]
fn a_promotion_keeps_what_only_the_standby_has() {
    let (a, b) = with_a_row_in_flight(false);
    b.promote();
    assert_eq!(b.sql("select * from t order by 1"), "1\n2");
    b.sql("insert into t values (3)");
    a.follow(&b);
    a.start();
    assert_same_wal(&b, &a);
    assert_eq!(a.sql("select * from t order by 1"), "1\n2\n3");
}
