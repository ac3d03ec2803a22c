//! A page: 8 KiB, a header, line pointers growing up, items growing down, a special area at the end.
//!
//! ```text
//! offset bytes field
//!  0     4     page LSN, high half        20  4  layout version
//!  4     4     page LSN, low half         24  8  newest hint LSN
//!  8     4     crc32c                     32  4n line pointers: offset 15 | flags 2 | length 15
//! 12     2     flags                      lower  end of the line pointers
//! 14     2     lower                      upper  start of the items
//! 16     2     upper                      special start of the special area, to the end
//! 18     2     special
//! ```
//! All little-endian. The checksum covers the page with the field zeroed, then relation, fork and block number, so a page
//! written to the wrong place does not verify. A page that verified may still hold nonsense (a bug wrote it): accessors
//! check every offset and answer `None`; they never panic.

use afterimage_wal::{BlockNo, Fork, Lsn, RelId};
use smallvec::SmallVec;

/// Bytes of a page.
pub const PAGE_SIZE: usize = 8192;
/// Bytes of the page header.
pub const HEADER_SIZE: usize = 32;
/// Bytes of a line pointer.
pub const LINE_POINTER_SIZE: usize = 4;
/// Layout version written into new pages.
pub const PAGE_VERSION: u32 = 1;

const AT_CHECKSUM: usize = 8;
const AT_FLAGS: usize = 12;
const AT_LOWER: usize = 14;
const AT_UPPER: usize = 16;
const AT_SPECIAL: usize = 18;
const AT_VERSION: usize = 20;
const AT_HINT: usize = 24;

/// Flag: every row version on this heap page is visible to everyone (mirrors the visibility map).
pub const FLAG_ALL_VISIBLE: u16 = 1 << 0;
/// Flag: some line pointers may be unused.
pub const FLAG_HAS_FREE_LINES: u16 = 1 << 1;
/// Flag: an insert found no room here; prune first.
pub const FLAG_FULL: u16 = 1 << 2;
/// Flag: some row version on this heap page was ended, so pruning may find something. A hint.
pub const FLAG_PRUNABLE: u16 = 1 << 3;

/// Flag: this page of a visibility map has two bits per heap block.
pub const FLAG_FROZEN_BITS: u16 = 1 << 4;

/// What a line pointer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinePointer {
    /// Free for reuse.
    Unused,
    /// An item: byte offset in the page and length.
    Normal {
        /// Byte offset.
        offset: u16,
        /// Bytes.
        len: u16,
    },
    /// Look at this other line pointer instead (the root of a pruned HOT chain).
    Redirect(u16),
    /// Dead; index entries may still point here.
    Dead,
}

impl LinePointer {
    fn decode(raw: u32) -> Self {
        let low15 = |v: u32| u16::try_from(v & 0x7fff).unwrap_or(0);
        let (offset, flags, len) = (low15(raw), (raw >> 15) & 3, low15(raw >> 17));
        match flags {
            1 => Self::Normal { offset, len },
            2 => Self::Redirect(offset),
            3 => Self::Dead,
            _ => Self::Unused,
        }
    }

    fn encode(self) -> u32 {
        match self {
            Self::Unused => 0,
            Self::Normal { offset, len } => u32::from(offset & 0x7fff) | 1 << 15 | u32::from(len & 0x7fff) << 17,
            Self::Redirect(to) => u32::from(to & 0x7fff) | 2 << 15,
            Self::Dead => 3 << 15,
        }
    }
}

/// One page in memory. Line pointers ("offsets", as in a `Tid`) count from 1.
#[derive(Clone)]
pub struct Page([u8; PAGE_SIZE]);

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Page {{ lsn: {}, lines: {}, free: {} }}", self.lsn(), self.max_offset(), self.free_space())
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::zeroed()
    }
}

/// `usize` to `u16` for positions inside a page, which are at most 8192.
fn small(v: usize) -> u16 {
    u16::try_from(v).unwrap_or(u16::MAX)
}

impl Page {
    /// All zeroes: not a valid page on disk.
    pub const fn zeroed() -> Self {
        Self([0; PAGE_SIZE])
    }

    /// The raw bytes.
    pub fn bytes(&self) -> &[u8; PAGE_SIZE] {
        &self.0
    }

