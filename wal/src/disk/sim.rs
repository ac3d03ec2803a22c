//! A disk in memory that fails: loses what was not synced, tears it at sectors, returns errors. For tests of all layers.
//!
//! Every call is counted; a test can make the n-th call fail, all calls of a kind from now on, or cut the power ([`SimDisk::crash`]). After a
//! crash each sector written since the last sync holds its old or its new bytes, by the seed; names changed since the last sync of their
//! directory are taken back from some point on. Handles and maps of before the crash fail from then on.

use super::{Disk, DiskFile, Open};
use crate::mmap::{MapSync, SegmentMap};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

/// Bytes that reach the disk as one.
pub const SECTOR_BYTES: usize = 512;

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// Opens or makes a file.
    Open,
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Changes the length or reserves space.
    Allocate,
    /// Syncs a file or a range of a map.
    Sync,
    /// Maps.
    Map,
    /// Renames.
    Rename,
    /// Removes.
    Remove,
    /// Makes or lists a directory.
    Dir,
    /// Syncs a directory.
    SyncDir,
}

/// A disk in memory that fails when told.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Bumped by a crash: handles of an earlier life fail.
    life: u64,
    calls: u64,
    fail_call: Option<(u64, i32)>,
    fail_kind: Option<(Call, i32)>,
    names: BTreeMap<PathBuf, Arc<Mutex<Contents>>>,
    dirs: BTreeSet<PathBuf>,
    /// Changes of names that no sync of their directory has made durable, oldest first; those of one call go together.
    pending: Vec<Vec<NameChange>>,
}

#[derive(Debug)]
struct NameChange {
    path: PathBuf,
    before: Option<Arc<Mutex<Contents>>>,
}

#[derive(Debug, Default)]
struct Contents {
    durable: Vec<u8>,
    current: Vec<u8>,
    dirty: BTreeSet<usize>,
    maps: Vec<Weak<SegmentMap>>,
}

impl Contents {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if self.current.len() < end {
            self.current.resize(end, 0);
        }
        self.current[at..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            self.dirty.extend(at / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES);
        }
    }

    fn sync(&mut self) {
        self.absorb_maps();
        self.durable.clone_from(&self.current);
        self.dirty.clear();
    }

    /// What was written through maps and is readable there.
    fn absorb_maps(&mut self) {
        let maps: Vec<_> = self.maps.iter().filter_map(Weak::upgrade).collect();
        for map in maps {
            let Some(bytes) = map.bytes(0..map.readable()) else {
                continue;
            };
            for (i, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                let at = i * SECTOR_BYTES;
                if self.current.get(at..at + sector.len()) != Some(sector) {
                    self.write(at, sector);
                }
            }
        }
        self.maps.retain(|m| m.strong_count() > 0);
    }

    fn crash(&mut self, rng: &mut StdRng) {
        self.absorb_maps();
        let len = if rng.random() { self.current.len() } else { self.durable.len() };
        let mut bytes = self.durable.clone();
        bytes.resize(len, 0);
        // All or nothing now and then, so that both extremes are seen often.
        let survive = match rng.random_range(0..4) {
            0 => 0.0,
            1 => 1.0,
            _ => rng.random::<f64>(),
        };
        for &sector in &self.dirty {
            let range = sector * SECTOR_BYTES..((sector + 1) * SECTOR_BYTES).min(self.current.len()).min(len);
            if range.start < range.end && rng.random_bool(survive) {
                bytes[range.clone()].copy_from_slice(&self.current[range]);
            }
        }
        self.current.clone_from(&bytes);
        self.durable = bytes;
        self.dirty.clear();
        self.maps.clear();
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ready to share; the disk can still be told to fail through `self`.
    pub fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// The call with this number (the first is 1) fails with this errno, once.
    pub fn fail_call(&self, number: u64, errno: i32) {
        self.state.lock().fail_call = Some((number, errno));
    }

    /// All calls of a kind fail with this errno from now on; `None` ends that.
    pub fn fail_kind(&self, kind: Option<(Call, i32)>) {
        self.state.lock().fail_kind = kind;
    }

    /// Cuts the power. What was not synced is lost, kept or torn, by the seed.
    pub fn crash(&self, seed: u64) {
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut state = self.state.lock();
        state.life += 1;
        state.fail_call = None;
        state.fail_kind = None;
        let kept = if state.pending.is_empty() { 0 } else { rng.random_range(0..=state.pending.len()) };
        let lost = state.pending.split_off(kept);
        state.pending.clear();
        for change in lost.into_iter().rev().flat_map(|call| call.into_iter().rev()) {
            match change.before {
                Some(file) => state.names.insert(change.path, file),
                None => state.names.remove(&change.path),
            };
        }
        for file in state.names.values() {
            file.lock().crash(rng);
        }
    }

    /// Changes bytes behind everyone's back: a flipped bit, a zeroed sector.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let file = self.state.lock().find(path)?;
        let mut c = file.lock();
        c.absorb_maps();
        let mut bytes = c.current.clone();
        change(&mut bytes);
        c.durable.clone_from(&bytes);
        c.current = bytes;
        c.dirty.clear();
        Ok(())
    }

    fn call(&self, kind: Call, life: Option<u64>) -> io::Result<()> {
        self.state.lock().call(kind, life)
    }
}

