//! Temporary files. One has no name from the moment it is open, so that nothing is left of it after a crash.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::context::{Outlet, SessionContext};
use crate::access::AccessError;
use crate::access::btree::{OpenScratch, Scratch};
use crate::config::Setting;
use crate::sql::types::Oid;
use crate::sqlstate::{SqlError, SqlState};
use crate::storage::StorageError;
use crate::storage::files::TABLESPACE_VERSION_DIR;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Files and their bytes by database, of files that were closed since the server started. Leaf.
static USED: Mutex<BTreeMap<Oid, (u64, u64)>> = Mutex::new(BTreeMap::new());

/// `temp_files` and `temp_bytes` of a database.
pub fn temporary_files_of(database: Oid) -> (u64, u64) {
    USED.lock().get(&database).copied().unwrap_or_default()
}

/// Bytes in a session's temporary files, for `temp_file_limit`.
#[derive(Clone, Debug, Default)]
pub struct TempSpace(Arc<AtomicU64>);

/// An I/O failure on a temporary file.
fn io_error(e: io::Error) -> SqlError {
    let state = if e.kind() == io::ErrorKind::StorageFull { SqlState::DISK_FULL } else { SqlState::IO_ERROR };
    SqlError::new(state, format!("could not use temporary file: {e}"))
}

const TEMP_DIR: &str = "pgsql_tmp";

fn space_dir(space: impl std::fmt::Display) -> String {
    format!("pg_tblspc/{space}/{TABLESPACE_VERSION_DIR}/{TEMP_DIR}")
}

