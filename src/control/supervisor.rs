//! The supervisor: the process whose id is in `postmaster.pid`. It starts the server process, passes signals on, and starts it again
//! after a crash.
//!
//! It does little, so that it does not crash. The server process dies with it (parent-death signal), and inherits a lock on the data
//! directory that the next start waits for, so that two servers never write one directory even if a `kill -9` hits only one of the two.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

use super::log::{self, Level};
use super::pid_file::{self, LockFile, PID_FILE};
use crate::config::{Config, ConfigError, Setting};

/// Set by pg_ctl: the server leaves its caller's session, so that signals to that one do not reach it.
pub const DETACH_VARIABLE: &str = "AFTERIMAGE_DETACH";
/// Set by the supervisor for the server process: the supervisor's process id.
const CHILD_VARIABLE: &str = "AFTERIMAGE_SERVER_OF";
/// In the data directory while a rewind of it has begun and not ended: what lies there is of two histories.
pub const REWIND_MARKER: &str = "rewind_incomplete";
/// What the server process writes once it accepts connections.
const READY: u8 = b'R';
/// How long a server process that was told to stop at once may take before it is killed.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// Exit codes of the server process.
pub mod exit {
    /// It stopped cleanly.
    pub const CLEAN: u8 = 0;
    /// It could not start, and has said why; starting it again would not help.
    pub const FATAL: u8 = 1;
    /// It was told to stop at once.
    pub const IMMEDIATE: u8 = 2;
    /// Recovery ended and cannot go on, which it has said: starting it again would end there again.
    pub const RECOVERY: u8 = 3;
}

/// How the server was called.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Absolute path of the data directory.
    pub data_dir: PathBuf,
    /// Settings from the command line.
    pub settings: Vec<(String, String)>,
    /// Program as called, for `postmaster.opts`.
    pub program: PathBuf,
    /// Arguments as given, for `postmaster.opts`.
    pub args: Vec<String>,
}

/// The process id of the supervisor if this is the server process it started.
pub fn supervisor_pid() -> Option<i32> {
    std::env::var(CHILD_VARIABLE).ok()?.parse().ok()
}

/// What ties the server process to its supervisor. Keep it for the life of the process.
#[derive(Debug)]
pub struct Leash {
    /// The inherited lock on the data directory.
    _lock: OwnedFd,
    status: OwnedFd,
    /// The supervisor, which `postmaster.pid` names.
    pub supervisor: i32,
}

impl Leash {
    /// In the server process: takes over what the supervisor passed on, and makes the kernel end this process with it.
    ///
    /// # Errors
    /// The supervisor is gone already, or a system call failed.
    pub fn take(supervisor: i32) -> io::Result<Self> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have died before the line above.
        if rustix::process::getppid().map(Pid::as_raw_pid) != Some(supervisor) {
            return Err(io::Error::other("the supervisor is gone"));
        }
        // The supervisor passes lock and pipe as stdin and stdout; commands this process runs must not inherit either.
        let lock = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        let status = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
        Ok(Self { _lock: lock, status, supervisor })
    }

    /// Tells the supervisor that the server accepts connections: from now on a crash means "start again".
    pub fn ready(&self) {
        // If the pipe is broken the supervisor is gone, and so are we in a moment.
        let _unreportable = rustix::io::write(&self.status, &[READY]);
    }
}

fn fatal(message: &str, detail: Option<&str>, hint: Option<&str>) {
    let mut entry = log::Entry::new(Level::Fatal, message);
    entry.detail = detail;
    entry.hint = hint;
    log::emit(None, &entry);
}

fn say(message: &str) {
    log::emit(None, &log::Entry::new(Level::Log, message));
}

