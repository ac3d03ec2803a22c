//! Prepared transactions: no session owns them, only COMMIT PREPARED or ROLLBACK PREPARED ends them.
//!
//! PREPARE writes one record with all that the end will need: sub-xids, files to unlink, stale cache entries, locks, what a serializable
//! one has read. The transaction then lives in `PreparedNode`, on the primary and on every standby that replays the record; its locks are
//! held by a [`LockHolder`] of no session, its xids are running to everybody.
//!
//! A checkpoint writes each to a file under `pg_twophase`, since its record may lie before the redo point; the file's contents are the record's.
//! A start reads those whose record lies before the redo point and that were not decided; the records after it make the others. Row locks
//! that a compatible change carries to a new version are carried in redo too, so they hold after a crash and a promotion.
//!
//! State file `pg_twophase/<xid as 16 hex digits>`, replaced as a whole:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `AITWOPH\x01` (the last byte is the format version) |
//! | 8 | 8 | system identifier |
//! | 16 | 8 | xid |
//! | 24 | 8 | end of the PREPARE record |
//! | 32 | 4 | crc32c of bytes 0 to 32 and of the state |
//! | 36 | 4 | 0 |
//! | 40 | | the state: main data of the PREPARE record |
//!
//! PostgreSQL: access/transam/twophase.c.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use afterimage_wal::disk::{Disk, durable_replace, read_all};
use afterimage_wal::ids::{BlockNo, Lsn, Oid, RelId, SystemId, Xid};
use parking_lot::RwLock;

use super::error::TxnError;
use super::locks::{LockHolder, LockMode, LockTag};
use super::proc::Proc;
use super::record::{Decision, get, oid, put, take};
use super::serializable::{Mark, Serializable};

/// Longest identifier, with C's terminator.
pub const GID_SIZE: usize = 200;

const MAGIC: [u8; 8] = *b"AITWOPH\x01";
const HEADER: usize = 40;

/// All that a prepared transaction is: main data of its PREPARE record, and of its state file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreparedState {
    /// The identifier its client gave.
    pub gid: String,
    /// When, in microseconds since 2000-01-01 UTC.
    pub time: i64,
    /// Who.
    pub owner: Oid,
    /// Where.
    pub database: Oid,
    /// What a commit will say.
    pub commit: Decision,
    /// Files it created: unlinked if it rolls back.
    pub creates: Vec<RelId>,
    /// What it holds.
    pub locks: Vec<(LockTag, LockMode)>,
    /// What it has read, if it is serializable.
    pub marks: Option<Vec<Mark>>,
}

fn put_rel(out: &mut Vec<u8>, rel: &RelId) {
    for v in [rel.spc, rel.db, rel.rel] {
        out.extend_from_slice(&v.to_le_bytes());
    }
}

fn rel(d: &mut &[u8]) -> Option<RelId> {
    Some(RelId { spc: oid(d)?, db: oid(d)?, rel: oid(d)? })
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn bytes<'a>(d: &mut &'a [u8]) -> Option<&'a [u8]> {
    let n = usize::try_from(get(d)?).ok()?;
    let (head, rest) = d.split_at_checked(n)?;
    *d = rest;
    Some(head)
}

impl PreparedState {
    /// Appends the record's main data.
    pub fn encode(&self, top: Xid, out: &mut Vec<u8>) {
        put(out, count(self.gid.len()));
        out.extend_from_slice(self.gid.as_bytes());
        out.extend_from_slice(&self.time.to_le_bytes());
        out.extend_from_slice(&self.owner.to_le_bytes());
        out.extend_from_slice(&self.database.to_le_bytes());
        let mut decision = Vec::new();
        self.commit.encode(top, &mut decision);
        put(out, count(decision.len()));
        out.extend_from_slice(&decision);
        put(out, count(self.creates.len()));
        self.creates.iter().for_each(|r| put_rel(out, r));
        put(out, count(self.locks.len()));
        for (tag, mode) in &self.locks {
            out.push(*mode as u8);
            let words = |out: &mut Vec<u8>, kind: u8, words: &[u32]| {
                out.push(kind);
                words.iter().for_each(|w| out.extend_from_slice(&w.to_le_bytes()));
            };
            match tag {
                LockTag::Relation { db, rel } => words(out, 1, &[*db, *rel]),
                LockTag::Object { db, class, object } => words(out, 2, &[*db, *class, *object]),
                LockTag::Tuple { rel, block, offset } => words(out, 3, &[rel.spc, rel.db, rel.rel, block.get(), u32::from(*offset)]),
                // The second is never held by then.
                LockTag::TupleQueue { rel, block, offset } | LockTag::Speculative { rel, block, offset } => {
                    words(out, 4, &[rel.spc, rel.db, rel.rel, block.get(), u32::from(*offset)]);
                }
                LockTag::Advisory { db, key1, key2, two_keys } => words(out, 5, &[*db, *key1, *key2, u32::from(*two_keys)]),
            }
        }
        match &self.marks {
            None => out.push(0),
            Some(marks) => {
                out.push(1);
                put(out, count(marks.len()));
                for mark in marks {
                    let (kind, rel, block, offset) = match mark {
                        Mark::Relation(rel) => (1, rel, 0, 0),
                        Mark::Page(rel, block) => (2, rel, block.get(), 0),
                        Mark::Row(rel, block, offset) => (3, rel, block.get(), *offset),
                    };
                    out.push(kind);
                    put_rel(out, rel);
                    out.extend_from_slice(&block.to_le_bytes());
                    out.extend_from_slice(&offset.to_le_bytes());
                }
            }
        }
    }

