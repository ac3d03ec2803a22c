//! Running a node: tools under PostgreSQL's names, exit codes, stop modes, locks, settings, logs, damage.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};

use crate::client::{block_on, connect, text};
use crate::support::node::{Node, PG_BIN, is_running, until};

fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn tool(node: &Node, command: &str, args: &[&str]) -> (Option<i32>, String) {
    let output = node.tool(command).args(args).arg("-D").arg(node.data()).output().expect("the tool runs");
    (output.status.code(), both(&output))
}

#[test]
fn links_answer_to_postgresql_names() {
    let node = Node::init("links");
    let bin = node.home.path().join("bin");
    let made = node.tool("install-links").arg(&bin).output().expect("install-links");
    assert!(made.status.success(), "{}", both(&made));
    for name in
        ["initdb", "pg_ctl", "postgres", "pg_controldata", "pg_waldump", "pg_rewind", "pg_verifybackup", "pg_checksums", "pg_resetwal"]
    {
        let version = Command::new(bin.join(name)).arg("--version").output().expect("a link runs");
        assert!(version.status.success(), "{name}: {}", both(&version));
        let text = both(&version);
        assert!(text.starts_with(&format!("{name} (PostgreSQL) 15.")), "{name}: {text}");
        let wrong = Command::new(bin.join(name)).arg("--no-such-option").output().expect("a link runs");
        assert!(!wrong.status.success(), "{name} accepts any option");
    }
    let status = Command::new(bin.join("pg_ctl")).arg("status").arg("-D").arg(node.data()).output().expect("pg_ctl");
    assert_eq!((status.status.code(), both(&status).trim()), (Some(3), "pg_ctl: no server running"));
    let missing = Command::new(bin.join("pg_ctl")).args(["status", "-D", "/nonexistent"]).output().expect("pg_ctl");
    assert_eq!(missing.status.code(), Some(4));
}

#[test]
fn a_data_directory_has_one_server_and_private_files() {
    let node = Node::start_new("lock", "");
    let (code, said) = tool(&node, "start", &[]);
    assert_eq!(code, Some(1), "{said}");
    let direct = node.tool("postgres").arg("-D").arg(node.data()).output().expect("postgres");
    assert!(!direct.status.success());
    let said = both(&direct);
    assert!(said.contains("lock file \"postmaster.pid\" already exists"), "{said}");
    assert_eq!(node.sql("select 1"), "1");
    let again = node.tool("initdb").arg("-D").arg(node.data()).output().expect("initdb");
    assert!(!again.status.success());
    assert!(both(&again).contains("exists but is not empty"), "{}", both(&again));

    fn walk(dir: &Path) {
        for entry in fs::read_dir(dir).expect("readable").map(|e| e.expect("an entry")) {
            let (path, meta) = (entry.path(), entry.metadata().expect("metadata"));
            let mode = meta.permissions().mode() & 0o777;
            if meta.is_dir() {
                assert_eq!(mode, 0o700, "{}", path.display());
                walk(&path);
            } else {
                assert!(meta.is_file(), "{}", path.display());
                assert_eq!(mode, 0o600, "{}", path.display());
            }
        }
    }
    walk(&node.data());
}

