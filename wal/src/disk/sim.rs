//! A disk in memory that fails: loses what was not synced, tears it at sectors, returns errors. For tests of all layers.
//!
//! Every call is counted; a test can make the n-th call fail, all calls of a kind from now on, or cut the power ([`SimDisk::crash`]). After a
//! crash each sector written since the last sync holds its old or its new bytes, by the seed, whatever the order of the writes; names changed
//! since the last sync of their directory are taken back from some point on, in each directory on its own. Handles and maps of before the
//! crash fail from then on. [`SimDisk::freeze_at`] takes a copy of the disk at a chosen call: a power cut there, while the rest goes on.

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

/// Bytes that reach the disk as one, at least; a crash may also tear at [`LARGE_SECTOR_BYTES`].
pub const SECTOR_BYTES: usize = 512;
/// Bytes that reach a disk with large sectors as one.
pub const LARGE_SECTOR_BYTES: usize = 4096;

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
    /// Made for one life: fails after it.
    life: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Bumped by a crash: handles of an earlier life fail.
    life: u64,
    calls: u64,
    fail_call: Option<(u64, i32)>,
    fail_kind: Option<(Call, i32)>,
    watch: Option<Watch>,
    freeze: Option<Freeze>,
    frozen: Option<SimDisk>,
    names: BTreeMap<PathBuf, Arc<Mutex<Contents>>>,
    dirs: BTreeSet<PathBuf>,
    /// Changes of names that no sync of their directory has made durable, oldest first; those of one call go together.
    pending: Vec<Vec<NameChange>>,
}

/// Sees each call and the file or directory it is about before it is made; an errno makes it fail.
type Look = dyn FnMut(Call, &Path) -> Option<i32> + Send;

/// See [`Look`].
struct Watch(Box<Look>);

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// A copy of the disk is to be taken at this call; the closure is told, so that the test can note what was true just then.
struct Freeze {
    call: u64,
    tell: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for Freeze {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Freeze(at call {})", self.call)
    }
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

    /// A copy without handles and maps.
    fn image(&mut self) -> Self {
        self.absorb_maps();
        Self { durable: self.durable.clone(), current: self.current.clone(), dirty: self.dirty.clone(), maps: Vec::new() }
    }

