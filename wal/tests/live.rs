//! The live WAL: insert, flush, read, switch, receive, promote, restart.

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test data; a failure here is a failed test")]

use afterimage_wal::disk::RealDisk;
use afterimage_wal::format::{self, SEGMENT_HEADER_BYTES};
use afterimage_wal::history::History;
use afterimage_wal::reader::FollowLimit;
use afterimage_wal::*;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

const SEG: u32 = 1 << 20;
const SYSTEM: SystemId = SystemId::new(42);

fn options() -> WalOptions {
    WalOptions { segment_bytes: SEG, ..WalOptions::default() }
}

fn create(dir: &Path) -> Arc<Wal> {
    Wal::create(RealDisk::shared(), dir, SYSTEM, options()).unwrap()
}

fn open_reader(dir: &Path, history: History, from: Lsn) -> WalReader {
    WalReader::open(RealDisk::shared(), dir, SYSTEM, SEG, history, from)
}

fn begin() -> Lsn {
    SegNo::FIRST.start_lsn(SEG)
}

fn rel(n: u32) -> RelId {
    RelId::new(1663, 5, n)
}

/// A record of about `bytes` whose contents follow from `n`.
fn record(n: u64, bytes: usize) -> RecordBuilder {
    let mut r = RecordBuilder::new(rmgr::HEAP, 0x10, Xid::new(n));
    let data: Vec<u8> = (0..bytes).map(|i| (n as usize * 31 + i) as u8).collect();
    r.block(rel(1), Fork::Main, BlockNo::new(n as u32), 0, &data).main(&n.to_le_bytes());
    r
}

fn number(r: &Record<'_>) -> Option<u64> {
    (r.rmgr() == rmgr::HEAP).then(|| u64::from_le_bytes(r.main().try_into().unwrap()))
}

fn numbers(reader: &mut WalReader) -> (Vec<u64>, Option<ReadStop>) {
    let mut all = Vec::new();
    loop {
        match reader.next() {
            Ok(Some(r)) => all.extend(number(&r)),
            Ok(None) => return (all, None),
            Err(stop) => return (all, Some(stop)),
        }
    }
}

fn all_bytes(wal: &Wal, from: Lsn) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = from;
    let mut buf = vec![0; 100_000];
    loop {
        let n = wal.read_at(at, &mut buf).unwrap();
        if n == 0 {
            return bytes;
        }
        bytes.extend_from_slice(&buf[..n]);
        at = at.advance(n as u64);
    }
}

#[test]
fn what_was_inserted_is_read_back_from_memory_and_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let wal = create(dir.path());
    let mut ends = Vec::new();
    for n in 0..3000 {
        let size = if n % 500 == 7 { 2_500_000 } else { (n as usize * 37) % 3000 };
        let range = wal.insert(&record(n, size)).unwrap();
        ends.push(range.end);
    }
    wal.flush(*ends.last().unwrap()).unwrap();
    assert_eq!(wal.flushed(), wal.inserted());
    let want: Vec<u64> = (0..3000).collect();
    let mut live = WalReader::follow(Arc::clone(&wal), begin(), FollowLimit::Confirmed);
    assert_eq!(numbers(&mut live).0, want);
    assert_eq!(live.position(), wal.inserted());
    let mut files = open_reader(dir.path(), History::first(), begin());
    let (read, stop) = numbers(&mut files);
    assert_eq!(read, want);
    let stop = stop.unwrap();
    assert_eq!(stop.at, *ends.last().unwrap());
    assert!(matches!(stop.reason, StopReason::Zeros), "{stop}");
    assert_eq!(files.end().start_id, wal.start_id());
    // From the middle of anything to the next record.
    for lsn in [begin().advance(5_000_000), begin().advance(5_000_001), ends[1500]] {
        let mut seek = open_reader(dir.path(), History::first(), begin());
        let found = seek.seek(lsn).unwrap();
        assert!(found >= lsn);
        let r = seek.next().unwrap().unwrap();
        assert_eq!(r.start(), found);
    }
    wal.close().unwrap();
    assert!(matches!(wal.insert(&record(0, 1)), Err(WalError::Closed)));
}

