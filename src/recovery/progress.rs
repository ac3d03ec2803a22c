//! How far replay is, for everybody else.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use afterimage_wal::Lsn;
use tokio::sync::watch;

use super::prefetch::PrefetchStats;

/// How replay ended by itself; somebody has to act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The target is reached, and the node is to be promoted.
    Promote,
    /// The target is reached, and the node is to stop.
    Shutdown,
    /// It cannot go on: the message is for the log, the node must stop.
    Fatal(String),
}

/// The replayed position. Written by the replay thread only.
#[derive(Debug)]
pub struct Progress {
    /// End of the last record applied. Release after the pages, Acquire by readers.
    replayed: AtomicU64,
    /// Whether there was anything to recover since the start. Relaxed.
    begun: AtomicBool,
    /// The replayed position, published when replay pauses, at commits and every so often.
    watch: watch::Sender<Lsn>,
    /// Commit time of the last transaction replayed, microseconds since 2000; `i64::MIN`: none.
    last_commit_time: AtomicI64,
    ending: watch::Sender<Option<Ending>>,
    /// What was read ahead.
    pub prefetch: PrefetchStats,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            replayed: AtomicU64::new(0),
            begun: AtomicBool::new(false),
            watch: watch::Sender::new(Lsn::INVALID),
            last_commit_time: AtomicI64::new(i64::MIN),
            ending: watch::Sender::new(None),
            prefetch: PrefetchStats::default(),
        }
    }
}

impl Progress {
    /// End of the last record applied.
    pub fn replayed(&self) -> Lsn {
        Lsn::from_u64(self.replayed.load(Ordering::Acquire))
    }

    /// Recovery begins.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Whether recovery has begun since the start: not after a clean stop of a primary.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// A receiver of the replayed position; it may skip values, never the last.
    pub fn subscribe(&self) -> watch::Receiver<Lsn> {
        self.watch.subscribe()
    }

    /// Commit time of the last transaction replayed, microseconds since 2000.
    pub fn last_commit_time(&self) -> Option<i64> {
        Some(self.last_commit_time.load(Ordering::Relaxed)).filter(|t| *t != i64::MIN)
    }

    /// A receiver of how replay ended.
    pub fn subscribe_ending(&self) -> watch::Receiver<Option<Ending>> {
        self.ending.subscribe()
    }

    pub(super) fn end(&self, ending: Ending) {
        self.ending.send_replace(Some(ending));
    }

    /// Where replay starts, or ended without any.
    pub fn set(&self, to: Lsn) {
        self.advance(to);
        self.publish();
    }

    pub(super) fn advance(&self, to: Lsn) {
        self.replayed.store(to.as_u64(), Ordering::Release);
    }

    pub(super) fn set_commit_time(&self, time: i64) {
        self.last_commit_time.store(time, Ordering::Relaxed);
    }

    pub(super) fn publish(&self) {
        let now = self.replayed();
        self.watch.send_if_modified(|seen| {
            let moved = *seen != now;
            *seen = now;
            moved
        });
    }
}
