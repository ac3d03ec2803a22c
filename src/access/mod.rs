//! Access methods: how rows and keys lie on pages.
//!
//! A function here gets an [`AccessCtx`], the relation's [`RelHandle`] and, if it changes something, the [`Transaction`](crate::txn::Transaction).
//! Rows and keys are opaque bytes; `sql::types::row` and `sql::types::key` give them meaning.

pub mod btree;
pub mod ctx;
pub mod error;
pub mod heap;
pub mod sequence;
pub mod vacuum;

use afterimage_wal::ids::{BlockNo, Oid, RelId};

use crate::txn::TableKey;
pub use ctx::AccessCtx;
pub use error::AccessError;
pub use vacuum::{TableVacuum, vacuum_table};

/// How long a relation's contents last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Persistence {
    /// Logged, replicated.
    Permanent,
    /// Not logged; empty after a crash and on a standby.
    Unlogged,
    /// Not logged; one session's.
    Temporary,
}

/// A relation as access methods see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelHandle {
    /// `pg_class.oid`.
    pub oid: Oid,
    /// Its files.
    pub file: RelId,
    /// Whether changes are logged.
    pub persistence: Persistence,
    /// Bytes of each heap page that are left to new versions of the rows on it: what `fillfactor` asks for.
    pub reserve: u16,
}

impl RelHandle {
    /// A handle on an ordinary, logged relation.
    pub fn permanent(oid: Oid, file: RelId) -> Self {
        Self { oid, file, persistence: Persistence::Permanent, reserve: 0 }
    }

    /// Whether serializable transactions mark what they read of it: not in catalogs, nor in what no other session sees.
    #[inline]
    pub fn is_marked(&self) -> bool {
        self.oid >= 16_384 && self.persistence != Persistence::Temporary
    }

    /// What its statistics are kept under.
    pub fn stats_key(&self) -> TableKey {
        (self.file.db, self.oid)
    }

    /// Whether its changes go to the WAL.
    pub fn logged(&self) -> bool {
        self.persistence == Persistence::Permanent
    }
}

/// Where a row version lies: block and line pointer (from 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid {
    /// Block in the relation's main fork.
    pub block: BlockNo,
    /// Line pointer, from 1.
    pub offset: u16,
}

impl Tid {
    /// A tid.
    pub fn new(block: BlockNo, offset: u16) -> Self {
        Self { block, offset }
    }

    /// Both in one number that sorts as they do; fits 48 bits.
    pub fn as_u64(self) -> u64 {
        u64::from(self.block.get()) << 16 | u64::from(self.offset)
    }

    /// Back from [`Self::as_u64`]; bits above 48 are ignored.
    pub fn from_u64(v: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "both are masked to their width by the format")]
        Self { block: BlockNo::new((v >> 16) as u32), offset: v as u16 }
    }
}

impl std::fmt::Display for Tid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({},{})", self.block.get(), self.offset)
    }
}
