//! Mapped segments: write once, publish, sync. The only unsafe code of the project.
//!
//! A [`SegmentMap`] has two frontiers. `claimed`: bytes below it were handed out to a writer as a [`Claim`], each byte once.
//! `readable`: bytes below it are written for good; only they are ever read. `readable <= claimed`.

use memmap2::{MmapOptions, MmapRaw};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What makes a range of a map durable. The real one is `msync`.
pub trait MapSync: Send + Sync {
    /// Makes `range` durable; `bytes` are its contents.
    ///
    /// # Errors
    /// Those of the disk.
    fn sync(&self, range: Range<usize>, bytes: &[u8]) -> io::Result<()>;
}

/// A segment file in memory.
pub struct SegmentMap {
    map: MmapRaw,
    /// End of what writers were given. Advanced by compare-exchange: no byte is given twice.
    claimed: AtomicUsize,
    /// End of what readers may see. Release in `publish`, Acquire in `bytes`.
    readable: AtomicUsize,
    /// None: `msync`.
    sync: Option<Box<dyn MapSync>>,
}

impl fmt::Debug for SegmentMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentMap").field("len", &self.map.len()).field("readable", &self.readable).finish_non_exhaustive()
    }
}

impl SegmentMap {
    /// Maps the first `bytes` of a file that has them as real blocks and that nothing truncates while it is mapped.
    pub(crate) fn of_file(file: &File, bytes: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(bytes).map_raw(file)?;
        Ok(Self { map, claimed: AtomicUsize::new(0), readable: AtomicUsize::new(0), sync: None })
    }

    /// Memory that stands for a file, for simulated disks. `contents` are its first bytes.
    ///
    /// # Errors
    /// Those of the system.
    pub fn of_memory(bytes: usize, contents: &[u8], sync: Box<dyn MapSync>) -> io::Result<Self> {
        let mut map = MmapOptions::new().len(bytes).map_anon()?;
        let n = contents.len().min(bytes);
        map[..n].copy_from_slice(&contents[..n]);
        Ok(Self { map: map.into(), claimed: AtomicUsize::new(0), readable: AtomicUsize::new(0), sync: Some(sync) })
    }

    /// Bytes in the map.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// True for a map of nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Declares the first `upto` bytes written by an earlier life of the file: readable, never to be written again.
    ///
    /// Does nothing if that much was claimed already.
    pub(crate) fn begin_at(&self, upto: usize) {
        let upto = upto.min(self.len());
        if self.claimed.compare_exchange(0, upto, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.readable.store(upto, Ordering::Release);
        }
    }

    /// The right to write `range` once. Ranges are claimed in ascending order.
    ///
    /// # Panics
    /// If part of the range was claimed before, or lies outside: a bug in reserving, which must not reach the disk.
    pub(crate) fn claim(self: &Arc<Self>, range: Range<usize>) -> Claim {
        assert!(range.start <= range.end && range.end <= self.len(), "claim outside the segment");
        let claimed = self.claimed.load(Ordering::Acquire);
        assert!(
            claimed <= range.start && self.claimed.compare_exchange(claimed, range.end, Ordering::AcqRel, Ordering::Acquire).is_ok(),
            "bytes of the WAL claimed twice"
        );
        Claim { map: Arc::clone(self), at: range.start, end: range.end }
    }

    /// Makes bytes below `upto` readable. The caller has seen every claim below `upto` written and dropped.
    pub(crate) fn publish(&self, upto: usize) {
        let upto = upto.min(self.claimed.load(Ordering::Acquire));
        self.readable.fetch_max(upto, Ordering::AcqRel);
    }

    /// Bytes below this are readable.
    pub fn readable(&self) -> usize {
        self.readable.load(Ordering::Acquire)
    }

    /// The bytes of `range`, if all of them are readable.
    pub fn bytes(&self, range: Range<usize>) -> Option<&[u8]> {
        if range.start > range.end || range.end > self.readable.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: `range.end <= readable <= claimed <= len`, so the pointer stays inside the map.
        let start = unsafe { self.map.as_ptr().add(range.start) };
        // SAFETY: the bytes lie inside the map (above), which lives as long as `self`. They are initialised and never change again: a `Claim`
        // is the only way to write, no byte is claimed twice, and `publish` moves `readable` only past claims that were dropped (its caller
        // upholds that: `insert.rs` publishes in order of completion). The Acquire load pairs with `publish`. The file has real blocks for
        // its whole length (`segment.rs` writes zeros) and nothing truncates it while mapped, so reading cannot raise SIGBUS.
        Some(unsafe { std::slice::from_raw_parts(start, range.end - range.start) })
    }

    /// Makes a readable range durable.
    ///
    /// # Errors
    /// Those of the disk; the first is final. A range that is not readable is `InvalidInput`.
    pub(crate) fn sync(&self, range: Range<usize>) -> io::Result<()> {
        let Some(bytes) = self.bytes(range.clone()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        match &self.sync {
            Some(s) => s.sync(range, bytes),
            None => self.map.flush_range(range.start, range.end - range.start),
        }
    }
}

/// The right to write some bytes of a segment, once, front to back.
#[derive(Debug)]
pub(crate) struct Claim {
    map: Arc<SegmentMap>,
    at: usize,
    end: usize,
}

impl Claim {
    /// Bytes that are still to be written.
    pub(crate) fn room(&self) -> usize {
        self.end - self.at
    }

    /// Writes the next bytes.
    ///
    /// # Panics
    /// If there is no room for them.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "WAL bytes outside their claim");
        // SAFETY: `at <= end <= len` of the map, checked when claimed.
        let to = unsafe { self.map.map.as_mut_ptr().add(self.at) };
        // SAFETY: `to` has room for `bytes` inside the map (asserted above). No one else writes here: these bytes were claimed by `self` alone.
        // No one reads here: `readable` passes them only after this claim was dropped. `bytes` is not inside the map: a claimed
        // range is never lent out as a slice before. Writing cannot raise SIGBUS, see `SegmentMap::bytes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        self.at += bytes.len();
    }

    /// Writes zeros up to the end of the claim.
    pub(crate) fn fill_zero(&mut self) {
        // SAFETY: `at <= end <= len` of the map, checked when claimed.
        let to = unsafe { self.map.map.as_mut_ptr().add(self.at) };
        // SAFETY: `to..end` lies inside the map and is claimed by `self` alone, as in `put`.
        unsafe { std::ptr::write_bytes(to, 0, self.end - self.at) };
        self.at = self.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Never;
    impl MapSync for Never {
        fn sync(&self, _: Range<usize>, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_published_bytes_are_readable() {
        let map = SegmentMap::of_memory(4096, b"old", Box::new(Never)).map(Arc::new).unwrap();
        map.begin_at(3);
        assert_eq!(map.bytes(0..3), Some(&b"old"[..]));
        let mut claim = map.claim(8..16);
        claim.put(b"12345");
        claim.fill_zero();
        assert_eq!(map.bytes(0..16), None);
        map.publish(16);
        assert_eq!(map.bytes(8..16), Some(&b"12345\0\0\0"[..]));
    }

    #[test]
    #[should_panic(expected = "claimed twice")]
    fn no_byte_is_claimed_twice() {
        let map = SegmentMap::of_memory(4096, b"", Box::new(Never)).map(Arc::new).unwrap();
        map.claim(0..16);
        map.claim(8..24);
    }
}
