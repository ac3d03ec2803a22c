//! Backups whose files somebody else copies: `pg_backup_start`, `cp`, `pg_backup_stop`.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use tokio_postgres::AsyncMessage;

use crate::support::journal::{self, Journal};
use crate::support::node::{Node, PG_BIN, run, until};

/// A session that stays open, and what it was told.
struct Held {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
    notices: Arc<Mutex<Vec<String>>>,
}

impl Held {
    fn open(node: &Node) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let notices = Arc::<Mutex<Vec<String>>>::default();
        let told = Arc::clone(&notices);
        let conninfo = format!("{} dbname=postgres", node.conninfo("held"));
        let client = runtime.block_on(async {
            let (client, mut io) = tokio_postgres::connect(&conninfo, tokio_postgres::NoTls).await.expect("connect");
            tokio::spawn(async move {
                while let Some(Ok(message)) = std::future::poll_fn(|cx| io.poll_message(cx)).await {
                    if let AsyncMessage::Notice(notice) = message {
                        told.lock().expect("notices").push(format!("{}: {}", notice.severity(), notice.message()));
                    }
                }
            });
            client
        });
        Self { runtime, client, notices }
    }

    /// The first row, as text; or the error's SQLSTATE and message.
    fn sql(&self, sql: &str) -> Result<Vec<String>, String> {
        let rows = self.runtime.block_on(self.client.simple_query(sql)).map_err(|e| {
            let error = e.as_db_error().unwrap_or_else(|| panic!("{sql}: {e}"));
            format!("{} {} {}", error.code().code(), error.message(), error.hint().unwrap_or_default())
        })?;
        Ok(rows
            .iter()
            .find_map(|message| {
                let tokio_postgres::SimpleQueryMessage::Row(row) = message else { return None };
                Some((0..row.len()).map(|i| row.get(i).unwrap_or_default().to_owned()).collect())
            })
            .unwrap_or_default())
    }

    fn notices(&self) -> Vec<String> {
        std::mem::take(&mut *self.notices.lock().expect("notices"))
    }

    /// What `pg_backup_stop` answers: end, label, tablespace map.
    fn stop(&self, wait: bool) -> [String; 3] {
        self.sql(&format!("select * from pg_backup_stop({wait})")).expect("pg_backup_stop").try_into().expect("three columns")
    }
}

/// `cp` of a data directory that is being written, without what the manual says to leave out.
fn copy(node: &Node, name: &str) -> PathBuf {
    let to = node.home.path().join(name);
    let output = Command::new("cp").arg("-a").arg(node.data()).arg(&to).output().expect("cp");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.lines().all(|line| line.contains("No such file")), "{errors}");
    for file in ["postmaster.pid", "postmaster.opts", "standby.signal"] {
        drop(fs::remove_file(to.join(file)));
    }
    for dir in ["pg_wal", "pg_replslot"] {
        fs::remove_dir_all(to.join(dir)).expect("to leave out");
        fs::create_dir(to.join(dir)).expect("an empty one");
    }
    to
}

fn field<'a>(label: &'a str, key: &str) -> &'a str {
    label.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key} in {label}")).trim()
}

