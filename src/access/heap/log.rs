//! Heap records: how they are written. `redo.rs` reads them back.
//!
//! Block 0 is the heap page changed (an update's new version), block 1 an update's old page if it is another. A visibility map page
//! whose bits are cleared follows with one byte of data: bit i for heap block i. Numbers are little-endian; `off` is a line pointer, u16.
//!
//! | kind | block 0 data | block 1 data | main |
//! |---|---|---|---|
//! | INSERT | off, row | | |
//! | MULTI_INSERT | first off, then per row: length u16, row; line pointers ascend by one | | flags u8, or nothing for none: [`FROZEN`] |
//! | UPDATE | flags u8, new off, then same page: old off, [prefix u16], [suffix u16], middle; else row | old off | |
//! | DELETE | off | | flags u8 |
//! | PRUNE | counts of redirected (bit 15: some version that stays has been ended), dead, unused as u16; pairs of off; offs; offs | | horizon u64 |
//! | VACUUM | offs that become unused | | |
//! | VISIBLE | | | horizon u64; block 1 is the map page, its data the bits set (`vm::VISIBLE`, `vm::FROZEN`; once nothing: the former) |
//! | FREEZE | offs; bit 15: freeze xmin, bit 14: forget xmax | | newest xid frozen u64, horizon u64 |
//! | INPLACE | off, row of the same length | | |
//! | LINK | per version: off, block u32 and off of its next version | | |
//! | REMOVED | no block | | newest xid u64, horizon u64 |
//!
//! Headers are not logged: redo makes them from the record's xid, the block number and the flags.

use afterimage_wal::ids::{Fork, Lsn};
use afterimage_wal::{RecordBuilder, WalError};
use smallvec::SmallVec;

use crate::access::{AccessCtx, RelHandle};
use crate::storage::page::FLAG_ALL_VISIBLE;
use crate::storage::{Buffer, CriticalSection, PageWrite, StorageError, vm};

/// A row was inserted.
pub const INSERT: u8 = 0x10;
/// Rows were inserted on one page.
pub const MULTI_INSERT: u8 = 0x20;
/// A new version.
pub const UPDATE: u8 = 0x30;
/// A row was deleted.
pub const DELETE: u8 = 0x40;
/// Dead versions were removed, their line pointers redirected or marked.
pub const PRUNE: u8 = 0x50;
/// Dead line pointers were freed.
pub const VACUUM: u8 = 0x60;
/// Every row of a page is visible to everyone.
pub const VISIBLE: u8 = 0x70;
/// Versions are visible to everyone for ever.
pub const FREEZE: u8 = 0x80;
/// A row was overwritten where it is, outside any transaction.
pub const INPLACE: u8 = 0x90;
/// Versions on a page of a table that is written anew lead to the versions that follow them.
pub const LINK: u8 = 0xa0;
/// Versions were left out of a table that is written anew, or frozen.
pub const REMOVED: u8 = 0xb0;

/// Multi-insert flag: the rows are visible to everyone for ever.
pub const FROZEN: u8 = 1;

/// Update flag: heap-only.
pub const UPDATE_HOT: u8 = 1;
/// Update and delete flag: a key changed, or the row went.
pub const KEYS_CHANGED: u8 = 2;
/// Update flag: the row begins as the old one does.
pub const PREFIX: u8 = 4;
/// Update flag: the row ends as the old one does.
pub const SUFFIX: u8 = 8;
/// Update flag: the old version is on the same page.
pub const SAME_PAGE: u8 = 16;

/// An exclusively latched heap page, and its map page if the page says that all its rows are visible.
pub(super) struct Latched<'a> {
    pub(super) page: PageWrite<'a>,
    pub(super) buffer: &'a Buffer,
    pub(super) map: Option<Buffer>,
}

impl<'a> Latched<'a> {
    /// Latches. The map page is pinned without the latch, since that may read from disk.
    pub(super) fn new(ctx: &AccessCtx, rel: &RelHandle, buffer: &'a Buffer) -> Result<Self, StorageError> {
        let page = buffer.write();
        if !page.has_flag(FLAG_ALL_VISIBLE) {
            return Ok(Self { page, buffer, map: None });
        }
        drop(page);
        let map = vm::find(&ctx.pool, rel.file, buffer.block())?;
        // If the flag came back in between after being cleared, the map has not moved.
        Ok(Self { page: buffer.write(), buffer, map })
    }

    /// Latches, with the map page that was pinned before.
    pub(super) fn with_map(buffer: &'a Buffer, map: Buffer) -> Self {
        Self { page: buffer.write(), buffer, map: Some(map) }
    }
}

/// Changes pages and logs the change, as one. `change` fills the record and changes the pages; it must not fail.
///
/// All-visible flags are cleared here, with the map's bits, and logged in the same record.
pub(super) fn change_pages(
    ctx: &AccessCtx,
    rel: &RelHandle,
    what: &'static str,
    record: &mut RecordBuilder,
    pages: &mut [&mut Latched<'_>],
    change: impl FnOnce(&mut [&mut Latched<'_>], &mut RecordBuilder),
) -> Lsn {
    CriticalSection::run(what, || -> Result<Lsn, WalError> {
        change(pages, record);
        // Map pages of the heap pages, each once, latched in order: two heap blocks share one unless far apart.
        let mut maps: SmallVec<[(Buffer, SmallVec<[usize; 2]>); 2]> = SmallVec::new();
        for (i, p) in pages.iter_mut().enumerate() {
            if p.page.has_flag(FLAG_ALL_VISIBLE) {
                p.page.set_flag(FLAG_ALL_VISIBLE, false);
                if let Some(map) = &p.map {
                    match maps.iter_mut().find(|(m, _)| m.tag() == map.tag()) {
                        Some((_, of)) => of.push(i),
                        None => maps.push((map.clone(), SmallVec::from_slice(&[i]))),
                    }
                }
            }
        }
        maps.sort_by_key(|(m, _)| m.block());
        let mut latched: SmallVec<[PageWrite<'_>; 2]> = SmallVec::new();
        for (map, of) in &maps {
            let mut page = map.write();
            let mut bits = 0u8;
            for i in of {
                vm::clear(&mut page, pages[*i].buffer.block());
                bits |= 1 << i;
            }
            record.block(rel.file, Fork::Vm, map.block(), 0, &[bits]);
            latched.push(page);
        }
        if !rel.logged() {
            return Ok(Lsn::INVALID);
        }
        let end = ctx.wal.insert(record)?.end;
        for p in pages.iter_mut() {
            p.page.set_lsn(end);
        }
        for m in &mut latched {
            m.set_lsn(end);
        }
        Ok(end)
    })
}
