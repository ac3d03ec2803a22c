//! A node that went its own way is made to follow again: from a live server, from a stopped directory, cut off at any step.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use afterimage::replication::conninfo::ConnInfo;
use afterimage::replication::rewind::{self, Observer, RewindError, Source, Step};
use afterimage::storage::PAGE_SIZE;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::client::block_on;
use crate::support::journal::{self, Journal};
use crate::support::node::{Node, run};

/// Some statements that change, grow, shrink, make and drop things; which ones the seed says.
fn wander(node: &Node, rng: &mut StdRng, tag: &str) {
    for _ in 0..rng.random_range(2..6) {
        let n = rng.random_range(1..3000);
        let sql = match rng.random_range(0..9) {
            0 => format!(
                "insert into t select g, '{tag} ' || g from generate_series({n}, {n} + 500) g on conflict (id) do update set v = excluded.v"
            ),
            1 => format!("update t set v = '{tag}' where id % 7 = {}", n % 7),
            2 => format!("delete from t where id > {n}"),
            3 => "vacuum t".to_owned(),
            4 => format!("create table if not exists {tag}_{n} as select g from generate_series(1, {n}) g"),
            5 => "truncate u; insert into u select g from generate_series(1, 2000) g".to_owned(),
            6 => format!("insert into u select g from generate_series(1, {n}) g"),
            7 => "checkpoint".to_owned(),
            _ => "drop table if exists gone; create table gone (id int); insert into gone values (1)".to_owned(),
        };
        node.sql(&sql);
    }
}

const TABLES: &str = "create table t (id int primary key, v text); create index on t (v); create table u (id int); \
                      create table gone (id int); create unlogged table fast (id int); \
                      insert into t select g, 'row ' || g from generate_series(1, 4000) g; insert into gone values (1), (2)";

/// LSNs of every page of every relation, free space maps left out: those are not logged.
fn pages(node: &Node) -> BTreeMap<String, Vec<u64>> {
    let mut found = BTreeMap::new();
    let mut pending = vec!["global".to_owned(), "base".to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(node.data().join(&dir)).expect("a directory") {
            let name = entry.expect("an entry").file_name().into_string().expect("a name");
            let path = format!("{dir}/{name}");
            if node.data().join(&path).is_dir() {
                pending.push(path);
            } else if name.bytes().next().is_some_and(|b| b.is_ascii_digit()) && !name.ends_with("_fsm") {
                let bytes = fs::read(node.data().join(&path)).expect("a relation");
                let lsn = |page: &[u8]| {
                    let half = |i: usize| u32::from_le_bytes([page[i], page[i + 1], page[i + 2], page[i + 3]]);
                    u64::from(half(0)) << 32 | u64::from(half(4))
                };
                found.insert(path, bytes.chunks_exact(PAGE_SIZE).map(lsn).collect());
            }
        }
    }
    found
}

/// Same rows while both run, same pages once both are down.
fn assert_equal(primary: &Node, standby: &Node) {
    primary.wait_for_catchup(standby);
    assert_eq!(primary.table_hashes(), standby.table_hashes());
    primary.sql("checkpoint");
    primary.wait_for_catchup(standby);
    primary.stop("fast");
    standby.stop("fast");
    let unlogged = |path: &String| standby.data().join(format!("{path}_init")).exists();
    let (mut left, mut right) = (pages(primary), pages(standby));
    left.retain(|path, _| !unlogged(path));
    right.retain(|path, _| !unlogged(path));
    assert_eq!(left, right);
}

