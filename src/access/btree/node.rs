//! A page as a node of the tree: fences, entries, search, and the changes that insert, split and merge make.
//!
//! ```text
//! line pointer   item
//! 1              low fence:  tid 6 | key            every entry here is >= it
//! 2              high fence: tid 6 | key            every entry here is <  it; empty on the rightmost node (no bound)
//! 3..            entries, ascending by (key, tid)
//!                leaf:      tid 6 | key without the prefix | [what it carries | its length 2]
//!                internal:  tid 6 | child 4 | key without the prefix; the first one's key is the low fence and stored empty
//! special        magic 2 | flags 2 | right sibling 4 | level 2 | prefix bytes 2 | reserved 4
//! ```
//! Keys order by bytes; equal keys order by tid, so every entry is unique. A fence or a separator is cut to the bytes that
//! tell its neighbours apart; tid (0,0) in one means "before every tid". All keys of a node lie between its fences, so they share
//! the fences' common prefix, which is stored once (it is the start of the low fence). A run of equal keys thus
//! costs ten bytes an entry.
//!
//! What an entry of a leaf carries besides its key (INCLUDE columns) orders nothing and is in no fence, so it never gets to the levels above. A bit
//! of the tid says that it is there: entries made before there was such a thing carry nothing, and may stand beside others.
//!
//! Every change here is a function of the node's logical content and its arguments, so that redo, which calls the same
//! functions, makes the same page.

use std::cmp::Ordering;

use afterimage_wal::BlockNo;
use smallvec::SmallVec;

use crate::access::heap::tuple::mask_space;
use crate::storage::page::{LINE_POINTER_SIZE, Page};

/// Bytes of the special area.
pub(super) const SPECIAL_SIZE: usize = 16;
/// First two bytes of the special area; also names the format (`A1`).
const MAGIC: u16 = 0xB7A1;
/// Line pointer of the first entry.
pub(super) const FIRST: u16 = 3;
/// Line pointers of the fences.
const LOW: u16 = 1;
const HIGH: u16 = 2;
/// Bytes of a tid at the start of an item.
pub(super) const TID_SIZE: usize = 6;
/// Bytes of a child block.
const CHILD_SIZE: usize = 4;

/// The longest entry: its key and what it carries. A node must hold two fences and an entry of this size. PostgreSQL's limit is 2704 bytes with its
/// tuple header of 8, so a key that fits there fits here.
pub const MAX_KEY_BYTES: usize = 2696;

/// This node is a leaf.
const FLAG_LEAF: u16 = 1;
/// The node was split and its parent does not know the new right sibling yet.
const FLAG_INCOMPLETE: u16 = 2;
/// The node left the tree; its content moved to a neighbour.
const FLAG_DELETED: u16 = 4;

/// No right sibling. Block 0 is the root, which is nobody's sibling.
pub(super) const NO_BLOCK: BlockNo = BlockNo::new(0);

/// A hint in the offset of a leaf entry's tid: the row version is dead to everyone. Offsets stay below 2^11.
const KILLED: u16 = 0x8000;
/// In the offset of a leaf entry's tid: it carries something.
const CARRIES: u16 = 0x4000;
/// Bytes of the length behind what an entry carries.
pub(super) const CARRIED_LEN: usize = 2;

/// Bytes of a key that mostly fit without allocation.
pub(super) type KeyBuf = SmallVec<[u8; 64]>;

/// A bound between nodes, owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fence {
    /// Key bytes, cut to what is needed.
    pub(super) key: KeyBuf,
    /// Tie-break; zero is before every tid.
    pub(super) tid: u64,
}

impl Fence {
    pub(super) fn new(key: &[u8], tid: u64) -> Self {
        Self { key: KeyBuf::from_slice(key), tid }
    }

    /// Decodes an item of line pointer 1 or 2, or the fence of a WAL record.
    pub(super) fn decode(item: &[u8]) -> Option<Self> {
        let (tid, key) = split_tid(item)?;
        Some(Self::new(key, tid))
    }

    pub(super) fn encode(&self, out: &mut ItemBuf) {
        push_tid(out, self.tid);
        out.extend_from_slice(&self.key);
    }

