//! What a data directory needs before it can be used: decided from its control file, its signal files and its WAL, then done in order.
//!
//! 1. After any unclean stop: pages torn by it are restored from the double-write area (not with a `backup_label`: the copy of a
//!    directory has no meaningful area), and every data file is synced.
//! 2. The WAL is read from the redo point to where it stops. Damage below what was durable refuses the start.
//! 3. The WAL is opened at that end: what lies behind is discarded, what was not known to be durable is written and synced again.
//!
//! After that every record up to the end is durable and redo may begin.

use std::{io, path::Path, sync::Arc};

use afterimage_wal::{
    FlushedMark, Lsn, SegNo, StartId, TimelineId, Wal, WalEnd, WalError, WalOptions, WalReader,
    control_file::{Checkpoint, ClusterState, ControlFile},
    disk::{Disk, Open, durable_rename, read_all},
    history::History,
    reader::{Evidence, StopReason, Verdict, judge},
    rmgr,
};

use super::{
    backup_label::{self, BackupLabel},
    error::RecoveryError,
    replay::{Consistency, ReplaySettings},
    restore::{self, Commands},
    target::{Goal, TimelineGoal},
};
use crate::{
    control::{checkpoint::read_pending_drops, control_store::ControlStore},
    storage::{Files, double_write, unlogged},
};

/// A standby follows an upstream.
pub const STANDBY_SIGNAL: &str = "standby.signal";
/// Recovery from the archive, then promotion.
pub const RECOVERY_SIGNAL: &str = "recovery.signal";
/// A promotion that has begun, see [`Promotion`].
pub const PROMOTION_FILE: &str = "pg_wal/promotion";

/// How the directory comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It was shut down cleanly.
    Clean,
    /// Its own WAL is redone, then it writes.
    Crash,
    /// It replays and follows.
    Standby,
    /// It replays what is here, then begins a new timeline.
    Archive,
}

/// What the configuration says about recovery.
#[derive(Clone, Debug, Default)]
pub struct RecoveryOptions {
    /// Where to, and along which timeline.
    pub goal: Goal,
    /// Shell commands.
    pub commands: Commands,
    /// What replay waits for.
    pub replay: ReplaySettings,
    /// Redo of a standby may ask for copies of damaged pages, and waits for whoever answers.
    pub asks_for_pages: bool,
    /// Start although WAL that was durable is damaged, and give up what follows.
    pub ignore_wal_damage: bool,
}

/// A promotion in progress, written before its history file and segment. The removal of the signal file is its point of no return:
/// before it a restart undoes the promotion, after it a restart completes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// Timeline that ends.
    pub from: TimelineId,
    /// Timeline that begins.
    pub to: TimelineId,
    /// Where.
    pub at: Lsn,
}

impl Promotion {
    /// Makes it known durably.
    ///
    /// # Errors
    /// I/O.
    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), RecoveryError> {
        let text = format!("{} {} {}\n", self.from, self.to, self.at);
        afterimage_wal::disk::durable_replace(disk, &dir.join(PROMOTION_FILE), text.as_bytes())
            .map_err(|source| RecoveryError::File { path: PROMOTION_FILE.to_owned(), source })
    }

    /// Reads it, if there is one.
    ///
    /// # Errors
    /// I/O; a file that does not parse.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, RecoveryError> {
        let Some(text) = read_text(disk, dir, PROMOTION_FILE)? else { return Ok(None) };
        let bad = || RecoveryError::BadFile { path: PROMOTION_FILE.to_owned(), what: "not a promotion" };
        let mut words = text.split_whitespace();
        let mut number = || words.next().and_then(|w| w.parse::<u32>().ok()).map(TimelineId::new);
        let (from, to) = (number().ok_or_else(bad)?, number().ok_or_else(bad)?);
        let at = words.next().and_then(|w| w.parse().ok()).ok_or_else(bad)?;
        Ok(Some(Self { from, to, at }))
    }

    /// Forgets it.
    ///
    /// # Errors
    /// I/O.
    pub fn clear(disk: &dyn Disk, dir: &Path) -> Result<(), RecoveryError> {
        remove(disk, dir, PROMOTION_FILE)
    }

    /// Removes what it made: nobody has seen that timeline.
    fn undo(&self, disk: &dyn Disk, dir: &Path, segment_bytes: u32) -> Result<(), RecoveryError> {
        let wal_dir = dir.join("pg_wal");
        let names = disk.list(&wal_dir).map_err(|source| RecoveryError::File { path: "pg_wal".to_owned(), source })?;
        for name in names {
            let of_timeline = afterimage_wal::segment::parse_file_name(&name, segment_bytes).is_some_and(|(tli, _)| tli == self.to)
                || History::parse_file_name(&name) == Some(self.to);
            if of_timeline {
                remove(disk, dir, &format!("pg_wal/{name}"))?;
            }
        }
        Self::clear(disk, dir)
    }
}

