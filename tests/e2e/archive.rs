//! An archive without scripts: segments go to a directory by setting, and come back from it.

use std::fs;

use crate::support::node::{Node, run, until};

pub(crate) fn archive_of(a: &Node) -> (std::path::PathBuf, String) {
    let dir = a.home.path().join("the archive's 100% place");
    fs::create_dir(&dir).expect("a directory");
    let quoted = dir.display().to_string().replace('\'', "''");
    (dir, quoted)
}

pub(crate) fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).expect("the archive").map(|e| e.expect("an entry").file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}

#[test]
fn segments_are_archived_and_restored_by_setting_through_a_promotion() {
    let a = Node::init("a");
    let (dir, quoted) = archive_of(&a);
    a.conf(&format!("archive_mode = on\narchive_location = '{quoted}'\nmax_wal_size = '32MB'\nmin_wal_size = '32MB'"));
    a.start();
    a.sql("create table t (id int); insert into t values (1)");
    let b = a.clone_to("b");
    // Nothing but the archive leads to b: no upstream, and always: what it restores it archives to a place of its own.
    let own = b.home.path().join("own");
    fs::create_dir(&own).expect("a directory");
    b.follow_at("");
    b.conf(&format!("restore_location = '{quoted}'\narchive_mode = always\narchive_location = '{}'", own.display()));
    b.start();
    for n in 2..=4 {
        a.sql(&format!("insert into t values ({n})"));
        a.sql("select pg_switch_wal()");
        b.wait_for("select count(*) from t", &n.to_string());
    }
    a.wait_for("select archived_count >= 3, failed_count, last_failed_wal is null from pg_stat_archiver", "t|0|t");
    let last = a.sql("select last_archived_wal from pg_stat_archiver");
    until("the last segment in the archive", || names(&dir).contains(&last));
    until("the same in the standby's own", || names(&own).contains(&last));
    assert!(names(&dir).iter().all(|name| !name.starts_with('.')));
    assert_eq!(fs::read(dir.join(&last)).expect("a segment"), fs::read(own.join(&last)).expect("a segment"));

    // The counts outlive a clean stop.
    let counted = a.sql("select archived_count from pg_stat_archiver").parse::<u64>().expect("a number");
    a.restart();
    assert!(a.sql("select archived_count from pg_stat_archiver").parse::<u64>().expect("a number") >= counted);

    b.promote();
    b.sql("insert into t values (5)");
    b.sql("select pg_switch_wal()");
    until("the history of the new timeline", || names(&own).iter().any(|name| name == "00000002.history"));
    until("a segment of it", || names(&own).iter().any(|name| name.starts_with("00000002") && name.len() == 24));
}

#[test]
fn an_archive_that_refuses_is_tried_again_and_nothing_in_it_is_replaced() {
    let a = Node::init("a");
    let (dir, quoted) = archive_of(&a);
    a.conf(&format!("archive_mode = on\narchive_location = '{quoted}'"));
    a.start();
    let name = a.sql("select pg_walfile_name(pg_current_wal_insert_lsn())");
    fs::write(dir.join(&name), "another cluster's").expect("a file in the way");
    a.sql("create table t (id int); insert into t values (1); select pg_switch_wal()");
    a.wait_for("select failed_count > 0, last_failed_wal from pg_stat_archiver", &format!("t|{name}"));
    assert!(a.log().contains(&format!("archive file \"{name}\" already exists with different contents")), "{}", a.log());
    assert!(a.log().contains("archive command failed with exit code 1"), "{}", a.log());
    assert_eq!(fs::read_to_string(dir.join(&name)).expect("the file"), "another cluster's");
    fs::remove_file(dir.join(&name)).expect("the file");
    a.reload();
    a.wait_for("select last_archived_wal from pg_stat_archiver", &name);
    assert!(a.sql("select failed_count from pg_stat_archiver").parse::<u64>().expect("a number") > 0);
    let listed = run(a.tool("archive").arg("list").arg(&dir));
    assert!(listed.lines().any(|line| line == name), "{listed}");
    let gone = a.tool("archive").arg("get").arg(&dir).arg("000000090000000000000009").arg(a.home.path().join("x")).output();
    assert_eq!(gone.expect("archive get").status.code(), Some(1));
    let unreachable = a.tool("archive").arg("get").args(["/no/such/place", &name]).arg(a.home.path().join("x")).output();
    assert_eq!(unreachable.expect("archive get").status.code(), Some(200));
}

#[test]
fn recovery_to_a_point_restores_by_setting() {
    let a = Node::init("a");
    let (_dir, quoted) = archive_of(&a);
    a.conf(&format!("archive_mode = on\narchive_location = '{quoted}'"));
    a.start();
    a.sql("create table t (id int); insert into t values (1)");
    let b = a.clone_to("b");
    fs::remove_file(b.data().join("standby.signal")).expect("standby.signal");
    a.sql("insert into t values (2)");
    a.sql("select pg_create_restore_point('here')");
    a.sql("insert into t values (3); select pg_switch_wal()");
    a.wait_for("select archived_count > 0 from pg_stat_archiver", "t");
    a.stop("fast");
    fs::write(b.data().join("recovery.signal"), "").expect("recovery.signal");
    b.conf(&format!("restore_location = '{quoted}'\nrecovery_target_name = 'here'\nrecovery_target_action = promote"));
    b.start();
    b.wait_for("select pg_is_in_recovery(), (select count(*) from t)", "f|2");
}

#[test]
fn a_segment_is_finished_after_archive_timeout_if_something_is_in_it() {
    let a = Node::init("a");
    let (dir, quoted) = archive_of(&a);
    a.conf(&format!("archive_mode = on\narchive_location = '{quoted}'\narchive_timeout = '1s'"));
    a.start();
    a.sql("create table t (id int)");
    let name = a.sql("select pg_walfile_name(pg_current_wal_insert_lsn())");
    until("the segment in the archive", || names(&dir).contains(&name));
}