/// Checks a data directory as PostgreSQL does and sets the file mode mask that goes with its permissions. Returns the mode of new files.
///
/// # Errors
/// Message and optional DETAIL or HINT.
pub fn check_data_dir(dir: &Path) -> Result<u32, (String, Option<String>)> {
    let shown = dir.display();
    let meta = fs::metadata(dir).map_err(|e| {
        if e.kind() == io::ErrorKind::NotFound {
            (format!("data directory \"{shown}\" does not exist"), None)
        } else {
            (format!("could not read permissions of directory \"{shown}\": {e}"), None)
        }
    })?;
    if !meta.is_dir() {
        return Err((format!("specified data directory \"{shown}\" is not a directory"), None));
    }
    let uid = rustix::process::geteuid();
    if meta.uid() != uid.as_raw() && !uid.is_root() {
        return Err((
            format!("data directory \"{shown}\" has wrong ownership"),
            Some("The server must be started by the user that owns the data directory.".into()),
        ));
    }
    if meta.mode() & 0o027 != 0 {
        return Err((
            format!("data directory \"{shown}\" has invalid permissions"),
            Some("Permissions should be u=rwx (0700) or u=rwx,g=rx (0750).".into()),
        ));
    }
    if dir.join(REWIND_MARKER).exists() {
        return Err((
            format!("data directory \"{shown}\" was being rewound, and that has not finished"),
            Some(format!("Run pg_rewind on it again. File \"{}\" marks the beginning.", dir.join(REWIND_MARKER).display())),
        ));
    }
    let group = meta.mode() & 0o040 != 0;
    rustix::process::umask(if group { Mode::WGRP | Mode::RWXO } else { Mode::RWXG | Mode::RWXO });
    let version_file = dir.join("PG_VERSION");
    match fs::read_to_string(&version_file) {
        Ok(text) if text.trim() == "15" => {}
        Ok(text) => {
            return Err((
                "database files are incompatible with server".into(),
                Some(format!(
                    "The data directory was initialized by PostgreSQL version {}, which is not compatible with this version 15.",
                    text.trim()
                )),
            ));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err((
                format!("\"{shown}\" is not a valid data directory"),
                Some(format!("File \"{}\" is missing.", version_file.display())),
            ));
        }
        Err(e) => return Err((format!("could not open file \"{}\": {e}", version_file.display()), None)),
    }
    Ok(if group { 0o640 } else { 0o600 })
}

/// Tells the user about settings that could not be loaded.
pub fn report_config_error(e: &ConfigError) {
    if let ConfigError::Values { problems, .. } = e {
        for problem in problems {
            say(problem);
        }
    }
    fatal(&e.to_string(), None, None);
}

/// Runs the supervisor until the server has stopped; the result is the exit code.
pub fn run(invocation: &Invocation) -> u8 {
    log::install();
    if std::env::var_os(DETACH_VARIABLE).is_some() {
        // Fails only if we lead a group already, as under a shell: then the group is ours anyway.
        let _leads_already = rustix::process::setsid();
    }
    if rustix::process::geteuid().is_root() {
        log::emit(None, &log::Entry::new(Level::Warning, "running as root; a dedicated user would be safer"));
    }
    let dir = &invocation.data_dir;
    let file_mode = match check_data_dir(dir) {
        Ok(mode) => mode,
        Err((message, detail)) => {
            fatal(&message, detail.as_deref(), None);
            return 1;
        }
    };
    if let Err(e) = std::env::set_current_dir(dir) {
        fatal(&format!("could not change directory to \"{}\": {e}", dir.display()), None, None);
        return 1;
    }
    let config = match Config::load(dir, invocation.settings.clone()) {
        Ok(c) => c,
        Err(e) => {
            report_config_error(&e);
            return 1;
        }
    };
    let settings = config.current();
    log::configure(&settings);
    let started = jiff::Timestamp::now().as_second();
    let text = pid_file::first_lines(std::process::id(), dir, started, settings.int(Setting::Port));
    let path = dir.join(PID_FILE);
    let lock = match LockFile::create(&path, PID_FILE, &dir.display().to_string(), false, &text, file_mode, &[]) {
        Ok(lock) => lock,
        Err(e) => {
            fatal(&e.to_string(), None, e.hint().as_deref());
            return 1;
        }
    };
    let dir_lock = match lock_dir(dir) {
        Ok(fd) => fd,
        Err(e) => {
            fatal(&format!("could not lock directory \"{}\": {e}", dir.display()), None, None);
            return 1;
        }
    };
    if let Err(e) = pid_file::write_opts(dir, &invocation.program, &invocation.args, file_mode) {
        fatal(&format!("could not create file \"{}\": {e}", pid_file::OPTS_FILE), None, None);
        return 1;
    }
    if settings.bool(Setting::LoggingCollector) {
        let directory = settings.str(Setting::LogDirectory);
        let hint = format!("Future log output will appear in directory \"{directory}\".");
        let mut entry = log::Entry::new(Level::Log, "redirecting log output to logging collector process");
        entry.hint = Some(&hint);
        log::emit(None, &entry);
        if let Err(e) = log::collect(&settings, dir, true) {
            fatal(&format!("could not follow the log files: {e}"), None, None);
            return 1;
        }
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => {
            fatal(&format!("could not start the supervisor: {e}"), None, None);
            return 1;
        }
    };
    let code = match runtime.block_on(supervise(invocation, &config, &lock, &dir_lock)) {
        Ok(code) => code,
        Err(e) => {
            fatal(&format!("supervisor failed: {e}"), None, None);
            1
        }
    };
    let port = u16::try_from(settings.int(Setting::Port)).unwrap_or(0);
    pid_file::remove_left_sockets(settings.str(Setting::UnixSocketDirectories), port);
    if code != 0 {
        // After a clean stop the engine has said so.
        say("database system is shut down");
    }
    code
}

