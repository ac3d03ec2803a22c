//! Range scans in both directions.
//!
//! A scan copies the matching entries of one leaf at a time and holds no latch and (unless asked to) no pin in between. Its position
//! is a key and tid, so it can go on after any change of the tree: an entry that was there all the time is returned exactly
//! once. The block it expects next is a hint, checked against the fences.

use std::sync::Arc;

use afterimage_wal::{BlockNo, Fork};

use super::alloc::{horizon, in_recovery};
use super::descend::{Fit, Target, as_node, find_read, fit, sound};
use super::node::{self, Item, KeyBuf, Node, Pos};
use crate::access::{AccessCtx, AccessError, RelHandle, Tid};
use crate::storage::Buffer;
use crate::txn::{Serializable, Snapshot};

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending.
    Forward,
    /// Descending.
    Backward,
}

/// Keys from `lower` (inclusive) up to `upper` (exclusive, `None`: no bound).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    lower: KeyBuf,
    upper: Option<KeyBuf>,
}

impl KeyRange {
    /// All keys.
    pub fn all() -> Self {
        Self::default()
    }

    /// Keys that begin with `prefix`: with encoded columns, equality of the leading ones.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self { lower: KeyBuf::from_slice(prefix), upper: successor(prefix) }
    }

    /// From `lower` to `upper`, as bytes.
    pub fn between(lower: &[u8], upper: Option<&[u8]>) -> Self {
        Self { lower: KeyBuf::from_slice(lower), upper: upper.map(KeyBuf::from_slice) }
    }

    /// Narrows to keys at or after everything that begins with `prefix` (`>=`).
    #[must_use]
    pub fn at_least(mut self, prefix: &[u8]) -> Self {
        if *self.lower < *prefix {
            self.lower = KeyBuf::from_slice(prefix);
        }
        self
    }

    /// Narrows to keys after everything that begins with `prefix` (`>`).
    #[must_use]
    pub fn above(self, prefix: &[u8]) -> Self {
        match successor(prefix) {
            Some(next) => self.at_least(&next),
            // Nothing is after a run of 0xFF: an empty range.
            None => self.below(&[]),
        }
    }

    /// Narrows to keys before everything that begins with `prefix` (`<`).
    #[must_use]
    pub fn below(mut self, prefix: &[u8]) -> Self {
        if self.upper.as_ref().is_none_or(|u| **u > *prefix) {
            self.upper = Some(KeyBuf::from_slice(prefix));
        }
        self
    }

    /// Narrows to keys up to and including everything that begins with `prefix` (`<=`).
    #[must_use]
    pub fn at_most(self, prefix: &[u8]) -> Self {
        match successor(prefix) {
            Some(next) => self.below(&next),
            None => self,
        }
    }

    /// Whether nothing can match.
    pub fn is_empty(&self) -> bool {
        self.upper.as_ref().is_some_and(|u| *u <= self.lower)
    }
}

/// The least byte string after all that begin with `prefix`; `None` if there is none.
pub fn successor(prefix: &[u8]) -> Option<KeyBuf> {
    let last = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut next = KeyBuf::from_slice(&prefix[..=last]);
    next[last] += 1;
    Some(next)
}

/// What a scan should keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanOptions {
    /// Return keys and what entries carry too, not only tids.
    pub keys: bool,
    /// Keep the leaf pinned while its entries are returned. Vacuum waits for the pin before it removes entries, so a row version that
    /// an entry names is not replaced meanwhile. Index-only scans need it; others look at the row itself.
    pub pin: bool,
}

enum Resume {
    /// Nothing read yet.
    Start,
    /// Forward: from here on. Backward: before here. The block is where it probably is.
    At(KeyBuf, u64, BlockNo),
    /// Nothing more to read.
    Done,
}

/// Entries returned by the first fill; later ones return all of a leaf. Keeps `LIMIT 1` cheap.
const FIRST_BATCH: usize = 16;

