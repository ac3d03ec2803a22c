//! Backups taken by the stock `pg_basebackup`: compressed on the server, kept on the server, of a damaged node.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Output};

use crate::support::node::{Node, PG_BIN};

fn pg_basebackup(node: &Node, args: &[&str]) -> Output {
    let mut command = Command::new(format!("{PG_BIN}/pg_basebackup"));
    command.args(["-N", "-c", "fast", "-d", &node.conninfo("backup")]).args(args).output().expect("pg_basebackup")
}

#[test]
fn a_checkpoint_that_may_be_spread_takes_no_longer_than_its_pages_are_worth() {
    // Spread over the whole interval it would take most of an hour.
    let a = Node::start_new("a", "checkpoint_timeout = '1h'\nautovacuum = off");
    a.sql("create table t (id int)");
    a.sql("checkpoint");
    a.sql("insert into t values (1)");
    let dir = a.home.path().join("backup");
    let mut backup = Command::new(format!("{PG_BIN}/pg_basebackup"));
    let output = backup.args(["-N", "-d", &a.conninfo("backup"), "-D"]).arg(&dir).output().expect("pg_basebackup");
    assert!(output.status.success(), "{}", said(&output));
    verify(&dir);
    a.sql("insert into t values (2)");
    assert_eq!(a.sql("select pg_backup_start('copy') is not null"), "t");
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn verify(dir: &std::path::Path) {
    let output = Command::new(format!("{PG_BIN}/pg_verifybackup")).args(["-n", "-q"]).arg(dir).output().expect("pg_verifybackup");
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn every_compression_and_checksum_passes_the_stock_verification() {
    let a = Node::start_new("a", "");
    a.sql("create table t as select g, repeat('x', g % 90) v from generate_series(1, 20000) g");
    let cases = [("none", "none"), ("server-gzip:3", "crc32c"), ("server-lz4", "sha224"), ("server-zstd:level=5", "sha512")];
    for (compress, checksums) in cases {
        let dir = a.home.path().join(compress.replace(':', "_"));
        let target = dir.display().to_string();
        let done = pg_basebackup(&a, &["-D", &target, "--compress", compress, "--manifest-checksums", checksums]);
        assert!(done.status.success(), "{compress}: {}", said(&done));
        verify(&dir);
        assert!(!dir.join("pg_dblwr").exists());
    }
}

fn ours(node: &Node, args: &[&str]) -> Output {
    let mut command = node.tool("basebackup");
    command.args(["-N", "-c", "fast", "-d", &node.conninfo("backup")]).args(args).output().expect("afterimage basebackup")
}

fn unpack(archive: &std::path::Path, into: &std::path::Path) {
    fs::create_dir_all(into).expect("a directory");
    let bytes = fs::read(archive).expect("an archive");
    let plain = match archive.extension().and_then(|e| e.to_str()) {
        Some("gz") => {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&bytes[..]), &mut plain).expect("gzip");
            plain
        }
        Some("zst") => zstd::decode_all(&bytes[..]).expect("zstd"),
        Some("lz4") => {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut lz4_flex::frame::FrameDecoder::new(&bytes[..]), &mut plain).expect("lz4");
            plain
        }
        _ => bytes,
    };
    tar::Archive::new(&plain[..]).unpack(into).expect("a tar archive");
}

