//! The faults a disk can have, and what a node must make of each: `docs/operations.md` has the table.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::node::{Node, file, run, until};
use crate::verify::{change, relation_file};

const SEGMENT: u64 = 1 << 24;

/// A position as SQL prints it.
fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').expect("an LSN");
    u64::from_str_radix(high, 16).expect("hex") << 32 | u64::from_str_radix(low, 16).expect("hex")
}

fn segment(node: &Node, at: u64) -> PathBuf {
    let n = at / SEGMENT;
    file(node, &format!("pg_wal/00000001{:08X}{:08X}", n >> 8, n & 0xff))
}

/// Acknowledged commits over several segments; then the machine is gone. Returns where the second batch begins and all WAL ends.
fn killed_with_wal(name: &str) -> (Node, String, String) {
    let node = Node::start_new(name, "autovacuum = off\nwal_writer_delay = 10s");
    node.sql("create table t (n int); create table later (n int); checkpoint");
    node.sql("insert into t select generate_series(1, 1000)");
    let middle = node.sql("select pg_current_wal_insert_lsn()");
    node.sql("insert into later select generate_series(1, 1000)");
    for n in 2..4 {
        node.sql("select pg_switch_wal()");
        node.sql(&format!("insert into t select generate_series({n}001, {n}999)"));
    }
    let end = node.sql("select pg_current_wal_insert_lsn()");
    node.kill();
    (node, middle, end)
}

fn copy(from: &Path, to: &Path) {
    drop(fs::remove_dir_all(to));
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// The start is refused; what the log says since.
fn refused(node: &Node) -> String {
    drop(fs::remove_file(node.home.path().join("log")));
    let output = node.try_start();
    assert!(!output.status.success(), "it started: {}", node.log());
    node.log()
}

#[test]
fn damaged_wal_refuses_the_start_and_says_where() {
    let (node, middle, end) = killed_with_wal("waldamage");
    let saved = node.home.path().join("saved");
    copy(&node.data(), &saved);
    let at = lsn(&middle);
    let inside = at % SEGMENT;
    let sector = inside.div_ceil(512) * 512;
    let damage: [(&str, &dyn Fn()); 5] = [
        ("a flipped bit", &|| change(&segment(&node, at), inside + 40, |b| b[0] ^= 8, 1)),
        ("a zeroed sector", &|| change(&segment(&node, at), sector, |b| b.fill(0), 512)),
        ("a truncated segment", &|| {
            let f = fs::OpenOptions::new().write(true).open(segment(&node, at)).expect("the segment");
            f.set_len(inside + 24).expect("it can be cut");
        }),
        ("a missing segment", &|| fs::remove_file(segment(&node, at + SEGMENT)).expect("the next segment")),
        ("a zeroed segment header", &|| change(&segment(&node, at + SEGMENT), 0, |b| b.fill(0), 64)),
    ];
    for (what, damage) in damage {
        damage();
        let log = refused(&node);
        assert!(log.contains("WAL is damaged: WAL of timeline 1 ends at 0/"), "{what}: {log}");
        assert!(
            log.contains("says that WAL was durable up to 0/") || log.contains("was written when WAL was durable up to 0/"),
            "{what}: {log}"
        );
        assert!(log.contains("ignore_wal_damage"), "{what}: {log}");
        if what == "a flipped bit" {
            assert!(log.contains(&format!("ends at {middle}: incorrect checksum in record")), "{what}: {log}");
        }
        // Refused again: the first try changed nothing.
        assert!(refused(&node).contains("WAL is damaged"), "{what}");
        copy(&saved, &node.data());
    }

    // Asked for, it starts with what there is up to the damage, says so, and is sound.
    change(&segment(&node, at), inside + 40, |b| b[0] ^= 8, 1);
    node.conf("ignore_wal_damage = on");
    node.start();
    let log = node.log();
    assert!(log.contains(&format!("WAL from {middle} on is given up")), "{log}");
    node.conf("ignore_wal_damage = off");
    assert_eq!(node.sql("select count(*), max(n) from t"), "1000|1000");
    assert_eq!(node.sql("select count(*) from later"), "0");
    node.sql("insert into t values (-1)");
    node.kill();
    node.start();
    assert_eq!(node.sql("select count(*), min(n) from t"), "1001|-1");
    node.stop("fast");
    let verified = node.tool("verify").arg("-D").arg(node.data()).output().expect("verify");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));

    // The torn tail of a crash is no damage.
    copy(&saved, &node.data());
    change(&segment(&node, lsn(&end)), lsn(&end) % SEGMENT, |b| b.fill(0x5a), 100);
    node.start();
    assert_eq!(node.sql("select count(*) from t"), "2998");
    assert_eq!(node.sql("select count(*) from later"), "1000");
}

