//! Segment files: names, making, recycling, and what a start does to the end of WAL.
//!
//! A segment is made of real blocks: zeros are written and synced before it gets its name, because a hole in a mapped file is a SIGBUS on a
//! full disk. A segment no longer needed is renamed to `spare-<name>` and later to the name of a future one, its old bytes still in it: they
//! never verify, because a record's crc covers its LSN and a file is only ever reused for higher LSNs.

use crate::disk::{Disk, DiskFile, Open};
use crate::error::WalError;
use crate::ids::{Lsn, SegNo, TimelineId};
use crate::mmap::SegmentMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SPARE: &str = "spare-";
const TEMP: &str = "new-";

/// Name of a segment file, PostgreSQL's: timeline, then segment number in two parts.
pub fn file_name(tli: TimelineId, segno: SegNo, segment_bytes: u32) -> String {
    let per_id = 0x1_0000_0000 / u64::from(segment_bytes);
    format!("{:08X}{:08X}{:08X}", tli.get(), segno.get() / per_id, segno.get() % per_id)
}

/// The segment whose file has this name.
pub fn parse_file_name(name: &str, segment_bytes: u32) -> Option<(TimelineId, SegNo)> {
    if !is_file_name(name) {
        return None;
    }
    let part = |at: usize| u32::from_str_radix(&name[at..at + 8], 16).ok();
    let per_id = 0x1_0000_0000 / u64::from(segment_bytes);
    let (tli, high, low) = (part(0)?, part(8)?, part(16)?);
    if u64::from(low) >= per_id {
        return None;
    }
    Some((TimelineId::new(tli), SegNo::new(u64::from(high) * per_id + u64::from(low))))
}

/// True for 24 upper-case hexadecimal digits.
pub fn is_file_name(name: &str) -> bool {
    name.len() == 24 && name.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
}

/// A power of two from 1 MB to 1 GB.
pub fn is_valid_segment_bytes(bytes: u32) -> bool {
    bytes.is_power_of_two() && (crate::format::SEGMENT_MIN_BYTES..=crate::format::SEGMENT_MAX_BYTES).contains(&bytes)
}

/// A mapped segment of the live WAL.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) segno: SegNo,
    pub(crate) start: Lsn,
    pub(crate) end: Lsn,
    pub(crate) path: PathBuf,
    pub(crate) map: Arc<SegmentMap>,
}

impl Segment {
    /// Offset of `lsn` in the segment; its length if `lsn` lies behind, 0 if before.
    pub(crate) fn offset(&self, lsn: Lsn) -> usize {
        let lsn = lsn.clamp(self.start, self.end);
        usize::try_from(lsn.as_u64() - self.start.as_u64()).expect("a segment has at most 2^30 bytes")
    }
}

/// `pg_wal` and what is in it.
#[derive(Debug, Clone)]
pub struct SegmentDir {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) segment_bytes: u32,
}

impl SegmentDir {
    /// The directory `dir`, which exists.
    pub fn new(disk: Arc<dyn Disk>, dir: impl Into<PathBuf>, segment_bytes: u32) -> Self {
        Self { disk, dir: dir.into(), segment_bytes }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Path of a segment.
    pub fn segment_path(&self, tli: TimelineId, segno: SegNo) -> PathBuf {
        self.dir.join(file_name(tli, segno, self.segment_bytes))
    }

    /// All segments here, in order of timeline and number.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn segments(&self) -> Result<Vec<(TimelineId, SegNo)>, WalError> {
        Ok(self.names()?.iter().filter_map(|n| parse_file_name(n, self.segment_bytes)).collect())
    }

    fn names(&self) -> Result<Vec<String>, WalError> {
        self.disk.list(&self.dir).map_err(|e| WalError::io("list", &self.dir, e))
    }

