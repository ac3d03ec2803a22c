//! Inserting an entry, splitting nodes, telling parents.
//!
//! Latches: left before right on a level, child before parent. A descent holds one at a time, so nobody who holds a latch waits for
//! one further down. A split marks the left node incomplete until its parent knows the new sibling; whoever meets the mark with
//! the intent to write finishes the split, so a crash in between costs nothing.

use afterimage_wal::{BlockNo, Fork, LsnRange, RecordBuilder, Xid, record::WILL_INIT, rmgr};

use super::alloc::{horizon, new_block};
use super::descend::{Fit, Path, ROOT, Target, as_node, damaged, find_write, fit, latch_read, latch_write, sound};
use super::node::{self, Fence, Item, ItemBuf, MAX_KEY_BYTES, NO_BLOCK, Node, NodeBuilder, Pos, Shape, choose_split};
use super::record::{INSERT_INTERNAL, INSERT_LEAF, ROOT_SPLIT, SPLIT};
use super::vacuum::remove_killed;
use crate::access::{AccessCtx, AccessError, RelHandle, Tid};
use crate::storage::{CriticalSection, OwnedWrite};

/// Percent of a leaf that ascending inserts and builds fill.
pub const LEAF_FILL: usize = 90;
/// The same for internal nodes.
pub(super) const INTERNAL_FILL: usize = 70;

/// What the row behind an equal key is, for a unique check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Committed, or this transaction's own: a duplicate.
    Live,
    /// Not a duplicate, but some snapshot may still see it (say, deleted by this transaction).
    Gone,
    /// Dead to everyone: its entry may be removed.
    Dead,
    /// Inserted or deleted by a transaction that is still running.
    InProgress(Xid),
}

/// Asks the heap about rows with an equal key.
pub trait UniqueProbe {
    /// What the row is. Called with a latch on the index held: reads the heap, waits for nobody.
    ///
    /// # Errors
    /// Whatever reading the heap gives.
    fn check(&mut self, tid: Tid) -> Result<Liveness, AccessError>;

    /// Waits until `xid` has ended. No latches are held.
    ///
    /// # Errors
    /// Cancel, deadlock, lock timeout: the insert is given up.
    fn wait(&mut self, xid: Xid) -> Result<(), AccessError>;
}

/// How an insert came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The entry is in the index.
    Yes,
    /// Nothing was inserted: this row has the key.
    Duplicate(Tid),
}

enum Unique {
    Clear,
    Duplicate(Tid),
    Wait(Xid),
}

/// Inserts an entry for the row at `tid`.
///
/// With a probe, the key must not be there already for a live row. Keys of one index are prefix-free (no key begins with
/// another), and the probe's test is "begins with `unique_bytes` of the key". Keys with a null that do not conflict with others are inserted
/// without a probe.
///
/// # Errors
/// [`AccessError::KeyTooBig`]; what the probe gives; storage, WAL.
pub fn insert<'a>(
    ctx: &AccessCtx,
    xid: Xid,
    rel: &RelHandle,
    item: impl Into<Item<'a>>,
    tid: Tid,
    unique: Option<(&mut dyn UniqueProbe, usize)>,
) -> Result<Inserted, AccessError> {
    let item = item.into();
    check_size(&item)?;
    let key = item.key;
    let number = tid.as_u64();
    let mut path = Path::new();
    let Some((probe, unique_bytes)) = unique else {
        let leaf = find_write(ctx, rel, Target::At((key, number)), 0, &mut path)?;
        insert_leaf(ctx, xid, rel, leaf, &item, number, path)?;
        return Ok(Inserted::Yes);
    };
    let start = key.get(..unique_bytes).unwrap_or(key);
    loop {
        // All who insert this key meet at the first node that may hold it, and keep it latched until theirs is in.
        let mut leaf = find_write(ctx, rel, Target::At((start, 0)), 0, &mut path)?;
        match check_unique(ctx, rel, &mut leaf, start, Some(tid), probe)? {
            Unique::Clear => {
                insert_leaf(ctx, xid, rel, leaf, &item, number, path)?;
                return Ok(Inserted::Yes);
            }
            Unique::Duplicate(other) => return Ok(Inserted::Duplicate(other)),
            Unique::Wait(other) => {
                drop(leaf);
                probe.wait(other)?;
            }
        }
    }
}

