//! The control file in memory, and durable after each change.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use afterimage_wal::{WalError, control_file::ControlFile, disk::Disk};
use parking_lot::Mutex;

/// `global/pg_control`, shared.
pub struct ControlStore {
    disk: Arc<dyn Disk>,
    data_dir: PathBuf,
    /// Rank 85. Held across the write, so that the file never goes back.
    file: Mutex<ControlFile>,
}

impl std::fmt::Debug for ControlStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ControlStore({})", self.data_dir.display())
    }
}

impl ControlStore {
    /// Reads the control file of a data directory.
    ///
    /// # Errors
    /// A file that is missing, damaged or of another version.
    pub fn open(disk: Arc<dyn Disk>, data_dir: &Path) -> Result<Self, WalError> {
        let file = ControlFile::read(disk.as_ref(), data_dir)?;
        Ok(Self { disk, data_dir: data_dir.to_owned(), file: Mutex::new(file) })
    }

    /// Writes the first control file.
    ///
    /// # Errors
    /// I/O.
    pub fn create(disk: Arc<dyn Disk>, data_dir: &Path, file: ControlFile) -> Result<Self, WalError> {
        file.write(disk.as_ref(), data_dir)?;
        Ok(Self { disk, data_dir: data_dir.to_owned(), file: Mutex::new(file) })
    }

    /// A copy.
    pub fn get(&self) -> ControlFile {
        self.file.lock().clone()
    }

    /// Changes it and makes the change durable; on failure memory keeps the old one.
    ///
    /// # Errors
    /// I/O; file and memory stay as they were.
    pub fn update(&self, change: impl FnOnce(&mut ControlFile)) -> Result<(), WalError> {
        let mut file = self.file.lock();
        let mut new = file.clone();
        change(&mut new);
        new.write(self.disk.as_ref(), &self.data_dir)?;
        *file = new;
        Ok(())
    }
}
