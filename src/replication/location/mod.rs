//! An archive as a place: a directory or an S3-compatible bucket into which segments and history files are put, and from which they are taken, by setting
//! and without scripts.
//!
//! `archive_location` and `restore_location` stand for commands that call this program again (`afterimage archive`), so that what PostgreSQL promises
//! of `archive_command` and `restore_command` holds for them: retries, counts, exit codes, and nothing of the server waits for a slow archive.
//! A file has its name only once all of it is durable, and is never replaced by another.
//!
//! PostgreSQL: contrib/basic_archive, bin/pg_archivecleanup.

mod bucket;
mod directory;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use afterimage_wal::history::History;
use afterimage_wal::segment;

use self::bucket::Bucket;
use self::directory::Directory;
use crate::config::{Setting, Settings};

/// Failures of an archive.
#[derive(Debug, thiserror::Error)]
pub enum LocationError {
    /// The text of a setting.
    #[error("invalid archive location \"{0}\": must be an absolute path, or \"s3://bucket/prefix?endpoint=...&region=...\"")]
    Invalid(String),
    /// Settings are shown in views.
    #[error(
        "credentials do not belong into a setting: give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the server's environment, or name a file that holds them with \"credentials=/path\""
    )]
    Secret,
    /// A file that does not hold what it should.
    #[error("file \"{}\" has no aws_access_key_id and aws_secret_access_key", .0.display())]
    Credentials(PathBuf),
    /// A request to a store.
    #[error("could not {what} \"{name}\": {source}")]
    Store {
        /// What was tried.
        what: &'static str,
        /// Bucket and object.
        name: String,
        /// Why not.
        #[source]
        source: Box<object_store::Error>,
    },
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
pub struct Location(Place);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Directory(Directory),
    Bucket(Bucket),
}

/// No name leads elsewhere.
fn check(name: &str) -> Result<(), LocationError> {
    let fits = !name.is_empty() && !name.starts_with('.') && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'));
    if fits { Ok(()) } else { Err(LocationError::Name(name.to_owned())) }
}

impl Location {
    /// Reads a setting.
    ///
    /// # Errors
    /// [`LocationError::Invalid`], [`LocationError::Secret`].
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        if let Some(bucket) = text.strip_prefix("s3://") {
            return Bucket::parse(bucket).map(|bucket| Self(Place::Bucket(bucket)));
        }
        let path = text.strip_prefix("file://").unwrap_or(text);
        if path.starts_with('/') {
            Ok(Self(Place::Directory(Directory(path.into()))))
        } else {
            Err(LocationError::Invalid(text.to_owned()))
        }
    }

    /// Puts a file, durably. False if the very same file is there already, as after a crash between archiving and noting it.
    ///
    /// # Errors
    /// [`LocationError::Exists`]; I/O.
    pub fn put(&self, from: &Path, name: &str) -> Result<bool, LocationError> {
        check(name)?;
        match &self.0 {
            Place::Directory(place) => place.put(from, name),
            Place::Bucket(place) => place.put(from, name),
        }
    }

    /// Takes a file; false if there is none of that name.
    ///
    /// # Errors
    /// I/O. An archive that cannot be reached is not one that has no such file.
    pub fn get(&self, name: &str, into: &Path) -> Result<bool, LocationError> {
        check(name)?;
        match &self.0 {
            Place::Directory(place) => place.get(name, into),
            Place::Bucket(place) => place.get(name, into),
        }
    }

    /// Names of what is there, in order.
    ///
    /// # Errors
    /// I/O.
    pub fn list(&self) -> Result<Vec<String>, LocationError> {
        match &self.0 {
            Place::Directory(place) => place.list(),
            Place::Bucket(place) => place.list(),
        }
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
                match &self.0 {
                    Place::Directory(place) => place.remove(&name)?,
                    Place::Bucket(place) => place.remove(&name)?,
                }
                removed.push(name);
            }
        }
        Ok(removed)
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
    use std::fs;

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
        assert!(Location::parse("relative").is_err() && Location::parse("s3://").is_err());
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
