//! At which LSN each recent xid was decided: memory only, dense by xid, freed below the settled floor.
//!
//! After a restart no snapshot is older than any commit, so nothing of this needs to survive.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use afterimage_wal::ids::{Lsn, Xid};
use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// Xids per chunk: 32 KiB of LSNs.
const CHUNK: u64 = 4096;

type Chunk = Arc<[AtomicU64]>;

struct Chunks {
    /// Number of the first chunk.
    first: u64,
    chunks: Vec<Chunk>,
}

/// The table.
pub struct CommitLsns {
    /// Xids below are settled: finished, and decided before any snapshot that is or will be.
    floor: AtomicU64,
    chunks: ArcSwap<Chunks>,
    /// Held while the list of chunks is replaced. Rank 88, leaf.
    grow: Mutex<()>,
}

impl CommitLsns {
    /// A table in which everything below `floor` is settled.
    pub fn new(floor: Xid) -> Self {
        let first = floor.as_u64() / CHUNK;
        Self {
            floor: AtomicU64::new(floor.as_u64()),
            chunks: ArcSwap::from_pointee(Chunks { first, chunks: Vec::new() }),
            grow: Mutex::new(()),
        }
    }

    /// Xids below it need no comparison: committed means visible to all.
    #[inline]
    pub fn floor(&self) -> Xid {
        Xid::from_u64(self.floor.load(Ordering::Acquire))
    }

    /// Notes where `xid` was decided. Before its status is set.
    pub fn set(&self, xid: Xid, lsn: Lsn) {
        let (chunk, at) = (xid.as_u64() / CHUNK, usize::try_from(xid.as_u64() % CHUNK).unwrap_or(0));
        loop {
            {
                let c = self.chunks.load();
                let Some(i) = chunk.checked_sub(c.first) else { return };
                if let Some(slots) = usize::try_from(i).ok().and_then(|i| c.chunks.get(i)) {
                    // Release, paired with Acquire in `get`; the status that follows is stored with Release as well.
                    slots[at].store(lsn.as_u64(), Ordering::Release);
                    return;
                }
            }
            let _g = self.grow.lock();
            let c = self.chunks.load();
            let have = c.first + u64::try_from(c.chunks.len()).unwrap_or(u64::MAX);
            if chunk >= have {
                let mut chunks = c.chunks.clone();
                for _ in have..=chunk {
                    chunks.push((0..CHUNK).map(|_| AtomicU64::new(0)).collect());
                }
                self.chunks.store(Arc::new(Chunks { first: c.first, chunks }));
            }
        }
    }

    /// Where a decided `xid` was decided; INVALID if that was before any snapshot that can ask.
    #[inline]
    pub fn get(&self, xid: Xid) -> Lsn {
        if xid < self.floor() {
            return Lsn::INVALID;
        }
        let c = self.chunks.load();
        let slots = (xid.as_u64() / CHUNK).checked_sub(c.first).and_then(|i| usize::try_from(i).ok()).and_then(|i| c.chunks.get(i));
        match slots {
            Some(s) => Lsn::from_u64(s[usize::try_from(xid.as_u64() % CHUNK).unwrap_or(0)].load(Ordering::Acquire)),
            None => Lsn::INVALID,
        }
    }

    /// Raises the floor and frees what lies below it.
    pub fn settle(&self, floor: Xid) {
        if self.floor.fetch_max(floor.as_u64(), Ordering::AcqRel) >= floor.as_u64() {
            return;
        }
        let first = floor.as_u64() / CHUNK;
        let _g = self.grow.lock();
        let c = self.chunks.load();
        let Some(drop) = first.checked_sub(c.first).filter(|n| *n > 0) else { return };
        let drop = usize::try_from(drop).unwrap_or(usize::MAX).min(c.chunks.len());
        if drop > 0 || c.chunks.is_empty() {
            let chunks = c.chunks[drop..].to_vec();
            let first = if chunks.is_empty() { first } else { c.first + u64::try_from(drop).unwrap_or(0) };
            self.chunks.store(Arc::new(Chunks { first, chunks }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsns_are_kept_from_the_floor_on() {
        let t = CommitLsns::new(Xid::from_u64(5000));
        for x in [5000u64, 5001, 8191, 8192, 20000] {
            t.set(Xid::from_u64(x), Lsn::from_u64(x * 8));
        }
        assert_eq!(t.get(Xid::from_u64(20000)), Lsn::from_u64(160_000));
        assert_eq!(t.get(Xid::from_u64(5001)), Lsn::from_u64(40_008));
        assert_eq!(t.get(Xid::from_u64(4999)), Lsn::INVALID);
        assert_eq!(t.get(Xid::from_u64(6000)), Lsn::INVALID);
        t.settle(Xid::from_u64(9000));
        assert_eq!(t.get(Xid::from_u64(8192)), Lsn::INVALID);
        assert_eq!(t.get(Xid::from_u64(20000)), Lsn::from_u64(160_000));
        t.settle(Xid::from_u64(100_000));
        t.set(Xid::from_u64(100_001), Lsn::from_u64(8));
        assert_eq!(t.get(Xid::from_u64(100_001)), Lsn::from_u64(8));
        assert_eq!(t.get(Xid::from_u64(20000)), Lsn::INVALID);
    }
}
