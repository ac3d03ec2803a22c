//! A row version: 28 bytes of header, then the row.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | xmin: who made it |
//! | 8 | 8 | xmax: who ended it (deleted, or replaced by the next version); 0: nobody |
//! | 16 | 4 | next version: block |
//! | 20 | 2 | next version: line pointer; its own place if there is none |
//! | 22 | 2 | mask, see [`mask`] |
//! | 24 | 4 | cid: command of the making or ending transaction, or a combined id; of use to that transaction only |
//!
//! All little-endian. Hints in the mask and the cid are not logged; [`mask_page`] hides them when pages are compared.

use afterimage_wal::ids::{BlockNo, Lsn, Xid};

use crate::access::Tid;
use crate::storage::page::{FLAG_FULL, FLAG_HAS_FREE_LINES, FLAG_PRUNABLE, PAGE_SIZE};
use crate::storage::{LinePointer, Page};

/// Bytes of the header.
pub const HEADER: usize = 28;
/// Bytes of the largest row version: alone on its page.
pub const MAX_TUPLE: usize = PAGE_SIZE - crate::storage::page::HEADER_SIZE - crate::storage::page::LINE_POINTER_SIZE;

/// Bits of the mask.
pub mod mask {
    /// Hint: xmin committed.
    pub const XMIN_COMMITTED: u16 = 0x0001;
    /// Hint: xmin rolled back.
    pub const XMIN_ABORTED: u16 = 0x0002;
    /// Hint: xmax committed.
    pub const XMAX_COMMITTED: u16 = 0x0004;
    /// Hint: xmax rolled back.
    pub const XMAX_ABORTED: u16 = 0x0008;
    /// All hints.
    pub const HINTS: u16 = 0x000f;
    /// The end was a delete or the change of a key (else an update that leaves keys alone).
    pub const KEYS_CHANGED: u16 = 0x0010;
    /// The next version is heap-only, on this page.
    pub const HOT_UPDATED: u16 = 0x0020;
    /// No index entry points here; reached through its chain's root.
    pub const HEAP_ONLY: u16 = 0x0040;
    /// cid is a combined id.
    pub const COMBO_CID: u16 = 0x0080;
    /// Made by an update.
    pub const UPDATED: u16 = 0x0100;
    /// Visible to everyone for ever: xmin's status is not needed any more. Logged, unlike a hint.
    pub const FROZEN: u16 = 0x0200;
}

/// The header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who made it.
    pub xmin: Xid,
    /// Who ended it.
    pub xmax: Xid,
    /// The next version; its own place if there is none.
    pub next: Tid,
    /// Bits.
    pub mask: u16,
    /// Command id.
    pub cid: u32,
}

impl Header {
    /// Reads the header of an item. `None` if it is too short to be a row version.
    #[inline]
    pub fn decode(item: &[u8]) -> Option<Self> {
        let h: &[u8; HEADER] = item.first_chunk()?;
        let u64_at = |i: usize| u64::from_le_bytes([h[i], h[i + 1], h[i + 2], h[i + 3], h[i + 4], h[i + 5], h[i + 6], h[i + 7]]);
        let u32_at = |i: usize| u32::from_le_bytes([h[i], h[i + 1], h[i + 2], h[i + 3]]);
        let u16_at = |i: usize| u16::from_le_bytes([h[i], h[i + 1]]);
        Some(Self {
            xmin: Xid::from_u64(u64_at(0)),
            xmax: Xid::from_u64(u64_at(8)),
            next: Tid::new(BlockNo::new(u32_at(16)), u16_at(20)),
            mask: u16_at(22),
            cid: u32_at(24),
        })
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut b = [0; HEADER];
        b[0..8].copy_from_slice(&self.xmin.to_le_bytes());
        b[8..16].copy_from_slice(&self.xmax.to_le_bytes());
        b[16..20].copy_from_slice(&self.next.block.to_le_bytes());
        b[20..22].copy_from_slice(&self.next.offset.to_le_bytes());
        b[22..24].copy_from_slice(&self.mask.to_le_bytes());
        b[24..28].copy_from_slice(&self.cid.to_le_bytes());
        b
    }