    pub(super) fn as_ref(&self) -> (&[u8], u64) {
        (&self.key, self.tid)
    }
}

/// A position in the order of entries: key, then tid.
pub(super) type Pos<'a> = (&'a [u8], u64);

fn split_tid(item: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = item.split_at_checked(TID_SIZE)?;
    let mut b = [0_u8; 8];
    b[2..].copy_from_slice(head);
    Some((u64::from_be_bytes(b), rest))
}

/// An entry's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Item<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// What it carries besides; nothing in most indexes.
    pub carried: &'a [u8],
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Item<'a> {
    fn from(key: &'a T) -> Self {
        Self { key: key.as_ref(), carried: &[] }
    }
}

impl Item<'_> {
    /// Bytes it takes on a leaf besides line pointer and tid, if nothing of the key is shared.
    pub(super) fn bytes(&self) -> usize {
        self.key.len() + carried_bytes(self.carried.len())
    }
}

/// Bytes that what an entry carries takes.
pub(super) fn carried_bytes(len: usize) -> usize {
    if len == 0 { 0 } else { len + CARRIED_LEN }
}

/// Splits what follows the tid of a leaf entry that carries something.
fn split_carried(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let (rest, len) = rest.split_last_chunk::<CARRIED_LEN>()?;
    rest.split_at_checked(rest.len().checked_sub(usize::from(u16::from_le_bytes(*len)))?)
}

/// Where items are put together: on the stack if they are short.
pub(super) type ItemBuf = SmallVec<[u8; 128]>;

fn push_tid(out: &mut ItemBuf, tid: u64) {
    out.extend_from_slice(&tid.to_be_bytes()[2..]);
}

/// The first eight bytes as a number that orders like them, padded with zeros. Equal heads decide nothing.
fn head_of(key: &[u8]) -> u64 {
    let mut b = [0; 8];
    let n = key.len().min(8);
    b[..n].copy_from_slice(&key[..n]);
    u64::from_be_bytes(b)
}

/// Length of the common start.
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// The shortest fence `f` with `left < f <= right`. `left < right` is given.
pub(super) fn separator(left: Pos<'_>, right: Pos<'_>) -> Fence {
    let common = common_prefix(left.0, right.0);
    if common < right.0.len() {
        // Either `left` ends here or its next byte is smaller.
        Fence::new(&right.0[..=common], 0)
    } else {
        Fence::new(right.0, right.1)
    }
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// Tid of a leaf entry (kill hint removed), tie-break of an internal one.
    pub(super) tid: u64,
    /// Child, on internal nodes.
    pub(super) child: BlockNo,
    /// Key without the node's prefix.
    pub(super) suffix: &'a [u8],
    /// What it carries besides.
    pub(super) carried: &'a [u8],
    /// The kill hint.
    pub(super) killed: bool,
}

/// A node, read only. Accessors answer `None` for what a sound node cannot have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node<'a> {
    page: &'a Page,
    prefix: &'a [u8],
    leaf: bool,
}