/// Reads a text file of the data directory, if it is there.
///
/// # Errors
/// I/O.
pub fn read_text(disk: &dyn Disk, dir: &Path, name: &str) -> Result<Option<String>, RecoveryError> {
    match read_all(disk, &dir.join(name)) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RecoveryError::File { path: name.to_owned(), source }),
    }
}

/// Removes a file of the data directory durably; it may be gone already.
///
/// # Errors
/// I/O.
pub fn remove(disk: &dyn Disk, dir: &Path, name: &str) -> Result<(), RecoveryError> {
    let fail = |source| RecoveryError::File { path: name.to_owned(), source };
    let path = dir.join(name);
    match disk.remove(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(fail)?,
    }
    disk.sync_dir(path.parent().unwrap_or(dir)).map_err(fail)
}

/// A directory ready for redo.
pub struct Start {
    /// How it comes up.
    pub mode: Mode,
    /// The WAL, receiving, at its end.
    pub wal: Arc<Wal>,
    /// Where it ended.
    pub end: WalEnd,
    /// The history that leads to the timeline that the WAL here ends on.
    pub history: History,
    /// The history recovery follows: the same, or one that goes on.
    pub goal: History,
    /// The checkpoint redo starts from.
    pub checkpoint: Checkpoint,
    /// End of the checkpoint's record.
    pub checkpoint_end: Lsn,
    /// What consistency needs.
    pub consistency: Consistency,
    /// A promotion to complete.
    pub promotion: Option<Promotion>,
    /// The relation files.
    pub files: Arc<Files>,
    /// A standby that was shut down cleanly.
    pub stopped_in_recovery: bool,
    /// WAL behind the end was durable up to here, is damaged, and the user said to go on without it.
    pub given_up: Option<Lsn>,
    /// The WAL ends in the middle of a record, whose continuation in the next segment is missing: where it begins.
    pub torn: Option<Lsn>,
}

