//! The walsender: answers replication commands and streams WAL.
//!
//! A stream sends only what is durable here, and on a standby confirmed from above. To a standby that asked for `ahead`, a primary sends WAL as soon as its
//! sync begins, and says what is durable in messages of their own. It wakes when that position moves, when the standby says something, and when
//! a timeout is due; it never polls. Reading and writing go on side by side, so that a standby that reports while we are
//! blocked in sending cannot wedge both.
//!
//! PostgreSQL: replication/walsender.c.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use afterimage_wal::history::History;
use afterimage_wal::ids::{Lsn, SegNo, StartId, TimelineId};
use afterimage_wal::lineage::{Claim, Shared};
use bytes::{BufMut as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::command::{CommandOption, ReplicationCommand, StartReplication};
use super::connection::{ColumnType, Connection, lost};
use super::message::{self, StandbyMessage};
use super::repair;
use super::senders::{SenderEntry, SenderState};
use super::services::Replication;
use super::slot::{SlotError, SlotGuard};
use super::{thread_cpu_time, timestamp_now};
use crate::config::Setting;
use crate::control::supervisor::sleep_until;
use crate::sqlstate::{SqlError, SqlState, io_state};
use crate::wire::backend::CopyKind;
use crate::wire::{Frontend, Writer};

/// Most WAL bytes in one message, as PostgreSQL's MAX_SEND_SIZE.
const MAX_SEND_BYTES: usize = 128 * 1024;
/// Raw bytes after which a zstd frame ends and its checksum is sent.
const FRAME_RAW_BYTES: u64 = 4 << 20;
/// Window a receiver must be able to hold: 1 MiB.
pub const ZSTD_WINDOW_LOG: u32 = 20;
/// Positions remembered to measure lag.
const LAG_SAMPLES: usize = 4096;
/// Longest message a standby sends.
const STANDBY_MESSAGE_LIMIT: usize = 64 * 1024;

/// What becomes of the connection after a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// ReadyForQuery, and the next command.
    Ready,
    /// The client said goodbye, or the node has stopped and shipped everything: close.
    Close,
}

