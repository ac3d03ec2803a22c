//! The buffer pool: pin, latch, clock sweep, dirty pages out through the double-write area.
//!
//! A [`Buffer`] is a pin: while one lives its page stays in memory at its place. Content is read and changed under the page
//! latch (`read`, `write`). Finding a page takes one shard of the mapping, shared; there is no lock all hits go through.
//!
//! Order of locks: page latch (30) may be held while reading other pages in; a mapping shard (20) and a frame's tag (21) are
//! leaves held for a few instructions; the write lane (25) is held across I/O and, while held, only *tries* latches, so a
//! session that holds a latch and needs a free frame never waits for itself.
//!
//! A change is: exclusive latch, change and log in either order, `set_lsn`, release. A checkpoint relies on it: it looks at every
//! frame under its latch after choosing the redo point, so whatever was logged before that point is seen as dirty.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    hash::{BuildHasher, BuildHasherDefault},
    ops::{Deref, DerefMut},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
};

use afterimage_wal::{BlockNo, Fork, Lsn, Record, RelId, Wal};
use parking_lot::{ArcRwLockReadGuard, ArcRwLockWriteGuard, Condvar, Mutex, RawRwLock, RwLock, RwLockReadGuard, RwLockWriteGuard};
use rustc_hash::FxHasher;

use super::{
    StorageError,
    backup_images::{BackupImages, image_record},
    critical::CriticalSection,
    double_write::DoubleWrite,
    files::{Files, Growing},
    missing::MissingBlocks,
    page::Page,
    repair::Repairs,
    smgr_redo, vm,
};

/// Which page: relation, fork and block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageTag {
    /// Relation.
    pub rel: RelId,
    /// Fork.
    pub fork: Fork,
    /// Block.
    pub block: BlockNo,
}

/// Sizes of a pool.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// `shared_buffers`, in pages.
    pub buffers: usize,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { buffers: 16_384 }
    }
}

const SHARDS: usize = 128;
/// A page used this often survives that many passes of the sweep. PostgreSQL: `BM_MAX_USAGE_COUNT`.
const MAX_USAGE: u8 = 5;
/// Pages written per sync of the double-write area, in a pool that is large enough.
const WRITE_BATCH: usize = 128;
/// Times the sweep goes round before the pool counts as full.
const ROUNDS: usize = 10;

struct Frame {
    /// Rank 30. May be held across reads of other pages and WAL insertion, not across a wait for a client.
    latch: Arc<RwLock<Page>>,
    /// Rank 21. What page this is; `None` while free or changing hands.
    tag: Mutex<Option<PageTag>>,
    /// Buffers out. Raised from zero only under the page's mapping shard, so zero under that shard held exclusively stays zero.
    pins: AtomicU32,
    usage: AtomicU8,
    /// Set under the exclusive latch, cleared under the shared one by the holder of the write lane.
    dirty: AtomicBool,
    /// Release once the page was read in; Acquire by those who found it in the mapping.
    valid: AtomicBool,
    /// How many wait for the pins to go (SeqCst with `pins`: a waiter raises this, then looks at the pins).
    pin_waiters: AtomicU32,
    pin_gone: Arc<PinGone>,
}

impl Frame {
    fn new(pin_gone: &Arc<PinGone>) -> Arc<Self> {
        Arc::new(Self {
            latch: Arc::new(RwLock::new(Page::zeroed())),
            tag: Mutex::new(None),
            pins: AtomicU32::new(0),
            usage: AtomicU8::new(0),
            dirty: AtomicBool::new(false),
            valid: AtomicBool::new(false),
            pin_waiters: AtomicU32::new(0),
            pin_gone: Arc::clone(pin_gone),
        })
    }
}

type Shard = HashMap<PageTag, u32, BuildHasherDefault<FxHasher>>;

/// Counters for `pg_stat_bgwriter` and `EXPLAIN (BUFFERS)`.
#[derive(Debug, Default)]
pub struct PoolStats {
    /// Pages found in the pool.
    pub hits: AtomicU64,
    /// Pages read from disk.
    pub reads: AtomicU64,
    /// Pages written by sessions that needed a frame.
    pub backend_writes: AtomicU64,
    /// Pages written ahead of the sweep by the background writer.
    pub cleaner_writes: AtomicU64,
    /// Pages written by checkpoints.
    pub checkpoint_writes: AtomicU64,
    /// Frames handed out.
    pub allocations: AtomicU64,
}

/// All pages in memory.
pub struct BufferPool {
    /// Made when first used: memory grows with use up to `shared_buffers`.
    frames: Box<[OnceLock<Arc<Frame>>]>,
    pin_gone: Arc<PinGone>,
    shards: Box<[RwLock<Shard>]>,
    hasher: BuildHasherDefault<FxHasher>,
    /// Frames never used or given back. Leaf lock.
    free: Mutex<Vec<u32>>,
    hand: AtomicUsize,
    /// Where the hand tells the background writer to go on, so that it stays ahead. `usize::MAX`: it found little to do.
    go_on_at: AtomicUsize,
    files: Arc<Files>,
    wal: Arc<Wal>,
    /// Rank 25: the write lane. Held across I/O; see the module doc.
    lane: Mutex<DoubleWrite>,
    /// Blocks redo missed so far.
    missing: MissingBlocks,
    /// Damaged pages under repair.
    repairs: Repairs,
    /// Images for backups that copy files.
    images: BackupImages,
    /// Changes of files under way: each record begins at or after its bound. Leaf.
    unfinished: Mutex<Vec<Lsn>>,
    /// Called when the sweep meets dirty pages: somebody should write ahead of it.
    pressure: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Leaf. Called before pages with LSNs up to its argument reach the area.
    write_gate: RwLock<Option<WriteGate>>,
    stats: PoolStats,
}

/// Makes sure that pages with LSNs up to its argument may reach disk.
pub type WriteGate = Box<dyn Fn(Lsn) -> Result<(), StorageError> + Send + Sync>;

/// While this lives, a page goes into the WAL before it is written in place the first time. See [`BufferPool::log_images`].
#[derive(Debug)]
pub struct LoggedImages {
    pool: Arc<BufferPool>,
}

impl Drop for LoggedImages {
    fn drop(&mut self) {
        self.pool.images.end();
    }
}

/// See [`BufferPool::hold_redo_point`].
struct HeldRedo<'a> {
    pool: &'a BufferPool,
    bound: Lsn,
}

