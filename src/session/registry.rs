//! Who is connected: for cancel requests, `pg_stat_activity`, `pg_terminate_backend`, connection limits and shutdown.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rand::Rng as _;
use tokio::sync::{Notify, watch};

use crate::sql::types::Oid;
use crate::txn::{CancelFlag, CancelReason};

/// What `pg_stat_activity.state` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Logging in; shown as NULL.
    Starting,
    /// Running a statement.
    Active,
    /// Waiting for a command.
    Idle,
    /// Waiting for a command, inside a transaction.
    IdleInTransaction,
    /// Waiting for a command, inside a failed transaction.
    IdleInTransactionAborted,
    /// Streaming to a standby.
    Streaming,
}

impl SessionState {
    /// As PostgreSQL spells it.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Starting => None,
            Self::Active | Self::Streaming => Some("active"),
            Self::Idle => Some("idle"),
            Self::IdleInTransaction => Some("idle in transaction"),
            Self::IdleInTransactionAborted => Some("idle in transaction (aborted)"),
        }
    }
}

/// What a session is doing. Times are microseconds since 2000.
#[derive(Clone, Debug)]
pub struct Activity {
    /// State.
    pub state: SessionState,
    /// Database OID and name.
    pub database: Option<(u32, Arc<str>)>,
    /// User OID and name.
    pub user: Option<(u32, Arc<str>)>,
    /// `application_name`.
    pub application: Arc<str>,
    /// The current or last statement.
    pub query: Arc<str>,
    /// When the transaction began.
    pub xact_start: Option<i64>,
    /// When the statement began.
    pub query_start: Option<i64>,
    /// When the state changed.
    pub state_change: Option<i64>,
    /// Whether it is a replication connection.
    pub replication: bool,
    /// Whether it is an autovacuum worker.
    pub autovacuum: bool,
}

/// One session, as others see it.
#[derive(Debug)]
pub struct SessionEntry {
    /// Its number: what clients call its process id.
    pub pid: i32,
    /// What a cancel request must know.
    secret: i32,
    /// Raised to stop its statement.
    pub cancel: Arc<CancelFlag>,
    /// Wakes it when it waits for its client.
    pub wake: Notify,
    /// Address of the client; `None` for a Unix socket.
    pub client: Option<(IpAddr, u16)>,
    /// This end of its connection.
    pub local: Option<(IpAddr, u16)>,
    /// When it connected, microseconds since 2000.
    pub backend_start: i64,
    /// What it does. Rank 95, leaf.
    pub activity: Mutex<Activity>,
    /// Counts against `max_connections`.
    counted: AtomicBool,
}

impl SessionEntry {
    /// Stops its statement, or ends it.
    pub fn stop(&self, reason: CancelReason) {
        self.cancel.cancel(reason);
    }
}

/// Session numbers start above every process id Linux gives, so that one taken for a process id hits nobody.
pub(crate) const FIRST_PID: i32 = 1 << 22;
/// Each start numbers its sessions within a range of so many: by a number alone `pg_ctl kill` finds the server.
pub(crate) const RANGE: i32 = 1 << 20;
/// Behind the ranges come numbers of what is no session.
const RANGES: std::ops::Range<i32> = FIRST_PID / RANGE..0x7000_0000 / RANGE;

/// All sessions.
#[derive(Debug)]
pub struct Registry {
    /// Rank 94; sessions' `activity` may be taken under it.
    sessions: Mutex<BTreeMap<i32, Arc<SessionEntry>>>,
    /// Where this start's range begins.
    first: i32,
    next: AtomicI32,
    /// Number of sessions that are or were being served, watched by shutdown.
    count: watch::Sender<usize>,
    /// How many are between a message and their answer. Relaxed: a hint.
    at_work: AtomicUsize,
}

impl Default for Registry {
    fn default() -> Self {
        let first = rand::rng().random_range(RANGES) * RANGE;
        Self {
            sessions: Mutex::new(BTreeMap::new()),
            first,
            next: AtomicI32::new(first),
            count: watch::Sender::new(0),
            at_work: AtomicUsize::new(0),
        }
    }
}