/// Runs one replication command. Errors are for the session to send; the connection goes on after an ERROR.
///
/// # Errors
/// Of the command, with PostgreSQL's SQLSTATE and text.
pub async fn serve(node: &Arc<Replication>, conn: &mut Connection<'_>, command: ReplicationCommand) -> Result<After, SqlError> {
    match command {
        ReplicationCommand::IdentifySystem => {
            let row = vec![
                Some(node.engine.wal().system_id().to_string()),
                Some(node.engine.wal().tli().to_string()),
                Some(node.engine.wal().confirmed().to_string()),
                conn.database.map(str::to_owned),
            ];
            let columns = [
                ("systemid", ColumnType::Text),
                ("timeline", ColumnType::Int4),
                ("xlogpos", ColumnType::Text),
                ("dbname", ColumnType::Text),
            ];
            conn.put_rows(&columns, &[row]);
            conn.out.command_complete("IDENTIFY_SYSTEM");
        }
        ReplicationCommand::Show(name) => {
            let value = node.show(&name)?;
            conn.put_rows(&[(&name, ColumnType::Text)], &[vec![Some(value)]]);
            conn.out.command_complete("SHOW");
        }
        ReplicationCommand::TimelineHistory(tli) => {
            let (name, content) = node.history_file(tli)?;
            conn.put_rows(&[("filename", ColumnType::Text), ("content", ColumnType::Text)], &[vec![Some(name), Some(content)]]);
            conn.out.command_complete("TIMELINE_HISTORY");
        }
        ReplicationCommand::ReadSlot(name) => {
            let row = match node.slots.get(&name) {
                None => vec![None, None, None],
                Some(slot) => {
                    let restart = slot.restart_lsn.filter(|_| !slot.invalidated);
                    let tli = restart.map(|lsn| node.history().tli_at(lsn));
                    vec![Some("physical".to_owned()), restart.map(|l| l.to_string()), tli.map(|t| t.to_string())]
                }
            };
            conn.put_rows(&[("slot_type", ColumnType::Text), ("restart_lsn", ColumnType::Text), ("restart_tli", ColumnType::Int8)], &[row]);
            conn.out.command_complete("READ_REPLICATION_SLOT");
        }
        ReplicationCommand::CreateSlot { name, temporary, reserve_wal, logical } => {
            if logical {
                return Err(SqlError::unsupported("logical replication"));
            }
            let reserve = reserve_wal.then(|| node.reserve_position());
            node.slots.create(&name, temporary.then_some(conn.pid), reserve).map_err(slot_error)?;
            let columns = [
                ("slot_name", ColumnType::Text),
                ("consistent_point", ColumnType::Text),
                ("snapshot_name", ColumnType::Text),
                ("output_plugin", ColumnType::Text),
            ];
            conn.put_rows(&columns, &[vec![Some(name), Some("0/0".to_owned()), None, None]]);
            conn.out.command_complete("CREATE_REPLICATION_SLOT");
        }
        ReplicationCommand::DropSlot { name, wait } => {
            let (slots, pid) = (Arc::clone(&node.slots), conn.pid);
            tokio::task::spawn_blocking(move || slots.drop_slot(&name, pid, wait))
                .await
                .map_err(|e| SqlError::internal(e.to_string()))?
                .map_err(slot_error)?;
            conn.out.command_complete("DROP_REPLICATION_SLOT");
        }
        ReplicationCommand::ReadPage(numbers) => {
            let tag = repair::tag_of(numbers).ok_or_else(|| SqlError::new(SqlState::SYNTAX_ERROR, "no such fork"))?;
            let engine = Arc::clone(&node.engine);
            let read = tokio::task::spawn_blocking(move || repair::read_page(&engine, tag));
            let (page, position) = read.await.map_err(|e| SqlError::internal(e.to_string()))??;
            let row = vec![Some(position.to_string()), Some(repair::hex(page.bytes()))];
            conn.put_rows(&[("position", ColumnType::Text), ("page", ColumnType::Text)], &[row]);
            conn.out.command_complete("READ_PAGE");
        }
        ReplicationCommand::StartReplication(start) => {
            if stream(node, conn, start).await? == After::Close {
                return Ok(After::Close);
            }
            conn.out.command_complete("START_REPLICATION");
        }
        ReplicationCommand::BackupPart(name) => {
            super::base_backup::serve::run_part(node, conn, &name).await?;
            conn.out.command_complete("BASE_BACKUP_PART");
        }
        ReplicationCommand::BaseBackup(options) => {
            super::base_backup::serve::run(node, conn, &options).await?;
            conn.out.command_complete("BASE_BACKUP");
        }
    }
    Ok(After::Ready)
}

/// A slot's failure as a client sees it.
pub fn slot_error(error: SlotError) -> SqlError {
    let state = match &error {
        SlotError::NameTooShort(_) | SlotError::InvalidName(_) => SqlState::INVALID_NAME,
        SlotError::NameTooLong(_) => SqlState::NAME_TOO_LONG,
        SlotError::Exists(_) => SqlState::DUPLICATE_OBJECT,
        SlotError::Missing(_) => SqlState::UNDEFINED_OBJECT,
        SlotError::AllInUse => SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        SlotError::Disabled | SlotError::Invalidated(_) => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        SlotError::Active { .. } => SqlState::OBJECT_IN_USE,
        SlotError::Damaged { .. } => SqlState::DATA_CORRUPTED,
        SlotError::Io { source, .. } => io_state(source),
    };
    let sql = SqlError::new(state, error.to_string());
    match error {
        SlotError::InvalidName(_) => {
            sql.hint("Replication slot names may only contain lower case letters, numbers, and the underscore character.")
        }
        SlotError::AllInUse => sql.hint("Free one or increase max_replication_slots."),
        SlotError::Invalidated(_) => sql.detail("This slot has been invalidated because it exceeded the maximum reserved size."),
        SlotError::NameTooShort(_)
        | SlotError::NameTooLong(_)
        | SlotError::Exists(_)
        | SlotError::Missing(_)
        | SlotError::Disabled
        | SlotError::Active { .. }
        | SlotError::Damaged { .. }
        | SlotError::Io { .. } => sql,
    }
}