    /// The raw bytes, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8; PAGE_SIZE] {
        &mut self.0
    }

    /// Makes it an empty page with `special` bytes at the end. Everything else is zeroed, LSN included.
    pub fn init(&mut self, special: usize) {
        let special = special.min(PAGE_SIZE - HEADER_SIZE);
        self.0.fill(0);
        self.put_u16(AT_LOWER, small(HEADER_SIZE));
        self.put_u16(AT_UPPER, small(PAGE_SIZE - special));
        self.put_u16(AT_SPECIAL, small(PAGE_SIZE - special));
        self.put_u32(AT_VERSION, PAGE_VERSION);
    }

    /// Whether every byte is zero.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|b| *b == 0)
    }

    fn get_u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn put_u16(&mut self, at: usize, v: u16) {
        self.0[at..at + 2].copy_from_slice(&v.to_le_bytes());
    }

    fn get_u32(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn put_u32(&mut self, at: usize, v: u32) {
        self.0[at..at + 4].copy_from_slice(&v.to_le_bytes());
    }

    /// End of the newest record that changed this page.
    pub fn lsn(&self) -> Lsn {
        Lsn::from_u64(u64::from(self.get_u32(0)) << 32 | u64::from(self.get_u32(4)))
    }

    /// Sets the page LSN. Through a buffer use the write guard's `set_lsn`, which marks it dirty too.
    pub fn set_lsn(&mut self, lsn: Lsn) {
        let v = lsn.as_u64();
        self.put_u32(0, u32::try_from(v >> 32).unwrap_or(u32::MAX));
        self.put_u32(4, u32::try_from(v & 0xffff_ffff).unwrap_or(u32::MAX));
    }

    /// Newest LSN that must be durable before this page, for hints set on it.
    pub fn hint_lsn(&self) -> Lsn {
        Lsn::from_u64(u64::from(self.get_u32(AT_HINT)) | u64::from(self.get_u32(AT_HINT + 4)) << 32)
    }

    /// Raises the hint LSN to at least `lsn`.
    pub fn raise_hint_lsn(&mut self, lsn: Lsn) {
        if lsn > self.hint_lsn() {
            self.0[AT_HINT..AT_HINT + 8].copy_from_slice(&lsn.as_u64().to_le_bytes());
        }
    }

    /// Takes both LSNs back to at most `end`: WAL behind it is gone. Whether that changed anything.
    pub fn forget_after(&mut self, end: Lsn) -> bool {
        let ahead = self.lsn() > end || self.hint_lsn() > end;
        if self.lsn() > end {
            self.set_lsn(end);
        }
        if self.hint_lsn() > end {
            self.0[AT_HINT..AT_HINT + 8].copy_from_slice(&end.as_u64().to_le_bytes());
        }
        ahead
    }

    /// Header flags.
    pub fn flags(&self) -> u16 {
        self.get_u16(AT_FLAGS)
    }

    /// Whether all bits of `flag` are set.
    pub fn has_flag(&self, flag: u16) -> bool {
        self.flags() & flag == flag
    }

    /// Sets or clears header flags.
    pub fn set_flag(&mut self, flag: u16, on: bool) {
        let old = self.flags();
        self.put_u16(AT_FLAGS, if on { old | flag } else { old & !flag });
    }

    fn lower(&self) -> usize {
        usize::from(self.get_u16(AT_LOWER)).clamp(HEADER_SIZE, PAGE_SIZE)
    }

    fn upper(&self) -> usize {
        usize::from(self.get_u16(AT_UPPER)).clamp(self.lower(), PAGE_SIZE)
    }

    fn special_start(&self) -> usize {
        usize::from(self.get_u16(AT_SPECIAL)).clamp(HEADER_SIZE, PAGE_SIZE)
    }

    /// Number of line pointers, which is also the highest offset.
    pub fn max_offset(&self) -> u16 {
        small((self.lower() - HEADER_SIZE) / LINE_POINTER_SIZE)
    }

    /// Bytes between line pointers and items.
    pub fn raw_free_space(&self) -> usize {
        self.upper() - self.lower()
    }

    /// Bytes an item with a new line pointer may have.
    pub fn free_space(&self) -> usize {
        self.raw_free_space().saturating_sub(LINE_POINTER_SIZE)
    }

    /// The two ends that mean something: header with line pointers, and items with the special area. What lies between is free.
    pub fn used(&self) -> (&[u8], &[u8]) {
        (&self.0[..self.lower()], &self.0[self.upper()..])
    }

    /// Rebuilds a page from what [`Self::used`] gave, zeroes between; false if the two do not fit.
    pub fn set_used(&mut self, front: &[u8], back: &[u8]) -> bool {
        if front.len() < HEADER_SIZE || front.len() + back.len() > PAGE_SIZE {
            return false;
        }
        self.0.fill(0);
        self.0[..front.len()].copy_from_slice(front);
        self.0[PAGE_SIZE - back.len()..].copy_from_slice(back);
        true
    }

    /// The special area.
    pub fn special(&self) -> &[u8] {
        &self.0[self.special_start()..]
    }

    /// The special area, to change.
    pub fn special_mut(&mut self) -> &mut [u8] {
        let at = self.special_start();
        &mut self.0[at..]
    }

    fn line_at(&self, off: u16) -> Option<usize> {
        (off >= 1 && off <= self.max_offset()).then(|| HEADER_SIZE + (usize::from(off) - 1) * LINE_POINTER_SIZE)
    }

    /// The line pointer `off`; `Unused` past the end.
    pub fn line(&self, off: u16) -> LinePointer {
        self.line_at(off).map_or(LinePointer::Unused, |at| LinePointer::decode(self.get_u32(at)))
    }

    /// Sets line pointer `off`; false if there is none.
    pub fn set_line(&mut self, off: u16, lp: LinePointer) -> bool {
        match self.line_at(off) {
            Some(at) => {
                self.put_u32(at, lp.encode());
                true
            }
            None => false,
        }
    }

    /// Where item `off` begins and ends in [`bytes`](Self::bytes), if its line pointer is normal and sound.
    pub(crate) fn span(&self, off: u16) -> Option<(usize, usize)> {
        match self.line(off) {
            LinePointer::Normal { offset, len } => {
                let (start, end) = (usize::from(offset), usize::from(offset) + usize::from(len));
                (start >= self.lower() && end <= self.special_start()).then_some((start, end))
            }
            LinePointer::Unused | LinePointer::Redirect(_) | LinePointer::Dead => None,
        }
    }

    /// The item `off`, if its line pointer is normal and sound.
    pub fn item(&self, off: u16) -> Option<&[u8]> {
        self.span(off).map(|(start, end)| &self.0[start..end])
    }

    /// The item `off`, to change in place.
    pub fn item_mut(&mut self, off: u16) -> Option<&mut [u8]> {
        self.span(off).map(|(start, end)| &mut self.0[start..end])
    }

    /// Adds an item and returns its offset; `None` if it does not fit.
    ///
    /// With `at`, that line pointer is used: it must be unused, or the next new one (redo relies on this). Without, an unused
    /// one is taken if the page says there are some, else a new one.
    pub fn add_item(&mut self, item: &[u8], at: Option<u16>) -> Option<u16> {
        self.add_parts(item, &[], at)
    }

    /// As [`Self::add_item`], the item being one part behind the other.
    pub fn add_parts(&mut self, head: &[u8], tail: &[u8], at: Option<u16>) -> Option<u16> {
        let len = head.len() + tail.len();
        let next = self.max_offset() + 1;
        let off = match at {
            Some(off) if off == next || (off >= 1 && off < next && self.line(off) == LinePointer::Unused) => off,
            Some(_) => return None,
            None if self.has_flag(FLAG_HAS_FREE_LINES) => match (1..next).find(|o| self.line(*o) == LinePointer::Unused) {
                Some(off) => off,
                None => {
                    self.set_flag(FLAG_HAS_FREE_LINES, false);
                    next
                }
            },
            None => next,
        };
        let lower = if off == next { self.lower() + LINE_POINTER_SIZE } else { self.lower() };
        let upper = self.upper().checked_sub(len)?;
        if upper < lower || self.upper() > self.special_start() {
            return None;
        }
        self.0[upper..upper + head.len()].copy_from_slice(head);
        self.0[upper + head.len()..upper + len].copy_from_slice(tail);
        self.put_u16(AT_LOWER, small(lower));
        self.put_u16(AT_UPPER, small(upper));
        self.set_line(off, LinePointer::Normal { offset: small(upper), len: small(len) });
        Some(off)
    }

    /// Inserts an item as line pointer `off`, moving that one and later ones up (ordered pages: B-tree). False if it does not fit.
    pub fn insert_item(&mut self, off: u16, item: &[u8]) -> bool {
        let count = self.max_offset();
        if off < 1 || off > count + 1 || self.upper() > self.special_start() {
            return false;
        }
        let (lower, upper) = (self.lower(), self.upper());
        let Some(new_upper) = upper.checked_sub(item.len()) else { return false };
        if new_upper < lower + LINE_POINTER_SIZE {
            return false;
        }
        let at = HEADER_SIZE + (usize::from(off) - 1) * LINE_POINTER_SIZE;
        self.0.copy_within(at..lower, at + LINE_POINTER_SIZE);
        self.0[new_upper..upper].copy_from_slice(item);
        self.put_u32(at, LinePointer::Normal { offset: small(new_upper), len: small(item.len()) }.encode());
        self.put_u16(AT_LOWER, small(lower + LINE_POINTER_SIZE));
        self.put_u16(AT_UPPER, small(new_upper));
        true
    }

    /// Removes line pointers `offs` (ascending) for good, moving later ones down, then compacts (ordered pages: B-tree).
    pub fn remove_items(&mut self, offs: &[u16]) {
        let count = self.max_offset();
        let mut gone = offs.iter().copied().peekable();
        let mut keep = 0_usize;
        for off in 1..=count {
            if gone.peek() == Some(&off) {
                gone.next();
                continue;
            }
            let raw = self.line(off).encode();
            self.put_u32(HEADER_SIZE + keep * LINE_POINTER_SIZE, raw);
            keep += 1;
        }
        self.put_u16(AT_LOWER, small(HEADER_SIZE + keep * LINE_POINTER_SIZE));
        self.compact();
    }

    /// Drops unused line pointers at the end. Only for pages whose vacuum already cleared every reference to them.
    pub fn trim_unused_lines(&mut self) {
        let mut count = self.max_offset();
        while count > 0 && self.line(count) == LinePointer::Unused {
            count -= 1;
        }
        self.put_u16(AT_LOWER, small(HEADER_SIZE + usize::from(count) * LINE_POINTER_SIZE));
    }

    /// Notes whether a line pointer may be taken again.
    pub fn note_free_lines(&mut self) {
        let any = (1..=self.max_offset()).any(|off| self.line(off) == LinePointer::Unused);
        self.set_flag(FLAG_HAS_FREE_LINES, any);
    }

    /// Moves all items to the end, closing the gaps; line pointers keep their numbers. Unsound line pointers are left alone and
    /// the page is then not compacted.
    pub fn compact(&mut self) {
        let count = self.max_offset();
        // Line pointer, start, end.
        let mut live: SmallVec<[(u16, usize, usize); 128]> = SmallVec::new();
        let mut any_unused = false;
        for off in 1..=count {
            match self.line(off) {
                LinePointer::Normal { .. } => match self.span(off) {
                    Some((start, end)) => live.push((off, start, end)),
                    None => return,
                },
                LinePointer::Unused => any_unused = true,
                LinePointer::Redirect(_) | LinePointer::Dead => {}
            }
        }
        let total: usize = live.iter().map(|(_, s, e)| e - s).sum();
        if total > self.special_start() - self.lower() {
            return;
        }
        live.sort_unstable_by_key(|(_, start, _)| std::cmp::Reverse(*start));
        // Highest item first: it moves up into space nothing else still needs. Not so if two items overlap: then they come from a copy.
        let overlap = live.windows(2).any(|pair| pair[1].2 > pair[0].1);
        #[expect(clippy::unnecessary_lazy_evaluations, reason = "a copy of 8 KB")]
        let copy = overlap.then(|| self.0);
        let mut upper = self.special_start();
        for (off, start, end) in live {
            let len = end - start;
            upper -= len;
            if upper == start && !overlap {
                continue;
            }
            match &copy {
                Some(copy) => self.0[upper..upper + len].copy_from_slice(&copy[start..end]),
                None => self.0.copy_within(start..end, upper),
            }
            self.set_line(off, LinePointer::Normal { offset: small(upper), len: small(len) });
        }
        self.put_u16(AT_UPPER, small(upper));
        self.set_flag(FLAG_HAS_FREE_LINES, any_unused);
    }

    /// Stored checksum.
    pub fn stored_checksum(&self) -> u32 {
        self.get_u32(AT_CHECKSUM)
    }

    /// The checksum this content has at this place.
    pub fn checksum(&self, rel: RelId, fork: Fork, block: BlockNo) -> u32 {
        let mut place = [0_u8; 17];
        place[0..4].copy_from_slice(&rel.spc.to_le_bytes());
        place[4..8].copy_from_slice(&rel.db.to_le_bytes());
        place[8..12].copy_from_slice(&rel.rel.to_le_bytes());
        place[12..16].copy_from_slice(&block.get().to_le_bytes());
        place[16] = fork.as_u8();
        let crc = crc32c::crc32c(&self.0[..AT_CHECKSUM]);
        let crc = crc32c::crc32c_append(crc, &[0; 4]);
        let crc = crc32c::crc32c_append(crc, &self.0[AT_FLAGS..]);
        crc32c::crc32c_append(crc, &place)
    }

    /// Stores the checksum for this place; done on the copy that goes to disk.
    pub fn stamp(&mut self, rel: RelId, fork: Fork, block: BlockNo) {
        let crc = self.checksum(rel, fork, block);
        self.put_u32(AT_CHECKSUM, crc);
    }

    /// Whether it verifies at this place. A zero page does not.
    pub fn verifies(&self, rel: RelId, fork: Fork, block: BlockNo) -> bool {
        self.stored_checksum() == self.checksum(rel, fork, block) && self.get_u32(AT_VERSION) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (RelId, Fork, BlockNo) {
        (RelId::new(1663, 5, 16384), Fork::Main, BlockNo::new(7))
    }

    #[test]
    fn items_survive_compaction_and_keep_their_offsets() {
        let mut page = Page::zeroed();
        page.init(16);
        let mut offs = Vec::new();
        while let Some(off) = page.add_item(&[u8::try_from(offs.len() % 251).unwrap(); 100], None) {
            offs.push(off);
        }
        assert_eq!(offs.len(), (PAGE_SIZE - HEADER_SIZE - 16) / 104);
        for off in offs.iter().step_by(2) {
            page.set_line(*off, LinePointer::Unused);
        }
        let before = page.raw_free_space();
        page.compact();
        assert!(page.raw_free_space() >= before + 100 * (offs.len() / 2));
        for (i, off) in offs.iter().enumerate() {
            let want = (i % 2 == 1).then(|| vec![u8::try_from(i % 251).unwrap(); 100]);
            assert_eq!(page.item(*off).map(<[u8]>::to_vec), want);
        }
        assert_eq!(page.add_item(b"x", None), Some(1));
    }

    #[test]
    fn insert_and_remove_keep_order() {
        let mut page = Page::zeroed();
        page.init(8);
        for i in 0..50_u8 {
            assert!(page.insert_item(u16::from(i / 2) + 1, &[i; 9]));
        }
        let count = page.max_offset();
        page.remove_items(&[1, 2, 50]);
        assert_eq!(page.max_offset(), count - 3);
        assert!((1..=page.max_offset()).all(|o| page.item(o).is_some_and(|i| i.len() == 9)));
    }

    #[test]
    fn checksum_covers_every_byte_and_the_place() {
        let (rel, fork, block) = place();
        let mut page = Page::zeroed();
        assert!(!page.verifies(rel, fork, block));
        page.init(0);
        page.stamp(rel, fork, block);
        assert!(page.verifies(rel, fork, block));
        assert!(!page.verifies(rel, fork, BlockNo::new(8)) && !page.verifies(rel, Fork::Vm, block));
        for at in 0..PAGE_SIZE {
            page.bytes_mut()[at] ^= 0x10;
            assert!(!page.verifies(rel, fork, block), "byte {at}");
            page.bytes_mut()[at] ^= 0x10;
        }
    }

    #[test]
    fn nonsense_never_panics() {
        let mut page = Page::zeroed();
        for seed in 0..2000_u32 {
            let mut x = seed.wrapping_mul(2_654_435_761).max(1);
            for b in &mut page.bytes_mut()[..600] {
                x ^= x << 13;
                x ^= x >> 17;
                x ^= x << 5;
                *b = x.to_le_bytes()[0];
            }
            for off in 0..=page.max_offset().min(300) {
                let _item = page.item(off);
            }
            let _used = page.used();
            let mut copy = page.clone();
            copy.compact();
            copy.insert_item(1, b"abc");
            copy.remove_items(&[1, 3]);
            copy.add_item(b"abc", None);
            copy.trim_unused_lines();
            let _special = copy.special_mut();
        }
    }
}
