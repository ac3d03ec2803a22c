//! An archive without scripts: segments go to a directory or a bucket by setting, and come back from it.

use std::fs;

use crate::support::node::{Node, free_port, run, until};

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

#[test]
fn a_promoted_standby_archives_what_it_wrote_itself_and_keeps_no_status_of_what_is_gone() {
    let a = Node::init("a");
    let dir = a.home.path().join("archive");
    fs::create_dir(&dir).expect("a directory");
    // One archive for both, in which nothing is replaced: as PostgreSQL's manual has it.
    let settings = format!("archive_mode = on\narchive_command = 'test ! -f \"{0}/%f\" && cp \"%p\" \"{0}/%f\"'", dir.display());
    a.conf(&settings);
    a.start();
    a.sql("create table t (id int)");
    let b = a.clone_to("b");
    b.conf(&settings);
    b.conf("max_wal_size = '32MB'\nmin_wal_size = '32MB'");
    b.start();
    for n in 1..=3 {
        a.sql(&format!("insert into t values ({n})"));
        a.sql("select pg_switch_wal()");
    }
    a.wait_for_catchup(&b);
    a.stop("fast");
    let before = names(&dir);
    b.promote();
    b.sql("insert into t values (4)");
    b.sql("select pg_switch_wal()");
    until("a segment of the new timeline", || names(&dir).iter().any(|name| name.starts_with("00000002") && name.len() == 24));
    let again = b.sql("select failed_count, last_failed_wal from pg_stat_archiver");
    assert_eq!(again, "0|", "in the archive before: {before:?}");
    let new: Vec<String> = names(&dir).into_iter().filter(|name| !before.contains(name) && name.starts_with("00000001")).collect();
    assert!(new.iter().all(|name| name.ends_with(".partial")), "{new:?}");

    // What is recycled leaves no status behind, and what was set aside goes in time.
    let (wal, status) = (b.data().join("pg_wal"), b.data().join("pg_wal/archive_status"));
    until("the leftovers to go", || {
        b.sql("insert into t values (5)");
        b.sql("select pg_switch_wal()");
        b.sql("checkpoint");
        let here = names(&wal);
        let done: Vec<String> = names(&status).iter().filter_map(|name| name.strip_suffix(".done").map(str::to_owned)).collect();
        let gone = done.iter().filter(|name| !name.ends_with(".history") && !here.contains(name)).count();
        !here.iter().any(|name| name.ends_with(".partial"))
            && !done.iter().any(|name| name.starts_with("00000001") && name.len() == 24)
            && gone <= 3
    });
}

#[test]
fn a_segment_of_another_size_is_not_the_end_of_the_archive() {
    let a = Node::init("a");
    let (dir, quoted) = archive_of(&a);
    a.conf(&format!("archive_mode = on\narchive_location = '{quoted}'"));
    a.start();
    a.sql("create table t (id int); insert into t values (1)");
    let base = a.clone_to("base");
    let b = base.copy("b");
    b.follow_at("");
    b.conf(&format!("restore_location = '{quoted}'"));
    a.sql("select pg_switch_wal()");
    a.sql("insert into t values (2)");
    let name = a.sql("select pg_walfile_name(pg_current_wal_insert_lsn())");
    a.sql("select pg_switch_wal()");
    a.sql("insert into t values (3)");
    a.stop("fast");
    let path = dir.join(&name);
    let whole = fs::read(&path).expect("an archived segment");

    // A standby waits for the rest; its sessions read what there is.
    fs::write(&path, &whole[..1 << 20]).expect("a short file");
    b.start();
    b.wait_for("select count(*) from t", "1");
    fs::write(&path, &whole).expect("the segment");
    b.wait_for("select count(*) from t", "3");
    b.stop("fast");

    // Recovery that is to end where the archive does would end there, and lose what follows.
    let recovered = || {
        let node = base.copy("c");
        fs::remove_file(node.data().join("standby.signal")).expect("standby.signal");
        fs::write(node.data().join("recovery.signal"), "").expect("recovery.signal");
        node.conf(&format!("restore_location = '{quoted}'"));
        node
    };
    for bytes in [whole[..1 << 20].to_vec(), [&whole[..], &[0]].concat()] {
        fs::write(&path, &bytes).expect("another size");
        let c = recovered();
        c.try_start();
        let said = format!("FATAL:  archive file \"{name}\" has wrong size: {} instead of {}", bytes.len(), whole.len());
        until(&said, || c.log().contains(&said));
    }
    fs::write(&path, &whole).expect("the segment");
    let c = recovered();
    c.start();
    c.wait_for("select pg_is_in_recovery(), count(*) from t", "f|3");
}

