//! What a network, a wrong upstream, damage and a full disk do to a standby: it says what is wrong, goes on when it can, and never drifts apart.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use crate::client::{block_on, connect, text};
use crate::support::node::{Node, PATIENCE, holds_within, until};
use crate::support::number;
use crate::support::proxy::Proxy;

/// A standby of `a` behind a proxy, with short timeouts on both sides.
fn behind_a_proxy(conf: &str) -> (Node, Proxy, Node) {
    let a = Node::start_new("a", &format!("wal_keep_size = '256MB'\n{conf}"));
    a.sql("create table t (id int primary key, v text); insert into t values (0, 'first')");
    let proxy = Proxy::new(&a);
    let b = a.clone_to("b");
    b.conf(conf);
    b.follow_at(&proxy.conninfo("b"));
    b.start();
    a.wait_for_catchup(&b);
    (a, proxy, b)
}

const SHORT: &str = "wal_receiver_timeout = '1s'\nwal_sender_timeout = '1s'\nwal_receiver_status_interval = '1s'";

/// Same rows, and the same bytes of WAL.
fn assert_same(a: &Node, b: &Node) {
    a.wait_for_catchup(b);
    assert_eq!(a.table_hashes(), b.table_hashes());
    let end = a.sql("select file_name, file_offset from pg_walfile_name_offset(pg_current_wal_flush_lsn())");
    let (last, offset) = end.split_once('|').expect("name and offset");
    let offset: usize = offset.parse().expect("an offset");
    let mut compared = 0;
    for entry in fs::read_dir(a.data().join("pg_wal")).expect("pg_wal") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        let theirs = b.data().join("pg_wal").join(&name);
        if name.len() != 24 || *name > *last || !theirs.exists() {
            continue;
        }
        let (ours, theirs) = (fs::read(a.data().join("pg_wal").join(&name)).expect("a segment"), fs::read(theirs).expect("a segment"));
        let upto = if *name == *last { offset } else { ours.len() };
        assert!(ours[..upto] == theirs[..upto], "{name} differs");
        compared += 1;
    }
    assert!(compared > 0);
}

fn logged(node: &Node, words: &str) {
    until(&format!("\"{words}\" in the log of {}", node.name), || node.log().contains(words));
}

#[test]
fn a_standby_says_why_its_upstream_will_not_do_and_goes_on_when_it_does() {
    let a = Node::start_new("a", "max_wal_size = '32MB'\nmin_wal_size = '32MB'");
    a.sql("create table t (id int); insert into t values (1)");
    let (b, c) = (a.standby("b"), a.standby("c"));
    a.wait_for_catchup(&b);
    a.wait_for_catchup(&c);

    // Another system.
    let stranger = Node::start_new("stranger", "");
    b.follow(&stranger);
    b.reload();
    logged(&b, "database system identifier differs between the primary and standby");
    let id = |node: &Node| node.sql("select system_identifier from pg_control_system()");
    logged(&b, &format!("The primary's identifier is {}, the standby's identifier is {}.", id(&stranger), id(&b)));

    // An upstream that is behind: b has no upstream, c follows it.
    b.follow_at("");
    b.reload();
    a.sql("insert into t values (2)");
    a.wait_for_catchup(&c);
    c.follow(&b);
    c.reload();
    logged(&c, "could not start WAL streaming: ERROR:  requested starting point");
    logged(&c, "is ahead of the WAL flush position of this server");
    assert_eq!((b.sql("select count(*) from t"), c.sql("select count(*) from t")), ("1".to_owned(), "2".to_owned()));

    // Once it has what c has, c goes on by itself.
    b.follow(&a);
    b.reload();
    a.sql("insert into t values (3)");
    a.wait_for_catchup(&c);
    assert_eq!(c.sql("select array_agg(id order by id) from t"), "{1,2,3}");

    // WAL that is gone.
    c.stop("fast");
    b.stop("fast");
    let segment = a.sql("select pg_walfile_name(pg_current_wal_lsn())");
    for _ in 0..4 {
        a.sql("insert into t values (4); select pg_switch_wal()");
        a.sql("checkpoint");
    }
    b.start();
    logged(&b, &format!("could not receive data from WAL stream: ERROR:  requested WAL segment {segment} has already been removed"));
    assert_eq!(b.sql("select count(*) from t"), "3");
}

