//! Files through a trait: the real disk, and a faulty one for tests.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use crate::mmap::{MapSync, SegmentMap};

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Existing, to read.
    Read,
    /// Existing, to read and write.
    Write,
    /// Made if it does not exist; to read and write.
    Create,
    /// Made; it is an error if it exists.
    CreateNew,
    /// Made, or emptied if it exists.
    Truncate,
}

/// An open file.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Reads at `offset`; fewer bytes than asked for only at the end of the file.
    ///
    /// # Errors
    /// Those of the system.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Says that a range will be read soon, so that the system may read it ahead; promises nothing.
    ///
    /// # Errors
    /// Those of the system.
    fn will_need(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let _unused = (offset, bytes);
        Ok(())
    }

    /// Writes all of `buf`.
    ///
    /// # Errors
    /// Those of the system.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Writes all parts, one behind another. A failure may leave any of them written.
    ///
    /// # Errors
    /// Those of the system.
    fn write_parts_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let mut at = offset;
        for part in parts {
            self.write_at(part, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Bytes in the file.
    ///
    /// # Errors
    /// Those of the system.
    fn len(&self) -> io::Result<u64>;

    /// True if the file has no bytes.
    ///
    /// # Errors
    /// Those of the system.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts or extends the file; an extension is a hole.
    ///
    /// # Errors
    /// Those of the system.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Extends the file to at least `bytes` with blocks reserved on the disk, so that writing there later finds space.
    ///
    /// # Errors
    /// Those of the system: no space, above all.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Reserves disk blocks for a range without changing the length, so that a write there later finds space.
    ///
    /// # Errors
    /// No space. A file system that cannot reserve says nothing.
    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let _unused = (offset, bytes);
        Ok(())
    }

    /// Makes contents and length durable. The first failure is final.
    ///
    /// # Errors
    /// Those of the system.
    fn sync_data(&self) -> io::Result<()>;

    /// Asks the kernel to start writing a range out; promises nothing.
    ///
    /// # Errors
    /// Those of the system.
    fn start_writeback(&self, offset: u64, bytes: u64) -> io::Result<()>;

    /// Maps the first `bytes` of the file, all of which exist as real blocks.
    ///
    /// # Errors
    /// Those of the system.
    fn map(&self, bytes: usize) -> io::Result<SegmentMap>;

    /// Tells a simulated file about its map, whose bytes it must see; nothing to do on a real one.
    fn mapped(&self, map: &Arc<SegmentMap>) {
        let _real_files_share_their_pages = map;
    }
}

/// A file system.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Opens a file.
    ///
    /// # Errors
    /// Those of the system.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames without syncing; see [`durable_rename`].
    ///
    /// # Errors
    /// Those of the system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the system.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory and those above it; it may exist.
    ///
    /// # Errors
    /// Those of the system.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and what is in it.
    ///
    /// # Errors
    /// Those of the system.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory's names durable.
    ///
    /// # Errors
    /// Those of the system.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Names in a directory, sorted.
    ///
    /// # Errors
    /// Those of the system.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// True if there is such a file or directory.
    ///
    /// # Errors
    /// Those of the system.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Makes a symbolic link at `path`, where nothing is, to a directory. [`Self::remove`] removes it.
    ///
    /// # Errors
    /// Those of the system; a disk may know no links.
    fn link_dir(&self, target: &Path, path: &Path) -> io::Result<()> {
        let _ = (target, path);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Where the symbolic link at `path` leads; `None` if there is none.
    ///
    /// # Errors
    /// Those of the system.
    fn read_link(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        let _ = path;
        Ok(None)
    }
}

/// Renames a file so that after a crash either the old or the new name holds it, contents complete.
///
/// Sync before rename: a crash between leaves the old file. The directory after: else the new name may be lost.
///
/// # Errors
/// Those of the system.
pub fn durable_rename(disk: &dyn Disk, from: &Path, to: &Path) -> io::Result<()> {
    disk.open(from, Open::Write)?.sync_data()?;
    disk.rename(from, to)?;
    disk.sync_dir(parent(to))?;
    if parent(from) != parent(to) {
        disk.sync_dir(parent(from))?;
    }
    Ok(())
}

/// Writes a whole file so that after a crash it holds either the old or the new contents.
///
/// # Errors
/// Those of the system.
pub fn durable_replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temp = path.with_file_name(name);
    let file = disk.open(&temp, Open::Truncate)?;
    file.write_at(bytes, 0)?;
    drop(file);
    durable_rename(disk, &temp, path)
}

/// Reads a whole file.
///
/// # Errors
/// Those of the system.
pub fn read_all(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, Open::Read)?;
    let bytes = usize::try_from(file.len()?).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let mut buf = vec![0; bytes];
    let n = file.read_at(&mut buf, 0)?;
    buf.truncate(n);
    Ok(buf)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

mod overlay;
mod real;
pub mod sim;
pub use overlay::OverlayDisk;
pub use real::RealDisk;
pub use sim::SimDisk;
