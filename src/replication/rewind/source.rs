//! The side a rewind copies from: a stopped data directory, or a live server reached over SQL.
//!
//! Over SQL everything goes through functions that a role without any other right can be granted: `pg_ls_dir`, `pg_stat_file`,
//! `pg_read_binary_file`, as PostgreSQL's documentation says for `pg_rewind`, and two of ours, which whoever may execute
//! `pg_read_binary_file(text, bigint, bigint, boolean)` may execute too: `afterimage_page_lsns`, eight bytes for each page, so that
//! pages both sides share do not travel, and `afterimage_wal_position`.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use afterimage_wal::control_file::{ClusterState, ControlFile};
use afterimage_wal::disk::RealDisk;
use afterimage_wal::format::StartRecord;
use afterimage_wal::history::History;
use afterimage_wal::ids::{Lsn, SegNo, TimelineId};
use afterimage_wal::lineage::{Claim, Lineage, Shared};
use afterimage_wal::reader::WalReader;
use afterimage_wal::{WalEnd, rmgr, segment};

use super::super::client::{Client, ClientError, ResultSet};
use super::super::conninfo::ConnInfo;
use super::error::RewindError;
use super::files::{Entry, Listing, list_local};
use crate::storage::PAGE_SIZE;

/// Where files come from.
#[derive(Debug)]
pub enum Source {
    /// A data directory whose server was shut down.
    Directory(PathBuf),
    /// A running server.
    Server(Box<Client>),
}