impl Drop for HeldRedo<'_> {
    fn drop(&mut self) {
        let mut unfinished = self.pool.unfinished.lock();
        if let Some(at) = unfinished.iter().position(|b| *b == self.bound) {
            unfinished.swap_remove(at);
        }
    }
}

#[derive(Default)]
struct PinGone {
    lock: Mutex<()>,
    cond: Condvar,
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BufferPool({} frames)", self.frames.len())
    }
}

/// A pinned page: it stays in memory, at this tag, while this lives.
pub struct Buffer {
    frame: Arc<Frame>,
    tag: PageTag,
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({:?})", self.tag)
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        self.frame.pins.fetch_add(1, Ordering::Relaxed);
        Self { frame: Arc::clone(&self.frame), tag: self.tag }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.frame.pins.fetch_sub(1, Ordering::SeqCst);
        if self.frame.pin_waiters.load(Ordering::SeqCst) > 0 {
            let _held = self.frame.pin_gone.lock.lock();
            self.frame.pin_gone.cond.notify_all();
        }
    }
}

impl Buffer {
    /// Which page.
    pub fn tag(&self) -> PageTag {
        self.tag
    }

    /// Block number.
    pub fn block(&self) -> BlockNo {
        self.tag.block
    }

    /// Shared latch.
    pub fn read(&self) -> PageRead<'_> {
        PageRead { guard: self.frame.latch.read() }
    }

    /// Exclusive latch.
    pub fn write(&self) -> PageWrite<'_> {
        PageWrite { guard: self.frame.latch.write(), frame: &self.frame }
    }

    /// Exclusive latch if it is free.
    pub fn try_write(&self) -> Option<PageWrite<'_>> {
        self.frame.latch.try_write().map(|guard| PageWrite { guard, frame: &self.frame })
    }

    /// Shared latch that owns its pin, for cursors that outlive a borrow.
    pub fn read_owned(self) -> OwnedRead {
        OwnedRead { guard: RwLock::read_arc(&self.frame.latch), buffer: self }
    }

    /// Exclusive latch that owns its pin.
    pub fn write_owned(self) -> OwnedWrite {
        OwnedWrite { guard: RwLock::write_arc(&self.frame.latch), buffer: self }
    }

    /// Exclusive latch that owns its pin, if it is free; else the pin back.
    ///
    /// # Errors
    /// The pin, if the latch is taken.
    pub fn try_write_owned(self) -> Result<OwnedWrite, Self> {
        match RwLock::try_write_arc(&self.frame.latch) {
            Some(guard) => Ok(OwnedWrite { guard, buffer: self }),
            None => Err(self),
        }
    }

    /// As [`Self::write_cleanup`], owning the pin.
    pub fn write_cleanup_owned(self) -> OwnedWrite {
        loop {
            let guard = RwLock::write_arc(&self.frame.latch);
            if self.frame.pins.load(Ordering::SeqCst) == 1 {
                return OwnedWrite { guard, buffer: self };
            }
            drop(guard);
            self.wait_for_only_pin();
        }
    }

    /// Exclusive latch, if it is free and this is the only pin: nobody holds a place inside the page, so items may move.
    pub fn try_write_cleanup(&self) -> Option<PageWrite<'_>> {
        let guard = self.frame.latch.try_write()?;
        (self.frame.pins.load(Ordering::SeqCst) == 1).then_some(PageWrite { guard, frame: &self.frame })
    }

    /// Exclusive latch as the only pin; waits for other pins to go. The caller holds no other pin on this page.
    pub fn write_cleanup(&self) -> PageWrite<'_> {
        loop {
            let guard = self.frame.latch.write();
            if self.frame.pins.load(Ordering::SeqCst) == 1 {
                return PageWrite { guard, frame: &self.frame };
            }
            drop(guard);
            self.wait_for_only_pin();
        }
    }

    fn wait_for_only_pin(&self) {
        let mut held = self.frame.pin_gone.lock.lock();
        self.frame.pin_waiters.fetch_add(1, Ordering::SeqCst);
        // A pin dropped after the raise takes the lock to notify, so it cannot slip between this look and the wait.
        while self.frame.pins.load(Ordering::SeqCst) != 1 {
            self.frame.pin_gone.cond.wait(&mut held);
        }
        self.frame.pin_waiters.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A page under its shared latch.
pub struct PageRead<'a> {
    guard: RwLockReadGuard<'a, Page>,
}

impl Deref for PageRead<'_> {
    type Target = Page;
    fn deref(&self) -> &Page {
        &self.guard
    }
}

/// A page under its exclusive latch. Touching it mutably marks it dirty.
pub struct PageWrite<'a> {
    guard: RwLockWriteGuard<'a, Page>,
    frame: &'a Arc<Frame>,
}

impl PageWrite<'_> {
    /// Sets the page LSN after logging the change, and marks the page dirty.
    pub fn set_lsn(&mut self, lsn: Lsn) {
        self.frame.dirty.store(true, Ordering::Release);
        self.guard.set_lsn(lsn);
    }

    /// Marks the page dirty for a hint that relies on WAL up to `hint_lsn`.
    pub fn mark_dirty_hint(&mut self, hint_lsn: Lsn) {
        self.frame.dirty.store(true, Ordering::Release);
        self.guard.raise_hint_lsn(hint_lsn);
    }

    /// Gives up the exclusive latch for the shared one without letting a writer in between.
    pub fn downgrade<'b>(self) -> PageRead<'b>
    where
        Self: 'b,
    {
        PageRead { guard: RwLockWriteGuard::downgrade(self.guard) }
    }
}

impl Deref for PageWrite<'_> {
    type Target = Page;
    fn deref(&self) -> &Page {
        &self.guard
    }
}

impl DerefMut for PageWrite<'_> {
    fn deref_mut(&mut self) -> &mut Page {
        self.frame.dirty.store(true, Ordering::Release);
        &mut self.guard
    }
}

/// A page under its shared latch, owning its pin. The guard is declared first: the latch goes before the pin.
pub struct OwnedRead {
    guard: ArcRwLockReadGuard<RawRwLock, Page>,
    buffer: Buffer,
}

impl OwnedRead {
    /// Gives up the latch, keeps the pin.
    pub fn into_buffer(self) -> Buffer {
        let Self { guard, buffer } = self;
        drop(guard);
        buffer
    }

