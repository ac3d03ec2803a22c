//! Looks ahead in the WAL and asks for the pages that replay will need soon, so that their reads overlap.
//!
//! A second reader runs ahead of the one that replays, at most `wal_decode_buffer_size` bytes, and tells the kernel which blocks will be read
//! (`posix_fadvise`). What it says is advice: it verifies no checksums, and WAL that is replaced meanwhile costs a useless read and nothing else.
//! So nothing here can fail: where it cannot go on it waits until replay has passed that place.
//!
//! PostgreSQL: access/transam/xlogprefetcher.c.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use afterimage_wal::{BlockNo, Fork, Lsn, Record, RelId, Wal, WalReader, reader::FollowLimit, rmgr};
use rustc_hash::{FxHashMap, FxHashSet};

use super::progress::Progress;
use crate::storage::{BufferPool, PageTag, smgr_redo::SmgrRecord};

/// How far and whether to look ahead. Reloadable but for the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefetchSettings {
    /// `recovery_prefetch` is not `off`.
    pub enabled: bool,
    /// `maintenance_io_concurrency`: reads asked for and not replayed yet.
    pub io_concurrency: usize,
    /// `wal_decode_buffer_size`: most bytes to look ahead.
    pub decode_bytes: u64,
}

impl Default for PrefetchSettings {
    fn default() -> Self {
        Self { enabled: true, io_concurrency: 10, decode_bytes: 512 << 10 }
    }
}

/// Counters for `pg_stat_recovery_prefetch`.
#[derive(Debug, Default)]
pub struct PrefetchStats {
    /// Blocks asked for.
    pub prefetch: AtomicU64,
    /// Blocks that were in the buffer pool.
    pub hit: AtomicU64,
    /// Blocks that redo makes anew.
    pub skip_init: AtomicU64,
    /// Blocks that do not exist yet.
    pub skip_new: AtomicU64,
    /// Blocks with a full page image.
    pub skip_fpw: AtomicU64,
    /// Blocks that were looked at a moment ago, or asked for and not replayed yet.
    pub skip_rep: AtomicU64,
    /// Bytes looked ahead now.
    pub wal_distance: AtomicU64,
    /// Block references looked ahead now.
    pub block_distance: AtomicU64,
    /// Reads asked for and not replayed yet.
    pub io_depth: AtomicU64,
    /// When the counters were reset, microseconds since 2000; zero: not since the start.
    reset_at: AtomicI64,
}

