//! Temporary files. One has no name from the moment it is open, so that nothing is left of it after a crash.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::context::{Outlet, SessionContext};
use crate::config::Setting;
use crate::sql::types::Oid;
use crate::sqlstate::{SqlError, SqlState};
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

impl TempFile {
    fn new(session: &SessionContext, file: File, path: String) -> Self {
        let kilobytes = |setting| u64::try_from(session.settings.int(setting)).ok();
        Self {
            file,
            path,
            size: 0,
            most: 0,
            session: session.temp_space.clone(),
            limit: kilobytes(Setting::TempFileLimit),
            database: session.database,
            log: session.outlet.clone().zip(kilobytes(Setting::LogTempFiles)),
        }
    }

    /// Writes bytes at a place.
    ///
    /// # Errors
    /// 53400 beyond `temp_file_limit`, 53100 if the disk is full.
    pub(super) fn write_at(&mut self, bytes: &[u8], at: u64) -> Result<(), SqlError> {
        let more = (at + bytes.len() as u64).saturating_sub(self.size);
        if let Some(limit) = self.limit
            && more > 0
            && (self.session.0.load(Ordering::Relaxed) + more) / 1024 > limit
        {
            let message = format!("temporary file size exceeds temp_file_limit ({limit}kB)");
            return Err(SqlError::new(SqlState::CONFIGURATION_LIMIT_EXCEEDED, message));
        }
        self.file.write_all_at(bytes, at).map_err(io_error)?;
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

/// A new temporary file in one of the transaction's tablespaces for such, unlinked already.
///
/// # Errors
/// I/O.
pub(super) fn temp_file(session: &SessionContext) -> Result<TempFile, SqlError> {
    let data_dir = session.engine.data_dir();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{TEMP_DIR}{}.{number}", std::process::id());
    let create = |dir: &str| {
        let path = data_dir.join(dir).join(&name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(io_error)?;
        fs::remove_file(&path).map_err(io_error)?;
        Ok(TempFile::new(session, file, format!("{dir}/{name}")))
    };
    if let Some(space) = session.transaction.as_ref().and_then(|t| t.temp_space(number)) {
        let dir = space_dir(space);
        match fs::create_dir(data_dir.join(&dir)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return create(&dir),
            // Dropped since the transaction chose it: as if it had not been named.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            made => return made.map_err(io_error).and_then(|()| create(&dir)),
        }
    }
    let dir = format!("base/{TEMP_DIR}");
    fs::create_dir_all(data_dir.join(&dir)).map_err(io_error)?;
    create(&dir)
}