/// Overwrites the second half of each page of which the archived WAL has an image for the backup, as if the copy had torn it. Returns how many.
fn tear(node: &Node, archive: &Path, copy: &Path) -> usize {
    let mut segments: Vec<_> = fs::read_dir(archive).expect("the archive").map(|e| e.expect("an entry").path()).collect();
    segments.retain(|path| path.file_name().is_some_and(|n| n.len() == 24));
    segments.sort();
    let mut torn = std::collections::BTreeSet::new();
    for segment in segments {
        // The last record goes on in the next segment, so its exit status may be that of an error.
        let output = node.tool("waldump").arg(&segment).output().expect("waldump");
        for line in String::from_utf8_lossy(&output.stdout).lines().filter(|line| line.contains("FPI_FOR_BACKUP")) {
            let after = |key: &str| line.split_once(key).map(|(_, rest)| rest.split([' ', ',']).next().unwrap_or_default().to_owned());
            let (Some(rel), Some(block)) = (after("rel "), after("blk ")) else { panic!("{line}") };
            let mut parts = rel.split('/').map(|n| n.parse::<u32>().expect("a number"));
            let (spc, db, file) = (parts.next().expect("spc"), parts.next().expect("db"), parts.next().expect("rel"));
            let dir = if spc == 1664 { "global".to_owned() } else { format!("base/{db}") };
            let fork = after("fork ").filter(|fork| fork != "main").map_or(String::new(), |fork| format!("_{fork}"));
            torn.insert((copy.join(format!("{dir}/{file}{fork}")), block.parse::<u64>().expect("a block")));
        }
    }
    let mut count = 0;
    for (path, block) in torn {
        let Ok(mut file) = fs::OpenOptions::new().read(true).write(true).open(&path) else { continue };
        if file.metadata().expect("its size").len() < (block + 1) * 8192 {
            continue;
        }
        let mut half = vec![0; 4096];
        file.seek(SeekFrom::Start(block * 8192)).expect("seek");
        file.read_exact(&mut half).expect("half a page");
        half.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
        file.write_all(&half).expect("the other half");
        count += 1;
    }
    count
}

