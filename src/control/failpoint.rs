//! Named places at which a test lets the server die, as by SIGKILL: always compiled in, so that what is tested is what is run.
//!
//! The environment variable `AFTERIMAGE_KILL_AT` names one; without it passing one costs a load.

use std::sync::OnceLock;

/// Names the failpoint at which the server dies.
pub const VARIABLE: &str = "AFTERIMAGE_KILL_AT";

/// Dies here if the environment says so.
pub fn pass(name: &str) {
    static WANTED: OnceLock<Option<String>> = OnceLock::new();
    let wanted = WANTED.get_or_init(|| std::env::var(VARIABLE).ok());
    if wanted.as_deref() == Some(name) {
        tracing::warn!("{VARIABLE}: the server dies at \"{name}\"");
        // Nothing is flushed, nobody is told.
        let _never_returns = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
