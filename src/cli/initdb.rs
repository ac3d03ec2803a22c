//! `initdb`: a new data directory.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use super::getopt::{OptionSpec, Parsed, Takes, parse};
use super::pg_ctl::reason;
use crate::config::{Context, Kind, TABLE};
use crate::session::{os_user, scram_verifier};

const OPTIONS: &[OptionSpec] = &[
    ('?', "help", Takes::Nothing, "help"),
    ('V', "version", Takes::Nothing, "version"),
    ('A', "auth", Takes::Value, "A"),
    ('\0', "auth-host", Takes::Value, "auth-host"),
    ('\0', "auth-local", Takes::Value, "auth-local"),
    ('D', "pgdata", Takes::Value, "D"),
    ('d', "debug", Takes::Nothing, "d"),
    ('E', "encoding", Takes::Value, "E"),
    ('g', "allow-group-access", Takes::Nothing, "g"),
    ('\0', "icu-locale", Takes::Value, "icu-locale"),
    ('k', "data-checksums", Takes::Nothing, "k"),
    ('L', "", Takes::Value, "L"),
    ('\0', "locale", Takes::Value, "locale"),
    ('\0', "lc-collate", Takes::Value, "lc-collate"),
    ('\0', "lc-ctype", Takes::Value, "lc-ctype"),
    ('\0', "lc-messages", Takes::Value, "lc-messages"),
    ('\0', "lc-monetary", Takes::Value, "lc-monetary"),
    ('\0', "lc-numeric", Takes::Value, "lc-numeric"),
    ('\0', "lc-time", Takes::Value, "lc-time"),
    ('\0', "locale-provider", Takes::Value, "locale-provider"),
    ('\0', "no-locale", Takes::Nothing, "no-locale"),
    ('\0', "no-instructions", Takes::Nothing, "no-instructions"),
    ('\0', "discard-caches", Takes::Nothing, "discard-caches"),
    ('n', "no-clean", Takes::Nothing, "n"),
    ('N', "no-sync", Takes::Nothing, "N"),
    ('\0', "pwfile", Takes::Value, "pwfile"),
    ('s', "show", Takes::Nothing, "s"),
    ('S', "sync-only", Takes::Nothing, "S"),
    ('T', "text-search-config", Takes::Value, "T"),
    ('U', "username", Takes::Value, "U"),
    ('W', "pwprompt", Takes::Nothing, "W"),
    ('X', "waldir", Takes::Value, "X"),
    ('\0', "wal-segsize", Takes::Value, "wal-segsize"),
];

const HOST_METHODS: &[&str] = &["trust", "reject", "scram-sha-256", "md5", "password"];
const LOCAL_METHODS: &[&str] = &["trust", "reject", "scram-sha-256", "md5", "password", "peer"];
/// Directories people and tools look for, beside those the engine makes.
const DIRECTORIES: &[&str] = &["pg_wal/archive_status", "pg_replslot", "pg_tblspc", "pg_stat", "pg_stat_tmp", "pg_twophase"];

/// What to make, checked.
struct Plan {
    name: String,
    dir: PathBuf,
    dir_mode: u32,
    file_mode: u32,
    superuser: String,
    password: Option<String>,
    auth_local: String,
    auth_host: String,
    segment_bytes: u32,
    wal_dir: Option<PathBuf>,
    sync: bool,
    clean: bool,
    instructions: bool,
    lc_messages: String,
    time_zone: String,
}

/// Runs initdb; returns the exit code.
pub(super) fn run(name: &str, args: &[String]) -> u8 {
    let advice = |message: &str| {
        eprintln!("{name}: error: {message}");
        eprintln!("Try \"{name} --help\" for more information.");
        1
    };
    let parsed = match parse(args, OPTIONS) {
        Ok(p) => p,
        Err(e) => {
            eprintln!("{name}: {e}");
            eprintln!("Try \"{name} --help\" for more information.");
            return 1;
        }
    };
    if parsed.has("help") {
        print!("{HELP}");
        return 0;
    }
    if parsed.has("version") {
        println!("initdb (PostgreSQL) {}", crate::session::POSTGRES_VERSION);
        return 0;
    }
    let mut dirs = parsed.positional.iter();
    let dir = parsed.value("D").or_else(|| dirs.next().map(String::as_str)).map(str::to_owned);
    if let Some(extra) = dirs.next() {
        return advice(&format!("too many command-line arguments (first is \"{extra}\")"));
    }
    let Some(dir) = dir.or_else(|| std::env::var("PGDATA").ok()).filter(|d| !d.is_empty()) else {
        eprintln!("{name}: error: no data directory specified");
        eprintln!(
            "{name}: hint: You must identify the directory where the data for this database system will reside.  Do this with either the invocation option -D or the environment variable PGDATA."
        );
        return 1;
    };
    if parsed.has("S") {
        return sync_only(name, Path::new(&dir));
    }
    let plan = match Plan::new(name, &dir, &parsed) {
        Ok(plan) => plan,
        Err(message) => {
            eprintln!("{name}: error: {message}");
            return 1;
        }
    };
    match plan.make(&parsed) {
        Ok(()) => 0,
        Err(message) => {
            eprintln!("{name}: error: {message}");
            1
        }
    }
}