#[test]
fn a_backup_without_wal_begins_with_what_the_archive_has() {
    let a = Node::init("a");
    let (dir, quoted) = archive_of(&a);
    a.conf(&format!("archive_mode = on\narchive_location = '{quoted}'\nmax_wal_size = '32MB'\nmin_wal_size = '32MB'"));
    a.start();
    a.sql("create table t (id int); insert into t values (1)");
    let data = a.home.path().join("copy");
    run(a.tool("basebackup").arg("-D").arg(&data).args(["-R", "-c", "fast", "-N", "-X", "none", "-d", &a.conninfo("b")]));
    let label = fs::read_to_string(data.join("backup_label")).expect("backup_label");
    let first = label.split("(file ").nth(1).and_then(|rest| rest.get(..24)).expect("the first segment").to_owned();
    let wal = a.data().join("pg_wal");
    until("the primary to have no more of it", || {
        a.sql("insert into t values (2)");
        a.sql("select pg_switch_wal()");
        a.sql("checkpoint");
        !names(&wal).contains(&first)
    });
    assert!(names(&dir).contains(&first));
    let b = Node::in_directory(&data, "b");
    b.conf(&format!("restore_location = '{quoted}'"));
    b.start();
    a.wait_for_catchup(&b);
    assert_eq!(b.sql("select count(*) from t"), a.sql("select count(*) from t"));
}

/// A local S3 server: moto, which scripts/install-deps installs.
struct Moto {
    port: u16,
    process: std::process::Child,
}

