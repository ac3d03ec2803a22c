//! `postmaster.pid` and `postmaster.opts`, in PostgreSQL's form: who runs on this data directory, and how to reach it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, test_kill_process};

/// Name of the lock file in the data directory.
pub const PID_FILE: &str = "postmaster.pid";
/// Name of the file with the command line.
pub const OPTS_FILE: &str = "postmaster.opts";
/// Line (from 1) of the status.
const STATUS_LINE: usize = 8;

/// What line 8 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not reached consistency yet.
    Starting,
    /// On its way down.
    Stopping,
    /// Accepting connections.
    Ready,
    /// A standby, accepting connections or about to.
    Standby,
}

impl Status {
    /// Padded, so that every status has the same length.
    pub fn text(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Ready => "ready   ",
            Self::Standby => "standby ",
        }
    }
}

/// A parsed `postmaster.pid`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PidFile {
    /// Process id; negative for a stand-alone process.
    pub pid: i32,
    /// Data directory.
    pub data_dir: String,
    /// Start time, seconds since 1970.
    pub started: i64,
    /// Port.
    pub port: u16,
    /// First Unix socket directory, or empty.
    pub socket_dir: String,
    /// First TCP address, `*` or empty.
    pub listen: String,
    /// Where the session numbers begin; 0 if not written yet, or PostgreSQL's.
    pub first_session: i32,
    /// Status, trimmed; empty if not written yet.
    pub status: String,
}

/// Failures of taking the lock file.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Someone lives here.
    #[error("lock file \"{file}\" already exists")]
    Exists {
        /// The file, as told to the user.
        file: String,
        /// Who holds it.
        pid: i32,
        /// The data directory, or the socket file.
        what: String,
        /// Whether it is a socket's lock file.
        socket: bool,
    },
    /// The file is empty: another start is in progress, or a crash happened in one.
    #[error("lock file \"{0}\" is empty")]
    Empty(String),
    /// I/O failed.
    #[error("could not {doing} lock file \"{file}\": {source}")]
    Io {
        /// `create`, `open`, `write`, ...
        doing: &'static str,
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl LockError {
    /// DETAIL or HINT, whichever PostgreSQL gives.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exists { pid, what, socket: false, .. } => {
                let program = if *pid < 0 { "postgres" } else { "postmaster" };
                Some(format!("Is another {program} (PID {}) running in data directory \"{what}\"?", pid.abs()))
            }
            Self::Exists { pid, what, socket: true, .. } => {
                let program = if *pid < 0 { "postgres" } else { "postmaster" };
                Some(format!("Is another {program} (PID {}) using socket file \"{what}\"?", pid.abs()))
            }
            Self::Empty(_) => {
                Some("Either another server is starting, or the lock file is the remnant of a previous server startup crash.".into())
            }
            Self::Io { .. } => None,
        }
    }
}

impl PidFile {
    /// Reads a lock file; `Ok(None)` if there is none.
    ///
    /// # Errors
    /// I/O.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Some(Self::parse(&text))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Parses the lines there are; a file just being written has fewer.
    pub fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let mut next = || lines.next().unwrap_or("").trim_end().to_owned();
        let (pid, data_dir, started, port) = (next(), next(), next(), next());
        let (socket_dir, listen, numbers, status) = (next(), next(), next(), next());
        Self {
            pid: pid.trim().parse().unwrap_or(0),
            data_dir,
            started: started.trim().parse().unwrap_or(0),
            port: port.trim().parse().unwrap_or(0),
            socket_dir,
            listen,
            first_session: numbers.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0),
            status: status.trim().to_owned(),
        }
    }

    /// Whether the process still exists.
    pub fn is_alive(&self) -> bool {
        process_exists(self.pid)
    }
}

/// Whether a process of this id (sign ignored) exists.
pub fn process_exists(pid: i32) -> bool {
    let Some(pid) = Pid::from_raw(pid.abs()) else { return false };
    match test_kill_process(pid) {
        Ok(()) => !is_zombie(pid),
        Err(e) => e == rustix::io::Errno::PERM,
    }
}

/// A zombie whose parent does not wait holds nothing; containers without an init leave them behind.
fn is_zombie(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid()))
        .ok()
        .and_then(|s| s.rsplit_once(") ").map(|(_, rest)| rest.starts_with('Z')))
        .unwrap_or(false)
}

/// A lock file held; removed when dropped, if it is still ours.
#[derive(Debug)]
pub struct LockFile {
    path: PathBuf,
    pid: i32,
}

impl LockFile {
    /// Creates `path` for this process, replacing one whose process is gone. `mode` is its file mode.
    ///
    /// `reader` is told to the user as the place the lock protects; for a data directory the directory, for a socket the socket file.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn create(path: &Path, shown: &str, what: &str, socket: bool, text: &str, mode: u32, mine: &[i32]) -> Result<Self, LockError> {
        let io_error = |doing| move |source| LockError::Io { doing, file: shown.to_owned(), source };
        let own = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
        let pid = text.lines().next().and_then(|l| l.parse().ok()).unwrap_or(own);
        for _ in 0..100 {
            match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
                Ok(mut file) => {
                    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
                    if let Err(source) = written {
                        // The half-written file would stop the next start; if it cannot go either, that start says so.
                        let _best_effort = fs::remove_file(path);
                        return Err(LockError::Io { doing: "write", file: shown.to_owned(), source });
                    }
                    return Ok(Self { path: path.to_owned(), pid });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io_error("create")(e)),
            }
            let text = match fs::read_to_string(path) {
                Ok(t) => t,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(io_error("open")(e)),
            };
            if text.is_empty() {
                return Err(LockError::Empty(shown.to_owned()));
            }
            let other = PidFile::parse(&text);
            let ours = other.pid.abs() == own || mine.contains(&other.pid.abs());
            if other.pid == 0 || (!ours && other.is_alive()) {
                return Err(LockError::Exists { file: shown.to_owned(), pid: other.pid, what: what.to_owned(), socket });
            }
            match fs::remove_file(path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(io_error("remove old")(e)),
            }
        }
        Err(LockError::Empty(shown.to_owned()))
    }

    /// Whether the file still names this process; a server whose file is gone must stop.
    pub fn is_still_ours(&self) -> bool {
        matches!(PidFile::read(&self.path), Ok(Some(f)) if f.pid == self.pid)
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if self.is_still_ours() {
            // A file that stays is recognised as stale by the next start.
            let _best_effort = fs::remove_file(&self.path);
        }
    }
}

