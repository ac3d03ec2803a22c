//! Which start wrote what: up to where two nodes hold the same WAL.
//!
//! Every start of a writer draws an id and logs it with the position where it began. WAL of one start id is one node's work, so two nodes
//! that know the same id hold the same bytes up to where the first of them left it. Timelines alone do not tell: a primary that lost its
//! tail in a crash, or was restored, goes on under the same timeline with other bytes at the same LSNs.

use crate::disk::{Disk, Open};
use crate::error::WalError;
use crate::format::{SEGMENT_HEADER_BYTES, SegmentHeader, StartRecord};
use crate::history::History;
use crate::ids::{Lsn, SegNo, StartId, SystemId};
use crate::insert::WalEnd;
use crate::reader::{ReadStop, StopReason, WalReader};
use crate::{rmgr, segment};
use std::path::Path;
use std::sync::Arc;

/// What another node says about the end of its WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// End of its last record.
    pub end: Lsn,
    /// Start id in force there.
    pub start_id: StartId,
    /// Checksum of that record; 0 if it does not know.
    pub last_crc: u32,
}

/// How the WAL of another node relates to ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// All of it is ours too.
    All,
    /// It goes on behind ours, under the start id that ours ends with.
    Ahead,
    /// It is ours up to here; what follows there was never, or is no longer, part of our history.
    UpTo(Lsn),
    /// Its last record was written by a start that our WAL does not know, or knows with other bytes.
    Foreign,
    /// Our WAL that could tell is gone.
    Unknown,
}

/// Segment files along a history, to be looked at.
#[derive(Debug, Clone)]
pub struct Lineage<'a> {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// `pg_wal`.
    pub dir: &'a Path,
    /// The cluster.
    pub system_id: SystemId,
    /// Size of segments.
    pub segment_bytes: u32,
    /// The history to read along.
    pub history: &'a History,
}

