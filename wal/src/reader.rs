//! Reads records forward and says why it stopped.
//!
//! One [`Decoder`] serves recovery, senders, `waldump` and the receiver; what differs is the [`Source`] of bytes. A stop has a reason (what was found);
//! what it means is decided by [`judge`] from evidence of what must have been durable:
//!
//! - `pg_wal/flushed` and the consistent point: WAL below them was synced on this node.
//! - Flushed marks in commit records and segment headers that lie behind the stop, if this node itself wrote them.
//!
//! A stop below such a mark is damage; recovery refuses to start. Otherwise it is the torn tail of a crash, or the clean end.

use crate::disk::{Disk, DiskFile, Open};
use crate::error::WalError;
use crate::flush::FlushedMark;
use crate::format::{self, BadSegmentHeader, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, StartRecord};
use crate::history::History;
use crate::ids::{Lsn, SegNo, StartId, SystemId, TimelineId};
use crate::insert::{Wal, WalEnd};
use crate::record::Record;
use crate::rmgr;
use crate::segment;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where and why reading stopped.
#[derive(Debug, Clone, thiserror::Error)]
#[error("WAL of timeline {tli} ends at {at}: {reason}")]
pub struct ReadStop {
    /// End of the last good record.
    pub at: Lsn,
    /// Timeline that the missing bytes belong to.
    pub tli: TimelineId,
    /// Timeline that was read towards: `tli` or a later one of its history.
    pub target: TimelineId,
    /// What was found there.
    pub reason: StopReason,
}

/// What was found where the next record should be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StopReason {
    /// Zeros: nothing was ever written here.
    #[error("nothing follows")]
    Zeros,
    /// A length that no record has.
    #[error("invalid record length {found}")]
    Length {
        /// Found.
        found: u32,
    },
    /// A header no writer writes.
    #[error("invalid resource manager {rmgr} or flags {flags:#04x}")]
    Header {
        /// Found.
        rmgr: u8,
        /// Found.
        flags: u8,
    },
    /// The back link does not lead to the record before.
    #[error("record with incorrect prev-link {found}, expected {expected}")]
    Prev {
        /// Found.
        found: Lsn,
        /// Start of the record before.
        expected: Lsn,
    },
    /// Stored bytes and checksum disagree.
    #[error("incorrect checksum in record: stored {stored:#010x}, computed {computed:#010x}")]
    Crc {
        /// In the record.
        stored: u32,
        /// Of the record.
        computed: u32,
    },
    /// Bytes that are always zero are not.
    #[error("padding of record is not zero")]
    Padding,
    /// The checksum is right, the body does not parse.
    #[error("{0}")]
    Body(#[from] crate::record::BadBody),
    /// No file for the next bytes.
    #[error("WAL segment {segno} is missing")]
    SegmentMissing {
        /// Which.
        segno: SegNo,
    },
    /// The file is too short.
    #[error("WAL segment {segno} has only {bytes} bytes")]
    SegmentShort {
        /// Which.
        segno: SegNo,
        /// Its length.
        bytes: u64,
    },
    /// The header of the segment is not what it should be.
    #[error("WAL segment {segno}: {what}")]
    SegmentHeader {
        /// Which.
        segno: SegNo,
        /// What is wrong.
        what: BadSegmentHeader,
    },
    /// The end that was asked for.
    #[error("end of the range asked for")]
    Limit,
    /// The file could not be read.
    #[error("could not read WAL segment {segno}: {source}")]
    Io {
        /// Which.
        segno: SegNo,
        /// Why not.
        source: Arc<io::Error>,
    },
}

/// Why a source has no bytes.
#[derive(Debug)]
pub enum Unavailable {
    /// There may be more later.
    NotYet,
    /// There will not.
    Stop(StopReason),
}

/// Where a decoder gets bytes.
pub trait Source {
    /// Bytes from `lsn` on, at least one, none past the segment's end.
    ///
    /// # Errors
    /// Why there are none.
    fn bytes(&mut self, lsn: Lsn) -> Result<&[u8], Unavailable>;

    /// Checks the timeline in the header of a segment.
    ///
    /// # Errors
    /// The timeline it should be.
    fn timeline_fits(&self, segno: SegNo, found: TimelineId) -> Result<(), TimelineId>;
}

/// What one read leads to.
type Advance<T> = Result<T, Unavailable>;

impl From<StopReason> for Unavailable {
    fn from(reason: StopReason) -> Self {
        Self::Stop(reason)
    }
}

/// Finds records in bytes and verifies them.
#[derive(Debug, Clone)]
pub struct Decoder {
    segment_bytes: u32,
    system_id: SystemId,
    state: State,
    /// The current record, without padding and the segment headers between.
    buf: Vec<u8>,
    header: RecordHeader,
    start: Lsn,
    /// End of the record that was found incomplete.
    needs: Lsn,
    last_header: Option<SegmentHeader>,
    /// Checksums of records are verified.
    verifies: bool,
}

