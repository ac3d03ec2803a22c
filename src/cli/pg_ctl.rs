//! `pg_ctl`, and `start`, `stop`, `restart`, `reload`, `status`, `promote`: PostgreSQL's options, messages and exit codes.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, umask};

use super::getopt::{OptionSpec, Parsed, Takes, parse};
use super::wait;
use crate::control::control_state::{self, ControlState};
use crate::control::pid_file::{OPTS_FILE, PID_FILE, PidFile, process_exists};
use crate::session::registry::{FIRST_PID, RANGE};
use crate::session::server::{NO_SUCH_SESSION, SESSION_SIGNAL};

const OPTIONS: &[OptionSpec] = &[
    ('?', "help", Takes::Nothing, "help"),
    ('V', "version", Takes::Nothing, "version"),
    ('l', "log", Takes::Value, "l"),
    ('m', "mode", Takes::Value, "m"),
    ('D', "pgdata", Takes::Value, "D"),
    ('o', "options", Takes::Value, "o"),
    ('s', "silent", Takes::Nothing, "s"),
    ('t', "timeout", Takes::Value, "t"),
    ('c', "core-files", Takes::Nothing, "c"),
    ('w', "wait", Takes::Nothing, "w"),
    ('W', "no-wait", Takes::Nothing, "W"),
    ('p', "", Takes::Value, "p"),
];

/// Exit with this code; the message is printed already.
struct Exit(u8);

type Done = Result<(), Exit>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum StopMode {
    Smart,
    Fast,
    Immediate,
}

impl StopMode {
    fn signal(self) -> Signal {
        match self {
            Self::Smart => Signal::TERM,
            Self::Fast => Signal::INT,
            Self::Immediate => Signal::QUIT,
        }
    }
}

struct Ctl {
    name: String,
    data: PathBuf,
    silent: bool,
    wait: bool,
    timeout: Duration,
    log_file: Option<String>,
    server_options: Option<String>,
    program: Option<String>,
    mode: StopMode,
    started: i64,
    given_data: bool,
}

/// Runs pg_ctl; with `action` the first argument is already known.
pub(super) fn run(name: &str, action: Option<&str>, args: &[String]) -> u8 {
    match start(name, action, args) {
        Ok(()) => 0,
        Err(Exit(code)) => code,
    }
}

fn start(name: &str, action: Option<&str>, args: &[String]) -> Done {
    umask(Mode::RWXG | Mode::RWXO);
    let advice = |message: String| {
        eprintln!("{message}");
        eprintln!("Try \"{name} --help\" for more information.");
        Exit(1)
    };
    let parsed = parse(args, OPTIONS).map_err(|e| advice(format!("{name}: {e}")))?;
    if parsed.has("help") {
        print!("{}", help(name));
        return Ok(());
    }
    if parsed.has("version") {
        println!("pg_ctl (PostgreSQL) {}", crate::session::POSTGRES_VERSION);
        return Ok(());
    }
    let mut words = parsed.positional.iter().map(String::as_str);
    let Some(action) = action.or_else(|| words.next()) else {
        return Err(advice(format!("{name}: no operation specified")));
    };
    if action == "kill" {
        let (Some(signal), Some(pid)) = (words.next(), words.next()) else {
            return Err(advice(format!("{name}: missing arguments for kill mode")));
        };
        return kill(name, signal, pid).map_err(|()| advice(format!("{name}: unrecognized signal name \"{signal}\"")))?;
    }
    if !matches!(action, "init" | "initdb" | "start" | "stop" | "restart" | "reload" | "status" | "promote" | "logrotate") {
        return Err(advice(format!("{name}: unrecognized operation mode \"{action}\"")));
    }
    if let Some(extra) = words.next() {
        return Err(advice(format!("{name}: too many command-line arguments (first is \"{extra}\")")));
    }
    let ctl = Ctl::new(name, &parsed, action).map_err(advice)?;
    match action {
        "init" | "initdb" => ctl.init(),
        "start" => ctl.start(false),
        "stop" => ctl.stop(),
        "restart" => ctl.restart(),
        "reload" => ctl.reload(),
        "status" => ctl.status(),
        "promote" => ctl.promote(),
        _ => ctl.rotate_log(),
    }
}

