//! Status of every xid: two bits, in files under `pg_xact`, in memory by segment.
//!
//! A file holds 262,144 xids: 32 bytes of header, then 64 KiB, four xids a byte, low bits first. It is replaced as a whole
//! (write, sync, rename), so it is never torn. The WAL is flushed before a file is written, so a file never says more than the WAL can
//! prove; what it says less, redo adds.
//!
//! A checkpoint leaves a file for every segment with an xid that was finished by then. One that is missing later is an error when somebody
//! asks for it, and never read as "nothing committed". (Unless no file says that they are complete: earlier versions left none where a crash
//! had ended every xid of a segment. The first checkpoint makes up for that.)
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `AIXACT\0\1` (the last byte is the format version) |
//! | 8 | 8 | segment number |
//! | 16 | 8 | system identifier |
//! | 24 | 4 | crc32c of bytes 0 to 24 and of the statuses |
//! | 28 | 4 | 1: there is a file for every segment from the first kept to this one; 0: of an earlier version, which did not see to that |

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use afterimage_wal::disk::{Disk, Open, durable_rename, read_all};
use afterimage_wal::ids::{SystemId, Xid};
use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::error::TxnError;
use crate::storage::StorageError;

/// Xids per file.
pub const SEGMENT_XIDS: u64 = 1 << 18;
/// Segments below the floor that stay in memory: four million xids, a megabyte.
const SEGMENTS_KEPT: u64 = 16;
const WORD_XIDS: u64 = 32;
const WORDS: usize = (SEGMENT_XIDS / WORD_XIDS) as usize;
const HEADER: usize = 32;
const MAGIC: [u8; 8] = *b"AIXACT\0\x01";

/// What is recorded about an xid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Nothing: in progress, or ended by a crash.
    Unknown = 0,
    /// Committed.
    Committed = 1,
    /// Rolled back.
    Aborted = 2,
}

#[derive(Debug)]
struct Segment {
    words: Box<[AtomicU64]>,
    dirty: AtomicBool,
}

#[derive(Debug, Default)]
struct Segments {
    /// Number of the first one kept.
    first: u64,
    list: Vec<Option<Arc<Segment>>>,
}

/// The statuses.
pub struct XactStatus {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    system: SystemId,
    segments: ArcSwap<Segments>,
    /// Number of the first segment that was not trimmed. Raised under `load`.
    oldest: AtomicU64,
    /// Whether a file that is missing between those is lost; else it may never have been.
    complete: AtomicBool,
    /// Segments below this number, and not trimmed, are files. Raised under `load`.
    written: AtomicU64,
    /// Held while a segment is read in, the list replaced, or dirty segments written. Rank 78; I/O while held, never taken on a path
    /// that finds its segment in memory.
    load: Mutex<()>,
}

impl XactStatus {
    /// Statuses in `dir`, read as they are asked for. `finished`: what the last checkpoint calls its oldest xid.
    pub fn new(dir: impl Into<PathBuf>, disk: Arc<dyn Disk>, system: SystemId, finished: Xid) -> Self {
        let dir = dir.into();
        // A trim leaves the first segment it keeps as a file. No directory yet: nothing was trimmed.
        let mut files = numbers(disk.as_ref(), &dir).unwrap_or_default();
        files.sort_unstable();
        let oldest = files.first().copied().unwrap_or(0);
        let complete = files.is_empty() || files.iter().rev().any(|segno| says_complete(disk.as_ref(), &file_of(&dir, *segno)));
        let (oldest, written) = (AtomicU64::new(oldest), AtomicU64::new(segments_below(finished)));
        let complete = AtomicBool::new(complete);
        Self { dir, disk, system, segments: ArcSwap::default(), oldest, written, complete, load: Mutex::new(()) }
    }

    /// Statuses of xids below are gone.
    pub fn oldest(&self) -> Xid {
        Xid::from_u64(self.oldest.load(Ordering::Acquire) * SEGMENT_XIDS)
    }

    /// Whether [`Self::trim`] with this xid would remove anything.
    pub fn can_trim(&self, oldest: Xid) -> bool {
        oldest.as_u64() / SEGMENT_XIDS > self.oldest.load(Ordering::Acquire)
    }

    fn split(xid: Xid) -> (u64, usize, u32) {
        let at = xid.as_u64() % SEGMENT_XIDS;
        let word = usize::try_from(at / WORD_XIDS).unwrap_or(0);
        (xid.as_u64() / SEGMENT_XIDS, word, u32::try_from(at % WORD_XIDS).unwrap_or(0) * 2)
    }

