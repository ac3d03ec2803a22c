//! What every access function is given.

use std::sync::Arc;

use afterimage_wal::Wal;

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
}

impl AccessCtx {
    /// The context of a node.
    pub fn new(pool: Arc<BufferPool>, txns: Arc<Transactions>) -> Self {
        Self { wal: Arc::clone(txns.wal()), locks: Arc::clone(txns.locks()), pool, txns }
    }
}
