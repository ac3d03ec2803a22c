//! What the command line of every tool begins with: `--help`, `--version`, and a hint for who mistyped.

use std::fmt::Display;

use super::getopt::{OptionSpec, Parsed, parse};

/// A tool, as it presents itself.
pub(super) struct Tool<'a> {
    /// What its messages call it.
    pub(super) name: &'a str,
    /// Its options; keys `help` and `version` are answered here.
    pub(super) options: &'static [OptionSpec],
    /// What `--help` prints.
    pub(super) help: &'a str,
    /// What `--version` prints.
    pub(super) version: String,
    /// Its exit code when it could not do its work.
    pub(super) failure: u8,
}

/// The version line of a tool of PostgreSQL's name.
pub(super) fn as_postgresql(tool: &str) -> String {
    format!("{tool} (PostgreSQL) {}", crate::session::POSTGRES_VERSION)
}

/// The version line of a tool that is ours alone.
pub(super) fn as_ours(tool: &str) -> String {
    format!("{tool} {}", env!("CARGO_PKG_VERSION"))
}

impl Tool<'_> {
    /// The command line. `Err`: all is said, and this is the exit code.
    pub(super) fn parse(&self, args: &[String]) -> Result<Parsed, u8> {
        // As first word they count whatever follows.
        let first = parse(args.get(..1).unwrap_or_default(), self.options).unwrap_or_default();
        if let Some(code) = self.answer(&first) {
            return Err(code);
        }
        let parsed = parse(args, self.options).map_err(|message| self.advise(&message))?;
        self.answer(&parsed).map_or(Ok(parsed), Err)
    }

    fn answer(&self, parsed: &Parsed) -> Option<u8> {
        if parsed.has("help") {
            print!("{}", self.help);
        } else if parsed.has("version") {
            println!("{}", self.version);
        } else {
            return None;
        }
        Some(0)
    }

    /// Says what is wrong with the command line, and where to read more; the exit code.
    pub(super) fn advise(&self, message: &str) -> u8 {
        let name = self.name;
        eprintln!("{name}: {message}\n{name}: hint: Try \"{name} --help\" for more information.");
        self.failure
    }

    /// Says why the work could not be done; the exit code.
    pub(super) fn fail(&self, message: impl Display) -> u8 {
        eprintln!("{}: error: {message}", self.name);
        self.failure
    }
}
