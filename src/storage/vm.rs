//! The visibility map: one bit per heap block, set when every row version on it is visible to everyone.
//!
//! A map page is an ordinary page whose bits fill it after the header. Changes are logged by the heap record that makes them,
//! which names the map's block too; the functions here only find and change bits.

use afterimage_wal::{BlockNo, Fork, Lsn, RelId};

use super::{
    Buffer, StorageError,
    buffer_pool::BufferPool,
    page::{HEADER_SIZE, PAGE_SIZE, Page},
};

/// Heap blocks one map page covers.
#[expect(clippy::cast_possible_truncation, reason = "65280")]
pub const BLOCKS_PER_PAGE: u32 = ((PAGE_SIZE - HEADER_SIZE) * 8) as u32;

/// The map block with this heap block's bit.
pub fn map_block(heap: BlockNo) -> BlockNo {
    BlockNo::new(heap.get() / BLOCKS_PER_PAGE)
}

fn place(heap: BlockNo) -> (usize, u8) {
    let bit = heap.get() % BLOCKS_PER_PAGE;
    (HEADER_SIZE + usize::try_from(bit / 8).unwrap_or(0), 1 << (bit % 8))
}

/// Whether the bit is set on this map page.
pub fn is_set(page: &Page, heap: BlockNo) -> bool {
    let (at, mask) = place(heap);
    page.bytes()[at] & mask != 0
}

/// Sets the bit on its map page.
pub fn set(page: &mut Page, heap: BlockNo) {
    let (at, mask) = place(heap);
    page.bytes_mut()[at] |= mask;
}

/// Clears the bit on its map page.
pub fn clear(page: &mut Page, heap: BlockNo) {
    let (at, mask) = place(heap);
    page.bytes_mut()[at] &= !mask;
}

/// Pins the map page of a heap block if the map reaches that far.
///
/// # Errors
/// I/O.
pub fn find(pool: &BufferPool, rel: RelId, heap: BlockNo) -> Result<Option<Buffer>, StorageError> {
    let block = map_block(heap);
    if block >= pool.n_blocks(rel, Fork::Vm)? {
        return Ok(None);
    }
    pool.read(rel, Fork::Vm, block).map(Some)
}

/// Pins the map page of a heap block, extending the map if needed; `logged`: as the heap is. Take no page latch before.
///
/// # Errors
/// I/O.
pub fn find_or_extend(pool: &BufferPool, rel: RelId, heap: BlockNo, logged: bool) -> Result<Buffer, StorageError> {
    let block = map_block(heap);
    loop {
        let blocks = pool.n_blocks(rel, Fork::Vm)?;
        if block < blocks {
            return pool.read(rel, Fork::Vm, block);
        }
        if !logged {
            pool.files().create(rel, Fork::Vm)?;
            pool.extend_unlogged(rel, Fork::Vm, 1)?;
            continue;
        }
        if blocks.get() == 0 && !pool.files().exists(rel, Fork::Vm)? {
            pool.create_fork(rel, Fork::Vm)?;
        }
        pool.extend(rel, Fork::Vm, 1)?;
    }
}

/// Whether all rows of a heap block are visible to everyone, as the map says now.
///
/// # Errors
/// I/O.
pub fn all_visible(pool: &BufferPool, rel: RelId, heap: BlockNo) -> Result<bool, StorageError> {
    Ok(find(pool, rel, heap)?.is_some_and(|buffer| is_set(&buffer.read(), heap)))
}

/// A heap was shortened to `n` blocks by the record ending at `end`: the bits of the rest are cleared, as blocks that come there later begin
/// with rows nobody sees. The same on a primary and in redo.
///
/// # Errors
/// I/O.
pub(super) fn forget_from(pool: &BufferPool, rel: RelId, n: BlockNo, end: Lsn) -> Result<(), StorageError> {
    for block in map_block(n).get()..pool.n_blocks(rel, Fork::Vm)?.get() {
        // Missing before the consistent point: the map is newer than the record, or gone with its relation.
        let Some(buffer) = pool.read_for_redo(rel, Fork::Vm, BlockNo::new(block), false)? else { continue };
        let mut page = buffer.write();
        if page.lsn() >= end {
            continue;
        }
        clear_from(&mut page, block, n);
        page.set_lsn(end);
    }
    Ok(())
}

/// As [`forget_from`], for a heap that is not logged.
pub(super) fn forget_from_unlogged(pool: &BufferPool, rel: RelId, n: BlockNo) -> Result<(), StorageError> {
    for block in map_block(n).get()..pool.n_blocks(rel, Fork::Vm)?.get() {
        clear_from(&mut pool.read(rel, Fork::Vm, BlockNo::new(block))?.write(), block, n);
    }
    Ok(())
}

/// Clears the bits on map page `block` of heap blocks from `n` on.
fn clear_from(page: &mut Page, block: u32, n: BlockNo) {
    let first = block.saturating_mul(BLOCKS_PER_PAGE).max(n.get());
    let (at, mask) = place(BlockNo::new(first));
    let bytes = page.bytes_mut();
    bytes[at] &= mask - 1;
    bytes[at + 1..].fill(0);
}

/// Number of bits set, for statistics.
///
/// # Errors
/// I/O.
pub fn count(pool: &BufferPool, rel: RelId) -> Result<u32, StorageError> {
    let mut sum = 0_u32;
    for block in 0..pool.n_blocks(rel, Fork::Vm)?.get() {
        let buffer = pool.read(rel, Fork::Vm, BlockNo::new(block))?;
        sum += buffer.read().bytes()[HEADER_SIZE..].iter().map(|b| b.count_ones()).sum::<u32>();
    }
    Ok(sum)
}
