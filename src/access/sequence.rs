//! Sequences: values logged ahead.
//!
//! A sequence is one page with one item: last value i64, values still covered by the last record i64, called u8. The record holds the
//! state after the values it covers, so the page here runs behind what redo makes of it: a hint, as far as comparing pages goes.

use afterimage_wal::ids::{BlockNo, Fork, Xid};
use afterimage_wal::{Record, RecordBuilder, WalError, record, rmgr};

use crate::access::{AccessCtx, AccessError, Persistence, RelHandle};
use crate::storage::{Buffer, CriticalSection, Page, PageWrite};
use crate::txn::Transaction;

/// A sequence's definition, from `pg_sequence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceOptions {
    /// First value.
    pub start: i64,
    /// Step; not 0.
    pub increment: i64,
    /// Least value.
    pub min: i64,
    /// Greatest value.
    pub max: i64,
    /// Values a session takes at a time; at least 1.
    pub cache: i64,
    /// Start over at the bound.
    pub cycle: bool,
}

/// A sequence's state: what `SELECT * FROM seq` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceState {
    /// Last value handed out, or the next one if not called.
    pub last_value: i64,
    /// Values still covered by the last record.
    pub log_count: i64,
    /// Whether `last_value` was handed out.
    pub is_called: bool,
}

/// Values taken at once: `first`, `first + increment`, ... `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// First of them: what `nextval` returns.
    pub first: i64,
    /// Last of them; a session may hand out the rest by itself.
    pub last: i64,
}

/// Values logged ahead: after a crash or a promotion at most so many are skipped, and a record is written once for so many.
const LOG_AHEAD: i64 = 32;

/// The record: the whole state, as of the last value logged ahead.
const KIND_STATE: u8 = 1;

const ITEM: usize = 17;

impl SequenceState {
    fn encode(&self) -> [u8; ITEM] {
        let mut b = [0; ITEM];
        b[0..8].copy_from_slice(&self.last_value.to_le_bytes());
        b[8..16].copy_from_slice(&self.log_count.to_le_bytes());
        b[16] = u8::from(self.is_called);
        b
    }

    fn decode(b: &[u8]) -> Option<Self> {
        let b: &[u8; ITEM] = b.try_into().ok()?;
        let i64_at = |i: usize| i64::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3], b[i + 4], b[i + 5], b[i + 6], b[i + 7]]);
        Some(Self { last_value: i64_at(0), log_count: i64_at(8), is_called: b[16] != 0 })
    }
}

const BLOCK: BlockNo = BlockNo::new(0);

fn page(ctx: &AccessCtx, rel: &RelHandle) -> Result<Buffer, AccessError> {
    Ok(ctx.pool.read(rel.file, Fork::Main, BLOCK)?)
}

fn state_of(rel: &RelHandle, page: &Page) -> Result<SequenceState, AccessError> {
    let damaged = AccessError::Damaged { rel: rel.file, block: BLOCK, what: "a sequence's page without its row" };
    page.item(1).and_then(SequenceState::decode).ok_or(damaged)
}

fn store(page: &mut Page, state: SequenceState) {
    match page.item_mut(1) {
        Some(item) if item.len() == ITEM => item.copy_from_slice(&state.encode()),
        Some(_) | None => {
            page.init(0);
            page.add_item(&state.encode(), None);
        }
    }
}

/// Hides what may differ between a sequence's page and its replica, which holds the values logged ahead. False: another page.
pub fn mask_page(page: &mut Page) -> bool {
    // No row is as short.
    let is_ours = page.max_offset() == 1 && page.item(1).is_some_and(|item| item.len() == ITEM);
    if is_ours && let Some(item) = page.item_mut(1) {
        item.fill(0);
    }
    is_ours
}

/// Writes `logged` to the WAL and leaves `now` on the page.
fn log(ctx: &AccessCtx, xid: Xid, rel: &RelHandle, buffer: &Buffer, page: &mut PageWrite<'_>, logged: SequenceState, now: SequenceState) {
    CriticalSection::run("advance a sequence", || -> Result<(), WalError> {
        store(page, now);
        if rel.logged() {
            let mut record = RecordBuilder::new(rmgr::SEQUENCE, KIND_STATE, xid);
            record.block(rel.file, Fork::Main, buffer.block(), record::WILL_INIT, &logged.encode());
            page.set_lsn(ctx.wal.insert(&record)?.end);
        }
        Ok(())
    });
}

/// Makes the page of a new sequence, whose relation file exists and is empty.
///
/// # Errors
/// I/O.
pub fn create(ctx: &AccessCtx, txn: &mut Transaction, rel: &RelHandle, state: SequenceState) -> Result<(), AccessError> {
    let xid = txn.xid()?;
    let buffer =
        if rel.logged() { ctx.pool.extend(rel.file, Fork::Main, 1)? } else { ctx.pool.extend_unlogged(rel.file, Fork::Main, 1)? };
    let mut page = buffer.write();
    log(ctx, xid, rel, &buffer, &mut page, state, state);
    if rel.persistence == Persistence::Unlogged {
        ctx.pool.add_init_page(rel.file, &page)?;
    }
    Ok(())
}

