//! Group commit: who syncs, who waits, what is durable.
//!
//! One thread at a time syncs, as far as anything is published, once for all who asked meanwhile: a thread that commits, if it offers to
//! ([`Wal::sync_here`](crate::Wal::sync_here)) and nobody is at it, and the flusher for all others. After each sync it writes `pg_wal/flushed`, a mark that is
//! itself never synced: it may lag behind the truth after a power cut, never run ahead of it. See reader.rs on what it proves.
//!
//! On a standby that receives WAL before its upstream has synced it, there is a *bound* too: WAL behind it may still be lost up there, so it is kept, synced
//! and reported, but not replayed, sent on or archived. What is below both is *confirmed*.

use crate::disk::{Disk, Open};
use crate::error::WalError;
use crate::ids::{Lsn, StartId, SystemId, TimelineId};
use crate::insert::{Inner, abort_on_unwind};
use parking_lot::MutexGuard;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Name of the mark in `pg_wal`.
pub const FLUSHED_FILE: &str = "flushed";
const FLUSHED_MAGIC: u32 = u32::from_le_bytes(*b"AIFL");
/// Bytes of the mark.
pub const FLUSHED_BYTES: usize = 48;

/// The local mark: what this node made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlushedMark {
    /// Cluster.
    pub system_id: SystemId,
    /// Timeline.
    pub tli: TimelineId,
    /// WAL below was synced on this node.
    pub flushed: Lsn,
    /// Start id in force.
    pub start_id: StartId,
    /// The last so many bytes below `flushed` were received ahead of the upstream's sync and not confirmed; [`u32::MAX`]: that many or more.
    pub held_bytes: u32,
}

impl FlushedMark {
    /// WAL below was confirmed when the mark was written.
    pub fn confirmed(&self) -> Lsn {
        if self.held_bytes == u32::MAX {
            return Lsn::INVALID;
        }
        Lsn::new(self.flushed.as_u64().saturating_sub(u64::from(self.held_bytes)))
    }

    /// What `held_bytes` says for this bound.
    fn hold(&mut self, bound: Lsn) {
        let held = self.flushed.bytes_since(bound).unwrap_or(0);
        self.held_bytes = u32::try_from(held).unwrap_or(u32::MAX);
    }

    /// The bytes: magic, version, system id, timeline, zero, flushed LSN, start id, bytes held back, crc.
    pub fn encode(&self) -> [u8; FLUSHED_BYTES] {
        let mut b = [0; FLUSHED_BYTES];
        b[0..4].copy_from_slice(&FLUSHED_MAGIC.to_le_bytes());
        b[4..6].copy_from_slice(&crate::format::VERSION.to_le_bytes());
        b[8..16].copy_from_slice(&self.system_id.to_le_bytes());
        b[16..20].copy_from_slice(&self.tli.to_le_bytes());
        b[24..32].copy_from_slice(&self.flushed.to_le_bytes());
        b[32..40].copy_from_slice(&self.start_id.to_le_bytes());
        b[40..44].copy_from_slice(&self.held_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&b[..44]);
        b[44..].copy_from_slice(&crc.to_le_bytes());
        b
    }

    /// From the bytes; `None` if they are not a mark.
    pub fn decode(b: &[u8]) -> Option<Self> {
        let b: &[u8; FLUSHED_BYTES] = b.try_into().ok()?;
        let word = |at: usize| b[at..at + 4].try_into().ok().map(u32::from_le_bytes);
        let long = |at: usize| b[at..at + 8].try_into().ok().map(u64::from_le_bytes);
        if word(0)? != FLUSHED_MAGIC || word(4)? != u32::from(crate::format::VERSION) || word(44)? != crc32c::crc32c(&b[..44]) {
            return None;
        }
        Some(Self {
            system_id: SystemId::new(long(8)?),
            tli: TimelineId::new(word(16)?),
            flushed: Lsn::new(long(24)?),
            start_id: StartId::new(long(32)?),
            held_bytes: word(40)?,
        })
    }

    /// Reads the mark of `dir` (`pg_wal`). `None` if there is none, or if a power cut left none that is whole.
    ///
    /// # Errors
    /// [`WalError::Io`].
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, WalError> {
        let path = dir.join(FLUSHED_FILE);
        let file = match disk.open(&path, Open::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(WalError::io("open", path, e)),
        };
        let mut buf = [0; FLUSHED_BYTES];
        let n = file.read_at(&mut buf, 0).map_err(|e| WalError::io("read", path, e))?;
        Ok(Self::decode(&buf[..n]))
    }
}

