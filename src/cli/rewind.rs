//! `afterimage rewind`, and `pg_rewind` when called by that name: makes a data directory follow another node again.
//!
//! Options, messages and exit codes are PostgreSQL's. What differs: the target need not have been shut down cleanly, needs no WAL
//! from before the fork and no `wal_log_hints`; a rewind that was interrupted is run again.

use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use super::getopt::{OptionSpec, Takes};
use super::tool::{Tool, as_postgresql};
use crate::config::Config;
use crate::replication::conninfo::ConnInfo;
use crate::replication::location;
use crate::replication::rewind::{self, Observer, RewindError, Source, Step};

const OPTIONS: &[OptionSpec] = &[
    ('c', "restore-target-wal", Takes::Nothing, "c"),
    ('D', "target-pgdata", Takes::Value, "D"),
    ('\0', "source-pgdata", Takes::Value, "source-pgdata"),
    ('\0', "source-server", Takes::Value, "source-server"),
    ('n', "dry-run", Takes::Nothing, "n"),
    ('N', "no-sync", Takes::Nothing, "N"),
    ('P', "progress", Takes::Nothing, "P"),
    ('R', "write-recovery-conf", Takes::Nothing, "R"),
    ('\0', "config-file", Takes::Value, "config-file"),
    ('\0', "debug", Takes::Nothing, "debug"),
    ('\0', "no-ensure-shutdown", Takes::Nothing, "no-ensure-shutdown"),
    ('V', "version", Takes::Nothing, "version"),
    ('?', "help", Takes::Nothing, "help"),
];

const HELP: &str = "\
pg_rewind makes a data directory follow another copy of its cluster again.

Usage:
  pg_rewind [OPTION]...

Options:
  -c, --restore-target-wal       use restore_command in target configuration to
                                 find its timeline history
  -D, --target-pgdata=DIRECTORY  existing data directory to modify
      --source-pgdata=DIRECTORY  source data directory to synchronize with
      --source-server=CONNSTR    source server to synchronize with
  -n, --dry-run                  stop before modifying anything
  -N, --no-sync                  do not wait for changes to be written
                                 safely to disk
  -P, --progress                 write progress messages
  -R, --write-recovery-conf      write configuration for replication
                                 (requires --source-server)
      --config-file=FILENAME     main server configuration file of the target
      --debug                    write a lot of debug messages
      --no-ensure-shutdown       accepted: an unclean target is rewound as it is
  -V, --version                  output version information, then exit
  -?, --help                     show this help, then exit
";

