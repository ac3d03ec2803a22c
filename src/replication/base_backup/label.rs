//! What a backup leaves in writing: `backup_label` and `tablespace_map` for whoever recovers it, a history file for the archive; and the wait until
//! the archive has what recovery needs.
//!
//! PostgreSQL: `do_pg_backup_start`, `do_pg_backup_stop` in access/transam/xlog.c.

use std::time::Duration;

use afterimage_wal::ids::{Lsn, SegNo, TimelineId};
use afterimage_wal::segment;
use tokio::time::Instant;

use super::super::archive::{self, ArchiveCommandError};
use super::super::services::Replication;
use super::archive::Tablespace;
use crate::config::Setting;
use crate::engine::BackupStart;
use crate::sqlstate::{SqlError, SqlState};

/// `backup_label`, as PostgreSQL writes it.
pub fn label(node: &Replication, name: &str, start: &BackupStart) -> String {
    let from = if node.engine.is_in_recovery() { "standby" } else { "primary" };
    format!(
        "START WAL LOCATION: {} (file {})\nCHECKPOINT LOCATION: {}\nBACKUP METHOD: streamed\nBACKUP FROM: {from}\nSTART TIME: {}\nLABEL: {name}\nSTART TIMELINE: {}\n",
        start.redo_lsn,
        first_file(node, start, start.tli),
        start.checkpoint_lsn,
        now(node),
        start.tli
    )
}

/// `tablespace_map`: OID and location, newlines and backslashes escaped.
pub fn tablespace_map(spaces: &[Tablespace]) -> String {
    let mut text = String::new();
    for space in spaces {
        let location = space.location.replace('\\', "\\\\").replace('\n', "\\\n").replace('\r', "\\\r");
        text.push_str(&format!("{} {location}\n", space.oid));
    }
    text
}

fn now(node: &Replication) -> String {
    let zone = jiff::tz::TimeZone::get(node.config.current().str(Setting::LogTimezone)).unwrap_or(jiff::tz::TimeZone::UTC);
    jiff::Timestamp::now().to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

fn first_file(node: &Replication, start: &BackupStart, tli: TimelineId) -> String {
    let segment_bytes = node.engine.wal().segment_bytes();
    segment::file_name(tli, SegNo::of(start.redo_lsn, segment_bytes), segment_bytes)
}

/// The file that holds the byte before `end`.
fn last_file(node: &Replication, end: Lsn, tli: TimelineId) -> String {
    let segment_bytes = node.engine.wal().segment_bytes();
    segment::file_name(tli, SegNo::of_end(end, segment_bytes), segment_bytes)
}

fn history_file(node: &Replication, start: &BackupStart, tli: TimelineId) -> String {
    let offset = start.redo_lsn.as_u64() % u64::from(node.engine.wal().segment_bytes());
    format!("{}.{offset:08X}.backup", first_file(node, start, tli))
}

/// A backup of a primary ended at `end`: the archive gets a file that says so. Older ones that it has are removed here.
///
/// # Errors
/// I/O.
pub fn write_history(
    node: &Replication,
    label: &str,
    start: &BackupStart,
    (end, tli): (Lsn, TimelineId),
) -> Result<(), ArchiveCommandError> {
    let name = history_file(node, start, tli);
    let (first, rest) = label.split_once('\n').unwrap_or((label, ""));
    let stop = last_file(node, end, tli);
    let text = format!("{first}\nSTOP WAL LOCATION: {end} (file {stop})\n{rest}STOP TIME: {}\nSTOP TIMELINE: {tli}\n", now(node));
    archive::put_backup_history(node, &name, &text)
}

/// The wait until the archive has all WAL of a backup, and what is said meanwhile.
pub struct ArchiveWait {
    files: Vec<String>,
    began: Instant,
    told: bool,
    warn_after: Duration,
}

impl ArchiveWait {
    /// PostgreSQL looks once a second and says something after the sixth time.
    const QUIET: Duration = Duration::from_secs(6);

    /// For the backup that began at `start` and ended at `end`; `None`: this node does not archive.
    pub fn new(node: &Replication, start: &BackupStart, (end, tli): (Lsn, TimelineId)) -> Option<Self> {
        let files = vec![last_file(node, end, tli), history_file(node, start, tli)];
        archive::is_on(node).then(|| Self { files, began: Instant::now(), told: false, warn_after: Duration::from_secs(60) })
    }

    /// Returns once the archive has all of it.
    pub async fn done(node: &Replication, files: &[String]) {
        let mut changed = node.archiver.subscribe();
        while files.iter().any(|name| archive::is_busy(node, name)) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// What is waited for.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// When [`Self::say`] is due.
    pub fn deadline(&self) -> Instant {
        self.began + if self.told { self.warn_after } else { Self::QUIET }
    }

    /// What to tell the client at the deadline: severity and text.
    pub fn say(&mut self) -> (&'static str, SqlError) {
        if !self.told {
            self.told = true;
            return ("NOTICE", success("base backup done, waiting for required WAL segments to be archived"));
        }
        let seconds = self.warn_after.as_secs();
        self.warn_after *= 2;
        let text = format!("still waiting for all required WAL segments to be archived ({seconds} seconds elapsed)");
        let hint = "Check that your archive_command is executing properly.  You can safely cancel this backup, but the database backup will not be \
                    usable without all the WAL segments.";
        ("WARNING", SqlError::new(SqlState::WARNING, text).hint(hint))
    }

    /// What to tell the client at the end.
    pub fn all_archived() -> (&'static str, SqlError) {
        ("NOTICE", success("all required WAL segments have been archived"))
    }

    /// What to tell a client that wants to wait for an archive that there is not.
    pub fn no_archive() -> (&'static str, SqlError) {
        let text = "WAL archiving is not enabled; you must ensure that all required WAL segments are copied through other means to complete the backup";
        ("NOTICE", success(text))
    }
}

fn success(text: &str) -> SqlError {
    SqlError::new(SqlState("00000"), text)
}