/// Where a decoder stands; part of it moves only with a whole record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    at: Lsn,
    /// Start of the last record; none: not known.
    prev: Option<Lsn>,
    last_crc: u32,
    start_id: StartId,
    /// Largest flushed mark seen in records and segment headers.
    mark: Lsn,
}

impl Decoder {
    /// Expects a record at or right behind `at`, the end of the record before.
    pub fn new(segment_bytes: u32, system_id: SystemId, at: Lsn) -> Self {
        Self {
            segment_bytes,
            system_id,
            state: State { at, prev: None, last_crc: 0, start_id: StartId::NONE, mark: Lsn::INVALID },
            buf: Vec::new(),
            header: RecordHeader::decode(&[0; RECORD_HEADER_BYTES]),
            start: Lsn::INVALID,
            needs: Lsn::INVALID,
            last_header: None,
            verifies: true,
        }
    }

    pub(crate) fn continue_from(&mut self, end: &WalEnd) {
        self.state.prev = end.last_start.is_valid().then_some(end.last_start);
        self.state.last_crc = end.last_crc;
        self.state.start_id = end.start_id;
    }

    pub(crate) fn clone_position(&self) -> State {
        self.state
    }

    pub(crate) fn restore_position(&mut self, state: State) {
        self.state = state;
    }

    /// End of the last record.
    pub fn position(&self) -> Lsn {
        self.state.at
    }

    /// Checksum of the last record.
    pub fn last_crc(&self) -> u32 {
        self.state.last_crc
    }

    /// Start of the last record, or [`Lsn::INVALID`].
    pub fn last_start(&self) -> Lsn {
        self.state.prev.unwrap_or(Lsn::INVALID)
    }

    /// Start id in force.
    pub fn start_id(&self) -> StartId {
        self.state.start_id
    }

    /// After an incomplete record: where it ends.
    pub(crate) fn needs(&self) -> Lsn {
        self.needs
    }

    /// Finds the next record; false if the source has not enough bytes yet. Then, and after an error, the position is unchanged.
    ///
    /// # Errors
    /// What was found instead.
    pub fn advance(&mut self, source: &mut dyn Source) -> Result<bool, StopReason> {
        self.needs = Lsn::INVALID;
        match self.read_record(source) {
            Ok(()) => Ok(true),
            Err(Unavailable::NotYet) => Ok(false),
            Err(Unavailable::Stop(reason)) => Err(reason),
        }
    }

