//! What of the sessions of a standby is in replay's way, and what replay locks for the primary's transactions.
//!
//! Replay of DDL waits for no reader: files that are dropped stay until no snapshot needs them. But who says LOCK TABLE wants the table as it
//! is. So the primary logs each relation that a transaction locks in ACCESS EXCLUSIVE mode; replay holds that lock until the transaction
//! ends, under a tag that only LOCK TABLE takes too ([`LockTag::replayed_relation`]). PostgreSQL: storage/ipc/standby.c.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use afterimage_wal::ids::{BlockNo, Lsn, Oid, RelId, Xid};
use afterimage_wal::{Record, RecordBuilder, rmgr};
use parking_lot::Mutex;

use super::cancel::Conflict;
use super::error::TxnError;
use super::locks::{LockHolder, LockManager, LockMode, LockTag, ReplayWaits};
use super::proc::{Proc, ProcId};
use super::snapshot::SnapshotSlot;
use super::transactions::{Transactions, XidStatus};

/// A transaction locked relations in ACCESS EXCLUSIVE mode: database, relation, 4 bytes each, repeated.
pub const LOCK: u8 = 0x00;

/// What a record needs out of its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Snapshots older than this commit LSN.
    Snapshots(Lsn),
    /// Scans that stand on these pages.
    Pages(Vec<(RelId, BlockNo)>),
    /// Who has locked these relations, before the transaction does.
    Locks(Xid, Vec<LockTag>),
    /// Temporary files in this tablespace.
    Tablespace(Oid),
    /// Sessions connected to this database.
    Database(Oid),
}

impl Need {
    /// The kind of conflict with it.
    pub fn conflict(&self) -> Conflict {
        match self {
            Self::Snapshots(_) => Conflict::Snapshot,
            Self::Pages(_) => Conflict::BufferPin,
            Self::Locks(..) => Conflict::Lock,
            Self::Tablespace(_) => Conflict::Tablespace,
            Self::Database(_) => Conflict::Database,
        }
    }

    fn blocked_by(&self, slot: &SnapshotSlot) -> bool {
        match self {
            Self::Snapshots(horizon) => slot.oldest_in_the_way() < horizon.as_u64(),
            Self::Pages(pages) => slot.stands_on(pages),
            Self::Locks(..) => false,
            Self::Tablespace(space) => slot.uses_space(*space),
            Self::Database(database) => slot.database() == *database,
        }
    }
}

/// Locks that replay holds.
#[derive(Debug, Default)]
pub(super) struct StandbyLocks {
    /// Rank 79, above the lock table.
    locks: Mutex<ReplayLocks>,
}

#[derive(Debug, Default)]
struct ReplayLocks {
    /// By the primary's transaction.
    held: BTreeMap<Xid, Arc<LockHolder>>,
    /// Of transactions that ended, but whose end no snapshot sees yet.
    ended: Vec<Arc<LockHolder>>,
}

impl StandbyLocks {
    fn lock(&self, locks: &LockManager, xid: Xid, tags: &[LockTag]) {
        let mut all = self.locks.lock();
        let holder = all.held.entry(xid).or_insert_with(|| LockHolder::new(ProcId(0)));
        tags.iter().for_each(|tag| locks.grant_recovered(holder, *tag, LockMode::AccessExclusive));
    }

    /// Transactions ended. What they held is free once that is visible: [`Self::let_go`].
    pub(super) fn end(&self, xids: impl Iterator<Item = Xid>) {
        let mut all = self.locks.lock();
        if !all.held.is_empty() {
            let ended: Vec<_> = xids.filter_map(|xid| all.held.remove(&xid)).collect();
            all.ended.extend(ended);
        }
    }

    /// The transactions for which `over` holds ended with their writer.
    pub(super) fn end_where(&self, over: impl Fn(Xid) -> bool) {
        let mut all = self.locks.lock();
        let ended: Vec<_> = all.held.extract_if(.., |xid, _| over(*xid)).map(|(_, holder)| holder).collect();
        all.ended.extend(ended);
    }