fn special_u16(page: &Page, at: usize) -> u16 {
    page.special().get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

fn put_special_u16(page: &mut Page, at: usize, v: u16) {
    if let Some(b) = page.special_mut().get_mut(at..at + 2) {
        b.copy_from_slice(&v.to_le_bytes());
    }
}

impl<'a> Node<'a> {
    /// The node on `page`; `None` if it is not one.
    pub(super) fn new(page: &'a Page) -> Option<Self> {
        if special_u16(page, 0) != MAGIC || page.special().len() != SPECIAL_SIZE {
            return None;
        }
        let flags = special_u16(page, 2);
        let low = page.item(LOW)?;
        page.item(HIGH)?;
        let prefix = low.get(TID_SIZE..TID_SIZE + usize::from(special_u16(page, 10)))?;
        Some(Self { page, prefix, leaf: flags & FLAG_LEAF != 0 })
    }

    fn flags(&self) -> u16 {
        special_u16(self.page, 2)
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.leaf
    }

    pub(super) fn is_incomplete(&self) -> bool {
        self.flags() & FLAG_INCOMPLETE != 0
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.flags() & FLAG_DELETED != 0
    }

    pub(super) fn level(&self) -> u16 {
        special_u16(self.page, 8)
    }

    /// The right sibling; [`NO_BLOCK`] on the rightmost node.
    pub(super) fn right(&self) -> BlockNo {
        self.page.special().get(4..8).map_or(NO_BLOCK, |b| BlockNo::new(u32::from_le_bytes([b[0], b[1], b[2], b[3]])))
    }

    pub(super) fn is_rightmost(&self) -> bool {
        self.right() == NO_BLOCK
    }

    pub(super) fn prefix(&self) -> &'a [u8] {
        self.prefix
    }

    /// Number of entries.
    pub(super) fn count(&self) -> u16 {
        self.page.max_offset().saturating_sub(FIRST - 1)
    }

    pub(super) fn low(&self) -> Option<Pos<'a>> {
        split_tid(self.page.item(LOW)?).map(|(tid, key)| (key, tid))
    }

    /// The high fence; of no meaning on the rightmost node.
    pub(super) fn high(&self) -> Option<Pos<'a>> {
        split_tid(self.page.item(HIGH)?).map(|(tid, key)| (key, tid))
    }

    /// Whether `pos` lies left of, in, or right of this node.
    pub(super) fn locate(&self, pos: Pos<'_>) -> Option<Ordering> {
        if pos < self.low()? {
            return Some(Ordering::Less);
        }
        if !self.is_rightmost() && pos >= self.high()? {
            return Some(Ordering::Greater);
        }
        Some(Ordering::Equal)
    }

    /// As [`locate`](Self::locate), for the entries just before `pos`: low < pos <= high.
    pub(super) fn locate_before(&self, pos: Pos<'_>) -> Option<Ordering> {
        let low = self.low()?;
        if pos <= low && !(low.0.is_empty() && low.1 == 0) {
            return Some(Ordering::Less);
        }
        if !self.is_rightmost() && pos > self.high()? {
            return Some(Ordering::Greater);
        }
        Some(Ordering::Equal)
    }

    /// Entry `i`, counted from 0.
    #[inline]
    pub(super) fn entry(&self, i: u16) -> Option<Entry<'a>> {
        let (raw, rest) = split_tid(self.page.item(FIRST.checked_add(i)?)?)?;
        if self.leaf {
            let killed = raw & u64::from(KILLED) != 0;
            let (suffix, carried) = if raw & u64::from(CARRIES) == 0 { (rest, &[][..]) } else { split_carried(rest)? };
            Some(Entry { tid: raw & !u64::from(KILLED | CARRIES), child: NO_BLOCK, suffix, carried, killed })
        } else {
            let (c, suffix) = rest.split_at_checked(CHILD_SIZE)?;
            let child = BlockNo::new(u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
            Some(Entry { tid: raw, child, suffix, carried: &[], killed: false })
        }
    }

    /// Whether the entry's key begins with `key`.
    pub(super) fn starts_with(&self, e: &Entry<'_>, key: &[u8]) -> bool {
        match key.strip_prefix(self.prefix) {
            Some(rest) => e.suffix.starts_with(rest),
            None => self.prefix.starts_with(key),
        }
    }

    /// Whether the entry's key is `key`.
    pub(super) fn key_is(&self, e: &Entry<'_>, key: &[u8]) -> bool {
        key.strip_prefix(self.prefix).is_some_and(|rest| rest == e.suffix)
    }

    /// Whole key of an entry.
    pub(super) fn key_of(&self, e: &Entry<'_>) -> KeyBuf {
        let mut key = KeyBuf::from_slice(self.prefix);
        key.extend_from_slice(e.suffix);
        key
    }

    /// Whole key and tid of entry `i`; for the first entry of an internal node, the low fence.
    pub(super) fn fence_of(&self, i: u16) -> Option<Fence> {
        if !self.leaf && i == 0 {
            let (key, tid) = self.low()?;
            return Some(Fence::new(key, tid));
        }
        let e = self.entry(i)?;
        Some(Fence { key: self.key_of(&e), tid: e.tid })
    }

    /// Index of the first entry at or after `pos`, which is `count` if there is none. `pos` may lie outside the node.
    ///
    /// On internal nodes the first entry counts as before everything.
    #[inline]
    pub(super) fn lower_bound(&self, pos: Pos<'_>) -> Option<u16> {
        let (key, tid) = pos;
        let count = self.count();
        let mut lo = u16::from(!self.leaf && count > 0);
        let mut hi = count;
        let head = key.get(..self.prefix.len()).unwrap_or(key);
        let suffix = match head.cmp(self.prefix) {
            Ordering::Less => return Some(lo),
            Ordering::Greater => return Some(count),
            Ordering::Equal => &key[self.prefix.len()..],
        };
        // Most comparisons end within the first eight bytes; those are compared as one number.
        let wanted = head_of(suffix);
        let skip = TID_SIZE + if self.leaf { 0 } else { CHILD_SIZE };
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            let (start, end) = self.page.span(FIRST.checked_add(mid)?)?;
            let at = start + skip;
            // The special area follows the items, so eight bytes are there.
            let eight = self.page.bytes().get(at..)?.first_chunk::<8>()?;
            let end = if self.leaf { self.key_end(start, end)? } else { end };
            let mask = match end.checked_sub(at)? {
                0 => 0,
                n if n < 8 => u64::MAX << (64 - 8 * n),
                _ => u64::MAX,
            };
            let less = match (u64::from_be_bytes(*eight) & mask).cmp(&wanted) {
                Ordering::Less => true,
                Ordering::Greater => false,
                Ordering::Equal => {
                    let e = self.entry(mid)?;
                    (e.suffix, e.tid) < (suffix, tid)
                }
            };
            if less {
                lo = mid + 1;
            } else {
                hi = mid;
            }
        }
        Some(lo)
    }

    /// Where the key of the leaf entry in these bytes of the page ends.
    #[inline]
    fn key_end(&self, start: usize, end: usize) -> Option<usize> {
        let [high, _] = CARRIES.to_be_bytes();
        if self.page.bytes().get(start + TID_SIZE - 2)? & high == 0 {
            return Some(end);
        }
        let len = self.page.bytes().get(start..end)?.last_chunk::<CARRIED_LEN>()?;
        end.checked_sub(CARRIED_LEN + usize::from(u16::from_le_bytes(*len)))
    }

    /// Index of the child that covers `pos`.
    #[inline]
    pub(super) fn child_index(&self, pos: Pos<'_>) -> Option<u16> {
        let i = self.lower_bound(pos)?;
        if i < self.count()
            && let Some(suffix) = pos.0.strip_prefix(self.prefix)
        {
            let e = self.entry(i)?;
            if (e.suffix, e.tid) == (suffix, pos.1) {
                return Some(i);
            }
        }
        i.checked_sub(1)
    }

    /// Index of the child that covers the entries just before `pos`.
    pub(super) fn child_index_before(&self, pos: Pos<'_>) -> Option<u16> {
        self.lower_bound(pos)?.checked_sub(1)
    }

    /// Bytes an item with a new line pointer may have.
    pub(super) fn free_space(&self) -> usize {
        self.page.free_space()
    }

    /// Bytes of entry `i` on the page, line pointer included.
    fn entry_bytes(&self, i: u16) -> Option<usize> {
        Some(self.page.item(FIRST.checked_add(i)?)?.len() + LINE_POINTER_SIZE)
    }
}

