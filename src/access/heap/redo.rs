//! Redo of heap records; the writers are in `change.rs`, `prune.rs` and `vacuum.rs`, the formats in `log.rs`.

use afterimage_wal::ids::{BlockNo, Fork, Lsn, RelId, Xid};
use afterimage_wal::{Record, rmgr};

use super::log::{self, KEYS_CHANGED, PREFIX, SAME_PAGE, SUFFIX, UPDATE_HOT};
use super::prune::Plan;
use super::rewrite::{apply_links, links};
use super::tuple::{HEADER, Header, header, mask, put_end};
use super::vacuum::{apply_freeze, apply_unused};
use crate::access::{AccessCtx, AccessError, Tid};
use crate::storage::page::FLAG_ALL_VISIBLE;
use crate::storage::{Page, fsm, vm};
use crate::txn::LockTag;

/// Applies a record of resource manager `HEAP`.
///
/// # Errors
/// `BadRecord` if it does not decode or does not fit its page; I/O.
pub fn redo(ctx: &AccessCtx, record: &Record<'_>) -> Result<(), AccessError> {
    let bad = |what| AccessError::BadRecord { at: record.end(), what };
    let xid = record.xid();
    let place = |i: usize| record.block(i).map(|b| b.block).ok_or(bad("heap block missing"));
    if record.kind() == log::REMOVED {
        // Of use to a standby's queries only, which it waited for.
        return Ok(());
    }
    let block = place(0)?;
    match record.kind() {
        log::INSERT => {
            ctx.pool.redo_block(record, 0, |page, data| {
                let (off, row) = split_off(data).ok_or(bad("insert"))?;
                add(page, block, off, xid, 0, row).ok_or(bad("insert does not fit"))
            })?;
        }
        log::MULTI_INSERT => {
            let frozen = record.main().first().is_some_and(|f| f & log::FROZEN != 0);
            let bits = if frozen { mask::FROZEN } else { 0 };
            ctx.pool.redo_block(record, 0, |page, data| {
                let (mut off, mut rest) = split_off(data).ok_or(bad("multi-insert"))?;
                while !rest.is_empty() {
                    let (len, tail) = split_off(rest).ok_or(bad("multi-insert"))?;
                    let (row, tail) = tail.split_at_checked(usize::from(len)).ok_or(bad("multi-insert"))?;
                    add(page, block, off, xid, bits, row).ok_or(bad("multi-insert does not fit"))?;
                    off = off.checked_add(1).ok_or(bad("multi-insert"))?;
                    rest = tail;
                }
                Ok::<(), AccessError>(())
            })?;
        }
        log::UPDATE => update(ctx, record, block, xid)?,
        log::DELETE => {
            let keys = record.main().first().is_some_and(|f| f & KEYS_CHANGED != 0);
            ctx.pool.redo_block(record, 0, |page, data| {
                let (off, _) = split_off(data).ok_or(bad("delete"))?;
                end(page, off, xid, Tid::new(block, off), keys, false).ok_or(bad("delete of nothing"))
            })?;
        }
        log::PRUNE => {
            let horizon = conflict_horizon(record).ok_or(bad("prune without horizon"))?;
            ctx.pool.redo_block(record, 0, |page, data| {
                Plan::decode(data, horizon).ok_or(bad("prune"))?.apply(page);
                Ok::<(), AccessError>(())
            })?;
        }
        log::VACUUM => {
            ctx.pool.redo_block(record, 0, |page, data| {
                apply_unused(page, &offs(data).ok_or(bad("vacuum"))?);
                Ok::<(), AccessError>(())
            })?;
        }
        log::FREEZE => {
            ctx.pool.redo_block(record, 0, |page, data| {
                apply_freeze(page, &offs(data).ok_or(bad("freeze"))?);
                Ok::<(), AccessError>(())
            })?;
        }
        log::INPLACE => {
            ctx.pool.redo_block(record, 0, |page, data| {
                let (off, row) = split_off(data).ok_or(bad("overwrite"))?;
                let item = page.item_mut(off).and_then(|i| i.get_mut(HEADER..)).ok_or(bad("overwrite of nothing"))?;
                if item.len() != row.len() {
                    return Err(bad("overwrite of another length"));
                }
                item.copy_from_slice(row);
                Ok::<(), AccessError>(())
            })?;
        }
        log::LINK => {
            ctx.pool
                .redo_block(record, 0, |page, data| apply_links(page, &links(data).ok_or(bad("links"))?).ok_or(bad("link of nothing")))?;
        }
        log::VISIBLE => {
            ctx.pool.redo_block(record, 0, |page, _| {
                page.set_flag(FLAG_ALL_VISIBLE, true);
                Ok::<(), AccessError>(())
            })?;
            ctx.pool.redo_block(record, 1, |page, data| {
                vm::set(page, block, data.first().copied().unwrap_or(vm::VISIBLE));
                Ok::<(), AccessError>(())
            })?;
            return remember_room(ctx, record, block);
        }
        _ => return Err(bad("unknown heap record")),
    }
    // Map pages whose bits the change cleared.
    for (i, b) in record.blocks().iter().enumerate().filter(|(_, b)| b.fork == Fork::Vm) {
        let bits = b.data.first().copied().ok_or(bad("map bits"))?;
        let mut heap: [Option<BlockNo>; 2] = [None; 2];
        for (n, h) in heap.iter_mut().enumerate() {
            if bits & (1 << n) != 0 {
                *h = Some(place(n)?);
            }
        }
        ctx.pool.redo_block(record, i, |page, _| {
            heap.iter().flatten().for_each(|h| vm::clear(page, *h));
            Ok::<(), AccessError>(())
        })?;
    }
    Ok(())
}