    /// Reads what `encode` wrote. `None` if it is not that.
    pub fn decode(mut d: &[u8], top: Xid) -> Option<Self> {
        let d = &mut d;
        let gid = std::str::from_utf8(bytes(d)?).ok()?.to_owned();
        let time = i64::from_le_bytes(take(d)?);
        let (owner, database) = (oid(d)?, oid(d)?);
        let commit = Decision::decode(bytes(d)?, top)?;
        let mut state = Self { gid, time, owner, database, commit, ..Self::default() };
        for _ in 0..get(d)? {
            state.creates.push(rel(d)?);
        }
        for _ in 0..get(d)? {
            let mode = u8::from_le_bytes(take(d)?);
            let mode = LockMode::ALL.into_iter().find(|m| *m as u8 == mode)?;
            let tag = match u8::from_le_bytes(take(d)?) {
                1 => LockTag::Relation { db: oid(d)?, rel: oid(d)? },
                2 => LockTag::Object { db: oid(d)?, class: oid(d)?, object: oid(d)? },
                kind @ (3 | 4) => {
                    let (rel, block, offset) = (rel(d)?, BlockNo::new(oid(d)?), u16::try_from(oid(d)?).ok()?);
                    if kind == 3 { LockTag::Tuple { rel, block, offset } } else { LockTag::TupleQueue { rel, block, offset } }
                }
                5 => LockTag::Advisory { db: oid(d)?, key1: oid(d)?, key2: oid(d)?, two_keys: oid(d)? != 0 },
                _ => return None,
            };
            state.locks.push((tag, mode));
        }
        if u8::from_le_bytes(take(d)?) != 0 {
            let mut marks = Vec::new();
            for _ in 0..get(d)? {
                let kind = u8::from_le_bytes(take(d)?);
                let (rel, block, offset) = (rel(d)?, BlockNo::new(oid(d)?), u16::from_le_bytes(take(d)?));
                marks.push(match kind {
                    1 => Mark::Relation(rel),
                    2 => Mark::Page(rel, block),
                    3 => Mark::Row(rel, block, offset),
                    _ => return None,
                });
            }
            state.marks = Some(marks);
        }
        d.is_empty().then_some(state)
    }
}

/// A prepared transaction.
#[derive(Debug)]
pub struct Prepared {
    /// Its top-level xid.
    pub xid: Xid,
    /// What it is. Its locks here are those of the moment it was prepared.
    pub state: PreparedState,
    /// End of its PREPARE record.
    pub lsn: Lsn,
    /// Stands for it in the list of sessions, so that who waits for its xids finds an owner.
    pub(super) proc: Arc<Proc>,
    pub(super) holder: Arc<LockHolder>,
    pub(super) serializable: RwLock<Option<Arc<Serializable>>>,
    /// Someone is ending it. Swapped by him who wins.
    pub(super) ending: AtomicBool,
    /// How many locks its state file names; `usize::MAX`: there is none. Only the checkpointer looks. Row locks grow as others' changes
    /// carry them to new versions.
    saved: AtomicUsize,
}