impl Source {
    /// Connects to a server.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connect(info: &ConnInfo) -> Result<Self, RewindError> {
        let mut client = Client::connect(info, false, "pg_rewind").await?;
        client
            .query(
                "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
                 SET standard_conforming_strings = on; SET bytea_output = 'hex'; SET synchronous_commit = off",
            )
            .await?;
        Ok(Self::Server(Box::new(client)))
    }

    /// Whether a server changes the files while they are read.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// Asks for a checkpoint, so that little WAL need be copied and replayed. Not everyone may: then the last one serves.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn checkpoint(&mut self) -> Result<(), RewindError> {
        let Self::Server(client) = self else { return Ok(()) };
        match client.query("CHECKPOINT").await {
            Ok(_) | Err(ClientError::Server { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Everything there is.
    ///
    /// # Errors
    /// I/O, the connection.
    pub async fn list(&mut self) -> Result<Listing, RewindError> {
        let client = match self {
            Self::Directory(dir) => return list_local(dir),
            Self::Server(client) => client,
        };
        let mut listing = Listing::new();
        let mut pending = vec![String::new()];
        while let Some(dir) = pending.pop() {
            let (shown, prefix) = if dir.is_empty() { (".".to_owned(), String::new()) } else { (dir.clone(), format!("{dir}/")) };
            let query = format!(
                "SELECT x.name, (x.s).size, (x.s).isdir FROM (SELECT f.name, pg_catalog.pg_stat_file({} || f.name, true) AS s \
                 FROM pg_catalog.pg_ls_dir({}, true, false) AS f(name)) AS x",
                literal(&prefix),
                literal(&shown)
            );
            let sets = client.query(&query).await?;
            let set = sets.first().ok_or(RewindError::Unexpected("no file list"))?;
            for row in 0..set.rows.len() {
                let name = set.text(row, 0).ok_or(RewindError::Unexpected("a file without a name"))?;
                // Gone since it was listed.
                let (Some(size), Some(is_dir)) = (set.text(row, 1), set.text(row, 2)) else { continue };
                let path = format!("{prefix}{name}");
                if is_dir == "t" {
                    listing.insert(path.clone(), Entry::Directory);
                    pending.push(path);
                } else {
                    let size = size.parse().map_err(|_| RewindError::Unexpected("a file size that is no number"))?;
                    listing.insert(path, Entry::File(size));
                }
            }
        }
        Ok(listing)
    }

    /// Where the tablespaces that lie outside the directory are: path of the link, and its target.
    ///
    /// # Errors
    /// The connection.
    pub async fn links(&mut self, listing: &Listing) -> Result<Vec<(String, String)>, RewindError> {
        let mut links = Vec::new();
        for path in listing.keys() {
            let Some(oid) = path.strip_prefix("pg_tblspc/").and_then(|name| name.parse::<u32>().ok()) else { continue };
            let target = match self {
                Self::Directory(dir) => fs::read_link(dir.join(path)).ok().map(|t| t.display().to_string()),
                Self::Server(client) => {
                    let sets = client.query(&format!("SELECT pg_catalog.pg_tablespace_location({oid})")).await?;
                    sets.first().and_then(|s| s.text(0, 0)).filter(|t| t.starts_with('/')).map(str::to_owned)
                }
            };
            links.extend(target.map(|target| (path.clone(), target)));
        }
        Ok(links)
    }

    /// Up to `len` bytes of a file from `offset`, fewer at its end; `None` if the file is gone.
    ///
    /// # Errors
    /// I/O, the connection.
    pub async fn read(&mut self, path: &str, offset: u64, len: usize) -> Result<Option<Vec<u8>>, RewindError> {
        match self {
            Self::Directory(dir) => read_local(&dir.join(path), offset, len),
            Self::Server(client) => {
                let query = format!("SELECT pg_catalog.pg_read_binary_file({}, {offset}, {len}, true)", literal(path));
                bytea(&client.query(&query).await?)
            }
        }
    }

    /// A whole file; `None` if it is not there.
    ///
    /// # Errors
    /// I/O, the connection.
    pub async fn read_whole(&mut self, path: &str) -> Result<Option<Vec<u8>>, RewindError> {
        const MOST: usize = 64 << 20;
        self.read(path, 0, MOST).await
    }

    /// Page LSNs of blocks `first..first + count` of a file, fewer at its end; `None` if the file is gone.
    ///
    /// # Errors
    /// I/O, the connection.
    pub async fn page_lsns(&mut self, path: &str, first: u32, count: u32) -> Result<Option<Vec<Lsn>>, RewindError> {
        let bytes = match self {
            Self::Directory(dir) => {
                page_lsns_of(&dir.join(path), u64::from(first), u64::from(count)).map_err(RewindError::io("read file", dir.join(path)))?
            }
            Self::Server(client) => {
                let query = format!("SELECT pg_catalog.afterimage_page_lsns({}, {first}, {count})", literal(path));
                bytea(&client.query(&query).await?)?
            }
        };
        Ok(bytes.map(|bytes| {
            let (entries, _) = bytes.as_chunks::<8>();
            entries.iter().map(|e| Lsn::from_u64(u64::from_be_bytes(*e))).collect()
        }))
    }

    /// The control file.
    ///
    /// # Errors
    /// It is missing, damaged, or of another program.
    pub async fn control(&mut self) -> Result<ControlFile, RewindError> {
        let bytes = self.read_whole(CONTROL).await?.ok_or_else(|| RewindError::Missing(CONTROL.to_owned()))?;
        decode_control(&bytes)
    }

    /// Where the WAL that makes the files read so far consistent ends, and on which timeline. Durable on the source.
    ///
    /// # Errors
    /// I/O, the connection; WAL of a directory that cannot be read.
    pub async fn end_position(&mut self, control: &ControlFile) -> Result<(Lsn, TimelineId), RewindError> {
        match self {
            Self::Directory(dir) => {
                if control.state == ClusterState::ShutdownedInRecovery && control.min_recovery_point.is_valid() {
                    return Ok((control.min_recovery_point, control.min_recovery_tli));
                }
                let tli = control.checkpoint_copy.tli;
                Ok((checkpoint_end(dir, control)?.ok_or(RewindError::Unexpected("no checkpoint record"))?, tli))
            }
            Self::Server(client) => {
                let sets = client.query("SELECT lsn, timeline_id FROM pg_catalog.afterimage_wal_position()").await?;
                let set = sets.first().ok_or(RewindError::Unexpected("no position"))?;
                let lsn = set.text(0, 0).and_then(|t| t.parse().ok()).ok_or(RewindError::Unexpected("no position"))?;
                let tli = set.text(0, 1).and_then(|t| t.parse().ok()).ok_or(RewindError::Unexpected("no timeline"))?;
                Ok((lsn, TimelineId::new(tli)))
            }
        }
    }

    /// How WAL that ends as claimed relates to the source's.
    ///
    /// # Errors
    /// I/O, the connection.
    pub async fn compare(&mut self, claim: &Claim, control: &ControlFile, history: &History) -> Result<Shared, RewindError> {
        match self {
            Self::Directory(dir) => match wal_end(dir, control, history) {
                Some(end) => compare_local(dir, control, history, claim, end.end),
                None => Ok(Shared::Unknown),
            },
            Self::Server(client) => {
                let (end, id, crc) = (claim.end, claim.start_id.get().cast_signed(), claim.last_crc);
                let sets = client.query(&format!("SELECT pg_catalog.afterimage_compare_wal('{end}', {id}, {crc})")).await?;
                Ok(match sets.first().and_then(|s| s.text(0, 0)).ok_or(RewindError::Unexpected("no comparison"))? {
                    "all" => Shared::All,
                    "ahead" => Shared::Ahead,
                    "foreign" => Shared::Foreign,
                    "unknown" => Shared::Unknown,
                    lsn => Shared::UpTo(lsn.parse().map_err(|_| RewindError::Unexpected("no comparison"))?),
                })
            }
        }
    }

    /// The history of a timeline.
    ///
    /// # Errors
    /// I/O, the connection; a file that is no history.
    pub async fn history(&mut self, tli: TimelineId) -> Result<History, RewindError> {
        if tli == TimelineId::FIRST {
            return Ok(History::first());
        }
        let path = format!("pg_wal/{}", History::file_name(tli));
        match self.read_whole(&path).await? {
            None => Ok(History::alone(tli)),
            Some(bytes) => parse_history(tli, path, &bytes),
        }
    }
}

/// Path of the control file.
pub const CONTROL: &str = "global/pg_control";

/// A history file's contents.
///
/// # Errors
/// [`RewindError::BadFile`].
pub fn parse_history(tli: TimelineId, path: String, bytes: &[u8]) -> Result<History, RewindError> {
    match std::str::from_utf8(bytes) {
        Err(_) => Err(RewindError::BadFile { path, what: "history is not text" }),
        Ok(text) => History::parse(tli, text).map_err(|what| RewindError::BadFile { path, what }),
    }
}

/// A control file's contents, checked.
///
/// # Errors
/// [`RewindError::OtherVersion`], [`RewindError::BadFile`].
pub fn decode_control(bytes: &[u8]) -> Result<ControlFile, RewindError> {
    let bad = |what| RewindError::BadFile { path: CONTROL.to_owned(), what };
    let (control, checks) = ControlFile::decode(bytes).ok_or_else(|| bad("control file is too short"))?;
    if control.control_version != afterimage_wal::control_file::CONTROL_VERSION {
        return Err(RewindError::OtherVersion);
    }
    if !(checks.crc_ok && checks.extension_ok) {
        return Err(bad("calculated CRC checksum does not match value stored in file"));
    }
    if !segment::is_valid_segment_bytes(control.segment_bytes) {
        return Err(bad("invalid WAL segment size"));
    }
    Ok(control)
}

/// End of the last checkpoint's record in a directory's own WAL; `None` if it cannot be read.
///
/// # Errors
/// A history file that cannot be read.
pub fn checkpoint_end(dir: &Path, control: &ControlFile) -> Result<Option<Lsn>, RewindError> {
    let wal_dir = dir.join("pg_wal");
    let tli = control.checkpoint_copy.tli;
    let history = History::read(&RealDisk, &wal_dir, tli)?.unwrap_or_else(|| History::alone(tli));
    let mut reader = WalReader::open(Arc::new(RealDisk), &wal_dir, control.system_id, control.segment_bytes, history, control.checkpoint);
    Ok(reader.next().ok().flatten().filter(|r| r.start() == control.checkpoint).map(|r| r.end()))
}

/// Where a stopped directory's WAL ends, read from its last checkpoint; `None` if that cannot be read.
pub fn wal_end(dir: &Path, control: &ControlFile, history: &History) -> Option<WalEnd> {
    let disk = Arc::new(RealDisk);
    let mut reader =
        WalReader::open(disk, &dir.join("pg_wal"), control.system_id, control.segment_bytes, history.clone(), control.checkpoint);
    let first = reader.next().ok().flatten().map(|r| r.start());
    (first == Some(control.checkpoint)).then(|| reader.read_to_end().0)
}

/// Compares a claim with a stopped directory's WAL, which ends at `end`.
///
/// # Errors
/// I/O.
pub fn compare_local(dir: &Path, control: &ControlFile, history: &History, claim: &Claim, end: Lsn) -> Result<Shared, RewindError> {
    let wal_dir = dir.join("pg_wal");
    let (system_id, segment_bytes) = (control.system_id, control.segment_bytes);
    let lineage = Lineage { disk: Arc::new(RealDisk), dir: &wal_dir, system_id, segment_bytes, history };
    Ok(lineage.compare(claim, end)?)
}

/// Every start of a writer that the segments of a stopped directory still know, oldest first.
pub fn starts_of(dir: &Path, control: &ControlFile, history: &History, end: Lsn) -> Vec<StartRecord> {
    let wal_dir = dir.join("pg_wal");
    let size = u64::from(control.segment_bytes);
    let there = |segno: u64| {
        let tli = history.tli_at(Lsn::from_u64((segno + 1) * size - 1));
        wal_dir.join(segment::file_name(tli, SegNo::new(segno), control.segment_bytes)).exists()
    };
    let mut first = end.as_u64().saturating_sub(1) / size;
    while first > 1 && there(first - 1) {
        first -= 1;
    }
    let from = Lsn::from_u64(first * size);
    let disk = Arc::new(RealDisk);
    let mut reader = WalReader::open(disk, &wal_dir, control.system_id, control.segment_bytes, history.clone(), from);
    let mut starts = Vec::new();
    while let Ok(Some(record)) = reader.next() {
        if record.rmgr() == rmgr::XLOG && record.kind() == rmgr::xlog::START {
            starts.extend(StartRecord::decode(record.main()));
        }
    }
    starts
}

fn read_local(path: &Path, offset: u64, len: usize) -> Result<Option<Vec<u8>>, RewindError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RewindError::Io { what: "open file", path: path.to_owned(), source }),
    };
    let there = file.metadata().map_err(RewindError::io("stat file", path))?.len().saturating_sub(offset);
    let mut bytes = vec![0; usize::try_from(there).unwrap_or(usize::MAX).min(len)];
    let got = read_fully(&file, &mut bytes, offset).map_err(RewindError::io("read file", path))?;
    bytes.truncate(got);
    Ok(Some(bytes))
}

