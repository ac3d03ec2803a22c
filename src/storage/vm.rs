//! The visibility map: two bits per heap block. [`VISIBLE`] is set when every row version on it is visible to everyone, [`FROZEN`] beside it
//! when none of them needs the status of a transaction either, so that no vacuum ever has to look at the block until it is changed.
//!
//! A map page is an ordinary page whose bits fill it after the header, with [`FLAG_FROZEN_BITS`]. Pages without the flag are of a time when
//! there was one bit per block: they say nothing, and are emptied when the first bit is set. Changes are logged by the heap record that makes them,
//! which names the map's block too; the functions here only find and change bits.

use afterimage_wal::{BlockNo, Fork, Lsn, RelId};

use super::{
    Buffer, StorageError,
    buffer_pool::BufferPool,
    page::{FLAG_FROZEN_BITS, HEADER_SIZE, PAGE_SIZE, Page},
};

/// Every row version of the block is visible to everyone.
pub const VISIBLE: u8 = 1;
/// And none of them names a transaction whose status somebody may have to know.
pub const FROZEN: u8 = 2;

/// Heap blocks one map page covers.
#[expect(clippy::cast_possible_truncation, reason = "32640")]
pub const BLOCKS_PER_PAGE: u32 = ((PAGE_SIZE - HEADER_SIZE) * 4) as u32;

/// The map block with this heap block's bits.
pub fn map_block(heap: BlockNo) -> BlockNo {
    BlockNo::new(heap.get() / BLOCKS_PER_PAGE)
}

/// The byte with a block's bits, and how far they are shifted in it.
fn place(heap: BlockNo) -> (usize, u32) {
    let at = heap.get() % BLOCKS_PER_PAGE;
    (HEADER_SIZE + usize::try_from(at / 4).unwrap_or(0), at % 4 * 2)
}

/// What this map page says of a block: [`VISIBLE`], [`FROZEN`].
pub fn bits(page: &Page, heap: BlockNo) -> u8 {
    if !page.has_flag(FLAG_FROZEN_BITS) {
        return 0;
    }
    let (at, shift) = place(heap);
    page.bytes()[at] >> shift & (VISIBLE | FROZEN)
}

/// Sets these bits of a block on its map page.
pub fn set(page: &mut Page, heap: BlockNo, bits: u8) {
    if !page.has_flag(FLAG_FROZEN_BITS) {
        page.bytes_mut()[HEADER_SIZE..].fill(0);
        page.set_flag(FLAG_FROZEN_BITS, true);
    }
    let (at, shift) = place(heap);
    page.bytes_mut()[at] |= (bits & (VISIBLE | FROZEN)) << shift;
}

/// Clears a block's bits on its map page.
pub fn clear(page: &mut Page, heap: BlockNo) {
    if page.has_flag(FLAG_FROZEN_BITS) {
        let (at, shift) = place(heap);
        page.bytes_mut()[at] &= !((VISIBLE | FROZEN) << shift);
    }
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
    pool.read_map(rel, Fork::Vm, block).map(Some)
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
            return pool.read_map(rel, Fork::Vm, block);
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
    Ok(find(pool, rel, heap)?.is_some_and(|buffer| bits(&buffer.read(), heap) & VISIBLE != 0))
}

/// The map page of the block asked for last, pinned: neighbours share it.
#[derive(Debug, Default)]
pub struct MapPin(Option<Buffer>);

impl MapPin {
    fn holds(&self, heap: BlockNo) -> Option<&Buffer> {
        self.0.as_ref().filter(|map| map.block() == map_block(heap))
    }

    /// What the map says of a block now.
    ///
    /// # Errors
    /// I/O.
    pub fn bits(&mut self, pool: &BufferPool, rel: RelId, heap: BlockNo) -> Result<u8, StorageError> {
        if self.holds(heap).is_none() {
            self.0 = find(pool, rel, heap)?;
        }
        Ok(self.0.as_ref().map_or(0, |map| bits(&map.read(), heap)))
    }

    /// As [`find_or_extend`].
    ///
    /// # Errors
    /// I/O.
    pub fn pin(&mut self, pool: &BufferPool, rel: RelId, heap: BlockNo, logged: bool) -> Result<Buffer, StorageError> {
        if let Some(map) = self.holds(heap) {
            return Ok(map.clone());
        }
        let map = find_or_extend(pool, rel, heap, logged)?;
        self.0 = Some(map.clone());
        Ok(map)
    }
}

/// Reads what [`forget_from`] will change, so that a map page that cannot be read is an error before anything is changed.
///
/// # Errors
/// I/O.
pub(super) fn check_from(pool: &BufferPool, rel: RelId, n: BlockNo) -> Result<(), StorageError> {
    for block in map_block(n).get()..pool.n_blocks(rel, Fork::Vm)?.get() {
        pool.read_map(rel, Fork::Vm, BlockNo::new(block))?;
    }
    Ok(())
}

/// A heap was shortened to `n` blocks by the record ending at `end`: the bits of the rest are cleared, as blocks that come there later begin
/// with rows nobody sees. The same on a primary and in redo.
///
/// # Errors
/// I/O.
pub(super) fn forget_from(pool: &BufferPool, rel: RelId, n: BlockNo, end: Lsn) -> Result<(), StorageError> {
    for block in map_block(n).get()..pool.n_blocks(rel, Fork::Vm)?.get() {
        // Missing before the consistent point: the map is newer than the record, or gone with its relation.
        let buffer = match pool.read_for_redo(rel, Fork::Vm, BlockNo::new(block)) {
            Err(StorageError::BadPage { .. }) => pool.read_map(rel, Fork::Vm, BlockNo::new(block))?,
            other => match other? {
                Some(buffer) => buffer,
                None => continue,
            },
        };
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
        clear_from(&mut pool.read_map(rel, Fork::Vm, BlockNo::new(block))?.write(), block, n);
    }
    Ok(())
}

/// Clears the bits on map page `block` of heap blocks from `n` on.
fn clear_from(page: &mut Page, block: u32, n: BlockNo) {
    let first = block.saturating_mul(BLOCKS_PER_PAGE).max(n.get());
    let (at, shift) = place(BlockNo::new(first));
    let bytes = page.bytes_mut();
    bytes[at] &= (1 << shift) - 1;
    bytes[at + 1..].fill(0);
}

/// How many blocks are visible to everyone, and how many of them frozen, for statistics.
///
/// # Errors
/// I/O.
pub fn count(pool: &BufferPool, rel: RelId) -> Result<(u32, u32), StorageError> {
    let (mut visible, mut frozen) = (0, 0);
    for block in 0..pool.n_blocks(rel, Fork::Vm)?.get() {
        let buffer = pool.read_map(rel, Fork::Vm, BlockNo::new(block))?;
        let page = buffer.read();
        if page.has_flag(FLAG_FROZEN_BITS) {
            for byte in &page.bytes()[HEADER_SIZE..] {
                visible += (byte & 0x55).count_ones();
                frozen += (byte & 0xaa).count_ones();
            }
        }
    }
    Ok((visible, frozen))
}
