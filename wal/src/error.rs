//! What can go wrong in the WAL.

use crate::ids::{Lsn, SegNo, SystemId, TimelineId};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Failures of the WAL.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalError {
    /// No record can be this large.
    #[error("record of {bytes} bytes with {blocks} blocks is too large")]
    RecordTooLarge {
        /// Bytes asked for.
        bytes: usize,
        /// Block references asked for.
        blocks: usize,
    },
    /// Reading, writing, making or naming a file failed.
    #[error("could not {action} \"{}\": {source}", path.display())]
    Io {
        /// What was tried: `open`, `write`, `rename` ...
        action: &'static str,
        /// File.
        path: PathBuf,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// A sync failed. The node must stop, not retry: the kernel may have dropped the pages.
    #[error("could not sync WAL up to {upto} in \"{}\": {source}", path.display())]
    Sync {
        /// End of what was to become durable.
        upto: Lsn,
        /// File.
        path: PathBuf,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// The WAL was shut down.
    #[error("WAL is shut down")]
    Closed,
    /// Inserting into a WAL that receives.
    #[error("WAL is not writable: this node receives it")]
    NotWriting,
    /// Receiving into a WAL that is written here.
    #[error("WAL is written by this node and receives nothing")]
    NotReceiving,
    /// A flush past what was inserted.
    #[error("flush up to {upto} asked for, WAL ends at {inserted}")]
    FlushBeyondEnd {
        /// Asked for.
        upto: Lsn,
        /// End of WAL.
        inserted: Lsn,
    },
    /// The bytes at `at` are gone: recycled or never there.
    #[error("requested WAL segment {name} has already been removed")]
    SegmentGone {
        /// File name.
        name: String,
        /// Position wanted.
        at: Lsn,
    },
    /// Received bytes leave a hole.
    #[error("received WAL at {at}, expected {expected}")]
    Gap {
        /// Where the bytes begin.
        at: Lsn,
        /// Where they should.
        expected: Lsn,
    },
    /// Received bytes do not verify; nothing from `at` on was kept.
    #[error("received WAL is damaged at {at}: {what}")]
    ReceivedDamage {
        /// Last good record's end.
        at: Lsn,
        /// What was found.
        what: crate::reader::StopReason,
    },
    /// Received bytes differ from those already here.
    #[error("received WAL differs from local WAL at {at}: the histories have diverged")]
    Diverged {
        /// First byte that differs.
        at: Lsn,
    },
    /// The position is not the end of a record.
    #[error("no record ends at {at} on timeline {tli}: {what}")]
    NotARecordEnd {
        /// Asked for.
        at: Lsn,
        /// Timeline.
        tli: TimelineId,
        /// What was found.
        what: crate::reader::StopReason,
    },
    /// A file does not hold what it should.
    #[error("\"{}\" is invalid: {what}", path.display())]
    BadFile {
        /// File.
        path: PathBuf,
        /// What was found.
        what: &'static str,
    },
    /// A file of a format this program does not know.
    #[error("\"{}\" has format version {found}, this program reads {expected}", path.display())]
    BadVersion {
        /// File.
        path: PathBuf,
        /// Found.
        found: u32,
        /// Read by this program.
        expected: u32,
    },
    /// A file's checksum is wrong.
    #[error("\"{}\" is damaged: stored crc {stored:#010x}, computed {computed:#010x}", path.display())]
    Checksum {
        /// File.
        path: PathBuf,
        /// In the file.
        stored: u32,
        /// Of its bytes.
        computed: u32,
    },
    /// Another cluster's file.
    #[error("\"{}\" belongs to system {found}, this is {expected}", path.display())]
    WrongSystem {
        /// File.
        path: PathBuf,
        /// Found.
        found: SystemId,
        /// This cluster.
        expected: SystemId,
    },
    /// A new timeline must be higher and begin where the WAL ends.
    #[error("timeline {new} cannot begin at {at}: timeline {tli} ends at {end}")]
    BadTimeline {
        /// Wanted.
        new: TimelineId,
        /// Wanted.
        at: Lsn,
        /// Current.
        tli: TimelineId,
        /// Where it ends.
        end: Lsn,
    },
    /// A segment that is needed does not exist.
    #[error("WAL segment {segno} of timeline {tli} is missing")]
    SegmentMissing {
        /// Which.
        segno: SegNo,
        /// Of which timeline.
        tli: TimelineId,
    },
}

impl WalError {
    /// An [`Io`](Self::Io) from its parts.
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { action, path: path.into(), source: Arc::new(source) }
    }
}
