//! Unlogged relations: those with an init fork. Emptied by a crash and on a standby, made from the init fork when a node begins to write.
//!
//! PostgreSQL: storage/file/reinit.c.

use std::io;

use afterimage_wal::{BlockNo, Fork, Lsn, RecordBuilder, RelId, Xid, record, rmgr};

use super::{
    CriticalSection, Page, StorageError,
    buffer_pool::BufferPool,
    files::{DEFAULT_TABLESPACE, Files, TABLESPACE_VERSION_DIR},
    vm,
};

/// Every relation with an init fork.
fn find(files: &Files) -> Result<Vec<RelId>, StorageError> {
    let mut tops = vec![(DEFAULT_TABLESPACE, "base".to_owned())];
    for name in list(files, "pg_tblspc")? {
        if let Ok(spc) = name.parse() {
            tops.push((spc, format!("pg_tblspc/{name}/{TABLESPACE_VERSION_DIR}")));
        }
    }
    let mut found = Vec::new();
    for (spc, top) in tops {
        for database in list(files, &top)? {
            let Ok(db) = database.parse() else { continue };
            for name in list(files, &format!("{top}/{database}"))? {
                if let Some(rel) = name.strip_suffix("_init").and_then(|n| n.parse().ok()) {
                    found.push(RelId::new(spc, db, rel));
                }
            }
        }
    }
    Ok(found)
}

fn list(files: &Files, dir: &str) -> Result<Vec<String>, StorageError> {
    match files.disk().list(&files.root().join(dir)) {
        Ok(names) => Ok(names),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(source) => Err(StorageError::Io { what: "list", path: dir.to_owned(), source }),
    }
}

/// Before redo after an unclean stop: what unlogged relations held is gone.
///
/// # Errors
/// I/O.
pub fn clear(files: &Files) -> Result<(), StorageError> {
    for rel in find(files)? {
        for fork in [Fork::Main, Fork::Fsm, Fork::Vm] {
            files.unlink_fork(rel, fork)?;
        }
    }
    Ok(())
}

/// At the end of recovery: unlogged relations begin as their init forks say.
///
/// # Errors
/// I/O.
pub fn reset(pool: &BufferPool) -> Result<usize, StorageError> {
    let rels = find(pool.files())?;
    for rel in &rels {
        pool.reset_to_init(*rel)?;
    }
    Ok(rels.len())
}

impl BufferPool {
    /// Creates the files of an unlogged relation: its init fork, logged, then its content, which is not.
    ///
    /// # Errors
    /// I/O.
    pub fn create_unlogged(&self, rel: RelId) -> Result<Lsn, StorageError> {
        // In this order: content without an init fork would outlive a crash.
        let end = self.create_fork(rel, Fork::Init)?;
        self.files().create(rel, Fork::Main)?;
        Ok(end)
    }

    /// Appends a page to an init fork, logged.
    ///
    /// # Errors
    /// I/O.
    pub fn add_init_page(&self, rel: RelId, image: &Page) -> Result<(), StorageError> {
        let buffer = self.extend_unlogged(rel, Fork::Init, 1)?;
        let mut page = buffer.write();
        let mut record = RecordBuilder::new(rmgr::XLOG, rmgr::xlog::FPI, Xid::INVALID);
        record.block(rel, Fork::Init, buffer.block(), record::FPI, image.bytes());
        CriticalSection::run("write an init fork", || -> Result<(), StorageError> {
            *page.bytes_mut() = *image.bytes();
            page.set_lsn(self.wal().insert(&record)?.end);
            Ok(())
        });
        Ok(())
    }

    /// Copies the content of an unlogged relation and, logged, its init fork into a new one. Nobody writes to the source meanwhile.
    ///
    /// # Errors
    /// I/O.
    pub fn copy_unlogged(&self, from: RelId, to: RelId) -> Result<(), StorageError> {
        self.copy_fork(from, to, Fork::Init)?;
        self.files().create(to, Fork::Main)?;
        for block in 0..self.n_blocks(from, Fork::Main)?.get() {
            let source = self.read(from, Fork::Main, BlockNo::new(block))?;
            let target = self.extend_unlogged(to, Fork::Main, 1)?;
            *target.write().bytes_mut() = *source.read().bytes();
        }
        Ok(())
    }

    /// Shortens an unlogged relation to `n` blocks. If the file cannot be cut the node stops, see [`Self::truncate`].
    ///
    /// # Errors
    /// If the visibility map cannot be read.
    pub fn truncate_unlogged(&self, rel: RelId, n: BlockNo) -> Result<(), StorageError> {
        vm::forget_from_unlogged(self, rel, n)?;
        CriticalSection::run("truncate a relation", || self.truncate_local(rel, Fork::Main, n));
        Ok(())
    }

    /// Replaces an unlogged relation's content by its init fork's.
    ///
    /// # Errors
    /// I/O.
    pub fn reset_to_init(&self, rel: RelId) -> Result<(), StorageError> {
        for fork in [Fork::Main, Fork::Fsm, Fork::Vm] {
            self.discard_fork(rel, fork);
            self.files().unlink_fork(rel, fork)?;
        }
        self.files().create(rel, Fork::Main)?;
        for block in 0..self.n_blocks(rel, Fork::Init)?.get() {
            let from = self.read(rel, Fork::Init, BlockNo::new(block))?;
            let to = self.extend_unlogged(rel, Fork::Main, 1)?;
            *to.write().bytes_mut() = *from.read().bytes();
        }
        Ok(())
    }
}