/// Reads WAL bytes of one timeline, from the live mapping or from segment files.
struct WalBytes {
    node: Arc<Replication>,
    open: Option<(String, File)>,
}

impl WalBytes {
    /// Fills `buf` from `lsn` on; the caller has clamped it to what may be sent.
    fn read(&mut self, tli: TimelineId, history: &History, lsn: Lsn, buf: &mut [u8]) -> Result<usize, SqlError> {
        let wal = self.node.engine.wal();
        if tli == wal.tli()
            && let Ok(n @ 1..) = wal.read_at(lsn, buf)
        {
            return Ok(n);
        }
        let segment_bytes = u64::from(wal.segment_bytes());
        let segno = lsn.as_u64() / segment_bytes;
        let offset = lsn.as_u64() % segment_bytes;
        // A segment that holds a fork was begun anew on the child's timeline, with the parent's bytes up to the fork.
        let last_in_segment = Lsn::from_u64((segno + 1) * segment_bytes - 1);
        let file_tli = history.tli_at(last_in_segment);
        let mut last_error = None;
        for candidate in [file_tli, tli] {
            let name = afterimage_wal::segment::file_name(candidate, SegNo::new(segno), wal.segment_bytes());
            if self.open.as_ref().is_none_or(|(open, _)| *open != name) {
                match File::open(self.node.engine.data_dir().join("pg_wal").join(&name)) {
                    Ok(file) => self.open = Some((name.clone(), file)),
                    Err(error) => {
                        last_error = Some((name, error));
                        continue;
                    }
                }
            }
            let Some((_, file)) = &self.open else { continue };
            let most = usize::try_from(segment_bytes - offset).unwrap_or(usize::MAX).min(buf.len());
            return file
                .read_at(&mut buf[..most], offset)
                .map_err(|e| SqlError::new(SqlState::IO_ERROR, format!("could not read from log segment {name}, offset {offset}: {e}")));
        }
        match last_error {
            Some((name, error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(SqlError::new(SqlState::UNDEFINED_FILE, format!("requested WAL segment {name} has already been removed")))
            }
            Some((name, error)) => Err(SqlError::new(SqlState::IO_ERROR, format!("could not open file \"pg_wal/{name}\": {error}"))),
            None => Err(SqlError::internal("no WAL segment to read")),
        }
    }
}

/// The zstd stream of one connection.
struct Compressor {
    level: i32,
    encoder: zstd::stream::write::Encoder<'static, Vec<u8>>,
    in_frame: u64,
}

impl Compressor {
    fn new(level: i32) -> io::Result<Self> {
        Ok(Self { level, encoder: Self::frame(level, Vec::new())?, in_frame: 0 })
    }

    fn frame(level: i32, out: Vec<u8>) -> io::Result<zstd::stream::write::Encoder<'static, Vec<u8>>> {
        let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
        encoder.include_checksum(true)?;
        encoder.window_log(ZSTD_WINDOW_LOG)?;
        Ok(encoder)
    }

    /// Compresses `raw` and appends what a receiver needs to get exactly these bytes.
    fn put(&mut self, raw: &[u8], out: &mut BytesMut) -> io::Result<()> {
        io::Write::write_all(&mut self.encoder, raw)?;
        self.in_frame += raw.len() as u64;
        if self.in_frame >= FRAME_RAW_BYTES {
            self.in_frame = 0;
            let next = Self::frame(self.level, Vec::new())?;
            let bytes = std::mem::replace(&mut self.encoder, next).finish()?;
            out.put_slice(&bytes);
        } else {
            io::Write::flush(&mut self.encoder)?;
            let bytes = self.encoder.get_mut();
            out.put_slice(bytes);
            bytes.clear();
        }
        Ok(())
    }
}

