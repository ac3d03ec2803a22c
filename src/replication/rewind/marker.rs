//! The file that says a rewind has begun and not ended: written before the first change, removed after the last.
//!
//! It also keeps what a second run must know and can no longer read from the directory: the history the target had, and the
//! oldest fork any attempt was made against. Text, one `key: value` a line, then the history file.

use std::fs;
use std::io;
use std::path::Path;

use afterimage_wal::disk::{RealDisk, durable_replace};
use afterimage_wal::history::History;
use afterimage_wal::ids::{Lsn, TimelineId};

use super::error::RewindError;
pub use crate::control::supervisor::REWIND_MARKER as FILE;

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Blocks beyond it are not shared with the source of any attempt.
    pub fork: Lsn,
    /// The target's own WAL below it is complete and shared.
    pub wal_kept: Lsn,
    /// The target's history before the first attempt.
    pub history: History,
}

impl Marker {
    /// Reads it, if there is one.
    ///
    /// # Errors
    /// I/O; a file that is no marker.
    pub fn read(dir: &Path) -> Result<Option<Self>, RewindError> {
        let path = dir.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => {
                Self::parse(&text).map(Some).ok_or_else(|| RewindError::BadFile { path: FILE.to_owned(), what: "not a rewind marker" })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RewindError::Io { what: "read file", path, source }),
        }
    }

    /// Writes it durably.
    ///
    /// # Errors
    /// I/O.
    pub fn write(&self, dir: &Path) -> Result<(), RewindError> {
        let path = dir.join(FILE);
        durable_replace(&RealDisk, &path, self.text().as_bytes()).map_err(RewindError::io("write file", path))
    }

    fn text(&self) -> String {
        format!(
            "rewind of this data directory has begun and not ended: run pg_rewind again\nfork: {}\nwal kept below: {}\ntimeline: {}\n{}",
            self.fork,
            self.wal_kept,
            self.history.tli(),
            self.history.to_text()
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let mut rest = text.split_once('\n')?.1;
        let mut value = |key: &str| {
            let (line, after) = rest.split_once('\n')?;
            rest = after;
            line.strip_prefix(key)?.strip_prefix(": ")
        };
        let fork = value("fork")?.parse().ok()?;
        let wal_kept = value("wal kept below")?.parse().ok()?;
        let tli: u32 = value("timeline")?.parse().ok()?;
        let history = History::parse(TimelineId::new(tli), rest).ok()?;
        Some(Self { fork, wal_kept, history })
    }
}

#[cfg(test)]
mod tests {
    use afterimage_wal::ids::StartId;

    use super::*;

    #[test]
    fn marker_reads_back_and_no_cut_panics() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), None);
        let history = History::first().child(TimelineId::new(2), Lsn::from_u64(0x300_0000), "no recovery target", StartId::new(7));
        let marker = Marker { fork: Lsn::from_u64(0x1_0300_0028), wal_kept: Lsn::from_u64(0x200_0000), history };
        marker.write(dir.path()).unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), Some(marker.clone()));
        let text = marker.text();
        for cut in 0..text.len() {
            let _whatever = Marker::parse(&text[..cut]);
        }
    }
}