    /// The record that the last `advance` found.
    ///
    /// # Errors
    /// Never after an `advance` that was true: the body was decoded there.
    pub fn record(&self) -> Result<Record<'_>, StopReason> {
        Ok(Record::decode(self.start, self.state.at, self.header, &self.buf)?)
    }

    fn boundary(&self, lsn: Lsn) -> bool {
        lsn.as_u64().is_multiple_of(u64::from(self.segment_bytes))
    }

    fn read_record(&mut self, source: &mut dyn Source) -> Advance<()> {
        let mut start = self.state.at;
        let mut start_id = self.state.start_id;
        let mut mark = self.state.mark;
        if self.boundary(start) {
            let known = self.state.prev.map(|_| 0);
            let header = self.segment_header(source, start, known)?;
            start = start.advance(SEGMENT_HEADER_BYTES as u64);
            start_id = header.start_id;
            mark = mark.max(header.flushed_mark);
            if header.continued_bytes > 0 {
                // Reading begins here, in the middle of a record: skip the rest of it.
                return self.skip(source, start, &header);
            }
        }
        let mut cursor = Cursor { lsn: start, record: start, left: 0 };
        self.buf.clear();
        // The length lies in one segment, since records are aligned. It says what the headers of later segments must say.
        let total_bytes = self.length(source, start)?;
        let is_record = (format::RECORD_MIN_BYTES..=format::RECORD_MAX_BYTES).contains(&total_bytes);
        if !is_record {
            return Err(StopReason::Length { found: total_bytes }.into());
        }
        self.needs = format::place(self.state.at, total_bytes, self.segment_bytes).1;
        cursor.left = total_bytes;
        self.take(source, &mut cursor, RECORD_HEADER_BYTES)?;
        let head = self.buf.first_chunk().expect("that many bytes were taken");
        let header = RecordHeader::decode(head);
        if header.rmgr >= rmgr::COUNT || header.flags & !format::RECORD_KNOWN_FLAGS != 0 {
            return Err(StopReason::Header { rmgr: header.rmgr, flags: header.flags }.into());
        }
        match self.state.prev {
            Some(expected) if header.prev != expected => {
                return Err(StopReason::Prev { found: header.prev, expected }.into());
            }
            None if header.prev >= start => {
                return Err(StopReason::Prev { found: header.prev, expected: self.state.at }.into());
            }
            _ => {}
        }
        let body = usize::try_from(total_bytes).unwrap_or(usize::MAX) - RECORD_HEADER_BYTES;
        self.take(source, &mut cursor, body)?;
        if self.verifies {
            let computed = header.crc(crc32c::crc32c(&self.buf[RECORD_HEADER_BYTES..]), start);
            if computed != header.crc {
                return Err(StopReason::Crc { stored: header.crc, computed }.into());
            }
        }
        let is_switch = header.rmgr == rmgr::XLOG && header.kind == rmgr::xlog::SWITCH;
        let end = if is_switch {
            SegNo::of(start, self.segment_bytes).end_lsn(self.segment_bytes)
        } else {
            Lsn::new(cursor.lsn.as_u64().next_multiple_of(crate::ids::ALIGN))
        };
        self.needs = end;
        expect_zeros(source, cursor.lsn, end)?;
        let record = Record::decode(start, end, header, &self.buf).map_err(StopReason::from)?;
        mark = mark.max(record.flushed_mark().unwrap_or(Lsn::INVALID));
        if record.rmgr() == rmgr::XLOG
            && record.kind() == rmgr::xlog::START
            && let Some(s) = StartRecord::decode(record.main())
        {
            start_id = s.id;
        }
        self.start = start;
        self.header = header;
        self.state = State { at: end, prev: Some(start), last_crc: header.crc, start_id, mark };
        Ok(())
    }

    fn length(&self, source: &mut dyn Source, at: Lsn) -> Advance<u32> {
        let mut bytes = [0; 4];
        let mut got = 0;
        while got < 4 {
            let more = source.bytes(at.advance(got as u64))?;
            let n = more.len().min(4 - got);
            bytes[got..got + n].copy_from_slice(&more[..n]);
            got += n;
        }
        let found = u32::from_le_bytes(bytes);
        if found == 0 {
            // Zeros up to where a header would end, or the segment does: clean.
            let room = SegNo::of(at, self.segment_bytes).end_lsn(self.segment_bytes);
            let upto = at.advance(RECORD_HEADER_BYTES as u64).min(room);
            return Err(match expect_zeros(source, at, upto) {
                Ok(()) => StopReason::Zeros.into(),
                Err(Unavailable::Stop(StopReason::Padding)) => StopReason::Length { found: 0 }.into(),
                Err(e) => e,
            });
        }
        Ok(found)
    }

    /// Appends `bytes` bytes of the record to `buf`, checking the segment headers that lie between.
    fn take(&mut self, source: &mut dyn Source, cursor: &mut Cursor, bytes: usize) -> Advance<()> {
        let want = self.buf.len() + bytes;
        while self.buf.len() < want {
            if cursor.lsn != cursor.record && self.boundary(cursor.lsn) {
                let header = self.segment_header(source, cursor.lsn, Some(cursor.left))?;
                let _ = header;
                cursor.lsn = cursor.lsn.advance(SEGMENT_HEADER_BYTES as u64);
            }
            let more = source.bytes(cursor.lsn)?;
            let n = more.len().min(want - self.buf.len());
            self.buf.extend_from_slice(&more[..n]);
            cursor.lsn = cursor.lsn.advance(n as u64);
            cursor.left -= u32::try_from(n).unwrap_or(cursor.left);
        }
        Ok(())
    }

    /// Reads and checks the header of the segment that begins at `at`. `continued`: what it must say, if known.
    fn segment_header(&mut self, source: &mut dyn Source, at: Lsn, continued: Option<u32>) -> Advance<SegmentHeader> {
        let segno = SegNo::of(at, self.segment_bytes);
        if let Some(header) = self.last_header
            && header.segno == segno
            && continued.is_some()
            && continued == Some(header.continued_bytes)
        {
            return Ok(header);
        }
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let mut got = 0;
        while got < bytes.len() {
            let more = source.bytes(at.advance(got as u64))?;
            let n = more.len().min(bytes.len() - got);
            bytes[got..got + n].copy_from_slice(&more[..n]);
            got += n;
        }
        let bad = |what| Unavailable::Stop(StopReason::SegmentHeader { segno, what });
        let header = SegmentHeader::decode(&bytes).map_err(bad)?;
        if header.system_id != self.system_id {
            return Err(bad(BadSegmentHeader::SystemId { found: header.system_id, expected: self.system_id }));
        }
        if header.segment_bytes != self.segment_bytes {
            return Err(bad(BadSegmentHeader::SegmentBytes { found: header.segment_bytes, expected: self.segment_bytes }));
        }
        if header.segno != segno {
            return Err(bad(BadSegmentHeader::SegNo { found: header.segno, expected: segno }));
        }
        if let Err(expected) = source.timeline_fits(segno, header.tli) {
            return Err(bad(BadSegmentHeader::Timeline { found: header.tli, expected }));
        }
        if let Some(expected) = continued
            && header.continued_bytes != expected
        {
            return Err(bad(BadSegmentHeader::Continued { found: header.continued_bytes, expected }));
        }
        self.last_header = Some(header);
        Ok(header)
    }

    /// Moves behind the rest of a record that began before reading did.
    fn skip(&mut self, source: &mut dyn Source, from: Lsn, header: &SegmentHeader) -> Advance<()> {
        let segment_end = SegNo::of(from, self.segment_bytes).end_lsn(self.segment_bytes);
        let left = u64::from(header.continued_bytes).next_multiple_of(crate::ids::ALIGN);
        let end = from.advance(left).min(segment_end);
        self.needs = end;
        // The bytes must be there; the header of the next segment, if they go on there, says how many are left.
        let mut at = from;
        while at < end {
            let n = source.bytes(at)?.len() as u64;
            at = at.advance(n);
        }
        self.state.at = end;
        self.state.start_id = header.start_id;
        self.read_record(source)
    }
}