/// The short form of the claim; `scripts/prove flips` flips 1,000.
#[test]
fn flipped_bits_are_found_and_the_standby_is_equal_again_within_five_seconds() {
    let wanted = number("AFTERIMAGE_FLIPS", 24);
    for compression in ["off", "zstd"] {
        let flips = if compression == "off" { wanted } else { wanted / 4 };
        let (a, proxy, b) = behind_a_proxy("");
        b.conf(&format!("wal_receiver_compression = '{compression}'"));
        b.restart();
        let mut seed = number("AFTERIMAGE_SEED", 1);
        let (mut rows, mut slowest) = (0, Duration::ZERO);
        // The short form runs beside other tests; the long one, alone, is the claim.
        let limit = Duration::from_secs(if wanted < 1000 { 30 } else { 5 });
        block_on(async {
            let (primary, standby) = (connect(&a).await, connect(&b).await);
            for _ in 0..flips {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                proxy.flip(usize::try_from((seed >> 33) % 9000).expect("small"), seed.to_le_bytes()[2]);
                let began = Instant::now();
                while proxy.is_flip_pending() {
                    assert!(began.elapsed() < PATIENCE, "no bytes pass");
                    text(&primary, &format!("insert into t select g, md5(g::text) from generate_series({rows} + 1, {rows} + 20) g")).await;
                    rows += 20;
                }
                let flipped = Instant::now();
                let end = text(&primary, "select pg_current_wal_insert_lsn()").await;
                let wait = format!("wait for lsn '{end}' with (timeout '{}s', no_throw)", limit.as_secs());
                assert_eq!(text(&standby, &wait).await, "success", "still not equal\n{}", b.log());
                slowest = slowest.max(flipped.elapsed());
            }
        });
        assert_same(&a, &b);
        let method = if compression == "off" { "none" } else { "zstd" };
        let shown = "select direction, method, wal_bytes > 0, wire_bytes > 0, (ratio > 1.2) = (method = 'zstd'), (cpu_time > 0) = (method = 'zstd') from afterimage_stat_compression";
        a.sql("insert into t select g, repeat('x', 100) from generate_series(-20000, -1) g");
        a.wait_for_catchup(&b);
        assert_eq!(a.sql(shown), format!("sent|{method}|t|t|t|t"));
        assert_eq!(b.sql(shown), format!("received|{method}|t|t|t|t"));
        let found = b.log().matches("FATAL:  ").count();
        println!("compression {compression}: {flips} bits flipped, {found} streams ended by it, equal again after {slowest:?} at most");
        assert!(found > 0);
    }
}

#[test]
fn a_stream_that_decompresses_without_end_ends_instead() {
    let (a, proxy, b) = behind_a_proxy("");
    let zeros = vec![0; 64 << 20];
    let bomb = zstd::bulk::compress(&zeros, 19).expect("zstd");
    let wide = {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("zstd");
        encoder.window_log(27).expect("zstd");
        std::io::Write::write_all(&mut encoder, &zeros).expect("zstd");
        encoder.finish().expect("zstd")
    };
    let memory = || {
        let pid = b.server_pids().first().copied().expect("a server");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number")
    };
    let before = memory();
    for (payload, announced, said) in [
        (&bomb, None, "compressed WAL from the primary does not decode"),
        (&bomb, Some(u32::MAX), "4294967295 bytes in one message"),
        (&bomb, Some(64 << 20), "67108864 bytes in one message"),
        (&wide, None, "compressed WAL from the primary does not decode"),
    ] {
        let (payload, mut left) = (payload.clone(), 1);
        proxy.tamper(Some(Box::new(move |kind, body| {
            if left == 0 || kind != b'd' || body.first() != Some(&b'Z') {
                return None;
            }
            left -= 1;
            let mut out = body[..29].to_vec();
            if let Some(announced) = announced {
                out[25..29].copy_from_slice(&announced.to_be_bytes());
            }
            out.extend_from_slice(&payload);
            Some(out)
        })));
        let known = b.log().len();
        proxy.cut();
        a.sql("insert into t select max(id) + 1, 'x' from t");
        until("the refusal", || b.log()[known..].contains(said));
        a.wait_for_catchup(&b);
    }
    proxy.tamper(None);
    proxy.cut();
    assert_same(&a, &b);
    let grown = memory().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} kB more");
}