/// Writes a page without the hole in its middle: two bytes length of the front part, front part, back part.
pub(super) fn pack(page: &Page, out: &mut Vec<u8>) {
    let (front, back) = page.used();
    out.extend_from_slice(&u16::try_from(front.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(front);
    out.extend_from_slice(back);
}

/// Restores what [`pack`] wrote. False if the bytes cannot be a page.
pub(super) fn unpack(page: &mut Page, data: &[u8]) -> bool {
    let Some((len, rest)) = data.split_first_chunk::<2>() else { return false };
    let Some((front, back)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len))) else { return false };
    let bytes = page.bytes_mut();
    if front.len() + back.len() > bytes.len() {
        return false;
    }
    let back_at = bytes.len() - back.len();
    bytes[..front.len()].copy_from_slice(front);
    bytes[front.len()..back_at].fill(0);
    bytes[back_at..].copy_from_slice(back);
    Node::new(page).is_some()
}

/// What a node is besides its entries.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) level: u16,
    pub(super) right: BlockNo,
    pub(super) low: Fence,
    pub(super) high: Fence,
    pub(super) incomplete: bool,
    pub(super) deleted: bool,
}

impl Shape {
    /// The shape of an existing node.
    pub(super) fn of(node: &Node<'_>) -> Option<Self> {
        let (low, high) = (node.low()?, node.high()?);
        Some(Self {
            level: node.level(),
            right: node.right(),
            low: Fence::new(low.0, low.1),
            high: Fence::new(high.0, high.1),
            incomplete: node.is_incomplete(),
            deleted: node.is_deleted(),
        })
    }

