//! The rewind itself: decide, mark, remove, copy, sync, unmark.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use afterimage_wal::control_file::{ClusterState, ControlFile};
use afterimage_wal::disk::{RealDisk, durable_replace};
use afterimage_wal::history::History;
use afterimage_wal::ids::{BlockNo, Fork, Lsn, RelId, SegNo, StartId, TimelineId};
use afterimage_wal::lineage::{Claim, Shared};
use afterimage_wal::segment;

use super::super::archive;
use super::error::RewindError;
use super::files::{BlockSet, Class, Entry, Listing, SEGMENT_BLOCKS, classify, list_local, sync_tree};
use super::marker::{self, Marker};
use super::source::{self, CONTROL, Source, read_fully};
use crate::control::pid_file::{LockError, LockFile, PID_FILE, PidFile, first_lines};
use crate::recovery::backup_label;
use crate::storage::{PAGE_SIZE, Page};

/// Bytes asked for at a time.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK_BLOCKS: u32 = 128;
/// Page LSNs asked for at a time: 128 MB of a file.
const COMPARE_BLOCKS: u32 = 1 << 14;
/// A page being written when it was read verifies at the next try; one that never does is damaged.
const READ_TRIES: usize = 50;
/// After so many bytes of files the WAL made meanwhile is fetched, before the source can recycle it.
const WAL_EVERY_BYTES: u64 = 64 << 20;

/// What to do.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Data directory to rewind.
    pub target: PathBuf,
    /// Stop before changing anything.
    pub dry_run: bool,
    /// Make the result durable.
    pub sync: bool,
    /// `restore_command` of the target, to look for a history file that is no longer in its `pg_wal`.
    pub restore_command: Option<String>,
    /// Lines to append to `postgresql.auto.conf`, with `standby.signal`.
    pub recovery_conf: Option<String>,
}

