//! Insert, update, delete, lock.

use afterimage_wal::ids::{BlockNo, Fork, Lsn, Xid};
use afterimage_wal::{RecordBuilder, rmgr};

use super::log::{self, Latched, change_pages};
use super::prune;
use super::tuple::{HEADER, Header, MAX_TUPLE, header, mask, put_end, put_header};
use super::vacuum::set_visible;
use super::visibility::{Lookup, Verdict, end_cid, judge};
use crate::access::{AccessCtx, AccessError, RelHandle, Tid};
use crate::storage::page::{FLAG_ALL_VISIBLE, FLAG_HAS_FREE_LINES, LINE_POINTER_SIZE};
use crate::storage::{Buffer, LinePointer, Page, fsm, vm, vm::MapPin};
use crate::txn::{LockMode, LockTag, RowLockMode, Snapshot, Transaction, TxnError, WaitPolicy, XidStatus};

/// How a change treats rows others hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeOptions {
    /// What to do when another transaction holds the row.
    pub wait: WaitPolicy,
}

/// How an update goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpdateOptions {
    /// What to do when another transaction holds the row.
    pub wait: WaitPolicy,
    /// No indexed column changes: the new version may be heap-only.
    pub hot_ok: bool,
    /// A column of a unique index that foreign keys may refer to changes.
    pub key_changed: bool,
}

/// What came of a change or a row lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeResult {
    /// Done. For an update `tid` is the new version; `hot`: indexes need no new entries. For others `tid` is the row's.
    Done {
        /// The version that is now current.
        tid: Tid,
        /// Heap-only.
        hot: bool,
    },
    /// Another transaction changed the row and committed. READ COMMITTED re-checks `next`; others fail with 40001.
    Updated {
        /// The next version.
        next: Tid,
        /// Who.
        by: Xid,
    },
    /// Another transaction deleted the row and committed.
    Deleted {
        /// Who.
        by: Xid,
    },
    /// This transaction changed the row already, after the statement's snapshot: the statement itself, or a trigger.
    SelfModified {
        /// By this very command (else by a later one).
        same_command: bool,
    },
    /// Held by another, and the policy is to skip.
    Skipped,
}

/// Line pointers a heap page may have: more are not worth their space.
const MAX_LINES: u16 = 512;

pub(super) fn check_size(row: &[u8]) -> Result<usize, AccessError> {
    let size = HEADER + row.len();
    if size > MAX_TUPLE { Err(AccessError::RowTooBig { size, max: MAX_TUPLE }) } else { Ok(size) }
}

/// Whether an item of `size` bytes can be added.
pub(super) fn has_room(page: &Page, size: usize) -> bool {
    // With a free line pointer to reuse, its four bytes are not needed; that rare gain is left.
    page.free_space() >= size && (page.max_offset() < MAX_LINES || page.has_flag(FLAG_HAS_FREE_LINES))
}

/// Room a page is asked for that a row of `size` bytes comes to: with what `fillfactor` leaves free, but no more than a page that holds next to nothing
/// has.
pub(super) fn wanted(rel: &RelHandle, size: usize) -> usize {
    /// What a page may hold and still count as empty.
    const NEARLY_EMPTY: usize = MAX_TUPLE / 50;
    (size + usize::from(rel.reserve)).min(MAX_TUPLE - NEARLY_EMPTY).max(size)
}

pub(super) fn extend(ctx: &AccessCtx, rel: &RelHandle, n: u32) -> Result<Buffer, AccessError> {
    let b = if rel.logged() { ctx.pool.extend(rel.file, Fork::Main, n) } else { ctx.pool.extend_unlogged(rel.file, Fork::Main, n) };
    Ok(b?)
}

fn spread(txn: &Transaction) -> usize {
    usize::try_from(txn.proc().id().0).unwrap_or(0)
}

/// A page that should have room for `size` bytes: where this session inserted last, else one the free space map knows, else a new one.
/// `not`: a page that was tried and has `0.1` bytes.
fn page_for_insert(
    ctx: &AccessCtx,
    txn: &Transaction,
    rel: &RelHandle,
    size: usize,
    tried: Option<(BlockNo, usize)>,
    extend_by: u32,
) -> Result<Buffer, AccessError> {
    let need = size + LINE_POINTER_SIZE;
    let found = match tried {
        None => match txn.proc().insert_target(rel.file) {
            Some(b) => Some(b),
            None => match fsm::search(&ctx.pool, rel.file, need, spread(txn))? {
                Some(b) => Some(b),
                None => ctx.pool.n_blocks(rel.file, Fork::Main)?.get().checked_sub(1).map(BlockNo::new),
            },
        },
        Some((b, free)) => fsm::record_and_search(&ctx.pool, rel.file, b, free, need, spread(txn))?.filter(|n| *n != b),
    };
    match found {
        Some(b) => page_or_new(ctx, rel, b, extend_by),
        None => new_pages(ctx, rel, extend_by),
    }
}

