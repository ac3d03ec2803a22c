//! Our tools under PostgreSQL's names, asked the same as PostgreSQL's: what they print, to which stream, and their exit codes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::node::{Node, PG_BIN, run};
use crate::support::oracle::Oracle;

/// Exit code, standard output and standard error; both programs are called by one name.
fn answer(bin: &Path, tool: &str, args: &[&str], dir: &Path) -> (Option<i32>, String, String) {
    let program = bin.join(tool);
    let mut command = Command::new(&program);
    command
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .env_remove("PGDATA")
        .env_remove("PGHOST")
        .env_remove("PGPORT");
    let output = command.output().unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&format!("{}/", bin.display()), "");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn differences(ours: &Path, dir: &Path, questions: &[(&str, &[&str])]) -> Vec<String> {
    let mut found = Vec::new();
    for (tool, args) in questions {
        let (theirs, mine) = (answer(Path::new(PG_BIN), tool, args, dir), answer(ours, tool, args, dir));
        if theirs != mine {
            found.push(format!("{tool} {args:?}\n  PostgreSQL: {theirs:?}\n  we:         {mine:?}"));
        }
    }
    found
}

#[test]
fn tools_answer_as_postgresqls_do() {
    let node = Node::start_new("a", "archive_mode = on\narchive_location = '/nowhere'");
    let home = node.home.path();
    let links = home.join("bin");
    run(node.tool("install-links").arg(&links));
    let backup = home.join("bk");
    run(node.tool("basebackup").args(["-X", "fetch", "-c", "fast", "-N", "-D"]).arg(&backup).args(["-d", &node.conninfo("backup")]));
    node.stop("fast");

    let no_args: &[&str] = &[];
    let mut questions: Vec<(&str, &[&str])> = Vec::new();
    for tool in ["pg_waldump", "pg_controldata", "pg_resetwal", "pg_verifybackup", "pg_checksums", "pg_rewind", "pg_basebackup"] {
        let all: [&[&str]; 3] = [&["--bogus"], no_args, &["a", "b", "c"]];
        questions.extend(all.into_iter().map(|args| (tool, args)));
    }
    let dump: [&[&str]; 25] = [
        &["-s"],
        &["-s", "xyz"],
        &["-e", "xyz"],
        &["-s", "0/1"],
        &["-p", "/no/such", "-s", "0/1000000"],
        &["-p", "/proc", "-s", "0/1000000"],
        &["-n", "abc"],
        &["-n", "-5"],
        &["-B", "0"],
        &["-B", "x", "-R", "1/1/1"],
        &["-R", "1/1"],
        &["-R", "0/1/1"],
        &["-R", "1/1/0"],
        &["-R", "a/b/c"],
        &["-F", "foo"],
        &["-F", "main"],
        &["-r", "foo"],
        &["-t", "x"],
        &["-x", "abc"],
        &["--stats=foo"],
        &["-z", "-s", "0/5", "-e", "0/4"],
        &["-f"],
        &["foo"],
        &["/no/such"],
        &["/proc/000000010000000000000009"],
    ];
    questions.extend(dump.into_iter().map(|args| ("pg_waldump", args)));
    questions.push(("pg_controldata", &["/no/such"]));
    let sums: [&[&str]; 4] = [&["/no/such"], &["-f", "x", "-D", "data"], &["-f", "5", "-e", "data"], &["-D", "data", "more"]];
    questions.extend(sums.into_iter().map(|args| ("pg_checksums", args)));
    let verify: [&[&str]; 9] = [
        &["-n", "bk"],
        &["-n", "-q", "bk"],
        &["-n", "-e", "bk"],
        &["-n", "-s", "bk"],
        &["-n", "-i", "base", "bk"],
        &["-n", "-m", "/no/such", "bk"],
        &["-n", "-m", "bk/PG_VERSION", "bk"],
        &["-n", "bk", "extra"],
        &["-n", "/no/such"],
    ];
    questions.extend(verify.into_iter().map(|args| ("pg_verifybackup", args)));
    let mut found = differences(&links, home, &questions);

    // The stock program reads our control file, and says the same but for our own last line.
    let (theirs, mine) = (answer(Path::new(PG_BIN), "pg_controldata", &["data"], home), answer(&links, "pg_controldata", &["data"], home));
    let mine =
        mine.1.lines().filter(|line| !line.starts_with("Start ids of this node")).map(|line| format!("{line}\n")).collect::<String>();
    assert_eq!(theirs.1, mine);

    // Backups with damage.
    let manifest = fs::read_to_string(backup.join("backup_manifest")).expect("the manifest");
    let version = backup.join("PG_VERSION");
    let plain = fs::read(&version).expect("PG_VERSION");
    let all: [&[&str]; 4] = [&["-n", "bk"], &["-n", "-e", "bk"], &["-n", "-s", "bk"], &["-n", "-i", "PG_VERSION", "bk"]];
    let questions: Vec<(&str, &[&str])> = all.into_iter().map(|args| ("pg_verifybackup", args)).collect();
    for (what, contents) in [("longer", Some(&b"15\n\n"[..])), ("changed", Some(b"16\n")), ("missing", None)] {
        match contents {
            Some(contents) => fs::write(&version, contents).expect("PG_VERSION"),
            None => fs::remove_file(&version).expect("PG_VERSION"),
        }
        found.extend(differences(&links, home, &questions).into_iter().map(|text| format!("{what}: {text}")));
        fs::write(&version, &plain).expect("PG_VERSION");
    }
    let half = manifest.get(..3000).expect("a long manifest");
    let renamed = manifest.replace("PG_VERSION", "PG_VERSIOM");
    let short = "{\"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\":[],\n\"Manifest-Checksum\": \"00\"}\n";
    for contents in [half, &renamed, short, "{", "{}", "", "[]", "{\"PostgreSQL-Backup-Manifest-Version\": 2,\"Files\":[]}"] {
        fs::write(backup.join("backup_manifest"), contents).expect("the manifest");
        found.extend(differences(&links, home, &questions[..1]).into_iter().map(|text| format!("{contents:.60}: {text}")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn monitoring_views_and_functions_have_postgresqls_columns() {
    const VIEWS: &str = "select c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod) from pg_attribute a join pg_class c on c.oid = a.attrelid \
        where c.relnamespace = 11 and a.attnum > 0 and c.relname in ('pg_stat_replication', 'pg_stat_wal_receiver', 'pg_stat_wal', 'pg_stat_archiver', \
        'pg_stat_recovery_prefetch', 'pg_replication_slots', 'pg_stat_bgwriter', 'pg_stat_progress_basebackup', 'pg_stat_database_conflicts', \
        'pg_stat_activity', 'pg_stat_database', 'pg_locks', 'pg_prepared_xacts', 'pg_settings') order by 1, 2";
    const FUNCTIONS: &str = "select proname, proargnames, proallargtypes::regtype[], proargmodes, provolatile, proisstrict, pronargs, proretset, prorettype::regtype \
        from pg_proc where proname ~ '^pg_control_|^pg_backup_|^pg_wal|^pg_last_|^pg_current_wal|^pg_replication_slot|^pg_get_wal_r|^pg_is_wal|^pg_create_p|^pg_promote|^pg_get_replication_slots' \
        order by 1, oid";
    let oracle = Oracle::start("");
    let node = Node::start_new("a", "");
    for sql in [VIEWS, FUNCTIONS] {
        let theirs = run(Command::new("psql").args(["-XAtq", "-d", &oracle.conninfo(), "-c", sql]));
        assert!(theirs.lines().count() > 20, "{theirs}");
        assert_eq!(node.sql(sql), theirs.trim_end());
    }
}
