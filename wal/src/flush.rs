//! Group commit: who syncs, who waits, what is durable.
//!
//! One thread syncs as far as anything is published, once for all who asked meanwhile. After each sync it writes `pg_wal/flushed`, a mark that is itself never
//! synced: it may lag behind the truth after a power cut, never run ahead of it. See reader.rs on what it proves.
//!
//! On a standby that receives WAL before its upstream has synced it, there is a *bound* too: WAL behind it may still be lost up there, so it is kept, synced
//! and reported, but not replayed, sent on or archived. What is below both is *confirmed*.

use crate::disk::{Disk, Open};
use crate::error::WalError;
use crate::ids::{Lsn, StartId, SystemId, TimelineId};
use crate::insert::Inner;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
        *self = Self { stop: self.stop, bound, ..Self::at(end) };
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
    Stop,
}

impl Progress {
    fn next(&self, delay_over: bool) -> Next {
        if self.stop {
            Next::Stop
        } else if self.published > self.flushed && (self.requested > self.flushed || delay_over) {
            Next::Sync(self.published)
        } else if self.published > self.flushed || (!delay_over && self.requested > self.flushed) {
            Next::WaitDelay
        } else {
            Next::WaitBytes
        }
    }
}

impl Inner {
    /// Thread `wal flusher`.
    pub(crate) fn run_flusher(&self) {
        let mut p = self.progress.lock();
        // After work the flusher waits one delay before it sleeps until woken by bytes: a busy inserter need not wake it for each record.
        let mut delay_over = false;
        loop {
            match p.next(delay_over) {
                Next::Stop => return,
                Next::Sync(upto) => {
                    let from = p.flushed;
                    drop(p);
                    self.sync_begins(upto);
                    if let Err(e) = self.sync(from, upto) {
                        self.fail(&e);
                        return;
                    }
                    p = self.progress.lock();
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
                        p = self.progress.lock();
                    }
                    delay_over = false;
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

    /// Tells senders of bytes that are about to be synced: they may be on their way meanwhile.
    fn sync_begins(&self, upto: Lsn) {
        self.syncing.store(upto.as_u64(), Ordering::Release);
        let listeners = self.sync_listeners.read();
        if !listeners.is_empty() {
            let positions = self.positions();
            for listener in &*listeners {
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
            drop(p);
            self.flusher_wakes.notify_one();
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
