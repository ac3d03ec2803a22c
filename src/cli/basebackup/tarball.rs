//! Archives kept as tar: members that are put into one on its way, and members made here.

use std::io::{self, Read, Write};

use anyhow::{Context as _, bail, ensure};

const BLOCK: usize = 512;
/// A settings file is read into memory to be added to.
const SETTINGS_LIMIT_BYTES: u64 = 64 << 20;
const SETTINGS: &str = "postgresql.auto.conf";
const SIGNAL: &str = "standby.signal";

/// Bytes that follow `size` bytes of contents up to the next block.
fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

fn put_zeros(out: &mut impl Write, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(bytes), out).map(drop)
}

/// Puts the header of a member.
pub(super) fn put_header(out: &mut impl Write, name: &str, size: u64) -> anyhow::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o600);
    header.set_mtime(u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0));
    header.set_uid(u64::from(rustix::process::geteuid().as_raw()));
    header.set_gid(u64::from(rustix::process::getegid().as_raw()));
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(out.write_all(header.as_bytes())?)
}

/// Puts a member.
pub(super) fn put_file(out: &mut impl Write, name: &str, contents: &[u8]) -> anyhow::Result<()> {
    put_header(out, name, contents.len() as u64)?;
    out.write_all(contents)?;
    Ok(put_zeros(out, padding(contents.len() as u64))?)
}

/// Ends an archive.
pub(super) fn put_end(out: &mut impl Write) -> io::Result<()> {
    put_zeros(out, 2 * BLOCK as u64)
}

/// Copies an archive member by member. With `recovery`, these lines go to the end of `postgresql.auto.conf`, and `standby.signal` is added. `last` gives
/// members that come at the end; it is called when all others are through.
pub(super) fn rewrite(
    mut from: impl Read,
    out: &mut impl Write,
    recovery: Option<&str>,
    last: impl FnOnce() -> anyhow::Result<Vec<(String, Vec<u8>)>>,
) -> anyhow::Result<()> {
    let mut missing = recovery;
    let mut block = [0; BLOCK];
    loop {
        from.read_exact(&mut block).context("the archive ends in the middle")?;
        if block.iter().all(|b| *b == 0) {
            break;
        }
        let header = tar::Header::from_byte_slice(&block);
        let (path, size) = (header.path().context("archive member without a name")?.into_owned(), header.size()?);
        ensure!(size < 1 << 40, "archive member \"{}\" of {size} bytes", path.display());
        match missing.filter(|_| path.as_os_str() == SETTINGS) {
            Some(lines) => {
                if size > SETTINGS_LIMIT_BYTES {
                    bail!("{SETTINGS} of {size} bytes");
                }
                let mut contents = vec![0; usize::try_from(size + padding(size))?];
                from.read_exact(&mut contents)?;
                contents.truncate(usize::try_from(size)?);
                contents.extend_from_slice(lines.as_bytes());
                let mut changed = header.clone();
                changed.set_size(contents.len() as u64);
                changed.set_cksum();
                out.write_all(changed.as_bytes())?;
                out.write_all(&contents)?;
                put_zeros(out, padding(contents.len() as u64))?;
                missing = None;
            }
            None => {
                // One of our own is added at the end.
                let dropped = recovery.is_some() && path.as_os_str() == SIGNAL;
                let mut member = from.by_ref().take(size + padding(size));
                let copied = if dropped {
                    io::copy(&mut member, &mut io::sink())?
                } else {
                    out.write_all(&block)?;
                    io::copy(&mut member, out)?
                };
                ensure!(copied == size + padding(size), "the archive ends in the middle");
            }
        }
    }
    io::copy(&mut from, &mut io::sink())?;
    if let Some(lines) = missing {
        put_file(out, SETTINGS, lines.as_bytes())?;
    }
    if recovery.is_some() {
        put_file(out, SIGNAL, b"")?;
    }
    for (name, contents) in last()? {
        put_file(out, &name, &contents)?;
    }
    Ok(put_end(out)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn members(bytes: &[u8]) -> BTreeMap<String, String> {
        let mut archive = tar::Archive::new(bytes);
        let mut found = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert!(found.insert(name, text).is_none());
        }
        found
    }

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, contents) in files {
            put_file(&mut out, name, contents.as_bytes()).unwrap();
        }
        put_end(&mut out).unwrap();
        out
    }

    #[test]
    fn recovery_settings_and_a_last_member_are_put_in() {
        for settings in ["", "a = 1\n"] {
            let files = [(SETTINGS, settings), ("base/1/2", "page"), (SIGNAL, "old")];
            let from = archive(&files[usize::from(settings.is_empty())..]);
            let mut out = Vec::new();
            rewrite(&from[..], &mut out, Some("b = 2\n"), || Ok(vec![("backup_manifest".to_owned(), b"{}".to_vec())])).unwrap();
            let found = members(&out);
            assert_eq!(found[SETTINGS], format!("{settings}b = 2\n"));
            assert_eq!((found["base/1/2"].as_str(), found[SIGNAL].as_str(), found["backup_manifest"].as_str()), ("page", "", "{}"));
            assert_eq!(found.len(), 4);
        }
    }

    #[test]
    fn an_archive_that_is_cut_off_is_an_error_wherever_it_ends() {
        let from = archive(&[(SETTINGS, "a = 1\n"), ("f", "contents")]);
        for end in (0..from.len() - 2 * BLOCK).step_by(7) {
            assert!(rewrite(&from[..end], &mut io::sink(), Some("b = 2\n"), || Ok(Vec::new())).is_err(), "{end}");
        }
    }
}
