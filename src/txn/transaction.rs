//! One transaction: its xids, snapshots, savepoints, locks, and what happens when it ends.

use std::sync::Arc;

use afterimage_wal::ids::{Lsn, Oid, RelId, Xid};

use super::error::TxnError;
use super::exported::ExportedSnapshot;
use super::locks::{LockHolder, LockManager, LockMark, LockMode, LockTag, WaitPolicy};
use super::positions::{CommitLevel, CommitWait};
use super::proc::Proc;
use super::record::{Decision, Invalidation, KIND_COMMIT};
use super::serializable::Serializable;
use super::snapshot::{InTablespace, OwnXids, Registration, Snapshot};
use super::table_stats::{Counts, TableChanges, TableKey};
use super::transactions::Transactions;
use super::two_phase::PreparedState;

/// Isolation level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Isolation {
    /// A fresh snapshot for each statement. READ UNCOMMITTED is the same.
    #[default]
    ReadCommitted,
    /// One snapshot for all statements.
    RepeatableRead,
    /// As REPEATABLE READ, and as if one after the other.
    Serializable,
}

/// How a transaction begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionOptions {
    /// Isolation level.
    pub isolation: Isolation,
    /// No writes.
    pub read_only: bool,
    /// SERIALIZABLE READ ONLY DEFERRABLE waits for a safe snapshot.
    pub deferrable: bool,
    /// `synchronous_commit`: where it reads, and how long its commit waits.
    pub level: CommitLevel,
}

/// A place to roll back to, for callers that name no savepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavepointMark(usize);

type Callback = Box<dyn FnOnce() + Send>;

/// What is undone or done at the end. Grows with the transaction, is cut by a rollback to a savepoint.
#[derive(Default)]
struct AtEnd {
    drops: Vec<RelId>,
    creates: Vec<RelId>,
    invalidations: Vec<Invalidation>,
    on_commit: Vec<Callback>,
    on_abort: Vec<Callback>,
}

struct Sub {
    name: Option<Box<str>>,
    xid: Option<Xid>,
    /// What happened in it.
    changes: Option<Box<TableChanges>>,
    /// Lengths at its begin.
    subs: usize,
    drops: usize,
    creates: usize,
    invalidations: usize,
    on_commit: usize,
    on_abort: usize,
    locks: LockMark,
    read_only: bool,
}

/// A running transaction. Dropping it aborts it.
pub struct Transaction {
    txns: Arc<Transactions>,
    proc: Arc<Proc>,
    options: TransactionOptions,
    own: Option<Arc<OwnXids>>,
    holder: Arc<LockHolder>,
    /// Command id of the current command, and whether it wrote anything.
    cid: u32,
    cid_used: bool,
    /// The snapshot of REPEATABLE READ.
    kept: Option<Snapshot>,
    /// A query has run: too late to change the isolation level.
    queried: bool,
    /// What holds the advisory locks of a query that runs as a parallel worker would, while it runs.
    worker: Option<Arc<LockHolder>>,
    /// Its number among its session's.
    local: u32,
    /// Its place among the serializable ones, once it has its snapshot. `None` too if that is safe by itself.
    serializable: Option<Arc<Serializable>>,
    /// Snapshots it has exported.
    exported: Vec<String>,
    /// Tablespaces for its temporary files, once it has looked for them.
    temp_spaces: Option<Vec<(Oid, InTablespace)>>,
    /// Open savepoints, outermost first.
    stack: Vec<Sub>,
    end: AtEnd,
    /// What happened outside of savepoints.
    changes: TableChanges,
    finished: bool,
    /// It made something that only its session sees.
    temporary: bool,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("proc", &self.proc.id())
            .field("own", &self.own)
            .field("cid", &self.cid)
            .field("depth", &self.stack.len())
            .finish_non_exhaustive()
    }
}