/// Looks for a live row whose key begins with `key`, waiting for transactions that decide it. For `ON CONFLICT`, before the row
/// is made.
///
/// # Errors
/// What the probe gives; storage.
pub fn find_duplicate(ctx: &AccessCtx, rel: &RelHandle, key: &[u8], probe: &mut dyn UniqueProbe) -> Result<Option<Tid>, AccessError> {
    find_but(ctx, rel, key, None, probe)
}

/// As [`find_duplicate`], for a row that is in the index already: another one with its key. For constraints that are checked late.
///
/// # Errors
/// What the probe gives; storage.
pub fn find_other(ctx: &AccessCtx, rel: &RelHandle, key: &[u8], own: Tid, probe: &mut dyn UniqueProbe) -> Result<Option<Tid>, AccessError> {
    find_but(ctx, rel, key, Some(own), probe)
}

fn find_but(
    ctx: &AccessCtx,
    rel: &RelHandle,
    key: &[u8],
    own: Option<Tid>,
    probe: &mut dyn UniqueProbe,
) -> Result<Option<Tid>, AccessError> {
    let mut path = Path::new();
    loop {
        let mut leaf = find_write(ctx, rel, Target::At((key, 0)), 0, &mut path)?;
        match check_unique(ctx, rel, &mut leaf, key, own, probe)? {
            Unique::Clear => return Ok(None),
            Unique::Duplicate(tid) => return Ok(Some(tid)),
            Unique::Wait(xid) => {
                drop(leaf);
                probe.wait(xid)?;
            }
        }
    }
}

/// Refuses what is too long. PostgreSQL counts its tuple header of 8 bytes.
pub(super) fn check_size(item: &Item<'_>) -> Result<(), AccessError> {
    if item.bytes() > MAX_KEY_BYTES {
        return Err(AccessError::KeyTooBig { size: item.bytes() + 8, max: MAX_KEY_BYTES + 8 });
    }
    Ok(())
}

fn check_unique(
    ctx: &AccessCtx,
    rel: &RelHandle,
    first: &mut OwnedWrite,
    key: &[u8],
    own: Option<Tid>,
    probe: &mut dyn UniqueProbe,
) -> Result<Unique, AccessError> {
    let block = first.buffer().block();
    let mut dead = smallvec::SmallVec::<[(u16, u64); 8]>::new();
    let outcome = {
        let node = as_node(rel, block, first)?;
        probe_node(rel, block, &node, key, own, probe, &mut |i, tid| dead.push((i, tid)))?
    };
    if !dead.is_empty() {
        let horizon = horizon(ctx);
        for (i, tid) in dead {
            if node::kill(first, i, tid) {
                first.mark_dirty_hint(horizon);
            }
        }
    }
    let mut next = match outcome {
        Probed::Decided(u) => return Ok(u),
        Probed::Next(next) => next,
    };
    // Runs of versions with this key go on to the right; `first` stays latched.
    loop {
        let page = latch_read(ctx, rel, next)?;
        let node = as_node(rel, next, &page)?;
        match probe_node(rel, next, &node, key, own, probe, &mut |_, _| {})? {
            Probed::Decided(u) => return Ok(u),
            Probed::Next(n) => next = n,
        }
    }
}

enum Probed {
    Decided(Unique),
    Next(BlockNo),
}