    /// What has been replayed is visible.
    pub(super) fn let_go(&self, locks: &LockManager) {
        let ended = std::mem::take(&mut self.locks.lock().ended);
        ended.iter().for_each(|holder| locks.release_all(holder));
    }
}

/// A database that replay drops: nobody logs in to it while this lives.
#[derive(Debug)]
pub struct ClosedDatabase {
    locks: Arc<LockManager>,
    holder: Arc<LockHolder>,
}

impl Drop for ClosedDatabase {
    fn drop(&mut self) {
        self.locks.release_all(&self.holder);
    }
}

impl Transactions {
    /// Logs that the transaction `xid` holds a relation in ACCESS EXCLUSIVE mode.
    ///
    /// # Errors
    /// WAL.
    pub fn log_lock(&self, xid: Xid, db: Oid, rel: Oid) -> Result<(), TxnError> {
        let mut record = RecordBuilder::new(rmgr::STANDBY, LOCK, xid);
        record.main(&db.to_le_bytes()).main(&rel.to_le_bytes());
        self.wal().insert(&record)?;
        Ok(())
    }

    /// Logs once more what running transactions hold in ACCESS EXCLUSIVE mode: replay may begin behind the records that told of it first. For
    /// checkpoints, between the choice of the redo point and the checkpoint's record.
    ///
    /// What is taken meanwhile logs itself. Of who ends meanwhile the record may stand behind its end: redo leaves that alone.
    /// PostgreSQL: `LogStandbySnapshot`.
    ///
    /// # Errors
    /// WAL.
    pub fn log_locks_held(&self) -> Result<(), TxnError> {
        let mut of: BTreeMap<Xid, Vec<u8>> = BTreeMap::new();
        for (holder, tag) in self.locks().exclusive_relations() {
            // One without an xid has not logged it yet. The xid first: a session that goes on to its next transaction has let go by then.
            let xid = self.procs_list().find(holder.proc()).and_then(|proc| proc.xid());
            if let (Some(xid), LockTag::Relation { db, rel }) = (xid, tag)
                && !holder.is_detached()
                && holder.holds(&tag, LockMode::AccessExclusive)
            {
                let main = of.entry(xid).or_default();
                main.extend_from_slice(&db.to_le_bytes());
                main.extend_from_slice(&rel.to_le_bytes());
            }
        }
        for (xid, main) in of {
            // One record each takes what any record does; thousands of relations need several.
            for part in main.chunks(8 * 1024) {
                let mut record = RecordBuilder::new(rmgr::STANDBY, LOCK, xid);
                record.main(part);
                self.wal().insert(&record)?;
            }
        }
        Ok(())
    }