impl Moto {
    /// `actions`: after so many it asks for credentials, and knows none.
    fn start(actions: Option<u32>) -> Self {
        let cache = std::env::var("XDG_CACHE_HOME").unwrap_or_else(|_| format!("{}/.cache", std::env::var("HOME").expect("HOME")));
        let program = format!("{cache}/afterimage/moto/bin/moto_server");
        let port = free_port();
        let mut command = std::process::Command::new(&program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        if let Some(actions) = actions {
            command.env("INITIAL_NO_AUTH_ACTION_COUNT", actions.to_string());
        }
        let process = command.spawn().unwrap_or_else(|e| panic!("{program}: {e}; see scripts/install-deps"));
        let moto = Self { port, process };
        until("a bucket", || moto.make_bucket().unwrap_or(false));
        moto
    }

    fn make_bucket(&self) -> std::io::Result<bool> {
        use std::io::{Read as _, Write as _};
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", self.port))?;
        write!(socket, "PUT /wal HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", self.port)?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    }

    fn location(&self) -> String {
        format!("s3://wal/a cluster/1?endpoint=http://127.0.0.1:{}&region=us-east-1", self.port)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

const CREDENTIALS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "us"), ("AWS_SECRET_ACCESS_KEY", "secret")];

#[test]
fn a_bucket_serves_as_an_archive_too() {
    let mut moto = Moto::start(None);
    let location = moto.location();
    let a = Node::init("a");
    // One gets its credentials from its environment, the other from a file.
    a.conf(&format!("archive_mode = on\narchive_location = '{location}'"));
    a.start_with(&CREDENTIALS);
    a.sql("create table t (id int); insert into t values (1)");
    let (b, c) = (a.clone_to("b"), a.clone_to("c"));
    let file = a.home.path().join("credentials");
    fs::write(&file, "[default]\naws_access_key_id = us\naws_secret_access_key = secret\n").expect("a file");
    b.follow_at("");
    b.conf(&format!("restore_location = '{location}&credentials={}'", file.display()));
    b.start();
    for n in 2..=4 {
        a.sql(&format!("insert into t values ({n})"));
        if n == 4 {
            a.sql("select pg_create_restore_point('here'); insert into t values (0)");
        }
        a.sql("select pg_switch_wal()");
        b.wait_for("select count(*) from t where id > 0", &n.to_string());
    }
    a.wait_for("select archived_count >= 3, failed_count from pg_stat_archiver", "t|0");
    let last = a.sql("select last_archived_wal from pg_stat_archiver");

    // Recovery to a point, from the bucket alone.
    fs::remove_file(c.data().join("standby.signal")).expect("standby.signal");
    fs::write(c.data().join("recovery.signal"), "").expect("recovery.signal");
    c.conf(&format!("restore_location = '{location}'\nrecovery_target_name = 'here'\nrecovery_target_action = promote"));
    c.start_with(&CREDENTIALS);
    c.wait_for("select pg_is_in_recovery(), count(*) from t", "f|4");

    let archive = |args: &[&str]| a.tool("archive").args(args).envs(CREDENTIALS).output().expect("afterimage archive");
    let path = |name: &str| a.home.path().join(name).display().to_string();
    let names = || String::from_utf8(archive(&["list", &location]).stdout).expect("names");
    assert!(names().lines().any(|name| name == last), "{}", names());
    assert_eq!(archive(&["get", &location, &last, &path("restored")]).status.code(), Some(0));
    assert_eq!(fs::read(path("restored")).expect("a file"), fs::read(a.data().join("pg_wal").join(&last)).expect("a segment"));
    assert_eq!(archive(&["get", &location, "0000000900000000000000FF", &path("none")]).status.code(), Some(1));
    // The same again is fine, another file is not.
    assert_eq!(archive(&["put", &location, &path("restored"), &last]).status.code(), Some(0));
    fs::write(path("other"), "another cluster's").expect("a file");
    let refused = archive(&["put", &location, &path("other"), &last]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("already exists with different contents"), "{refused:?}");
    assert_eq!(archive(&["cleanup", &location, &last]).status.code(), Some(0));
    assert_eq!(names().lines().filter(|name| name.len() == 24 && **name < *last).count(), 0, "{}", names());

    // A store that is away is not the end of the archive: failures are counted, and it goes on when there is one again.
    moto.process.kill().expect("kill");
    moto.process.wait().expect("wait");
    assert_eq!(archive(&["get", &location, &last, &path("none")]).status.code(), Some(200));
    a.sql("insert into t values (5)");
    let waiting = a.sql("select pg_walfile_name(pg_current_wal_insert_lsn())");
    a.sql("select pg_switch_wal()");
    a.wait_for("select failed_count > 0, last_failed_wal from pg_stat_archiver", &format!("t|{waiting}"));
    assert_eq!(b.sql("select count(*) from t where id > 0"), "4");
    let moto = Moto::start(None);
    a.conf(&format!("archive_location = '{}'", moto.location()));
    a.reload();
    a.wait_for("select last_archived_wal from pg_stat_archiver", &waiting);
    let list = archive(&["list", &moto.location()]);
    assert!(String::from_utf8_lossy(&list.stdout).contains(&waiting), "{list:?}");
}

#[test]
fn a_bucket_says_why_it_cannot_be_used() {
    let moto = Moto::start(Some(1));
    let location = moto.location();
    let a = Node::init("a");
    a.conf(&format!("archive_mode = on\narchive_location = '{location}'"));
    a.start_with(&CREDENTIALS);
    a.sql("create table t (id int); select pg_switch_wal()");
    a.wait_for("select failed_count > 0, archived_count from pg_stat_archiver", "t|0");
    let log = a.log();
    assert!(log.contains("could not put \"s3://wal/a cluster/1/0000000100000000") && log.contains("InvalidAccessKeyId"), "{log}");
    assert!(log.contains("archive command failed with exit code 1"), "{log}");

    let said = |location: &str| {
        let output = a.tool("archive").args(["list", location]).output().expect("afterimage archive");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said("s3://wal?secret_access_key=x").contains("credentials do not belong into a setting"));
    assert!(said("s3://wal?credentials=/no/such/file").contains("could not read \"/no/such/file\": No such file or directory"));
    assert!(said("s3://").contains("invalid archive location \"s3://\""));
    fs::write(a.home.path().join("empty"), "").expect("a file");
    assert!(said(&format!("{location}&credentials={}/empty", a.home.path().display())).contains("has no aws_access_key_id"));
}
