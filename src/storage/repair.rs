//! Damaged pages of a standby, replaced by its upstream's copy.
//!
//! A copy with page LSN L holds every change up to L and none behind it. It may be put in place once replay has passed L and the copy's newest
//! hint LSN: earlier, a session would see a page of the future. Until then the page stays as it is, damaged, and redo skips the changes that are
//! in the copy; the first one that is not puts the copy in place and goes on with it. A copy that is lost meanwhile is fetched again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use afterimage_wal::Lsn;
use parking_lot::{Condvar, Mutex};

use super::{Buffer, BufferPool, Page, PageTag, StorageError};

/// Longest redo waits for somebody who can be asked: the start of a server is quick.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where copies of pages come from.
pub trait PageSource: Send + Sync {
    /// A copy that holds every change up to `at`, which redo has come to. Whoever answers also sees to it that the copy is put in place.
    ///
    /// # Errors
    /// For the log: nobody can be asked, or has such a copy.
    fn fetch(&self, tag: PageTag, at: Lsn) -> Result<Page, String>;
}

#[derive(Clone, Default)]
enum Source {
    /// There is none.
    #[default]
    None,
    /// There will be one soon.
    Expected,
    /// This one.
    Given(Arc<dyn PageSource>),
}

/// Copies on their way, and where they come from.
#[derive(Default)]
pub(super) struct Repairs {
    /// Leaf.
    copies: Mutex<HashMap<PageTag, Arc<Page>>>,
    /// Leaf.
    source: Mutex<Source>,
    given: Condvar,
}

impl Repairs {
    /// Whoever can be asked; waits for one who is to come.
    fn source(&self) -> Option<Arc<dyn PageSource>> {
        let mut source = self.source.lock();
        loop {
            match &*source {
                Source::None => return None,
                Source::Given(given) => return Some(Arc::clone(given)),
                Source::Expected => {
                    if self.given.wait_for(&mut source, PATIENCE).timed_out() {
                        return None;
                    }
                }
            }
        }
    }
}

impl BufferPool {
    /// Redo that meets a damaged page from now on waits for [`Self::set_page_source`].
    pub fn expect_page_source(&self) {
        *self.repairs().source.lock() = Source::Expected;
    }

    /// Whom redo asks for copies of damaged pages.
    pub fn set_page_source(&self, source: Arc<dyn PageSource>) {
        *self.repairs().source.lock() = Source::Given(source);
        self.repairs().given.notify_all();
    }

    /// Takes a copy, to be put in place later.
    pub fn offer_copy(&self, tag: PageTag, copy: Page) {
        let mut copies = self.repairs().copies.lock();
        if copies.get(&tag).is_none_or(|known| known.lsn() <= copy.lsn()) {
            copies.insert(tag, Arc::new(copy));
        }
    }

    /// Puts the copy in place; replay has passed its LSNs. False if there is a newer page or no copy.
    ///
    /// # Errors
    /// The block is gone; I/O; no free buffer.
    pub fn put_copy(&self, tag: PageTag) -> Result<bool, StorageError> {
        let copy = self.repairs().copies.lock().remove(&tag);
        copy.map_or(Ok(false), |copy| Ok(self.place(tag, &copy)?.1))
    }

    /// At the consistent point, `at`: blocks redo missed because they are zero are damage, unless something explained them. Copies of them are
    /// fetched, if there is somebody to ask.
    ///
    /// # Errors
    /// I/O.
    pub fn mend_missing(&self, at: Lsn) -> Result<(), StorageError> {
        for tag in self.missing().left() {
            if tag.block >= self.n_blocks(tag.rel, tag.fork)? {
                continue;
            }
            let Some(source) = self.repairs().source() else { return Ok(()) };
            let path = self.files().relative_path(tag.rel, tag.fork, 0);
            tracing::warn!("invalid page in block {} of relation {path}; asking the upstream for a copy", tag.block);
            match source.fetch(tag, at) {
                Ok(copy) => {
                    self.missing().forget(tag);
                    if copy.lsn().max(copy.hint_lsn()) <= at {
                        self.place(tag, &copy)?;
                    } else {
                        self.offer_copy(tag, copy);
                    }
                }
                Err(why) => tracing::warn!("could not get a copy: {why}"),
            }
        }
        Ok(())
    }

    /// The page, and whether it is the copy: not if a newer one is there.
    fn place(&self, tag: PageTag, copy: &Page) -> Result<(Buffer, bool), StorageError> {
        loop {
            match self.read(tag.rel, tag.fork, tag.block) {
                Ok(buffer) => {
                    let placed = {
                        let mut page = buffer.write();
                        let older = page.lsn() <= copy.lsn();
                        if older {
                            *page.bytes_mut() = *copy.bytes();
                        }
                        older
                    };
                    return Ok((buffer, placed));
                }
                Err(StorageError::BadPage { .. }) => {
                    if let Some(buffer) = self.read_as(tag, copy)? {
                        return Ok((buffer, true));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The damaged page a record ending at `end` changes, mended; `None` if the change is in the copy already.
    ///
    /// # Errors
    /// `damage`, if there is no copy to be had.
    pub(super) fn mend_for_redo(&self, tag: PageTag, end: Lsn, damage: StorageError) -> Result<Option<Buffer>, StorageError> {
        let known = self.repairs().copies.lock().get(&tag).cloned();
        if let Some(copy) = known {
            if end <= copy.lsn() {
                return Ok(None);
            }
            // The change before this one was in the copy or on the page: nothing is missing in between.
            self.repairs().copies.lock().remove(&tag);
            return self.place(tag, &copy).map(|(buffer, _)| Some(buffer));
        }
        let Some(source) = self.repairs().source() else { return Err(damage) };
        tracing::warn!("{damage}; asking the upstream for a copy");
        match source.fetch(tag, end) {
            Ok(copy) if copy.lsn() >= end => {
                self.offer_copy(tag, copy);
                Ok(None)
            }
            Ok(copy) => {
                tracing::warn!("the upstream's copy has LSN {}, before {end}", copy.lsn());
                Err(damage)
            }
            Err(why) => {
                tracing::warn!("could not get a copy: {why}");
                Err(damage)
            }
        }
    }
}