    /// Replay waits, until the result is dropped: the deadlock detector knows for whom.
    pub(crate) fn replay_waits_for(&self, need: &Need) -> Option<ReplayWaits<'_>> {
        let Need::Locks(_, tags) = need else { return None };
        let held = tags.iter().find(|tag| !self.locks().holders(tag, LockMode::AccessExclusive).is_empty());
        held.map(|tag| self.locks().replay_waits(*tag))
    }

    /// Takes for replay what the need asks for, so that nobody new comes in its way.
    pub fn prepare_for(&self, need: &Need) -> Option<ClosedDatabase> {
        match need {
            Need::Locks(xid, tags) => {
                self.standby_locks().lock(self.locks(), *xid, tags);
                None
            }
            Need::Database(database) => {
                let holder = LockHolder::new(ProcId(0));
                self.locks().grant_recovered(&holder, LockTag::database(*database), LockMode::AccessExclusive);
                Some(ClosedDatabase { locks: Arc::clone(self.locks()), holder })
            }
            Need::Snapshots(_) | Need::Pages(_) | Need::Tablespace(_) => None,
        }
    }

    /// Replay: waits until nobody is in the way of `need`, or the deadline; returns whether that is so.
    pub fn wait_until_clear(&self, need: &Need, deadline: Option<Instant>) -> bool {
        match need {
            Need::Snapshots(horizon) => self.wait_for_snapshots(*horizon, deadline),
            Need::Locks(_, tags) => self
                .procs_list()
                .gone
                .wait(deadline, || !tags.iter().any(|tag| !self.locks().holders(tag, LockMode::AccessExclusive).is_empty())),
            Need::Pages(_) if !self.procs_list().gone.any_standing() => true,
            Need::Pages(_) | Need::Tablespace(_) | Need::Database(_) => {
                self.procs_list().wait_until_none(deadline, |slot| need.blocked_by(slot))
            }
        }
    }

    /// The sessions in the way of `need`.
    pub fn in_the_way(&self, need: &Need) -> Vec<Arc<Proc>> {
        let mut all = self.procs();
        if let Need::Locks(_, tags) = need {
            let holders: Vec<ProcId> = tags.iter().flat_map(|tag| self.locks().holders(tag, LockMode::AccessExclusive)).collect();
            all.retain(|p| holders.contains(&p.id()));
        } else {
            all.retain(|p| need.blocked_by(&p.slot));
        }
        all
    }

    /// Whether a session waits for a lock that only replay gives up.
    pub fn waits_for_replay(&self, proc: &Proc) -> bool {
        self.locks().waits_for_replay(proc.id())
    }

    /// Waits until nobody but `except` is connected to a database, or the deadline; returns how many are.
    pub fn wait_for_database(&self, database: Oid, except: &Proc, deadline: Instant) -> usize {
        let other = |slot: &SnapshotSlot| slot.database() == database && !std::ptr::eq(slot, Arc::as_ptr(&except.slot));
        if self.procs_list().wait_until_none(Some(deadline), other) {
            return 0;
        }
        self.procs().iter().filter(|p| other(&p.slot)).count()
    }
}

/// What replay of a record needs out of its way: nothing if the transaction that it is of has ended.
///
/// An error of its status is met again by [`redo`].
pub fn need_of(txns: &Transactions, record: &Record<'_>) -> Option<Need> {
    let tags = locks_of(record)?;
    matches!(txns.xid_status(record.xid()), Ok(XidStatus::Running)).then(|| Need::Locks(record.xid(), tags))
}

/// What a record of resource manager `STANDBY` locks.
fn locks_of(record: &Record<'_>) -> Option<Vec<LockTag>> {
    let (pairs, rest) = record.main().as_chunks::<8>();
    let tag = |pair: &[u8; 8]| {
        let (db, rel) = pair.split_first_chunk::<4>()?;
        Some(LockTag::replayed_relation(Oid::from_le_bytes(*db), Oid::from_le_bytes(rel.try_into().ok()?)))
    };
    if record.kind() == LOCK && rest.is_empty() { pairs.iter().map(tag).collect() } else { None }
}

/// Applies a record of resource manager `STANDBY`.
///
/// # Errors
/// [`TxnError::BadRecord`] if it does not decode.
pub fn redo(txns: &Transactions, record: &Record<'_>) -> Result<(), TxnError> {
    let tags = locks_of(record).ok_or(TxnError::BadRecord(record.end()))?;
    if txns.xid_status(record.xid())? == XidStatus::Running {
        txns.standby_locks().lock(txns.locks(), record.xid(), &tags);
    }
    Ok(())
}

/// Shows these records in `waldump`.
#[derive(Debug)]
pub struct DescribeStandby;

impl rmgr::Describe for DescribeStandby {
    fn kind_name(&self, kind: u8) -> Option<&'static str> {
        (kind == LOCK).then_some("LOCK")
    }

    fn describe(&self, record: &Record<'_>, out: &mut dyn std::fmt::Write) -> std::fmt::Result {
        let (pairs, _) = record.main().as_chunks::<8>();
        for (i, pair) in pairs.iter().enumerate() {
            let number = |at: usize| pair.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
            write!(out, "{}xid {} db {} rel {}", if i > 0 { " " } else { "" }, record.xid(), number(0), number(4))?;
        }
        Ok(())
    }
}
