//! SQL functions about WAL, recovery and replication.
//!
//! PostgreSQL: access/transam/xlogfuncs.c, replication/slotfuncs.c.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use afterimage_wal::ids::{BlockNo, Lsn, SegNo, StartId};
use afterimage_wal::lineage::{Claim, Shared};
use afterimage_wal::segment;
use parking_lot::Mutex;

use super::base_backup::file_copy::{Running, Stopped};
use super::base_backup::label::ArchiveWait;
use super::compare;
use super::sender::slot_error;
use super::services::Replication;
use crate::config::Setting;
use crate::executor::{ExternalFunctions, Notice, SessionContext};
use crate::sql::functions::{CallTypes, ProcEntry, SetRows};
use crate::sql::types::Datum;
use crate::sqlstate::{SqlError, SqlState};
use crate::storage::PageTag;
use crate::storage::files::relation_file;

/// These functions, over one node.
pub struct Functions {
    node: Arc<Replication>,
}

impl Functions {
    /// Over a node.
    pub fn new(node: Arc<Replication>) -> Self {
        Self { node }
    }

    fn primary_only(&self, what: &str) -> Result<(), SqlError> {
        if self.node.engine.is_in_recovery() {
            return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "recovery is in progress")
                .hint(format!("{what} cannot be executed during recovery.")));
        }
        Ok(())
    }

    fn recovery_only(&self) -> Result<(), SqlError> {
        if self.node.engine.is_in_recovery() {
            return Ok(());
        }
        Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "recovery is not in progress")
            .hint("Recovery control functions can only be executed during recovery."))
    }

    /// Replay that is to end is neither paused nor resumed. PostgreSQL: `PromoteIsTriggered`.
    fn not_promoting(&self, function: &str) -> Result<(), SqlError> {
        self.recovery_only()?;
        if !self.node.receiver_ends() {
            return Ok(());
        }
        Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "standby promotion is ongoing")
            .hint(format!("{function} cannot be executed after promotion is triggered.")))
    }

    /// PostgreSQL: `CheckSlotPermissions` in replication/slot.c.
    fn may_use_slots(session: &SessionContext) -> Result<(), SqlError> {
        match session.catalog.role(session.user)? {
            Some(role) if role.superuser || role.replication => Ok(()),
            Some(_) | None => {
                Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, "must be superuser or replication role to use replication slots"))
            }
        }
    }

    fn promote(&self, session: &mut SessionContext, wait: bool, seconds: i32) -> Result<Datum, SqlError> {
        self.recovery_only()?;
        if seconds <= 0 {
            return Err(SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "\"wait_seconds\" must not be negative or zero"));
        }
        let node = Arc::clone(&self.node);
        if !wait {
            tokio::spawn(async move { node.promote().await });
            return Ok(Datum::Bool(true));
        }
        // What is left to replay may remove what this statement's snapshot sees: neither waits for the other.
        let proc = Arc::clone(&session.proc);
        let _aside = proc.step_aside();
        let deadline = Instant::now() + Duration::from_secs(u64::from(seconds.unsigned_abs()));
        let outcome = Arc::new(Mutex::new(None));
        let result = Arc::clone(&outcome);
        let done = session.cancel.wait_for_task(deadline, |done| {
            tokio::spawn(async move {
                *result.lock() = Some(node.promote().await);
                done();
            });
        })?;
        let promoted = outcome.lock().take();
        match promoted {
            Some(promoted) if done => promoted.map(|()| Datum::Bool(true)),
            Some(_) | None => {
                session.warning(SqlState::WARNING, format!("server did not promote within {seconds} seconds"));
                Ok(Datum::Bool(false))
            }
        }
    }

    /// `pg_backup_start`. A cancel ends the wait for the checkpoint, and the backup with it.
    fn backup_start(&self, session: &SessionContext, label: &str, fast: bool) -> Result<Datum, SqlError> {
        const FAR: Duration = Duration::from_secs(86_400 * 365);
        self.node.file_copies.check(&self.node, session.backend_pid, label)?;
        let outcome = Arc::new(Mutex::new(None));
        let (node, label, result) = (Arc::clone(&self.node), label.to_owned(), Arc::clone(&outcome));
        session.cancel.wait_for_task(Instant::now() + FAR, |done| {
            tokio::task::spawn_blocking(move || {
                let begun = Running::begin(&node, &label, fast);
                *result.lock() = Some(begun);
                done();
            });
        })?;
        let begun = outcome.lock().take().ok_or_else(|| SqlError::internal("the backup did not begin"))?;
        Ok(lsn(self.node.file_copies.enter(session.backend_pid, begun?)))
    }

    /// `pg_backup_stop`: ends the session's backup, and waits for the archive if asked to.
    fn backup_stop(&self, session: &mut SessionContext, wait: bool) -> Result<Stopped, SqlError> {
        let stopped = self.node.file_copies.stop(&self.node, session.backend_pid)?;
        if !wait {
            return Ok(stopped);
        }
        let Some(mut waiting) = stopped.archive_wait(&self.node) else {
            say(session, ArchiveWait::no_archive());
            return Ok(stopped);
        };
        loop {
            let (node, files, deadline) = (Arc::clone(&self.node), waiting.files().to_vec(), waiting.deadline());
            let archived = Arc::new(AtomicBool::new(false));
            let result = Arc::clone(&archived);
            session.cancel.wait_for_task(deadline.into_std(), |done| {
                tokio::spawn(async move {
                    let outcome = tokio::time::timeout_at(deadline, ArchiveWait::done(&node, &files)).await;
                    result.store(outcome.is_ok(), Ordering::Release);
                    done();
                });
            })?;
            if archived.load(Ordering::Acquire) {
                say(session, ArchiveWait::all_archived());
                return Ok(stopped);
            }
            if tokio::time::Instant::now() >= deadline {
                say(session, waiting.say());
            }
        }
    }

    /// The file that holds the byte before `lsn`'s end, as pg_walfile_name counts: a boundary belongs to the file before.
    fn file_of(&self, lsn: Lsn) -> (String, u64) {
        let wal = self.node.engine.wal();
        let size = wal.segment_bytes();
        let at = lsn.as_u64();
        let segno = at.saturating_sub(1) / u64::from(size);
        (segment::file_name(wal.tli(), SegNo::new(segno), size), at - segno * u64::from(size))
    }

    fn create_slot(&self, session: &SessionContext, func: &'static ProcEntry, args: &[Datum]) -> Result<Datum, SqlError> {
        Self::may_use_slots(session)?;
        let name = text(args, 0)?;
        let reserve = boolean(args, 1).then(|| self.node.reserve_position());
        self.node.slots.create(name, boolean(args, 2).then_some(session.backend_pid), reserve).map_err(slot_error)?;
        func.record(vec![Datum::text(name), reserve.map_or(Datum::Null, |l| Datum::Lsn(l.as_u64()))])
    }

    fn copy_slot(&self, session: &SessionContext, func: &'static ProcEntry, args: &[Datum]) -> Result<Datum, SqlError> {
        Self::may_use_slots(session)?;
        let (from, to) = (text(args, 0)?, text(args, 1)?);
        let source = self.node.slots.get(from).ok_or_else(|| slot_error(super::slot::SlotError::Missing(from.to_owned())))?;
        let Some(restart) = source.restart_lsn.filter(|_| !source.invalidated) else {
            return Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "cannot copy a replication slot that doesn't reserve WAL",
            ));
        };
        let temporary = if args.len() > 2 { boolean(args, 2) } else { source.temporary };
        self.node.slots.create(to, temporary.then_some(session.backend_pid), Some(restart)).map_err(slot_error)?;
        // The position is one of logical slots.
        func.record(vec![Datum::text(to), Datum::Null])
    }

    fn advance_slot(&self, session: &SessionContext, func: &'static ProcEntry, args: &[Datum]) -> Result<Datum, SqlError> {
        Self::may_use_slots(session)?;
        let name = text(args, 0)?;
        let wanted = lsn_arg(args, 1)?;
        if wanted == Lsn::INVALID {
            return Err(SqlError::new(SqlState::INTERNAL_ERROR, "invalid target WAL LSN"));
        }
        let slot = self.node.slots.get(name).ok_or_else(|| slot_error(super::slot::SlotError::Missing(name.to_owned())))?;
        let Some(restart) = slot.restart_lsn.filter(|_| !slot.invalidated) else {
            return Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("replication slot \"{name}\" cannot be advanced"),
            )
            .detail("This slot has never previously reserved WAL, or it has been invalidated."));
        };
        if wanted < restart {
            return Err(SqlError::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot advance replication slot to {wanted}, minimum is {restart}"),
            ));
        }
        let end = if self.node.engine.is_in_recovery() { self.node.engine.replayed_lsn() } else { self.node.engine.wal().flushed() };
        let moved = self.node.slots.advance(name, session.backend_pid, wanted.min(end)).map_err(slot_error)?;
        func.record(vec![Datum::text(name), Datum::Lsn(moved.as_u64())])
    }
}

