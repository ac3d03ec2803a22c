//! Reads records forward and says why it stopped (skeleton).

use crate::disk::Disk;
use crate::format::BadSegmentHeader;
use crate::ids::{Lsn, SegNo, SystemId, TimelineId};
use crate::insert::{Wal, WalEnd};
use crate::history::History;
use crate::record::Record;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Where and why reading stopped.
#[derive(Debug, Clone, thiserror::Error)]
#[error("WAL of timeline {tli} ends at {at}: {reason}")]
pub struct ReadStop {
    /// End of the last good record.
    pub at: Lsn,
    /// Timeline read.
    pub tli: TimelineId,
    /// What was found there.
    pub reason: StopReason,
}

/// What was found where the next record should be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StopReason {
    /// Zeros: nothing was ever written here.
    #[error("nothing follows")]
    Zeros,
    /// A length that no record has.
    #[error("invalid record length {found}")]
    Length {
        /// Found.
        found: u32,
    },
    /// A header no writer writes.
    #[error("invalid resource manager {rmgr} or flags {flags:#04x}")]
    Header {
        /// Found.
        rmgr: u8,
        /// Found.
        flags: u8,
    },
    /// The back link does not lead to the record before.
    #[error("record with incorrect prev-link {found}, expected {expected}")]
    Prev {
        /// Found.
        found: Lsn,
        /// Start of the record before.
        expected: Lsn,
    },
    /// Stored bytes and checksum disagree.
    #[error("incorrect checksum in record: stored {stored:#010x}, computed {computed:#010x}")]
    Crc {
        /// In the record.
        stored: u32,
        /// Of the record.
        computed: u32,
    },
    /// Bytes that are always zero are not.
    #[error("padding of record is not zero")]
    Padding,
    /// The checksum is right, the body does not parse.
    #[error("{0}")]
    Body(#[from] crate::record::BadBody),
    /// No file for the next bytes.
    #[error("WAL segment {segno} is missing")]
    SegmentMissing {
        /// Which.
        segno: SegNo,
    },
    /// The file is too short.
    #[error("WAL segment {segno} has only {bytes} bytes")]
    SegmentShort {
        /// Which.
        segno: SegNo,
        /// Its length.
        bytes: u64,
    },
    /// The header of the segment is not what it should be.
    #[error("WAL segment {segno}: {what}")]
    SegmentHeader {
        /// Which.
        segno: SegNo,
        /// What is wrong.
        what: BadSegmentHeader,
    },
    /// The end that was asked for.
    #[error("end of the range asked for")]
    Limit,
    /// The file could not be read.
    #[error("could not read WAL segment {segno}: {source}")]
    Io {
        /// Which.
        segno: SegNo,
        /// Why not.
        source: Arc<io::Error>,
    },
}

/// Reads records forward.
#[derive(Debug)]
pub struct WalReader {}

impl WalReader {
    /// Reads files in `dir`, along `history`, from the record at or after `from`.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, system_id: SystemId, segment_bytes: u32, history: History, from: Lsn) -> Self {
        let _unused = (disk, dir, system_id, segment_bytes, history, from);
        Self {}
    }

    /// Reads a live WAL from the record at or after `from`; `Ok(None)` where nothing more is readable yet.
    pub fn follow(wal: Arc<Wal>, history: History, from: Lsn) -> Self {
        let _unused = (wal, history, from);
        Self {}
    }

    /// The next record; `Ok(None)` only in follow mode: nothing more yet.
    pub fn next(&mut self) -> Result<Option<Record<'_>>, ReadStop> {
        Err(ReadStop { at: Lsn::INVALID, tli: TimelineId::FIRST, reason: StopReason::Zeros })
    }

    /// End of the last record read.
    pub fn position(&self) -> Lsn {
        Lsn::INVALID
    }

    /// End of WAL as read so far, for [`Wal::open`].
    pub fn end(&self) -> Option<WalEnd> {
        None
    }
}

/// What a stop means for recovery.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// WAL ends here: clean, or the torn tail of a crash. Recovery is complete.
    EndOfWal,
    /// WAL that was durable is gone or damaged: recovery must refuse to start.
    Damage {
        /// Why it must have been durable.
        proof: String,
    },
}

/// Decides what a stop means.
pub fn judge(stop: &ReadStop) -> Verdict {
    let _unused = stop;
    Verdict::EndOfWal
}
