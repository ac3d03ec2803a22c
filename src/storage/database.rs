//! Directories of databases, whole copies of relations, and the WAL records of both.

use std::io;
use std::path::PathBuf;

use afterimage_wal::{BlockNo, Fork, Lsn, Oid, Record, RecordBuilder, RelId, Xid, record::FPI, rmgr};

use super::{
    StorageError,
    buffer_pool::BufferPool,
    critical::CriticalSection,
    files::{Files, TABLESPACE_VERSION_DIR},
    page::PAGE_SIZE,
};

/// A database directory was made: database, tablespace.
pub const CREATE: u8 = 0x00;
/// A tablespace was made: its OID, then where it lies, as text; nothing for one in place.
pub const CREATE_TABLESPACE: u8 = 0x20;
/// A tablespace is gone: its OID.
pub const DROP_TABLESPACE: u8 = 0x30;

/// What a `PG_VERSION` file says.
pub const PG_VERSION: &str = "15\n";
/// Pages per record of a relation's copy.
const COPY_PAGES: u32 = 8;

/// Name of a kind, for `waldump`.
pub fn kind_name(kind: u8) -> Option<&'static str> {
    match kind {
        CREATE => Some("CREATE"),
        CREATE_TABLESPACE => Some("CREATE_TABLESPACE"),
        DROP_TABLESPACE => Some("DROP_TABLESPACE"),
        _ => None,
    }
}

fn io_error(what: &'static str, path: &str) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Io { what, path, source }
}

impl BufferPool {
    /// Makes a database's directory in a tablespace, logged and durable.
    ///
    /// # Errors
    /// I/O.
    pub fn create_database_dir(&self, db: Oid, spc: Oid, xid: Xid) -> Result<Lsn, StorageError> {
        let mut record = RecordBuilder::new(rmgr::DATABASE, CREATE, xid);
        record.main(&db.to_le_bytes()).main(&spc.to_le_bytes());
        let end = self.wal().insert(&record)?.end;
        self.make_database_dir(db, spc)?;
        Ok(end)
    }

    pub(crate) fn make_database_dir(&self, db: Oid, spc: Oid) -> Result<(), StorageError> {
        let files = self.files();
        let relative = Files::database_dir(spc, db);
        let dir = files.root().join(&relative);
        files.disk().create_dir(&dir).map_err(io_error("create", &relative))?;
        let version = dir.join("PG_VERSION");
        afterimage_wal::disk::durable_replace(files.disk().as_ref(), &version, PG_VERSION.as_bytes())
            .map_err(io_error("write", &format!("{relative}/PG_VERSION")))?;
        if let Some(parent) = dir.parent() {
            files.disk().sync_dir(parent).map_err(|source| StorageError::Sync { path: parent.to_owned(), source })?;
        }
        Ok(())
    }

    /// Whether a database has a directory in a tablespace.
    pub fn has_database_dir(&self, db: Oid, spc: Oid) -> bool {
        self.files().disk().exists(&self.files().root().join(Files::database_dir(spc, db))).unwrap_or(false)
    }

    /// Makes a tablespace at `location`, an absolute path, or in place if it is empty. Logged and durable.
    ///
    /// # Errors
    /// I/O.
    pub fn create_tablespace(&self, spc: Oid, location: &str, xid: Xid) -> Result<Lsn, StorageError> {
        self.make_tablespace(spc, location)?;
        let mut record = RecordBuilder::new(rmgr::DATABASE, CREATE_TABLESPACE, xid);
        record.main(&spc.to_le_bytes()).main(location.as_bytes());
        Ok(self.wal().insert(&record)?.end)
    }

    /// The directory, and the link to it. Both may be there: redo repeats.
    fn make_tablespace(&self, spc: Oid, location: &str) -> Result<(), StorageError> {
        let relative = format!("pg_tblspc/{spc}");
        let link = self.files().root().join(&relative);
        let top = if location.is_empty() { link.clone() } else { PathBuf::from(location) };
        let ours = top.join(TABLESPACE_VERSION_DIR);
        self.files().disk().create_dir(&ours).map_err(io_error("create", &ours.display().to_string()))?;
        if !location.is_empty() {
            let disk = self.files().disk();
            match disk.read_link(&link).map_err(io_error("read", &relative))? {
                Some(found) if found == top => {}
                found => {
                    if found.is_some() {
                        disk.remove(&link).map_err(io_error("remove", &relative))?;
                    }
                    disk.link_dir(&top, &link).map_err(io_error("create", &relative))?;
                }
            }
        }
        for dir in [&top, &self.files().root().join("pg_tblspc")] {
            self.files().disk().sync_dir(dir).map_err(|source| StorageError::Sync { path: dir.clone(), source })?;
        }
        Ok(())
    }

    /// Removes a tablespace, logged. No relation lies in it.
    ///
    /// # Errors
    /// I/O.
    pub fn drop_tablespace(&self, spc: Oid, xid: Xid) -> Result<Lsn, StorageError> {
        let mut record = RecordBuilder::new(rmgr::DATABASE, DROP_TABLESPACE, xid);
        record.main(&spc.to_le_bytes());
        let end = self.wal().insert(&record)?.end;
        self.wal().flush(end)?;
        self.remove_tablespace(spc)?;
        Ok(end)
    }