#[test]
fn wal_that_is_not_ours_is_refused_by_name() {
    let (node, middle, _) = killed_with_wal("foreign");
    let saved = node.home.path().join("saved");
    copy(&node.data(), &saved);
    let other = Node::start_new("other", "");
    let second = lsn(&middle) + SEGMENT;
    other.sql("select pg_switch_wal()");
    other.sql("create table x (n int)");
    let foreign = segment(&other, second);
    assert!(foreign.exists(), "the other cluster has that segment too");
    fs::copy(foreign, segment(&node, second)).expect("a foreign segment");
    let log = refused(&node);
    assert!(log.contains("could not read WAL") && log.contains("system"), "{log}");

    copy(&saved, &node.data());
    change(&segment(&node, second), 4, |b| b[0] += 1, 2);
    let log = refused(&node);
    assert!(log.contains("could not read WAL") && log.contains("format version is"), "{log}");

    fs::write(file(&node, "PG_VERSION"), "16\n").expect("PG_VERSION");
    let log = refused(&node);
    assert!(log.contains("FATAL:  database files are incompatible with server") && log.contains("by PostgreSQL version 16"), "{log}");

    copy(&saved, &node.data());
    fs::remove_file(segment(&node, lsn(&middle))).expect("the first segment");
    let log = refused(&node);
    assert!(log.contains("could not locate a valid checkpoint record at 0/"), "{log}");
}

#[test]
fn torn_page_is_healed_and_logged() {
    let node = Node::start_new("torn", "autovacuum = off");
    node.sql("create table t (n int, v text)");
    node.sql("insert into t select g, repeat('v', 100) from generate_series(1, 1000) g");
    let table = relation_file(&node, "t");
    let shown = node.sql("select pg_relation_filepath('t')");
    node.sql("checkpoint");
    node.sql("update t set n = -n where n <= 10");
    node.sql("checkpoint");
    node.kill();
    // Half of a page reached the disk.
    change(&table, 4096, |b| b.fill(0xab), 4096);
    node.start();
    assert_eq!(node.sql("select count(*), sum(n) from t"), "1000|500390");
    assert!(node.log().contains(&format!("restored torn page 0 of relation {shown} from the double-write area")), "{}", node.log());
}

#[test]
fn work_mem_spills_and_temporary_files_of_a_crash_are_gone_after_the_start() {
    let node = Node::init("tempfiles");
    let dir = file(&node, "base/pgsql_tmp");
    fs::create_dir_all(&dir).expect("base/pgsql_tmp");
    fs::write(dir.join("pgsql_tmp4711.0"), "rest").expect("a file");
    node.start();
    let left = || -> Vec<_> { fs::read_dir(&dir).map(|d| d.flatten().map(|e| e.file_name()).collect()).unwrap_or_default() };
    assert!(left().is_empty(), "{:?}", left());

    // What does not fit into work_mem goes to disk, in a sort, a hash join, groups, a materialized CTE; the answer is the same.
    let big = "(select g % 20000 as k, repeat('v', 50) || g as v from generate_series(1, 60000) g)";
    for query in [
        format!("select count(*), min(v), max(n) from (select v, row_number() over (order by v desc) n from {big} s) t"),
        format!("select count(*), sum(length(a.v)) from {big} a join {big} b using (k)"),
        format!("select count(*), sum(c) from (select v, count(*) c from {big} s group by v) t"),
        format!("with m as materialized (select * from {big} s) select count(*), (select max(v) from m) from m"),
    ] {
        let ample = node.sql(&format!("set work_mem = '1GB'; {query}"));
        assert_eq!(node.sql(&format!("set work_mem = '64kB'; {query}")), ample, "{query}");
    }
    let plan = node.sql(&format!("set work_mem = '64kB'; explain (analyze, timing off) select * from {big} s order by v"));
    assert!(plan.contains("Sort Method: external merge  Disk: "), "{plan}");

    // Killed in the middle of a sort, which gets no further than the row near its end.
    node.sql("create table t as select g, repeat('v', 50) || g as v from generate_series(1, 100000) g");
    node.sql(
        "create function stuck(g int) returns int immutable language plpgsql as \
         $$ begin if g = 99000 then perform pg_sleep(600); end if; return g; end $$",
    );
    let busy = "set work_mem = '64kB'; select * from t order by v, stuck(g) offset 1000000";
    let mut psql = node.psql(busy).stderr(std::process::Stdio::null()).spawn().expect("psql");
    node.wait_for("select count(*) from pg_stat_activity where state = 'active' and query ~ '^set .*work_mem'", "1");
    node.kill();
    drop(psql.wait());
    node.start();
    assert!(left().is_empty(), "{:?}", left());
    assert_eq!(node.sql("select count(*) from t"), "100000");
}

