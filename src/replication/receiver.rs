//! The walreceiver: keeps a standby's WAL growing, from the archive and from its upstream.
//!
//! Received bytes are verified record by record and written, which is reported at once; then they are made durable, which is reported too; replay follows on
//! its own. While more keeps coming the flusher syncs what is here and the next is written meanwhile; when all is written, the receiver syncs
//! itself: it has a thread of its own, so nobody else waits for the disk, and nobody has to be woken. An upstream of our kind sends
//! WAL while it syncs it (`wal_receiver_ahead`): replay is then held back until the upstream says that it is durable there.
//! Positions are reported when they move, not on a timer only, and each report carries all of them. A clean disconnect is answered by
//! reconnecting at once; after failures the wait doubles up to `wal_retrieve_retry_interval`.
//!
//! PostgreSQL: replication/walreceiver.c, WaitForWALToBecomeAvailable in access/transam/xlogrecovery.c.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use afterimage_wal::history::History;
use afterimage_wal::ids::{Lsn, SegNo, StartId, TimelineId};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::archive;
use super::client::{Bounds, Client, ClientError, Event};
use super::conninfo::{Address, ConnInfo};
use super::location;
use super::message::{MessageError, ServerMessage, StandbyMessage};
use super::sender::ZSTD_WINDOW_LOG;
use super::services::{Replication, Verdict};
use super::{thread_cpu_time, timestamp_now};
use crate::config::Setting;
use crate::control::supervisor::sleep_until;
use crate::recovery::restore;
use crate::recovery::target::TimelineGoal;
use crate::sqlstate::SqlState;