impl Transaction {
    pub(super) fn new(txns: Arc<Transactions>, proc: Arc<Proc>, options: TransactionOptions) -> Self {
        let holder = LockHolder::new(proc.id());
        let local = proc.begin_local();
        Self {
            txns,
            proc,
            options,
            own: None,
            holder,
            cid: 0,
            cid_used: false,
            kept: None,
            queried: false,
            worker: None,
            local,
            serializable: None,
            exported: Vec::new(),
            temp_spaces: None,
            stack: Vec::new(),
            end: AtEnd::default(),
            changes: TableChanges::default(),
            finished: false,
            temporary: false,
        }
    }

    // ---- what it is

    /// The node's transactions.
    pub fn transactions(&self) -> &Arc<Transactions> {
        &self.txns
    }

    /// Its session.
    pub fn proc(&self) -> &Arc<Proc> {
        &self.proc
    }

    /// Its options.
    pub fn options(&self) -> &TransactionOptions {
        &self.options
    }

    /// Isolation level.
    pub fn isolation(&self) -> Isolation {
        self.options.isolation
    }

    /// Changes isolation level; the caller has checked that no snapshot was taken.
    pub fn set_isolation(&mut self, isolation: Isolation) {
        self.options.isolation = isolation;
    }

    /// Changes read-only mode.
    pub fn set_read_only(&mut self, read_only: bool) {
        self.options.read_only = read_only;
    }

    /// Changes deferrable mode.
    pub fn set_deferrable(&mut self, deferrable: bool) {
        self.options.deferrable = deferrable;
    }

    /// Follows `SET synchronous_commit`.
    pub fn set_level(&mut self, level: CommitLevel) {
        self.options.level = level;
    }

    /// Whether REPEATABLE READ has taken its snapshot.
    pub fn has_snapshot(&self) -> bool {
        self.kept.is_some()
    }

    /// A statement that needs a snapshot begins. REPEATABLE READ takes its own, before it waits for any lock.
    ///
    /// # Errors
    /// If the node stops.
    pub fn begin_query(&mut self) -> Result<(), TxnError> {
        if self.options.isolation != Isolation::ReadCommitted && self.kept.is_none() {
            self.snapshot()?;
        }
        self.queried = true;
        Ok(())
    }

    /// Whether a statement has run that needed a snapshot. PostgreSQL: `FirstSnapshotSet`.
    pub fn has_queried(&self) -> bool {
        self.queried
    }

    /// Whether it may not write: standby, or read only.
    pub fn is_read_only(&self) -> bool {
        self.options.read_only || self.txns.in_recovery()
    }

    /// Error on a standby. `what` as in PostgreSQL's message, `execute VACUUM` say.
    ///
    /// # Errors
    /// [`TxnError::InRecovery`].
    pub fn check_not_in_recovery(&self, what: &'static str) -> Result<(), TxnError> {
        if self.txns.in_recovery() { Err(TxnError::InRecovery(what)) } else { Ok(()) }
    }

    /// Error if it may not write: standby, or read only. `command` as in PostgreSQL's message, `INSERT` say.
    ///
    /// # Errors
    /// [`TxnError::ReadOnly`].
    pub fn check_writable(&self, command: &'static str) -> Result<(), TxnError> {
        if self.is_read_only() { Err(TxnError::ReadOnly(command)) } else { Ok(()) }
    }

    // ---- xids

    /// The xid to write under: the innermost savepoint's. Assigned on the first call.
    ///
    /// # Errors
    /// On a standby.
    pub fn xid(&mut self) -> Result<Xid, TxnError> {
        let current = match self.stack.last() {
            None => self.own.as_ref().map(|o| o.top()),
            Some(s) => s.xid,
        };
        match current {
            Some(xid) => Ok(xid),
            None => self.assign(),
        }
    }

    #[cold]
    fn assign(&mut self) -> Result<Xid, TxnError> {
        let own = match &self.own {
            Some(o) => Arc::clone(o),
            None => {
                let o = Arc::new(OwnXids::new(self.txns.assign_xid()?));
                self.proc.set_own(Some(Arc::clone(&o)));
                self.own = Some(Arc::clone(&o));
                if let Some(s) = &self.serializable {
                    s.add_xid(o.top());
                }
                o
            }
        };
        let mut last = own.top();
        // Outer ones first, so that a parent's xid is below its children's.
        let from = self.stack.iter().rposition(|s| s.xid.is_some()).map_or(0, |i| i + 1);
        for s in &mut self.stack[from..] {
            last = self.txns.assign_xid()?;
            // Whatever was assigned since this savepoint began lies inside it; nothing was yet.
            s.subs = own.sub_count();
            own.push_sub(last);
            if let Some(s) = &self.serializable {
                s.add_xid(last);
            }
            s.xid = Some(last);
        }
        Ok(last)
    }

