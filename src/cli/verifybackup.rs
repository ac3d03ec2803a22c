//! `afterimage verifybackup`, and `pg_verifybackup` when called by that name: checks a backup against its manifest, and the WAL it needs.
//!
//! PostgreSQL: bin/pg_verifybackup.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use afterimage_wal::ids::Lsn;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::getopt::{OptionSpec, Parsed, Takes};
use super::pg_ctl::reason;
use super::tool::{Tool, as_postgresql};
use super::waldump;
use crate::replication::manifest::{ChecksumKind, FileChecksum};

const OPTIONS: &[OptionSpec] = &[
    ('e', "exit-on-error", Takes::Nothing, "e"),
    ('i', "ignore", Takes::Value, "i"),
    ('m', "manifest-path", Takes::Value, "m"),
    ('n', "no-parse-wal", Takes::Nothing, "n"),
    ('q', "quiet", Takes::Nothing, "q"),
    ('s', "skip-checksums", Takes::Nothing, "s"),
    ('w', "wal-directory", Takes::Value, "w"),
    ('V', "version", Takes::Nothing, "version"),
    ('?', "help", Takes::Nothing, "help"),
];

const HELP: &str = "\
pg_verifybackup verifies a backup against the backup manifest.

Usage:
  pg_verifybackup [OPTION]... BACKUPDIR

Options:
  -e, --exit-on-error         exit immediately on error
  -i, --ignore=RELATIVE_PATH  ignore indicated path
  -m, --manifest-path=PATH    use specified path for manifest
  -n, --no-parse-wal          do not try to parse WAL files
  -q, --quiet                 do not print any output, except for errors
  -s, --skip-checksums        skip checksum verification
  -w, --wal-directory=PATH    use specified path for WAL files
  -V, --version               output version information, then exit
  -?, --help                  show this help, then exit
";

/// Never part of a manifest, or changed by who set the backup up.
const IGNORED: &[&str] = &["backup_manifest", "pg_wal", "postgresql.auto.conf", "recovery.signal", "standby.signal"];
const READ_BYTES: usize = 128 * 1024;

/// A file as the manifest has it.
struct Listed {
    bytes: u64,
    checksum: Option<(ChecksumKind, String)>,
    /// Seen on disk, with the right size.
    matched: bool,
    sound: bool,
}

struct WalRange {
    tli: u64,
    start: Lsn,
    end: Lsn,
}

struct Manifest {
    files: BTreeMap<String, Listed>,
    ranges: Vec<WalRange>,
}

/// Runs it; returns the exit code.
pub(super) fn run(name: &str, args: &[String]) -> u8 {
    let tool = Tool { name, options: OPTIONS, help: HELP, version: as_postgresql("pg_verifybackup"), failure: 1 };
    let parsed = match tool.parse(args) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    let dir = match parsed.positional.as_slice() {
        [] => return tool.advise("error: no backup directory specified"),
        [dir] => PathBuf::from(dir.trim_end_matches('/')),
        [_, extra, ..] => return tool.advise(&format!("error: too many command-line arguments (first is \"{extra}\")")),
    };
    match check(name, &parsed, &dir) {
        Ok(true) => {
            if !parsed.has("q") {
                println!("backup successfully verified");
            }
            0
        }
        Ok(false) => 1,
        Err(message) => tool.fail(message),
    }
}

/// Whether everything is as it should be; an error ends the check at once.
fn check(name: &str, parsed: &Parsed, dir: &Path) -> Result<bool, String> {
    let manifest_path = parsed.value("m").map_or_else(|| dir.join("backup_manifest"), PathBuf::from);
    let shown = manifest_path.display();
    let bytes = fs::read(&manifest_path).map_err(|e| format!("could not open file \"{shown}\": {}", reason(&e)))?;
    let mut manifest = parse_manifest(&bytes).map_err(|what| match what {
        Wrong::Parse(what) => format!("could not parse backup manifest: {what}"),
        Wrong::Fatal(what) => what,
    })?;
    let mut check = Check { name, dir, stop: parsed.has("e"), ignored: Vec::new(), sound: true };
    check.ignored.extend(IGNORED.iter().map(|s| (*s).to_owned()));
    check.ignored.extend(parsed.values("i").map(|p| p.trim_end_matches('/').to_owned()));
    check.directory("", &mut manifest)?;
    for (path, listed) in &mut manifest.files {
        if !listed.matched && !check.ignores(path) {
            check.complain(format!("\"{path}\" is present in the manifest but not on disk"))?;
        }
    }
    if !parsed.has("s") {
        for (path, listed) in &manifest.files {
            if listed.matched && listed.sound && !check.ignores(path) {
                check.checksum(path, listed)?;
            }
        }
    }
    if !parsed.has("n") {
        let wal_dir = parsed.value("w").map_or_else(|| dir.join("pg_wal"), PathBuf::from);
        for range in &manifest.ranges {
            let args: Vec<String> = vec![
                "--quiet".to_owned(),
                format!("--path={}", wal_dir.display()),
                format!("--timeline={}", range.tli),
                format!("--start={}", range.start),
                format!("--end={}", range.end),
            ];
            if waldump::run("pg_waldump", &args) != 0 {
                check.complain(format!("WAL parsing failed for timeline {}", range.tli))?;
            }
        }
    }
    Ok(check.sound)
}

