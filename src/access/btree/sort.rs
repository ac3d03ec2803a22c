//! Sorting the entries of an index to be built, with as much memory as is given; the rest goes to a temporary file as sorted runs.
//!
//! As many runs are merged at once as there is memory for a block of each. Beyond that they are merged into one on the next level, which has a
//! file of its own, so that neither memory nor the number of open files grows with the number of runs.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::build::{SortedEntries, SortedEntry};
use super::insert::check_size;
use super::node::{Item, common_prefix};
use crate::access::{AccessError, Tid};

/// A temporary file: nothing is left of it once it is dropped, nor after a crash.
pub trait Scratch: Send {
    /// Writes bytes at a place.
    ///
    /// # Errors
    /// Full disk, more than a session may have, I/O.
    fn write_at(&mut self, bytes: &[u8], at: u64) -> Result<(), AccessError>;

    /// Fills `bytes` from a place.
    ///
    /// # Errors
    /// I/O, the file ends before.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> Result<(), AccessError>;
}

/// Opens temporary files.
pub type OpenScratch = Box<dyn Fn() -> Result<Box<dyn Scratch>, AccessError> + Send>;

/// Bytes of a run that are read or written together.
const BLOCK: usize = 16 << 10;

/// Where an entry's key lies, and enough of it to decide most comparisons.
struct Slot {
    /// Once sorting begins: eight bytes behind those that all keys begin with, big-endian, padded with zeros.
    head: u64,
    start: usize,
    len: u32,
    /// Bytes behind the key that the entry carries.
    carried: u16,
    live: bool,
    tid: u64,
}

impl Slot {
    fn item<'a>(&self, keys: &'a [u8]) -> Item<'a> {
        let end = self.start + usize::try_from(self.len).unwrap_or(0);
        let bytes = |range: std::ops::Range<usize>| keys.get(range).unwrap_or_default();
        Item { key: bytes(self.start..end), carried: bytes(end..end + usize::from(self.carried)) }
    }
}

/// Takes entries in any order.
pub struct Sorter {
    open: OpenScratch,
    budget_bytes: usize,
    keys: Vec<u8>,
    slots: Vec<Slot>,
    /// How many bytes all keys in memory begin with alike.
    shared: usize,
    levels: Vec<Level>,
    spilled_bytes: u64,
}

/// Runs that were merged equally often: where each begins and ends in their file.
struct Level {
    file: Box<dyn Scratch>,
    runs: Vec<(u64, u64)>,
}

impl std::fmt::Debug for Sorter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sorter({} in memory, {} runs, {} bytes spilled)", self.slots.len(), self.run_count(), self.spilled_bytes)
    }
}

fn head(key: &[u8]) -> u64 {
    let mut b = [0; 8];
    let n = key.len().min(8);
    b[..n].copy_from_slice(&key[..n]);
    u64::from_be_bytes(b)
}