/// What is published and flushed, and who waits for it. Under `Inner::progress`.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) published: Lsn,
    flushed: Lsn,
    /// What lies behind is not confirmed; [`Lsn::MAX`]: there is no bound.
    bound: Lsn,
    /// Copied, but something before them is not; in order. Long only while a thread is held up in the middle of its copy.
    pending: VecDeque<(Lsn, Lsn)>,
    /// Durability was asked for up to here.
    requested: Lsn,
    /// The flusher sleeps and is to be woken when `published` reaches this; [`Lsn::MAX`]: not by publishing.
    wake_at: Lsn,
    /// A thread syncs, or tells of what it synced. Stays when a sync failed: there is no other after it.
    syncing: bool,
    /// The flusher sleeps until another thread has synced.
    flusher_waits: bool,
    stop: bool,
}

impl Progress {
    pub(crate) fn at(end: Lsn) -> Self {
        Self {
            published: end,
            flushed: end,
            bound: Lsn::MAX,
            pending: VecDeque::new(),
            requested: Lsn::INVALID,
            wake_at: Lsn::MAX,
            syncing: false,
            flusher_waits: false,
            stop: false,
        }
    }

    /// As [`Self::at`], with what lies behind `bound` not confirmed.
    pub(crate) fn held_at(end: Lsn, bound: Lsn) -> Self {
        Self { bound, ..Self::at(end) }
    }

    /// `from..end` was copied.
    pub(crate) fn complete(&mut self, from: Lsn, end: Lsn) {
        if from != self.published {
            // Nearly always it belongs at the end or close to it.
            let i = self.pending.iter().rposition(|&(other, _)| other < from).map_or(0, |i| i + 1);
            self.pending.insert(i, (from, end));
            return;
        }
        self.published = end;
        while self.pending.front().is_some_and(|&(from, _)| from == self.published) {
            self.published = self.pending.pop_front().expect("there is a front").1;
        }
    }

    /// True once per sleep of the flusher, when it is to be woken.
    pub(crate) fn flusher_due(&mut self) -> bool {
        let due = self.published >= self.wake_at;
        if due {
            self.wake_at = Lsn::MAX;
        }
        due
    }

    /// The WAL ends at `end` now. A bound stays one, though nothing is held back any more.
    pub(crate) fn cut(&mut self, end: Lsn) {
        let bound = if self.bound == Lsn::MAX { Lsn::MAX } else { self.bound.min(end) };
        *self = Self { stop: self.stop, syncing: self.syncing, flusher_waits: self.flusher_waits, bound, ..Self::at(end) };
    }

    pub(crate) fn bound(&self) -> Lsn {
        self.bound
    }

    /// Begins a bound where the WAL ends, unless one lies before.
    fn hold(&mut self) {
        self.bound = self.bound.min(self.published);
    }

    /// Raises the bound. True if that confirms something that is durable here.
    fn confirm(&mut self, upto: Lsn) -> bool {
        if self.bound == Lsn::MAX || upto <= self.bound {
            return false;
        }
        let held = self.bound < self.flushed;
        self.bound = upto;
        held
    }

    pub(crate) fn stop(&mut self) {
        self.stop = true;
    }
}

/// What the flusher does next: decided here, done in `run_flusher`.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Sync(Lsn),
    /// Nobody asked; bytes are published: wait for a request, or this delay, then sync.
    WaitDelay,
    /// Everything is flushed: wait for a request, or for the first byte published.
    WaitBytes,
    /// Another thread syncs: wait until it has.
    WaitSync,
    Stop,
}

impl Progress {
    fn next(&self, delay_over: bool) -> Next {
        if self.stop {
            Next::Stop
        } else if self.syncing {
            Next::WaitSync
        } else if self.published > self.flushed && (self.requested > self.flushed || delay_over) {
            Next::Sync(self.published)
        } else if self.published > self.flushed || (!delay_over && self.requested > self.flushed) {
            Next::WaitDelay
        } else {
            Next::WaitBytes
        }
    }

    /// Whether whoever wants durability up to `upto` may sync now: nobody else does, and everything below is there to be synced.
    fn is_free_for(&self, upto: Lsn) -> bool {
        !self.stop && !self.syncing && self.published >= upto
    }

    /// Begins a sync of all that is published: of these bytes.
    fn begin_sync(&mut self) -> (Lsn, Lsn) {
        debug_assert!(!self.syncing, "two threads sync");
        self.syncing = true;
        (self.flushed, self.published)
    }