    /// The top-level xid, if one is assigned.
    pub fn top_xid(&self) -> Option<Xid> {
        self.own.as_ref().map(|o| o.top())
    }

    /// Whether it wrote under `xid`, rolled back savepoints excluded.
    #[inline]
    pub fn owns(&self, xid: Xid) -> bool {
        self.own.as_ref().is_some_and(|o| o.contains(xid))
    }

    /// Its xids, shared with snapshots.
    pub fn own(&self) -> Option<&Arc<OwnXids>> {
        self.own.as_ref()
    }

    /// Whether every snapshot that this session holds, or takes from now on, sees what `xid` did.
    ///
    /// # Errors
    /// If its status file is damaged.
    pub fn reads_after(&self, xid: Xid) -> Result<bool, TxnError> {
        if self.txns.is_settled(xid) {
            return Ok(true);
        }
        let super::XidStatus::Committed(lsn) = self.txns.xid_status(xid)? else { return Ok(false) };
        let next = self.txns.readable_for(&self.proc, self.options.level);
        Ok(lsn <= next && lsn.as_u64() <= self.proc.slot.oldest())
    }

    // ---- commands and snapshots

    /// The command id of changes made now.
    pub fn write_cid(&mut self) -> u32 {
        self.cid_used = true;
        self.cid
    }

    /// The current command id, not marked used.
    pub fn cid(&self) -> u32 {
        self.cid
    }

    /// Makes the changes so far visible to the snapshots to come. Free if there were none.
    ///
    /// # Errors
    /// After 2^32-2 commands.
    pub fn command_counter_increment(&mut self) -> Result<(), TxnError> {
        if self.cid_used {
            if self.cid >= u32::MAX - 1 {
                return Err(TxnError::TooManyCommands);
            }
            self.cid += 1;
            self.cid_used = false;
        }
        Ok(())
    }

    /// Makes changes under an earlier command id: those of a statement that calls functions which ran commands of their own meanwhile. Such
    /// functions see what the statement did before them; the statement does not see what they do.
    pub fn at_command<T>(&mut self, cid: u32, f: impl FnOnce(&mut Self) -> T) -> T {
        let (now, used) = (self.cid, self.cid_used);
        self.cid = cid;
        let result = f(self);
        self.cid = now;
        self.cid_used |= used;
        result
    }

    /// The snapshot for a statement: fresh in READ COMMITTED, else the transaction's.
    ///
    /// # Errors
    /// If the node stops.
    pub fn snapshot(&mut self) -> Result<Snapshot, TxnError> {
        if self.options.isolation == Isolation::ReadCommitted {
            return self.latest_snapshot();
        }
        if self.kept.is_none() {
            self.kept = Some(if self.options.isolation == Isolation::Serializable {
                self.serializable_snapshot()?
            } else {
                self.latest_snapshot()?
            });
        }
        match &self.kept {
            Some(k) => Ok(k.with_cid(self.cid, self.own.clone())),
            None => self.latest_snapshot(),
        }
    }

    /// Exports the snapshot a statement would use now, until the transaction ends; returns its identifier.
    ///
    /// # Errors
    /// If the node stops.
    pub fn export_snapshot(&mut self, database: Oid) -> Result<String, TxnError> {
        let snapshot = self.snapshot()?;
        // The transaction's second number only has to tell it from those before it.
        let number = self.txns.next_xid().as_u64() & 0xffff_ffff;
        let id = format!("{:08X}-{number:08X}-{}", self.proc.id().0, self.exported.len() + 1);
        let (isolation, read_only) = (self.options.isolation, self.options.read_only);
        self.txns.exported().add(id.clone(), snapshot.clone(), ExportedSnapshot { lsn: snapshot.lsn(), isolation, read_only, database });
        self.exported.push(id.clone());
        Ok(id)
    }