impl Sorter {
    /// Sorts with about `budget_bytes` of memory (`maintenance_work_mem`).
    pub fn new(open: OpenScratch, budget_bytes: usize) -> Self {
        Self {
            open,
            budget_bytes: budget_bytes.max(64 * 1024),
            keys: Vec::new(),
            slots: Vec::new(),
            shared: 0,
            levels: Vec::new(),
            spilled_bytes: 0,
        }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`AccessError::KeyTooBig`]; writing a run: full disk, I/O.
    pub fn push<'a>(&mut self, item: impl Into<Item<'a>>, tid: Tid, live: bool) -> Result<(), AccessError> {
        let item = item.into();
        check_size(&item)?;
        let key = item.key;
        let used = self.keys.len() + self.slots.len() * size_of::<Slot>();
        if used + item.bytes() + size_of::<Slot>() > self.budget_bytes && !self.slots.is_empty() {
            self.spill()?;
            self.keep_few()?;
        }
        let start = self.keys.len();
        self.shared = match self.slots.first() {
            None => key.len(),
            // The first key is long enough: what is shared is a part of it.
            Some(_) => common_prefix(self.keys.get(..self.shared).unwrap_or_default(), key),
        };
        let too_big = |_| AccessError::KeyTooBig { size: item.bytes(), max: super::MAX_KEY_BYTES };
        let (len, carried) = (u32::try_from(key.len()).map_err(too_big)?, u16::try_from(item.carried.len()).map_err(too_big)?);
        self.keys.extend_from_slice(key);
        self.keys.extend_from_slice(item.carried);
        self.slots.push(Slot { head: 0, start, len, carried, live, tid: tid.as_u64() });
        Ok(())
    }

    /// Bytes written to runs so far.
    pub fn spilled_bytes(&self) -> u64 {
        self.spilled_bytes
    }

    fn sort(&mut self) {
        let (keys, shared) = (&self.keys, self.shared);
        let rest = |s: &Slot| &keys[s.start + shared..s.start + usize::try_from(s.len).unwrap_or(0)];
        for slot in &mut self.slots {
            slot.head = head(rest(slot));
        }
        // Of two keys with one head, the same length, and nothing behind it there is nothing to compare.
        let ends = |a: &Slot, b: &Slot| a.len == b.len && usize::try_from(a.len).is_ok_and(|len| len <= shared + size_of::<u64>());
        let order = |a: &Slot, b: &Slot| match a.head.cmp(&b.head) {
            Ordering::Equal if ends(a, b) => a.tid.cmp(&b.tid),
            Ordering::Equal => rest(a).cmp(rest(b)).then(a.tid.cmp(&b.tid)),
            different @ (Ordering::Less | Ordering::Greater) => different,
        };
        self.slots.sort_unstable_by(order);
    }

    fn run_count(&self) -> usize {
        self.levels.iter().map(|l| l.runs.len()).sum()
    }

    /// How many runs are merged at once.
    fn order(&self) -> usize {
        (self.budget_bytes / (2 * BLOCK)).clamp(4, 1024)
    }

    /// A level's file, and where its next run begins.
    fn level(&mut self, level: usize) -> Result<(&mut Level, u64), AccessError> {
        while self.levels.len() <= level {
            self.levels.push(Level { file: (self.open)()?, runs: Vec::new() });
        }
        let level = &mut self.levels[level];
        let end = level.runs.last().map_or(0, |(_, end)| *end);
        Ok((level, end))
    }

    fn spill(&mut self) -> Result<(), AccessError> {
        self.sort();
        let (keys, slots) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.slots));
        let (level, start) = self.level(0)?;
        let mut out = RunWriter { end: start, buf: Vec::with_capacity(2 * BLOCK) };
        for s in &slots {
            out.push(&mut *level.file, &s.item(&keys), s.tid, s.live)?;
        }
        let end = out.finish(&mut *level.file)?;
        level.runs.push((start, end));
        self.spilled_bytes += end - start;
        (self.keys, self.slots) = (keys, slots);
        self.keys.clear();
        self.slots.clear();
        Ok(())
    }

    /// Merges the runs of levels that have many.
    fn keep_few(&mut self) -> Result<(), AccessError> {
        let mut level = 0;
        while self.levels.get(level).is_some_and(|l| l.runs.len() >= self.order()) {
            self.merge(level)?;
            level += 1;
        }
        Ok(())
    }

    /// Makes one run of a level's, on the next.
    fn merge(&mut self, level: usize) -> Result<(), AccessError> {
        let whole = Level { file: (self.open)()?, runs: Vec::new() };
        let whole = match self.levels.get_mut(level) {
            Some(at) => std::mem::replace(at, whole),
            None => return Ok(()),
        };
        let mut merged = Merge::new(vec![whole], BLOCK)?;
        let (to, start) = self.level(level + 1)?;
        let mut out = RunWriter { end: start, buf: Vec::with_capacity(2 * BLOCK) };
        while let Some(run) = merged.next()? {
            out.push(&mut *to.file, &Item { key: &run.key, carried: &run.carried }, run.tid, run.live)?;
        }
        let end = out.finish(&mut *to.file)?;
        to.runs.push((start, end));
        self.spilled_bytes += end - start;
        Ok(())
    }

    /// Everything that was pushed, in order.
    ///
    /// # Errors
    /// As [`push`](Self::push), and reading runs.
    pub fn finish(mut self) -> Result<Sorted, AccessError> {
        if self.levels.is_empty() {
            self.sort();
            return Ok(Sorted(Source::Memory { keys: self.keys, slots: self.slots, at: 0 }));
        }
        self.spill()?;
        self.keys = Vec::new();
        self.slots = Vec::new();
        let mut level = 0;
        while self.run_count() > self.order() {
            self.merge(level)?;
            level += 1;
        }
        let buffer = (self.budget_bytes / self.run_count()).clamp(BLOCK, 256 << 10);
        Ok(Sorted(Source::Runs(Merge::new(self.levels, buffer)?)))
    }
}

/// Writes a run.
struct RunWriter {
    end: u64,
    buf: Vec<u8>,
}

impl RunWriter {
    fn push(&mut self, file: &mut dyn Scratch, item: &Item<'_>, tid: u64, live: bool) -> Result<(), AccessError> {
        let too_big = |_| AccessError::KeyTooBig { size: item.bytes(), max: super::MAX_KEY_BYTES };
        let (len, carried) = (u32::try_from(item.key.len()).map_err(too_big)?, u16::try_from(item.carried.len()).map_err(too_big)?);
        self.buf.extend(len.to_le_bytes());
        self.buf.extend(tid.to_le_bytes());
        self.buf.push(u8::from(live));
        self.buf.extend(carried.to_le_bytes());
        self.buf.extend_from_slice(item.key);
        self.buf.extend_from_slice(item.carried);
        if self.buf.len() >= BLOCK { self.flush(file) } else { Ok(()) }
    }