struct Check<'a> {
    name: &'a str,
    dir: &'a Path,
    stop: bool,
    ignored: Vec<String>,
    sound: bool,
}

impl Check<'_> {
    fn complain(&mut self, message: String) -> Result<(), String> {
        self.sound = false;
        if self.stop {
            return Err(message);
        }
        eprintln!("{}: error: {message}", self.name);
        Ok(())
    }

    /// The path itself, or a directory it lies in.
    fn ignores(&self, path: &str) -> bool {
        self.ignored.iter().any(|i| path.strip_prefix(i.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    fn directory(&mut self, relative: &str, manifest: &mut Manifest) -> Result<(), String> {
        let full = if relative.is_empty() { self.dir.to_owned() } else { self.dir.join(relative) };
        let entries = match fs::read_dir(&full).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
            Ok(entries) => entries,
            Err(e) if relative.is_empty() => return Err(format!("could not open directory \"{}\": {}", full.display(), reason(&e))),
            Err(e) => {
                // What lies in it cannot be judged.
                self.ignored.push(relative.to_owned());
                return self.complain(format!("could not open directory \"{}\": {}", full.display(), reason(&e)));
            }
        };
        let mut names: Vec<_> = entries.iter().map(fs::DirEntry::file_name).collect();
        names.sort();
        for name in names {
            let name = name.to_string_lossy();
            let path = if relative.is_empty() { name.into_owned() } else { format!("{relative}/{name}") };
            if self.ignores(&path) {
                continue;
            }
            let meta = match fs::metadata(self.dir.join(&path)) {
                Ok(meta) => meta,
                Err(e) => {
                    if let Some(listed) = manifest.files.get_mut(&path) {
                        (listed.matched, listed.sound) = (true, false);
                    }
                    self.complain(format!("could not stat file or directory \"{path}\": {}", reason(&e)))?;
                    continue;
                }
            };
            if meta.is_dir() {
                self.directory(&path, manifest)?;
            } else if !meta.is_file() {
                self.complain(format!("\"{path}\" is not a file or directory"))?;
            } else if let Some(listed) = manifest.files.get_mut(&path) {
                listed.matched = true;
                if listed.bytes != meta.len() {
                    listed.sound = false;
                    let (bytes, wanted) = (meta.len(), listed.bytes);
                    self.complain(format!("\"{path}\" has size {bytes} on disk but size {wanted} in the manifest"))?;
                }
            } else {
                self.complain(format!("\"{path}\" is present on disk but not in the manifest"))?;
            }
        }
        Ok(())
    }

    fn checksum(&mut self, path: &str, listed: &Listed) -> Result<(), String> {
        let Some((kind, wanted)) = &listed.checksum else { return Ok(()) };
        let mut file = match fs::File::open(self.dir.join(path)) {
            Ok(file) => file,
            Err(e) => return self.complain(format!("could not open file \"{path}\": {}", reason(&e))),
        };
        let mut sum = FileChecksum::new(*kind);
        let mut buffer = vec![0; READ_BYTES];
        let mut read = 0_u64;
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    sum.update(&buffer[..n]);
                    read += n as u64;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return self.complain(format!("could not read file \"{path}\": {}", reason(&e))),
            }
        }
        if read != listed.bytes {
            return self.complain(format!("file \"{path}\" should contain {} bytes, but read {read} bytes", listed.bytes));
        }
        let found = sum.finish().map(|(_, hex)| hex).unwrap_or_default();
        if found.len() != wanted.len() {
            let (has, expected) = (wanted.len() / 2, found.len() / 2);
            return self.complain(format!("file \"{path}\" has checksum of length {has}, but expected {expected}"));
        }
        if !found.eq_ignore_ascii_case(wanted) {
            return self.complain(format!("checksum mismatch for file \"{path}\""));
        }
        Ok(())
    }
}

/// Why a manifest is refused.
enum Wrong {
    /// It cannot be parsed.
    Parse(String),
    /// It says something that cannot be.
    Fatal(String),
}