    /// An exported snapshot.
    pub fn find_exported(&self, id: &str) -> Option<ExportedSnapshot> {
        self.txns.exported().find(id)
    }

    /// Reads with an exported snapshot from now on; false: it is gone. The caller has checked that there was none so far, and the levels.
    pub fn import_snapshot(&mut self, id: &str) -> bool {
        let slot = &self.proc.slot;
        let Some(registration) = self.txns.exported().register(id, |lsn| Registration::new(slot, lsn, || lsn)) else { return false };
        let snapshot = Snapshot::new(registration, self.cid, self.own.clone());
        self.queried = true;
        if self.options.isolation == Isolation::Serializable {
            let lsn = snapshot.lsn();
            let s = self.txns.serializable().enter(self.proc.id(), self.options.read_only, || lsn);
            s.began(lsn);
            if !s.is_safe() {
                self.serializable = Some(Arc::clone(&s));
                self.kept = Some(snapshot.with_serializable(s));
                return true;
            }
        }
        self.kept = Some(snapshot);
        true
    }

    fn serializable_snapshot(&mut self) -> Result<Snapshot, TxnError> {
        if self.txns.in_recovery() {
            return Err(TxnError::SerializableInRecovery);
        }
        loop {
            let (read_only, level) = (self.options.read_only, self.options.level);
            let s = self.txns.serializable().enter(self.proc.id(), read_only, || self.txns.readable_for(&self.proc, level));
            if let Some(own) = &self.own {
                own.subs().into_iter().chain([own.top()]).for_each(|x| s.add_xid(x));
            }
            let snapshot = self.latest_snapshot()?;
            s.began(snapshot.lsn());
            if read_only && self.options.deferrable {
                // Reads from a snapshot that needs no marks, however long it takes to get one.
                self.txns.wait_settled(&self.proc, &s)?;
                if s.is_safe() {
                    return Ok(snapshot);
                }
                self.txns.wait_readable(&self.proc, level, self.txns.positions().recorded)?;
                continue;
            }
            if s.is_safe() {
                return Ok(snapshot);
            }
            self.serializable = Some(Arc::clone(&s));
            return Ok(snapshot.with_serializable(s));
        }
    }

    /// Its place among the serializable ones, for writers to report to.
    #[inline]
    pub fn serializable(&self) -> Option<&Serializable> {
        self.serializable.as_deref()
    }

    /// A relation is about to be emptied or dropped: serializable readers of it conflict.
    ///
    /// # Errors
    /// [`TxnError::Dependencies`].
    pub fn empties_relation(&self, rel: RelId) -> Result<(), TxnError> {
        self.serializable().map_or(Ok(()), |s| s.wrote_relation(rel))
    }

    /// The rows of `from` are in `to` from now on, or `to` is the table of the index `from` that is dropped: readers keep their marks.
    pub fn moves_relation(&self, from: RelId, to: RelId) {
        self.txns.serializable().transfer(from, to);
    }

    /// A fresh snapshot whatever the isolation level: for catalogs and constraint checks.
    ///
    /// # Errors
    /// If the node stops.
    pub fn latest_snapshot(&self) -> Result<Snapshot, TxnError> {
        self.snapshot_at(self.options.level)
    }

    /// A snapshot of all that is committed, whether this session's level reads it yet or not: for whoever makes a table's files
    /// anew or says what holds for all its rows. A commit lets go of its locks once its own level is reached; who was given one of them must not
    /// miss what it did.
    ///
    /// # Errors
    /// If the node stops.
    pub fn committed_snapshot(&self) -> Result<Snapshot, TxnError> {
        self.snapshot_at(CommitLevel::Off)
    }

    fn snapshot_at(&self, level: CommitLevel) -> Result<Snapshot, TxnError> {
        let registration = self.txns.register(&self.proc, level)?;
        Ok(Snapshot::new(registration, self.cid, self.own.clone()))
    }

