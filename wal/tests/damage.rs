//! WAL cut at every byte and with any byte flipped: exactly the records before the damage, and what was found. Crashes at random moments: nothing flushed is
//! lost, nothing half written is read, and what must have been durable is never silently dropped.

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test data; a failure here is a failed test")]

use afterimage_wal::disk::{Disk, Open, SimDisk, sim::Call};
use afterimage_wal::format::{SEGMENT_HEADER_BYTES, StartRecord};
use afterimage_wal::history::History;
use afterimage_wal::reader::{Evidence, Verdict, judge};
use afterimage_wal::segment::file_name;
use afterimage_wal::*;
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const SEG: u32 = 1 << 20;
const SYSTEM: SystemId = SystemId::new(42);
const DIR: &str = "/pg_wal";

fn options() -> WalOptions {
    WalOptions { segment_bytes: SEG, writer_delay: std::time::Duration::from_secs(1000), ..WalOptions::default() }
}

fn begin() -> Lsn {
    SegNo::FIRST.start_lsn(SEG)
}

fn path(segno: u64) -> PathBuf {
    Path::new(DIR).join(file_name(TimelineId::FIRST, SegNo::new(segno), SEG))
}

fn record(n: u64, bytes: usize, mark: bool) -> RecordBuilder {
    let mut r = RecordBuilder::new(if mark { rmgr::XACT } else { rmgr::HEAP }, 0x10, Xid::new(n + 3));
    let data: Vec<u8> = (0..bytes).map(|i| (n as usize * 31 + i + 1) as u8).collect();
    if mark {
        r.carry_flushed_mark();
    }
    r.block(RelId::new(1663, 5, 1), Fork::Main, BlockNo::new(n as u32), 0, &data).main(&n.to_le_bytes());
    r
}

fn reader(disk: &SimDisk, from: Lsn) -> WalReader {
    WalReader::open(disk.shared(), Path::new(DIR), SYSTEM, SEG, History::first(), from)
}

fn read_all(disk: &SimDisk, from: Lsn) -> (Vec<LsnRange>, ReadStop) {
    let mut r = reader(disk, from);
    let mut all = Vec::new();
    loop {
        match r.next() {
            Ok(Some(record)) => all.push(LsnRange { start: record.start(), end: record.end() }),
            Ok(None) => unreachable!("files, not a live WAL"),
            Err(stop) => return (all, stop),
        }
    }
}

/// A WAL whose records are of these sizes, beginning `before` bytes ahead of the boundary between the first two segments.
struct Sample {
    disk: SimDisk,
    from: Lsn,
    ranges: Vec<LsnRange>,
    starts: Vec<StartId>,
}

fn sample(before: u64, sizes: &[usize]) -> Sample {
    let disk = SimDisk::new();
    let wal = Wal::create(disk.shared(), Path::new(DIR), SYSTEM, options()).unwrap();
    let room = SegNo::FIRST.end_lsn(SEG).bytes_since(wal.inserted()).unwrap() - before;
    let overhead = record(0, 0, false).total_bytes() as u64 + 2;
    let from = wal.insert(&record(0, (room - overhead) as usize, false)).unwrap().end;
    let ranges = sizes.iter().enumerate().map(|(i, &n)| wal.insert(&record(i as u64, n, false)).unwrap()).collect();
    wal.flush(wal.inserted()).unwrap();
    let starts = vec![wal.start_id()];
    wal.close().unwrap();
    Sample { disk, from, ranges, starts }
}

fn records_before(ranges: &[LsnRange], at: Lsn) -> usize {
    ranges.iter().filter(|r| r.end <= at).count()
}

fn check(s: &Sample, good: usize, what: &str) {
    let (read, stop) = read_all(&s.disk, s.from);
    assert_eq!(read, s.ranges[..good], "{what}: {stop}");
    assert_eq!(stop.at, if good == 0 { s.from } else { s.ranges[good - 1].end }, "{what}");
    assert!(!matches!(stop.reason, StopReason::Limit | StopReason::Io { .. }), "{what}: {stop}");
}

const SIZES: [usize; 9] = [0, 1, 100, 33, 700, 8, 250, 3, 64];

fn offset(lsn: Lsn) -> usize {
    (lsn.as_u64() % u64::from(SEG)) as usize
}

