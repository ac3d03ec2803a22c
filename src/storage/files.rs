//! Relation files: `base/<database>/<relfilenode>[_fork][.segment]`, shared ones in `global/`, 1 GB per segment.
//!
//! The size of a fork is kept here, in memory: the pool may hold blocks the file does not have yet. Space for them was reserved
//! on disk first, so writing them does not fail for want of space. Which files have unsynced writes is kept here too.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use afterimage_wal::{
    BlockNo, Fork, Lsn, Oid, RelId,
    disk::{Disk, DiskFile, Open},
};
use parking_lot::{Mutex, MutexGuard, RwLock};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    StorageError,
    buffer_pool::PageTag,
    page::{PAGE_SIZE, Page},
};

/// Blocks per segment file: 1 GB.
pub const SEGMENT_BLOCKS: u32 = 131_072;
/// Most blocks of a fork.
pub const MAX_BLOCKS: u32 = u32::MAX - 1;
/// OID of tablespace `pg_default`.
pub const DEFAULT_TABLESPACE: Oid = 1663;
/// OID of tablespace `pg_global`.
pub const GLOBAL_TABLESPACE: Oid = 1664;
/// Directory of this server's files inside a tablespace.
pub const TABLESPACE_VERSION_DIR: &str = "PG_15_AFTERIMAGE_1";
/// Open files beyond which idle ones are closed, unless told otherwise.
const DEFAULT_MAX_OPEN: usize = 900;
const MAP_SHARDS: usize = 16;
/// See `RelFork::gap`.
const NO_GAP: u32 = u32::MAX;
const ENOENT: i32 = 2;

/// What a system call that looks for a file would have said.
fn not_found() -> io::Error {
    io::Error::from_raw_os_error(ENOENT)
}

/// One segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileKey {
    /// Relation.
    pub rel: RelId,
    /// Fork.
    pub fork: Fork,
    /// Segment.
    pub segment: u32,
}

impl FileKey {
    /// The file a page is in.
    pub fn of(tag: PageTag) -> Self {
        Self { rel: tag.rel, fork: tag.fork, segment: tag.block.get() / SEGMENT_BLOCKS }
    }
}

/// An open segment file.
struct Segment {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// Written since the last sync. Set after the write; cleared under `syncing` before the sync.
    dirty: AtomicBool,
    /// Rank 90. Held across the sync, so that "clean" means synced, not being synced.
    syncing: Mutex<()>,
}

/// One fork of one relation.
struct RelFork {
    rel: RelId,
    fork: Fork,
    /// Whether its first segment exists.
    exists: AtomicBool,
    /// Size that readers may use. Release when grown, Acquire by readers.
    blocks: AtomicU32,
    /// Blocks that have space on disk.
    reserved: AtomicU32,
    /// The segment at which the files end although later ones hold something; [`NO_GAP`]: all are there.
    gap: AtomicU32,
    /// Rank 15: the extension lock. Held across page allocation, WAL insertion and I/O.
    extension: Mutex<()>,
    /// Leaf. Segments open now.
    segments: RwLock<Vec<Option<Arc<Segment>>>>,
}

/// A dropped relation whose file waits for old snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingDrop {
    /// End of the commit record that dropped it.
    pub commit_lsn: Lsn,
    /// Relation.
    pub rel: RelId,
}

#[derive(Debug, Default)]
struct Drops {
    /// For snapshots that may still read them.
    waiting: Vec<PendingDrop>,
    /// Nobody needs them. They are just being unlinked, or could not be: the next checkpoint tries again.
    due: Vec<PendingDrop>,
}

/// Opens a file for reading and writing; `None` if there is none.
pub(super) fn open_existing(disk: &dyn Disk, path: &Path) -> io::Result<Option<Arc<dyn DiskFile>>> {
    match disk.open(path, Open::Write) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

type ForkMap = RwLock<FxHashMap<(RelId, Fork), Arc<RelFork>>>;

/// All relation files of a data directory.
pub struct Files {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    forks: [ForkMap; MAP_SHARDS],
    /// Leaf. Files written since their last sync.
    written: Mutex<FxHashSet<FileKey>>,
    /// Leaf. Dropped relations not unlinked yet.
    drops: Mutex<Drops>,
    open: AtomicUsize,
    max_open: AtomicUsize,
    /// Leaf. Temporary relations, and the session each belongs to.
    temporary: RwLock<FxHashMap<RelId, i32>>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Files({})", self.root.display())
    }
}

/// The extension lock of a fork, held.
pub struct Growing<'a> {
    files: &'a Files,
    fork: &'a RelFork,
    _held: MutexGuard<'a, ()>,
}

/// A fork together with its map entry, so that a [`Growing`] can borrow from it.
pub struct Extension {
    fork: Arc<RelFork>,
}