/// The block, or new ones if the file ends before it.
fn page_or_new(ctx: &AccessCtx, rel: &RelHandle, block: BlockNo, extend_by: u32) -> Result<Buffer, AccessError> {
    if block < ctx.pool.n_blocks(rel.file, Fork::Main)? {
        return Ok(ctx.pool.read(rel.file, Fork::Main, block)?);
    }
    new_pages(ctx, rel, extend_by)
}

/// The first of some new pages; the map knows of the others.
fn new_pages(ctx: &AccessCtx, rel: &RelHandle, n: u32) -> Result<Buffer, AccessError> {
    let first = extend(ctx, rel, n)?;
    for i in 1..n {
        let free = MAX_TUPLE + LINE_POINTER_SIZE;
        fsm::record(&ctx.pool, rel.file, BlockNo::new(first.block().get() + i), free)?;
    }
    Ok(first)
}

/// Inserts a row and returns its place.
///
/// # Errors
/// `RowTooBig`; I/O.
pub fn insert(ctx: &AccessCtx, txn: &mut Transaction, rel: &RelHandle, row: &[u8]) -> Result<Tid, AccessError> {
    let size = check_size(row)?;
    let wanted = wanted(rel, size);
    let (xid, cid) = (txn.xid()?, txn.write_cid());
    let mut tried = None;
    loop {
        let buffer = page_for_insert(ctx, txn, rel, wanted, tried, 1)?;
        let mut latched = Latched::new(ctx, rel, &buffer)?;
        if !has_room(&latched.page, wanted) {
            if tried.is_none() && prune::prune_sometimes(ctx, rel, &mut latched)? {
                tried = Some((buffer.block(), 0));
                if !has_room(&latched.page, wanted) {
                    continue;
                }
            } else {
                tried = Some((buffer.block(), latched.page.raw_free_space()));
                continue;
            }
        }
        let mut record = RecordBuilder::new(rmgr::HEAP, log::INSERT, xid);
        let mut tid = Tid::new(buffer.block(), 0);
        let mut header = Header::new(xid, tid, 0, cid);
        let mut added = false;
        change_pages(ctx, rel, "insert a row", &mut record, &mut [&mut latched], |pages, record| {
            let page = &mut pages[0].page;
            if let Some(off) = page.add_parts(&header.encode(), row, None) {
                tid.offset = off;
                header.next = tid;
                put_header(page, off, &header);
                record.block_parts(rel.file, Fork::Main, tid.block, 0, &[&off.to_le_bytes(), row]);
                added = true;
            }
        });
        if !added {
            return Err(AccessError::Damaged { rel: rel.file, block: tid.block, what: "free space that cannot be used" });
        }
        if tried.is_some() || txn.proc().insert_target(rel.file) != Some(tid.block) {
            txn.proc().set_insert_target(rel.file, Some(tid.block));
        }
        txn.counts(rel.stats_key()).inserted += 1;
        drop(latched);
        wrote(txn, rel, None)?;
        return Ok(tid);
    }
}