    fn flush(&mut self, file: &mut dyn Scratch) -> Result<(), AccessError> {
        file.write_at(&self.buf, self.end)?;
        self.end += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }

    fn finish(mut self, file: &mut dyn Scratch) -> Result<u64, AccessError> {
        self.flush(file)?;
        Ok(self.end)
    }
}

/// Sorted entries.
#[derive(Debug)]
pub struct Sorted(Source);

enum Source {
    Memory { keys: Vec<u8>, slots: Vec<Slot>, at: usize },
    Runs(Merge),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory { slots, at, .. } => write!(f, "Memory({at} of {})", slots.len()),
            Self::Runs(merge) => write!(f, "Runs({})", merge.heap.len()),
        }
    }
}

/// What is in front of an entry's bytes in a run: length of the key 4, tid 8, live 1, length of what it carries 2.
const FIXED: usize = 15;

/// Runs being merged.
struct Merge {
    files: Vec<Box<dyn Scratch>>,
    heap: BinaryHeap<Run>,
    /// The first entry was given out.
    begun: bool,
}

impl Merge {
    /// Of levels, with so many bytes read at once of each run.
    fn new(levels: Vec<Level>, buffer: usize) -> Result<Self, AccessError> {
        let mut merge = Self { files: Vec::new(), heap: BinaryHeap::new(), begun: false };
        for level in levels {
            for (at, end) in level.runs {
                let mut run = Run {
                    file: merge.files.len(),
                    at,
                    end,
                    buffer,
                    bytes: Vec::new(),
                    read: 0,
                    key: Vec::new(),
                    carried: Vec::new(),
                    tid: 0,
                    live: false,
                };
                if run.advance(&*level.file)? {
                    merge.heap.push(run);
                }
            }
            merge.files.push(level.file);
        }
        Ok(merge)
    }

    /// The run with the next entry.
    fn next(&mut self) -> Result<Option<&Run>, AccessError> {
        if std::mem::replace(&mut self.begun, true)
            && let Some(mut top) = self.heap.peek_mut()
            && let Some(file) = self.files.get(top.file)
            && !top.advance(&**file)?
        {
            drop(std::collections::binary_heap::PeekMut::pop(top));
        }
        Ok(self.heap.peek())
    }
}

/// A run and its current entry. Ordered so that the heap gives the least first.
struct Run {
    /// Number of its file; what of it was not read yet.
    file: usize,
    at: u64,
    end: u64,
    /// Bytes to read at once, those that were read last, and how many of these were used.
    buffer: usize,
    bytes: Vec<u8>,
    read: usize,
    key: Vec<u8>,
    carried: Vec<u8>,
    tid: u64,
    live: bool,
}

impl Run {
    /// The next bytes of the run, so many; fewer only at its end.
    fn take(&mut self, file: &dyn Scratch, len: usize) -> Result<&[u8], AccessError> {
        let have = self.bytes.len() - self.read;
        if have < len {
            self.bytes.drain(..self.read);
            self.read = 0;
            let more = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(self.buffer.max(len));
            self.bytes.resize(have + more, 0);
            file.read_at(&mut self.bytes[have..], self.at)?;
            self.at += more as u64;
        }
        let upto = self.bytes.len().min(self.read + len);
        let from = std::mem::replace(&mut self.read, upto);
        Ok(&self.bytes[from..upto])
    }

    fn advance(&mut self, file: &dyn Scratch) -> Result<bool, AccessError> {
        let Ok(fixed) = <[u8; FIXED]>::try_from(self.take(file, FIXED)?) else { return Ok(false) };
        let [a, b, c, d, tid @ .., live, e, f] = fixed;
        self.tid = u64::from_le_bytes(tid);
        self.live = live != 0;
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        key.extend_from_slice(self.take(file, usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(0))?);
        self.key = key;
        let mut carried = std::mem::take(&mut self.carried);
        carried.clear();
        carried.extend_from_slice(self.take(file, usize::from(u16::from_le_bytes([e, f])))?);
        self.carried = carried;
        Ok(true)
    }
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Run {}

impl PartialOrd for Run {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Run {
    fn cmp(&self, other: &Self) -> Ordering {
        (&other.key, other.tid).cmp(&(&self.key, self.tid))
    }
}

impl SortedEntries for Sorted {
    fn next(&mut self) -> Result<Option<SortedEntry<'_>>, AccessError> {
        match &mut self.0 {
            Source::Memory { keys, slots, at } => {
                let Some(s) = slots.get(*at) else { return Ok(None) };
                *at += 1;
                Ok(Some(SortedEntry { item: s.item(keys), tid: Tid::from_u64(s.tid), live: s.live }))
            }
            Source::Runs(merge) => Ok(merge.next()?.map(|run| SortedEntry {
                item: Item { key: &run.key, carried: &run.carried },
                tid: Tid::from_u64(run.tid),
                live: run.live,
            })),
        }
    }
}