impl Growing<'_> {
    /// Size now.
    pub fn n_blocks(&self) -> BlockNo {
        BlockNo::new(self.fork.blocks.load(Ordering::Acquire))
    }

    /// Whether segments behind the end hold something.
    pub fn has_gap(&self) -> bool {
        self.fork.gap.load(Ordering::Relaxed) != NO_GAP
    }

    /// Makes sure there is space on disk for `n` more blocks.
    ///
    /// # Errors
    /// Full disk; [`StorageError::TooLong`].
    pub fn reserve(&self, n: u32) -> Result<(), StorageError> {
        let blocks = self.fork.blocks.load(Ordering::Acquire);
        let wanted = blocks
            .checked_add(n)
            .filter(|w| *w <= MAX_BLOCKS)
            .ok_or_else(|| StorageError::TooLong { path: self.files.relative_path(self.fork.rel, self.fork.fork, 0), limit: MAX_BLOCKS })?;
        let have = self.fork.reserved.load(Ordering::Relaxed);
        if wanted <= have {
            return Ok(());
        }
        // Ahead by an eighth, up to 8 MB, so that a growing table asks rarely.
        let ahead = wanted.saturating_add((blocks / 8).min(1024)).min(MAX_BLOCKS);
        self.files.reserve(self.fork, blocks, ahead).or_else(|_| self.files.reserve(self.fork, blocks, wanted))
    }

    /// Readers may see blocks below `n` now.
    pub fn grown_to(&self, n: BlockNo) {
        self.fork.blocks.store(n.get(), Ordering::Release);
        // Redo filled it.
        let gap = self.fork.gap.load(Ordering::Relaxed);
        if gap != NO_GAP && n.get() / SEGMENT_BLOCKS > gap {
            self.fork.gap.store(NO_GAP, Ordering::Relaxed);
        }
    }

    /// Readers may no longer see blocks from `n` on.
    pub fn shrunk_to(&self, n: BlockNo) {
        self.fork.blocks.store(n.get(), Ordering::Release);
        self.fork.reserved.store(n.get(), Ordering::Relaxed);
    }
}

impl Extension {
    /// Takes the lock.
    pub fn lock<'a>(&'a self, files: &'a Files) -> Growing<'a> {
        Growing { files, fork: &self.fork, _held: self.fork.extension.lock() }
    }
}

impl Files {
    /// The files below `root`.
    pub fn new(disk: Arc<dyn Disk>, root: &Path) -> Self {
        Self {
            disk,
            root: root.to_owned(),
            forks: std::array::from_fn(|_| ForkMap::default()),
            written: Mutex::default(),
            drops: Mutex::default(),
            open: AtomicUsize::new(0),
            max_open: AtomicUsize::new(DEFAULT_MAX_OPEN),
            temporary: RwLock::default(),
        }
    }

    /// The data directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The disk below.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Sets how many files may stay open (`max_files_per_process`).
    pub fn set_max_open(&self, n: usize) {
        self.max_open.store(n.max(16), Ordering::Relaxed);
    }

    /// Directory of a database in a tablespace, relative to the data directory.
    pub fn database_dir(spc: Oid, db: Oid) -> String {
        if db == 0 || spc == GLOBAL_TABLESPACE {
            "global".to_owned()
        } else if spc == DEFAULT_TABLESPACE || spc == 0 {
            format!("base/{db}")
        } else {
            format!("pg_tblspc/{spc}/{TABLESPACE_VERSION_DIR}/{db}")
        }
    }

    /// File of a segment, relative to the data directory; what error messages show.
    pub fn relative_path(&self, rel: RelId, fork: Fork, segment: u32) -> String {
        let dir = Self::database_dir(rel.spc, rel.db);
        let suffix = match fork {
            Fork::Main => "",
            Fork::Fsm => "_fsm",
            Fork::Vm => "_vm",
            Fork::Init => "_init",
        };
        let number = if segment == 0 { String::new() } else { format!(".{segment}") };
        let session = self.temporary.read().get(&rel).map(|session| format!("t{session}_")).unwrap_or_default();
        format!("{dir}/{session}{}{suffix}{number}", rel.rel)
    }

    fn io(&self, what: &'static str, key: FileKey) -> impl FnOnce(io::Error) -> StorageError {
        let path = self.relative_path(key.rel, key.fork, key.segment);
        move |source| StorageError::Io { what, path, source }
    }

    fn block(&self, what: &'static str, tag: PageTag) -> impl FnOnce(io::Error) -> StorageError {
        move |source| {
            let path = self.relative_path(tag.rel, tag.fork, FileKey::of(tag).segment);
            StorageError::Block { what, block: tag.block, path, source }
        }
    }

