//! The node's state as `global/pg_control` tells it to other processes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// PostgreSQL's `DBState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlState {
    /// Starting up.
    Startup,
    /// Shut down as a primary.
    ShutDown,
    /// Shut down as a standby.
    ShutDownInRecovery,
    /// Shutting down.
    ShuttingDown,
    /// Recovering from a crash.
    InCrashRecovery,
    /// A standby, or recovering from an archive.
    InArchiveRecovery,
    /// A primary, running.
    InProduction,
}

/// Failures of reading the state.
#[derive(Debug, thiserror::Error)]
pub enum ControlStateError {
    /// The file cannot be read.
    #[error("could not open file \"{}\" for reading: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is too short or its state unknown.
    #[error("control file appears to be corrupt")]
    Corrupt,
}

/// Offset of the state in PostgreSQL 15's `ControlFileData`, after system identifier and two versions.
const STATE_AT: usize = 16;

/// Reads the state. It stands in one sector, so that a write in progress shows the old one or the new one.
///
/// # Errors
/// [`ControlStateError`].
pub fn read(data_dir: &Path) -> Result<ControlState, ControlStateError> {
    let path = data_dir.join("global/pg_control");
    let bytes = fs::read(&path).map_err(|source| ControlStateError::Open { path, source })?;
    let state = bytes.get(STATE_AT..STATE_AT + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(u32::from_le_bytes);
    match state {
        Some(0) => Ok(ControlState::Startup),
        Some(1) => Ok(ControlState::ShutDown),
        Some(2) => Ok(ControlState::ShutDownInRecovery),
        Some(3) => Ok(ControlState::ShuttingDown),
        Some(4) => Ok(ControlState::InCrashRecovery),
        Some(5) => Ok(ControlState::InArchiveRecovery),
        Some(6) => Ok(ControlState::InProduction),
        _ => Err(ControlStateError::Corrupt),
    }
}