/// Prepares a data directory for redo: see the module.
///
/// # Errors
/// What refuses a start: `docs/recovery.md` has the list.
pub fn prepare(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    control: &ControlStore,
    options: &WalOptions,
    recovery: &RecoveryOptions,
) -> Result<Start, RecoveryError> {
    let known = control.get();
    let exists = |name: &str| disk.exists(&dir.join(name)).map_err(|source| RecoveryError::File { path: name.to_owned(), source });
    // Copies made by hand come without what lies in it.
    let status_dir = dir.join("pg_wal/archive_status");
    if !exists("pg_wal/archive_status")? {
        tracing::info!("creating missing WAL directory \"pg_wal/archive_status\"");
        let fail = |source| RecoveryError::File { path: "pg_wal/archive_status".to_owned(), source };
        disk.create_dir(&status_dir).map_err(fail)?;
    }
    if exists("recovery.conf")? {
        return Err(RecoveryError::RecoveryConf);
    }
    let standby = exists(STANDBY_SIGNAL)?;
    let archive = exists(RECOVERY_SIGNAL)?;
    let mut promotion = Promotion::read(disk.as_ref(), dir)?;
    if let Some(begun) = promotion
        && (standby || archive)
    {
        tracing::info!("undoing an unfinished promotion to timeline {}", begun.to);
        begun.undo(disk.as_ref(), dir, known.segment_bytes)?;
        promotion = None;
    }
    let label = match read_text(disk.as_ref(), dir, backup_label::FILE)? {
        Some(text) => Some(BackupLabel::parse(&text).map_err(|what| RecoveryError::BadFile { path: backup_label::FILE.to_owned(), what })?),
        None => None,
    };
    if label.is_some() {
        link_tablespaces(disk.as_ref(), dir)?;
    }
    let clean = label.is_none() && matches!(known.state, ClusterState::Shutdowned | ClusterState::ShutdownedInRecovery);
    let mode = match (standby, archive) {
        (true, _) => Mode::Standby,
        (false, true) => Mode::Archive,
        (false, false) if clean && known.state == ClusterState::Shutdowned => Mode::Clean,
        (false, false) => Mode::Crash,
    };
    log_state(&known);
    let receives = matches!(mode, Mode::Standby | Mode::Archive);
    let archive = Archive { dir, commands: &recovery.commands, segment_bytes: known.segment_bytes, standby };
    if mode == Mode::Archive && recovery.commands.restore.is_empty() {
        return Err(RecoveryError::NoRestoreCommand);
    }
    let files = Arc::new(Files::new(Arc::clone(disk), dir));
    files.remove_temporary()?;
    if !clean {
        heal(disk, dir, &known, &files, label.is_some())?;
    }
    let (checkpoint_at, tli) = match &label {
        Some(label) => (label.checkpoint_lsn, label.tli),
        None => (known.checkpoint, known.checkpoint_copy.tli),
    };
    let wal_dir = dir.join("pg_wal");
    let target = match (mode, promotion) {
        (_, Some(promotion)) => promotion.to,
        (Mode::Standby | Mode::Archive, None) => match recovery.goal.timeline {
            TimelineGoal::Current => tli.max(known.min_recovery_tli),
            TimelineGoal::Latest => archive.newest(disk.as_ref(), tli.max(known.min_recovery_tli))?,
            TimelineGoal::Id(wanted) => {
                let known = wanted == TimelineId::FIRST
                    || wanted == tli
                    || History::read(disk.as_ref(), &wal_dir, wanted)?.is_some()
                    || archive.fetch_history(wanted)?;
                if known { wanted } else { return Err(RecoveryError::NoSuchTimeline(wanted)) }
            }
        },
        // Its own WAL goes on where the newest of its records is: a crash may lie between a promotion and the checkpoint after it.
        (Mode::Clean | Mode::Crash, None) => tli.max(known.min_recovery_tli),
    };
    let history = history_of(disk.as_ref(), &wal_dir, target, tli)?;
    let not_a_child = |at, tli| RecoveryError::NotAChild { wanted: target, at, tli };
    if history.tli_at(checkpoint_at) != tli {
        return Err(not_a_child(checkpoint_at, tli));
    }
    if known.min_recovery_point.is_valid() && history.tli_of_end(known.min_recovery_point) != known.min_recovery_tli {
        return Err(not_a_child(known.min_recovery_point, known.min_recovery_tli));
    }

    let open = |from| WalReader::open(Arc::clone(disk), &wal_dir, known.system_id, known.segment_bytes, history.clone(), from);
    if receives {
        let redo = label.as_ref().map_or(known.checkpoint_copy.redo, |label| label.start_lsn);
        archive.fetch_segments(&history, redo, checkpoint_at)?;
    }
    let (checkpoint, checkpoint_end) = read_checkpoint(open(checkpoint_at), checkpoint_at)?;
    let known = unlink_dropped(control, &files, &history, &checkpoint, mode)?;
    let mut consistency = consistency_of(&known, label.as_ref(), &checkpoint);
    let mut given_up = None;

    // To the end, verifying; redo comes after, over WAL that is then known to be durable.
    let mark = FlushedMark::read(disk.as_ref(), &wal_dir)?;
    let own_starts: Vec<StartId> = if label.is_some() { Vec::new() } else { known.starts() };
    let mut reader = open(checkpoint.redo);
    reader.trust_marks_of(&own_starts);
    if let Some(mark) = mark.filter(|m| m.system_id == known.system_id && label.is_none() && m.tli == target) {
        reader.trust_durable(mark.flushed);
    }
    let (end, stop) = reader.read_to_end();
    let evidence =
        Evidence { flushed_mark: mark.filter(|_| label.is_none()), consistent: consistency.min_recovery.max(checkpoint_end), own_starts };
    match judge(disk, &wal_dir, known.system_id, known.segment_bytes, &stop, &evidence)? {
        Verdict::EndOfWal => {}
        // A node without the WAL its pages need may still get it from upstream or archive.
        Verdict::Damage { .. } if receives && end.end >= checkpoint_end => {
            tracing::info!("local WAL ends at {}: {}; the rest will be asked for again", end.end, stop.reason);
        }
        Verdict::Damage { proof } if recovery.ignore_wal_damage && mode == Mode::Crash => {
            tracing::warn!("WAL is damaged: {stop}; {proof}");
            tracing::warn!("WAL from {} on is given up, and with it all that was committed there", end.end);
            given_up = Some(proof.durable());
            consistency.min_recovery = consistency.min_recovery.min(end.end);
        }
        Verdict::Damage { proof } => return Err(RecoveryError::Damage { stop, proof }),
        Verdict::Foreign | Verdict::Unreadable => return Err(RecoveryError::Unreadable { stop }),
    }
    if mode != Mode::Clean {
        tracing::debug!("local WAL ends at {}: {}", end.end, stop.reason);
    }
    // What came ahead of the upstream's sync is replayed only as far as something proves that the upstream made it durable: it said so, pages that were
    // written, or what the writer itself had synced when it wrote what follows.
    let ahead_from = label.as_ref().map_or(known.ahead_from, |label| ahead_from(label, consistency.min_recovery));
    let bound = if mode == Mode::Standby && ahead_from.is_valid() {
        let said = mark.filter(|m| m.system_id == known.system_id && label.is_none()).map_or(Lsn::INVALID, |m| m.confirmed());
        [said, consistency.min_recovery, checkpoint_end, reader.writers_mark()].into_iter().fold(ahead_from, Lsn::max)
    } else {
        Lsn::MAX
    };
    if let Some(label) = &label {
        let min_recovery = (consistency.min_recovery, history.tli_of_end(consistency.min_recovery));
        adopt_label(control, label, &checkpoint, min_recovery, checkpoint_at)?;
        if mode == Mode::Standby && !recovery.commands.archive_always {
            mark_copied(disk.as_ref(), dir, SegNo::of(end.end, known.segment_bytes), known.segment_bytes)?;
        }
        let rename = |source| RecoveryError::File { path: backup_label::FILE.to_owned(), source };
        // The control file says all that the label said: from here a restart needs only that.
        durable_rename(disk.as_ref(), &dir.join(backup_label::FILE), &dir.join(backup_label::OLD_FILE)).map_err(rename)?;
    }
    let options = WalOptions { segment_bytes: known.segment_bytes, ..options.clone() };
    // A node that receives goes over to the next timeline where its own ends, and not before.
    let goal = history;
    let (end, history) = if receives {
        let tli = goal.tli_of_end(end.end);
        (WalEnd { tli, ..end }, goal.up_to(tli).unwrap_or_else(|| goal.clone()))
    } else {
        (end, goal.clone())
    };
    let crosses = matches!(stop.reason, StopReason::SegmentMissing { .. } | StopReason::SegmentHeader { .. });
    let torn = (crosses && reader.wanted() > end.end).then_some(end.end);
    let wal = Wal::open_held(Arc::clone(disk), &wal_dir, known.system_id, end, bound, options)?;
    if let Some(from) = wal.held_from() {
        let upto = end.end;
        tracing::info!("WAL from {from} to {upto} is replayed once the primary confirms it, or when this standby is promoted");
    }
    let stopped_in_recovery = clean && known.state == ClusterState::ShutdownedInRecovery;
    Ok(Start {
        mode,
        wal,
        end,
        history,
        goal,
        checkpoint,
        checkpoint_end,
        consistency,
        promotion,
        files,
        stopped_in_recovery,
        given_up,
        torn,
    })
}

