//! How bytes lie in the WAL: constants, segment header, record header. The tables are in `docs/wal-format.md`; a test compares both.
//!
//! Everything is little-endian. Readers accept [`VERSION`] and refuse others by number.

use crate::ids::{Lsn, SegNo, StartId, SystemId, TimelineId, Xid};

/// First four bytes of a segment: `AIWL`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"AIWL");
/// Format version written and read.
pub const VERSION: u16 = 1;
/// Bytes of a segment header.
pub const SEGMENT_HEADER_BYTES: usize = 64;
/// Smallest segment.
pub const SEGMENT_MIN_BYTES: u32 = 1 << 20;
/// Largest segment.
pub const SEGMENT_MAX_BYTES: u32 = 1 << 30;
/// Segment size unless initdb is told otherwise.
pub const SEGMENT_DEFAULT_BYTES: u32 = 16 << 20;

/// Segment header: magic.
pub const SEGMENT_MAGIC: usize = 0;
/// Segment header: format version.
pub const SEGMENT_VERSION: usize = 4;
/// Segment header: its own length.
pub const SEGMENT_HEADER_LEN: usize = 6;
/// Segment header: system identifier.
pub const SEGMENT_SYSTEM_ID: usize = 8;
/// Segment header: timeline of the writer.
pub const SEGMENT_TLI: usize = 16;
/// Segment header: segment size.
pub const SEGMENT_BYTES: usize = 20;
/// Segment header: segment number.
pub const SEGMENT_SEGNO: usize = 24;
/// Segment header: start id of the writer.
pub const SEGMENT_START_ID: usize = 32;
/// Segment header: the writer's flushed LSN when it wrote the header.
pub const SEGMENT_FLUSHED_MARK: usize = 40;
/// Segment header: start of the last record begun in an earlier segment.
pub const SEGMENT_PREV: usize = 48;
/// Segment header: bytes of that record that are still to come.
pub const SEGMENT_CONTINUED: usize = 56;
/// Segment header: crc32c of the bytes before it.
pub const SEGMENT_CRC: usize = 60;

/// Bytes of a record header.
pub const RECORD_HEADER_BYTES: usize = 28;
/// Shortest record: a header.
pub const RECORD_MIN_BYTES: u32 = 28;
/// Longest record, header included; PostgreSQL's limit.
pub const RECORD_MAX_BYTES: u32 = 1020 << 20;

/// Record header: length without padding.
pub const RECORD_TOTAL_BYTES: usize = 0;
/// Record header: crc32c of the body, then of the header without this field, then of the record's start LSN.
pub const RECORD_CRC: usize = 4;
/// Record header: start of the record before.
pub const RECORD_PREV: usize = 8;
/// Record header: transaction.
pub const RECORD_XID: usize = 16;
/// Record header: resource manager.
pub const RECORD_RMGR: usize = 24;
/// Record header: kind.
pub const RECORD_KIND: usize = 25;
/// Record header: number of block references.
pub const RECORD_BLOCK_COUNT: usize = 26;
/// Record header: flags.
pub const RECORD_FLAGS: usize = 27;

/// Record flag: the last 8 bytes are the writer's flushed LSN at insertion.
pub const RECORD_FLUSHED_MARK: u8 = 0x01;
/// All record flags.
pub const RECORD_KNOWN_FLAGS: u8 = RECORD_FLUSHED_MARK;

/// Block reference: fork number.
pub const BLOCK_FORK: u8 = 0x03;
/// Block reference: data is a full page image.
pub const BLOCK_FPI: u8 = 0x04;
/// Block reference: redo makes the page anew.
pub const BLOCK_WILL_INIT: u8 = 0x08;
/// Block reference: relation is that of the reference before, and left out.
pub const BLOCK_SAME_REL: u8 = 0x10;
/// Block reference: data length takes 4 bytes, not 2.
pub const BLOCK_LONG_DATA: u8 = 0x20;
/// All block reference bits.
pub const BLOCK_KNOWN: u8 = BLOCK_FORK | BLOCK_FPI | BLOCK_WILL_INIT | BLOCK_SAME_REL | BLOCK_LONG_DATA;

const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(8));
const _: () = assert!(SEGMENT_CRC + 4 == SEGMENT_HEADER_BYTES);
const _: () = assert!(RECORD_FLAGS + 1 == RECORD_HEADER_BYTES && RECORD_MIN_BYTES as usize == RECORD_HEADER_BYTES);

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    (u64::from(u32_at(b, at + 4)) << 32) | u64::from(u32_at(b, at))
}