#[test]
fn wal_cut_at_every_byte_yields_the_records_before_the_cut() {
    // Some records in the first segment, one across the boundary, the rest in the second.
    let s = sample(600, &SIZES);
    let end = s.ranges.last().unwrap().end;
    assert!(s.ranges.iter().any(|r| SegNo::of(r.start, SEG) != SegNo::of_end(r.end, SEG)));
    for fill in ["short file", "zeros", "garbage"] {
        let mut at = end.as_u64();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        s.disk.damage(&path(1), |b| first.clone_from(b)).unwrap();
        s.disk.damage(&path(2), |b| second.clone_from(b)).unwrap();
        let garbage: Vec<u8> = (0..4096_usize).map(|i| (i * 167 + 13) as u8 | 1).collect();
        while at > s.from.as_u64() {
            at -= 1;
            let cut = Lsn::new(at);
            let segno = SegNo::of(cut, SEG).get();
            let from = offset(cut);
            let change = |b: &mut Vec<u8>, from: usize| match fill {
                "short file" => b.truncate(from),
                "zeros" => b[from..].fill(0),
                _ => {
                    let n = garbage.len().min(b.len() - from);
                    b[from..from + n].copy_from_slice(&garbage[..n]);
                }
            };
            s.disk.damage(&path(segno), |b| change(b, from)).unwrap();
            if segno == 1 && offset(cut) == SEG as usize - 1 {
                s.disk.damage(&path(2), |b| change(b, 0)).unwrap();
            }
            // What is cut off may be all zeros: then nothing was damaged.
            let mut lost = cut;
            let original = |lsn: Lsn| {
                if SegNo::of(lsn, SEG).get() == 1 { first[offset(lsn)] } else { second[offset(lsn)] }
            };
            if fill == "zeros" {
                while lost < end && original(lost) == 0 {
                    lost = lost.advance(1);
                }
            }
            let (read, stop) = read_all(&s.disk, s.from);
            let good = records_before(&s.ranges, lost);
            assert_eq!(read, s.ranges[..good], "{fill} at {cut}: {stop}");
        }
        s.disk.damage(&path(1), |b| *b = first).unwrap();
        s.disk.damage(&path(2), |b| *b = second).unwrap();
        check(&s, SIZES.len(), "restored");
    }
}

#[test]
fn any_flipped_byte_yields_the_records_before_it() {
    let s = sample(600, &SIZES);
    let end = s.ranges.last().unwrap().end;
    let mut at = s.from;
    while at < end {
        let segno = SegNo::of(at, SEG).get();
        for bit in [0, 3, 7] {
            s.disk.damage(&path(segno), |b| b[offset(at)] ^= 1 << bit).unwrap();
            check(&s, records_before(&s.ranges, at), &format!("bit {bit} at {at}"));
            s.disk.damage(&path(segno), |b| b[offset(at)] ^= 1 << bit).unwrap();
        }
        at = at.advance(1);
    }
    check(&s, SIZES.len(), "undamaged");
}