/// Takes the next `cache` values, or as many as there are before the bound.
///
/// # Errors
/// `SequenceExhausted`; I/O.
///
/// PostgreSQL: `nextval_internal` in commands/sequence.c.
pub fn take(ctx: &AccessCtx, txn: &mut Transaction, rel: &RelHandle, options: &SequenceOptions) -> Result<Taken, AccessError> {
    let buffer = page(ctx, rel)?;
    loop {
        // Assigned before the latch is taken, and only if this call has to log.
        let xid = txn.top_xid();
        let mut page = buffer.write();
        let state = state_of(rel, &page)?;
        let cache = options.cache.max(1);
        // What is still to be handed out of what the last record covers; a checkpoint since then makes that record useless.
        let covered = if state.is_called && ctx.txns.is_past_redo(page.lsn()) { state.log_count } else { -1 };
        let mut next = state.last_value;
        let (mut first, mut last, mut taken) = (next, next, 0);
        if !state.is_called {
            taken = 1;
        }
        let want = cache - taken;
        let must_log = rel.logged() && covered < want;
        if must_log && xid.is_none() {
            drop(page);
            // With an xid the transaction's end waits until the record is durable.
            txn.xid()?;
            continue;
        }
        let mut fetch = if covered < want { want + LOG_AHEAD } else { want };
        let mut log_count = if covered < want { fetch } else { covered };
        while fetch > 0 {
            match step(next, options) {
                Some(n) => next = n,
                None if taken > 0 => break,
                None if options.cycle => next = if options.increment > 0 { options.min } else { options.max },
                None => {
                    let up = options.increment > 0;
                    return Err(AccessError::SequenceExhausted { max: up, bound: if up { options.max } else { options.min } });
                }
            }
            fetch -= 1;
            if taken < cache {
                log_count -= 1;
                taken += 1;
                last = next;
                if taken == 1 {
                    first = next;
                }
            }
        }
        log_count -= fetch;
        let now = SequenceState { last_value: last, log_count, is_called: true };
        if covered < want {
            let ahead = SequenceState { last_value: next, log_count: 0, is_called: true };
            log(ctx, xid.unwrap_or(Xid::INVALID), rel, &buffer, &mut page, ahead, now);
        } else {
            store(&mut page, now);
        }
        return Ok(Taken { first, last });
    }
}

/// The value after `v`, unless it passes the bound.
fn step(v: i64, o: &SequenceOptions) -> Option<i64> {
    v.checked_add(o.increment).filter(|n| if o.increment > 0 { *n <= o.max } else { *n >= o.min })
}

/// `setval`. Not undone by a rollback.
///
/// # Errors
/// I/O.
pub fn set(ctx: &AccessCtx, txn: &mut Transaction, rel: &RelHandle, state: SequenceState) -> Result<(), AccessError> {
    let xid = txn.xid()?;
    let buffer = page(ctx, rel)?;
    let state = SequenceState { log_count: 0, ..state };
    log(ctx, xid, rel, &buffer, &mut buffer.write(), state, state);
    Ok(())
}

/// The state now.
///
/// # Errors
/// I/O.
pub fn read(ctx: &AccessCtx, rel: &RelHandle) -> Result<SequenceState, AccessError> {
    state_of(rel, &page(ctx, rel)?.read())
}

/// Applies a record of resource manager `SEQUENCE`.
///
/// # Errors
/// `BadRecord` if it does not decode; I/O.
pub fn redo(ctx: &AccessCtx, record: &Record<'_>) -> Result<(), AccessError> {
    let bad = |what| AccessError::BadRecord { at: record.end(), what };
    if record.kind() != KIND_STATE {
        return Err(bad("unknown sequence record"));
    }
    ctx.pool.redo_block(record, 0, |page, data| {
        let state = SequenceState::decode(data).ok_or(bad("sequence state"))?;
        page.init(0);
        store(page, state);
        Ok::<(), AccessError>(())
    })?;
    Ok(())
}

/// Shows sequence records in `waldump`.
#[derive(Debug)]
pub struct DescribeSequence;

impl rmgr::Describe for DescribeSequence {
    fn kind_name(&self, kind: u8) -> Option<&'static str> {
        (kind == KIND_STATE).then_some("LOG")
    }

    fn describe(&self, record: &Record<'_>, out: &mut dyn std::fmt::Write) -> std::fmt::Result {
        match record.block(0).and_then(|b| SequenceState::decode(b.data)) {
            Some(s) => write!(out, "last_value {}, is_called {}", s.last_value, s.is_called),
            None => write!(out, "does not decode"),
        }
    }
}