impl Ctl {
    fn new(name: &str, parsed: &Parsed, action: &str) -> Result<Self, String> {
        let mode = match parsed.value("m").unwrap_or("fast") {
            "s" | "smart" => StopMode::Smart,
            "f" | "fast" => StopMode::Fast,
            "i" | "immediate" => StopMode::Immediate,
            other => return Err(format!("{name}: unrecognized shutdown mode \"{other}\"")),
        };
        let seconds = parsed.value("t").map(str::to_owned).or_else(|| std::env::var("PGCTLTIMEOUT").ok());
        let seconds = seconds.and_then(|s| s.trim().parse().ok()).unwrap_or(60);
        let data = parsed.value("D").map(str::to_owned).or_else(|| std::env::var("PGDATA").ok().filter(|d| !d.is_empty()));
        let Some(data) = data else {
            return Err(format!("{name}: no database directory specified and environment variable PGDATA unset"));
        };
        let trimmed = data.trim_end_matches('/');
        let data = PathBuf::from(if trimmed.is_empty() { "/" } else { trimmed });
        let wait = parsed.options.iter().rev().find_map(|(k, _)| match *k {
            "w" => Some(true),
            "W" => Some(false),
            _ => None,
        });
        let options: Vec<&str> = parsed.values("o").collect();
        let ctl = Self {
            name: name.to_owned(),
            data,
            silent: parsed.has("s"),
            wait: wait.unwrap_or(true),
            timeout: Duration::from_secs(seconds),
            log_file: parsed.value("l").map(str::to_owned),
            server_options: (!options.is_empty()).then(|| options.join(" ")),
            program: parsed.value("p").map(str::to_owned),
            mode,
            started: now_seconds(),
            given_data: parsed.has("D"),
        };
        if !matches!(action, "init" | "initdb") {
            ctl.follow_permissions();
        }
        Ok(ctl)
    }

    fn say(&self, text: &str) {
        if !self.silent {
            print!("{text}");
            // A closed stdout must not stop the work.
            let _unreportable = io::stdout().flush();
        }
    }

    fn fail(&self, text: &str) -> Exit {
        eprintln!("{}: {text}", self.name);
        Exit(1)
    }

    /// New files (the log) get the group's rights if the data directory gives it any.
    fn follow_permissions(&self) {
        if let Ok(meta) = fs::metadata(&self.data) {
            let group = meta.mode() & 0o070 != 0;
            umask(if group { Mode::WGRP | Mode::RWXO } else { Mode::RWXG | Mode::RWXO });
        }
    }

