//! The live WAL: reserve a range of LSNs, copy the record in, publish it.
//!
//! [`Wal::insert`] takes one short lock to give the record its place and its back link, copies it into the mapped segment without a lock, and
//! publishes it: records become readable in the order of their LSNs, whatever the order in which they were copied.
//!
//! Threads: `wal flusher` (flush.rs) syncs what no committing thread does; `wal segments` (here) keeps the next segment ready. Both start in `create`/`open` and end with the last
//! [`Wal`].
//!
//! Locks, by rank, outermost first; none but `making` and `mark` is held across I/O:
//! `receive` (receive.rs) > `making` > `maker` > `reserve` > `mapped` > `progress` > `mark`.

use crate::disk::{Disk, DiskFile, Open};
use crate::error::WalError;
use crate::flush::{FlushedMark, Progress};
use crate::format::{self, SegmentHeader, StartRecord};
use crate::ids::{Lsn, LsnRange, SegNo, StartId, SystemId, TimelineId, Xid};
use crate::mmap::Claim;
use crate::receive::Receive;
use crate::record::RecordBuilder;
use crate::rmgr;
use crate::segment::{Segment, SegmentDir};
use parking_lot::{Condvar, Mutex, RwLock};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// How a WAL is run.
#[derive(Debug, Clone)]
pub struct WalOptions {
    /// Size of every segment; a power of two from 1 MB to 1 GB. Chosen once, at initdb.
    pub segment_bytes: u32,
    /// Longest that published bytes stay unflushed when nobody asks (`wal_writer_delay`).
    pub writer_delay: Duration,
    /// How many recycled segments are kept to be used again.
    pub max_spares: usize,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self { segment_bytes: format::SEGMENT_DEFAULT_BYTES, writer_delay: Duration::from_millis(200), max_spares: 5 }
    }
}

/// Where the WAL of a node ends, found by a [`crate::WalReader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalEnd {
    /// Timeline of the last record.
    pub tli: TimelineId,
    /// End of the last record.
    pub end: Lsn,
    /// Start of the last record; [`Lsn::INVALID`] if not known: then the first record received is taken on trust of its crc.
    pub last_start: Lsn,
    /// Checksum of the last record.
    pub last_crc: u32,
    /// Start id in force at the end.
    pub start_id: StartId,
    /// Bytes below are known to be durable on this disk; those from here to `end` are written and synced again when the WAL is opened.
    pub durable: Lsn,
}

impl WalEnd {
    /// No WAL yet: a standby that will receive from the beginning of the segment that holds `lsn`.
    pub fn before(tli: TimelineId, lsn: Lsn, segment_bytes: u32) -> Self {
        let end = SegNo::of(lsn, segment_bytes).start_lsn(segment_bytes);
        Self { tli, end, last_start: Lsn::INVALID, last_crc: 0, start_id: StartId::NONE, durable: end }
    }
}

/// Positions of a WAL, all exclusive ends: `confirmed <= flushed <= published <= inserted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Positions {
    /// Reserved.
    pub inserted: Lsn,
    /// Every byte below is in the mapped file and readable.
    pub published: Lsn,
    /// Every byte below is durable.
    pub flushed: Lsn,
    /// ... and, if it was received ahead of the upstream's sync, durable there as far as is known: see [`Wal::confirmed`].
    pub confirmed: Lsn,
}

/// Called when positions moved. It must be quick, and must not own the [`Wal`] (hold a `Weak`).
pub type Listener = Box<dyn Fn(Positions) + Send + Sync>;

/// Called while a sync on a thread that is no flusher takes long.
pub type StallHandler = Box<dyn Fn() + Send + Sync>;

/// Called once, when a write or sync fails for good.
pub type FailureHandler = Box<dyn Fn(&WalError) + Send + Sync>;

/// A live WAL: of a primary that inserts, or of a standby that receives.
pub struct Wal {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal").field("tli", &self.tli()).field("positions", &self.positions()).finish_non_exhaustive()
    }
}

/// What the methods and the two threads share.
pub(crate) struct Inner {
    pub(crate) files: SegmentDir,
    pub(crate) system_id: SystemId,
    pub(crate) options: WalOptions,
    /// Where the next record goes. Held for some tens of nanoseconds, no I/O. Rank: see the module.
    pub(crate) reserve: Mutex<Reserve>,
    /// Mirrors `reserve.end`; Relaxed, for reports.
    inserted: AtomicU64,
    /// Mapped segments in order: those not flushed yet, those made ready, and one behind. Readers copy under the read lock.
    pub(crate) mapped: RwLock<VecDeque<Arc<Segment>>>,
    /// Published and flushed, and who waits for them.
    pub(crate) progress: Mutex<Progress>,
    /// The flusher sleeps here (`progress`).
    pub(crate) flusher_wakes: Condvar,
    /// Those in `flush` sleep here (`progress`).
    pub(crate) flushed_moved: Condvar,
    /// Release under `progress`, Acquire in `published`: bytes below are written.
    pub(crate) published: AtomicU64,
    /// Release under `progress`, Acquire in `flushed`.
    pub(crate) flushed: AtomicU64,
    /// Mirrors `Progress::bound`. Release under `progress`, Acquire in `confirmed`.
    pub(crate) bound: AtomicU64,
    /// End of what is being synced, or was, or is about to be. Release in `sync_begins`, Acquire in `Wal::syncing`.
    pub(crate) syncing: AtomicU64,
    /// How long a sync took of late, a moving average. Relaxed: a hint.
    pub(crate) sync_nanos: AtomicU64,
    /// How many want to hear of a sync before it begins. Relaxed: one that comes late hears of the next.
    pub(crate) sync_followers: AtomicUsize,
    /// What segments are wanted.
    maker: Mutex<Maker>,
    maker_wakes: Condvar,
    segment_made: Condvar,
    /// Held while a segment is made, and by whoever changes timeline or cuts the WAL.
    making: Mutex<()>,
    pub(crate) receive: Mutex<Receive>,
    /// First failure of a write or sync; nothing is inserted or flushed after it.
    pub(crate) failed: OnceLock<WalError>,
    on_failure: RwLock<Option<FailureHandler>>,
    pub(crate) on_stalled_sync: RwLock<Option<StallHandler>>,
    pub(crate) flush_listeners: RwLock<Vec<Listener>>,
    publish_listeners: RwLock<Vec<Listener>>,
    pub(crate) sync_listeners: RwLock<Vec<Listener>>,
    /// Spares `insert` the read lock while there are none.
    has_publish_listeners: AtomicBool,
    /// Segments below were recycled or are about to be: raised before the first rename, checked after each read of a file.
    oldest_kept: AtomicU64,
    /// Last file read for a sender that lags behind the mapped segments.
    old_file: Mutex<Option<(SegNo, Arc<dyn DiskFile>)>>,
    pub(crate) flushed_file: Arc<dyn DiskFile>,
    /// What `flushed_file` says; held while it is written, so that it never goes back. Innermost.
    pub(crate) mark: Mutex<FlushedMark>,
    pub(crate) stats: WalStats,
}