    /// Bytes that all keys between the fences share.
    fn prefix_len(&self) -> usize {
        if self.right == NO_BLOCK { 0 } else { common_prefix(&self.low.key, &self.high.key) }
    }
}

/// Builds a node on a fresh page, entry by entry in ascending order.
pub(super) struct NodeBuilder {
    page: Box<Page>,
    prefix_len: usize,
    leaf: bool,
    item: ItemBuf,
}

impl NodeBuilder {
    /// An empty node. `None` if the fences do not fit, which valid ones do.
    pub(super) fn new(shape: &Shape) -> Option<Self> {
        let mut page = Box::new(Page::zeroed());
        page.init(SPECIAL_SIZE);
        let leaf = shape.level == 0;
        let mut flags = 0;
        for (on, flag) in [(leaf, FLAG_LEAF), (shape.incomplete, FLAG_INCOMPLETE), (shape.deleted, FLAG_DELETED)] {
            if on {
                flags |= flag;
            }
        }
        let prefix_len = shape.prefix_len();
        put_special_u16(&mut page, 0, MAGIC);
        put_special_u16(&mut page, 2, flags);
        page.special_mut()[4..8].copy_from_slice(&shape.right.get().to_le_bytes());
        put_special_u16(&mut page, 8, shape.level);
        put_special_u16(&mut page, 10, u16::try_from(prefix_len).ok()?);
        let mut item = ItemBuf::new();
        shape.low.encode(&mut item);
        if !page.insert_item(LOW, &item) {
            return None;
        }
        item.clear();
        shape.high.encode(&mut item);
        if !page.insert_item(HIGH, &item) {
            return None;
        }
        Some(Self { page, prefix_len, leaf, item })
    }

    /// Number of entries so far.
    pub(super) fn count(&self) -> u16 {
        self.page.max_offset() - (FIRST - 1)
    }

    /// Appends an entry of an internal node whose key is `head` followed by `tail`. False if it does not fit.
    pub(super) fn push(&mut self, tid: u64, child: BlockNo, head: &[u8], tail: &[u8]) -> bool {
        self.push_entry(head, &Entry { tid, child, suffix: tail, carried: &[], killed: false })
    }

    /// Appends an entry whose key is `head` followed by its suffix. False if it does not fit.
    pub(super) fn push_entry(&mut self, head: &[u8], e: &Entry<'_>) -> bool {
        let (child, tail) = (e.child, e.suffix);
        self.item.clear();
        let mut flags = 0;
        for (on, flag) in [(e.killed, KILLED), (!e.carried.is_empty(), CARRIES)] {
            if on {
                flags |= flag;
            }
        }
        push_tid(&mut self.item, e.tid | u64::from(flags));
        let first_internal = !self.leaf && self.count() == 0;
        if !self.leaf {
            self.item.extend_from_slice(&child.get().to_le_bytes());
        }
        if first_internal {
            self.item[..TID_SIZE].fill(0);
        } else if let Some(head) = head.get(self.prefix_len..) {
            self.item.extend_from_slice(head);
            self.item.extend_from_slice(tail);
        } else if let Some(tail) = tail.get(self.prefix_len - head.len()..) {
            self.item.extend_from_slice(tail);
        } else {
            return false;
        }
        push_carried(&mut self.item, e.carried);
        let at = self.page.max_offset() + 1;
        self.page.insert_item(at, &self.item)
    }