fn sync_only(name: &str, dir: &Path) -> u8 {
    if !dir.is_dir() {
        eprintln!("{name}: error: could not access directory \"{}\": No such file or directory", dir.display());
        return 1;
    }
    print!("syncing data to disk ... ");
    let _unreportable = io::stdout().flush();
    match sync_tree(dir) {
        Ok(()) => {
            println!("ok");
            0
        }
        Err(e) => {
            eprintln!("{name}: error: {e}");
            1
        }
    }
}

impl Plan {
    fn new(name: &str, dir: &str, parsed: &Parsed) -> Result<Self, String> {
        let common = parsed.value("A");
        let auth_local = parsed.value("auth-local").or(common).unwrap_or("trust").to_owned();
        let auth_host = parsed.value("auth-host").or(common).unwrap_or("trust").to_owned();
        let auth_host = if auth_host == "peer" || auth_host == "ident" { "reject".to_owned() } else { auth_host };
        for (method, allowed, kind) in [(&auth_local, LOCAL_METHODS, "local"), (&auth_host, HOST_METHODS, "host")] {
            if !allowed.contains(&method.as_str()) {
                return Err(format!("invalid authentication method \"{method}\" for \"{kind}\" connections"));
            }
        }
        if let Some(encoding) = parsed.value("E") {
            let plain: String = encoding.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
            if !matches!(plain.as_str(), "utf8" | "unicode") {
                return Err(format!("encoding \"{encoding}\" is not supported; only UTF8 is"));
            }
        }
        let megabytes: u32 = match parsed.value("wal-segsize") {
            Some(text) => text.parse().map_err(|_| "argument of --wal-segsize must be a number".to_owned())?,
            None => 16,
        };
        if !megabytes.is_power_of_two() || !(1..=1024).contains(&megabytes) {
            return Err("argument of --wal-segsize must be a power of 2 between 1 and 1024".into());
        }
        let superuser = match parsed.value("U") {
            Some(u) => u.to_owned(),
            None => os_user().ok_or_else(|| "could not look up effective user ID: no such user".to_owned())?,
        };
        if superuser.starts_with("pg_") {
            return Err(format!("superuser name \"{superuser}\" is disallowed; role names cannot begin with \"pg_\""));
        }
        let password = match parsed.value("pwfile") {
            Some(file) => {
                let text = fs::read_to_string(file).map_err(|e| format!("could not open file \"{file}\" for reading: {}", reason(&e)))?;
                let line = text.lines().next().unwrap_or("").to_owned();
                if line.is_empty() {
                    return Err(format!("password file \"{file}\" is empty"));
                }
                Some(line)
            }
            None if parsed.has("W") => Some(prompt_password()?),
            None => None,
        };
        if password.is_none()
            && [&auth_local, &auth_host].iter().any(|m| matches!(m.as_str(), "md5" | "password" | "scram-sha-256"))
            && ![&auth_local, &auth_host].iter().any(|m| matches!(m.as_str(), "trust" | "peer"))
        {
            return Err("must specify a password for the superuser to enable password authentication".into());
        }
        let absolute = std::path::absolute(dir).map_err(|e| format!("could not access directory \"{dir}\": {}", reason(&e)))?;
        let wal_dir = match parsed.value("X") {
            Some(d) if !Path::new(d).is_absolute() => {
                return Err("WAL directory location must be an absolute path".into());
            }
            other => other.map(PathBuf::from),
        };
        let group = parsed.has("g");
        Ok(Self {
            name: name.to_owned(),
            dir: absolute,
            dir_mode: if group { 0o750 } else { 0o700 },
            file_mode: if group { 0o640 } else { 0o600 },
            superuser,
            password,
            auth_local,
            auth_host,
            segment_bytes: megabytes << 20,
            wal_dir,
            sync: !parsed.has("N"),
            clean: !parsed.has("n"),
            instructions: !parsed.has("no-instructions"),
            lc_messages: parsed.value("lc-messages").or(parsed.value("locale")).unwrap_or("C").to_owned(),
            time_zone: system_time_zone(),
        })
    }