fn probe_node(
    rel: &RelHandle,
    block: BlockNo,
    node: &Node<'_>,
    key: &[u8],
    own: Option<Tid>,
    probe: &mut dyn UniqueProbe,
    dead: &mut dyn FnMut(u16, u64),
) -> Result<Probed, AccessError> {
    let mut i = sound(rel, block, node.lower_bound((key, 0)))?;
    while i < node.count() {
        let e = sound(rel, block, node.entry(i))?;
        if !node.starts_with(&e, key) {
            return Ok(Probed::Decided(Unique::Clear));
        }
        let tid = Tid::from_u64(e.tid);
        if !e.killed && own != Some(tid) {
            match probe.check(tid)? {
                Liveness::Live => return Ok(Probed::Decided(Unique::Duplicate(tid))),
                Liveness::InProgress(xid) => return Ok(Probed::Decided(Unique::Wait(xid))),
                Liveness::Gone => {}
                Liveness::Dead => dead(i, e.tid),
            }
        }
        i += 1;
    }
    if node.is_rightmost() {
        return Ok(Probed::Decided(Unique::Clear));
    }
    let (high, _) = sound(rel, block, node.high())?;
    if high <= key || high.starts_with(key) { Ok(Probed::Next(node.right())) } else { Ok(Probed::Decided(Unique::Clear)) }
}

/// Inserts into the leaf that covers the entry; `leaf` is that one or one left of it.
fn insert_leaf(
    ctx: &AccessCtx,
    xid: Xid,
    rel: &RelHandle,
    mut leaf: OwnedWrite,
    entry: &Item<'_>,
    tid: u64,
    mut path: Path,
) -> Result<(), AccessError> {
    let key = entry.key;
    let pos = (key, tid);
    loop {
        leaf = move_right(ctx, rel, leaf, 0, pos)?;
        let block = leaf.buffer().block();
        let node = as_node(rel, block, &leaf)?;
        if node.is_incomplete() {
            finish_split(ctx, rel, &mut leaf, &path)?;
            continue;
        }
        let at = sound(rel, block, node.lower_bound(pos))?;
        if at < node.count() {
            let e = sound(rel, block, node.entry(at))?;
            if e.tid == tid && node.key_is(&e, key) {
                // Redone after an error between index and heap; never with another row's meaning, as vacuum removes entries first.
                return Ok(());
            }
        }
        let mut item = ItemBuf::new();
        item.extend_from_slice(&at.to_le_bytes());
        node::encode_leaf_item(&mut item, node.prefix().len(), entry, tid);
        if node.free_space() >= item.len() - 2 {
            log_insert(ctx, xid, rel, &mut leaf, at, &item)?;
            return Ok(());
        }
        if remove_killed(ctx, rel, &mut leaf)? {
            continue;
        }
        leaf = split_for(ctx, xid, rel, leaf, at, pos, item.len() - 2, LEAF_FILL, &mut path)?;
    }
}

fn log_insert(ctx: &AccessCtx, xid: Xid, rel: &RelHandle, leaf: &mut OwnedWrite, at: u16, item: &[u8]) -> Result<(), AccessError> {
    let block = leaf.buffer().block();
    let mut record = RecordBuilder::new(rmgr::BTREE, INSERT_LEAF, xid);
    record.block(rel.file, Fork::Main, block, 0, item);
    CriticalSection::run("insert into a btree leaf", || -> Result<(), AccessError> {
        if !node::insert_entry(leaf, at, &item[2..]) {
            return Err(damaged(rel, block, "free space that is not there"));
        }
        if rel.logged() {
            let end = ctx.wal.insert(&record)?.end;
            leaf.set_lsn(end);
        }
        Ok(())
    });
    Ok(())
}

/// Follows right links, the next node latched before this one is released.
fn move_right(ctx: &AccessCtx, rel: &RelHandle, mut page: OwnedWrite, level: u16, pos: Pos<'_>) -> Result<OwnedWrite, AccessError> {
    loop {
        let block = page.buffer().block();
        let node = as_node(rel, block, &page)?;
        match sound(rel, block, fit(&node, level, &Target::At(pos)))? {
            Fit::Here => return Ok(page),
            Fit::Right(next) => page = latch_write(ctx, rel, next)?,
            Fit::Lost => return Err(damaged(rel, block, "a right link that leads astray")),
        }
    }
}

