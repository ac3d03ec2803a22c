//! What happened to each table: rows inserted, updated, deleted, scanned; live and dead versions; vacuums. For `pg_stat_all_tables` and
//! for autovacuum.
//!
//! A transaction gathers its own counts ([`TableChanges`], one per open savepoint) and adds them when it ends, as PostgreSQL does: what a
//! commit changed is live or dead rows, what an abort inserted is dead. The numbers are kept through a clean stop, in `pg_stat`, and begin
//! anew after a crash. PostgreSQL: utils/activity/pgstat_relation.c.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use afterimage_wal::disk::{Disk, durable_replace, read_all};
use afterimage_wal::ids::{Oid, SystemId};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::proc::ProcId;

/// A table: database (0 for shared ones) and `pg_class.oid`.
pub type TableKey = (Oid, Oid);

/// What a transaction did to one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Of these, heap-only.
    pub hot: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// The table was emptied first.
    pub truncated: bool,
}

/// What a transaction, or a savepoint in it, did.
#[derive(Debug, Default)]
pub struct TableChanges(SmallVec<[(TableKey, Counts); 2]>);

impl TableChanges {
    /// The counts of a table.
    #[inline]
    pub fn of(&mut self, table: TableKey) -> &mut Counts {
        // Mostly the table of the row before.
        let at = match self.0.iter().rposition(|(t, _)| *t == table) {
            Some(at) => at,
            None => {
                self.0.push((table, Counts::default()));
                self.0.len() - 1
            }
        };
        &mut self.0[at].1
    }

    /// Adds what a released savepoint did.
    pub(super) fn merge(&mut self, other: Self) {
        for (table, c) in other.0 {
            let own = self.of(table);
            if c.truncated {
                *own = Counts { truncated: true, ..Counts::default() };
            }
            own.inserted += c.inserted;
            own.updated += c.updated;
            own.hot += c.hot;
            own.deleted += c.deleted;
        }
    }
}

/// All that is known of a table. Times are microseconds since 2000, 0: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the columns of pg_stat_all_tables")]
pub struct TableCounters {
    pub seq_scan: u64,
    pub seq_tup_read: u64,
    pub idx_scan: u64,
    pub idx_tup_fetch: u64,
    pub n_tup_ins: u64,
    pub n_tup_upd: u64,
    pub n_tup_del: u64,
    pub n_tup_hot_upd: u64,
    pub n_live_tup: u64,
    pub n_dead_tup: u64,
    pub n_mod_since_analyze: u64,
    pub n_ins_since_vacuum: u64,
    pub last_vacuum: u64,
    pub last_autovacuum: u64,
    pub last_analyze: u64,
    pub last_autoanalyze: u64,
    pub vacuum_count: u64,
    pub autovacuum_count: u64,
    pub analyze_count: u64,
    pub autoanalyze_count: u64,
}

impl TableCounters {
    const FIELDS: usize = 20;

    fn to_words(self) -> [u64; Self::FIELDS] {
        [
            self.seq_scan,
            self.seq_tup_read,
            self.idx_scan,
            self.idx_tup_fetch,
            self.n_tup_ins,
            self.n_tup_upd,
            self.n_tup_del,
            self.n_tup_hot_upd,
            self.n_live_tup,
            self.n_dead_tup,
            self.n_mod_since_analyze,
            self.n_ins_since_vacuum,
            self.last_vacuum,
            self.last_autovacuum,
            self.last_analyze,
            self.last_autoanalyze,
            self.vacuum_count,
            self.autovacuum_count,
            self.analyze_count,
            self.autoanalyze_count,
        ]
    }

    fn from_words(w: [u64; Self::FIELDS]) -> Self {
        Self {
            seq_scan: w[0],
            seq_tup_read: w[1],
            idx_scan: w[2],
            idx_tup_fetch: w[3],
            n_tup_ins: w[4],
            n_tup_upd: w[5],
            n_tup_del: w[6],
            n_tup_hot_upd: w[7],
            n_live_tup: w[8],
            n_dead_tup: w[9],
            n_mod_since_analyze: w[10],
            n_ins_since_vacuum: w[11],
            last_vacuum: w[12],
            last_autovacuum: w[13],
            last_analyze: w[14],
            last_autoanalyze: w[15],
            vacuum_count: w[16],
            autovacuum_count: w[17],
            analyze_count: w[18],
            autoanalyze_count: w[19],
        }
    }

    fn apply(&mut self, c: &Counts, committed: bool) {
        self.n_tup_ins += c.inserted;
        self.n_tup_upd += c.updated;
        self.n_tup_del += c.deleted;
        self.n_tup_hot_upd += c.hot;
        if !committed {
            self.n_dead_tup += c.inserted + c.updated;
            return;
        }
        if c.truncated {
            (self.n_live_tup, self.n_dead_tup, self.n_ins_since_vacuum) = (0, 0, 0);
        }
        self.n_live_tup = (self.n_live_tup + c.inserted).saturating_sub(c.deleted);
        self.n_dead_tup += c.updated + c.deleted;
        self.n_mod_since_analyze += c.inserted + c.updated + c.deleted;
        self.n_ins_since_vacuum += c.inserted;
    }
}