/// Inserts many rows, a page per record where possible; places come back in order.
///
/// `frozen`: they are visible to everyone from now on, as is their page if it has no others. Only for a file that this transaction, or the savepoint
/// it is in, has made: nobody else knows it before a commit, and with an abort it goes. PostgreSQL: `HEAP_INSERT_FROZEN`.
///
/// # Errors
/// As [`insert`].
pub fn multi_insert<R: AsRef<[u8]>>(
    ctx: &AccessCtx,
    txn: &mut Transaction,
    rel: &RelHandle,
    rows: &[R],
    frozen: bool,
    tids: &mut Vec<Tid>,
) -> Result<(), AccessError> {
    let mut total = 0;
    for r in rows {
        total += check_size(r.as_ref())? + LINE_POINTER_SIZE;
    }
    if rows.is_empty() {
        return Ok(());
    }
    let (xid, cid) = (txn.xid()?, txn.write_cid());
    let mut rest = rows;
    let mut tried: Option<(BlockNo, usize)> = None;
    let mut data = Vec::new();
    let mut maps = MapPin::default();
    // Nobody else inserts there: rows lie as they come.
    let alone = txn.has_just_created(rel.file);
    let bits = if frozen { mask::FROZEN } else { 0 };
    while let Some(first) = rest.first() {
        let wanted = wanted(rel, HEADER + first.as_ref().len());
        // Enough pages for what is left, but not so many that others who search the map find none.
        let pages = u32::try_from(total / MAX_TUPLE + 1).unwrap_or(1).min(32);
        let buffer = match tried {
            Some((full, _)) if alone => page_or_new(ctx, rel, BlockNo::new(full.get() + 1), pages)?,
            _ => page_for_insert(ctx, txn, rel, wanted, tried, pages)?,
        };
        let mut latched = if frozen {
            Latched::with_map(&buffer, maps.pin(&ctx.pool, rel.file, buffer.block(), rel.logged())?)
        } else {
            Latched::new(ctx, rel, &buffer)?
        };
        if !has_room(&latched.page, wanted) {
            tried = Some((buffer.block(), latched.page.raw_free_space()));
            continue;
        }
        let block = buffer.block();
        let visible = frozen && (latched.page.max_offset() == 0 || latched.page.has_flag(FLAG_ALL_VISIBLE));
        let mut record = RecordBuilder::new(rmgr::HEAP, log::MULTI_INSERT, xid);
        let before = tids.len();
        change_pages(ctx, rel, "insert rows", &mut record, &mut [&mut latched], |pages, record| {
            let page = &mut pages[0].page;
            let first_off = page.max_offset() + 1;
            data.clear();
            data.extend_from_slice(&first_off.to_le_bytes());
            for (off, r) in (first_off..).zip(rest) {
                let row = r.as_ref();
                let tid = Tid::new(block, off);
                let full = off > first_off && rel.reserve > 0 && !has_room(page, self::wanted(rel, HEADER + row.len()));
                if full || off > MAX_LINES || page.add_parts(&Header::new(xid, tid, bits, cid).encode(), row, Some(off)).is_none() {
                    break;
                }
                data.extend_from_slice(&u16::try_from(row.len()).unwrap_or(u16::MAX).to_le_bytes());
                data.extend_from_slice(row);
                tids.push(tid);
            }
            record.block(rel.file, Fork::Main, block, 0, &data);
            if frozen {
                record.main(&[log::FROZEN]);
            }
        });
        let done = tids.len() - before;
        if visible && done > 0 {
            // No snapshot is older than what nobody could see.
            set_visible(ctx, rel, &mut latched, vm::VISIBLE | vm::FROZEN, Lsn::INVALID)?;
        }
        tried = Some((block, latched.page.raw_free_space()));
        drop(latched);
        if done == 0 {
            // Room for the bytes, but all line pointers are taken by unused ones: one row at a time reuses them.
            tids.push(insert(ctx, txn, rel, first.as_ref())?);
            rest = &rest[1..];
            continue;
        }
        txn.proc().set_insert_target(rel.file, Some(block));
        txn.counts(rel.stats_key()).inserted += u64::try_from(done).unwrap_or(0);
        wrote(txn, rel, None)?;
        total = total.saturating_sub(rest[..done].iter().map(|r| r.as_ref().len() + HEADER + LINE_POINTER_SIZE).sum());
        rest = &rest[done..];
    }
    Ok(())
}

/// What stands in the way of a change.
enum Step {
    /// Nothing: the version may be changed under the latch that is held.
    Go(Header),
    /// The answer.
    Stop(ChangeResult),
    /// Wait, then look again.
    WaitXid(Xid),
    WaitLock,
}

/// Looks at the version `tid` on its latched page.
fn look(
    ctx: &AccessCtx,
    txn: &Transaction,
    rel: &RelHandle,
    page: &Page,
    tid: Tid,
    cid: u32,
    mode: RowLockMode,
) -> Result<Step, AccessError> {
    let Some(h) = header(page, tid.offset) else { return Err(AccessError::NoSuchRow { rel: rel.file, tid }) };
    Ok(match judge(txn, &h, cid)? {
        Verdict::Invisible => return Err(AccessError::Invisible),
        Verdict::SelfModified { same_command } => Step::Stop(ChangeResult::SelfModified { same_command }),
        Verdict::Ended { next, by, .. } if next == tid => Step::Stop(ChangeResult::Deleted { by }),
        Verdict::Ended { next, by, .. } => Step::Stop(ChangeResult::Updated { next, by }),
        Verdict::Busy { by, .. } => Step::WaitXid(by),
        Verdict::Free if ctx.locks.tuple_locked(txn.proc(), &row_tag(rel, tid), mode) => Step::WaitLock,
        Verdict::Free => Step::Go(h),
    })
}

