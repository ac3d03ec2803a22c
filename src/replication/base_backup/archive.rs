//! Walks a data directory and writes it as tar.
//!
//! Relation files are read straight from the disk, so that a backup does not push the working set out of the buffer pool;
//! a page whose checksum does not verify may have been caught while it was written, and is taken through the pool, where
//! no page is torn. A page that does not verify there either is damage: it is sent as it is, told of in a warning, and counted;
//! the backup then fails at its end, as PostgreSQL's does. Pages older than the backup's redo point, or
//! missing at the end of a file, are brought up by the WAL.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use afterimage_wal::ids::{BlockNo, Fork, RelId};

use super::super::manifest::{ChecksumKind, FileChecksum, Manifest};
use super::parallel::Shared;
use crate::storage::double_write::AREA_FILE;
use crate::storage::files::TABLESPACE_VERSION_DIR;
pub use crate::storage::files::{is_temporary, relation_file};
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
    ".DS_Store",
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
    /// A name that tar cannot hold.
    #[error("file name too long for tar format: \"{0}\"")]
    NameTooLong(String),
    /// The target of a link that tar cannot hold.
    #[error("symbolic link target too long for tar format: file name \"{name}\", target \"{target}\"")]
    LinkTooLong {
        /// The link.
        name: String,
        /// Where it leads.
        target: String,
    },
    /// Nobody takes the bytes any more.
    #[error("the client has gone")]
    Gone,
}

/// Takes the archive's bytes as they are made; returns false to stop.
pub type Sink<'a> = dyn FnMut(&[u8]) -> bool + 'a;

/// Where an archive is made from.
#[derive(Clone)]
pub struct Source {
    /// Data directory.
    pub data_dir: PathBuf,
    /// Pool to ask for pages that were being written.
    pub pool: Arc<BufferPool>,
    /// Verify page checksums.
    pub verify: bool,
    /// Checksum per file in the manifest.
    pub checksums: ChecksumKind,
    /// Put the links below `pg_tblspc` into the archive; a `tablespace_map` says the same.
    pub links: bool,
    /// Bytes of file contents written so far, over all archives.
    pub done_bytes: Arc<AtomicU64>,
    /// Damaged pages found so far, over all archives.
    pub damaged: Arc<AtomicU64>,
}

/// Writes tar members and their manifest entries.
pub struct Archive<'a> {
    source: &'a Source,
    sink: &'a mut Sink<'a>,
    warn: &'a mut dyn FnMut(String),
    manifest: Option<&'a mut Manifest>,
    /// What the manifest puts before a member's name: `pg_tblspc/<oid>/`, or nothing.
    prefix: String,
    /// Relations' files are left to this.
    shared: Option<Arc<Shared>>,
}

/// A tablespace that lies elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// Its OID.
    pub oid: u32,
    /// Where the link below `pg_tblspc` leads.
    pub location: String,
}

/// The tablespaces that lie outside the data directory; those made in place are part of it.
pub fn tablespaces(data_dir: &Path) -> Vec<Tablespace> {
    let entries = fs::read_dir(data_dir.join("pg_tblspc")).into_iter().flatten().flatten();
    let mut found: Vec<Tablespace> = entries
        .filter_map(|entry| {
            let oid = entry.file_name().to_str()?.parse().ok()?;
            let location = fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok()?;
            Some(Tablespace { oid, location })
        })
        .collect();
    found.sort_by_key(|t| t.oid);
    found
}

/// Bytes the files below a directory hold, for progress reports; tablespaces that lie elsewhere are left out.
pub fn estimate_bytes(dir: &Path) -> u64 {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let in_tablespaces = dir.file_name().is_some_and(|d| d == "pg_tblspc");
            if in_tablespaces && entry.file_type().ok()?.is_symlink() {
                return None;
            }
            let meta = fs::metadata(entry.path()).ok()?;
            Some(if meta.is_dir() {
                if EMPTY_DIRS.contains(&name.as_str()) { 0 } else { estimate_bytes(&entry.path()) }
            } else if SKIPPED_FILES.contains(&name.as_str()) {
                0
            } else {
                meta.len()
            })
        })
        .sum()
}

