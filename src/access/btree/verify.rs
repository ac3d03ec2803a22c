//! Checking a whole index: `bt_index_check`, `afterimage verify`, and our tests.

use afterimage_wal::{BlockNo, Fork};

use super::descend::{ROOT, as_node, damaged, latch_read, sound};
use super::node::{Fence, Item, NO_BLOCK};
use crate::access::{AccessCtx, AccessError, RelHandle, Tid};

/// What a check found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Levels, the leaves' included.
    pub levels: u16,
    /// Nodes in the tree.
    pub nodes: u32,
    /// Leaf entries.
    pub entries: u64,
}

/// Gets each leaf entry of a check.
pub type Visit<'a> = dyn FnMut(&Item<'_>, Tid) -> Result<(), AccessError> + 'a;

/// Walks every level and checks order, fences, links and children; calls `entry` with each leaf entry.
///
/// Inserts may go on meanwhile, a vacuum may not.
///
/// # Errors
/// [`AccessError::Damaged`] names the first thing that is wrong; storage; what `entry` gives.
pub fn verify(ctx: &AccessCtx, rel: &RelHandle, entry: &mut Visit<'_>) -> Result<Verified, AccessError> {
    let mut found = Verified::default();
    let (mut first, mut level) = {
        let page = latch_read(ctx, rel, ROOT)?;
        (ROOT, as_node(rel, ROOT, &page)?.level())
    };
    found.levels = level + 1;
    loop {
        let below = walk_level(ctx, rel, first, level, &mut found, entry)?;
        match (below, level.checked_sub(1)) {
            (Some(block), Some(l)) => (first, level) = (block, l),
            (_, None) => return Ok(found),
            (None, Some(_)) => return Err(damaged(rel, first, "an internal level without children")),
        }
    }
}

/// Checks one level from its leftmost node; returns the leftmost child.
fn walk_level(
    ctx: &AccessCtx,
    rel: &RelHandle,
    first: BlockNo,
    level: u16,
    found: &mut Verified,
    entry: &mut Visit<'_>,
) -> Result<Option<BlockNo>, AccessError> {
    let mut block = first;
    let mut expect = Fence::default();
    let mut leftmost_child = None;
    let mut walked = 0_u32;
    loop {
        if walked > ctx.pool.n_blocks(rel.file, Fork::Main)?.get() {
            return Err(damaged(rel, block, "right links that lead in a circle"));
        }
        walked += 1;
        let mut children: Vec<(BlockNo, Fence)> = Vec::new();
        let next;
        {
            let page = latch_read(ctx, rel, block)?;
            let node = as_node(rel, block, &page)?;
            if node.is_deleted() {
                return Err(damaged(rel, block, "a deleted node is linked"));
            }
            if node.level() != level {
                return Err(damaged(rel, block, "a node of the wrong level"));
            }
            if sound(rel, block, node.low())? != expect.as_ref() {
                return Err(damaged(rel, block, "a low fence that is not the left neighbour's high fence"));
            }
            let mut last: Option<Fence> = None;
            for i in 0..node.count() {
                let at = sound(rel, block, node.fence_of(i))?;
                if last.as_ref().is_some_and(|l| l.as_ref() >= at.as_ref()) {
                    return Err(damaged(rel, block, "entries out of order"));
                }
                if at.as_ref() < expect.as_ref() {
                    return Err(damaged(rel, block, "an entry below the low fence"));
                }
                if !node.is_rightmost() && at.as_ref() >= sound(rel, block, node.high())? {
                    return Err(damaged(rel, block, "an entry at or above the high fence"));
                }
                let e = sound(rel, block, node.entry(i))?;
                if node.is_leaf() {
                    entry(&Item { key: &at.key, carried: e.carried }, Tid::from_u64(e.tid))?;
                    found.entries += 1;
                } else {
                    children.push((e.child, at.clone()));
                }
                last = Some(at);
            }
            if !node.is_leaf() && node.count() == 0 {
                return Err(damaged(rel, block, "an internal node without children"));
            }
            found.nodes += 1;
            let (key, tid) = sound(rel, block, node.high())?;
            expect = Fence::new(key, tid);
            next = node.right();
        }
        if leftmost_child.is_none() {
            leftmost_child = children.first().map(|(c, _)| *c);
        }
        for (child, low) in children {
            let page = latch_read(ctx, rel, child)?;
            let node = as_node(rel, child, &page)?;
            if node.is_deleted() || node.level() + 1 != level || sound(rel, child, node.low())? != low.as_ref() {
                return Err(damaged(rel, child, "a child that is not what its parent says"));
            }
        }
        if next == NO_BLOCK {
            return Ok(leftmost_child);
        }
        block = next;
    }
}
