//! Blocks that redo asked for and did not find.
//!
//! Before the consistent point that is normal: the data directory may be newer than the record, and a later truncate or drop
//! removed the block. So each is noted, and a later truncate or drop explains it. At the consistent point none may be left; after it
//! a missing block is an error at once. PostgreSQL: `log_invalid_page` in xlogutils.c.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

use afterimage_wal::{BlockNo, Fork, RelId};
use parking_lot::Mutex;

use super::{StorageError, buffer_pool::PageTag, files::Files};

/// The blocks not explained yet.
#[derive(Debug, Default)]
pub struct MissingBlocks {
    /// Leaf lock.
    blocks: Mutex<BTreeSet<PageTag>>,
    /// Set once at the consistent point, before sessions read.
    consistent: AtomicBool,
    /// The WAL that would explain them was given up.
    tolerated: AtomicBool,
}

impl MissingBlocks {
    /// Notes a missing block.
    ///
    /// # Errors
    /// [`StorageError::MissingBlock`] after the consistent point.
    pub fn note(&self, tag: PageTag, files: &Files) -> Result<(), StorageError> {
        if self.consistent.load(Ordering::Acquire) {
            return Err(StorageError::MissingBlock {
                block: tag.block,
                path: files.relative_path(tag.rel, tag.fork, 0),
                blocks: files.n_blocks(tag.rel, tag.fork)?.get(),
            });
        }
        self.blocks.lock().insert(tag);
        Ok(())
    }

    /// Those not explained yet.
    pub(super) fn left(&self) -> Vec<PageTag> {
        self.blocks.lock().iter().copied().collect()
    }

    /// This one is explained.
    pub(super) fn forget(&self, tag: PageTag) {
        self.blocks.lock().remove(&tag);
    }

    /// Whether the consistent point is behind us.
    pub fn is_consistent(&self) -> bool {
        self.consistent.load(Ordering::Acquire)
    }

    /// A truncate to `n` blocks explains those at and past `n`.
    pub fn forget_from(&self, rel: RelId, fork: Fork, n: BlockNo) {
        self.blocks.lock().retain(|t| t.rel != rel || t.fork != fork || t.block < n);
    }

    /// A drop explains all of a relation.
    pub fn forget_relation(&self, rel: RelId) {
        self.blocks.lock().retain(|t| t.rel != rel);
    }

    /// A drop of a database explains all of its relations.
    pub fn forget_database(&self, spc: u32, db: u32) {
        self.blocks.lock().retain(|t| !t.rel.is_within(RelId::database(spc, db)));
    }

    /// Whether none is left unexplained.
    pub fn is_empty(&self) -> bool {
        self.blocks.lock().is_empty()
    }

    /// What would explain them was given up: at the consistent point they are logged and forgotten.
    pub fn tolerate(&self) {
        self.tolerated.store(true, Ordering::Release);
    }

    /// The consistent point: nothing may be left unexplained; from now on a missing block is an error.
    ///
    /// # Errors
    /// [`StorageError::UnexplainedBlocks`].
    pub fn reach_consistency(&self, files: &Files) -> Result<(), StorageError> {
        let mut blocks = self.blocks.lock();
        if self.tolerated.load(Ordering::Acquire) {
            for tag in std::mem::take(&mut *blocks) {
                tracing::warn!("block {} of relation {} is missing", tag.block, files.relative_path(tag.rel, tag.fork, 0));
            }
        }
        if let Some(first) = blocks.first() {
            return Err(StorageError::UnexplainedBlocks {
                block: first.block,
                path: files.relative_path(first.rel, first.fork, 0),
                others: blocks.len() - 1,
            });
        }
        self.consistent.store(true, Ordering::Release);
        Ok(())
    }
}