#[test]
fn a_network_that_hangs_half_open_is_noticed_on_both_sides() {
    let (a, proxy, b) = behind_a_proxy(SHORT);
    proxy.stall_all();
    let before = proxy.accepted();
    logged(&b, "terminating walreceiver due to timeout");
    logged(&a, "terminating walsender process due to replication timeout");
    // What it tries now is accepted and never answered: it gives up each time, and tries again.
    proxy.wait_for_more_than(before + 1);
    a.sql("insert into t values (1, 'meanwhile')");
    proxy.release();
    a.wait_for_catchup(&b);
    // Not a byte for longer than the timeout, but not forever: half of it is silence that a ping ends.
    assert_eq!(a.sql("select count(*) from pg_stat_replication where state = 'streaming'"), "1");
    assert_same(&a, &b);
}

#[test]
fn connections_that_arrive_out_of_order_do_no_harm() {
    let (a, proxy, b) = behind_a_proxy(SHORT);
    a.sql("select pg_create_physical_replication_slot('s')");
    b.conf("primary_slot_name = 's'");
    b.restart();
    a.wait_for("select active from pg_replication_slots", "t");
    for round in 1..=3 {
        // The present connection hangs, with positions of before; the standby makes a new one, whose slot the hanging one holds for a while.
        let before = proxy.accepted();
        proxy.stall_present();
        proxy.wait_for_more_than(before);
        a.sql(&format!("insert into t select g, 'x' from generate_series({round} * 1000, {round} * 1000 + 500) g"));
        a.wait_for_catchup(&b);
        let kept = a.sql("select restart_lsn from pg_replication_slots");
        // What hung arrives after all.
        proxy.release();
        a.sql(&format!("insert into t values ({round}, 'late')"));
        a.wait_for_catchup(&b);
        a.wait_for("select count(*) from pg_stat_replication", "1");
        assert_eq!(a.sql(&format!("select restart_lsn >= '{kept}' from pg_replication_slots")), "t");
    }
    assert_same(&a, &b);
}

#[test]
fn a_long_way_costs_one_round_trip_and_not_one_per_message() {
    let (a, proxy, b) = behind_a_proxy("wal_receiver_compression = 'off'");
    b.stop("fast");
    a.sql("insert into t select g, repeat('x', 1000) from generate_series(1, 24000) g");
    proxy.delay(Duration::from_millis(100));
    b.start();
    let began = Instant::now();
    a.wait_for_catchup(&b);
    // 24 MB in messages of 128 kB, 200 ms there and back each, would be 38 s.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    a.conf("synchronous_standby_names = 'b'");
    a.reload();
    a.wait_for("select sync_state from pg_stat_replication", "sync");
    let began = Instant::now();
    a.sql("insert into t values (-1, 'far away')");
    assert!(began.elapsed() >= Duration::from_millis(200), "acknowledged before the standby can have it: {:?}", began.elapsed());
    assert_same(&a, &b);
}

#[test]
fn a_connection_cut_again_and_again_loses_nothing() {
    let (a, proxy, b) = behind_a_proxy("");
    for round in 0..30 {
        a.sql(&format!("insert into t select g, repeat('y', 300) from generate_series({round} * 100 + 1, {round} * 100 + 100) g"));
        proxy.cut();
    }
    let began = Instant::now();
    a.wait_for_catchup(&b);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_same(&a, &b);
}

#[test]
fn a_full_disk_stops_a_standby_from_receiving_and_nothing_else() {
    let a = Node::start_new("a", "wal_keep_size = '512MB'");
    a.sql("create table t (id int)");
    let b = a.clone_to("b");
    b.start_on_small_disk("pg_wal", 64);
    for n in 0..5 {
        a.sql(&format!("insert into t values ({n}); select pg_switch_wal()"));
    }
    logged(&b, "No space left on device");
    let server = b.server_pids();
    b.sql("select count(*) from t");
    b.make_room("pg_wal", 256);
    a.wait_for_catchup(&b);
    assert_eq!(b.sql("select count(*) from t"), "5");
    assert_eq!(b.server_pids(), server, "it did not restart");
}

