//! What a command that looks at many pages shows meanwhile.

use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

use super::getopt::Parsed;

/// Findings on standard output, and a progress bar: with `-P`, or on a terminal without `-q`.
pub(super) struct Pages {
    bar: ProgressBar,
}

impl Pages {
    pub(super) fn new(parsed: &Parsed) -> Self {
        let shown = parsed.has("P") || (std::io::stderr().is_terminal() && !parsed.has("q"));
        let bar = if shown { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{pos}/{len} pages ({percent}%) {bar:30} eta {eta}") {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// So many more are to be looked at.
    pub(super) fn todo(&self, pages: u64) {
        self.bar.inc_length(pages);
    }

    /// So many were.
    pub(super) fn done(&self, pages: u64) {
        self.bar.inc(pages);
    }

    /// A line about one.
    pub(super) fn found(&self, what: &str) {
        self.bar.suspend(|| println!("{what}"));
    }

    /// No more to show.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
