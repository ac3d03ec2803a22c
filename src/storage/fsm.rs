//! The free space map: how much room each heap block has, searchable from the top.
//!
//! A tree of pages. Each page is a binary tree of bytes in heap order: a node holds the larger of its children, a leaf the free
//! space of one block (leaf pages) or the largest of one page below (upper pages), in units of 32 bytes. Not logged: what it says is
//! a hint, checked by whoever uses it, and repaired on the way. PostgreSQL: storage/freespace/README.

use afterimage_wal::{BlockNo, Fork, RelId};

use super::{
    Buffer, StorageError,
    buffer_pool::BufferPool,
    page::{HEADER_SIZE, PAGE_SIZE, Page},
};

/// Free bytes recorded for a page that is free as a whole; [`find`] with this many finds only such.
pub const WHOLE_PAGE: usize = PAGE_SIZE - HEADER_SIZE;
/// Bytes one step of a category stands for.
const STEP: usize = PAGE_SIZE / 256;
/// Inner nodes of a page's tree; the tree is complete, so leaves are one more at most.
const INNER: usize = 4095;
/// Leaves of a page's tree.
const LEAVES: usize = PAGE_SIZE - HEADER_SIZE - INNER;
#[expect(clippy::cast_possible_truncation, reason = "4065")]
const LEAVES_U32: u32 = LEAVES as u32;

const _: () = assert!(LEAVES <= INNER + 1);

/// Height above the leaf pages of the root.
const ROOT_LEVEL: u32 = 2;

/// The category of a block with `free` bytes: rounded down.
fn category_of(free: usize) -> u8 {
    u8::try_from(free / STEP).unwrap_or(u8::MAX)
}

/// The category that surely has `need` bytes: rounded up; `None` if none does.
fn category_for(need: usize) -> Option<u8> {
    u8::try_from(need.div_ceil(STEP)).ok()
}

/// Where a page of the tree is: pages are numbered depth first, parents before children.
fn physical(level: u32, index: u32) -> BlockNo {
    // Leaf pages before it, then the parents and the root that precede it.
    let first_leaf = u64::from(index) * u64::from(LEAVES_U32).pow(level);
    let leaves = u64::from(LEAVES_U32);
    let mut at = first_leaf;
    for upper in 1..=ROOT_LEVEL {
        let span = leaves.pow(upper);
        // Pages of this level that start at or before first_leaf and come before the page itself.
        at += if upper > level { first_leaf / span + 1 } else { first_leaf.div_ceil(span) };
    }
    BlockNo::new(u32::try_from(at).unwrap_or(u32::MAX - 1))
}

fn node(page: &Page, at: usize) -> u8 {
    page.bytes().get(HEADER_SIZE + at).copied().unwrap_or(0)
}

fn leaf(page: &Page, slot: usize) -> u8 {
    node(page, INNER + slot)
}

/// Sets a leaf and its ancestors; returns whether the root changed.
fn set_leaf(page: &mut Page, slot: usize, value: u8) -> bool {
    let mut at = INNER + slot;
    let old_root = node(page, 0);
    page.bytes_mut()[HEADER_SIZE + at] = value;
    while at > 0 {
        at = (at - 1) / 2;
        let larger = node(page, 2 * at + 1).max(node(page, 2 * at + 2));
        if node(page, at) == larger {
            break;
        }
        page.bytes_mut()[HEADER_SIZE + at] = larger;
    }
    node(page, 0) != old_root
}

/// A leaf with at least `want`, the choice spread by `spread` so that sessions do not all get the same block.
fn find_leaf(page: &Page, want: u8, spread: usize) -> Option<usize> {
    if node(page, 0) < want {
        return None;
    }
    let mut at = 0;
    let mut spread = spread;
    while at < INNER {
        let (left, right) = (2 * at + 1, 2 * at + 2);
        let (l, r) = (node(page, left) >= want, node(page, right) >= want);
        at = match (l, r) {
            (true, true) => {
                let go_right = spread & 1 == 1;
                spread >>= 1;
                if go_right { right } else { left }
            }
            (true, false) => left,
            (false, true) => right,
            // A parent that promises more than its children have: torn by a crash.
            (false, false) => return None,
        };
    }
    Some(at - INNER)
}

fn rebuild(page: &mut Page) {
    for at in (0..INNER).rev() {
        page.bytes_mut()[HEADER_SIZE + at] = node(page, 2 * at + 1).max(node(page, 2 * at + 2));
    }
}

fn open(pool: &BufferPool, rel: RelId, level: u32, index: u32) -> Result<Buffer, StorageError> {
    pool.read_or_init(rel, Fork::Fsm, physical(level, index))
}

