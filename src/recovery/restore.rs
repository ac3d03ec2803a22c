//! Shell commands of recovery: `restore_command`, `recovery_end_command`, `archive_cleanup_command`; and the status files of what came
//! from the archive.
//!
//! PostgreSQL: access/transam/xlogarchive.c.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use afterimage_wal::{
    Lsn, SegNo, TimelineId,
    disk::{RealDisk, durable_rename},
    history::History,
    segment,
};

use super::error::RecoveryError;

/// Where the command puts a segment.
pub const RESTORED_SEGMENT: &str = "pg_wal/RECOVERYXLOG";
/// Where the command puts a history file.
pub const RESTORED_HISTORY: &str = "pg_wal/RECOVERYHISTORY";

/// The commands, as configured; empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// `restore_command`.
    pub restore: String,
    /// `recovery_end_command`.
    pub end: String,
    /// `archive_cleanup_command`.
    pub cleanup: String,
    /// `archive_mode = always`: what comes from the archive goes to ours.
    pub archive_always: bool,
}

/// Fills in what `with` says for the letters after `%`, and `%%`; others stay as they are.
pub fn fill(command: &str, with: &[(char, &str)]) -> String {
    let mut out = String::with_capacity(command.len());
    let mut chars = command.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(c);
        let Some(&next) = chars.peek().filter(|_| c == '%') else { continue };
        let known = with.iter().find(|(letter, _)| *letter == next);
        if known.is_some() {
            out.pop();
        }
        if next == '%' || known.is_some() {
            chars.next();
        }
        out.push_str(known.map_or("", |(_, text)| text));
    }
    out
}

/// Name of the file that holds a restart's first WAL: nothing before it is needed.
pub fn restart_file(redo: Lsn, tli: TimelineId, segment_bytes: u32) -> String {
    segment::file_name(tli, SegNo::of(redo, segment_bytes), segment_bytes)
}

/// What an exit status says, in PostgreSQL's words.
pub fn status_text(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(126), _) => "command not executable".to_owned(),
        (Some(127), _) => "command not found".to_owned(),
        (Some(code), _) => format!("child process exited with exit code {code}"),
        (None, Some(signal)) => format!("child process was terminated by signal {}", signal_text(signal)),
        (None, None) => "child process exited with unrecognized status".to_owned(),
    }
}

/// A signal's number and what it is called.
pub fn signal_text(signal: i32) -> String {
    let name = match signal {
        1 => "Hangup",
        2 => "Interrupt",
        3 => "Quit",
        6 => "Aborted",
        9 => "Killed",
        11 => "Segmentation fault",
        13 => "Broken pipe",
        15 => "Terminated",
        _ => "unrecognized signal",
    };
    format!("{signal}: {name}")
}

/// Whether a status of a restore command means that the archive cannot be asked, rather than that it does not have the file.
pub fn is_fatal(status: ExitStatus) -> bool {
    status.code().is_none_or(|code| code > 125)
}

fn shell(data_dir: &Path, command: &str) -> io::Result<ExitStatus> {
    Command::new("/bin/sh").arg("-c").arg(command).current_dir(data_dir).stdin(Stdio::null()).status()
}

/// Runs `recovery_end_command` or `archive_cleanup_command`: a failure is a warning.
///
/// # Errors
/// The command was killed or not found: who depends on it does not go on.
pub fn run_command(data_dir: &Path, name: &str, command: &str, restart: &str) -> Result<(), RecoveryError> {
    if command.is_empty() {
        return Ok(());
    }
    let filled = fill(command, &[('r', restart)]);
    match shell(data_dir, &filled) {
        Ok(status) if status.success() => {}
        Ok(status) if is_fatal(status) => {
            return Err(RecoveryError::Command { name: name.to_owned(), command: command.to_owned(), status: status_text(status) });
        }
        Ok(status) => tracing::warn!("{name} \"{command}\": {}", status_text(status)),
        Err(error) => tracing::warn!("{name} \"{command}\": {error}"),
    }
    Ok(())
}