/// Counters since the WAL was opened, for `pg_stat_wal`. Relaxed: nothing follows from them.
#[derive(Debug, Default)]
pub struct WalStats {
    /// Records inserted here.
    pub records: AtomicU64,
    /// Full page images in them.
    pub images: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Times WAL was synced.
    pub syncs: AtomicU64,
}

impl WalStats {
    /// Back to zero.
    pub fn reset(&self) {
        [&self.records, &self.images, &self.bytes, &self.syncs].into_iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    }
}

/// Where the next record goes.
#[derive(Debug)]
pub(crate) struct Reserve {
    /// End of the last record.
    pub(crate) end: Lsn,
    /// Start of the last record.
    pub(crate) prev: Lsn,
    /// Segments from the one that `end` lies in (at a boundary: the one that begins there) on, as far as they are ready.
    segments: VecDeque<Arc<Segment>>,
    pub(crate) tli: TimelineId,
    pub(crate) start_id: StartId,
    /// False: this WAL receives.
    pub(crate) writing: bool,
    closed: bool,
}

#[derive(Debug)]
struct Maker {
    /// Segments up to this one are wanted.
    want: SegNo,
    /// Segments up to this one are ready.
    made: SegNo,
    /// Why the last attempt failed; cleared by the next request.
    error: Option<WalError>,
    stop: bool,
}

/// What `reserve` hands out.
struct Reserved {
    from: Lsn,
    range: LsnRange,
    prev: Lsn,
    tli: TimelineId,
    start_id: StartId,
    claims: SmallVec<[(Claim, SegNo); 2]>,
}

/// From reserving to publishing an unwind would leave a hole that nothing can fill: the process ends.
pub(crate) fn abort_on_unwind<T>(f: impl FnOnce() -> T) -> T {
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            std::process::abort();
        }
    }
    let guard = Guard;
    let result = f();
    std::mem::forget(guard);
    result
}

