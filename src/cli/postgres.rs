//! `postgres`: the server in the foreground, with PostgreSQL's options.

use std::path::PathBuf;

use super::getopt::{OptionSpec, Takes, parse};
use crate::config::{Config, Setting, lookup};
use crate::control::supervisor::{self, Invocation};
use crate::session;

const OPTIONS: &[OptionSpec] = &[
    ('?', "help", Takes::Nothing, "help"),
    ('V', "version", Takes::Nothing, "version"),
    ('B', "", Takes::Value, "shared_buffers"),
    ('C', "", Takes::Value, "C"),
    ('D', "", Takes::Value, "D"),
    ('c', "", Takes::Value, "c"),
    ('d', "", Takes::Value, "d"),
    ('e', "", Takes::Nothing, "e"),
    ('F', "", Takes::Nothing, "F"),
    ('f', "", Takes::Value, "f"),
    ('h', "", Takes::Value, "listen_addresses"),
    ('i', "", Takes::Nothing, "i"),
    ('j', "", Takes::Nothing, "j"),
    ('k', "", Takes::Value, "unix_socket_directories"),
    ('l', "", Takes::Nothing, "l"),
    ('N', "", Takes::Value, "max_connections"),
    ('n', "", Takes::Nothing, "n"),
    ('O', "", Takes::Nothing, "O"),
    ('P', "", Takes::Nothing, "P"),
    ('p', "", Takes::Value, "port"),
    ('s', "", Takes::Nothing, "s"),
    ('S', "", Takes::Value, "work_mem"),
    ('T', "", Takes::Nothing, "T"),
    ('t', "", Takes::Value, "t"),
    ('W', "", Takes::Value, "post_auth_delay"),
];

/// Runs `postgres`; returns the exit code.
pub(super) fn run(args: &[String]) -> u8 {
    // `--name=value` is any setting: taken out before the options proper.
    let mut settings: Vec<(String, String)> = Vec::new();
    let mut plain: Vec<String> = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if let Some(long) = arg.strip_prefix("--").filter(|l| !matches!(*l, "" | "help" | "version")) {
            let Some((name, value)) = long.split_once('=') else {
                eprintln!("postgres: --{long} requires a value");
                return 1;
            };
            settings.push((name.replace('-', "_"), value.to_owned()));
            continue;
        }
        plain.push(arg.clone());
        let takes_next = arg.len() == 2
            && arg.starts_with('-')
            && OPTIONS.iter().any(|(s, _, takes, _)| arg[1..].starts_with(*s) && *takes == Takes::Value);
        if takes_next {
            plain.extend(rest.next().cloned());
        }
    }
    let parsed = match parse(&plain, OPTIONS) {
        Ok(p) => p,
        Err(e) => {
            eprintln!("postgres: {e}");
            eprintln!("Try \"postgres --help\" for more information.");
            return 1;
        }
    };
    if parsed.has("help") {
        print!("{HELP}");
        return 0;
    }
    if parsed.has("version") {
        println!("postgres (PostgreSQL) {}", session::POSTGRES_VERSION);
        return 0;
    }
    if let Some(extra) = parsed.positional.first() {
        eprintln!("postgres: invalid argument: \"{extra}\"");
        eprintln!("Try \"postgres --help\" for more information.");
        return 1;
    }
    let mut set = |name: &str, value: &str| settings.push((name.to_owned(), value.to_owned()));
    for (key, value) in &parsed.options {
        let value = value.as_deref().unwrap_or("");
        match *key {
            "c" => match value.split_once('=') {
                Some((name, value)) => set(&name.trim().replace('-', "_"), value),
                None => {
                    eprintln!("postgres: -c {value} requires a value");
                    return 1;
                }
            },
            "F" => set("fsync", "off"),
            "i" => set("listen_addresses", "*"),
            "e" => set("datestyle", "euro"),
            "O" => set("allow_system_table_mods", "on"),
            "P" => set("ignore_system_indexes", "on"),
            "s" => set("log_statement_stats", "on"),
            "d" if value == "0" => {}
            "d" => set("log_min_messages", &format!("debug{value}")),
            "f" => {
                let name = match value {
                    "s" => "enable_seqscan",
                    "i" => "enable_indexscan",
                    "o" => "enable_indexonlyscan",
                    "b" => "enable_bitmapscan",
                    "t" => "enable_tidscan",
                    "n" => "enable_nestloop",
                    "m" => "enable_mergejoin",
                    "h" => "enable_hashjoin",
                    _ => {
                        eprintln!("postgres: invalid argument for option -f: \"{value}\"");
                        return 1;
                    }
                };
                set(name, "off");
            }
            name if lookup(name).is_some() => set(name, value),
            _ => {}
        }
    }
    let named = settings.iter().rev().find(|(n, _)| n == "data_directory").map(|(_, v)| v.clone());
    let data = parsed.value("D").map(str::to_owned).or(named).or_else(|| std::env::var("PGDATA").ok().filter(|d| !d.is_empty()));
    let Some(data) = data else {
        eprintln!("postgres does not know where to find the server configuration file.");
        eprintln!("You must specify the --config-file or -D invocation option or set the PGDATA environment variable.");
        return 2;
    };
    settings.retain(|(n, _)| n != "data_directory");
    let data_dir = match std::path::absolute(data.trim_end_matches('/')) {
        Ok(d) => d,
        Err(e) => {
            eprintln!("postgres: could not find directory \"{data}\": {e}");
            return 2;
        }
    };
    if let Some(name) = parsed.value("C") {
        return print_setting(&data_dir, settings, name);
    }
    let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let program = if called.components().count() > 1 {
        std::path::absolute(&called).unwrap_or(called)
    } else {
        std::env::current_exe().unwrap_or(called)
    };
    let invocation = Invocation { data_dir, settings, program, args: args.to_vec() };
    match supervisor::supervisor_pid() {
        Some(pid) => session::server::run(&invocation, pid),
        None => supervisor::run(&invocation),
    }
}