/// When WAL was sent, to tell how long a standby took.
#[derive(Default)]
struct LagTracker {
    samples: VecDeque<(Lsn, Instant)>,
    /// How many of `samples` each of written, flushed, applied has passed.
    passed: [usize; 3],
}

impl LagTracker {
    fn sent(&mut self, upto: Lsn) {
        if self.samples.len() < LAG_SAMPLES && self.samples.back().is_none_or(|&(last, _)| last < upto) {
            self.samples.push_back((upto, Instant::now()));
        }
    }

    fn reached(&mut self, positions: [Lsn; 3]) -> [Option<Duration>; 3] {
        let now = Instant::now();
        let mut lags = [None; 3];
        for (k, position) in positions.into_iter().enumerate() {
            while let Some(&(lsn, at)) = self.samples.get(self.passed[k]).filter(|(lsn, _)| *lsn <= position) {
                debug_assert!(lsn <= position);
                lags[k] = Some(now.duration_since(at));
                self.passed[k] += 1;
            }
        }
        let done = self.passed.iter().copied().min().unwrap_or(0);
        self.samples.drain(..done);
        self.passed.iter_mut().for_each(|p| *p -= done);
        lags
    }
}

struct Stream {
    node: Arc<Replication>,
    entry: SenderEntry,
    slot: Option<SlotGuard>,
    bytes: WalBytes,
    tli: TimelineId,
    history: Arc<History>,
    /// End of this timeline (exclusive), once it is no longer the newest.
    ends_at: Option<Lsn>,
    sent: Lsn,
    /// How often our WAL had been cut back when the stream began.
    cuts: u64,
    /// The standby holds back what is not durable here.
    ahead: bool,
    /// What it was told is durable here.
    told_durable: Lsn,
    flushed_there: Lsn,
    compressor: Option<Compressor>,
    lag: LagTracker,
    /// Our CopyDone is on its way.
    done_sending: bool,
    /// The standby's CopyDone has come.
    done_receiving: bool,
    last_reply: Instant,
    ping_sent: bool,
    scratch: Vec<u8>,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
async fn stream(node: &Arc<Replication>, conn: &mut Connection<'_>, start: StartReplication) -> Result<After, SqlError> {
    if start.logical {
        return Err(SqlError::unsupported("logical replication"));
    }
    let cuts = node.cuts();
    let slot = match &start.slot {
        Some(name) => Some(node.slots.acquire(name, conn.pid).map_err(|error| match error {
            // As PostgreSQL 15: the WAL that was promised is what is missing.
            SlotError::Invalidated(_) => {
                let (size, tli) = (node.engine.wal().segment_bytes(), start.tli.unwrap_or_else(|| node.engine.wal().tli()));
                let name = afterimage_wal::segment::file_name(tli, SegNo::of(start.start_lsn, size), size);
                SqlError::new(SqlState::UNDEFINED_FILE, format!("requested WAL segment {name} has already been removed")).detail(format!(
                    "Replication slot \"{}\" was invalidated because it exceeded the maximum reserved size.",
                    start.slot.as_deref().unwrap_or("")
                ))
            }
            other => slot_error(other),
        })?),
        None => None,
    };
    let mut compressor = None;
    let mut level = 1;
    let (mut claimed_id, mut claimed_crc, mut ahead) = (None, 0, false);
    for option in &start.options {
        if option.name == "compression_level" {
            level = option
                .text()?
                .parse::<i32>()
                .ok()
                .filter(|l| (1..=19).contains(l))
                .ok_or_else(|| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "compression_level must be between 1 and 19"))?;
        }
    }
    for option in &start.options {
        match option.name.as_str() {
            "compression" if option.text()? == "zstd" => {
                compressor = Some(Compressor::new(level).map_err(|e| SqlError::internal(e.to_string()))?)
            }
            "compression" if option.text()? == "none" => {}
            "compression" => {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("unrecognized compression algorithm: \"{}\"", option.text()?),
                ));
            }
            "compression_level" => {}
            "ahead" => ahead = option.boolean()?,
            "start_id" => claimed_id = Some(hex_option(option)?),
            "last_crc" => claimed_crc = hex_option(option)?,
            other => return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("unrecognized option: {other}"))),
        }
    }
    if ahead && claimed_id.is_none() {
        return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "ahead requires start_id"));
    }
    if let Some(id) = claimed_id {
        let last_crc = u32::try_from(claimed_crc).map_err(|_| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "last_crc has 32 bits"))?;
        let claim = Claim { end: start.start_lsn, start_id: StartId::new(id), last_crc };
        if let Some(common) = common_point(node, claim, ahead).await? {
            conn.put_result(&[("common_lsn", ColumnType::Text)], &[vec![Some(common.to_string())]]);
            return Ok(After::Ready);
        }
    }
    let history = node.history();
    let current = node.engine.wal().tli();
    let tli = start.tli.unwrap_or(current);
    let flushed = node.engine.wal().confirmed();
    // Of this very start, as its start id says: it may have been sent before it was synced.
    let upto = if ahead && node.engine.wal().is_writing() { node.engine.wal().published() } else { flushed };
    let ends_at = if tli == current {
        None
    } else {
        let end = history.end_of(tli).filter(|end| start.start_lsn <= *end);
        if end.is_none() {
            let error = SqlError::new(
                SqlState::INTERNAL_ERROR,
                format!("requested starting point {} on timeline {tli} is not in this server's history", start.start_lsn),
            );
            return Err(match history.end_of(tli) {
                Some(fork) => error.detail(format!("This server's history forked from timeline {tli} at {fork}.")),
                None => SqlError::new(SqlState::INTERNAL_ERROR, format!("requested timeline {tli} is not in this server's history")),
            });
        }
        end
    };
    if ends_at.is_none() && start.start_lsn > upto {
        return Err(SqlError::new(
            SqlState::INTERNAL_ERROR,
            format!("requested starting point {} is ahead of the WAL flush position of this server {flushed}", start.start_lsn),
        ));
    }
    if let Some(slot) = &slot {
        slot.reserve(start.start_lsn.min(flushed));
    }
    if ends_at != Some(start.start_lsn) {
        let entry = node.senders.enter(conn.pid, conn.user, conn.application_name, conn.client, conn.backend_start);
        conn.out.copy_response(CopyKind::Both, false, 0);
        conn.flush().await?;
        let mut stream = Stream {
            node: Arc::clone(node),
            entry,
            slot,
            bytes: WalBytes { node: Arc::clone(node), open: None },
            tli,
            history,
            ends_at,
            sent: start.start_lsn,
            cuts,
            ahead,
            told_durable: Lsn::INVALID,
            flushed_there: Lsn::INVALID,
            compressor,
            lag: LagTracker::default(),
            done_sending: false,
            done_receiving: false,
            last_reply: Instant::now(),
            ping_sent: false,
            scratch: vec![0; MAX_SEND_BYTES],
        };
        stream.entry.report(|info| {
            info.state = SenderState::Catchup;
            info.sent = start.start_lsn;
        });
        if stream.run(conn).await? == After::Close {
            return Ok(After::Close);
        }
        if let Some(end) = stream.ends_at {
            put_next_timeline(conn, &stream.history, tli, end);
        }
    } else if let Some(end) = ends_at {
        put_next_timeline(conn, &history, tli, end);
    }
    // Ends that result set, if there is one; another follows for the command itself. Stock clients wait for both.
    conn.out.command_complete("START_STREAMING");
    Ok(After::Ready)
}