/// A moment of a rewind after which a crash finds something else on disk than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The marker is there.
    Marked,
    /// A file or directory was removed.
    Removed(&'a str),
    /// A directory was made.
    Made(&'a str),
    /// Some bytes of a file were written.
    Wrote(&'a str),
    /// Everything copied is durable.
    Synced,
    /// `backup_label` is there.
    Labelled,
    /// The settings of `-R` are there.
    Configured,
    /// The new control file is there.
    Controlled,
    /// The marker is gone.
    Unmarked,
}

/// Told what happens.
pub trait Observer: Send {
    /// A line every user sees.
    fn info(&mut self, text: &str);
    /// A line for those who ask for details.
    fn debug(&mut self, text: &str);
    /// A line for those who watch the progress.
    fn phase(&mut self, text: &str);
    /// Bytes of those to copy that are copied.
    fn progress(&mut self, done: u64, total: u64);
    /// Something changed on disk. An error ends the rewind there, as a crash would.
    ///
    /// # Errors
    /// Whatever it likes.
    fn step(&mut self, step: Step<'_>) -> Result<(), RewindError>;
}

/// Says nothing.
#[derive(Debug, Default)]
pub struct Quiet;

impl Observer for Quiet {
    fn info(&mut self, _text: &str) {}
    fn debug(&mut self, _text: &str) {}
    fn phase(&mut self, _text: &str) {}
    fn progress(&mut self, _done: u64, _total: u64) {}
    fn step(&mut self, _step: Step<'_>) -> Result<(), RewindError> {
        Ok(())
    }
}

/// What a rewind came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// False: the target's history leads to the source's as it is.
    pub needed: bool,
    /// Where they parted.
    pub fork: Lsn,
    /// Bytes copied, or with `dry_run` to copy.
    pub bytes: u64,
    /// Size of the source's files.
    pub source_bytes: u64,
}

/// One file to bring over.
struct Job {
    path: String,
    /// As listed.
    size: u64,
    what: What,
}

enum What {
    Whole,
    Blocks { rel: RelId, fork: Fork, segment: u32, set: BlockSet },
}

impl Job {
    fn bytes(&self) -> u64 {
        match &self.what {
            What::Whole => self.size,
            What::Blocks { set, .. } => set.len() * page_bytes(),
        }
    }
}

fn page_bytes() -> u64 {
    u64::try_from(PAGE_SIZE).unwrap_or(u64::MAX)
}

/// Rewinds. See the module for the steps.
///
/// # Errors
/// [`RewindError`]; once the marker is there the target does not start until a later run succeeds.
pub async fn run(options: &Options, source: &mut Source, observer: &mut dyn Observer) -> Result<Outcome, RewindError> {
    let target = &options.target;
    let path = target.join(CONTROL);
    let bytes = fs::read(&path).map_err(RewindError::io("open file", &path))?;
    let target_control = source::decode_control(&bytes)?;
    let _lock = lock(options)?;
    if source.is_live() && !options.dry_run {
        source.checkpoint().await?;
    }
    let control = source.control().await?;
    if control.system_id != target_control.system_id {
        return Err(RewindError::OtherSystem);
    }
    if control.catalog_version != target_control.catalog_version || control.segment_bytes != target_control.segment_bytes {
        return Err(RewindError::OtherVersion);
    }
    if !source.is_live() && !matches!(control.state, ClusterState::Shutdowned | ClusterState::ShutdownedInRecovery) {
        return Err(RewindError::SourceRuns);
    }
    let Some(marker) = decide(options, source, &target_control, &control, observer).await? else {
        observer.info("no rewind required");
        if let Some(lines) = options.recovery_conf.as_deref().filter(|_| !options.dry_run) {
            write_recovery_conf(target, lines)?;
            observer.step(Step::Configured)?;
        }
        return Ok(Outcome::default());
    };
    observer
        .info(&format!("rewinding; recovery will start at {} on timeline {}", control.checkpoint_copy.redo, control.checkpoint_copy.tli));
    let mut rewind =
        Rewind { target, source, observer, control, marker, file_mode: file_mode(target)?, next_segment: 0, done: 0, total: 0, wal_due: 0 };
    rewind.run(options).await
}

/// Keeps a server, or another rewind, from using the target meanwhile.
fn lock(options: &Options) -> Result<Option<LockFile>, RewindError> {
    let path = options.target.join(PID_FILE);
    let runs = |detail: String| RewindError::TargetRuns { detail };
    if options.dry_run {
        let found = PidFile::read(&path).map_err(RewindError::io("read file", &path))?;
        return match found.filter(PidFile::is_alive) {
            Some(file) => Err(runs(format!("A server (PID {}) runs in data directory \"{}\".", file.pid, options.target.display()))),
            None => Ok(None),
        };
    }
    let dir = std::path::absolute(&options.target).unwrap_or_else(|_| options.target.clone());
    let text = first_lines(std::process::id(), &dir, jiff::Timestamp::now().as_second(), 0);
    let mode = file_mode(&options.target)?;
    match LockFile::create(&path, PID_FILE, &dir.display().to_string(), false, &text, mode, &[]) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Io { source, .. }) => Err(RewindError::Io { what: "create lock file", path, source }),
        Err(error @ (LockError::Exists { .. } | LockError::Empty(_))) => {
            Err(runs(format!("{error}. {}", error.hint().unwrap_or_default())))
        }
    }
}

/// Mode of new files, from the permissions of the data directory.
fn file_mode(dir: &Path) -> Result<u32, RewindError> {
    let meta = fs::metadata(dir).map_err(RewindError::io("read permissions of directory", dir))?;
    Ok(if meta.mode() & 0o040 != 0 { 0o640 } else { 0o600 })
}

/// The timeline a node's WAL ends on.
fn last_timeline(control: &ControlFile) -> TimelineId {
    control.checkpoint_copy.tli.max(control.min_recovery_tli)
}