/// `-C NAME`: the value a setting would have.
fn print_setting(data_dir: &std::path::Path, settings: Vec<(String, String)>, name: &str) -> u8 {
    if !data_dir.join("postgresql.conf").exists() && !settings.iter().any(|(n, _)| n == "config_file") {
        eprintln!(
            "postgres: could not access the server configuration file \"{}\": No such file or directory",
            data_dir.join("postgresql.conf").display()
        );
        return 2;
    }
    let config = match Config::load(data_dir, settings) {
        Ok(c) => c,
        Err(e) => {
            eprintln!("postgres: {e}");
            return 1;
        }
    };
    let current = config.current();
    match lookup(name) {
        Some(Setting::DataDirectory) => println!("{}", data_dir.display()),
        Some(setting) => println!("{}", current.value(setting).raw(setting.def())),
        None => {
            eprintln!("FATAL:  unrecognized configuration parameter \"{name}\"");
            return 1;
        }
    }
    0
}

const HELP: &str = "\
postgres is the Afterimage server.

Usage:
  postgres [OPTION]...

Options:
  -B NBUFFERS        shared_buffers, in 8 kB pages
  -c NAME=VALUE      set a run-time parameter
  -C NAME            print the value of a run-time parameter, then exit
  -d 1-5             debugging level
  -D DATADIR         data directory (default: PGDATA)
  -e                 European date input (DMY)
  -F                 turn fsync off
  -h HOSTNAME        addresses to listen on
  -i                 listen on all addresses
  -k DIRECTORY       directory of the Unix socket
  -N MAX-CONNECT     most connections
  -p PORT            port
  -S WORK-MEM        memory for sorts, in kB
  -V, --version      print the version, then exit
  --NAME=VALUE       set a run-time parameter
  -?, --help         print this, then exit
";