/// Tar files that a standby is made of, compressed here or there; and the same unpacked on arrival.
#[test]
fn our_own_client_keeps_tar_files_of_every_compression_and_standbys_start_from_them() {
    let a = Node::start_new("a", "");
    a.sql("create table t as select g, repeat('x', g % 90) v from generate_series(1, 20000) g");
    let archives = ["base.tar", "base.tar.gz", "base.tar.lz4", "base.tar.zst", "base.tar.gz", "base.tar.zst"];
    for (n, compress) in ["none", "gzip:1", "client-lz4", "client-zstd:level=2", "server-gzip", "server-zstd"].into_iter().enumerate() {
        let dir = a.home.path().join(format!("tar{n}"));
        let done = ours(&a, &["-D", &dir.display().to_string(), "-Ft", "-R", "-v", "-Z", compress]);
        assert!(done.status.success(), "{compress}: {}", said(&done));
        assert!(said(&done).contains("pg_basebackup: base backup completed"), "{}", said(&done));
        let wal = if compress == "gzip:1" { "pg_wal.tar.gz" } else { "pg_wal.tar" };
        let unpacked = a.home.path().join(format!("unpacked{n}"));
        unpack(&dir.join(archives[n]), &unpacked);
        unpack(&dir.join(wal), &unpacked.join("pg_wal"));
        assert!(fs::read_to_string(unpacked.join("postgresql.auto.conf")).expect("settings").contains("primary_conninfo = "));
        assert!(unpacked.join("standby.signal").exists());
        fs::copy(dir.join("backup_manifest"), unpacked.join("backup_manifest")).expect("the manifest");
        let verified = a.tool("verifybackup").args(["-q", "-i", "postgresql.auto.conf", "-i", "standby.signal"]).arg(&unpacked).output();
        let verified = verified.expect("verifybackup");
        assert!(verified.status.success(), "{compress}: {}", said(&verified));
    }
    let b = a.standby_in(&a.home.path().join("unpacked3"), "b");
    a.wait_for_catchup(&b);
    assert_eq!(a.table_hashes(), b.table_hashes());

    for compress in ["server-gzip:9", "server-lz4", "server-zstd"] {
        let dir = a.home.path().join(compress.replace(':', "_"));
        let done = ours(&a, &["-D", &dir.display().to_string(), "-Z", compress, "--manifest-checksums", "sha256"]);
        assert!(done.status.success(), "{compress}: {}", said(&done));
        verify(&dir);
    }
}

#[test]
fn our_own_client_writes_to_standard_output_and_to_targets() {
    let a = Node::start_new("a", "");
    a.sql("create table t as select g from generate_series(1, 5000) g");
    let done = ours(&a, &["-D", "-", "-Ft", "-X", "fetch", "-z", "-R"]);
    assert!(done.status.success(), "{}", said(&done));
    let (archive, unpacked) = (a.home.path().join("out.tar.gz"), a.home.path().join("out"));
    fs::write(&archive, &done.stdout).expect("a file");
    unpack(&archive, &unpacked);
    let verified = a.tool("verifybackup").args(["-q", "-i", "postgresql.auto.conf", "-i", "standby.signal"]).arg(&unpacked).output();
    let verified = verified.expect("verifybackup");
    assert!(verified.status.success(), "{}", said(&verified));

    let kept = a.home.path().join("kept");
    let target = format!("server:{}", kept.display());
    let done = ours(&a, &["-t", &target, "-X", "fetch", "-Z", "zstd", "-P"]);
    assert!(done.status.success(), "{}", said(&done));
    assert!(kept.join("base.tar.zst").exists() && kept.join("backup_manifest").exists());
    assert!(said(&done).contains("(100%), 1/1 tablespace"), "{}", said(&done));
    assert!(ours(&a, &["-t", "blackhole", "-X", "none"]).status.success());
    let refused = ours(&a, &["-t", "nowhere", "-X", "none"]);
    assert!(said(&refused).contains("could not initiate base backup: ERROR:  unrecognized target: \"nowhere\""), "{}", said(&refused));
}

#[test]
fn a_running_backup_shows_how_far_it_is() {
    let a = Node::start_new("a", "");
    a.sql("create table t as select g, repeat('x', 500) v from generate_series(1, 20000) g");
    let dir = a.home.path().join("slow").display().to_string();
    let mut backup = a.tool("basebackup");
    // 10 MB of a table at 1 MB/s: time enough to look.
    backup.args(["-N", "-c", "fast", "-r", "1M", "-d", &a.conninfo("slow"), "-D", &dir]);
    let mut running = backup.spawn().expect("afterimage basebackup");
    let shown = "select phase, backup_total > 10000000, backup_streamed > 0 and backup_streamed <= backup_total, tablespaces_total, tablespaces_streamed \
                 from pg_stat_progress_basebackup";
    a.wait_for(shown, "streaming database files|t|t|1|0");
    assert_eq!(a.sql("select state from pg_stat_replication where application_name = 'slow' order by state limit 1"), "backup");
    running.kill().expect("kill");
    running.wait().expect("its end");
    a.wait_for("select count(*) from pg_stat_progress_basebackup", "0");
}