    /// As [`Self::latest_snapshot`]; what a SERIALIZABLE transaction reads with it is noted.
    ///
    /// # Errors
    /// If the node stops.
    pub fn newest_snapshot(&self) -> Result<Snapshot, TxnError> {
        let snapshot = self.latest_snapshot()?;
        Ok(match &self.serializable {
            Some(s) => snapshot.with_serializable(Arc::clone(s)),
            None => snapshot,
        })
    }

    // ---- temporary files

    /// Whether it knows where its temporary files go.
    pub fn has_temp_spaces(&self) -> bool {
        self.temp_spaces.is_some()
    }

    /// Its temporary files go to these tablespaces from now on; to the database's own if there are none. Replay that drops one has to wait for
    /// the end of this transaction.
    pub fn set_temp_spaces(&mut self, spaces: &[Oid]) {
        self.temp_spaces = Some(spaces.iter().map(|space| (*space, self.proc.use_tablespace(*space))).collect());
    }

    /// The tablespace for temporary file number `n`.
    pub fn temp_space(&self, n: u64) -> Option<Oid> {
        let spaces = self.temp_spaces.as_ref().filter(|s| !s.is_empty())?;
        let at = n % u64::try_from(spaces.len()).unwrap_or(1);
        spaces.get(usize::try_from(at).unwrap_or(0)).map(|s| s.0)
    }

    // ---- locks

    /// Takes a lock until the transaction, or the savepoint it is taken in, ends. False: held, and `policy` is to skip.
    ///
    /// # Errors
    /// Deadlock, timeout, cancel, not available.
    pub fn lock(&self, tag: LockTag, mode: LockMode, policy: WaitPolicy) -> Result<bool, TxnError> {
        let holder = match &self.worker {
            Some(worker) if matches!(tag, LockTag::Advisory { .. }) => worker,
            Some(_) | None => &self.holder,
        };
        if !self.locks().acquire(&self.proc, holder, tag, mode, policy)? {
            return Ok(false);
        }
        // Who is to change a relation, or its rows, goes by the catalogs as whoever had the lock before left them, not as this level reads them. A
        // commit of its own would wait for the same.
        if matches!(tag, LockTag::Relation { .. }) && mode != LockMode::AccessShare && !self.txns.knows_ddl(&self.proc, self.options.level)
        {
            let refused = match policy {
                WaitPolicy::Block => {
                    self.txns.wait_for_ddl(&self.proc, self.options.level)?;
                    return Ok(true);
                }
                WaitPolicy::Skip => Ok(false),
                WaitPolicy::Error => Err(TxnError::LockNotAvailable),
            };
            self.locks().release(holder, tag, mode);
            return refused;
        }
        Ok(true)
    }

    /// From here to [`Self::end_worker`] advisory locks are those of a parallel worker: they go when it does. False: one runs already.
    pub fn begin_worker(&mut self) -> bool {
        let begun = self.worker.is_none();
        if begun {
            self.worker = Some(LockHolder::new(self.proc.id()));
        }
        begun
    }

    /// The worker is done.
    pub fn end_worker(&mut self) {
        if let Some(worker) = self.worker.take() {
            self.locks().release_all(&worker);
        }
    }

    /// Whether it holds the lock in that very mode.
    pub fn holds(&self, tag: &LockTag, mode: LockMode) -> bool {
        self.holder.holds(tag, mode)
    }

    /// Whether it holds the lock in any mode.
    pub fn holds_any(&self, tag: &LockTag) -> bool {
        self.holder.holds_any(tag)
    }

    /// Gives a lock up before the end. Only for locks that protect nothing uncommitted.
    pub fn unlock(&self, tag: LockTag, mode: LockMode) -> bool {
        self.locks().release(&self.holder, tag, mode)
    }

    /// Takes a lock that outlives the transaction (`pg_advisory_lock`).
    ///
    /// # Errors
    /// As [`Self::lock`].
    pub fn lock_for_session(&self, tag: LockTag, mode: LockMode, policy: WaitPolicy) -> Result<bool, TxnError> {
        self.locks().acquire(&self.proc, &self.proc.session_locks, tag, mode, policy)
    }