/// First bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Cluster.
    pub system_id: SystemId,
    /// Timeline of the writer. In the first segment of a timeline that begins in the middle of it: the parent's.
    pub tli: TimelineId,
    /// Size of every segment.
    pub segment_bytes: u32,
    /// Number of this one.
    pub segno: SegNo,
    /// Which start of which writer.
    pub start_id: StartId,
    /// The writer's flushed LSN when it wrote the header.
    pub flushed_mark: Lsn,
    /// Start of the last record begun earlier.
    pub prev: Lsn,
    /// Bytes of that record that follow this header.
    pub continued_bytes: u32,
}

/// What is wrong with a segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSegmentHeader {
    /// Only zeros: the segment was made but never begun.
    #[error("header is zero: segment was never begun")]
    Zero,
    /// Not a segment of ours.
    #[error("magic number is {found:#010x}, expected {MAGIC:#010x}")]
    Magic {
        /// Found instead.
        found: u32,
    },
    /// A format this program does not know.
    #[error("format version is {found}, this program reads {VERSION}")]
    Version {
        /// Found instead.
        found: u16,
    },
    /// Damaged.
    #[error("header crc is {stored:#010x}, computed {computed:#010x}")]
    Crc {
        /// In the header.
        stored: u32,
        /// Of the header.
        computed: u32,
    },
    /// Another cluster's.
    #[error("system identifier is {found}, expected {expected}")]
    SystemId {
        /// Found instead.
        found: SystemId,
        /// Wanted.
        expected: SystemId,
    },
    /// Another size.
    #[error("segment size is {found}, expected {expected}")]
    SegmentBytes {
        /// Found instead.
        found: u32,
        /// Wanted.
        expected: u32,
    },
    /// A segment's previous life, or misplaced.
    #[error("segment number is {found}, expected {expected}")]
    SegNo {
        /// Found instead.
        found: SegNo,
        /// Wanted.
        expected: SegNo,
    },
    /// Another history.
    #[error("timeline is {found}, expected {expected}")]
    Timeline {
        /// Found instead.
        found: TimelineId,
        /// Wanted.
        expected: TimelineId,
    },
    /// Does not continue what came before.
    #[error("{found} bytes of a record continue here, expected {expected}")]
    Continued {
        /// Found instead.
        found: u32,
        /// Wanted.
        expected: u32,
    },
}

impl SegmentHeader {
    /// The bytes, crc included.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut b = [0; SEGMENT_HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
        put(SEGMENT_MAGIC, &MAGIC.to_le_bytes());
        put(SEGMENT_VERSION, &VERSION.to_le_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "64")]
        put(SEGMENT_HEADER_LEN, &(SEGMENT_HEADER_BYTES as u16).to_le_bytes());
        put(SEGMENT_SYSTEM_ID, &self.system_id.to_le_bytes());
        put(SEGMENT_TLI, &self.tli.to_le_bytes());
        put(SEGMENT_BYTES, &self.segment_bytes.to_le_bytes());
        put(SEGMENT_SEGNO, &self.segno.to_le_bytes());
        put(SEGMENT_START_ID, &self.start_id.to_le_bytes());
        put(SEGMENT_FLUSHED_MARK, &self.flushed_mark.to_le_bytes());
        put(SEGMENT_PREV, &self.prev.to_le_bytes());
        put(SEGMENT_CONTINUED, &self.continued_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&b[..SEGMENT_CRC]);
        b[SEGMENT_CRC..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// Checks magic, version and crc. Whether it is the segment wanted is the caller's to check.
    ///
    /// # Errors
    /// [`BadSegmentHeader`].
    pub fn decode(b: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, BadSegmentHeader> {
        if b.iter().all(|&x| x == 0) {
            return Err(BadSegmentHeader::Zero);
        }
        let magic = u32_at(b, SEGMENT_MAGIC);
        if magic != MAGIC {
            return Err(BadSegmentHeader::Magic { found: magic });
        }
        let version = u16_at(b, SEGMENT_VERSION);
        if version != VERSION {
            return Err(BadSegmentHeader::Version { found: version });
        }
        let stored = u32_at(b, SEGMENT_CRC);
        let computed = crc32c::crc32c(&b[..SEGMENT_CRC]);
        if stored != computed {
            return Err(BadSegmentHeader::Crc { stored, computed });
        }
        Ok(Self {
            system_id: SystemId::new(u64_at(b, SEGMENT_SYSTEM_ID)),
            tli: TimelineId::new(u32_at(b, SEGMENT_TLI)),
            segment_bytes: u32_at(b, SEGMENT_BYTES),
            segno: SegNo::new(u64_at(b, SEGMENT_SEGNO)),
            start_id: StartId::new(u64_at(b, SEGMENT_START_ID)),
            flushed_mark: Lsn::new(u64_at(b, SEGMENT_FLUSHED_MARK)),
            prev: Lsn::new(u64_at(b, SEGMENT_PREV)),
            continued_bytes: u32_at(b, SEGMENT_CONTINUED),
        })
    }
}

/// First bytes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Length, header included, padding not.
    pub total_bytes: u32,
    /// Checksum as stored.
    pub crc: u32,
    /// Start of the record before.
    pub prev: Lsn,
    /// Transaction.
    pub xid: Xid,
    /// Resource manager.
    pub rmgr: u8,
    /// Kind.
    pub kind: u8,
    /// Number of block references.
    pub block_count: u8,
    /// Flags.
    pub flags: u8,
}

