//! Sorting the entries of an index to be built, with as much memory as is given; the rest goes to files as sorted runs.
//!
//! A run's file is unlinked as soon as it is open: no crash leaves one behind.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

use super::build::{SortedEntries, SortedEntry};
use super::insert::check_size;
use super::node::{Item, common_prefix};
use crate::access::{AccessError, Tid};
use crate::storage::StorageError;

/// Makes names unique in this process. Relaxed: nothing else depends on it.
static NEXT_FILE: AtomicU64 = AtomicU64::new(0);

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
    dir: PathBuf,
    budget_bytes: usize,
    keys: Vec<u8>,
    slots: Vec<Slot>,
    /// How many bytes all keys in memory begin with alike.
    shared: usize,
    runs: Vec<File>,
    spilled_bytes: u64,
    path: PathBuf,
}

impl std::fmt::Debug for Sorter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sorter({} in memory, {} runs, {} bytes spilled)", self.slots.len(), self.runs.len(), self.spilled_bytes)
    }
}

fn head(key: &[u8]) -> u64 {
    let mut b = [0; 8];
    let n = key.len().min(8);
    b[..n].copy_from_slice(&key[..n]);
    u64::from_be_bytes(b)
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> AccessError {
    StorageError::Io { what, path: path.display().to_string(), source }.into()
}

impl Sorter {
    /// Sorts with about `budget_bytes` of memory (`maintenance_work_mem`) and files in `dir`, which is made if it is missing.
    pub fn new(dir: &Path, budget_bytes: usize) -> Self {
        Self {
            dir: dir.to_owned(),
            budget_bytes: budget_bytes.max(64 * 1024),
            keys: Vec::new(),
            slots: Vec::new(),
            shared: 0,
            runs: Vec::new(),
            spilled_bytes: 0,
            path: dir.to_owned(),
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

    fn spill(&mut self) -> Result<(), AccessError> {
        self.sort();
        std::fs::create_dir_all(&self.dir).map_err(|e| failed("create directory of", &self.dir, e))?;
        let n = NEXT_FILE.fetch_add(1, Atomic::Relaxed);
        self.path = self.dir.join(format!("pgsql_tmp{}.{n}", std::process::id()));
        let path = &self.path;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).map_err(|e| failed("create", path, e))?;
        std::fs::remove_file(path).map_err(|e| failed("remove", path, e))?;
        let mut out = BufWriter::with_capacity(256 * 1024, file);
        for s in &self.slots {
            let mut fixed = [0; FIXED];
            fixed[..4].copy_from_slice(&s.len.to_le_bytes());
            fixed[4..12].copy_from_slice(&s.tid.to_le_bytes());
            fixed[12] = u8::from(s.live);
            fixed[13..].copy_from_slice(&s.carried.to_le_bytes());
            let item = s.item(&self.keys);
            let written = out.write_all(&fixed).and_then(|()| out.write_all(item.key)).and_then(|()| out.write_all(item.carried));
            written.map_err(|e| failed("write", path, e))?;
            self.spilled_bytes += 15 + u64::from(s.len) + u64::from(s.carried);
        }
        let mut file = out.into_inner().map_err(|e| failed("write", path, e.into_error()))?;
        file.rewind().map_err(|e| failed("read", path, e))?;
        self.runs.push(file);
        self.keys.clear();
        self.slots.clear();
        Ok(())
    }

    /// Everything that was pushed, in order.
    ///
    /// # Errors
    /// As [`push`](Self::push), and reading runs.
    pub fn finish(mut self) -> Result<Sorted, AccessError> {
        if self.runs.is_empty() {
            self.sort();
            return Ok(Sorted(Source::Memory { keys: self.keys, slots: self.slots, at: 0 }));
        }
        self.spill()?;
        self.keys = Vec::new();
        self.slots = Vec::new();
        let buffer = (self.budget_bytes / self.runs.len()).clamp(16 * 1024, 1024 * 1024);
        let mut heap = BinaryHeap::with_capacity(self.runs.len());
        for file in self.runs {
            let mut run = Run { input: BufReader::with_capacity(buffer, file), key: Vec::new(), carried: Vec::new(), tid: 0, live: false };
            if run.advance().map_err(|e| failed("read", &self.path, e))? {
                heap.push(run);
            }
        }
        Ok(Sorted(Source::Runs { heap, path: self.path, begun: false }))
    }
}

/// Sorted entries.
#[derive(Debug)]
pub struct Sorted(Source);

enum Source {
    Memory { keys: Vec<u8>, slots: Vec<Slot>, at: usize },
    Runs { heap: BinaryHeap<Run>, path: PathBuf, begun: bool },
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory { slots, at, .. } => write!(f, "Memory({at} of {})", slots.len()),
            Self::Runs { heap, .. } => write!(f, "Runs({})", heap.len()),
        }
    }
}

/// What is in front of an entry's bytes in a run: length of the key 4, tid 8, live 1, length of what it carries 2.
const FIXED: usize = 15;

/// A run and its current entry. Ordered so that the heap gives the least first.
struct Run {
    input: BufReader<File>,
    key: Vec<u8>,
    carried: Vec<u8>,
    tid: u64,
    live: bool,
}

impl Run {
    fn advance(&mut self) -> io::Result<bool> {
        let mut fixed = [0; FIXED];
        match self.input.read_exact(&mut fixed) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(e),
        }
        let [a, b, c, d, tid @ .., live, e, f] = fixed;
        self.tid = u64::from_le_bytes(tid);
        self.live = live != 0;
        self.key.resize(usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(0), 0);
        self.carried.resize(usize::from(u16::from_le_bytes([e, f])), 0);
        self.input.read_exact(&mut self.key)?;
        self.input.read_exact(&mut self.carried)?;
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
            Source::Runs { heap, path, begun } => {
                if std::mem::replace(begun, true)
                    && let Some(mut top) = heap.peek_mut()
                    && !top.advance().map_err(|e| failed("read", path, e))?
                {
                    drop(std::collections::binary_heap::PeekMut::pop(top));
                }
                Ok(heap.peek().map(|run| SortedEntry {
                    item: Item { key: &run.key, carried: &run.carried },
                    tid: Tid::from_u64(run.tid),
                    live: run.live,
                }))
            }
        }
    }
}