    /// That sync is over and told. True if the flusher is to be woken: more was asked for meanwhile, or it waits for this.
    fn end_sync(&mut self) -> bool {
        self.syncing = false;
        std::mem::take(&mut self.flusher_waits) || self.requested > self.flushed
    }
}

/// A thread that others' work waits for syncs only while syncs take no longer than this, on average.
const QUICK_SYNC: Duration = Duration::from_micros(500);
/// Once such a sync takes longer than this, what waits for its thread is to be looked after by others.
const STALLED_SYNC: Duration = Duration::from_millis(10);

impl Inner {
    /// Thread `wal flusher`.
    pub(crate) fn run_flusher(&self) {
        let mut p = self.progress.lock();
        // After work the flusher waits one delay before it sleeps until woken by bytes: a busy inserter need not wake it for each record.
        let mut delay_over = false;
        loop {
            match p.next(delay_over) {
                Next::Stop => return,
                Next::Sync(_) => {
                    // What is asked for meanwhile is this thread's next turn.
                    if !self.sync_published(p) {
                        return;
                    }
                    p = self.progress.lock();
                    p.end_sync();
                    delay_over = false;
                }
                Next::WaitSync => {
                    p.wake_at = Lsn::MAX;
                    p.flusher_waits = true;
                    let long = if self.failed.get().is_none() {
                        self.flusher_wakes.wait_for(&mut p, STALLED_SYNC).timed_out()
                    } else {
                        self.flusher_wakes.wait(&mut p);
                        false
                    };
                    p.flusher_waits = false;
                    delay_over = false;
                    if long && p.syncing {
                        MutexGuard::unlocked(&mut p, || {
                            if let Some(handler) = &*self.on_stalled_sync.read() {
                                handler();
                            }
                        });
                    }
                }
                Next::WaitDelay => {
                    p.wake_at = if p.requested > p.flushed { p.published.advance(1) } else { Lsn::MAX };
                    delay_over = self.flusher_wakes.wait_for(&mut p, self.options.writer_delay).timed_out();
                }
                Next::WaitBytes if !delay_over => {
                    p.wake_at = Lsn::MAX;
                    delay_over = self.flusher_wakes.wait_for(&mut p, self.options.writer_delay).timed_out();
                }
                Next::WaitBytes => {
                    p.wake_at = p.published.advance(1);
                    self.flusher_wakes.wait(&mut p);
                    delay_over = false;
                }
            }
        }
    }

    /// Syncs all that is published, and tells. `Progress::syncing` is this thread's when it returns. False: the sync failed, and the WAL with it.
    fn sync_published(&self, mut p: MutexGuard<'_, Progress>) -> bool {
        let (from, upto) = p.begin_sync();
        drop(p);
        // An unwind would leave a sync that nobody ends.
        abort_on_unwind(|| {
            self.sync_begins(upto);
            let began = Instant::now();
            if let Err(e) = self.sync(from, upto) {
                self.fail(&e);
                return false;
            }
            self.note_sync_time(began.elapsed());
            let mut p = self.progress.lock();
            // A cut (discard_after) may have come between; then nothing is claimed.
            if p.flushed == from && p.published >= upto {
                p.flushed = upto;
                self.flushed.store(upto.as_u64(), Ordering::Release);
                drop(p);
                self.flushed_moved.notify_all();
                let positions = self.positions();
                for listener in &*self.flush_listeners.read() {
                    listener(positions);
                }
                self.retire(upto);
            }
            true
        })
    }

    fn note_sync_time(&self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let mean = self.sync_nanos.load(Ordering::Relaxed);
        // Two threads never sync at once.
        self.sync_nanos.store(mean - mean / 8 + took / 8, Ordering::Relaxed);
    }

    /// Syncs on this thread if that is quick and nobody is at it, nor anybody to be told before; else has the flusher do it. Waits for nobody.
    pub(crate) fn sync_here(&self, upto: Lsn) {
        if self.flushed() >= upto {
            return;
        }
        let quick = u128::from(self.sync_nanos.load(Ordering::Relaxed)) <= QUICK_SYNC.as_nanos();
        // Senders that are told of a sync work while it runs: not on a thread that is busy with it.
        if !quick || self.sync_followers.load(Ordering::Relaxed) > 0 {
            return self.request_flush(upto);
        }
        let mut p = self.progress.lock();
        if p.flushed >= upto || self.failed.get().is_some() {
            return;
        }
        p.requested = p.requested.max(upto);
        if !p.is_free_for(upto) {
            let busy = p.syncing;
            drop(p);
            if !busy {
                self.flusher_wakes.notify_one();
            }
            return;
        }
        if self.sync_published(p) {
            let wake = self.progress.lock().end_sync();
            if wake {
                self.flusher_wakes.notify_one();
            }
        }
    }