    /// Its pin.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}

impl Deref for OwnedRead {
    type Target = Page;
    fn deref(&self) -> &Page {
        &self.guard
    }
}

/// A page under its exclusive latch, owning its pin.
pub struct OwnedWrite {
    guard: ArcRwLockWriteGuard<RawRwLock, Page>,
    buffer: Buffer,
}

impl OwnedWrite {
    /// As [`PageWrite::set_lsn`].
    pub fn set_lsn(&mut self, lsn: Lsn) {
        self.buffer.frame.dirty.store(true, Ordering::Release);
        self.guard.set_lsn(lsn);
    }

    /// As [`PageWrite::mark_dirty_hint`].
    pub fn mark_dirty_hint(&mut self, hint_lsn: Lsn) {
        self.buffer.frame.dirty.store(true, Ordering::Release);
        self.guard.raise_hint_lsn(hint_lsn);
    }

    /// Gives up the latch, keeps the pin.
    pub fn into_buffer(self) -> Buffer {
        let Self { guard, buffer } = self;
        drop(guard);
        buffer
    }

    /// Its pin.
    pub fn buffer(&self) -> &Buffer {
        &self.buffer
    }
}

impl Deref for OwnedWrite {
    type Target = Page;
    fn deref(&self) -> &Page {
        &self.guard
    }
}

impl DerefMut for OwnedWrite {
    fn deref_mut(&mut self) -> &mut Page {
        self.buffer.frame.dirty.store(true, Ordering::Release);
        &mut self.guard
    }
}

/// What happened to a page that could not be written right away.
enum Staged {
    Written(usize),
    Contended(Vec<Buffer>, usize),
}

impl BufferPool {
    /// An empty pool over these files and this WAL.
    pub fn new(options: &PoolOptions, files: Arc<Files>, wal: Arc<Wal>, area: DoubleWrite) -> Self {
        let count = options.buffers.max(16);
        let pin_gone = Arc::new(PinGone::default());
        let frames = (0..count).map(|_| OnceLock::new()).collect();
        let free = (0..u32::try_from(count).unwrap_or(u32::MAX)).rev().collect();
        Self {
            frames,
            pin_gone,
            shards: (0..SHARDS).map(|_| RwLock::new(Shard::default())).collect(),
            hasher: BuildHasherDefault::default(),
            free: Mutex::new(free),
            hand: AtomicUsize::new(0),
            go_on_at: AtomicUsize::new(usize::MAX),
            files,
            wal,
            lane: Mutex::new(area),
            missing: MissingBlocks::default(),
            repairs: Repairs::default(),
            images: BackupImages::default(),
            unfinished: Mutex::default(),
            pressure: OnceLock::new(),
            write_gate: RwLock::new(None),
            stats: PoolStats::default(),
        }
    }

    /// The relation files below.
    pub fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// The WAL below.
    pub fn wal(&self) -> &Arc<Wal> {
        &self.wal
    }

    /// Counters.
    pub fn stats(&self) -> &PoolStats {
        &self.stats
    }

    /// Frames in the pool.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Never: a pool has at least a few frames.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Sets what is asked before pages are written (a standby's minimum recovery point); `None` removes it.
    pub fn set_write_gate(&self, gate: Option<WriteGate>) {
        *self.write_gate.write() = gate;
    }

    /// Asks the gate for leave to change the disk as of `upto`: whoever removes files must ask as writers of pages do.
    ///
    /// # Errors
    /// The gate's.
    pub fn pass_write_gate(&self, upto: Lsn) -> Result<(), StorageError> {
        match self.write_gate.read().as_ref() {
            Some(gate) => gate(upto),
            None => Ok(()),
        }
    }

    /// Blocks redo missed so far.
    pub fn missing(&self) -> &MissingBlocks {
        &self.missing
    }

    /// Files are going to be copied while pages are written, by a backup whose redo point is chosen. When this returns no write is under way of
    /// which the WAL behind that point has no image.
    pub fn log_images(self: &Arc<Self>) -> LoggedImages {
        self.images.begin();
        drop(self.lane.lock());
        LoggedImages { pool: Arc::clone(self) }
    }

    /// Redo is inside the backup it recovers, or no longer: see [`super::backup_images`].
    pub fn set_inside_backup(&self, inside: bool) {
        self.images.set_inside(inside);
    }

    pub(super) fn repairs(&self) -> &Repairs {
        &self.repairs
    }

    /// Blocks in a fork. A standby counts what was replayed. Maps have none before they have a file; a relation without one is damaged.
    ///
    /// # Errors
    /// [`StorageError::Open`], [`StorageError::ShortSegment`]: files of the relation are gone; I/O.
    pub fn n_blocks(&self, rel: RelId, fork: Fork) -> Result<BlockNo, StorageError> {
        if fork == Fork::Main { self.files.blocks_of_whole(rel, fork) } else { self.files.n_blocks(rel, fork) }
    }

    fn shard(&self, tag: &PageTag) -> &RwLock<Shard> {
        let hash = self.hasher.hash_one(tag);
        // Bits that the map of a shard has no use for: it takes the lowest for the place and the top seven to tell entries apart. Chosen by
        // those, all entries of a shard would look alike, and each probe compare keys all over memory.
        &self.shards[usize::try_from((hash >> 19) & 0x7f).unwrap_or(0) % SHARDS]
    }

    fn frame(&self, index: u32) -> &Arc<Frame> {
        self.frames[usize::try_from(index).unwrap_or(usize::MAX)].get_or_init(|| Frame::new(&self.pin_gone))
    }

    fn used_frames(&self) -> impl Iterator<Item = (usize, &Arc<Frame>)> {
        self.frames.iter().enumerate().filter_map(|(at, frame)| Some((at, frame.get()?)))
    }

    /// Pins the page if it is here.
    fn lookup(&self, tag: PageTag) -> Option<Buffer> {
        let shard = self.shard(&tag).read();
        let frame = self.frame(*shard.get(&tag)?);
        frame.pins.fetch_add(1, Ordering::SeqCst);
        let frame = Arc::clone(frame);
        drop(shard);
        let usage = frame.usage.load(Ordering::Relaxed);
        if usage < MAX_USAGE {
            frame.usage.store(usage + 1, Ordering::Relaxed);
        }
        Some(Buffer { frame, tag })
    }

    /// Pins a page, reading it in if needed.
    ///
    /// # Errors
    /// [`StorageError::BadPage`] if it does not verify; [`StorageError::MissingBlock`] past the end; I/O.
    pub fn read(&self, rel: RelId, fork: Fork, block: BlockNo) -> Result<Buffer, StorageError> {
        let tag = PageTag { rel, fork, block };
        loop {
            if let Some(buffer) = self.lookup_valid(tag) {
                self.stats.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(buffer);
            }
            if let Some(buffer) = self.load(tag, |page| self.files.read_page(tag, page))? {
                self.stats.reads.fetch_add(1, Ordering::Relaxed);
                return Ok(buffer);
            }
        }
    }