impl Wal {
    /// Lays the WAL of a new cluster in `dir` (`pg_wal`, made if missing) on timeline 1 and begins writing.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn create(disk: Arc<dyn Disk>, dir: &Path, system_id: SystemId, options: WalOptions) -> Result<Arc<Self>, WalError> {
        let status = dir.join("archive_status");
        disk.create_dir(&status).map_err(|e| WalError::io("create", &status, e))?;
        let end = WalEnd::before(TimelineId::FIRST, SegNo::FIRST.start_lsn(options.segment_bytes), options.segment_bytes);
        let wal = Self::open(disk, dir, system_id, end, options)?;
        wal.begin_writing(StartId::draw())?;
        Ok(wal)
    }

    /// Opens the WAL of a node at its recovered `end`, receiving; [`begin_writing`](Self::begin_writing) makes it a primary's.
    ///
    /// Everything behind `end` is discarded for good, see [`SegmentDir::prepare_end`].
    ///
    /// # Errors
    /// [`WalError::Io`], [`WalError::SegmentMissing`], [`WalError::BadFile`] for a segment size that is none.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, system_id: SystemId, end: WalEnd, options: WalOptions) -> Result<Arc<Self>, WalError> {
        Self::open_held(disk, dir, system_id, end, Lsn::MAX, options)
    }

    /// As [`open`](Self::open), with WAL behind `bound` that was received ahead of the upstream's sync and is not confirmed. [`Lsn::MAX`]: none.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_held(
        disk: Arc<dyn Disk>,
        dir: &Path,
        system_id: SystemId,
        end: WalEnd,
        bound: Lsn,
        options: WalOptions,
    ) -> Result<Arc<Self>, WalError> {
        let segment_bytes = options.segment_bytes;
        if !crate::segment::is_valid_segment_bytes(segment_bytes) {
            return Err(WalError::BadFile { path: dir.to_owned(), what: "segment size is not a power of two from 1 MB to 1 GB" });
        }
        let files = SegmentDir::new(disk, dir, segment_bytes);
        files.prepare_end(end.tli, end.end, end.durable)?;
        let mut segments = VecDeque::new();
        let current = SegNo::of_end(end.end, segment_bytes);
        if SegNo::of(end.end, segment_bytes) == current {
            segments.push_back(Arc::new(files.map(end.tli, current, end.end)?));
        }
        let flushed_path = dir.join(crate::flush::FLUSHED_FILE);
        let flushed_file = files.disk.open(&flushed_path, Open::Create).map_err(|e| WalError::io("open", flushed_path, e))?;
        let inner = Arc::new(Inner {
            system_id,
            reserve: Mutex::new(Reserve {
                end: end.end,
                prev: end.last_start,
                segments: segments.clone(),
                tli: end.tli,
                start_id: end.start_id,
                writing: false,
                closed: false,
            }),
            inserted: AtomicU64::new(end.end.as_u64()),
            mapped: RwLock::new(segments),
            progress: Mutex::new(Progress::held_at(end.end, bound)),
            flusher_wakes: Condvar::new(),
            flushed_moved: Condvar::new(),
            published: AtomicU64::new(end.end.as_u64()),
            flushed: AtomicU64::new(end.end.as_u64()),
            bound: AtomicU64::new(bound.as_u64()),
            syncing: AtomicU64::new(end.end.as_u64()),
            sync_nanos: AtomicU64::new(0),
            sync_followers: AtomicUsize::new(0),
            maker: Mutex::new(Maker { want: current, made: current, error: None, stop: false }),
            maker_wakes: Condvar::new(),
            segment_made: Condvar::new(),
            making: Mutex::new(()),
            receive: Mutex::new(Receive::at(&end, segment_bytes, system_id)),
            failed: OnceLock::new(),
            on_failure: RwLock::new(None),
            on_stalled_sync: RwLock::new(None),
            flush_listeners: RwLock::new(Vec::new()),
            publish_listeners: RwLock::new(Vec::new()),
            sync_listeners: RwLock::new(Vec::new()),
            has_publish_listeners: AtomicBool::new(false),
            oldest_kept: AtomicU64::new(0),
            old_file: Mutex::new(None),
            flushed_file,
            mark: Mutex::new(FlushedMark { system_id, tli: end.tli, flushed: end.end, start_id: end.start_id, held_bytes: 0 }),
            stats: WalStats::default(),
            files,
            options,
        });
        inner.write_flushed_file(end.end)?;
        let spawn = |name: &str, run: fn(&Inner)| {
            let inner = Arc::clone(&inner);
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&inner));
            thread.map_err(|e| WalError::io("start thread for", dir, e))
        };
        let wal = Arc::new(Self { inner: Arc::clone(&inner), threads: Mutex::new(Vec::new()) });
        let flusher = spawn("wal flusher", Inner::run_flusher)?;
        wal.threads.lock().push(flusher);
        let maker = spawn("wal segments", Inner::run_maker)?;
        wal.threads.lock().push(maker);
        Ok(wal)
    }

    /// Makes this node a writer under start id `start_id` and logs that: the first record this life inserts.
    ///
    /// The caller draws the id ([`StartId::draw`]) and has it durable in the control file before, so that the marks of this start count if it crashes.
    /// Bytes received past the last whole record are dropped.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn begin_writing(&self, start_id: StartId) -> Result<LsnRange, WalError> {
        let inner = &*self.inner;
        inner.receive.lock().drop_staged();
        inner.release()?;
        let start = {
            let mut r = inner.reserve.lock();
            let start = StartRecord { id: start_id, previous: r.start_id, at: r.end };
            r.start_id = start_id;
            r.writing = true;
            start
        };
        let mut record = RecordBuilder::new(rmgr::XLOG, rmgr::xlog::START, Xid::INVALID);
        record.main(&start.encode()).carry_flushed_mark();
        self.insert(&record)
    }

    /// Inserts a record; any number of threads may at once. Returns where it lies; its LSN is `end`.
    ///
    /// Waits only if the next segment is not ready yet.
    ///
    /// # Errors
    /// [`WalError::RecordTooLarge`], [`WalError::NotWriting`]; [`WalError::Io`] if the next segment could not be made: to a caller who has
    /// already changed a page that is fatal; and the first failure of a sync, forever.
    pub fn insert(&self, record: &RecordBuilder) -> Result<LsnRange, WalError> {
        let inner = &*self.inner;
        let mut header = record.header(Lsn::INVALID)?;
        let mark = inner.flushed().to_le_bytes();
        let mark = if record.flags & format::RECORD_FLUSHED_MARK != 0 { &mark[..] } else { &[] };
        let mut crc = crc32c::crc32c(&record.blocks);
        for part in [&record.main[..], mark] {
            if !part.is_empty() {
                crc = crc32c::crc32c_append(crc, part);
            }
        }
        abort_on_unwind(|| {
            let mut reserved = inner.reserve(header.total_bytes)?;
            header.prev = reserved.prev;
            header.crc = header.crc(crc, reserved.range.start);
            let (from, range) = (reserved.from, reserved.range);
            let mut out = Copier::new(inner, &mut reserved, header.total_bytes);
            out.put(&header.encode());
            out.put(&record.blocks);
            out.put(&record.main);
            out.put(mark);
            out.finish();
            drop(reserved);
            inner.publish(from, range.end);
            inner.stats.records.fetch_add(1, Ordering::Relaxed);
            inner.stats.bytes.fetch_add(u64::from(header.total_bytes), Ordering::Relaxed);
            if record.images > 0 {
                inner.stats.images.fetch_add(record.images.into(), Ordering::Relaxed);
            }
            Ok(range)
        })
    }

    /// Ends the current segment: the next record begins in a new one. Does nothing at the beginning of a segment.
    ///
    /// Returns the end of the switch record, which is the boundary.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn switch_segment(&self) -> Result<Lsn, WalError> {
        let inner = &*self.inner;
        let mut header = RecordBuilder::new(rmgr::XLOG, rmgr::xlog::SWITCH, Xid::INVALID).header(Lsn::INVALID)?;
        let switched = abort_on_unwind(|| {
            let mut reserved = match inner.reserve_rest()? {
                Rest::AtBoundary(end) => return Ok(Some(end)),
                Rest::NoRoom => return Ok(None),
                Rest::Reserved(reserved) => reserved,
            };
            header.prev = reserved.prev;
            header.crc = header.crc(crc32c::crc32c(&[]), reserved.range.start);
            let (from, end) = (reserved.from, reserved.range.end);
            let mut out = Copier::new(inner, &mut reserved, header.total_bytes);
            out.put(&header.encode());
            out.finish();
            drop(reserved);
            inner.publish(from, end);
            Ok(Some(end))
        })?;
        match switched {
            Some(end) => Ok(end),
            // Less room than a header takes: a no-op crosses the boundary, which ends the segment as well.
            None => {
                let noop = self.insert(&RecordBuilder::new(rmgr::XLOG, rmgr::xlog::NOOP, Xid::INVALID))?;
                Ok(SegNo::of(noop.start, inner.files.segment_bytes).end_lsn(inner.files.segment_bytes))
            }
        }
    }

    /// All positions, consistent with each other.
    pub fn positions(&self) -> Positions {
        self.inner.positions()
    }

    /// End of what is reserved.
    pub fn inserted(&self) -> Lsn {
        self.inner.inserted()
    }

    /// End of what is readable: every record below is complete.
    pub fn published(&self) -> Lsn {
        self.inner.published()
    }

    /// End of what is in the mapped file: the same as [`published`](Self::published).
    pub fn written(&self) -> Lsn {
        self.inner.published()
    }

    /// End of what is durable.
    pub fn flushed(&self) -> Lsn {
        self.inner.flushed()
    }

    /// End of what is durable here and, where it was received ahead of the upstream's sync, confirmed: what may be replayed, sent on and
    /// archived. The same as [`flushed`](Self::flushed) on a writer.
    pub fn confirmed(&self) -> Lsn {
        self.inner.confirmed()
    }

    /// Where WAL begins that was received ahead and is not confirmed; `None`: there is no such WAL.
    pub fn held_from(&self) -> Option<Lsn> {
        let bound = self.inner.bound();
        (bound < self.published()).then_some(bound)
    }

    /// From here on WAL is received ahead of the upstream's sync: it is held back until [`confirm`](Self::confirm) says more.
    pub fn hold(&self) {
        self.inner.hold();
    }

    /// The upstream has WAL durable up to `upto`; does nothing unless WAL is [held](Self::hold) back.
    ///
    /// # Errors
    /// [`WalError::Io`] of `pg_wal/flushed`; the position counts nevertheless.
    pub fn confirm(&self, upto: Lsn) -> Result<(), WalError> {
        self.inner.confirm(upto)
    }

    /// Whatever is here counts: a promotion, or an upstream that sends only what is durable.
    ///
    /// # Errors
    /// As [`confirm`](Self::confirm).
    pub fn release(&self) -> Result<(), WalError> {
        self.inner.release()
    }

    /// End of what is being synced or about to be, or is durable.
    pub fn syncing(&self) -> Lsn {
        // A cut may have come between.
        Lsn::new(self.inner.syncing.load(Ordering::Acquire)).min(self.published()).max(self.flushed())
    }

    /// Start of the last record inserted or received.
    pub fn last_record(&self) -> Lsn {
        self.inner.reserve.lock().prev
    }

    /// Waits until WAL is durable up to `upto` (exclusive). The flusher syncs once for all who wait.
    ///
    /// # Errors
    /// [`WalError::Sync`]: the kernel may have dropped dirty pages, so a later sync proves nothing. Stop the node.
    /// [`WalError::FlushBeyondEnd`], [`WalError::Closed`].
    ///
    /// PostgreSQL: `XLogFlush` in access/transam/xlog.c.
    pub fn flush(&self, upto: Lsn) -> Result<(), WalError> {
        self.inner.flush(upto)
    }

    /// Counters.
    pub fn stats(&self) -> &WalStats {
        &self.inner.stats
    }

    /// Asks the flusher for durability up to `upto`; does not wait. A position listener hears of it.
    pub fn request_flush(&self, upto: Lsn) {
        self.inner.request_flush(upto);
    }

    /// Syncs up to `upto` on this thread, for all who ask meanwhile: the way of one who commits alone, without two switches of threads. Leaves it to the flusher
    /// ([`request_flush`](Self::request_flush)) if syncs are slow of late, if one runs already, or if somebody is to hear of it before
    /// ([`follow_syncs`](Self::follow_syncs)). A position listener hears of it, on this thread: the caller holds no lock.
    pub fn sync_here(&self, upto: Lsn) {
        self.inner.sync_here(upto);
    }

    /// Calls `handler` on the flusher's thread, at latest [`WalOptions::writer_delay`] and some milliseconds after it began, and again and again, while
    /// a sync by [`sync_here`](Self::sync_here) does not end: whatever else waits for that thread should go on without it.
    pub fn on_stalled_sync(&self, handler: StallHandler) {
        *self.inner.on_stalled_sync.write() = Some(handler);
    }

    /// While the result lives, sync listeners are told before each sync, and it is made on a thread of its own.
    pub fn follow_syncs(&self) -> SyncFollower {
        self.inner.sync_followers.fetch_add(1, Ordering::Relaxed);
        SyncFollower { inner: Arc::clone(&self.inner) }
    }

    /// Calls `listener` after each advance of `flushed`, on the thread that synced, and of `confirmed`, on the thread that caused it.
    pub fn add_position_listener(&self, listener: Listener) {
        self.inner.flush_listeners.write().push(listener);
    }

    /// Calls `listener` before each sync while somebody [follows](Self::follow_syncs), on the thread that asks for it or that makes it:
    /// [`syncing`](Self::syncing) has moved.
    pub fn add_sync_listener(&self, listener: Listener) {
        self.inner.sync_listeners.write().push(listener);
    }

    /// Calls `listener` after each advance of `published`, on the thread that caused it: costly on a primary.
    pub fn add_published_listener(&self, listener: Listener) {
        self.inner.publish_listeners.write().push(listener);
        self.inner.has_publish_listeners.store(true, Ordering::Release);
    }

    /// Calls `handler` once, on the thread that met it, when a write or sync fails for good. It should stop the node.
    pub fn on_failure(&self, handler: FailureHandler) {
        *self.inner.on_failure.write() = Some(handler);
    }

    /// The failure that stopped this WAL, if any.
    pub fn failure(&self) -> Option<&WalError> {
        self.inner.failed.get()
    }

    /// Copies published bytes from `lsn` on into `buf`; 0 at the end. May stop short at the end of a segment.
    ///
    /// # Errors
    /// [`WalError::SegmentGone`] if they were recycled, [`WalError::Io`].
    pub fn read_at(&self, lsn: Lsn, buf: &mut [u8]) -> Result<usize, WalError> {
        self.inner.read_at(lsn, buf)
    }

    /// Takes bytes of a stream that begin at `lsn`, on a standby. Returns the end of the last whole record that verified: that much is
    /// published, the rest is kept in memory until its record is complete. Bytes already here are compared.
    ///
    /// # Errors
    /// [`WalError::ReceivedDamage`], [`WalError::Diverged`], [`WalError::Gap`]: the stream must be asked for again from
    /// [`published`](Self::published). [`WalError::NotReceiving`]. [`WalError::Io`] if the next segment could not be made.
    pub fn append_received(&self, lsn: Lsn, bytes: &[u8]) -> Result<Lsn, WalError> {
        self.inner.append_received(lsn, bytes)
    }

    /// End of all bytes received, those of an incomplete record included.
    pub fn received(&self) -> Lsn {
        self.inner.receive.lock().received()
    }

    /// Where the next byte of the stream is expected: the same as [`received`](Self::received); after damage the end of the last whole record.
    pub fn receive_position(&self) -> Lsn {
        self.received()
    }

    /// Drops bytes received past the last whole record, before the stream is asked for again.
    pub fn drop_incomplete(&self) {
        self.inner.receive.lock().drop_staged();
    }

    /// The end of this WAL as a reader would find it. On a standby `last_crc` is that of the last record received since the start, else 0.
    pub fn end(&self) -> WalEnd {
        let receive = self.inner.receive.lock();
        let (last_crc, durable) = (receive.last_crc(), self.flushed());
        let r = self.inner.reserve.lock();
        WalEnd { tli: r.tli, end: r.end, last_start: r.prev, last_crc, start_id: r.start_id, durable }
    }

    /// Goes over to timeline `new_tli` at `switch_lsn`, the end of WAL. Its first segment begins with the parent's bytes up to there.
    ///
    /// For a standby that follows, and for a promotion before [`begin_writing`](Self::begin_writing). The history file is the caller's to write, durably,
    /// before this.
    ///
    /// # Errors
    /// [`WalError::BadTimeline`], [`WalError::NotReceiving`], [`WalError::Io`].
    pub fn start_timeline(&self, new_tli: TimelineId, switch_lsn: Lsn) -> Result<(), WalError> {
        let inner = &*self.inner;
        let mut receive = inner.receive.lock();
        let _making = inner.making.lock();
        let (tli, end) = {
            let r = inner.reserve.lock();
            if r.writing {
                return Err(WalError::NotReceiving);
            }
            (r.tli, r.end)
        };
        if new_tli <= tli || switch_lsn != end {
            return Err(WalError::BadTimeline { new: new_tli, at: switch_lsn, tli, end });
        }
        // The parent's bytes must last as long as the new timeline's.
        inner.flush(end)?;
        receive.drop_staged();
        inner.files.fork(tli, new_tli, switch_lsn)?;
        inner.reopen(new_tli, end, &mut receive)?;
        inner.write_flushed_file(end)
    }

    /// Cuts a standby's WAL back to `end`, the end of a record that was read here before; what lies behind is discarded for good. `end` may lie
    /// on a timeline that led to this one: then it is the current one again.
    ///
    /// The caller has made sure that nothing behind `end` was replayed.
    ///
    /// # Errors
    /// [`WalError::NotReceiving`], [`WalError::Gap`] if `end` is ahead, [`WalError::Io`].
    pub fn discard_after(&self, end: WalEnd) -> Result<(), WalError> {
        let inner = &*self.inner;
        let mut receive = inner.receive.lock();
        let _making = inner.making.lock();
        let tli = {
            let r = inner.reserve.lock();
            if r.writing {
                return Err(WalError::NotReceiving);
            }
            if end.end > r.end {
                return Err(WalError::Gap { at: end.end, expected: r.end });
            }
            r.tli
        };
        // The flusher has nothing left to do after this: no mark of what is about to go can be written late.
        inner.flush(inner.published())?;
        {
            let mut r = inner.reserve.lock();
            r.segments.clear();
            r.end = end.end;
            r.prev = end.last_start;
            r.start_id = end.start_id;
        }
        *receive = Receive::at(&end, inner.files.segment_bytes, inner.system_id);
        {
            let mut p = inner.progress.lock();
            p.cut(end.end);
            inner.bound.store(p.bound().as_u64(), Ordering::Release);
            inner.syncing.store(end.end.as_u64(), Ordering::Release);
            inner.published.store(end.end.as_u64(), Ordering::Release);
            inner.flushed.store(end.end.as_u64(), Ordering::Release);
            inner.inserted.store(end.end.as_u64(), Ordering::Release);
        }
        // Before the bytes go: the mark must never be ahead of the truth.
        inner.write_flushed_file(end.end)?;
        inner.mapped.write().clear();
        *inner.old_file.lock() = None;
        // Timelines that begin behind the end go as a whole.
        for (t, segno) in inner.files.segments()? {
            if t > end.tli && t <= tli {
                let path = inner.files.segment_path(t, segno);
                inner.files.disk.remove(&path).map_err(|e| WalError::io("remove", path, e))?;
            }
        }
        inner.files.prepare_end(end.tli, end.end, end.end)?;
        inner.reopen(end.tli, end.end, &mut receive)
    }

    /// Gives segments that end at or below `lsn` (and below `flushed`) back for reuse. Returns how many.
    ///
    /// `may_go` is asked for each file name: archiving and slots have their say there.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn recycle_upto(&self, lsn: Lsn, may_go: &dyn Fn(&str) -> bool) -> Result<usize, WalError> {
        let inner = &*self.inner;
        let bytes = inner.files.segment_bytes;
        let below = SegNo::of(lsn.min(inner.flushed()), bytes);
        let tli = self.tli();
        let mut gone: Vec<_> = inner.files.segments()?;
        gone.retain(|&(t, n)| t <= tli && n < below && may_go(&crate::segment::file_name(t, n, bytes)));
        if let Some(highest) = gone.iter().map(|&(_, n)| n).max() {
            // Before the first rename: whoever reads a file after this finds out that it may be another by now.
            inner.oldest_kept.fetch_max(highest.next().start_lsn(bytes).as_u64(), Ordering::SeqCst);
            inner.mapped.write().retain(|s| s.segno > highest);
            *inner.old_file.lock() = None;
        }
        for &(t, n) in &gone {
            inner.files.recycle(t, n, inner.options.max_spares)?;
        }
        Ok(gone.len())
    }

    /// First byte of the oldest segment that can be read, on this timeline or those before it.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn oldest(&self) -> Result<Lsn, WalError> {
        let bytes = self.segment_bytes();
        let mut segnos: Vec<SegNo> = self.inner.files.segments()?.into_iter().map(|(_, n)| n).collect();
        segnos.sort_unstable();
        segnos.dedup();
        let end = SegNo::of_end(self.inserted(), bytes);
        let mut oldest = end;
        for n in segnos.into_iter().rev().filter(|&n| n <= end) {
            if n.next() < oldest {
                break;
            }
            oldest = n;
        }
        Ok(oldest.start_lsn(bytes))
    }

    /// Size of every segment.
    pub fn segment_bytes(&self) -> u32 {
        self.inner.files.segment_bytes
    }

    /// Current timeline.
    pub fn tli(&self) -> TimelineId {
        self.inner.reserve.lock().tli
    }

    /// Current start id.
    pub fn start_id(&self) -> StartId {
        self.inner.reserve.lock().start_id
    }

    /// True once [`begin_writing`](Self::begin_writing) was called.
    pub fn is_writing(&self) -> bool {
        self.inner.reserve.lock().writing
    }

    /// The cluster.
    pub fn system_id(&self) -> SystemId {
        self.inner.system_id
    }

    /// `pg_wal` and its files.
    pub fn files(&self) -> &SegmentDir {
        &self.inner.files
    }

    /// Flushes what was published, refuses all inserts from now on, and ends the threads.
    ///
    /// # Errors
    /// Those of the flush.
    pub fn close(&self) -> Result<(), WalError> {
        self.inner.reserve.lock().closed = true;
        let flushed = if self.inner.failed.get().is_none() { self.inner.flush(self.published()) } else { Ok(()) };
        self.stop_threads();
        flushed
    }

    fn stop_threads(&self) {
        self.inner.reserve.lock().closed = true;
        self.inner.maker.lock().stop = true;
        self.inner.maker_wakes.notify_all();
        self.inner.segment_made.notify_all();
        self.inner.progress.lock().stop();
        self.inner.flusher_wakes.notify_all();
        self.inner.flushed_moved.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A listener may hold the last reference: a thread does not wait for itself.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                // It panicked; the panic was reported by its thread.
            }
        }
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