impl PrefetchStats {
    /// When the counters were reset last, if they were.
    pub fn reset_at(&self) -> Option<i64> {
        Some(self.reset_at.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }

    /// Counters back to zero. Distances stay: they are not sums.
    pub fn reset(&self, now: i64) {
        for counter in [&self.prefetch, &self.hit, &self.skip_init, &self.skip_new, &self.skip_fpw, &self.skip_rep] {
            counter.store(0, Ordering::Relaxed);
        }
        self.reset_at.store(now, Ordering::Relaxed);
    }

    fn set_distances(&self, wal: u64, blocks: usize, io: usize) {
        self.wal_distance.store(wal, Ordering::Relaxed);
        self.block_distance.store(u64::try_from(blocks).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.io_depth.store(u64::try_from(io).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// While reads in flight are fewer than allowed, so many times as many block references are looked at. PostgreSQL looks at 4, most of which are
/// images there; here nearly each is a page to be read, but most are in memory, and few of them must not keep the disk from working.
const DISTANCE_MULTIPLIER: usize = 64;
/// Blocks remembered so as not to look for them twice in a row.
const RECENT: usize = 4;
/// The distances are published each time replay has moved so far.
const STATS_BYTES: u64 = 8192;

/// A range of a relation that does not exist before a record is replayed.
#[derive(Clone, Copy)]
struct Filter {
    from: BlockNo,
    until: Lsn,
}

/// A block reference that was looked at and is not replayed yet.
struct Ahead {
    end: Lsn,
    /// The read that was asked for.
    asked: Option<(RelId, BlockNo)>,
}

/// Looks ahead for one replay.
pub(super) struct Prefetcher {
    pool: Arc<BufferPool>,
    wal: Arc<Wal>,
    progress: Arc<Progress>,
    settings: PrefetchSettings,
    /// `None` before it begins, and after it met what it cannot read.
    reader: Option<WalReader>,
    /// Nothing can be read ahead before this is replayed.
    stalled_until: Lsn,
    ahead: VecDeque<Ahead>,
    /// Blocks asked for and not replayed yet.
    in_flight: FxHashSet<(RelId, BlockNo)>,
    filters: FxHashMap<RelId, Filter>,
    /// Least end of a filter.
    next_filter_end: Lsn,
    recent: [Option<(RelId, BlockNo)>; RECENT],
    recent_at: usize,
    published: Lsn,
}

impl Prefetcher {
    pub(super) fn new(pool: &Arc<BufferPool>, wal: &Arc<Wal>, progress: &Arc<Progress>, settings: PrefetchSettings) -> Self {
        Self {
            pool: Arc::clone(pool),
            wal: Arc::clone(wal),
            progress: Arc::clone(progress),
            settings,
            reader: None,
            stalled_until: Lsn::INVALID,
            ahead: VecDeque::new(),
            in_flight: FxHashSet::default(),
            filters: FxHashMap::default(),
            next_filter_end: Lsn::MAX,
            recent: [None; RECENT],
            recent_at: 0,
            published: Lsn::INVALID,
        }
    }

    /// Takes over changed settings.
    pub(super) fn set(&mut self, settings: PrefetchSettings) {
        if settings != self.settings {
            self.settings = settings;
            self.forget();
        }
    }

    /// Begins anew at the next look.
    fn forget(&mut self) {
        self.reader = None;
        self.stalled_until = Lsn::INVALID;
        self.ahead.clear();
        self.in_flight.clear();
        self.filters.clear();
        self.next_filter_end = Lsn::MAX;
        self.progress.prefetch.set_distances(0, 0, 0);
    }

    /// All WAL before `replayed` is applied: looks at what follows as far as the limits allow.
    pub(super) fn look_ahead(&mut self, replayed: Lsn) {
        if !self.settings.enabled || self.settings.io_concurrency == 0 {
            return;
        }
        while let Some(first) = self.ahead.front()
            && first.end <= replayed
        {
            if let Some(block) = &first.asked {
                self.in_flight.remove(block);
            }
            self.ahead.pop_front();
        }
        if self.next_filter_end <= replayed {
            self.filters.retain(|_, filter| filter.until > replayed);
            self.next_filter_end = self.filters.values().map(|filter| filter.until).min().unwrap_or(Lsn::MAX);
        }
        if replayed >= self.stalled_until {
            self.read(replayed);
        }
        if replayed.bytes_since(self.published).is_none_or(|n| n >= STATS_BYTES) || self.ahead.is_empty() {
            self.published = replayed;
            let distance = self.reader.as_ref().and_then(|r| r.position().bytes_since(replayed)).unwrap_or(0);
            self.progress.prefetch.set_distances(distance, self.ahead.len(), self.in_flight.len());
        }
    }

    fn read(&mut self, replayed: Lsn) {
        let mut reader = match self.reader.take() {
            Some(reader) if reader.position() >= replayed => reader,
            // Replay overtook it, or it begins.
            _ => WalReader::follow(Arc::clone(&self.wal), replayed, FollowLimit::Confirmed).without_checksums(),
        };
        let blocks = self.settings.io_concurrency.saturating_mul(DISTANCE_MULTIPLIER);
        while self.in_flight.len() < self.settings.io_concurrency
            && self.ahead.len() < blocks
            && reader.position().bytes_since(replayed).is_some_and(|n| n < self.settings.decode_bytes)
        {
            let readable = match reader.next() {
                Ok(Some(record)) => {
                    self.look_at(&record);
                    continue;
                }
                Ok(None) => true,
                Err(_unreadable) => false,
            };
            self.stalled_until = reader.position();
            if !readable {
                // Begins anew behind that place.
                return;
            }
            break;
        }
        self.reader = Some(reader);
    }

    fn look_at(&mut self, record: &Record<'_>) {
        let end = record.end();
        if record.rmgr() == rmgr::SMGR
            && let Some(change) = SmgrRecord::decode(record.kind(), record.main())
        {
            // Blocks of one generation of a relation must not be taken for those of the next.
            match change {
                SmgrRecord::Create(rel, Fork::Main) | SmgrRecord::Unlink(rel) => self.filter(rel, BlockNo::new(0), end),
                SmgrRecord::Extend(rel, Fork::Main, from, _) | SmgrRecord::Truncate(rel, Fork::Main, from, _) => {
                    self.filter(rel, from, end)
                }
                SmgrRecord::Create(..) | SmgrRecord::Extend(..) | SmgrRecord::Truncate(..) => {}
            }
        }
        for block in record.blocks() {
            let tag = PageTag { rel: block.rel, fork: block.fork, block: block.block };
            let asked = self.wants_read(tag, block.is_fpi(), block.will_init(), end).then_some((tag.rel, tag.block));
            self.in_flight.extend(asked);
            self.ahead.push_back(Ahead { end, asked });
        }
    }

    fn filter(&mut self, rel: RelId, from: BlockNo, until: Lsn) {
        let filter = self.filters.entry(rel).or_insert(Filter { from, until });
        *filter = Filter { from: filter.from.min(from), until: filter.until.max(until) };
        self.next_filter_end = self.next_filter_end.min(until);
    }

    /// Looks at one block; true if a read was asked for.
    fn wants_read(&mut self, tag: PageTag, is_fpi: bool, will_init: bool, end: Lsn) -> bool {
        if tag.fork != Fork::Main {
            return false;
        }
        let progress = Arc::clone(&self.progress);
        let stats = &progress.prefetch;
        if is_fpi {
            count(&stats.skip_fpw);
            return false;
        }
        if will_init {
            count(&stats.skip_init);
            return false;
        }
        if self.filters.get(&tag.rel).is_some_and(|filter| filter.from <= tag.block) {
            count(&stats.skip_new);
            return false;
        }
        if self.recent.contains(&Some((tag.rel, tag.block))) || self.in_flight.contains(&(tag.rel, tag.block)) {
            count(&stats.skip_rep);
            return false;
        }
        self.recent[self.recent_at] = Some((tag.rel, tag.block));
        self.recent_at = (self.recent_at + 1) % RECENT;
        if self.pool.holds(tag) {
            count(&stats.hit);
            return false;
        }
        let exists = self.pool.files().exists(tag.rel, tag.fork).unwrap_or(false);
        let blocks = self.pool.n_blocks(tag.rel, tag.fork).unwrap_or(BlockNo::new(0));
        if !exists || tag.block >= blocks {
            // Dropped later, or made by what is not replayed yet.
            self.filter(tag.rel, if exists { tag.block } else { BlockNo::new(0) }, end);
            count(&stats.skip_new);
            return false;
        }
        if self.pool.files().will_need(tag).is_err() {
            return false;
        }
        count(&stats.prefetch);
        true
    }
}

impl Drop for Prefetcher {
    fn drop(&mut self) {
        self.progress.prefetch.set_distances(0, 0, 0);
    }
}
