//! Resource managers: who wrote a record and who redoes it.
//!
//! The WAL itself knows only the kinds of [`XLOG`] that shape the WAL (switch, no-op, start). The layers above register
//! the names and descriptions of theirs in a [`Registry`] for `waldump`.

use crate::control_file::Checkpoint;
use crate::format::StartRecord;
use crate::record::Record;
use std::fmt;

/// The WAL itself: checkpoints, segment switches, starts.
pub const XLOG: u8 = 0;
/// Commit and abort.
pub const XACT: u8 = 1;
/// Relation files: create, extend, truncate, unlink.
pub const SMGR: u8 = 2;
/// Heap pages.
pub const HEAP: u8 = 3;
/// B-tree pages.
pub const BTREE: u8 = 4;
/// Sequences.
pub const SEQUENCE: u8 = 5;
/// What a hot standby needs to know: locks, conflicts.
pub const STANDBY: u8 = 6;
/// Databases and their directories.
pub const DATABASE: u8 = 7;
/// Messages put into the WAL by `pg_logical_emit_message`; redo does nothing.
pub const LOGICAL_MESSAGE: u8 = 8;
/// How many resource managers there are; higher ids are not ours.
pub const COUNT: u8 = 9;

/// Names in order of the ids, with PostgreSQL's spelling where it has one.
pub const NAMES: [&str; COUNT as usize] =
    ["XLOG", "Transaction", "Storage", "Heap", "Btree", "Sequence", "Standby", "Database", "LogicalMessage"];

/// Name of a resource manager.
pub fn name(rmgr: u8) -> &'static str {
    NAMES.get(usize::from(rmgr)).copied().unwrap_or("unknown")
}

/// Resource manager with this name, case ignored.
pub fn by_name(name: &str) -> Option<u8> {
    (0..COUNT).find(|&r| NAMES[usize::from(r)].eq_ignore_ascii_case(name))
}

/// Kinds of [`XLOG`] records, with PostgreSQL's numbers where it has them.
pub mod xlog {
    /// Checkpoint of a clean stop.
    pub const CHECKPOINT_SHUTDOWN: u8 = 0x00;
    /// Checkpoint while running.
    pub const CHECKPOINT_ONLINE: u8 = 0x10;
    /// Nothing.
    pub const NOOP: u8 = 0x20;
    /// Oids below this one may be in use.
    pub const NEXTOID: u8 = 0x30;
    /// The rest of the segment is unused, zeroed.
    pub const SWITCH: u8 = 0x40;
    /// End of a file-copy backup.
    pub const BACKUP_END: u8 = 0x50;
    /// Settings a standby must match.
    pub const PARAMETER_CHANGE: u8 = 0x60;
    /// Named restore point.
    pub const RESTORE_POINT: u8 = 0x70;
    /// Full page images switched on or off.
    pub const FPW_CHANGE: u8 = 0x80;
    /// First record of a new timeline.
    pub const END_OF_RECOVERY: u8 = 0x90;
    /// Full page images for a backup that copies files while they are written: see `storage::backup_images`.
    pub const FPI_FOR_BACKUP: u8 = 0xA0;
    /// Full page images.
    pub const FPI: u8 = 0xB0;
    /// A crash left a record whose continuation is missing; the WAL goes on in its place.
    pub const OVERWRITE_CONTRECORD: u8 = 0xD0;
    /// A writer started: id, previous id, position. See [`crate::format::StartRecord`].
    pub const START: u8 = 0xE0;

    /// Name for `waldump`.
    pub fn name(kind: u8) -> Option<&'static str> {
        Some(match kind {
            CHECKPOINT_SHUTDOWN => "CHECKPOINT_SHUTDOWN",
            CHECKPOINT_ONLINE => "CHECKPOINT_ONLINE",
            NOOP => "NOOP",
            NEXTOID => "NEXTOID",
            SWITCH => "SWITCH",
            BACKUP_END => "BACKUP_END",
            PARAMETER_CHANGE => "PARAMETER_CHANGE",
            RESTORE_POINT => "RESTORE_POINT",
            FPW_CHANGE => "FPW_CHANGE",
            END_OF_RECOVERY => "END_OF_RECOVERY",
            FPI_FOR_BACKUP => "FPI_FOR_BACKUP",
            FPI => "FPI",
            OVERWRITE_CONTRECORD => "OVERWRITE_CONTRECORD",
            START => "START",
            _ => return None,
        })
    }
}

/// How one resource manager's records are shown.
pub trait Describe: Send + Sync {
    /// Name of a kind, `INSERT` say; `None` if it has none.
    fn kind_name(&self, kind: u8) -> Option<&'static str>;

    /// What the record says, block references excluded; writes nothing if there is nothing to add.
    ///
    /// # Errors
    /// Only those of `out`.
    fn describe(&self, record: &Record<'_>, out: &mut dyn fmt::Write) -> fmt::Result;
}

/// The descriptions known, by resource manager.
#[derive(Default)]
pub struct Registry {
    entries: [Option<Box<dyn Describe>>; COUNT as usize],
}

impl Registry {
    /// Knows the [`XLOG`] kinds of this crate only.
    pub fn new() -> Self {
        let mut registry = Self::default();
        registry.register(XLOG, Box::new(DescribeXlog));
        registry
    }

    /// Sets the description of one resource manager; ids past [`COUNT`] are ignored.
    pub fn register(&mut self, rmgr: u8, describe: Box<dyn Describe>) {
        if let Some(entry) = self.entries.get_mut(usize::from(rmgr)) {
            *entry = Some(describe);
        }
    }

    /// The description of one resource manager.
    pub fn get(&self, rmgr: u8) -> Option<&dyn Describe> {
        self.entries.get(usize::from(rmgr)).and_then(|e| e.as_deref())
    }
}

struct DescribeXlog;

impl Describe for DescribeXlog {
    fn kind_name(&self, kind: u8) -> Option<&'static str> {
        xlog::name(kind)
    }

    fn describe(&self, record: &Record<'_>, out: &mut dyn fmt::Write) -> fmt::Result {
        match record.kind() {
            xlog::START => match StartRecord::decode(record.main()) {
                Some(s) => write!(out, "id {}, previous {}, at {}", s.id, s.previous, s.at),
                None => write!(out, "does not decode"),
            },
            xlog::CHECKPOINT_SHUTDOWN | xlog::CHECKPOINT_ONLINE => match Checkpoint::decode(record.main()) {
                Some(c) => write!(
                    out,
                    "redo {}; tli {}; prev tli {}; fpw {}; xid {}; oid {}; oldest xid {}; oldest running xid {}; {}",
                    c.redo,
                    c.tli,
                    c.prev_tli,
                    c.full_page_writes,
                    c.next_xid,
                    c.next_oid,
                    c.oldest_xid,
                    c.oldest_active_xid,
                    if record.kind() == xlog::CHECKPOINT_SHUTDOWN { "shutdown" } else { "online" }
                ),
                None => write!(out, "does not decode"),
            },
            _ => Ok(()),
        }
    }
}