/// An entry's tid, and where in the batch's `keys` its key and what it carries end.
#[derive(Clone, Copy)]
struct BatchEntry {
    tid: Tid,
    key_end: u32,
    end: u32,
}

/// Entries copied from a leaf.
struct Batch {
    with_keys: bool,
    skip_killed: bool,
    /// Keys one after the other, each followed by what its entry carries.
    keys: Vec<u8>,
    entries: Vec<BatchEntry>,
    limit: usize,
}

/// A scan. Owned by its caller, holds no latch between calls.
pub struct Scan {
    rel: RelHandle,
    range: KeyRange,
    direction: Direction,
    options: ScanOptions,
    resume: Resume,
    batch: Batch,
    at: usize,
    pin: Option<Buffer>,
    /// Where the batch came from and which of its rows the caller found dead to everyone.
    leaf: BlockNo,
    dead: Vec<Tid>,
    /// Marks the keys it reads.
    serializable: Option<Arc<Serializable>>,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scan({}, {:?}, {} of {} in batch)", self.rel.file, self.direction, self.at, self.batch.entries.len())
    }
}

impl Scan {
    /// A scan that has not started.
    pub fn new(rel: &RelHandle, range: KeyRange, direction: Direction, options: ScanOptions) -> Self {
        Self {
            rel: *rel,
            range,
            direction,
            options,
            resume: Resume::Start,
            batch: Batch { with_keys: options.keys, skip_killed: true, keys: Vec::new(), entries: Vec::new(), limit: FIRST_BATCH },
            at: 0,
            pin: None,
            leaf: BlockNo::INVALID,
            dead: Vec::new(),
            serializable: None,
        }
    }

    /// A scan for what `snapshot` sees: a serializable transaction marks the keys that are read, leaf by leaf.
    #[must_use]
    pub fn reading_for(mut self, snapshot: &Snapshot) -> Self {
        self.serializable = snapshot.serializable().filter(|_| self.rel.is_marked()).cloned();
        self
    }

    /// Marks what a fill reads, from `target` up or down to `next`; the leaf is latched.
    fn mark(&self, target: &Target<'_>, next: &Resume) {
        let Some(s) = &self.serializable else { return };
        // Just after the key: other rows' entries for it count as read.
        let after = |key: &[u8]| [key, &[0]].concat();
        let (lower, upper) = match (self.direction, target) {
            (Direction::Forward, Target::At((key, _))) => {
                let upper = if let Resume::At(key, ..) = next { Some(after(key)) } else { self.range.upper.as_ref().map(|u| u.to_vec()) };
                (key.to_vec(), upper)
            }
            (_, target) => {
                let lower = if let Resume::At(key, ..) = next { key.to_vec() } else { self.range.lower.to_vec() };
                let upper =
                    if let Target::Before((key, tid)) = target { Some(if *tid == 0 { key.to_vec() } else { after(key) }) } else { None };
                (lower, upper)
            }
        };
        s.reads_keys(self.rel.file, &lower, upper.as_deref());
    }

    /// Starts again with another range, keeping memory.
    pub fn restart(&mut self, range: KeyRange) {
        self.range = range;
        self.resume = Resume::Start;
        self.batch.clear();
        self.batch.limit = FIRST_BATCH;
        self.at = 0;
        self.pin = None;
        self.dead.clear();
    }

    /// The next entry: its key (empty unless asked for) and tid.
    ///
    /// # Errors
    /// Storage; a damaged index.
    pub fn next(&mut self, ctx: &AccessCtx) -> Result<Option<(&[u8], Tid)>, AccessError> {
        while self.at >= self.batch.entries.len() {
            if !self.fill(ctx)? {
                return Ok(None);
            }
        }
        let tid = self.batch.entries[self.at].tid;
        self.at += 1;
        Ok(Some((self.last().key, tid)))
    }

