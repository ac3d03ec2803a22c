//! The rows of `pg_stat_replication`, `pg_stat_wal_receiver`, `pg_replication_slots`, `pg_stat_archiver`,
//! `pg_stat_wal`, `pg_stat_bgwriter`, `pg_stat_recovery_prefetch`, `pg_stat_progress_basebackup`, and of ours `afterimage_stat_compression`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use afterimage_wal::ids::Lsn;

use super::services::Replication;
use super::sync_names::SyncNames;
use super::{senders, slot::SlotInfo};
use crate::config::Setting;
use crate::sql::catalog::{VirtualCx, VirtualTable};
use crate::sql::types::{Datum, Inet, Interval, Numeric};
use crate::sqlstate::SqlError;

type Emit<'a> = &'a mut dyn FnMut(&[Datum]) -> Result<(), SqlError>;

/// One view: its name and what makes its rows.
struct View {
    node: Arc<Replication>,
    rows: fn(&Replication, &mut VirtualCx<'_>, Emit<'_>) -> Result<(), SqlError>,
}

impl VirtualTable for View {
    fn rows(&self, cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
        (self.rows)(&self.node, cx, emit)
    }
}

/// The views of this layer, by name, for `Catalog::register_virtual`.
pub fn providers(node: &Arc<Replication>) -> Vec<(&'static str, Arc<dyn VirtualTable>)> {
    let view = |rows| Arc::new(View { node: Arc::clone(node), rows }) as Arc<dyn VirtualTable>;
    vec![
        ("pg_stat_replication", view(stat_replication)),
        ("pg_stat_wal_receiver", view(stat_wal_receiver)),
        ("pg_replication_slots", view(replication_slots)),
        ("pg_stat_archiver", view(stat_archiver)),
        ("pg_stat_wal", view(stat_wal)),
        ("pg_stat_bgwriter", view(stat_bgwriter)),
        ("pg_stat_recovery_prefetch", view(stat_recovery_prefetch)),
        ("pg_stat_progress_basebackup", view(progress_basebackup)),
        ("afterimage_stat_compression", view(stat_compression)),
    ]
}

fn since(reset: &AtomicI64) -> Datum {
    Datum::TimestampTz(reset.load(Ordering::Relaxed))
}

/// WAL made here since the start; sync and write times are not measured.
fn stat_wal(node: &Replication, _cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let stats = node.engine.wal().stats();
    let value = |counter: &AtomicU64| count(counter.load(Ordering::Relaxed));
    let bytes = Datum::Numeric(Numeric::from(stats.bytes.load(Ordering::Relaxed)));
    emit(&[
        value(&stats.records),
        value(&stats.images),
        bytes,
        Datum::Int8(0),
        value(&stats.syncs),
        value(&stats.syncs),
        Datum::Float8(0.0),
        Datum::Float8(0.0),
        since(&node.since.wal),
    ])
}

/// Checkpoints and who wrote pages.
fn stat_bgwriter(node: &Replication, _cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let (checkpoints, pool) = (node.engine.checkpoint_stats(), node.engine.pool().stats());
    let value = |counter: &AtomicU64| count(counter.load(Ordering::Relaxed));
    #[expect(clippy::cast_precision_loss, reason = "milliseconds need no more")]
    let time = |counter: &AtomicU64| Datum::Float8(counter.load(Ordering::Relaxed) as f64);
    emit(&[
        value(&checkpoints.timed),
        value(&checkpoints.requested),
        time(&checkpoints.write_ms),
        time(&checkpoints.sync_ms),
        value(&pool.checkpoint_writes),
        value(&pool.cleaner_writes),
        Datum::Int8(0),
        value(&pool.backend_writes),
        Datum::Int8(0),
        value(&pool.allocations),
        since(&node.since.bgwriter),
    ])
}

/// What recovery read ahead: of a crash at this start, or of this standby so far.
fn stat_recovery_prefetch(node: &Replication, _cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let stats = &node.engine.progress().prefetch;
    let value = |counter: &AtomicU64| count(counter.load(Ordering::Relaxed));
    let now = |counter: &AtomicU64| Datum::Int4(i32::try_from(counter.load(Ordering::Relaxed)).unwrap_or(i32::MAX));
    emit(&[
        since(&node.since.prefetch),
        value(&stats.prefetch),
        value(&stats.hit),
        value(&stats.skip_init),
        value(&stats.skip_new),
        value(&stats.skip_fpw),
        value(&stats.skip_rep),
        now(&stats.wal_distance),
        now(&stats.block_distance),
        now(&stats.io_depth),
    ])
}

