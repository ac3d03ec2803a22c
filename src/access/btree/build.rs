//! Building a whole index from sorted entries: nodes are filled one after the other, bottom up, and written as whole pages.
//!
//! Nobody else sees the index before the transaction that builds it commits, so nothing is latched for long and the order of
//! writing is free. Blocks are taken in order; the root, block 0, is written last.

use std::collections::VecDeque;

use afterimage_wal::{BlockNo, Fork, RecordBuilder, Xid, record::WILL_INIT, rmgr};

use super::alloc::extend;
use super::descend::{ROOT, damaged, latch_write, sound};
use super::insert::{INTERNAL_FILL, LEAF_FILL, check_size, log_pages};
use super::node::{self, Entry, Fence, Item, KeyBuf, NO_BLOCK, NodeBuilder, Shape, common_prefix, separator};
use super::record::PAGES;
use crate::access::{AccessCtx, AccessError, Persistence, RelHandle, Tid};
use crate::storage::{CriticalSection, OwnedWrite, PAGE_SIZE, Page, page::LINE_POINTER_SIZE};

/// Entries in ascending order of key, then tid. Lends, so that a merge of runs copies nothing.
pub trait SortedEntries {
    /// The next one.
    ///
    /// # Errors
    /// Reading a spilled run, or the source.
    fn next(&mut self) -> Result<Option<SortedEntry<'_>>, AccessError>;
}

/// One entry of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortedEntry<'a> {
    /// Key, and what it carries.
    pub item: Item<'a>,
    /// Row.
    pub tid: Tid,
    /// Whether the row counts for uniqueness; one that is deleted but still visible to some snapshot does not.
    pub live: bool,
}

/// Length of the part of a key that must be unique; `None`: this key conflicts with none.
pub type UniquePart<'a> = dyn Fn(&[u8]) -> Option<usize> + 'a;

/// How to build.
#[derive(Clone, Copy, Default)]
pub struct BuildOptions<'a> {
    /// `fillfactor` of leaves, percent; 90 if not given.
    pub fill: Option<usize>,
    /// For a unique index: what of a key must be unique. A key with a null that differs from every other has no such part.
    pub unique: Option<&'a UniquePart<'a>>,
}

impl std::fmt::Debug for BuildOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BuildOptions(fill {:?}, unique {})", self.fill, self.unique.is_some())
    }
}

/// What a build made, or why it stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Built {
    /// So many entries.
    Entries(u64),
    /// Two live rows with this key.
    Duplicate {
        /// The key.
        key: Vec<u8>,
        /// One row.
        first: Tid,
        /// The other.
        second: Tid,
    },
}

/// Makes an empty index in the relation's empty file.
///
/// # Errors
/// Storage, WAL.
pub fn create(ctx: &AccessCtx, rel: &RelHandle) -> Result<(), AccessError> {
    let mut out = Output::new(ctx, rel)?;
    let root = empty_root(rel)?;
    out.write_root(&root)?;
    write_init(ctx, rel)
}

fn empty_root(rel: &RelHandle) -> Result<Box<Page>, AccessError> {
    let shape = Shape { level: 0, right: NO_BLOCK, low: Fence::default(), high: Fence::default(), incomplete: false, deleted: false };
    Ok(sound(rel, ROOT, NodeBuilder::new(&shape))?.finish())
}

/// What an unlogged index is reset to: an empty one.
fn write_init(ctx: &AccessCtx, rel: &RelHandle) -> Result<(), AccessError> {
    if rel.persistence == Persistence::Unlogged {
        let root = empty_root(rel)?;
        ctx.pool.add_init_page(rel.file, &root)?;
    }
    Ok(())
}