    fn map(&self, rel: RelId) -> &ForkMap {
        &self.forks[usize::try_from(rel.rel).unwrap_or(0) % MAP_SHARDS]
    }

    fn entry(&self, rel: RelId, fork: Fork) -> Result<Arc<RelFork>, StorageError> {
        if let Some(found) = self.map(rel).read().get(&(rel, fork)) {
            return Ok(Arc::clone(found));
        }
        let mut map = self.map(rel).write();
        if let Some(found) = map.get(&(rel, fork)) {
            return Ok(Arc::clone(found));
        }
        let (exists, blocks, gap) = self.measure(rel, fork)?;
        let made = Arc::new(RelFork {
            rel,
            fork,
            exists: AtomicBool::new(exists),
            blocks: AtomicU32::new(blocks),
            reserved: AtomicU32::new(blocks),
            gap: AtomicU32::new(gap),
            extension: Mutex::new(()),
            segments: RwLock::default(),
        });
        map.insert((rel, fork), Arc::clone(&made));
        Ok(made)
    }

    /// Whether there is a file, and the size on disk: whole blocks; a partial last one was never finished, redo makes it again. Third, where
    /// segments that hold something follow behind the end, the segment that is missing or too short.
    fn measure(&self, rel: RelId, fork: Fork) -> Result<(bool, u32, u32), StorageError> {
        let mut blocks = 0_u32;
        for segment in 0.. {
            let Some(here) = self.segment_blocks(rel, fork, segment)? else {
                let gap = segment > 0 && self.holds_more(rel, fork, segment)?;
                return Ok((segment > 0, blocks, if gap { segment } else { NO_GAP }));
            };
            blocks = blocks.saturating_add(here);
            if here < SEGMENT_BLOCKS {
                let gap = self.segment_blocks(rel, fork, segment + 1)?.is_some_and(|n| n > 0);
                return Ok((true, blocks, if gap { segment } else { NO_GAP }));
            }
        }
        Ok((true, blocks, NO_GAP))
    }

    /// Whole blocks in a segment file; `None` if there is none.
    fn segment_blocks(&self, rel: RelId, fork: Fork, segment: u32) -> Result<Option<u32>, StorageError> {
        let key = FileKey { rel, fork, segment };
        let path = self.root.join(self.relative_path(rel, fork, segment));
        let Some(file) = open_existing(&*self.disk, &path).map_err(self.io("open", key))? else { return Ok(None) };
        let len = file.len().map_err(self.io("read", key))?;
        Ok(Some(u32::try_from(len / PAGE_SIZE as u64).unwrap_or(u32::MAX).min(SEGMENT_BLOCKS)))
    }