#[test]
fn a_full_disk_holds_up_replay_until_there_is_room_and_sessions_read_on() {
    let a = Node::start_new("a", "wal_keep_size = '512MB'");
    a.sql("create table t (id int, v text); insert into t values (0, 'first')");
    let b = a.clone_to("b");
    let megabytes = fs::read_dir(b.data().join("base"))
        .expect("base")
        .flat_map(|entry| fs::read_dir(entry.expect("an entry").path()).into_iter().flatten())
        .map(|file| file.expect("a file").metadata().expect("its size").len().next_multiple_of(4096))
        .sum::<u64>()
        >> 20;
    b.start_on_small_disk("base", megabytes + 3);
    a.wait_for_catchup(&b);
    let server = b.server_pids();
    a.sql("insert into t select g, repeat('x', 900) from generate_series(1, 10000) g");
    logged(&b, "replay waits at");
    assert!(b.log().contains("No space left on device"));
    assert_eq!(b.sql("select v from t where id = 0"), "first");
    b.make_room("base", megabytes + 64);
    a.wait_for_catchup(&b);
    assert_eq!(a.table_hashes(), b.table_hashes());
    assert_eq!(b.server_pids(), server, "it did not restart");
}

#[test]
fn a_bit_flipped_in_a_received_segment_is_found_at_the_start_and_asked_for_again() {
    let a = Node::start_new("a", "wal_keep_size = '256MB'");
    a.sql("create table t (id int); insert into t select g from generate_series(1, 5000) g");
    let b = a.standby("b");
    a.sql("insert into t select g from generate_series(1, 5000) g");
    a.wait_for_catchup(&b);
    b.wait_for("select pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()", "t");
    let at = a.sql("select file_name, file_offset from pg_walfile_name_offset(pg_current_wal_flush_lsn() - 100000)");
    let (name, offset) = at.split_once('|').expect("name and offset");
    let offset: u64 = offset.parse().expect("an offset");
    b.kill();
    let file = fs::OpenOptions::new().read(true).write(true).open(b.data().join("pg_wal").join(name)).expect("the segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    file.write_all_at(&[byte[0] ^ 4], offset).expect("a flipped bit");
    b.start();
    assert!(b.log().contains("the rest will be asked for again"), "{}", b.log());
    a.sql("insert into t values (0)");
    assert_same(&a, &b);
}

/// The clock of a standby, then of its primary, jumps by hours in both directions (libfaketime).
#[test]
fn a_clock_that_jumps_disturbs_neither_stream_nor_timeouts() {
    let libraries =
        fs::read_dir("/usr/lib").expect("/usr/lib").map(|dir| dir.expect("an entry").path().join("faketime/libfaketimeMT.so.1"));
    let library = libraries.into_iter().find(|path| path.exists()).expect("libfaketime, see scripts/install-deps").display().to_string();
    let a = Node::start_new("a", SHORT);
    a.sql("create table t (id int)");
    let b = a.clone_to("b");
    let clock = |node: &Node| node.home.path().join("clock");
    let start = |node: &Node| {
        fs::write(clock(node), "+0").expect("a clock");
        let file = clock(node).display().to_string();
        node.start_with(&[
            ("LD_PRELOAD", &library),
            ("FAKETIME_TIMESTAMP_FILE", &file),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]);
    };
    a.stop("fast");
    start(&a);
    start(&b);
    a.wait_for("select state from pg_stat_replication", "streaming");
    let mut n = 0;
    for node in [&b, &a] {
        for jump in ["+2h", "-3h", "+0"] {
            let hour = "select extract(epoch from clock_timestamp())::bigint / 1800";
            let before = node.sql(hour);
            fs::write(clock(node), jump).expect("a clock");
            assert!(holds_within(PATIENCE, || node.sql(hour) != before), "the clock of {} does not jump", node.name);
            n += 1;
            a.sql(&format!("insert into t values ({n})"));
            a.wait_for_catchup(&b);
            let sane = "select coalesce(least(write_lag, flush_lag, replay_lag) >= '0' and greatest(write_lag, flush_lag, replay_lag) < '1 min', true), state \
                        from pg_stat_replication";
            assert_eq!(a.sql(sane), "t|streaming", "after {jump} on {}", node.name);
        }
    }
    assert_eq!(b.log().matches("started streaming WAL from primary").count(), 1, "{}", b.log());
    assert!(!a.log().contains("terminating walsender") && !b.log().contains("terminating walreceiver"));
    assert_eq!(b.sql("select count(*) from t"), "6");
}