    /// The entry last returned, as far as it was asked for.
    pub fn last(&self) -> Item<'_> {
        let Some(e) = self.at.checked_sub(1).and_then(|i| self.batch.entries.get(i)) else { return Item::default() };
        let start = self.at.checked_sub(2).and_then(|i| self.batch.entries.get(i)).map_or(0, |before| before.end);
        let bytes = |from: u32, to: u32| self.batch.keys.get(to_usize(from)..to_usize(to)).unwrap_or(&[]);
        Item { key: bytes(start, e.key_end), carried: bytes(e.key_end, e.end) }
    }

    /// Tids that are at hand without reading another leaf, to fetch rows of the same heap block together.
    pub fn ready(&self) -> impl Iterator<Item = Tid> + '_ {
        self.batch.entries[self.at..].iter().map(|e| e.tid)
    }

    /// Says that the row last returned is dead to everyone, so that later scans can skip its entry. Applied when the batch is used up;
    /// never on a standby (the caller knows).
    pub fn mark_dead(&mut self) {
        if let Some(e) = self.at.checked_sub(1).and_then(|i| self.batch.entries.get(i)) {
            self.dead.push(e.tid);
        }
    }

    /// Ends the scan early: applies the marks and lets the pin go.
    ///
    /// # Errors
    /// Storage.
    pub fn end(&mut self, ctx: &AccessCtx) -> Result<(), AccessError> {
        self.apply_marks(ctx)?;
        self.pin = None;
        self.resume = Resume::Done;
        self.batch.clear();
        self.at = 0;
        Ok(())
    }

    fn apply_marks(&mut self, ctx: &AccessCtx) -> Result<(), AccessError> {
        if self.dead.is_empty() {
            return Ok(());
        }
        let horizon = horizon(ctx);
        let buffer = ctx.pool.read(self.rel.file, Fork::Main, self.leaf)?;
        // A mark is worth no wait.
        if let Some(mut page) = buffer.try_write() {
            let mut marks: Vec<(u16, u64)> = Vec::new();
            if let Some(node) = Node::new(&page).filter(|n| n.is_leaf() && !n.is_deleted()) {
                for i in 0..node.count() {
                    if let Some(e) = node.entry(i)
                        && self.dead.contains(&Tid::from_u64(e.tid))
                    {
                        marks.push((i, e.tid));
                    }
                }
            }
            for (i, tid) in marks {
                if node::kill(&mut page, i, tid) {
                    page.mark_dirty_hint(horizon);
                }
            }
        }
        self.dead.clear();
        Ok(())
    }

    /// Reads the next batch. False at the end.
    fn fill(&mut self, ctx: &AccessCtx) -> Result<bool, AccessError> {
        self.apply_marks(ctx)?;
        self.pin = None;
        self.batch.clear();
        self.at = 0;
        if self.range.is_empty() {
            self.resume = Resume::Done;
        }
        self.batch.skip_killed = !in_recovery(ctx);
        let rel = self.rel;
        let resume = std::mem::replace(&mut self.resume, Resume::Done);
        let (target, hint) = match (&resume, self.direction) {
            (Resume::Done, _) => return Ok(false),
            (Resume::Start, Direction::Forward) => (Target::At((&self.range.lower, 0)), None),
            (Resume::Start, Direction::Backward) => match &self.range.upper {
                Some(upper) => (Target::Before((upper, 0)), None),
                None => (Target::Last, None),
            },
            (Resume::At(key, tid, block), Direction::Forward) => (Target::At((key, *tid)), Some(*block)),
            (Resume::At(key, tid, block), Direction::Backward) => (Target::Before((key, *tid)), Some(*block)),
        };
        let mut page = None;
        if let Some(hint) = hint.filter(|b| *b != BlockNo::INVALID) {
            let candidate = ctx.pool.read(rel.file, Fork::Main, hint)?.read_owned();
            if let Some(node) = Node::new(&candidate)
                && matches!(fit(&node, 0, &target), Some(Fit::Here))
            {
                page = Some(candidate);
            }
        }
        let page = match page {
            Some(page) => page,
            None => find_read(ctx, &rel, target, 0)?,
        };
        let block = page.buffer().block();
        let node = as_node(&rel, block, &page)?;
        self.leaf = block;
        let next = match (self.direction, &target) {
            (Direction::Forward, Target::At(pos)) => self.batch.copy_forward(&rel, &self.range, block, &node, *pos)?,
            (Direction::Backward, Target::Before(pos)) => self.batch.copy_backward(&rel, &self.range, block, &node, Some(*pos))?,
            (_, _) => self.batch.copy_backward(&rel, &self.range, block, &node, None)?,
        };
        self.mark(&target, &next);
        self.resume = next;
        if self.options.pin && !self.batch.entries.is_empty() {
            self.pin = Some(page.into_buffer());
        }
        self.batch.limit = usize::MAX;
        Ok(true)
    }
}

