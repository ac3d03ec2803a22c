//! Blocks for new nodes: a deleted node's, if the free space map knows one, else a new one at the end.
//!
//! A descent that holds no latch notices that a link is out of date (see `descend`). One that looks for a parent holds a latch
//! further down, and must never wait for a block that was a parent once and is a leaf now. So a block is reused only when the
//! removal horizon has passed the record that freed it: whoever began before that, with its snapshot registered, is done.

use afterimage_wal::{BlockNo, Fork, Lsn};

use super::descend::ROOT;
use super::node::Node;
use crate::access::{AccessCtx, AccessError, RelHandle};
use crate::storage::{Buffer, OwnedWrite, Page, fsm, fsm::WHOLE_PAGE};

/// Whether a page is free: a node that left the tree, or one that was never a node.
pub(super) fn is_free(page: &Page) -> bool {
    match Node::new(page) {
        Some(node) => node.is_deleted(),
        None => page.special().is_empty() && page.max_offset() == 0,
    }
}

/// A block to write a new node to, latched exclusively. It is linked nowhere.
pub(super) fn new_block(ctx: &AccessCtx, rel: &RelHandle) -> Result<OwnedWrite, AccessError> {
    // A block that is free but too early stays in the map; others are looked for elsewhere in it.
    for spread in [0, usize::MAX, usize::MAX / 3, usize::MAX / 3 * 2] {
        while let Some(block) = fsm::search(&ctx.pool, rel.file, WHOLE_PAGE, spread)? {
            // Only tried: the map is a hint, and waiting for a page of the tree here could be waiting for ourselves.
            let page = if block == ROOT { None } else { ctx.pool.read(rel.file, Fork::Main, block)?.try_write_owned().ok() };
            if let Some(page) = &page
                && is_free(page)
                && page.lsn() > horizon(ctx)
            {
                break;
            }
            fsm::record(&ctx.pool, rel.file, block, 0)?;
            if let Some(page) = page.filter(|p| is_free(p)) {
                return Ok(page);
            }
        }
    }
    loop {
        let page = extend(ctx, rel, 1)?.write_owned();
        // A vacuum may have seen the new block, and another insert taken it, before this one latched it.
        if is_free(&page) {
            return Ok(page);
        }
    }
}

/// Adds blocks; the first of them, pinned.
pub(super) fn extend(ctx: &AccessCtx, rel: &RelHandle, n: u32) -> Result<Buffer, AccessError> {
    Ok(if rel.logged() { ctx.pool.extend(rel.file, Fork::Main, n)? } else { ctx.pool.extend_unlogged(rel.file, Fork::Main, n)? })
}

/// Tells the free space map that a block is free.
pub(super) fn record_free(ctx: &AccessCtx, rel: &RelHandle, block: BlockNo) -> Result<(), AccessError> {
    Ok(fsm::record(&ctx.pool, rel.file, block, WHOLE_PAGE)?)
}

/// What no snapshot needs any more ends here.
pub(super) fn horizon(ctx: &AccessCtx) -> Lsn {
    ctx.txns.horizon()
}

/// Whether this node is a standby.
pub(super) fn in_recovery(ctx: &AccessCtx) -> bool {
    ctx.txns.in_recovery()
}