/// Asks the archive for a file, waiting for the command. True if it is in `into`.
///
/// # Errors
/// The command cannot be run, or died.
pub fn fetch(data_dir: &Path, command: &str, name: &str, into: &str, restart: &str) -> Result<bool, RecoveryError> {
    let target = data_dir.join(into);
    let fail = |source| RecoveryError::File { path: into.to_owned(), source };
    match fs::remove_file(&target) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
        Ok(()) | Err(_) => {}
    }
    let status = shell(data_dir, &fill(command, &[('p', into), ('f', name), ('r', restart)])).map_err(fail)?;
    if has_brought(status, &target, into) {
        tracing::info!("restored log file \"{name}\" from archive");
        return Ok(true);
    }
    if is_fatal(status) {
        return Err(RecoveryError::Restore { name: name.to_owned(), status: status_text(status) });
    }
    Ok(false)
}

/// Whether a restore command that ended like this has left the file at `target`, which messages call `shown`.
pub fn has_brought(status: ExitStatus, target: &Path, shown: &str) -> bool {
    if !status.success() {
        return false;
    }
    match fs::metadata(target) {
        Ok(_) => true,
        Err(error) => {
            let text = error.to_string();
            let why = text.split(" (os error").next().unwrap_or(&text);
            tracing::info!(
                "could not stat file \"{shown}\": {why}\nDETAIL:  restore_command returned a zero exit status, but stat() failed."
            );
            false
        }
    }
}

/// Asks the archive for a segment and gives it its name. False if it is not there, or, to a
/// `standby`, may not be there as a whole yet.
///
/// # Errors
/// As [`fetch`]; [`RecoveryError::WrongSize`]; I/O.
pub fn fetch_segment(
    data_dir: &Path,
    commands: &Commands,
    name: &str,
    segment_bytes: u32,
    restart: &str,
    standby: bool,
) -> Result<bool, RecoveryError> {
    if !fetch(data_dir, &commands.restore, name, RESTORED_SEGMENT, restart)? {
        return Ok(false);
    }
    let from = data_dir.join(RESTORED_SEGMENT);
    let fail = |source| RecoveryError::File { path: RESTORED_SEGMENT.to_owned(), source };
    let bytes = fs::metadata(&from).map_err(fail)?.len();
    if bytes != u64::from(segment_bytes) {
        fs::remove_file(&from).map_err(fail)?;
        if bytes > u64::from(segment_bytes) || !standby {
            return Err(RecoveryError::WrongSize { name: name.to_owned(), bytes, segment_bytes });
        }
        tracing::debug!("archive file \"{name}\" has wrong size: {bytes} instead of {segment_bytes}");
        return Ok(false);
    }
    keep(data_dir, RESTORED_SEGMENT, name, commands)?;
    Ok(true)
}

/// Asks the archive for a timeline's history and keeps it.
///
/// # Errors
/// As [`fetch`]; I/O.
pub fn fetch_history(data_dir: &Path, commands: &Commands, tli: TimelineId) -> Result<bool, RecoveryError> {
    let name = History::file_name(tli);
    if !fetch(data_dir, &commands.restore, &name, RESTORED_HISTORY, "")? {
        return Ok(false);
    }
    keep(data_dir, RESTORED_HISTORY, &name, commands)?;
    Ok(true)
}

/// Whether the archive has a timeline's history. Nothing is kept.
///
/// # Errors
/// As [`fetch`].
pub fn has_history(data_dir: &Path, commands: &Commands, tli: TimelineId) -> Result<bool, RecoveryError> {
    let found = fetch(data_dir, &commands.restore, &History::file_name(tli), RESTORED_HISTORY, "")?;
    if found {
        fs::remove_file(data_dir.join(RESTORED_HISTORY))
            .map_err(|source| RecoveryError::File { path: RESTORED_HISTORY.to_owned(), source })?;
    }
    Ok(found)
}