struct Cursor {
    lsn: Lsn,
    record: Lsn,
    left: u32,
}

fn expect_zeros(source: &mut dyn Source, from: Lsn, end: Lsn) -> Advance<()> {
    let mut at = from;
    while at < end {
        let bytes = source.bytes(at)?;
        let n = usize::try_from(end.as_u64() - at.as_u64()).unwrap_or(usize::MAX).min(bytes.len());
        let (words, rest) = bytes[..n].as_chunks::<64>();
        if words.iter().any(|w| *w != [0; 64]) || rest.iter().any(|&b| b != 0) {
            return Err(StopReason::Padding.into());
        }
        at = at.advance(n as u64);
    }
    Ok(())
}

/// Bytes read ahead.
const WINDOW_BYTES: usize = 256 << 10;

/// Segment files in a directory, along a history.
#[derive(Debug)]
struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u32,
    history: History,
    open: Option<OpenSegment>,
    window: Vec<u8>,
    window_at: Lsn,
}

#[derive(Debug)]
struct OpenSegment {
    segno: SegNo,
    file: Arc<dyn DiskFile>,
    /// Bytes below belong to our history: where the file's timeline forks away, or the segment's end.
    upto: Lsn,
}

impl Files {
    fn segment(&mut self, segno: SegNo) -> Advance<&OpenSegment> {
        if self.open.as_ref().is_none_or(|o| o.segno != segno) {
            let (start, end) = (segno.start_lsn(self.segment_bytes), segno.end_lsn(self.segment_bytes));
            self.open = None;
            // Newest timeline first: a child's first segment holds its parent's bytes too.
            let timelines = self.history.ancestors().iter().map(|a| a.tli).chain([self.history.tli()]);
            let mut candidates: Vec<_> = timelines.filter(|&t| self.history.begin_of(t).is_some_and(|b| b < end)).collect();
            candidates.reverse();
            for tli in candidates {
                let tli_end = self.history.end_of(tli).unwrap_or(Lsn::INVALID);
                if tli_end <= start {
                    break;
                }
                let path = self.dir.join(segment::file_name(tli, segno, self.segment_bytes));
                match self.disk.open(&path, Open::Read) {
                    Ok(file) => {
                        self.open = Some(OpenSegment { segno, file, upto: end.min(tli_end) });
                        break;
                    }
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => {
                        return Err(StopReason::Io { segno, source: Arc::new(e) }.into());
                    }
                }
            }
        }
        self.open.as_ref().ok_or_else(|| StopReason::SegmentMissing { segno }.into())
    }

    fn forget(&mut self) {
        self.open = None;
        self.window.clear();
        self.window_at = Lsn::INVALID;
    }
}

impl Source for Files {
    fn bytes(&mut self, lsn: Lsn) -> Advance<&[u8]> {
        let in_window = lsn.bytes_since(self.window_at).is_some_and(|n| n < self.window.len() as u64);
        if !in_window {
            let segno = SegNo::of(lsn, self.segment_bytes);
            let start = segno.start_lsn(self.segment_bytes);
            let mut window = std::mem::take(&mut self.window);
            window.clear();
            let open = self.segment(segno)?;
            let Some(room) = open.upto.bytes_since(lsn).filter(|&n| n > 0) else {
                return Err(StopReason::SegmentMissing { segno }.into());
            };
            let want = usize::try_from(room).unwrap_or(usize::MAX).min(WINDOW_BYTES);
            window.resize(want, 0);
            let io = |e| Unavailable::Stop(StopReason::Io { segno, source: Arc::new(e) });
            let n = open.file.read_at(&mut window, lsn.as_u64() - start.as_u64()).map_err(io)?;
            if n == 0 {
                let bytes = open.file.len().map_err(io)?;
                return Err(StopReason::SegmentShort { segno, bytes }.into());
            }
            window.truncate(n);
            self.window = window;
            self.window_at = lsn;
        }
        let skip = usize::try_from(lsn.as_u64() - self.window_at.as_u64()).unwrap_or(0);
        Ok(&self.window[skip..])
    }