#[test]
fn stop_modes_do_what_they_say() {
    let node = Node::start_new("stop", "");
    assert_eq!(tool(&node, "status", &[]).0, Some(0));
    block_on(async {
        // Smart waits for the client.
        let c = connect(&node).await;
        text(&c, "create table t (a int); begin; insert into t values (1)").await;
        let (code, said) = tool(&node, "stop", &["-m", "smart", "-t", "1"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("server does not shut down"), "{said}");
        text(&c, "commit").await;
        let supervisor = node.pid().expect("it runs");
        drop(c);
        until("the smart stop to end", || !is_running(supervisor));
    });
    node.start();
    block_on(async {
        // Fast ends clients; what they had not committed is gone.
        let c = connect(&node).await;
        text(&c, "begin; insert into t values (2)").await;
        node.stop("fast");
        assert!(c.simple_query("select 1").await.is_err());
    });
    let state =
        Command::new(format!("{PG_BIN}/pg_controldata")).arg("-D").arg(node.data()).env("LC_ALL", "C").output().expect("pg_controldata");
    assert!(both(&state).contains("Database cluster state:               shut down\n"), "{}", both(&state));
    node.start();
    assert_eq!(node.sql("select * from t"), "1");
    node.sql("insert into t values (3)");
    node.stop("immediate");
    node.start();
    assert_eq!(node.sql("select * from t order by a"), "1\n3");
    assert!(node.log().contains("database system was not properly shut down; automatic recovery in progress"), "{}", node.log());
    assert_eq!(tool(&node, "stop", &["-m", "fast"]).0, Some(0));
    let (code, said) = tool(&node, "stop", &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(!node.data().join("postmaster.pid").exists());
}

#[test]
fn killing_the_supervisor_takes_the_server_along() {
    let node = Node::start_new("orphan", "");
    let (supervisor, servers) = (node.pid().expect("it runs"), node.server_pids());
    assert!(!servers.is_empty());
    crate::support::node::signal(supervisor, "KILL");
    for pid in servers {
        until("the server process to end", || !is_running(pid));
    }
    node.start();
    assert_eq!(node.sql("select 1"), "1");
}

#[test]
fn settings_come_from_files_and_sessions() {
    let node = Node::start_new("settings", "work_mem = '5MB'");
    assert_eq!(node.sql("show work_mem"), "5MB");
    node.conf("work_mem = '6MB'");
    node.reload();
    node.wait_for("show work_mem", "6MB");
    node.sql("alter system set work_mem = '7MB'");
    node.reload();
    node.wait_for("show work_mem", "7MB");
    node.sql("alter system reset work_mem");
    assert!(node.sql_error("set shared_buffers = '1MB'").contains("55P02"));
    assert!(node.sql_error("alter system set no_such = 1").contains("42704"));
    node.conf("shared_buffers = 'a lot'");
    node.stop("fast");
    let output = node.try_start();
    assert!(!output.status.success());
    assert!(node.log().contains("invalid value for parameter \"shared_buffers\": \"a lot\""), "{}", node.log());
    // What is wrong with it, and what would be right, in entries of their own.
    node.conf("shared_buffers = '12XB'\nwal_level = most\nprimary_slot_name = 'A'\nsynchronous_standby_names = 'FIRST ('\nrecovery_target_time = soon");
    assert!(!node.try_start().status.success());
    let log = node.log();
    for said in [
        "] HINT:  Valid units for this parameter are \"B\", \"kB\", \"MB\", \"GB\", and \"TB\".",
        "] HINT:  Available values: minimal, replica, logical.",
        "] DETAIL:  replication slot name \"A\" contains invalid character",
        "] HINT:  Replication slot names may only contain lower case letters, numbers, and the underscore character.",
        "] DETAIL:  syntax error at or near \"(\"",
        "] LOG:  invalid value for parameter \"recovery_target_time\": \"soon\"",
    ] {
        assert!(log.contains(said), "{said}\n{log}");
    }
    node.conf("shared_buffers");
    assert!(!node.try_start().status.success());
    assert!(node.log().contains(", near end of line\n") && node.log().contains("postgresql.conf\" contains errors"), "{}", node.log());
}

#[test]
fn a_busy_port_is_said_clearly() {
    let a = Node::start_new("a", "");
    let b = Node::init("b");
    b.conf(&format!("port = {}", a.port));
    let output = b.try_start();
    assert!(!output.status.success());
    assert!(b.log().contains("could not bind IPv4 address \"127.0.0.1\": Address already in use"), "{}", b.log());
    assert!(!b.data().join("postmaster.pid").exists());
}

#[test]
fn waldump_shows_what_was_written() {
    let node = Node::start_new("waldump", "");
    let start = node.sql("select pg_current_wal_insert_lsn()");
    node.sql("create table t (id int primary key); insert into t values (1)");
    let end = node.sql("select pg_current_wal_flush_lsn()");
    let output =
        node.tool("waldump").args(["-p"]).arg(node.data().join("pg_wal")).args(["-s", &start, "-e", &end]).output().expect("waldump");
    let text = both(&output);
    assert!(output.status.success(), "{text}");
    for part in ["rmgr: Heap", "rmgr: Btree", "rmgr: Transaction", "desc: COMMIT", "desc: INSERT"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
}

#[test]
fn damage_below_the_flushed_mark_is_refused_with_its_lsn() {
    let node = Node::start_new("damage", "");
    node.sql("create table t (id int primary key, v text)");
    node.sql("checkpoint");
    let lsn = node.sql("select pg_current_wal_insert_lsn()");
    for i in 0..40 {
        node.sql(&format!("insert into t values ({i}, repeat('x', 500))"));
    }
    node.kill();
    let segment = node.data().join("pg_wal").join(segment_of(&lsn));
    let at = offset_of(&lsn) + 3000;
    let file = fs::OpenOptions::new().read(true).write(true).open(&segment).expect("the segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("written");
    let output = node.try_start();
    assert!(!output.status.success(), "it started over damage");
    let log = node.log();
    assert!(log.contains("FATAL") || log.contains("PANIC"), "{log}");
    // Put right, it starts and has everything.
    file.write_all_at(&byte, at).expect("written");
    node.start();
    assert_eq!(node.sql("select count(*) from t"), "40");
}

fn halves(lsn: &str) -> (u64, u64) {
    let (high, low) = lsn.split_once('/').expect("an LSN");
    (u64::from_str_radix(high, 16).expect("hex"), u64::from_str_radix(low, 16).expect("hex"))
}

/// Name of the segment on timeline 1 that holds an LSN, at 16 MB a segment.
fn segment_of(lsn: &str) -> String {
    let (high, low) = halves(lsn);
    format!("{:08X}{high:08X}{:08X}", 1, low >> 24)
}

fn offset_of(lsn: &str) -> u64 {
    halves(lsn).1 & 0xFF_FFFF
}

#[test]
fn damaged_pages_fail_the_statement_and_name_the_block() {
    let node = Node::start_new("pages", "");
    node.sql("create table t (id int primary key, v text); create table other (a int); insert into other values (1)");
    node.sql("insert into t select g, repeat('x', 100) from generate_series(1, 2000) g");
    let path = node.sql("select pg_relation_filepath('t')");
    node.stop("fast");
    let file = fs::OpenOptions::new().write(true).open(node.data().join(&path)).expect("the table's file");
    file.write_all_at(&[0x5a; 16], 5 * 8192 + 4000).expect("written");
    node.start();
    let error = node.sql_error("select sum(length(v)) from t");
    assert!(error.contains("XX001") && error.contains(&format!("invalid page in block 5 of relation {path}")), "{error}");
    assert_eq!(node.sql("select * from other"), "1");
    assert_eq!(node.sql("select id from t where id = 1"), "1");
}

#[test]
fn a_long_recovery_tells_how_far_it_is() {
    let node = Node::start_new("progress", "log_startup_progress_interval = 1\nautovacuum = off");
    node.sql("create table t (id int primary key); insert into t select generate_series(1, 20000)");
    node.kill();
    node.start();
    let log = node.log();
    assert!(log.contains("redo in progress, elapsed time: 0.") && log.contains(" s, current LSN: 0/"), "{log}");
    assert!(log.contains("redo done at 0/"), "{log}");
    assert_eq!(node.sql("select count(*) from t"), "20000");
}

#[test]
fn a_directory_that_lost_its_wal_gets_a_new_one_by_force_only() {
    let node = Node::start_new("reset", "");
    node.sql("create table t (id int primary key); insert into t select generate_series(1, 1000)");
    let (code, said) = tool(&node, "resetwal", &["-f"]);
    assert!(code == Some(1) && said.contains("lock file \"postmaster.pid\" exists"), "{said}");
    node.sql("checkpoint");
    node.kill();
    fs::remove_file(node.data().join("postmaster.pid")).expect("the dead server's lock file");
    for entry in fs::read_dir(node.data().join("pg_wal")).expect("pg_wal").flatten() {
        if entry.path().is_file() {
            fs::remove_file(entry.path()).expect("WAL is lost");
        }
    }
    assert!(!node.try_start().status.success(), "it must not start without its WAL");
    let _stale = fs::remove_file(node.data().join("postmaster.pid"));
    let (code, said) = tool(&node, "resetwal", &[]);
    assert!(code == Some(1) && said.contains("was not shut down cleanly") && said.contains("use -f to force reset"), "{said}");
    let (code, said) = tool(&node, "resetwal", &["-n"]);
    assert!(code == Some(0) && said.contains("Latest checkpoint's NextXID:"), "{said}");
    let (code, said) = tool(&node, "resetwal", &["-f", "-o", "50000"]);
    assert!(code == Some(0) && said.contains("Write-ahead log reset"), "{said}");
    node.start();
    assert_eq!(node.sql("select count(*) from t"), "1000");
    node.sql("insert into t values (1001)");
    assert!(node.sql("create table u (i int); select 'u'::regclass::oid").parse::<u32>().is_ok_and(|oid| oid >= 50_000));
    node.restart();
    assert_eq!(node.sql("select count(*) from t"), "1001");
    node.stop("fast");
    let (code, said) = tool(&node, "resetwal", &["-e", "1"]);
    assert!(code == Some(0), "{said}");
    node.start();
    node.sql("insert into t values (1002)");
    assert!(node.sql("select txid_current()").parse::<u64>().is_ok_and(|xid| xid > 1 << 32));
    node.restart();
    assert_eq!(node.sql("select count(*) from t"), "1002");
    for (args, message) in [
        (&["-x", "1"][..], "transaction ID (-x) must be greater than or equal to 3"),
        (&["-o", "0"], "OID (-o) must not be 0"),
        (&["-x", "foo"], "invalid argument for option -x"),
        (&["--wal-segsize", "3"], "argument of --wal-segsize must be a power of 2 between 1 and 1024"),
    ] {
        let (code, said) = tool(&node, "resetwal", args);
        assert!(code == Some(1) && said.contains(message), "{said}");
    }
}

#[test]
fn recovery_reads_ahead_and_counts_it() {
    let node = Node::start_new("ahead", "checkpoint_timeout = '1h'\nautovacuum = off");
    node.sql("create table t (id int primary key, v text); insert into t select g, repeat('x', 200) from generate_series(1, 8000) g");
    let standby = node.standby("ahead-standby");
    let work = |node: &Node| {
        // One row of nearly every page; then many of a few pages; then new pages, more than it looks ahead; then what was read at first.
        node.sql("update t set v = repeat('y', 190) where id % 37 = 0");
        node.sql("update t set v = repeat('z', 180) where id <= 60");
        node.sql("insert into t select (select max(id) from t) + g, repeat('w', 200) from generate_series(1, 2000) g");
        node.sql("update t set v = repeat('v', 170) where id % 37 = 0");
    };
    let counted = "select prefetch > 100, hit > 20, skip_init > 0, skip_new > 0, skip_rep > 0, wal_distance, block_distance, io_depth \
                   from pg_stat_recovery_prefetch";
    work(&node);
    node.wait_for_catchup(&standby);
    standby.wait_for("select prefetch + hit > 200, skip_new > 0, skip_rep > 0, io_depth from pg_stat_recovery_prefetch", "t|t|t|0");
    let before = node.sql("select sum(hashtext(t::text)) from t");
    node.kill();
    node.start();
    assert_eq!(node.sql(counted), "t|t|t|t|t|0|0|0");
    assert_eq!(node.sql("select sum(hashtext(t::text)) from t"), before);
    assert_eq!(
        node.sql(
            "select pg_stat_reset_shared('recovery_prefetch'); \
             select prefetch + hit + skip_init + skip_new + skip_fpw + skip_rep, stats_reset > pg_postmaster_start_time() from pg_stat_recovery_prefetch"
        ),
        "\n0|t"
    );

    node.conf("recovery_prefetch = off");
    work(&node);
    let before = node.sql("select sum(hashtext(t::text)) from t");
    node.kill();
    node.start();
    assert_eq!(node.sql("select prefetch + hit + skip_init + skip_new + skip_fpw + skip_rep from pg_stat_recovery_prefetch"), "0");
    assert_eq!(node.sql("select sum(hashtext(t::text)) from t"), before);
}

#[test]
fn the_log_says_why_a_checkpoint_began() {
    let node = Node::start_new("causes", "max_wal_size = '32MB'\ncheckpoint_timeout = '1h'\nautovacuum = off");
    let standby = node.standby("causes-standby");
    node.sql("create table t as select generate_series(1, 1000) as id; checkpoint");
    until("the checkpoint that was asked for", || node.log().contains("checkpoint starting: immediate force wait\n"));
    node.wait_for_catchup(&standby);
    standby.sql("checkpoint");
    until("the restartpoint", || standby.log().contains("restartpoint starting: immediate wait\n"));
    node.sql("insert into t select generate_series(1, 500000)");
    until("the checkpoint for the size of the WAL", || node.log().contains("checkpoint starting: wal\n"));
    let written = node.sql("select pg_current_wal_flush_lsn()");
    node.kill();
    node.start();
    // Spread over the hour it would leave the next recovery to read all of this again.
    node.wait_for(&format!("select redo_lsn >= '{written}' from pg_control_checkpoint()"), "t");
    assert!(node.log().contains("checkpoint starting: end-of-recovery immediate\n"));
    node.stop("fast");
    until("the last checkpoint", || node.log().contains("checkpoint starting: shutdown immediate\n"));
    assert!(node.log().contains("checkpoint complete: wrote "));
}

#[test]
fn a_checkpoint_that_nobody_waits_for_takes_its_share_of_the_interval() {
    let node = Node::start_new("spread", "checkpoint_timeout = '30s'\ncheckpoint_completion_target = 0.1\nautovacuum = off");
    node.sql("create table t as select g as id, repeat('x', 500) as v from generate_series(1, 20000) g");
    node.sql("select pg_stat_reset_shared('bgwriter')");
    block_on(async {
        let c = connect(&node).await;
        // A backup that is in no hurry waits for one that is spread.
        text(&c, "select pg_backup_start('spread', false)").await;
        text(&c, "select lsn from pg_backup_stop(false)").await;
    });
    assert_eq!(
        node.sql("select checkpoint_write_time >= 2900, buffers_checkpoint >= 1000, checkpoints_req > 0 from pg_stat_bgwriter"),
        "t|t|t"
    );
    let log = node.log();
    let written = log.rsplit("write=").next().and_then(|rest| rest.split(" s,").next()).and_then(|s| s.parse::<f64>().ok());
    assert!(written.is_some_and(|s| s >= 2.9), "{log}");
    // One that somebody waits for goes at once, and takes the rest of a slow one with it.
    node.sql("update t set v = repeat('y', 500)");
    node.conf("checkpoint_completion_target = 1.0");
    node.reload();
    block_on(async {
        let slow = connect(&node).await;
        let slow = tokio::spawn(async move { text(&slow, "select pg_backup_start('slow', false)").await });
        until("the slow checkpoint", || node.log().matches("checkpoint starting: force wait\n").count() >= 2);
        node.sql("checkpoint");
        slow.await.expect("the backup begins");
    });
    assert_eq!(node.sql("select checkpoint_write_time < 20000 from pg_stat_bgwriter"), "t");
}