    /// The process id in the lock file; 0 if there is none. Exits if the directory is no data directory.
    fn pid(&self, for_status: bool) -> Result<i32, Exit> {
        let code = if for_status { 4 } else { 1 };
        match fs::metadata(&self.data) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                eprintln!("{}: directory \"{}\" does not exist", self.name, self.data.display());
                return Err(Exit(code));
            }
            Err(e) => {
                eprintln!("{}: could not access directory \"{}\": {}", self.name, self.data.display(), reason(&e));
                return Err(Exit(code));
            }
            Ok(_) => {}
        }
        if !self.data.join("PG_VERSION").exists() {
            eprintln!("{}: directory \"{}\" is not a database cluster directory", self.name, self.data.display());
            return Err(Exit(code));
        }
        let path = self.pid_path();
        match fs::read_to_string(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => {
                eprintln!("{}: could not open PID file \"{}\": {}", self.name, path.display(), reason(&e));
                Err(Exit(1))
            }
            Ok(text) => match text.lines().next().and_then(|l| l.trim().parse::<i32>().ok()) {
                Some(pid) => Ok(pid),
                None if text.is_empty() => Err(self.fail(&format!("the PID file \"{}\" is empty", path.display()))),
                None => Err(self.fail(&format!("invalid data in PID file \"{}\"", path.display()))),
            },
        }
    }

    fn pid_path(&self) -> PathBuf {
        self.data.join(PID_FILE)
    }

    /// The running server's process id, or the exit for "there is none".
    fn running(&self, verb: &str) -> Result<i32, Exit> {
        let pid = self.pid(false)?;
        if pid == 0 {
            eprintln!("{}: PID file \"{}\" does not exist", self.name, self.pid_path().display());
            eprintln!("Is server running?");
            return Err(Exit(1));
        }
        if pid < 0 {
            return Err(self.fail(&format!("cannot {verb}; single-user server is running (PID: {})", -pid)));
        }
        Ok(pid)
    }

    fn signal(&self, pid: i32, signal: Signal, what: &str) -> Done {
        let target = Pid::from_raw(pid).ok_or(Exit(1))?;
        kill_process(target, signal).map_err(|e| self.fail(&format!("could not send {what} signal (PID: {pid}): {}", reason(&e.into()))))
    }

    fn program(&self, tool: &str) -> (String, bool) {
        if let Some(program) = &self.program {
            return (program.clone(), true);
        }
        // Beside the link we were called by, so that process lists show what the user knows.
        let called = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
        let called = if called.components().count() > 1 { Some(called) } else { find_on_path(&called) };
        if let Some(found) = called.and_then(|c| std::path::absolute(c).ok()).map(|c| c.with_file_name(tool))
            && found.exists()
        {
            return (found.display().to_string(), true);
        }
        (std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe")).display().to_string(), false)
    }

    fn init(&self) -> Done {
        let (program, is_tool) = self.program("initdb");
        let mut command = format!("\"{program}\" {}", if is_tool { "" } else { "initdb " });
        if self.given_data {
            command.push_str(&format!("-D \"{}\" ", self.data.display()));
        }
        command.push_str(self.server_options.as_deref().unwrap_or(""));
        if self.silent {
            command.push_str(" > /dev/null");
        }
        let ok = Command::new("/bin/sh").arg("-c").arg(&command).status().is_ok_and(|s| s.success());
        if ok { Ok(()) } else { Err(self.fail("database system initialization failed")) }
    }

    fn start(&self, again: bool) -> Done {
        if !again && self.pid(false)? != 0 {
            eprintln!("{}: another server might be running; trying to start server anyway", self.name);
        }
        let (mut program, mut is_tool) = self.program("postgres");
        let mut options = self.server_options.clone();
        if again && options.is_none() {
            let path = self.data.join(OPTS_FILE);
            let text = fs::read_to_string(&path).map_err(|_| self.fail(&format!("could not read file \"{}\"", path.display())))?;
            let mut lines = text.lines();
            let (Some(line), None) = (lines.next(), lines.next()) else {
                return Err(self.fail(&format!("option file \"{}\" must have exactly one line", path.display())));
            };
            if let Some((_, rest)) = line.split_once(" \"") {
                options = Some(format!("\"{rest}"));
            }
        }
        let mut child = self.launch(&mut program, &mut is_tool, options.as_deref(), again)?;
        if !self.wait {
            self.say("server starting\n");
            return Ok(());
        }
        self.say("waiting for server to start...");
        let pid = i32::try_from(child.id()).unwrap_or(0);
        enum Seen {
            Ready,
            Failed,
        }
        let path = self.pid_path();
        let earliest = self.started - 2;
        let seen = wait::until(
            std::slice::from_ref(&self.data),
            Some(pid),
            self.timeout,
            || self.say("."),
            || {
                if let Ok(Some(file)) = PidFile::read(&path)
                    && file.pid == pid
                    && file.started >= earliest
                    && matches!(file.status.as_str(), "ready" | "standby")
                {
                    return Some(Seen::Ready);
                }
                matches!(child.try_wait(), Ok(Some(_))).then_some(Seen::Failed)
            },
        );
        match seen {
            Ok(Some(Seen::Ready)) => {
                self.say(" done\n");
                self.say("server started\n");
                Ok(())
            }
            Ok(Some(Seen::Failed)) => {
                self.say(" stopped waiting\n");
                eprintln!("{}: could not start server", self.name);
                eprintln!("Examine the log output.");
                Err(Exit(1))
            }
            Ok(None) => {
                self.say(" stopped waiting\n");
                Err(self.fail("server did not start in time"))
            }
            Err(e) => Err(self.fail(&format!("could not wait for the server: {e}"))),
        }
    }

    fn launch(&self, program: &mut String, is_tool: &mut bool, options: Option<&str>, again: bool) -> Result<Child, Exit> {
        let mut command = format!("exec \"{program}\" {}", if *is_tool { "" } else { "postgres " });
        if self.given_data && !(again && self.server_options.is_none()) {
            command.push_str(&format!("-D \"{}\" ", self.data.display()));
        }
        command.push_str(options.unwrap_or(""));
        command.push_str(" < /dev/null");
        match &self.log_file {
            Some(log) => command.push_str(&format!(" >> \"{log}\" 2>&1")),
            None => command.push_str(" 2>&1"),
        }
        // `exec` keeps the shell's pid; the server makes itself a session leader when it sees the variable.
        Command::new("/bin/sh")
            .arg("-c")
            .arg(&command)
            .env("PGDATA", &self.data)
            .env(crate::control::supervisor::DETACH_VARIABLE, "1")
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|e| self.fail(&format!("could not start server: {}", reason(&e))))
    }

    fn stop(&self) -> Done {
        let pid = self.running("stop server")?;
        self.signal(pid, self.mode.signal(), "stop")?;
        if !self.wait {
            self.say("server shutting down\n");
            return Ok(());
        }
        self.wait_for_stop(pid)
    }

    fn wait_for_stop(&self, pid: i32) -> Done {
        self.say("waiting for server to shut down...");
        let path = self.pid_path();
        let gone = wait::until(
            std::slice::from_ref(&self.data),
            Some(pid),
            self.timeout,
            || self.say("."),
            || {
                if !path.exists() {
                    return Some(true);
                }
                if process_exists(pid) {
                    return None;
                }
                Some(!path.exists())
            },
        );
        if matches!(gone, Ok(Some(true))) {
            self.say(" done\n");
            self.say("server stopped\n");
            return Ok(());
        }
        self.say(" failed\n");
        eprintln!("{}: server does not shut down", self.name);
        if self.mode == StopMode::Smart {
            eprintln!(
                "HINT: The \"-m fast\" option immediately disconnects sessions rather than\nwaiting for session-initiated disconnection."
            );
        }
        Err(Exit(1))
    }

    fn restart(&self) -> Done {
        let pid = self.pid(false)?;
        if pid == 0 {
            eprintln!("{}: PID file \"{}\" does not exist", self.name, self.pid_path().display());
            eprintln!("Is server running?");
            eprintln!("trying to start server anyway");
            return self.start(true);
        }
        if pid < 0 && process_exists(pid) {
            eprintln!("{}: cannot restart server; single-user server is running (PID: {})", self.name, -pid);
            eprintln!("Please terminate the single-user server and try again.");
            return Err(Exit(1));
        }
        if process_exists(pid) {
            self.signal(pid, self.mode.signal(), "stop")?;
            self.wait_for_stop(pid)?;
        } else {
            eprintln!("{}: old server process (PID: {pid}) seems to be gone", self.name);
            eprintln!("starting server anyway");
        }
        self.start(true)
    }

    fn reload(&self) -> Done {
        let pid = self.running("reload server")?;
        self.signal(pid, Signal::HUP, "reload")?;
        self.say("server signaled\n");
        Ok(())
    }

    fn status(&self) -> Done {
        let pid = self.pid(true)?;
        if pid != 0 && process_exists(pid) {
            if pid < 0 {
                println!("{}: single-user server is running (PID: {})", self.name, -pid);
            } else {
                println!("{}: server is running (PID: {pid})", self.name);
                if let Ok(text) = fs::read_to_string(self.data.join(OPTS_FILE)) {
                    print!("{text}");
                }
            }
            return Ok(());
        }
        println!("{}: no server running", self.name);
        Err(Exit(3))
    }

    fn control_state(&self) -> Result<ControlState, Exit> {
        control_state::read(&self.data).map_err(|e| self.fail(&e.to_string()))
    }

    fn promote(&self) -> Done {
        let pid = self.running("promote server")?;
        if self.control_state()? != ControlState::InArchiveRecovery {
            return Err(self.fail("cannot promote server; server is not in standby mode"));
        }
        let file = self.data.join("promote");
        fs::File::create(&file)
            .map_err(|e| self.fail(&format!("could not create promote signal file \"{}\": {}", file.display(), reason(&e))))?;
        if let Err(exit) = self.signal(pid, Signal::USR1, "promote") {
            if let Err(e) = fs::remove_file(&file) {
                eprintln!("{}: could not remove promote signal file \"{}\": {}", self.name, file.display(), reason(&e));
            }
            return Err(exit);
        }
        if !self.wait {
            self.say("server promoting\n");
            return Ok(());
        }
        self.say("waiting for server to promote...");
        let dirs = [self.data.clone(), self.data.join("global")];
        let promoted = wait::until(
            &dirs,
            Some(pid),
            self.timeout,
            || self.say("."),
            || {
                if matches!(control_state::read(&self.data), Ok(ControlState::InProduction)) {
                    return Some(true);
                }
                (!self.pid_path().exists() || !process_exists(pid)).then_some(false)
            },
        );
        if matches!(promoted, Ok(Some(true))) {
            self.say(" done\n");
            self.say("server promoted\n");
            return Ok(());
        }
        self.say(" stopped waiting\n");
        Err(self.fail("server did not promote in time"))
    }

    fn rotate_log(&self) -> Done {
        let pid = self.running("rotate log file")?;
        let file = self.data.join("logrotate");
        fs::File::create(&file)
            .map_err(|e| self.fail(&format!("could not create log rotation signal file \"{}\": {}", file.display(), reason(&e))))?;
        self.signal(pid, Signal::USR1, "log rotation")?;
        self.say("server signaled to rotate log file\n");
        Ok(())
    }
}