impl State {
    fn call(&mut self, kind: Call, life: Option<u64>) -> io::Result<()> {
        const EIO: i32 = 5;
        self.calls += 1;
        if life.is_some_and(|l| l != self.life) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if let Some((number, errno)) = self.fail_call
            && number == self.calls
        {
            self.fail_call = None;
            return Err(io::Error::from_raw_os_error(errno));
        }
        match self.fail_kind {
            Some((k, errno)) if k == kind => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<Arc<Mutex<Contents>>> {
        self.names.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn set_names(&mut self, changes: &[(&Path, Option<&Arc<Mutex<Contents>>>)]) {
        let changed = changes.iter().map(|&(path, file)| {
            let before = match file {
                Some(file) => self.names.insert(path.to_owned(), Arc::clone(file)),
                None => self.names.remove(path),
            };
            NameChange { path: path.to_owned(), before }
        });
        let changed = changed.collect();
        self.pending.push(changed);
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    life: u64,
    contents: Arc<Mutex<Contents>>,
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.call(Call::Read, Some(self.life))?;
        let mut c = self.contents.lock();
        c.absorb_maps();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(c.current.len());
        let n = buf.len().min(c.current.len() - from);
        buf[..n].copy_from_slice(&c.current[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.disk.call(Call::Write, Some(self.life))?;
        let at = usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.contents.lock().write(at, buf);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.contents.lock().current.len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.disk.call(Call::Allocate, Some(self.life))?;
        let bytes = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.contents.lock().current.resize(bytes, 0);
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.disk.call(Call::Allocate, Some(self.life))?;
        let bytes = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut c = self.contents.lock();
        if c.current.len() < bytes {
            c.current.resize(bytes, 0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.call(Call::Sync, Some(self.life))?;
        self.contents.lock().sync();
        Ok(())
    }

    fn start_writeback(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn map(&self, bytes: usize) -> io::Result<SegmentMap> {
        self.disk.call(Call::Map, Some(self.life))?;
        let mut c = self.contents.lock();
        c.absorb_maps();
        if c.current.len() < bytes {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let sync = SimSync { disk: self.disk.clone(), life: self.life, contents: Arc::clone(&self.contents) };
        SegmentMap::of_memory(bytes, &c.current, Box::new(sync))
    }

    fn mapped(&self, map: &Arc<SegmentMap>) {
        self.contents.lock().maps.push(Arc::downgrade(map));
    }
}

struct SimSync {
    disk: SimDisk,
    life: u64,
    contents: Arc<Mutex<Contents>>,
}

impl MapSync for SimSync {
    fn sync(&self, range: Range<usize>, bytes: &[u8]) -> io::Result<()> {
        self.disk.call(Call::Sync, Some(self.life))?;
        let mut c = self.contents.lock();
        c.write(range.start, bytes);
        // Whole sectors, as a disk does.
        let (from, to) = (range.start / SECTOR_BYTES * SECTOR_BYTES, range.end);
        if c.durable.len() < c.current.len() {
            let len = c.current.len();
            c.durable.resize(len, 0);
        }
        let synced = c.current[from..to].to_vec();
        c.durable[from..to].copy_from_slice(&synced);
        let first = from / SECTOR_BYTES;
        let last = to / SECTOR_BYTES;
        c.dirty.retain(|&s| s < first || s >= last);
        Ok(())
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.call(Call::Open, None)?;
        let found = state.names.get(path).cloned();
        let contents = match (found, how) {
            (Some(_), Open::CreateNew) => {
                return Err(io::Error::from(io::ErrorKind::AlreadyExists));
            }
            (Some(file), Open::Truncate) => {
                let mut c = file.lock();
                c.current.clear();
                c.dirty.clear();
                drop(c);
                file
            }
            (Some(file), _) => file,
            (None, Open::Read | Open::Write) => {
                return Err(io::Error::from(io::ErrorKind::NotFound));
            }
            (None, Open::Create | Open::CreateNew | Open::Truncate) => {
                if !path.parent().is_some_and(|p| state.dirs.contains(p)) {
                    return Err(io::Error::from(io::ErrorKind::NotFound));
                }
                let file = Arc::new(Mutex::new(Contents::default()));
                state.set_names(&[(path, Some(&file))]);
                file
            }
        };
        Ok(Arc::new(SimFile { disk: self.clone(), life: state.life, contents }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call(Call::Rename, None)?;
        let file = state.find(from)?;
        state.set_names(&[(to, Some(&file)), (from, None)]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call(Call::Remove, None)?;
        state.find(path)?;
        state.set_names(&[(path, None)]);
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call(Call::Dir, None)?;
        for dir in path.ancestors() {
            state.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call(Call::Remove, None)?;
        let inside: Vec<_> = state.names.keys().filter(|p| p.starts_with(path)).cloned().collect();
        for p in inside {
            state.set_names(&[(&p, None)]);
        }
        state.dirs.retain(|d| !d.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call(Call::SyncDir, None)?;
        state.pending.retain(|call| call.iter().all(|c| c.path.parent() != Some(path)));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        state.call(Call::Dir, None)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let paths = state.names.keys().chain(&state.dirs);
        let inside = paths.filter(|p| p.parent() == Some(path)).filter_map(|p| p.file_name()?.to_str().map(str::to_owned));
        let mut names: Vec<_> = inside.collect();
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state.lock();
        Ok(state.names.contains_key(path) || state.dirs.contains(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_and_the_rest_may_not() {
        let (mut lost, mut kept) = (0, 0);
        for seed in 0..50 {
            let disk = SimDisk::new();
            disk.create_dir(Path::new("/d")).unwrap();
            let f = disk.open(Path::new("/d/a"), Open::CreateNew).unwrap();
            f.write_at(&[1; 2000], 0).unwrap();
            f.sync_data().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            f.write_at(&[2; 1024], 512).unwrap();
            disk.crash(seed);
            assert!(f.read_at(&mut [0], 0).is_err());
            let bytes = super::super::read_all(&disk, Path::new("/d/a")).unwrap();
            assert_eq!(bytes.len(), 2000);
            assert!(bytes[..512].iter().all(|&b| b == 1));
            for sector in [512, 1024] {
                assert!(bytes[sector..sector + 512].iter().all(|&b| b == bytes[sector]));
                if bytes[sector] == 1 { lost += 1 } else { kept += 1 }
            }
        }
        assert!(lost > 10 && kept > 10);
    }

    #[test]
    fn name_without_sync_of_its_directory_may_be_lost() {
        let mut gone = 0;
        for seed in 0..20 {
            let disk = SimDisk::new();
            disk.create_dir(Path::new("/d")).unwrap();
            disk.open(Path::new("/d/a"), Open::CreateNew).unwrap();
            disk.crash(seed);
            gone += usize::from(!disk.exists(Path::new("/d/a")).unwrap());
        }
        assert!(gone > 0 && gone < 20);
    }

    #[test]
    fn chosen_call_fails_once() {
        let disk = SimDisk::new();
        disk.create_dir(Path::new("/d")).unwrap();
        disk.fail_call(disk.calls() + 1, 28);
        let failed = disk.open(Path::new("/d/a"), Open::CreateNew).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
        assert!(disk.open(Path::new("/d/a"), Open::CreateNew).is_ok());
    }
}