/// Records that `block` has `free` bytes of room.
///
/// # Errors
/// I/O.
pub fn record(pool: &BufferPool, rel: RelId, block: BlockNo, free: usize) -> Result<(), StorageError> {
    let mut value = category_of(free);
    let mut index = block.get();
    for level in 0..=ROOT_LEVEL {
        let slot = usize::try_from(index % LEAVES_U32).unwrap_or(0);
        index /= LEAVES_U32;
        let buffer = open(pool, rel, level, index)?;
        if leaf(&buffer.read(), slot) == value {
            return Ok(());
        }
        let mut page = buffer.write();
        let changed = set_leaf(&mut page, slot, value);
        if !changed {
            return Ok(());
        }
        value = node(&page, 0);
    }
    Ok(())
}

/// A block that should have `need` bytes, or `None`. The caller looks at the block and records what it finds.
///
/// # Errors
/// I/O.
pub fn search(pool: &BufferPool, rel: RelId, need: usize, spread: usize) -> Result<Option<BlockNo>, StorageError> {
    let Some(want) = category_for(need) else { return Ok(None) };
    let heap_blocks = pool.n_blocks(rel, Fork::Main)?;
    // Bounded: each failure repairs a promise that was not kept.
    for _ in 0..64 {
        if pool.n_blocks(rel, Fork::Fsm)?.get() == 0 {
            return Ok(None);
        }
        let mut index = 0;
        let mut found = true;
        for level in (0..=ROOT_LEVEL).rev() {
            let buffer = open(pool, rel, level, index)?;
            let slot = find_leaf(&buffer.read(), want, spread);
            match slot {
                Some(slot) => index = index * LEAVES_U32 + u32::try_from(slot).unwrap_or(0),
                None => {
                    rebuild(&mut buffer.write());
                    if level == ROOT_LEVEL {
                        return Ok(None);
                    }
                    // The parent promised; tell it the truth and start over.
                    let truth = node(&buffer.read(), 0);
                    let parent = open(pool, rel, level + 1, index / LEAVES_U32)?;
                    set_leaf(&mut parent.write(), usize::try_from(index % LEAVES_U32).unwrap_or(0), truth);
                    found = false;
                    break;
                }
            }
        }
        if found {
            let block = BlockNo::new(index);
            if block < heap_blocks {
                return Ok(Some(block));
            }
            record(pool, rel, block, 0)?;
        }
    }
    Ok(None)
}

/// As [`search`] without spreading.
///
/// # Errors
/// I/O.
pub fn find(pool: &BufferPool, rel: RelId, need: usize) -> Result<Option<BlockNo>, StorageError> {
    search(pool, rel, need, 0)
}

/// Records what `block` really has and searches again.
///
/// # Errors
/// I/O.
pub fn record_and_search(
    pool: &BufferPool,
    rel: RelId,
    block: BlockNo,
    free: usize,
    need: usize,
    spread: usize,
) -> Result<Option<BlockNo>, StorageError> {
    record(pool, rel, block, free)?;
    search(pool, rel, need, spread)
}

/// What the map says about a block.
///
/// # Errors
/// I/O.
pub fn recorded(pool: &BufferPool, rel: RelId, block: BlockNo) -> Result<usize, StorageError> {
    let index = block.get() / LEAVES_U32;
    if physical(0, index) >= pool.n_blocks(rel, Fork::Fsm)? {
        return Ok(0);
    }
    let buffer = open(pool, rel, 0, index)?;
    let value = leaf(&buffer.read(), usize::try_from(block.get() % LEAVES_U32).unwrap_or(0));
    Ok(usize::from(value) * STEP)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_tree_page_has_its_own_block() {
        let mut seen = HashSet::new();
        assert_eq!(physical(ROOT_LEVEL, 0), BlockNo::new(0));
        assert_eq!(physical(1, 0), BlockNo::new(1));
        assert_eq!(physical(0, 0), BlockNo::new(2));
        for level in 0..=1 {
            for index in 0..if level == 0 { 3 * LEAVES_U32 } else { 3 } {
                assert!(seen.insert(physical(level, index)), "level {level} index {index}");
            }
        }
    }

    #[test]
    fn tree_finds_what_was_set() {
        let mut page = Page::zeroed();
        page.init(0);
        assert_eq!(find_leaf(&page, 1, 0), None);
        for (slot, value) in [(0, 3), (17, 200), (LEAVES - 1, 255)] {
            set_leaf(&mut page, slot, value);
        }
        assert_eq!(find_leaf(&page, 201, 0), Some(LEAVES - 1));
        assert_eq!(find_leaf(&page, 100, 0), Some(17));
        set_leaf(&mut page, LEAVES - 1, 0);
        assert_eq!(find_leaf(&page, 201, 5), None);
        assert_eq!(find_leaf(&page, 2, 0), Some(0));
    }
}