    /// Makes `from..upto`, all published, durable.
    fn sync(&self, from: Lsn, upto: Lsn) -> Result<(), WalError> {
        let segments: Vec<_> = self.mapped.read().iter().filter(|s| s.end > from && s.start < upto).cloned().collect();
        for s in segments {
            // Everything below `published`, so below `upto`, was written before `published` moved there.
            s.map.publish(s.offset(upto));
            let synced = s.map.sync(s.offset(from)..s.offset(upto));
            synced.map_err(|e| WalError::Sync { upto, path: s.path.clone(), source: Arc::new(e) })?;
            self.stats.syncs.fetch_add(1, Ordering::Relaxed);
        }
        self.write_flushed_file(upto)
    }

    /// Tells senders of bytes that are about to be synced, unless they were told: they may be on their way meanwhile. The thread that asks for
    /// a sync does so if none runs, else who syncs next: what comes during a sync goes off in one piece.
    fn sync_begins(&self, upto: Lsn) {
        let told = self.syncing.fetch_max(upto.as_u64(), Ordering::AcqRel);
        if told < upto.as_u64() && self.sync_followers.load(Ordering::Relaxed) > 0 {
            let positions = self.positions();
            for listener in &*self.sync_listeners.read() {
                listener(positions);
            }
        }
    }

    pub(crate) fn write_flushed_file(&self, flushed: Lsn) -> Result<(), WalError> {
        let (tli, start_id) = {
            let r = self.reserve.lock();
            (r.tli, r.start_id)
        };
        let mut mark = self.mark.lock();
        *mark = FlushedMark { system_id: self.system_id, tli, flushed, start_id, held_bytes: 0 };
        self.write_mark(&mut mark)
    }

    fn write_mark(&self, mark: &mut FlushedMark) -> Result<(), WalError> {
        mark.hold(self.bound());
        self.flushed_file.write_at(&mark.encode(), 0).map_err(|e| WalError::io("write", self.files.dir.join(FLUSHED_FILE), e))
    }

    pub(crate) fn hold(&self) {
        let mut p = self.progress.lock();
        p.hold();
        self.bound.store(p.bound.as_u64(), Ordering::Release);
    }

    pub(crate) fn confirm(&self, upto: Lsn) -> Result<(), WalError> {
        let moved = {
            let mut p = self.progress.lock();
            let moved = p.confirm(upto);
            self.bound.store(p.bound.as_u64(), Ordering::Release);
            moved
        };
        if moved { self.confirmed_moved() } else { Ok(()) }
    }

    pub(crate) fn release(&self) -> Result<(), WalError> {
        let moved = {
            let mut p = self.progress.lock();
            let moved = p.bound < p.flushed;
            p.bound = Lsn::MAX;
            self.bound.store(p.bound.as_u64(), Ordering::Release);
            moved
        };
        if moved { self.confirmed_moved() } else { Ok(()) }
    }

    fn confirmed_moved(&self) -> Result<(), WalError> {
        let written = self.write_mark(&mut self.mark.lock());
        let positions = self.positions();
        for listener in &*self.flush_listeners.read() {
            listener(positions);
        }
        written
    }

    /// Unmaps segments that are durable, all but the last: senders that keep up still read there.
    fn retire(&self, flushed: Lsn) {
        let done = |s: &Arc<crate::segment::Segment>| s.end <= flushed;
        if self.mapped.read().iter().filter(|s| done(s)).count() < 2 {
            return;
        }
        let mut mapped = self.mapped.write();
        while mapped.get(1).is_some_and(done) {
            mapped.pop_front();
        }
    }

    pub(crate) fn flush(&self, upto: Lsn) -> Result<(), WalError> {
        if self.flushed() >= upto {
            return Ok(());
        }
        let inserted = self.inserted();
        if upto > inserted {
            return Err(WalError::FlushBeyondEnd { upto, inserted });
        }
        self.request_flush(upto);
        let mut p = self.progress.lock();
        loop {
            if p.flushed >= upto {
                return Ok(());
            }
            if let Some(e) = self.failed.get() {
                return Err(e.clone());
            }
            if p.stop {
                return Err(WalError::Closed);
            }
            self.flushed_moved.wait(&mut p);
        }
    }