/// `kill SIGNALNAME PID`.
fn kill(name: &str, signal: &str, pid: &str) -> Result<Done, ()> {
    let signal = match signal {
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "ABRT" => Signal::ABORT,
        "KILL" => Signal::KILL,
        "TERM" => Signal::TERM,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        _ => return Err(()),
    };
    let sent = match pid.parse::<i32>() {
        Ok(number) if number >= FIRST_PID => signal_session(number, signal),
        Ok(number) => Pid::from_raw(number).ok_or(Errno::SRCH).and_then(|p| kill_process(p, signal)),
        Err(_) => Err(Errno::SRCH),
    };
    Ok(sent.map_err(|e| {
        eprintln!("{name}: could not send signal {} (PID: {pid}): {}", signal.as_raw(), reason(&e.into()));
        Exit(1)
    }))
}

/// A session is no process: its server is found by the range of its number, among those of this user.
fn signal_session(number: i32, signal: Signal) -> Result<(), Errno> {
    let servers = fs::read_dir("/proc").map_err(|_| Errno::SRCH)?.filter_map(|entry| {
        let entry = entry.ok()?;
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let data = fs::read_link(entry.path().join("cwd")).ok()?;
        let file = PidFile::read(&data.join(PID_FILE)).ok()??;
        (file.pid == pid).then_some((data, file))
    });
    let mut owners =
        servers.filter(|(_, file)| file.first_session > 0 && (file.first_session..file.first_session + RANGE).contains(&number));
    let (data, file) = owners.next().ok_or(Errno::SRCH)?;
    let supervisor = Pid::from_raw(file.pid).ok_or(Errno::SRCH)?;
    let request = data.join(SESSION_SIGNAL);
    fs::write(&request, format!("{number} {}\n", signal.as_raw())).map_err(|_| Errno::PERM)?;
    kill_process(supervisor, Signal::USR1)?;
    let answer = wait::until(
        &[data],
        Some(file.pid),
        Duration::from_secs(10),
        || {},
        || match fs::read_to_string(&request) {
            Ok(text) if text == NO_SUCH_SESSION => {
                drop(fs::remove_file(&request));
                Some(Err(Errno::SRCH))
            }
            Ok(_) => None,
            Err(_) => Some(Ok(())),
        },
    );
    answer.ok().flatten().unwrap_or(Err(Errno::SRCH))
}

