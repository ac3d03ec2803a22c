//! A view of a disk that can be written to without changing it: for checking a data directory offline.
//!
//! A file is read through until it is first written; then blocks of 64 KiB are kept in memory as they are changed. Names made, renamed
//! and removed are changed in memory only, links to tablespaces among them, which are followed here. Syncs do nothing. What is written is bounded by what recovery of the directory would write.

use super::{Disk, DiskFile, Open, SegmentMap};
use crate::mmap::MapSync;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

const BLOCK: u64 = 64 * 1024;

/// A disk whose changes stay in memory.
#[derive(Debug)]
pub struct OverlayDisk {
    below: Arc<dyn Disk>,
    /// Leaf. Files changed, made or removed here.
    names: RwLock<BTreeMap<PathBuf, Option<Arc<File>>>>,
    /// Directories made or removed here.
    dirs: RwLock<BTreeMap<PathBuf, bool>>,
    /// Leaf. What `pg_tblspc/<oid>` is here, as far as it was asked for: a link to somewhere, or none.
    links: RwLock<BTreeMap<PathBuf, Option<PathBuf>>>,
}

/// An open file: what was changed, over what is below.
#[derive(Debug)]
struct File {
    below: Option<(Arc<dyn Disk>, PathBuf)>,
    changed: Mutex<Changed>,
}

#[derive(Debug)]
struct Changed {
    len: u64,
    /// Bytes of the file below that still count: a cut hides the rest for good.
    visible_below: u64,
    blocks: HashMap<u64, Vec<u8>>,
    maps: Vec<Weak<SegmentMap>>,
    /// The file below, while somebody has this one open.
    open: Option<Arc<dyn DiskFile>>,
    handles: usize,
}

impl Changed {
    fn of_length(len: u64) -> Self {
        Self { len, visible_below: len, blocks: HashMap::new(), maps: Vec::new(), open: None, handles: 0 }
    }
}

impl OverlayDisk {
    /// A view of `below`.
    pub fn over(below: Arc<dyn Disk>) -> Arc<dyn Disk> {
        Arc::new(Self { below, names: RwLock::default(), dirs: RwLock::default(), links: RwLock::default() })
    }

    fn open_below(&self, path: &Path) -> io::Result<Arc<File>> {
        let len = self.below.open(path, Open::Read)?.len()?;
        Ok(Arc::new(File { below: Some((Arc::clone(&self.below), path.to_owned())), changed: Mutex::new(Changed::of_length(len)) }))
    }

    /// The path with the link to a tablespace in it followed: every file has one name here. The link itself stays.
    fn followed(&self, path: &Path) -> io::Result<PathBuf> {
        let mut parts = path.components();
        let mut link = PathBuf::new();
        while let Some(part) = parts.next() {
            link.push(part);
            if part.as_os_str() == "pg_tblspc"
                && let Some(space) = parts.next()
            {
                link.push(space);
                let rest = parts.as_path();
                return Ok(match self.read_link(&link)? {
                    Some(target) if !rest.as_os_str().is_empty() => target.join(rest),
                    Some(_) | None => path.to_owned(),
                });
            }
        }
        Ok(path.to_owned())
    }

    /// As [`Self::followed`], the link itself too.
    fn followed_to_the_end(&self, path: &Path) -> io::Result<PathBuf> {
        match if is_tablespace(path) { self.read_link(path)? } else { None } {
            Some(target) => Ok(target),
            None => self.followed(path),
        }
    }

    fn dir_exists(&self, path: &Path) -> io::Result<bool> {
        match self.dirs.read().get(path) {
            Some(there) => Ok(*there),
            None => Ok(self.below.exists(path)? && self.below.list(path).is_ok()),
        }
    }
}

/// Whether that is the name of a tablespace, which may be a link.
fn is_tablespace(path: &Path) -> bool {
    path.parent().is_some_and(|p| p.ends_with("pg_tblspc"))
}

fn empty() -> Arc<File> {
    Arc::new(File { below: None, changed: Mutex::new(Changed::of_length(0)) })
}