fn hex_option(option: &CommandOption) -> Result<u64, SqlError> {
    u64::from_str_radix(option.text()?, 16)
        .map_err(|_| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("{} is not a hexadecimal number", option.name)))
}

/// Looks whether a standby's WAL is part of our history. If only up to a point, that point: it has to cut its WAL back to there.
async fn common_point(node: &Arc<Replication>, claim: Claim, ahead: bool) -> Result<Option<Lsn>, SqlError> {
    let comparing = Arc::clone(node);
    let shared = tokio::task::spawn_blocking(move || comparing.compare(&claim)).await.map_err(|e| SqlError::internal(e.to_string()))??;
    match shared {
        // Nothing may be confirmed of WAL that cannot be compared.
        Shared::Unknown if ahead && has_wal_before(node, claim.end) => Err(SqlError::new(
            SqlState::DATA_CORRUPTED,
            format!("WAL of this server cannot be read up to the requested starting point {}", claim.end),
        )),
        // If our WAL of that place is gone the stream says so.
        Shared::All | Shared::Ahead | Shared::Unknown => Ok(None),
        Shared::UpTo(common) => Ok(Some(common)),
        Shared::Foreign => Err(SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("requested starting point {} is not in this server's history", claim.end),
        )
        .detail(format!("The last record of the standby was written under start id {}, which has no such record here.", claim.start_id))
        .hint("Rewind the standby, or clone it again.")),
    }
}

