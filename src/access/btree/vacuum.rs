//! Taking entries and nodes out of the tree.
//!
//! Entries of dead rows leave in two ways: vacuum walks the leaves and asks about each tid; an insert that finds its leaf full first
//! removes entries that scans have marked killed. A node that holds no entry any more (a leaf), or one child only (an internal
//! node), is merged into a neighbour with the same parent: the neighbour's range widens over it, and it leaves the tree. One
//! record changes all nodes concerned.

use afterimage_wal::{BlockNo, Fork, Lsn, RecordBuilder, Xid, rmgr};

use super::alloc::{horizon, is_free, record_free};
use super::descend::{Path, ROOT, Target, as_node, find_read, find_write, latch_read, latch_write, sound};
use super::insert::{find_parent, finish_split, log_pages};
use super::node::{self, Fence, ItemBuf, NO_BLOCK, Node};
use super::record::{DELETE, MERGE_LEFT, MERGE_RIGHT};
use crate::access::{AccessCtx, AccessError, RelHandle, Tid};
use crate::storage::{CriticalSection, OwnedWrite};

/// What a vacuum of an index did and found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VacuumStats {
    /// Entries left.
    pub entries: u64,
    /// Entries removed.
    pub removed: u64,
    /// Nodes that left the tree now.
    pub pages_deleted: u32,
    /// Blocks that are free, these included.
    pub pages_free: u32,
    /// Blocks in all.
    pub pages: u32,
}

/// Removes the entries whose row `is_dead`, and nodes that become empty.
///
/// The caller is the only vacuum of this index, and `is_dead` says yes only for rows that no snapshot here can see and that `horizon`
/// covers. Returns when no scan that keeps its leaf pinned can hold one of the removed entries.
///
/// # Errors
/// Storage, WAL, a damaged index, and what `check` gives (called once per leaf: cancel, cost delay).
pub fn vacuum(
    ctx: &AccessCtx,
    rel: &RelHandle,
    horizon: Lsn,
    is_dead: &mut dyn FnMut(Tid) -> bool,
    check: &mut dyn FnMut() -> Result<(), AccessError>,
) -> Result<VacuumStats, AccessError> {
    let mut stats = VacuumStats::default();
    let mut emptied: Vec<Fence> = Vec::new();
    let mut leaves = Blocks::default();
    let mut dead: Vec<u16> = Vec::new();
    let mut block = find_read(ctx, rel, Target::At((&[], 0)), 0)?.buffer().block();
    loop {
        check()?;
        let buffer = ctx.pool.read(rel.file, Fork::Main, block)?;
        let mut page = buffer.write_cleanup_owned();
        leaves.add(block);
        dead.clear();
        let (count, low, mut next) = {
            let node = as_node(rel, block, &page)?;
            if !node.is_leaf() {
                // A leaf that was the root: the root split since. Its entries are to the right of its first leaf.
                drop(page);
                block = find_read(ctx, rel, Target::At((&[], 0)), 0)?.buffer().block();
                continue;
            }
            for i in 0..node.count() {
                if is_dead(Tid::from_u64(sound(rel, block, node.entry(i))?.tid)) {
                    dead.push(i);
                }
            }
            let (key, tid) = sound(rel, block, node.low())?;
            (node.count(), Fence::new(key, tid), node.right())
        };
        remove(ctx, rel, &mut page, &dead, horizon)?;
        let removed = u64::try_from(dead.len()).unwrap_or(u64::MAX);
        stats.removed += removed;
        stats.entries += u64::from(count) - removed;
        if u64::from(count) == removed {
            emptied.push(low);
        }
        if block == ROOT {
            next = NO_BLOCK;
        }
        drop(page);
        if next == NO_BLOCK {
            break;
        }
        block = next;
    }
    for low in emptied {
        check()?;
        let (nodes, leaf) = delete_empty(ctx, rel, &low)?;
        stats.pages_deleted += nodes;
        stats.pages_free += u32::from(leaf);
    }
    stats.pages = ctx.pool.n_blocks(rel.file, Fork::Main)?.get();
    stats.pages_free += collect_free(ctx, rel, stats.pages, &leaves, check)?;
    Ok(stats)
}

/// Counts entries without removing any, for `ANALYZE` and checks of vacuum's result.
///
/// # Errors
/// Storage; a damaged index.
pub fn count_entries(ctx: &AccessCtx, rel: &RelHandle) -> Result<u64, AccessError> {
    let mut page = find_read(ctx, rel, Target::At((&[], 0)), 0)?;
    let mut entries = 0;
    loop {
        let block = page.buffer().block();
        let node = as_node(rel, block, &page)?;
        entries += u64::from(node.count());
        let next = node.right();
        if next == NO_BLOCK {
            return Ok(entries);
        }
        page = latch_read(ctx, rel, next)?;
    }
}