    /// Gives a session lock up once (`pg_advisory_unlock`). False: it was not held.
    pub fn unlock_for_session(&self, tag: LockTag, mode: LockMode) -> bool {
        self.locks().release(&self.proc.session_locks, tag, mode)
    }

    /// Gives all session locks up (`pg_advisory_unlock_all`).
    pub fn unlock_all_for_session(&self) {
        self.locks().release_session(&self.proc);
    }

    /// The lock manager.
    pub fn locks(&self) -> &LockManager {
        self.txns.locks()
    }

    /// Error if the session was told to stop.
    ///
    /// # Errors
    /// [`TxnError::Cancelled`].
    #[inline]
    pub fn check_cancel(&self) -> Result<(), TxnError> {
        self.proc.cancel().check()
    }

    /// What it did to a table so far, in the innermost savepoint.
    #[inline]
    pub fn counts(&mut self, table: TableKey) -> &mut Counts {
        match self.stack.last_mut() {
            Some(sub) => sub.changes.get_or_insert_default().of(table),
            None => self.changes.of(table),
        }
    }

    // ---- what happens at the end

    /// Files to unlink if it commits.
    pub fn drop_on_commit(&mut self, rel: RelId) {
        if !rel.is_database() {
            self.end.drops.push(rel);
        }
    }

    /// A database's directory in a tablespace, to be removed if it commits. The caller made sure that nobody is connected to it.
    pub fn drop_database_on_commit(&mut self, spc: Oid, database: Oid) {
        self.end.drops.push(RelId::database(spc, database));
    }

    /// A database's directory that it made: removed if it rolls back.
    pub fn drop_database_on_abort(&mut self, spc: Oid, database: Oid) {
        self.end.creates.push(RelId::database(spc, database));
    }

    /// Files it created: unlinked if it rolls back.
    pub fn drop_on_abort(&mut self, rel: RelId) {
        if !rel.is_database() {
            self.end.creates.push(rel);
        }
    }

    /// Whether it made this file since its last savepoint, if it has one.
    pub fn has_just_created(&self, rel: RelId) -> bool {
        let since = self.stack.last().map_or(0, |s| s.creates);
        self.end.creates.get(since..).is_some_and(|made| made.contains(&rel))
    }

    /// A cached object that is stale if it commits.
    pub fn invalidate(&mut self, invalidation: Invalidation) {
        self.end.invalidations.push(invalidation);
    }

    /// The stale objects so far: what its own caches must not use.
    pub fn invalidations(&self) -> &[Invalidation] {
        &self.end.invalidations
    }

    /// Runs after the commit is recorded, before its wait.
    pub fn on_commit(&mut self, f: impl FnOnce() + Send + 'static) {
        self.end.on_commit.push(Box::new(f));
    }

    /// Runs if it, or the savepoint it is now in, rolls back.
    pub fn on_abort(&mut self, f: impl FnOnce() + Send + 'static) {
        self.end.on_abort.push(Box::new(f));
    }

    // ---- savepoints

    /// How many savepoints are open.
    pub fn savepoints(&self) -> usize {
        self.stack.len()
    }

    /// Sets a savepoint. Costs no xid until something is written in it.
    pub fn begin_sub(&mut self, name: Option<&str>) -> SavepointMark {
        self.stack.push(Sub {
            name: name.map(Into::into),
            xid: None,
            changes: None,
            subs: self.own.as_ref().map_or(0, |o| o.sub_count()),
            drops: self.end.drops.len(),
            creates: self.end.creates.len(),
            invalidations: self.end.invalidations.len(),
            on_commit: self.end.on_commit.len(),
            on_abort: self.end.on_abort.len(),
            locks: self.holder.mark(),
            read_only: self.options.read_only,
        });
        SavepointMark(self.stack.len() - 1)
    }

    fn find(&self, name: &str) -> Result<SavepointMark, TxnError> {
        self.stack
            .iter()
            .rposition(|s| s.name.as_deref() == Some(name))
            .map(SavepointMark)
            .ok_or_else(|| TxnError::NoSuchSavepoint(name.to_owned()))
    }

