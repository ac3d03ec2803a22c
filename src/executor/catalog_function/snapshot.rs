//! Transaction ids.

use afterimage_wal::Xid;

use crate::executor::SessionContext;
use crate::sql::functions::{CallTypes, ProcEntry};
use crate::sql::types::{Datum, oids};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::XidStatus;

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
pub(super) fn call(
    ctx: &mut SessionContext,
    func: &'static ProcEntry,
    types: &CallTypes,
    args: &[Datum],
) -> Result<Option<Datum>, SqlError> {
    // The `txid_` functions give int8, the newer ones xid8.
    let number = |xid: Xid| {
        let value = xid.as_u64();
        if types.result == oids::INT8 { Datum::Int8(i64::try_from(value).unwrap_or(i64::MAX)) } else { Datum::Xid8(value) }
    };
    match func.source {
        "pg_current_xact_id" => {
            let txn = ctx.transaction()?;
            txn.check_not_in_recovery("execute pg_current_xact_id()")?;
            txn.xid()?;
            Ok(Some(txn.top_xid().map_or(Datum::Null, number)))
        }
        "xid_age" => {
            // Special xids are older than all others.
            const FIRST_NORMAL: u32 = 3;
            let Datum::Oid(xid) = args[0] else { return Ok(None) };
            let txn = ctx.transaction()?;
            let now = txn.top_xid().unwrap_or_else(|| txn.transactions().next_xid()).as_u64();
            #[expect(clippy::cast_possible_truncation, reason = "such columns have the low half")]
            let age = (now as u32).wrapping_sub(xid).cast_signed();
            Ok(Some(Datum::Int4(if xid < FIRST_NORMAL { i32::MAX } else { age })))
        }
        "pg_current_xact_id_if_assigned" => Ok(Some(ctx.transaction()?.top_xid().map_or(Datum::Null, number))),
        "pg_xact_status" => {
            let value = match &args[0] {
                Datum::Xid8(n) => *n,
                other => u64::try_from(other.as_i64()?).unwrap_or(0),
            };
            let xid = Xid::from_u64(value);
            let txns = ctx.engine.ctx().txns.clone();
            if xid >= txns.next_xid() {
                let message = format!("transaction ID {value} is in the future");
                return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
            }
            if xid < txns.oldest_status() {
                return Ok(Some(Datum::Null));
            }
            Ok(Some(match txns.xid_status(xid)? {
                XidStatus::Running => Datum::text("in progress"),
                XidStatus::Committed(_) => Datum::text("committed"),
                XidStatus::Aborted => Datum::text("aborted"),
            }))
        }
        "pg_export_snapshot" => {
            let database = ctx.database;
            let txn = ctx.transaction()?;
            if txn.savepoints() > 0 {
                return Err(SqlError::new(SqlState::ACTIVE_SQL_TRANSACTION, "cannot export a snapshot from a subtransaction"));
            }
            Ok(Some(Datum::text(txn.export_snapshot(database)?)))
        }
        _ => Ok(None),
    }
}