    fn make(&self, parsed: &Parsed) -> Result<(), String> {
        let user = os_user().unwrap_or_else(|| "unknown".into());
        println!("The files belonging to this database system will be owned by user \"{user}\".");
        println!("This user must also own the server process.\n");
        if rustix::process::geteuid().is_root() {
            eprintln!("{}: warning: running as root; a dedicated user would be safer", self.name);
        }
        println!("The database cluster will be initialized with UTF8 encoding and byte order (C) collation.");
        println!("Data page checksums are enabled.\n");
        rustix::process::umask(if self.dir_mode == 0o750 { Mode::WGRP | Mode::RWXO } else { Mode::RWXG | Mode::RWXO });
        let existed = self.prepare_dir(&self.dir)?;
        let wal_existed = self.wal_dir.as_deref().map(|d| self.prepare_dir(d)).transpose()?;
        let made = self.fill();
        if made.is_err() && self.clean {
            self.remove_contents(&self.dir, existed, "data");
            if let (Some(dir), Some(existed)) = (&self.wal_dir, wal_existed) {
                self.remove_contents(dir, existed, "WAL");
            }
        }
        made?;
        if parsed.value("A").is_none() && (parsed.value("auth-local").is_none() || parsed.value("auth-host").is_none()) {
            eprintln!("\n{}: warning: enabling \"trust\" authentication for local connections", self.name);
            eprintln!(
                "{}: hint: You can change this by editing pg_hba.conf or using the option -A, or --auth-local and --auth-host, the next time you run initdb.",
                self.name
            );
        }
        if self.instructions {
            let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
            let start = called.with_file_name("pg_ctl");
            let start = if start.exists() { start.display().to_string() } else { "afterimage".into() };
            let start = if start == "afterimage" {
                format!("afterimage start -D {} -l logfile", self.dir.display())
            } else {
                format!("{start} -D {} -l logfile start", self.dir.display())
            };
            println!("\nSuccess. You can now start the database server using:\n\n    {start}\n");
        }
        Ok(())
    }

    /// Makes an empty directory, or takes an existing empty one. Returns whether it existed.
    fn prepare_dir(&self, dir: &Path) -> Result<bool, String> {
        let shown = dir.display();
        match fs::read_dir(dir) {
            Ok(entries) => {
                let names: Vec<String> = entries.filter_map(Result::ok).map(|e| e.file_name().to_string_lossy().into_owned()).collect();
                if names.iter().any(|n| n != "lost+found" && !n.starts_with('.')) || names.iter().any(|n| n == "lost+found") {
                    eprintln!("{}: error: directory \"{shown}\" exists but is not empty", self.name);
                    let hint = if names.iter().any(|n| n == "lost+found") {
                        format!(
                            "Using a mount point directly as the data directory is not recommended.\n{}: hint: Create a subdirectory under the mount point.",
                            self.name
                        )
                    } else {
                        format!(
                            "If you want to create a new database system, either remove or empty the directory \"{shown}\" or run initdb with an argument other than \"{shown}\"."
                        )
                    };
                    eprintln!("{}: hint: {hint}", self.name);
                    return Err("nothing was changed".into());
                }
                print!("fixing permissions on existing directory {shown} ... ");
                fs::set_permissions(dir, fs::Permissions::from_mode(self.dir_mode))
                    .map_err(|e| format!("could not change permissions of directory \"{shown}\": {}", reason(&e)))?;
                println!("ok");
                Ok(true)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                print!("creating directory {shown} ... ");
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(self.dir_mode)
                    .create(dir)
                    .map_err(|e| format!("could not create directory \"{shown}\": {}", reason(&e)))?;
                println!("ok");
                Ok(false)
            }
            Err(e) => Err(format!("could not access directory \"{shown}\": {}", reason(&e))),
        }
    }