impl<'a> Archive<'a> {
    /// Starts one.
    pub fn new(source: &'a Source, sink: &'a mut Sink<'a>, warn: &'a mut dyn FnMut(String), manifest: Option<&'a mut Manifest>) -> Self {
        Self { source, sink, warn, manifest, prefix: String::new(), shared: None }
    }

    /// Leaves the files of relations to those who share in the backup.
    pub fn share(&mut self, shared: Arc<Shared>) {
        self.shared = Some(shared);
    }

    /// Adds a file of the data directory by its name there.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn relation_file(&mut self, path: &Path, name: &str) -> Result<(), ArchiveError> {
        let (dir, file_name) = name.rsplit_once('/').unwrap_or(("", name));
        let Some(file) = open_if_there(path)? else { return Ok(()) };
        let meta = file.metadata().map_err(|source| ArchiveError::Read { path: path.to_owned(), source })?;
        self.file_contents(file, path, name, &meta, relation_file(dir, file_name))
    }

    /// Adds a file made up here, such as `backup_label`.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn text_file(&mut self, name: &str, contents: &[u8]) -> Result<(), ArchiveError> {
        let now = jiff::Timestamp::now().as_second();
        // As the files around it: the group may read them, or not.
        let group = fs::metadata(&self.source.data_dir).is_ok_and(|m| mode(&m) & 0o040 != 0);
        let mode = if group { 0o640 } else { 0o600 };
        self.header(name, contents.len() as u64, mode, now, tar::EntryType::Regular)?;
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

    /// Adds a tablespace: its directory of this version, named from its location.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn tablespace(&mut self, oid: u32) -> Result<(), ArchiveError> {
        let relative = format!("pg_tblspc/{oid}/{TABLESPACE_VERSION_DIR}");
        let dir = self.source.data_dir.join(&relative);
        let Ok(meta) = fs::metadata(&dir) else { return Ok(()) };
        self.prefix = format!("pg_tblspc/{oid}/");
        self.header(&format!("{TABLESPACE_VERSION_DIR}/"), 0, mode(&meta), meta.mtime(), tar::EntryType::Directory)?;
        self.directory(&dir, TABLESPACE_VERSION_DIR)?;
        self.prefix.clear();
        Ok(())
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
            if relative == "pg_tblspc" && self.prefix.is_empty() && entry.file_type().is_ok_and(|t| t.is_symlink()) {
                if self.source.links {
                    self.link(&member, &path)?;
                }
                continue;
            }
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
                || is_temporary(&name)
            {
                continue;
            }
            let relation = relation_file(&format!("{}{relative}", self.prefix), &name);
            if let Some((rel, fork, _)) = relation {
                // An unlogged relation: only its init fork means anything elsewhere.
                if fork != Fork::Init && names.contains(&format!("{}_init", rel.rel)) {
                    continue;
                }
            }
            if let Some(shared) = self.shared.as_ref().filter(|_| relation.is_some()) {
                shared.files.push(path, member);
                continue;
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
        let mut failures = 0;
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
            if let Some((rel, fork, segment)) = relation {
                let first = u32::try_from(at / PAGE_SIZE as u64).unwrap_or(u32::MAX);
                for (i, bytes) in buffer[..got].chunks_exact_mut(PAGE_SIZE).enumerate() {
                    let block = segment * SEGMENT_BLOCKS + first + u32::try_from(i).unwrap_or(u32::MAX);
                    if !self.settle_page(bytes, rel, fork, block) && self.source.verify {
                        failures += 1;
                        self.tell_damage(path, bytes, (rel, fork, block), failures);
                    }
                }
            }
            checksum.update(&buffer[..want]);
            self.put(&buffer[..want])?;
            at += want as u64;
            self.source.done_bytes.fetch_add(want as u64, Ordering::Relaxed);
        }
        if failures > 1 {
            (self.warn)(format!("file \"{}\" has a total of {failures} checksum verification failures", path.display()));
        }
        self.source.damaged.fetch_add(failures, Ordering::Relaxed);
        self.pad(size)?;
        self.record(name, size, meta.mtime(), checksum);
        Ok(())
    }

    /// Makes the bytes a page that verifies, if there is one; false: it is damaged on disk and not in the pool.
    fn settle_page(&self, bytes: &mut [u8], rel: RelId, fork: Fork, block: u32) -> bool {
        let mut page = Page::zeroed();
        page.bytes_mut().copy_from_slice(bytes);
        if page.is_zero() || page.stored_checksum() == page.checksum(rel, fork, BlockNo::new(block)) {
            return true;
        }
        let Ok(buffer) = self.source.pool.read(rel, fork, BlockNo::new(block)) else { return false };
        page.bytes_mut().copy_from_slice(buffer.read().bytes());
        page.stamp(rel, fork, BlockNo::new(block));
        bytes.copy_from_slice(page.bytes());
        true
    }

    /// The first few of a file are told one by one.
    fn tell_damage(&mut self, path: &Path, bytes: &[u8], (rel, fork, block): (RelId, Fork, u32), failures: u64) {
        const TOLD: u64 = 5;
        if failures > TOLD {
            return;
        }
        let mut page = Page::zeroed();
        page.bytes_mut().copy_from_slice(bytes);
        let (stored, computed) = (page.stored_checksum(), page.checksum(rel, fork, BlockNo::new(block)));
        let shown = path.display();
        (self.warn)(format!(
            "checksum verification failed in file \"{shown}\", block {block}: calculated {computed:X} but expected {stored:X}"
        ));
        if failures == TOLD {
            (self.warn)(format!("further checksum verification failures in file \"{shown}\" will not be reported"));
        }
    }

    fn link(&mut self, name: &str, path: &Path) -> Result<(), ArchiveError> {
        let read = |source| ArchiveError::Read { path: path.to_owned(), source };
        let target = fs::read_link(path).map_err(read)?;
        let meta = fs::symlink_metadata(path).map_err(read)?;
        let mut header = self.new_header(name, 0, 0o777, meta.mtime(), tar::EntryType::Symlink)?;
        let long = || ArchiveError::LinkTooLong { name: name.to_owned(), target: target.display().to_string() };
        header.set_link_name(&target).map_err(|_| long())?;
        header.set_cksum();
        self.put(header.as_bytes())
    }

    fn new_header(&self, name: &str, size: u64, mode: u32, modified: i64, kind: tar::EntryType) -> Result<tar::Header, ArchiveError> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).map_err(|_| ArchiveError::NameTooLong(name.to_owned()))?;
        header.set_size(size);
        header.set_mode(mode);
        header.set_mtime(u64::try_from(modified).unwrap_or(0));
        header.set_uid(u64::from(rustix::process::getuid().as_raw()));
        header.set_gid(u64::from(rustix::process::getgid().as_raw()));
        header.set_entry_type(kind);
        Ok(header)
    }

    fn header(&mut self, name: &str, size: u64, mode: u32, modified: i64, kind: tar::EntryType) -> Result<(), ArchiveError> {
        let mut header = self.new_header(name, size, mode, modified, kind)?;
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
            manifest.add_file(&format!("{}{name}", self.prefix), size, modified, checksum);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relation_files_are_told_from_others() {
        assert_eq!(relation_file("base/5", "16384_vm.2"), Some((RelId { spc: 1663, db: 5, rel: 16384 }, Fork::Vm, 2)));
        let elsewhere = format!("pg_tblspc/16500/{TABLESPACE_VERSION_DIR}/5");
        assert_eq!(relation_file(&elsewhere, "16384.1"), Some((RelId { spc: 16500, db: 5, rel: 16384 }, Fork::Main, 1)));
        for name in ["t999_999", "t9999_999.1", "t999_9999_vm", "t99999_99999_vm.1"] {
            assert!(is_temporary(name), "{name}");
        }
        assert!(!is_temporary("t_1") && !is_temporary("table_1") && !is_temporary("16384"));
        assert_eq!(relation_file("global", "1262"), Some((RelId { spc: 1664, db: 0, rel: 1262 }, Fork::Main, 0)));
        for (dir, name) in [("base/5", "PG_VERSION"), ("base/5", "1_x"), ("pg_xact", "0000"), ("global", "pg_control"), ("base/5", "t3_1")]
        {
            assert_eq!(relation_file(dir, name), None, "{dir}/{name}");
        }
    }
}