/// Somebody wants to hear of syncs before they begin: see [`Wal::follow_syncs`].
pub struct SyncFollower {
    inner: Arc<Inner>,
}

impl fmt::Debug for SyncFollower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncFollower").finish_non_exhaustive()
    }
}

impl Drop for SyncFollower {
    fn drop(&mut self) {
        self.inner.sync_followers.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Rest {
    AtBoundary(Lsn),
    NoRoom,
    Reserved(Reserved),
}

impl Reserve {
    /// Claims `from..end`, which is where the WAL grows next. `None` if its segments are not all ready.
    fn claim(&mut self, from: Lsn, end: Lsn, segment_bytes: u32) -> Option<SmallVec<[(Claim, SegNo); 2]>> {
        let last = SegNo::of_end(end, segment_bytes);
        if self.segments.back().is_none_or(|s| s.segno < last) {
            return None;
        }
        let mut claims = SmallVec::new();
        for s in &self.segments {
            if s.start >= end {
                break;
            }
            claims.push((s.map.claim(s.offset(from)..s.offset(end)), s.segno));
        }
        while self.segments.front().is_some_and(|s| s.end <= end) {
            self.segments.pop_front();
        }
        Some(claims)
    }
}

impl Inner {
    pub(crate) fn inserted(&self) -> Lsn {
        Lsn::new(self.inserted.load(Ordering::Acquire))
    }

    pub(crate) fn published(&self) -> Lsn {
        Lsn::new(self.published.load(Ordering::Acquire))
    }

    pub(crate) fn flushed(&self) -> Lsn {
        Lsn::new(self.flushed.load(Ordering::Acquire))
    }

    pub(crate) fn bound(&self) -> Lsn {
        Lsn::new(self.bound.load(Ordering::Acquire))
    }

    pub(crate) fn confirmed(&self) -> Lsn {
        self.flushed().min(self.bound())
    }

    /// Smaller ones first, so that a concurrent advance cannot turn the order around.
    pub(crate) fn positions(&self) -> Positions {
        let confirmed = self.confirmed();
        let flushed = self.flushed();
        let published = self.published();
        Positions { inserted: self.inserted().max(published), published, flushed, confirmed }
    }

    fn reserve(&self, bytes: u32) -> Result<Reserved, WalError> {
        self.reserve_with(|r, segment_bytes| {
            let (start, end) = format::place(r.end, bytes, segment_bytes);
            Some(LsnRange { start, end })
        })
        .map(|reserved| reserved.expect("a place was given"))
    }

    /// The rest of the current segment, for a switch record.
    fn reserve_rest(&self) -> Result<Rest, WalError> {
        let mut rest = Rest::NoRoom;
        let reserved = self.reserve_with(|r, segment_bytes| {
            let segment_end = SegNo::of(r.end, segment_bytes).end_lsn(segment_bytes);
            if r.end.as_u64().is_multiple_of(u64::from(segment_bytes)) {
                rest = Rest::AtBoundary(r.end);
                return None;
            }
            let room = segment_end.bytes_since(r.end).unwrap_or(0);
            if room < format::RECORD_HEADER_BYTES as u64 {
                rest = Rest::NoRoom;
                return None;
            }
            Some(LsnRange { start: r.end, end: segment_end })
        })?;
        Ok(reserved.map_or(rest, Rest::Reserved))
    }

    /// Reserves what `place` says, waiting for segments to be made where needed.
    fn reserve_with(&self, mut place: impl FnMut(&Reserve, u32) -> Option<LsnRange>) -> Result<Option<Reserved>, WalError> {
        let segment_bytes = self.files.segment_bytes;
        loop {
            let missing = {
                let mut r = self.reserve.lock();
                self.check_open(&r)?;
                if !r.writing {
                    return Err(WalError::NotWriting);
                }
                let Some(range) = place(&r, segment_bytes) else {
                    return Ok(None);
                };
                let from = r.end;
                if let Some(claims) = r.claim(from, range.end, segment_bytes) {
                    let reserved = Reserved { from, range, prev: r.prev, tli: r.tli, start_id: r.start_id, claims };
                    r.end = range.end;
                    r.prev = range.start;
                    self.inserted.store(range.end.as_u64(), Ordering::Release);
                    let ahead = r.segments.len() < 2;
                    drop(r);
                    if ahead {
                        self.want_segment(SegNo::of(range.end, segment_bytes).next(), false);
                    }
                    return Ok(Some(reserved));
                }
                SegNo::of_end(range.end, segment_bytes)
            };
            self.wait_for_segment(missing)?;
        }
    }

    /// Puts received bytes, whole records with the segment headers between them, at the end of the WAL and publishes them.
    pub(crate) fn append_bytes(&self, bytes: &[u8], last_start: Lsn, start_id: StartId) -> Result<(), WalError> {
        let segment_bytes = self.files.segment_bytes;
        let (from, end, claims) = loop {
            let missing = {
                let mut r = self.reserve.lock();
                self.check_open(&r)?;
                if r.writing {
                    return Err(WalError::NotReceiving);
                }
                let (from, end) = (r.end, r.end.advance(bytes.len() as u64));
                if let Some(claims) = r.claim(from, end, segment_bytes) {
                    r.end = end;
                    r.prev = last_start;
                    r.start_id = start_id;
                    self.inserted.store(end.as_u64(), Ordering::Release);
                    break (from, end, claims);
                }
                SegNo::of_end(end, segment_bytes)
            };
            self.wait_for_segment(missing)?;
        };
        self.want_segment(SegNo::of(end, segment_bytes).next(), false);
        abort_on_unwind(|| {
            let mut rest = bytes;
            for (mut claim, _) in claims {
                let (now, later) = rest.split_at(claim.room().min(rest.len()));
                claim.put(now);
                rest = later;
            }
            self.publish(from, end);
        });
        Ok(())
    }

    fn check_open(&self, r: &Reserve) -> Result<(), WalError> {
        if let Some(e) = self.failed.get() {
            return Err(e.clone());
        }
        if r.closed { Err(WalError::Closed) } else { Ok(()) }
    }

    /// Bytes `from..end` were copied. Publishes them, and what waited behind them, once everything before them is.
    fn publish(&self, from: Lsn, end: Lsn) {
        let wake = {
            let mut p = self.progress.lock();
            let before = p.published;
            p.complete(from, end);
            if p.published == before {
                return;
            }
            self.published.store(p.published.as_u64(), Ordering::Release);
            p.flusher_due()
        };
        if wake {
            self.flusher_wakes.notify_one();
        }
        if self.has_publish_listeners.load(Ordering::Acquire) {
            let positions = self.positions();
            for listener in &*self.publish_listeners.read() {
                listener(positions);
            }
        }
    }

    /// Remembers the first failure, tells the handler, and wakes all who wait.
    pub(crate) fn fail(&self, error: &WalError) {
        if self.failed.set(error.clone()).is_ok()
            && let Some(handler) = &*self.on_failure.read()
        {
            handler(error);
        }
        drop(self.progress.lock());
        self.flushed_moved.notify_all();
        self.segment_made.notify_all();
    }

    pub(crate) fn read_at(&self, lsn: Lsn, buf: &mut [u8]) -> Result<usize, WalError> {
        let published = self.published();
        let bytes = self.files.segment_bytes;
        let segno = SegNo::of(lsn, bytes);
        let upto = published.min(segno.end_lsn(bytes));
        let Some(room) = upto.bytes_since(lsn) else {
            return Ok(0);
        };
        let n = usize::try_from(room).unwrap_or(usize::MAX).min(buf.len());
        if n == 0 {
            return Ok(0);
        }
        {
            let mapped = self.mapped.read();
            if let Some(s) = mapped.iter().find(|s| s.segno == segno) {
                // Everything below `published` was written before `published` moved there.
                s.map.publish(s.offset(published));
                let at = s.offset(lsn);
                if let Some(from) = s.map.bytes(at..at + n) {
                    buf[..n].copy_from_slice(from);
                    return Ok(n);
                }
            }
        }
        let gone = || WalError::SegmentGone { name: crate::segment::file_name(self.reserve.lock().tli, segno, bytes), at: lsn };
        let file = self.old_segment(segno)?.ok_or_else(gone)?;
        let offset = lsn.as_u64() - segno.start_lsn(bytes).as_u64();
        let read = file
            .read_at(&mut buf[..n], offset)
            .map_err(|e| WalError::io("read", self.files.segment_path(self.reserve.lock().tli, segno), e))?;
        if lsn.as_u64() < self.oldest_kept.load(Ordering::SeqCst) {
            return Err(gone());
        }
        Ok(read)
    }

    /// The newest file for a segment that is not mapped any more: a child's first segment holds its parent's bytes too.
    fn old_segment(&self, segno: SegNo) -> Result<Option<Arc<dyn DiskFile>>, WalError> {
        let mut cached = self.old_file.lock();
        if let Some((n, file)) = &*cached
            && *n == segno
        {
            return Ok(Some(Arc::clone(file)));
        }
        let tli = self.reserve.lock().tli;
        for t in (1..=tli.get()).rev().map(TimelineId::new) {
            let path = self.files.segment_path(t, segno);
            match self.files.disk.open(&path, Open::Read) {
                Ok(file) => {
                    *cached = Some((segno, Arc::clone(&file)));
                    return Ok(Some(file));
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(WalError::io("open", path, e)),
            }
        }
        Ok(None)
    }

    /// `retry`: the caller cannot go on without it, so a failed attempt is made again.
    fn want_segment(&self, segno: SegNo, retry: bool) {
        let mut m = self.maker.lock();
        if segno > m.want || (retry && m.error.is_some()) {
            m.want = m.want.max(segno);
            if retry {
                m.error = None;
            }
            self.maker_wakes.notify_one();
        }
    }

    fn wait_for_segment(&self, segno: SegNo) -> Result<(), WalError> {
        self.want_segment(segno, true);
        let mut m = self.maker.lock();
        loop {
            if m.made >= segno {
                return Ok(());
            }
            if let Some(e) = &m.error {
                return Err(e.clone());
            }
            if m.stop {
                return Err(WalError::Closed);
            }
            self.segment_made.wait(&mut m);
        }
    }

    /// Thread `wal segments`: keeps the segments that are wanted ready.
    fn run_maker(&self) {
        loop {
            {
                let mut m = self.maker.lock();
                while !m.stop && (m.error.is_some() || m.made >= m.want) {
                    self.maker_wakes.wait(&mut m);
                }
                if m.stop {
                    return;
                }
            }
            let _making = self.making.lock();
            let segno = {
                let m = self.maker.lock();
                if m.made >= m.want {
                    continue;
                }
                m.made.next()
            };
            let tli = self.reserve.lock().tli;
            let made = self.files.install(tli, segno);
            let mut m = self.maker.lock();
            match made {
                Ok(segment) => {
                    let segment = Arc::new(segment);
                    let mut r = self.reserve.lock();
                    self.mapped.write().push_back(Arc::clone(&segment));
                    r.segments.push_back(segment);
                    m.made = segno;
                }
                Err(e) => m.error = Some(e),
            }
            self.segment_made.notify_all();
        }
    }

    /// Maps the WAL anew on `tli` at `end`, after its files changed. `making` and `receive` are held; nobody writes.
    fn reopen(&self, tli: TimelineId, end: Lsn, receive: &mut Receive) -> Result<(), WalError> {
        let bytes = self.files.segment_bytes;
        let current = SegNo::of_end(end, bytes);
        // Segments made ahead under the old timeline or beyond the new end.
        let old_tli = self.reserve.lock().tli;
        for (t, n) in self.files.segments()? {
            if (t == old_tli || t == tli) && n > current {
                let path = self.files.segment_path(t, n);
                self.files.disk.remove(&path).map_err(|e| WalError::io("remove", path, e))?;
            }
        }
        let segment = if SegNo::of(end, bytes) == current { Some(Arc::new(self.files.map(tli, current, end)?)) } else { None };
        let mut m = self.maker.lock();
        let mut r = self.reserve.lock();
        let mut mapped = self.mapped.write();
        mapped.retain(|s| s.end <= end);
        r.segments.clear();
        if let Some(segment) = segment {
            mapped.push_back(Arc::clone(&segment));
            r.segments.push_back(segment);
        }
        r.tli = tli;
        *self.old_file.lock() = None;
        receive.set_tli(tli);
        m.made = current;
        m.want = current;
        m.error = None;
        Ok(())
    }
}

/// Copies a record into its claims, with the segment headers between them.
struct Copier<'a> {
    inner: &'a Inner,
    reserved: &'a mut Reserved,
    /// Claim being written.
    current: usize,
    /// Bytes of the record still to come, padding excluded.
    left: u32,
}

impl<'a> Copier<'a> {
    fn new(inner: &'a Inner, reserved: &'a mut Reserved, total_bytes: u32) -> Self {
        let at_boundary = reserved.range.start != reserved.from;
        let mut copier = Self { inner, reserved, current: 0, left: total_bytes };
        if at_boundary {
            copier.segment_header(copier.reserved.prev, 0);
        }
        copier
    }

    fn segment_header(&mut self, prev: Lsn, continued_bytes: u32) {
        let inner = self.inner;
        let (tli, start_id) = (self.reserved.tli, self.reserved.start_id);
        let (claim, segno) = &mut self.reserved.claims[self.current];
        let header = SegmentHeader {
            system_id: inner.system_id,
            tli,
            segment_bytes: inner.files.segment_bytes,
            segno: *segno,
            start_id,
            flushed_mark: inner.flushed(),
            prev,
            continued_bytes,
        };
        claim.put(&header.encode());
    }

    fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.reserved.claims[self.current].0.room();
            if room == 0 {
                self.current += 1;
                self.segment_header(self.reserved.range.start, self.left);
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.reserved.claims[self.current].0.put(now);
            #[expect(clippy::cast_possible_truncation, reason = "a piece of a record, which has at most 2^30 bytes")]
            {
                self.left -= now.len() as u32;
            }
            bytes = later;
        }
    }

    /// Zeros up to the aligned end.
    fn finish(self) {
        debug_assert_eq!(self.left, 0, "record shorter than reserved");
        self.reserved.claims[self.current].0.fill_zero();
    }
}
