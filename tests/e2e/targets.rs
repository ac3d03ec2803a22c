//! Where recovery ends: targets, timelines in the archive, and what runs at its end and at restartpoints.

use std::fs;

use crate::archive::{archive_of, names};
use crate::support::node::{Node, run, until};

#[test]
fn recovery_ends_at_each_kind_of_target_as_postgresql_does() {
    let a = Node::init("a");
    let (dir, quoted) = archive_of(&a);
    a.conf(&format!("archive_mode = on\narchive_location = '{quoted}'"));
    a.start();
    a.sql("create table t (id int); insert into t values (1)");
    let base = a.clone_to("base");
    fs::remove_file(base.data().join("standby.signal")).expect("standby.signal");
    base.follow_at("");
    fs::remove_file(base.data().join("standby.signal")).expect("standby.signal");
    a.sql("insert into t values (2)");
    let xid = a.sql("select xmin from t where id = 2");
    let lsn = a.sql("select pg_current_wal_insert_lsn()");
    let time = a.sql("select pg_sleep(0.01), now()").split_off(1);
    a.sql("insert into t values (3)");
    a.sql("select pg_create_restore_point('here')");
    a.sql("insert into t values (4)");
    let old = a.sql("select pg_walfile_name(pg_current_wal_insert_lsn())");
    a.sql("select pg_switch_wal()");
    until("the first timeline's last segment", || names(&dir).contains(&old));
    // A second timeline, of its own primary, in the same archive.
    let b = a.clone_to("b");
    b.conf(&format!("archive_mode = on\narchive_location = '{quoted}'"));
    b.start();
    a.sql("create table u ()");
    a.wait_for_catchup(&b);
    a.kill();
    b.promote();
    b.sql("insert into t values (20)");
    let new = b.sql("select pg_walfile_name(pg_current_wal_insert_lsn())");
    assert!(new.starts_with("00000002"));
    b.sql("select pg_switch_wal()");
    until("the second timeline's segment", || names(&dir).contains(&new));
    assert!(names(&dir).contains(&"00000002.history".to_owned()));
    // The old timeline's last segment was not full, and does not pass for one that is.
    assert!(names(&dir).iter().any(|name| name.starts_with("00000001") && name.ends_with(".partial")), "{:?}", names(&dir));

    let cleaned = a.home.path().join("ended");
    let recovered = |conf: &str| {
        let copy = a.home.path().join("a copy");
        run(std::process::Command::new("cp").arg("-a").arg(base.data()).arg(&copy));
        let node = Node::in_directory(&copy, "c");
        fs::write(node.data().join("recovery.signal"), "").expect("recovery.signal");
        node.conf(&format!("archive_mode = off\nrestore_location = '{quoted}'\n{conf}"));
        node
    };
    let promote = "recovery_target_action = promote";
    for (target, rows, why) in [
        (format!("recovery_target_xid = '{xid}'"), "1,2", format!("after transaction {xid}")),
        (format!("recovery_target_xid = '{xid}'\nrecovery_target_inclusive = off"), "1", format!("before transaction {xid}")),
        (format!("recovery_target_lsn = '{lsn}'\nrecovery_target_inclusive = off"), "1,2", format!("before LSN {lsn}")),
        (format!("recovery_target_time = '{time}'"), "1,2", "before 20".to_owned()),
        ("recovery_target_name = 'here'\nrecovery_target_timeline = '1'".to_owned(), "1,2,3", "at restore point \"here\"".to_owned()),
        ("recovery_target = 'immediate'".to_owned(), "1", "reached consistency".to_owned()),
        ("recovery_target_timeline = '1'".to_owned(), "1,2,3,4", String::new()),
        (
            format!("recovery_target_timeline = 'latest'\nrecovery_end_command = 'echo %r > {}'", cleaned.display()),
            "1,2,3,4,20",
            String::new(),
        ),
    ] {
        let c = recovered(&format!("{target}\n{promote}"));
        c.start();
        c.wait_for("select pg_is_in_recovery()", "f");
        assert_eq!(c.sql("select string_agg(id::text, ',' order by id) from t"), rows, "{target}");
        c.sql("insert into t values (5)");
        let history = fs::read_to_string(c.data().join("pg_wal/00000003.history"));
        let history = history.expect("two timelines are in the archive, so the next is the third");
        assert!(history.lines().last().is_some_and(|line| line.contains(&why)), "{target}: {history}");
    }
    // The restart point is the backup's checkpoint, on the timeline that was written on then, whatever timelines were followed since.
    let restart = fs::read_to_string(&cleaned).expect("recovery_end_command ran");
    let label = fs::read_to_string(base.data().join("backup_label")).expect("backup_label");
    assert!(restart.starts_with("00000001") && label.contains(&format!("(file {})", restart.trim())), "{restart}{label}");

    // Pause: readable, resuming promotes. Shutdown: stopped at the target, and goes on from there.
    let c = recovered("recovery_target_name = 'here'");
    c.start();
    c.wait_for("select pg_get_wal_replay_pause_state(), string_agg(id::text, ',' order by id) from t", "paused|1,2,3");
    c.sql("select pg_wal_replay_resume()");
    c.wait_for("select pg_is_in_recovery()", "f");
    assert_eq!(c.sql("select max(id) from t"), "3");
    let d = recovered("recovery_target_name = 'here'\nrecovery_target_action = shutdown");
    // Whether it is seen to be ready before it stops is a matter of luck.
    d.try_start();
    until("the stop", || d.log().contains("database system is shut down"));
    assert!(d.log().contains("recovery stopping at restore point \"here\"") && d.data().join("recovery.signal").exists(), "{}", d.log());
    d.conf(promote);
    d.start();
    d.wait_for("select pg_is_in_recovery(), max(id) from t", "f|3");
    // What cannot be reached is not taken for the end.
    let e = recovered("recovery_target_name = 'never'");
    e.try_start();
    until("the refusal", || e.log().contains("recovery ended before configured recovery target was reached"));
    let f = recovered("recovery_target_timeline = '9'");
    assert!(!f.try_start().status.success());
    assert!(f.log().contains("recovery target timeline 9 does not exist"), "{}", f.log());
}

#[test]
fn a_standby_cleans_its_archive_after_each_restartpoint() {
    let a = Node::init("a");
    let (dir, quoted) = archive_of(&a);
    a.conf(&format!("archive_mode = on\narchive_location = '{quoted}'"));
    a.start();
    a.sql("create table t (id int)");
    let b = a.clone_to("b");
    b.follow_at("");
    let program = env!("CARGO_BIN_EXE_afterimage");
    b.conf(&format!(
        "restore_location = '{quoted}'\narchive_cleanup_command = '\"{program}\" archive cleanup \"{}\" %r'",
        quoted.replace('%', "%%")
    ));
    b.start();
    for n in 1..=3 {
        a.sql(&format!("insert into t values ({n})"));
        a.sql("checkpoint");
        a.sql("select pg_switch_wal()");
        b.wait_for("select count(*) from t", &n.to_string());
    }
    let first = names(&dir).into_iter().find(|name| name.len() == 24).expect("a segment");
    b.wait_for("select redo_lsn < pg_last_wal_replay_lsn() from pg_control_checkpoint()", "t");
    b.sql("checkpoint");
    until("the first segment to go", || !names(&dir).contains(&first));
    a.sql("insert into t values (4)");
    a.sql("select pg_switch_wal()");
    b.wait_for("select count(*) from t", "4");
}
