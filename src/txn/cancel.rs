//! Asking a session to stop: query cancel, terminate, timeouts.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;

use super::error::TxnError;
use super::wait::Waiter;

/// What of a session is in replay's way on a standby. PostgreSQL: `ProcSignalReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Conflict {
    /// It has, or may have, temporary files in a tablespace that is dropped.
    Tablespace = 0,
    /// It has locked, by LOCK TABLE, what a transaction of the primary locks exclusively.
    Lock = 1,
    /// Its snapshot may see row versions that are removed.
    Snapshot = 2,
    /// A cursor of it stands on a page that is cleaned up.
    BufferPin = 3,
    /// It is in the way and waits for replay itself.
    Deadlock = 4,
    /// It is connected to a database that is dropped.
    Database = 5,
}

impl Conflict {
    /// All kinds, by number.
    pub const ALL: [Self; 6] = [Self::Tablespace, Self::Lock, Self::Snapshot, Self::BufferPin, Self::Deadlock, Self::Database];

    /// DETAIL of the error that its session gets.
    pub fn detail(self) -> &'static str {
        match self {
            Self::Tablespace => "User was or might have been using tablespace that must be dropped.",
            Self::Lock => "User was holding a relation lock for too long.",
            Self::Snapshot => "User query might have needed to see row versions that must be removed.",
            Self::BufferPin => "User was holding shared buffer pin for too long.",
            Self::Deadlock => "User transaction caused buffer deadlock with recovery.",
            Self::Database => "User was connected to a database that must be dropped.",
        }
    }

    /// As `log_recovery_conflict_waits` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tablespace => "recovery conflict on tablespace",
            Self::Lock => "recovery conflict on lock",
            Self::Snapshot => "recovery conflict on snapshot",
            Self::BufferPin => "recovery conflict on buffer pin",
            Self::Deadlock => "recovery conflict on buffer deadlock",
            Self::Database => "recovery conflict on database",
        }
    }
}

/// Why a session is asked to stop. Later ones outrank earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CancelReason {
    /// `statement_timeout`.
    StatementTimeout,
    /// A cancel request, or `pg_cancel_backend`.
    Query,
    /// Replay on this standby needs what the session still holds.
    RecoveryConflict(Conflict),
    /// The same, and the session sits idle in its transaction or does not let go. Ends the session.
    RecoveryConflictEnds(Conflict),
    /// `idle_in_transaction_session_timeout`. Ends the session.
    IdleInTransactionTimeout,
    /// `idle_session_timeout`. Ends the session.
    IdleSessionTimeout,
    /// `pg_terminate_backend`, or the server stops. Ends the session.
    Terminate,
    /// Another process of the server crashed, or it stops at once. Ends the session.
    Crash,
}

impl CancelReason {
    /// As one byte, in the same order, never 0: the reason above, the kind of conflict below.
    fn to_u8(self) -> u8 {
        match self {
            Self::StatementTimeout => 0x10,
            Self::Query => 0x20,
            Self::RecoveryConflict(kind) => 0x30 | kind as u8,
            Self::RecoveryConflictEnds(kind) => 0x40 | kind as u8,
            Self::IdleInTransactionTimeout => 0x50,
            Self::IdleSessionTimeout => 0x60,
            Self::Terminate => 0x70,
            Self::Crash => 0x80,
        }
    }

    fn from_u8(v: u8) -> Option<Self> {
        let kind = || Conflict::ALL.get(usize::from(v & 0xf)).copied();
        Some(match v >> 4 {
            1 => Self::StatementTimeout,
            2 => Self::Query,
            3 => Self::RecoveryConflict(kind()?),
            4 => Self::RecoveryConflictEnds(kind()?),
            5 => Self::IdleInTransactionTimeout,
            6 => Self::IdleSessionTimeout,
            7 => Self::Terminate,
            8 => Self::Crash,
            _ => return None,
        })
    }

    /// PostgreSQL's message for it.
    pub fn message(self) -> &'static str {
        match self {
            Self::StatementTimeout => "canceling statement due to statement timeout",
            Self::Query => "canceling statement due to user request",
            Self::RecoveryConflict(_) => "canceling statement due to conflict with recovery",
            Self::RecoveryConflictEnds(_) => "terminating connection due to conflict with recovery",
            Self::IdleInTransactionTimeout => "terminating connection due to idle-in-transaction timeout",
            Self::IdleSessionTimeout => "terminating connection due to idle-session timeout",
            Self::Terminate => "terminating connection due to administrator command",
            Self::Crash => "terminating connection because of crash of another server process",
        }
    }

    /// Whether it ends the session, not only the statement.
    pub fn ends_session(self) -> bool {
        self.to_u8() >= 0x40
    }
}

