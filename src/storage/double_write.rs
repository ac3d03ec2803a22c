//! The double-write area: a durable copy of each page before the page is written in place.
//!
//! A page torn in place by a crash is restored from its copy, so the WAL carries no full page images in normal running.
//!
//! ```text
//! pg_dblwr: file header (one page: magic, format version, system id, slots, crc, generation) | slot 0 | slot 1 | ...
//! slot: magic u32, crc32c u32, sequence u64, spc u32, db u32, rel u32, fork u32, block u32, zero to 64 bytes | page, stamped
//! ```
//! Each start draws the next generation, with which the crc of a slot begins: copies of an earlier start no longer verify, and the file
//! need not be emptied and allocated again.
//!
//! Slots are a ring. The ring is cut in regions; before a region is written again every file its pages went to is synced, so a
//! copy is overwritten only when the page in place is durable. A sequence number tells the newest copy of a page.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use afterimage_wal::{
    BlockNo, Fork, Lsn, RelId, SystemId,
    disk::{Disk, DiskFile, Open},
};
use rustc_hash::FxHashSet;

use super::{
    StorageError,
    buffer_pool::PageTag,
    files::{FileKey, Files, open_existing},
    page::{PAGE_SIZE, Page},
};

/// Name of the file in the data directory.
pub const AREA_FILE: &str = "pg_dblwr";
const MAGIC: u32 = 0x5744_4941;
const SLOT_MAGIC: u32 = 0x544f_4c53;
/// 2: the generation. In version 1 a start emptied the file, and the crc of a slot began at nothing.
const FORMAT_VERSION: u32 = 2;
const HEADER_BYTES: usize = 36;
const FILE_HEADER: usize = PAGE_SIZE;
const SLOT_HEADER: usize = 64;
const SLOT_BYTES: usize = SLOT_HEADER + PAGE_SIZE;
const REGIONS: usize = 8;
/// Pages asked for ahead of the one that [`restore`] looks at: they lie anywhere, and one read after another would wait for each.
const RESTORE_AHEAD: usize = 32;
/// Slots per region unless told otherwise; eight regions make 32 MB.
pub const REGION_SLOTS: usize = 512;

/// The area, opened for writing. Used under the pool's write lane.
pub struct DoubleWrite {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// The crc every slot's begins with.
    seed: u32,
    region_slots: usize,
    /// Next slot of the ring.
    next: usize,
    sequence: u64,
    /// Files that pages of each region went to.
    regions: Vec<FxHashSet<FileKey>>,
    /// The batch: tags, and their slots ready to write.
    tags: Vec<PageTag>,
    bytes: Vec<u8>,
    newest: Option<(Lsn, PageTag)>,
}

fn bad(path: &Path, what: impl Into<String>) -> StorageError {
    StorageError::BadFile { path: path.display().to_string(), what: what.into() }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.display().to_string();
    move |source| StorageError::Io { what, path, source }
}

