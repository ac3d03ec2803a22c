//! docs/wal-format.md against the constants, and encoded bytes against the files under golden/.
//!
//! `UPDATE_GOLDEN=1` writes the golden files anew: a change of format, to be reviewed like one.

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test data; a failure here is a failed test")]

use afterimage_wal::control_file::{self, Checkpoint, ClusterState, ControlFile};
use afterimage_wal::disk::{Open, RealDisk, SimDisk};
use afterimage_wal::dump::{Stats, write_record};
use afterimage_wal::format as f;
use afterimage_wal::history::History;
use afterimage_wal::rmgr::Registry;
use afterimage_wal::segment::file_name;
use afterimage_wal::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Asked when the test runs: a target directory that several checkouts share may hold a program another one built.
fn manifest_dir() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap().into()
}

/// Rows of the tables that begin with `| offset |`, by heading: offset, bytes, field.
fn tables() -> BTreeMap<String, Vec<(usize, usize, String)>> {
    let path = manifest_dir().join("../docs/wal-format.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut tables: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let (mut heading, mut inside) = (String::new(), false);
    for line in text.lines() {
        if let Some(h) = line.strip_prefix("## ") {
            heading = h.to_owned();
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if line.starts_with("| offset |") {
            inside = true;
        } else if !line.starts_with('|') {
            inside = false;
        } else if inside && let (Ok(at), Ok(bytes)) = (cells[1].parse(), cells[2].parse()) {
            assert!(cells[5].parse::<u16>().is_ok_and(|v| v <= f::VERSION), "since: {line}");
            tables.entry(heading.clone()).or_default().push((at, bytes, cells[3].to_owned()));
        }
    }
    tables
}

#[test]
fn tables_in_the_documentation_are_those_of_the_code() {
    let tables = tables();
    let offsets = |heading: &str| tables[heading].iter().map(|r| r.0).collect::<Vec<_>>();
    assert_eq!(
        offsets("Segment header"),
        [
            f::SEGMENT_MAGIC,
            f::SEGMENT_VERSION,
            f::SEGMENT_HEADER_LEN,
            f::SEGMENT_SYSTEM_ID,
            f::SEGMENT_TLI,
            f::SEGMENT_BYTES,
            f::SEGMENT_SEGNO,
            f::SEGMENT_START_ID,
            f::SEGMENT_FLUSHED_MARK,
            f::SEGMENT_PREV,
            f::SEGMENT_CONTINUED,
            f::SEGMENT_CRC
        ]
    );
    assert_eq!(
        offsets("Record header"),
        [
            f::RECORD_TOTAL_BYTES,
            f::RECORD_CRC,
            f::RECORD_PREV,
            f::RECORD_XID,
            f::RECORD_RMGR,
            f::RECORD_KIND,
            f::RECORD_BLOCK_COUNT,
            f::RECORD_FLAGS
        ]
    );
    use control_file::at as c;
    assert_eq!(
        offsets("Control file"),
        [
            c::SYSTEM_ID,
            c::CONTROL_VERSION,
            c::CATALOG_VERSION,
            c::STATE,
            c::TIME,
            c::CHECKPOINT,
            c::REDO,
            c::TLI,
            c::PREV_TLI,
            c::FULL_PAGE_WRITES,
            c::NEXT_XID,
            c::NEXT_OID,
            c::NEXT_MULTI,
            c::OLDEST_XID,
            c::OLDEST_XID_DB,
            c::OLDEST_MULTI,
            c::OLDEST_MULTI_DB,
            c::CHECKPOINT_TIME,
            c::OLDEST_ACTIVE_XID,
            c::UNLOGGED_LSN,
            c::MIN_RECOVERY_POINT,
            c::MIN_RECOVERY_TLI,
            c::BACKUP_START,
            c::BACKUP_END,
            c::BACKUP_END_REQUIRED,
            c::WAL_LEVEL,
            c::WAL_LOG_HINTS,
            c::MAX_CONNECTIONS,
            c::MAX_WORKER_PROCESSES,
            c::MAX_WAL_SENDERS,
            c::MAX_PREPARED_XACTS,
            c::MAX_LOCKS_PER_XACT,
            c::TRACK_COMMIT_TIMESTAMP,
            c::MAX_ALIGN,
            c::FLOAT_FORMAT,
            c::BLOCK_BYTES,
            c::RELATION_SEGMENT_BLOCKS,
            c::WAL_BLOCK_BYTES,
            c::WAL_SEGMENT_BYTES,
            c::NAME_BYTES,
            c::INDEX_MAX_KEYS,
            c::TOAST_CHUNK_BYTES,
            c::LARGE_OBJECT_BYTES,
            c::FLOAT8_BY_VALUE,
            c::CHECKSUM_VERSION,
            c::NONCE,
            c::CRC,
            c::EXTENSION,
            c::EXTENSION_VERSION,
            c::STARTS,
            c::CHECKPOINT_COPY,
            c::AHEAD_FROM,
            c::EXTENSION_CRC
        ]
    );
    // Where a structure has no gaps, the rows lie end to end and fill it.
    for (heading, bytes) in [
        ("Segment header", f::SEGMENT_HEADER_BYTES),
        ("Record header", f::RECORD_HEADER_BYTES),
        ("Start record", f::StartRecord::BYTES),
        ("Checkpoint", Checkpoint::BYTES),
        ("Flushed mark", FLUSHED_BYTES),
    ] {
        let end = tables[heading].iter().fold(0, |at, row| {
            assert_eq!(row.0, at, "{heading}: {}", row.2);
            at + row.1
        });
        assert_eq!(end, bytes, "{heading}");
    }
    let control = &tables["Control file"];
    assert!(control.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
    assert_eq!(control.last().map(|r| r.0 + r.1), Some(512));
}

#[test]
fn names_of_resource_managers_are_documented() {
    let text = std::fs::read_to_string(manifest_dir().join("../docs/wal-format.md")).unwrap();
    for (id, name) in rmgr::NAMES.iter().enumerate() {
        assert!(text.contains(&format!("| {id} | {name} |")), "{id} {name}");
    }
}

fn golden(name: &str, bytes: &[u8]) {
    let path = manifest_dir().join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    let kept = std::fs::read(&path).unwrap();
    if let (Ok(a), Ok(b)) = (str::from_utf8(&kept), str::from_utf8(bytes)) {
        assert_eq!(a, b, "{name}");
    }
    assert!(kept == bytes, "{name} differs");
}

const SEG: u32 = 1 << 20;
const SYSTEM: SystemId = SystemId::new(0x0123_4567_89ab_cdef);
const DIR: &str = "/pg_wal";

/// The first bytes of a segment with one of each shape of record.
fn sample_segment() -> Vec<u8> {
    let disk = SimDisk::new();
    let options = WalOptions { segment_bytes: SEG, writer_delay: std::time::Duration::from_secs(1000), ..WalOptions::default() };
    disk::Disk::create_dir(&disk, Path::new(DIR)).unwrap();
    let end = WalEnd::before(TimelineId::FIRST, SegNo::FIRST.start_lsn(SEG), SEG);
    let wal = Wal::open(disk.shared(), Path::new(DIR), SYSTEM, end, options).unwrap();
    wal.begin_writing(StartId::new(0xfeed)).unwrap();
    let rel = RelId::new(1663, 5, 16384);
    let mut r = RecordBuilder::new(rmgr::HEAP, 0x00, Xid::new(731));
    r.block(rel, Fork::Main, BlockNo::new(7), 0, b"row").block(rel, Fork::Vm, BlockNo::new(0), record::WILL_INIT, b"");
    wal.insert(r.main(b"main")).unwrap();
    r.reset(rmgr::BTREE, 0x30, Xid::INVALID);
    r.block(RelId::new(1664, 0, 1260), Fork::Fsm, BlockNo::new(u32::MAX - 1), record::FPI, &[0xab; 300]);
    wal.insert(&r).unwrap();
    r.reset(rmgr::SMGR, 0x10, Xid::new(1 << 40));
    r.block(rel, Fork::Init, BlockNo::new(1), 0, &vec![0x5a; 66_000]);
    let large = wal.insert(&r).unwrap();
    wal.flush(large.end).unwrap();
    r.reset(rmgr::XACT, 0x00, Xid::new(731));
    wal.insert(r.main(&[1, 2, 3, 4, 5]).carry_flushed_mark()).unwrap();
    let end = wal.switch_segment().unwrap();
    assert_eq!(end, SegNo::new(2).start_lsn(SEG));
    wal.flush(end).unwrap();
    wal.close().unwrap();
    let bytes = disk::read_all(&disk, &Path::new(DIR).join(file_name(TimelineId::FIRST, SegNo::FIRST, SEG))).unwrap();
    let used = bytes.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
    bytes[..used].to_vec()
}

#[test]
fn written_bytes_are_those_of_the_golden_segment_and_it_reads_as_the_golden_dump() {
    golden("segment-1.bin", &sample_segment());
    let kept = std::fs::read(manifest_dir().join("tests/golden/segment-1.bin")).unwrap();
    let disk = SimDisk::new();
    let d: &dyn disk::Disk = &disk;
    d.create_dir(Path::new(DIR)).unwrap();
    let file = d.open(&Path::new(DIR).join(file_name(TimelineId::FIRST, SegNo::FIRST, SEG)), Open::CreateNew).unwrap();
    file.set_len(SEG.into()).unwrap();
    file.write_at(&kept, 0).unwrap();
    let mut reader = WalReader::open(disk.shared(), Path::new(DIR), SYSTEM, SEG, History::first(), SegNo::FIRST.start_lsn(SEG));
    let registry = Registry::new();
    let (mut text, mut stats) = (String::new(), Stats::default());
    let stop = loop {
        match reader.next() {
            Ok(Some(r)) => {
                write_record(&mut text, &registry, &r, false).unwrap();
                write_record(&mut text, &registry, &r, true).unwrap();
                stats.add(&r);
            }
            Ok(None) => unreachable!("a file"),
            Err(stop) => break stop,
        }
    };
    text += &format!("{stop}\n");
    stats.write(&mut text, &registry, false).unwrap();
    stats.write(&mut text, &registry, true).unwrap();
    golden("segment-1.txt", text.as_bytes());
}

#[test]
fn control_file_flushed_mark_and_history_are_those_of_the_golden_files() {
    let mut c = ControlFile::new(SYSTEM, 202_611_211, 16 << 20);
    c.mock_authentication_nonce = std::array::from_fn(|i| i as u8);
    c.state = ClusterState::ShutdownedInRecovery;
    c.time = 1_700_000_001;
    c.checkpoint = Lsn::new(0x100_0148);
    c.checkpoint_copy = Checkpoint {
        redo: Lsn::new(0x100_0110),
        tli: TimelineId::new(3),
        prev_tli: TimelineId::new(2),
        full_page_writes: true,
        next_xid: Xid::new((5 << 32) | 731),
        next_oid: 16_384,
        oldest_xid: Xid::new((5 << 32) | 7),
        oldest_active_xid: Xid::new((5 << 32) | 9),
        time: 1_700_000_000,
    };
    c.min_recovery_point = Lsn::new(0x16_B374_D848);
    c.min_recovery_tli = TimelineId::new(3);
    c.backup_start = Lsn::new(0x11);
    c.backup_end = Lsn::new(0x22);
    c.backup_end_required = true;
    c.push_start(StartId::new(0xfeed));
    c.ahead_from = Lsn::new(0x33);
    golden("pg_control-1.bin", &c.encode()[..512]);
    let mark = FlushedMark {
        system_id: SYSTEM,
        tli: TimelineId::new(3),
        flushed: Lsn::new(0x16_B374_D848),
        start_id: StartId::new(0xfeed),
        held_bytes: 0x128,
    };
    golden("flushed-1.bin", &mark.encode());
    let history = History::first()
        .child(TimelineId::new(2), Lsn::new(0x500_0148), "no recovery target specified", StartId::new(0xfeed))
        .child(TimelineId::new(3), Lsn::new(0x700_0000), "before 2000-01-01 00:00:00+00", StartId::new(0xbeef));
    golden("00000003.history", history.to_text().as_bytes());
    let kept = History::read(&RealDisk, &manifest_dir().join("tests/golden"), TimelineId::new(3));
    assert_eq!(kept.unwrap(), Some(history));
}