fn has_wal_before(node: &Replication, lsn: Lsn) -> bool {
    let last = Lsn::from_u64(lsn.as_u64().saturating_sub(1));
    node.engine.wal().read_at(last, &mut [0]).is_ok_and(|n| n > 0)
}

fn put_next_timeline(conn: &mut Connection<'_>, history: &History, tli: TimelineId, end: Lsn) {
    let next = history.next_after(tli).unwrap_or_else(|| history.tli());
    let row = vec![Some(next.to_string()), Some(end.to_string())];
    conn.put_rows(&[("next_tli", ColumnType::Int8), ("next_tli_startpos", ColumnType::Text)], &[row]);
}

impl Stream {
    /// Streams until both sides have ended the copy, or the node has stopped and everything is shipped.
    async fn run(&mut self, conn: &mut Connection<'_>) -> Result<After, SqlError> {
        let mut wal_moved = self.node.wal_moved();
        let mut sync_begins = self.ahead.then(|| self.node.sync_begins());
        // A receiving WAL is not sent before it is confirmed.
        let _follows = (self.ahead && self.node.engine.wal().is_writing()).then(|| self.node.engine.wal().follow_syncs());
        let mut stopping = self.node.stopping();
        let mut reloads = self.node.config.subscribe();
        let mut out = Writer::default();
        let (mut reader, mut writer) = tokio::io::split(&mut *conn.socket);
        loop {
            if out.buf.is_empty() && !self.done_sending {
                self.fill(&mut out)?;
            }
            if self.done_sending && self.done_receiving && out.buf.is_empty() {
                return Ok(After::Ready);
            }
            if *stopping.borrow() && out.buf.is_empty() && self.sent >= self.node.engine.wal().confirmed() {
                self.entry.update(|info| info.state = SenderState::Stopping);
                if self.flushed_there >= self.sent {
                    out.command_complete("COPY 0");
                    writer.write_all_buf(&mut out.buf).await.map_err(|e| lost(&e))?;
                    return Ok(After::Close);
                }
                if !self.ping_sent {
                    self.ping(&mut out);
                }
            }
            let timeout = self.node.config.current().duration(Setting::WalSenderTimeout).filter(|t| !t.is_zero());
            let deadline = timeout.map(|t| tokio::time::Instant::from_std(self.last_reply + if self.ping_sent { t } else { t / 2 }));
            tokio::select! {
                read = reader.read_buf(conn.incoming) => {
                    if read.map_err(|e| lost(&e))? == 0 {
                        return Err(SqlError::new(SqlState::CONNECTION_FAILURE, "unexpected EOF on standby connection").fatal());
                    }
                    while let Some(message) = Frontend::decode(conn.incoming, STANDBY_MESSAGE_LIMIT).map_err(|e| SqlError::new(SqlState::PROTOCOL_VIOLATION, e.to_string()).fatal())? {
                        if message == Frontend::Terminate {
                            return Ok(After::Close);
                        }
                        self.received(message, &mut out)?;
                    }
                }
                written = writer.write_buf(&mut out.buf), if !out.buf.is_empty() => {
                    if written.map_err(|e| lost(&e))? == 0 {
                        return Err(lost(&io::ErrorKind::WriteZero.into()));
                    }
                }
                moved = wal_moved.changed(), if out.buf.is_empty() && !self.done_sending => {
                    if moved.is_err() {
                        return Err(SqlError::new(SqlState::ADMIN_SHUTDOWN, "terminating walsender due to node stop").fatal());
                    }
                }
                () = changed(&mut sync_begins), if out.buf.is_empty() && !self.done_sending => {}
                _ = stopping.changed() => {}
                _ = reloads.changed() => {}
                () = sleep_until(deadline) => {
                    if self.ping_sent {
                        tracing::info!("terminating walsender process due to replication timeout");
                        return Err(SqlError::new(SqlState::CONNECTION_FAILURE, "terminating walsender process due to replication timeout").fatal());
                    }
                    self.ping(&mut out);
                }
            }
        }
    }