/// Reads until the buffer is full or the file ends.
///
/// # Errors
/// The file's.
pub fn read_fully(file: &fs::File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + u64::try_from(got).unwrap_or(u64::MAX)) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// The first eight bytes of each page, as big-endian LSNs: what `afterimage_page_lsns` answers. `None` if there is no such file.
///
/// # Errors
/// The file's.
pub fn page_lsns_of(path: &Path, first: u64, count: u64) -> io::Result<Option<Vec<u8>>> {
    const CHUNK_PAGES: usize = 128;
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let page = u64::try_from(PAGE_SIZE).unwrap_or(u64::MAX);
    let blocks = (file.metadata()?.len() / page).saturating_sub(first).min(count);
    let mut out = Vec::with_capacity(usize::try_from(blocks).unwrap_or(0).saturating_mul(8));
    let mut buffer = vec![0; CHUNK_PAGES * PAGE_SIZE];
    let mut at = first;
    while at < first + blocks {
        let want = usize::try_from(first + blocks - at).unwrap_or(usize::MAX).min(CHUNK_PAGES) * PAGE_SIZE;
        let got = read_fully(&file, &mut buffer[..want], at * page)?;
        for bytes in buffer[..got].chunks_exact(PAGE_SIZE) {
            let half = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
            out.extend_from_slice(&half(0).to_be_bytes());
            out.extend_from_slice(&half(4).to_be_bytes());
            at += 1;
        }
        if got < want {
            break;
        }
    }
    Ok(Some(out))
}

