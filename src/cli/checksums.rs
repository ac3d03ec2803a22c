//! `afterimage checksums`, and `pg_checksums` when called by that name: verifies every page of a stopped data directory.
//!
//! Page checksums are part of the format: they can neither be enabled nor disabled.
//!
//! PostgreSQL: bin/pg_checksums.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use afterimage_wal::WalError;
use afterimage_wal::control_file::{ClusterState, ControlFile};
use afterimage_wal::disk::RealDisk;
use afterimage_wal::ids::BlockNo;

use super::getopt::{OptionSpec, Takes};
use super::pg_ctl::reason;
use super::tool::{Tool, as_postgresql};
use crate::control::pid_file::{PID_FILE, PidFile};
use crate::replication::base_backup::archive::relation_file;
use crate::replication::rewind::files::{Entry, SEGMENT_BLOCKS, list_local};
use crate::replication::rewind::source::read_fully;
use crate::storage::{PAGE_SIZE, Page};

const OPTIONS: &[OptionSpec] = &[
    ('c', "check", Takes::Nothing, "c"),
    ('d', "disable", Takes::Nothing, "d"),
    ('D', "pgdata", Takes::Value, "D"),
    ('e', "enable", Takes::Nothing, "e"),
    ('f', "filenode", Takes::Value, "f"),
    ('N', "no-sync", Takes::Nothing, "N"),
    ('P', "progress", Takes::Nothing, "P"),
    ('v', "verbose", Takes::Nothing, "v"),
    ('V', "version", Takes::Nothing, "version"),
    ('?', "help", Takes::Nothing, "help"),
];

const HELP: &str = "\
pg_checksums verifies data checksums in a data directory.

Usage:
  pg_checksums [OPTION]... [DATADIR]

Options:
 [-D, --pgdata=]DATADIR    data directory
  -c, --check              check data checksums (default)
  -d, --disable            refused: checksums are part of the page format
  -e, --enable             refused: they always are
  -f, --filenode=FILENODE  check only relation with specified filenode
  -N, --no-sync            accepted: nothing is written
  -P, --progress           show progress information
  -v, --verbose            output verbose messages
  -V, --version            output version information, then exit
  -?, --help               show this help, then exit

If no data directory (DATADIR) is specified, the environment variable PGDATA
is used.
";
const CHUNK_PAGES: usize = 128;

/// Runs it; returns the exit code.
pub(super) fn run(name: &str, args: &[String]) -> u8 {
    let tool = Tool { name, options: OPTIONS, help: HELP, version: as_postgresql("pg_checksums"), failure: 1 };
    let parsed = match tool.parse(args) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let mut rest = parsed.positional.iter();
    let dir = parsed.value("D").or_else(|| rest.next().map(String::as_str)).map(PathBuf::from);
    let dir = dir.or_else(|| std::env::var_os("PGDATA").filter(|d| !d.is_empty()).map(PathBuf::from));
    let Some(dir) = dir else { return tool.advise("error: no data directory specified") };
    if let Some(extra) = rest.next() {
        return tool.advise(&format!("error: too many command-line arguments (first is \"{extra}\")"));
    }
    let filenode = match parsed.value("f").map(str::parse::<u32>).transpose() {
        Ok(filenode) => filenode,
        Err(_) => {
            let given = parsed.value("f").unwrap_or_default();
            return tool.fail(format_args!("invalid value \"{given}\" for option -f/--filenode"));
        }
    };
    if filenode.is_some() && (parsed.has("d") || parsed.has("e")) {
        return tool.advise("error: option -f/--filenode can only be used with --check");
    }
    match check(name, &dir, filenode, &parsed) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(message) => tool.fail(message),
    }
}

