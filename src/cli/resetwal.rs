//! `afterimage resetwal`, and `pg_resetwal` when called by that name: gives a directory whose WAL is lost or damaged a new, empty one.
//!
//! A last resort: what was only in the WAL is gone, and what is left may contradict itself. The new WAL begins behind every byte of the old
//! one, so that no page is from its future; torn pages are restored from the double-write area first. After an unclean stop the next
//! transaction id is moved on too, so that none is used twice, unless -x says it.
//!
//! PostgreSQL: bin/pg_resetwal.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use afterimage_wal::control_file::{Checkpoint, ClusterState, ControlFile};
use afterimage_wal::disk::RealDisk;
use afterimage_wal::ids::{Lsn, SegNo, StartId, SystemId, TimelineId, Xid};
use afterimage_wal::{RecordBuilder, Wal, WalEnd, WalOptions, rmgr, segment};

use super::getopt::{OptionSpec, Parsed, Takes};
use super::pg_ctl::reason;
use super::tool::{Tool, as_postgresql};
use crate::control::pid_file::{PID_FILE, PidFile};
use crate::engine::CATALOG_VERSION;
use crate::storage::{Files, double_write};
use crate::txn::xact_status::make_files_between;

const OPTIONS: &[OptionSpec] = &[
    ('c', "commit-timestamp-ids", Takes::Value, "c"),
    ('D', "pgdata", Takes::Value, "D"),
    ('e', "epoch", Takes::Value, "e"),
    ('f', "force", Takes::Nothing, "f"),
    ('l', "next-wal-file", Takes::Value, "l"),
    ('m', "multixact-ids", Takes::Value, "m"),
    ('n', "dry-run", Takes::Nothing, "n"),
    ('o', "next-oid", Takes::Value, "o"),
    ('O', "multixact-offset", Takes::Value, "O"),
    ('u', "oldest-transaction-id", Takes::Value, "u"),
    ('x', "next-transaction-id", Takes::Value, "x"),
    ('\0', "wal-segsize", Takes::Value, "wal-segsize"),
    ('V', "version", Takes::Nothing, "version"),
    ('?', "help", Takes::Nothing, "help"),
];

const HELP: &str = "\
pg_resetwal resets the write-ahead log of a data directory.

Usage:
  pg_resetwal [OPTION]... DATADIR

Options:
  -c, --commit-timestamp-ids=XID,XID
                                   refused: there are no commit timestamps
 [-D, --pgdata=]DATADIR            data directory
  -e, --epoch=XIDEPOCH             set next transaction ID epoch
  -f, --force                      force update to be done
  -l, --next-wal-file=WALFILE      set minimum starting location for new WAL
  -m, --multixact-ids=MXID,MXID    refused: there are no multitransactions
  -n, --dry-run                    no update, just show what would be done
  -o, --next-oid=OID               set next OID
  -O, --multixact-offset=OFFSET    refused: there are no multitransactions
  -u, --oldest-transaction-id=XID  set oldest transaction ID
  -V, --version                    output version information, then exit
  -x, --next-transaction-id=XID    set next transaction ID
      --wal-segsize=SIZE           size of WAL segments, in megabytes
  -?, --help                       show this help, then exit
";
/// After an unclean stop ids beyond the last checkpoint's may have been used.
const XID_MARGIN: u64 = 1 << 20;

enum Failure {
    Usage(String),
    Fatal(String),
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Fatal(text)
    }
}

/// Runs it; returns the exit code.
pub(super) fn run(name: &str, args: &[String]) -> u8 {
    let tool = Tool { name, options: OPTIONS, help: HELP, version: as_postgresql("pg_resetwal"), failure: 1 };
    match tool.parse(args).map(|parsed| reset(name, &parsed)) {
        Ok(Ok(code)) | Err(code) => code,
        Ok(Err(Failure::Usage(text))) => tool.advise(&text),
        Ok(Err(Failure::Fatal(text))) => tool.fail(text),
    }
}

/// A number as C reads it: decimal, `0x..` or `0..`.
fn number(parsed: &Parsed, key: &str) -> Result<Option<u64>, Failure> {
    let Some(text) = parsed.value(key) else { return Ok(None) };
    let value = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => match text.strip_prefix('0').filter(|rest| !rest.is_empty()) {
            Some(octal) => u64::from_str_radix(octal, 8).ok(),
            None => text.parse().ok(),
        },
    };
    value.map(Some).ok_or_else(|| Failure::Usage(format!("error: invalid argument for option -{key}")))
}