/// Removes entries `dead` (ascending) and logs it.
fn remove(ctx: &AccessCtx, rel: &RelHandle, page: &mut OwnedWrite, dead: &[u16], horizon: Lsn) -> Result<(), AccessError> {
    if dead.is_empty() {
        return Ok(());
    }
    let block = page.buffer().block();
    let data: Vec<u8> = dead.iter().flat_map(|i| i.to_le_bytes()).collect();
    let mut record = RecordBuilder::new(rmgr::BTREE, DELETE, Xid::INVALID);
    record.block(rel.file, Fork::Main, block, 0, &data).main(&horizon.to_le_bytes());
    CriticalSection::run("delete from a btree leaf", || -> Result<(), AccessError> {
        node::remove_entries(page, dead);
        log_pages(ctx, rel, &record, &mut [page])
    });
    Ok(())
}

/// Removes entries marked killed from a full leaf. True if there were some.
pub(super) fn remove_killed(ctx: &AccessCtx, rel: &RelHandle, page: &mut OwnedWrite) -> Result<bool, AccessError> {
    let block = page.buffer().block();
    let mut killed = Vec::new();
    {
        let node = as_node(rel, block, page)?;
        for i in 0..node.count() {
            if sound(rel, block, node.entry(i))?.killed {
                killed.push(i);
            }
        }
    }
    remove(ctx, rel, page, &killed, horizon(ctx))?;
    Ok(!killed.is_empty())
}

/// Takes the empty leaf that begins at `low` out of the tree, if it is still there and empty. Returns how many nodes left, and
/// whether the leaf did.
fn delete_empty(ctx: &AccessCtx, rel: &RelHandle, low: &Fence) -> Result<(u32, bool), AccessError> {
    let mut deleted = 0;
    let mut level = 0;
    // An only child cannot be merged with a sibling: then its parent goes first, up to the root, and we come back.
    loop {
        match merge_one(ctx, rel, low, level)? {
            Merge::Done => {
                deleted += 1;
                if level == 0 {
                    return Ok((deleted, true));
                }
                level = 0;
            }
            Merge::OnlyChild => level += 1,
            Merge::No => return Ok((deleted, false)),
        }
    }
}

enum Merge {
    Done,
    OnlyChild,
    No,
}

/// Merges the node of `level` that covers `low` into a neighbour, if it is nearly empty.
fn merge_one(ctx: &AccessCtx, rel: &RelHandle, low: &Fence, level: u16) -> Result<Merge, AccessError> {
    // Everything is latched left to right, then upwards: left neighbour, node, right neighbour, parent.
    let mut path = Path::new();
    let start = {
        let page = find_read(ctx, rel, Target::At(low.as_ref()), level)?;
        let block = page.buffer().block();
        if block == ROOT {
            return Ok(Merge::No);
        }
        let node = as_node(rel, block, &page)?;
        let (key, tid) = sound(rel, block, node.low())?;
        Fence::new(key, tid)
    };
    let leftmost = start.key.is_empty() && start.tid == 0;
    let (left, this) = if leftmost {
        (None, find_write(ctx, rel, Target::At(start.as_ref()), level, &mut path)?)
    } else {
        let left = find_write(ctx, rel, Target::Before(start.as_ref()), level, &mut path)?;
        let next = as_node(rel, left.buffer().block(), &left)?.right();
        if next == NO_BLOCK {
            return Ok(Merge::No);
        }
        let this = latch_write(ctx, rel, next)?;
        (Some(left), this)
    };
    if Node::new(&this).and_then(|n| n.low().map(|low| low == start.as_ref())) != Some(true) {
        return Ok(Merge::No);
    }
    merge_latched(ctx, rel, left, this, level, &path)
}