/// Whether all pages verify.
fn check(name: &str, dir: &Path, filenode: Option<u32>, parsed: &super::getopt::Parsed) -> Result<bool, String> {
    let control = ControlFile::read(&RealDisk, dir).map_err(|e| {
        if let WalError::Io { path, source, .. } = &e {
            format!("could not open file \"{}\" for reading: {}", path.display(), reason(source))
        } else {
            e.to_string()
        }
    })?;
    let running = PidFile::read(&dir.join(PID_FILE)).ok().flatten().is_some_and(|f| f.is_alive());
    if running || !matches!(control.state, ClusterState::Shutdowned | ClusterState::ShutdownedInRecovery) {
        return Err("cluster must be shut down".to_owned());
    }
    if parsed.has("e") {
        return Err("data checksums are already enabled in cluster".to_owned());
    }
    if parsed.has("d") {
        return Err("data checksums cannot be disabled: they are part of the page format".to_owned());
    }
    let listing = list_local(dir).map_err(|e| e.to_string())?;
    let relation = |path: &str| {
        let (top, file_name) = path.rsplit_once('/').unwrap_or(("", path));
        relation_file(top, file_name).filter(|(rel, _, _)| filenode.is_none_or(|wanted| wanted == rel.rel))
    };
    let sizes = listing.iter().filter(|(path, _)| relation(path).is_some());
    let mut progress = Progress { total: sizes.map(|(_, e)| if let Entry::File(n) = e { *n } else { 0 }).sum(), shown: None };
    let (mut files, mut blocks, mut bad, mut done) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut buffer = vec![0; CHUNK_PAGES * PAGE_SIZE];
    let mut page = Page::zeroed();
    for (path, entry) in &listing {
        let Entry::File(size) = entry else { continue };
        let Some((rel, fork, segment)) = relation(path) else { continue };
        let full = dir.join(path);
        let file = fs::File::open(&full).map_err(|e| format!("could not open file \"{}\": {}", full.display(), reason(&e)))?;
        files += 1;
        let mut at = 0_u64;
        loop {
            let got =
                read_fully(&file, &mut buffer, at).map_err(|e| format!("could not read file \"{}\": {}", full.display(), reason(&e)))?;
            for (i, bytes) in buffer[..got].chunks_exact(PAGE_SIZE).enumerate() {
                let in_file = u32::try_from(at / PAGE_SIZE as u64).unwrap_or(u32::MAX) + u32::try_from(i).unwrap_or(u32::MAX);
                let block = segment * SEGMENT_BLOCKS + in_file;
                blocks += 1;
                page.bytes_mut().copy_from_slice(bytes);
                if page.is_zero() {
                    continue;
                }
                let (stored, computed) = (page.stored_checksum(), page.checksum(rel, fork, BlockNo::new(block)));
                if stored != computed {
                    bad += 1;
                    eprintln!(
                        "{name}: error: checksum verification failed in file \"{}\", block {block}: calculated checksum {computed:X} but block contains {stored:X}",
                        full.display()
                    );
                }
            }
            at += got as u64;
            if parsed.has("P") {
                progress.show(done + at.min(*size), false);
            }
            if got < buffer.len() {
                break;
            }
        }
        done += size;
        if parsed.has("v") {
            println!("checksums verified in file \"{}\"", full.display());
        }
    }
    if parsed.has("P") {
        progress.show(done, true);
    }
    println!("Checksum operation completed");
    println!("Files scanned:   {files}");
    println!("Blocks scanned:  {blocks}");
    println!("Bad checksums:  {bad}");
    println!("Data checksum version: {}", control.checksum_version);
    Ok(bad == 0)
}

/// How far it is, on standard error: once a second, on a terminal in one line.
struct Progress {
    total: u64,
    shown: Option<Instant>,
}

impl Progress {
    fn show(&mut self, done: u64, finished: bool) {
        const INTERVAL: Duration = Duration::from_secs(1);
        if !finished && self.shown.is_some_and(|at| at.elapsed() < INTERVAL) {
            return;
        }
        self.shown = Some(Instant::now());
        let (done, total) = (done, self.total.max(done));
        let percent = (done * 100).checked_div(total).unwrap_or(0);
        let end = if !finished && io::stderr().is_terminal() { '\r' } else { '\n' };
        eprint!("{}/{} MB ({percent}%) computed{end}", done >> 20, total >> 20);
    }
}