impl Prepared {
    pub(super) fn new(
        xid: Xid,
        state: PreparedState,
        lsn: Lsn,
        proc: Arc<Proc>,
        holder: Arc<LockHolder>,
        serializable: Option<Arc<Serializable>>,
    ) -> Arc<Self> {
        let (saved, serializable) = (AtomicUsize::new(usize::MAX), RwLock::new(serializable));
        Arc::new(Self { xid, state, lsn, proc, holder, serializable, ending: AtomicBool::new(false), saved })
    }
}

/// Keeps an identifier while its transaction is being prepared.
pub(super) struct Reserved<'a> {
    node: &'a PreparedNode,
    gid: String,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.node.known.write().reserved.remove(&self.gid);
    }
}

#[derive(Debug, Default)]
struct Known {
    by_gid: BTreeMap<String, Arc<Prepared>>,
    reserved: BTreeSet<String>,
    /// Top-level and sub-xids.
    xids: HashMap<Xid, Xid>,
}

/// The prepared transactions of a node, and identifiers being prepared.
pub(super) struct PreparedNode {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    system: SystemId,
    /// Rank 74, leaf.
    known: RwLock<Known>,
    /// How many there are, to look no further. `SeqCst`.
    count: AtomicUsize,
}

impl PreparedNode {
    pub(super) fn new(dir: PathBuf, disk: Arc<dyn Disk>, system: SystemId) -> Self {
        Self { dir, disk, system, known: RwLock::default(), count: AtomicUsize::new(0) }
    }

    /// Whether `xid` is one of a prepared transaction's.
    pub(super) fn contains(&self, xid: Xid) -> bool {
        self.count.load(Ordering::SeqCst) > 0 && self.known.read().xids.contains_key(&xid)
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    pub(super) fn list(&self) -> Vec<Arc<Prepared>> {
        let mut all: Vec<_> = self.known.read().by_gid.values().cloned().collect();
        all.sort_by_key(|p| p.lsn);
        all
    }

    pub(super) fn find(&self, gid: &str) -> Option<Arc<Prepared>> {
        self.known.read().by_gid.get(gid).cloned()
    }

    /// Keeps an identifier for a transaction about to be prepared.
    pub(super) fn reserve(&self, gid: &str, limit: usize) -> Result<Reserved<'_>, TxnError> {
        let mut k = self.known.write();
        if k.by_gid.contains_key(gid) || k.reserved.contains(gid) {
            return Err(TxnError::GidInUse(gid.to_owned()));
        }
        if k.by_gid.len() + k.reserved.len() >= limit {
            return Err(TxnError::TooManyPrepared(limit));
        }
        k.reserved.insert(gid.to_owned());
        Ok(Reserved { node: self, gid: gid.to_owned() })
    }

    /// Enters one.
    pub(super) fn add(&self, prepared: Arc<Prepared>) {
        let mut k = self.known.write();
        for x in prepared.state.commit.subs.iter().copied().chain([prepared.xid]) {
            k.xids.insert(x, prepared.xid);
        }
        k.by_gid.insert(prepared.state.gid.clone(), prepared);
        self.count.store(k.by_gid.len(), Ordering::SeqCst);
    }

    /// Takes one out by its top-level xid, once it is decided.
    pub(super) fn remove(&self, xid: Xid) -> Option<Arc<Prepared>> {
        if self.len() == 0 {
            return None;
        }
        let mut k = self.known.write();
        let gid = k.by_gid.values().find(|p| p.xid == xid).map(|p| p.state.gid.clone())?;
        let gone = k.by_gid.remove(&gid);
        k.xids.retain(|_, top| *top != xid);
        self.count.store(k.by_gid.len(), Ordering::SeqCst);
        gone
    }

    fn path(&self, xid: Xid) -> PathBuf {
        self.dir.join(format!("{:016X}", xid.as_u64()))
    }

    fn fail(path: PathBuf) -> impl FnOnce(io::Error) -> TxnError {
        move |source| TxnError::StatusFile { path, source }
    }