/// Gives a restored file its name, durably, and its status.
fn keep(data_dir: &Path, from: &str, name: &str, commands: &Commands) -> Result<(), RecoveryError> {
    let fail = |source| RecoveryError::File { path: format!("pg_wal/{name}"), source };
    let from = data_dir.join(from);
    // The command may have left it in the page cache only.
    fs::File::open(&from).and_then(|file| file.sync_all()).map_err(fail)?;
    durable_rename(&RealDisk, &from, &data_dir.join("pg_wal").join(name)).map_err(fail)?;
    note_received(data_dir, name, commands.archive_always).map_err(fail)
}

fn status_file(data_dir: &Path, name: &str, status: &str) -> PathBuf {
    data_dir.join("pg_wal/archive_status").join(format!("{name}.{status}"))
}

/// A file that came from elsewhere is complete: it is archived there already, unless ours is to have everything.
///
/// # Errors
/// I/O.
pub fn note_received(data_dir: &Path, name: &str, always: bool) -> io::Result<()> {
    let (ready, done) = (status_file(data_dir, name, "ready"), status_file(data_dir, name, "done"));
    if done.exists() {
        return Ok(());
    }
    if always {
        return if ready.exists() { Ok(()) } else { fs::File::create(ready).map(drop) };
    }
    if ready.exists() {
        return durable_rename(&RealDisk, &ready, &done);
    }
    fs::File::create(done).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_once() {
        let with = [('p', "pg_wal/S%f"), ('f', "S"), ('r', "R")];
        assert_eq!(fill("cp \"%p\" /a/%f %r %% %x %", &with), "cp \"pg_wal/S%f\" /a/S R % %x %");
        assert_eq!(fill("%%r %r%f", &with[2..]), "%r R%f");
    }

    #[test]
    fn a_missing_file_is_no_error_and_a_missing_command_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("pg_wal/archive_status")).unwrap();
        fs::write(dir.path().join("there"), [7; 100]).unwrap();
        let commands = |restore: &str| Commands { restore: restore.to_owned(), ..Commands::default() };
        let ask = |restore: &str, standby| fetch_segment(dir.path(), &commands(restore), "000000010000000000000003", 100, "", standby);
        let get = |restore: &str| ask(restore, true);
        assert!(!get("cp missing %p").unwrap());
        assert!(!get("false").unwrap());
        assert!(matches!(get("no-such-command-at-all"), Err(RecoveryError::Restore { .. })));
        let killed = get("kill -9 $$").unwrap_err().to_string();
        assert!(killed.ends_with("from archive: child process was terminated by signal 9: Killed"), "{killed}");
        assert!(get("cp there %p").unwrap());
        assert_eq!(fs::read(dir.path().join("pg_wal/000000010000000000000003")).unwrap(), [7; 100]);
        assert!(dir.path().join("pg_wal/archive_status/000000010000000000000003.done").exists());
        fs::write(dir.path().join("there"), [7; 99]).unwrap();
        assert!(!get("cp there %p").unwrap());
        assert!(matches!(ask("cp there %p", false), Err(RecoveryError::WrongSize { bytes: 99, .. })));
        fs::write(dir.path().join("there"), [7; 101]).unwrap();
        assert!(matches!(get("cp there %p"), Err(RecoveryError::WrongSize { bytes: 101, .. })));
    }

    #[test]
    fn a_command_that_fails_is_a_warning_and_one_that_is_killed_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let run = |command: &str| run_command(dir.path(), "recovery_end_command", command, "R");
        run("").unwrap();
        run("echo %r > ran").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("ran")).unwrap(), "R\n");
        run("exit 125").unwrap();
        let text = |command: &str| run(command).unwrap_err().to_string();
        assert_eq!(text("kill -15 $$"), "recovery_end_command \"kill -15 $$\": child process was terminated by signal 15: Terminated");
        assert_eq!(text("exit 127"), "recovery_end_command \"exit 127\": command not found");
    }
}