/// Tells the client something now.
fn say(session: &mut SessionContext, (severity, fields): (&'static str, SqlError)) {
    session.notices.push(Notice { severity, fields });
    session.tell();
}

fn text(args: &[Datum], i: usize) -> Result<&str, SqlError> {
    match args.get(i) {
        Some(Datum::Text(text)) => Ok(text),
        _ => Err(SqlError::internal(format!("argument {} is not text", i + 1))),
    }
}

fn boolean(args: &[Datum], i: usize) -> bool {
    matches!(args.get(i), Some(Datum::Bool(true)))
}

fn integer(args: &[Datum], i: usize) -> i32 {
    match args.get(i) {
        Some(Datum::Int4(n)) => *n,
        _ => 0,
    }
}

fn number(args: &[Datum], i: usize) -> i64 {
    match args.get(i) {
        Some(Datum::Int8(n)) => *n,
        _ => 0,
    }
}

/// The page that a path, as messages have it, and a block number name.
fn page_tag(args: &[Datum]) -> Result<PageTag, SqlError> {
    let path = text(args, 0)?;
    let found = path.rsplit_once('/').and_then(|(dir, name)| relation_file(dir, name)).filter(|(_, _, segment)| *segment == 0);
    let Some((rel, fork, _)) = found else {
        return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("\"{path}\" is not the path of a relation's file"))
            .hint("Paths are as in messages, or as pg_relation_filepath() answers: base/5/16384."));
    };
    let block = u32::try_from(number(args, 1)).map_err(|_| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "invalid block number"))?;
    Ok(PageTag { rel, fork, block: BlockNo::new(block) })
}

