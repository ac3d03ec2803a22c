//! WAL records about relation files, and their redo.

use afterimage_wal::{BlockNo, Fork, Lsn, Record, RecordBuilder, RelId, Xid, rmgr};

use super::{StorageError, buffer_pool::BufferPool, vm};

/// A fork's file was created: spc, db, rel, fork.
pub const CREATE: u8 = 0x10;
/// A fork was shortened: spc, db, rel, fork, blocks, horizon.
pub const TRUNCATE: u8 = 0x20;
/// A fork grew by empty pages: spc, db, rel, fork, first block, blocks.
pub const EXTEND: u8 = 0x30;
/// A relation's files were removed outside a commit: spc, db, rel.
pub const UNLINK: u8 = 0x40;

/// Name of a kind, for `waldump`.
pub fn kind_name(kind: u8) -> Option<&'static str> {
    match kind {
        CREATE => Some("CREATE"),
        TRUNCATE => Some("TRUNCATE"),
        EXTEND => Some("EXTEND"),
        UNLINK => Some("UNLINK"),
        _ => None,
    }
}

fn record(kind: u8, rel: RelId) -> RecordBuilder {
    let mut builder = RecordBuilder::new(rmgr::SMGR, kind, Xid::INVALID);
    builder.main(&rel.to_le_bytes());
    builder
}

pub(super) fn create_record(rel: RelId, fork: Fork) -> RecordBuilder {
    let mut builder = record(CREATE, rel);
    builder.main(&[fork.as_u8()]);
    builder
}

pub(super) fn extend_record(rel: RelId, fork: Fork, first: BlockNo, n: u32) -> RecordBuilder {
    let mut builder = record(EXTEND, rel);
    builder.main(&[fork.as_u8()]).main(&first.to_le_bytes()).main(&n.to_le_bytes());
    builder
}

pub(super) fn truncate_record(rel: RelId, fork: Fork, n: BlockNo, horizon: Lsn) -> RecordBuilder {
    let mut builder = record(TRUNCATE, rel);
    builder.main(&[fork.as_u8()]).main(&n.to_le_bytes()).main(&horizon.to_le_bytes());
    builder
}

/// The record of an unlink outside a commit.
pub fn unlink_record(rel: RelId) -> RecordBuilder {
    record(UNLINK, rel)
}

/// A decoded record of this resource manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmgrRecord {
    /// See [`CREATE`].
    Create(RelId, Fork),
    /// See [`EXTEND`].
    Extend(RelId, Fork, BlockNo, u32),
    /// See [`TRUNCATE`].
    Truncate(RelId, Fork, BlockNo, Lsn),
    /// See [`UNLINK`].
    Unlink(RelId),
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn fork(&mut self) -> Option<Fork> {
        let [byte] = self.take::<1>()?;
        Fork::from_u8(byte)
    }
}

impl SmgrRecord {
    /// Decodes the main data of a record of this kind.
    pub fn decode(kind: u8, main: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(main);
        let rel = RelId::from_le_bytes(cursor.take()?);
        Some(match kind {
            CREATE => Self::Create(rel, cursor.fork()?),
            EXTEND => {
                let fork = cursor.fork()?;
                Self::Extend(rel, fork, BlockNo::from_le_bytes(cursor.take()?), u32::from_le_bytes(cursor.take()?))
            }
            TRUNCATE => {
                let fork = cursor.fork()?;
                Self::Truncate(rel, fork, BlockNo::from_le_bytes(cursor.take()?), Lsn::from_le_bytes(cursor.take()?))
            }
            UNLINK => Self::Unlink(rel),
            _ => return None,
        })
    }
}

/// Redoes one record.
///
/// # Errors
/// A record that does not decode; I/O.
pub fn redo(pool: &BufferPool, record: &Record<'_>) -> Result<(), StorageError> {
    let decoded = SmgrRecord::decode(record.kind(), record.main())
        .ok_or(StorageError::BadRecord { at: record.start(), what: "unknown storage record" })?;
    match decoded {
        SmgrRecord::Create(rel, fork) => pool.files().create(rel, fork),
        SmgrRecord::Extend(rel, fork, first, n) => pool.redo_extend(rel, fork, first, n, record.end()),
        SmgrRecord::Truncate(rel, fork, n, _horizon) => {
            pool.files().create(rel, fork)?;
            // A standby's consistent point must cover the record before the file shrinks: redo from an older checkpoint meets records of
            // the blocks that are gone.
            pool.pass_write_gate(record.end())?;
            pool.truncate_local(rel, fork, n)?;
            if fork == Fork::Main {
                vm::forget_from(pool, rel, n, record.end())?;
            }
            pool.missing().forget_from(rel, fork, n);
            Ok(())
        }
        SmgrRecord::Unlink(rel) => {
            pool.pass_write_gate(record.end())?;
            pool.drop_relation(rel)
        }
    }
}