#[test]
fn a_copy_made_with_cp_under_load_is_recovered_to_the_last_row_and_to_a_point() {
    let a = Node::init("a");
    let archive = a.home.path().join("archive");
    fs::create_dir(&archive).expect("a directory");
    a.conf(&format!("archive_mode = on\narchive_location = '{}'\nfull_page_writes = off\nmax_wal_size = '64MB'", archive.display()));
    a.start();
    a.sql(journal::SCHEMA);
    a.pgbench(&["-i", "-q", "-s", "2"]);
    let images = || a.sql("select wal_fpi from pg_stat_wal").parse::<u64>().expect("a number");
    let load = Journal::start(&a, 2);
    let mut bench = a
        .pgbench_command(&["-n", "-c", "2", "-R", "200", "-T", "600"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("pgbench");
    load.wait_for(50);
    let session = Held::open(&a);
    let start = session.sql("select pg_backup_start('by hand', true)").expect("pg_backup_start").remove(0);
    let before = images();
    let made = copy(&a, "copy");
    // Pages are written in place while the backup runs, of which the copy then may have halves.
    let seen = load.count();
    a.sql("checkpoint");
    load.wait_for(seen + 50);
    let [end, label, map] = session.stop(true);
    assert_eq!(session.notices().last().map(String::as_str), Some("NOTICE: all required WAL segments have been archived"));
    assert!(images() > before, "pages were written while the backup ran");
    assert_eq!(map, "");
    assert_eq!(field(&label, "LABEL:"), "by hand");
    assert_eq!(field(&label, "BACKUP METHOD:"), "streamed");
    assert_eq!(field(&label, "BACKUP FROM:"), "primary");
    assert_eq!(field(&label, "START TIMELINE:"), "1");
    assert!(field(&label, "START WAL LOCATION:").starts_with(&format!("{start} (file 0000000100000000")), "{label}");

    let history = fs::read_dir(&archive).expect("the archive").filter_map(|e| e.expect("an entry").file_name().into_string().ok());
    let history = history.filter(|name| name.ends_with(".backup")).max().expect("a history file in the archive");
    let history = fs::read_to_string(archive.join(history)).expect("the history file");
    assert!(field(&history, "STOP WAL LOCATION:").starts_with(&format!("{end} (file 0000000100000000")), "{history}");
    assert_eq!(field(&history, "STOP TIMELINE:"), "1");
    assert!(label.lines().all(|line| history.contains(line)), "{history}\n{label}");

    fs::write(made.join("backup_label"), &label).expect("backup_label");
    let torn = tear(&a, &archive, &made);
    assert!(torn > 10, "{torn} pages torn");
    let other = a.home.path().join("copy for a point");
    run(Command::new("cp").arg("-a").arg(&made).arg(&other));

    bench.kill().expect("pgbench");
    bench.wait().expect("pgbench");
    let outcome = load.stop();
    let at_point = a.sql("select count(*) from journal");
    a.sql("select pg_create_restore_point('here')");
    a.sql("insert into journal values (99, 1); create table later (id int)");
    a.sql("select pg_switch_wal()");
    let last = a.sql("select pg_walfile_name(pg_current_wal_insert_lsn() - 1)");
    until("the last segment in the archive", || archive.join(&last).exists());

    let restored = |data: &Path, name: &str, target: &str| {
        let node = Node::in_directory(data, name);
        fs::write(node.data().join("recovery.signal"), "").expect("recovery.signal");
        node.conf(&format!("archive_mode = off\nrestore_location = '{}'\n{target}", archive.display()));
        node.start();
        node.wait_for("select pg_is_in_recovery()", "f");
        node
    };
    let b = restored(&made, "b", "");
    outcome.check(&b);
    assert_eq!(b.table_hashes(), a.table_hashes());
    b.assert_pgbench_adds_up();
    assert!(b.data().join("backup_label.old").exists() && !b.data().join("backup_label").exists());
    b.stop("fast");
    run(b.tool("verify").arg("-D").arg(b.data()));

    let c = restored(&other, "c", "recovery_target_name = 'here'\nrecovery_target_action = promote");
    outcome.check(&c);
    assert_eq!(c.sql("select count(*), to_regclass('later') is null from journal"), format!("{at_point}|t"));
    c.assert_pgbench_adds_up();
}

#[test]
fn a_backup_belongs_to_its_session_and_says_what_is_wrong() {
    let a = Node::start_new("a", "");
    let session = Held::open(&a);
    let error = |sql: &str| session.sql(sql).expect_err(sql);
    assert_eq!(error("select pg_backup_stop()"), "55000 backup is not in progress Did you call pg_backup_start()?");
    assert_eq!(error("select pg_backup_start(repeat('x', 1025))"), "22023 backup label too long (max 1024 bytes) ");
    session.sql("create role nobody; set role nobody").expect("a role");
    assert_eq!(error("select pg_backup_start('x')"), "42501 permission denied for function pg_backup_start ");
    session.sql("reset role; grant execute on function pg_backup_start(text, boolean) to nobody").expect("a grant");
    session.sql("set role nobody").expect("the role");
    session.sql("select pg_backup_start(label => 'x', fast => true)").expect("pg_backup_start");
    session.sql("reset role").expect("the role");
    assert_eq!(error("select pg_backup_start('x', true)"), "55000 a backup is already in progress in this session ");
    // Another session's is its own; a failed transaction ends none.
    let other = Held::open(&a);
    assert!(other.sql("select pg_backup_stop()").is_err());
    other.sql("select pg_backup_start('y', true)").expect("pg_backup_start");
    assert!(session.sql("begin; select 1/0").is_err());
    session.sql("rollback").expect("rollback");
    session.notices();
    session.stop(true);
    let said = "NOTICE: WAL archiving is not enabled; you must ensure that all required WAL segments are copied through other means to complete the backup";
    assert_eq!(session.notices(), [said]);
    session.sql("select pg_backup_start('again', true)").expect("pg_backup_start");
    session.stop(false);
    assert_eq!(session.notices(), Vec::<String>::new());
    assert!(
        fs::read_dir(a.data().join("pg_wal")).expect("pg_wal").all(|e| !e
            .expect("an entry")
            .path()
            .display()
            .to_string()
            .ends_with(".backup"))
    );

    drop(other);
    until("the warning", || a.log().contains("WARNING:  aborting backup due to backend exiting before pg_backup_stop was called"));
    // No backup, no images.
    let images = a.sql("create table t as select generate_series(1, 1000) g; checkpoint; select wal_fpi from pg_stat_wal");
    a.sql("update t set g = g + 1; checkpoint");
    assert_eq!(a.sql("select wal_fpi from pg_stat_wal"), images);
}

#[test]
fn the_end_of_a_backup_waits_for_the_archive() {
    let a = Node::init("a");
    let archive = a.home.path().join("archive");
    a.conf(&format!("archive_mode = on\narchive_location = '{}'", archive.display()));
    a.start();
    let session = Held::open(&a);
    session.sql("select pg_backup_start('x', true)").expect("pg_backup_start");
    session.sql("set statement_timeout = '200ms'").expect("set");
    let cancelled = session.sql("select pg_backup_stop()").expect_err("nothing is archived");
    assert!(cancelled.starts_with("57014"), "{cancelled}");
    session.sql("reset statement_timeout").expect("reset");
    assert_eq!(session.sql("select pg_backup_stop()").expect_err("it is over").get(..5), Some("55000"));

    // The archive comes once the client was told that it is waited for.
    session.sql("select pg_backup_start('x', true)").expect("pg_backup_start");
    session.notices();
    let notices = Arc::clone(&session.notices);
    let has = |notices: &Mutex<Vec<String>>, text: &str| notices.lock().expect("notices").iter().any(|n| n == text);
    std::thread::scope(|scope| {
        let stopped = scope.spawn(|| session.stop(true));
        let waiting = "NOTICE: base backup done, waiting for required WAL segments to be archived";
        until("the notice", || has(&notices, waiting));
        fs::create_dir(&archive).expect("the archive");
        a.reload();
        stopped.join().expect("pg_backup_stop");
    });
    assert!(has(&notices, "NOTICE: all required WAL segments have been archived"));
    let names = || fs::read_dir(&archive).expect("the archive").filter_map(|e| e.expect("an entry").file_name().into_string().ok());
    assert!(names().any(|name| name.ends_with(".backup")));

    // The stock client waits for it too, unless it takes the WAL along.
    let to = a.home.path().join("no wal");
    let mut command = Command::new(format!("{PG_BIN}/pg_basebackup"));
    let output = command.args(["-X", "none", "-c", "fast", "-N", "-d", &a.conninfo("bb"), "-D"]).arg(&to).output().expect("pg_basebackup");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("all required WAL segments have been archived"), "{said}");
    let label = fs::read_to_string(to.join("backup_label")).expect("backup_label");
    let history = names().filter(|name| name.ends_with(".backup")).max().expect("a history file");
    assert!(fs::read_to_string(archive.join(history)).expect("it").contains(field(&label, "CHECKPOINT LOCATION:")));
}

#[test]
fn a_standby_can_be_copied_and_a_promotion_spoils_the_copy() {
    let a = Node::start_new("a", "");
    a.sql("create table t (id int primary key, v text); insert into t select g, repeat('v', 100) from generate_series(1, 20000) g");
    let b = a.standby("b");
    a.wait_for_catchup(&b);
    let session = Held::open(&b);
    session.sql("select pg_backup_start('from a standby', true)").expect("pg_backup_start");
    a.sql("update t set v = 'w' where id % 3 = 0");
    a.wait_for_catchup(&b);
    let made = copy(&b, "copy");
    let [end, label, _] = session.stop(false);
    assert_eq!(field(&label, "BACKUP FROM:"), "standby");
    assert_eq!(field(&label, "MINIMUM RECOVERY ENDING LOCATION:"), end);
    fs::write(made.join("backup_label"), &label).expect("backup_label");
    let c = Node::in_directory(&made, "c");
    c.follow(&a);
    c.start();
    a.wait_for_catchup(&c);
    assert_eq!(c.table_hashes(), a.table_hashes());

    session.sql("select pg_backup_start('too long', true)").expect("pg_backup_start");
    b.promote();
    let error = session.sql("select pg_backup_stop()").expect_err("promoted");
    let expected = "55000 the standby was promoted during online backup This means that the backup being taken is corrupt and should not be used. \
                    Try taking another online backup.";
    assert_eq!(error, expected);
}
