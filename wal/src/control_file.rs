//! `global/pg_control`: the last checkpoint, the node's state, and what must match when it starts.
//!
//! The first 296 bytes are PostgreSQL 15's, so that the stock `pg_controldata` and `pg_ctl` read them; `pg_control_version` is ours, so that stock programs that
//! would rewrite the directory refuse it. What PostgreSQL has no place for follows, up to byte 512; the file is 8192 bytes. It is replaced
//! by rename: after a crash either the old or the new one is there.
//!
//! PostgreSQL: include/catalog/pg_control.h, common/controldata_utils.c.

use crate::disk::{self, Disk};
use crate::error::WalError;
use crate::format;
use crate::ids::{Lsn, Oid, StartId, SystemId, TimelineId, Xid};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// `pg_control_version`: not one that PostgreSQL ever had or will soon have.
pub const CONTROL_VERSION: u32 = 31_300;
/// Bytes of the file.
pub const CONTROL_BYTES: usize = 8192;
/// Bytes that PostgreSQL 15 reads.
pub const POSTGRES_BYTES: usize = 296;
/// Path in the data directory.
pub const CONTROL_FILE: &str = "global/pg_control";
/// First bytes of our own part: `AICF`.
pub const EXTENSION_MAGIC: u32 = u32::from_le_bytes(*b"AICF");
/// Version of our own part.
pub const EXTENSION_VERSION: u16 = 1;
/// How many start ids of this node are kept.
pub const STARTS_KEPT: usize = 4;

/// Offsets of PostgreSQL's fields.
pub mod at {
    /// System identifier.
    pub const SYSTEM_ID: usize = 0;
    /// Version of the file.
    pub const CONTROL_VERSION: usize = 8;
    /// Version of the catalogs.
    pub const CATALOG_VERSION: usize = 12;
    /// State of the cluster.
    pub const STATE: usize = 16;
    /// Time of the last write.
    pub const TIME: usize = 24;
    /// Start of the last checkpoint's record.
    pub const CHECKPOINT: usize = 32;
    /// Redo LSN.
    pub const REDO: usize = 40;
    /// Timeline.
    pub const TLI: usize = 48;
    /// Timeline before.
    pub const PREV_TLI: usize = 52;
    /// Full page writes.
    pub const FULL_PAGE_WRITES: usize = 56;
    /// Next xid, 64 bits.
    pub const NEXT_XID: usize = 64;
    /// Next OID.
    pub const NEXT_OID: usize = 72;
    /// Next multixact: always 1, there are none.
    pub const NEXT_MULTI: usize = 76;
    /// Oldest xid, low 32 bits.
    pub const OLDEST_XID: usize = 84;
    /// Its database.
    pub const OLDEST_XID_DB: usize = 88;
    /// Oldest multixact: always 1.
    pub const OLDEST_MULTI: usize = 92;
    /// Its database.
    pub const OLDEST_MULTI_DB: usize = 96;
    /// Time of the checkpoint.
    pub const CHECKPOINT_TIME: usize = 104;
    /// Oldest running xid, low 32 bits.
    pub const OLDEST_ACTIVE_XID: usize = 120;
    /// LSN for unlogged relations.
    pub const UNLOGGED_LSN: usize = 128;
    /// Least end of recovery.
    pub const MIN_RECOVERY_POINT: usize = 136;
    /// Its timeline.
    pub const MIN_RECOVERY_TLI: usize = 144;
    /// Redo LSN of the backup being recovered.
    pub const BACKUP_START: usize = 152;
    /// End of the backup being recovered.
    pub const BACKUP_END: usize = 160;
    /// A backup-end record must come.
    pub const BACKUP_END_REQUIRED: usize = 168;
    /// `wal_level`.
    pub const WAL_LEVEL: usize = 172;
    /// `wal_log_hints`.
    pub const WAL_LOG_HINTS: usize = 176;
    /// `max_connections`.
    pub const MAX_CONNECTIONS: usize = 180;
    /// `max_worker_processes`.
    pub const MAX_WORKER_PROCESSES: usize = 184;
    /// `max_wal_senders`.
    pub const MAX_WAL_SENDERS: usize = 188;
    /// `max_prepared_transactions`.
    pub const MAX_PREPARED_XACTS: usize = 192;
    /// `max_locks_per_transaction`.
    pub const MAX_LOCKS_PER_XACT: usize = 196;
    /// `track_commit_timestamp`.
    pub const TRACK_COMMIT_TIMESTAMP: usize = 200;
    /// Alignment.
    pub const MAX_ALIGN: usize = 204;
    /// 1234567.0.
    pub const FLOAT_FORMAT: usize = 208;
    /// Page size.
    pub const BLOCK_BYTES: usize = 216;
    /// Blocks in one file of a relation.
    pub const RELATION_SEGMENT_BLOCKS: usize = 220;
    /// WAL block size: shown, not used.
    pub const WAL_BLOCK_BYTES: usize = 224;
    /// WAL segment size.
    pub const WAL_SEGMENT_BYTES: usize = 228;
    /// Longest name, with its zero.
    pub const NAME_BYTES: usize = 232;
    /// Most columns of an index.
    pub const INDEX_MAX_KEYS: usize = 236;
    /// Size of an out-of-line chunk.
    pub const TOAST_CHUNK_BYTES: usize = 240;
    /// Size of a large object's chunk.
    pub const LARGE_OBJECT_BYTES: usize = 244;
    /// 8-byte values are passed by value.
    pub const FLOAT8_BY_VALUE: usize = 248;
    /// Version of page checksums.
    pub const CHECKSUM_VERSION: usize = 252;
    /// For authentication of users that do not exist.
    pub const NONCE: usize = 256;
    /// crc32c of the bytes before.
    pub const CRC: usize = 288;
    /// Our own part: magic.
    pub const EXTENSION: usize = 296;
    /// Our own part: version.
    pub const EXTENSION_VERSION: usize = 300;
    /// Our own part: start ids of this node, newest first.
    pub const STARTS: usize = 304;
    /// Our own part: the checkpoint as its record has it.
    pub const CHECKPOINT_COPY: usize = 336;
    /// Our own part: where this node began to receive WAL ahead of its upstream's sync.
    pub const AHEAD_FROM: usize = 392;
    /// Our own part: crc32c of all bytes before.
    pub const EXTENSION_CRC: usize = 508;
}