/// What row locks on a version are taken on.
pub fn row_tag(rel: &RelHandle, tid: Tid) -> LockTag {
    LockTag::Tuple { rel: rel.file, block: tid.block, offset: tid.offset }
}

/// What whoever waits for a version's row holds meanwhile, so that rows are had in order.
pub fn queue_tag(rel: &RelHandle, tid: Tid) -> LockTag {
    LockTag::TupleQueue { rel: rel.file, block: tid.block, offset: tid.offset }
}

/// What INSERT ... ON CONFLICT holds while it may still take a row back that it made.
pub fn speculative_tag(rel: &RelHandle, tid: Tid) -> LockTag {
    LockTag::Speculative { rel: rel.file, block: tid.block, offset: tid.offset }
}

/// What someone who waits for a row holds meanwhile: a place in its queue, so that waiters get it in order; and, once those who share it
/// have gone, the row itself.
struct Place {
    row: LockTag,
    queue: LockTag,
    mode: LockMode,
    queued: bool,
    locked: bool,
}

impl Place {
    fn new(rel: &RelHandle, tid: Tid, mode: RowLockMode) -> Self {
        let queue = queue_tag(rel, tid);
        Self { row: row_tag(rel, tid), queue, mode: mode.lock_mode(), queued: false, locked: false }
    }

    /// Takes a place in the queue; false: skip the row. Who shares the row already has to go first, so he does not queue.
    fn queue(&mut self, txn: &Transaction, policy: WaitPolicy) -> Result<bool, TxnError> {
        if !self.queued && !txn.holds_any(&self.row) {
            if !txn.lock(self.queue, self.mode, policy)? {
                return Ok(false);
            }
            self.queued = true;
        }
        Ok(true)
    }

    /// Waits for `by`, or for those who share the row; false: skip the row.
    fn wait(&mut self, txn: &Transaction, by: Option<Xid>, policy: WaitPolicy) -> Result<bool, TxnError> {
        self.unlock(txn);
        if !self.queue(txn, policy)? {
            return Ok(false);
        }
        match (by, policy) {
            (None, _) => {
                let held = txn.holds(&self.row, self.mode);
                if !txn.lock(self.row, self.mode, policy)? {
                    return Ok(false);
                }
                self.locked = !held;
            }
            (Some(_), WaitPolicy::Skip) => return Ok(false),
            (Some(_), WaitPolicy::Error) => return Err(TxnError::LockNotAvailable),
            (Some(xid), WaitPolicy::Block) => {
                txn.transactions().wait_for_xid(txn.proc(), xid, txn.options().level)?;
            }
        }
        Ok(true)
    }

    fn unlock(&mut self, txn: &Transaction) {
        if std::mem::take(&mut self.locked) {
            txn.unlock(self.row, self.mode);
        }
    }

    fn leave(mut self, txn: &Transaction) {
        self.unlock(txn);
        if self.queued {
            txn.unlock(self.queue, self.mode);
        }
    }
}

/// Replaces the version `tid`, which `snapshot` sees. Waits for others as `options` say.
///
/// # Errors
/// `NoSuchRow`, `Invisible`, `RowTooBig`; lock errors; I/O.
pub fn update(
    ctx: &AccessCtx,
    txn: &mut Transaction,
    rel: &RelHandle,
    snapshot: &Snapshot,
    tid: Tid,
    row: &[u8],
    options: UpdateOptions,
) -> Result<ChangeResult, AccessError> {
    check_size(row)?;
    let mode = if options.key_changed { RowLockMode::Update } else { RowLockMode::NoKeyUpdate };
    let mut place = Place::new(rel, tid, mode);
    let r = update_at(ctx, txn, rel, snapshot, tid, row, options, mode, &mut place);
    place.leave(txn);
    if let Ok(ChangeResult::Done { hot, .. }) = r {
        let counts = txn.counts(rel.stats_key());
        counts.updated += 1;
        counts.hot += u64::from(hot);
        wrote(txn, rel, Some(tid))?;
    }
    r
}