impl Registry {
    /// A new session. It leaves the list when the result is dropped.
    pub(super) fn enter(self: &Arc<Self>, client: Option<(IpAddr, u16)>, local: Option<(IpAddr, u16)>) -> Registered {
        let secret = rand::rng().random();
        let mut sessions = self.sessions.lock();
        let pid = loop {
            let pid = self.next.fetch_add(1, Ordering::Relaxed);
            if !(self.first..self.first + RANGE).contains(&pid) {
                // Wrapped.
                self.next.store(self.first, Ordering::Relaxed);
            } else if !sessions.contains_key(&pid) {
                break pid;
            }
        };
        let entry = Arc::new(SessionEntry {
            pid,
            secret,
            cancel: CancelFlag::new(),
            wake: Notify::new(),
            client,
            local,
            backend_start: now(),
            activity: Mutex::new(Activity {
                state: SessionState::Starting,
                database: None,
                user: None,
                application: "".into(),
                query: "".into(),
                xact_start: None,
                query_start: None,
                state_change: None,
                replication: false,
                autovacuum: false,
            }),
            counted: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&entry);
        entry.cancel.on_raise(move || {
            if let Some(entry) = weak.upgrade() {
                entry.wake.notify_one();
            }
        });
        sessions.insert(pid, Arc::clone(&entry));
        let n = sessions.len();
        drop(sessions);
        self.count.send_replace(n);
        Registered { registry: Arc::clone(self), entry, secret, at_work: false }
    }

    /// How many clients' sessions a role has, those that log in included.
    pub(super) fn count_of(&self, role: Oid) -> usize {
        let of_role = |entry: &&Arc<SessionEntry>| {
            let activity = entry.activity.lock();
            !activity.autovacuum && activity.user.as_ref().is_some_and(|(oid, _)| *oid == role)
        };
        self.sessions.lock().values().filter(of_role).count()
    }

    /// Where the range of session numbers begins.
    pub fn first(&self) -> i32 {
        self.first
    }

    /// Told whenever a session comes or goes.
    pub fn subscribe(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    /// The session of this number.
    pub fn find(&self, pid: i32) -> Option<Arc<SessionEntry>> {
        self.sessions.lock().get(&pid).cloned()
    }

    /// All sessions, by number.
    pub fn list(&self) -> Vec<Arc<SessionEntry>> {
        self.sessions.lock().values().cloned().collect()
    }

    /// A cancel request: stops the session's statement if the secret is right.
    pub fn cancel(&self, pid: i32, secret: i32) -> bool {
        match self.find(pid) {
            Some(entry) if entry.secret == secret => {
                entry.stop(CancelReason::Query);
                true
            }
            _ => false,
        }
    }

    /// Logged-in sessions that count against `max_connections`.
    pub fn client_count(&self) -> usize {
        self.sessions.lock().values().filter(|s| s.counted.load(Ordering::Relaxed)).count()
    }

    /// Ends autovacuum's work.
    pub fn stop_autovacuum(&self) {
        for entry in self.list() {
            if entry.activity.lock().autovacuum {
                entry.stop(CancelReason::Terminate);
            }
        }
    }

    /// Ends sessions: all, or all but replication.
    pub fn stop_all(&self, reason: CancelReason, and_replication: bool) {
        for entry in self.list() {
            if and_replication || !entry.activity.lock().replication {
                entry.stop(reason);
            }
        }
    }

    /// Waits until at most the sessions for which `stays` holds are left.
    pub(super) async fn wait_gone(&self, stays: impl Fn(&Activity) -> bool) {
        let mut count = self.count.subscribe();
        loop {
            let gone = self.sessions.lock().values().all(|s| stays(&s.activity.lock()));
            if gone {
                return;
            }
            if count.changed().await.is_err() {
                return;
            }
        }
    }

    /// Replication connections.
    pub fn sender_count(&self) -> usize {
        self.sessions.lock().values().filter(|s| s.activity.lock().replication).count()
    }

    /// Takes a place among `max` clients of which `reserved` are for superusers.
    pub(super) fn take_place(&self, entry: &SessionEntry, max: usize, reserved: usize, superuser: bool) -> Result<(), bool> {
        let sessions = self.sessions.lock();
        let taken = sessions.values().filter(|s| s.counted.load(Ordering::Relaxed)).count();
        if taken >= max {
            return Err(true);
        }
        if !superuser && taken + reserved >= max {
            return Err(false);
        }
        entry.counted.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// A session's own hold on its entry.
#[derive(Debug)]
pub(super) struct Registered {
    registry: Arc<Registry>,
    pub(super) entry: Arc<SessionEntry>,
    pub(super) secret: i32,
    at_work: bool,
}

impl Registered {
    /// It has a message to answer, or has answered all.
    pub(super) fn set_at_work(&mut self, at_work: bool) {
        if std::mem::replace(&mut self.at_work, at_work) == at_work {
            return;
        }
        if at_work {
            self.registry.at_work.fetch_add(1, Ordering::Relaxed);
        } else {
            self.registry.at_work.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many sessions are at work, replication among them.
    pub(super) fn count_at_work(&self) -> usize {
        self.registry.at_work.load(Ordering::Relaxed)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.set_at_work(false);
        let mut sessions = self.registry.sessions.lock();
        sessions.remove(&self.entry.pid);
        let n = sessions.len();
        drop(sessions);
        self.registry.count.send_replace(n);
    }
}

/// Microseconds since 2000-01-01 UTC.
pub(super) fn now() -> i64 {
    const EPOCH_2000_MICROS: i64 = 946_684_800_000_000;
    jiff::Timestamp::now().as_microsecond() - EPOCH_2000_MICROS
}