fn text(value: &str) -> Datum {
    Datum::Text(value.into())
}

/// An LSN, NULL for none.
fn lsn(value: Lsn) -> Datum {
    if value == Lsn::INVALID { Datum::Null } else { Datum::Lsn(value.as_u64()) }
}

/// The low 32 bits of an xid, as the type shows it; NULL for none.
fn xid(value: u64) -> Datum {
    #[expect(clippy::cast_possible_truncation, reason = "the type has 32 bits; PostgreSQL shows the low ones too")]
    if value == 0 { Datum::Null } else { Datum::Oid(value as u32) }
}

fn time(value: Option<i64>) -> Datum {
    value.map_or(Datum::Null, Datum::TimestampTz)
}

fn lag(value: Option<Duration>) -> Datum {
    value.map_or(Datum::Null, |d| {
        Datum::Interval(Interval { micros: i64::try_from(d.as_micros()).unwrap_or(i64::MAX), ..Interval::default() })
    })
}

fn count(value: u64) -> Datum {
    Datum::Int8(i64::try_from(value).unwrap_or(i64::MAX))
}

fn stat_replication(node: &Replication, cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let list = node.senders.list();
    let streaming: Vec<usize> = (0..list.len()).filter(|&i| list[i].state.streams() && list[i].flushed != Lsn::INVALID).collect();
    let standbys: Vec<_> = streaming.iter().map(|&i| senders::position(&list[i])).collect();
    // Nobody waits for the standbys of a standby.
    let names = if node.engine.is_in_recovery() {
        None
    } else {
        SyncNames::parse(node.config.current().str(Setting::SynchronousStandbyNames)).ok().flatten()
    };
    for (i, sender) in list.iter().enumerate() {
        let role = cx.catalog.find_role(&sender.user)?;
        let index = streaming.iter().position(|&s| s == i);
        let (priority, state) = match (&names, index) {
            (Some(names), Some(index)) => (names.priority(&sender.application_name), names.sync_state(&standbys, index)),
            // It catches up.
            (Some(names), None) if sender.flushed != Lsn::INVALID => match names.priority(&sender.application_name) {
                0 => (0, "async"),
                priority => (priority, "potential"),
            },
            (_, None) | (None, _) => (0, "async"),
        };
        emit(&[
            Datum::Int4(sender.pid),
            role.map_or(Datum::Null, |r| Datum::Oid(r.oid)),
            text(&sender.user),
            text(&sender.application_name),
            sender
                .client_addr
                .map_or(Datum::Null, |addr| Datum::Inet(Arc::new(Inet { addr, prefix: if addr.is_ipv4() { 32 } else { 128 } }))),
            Datum::Null,
            Datum::Int4(sender.client_port),
            Datum::TimestampTz(sender.backend_start),
            xid(sender.xmin),
            text(sender.state.name()),
            lsn(sender.sent),
            lsn(sender.written),
            lsn(sender.flushed),
            lsn(sender.applied),
            lag(sender.lag[0]),
            lag(sender.lag[1]),
            lag(sender.lag[2]),
            Datum::Int4(i32::try_from(priority).unwrap_or(i32::MAX)),
            text(state),
            time(sender.reply_time),
        ])?;
    }
    Ok(())
}

/// Base backups that run.
fn progress_basebackup(node: &Replication, _cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    for sender in node.senders.list() {
        let Some(backup) = &sender.backup else { continue };
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // The estimate is one: files grow.
        let (total, streamed) = (value(&backup.total), value(&backup.streamed));
        emit(&[
            Datum::Int4(sender.pid),
            text(senders::BACKUP_PHASES.get(backup.phase.load(Ordering::Relaxed)).copied().unwrap_or("")),
            if total == 0 { Datum::Null } else { count(total.max(streamed)) },
            count(streamed),
            count(value(&backup.tablespaces)),
            count(value(&backup.tablespaces_streamed)),
        ])?;
    }
    Ok(())
}