const _: () = assert!(at::CRC + 8 == POSTGRES_BYTES);
const _: () = assert!(at::STARTS + 8 * STARTS_KEPT == at::CHECKPOINT_COPY);
const _: () = assert!(at::CHECKPOINT_COPY + Checkpoint::BYTES == at::AHEAD_FROM);
const _: () = assert!(at::AHEAD_FROM + 8 <= at::EXTENSION_CRC);

/// What the cluster was doing when the file was written, with PostgreSQL's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClusterState {
    /// Starting.
    #[default]
    Startup = 0,
    /// Stopped cleanly as a primary.
    Shutdowned = 1,
    /// Stopped cleanly as a standby.
    ShutdownedInRecovery = 2,
    /// Writing its last checkpoint.
    ShuttingDown = 3,
    /// Redoing its own WAL.
    InCrashRecovery = 4,
    /// A standby, or recovering from an archive or a backup.
    InArchiveRecovery = 5,
    /// A primary.
    InProduction = 6,
}

impl ClusterState {
    /// The state with this number.
    pub fn from_u32(n: u32) -> Option<Self> {
        Some(match n {
            0 => Self::Startup,
            1 => Self::Shutdowned,
            2 => Self::ShutdownedInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::InCrashRecovery,
            5 => Self::InArchiveRecovery,
            6 => Self::InProduction,
            _ => return None,
        })
    }

    /// PostgreSQL's words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "starting up",
            Self::Shutdowned => "shut down",
            Self::ShutdownedInRecovery => "shut down in recovery",
            Self::ShuttingDown => "shutting down",
            Self::InCrashRecovery => "in crash recovery",
            Self::InArchiveRecovery => "in archive recovery",
            Self::InProduction => "in production",
        }
    }
}

