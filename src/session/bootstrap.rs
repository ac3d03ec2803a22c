//! The content of a new data directory: the engine's files and the catalogs.

use std::path::Path;

use crate::engine::{CreateOptions, Engine, ShutdownMode};
use crate::sql::catalog::bootstrap::{BootstrapOptions, bootstrap};

/// Makes a cluster in the empty directory `dir`, with one superuser.
///
/// # Errors
/// What failed, for the user.
pub fn create(dir: &Path, segment_bytes: u32, superuser: &str, password: Option<&str>) -> Result<(), String> {
    let options = CreateOptions { segment_bytes, ..CreateOptions::default() };
    let engine = Engine::create(dir, options).map_err(|e| e.to_string())?;
    let options =
        BootstrapOptions { superuser: superuser.to_owned(), password: password.map(str::to_owned), ..BootstrapOptions::default() };
    bootstrap(engine.ctx(), &options).map_err(|e| e.to_string())?;
    engine.shutdown(ShutdownMode::Fast).map_err(|e| e.to_string())
}