    /// As [`Self::read`], for the maps: what they say can be said anew, so a block that is damaged reads as an empty page, until it is changed only
    /// here in memory. PostgreSQL: `RBM_ZERO_ON_ERROR`.
    ///
    /// # Errors
    /// [`StorageError::MissingBlock`] past the end; I/O.
    pub fn read_map(&self, rel: RelId, fork: Fork, block: BlockNo) -> Result<Buffer, StorageError> {
        let tag = PageTag { rel, fork, block };
        loop {
            if let Some(buffer) = self.lookup_valid(tag) {
                self.stats.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(buffer);
            }
            let made = self.load(tag, |page| match self.files.read_page(tag, page) {
                Err(damage @ StorageError::BadPage { .. }) => {
                    // The free space map is not logged: after a crash it may have blocks that were never written.
                    if fork != Fork::Fsm || !page.is_zero() {
                        tracing::warn!("{damage}; zeroing out page");
                    }
                    page.init(0);
                    Ok(())
                }
                other => other,
            })?;
            if let Some(buffer) = made {
                self.stats.reads.fetch_add(1, Ordering::Relaxed);
                return Ok(buffer);
            }
        }
    }

    /// As [`Self::read_map`], for maps that are not logged: a block that is missing reads as a fresh page, too.
    ///
    /// # Errors
    /// I/O; no free buffer.
    pub fn read_or_init(&self, rel: RelId, fork: Fork, block: BlockNo) -> Result<Buffer, StorageError> {
        match self.read_map(rel, fork, block) {
            Err(StorageError::MissingBlock { .. }) => {
                self.files.create(rel, fork)?;
                let extension = self.files.extension(rel, fork)?;
                let growing = extension.lock(&self.files);
                self.fill_up_to(&growing, PageTag { rel, fork, block }, |_| Ok(()))
            }
            other => other,
        }
    }

    /// Pins the page if it is in memory.
    pub fn read_if_cached(&self, rel: RelId, fork: Fork, block: BlockNo) -> Option<Buffer> {
        self.lookup_valid(PageTag { rel, fork, block })
    }

    /// Whether the page is in memory, or on its way there. Leaves no trace.
    pub fn holds(&self, tag: PageTag) -> bool {
        self.shard(&tag).read().contains_key(&tag)
    }

    fn lookup_valid(&self, tag: PageTag) -> Option<Buffer> {
        let buffer = self.lookup(tag)?;
        if !buffer.frame.valid.load(Ordering::Acquire) {
            // Being read in by another: the latch is free once that ended, well or not.
            drop(buffer.frame.latch.read());
            if !buffer.frame.valid.load(Ordering::Acquire) {
                return None;
            }
        }
        Some(buffer)
    }

    /// Maps `tag` to a frame and fills it. `None` if another was faster.
    fn load(&self, tag: PageTag, fill: impl FnOnce(&mut Page) -> Result<(), StorageError>) -> Result<Option<Buffer>, StorageError> {
        let index = self.take_frame()?;
        let frame = Arc::clone(self.frame(index));
        // Latched before it can be found, so that those who find it wait.
        let mut page = frame.latch.write();
        {
            let mut shard = self.shard(&tag).write();
            match shard.entry(tag) {
                Entry::Occupied(_) => {
                    drop(shard);
                    drop(page);
                    self.free.lock().push(index);
                    return Ok(None);
                }
                Entry::Vacant(slot) => {
                    slot.insert(index);
                    frame.pins.fetch_add(1, Ordering::SeqCst);
                    *frame.tag.lock() = Some(tag);
                }
            }
        }
        let buffer = Buffer { frame: Arc::clone(&frame), tag };
        match fill(&mut page) {
            Ok(()) => {
                frame.usage.store(1, Ordering::Relaxed);
                frame.valid.store(true, Ordering::Release);
                drop(page);
                Ok(Some(buffer))
            }
            Err(error) => {
                self.unmap(index, tag);
                drop(page);
                drop(buffer);
                Err(error)
            }
        }
    }

    /// Forgets that `index` holds `tag` and frees the frame (used once its pins are gone).
    fn unmap(&self, index: u32, tag: PageTag) -> bool {
        let frame = self.frame(index);
        let mut shard = self.shard(&tag).write();
        if shard.get(&tag) != Some(&index) {
            return false;
        }
        shard.remove(&tag);
        *frame.tag.lock() = None;
        frame.valid.store(false, Ordering::Release);
        frame.dirty.store(false, Ordering::Release);
        drop(shard);
        self.free.lock().push(index);
        true
    }

    /// A buffer holding an initialised page without reading the disk; an existing one is overwritten.
    fn fresh(&self, tag: PageTag) -> Result<Buffer, StorageError> {
        self.rebuild(tag, |_| Ok(()))
    }

    /// As [`Self::fresh`], with what `change` puts on the page. Readers of a page that is in use see it as it was or as it will be: the page is
    /// emptied and changed under one latch.
    fn rebuild<E: From<StorageError>>(&self, tag: PageTag, change: impl FnOnce(&mut Page) -> Result<(), E>) -> Result<Buffer, E> {
        let mut change = Some(change);
        let mut failed = None;
        let mut make = |page: &mut Page| {
            page.init(0);
            if let Some(change) = change.take() {
                failed = change(page).err();
            }
        };
        let buffer = loop {
            if let Some(buffer) = self.lookup_valid(tag) {
                make(&mut buffer.write());
                break buffer;
            }
            let made = self.load(tag, |page| {
                make(page);
                Ok(())
            })?;
            if let Some(buffer) = made {
                buffer.frame.dirty.store(true, Ordering::Release);
                break buffer;
            }
        };
        match failed {
            None => Ok(buffer),
            Some(error) => Err(error),
        }
    }

    /// A dirty page with this content in a place that is not in memory; `None` if it came there meanwhile.
    pub(super) fn read_as(&self, tag: PageTag, content: &Page) -> Result<Option<Buffer>, StorageError> {
        let made = self.load(tag, |page| {
            *page.bytes_mut() = *content.bytes();
            Ok(())
        })?;
        if let Some(buffer) = &made {
            buffer.frame.dirty.store(true, Ordering::Release);
        }
        Ok(made)
    }

