//! The critical section: from the first change of a shared page until its record is in the WAL, any unwind stops the node.
//!
//! The locks here do not poison, so a panic in between would leave a changed page nobody logged. PostgreSQL: `START_CRIT_SECTION`.

/// Aborts the process if dropped by an unwind or without [`CriticalSection::end`].
#[must_use = "ends with `end()`"]
#[derive(Debug)]
pub struct CriticalSection {
    what: &'static str,
}

impl CriticalSection {
    /// Begins one; `what` is printed if it does not end well.
    pub fn begin(what: &'static str) -> Self {
        Self { what }
    }

    /// The page change is logged: ordinary rules again.
    pub fn end(self) {
        std::mem::forget(self);
    }

    /// Runs `f`, which changes pages and logs it. An error inside is as fatal as a panic: the page is changed, the WAL is not.
    pub fn run<T, E: std::fmt::Display>(what: &'static str, f: impl FnOnce() -> Result<T, E>) -> T {
        let section = Self::begin(what);
        match f() {
            Ok(v) => {
                section.end();
                v
            }
            Err(e) => {
                stop_node(&format!("{what}: {e}"));
            }
        }
    }
}

impl Drop for CriticalSection {
    fn drop(&mut self) {
        stop_node(&format!("{}: left without a WAL record", self.what));
    }
}

/// Ends the process now; the supervisor starts it again and recovery rebuilds memory from what is on disk.
pub fn stop_node(why: &str) -> ! {
    if tracing::dispatcher::has_been_set() {
        tracing::error!(severity = "PANIC", "{why}");
    } else {
        eprintln!("PANIC:  {why}");
    }
    std::process::abort()
}