/// A checkpoint: main data of the `CHECKPOINT_*` records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where redo starts.
    pub redo: Lsn,
    /// Timeline.
    pub tli: TimelineId,
    /// The timeline before, if this is the first checkpoint of one; else the same.
    pub prev_tli: TimelineId,
    /// `full_page_writes`.
    pub full_page_writes: bool,
    /// Xids from here on were not assigned.
    pub next_xid: Xid,
    /// OIDs from here on were not assigned.
    pub next_oid: Oid,
    /// Status of older xids is not kept.
    pub oldest_xid: Xid,
    /// Oldest running xid, or [`Xid::INVALID`].
    pub oldest_active_xid: Xid,
    /// Seconds since 1970.
    pub time: i64,
}

impl Checkpoint {
    /// Encoded length.
    pub const BYTES: usize = 56;

    /// The bytes: redo, tli, prev_tli, next_xid, oldest_xid, oldest_active_xid, time, next_oid, full_page_writes as u32.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut b = Put([0; Self::BYTES]);
        b.put(0, &self.redo.to_le_bytes());
        b.put(8, &self.tli.to_le_bytes());
        b.put(12, &self.prev_tli.to_le_bytes());
        b.put(16, &self.next_xid.to_le_bytes());
        b.put(24, &self.oldest_xid.to_le_bytes());
        b.put(32, &self.oldest_active_xid.to_le_bytes());
        b.put(40, &self.time.to_le_bytes());
        b.put(48, &self.next_oid.to_le_bytes());
        b.put(52, &u32::from(self.full_page_writes).to_le_bytes());
        b.0
    }

    /// From main data of the right length.
    pub fn decode(b: &[u8]) -> Option<Self> {
        if b.len() != Self::BYTES {
            return None;
        }
        Some(Self {
            redo: Lsn::new(long(b, 0)),
            tli: TimelineId::new(word(b, 8)),
            prev_tli: TimelineId::new(word(b, 12)),
            next_xid: Xid::new(long(b, 16)),
            oldest_xid: Xid::new(long(b, 24)),
            oldest_active_xid: Xid::new(long(b, 32)),
            time: long(b, 40).cast_signed(),
            next_oid: word(b, 48),
            full_page_writes: word(b, 52) != 0,
        })
    }
}

struct Put<const N: usize>([u8; N]);

impl<const N: usize> Put<N> {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

fn word(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn long(b: &[u8], at: usize) -> u64 {
    (u64::from(word(b, at + 4)) << 32) | u64::from(word(b, at))
}

/// Settings of a primary that its standbys' recovery depends on; main data of a parameter change record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// `wal_level`: 0 minimal, 1 replica, 2 logical.
    pub wal_level: u32,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_xacts: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_xact: u32,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            wal_level: 1,
            wal_log_hints: false,
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_xacts: 0,
            max_locks_per_xact: 64,
            track_commit_timestamp: false,
        }
    }
}

impl Parameters {
    /// Main data.
    pub fn encode(&self) -> Vec<u8> {
        let numbers = [
            self.wal_level,
            u32::from(self.wal_log_hints),
            self.max_connections,
            self.max_worker_processes,
            self.max_wal_senders,
            self.max_prepared_xacts,
            self.max_locks_per_xact,
            u32::from(self.track_commit_timestamp),
        ];
        numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
    }

    /// From main data.
    pub fn decode(main: &[u8]) -> Option<Self> {
        let (numbers, []) = main.as_chunks::<4>() else { return None };
        let numbers: &[[u8; 4]; 8] = numbers.try_into().ok()?;
        let [level, hints, connections, workers, senders, prepared, locks, commit_timestamp] = numbers.map(u32::from_le_bytes);
        Some(Self {
            wal_level: level,
            wal_log_hints: hints != 0,
            max_connections: connections,
            max_worker_processes: workers,
            max_wal_senders: senders,
            max_prepared_xacts: prepared,
            max_locks_per_xact: locks,
            track_commit_timestamp: commit_timestamp != 0,
        })
    }
}