/// Tells the free space map what room a page has that vacuum now leaves alone: the map is not logged, and no later vacuum would look at the page.
fn remember_room(ctx: &AccessCtx, record: &Record<'_>, block: BlockNo) -> Result<(), AccessError> {
    // Not there: it is missing, and explained by what comes later.
    let Some(buffer) = record.block(0).and_then(|b| ctx.pool.read_if_cached(b.rel, Fork::Main, block)) else { return Ok(()) };
    let free = buffer.read().raw_free_space();
    fsm::record(&ctx.pool, buffer.tag().rel, block, free)?;
    Ok(())
}

fn update(ctx: &AccessCtx, record: &Record<'_>, block: BlockNo, xid: Xid) -> Result<(), AccessError> {
    let bad = |what| AccessError::BadRecord { at: record.end(), what };
    let data = record.block(0).ok_or(bad("update"))?.data;
    let (flags, rest) = data.split_first().ok_or(bad("update"))?;
    let (new_off, rest) = split_off(rest).ok_or(bad("update"))?;
    let has = |f: u8| flags & f != 0;
    let bits = mask::UPDATED | if has(UPDATE_HOT) { mask::HEAP_ONLY } else { 0 };
    let next = Tid::new(block, new_off);
    if !has(SAME_PAGE) {
        ctx.pool.redo_block(record, 0, |page, _| add(page, block, new_off, xid, bits, rest).ok_or(bad("update does not fit")))?;
        let old_off = record.block(1).and_then(|b| split_off(b.data)).ok_or(bad("update"))?.0;
        ctx.pool
            .redo_block(record, 1, |page, _| end(page, old_off, xid, next, has(KEYS_CHANGED), false).ok_or(bad("update of nothing")))?;
        if let (Some(new), Some(old)) = (record.block(0), record.block(1)) {
            carry(ctx, new.rel, Tid::new(old.block, old_off), next);
        }
        return Ok(());
    }
    let (old_off, mut rest) = split_off(rest).ok_or(bad("update"))?;
    let mut number = |want: bool| -> Option<usize> {
        if !want {
            return Some(0);
        }
        let (n, r) = split_off(rest)?;
        rest = r;
        Some(usize::from(n))
    };
    let prefix = number(has(PREFIX)).ok_or(bad("update"))?;
    let suffix = number(has(SUFFIX)).ok_or(bad("update"))?;
    ctx.pool.redo_block(record, 0, |page, _| {
        let old = page.item(old_off).and_then(|i| i.get(HEADER..)).ok_or(bad("update of nothing"))?;
        let mut row = Vec::with_capacity(prefix + rest.len() + suffix);
        row.extend_from_slice(old.get(..prefix).ok_or(bad("update prefix"))?);
        row.extend_from_slice(rest);
        let tail = old.len().checked_sub(suffix).ok_or(bad("update suffix"))?;
        row.extend_from_slice(&old[tail..]);
        add(page, block, new_off, xid, bits, &row).ok_or(bad("update does not fit"))?;
        end(page, old_off, xid, next, has(KEYS_CHANGED), has(UPDATE_HOT)).ok_or(bad("update of nothing"))
    })?;
    if let Some(b) = record.block(0) {
        carry(ctx, b.rel, Tid::new(block, old_off), next);
    }
    Ok(())
}

/// Prepared transactions that share the row share its new version too.
fn carry(ctx: &AccessCtx, rel: RelId, from: Tid, to: Tid) {
    let tag = |t: Tid| LockTag::Tuple { rel, block: t.block, offset: t.offset };
    ctx.locks.carry_in_redo(&tag(from), tag(to));
}

fn add(page: &mut Page, block: BlockNo, off: u16, xid: Xid, bits: u16, row: &[u8]) -> Option<()> {
    page.set_flag(FLAG_ALL_VISIBLE, false);
    page.add_parts(&Header::new(xid, Tid::new(block, off), bits, 0).encode(), row, Some(off)).map(|_| ())
}

