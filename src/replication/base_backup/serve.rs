//! Speaks the BASE_BACKUP protocol: positions, tablespaces, a tar archive for each and one for the rest, manifest, end position.
//!
//! A thread reads and packs; this task sends. Between them stands a short queue, so that a slow client slows the reading
//! and memory stays bounded.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use afterimage_wal::ids::{Lsn, SegNo, TimelineId};
use afterimage_wal::segment;
use bytes::{BufMut as _, Bytes};
use tokio::sync::mpsc;

use super::super::command::CommandOption;
use super::super::connection::{ColumnType, Connection};
use super::super::manifest::{Manifest, WalRange};
use super::super::senders::{BackupProgress, SenderState};
use super::super::services::Replication;
use super::archive::{Archive, ArchiveError, Source, Tablespace, estimate_bytes, tablespaces};
use super::encoder::Encoder;
use super::label::{ArchiveWait, label, tablespace_map, write_history};
use super::options::{BackupOptions, Target};
use super::parallel::{Files, Shared};
use crate::engine::BackupStart;
use crate::sqlstate::{SqlError, SqlState};
use crate::wire::backend::CopyKind;

/// Bytes per CopyData message.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks between the reading thread and the socket.
const QUEUE_CHUNKS: usize = 16;
/// Shortest time between progress messages.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