    fn timeline_fits(&self, segno: SegNo, found: TimelineId) -> Result<(), TimelineId> {
        let expected = self.history.tli_at(segno.start_lsn(self.segment_bytes));
        let knows = !self.history.ancestors().is_empty() || expected == TimelineId::FIRST;
        // A history without ancestors may be one that is not known.
        if found == expected || (!knows && found < expected) { Ok(()) } else { Err(expected) }
    }
}

/// How far a live WAL is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowLimit {
    /// Everything readable.
    Published,
    /// Only what is durable and confirmed: what a standby replays.
    Confirmed,
}

#[derive(Debug)]
struct Live {
    wal: Arc<Wal>,
    limit: FollowLimit,
    /// The limit when the window was filled: nothing is handed out past it.
    window: Vec<u8>,
    window_at: Lsn,
}

impl Source for Live {
    fn bytes(&mut self, lsn: Lsn) -> Advance<&[u8]> {
        let in_window = lsn.bytes_since(self.window_at).is_some_and(|n| n < self.window.len() as u64);
        if !in_window {
            let limit = match self.limit {
                FollowLimit::Published => self.wal.published(),
                FollowLimit::Confirmed => self.wal.confirmed(),
            };
            let Some(room) = limit.bytes_since(lsn).filter(|&n| n > 0) else {
                return Err(Unavailable::NotYet);
            };
            let want = usize::try_from(room).unwrap_or(usize::MAX).min(WINDOW_BYTES);
            self.window.resize(want, 0);
            let segno = SegNo::of(lsn, self.wal.segment_bytes());
            let n = match self.wal.read_at(lsn, &mut self.window) {
                Ok(n) => n,
                Err(WalError::SegmentGone { .. }) => {
                    self.window.clear();
                    return Err(StopReason::SegmentMissing { segno }.into());
                }
                Err(e) => {
                    self.window.clear();
                    let source = Arc::new(io::Error::other(e));
                    return Err(StopReason::Io { segno, source }.into());
                }
            };
            self.window.truncate(n);
            self.window_at = lsn;
            if n == 0 {
                return Err(Unavailable::NotYet);
            }
        }
        let skip = usize::try_from(lsn.as_u64() - self.window_at.as_u64()).unwrap_or(0);
        Ok(&self.window[skip..])
    }

    fn timeline_fits(&self, _: SegNo, found: TimelineId) -> Result<(), TimelineId> {
        let tli = self.wal.tli();
        if found <= tli { Ok(()) } else { Err(tli) }
    }
}

#[derive(Debug)]
enum AnySource {
    Files(Files),
    Live(Live),
}

/// Reads records forward, from files or from a live WAL.
#[derive(Debug)]
pub struct WalReader {
    source: AnySource,
    decoder: Decoder,
    /// Records that begin at or behind this are not read.
    limit: Lsn,
    /// WAL below is known to be durable here.
    durable: Lsn,
    /// Whose marks count towards `durable`.
    own_starts: Vec<StartId>,
    tli: TimelineId,
    /// What came before in the first segment is still to be looked at, for the start id and the back link.
    unseeded: bool,
}