fn end(page: &mut Page, off: u16, xid: Xid, next: Tid, keys: bool, hot: bool) -> Option<()> {
    page.set_flag(FLAG_ALL_VISIBLE, false);
    let mut h = header(page, off)?;
    h.end(xid, next, keys, hot);
    h.cid = 0;
    put_end(page, off, &h);
    Some(())
}

fn split_off(d: &[u8]) -> Option<(u16, &[u8])> {
    let (b, rest) = d.split_first_chunk::<2>()?;
    Some((u16::from_le_bytes(*b), rest))
}

fn offs(d: &[u8]) -> Option<Vec<u16>> {
    let (words, rest) = d.as_chunks::<2>();
    rest.is_empty().then(|| words.iter().map(|b| u16::from_le_bytes(*b)).collect())
}

/// The horizon a record carries: it is applied only once every snapshot here is at or above it. `None`: it removes nothing.
pub fn conflict_horizon(record: &Record<'_>) -> Option<Lsn> {
    if record.rmgr() != rmgr::HEAP || !matches!(record.kind(), log::PRUNE | log::VISIBLE) {
        return None;
    }
    Some(Lsn::from_le_bytes(*record.main().first_chunk()?))
}

/// The pages a record cleans up: rows in them move, and their places are given to others. PostgreSQL asks for a cleanup lock then.
pub fn cleaned_pages(record: &Record<'_>) -> Vec<(RelId, BlockNo)> {
    if record.kind() != log::PRUNE {
        return Vec::new();
    }
    record.blocks().iter().map(|b| (b.rel, b.block)).collect()
}

/// Of a record that freezes, or tells of versions that were frozen or left out: the newest xid that nobody is asked about any more, and the horizon
/// that goes for it where that xid is not settled.
pub fn freeze_horizon(record: &Record<'_>) -> Option<(Xid, Lsn)> {
    if record.rmgr() != rmgr::HEAP || !matches!(record.kind(), log::FREEZE | log::REMOVED) {
        return None;
    }
    let (xid, rest) = record.main().split_first_chunk()?;
    Some((Xid::from_le_bytes(*xid), Lsn::from_le_bytes(*rest.first_chunk()?)))
}

/// Shows heap records in `waldump`.
#[derive(Debug)]
pub struct DescribeHeap;

impl rmgr::Describe for DescribeHeap {
    fn kind_name(&self, kind: u8) -> Option<&'static str> {
        Some(match kind {
            log::INSERT => "INSERT",
            log::MULTI_INSERT => "MULTI_INSERT",
            log::UPDATE => "UPDATE",
            log::DELETE => "DELETE",
            log::PRUNE => "PRUNE",
            log::VACUUM => "VACUUM",
            log::VISIBLE => "VISIBLE",
            log::FREEZE => "FREEZE",
            log::INPLACE => "INPLACE",
            log::LINK => "LINK",
            log::REMOVED => "REMOVED",
            _ => return None,
        })
    }

    fn describe(&self, record: &Record<'_>, out: &mut dyn std::fmt::Write) -> std::fmt::Result {
        let data = record.block(0).map_or(&[][..], |b| b.data);
        match record.kind() {
            log::INSERT | log::DELETE | log::INPLACE | log::MULTI_INSERT => match split_off(data) {
                Some((off, _)) => write!(out, "off {off}"),
                None => write!(out, "does not decode"),
            },
            log::UPDATE => match data.split_first().and_then(|(f, r)| Some((*f, split_off(r)?))) {
                Some((flags, (off, rest))) => {
                    let old = if flags & SAME_PAGE != 0 {
                        split_off(rest).map(|r| r.0)
                    } else {
                        record.block(1).and_then(|b| split_off(b.data)).map(|r| r.0)
                    };
                    write!(out, "old_off {}, new_off {off}", old.unwrap_or(0))?;
                    if flags & UPDATE_HOT != 0 { write!(out, ", hot") } else { Ok(()) }
                }
                None => write!(out, "does not decode"),
            },
            log::PRUNE => match (conflict_horizon(record), Plan::decode(data, Lsn::INVALID)) {
                (Some(h), Some(p)) => {
                    write!(out, "horizon {h}, nredirected {}, ndead {}, nunused {}", p.redirect.len(), p.dead.len(), p.unused.len())
                }
                _ => write!(out, "does not decode"),
            },
            log::VISIBLE => write!(out, "horizon {}", conflict_horizon(record).unwrap_or(Lsn::INVALID)),
            log::LINK => write!(out, "noffsets {}", data.len() / 8),
            log::REMOVED => match freeze_horizon(record) {
                Some((xid, horizon)) => write!(out, "newest_xid {xid}, horizon {horizon}"),
                None => write!(out, "does not decode"),
            },
            log::VACUUM | log::FREEZE => write!(out, "noffsets {}", data.len() / 2),
            _ => Ok(()),
        }
    }
}
