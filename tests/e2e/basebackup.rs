//! Backups taken by the stock `pg_basebackup`: compressed on the server, kept on the server, of a damaged node.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Output};

use crate::support::node::{Node, PG_BIN};

fn pg_basebackup(node: &Node, args: &[&str]) -> Output {
    let mut command = Command::new(format!("{PG_BIN}/pg_basebackup"));
    command.args(["-N", "-c", "fast", "-d", &node.conninfo("backup")]).args(args).output().expect("pg_basebackup")
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
    a.start();
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
