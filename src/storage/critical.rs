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
    #[cfg(test)]
    simulated::stop(why);
    if tracing::dispatcher::has_been_set() {
        tracing::error!(severity = "PANIC", "{why}");
    } else {
        eprintln!("PANIC:  {why}");
    }
    std::process::abort()
}

/// Lets a test outlive the end of a node it runs in its own process.
#[cfg(test)]
pub(crate) mod simulated {
    use std::collections::HashSet;

    use parking_lot::Mutex;

    type Hook = Box<dyn Fn(&str) + Send>;
    static HOOK: Mutex<Option<(HashSet<i32>, Hook)>> = Mutex::new(None);

    /// From now on a thread that would have ended the process calls `hook` and sleeps for ever, with all it holds. Threads that are there already do not call
    /// it: nodes that stopped before left them behind, and some meet the end of their disk only now.
    pub(crate) fn on_stop(hook: Hook) {
        let tasks = std::fs::read_dir("/proc/self/task").expect("this is Linux");
        let left_behind = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).collect();
        *HOOK.lock() = Some((left_behind, hook));
    }

    pub(super) fn stop(why: &str) {
        let hook = HOOK.lock();
        let Some((left_behind, tell)) = hook.as_ref() else { return };
        if !left_behind.contains(&rustix::thread::gettid().as_raw_nonzero().get()) {
            tell(why);
        }
        drop(hook);
        loop {
            std::thread::park();
        }
    }
}