enum Piece {
    /// An archive begins: its name and, for a tablespace, where it lies.
    Begin(String, String),
    /// Bytes for the client.
    Data(Bytes),
    /// So many bytes went elsewhere.
    Elsewhere(usize),
    Warning(String),
    /// Something else to tell: severity and text.
    Notice(&'static str, SqlError),
    Done(Box<Finished>),
}

struct Finished {
    manifest: Option<String>,
    end: Lsn,
    end_tli: TimelineId,
}

/// Runs one backup.
///
/// # Errors
/// 42601 and 22023 for options, XX001 for a damaged page, 58030 for unreadable files.
pub async fn run(node: &Arc<Replication>, conn: &mut Connection<'_>, list: &[CommandOption]) -> Result<(), SqlError> {
    let options = BackupOptions::parse(list)?;
    super::file_copy::check_wal_level(node)?;
    if let Target::Server(directory) = &options.target {
        if !conn.may_write_files {
            let text = "must be superuser or a role with privileges of the pg_write_server_files role to create backup stored on server";
            return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, text));
        }
        prepare_directory(Path::new(directory))?;
    }
    let entry = node.senders.enter(conn.pid, conn.user, conn.application_name, conn.client, conn.backend_start);
    let progress = Arc::<BackupProgress>::default();
    entry.report(|info| (info.state, info.backup) = (SenderState::Backup, Some(Arc::clone(&progress))));
    let phase = |n: usize| progress.phase.store(n, Ordering::Relaxed);
    phase(1);
    let (engine, fast) = (Arc::clone(&node.engine), options.fast_checkpoint);
    let start = tokio::task::spawn_blocking(move || engine.backup_start(fast))
        .await
        .map_err(|e| SqlError::internal(e.to_string()))?
        .map_err(|e| SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, e.to_string()))?;
    let data_dir = node.engine.data_dir();
    let source = Source {
        data_dir: data_dir.to_owned(),
        pool: Arc::clone(node.engine.pool()),
        verify: options.verify_checksums,
        checksums: options.manifest_checksums,
        links: !options.tablespace_map,
        done_bytes: Arc::clone(&progress.streamed),
        damaged: Arc::new(AtomicU64::new(0)),
    };
    let shared = options.streams.then(|| {
        let name = format!("{}-{}", conn.pid, start.checkpoint_lsn);
        Arc::new(Shared { name, source: source.clone(), manifest: options.manifest, files: Files::default() })
    });
    let _closes = Closes(shared.clone());
    if let Some(shared) = &shared {
        node.parallel_backups.enter(shared);
    }
    let spaces = tablespaces(data_dir);
    if options.progress {
        phase(2);
    }
    let size = |dir: &Path| {
        options.progress.then(|| {
            let bytes = estimate_bytes(dir);
            progress.total.fetch_add(bytes, Ordering::Relaxed);
            (bytes / 1024).to_string()
        })
    };

    match &shared {
        None => put_position(conn, start.redo_lsn, start.tli),
        Some(shared) => {
            let columns = [("recptr", ColumnType::Text), ("tli", ColumnType::Int8), ("backup", ColumnType::Text)];
            let row = [start.redo_lsn.to_string(), start.tli.to_string(), shared.name.clone()];
            conn.put_result(&columns, &[row.map(Some).to_vec()]);
        }
    }
    let columns = [("spcoid", ColumnType::Oid), ("spclocation", ColumnType::Text), ("size", ColumnType::Int8)];
    let mut rows: Vec<Vec<Option<String>>> = spaces
        .iter()
        .map(|t| vec![Some(t.oid.to_string()), Some(t.location.clone()), size(&data_dir.join(format!("pg_tblspc/{}", t.oid)))])
        .collect();
    rows.push(vec![None, None, size(data_dir)]);
    conn.put_result(&columns, &rows);
    conn.out.copy_response(CopyKind::Out, false, 0);
    conn.flush().await?;

    let done_bytes = Arc::clone(&progress.streamed);
    progress.tablespaces.store(spaces.len() as u64 + 1, Ordering::Relaxed);
    phase(3);
    let (sender, mut pieces) = mpsc::channel(QUEUE_CHUNKS);
    let worker = {
        let (node, options, progress) = (Arc::clone(node), options.clone(), Arc::clone(&progress));
        let begun = Begun { start, spaces, source, shared };
        tokio::task::spawn_blocking(move || produce(&node, &options, &begun, &sender, &progress))
    };
    let began = Instant::now();
    let (mut sent_bytes, mut reported) = (0_u64, Instant::now());
    let mut finished = None;
    while let Some(piece) = pieces.recv().await {
        let bytes = match piece {
            Piece::Begin(name, location) => {
                conn.out.message(b'd', |b| {
                    b.put_u8(b'n');
                    b.put_slice(name.as_bytes());
                    b.put_u8(0);
                    b.put_slice(location.as_bytes());
                    b.put_u8(0);
                });
                continue;
            }
            Piece::Warning(text) => {
                tracing::warn!("{text}");
                let warning = SqlError::new(SqlState::WARNING, text);
                conn.out.notice("WARNING", warning.fields());
                continue;
            }
            Piece::Notice(severity, text) => {
                conn.out.notice(severity, text.fields());
                conn.flush().await?;
                continue;
            }
            Piece::Done(result) => {
                finished = Some(result);
                continue;
            }
            Piece::Elsewhere(bytes) => bytes,
            Piece::Data(bytes) => {
                conn.out.message(b'd', |b| {
                    b.put_u8(b'd');
                    b.put_slice(&bytes);
                });
                bytes.len()
            }
        };
        sent_bytes += bytes as u64;
        if reported.elapsed() >= PROGRESS_INTERVAL {
            reported = Instant::now();
            let done = done_bytes.load(Ordering::Relaxed);
            conn.out.message(b'd', |b| {
                b.put_u8(b'p');
                b.put_u64(done);
            });
        }
        conn.flush().await?;
        if let Some(rate) = options.max_rate_bytes {
            // Not a wait for a condition but the rate itself: sleep until these bytes are due.
            let due = Duration::from_secs_f64(sent_bytes as f64 / rate as f64);
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
    }
    worker.await.map_err(|e| SqlError::internal(e.to_string()))?.map_err(archive_error)?;
    let finished = finished.ok_or_else(|| SqlError::internal("base backup ended without a result"))?;
    if let Some(manifest) = &finished.manifest {
        conn.out.message(b'd', |b| b.put_u8(b'm'));
        let sent = if options.target == Target::Client { manifest.as_bytes() } else { &[] };
        for chunk in sent.chunks(CHUNK_BYTES) {
            conn.out.message(b'd', |b| {
                b.put_u8(b'd');
                b.put_slice(chunk);
            });
        }
    }
    conn.out.message(b'c', |_| {});
    put_position(conn, finished.end, finished.end_tli);
    conn.flush().await
}

/// Makes the directory of a backup that stays on the server; it must be empty.
fn prepare_directory(dir: &Path) -> Result<(), SqlError> {
    if !dir.is_absolute() {
        return Err(SqlError::new(SqlState::INVALID_NAME, "relative path not allowed for backup stored on server"));
    }
    let shown = dir.display();
    let io = |what: &str, e: &std::io::Error| {
        let text = e.to_string();
        let text = text.split_once(" (os error").map_or(text.as_str(), |(t, _)| t).to_owned();
        SqlError::new(SqlState::IO_ERROR, format!("could not {what} directory \"{shown}\": {text}"))
    };
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(SqlError::new(SqlState::DUPLICATE_FILE, format!("directory \"{shown}\" exists but is not empty"))),
            None => Ok(()),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => fs::create_dir(dir).map_err(|e| io("create", &e)),
        Err(e) => Err(io("access", &e)),
    }
}