/// Finds the fork; `None`: the target can follow the source as it is.
async fn decide(
    options: &Options,
    source: &mut Source,
    target_control: &ControlFile,
    control: &ControlFile,
    observer: &mut dyn Observer,
) -> Result<Option<Marker>, RewindError> {
    let source_tli = match source {
        Source::Directory(_) => last_timeline(control),
        Source::Server(_) => source.end_position(control).await?.1,
    };
    let source_history = source.history(source_tli).await?;
    // A run before this one may have replaced the control file already.
    let earlier = Marker::read(&options.target)?;
    let history = match &earlier {
        Some(marker) => marker.history.clone(),
        None => target_history(options, last_timeline(target_control)).await?,
    };
    let (tli, fork) = history.common_ancestor(&source_history).ok_or(RewindError::NoAncestor)?;
    if let Some(earlier) = earlier {
        // What a former source brought in is shared with this one only as far as their own fork, which is never below the lesser of both.
        let fork = fork.min(earlier.fork);
        observer.info(&format!("an earlier rewind did not finish; servers diverged at WAL location {fork} on timeline {tli}"));
        return Ok(Some(Marker { fork, ..earlier }));
    }
    let side = Side { dir: &options.target, control: target_control, history: &history };
    let shared = shared_upto(source, control, &source_history, &side, (tli, fork)).await?;
    if fork == Lsn::MAX {
        observer.info("source and target cluster are on the same timeline");
        if shared.is_none() {
            return Ok(None);
        }
    }
    let fork = shared.unwrap_or(fork);
    if fork.is_valid() {
        observer.info(&format!("servers diverged at WAL location {fork} on timeline {}", history.tli_of_end(fork)));
    } else {
        observer.info("the WAL that is left does not tell where servers diverged: everything is copied");
    }
    let clean = matches!(target_control.state, ClusterState::Shutdowned | ClusterState::ShutdownedInRecovery);
    let checkpoint_end = source::checkpoint_end(&options.target, target_control)?;
    // Without the record, or after a crash, how far the target went is not known: then it is rewound.
    if clean && checkpoint_end.is_some_and(|end| end.max(target_control.min_recovery_point) <= fork) {
        return Ok(None);
    }
    let wal_kept = fork.min(target_control.checkpoint);
    Ok(Some(Marker { fork, wal_kept, history }))
}

/// A stopped directory.
struct Side<'a> {
    dir: &'a Path,
    control: &'a ControlFile,
    history: &'a History,
}

/// Up to where both hold the same WAL, which is `fork` or, if a node lost a tail that the other had, below it. `None`: all the target has is
/// the source's too, or all there is is the source's beginning. [`Lsn::INVALID`]: what is left of the WAL does not tell.
///
/// Timelines alone do not say it: a primary that lost its tail goes on under the same timeline. Start ids do, see [`afterimage_wal::lineage`].
async fn shared_upto(
    source: &mut Source,
    control: &ControlFile,
    source_history: &History,
    target: &Side<'_>,
    (tli, fork): (TimelineId, Lsn),
) -> Result<Option<Lsn>, RewindError> {
    let end = source::wal_end(target.dir, target.control, target.history);
    let left = source_history.ancestors().iter().find(|a| a.tli == tli && a.switch_lsn == fork && a.start_id != StartId::NONE);
    if let Some(left) = left {
        // The target wrote on under the very start the source left, and was not started again since.
        if target.control.own_starts[0] == left.start_id {
            return Ok(Some(fork));
        }
        if let Some(end) = &end {
            let claim = Claim { end: fork, start_id: left.start_id, last_crc: 0 };
            match source::compare_local(target.dir, target.control, target.history, &claim, end.end)? {
                Shared::All | Shared::Ahead => return Ok(Some(fork)),
                Shared::UpTo(lsn) => return Ok(Some(lsn.min(fork))),
                Shared::Foreign | Shared::Unknown => {}
            }
        }
    }
    let Some(end) = end else {
        // On one timeline PostgreSQL asks no further.
        return Ok((fork != Lsn::MAX).then_some(Lsn::INVALID));
    };
    // The end of the target's WAL, then the ends of the starts before: the newest that the source knows says it.
    let mut claims = vec![Claim { end: end.end, start_id: end.start_id, last_crc: end.last_crc }];
    let starts = source::starts_of(target.dir, target.control, target.history, end.end);
    claims.extend(starts.iter().rev().map(|s| Claim { end: s.at, start_id: s.previous, last_crc: 0 }));
    for (i, claim) in claims.iter().enumerate() {
        match source.compare(claim, control, source_history).await? {
            Shared::All | Shared::Ahead if i == 0 && fork == Lsn::MAX => return Ok(None),
            Shared::All | Shared::Ahead => return Ok(Some(claim.end.min(fork))),
            Shared::UpTo(lsn) => return Ok(Some(lsn.min(fork))),
            Shared::Foreign => {}
            Shared::Unknown => break,
        }
    }
    Ok(Some(Lsn::INVALID))
}