fn find_on_path(program: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|d| d.join(program)).find(|p| p.is_file())
}

fn now_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// An I/O error's text as C programs print it.
pub(super) fn reason(e: &io::Error) -> String {
    let text = e.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(t, _)| t.to_owned())
}

fn help(name: &str) -> String {
    format!(
        "{name} initializes, starts, stops and controls an Afterimage server.

Usage:
  pg_ctl init[db]   [-D DATADIR] [-s] [-o OPTIONS]
  pg_ctl start      [-D DATADIR] [-l FILENAME] [-W] [-t SECS] [-s]
                    [-o OPTIONS] [-p PATH] [-c]
  pg_ctl stop       [-D DATADIR] [-m SHUTDOWN-MODE] [-W] [-t SECS] [-s]
  pg_ctl restart    [-D DATADIR] [-m SHUTDOWN-MODE] [-W] [-t SECS] [-s]
                    [-o OPTIONS] [-c]
  pg_ctl reload     [-D DATADIR] [-s]
  pg_ctl status     [-D DATADIR]
  pg_ctl promote    [-D DATADIR] [-W] [-t SECS] [-s]
  pg_ctl logrotate  [-D DATADIR] [-s]
  pg_ctl kill       SIGNALNAME PID

Common options:
  -D, --pgdata=DATADIR   data directory (default: PGDATA)
  -s, --silent           print errors only
  -t, --timeout=SECS     seconds to wait with -w
  -V, --version          print the version and exit
  -w, --wait             wait for the operation to finish (default)
  -W, --no-wait          do not wait
  -?, --help             print this and exit

Options for start or restart:
  -c, --core-files       accepted; core limits are left as they are
  -l, --log=FILENAME     append the server log to FILENAME
  -o, --options=OPTIONS  options for the server, or for initdb
  -p PATH                the server program

Options for stop or restart:
  -m, --mode=MODE        smart, fast (default) or immediate:
                         wait for clients, disconnect them, or stop like a crash

Signal names for kill: ABRT HUP INT KILL QUIT TERM USR1 USR2
"
    )
}