/// The control file.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlFile {
    /// Identity of the cluster.
    pub system_id: SystemId,
    /// Version of the file: [`CONTROL_VERSION`], or another program's.
    pub control_version: u32,
    /// Version of the catalogs.
    pub catalog_version: u32,
    /// What the node was doing.
    pub state: ClusterState,
    /// Last write, seconds since 1970; set by [`write`](Self::write).
    pub time: i64,
    /// Start of the last checkpoint's record.
    pub checkpoint: Lsn,
    /// What that record says.
    pub checkpoint_copy: Checkpoint,
    /// LSN counter for unlogged relations.
    pub unlogged_lsn: Lsn,
    /// Recovery must reach this before anyone may read; [`Lsn::INVALID`] on a primary.
    pub min_recovery_point: Lsn,
    /// Its timeline.
    pub min_recovery_tli: TimelineId,
    /// Redo LSN of the backup being recovered.
    pub backup_start: Lsn,
    /// End of the backup being recovered, if taken from a standby.
    pub backup_end: Lsn,
    /// A backup-end record must come before anyone may read.
    pub backup_end_required: bool,
    /// What the standbys of this cluster must match.
    pub parameters: Parameters,
    /// Size of WAL segments.
    pub segment_bytes: u32,
    /// Version of page checksums.
    pub checksum_version: u32,
    /// For authentication of users that do not exist.
    pub mock_authentication_nonce: [u8; 32],
    /// Start ids this node wrote WAL under, newest first: its own flushed marks count in recovery. [`StartId::NONE`]: no such.
    pub own_starts: [StartId; STARTS_KEPT],
    /// WAL behind this may have been received ahead of the upstream's sync: a start does not take it as confirmed without further proof.
    /// [`Lsn::INVALID`]: none was.
    pub ahead_from: Lsn,
}

/// What [`ControlFile::read_unchecked`] found besides the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks {
    /// crc of PostgreSQL's part is right.
    pub crc_ok: bool,
    /// crc of our own part is right, and its version known.
    pub extension_ok: bool,
}

impl ControlFile {
    /// Of a new cluster.
    pub fn new(system_id: SystemId, catalog_version: u32, segment_bytes: u32) -> Self {
        Self {
            system_id,
            control_version: CONTROL_VERSION,
            catalog_version,
            state: ClusterState::Startup,
            time: 0,
            checkpoint: Lsn::INVALID,
            checkpoint_copy: Checkpoint::default(),
            unlogged_lsn: Lsn::new(1000),
            min_recovery_point: Lsn::INVALID,
            min_recovery_tli: TimelineId::INVALID,
            backup_start: Lsn::INVALID,
            backup_end: Lsn::INVALID,
            backup_end_required: false,
            parameters: Parameters::default(),
            segment_bytes,
            checksum_version: 1,
            mock_authentication_nonce: rand::random(),
            own_starts: [StartId::NONE; STARTS_KEPT],
            ahead_from: Lsn::INVALID,
        }
    }

    /// Remembers a start id drawn by this node. To be durable before [`crate::Wal::begin_writing`] uses it.
    pub fn push_start(&mut self, id: StartId) {
        self.own_starts.rotate_right(1);
        self.own_starts[0] = id;
    }

    /// The start ids, [`StartId::NONE`] left out: for [`crate::reader::Evidence`].
    pub fn starts(&self) -> Vec<StartId> {
        self.own_starts.iter().copied().filter(|&s| s != StartId::NONE).collect()
    }