async fn target_history(options: &Options, tli: TimelineId) -> Result<History, RewindError> {
    let wal_dir = options.target.join("pg_wal");
    if let Some(history) = History::read(&RealDisk, &wal_dir, tli)? {
        return Ok(history);
    }
    if let Some(command) = &options.restore_command {
        let name = History::file_name(tli);
        if let Some(bytes) = archive::fetch_one(&options.target, command, &name).await {
            return source::parse_history(tli, name, &bytes);
        }
    }
    Ok(History::alone(tli))
}

/// Appends to `postgresql.auto.conf` and makes `standby.signal`.
///
/// # Errors
/// I/O.
pub fn write_recovery_conf(dir: &Path, lines: &str) -> Result<(), RewindError> {
    let mode = file_mode(dir)?;
    let path = dir.join("postgresql.auto.conf");
    let mut text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(RewindError::Io { what: "read file", path, source }),
    };
    text.push_str(lines);
    durable_replace(&RealDisk, &path, text.as_bytes()).map_err(RewindError::io("write file", &path))?;
    let path = dir.join(crate::recovery::start::STANDBY_SIGNAL);
    let made = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&path);
    made.and_then(|f| f.sync_all()).map_err(RewindError::io("create file", path))
}

struct Rewind<'a> {
    target: &'a Path,
    source: &'a mut Source,
    observer: &'a mut dyn Observer,
    /// The source's, read before any file.
    control: ControlFile,
    marker: Marker,
    file_mode: u32,
    /// WAL before this segment is there.
    next_segment: u64,
    done: u64,
    total: u64,
    wal_due: u64,
}

