//! What every access function is given.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use afterimage_wal::{BlockNo, Lsn, RelId, Wal};

use crate::storage::BufferPool;
use crate::txn::{LockManager, Transactions};

/// The small context of access methods and redo: pages, WAL, and who runs. Cheap to clone; the engine embeds one.
#[derive(Clone, Debug)]
pub struct AccessCtx {
    /// Pages.
    pub pool: Arc<BufferPool>,
    /// WAL.
    pub wal: Arc<Wal>,
    /// Status of xids, positions, horizon.
    pub txns: Arc<Transactions>,
    /// Heavyweight and row locks: those of `txns`.
    pub locks: Arc<LockManager>,
    /// Where pruning was tried last.
    pub prune_memo: Arc<PruneMemo>,
}

/// At which position pages were pruned last, or tried to be: before the position moves there is nothing more to gain.
///
/// A hash table without keys: two pages that share a slot only put each other's next try off until the position moves.
#[derive(Debug)]
pub struct PruneMemo(Box<[AtomicU64]>);

impl PruneMemo {
    const SLOTS: u32 = 4096;

    fn new() -> Self {
        Self((0..Self::SLOTS).map(|_| AtomicU64::new(0)).collect())
    }

    /// Whether a try at `position` may gain something; notes the try.
    pub fn try_at(&self, rel: RelId, block: BlockNo, position: Lsn) -> bool {
        let h = (rel.rel.wrapping_mul(0x9e37_79b1) ^ block.get()) % Self::SLOTS;
        let slot = &self.0[usize::try_from(h).unwrap_or(0)];
        slot.swap(position.as_u64(), Ordering::Relaxed) != position.as_u64()
    }
}

impl AccessCtx {
    /// The context of a node.
    pub fn new(pool: Arc<BufferPool>, txns: Arc<Transactions>) -> Self {
        Self { wal: Arc::clone(txns.wal()), locks: Arc::clone(txns.locks()), prune_memo: Arc::new(PruneMemo::new()), pool, txns }
    }
}