/// Inserts a logged record over several latched pages, sets their LSNs.
pub(super) fn log_pages(
    ctx: &AccessCtx,
    rel: &RelHandle,
    record: &RecordBuilder,
    pages: &mut [&mut OwnedWrite],
) -> Result<(), AccessError> {
    if rel.logged() {
        let LsnRange { end, .. } = ctx.wal.insert(record)?;
        for page in pages {
            page.set_lsn(end);
        }
    }
    Ok(())
}

/// Splits a node that an entry does not fit into, tells the parent, and returns the part that covers the entry, latched.
#[expect(clippy::too_many_arguments, reason = "one caller for each level; a struct would only rename them")]
fn split_for(
    ctx: &AccessCtx,
    xid: Xid,
    rel: &RelHandle,
    page: OwnedWrite,
    at: u16,
    pos: Pos<'_>,
    item_bytes: usize,
    fill: usize,
    path: &mut Path,
) -> Result<OwnedWrite, AccessError> {
    let (mut left, right) = split(ctx, xid, rel, page, at, pos, item_bytes, fill)?;
    let block = left.buffer().block();
    let node = as_node(rel, block, &left)?;
    let goes_right = pos >= sound(rel, block, node.high())?;
    if !node.is_incomplete() {
        // The root was split: it knows both parts.
        path.insert(0, ROOT);
        return Ok(if goes_right { right } else { left });
    }
    // The right part is kept latched (its latch comes after the left one's and before the parent's), so that it stays as it is.
    finish_split(ctx, rel, &mut left, path)?;
    Ok(if goes_right { right } else { left })
}

/// Splits a node. The root keeps its block: its two parts are both new.
#[expect(clippy::too_many_arguments, reason = "see split_for")]
fn split(
    ctx: &AccessCtx,
    xid: Xid,
    rel: &RelHandle,
    mut page: OwnedWrite,
    at: u16,
    pos: Pos<'_>,
    item_bytes: usize,
    fill: usize,
) -> Result<(OwnedWrite, OwnedWrite), AccessError> {
    let block = page.buffer().block();
    let node = as_node(rel, block, &page)?;
    let split = choose_split(&node, at, pos, item_bytes, fill).ok_or_else(|| damaged(rel, block, "a node that cannot be split"))?;
    let right_image = sound(rel, block, node::split_right(&node, split.stay, &split.fence))?;
    let mut right = new_block(ctx, rel)?;
    let mut image = Vec::with_capacity(8192);
    if block != ROOT {
        let right_block = right.buffer().block();
        let left_image = sound(rel, block, node::split_left(&page, split.stay, &split.fence, right_block))?;
        let mut data = ItemBuf::from_slice(&split.stay.to_le_bytes());
        split.fence.encode(&mut data);
        node::pack(&right_image, &mut image);
        let mut record = RecordBuilder::new(rmgr::BTREE, SPLIT, xid);
        record.block(rel.file, Fork::Main, block, 0, &data);
        record.block(rel.file, Fork::Main, right_block, WILL_INIT, &image);
        CriticalSection::run("split a btree node", || -> Result<(), AccessError> {
            node::replace(&mut right, &right_image);
            node::replace(&mut page, &left_image);
            log_pages(ctx, rel, &record, &mut [&mut page, &mut right])
        });
        return Ok((page, right));
    }
    let mut left = new_block(ctx, rel)?;
    let (left_block, right_block) = (left.buffer().block(), right.buffer().block());
    let level = node.level().checked_add(1).ok_or_else(|| damaged(rel, block, "too many levels"))?;
    let shape = sound(rel, block, Shape::of(&node))?;
    let left_shape = Shape { high: split.fence.clone(), right: right_block, ..shape.clone() };
    let mut builder = sound(rel, block, NodeBuilder::new(&left_shape))?;
    let whole = builder.copy(&node, 0..split.stay);
    let left_image = sound(rel, block, whole.then(|| builder.finish()))?;
    let mut builder = sound(rel, block, NodeBuilder::new(&Shape { level, ..shape }))?;
    let whole = builder.push(0, left_block, &[], &[]) && builder.push(split.fence.tid, right_block, &split.fence.key, &[]);
    let root_image = sound(rel, block, whole.then(|| builder.finish()))?;
    let mut record = RecordBuilder::new(rmgr::BTREE, ROOT_SPLIT, xid);
    for (b, page) in [(left_block, &left_image), (right_block, &right_image), (ROOT, &root_image)] {
        image.clear();
        node::pack(page, &mut image);
        record.block(rel.file, Fork::Main, b, WILL_INIT, &image);
    }
    CriticalSection::run("split the root of a btree", || -> Result<(), AccessError> {
        node::replace(&mut left, &left_image);
        node::replace(&mut right, &right_image);
        node::replace(&mut page, &root_image);
        log_pages(ctx, rel, &record, &mut [&mut page, &mut left, &mut right])
    });
    Ok((left, right))
}