    fn find(&self, segno: u64) -> Option<Arc<Segment>> {
        let s = self.segments.load();
        let i = usize::try_from(segno.checked_sub(s.first)?).ok()?;
        s.list.get(i)?.clone()
    }

    fn segment(&self, segno: u64) -> Result<Arc<Segment>, TxnError> {
        if let Some(s) = self.find(segno) {
            return Ok(s);
        }
        let _g = self.load.lock();
        if let Some(s) = self.find(segno) {
            return Ok(s);
        }
        let new = Arc::new(self.read_file(segno)?);
        let old = self.segments.load();
        let mut list = old.list.clone();
        let mut first = old.first;
        if list.is_empty() {
            first = segno;
        }
        while segno < first {
            list.insert(0, None);
            first -= 1;
        }
        let i = usize::try_from(segno - first).unwrap_or(usize::MAX);
        if list.len() <= i {
            list.resize(i + 1, None);
        }
        list[i] = Some(Arc::clone(&new));
        self.segments.store(Arc::new(Segments { first, list }));
        Ok(new)
    }

    /// What is recorded about `xid`.
    ///
    /// # Errors
    /// If its file cannot be read or is damaged.
    #[inline]
    pub fn get(&self, xid: Xid) -> Result<Status, TxnError> {
        let (segno, word, shift) = Self::split(xid);
        let w = {
            let s = self.segments.load();
            let seg = segno.checked_sub(s.first).and_then(|i| usize::try_from(i).ok()).and_then(|i| s.list.get(i)).and_then(Option::as_ref);
            // Acquire, paired with Release in `set`: who sees the status sees the commit LSN set before it.
            seg.map(|seg| seg.words[word].load(Ordering::Acquire))
        };
        let w = match w {
            Some(w) => w,
            None if segno < self.oldest.load(Ordering::Acquire) => return Err(TxnError::StatusMissing(xid)),
            None => self.segment(segno)?.words[word].load(Ordering::Acquire),
        };
        Ok(match (w >> shift) & 3 {
            0 => Status::Unknown,
            1 => Status::Committed,
            2 => Status::Aborted,
            _ => return Err(TxnError::StatusMissing(xid)),
        })
    }

    /// Records the outcome of `xid`, once.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn set(&self, xid: Xid, status: Status) -> Result<(), TxnError> {
        let (segno, word, shift) = Self::split(xid);
        let seg = self.segment(segno)?;
        seg.words[word].fetch_or(u64::from(status as u8) << shift, Ordering::Release);
        seg.dirty.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes sure the segment of `xid` is in memory, so that recording its outcome later does no I/O.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn prepare(&self, xid: Xid) -> Result<(), TxnError> {
        let segno = xid.as_u64() / SEGMENT_XIDS;
        {
            let s = self.segments.load();
            let i = segno.checked_sub(s.first).and_then(|i| usize::try_from(i).ok());
            if i.and_then(|i| s.list.get(i)).is_some_and(Option::is_some) {
                return Ok(());
            }
        }
        self.segment(segno).map(|_| ())
    }

    fn must_exist(&self, segno: u64) -> bool {
        self.complete.load(Ordering::Acquire)
            && (self.oldest.load(Ordering::Acquire)..self.written.load(Ordering::Acquire)).contains(&segno)
    }

    fn path(&self, segno: u64) -> PathBuf {
        file_of(&self.dir, segno)
    }

    fn read_file(&self, segno: u64) -> Result<Segment, TxnError> {
        let path = self.path(segno);
        let words: Box<[AtomicU64]> = match read_all(self.disk.as_ref(), &path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !self.must_exist(segno) => return Ok(Segment::empty()),
            Ok(b) => {
                let ok = b.len() == HEADER + WORDS * 8
                    && b[..8] == MAGIC
                    && b[8..16] == segno.to_le_bytes()
                    && b[16..24] == self.system.to_le_bytes()
                    && b[24..28] == crc32c::crc32c_append(crc32c::crc32c(&b[..24]), &b[HEADER..]).to_le_bytes();
                if !ok {
                    let source = io::Error::new(io::ErrorKind::InvalidData, "header or checksum is wrong");
                    return Err(TxnError::StatusFile { path, source });
                }
                b[HEADER..].as_chunks::<8>().0.iter().map(|w| AtomicU64::new(u64::from_le_bytes(*w))).collect()
            }
            Err(source) => return Err(TxnError::StatusFile { path, source }),
        };
        Ok(Segment { words, dirty: AtomicBool::new(false) })
    }