    /// Xids that have a state file.
    fn files(&self) -> Result<Vec<Xid>, TxnError> {
        let names = match self.disk.list(&self.dir) {
            Ok(names) => names,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Self::fail(self.dir.clone())(e)),
        };
        let xid = |n: &String| (n.len() == 16).then(|| u64::from_str_radix(n, 16).ok()).flatten().map(Xid::from_u64);
        Ok(names.iter().filter_map(xid).collect())
    }

    /// Makes the state of all durable, and forgets files of those that ended. The WAL is durable up to where this was called.
    pub(super) fn checkpoint(&self) -> Result<(), TxnError> {
        let files = self.files()?;
        let known = self.list();
        for p in &known {
            let locks = p.holder.list();
            if files.contains(&p.xid) && p.saved.load(Ordering::Relaxed) == locks.len() {
                continue;
            }
            p.saved.store(locks.len(), Ordering::Relaxed);
            let mut state = Vec::new();
            PreparedState { locks, ..p.state.clone() }.encode(p.xid, &mut state);
            let mut out = Vec::with_capacity(HEADER + state.len());
            out.extend_from_slice(&MAGIC);
            out.extend_from_slice(&self.system.to_le_bytes());
            out.extend_from_slice(&p.xid.to_le_bytes());
            out.extend_from_slice(&p.lsn.to_le_bytes());
            let crc = crc32c::crc32c_append(crc32c::crc32c(&out), &state);
            out.extend_from_slice(&crc.to_le_bytes());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&state);
            let path = self.path(p.xid);
            durable_replace(&*self.disk, &path, &out).map_err(Self::fail(path))?;
        }
        let mut removed = false;
        for xid in files.iter().filter(|x| !known.iter().any(|p| p.xid == **x)) {
            let path = self.path(*xid);
            self.disk.remove(&path).map_err(Self::fail(path))?;
            removed = true;
        }
        if removed {
            self.disk.sync_dir(&self.dir).map_err(Self::fail(self.dir.clone()))?;
        }
        Ok(())
    }

    /// What the state files say: xid, end of the PREPARE record, state.
    pub(super) fn read(&self) -> Result<Vec<(Xid, Lsn, PreparedState)>, TxnError> {
        let mut out = Vec::new();
        for xid in self.files()? {
            let path = self.path(xid);
            let data = read_all(&*self.disk, &path).map_err(Self::fail(path.clone()))?;
            let bad = || TxnError::BadTwoPhaseFile { path: path.clone() };
            let (header, state) = data.split_at_checked(HEADER).ok_or_else(bad)?;
            let word = |at: usize| header.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
            let crc = header.get(32..36).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
            let right = crc32c::crc32c_append(crc32c::crc32c(header.get(..32).ok_or_else(bad)?), state);
            let system = header.get(8..16) == Some(&self.system.to_le_bytes()[..]);
            if header.get(..8) != Some(&MAGIC[..]) || crc != Some(right) || word(16) != Some(xid.as_u64()) || !system {
                return Err(bad());
            }
            let state = PreparedState::decode(state, xid).ok_or_else(bad)?;
            out.push((xid, Lsn::from_u64(word(24).ok_or_else(bad)?), state));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::Invalidation;

    #[test]
    fn states_survive_encoding_and_no_cut_of_them_passes() {
        let file = RelId { spc: 1663, db: 5, rel: 20_000 };
        let top = Xid::from_u64(70);
        let (block, offset) = (BlockNo::new(3), 9);
        let state = PreparedState {
            gid: "a name".into(),
            time: 77,
            owner: 10,
            database: 5,
            commit: Decision {
                time: 0,
                subs: vec![Xid::from_u64(71), Xid::from_u64(75)],
                drops: vec![file],
                invalidations: vec![Invalidation { database: 5, class: 1259, object: 20_000 }],
            },
            creates: vec![file, file],
            locks: vec![
                (LockTag::Relation { db: 5, rel: 7 }, LockMode::AccessExclusive),
                (LockTag::Object { db: 5, class: 8, object: 9 }, LockMode::AccessShare),
                (LockTag::Tuple { rel: file, block, offset }, LockMode::RowShare),
                (LockTag::Advisory { db: 5, key1: 1, key2: 2, two_keys: true }, LockMode::Exclusive),
            ],
            marks: Some(vec![Mark::Relation(file), Mark::Page(file, block), Mark::Row(file, block, offset)]),
        };
        let mut b = Vec::new();
        state.encode(top, &mut b);
        assert_eq!(PreparedState::decode(&b, top).as_ref(), Some(&state));
        for n in 0..b.len() {
            assert_eq!(PreparedState::decode(&b[..n], top), None, "{n}");
        }
        for n in 0..b.len() {
            for bit in 0..8 {
                let mut flipped = b.clone();
                flipped[n] ^= 1 << bit;
                // Anything but a panic, or memory without end.
                let _any = PreparedState::decode(&flipped, top);
            }
        }
    }
}