    pub(crate) fn request_flush(&self, upto: Lsn) {
        if self.flushed() >= upto {
            return;
        }
        let mut p = self.progress.lock();
        if upto > p.requested {
            p.requested = upto;
            // Who syncs looks at what was asked for when he is done, and says so before he goes on.
            let (busy, published) = (p.syncing, p.published);
            drop(p);
            if !busy {
                self.flusher_wakes.notify_one();
                // The flusher takes a moment to wake up; who sends need not wait for that.
                self.sync_begins(published);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn l(n: u64) -> Lsn {
        Lsn::new(n)
    }

    #[test]
    fn records_are_published_in_order_whatever_the_order_of_copying() {
        let mut p = Progress::at(l(8));
        p.complete(l(24), l(32));
        p.complete(l(16), l(24));
        assert_eq!(p.published, l(8));
        p.complete(l(8), l(16));
        assert_eq!(p.published, l(32));
        assert!(p.pending.is_empty());
    }

    #[test]
    fn flusher_syncs_when_asked_or_after_the_delay() {
        let mut p = Progress::at(l(8));
        assert_eq!(p.next(false), Next::WaitBytes);
        p.complete(l(8), l(16));
        assert_eq!(p.next(false), Next::WaitDelay);
        assert_eq!(p.next(true), Next::Sync(l(16)));
        p.requested = l(16);
        assert_eq!(p.next(false), Next::Sync(l(16)));
        p.flushed = l(16);
        assert_eq!(p.next(true), Next::WaitBytes);
        // Asked for a record that is still being copied.
        p.requested = l(24);
        assert_eq!(p.next(false), Next::WaitDelay);
    }

    #[test]
    fn one_thread_syncs_at_a_time_and_leaves_the_flusher_what_was_asked_for_meanwhile() {
        let mut p = Progress::at(l(8));
        p.complete(l(8), l(16));
        // Another thread copies 16..24 still.
        assert!(p.is_free_for(l(16)) && !p.is_free_for(l(24)));
        p.requested = l(16);
        assert_eq!(p.begin_sync(), (l(8), l(16)));
        p.complete(l(16), l(24));
        p.requested = l(24);
        assert!(!p.is_free_for(l(24)));
        assert_eq!(p.next(false), Next::WaitSync);
        p.flushed = l(16);
        assert!(p.end_sync());
        assert_eq!(p.next(false), Next::Sync(l(24)));
        assert_eq!(p.begin_sync(), (l(16), l(24)));
        p.flushed = l(24);
        assert!(!p.end_sync());
        // Nothing more was asked for, but the flusher sleeps until this is over.
        p.complete(l(24), l(32));
        p.begin_sync();
        p.flusher_waits = true;
        p.flushed = l(32);
        assert!(p.end_sync());
        p.stop();
        assert!(!p.is_free_for(l(32)));
    }

    #[test]
    fn what_is_held_back_is_confirmed_by_the_bound_or_by_letting_go() {
        let mut p = Progress::at(l(8));
        assert!(!p.confirm(l(100)) && p.bound() == Lsn::MAX);
        p.hold();
        p.complete(l(8), l(40));
        p.flushed = l(40);
        assert_eq!(p.bound(), l(8));
        assert!(p.confirm(l(24)));
        assert!(!p.confirm(l(16)));
        // The upstream is ahead of what came: nothing is held back then.
        assert!(p.confirm(l(64)));
        assert!(!p.confirm(l(72)));
        assert_eq!(p.bound(), l(72));
        p.hold();
        assert_eq!(p.bound(), l(40));
        p.cut(l(16));
        assert_eq!(p.bound(), l(16));
    }

    #[test]
    fn mark_reads_back_and_no_flipped_bit_passes() {
        let mut mark =
            FlushedMark { system_id: SystemId::new(7), tli: TimelineId::new(2), flushed: l(99), start_id: StartId::new(5), held_bytes: 0 };
        assert_eq!(mark.confirmed(), l(99));
        mark.hold(l(90));
        assert_eq!((mark.held_bytes, mark.confirmed()), (9, l(90)));
        let bytes = mark.encode();
        assert_eq!(FlushedMark::decode(&bytes), Some(mark));
        for bit in 0..bytes.len() * 8 {
            let mut b = bytes;
            b[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FlushedMark::decode(&b), None);
        }
        assert_eq!(FlushedMark::decode(&bytes[..47]), None);
    }
}