/// Tells serializable readers of a change, once it is made: a new row, or a version ended at `tid`.
fn wrote(txn: &Transaction, rel: &RelHandle, tid: Option<Tid>) -> Result<(), AccessError> {
    if let Some(s) = txn.serializable().filter(|_| rel.is_marked()) {
        s.wrote_row(rel.file, tid.map(|t| (t.block, t.offset)))?;
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "one caller, right above")]
fn update_at(
    ctx: &AccessCtx,
    txn: &mut Transaction,
    rel: &RelHandle,
    snapshot: &Snapshot,
    tid: Tid,
    row: &[u8],
    options: UpdateOptions,
    mode: RowLockMode,
    place: &mut Place,
) -> Result<ChangeResult, AccessError> {
    let size = HEADER + row.len();
    let (xid, cid) = (txn.xid()?, txn.write_cid());
    let old_buffer = ctx.pool.read(rel.file, Fork::Main, tid.block)?;
    // The page for the new version, once the old one's proved full, and what was tried in vain.
    let mut other: Option<Buffer> = None;
    let mut tried = None;
    loop {
        // Latched in block order.
        let (mut old, mut new) = match &other {
            Some(o) if o.block() < tid.block => {
                let n = Latched::new(ctx, rel, o)?;
                (Latched::new(ctx, rel, &old_buffer)?, Some(n))
            }
            Some(o) => {
                let l = Latched::new(ctx, rel, &old_buffer)?;
                (l, Some(Latched::new(ctx, rel, o)?))
            }
            None => (Latched::new(ctx, rel, &old_buffer)?, None),
        };
        let h = match look(ctx, txn, rel, &old.page, tid, snapshot.cid(), mode)? {
            Step::Go(h) => h,
            Step::Stop(r) => return Ok(r),
            wait @ (Step::WaitXid(_) | Step::WaitLock) => {
                drop(new);
                drop(old);
                let by = if let Step::WaitXid(x) = wait { Some(x) } else { None };
                if !place.wait(txn, by, options.wait)? {
                    return Ok(ChangeResult::Skipped);
                }
                continue;
            }
        };
        let (end_cid, combo) = end_cid(&h, txn, cid);
        if !has_room(&old.page, size) {
            prune::prune_sometimes(ctx, rel, &mut old)?;
        }
        if has_room(&old.page, size) {
            drop(new);
            return update_same_page(ctx, txn, rel, &mut old, tid, &h, row, xid, cid, (end_cid, combo), options);
        }
        match new.as_mut() {
            Some(n) if has_room(&n.page, wanted(rel, size)) => {
                let mut tid2 = Tid::new(n.buffer.block(), 0);
                let mut nh = Header::new(xid, tid2, mask::UPDATED, cid);
                let mut record = RecordBuilder::new(rmgr::HEAP, log::UPDATE, xid);
                let mut pages = [&mut *n, &mut old];
                let mut added = false;
                change_pages(ctx, rel, "update a row", &mut record, &mut pages, |pages, record| {
                    let Some(off) = pages[0].page.add_parts(&nh.encode(), row, None) else { return };
                    added = true;
                    tid2.offset = off;
                    nh.next = tid2;
                    put_header(&mut pages[0].page, off, &nh);
                    let mut oh = h;
                    oh.end(xid, tid2, options.key_changed, false);
                    oh.cid = end_cid;
                    oh.mask |= combo;
                    put_end(&mut pages[1].page, tid.offset, &oh);
                    ctx.locks.carry_tuple_locks(txn.proc(), &row_tag(rel, tid), row_tag(rel, tid2));
                    let flags = if options.key_changed { log::KEYS_CHANGED } else { 0 };
                    let head = [flags, off.to_le_bytes()[0], off.to_le_bytes()[1]];
                    record.block_parts(rel.file, Fork::Main, tid2.block, 0, &[&head, row]);
                    record.block(rel.file, Fork::Main, tid.block, 0, &tid.offset.to_le_bytes());
                });
                if !added {
                    let what = "free space that cannot be used";
                    return Err(AccessError::Damaged { rel: rel.file, block: tid2.block, what });
                }
                txn.proc().set_insert_target(rel.file, Some(tid2.block));
                return Ok(ChangeResult::Done { tid: tid2, hot: false });
            }
            Some(n) => tried = Some((n.buffer.block(), n.page.raw_free_space())),
            None => {}
        }
        let full = (tid.block, old.page.raw_free_space());
        drop(new);
        drop(old);
        // The session's own target first; if that is the full page itself, the map.
        let first_try = tried.is_none() && txn.proc().insert_target(rel.file) != Some(tid.block);
        let wanted = wanted(rel, size);
        let mut candidate = page_for_insert(ctx, txn, rel, wanted, if first_try { None } else { tried.or(Some(full)) }, 1)?;
        if candidate.block() == tid.block {
            candidate = page_for_insert(ctx, txn, rel, wanted, Some(full), 1)?;
        }
        if candidate.block() == tid.block {
            candidate = extend(ctx, rel, 1)?;
        }
        other = Some(candidate);
    }
}