fn put_position(conn: &mut Connection<'_>, lsn: Lsn, tli: TimelineId) {
    conn.put_result(&[("recptr", ColumnType::Text), ("tli", ColumnType::Int8)], &[vec![Some(lsn.to_string()), Some(tli.to_string())]]);
}

fn archive_error(error: BackupError) -> SqlError {
    let state = match &error {
        BackupError::Damaged => SqlState::DATA_CORRUPTED,
        BackupError::Archive(ArchiveError::Read { .. }) => SqlState::IO_ERROR,
        BackupError::Write { .. } => SqlState::IO_ERROR,
        BackupError::Archive(ArchiveError::NameTooLong(_) | ArchiveError::LinkTooLong { .. }) => SqlState::PROGRAM_LIMIT_EXCEEDED,
        BackupError::Archive(ArchiveError::Gone) => SqlState::CONNECTION_FAILURE,
        BackupError::Stop(_) => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        BackupError::Compress(_) => SqlState::INTERNAL_ERROR,
    };
    SqlError::new(state, error.to_string())
}

#[derive(Debug, thiserror::Error)]
enum BackupError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("{0}")]
    Stop(String),
    #[error("could not compress data: {0}")]
    Compress(#[from] std::io::Error),
    #[error("checksum verification failure during base backup")]
    Damaged,
    #[error("could not write file \"{}\": {source}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// Takes an archive's bytes: collects them into chunks for the queue, writes them into a file here, or counts them.
struct Chunks<'a> {
    queue: &'a mpsc::Sender<Piece>,
    pending: Vec<u8>,
    gone: bool,
    place: Place,
}

enum Place {
    Client,
    Nowhere,
    File(fs::File),
}

impl<'a> Chunks<'a> {
    fn new(queue: &'a mpsc::Sender<Piece>, place: Place) -> Self {
        Self { queue, pending: Vec::with_capacity(CHUNK_BYTES), gone: false, place }
    }

    fn send(&mut self) -> std::io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let piece = match &mut self.place {
            Place::Client => Piece::Data(Bytes::from(std::mem::replace(&mut self.pending, Vec::with_capacity(CHUNK_BYTES)))),
            Place::Nowhere => Piece::Elsewhere(self.pending.len()),
            Place::File(file) => {
                file.write_all(&self.pending)?;
                Piece::Elsewhere(self.pending.len())
            }
        };
        self.pending.clear();
        self.gone |= self.queue.blocking_send(piece).is_err();
        Ok(())
    }
}

impl std::io::Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.gone {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        let n = bytes.len().min(CHUNK_BYTES - self.pending.len());
        self.pending.extend_from_slice(&bytes[..n]);
        if self.pending.len() == CHUNK_BYTES {
            self.send()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

type Packer<'a> = Encoder<Chunks<'a>>;

/// Sends the rest of an archive.
fn finish_packing(packer: Packer<'_>) -> std::io::Result<()> {
    let mut chunks = packer.finish()?;
    chunks.send()?;
    if let Place::File(file) = &chunks.place {
        file.sync_all()?;
    }
    if chunks.gone { Err(std::io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
}

/// Opens what takes an archive and tells the client that it begins.
fn begin_archive<'a>(
    options: &BackupOptions,
    queue: &'a mpsc::Sender<Piece>,
    name: &str,
    location: &str,
) -> Result<Packer<'a>, BackupError> {
    let file = format!("{name}{}", options.compression.suffix());
    let place = match &options.target {
        Target::Client => Place::Client,
        Target::Blackhole => Place::Nowhere,
        Target::Server(dir) => {
            let path = Path::new(dir).join(&file);
            let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            Place::File(made.map_err(|source| BackupError::Write { path, source })?)
        }
    };
    // Nobody receives any more: the next piece finds out.
    drop(queue.blocking_send(Piece::Begin(file, location.to_owned())));
    Ok(Packer::new(options.compression, Chunks::new(queue, place))?)
}

/// Writes one archive: `fill` puts its members.
fn one_archive<T>(
    source: &Source,
    mut packer: Packer<'_>,
    queue: &mpsc::Sender<Piece>,
    manifest: Option<&mut Manifest>,
    fill: impl FnOnce(&mut Archive<'_>) -> Result<T, BackupError>,
) -> Result<T, BackupError> {
    let mut failure = None;
    let filled = {
        let mut sink = |bytes: &[u8]| match packer.write_all(bytes) {
            Ok(()) => true,
            Err(error) => {
                failure = Some(error);
                false
            }
        };
        let mut warn = |text: String| drop(queue.blocking_send(Piece::Warning(text)));
        let mut archive = Archive::new(source, &mut sink, &mut warn, manifest);
        let filled = fill(&mut archive);
        filled.and_then(|value| archive.finish().map(|()| value).map_err(BackupError::from))
    };
    if let Some(error) = failure {
        return Err(error.into());
    }
    let value = filled?;
    finish_packing(packer)?;
    Ok(value)
}

/// A backup that has begun.
struct Begun {
    start: BackupStart,
    spaces: Vec<Tablespace>,
    source: Source,
    shared: Option<Arc<Shared>>,
}

/// However the backup ends, those who share in it do not wait for more.
struct Closes(Option<Arc<Shared>>);

impl Drop for Closes {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.files.close();
        }
    }
}

/// Sends a part of a backup that another connection asked for.
///
/// # Errors
/// 42704 if no such backup runs; as [`run`].
pub async fn run_part(node: &Arc<Replication>, conn: &mut Connection<'_>, name: &str) -> Result<(), SqlError> {
    let missing = || SqlError::new(SqlState::UNDEFINED_OBJECT, format!("base backup \"{name}\" is not running"));
    let shared = node.parallel_backups.find(name).ok_or_else(missing)?;
    conn.out.copy_response(CopyKind::Out, false, 0);
    conn.flush().await?;
    let (sender, mut pieces) = mpsc::channel(QUEUE_CHUNKS);
    let worker = tokio::task::spawn_blocking(move || produce_part(&shared, &sender));
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Data(bytes) => conn.out.message(b'd', |b| {
                b.put_u8(b'd');
                b.put_slice(&bytes);
            }),
            Piece::Warning(text) => {
                tracing::warn!("{text}");
                conn.out.notice("WARNING", SqlError::new(SqlState::WARNING, text).fields());
            }
            Piece::Notice(..) | Piece::Begin(..) | Piece::Elsewhere(_) | Piece::Done(_) => {}
        }
        conn.flush().await?;
    }
    worker.await.map_err(|e| SqlError::internal(e.to_string()))?.map_err(archive_error)?;
    conn.out.message(b'c', |_| {});
    Ok(())
}