impl Rewind<'_> {
    async fn run(&mut self, options: &Options) -> Result<Outcome, RewindError> {
        self.observer.phase("reading source file list");
        let theirs = self.source.list().await?;
        self.observer.phase("reading target file list");
        let ours = list_local(self.target)?;
        self.observer.phase("comparing pages");
        let jobs = self.compare(&theirs, &ours).await?;
        self.total = jobs.iter().map(Job::bytes).sum();
        let source_bytes =
            theirs.iter().filter(|(p, _)| !p.starts_with("pg_wal/")).map(|(_, e)| if let Entry::File(n) = e { *n } else { 0 }).sum();
        self.observer.phase(&format!("need to copy {} MB (total source directory size is {} MB)", self.total >> 20, source_bytes >> 20));
        let outcome = Outcome { needed: true, fork: self.marker.fork, bytes: self.total, source_bytes };
        if options.dry_run {
            for path in self.doomed(&theirs, &ours) {
                self.observer.debug(&format!("{path} (REMOVE)"));
            }
            for job in &jobs {
                self.observer.debug(&format!("{} (COPY, {} bytes)", job.path, job.bytes()));
            }
            return Ok(outcome);
        }

        // Durable before the first change: what follows can be cut off anywhere.
        self.marker.write(self.target)?;
        self.observer.step(Step::Marked)?;
        self.next_segment = self.segment_of(self.control.checkpoint_copy.redo);
        for path in self.doomed(&theirs, &ours) {
            self.remove(&path, ours.get(&path))?;
        }
        for (path, location) in self.source.links(&theirs).await? {
            self.make_link(&path, &location)?;
        }
        for (path, _) in theirs.iter().filter(|(path, e)| **e == Entry::Directory && classify(path, &theirs) == Class::Whole) {
            self.make_directory(path)?;
        }
        self.make_directory("pg_wal/archive_status")?;
        for job in &jobs {
            if self.wal_due >= WAL_EVERY_BYTES {
                self.wal_due = 0;
                self.copy_wal(false).await?;
            }
            self.copy(job).await?;
        }
        // The position is asked for after the last file was read: it lies beyond every LSN and hint LSN in them.
        let (end, end_tli) = self.copy_wal(true).await?;
        self.observer.phase("syncing target data directory");
        if options.sync {
            sync_tree(self.target)?;
        }
        self.observer.step(Step::Synced)?;

        self.write_label()?;
        self.observer.step(Step::Labelled)?;
        if let Some(lines) = &options.recovery_conf {
            write_recovery_conf(self.target, lines)?;
            self.observer.step(Step::Configured)?;
        }
        let mut control = self.control.clone();
        control.state = ClusterState::InArchiveRecovery;
        control.min_recovery_point = end;
        control.min_recovery_tli = end_tli;
        control.backup_start = Lsn::INVALID;
        control.backup_end = Lsn::INVALID;
        control.backup_end_required = false;
        control.own_starts = Default::default();
        control.ahead_from = Lsn::INVALID;
        control.write(&RealDisk, self.target)?;
        self.observer.step(Step::Controlled)?;
        let path = self.target.join(marker::FILE);
        fs::remove_file(&path).map_err(RewindError::io("remove file", &path))?;
        fs::File::open(self.target).and_then(|d| d.sync_all()).map_err(RewindError::io("fsync file", self.target))?;
        self.observer.step(Step::Unmarked)?;
        Ok(outcome)
    }

    fn segment_of(&self, lsn: Lsn) -> u64 {
        lsn.as_u64() / u64::from(self.control.segment_bytes)
    }

    /// What to copy of each file of the source.
    async fn compare(&mut self, theirs: &Listing, ours: &Listing) -> Result<Vec<Job>, RewindError> {
        let mut jobs = Vec::new();
        for (path, entry) in theirs {
            let Entry::File(size) = *entry else { continue };
            match classify(path, theirs) {
                Class::Skipped | Class::Own => {}
                Class::Whole => jobs.push(Job { path: path.clone(), size, what: What::Whole }),
                Class::Pages { rel, fork, segment } => {
                    let blocks = u32::try_from(size / page_bytes()).unwrap_or(u32::MAX).min(SEGMENT_BLOCKS);
                    // Free space maps are not logged: their LSNs say nothing.
                    let shared = fork != Fork::Fsm && matches!(ours.get(path), Some(Entry::File(_)));
                    let set = if shared { self.differing(path, rel, fork, segment, blocks).await? } else { BlockSet::all(blocks) };
                    let size = u64::from(blocks) * page_bytes();
                    if !set.is_empty() || ours.get(path) != Some(&Entry::File(size)) {
                        jobs.push(Job { path: path.clone(), size, what: What::Blocks { rel, fork, segment, set } });
                    }
                }
            }
        }
        Ok(jobs)
    }

    /// The blocks of a file both sides have that must be copied.
    async fn differing(&mut self, path: &str, rel: RelId, fork: Fork, segment: u32, blocks: u32) -> Result<BlockSet, RewindError> {
        let local = self.target.join(path);
        let file = fs::File::open(&local).map_err(RewindError::io("open file", &local))?;
        let mut set = BlockSet::default();
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut page = Page::zeroed();
        for first in (0..blocks).step_by(usize::try_from(COMPARE_BLOCKS).unwrap_or(usize::MAX)) {
            let count = (blocks - first).min(COMPARE_BLOCKS);
            // Gone meanwhile: its drop is in the WAL, and copying says so.
            let lsns = self.source.page_lsns(path, first, count).await?.unwrap_or_default();
            for part in (0..count).step_by(usize::try_from(CHUNK_BLOCKS).unwrap_or(usize::MAX)) {
                let at = first + part;
                let want = usize::try_from((count - part).min(CHUNK_BLOCKS)).unwrap_or(0);
                let got = read_fully(&file, &mut buffer[..want * PAGE_SIZE], u64::from(at) * page_bytes())
                    .map_err(RewindError::io("read file", &local))?;
                for i in 0..want {
                    let block = at + u32::try_from(i).unwrap_or(u32::MAX);
                    let theirs = lsns.get(usize::try_from(block - first).unwrap_or(usize::MAX)).copied();
                    let same = got >= (i + 1) * PAGE_SIZE
                        && theirs.is_some_and(|theirs| {
                            page.bytes_mut().copy_from_slice(&buffer[i * PAGE_SIZE..(i + 1) * PAGE_SIZE]);
                            is_shared(&page, theirs, self.marker.fork, rel, fork, segment * SEGMENT_BLOCKS + block)
                        });
                    if !same {
                        set.insert(block);
                    }
                }
            }
        }
        Ok(set)
    }

    /// What only the target has, deepest first.
    fn doomed(&mut self, theirs: &Listing, ours: &Listing) -> Vec<String> {
        let mut doomed = Vec::new();
        for (path, entry) in ours.iter().rev() {
            let goes = match classify(path, ours) {
                Class::Own if path.starts_with("pg_wal/") => *entry != Entry::Directory && !self.keeps_wal(path, theirs),
                Class::Own => false,
                Class::Skipped => true,
                Class::Whole | Class::Pages { .. } => match (theirs.get(path), entry) {
                    (Some(Entry::File(_)), Entry::File(_)) => classify(path, theirs) == Class::Skipped,
                    (Some(Entry::Directory), Entry::Directory) => false,
                    _ => true,
                },
            };
            if goes {
                doomed.push(path.clone());
            }
        }
        doomed
    }

    /// Whether a file below the target's `pg_wal` stays: segments of the shared history, and what the archiver knows of them.
    fn keeps_wal(&mut self, path: &str, theirs: &Listing) -> bool {
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        let plain = name.trim_end_matches(".ready").trim_end_matches(".done");
        if let Some(tli) = History::parse_file_name(plain) {
            return theirs.contains_key(&format!("pg_wal/{plain}")) && self.marker.history.contains(tli);
        }
        let Some((tli, segno)) = segment::parse_file_name(plain, self.control.segment_bytes) else { return false };
        let size = u64::from(self.control.segment_bytes);
        let Some(end) = segno.get().checked_add(1).and_then(|n| n.checked_mul(size)) else { return false };
        let kept = end <= self.marker.wal_kept.as_u64() && self.marker.history.tli_of_end(Lsn::from_u64(end)) == tli;
        if kept && plain == name {
            self.observer.debug(&format!("Not removing file \"{path}\" because it is required for recovery"));
        }
        kept
    }

    fn remove(&mut self, path: &str, entry: Option<&Entry>) -> Result<(), RewindError> {
        self.observer.debug(&format!("removing \"{path}\""));
        let full = self.target.join(path);
        let link = fs::symlink_metadata(&full).is_ok_and(|m| m.is_symlink());
        let removed = if entry == Some(&Entry::Directory) && !link { fs::remove_dir(&full) } else { fs::remove_file(&full) };
        match removed {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            // Something that is neither file nor directory lies in it.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {
                fs::remove_dir_all(&full).map_err(RewindError::io("remove directory", &full))?;
            }
            other => other.map_err(RewindError::io("remove", &full))?,
        }
        self.observer.step(Step::Removed(path))
    }

    fn make_directory(&mut self, path: &str) -> Result<(), RewindError> {
        let full = self.target.join(path);
        let mode = if self.file_mode == 0o640 { 0o750 } else { 0o700 };
        match fs::DirBuilder::new().mode(mode).create(&full) {
            Ok(()) => self.observer.step(Step::Made(path)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && full.is_dir() => Ok(()),
            Err(source) => Err(RewindError::Io { what: "create directory", path: full, source }),
        }
    }

    /// A tablespace that lies elsewhere: at the same place here.
    fn make_link(&mut self, path: &str, location: &str) -> Result<(), RewindError> {
        let full = self.target.join(path);
        match fs::read_link(&full) {
            Ok(found) if found == Path::new(location) => return Ok(()),
            Ok(_) => fs::remove_file(&full).map_err(RewindError::io("remove", &full))?,
            Err(_) if full.is_dir() => return Ok(()),
            Err(_) => {}
        }
        fs::create_dir_all(location).map_err(RewindError::io("create directory", location))?;
        std::os::unix::fs::symlink(location, &full).map_err(RewindError::io("create link", &full))?;
        self.observer.step(Step::Made(path))
    }

    fn open(&self, path: &str, truncate: bool) -> Result<(PathBuf, fs::File), RewindError> {
        let full = self.target.join(path);
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(truncate).mode(self.file_mode).open(&full);
        let file = file.map_err(RewindError::io("open target file", &full))?;
        Ok((full, file))
    }

    /// The source's file is gone: dropped since it was listed, which the WAL says too.
    fn vanished(&mut self, path: &str) -> Result<(), RewindError> {
        self.observer.debug(&format!("source file \"{path}\" is gone"));
        let full = self.target.join(path);
        match fs::remove_file(&full) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(RewindError::io("remove file", full)),
        }
    }

    fn copied(&mut self, path: &str, bytes: usize) -> Result<(), RewindError> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.done += bytes;
        self.wal_due += bytes;
        self.observer.progress(self.done.min(self.total), self.total);
        self.observer.step(Step::Wrote(path))
    }

    async fn copy(&mut self, job: &Job) -> Result<(), RewindError> {
        self.observer.debug(&format!("copying \"{}\" ({} of {} bytes)", job.path, job.bytes(), job.size));
        match &job.what {
            What::Whole => self.copy_whole(job).await,
            What::Blocks { rel, fork, segment, set } => {
                let (full, file) = self.open(&job.path, false)?;
                file.set_len(job.size).map_err(RewindError::io("truncate file", &full))?;
                for (first, count) in set.runs(CHUNK_BLOCKS) {
                    let tag = (*rel, *fork, segment * SEGMENT_BLOCKS + first);
                    let Some(bytes) = self.read_pages(&job.path, first, count, tag).await? else {
                        return self.vanished(&job.path);
                    };
                    file.write_all_at(&bytes, u64::from(first) * page_bytes()).map_err(RewindError::io("write file", &full))?;
                    self.copied(&job.path, bytes.len())?;
                }
                Ok(())
            }
        }
    }

    /// Reads pages of the source until each verifies: a live server may be writing them.
    async fn read_pages(&mut self, path: &str, first: u32, count: u32, tag: (RelId, Fork, u32)) -> Result<Option<Vec<u8>>, RewindError> {
        let want = usize::try_from(count).unwrap_or(0) * PAGE_SIZE;
        let offset = u64::from(first) * page_bytes();
        let mut bad = None;
        for _ in 0..READ_TRIES {
            let Some(mut bytes) = self.source.read(path, offset, want).await? else { return Ok(None) };
            // Truncated since it was listed: the WAL truncates the copy.
            bytes.resize(want, 0);
            bad = bytes.chunks_exact(PAGE_SIZE).zip(tag.2..).find(|(bytes, block)| !verifies(bytes, tag.0, tag.1, *block)).map(|(_, b)| b);
            if bad.is_none() {
                return Ok(Some(bytes));
            }
        }
        Err(RewindError::Damaged { path: path.to_owned(), block: bad.unwrap_or(0) })
    }

    async fn copy_whole(&mut self, job: &Job) -> Result<(), RewindError> {
        let (full, file) = self.open(&job.path, true)?;
        let mut at = 0;
        loop {
            let Some(bytes) = self.source.read(&job.path, at, CHUNK_BYTES).await? else { return self.vanished(&job.path) };
            file.write_all_at(&bytes, at).map_err(RewindError::io("write file", &full))?;
            at += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if !self.source.is_live() && at > job.size {
                break;
            }
            self.copied(&job.path, bytes.len())?;
            if bytes.len() < CHUNK_BYTES {
                break;
            }
        }
        // A server that is down changes nothing; whoever does makes the copy inconsistent.
        if !self.source.is_live() && at != job.size {
            return Err(RewindError::Grew { path: job.path.clone(), expected: job.size, found: at });
        }
        Ok(())
    }

    /// Fetches the WAL that is there by now: all segments that are complete, at the end (`last`) the rest too, and the histories.
    /// Returns its end.
    async fn copy_wal(&mut self, last: bool) -> Result<(Lsn, TimelineId), RewindError> {
        let (end, tli) = self.source.end_position(&self.control).await?;
        let history = self.source.history(tli).await?;
        let size = u64::from(self.control.segment_bytes);
        let whole = self.segment_of(end);
        while self.next_segment < whole {
            self.copy_segment(&history, self.next_segment, size).await?;
            self.next_segment += 1;
        }
        if !last {
            return Ok((end, tli));
        }
        if end.as_u64() % size != 0 {
            self.copy_segment(&history, whole, end.as_u64() % size).await?;
        }
        let timelines = history.ancestors().iter().map(|a| a.tli).chain([tli]).filter(|t| *t != TimelineId::FIRST);
        for tli in timelines.collect::<Vec<_>>() {
            let path = format!("pg_wal/{}", History::file_name(tli));
            // Ancestors' own files are for people only; the newest one says everything.
            let Some(bytes) = self.source.read_whole(&path).await? else { continue };
            let full = self.target.join(&path);
            fs::write(&full, &bytes).map_err(RewindError::io("write file", &full))?;
            set_mode(&full, self.file_mode)?;
            self.archived(&History::file_name(tli))?;
            self.observer.step(Step::Wrote(&path))?;
        }
        Ok((end, tli))
    }

    /// Copies the first `upto` bytes of a segment; the rest becomes zeros, in real blocks, for it will be mapped.
    async fn copy_segment(&mut self, history: &History, segno: u64, upto: u64) -> Result<(), RewindError> {
        let size = u64::from(self.control.segment_bytes);
        let name = segment::file_name(history.tli_at(Lsn::from_u64((segno + 1) * size - 1)), SegNo::new(segno), self.control.segment_bytes);
        let path = format!("pg_wal/{name}");
        self.observer.debug(&format!("copying \"{path}\" up to {upto}"));
        let (full, file) = self.open(&path, true)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size)
            .map_err(io::Error::from)
            .map_err(RewindError::io("allocate file", &full))?;
        let mut at = 0;
        while at < upto {
            let want = usize::try_from(upto - at).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let bytes = self.source.read(&path, at, want).await?.ok_or_else(|| RewindError::WalGone(name.clone()))?;
            if bytes.len() != want {
                return Err(RewindError::WalGone(name));
            }
            file.write_all_at(&bytes, at).map_err(RewindError::io("write file", &full))?;
            at += u64::try_from(want).unwrap_or(u64::MAX);
            self.observer.step(Step::Wrote(&path))?;
        }
        if upto == size {
            self.archived(&name)?;
        }
        Ok(())
    }

    /// Notes that archiving this file is the source's business.
    fn archived(&self, name: &str) -> Result<(), RewindError> {
        self.open(&format!("pg_wal/archive_status/{name}.done"), true).map(|_| ())
    }

    fn write_label(&self) -> Result<(), RewindError> {
        let checkpoint = &self.control.checkpoint_copy;
        let name = segment::file_name(checkpoint.tli, SegNo::new(self.segment_of(checkpoint.redo)), self.control.segment_bytes);
        let text = format!(
            "START WAL LOCATION: {} (file {name})\nCHECKPOINT LOCATION: {}\nBACKUP METHOD: pg_rewind\nBACKUP FROM: standby\nSTART TIME: {}\nSTART TIMELINE: {}\n",
            checkpoint.redo,
            self.control.checkpoint,
            jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC"),
            checkpoint.tli
        );
        let path = self.target.join(backup_label::FILE);
        durable_replace(&RealDisk, &path, text.as_bytes()).map_err(RewindError::io("write file", &path))?;
        set_mode(&path, self.file_mode)
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), RewindError> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(RewindError::io("set permissions of file", path))
}

