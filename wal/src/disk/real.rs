//! The disk of the machine.

use super::{Disk, DiskFile, Open};
use crate::mmap::SegmentMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The disk of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl RealDisk {
    /// Ready to share.
    pub fn shared() -> Arc<dyn Disk> {
        Arc::new(Self)
    }
}

/// The system takes no more parts in one call (`IOV_MAX`).
const MOST_SLICES: usize = 1024;

#[derive(Debug)]
struct RealFile(fs::File);

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn will_need(&self, offset: u64, bytes: u64) -> io::Result<()> {
        Ok(rustix::fs::fadvise(&self.0, offset, std::num::NonZeroU64::new(bytes), rustix::fs::Advice::WillNeed)?)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn write_parts_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let mut slices: Vec<io::IoSlice<'_>> = parts.iter().map(|part| io::IoSlice::new(part)).collect();
        let (mut rest, mut at) = (&mut slices[..], offset);
        io::IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let most = rest.len().min(MOST_SLICES);
            match rustix::io::pwritev(&self.0, &rest[..most], at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    at += n as u64;
                    io::IoSlice::advance_slices(&mut rest, n);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        // Not every file system can: writing real zeros is then the caller's way to find out about space.
        match rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP) => {
                if self.len()? < bytes {
                    self.0.set_len(bytes)?;
                }
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    fn reserve(&self, offset: u64, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::KEEP_SIZE, offset, bytes) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn start_writeback(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn map(&self, bytes: usize) -> io::Result<SegmentMap> {
        if self.len()? < bytes as u64 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "file is shorter than the segment"));
        }
        SegmentMap::of_file(&self.0, bytes)
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match how {
            Open::Read => &mut options,
            Open::Write => options.write(true),
            Open::Create => options.write(true).create(true).truncate(false),
            Open::CreateNew => options.write(true).create_new(true),
            Open::Truncate => options.write(true).create(true).truncate(true),
        };
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
        Ok(Arc::new(RealFile(options.open(path)?)))
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that renames; durable_rename syncs around it")]
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o750);
        builder.recursive(true).create(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn link_dir(&self, target: &Path, path: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, path)
    }

    fn read_link(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        match fs::read_link(path) {
            Ok(target) => Ok(Some(target)),
            // Nothing there, or no link.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_all;
    use super::*;

    #[test]
    fn parts_lie_one_behind_another_however_many_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let file = RealDisk.open(&path, Open::CreateNew).unwrap();
        file.write_at(&[9; 10], 0).unwrap();
        file.write_parts_at(&[], 3).unwrap();
        let bytes: Vec<u8> = (0..3 * MOST_SLICES).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let parts: Vec<&[u8]> = std::iter::once(&[][..]).chain(bytes.chunks(2).flat_map(|pair| [pair, &[]])).collect();
        file.write_parts_at(&parts, 5).unwrap();
        assert_eq!(read_all(&RealDisk, &path).unwrap(), [&[9; 5][..], &bytes].concat());
    }
}