    fn crash(&mut self, rng: &mut StdRng, sector_bytes: usize) {
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
        let mut decided = None;
        for &sector in &self.dirty {
            let whole = sector * SECTOR_BYTES / sector_bytes;
            let survives = match decided {
                Some((same, survives)) if same == whole => survives,
                _ => rng.random_bool(survive),
            };
            decided = Some((whole, survives));
            let range = sector * SECTOR_BYTES..((sector + 1) * SECTOR_BYTES).min(self.current.len()).min(len);
            if range.start < range.end && survives {
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

    /// As [`Self::shared`], but every call fails once this life is over: what threads left behind by a test still do changes nothing.
    pub fn for_this_life(&self) -> Arc<dyn Disk> {
        let life = Some(self.state.lock().life);
        Arc::new(Self { life, ..self.clone() })
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

    /// `watch` sees each call of this life and the file or directory it is about before it is made; an errno makes it fail. It must not use
    /// the disk. Until the next crash.
    pub fn watch(&self, watch: impl FnMut(Call, &Path) -> Option<i32> + Send + 'static) {
        self.state.lock().watch = Some(Watch(Box::new(watch)));
    }

    /// Cuts the power. What was not synced is lost, kept or torn, by the seed.
    pub fn crash(&self, seed: u64) {
        let rng = &mut StdRng::seed_from_u64(seed);
        let mut state = self.state.lock();
        state.life += 1;
        state.fail_call = None;
        state.fail_kind = None;
        state.watch = None;
        state.freeze = None;
        state.frozen = None;
        let mut lost = BTreeMap::new();
        let mut changes: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for call in &state.pending {
            *changes.entry(directory(call)).or_default() += 1;
        }
        for (dir, count) in changes {
            lost.insert(dir, rng.random_range(0..=count));
        }
        for call in std::mem::take(&mut state.pending).into_iter().rev() {
            let left = lost.entry(directory(&call)).or_default();
            if *left == 0 {
                continue;
            }
            *left -= 1;
            for change in call.into_iter().rev() {
                match change.before {
                    Some(file) => state.names.insert(change.path, file),
                    None => state.names.remove(&change.path),
                };
            }
        }
        let sector_bytes = if rng.random() { SECTOR_BYTES } else { LARGE_SECTOR_BYTES };
        for file in state.names.values() {
            file.lock().crash(rng, sector_bytes);
        }
    }

    /// Takes a copy of the disk just before the call with this number and calls `tell`; the calls go on. The copy is crashed on its own.
    pub fn freeze_at(&self, call: u64, tell: impl FnOnce() + Send + 'static) {
        self.state.lock().freeze = Some(Freeze { call, tell: Box::new(tell) });
    }

    /// The copy of [`Self::freeze_at`], if its call has come.
    pub fn take_frozen(&self) -> Option<Self> {
        let mut state = self.state.lock();
        state.freeze = None;
        state.frozen.take()
    }

    /// A copy of the disk as it is now.
    pub fn copy(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.state.lock().image())), life: None }
    }

    /// Which life this is: a crash begins the next one.
    pub fn life(&self) -> u64 {
        self.state.lock().life
    }

    /// Ends this life if it is not over: handles and maps fail from now on; what they did so far is still to be decided by [`Self::crash`].
    pub fn cut(&self, life: u64) {
        let mut state = self.state.lock();
        if state.life != life {
            return;
        }
        for file in state.names.values() {
            let mut contents = file.lock();
            contents.absorb_maps();
            contents.maps.clear();
        }
        state.life += 1;
    }

    /// Frees everything: what is left of a test that gave up on threads of an earlier life.
    pub fn wipe(&self) {
        let mut state = self.state.lock();
        state.life += 1;
        state.names.clear();
        state.pending.clear();
        state.frozen = None;
    }

    /// All files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state.lock().names.keys().cloned().collect()
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

    fn call(&self, kind: Call, path: &Path, life: Option<u64>) -> io::Result<()> {
        self.state.lock().call(kind, path, life)
    }
}

fn directory(call: &[NameChange]) -> PathBuf {
    call.first().and_then(|c| c.path.parent()).unwrap_or(Path::new("/")).to_owned()
}

impl State {
    fn image(&self) -> Self {
        #[expect(clippy::type_complexity, reason = "one use")]
        let mut copies: Vec<(Arc<Mutex<Contents>>, Arc<Mutex<Contents>>)> = Vec::new();
        let mut copy = |file: &Arc<Mutex<Contents>>| {
            if let Some((_, copy)) = copies.iter().find(|(of, _)| Arc::ptr_eq(of, file)) {
                return Arc::clone(copy);
            }
            let made = Arc::new(Mutex::new(file.lock().image()));
            copies.push((Arc::clone(file), Arc::clone(&made)));
            made
        };
        let names = self.names.iter().map(|(path, file)| (path.clone(), copy(file))).collect();
        let pending = self.pending.iter();
        let pending = pending
            .map(|call| call.iter().map(|c| NameChange { path: c.path.clone(), before: c.before.as_ref().map(&mut copy) }).collect());
        let pending = pending.collect();
        Self { names, pending, dirs: self.dirs.clone(), ..Self::default() }
    }