#[expect(clippy::too_many_arguments, reason = "one caller, right above")]
fn update_same_page(
    ctx: &AccessCtx,
    txn: &Transaction,
    rel: &RelHandle,
    latched: &mut Latched<'_>,
    tid: Tid,
    h: &Header,
    row: &[u8],
    xid: Xid,
    cid: u32,
    end: (u32, u16),
    options: UpdateOptions,
) -> Result<ChangeResult, AccessError> {
    let hot = options.hot_ok;
    let mut tid2 = Tid::new(tid.block, 0);
    let mut nh = Header::new(xid, tid2, mask::UPDATED | if hot { mask::HEAP_ONLY } else { 0 }, cid);
    let mut record = RecordBuilder::new(rmgr::HEAP, log::UPDATE, xid);
    let mut added = false;
    change_pages(ctx, rel, "update a row", &mut record, &mut [latched], |pages, record| {
        let page = &mut pages[0].page;
        let (prefix, suffix) = page.item(tid.offset).map_or((0, 0), |old| common(&old[HEADER.min(old.len())..], row));
        let Some(off) = page.add_parts(&nh.encode(), row, None) else { return };
        added = true;
        tid2.offset = off;
        nh.next = tid2;
        put_header(page, off, &nh);
        let mut oh = *h;
        oh.end(xid, tid2, options.key_changed, hot);
        oh.cid = end.0;
        oh.mask |= end.1;
        put_end(page, tid.offset, &oh);
        ctx.locks.carry_tuple_locks(txn.proc(), &row_tag(rel, tid), row_tag(rel, tid2));
        let flags = log::SAME_PAGE
            | if hot { log::UPDATE_HOT } else { 0 }
            | if options.key_changed { log::KEYS_CHANGED } else { 0 }
            | if prefix > 0 { log::PREFIX } else { 0 }
            | if suffix > 0 { log::SUFFIX } else { 0 };
        let (p, s) = (prefix.to_le_bytes(), suffix.to_le_bytes());
        let middle = &row[usize::from(prefix)..row.len() - usize::from(suffix)];
        record.block_parts(
            rel.file,
            Fork::Main,
            tid.block,
            0,
            &[
                &[flags],
                &off.to_le_bytes(),
                &tid.offset.to_le_bytes(),
                if prefix > 0 { &p } else { &[] },
                if suffix > 0 { &s } else { &[] },
                middle,
            ],
        );
    });
    if added {
        Ok(ChangeResult::Done { tid: tid2, hot })
    } else {
        Err(AccessError::Damaged { rel: rel.file, block: tid.block, what: "free space that cannot be used" })
    }
}

/// Bytes two rows share at the beginning and, past that, at the end; 0 where naming them would not save any.
fn common(old: &[u8], new: &[u8]) -> (u16, u16) {
    let max = old.len().min(new.len()).min(usize::from(u16::MAX));
    let mut prefix = old.iter().zip(new).take(max).take_while(|(a, b)| a == b).count();
    prefix = if prefix > 2 { prefix } else { 0 };
    let left = max - prefix;
    let suffix = old.iter().rev().zip(new.iter().rev()).take(left).take_while(|(a, b)| a == b).count();
    let suffix = if suffix > 2 { suffix } else { 0 };
    (u16::try_from(prefix).unwrap_or(0), u16::try_from(suffix).unwrap_or(0))
}

/// Deletes the version `tid`, which `snapshot` sees.
///
/// # Errors
/// As [`update`].
pub fn delete(
    ctx: &AccessCtx,
    txn: &mut Transaction,
    rel: &RelHandle,
    snapshot: &Snapshot,
    tid: Tid,
    options: ChangeOptions,
) -> Result<ChangeResult, AccessError> {
    let mut place = Place::new(rel, tid, RowLockMode::Update);
    let r = delete_at(ctx, txn, rel, snapshot, tid, options, &mut place);
    place.leave(txn);
    if let Ok(ChangeResult::Done { .. }) = r {
        txn.counts(rel.stats_key()).deleted += 1;
        wrote(txn, rel, Some(tid))?;
    }
    r
}

