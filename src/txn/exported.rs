//! Exported snapshots: what `pg_export_snapshot` hands out and SET TRANSACTION SNAPSHOT takes. A snapshot is one number, so that is all there is
//! to hand over; it stays registered until the exporting transaction ends. PostgreSQL: `ExportSnapshot` in utils/time/snapmgr.c.

use std::collections::HashMap;

use afterimage_wal::ids::{Lsn, Oid};
use parking_lot::Mutex;

use super::snapshot::{Registration, Snapshot};
use super::transaction::Isolation;

/// A snapshot somebody may import.
#[derive(Debug)]
struct Exported {
    snapshot: Snapshot,
    about: ExportedSnapshot,
}

/// Where an exported snapshot comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportedSnapshot {
    /// What it reads at.
    pub lsn: Lsn,
    /// Isolation level of its transaction.
    pub isolation: Isolation,
    /// Whether that is read only.
    pub read_only: bool,
    /// Its database.
    pub database: Oid,
}

/// A node's exported snapshots.
#[derive(Debug, Default)]
pub(super) struct ExportedNode {
    /// Rank 73. Snapshots are registered and released under it (86).
    list: Mutex<HashMap<String, Exported>>,
}

impl ExportedNode {
    pub(super) fn add(&self, id: String, snapshot: Snapshot, about: ExportedSnapshot) {
        self.list.lock().insert(id, Exported { snapshot, about });
    }

    pub(super) fn remove(&self, ids: &[String]) {
        let gone: Vec<Exported> = {
            let mut list = self.list.lock();
            ids.iter().filter_map(|id| list.remove(id)).collect()
        };
        drop(gone);
    }

    pub(super) fn find(&self, id: &str) -> Option<ExportedSnapshot> {
        self.list.lock().get(id).map(|e| e.about)
    }

    /// Registers the snapshot for another session, while it is surely registered for its own.
    pub(super) fn register(&self, id: &str, register: impl FnOnce(Lsn) -> Registration) -> Option<Registration> {
        self.list.lock().get(id).map(|e| register(e.snapshot.lsn()))
    }
}