fn reset(name: &str, parsed: &Parsed) -> Result<u8, Failure> {
    let epoch = number(parsed, "e")?;
    if epoch.is_some_and(|e| e >= u64::from(u32::MAX)) {
        return Err(Failure::Fatal("transaction ID epoch (-e) must not be -1".to_owned()));
    }
    let (oldest, next, oid) = (number(parsed, "u")?, number(parsed, "x")?, number(parsed, "o")?);
    for (value, what, option) in [(oldest, "oldest transaction ID", "-u"), (next, "transaction ID", "-x")] {
        if value.is_some_and(|v| v < 3) {
            return Err(Failure::Fatal(format!("{what} ({option}) must be greater than or equal to 3")));
        }
    }
    let oid = oid.map(|o| u32::try_from(o).map_err(|_| Failure::Usage("error: invalid argument for option -o".to_owned()))).transpose()?;
    if oid == Some(0) {
        return Err(Failure::Fatal("OID (-o) must not be 0".to_owned()));
    }
    for (key, what) in [("c", "commit timestamps"), ("m", "multitransactions"), ("O", "multitransactions")] {
        if parsed.has(key) {
            return Err(Failure::Fatal(format!("option -{key} is not supported: there are no {what}")));
        }
    }
    let segment_bytes = match parsed.value("wal-segsize") {
        None => None,
        Some(text) => {
            let megabytes: u32 = text.parse().map_err(|_| "argument of --wal-segsize must be a number".to_owned())?;
            if !megabytes.is_power_of_two() || megabytes > 1024 {
                return Err(Failure::Fatal("argument of --wal-segsize must be a power of 2 between 1 and 1024".to_owned()));
            }
            Some(megabytes << 20)
        }
    };
    let mut rest = parsed.positional.iter();
    let dir = parsed.value("D").or_else(|| rest.next().map(String::as_str)).map(PathBuf::from);
    if let Some(extra) = rest.next() {
        return Err(Failure::Usage(format!("error: too many command-line arguments (first is \"{extra}\")")));
    }
    let Some(dir) = dir else { return Err(Failure::Usage("error: no data directory specified".to_owned())) };
    let meta = fs::metadata(&dir).map_err(|e| format!("could not read permissions of directory \"{}\": {}", dir.display(), reason(&e)))?;
    let others = if std::os::unix::fs::MetadataExt::mode(&meta) & 0o040 != 0 { 0o027 } else { 0o077 };
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(others));
    if PidFile::read(&dir.join(PID_FILE)).ok().flatten().is_some() {
        eprintln!("{name}: error: lock file \"{PID_FILE}\" exists");
        eprintln!("{name}: hint: Is a server running?  If not, delete the lock file and try again.");
        return Ok(1);
    }

    let (mut control, guessed) = read_control(name, &dir)?;
    show(&control, guessed);
    let unclean = !matches!(control.state, ClusterState::Shutdowned | ClusterState::ShutdownedInRecovery);
    let new_size = segment_bytes.unwrap_or(control.segment_bytes);
    let (mut tli, mut begin) = end_of_wal(&dir, &control);
    if let Some(file) = parsed.value("l") {
        let (file_tli, segno) =
            segment::parse_file_name(file, new_size).ok_or_else(|| Failure::Usage("error: invalid argument for option -l".to_owned()))?;
        tli = tli.max(file_tli);
        begin = begin.max(segno.start_lsn(new_size));
    }
    // The first segment that begins at or behind everything there was.
    let first = SegNo::new(begin.as_u64().div_ceil(u64::from(new_size)).max(1));
    let finished = control.checkpoint_copy.oldest_xid;
    let checkpoint = &mut control.checkpoint_copy;
    let mut next_xid = checkpoint.next_xid.as_u64();
    if unclean && next.is_none() {
        next_xid += XID_MARGIN;
    }
    if let Some(low) = next {
        // PostgreSQL's option has 32 bits, the epoch the rest; ours may be given whole.
        next_xid = if low > u64::from(u32::MAX) { low } else { next_xid >> 32 << 32 | low };
    }
    if let Some(epoch) = epoch {
        next_xid = epoch << 32 | (next_xid & 0xffff_ffff);
    }
    checkpoint.next_xid = Xid::new(next_xid);
    if let Some(oldest) = oldest {
        checkpoint.oldest_xid = Xid::new(oldest);
    } else if fs::read_dir(dir.join("pg_twophase")).is_ok_and(|mut files| files.next().is_none()) {
        // Nobody runs and nothing is prepared: all are finished, also those that an epoch skips, which are too many to look at one by one.
        checkpoint.oldest_xid = checkpoint.next_xid;
    }
    checkpoint.oldest_xid = checkpoint.oldest_xid.min(checkpoint.next_xid);
    if let Some(oid) = oid {
        checkpoint.next_oid = oid;
    }
    checkpoint.tli = tli;
    if parsed.has("n") || ((guessed || unclean) && !parsed.has("f")) {
        println!("\n\nValues to be changed:\n");
        println!("First log segment after reset:        {}", segment::file_name(tli, first, new_size));
        if next_xid != control.checkpoint_copy.next_xid.as_u64() || next.is_some() || unclean {
            println!("NextXID:                              {}", next_xid & 0xffff_ffff);
            println!("NextXID epoch:                        {}", next_xid >> 32);
        }
        if let Some(oid) = oid {
            println!("NextOID:                              {oid}");
        }
        if segment_bytes.is_some() {
            println!("Bytes per WAL segment:                {new_size}");
        }
        if parsed.has("n") {
            return Ok(0);
        }
        if guessed {
            println!("\nIf these values seem acceptable, use -f to force reset.");
        } else {
            println!("The database server was not shut down cleanly.");
            println!("Resetting the write-ahead log might cause data to be lost.");
            println!("If you want to proceed anyway, use -f to force reset.");
        }
        return Ok(1);
    }
    if guessed && next.is_none() {
        return Err(Failure::Fatal("the control file is lost: say with -x which transaction ID is safe".to_owned()));
    }
    control.segment_bytes = new_size;
    write(&dir, control, unclean, first, finished)?;
    println!("Write-ahead log reset");
    Ok(0)
}

