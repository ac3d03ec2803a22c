//! An archive in a directory.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use afterimage_wal::disk::{RealDisk, durable_rename};

use super::{LocationError, failed};

/// A directory, which exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    /// As [`super::Location::put`].
    pub(super) fn put(&self, from: &Path, name: &str) -> Result<bool, LocationError> {
        let to = self.0.join(name);
        if to.try_exists().map_err(failed("access", &to))? {
            return self.same_or_refuse(from, &to, name);
        }
        // Dots come first in no archive file's name.
        let temporary = self.0.join(format!(".{name}.{}", std::process::id()));
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
        fs::File::open(&self.0).and_then(|dir| dir.sync_all()).map_err(failed("fsync", &self.0))
    }

    /// As [`super::Location::get`].
    pub(super) fn get(&self, name: &str, into: &Path) -> Result<bool, LocationError> {
        let from = self.0.join(name);
        match fs::metadata(&from) {
            Ok(_) => copy(&from, into).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // A directory that is not there is a mount that is missing.
                fs::metadata(&self.0).map_err(failed("access", &self.0))?;
                Ok(false)
            }
            Err(e) => Err(failed("access", &from)(e)),
        }
    }

    /// As [`super::Location::list`].
    pub(super) fn list(&self) -> Result<Vec<String>, LocationError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(failed("open directory", &self.0))? {
            let name = entry.map_err(failed("read directory", &self.0))?.file_name();
            names.extend(name.into_string().ok().filter(|name| !name.starts_with('.')));
        }
        names.sort();
        Ok(names)
    }

    /// Removes one.
    pub(super) fn remove(&self, name: &str) -> Result<(), LocationError> {
        let path = self.0.join(name);
        fs::remove_file(&path).map_err(failed("remove", &path))
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