    fn remove_contents(&self, dir: &Path, existed: bool, what: &str) {
        let shown = dir.display();
        let removed = if existed {
            eprintln!("{}: removing contents of {what} directory \"{shown}\"", self.name);
            fs::read_dir(dir).and_then(|entries| {
                for entry in entries {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        fs::remove_dir_all(entry.path())?;
                    } else {
                        fs::remove_file(entry.path())?;
                    }
                }
                Ok(())
            })
        } else {
            eprintln!("{}: removing {what} directory \"{shown}\"", self.name);
            fs::remove_dir_all(dir)
        };
        if let Err(e) = removed {
            eprintln!("{}: error: failed to remove {what} directory: {}", self.name, reason(&e));
        }
    }

    fn fill(&self) -> Result<(), String> {
        let io_error = |what: &str| {
            let what = what.to_owned();
            move |e: io::Error| format!("could not create \"{what}\": {}", reason(&e))
        };
        print!("creating the storage engine's files ... ");
        let _unreportable = io::stdout().flush();
        if let Some(wal) = &self.wal_dir {
            symlink(wal, self.dir.join("pg_wal")).map_err(io_error("pg_wal"))?;
        }
        let verifier = self.password.as_deref().map(scram_verifier);
        crate::session::bootstrap::create(&self.dir, self.segment_bytes, &self.superuser, verifier.as_deref())?;
        println!("ok");
        print!("creating configuration files ... ");
        for name in DIRECTORIES {
            let path = self.dir.join(name);
            if !path.exists() {
                fs::DirBuilder::new().recursive(true).mode(self.dir_mode).create(&path).map_err(io_error(name))?;
            }
        }
        self.file("postgresql.conf", &self.postgresql_conf())?;
        self.file("postgresql.auto.conf", "# Do not edit this file manually!\n# It will be overwritten by the ALTER SYSTEM command.\n")?;
        self.file("pg_hba.conf", &self.pg_hba_conf())?;
        self.file(
            "pg_ident.conf",
            "# User name maps: which operating system user may log in as which role.\n#\n# MAPNAME  SYSTEM-USERNAME  PG-USERNAME\n",
        )?;
        println!("ok");
        if self.sync {
            print!("syncing data to disk ... ");
            let _unreportable = io::stdout().flush();
            sync_tree(&self.dir).map_err(|e| format!("could not sync \"{}\": {}", self.dir.display(), reason(&e)))?;
            if let Some(wal) = &self.wal_dir {
                sync_tree(wal).map_err(|e| format!("could not sync \"{}\": {}", wal.display(), reason(&e)))?;
            }
            println!("ok");
        } else {
            println!("\nSync to disk skipped.\nThe data directory might become corrupt if the operating system crashes.");
        }
        Ok(())
    }

    fn file(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.dir.join(name);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(self.file_mode)
            .open(&path)
            .and_then(|mut f| f.write_all(text.as_bytes()))
            .map_err(|e| format!("could not create file \"{}\": {}", path.display(), reason(&e)))
    }

    /// The settings file: those set here, then every setting that has an effect, commented out, by group.
    fn postgresql_conf(&self) -> String {
        let mut out = String::from(
            "# Settings of this server: NAME = VALUE, one per line, # begins a comment. Later lines win, and postgresql.auto.conf\n\
             # (ALTER SYSTEM) wins over this file. Lines that are commented out show the default. Apply changes by \"pg_ctl reload\";\n\
             # settings marked (restart) need a restart.\n\
             # Memory: B kB MB GB TB. Time: us ms s min h d.\n\n",
        );
        out.push_str(&format!("timezone = '{}'\nlog_timezone = '{}'\n", self.time_zone, self.time_zone));
        out.push_str(&format!("lc_messages = '{}'\n", self.lc_messages));
        let mut groups: Vec<&str> = Vec::new();
        for def in TABLE {
            if !groups.contains(&def.group) {
                groups.push(def.group);
            }
        }
        groups.sort_unstable();
        for group in groups {
            let listed = TABLE.iter().filter(|d| {
                d.group == group
                    && !d.doc.is_empty()
                    && d.context != Context::Internal
                    && !d.has(crate::config::flag::NOT_IN_FILE)
                    && !matches!(d.name, "application_name" | "config_file" | "transaction_isolation" | "transaction_read_only")
            });
            let mut lines = String::new();
            for def in listed {
                let shown = crate::config::Value::parse(def, def.default).map_or_else(|_| def.default.to_owned(), |v| v.show(def));
                let shown = if matches!(def.kind, Kind::Str) { format!("'{shown}'") } else { shown };
                let restart = if def.context == Context::Postmaster { " (restart)" } else { "" };
                lines.push_str(&format!("{:<50} # {}{restart}\n", format!("#{} = {shown}", def.name), def.doc));
            }
            if !lines.is_empty() {
                out.push_str(&format!("\n# {group}\n\n{lines}"));
            }
        }
        out
    }

    fn pg_hba_conf(&self) -> String {
        let (local, host) = (&self.auth_local, &self.auth_host);
        let mut out = String::from(
            "# Who may log in, from where, and how. The first line that fits decides; if none fits, the connection is refused.\n#\n\
             # local      DATABASE  USER  METHOD  [OPTIONS]\n\
             # host       DATABASE  USER  ADDRESS  METHOD  [OPTIONS]\n#\n\
             # DATABASE: all, sameuser, samerole, replication (physical replication), names, @file. USER: all, names, +role, @file.\n\
             # ADDRESS: 192.168.0.0/24, ::1/128, a host name, samehost, samenet, all.\n\
             # METHOD: trust, reject, scram-sha-256, md5, password, peer.\n\n",
        );
        if local == "trust" || host == "trust" {
            out.push_str("# CAUTION: trust lets anyone who can reach the server log in as anyone, superuser included.\n\n");
        }
        let mut line = |kind: &str, database: &str, address: &str, method: &str| {
            out.push_str(&format!("{kind:<8}{database:<16}{:<16}{address:<24}{method}\n", "all"));
        };
        for database in ["all", "replication"] {
            line("local", database, "", local);
            line("host", database, "127.0.0.1/32", host);
            line("host", database, "::1/128", host);
        }
        out
    }
}