/// Fills the relation's empty file with an index over `entries`.
///
/// # Errors
/// [`AccessError::KeyTooBig`]; storage, WAL; what `entries` and `check` give (the latter is called now and then: cancel).
pub fn build(
    ctx: &AccessCtx,
    rel: &RelHandle,
    entries: &mut dyn SortedEntries,
    options: &BuildOptions<'_>,
    check: &mut dyn FnMut() -> Result<(), AccessError>,
) -> Result<Built, AccessError> {
    let mut build = Build { out: Output::new(ctx, rel)?, levels: Vec::new(), fill: options.fill.unwrap_or(LEAF_FILL).clamp(10, 100) };
    let mut count = 0_u64;
    let mut last_live: Option<(KeyBuf, usize, Tid)> = None;
    while let Some(SortedEntry { item, tid, live }) = entries.next()? {
        check_size(&item)?;
        let key = item.key;
        if let Some(unique) = options.unique
            && live
            && let Some(len) = unique(key)
        {
            if let Some((last, last_len, first)) = &last_live
                && key.get(..len) == last.get(..*last_len)
            {
                return Ok(Built::Duplicate { key: key.to_vec(), first: *first, second: tid });
            }
            last_live = Some((KeyBuf::from_slice(key), len, tid));
        }
        build.add_to_leaf(&item, tid.as_u64())?;
        count += 1;
        if count.is_multiple_of(1024) {
            check()?;
        }
    }
    build.finish()?;
    write_init(ctx, rel)?;
    Ok(Built::Entries(count))
}

/// An entry of a node being filled, and where its bytes end.
#[derive(Clone, Copy)]
struct OpenEntry {
    tid: u64,
    child: BlockNo,
    key_end: usize,
    end: usize,
}

/// A node being filled: entries are kept until its fences are known.
struct Open {
    /// Block it will be written to.
    block: BlockNo,
    low: Fence,
    /// Keys one after the other, each followed by what its entry carries.
    keys: Vec<u8>,
    entries: Vec<OpenEntry>,
    /// What the low fence and whole entries take.
    bytes: usize,
    /// How many bytes of the low fence all entries begin with.
    shared: usize,
}

/// The fence between two entries of leaves: cut short, unless the keys on its left repeat. Then those on its right may do so as well, and share all of
/// their key with a whole fence.
fn leaf_fence(open: &Open, left: (&[u8], u64), right: (&[u8], u64)) -> Fence {
    /// A fence is stored twice, and once in the level above.
    const WHOLE_FENCE_BYTES: usize = 256;
    let repeats = open.entries.len() > 1 && open.key(open.entries.len() - 2) == open.key(open.entries.len() - 1);
    if repeats && left.0 != right.0 && right.0.len() <= WHOLE_FENCE_BYTES { Fence::new(right.0, 0) } else { separator(left, right) }
}

impl Open {
    fn new(block: BlockNo, low: Fence) -> Self {
        let bytes = low.key.len() + node::TID_SIZE + LINE_POINTER_SIZE;
        let shared = low.key.len();
        Self { block, low, keys: Vec::with_capacity(PAGE_SIZE), entries: Vec::with_capacity(512), bytes, shared }
    }

    /// Appends an entry; `overhead` is what it takes besides its bytes.
    fn push(&mut self, item: &Item<'_>, tid: u64, child: BlockNo, overhead: usize) {
        self.keys.extend_from_slice(item.key);
        let key_end = self.keys.len();
        self.keys.extend_from_slice(item.carried);
        self.entries.push(OpenEntry { tid, child, key_end, end: self.keys.len() });
        self.bytes += overhead + item.bytes();
    }

    /// Takes the last entry off.
    fn pop(&mut self, overhead: usize) -> (Vec<u8>, u64, BlockNo) {
        let Some(at) = self.entries.len().checked_sub(1) else { return (Vec::new(), 0, NO_BLOCK) };
        let item = self.item(at);
        let (key, bytes) = (item.key.to_vec(), item.bytes());
        let OpenEntry { tid, child, .. } = self.entries[at];
        self.keys.truncate(self.start(at));
        self.entries.truncate(at);
        self.bytes -= (overhead + bytes).min(self.bytes);
        (key, tid, child)
    }