    fn ping(&mut self, out: &mut Writer) {
        self.ping_sent = true;
        let sent = self.sent;
        out.message(b'd', |b| message::put_keepalive(b, sent, timestamp_now(), true));
    }

    /// Puts the next message of WAL, if there is WAL to send; ends the copy at the end of an old timeline.
    fn fill(&mut self, out: &mut Writer) -> Result<(), SqlError> {
        if self.node.cuts() != self.cuts {
            return Err(
                SqlError::new(SqlState::ADMIN_SHUTDOWN, "terminating walsender because WAL was cut back to follow upstream").fatal()
            );
        }
        let wal = Arc::clone(self.node.engine.wal());
        if self.ends_at.is_none() && wal.tli() != self.tli {
            // Promoted, or followed a promotion, while we stream: the timeline now has an end.
            self.history = self.node.history();
            self.ends_at = Some(self.history.end_of(self.tli).unwrap_or(self.sent));
        }
        let durable = self.ends_at.unwrap_or_else(|| wal.confirmed());
        let limit = if self.ahead && self.ends_at.is_none() && wal.is_writing() { wal.syncing().max(durable) } else { durable };
        if self.ahead && self.told_durable < durable {
            self.told_durable = durable;
            out.message(b'd', |b| message::put_bound(b, durable, timestamp_now()));
        }
        if self.sent >= limit {
            if self.ends_at.is_some() {
                out.message(b'c', |_| {});
                self.done_sending = true;
            } else {
                self.entry.update(|info| {
                    if info.state == SenderState::Catchup {
                        tracing::debug!("\"{}\" has now caught up with upstream server", info.application_name);
                        info.state = SenderState::Streaming;
                    }
                });
            }
            return Ok(());
        }
        if self.slot.as_ref().is_some_and(SlotGuard::is_invalidated) {
            return Err(slot_error(SlotError::Invalidated(self.slot.as_ref().map(|s| s.name().to_owned()).unwrap_or_default())).fatal());
        }
        let want = usize::try_from(limit.bytes_since(self.sent).unwrap_or(0)).unwrap_or(usize::MAX).min(MAX_SEND_BYTES);
        let got = self.bytes.read(self.tli, &self.history, self.sent, &mut self.scratch[..want])?;
        let raw = &self.scratch[..got];
        let (start, now) = (self.sent, timestamp_now());
        let before = out.buf.len();
        match &mut self.compressor {
            None => out.message(b'd', |b| {
                message::put_xlog_data_header(b, start, durable, now);
                b.put_slice(raw);
            }),
            Some(compressor) => {
                let mut failure = Ok(());
                let began = thread_cpu_time();
                out.message(b'd', |b| {
                    message::put_compressed_header(b, start, durable, now, u32::try_from(raw.len()).unwrap_or(u32::MAX));
                    failure = compressor.put(raw, b);
                });
                failure.map_err(|e| SqlError::internal(format!("compressing WAL: {e}")).fatal())?;
                let took = thread_cpu_time().saturating_sub(began);
                self.entry.update(|info| info.compression = Some(info.compression.unwrap_or_default() + took));
            }
        }
        self.sent = Lsn::from_u64(self.sent.as_u64() + got as u64);
        self.lag.sent(self.sent);
        let (sent, wire) = (self.sent, (out.buf.len() - before) as u64);
        self.entry.update(|info| {
            info.sent = sent;
            info.wal_bytes += got as u64;
            info.wire_bytes += wire;
            if sent >= limit && info.state == SenderState::Catchup {
                info.state = SenderState::Streaming;
            }
        });
        Ok(())
    }