#[test]
fn a_killed_stream_of_wal_ends_the_backup_and_a_whole_one_moves_the_slot() {
    let a = Node::start_new("a", "");
    a.sql("create table t as select g, repeat('x', 500) v from generate_series(1, 20000) g");
    let dir = a.home.path().join("slow");
    let mut backup = a.tool("basebackup");
    backup.args(["-N", "-c", "fast", "-r", "1M", "-d", &a.conninfo("slow"), "-D"]).arg(&dir).stderr(std::process::Stdio::piped());
    let running = backup.spawn().expect("afterimage basebackup");
    a.wait_for(
        "select count(pg_terminate_backend(pid)) from pg_stat_replication where application_name = 'slow' and state = 'streaming'",
        "1",
    );
    let ended = running.wait_with_output().expect("its end");
    assert!(!ended.status.success() && said(&ended).contains("error: background process terminated unexpectedly"), "{}", said(&ended));
    assert!(!dir.exists());

    let done = ours(&a, &["-D", &dir.display().to_string(), "-C", "-S", "s"]);
    assert!(done.status.success(), "{}", said(&done));
    let before = a.sql("select restart_lsn from pg_replication_slots");
    a.sql("select pg_switch_wal()");
    let again = ours(&a, &["-D", &a.home.path().join("again").display().to_string(), "-S", "s"]);
    assert!(again.status.success(), "{}", said(&again));
    a.wait_for(&format!("select restart_lsn > '{before}' from pg_replication_slots"), "t");
}

#[test]
fn our_own_client_cleans_up_after_a_failure_unless_told_not_to() {
    let a = Node::start_new("a", "");
    let (dir, empty) = (a.home.path().join("new"), a.home.path().join("empty"));
    fs::create_dir(&empty).expect("a directory");
    for target in [&dir, &empty] {
        let failed = ours(&a, &["-D", &target.display().to_string(), "-S", "no_such_slot"]);
        assert_eq!(failed.status.code(), Some(1));
        assert!(said(&failed).contains("replication slot \"no_such_slot\" does not exist"), "{}", said(&failed));
    }
    assert!(!dir.exists() && fs::read_dir(&empty).expect("a directory").next().is_none());
    let failed = ours(&a, &["-D", &dir.display().to_string(), "-S", "no_such_slot", "-n"]);
    assert!(said(&failed).contains("not removed at user's request") && dir.exists(), "{}", said(&failed));
    let refused = ours(&a, &["-D", &dir.display().to_string()]);
    assert!(said(&refused).contains("exists but is not empty"), "{}", said(&refused));
    let wrong = ours(&a, &["-D", "x", "-z"]);
    assert!(
        said(&wrong).contains("error: only tar mode backups can be compressed") && said(&wrong).contains("hint: Try"),
        "{}",
        said(&wrong)
    );
}

#[test]
fn a_backup_stays_on_the_server_for_those_who_may_write_there() {
    let a = Node::start_new("a", "");
    a.sql("create role keeper login replication");
    let dir = a.home.path().join("kept");
    let target = format!("server:{}", dir.display());
    let as_keeper = a.conninfo("backup").replace("user=postgres", "user=keeper");
    let refused = pg_basebackup(&a, &["--target", &target, "-X", "none", "-d", &as_keeper]);
    assert!(said(&refused).contains("pg_write_server_files role"), "{}", said(&refused));
    assert!(!dir.exists());
    a.sql("grant pg_write_server_files to keeper");
    let done = pg_basebackup(&a, &["--target", &target, "-X", "none", "--compress", "gzip", "-d", &as_keeper]);
    assert!(done.status.success(), "{}", said(&done));
    assert!(dir.join("base.tar.gz").exists() && dir.join("backup_manifest").exists());
    let again = pg_basebackup(&a, &["--target", &target, "-X", "none"]);
    assert!(said(&again).contains("exists but is not empty"), "{}", said(&again));
    let relative = pg_basebackup(&a, &["--target", "server:kept", "-X", "none"]);
    assert!(said(&relative).contains("relative path not allowed for backup stored on server"), "{}", said(&relative));
}