/// Segments before `current` that a standby's backup brought with it are archived by whoever made them: not by this node, once it is promoted.
fn mark_copied(disk: &dyn Disk, dir: &Path, current: SegNo, segment_bytes: u32) -> Result<(), RecoveryError> {
    let status_dir = dir.join("pg_wal/archive_status");
    let fail = |source| RecoveryError::File { path: "pg_wal/archive_status".to_owned(), source };
    for name in disk.list(&dir.join("pg_wal")).map_err(fail)? {
        let whole = afterimage_wal::segment::parse_file_name(&name, segment_bytes).is_some_and(|(_, segno)| segno < current);
        let known = |status: &str| disk.exists(&status_dir.join(format!("{name}.{status}"))).map_err(fail);
        if whole && !known("ready")? && !known("done")? {
            disk.open(&status_dir.join(format!("{name}.done")), Open::Truncate).map_err(fail)?;
        }
    }
    Ok(())
}

/// The archive, while there is no receiver yet.
struct Archive<'a> {
    dir: &'a Path,
    commands: &'a Commands,
    segment_bytes: u32,
    standby: bool,
}

impl Archive<'_> {
    fn fetch_history(&self, tli: TimelineId) -> Result<bool, RecoveryError> {
        if self.commands.restore.is_empty() {
            return Ok(false);
        }
        restore::fetch_history(self.dir, self.commands, tli)
    }

    /// The newest timeline from `from` on, here or in the archive. PostgreSQL: `findNewestTimeLine`.
    fn newest(&self, disk: &dyn Disk, from: TimelineId) -> Result<TimelineId, RecoveryError> {
        let mut newest = History::newest(disk, &self.dir.join("pg_wal"), from)?;
        while self.fetch_history(newest.next())? {
            newest = newest.next();
        }
        Ok(newest)
    }

    /// Fetches the segments that hold the first records of recovery, unless they are here.
    fn fetch_segments(&self, history: &History, redo: Lsn, checkpoint: Lsn) -> Result<(), RecoveryError> {
        if self.commands.restore.is_empty() {
            return Ok(());
        }
        let restart = restore::restart_file(redo, history.tli_at(redo), self.segment_bytes);
        let (first, last) = (SegNo::of(redo, self.segment_bytes), SegNo::of(checkpoint, self.segment_bytes));
        let mut segno = first;
        while segno <= last {
            let names = segment_names(history, segno, self.segment_bytes);
            if !names.iter().any(|name| self.dir.join("pg_wal").join(name).exists()) {
                for name in &names {
                    if restore::fetch_segment(self.dir, self.commands, name, self.segment_bytes, &restart, self.standby)? {
                        break;
                    }
                }
            }
            segno = segno.next();
        }
        Ok(())
    }
}