/// The machine's time zone by name.
fn system_time_zone() -> String {
    if let Ok(zone) = std::env::var("TZ")
        && jiff::tz::TimeZone::get(zone.trim_start_matches(':')).is_ok()
    {
        return zone.trim_start_matches(':').to_owned();
    }
    let zone = jiff::tz::TimeZone::system();
    zone.iana_name().unwrap_or("GMT").to_owned()
}

fn prompt_password() -> Result<String, String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = io::stdin();
    let quiet = tcgetattr(&stdin).ok().map(|saved| {
        let mut silent = saved.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        (saved, tcsetattr(&stdin, OptionalActions::Flush, &silent))
    });
    let ask = |text: &str| {
        eprint!("{text}");
        let mut line = String::new();
        stdin.read_line(&mut line).map_err(|e| format!("could not read the password: {e}"))?;
        eprintln!();
        Ok::<_, String>(line.trim_end_matches(['\r', '\n']).to_owned())
    };
    let answers = ask("Enter new superuser password: ").and_then(|first| Ok((first, ask("Enter it again: ")?)));
    if let Some((saved, _)) = quiet {
        // The terminal is the user's; nothing more can be done if it refuses.
        let _unreportable = tcsetattr(&stdin, OptionalActions::Flush, &saved);
    }
    let (first, second) = answers?;
    if first == second { Ok(first) } else { Err("Passwords didn't match.".into()) }
}

/// Syncs every file and directory below `dir`, links followed.
fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if fs::metadata(&path)?.is_dir() {
            sync_tree(&path)?;
        } else if fs::metadata(&path)?.mode() & 0o170_000 == 0o100_000 {
            fs::File::open(&path)?.sync_all()?;
        }
    }
    fs::File::open(dir)?.sync_all()
}

const HELP: &str = "\
initdb initializes an Afterimage data directory.

Usage:
  initdb [OPTION]... [DATADIR]

Options:
  -A, --auth=METHOD         authentication method for local and TCP connections
      --auth-host=METHOD    authentication method for TCP connections
      --auth-local=METHOD   authentication method for Unix socket connections
 [-D, --pgdata=]DATADIR     the data directory (default: PGDATA)
  -E, --encoding=ENCODING   UTF8 is the only one
  -g, --allow-group-access  let the group read the directory
  -k, --data-checksums      accepted; checksums are always on
      --locale=LOCALE       accepted; text is ordered by byte value (C)
      --no-locale           the same as --locale=C
      --pwfile=FILE         read the superuser's password from FILE
  -T, --text-search-config=CFG
                            accepted
  -U, --username=NAME       name of the superuser (default: yours)
  -W, --pwprompt            ask for the superuser's password
  -X, --waldir=WALDIR       place of the WAL directory
      --wal-segsize=SIZE    size of WAL segments, in megabytes

  -d, --debug               accepted
      --discard-caches      accepted
  -L DIRECTORY              accepted
  -n, --no-clean            do not clean up after errors
  -N, --no-sync             do not wait for the disk
      --no-instructions     do not print the next step
  -s, --show                accepted
  -S, --sync-only           only sync the files of an existing directory

  -V, --version             print the version, then exit
  -?, --help                print this, then exit
";