impl Batch {
    fn clear(&mut self) {
        self.keys.clear();
        self.entries.clear();
    }

    fn push(&mut self, node: &Node<'_>, e: &node::Entry<'_>) {
        let at = |keys: &[u8]| u32::try_from(keys.len()).unwrap_or(u32::MAX);
        if self.with_keys {
            self.keys.extend_from_slice(node.prefix());
            self.keys.extend_from_slice(e.suffix);
        }
        let key_end = at(&self.keys);
        if self.with_keys {
            self.keys.extend_from_slice(e.carried);
        }
        self.entries.push(BatchEntry { tid: Tid::from_u64(e.tid), key_end, end: at(&self.keys) });
    }

    fn copy_forward(
        &mut self,
        rel: &RelHandle,
        range: &KeyRange,
        block: BlockNo,
        node: &Node<'_>,
        pos: Pos<'_>,
    ) -> Result<Resume, AccessError> {
        let from = sound(rel, block, node.lower_bound(pos))?;
        let to = match &range.upper {
            Some(upper) => sound(rel, block, node.lower_bound((upper, 0)))?,
            None => node.count(),
        };
        for i in from..to {
            let e = sound(rel, block, node.entry(i))?;
            if self.entries.len() >= self.limit {
                return Ok(Resume::At(node.key_of(&e), e.tid, block));
            }
            if !(self.skip_killed && e.killed) {
                self.push(node, &e);
            }
        }
        if node.is_rightmost() {
            return Ok(Resume::Done);
        }
        let high = sound(rel, block, node.high())?;
        if range.upper.as_ref().is_some_and(|u| high >= (u, 0)) {
            return Ok(Resume::Done);
        }
        Ok(Resume::At(KeyBuf::from_slice(high.0), high.1, node.right()))
    }

    fn copy_backward(
        &mut self,
        rel: &RelHandle,
        range: &KeyRange,
        block: BlockNo,
        node: &Node<'_>,
        pos: Option<Pos<'_>>,
    ) -> Result<Resume, AccessError> {
        let from = sound(rel, block, node.lower_bound((&range.lower, 0)))?;
        let to = match pos {
            Some(pos) => sound(rel, block, node.lower_bound(pos))?,
            None => node.count(),
        };
        let mut last = None;
        for i in (from..to).rev() {
            if self.entries.len() >= self.limit
                && let Some((key, tid)) = last
            {
                return Ok(Resume::At(key, tid, block));
            }
            let e = sound(rel, block, node.entry(i))?;
            if !(self.skip_killed && e.killed) {
                self.push(node, &e);
            }
            if self.entries.len() >= self.limit {
                last = Some((node.key_of(&e), e.tid));
            }
        }
        let low = sound(rel, block, node.low())?;
        if (low.0.is_empty() && low.1 == 0) || low <= (&range.lower, 0) {
            return Ok(Resume::Done);
        }
        // There is no left link: the next fill descends again, once per leaf.
        Ok(Resume::At(KeyBuf::from_slice(low.0), low.1, BlockNo::INVALID))
    }
}

fn to_usize(v: u32) -> usize {
    usize::try_from(v).unwrap_or(usize::MAX)
}
