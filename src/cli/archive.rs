//! `afterimage archive`: what `archive_location` and `restore_location` run, and what an operator keeps an archive in order with.

use std::path::Path;

use crate::replication::location::{Location, LocationError};

const HELP: &str = "\
afterimage archive puts WAL into an archive and takes it out again.

Usage:
  afterimage archive put LOCATION PATH NAME     archive a file under a name
  afterimage archive get LOCATION NAME PATH     restore one; exit code 1 if it is not there, 200 if the archive cannot be asked
  afterimage archive list LOCATION              names of all files
  afterimage archive cleanup LOCATION OLDEST    remove segments before this one, for archive_cleanup_command:
                                                'afterimage archive cleanup /archive %r'

LOCATION is a directory, or s3://BUCKET/PREFIX?endpoint=URL&region=NAME with credentials in AWS_ACCESS_KEY_ID
and AWS_SECRET_ACCESS_KEY, or in a file (&credentials=PATH). The settings archive_location and restore_location run \"put\" and \"get\" by themselves.
";

/// The archive cannot be asked: more than 125, so that recovery does not take it for the end of the archive.
const UNREACHABLE: u8 = 200;

/// Runs it; returns the exit code.
pub(super) fn run(args: &[String]) -> u8 {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (unreachable, done) = match words.as_slice() {
        ["--help" | "-?"] => {
            print!("{HELP}");
            return 0;
        }
        ["put", location, path, name] => (1, put(location, path, name)),
        ["get", location, name, path] => {
            (UNREACHABLE, Location::parse(location).and_then(|l| l.get(name, Path::new(path))).map(|found| u8::from(!found)))
        }
        ["list", location] => (1, Location::parse(location).and_then(|l| l.list()).map(|names| print_all(&names))),
        ["cleanup", location, oldest] => (1, Location::parse(location).and_then(|l| l.remove_before(oldest)).map(|_removed| 0)),
        _ => {
            eprint!("{HELP}");
            return 1;
        }
    };
    done.unwrap_or_else(|e| {
        eprintln!("afterimage archive: error: {e}");
        unreachable
    })
}

fn put(location: &str, path: &str, name: &str) -> Result<u8, LocationError> {
    if !Location::parse(location)?.put(Path::new(path), name)? {
        eprintln!("afterimage archive: archive file \"{name}\" already exists with identical contents");
    }
    Ok(0)
}

fn print_all(names: &[String]) -> u8 {
    for name in names {
        println!("{name}");
    }
    0
}