/// Where a vacuum is, for `pg_stat_progress_vacuum`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VacuumProgress {
    /// The table.
    pub table: TableKey,
    /// As PostgreSQL names it: `scanning heap`, `vacuuming indexes`, ...
    pub phase: &'static str,
    /// Blocks of the table.
    pub blocks: u32,
    /// Blocks passed by the first pass.
    pub scanned: u32,
    /// Blocks passed by the second pass.
    pub vacuumed: u32,
    /// Times the indexes were cleaned.
    pub index_passes: u32,
    /// Dead places that memory has room for.
    pub max_dead: u64,
    /// Dead places gathered now.
    pub dead: u64,
    /// Pages found in the pool.
    pub hits: u64,
    /// Pages read.
    pub misses: u64,
    /// Pages changed.
    pub dirtied: u64,
}

const SHARDS: usize = 16;
const FILE: &str = "pg_stat/pgstat.stat";
const MAGIC: [u8; 8] = *b"AIPGSTA1";

/// The counters of all tables.
#[derive(Debug, Default)]
pub struct TableStats {
    /// Leaf locks.
    shards: [Mutex<FxHashMap<TableKey, TableCounters>>; SHARDS],
    /// Leaf lock. Vacuums that run.
    vacuums: Mutex<BTreeMap<ProcId, VacuumProgress>>,
}

impl TableStats {
    fn change(&self, table: TableKey, f: impl FnOnce(&mut TableCounters)) {
        let shard = usize::try_from(table.1).unwrap_or(0) % SHARDS;
        f(self.shards[shard].lock().entry(table).or_default());
    }

    pub(super) fn apply(&self, changes: TableChanges, committed: bool) {
        for (table, counts) in changes.0 {
            self.change(table, |t| t.apply(&counts, committed));
        }
    }

    /// What is known of a table; `None`: nothing happened to it yet.
    pub fn get(&self, table: TableKey) -> Option<TableCounters> {
        self.shards[usize::try_from(table.1).unwrap_or(0) % SHARDS].lock().get(&table).copied()
    }

    /// A scan ended, or paused: scans begun, rows read.
    pub fn scanned(&self, table: TableKey, by_index: bool, scans: u64, rows: u64) {
        self.change(table, |t| {
            let (scan, read) = if by_index { (&mut t.idx_scan, &mut t.idx_tup_fetch) } else { (&mut t.seq_scan, &mut t.seq_tup_read) };
            *scan += scans;
            *read += rows;
        });
    }

    /// Pruning removed dead versions.
    pub fn pruned(&self, table: TableKey, n: u64) {
        self.change(table, |t| t.n_dead_tup = t.n_dead_tup.saturating_sub(n));
    }

    /// A vacuum ended at `now` with this many live and dead versions.
    pub fn vacuumed(&self, table: TableKey, live: u64, dead: u64, auto: bool, now: u64) {
        self.change(table, |t| {
            (t.n_live_tup, t.n_dead_tup, t.n_ins_since_vacuum) = (live, dead, 0);
            let (last, count) =
                if auto { (&mut t.last_autovacuum, &mut t.autovacuum_count) } else { (&mut t.last_vacuum, &mut t.vacuum_count) };
            (*last, *count) = (now, *count + 1);
        });
    }

    /// An ANALYZE ended at `now`; it counted this many live and dead versions.
    pub fn analyzed(&self, table: TableKey, live: u64, dead: u64, auto: bool, now: u64) {
        self.change(table, |t| {
            (t.n_live_tup, t.n_dead_tup, t.n_mod_since_analyze) = (live, dead, 0);
            let (last, count) =
                if auto { (&mut t.last_autoanalyze, &mut t.autoanalyze_count) } else { (&mut t.last_analyze, &mut t.analyze_count) };
            (*last, *count) = (now, *count + 1);
        });
    }

    /// Forgets a table, or with OID 0 all of a database.
    pub fn forget(&self, (db, oid): TableKey) {
        for shard in &self.shards {
            shard.lock().retain(|t, _| t.0 != db || (oid != 0 && t.1 != oid));
        }
    }

    /// Where the vacuum of `proc` is; `None`: it ended.
    pub fn set_progress(&self, proc: ProcId, progress: Option<VacuumProgress>) {
        let mut vacuums = self.vacuums.lock();
        match progress {
            Some(progress) => drop(vacuums.insert(proc, progress)),
            None => drop(vacuums.remove(&proc)),
        }
    }

    /// Vacuums that run.
    pub fn vacuums(&self) -> Vec<(ProcId, VacuumProgress)> {
        self.vacuums.lock().iter().map(|(p, v)| (*p, *v)).collect()
    }