fn merge_latched(
    ctx: &AccessCtx,
    rel: &RelHandle,
    mut left: Option<OwnedWrite>,
    mut this: OwnedWrite,
    level: u16,
    path: &Path,
) -> Result<Merge, AccessError> {
    let block = this.buffer().block();
    if block == ROOT {
        return Ok(Merge::No);
    }
    for page in left.iter_mut().chain(std::iter::once(&mut this)) {
        let at = page.buffer().block();
        if as_node(rel, at, page)?.is_incomplete() {
            finish_split(ctx, rel, page, path)?;
        }
    }
    let (low, high, right_block, children) = {
        let node = as_node(rel, block, &this)?;
        let allowed = if level == 0 { 0 } else { 1 };
        if node.is_deleted() || node.level() != level || node.count() > allowed {
            return Ok(Merge::No);
        }
        let mut children: Vec<BlockNo> = Vec::new();
        for i in 0..node.count() {
            children.push(sound(rel, block, node.entry(i))?.child);
        }
        let (low, high) = (sound(rel, block, node.low())?, sound(rel, block, node.high())?);
        (Fence::new(low.0, low.1), Fence::new(high.0, high.1), node.right(), children)
    };
    let right = if right_block == NO_BLOCK { None } else { Some(latch_write(ctx, rel, right_block)?) };
    let mut parent_path = path.clone();
    let mut parent = find_parent(ctx, rel, low.as_ref(), level + 1, &mut parent_path)?;
    let parent_block = parent.buffer().block();
    let (at, last) = {
        let node = as_node(rel, parent_block, &parent)?;
        let at = sound(rel, parent_block, node.child_index(low.as_ref()))?;
        if sound(rel, parent_block, node.entry(at))?.child != block {
            // Its own split is not finished in the parent: the left neighbour's mark was handled above, so this is damage.
            return Err(super::descend::damaged(rel, parent_block, "a node its parent does not know"));
        }
        (at, at + 1 >= node.count())
    };
    if let (Some(mut right), false) = (right, last) {
        let Some(wide) = node::widen_left(&right, &low, &children) else { return Ok(Merge::No) };
        let parent_image = sound(rel, parent_block, node::remove_child(&parent, at, true))?;
        let gone = sound(rel, block, node::deleted_node(&this))?;
        let mut data = ItemBuf::from_slice(&u16::try_from(children.len()).unwrap_or(0).to_le_bytes());
        data.extend(children.iter().flat_map(|c| c.to_le_bytes()));
        low.encode(&mut data);
        let mut record = RecordBuilder::new(rmgr::BTREE, MERGE_RIGHT, Xid::INVALID);
        record.block(rel.file, Fork::Main, right_block, 0, &data).block(rel.file, Fork::Main, parent_block, 0, &at.to_le_bytes()).block(
            rel.file,
            Fork::Main,
            block,
            0,
            &[],
        );
        if let Some(left) = &left {
            record.block(rel.file, Fork::Main, left.buffer().block(), 0, &right_block.to_le_bytes());
        }
        CriticalSection::run("delete a btree node", || -> Result<(), AccessError> {
            node::replace(&mut right, &wide);
            node::replace(&mut parent, &parent_image);
            node::replace(&mut this, &gone);
            match &mut left {
                Some(left) => {
                    node::set_right(left, right_block);
                    log_pages(ctx, rel, &record, &mut [&mut right, &mut parent, &mut this, left])
                }
                None => log_pages(ctx, rel, &record, &mut [&mut right, &mut parent, &mut this]),
            }
        });
    } else if let (Some(mut left), true) = (left, at > 0) {
        let Some(wide) = node::widen_right(&left, &high, right_block, &children) else { return Ok(Merge::No) };
        let parent_image = sound(rel, parent_block, node::remove_child(&parent, at, false))?;
        let gone = sound(rel, block, node::deleted_node(&this))?;
        let mut data = ItemBuf::from_slice(&right_block.to_le_bytes());
        data.extend(u16::try_from(children.len()).unwrap_or(0).to_le_bytes());
        data.extend(children.iter().flat_map(|c| c.to_le_bytes()));
        high.encode(&mut data);
        let mut record = RecordBuilder::new(rmgr::BTREE, MERGE_LEFT, Xid::INVALID);
        record
            .block(rel.file, Fork::Main, left.buffer().block(), 0, &data)
            .block(rel.file, Fork::Main, parent_block, 0, &at.to_le_bytes())
            .block(rel.file, Fork::Main, block, 0, &[]);
        CriticalSection::run("delete a btree node", || -> Result<(), AccessError> {
            node::replace(&mut left, &wide);
            node::replace(&mut parent, &parent_image);
            node::replace(&mut this, &gone);
            log_pages(ctx, rel, &record, &mut [&mut left, &mut parent, &mut this])
        });
    } else {
        // The only child. The root as parent keeps it: a tree is never empty of nodes.
        return Ok(if parent_block == ROOT { Merge::No } else { Merge::OnlyChild });
    }
    if !rel.logged() {
        this.set_lsn(ctx.wal.inserted());
    }
    drop(this);
    record_free(ctx, rel, block)?;
    Ok(Merge::Done)
}

/// A set of blocks, a bit each.
#[derive(Default)]
struct Blocks(Vec<u64>);

impl Blocks {
    fn place(block: BlockNo) -> (usize, u64) {
        (usize::try_from(block.get() / 64).unwrap_or(usize::MAX), 1 << (block.get() % 64))
    }

    fn add(&mut self, block: BlockNo) {
        let (word, bit) = Self::place(block);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= bit;
    }

    fn has(&self, block: BlockNo) -> bool {
        let (word, bit) = Self::place(block);
        self.0.get(word).is_some_and(|w| w & bit != 0)
    }
}

/// Tells the free space map about free blocks it may have forgotten; returns how many there are. Blocks that were leaves in this
/// vacuum need no look: those that left the tree were recorded then.
fn collect_free(
    ctx: &AccessCtx,
    rel: &RelHandle,
    pages: u32,
    leaves: &Blocks,
    check: &mut dyn FnMut() -> Result<(), AccessError>,
) -> Result<u32, AccessError> {
    let mut free = 0;
    for block in (1..pages).map(BlockNo::new).filter(|b| !leaves.has(*b)) {
        check()?;
        let buffer = ctx.pool.read(rel.file, Fork::Main, block)?;
        let is_free = is_free(&buffer.read());
        if is_free {
            free += 1;
            record_free(ctx, rel, block)?;
        }
    }
    Ok(free)
}