fn rewind_command(target: &Node, args: &[&str]) -> std::process::Output {
    target.tool("rewind").arg("-D").arg(target.data()).args(args).output().expect("afterimage rewind")
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Keeps what belongs to this machine: a rewind brings the source's settings along, as PostgreSQL's does.
fn with_own_settings(node: &Node, rewind: impl FnOnce()) {
    let conf = fs::read(node.data().join("postgresql.conf")).expect("postgresql.conf");
    rewind();
    fs::write(node.data().join("postgresql.conf"), conf).expect("postgresql.conf");
}

#[test]
fn an_old_primary_that_crashed_is_rewound_from_the_live_new_one() {
    for seed in 0..2 {
        let mut rng = StdRng::seed_from_u64(seed);
        let a = Node::start_new("a", "");
        a.sql(TABLES);
        a.sql(journal::SCHEMA);
        let b = a.standby("b");
        wander(&a, &mut rng, "before");
        a.wait_for_catchup(&b);
        b.promote();
        // Both go on; then the old one crashes, with what it wrote past the fork partly on disk.
        wander(&a, &mut rng, "a");
        wander(&b, &mut rng, "b");
        a.kill();
        let load = Journal::start(&b, 2);
        load.wait_for(20);
        with_own_settings(&a, || {
            let done = rewind_command(&a, &["--source-server", &format!("{} dbname=postgres", b.conninfo("rewind")), "-R", "-N", "-P"]);
            assert!(done.status.success(), "seed {seed}: {}", said(&done));
            assert!(said(&done).contains("servers diverged at WAL location") && said(&done).contains("Done!"), "{}", said(&done));
        });
        a.start();
        assert_eq!(a.sql("select pg_is_in_recovery()"), "t");
        let outcome = load.stop();
        b.wait_for_catchup(&a);
        outcome.check(&a);
        assert_equal(&b, &a);
    }
}

#[test]
fn a_stopped_directory_serves_as_source_and_a_dry_run_changes_nothing() {
    let mut rng = StdRng::seed_from_u64(7);
    let a = Node::start_new("a", "");
    a.sql(TABLES);
    let b = a.standby("b");
    a.wait_for_catchup(&b);
    b.promote();
    wander(&a, &mut rng, "a");
    wander(&b, &mut rng, "b");
    let source = b.data().display().to_string();
    let args = ["--source-pgdata", source.as_str(), "-N"];

    let refused = rewind_command(&a, &args);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("error: target server must be shut down cleanly"), "{}", said(&refused));
    a.stop("immediate");
    let refused = rewind_command(&a, &args);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("error: source data directory must be shut down cleanly"), "{}", said(&refused));
    b.stop("fast");

    let before = pages(&a);
    let dry = rewind_command(&a, &["--source-pgdata", &source, "--dry-run"]);
    assert!(dry.status.success(), "{}", said(&dry));
    assert_eq!(pages(&a), before);
    with_own_settings(&a, || assert!(rewind_command(&a, &args).status.success()));
    b.start();
    a.follow(&b);
    a.start();
    assert_equal(&b, &a);

    // Nothing to do for a node that follows.
    let again = rewind_command(&a, &["--source-pgdata", &source]);
    assert!(again.status.success() && said(&again).contains("no rewind required"), "{}", said(&again));
    let other = Node::init("other");
    let refused = rewind_command(&other, &["--source-pgdata", &source]);
    assert!(said(&refused).contains("source and target clusters are from different systems"), "{}", said(&refused));
}

#[test]
fn a_promoted_standby_is_rewound_onto_the_standby_it_left() {
    let mut rng = StdRng::seed_from_u64(11);
    let a = Node::start_new("a", "");
    a.sql(TABLES);
    let b = a.standby("b");
    let c = a.standby("c");
    a.wait_for_catchup(&b);
    a.wait_for_catchup(&c);
    c.promote();
    wander(&c, &mut rng, "c");
    wander(&a, &mut rng, "a");
    a.wait_for_catchup(&b);
    c.stop("fast");
    with_own_settings(&c, || {
        let done = rewind_command(&c, &["--source-server", &format!("{} dbname=postgres", b.conninfo("rewind")), "-R", "-N"]);
        assert!(done.status.success(), "{}", said(&done));
    });
    c.start();
    assert_eq!(c.sql("select pg_is_in_recovery()"), "t");
    a.sql("insert into u values (-1)");
    a.wait_for_catchup(&b);
    a.wait_for_catchup(&c);
    assert_eq!(a.table_hashes(), c.table_hashes());
    assert!(!c.data().join("pg_wal/00000002.history").exists());
}

#[test]
fn two_histories_under_one_timeline_are_told_apart() {
    let mut rng = StdRng::seed_from_u64(31);
    let a = Node::start_new("a", "");
    a.sql(TABLES);
    let b = a.standby("b");
    a.wait_for_catchup(&b);
    // A copy of the primary from before what the standby sees next: restored, it goes on under the same timeline with other bytes.
    a.stop("fast");
    let copy = a.home.path().join("copy");
    run(std::process::Command::new("cp").arg("-a").arg(a.data()).arg(&copy));
    a.start();
    wander(&a, &mut rng, "lost");
    a.wait_for_catchup(&b);
    a.kill();
    b.stop("fast");
    fs::remove_dir_all(a.data()).expect("the directory goes");
    #[expect(clippy::disallowed_methods, reason = "what an administrator does with mv")]
    fs::rename(&copy, a.data()).expect("the copy comes");
    a.start();
    wander(&a, &mut rng, "kept");

    let server = format!("{} dbname=postgres", a.conninfo("rewind"));
    with_own_settings(&b, || {
        let done = rewind_command(&b, &["--source-server", &server, "-R", "-N"]);
        assert!(done.status.success(), "{}", said(&done));
        assert!(
            said(&done).contains("on the same timeline") && said(&done).contains("servers diverged at WAL location"),
            "{}",
            said(&done)
        );
    });
    b.start();
    a.wait_for_catchup(&b);
    assert_eq!(a.table_hashes(), b.table_hashes());
    a.sql("insert into u values (-7)");
    assert_equal(&a, &b);
    // A node that only lags needs nothing.
    a.start();
    a.sql("insert into u values (-8)");
    let again = rewind_command(&b, &["--source-server", &server]);
    assert!(again.status.success() && said(&again).contains("no rewind required"), "{}", said(&again));
}

