//! The double-write area: a durable copy of each page before the page is written in place.
//!
//! A page torn in place by a crash is restored from its copy, so the WAL carries no full page images in normal running.
//!
//! ```text
//! pg_dblwr: file header (one page: magic, format version, system id, slots, crc) | slot 0 | slot 1 | ...
//! slot: magic u32, crc32c u32, sequence u64, spc u32, db u32, rel u32, fork u32, block u32, zero to 64 bytes | page, stamped
//! ```
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
const FORMAT_VERSION: u32 = 1;
const FILE_HEADER: usize = PAGE_SIZE;
const SLOT_HEADER: usize = 64;
const SLOT_BYTES: usize = SLOT_HEADER + PAGE_SIZE;
const REGIONS: usize = 8;
/// Slots per region unless told otherwise; eight regions make 32 MB.
pub const REGION_SLOTS: usize = 512;

/// The area, opened for writing. Used under the pool's write lane.
pub struct DoubleWrite {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
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
        let file = disk.open(&path, Open::Create).map_err(io_error("open", &path))?;
        // Emptied first: a copy from before this start must not outlive it.
        file.set_len(0).map_err(io_error("truncate", &path))?;
        let mut header = vec![0_u8; FILE_HEADER];
        header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4..8].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        header[8..16].copy_from_slice(&system_id.to_le_bytes());
        let slots = u64::try_from(region_slots * REGIONS).unwrap_or(0);
        header[16..24].copy_from_slice(&slots.to_le_bytes());
        let crc = crc32c::crc32c(&header[..24]);
        header[24..28].copy_from_slice(&crc.to_le_bytes());
        file.write_at(&header, 0).map_err(io_error("write", &path))?;
        file.allocate(u64::try_from(FILE_HEADER + region_slots * REGIONS * SLOT_BYTES).unwrap_or(0)).map_err(io_error("extend", &path))?;
        file.sync_data().map_err(|source| StorageError::Sync { path: path.clone(), source })?;
        disk.sync_dir(data_dir).map_err(|source| StorageError::Sync { path: data_dir.to_owned(), source })?;
        Ok(Self {
            file,
            path,
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
        let crc = crc32c::crc32c(&slot[8..]);
        slot[4..8].copy_from_slice(&crc.to_le_bytes());
        let lsn = page.lsn().max(page.hint_lsn());
        if self.newest.is_none_or(|(newest, _)| lsn > newest) {
            self.newest = Some((lsn, tag));
        }
        self.tags.push(tag);
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
        for (i, tag) in self.tags.iter().enumerate() {
            let start = i * SLOT_BYTES + SLOT_HEADER;
            files.write_page(*tag, &self.bytes[start..start + PAGE_SIZE])?;
        }
        Ok(())
    }
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
    if le32(&header, 0) != MAGIC {
        return Err(bad(&path, "not a double-write area"));
    }
    if le32(&header, 4) != FORMAT_VERSION {
        return Err(bad(&path, format!("format version {} (this server reads {FORMAT_VERSION})", le32(&header, 4))));
    }
    if le32(&header, 24) != crc32c::crc32c(&header[..24]) {
        return Err(bad(&path, "header checksum does not match"));
    }
    if SystemId::from_le_bytes(le64(&header, 8).to_le_bytes()) != system_id {
        return Err(bad(&path, "belongs to another database system"));
    }
    let slots = le64(&header, 16);
    let mut newest: HashMap<PageTag, (u64, u64)> = HashMap::new();
    for slot in 0..slots {
        let at = slot_offset(slot);
        let bytes = read_exactly(&*file, at, SLOT_BYTES).map_err(io_error("read", &path))?;
        if let Some((tag, sequence)) = decode_slot(&bytes) {
            restored.copies += 1;
            let entry = newest.entry(tag).or_insert((sequence, at));
            if sequence >= entry.0 {
                *entry = (sequence, at);
            }
        }
    }
    let mut order: Vec<(PageTag, u64)> = newest.into_iter().map(|(tag, (_, at))| (tag, at)).collect();
    order.sort_unstable();
    for (tag, at) in order {
        if files.page_needs_restore(tag)? {
            let bytes = read_exactly(&*file, at, SLOT_BYTES).map_err(io_error("read", &path))?;
            files.write_page(tag, &bytes[SLOT_HEADER..])?;
            restored.healed.push(tag);
        }
    }
    Ok(restored)
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

fn decode_slot(slot: &[u8]) -> Option<(PageTag, u64)> {
    if le32(slot, 0) != SLOT_MAGIC || le32(slot, 4) != crc32c::crc32c(slot.get(8..)?) {
        return None;
    }
    let rel = RelId::new(le32(slot, 16), le32(slot, 20), le32(slot, 24));
    let fork = Fork::from_u8(u8::try_from(le32(slot, 28)).ok()?)?;
    Some((PageTag { rel, fork, block: BlockNo::new(le32(slot, 32)) }, le64(slot, 8)))
}
