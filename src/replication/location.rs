//! An archive as a place: a directory into which segments and history files are put, and from which they are taken, by setting and without scripts.
//!
//! `archive_location` and `restore_location` stand for commands that call this program again (`afterimage archive`), so that what PostgreSQL promises
//! of `archive_command` and `restore_command` holds for them: retries, counts, exit codes, and nothing of the server waits for a slow archive.
//! A file has its name only once all of it is durable, and is never replaced by another.
//!
//! PostgreSQL: contrib/basic_archive, bin/pg_archivecleanup.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use afterimage_wal::disk::{RealDisk, durable_rename};
use afterimage_wal::history::History;
use afterimage_wal::segment;

use crate::config::{Setting, Settings};

/// Failures of an archive.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// The text of a setting.
    #[error("invalid archive location \"{0}\": must be an absolute path, or one behind \"file://\"")]
    Invalid(String),
    /// No file of an archive has this name.
    #[error("invalid archive file name \"{0}\"")]
    Name(String),
    /// Another file of that name is there.
    #[error("archive file \"{0}\" already exists with different contents")]
    Exists(String),
    /// A file or directory.
    #[error("could not {what} \"{}\": {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LocationError {
    move |source| LocationError::Io { what, path: path.to_owned(), source }
}

/// Where an archive lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    directory: PathBuf,
}

impl Location {
    /// Reads a setting.
    ///
    /// # Errors
    /// [`LocationError::Invalid`].
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let path = text.strip_prefix("file://").unwrap_or(text);
        if path.starts_with('/') { Ok(Self { directory: path.into() }) } else { Err(LocationError::Invalid(text.to_owned())) }
    }

    fn path(&self, name: &str) -> Result<PathBuf, LocationError> {
        let fits =
            !name.is_empty() && !name.starts_with('.') && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'));
        if fits { Ok(self.directory.join(name)) } else { Err(LocationError::Name(name.to_owned())) }
    }

    /// Puts a file, durably. False if the very same file is there already, as after a crash between archiving and noting it.
    ///
    /// # Errors
    /// [`LocationError::Exists`]; I/O.
    pub fn put(&self, from: &Path, name: &str) -> Result<bool, LocationError> {
        let to = self.path(name)?;
        if to.try_exists().map_err(failed("access", &to))? {
            return self.same_or_refuse(from, &to, name);
        }
        // Dots come first in no archive file's name.
        let temporary = self.directory.join(format!(".{name}.{}", std::process::id()));
        let outcome = self.copy_in(from, &temporary, &to);
        if outcome.is_err() {
            drop(fs::remove_file(&temporary));
        }
        match outcome {
            Err(LocationError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => self.same_or_refuse(from, &to, name),
            outcome => outcome.map(|()| true),
        }
    }

    fn copy_in(&self, from: &Path, temporary: &Path, to: &Path) -> Result<(), LocationError> {
        copy(from, temporary)?;
        // A link does not replace what another node may just have put there.
        match fs::hard_link(temporary, to) {
            Ok(()) => {
                fs::remove_file(temporary).map_err(failed("remove", temporary))?;
                self.sync()
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(failed("link", to)(e)),
            // File systems without links.
            Err(_) => durable_rename(&RealDisk, temporary, to).map_err(failed("rename", temporary)),
        }
    }

    fn same_or_refuse(&self, from: &Path, to: &Path, name: &str) -> Result<bool, LocationError> {
        if !have_same_bytes(from, to)? {
            return Err(LocationError::Exists(name.to_owned()));
        }
        // Whoever put it may not have lived to make it durable.
        fs::File::open(to).and_then(|file| file.sync_all()).map_err(failed("fsync", to))?;
        self.sync()?;
        Ok(false)
    }

    fn sync(&self) -> Result<(), LocationError> {
        fs::File::open(&self.directory).and_then(|dir| dir.sync_all()).map_err(failed("fsync", &self.directory))
    }

    /// Takes a file; false if there is none of that name.
    ///
    /// # Errors
    /// I/O. An archive that cannot be reached is not one that has no such file.
    pub fn get(&self, name: &str, into: &Path) -> Result<bool, LocationError> {
        let from = self.path(name)?;
        match fs::metadata(&from) {
            Ok(_) => copy(&from, into).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // A directory that is not there is a mount that is missing.
                fs::metadata(&self.directory).map_err(failed("access", &self.directory))?;
                Ok(false)
            }
            Err(e) => Err(failed("access", &from)(e)),
        }
    }

    /// Names of what is there, in order.
    ///
    /// # Errors
    /// I/O.
    pub fn list(&self) -> Result<Vec<String>, LocationError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed("open directory", &self.directory))? {
            let name = entry.map_err(failed("read directory", &self.directory))?.file_name();
            names.extend(name.into_string().ok().filter(|name| !name.starts_with('.')));
        }
        names.sort();
        Ok(names)
    }

    /// Removes the segments before `oldest`, whatever their timeline, as `pg_archivecleanup`. Returns the names.
    ///
    /// # Errors
    /// I/O; a name that is no segment's.
    pub fn remove_before(&self, oldest: &str) -> Result<Vec<String>, LocationError> {
        let position = |name: &str| {
            let name = name.strip_suffix(".partial").unwrap_or(name);
            segment::is_file_name(name).then(|| name[8..].to_owned())
        };
        // A backup's name begins with its first segment's.
        let oldest = position(oldest.get(..24).unwrap_or(oldest)).ok_or_else(|| LocationError::Name(oldest.to_owned()))?;
        let mut removed = Vec::new();
        for name in self.list()? {
            if History::parse_file_name(&name).is_none() && position(&name).is_some_and(|at| at < oldest) {
                let path = self.path(&name)?;
                fs::remove_file(&path).map_err(failed("remove", &path))?;
                removed.push(name);
            }
        }
        Ok(removed)
    }
}