#[test]
fn damaged_pages_are_named_and_fail_the_backup() {
    let a = Node::start_new("a", "");
    a.sql("create table t as select g from generate_series(1, 5000) g");
    let file = a.data().join(a.sql("select pg_relation_filepath('t')"));
    a.stop("fast");
    let relation = fs::OpenOptions::new().write(true).open(&file).expect("the relation");
    for block in 0..7 {
        relation.write_all_at(&[0xee; 16], block * 8192 + 4000).expect("damage");
    }
    let checked = a.tool("checksums").arg("-D").arg(a.data()).output().expect("checksums");
    let (out, err) = (String::from_utf8_lossy(&checked.stdout).into_owned(), said(&checked));
    assert_eq!(checked.status.code(), Some(1), "{err}");
    assert!(out.contains("Bad checksums:  7") && err.matches("checksum verification failed in file").count() == 7, "{out}{err}");
    a.start();
    let running = a.tool("checksums").arg("-D").arg(a.data()).output().expect("checksums");
    assert!(said(&running).contains("error: cluster must be shut down"), "{}", said(&running));
    let dir = a.home.path().join("backup").display().to_string();
    let failed = pg_basebackup(&a, &["-D", &dir]);
    let text = said(&failed);
    assert_eq!(failed.status.code(), Some(1), "{text}");
    assert_eq!(text.matches("WARNING:  checksum verification failed in file").count(), 5, "{text}");
    assert!(text.contains("will not be reported") && text.contains("has a total of 7 checksum verification failures"), "{text}");
    assert!(text.contains("checksum error occurred") || text.contains("checksum verification failure during base backup"), "{text}");
    let anyway = pg_basebackup(&a, &["-D", &dir, "--no-verify-checksums"]);
    assert!(anyway.status.success(), "{}", said(&anyway));
}

#[test]
fn our_verification_reads_the_wal_too_and_names_what_is_wrong() {
    let a = Node::start_new("a", "");
    a.sql("create table t as select g from generate_series(1, 1000) g");
    let dir = a.home.path().join("backup");
    assert!(pg_basebackup(&a, &["-D", &dir.display().to_string(), "-X", "stream"]).status.success());
    let verify = |args: &[&str]| a.tool("verifybackup").args(args).arg(&dir).output().expect("verifybackup");
    let fine = verify(&[]);
    assert!(fine.status.success(), "{}", said(&fine));
    assert_eq!(String::from_utf8_lossy(&fine.stdout), "backup successfully verified\n");

    let file = a.sql("select pg_relation_filepath('t')");
    let relation = fs::OpenOptions::new().write(true).open(dir.join(&file)).expect("the relation");
    relation.write_all_at(b"x", 5000).expect("damage");
    fs::write(dir.join("extra"), "").expect("a file");
    fs::remove_file(dir.join("pg_hba.conf")).expect("a file");
    let wrong = verify(&[]);
    assert_eq!(wrong.status.code(), Some(1));
    for text in [
        format!("checksum mismatch for file \"{file}\""),
        "\"extra\" is present on disk but not in the manifest".to_owned(),
        "\"pg_hba.conf\" is present in the manifest but not on disk".to_owned(),
    ] {
        assert!(said(&wrong).contains(&text), "{text}: {}", said(&wrong));
    }
    assert!(verify(&["-s", "-i", "extra", "-i", "pg_hba.conf"]).status.success());
    let segment = a.sql("select redo_wal_file from pg_control_checkpoint()");
    let wal = dir.join("pg_wal").join(
        fs::read_dir(dir.join("pg_wal"))
            .expect("pg_wal")
            .filter_map(|e| e.ok()?.file_name().into_string().ok())
            .find(|n| *n == segment)
            .expect("the segment"),
    );
    fs::OpenOptions::new().write(true).open(wal).expect("the segment").write_all_at(&[0xff; 4096], 64).expect("damage");
    let broken = verify(&["-s", "-i", "extra", "-i", "pg_hba.conf"]);
    assert!(said(&broken).contains("WAL parsing failed for timeline 1"), "{}", said(&broken));
    assert!(verify(&["-n", "-s", "-i", "extra", "-i", "pg_hba.conf"]).status.success());
}

