//! Speaks the BASE_BACKUP protocol: positions, tablespaces, one tar archive, manifest, end position.
//!
//! A thread reads and packs; this task sends. Between them stands a short queue, so that a slow client slows the reading
//! and memory stays bounded.

use std::io::Write as _;
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
use super::super::senders::SenderState;
use super::super::services::Replication;
use super::archive::{Archive, ArchiveError, Source, estimate_bytes};
use super::options::{BackupOptions, Compression};
use crate::config::Setting;
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
    Data(Bytes),
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
    let entry = node.senders.enter(conn.pid, conn.user, conn.application_name, conn.client, conn.backend_start);
    entry.report(|info| info.state = SenderState::Backup);
    let (engine, fast) = (Arc::clone(&node.engine), options.fast_checkpoint);
    let start = tokio::task::spawn_blocking(move || engine.backup_start(fast))
        .await
        .map_err(|e| SqlError::internal(e.to_string()))?
        .map_err(|e| SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, e.to_string()))?;
    let size = options.progress.then(|| estimate_bytes(node.engine.data_dir()) / 1024);

    put_position(conn, start.redo_lsn, start.tli);
    let columns = [("spcoid", ColumnType::Oid), ("spclocation", ColumnType::Text), ("size", ColumnType::Int8)];
    conn.put_result(&columns, &[vec![None, None, size.map(|kb| kb.to_string())]]);
    conn.out.copy_response(CopyKind::Out, false, 0);
    conn.out.message(b'd', |b| {
        b.put_u8(b'n');
        b.put_slice(format!("base.tar{}", options.compression.suffix()).as_bytes());
        b.put_slice(&[0, 0]);
    });
    conn.flush().await?;

    let done_bytes = Arc::new(AtomicU64::new(0));
    let (sender, mut pieces) = mpsc::channel(QUEUE_CHUNKS);
    let worker = {
        let (node, options, done) = (Arc::clone(node), options.clone(), Arc::clone(&done_bytes));
        tokio::task::spawn_blocking(move || produce(&node, &options, &start, &sender, &done))
    };
    let began = Instant::now();
    let (mut sent_bytes, mut reported) = (0_u64, Instant::now());
    let mut finished = None;
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Data(_) if options.blackhole => {}
            Piece::Data(bytes) => {
                sent_bytes += bytes.len() as u64;
                conn.out.message(b'd', |b| {
                    b.put_u8(b'd');
                    b.put_slice(&bytes);
                });
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
            Piece::Done(result) => finished = Some(result),
        }
    }
    worker.await.map_err(|e| SqlError::internal(e.to_string()))?.map_err(archive_error)?;
    let finished = finished.ok_or_else(|| SqlError::internal("base backup ended without a result"))?;
    if let Some(manifest) = &finished.manifest {
        conn.out.message(b'd', |b| b.put_u8(b'm'));
        for chunk in manifest.as_bytes().chunks(CHUNK_BYTES) {
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

fn put_position(conn: &mut Connection<'_>, lsn: Lsn, tli: TimelineId) {
    conn.put_result(&[("recptr", ColumnType::Text), ("tli", ColumnType::Int8)], &[vec![Some(lsn.to_string()), Some(tli.to_string())]]);
}

fn archive_error(error: BackupError) -> SqlError {
    let state = match &error {
        BackupError::Archive(ArchiveError::Checksum { .. }) => SqlState::DATA_CORRUPTED,
        BackupError::Archive(ArchiveError::Read { .. }) => SqlState::IO_ERROR,
        BackupError::Archive(ArchiveError::NameTooLong(_)) => SqlState::PROGRAM_LIMIT_EXCEEDED,
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
}

/// Collects bytes into chunks for the queue.
struct Chunks<'a> {
    queue: &'a mpsc::Sender<Piece>,
    pending: Vec<u8>,
    gone: bool,
}

impl Chunks<'_> {
    fn send(&mut self) {
        if !self.pending.is_empty() {
            let bytes = Bytes::from(std::mem::replace(&mut self.pending, Vec::with_capacity(CHUNK_BYTES)));
            self.gone |= self.queue.blocking_send(Piece::Data(bytes)).is_err();
        }
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
            self.send();
        }
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

enum Packer<'a> {
    Plain(Chunks<'a>),
    Gzip(flate2::write::GzEncoder<Chunks<'a>>),
    Zstd(zstd::stream::write::Encoder<'static, Chunks<'a>>),
}

impl<'a> Packer<'a> {
    fn new(compression: Compression, chunks: Chunks<'a>) -> std::io::Result<Self> {
        Ok(match compression {
            Compression::None => Self::Plain(chunks),
            Compression::Gzip(level) => Self::Gzip(flate2::write::GzEncoder::new(chunks, flate2::Compression::new(level))),
            Compression::Zstd(level) => Self::Zstd(zstd::stream::write::Encoder::new(chunks, level)?),
        })
    }

    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(w) => w.write_all(bytes),
            Self::Gzip(w) => w.write_all(bytes),
            Self::Zstd(w) => w.write_all(bytes),
        }
    }

    fn finish(self) -> std::io::Result<()> {
        let mut chunks = match self {
            Self::Plain(w) => w,
            Self::Gzip(w) => w.finish()?,
            Self::Zstd(w) => w.finish()?,
        };
        chunks.send();
        if chunks.gone { Err(std::io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

fn produce(
    node: &Arc<Replication>,
    options: &BackupOptions,
    start: &BackupStart,
    queue: &mpsc::Sender<Piece>,
    done: &AtomicU64,
) -> Result<(), BackupError> {
    let engine = &node.engine;
    let source = Source {
        data_dir: engine.data_dir().to_owned(),
        pool: Arc::clone(engine.pool()),
        verify: true,
        checksums: options.manifest_checksums,
    };
    let mut manifest = options.manifest.map(Manifest::new);
    let mut packer = Packer::new(options.compression, Chunks { queue, pending: Vec::with_capacity(CHUNK_BYTES), gone: false })?;
    let mut failure = None;
    let (end, end_tli) = {
        let mut sink = |bytes: &[u8]| match packer.put(bytes) {
            Ok(()) => true,
            Err(error) => {
                failure = Some(error);
                false
            }
        };
        let mut archive = Archive::new(&source, &mut sink, manifest.as_mut());
        archive.text_file("backup_label", label(node, options, start).as_bytes())?;
        if options.tablespace_map {
            archive.text_file("tablespace_map", b"")?;
        }
        archive.data_directory()?;
        done.store(archive.done_bytes(), Ordering::Relaxed);
        let (end, end_tli) = engine.backup_stop(start).map_err(|e| BackupError::Stop(e.to_string()))?;
        // Last: on a standby its minimum recovery point must cover every page that was copied.
        archive.plain_file(&source.data_dir.join("global/pg_control"), "global/pg_control")?;
        if options.wal {
            wal_files(node, &mut archive, start.redo_lsn, end, end_tli)?;
        }
        archive.finish()?;
        (end, end_tli)
    };
    if let Some(error) = failure {
        return Err(error.into());
    }
    packer.finish()?;
    let manifest = manifest.map(|m| m.finish(&wal_ranges(node, start, end, end_tli)));
    // Nobody receives any more: the client's error is what counts.
    drop(queue.blocking_send(Piece::Done(Box::new(Finished { manifest, end, end_tli }))));
    Ok(())
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

/// `backup_label`, as PostgreSQL writes it.
fn label(node: &Arc<Replication>, options: &BackupOptions, start: &BackupStart) -> String {
    let segment_bytes = node.engine.wal().segment_bytes();
    let segno = SegNo::new(start.redo_lsn.as_u64() / u64::from(segment_bytes));
    let file = segment::file_name(start.tli, segno, segment_bytes);
    let zone = jiff::tz::TimeZone::get(node.config.current().str(Setting::LogTimezone)).unwrap_or(jiff::tz::TimeZone::UTC);
    let now = jiff::Timestamp::now().to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S %Z").to_string();
    let from = if node.engine.is_in_recovery() { "standby" } else { "primary" };
    format!(
        "START WAL LOCATION: {} (file {file})\nCHECKPOINT LOCATION: {}\nBACKUP METHOD: streamed\nBACKUP FROM: {from}\nSTART TIME: {now}\nLABEL: {}\nSTART TIMELINE: {}\n",
        start.redo_lsn, start.checkpoint_lsn, options.label, start.tli
    )
}