impl WalReader {
    /// Reads files in `dir` along `history`. `from` is the end of a record or the start of one: a redo LSN, a checkpoint.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, system_id: SystemId, segment_bytes: u32, history: History, from: Lsn) -> Self {
        let tli = history.tli();
        let files = Files { disk, dir: dir.to_owned(), segment_bytes, history, open: None, window: Vec::new(), window_at: Lsn::INVALID };
        Self::new(AnySource::Files(files), Decoder::new(segment_bytes, system_id, from), tli)
    }

    /// Reads a live WAL, up to `limit`. `from` as in [`open`](Self::open). [`next`](Self::next) is `Ok(None)` where nothing more is readable yet; the WAL's
    /// listeners say when to try again.
    pub fn follow(wal: Arc<Wal>, from: Lsn, limit: FollowLimit) -> Self {
        let (tli, decoder) = (wal.tli(), Decoder::new(wal.segment_bytes(), wal.system_id(), from));
        Self::new(AnySource::Live(Live { wal, limit, window: Vec::new(), window_at: Lsn::INVALID }), decoder, tli)
    }

    fn new(source: AnySource, decoder: Decoder, tli: TimelineId) -> Self {
        let durable = decoder.position();
        let unseeded = matches!(source, AnySource::Files(_));
        Self { source, decoder, limit: Lsn::MAX, durable, own_starts: Vec::new(), tli, unseeded }
    }

    /// Goes on where another reader stopped: back link, crc and start id are carried over.
    #[must_use]
    pub fn continuing(mut self, end: &WalEnd) -> Self {
        self.unseeded = false;
        self.decoder.continue_from(end);
        self
    }

    /// Takes records as they come: for a look at WAL that another reader verifies before it is used.
    #[must_use]
    pub fn without_checksums(mut self) -> Self {
        self.decoder.verifies = false;
        self
    }

    /// Flushed marks written under these start ids, all of this node, count towards [`WalEnd::durable`].
    pub fn trust_marks_of(&mut self, own_starts: &[StartId]) {
        self.own_starts = own_starts.to_vec();
    }

    /// WAL below `lsn` is known to be durable, from `pg_wal/flushed` say.
    pub fn trust_durable(&mut self, lsn: Lsn) {
        self.durable = self.durable.max(lsn);
    }

    /// Stops, with [`StopReason::Limit`], before a record that begins at or behind `limit`.
    pub fn set_limit(&mut self, limit: Lsn) {
        self.limit = limit;
    }

    /// Moves to the first record that begins at or behind `from`, which may be any position.
    ///
    /// # Errors
    /// [`ReadStop`] if there is none.
    pub fn seek(&mut self, from: Lsn) -> Result<Lsn, ReadStop> {
        let bytes = self.decoder.segment_bytes;
        let segment = SegNo::of(from, bytes).start_lsn(bytes);
        self.decoder = Decoder::new(bytes, self.decoder.system_id, segment);
        self.unseeded = false;
        loop {
            let before = self.decoder.state;
            self.advance()?;
            if self.decoder.start >= from {
                let found = self.decoder.start;
                // Read it again by `next`, without what leads to it.
                let prev = self.decoder.header.prev;
                self.decoder.state = State { at: found, prev: Some(prev), ..before };
                return Ok(found);
            }
        }
    }

    /// The next record; `Ok(None)` only in follow mode: nothing more yet. After a stop it may be called again: the files are looked at anew.
    ///
    /// # Errors
    /// Where and why it stopped.
    #[expect(clippy::should_implement_trait, reason = "lends from the reader, which an iterator cannot")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, ReadStop> {
        if !self.advance()? {
            return Ok(None);
        }
        let (at, tli) = (self.decoder.position(), self.tli);
        self.decoder.record().map(Some).map_err(|reason| ReadStop { at, tli, target: tli, reason })
    }

    /// Reads what leads to the first record in its segment: which start wrote it, and what its back link must be. As far as it goes: damage
    /// before the first record is not this reader's matter, a disk that does not answer is.
    fn seed(&mut self) -> Result<(), StopReason> {
        self.unseeded = false;
        let AnySource::Files(files) = &mut self.source else {
            return Ok(());
        };
        let (at, bytes) = (self.decoder.position(), self.decoder.segment_bytes);
        let begin = SegNo::of(at, bytes).start_lsn(bytes);
        let mut lead = Decoder::new(bytes, self.decoder.system_id, begin);
        while lead.position() < at {
            match lead.advance(files) {
                Ok(true) => {}
                Err(unread @ StopReason::Io { .. }) => {
                    files.forget();
                    self.unseeded = true;
                    return Err(unread);
                }
                Ok(false) | Err(_) => break,
            }
        }
        if lead.position() == at {
            self.decoder.state.prev = lead.state.prev;
        }
        self.decoder.state.start_id = match lead.start_id() {
            StartId::NONE => lead.last_header.map_or(StartId::NONE, |h| h.start_id),
            id => id,
        };
        files.forget();
        Ok(())
    }

    fn advance(&mut self) -> Result<bool, ReadStop> {
        let target = self.tli;
        let stop = |at, tli, reason| ReadStop { at, tli, target, reason };
        let at = self.decoder.position();
        if self.unseeded {
            self.seed().map_err(|reason| stop(at, target, reason))?;
        }
        if at >= self.limit {
            return Err(stop(at, self.tli, StopReason::Limit));
        }
        let source: &mut dyn Source = match &mut self.source {
            AnySource::Files(f) => f,
            AnySource::Live(l) => l,
        };
        match self.decoder.advance(source) {
            Ok(found) => {
                if found && self.own_starts.contains(&self.decoder.state.start_id) {
                    self.durable = self.durable.max(self.decoder.state.mark.min(self.decoder.state.at));
                }
                Ok(found)
            }
            Err(reason) => {
                let at = self.decoder.position();
                let mut tli = self.tli;
                if let AnySource::Files(f) = &mut self.source {
                    f.forget();
                    tli = f.history.tli_at(at);
                }
                Err(stop(at, tli, reason))
            }
        }
    }

    /// End of the last record read.
    pub fn position(&self) -> Lsn {
        self.decoder.position()
    }

    /// What the writers of the records read said was durable with them: the largest flushed mark so far. [`Lsn::INVALID`] without any.
    pub fn writers_mark(&self) -> Lsn {
        self.decoder.state.mark.min(self.position())
    }

    /// Start of the last record read, or [`Lsn::INVALID`].
    pub fn last_start(&self) -> Lsn {
        self.decoder.last_start()
    }

    /// After a stop or `Ok(None)` in the middle of a record: where its header says that it ends; else [`Lsn::INVALID`].
    pub fn wanted(&self) -> Lsn {
        self.decoder.needs()
    }

    /// The end of WAL as read so far, for [`Wal::open`].
    pub fn end(&self) -> WalEnd {
        let tli = match &self.source {
            AnySource::Files(f) => f.history.tli(),
            AnySource::Live(l) => l.wal.tli(),
        };
        WalEnd {
            tli,
            end: self.decoder.position(),
            last_start: self.decoder.last_start(),
            last_crc: self.decoder.last_crc(),
            start_id: self.decoder.start_id(),
            durable: self.durable.min(self.decoder.position()),
        }
    }

    /// Reads to where it stops.
    ///
    /// # Errors
    /// Never `Ok(_)` without a stop: the end and why it is the end.
    pub fn read_to_end(&mut self) -> (WalEnd, ReadStop) {
        loop {
            match self.advance() {
                Ok(true) => {}
                Ok(false) => {
                    let stop = ReadStop { at: self.position(), tli: self.tli, target: self.tli, reason: StopReason::Limit };
                    return (self.end(), stop);
                }
                Err(stop) => return (self.end(), stop),
            }
        }
    }
}