/// The control file, or one made up; whether it is.
fn read_control(name: &str, dir: &Path) -> Result<(ControlFile, bool), Failure> {
    let path = ControlFile::path(dir);
    let bytes = fs::read(&path).map_err(|e| format!("could not open file \"global/pg_control\" for reading: {}", reason(&e)))?;
    let ours = ControlFile::decode(&bytes).filter(|(c, _)| c.control_version == afterimage_wal::control_file::CONTROL_VERSION);
    if let Some((control, checks)) = ours {
        if !segment::is_valid_segment_bytes(control.segment_bytes) {
            eprintln!(
                "{name}: warning: pg_control specifies invalid WAL segment size ({} bytes); proceed with caution",
                control.segment_bytes
            );
            return Ok((guess(dir, Some(control.system_id)), true));
        }
        if checks.crc_ok && checks.extension_ok {
            return Ok((control, false));
        }
        eprintln!("{name}: warning: pg_control exists but has invalid CRC; proceed with caution");
        return Ok((control, true));
    }
    eprintln!("{name}: warning: pg_control exists but is broken or wrong version; ignoring it");
    Ok((guess(dir, None), true))
}

/// What can be known without a control file: a segment's header names the cluster and the size of segments.
fn guess(dir: &Path, system_id: Option<SystemId>) -> ControlFile {
    use afterimage_wal::format::{SEGMENT_HEADER_BYTES, SegmentHeader};
    let header = fs::read_dir(dir.join("pg_wal"))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.file_name().to_str().is_some_and(segment::is_file_name))
        .find_map(|e| {
            let mut bytes = [0; SEGMENT_HEADER_BYTES];
            std::io::Read::read_exact(&mut fs::File::open(e.path()).ok()?, &mut bytes).ok()?;
            SegmentHeader::decode(&bytes).ok()
        });
    let system_id = header.as_ref().map(|h| h.system_id).or(system_id.filter(|id| id.get() != 0));
    let segment_bytes = header.as_ref().map_or(16 << 20, |h| h.segment_bytes);
    let mut control = ControlFile::new(system_id.unwrap_or_else(|| SystemId::new(rand::random())), CATALOG_VERSION, segment_bytes);
    control.checkpoint_copy = Checkpoint {
        tli: header.map_or(TimelineId::FIRST, |h| h.tli),
        prev_tli: TimelineId::FIRST,
        next_xid: Xid::FIRST_NORMAL,
        oldest_xid: Xid::FIRST_NORMAL,
        next_oid: 16_384,
        ..Checkpoint::default()
    };
    control
}

/// The newest timeline and the end of the last segment there is.
fn end_of_wal(dir: &Path, control: &ControlFile) -> (TimelineId, Lsn) {
    let size = u64::from(control.segment_bytes);
    let mut tli = control.checkpoint_copy.tli.max(control.min_recovery_tli).max(TimelineId::FIRST);
    let known = control.checkpoint.max(control.checkpoint_copy.redo).max(control.min_recovery_point);
    let mut end = known.as_u64() / size * size + size;
    for entry in fs::read_dir(dir.join("pg_wal")).into_iter().flatten().flatten() {
        if let Some((file_tli, segno)) = entry.file_name().to_str().and_then(|n| segment::parse_file_name(n, control.segment_bytes)) {
            tli = tli.max(file_tli);
            end = end.max(segno.get().saturating_add(1).saturating_mul(size));
        }
    }
    (tli, Lsn::from_u64(end))
}

