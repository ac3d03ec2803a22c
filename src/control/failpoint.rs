//! Named places at which a test lets the server die, as by SIGKILL: always compiled in, so that what is tested is what is run.
//!
//! The environment variable `AFTERIMAGE_KILL_AT` names one; `AFTERIMAGE_HOLD_AT` one at which whoever comes by stays. Without them passing one costs a
//! load.

use std::sync::OnceLock;

/// Names the failpoint at which the server dies.
pub const VARIABLE: &str = "AFTERIMAGE_KILL_AT";

/// Names the failpoint from which nobody goes on.
pub const HOLD_VARIABLE: &str = "AFTERIMAGE_HOLD_AT";

/// Dies or stays here if the environment says so.
pub fn pass(name: &str) {
    static WANTED: OnceLock<[Option<String>; 2]> = OnceLock::new();
    let [kill, hold] = WANTED.get_or_init(|| [VARIABLE, HOLD_VARIABLE].map(|variable| std::env::var(variable).ok()));
    while hold.as_deref() == Some(name) {
        std::thread::park();
    }
    if kill.as_deref() == Some(name) {
        tracing::warn!("{VARIABLE}: the server dies at \"{name}\"");
        // Nothing is flushed, nobody is told.
        let _never_returns = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