    /// Appends entries `range` of `node`.
    pub(super) fn copy(&mut self, node: &Node<'_>, range: std::ops::Range<u16>) -> bool {
        range.into_iter().all(|i| match node.entry(i) {
            Some(e) if !node.is_leaf() && i == 0 => match node.low() {
                Some((key, tid)) => self.push(tid, e.child, key, &[]),
                None => false,
            },
            Some(e) => self.push_entry(node.prefix, &e),
            None => false,
        })
    }

    /// The finished page.
    pub(super) fn finish(self) -> Box<Page> {
        self.page
    }
}

/// Replaces the content of `page`, keeping its LSNs.
pub(super) fn replace(page: &mut Page, with: &Page) {
    let (lsn, hint) = (page.lsn(), page.hint_lsn());
    *page = with.clone();
    page.set_lsn(lsn);
    page.raise_hint_lsn(hint);
}

/// Appends what an entry carries, and its length.
fn push_carried(out: &mut ItemBuf, carried: &[u8]) {
    if let Ok(len) = u16::try_from(carried.len())
        && len > 0
    {
        out.extend_from_slice(carried);
        out.extend_from_slice(&len.to_le_bytes());
    }
}

/// Encodes a leaf entry that goes to a node with `prefix_len` prefix bytes.
pub(super) fn encode_leaf_item(out: &mut ItemBuf, prefix_len: usize, item: &Item<'_>, tid: u64) {
    push_tid(out, if item.carried.is_empty() { tid } else { tid | u64::from(CARRIES) });
    out.extend_from_slice(item.key.get(prefix_len..).unwrap_or(&[]));
    push_carried(out, item.carried);
}

/// Encodes an entry that goes to an internal node with `prefix_len` prefix bytes.
pub(super) fn encode_item(out: &mut ItemBuf, prefix_len: usize, key: &[u8], tid: u64, child: BlockNo) {
    push_tid(out, tid);
    out.extend_from_slice(&child.get().to_le_bytes());
    out.extend_from_slice(key.get(prefix_len..).unwrap_or(&[]));
}

/// Puts an encoded item in as entry `i`. False if it does not fit.
pub(super) fn insert_entry(page: &mut Page, i: u16, item: &[u8]) -> bool {
    FIRST.checked_add(i).is_some_and(|off| page.insert_item(off, item))
}

/// Removes entries (ascending).
pub(super) fn remove_entries(page: &mut Page, entries: &[u16]) {
    let offs: Vec<u16> = entries.iter().filter_map(|i| FIRST.checked_add(*i)).collect();
    page.remove_items(&offs);
}

/// The parent knows the right sibling now.
pub(super) fn clear_incomplete(page: &mut Page) {
    let flags = special_u16(page, 2) & !FLAG_INCOMPLETE;
    put_special_u16(page, 2, flags);
}

/// Sets the kill hint of entry `i` if it still is `tid`. True if that changed something.
pub(super) fn kill(page: &mut Page, i: u16, tid: u64) -> bool {
    let Some(off) = FIRST.checked_add(i) else { return false };
    let Some(item) = page.item_mut(off) else { return false };
    let Some((raw, _)) = split_tid(item) else { return false };
    if raw & !u64::from(CARRIES) != tid {
        return false;
    }
    item[..TID_SIZE].copy_from_slice(&(raw | u64::from(KILLED)).to_be_bytes()[2..]);
    true
}

/// Hides what may differ between a node and its replica: kill hints, free space, checksum, hint LSN.
pub fn mask_page(page: &mut Page) {
    if Node::new(page).is_some_and(|node| node.is_leaf()) {
        for off in FIRST..=page.max_offset() {
            if let Some(item) = page.item_mut(off)
                && let Some((raw, _)) = split_tid(item)
            {
                item[..TID_SIZE].copy_from_slice(&(raw & !u64::from(KILLED)).to_be_bytes()[2..]);
            }
        }
    }
    mask_space(page);
}

/// Where to split and on which side the new entry belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Split {
    /// Entries that stay.
    pub(super) stay: u16,
    /// The new high fence here, low fence of the right sibling.
    pub(super) fence: Fence,
}