#[test]
fn missing_or_foreign_segments_are_told_apart() {
    let s = sample(600, &SIZES);
    let boundary = SegNo::new(2).start_lsn(SEG);
    let good = records_before(&s.ranges, boundary);
    let mut bytes = Vec::new();
    s.disk.damage(&path(2), |b| bytes.clone_from(b)).unwrap();
    let verdict = |stop: &ReadStop, evidence: &Evidence| judge(&s.disk.shared(), Path::new(DIR), SYSTEM, SEG, stop, evidence).unwrap();
    let rewrite = |change: &dyn Fn(&mut [u8])| {
        s.disk
            .damage(&path(2), |b| {
                b.clone_from(&bytes);
                change(&mut b[..SEGMENT_HEADER_BYTES]);
                let crc = crc32c::crc32c(&b[..60]);
                b[60..64].copy_from_slice(&crc.to_le_bytes());
            })
            .unwrap();
        let (read, stop) = read_all(&s.disk, s.from);
        assert_eq!(read.len(), good);
        stop
    };
    let stop = rewrite(&|h| h[8] ^= 1);
    assert!(stop.to_string().contains("system identifier"), "{stop}");
    assert!(matches!(verdict(&stop, &Evidence::default()), Verdict::Foreign));
    let stop = rewrite(&|h| h[4] = 9);
    assert!(stop.to_string().contains("format version is 9"), "{stop}");
    assert!(matches!(verdict(&stop, &Evidence::default()), Verdict::Foreign));
    for (at, what) in [(16, "timeline is"), (20, "segment size is"), (24, "segment number is"), (56, "continue here")] {
        let stop = rewrite(&|h| h[at] ^= 4);
        assert!(stop.to_string().contains(what), "{stop}");
    }
    s.disk.remove(&path(2)).unwrap();
    let (read, stop) = read_all(&s.disk, s.from);
    assert_eq!(read.len(), good);
    assert!(matches!(stop.reason, StopReason::SegmentMissing { segno } if segno == SegNo::new(2)));
    assert!(matches!(verdict(&stop, &Evidence::default()), Verdict::EndOfWal));
    let flushed_mark = FlushedMark::read(&s.disk, Path::new(DIR)).unwrap();
    let evidence = Evidence { flushed_mark, ..Evidence::default() };
    assert!(matches!(verdict(&stop, &evidence), Verdict::Damage { .. }));
    let evidence = Evidence { consistent: boundary.advance(200), own_starts: s.starts.clone(), ..Evidence::default() };
    assert!(matches!(verdict(&stop, &evidence), Verdict::Damage { .. }));
}

#[test]
fn damage_below_a_mark_of_this_node_is_damage_and_above_it_a_torn_tail() {
    let disk = SimDisk::new();
    let wal = Wal::create(disk.shared(), Path::new(DIR), SYSTEM, options()).unwrap();
    let mut ranges = Vec::new();
    for n in 0..40 {
        // A large one now and then, so that there are three segments.
        let bytes = if n % 10 == 9 { 700_000 } else { 120 };
        ranges.push(wal.insert(&record(n, bytes, false)).unwrap());
        let commit = wal.insert(&record(n, 0, true)).unwrap();
        ranges.push(commit);
        wal.flush(commit.end).unwrap();
    }
    let own = vec![wal.start_id()];
    wal.close().unwrap();
    drop(wal);
    // The last commit carries the flushed LSN of the commit before.
    let mark = ranges[ranges.len() - 3].end;
    let verdict = |evidence: &Evidence| {
        let (_, stop) = read_all(&disk, begin());
        (stop.at, judge(&disk.shared(), Path::new(DIR), SYSTEM, SEG, &stop, evidence).unwrap())
    };
    let by_marks = Evidence { own_starts: own.clone(), ..Evidence::default() };
    let received = Evidence::default();
    let by_file = Evidence { flushed_mark: FlushedMark::read(&disk, Path::new(DIR)).unwrap(), ..Evidence::default() };
    assert_eq!(by_file.flushed_mark.unwrap().flushed, ranges.last().unwrap().end);
    for (i, r) in ranges.iter().enumerate().step_by(3) {
        let at = r.start.advance(9);
        let segno = SegNo::of(at, SEG).get();
        disk.damage(&path(segno), |b| b[offset(at)] ^= 0x10).unwrap();
        let (stopped, v) = verdict(&by_marks);
        // At a boundary the record before ends there and this one starts behind the header.
        assert!(stopped <= r.start && r.start.bytes_since(stopped).unwrap() <= 64, "{i} {r:?} {stopped}");
        assert_eq!(matches!(v, Verdict::Damage { .. }), r.start < mark, "record {i}: {v:?}");
        assert!(matches!(verdict(&received).1, Verdict::EndOfWal));
        assert!(matches!(verdict(&by_file).1, Verdict::Damage { .. }));
        disk.damage(&path(segno), |b| b[offset(at)] ^= 0x10).unwrap();
    }
    // A segment in the middle: gone, short, or with a sector of zeros.
    let mut middle = Vec::new();
    disk.damage(&path(2), |b| middle.clone_from(b)).unwrap();
    let ways: [fn(&mut Vec<u8>); 3] = [|b| b.truncate(5000), |b| b[4096..4608].fill(0), |b| b[..512].fill(0)];
    for way in ways {
        disk.damage(&path(2), way).unwrap();
        assert!(matches!(verdict(&by_marks).1, Verdict::Damage { .. }));
        disk.damage(&path(2), |b| b.clone_from(&middle)).unwrap();
    }
    disk.remove(&path(2)).unwrap();
    assert!(matches!(verdict(&by_marks).1, Verdict::Damage { .. }));
    // Marks of another node prove nothing.
    let other = Evidence { own_starts: vec![StartId::new(1)], ..Evidence::default() };
    assert!(matches!(verdict(&other).1, Verdict::EndOfWal));
}