/// Runs it; returns the exit code.
pub(super) fn run(name: &str, args: &[String]) -> u8 {
    let tool = Tool { name, options: OPTIONS, help: HELP, version: as_postgresql("pg_rewind"), failure: 1 };
    let parsed = match tool.parse(args) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let advice = |message: &str| tool.advise(&format!("error: {message}"));
    let (directory, server) = (parsed.value("source-pgdata"), parsed.value("source-server"));
    let Some(target) = parsed.value("D").map(PathBuf::from) else {
        return advice(match (directory, server) {
            (None, None) => "no source specified (--source-pgdata or --source-server)",
            (Some(_), Some(_)) => "only one of --source-pgdata or --source-server can be specified",
            _ => "no target data directory specified (--target-pgdata)",
        });
    };
    match (directory, server) {
        (None, None) => return advice("no source specified (--source-pgdata or --source-server)"),
        (Some(_), Some(_)) => return advice("only one of --source-pgdata or --source-server can be specified"),
        _ => {}
    }
    if parsed.has("R") && server.is_none() {
        return advice("no source server information (--source-server) specified for --write-recovery-conf");
    }
    if let Some(extra) = parsed.positional.first() {
        return advice(&format!("too many command-line arguments (first is \"{extra}\")"));
    }
    match std::fs::metadata(&target) {
        // What is made in it has its permissions, as initdb gave them.
        Ok(meta) => {
            let others = if meta.mode() & 0o040 != 0 { Mode::WGRP | Mode::RWXO } else { Mode::RWXG | Mode::RWXO };
            rustix::process::umask(others);
        }
        Err(e) => {
            let text = e.to_string();
            let reason = text.split_once(" (os error").map_or(text.as_str(), |(t, _)| t);
            eprintln!("{name}: error: could not read permissions of directory \"{}\": {reason}", target.display());
            return 1;
        }
    }
    let restore_command = match restore_command(&target, parsed.has("c"), parsed.value("config-file")) {
        Ok(command) => command,
        Err(message) => {
            eprintln!("{name}: error: {message}");
            return 1;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("{name}: error: could not start: {e}");
            return 1;
        }
    };
    let mut teller = Teller::new(name, parsed.has("debug"), parsed.has("P"));
    let mut options = rewind::Options { target, dry_run: parsed.has("n"), sync: !parsed.has("N"), restore_command, recovery_conf: None };
    let done = runtime.block_on(async {
        let mut source = match (directory, server) {
            (_, Some(text)) => {
                let info = ConnInfo::parse(text).map_err(crate::replication::client::ClientError::from)?;
                if parsed.has("R") {
                    let shown = info.for_standby().to_text().replace('\'', "''");
                    options.recovery_conf = Some(format!("primary_conninfo = '{shown}'\n"));
                }
                let source = Source::connect(&info).await?;
                teller.phase("connected to server");
                source
            }
            (directory, None) => Source::Directory(PathBuf::from(directory.unwrap_or_default())),
        };
        rewind::run(&options, &mut source, &mut teller).await
    });
    teller.finish();
    match done {
        Ok(outcome) => {
            if outcome.needed {
                teller.info("Done!");
            }
            0
        }
        Err(e) => {
            eprintln!("{name}: error: {e}");
            if let Some(detail) = e.detail() {
                eprintln!("{name}: detail: {detail}");
            }
            1
        }
    }
}

/// The target's `restore_command`, if it is to be used.
fn restore_command(target: &Path, wanted: bool, config_file: Option<&str>) -> Result<Option<String>, String> {
    if !wanted {
        return Ok(None);
    }
    let settings = config_file.map(|file| ("config_file".to_owned(), file.to_owned())).into_iter().collect();
    let config = Config::load(target, settings).map_err(|e| e.to_string())?;
    let command = location::restore_command(&config.current());
    if command.is_empty() {
        return Err("restore_command is not set in the target cluster".to_owned());
    }
    Ok(Some(command))
}

/// Tells the user, on stderr.
struct Teller<'a> {
    name: &'a str,
    debug: bool,
    progress: bool,
    bar: Option<indicatif::ProgressBar>,
    told: Option<u64>,
}

impl<'a> Teller<'a> {
    fn new(name: &'a str, debug: bool, progress: bool) -> Self {
        Self { name, debug, progress, bar: None, told: None }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{}: {text}", self.name)),
            None => eprintln!("{}: {text}", self.name),
        }
    }
}

impl Observer for Teller<'_> {
    fn info(&mut self, text: &str) {
        self.say(text);
    }

    fn debug(&mut self, text: &str) {
        if self.debug {
            self.say(&format!("debug: {text}"));
        }
    }

    fn phase(&mut self, text: &str) {
        if self.progress {
            self.say(text);
        }
    }

    fn progress(&mut self, done: u64, total: u64) {
        if !self.progress {
            return;
        }
        if std::io::stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| {
                let style =
                    indicatif::ProgressStyle::with_template("{bytes}/{total_bytes} ({percent}%) {bar:30} {bytes_per_sec} eta {eta}");
                let bar = indicatif::ProgressBar::new(total);
                style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
            });
            bar.set_position(done);
            return;
        }
        // In a file: a line for each percent.
        let percent = (done * 100).checked_div(total).unwrap_or(100);
        if self.told != Some(percent) {
            self.told = Some(percent);
            eprintln!("{}/{} kB ({percent}%) copied", done / 1024, total / 1024);
        }
    }

    fn step(&mut self, _step: Step<'_>) -> Result<(), RewindError> {
        Ok(())
    }
}