fn small(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

impl File {
    fn read(&self, c: &mut Changed, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let n = small(c.len.saturating_sub(offset)).min(buf.len());
        let buf = &mut buf[..n];
        let mut at = 0;
        while at < n {
            let pos = offset + at as u64;
            let (block, inside) = (pos / BLOCK, small(pos % BLOCK));
            let run = (small(BLOCK) - inside).min(n - at);
            let out = &mut buf[at..at + run];
            match c.blocks.get(&block) {
                Some(bytes) => out.copy_from_slice(&bytes[inside..inside + run]),
                None => self.read_below(&mut *c, out, pos)?,
            }
            at += run;
        }
        Ok(n)
    }

    fn read_below(&self, c: &mut Changed, out: &mut [u8], pos: u64) -> io::Result<()> {
        out.fill(0);
        let there = small(c.visible_below.saturating_sub(pos)).min(out.len());
        if let Some((disk, path)) = &self.below
            && there > 0
        {
            let file = match &c.open {
                Some(file) => Arc::clone(file),
                None => Arc::clone(c.open.insert(disk.open(path, Open::Read)?)),
            };
            file.read_at(&mut out[..there], pos)?;
        }
        Ok(())
    }

    fn write(&self, c: &mut Changed, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut at = 0;
        while at < buf.len() {
            let pos = offset + at as u64;
            let (block, inside) = (pos / BLOCK, small(pos % BLOCK));
            let run = (small(BLOCK) - inside).min(buf.len() - at);
            if !c.blocks.contains_key(&block) {
                let mut bytes = vec![0; small(BLOCK)];
                self.read_below(c, &mut bytes, block * BLOCK)?;
                c.blocks.insert(block, bytes);
            }
            if let Some(bytes) = c.blocks.get_mut(&block) {
                bytes[inside..inside + run].copy_from_slice(&buf[at..at + run]);
            }
            at += run;
        }
        c.len = c.len.max(offset + buf.len() as u64);
        Ok(())
    }

    /// What was written through maps and is readable there.
    fn absorb_maps(&self, c: &mut Changed) -> io::Result<()> {
        let maps: Vec<_> = c.maps.iter().filter_map(Weak::upgrade).collect();
        for map in maps {
            if let Some(bytes) = map.bytes(0..map.readable()) {
                self.write(c, bytes, 0)?;
            }
        }
        c.maps.retain(|m| m.strong_count() > 0);
        Ok(())
    }
}

#[derive(Debug)]
struct Handle(Arc<File>);

impl Handle {
    #[expect(clippy::new_ret_no_self, reason = "handles are used as files only")]
    fn new(file: Arc<File>) -> Arc<dyn DiskFile> {
        file.changed.lock().handles += 1;
        Arc::new(Self(file))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut c = self.0.changed.lock();
        c.handles -= 1;
        if c.handles == 0 {
            c.open = None;
        }
    }
}

impl DiskFile for Handle {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut c = self.0.changed.lock();
        self.0.absorb_maps(&mut c)?;
        self.0.read(&mut c, buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write(&mut self.0.changed.lock(), buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.changed.lock().len)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut c = self.0.changed.lock();
        if bytes < c.len {
            c.visible_below = c.visible_below.min(bytes);
            let last = bytes / BLOCK;
            c.blocks.retain(|block, _| *block <= last);
            if let Some(block) = c.blocks.get_mut(&last) {
                block[small(bytes % BLOCK)..].fill(0);
            }
        }
        c.len = bytes;
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut c = self.0.changed.lock();
        c.len = c.len.max(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn start_writeback(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn map(&self, bytes: usize) -> io::Result<SegmentMap> {
        let mut contents = vec![0; bytes];
        let mut c = self.0.changed.lock();
        self.0.absorb_maps(&mut c)?;
        if c.len < bytes as u64 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        self.0.read(&mut c, &mut contents, 0)?;
        SegmentMap::of_memory(bytes, &contents, Box::new(NoSync))
    }

    fn mapped(&self, map: &Arc<SegmentMap>) {
        self.0.changed.lock().maps.push(Arc::downgrade(map));
    }
}

struct NoSync;

impl MapSync for NoSync {
    fn sync(&self, _range: Range<usize>, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for OverlayDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let path = &*self.followed(path)?;
        let mut names = self.names.write();
        let found = match names.get(path) {
            Some(Some(file)) => Some(Arc::clone(file)),
            Some(None) => None,
            None => match self.open_below(path) {
                Ok(file) => Some(file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => return Err(e),
            },
        };
        let file = match (found, how) {
            (Some(_), Open::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, Open::Read | Open::Write) => return Err(io::ErrorKind::NotFound.into()),
            // Only looked at so far: nothing to remember, and the file stays as it is below.
            (Some(file), Open::Read) => return Ok(Handle::new(file)),
            (Some(file), Open::Write | Open::Create) => file,
            (Some(_), Open::Truncate) => empty(),
            (None, Open::Create | Open::CreateNew | Open::Truncate) => {
                if !path.parent().map_or(Ok(true), |p| self.dir_exists(p))? {
                    return Err(io::ErrorKind::NotFound.into());
                }
                empty()
            }
        };
        names.insert(path.to_owned(), Some(Arc::clone(&file)));
        Ok(Handle::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (&*self.followed(from)?, &*self.followed(to)?);
        let mut names = self.names.write();
        let file = match names.get(from) {
            Some(Some(file)) => Arc::clone(file),
            Some(None) => return Err(io::ErrorKind::NotFound.into()),
            None => self.open_below(from)?,
        };
        names.insert(to.to_owned(), Some(file));
        names.insert(from.to_owned(), None);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let path = &*self.followed(path)?;
        if is_tablespace(path) && self.read_link(path)?.is_some() {
            self.links.write().insert(path.to_owned(), None);
            self.dirs.write().insert(path.to_owned(), false);
            return Ok(());
        }
        if !self.exists(path)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.names.write().insert(path.to_owned(), None);
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let path = &*self.followed_to_the_end(path)?;
        let mut dirs = self.dirs.write();
        for dir in path.ancestors() {
            dirs.insert(dir.to_owned(), true);
        }
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = &*self.followed(path)?;
        for name in self.list(path)? {
            let inside = path.join(name);
            if self.dir_exists(&inside)? {
                self.remove_dir_all(&inside)?;
            } else {
                self.remove(&inside)?;
            }
        }
        self.dirs.write().insert(path.to_owned(), false);
        Ok(())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let path = &*self.followed_to_the_end(path)?;
        let names = self.names.read();
        if names.get(path).is_some_and(Option::is_some) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let made = self.dirs.read().get(path).copied();
        if made == Some(false) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut found: BTreeSet<String> = match self.below.list(path) {
            Ok(names) => names.into_iter().collect(),
            Err(e) if made == Some(true) && e.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(e) => return Err(e),
        };
        let inside = |p: &Path| if p.parent() == Some(path) { p.file_name().and_then(|n| n.to_str()).map(str::to_owned) } else { None };
        for (p, file) in &*names {
            match (inside(p), file) {
                (Some(name), Some(_)) => _ = found.insert(name),
                (Some(name), None) => _ = found.remove(&name),
                (None, _) => {}
            }
        }
        for (p, there) in &*self.dirs.read() {
            match (inside(p), there) {
                (Some(name), true) => _ = found.insert(name),
                (Some(name), false) => _ = found.remove(&name),
                (None, _) => {}
            }
        }
        Ok(found.into_iter().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let path = &*self.followed_to_the_end(path)?;
        if let Some(file) = self.names.read().get(path) {
            return Ok(file.is_some());
        }
        match self.dirs.read().get(path) {
            Some(there) => Ok(*there),
            None => self.below.exists(path),
        }
    }

    fn link_dir(&self, target: &Path, path: &Path) -> io::Result<()> {
        if self.read_link(path)?.is_some() || self.exists(path)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.links.write().insert(path.to_owned(), Some(target.to_owned()));
        self.dirs.write().insert(path.to_owned(), true);
        Ok(())
    }

    fn read_link(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        if let Some(known) = self.links.read().get(path) {
            return Ok(known.clone());
        }
        let found = self.below.read_link(path)?;
        self.links.write().insert(path.to_owned(), found.clone());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SimDisk, durable_replace, read_all};
    use super::*;

    #[test]
    fn changes_are_seen_here_and_not_below() {
        let below = SimDisk::new();
        below.create_dir(Path::new("/d")).unwrap();
        let (a, b) = (Path::new("/d/a"), Path::new("/d/b"));
        below.open(a, Open::CreateNew).unwrap().write_at(&vec![1; 200_000], 0).unwrap();
        let disk = OverlayDisk::over(below.shared());
        let file = disk.open(a, Open::Write).unwrap();
        file.write_at(&[2; 10], 65_530).unwrap();
        let mut expect = vec![1; 200_000];
        expect[65_530..65_540].fill(2);
        assert!(read_all(&*disk, a).unwrap() == expect);
        file.set_len(70_000).unwrap();
        file.set_len(140_000).unwrap();
        expect.truncate(70_000);
        expect.resize(140_000, 0);
        assert!(read_all(&*disk, a).unwrap() == expect);
        durable_replace(&*disk, b, b"new").unwrap();
        assert_eq!(disk.list(Path::new("/d")).unwrap(), ["a", "b"]);
        assert_eq!(read_all(&*disk, b).unwrap(), b"new");
        disk.remove(a).unwrap();
        assert!(!disk.exists(a).unwrap());
        assert!(disk.open(a, Open::Read).is_err());
        assert_eq!(disk.list(Path::new("/d")).unwrap(), ["b"]);
        disk.create_dir(Path::new("/d/e")).unwrap();
        disk.open(Path::new("/d/e/f"), Open::CreateNew).unwrap();
        disk.remove_dir_all(Path::new("/d/e")).unwrap();
        assert!(disk.list(Path::new("/d/e")).is_err());
        assert_eq!(below.list(Path::new("/d")).unwrap(), ["a"]);
        assert!(read_all(&below, a).unwrap() == vec![1; 200_000]);
    }

    #[test]
    fn links_to_tablespaces_are_made_followed_and_removed_here_only() {
        let dir = tempfile::tempdir().unwrap();
        let (data, one, two) = (dir.path().join("data/pg_tblspc"), dir.path().join("one"), dir.path().join("two"));
        for path in [data.clone(), one.join("v/5"), two.clone()] {
            std::fs::create_dir_all(path).unwrap();
        }
        std::fs::write(one.join("v/5/10"), "old").unwrap();
        let (a, b) = (data.join("1"), data.join("2"));
        super::super::RealDisk::shared().link_dir(&one, &a).unwrap();
        let disk = OverlayDisk::over(super::super::RealDisk::shared());
        assert_eq!(disk.list(&data).unwrap(), ["1"]);
        assert_eq!(disk.read_link(&a).unwrap().as_deref(), Some(&*one));
        assert_eq!(read_all(&*disk, &a.join("v/5/10")).unwrap(), b"old");
        disk.open(&a.join("v/5/10"), Open::Write).unwrap().write_at(b"new", 0).unwrap();
        assert_eq!(read_all(&*disk, &one.join("v/5/10")).unwrap(), b"new", "one file, two names");
        // A new one, whose directory was made before the link to it.
        disk.create_dir(&two.join("v")).unwrap();
        disk.link_dir(&two, &b).unwrap();
        assert!(disk.link_dir(&one, &b).is_err());
        disk.create_dir(&b.join("v/6")).unwrap();
        disk.open(&b.join("v/6/20"), Open::CreateNew).unwrap();
        assert_eq!(disk.list(&data).unwrap(), ["1", "2"]);
        assert!(disk.exists(&b).unwrap() && disk.exists(&b.join("v/6/20")).unwrap() && disk.exists(&two.join("v/6")).unwrap());
        disk.remove_dir_all(&a.join("v")).unwrap();
        disk.remove(&a).unwrap();
        assert!(!disk.exists(&a).unwrap() && disk.read_link(&a).unwrap().is_none());
        assert_eq!(disk.list(&data).unwrap(), ["2"]);
        disk.link_dir(&two, &a).unwrap();
        assert_eq!(disk.list(&a.join("v")).unwrap(), ["6"]);
        // Below all is as it was.
        assert_eq!(std::fs::read_link(&a).unwrap(), one);
        assert_eq!(std::fs::read(one.join("v/5/10")).unwrap(), b"old");
        assert!(!b.is_symlink() && !two.join("v").exists());
    }
}