/// Whether a page of the target is the source's page too: see the module.
fn is_shared(page: &Page, theirs: Lsn, fork: Lsn, rel: RelId, fork_of: Fork, block: u32) -> bool {
    let lsn = page.lsn();
    lsn.is_valid()
        && lsn == theirs
        && lsn <= fork
        && page.hint_lsn() <= fork
        && page.stored_checksum() == page.checksum(rel, fork_of, BlockNo::new(block))
}

/// A page as a base backup takes it: it verifies, or was allocated and not written yet.
fn verifies(bytes: &[u8], rel: RelId, fork: Fork, block: u32) -> bool {
    let mut page = Page::zeroed();
    page.bytes_mut().copy_from_slice(bytes);
    page.is_zero() || page.stored_checksum() == page.checksum(rel, fork, BlockNo::new(block))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_stays_only_if_lsn_hint_and_checksum_agree() {
        let rel = RelId { spc: 1663, db: 5, rel: 16384 };
        let fork = Lsn::from_u64(1000);
        let page = |lsn, hint| {
            let mut page = Page::zeroed();
            page.init(0);
            page.set_lsn(Lsn::from_u64(lsn));
            page.raise_hint_lsn(Lsn::from_u64(hint));
            page.stamp(rel, Fork::Main, BlockNo::new(3));
            page
        };
        let shared = |page: &Page, theirs| is_shared(page, Lsn::from_u64(theirs), fork, rel, Fork::Main, 3);
        assert!(shared(&page(900, 0), 900));
        assert!(shared(&page(1000, 1000), 1000));
        assert!(!shared(&page(900, 0), 800), "the source has another version");
        assert!(!shared(&page(1001, 0), 1001), "equal LSNs past the fork are of two histories");
        assert!(!shared(&page(900, 1001), 900), "a hint set past the fork");
        assert!(!shared(&page(0, 0), 0), "no LSN proves nothing");
        let mut torn = page(900, 0);
        torn.bytes_mut()[5000] ^= 1;
        assert!(!shared(&torn, 900));
        assert!(!is_shared(&page(900, 0), Lsn::from_u64(900), fork, rel, Fork::Main, 4), "a page of another block");
    }
}