#[test]
fn leftovers_that_look_like_records_are_not_read_one_by_one() {
    let s = sample(600, &[100]);
    let (_, stop) = read_all(&s.disk, s.from);
    let prev = s.from.as_u64();
    // In a segment of before: headers everywhere, with lengths far beyond its end and with such as fit.
    s.disk
        .damage(&path(2), |b| {
            for (i, place) in b[64..].chunks_exact_mut(32).enumerate() {
                let total: u32 = if i % 2 == 0 { 300 << 20 } else { 5000 };
                place.fill(0);
                place[..4].copy_from_slice(&total.to_le_bytes());
                place[8..16].copy_from_slice(&prev.to_le_bytes());
            }
        })
        .unwrap();
    let before = s.disk.calls();
    let evidence = Evidence { own_starts: s.starts, ..Evidence::default() };
    let verdict = judge(&s.disk.shared(), Path::new(DIR), SYSTEM, SEG, &stop, &evidence).unwrap();
    assert!(matches!(verdict, Verdict::EndOfWal), "{verdict:?}");
    let calls = s.disk.calls() - before;
    assert!(calls < 2000, "{calls} calls");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn random_wal_with_random_damage_yields_the_records_before_it(
        before in (40_u64..300).prop_map(|n| n * 8),
        sizes in prop::collection::vec(0_usize..2000, 1..20),
        picks in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..=255), 30),
    ) {
        let s = sample(before, &sizes);
        let end = s.ranges.last().unwrap().end;
        let bytes = end.bytes_since(s.from).unwrap() as usize;
        for (pick, flip) in picks {
            let at = s.from.advance(pick.index(bytes) as u64);
            let segno = SegNo::of(at, SEG).get();
            s.disk.damage(&path(segno), |b| b[offset(at)] ^= flip).unwrap();
            check(&s, records_before(&s.ranges, at), &format!("{flip:#x} at {at}"));
            s.disk.damage(&path(segno), |b| b[offset(at)] ^= flip).unwrap();
        }
        check(&s, s.ranges.len(), "undamaged");
    }
}

/// One life of a writer, ended by a power cut; then recovery as a node does it.
#[test]
fn power_cuts_lose_nothing_flushed_and_recovery_never_calls_them_damage() {
    for seed in 0..60_u64 {
        let disk = SimDisk::new();
        let mut wal = Wal::create(disk.shared(), Path::new(DIR), SYSTEM, options()).unwrap();
        wal.flush(wal.inserted()).unwrap();
        let mut own = vec![wal.start_id()];
        let mut flushed: Vec<u64> = Vec::new();
        let mut next = 0_u64;
        for life in 0..6_u64 {
            let mut unflushed = Vec::new();
            for step in 0..25_u64 {
                let dice = (seed * 7919 + life * 613 + step * 31) % 17;
                let size = if dice == 3 { 400_000 } else { (next as usize * 37) % 900 };
                let end = wal.insert(&record(next, size, dice % 3 == 0)).unwrap().end;
                unflushed.push(next);
                next += 1;
                if dice % 4 == 1 {
                    wal.flush(end).unwrap();
                    flushed.append(&mut unflushed);
                }
                if dice == 16 {
                    wal.switch_segment().unwrap();
                }
                if dice == 10 {
                    let keep = begin();
                    wal.recycle_upto(keep, &|_| true).unwrap();
                }
            }
            disk.crash(seed * 100 + life);
            drop(wal);

            let mut r = reader(&disk, begin());
            r.trust_marks_of(&own);
            let mut read = Vec::new();
            let stop = loop {
                match r.next() {
                    Ok(Some(rec)) if rec.rmgr() == rmgr::XLOG => {
                        if rec.kind() == rmgr::xlog::START {
                            assert!(own.contains(&StartRecord::decode(rec.main()).unwrap().id));
                        }
                    }
                    Ok(Some(rec)) => read.push(u64::from_le_bytes(rec.main().try_into().unwrap())),
                    Ok(None) => unreachable!(),
                    Err(stop) => break stop,
                }
            };
            assert!(read.starts_with(&flushed), "seed {seed} life {life}: flushed {flushed:?}, read {read:?}, {stop}");
            // What survived beyond is a prefix of what was inserted.
            assert!(read[flushed.len()..].iter().eq(unflushed[..read.len() - flushed.len()].iter()));
            let evidence = Evidence {
                flushed_mark: FlushedMark::read(&disk, Path::new(DIR)).unwrap(),
                consistent: Lsn::INVALID,
                own_starts: own.clone(),
            };
            let verdict = judge(&disk.shared(), Path::new(DIR), SYSTEM, SEG, &stop, &evidence).unwrap();
            assert!(matches!(verdict, Verdict::EndOfWal), "seed {seed} life {life}: {stop}: {verdict:?}");
            let end = r.end();
            assert!(end.durable <= end.end);
            let start = StartId::draw();
            own.insert(0, start);
            wal = Wal::open(disk.shared(), Path::new(DIR), SYSTEM, end, options()).unwrap();
            let begun = wal.begin_writing(start).unwrap();
            wal.flush(begun.end).unwrap();
            flushed = read;
        }
        wal.close().unwrap();
    }
}