    fn start(&self, i: usize) -> usize {
        if i == 0 { 0 } else { self.entries[i - 1].end }
    }

    fn key(&self, i: usize) -> &[u8] {
        &self.keys[self.start(i)..self.entries[i].key_end]
    }

    fn item(&self, i: usize) -> Item<'_> {
        let e = self.entries[i];
        Item { key: self.key(i), carried: &self.keys[e.key_end..e.end] }
    }
}

struct Build<'a> {
    out: Output<'a>,
    levels: Vec<Open>,
    fill: usize,
}

/// Bytes that fences and entries of a node may take.
const CAPACITY: usize = PAGE_SIZE - crate::storage::page::HEADER_SIZE - node::SPECIAL_SIZE;
/// Bytes of a leaf entry besides its own.
const OVERHEAD: usize = LINE_POINTER_SIZE + node::TID_SIZE;

impl Build<'_> {
    /// Makes sure that there is an open node of this level.
    fn open_level(&mut self, level: usize) {
        if level == self.levels.len() {
            let block = self.out.take_block();
            self.levels.push(Open::new(block, Fence::default()));
        }
    }

    /// Appends an entry to the open node of a level above the leaves.
    fn add(&mut self, level: usize, key: &[u8], tid: u64, child: BlockNo) -> Result<(), AccessError> {
        self.open_level(level);
        let item = OVERHEAD + 4 + key.len();
        let capacity = CAPACITY;
        let open = &self.levels[level];
        let fill = INTERNAL_FILL.max(self.fill.min(90));
        // Room for a high fence made of this key stays, whatever the fill (a separator may be a byte longer than the key on its left); an inner
        // node has at least two entries.
        let with_fence = |bytes: usize, key: &[u8]| bytes + key.len() + 1 + node::TID_SIZE + LINE_POINTER_SIZE;
        let full = open.bytes + item > (capacity * fill / 100).min(capacity) || with_fence(open.bytes + item, key) > capacity;
        if full && open.entries.len() > 1 {
            // The key that closes an inner node may be longer than what was kept free. Then the last entry moves on: for its own key there is room.
            if open.entries.len() > 2 && with_fence(open.bytes, key) > capacity {
                let (last_key, last_tid, last_child) = self.levels[level].pop(item - key.len());
                let right = self.out.take_block();
                let fence = Fence::new(&last_key, last_tid);
                let closed = std::mem::replace(&mut self.levels[level], Open::new(right, fence.clone()));
                self.close(level, closed, fence, right)?;
                self.levels[level].push(&Item::from(&last_key), last_tid, last_child, item - key.len());
                return self.add(level, key, tid, child);
            }
            let fence = Fence::new(key, tid);
            let right = self.out.take_block();
            let closed = std::mem::replace(&mut self.levels[level], Open::new(right, fence.clone()));
            self.close(level, closed, fence, right)?;
        }
        self.levels[level].push(&Item::from(key), tid, child, item - key.len());
        Ok(())
    }

    /// Appends an entry to the open leaf. What the fences will have in common is not stored with each entry, so more fit than their keys say.
    fn add_to_leaf(&mut self, item: &Item<'_>, tid: u64) -> Result<(), AccessError> {
        self.open_level(0);
        let (key, capacity) = (item.key, CAPACITY);
        let open = &self.levels[0];
        if let Some(last) = open.entries.len().checked_sub(1) {
            let left = (open.key(last), open.entries[last].tid);
            if left >= (key, tid) {
                return Err(damaged(&self.out.rel, open.block, "entries to build from are out of order"));
            }
            // As if a fence like this key closed the leaf behind it.
            let shared = common_prefix(&open.low.key, key).min(open.shared);
            let stored = open.bytes + OVERHEAD + item.bytes() - (open.entries.len() + 1) * shared;
            let fence = key.len() + 1 + node::TID_SIZE + LINE_POINTER_SIZE;
            if stored > (capacity * self.fill / 100).min(capacity) || stored + fence > capacity {
                let fence = leaf_fence(open, left, (key, tid));
                self.close_leaf(fence)?;
            }
        }
        let open = &mut self.levels[0];
        open.shared = common_prefix(&open.low.key, key).min(open.shared);
        open.push(item, tid, NO_BLOCK, OVERHEAD);
        Ok(())
    }

    /// Closes the open leaf and opens the next one, which begins at `fence`.
    fn close_leaf(&mut self, fence: Fence) -> Result<(), AccessError> {
        self.cut_leaf(&fence, false)?;
        let right = self.out.take_block();
        let closed = std::mem::replace(&mut self.levels[0], Open::new(right, fence.clone()));
        self.close(0, closed, fence, right)
    }

    /// If the open leaf is to end at a fence that has less in common with its entries than they have among themselves, they may not fit any
    /// longer: then a leaf of its first entries is closed first. `last`: it has no high fence, and nothing in common.
    fn cut_leaf(&mut self, high: &Fence, last: bool) -> Result<(), AccessError> {
        let open = &self.levels[0];
        let count = open.entries.len();
        let (overhead, capacity) = (OVERHEAD, CAPACITY);
        let shared = if last { 0 } else { common_prefix(&open.low.key, &high.key) };
        let fence = high.key.len() + overhead;
        if open.bytes - count * shared.min(open.shared) + fence <= capacity {
            return Ok(());
        }
        // From the end: as many as fit behind a low fence of their own, which may be as long as the longest of them.
        let mut first = count;
        let (mut bytes, mut longest) = (0, 0);
        while first > 1 {
            let item = open.item(first - 1);
            let key = item.key.len();
            let with = bytes + overhead + item.bytes();
            if with + overhead + key.max(longest) + 1 + fence > capacity * self.fill / 100 && first < count {
                break;
            }
            (first, bytes, longest) = (first - 1, with, key.max(longest));
        }
        if first == count {
            return Err(damaged(&self.out.rel, open.block, "an entry of a build does not fit its page"));
        }
        let seam = leaf_fence(open, (open.key(first - 1), open.entries[first - 1].tid), (open.key(first), open.entries[first].tid));
        let right = self.out.take_block();
        let mut rest = Open::new(right, seam.clone());
        for i in first..count {
            let item = open.item(i);
            rest.shared = common_prefix(&rest.low.key, item.key).min(rest.shared);
            rest.push(&item, open.entries[i].tid, NO_BLOCK, overhead);
        }
        for _ in first..count {
            self.levels[0].pop(overhead);
        }
        let closed = std::mem::replace(&mut self.levels[0], rest);
        self.close(0, closed, seam, right)
    }

    /// Writes a full node and tells the level above.
    fn close(&mut self, level: usize, open: Open, high: Fence, right: BlockNo) -> Result<(), AccessError> {
        let low = open.low.clone();
        let block = open.block;
        let page = self.image(level, &open, high, right)?;
        self.out.write(block, page)?;
        self.add(level + 1, &low.key, low.tid, block)
    }

    fn image(&self, level: usize, open: &Open, high: Fence, right: BlockNo) -> Result<Box<Page>, AccessError> {
        let shape = Shape {
            level: u16::try_from(level).map_err(|_| damaged(&self.out.rel, open.block, "too many levels"))?,
            right,
            low: open.low.clone(),
            high,
            incomplete: false,
            deleted: false,
        };
        let mut builder = sound(&self.out.rel, open.block, NodeBuilder::new(&shape))?;
        for i in 0..open.entries.len() {
            let OpenEntry { tid, child, .. } = open.entries[i];
            let item = open.item(i);
            if !builder.push_entry(item.key, &Entry { tid, child, suffix: &[], carried: item.carried, killed: false }) {
                return Err(damaged(&self.out.rel, open.block, "a node of a build does not fit its page"));
            }
        }
        Ok(builder.finish())
    }

    /// Closes all levels; the last becomes the root.
    fn finish(mut self) -> Result<(), AccessError> {
        if self.levels.is_empty() {
            let block = self.out.take_block();
            self.levels.push(Open::new(block, Fence::default()));
        }
        let mut level = 0;
        self.cut_leaf(&Fence::default(), true)?;
        loop {
            let open = std::mem::replace(&mut self.levels[level], Open::new(NO_BLOCK, Fence::default()));
            if level + 1 == self.levels.len() {
                // Nothing above: this is the root. Its own block was taken but is not needed.
                let page = self.image(level, &open, Fence::default(), NO_BLOCK)?;
                return self.out.write_root(&page);
            }
            self.close(level, open, Fence::default(), NO_BLOCK)?;
            level += 1;
        }
    }
}