/// A string literal; `standard_conforming_strings` is on.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The one `bytea` of a result, in hex as asked for; `None` for NULL.
fn bytea(sets: &[ResultSet]) -> Result<Option<Vec<u8>>, RewindError> {
    let row = sets.first().and_then(|s| s.rows.first()).and_then(|r| r.first()).ok_or(RewindError::Unexpected("no row"))?;
    let Some(text) = row else { return Ok(None) };
    let hex = text.strip_prefix(b"\\x").ok_or(RewindError::Unexpected("bytea not in hex"))?;
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, rest) = hex.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(RewindError::Unexpected("bytea of odd length"));
    }
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes.map(Some).ok_or(RewindError::Unexpected("bytea not in hex"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Page;

    #[test]
    fn page_lsns_are_those_of_the_pages() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1");
        let mut bytes = Vec::new();
        for i in 1..=300_u64 {
            let mut page = Page::zeroed();
            page.set_lsn(Lsn::from_u64(i << 33 | i));
            bytes.extend_from_slice(page.bytes());
        }
        bytes.extend_from_slice(&[7; 100]);
        fs::write(&path, &bytes).unwrap();
        let lsns = |first, count| {
            let bytes = page_lsns_of(&path, first, count).unwrap().unwrap();
            bytes.as_chunks::<8>().0.iter().map(|b| u64::from_be_bytes(*b)).collect::<Vec<_>>()
        };
        assert_eq!(lsns(0, 1000), (1..=300).map(|i| i << 33 | i).collect::<Vec<u64>>());
        assert_eq!(lsns(129, 2), [130 << 33 | 130, 131 << 33 | 131]);
        assert_eq!(lsns(300, 5), [0_u64; 0]);
        assert!(page_lsns_of(&dir.path().join("2"), 0, 1).unwrap().is_none());
    }

    #[test]
    fn bytea_is_decoded_or_refused() {
        let set = |value: Option<&[u8]>| {
            let row = vec![value.map(bytes::Bytes::copy_from_slice)];
            vec![ResultSet { columns: vec!["x".to_owned()], rows: vec![row] }]
        };
        assert_eq!(bytea(&set(Some(b"\\x00fF10"))).unwrap(), Some(vec![0, 255, 16]));
        assert_eq!(bytea(&set(None)).unwrap(), None);
        for bad in [&b"00"[..], b"\\x0", b"\\xzz", b"\\x\xff\xff"] {
            assert!(bytea(&set(Some(bad))).is_err());
        }
        assert!(bytea(&[]).is_err());
    }
}