#[test]
fn temporary_files_are_counted_logged_limited_and_gone_after_an_error() {
    let node = Node::start_new("tempusage", "autovacuum = off\nwork_mem = 64kB\nlog_temp_files = 1000");
    let used = |what: &str| format!("select {what} from pg_stat_database where datname = 'postgres'");
    let sort =
        |rows: u32| format!("select count(*) from (select repeat('x', 100) || g from generate_series(1, {rows}) g order by 1 offset 0) x");
    assert_eq!(node.sql(&used("temp_files, temp_bytes")), "0|0");
    assert_eq!(node.sql(&sort(1000)), "1000");
    node.wait_for(&used("temp_files > 0 and temp_bytes between 50000 and 300000"), "t");
    assert_eq!(node.sql(&sort(20_000)), "20000");
    node.wait_for(&used("temp_bytes > 2000000"), "t");
    let logged = || {
        let log = node.log();
        let lines = log.split("LOG:  temporary file: path \"base/pgsql_tmp/pgsql_tmp").skip(1).filter_map(|l| l.split_once("\", size "));
        lines.filter_map(|(_, size)| size.lines().next()?.parse::<u64>().ok()).collect::<Vec<_>>()
    };
    until("the largest one in the log", || !logged().is_empty());
    assert!(logged().iter().all(|size| *size >= 1_024_000), "{:?}", logged());

    // Beyond the limit the statement fails; what it had is free again for the next.
    let limited = format!("set temp_file_limit = '1MB'; {}", sort(20_000));
    let error = node.sql_error(&limited);
    assert!(error.contains("53400: temporary file size exceeds temp_file_limit (1024kB)"), "{error}");
    let again = format!(
        "set temp_file_limit = '1MB'; do $$ begin perform v from ({}) x (v); exception when configuration_limit_exceeded then null; end $$; {}",
        sort(20_000),
        sort(5000)
    );
    assert_eq!(node.sql(&again), "5000");

    // Cancelled with files open, in a sort, a set operation, a subquery and a function.
    node.sql("create table t as select g, repeat('v', 50) || g as v from generate_series(1, 50000) g");
    node.sql(
        "create function stuck(g int) returns int immutable language plpgsql as
           $$ begin if g = 49000 then perform pg_sleep(600); end if; return g; end $$;
         create function rows() returns setof t language plpgsql as $$ begin return query select stuck(g), v from t; end $$",
    );
    // The sort of an index is a sort like any other.
    let (files, index) = (node.sql(&used("temp_files")), "set maintenance_work_mem = '1MB'; create index on t (v)");
    let error = node.sql_error(&format!("set temp_file_limit = '1MB'; {index}"));
    assert!(error.contains("53400: temporary file size exceeds temp_file_limit (1024kB)"), "{error}");
    node.sql(index);
    node.wait_for(&used(&format!("temp_files >= {files} + 2")), "t");
    for query in [
        "select v, stuck(g) from t order by 1, 2 offset 1000000",
        "select v, stuck(g) from t except select v, g from t",
        "select count(*) from t where v not in (select v || stuck(g) from t)",
        "select count(distinct v || stuck(g)) from t group by g % 10",
        "select count(*) from rows()",
    ] {
        let mut psql = node.psql(query).stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().expect("psql");
        until("a temporary file", || node.temporary_files() > 0);
        node.sql(&format!("select pg_cancel_backend(pid) from pg_stat_activity where query = $query${query}$query$"));
        assert!(!psql.wait().expect("psql ends").success(), "{query}");
        until("temporary files to be gone", || node.temporary_files() == 0);
    }
}