    /// Path of the file in a data directory.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join(CONTROL_FILE)
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut b = Put([0; 512]);
        let c = &self.checkpoint_copy;
        b.put(at::SYSTEM_ID, &self.system_id.to_le_bytes());
        b.put(at::CONTROL_VERSION, &self.control_version.to_le_bytes());
        b.put(at::CATALOG_VERSION, &self.catalog_version.to_le_bytes());
        b.put(at::STATE, &(self.state as u32).to_le_bytes());
        b.put(at::TIME, &self.time.to_le_bytes());
        b.put(at::CHECKPOINT, &self.checkpoint.to_le_bytes());
        b.put(at::REDO, &c.redo.to_le_bytes());
        b.put(at::TLI, &c.tli.to_le_bytes());
        b.put(at::PREV_TLI, &c.prev_tli.to_le_bytes());
        b.put(at::FULL_PAGE_WRITES, &[u8::from(c.full_page_writes)]);
        b.put(at::NEXT_XID, &c.next_xid.to_le_bytes());
        b.put(at::NEXT_OID, &c.next_oid.to_le_bytes());
        b.put(at::NEXT_MULTI, &1_u32.to_le_bytes());
        b.put(at::OLDEST_XID, &c.oldest_xid.low().to_le_bytes());
        b.put(at::OLDEST_XID_DB, &1_u32.to_le_bytes());
        b.put(at::OLDEST_MULTI, &1_u32.to_le_bytes());
        b.put(at::OLDEST_MULTI_DB, &1_u32.to_le_bytes());
        b.put(at::CHECKPOINT_TIME, &c.time.to_le_bytes());
        b.put(at::OLDEST_ACTIVE_XID, &c.oldest_active_xid.low().to_le_bytes());
        b.put(at::UNLOGGED_LSN, &self.unlogged_lsn.to_le_bytes());
        b.put(at::MIN_RECOVERY_POINT, &self.min_recovery_point.to_le_bytes());
        b.put(at::MIN_RECOVERY_TLI, &self.min_recovery_tli.to_le_bytes());
        b.put(at::BACKUP_START, &self.backup_start.to_le_bytes());
        b.put(at::BACKUP_END, &self.backup_end.to_le_bytes());
        b.put(at::BACKUP_END_REQUIRED, &[u8::from(self.backup_end_required)]);
        let p = &self.parameters;
        b.put(at::WAL_LEVEL, &p.wal_level.to_le_bytes());
        b.put(at::WAL_LOG_HINTS, &[u8::from(p.wal_log_hints)]);
        b.put(at::MAX_CONNECTIONS, &p.max_connections.to_le_bytes());
        b.put(at::MAX_WORKER_PROCESSES, &p.max_worker_processes.to_le_bytes());
        b.put(at::MAX_WAL_SENDERS, &p.max_wal_senders.to_le_bytes());
        b.put(at::MAX_PREPARED_XACTS, &p.max_prepared_xacts.to_le_bytes());
        b.put(at::MAX_LOCKS_PER_XACT, &p.max_locks_per_xact.to_le_bytes());
        b.put(at::TRACK_COMMIT_TIMESTAMP, &[u8::from(p.track_commit_timestamp)]);
        b.put(at::MAX_ALIGN, &8_u32.to_le_bytes());
        b.put(at::FLOAT_FORMAT, &1_234_567.0_f64.to_le_bytes());
        b.put(at::BLOCK_BYTES, &8192_u32.to_le_bytes());
        b.put(at::RELATION_SEGMENT_BLOCKS, &131_072_u32.to_le_bytes());
        b.put(at::WAL_BLOCK_BYTES, &8192_u32.to_le_bytes());
        b.put(at::WAL_SEGMENT_BYTES, &self.segment_bytes.to_le_bytes());
        b.put(at::NAME_BYTES, &64_u32.to_le_bytes());
        b.put(at::INDEX_MAX_KEYS, &32_u32.to_le_bytes());
        b.put(at::TOAST_CHUNK_BYTES, &1996_u32.to_le_bytes());
        b.put(at::LARGE_OBJECT_BYTES, &2048_u32.to_le_bytes());
        b.put(at::FLOAT8_BY_VALUE, &[1]);
        b.put(at::CHECKSUM_VERSION, &self.checksum_version.to_le_bytes());
        b.put(at::NONCE, &self.mock_authentication_nonce);
        let crc = crc32c::crc32c(&b.0[..at::CRC]);
        b.put(at::CRC, &crc.to_le_bytes());
        b.put(at::EXTENSION, &EXTENSION_MAGIC.to_le_bytes());
        b.put(at::EXTENSION_VERSION, &EXTENSION_VERSION.to_le_bytes());
        for (i, id) in self.own_starts.iter().enumerate() {
            b.put(at::STARTS + 8 * i, &id.to_le_bytes());
        }
        b.put(at::CHECKPOINT_COPY, &c.encode());
        b.put(at::AHEAD_FROM, &self.ahead_from.to_le_bytes());
        let crc = crc32c::crc32c(&b.0[..at::EXTENSION_CRC]);
        b.put(at::EXTENSION_CRC, &crc.to_le_bytes());
        let mut bytes = b.0.to_vec();
        bytes.resize(CONTROL_BYTES, 0);
        bytes
    }

    /// From the bytes, right or wrong, as `pg_controldata` shows them. `None` if there are too few.
    pub fn decode(b: &[u8]) -> Option<(Self, Checks)> {
        if b.len() < POSTGRES_BYTES {
            return None;
        }
        let flag = |at: usize| b[at] != 0;
        let crc_ok = word(b, at::CRC) == crc32c::crc32c(&b[..at::CRC]);
        let extension_ok = b.len() >= 512
            && word(b, at::EXTENSION) == EXTENSION_MAGIC
            && word(b, at::EXTENSION_VERSION) == u32::from(EXTENSION_VERSION)
            && word(b, at::EXTENSION_CRC) == crc32c::crc32c(&b[..at::EXTENSION_CRC]);
        let postgres_copy = Checkpoint {
            redo: Lsn::new(long(b, at::REDO)),
            tli: TimelineId::new(word(b, at::TLI)),
            prev_tli: TimelineId::new(word(b, at::PREV_TLI)),
            full_page_writes: flag(at::FULL_PAGE_WRITES),
            next_xid: Xid::new(long(b, at::NEXT_XID)),
            next_oid: word(b, at::NEXT_OID),
            oldest_xid: Xid::new(word(b, at::OLDEST_XID).into()),
            oldest_active_xid: Xid::new(word(b, at::OLDEST_ACTIVE_XID).into()),
            time: long(b, at::CHECKPOINT_TIME).cast_signed(),
        };
        let mut own_starts = [StartId::NONE; STARTS_KEPT];
        let mut checkpoint_copy = postgres_copy;
        let mut ahead_from = Lsn::INVALID;
        if extension_ok {
            ahead_from = Lsn::new(long(b, at::AHEAD_FROM));
            for (i, id) in own_starts.iter_mut().enumerate() {
                *id = StartId::new(long(b, at::STARTS + 8 * i));
            }
            let full = Checkpoint::decode(&b[at::CHECKPOINT_COPY..at::CHECKPOINT_COPY + Checkpoint::BYTES]);
            checkpoint_copy = full.unwrap_or(postgres_copy);
        }
        let mut mock_authentication_nonce = [0; 32];
        mock_authentication_nonce.copy_from_slice(&b[at::NONCE..at::CRC]);
        let file = Self {
            system_id: SystemId::new(long(b, at::SYSTEM_ID)),
            control_version: word(b, at::CONTROL_VERSION),
            catalog_version: word(b, at::CATALOG_VERSION),
            state: ClusterState::from_u32(word(b, at::STATE)).unwrap_or_default(),
            time: long(b, at::TIME).cast_signed(),
            checkpoint: Lsn::new(long(b, at::CHECKPOINT)),
            checkpoint_copy,
            unlogged_lsn: Lsn::new(long(b, at::UNLOGGED_LSN)),
            min_recovery_point: Lsn::new(long(b, at::MIN_RECOVERY_POINT)),
            min_recovery_tli: TimelineId::new(word(b, at::MIN_RECOVERY_TLI)),
            backup_start: Lsn::new(long(b, at::BACKUP_START)),
            backup_end: Lsn::new(long(b, at::BACKUP_END)),
            backup_end_required: flag(at::BACKUP_END_REQUIRED),
            parameters: Parameters {
                wal_level: word(b, at::WAL_LEVEL),
                wal_log_hints: flag(at::WAL_LOG_HINTS),
                max_connections: word(b, at::MAX_CONNECTIONS),
                max_worker_processes: word(b, at::MAX_WORKER_PROCESSES),
                max_wal_senders: word(b, at::MAX_WAL_SENDERS),
                max_prepared_xacts: word(b, at::MAX_PREPARED_XACTS),
                max_locks_per_xact: word(b, at::MAX_LOCKS_PER_XACT),
                track_commit_timestamp: flag(at::TRACK_COMMIT_TIMESTAMP),
            },
            segment_bytes: word(b, at::WAL_SEGMENT_BYTES),
            checksum_version: word(b, at::CHECKSUM_VERSION),
            mock_authentication_nonce,
            own_starts,
            ahead_from,
        };
        Some((file, Checks { crc_ok, extension_ok }))
    }

    /// Reads the file of a data directory, whatever it holds.
    ///
    /// # Errors
    /// [`WalError::Io`], [`WalError::BadFile`] if it is too short.
    pub fn read_unchecked(disk: &dyn Disk, data_dir: &Path) -> Result<(Self, Checks), WalError> {
        let path = Self::path(data_dir);
        let bytes = disk::read_all(disk, &path).map_err(|e| WalError::io("open", &path, e))?;
        Self::decode(&bytes).ok_or(WalError::BadFile { path, what: "control file is too short" })
    }

    /// Reads and checks the file of a data directory.
    ///
    /// # Errors
    /// [`WalError::Io`], [`WalError::BadVersion`], [`WalError::Checksum`], [`WalError::BadFile`].
    pub fn read(disk: &dyn Disk, data_dir: &Path) -> Result<Self, WalError> {
        let path = Self::path(data_dir);
        let bytes = disk::read_all(disk, &path).map_err(|e| WalError::io("open", &path, e))?;
        let short = || WalError::BadFile { path: path.clone(), what: "control file is too short" };
        let (file, checks) = Self::decode(&bytes).ok_or_else(short)?;
        if file.control_version != CONTROL_VERSION {
            return Err(WalError::BadVersion { path, found: file.control_version, expected: CONTROL_VERSION });
        }
        if bytes.len() < 512 {
            return Err(short());
        }
        for (ok, at) in [(checks.crc_ok, at::CRC), (checks.extension_ok, at::EXTENSION_CRC)] {
            if !ok {
                let version = word(&bytes, at::EXTENSION_VERSION);
                if checks.crc_ok && version != u32::from(EXTENSION_VERSION) {
                    return Err(WalError::BadVersion { path, found: version, expected: EXTENSION_VERSION.into() });
                }
                let (stored, computed) = (word(&bytes, at), crc32c::crc32c(&bytes[..at]));
                return Err(WalError::Checksum { path, stored, computed });
            }
        }
        if ClusterState::from_u32(word(&bytes, at::STATE)).is_none() {
            return Err(WalError::BadFile { path, what: "unknown cluster state" });
        }
        if !crate::segment::is_valid_segment_bytes(file.segment_bytes) {
            return Err(WalError::BadFile { path, what: "WAL segment size is not a power of two from 1 MB to 1 GB" });
        }
        Ok(file)
    }

    /// Writes the file durably, with the time of now.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn write(&self, disk: &dyn Disk, data_dir: &Path) -> Result<(), WalError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let mut file = self.clone();
        file.time = i64::try_from(now).unwrap_or(i64::MAX);
        let path = Self::path(data_dir);
        let written: io::Result<()> = disk::durable_replace(disk, &path, &file.encode());
        written.map_err(|e| WalError::io("write", path, e))
    }
}

