//! Walks a data directory and writes it as tar.
//!
//! Relation files are read straight from the disk, so that a backup does not push the working set out of the buffer pool;
//! a page whose checksum does not verify may have been caught while it was written, and is taken through the pool, where
//! no page is torn. A page that does not verify there either is damage. Pages older than the backup's redo point, or
//! missing at the end of a file, are brought up by the WAL.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use afterimage_wal::ids::{BlockNo, Fork, RelId};

use super::super::manifest::{ChecksumKind, FileChecksum, Manifest};
use crate::storage::double_write::AREA_FILE;
use crate::storage::{BufferPool, PAGE_SIZE, Page};

/// Pages read at a time.
const CHUNK_PAGES: usize = 32;
/// Blocks in one segment file of a relation (1 GB).
#[expect(clippy::cast_possible_truncation, reason = "8192")]
const SEGMENT_BLOCKS: u32 = (1 << 30) / PAGE_SIZE as u32;
/// Directories sent empty: their contents mean nothing on another node, or are sent separately.
pub const EMPTY_DIRS: &[&str] =
    &["pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans", "pg_stat_tmp", "pgsql_tmp"];
/// Files that belong to this node's run, not to its data.
pub const SKIPPED_FILES: &[&str] = &[
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "backup_label",
    "tablespace_map",
    "backup_manifest",
    "postmaster.pid",
    "postmaster.opts",
    AREA_FILE,
];

/// Failures while an archive is made.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file cannot be read.
    #[error("could not read file \"{}\": {source}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A page is damaged on disk and not in the pool.
    #[error("checksum verification failed in file \"{}\", block {block}", path.display())]
    Checksum {
        /// File.
        path: PathBuf,
        /// Block in the relation.
        block: u32,
    },
    /// A name that tar cannot hold.
    #[error("file name too long for tar format: \"{0}\"")]
    NameTooLong(String),
    /// Nobody takes the bytes any more.
    #[error("the client has gone")]
    Gone,
}

/// Takes the archive's bytes as they are made; returns false to stop.
pub type Sink<'a> = dyn FnMut(&[u8]) -> bool + 'a;

/// Where an archive is made from.
pub struct Source {
    /// Data directory.
    pub data_dir: PathBuf,
    /// Pool to ask for pages that were being written.
    pub pool: Arc<BufferPool>,
    /// Verify page checksums.
    pub verify: bool,
    /// Checksum per file in the manifest.
    pub checksums: ChecksumKind,
}

/// Writes tar members and their manifest entries.
pub struct Archive<'a> {
    source: &'a Source,
    sink: &'a mut Sink<'a>,
    manifest: Option<&'a mut Manifest>,
    done_bytes: u64,
}

/// Bytes the data directory's files hold, for progress reports.
pub fn estimate_bytes(data_dir: &Path) -> u64 {
    fn walk(dir: &Path, relative: &str) -> u64 {
        let Ok(entries) = fs::read_dir(dir) else { return 0 };
        entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let path = if relative.is_empty() { name.clone() } else { format!("{relative}/{name}") };
                let meta = entry.metadata().ok()?;
                Some(if meta.is_dir() {
                    if EMPTY_DIRS.contains(&name.as_str()) { 0 } else { walk(&entry.path(), &path) }
                } else if SKIPPED_FILES.contains(&name.as_str()) {
                    0
                } else {
                    meta.len()
                })
            })
            .sum()
    }
    walk(data_dir, "")
}

impl<'a> Archive<'a> {
    /// Starts one.
    pub fn new(source: &'a Source, sink: &'a mut Sink<'a>, manifest: Option<&'a mut Manifest>) -> Self {
        Self { source, sink, manifest, done_bytes: 0 }
    }

    /// Bytes of file contents written so far.
    pub fn done_bytes(&self) -> u64 {
        self.done_bytes
    }