/// A session's stop flag. Cheap to check in loops; wakes the session if it waits for a lock.
#[derive(Default)]
pub struct CancelFlag {
    /// 0 or a `CancelReason`. Relaxed: `check` needs no other data with it.
    reason: AtomicU8,
    /// The lock wait the session is in, if any. Rank 90: nothing else is taken while held except the waiter's own lock.
    waiting: Mutex<Option<Arc<Waiter>>>,
    /// Somebody else waits now: if the session sleeps for a lock, it is to look for a deadlock again.
    look_again: AtomicBool,
    /// Wakes the session from anything else it waits for: its client, say.
    raised: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for CancelFlag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CancelFlag({:?})", self.reason())
    }
}

impl CancelFlag {
    /// A flag nobody has raised.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Raises the flag, unless it is raised for something graver already, and wakes the session from a lock wait.
    pub fn cancel(&self, reason: CancelReason) {
        self.reason.fetch_max(reason.to_u8(), Ordering::SeqCst);
        if let Some(w) = self.waiting.lock().as_ref() {
            w.notify();
        }
        if let Some(raised) = self.raised.get() {
            raised();
        }
    }

    /// Has the session look for a deadlock if it sleeps for a lock. PostgreSQL: `CheckDeadLockAlert`.
    pub fn look_for_deadlock(&self) {
        self.look_again.store(true, Ordering::SeqCst);
        if let Some(w) = self.waiting.lock().as_ref() {
            w.notify();
        }
    }

    /// Whether it is to look; it is told once.
    pub(super) fn is_to_look(&self) -> bool {
        self.look_again.load(Ordering::Relaxed) && self.look_again.swap(false, Ordering::SeqCst)
    }

    /// Calls `wake` whenever the flag is raised. The first caller counts.
    pub fn on_raise(&self, wake: impl Fn() + Send + Sync + 'static) {
        // Only the session's entry does this, once.
        let _once = self.raised.set(Box::new(wake));
    }

    /// What it was raised for.
    pub fn reason(&self) -> Option<CancelReason> {
        CancelReason::from_u8(self.reason.load(Ordering::Relaxed))
    }

    /// Lowers the flag at the start of a statement, except for reasons that end the session.
    pub fn reset(&self) {
        let v = self.reason.load(Ordering::Relaxed);
        if v != 0 && CancelReason::from_u8(v).is_some_and(|r| !r.ends_session()) {
            // If a graver reason arrives in between it stays.
            let _lost_race = self.reason.compare_exchange(v, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Lowers the flag for good reasons and bad: the session is over, and what it cleans up must not be stopped.
    pub fn forget(&self) {
        self.reason.store(0, Ordering::SeqCst);
    }

    /// Error if raised.
    ///
    /// # Errors
    /// [`TxnError::Cancelled`].
    #[inline]
    pub fn check(&self) -> Result<(), TxnError> {
        match self.reason.load(Ordering::Relaxed) {
            0 => Ok(()),
            v => Err(TxnError::Cancelled(CancelReason::from_u8(v).unwrap_or(CancelReason::Terminate))),
        }
    }

    /// Waits for what another task does: `begin` starts it and hands over what it calls when it is done. False: time is up.
    ///
    /// # Errors
    /// [`TxnError::Cancelled`]; the task goes on.
    pub fn wait_for_task(&self, deadline: Instant, begin: impl FnOnce(Box<dyn FnOnce() + Send>)) -> Result<bool, TxnError> {
        let (waiter, done) = (Arc::new(Waiter::default()), Arc::new(AtomicBool::new(false)));
        self.enter_wait(&waiter);
        let (wakes, tells) = (Arc::clone(&waiter), Arc::clone(&done));
        begin(Box::new(move || {
            tells.store(true, Ordering::Release);
            wakes.notify();
        }));
        let outcome = super::wait::blocking(|| {
            loop {
                if done.load(Ordering::Acquire) {
                    return Ok(true);
                }
                // After `enter_wait`: a cancel that came before it is seen here, a later one wakes.
                self.check()?;
                if !waiter.wait(Some(deadline)) {
                    return Ok(done.load(Ordering::Acquire));
                }
            }
        });
        self.leave_wait();
        outcome
    }

    /// Notes the wait the session enters, so that `cancel` can end it.
    pub(super) fn enter_wait(&self, waiter: &Arc<Waiter>) {
        *self.waiting.lock() = Some(Arc::clone(waiter));
    }

    /// The wait is over.
    pub(super) fn leave_wait(&self) {
        *self.waiting.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graver_reason_stays_and_every_reason_survives_the_byte() {
        let flag = CancelFlag::new();
        let mut all = vec![CancelReason::StatementTimeout, CancelReason::Query];
        all.extend(Conflict::ALL.map(CancelReason::RecoveryConflict));
        all.extend(Conflict::ALL.map(CancelReason::RecoveryConflictEnds));
        all.extend([
            CancelReason::IdleInTransactionTimeout,
            CancelReason::IdleSessionTimeout,
            CancelReason::Terminate,
            CancelReason::Crash,
        ]);
        for reason in all {
            flag.cancel(reason);
            assert_eq!(flag.reason(), Some(reason));
            flag.cancel(CancelReason::StatementTimeout);
            assert_eq!(flag.reason(), Some(reason));
            assert_eq!(reason.ends_session(), reason > CancelReason::RecoveryConflict(Conflict::Database));
        }
    }
}
