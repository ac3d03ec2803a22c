//! The WAL itself (skeleton).

use crate::disk::Disk;
use crate::error::WalError;
use crate::ids::{Lsn, LsnRange, StartId, SystemId, TimelineId};
use crate::record::RecordBuilder;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How a WAL is run.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// Size of every segment; a power of two from 1 MB to 1 GB. Chosen once, at `create`.
    pub segment_bytes: u32,
    /// Longest that published bytes stay unflushed when nobody asks (`wal_writer_delay`).
    pub writer_delay: Duration,
    /// How many recycled segments are kept to be used again.
    pub max_spares: usize,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: crate::format::SEGMENT_DEFAULT_BYTES, writer_delay: Duration::from_millis(200), max_spares: 5 }
    }
}

/// Where the WAL of a node ends, found by a [`crate::WalReader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalEnd {
    /// Timeline of the last record.
    pub tli: TimelineId,
    /// End of the last record.
    pub end: Lsn,
    /// Start of the last record.
    pub last_start: Lsn,
    /// Checksum of the last record.
    pub last_crc: u32,
    /// Start id in force at the end.
    pub start_id: StartId,
}

/// Positions of a WAL, all exclusive ends: `flushed <= published <= inserted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Positions {
    /// Reserved.
    pub inserted: Lsn,
    /// Every byte below is in the mapped file and readable.
    pub published: Lsn,
    /// Every byte below is durable.
    pub flushed: Lsn,
}

/// A live WAL: of a primary that inserts, or of a standby that receives.
#[derive(Debug)]
pub struct Wal {
    system_id: SystemId,
    segment_bytes: u32,
}

impl Wal {
    /// Lays the WAL of a new cluster in `dir` (`pg_wal`) on timeline 1 and begins writing.
    pub fn create(disk: Arc<dyn Disk>, dir: &Path, system_id: SystemId, options: WalOptions) -> Result<Arc<Self>, WalError> {
        let _unused = (disk, dir, system_id, options);
        Err(WalError::Closed)
    }

    /// Opens the WAL of a node behind its recovered `end`, receiving; [`begin_writing`](Self::begin_writing) makes it a primary's.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, system_id: SystemId, end: WalEnd, options: WalOptions) -> Result<Arc<Self>, WalError> {
        let _unused = (disk, dir, system_id, end, options);
        Err(WalError::Closed)
    }

    /// Makes this node a writer: draws a start id and logs it.
    pub fn begin_writing(&self) -> Result<LsnRange, WalError> {
        Err(WalError::Closed)
    }

    /// Inserts a record. Many may at once.
    pub fn insert(&self, record: &RecordBuilder) -> Result<LsnRange, WalError> {
        let _unused = record;
        Err(WalError::Closed)
    }

    /// All positions.
    pub fn positions(&self) -> Positions {
        Positions::default()
    }

    /// End of what is reserved.
    pub fn inserted(&self) -> Lsn {
        Lsn::INVALID
    }

    /// End of what is readable.
    pub fn published(&self) -> Lsn {
        Lsn::INVALID
    }

    /// End of what is in the mapped file: the same as [`published`](Self::published).
    pub fn written(&self) -> Lsn {
        self.published()
    }

    /// End of what is durable.
    pub fn flushed(&self) -> Lsn {
        Lsn::INVALID
    }

    /// Waits until WAL is durable up to `upto` (exclusive).
    pub fn flush(&self, upto: Lsn) -> Result<(), WalError> {
        let _unused = upto;
        Err(WalError::Closed)
    }

    /// Asks the flusher for durability up to `upto`; does not wait.
    pub fn request_flush(&self, upto: Lsn) {
        let _unused = upto;
    }

    /// Calls `listener` from the flusher after each advance of `flushed`.
    pub fn add_position_listener(&self, listener: Box<dyn Fn(Positions) + Send + Sync>) {
        let _unused = listener;
    }

    /// Calls `listener` after each advance of `published`, on the thread that caused it.
    pub fn add_published_listener(&self, listener: Box<dyn Fn(Positions) + Send + Sync>) {
        let _unused = listener;
    }

    /// Ends the current segment; the next record begins in a new one. Nothing happens at a segment's beginning.
    ///
    /// Returns the end of the switch record (the boundary), or the current end.
    pub fn switch_segment(&self) -> Result<Lsn, WalError> {
        Err(WalError::Closed)
    }

    /// Copies published bytes from `lsn` on; 0 at the end.
    pub fn read_at(&self, lsn: Lsn, buf: &mut [u8]) -> Result<usize, WalError> {
        let _unused = (lsn, buf);
        Err(WalError::Closed)
    }

    /// Takes bytes of the stream that begin at `lsn`. Returns the end of the last whole record that verified.
    pub fn append_received(&self, lsn: Lsn, bytes: &[u8]) -> Result<Lsn, WalError> {
        let _unused = (lsn, bytes);
        Err(WalError::Closed)
    }

    /// Goes over to timeline `new_tli` at the end of WAL, which is `switch_lsn`.
    pub fn start_timeline(&self, new_tli: TimelineId, switch_lsn: Lsn) -> Result<(), WalError> {
        let _unused = (new_tli, switch_lsn);
        Err(WalError::Closed)
    }

    /// Gives segments that end at or below `lsn` back for reuse. Returns how many.
    pub fn recycle_upto(&self, lsn: Lsn) -> Result<usize, WalError> {
        let _unused = lsn;
        Err(WalError::Closed)
    }

    /// Size of every segment.
    pub fn segment_bytes(&self) -> u32 {
        self.segment_bytes
    }

    /// Current timeline.
    pub fn tli(&self) -> TimelineId {
        TimelineId::FIRST
    }

    /// Current start id.
    pub fn start_id(&self) -> StartId {
        StartId::NONE
    }

    /// The cluster.
    pub fn system_id(&self) -> SystemId {
        self.system_id
    }
}