/// What compression of the stream saves and costs, for every stream that leaves and the one that arrives.
fn stat_compression(node: &Replication, _cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more")]
    let mut row = |pid: i32, name: Option<&str>, direction: &str, wal_bytes: u64, wire_bytes: u64, compression: Option<Duration>| {
        emit(&[
            Datum::Int4(pid),
            name.map_or(Datum::Null, text),
            text(direction),
            text(if compression.is_some() { "zstd" } else { "none" }),
            count(wal_bytes),
            count(wire_bytes),
            if wire_bytes == 0 { Datum::Null } else { Datum::Float8(wal_bytes as f64 / wire_bytes as f64) },
            Datum::Float8(compression.unwrap_or_default().as_secs_f64() * 1000.0),
        ])
    };
    for sender in node.senders.list().iter().filter(|sender| sender.state.streams()) {
        row(sender.pid, Some(&sender.application_name), "sent", sender.wal_bytes, sender.wire_bytes, sender.compression)?;
    }
    if let Some(info) = node.receiver.get() {
        row(info.pid, None, "received", info.wal_bytes, info.wire_bytes, info.compression)?;
    }
    Ok(())
}

fn stat_wal_receiver(node: &Replication, _cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let Some(info) = node.receiver.get() else { return Ok(()) };
    let tli = |tli: afterimage_wal::TimelineId| Datum::Int4(i32::try_from(tli.get()).unwrap_or(i32::MAX));
    emit(&[
        Datum::Int4(info.pid),
        text(info.status),
        lsn(info.receive_start_lsn),
        tli(info.receive_start_tli),
        lsn(info.written),
        lsn(info.flushed),
        tli(info.received_tli),
        Datum::TimestampTz(info.last_msg_send_time),
        Datum::TimestampTz(info.last_msg_receipt_time),
        lsn(info.latest_end_lsn),
        Datum::TimestampTz(info.latest_end_time),
        info.slot_name.as_deref().map_or(Datum::Null, text),
        text(&info.sender_host),
        Datum::Int4(info.sender_port),
        text(&info.conninfo),
    ])
}

fn replication_slots(node: &Replication, _cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    for slot in node.slots.list() {
        let (status, safe) = wal_status(node, &slot);
        emit(&[
            text(&slot.name),
            Datum::Null,
            text("physical"),
            Datum::Null,
            Datum::Null,
            Datum::Bool(slot.temporary),
            Datum::Bool(slot.active_pid.is_some()),
            slot.active_pid.map_or(Datum::Null, Datum::Int4),
            xid(slot.xmin),
            Datum::Null,
            slot.restart_lsn.filter(|_| !slot.invalidated).map_or(Datum::Null, |l| Datum::Lsn(l.as_u64())),
            Datum::Null,
            status.map_or(Datum::Null, text),
            safe.map_or(Datum::Null, Datum::Int8),
            Datum::Bool(false),
        ])?;
    }
    Ok(())
}

/// `wal_status` and `safe_wal_size`, as GetWALAvailability and pg_get_replication_slots decide them.
fn wal_status(node: &Replication, slot: &SlotInfo) -> (Option<&'static str>, Option<i64>) {
    if slot.invalidated {
        return (Some("lost"), None);
    }
    let Some(restart) = slot.restart_lsn else { return (None, None) };
    let settings = node.config.current();
    let wal = node.engine.wal();
    let segment = u64::from(wal.segment_bytes());
    let segments = |setting| settings.bytes(setting).map(|bytes| bytes / segment);
    let end = wal.published().as_u64();
    let (current, target) = (end / segment, restart.as_u64() / segment);
    let kept = node.kept_segment(end);
    let in_max_wal_size = current.saturating_sub(segments(Setting::MaxWalSize).unwrap_or(0) + 1).max(1);
    let safe = segments(Setting::MaxSlotWalKeepSize).map(|limit| {
        let failing = (target + limit.max(segments(Setting::WalKeepSize).unwrap_or(0)) + 1) * segment;
        i64::try_from(failing).unwrap_or(i64::MAX) - i64::try_from(end).unwrap_or(i64::MAX)
    });
    let oldest = wal.oldest().map_or(0, |lsn| lsn.as_u64() / segment);
    if target >= kept {
        (Some(if target >= in_max_wal_size { "reserved" } else { "extended" }), safe)
    } else if target >= oldest || slot.active_pid.is_some() {
        (Some("unreserved"), safe)
    } else {
        (Some("lost"), None)
    }
}

fn stat_archiver(node: &Replication, _cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    let info = node.archiver.get();
    let pair = |last: &Option<(String, i64)>| match last {
        Some((name, at)) => [text(name), Datum::TimestampTz(*at)],
        None => [Datum::Null, Datum::Null],
    };
    let [archived, archived_at] = pair(&info.last_archived);
    let [failed, failed_at] = pair(&info.last_failed);
    emit(&[count(info.archived_count), archived, archived_at, count(info.failed_count), failed, failed_at, since(&node.since.archiver)])
}
