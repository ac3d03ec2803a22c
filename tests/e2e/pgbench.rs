//! pgbench, unmodified, in all its modes.

use crate::support::node::Node;
use crate::support::number;

#[test]
fn all_modes_run_and_add_up() {
    let node = Node::start_new("pgbench", "");
    let init = node.pgbench_command(&["-i", "-s", "1"]).output().expect("pgbench");
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    assert_eq!(node.sql("select count(*) from pgbench_accounts"), "100000");
    assert_eq!(node.sql("select count(*) from pg_indexes where tablename like 'pgbench%'"), "3");
    let mut transactions = 0;
    for mode in ["simple", "extended", "prepared"] {
        for script in ["tpcb-like", "simple-update", "select-only"] {
            let out = node.pgbench(&["-n", "-M", mode, "-b", script, "-c", "4", "-j", "2", "-t", "50"]);
            assert!(out.contains("number of transactions actually processed: 200/200"), "{mode} {script}: {out}");
            assert!(out.contains("number of failed transactions: 0 (0.000%)"), "{mode} {script}: {out}");
            transactions += u64::from(script != "select-only") * 200;
        }
    }
    // Vacuums and truncates its history first.
    node.pgbench(&["-M", "prepared", "-c", "2", "-t", "20"]);
    assert_eq!(node.sql("select count(*) from pgbench_history"), "40");
    assert!(transactions > 0);
    // `simple-update` leaves tellers and branches alone, so only accounts and history of the last run compare; start over to check all.
    node.pgbench(&["-i", "-s", "1", "-q", "-I", "dtgvp"]);
    node.pgbench(&["-n", "-M", "prepared", "-c", "8", "-j", "2", "-t", "50"]);
    node.assert_pgbench_adds_up();
    node.restart();
    node.assert_pgbench_adds_up();
}

#[test]
fn a_standby_serves_reads_of_the_same_rows_under_load() {
    let a = Node::start_new("a", "");
    let scale = number("AFTERIMAGE_PGBENCH_SCALE", 1).to_string();
    let seconds = number("AFTERIMAGE_PGBENCH_SECONDS", 6).to_string();
    a.pgbench(&["-i", "-s", &scale, "-q"]);
    let b = a.standby("b");
    let writing = std::thread::scope(|s| {
        let reader = s.spawn(|| b.pgbench(&["-n", "-S", "-c", "8", "-j", "2", "-M", "prepared", "-T", &seconds]));
        // The pages are compared while they change.
        let compared = s.spawn(|| crate::verify::compare(&a, &b));
        let out = a.pgbench(&["-n", "-c", "8", "-j", "2", "-M", "prepared", "-T", &seconds]);
        let (code, said) = compared.join().expect("the comparison does not panic");
        assert_eq!(code, Some(0), "{said}");
        println!("{said}");
        let read = reader.join().expect("the readers do not panic");
        assert!(read.contains("number of failed transactions: 0 (0.000%)"), "{read}");
        out
    });
    assert!(writing.contains("number of failed transactions: 0 (0.000%)"), "{writing}");
    a.wait_for_catchup(&b);
    a.assert_pgbench_adds_up();
    b.assert_pgbench_adds_up();
    assert_eq!(a.table_hashes(), b.table_hashes());
    let (code, said) = crate::verify::compare(&a, &b);
    assert!(code == Some(0) && said.contains("the same on both\n") && !said.contains("too fast"), "{said}");
    assert_eq!(a.sql("select pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) from pg_stat_replication"), "0");
    println!("{writing}");
}