/// What a node knows about its WAL beside the WAL.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// `pg_wal/flushed`, if there is one.
    pub flushed_mark: Option<FlushedMark>,
    /// WAL up to here was applied to pages on disk: the consistent point, a shutdown checkpoint, the end of a backup.
    pub consistent: Lsn,
    /// Start ids of this node, newest ones. Their marks count. Empty for a node that received its WAL.
    pub own_starts: Vec<StartId>,
}

/// Why WAL at a position must have been durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// `pg_wal/flushed` says so.
    FlushedFile(Lsn),
    /// Pages on disk are newer.
    Consistent(Lsn),
    /// A record or segment header behind it, at `at`, carries a mark of this node beyond it.
    Mark {
        /// Where.
        at: Lsn,
        /// What was flushed when it was written.
        flushed: Lsn,
    },
}

impl Proof {
    /// WAL was durable at least up to here.
    pub fn durable(&self) -> Lsn {
        match self {
            Self::FlushedFile(lsn) | Self::Consistent(lsn) => *lsn,
            Self::Mark { at, flushed } => (*at).max(*flushed),
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FlushedFile(lsn) => write!(f, "pg_wal/{} says that WAL was durable up to {lsn}", crate::flush::FLUSHED_FILE),
            Self::Consistent(lsn) => write!(f, "data files hold changes up to {lsn}"),
            Self::Mark { at, flushed } => write!(f, "WAL at {at} was written when WAL was durable up to {flushed}"),
        }
    }
}

/// What a stop means for recovery.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// WAL ends here, clean or with the torn tail of a crash. Recovery is complete.
    EndOfWal,
    /// WAL that was durable is gone or damaged: recovery refuses to start.
    Damage {
        /// Why it must have been durable.
        proof: Proof,
    },
    /// The segment is another cluster's, or of a format this program does not read: recovery refuses to start.
    Foreign,
    /// The disk does not give the bytes: recovery refuses to start.
    Unreadable,
}

/// Decides what a stop of a reader over the files of `dir` means.
///
/// # Errors
/// [`WalError::Io`] while looking for marks behind the stop.
pub fn judge(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    system_id: SystemId,
    segment_bytes: u32,
    stop: &ReadStop,
    evidence: &Evidence,
) -> Result<Verdict, WalError> {
    if let StopReason::Io { .. } = stop.reason {
        return Ok(Verdict::Unreadable);
    }
    if let StopReason::SegmentHeader { what: BadSegmentHeader::Version { .. } | BadSegmentHeader::SystemId { .. }, .. } = stop.reason {
        return Ok(Verdict::Foreign);
    }
    if let Some(mark) = evidence.flushed_mark
        && mark.system_id == system_id
        && (stop.tli..=stop.target).contains(&mark.tli)
        && stop.at < mark.flushed
    {
        return Ok(Verdict::Damage { proof: Proof::FlushedFile(mark.flushed) });
    }
    if stop.at < evidence.consistent {
        return Ok(Verdict::Damage { proof: Proof::Consistent(evidence.consistent) });
    }
    if !evidence.own_starts.is_empty()
        && let Some(proof) = find_mark(disk, dir, system_id, segment_bytes, stop, &evidence.own_starts)?
    {
        return Ok(Verdict::Damage { proof });
    }
    Ok(Verdict::EndOfWal)
}

