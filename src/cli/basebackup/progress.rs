//! How far a backup is: PostgreSQL's lines, or on a terminal a bar.

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

/// Shown to the user of `-P`. The archive's thread and the connection's task both report.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    shown: bool,
    verbose: bool,
    total_kb: u64,
    tablespaces: u64,
    tablespace: AtomicU64,
    done_bytes: AtomicU64,
    /// Leaf. When a line was last printed, and the file being written.
    last: Mutex<(Option<Instant>, String)>,
}

impl Progress {
    pub(super) fn new(shown: bool, verbose: bool, total_kb: u64, tablespaces: usize) -> Self {
        let bar = (shown && std::io::stderr().is_terminal()).then(|| {
            let style = "{bytes}/{total_bytes} ({percent}%) [{bar:30}] {bytes_per_sec}, {eta} left {msg}";
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total_kb * 1024).with_style(style)
        });
        Self {
            bar,
            shown,
            verbose,
            total_kb,
            tablespaces: tablespaces as u64,
            tablespace: AtomicU64::new(0),
            done_bytes: AtomicU64::new(0),
            last: Mutex::new((None, String::new())),
        }
    }

    /// The next archive begins.
    pub(super) fn next_archive(&self) {
        self.tablespace.fetch_add(1, Ordering::Relaxed);
        self.show(false, false);
    }

    /// A file begins.
    pub(super) fn file(&self, path: &Path) {
        if self.shown && self.verbose {
            self.last.lock().1 = path.display().to_string();
        }
    }

    /// The server says how far it is.
    pub(super) fn set(&self, bytes: u64) {
        self.done_bytes.fetch_max(bytes, Ordering::Relaxed);
        self.show(false, false);
    }

    /// All is there.
    pub(super) fn finish(&self) {
        self.done_bytes.fetch_max(self.total_kb * 1024, Ordering::Relaxed);
        self.show(true, true);
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }

    fn show(&self, force: bool, finished: bool) {
        if !self.shown {
            return;
        }
        let mut last = self.last.lock();
        if !force && last.0.is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
            return;
        }
        last.0 = Some(Instant::now());
        let done_kb = self.done_bytes.load(Ordering::Relaxed) / 1024;
        // The estimate is one: files grow.
        let total_kb = self.total_kb.max(done_kb);
        let name = if self.verbose && !finished { format!(" ({})", last.1) } else { String::new() };
        if let Some(bar) = &self.bar {
            bar.set_length(total_kb * 1024);
            bar.set_position(done_kb * 1024);
            bar.set_message(name);
            return;
        }
        let percent = (done_kb * 100).checked_div(total_kb).unwrap_or(100);
        let (at, of) = (self.tablespace.load(Ordering::Relaxed), self.tablespaces);
        let width = total_kb.to_string().len();
        eprintln!("{done_kb:>width$}/{total_kb} kB ({percent}%), {at}/{of} tablespace{}{name}", if of == 1 { "" } else { "s" });
    }
}