/// Most bytes one compressed message may hold once decompressed; senders send 128 kB.
const RAW_LIMIT_BYTES: usize = 1 << 20;
/// First wait after a failure.
const FIRST_RETRY: Duration = Duration::from_millis(50);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("could not connect to the primary server: {0}")]
    Connect(#[source] ClientError),
    #[error("could not receive database system identifier and timeline ID from the primary server: {0}")]
    Identify(#[source] ClientError),
    #[error("could not receive timeline history file from the primary server: {0}")]
    FetchHistory(#[source] ClientError),
    #[error("could not start WAL streaming: {0}")]
    Start(#[source] ClientError),
    #[error("could not receive data from WAL stream: {0}")]
    Client(#[from] ClientError),
    #[error(
        "database system identifier differs between the primary and standby\nDETAIL:  The primary's identifier is {theirs}, the standby's identifier is {ours}."
    )]
    SystemId { theirs: String, ours: String },
    #[error("highest timeline {theirs} of the primary is behind recovery timeline {ours}")]
    TimelineBehind { theirs: TimelineId, ours: TimelineId },
    #[error(
        "new timeline {theirs} forked off current database system timeline {ours} before current recovery point {ours_end}\nDETAIL:  The histories part at {fork}; WAL after it exists only here.\nHINT:  Rewind this node, or clone it again."
    )]
    Forked { theirs: TimelineId, ours: TimelineId, fork: Lsn, ours_end: Lsn },
    #[error(
        "WAL received here up to {ours_end} is not part of the primary's history, which parts at {common}\nDETAIL:  WAL up to {replayed} is replayed already.\nHINT:  Rewind this node, or clone it again."
    )]
    Parted { common: Lsn, ours_end: Lsn, replayed: Lsn },
    #[error("invalid message received from primary: {0}")]
    Message(#[from] MessageError),
    #[error("compressed WAL from the primary does not decode: {0}")]
    Compression(String),
    #[error("could not write received WAL: {0}")]
    Wal(#[from] afterimage_wal::WalError),
    #[error("terminating walreceiver due to timeout")]
    Timeout,
    /// A primary at rest has sent whole records, so a length that lost a bit is the likeliest reason.
    #[error("record at {at} stays incomplete")]
    Incomplete { at: Lsn },
    #[error("unexpected answer from primary: {0}")]
    Protocol(String),
    #[error("could not store timeline history file: {0}")]
    History(#[source] io::Error),
}

impl StreamError {
    /// Trying again cannot help until somebody changes something.
    fn is_lasting(&self) -> bool {
        match self {
            Self::SystemId { .. } | Self::TimelineBehind { .. } | Self::Forked { .. } | Self::Parted { .. } => true,
            // An invalidated slot, a history the upstream does not know.
            Self::Start(error) | Self::Client(error) => error.code() == Some(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE.0),
            Self::Connect(_)
            | Self::Identify(_)
            | Self::FetchHistory(_)
            | Self::Message(_)
            | Self::Compression(_)
            | Self::Wal(_)
            | Self::Timeout
            | Self::Incomplete { .. }
            | Self::Protocol(_)
            | Self::History(_) => false,
        }
    }
}

/// Waits for what the upstream has to do before a copy, no longer than `limit`: a network that hangs half open answers nothing. PostgreSQL
/// waits for ever here, unless `connect_timeout` is set.
async fn within<T, E: Into<StreamError>>(limit: Option<Duration>, step: impl Future<Output = Result<T, E>>) -> Result<T, StreamError> {
    match limit {
        Some(limit) => match tokio::time::timeout(limit, step).await {
            Ok(done) => done.map_err(Into::into),
            Err(_) => Err(StreamError::Timeout),
        },
        None => step.await.map_err(Into::into),
    }
}

/// How a stream ended without a failure.
enum StreamEnd {
    /// The upstream stopped or closed the stream.
    Closed,
    /// Promotion, stop, or changed settings.
    Asked,
}

/// What `pg_stat_wal_receiver` shows.
#[derive(Clone, Debug)]
pub struct ReceiverInfo {
    /// Number of the receiver, shown as pid; it stays over timeline switches.
    pub pid: i32,
    /// `starting`, `streaming`, `waiting`, `restarting`.
    pub status: &'static str,
    /// Where this stream began.
    pub receive_start_lsn: Lsn,
    /// Timeline where it began.
    pub receive_start_tli: TimelineId,
    /// Written here.
    pub written: Lsn,
    /// Durable here.
    pub flushed: Lsn,
    /// Timeline of the last WAL received.
    pub received_tli: TimelineId,
    /// Upstream's clock in its last message; before the first, when the stream was asked for.
    pub last_msg_send_time: i64,
    /// When that message came, or the stream was asked for.
    pub last_msg_receipt_time: i64,
    /// Last end of WAL reported to or by the upstream.
    pub latest_end_lsn: Lsn,
    /// When.
    pub latest_end_time: i64,
    /// Slot in use.
    pub slot_name: Option<String>,
    /// Upstream's host or socket directory.
    pub sender_host: String,
    /// Upstream's port.
    pub sender_port: i32,
    /// Connection string without secrets.
    pub conninfo: String,
    /// WAL bytes received in this stream, once decompressed.
    pub wal_bytes: u64,
    /// Bytes on the wire for them.
    pub wire_bytes: u64,
    /// Whether they came compressed, and the processor time that took here.
    pub compression: Option<Duration>,
}

/// Shared state of the receiver; `None` inside while there is none.
#[derive(Debug, Default)]
pub struct ReceiverStatus {
    /// Rank 62, a leaf.
    info: Mutex<Option<ReceiverInfo>>,
    streamed: AtomicBool,
    /// The first segment that was streamed here and is not marked as archived elsewhere. Rank 64, a leaf.
    streamed_from: Mutex<Option<SegNo>>,
    /// The last failure, as logged.
    failed: watch::Sender<String>,
    /// Held while WAL is taken from the archive or the upstream: who ends recovery must not cut WAL back that is being added to. Outermost;
    /// held across I/O.
    pub(super) taking: tokio::sync::Mutex<()>,
    /// Shared by each change of which WAL there is, on its own thread: it goes on to its end though the receiver is told to stop meanwhile.
    pub(super) changing: Arc<tokio::sync::RwLock<()>>,
}

impl ReceiverStatus {
    /// The last failure; waits for the first.
    pub async fn failure(&self) -> String {
        self.failure_with("").await
    }

    /// The last failure, once it has these words.
    pub async fn failure_with(&self, words: &str) -> String {
        let mut failed = self.failed.subscribe();
        failed.wait_for(|text| !text.is_empty() && text.contains(words)).await.map(|text| text.clone()).unwrap_or_default()
    }

    /// True once anything was streamed since the start.
    pub fn was_streaming(&self) -> bool {
        self.streamed.load(Ordering::Relaxed)
    }

    /// The first segment that was streamed here and that [`archive::mark_streamed`] has not seen whole.
    pub(super) fn streamed_from(&self) -> Option<SegNo> {
        *self.streamed_from.lock()
    }

    /// Segments before `next` are marked.
    pub(super) fn streamed_upto(&self, next: SegNo) {
        if let Some(first) = self.streamed_from.lock().as_mut() {
            *first = next.max(*first);
        }
    }

    fn streams_from(&self, segno: SegNo) {
        let mut first = self.streamed_from.lock();
        *first = Some(first.map_or(segno, |known| known.min(segno)));
    }

    /// The row of `pg_stat_wal_receiver`, if a receiver is connected.
    pub fn get(&self) -> Option<ReceiverInfo> {
        self.info.lock().clone()
    }

    fn update(&self, change: impl FnOnce(&mut ReceiverInfo)) {
        if let Some(info) = self.info.lock().as_mut() {
            change(info);
        }
    }
}

/// Feeds a standby until it is promoted or stopped, on a thread of its own.
///
/// # Errors
/// The thread cannot be started.
pub fn start(node: Arc<Replication>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("walreceiver".to_owned()).spawn(move || runtime.block_on(run(node)))?;
    Ok(())
}

async fn run(node: Arc<Replication>) {
    let mut receiver = Receiver {
        pid: node.next_pid(),
        retry: FIRST_RETRY,
        last_failure: None,
        settled: false,
        upstream_is_ours: false,
        refused: false,
        xids: VecDeque::new(),
        node,
    };
    receiver.run().await;
    *receiver.node.receiver.info.lock() = None;
}

struct Receiver {
    node: Arc<Replication>,
    pid: i32,
    retry: Duration,
    /// The last failure logged, so that a lasting one is logged once.
    last_failure: Option<String>,
    /// What a backup left for the archiver was looked at.
    settled: bool,
    /// Our upstream understands what PostgreSQL does not send.
    upstream_is_ours: bool,
    /// Our upstream knows nothing of the start that wrote the end of our WAL, which it may have lost before it was durable: what it confirmed is asked about.
    refused: bool,
    /// What the next xid was at which replayed position, as far back as a snapshot here may need: PostgreSQL's feedback is in xids.
    xids: VecDeque<(Lsn, u64)>,
}

impl Receiver {
    async fn run(&mut self) {
        let node = Arc::clone(&self.node);
        let mut reloads = node.config.subscribe();
        let mut asked = node.receiver_stop();
        let settings = node.config.current();
        if !node.engine.is_archive_recovery()
            && settings.str(Setting::PrimaryConninfo).is_empty()
            && location::restore_command(&settings).is_empty()
        {
            tracing::warn!(
                "specified neither primary_conninfo nor restore_command\nHINT:  Nothing will come until one of them is set and the settings are read again."
            );
        }
        loop {
            if *asked.borrow() {
                return;
            }
            let settings = self.node.config.current();
            if !location::restore_command(&settings).is_empty() {
                let feeding = async {
                    if !self.settled {
                        archive::settle_ready(&self.node).await?;
                        self.settled = true;
                    }
                    archive::feed(&self.node).await?;
                    if !self.node.engine.is_archive_recovery() {
                        archive::rescan_timelines(&self.node).await?;
                    }
                    Ok::<(), archive::ArchiveCommandError>(())
                };
                let fed = {
                    let _taking = node.receiver.taking.lock().await;
                    tokio::select! {
                        biased;
                        _ = asked.wait_for(|stop| *stop) => return,
                        fed = feeding => fed,
                    }
                };
                if let Err(error) = fed {
                    if archive::ends_recovery(&self.node, &error) {
                        return self.node.give_verdict(Verdict::Fatal(error.to_string()));
                    }
                    tracing::warn!("{error}");
                }
            }
            if self.node.engine.is_archive_recovery() {
                return self.node.end_archive_recovery().await;
            }
            let conninfo = settings.str(Setting::PrimaryConninfo).to_owned();
            let mut wait = settings.duration(Setting::WalRetrieveRetryInterval).unwrap_or(Duration::from_secs(5));
            if !conninfo.is_empty() {
                let outcome = {
                    let _taking = node.receiver.taking.lock().await;
                    let outcome = tokio::select! {
                        biased;
                        _ = asked.wait_for(|stop| *stop) => Ok(StreamEnd::Asked),
                        outcome = self.stream(&conninfo) => outcome,
                    };
                    *node.receiver.info.lock() = None;
                    outcome
                };
                match outcome {
                    Ok(StreamEnd::Asked) => {
                        self.retry = FIRST_RETRY;
                        continue;
                    }
                    Ok(StreamEnd::Closed) => {
                        wait = wait.min(self.retry);
                        self.retry = (self.retry * 2).min(Duration::from_secs(5));
                    }
                    Err(error) => {
                        let text = error.to_string();
                        let again = self.last_failure.as_ref() == Some(&text);
                        if !again || !error.is_lasting() {
                            tracing::error!(severity = "FATAL", "{text}");
                        }
                        self.node.receiver.failed.send_replace(text.clone());
                        self.last_failure = Some(text);
                        // Seen once, even such a failure may come from a flipped bit.
                        wait = if again && error.is_lasting() { wait } else { wait.min(self.retry) };
                        self.retry = (self.retry * 2).min(Duration::from_secs(5));
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = reloads.changed() => {
                    if changed.is_err() { return }
                    self.retry = FIRST_RETRY;
                }
                _ = asked.wait_for(|stop| *stop) => return,
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    async fn stream(&mut self, conninfo: &str) -> Result<StreamEnd, StreamError> {
        let node = Arc::clone(&self.node);
        let settings = node.config.current();
        let info = ConnInfo::parse(conninfo).map_err(|e| StreamError::Connect(e.into()))?;
        let cluster_name = settings.str(Setting::ClusterName);
        let name = if cluster_name.is_empty() { "walreceiver" } else { cluster_name };
        let limit = || node.config.current().duration(Setting::WalReceiverTimeout).filter(|t| !t.is_zero());
        let connecting = async { Client::connect_within(&info, true, name, Bounds::STREAM).await.map_err(StreamError::Connect) };
        let mut client = within(limit(), connecting).await?;
        let is_ours = client.parameter("server_version").is_some_and(|v| v.contains("Afterimage"));

        self.upstream_is_ours = is_ours;
        let identity = within(limit(), async { client.query("IDENTIFY_SYSTEM").await.map_err(StreamError::Identify) }).await?;
        let identity = identity.first().ok_or_else(|| StreamError::Protocol("no answer to IDENTIFY_SYSTEM".to_owned()))?;
        let (theirs, ours) = (identity.text(0, 0).unwrap_or("").to_owned(), node.engine.wal().system_id().to_string());
        if theirs != ours {
            return Err(StreamError::SystemId { theirs, ours });
        }
        let upstream_tli: TimelineId = identity
            .text(0, 1)
            .and_then(|t| t.parse().ok())
            .map(TimelineId::new)
            .ok_or_else(|| StreamError::Protocol("timeline".to_owned()))?;
        let our_tli = node.engine.wal().tli();
        if upstream_tli < our_tli {
            return Err(StreamError::TimelineBehind { theirs: upstream_tli, ours: our_tli });
        }
        if upstream_tli > our_tli && settings.str(Setting::RecoveryTargetTimeline) == "latest" {
            within(limit(), self.fetch_histories(&mut client, our_tli, upstream_tli)).await?;
            self.check_fork(upstream_tli).await?;
            if upstream_tli > node.engine.goal().tli() {
                let goal = node.history_of(upstream_tli).map_err(|e| StreamError::Protocol(e.to_string()))?;
                node.engine.set_goal(goal);
            }
        }
        let slot = Some(settings.str(Setting::PrimarySlotName).to_owned()).filter(|s| !s.is_empty());
        let address = info.addresses().map_err(|e| StreamError::Connect(e.into()))?.into_iter().next();
        let (sender_host, sender_port) = match address {
            Some(Address::Tcp(host, port)) => (host, i32::from(port)),
            Some(Address::Unix(path)) => (
                path.parent().map(|p| p.display().to_string()).unwrap_or_default(),
                path.extension().and_then(|e| e.to_str()).and_then(|e| e.parse().ok()).unwrap_or(5432),
            ),
            None => (String::new(), 5432),
        };
        let mut restarted = false;
        loop {
            node.engine.wal().drop_incomplete();
            let received = node.engine.wal().received();
            let unknown = std::mem::take(&mut self.refused).then(|| node.engine.wal().held_from()).flatten();
            let start = unknown.unwrap_or(received);
            let tli = node.engine.wal().tli();
            let began = timestamp_now();
            *node.receiver.info.lock() = Some(ReceiverInfo {
                pid: self.pid,
                status: if restarted { "restarting" } else { "starting" },
                receive_start_lsn: start,
                receive_start_tli: tli,
                written: start,
                flushed: node.engine.wal().flushed(),
                received_tli: tli,
                last_msg_send_time: began,
                last_msg_receipt_time: began,
                latest_end_lsn: start,
                latest_end_time: began,
                slot_name: slot.clone(),
                sender_host: sender_host.clone(),
                sender_port,
                conninfo: info.to_display(),
                wal_bytes: 0,
                wire_bytes: 0,
                compression: None,
            });
            let mut command = String::from("START_REPLICATION ");
            if let Some(slot) = &slot {
                command.push_str(&format!("SLOT \"{slot}\" "));
            }
            command.push_str(&format!("{start} TIMELINE {tli}"));
            let mut options = Vec::new();
            if is_ours && settings.str(Setting::WalReceiverCompression) == "zstd" {
                options.push(format!("compression 'zstd', compression_level '{}'", settings.int(Setting::WalReceiverCompressionLevel)));
            }
            let end = match unknown {
                Some(bound) => {
                    let asking = Arc::clone(&node);
                    let looked = tokio::task::spawn_blocking(move || asking.end_at(bound));
                    looked.await.map_err(|e| StreamError::Protocol(e.to_string()))?.map_err(|e| StreamError::Protocol(e.to_string()))?
                }
                None => node.engine.wal().end(),
            };
            let claims = is_ours && end.start_id != StartId::NONE && end.end == start;
            if claims {
                options.push(format!("start_id '{}', last_crc '{:08x}'", end.start_id, end.last_crc));
            }
            // Only who says which start wrote what he has finds out if it was lost.
            let ahead = claims && settings.bool(Setting::WalReceiverAhead);
            if ahead {
                let engine = Arc::clone(&node.engine);
                let held = node.change_wal(move || engine.receive_ahead());
                held.await.map_err(|e| StreamError::Protocol(e.to_string()))?.map_err(|e| StreamError::Protocol(e.to_string()))?;
                options.push("ahead 'on'".to_owned());
            }
            if !options.is_empty() {
                command.push_str(&format!(" ({})", options.join(", ")));
            }
            let starting = async {
                client.send(&command).await.map_err(StreamError::Start)?;
                client.event().await.map_err(StreamError::Start)
            };
            let started = within(limit(), starting).await;
            self.refused =
                unknown.is_none() && node.engine.wal().held_from().is_some() && started.as_ref().is_err_and(StreamError::is_lasting);
            let end = match started? {
                Event::CopyBoth => {
                    if unknown.is_some() {
                        self.discard_after(start, received).await?;
                    }
                    tracing::info!(
                        "{} at {start} on timeline {tli}",
                        if restarted { "restarted WAL streaming" } else { "started streaming WAL from primary" }
                    );
                    self.last_failure = None;
                    node.receiver.streamed.store(true, Ordering::Relaxed);
                    node.receiver.streams_from(SegNo::of(start, node.engine.wal().segment_bytes()));
                    node.receiver.update(|i| i.status = "streaming");
                    if let Some(replay) = node.engine.replay() {
                        replay.set_from_archive(false);
                    }
                    if !ahead && (claims || node.engine.wal().held_from().is_none()) {
                        // The upstream streams from a place that is durable there, and nothing that is not.
                        node.engine.wal().release()?;
                    }
                    self.copy(&mut client, conninfo).await?
                }
                Event::Columns(columns) if columns.first().is_some_and(|name| name == "common_lsn") => {
                    let common = within(limit(), self.read_common_point(&mut client)).await?;
                    self.discard_after(common, start).await?;
                    restarted = true;
                    continue;
                }
                Event::Columns(_) => within(limit(), self.read_next_timeline(&mut client)).await?,
                Event::Complete(_) => None,
                other => return Err(StreamError::Protocol(format!("{other:?}"))),
            };
            match end {
                Some(End::Asked) => return Ok(StreamEnd::Asked),
                Some(End::Closed) => return Ok(StreamEnd::Closed),
                Some(End::Next { tli: next, at }) => {
                    node.receiver.update(|i| i.status = "waiting");
                    let wanted = node.engine.recovery_options().goal.timeline;
                    if wanted != TimelineGoal::Latest && !node.engine.goal().contains(next) {
                        tracing::info!("timeline {tli} ends at {at}; the next is not followed, as recovery_target_timeline says");
                        return Ok(StreamEnd::Closed);
                    }
                    within(limit(), self.fetch_histories(&mut client, tli, next)).await?;
                    self.check_fork(next).await?;
                    self.follow(next, at).await?;
                    restarted = true;
                }
                None => return Ok(StreamEnd::Closed),
            }
        }
    }

    /// Stores the history files of the timelines after `have` up to `want`, unless they are here.
    async fn fetch_histories(&self, client: &mut Client, have: TimelineId, want: TimelineId) -> Result<(), StreamError> {
        for tli in (have.get() + 1..=want.get()).map(TimelineId::new) {
            let path = self.node.engine.data_dir().join("pg_wal").join(History::file_name(tli));
            if path.exists() {
                continue;
            }
            tracing::info!("fetching timeline history file for timeline {tli} from primary server");
            let answer = match client.query(&format!("TIMELINE_HISTORY {tli}")).await {
                Ok(answer) => answer,
                // Timeline numbers need not be dense: an id may have been skipped by a promotion elsewhere.
                Err(ClientError::Server { .. }) if tli != want => continue,
                Err(error) => return Err(StreamError::FetchHistory(error)),
            };
            let content =
                answer.first().and_then(|set| set.text(0, 1)).ok_or_else(|| StreamError::Protocol("timeline history".to_owned()))?;
            afterimage_wal::disk::durable_replace(&afterimage_wal::disk::RealDisk, &path, content.as_bytes())
                .map_err(StreamError::History)?;
            let always = self.node.config.current().str(Setting::ArchiveMode) == "always";
            restore::note_received(self.node.engine.data_dir(), &History::file_name(tli), always).map_err(StreamError::History)?;
        }
        Ok(())
    }

    /// Refuses to follow a timeline that parted from ours before the end of our WAL, unless the primary never confirmed what lies behind.
    async fn check_fork(&self, theirs: TimelineId) -> Result<(), StreamError> {
        let wal = self.node.engine.wal();
        wal.drop_incomplete();
        let history = self.node.history_of(theirs).map_err(|e| StreamError::Protocol(e.to_string()))?;
        let (ours, ours_end) = (wal.tli(), wal.received());
        match history.end_of(ours) {
            Some(fork) if ours_end <= fork => Ok(()),
            Some(fork) if self.node.discard_held_after(fork).await.map_err(|e| StreamError::Protocol(e.to_string()))? => Ok(()),
            Some(fork) => Err(StreamError::Forked { theirs, ours, fork, ours_end }),
            None => Err(StreamError::Forked { theirs, ours, fork: Lsn::INVALID, ours_end }),
        }
    }

    /// Our WAL has reached the fork: go over to the child.
    async fn follow(&self, next: TimelineId, at: Lsn) -> Result<(), StreamError> {
        let engine = Arc::clone(&self.node.engine);
        // The sender ends our timeline where its own history does; the next one may be on the way to a later one.
        let history = match engine.goal().up_to(next) {
            Some(history) => history,
            None => self.node.history_of(next).map_err(|e| StreamError::Protocol(e.to_string()))?,
        };
        self.node
            .change_wal(move || engine.follow_timeline(history, at))
            .await
            .map_err(|e| StreamError::Protocol(e.to_string()))?
            .map_err(|e| StreamError::Protocol(e.to_string()))
    }

    /// Instead of a copy: up to where our WAL is our upstream's too.
    async fn read_common_point(&self, client: &mut Client) -> Result<Lsn, StreamError> {
        let mut common = None;
        loop {
            match client.event().await? {
                Event::Row(row) => {
                    let text = row.first().and_then(Option::as_ref).and_then(|b| std::str::from_utf8(b).ok());
                    common = text.and_then(|t| t.parse().ok());
                }
                Event::Ready => return common.ok_or_else(|| StreamError::Protocol("no common point".to_owned())),
                Event::Columns(_) | Event::Complete(_) | Event::Notice(_) => {}
                other @ Event::CopyOut | other @ Event::CopyBoth | other @ Event::Data(_) | other @ Event::CopyDone => {
                    return Err(StreamError::Protocol(format!("{other:?}")));
                }
            }
        }
    }

    /// Our WAL behind `common` is no longer part of our upstream's history: away with it, unless pages know of it.
    async fn discard_after(&self, common: Lsn, ours_end: Lsn) -> Result<(), StreamError> {
        let node = Arc::clone(&self.node);
        let protocol = |e: String| StreamError::Protocol(e);
        let done = self
            .node
            .change_wal(move || node.discard_wal_after(common))
            .await
            .map_err(|e| protocol(e.to_string()))?
            .map_err(|e| protocol(e.to_string()))?;
        if !done {
            return Err(StreamError::Parted { common, ours_end, replayed: self.node.engine.replayed_lsn() });
        }
        tracing::info!("discarded WAL from {common} to {ours_end}, which is not part of the primary's history");
        Ok(())
    }

    /// After CopyDone, or instead of a copy: the result set that names the next timeline.
    async fn read_next_timeline(&self, client: &mut Client) -> Result<Option<End>, StreamError> {
        let mut next = None;
        loop {
            match client.event().await? {
                Event::Row(row) => {
                    let text = |i: usize| row.get(i).and_then(Option::as_ref).and_then(|b| std::str::from_utf8(b).ok());
                    let tli = text(0).and_then(|t| t.parse().ok()).map(TimelineId::new);
                    let at = text(1).and_then(|t| t.parse().ok());
                    next = tli.zip(at);
                }
                Event::Ready => break,
                Event::Columns(_) | Event::Complete(_) | Event::Notice(_) => {}
                other @ Event::CopyOut | other @ Event::CopyBoth | other @ Event::Data(_) | other @ Event::CopyDone => {
                    return Err(StreamError::Protocol(format!("{other:?}")));
                }
            }
        }
        Ok(next.map(|(tli, at)| End::Next { tli, at }))
    }

    async fn copy(&mut self, client: &mut Client, conninfo: &str) -> Result<Option<End>, StreamError> {
        let node = Arc::clone(&self.node);
        let wal = node.engine.wal();
        let mut wal_moved = node.wal_moved();
        let mut replayed = node.engine.subscribe_replayed();
        let mut reloads = node.config.subscribe();
        let mut decoder = Decompressor::default();
        let mut sent = Reported::default();
        let mut last_message = Instant::now();
        let mut pinged = false;
        let mut next_status = tokio::time::Instant::now();
        // Until when the rest of a record begun is waited for.
        let mut record_deadline = None;
        let mut received = wal.received();
        let limit = || node.config.current().duration(Setting::WalReceiverTimeout).filter(|t| !t.is_zero());
        within(limit(), self.report(client, &mut sent, true, false)).await?;
        loop {
            let settings = node.config.current();
            let timeout = settings.duration(Setting::WalReceiverTimeout).filter(|t| !t.is_zero());
            let deadline = timeout.map(|t| tokio::time::Instant::from_std(last_message + if pinged { t } else { t / 2 }));
            let interval = settings.duration(Setting::WalReceiverStatusInterval).filter(|t| !t.is_zero());
            tokio::select! {
                event = client.event() => {
                    last_message = Instant::now();
                    pinged = false;
                    match event {
                        Ok(Event::Data(bytes)) => {
                            // It has what we ask for: an upstream without the WAL begins a stream too, and ends it at once.
                            self.retry = FIRST_RETRY;
                            let mut reply = false;
                            match ServerMessage::decode(&bytes)? {
                                ServerMessage::XLogData { start, wal_end, sent_at, data } => {
                                    wal.append_received(start, data)?;
                                    self.heard(wal_end, sent_at);
                                    self.count(data.len(), bytes.len(), None);
                                }
                                ServerMessage::Compressed { start, wal_end, sent_at, raw_len, data } => {
                                    let began = thread_cpu_time();
                                    let raw = decoder.decode(data, raw_len)?;
                                    let took = thread_cpu_time().saturating_sub(began);
                                    wal.append_received(start, raw)?;
                                    self.heard(wal_end, sent_at);
                                    self.count(raw.len(), bytes.len(), Some(took));
                                }
                                ServerMessage::Keepalive { wal_end, sent_at, reply_requested } => {
                                    self.heard(wal_end, sent_at);
                                    reply = reply_requested;
                                }
                                ServerMessage::Bound { durable, sent_at } => {
                                    wal.confirm(durable)?;
                                    self.heard(durable, sent_at);
                                }
                            }
                            let now_received = wal.received();
                            if now_received != received {
                                received = now_received;
                                record_deadline = (received > wal.published())
                                    .then(|| tokio::time::Instant::now() + Bounds::STREAM.stall.unwrap_or(Duration::from_secs(2)));
                            }
                            let written = wal.published();
                            if client.has_more() {
                                // What comes is written while this is synced.
                                wal.request_flush(written);
                                if reply {
                                    within(limit(), self.report(client, &mut sent, true, false)).await?;
                                }
                            } else {
                                within(limit(), self.report(client, &mut sent, reply, false)).await?;
                                if written > wal.flushed() {
                                    wal.sync_here(written);
                                    // Seen before the positions are looked at: none is missed, and none told twice.
                                    wal_moved.mark_unchanged();
                                    replayed.mark_unchanged();
                                    within(limit(), self.report(client, &mut sent, false, false)).await?;
                                }
                            }
                        }
                        Ok(Event::CopyDone) => {
                            client.send_copy_done().await?;
                            return within(limit(), self.read_next_timeline(client)).await.map(|next| next.or(Some(End::Closed)));
                        }
                        Ok(Event::Complete(_)) => {
                            tracing::info!("replication terminated by primary server\nDETAIL:  End of WAL reached on timeline {} at {}.", wal.tli(), wal.received());
                            return Ok(Some(End::Closed));
                        }
                        Ok(Event::Notice(_)) => {}
                        Ok(other) => return Err(StreamError::Protocol(format!("{other:?}"))),
                        Err(error) => return Err(error.into()),
                    }
                }
                () = sleep_until(record_deadline) => {
                    return Err(StreamError::Incomplete { at: wal.published() });
                }
                _ = wal_moved.changed() => within(limit(), self.report(client, &mut sent, false, false)).await?,
                _ = replayed.changed() => within(limit(), self.report(client, &mut sent, false, false)).await?,
                () = sleep_until(interval.map(|_| next_status)) => {
                    next_status = tokio::time::Instant::now() + interval.unwrap_or(Duration::from_secs(10));
                    within(limit(), self.report(client, &mut sent, true, false)).await?;
                    within(limit(), self.feedback(client, &mut sent)).await?;
                }
                () = sleep_until(deadline) => {
                    if pinged {
                        return Err(StreamError::Timeout);
                    }
                    pinged = true;
                    within(limit(), self.report(client, &mut sent, true, true)).await?;
                }
                _ = reloads.changed() => {
                    let settings = node.config.current();
                    let slot_changed = node.receiver.get().is_some_and(|i| i.slot_name.as_deref().unwrap_or("") != settings.str(Setting::PrimarySlotName));
                    if settings.str(Setting::PrimaryConninfo) != conninfo || slot_changed {
                        tracing::info!("WAL receiver process shutdown requested");
                        tracing::error!(severity = "FATAL", "terminating walreceiver process due to administrator command");
                        return Ok(Some(End::Asked));
                    }
                    within(limit(), self.feedback(client, &mut sent)).await?;
                }
            }
        }
    }

    /// Counts a message of WAL: what was in it, and what it took.
    fn count(&self, wal_bytes: usize, message_bytes: usize, decoding: Option<Duration>) {
        /// Kind and length before a message's body.
        const HEADER_BYTES: u64 = 5;
        self.node.receiver.update(|info| {
            info.wal_bytes += wal_bytes as u64;
            info.wire_bytes += message_bytes as u64 + HEADER_BYTES;
            if let Some(took) = decoding {
                info.compression = Some(info.compression.unwrap_or_default() + took);
            }
        });
    }

    fn heard(&self, wal_end: Lsn, sent_at: i64) {
        let now = timestamp_now();
        self.node.receiver.update(|info| {
            info.last_msg_send_time = sent_at;
            info.last_msg_receipt_time = now;
            if info.latest_end_lsn < wal_end {
                info.latest_end_lsn = wal_end;
                info.latest_end_time = sent_at;
            }
        });
    }

    /// Sends positions if they moved, or in any case when `force`d.
    async fn report(&self, client: &mut Client, sent: &mut Reported, force: bool, reply_requested: bool) -> Result<(), StreamError> {
        let engine = &self.node.engine;
        let (written, flushed, applied) = (engine.wal().published(), engine.wal().flushed(), engine.replayed_lsn());
        let now = Reported { written, flushed, applied, ..*sent };
        if !force && now == *sent {
            return Ok(());
        }
        *sent = now;
        self.node.receiver.update(|info| (info.written, info.flushed) = (written, flushed));
        let status = StandbyMessage::Status { written, flushed, applied: applied.min(flushed), sent_at: timestamp_now(), reply_requested };
        client.send_copy_data(|b| status.encode(b)).await?;
        Ok(())
    }

    async fn feedback(&mut self, client: &mut Client, sent: &mut Reported) -> Result<(), StreamError> {
        let (mut horizon, mut xmin) = (Lsn::INVALID, 0);
        if self.node.config.current().bool(Setting::HotStandbyFeedback) {
            let txns = &self.node.engine.ctx().txns;
            // Without a snapshot: what the next one would need. Read before the snapshots are looked at.
            let replayed = self.node.engine.replayed_lsn();
            let next_xid = txns.next_xid().as_u64();
            let needed = [txns.oldest_snapshot(), self.node.senders.feedback_horizon(), self.node.slots.horizon()];
            horizon = needed.into_iter().flatten().fold(replayed, Lsn::min);
            if self.xids.back().is_none_or(|(at, xid)| *at < replayed && *xid < next_xid) {
                self.xids.push_back((replayed, next_xid));
            }
            while self.xids.get(1).is_some_and(|(at, _)| *at <= horizon) {
                self.xids.pop_front();
            }
            xmin = self.xids.front().map_or(next_xid, |(_, xid)| *xid);
        }
        if (horizon, xmin) == (sent.horizon, sent.xmin) {
            return Ok(());
        }
        (sent.horizon, sent.xmin) = (horizon, xmin);
        let sent_at = timestamp_now();
        if self.upstream_is_ours {
            let message = StandbyMessage::FeedbackLsn { sent_at, horizon };
            client.send_copy_data(|b| message.encode(b)).await?;
        }
        let half = |part: u64| u32::try_from(part & u64::from(u32::MAX)).unwrap_or(0);
        let (xmin, xmin_epoch) = (half(xmin), half(xmin >> 32));
        let message = StandbyMessage::Feedback { sent_at, xmin, xmin_epoch, catalog_xmin: 0, catalog_xmin_epoch: 0 };
        client.send_copy_data(|b| message.encode(b)).await?;
        Ok(())
    }
}

enum End {
    Next { tli: TimelineId, at: Lsn },
    Closed,
    Asked,
}

/// What was last told to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reported {
    written: Lsn,
    flushed: Lsn,
    applied: Lsn,
    horizon: Lsn,
    xmin: u64,
}

impl Default for Reported {
    fn default() -> Self {
        // No feedback yet: the first is sent even if it says "nothing", which may not be what a slot remembers.
        Self { written: Lsn::INVALID, flushed: Lsn::INVALID, applied: Lsn::INVALID, horizon: Lsn::INVALID, xmin: u64::MAX }
    }
}

/// The zstd stream from the upstream. Window and output are bounded, whatever the bytes say.
#[derive(Default)]
struct Decompressor {
    decoder: Option<zstd::stream::raw::Decoder<'static>>,
    raw: Vec<u8>,
}

impl Decompressor {
    fn decode(&mut self, mut data: &[u8], raw_len: u32) -> Result<&[u8], StreamError> {
        use zstd::stream::raw::{Decoder, InBuffer, Operation as _, OutBuffer};
        let failed = |e: io::Error| StreamError::Compression(e.to_string());
        let want = usize::try_from(raw_len).unwrap_or(usize::MAX);
        if want > RAW_LIMIT_BYTES {
            return Err(StreamError::Compression(format!("{want} bytes in one message")));
        }
        if self.decoder.is_none() {
            let mut decoder = Decoder::new().map_err(failed)?;
            decoder.set_parameter(zstd::stream::raw::DParameter::WindowLogMax(ZSTD_WINDOW_LOG)).map_err(failed)?;
            self.decoder = Some(decoder);
        }
        let Some(decoder) = &mut self.decoder else { return Err(StreamError::Compression("no decoder".to_owned())) };
        self.raw.resize(want, 0);
        let mut filled = 0;
        loop {
            let mut input = InBuffer::around(data);
            let mut output = OutBuffer::around(&mut self.raw[filled..]);
            decoder.run(&mut input, &mut output).map_err(failed)?;
            let (consumed, produced) = (input.pos(), output.pos());
            filled += produced;
            data = &data[consumed..];
            if data.is_empty() && (filled == want || produced == 0) {
                break;
            }
            if consumed == 0 && produced == 0 {
                return Err(StreamError::Compression(format!("more than the {want} bytes announced")));
            }
        }
        if filled == want { Ok(&self.raw) } else { Err(StreamError::Compression(format!("{filled} bytes where {want} were announced"))) }
    }
}