/// Pages per record.
const PAGES_PER_RECORD: usize = 8;

/// Writes finished pages.
struct Output<'a> {
    ctx: &'a AccessCtx,
    rel: RelHandle,
    /// Block 0, kept for the root.
    root: OwnedWrite,
    next: u32,
    waiting: VecDeque<(BlockNo, Box<Page>)>,
}

impl<'a> Output<'a> {
    fn new(ctx: &'a AccessCtx, rel: &RelHandle) -> Result<Self, AccessError> {
        if ctx.pool.n_blocks(rel.file, Fork::Main)? != BlockNo::new(0) {
            return Err(damaged(rel, ROOT, "the file of an index to build is not empty"));
        }
        let root = extend(ctx, rel, 1)?.write_owned();
        Ok(Self { ctx, rel: *rel, root, next: 1, waiting: VecDeque::new() })
    }

    fn take_block(&mut self) -> BlockNo {
        let block = BlockNo::new(self.next);
        self.next += 1;
        block
    }

    fn write(&mut self, block: BlockNo, page: Box<Page>) -> Result<(), AccessError> {
        self.waiting.push_back((block, page));
        if self.waiting.len() >= PAGES_PER_RECORD {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), AccessError> {
        let Some(highest) = self.waiting.iter().map(|(b, _)| b.get()).max() else { return Ok(()) };
        let have = self.ctx.pool.n_blocks(self.rel.file, Fork::Main)?.get();
        if highest >= have {
            drop(extend(self.ctx, &self.rel, highest + 1 - have)?);
        }
        let mut record = RecordBuilder::new(rmgr::BTREE, PAGES, Xid::INVALID);
        let mut pages = Vec::with_capacity(self.waiting.len());
        let mut data = Vec::with_capacity(PAGE_SIZE);
        for (block, image) in &self.waiting {
            data.clear();
            node::pack(image, &mut data);
            record.block(self.rel.file, Fork::Main, *block, WILL_INIT, &data);
            pages.push(latch_write(self.ctx, &self.rel, *block)?);
        }
        CriticalSection::run("write built btree nodes", || -> Result<(), AccessError> {
            for ((_, image), page) in self.waiting.iter().zip(&mut pages) {
                node::replace(page, image);
            }
            let mut pages: Vec<&mut OwnedWrite> = pages.iter_mut().collect();
            log_pages(self.ctx, &self.rel, &record, &mut pages)
        });
        self.waiting.clear();
        Ok(())
    }

    fn write_root(&mut self, image: &Page) -> Result<(), AccessError> {
        self.flush()?;
        let mut data = Vec::with_capacity(PAGE_SIZE);
        node::pack(image, &mut data);
        let mut record = RecordBuilder::new(rmgr::BTREE, PAGES, Xid::INVALID);
        record.block(self.rel.file, Fork::Main, ROOT, WILL_INIT, &data);
        CriticalSection::run("write the root of a built btree", || -> Result<(), AccessError> {
            node::replace(&mut self.root, image);
            log_pages(self.ctx, &self.rel, &record, &mut [&mut self.root])
        });
        Ok(())
    }
}
