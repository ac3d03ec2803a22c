//! The rows of `pg_control_system()`, `pg_control_checkpoint()`, `pg_control_recovery()` and `pg_control_init()`.
//!
//! PostgreSQL: utils/misc/pg_controldata.c.

use afterimage_wal::control_file::ControlFile;
use afterimage_wal::ids::{Lsn, SegNo};
use afterimage_wal::segment;

use crate::sql::types::Datum;

/// Seconds from 1970 to 2000.
const PG_EPOCH_SECONDS: i64 = 946_684_800;

fn int(value: u32) -> Datum {
    Datum::Int4(i32::try_from(value).unwrap_or(i32::MAX))
}

fn lsn(value: Lsn) -> Datum {
    Datum::Lsn(value.as_u64())
}

fn time(unix: i64) -> Datum {
    Datum::TimestampTz((unix - PG_EPOCH_SECONDS) * 1_000_000)
}

/// The columns of one of them.
pub(super) fn row(function: &str, control: &ControlFile) -> Vec<Datum> {
    let checkpoint = &control.checkpoint_copy;
    match function {
        "pg_control_system" => vec![
            int(control.control_version),
            int(control.catalog_version),
            // Signed, as PostgreSQL shows it.
            Datum::Int8(control.system_id.get().cast_signed()),
            time(control.time),
        ],
        "pg_control_checkpoint" => {
            let segno = SegNo::new(checkpoint.redo.as_u64() / u64::from(control.segment_bytes.max(1)));
            let next = checkpoint.next_xid.as_u64();
            vec![
                lsn(control.checkpoint),
                lsn(checkpoint.redo),
                Datum::text(segment::file_name(checkpoint.tli, segno, control.segment_bytes)),
                int(checkpoint.tli.get()),
                int(checkpoint.prev_tli.get()),
                Datum::Bool(checkpoint.full_page_writes),
                Datum::text(format!("{}:{}", next >> 32, next & 0xffff_ffff)),
                Datum::Oid(checkpoint.next_oid),
                // There are no multixacts and no commit timestamps.
                Datum::Oid(1),
                Datum::Oid(0),
                Datum::Oid(checkpoint.oldest_xid.low()),
                Datum::Oid(1),
                Datum::Oid(checkpoint.oldest_active_xid.low()),
                Datum::Oid(1),
                Datum::Oid(1),
                Datum::Oid(0),
                Datum::Oid(0),
                time(checkpoint.time),
            ]
        }
        "pg_control_recovery" => vec![
            lsn(control.min_recovery_point),
            int(control.min_recovery_tli.get()),
            lsn(control.backup_start),
            lsn(control.backup_end),
            Datum::Bool(control.backup_end_required),
        ],
        _ => vec![
            int(8),
            int(8192),
            int(131_072),
            int(8192),
            int(control.segment_bytes),
            int(64),
            int(32),
            int(1996),
            int(2048),
            Datum::Bool(true),
            int(control.checksum_version),
        ],
    }
}