fn delete_at(
    ctx: &AccessCtx,
    txn: &mut Transaction,
    rel: &RelHandle,
    snapshot: &Snapshot,
    tid: Tid,
    options: ChangeOptions,
    place: &mut Place,
) -> Result<ChangeResult, AccessError> {
    let (xid, cid) = (txn.xid()?, txn.write_cid());
    let buffer = ctx.pool.read(rel.file, Fork::Main, tid.block)?;
    loop {
        let mut latched = Latched::new(ctx, rel, &buffer)?;
        let mut h = match look(ctx, txn, rel, &latched.page, tid, snapshot.cid(), RowLockMode::Update)? {
            Step::Go(h) => h,
            Step::Stop(r) => return Ok(r),
            wait @ (Step::WaitXid(_) | Step::WaitLock) => {
                drop(latched);
                let by = if let Step::WaitXid(x) = wait { Some(x) } else { None };
                if !place.wait(txn, by, options.wait)? {
                    return Ok(ChangeResult::Skipped);
                }
                continue;
            }
        };
        let (end_cid, combo) = end_cid(&h, txn, cid);
        let mut record = RecordBuilder::new(rmgr::HEAP, log::DELETE, xid);
        change_pages(ctx, rel, "delete a row", &mut record, &mut [&mut latched], |pages, record| {
            h.end(xid, tid, true, false);
            h.cid = end_cid;
            h.mask |= combo;
            put_end(&mut pages[0].page, tid.offset, &h);
            record.block(rel.file, Fork::Main, tid.block, 0, &tid.offset.to_le_bytes());
            record.main(&[log::KEYS_CHANGED]);
        });
        return Ok(ChangeResult::Done { tid, hot: false });
    }
}

/// The lock of a row that is locked, looked at and changed right after: the change keeps others away as the lock does, so that it can be given up.
/// Kept instead, it would take memory for each row a statement changes.
#[derive(Debug)]
pub struct PassingLock {
    row: LockTag,
    mode: LockMode,
    /// The transaction had it before.
    held: bool,
}

impl PassingLock {
    /// To be made before [`lock_row`].
    pub fn new(txn: &Transaction, rel: &RelHandle, tid: Tid, mode: RowLockMode) -> Self {
        let (row, mode) = (row_tag(rel, tid), mode.lock_mode());
        Self { row, mode, held: txn.holds(&row, mode) }
    }

    /// The row was changed. Not to be called if it was not: then the lock stays until the transaction ends.
    pub fn give_up(self, txn: &Transaction) {
        if !self.held {
            txn.unlock(self.row, self.mode);
        }
    }
}

/// Locks the row whose version `tid` is, until the transaction ends.
///
/// # Errors
/// As [`update`].
pub fn lock_row(
    ctx: &AccessCtx,
    txn: &mut Transaction,
    rel: &RelHandle,
    snapshot: &Snapshot,
    tid: Tid,
    mode: RowLockMode,
    wait: WaitPolicy,
) -> Result<ChangeResult, AccessError> {
    let mut place = Place::new(rel, tid, mode);
    let r = lock_row_at(ctx, txn, rel, snapshot, tid, mode, wait, &mut place);
    if matches!(r, Ok(ChangeResult::Done { .. })) {
        // The lock stays.
        place.locked = false;
    }
    place.leave(txn);
    r
}