fn produce_part(shared: &Shared, queue: &mpsc::Sender<Piece>) -> Result<(), BackupError> {
    let part = shared.files.part();
    let mut manifest = shared.manifest.map(Manifest::new);
    let packer = Packer::new(super::options::Compression::None, Chunks::new(queue, Place::Client))?;
    one_archive(&shared.source, packer, queue, manifest.as_mut(), |archive| {
        while let Some((path, name)) = shared.files.take() {
            archive.relation_file(&path, &name)?;
        }
        Ok(())
    })?;
    part.end(manifest);
    Ok(())
}

fn produce(
    node: &Arc<Replication>,
    options: &BackupOptions,
    Begun { start, spaces, source, shared }: &Begun,
    queue: &mpsc::Sender<Piece>,
    progress: &BackupProgress,
) -> Result<(), BackupError> {
    let engine = &node.engine;
    let mut manifest = options.manifest.map(Manifest::new);
    for space in spaces {
        let packer = begin_archive(options, queue, &format!("{}.tar", space.oid), &space.location)?;
        one_archive(source, packer, queue, manifest.as_mut(), |archive| Ok(archive.tablespace(space.oid)?))?;
        progress.tablespaces_streamed.fetch_add(1, Ordering::Relaxed);
    }
    let mut parts = Vec::new();
    let packer = begin_archive(options, queue, "base.tar", "")?;
    let (end, end_tli) = one_archive(source, packer, queue, manifest.as_mut(), |archive| {
        let label = label(node, &options.label, start);
        archive.text_file("backup_label", label.as_bytes())?;
        if options.tablespace_map && !spaces.is_empty() {
            archive.text_file("tablespace_map", tablespace_map(spaces).as_bytes())?;
        }
        if let Some(shared) = shared {
            archive.share(Arc::clone(shared));
        }
        archive.data_directory()?;
        if let Some(shared) = shared.as_deref() {
            shared.files.walked();
            while let Some((path, name)) = shared.files.take() {
                archive.relation_file(&path, &name)?;
            }
            parts = shared.files.finish().ok_or_else(|| BackupError::Stop("a part of the base backup failed".to_owned()))?;
        }
        let on_standby = engine.is_in_recovery();
        let (end, end_tli) = engine.backup_stop(start).map_err(|e| BackupError::Stop(e.to_string()))?;
        if !on_standby {
            write_history(node, &label, start, (end, end_tli)).map_err(|e| BackupError::Stop(e.to_string()))?;
        }
        if options.wait {
            progress.phase.store(4, Ordering::Relaxed);
            wait_for_archive(node, start, (end, end_tli), queue)?;
        }
        // Last: on a standby its minimum recovery point must cover every page that was copied.
        archive.plain_file(&source.data_dir.join("global/pg_control"), "global/pg_control")?;
        if options.wal {
            progress.phase.store(5, Ordering::Relaxed);
            wal_files(node, archive, start.redo_lsn, end, end_tli)?;
        }
        Ok((end, end_tli))
    })?;
    progress.tablespaces_streamed.fetch_add(1, Ordering::Relaxed);
    let damaged = source.damaged.load(Ordering::Relaxed);
    if damaged > 0 {
        if damaged > 1 {
            drop(queue.blocking_send(Piece::Warning(format!("{damaged} total checksum verification failures"))));
        }
        return Err(BackupError::Damaged);
    }
    if let Some(manifest) = &mut manifest {
        parts.iter().for_each(|part| manifest.absorb(part));
    }
    let manifest = manifest.map(|m| m.finish(&wal_ranges(node, start, end, end_tli)));
    if let Target::Server(dir) = &options.target {
        let dir = Path::new(dir);
        if let Some(manifest) = &manifest {
            let path = dir.join("backup_manifest");
            afterimage_wal::disk::durable_replace(&afterimage_wal::disk::RealDisk, &path, manifest.as_bytes())
                .map_err(|source| BackupError::Write { path, source })?;
        }
        let synced = fs::File::open(dir).and_then(|d| d.sync_all());
        synced.map_err(|source| BackupError::Write { path: dir.to_owned(), source })?;
    }
    // Nobody receives any more: the client's error is what counts.
    drop(queue.blocking_send(Piece::Done(Box::new(Finished { manifest, end, end_tli }))));
    Ok(())
}