/// Copies a file and makes it durable.
fn copy(from: &Path, to: &Path) -> Result<(), LocationError> {
    let mut source = fs::File::open(from).map_err(failed("open", from))?;
    let made = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to);
    let mut target = made.map_err(failed("create", to))?;
    io::copy(&mut source, &mut target).map_err(failed("write", to))?;
    target.sync_all().map_err(failed("fsync", to))
}

fn have_same_bytes(one: &Path, other: &Path) -> Result<bool, LocationError> {
    let open = |path: &Path| fs::File::open(path).map(io::BufReader::new).map_err(failed("open", path));
    let (mut left, mut right) = (open(one)?, open(other)?);
    let (mut a, mut b) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let n = left.read(&mut a).map_err(failed("read", one))?;
        if n == 0 {
            return Ok(right.read(&mut b).map_err(failed("read", other))? == 0);
        }
        match right.read_exact(&mut b[..n]) {
            Ok(()) if a[..n] == b[..n] => {}
            Ok(()) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(failed("read", other)(e)),
        }
    }
}

/// The shell's quotes, and the placeholders': nothing in `text` means anything.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''").replace('%', "%%"))
}

fn program() -> String {
    // As it was called first: a newer one may have taken its place since.
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| std::env::current_exe().map_or_else(|_| "afterimage".to_owned(), |path| path.display().to_string())).clone()
}

/// The command that archives: `archive_location`'s, or `archive_command`.
pub fn archive_command(settings: &Settings) -> String {
    match settings.str(Setting::ArchiveLocation) {
        "" => settings.str(Setting::ArchiveCommand).to_owned(),
        location => format!("exec {} archive put {} \"%p\" \"%f\"", quoted(&program()), quoted(location)),
    }
}

/// The command that restores: `restore_command`, or `restore_location`'s.
pub fn restore_command(settings: &Settings) -> String {
    match (settings.str(Setting::RestoreCommand), settings.str(Setting::RestoreLocation)) {
        ("", "") => String::new(),
        ("", location) => format!("exec {} archive get {} \"%f\" \"%p\"", quoted(&program()), quoted(location)),
        (command, _) => command.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_kept_and_never_replaced() {
        let home = tempfile::tempdir().unwrap();
        let (archive, file) = (home.path().join("archive"), home.path().join("f"));
        let location = Location::parse(&format!("file://{}", archive.display())).unwrap();
        fs::write(&file, vec![7; 200_000]).unwrap();
        // An archive that is not there is an error, not an empty one.
        assert!(matches!(location.get("000000010000000000000001", &home.path().join("x")), Err(LocationError::Io { .. })));
        assert!(location.put(&file, "000000010000000000000001").is_err());
        fs::create_dir(&archive).unwrap();
        assert!(location.put(&file, "000000010000000000000001").unwrap());
        assert!(!location.put(&file, "000000010000000000000001").unwrap(), "the same again");
        fs::write(&file, vec![7; 199_999]).unwrap();
        assert!(matches!(location.put(&file, "000000010000000000000001"), Err(LocationError::Exists(_))));
        fs::write(&file, vec![7; 200_001]).unwrap();
        assert!(matches!(location.put(&file, "000000010000000000000001"), Err(LocationError::Exists(_))));
        assert!(location.get("000000010000000000000001", &file).unwrap());
        assert_eq!(fs::read(&file).unwrap(), vec![7; 200_000]);
        assert!(!location.get("000000010000000000000002", &file).unwrap());
        assert_eq!(location.list().unwrap(), ["000000010000000000000001"]);
        for name in ["../f", "", ".hidden", "a/b"] {
            assert!(matches!(location.put(&file, name), Err(LocationError::Name(_))), "{name}");
        }
        assert!(Location::parse("relative").is_err() && Location::parse("s3:").is_err());
    }

    #[test]
    fn what_is_older_goes_and_histories_stay() {
        let home = tempfile::tempdir().unwrap();
        let location = Location::parse(&home.path().display().to_string()).unwrap();
        for name in [
            "000000010000000000000001",
            "000000010000000000000002.partial",
            "000000020000000000000002",
            "000000020000000000000003",
            "00000002.history",
        ] {
            fs::write(home.path().join(name), "x").unwrap();
        }
        assert_eq!(location.remove_before("000000030000000000000003.00000020.backup").unwrap().len(), 3);
        assert_eq!(location.list().unwrap(), ["00000002.history", "000000020000000000000003"]);
        assert!(location.remove_before("x").is_err());
    }

    #[test]
    fn commands_quote_what_the_shell_and_placeholders_would_take() {
        assert_eq!(quoted("/a b/it's %f"), r"'/a b/it'\''s %%f'");
    }
}