#[test]
fn file_that_cannot_be_removed_goes_once_it_can() {
    let node = Node::start_new("stuck", "autovacuum = off");
    node.sql("create table a as select generate_series(1, 1000) n");
    node.sql("create table b as select generate_series(1, 1000) n");
    node.sql("checkpoint");
    let (a, b) = (relation_file(&node, "a"), relation_file(&node, "b"));
    // Something is mounted there: EBUSY.
    run(Command::new("mount").arg("--bind").arg(&a).arg(&a));
    let mounted = SmallDisk(a.clone());
    node.sql("begin; drop table a; drop table b; commit");
    until("the other file to go", || !b.exists());
    until("the warning", || node.log().contains("WARNING:  could not remove file \"base/"));
    assert!(a.exists());
    // The list of what is still to be removed outlives server and crash.
    node.sql("checkpoint");
    node.kill();
    node.start();
    drop(mounted);
    node.sql("checkpoint");
    until("the file to go", || !a.exists());
}

/// A small file system of its own, gone with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, megabytes: u32) -> Self {
        fs::create_dir_all(at).expect("a mount point");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "none"]).arg(at));
        Self(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

#[test]
fn full_disk_fails_the_statement_and_the_server_lives() {
    let node = Node::init("full");
    let (base, aside) = (file(&node, "base"), node.home.path().join("base"));
    copy(&base, &aside);
    let _disk = SmallDisk::mount(&base, 24);
    run(Command::new("cp").arg("-a").arg(format!("{}/.", aside.display())).arg(&base));
    node.conf("autovacuum = off\nwork_mem = 64kB");
    node.start();
    node.sql("create table t (n int, v text)");
    let long = "select repeat('x', 500) || g from generate_series(1, 100000) g";
    node.sql(&format!("create function long() returns setof text language plpgsql as $$ begin return query {long}; end $$"));
    let error = node.sql_error("insert into t select g, repeat('v', 1000) from generate_series(1, 40000) g");
    assert!(error.contains("53100: could not extend file \"base/"), "{error}");
    assert!(error.contains("No space left on device\n") && error.contains("HINT:  Check free disk space."), "{error}");
    let error = node.sql_error("select count(*) from (select repeat('x', 500) || g as v from generate_series(1, 100000) g order by 1) s");
    assert!(error.contains("53100"), "{error}");
    for query in [
        format!("select count(*) from ({long} except select 'y') x"),
        format!("select count(*) from generate_series(1, 3) g where g::text not in ({long})"),
        format!("select count(distinct v) from ({long}) x (v) group by length(v)"),
        "select count(*) from long()".to_owned(),
    ] {
        let error = node.sql_error(&query);
        assert!(error.contains("53100"), "{query}: {error}");
    }
    assert_eq!(node.server_pids().len(), 1);
    until("temporary files to be gone", || node.temporary_files() == 0);
    assert_eq!(node.sql("select count(*) from t"), "0");
    node.sql("drop table t");
    node.sql("checkpoint");
    node.sql("create table small as select generate_series(1, 100) n");
    node.kill();
    node.start();
    assert_eq!(node.sql("select count(*) from small"), "100");
}

#[test]
fn full_wal_disk_loses_nothing_and_goes_on_once_there_is_space() {
    let node = Node::init("fullwal");
    let (disk, pg_wal) = (node.home.path().join("waldisk"), file(&node, "pg_wal"));
    let _disk = SmallDisk::mount(&disk, 112);
    run(Command::new("cp").arg("-a").arg(&pg_wal).arg(&disk));
    fs::remove_dir_all(&pg_wal).expect("pg_wal");
    std::os::unix::fs::symlink(disk.join("pg_wal"), &pg_wal).expect("a link");
    node.conf("autovacuum = off\nmax_wal_size = 64MB\nmin_wal_size = 32MB");
    node.start();
    node.sql("create table t (n int primary key, v text)");
    let filler = disk.join("filler");
    // dd fills what is left and fails.
    drop(Command::new("dd").args(["if=/dev/zero", "bs=1M"]).arg(format!("of={}", filler.display())).output().expect("dd"));
    let mut acknowledged = 0;
    let error = loop {
        let sql = format!("insert into t select {acknowledged} * 1000 + g, repeat('v', 1000) from generate_series(1, 1000) g");
        let done = node.psql(&sql).args(["-v", "VERBOSITY=verbose"]).output().expect("psql");
        if !done.status.success() {
            break String::from_utf8_lossy(&done.stderr).into_owned();
        }
        acknowledged += 1;
        assert!(acknowledged < 1000, "the disk is never full");
    };
    // Whether the server stopped itself or not, it says why.
    let said = error + &node.log();
    assert!(said.contains("pg_wal/") && said.contains("No space left on device"), "{said}");
    fs::remove_file(&filler).expect("the filler");
    if !crate::support::node::holds_within(std::time::Duration::from_secs(20), || {
        node.psql("select 1").output().is_ok_and(|o| o.status.success())
    }) {
        node.start();
    }
    let there: u32 = node.sql("select count(*) from t").parse().expect("a number");
    assert!(there == acknowledged * 1000 || there == (acknowledged + 1) * 1000, "{acknowledged} thousand acknowledged, {there} there");
    node.sql("insert into t values (-1, '')");
    node.kill();
    node.start();
    assert_eq!(node.sql("select count(*) from t"), (there + 1).to_string());
}

#[test]
fn unreadable_block_fails_the_statement_that_needs_it() {
    let node = Node::start_new("unreadable", "autovacuum = off");
    node.sql("create table t as select generate_series(1, 100) n");
    node.sql("create table other as select 1 a");
    let path = node.sql("select pg_relation_filepath('t')");
    node.restart();
    // All but the table is in memory already.
    node.sql("select * from other; select 't'::regclass; explain select count(*) from t");
    let [server] = node.server_pids()[..] else { panic!("one server process") };
    let inject = ["-f", "-q", "-e", "trace=pread64", "-e", "inject=pread64:error=EIO", "-P"];
    let mut strace = Command::new("strace")
        .args(inject)
        .arg(file(&node, &path))
        .args(["-o", "/dev/null", "-p", &server.to_string()])
        .spawn()
        .expect("strace: run scripts/install-deps test");
    attached(server);
    let error = node.sql_error("select count(*) from t");
    assert!(error.contains(&format!("58030: could not read block 0 in file \"{path}\": Input/output error\n")), "{error}");
    assert_eq!(node.sql("select a from other"), "1");
    drop(strace.kill());
    drop(strace.wait());
    assert_eq!(node.sql("select count(*) from t"), "100");
    assert_eq!(node.server_pids(), [server]);
}

/// Waits until a process is traced.
fn attached(pid: i32) {
    until("strace to attach", || {
        fs::read_to_string(format!("/proc/{pid}/status"))
            .is_ok_and(|s| s.lines().any(|l| l.starts_with("TracerPid:") && !l.ends_with("\t0")))
    });
}

/// A file left long would show what vacuum removed after the next start, and the map call all-visible what comes there later.
#[test]
fn truncation_that_fails_stops_the_node_and_recovery_ends_it() {
    let node = Node::start_new("truncation", "autovacuum = off");
    node.sql("create table t (n int primary key, filler text); insert into t select n, repeat('x', 500) from generate_series(1, 2000) n");
    node.sql("vacuum t");
    node.sql("delete from t where n > 100");
    let [server] = node.server_pids()[..] else { panic!("one server process") };
    let mut strace = Command::new("strace")
        .args([
            "-f",
            "-q",
            "-e",
            "trace=ftruncate",
            "-e",
            "inject=ftruncate:error=EIO:when=1+",
            "-o",
            "/dev/null",
            "-p",
            &server.to_string(),
        ])
        .spawn()
        .expect("strace: run scripts/install-deps test");
    attached(server);
    let vacuum = node.psql("vacuum t").output().expect("psql");
    assert!(!vacuum.status.success());
    until("the supervisor to start another server", || !node.server_pids().is_empty() && !node.server_pids().contains(&server));
    drop(strace.kill());
    drop(strace.wait());
    node.wait_for("select count(*) from t", "100");
    let log = node.log();
    assert!(log.lines().any(|l| l.contains("PANIC:") && l.contains("truncate") && l.ends_with("Input/output error")), "{log}");
    assert!(node.sql("select pg_relation_size('t')").parse::<u64>().expect("bytes") < 20 * 8192);
    // Rows that are rolled back where the file was cut: an index-only scan must not show them.
    node.sql("begin; insert into t select n, repeat('x', 500) from generate_series(101, 2000) n; rollback");
    assert_eq!(node.sql("set enable_seqscan = off; set enable_bitmapscan = off; select count(*) from t where n > 0"), "100");
    assert_eq!(node.sql("select count(*) from verify_heapam('t')"), "0");
}

#[test]
fn failed_sync_stops_the_node_and_loses_nothing() {
    let node = Node::start_new("sync", "autovacuum = off");
    node.sql("create table t (n int primary key)");
    for (call, errno, words, place) in [
        ("msync", "EIO", "Input/output error", "pg_wal/"),
        ("pwrite64", "ENOSPC", "No space left on device", "pg_wal/"),
        // Of a data file, by a checkpoint.
        ("fdatasync", "EIO", "Input/output error", "could not fsync file"),
    ] {
        let base: i64 = node.sql("select coalesce(max(n), 0) from t").parse().expect("a number");
        let [server] = node.server_pids()[..] else { panic!("one server process") };
        let inject = format!("inject={call}:error={errno}:when=1+");
        let mut strace = Command::new("strace")
            .args(["-f", "-q", "-e", &format!("trace={call}"), "-e", &inject, "-o", "/dev/null", "-p", &server.to_string()])
            .spawn()
            .expect("strace: run scripts/install-deps test");
        attached(server);
        // Whatever is acknowledged from here on must be there afterwards; the first that needs the disk is not.
        let mut acknowledged = base;
        for n in base + 1..base + 200 {
            let done = node
                .psql(&format!("insert into t values ({n})"))
                .args((place != "pg_wal/").then_some("-ccheckpoint"))
                .output()
                .expect("psql");
            if !done.status.success() {
                break;
            }
            acknowledged = n;
        }
        until("the supervisor to start another server", || !node.server_pids().is_empty() && !node.server_pids().contains(&server));
        drop(strace.kill());
        drop(strace.wait());
        node.wait_for("select 1", "1");
        let log = node.log();
        assert!(log.lines().any(|l| l.contains("PANIC:") && l.contains(place) && l.ends_with(words)), "{call}: {log}");
        let there: i64 = node.sql("select max(n) from t").parse().expect("a number");
        assert!(there == acknowledged || there == acknowledged + 1, "{call}: {acknowledged} acknowledged, {there} there");
        assert_eq!(node.sql("select count(*) from t"), there.to_string());
    }
}

/// A tracer of one process, ended with this.
struct Tracer(std::process::Child);

impl Tracer {
    fn attach(pid: i32, args: &[&str], log: &Path) -> Self {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-y", "-q"]).args(args).arg("-o").arg(log).args(["-p", &pid.to_string()]);
        let tracer = Self(strace.spawn().expect("strace: run scripts/install-deps test"));
        attached(pid);
        tracer
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It lets go of the process; killed, it might leave it stopped.
        crate::support::node::signal(i32::try_from(self.0.id()).expect("a pid"), "INT");
        drop(self.0.wait());
    }
}

/// What a traced line does, to which kind of file of the node: numbers left out.
fn call_of(line: &str, data: &str) -> Option<(String, String)> {
    let call = line.split_whitespace().nth(1)?.split_once('(')?.0.to_owned();
    let path = line.split(data).nth(1)?.split(['"', '>']).next()?;
    let mut kind = String::new();
    for c in path.chars() {
        match c {
            '0'..='9' | 'A'..='F' if kind.ends_with('#') => {}
            '0'..='9' => kind.push('#'),
            c => kind.push(c),
        }
    }
    Some((call, kind))
}

#[test]
fn base_backup_over_a_failing_disk_fails_and_says_so() {
    const CALLS: &str = "trace=openat,pread64,read,getdents64,statx";
    let node = Node::start_new("failingbackup", "autovacuum = off");
    node.sql("create table t as select generate_series(1, 1000) n");
    let data = node.data().display().to_string();
    let log = node.home.path().join("trace");
    let [server] = node.server_pids()[..] else { panic!("one server process") };
    let backup = || {
        let target = node.home.path().join("backup");
        drop(fs::remove_dir_all(&target));
        let mut tool = node.tool("basebackup");
        tool.arg("-D").arg(&target).args(["-c", "fast", "-N", "-X", "fetch", "-d", &node.conninfo("backup")]).output().expect("basebackup")
    };
    {
        let _tracer = Tracer::attach(server, &["-e", CALLS], &log);
        let output = backup();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // The first call of each kind on each kind of file, by its number among the calls of its kind.
    let trace = fs::read_to_string(&log).expect("the trace");
    let mut numbers = std::collections::BTreeMap::<String, u32>::new();
    let mut sites = std::collections::BTreeMap::<(String, String), u32>::new();
    for line in trace.lines().filter(|l| !l.contains("resumed>")) {
        let Some(name) = line.split_whitespace().nth(1).and_then(|w| w.split_once('(')).map(|w| w.0) else { continue };
        let number = numbers.entry(name.to_owned()).or_default();
        *number += 1;
        if let Some(site) = call_of(line, &data) {
            sites.entry(site).or_insert(*number);
        }
    }
    assert!(sites.len() > 20, "{sites:?}");
    let (mut failed, mut unharmed) = (0, 0);
    for (i, ((call, kind), number)) in sites.iter().enumerate() {
        let errno = if i % 2 == 0 { "EIO" } else { "ENOSPC" };
        let inject = format!("inject={call}:error={errno}:when={number}");
        let output = {
            let _tracer = Tracer::attach(server, &["-e", CALLS, "-e", &inject], &log);
            backup()
        };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            // Files that need not be there, and calls that were another's this time.
            unharmed += 1;
        } else {
            failed += 1;
            let names_it = said.contains("could not ") && (said.contains("Input/output") || said.contains("No space"));
            assert!(names_it || said.contains("checkpoint request failed"), "{call} {kind}: {said}");
        }
        assert_eq!(node.server_pids(), [server], "{call} {kind}: {said}\n{}", node.log());
    }
    println!("{failed} backups failed, {unharmed} did not");
    assert!(failed > unharmed, "{failed} failed, {unharmed} did not");
    assert!(backup().status.success());
    assert_eq!(node.sql("select count(*) from t"), "1000");
}

/// A relation's file is gone: whoever needs it fails and says so, nobody makes a new one, nobody else is harmed. Here and on a standby.
#[test]
fn table_whose_file_is_gone_is_an_error_and_not_empty() {
    let node = Node::start_new("gone", "autovacuum = off");
    node.sql("create table t (id int primary key, v text); create unlogged table u (n int); create table other as select 1 a");
    node.sql("insert into t select g, 'value ' || g from generate_series(1, 500) g; insert into u select generate_series(1, 10)");
    node.sql("create index t_v on t (v); analyze");
    let standby = node.standby("gone_standby");
    node.wait_for_catchup(&standby);
    let (shown, shown_u) = (node.sql("select pg_relation_filepath('t')"), node.sql("select pg_relation_filepath('u')"));
    let missing = |path: &str| format!("58P01: could not open file \"{path}\": No such file or directory");
    node.stop("fast");
    standby.stop("fast");
    let kept = node.home.path().join("kept");
    for on in [&node, &standby] {
        #[expect(clippy::disallowed_methods, reason = "what an administrator does with mv")]
        fs::rename(file(on, &shown), &kept).expect("the table's file");
    }
    fs::remove_file(file(&node, &shown_u)).expect("the unlogged table's file");
    node.start();
    standby.start();
    for sql in [
        "select count(*) from t",
        "set enable_seqscan = off; select v from t where id = 7",
        "set enable_seqscan = off; select count(*) from t where v > 'value 4'",
        "insert into t values (501, 'x')",
        "update t set v = v where id = 3",
        "delete from t",
        "vacuum t",
        "vacuum full t",
        "analyze t",
        "create index on t (id, v)",
        "reindex table t",
        "alter table t add column w int default random()",
        "select * from verify_heapam('t')",
    ] {
        let error = node.sql_error(sql);
        assert!(error.contains(&missing(&shown)), "{sql}: {error}");
    }
    for sql in ["select * from u", "insert into u values (1)"] {
        let error = node.sql_error(sql);
        assert!(error.contains(&missing(&shown_u)), "{sql}: {error}");
    }
    for sql in ["select count(*) from t", "set enable_seqscan = off; select v from t where id = 7"] {
        let error = standby.sql_error(sql);
        assert!(error.contains(&missing(&shown)), "{sql}: {error}");
    }
    assert_eq!(node.sql("checkpoint; insert into other values (2); select sum(a), pg_relation_size('t') from other"), "3|0");
    assert!(!file(&node, &shown).exists() && !file(&node, &shown_u).exists(), "somebody made the file anew");
    node.wait_for_catchup(&standby);
    assert_eq!(standby.sql("select sum(a) from other"), "3");
    standby.stop("fast");

    // Put back, it is found.
    fs::copy(&kept, file(&node, &shown)).expect("the file, put back");
    assert_eq!(node.sql("select count(*) from t"), "500");
    // An index is the same, and REINDEX mends it.
    let index = node.sql("select pg_relation_filepath('t_v')");
    node.stop("fast");
    fs::remove_file(file(&node, &index)).expect("the index's file");
    let output = node.tool("verify").arg("-D").arg(node.data()).output().expect("verify");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for path in [&index, &shown_u] {
        assert!(said.contains(&format!("could not open file \"{path}\"")), "{said}");
    }
    node.start();
    for sql in ["set enable_seqscan = off; select count(*) from t where v > 'value 4'", "insert into t values (501, 'x')"] {
        let error = node.sql_error(sql);
        assert!(error.contains(&missing(&index)), "{sql}: {error}");
    }
    assert_eq!(node.sql("set enable_indexscan = off; set enable_bitmapscan = off; select v from t where id = 7"), "value 7");
    node.sql("reindex index t_v; insert into t values (501, 'x'); truncate u; insert into u values (1)");
    assert_eq!(node.sql("set enable_seqscan = off; select count(*) from t where v > 'value 4'"), "167");
    // It can be dropped without its file, and started again afterwards.
    let shown = node.sql("select pg_relation_filepath('other')");
    node.stop("fast");
    fs::remove_file(file(&node, &shown)).expect("the other table's file");
    node.start();
    node.sql("drop table other");
    node.kill();
    node.start();
    assert_eq!(node.sql("select count(*) from t"), "501");
    assert!(node.sql_error("select * from other").contains("42P01"));
}

/// What the maps say can be said anew: a damaged page of one is emptied, with a warning, and harms no statement.
#[test]
fn damaged_page_of_a_map_harms_nobody() {
    let node = Node::start_new("maps", "autovacuum = off");
    node.sql("create table t (id int primary key, v text); insert into t select g, repeat('v', 100) from generate_series(1, 5000) g");
    node.sql("delete from t where id % 10 = 0");
    node.sql("vacuum t");
    let standby = node.standby("maps_standby");
    node.wait_for_catchup(&standby);
    let shown = node.sql("select pg_relation_filepath('t')");
    let (vm, fsm) = (format!("{shown}_vm"), format!("{shown}_fsm"));
    let damage = |on: &Node| {
        // Without the copies it has, whose place is where a start after a crash looks.
        fs::remove_file(file(on, "pg_dblwr")).expect("the double-write area");
        change(&file(on, &vm), 4000, |b| b[0] = b[0].wrapping_add(0x55), 1);
        change(&file(on, &fsm), 2 * 8192 + 5000, |b| b[0] = b[0].wrapping_add(0x55), 1);
    };
    let warned = |on: &Node| on.log().matches(&format!("WARNING:  invalid page in block 0 of relation {vm}; zeroing out page")).count();
    let sound = |on: &Node, rows: &str| {
        assert_eq!(on.sql("set enable_seqscan = off; set enable_bitmapscan = off; select count(id) from t where id > 0"), rows);
        assert_eq!(on.sql("select count(*) from t"), rows);
    };
    node.stop("fast");
    standby.stop("fast");
    damage(&node);
    damage(&standby);
    let verify = || node.tool("verify").arg("-D").arg(node.data()).output().expect("verify");
    let output = verify();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for (path, block) in [(&vm, 0), (&fsm, 2)] {
        assert!(said.contains(&format!("invalid page in block {block} of relation {path}\n")), "{said}");
    }
    standby.start();
    sound(&standby, "4500");
    node.start();
    sound(&node, "4500");
    node.sql("update t set v = 'changed' where id = 11; delete from t where id = 12; insert into t values (10, 'again')");
    node.wait_for_catchup(&standby);
    sound(&node, "4500");
    sound(&standby, "4500");
    assert!(warned(&node) > 0, "{}", node.log());
    assert!(node.log().contains(&format!("WARNING:  invalid page in block 2 of relation {fsm}; zeroing out page")), "{}", node.log());

    // In redo, of records that set bits and of ones that clear them.
    node.kill();
    damage(&node);
    let before = warned(&node);
    node.start();
    assert!(warned(&node) > before, "{}", node.log());
    sound(&node, "4500");
    node.sql("vacuum t");
    node.sql("delete from t where id = 13");
    sound(&node, "4499");
    node.wait_for_catchup(&standby);
    sound(&standby, "4499");
    node.sql("vacuum t");
    node.stop("fast");
    let output = verify();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