/// Waits until the archive has all that recovery of the backup needs, and tells the client how that goes.
fn wait_for_archive(
    node: &Arc<Replication>,
    start: &BackupStart,
    end: (Lsn, TimelineId),
    queue: &mpsc::Sender<Piece>,
) -> Result<(), BackupError> {
    let say = |(severity, text)| drop(queue.blocking_send(Piece::Notice(severity, text)));
    let Some(mut wait) = ArchiveWait::new(node, start, end) else {
        say(ArchiveWait::no_archive());
        return Ok(());
    };
    loop {
        let archived = tokio::runtime::Handle::current().block_on(async {
            tokio::select! {
                () = ArchiveWait::done(node, wait.files()) => Ok(true),
                () = tokio::time::sleep_until(wait.deadline()) => Ok(false),
                () = queue.closed() => Err(ArchiveError::Gone),
            }
        });
        if archived? {
            say(ArchiveWait::all_archived());
            return Ok(());
        }
        say(wait.say());
    }
}

fn wal_files(node: &Arc<Replication>, archive: &mut Archive<'_>, from: Lsn, end: Lsn, tli: TimelineId) -> Result<(), ArchiveError> {
    let segment_bytes = node.engine.wal().segment_bytes();
    let history = node.history();
    let dir = node.engine.data_dir().join("pg_wal");
    let first = from.as_u64() / u64::from(segment_bytes);
    let last = end.as_u64().saturating_sub(1) / u64::from(segment_bytes);
    for segno in first..=last {
        let last_byte = Lsn::from_u64((segno + 1) * u64::from(segment_bytes) - 1);
        let name = segment::file_name(history.tli_at(last_byte).min(tli), SegNo::new(segno), segment_bytes);
        archive.plain_file(&dir.join(&name), &format!("pg_wal/{name}"))?;
    }
    for ancestor in history.ancestors() {
        let name = afterimage_wal::history::History::file_name(ancestor.tli);
        archive.plain_file(&dir.join(&name), &format!("pg_wal/{name}"))?;
    }
    Ok(())
}

fn wal_ranges(node: &Arc<Replication>, start: &BackupStart, end: Lsn, end_tli: TimelineId) -> Vec<WalRange> {
    let history = node.history();
    let mut ranges = Vec::new();
    let (mut tli, mut end_lsn) = (end_tli, end);
    loop {
        let begin = if tli == start.tli { None } else { history.begin_of(tli) };
        ranges.push(WalRange { tli, start_lsn: begin.unwrap_or(start.redo_lsn), end_lsn });
        match begin.and_then(|lsn| Some((history.ancestors().iter().rev().find(|a| a.tli < tli)?.tli, lsn))) {
            Some((parent, lsn)) => (tli, end_lsn) = (parent, lsn),
            None => return ranges,
        }
    }
}
