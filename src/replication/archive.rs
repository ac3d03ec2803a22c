//! `archive_command` and `restore_command`: whole segments to and from an archive, by shell command.
//!
//! A finished segment gets `archive_status/<name>.ready`; the archiver runs the command, oldest first, and renames it to
//! `.done`. Nothing in `pg_wal` is recycled while its `.ready` stands.
//!
//! PostgreSQL: postmaster/pgarch.c, access/transam/xlogarchive.c.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use afterimage_wal::history::History;
use afterimage_wal::ids::{Lsn, SegNo};
use afterimage_wal::segment;

use super::services::Replication;
use crate::config::Setting;

/// Wait after a failed archive command, as PGARCH_RESTART_INTERVAL.
const RETRY: Duration = Duration::from_secs(10);

/// Failures around the archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveCommandError {
    /// The command said no.
    #[error("archive command failed with exit code {code}\nDETAIL:  The failed archive command was: {command}")]
    Failed {
        /// Exit status.
        code: i32,
        /// With `%p` and `%f` filled in.
        command: String,
    },
    /// The command died of a signal or did not start.
    #[error("could not run \"{command}\": {source}")]
    Run {
        /// The command.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A status file.
    #[error("could not access \"{}\": {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Restored bytes that do not verify.
    #[error("archived segment {name} does not continue the WAL here: {source}")]
    Wal {
        /// File.
        name: String,
        /// Why.
        #[source]
        source: afterimage_wal::WalError,
    },
}

/// What `pg_stat_archiver` shows.
#[derive(Clone, Debug, Default)]
pub struct ArchiverInfo {
    /// Files archived.
    pub archived_count: u64,
    /// The last of them.
    pub last_archived: Option<(String, i64)>,
    /// Attempts that failed.
    pub failed_count: u64,
    /// The last of them.
    pub last_failed: Option<(String, i64)>,
}

/// Counters of the archiver.
#[derive(Debug, Default)]
pub struct ArchiverStats {
    /// Rank 63, a leaf.
    info: parking_lot::Mutex<ArchiverInfo>,
}

impl ArchiverStats {
    /// The counters now.
    pub fn get(&self) -> ArchiverInfo {
        self.info.lock().clone()
    }

    fn archived(&self, name: &str) {
        let mut info = self.info.lock();
        info.archived_count += 1;
        info.last_archived = Some((name.to_owned(), super::timestamp_now()));
    }

    fn failed(&self, name: &str) {
        let mut info = self.info.lock();
        info.failed_count += 1;
        info.last_failed = Some((name.to_owned(), super::timestamp_now()));
    }
}

fn status_dir(node: &Replication) -> PathBuf {
    node.engine.data_dir().join("pg_wal/archive_status")
}

fn is_on(node: &Replication) -> bool {
    let settings = node.config.current();
    match settings.str(Setting::ArchiveMode) {
        "always" => true,
        "on" => !node.engine.is_in_recovery(),
        _ => false,
    }
}

/// The start of the oldest segment that waits for the archiver.
pub fn oldest_unarchived(node: &Replication) -> Option<Lsn> {
    if !is_on(node) {
        return None;
    }
    let segment_bytes = node.engine.wal().segment_bytes();
    ready_files(node)
        .ok()?
        .iter()
        .filter_map(|name| segment::parse_file_name(name, segment_bytes))
        .map(|(_, segno)| Lsn::from_u64(segno.get() * u64::from(segment_bytes)))
        .min()
}