    fn call(&mut self, kind: Call, path: &Path, life: Option<u64>) -> io::Result<()> {
        const EIO: i32 = 5;
        self.calls += 1;
        if let Some(freeze) = self.freeze.take_if(|f| f.call <= self.calls) {
            self.frozen = Some(SimDisk { state: Arc::new(Mutex::new(self.image())), life: None });
            (freeze.tell)();
        }
        if life.is_some_and(|l| l != self.life) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if let Some((number, errno)) = self.fail_call
            && number == self.calls
        {
            self.fail_call = None;
            return Err(io::Error::from_raw_os_error(errno));
        }
        if let Some(errno) = self.watch.as_mut().and_then(|watch| (watch.0)(kind, path)) {
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
    /// As it was opened.
    path: Arc<Path>,
    contents: Arc<Mutex<Contents>>,
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.call(Call::Read, &self.path, Some(self.life))?;
        let mut c = self.contents.lock();
        c.absorb_maps();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(c.current.len());
        let n = buf.len().min(c.current.len() - from);
        buf[..n].copy_from_slice(&c.current[from..from + n]);
        Ok(n)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.disk.call(Call::Write, &self.path, Some(self.life))?;
        let at = usize::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.contents.lock().write(at, buf);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.contents.lock().current.len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.disk.call(Call::Allocate, &self.path, Some(self.life))?;
        let bytes = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.contents.lock().current.resize(bytes, 0);
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.disk.call(Call::Allocate, &self.path, Some(self.life))?;
        let bytes = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let mut c = self.contents.lock();
        if c.current.len() < bytes {
            c.current.resize(bytes, 0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.call(Call::Sync, &self.path, Some(self.life))?;
        self.contents.lock().sync();
        Ok(())
    }

    fn start_writeback(&self, _offset: u64, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn map(&self, bytes: usize) -> io::Result<SegmentMap> {
        self.disk.call(Call::Map, &self.path, Some(self.life))?;
        let mut c = self.contents.lock();
        c.absorb_maps();
        if c.current.len() < bytes {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let sync = SimSync { disk: self.disk.clone(), life: self.life, path: Arc::clone(&self.path), contents: Arc::clone(&self.contents) };
        SegmentMap::of_memory(bytes, &c.current, Box::new(sync))
    }

    fn mapped(&self, map: &Arc<SegmentMap>) {
        self.contents.lock().maps.push(Arc::downgrade(map));
    }
}

struct SimSync {
    disk: SimDisk,
    life: u64,
    path: Arc<Path>,
    contents: Arc<Mutex<Contents>>,
}

impl MapSync for SimSync {
    fn sync(&self, range: Range<usize>, bytes: &[u8]) -> io::Result<()> {
        self.disk.call(Call::Sync, &self.path, Some(self.life))?;
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
        state.call(Call::Open, path, self.life)?;
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
        Ok(Arc::new(SimFile { disk: self.clone(), life: state.life, path: path.into(), contents }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call(Call::Rename, to, self.life)?;
        let file = state.find(from)?;
        state.set_names(&[(to, Some(&file)), (from, None)]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call(Call::Remove, path, self.life)?;
        state.find(path)?;
        state.set_names(&[(path, None)]);
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call(Call::Dir, path, self.life)?;
        for dir in path.ancestors() {
            state.dirs.insert(dir.to_owned());
        }
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call(Call::Remove, path, self.life)?;
        let inside: Vec<_> = state.names.keys().filter(|p| p.starts_with(path)).cloned().collect();
        for p in inside {
            state.set_names(&[(&p, None)]);
        }
        state.dirs.retain(|d| !d.starts_with(path));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.call(Call::SyncDir, path, self.life)?;
        state.pending.retain(|call| call.iter().all(|c| c.path.parent() != Some(path)));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state.lock();
        state.call(Call::Dir, path, self.life)?;
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
    fn large_sectors_tear_as_a_whole_and_directories_each_on_their_own() {
        let (mut whole, mut parts, mut mixed) = (0, 0, 0);
        for seed in 0..60 {
            let disk = SimDisk::new();
            for dir in ["/d", "/e"] {
                disk.create_dir(Path::new(dir)).unwrap();
            }
            let f = disk.open(Path::new("/d/a"), Open::CreateNew).unwrap();
            f.write_at(&[1; 8192], 0).unwrap();
            f.sync_data().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            f.write_at(&[2; 8192], 0).unwrap();
            disk.open(Path::new("/d/b"), Open::CreateNew).unwrap();
            disk.open(Path::new("/e/c"), Open::CreateNew).unwrap();
            disk.crash(seed);
            let bytes = super::super::read_all(&disk, Path::new("/d/a")).unwrap();
            let torn = bytes.chunks(LARGE_SECTOR_BYTES).any(|c| c.iter().any(|b| *b != c[0]));
            if torn {
                parts += 1
            } else {
                whole += usize::from(bytes[0] != bytes[8191])
            }
            mixed += usize::from(!disk.exists(Path::new("/d/b")).unwrap() && disk.exists(Path::new("/e/c")).unwrap());
        }
        assert!(whole > 2 && parts > 10 && mixed > 5, "{whole} {parts} {mixed}");
    }

    #[test]
    fn frozen_copy_is_the_disk_of_that_call() {
        let disk = SimDisk::new();
        disk.create_dir(Path::new("/d")).unwrap();
        let f = disk.open(Path::new("/d/a"), Open::CreateNew).unwrap();
        f.write_at(&[1; 512], 0).unwrap();
        f.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        disk.freeze_at(disk.calls() + 2, || {});
        f.write_at(&[2; 512], 0).unwrap();
        f.sync_data().unwrap();
        assert_eq!(super::super::read_all(&disk, Path::new("/d/a")).unwrap(), [2; 512]);
        let frozen = disk.take_frozen().unwrap();
        assert!(disk.take_frozen().is_none());
        assert_eq!(super::super::read_all(&frozen, Path::new("/d/a")).unwrap(), [2; 512]);
        let lost = (0..20).any(|seed| {
            disk.freeze_at(0, || {});
            f.write_at(&[3; 512], 0).unwrap();
            let frozen = disk.take_frozen().unwrap();
            f.sync_data().unwrap();
            frozen.crash(seed);
            super::super::read_all(&frozen, Path::new("/d/a")).unwrap() == [2; 512]
        });
        assert!(lost);
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