/// Looks behind the stop for a segment header or record of this node with a mark beyond it.
fn find_mark(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    system_id: SystemId,
    segment_bytes: u32,
    stop: &ReadStop,
    own: &[StartId],
) -> Result<Option<Proof>, WalError> {
    let files = segment::SegmentDir::new(Arc::clone(disk), dir, segment_bytes);
    let first = SegNo::of(stop.at, segment_bytes);
    let mut behind: Vec<(TimelineId, SegNo)> = files.segments()?;
    behind.retain(|(t, n)| (stop.tli..=stop.target).contains(t) && *n >= first);
    behind.sort_unstable_by_key(|&(t, n)| (n, t));
    let header_of = |tli, segno| -> Result<Option<SegmentHeader>, WalError> {
        let path = files.segment_path(tli, segno);
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let file = disk.open(&path, Open::Read).map_err(|e| WalError::io("open", &path, e))?;
        let n = file.read_at(&mut bytes, 0).map_err(|e| WalError::io("read", &path, e))?;
        let header = if n == bytes.len() { SegmentHeader::decode(&bytes).ok() } else { None };
        Ok(header.filter(|h| h.system_id == system_id && h.segno == segno))
    };
    // Headers first: they are few, and one of a later segment usually settles it.
    for &(tli, segno) in &behind {
        if let Some(h) = header_of(tli, segno)?
            && segno.start_lsn(segment_bytes) > stop.at
            && h.flushed_mark > stop.at
            && own.contains(&h.start_id)
        {
            return Ok(Some(Proof::Mark { at: segno.start_lsn(segment_bytes), flushed: h.flushed_mark }));
        }
    }
    for &(tli, segno) in &behind {
        // Which start wrote a record is known from the header before it; without one, the newest of this node is assumed.
        let start_id = header_of(tli, segno)?.map_or(own[0], |h| h.start_id);
        let place = Place { path: files.segment_path(tli, segno), segno, start_id };
        let reader = WalReader::open(Arc::clone(disk), dir, system_id, segment_bytes, History::alone(tli), stop.at);
        if let Some(proof) = find_mark_in(&**disk, place, reader, stop, own)? {
            return Ok(Some(proof));
        }
    }
    Ok(None)
}

/// A segment to be searched.
struct Place {
    path: PathBuf,
    segno: SegNo,
    start_id: StartId,
}

fn find_mark_in(disk: &dyn Disk, place: Place, mut reader: WalReader, stop: &ReadStop, own: &[StartId]) -> Result<Option<Proof>, WalError> {
    let Place { path, segno, mut start_id } = place;
    let segment_bytes = reader.decoder.segment_bytes;
    reader.unseeded = false;
    let file = disk.open(&path, Open::Read).map_err(|e| WalError::io("open", &path, e))?;
    let start = segno.start_lsn(segment_bytes);
    let mut at = stop.at.max(start.advance(SEGMENT_HEADER_BYTES as u64));
    let end = segno.end_lsn(segment_bytes);
    let mut window = vec![0; WINDOW_BYTES];
    while at < end {
        let want = usize::try_from(end.as_u64() - at.as_u64()).unwrap_or(usize::MAX).min(window.len());
        let n = file.read_at(&mut window[..want], at.as_u64() - start.as_u64()).map_err(|e| WalError::io("read", &path, e))?;
        if n < RECORD_HEADER_BYTES {
            break;
        }
        let mut skip = 0;
        while let Some(head) = window[..n].get(skip..).and_then(<[u8]>::first_chunk::<RECORD_HEADER_BYTES>) {
            let here = at.advance(skip as u64);
            let header = RecordHeader::decode(head);
            // Cheap signs first: random bytes almost never have a back link that leads a little way back.
            let plausible = (format::RECORD_MIN_BYTES..=format::RECORD_MAX_BYTES).contains(&header.total_bytes)
                && header.rmgr < rmgr::COUNT
                && header.flags & !format::RECORD_KNOWN_FLAGS == 0
                && header.prev < here
                // The record at the stop is the first that was lost; all behind it lead back to it or to one after it. What a recycled
                // segment had in its life before leads further back, and there may be megabytes of it.
                && header.prev >= stop.at
                && header.prev.as_u64().is_multiple_of(crate::ids::ALIGN)
                && (header.flags & format::RECORD_FLUSHED_MARK != 0 || header.rmgr == rmgr::XLOG);
            if plausible {
                reader.decoder.state = State { at: here, prev: Some(header.prev), ..reader.decoder.state };
                let read = match reader.next() {
                    // What cannot be read may be the proof.
                    Err(ReadStop { reason: StopReason::Io { source, .. }, .. }) => {
                        let error = source.raw_os_error().map_or_else(|| source.kind().into(), io::Error::from_raw_os_error);
                        return Err(WalError::io("read", &path, error));
                    }
                    read => read,
                };
                if let Ok(Some(record)) = read {
                    if record.rmgr() == rmgr::XLOG
                        && record.kind() == rmgr::xlog::START
                        && let Some(s) = StartRecord::decode(record.main())
                    {
                        start_id = s.id;
                    }
                    let found = record.flushed_mark().filter(|&m| m > stop.at && own.contains(&start_id));
                    if let Some(flushed) = found {
                        return Ok(Some(Proof::Mark { at: here, flushed }));
                    }
                }
            }
            skip += 8;
        }
        at = at.advance(skip as u64);
    }
    Ok(None)
}