    /// A new version's header.
    pub fn new(xmin: Xid, place: Tid, mask: u16, cid: u32) -> Self {
        Self { xmin, xmax: Xid::INVALID, next: place, mask, cid }
    }

    /// Whether all of these bits are set.
    #[inline]
    pub fn has(&self, bits: u16) -> bool {
        self.mask & bits == bits
    }

    /// Ends the version: what redo does too, but for `cid` and `combo`.
    pub fn end(&mut self, xmax: Xid, next: Tid, keys_changed: bool, hot: bool) {
        self.xmax = xmax;
        self.next = next;
        self.mask &= !(mask::XMAX_COMMITTED | mask::XMAX_ABORTED | mask::KEYS_CHANGED | mask::HOT_UPDATED | mask::COMBO_CID);
        self.mask |= if keys_changed { mask::KEYS_CHANGED } else { 0 };
        self.mask |= if hot { mask::HOT_UPDATED } else { 0 };
    }
}

/// The header of line pointer `off`, if a row version is there.
#[inline]
pub fn header(page: &Page, off: u16) -> Option<Header> {
    page.item(off).and_then(Header::decode)
}

/// Writes the header of line pointer `off` back.
pub(super) fn put_header(page: &mut Page, off: u16, h: &Header) {
    if let Some(b) = page.item_mut(off).and_then(|i| i.first_chunk_mut::<HEADER>()) {
        *b = h.encode();
    }
}

/// Ends the version at line pointer `off`, on a primary and in redo.
pub(super) fn put_end(page: &mut Page, off: u16, h: &Header) {
    put_header(page, off, h);
    page.set_flag(FLAG_PRUNABLE, true);
}

/// Hides what may differ between a page and its replica: hints, command ids, free space, checksum, hint LSN, hint flags.
pub fn mask_page(page: &mut Page) {
    for off in 1..=page.max_offset() {
        if let Some(mut h) = header(page, off) {
            h.mask &= !(mask::HINTS | mask::COMBO_CID);
            h.cid = 0;
            put_header(page, off, &h);
        }
    }
    page.set_flag(FLAG_FULL | FLAG_HAS_FREE_LINES | FLAG_PRUNABLE, false);
    mask_space(page);
}

/// The part of [`mask_page`] that is true of every page.
pub fn mask_space(page: &mut Page) {
    let mut low = PAGE_SIZE;
    for off in 1..=page.max_offset() {
        if let LinePointer::Normal { offset, .. } = page.line(off) {
            low = low.min(usize::from(offset));
        }
    }
    let end_of_lines = crate::storage::page::HEADER_SIZE + usize::from(page.max_offset()) * crate::storage::page::LINE_POINTER_SIZE;
    let hole_end = (end_of_lines + page.raw_free_space()).min(low).min(PAGE_SIZE);
    let b = page.bytes_mut();
    b[8..12].fill(0);
    b[24..32].fill(0);
    if end_of_lines < hole_end {
        b[end_of_lines..hole_end].fill(0);
    }
}

/// The LSN that is the later, for horizons gathered over versions.
pub(super) fn later(a: Lsn, b: Lsn) -> Lsn {
    a.max(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_survives_encoding_and_short_items_have_none() {
        let h = Header {
            xmin: Xid::from_u64(0x0102_0304_0506_0708),
            xmax: Xid::from_u64(9),
            next: Tid::new(BlockNo::new(7), 3),
            mask: mask::HEAP_ONLY | mask::UPDATED,
            cid: 5,
        };
        let b = h.encode();
        assert_eq!(Header::decode(&b), Some(h));
        assert_eq!(Header::decode(&b[..27]), None);
    }
}
