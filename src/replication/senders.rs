//! The senders of a node: one entry per connection that streams WAL from us, with what its standby reported.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use afterimage_wal::ids::Lsn;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::sync_names::StandbyPosition;

/// What a sender is doing, as `pg_stat_replication.state` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderState {
    /// Connected, nothing streams yet.
    Startup,
    /// Sends a base backup.
    Backup,
    /// Behind.
    Catchup,
    /// Sends WAL as it becomes durable.
    Streaming,
    /// The node stops; ships what is left.
    Stopping,
}

impl SenderState {
    /// True while its standby's reports count for synchronous replication.
    pub fn streams(self) -> bool {
        matches!(self, Self::Streaming | Self::Stopping)
    }

    /// PostgreSQL's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Backup => "backup",
            Self::Catchup => "catchup",
            Self::Streaming => "streaming",
            Self::Stopping => "stopping",
        }
    }
}

/// One row of `pg_stat_replication`.
#[derive(Clone, Debug)]
pub struct SenderInfo {
    /// Session.
    pub pid: i32,
    /// Role.
    pub user: String,
    /// `application_name`: what synchronous_standby_names matches.
    pub application_name: String,
    /// Client address; `None` for a Unix-domain socket.
    pub client_addr: Option<IpAddr>,
    /// Client port; -1 for a Unix-domain socket.
    pub client_port: i32,
    /// When the session began, microseconds since 2000.
    pub backend_start: i64,
    /// What it does.
    pub state: SenderState,
    /// Sent up to (exclusive).
    pub sent: Lsn,
    /// Written there.
    pub written: Lsn,
    /// Durable there.
    pub flushed: Lsn,
    /// Replayed there.
    pub applied: Lsn,
    /// Time from sending to the report that it was written, flushed, replayed.
    pub lag: [Option<Duration>; 3],
    /// Last report, microseconds since 2000.
    pub reply_time: Option<i64>,
    /// The least commit LSN its snapshots read at (hot standby feedback), if it told.
    pub horizon: Option<Lsn>,
    /// Oldest xid its snapshots need, as PostgreSQL's feedback says it; 0 for none. With a slot the slot shows it.
    pub xmin: u64,
    /// WAL bytes sent, before compression.
    pub wal_bytes: u64,
    /// Bytes on the wire for them.
    pub wire_bytes: u64,
    /// Whether they are compressed, and the processor time that took.
    pub compression: Option<Duration>,
    /// How far a base backup is.
    pub backup: Option<Arc<BackupProgress>>,
    started: u64,
}

/// What a base backup does, in PostgreSQL's words.
pub const BACKUP_PHASES: [&str; 6] = [
    "initializing",
    "waiting for checkpoint to finish",
    "estimating backup size",
    "streaming database files",
    "waiting for wal archiving to finish",
    "transferring wal files",
];

/// What `pg_stat_progress_basebackup` shows.
#[derive(Debug, Default)]
pub struct BackupProgress {
    /// Index into [`BACKUP_PHASES`].
    pub phase: AtomicUsize,
    /// Bytes there are, if they were asked for; 0 otherwise.
    pub total: AtomicU64,
    /// Bytes done.
    pub streamed: Arc<AtomicU64>,
    /// Archives there are.
    pub tablespaces: AtomicU64,
    /// Archives done.
    pub tablespaces_streamed: AtomicU64,
}

/// All senders.
#[derive(Debug)]
pub struct Senders {
    /// Entries by number. Rank 61, a leaf but for the watch below.
    entries: Mutex<BTreeMap<u64, SenderInfo>>,
    next: AtomicU64,
    /// Moves with every report and every arrival or departure.
    changed: watch::Sender<u64>,
    news: OnceLock<News>,
}

/// Called with every report and every arrival or departure, by who brings it.
struct News(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for News {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("News")
    }
}

/// A sender's own entry; leaving removes it.
#[derive(Debug)]
pub struct SenderEntry {
    senders: Arc<Senders>,
    id: u64,
}

impl Default for Senders {
    fn default() -> Self {
        Self { entries: Mutex::default(), next: AtomicU64::new(1), changed: watch::Sender::new(0), news: OnceLock::new() }
    }
}

impl Senders {
    /// Adds a sender.
    pub fn enter(
        self: &Arc<Self>,
        pid: i32,
        user: &str,
        application_name: &str,
        client: Option<(IpAddr, u16)>,
        backend_start: i64,
    ) -> SenderEntry {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let info = SenderInfo {
            pid,
            user: user.to_owned(),
            application_name: application_name.to_owned(),
            client_addr: client.map(|(addr, _)| addr),
            client_port: client.map_or(-1, |(_, port)| i32::from(port)),
            backend_start,
            state: SenderState::Startup,
            sent: Lsn::INVALID,
            written: Lsn::INVALID,
            flushed: Lsn::INVALID,
            applied: Lsn::INVALID,
            lag: [None; 3],
            reply_time: None,
            horizon: None,
            xmin: 0,
            wal_bytes: 0,
            wire_bytes: 0,
            compression: None,
            backup: None,
            started: id,
        };
        self.entries.lock().insert(id, info);
        self.touch();
        SenderEntry { senders: Arc::clone(self), id }
    }

    /// Every sender, oldest first.
    pub fn list(&self) -> Vec<SenderInfo> {
        self.entries.lock().values().cloned().collect()
    }

    /// Those that stream, as synchronous replication looks at them; in the order of [`Senders::list`] without the others.
    pub fn streaming(&self) -> Vec<StandbyPosition> {
        self.entries.lock().values().filter(|s| s.state.streams() && s.flushed != Lsn::INVALID).map(position).collect()
    }

    /// The least horizon standbys asked for through feedback.
    pub fn feedback_horizon(&self) -> Option<Lsn> {
        self.entries.lock().values().filter_map(|s| s.horizon).min()
    }

    /// Woken by every report, arrival and departure.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Calls `news` with every report, arrival and departure, at once. The first caller counts.
    pub(super) fn on_news(&self, news: impl Fn() + Send + Sync + 'static) {
        // Only the node's start does this, once.
        let _once = self.news.set(News(Box::new(news)));
    }

    fn touch(&self) {
        if let Some(News(tell)) = self.news.get() {
            tell();
        }
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// The part of an entry that synchronous replication needs.
pub fn position(info: &SenderInfo) -> StandbyPosition {
    StandbyPosition {
        name: info.application_name.clone(),
        started: info.started,
        written: info.written,
        flushed: info.flushed,
        applied: info.applied,
    }
}

impl SenderEntry {
    /// Changes what others see without waking them.
    pub fn update(&self, change: impl FnOnce(&mut SenderInfo)) {
        if let Some(info) = self.senders.entries.lock().get_mut(&self.id) {
            change(info);
        }
    }

    /// Changes and wakes: a report came in, or the state changed.
    pub fn report(&self, change: impl FnOnce(&mut SenderInfo)) {
        self.update(change);
        self.senders.touch();
    }
}

impl Drop for SenderEntry {
    fn drop(&mut self) {
        self.senders.entries.lock().remove(&self.id);
        self.senders.touch();
    }
}