    /// Writes what changed since the last call and makes it durable. `flush_wal` runs after the statuses are copied, before they are
    /// written. Part of every checkpoint, after its redo point is chosen. Segments well below `floor`, under which everything is decided,
    /// leave memory and are read again if asked for. `finished`: the oldest xid of that checkpoint.
    ///
    /// # Errors
    /// If a file cannot be written, or `flush_wal` fails.
    pub fn checkpoint(&self, floor: Xid, finished: Xid, flush_wal: impl Fn() -> Result<(), TxnError>) -> Result<(), TxnError> {
        let _g = self.load.lock();
        // First those in which nothing is recorded, as all of their xids were ended by a crash: files written later say that they are there.
        let written = segments_below(finished);
        let (complete, oldest) = (self.complete.load(Ordering::Acquire), self.oldest.load(Ordering::Acquire));
        let known = if complete { self.written.load(Ordering::Acquire).max(oldest) } else { oldest };
        for segno in known..written {
            let path = self.path(segno);
            if !self.disk.exists(&path).map_err(|source| TxnError::StatusFile { path, source })? {
                let segment = self.find(segno).unwrap_or_else(|| Arc::new(Segment::empty()));
                self.write_file(segno, &segment, &flush_wal)?;
            }
        }
        self.written.fetch_max(written, Ordering::AcqRel);
        if !complete {
            self.complete.store(true, Ordering::Release);
            if let Some(last) = written.checked_sub(1).filter(|last| *last >= oldest) {
                let segment = self.find(last).map_or_else(|| self.read_file(last).map(Arc::new), Ok)?;
                self.write_file(last, &segment, &flush_wal)?;
            }
        }
        let s = self.segments.load_full();
        for (i, seg) in s.list.iter().enumerate() {
            let Some(seg) = seg else { continue };
            if !seg.dirty.swap(false, Ordering::AcqRel) {
                continue;
            }
            let segno = s.first + u64::try_from(i).unwrap_or(0);
            let r = self.write_file(segno, seg, &flush_wal);
            if r.is_err() {
                seg.dirty.store(true, Ordering::Release);
            }
            r?;
        }
        let keep = (floor.as_u64() / SEGMENT_XIDS).saturating_sub(SEGMENTS_KEPT);
        let old = usize::try_from(keep.saturating_sub(s.first)).unwrap_or(usize::MAX).min(s.list.len());
        if old > 0 {
            // One that redo made dirty again stays until the next time.
            let dirty = |seg: &Arc<Segment>| seg.dirty.load(Ordering::Acquire);
            if !s.list[..old].iter().flatten().any(dirty) {
                let first = s.first + u64::try_from(old).unwrap_or(0);
                self.segments.store(Arc::new(Segments { first, list: s.list[old..].to_vec() }));
            }
        }
        Ok(())
    }

