//! `afterimage verify`: checks a data directory offline.

use std::path::{Path, PathBuf};

use super::getopt::{OptionSpec, Takes};
use super::pages::Pages;
use super::tool::{Tool, as_ours};
use crate::control::pid_file::PidFile;
use crate::session::verify::{self, Watch};

const OPTIONS: &[OptionSpec] = &[
    ('?', "help", Takes::Nothing, "help"),
    ('V', "version", Takes::Nothing, "version"),
    ('D', "pgdata", Takes::Value, "D"),
    ('P', "progress", Takes::Nothing, "P"),
    ('q', "quiet", Takes::Nothing, "q"),
];

const HELP: &str = "\
afterimage verify checks a data directory that no server runs on: the checksum of every page, the structure of every table and index,
and every index against its table. The directory is not changed; after a crash it is recovered in memory first.

Usage:
  afterimage verify [OPTION]... [DATADIR]

Options:
 [-D, --pgdata=]DATADIR  data directory
  -P, --progress         show progress (default on a terminal)
  -q, --quiet            print damage only
  -V, --version          output version information, then exit
  -?, --help             show this help, then exit

Each piece of damage is a line on standard output. Exit status is 0 if there is none, 2 if there is some, 1 if the directory could not
be checked. If no data directory is specified, the environment variable PGDATA is used.
";

impl Watch for Pages {
    fn found(&mut self, damage: &str) {
        Self::found(self, damage);
    }

    fn todo(&mut self, pages: u64) {
        Self::todo(self, pages);
    }

    fn done(&mut self, pages: u64) {
        Self::done(self, pages);
    }
}

/// Runs the command. Returns the exit code.
pub(super) fn run(args: &[String]) -> u8 {
    let name = "afterimage verify";
    let tool = Tool { name, options: OPTIONS, help: HELP, version: as_ours(name), failure: 1 };
    let parsed = match tool.parse(args) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let dir = parsed.value("D").map(str::to_owned).or_else(|| parsed.positional.first().cloned()).or_else(|| std::env::var("PGDATA").ok());
    let Some(dir) = dir.map(PathBuf::from) else { return tool.advise("error: no data directory specified") };
    if let Some(pid) = running(&dir) {
        return tool.fail(format_args!(
            "a server is running on \"{}\" (PID {pid}); stop it, or use the functions verify_heapam and bt_index_check",
            dir.display()
        ));
    }
    if !dir.join("global/pg_control").exists() {
        return tool.fail(format_args!("\"{}\" is not a data directory: there is no global/pg_control", dir.display()));
    }
    let mut pages = Pages::new(&parsed);
    let result = verify::run(&dir, &mut pages);
    pages.finish();
    match result {
        Ok(checked) => {
            if !parsed.has("q") {
                println!(
                    "{} files with {} pages, {} tables and {} indexes checked: {}",
                    checked.files,
                    checked.pages,
                    checked.tables,
                    checked.indexes,
                    if checked.damaged == 0 { "no damage found".to_owned() } else { format!("{} pieces of damage found", checked.damaged) }
                );
            }
            if checked.damaged == 0 { 0 } else { 2 }
        }
        Err(message) => tool.fail(message),
    }
}

fn running(dir: &Path) -> Option<i32> {
    let file = PidFile::read(&dir.join("postmaster.pid")).ok()??;
    file.is_alive().then_some(file.pid)
}