/// Chooses how to split `node` so that an entry `key, tid` of `item_bytes` can be inserted at `at` afterwards.
///
/// The sizes are balanced, except on a node that grows at its end, the rightmost or one that ends with a run of equal keys and gets the next of
/// them: there `fill` percent stay, so that ascending inserts, of tids too, leave full nodes behind. Near the chosen place the shortest separator
/// wins; if all there cut through a run of equal keys, one that does not is looked for further away. If with the new entry no place
/// leaves both sides small enough (long keys), the split is chosen as if there were no new entry; the caller inserts again.
/// An internal node needs at least two entries, and its right part begins with an old one.
pub(super) fn choose_split(node: &Node<'_>, at: u16, pos: Pos<'_>, item_bytes: usize, fill: usize) -> Option<Split> {
    let count = node.count();
    let mut sizes: SmallVec<[usize; 600]> = SmallVec::new();
    for i in 0..count {
        sizes.push(node.entry_bytes(i)?);
    }
    let new = item_bytes + LINE_POINTER_SIZE;
    let fences = |f: &Fence| f.key.len() + TID_SIZE + LINE_POINTER_SIZE;
    let shape = Shape::of(node)?;
    let capacity = crate::storage::page::PAGE_SIZE - crate::storage::page::HEADER_SIZE - SPECIAL_SIZE;
    let old: usize = sizes.iter().sum();
    let repeats = node.is_leaf() && count > 0 && node.key_is(&node.entry(count - 1)?, pos.0);
    let ascending = at == count && (node.is_rightmost() || repeats);

    // A candidate: `stay` old entries, the new one left or right (or not counted).
    let fence_at = |stay: u16, new_left: Option<bool>| -> Option<Fence> {
        if !node.is_leaf() {
            return node.fence_of(stay);
        }
        let new_last = new_left == Some(true) && at == stay;
        let new_first = new_left == Some(false) && at == stay;
        let left = if new_last { Fence::new(pos.0, pos.1) } else { node.fence_of(stay.checked_sub(1)?)? };
        let right = if new_first { Fence::new(pos.0, pos.1) } else { node.fence_of(stay)? };
        Some(separator(left.as_ref(), right.as_ref()))
    };
    let try_all = |with_new: bool| -> Option<Split> {
        let total = old + if with_new { new } else { 0 };
        let target = if ascending && with_new { capacity * fill / 100 } else { total / 2 };
        let mut ranked: Vec<(usize, u16, Option<bool>)> = Vec::with_capacity(usize::from(count) + 2);
        let mut left = 0_usize;
        for stay in 0..=count {
            if stay > 0 {
                left += sizes[usize::from(stay) - 1];
            }
            let sides: &[Option<bool>] = if !with_new {
                &[None]
            } else if !node.is_leaf() {
                if at <= stay { &[Some(true)] } else { &[Some(false)] }
            } else if at < stay {
                &[Some(true)]
            } else if at > stay {
                &[Some(false)]
            } else {
                &[Some(true), Some(false)]
            };
            for side in sides {
                let left_bytes = left + if *side == Some(true) { new } else { 0 };
                let left_some = stay > 0 || *side == Some(true);
                let right_some = stay < count || *side == Some(false);
                let internal_ok = node.is_leaf() || (stay > 0 && stay < count);
                if left_some && right_some && internal_ok {
                    ranked.push((left_bytes.abs_diff(target), stay, *side));
                }
            }
        }
        ranked.sort_unstable();
        let window = if ascending { 1 } else { (usize::from(count) / 16).max(4) };
        let mut best: Option<(usize, Split)> = None;
        for (tried, (off, stay, side)) in ranked.iter().enumerate() {
            if let Some((_, found)) = &best
                && tried >= window
                && (ascending || found.fence.tid == 0 || *off > total / 4)
            {
                break;
            }
            let Some(fence) = fence_at(*stay, *side) else { continue };
            let kept: usize = sizes[..usize::from(*stay)].iter().sum();
            let (l, r) = match side {
                Some(true) => (kept + new, old - kept),
                Some(false) => (kept, old - kept + new),
                None => (kept, old - kept),
            };
            let f = fences(&fence);
            if l + f + fences(&shape.low) > capacity || r + f + fences(&shape.high) > capacity {
                continue;
            }
            let len = fence.key.len() + if fence.tid != 0 { TID_SIZE } else { 0 };
            // Beyond the window only a place between different keys is worth going to.
            let better = if tried < window { len } else { len + TID_SIZE * usize::from(fence.tid != 0) };
            if best.as_ref().is_none_or(|(b, _)| better < *b) {
                best = Some((len, Split { stay: *stay, fence }));
            }
        }
        best.map(|(_, s)| s)
    };
    try_all(true).or_else(|| try_all(false))
}

