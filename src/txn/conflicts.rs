//! What replay on this standby cancelled, by database: `pg_stat_database_conflicts`.
//!
//! Only snapshots come in the way here. PostgreSQL's other kinds cannot come up: replay of DDL waits for no reader (lock, deadlock, database), a
//! reader keeps its own copy of the page it is on (buffer pin), and temporary files are in no tablespace that replay could drop.

use std::collections::HashMap;

use afterimage_wal::ids::Oid;
use parking_lot::Mutex;

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Conflicts {
    /// Leaf.
    counts: Mutex<HashMap<Oid, u64>>,
}

impl Conflicts {
    /// A session was cancelled: its snapshot saw row versions that had to go.
    pub(crate) fn note(&self, database: Oid) {
        *self.counts.lock().entry(database).or_default() += 1;
    }

    /// How often in a database.
    pub fn get(&self, database: Oid) -> u64 {
        self.counts.lock().get(&database).copied().unwrap_or(0)
    }
}