#[test]
fn many_threads_insert_and_every_record_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let wal = create(dir.path());
    let flushed = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&flushed);
    wal.add_position_listener(Box::new(move |p| {
        assert!(p.flushed <= p.published && p.published <= p.inserted);
        assert!(seen.fetch_max(p.flushed.as_u64(), Ordering::SeqCst) <= p.flushed.as_u64());
    }));
    std::thread::scope(|s| {
        for t in 0..8_u64 {
            let wal = &wal;
            s.spawn(move || {
                let mut b = RecordBuilder::new(0, 0, Xid::INVALID);
                for i in 0..5000 {
                    let n = t * 5000 + i;
                    b.reset(rmgr::HEAP, 0x10, Xid::new(n));
                    b.block(rel(1), Fork::Main, BlockNo::new(1), 0, &vec![t as u8; (n as usize * 7) % 400]);
                    b.main(&n.to_le_bytes());
                    let range = wal.insert(&b).unwrap();
                    if i % 100 == 0 {
                        wal.flush(range.end).unwrap();
                        assert!(wal.flushed() >= range.end);
                    }
                }
            });
        }
    });
    wal.flush(wal.inserted()).unwrap();
    let (mut read, _) = numbers(&mut open_reader(dir.path(), History::first(), begin()));
    read.sort_unstable();
    assert_eq!(read, (0..40_000).collect::<Vec<_>>());
    drop(wal);
}

#[test]
fn those_who_commit_sync_for_each_other_and_nobody_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let wal = create(dir.path());
    let last = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&last);
    wal.add_position_listener(Box::new(move |p| {
        assert!(seen.swap(p.flushed.as_u64(), Ordering::SeqCst) <= p.flushed.as_u64(), "told out of order");
    }));
    std::thread::scope(|s| {
        for t in 0..6_u64 {
            let wal = &wal;
            s.spawn(move || {
                for i in 0..500 {
                    let end = wal.insert(&record(t * 500 + i, 50)).unwrap().end;
                    if (t + i) % 5 == 0 {
                        wal.request_flush(end);
                    } else {
                        wal.sync_here(end);
                    }
                    // It was asked for: this only waits.
                    wal.flush(end).unwrap();
                    assert!(wal.flushed() >= end);
                }
            });
        }
    });
    let (mut read, _) = numbers(&mut open_reader(dir.path(), History::first(), begin()));
    read.sort_unstable();
    assert_eq!(read, (0..3000).collect::<Vec<_>>());
}

#[test]
fn flusher_syncs_what_nobody_asked_for_after_the_delay() {
    let dir = tempfile::tempdir().unwrap();
    let wal = create(dir.path());
    let (tx, rx) = mpsc::channel();
    wal.add_position_listener(Box::new(move |p| {
        let _gone = tx.send(p.flushed);
    }));
    let end = wal.insert(&record(1, 10)).unwrap().end;
    while rx.recv_timeout(std::time::Duration::from_secs(10)).unwrap() < end {}
    assert!(matches!(wal.flush(end.advance(8)), Err(WalError::FlushBeyondEnd { .. })));
}

#[test]
fn switch_ends_the_segment_wherever_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let wal = create(dir.path());
    let mut n = 0;
    // Leave every small room before the boundary once.
    for room in (0..=80).step_by(8) {
        let boundary = SegNo::of(wal.inserted(), SEG).end_lsn(SEG);
        loop {
            let left = boundary.bytes_since(wal.inserted()).unwrap();
            if left == room {
                break;
            }
            let overhead = record(0, 0).total_bytes() as u64;
            let size = (left - room).min(300_000).saturating_sub(overhead);
            // Keep room for one more record of the smallest size.
            let size = if left - room - size - overhead < 200 && left - room > 700 { size - 300 } else { size };
            wal.insert(&record(n, size as usize)).unwrap();
            n += 1;
        }
        let end = wal.switch_segment().unwrap();
        assert_eq!(end, boundary, "room {room}");
        if room >= 28 || room == 0 {
            assert_eq!(wal.inserted(), boundary);
            assert_eq!(wal.switch_segment().unwrap(), boundary);
        }
    }
    wal.flush(wal.inserted()).unwrap();
    let (read, stop) = numbers(&mut open_reader(dir.path(), History::first(), begin()));
    assert_eq!(read, (0..n).collect::<Vec<_>>());
    let at = stop.unwrap().at;
    assert_eq!(at, wal.inserted());
}