#[test]
fn control_data_and_counters_are_seen_in_sql() {
    let a = Node::start_new("a", "");
    a.sql("create table t as select g from generate_series(1, 1000) g; checkpoint");
    assert_eq!(
        a.sql("select database_block_size, bytes_per_wal_segment, data_page_checksum_version from pg_control_init()"),
        "8192|16777216|1"
    );
    assert_eq!(a.sql("select timeline_id, checkpoint_lsn >= redo_lsn from pg_control_checkpoint()"), "1|t");
    assert_eq!(a.sql("select min_recovery_end_lsn, end_of_backup_record_required from pg_control_recovery()"), "0/0|f");
    let shown = a.tool("controldata").arg("-D").arg(a.data()).output().expect("controldata");
    let id = a.sql("select system_identifier from pg_control_system()");
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&id));
    assert_eq!(a.sql("select wal_records > 0, wal_bytes > wal_records, wal_sync > 0 from pg_stat_wal"), "t|t|t");
    assert_eq!(a.sql("select checkpoints_req > 0, buffers_checkpoint > 0 from pg_stat_bgwriter"), "t|t");
    assert!(a.sql_error("select * from pg_ls_replslotdir('none')").contains("42704"));
}

#[test]
fn a_backup_over_several_connections_holds_what_one_would() {
    let a = Node::start_new("a", "");
    a.pgbench(&["-i", "-q", "-s", "2"]);
    a.sql("create table empty (id int); create unlogged table gone as select 1");
    let null = std::process::Stdio::null;
    let load = a.pgbench_command(&["-n", "-c", "2", "-R", "100", "-T", "600"]).stdout(null()).stderr(null()).spawn();
    let mut load = load.expect("pgbench");
    a.wait_for("select count(*) > 50 from pgbench_history", "t");
    let dir = a.home.path().join("parallel");
    let target = dir.display().to_string();
    let done = ours(&a, &["-D", &target, "-j", "4", "-R", "-P"]);
    assert!(done.status.success() && said(&done).contains("(100%), 1/1 tablespace"), "{}", said(&done));
    verify(&dir);
    let manifest = fs::read_to_string(dir.join("backup_manifest")).expect("the manifest");
    assert!(serde_json::from_str::<serde_json::Value>(&manifest).expect("JSON")["Files"].as_array().is_some_and(|files| files.len() > 300));
    load.kill().expect("pgbench");
    load.wait().expect("pgbench");
    let b = a.standby_in(&dir, "b");
    a.wait_for_catchup(&b);
    assert_eq!(a.table_hashes(), b.table_hashes());
    b.assert_pgbench_adds_up();

    // Too few connections left: nothing half stays behind.
    let refused = ours(&a, &["-D", &target, "-j", "20"]);
    assert!(!refused.status.success() && !dir.exists(), "{}", said(&refused));
    assert!(said(&refused).contains("max_wal_senders"), "{}", said(&refused));
    let error = said(&ours(&a, &["-D", &target, "-j", "2", "-F", "t"]));
    assert!(error.contains("-j/--jobs needs a backup in plain format"), "{error}");
    let conninfo = format!("{} replication=1", a.conninfo("part"));
    let part = Command::new("psql").args(["-XAtd", &conninfo, "-v", "VERBOSITY=verbose", "-c", "BASE_BACKUP_PART 'x'"]).output();
    let error = said(&part.expect("psql"));
    assert!(error.contains("42704") && error.contains("base backup \"x\" is not running"), "{error}");
}
