//! Replay against the queries of a standby.
//!
//! A record that removes what an old snapshot may still read carries its horizon, a commit LSN. It is applied once every snapshot here is
//! at or above it. Replay waits for the others up to `max_standby_streaming_delay`, counted from when it last had nothing to do, then
//! cancels them (40001). PostgreSQL: storage/ipc/standby.c, "Recovery Conflict".

use std::time::{Duration, Instant};

use afterimage_wal::{Lsn, Record, rmgr};

use crate::{
    access::{self, AccessCtx},
    storage::smgr_redo::SmgrRecord,
    txn::CancelReason,
};

/// How long a cancelled session may take to let go of its snapshot before it is ended.
const GRACE: Duration = Duration::from_secs(2);

/// The horizon of a record that removes something.
pub fn horizon_of(ctx: &AccessCtx, record: &Record<'_>) -> Option<Lsn> {
    match record.rmgr() {
        rmgr::HEAP => match access::heap::redo::freeze_horizon(record) {
            // What is settled here too, every snapshot here sees. An error of a status file is met again by whoever needs it.
            Some((xid, _)) if xid < ctx.txns.settled_floor() || (ctx.txns.settle().is_ok() && xid < ctx.txns.settled_floor()) => None,
            Some((_, horizon)) => Some(horizon),
            None => access::heap::redo::conflict_horizon(record),
        },
        rmgr::BTREE => access::btree::conflict_horizon(record),
        rmgr::SMGR => match SmgrRecord::decode(record.kind(), record.main())? {
            SmgrRecord::Truncate(_, _, _, horizon) => Some(horizon),
            SmgrRecord::Create(..) | SmgrRecord::Extend(..) | SmgrRecord::Unlink(_) => None,
        },
        _ => None,
    }
}

/// Waits until no snapshot is older than `horizon`; past the deadline cancels those that are. Returns how many were cancelled.
pub fn resolve(ctx: &AccessCtx, horizon: Lsn, deadline: Option<Instant>) -> usize {
    let mut cancelled = 0;
    if ctx.txns.wait_for_snapshots(horizon, deadline) {
        return cancelled;
    }
    let mut reason = CancelReason::RecoveryConflict;
    loop {
        for proc in ctx.txns.procs() {
            if proc.is_in_the_way(horizon) {
                tracing::debug!("recovery conflict on snapshot: canceling session {}", proc.id().0);
                proc.cancel().cancel(reason);
                if reason == CancelReason::RecoveryConflict {
                    ctx.txns.conflicts().note(proc.database());
                }
                cancelled += 1;
            }
        }
        if ctx.txns.wait_for_snapshots(horizon, Some(Instant::now() + GRACE)) {
            return cancelled;
        }
        // One that sits idle in its transaction holds its snapshot through a cancel.
        reason = CancelReason::RecoveryConflictEnds;
    }
}