/// Ends a rewind as a crash would, right after the nth step that fits.
struct CutOff {
    after: fn(Step<'_>) -> bool,
    left: usize,
}

impl Observer for CutOff {
    fn info(&mut self, _text: &str) {}
    fn debug(&mut self, _text: &str) {}
    fn phase(&mut self, _text: &str) {}
    fn progress(&mut self, _done: u64, _total: u64) {}
    fn step(&mut self, step: Step<'_>) -> Result<(), RewindError> {
        if (self.after)(step) {
            self.left -= 1;
            if self.left == 0 {
                return Err(RewindError::Stopped);
            }
        }
        Ok(())
    }
}

fn refuses_to_start(data: &Path, node: &Node) {
    let output = node.tool("postgres").arg("-D").arg(data).output().expect("postgres");
    assert!(!output.status.success());
    assert!(said(&output).contains("was being rewound, and that has not finished"), "{}", said(&output));
}

#[test]
fn a_rewind_cut_off_at_any_step_is_run_again() {
    let mut rng = StdRng::seed_from_u64(23);
    let a = Node::start_new("a", "");
    a.sql(TABLES);
    let b = a.standby("b");
    a.wait_for_catchup(&b);
    b.promote();
    wander(&a, &mut rng, "a");
    wander(&b, &mut rng, "b");
    a.kill();
    let conf = fs::read(a.data().join("postgresql.conf")).expect("postgresql.conf");
    let info = ConnInfo::parse(&format!("{} dbname=postgres", b.conninfo("rewind"))).expect("a connection string");
    let options = rewind::Options {
        target: a.data(),
        sync: false,
        recovery_conf: Some(format!("primary_conninfo = '{}'\n", b.conninfo("a"))),
        ..rewind::Options::default()
    };
    let removed = |s: Step<'_>| matches!(s, Step::Removed(_));
    let wrote = |s: Step<'_>| matches!(s, Step::Wrote(_));
    #[expect(clippy::type_complexity, reason = "which step, and which of its kind")]
    let cuts: Vec<(fn(Step<'_>) -> bool, usize)> = vec![
        (|s| s == Step::Marked, 1),
        (removed, 1),
        (wrote, 1),
        (wrote, 2),
        (wrote, 7),
        (wrote, 20),
        (|s| matches!(s, Step::Wrote(path) if path.starts_with("pg_xact")), 1),
        (|s| matches!(s, Step::Wrote(path) if path.starts_with("pg_wal")), 1),
        (|s| s == Step::Synced, 1),
        (|s| s == Step::Labelled, 1),
        (|s| s == Step::Configured, 1),
        (|s| s == Step::Controlled, 1),
    ];
    for (after, left) in cuts {
        let mut observer = CutOff { after, left };
        let ended = block_on(async {
            let mut source = Source::connect(&info).await?;
            rewind::run(&options, &mut source, &mut observer).await
        });
        assert!(matches!(ended, Err(RewindError::Stopped)), "{ended:?}");
        refuses_to_start(&a.data(), &a);
        // Meanwhile the source goes on.
        b.sql("insert into u select generate_series(1, 300); update t set v = v || '+' where id % 50 = 0; checkpoint");
    }
    run(a.tool("rewind").arg("-D").arg(a.data()).args(["--source-server", &format!("{} dbname=postgres", b.conninfo("rewind")), "-R"]));
    fs::write(a.data().join("postgresql.conf"), conf).expect("postgresql.conf");
    a.start();
    assert_equal(&b, &a);
}

#[test]
fn a_role_with_four_functions_and_nothing_else_may_rewind() {
    let a = Node::start_new("a", "");
    a.sql(TABLES);
    a.sql("create role rewinder login");
    let b = a.standby("b");
    a.wait_for_catchup(&b);
    b.promote();
    a.sql("insert into u values (1)");
    b.sql("insert into u values (2)");
    a.stop("fast");
    let server = format!("{} dbname=postgres", b.conninfo("rewind").replace("user=postgres", "user=rewinder"));
    let refused = rewind_command(&a, &["--source-server", &server, "-N"]);
    assert!(said(&refused).contains("permission denied for function pg_read_binary_file"), "{}", said(&refused));
    for function in
        ["pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)", "pg_read_binary_file(text, bigint, bigint, boolean)"]
    {
        b.sql(&format!("grant execute on function pg_catalog.{function} to rewinder"));
    }
    assert_eq!(b.sql("select has_function_privilege('rewinder', 'pg_ls_dir(text, boolean, boolean)', 'execute')"), "t");
    assert_eq!(b.sql("select has_function_privilege('rewinder', 'pg_ls_dir(text)', 'execute')"), "f");
    let refused = b.sql_error("set role rewinder; select pg_read_binary_file('/etc/passwd', 0, 1, false)");
    assert!(refused.contains("42501") && refused.contains("absolute path not allowed"), "{refused}");
    with_own_settings(&a, || {
        let done = rewind_command(&a, &["--source-server", &server, "-N"]);
        assert!(done.status.success(), "{}", said(&done));
    });
    a.follow(&b);
    a.start();
    assert_equal(&b, &a);
}