fn le32(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).and_then(|s| s.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn le64(b: &[u8], at: usize) -> u64 {
    b.get(at..at + 8).and_then(|s| s.try_into().ok()).map_or(0, u64::from_le_bytes)
}

impl DoubleWrite {
    /// Opens the area of a data directory, emptied: the caller has restored and synced what it held.
    ///
    /// # Errors
    /// I/O.
    pub fn open(disk: &dyn Disk, data_dir: &Path, system_id: SystemId) -> Result<Self, StorageError> {
        Self::open_sized(disk, data_dir, system_id, REGION_SLOTS)
    }

    /// As [`Self::open`] with a chosen size.
    ///
    /// # Errors
    /// I/O.
    pub fn open_sized(disk: &dyn Disk, data_dir: &Path, system_id: SystemId, region_slots: usize) -> Result<Self, StorageError> {
        let path = data_dir.join(AREA_FILE);
        let size = u64::try_from(FILE_HEADER + region_slots * REGIONS * SLOT_BYTES).unwrap_or(u64::MAX);
        let slots = u64::try_from(region_slots * REGIONS).unwrap_or(0);
        let known = open_existing(disk, &path).map_err(io_error("open", &path))?;
        let (file, generation) = match known {
            Some(file) if file.len().map_err(io_error("read", &path))? == size => {
                let header = read_exactly(&*file, 0, FILE_HEADER).map_err(io_error("read", &path))?;
                // Whatever else it is, it is allocated; copies without a generation go, as they could pass for ours.
                let generation = Header::decode(&header).ok().and_then(|h| h.generation).map(|g| g.wrapping_add(1));
                (file, generation)
            }
            _ => (disk.open(&path, Open::Create).map_err(io_error("open", &path))?, None),
        };
        let header = Header { system_id, slots, generation: Some(generation.unwrap_or(1)) };
        if generation.is_none() {
            file.set_len(0).map_err(io_error("truncate", &path))?;
        }
        // One sector, so that a crash leaves the old generation or the new one.
        file.write_at(&header.encode(), 0).map_err(io_error("write", &path))?;
        if generation.is_none() {
            file.allocate(size).map_err(io_error("extend", &path))?;
        }
        // Before any page is written in place: a copy from before this start must not outlive it.
        file.sync_data().map_err(|source| StorageError::Sync { path: path.clone(), source })?;
        disk.sync_dir(data_dir).map_err(|source| StorageError::Sync { path: data_dir.to_owned(), source })?;
        Ok(Self {
            file,
            path,
            seed: header.seed(),
            region_slots,
            next: 0,
            sequence: 0,
            regions: vec![FxHashSet::default(); REGIONS],
            tags: Vec::new(),
            bytes: Vec::new(),
            newest: None,
        })
    }

    /// Starts a batch.
    pub(crate) fn begin(&mut self) {
        self.tags.clear();
        self.bytes.clear();
        self.newest = None;
    }

    /// Copies a page into the batch, stamped with its checksum.
    pub(crate) fn stage(&mut self, tag: PageTag, page: &Page) {
        self.sequence += 1;
        let start = self.bytes.len();
        self.bytes.resize(start + SLOT_HEADER, 0);
        self.bytes.extend_from_slice(page.bytes());
        let slot = &mut self.bytes[start..];
        let crc = page.checksum(tag.rel, tag.fork, tag.block);
        slot[SLOT_HEADER + 8..SLOT_HEADER + 12].copy_from_slice(&crc.to_le_bytes());
        slot[0..4].copy_from_slice(&SLOT_MAGIC.to_le_bytes());
        slot[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        slot[16..28].copy_from_slice(&tag.rel.to_le_bytes());
        slot[28..32].copy_from_slice(&u32::from(tag.fork.as_u8()).to_le_bytes());
        slot[32..36].copy_from_slice(&tag.block.to_le_bytes());
        let crc = crc32c::crc32c_append(self.seed, &slot[8..]);
        slot[4..8].copy_from_slice(&crc.to_le_bytes());
        let lsn = page.lsn().max(page.hint_lsn());
        if self.newest.is_none_or(|(newest, _)| lsn > newest) {
            self.newest = Some((lsn, tag));
        }
        self.tags.push(tag);
    }

    /// The WAL must be durable up to `lsn` too before the batch is written.
    pub(crate) fn flush_first(&mut self, lsn: Lsn, tag: PageTag) {
        if self.newest.is_none_or(|(newest, _)| lsn > newest) {
            self.newest = Some((lsn, tag));
        }
    }

    /// The newest LSN in the batch and whose it is; `None` if the batch is empty.
    pub(crate) fn newest(&self) -> Option<(Lsn, PageTag)> {
        self.newest
    }

    /// Writes the batch to the area, syncs it, writes the pages in place.
    pub(crate) fn write(&mut self, files: &Files) -> Result<(), StorageError> {
        let total = self.region_slots * REGIONS;
        let mut done = 0;
        while done < self.tags.len() {
            // One run of slots inside one region.
            let region = self.next / self.region_slots;
            if self.next.is_multiple_of(self.region_slots) && !self.regions[region].is_empty() {
                let keys: Vec<FileKey> = self.regions[region].iter().copied().collect();
                files.sync_these(&keys)?;
                self.regions[region].clear();
            }
            let run = (self.tags.len() - done).min(self.region_slots - self.next % self.region_slots);
            let at = FILE_HEADER + self.next * SLOT_BYTES;
            self.file
                .write_at(&self.bytes[done * SLOT_BYTES..(done + run) * SLOT_BYTES], u64::try_from(at).unwrap_or(u64::MAX))
                .map_err(io_error("write", &self.path))?;
            for tag in &self.tags[done..done + run] {
                self.regions[region].insert(FileKey::of(*tag));
            }
            self.next = (self.next + run) % total;
            done += run;
        }
        self.file.sync_data().map_err(|source| StorageError::Sync { path: self.path.clone(), source })?;
        // Copies durable: a crash from here on can tear pages in place, and recovery heals them.
        let pages: Vec<&[u8]> = self.bytes.chunks_exact(SLOT_BYTES).map(|slot| &slot[SLOT_HEADER..]).collect();
        let mut at = 0;
        // Neighbours in one call: the batch is in order of tags.
        for run in self.tags.chunk_by(follows) {
            files.write_run(run[0], &pages[at..at + run.len()])?;
            at += run.len();
        }
        Ok(())
    }
}

/// Whether `next` lies behind `tag` in the same file.
fn follows(tag: &PageTag, next: &PageTag) -> bool {
    next.block.get().checked_sub(1) == Some(tag.block.get()) && FileKey::of(*tag) == FileKey::of(*next)
}

/// What [`restore`] did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Valid copies found.
    pub copies: usize,
    /// Pages that were torn and are whole again.
    pub healed: Vec<PageTag>,
}

/// After an unclean stop, before redo: writes back every page that does not verify in place and has a valid copy.
///
/// Blocks past the end of their file are left alone: they did not exist at the last checkpoint, so redo makes them.
///
/// # Errors
/// An area that is not ours; I/O.
pub fn restore(disk: &dyn Disk, data_dir: &Path, system_id: SystemId, files: &Files) -> Result<Restored, StorageError> {
    let path = data_dir.join(AREA_FILE);
    let mut restored = Restored::default();
    let Some(file) = open_existing(disk, &path).map_err(io_error("open", &path))? else { return Ok(restored) };
    let len = file.len().map_err(io_error("read", &path))?;
    let header = read_exactly(&*file, 0, FILE_HEADER).map_err(io_error("read", &path))?;
    if len < u64::try_from(FILE_HEADER).unwrap_or(0) || header.iter().all(|b| *b == 0) {
        // Crashed while it was being emptied: nothing was written in place since.
        return Ok(restored);
    }
    let header = Header::decode(&header).map_err(|what| bad(&path, what))?;
    if header.system_id != system_id {
        return Err(bad(&path, "belongs to another database system"));
    }
    let seed = header.seed();
    let mut newest: HashMap<PageTag, (u64, u64)> = HashMap::new();
    for slot in 0..header.slots {
        let at = slot_offset(slot);
        let bytes = read_exactly(&*file, at, SLOT_BYTES).map_err(io_error("read", &path))?;
        if let Some((tag, sequence)) = decode_slot(&bytes, seed) {
            restored.copies += 1;
            let entry = newest.entry(tag).or_insert((sequence, at));
            if sequence >= entry.0 {
                *entry = (sequence, at);
            }
        }
    }
    let mut order: Vec<(PageTag, u64)> = newest.into_iter().map(|(tag, (_, at))| (tag, at)).collect();
    order.sort_unstable();
    let mut ahead = order.iter().map(|(tag, _)| *tag);
    for tag in ahead.by_ref().take(RESTORE_AHEAD) {
        announce(files, tag);
    }
    for &(tag, at) in &order {
        if let Some(tag) = ahead.next() {
            announce(files, tag);
        }
        if files.page_needs_restore(tag)? {
            let bytes = read_exactly(&*file, at, SLOT_BYTES).map_err(io_error("read", &path))?;
            files.write_page(tag, &bytes[SLOT_HEADER..])?;
            restored.healed.push(tag);
        }
    }
    Ok(restored)
}

/// Asks for a page that [`restore`] will look at. It learns then what is wrong with it.
fn announce(files: &Files, tag: PageTag) {
    let _advice = files.exists(tag.rel, tag.fork).is_ok_and(|exists| exists && files.will_need(tag).is_ok());
}

/// The file's header.
struct Header {
    system_id: SystemId,
    slots: u64,
    /// `None` in version 1.
    generation: Option<u64>,
}

impl Header {
    /// The crc, at byte 24, covers what is before it and the generation behind it.
    fn encode(&self) -> Vec<u8> {
        let mut b = vec![0_u8; FILE_HEADER];
        b[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        b[4..8].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        b[8..16].copy_from_slice(&self.system_id.to_le_bytes());
        b[16..24].copy_from_slice(&self.slots.to_le_bytes());
        b[28..36].copy_from_slice(&self.generation.unwrap_or(0).to_le_bytes());
        let crc = Self::crc(&b, FORMAT_VERSION);
        b[24..28].copy_from_slice(&crc.to_le_bytes());
        b
    }

    fn crc(b: &[u8], version: u32) -> u32 {
        let crc = crc32c::crc32c(&b[..24]);
        if version == 1 { crc } else { crc32c::crc32c_append(crc, &b[28..HEADER_BYTES]) }
    }

    /// What is wrong with it, if anything.
    fn decode(b: &[u8]) -> Result<Self, String> {
        if b.len() < HEADER_BYTES || le32(b, 0) != MAGIC {
            return Err("not a double-write area".to_owned());
        }
        let version = le32(b, 4);
        if !(1..=FORMAT_VERSION).contains(&version) {
            return Err(format!("format version {version} (this server reads 1 to {FORMAT_VERSION})"));
        }
        if le32(b, 24) != Self::crc(b, version) {
            return Err("header checksum does not match".to_owned());
        }
        Ok(Self {
            system_id: SystemId::from_le_bytes(le64(b, 8).to_le_bytes()),
            slots: le64(b, 16),
            generation: (version > 1).then(|| le64(b, 28)),
        })
    }

    fn seed(&self) -> u32 {
        self.generation.map_or(0, |g| crc32c::crc32c(&g.to_le_bytes()))
    }
}

fn slot_offset(slot: u64) -> u64 {
    u64::try_from(FILE_HEADER).unwrap_or(0) + slot * u64::try_from(SLOT_BYTES).unwrap_or(0)
}

fn read_exactly(file: &dyn DiskFile, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let have = file.read_at(&mut bytes, at)?;
    bytes[have..].fill(0);
    Ok(bytes)
}

fn decode_slot(slot: &[u8], seed: u32) -> Option<(PageTag, u64)> {
    if le32(slot, 0) != SLOT_MAGIC || le32(slot, 4) != crc32c::crc32c_append(seed, slot.get(8..)?) {
        return None;
    }
    let rel = RelId::new(le32(slot, 16), le32(slot, 20), le32(slot, 24));
    let fork = Fork::from_u8(u8::try_from(le32(slot, 28)).ok()?)?;
    Some((PageTag { rel, fork, block: BlockNo::new(le32(slot, 32)) }, le64(slot, 8)))
}
