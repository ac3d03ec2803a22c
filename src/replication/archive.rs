//! `archive_command` and `restore_command`: whole segments to and from an archive, by shell command.
//!
//! A finished segment gets `archive_status/<name>.ready`; the archiver runs the command, oldest first, and renames it to
//! `.done`. Nothing in `pg_wal` is recycled while its `.ready` stands.
//!
//! PostgreSQL: postmaster/pgarch.c, access/transam/xlogarchive.c.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use afterimage_wal::history::History;
use afterimage_wal::ids::{Lsn, SegNo, TimelineId};
use afterimage_wal::segment;

use super::location;
use super::services::Replication;
use crate::config::Setting;
use crate::control::supervisor::sleep_until;
use crate::recovery::restore;
use crate::recovery::start::segment_names;
use crate::recovery::target::TimelineGoal;

/// Wait after a failed archive command, as PGARCH_RESTART_INTERVAL.
const RETRY: Duration = Duration::from_secs(10);

/// Failures around the archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveCommandError {
    /// The command said no.
    #[error("archive command {how}\nDETAIL:  The failed archive command was: {command}")]
    Failed {
        /// Exit status, in words.
        how: String,
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
    /// The archive cannot be asked.
    #[error("could not restore file \"{name}\" from archive: {status}")]
    Restore {
        /// File.
        name: String,
        /// How the command ended.
        status: String,
    },
    /// As [`Self::Restore`], or what it has is of no use.
    #[error(transparent)]
    Recovery(#[from] crate::recovery::RecoveryError),
    /// Cut off, or something else under a segment's name.
    #[error("archive file \"{name}\" has wrong size: {bytes} instead of {segment_bytes}")]
    WrongSize {
        /// File.
        name: String,
        /// Its size.
        bytes: u64,
        /// A segment's.
        segment_bytes: u32,
    },
    /// The next timeline cannot be followed.
    #[error("could not follow timeline {tli} to the next: {what}")]
    Follow {
        /// Which ends.
        tli: TimelineId,
        /// Why not.
        what: String,
    },
    /// WAL that the archive has otherwise could not be discarded here.
    #[error("could not discard WAL that the archive does not have: {0}")]
    Discard(String),
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

/// Whether recovery must not go on after this: what it does without the archive's answer might be wrong. A standby asks an archive of ours
/// (`restore_location`) that does not answer again. PostgreSQL: `RestoreArchivedFile`.
pub(super) fn ends_recovery(node: &Replication, error: &ArchiveCommandError) -> bool {
    use crate::recovery::RecoveryError as R;
    use ArchiveCommandError as E;
    match error {
        E::WrongSize { .. } | E::Recovery(R::WrongSize { .. }) => true,
        E::Restore { .. } | E::Recovery(R::Restore { .. }) => {
            node.engine.is_archive_recovery() || !node.config.current().str(Setting::RestoreCommand).is_empty()
        }
        E::Recovery(_) | E::Failed { .. } | E::Run { .. } | E::Io { .. } | E::Follow { .. } | E::Discard(_) | E::Wal { .. } => {
            node.engine.is_archive_recovery()
        }
    }
}

/// What `pg_stat_archiver` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
    /// Told whenever a file was archived, or given up.
    changed: tokio::sync::watch::Sender<()>,
    /// Told when there is a file for the archiver that is no segment.
    offered: tokio::sync::Notify,
    /// One at a time changes status files, or a segment could be marked again that was archived meanwhile. Rank 63, held across I/O.
    marking: parking_lot::Mutex<()>,
}

/// Counters kept over a clean stop, below the data directory.
const STATS_FILE: &str = "pg_stat/archiver.json";

impl ArchiverStats {
    /// The counters of before, if the last stop was clean. The file goes: after a crash they begin anew, as PostgreSQL's.
    pub fn load(data_dir: &Path) -> Self {
        let path = data_dir.join(STATS_FILE);
        let info = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => tracing::warn!("could not remove file \"{STATS_FILE}\": {e}"),
            Ok(()) | Err(_) => {}
        }
        Self { info: parking_lot::Mutex::new(info), ..Self::default() }
    }

    /// Keeps the counters for the next start.
    pub fn save(&self, data_dir: &Path) {
        let path = data_dir.join(STATS_FILE);
        let kept = serde_json::to_vec(&self.get()).map_err(io::Error::from).and_then(|text| {
            fs::create_dir_all(data_dir.join("pg_stat"))?;
            fs::write(&path, text)
        });
        if let Err(e) = kept {
            tracing::warn!("could not write file \"{STATS_FILE}\": {e}");
        }
    }

    /// Back to zero.
    pub fn reset(&self) {
        *self.info.lock() = ArchiverInfo::default();
    }

    /// The counters now.
    pub fn get(&self) -> ArchiverInfo {
        self.info.lock().clone()
    }

    /// Changes whenever a file was archived.
    pub fn subscribe(&self) -> tokio::sync::watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn archived(&self, name: &str) {
        {
            let mut info = self.info.lock();
            info.archived_count += 1;
            info.last_archived = Some((name.to_owned(), super::timestamp_now()));
        }
        self.changed.send_replace(());
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

/// Whether this node archives in its present role.
pub(super) fn is_on(node: &Replication) -> bool {
    let settings = node.config.current();
    match settings.str(Setting::ArchiveMode) {
        "always" => true,
        // Also while it stops.
        "on" => node.engine.wal().is_writing(),
        _ => false,
    }
}

/// The start of the oldest segment that waits for the archiver.
pub fn oldest_unarchived(node: &Replication) -> Option<Lsn> {
    if !is_on(node) {
        return None;
    }
    let segment_bytes = node.engine.wal().segment_bytes();
    // Segments may have ended since the archiver looked.
    let Ok(ready) = mark_ready(node, SegNo::of(node.engine.wal().confirmed(), segment_bytes)).and_then(|()| ready_files(node)) else {
        // It cannot be told what is archived: all stays.
        return Some(Lsn::INVALID);
    };
    ready
        .iter()
        .filter_map(|name| segment::parse_file_name(name, segment_bytes))
        .map(|(_, segno)| Lsn::from_u64(segno.get() * u64::from(segment_bytes)))
        .min()
}

/// Name of a file that tells of a backup: that of a segment, an offset, `.backup`.
pub(super) fn is_backup_history(name: &str) -> bool {
    name.strip_suffix(".backup").and_then(|rest| rest.split_once('.')).is_some_and(|(file, offset)| {
        segment::is_file_name(file) && offset.len() == 8 && offset.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'))
    })
}

/// Whether a file that the archive is to have is not there yet. PostgreSQL: `XLogArchiveIsBusy`.
pub(super) fn is_busy(node: &Replication, name: &str) -> bool {
    let has = |status: &str| status_dir(node).join(format!("{name}.{status}")).exists();
    if has("done") {
        return false;
    }
    // Between the two looks it may have been archived, or archived and recycled.
    has("ready") || (!has("done") && node.engine.data_dir().join("pg_wal").join(name).exists())
}

/// Puts a file that tells of a backup where the archiver finds it. Earlier ones that are archived, or that nobody archives, go.
///
/// PostgreSQL: `CleanupBackupHistory`.
pub(super) fn put_backup_history(node: &Replication, name: &str, text: &str) -> Result<(), ArchiveCommandError> {
    let dir = node.engine.data_dir().join("pg_wal");
    let at = |path: PathBuf| move |source| ArchiveCommandError::Io { path, source };
    let path = dir.join(name);
    afterimage_wal::disk::durable_replace(&afterimage_wal::disk::RealDisk, &path, text.as_bytes()).map_err(at(path))?;
    if is_on(node) {
        let ready = status_dir(node).join(format!("{name}.ready"));
        fs::File::create(&ready).map_err(at(ready))?;
        node.archiver.offered.notify_one();
    }
    for entry in fs::read_dir(&dir).map_err(at(dir.clone()))? {
        let Ok(old) = entry.map_err(at(dir.clone()))?.file_name().into_string() else { continue };
        if !is_backup_history(&old) || (is_on(node) && is_busy(node, &old)) {
            continue;
        }
        for gone in [dir.join(&old), status_dir(node).join(format!("{old}.done")), status_dir(node).join(format!("{old}.ready"))] {
            match fs::remove_file(&gone) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(gone)(e)),
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(())
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

/// Marks every finished segment, those before `current`, and history file that has no status yet.
fn mark_ready(node: &Replication, current: SegNo) -> Result<(), ArchiveCommandError> {
    let _one_at_a_time = node.archiver.marking.lock();
    let dir = node.engine.data_dir().join("pg_wal");
    let segment_bytes = node.engine.wal().segment_bytes();
    let at = |source| ArchiveCommandError::Io { path: dir.clone(), source };
    let tli = node.engine.wal().tli();
    for entry in fs::read_dir(&dir).map_err(at)? {
        let Ok(name) = entry.map_err(at)?.file_name().into_string() else { continue };
        let finished = match segment::parse_file_name(&name, segment_bytes) {
            Some((file_tli, segno)) => file_tli <= tli && segno < current,
            None => name.ends_with(".partial") || History::parse_file_name(&name).is_some() || is_backup_history(&name),
        };
        if !finished || status_dir(node).join(format!("{name}.ready")).exists() || status_dir(node).join(format!("{name}.done")).exists() {
            continue;
        }
        let path = status_dir(node).join(format!("{name}.ready"));
        fs::File::create(&path).map_err(|source| ArchiveCommandError::Io { path, source })?;
    }
    Ok(())
}

/// Segments before `current` that were streamed here are archived by whoever made them: a promotion does not archive them again. With `archive_mode = always` they are
/// this node's to archive, as all others.
///
/// PostgreSQL: `XLogArchiveForceDone` in replication/walreceiver.c.
pub(super) fn mark_streamed(node: &Replication, current: SegNo) -> Result<(), ArchiveCommandError> {
    let _one_at_a_time = node.archiver.marking.lock();
    let segment_bytes = node.engine.wal().segment_bytes();
    let Some(first) = node.receiver.streamed_from().filter(|first| *first < current) else { return Ok(()) };
    let always = node.config.current().str(Setting::ArchiveMode) == "always";
    let dir = node.engine.data_dir().join("pg_wal");
    let at = |source| ArchiveCommandError::Io { path: dir.clone(), source };
    for entry in fs::read_dir(&dir).map_err(at)? {
        let Ok(name) = entry.map_err(at)?.file_name().into_string() else { continue };
        if segment::parse_file_name(&name, segment_bytes).is_some_and(|(_, segno)| (first..current).contains(&segno)) {
            restore::note_received(node.engine.data_dir(), &name, always).map_err(at)?;
        }
    }
    node.receiver.streamed_upto(current);
    Ok(())
}

/// Removes the status of segments that are gone, and what was set aside at promotions, once it is archived and below the segment `kept`. A failure
/// leaves them to the next checkpoint.
///
/// PostgreSQL: `XLogArchiveCleanup`, and `RemoveOldXlogFiles` for `.partial`.
pub(super) fn tidy(node: &Replication, kept: SegNo) {
    let _one_at_a_time = node.archiver.marking.lock();
    if let Err(error) = remove_leftovers(node, kept) {
        tracing::warn!("{error}");
    }
}

fn remove_leftovers(node: &Replication, kept: SegNo) -> Result<(), ArchiveCommandError> {
    let (wal_dir, status_dir) = (node.engine.data_dir().join("pg_wal"), status_dir(node));
    let segment_bytes = node.engine.wal().segment_bytes();
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| ArchiveCommandError::Io { path, source }
    };
    let partial = |name: &str| name.strip_suffix(".partial").and_then(|name| segment::parse_file_name(name, segment_bytes));
    for entry in fs::read_dir(&wal_dir).map_err(at(&wal_dir))? {
        let Ok(name) = entry.map_err(at(&wal_dir))?.file_name().into_string() else { continue };
        let old = partial(&name).is_some_and(|(_, segno)| segno < kept);
        if old && (!is_on(node) || status_dir.join(format!("{name}.done")).exists()) {
            let path = wal_dir.join(&name);
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    for entry in fs::read_dir(&status_dir).map_err(at(&status_dir))? {
        let Ok(status) = entry.map_err(at(&status_dir))?.file_name().into_string() else { continue };
        let Some(name) = status.strip_suffix(".done") else { continue };
        let is_segment = segment::is_file_name(name) || partial(name).is_some();
        if is_segment && !wal_dir.join(name).exists() {
            let path = status_dir.join(&status);
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

/// The archiver: marks and archives as segments finish, until the node stops.
pub async fn run(node: Arc<Replication>) {
    let mut moved = node.segment_moved();
    let mut stopping = node.stopping();
    let mut reloads = node.config.subscribe();
    let mut roles = node.engine.node().subscribe();
    let mut marked = u64::MAX;
    let mut failed = false;
    let mut switching = Switching::new(&node);
    loop {
        let last = *stopping.borrow_and_update();
        if is_on(&node) {
            let position = *moved.borrow_and_update();
            if position != marked || failed {
                let outcome = match mark_ready(&node, SegNo::new(position)) {
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
            marked = *moved.borrow_and_update();
            if let Err(error) = mark_streamed(&node, SegNo::new(marked)) {
                tracing::warn!("{error}");
            }
        }
        if last {
            tracing::debug!("archiver process shutting down");
            return;
        }
        tokio::select! {
            changed = moved.wait_for(|segment| *segment != marked) => if changed.is_err() { return },
            _ = stopping.changed() => {}
            _ = reloads.changed() => marked = u64::MAX,
            _ = roles.changed() => marked = u64::MAX,
            () = node.archiver.offered.notified() => marked = u64::MAX,
            () = tokio::time::sleep(RETRY), if failed => {}
            () = sleep_until(switching.due(&node)) => switching.switch(&node),
        }
    }
}

/// `archive_timeout`: segments are finished though they are not full. PostgreSQL: `CheckArchiveTimeout`.
struct Switching {
    /// The segment that is being written, and since when.
    segment: u64,
    since: tokio::time::Instant,
    /// End of WAL after the last switch: nothing since, nothing to switch.
    idle_at: Lsn,
}

impl Switching {
    fn new(node: &Replication) -> Self {
        Self { segment: Self::segment(node), since: tokio::time::Instant::now(), idle_at: node.engine.wal().inserted() }
    }

    fn segment(node: &Replication) -> u64 {
        node.engine.wal().inserted().as_u64() / u64::from(node.engine.wal().segment_bytes())
    }

    fn due(&mut self, node: &Replication) -> Option<tokio::time::Instant> {
        let segment = Self::segment(node);
        if segment != self.segment {
            (self.segment, self.since) = (segment, tokio::time::Instant::now());
        }
        let timeout = node.config.current().duration(Setting::ArchiveTimeout).filter(|t| !t.is_zero());
        timeout.filter(|_| node.engine.wal().is_writing()).map(|timeout| self.since + timeout)
    }

    fn switch(&mut self, node: &Replication) {
        self.since = tokio::time::Instant::now();
        let wal = node.engine.wal();
        // One that filled up meanwhile had its own switch.
        if wal.inserted() == self.idle_at || Self::segment(node) != self.segment {
            return;
        }
        match wal.switch_segment() {
            Ok(end) => {
                self.idle_at = wal.inserted();
                wal.request_flush(end);
            }
            Err(error) => tracing::warn!("could not switch to a new WAL segment: {error}"),
        }
    }
}

async fn archive_ready(node: &Arc<Replication>) -> Result<(), ArchiveCommandError> {
    loop {
        let command = location::archive_command(&node.config.current());
        if command.is_empty() {
            return Ok(());
        }
        let Some(name) = ready_files(node)?.into_iter().next() else { return Ok(()) };
        let filled = restore::fill(&command, &[('p', &format!("pg_wal/{name}")), ('f', &name)]);
        let status = shell(node.engine.data_dir(), &filled).await?;
        if !status.success() {
            node.archiver.failed(&name);
            return Err(ArchiveCommandError::Failed { how: ending(status), command: filled });
        }
        let (from, to) = (status_dir(node).join(format!("{name}.ready")), status_dir(node).join(format!("{name}.done")));
        afterimage_wal::disk::durable_rename(&afterimage_wal::disk::RealDisk, &from, &to)
            .map_err(|source| ArchiveCommandError::Io { path: to, source })?;
        node.archiver.archived(&name);
    }
}

/// How a command ended that did not do its work.
fn ending(status: ExitStatus) -> String {
    match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(signal)) => format!("was terminated by signal {}", restore::signal_text(signal)),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

/// Runs a command with the data directory as working directory. It ends with whoever waits for it.
async fn shell(data_dir: &Path, command: &str) -> Result<ExitStatus, ArchiveCommandError> {
    tokio::process::Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .current_dir(data_dir)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|source| ArchiveCommandError::Run { command: command.to_owned(), source })
}

/// One file from the archive, into a server that is down; `None` if the command does not find it.
pub async fn fetch_one(data_dir: &Path, command: &str, name: &str) -> Option<Vec<u8>> {
    let target = data_dir.join(restore::RESTORED_HISTORY);
    drop(fs::remove_file(&target));
    let status = shell(data_dir, &restore::fill(command, &[('p', restore::RESTORED_HISTORY), ('f', name)])).await;
    let bytes = status.is_ok_and(|status| status.success()).then(|| fs::read(&target).ok()).flatten();
    drop(fs::remove_file(&target));
    bytes
}

/// A segment from the archive, by the first of its names that is there; which.
async fn restore(node: &Arc<Replication>, goal: &History, segno: SegNo) -> Result<Option<(String, Vec<u8>)>, ArchiveCommandError> {
    let engine = &node.engine;
    let segment_bytes = engine.wal().segment_bytes();
    let commands = engine.recovery_options().commands;
    let restart = engine.restart_file();
    let target = engine.data_dir().join(restore::RESTORED_SEGMENT);
    let at = |source| ArchiveCommandError::Io { path: target.clone(), source };
    for name in segment_names(goal, segno, segment_bytes) {
        match fs::remove_file(&target) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(e)),
            Ok(()) | Err(_) => {}
        }
        let filled = restore::fill(&commands.restore, &[('p', restore::RESTORED_SEGMENT), ('f', &name), ('r', &restart)]);
        let status = shell(engine.data_dir(), &filled).await?;
        if restore::is_fatal(status) {
            return Err(ArchiveCommandError::Restore { name, status: restore::status_text(status) });
        }
        if !restore::has_brought(status, &target, restore::RESTORED_SEGMENT) {
            continue;
        }
        let bytes = tokio::fs::read(&target).await.map_err(at)?;
        fs::remove_file(&target).map_err(at)?;
        let size = bytes.len() as u64;
        if size != u64::from(segment_bytes) {
            // To a standby one that is short may be on its way into the archive. Whoever recovers would take it for the end, and lose what follows.
            if size < u64::from(segment_bytes) && !engine.is_archive_recovery() {
                tracing::debug!("archive file \"{name}\" has wrong size: {size} instead of {segment_bytes}");
                continue;
            }
            return Err(ArchiveCommandError::WrongSize { name, bytes: size, segment_bytes });
        }
        tracing::info!("restored log file \"{name}\" from archive");
        return Ok(Some((name, bytes)));
    }
    Ok(None)
}

/// Feeds our WAL from the archive as far as `restore_command` finds segments that go on from it.
///
/// # Errors
/// A command that cannot be run; bytes that contradict what is here.
pub async fn feed(node: &Arc<Replication>) -> Result<(), ArchiveCommandError> {
    let engine = &node.engine;
    let segment_bytes = engine.wal().segment_bytes();
    engine.wal().drop_incomplete();
    if let Some(replay) = engine.replay() {
        replay.set_from_archive(true);
    }
    // Up to where WAL that was received ahead was found in the archive too.
    let mut found = Lsn::INVALID;
    loop {
        let wal = engine.wal();
        let (tli, received, goal) = (wal.tli(), wal.received(), engine.goal());
        let held = wal.held_from().filter(|bound| *bound < received);
        if held.is_none() && goal.end_of(tli) == Some(received) && wal.published() == received {
            follow_goal(node, &goal, tli, received).await?;
            continue;
        }
        if let Some(fork) = goal.end_of(tli).filter(|fork| held.is_some() && *fork < received) {
            // The history that is followed leaves before the end of what is held back.
            if node.discard_held_after(fork).await.map_err(|e| ArchiveCommandError::Discard(e.to_string()))? {
                continue;
            }
            return Ok(());
        }
        // The archive has only what was durable: what is not confirmed here is compared with it.
        let from = held.map_or(received, |bound| bound.max(found).min(received));
        let segno = SegNo::of(from, segment_bytes);
        let Some((name, bytes)) = restore(node, &goal, segno).await? else { return Ok(()) };
        let start = segno.start_lsn(segment_bytes);
        let end = segno.end_lsn(segment_bytes).min(goal.end_of(tli).unwrap_or(Lsn::MAX));
        let offset = |lsn: Lsn| usize::try_from(lsn.bytes_since(start).unwrap_or(0)).unwrap_or(usize::MAX);
        let Some(rest) = bytes.get(offset(from)..offset(end)) else { return Ok(()) };
        let verified = match wal.append_received(from, rest) {
            Ok(verified) => verified,
            // The archive's copy ends here, as that of a segment that was not full does; or it is damaged. Either way another source may go on.
            Err(afterimage_wal::WalError::ReceivedDamage { at, what }) => {
                tracing::info!("archived segment {name} ends at {at}: {what}");
                wal.request_flush(wal.published());
                wal.confirm(at).map_err(|source| ArchiveCommandError::Wal { name, source })?;
                return Ok(());
            }
            Err(source @ afterimage_wal::WalError::Diverged { .. }) => {
                let Some(bound) = held else { return Err(ArchiveCommandError::Wal { name, source }) };
                let discarded = node.discard_held_after(bound).await.map_err(|e| ArchiveCommandError::Discard(e.to_string()))?;
                if discarded {
                    found = Lsn::INVALID;
                    continue;
                }
                return Err(ArchiveCommandError::Wal { name, source });
            }
            Err(source) => return Err(ArchiveCommandError::Wal { name, source }),
        };
        wal.request_flush(verified);
        let upto = from.advance(rest.len() as u64);
        if upto < received {
            // More of what is held back lies in the next segment.
            found = upto;
            continue;
        }
        wal.confirm(verified).map_err(|source| ArchiveCommandError::Wal { name, source })?;
        if wal.received() == segno.end_lsn(segment_bytes) {
            let always = engine.recovery_options().commands.archive_always;
            let local = segment::file_name(tli, segno, segment_bytes);
            restore::note_received(engine.data_dir(), &local, always)
                .map_err(|source| ArchiveCommandError::Io { path: status_dir(node), source })?;
        }
    }
}

/// Our timeline ends here: goes over to the next of the history that recovery follows.
async fn follow_goal(node: &Arc<Replication>, goal: &History, tli: TimelineId, at: Lsn) -> Result<(), ArchiveCommandError> {
    let failed = |what: String| ArchiveCommandError::Follow { tli, what };
    let next = goal.next_after(tli).and_then(|next| goal.up_to(next)).ok_or_else(|| failed("it has no successor".to_owned()))?;
    let engine = Arc::clone(&node.engine);
    node.change_wal(move || engine.follow_timeline(next, at)).await.map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))
}

/// Looks in the archive for timelines that are newer than the one recovery follows. PostgreSQL: `rescanLatestTimeLine`.
///
/// # Errors
/// A command that cannot be run.
pub async fn rescan_timelines(node: &Arc<Replication>) -> Result<(), ArchiveCommandError> {
    let options = node.engine.recovery_options();
    if options.commands.restore.is_empty() || options.goal.timeline != TimelineGoal::Latest {
        return Ok(());
    }
    let looking = Arc::clone(node);
    let newest = tokio::task::spawn_blocking(move || {
        let mut newest = looking.engine.goal().tli();
        while restore::fetch_history(looking.engine.data_dir(), &options.commands, newest.next())? {
            newest = newest.next();
        }
        Ok::<_, crate::recovery::RecoveryError>(newest)
    })
    .await;
    let newest = match newest {
        Ok(Ok(newest)) => newest,
        Ok(Err(error)) => return Err(error.into()),
        Err(error) => return Err(ArchiveCommandError::Restore { name: "timeline history".to_owned(), status: error.to_string() }),
    };
    if newest == node.engine.goal().tli() {
        return Ok(());
    }
    let Ok(history) = node.history_of(newest) else { return Ok(()) };
    let wal = node.engine.wal();
    let (tli, end) = (wal.tli(), wal.published());
    match history.end_of(tli) {
        None => tracing::info!("new timeline {newest} is not a child of database system timeline {tli}"),
        Some(fork) if fork < end && !node.discard_held_after(fork).await.map_err(|e| ArchiveCommandError::Discard(e.to_string()))? => {
            tracing::info!("new timeline {newest} forked off current database system timeline {tli} before current recovery point {end}");
        }
        Some(_) => node.engine.set_goal(history),
    }
    Ok(())
}

/// Finished segments that came with a backup and wait for the archiver, but are in the archive already: no longer waiting.
///
/// # Errors
/// A command that cannot be run; status files.
pub async fn settle_ready(node: &Arc<Replication>) -> Result<(), ArchiveCommandError> {
    let engine = &node.engine;
    let commands = engine.recovery_options().commands;
    if commands.restore.is_empty() || commands.archive_always {
        return Ok(());
    }
    let segment_bytes = engine.wal().segment_bytes();
    for name in ready_files(node)? {
        let Some((tli, segno)) = segment::parse_file_name(&name, segment_bytes) else { continue };
        let path = engine.data_dir().join("pg_wal").join(&name);
        let Ok(local) = tokio::fs::read(&path).await else { continue };
        let Some((_, archived)) = restore(node, &History::alone(tli), segno).await? else { continue };
        if local == archived {
            restore::note_received(engine.data_dir(), &name, false)
                .map_err(|source| ArchiveCommandError::Io { path: status_dir(node), source })?;
        }
    }
    Ok(())
}

/// After a promotion: the old timeline's last segment is not full, and must not be taken for one that is.
pub fn set_partial_aside(node: &Replication, tli: TimelineId, end: Lsn) {
    let segment_bytes = node.engine.wal().segment_bytes();
    let name = segment::file_name(tli, SegNo::of_end(end, segment_bytes), segment_bytes);
    if end.as_u64().is_multiple_of(u64::from(segment_bytes)) || node.config.current().str(Setting::ArchiveMode) == "off" {
        return;
    }
    let has = |status: &str| status_dir(node).join(format!("{name}.{status}")).exists();
    if has("ready") || has("done") {
        return;
    }
    let dir = node.engine.data_dir().join("pg_wal");
    let partial = dir.join(format!("{name}.partial"));
    if let Err(error) = afterimage_wal::disk::durable_rename(&afterimage_wal::disk::RealDisk, &dir.join(&name), &partial) {
        tracing::warn!("could not rename file \"{name}\" to \"{name}.partial\": {error}");
    }
}