/// Files that may hold a segment of a history, newest timeline first: a child's first segment holds its parent's bytes too.
pub fn segment_names(history: &History, segno: SegNo, segment_bytes: u32) -> Vec<String> {
    let (start, end) = (segno.start_lsn(segment_bytes), segno.end_lsn(segment_bytes));
    let timelines = history.ancestors().iter().map(|a| a.tli).chain([history.tli()]);
    let mut names: Vec<String> = timelines
        .filter(|&tli| history.begin_of(tli).is_some_and(|begin| begin < end) && history.end_of(tli).is_some_and(|upto| upto > start))
        .map(|tli| afterimage_wal::segment::file_name(tli, segno, segment_bytes))
        .collect();
    names.reverse();
    names
}

/// As PostgreSQL's log shows a time of the control file.
fn wall_time(unix: i64) -> String {
    jiff::Timestamp::from_second(unix).map_or_else(|_| unix.to_string(), |t| t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

fn log_state(known: &ControlFile) {
    let at = wall_time(known.time);
    match known.state {
        ClusterState::Shutdowned => tracing::info!("database system was shut down at {at}"),
        ClusterState::ShutdownedInRecovery => tracing::info!("database system was shut down in recovery at {at}"),
        ClusterState::ShuttingDown => tracing::info!("database system shutdown was interrupted; last known up at {at}"),
        ClusterState::InCrashRecovery => tracing::info!(
            hint = "This probably means that some data is corrupted and you will have to use the last backup for recovery.",
            "database system was interrupted while in recovery at {at}"
        ),
        ClusterState::InArchiveRecovery => {
            tracing::info!("database system was interrupted while in recovery at log time {at}");
        }
        ClusterState::InProduction => tracing::info!("database system was interrupted; last known up at {at}"),
        ClusterState::Startup => tracing::info!("database system was interrupted while starting up"),
    }
}

fn heal(disk: &Arc<dyn Disk>, dir: &Path, known: &ControlFile, files: &Files, backup: bool) -> Result<(), RecoveryError> {
    if !backup {
        let restored = double_write::restore(disk.as_ref(), dir, known.system_id, files)?;
        for tag in &restored.healed {
            let path = files.relative_path(tag.rel, tag.fork, 0);
            tracing::info!("restored torn page {} of relation {path} from the double-write area", tag.block);
        }
    }
    unlogged::clear(files)?;
    // What the page cache has proves nothing about the disk.
    files.sync_everything()?;
    Ok(())
}

/// Unlinks what was dropped before the stop. Redo may still meet records of these relations; the commits that dropped them explain the
/// missing blocks, so a standby is not consistent before the last of those: the control file says so before any file goes.
fn unlink_dropped(
    control: &ControlStore,
    files: &Files,
    history: &History,
    checkpoint: &Checkpoint,
    mode: Mode,
) -> Result<ControlFile, RecoveryError> {
    let drops = read_pending_drops(files);
    let last = drops.iter().map(|d| d.commit_lsn).max().filter(|lsn| *lsn > checkpoint.redo);
    if let Some(upto) = last
        && matches!(mode, Mode::Standby | Mode::Archive)
    {
        control.update(|c| {
            if c.min_recovery_point < upto {
                c.min_recovery_point = upto;
                c.min_recovery_tli = history.tli_of_end(upto);
            }
        })?;
    }
    for drop in drops {
        if drop.rel.is_database() {
            files.schedule_drop(&[drop.rel], drop.commit_lsn);
        } else if let Err(error) = files.unlink(drop.rel) {
            tracing::warn!("{error}");
            files.could_not_drop(drop);
        }
    }
    Ok(control.get())
}

/// The history that leads to `target`; a timeline without a file has no ancestors that matter.
fn history_of(disk: &dyn Disk, wal_dir: &Path, target: TimelineId, own: TimelineId) -> Result<History, RecoveryError> {
    if target == TimelineId::FIRST {
        return Ok(History::first());
    }
    match History::read(disk, wal_dir, target)? {
        Some(history) => Ok(history),
        None if target == own => Ok(History::alone(target)),
        None => Err(RecoveryError::File { path: format!("pg_wal/{}", History::file_name(target)), source: io::ErrorKind::NotFound.into() }),
    }
}

/// A backup in tar format says in `tablespace_map` where its tablespaces were unpacked.
fn link_tablespaces(disk: &dyn Disk, dir: &Path) -> Result<(), RecoveryError> {
    let Some(text) = read_text(disk, dir, backup_label::MAP_FILE)? else { return Ok(()) };
    let bad = |what| RecoveryError::BadFile { path: backup_label::MAP_FILE.to_owned(), what };
    for (oid, location) in backup_label::parse_map(&text).map_err(bad)? {
        let name = format!("pg_tblspc/{oid}");
        let link = dir.join(&name);
        let fail = |source| RecoveryError::File { path: name.clone(), source };
        if disk.read_link(&link).map_err(fail)?.is_some() {
            disk.remove(&link).map_err(fail)?;
        } else if disk.exists(&link).map_err(fail)? {
            disk.remove_dir_all(&link).map_err(fail)?;
        }
        disk.link_dir(Path::new(&location), &link).map_err(fail)?;
    }
    let (from, to) = (dir.join(backup_label::MAP_FILE), dir.join(backup_label::OLD_MAP_FILE));
    durable_rename(disk, &from, &to).map_err(|source| RecoveryError::File { path: backup_label::MAP_FILE.to_owned(), source })
}

fn read_checkpoint(mut reader: WalReader, at: Lsn) -> Result<(Checkpoint, Lsn), RecoveryError> {
    let missing = |found: String| RecoveryError::NoCheckpoint { at, found };
    let record = reader.next().map_err(|stop| missing(stop.reason.to_string()))?.ok_or_else(|| missing("nothing".to_owned()))?;
    let is_checkpoint =
        record.rmgr() == rmgr::XLOG && matches!(record.kind(), rmgr::xlog::CHECKPOINT_ONLINE | rmgr::xlog::CHECKPOINT_SHUTDOWN);
    if !is_checkpoint || record.start() != at {
        return Err(missing("another record".to_owned()));
    }
    let checkpoint = Checkpoint::decode(record.main()).ok_or_else(|| missing("a malformed checkpoint".to_owned()))?;
    Ok((checkpoint, record.end()))
}

fn consistency_of(known: &ControlFile, label: Option<&BackupLabel>, checkpoint: &Checkpoint) -> Consistency {
    let mut consistency = Consistency { min_recovery: known.min_recovery_point, ..Consistency::default() };
    match label {
        Some(label) => {
            if label.from_standby {
                consistency.min_recovery = known.min_recovery_point.max(checkpoint.redo).max(label.end_lsn.unwrap_or(Lsn::INVALID));
            } else {
                consistency.min_recovery = known.min_recovery_point.max(checkpoint.redo);
                consistency.backup_start = label.needs_end.then_some(checkpoint.redo);
            }
        }
        None => {
            if known.backup_end_required && known.backup_start.is_valid() {
                consistency.backup_start = Some(known.backup_start);
            }
            consistency.min_recovery = consistency.min_recovery.max(known.backup_end);
        }
    }
    consistency
}

/// The copy of a standby's last segment may go on behind what was confirmed there.
fn ahead_from(label: &BackupLabel, min_recovery: Lsn) -> Lsn {
    if label.from_standby { min_recovery } else { Lsn::INVALID }
}

fn adopt_label(
    control: &ControlStore,
    label: &BackupLabel,
    checkpoint: &Checkpoint,
    (min_recovery, min_recovery_tli): (Lsn, TimelineId),
    at: Lsn,
) -> Result<(), WalError> {
    control.update(|c| {
        c.state = ClusterState::InArchiveRecovery;
        c.checkpoint = at;
        c.checkpoint_copy = *checkpoint;
        c.min_recovery_point = min_recovery;
        c.min_recovery_tli = min_recovery_tli;
        c.own_starts = Default::default();
        c.ahead_from = ahead_from(label, min_recovery);
        if label.from_standby {
            c.backup_end = min_recovery;
        } else {
            c.backup_start = checkpoint.redo;
            c.backup_end_required = label.needs_end;
        }
    })
}