impl Lineage<'_> {
    /// Compares another node's claim with our WAL, which is durable up to `flushed`.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn compare(&self, claim: &Claim, flushed: Lsn) -> Result<Shared, WalError> {
        let at = claim.end.min(flushed);
        let scan = match self.scan_to(at)? {
            Ok(scan) => scan,
            // Gone, or not readable up to where it was durable: recovery judges that, not this.
            Err(_) => return Ok(Shared::Unknown),
        };
        let ends_there = scan.end.end == at;
        if ends_there && scan.end.start_id == claim.start_id {
            if claim.end > at {
                return Ok(Shared::Ahead);
            }
            let same = claim.last_crc == 0 || scan.end.last_crc == 0 || claim.last_crc == scan.end.last_crc;
            return Ok(if same { Shared::All } else { Shared::Foreign });
        }
        // Where did that start end with us? Found in its successor's record.
        let left = |starts: &[StartRecord]| starts.iter().rev().find(|s| s.previous == claim.start_id).map(|s| s.at);
        let mut found = left(&scan.starts);
        let mut segno = scan.first;
        let mut later = self.header(segno)?.map(|h| h.start_id);
        while found.is_none() && segno > SegNo::FIRST {
            segno = SegNo::new(segno.get() - 1);
            let Some(header) = self.header(segno)? else { break };
            // A segment in which no start lies needs no reading.
            if later != Some(header.start_id) {
                found = self.scan(segno, segno.end_lsn(self.segment_bytes))?.ok().and_then(|scan| left(&scan.starts));
            }
            later = Some(header.start_id);
        }
        Ok(match found {
            Some(point) if point < claim.end => Shared::UpTo(point),
            _ => Shared::Foreign,
        })
    }

    /// Our WAL as it ends at `at`.
    ///
    /// # Errors
    /// [`WalError::Io`]; [`WalError::NotARecordEnd`].
    pub fn end_at(&self, at: Lsn) -> Result<WalEnd, WalError> {
        let not_there = |what| WalError::NotARecordEnd { at, tli: self.history.tli_of_end(at), what };
        match self.scan_to(at)? {
            Ok(scan) if scan.end.end == at => Ok(scan.end),
            Ok(_) => Err(not_there(StopReason::Limit)),
            Err(stop) => Err(not_there(stop.reason)),
        }
    }

    /// Reads the segment that ends or holds `at`, and the one before it if it is here: `at` may end a record that began there.
    fn scan_to(&self, at: Lsn) -> Result<Result<Scan, ReadStop>, WalError> {
        let mut first = SegNo::of_end(at, self.segment_bytes);
        if first > SegNo::FIRST {
            let before = SegNo::new(first.get() - 1);
            if self.header(before)?.is_some() {
                first = before;
            }
        }
        self.scan(first, at)
    }

    fn scan(&self, first: SegNo, upto: Lsn) -> Result<Result<Scan, ReadStop>, WalError> {
        let from = first.start_lsn(self.segment_bytes);
        let mut reader = WalReader::open(Arc::clone(&self.disk), self.dir, self.system_id, self.segment_bytes, self.history.clone(), from);
        reader.set_limit(upto);
        let mut starts = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(record)) => {
                    if record.rmgr() == rmgr::XLOG && record.kind() == rmgr::xlog::START {
                        starts.extend(StartRecord::decode(record.main()));
                    }
                }
                Ok(None) => break,
                Err(ReadStop { reason: StopReason::Limit, .. }) => break,
                Err(ReadStop { reason: StopReason::Io { segno, source }, .. }) => {
                    let path = self.dir.join(segment::file_name(self.history.tli(), segno, self.segment_bytes));
                    return Err(WalError::Io { action: "read", path, source });
                }
                Err(stop) => return Ok(Err(stop)),
            }
        }
        Ok(Ok(Scan { first, end: reader.end(), starts }))
    }

    /// The header of a segment of our history, if it is here and valid.
    fn header(&self, segno: SegNo) -> Result<Option<SegmentHeader>, WalError> {
        let start = segno.start_lsn(self.segment_bytes);
        // The first segment of a timeline begins with its parent's header.
        let newest = self.history.tli_at(Lsn::new(segno.end_lsn(self.segment_bytes).as_u64() - 1));
        for tli in [newest, self.history.tli_at(start)] {
            let path = self.dir.join(segment::file_name(tli, segno, self.segment_bytes));
            let file = match self.disk.open(&path, Open::Read) {
                Ok(file) => file,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(WalError::io("open", path, e)),
            };
            let mut bytes = [0; SEGMENT_HEADER_BYTES];
            let n = file.read_at(&mut bytes, 0).map_err(|e| WalError::io("read", &path, e))?;
            let header = if n == bytes.len() { SegmentHeader::decode(&bytes).ok() } else { None };
            if let Some(header) = header.filter(|h| h.system_id == self.system_id && h.segno == segno) {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }
}

/// What reading a few segments found.
struct Scan {
    first: SegNo,
    end: WalEnd,
    starts: Vec<StartRecord>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use crate::ids::Xid;
    use crate::insert::{Wal, WalOptions};
    use crate::record::RecordBuilder;

    const SEGMENT: u32 = 1 << 20;

    fn options() -> WalOptions {
        WalOptions { segment_bytes: SEGMENT, ..WalOptions::default() }
    }

    fn noise(wal: &Wal, records: usize) -> Lsn {
        let mut end = Lsn::INVALID;
        for n in 0..records {
            let mut record = RecordBuilder::new(rmgr::XLOG, rmgr::xlog::NOOP, Xid::INVALID);
            record.main(&vec![1; 100 + n % 500]);
            end = wal.insert(&record).unwrap().end;
        }
        wal.flush(end).unwrap();
        end
    }

    fn lineage<'a>(dir: &'a Path, history: &'a History) -> Lineage<'a> {
        Lineage { disk: RealDisk::shared(), dir, system_id: SystemId::new(7), segment_bytes: SEGMENT, history }
    }

    /// Opens the WAL again at `end`, as a crash that lost everything behind it, and writes on under a new start.
    fn reopen(dir: &Path, end: WalEnd) -> Arc<Wal> {
        let wal = Wal::open(RealDisk::shared(), dir, SystemId::new(7), end, options()).unwrap();
        wal.begin_writing(StartId::draw()).unwrap();
        wal
    }

    #[test]
    fn the_common_point_is_where_the_last_shared_start_ended() {
        let dir = tempfile::tempdir().unwrap();
        let history = History::first();
        let here = lineage(dir.path(), &history);
        let wal = Wal::create(RealDisk::shared(), dir.path(), SystemId::new(7), options()).unwrap();
        let early = noise(&wal, 100);
        let common = noise(&wal, 6000);
        let lost = noise(&wal, 50);
        let claim = |at: Lsn| {
            let end = here.end_at(at).unwrap();
            Claim { end: at, start_id: end.start_id, last_crc: end.last_crc }
        };
        let (early, shared, ahead) = (claim(early), claim(common), claim(lost));
        let kept = here.end_at(common).unwrap();
        assert_eq!(here.compare(&ahead, lost).unwrap(), Shared::All);
        drop(wal);
        // The tail behind `common` is lost; other bytes take its place, over several starts and segments.
        let mut end = kept;
        for _ in 0..3 {
            let wal = reopen(dir.path(), end);
            let at = noise(&wal, 4000);
            drop(wal);
            end = here.end_at(at).unwrap();
        }
        let flushed = end.end;
        assert!(flushed > lost);
        assert_eq!(here.compare(&early, flushed).unwrap(), Shared::All);
        assert_eq!(here.compare(&shared, flushed).unwrap(), Shared::All);
        assert_eq!(here.compare(&ahead, flushed).unwrap(), Shared::UpTo(common));
        assert_eq!(here.compare(&Claim { start_id: StartId::draw(), ..ahead }, flushed).unwrap(), Shared::Foreign);
        assert_eq!(here.compare(&Claim { last_crc: shared.last_crc ^ 1, ..shared }, flushed).unwrap(), Shared::Foreign);
        let ours = claim(flushed);
        let further = Claim { end: flushed.advance(800), ..ours };
        assert_eq!(here.compare(&further, flushed).unwrap(), Shared::Ahead);
        // With the segments gone that could tell, nothing is claimed.
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|n| segment::is_file_name(n.to_str().unwrap())) {
                std::fs::remove_file(path).unwrap();
            }
        }
        assert_eq!(here.compare(&shared, flushed).unwrap(), Shared::Unknown);
    }
}
