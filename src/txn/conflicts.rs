//! What replay on this standby cancelled, by database and kind: `pg_stat_database_conflicts`.
//!
//! Kept through a clean stop, in `pg_stat`, and begun anew after a crash, as the counters of tables are. Conflicts over a database that is
//! dropped are not counted: it is gone with its row. PostgreSQL: utils/activity/pgstat_database.c.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use afterimage_wal::disk::{Disk, durable_replace, read_all};
use afterimage_wal::ids::{Oid, SystemId};
use parking_lot::Mutex;

use super::cancel::Conflict;

const FILE: &str = "pg_stat/conflicts.stat";
const MAGIC: [u8; 8] = *b"AICONFL1";
/// Kinds that are counted: all but the database.
const COUNTED: usize = Conflict::ALL.len() - 1;

type Counts = [u64; COUNTED];

/// Counters since the start of statistics.
#[derive(Debug, Default)]
pub struct Conflicts {
    /// Leaf.
    counts: Mutex<BTreeMap<Oid, Counts>>,
}

impl Conflicts {
    /// A session connected to `database` was cancelled.
    pub(crate) fn note(&self, database: Oid, kind: Conflict) {
        if let Some(count) = self.counts.lock().entry(database).or_default().get_mut(kind as usize) {
            *count += 1;
        }
    }

    /// How often in a database.
    pub fn get(&self, database: Oid, kind: Conflict) -> u64 {
        self.counts.lock().get(&database).and_then(|c| c.get(kind as usize)).copied().unwrap_or(0)
    }

    /// How often in a database, all kinds together.
    pub fn sum(&self, database: Oid) -> u64 {
        self.counts.lock().get(&database).map_or(0, |c| c.iter().sum())
    }

    /// A database is gone.
    pub(crate) fn forget(&self, database: Oid) {
        self.counts.lock().remove(&database);
    }

    /// Keeps the counters for the next start; the node stops cleanly and nobody counts any more.
    ///
    /// # Errors
    /// I/O: the numbers begin anew then.
    pub fn save(&self, disk: &dyn Disk, dir: &Path, system: SystemId) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&system.to_le_bytes());
        for (database, counts) in &*self.counts.lock() {
            bytes.extend_from_slice(&database.to_le_bytes());
            counts.iter().for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        durable_replace(disk, &dir.join(FILE), &bytes)
    }

    /// Takes the counters that a clean stop kept, if `clean`, and removes the file: what is counted from now on is not in it.
    pub fn load(&self, disk: &dyn Disk, dir: &Path, system: SystemId, clean: bool) {
        let path = dir.join(FILE);
        let Ok(bytes) = read_all(disk, &path) else { return };
        if clean {
            match decode(&bytes, system) {
                Some(counts) => *self.counts.lock() = counts,
                None => tracing::warn!("ignoring damaged file \"{FILE}\": statistics of recovery conflicts begin anew"),
            }
        }
        if let Err(e) = disk.remove(&path) {
            tracing::warn!("could not remove file \"{FILE}\": {e}");
        }
    }
}

fn decode(bytes: &[u8], system: SystemId) -> Option<BTreeMap<Oid, Counts>> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let (head, mut rest) = body.split_first_chunk::<16>()?;
    if u32::from_le_bytes(*crc) != crc32c::crc32c(body) || !head.starts_with(&MAGIC) || !head.ends_with(&system.to_le_bytes()) {
        return None;
    }
    let mut all = BTreeMap::new();
    while let Some((database, tail)) = rest.split_first_chunk::<4>() {
        rest = tail;
        let mut counts = Counts::default();
        for count in &mut counts {
            let (n, tail) = rest.split_first_chunk::<8>()?;
            *count = u64::from_le_bytes(*n);
            rest = tail;
        }
        all.insert(Oid::from_le_bytes(*database), counts);
    }
    rest.is_empty().then_some(all)
}

#[cfg(test)]
mod tests {
    use afterimage_wal::disk::RealDisk;

    use super::*;

    #[test]
    fn counts_are_kept_by_a_clean_stop_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pg_stat")).unwrap();
        let (disk, system) = (RealDisk::shared(), SystemId::new(7));
        let counts = Conflicts::default();
        counts.note(5, Conflict::Lock);
        counts.note(5, Conflict::Lock);
        counts.note(5, Conflict::Deadlock);
        counts.note(5, Conflict::Database);
        counts.note(6, Conflict::Snapshot);
        for (clean, expected) in [(true, 3), (false, 0)] {
            counts.save(disk.as_ref(), dir.path(), system).unwrap();
            let next = Conflicts::default();
            next.load(disk.as_ref(), dir.path(), system, clean);
            assert_eq!(next.sum(5), expected);
            assert_eq!(next.get(5, Conflict::Lock), if clean { 2 } else { 0 });
            assert!(!dir.path().join(FILE).exists(), "what is counted next is not in the file");
        }
        counts.forget(5);
        assert_eq!((counts.sum(5), counts.sum(6)), (0, 1));
    }

    #[test]
    fn bytes_that_are_no_file_of_ours_are_refused() {
        let system = SystemId::new(7);
        for bytes in [&b""[..], b"AICONFL1", b"AICONFL1\x07\0\0\0\0\0\0\0\x01\x02\x03\x04"] {
            assert!(decode(bytes, system).is_none());
        }
    }
}