/// A standby in `dir` that has received nothing.
fn standby(dir: &Path) -> Arc<Wal> {
    let end = WalEnd::before(TimelineId::FIRST, begin(), SEG);
    Wal::open(RealDisk::shared(), dir, SYSTEM, end, options()).unwrap()
}

#[test]
fn standby_takes_the_stream_in_any_portions_and_holds_the_same_bytes() {
    let (a_dir, b_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = create(a_dir.path());
    for n in 0..400 {
        a.insert(&record(n, if n == 200 { 3_000_000 } else { (n as usize * 101) % 9000 })).unwrap();
        if n == 300 {
            a.switch_segment().unwrap();
        }
    }
    a.flush(a.inserted()).unwrap();
    let stream = all_bytes(&a, begin());
    for portion in [1_usize << 17, 8192, 997] {
        drop(std::fs::remove_dir_all(b_dir.path()));
        std::fs::create_dir(b_dir.path()).unwrap();
        let b = standby(b_dir.path());
        let mut at = begin();
        for part in stream.chunks(portion) {
            let verified = b.append_received(at, part).unwrap();
            at = at.advance(part.len() as u64);
            assert!(verified <= at && b.received() == at && b.published() == verified);
        }
        assert_eq!(b.published(), a.inserted());
        b.flush(b.published()).unwrap();
        assert_eq!(all_bytes(&b, begin()), stream);
        assert_eq!(b.start_id(), a.start_id());
        assert!(matches!(b.insert(&record(0, 0)), Err(WalError::NotWriting)));
        // The stream from an earlier point is compared, not written.
        assert_eq!(b.append_received(begin(), &stream[..5000]).unwrap(), b.published());
        let mut other = stream[..5000].to_vec();
        other[4000] ^= 1;
        let diverged = b.append_received(begin(), &other);
        assert!(matches!(diverged, Err(WalError::Diverged { at }) if at == begin().advance(4000)), "{diverged:?}");
        assert!(matches!(b.append_received(at.advance(8), &[0; 8]), Err(WalError::Gap { .. })));
        // Bytes of a segment that is not here are not taken for known ones.
        assert!(matches!(b.append_received(Lsn::from_u64(64), &stream[..100]), Err(WalError::Gap { .. })));
    }
}

#[test]
fn flipped_bit_in_the_stream_is_refused_and_the_stream_goes_on_after_it() {
    let (a_dir, b_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = create(a_dir.path());
    for n in 0..200 {
        a.insert(&record(n, (n as usize * 101) % 900)).unwrap();
    }
    let stream = all_bytes(&a, begin());
    let b = standby(b_dir.path());
    let mut flips = 0;
    let mut at = 0;
    while at < stream.len() {
        let end = (at + 1000).min(stream.len());
        let mut part = stream[at..end].to_vec();
        let byte = (at * 7) % part.len();
        part[byte] ^= 1 << (at % 8);
        let lsn = begin().advance(at as u64);
        match b.append_received(lsn, &part) {
            // Found at once, or still part of an incomplete record: then when that completes.
            Err(e) => assert!(matches!(e, WalError::ReceivedDamage { .. }), "{e}"),
            Ok(verified) => assert!(verified < lsn.advance(byte as u64 + 1)),
        }
        flips += 1;
        b.drop_incomplete();
        at = b.published().bytes_since(begin()).unwrap() as usize;
        let end = (at + 1500).min(stream.len());
        b.append_received(b.published(), &stream[at..end]).unwrap();
        b.drop_incomplete();
        at = b.published().bytes_since(begin()).unwrap() as usize;
    }
    assert!(flips > 50);
    assert_eq!(all_bytes(&b, begin()), stream);
}

#[test]
fn promoted_standby_continues_on_its_timeline_and_a_second_one_follows() {
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let a = create(dirs[0].path());
    for n in 0..50 {
        a.insert(&record(n, 30_000)).unwrap();
    }
    let stream = all_bytes(&a, begin());
    let (b, c) = (standby(dirs[1].path()), standby(dirs[2].path()));
    // The last bytes are of an incomplete record: it is not part of the new timeline.
    b.append_received(begin(), &stream[..stream.len() - 100]).unwrap();
    c.append_received(begin(), &stream[..stream.len() - 100]).unwrap();
    let switch = b.published();
    let history = History::first().child(TimelineId::new(2), switch, "promoted", b.start_id());
    history.write(&RealDisk, dirs[1].path()).unwrap();
    assert!(matches!(b.start_timeline(TimelineId::new(2), switch.advance(8)), Err(WalError::BadTimeline { .. })));
    b.start_timeline(TimelineId::new(2), switch).unwrap();
    let old = b.start_id();
    b.begin_writing(StartId::draw()).unwrap();
    assert_ne!(b.start_id(), old);
    for n in 49..120 {
        b.insert(&record(n, 30_000)).unwrap();
    }
    b.flush(b.inserted()).unwrap();
    assert_eq!(History::read(&RealDisk, dirs[1].path(), TimelineId::new(2)).unwrap(), Some(history.clone()));
    let (read, _) = numbers(&mut open_reader(dirs[1].path(), history.clone(), begin()));
    assert_eq!(read, (0..120).collect::<Vec<_>>());

    c.start_timeline(TimelineId::new(2), switch).unwrap();
    let rest = all_bytes(&b, switch);
    for (i, part) in rest.chunks(50_000).enumerate() {
        c.append_received(switch.advance(i as u64 * 50_000), part).unwrap();
    }
    c.flush(c.published()).unwrap();
    assert_eq!(all_bytes(&c, begin()), all_bytes(&b, begin()));
    assert_eq!(c.start_id(), b.start_id());
    let (read, _) = numbers(&mut open_reader(dirs[2].path(), history, begin()));
    assert_eq!(read, (0..120).collect::<Vec<_>>());
}

#[test]
fn restart_discards_the_tail_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    {
        let wal = create(dir.path());
        for n in 0..100 {
            wal.insert(&record(n, 30_000)).unwrap();
            expected.push(n);
        }
        wal.flush(wal.inserted()).unwrap();
    }
    for round in 1..5_u64 {
        let mut reader = open_reader(dir.path(), History::first(), begin());
        let (end, _) = reader.read_to_end();
        // Garbage behind the end, as a torn write leaves it.
        let path = dir.path().join(segment::file_name(end.tli, SegNo::of_end(end.end, SEG), SEG));
        let mut bytes = std::fs::read(&path).unwrap();
        let from = (end.end.as_u64() % u64::from(SEG)) as usize;
        bytes[from..from + 500].fill(0xa5);
        std::fs::write(&path, bytes).unwrap();
        let wal = Wal::open(RealDisk::shared(), dir.path(), SYSTEM, end, options()).unwrap();
        wal.begin_writing(StartId::draw()).unwrap();
        for n in 0..40 {
            wal.insert(&record(round * 1000 + n, 30_000)).unwrap();
            expected.push(round * 1000 + n);
        }
        wal.flush(wal.inserted()).unwrap();
        let (read, stop) = numbers(&mut open_reader(dir.path(), History::first(), begin()));
        assert_eq!(read, expected);
        // From the last record on, the start id in force is still known.
        let mut last = open_reader(dir.path(), History::first(), wal.last_record());
        assert_eq!(last.read_to_end().0.start_id, wal.start_id());
        assert!(matches!(stop.unwrap().reason, StopReason::Zeros | StopReason::SegmentMissing { .. }));
    }
}

#[test]
fn recycled_segments_are_used_again_and_their_old_bytes_never_show() {
    let dir = tempfile::tempdir().unwrap();
    let wal = create(dir.path());
    let mut last = Lsn::INVALID;
    for n in 0..400 {
        last = wal.insert(&record(n, 30_000)).unwrap().end;
        if n % 50 == 49 {
            wal.flush(last).unwrap();
            wal.recycle_upto(last, &|_| true).unwrap();
            assert!(matches!(wal.read_at(begin(), &mut [0; 10]), Err(WalError::SegmentGone { .. })));
        }
    }
    wal.flush(last).unwrap();
    let oldest = wal.oldest().unwrap();
    assert!(oldest > begin());
    let mut reader = open_reader(dir.path(), History::first(), oldest);
    let (read, stop) = numbers(&mut reader);
    assert_eq!(read.last(), Some(&399));
    let stop = stop.unwrap();
    assert_eq!(stop.at, last);
    let files = std::fs::read_dir(dir.path()).unwrap().count();
    assert!(files < 14, "{files} files");
}

#[test]
fn standby_that_went_too_far_is_cut_back() {
    let (a_dir, b_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = create(a_dir.path());
    for n in 0..100 {
        a.insert(&record(n, 30_000)).unwrap();
    }
    let stream = all_bytes(&a, begin());
    let b = standby(b_dir.path());
    b.append_received(begin(), &stream).unwrap();
    let mut reader = WalReader::follow(Arc::clone(&b), begin(), FollowLimit::Published);
    for _ in 0..20 {
        reader.next().unwrap().unwrap();
    }
    let cut = reader.end();
    b.discard_after(cut).unwrap();
    assert_eq!((b.published(), b.flushed(), b.inserted()), (cut.end, cut.end, cut.end));
    let at = cut.end.bytes_since(begin()).unwrap() as usize;
    assert_eq!(all_bytes(&b, begin()), &stream[..at]);
    let (read, stop) = numbers(&mut open_reader(b_dir.path(), History::first(), begin()));
    assert_eq!(read.len(), 19);
    assert!(matches!(stop.unwrap().reason, StopReason::Zeros));
    b.append_received(cut.end, &stream[at..]).unwrap();
    assert_eq!(all_bytes(&b, begin()), stream);
}

#[test]
fn standby_may_begin_in_a_segment_that_continues_an_older_record() {
    let (a_dir, b_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = create(a_dir.path());
    for n in 0..10 {
        a.insert(&record(n, 700_000)).unwrap();
    }
    let third = SegNo::new(3).start_lsn(SEG);
    let b =
        Wal::open(RealDisk::shared(), b_dir.path(), SYSTEM, WalEnd::before(TimelineId::FIRST, third.advance(5), SEG), options()).unwrap();
    let stream = all_bytes(&a, third);
    for (i, part) in stream.chunks(1000).enumerate() {
        b.append_received(third.advance(i as u64 * 1000), part).unwrap();
    }
    assert_eq!(b.published(), a.published());
    assert_eq!(all_bytes(&b, third), stream);
}

#[test]
fn too_large_records_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let wal = create(dir.path());
    let mut r = RecordBuilder::new(rmgr::HEAP, 0, Xid::INVALID);
    for _ in 0..256 {
        r.block(rel(1), Fork::Main, BlockNo::new(1), 0, b"");
    }
    assert!(matches!(wal.insert(&r), Err(WalError::RecordTooLarge { .. })));
    assert_eq!(format::place(begin(), 28, SEG).0, begin().advance(SEGMENT_HEADER_BYTES as u64));
}

#[test]
fn what_came_ahead_is_followed_as_far_as_it_is_confirmed() {
    let (a_dir, b_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = create(a_dir.path());
    let ends: Vec<Lsn> = (0..10).map(|n| a.insert(&record(n, 100)).unwrap().end).collect();
    let stream = all_bytes(&a, begin());
    let b = standby(b_dir.path());
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    b.add_position_listener(Box::new(move |p| telling.lock().unwrap().push((p.flushed, p.confirmed))));
    b.hold();
    b.append_received(begin(), &stream).unwrap();
    b.flush(b.published()).unwrap();
    assert_eq!((b.flushed(), b.confirmed(), b.held_from()), (ends[9], begin(), Some(begin())));
    let mut live = WalReader::follow(Arc::clone(&b), begin(), FollowLimit::Confirmed);
    assert!(live.next().unwrap().is_none());
    b.confirm(ends[3]).unwrap();
    b.confirm(ends[1]).unwrap();
    assert_eq!((b.confirmed(), b.held_from()), (ends[3], Some(ends[3])));
    while live.next().unwrap().is_some() {}
    assert_eq!(live.position(), ends[3]);
    assert_eq!(told.lock().unwrap().last(), Some(&(ends[9], ends[3])));
    // The mark says so too, and a start may go by it.
    let mark = FlushedMark::read(&*RealDisk::shared(), b_dir.path()).unwrap().unwrap();
    assert_eq!((mark.flushed, mark.confirmed()), (ends[9], ends[3]));
    drop((live, b));
    let mut reader = open_reader(b_dir.path(), History::first(), begin());
    let (end, _) = reader.read_to_end();
    let b = Wal::open_held(RealDisk::shared(), b_dir.path(), SYSTEM, end, mark.confirmed(), options()).unwrap();
    assert_eq!((b.flushed(), b.confirmed()), (ends[9], ends[3]));
    b.release().unwrap();
    assert_eq!((b.confirmed(), b.held_from()), (ends[9], None));
}
