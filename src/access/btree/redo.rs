//! Redo of B-tree records. Each block is changed as the writer changed it, by the same functions of `node`.
//!
//! Blocks are done in the order the record lists them, one latch at a time; see `record` for why that is enough for readers.

use afterimage_wal::{BlockNo, Lsn, Record, rmgr};

use super::node::{self, Fence};
use super::record::{DELETE, INSERT_INTERNAL, INSERT_LEAF, MERGE_LEFT, MERGE_RIGHT, PAGES, ROOT_SPLIT, SPLIT, take_u16, take_u32};
use crate::access::{AccessCtx, AccessError};
use crate::storage::{BufferPool, Page};

fn bad(record: &Record<'_>, what: &'static str) -> AccessError {
    AccessError::BadRecord { at: record.end(), what }
}

/// The horizon a record carries: it is applied only once every snapshot here is at or above it. `None`: it removes nothing.
pub fn conflict_horizon(record: &Record<'_>) -> Option<Lsn> {
    if record.rmgr() != rmgr::BTREE || record.kind() != DELETE {
        return None;
    }
    Some(Lsn::from_le_bytes(*record.main().first_chunk()?))
}

/// Applies a B-tree record to the pages that do not have it yet.
///
/// # Errors
/// [`AccessError::BadRecord`] if it does not decode or does not fit its page; storage.
pub fn redo(ctx: &AccessCtx, record: &Record<'_>) -> Result<(), AccessError> {
    let pool = &*ctx.pool;
    match record.kind() {
        INSERT_LEAF => block(pool, record, 0, insert),
        INSERT_INTERNAL => {
            block(pool, record, 0, insert)?;
            block(pool, record, 1, |page, _| {
                node::clear_incomplete(page);
                Some(())
            })
        }
        SPLIT => {
            // The new node first, so that the left one's link leads somewhere.
            block(pool, record, 1, |page, data| node::unpack(page, data).then_some(()))?;
            let right = record.block(1).map(|b| b.block).ok_or_else(|| bad(record, "a split without its right node"))?;
            block(pool, record, 0, |page, data| {
                let (stay, fence) = take_u16(data)?;
                let image = node::split_left(page, stay, &Fence::decode(fence)?, right)?;
                node::replace(page, &image);
                Some(())
            })
        }
        ROOT_SPLIT | PAGES => {
            for i in 0..record.blocks().len() {
                block(pool, record, i, |page, data| node::unpack(page, data).then_some(()))?;
            }
            Ok(())
        }
        DELETE => block(pool, record, 0, |page, data| {
            let entries: Vec<u16> = data.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
            node::remove_entries(page, &entries);
            Some(())
        }),
        MERGE_RIGHT => {
            block(pool, record, 0, |page, data| {
                let (moved, low) = take_children(data)?;
                let image = node::widen_left(page, &Fence::decode(low)?, &moved)?;
                node::replace(page, &image);
                Some(())
            })?;
            block(pool, record, 1, |page, data| {
                let image = node::remove_child(page, take_u16(data)?.0, true)?;
                node::replace(page, &image);
                Some(())
            })?;
            block(pool, record, 2, delete)?;
            if record.block(3).is_some() {
                block(pool, record, 3, |page, data| {
                    node::set_right(page, BlockNo::new(take_u32(data)?.0));
                    Some(())
                })?;
            }
            Ok(())
        }
        MERGE_LEFT => {
            block(pool, record, 0, |page, data| {
                let (right, rest) = take_u32(data)?;
                let (moved, high) = take_children(rest)?;
                let image = node::widen_right(page, &Fence::decode(high)?, BlockNo::new(right), &moved)?;
                node::replace(page, &image);
                Some(())
            })?;
            block(pool, record, 1, |page, data| {
                let image = node::remove_child(page, take_u16(data)?.0, false)?;
                node::replace(page, &image);
                Some(())
            })?;
            block(pool, record, 2, delete)
        }
        _ => Err(bad(record, "unknown kind of btree record")),
    }
}

fn insert(page: &mut Page, data: &[u8]) -> Option<()> {
    let (at, item) = take_u16(data)?;
    node::insert_entry(page, at, item).then_some(())
}

fn delete(page: &mut Page, _data: &[u8]) -> Option<()> {
    let image = node::deleted_node(page)?;
    node::replace(page, &image);
    Some(())
}

fn take_children(data: &[u8]) -> Option<(Vec<BlockNo>, &[u8])> {
    let (count, mut rest) = take_u16(data)?;
    let mut children = Vec::new();
    for _ in 0..count {
        let (child, r) = take_u32(rest)?;
        children.push(BlockNo::new(child));
        rest = r;
    }
    Some((children, rest))
}

fn block(
    pool: &BufferPool,
    record: &Record<'_>,
    index: usize,
    change: impl FnOnce(&mut Page, &[u8]) -> Option<()>,
) -> Result<(), AccessError> {
    pool.redo_block(record, index, |page, data| change(page, data).ok_or_else(|| bad(record, "does not fit its page"))).map(|_applied| ())
}
