//! What every access function is given.

use std::sync::Arc;

use afterimage_wal::Wal;

use crate::storage::BufferPool;

/// The small context of access methods and redo: pages, WAL, and who runs. Cheap to clone; the engine embeds one.
#[derive(Clone, Debug)]
pub struct AccessCtx {
    /// Pages.
    pub pool: Arc<BufferPool>,
    /// WAL.
    pub wal: Arc<Wal>,
}