fn ready_files(node: &Replication) -> Result<Vec<String>, ArchiveCommandError> {
    let dir = status_dir(node);
    let at = |source| ArchiveCommandError::Io { path: dir.clone(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).map_err(at)? {
        if let Some(name) = entry.map_err(at)?.file_name().to_str().and_then(|n| n.strip_suffix(".ready")) {
            names.push(name.to_owned());
        }
    }
    // History files first: whoever restores needs to know of a timeline before its segments.
    names.sort_by_key(|name| (!name.ends_with(".history"), name.clone()));
    Ok(names)
}

/// Marks every finished segment and history file that has no status yet.
fn mark_ready(node: &Replication, upto: Lsn) -> Result<(), ArchiveCommandError> {
    let dir = node.engine.data_dir().join("pg_wal");
    let segment_bytes = node.engine.wal().segment_bytes();
    let current = SegNo::new(upto.as_u64() / u64::from(segment_bytes));
    let at = |source| ArchiveCommandError::Io { path: dir.clone(), source };
    let tli = node.engine.wal().tli();
    for entry in fs::read_dir(&dir).map_err(at)? {
        let Ok(name) = entry.map_err(at)?.file_name().into_string() else { continue };
        let finished = match segment::parse_file_name(&name, segment_bytes) {
            Some((file_tli, segno)) => file_tli <= tli && segno < current,
            None => name.ends_with(".partial") || History::parse_file_name(&name).is_some(),
        };
        if !finished || status_dir(node).join(format!("{name}.ready")).exists() || status_dir(node).join(format!("{name}.done")).exists() {
            continue;
        }
        let path = status_dir(node).join(format!("{name}.ready"));
        fs::File::create(&path).map_err(|source| ArchiveCommandError::Io { path, source })?;
    }
    Ok(())
}

/// The archiver: marks and archives as segments finish, until the node stops.
pub async fn run(node: Arc<Replication>) {
    let mut moved = node.wal_moved();
    let mut stopping = node.stopping();
    let mut reloads = node.config.subscribe();
    let mut roles = node.engine.node().subscribe();
    let segment_bytes = u64::from(node.engine.wal().segment_bytes());
    let mut marked = u64::MAX;
    let mut failed = false;
    loop {
        let last = *stopping.borrow_and_update();
        if is_on(&node) {
            let upto = *moved.borrow_and_update();
            let position = upto.as_u64() / segment_bytes;
            if position != marked || failed {
                let outcome = match mark_ready(&node, upto) {
                    Ok(()) => archive_ready(&node).await,
                    Err(error) => Err(error),
                };
                failed = outcome.is_err();
                if let Err(error) = outcome {
                    tracing::warn!("{error}");
                }
                marked = position;
            }
        } else {
            // Nothing to do for this segment; a reload or a new role looks again.
            marked = moved.borrow_and_update().as_u64() / segment_bytes;
        }
        if last {
            return;
        }
        tokio::select! {
            changed = moved.wait_for(|lsn| lsn.as_u64() / segment_bytes != marked) => if changed.is_err() { return },
            _ = stopping.changed() => {}
            _ = reloads.changed() => marked = u64::MAX,
            _ = roles.changed() => marked = u64::MAX,
            () = tokio::time::sleep(RETRY), if failed => {}
        }
    }
}

async fn archive_ready(node: &Arc<Replication>) -> Result<(), ArchiveCommandError> {
    loop {
        let command = node.config.current().str(Setting::ArchiveCommand).to_owned();
        if command.is_empty() {
            return Ok(());
        }
        let Some(name) = ready_files(node)?.into_iter().next() else { return Ok(()) };
        let filled = fill(&command, &format!("pg_wal/{name}"), &name, "");
        let status = shell(node.engine.data_dir(), &filled).await?;
        if status != 0 {
            node.archiver.failed(&name);
            return Err(ArchiveCommandError::Failed { code: status, command: filled });
        }
        let (from, to) = (status_dir(node).join(format!("{name}.ready")), status_dir(node).join(format!("{name}.done")));
        afterimage_wal::disk::durable_rename(&afterimage_wal::disk::RealDisk, &from, &to)
            .map_err(|source| ArchiveCommandError::Io { path: to, source })?;
        node.archiver.archived(&name);
    }
}

/// Fills in `%p`, `%f`, `%r`, `%%`.
fn fill(command: &str, path: &str, file: &str, restart: &str) -> String {
    let mut out = String::with_capacity(command.len() + path.len());
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('p') => out.push_str(path),
            Some('f') => out.push_str(file),
            Some('r') => out.push_str(restart),
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

/// Runs a command with the data directory as working directory; its exit code, 128 + n for signal n.
async fn shell(data_dir: &Path, command: &str) -> Result<i32, ArchiveCommandError> {
    let status = tokio::process::Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .current_dir(data_dir)
        .stdin(Stdio::null())
        .status()
        .await
        .map_err(|source| ArchiveCommandError::Run { command: command.to_owned(), source })?;
    Ok(status.code().unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0)))
}

/// One file from the archive, into a server that is down; `None` if the command does not find it.
pub async fn fetch_one(data_dir: &Path, command: &str, name: &str) -> Option<Vec<u8>> {
    let target = data_dir.join("pg_wal/RECOVERYHISTORY");
    drop(fs::remove_file(&target));
    let status = shell(data_dir, &fill(command, "pg_wal/RECOVERYHISTORY", name, "")).await;
    let bytes = status.is_ok_and(|code| code == 0).then(|| fs::read(&target).ok()).flatten();
    drop(fs::remove_file(&target));
    bytes
}

/// Feeds the standby's WAL from the archive as far as `restore_command` finds segments.
///
/// # Errors
/// A command that cannot be run, a segment that does not fit.
pub async fn feed(node: &Arc<Replication>, command: &str) -> Result<(), ArchiveCommandError> {
    let segment_bytes = u64::from(node.engine.wal().segment_bytes());
    loop {
        let wal = node.engine.wal();
        let from = wal.received();
        let segno = from.as_u64() / segment_bytes;
        let name = segment::file_name(wal.tli(), SegNo::new(segno), wal.segment_bytes());
        let target = node.engine.data_dir().join("pg_wal/RECOVERYXLOG");
        drop(fs::remove_file(&target));
        let restart = segment::file_name(wal.tli(), SegNo::new(node.engine.redo_lsn().as_u64() / segment_bytes), wal.segment_bytes());
        let status = shell(node.engine.data_dir(), &fill(command, "pg_wal/RECOVERYXLOG", &name, &restart)).await?;
        if status != 0 || !target.exists() {
            return Ok(());
        }
        let bytes = fs::read(&target).map_err(|source| ArchiveCommandError::Io { path: target.clone(), source })?;
        drop(fs::remove_file(&target));
        let offset = usize::try_from(from.as_u64() % segment_bytes).unwrap_or(usize::MAX);
        let Some(rest) = bytes.get(offset..) else { return Ok(()) };
        let end = wal.append_received(from, rest).map_err(|source| ArchiveCommandError::Wal { name: name.clone(), source })?;
        wal.request_flush(end);
        tracing::info!("restored log file \"{name}\" from archive");
        if end.as_u64() / segment_bytes == segno {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_once() {
        assert_eq!(fill("cp \"%p\" /a/%f %r %% %x", "pg_wal/S", "S", "R"), "cp \"pg_wal/S\" /a/S R % %x");
    }
}