/// Locks the directory itself; waits for a server process that outlives its supervisor by a moment.
fn lock_dir(dir: &Path) -> io::Result<OwnedFd> {
    let fd = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            say("waiting for the previous server process to end");
            rustix::fs::flock(&fd, FlockOperation::LockExclusive)?;
        }
        Err(e) => return Err(e.into()),
    }
    Ok(fd)
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    No,
    Smart,
    Fast,
    Immediate,
}

/// What to do when the server process has ended. PostgreSQL: `reaper` in postmaster.c.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Exit(u8),
    StartAgain,
}

fn after_exit(status: ExitStatus, stopping: bool, was_ready: bool, restart_after_crash: bool) -> Next {
    match status.code() {
        Some(c) if c == i32::from(exit::CLEAN) => Next::Exit(0),
        Some(c) if c == i32::from(exit::IMMEDIATE) && stopping => Next::Exit(0),
        Some(c) if c == i32::from(exit::FATAL) && !was_ready => Next::Exit(1),
        Some(c) if c == i32::from(exit::RECOVERY) => Next::Exit(1),
        _ if stopping || !was_ready || !restart_after_crash => Next::Exit(1),
        _ => Next::StartAgain,
    }
}

async fn supervise(invocation: &Invocation, config: &Arc<Config>, lock: &LockFile, dir_lock: &OwnedFd) -> io::Result<u8> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut hup = signal(SignalKind::hangup())?;
    let mut usr1 = signal(SignalKind::user_defined1())?;
    let mut pipe = signal(SignalKind::pipe())?;
    let mut check = tokio::time::interval(Duration::from_secs(60));
    let mut stop = Stop::No;
    loop {
        let (mut child, mut status) = spawn(invocation, dir_lock)?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let send = |signal: Signal| {
            if let Some(pid) = pid {
                // ESRCH: it has just ended, which the wait below reports.
                let _gone = kill_process(pid, signal);
            }
        };
        let mut was_ready = false;
        let mut status_open = true;
        let mut kill_at: Option<tokio::time::Instant> = None;
        let ended = loop {
            let mut byte = [0_u8; 1];
            tokio::select! {
                ended = child.wait() => break ended?,
                read = status.read(&mut byte), if status_open => match read {
                    Ok(1) => was_ready |= byte[0] == READY,
                    Ok(_) | Err(_) => status_open = false,
                },
                _ = term.recv() => { stop = stop.max(Stop::Smart); send(Signal::TERM); }
                _ = int.recv() => { stop = stop.max(Stop::Fast); send(Signal::INT); }
                _ = quit.recv() => {
                    stop = Stop::Immediate;
                    send(Signal::QUIT);
                    kill_at.get_or_insert_with(|| tokio::time::Instant::now() + KILL_AFTER);
                }
                _ = hup.recv() => {
                    send(Signal::HUP);
                    // The server logs what is wrong with the files.
                    if config.reload().is_ok() {
                        log::configure(&config.current());
                    }
                }
                _ = usr1.recv() => send(Signal::USR1),
                _ = pipe.recv() => {}
                _ = check.tick() => if !lock.is_still_ours() && stop != Stop::Immediate {
                    say(&format!("performing immediate shutdown because data directory lock file is invalid ({PID_FILE})"));
                    stop = Stop::Immediate;
                    send(Signal::QUIT);
                    kill_at = Some(tokio::time::Instant::now() + KILL_AFTER);
                },
                () = sleep_until(kill_at), if kill_at.is_some() => {
                    kill_at = None;
                    send(Signal::KILL);
                }
            }
        };
        // pg_reload_conf() reaches the server process only; a file that does not parse leaves the old value.
        let _unreadable = config.reload();
        let restart = config.current().bool(Setting::RestartAfterCrash);
        let number = pid.map_or(0, Pid::as_raw_pid);
        match after_exit(ended, stop != Stop::No, was_ready, restart) {
            Next::Exit(code) => {
                if code != 0 && ![Some(i32::from(exit::FATAL)), Some(i32::from(exit::RECOVERY))].contains(&ended.code()) {
                    say(&describe(number, ended));
                    if !was_ready {
                        say("aborting startup due to startup process failure");
                    } else if !restart && stop == Stop::No {
                        say("shutting down because \"restart_after_crash\" is off");
                    }
                }
                // A stop that was asked for has succeeded once the process is gone, however it went.
                return Ok(if stop == Stop::Immediate { 0 } else { code });
            }
            Next::StartAgain => {
                say(&describe(number, ended));
                say("terminating any other active server processes");
                say("all server processes terminated; reinitializing");
            }
        }
    }
}