impl RecordHeader {
    /// The bytes.
    pub fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let mut b = [0; RECORD_HEADER_BYTES];
        b[RECORD_TOTAL_BYTES..RECORD_TOTAL_BYTES + 4].copy_from_slice(&self.total_bytes.to_le_bytes());
        b[RECORD_CRC..RECORD_CRC + 4].copy_from_slice(&self.crc.to_le_bytes());
        b[RECORD_PREV..RECORD_PREV + 8].copy_from_slice(&self.prev.to_le_bytes());
        b[RECORD_XID..RECORD_XID + 8].copy_from_slice(&self.xid.to_le_bytes());
        b[RECORD_RMGR] = self.rmgr;
        b[RECORD_KIND] = self.kind;
        b[RECORD_BLOCK_COUNT] = self.block_count;
        b[RECORD_FLAGS] = self.flags;
        b
    }

    /// Takes the bytes apart; checks nothing.
    pub fn decode(b: &[u8; RECORD_HEADER_BYTES]) -> Self {
        Self {
            total_bytes: u32_at(b, RECORD_TOTAL_BYTES),
            crc: u32_at(b, RECORD_CRC),
            prev: Lsn::new(u64_at(b, RECORD_PREV)),
            xid: Xid::new(u64_at(b, RECORD_XID)),
            rmgr: b[RECORD_RMGR],
            kind: b[RECORD_KIND],
            block_count: b[RECORD_BLOCK_COUNT],
            flags: b[RECORD_FLAGS],
        }
    }

    /// The crc of the record at `start`, from that of its body: body, length, the header from `prev` on, `start`.
    ///
    /// The record's own position is part of it, so bytes of a segment's previous life never verify.
    pub fn crc(&self, body_crc: u32, start: Lsn) -> u32 {
        let head = self.encode();
        let mut b = [0; 32];
        b[0..4].copy_from_slice(&head[RECORD_TOTAL_BYTES..RECORD_TOTAL_BYTES + 4]);
        b[4..24].copy_from_slice(&head[RECORD_PREV..RECORD_HEADER_BYTES]);
        b[24..32].copy_from_slice(&start.to_le_bytes());
        crc32c::crc32c_append(body_crc, &b)
    }
}

/// Main data of a [`crate::rmgr::xlog::START`] record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartRecord {
    /// Id drawn by this start.
    pub id: StartId,
    /// Id of the start before, [`StartId::NONE`] at initdb.
    pub previous: StartId,
    /// End of WAL that the start found: where the range of `previous` ends.
    pub at: Lsn,
}

impl StartRecord {
    /// Encoded length.
    pub const BYTES: usize = 24;

    /// The bytes: id, previous, at.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut b = [0; Self::BYTES];
        b[0..8].copy_from_slice(&self.id.to_le_bytes());
        b[8..16].copy_from_slice(&self.previous.to_le_bytes());
        b[16..24].copy_from_slice(&self.at.to_le_bytes());
        b
    }

    /// From main data of the right length.
    pub fn decode(b: &[u8]) -> Option<Self> {
        if b.len() != Self::BYTES {
            return None;
        }
        Some(Self { id: StartId::new(u64_at(b, 0)), previous: StartId::new(u64_at(b, 8)), at: Lsn::new(u64_at(b, 16)) })
    }
}

/// Where a record of `bytes` lies when the WAL ends at `from`: its start and its aligned end.
///
/// A record starts past the header of a segment that begins at `from`; where it runs past a segment, the next header lies in between.
pub fn place(from: Lsn, bytes: u32, segment_bytes: u32) -> (Lsn, Lsn) {
    let header = SEGMENT_HEADER_BYTES as u64;
    let segment = u64::from(segment_bytes);
    let from = from.as_u64();
    let start = if from.is_multiple_of(segment) { from + header } else { from };
    let mut left = u64::from(bytes).next_multiple_of(crate::ids::ALIGN);
    let mut at = start;
    loop {
        let room = segment - at % segment;
        if left <= room {
            return (Lsn::new(start), Lsn::new(at + left));
        }
        left -= room;
        at += room + header;
    }
}