    /// Its directory of ours and the link; what else lies at the location is not ours.
    fn remove_tablespace(&self, spc: Oid) -> Result<(), StorageError> {
        let relative = format!("pg_tblspc/{spc}");
        let link = self.files().root().join(&relative);
        let gone = |result: io::Result<()>| match result {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(io_error("remove", &relative)),
        };
        let disk = self.files().disk();
        gone(disk.remove_dir_all(&link.join(TABLESPACE_VERSION_DIR)))?;
        let linked = disk.read_link(&link).map_err(io_error("read", &relative))?.is_some();
        gone(if linked { disk.remove(&link) } else { disk.remove_dir_all(&link) })
    }

    /// Removes a database's directory in a tablespace. Nobody is connected to it, its pages are forgotten, and what dropped it is durable.
    pub(super) fn remove_database_dir(&self, spc: Oid, db: Oid) -> Result<(), StorageError> {
        if db == 0 {
            // What all databases share is no database's.
            return Ok(());
        }
        self.files().forget_database(spc, db);
        let relative = Files::database_dir(spc, db);
        match self.files().disk().remove_dir_all(&self.files().root().join(&relative)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(io_error("remove", &relative))?,
        }
        self.missing().forget_database(spc, db);
        Ok(())
    }

    /// The tablespaces in which a database has a directory.
    ///
    /// # Errors
    /// I/O.
    pub fn database_tablespaces(&self, db: Oid) -> Result<Vec<Oid>, StorageError> {
        const DEFAULT: Oid = 1663;
        let mut found = vec![DEFAULT];
        let names = match self.files().disk().list(&self.files().root().join("pg_tblspc")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(io_error("list", "pg_tblspc"))?,
        };
        found.extend(names.iter().filter_map(|name| name.parse().ok()).filter(|spc| self.has_database_dir(db, *spc)));
        Ok(found)
    }

    /// Copies all pages of a fork into a new relation, logged as full images. Nobody writes to the source meanwhile.
    ///
    /// # Errors
    /// I/O.
    pub fn copy_fork(&self, from: RelId, to: RelId, fork: Fork) -> Result<(), StorageError> {
        if !self.files().exists(from, fork)? {
            return Ok(());
        }
        self.create_fork(to, fork)?;
        let blocks = self.n_blocks(from, fork)?.get();
        let mut at = 0;
        while at < blocks {
            let n = COPY_PAGES.min(blocks - at);
            let mut pages = Vec::new();
            for i in 0..n {
                pages.push(self.read(from, fork, BlockNo::new(at + i))?.read().clone());
            }
            self.extend_unlogged(to, fork, n)?;
            let mut targets = Vec::new();
            let mut record = RecordBuilder::new(rmgr::XLOG, rmgr::xlog::FPI, Xid::INVALID);
            for (i, page) in (0_u32..).zip(&pages) {
                let block = BlockNo::new(at + i);
                targets.push(self.read(to, fork, block)?);
                record.block(to, fork, block, FPI, page.bytes());
            }
            let mut latched: Vec<_> = targets.iter().map(super::Buffer::write).collect();
            CriticalSection::run("copy a relation", || -> Result<(), StorageError> {
                for (target, page) in latched.iter_mut().zip(&pages) {
                    *target.bytes_mut() = *page.bytes();
                }
                let end = self.wal().insert(&record)?.end;
                latched.iter_mut().for_each(|target| target.set_lsn(end));
                Ok(())
            });
            at += n;
        }
        Ok(())
    }

    /// Logs whole pages that were built without logging (bulk loads), and sets their LSN. At most 255 at a time.
    ///
    /// # Errors
    /// I/O.
    pub fn log_new_pages(&self, buffers: &[super::Buffer], xid: Xid) -> Result<Lsn, StorageError> {
        let mut latched: Vec<_> = buffers.iter().map(super::Buffer::write).collect();
        let mut record = RecordBuilder::new(rmgr::XLOG, rmgr::xlog::FPI, xid);
        for (buffer, page) in buffers.iter().zip(&latched) {
            let tag = buffer.tag();
            let image: &[u8; PAGE_SIZE] = page.bytes();
            record.block(tag.rel, tag.fork, tag.block, FPI, image);
        }
        let end = self.wal().insert(&record)?.end;
        latched.iter_mut().for_each(|page| page.set_lsn(end));
        Ok(end)
    }
}

/// The tablespace a record removes.
pub fn dropped_tablespace(record: &Record<'_>) -> Option<Oid> {
    if record.kind() == DROP_TABLESPACE { Some(Oid::from_le_bytes(record.main().try_into().ok()?)) } else { None }
}

/// Redoes one record.
///
/// # Errors
/// A record that does not decode; I/O.
pub fn redo(pool: &BufferPool, record: &Record<'_>) -> Result<(), StorageError> {
    let bad = || StorageError::BadRecord { at: record.start(), what: "malformed database record" };
    if record.kind() == CREATE_TABLESPACE {
        let (oid, location) = record.main().split_first_chunk::<4>().ok_or_else(bad)?;
        let location = std::str::from_utf8(location).map_err(|_| bad())?;
        return pool.make_tablespace(u32::from_le_bytes(*oid), location);
    }
    let (oids, rest) = record.main().as_chunks::<4>();
    if !rest.is_empty() {
        return Err(bad());
    }
    let oids: Vec<Oid> = oids.iter().map(|b| u32::from_le_bytes(*b)).collect();
    match (record.kind(), oids.as_slice()) {
        (CREATE, [db, spc]) => pool.make_database_dir(*db, *spc),
        (DROP_TABLESPACE, [spc]) => {
            pool.pass_write_gate(record.end())?;
            pool.remove_tablespace(*spc)
        }
        _ => Err(bad()),
    }
}