/// Until then; without a time, for ever.
pub async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn describe(pid: i32, status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("server process (PID {pid}) exited with exit code {code}"),
        (None, Some(signal)) => format!("server process (PID {pid}) was terminated by signal {signal}: {}", signal_name(signal)),
        (None, None) => format!("server process (PID {pid}) ended with {status}"),
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => "Hangup",
        2 => "Interrupt",
        3 => "Quit",
        4 => "Illegal instruction",
        6 => "Aborted",
        7 => "Bus error",
        9 => "Killed",
        11 => "Segmentation fault",
        15 => "Terminated",
        _ => "unknown",
    }
}

fn spawn(invocation: &Invocation, dir_lock: &OwnedFd) -> io::Result<(tokio::process::Child, tokio::net::unix::pipe::Receiver)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let program = std::env::current_exe()?;
    let mut command = std::process::Command::new(program);
    command.arg0("postgres").arg("-D").arg(&invocation.data_dir);
    for (name, value) in &invocation.settings {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    command
        .env(CHILD_VARIABLE, std::process::id().to_string())
        .env_remove(DETACH_VARIABLE)
        .stdin(Stdio::from(dir_lock.try_clone()?))
        .stdout(Stdio::from(write));
    let mut command = tokio::process::Command::from(command);
    let child = command.spawn()?;
    rustix::io::ioctl_fionbio(&read, true)?;
    let status = tokio::net::unix::pipe::Receiver::from_owned_fd(read)?;
    Ok((child, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_after_ready_starts_again_and_a_failed_start_does_not() {
        let killed = ExitStatus::from_raw(9);
        assert_eq!(after_exit(killed, false, true, true), Next::StartAgain);
        assert_eq!(after_exit(killed, false, true, false), Next::Exit(1));
        assert_eq!(after_exit(killed, false, false, true), Next::Exit(1));
        assert_eq!(after_exit(ExitStatus::from_raw(0), false, true, true), Next::Exit(0));
        assert_eq!(after_exit(ExitStatus::from_raw(1 << 8), false, false, true), Next::Exit(1));
        assert_eq!(after_exit(ExitStatus::from_raw(3 << 8), false, true, true), Next::Exit(1));
    }

    #[test]
    fn a_second_lock_on_a_directory_does_not_pass() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock_dir(dir.path()).unwrap();
        let other = rustix::fs::open(dir.path(), OFlags::RDONLY, Mode::empty()).unwrap();
        assert!(rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(held);
        rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
    }
}
