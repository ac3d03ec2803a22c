//! Unpacks an archive into directories.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path};

use anyhow::{Context as _, bail};

/// Where a tablespace of the server goes here.
pub(super) fn mapped<'a>(mapping: &'a [(String, String)], location: &'a str) -> &'a str {
    mapping.iter().find(|(old, _)| old == location).map_or(location, |(_, new)| new)
}

/// Unpacks below `target`; a member that would land elsewhere is refused. `begin` is told each member's name.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is refused")]
pub(super) fn unpack(reader: impl Read, target: &Path, mapping: &[(String, String)], begin: impl Fn(&Path)) -> anyhow::Result<()> {
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if path.components().any(|c| !matches!(c, Component::Normal(_))) {
            bail!("archive member \"{}\" lies outside the directory", path.display());
        }
        let to = target.join(&path);
        match entry.header().entry_type() {
            tar::EntryType::Directory => {
                fs::create_dir_all(&to).with_context(|| format!("could not create directory \"{}\"", to.display()))?;
                // A WAL directory elsewhere is a link by now, made with its own mode.
                fs::set_permissions(&to, fs::Permissions::from_mode(entry.header().mode()? & 0o777))?;
            }
            tar::EntryType::Regular => {
                begin(&to);
                let mode = entry.header().mode()? & 0o777;
                let open = || fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&to);
                let opened = match (open(), to.parent()) {
                    // The directory is in another part of the backup, which gives it its mode.
                    (Err(e), Some(parent)) if e.kind() == io::ErrorKind::NotFound => fs::create_dir_all(parent).and_then(|()| open()),
                    (opened, _) => opened,
                };
                let mut file = opened.with_context(|| format!("could not create file \"{}\"", to.display()))?;
                io::copy(&mut entry, &mut file).with_context(|| format!("could not write to file \"{}\"", to.display()))?;
            }
            tar::EntryType::Symlink if path.starts_with("pg_tblspc") => {
                let location = entry.link_name()?.context("link without target")?;
                std::os::unix::fs::symlink(mapped(mapping, &location.to_string_lossy()), &to)
                    .with_context(|| format!("could not create symbolic link \"{}\"", to.display()))?;
            }
            other => bail!("archive member \"{}\" of unexpected type {other:?}", path.display()),
        }
    }
    // The zeros that end an archive may come later than the reader stops: whoever sends them must find us here.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}