/// What `unix_socket_directories` lists. Names are not folded to lower case.
pub fn socket_directories(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(|d| d.trim().trim_matches('"')).filter(|d| !d.is_empty())
}

/// The socket of this port in a directory; its lock file has `.lock` behind its name.
pub fn socket_path(directory: &str, port: u16) -> PathBuf {
    Path::new(directory).join(format!(".s.PGSQL.{port}"))
}

/// Removes the sockets, and their lock files, that a killed server process has left in the name of this one. Before the data directory's lock
/// file goes: who waits for that starts at once, and would take them for another server's.
pub fn remove_left_sockets(directories: &str, port: u16) {
    for directory in socket_directories(directories) {
        let socket = socket_path(directory, port);
        let path = PathBuf::from(format!("{}.lock", socket.display()));
        let lock = LockFile { path, pid: i32::try_from(std::process::id()).unwrap_or(i32::MAX) };
        if lock.is_still_ours() {
            // As when a server ends by itself; the lock file goes with `lock`.
            let _best_effort = fs::remove_file(&socket);
        }
    }
}

/// The text of a new data directory lock file: lines 1 to 5.
pub fn first_lines(pid: u32, data_dir: &Path, started: i64, port: i64) -> String {
    format!("{pid}\n{}\n{started}\n{port}\n\n", data_dir.display())
}

/// Replaces line `number` (from 1) of the lock file in `data_dir`, adding empty lines before it as needed.
///
/// # Errors
/// I/O.
pub fn set_line(data_dir: &Path, number: usize, text: &str) -> io::Result<()> {
    let path = data_dir.join(PID_FILE);
    let old = fs::read_to_string(&path)?;
    let mut lines: Vec<&str> = old.lines().collect();
    while lines.len() < number {
        lines.push("");
    }
    if let Some(line) = lines.get_mut(number - 1) {
        *line = text;
    }
    let mut new = lines.join("\n");
    new.push('\n');
    // One write over the start of the file, as PostgreSQL does; readers wait for the lines they need.
    let mut file = OpenOptions::new().write(true).open(&path)?;
    file.write_all(new.as_bytes())?;
    file.set_len(u64::try_from(new.len()).unwrap_or(u64::MAX))?;
    file.sync_all()
}

/// Sets the status line.
///
/// # Errors
/// I/O.
pub fn set_status(data_dir: &Path, status: Status) -> io::Result<()> {
    set_line(data_dir, STATUS_LINE, status.text())
}

/// Writes `postmaster.opts`: the program and its quoted arguments on one line.
///
/// # Errors
/// I/O.
pub fn write_opts(data_dir: &Path, program: &Path, args: &[String], mode: u32) -> io::Result<()> {
    let mut text = program.display().to_string();
    for arg in args {
        text.push_str(&format!(" \"{arg}\""));
    }
    text.push('\n');
    let path = data_dir.join(OPTS_FILE);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_added_and_replaced_in_place() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(PID_FILE), first_lines(7, dir.path(), 11, 5432)).unwrap();
        set_line(dir.path(), 6, "localhost").unwrap();
        set_status(dir.path(), Status::Starting).unwrap();
        set_status(dir.path(), Status::Ready).unwrap();
        let read = PidFile::read(&dir.path().join(PID_FILE)).unwrap().unwrap();
        assert_eq!((read.pid, read.started, read.port), (7, 11, 5432));
        assert_eq!((read.listen.as_str(), read.status.as_str()), ("localhost", "ready"));
    }

    #[test]
    fn sockets_of_a_killed_server_process_go_before_its_supervisor_and_those_of_others_stay() {
        let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, pid) in [(&ours, std::process::id()), (&other, 1)] {
            fs::write(dir.path().join(".s.PGSQL.5432"), "").unwrap();
            fs::write(dir.path().join(".s.PGSQL.5432.lock"), first_lines(pid, dir.path(), 1, 5432)).unwrap();
        }
        remove_left_sockets(&format!("\"{}\", {}", ours.path().display(), other.path().display()), 5432);
        assert_eq!(fs::read_dir(ours.path()).unwrap().count(), 0);
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_dead_owner_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(PID_FILE);
        let own = std::process::id();
        fs::write(&path, "1\n/x\n").unwrap();
        let busy = LockFile::create(&path, PID_FILE, "/x", false, &first_lines(own, dir.path(), 1, 1), 0o600, &[]);
        assert!(matches!(busy, Err(LockError::Exists { pid: 1, .. })));
        fs::write(&path, "2147483646\n/x\n").unwrap();
        let held = LockFile::create(&path, PID_FILE, "/x", false, &first_lines(own, dir.path(), 1, 1), 0o600, &[]).unwrap();
        assert!(held.is_still_ours());
        drop(held);
        assert!(!path.exists());
    }
}
