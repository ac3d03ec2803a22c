//! `controldata`: shows the control file of a data directory, line for line as `pg_controldata` does.

use std::path::{Path, PathBuf};

use afterimage_wal::control_file::{Checks, ControlFile};
use afterimage_wal::disk::RealDisk;
use afterimage_wal::segment;
use afterimage_wal::{SegNo, WalError};

use super::getopt::{OptionSpec, Takes};
use super::pg_ctl::reason;
use super::tool::{Tool, as_postgresql};

const OPTIONS: &[OptionSpec] =
    &[('?', "help", Takes::Nothing, "help"), ('V', "version", Takes::Nothing, "version"), ('D', "pgdata", Takes::Value, "D")];

/// Runs the command; `name` is what messages call the program. Returns the exit code.
pub(super) fn run(name: &str, args: &[String]) -> u8 {
    let tool = Tool { name, options: OPTIONS, help: &help(name), version: as_postgresql("pg_controldata"), failure: 1 };
    let parsed = match tool.parse(args) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let mut rest = parsed.positional.iter();
    let dir = match parsed.value("D") {
        Some(dir) => Some(dir.to_owned()),
        None => rest.next().cloned().or_else(|| std::env::var("PGDATA").ok()),
    };
    if let Some(extra) = rest.next() {
        return tool.advise(&format!("error: too many command-line arguments (first is \"{extra}\")"));
    }
    let Some(dir) = dir.map(PathBuf::from) else {
        return tool.advise("error: no data directory specified");
    };
    match show(&dir) {
        Ok(text) => {
            print!("{text}");
            0
        }
        Err(message) => tool.fail(message),
    }
}

fn help(name: &str) -> String {
    format!(
        "{name} displays control information of a PostgreSQL database cluster.

Usage:
  {name} [OPTION] [DATADIR]

Options:
 [-D, --pgdata=]DATADIR  data directory
  -V, --version          output version information, then exit
  -?, --help             show this help, then exit

If no data directory (DATADIR) is specified, the environment variable PGDATA
is used.
"
    )
}

fn show(dir: &Path) -> Result<String, String> {
    let (file, checks) = ControlFile::read_unchecked(&RealDisk, dir).map_err(|e| {
        if let WalError::Io { path, source, .. } = &e {
            format!("could not open file \"{}\" for reading: {}", path.display(), reason(source))
        } else {
            e.to_string()
        }
    })?;
    Ok(text(&file, checks))
}

/// Seconds since 1970 as C's `%c` shows them here.
fn local_time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "???".to_owned(), |t| t.to_zoned(jiff::tz::TimeZone::system()).strftime("%a %b %e %H:%M:%S %Y").to_string())
}

fn on(flag: bool) -> &'static str {
    if flag { "on" } else { "off" }
}

