//! Page images for a backup that copies files while they are written (`pg_backup_start`, then `cp` or the like).
//!
//! Such a copy may hold a page of which half was written before and half after. Only a page that is written in place while the copy is made can be
//! torn so, and so the image goes into the WAL right before that, the first time since the backup began: not with the first change after a checkpoint,
//! as in PostgreSQL, which needs an image of every page that is changed, written or not, and has to have begun before.
//!
//! Redo of the copy, up to the end of its backup: changes to a page that does not verify wait for its image; the image is put in place whatever is
//! there; from it on every change is in the WAL. A page left without one at the end refuses the copy. Elsewhere an image means nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use afterimage_wal::{Fork, RecordBuilder, RelId, Xid, record, rmgr};
use parking_lot::Mutex;

use super::{Page, PageTag};

/// Pages one entry of the map answers for.
const CHUNK: u32 = 4096;

/// Which pages have their image in the WAL: one bit each.
#[derive(Debug, Default)]
struct Logged {
    backups: usize,
    chunks: HashMap<(RelId, Fork, u32), Box<[u64; 64]>>,
}

/// Whether images are wanted, and whose are there; on the other side, whether redo is inside a backup.
#[derive(Debug, Default)]
pub(super) struct BackupImages {
    /// Any backups? Written under `logged`, so that who writes no page for a backup takes no lock. Release here, Acquire in `wants`.
    running: AtomicBool,
    /// Leaf.
    logged: Mutex<Logged>,
    /// Redo is between the start and the end of the backup it recovers. Release and Acquire: set before the first record is redone.
    inside: AtomicBool,
}

impl BackupImages {
    /// A backup has chosen its redo point; every page written from now on needs an image behind it.
    pub(super) fn begin(&self) {
        let mut logged = self.logged.lock();
        logged.backups += 1;
        // Images from before this backup's redo point are nothing to it.
        logged.chunks.clear();
        self.running.store(true, Ordering::Release);
    }

    pub(super) fn end(&self) {
        let mut logged = self.logged.lock();
        logged.backups = logged.backups.saturating_sub(1);
        if logged.backups == 0 {
            logged.chunks = HashMap::new();
            self.running.store(false, Ordering::Release);
        }
    }

    /// Whether a page that is about to be written needs its image in the WAL first. Free space maps repair themselves, and what has no LSN is not
    /// logged.
    pub(super) fn wants(&self, tag: PageTag, page: &Page) -> bool {
        if !self.running.load(Ordering::Acquire) || tag.fork == Fork::Fsm || !page.lsn().is_valid() {
            return false;
        }
        let (key, word, bit) = place(tag);
        self.logged.lock().chunks.get(&key).is_none_or(|bits| bits[word] & bit == 0)
    }

    /// The image is in the WAL.
    pub(super) fn note(&self, tag: PageTag) {
        let (key, word, bit) = place(tag);
        let mut logged = self.logged.lock();
        if logged.backups > 0 {
            logged.chunks.entry(key).or_insert_with(|| Box::new([0; 64]))[word] |= bit;
        }
    }

    pub(super) fn set_inside(&self, inside: bool) {
        self.inside.store(inside, Ordering::Release);
    }

    pub(super) fn is_inside(&self) -> bool {
        self.inside.load(Ordering::Acquire)
    }
}

fn place(tag: PageTag) -> ((RelId, Fork, u32), usize, u64) {
    let block = tag.block.get();
    let word = usize::try_from(block % CHUNK / 64).unwrap_or(0);
    ((tag.rel, tag.fork, block / CHUNK), word, 1 << (block % 64))
}

/// The record with a page's image.
pub(super) fn image_record(tag: PageTag, page: &Page) -> RecordBuilder {
    let mut builder = RecordBuilder::new(rmgr::XLOG, rmgr::xlog::FPI_FOR_BACKUP, Xid::INVALID);
    builder.block(tag.rel, tag.fork, tag.block, record::FPI, page.bytes());
    builder
}

#[cfg(test)]
mod tests {
    use afterimage_wal::{BlockNo, Lsn};

    use super::*;

    #[test]
    fn each_backup_gets_one_image_of_each_page() {
        let images = BackupImages::default();
        let tag = |block, fork| PageTag { rel: RelId::new(1663, 5, 16384), fork, block: BlockNo::new(block) };
        let mut page = Page::zeroed();
        page.init(0);
        images.begin();
        assert!(!images.wants(tag(0, Fork::Main), &page), "not logged");
        page.set_lsn(Lsn::from_u64(4096));
        assert!(!images.wants(tag(0, Fork::Fsm), &page));
        for block in [0, 63, 64, 4095, 4096, u32::MAX] {
            assert!(images.wants(tag(block, Fork::Main), &page));
            images.note(tag(block, Fork::Main));
            assert!(!images.wants(tag(block, Fork::Main), &page) && images.wants(tag(block ^ 1, Fork::Main), &page));
        }
        images.begin();
        assert!(images.wants(tag(64, Fork::Main), &page), "the second backup began behind the first one's images");
        images.note(tag(64, Fork::Main));
        images.end();
        assert!(!images.wants(tag(64, Fork::Main), &page) && images.wants(tag(65, Fork::Main), &page));
        images.end();
        assert!(!images.wants(tag(65, Fork::Main), &page), "no backup");
    }
}