impl From<&str> for Wrong {
    fn from(what: &str) -> Self {
        Self::Parse(what.to_owned())
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn parse_manifest(bytes: &[u8]) -> Result<Manifest, Wrong> {
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|e| Wrong::Parse(if e.is_eof() || e.is_syntax() { "parsing failed".to_owned() } else { e.to_string() }))?;
    let top = match &value {
        Value::Object(top) => top,
        Value::Array(_) => return Err("unexpected array start".into()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return Err("unexpected scalar".into()),
    };
    let missing = if top.is_empty() { "unexpected object end" } else { "expected version indicator" };
    let version = top.get("PostgreSQL-Backup-Manifest-Version").ok_or(missing)?;
    if version.as_u64() != Some(1) && version.as_str() != Some("1") {
        return Err("unexpected manifest version".into());
    }
    if top.keys().any(|k| !matches!(k.as_str(), "PostgreSQL-Backup-Manifest-Version" | "Files" | "WAL-Ranges" | "Manifest-Checksum")) {
        return Err("unrecognized top-level field".into());
    }
    let mut manifest = Manifest { files: BTreeMap::new(), ranges: Vec::new() };
    for file in top.get("Files").and_then(Value::as_array).into_iter().flatten() {
        let file = file.as_object().ok_or("unexpected scalar")?;
        if file
            .keys()
            .any(|k| !matches!(k.as_str(), "Path" | "Encoded-Path" | "Size" | "Last-Modified" | "Checksum-Algorithm" | "Checksum"))
        {
            return Err("unexpected file field".into());
        }
        let text = |key: &str| file.get(key).and_then(Value::as_str);
        let path = match (text("Path"), text("Encoded-Path")) {
            (None, None) => return Err("missing path name".into()),
            (Some(_), Some(_)) => return Err("both path name and encoded path name".into()),
            (Some(path), None) => path.to_owned(),
            (None, Some(hex)) => {
                let bytes = unhex(hex).ok_or("could not decode file name")?;
                String::from_utf8_lossy(&bytes).into_owned()
            }
        };
        let size = file.get("Size").ok_or("missing size")?;
        let bytes = size.as_u64().or_else(|| size.as_str()?.parse().ok()).ok_or("file size is not an integer")?;
        let checksum = match (text("Checksum-Algorithm"), text("Checksum")) {
            (None, None) => None,
            (None, Some(_)) => return Err("checksum without algorithm".into()),
            (Some(name), sum) => {
                let kind = ChecksumKind::parse(name).ok_or_else(|| Wrong::Fatal(format!("unrecognized checksum algorithm: \"{name}\"")))?;
                let sum = sum.unwrap_or_default().to_owned();
                if unhex(&sum).is_none() {
                    return Err(Wrong::Fatal(format!("invalid checksum for file \"{path}\": \"{sum}\"")));
                }
                (kind != ChecksumKind::None).then_some((kind, sum))
            }
        };
        if manifest.files.contains_key(&path) {
            return Err(Wrong::Fatal(format!("duplicate path name in backup manifest: \"{path}\"")));
        }
        manifest.files.insert(path, Listed { bytes, checksum, matched: false, sound: true });
    }
    for range in top.get("WAL-Ranges").and_then(Value::as_array).into_iter().flatten() {
        let range = range.as_object().ok_or("unexpected scalar")?;
        if range.keys().any(|k| !matches!(k.as_str(), "Timeline" | "Start-LSN" | "End-LSN")) {
            return Err("unexpected WAL range field".into());
        }
        let tli = range.get("Timeline").ok_or("missing timeline")?;
        let tli = tli.as_u64().or_else(|| tli.as_str()?.parse().ok()).ok_or("timeline is not an integer")?;
        let lsn = |key: &str, missing: &'static str, bad: &'static str| {
            let text = range.get(key).and_then(Value::as_str).ok_or(missing)?;
            text.parse::<Lsn>().map_err(|_| bad)
        };
        let start = lsn("Start-LSN", "missing start LSN", "could not parse start LSN")?;
        let end = lsn("End-LSN", "missing end LSN", "could not parse end LSN")?;
        manifest.ranges.push(WalRange { tli, start, end });
    }
    own_checksum(bytes, top.get("Manifest-Checksum"))?;
    Ok(manifest)
}

/// The manifest's own checksum covers everything but the last line, which holds it.
fn own_checksum(bytes: &[u8], stored: Option<&Value>) -> Result<(), Wrong> {
    let lines = bytes.iter().filter(|b| **b == b'\n').count();
    if lines < 2 {
        return Err("expected at least 2 lines".into());
    }
    let Some(body) = bytes.strip_suffix(b"\n") else { return Err("last line not newline-terminated".into()) };
    let upto = body.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let stored = stored.and_then(Value::as_str).ok_or_else(|| Wrong::Fatal("manifest has no checksum".to_owned()))?;
    let bad = || Wrong::Fatal(format!("invalid manifest checksum: \"{stored}\""));
    let stored_bytes = unhex(stored).filter(|b| b.len() == 32).ok_or_else(bad)?;
    if Sha256::digest(&bytes[..upto]).as_slice() != stored_bytes {
        return Err(Wrong::Fatal("manifest checksum mismatch".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::manifest;

    fn sample() -> Vec<u8> {
        let mut made = manifest::Manifest::new(false);
        let mut sum = FileChecksum::new(ChecksumKind::Crc32c);
        sum.update(b"abc");
        made.add_file("base/1/\"x\"", 3, 0, sum);
        made.add_file("plain", 0, 0, FileChecksum::new(ChecksumKind::None));
        made.finish(&[]).into_bytes()
    }

    #[test]
    fn our_manifests_are_read_and_no_change_passes() {
        let bytes = sample();
        let Ok(read) = parse_manifest(&bytes) else { panic!("refused") };
        assert_eq!(read.files.keys().collect::<Vec<_>>(), ["base/1/\"x\"", "plain"]);
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert!(parse_manifest(&other).is_err() || at + 1 == bytes.len(), "byte {at}");
            assert!(parse_manifest(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