fn text(c: &ControlFile, checks: Checks) -> String {
    let mut out = String::new();
    if !checks.crc_ok {
        out += "WARNING: Calculated CRC checksum does not match value stored in file.\n\
                Either the file is corrupt, or it has a different layout than this program\n\
                is expecting.  The results below are untrustworthy.\n\n";
    }
    let bytes = c.segment_bytes;
    if !segment::is_valid_segment_bytes(bytes) {
        let plural = if bytes == 1 { "" } else { "s" };
        out += &format!(
            "WARNING: invalid WAL segment size\n\
             The WAL segment size stored in the file, {bytes} byte{plural}, is not a power of two\n\
             between 1 MB and 1 GB.  The file is corrupt and the results below are\nuntrustworthy.\n\n"
        );
    }
    let copy = &c.checkpoint_copy;
    let redo_file = if segment::is_valid_segment_bytes(bytes) {
        segment::file_name(copy.tli, SegNo::of(copy.redo, bytes), bytes)
    } else {
        "???".to_owned()
    };
    let wal_level = ["minimal", "replica", "logical"];
    let wal_level =
        usize::try_from(c.parameters.wal_level).ok().and_then(|l| wal_level.get(l)).copied().unwrap_or("unrecognized wal_level");
    let nonce: String = c.mock_authentication_nonce.iter().map(|b| format!("{b:02x}")).collect();
    let next_xid = copy.next_xid.as_u64();
    let mut line = |label: &str, value: String| {
        // PostgreSQL's labels are padded to 38 columns.
        out += &format!("{:<38}{value}\n", format!("{label}:"));
    };
    line("pg_control version number", c.control_version.to_string());
    line("Catalog version number", c.catalog_version.to_string());
    line("Database system identifier", c.system_id.to_string());
    line("Database cluster state", c.state.name().to_owned());
    line("pg_control last modified", local_time(c.time));
    line("Latest checkpoint location", c.checkpoint.to_string());
    line("Latest checkpoint's REDO location", copy.redo.to_string());
    line("Latest checkpoint's REDO WAL file", redo_file);
    line("Latest checkpoint's TimeLineID", copy.tli.to_string());
    line("Latest checkpoint's PrevTimeLineID", copy.prev_tli.to_string());
    line("Latest checkpoint's full_page_writes", on(copy.full_page_writes).to_owned());
    line("Latest checkpoint's NextXID", format!("{}:{}", next_xid >> 32, copy.next_xid.low()));
    line("Latest checkpoint's NextOID", copy.next_oid.to_string());
    line("Latest checkpoint's NextMultiXactId", "1".to_owned());
    line("Latest checkpoint's NextMultiOffset", "0".to_owned());
    line("Latest checkpoint's oldestXID", copy.oldest_xid.to_string());
    line("Latest checkpoint's oldestXID's DB", "1".to_owned());
    line("Latest checkpoint's oldestActiveXID", copy.oldest_active_xid.to_string());
    line("Latest checkpoint's oldestMultiXid", "1".to_owned());
    line("Latest checkpoint's oldestMulti's DB", "1".to_owned());
    line("Latest checkpoint's oldestCommitTsXid", "0".to_owned());
    line("Latest checkpoint's newestCommitTsXid", "0".to_owned());
    line("Time of latest checkpoint", local_time(copy.time));
    line("Fake LSN counter for unlogged rels", c.unlogged_lsn.to_string());
    line("Minimum recovery ending location", c.min_recovery_point.to_string());
    line("Min recovery ending loc's timeline", c.min_recovery_tli.to_string());
    line("Backup start location", c.backup_start.to_string());
    line("Backup end location", c.backup_end.to_string());
    line("End-of-backup record required", if c.backup_end_required { "yes" } else { "no" }.to_owned());
    line("wal_level setting", wal_level.to_owned());
    line("wal_log_hints setting", on(c.parameters.wal_log_hints).to_owned());
    line("max_connections setting", c.parameters.max_connections.to_string());
    line("max_worker_processes setting", c.parameters.max_worker_processes.to_string());
    line("max_wal_senders setting", c.parameters.max_wal_senders.to_string());
    line("max_prepared_xacts setting", c.parameters.max_prepared_xacts.to_string());
    line("max_locks_per_xact setting", c.parameters.max_locks_per_xact.to_string());
    line("track_commit_timestamp setting", on(c.parameters.track_commit_timestamp).to_owned());
    line("Maximum data alignment", "8".to_owned());
    line("Database block size", "8192".to_owned());
    line("Blocks per segment of large relation", "131072".to_owned());
    line("WAL block size", "8192".to_owned());
    line("Bytes per WAL segment", bytes.to_string());
    line("Maximum length of identifiers", "64".to_owned());
    line("Maximum columns in an index", "32".to_owned());
    line("Maximum size of a TOAST chunk", "1996".to_owned());
    line("Size of a large-object chunk", "2048".to_owned());
    line("Date/time type storage", "64-bit integers".to_owned());
    line("Float8 argument passing", "by value".to_owned());
    line("Data page checksum version", c.checksum_version.to_string());
    line("Mock authentication nonce", nonce);
    if checks.extension_ok {
        let starts: Vec<_> = c.starts().iter().map(ToString::to_string).collect();
        line("Start ids of this node", if starts.is_empty() { "none".to_owned() } else { starts.join(" ") });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use afterimage_wal::control_file::Checkpoint;
    use afterimage_wal::{Lsn, SystemId, TimelineId, Xid};

    #[test]
    fn lines_are_those_of_the_stock_program() {
        let stock = Path::new("/usr/lib/postgresql/15/bin/pg_controldata");
        if !stock.exists() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("global")).unwrap();
        let mut c = ControlFile::new(SystemId::new(7_123_456_789_012_345_678), 202_611_211, 16 << 20);
        c.checkpoint = Lsn::new(0x16_B374_D848);
        c.checkpoint_copy = Checkpoint {
            redo: Lsn::new(0x16_B374_D800),
            tli: TimelineId::new(3),
            prev_tli: TimelineId::new(2),
            next_xid: Xid::new((5 << 32) | 731),
            next_oid: 16_384,
            oldest_xid: Xid::new(3),
            time: 1_700_000_000,
            ..Checkpoint::default()
        };
        c.write(&RealDisk, dir.path()).unwrap();
        let theirs = std::process::Command::new(stock).arg(dir.path()).env("LC_ALL", "C").output().unwrap();
        let ours = show(dir.path()).unwrap();
        assert_eq!(ours, String::from_utf8(theirs.stdout).unwrap() + "Start ids of this node:               none\n");
        // Damaged, it is shown with warnings.
        std::fs::write(ControlFile::path(dir.path()), vec![0; 8192]).unwrap();
        let zero = show(dir.path()).unwrap();
        assert!(zero.starts_with("WARNING: Calculated CRC checksum") && zero.contains("WARNING: invalid WAL segment size"));
    }

    #[test]
    fn missing_directory_is_an_error() {
        let message = show(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(message, "could not open file \"/nonexistent/global/pg_control\" for reading: No such file or directory");
    }
}
