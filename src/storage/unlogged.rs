//! Unlogged relations: those with an init fork. Emptied by a crash and on a standby, made from the init fork when a node begins to write.
//!
//! PostgreSQL: storage/file/reinit.c.

use std::io;

use afterimage_wal::{BlockNo, Fork, RelId};

use super::{
    StorageError,
    buffer_pool::BufferPool,
    files::{DEFAULT_TABLESPACE, Files, TABLESPACE_VERSION_DIR},
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