    fn write_file(&self, segno: u64, seg: &Segment, flush_wal: &impl Fn() -> Result<(), TxnError>) -> Result<(), TxnError> {
        let mut b = Vec::with_capacity(HEADER + WORDS * 8);
        b.extend_from_slice(&MAGIC);
        b.extend_from_slice(&segno.to_le_bytes());
        b.extend_from_slice(&self.system.to_le_bytes());
        b.extend_from_slice(&[0; 4]);
        b.extend_from_slice(&u32::from(self.complete.load(Ordering::Acquire)).to_le_bytes());
        for w in &seg.words {
            b.extend_from_slice(&w.load(Ordering::Acquire).to_le_bytes());
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&b[..24]), &b[HEADER..]);
        b[24..28].copy_from_slice(&crc.to_le_bytes());
        flush_wal()?;
        let path = self.path(segno);
        let temp = path.with_extension("tmp");
        let write = || self.disk.open(&temp, Open::Truncate)?.write_at(&b, 0);
        write().map_err(|source| TxnError::StatusFile { path: temp.clone(), source })?;
        // A failed sync stops the node, as that of a data file does.
        durable_rename(self.disk.as_ref(), &temp, &path).map_err(|source| StorageError::Sync { path, source }.into())
    }

    /// Removes files that hold only xids below `oldest`, which no row version names any more.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn trim(&self, oldest: Xid) -> Result<(), TxnError> {
        let _g = self.load.lock();
        let keep = oldest.as_u64() / SEGMENT_XIDS;
        let fail = |path: PathBuf| |source| TxnError::StatusFile { path, source };
        let mut gone = numbers(self.disk.as_ref(), &self.dir).map_err(fail(self.dir.clone()))?;
        gone.retain(|n| *n < keep);
        // Oldest first: cut off in the middle, what is left has no gap, which would be taken for a loss.
        gone.sort_unstable();
        let s = self.segments.load_full();
        if gone.is_empty() && s.first >= keep {
            return Ok(());
        }
        // The first file says after a restart how far it went; so there must be one.
        let first = self.path(keep);
        if !self.disk.exists(&first).map_err(fail(first.clone()))? {
            let segment = self.find(keep).unwrap_or_else(|| Arc::new(Segment::empty()));
            self.write_file(keep, &segment, &|| Ok(()))?;
        }
        self.oldest.fetch_max(keep, Ordering::AcqRel);
        if let Some(n) = keep.checked_sub(s.first).filter(|n| *n > 0) {
            let n = usize::try_from(n).unwrap_or(usize::MAX).min(s.list.len());
            let first = s.first + u64::try_from(n).unwrap_or(0);
            self.segments.store(Arc::new(Segments { first, list: s.list[n..].to_vec() }));
        }
        for segno in gone {
            let path = self.path(segno);
            match self.disk.remove(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(TxnError::StatusFile { path, source: e }),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Segment {
    fn empty() -> Self {
        Self { words: (0..WORDS).map(|_| AtomicU64::new(0)).collect(), dirty: AtomicBool::new(false) }
    }
}

/// One past the number of the last segment with an xid below `xid`; 0 if there is none.
fn segments_below(xid: Xid) -> u64 {
    if xid <= Xid::FIRST_NORMAL { 0 } else { xid.as_u64().div_ceil(SEGMENT_XIDS) }
}

/// Makes the files between `finished`, which had theirs, and `next`, without a status in them: for whoever moves the next xid. Of very many only
/// the last few: nobody has used the xids in between.
///
/// # Errors
/// I/O.
pub fn make_files_between(dir: &Path, disk: Arc<dyn Disk>, system: SystemId, finished: Xid, next: Xid) -> Result<(), TxnError> {
    const MOST: u64 = 16;
    let fail = |source| TxnError::StatusFile { path: dir.to_owned(), source };
    let Some(last) = numbers(disk.as_ref(), dir).map_err(fail)?.into_iter().max() else { return Ok(()) };
    let end = segments_below(next);
    let status = XactStatus::new(dir, disk, system, Xid::FIRST_NORMAL);
    for segno in (last + 1).max(segments_below(finished)).max(end.saturating_sub(MOST))..end {
        status.write_file(segno, &Segment::empty(), &|| Ok(()))?;
    }
    Ok(())
}

fn file_of(dir: &Path, segno: u64) -> PathBuf {
    dir.join(format!("{segno:04X}"))
}

/// Whether a file says that none before it is missing.
fn says_complete(disk: &dyn Disk, path: &Path) -> bool {
    let mut header = [0; HEADER];
    let read = disk.open(path, Open::Read).and_then(|file| file.read_at(&mut header, 0));
    read.is_ok_and(|n| n == HEADER) && header[..8] == MAGIC && header[28..] == 1_u32.to_le_bytes()
}

/// Numbers of the segments that are files.
fn numbers(disk: &dyn Disk, dir: &Path) -> io::Result<Vec<u64>> {
    Ok(disk.list(dir)?.iter().filter(|n| n.len() >= 4).filter_map(|n| u64::from_str_radix(n, 16).ok()).collect())
}

#[cfg(test)]
mod tests {
    use afterimage_wal::disk::RealDisk;

    use super::*;

    #[test]
    fn trimmed_statuses_are_errors_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let open = || XactStatus::new(dir.path(), RealDisk::shared(), SystemId::new(7), Xid::FIRST_NORMAL);
        let xid = |segment: u64, at: u64| Xid::from_u64(segment * SEGMENT_XIDS + at);
        let status = open();
        for segment in 0..5 {
            status.set(xid(segment, 9), Status::Committed).unwrap();
        }
        status.checkpoint(Xid::FIRST_NORMAL, Xid::FIRST_NORMAL, || Ok(())).unwrap();
        status.set(xid(6, 1), Status::Aborted).unwrap();
        assert!(!status.can_trim(xid(0, 100)) && status.can_trim(xid(3, 0)));
        status.trim(xid(3, 77)).unwrap();
        let check = |status: &XactStatus| {
            assert_eq!(status.oldest(), xid(3, 0));
            assert!(matches!(status.get(xid(2, 9)), Err(TxnError::StatusMissing(_))));
            assert_eq!(status.get(xid(3, 9)).unwrap(), Status::Committed);
            assert_eq!(status.get(xid(3, 10)).unwrap(), Status::Unknown);
        };
        check(&status);
        check(&open());
        // Past what was ever written: redo of what came before brings some back, and the trim takes them again.
        status.trim(xid(6, 0)).unwrap();
        let again = open();
        assert_eq!((again.oldest(), again.get(xid(6, 1)).unwrap()), (xid(6, 0), Status::Aborted));
        again.set(xid(4, 9), Status::Committed).unwrap();
        again.checkpoint(Xid::FIRST_NORMAL, Xid::FIRST_NORMAL, || Ok(())).unwrap();
        again.trim(xid(6, 0)).unwrap();
        assert!(matches!(again.get(xid(4, 9)), Err(TxnError::StatusMissing(_))));
        assert_eq!(numbers(RealDisk::shared().as_ref(), dir.path()).unwrap(), [6]);
    }

    #[test]
    fn a_file_that_earlier_versions_left_out_is_no_loss() {
        let dir = tempfile::tempdir().unwrap();
        let open = |finished| XactStatus::new(dir.path(), RealDisk::shared(), SystemId::new(7), finished);
        let xid = |segment: u64, at: u64| Xid::from_u64(segment * SEGMENT_XIDS + at);
        let status = open(Xid::FIRST_NORMAL);
        for segment in [0, 1, 2, 3] {
            status.set(xid(segment, 9), Status::Committed).unwrap();
        }
        status.checkpoint(Xid::FIRST_NORMAL, xid(3, 10), || Ok(())).unwrap();
        let path = |segment: u64| dir.path().join(format!("{segment:04X}"));
        // As they left it: no flag, and no file of a segment in which nothing was recorded.
        for segment in 0..4 {
            let mut bytes = std::fs::read(path(segment)).unwrap();
            assert_eq!(bytes[28..32], [1, 0, 0, 0]);
            bytes[28] = 0;
            std::fs::write(path(segment), bytes).unwrap();
        }
        std::fs::remove_file(path(1)).unwrap();
        let status = open(xid(3, 10));
        assert_eq!((status.get(xid(1, 9)).unwrap(), status.get(xid(2, 9)).unwrap()), (Status::Unknown, Status::Committed));
        status.checkpoint(Xid::FIRST_NORMAL, xid(3, 10), || Ok(())).unwrap();
        assert!(path(1).exists());
        // From now on one that is missing is lost.
        std::fs::remove_file(path(1)).unwrap();
        assert!(open(xid(3, 10)).get(xid(1, 9)).is_err());
        assert_eq!(open(xid(3, 10)).get(xid(3, 9)).unwrap(), Status::Committed);
    }

    #[test]
    fn a_lost_file_is_an_error_and_not_a_segment_of_unknown_xids() {
        let dir = tempfile::tempdir().unwrap();
        let open = |finished| XactStatus::new(dir.path(), RealDisk::shared(), SystemId::new(7), finished);
        let xid = |segment: u64, at: u64| Xid::from_u64(segment * SEGMENT_XIDS + at);
        let status = open(Xid::FIRST_NORMAL);
        status.set(xid(0, 9), Status::Committed).unwrap();
        // A crash ended all of segment 1, and segment 2 is begun.
        status.checkpoint(Xid::FIRST_NORMAL, xid(2, 1), || Ok(())).unwrap();
        let status = open(xid(2, 1));
        assert_eq!((status.get(xid(0, 9)).unwrap(), status.get(xid(1, 9)).unwrap()), (Status::Committed, Status::Unknown));
        assert_eq!((status.get(xid(2, 0)).unwrap(), status.get(xid(3, 0)).unwrap()), (Status::Unknown, Status::Unknown));
        for lost in [2, 1] {
            std::fs::remove_file(dir.path().join(format!("{lost:04X}"))).unwrap();
            let status = open(xid(2, 1));
            assert_eq!(status.get(xid(0, 9)).unwrap(), Status::Committed);
            let error = status.get(xid(lost, 0)).unwrap_err();
            assert!(matches!(&error, TxnError::StatusFile { path, .. } if path.ends_with(format!("{lost:04X}"))), "{error}");
            assert!(status.set(xid(lost, 0), Status::Aborted).is_err());
        }
        // Whoever moves the next xid makes those it skips, and none that was lost.
        let moved = |from| make_files_between(dir.path(), RealDisk::shared(), SystemId::new(7), from, xid(2, 1));
        moved(xid(1, 9)).unwrap();
        assert_eq!(open(xid(2, 1)).get(xid(2, 0)).unwrap(), Status::Unknown);
        assert!(open(xid(2, 1)).get(xid(1, 0)).is_err());
        std::fs::remove_file(dir.path().join("0002")).unwrap();
        std::fs::remove_file(dir.path().join("0000")).unwrap();
        moved(Xid::FIRST_NORMAL).unwrap();
        assert!(open(xid(2, 1)).get(xid(0, 9)).is_err());
    }
}