    /// A frame nobody else can find. Writes dirty pages out if the sweep meets them.
    fn take_frame(&self) -> Result<u32, StorageError> {
        self.stats.allocations.fetch_add(1, Ordering::Relaxed);
        {
            let mut free = self.free.lock();
            let found = (0..free.len()).rev().find(|at| self.frame(free[*at]).pins.load(Ordering::SeqCst) == 0);
            if let Some(at) = found {
                return Ok(free.swap_remove(at));
            }
        }
        // Writes in flight pin their pages. Only when those ended, several times over, and still nothing is free is the pool really full.
        for _ in 0..ROUNDS {
            if let Some(index) = self.sweep()? {
                return Ok(index);
            }
            drop(self.lane.lock());
        }
        Err(StorageError::NoBuffer)
    }

    /// The hand goes round until every usage count must have fallen to zero.
    fn sweep(&self) -> Result<Option<u32>, StorageError> {
        let count = self.frames.len();
        for _ in 0..count * (usize::from(MAX_USAGE) + 2) {
            let hand = self.hand.fetch_add(1, Ordering::Relaxed);
            if hand == self.go_on_at.load(Ordering::Relaxed) {
                self.tell_pressure();
            }
            let at = hand % count;
            let Some(frame) = self.frames[at].get() else { continue };
            if frame.pins.load(Ordering::Relaxed) != 0 {
                continue;
            }
            let usage = frame.usage.load(Ordering::Relaxed);
            if usage > 0 {
                frame.usage.store(usage - 1, Ordering::Relaxed);
                continue;
            }
            let Some(tag) = *frame.tag.lock() else { continue };
            if frame.dirty.load(Ordering::Acquire) {
                self.tell_pressure();
                self.write_around(at)?;
            }
            let index = u32::try_from(at).unwrap_or(u32::MAX);
            if self.claim(index, tag) {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Takes a clean, unpinned frame away from its page.
    fn claim(&self, index: u32, tag: PageTag) -> bool {
        let frame = self.frame(index);
        let mut shard = self.shard(&tag).write();
        if shard.get(&tag) != Some(&index) || frame.pins.load(Ordering::SeqCst) != 0 || frame.dirty.load(Ordering::Acquire) {
            return false;
        }
        shard.remove(&tag);
        *frame.tag.lock() = None;
        frame.valid.store(false, Ordering::Release);
        true
    }

    /// Pins what frame `at` holds now.
    fn pin_frame(&self, at: usize) -> Option<Buffer> {
        let frame = self.frames[at].get()?;
        let tag = (*frame.tag.lock())?;
        let shard = self.shard(&tag).read();
        if shard.get(&tag).is_none_or(|index| usize::try_from(*index) != Ok(at)) {
            return None;
        }
        frame.pins.fetch_add(1, Ordering::SeqCst);
        Some(Buffer { frame: Arc::clone(frame), tag })
    }

    /// Sets who is told when sessions have to write pages themselves, or soon would. Once.
    pub fn on_pressure(&self, tell: Box<dyn Fn() + Send + Sync>) {
        let _first_wins = self.pressure.set(tell);
    }

    fn tell_pressure(&self) {
        if let Some(pressure) = self.pressure.get() {
            pressure();
        }
    }

    /// Writes the dirty pages the sweep would take next, so that sessions find clean ones. Returns how many were written. If there were many, the
    /// sweep [tells](Self::on_pressure) when it has gone half as far.
    ///
    /// # Errors
    /// I/O; pages that could not be written stay dirty.
    pub fn clean_ahead(&self) -> Result<usize, StorageError> {
        let count = self.frames.len();
        let hand = self.hand.load(Ordering::Relaxed);
        self.go_on_at.store(usize::MAX, Ordering::Relaxed);
        let mut written = 0;
        let mut batch = Vec::with_capacity(self.batch_size());
        for step in 0..count / 4 {
            let at = hand.wrapping_add(step) % count;
            let Some(frame) = self.frames[at].get() else { continue };
            let cold = frame.pins.load(Ordering::Relaxed) == 0 && frame.usage.load(Ordering::Relaxed) == 0;
            if cold && frame.dirty.load(Ordering::Relaxed) {
                batch.extend(self.pin_frame(at));
            }
            if batch.len() == self.batch_size() {
                let (Staged::Written(n) | Staged::Contended(_, n)) = self.write_batch(&mut self.lane.lock(), std::mem::take(&mut batch))?;
                written += n;
            }
        }
        let (Staged::Written(n) | Staged::Contended(_, n)) = self.write_batch(&mut self.lane.lock(), batch)?;
        written += n;
        self.stats.cleaner_writes.fetch_add(u64::try_from(written).unwrap_or(0), Ordering::Relaxed);
        if written >= self.batch_size() {
            // A hand that is past it already meets dirty pages, and tells of those.
            self.go_on_at.store(hand.wrapping_add(count / 8), Ordering::Relaxed);
        }
        Ok(written)
    }

    /// A batch pins its pages while they are written: never a large part of the pool.
    fn batch_size(&self) -> usize {
        (self.frames.len() / 8).clamp(1, WRITE_BATCH)
    }

    /// Writes the dirty page in frame `first` and others the sweep would meet soon, with one sync for all.
    fn write_around(&self, first: usize) -> Result<(), StorageError> {
        let mut lane = self.lane.lock();
        if self.frames[first].get().is_none_or(|frame| !frame.dirty.load(Ordering::Acquire)) {
            return Ok(());
        }
        let count = self.frames.len();
        let most = self.batch_size();
        let mut batch = Vec::with_capacity(most);
        for step in 0..count.min(most * 8) {
            let at = (first + step) % count;
            let Some(frame) = self.frames[at].get() else { continue };
            let cold = step == 0 || (frame.pins.load(Ordering::Relaxed) == 0 && frame.usage.load(Ordering::Relaxed) <= 1);
            if cold && frame.dirty.load(Ordering::Relaxed) {
                batch.extend(self.pin_frame(at));
                if batch.len() == most {
                    break;
                }
            }
        }
        let (Staged::Written(n) | Staged::Contended(_, n)) = self.write_batch(&mut lane, batch)?;
        self.stats.backend_writes.fetch_add(u64::try_from(n).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    /// Writes these pages: copies under the shared latch, WAL flushed to the newest of them, area, then in place.
    /// Pages latched exclusively by others are handed back.
    fn write_batch(&self, lane: &mut DoubleWrite, mut batch: Vec<Buffer>) -> Result<Staged, StorageError> {
        batch.sort_unstable_by_key(Buffer::tag);
        let mut staged = Vec::with_capacity(batch.len());
        let mut contended = Vec::new();
        lane.begin();
        for buffer in batch {
            let Some(page) = buffer.frame.latch.try_read() else {
                contended.push(buffer);
                continue;
            };
            match self.stage(lane, &buffer, &page) {
                Ok(false) => {}
                Ok(true) => {
                    drop(page);
                    staged.push(buffer);
                }
                Err(error) => {
                    Self::still_dirty(&staged);
                    return Err(error);
                }
            }
        }
        self.finish_batch(lane, &staged)?;
        if contended.is_empty() { Ok(Staged::Written(staged.len())) } else { Ok(Staged::Contended(contended, staged.len())) }
    }

    /// Copies a dirty page into the batch and marks it clean; called with its latch held.
    fn stage(&self, lane: &mut DoubleWrite, buffer: &Buffer, page: &Page) -> Result<bool, StorageError> {
        if !buffer.frame.valid.load(Ordering::Acquire) || !buffer.frame.dirty.swap(false, Ordering::AcqRel) {
            return Ok(false);
        }
        lane.stage(buffer.tag, page);
        if self.images.wants(buffer.tag, page) {
            // Under the latch, so that nothing lies between the page's LSN and its image.
            match self.wal.insert(&image_record(buffer.tag, page)) {
                Ok(inserted) => lane.flush_first(inserted.end, buffer.tag),
                Err(error) => {
                    Self::still_dirty(std::slice::from_ref(buffer));
                    return Err(error.into());
                }
            }
            self.images.note(buffer.tag);
        }
        Ok(true)
    }

    /// Pages of a batch that failed are newer in memory than on disk. They are pinned, so nobody dropped them meanwhile.
    fn still_dirty(staged: &[Buffer]) {
        for buffer in staged {
            buffer.frame.dirty.store(true, Ordering::Release);
        }
    }

    fn finish_batch(&self, lane: &mut DoubleWrite, staged: &[Buffer]) -> Result<(), StorageError> {
        let result = self.try_finish_batch(lane);
        if result.is_err() {
            Self::still_dirty(staged);
        }
        result
    }

    fn try_finish_batch(&self, lane: &mut DoubleWrite) -> Result<(), StorageError> {
        let Some((upto, tag)) = lane.newest() else { return Ok(()) };
        let end = self.wal.inserted();
        if upto > end {
            let path = self.files.relative_path(tag.rel, tag.fork, 0);
            return Err(StorageError::PageAheadOfWal { block: tag.block, path, lsn: upto, end });
        }
        self.wal.flush(upto)?;
        self.pass_write_gate(upto)?;
        lane.write(&self.files)
    }

    /// Writes every page that was dirty when this began; `pace` is called after each batch with pages done and to do, and may
    /// wait. The files are not synced yet.
    ///
    /// # Errors
    /// I/O; the page that failed stays dirty.
    pub fn write_dirty(&self, mut pace: impl FnMut(usize, usize)) -> Result<usize, StorageError> {
        let mut todo: Vec<(PageTag, usize)> = Vec::new();
        for (at, frame) in self.used_frames() {
            // Under the latch: a writer that logged before the redo point was chosen may not have marked its page dirty yet.
            let dirty = frame.latch.try_read().is_none_or(|_held| frame.dirty.load(Ordering::Acquire));
            if dirty && let Some(tag) = *frame.tag.lock() {
                todo.push((tag, at));
            }
        }
        todo.sort_unstable();
        let (total, mut done, mut written) = (todo.len(), 0, 0);
        for chunk in todo.chunks(self.batch_size()) {
            let batch: Vec<Buffer> = chunk.iter().filter_map(|(tag, at)| self.pin_frame(*at).filter(|b| b.tag == *tag)).collect();
            let outcome = self.write_batch(&mut self.lane.lock(), batch)?;
            match outcome {
                Staged::Written(n) => written += n,
                Staged::Contended(rest, n) => {
                    written += n;
                    for buffer in rest {
                        // Latch first, then the lane: whoever holds the lane only tries latches.
                        let page = buffer.frame.latch.read();
                        let mut lane = self.lane.lock();
                        lane.begin();
                        if self.stage(&mut lane, &buffer, &page)? {
                            self.finish_batch(&mut lane, std::slice::from_ref(&buffer))?;
                            written += 1;
                        }
                    }
                }
            }
            done += chunk.len();
            pace(done, total);
        }
        // A page another thread staged before our scan saw it clean must have reached its file before the caller syncs.
        drop(self.lane.lock());
        self.stats.checkpoint_writes.fetch_add(u64::try_from(written).unwrap_or(0), Ordering::Relaxed);
        Ok(written)
    }

    /// Writes all dirty pages and syncs all files.
    ///
    /// # Errors
    /// I/O; a failed sync is final.
    pub fn flush_all(&self) -> Result<usize, StorageError> {
        let n = self.write_dirty(|_, _| {})?;
        self.files.sync_written()?;
        Ok(n)
    }

    /// Number of dirty pages now.
    pub fn dirty_count(&self) -> usize {
        self.used_frames().filter(|(_, f)| f.dirty.load(Ordering::Relaxed)).count()
    }

    /// Holds back the redo point of checkpoints while the result lives: between the record of a change of a file and the change itself. A
    /// checkpoint in between would forget the record while the file is still as it was. PostgreSQL: `DELAY_CHKPT_COMPLETE`.
    fn hold_redo_point(&self) -> HeldRedo<'_> {
        let mut unfinished = self.unfinished.lock();
        let bound = self.wal.inserted();
        unfinished.push(bound);
        HeldRedo { pool: self, bound }
    }

    /// The redo point of a checkpoint may not lie behind this. Ask after the inserted position was read.
    pub fn redo_limit(&self) -> Option<Lsn> {
        self.unfinished.lock().iter().min().copied()
    }

    /// Takes the LSNs of all pages of all relations back to at most `end`. Returns how many were ahead. Pages that do not verify stay as they
    /// are.
    ///
    /// # Errors
    /// I/O.
    pub fn forget_after(&self, end: Lsn) -> Result<u64, StorageError> {
        let mut changed = 0;
        for (rel, fork) in self.files.relations()? {
            for block in (0..self.files.n_blocks(rel, fork)?.get()).map(BlockNo::new) {
                let buffer = match self.read(rel, fork, block) {
                    Ok(buffer) => buffer,
                    Err(StorageError::BadPage { .. }) => continue,
                    Err(error) => return Err(error),
                };
                let ahead = {
                    let page = buffer.read();
                    page.lsn() > end || page.hint_lsn() > end
                };
                if ahead {
                    changed += u64::from(buffer.write().forget_after(end));
                }
            }
        }
        Ok(changed)
    }

    /// Creates the relation's file for `fork`, logged. Undone by the caller's transaction if it aborts.
    ///
    /// # Errors
    /// I/O.
    pub fn create_fork(&self, rel: RelId, fork: Fork) -> Result<Lsn, StorageError> {
        let _held = self.hold_redo_point();
        let lsn = self.wal.insert(&smgr_redo::create_record(rel, fork))?.end;
        self.files.create(rel, fork)?;
        Ok(lsn)
    }

    /// Adds `n` (at least one) empty pages and returns the first, pinned; the growth is logged. Blocks are initialised in order
    /// before anybody can see the new size.
    ///
    /// # Errors
    /// Full disk is found here, before anything is logged.
    pub fn extend(&self, rel: RelId, fork: Fork, n: u32) -> Result<Buffer, StorageError> {
        self.extend_inner(rel, fork, n, true)
    }

    /// As [`Self::extend`] for relations and forks whose growth is not logged.
    ///
    /// # Errors
    /// Full disk; no free buffer.
    pub fn extend_unlogged(&self, rel: RelId, fork: Fork, n: u32) -> Result<Buffer, StorageError> {
        self.extend_inner(rel, fork, n, false)
    }

    fn extend_inner(&self, rel: RelId, fork: Fork, n: u32, logged: bool) -> Result<Buffer, StorageError> {
        let n = n.max(1);
        if fork == Fork::Main {
            // A file made here would hide that the relation's is gone.
            self.files.blocks_of_whole(rel, fork)?;
        }
        let extension = self.files.extension(rel, fork)?;
        let growing = extension.lock(&self.files);
        let first = growing.n_blocks();
        growing.reserve(n)?;
        let mut buffers = Vec::new();
        for i in 0..n {
            buffers.push(self.fresh(PageTag { rel, fork, block: BlockNo::new(first.get() + i) })?);
        }
        if logged {
            CriticalSection::run("extend a relation", || -> Result<(), StorageError> {
                let end = self.wal.insert(&smgr_redo::extend_record(rel, fork, first, n))?.end;
                for buffer in &buffers {
                    buffer.write().set_lsn(end);
                }
                Ok(())
            });
        }
        growing.grown_to(BlockNo::new(first.get() + n));
        buffers.truncate(1);
        buffers.pop().ok_or(StorageError::NoBuffer)
    }

    /// Shortens a fork to `n` blocks, logged; pages past it are forgotten. `horizon` is what old snapshots may still need.
    ///
    /// From the record on a failure stops the node, as in PostgreSQL's `RelationTruncate`: a file left long would show
    /// its old blocks again after the next start, and the map would call what comes there later all-visible.
    ///
    /// # Errors
    /// If the visibility map cannot be read; nothing is changed then.
    pub fn truncate(&self, rel: RelId, fork: Fork, n: BlockNo, horizon: Lsn) -> Result<Lsn, StorageError> {
        if fork == Fork::Main {
            vm::check_from(self, rel, n)?;
        }
        let _held = self.hold_redo_point();
        Ok(CriticalSection::run("truncate a relation", || -> Result<Lsn, StorageError> {
            let end = self.wal.insert(&smgr_redo::truncate_record(rel, fork, n, horizon))?.end;
            // Durable before the file shrinks: redo of older records would otherwise miss the blocks and nothing would explain it.
            self.wal.flush(end)?;
            self.truncate_local(rel, fork, n)?;
            if fork == Fork::Main {
                vm::forget_from(self, rel, n, end)?;
            }
            Ok(end)
        }))
    }

    pub(crate) fn truncate_local(&self, rel: RelId, fork: Fork, n: BlockNo) -> Result<(), StorageError> {
        let extension = self.files.extension(rel, fork)?;
        let growing = extension.lock(&self.files);
        if growing.n_blocks() > n {
            growing.shrunk_to(n);
            self.discard(|tag| tag.rel == rel && tag.fork == fork && tag.block >= n);
            self.files.truncate(rel, fork, n)?;
        } else if growing.n_blocks() == n && growing.has_gap() {
            // A crash came between two segments.
            self.files.truncate(rel, fork, n)?;
        }
        Ok(())
    }

    /// Forgets all pages of a relation and removes its files. The caller made sure nobody reads it any more.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn drop_relation(&self, rel: RelId) -> Result<(), StorageError> {
        self.drop_relations(&[rel]).pop().map_or(Ok(()), |(_, error)| Err(error))
    }

    /// As [`Self::drop_relation`] for several, with one pass over the pool; whole databases too. Returns those with a file that could not be
    /// removed, and why; the others are gone.
    #[must_use]
    pub fn drop_relations(&self, rels: &[RelId]) -> Vec<(RelId, StorageError)> {
        if rels.is_empty() {
            return Vec::new();
        }
        self.discard(|tag| rels.iter().any(|rel| tag.rel.is_within(*rel)));
        let drop = |rel: RelId| {
            if rel.is_database() {
                self.remove_database_dir(rel.spc, rel.db)
            } else {
                self.missing.forget_relation(rel);
                self.files.unlink(rel)
            }
        };
        rels.iter().filter_map(|rel| drop(*rel).err().map(|error| (*rel, error))).collect()
    }

    pub(super) fn discard_fork(&self, rel: RelId, fork: Fork) {
        self.discard(|tag| tag.rel == rel && tag.fork == fork);
    }

    /// Drops matching pages unwritten, then waits for writes in flight.
    fn discard(&self, matches: impl Fn(&PageTag) -> bool) {
        for (at, frame) in self.used_frames() {
            let tag = *frame.tag.lock();
            if let Some(tag) = tag.filter(&matches) {
                self.unmap(u32::try_from(at).unwrap_or(u32::MAX), tag);
            }
        }
        drop(self.lane.lock());
    }

    /// A fresh page at `tag`, and empty ones between the end of the fork and it. The extension lock is held.
    /// [Rebuilds](Self::rebuild) a block, with empty ones up to it where the relation ends before it.
    fn fill_up_to<E: From<StorageError>>(
        &self,
        growing: &Growing<'_>,
        tag: PageTag,
        change: impl FnOnce(&mut Page) -> Result<(), E>,
    ) -> Result<Buffer, E> {
        let mut at = growing.n_blocks();
        growing.reserve(tag.block.get().saturating_sub(at.get()).saturating_add(1))?;
        while at < tag.block {
            self.fresh(PageTag { block: at, ..tag })?;
            at = BlockNo::new(at.get() + 1);
        }
        let buffer = self.rebuild(tag, change)?;
        if growing.n_blocks() <= tag.block {
            growing.grown_to(BlockNo::new(tag.block.get() + 1));
        }
        Ok(buffer)
    }

    pub(super) fn redo_extend(&self, rel: RelId, fork: Fork, first: BlockNo, n: u32, end: Lsn) -> Result<(), StorageError> {
        self.files.create(rel, fork)?;
        for i in 0..n {
            let block = BlockNo::new(first.get().saturating_add(i));
            // A page already here may have changes from records after this one; those will be redone, so it may start over.
            self.rebuild_for_redo(PageTag { rel, fork, block }, |page| {
                page.set_lsn(end);
                Ok::<_, StorageError>(())
            })?;
        }
        Ok(())
    }

    /// A block that a record makes anew, for redo: what was there is not read.
    fn rebuild_for_redo<E: From<StorageError>>(&self, tag: PageTag, change: impl FnOnce(&mut Page) -> Result<(), E>) -> Result<(), E> {
        self.files.create(tag.rel, tag.fork)?;
        let extension = self.files.extension(tag.rel, tag.fork)?;
        let growing = extension.lock(&self.files);
        // Blocks grow in order, so those in between were here once: a later truncate or drop took them, and must explain it.
        for at in growing.n_blocks().get()..tag.block.get() {
            self.missing.note(PageTag { block: BlockNo::new(at), ..tag }, &self.files)?;
        }
        self.fill_up_to(&growing, tag, change).map(|_buffer| ())
    }

    /// The page a record changes, for redo. `None` if the block does not exist: before consistency that is noted, and must be explained by a
    /// later truncate or drop.
    ///
    /// # Errors
    /// A missing block after consistency; I/O; a damaged page.
    pub fn read_for_redo(&self, rel: RelId, fork: Fork, block: BlockNo) -> Result<Option<Buffer>, StorageError> {
        let tag = PageTag { rel, fork, block };
        if self.files.n_blocks(rel, fork)? <= block {
            self.missing.note(tag, &self.files)?;
            return Ok(None);
        }
        match self.read(rel, fork, block) {
            // Put there to fill a gap, see above: every page that was logged has an LSN. But one of a map that was damaged begins anew.
            Ok(buffer) if fork != Fork::Vm && !buffer.read().lsn().is_valid() => {
                self.missing.note(tag, &self.files)?;
                Ok(None)
            }
            Ok(buffer) => Ok(Some(buffer)),
            // Torn by the copy: its image comes.
            Err(StorageError::BadPage { .. }) if self.images.is_inside() => {
                self.missing.note(tag, &self.files)?;
                Ok(None)
            }
            Err(StorageError::BadPage { stored: 0, .. })
                if fork != Fork::Vm && !self.missing.is_consistent() && self.files.is_zero(tag)? =>
            {
                self.missing.note(tag, &self.files)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Redo of one block reference: applies `change` unless the page already has it, then sets the page LSN. Full images and
    /// initialisations never read the old page. Returns whether the page was changed.
    ///
    /// # Errors
    /// As [`Self::read_for_redo`]; what `change` returns.
    pub fn redo_block<E: From<StorageError>>(
        &self,
        record: &Record<'_>,
        index: usize,
        change: impl FnOnce(&mut Page, &[u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        let bad = |what| StorageError::BadRecord { at: record.start(), what };
        let block = record.block(index).ok_or_else(|| bad("block reference missing"))?;
        let tag = PageTag { rel: block.rel, fork: block.fork, block: block.block };
        if block.is_fpi() || block.will_init() {
            self.rebuild_for_redo(tag, |page| {
                if block.is_fpi() {
                    *page.bytes_mut() = block.data.try_into().map_err(|_| bad("full page image of the wrong size"))?;
                } else {
                    change(page, block.data)?;
                }
                page.set_lsn(record.end());
                Ok::<_, E>(())
            })?;
            return Ok(true);
        }
        let found = match self.read_for_redo(block.rel, block.fork, block.block) {
            Err(damage @ StorageError::BadPage { .. }) => match self.mend_for_redo(tag, record.end(), damage) {
                // Nobody has a copy: bits that are not set are no lie.
                Err(StorageError::BadPage { .. }) if tag.fork == Fork::Vm => Some(self.read_map(tag.rel, tag.fork, tag.block)?),
                other => other?,
            },
            other => other?,
        };
        let Some(buffer) = found else { return Ok(false) };
        let mut page = buffer.write();
        if page.lsn() >= record.end() {
            return Ok(false);
        }
        change(&mut page, block.data)?;
        page.set_lsn(record.end());
        Ok(true)
    }

    /// Redo of an image that was logged for a backup: means something to the copy that this backup made, and nothing elsewhere.
    ///
    /// # Errors
    /// A malformed record; no free buffer; I/O.
    pub fn redo_backup_image(&self, record: &Record<'_>) -> Result<(), StorageError> {
        if !self.images.is_inside() {
            return Ok(());
        }
        let bad = |what| StorageError::BadRecord { at: record.start(), what };
        for index in 0..record.blocks().len() {
            let block = record.block(index).ok_or_else(|| bad("block reference missing"))?;
            let tag = PageTag { rel: block.rel, fork: block.fork, block: block.block };
            let image = block.data.try_into().map_err(|_| bad("full page image of the wrong size"))?;
            self.missing.forget(tag);
            // A block that is not there was removed since, or growth that is in the WAL makes it.
            if self.files.n_blocks(tag.rel, tag.fork)? <= tag.block {
                continue;
            }
            // With its own LSN, not the record's: pages are equal on all nodes.
            let mut page = Page::zeroed();
            *page.bytes_mut() = image;
            loop {
                match self.read(tag.rel, tag.fork, tag.block) {
                    Ok(buffer) => {
                        *buffer.write().bytes_mut() = image;
                        break;
                    }
                    Err(StorageError::BadPage { .. }) => {
                        if self.read_as(tag, &page)?.is_some() {
                            break;
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
