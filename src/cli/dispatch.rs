//! Which command was asked for: by the name the program was called by, or by its first argument.

use std::path::Path;

use super::links::{self, TOOLS};
use super::{archive, checksums, compare, controldata, initdb, pg_ctl, postgres, resetwal, rewind, verify, verifybackup, waldump};

const HELP: &str = "\
afterimage is a PostgreSQL-compatible database server built around physical replication.

Usage:
  afterimage COMMAND [OPTION]...

Commands:
  initdb          create a data directory
  start           start the server of a data directory
  stop            stop it (-m smart, fast or immediate)
  restart         stop it, then start it again
  reload          make it read its settings again
  status          say whether it runs
  promote         make a standby the primary
  postgres        run the server in the foreground
  basebackup      copy a running server
  verifybackup    check a base backup against its manifest
  resetwal        give a data directory a new, empty WAL (a last resort)
  checksums       verify every page of a stopped data directory
  rewind          make a data directory follow another one again
  controldata     show the control file of a data directory
  verify          check every page, table and index of a data directory offline
  compare         compare the pages of a running standby with its primary's
  waldump         show the records of WAL files
  archive         put WAL into an archive, take it out, remove what is old
  install-links   make links with PostgreSQL's tool names
  quickstart      run a primary and a hot standby, to try things

Each command takes the options of PostgreSQL's tool of that name; start, stop, restart, reload, status and
promote take pg_ctl's. \"afterimage COMMAND --help\" lists them.
";

/// Runs the program; the result is its exit code.
pub fn run() -> u8 {
    let args: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    let called = args.first().map_or("", String::as_str);
    let name = Path::new(called).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let rest = args.get(1..).unwrap_or_default();
    if let Some((tool, command)) = TOOLS.iter().find(|(tool, _)| *tool == name) {
        return run_command(command, tool, rest);
    }
    let Some((command, rest)) = rest.split_first() else {
        print!("{HELP}");
        return 1;
    };
    match command.as_str() {
        "--help" | "-?" | "-h" | "help" => {
            print!("{HELP}");
            0
        }
        "--version" | "-V" => {
            println!("afterimage {}", env!("CARGO_PKG_VERSION"));
            0
        }
        _ => run_command(command, &format!("afterimage {command}"), rest),
    }
}

/// `basebackup`, and `pg_basebackup`.
fn base_backup(args: &[String]) -> u8 {
    use super::basebackup::{BackupError, Options, Refusal, run};
    let name = "pg_basebackup";
    let advice = || eprintln!("{name}: hint: Try \"{name} --help\" for more information.");
    let options = match Options::parse(args) {
        Ok(options) => options,
        Err(Refusal::Answer(text)) => {
            print!("{text}");
            return 0;
        }
        Err(Refusal::Getopt(text)) => {
            eprintln!("{name}: {text}");
            advice();
            return 1;
        }
        Err(Refusal::Usage(text)) => {
            eprintln!("{name}: error: {text}");
            advice();
            return 1;
        }
        Err(Refusal::Error(text)) => {
            eprintln!("{name}: error: {text}");
            return 1;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("{name}: error: could not start: {e}");
            return 1;
        }
    };
    match runtime.block_on(run(&options)) {
        Ok(_) => 0,
        Err(BackupError::Checksum) => {
            eprintln!("{name}: error: checksum error occurred");
            1
        }
        Err(BackupError::Other(e)) => {
            eprintln!("{name}: error: {e:#}");
            1
        }
    }
}

/// Runs one command; `name` is what messages call the program.
fn run_command(command: &str, name: &str, args: &[String]) -> u8 {
    match command {
        "initdb" => initdb::run(name, args),
        "postgres" => postgres::run(args),
        "pg_ctl" => pg_ctl::run("pg_ctl", None, args),
        "start" | "stop" | "restart" | "reload" | "status" | "promote" | "logrotate" => pg_ctl::run(name, Some(command), args),
        "controldata" => controldata::run(name, args),
        "verify" => verify::run(args),
        "compare" => compare::run(args),
        "waldump" => waldump::run(name, args),
        "archive" => archive::run(args),
        "install-links" => links::install(args),
        "basebackup" => base_backup(args),
        "rewind" => rewind::run("pg_rewind", args),
        "resetwal" => resetwal::run("pg_resetwal", args),
        "checksums" => checksums::run("pg_checksums", args),
        "verifybackup" => verifybackup::run("pg_verifybackup", args),
        "quickstart" => super::quickstart::run(args),
        _ => {
            eprintln!("afterimage: unknown command \"{command}\"");
            eprintln!("Try \"afterimage --help\" for more information.");
            1
        }
    }
}