    /// Files that wait to be used again.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn spares(&self) -> Result<Vec<PathBuf>, WalError> {
        Ok(self.names()?.iter().filter(|n| n.starts_with(SPARE)).map(|n| self.dir.join(n)).collect())
    }

    /// Makes a segment ready to be written, from a spare or from zeros, and maps it.
    pub(crate) fn install(&self, tli: TimelineId, segno: SegNo) -> Result<Segment, WalError> {
        let path = self.segment_path(tli, segno);
        let from = self.spare_or_new()?;
        self.disk.rename(&from, &path).map_err(|e| WalError::io("rename", &from, e))?;
        // The name must last before a byte in the file is called durable.
        self.disk.sync_dir(&self.dir).map_err(|e| WalError::io("sync", &self.dir, e))?;
        self.map(tli, segno, Lsn::INVALID)
    }

    /// Maps an existing segment; its bytes below `upto` are readable, the rest is to be written.
    pub(crate) fn map(&self, tli: TimelineId, segno: SegNo, upto: Lsn) -> Result<Segment, WalError> {
        let path = self.segment_path(tli, segno);
        let io = |action, e| WalError::io(action, &path, e);
        let file = self.disk.open(&path, Open::Write).map_err(|e| io("open", e))?;
        let map = Arc::new(file.map(self.segment_usize()).map_err(|e| io("map", e))?);
        file.mapped(&map);
        let (start, end) = (segno.start_lsn(self.segment_bytes), segno.end_lsn(self.segment_bytes));
        let segment = Segment { segno, start, end, path, map };
        segment.map.begin_at(segment.offset(upto));
        Ok(segment)
    }

    fn segment_usize(&self) -> usize {
        usize::try_from(self.segment_bytes).expect("a segment has at most 2^30 bytes")
    }

    fn spare_or_new(&self) -> Result<PathBuf, WalError> {
        for spare in self.spares()? {
            let bytes = self.disk.open(&spare, Open::Read).and_then(|f| f.len());
            if bytes.map_err(|e| WalError::io("open", &spare, e))? == u64::from(self.segment_bytes) {
                return Ok(spare);
            }
            self.disk.remove(&spare).map_err(|e| WalError::io("remove", &spare, e))?;
        }
        let path = self.dir.join(format!("{TEMP}{}", std::process::id()));
        let io = |action, e| WalError::io(action, &path, e);
        let file = self.disk.open(&path, Open::Truncate).map_err(|e| io("create", e))?;
        file.allocate(u64::from(self.segment_bytes)).map_err(|e| io("allocate", e))?;
        self.write_zeros(&*file, 0).map_err(|e| io("write", e))?;
        file.sync_data().map_err(|e| io("sync", e))?;
        Ok(path)
    }

    fn write_zeros(&self, file: &dyn DiskFile, from: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let (mut at, end) = (from, u64::from(self.segment_bytes));
        while at < end {
            let n = (end - at).min(ZEROS.len() as u64);
            file.write_at(&ZEROS[..usize::try_from(n).unwrap_or(ZEROS.len())], at)?;
            at += n;
        }
        Ok(())
    }

    /// Gives a segment back: a spare if fewer than `max_spares` exist, else removed.
    pub(crate) fn recycle(&self, tli: TimelineId, segno: SegNo, max_spares: usize) -> Result<(), WalError> {
        let path = self.segment_path(tli, segno);
        if self.spares()?.len() < max_spares {
            let name = file_name(tli, segno, self.segment_bytes);
            let spare = self.dir.join(format!("{SPARE}{name}"));
            // Not synced: if a crash brings the old name back, it is recycled again.
            self.disk.rename(&path, &spare).map_err(|e| WalError::io("rename", path, e))
        } else {
            self.disk.remove(&path).map_err(|e| WalError::io("remove", path, e))
        }
    }

    /// Removes spares that may hold bytes of `from` or later: used again they would lie where they verify.
    pub(crate) fn drop_spares_from(&self, from: SegNo) -> Result<(), WalError> {
        for name in self.names()? {
            let life = name.strip_prefix(SPARE).map(|n| parse_file_name(n, self.segment_bytes));
            let unsafe_spare = match life {
                Some(Some((_, segno))) => segno >= from,
                Some(None) => true,
                None => name.starts_with(TEMP),
            };
            if unsafe_spare {
                let path = self.dir.join(name);
                self.disk.remove(&path).map_err(|e| WalError::io("remove", path, e))?;
            }
        }
        Ok(())
    }

    /// Makes `end` the end of WAL on `tli` for good, before the first new byte is written.
    ///
    /// What lies between `durable` and `end` is written and synced again (after a crash or a failed sync the page cache proves nothing), the
    /// rest of the last segment becomes zeros, later segments of the timeline are removed, and all that is synced.
    ///
    /// # Errors
    /// [`WalError::Io`]; [`WalError::SegmentMissing`] if the segment that `end` lies in is not there.
    pub fn prepare_end(&self, tli: TimelineId, end: Lsn, durable: Lsn) -> Result<(), WalError> {
        let size = u64::from(self.segment_bytes);
        let last = SegNo::of_end(end, self.segment_bytes);
        // Later segments first: after a crash between, the end is found again from what is still there.
        for (t, segno) in self.segments()? {
            if t == tli && segno > last {
                let path = self.segment_path(t, segno);
                self.disk.remove(&path).map_err(|e| WalError::io("remove", path, e))?;
            }
        }
        self.drop_spares_from(last)?;
        self.disk.sync_dir(&self.dir).map_err(|e| WalError::io("sync", &self.dir, e))?;
        let first = SegNo::of(durable.min(end), self.segment_bytes);
        let mut here: Vec<SegNo> =
            self.segments()?.into_iter().filter(|&(t, n)| t == tli && n >= first && n <= last).map(|(_, n)| n).collect();
        here.sort_unstable();
        // At a boundary nothing is left to be written, and a standby may begin there with no WAL at all.
        if here.last() != Some(&last) && !end.as_u64().is_multiple_of(size) {
            return Err(WalError::SegmentMissing { segno: last, tli });
        }
        for segno in here {
            let path = self.segment_path(tli, segno);
            let io = |action, e| WalError::io(action, &path, e);
            let file = self.disk.open(&path, Open::Write).map_err(|e| io("open", e))?;
            let start = segno.start_lsn(self.segment_bytes).as_u64();
            let from = durable.as_u64().saturating_sub(start).min(size);
            let upto = end.as_u64().saturating_sub(start).min(size);
            let mut buf = vec![0; 256 << 10];
            let mut at = from & !4095;
            while at < upto {
                let want = usize::try_from((upto - at).min(buf.len() as u64)).unwrap_or(buf.len());
                let n = file.read_at(&mut buf[..want], at).map_err(|e| io("read", e))?;
                if n == 0 {
                    break;
                }
                file.write_at(&buf[..n], at).map_err(|e| io("write", e))?;
                at += n as u64;
            }
            if upto < size {
                self.write_zeros(&*file, upto).map_err(|e| io("write", e))?;
            }
            file.sync_data().map_err(|e| io("sync", e))?;
        }
        Ok(())
    }

    /// Makes the first segment of `new_tli`: the parent's bytes up to `switch_lsn`, then nothing that verifies. Nothing to do at a boundary.
    ///
    /// Complete and synced before it gets its name, so a crash leaves all of it or nothing.
    pub(crate) fn fork(&self, parent: TimelineId, new_tli: TimelineId, switch_lsn: Lsn) -> Result<(), WalError> {
        let segno = SegNo::of(switch_lsn, self.segment_bytes);
        let upto = switch_lsn.as_u64() - segno.start_lsn(self.segment_bytes).as_u64();
        if upto == 0 {
            return Ok(());
        }
        let (from, to) = (self.segment_path(parent, segno), self.segment_path(new_tli, segno));
        let source = self.disk.open(&from, Open::Read).map_err(|e| WalError::io("open", &from, e))?;
        let temp = self.dir.join(format!("{TEMP}{}", std::process::id()));
        let io = |action, e| WalError::io(action, &temp, e);
        // A promotion waits for this: the parent's next segment, made ready and now of no use to it, saves writing and syncing the zeros. Bytes
        // of an earlier life in it lie at other LSNs, as in a spare.
        let next = self.segment_path(parent, segno.next());
        let ready = self.disk.open(&next, Open::Read).and_then(|f| f.len()).is_ok_and(|bytes| bytes == u64::from(self.segment_bytes));
        let file = if ready {
            self.disk.rename(&next, &temp).map_err(|e| WalError::io("rename", &next, e))?;
            self.disk.open(&temp, Open::Write).map_err(|e| io("open", e))?
        } else {
            let file = self.disk.open(&temp, Open::Truncate).map_err(|e| io("create", e))?;
            file.allocate(u64::from(self.segment_bytes)).map_err(|e| io("allocate", e))?;
            self.write_zeros(&*file, upto).map_err(|e| io("write", e))?;
            file
        };
        let mut buf = vec![0; 256 << 10];
        let mut at = 0;
        while at < upto {
            let want = usize::try_from((upto - at).min(buf.len() as u64)).unwrap_or(buf.len());
            let n = source.read_at(&mut buf[..want], at).map_err(|e| WalError::io("read", &from, e))?;
            if n == 0 {
                return Err(WalError::BadFile { path: from, what: "segment is shorter than the switch point" });
            }
            file.write_at(&buf[..n], at).map_err(|e| io("write", e))?;
            at += n as u64;
        }
        file.sync_data().map_err(|e| io("sync", e))?;
        self.disk.rename(&temp, &to).map_err(|e| io("rename", e))?;
        self.disk.sync_dir(&self.dir).map_err(|e| WalError::io("sync", &self.dir, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_postgresql() {
        let s = 16 << 20;
        assert_eq!(file_name(TimelineId::new(1), SegNo::new(1), s), "000000010000000000000001");
        assert_eq!(file_name(TimelineId::new(0x2a), SegNo::new(0x1ff), s), "0000002A00000001000000FF");
        assert_eq!(parse_file_name("0000002A00000001000000FF", s), Some((TimelineId::new(0x2a), SegNo::new(0x1ff))));
        for bad in ["0000002A0000000100000100", "0000002a00000001000000FF", "x", "00000001000000000000000G"] {
            assert_eq!(parse_file_name(bad, s), None, "{bad}");
        }
        assert!(is_valid_segment_bytes(1 << 20) && !is_valid_segment_bytes(3 << 20) && !is_valid_segment_bytes(1 << 19));
    }
}