    /// Keeps the counters for the next start; the node stops cleanly and nobody counts any more.
    ///
    /// # Errors
    /// I/O: the numbers begin anew then.
    pub fn save(&self, disk: &dyn Disk, dir: &Path, system: SystemId) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&system.to_le_bytes());
        for shard in &self.shards {
            for ((db, oid), counters) in shard.lock().iter() {
                bytes.extend_from_slice(&db.to_le_bytes());
                bytes.extend_from_slice(&oid.to_le_bytes());
                counters.to_words().iter().for_each(|w| bytes.extend_from_slice(&w.to_le_bytes()));
            }
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        durable_replace(disk, &dir.join(FILE), &bytes)
    }

    /// Takes the counters that a clean stop kept, if `clean`, and removes the file: what is counted from now on is not in it.
    pub fn load(&self, disk: &dyn Disk, dir: &Path, system: SystemId, clean: bool) {
        let path = dir.join(FILE);
        let Ok(bytes) = read_all(disk, &path) else { return };
        if clean && !self.decode(&bytes, system) {
            tracing::warn!("ignoring damaged file \"{FILE}\": table statistics begin anew");
        }
        if let Err(e) = disk.remove(&path) {
            tracing::warn!("could not remove file \"{FILE}\": {e}");
        }
    }

    fn decode(&self, bytes: &[u8], system: SystemId) -> bool {
        const ENTRY: usize = 8 + 8 * TableCounters::FIELDS;
        let Some((body, crc)) = bytes.split_last_chunk::<4>() else { return false };
        let Some((head, entries)) = body.split_first_chunk::<16>() else { return false };
        if u32::from_le_bytes(*crc) != crc32c::crc32c(body) || !head.starts_with(&MAGIC) || !head.ends_with(&system.to_le_bytes()) {
            return false;
        }
        for entry in entries.as_chunks::<ENTRY>().0 {
            let (words, _) = entry.as_chunks::<4>();
            let Some(([db, oid], _)) = words.split_first_chunk::<2>() else { return false };
            let mut values = [0; TableCounters::FIELDS];
            for (value, word) in values.iter_mut().zip(entry[8..].as_chunks::<8>().0) {
                *value = u64::from_le_bytes(*word);
            }
            self.change((u32::from_le_bytes(*db), u32::from_le_bytes(*oid)), |t| *t = TableCounters::from_words(values));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use afterimage_wal::disk::RealDisk;

    use super::*;

    const T: TableKey = (5, 16_384);

    #[test]
    fn an_abort_leaves_dead_rows_and_a_commit_live_ones() {
        let stats = TableStats::default();
        let mut sub = TableChanges::default();
        *sub.of(T) = Counts { inserted: 10, updated: 2, hot: 1, deleted: 3, truncated: false };
        let mut top = TableChanges::default();
        top.of(T).inserted = 5;
        top.merge(sub);
        stats.apply(top, true);
        let mut gone = TableChanges::default();
        *gone.of(T) = Counts { inserted: 4, updated: 1, deleted: 7, ..Counts::default() };
        stats.apply(gone, false);
        let t = stats.get(T).unwrap();
        assert_eq!((t.n_live_tup, t.n_dead_tup, t.n_mod_since_analyze, t.n_ins_since_vacuum), (12, 10, 20, 15));
        assert_eq!((t.n_tup_ins, t.n_tup_upd, t.n_tup_hot_upd, t.n_tup_del), (19, 3, 1, 10));
        let mut emptied = TableChanges::default();
        *emptied.of(T) = Counts { inserted: 2, truncated: true, ..Counts::default() };
        stats.apply(emptied, true);
        assert_eq!(stats.get(T).map(|t| (t.n_live_tup, t.n_dead_tup)), Some((2, 0)));
    }

    #[test]
    fn counters_survive_a_clean_stop_only() {
        let (dir, disk, system) = (tempfile::tempdir().unwrap(), RealDisk::shared(), SystemId::new(7));
        std::fs::create_dir(dir.path().join("pg_stat")).unwrap();
        let stats = TableStats::default();
        stats.vacuumed(T, 100, 3, true, 42);
        stats.scanned((0, 1262), false, 1, 9);
        stats.save(disk.as_ref(), dir.path(), system).unwrap();
        let bytes = std::fs::read(dir.path().join(FILE)).unwrap();
        for cut in 0..bytes.len() {
            assert!(!TableStats::default().decode(&bytes[..cut], system));
        }
        assert!(!TableStats::default().decode(&bytes, SystemId::new(8)));
        let next = TableStats::default();
        next.load(disk.as_ref(), dir.path(), system, true);
        assert_eq!((next.get(T), next.get((0, 1262))), (stats.get(T), stats.get((0, 1262))));
        let third = TableStats::default();
        third.load(disk.as_ref(), dir.path(), system, true);
        assert_eq!(third.get(T), None);
    }
}