fn lsn_arg(args: &[Datum], i: usize) -> Result<Lsn, SqlError> {
    match args.get(i) {
        Some(Datum::Lsn(n)) => Ok(Lsn::from_u64(*n)),
        _ => Err(SqlError::internal(format!("argument {} is not a pg_lsn", i + 1))),
    }
}

fn lsn(value: Lsn) -> Datum {
    if value == Lsn::INVALID { Datum::Null } else { Datum::Lsn(value.as_u64()) }
}

impl ExternalFunctions for Functions {
    fn call(
        &self,
        session: &mut SessionContext,
        func: &'static ProcEntry,
        _types: &CallTypes,
        args: &[Datum],
    ) -> Result<Option<Datum>, SqlError> {
        let engine = &self.node.engine;
        let wal = engine.wal();
        Ok(Some(match func.name {
            "pg_is_in_recovery" => Datum::Bool(engine.is_in_recovery()),
            "pg_current_wal_lsn" => {
                self.primary_only("WAL control functions")?;
                lsn(wal.written())
            }
            "pg_current_wal_insert_lsn" => {
                self.primary_only("WAL control functions")?;
                lsn(wal.inserted())
            }
            "pg_current_wal_flush_lsn" => {
                self.primary_only("WAL control functions")?;
                lsn(wal.flushed())
            }
            "pg_last_wal_receive_lsn" => {
                // A promotion has replayed all that came.
                let last = if engine.is_in_recovery() { wal.flushed() } else { engine.replayed_lsn() };
                if self.node.has_received() { lsn(last) } else { Datum::Null }
            }
            "pg_last_wal_replay_lsn" if !engine.progress().has_begun() => Datum::Null,
            "pg_last_wal_replay_lsn" => lsn(engine.replayed_lsn()),
            "pg_last_xact_replay_timestamp" => engine.last_replayed_commit_time().map_or(Datum::Null, Datum::TimestampTz),
            // Where the WAL that a reader of our files needs ends: durable, beyond every LSN written to a file so far.
            "afterimage_last_commit_lsn" => lsn(session.proc.last_commit()),
            "afterimage_wal_position" => {
                let (end, tli) = if engine.is_in_recovery() {
                    let control = engine.control_file();
                    let end = engine.replayed_lsn().max(control.min_recovery_point);
                    (end, engine.history().tli_of_end(end))
                } else {
                    let end = wal.published();
                    wal.flush(end)?;
                    (end, wal.tli())
                };
                func.record(vec![Datum::Lsn(end.as_u64()), Datum::Int8(i64::from(tli.get()))])?
            }
            // What a node that is down knows of its WAL's end, compared with ours.
            "afterimage_compare_wal" => {
                let number = |i| match args.get(i) {
                    Some(Datum::Int8(n)) => n.cast_unsigned(),
                    _ => 0,
                };
                let last_crc = u32::try_from(number(2)).unwrap_or(0);
                let claim = Claim { end: lsn_arg(args, 0)?, start_id: StartId::new(number(1)), last_crc };
                Datum::text(match self.node.compare(&claim)? {
                    Shared::All => "all".to_owned(),
                    Shared::Ahead => "ahead".to_owned(),
                    Shared::UpTo(lsn) => lsn.to_string(),
                    Shared::Foreign => "foreign".to_owned(),
                    Shared::Unknown => "unknown".to_owned(),
                })
            }
            "afterimage_repair_page" => {
                self.recovery_only()?;
                let tag = page_tag(args)?;
                let node = Arc::clone(&self.node);
                let repaired = crate::txn::blocking(|| tokio::runtime::Handle::current().block_on(node.repair_page(tag)));
                lsn(repaired?)
            }
            "afterimage_page_digests" => {
                let tag = page_tag(args)?;
                // One answer stays small, and a cancel is heard in between.
                let count = u32::try_from(number(args, 2)).unwrap_or(0).min(1 << 13);
                let mut digests = Vec::new();
                for block in 0..count {
                    session.check_cancel()?;
                    let Some(block) = tag.block.get().checked_add(block) else { break };
                    compare::Digest::of(engine, PageTag { block: BlockNo::new(block), ..tag })?.encode(&mut digests);
                }
                Datum::Bytea(digests.into())
            }
            "pg_control_system" | "pg_control_checkpoint" | "pg_control_recovery" | "pg_control_init" => {
                func.record(super::control_rows::row(func.name, &engine.control_file()))?
            }
            "pg_switch_wal" => {
                self.primary_only("WAL control functions")?;
                let end = wal.switch_segment()?;
                // The segment is over: standbys and the archive are to have it.
                wal.flush(end)?;
                lsn(end)
            }
            "pg_backup_start" => self.backup_start(session, text(args, 0)?, boolean(args, 1))?,
            "pg_backup_stop" => {
                let stopped = self.backup_stop(session, boolean(args, 0))?;
                func.record(vec![lsn(stopped.end), Datum::text(stopped.label), Datum::text(stopped.tablespace_map)])?
            }
            "pg_stat_reset_shared" => {
                let since = &self.node.since;
                let reset = match text(args, 0)? {
                    "archiver" => {
                        self.node.archiver.reset();
                        &since.archiver
                    }
                    "bgwriter" => {
                        engine.checkpointer().stats().reset();
                        &since.bgwriter
                    }
                    "wal" => {
                        wal.stats().reset();
                        &since.wal
                    }
                    "recovery_prefetch" => {
                        engine.progress().prefetch.reset(super::timestamp_now());
                        &since.prefetch
                    }
                    other => {
                        return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("unrecognized reset target: \"{other}\""))
                            .hint("Target must be \"archiver\", \"bgwriter\", \"recovery_prefetch\", or \"wal\"."));
                    }
                };
                reset.store(super::timestamp_now(), Ordering::Relaxed);
                Datum::Void
            }
            // Counters are shared as they are made.
            "pg_stat_force_next_flush" => Datum::Void,
            "pg_logical_emit_message" => {
                if engine.is_in_recovery() {
                    let text = "cannot execute pg_logical_emit_message() during recovery";
                    return Err(SqlError::new(SqlState::READ_ONLY_SQL_TRANSACTION, text));
                }
                let xid = if boolean(args, 0) { Some(session.transaction()?.xid()?) } else { None };
                let message = match args.get(2) {
                    Some(Datum::Bytea(bytes)) => bytes.as_ref(),
                    _ => text(args, 2)?.as_bytes(),
                };
                lsn(engine.log_message(xid, session.database, text(args, 1)?, message)?)
            }
            "pg_create_restore_point" => {
                self.primary_only("WAL control functions")?;
                if self.node.config.current().str(Setting::WalLevel) == "minimal" {
                    return Err(SqlError::new(
                        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                        "WAL level not sufficient for creating a restore point",
                    )
                    .hint("wal_level must be set to \"replica\" or \"logical\" at server start."));
                }
                let name = text(args, 0)?;
                if name.len() >= 64 {
                    return Err(SqlError::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        "value too long for restore point (maximum 63 characters)",
                    ));
                }
                lsn(engine.create_restore_point(name)?)
            }
            "pg_walfile_name" => {
                self.primary_only("pg_walfile_name()")?;
                Datum::text(self.file_of(lsn_arg(args, 0)?).0)
            }
            "pg_walfile_name_offset" => {
                self.primary_only("pg_walfile_name_offset()")?;
                let (name, offset) = self.file_of(lsn_arg(args, 0)?);
                func.record(vec![Datum::text(name), Datum::Int4(i32::try_from(offset).unwrap_or(i32::MAX))])?
            }
            "pg_promote" => self.promote(session, boolean(args, 0), integer(args, 1))?,
            "pg_create_physical_replication_slot" => self.create_slot(session, func, args)?,
            "pg_copy_physical_replication_slot" => self.copy_slot(session, func, args)?,
            "pg_replication_slot_advance" => self.advance_slot(session, func, args)?,
            "pg_drop_replication_slot" => {
                Self::may_use_slots(session)?;
                self.node.slots.drop_slot(text(args, 0)?, session.backend_pid, false).map_err(slot_error)?;
                Datum::Void
            }
            "pg_wal_replay_pause" => {
                self.not_promoting("pg_wal_replay_pause()")?;
                if let Some(replay) = engine.replay() {
                    replay.pause();
                }
                Datum::Void
            }
            "pg_wal_replay_resume" => {
                self.not_promoting("pg_wal_replay_resume()")?;
                if let Some(replay) = engine.replay() {
                    replay.resume();
                }
                Datum::Void
            }
            "pg_is_wal_replay_paused" => {
                self.recovery_only()?;
                Datum::Bool(engine.replay().is_some_and(|r| r.is_paused()))
            }
            "pg_get_wal_replay_pause_state" => {
                self.recovery_only()?;
                Datum::text(engine.replay().map_or("not paused", |r| r.pause_state().name()))
            }
            _ => return Ok(None),
        }))
    }

    fn call_set(
        &self,
        _session: &mut SessionContext,
        func: &'static ProcEntry,
        _types: &CallTypes,
        _args: &[Datum],
    ) -> Result<Option<SetRows>, SqlError> {
        if func.name != "afterimage_relation_files" {
            return Ok(None);
        }
        let mut rows = Vec::new();
        for (path, blocks) in compare::files(&self.node.engine)? {
            rows.push(func.record(vec![Datum::text(path), Datum::Int8(i64::from(blocks))])?);
        }
        Ok(Some(Box::new(rows.into_iter().map(Ok))))
    }
}