const _: () = assert!(format::SEGMENT_MAX_BYTES == 1 << 30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, Open, RealDisk, SimDisk};

    fn sample() -> ControlFile {
        let mut c = ControlFile::new(SystemId::new(7_123_456_789_012_345_678), 202_611_211, 16 << 20);
        c.state = ClusterState::InProduction;
        c.checkpoint = Lsn::new(0x100_0148);
        c.checkpoint_copy = Checkpoint {
            redo: Lsn::new(0x100_0110),
            tli: TimelineId::new(3),
            prev_tli: TimelineId::new(2),
            full_page_writes: true,
            next_xid: Xid::new((5 << 32) | 731),
            next_oid: 16_384,
            oldest_xid: Xid::new((5 << 32) | 7),
            oldest_active_xid: Xid::new((5 << 32) | 9),
            time: 1_700_000_000,
        };
        c.min_recovery_point = Lsn::new(0x16_B374_D848);
        c.min_recovery_tli = TimelineId::new(3);
        c.backup_end_required = true;
        c.push_start(StartId::new(11));
        c.push_start(StartId::new(12));
        c
    }

    #[test]
    fn control_file_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("global")).unwrap();
        let mut c = sample();
        c.write(&RealDisk, dir.path()).unwrap();
        let read = ControlFile::read(&RealDisk, dir.path()).unwrap();
        c.time = read.time;
        assert_eq!(read, c);
        assert_eq!(read.starts(), [StartId::new(12), StartId::new(11)]);
        assert_eq!(std::fs::metadata(ControlFile::path(dir.path())).unwrap().len(), 8192);
    }

    #[test]
    fn no_flipped_bit_or_cut_passes() {
        let disk = SimDisk::new();
        let path = ControlFile::path(Path::new("/data"));
        disk.create_dir(path.parent().unwrap()).unwrap();
        let file = disk.open(&path, Open::Create).unwrap();
        let bytes = sample().encode();
        file.write_at(&bytes, 0).unwrap();
        for bit in 0..512 * 8 {
            let flip = [bytes[bit / 8] ^ (1 << (bit % 8))];
            file.write_at(&flip, bit as u64 / 8).unwrap();
            assert!(ControlFile::read(&disk, Path::new("/data")).is_err(), "bit {bit}");
            file.write_at(&bytes[bit / 8..=bit / 8], bit as u64 / 8).unwrap();
        }
        assert!(ControlFile::read(&disk, Path::new("/data")).is_ok());
        for cut in (0..512).rev() {
            file.set_len(cut).unwrap();
            assert!(ControlFile::read(&disk, Path::new("/data")).is_err());
        }
    }

    #[test]
    fn stock_pg_controldata_reads_it() {
        let stock = Path::new("/usr/lib/postgresql/15/bin/pg_controldata");
        if !stock.exists() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("global")).unwrap();
        sample().write(&RealDisk, dir.path()).unwrap();
        let out = std::process::Command::new(stock).arg(dir.path()).env("LC_ALL", "C").output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success() && !text.contains("WARNING"), "{text}");
        for line in [
            "Database system identifier:           7123456789012345678",
            "Database cluster state:               in production",
            "Latest checkpoint location:           0/1000148",
            "Latest checkpoint's REDO location:    0/1000110",
            "Latest checkpoint's REDO WAL file:    000000030000000000000001",
            "Latest checkpoint's PrevTimeLineID:   2",
            "Latest checkpoint's full_page_writes: on",
            "Latest checkpoint's NextXID:          5:731",
            "Latest checkpoint's NextOID:          16384",
            "Latest checkpoint's oldestXID:        7",
            "Latest checkpoint's oldestActiveXID:  9",
            "Minimum recovery ending location:     16/B374D848",
            "Min recovery ending loc's timeline:   3",
            "End-of-backup record required:        yes",
            "wal_level setting:                    replica",
            "max_connections setting:              100",
            "max_locks_per_xact setting:           64",
            "Bytes per WAL segment:                16777216",
            "Maximum size of a TOAST chunk:        1996",
            "Data page checksum version:           1",
        ] {
            assert!(text.contains(line), "no {line:?} in\n{text}");
        }
    }
}