    /// Adds a file made up here, such as `backup_label`.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn text_file(&mut self, name: &str, contents: &[u8]) -> Result<(), ArchiveError> {
        let now = jiff::Timestamp::now().as_second();
        self.header(name, contents.len() as u64, 0o600, now, tar::EntryType::Regular)?;
        self.put(contents)?;
        self.pad(contents.len() as u64)?;
        let mut checksum = FileChecksum::new(self.source.checksums);
        checksum.update(contents);
        self.record(name, contents.len() as u64, now, checksum);
        Ok(())
    }

    /// Adds everything below the data directory except `global/pg_control`, which goes last.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn data_directory(&mut self) -> Result<(), ArchiveError> {
        let dir = self.source.data_dir.clone();
        self.directory(&dir, "")
    }

    /// Adds a file as it is on disk.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn plain_file(&mut self, path: &Path, name: &str) -> Result<(), ArchiveError> {
        let Some(file) = open_if_there(path)? else { return Ok(()) };
        let meta = file.metadata().map_err(|source| ArchiveError::Read { path: path.to_owned(), source })?;
        self.file_contents(file, path, name, &meta, None)
    }

    /// Ends the archive with two empty blocks.
    ///
    /// # Errors
    /// [`ArchiveError::Gone`].
    pub fn finish(&mut self) -> Result<(), ArchiveError> {
        self.put(&[0; 1024])
    }

    fn directory(&mut self, dir: &Path, relative: &str) -> Result<(), ArchiveError> {
        let read = |source| ArchiveError::Read { path: dir.to_owned(), source };
        let mut entries: Vec<_> = match fs::read_dir(dir) {
            Ok(entries) => entries.collect::<Result<_, _>>().map_err(read)?,
            // Dropped while we walk; the WAL says so too.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(read(error)),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        let names: Vec<String> = entries.iter().filter_map(|e| e.file_name().into_string().ok()).collect();
        for entry in entries {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = entry.path();
            let member = if relative.is_empty() { name.clone() } else { format!("{relative}/{name}") };
            let Ok(meta) = fs::metadata(&path) else { continue };
            if meta.is_dir() {
                if name.starts_with("pgsql_tmp") {
                    continue;
                }
                self.header(&format!("{member}/"), 0, mode(&meta), meta.mtime(), tar::EntryType::Directory)?;
                if member == "pg_wal" {
                    self.header("pg_wal/archive_status/", 0, mode(&meta), meta.mtime(), tar::EntryType::Directory)?;
                }
                if !EMPTY_DIRS.contains(&name.as_str()) {
                    self.directory(&path, &member)?;
                }
                continue;
            }
            if !meta.is_file()
                || member == "global/pg_control"
                || SKIPPED_FILES.contains(&name.as_str())
                || name.starts_with("pgsql_tmp")
                || name.starts_with("pg_internal.init")
            {
                continue;
            }
            let relation = relation_file(relative, &name);
            if let Some((rel, fork, _)) = relation {
                // An unlogged relation: only its init fork means anything elsewhere.
                if fork != Fork::Init && names.contains(&format!("{}_init", rel.rel)) {
                    continue;
                }
            }
            let Some(file) = open_if_there(&path)? else { continue };
            let meta = file.metadata().map_err(|source| ArchiveError::Read { path: path.clone(), source })?;
            self.file_contents(file, &path, &member, &meta, relation)?;
        }
        Ok(())
    }

    /// The header promises the size the file has now; growth since is in the WAL, a shorter file is filled with zeros.
    fn file_contents(
        &mut self,
        mut file: File,
        path: &Path,
        name: &str,
        meta: &fs::Metadata,
        relation: Option<(RelId, Fork, u32)>,
    ) -> Result<(), ArchiveError> {
        let size = meta.len();
        self.header(name, size, mode(meta), meta.mtime(), tar::EntryType::Regular)?;
        let mut checksum = FileChecksum::new(self.source.checksums);
        let mut buffer = vec![0_u8; CHUNK_PAGES * PAGE_SIZE];
        let mut at = 0_u64;
        while at < size {
            let want = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
            let mut got = 0;
            while got < want {
                match file.read(&mut buffer[got..want]) {
                    Ok(0) => break,
                    Ok(n) => got += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(source) => return Err(ArchiveError::Read { path: path.to_owned(), source }),
                }
            }
            buffer[got..want].fill(0);
            if let Some((rel, fork, segment)) = relation.filter(|_| self.source.verify) {
                let first = u32::try_from(at / PAGE_SIZE as u64).unwrap_or(u32::MAX);
                for (i, bytes) in buffer[..got].chunks_exact_mut(PAGE_SIZE).enumerate() {
                    let block = segment * SEGMENT_BLOCKS + first + u32::try_from(i).unwrap_or(u32::MAX);
                    self.settle_page(bytes, path, rel, fork, block)?;
                }
            }
            checksum.update(&buffer[..want]);
            self.put(&buffer[..want])?;
            at += want as u64;
        }
        self.done_bytes += size;
        self.pad(size)?;
        self.record(name, size, meta.mtime(), checksum);
        Ok(())
    }

    fn settle_page(&self, bytes: &mut [u8], path: &Path, rel: RelId, fork: Fork, block: u32) -> Result<(), ArchiveError> {
        let mut page = Page::zeroed();
        page.bytes_mut().copy_from_slice(bytes);
        if page.is_zero() || page.stored_checksum() == page.checksum(rel, fork, BlockNo::new(block)) {
            return Ok(());
        }
        let damaged = |_| ArchiveError::Checksum { path: path.to_owned(), block };
        let buffer = self.source.pool.read(rel, fork, BlockNo::new(block)).map_err(damaged)?;
        page.bytes_mut().copy_from_slice(buffer.read().bytes());
        page.stamp(rel, fork, BlockNo::new(block));
        bytes.copy_from_slice(page.bytes());
        Ok(())
    }

    fn header(&mut self, name: &str, size: u64, mode: u32, modified: i64, kind: tar::EntryType) -> Result<(), ArchiveError> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).map_err(|_| ArchiveError::NameTooLong(name.to_owned()))?;
        header.set_size(size);
        header.set_mode(mode);
        header.set_mtime(u64::try_from(modified).unwrap_or(0));
        header.set_uid(u64::from(rustix::process::getuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getgid().as_raw()));
        header.set_entry_type(kind);
        header.set_cksum();
        self.put(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> Result<(), ArchiveError> {
        let rest = usize::try_from(size % 512).unwrap_or(0);
        if rest == 0 { Ok(()) } else { self.put(&[0; 512][rest..]) }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        if (self.sink)(bytes) { Ok(()) } else { Err(ArchiveError::Gone) }
    }

    fn record(&mut self, name: &str, size: u64, modified: i64, checksum: FileChecksum) {
        if let Some(manifest) = self.manifest.as_deref_mut() {
            manifest.add_file(name, size, modified, checksum);
        }
    }
}

fn mode(meta: &fs::Metadata) -> u32 {
    meta.permissions().mode() & 0o7777
}

fn open_if_there(path: &Path) -> Result<Option<File>, ArchiveError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ArchiveError::Read { path: path.to_owned(), source }),
    }
}

/// The relation, fork and segment a file below `base/<database>` or `global` holds.
pub fn relation_file(dir: &str, name: &str) -> Option<(RelId, Fork, u32)> {
    let (spc, db) = match dir.strip_prefix("base/") {
        Some(db) => (1663, db.parse().ok()?),
        None if dir == "global" => (1664, 0),
        None => return None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relation_files_are_told_from_others() {
        assert_eq!(relation_file("base/5", "16384_vm.2"), Some((RelId { spc: 1663, db: 5, rel: 16384 }, Fork::Vm, 2)));
        assert_eq!(relation_file("global", "1262"), Some((RelId { spc: 1664, db: 0, rel: 1262 }, Fork::Main, 0)));
        for (dir, name) in [("base/5", "PG_VERSION"), ("base/5", "1_x"), ("pg_xact", "0000"), ("global", "pg_control"), ("base/5", "t3_1")]
        {
            assert_eq!(relation_file(dir, name), None, "{dir}/{name}");
        }
    }
}