    fn received(&mut self, frame: Frontend, out: &mut Writer) -> Result<(), SqlError> {
        let unexpected =
            |what: &str| Err(SqlError::new(SqlState::PROTOCOL_VIOLATION, format!("unexpected message type \"{what}\"")).fatal());
        match frame {
            Frontend::CopyData(bytes) => {
                let message =
                    StandbyMessage::decode(&bytes).map_err(|e| SqlError::new(SqlState::PROTOCOL_VIOLATION, e.to_string()).fatal())?;
                self.last_reply = Instant::now();
                self.ping_sent = false;
                match message {
                    StandbyMessage::Status { written, flushed, applied, sent_at, reply_requested } => {
                        let lag = self.lag.reached([written, flushed, applied]);
                        self.flushed_there = flushed;
                        if let Some(slot) = self.slot.as_ref().filter(|_| flushed != Lsn::INVALID) {
                            // What is not durable here may yet be asked for again, with other bytes.
                            slot.confirm(flushed.min(self.node.engine.wal().confirmed()));
                        }
                        self.entry.report(|info| {
                            (info.written, info.flushed, info.applied) = (written, flushed, applied);
                            info.reply_time = Some(sent_at);
                            for (kept, new) in info.lag.iter_mut().zip(lag) {
                                *kept = new.or(kept.filter(|_| flushed < info.sent));
                            }
                        });
                        if reply_requested {
                            let sent = self.sent;
                            out.message(b'd', |b| message::put_keepalive(b, sent, timestamp_now(), false));
                        }
                    }
                    StandbyMessage::FeedbackLsn { horizon, .. } => {
                        let horizon = Some(horizon).filter(|&h| h != Lsn::INVALID);
                        match &self.slot {
                            // It holds also while the standby is away.
                            Some(slot) => slot.feedback(|_, kept| *kept = horizon),
                            None => self.entry.report(|info| info.horizon = horizon),
                        }
                        self.node.feedback_changed();
                    }
                    // Shown only: horizons are LSNs.
                    StandbyMessage::Feedback { xmin, xmin_epoch, .. } => {
                        let xmin = if xmin == 0 { 0 } else { u64::from(xmin_epoch) << 32 | u64::from(xmin) };
                        match &self.slot {
                            Some(slot) => slot.feedback(|shown, _| *shown = xmin),
                            None => self.entry.report(|info| info.xmin = xmin),
                        }
                    }
                }
                Ok(())
            }
            Frontend::CopyDone => {
                if !self.done_sending {
                    out.message(b'c', |_| {});
                    self.done_sending = true;
                }
                self.done_receiving = true;
                Ok(())
            }
            Frontend::CopyFail(_) => unexpected("f"),
            Frontend::Query(_) => unexpected("Q"),
            Frontend::Flush | Frontend::Sync | Frontend::Terminate => Ok(()),
            Frontend::Parse { .. }
            | Frontend::Bind { .. }
            | Frontend::Describe(_)
            | Frontend::Execute { .. }
            | Frontend::Close(_)
            | Frontend::FunctionCall
            | Frontend::Password(_) => unexpected("?"),
        }
    }
}

/// Waits until a channel that is there tells something.
async fn changed(told: &mut Option<tokio::sync::watch::Receiver<()>>) {
    match told {
        // The sender lives as long as the node.
        Some(told) => drop(told.changed().await),
        None => std::future::pending().await,
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.node.feedback_changed();
    }
}