/// Tells the parent of an incomplete node about its right sibling. `path` leads to the node, as hints.
pub(super) fn finish_split(ctx: &AccessCtx, rel: &RelHandle, left: &mut OwnedWrite, path: &Path) -> Result<(), AccessError> {
    let block = left.buffer().block();
    let (fence, child, level) = {
        let node = as_node(rel, block, left)?;
        let (key, tid) = sound(rel, block, node.high())?;
        (Fence::new(key, tid), node.right(), node.level())
    };
    let above = level.checked_add(1).ok_or_else(|| damaged(rel, block, "too many levels"))?;
    let pos = fence.as_ref();
    let mut path = path.clone();
    let mut parent = find_parent(ctx, rel, pos, above, &mut path)?;
    loop {
        let parent_block = parent.buffer().block();
        let node = as_node(rel, parent_block, &parent)?;
        if node.is_incomplete() {
            finish_split(ctx, rel, &mut parent, &path)?;
            continue;
        }
        let at = sound(rel, parent_block, node.lower_bound(pos))?;
        let mut item = ItemBuf::new();
        item.extend_from_slice(&at.to_le_bytes());
        node::encode_item(&mut item, node.prefix().len(), pos.0, pos.1, child);
        if node.free_space() < item.len() - 2 {
            parent = split_for(ctx, Xid::INVALID, rel, parent, at, pos, item.len() - 2, INTERNAL_FILL, &mut path)?;
            continue;
        }
        let mut record = RecordBuilder::new(rmgr::BTREE, INSERT_INTERNAL, Xid::INVALID);
        record.block(rel.file, Fork::Main, parent_block, 0, &item);
        record.block(rel.file, Fork::Main, block, 0, &[]);
        CriticalSection::run("insert into a btree node", || -> Result<(), AccessError> {
            if !node::insert_entry(&mut parent, at, &item[2..]) {
                return Err(damaged(rel, parent_block, "free space that is not there"));
            }
            node::clear_incomplete(left);
            log_pages(ctx, rel, &record, &mut [&mut parent, left])
        });
        return Ok(());
    }
}

/// The node of `level` that covers `pos`, latched; the last block of `path` is tried first. Afterwards `path` leads to it.
pub(super) fn find_parent(ctx: &AccessCtx, rel: &RelHandle, pos: Pos<'_>, level: u16, path: &mut Path) -> Result<OwnedWrite, AccessError> {
    if let Some(hint) = path.pop() {
        let mut page = latch_write(ctx, rel, hint)?;
        loop {
            let block = page.buffer().block();
            let Some(node) = Node::new(&page) else { break };
            match sound(rel, block, fit(&node, level, &Target::At(pos)))? {
                Fit::Here => return Ok(page),
                Fit::Right(next) if next != NO_BLOCK => page = latch_write(ctx, rel, next)?,
                Fit::Right(_) | Fit::Lost => break,
            }
        }
        // Released before the descent below latches its way down.
        drop(page);
    }
    find_write(ctx, rel, Target::At(pos), level, path)
}
