//! Replay against the queries of a standby.
//!
//! What a record needs out of its way: snapshots older than its horizon, if it removes something they may read; scans that stand on a page
//! it cleans up; those who locked by LOCK TABLE what the primary's transaction locks; temporary files in a tablespace it drops; sessions
//! connected to a database it drops. Replay waits for them up to `max_standby_streaming_delay`, counted from when it last had nothing to
//! do, then cancels them (40001). Sessions of a dropped database are ended at once (57P04); one that waits for a lock which only
//! replay can give up is cancelled after `deadlock_timeout` (40001, or 40P01 if replay itself waits for a lock).
//! PostgreSQL: storage/ipc/standby.c, "Recovery Conflict".

use std::time::{Duration, Instant};

use afterimage_wal::{Lsn, Record, rmgr};
use smallvec::SmallVec;

use crate::{
    access::{self, AccessCtx},
    storage::{database, smgr_redo::SmgrRecord},
    txn::{self, CancelReason, Need, cancel::Conflict, standby::ClosedDatabase},
};

/// How long a cancelled session may take to let go before it is ended.
const GRACE: Duration = Duration::from_secs(2);

/// How long sessions may hold up a record.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Then they are cancelled; `None`: never.
    pub deadline: Option<Instant>,
    /// `deadlock_timeout`: after it a wait is looked at more closely.
    pub deadlock_timeout: Duration,
    /// `log_recovery_conflict_waits`.
    pub log_waits: bool,
}

/// What a record needs out of its way.
pub fn needs(ctx: &AccessCtx, record: &Record<'_>) -> SmallVec<[Need; 2]> {
    let mut needs: SmallVec<[Need; 2]> = horizon_of(ctx, record).map(Need::Snapshots).into_iter().collect();
    match record.rmgr() {
        rmgr::HEAP => {
            let pages = access::heap::redo::cleaned_pages(record);
            if !pages.is_empty() {
                needs.push(Need::Pages(pages));
            }
        }
        rmgr::STANDBY => needs.extend(txn::standby::need_of(&ctx.txns, record)),
        rmgr::DATABASE => needs.extend(database::dropped_tablespace(record).map(Need::Tablespace)),
        rmgr::XACT => needs.extend(txn::redo::dropped_database(record).map(Need::Database)),
        _ => {}
    }
    needs
}

/// The horizon of a record that removes something.
fn horizon_of(ctx: &AccessCtx, record: &Record<'_>) -> Option<Lsn> {
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

/// Waits until nobody is in the way of `need`; those who still are when patience ends are cancelled. A database stays closed to logins while
/// the result lives.
pub fn resolve(ctx: &AccessCtx, need: &Need, patience: &Patience) -> Option<ClosedDatabase> {
    let txns = &ctx.txns;
    let closed = txns.prepare_for(need);
    let _waits = txns.replay_waits_for(need);
    let kind = need.conflict();
    let began = Instant::now();
    let (mut deadline, mut ends) = match kind {
        Conflict::Database => (Some(began), true),
        Conflict::Tablespace | Conflict::Lock | Conflict::Snapshot | Conflict::BufferPin | Conflict::Deadlock => (patience.deadline, false),
    };
    let mut look = began + patience.deadlock_timeout;
    let mut logged = false;
    loop {
        if txns.wait_until_clear(need, Some(deadline.map_or(look, |at| at.min(look)))) {
            break;
        }
        let now = Instant::now();
        let in_the_way = txns.in_the_way(need);
        let cancel = |proc: &txn::Proc, kind: Conflict, ends: bool| {
            tracing::debug!("{}: canceling session {}", kind.name(), proc.id().0);
            let reason = if ends { CancelReason::RecoveryConflictEnds(kind) } else { CancelReason::RecoveryConflict(kind) };
            // Who was cancelled over something else, a moment ago, is on his way.
            let told = proc.cancel().reason().is_some_and(|known| known >= CancelReason::RecoveryConflict(Conflict::Tablespace));
            proc.cancel().cancel(reason);
            if !told {
                txns.conflicts().note(proc.database(), kind);
            }
        };
        if now >= look {
            look = now + patience.deadlock_timeout.max(Duration::from_millis(1));
            if patience.log_waits && !logged && kind != Conflict::Database {
                logged = true;
                let ids: Vec<String> = in_the_way.iter().map(|p| p.id().0.to_string()).collect();
                let detail = format!("Conflicting process{}: {}.", if ids.len() == 1 { "" } else { "es" }, ids.join(", "));
                let (message, millis) = (kind.name(), millis_since(began));
                if ids.is_empty() {
                    tracing::info!("recovery still waiting after {millis} ms: {message}");
                } else {
                    tracing::info!(detail, "recovery still waiting after {millis} ms: {message}");
                }
            }
            for proc in in_the_way.iter().filter(|p| txns.waits_for_replay(p)) {
                if kind == Conflict::Lock {
                    // Locks all around: a deadlock like any other, which the session finds and tells of.
                    proc.cancel().look_for_deadlock();
                } else {
                    cancel(proc, Conflict::Deadlock, false);
                }
            }
        }
        if deadline.is_some_and(|at| now >= at) {
            for proc in &in_the_way {
                cancel(proc, kind, ends);
            }
            // One that does not let go of what it holds is ended.
            ends = true;
            deadline = Some(now + GRACE);
        }
    }
    if logged {
        tracing::info!("recovery finished waiting after {} ms: {}", millis_since(began), kind.name());
    }
    closed
}

/// As PostgreSQL prints it: three digits behind the point.
fn millis_since(began: Instant) -> String {
    let micros = began.elapsed().as_micros();
    format!("{}.{:03}", micros / 1000, micros % 1000)
}