    /// Whether segments behind this one, which is missing, hold something. Asked for relations of a gigabyte and more.
    fn holds_more(&self, rel: RelId, fork: Fork, missing: u32) -> Result<bool, StorageError> {
        let dir = Self::database_dir(rel.spc, rel.db);
        for name in self.list(&dir)? {
            let Some((other, its, segment)) = relation_file(&dir, &name) else { continue };
            if other.rel == rel.rel && its == fork && segment > missing && self.segment_blocks(rel, fork, segment)?.is_some_and(|n| n > 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn missing_file(&self, rel: RelId, fork: Fork, segment: u32) -> StorageError {
        StorageError::Open { path: self.relative_path(rel, fork, segment), source: not_found() }
    }

    /// That the relation has its first file; looked for again each time it has not.
    fn check_exists(&self, entry: &RelFork) -> Result<(), StorageError> {
        if entry.exists.load(Ordering::Acquire) {
            return Ok(());
        }
        // Somebody may put it back, or mount what it is on.
        let mut map = self.map(entry.rel).write();
        if map.get(&(entry.rel, entry.fork)).is_some_and(|known| !known.exists.load(Ordering::Acquire)) {
            map.remove(&(entry.rel, entry.fork));
        }
        Err(self.missing_file(entry.rel, entry.fork, 0))
    }

    fn check_whole(&self, entry: &RelFork) -> Result<(), StorageError> {
        self.check_exists(entry)?;
        match entry.gap.load(Ordering::Relaxed) {
            NO_GAP => Ok(()),
            gap if entry.blocks.load(Ordering::Acquire) / SEGMENT_BLOCKS == gap
                && !entry.blocks.load(Ordering::Acquire).is_multiple_of(SEGMENT_BLOCKS) =>
            {
                Err(StorageError::ShortSegment {
                    path: self.relative_path(entry.rel, entry.fork, gap + 1),
                    blocks: entry.blocks.load(Ordering::Acquire) % SEGMENT_BLOCKS,
                })
            }
            gap => Err(self.missing_file(entry.rel, entry.fork, gap)),
        }
    }

    /// Blocks of a relation whose files must be there, and all of them: one that is gone would read as empty, or as shorter than it is.
    ///
    /// # Errors
    /// [`StorageError::Open`], [`StorageError::ShortSegment`]; I/O.
    pub fn blocks_of_whole(&self, rel: RelId, fork: Fork) -> Result<BlockNo, StorageError> {
        let entry = self.entry(rel, fork)?;
        self.check_whole(&entry)?;
        Ok(BlockNo::new(entry.blocks.load(Ordering::Acquire)))
    }

    /// Whether the fork has a file.
    ///
    /// # Errors
    /// I/O.
    pub fn exists(&self, rel: RelId, fork: Fork) -> Result<bool, StorageError> {
        Ok(self.entry(rel, fork)?.exists.load(Ordering::Acquire))
    }

    /// Whether the disk has a file of the fork at this moment.
    ///
    /// # Errors
    /// I/O.
    pub fn has_file(&self, rel: RelId, fork: Fork) -> Result<bool, StorageError> {
        let key = FileKey { rel, fork, segment: 0 };
        self.disk.exists(&self.root.join(self.relative_path(rel, fork, 0))).map_err(self.io("open", key))
    }

    /// Blocks of the fork; zero if it has no file.
    ///
    /// # Errors
    /// I/O.
    pub fn n_blocks(&self, rel: RelId, fork: Fork) -> Result<BlockNo, StorageError> {
        Ok(BlockNo::new(self.entry(rel, fork)?.blocks.load(Ordering::Acquire)))
    }

    /// Bytes of all segments of a fork.
    ///
    /// # Errors
    /// I/O.
    pub fn fork_bytes(&self, rel: RelId, fork: Fork) -> Result<u64, StorageError> {
        Ok(u64::from(self.n_blocks(rel, fork)?.get()) * PAGE_SIZE as u64)
    }

    /// Creates the fork's file, and its directory, if they are not there.
    ///
    /// # Errors
    /// I/O.
    pub fn create(&self, rel: RelId, fork: Fork) -> Result<(), StorageError> {
        let entry = self.entry(rel, fork)?;
        if entry.exists.load(Ordering::Acquire) {
            return Ok(());
        }
        let _held = entry.extension.lock();
        self.create_held(&entry)
    }

    fn create_held(&self, entry: &RelFork) -> Result<(), StorageError> {
        if entry.exists.load(Ordering::Acquire) {
            return Ok(());
        }
        let key = FileKey { rel: entry.rel, fork: entry.fork, segment: 0 };
        let segment = self.open_segment(entry, 0, true)?;
        let segment = segment.ok_or_else(|| self.io("create", key)(not_found()))?;
        // Created files count as written: the checkpoint syncs them and their directory.
        self.mark_written(&segment, key);
        entry.exists.store(true, Ordering::Release);
        Ok(())
    }

    /// Creates the file of a session's temporary relation, under a name that every start removes.
    ///
    /// # Errors
    /// I/O.
    pub fn create_temporary(&self, rel: RelId, session: i32) -> Result<(), StorageError> {
        self.temporary.write().insert(rel, session);
        // Somebody may have looked for it under the other name.
        self.map(rel).write().retain(|(r, _), _| *r != rel);
        self.create(rel, Fork::Main)
    }

    /// Removes what sessions of an earlier life left of their temporary relations. Nobody runs yet. PostgreSQL: `RemovePgTempRelationFiles`.
    ///
    /// # Errors
    /// I/O.
    pub fn remove_temporary(&self) -> Result<(), StorageError> {
        for place in self.database_dirs()? {
            for name in self.list(&place)?.iter().filter(|name| is_temporary(name)) {
                let path = format!("{place}/{name}");
                self.disk.remove(&self.root.join(&path)).map_err(|source| StorageError::Io { what: "remove", path, source })?;
            }
        }
        Ok(())
    }

    /// The extension lock of a fork.
    ///
    /// # Errors
    /// I/O.
    pub fn extension(&self, rel: RelId, fork: Fork) -> Result<Extension, StorageError> {
        Ok(Extension { fork: self.entry(rel, fork)? })
    }

    /// An open segment; `None` if it does not exist and is not to be created.
    fn open_segment(&self, entry: &RelFork, segment: u32, create: bool) -> Result<Option<Arc<Segment>>, StorageError> {
        let at = usize::try_from(segment).unwrap_or(usize::MAX);
        if let Some(Some(open)) = entry.segments.read().get(at) {
            return Ok(Some(Arc::clone(open)));
        }
        self.close_idle();
        let key = FileKey { rel: entry.rel, fork: entry.fork, segment };
        let relative = self.relative_path(entry.rel, entry.fork, segment);
        let path = self.root.join(&relative);
        let mut segments = entry.segments.write();
        if let Some(Some(open)) = segments.get(at) {
            return Ok(Some(Arc::clone(open)));
        }
        let open_error = |source| StorageError::Open { path: relative.clone(), source };
        let file = match open_existing(&*self.disk, &path).map_err(open_error)? {
            Some(file) => file,
            None if create => {
                if let Some(dir) = path.parent() {
                    self.disk.create_dir(dir).map_err(self.io("create", key))?;
                }
                self.disk.open(&path, Open::Create).map_err(open_error)?
            }
            None => return Ok(None),
        };
        let made = Arc::new(Segment { file, path, dirty: AtomicBool::new(false), syncing: Mutex::new(()) });
        if segments.len() <= at {
            segments.resize_with(at + 1, || None);
        }
        segments[at] = Some(Arc::clone(&made));
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Some(made))
    }

    /// Closes files nobody uses if too many are open. Only synced ones: a failed write-back must reach the sync that asks.
    fn close_idle(&self) {
        let limit = self.max_open.load(Ordering::Relaxed);
        if self.open.load(Ordering::Relaxed) < limit {
            return;
        }
        let mut excess = limit / 4;
        for map in &self.forks {
            for entry in map.read().values() {
                let Some(mut segments) = entry.segments.try_write() else { continue };
                for slot in segments.iter_mut() {
                    if slot.as_ref().is_some_and(|s| Arc::strong_count(s) == 1 && !s.dirty.load(Ordering::Acquire)) {
                        *slot = None;
                        self.open.fetch_sub(1, Ordering::Relaxed);
                        excess = excess.saturating_sub(1);
                    }
                }
                if excess == 0 {
                    return;
                }
            }
        }
    }

    fn segment_for(&self, tag: PageTag) -> Result<(Arc<Segment>, u64), StorageError> {
        let entry = self.entry(tag.rel, tag.fork)?;
        let segment = FileKey::of(tag).segment;
        let open = self.open_segment(&entry, segment, false)?.ok_or_else(|| self.missing_file(tag.rel, tag.fork, segment))?;
        Ok((open, u64::from(tag.block.get() % SEGMENT_BLOCKS) * PAGE_SIZE as u64))
    }

    /// Reads and verifies a page.
    ///
    /// # Errors
    /// [`StorageError::MissingBlock`], [`StorageError::BadPage`], I/O.
    pub fn read_page(&self, tag: PageTag, page: &mut Page) -> Result<(), StorageError> {
        let entry = self.entry(tag.rel, tag.fork)?;
        let blocks = BlockNo::new(entry.blocks.load(Ordering::Acquire));
        if tag.block >= blocks {
            if tag.fork == Fork::Main {
                self.check_whole(&entry)?;
            }
            return Err(StorageError::MissingBlock {
                block: tag.block,
                path: self.relative_path(tag.rel, tag.fork, 0),
                blocks: blocks.get(),
            });
        }
        self.read_raw(tag, page)?;
        if page.verifies(tag.rel, tag.fork, tag.block) {
            return Ok(());
        }
        Err(StorageError::BadPage {
            rel: tag.rel,
            fork: tag.fork,
            block: tag.block,
            path: self.relative_path(tag.rel, tag.fork, 0),
            stored: page.stored_checksum(),
            computed: page.checksum(tag.rel, tag.fork, tag.block),
        })
    }

    /// Reads a page without verifying; what the file does not have reads as zero. Returns the bytes there were.
    ///
    /// # Errors
    /// I/O.
    pub fn read_raw(&self, tag: PageTag, page: &mut Page) -> Result<usize, StorageError> {
        let (segment, at) = self.segment_for(tag)?;
        let have = segment.file.read_at(page.bytes_mut(), at).map_err(self.block("read", tag))?;
        page.bytes_mut()[have..].fill(0);
        Ok(have)
    }

    /// Tells the disk that a block will be read soon.
    ///
    /// # Errors
    /// I/O. The block can be read nevertheless, or whoever reads it learns why not.
    pub fn will_need(&self, tag: PageTag) -> Result<(), StorageError> {
        let (segment, at) = self.segment_for(tag)?;
        segment.file.will_need(at, PAGE_SIZE as u64).map_err(self.block("read", tag))
    }

    /// Whether the block is all zero on disk.
    ///
    /// # Errors
    /// I/O.
    pub fn is_zero(&self, tag: PageTag) -> Result<bool, StorageError> {
        let mut page = Page::zeroed();
        self.read_raw(tag, &mut page)?;
        Ok(page.is_zero())
    }

    /// Whether the double-write area should put its copy back: the block is in the file and does not verify.
    ///
    /// # Errors
    /// I/O.
    pub fn page_needs_restore(&self, tag: PageTag) -> Result<bool, StorageError> {
        if !self.exists(tag.rel, tag.fork)? || tag.block >= self.n_blocks(tag.rel, tag.fork)? {
            return Ok(false);
        }
        let mut page = Page::zeroed();
        let have = self.read_raw(tag, &mut page)?;
        Ok(have == PAGE_SIZE && !page.verifies(tag.rel, tag.fork, tag.block))
    }

    /// Writes a stamped page in place; synced later. The write lane is held, or nobody else runs.
    ///
    /// # Errors
    /// I/O.
    pub fn write_page(&self, tag: PageTag, bytes: &[u8]) -> Result<(), StorageError> {
        let (segment, at) = self.segment_for(tag)?;
        segment.file.write_at(bytes, at).map_err(self.block("write", tag))?;
        self.mark_written(&segment, FileKey::of(tag));
        Ok(())
    }

    /// As [`Self::write_page`] for `first` and the blocks behind it, all in one segment.
    ///
    /// # Errors
    /// I/O; any of them may be written then.
    pub(super) fn write_run(&self, first: PageTag, pages: &[&[u8]]) -> Result<(), StorageError> {
        let (segment, at) = self.segment_for(first)?;
        segment.file.write_parts_at(pages, at).map_err(self.block("write", first))?;
        self.mark_written(&segment, FileKey::of(first));
        Ok(())
    }

    fn mark_written(&self, segment: &Segment, key: FileKey) {
        if !segment.dirty.swap(true, Ordering::AcqRel) {
            self.written.lock().insert(key);
        }
    }

    fn reserve(&self, fork: &RelFork, from: u32, upto: u32) -> Result<(), StorageError> {
        let mut at = from;
        while at < upto {
            let segment_no = at / SEGMENT_BLOCKS;
            let end = upto.min((segment_no + 1).saturating_mul(SEGMENT_BLOCKS));
            let key = FileKey { rel: fork.rel, fork: fork.fork, segment: segment_no };
            // Only what grows into a new file makes one.
            let new = at.is_multiple_of(SEGMENT_BLOCKS) && (segment_no > 0 || !fork.exists.load(Ordering::Acquire));
            let segment = self.open_segment(fork, segment_no, new)?.ok_or_else(|| self.missing_file(fork.rel, fork.fork, segment_no))?;
            let offset = u64::from(at % SEGMENT_BLOCKS) * PAGE_SIZE as u64;
            segment.file.reserve(offset, u64::from(end - at) * PAGE_SIZE as u64).map_err(self.io("extend", key))?;
            at = end;
        }
        fork.exists.store(true, Ordering::Release);
        fork.reserved.fetch_max(upto, Ordering::Relaxed);
        Ok(())
    }

    /// Shortens the file; the caller holds the extension lock and forgot the pages.
    ///
    /// # Errors
    /// I/O.
    pub fn truncate(&self, rel: RelId, fork: Fork, n: BlockNo) -> Result<(), StorageError> {
        let entry = self.entry(rel, fork)?;
        let first = n.get() / SEGMENT_BLOCKS;
        let mut segments = Vec::new();
        for segment_no in first.. {
            let Some(segment) = self.open_segment(&entry, segment_no, false)? else { break };
            segments.push((segment_no, segment));
        }
        // From the end: a crash in between leaves no full segments behind a short one.
        for (segment_no, segment) in segments.into_iter().rev() {
            let key = FileKey { rel, fork, segment: segment_no };
            // Later segments stay as empty files; they are found full of nothing and reused.
            let blocks = if segment_no == first { n.get() % SEGMENT_BLOCKS } else { 0 };
            segment.file.set_len(u64::from(blocks) * PAGE_SIZE as u64).map_err(self.io("truncate", key))?;
            self.mark_written(&segment, key);
        }
        entry.gap.store(NO_GAP, Ordering::Relaxed);
        Ok(())
    }

    /// Removes all files of a relation.
    ///
    /// # Errors
    /// I/O.
    pub fn unlink(&self, rel: RelId) -> Result<(), StorageError> {
        for fork in Fork::ALL {
            self.unlink_fork(rel, fork)?;
        }
        // Last: the name is by it.
        self.temporary.write().remove(&rel);
        Ok(())
    }

    /// Removes the files of one fork. Its pages were forgotten.
    ///
    /// # Errors
    /// I/O.
    pub fn unlink_fork(&self, rel: RelId, fork: Fork) -> Result<(), StorageError> {
        if let Some(entry) = self.map(rel).write().remove(&(rel, fork)) {
            let open = entry.segments.write().drain(..).flatten().count();
            self.open.fetch_sub(open, Ordering::Relaxed);
        }
        self.written.lock().retain(|k| k.rel != rel || k.fork != fork);
        let path = |segment| self.root.join(self.relative_path(rel, fork, segment));
        let mut later = 1;
        while self.disk.exists(&path(later)).map_err(self.io("open", FileKey { rel, fork, segment: later }))? {
            later += 1;
        }
        // From the end: those behind the one a crash removed last would never be found again.
        for segment in (0..later).rev() {
            match self.disk.remove(&path(segment)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(self.io("remove", FileKey { rel, fork, segment }))?,
            }
        }
        Ok(())
    }

    /// Forgets everything about a database whose directory is removed.
    pub fn forget_database(&self, spc: Oid, db: Oid) {
        let inside = |rel: RelId| rel.is_within(RelId::database(spc, db));
        for map in &self.forks {
            map.write().retain(|(rel, _), entry| {
                if inside(*rel) {
                    let open = entry.segments.write().drain(..).flatten().count();
                    self.open.fetch_sub(open, Ordering::Relaxed);
                }
                !inside(*rel)
            });
        }
        self.written.lock().retain(|k| !inside(k.rel));
    }

    /// Syncs every file written since its last sync. Returns how many.
    ///
    /// # Errors
    /// [`StorageError::Sync`]: the node must stop.
    pub fn sync_written(&self) -> Result<usize, StorageError> {
        self.sync_written_timed().map(|(n, _)| n)
    }

    /// As [`Self::sync_written`]; also how long the slowest of them took.
    ///
    /// # Errors
    /// As [`Self::sync_written`].
    pub fn sync_written_timed(&self) -> Result<(usize, Duration), StorageError> {
        let keys: Vec<FileKey> = self.written.lock().iter().copied().collect();
        let longest = self.sync_each(&keys)?;
        Ok((keys.len(), longest))
    }

    /// Syncs those of these files that were written since their last sync, and the directories of new ones.
    ///
    /// # Errors
    /// [`StorageError::Sync`]: the node must stop.
    pub fn sync_these(&self, keys: &[FileKey]) -> Result<(), StorageError> {
        self.sync_each(keys).map(drop)
    }

    fn sync_each(&self, keys: &[FileKey]) -> Result<Duration, StorageError> {
        let mut longest = Duration::ZERO;
        let mut dirs = FxHashSet::default();
        for key in keys {
            let Some(entry) = self.map(key.rel).read().get(&(key.rel, key.fork)).cloned() else { continue };
            let Some(segment) = self.open_segment(&entry, key.segment, false)? else {
                if self.written.lock().contains(key) {
                    // Not dropped, but gone, and what was written to it: only redo has it still.
                    let path = self.root.join(self.relative_path(key.rel, key.fork, key.segment));
                    return Err(StorageError::Sync { path, source: not_found() });
                }
                continue;
            };
            let _syncing = segment.syncing.lock();
            self.written.lock().remove(key);
            if segment.dirty.swap(false, Ordering::AcqRel) {
                let began = Instant::now();
                segment.file.sync_data().map_err(|source| StorageError::Sync { path: segment.path.clone(), source })?;
                longest = longest.max(began.elapsed());
                if let Some(dir) = segment.path.parent() {
                    dirs.insert(dir.to_owned());
                }
            }
        }
        for dir in dirs {
            match self.disk.sync_dir(&dir) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|source| StorageError::Sync { path: dir, source })?,
            }
        }
        Ok(longest)
    }