    /// ROLLBACK TO: undoes what happened since, keeps the savepoint. Returns the objects whose cached form it had made stale.
    ///
    /// # Errors
    /// If there is none of that name, or the WAL fails.
    pub fn rollback_to(&mut self, name: &str) -> Result<Vec<Invalidation>, TxnError> {
        let mark = self.find(name)?;
        let stale = self.rollback_sub(mark)?;
        self.begin_sub(Some(name));
        Ok(stale)
    }

    /// RELEASE: forgets the savepoint, keeps what happened since.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn release(&mut self, name: &str) -> Result<(), TxnError> {
        let mark = self.find(name)?;
        self.release_sub(mark);
        Ok(())
    }

    /// Undoes what happened since the mark and forgets it.
    ///
    /// # Errors
    /// If the WAL fails.
    pub fn rollback_sub(&mut self, mark: SavepointMark) -> Result<Vec<Invalidation>, TxnError> {
        let Some(sub) = self.stack.get(mark.0) else { return Ok(Vec::new()) };
        let locks = sub.locks;
        self.options.read_only = sub.read_only;
        let xids = self.own.as_ref().map_or_else(Vec::new, |o| o.cut_subs(sub.subs));
        let created = self.end.creates.split_off(sub.creates);
        self.end.drops.truncate(sub.drops);
        let stale = self.end.invalidations.split_off(sub.invalidations);
        self.end.on_commit.truncate(sub.on_commit);
        let undo = self.end.on_abort.split_off(sub.on_abort);
        for sub in self.stack.drain(mark.0..) {
            if let Some(changes) = sub.changes {
                self.txns.table_stats().apply(*changes, false);
            }
        }
        let r = self.txns.abort_xids(&xids, created);
        self.locks().release_since(&self.holder, locks);
        if self.stack.is_empty() {
            self.holder.forget_marks();
        }
        undo.into_iter().rev().for_each(|f| f());
        r.map(|()| stale)
    }

    /// Forgets the mark, keeps what happened since.
    pub fn release_sub(&mut self, mark: SavepointMark) {
        if let Some(sub) = self.stack.get(mark.0) {
            // As it was around the savepoint. PostgreSQL: `CommitSubTransaction`.
            self.options.read_only = sub.read_only;
            self.merge_changes(mark.0);
            if self.stack.is_empty() {
                self.holder.forget_marks();
            }
        }
    }

    /// What the savepoints from this one on did is done by those around them.
    fn merge_changes(&mut self, from: usize) {
        while self.stack.len() > from
            && let Some(sub) = self.stack.pop()
        {
            let Some(changes) = sub.changes else { continue };
            match self.stack.last_mut() {
                Some(outer) if outer.changes.is_none() => outer.changes = Some(changes),
                Some(outer) => outer.changes.get_or_insert_default().merge(*changes),
                None => self.changes.merge(*changes),
            }
        }
    }

    // ---- the end

    /// Commits: the record is inserted and recorded when this returns. The client is told only once the wait is over.
    ///
    /// # Errors
    /// If the record cannot be inserted; the transaction is then aborted.
    pub fn commit(mut self, level: CommitLevel) -> Result<CommitWait, TxnError> {
        self.end_worker();
        if let Some(s) = &self.serializable {
            s.prepare(self.own.is_some())?;
        }
        self.kept = None;
        self.proc.end_local(self.local);
        let wait = match self.own.take() {
            None => {
                self.finished = true;
                if let Some(s) = self.serializable.take() {
                    s.committed(None);
                }
                self.locks().release_all(&self.holder);
                CommitWait::done(Lsn::INVALID)
            }
            Some(own) => {
                let decision = Decision {
                    time: 0,
                    subs: own.subs(),
                    drops: self.end.drops.clone(),
                    invalidations: std::mem::take(&mut self.end.invalidations),
                };
                let holder = Some(Arc::clone(&self.holder));
                match self.txns.commit_xid(KIND_COMMIT, &self.proc, own.top(), decision, level, holder) {
                    Ok(w) => {
                        self.finished = true;
                        if let Some(s) = self.serializable.take() {
                            s.committed(Some(w.lsn()));
                        }
                        self.merge_changes(0);
                        self.txns.table_stats().apply(std::mem::take(&mut self.changes), true);
                        w
                    }
                    Err(e) => {
                        self.own = Some(own);
                        return Err(e);
                    }
                }
            }
        };
        std::mem::take(&mut self.end.on_commit).into_iter().for_each(|f| f());
        Ok(wait)
    }

    /// It makes a temporary object: it cannot be prepared.
    pub fn note_temporary(&mut self) {
        self.temporary = true;
    }

    /// The relations it holds locks on.
    pub fn locked_relations(&self) -> Vec<Oid> {
        let mut all: Vec<Oid> = self
            .holder
            .list()
            .iter()
            .filter_map(|(tag, _)| if let LockTag::Relation { rel, .. } = tag { Some(*rel) } else { None })
            .collect();
        all.dedup();
        all
    }

    /// Prepares it under `gid`: what remains is COMMIT PREPARED or ROLLBACK PREPARED, by any session, after any crash.
    ///
    /// # Errors
    /// If it holds a lock that is its session's as well, the identifier is taken, there are `limit` already, or the record cannot be
    /// inserted; the transaction is then aborted.
    pub fn prepare(mut self, gid: String, owner: Oid, database: Oid, limit: usize, level: CommitLevel) -> Result<CommitWait, TxnError> {
        self.end_worker();
        self.release_sub(SavepointMark(0));
        if self.temporary {
            return Err(TxnError::CannotPrepare("a transaction that has operated on temporary objects"));
        }
        if !self.exported.is_empty() {
            return Err(TxnError::CannotPrepare("a transaction that has exported snapshots"));
        }
        let locks = self.holder.list();
        if locks.iter().any(|(tag, _)| self.proc.session_locks.holds_any(tag)) {
            return Err(TxnError::CannotPrepare("while holding both session-level and transaction-level locks on the same object"));
        }
        self.xid()?;
        let Some(own) = self.own.clone() else { return Err(TxnError::StatusMissing(Xid::INVALID)) };
        if let Some(s) = &self.serializable {
            s.prepare(true)?;
        }
        let state = PreparedState {
            gid,
            time: Transactions::now(),
            owner,
            database,
            commit: Decision { time: 0, subs: own.subs(), drops: self.end.drops.clone(), invalidations: self.end.invalidations.clone() },
            creates: self.end.creates.clone(),
            locks,
            marks: self.serializable.as_ref().map(|s| s.marks()),
        };
        let wait = self.txns.prepare_xids(&own, state, &self.holder, self.serializable.clone(), limit, level)?;
        self.finished = true;
        self.kept = None;
        self.own = None;
        self.serializable = None;
        self.proc.set_own(None);
        self.proc.end_local(self.local);
        Ok(wait)
    }

    /// Rolls back.
    ///
    /// # Errors
    /// If the WAL fails; the transaction is over all the same.
    pub fn abort(mut self) -> Result<(), TxnError> {
        self.abort_inner()
    }

    fn abort_inner(&mut self) -> Result<(), TxnError> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        self.kept = None;
        if let Some(s) = self.serializable.take() {
            s.rolled_back();
        }
        let r = match self.own.take() {
            None => Ok(()),
            Some(own) => {
                let mut xids = vec![own.top()];
                xids.extend(own.subs());
                let r = self.txns.abort_xids(&xids, std::mem::take(&mut self.end.creates));
                self.merge_changes(0);
                self.txns.table_stats().apply(std::mem::take(&mut self.changes), false);
                self.proc.set_own(None);
                r
            }
        };
        self.proc.end_local(self.local);
        self.end_worker();
        self.locks().release_all(&self.holder);
        std::mem::take(&mut self.end.on_abort).into_iter().rev().for_each(|f| f());
        r
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.exported.is_empty() {
            self.txns.exported().remove(&self.exported);
        }
        // An error here is the WAL's, and it stops the node by itself.
        let _wal_failed = self.abort_inner();
    }
}