#[test]
fn every_failing_call_is_reported_and_nothing_is_acknowledged_after_it() {
    let run = |disk: &SimDisk| -> (Vec<u64>, Result<(), WalError>) {
        let mut acknowledged = Vec::new();
        let mut work = || -> Result<(), WalError> {
            let wal = Wal::create(disk.shared(), Path::new(DIR), SYSTEM, options())?;
            for n in 0..12 {
                let end = wal.insert(&record(n, if n % 4 == 3 { 600_000 } else { 50 }, true))?.end;
                wal.flush(end)?;
                acknowledged.push(n);
            }
            wal.recycle_upto(wal.flushed(), &|_| true)?;
            wal.close()
        };
        let result = work();
        (acknowledged, result)
    };
    let probe = SimDisk::new();
    run(&probe).1.unwrap();
    let calls = probe.calls();
    let mut failures = 0;
    for errno in [5, 28] {
        for call in 1..=calls {
            let disk = SimDisk::new();
            disk.fail_call(call, errno);
            let (acknowledged, result) = run(&disk);
            failures += usize::from(result.is_err());
            disk.crash(call);
            if !disk.exists(&path(1)).unwrap() {
                // Never made, or recycled in the end.
                assert!(acknowledged.is_empty() || acknowledged.len() == 12);
                continue;
            }
            // Recycled in the end: only then is the first segment something else.
            if result.is_err() && !acknowledged.is_empty() && acknowledged.len() < 12 {
                let mut r = reader(&disk, begin());
                let mut read = Vec::new();
                while let Ok(Some(rec)) = r.next() {
                    if rec.rmgr() == rmgr::XACT {
                        read.push(u64::from_le_bytes(rec.main().try_into().unwrap()));
                    }
                }
                assert!(read.starts_with(&acknowledged), "call {call}: {acknowledged:?} {read:?}");
            }
        }
    }
    assert!(failures > 20, "{failures}");
}