    /// Syncs every data file there is: after a crash or a failed sync the page cache proves nothing.
    ///
    /// # Errors
    /// [`StorageError::Sync`].
    pub fn sync_everything(&self) -> Result<usize, StorageError> {
        let mut synced = 0;
        for top in ["global", "base", "pg_tblspc", "pg_xact"] {
            synced += self.sync_tree(&self.root.join(top))?;
        }
        Ok(synced)
    }

    fn sync_tree(&self, dir: &Path) -> Result<usize, StorageError> {
        let fail = |path: &Path, source| StorageError::Sync { path: path.to_owned(), source };
        let mut synced = 0;
        let names = match self.disk.list(dir) {
            Ok(names) => names,
            // A file, or nothing.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                let Some(file) = open_existing(&*self.disk, dir).map_err(|e| fail(dir, e))? else { return Ok(0) };
                file.sync_data().map_err(|e| fail(dir, e))?;
                return Ok(1);
            }
            Err(e) => return Err(fail(dir, e)),
        };
        for name in names {
            synced += self.sync_tree(&dir.join(name))?;
        }
        self.disk.sync_dir(dir).map_err(|e| fail(dir, e))?;
        Ok(synced)
    }

    /// Names in a directory; none if there is no such directory.
    fn list(&self, place: &str) -> Result<Vec<String>, StorageError> {
        match self.disk.list(&self.root.join(place)) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
            other => other.map_err(|source| StorageError::Io { what: "read", path: place.to_owned(), source }),
        }
    }

    /// Directories of databases, in every tablespace but the global one.
    fn database_dirs(&self) -> Result<Vec<String>, StorageError> {
        let mut places: Vec<String> = self.list("base")?.into_iter().map(|db| format!("base/{db}")).collect();
        for spc in self.list("pg_tblspc")? {
            let version = format!("pg_tblspc/{spc}/{TABLESPACE_VERSION_DIR}");
            places.extend(self.list(&version)?.into_iter().map(|db| format!("{version}/{db}")));
        }
        Ok(places)
    }

    /// Every fork that has a file, whether a catalog knows it or not; sorted.
    ///
    /// # Errors
    /// I/O.
    pub fn relations(&self) -> Result<Vec<(RelId, Fork)>, StorageError> {
        let mut places = vec!["global".to_owned()];
        places.extend(self.database_dirs()?);
        let mut found = Vec::new();
        for place in places {
            let names = self.list(&place)?;
            found
                .extend(names.iter().filter_map(|name| relation_file(&place, name)).filter(|f| f.2 == 0).map(|(rel, fork, _)| (rel, fork)));
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Notes that a commit dropped these relations; they are unlinked when no snapshot is older.
    pub fn schedule_drop(&self, rels: &[RelId], commit_lsn: Lsn) {
        let mut drops = self.drops.lock();
        for rel in rels {
            if !drops.waiting.iter().any(|p| p.rel == *rel) {
                drops.waiting.push(PendingDrop { commit_lsn, rel: *rel });
            }
        }
    }

    /// The drops whose commit is at or below `upto`. They stay known until [`Self::dropped`] or [`Self::try_drops_again`].
    pub fn take_due_drops(&self, upto: Lsn) -> Vec<PendingDrop> {
        let mut drops = self.drops.lock();
        let (due, later): (Vec<_>, _) = drops.waiting.drain(..).partition(|p| p.commit_lsn <= upto);
        drops.waiting = later;
        drops.due.extend_from_slice(&due);
        due
    }

    /// Whether drops wait for old snapshots.
    pub fn has_waiting_drops(&self) -> bool {
        !self.drops.lock().waiting.is_empty()
    }

    /// A due drop's files are gone.
    pub fn dropped(&self, drop: PendingDrop) {
        self.drops.lock().due.retain(|p| *p != drop);
    }

    /// Keeps a drop whose files could not be removed.
    pub fn could_not_drop(&self, drop: PendingDrop) {
        self.drops.lock().due.push(drop);
    }

    /// Drops that failed wait again.
    pub fn try_drops_again(&self) {
        let mut drops = self.drops.lock();
        let failed = std::mem::take(&mut drops.due);
        drops.waiting.extend(failed);
    }

    /// Drops not done yet; a checkpoint makes the list durable.
    pub fn pending_drops(&self) -> Vec<PendingDrop> {
        let drops = self.drops.lock();
        drops.waiting.iter().chain(&drops.due).copied().collect()
    }

    /// Whether a commit has dropped a relation whose files may still be there.
    pub fn is_dropped(&self, rel: RelId) -> bool {
        let drops = self.drops.lock();
        drops.waiting.iter().chain(&drops.due).any(|p| rel.is_within(p.rel))
    }
}

/// Whether a file is one of a session's temporary relation, by its name: `t<session>_<number>` and what follows.
pub fn is_temporary(name: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix('t')
        .and_then(|rest| rest.split_once('_'))
        .is_some_and(|(session, rest)| digits(session) && digits(rest.split(['_', '.']).next().unwrap_or("")))
}

/// The relation, fork and segment a file below `base/<database>`, `global` or a tablespace holds.
pub fn relation_file(dir: &str, name: &str) -> Option<(RelId, Fork, u32)> {
    let (spc, db) = match dir.split('/').collect::<Vec<_>>()[..] {
        ["base", db] => (1663, db.parse().ok()?),
        ["global"] => (1664, 0),
        ["pg_tblspc", spc, TABLESPACE_VERSION_DIR, db] => (spc.parse().ok()?, db.parse().ok()?),
        _ => return None,
    };
    let (stem, segment) = match name.split_once('.') {
        Some((stem, segment)) => (stem, segment.parse().ok()?),
        None => (name, 0),
    };
    let (number, fork) = match stem.split_once('_') {
        None => (stem, Fork::Main),
        Some((number, "fsm")) => (number, Fork::Fsm),
        Some((number, "vm")) => (number, Fork::Vm),
        Some((number, "init")) => (number, Fork::Init),
        Some(_) => return None,
    };
    Some((RelId { spc, db, rel: number.parse().ok()? }, fork, segment))
}