#[expect(clippy::too_many_arguments, reason = "one caller, right above")]
fn lock_row_at(
    ctx: &AccessCtx,
    txn: &Transaction,
    rel: &RelHandle,
    snapshot: &Snapshot,
    tid: Tid,
    mode: RowLockMode,
    wait: WaitPolicy,
    place: &mut Place,
) -> Result<ChangeResult, AccessError> {
    let buffer = ctx.pool.read(rel.file, Fork::Main, tid.block)?;
    let held = txn.holds(&place.row, mode.lock_mode());
    loop {
        // The lock first, then the look: see `LockManager::tuple_locked`.
        if txn.lock(place.row, mode.lock_mode(), WaitPolicy::Skip)? {
            place.locked = !held;
        } else if !place.wait(txn, None, wait)? {
            return Ok(ChangeResult::Skipped);
        }
        let h = header(&buffer.read(), tid.offset).ok_or(AccessError::NoSuchRow { rel: rel.file, tid })?;
        let by = match judge(txn, &h, snapshot.cid())? {
            Verdict::Free => return Ok(ChangeResult::Done { tid, hot: false }),
            Verdict::Invisible => return Err(AccessError::Invisible),
            Verdict::SelfModified { same_command } => return Ok(ChangeResult::SelfModified { same_command }),
            Verdict::Ended { next, by, .. } if next == tid => return Ok(ChangeResult::Deleted { by }),
            // The key is as it was, and that is all that matters: this version may stay locked, with those after it.
            Verdict::Ended { next, by, keys_changed: false } if mode == RowLockMode::KeyShare => {
                match lock_successors(ctx, txn, rel, next, by, mode, wait)? {
                    Successors::Locked => return Ok(ChangeResult::Done { tid, hot: false }),
                    Successors::Busy(by) => by,
                    Successors::Ended => return Ok(ChangeResult::Updated { next, by }),
                    Successors::Skipped => return Ok(ChangeResult::Skipped),
                }
            }
            Verdict::Ended { next, by, .. } => return Ok(ChangeResult::Updated { next, by }),
            Verdict::Busy { by, keys_changed, next } => {
                let theirs = if keys_changed { RowLockMode::Update } else { RowLockMode::NoKeyUpdate };
                if theirs.conflicts_with(mode) {
                    by
                } else {
                    // Compatible: the new version is locked as well, and those after it, so that whoever meets the newest first meets the lock.
                    match lock_successors(ctx, txn, rel, next, by, mode, wait)? {
                        Successors::Locked => return Ok(ChangeResult::Done { tid, hot: false }),
                        Successors::Busy(by) => by,
                        Successors::Ended => continue,
                        Successors::Skipped => return Ok(ChangeResult::Skipped),
                    }
                }
            }
        };
        if !place.wait(txn, Some(by), wait)? {
            return Ok(ChangeResult::Skipped);
        }
    }
}

/// What came of locking the versions that follow one.
enum Successors {
    Locked,
    /// One is being ended by a running transaction, in a way that excludes the lock.
    Busy(Xid),
    /// One was ended so.
    Ended,
    /// One is held by another, and the policy is to skip.
    Skipped,
}

fn lock_successors(
    ctx: &AccessCtx,
    txn: &Transaction,
    rel: &RelHandle,
    mut next: Tid,
    mut by: Xid,
    mode: RowLockMode,
    wait: WaitPolicy,
) -> Result<Successors, AccessError> {
    loop {
        if !txn.lock(row_tag(rel, next), mode.lock_mode(), wait)? {
            return Ok(Successors::Skipped);
        }
        let buffer = ctx.pool.read(rel.file, Fork::Main, next.block)?;
        let Some(h) = header(&buffer.read(), next.offset).filter(|h| h.xmin == by) else { return Ok(Successors::Locked) };
        let mut look = Lookup::new(&ctx.txns);
        if matches!(look.xmin(&h)?, XidStatus::Aborted) {
            return Ok(Successors::Locked);
        }
        let Some(status) = look.xmax(&h)? else { return Ok(Successors::Locked) };
        let theirs = if h.has(mask::KEYS_CHANGED) { RowLockMode::Update } else { RowLockMode::NoKeyUpdate };
        if !txn.owns(h.xmax) && theirs.conflicts_with(mode) {
            return Ok(match status {
                XidStatus::Committed(lsn) if !ctx.txns.is_waiting(lsn) => Successors::Ended,
                XidStatus::Committed(_) | XidStatus::Running | XidStatus::Aborted => Successors::Busy(h.xmax),
            });
        }
        if h.next == next {
            return Ok(Successors::Locked);
        }
        (by, next) = (h.xmax, h.next);
    }
}

/// Overwrites a row where it is, in no transaction: for statistics in catalogs. The length must be the same.
///
/// # Errors
/// `NoSuchRow`; I/O.
pub fn overwrite_in_place(ctx: &AccessCtx, rel: &RelHandle, tid: Tid, row: &[u8]) -> Result<(), AccessError> {
    let buffer = ctx.pool.read(rel.file, Fork::Main, tid.block)?;
    let mut latched = Latched::new(ctx, rel, &buffer)?;
    let fits = latched.page.item(tid.offset).is_some_and(|i| i.len() == HEADER + row.len());
    if !fits || !matches!(latched.page.line(tid.offset), LinePointer::Normal { .. }) {
        return Err(AccessError::NoSuchRow { rel: rel.file, tid });
    }
    let mut record = RecordBuilder::new(rmgr::HEAP, log::INPLACE, Xid::INVALID);
    change_pages(ctx, rel, "overwrite a row", &mut record, &mut [&mut latched], |pages, record| {
        if let Some(i) = pages[0].page.item_mut(tid.offset) {
            i[HEADER..].copy_from_slice(row);
        }
        record.block_parts(rel.file, Fork::Main, tid.block, 0, &[&tid.offset.to_le_bytes(), row]);
    });
    Ok(())
}