/// Removes what a crash between opening a temporary file and unlinking it, or in the middle of an index build, has left.
///
/// # Errors
/// The directory cannot be read, a file not be removed.
pub fn remove_temporary_files(data_dir: &Path) -> io::Result<()> {
    let list = |dir: &str| match fs::read_dir(data_dir.join(dir)) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    };
    let mut dirs = vec![format!("base/{TEMP_DIR}")];
    dirs.extend(list("pg_tblspc")?.iter().map(|entry| space_dir(entry.file_name().display())));
    for dir in dirs {
        for entry in list(&dir)? {
            if entry.file_name().to_string_lossy().starts_with(TEMP_DIR) {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// A temporary file. When it is closed, the database's statistics and, if `log_temp_files` says so, the log are told.
#[derive(Debug)]
pub(super) struct TempFile {
    file: File,
    /// The name it had, below the data directory.
    path: String,
    /// Bytes it takes, and took at most.
    size: u64,
    most: u64,
    session: TempSpace,
    /// `temp_file_limit`, in kB.
    limit: Option<u64>,
    database: Oid,
    /// The log, for files of so many kB.
    log: Option<(Arc<dyn Outlet>, u64)>,
}

/// Why bytes could not be written.
enum NotWritten {
    /// That would be more than so many kB.
    Limit(u64),
    Io(io::Error),
}

impl TempFile {
    /// Writes bytes at a place.
    ///
    /// # Errors
    /// 53400 beyond `temp_file_limit`, 53100 if the disk is full.
    pub(super) fn write_at(&mut self, bytes: &[u8], at: u64) -> Result<(), SqlError> {
        self.write(bytes, at).map_err(|e| match e {
            NotWritten::Limit(limit) => AccessError::TempFileLimit { limit }.into(),
            NotWritten::Io(e) => io_error(e),
        })
    }

    fn write(&mut self, bytes: &[u8], at: u64) -> Result<(), NotWritten> {
        let more = (at + bytes.len() as u64).saturating_sub(self.size);
        if let Some(limit) = self.limit
            && more > 0
            && (self.session.0.load(Ordering::Relaxed) + more) / 1024 > limit
        {
            return Err(NotWritten::Limit(limit));
        }
        self.file.write_all_at(bytes, at).map_err(NotWritten::Io)?;
        self.session.0.fetch_add(more, Ordering::Relaxed);
        self.size += more;
        self.most = self.most.max(self.size);
        Ok(())
    }

    /// Fills `bytes` from a place.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn read_at(&self, bytes: &mut [u8], at: u64) -> Result<(), SqlError> {
        self.file.read_exact_at(bytes, at).map_err(io_error)
    }

    /// Gives its space back.
    ///
    /// # Errors
    /// I/O.
    pub(super) fn clear(&mut self) -> Result<(), SqlError> {
        if self.size > 0 {
            self.file.set_len(0).map_err(io_error)?;
            self.session.0.fetch_sub(self.size, Ordering::Relaxed);
            self.size = 0;
        }
        Ok(())
    }
}

/// PostgreSQL: `ReportTemporaryFileUsage` in storage/file/fd.c.
impl Drop for TempFile {
    fn drop(&mut self) {
        self.session.0.fetch_sub(self.size, Ordering::Relaxed);
        {
            let mut used = USED.lock();
            let (files, bytes) = used.entry(self.database).or_default();
            *files += 1;
            *bytes += self.most;
        }
        if let Some((log, least)) = &self.log
            && self.most / 1024 >= *least
        {
            log.waited(&format!("temporary file: path \"{}\", size {}", self.path, self.most), None);
        }
    }
}

/// Makes a session's temporary files.
struct TempFiles {
    data_dir: PathBuf,
    space: Option<Oid>,
    session: TempSpace,
    limit: Option<u64>,
    database: Oid,
    log: Option<(Arc<dyn Outlet>, u64)>,
}

impl TempFiles {
    fn of(session: &SessionContext) -> Self {
        let kilobytes = |setting| u64::try_from(session.settings.int(setting)).ok();
        Self {
            data_dir: session.engine.temp_root().to_owned(),
            space: session.transaction.as_ref().and_then(|t| t.temp_space(NEXT.load(Ordering::Relaxed))),
            session: session.temp_space.clone(),
            limit: kilobytes(Setting::TempFileLimit),
            database: session.database,
            log: session.outlet.clone().zip(kilobytes(Setting::LogTempFiles)),
        }
    }

    fn create(&self, dir: &str) -> io::Result<TempFile> {
        let path = format!("{dir}/{TEMP_DIR}{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let at = self.data_dir.join(&path);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&at)?;
        fs::remove_file(&at)?;
        let (session, log) = (self.session.clone(), self.log.clone());
        Ok(TempFile { file, path, size: 0, most: 0, session, limit: self.limit, database: self.database, log })
    }

    fn open(&self) -> io::Result<TempFile> {
        if let Some(space) = self.space {
            let dir = space_dir(space);
            match fs::create_dir(self.data_dir.join(&dir)) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return self.create(&dir),
                // Dropped since the transaction chose it: as if it had not been named.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                made => return made.and_then(|()| self.create(&dir)),
            }
        }
        let dir = format!("base/{TEMP_DIR}");
        fs::create_dir_all(self.data_dir.join(&dir))?;
        self.create(&dir)
    }
}

/// A new temporary file in one of the transaction's tablespaces for such, unlinked already.
///
/// # Errors
/// I/O.
pub(super) fn temp_file(session: &SessionContext) -> Result<TempFile, SqlError> {
    TempFiles::of(session).open().map_err(io_error)
}

/// The same, for the sort of an index's entries.
pub(super) fn scratch(session: &SessionContext) -> OpenScratch {
    let files = TempFiles::of(session);
    Box::new(move || match files.open() {
        Ok(file) => Ok(Box::new(file)),
        Err(e) => Err(scratch_error("create temporary file", &files.data_dir.display(), e)),
    })
}

fn scratch_error(what: &'static str, path: &dyn std::fmt::Display, source: io::Error) -> AccessError {
    StorageError::Io { what, path: path.to_string(), source }.into()
}

impl Scratch for TempFile {
    fn write_at(&mut self, bytes: &[u8], at: u64) -> Result<(), AccessError> {
        self.write(bytes, at).map_err(|e| match e {
            NotWritten::Limit(limit) => AccessError::TempFileLimit { limit },
            NotWritten::Io(e) => scratch_error("write to temporary file", &self.path, e),
        })
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> Result<(), AccessError> {
        self.file.read_exact_at(bytes, at).map_err(|e| scratch_error("read temporary file", &self.path, e))
    }
}