/// The right part of a split: entries from `stay` on, between `fence` and the node's high fence.
pub(super) fn split_right(node: &Node<'_>, stay: u16, fence: &Fence) -> Option<Box<Page>> {
    let shape = Shape { low: fence.clone(), ..Shape::of(node)? };
    let mut b = NodeBuilder::new(&shape)?;
    b.copy(node, stay..node.count()).then(|| b.finish())
}

/// The left part of a split: the first `stay` entries, up to `fence`, with `right` as its sibling, marked incomplete.
pub(super) fn split_left(page: &Page, stay: u16, fence: &Fence, right: BlockNo) -> Option<Box<Page>> {
    let node = Node::new(page)?;
    let shape = Shape { high: fence.clone(), right, incomplete: true, ..Shape::of(&node)? };
    let mut b = NodeBuilder::new(&shape)?;
    b.copy(&node, 0..stay.min(node.count())).then(|| b.finish())
}

/// Widens a node over its deleted left neighbour: a new low fence, and that neighbour's entries (children) in front.
/// `None` if that does not fit.
pub(super) fn widen_left(page: &Page, low: &Fence, moved: &[BlockNo]) -> Option<Box<Page>> {
    let node = Node::new(page)?;
    let shape = Shape { low: low.clone(), ..Shape::of(&node)? };
    let mut b = NodeBuilder::new(&shape)?;
    moved.iter().all(|child| b.push(0, *child, &low.key, &[])).then_some(())?;
    b.copy(&node, 0..node.count()).then(|| b.finish())
}

/// Widens a node over its deleted right neighbour: that one's high fence, right link, and entries behind.
/// The first moved entry's key is the old high fence. `None` if that does not fit.
pub(super) fn widen_right(page: &Page, high: &Fence, right: BlockNo, moved: &[BlockNo]) -> Option<Box<Page>> {
    let node = Node::new(page)?;
    let old = Shape::of(&node)?;
    let seam = old.high.clone();
    let shape = Shape { high: high.clone(), right, ..old };
    let mut b = NodeBuilder::new(&shape)?;
    b.copy(&node, 0..node.count()).then_some(())?;
    moved.iter().all(|child| b.push(seam.tid, *child, &seam.key, &[])).then(|| b.finish())
}

/// A node that left the tree.
pub(super) fn deleted_node(page: &Page) -> Option<Box<Page>> {
    let node = Node::new(page)?;
    let shape = Shape { deleted: true, incomplete: false, ..Shape::of(&node)? };
    NodeBuilder::new(&shape).map(NodeBuilder::finish)
}

/// Points the node's right link elsewhere (its right neighbour was deleted and that one's range went further right).
/// The high fence stays: it is the low fence of the new neighbour.
pub(super) fn set_right(page: &mut Page, right: BlockNo) {
    if let Some(b) = page.special_mut().get_mut(4..8) {
        b.copy_from_slice(&right.get().to_le_bytes());
    }
}

/// Removes child `i` of an internal node. With `to_right` its range goes to the next child: that child takes its place.
pub(super) fn remove_child(page: &Page, i: u16, to_right: bool) -> Option<Box<Page>> {
    let node = Node::new(page)?;
    let count = node.count();
    let shape = Shape::of(&node)?;
    let mut b = NodeBuilder::new(&shape)?;
    if to_right {
        let next = node.entry(i.checked_add(1)?)?.child;
        let at = node.fence_of(i)?;
        b.copy(&node, 0..i).then_some(())?;
        b.push(at.tid, next, &at.key, &[]).then_some(())?;
        b.copy(&node, i + 2..count).then_some(())?;
    } else {
        if i == 0 || i >= count {
            return None;
        }
        b.copy(&node, 0..i).then_some(())?;
        b.copy(&node, i + 1..count).then_some(())?;
    }
    Some(b.finish())
}