fn show(control: &ControlFile, guessed: bool) {
    let checkpoint = &control.checkpoint_copy;
    let next = checkpoint.next_xid.as_u64();
    println!("{} pg_control values:\n", if guessed { "Guessed" } else { "Current" });
    for (label, value) in [
        ("pg_control version number", control.control_version.to_string()),
        ("Catalog version number", control.catalog_version.to_string()),
        ("Database system identifier", control.system_id.to_string()),
        ("Latest checkpoint's TimeLineID", checkpoint.tli.to_string()),
        ("Latest checkpoint's full_page_writes", if checkpoint.full_page_writes { "on" } else { "off" }.to_owned()),
        ("Latest checkpoint's NextXID", format!("{}:{}", next >> 32, next & 0xffff_ffff)),
        ("Latest checkpoint's NextOID", checkpoint.next_oid.to_string()),
        ("Latest checkpoint's oldestXID", checkpoint.oldest_xid.low().to_string()),
        ("Latest checkpoint's oldestActiveXID", checkpoint.oldest_active_xid.low().to_string()),
        ("Database block size", "8192".to_owned()),
        ("Blocks per segment of large relation", "131072".to_owned()),
        ("Bytes per WAL segment", control.segment_bytes.to_string()),
        ("Data page checksum version", control.checksum_version.to_string()),
    ] {
        println!("{:<37} {value}", format!("{label}:"));
    }
}

/// Heals, removes the old WAL, and writes a new one that holds a checkpoint.
fn write(dir: &Path, mut control: ControlFile, unclean: bool, first: SegNo, finished: Xid) -> Result<(), Failure> {
    let disk = RealDisk::shared();
    let wal_dir = dir.join("pg_wal");
    let text = |e: &dyn std::error::Error| e.to_string();
    if unclean {
        let files = Files::new(Arc::clone(&disk), dir);
        double_write::restore(disk.as_ref(), dir, control.system_id, &files).map_err(|e| text(&e))?;
        files.sync_everything().map_err(|e| text(&e))?;
    }
    make_files_between(&dir.join("pg_xact"), Arc::clone(&disk), control.system_id, finished, control.checkpoint_copy.oldest_xid)
        .map_err(|e| text(&e))?;
    // From here the directory does not start until the control file says so again; a second run begins no earlier than this one.
    control.state = ClusterState::InProduction;
    control.min_recovery_point = first.start_lsn(control.segment_bytes);
    control.min_recovery_tli = control.checkpoint_copy.tli;
    control.own_starts = Default::default();
    control.ahead_from = Lsn::INVALID;
    let id = StartId::draw();
    control.push_start(id);
    control.write(disk.as_ref(), dir).map_err(|e| text(&e))?;
    for place in [wal_dir.clone(), wal_dir.join("archive_status")] {
        let entries = fs::read_dir(&place).map_err(|e| format!("could not open directory \"{}\": {}", place.display(), reason(&e)))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_file() && !name.ends_with(".history") {
                fs::remove_file(entry.path()).map_err(|e| format!("could not delete file \"{name}\": {}", reason(&e)))?;
            }
        }
    }
    let options = WalOptions { segment_bytes: control.segment_bytes, ..WalOptions::default() };
    let end = WalEnd::before(control.checkpoint_copy.tli, first.start_lsn(control.segment_bytes), control.segment_bytes);
    let wal = Wal::open(Arc::clone(&disk), &wal_dir, control.system_id, end, options).map_err(|e| text(&e))?;
    wal.begin_writing(id).map_err(|e| text(&e))?;
    let now = jiff::Timestamp::now().as_second();
    let tli = control.checkpoint_copy.tli;
    control.checkpoint_copy =
        Checkpoint { redo: wal.inserted(), prev_tli: tli, oldest_active_xid: Xid::INVALID, time: now, ..control.checkpoint_copy };
    let mut record = RecordBuilder::new(rmgr::XLOG, rmgr::xlog::CHECKPOINT_SHUTDOWN, Xid::INVALID);
    record.main(&control.checkpoint_copy.encode()).carry_flushed_mark();
    let range = wal.insert(&record).map_err(|e| text(&e))?;
    wal.flush(range.end).map_err(|e| text(&e))?;
    drop(wal);
    control.state = ClusterState::Shutdowned;
    control.checkpoint = range.start;
    control.min_recovery_point = Lsn::INVALID;
    control.min_recovery_tli = TimelineId::INVALID;
    control.backup_start = Lsn::INVALID;
    control.backup_end = Lsn::INVALID;
    control.backup_end_required = false;
    control.write(disk.as_ref(), dir).map_err(|e| text(&e))?;
    Ok(())
}