#[test]
fn one_who_commits_alone_syncs_himself() {
    let disk = SimDisk::new();
    let wal = Wal::create(disk.shared(), Path::new(DIR), SYSTEM, options()).unwrap();
    let me = std::thread::current().id();
    let here = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&here);
    wal.add_position_listener(Box::new(move |_| {
        count.fetch_add(usize::from(std::thread::current().id() == me), Ordering::SeqCst);
    }));
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    wal.add_sync_listener(Box::new(move |_| {
        count.fetch_add(usize::from(std::thread::current().id() == me), Ordering::SeqCst);
    }));
    // Not each time: after a sync that took long, on a busy machine, the flusher has some.
    let mut i = 0;
    while here.load(Ordering::SeqCst) < 10 {
        let before = here.load(Ordering::SeqCst);
        let end = wal.insert(&record(i, 100, true)).unwrap().end;
        wal.sync_here(end);
        assert!(wal.flushed() >= end || here.load(Ordering::SeqCst) == before);
        wal.flush(end).unwrap();
        i += 1;
    }
    assert_eq!(told.load(Ordering::SeqCst), 0);
    // Who wants to hear of a sync before it begins is told by the thread that asks for it, if none runs, and another syncs.
    let follower = wal.follow_syncs();
    let before = here.load(Ordering::SeqCst);
    while told.load(Ordering::SeqCst) == 0 {
        i += 1;
        let end = wal.insert(&record(i, 100, true)).unwrap().end;
        wal.sync_here(end);
        assert!(wal.syncing() >= end || told.load(Ordering::SeqCst) == 0);
        wal.flush(end).unwrap();
        assert_eq!(here.load(Ordering::SeqCst), before);
    }
    drop(follower);
    let end = wal.insert(&record(i + 1, 100, true)).unwrap().end;
    wal.close().unwrap();
    wal.sync_here(end);
    assert!(wal.flushed() >= end);
}

#[test]
fn a_sync_that_does_not_end_is_told_of() {
    let disk = SimDisk::new();
    let delay = WalOptions { writer_delay: std::time::Duration::from_millis(50), ..options() };
    let wal = Wal::create(disk.shared(), Path::new(DIR), SYSTEM, delay).unwrap();
    let (stalled, told) = std::sync::mpsc::channel();
    wal.on_stalled_sync(Box::new(move || {
        let _gone = stalled.send(());
    }));
    let me = std::thread::current().id();
    let told = std::sync::Mutex::new(Some(told));
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    wal.add_position_listener(Box::new(move |_| {
        // A sync is not over before it is told: this one lasts until somebody complains.
        if std::thread::current().id() == me
            && let Some(told) = told.lock().unwrap().take()
        {
            told.recv().unwrap();
            count.fetch_add(1, Ordering::SeqCst);
        }
    }));
    let mut i = 0;
    while ended.load(Ordering::SeqCst) == 0 {
        let end = wal.insert(&record(i, 100, true)).unwrap().end;
        wal.sync_here(end);
        wal.flush(end).unwrap();
        i += 1;
    }
}

#[test]
fn failed_sync_of_one_who_commits_is_final_for_all() {
    let disk = SimDisk::new();
    let wal = Wal::create(disk.shared(), Path::new(DIR), SYSTEM, options()).unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    wal.on_failure(Box::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    let end = wal.insert(&record(1, 10, true)).unwrap().end;
    disk.fail_kind(Some((Call::Sync, 5)));
    wal.sync_here(end);
    disk.fail_kind(None);
    wal.sync_here(end);
    assert!(matches!(wal.flush(end), Err(WalError::Sync { .. })));
    assert!(matches!(wal.insert(&record(2, 10, true)), Err(WalError::Sync { .. })));
    assert!(wal.flushed() < end);
    assert_eq!(told.load(Ordering::SeqCst), 1);
}

#[test]
fn failed_sync_is_final() {
    let disk = SimDisk::new();
    let wal = Wal::create(disk.shared(), Path::new(DIR), SYSTEM, options()).unwrap();
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    wal.on_failure(Box::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    }));
    let end = wal.insert(&record(1, 10, true)).unwrap().end;
    disk.fail_kind(Some((Call::Sync, 5)));
    assert!(matches!(wal.flush(end), Err(WalError::Sync { .. })));
    disk.fail_kind(None);
    assert!(matches!(wal.flush(end), Err(WalError::Sync { .. })));
    assert!(matches!(wal.insert(&record(2, 10, true)), Err(WalError::Sync { .. })));
    assert!(wal.flushed() < end);
    assert_eq!(told.load(Ordering::SeqCst), 1);
}

#[test]
fn garbage_of_any_kind_is_read_without_a_panic() {
    let disk = SimDisk::new();
    disk.create_dir(Path::new(DIR)).unwrap();
    let file = disk.open(&path(1), Open::Create).unwrap();
    let mut state = 12345_u64;
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..4096)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        file.write_at(&bytes, 0).unwrap();
        for from in [begin(), begin().advance(64), begin().advance(4088)] {
            let (read, _) = read_all(&disk, from);
            assert!(read.is_empty());
        }
    }
}
