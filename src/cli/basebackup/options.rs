//! The command line of `basebackup`: PostgreSQL 15's options, checks and messages.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::getopt::{OptionSpec, Parsed, Takes, parse};
use crate::replication::base_backup::Compression;
use crate::replication::conninfo::ConnInfo;

const OPTIONS: &[OptionSpec] = &[
    ('D', "pgdata", Takes::Value, "D"),
    ('F', "format", Takes::Value, "F"),
    ('r', "max-rate", Takes::Value, "r"),
    ('R', "write-recovery-conf", Takes::Nothing, "R"),
    ('t', "target", Takes::Value, "t"),
    ('T', "tablespace-mapping", Takes::Value, "T"),
    ('\0', "waldir", Takes::Value, "waldir"),
    ('X', "wal-method", Takes::Value, "X"),
    ('z', "gzip", Takes::Nothing, "z"),
    ('Z', "compress", Takes::Value, "Z"),
    ('c', "checkpoint", Takes::Value, "c"),
    ('C', "create-slot", Takes::Nothing, "C"),
    ('l', "label", Takes::Value, "l"),
    ('n', "no-clean", Takes::Nothing, "n"),
    ('N', "no-sync", Takes::Nothing, "N"),
    ('P', "progress", Takes::Nothing, "P"),
    ('S', "slot", Takes::Value, "S"),
    ('v', "verbose", Takes::Nothing, "v"),
    ('V', "version", Takes::Nothing, "version"),
    ('\0', "manifest-checksums", Takes::Value, "manifest-checksums"),
    ('\0', "manifest-force-encode", Takes::Nothing, "manifest-force-encode"),
    ('\0', "no-estimate-size", Takes::Nothing, "no-estimate-size"),
    ('\0', "no-manifest", Takes::Nothing, "no-manifest"),
    ('\0', "no-slot", Takes::Nothing, "no-slot"),
    ('\0', "no-verify-checksums", Takes::Nothing, "no-verify-checksums"),
    ('?', "help", Takes::Nothing, "help"),
    ('j', "jobs", Takes::Value, "j"),
    ('d', "dbname", Takes::Value, "d"),
    ('h', "host", Takes::Value, "h"),
    ('p', "port", Takes::Value, "p"),
    ('s', "status-interval", Takes::Value, "s"),
    ('U', "username", Takes::Value, "U"),
    ('w', "no-password", Takes::Nothing, "w"),
    ('W', "password", Takes::Nothing, "W"),
];

const HELP: &str = "\
pg_basebackup takes a base backup of a running server.

Usage:
  pg_basebackup [OPTION]...

Options controlling the output:
  -D, --pgdata=DIRECTORY receive base backup into directory
  -F, --format=p|t       output format (plain (default), tar)
  -r, --max-rate=RATE    maximum transfer rate to transfer data directory
                         (in kB/s, or use suffix \"k\" or \"M\")
  -R, --write-recovery-conf
                         write configuration for replication
  -t, --target=TARGET[:DETAIL]
                         backup target (if other than client)
  -T, --tablespace-mapping=OLDDIR=NEWDIR
                         relocate tablespace in OLDDIR to NEWDIR
      --waldir=WALDIR    location for the write-ahead log directory
  -X, --wal-method=none|fetch|stream
                         include required WAL files with specified method
  -z, --gzip             compress tar output
  -Z, --compress=[{client|server}-]METHOD[:DETAIL]
                         compress on client or server as specified
  -Z, --compress=none    do not compress tar output

General options:
  -j, --jobs=NUM         use this many parallel connections to transfer files
                         (from another Afterimage)
  -c, --checkpoint=fast|spread
                         set fast or spread checkpointing
  -C, --create-slot      create replication slot
  -l, --label=LABEL      set backup label
  -n, --no-clean         do not clean up after errors
  -N, --no-sync          do not wait for changes to be written safely to disk
  -P, --progress         show progress information
  -S, --slot=SLOTNAME    replication slot to use
  -v, --verbose          output verbose messages
  -V, --version          output version information, then exit
      --manifest-checksums=SHA{224,256,384,512}|CRC32C|NONE
                         use algorithm for manifest checksums
      --manifest-force-encode
                         hex encode all file names in manifest
      --no-estimate-size do not estimate backup size in server side
      --no-manifest      suppress generation of backup manifest
      --no-slot          prevent creation of temporary replication slot
      --no-verify-checksums
                         do not verify checksums
  -?, --help             show this help, then exit

Connection options:
  -d, --dbname=CONNSTR   connection string
  -h, --host=HOSTNAME    database server host or socket directory
  -p, --port=PORT        database server port number
  -s, --status-interval=INTERVAL
                         time between status packets sent to server (in seconds)
  -U, --username=NAME    connect as specified database user
  -w, --no-password      never prompt for password
  -W, --password         force password prompt (should happen automatically)
";

/// Where the backup goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A data directory.
    Plain(PathBuf),
    /// Tar files in a directory.
    Tar(PathBuf),
    /// One tar file to standard output.
    Stdout,
    /// To where the server says: `server:DIRECTORY`, `blackhole`.
    Target(String, Option<String>),
}

/// How the WAL of the backup comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalMethod {
    /// Not at all.
    None,
    /// In the archive, at its end.
    Fetch,
    /// By a second connection, at the same time.
    Stream,
}

/// What was asked for, checked.
#[derive(Clone, Debug)]
pub struct Options {
    /// `-D`, `-F`, `-t`.
    pub destination: Destination,
    /// `-r`, in kB/s.
    pub max_rate: Option<u32>,
    /// `-R`.
    pub write_recovery_conf: bool,
    /// `-T`: where tablespaces lie on the server, and where they go.
    pub tablespace_mapping: Vec<(String, String)>,
    /// `--waldir`.
    pub wal_dir: Option<PathBuf>,
    /// `-X`.
    pub wal: WalMethod,
    /// Compression done here.
    pub compression: Compression,
    /// Compression the server is asked for: method and detail.
    pub server_compression: Option<ServerCompression>,
    /// `-c fast`.
    pub fast_checkpoint: bool,
    /// `-C`.
    pub create_slot: bool,
    /// `-l`.
    pub label: String,
    /// Not `-n`.
    pub clean: bool,
    /// Not `-N`.
    pub sync: bool,
    /// `-P`.
    pub progress: bool,
    /// `-S`.
    pub slot: Option<String>,
    /// Not `--no-slot`.
    pub temporary_slot: bool,
    /// `-v`.
    pub verbose: bool,
    /// Not `--no-manifest`.
    pub manifest: bool,
    /// `--manifest-checksums`.
    pub manifest_checksums: Option<String>,
    /// `--manifest-force-encode`.
    pub manifest_force_encode: bool,
    /// Not `--no-estimate-size`.
    pub estimate_size: bool,
    /// Not `--no-verify-checksums`.
    pub verify_checksums: bool,
    /// `-s`; zero: only when asked.
    pub status_interval: Duration,
    /// `-W`: some, always; `-w`: never.
    pub prompt: Option<bool>,
    /// `-j`: connections the files come over.
    pub jobs: u32,
    /// Where to connect.
    pub info: ConnInfo,
}

/// Why there is nothing to run.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `--help` or `--version`: what to print.
    Answer(String),
    /// As `getopt_long` says it.
    Getopt(String),
    /// An error with advice to read the help.
    Usage(String),
    /// An error.
    Error(String),
}

fn usage(text: &str) -> Refusal {
    Refusal::Usage(text.to_owned())
}

fn error(text: impl Into<String>) -> Refusal {
    Refusal::Error(text.into())
}

fn incompatible(one: &str, other: &str) -> Refusal {
    Refusal::Usage(format!("{one} and {other} are incompatible options"))
}

impl Options {
    /// Reads a command line, without the program's name.
    ///
    /// # Errors
    /// A [`Refusal`] with PostgreSQL's text.
    pub fn parse(args: &[String]) -> Result<Self, Refusal> {
        let given = parse(args, OPTIONS).map_err(Refusal::Getopt)?;
        if given.has("help") {
            return Err(Refusal::Answer(HELP.to_owned()));
        }
        if given.has("version") {
            return Err(Refusal::Answer(format!("pg_basebackup (PostgreSQL) {}\n", crate::session::POSTGRES_VERSION)));
        }
        let tar = match given.value("F") {
            None => None,
            Some("p" | "plain") => Some(false),
            Some("t" | "tar") => Some(true),
            Some(other) => return Err(error(format!("invalid output format \"{other}\", must be \"plain\" or \"tar\""))),
        };
        let max_rate = given.value("r").map(max_rate).transpose()?;
        let tablespace_mapping = given.values("T").map(mapping).collect::<Result<_, _>>()?;
        let wal = match given.value("X") {
            Some("n" | "none") => WalMethod::None,
            Some("f" | "fetch") => WalMethod::Fetch,
            None | Some("s" | "stream") => WalMethod::Stream,
            Some(other) => {
                return Err(error(format!("invalid wal-method option \"{other}\", must be \"fetch\", \"stream\", or \"none\"")));
            }
        };
        let fast_checkpoint = match given.value("c").map(str::to_ascii_lowercase).as_deref() {
            Some("fast") => true,
            None | Some("spread") => false,
            Some(_) => {
                let given = given.value("c").unwrap_or("");
                return Err(error(format!("invalid checkpoint argument \"{given}\", must be \"fast\" or \"spread\"")));
            }
        };
        let status_interval = match given.value("s") {
            None => Duration::from_secs(10),
            Some(text) => match text.trim().parse::<u32>() {
                Ok(seconds) if seconds <= 2_147_483 => Duration::from_secs(u64::from(seconds)),
                Ok(_) => return Err(error("-s/--status-interval must be in range 0..2147483")),
                Err(_) => return Err(error(format!("invalid value \"{text}\" for option -s/--status-interval"))),
            },
        };
        if let Some(extra) = given.positional.first() {
            return Err(Refusal::Usage(format!("too many command-line arguments (first is \"{extra}\")")));
        }
        let target = given.value("t").filter(|target| *target != "client");
        if target.is_some() && tar.is_some() {
            return Err(usage("cannot specify both format and backup target"));
        }
        let tar = tar.unwrap_or(false);
        let destination = match (given.value("D"), target) {
            (None, None) => return Err(usage("must specify output directory or backup target")),
            (Some(_), Some(_)) => return Err(usage("cannot specify both output directory and backup target")),
            (None, Some(target)) => match target.split_once(':') {
                Some((name, detail)) => Destination::Target(name.to_owned(), Some(detail.to_owned())),
                None => Destination::Target(target.to_owned(), None),
            },
            (Some("-"), None) if tar => Destination::Stdout,
            (Some(directory), None) if tar => Destination::Tar(directory.into()),
            (Some(directory), None) => Destination::Plain(directory.into()),
        };
        let (compression, server_compression) = compression(&given, target.is_some())?;
        if compression != Compression::None && target.is_some() {
            return Err(usage("client-side compression is not possible when a backup target is specified"));
        }
        if compression != Compression::None && matches!(destination, Destination::Plain(_)) {
            return Err(usage("only tar mode backups can be compressed"));
        }
        if target.is_some() && wal == WalMethod::Stream {
            return Err(usage("WAL cannot be streamed when a backup target is specified"));
        }
        if destination == Destination::Stdout && wal == WalMethod::Stream {
            return Err(usage("cannot stream write-ahead logs in tar mode to stdout"));
        }
        let slot = given.value("S").map(str::to_owned);
        if slot.is_some() && wal != WalMethod::Stream {
            return Err(usage("replication slots can only be used with WAL streaming"));
        }
        if given.has("no-slot") && slot.is_some() {
            return Err(usage("--no-slot cannot be used with slot name"));
        }
        if given.has("C") {
            if slot.is_none() {
                return Err(usage("--create-slot needs a slot to be specified using --slot"));
            }
            if given.has("no-slot") {
                return Err(incompatible("--create-slot", "--no-slot"));
            }
        }
        let wal_dir = given.value("waldir").map(|dir| PathBuf::from(dir.trim_end_matches('/')));
        if let Some(dir) = &wal_dir {
            match &destination {
                Destination::Target(..) => return Err(usage("WAL directory location cannot be specified along with a backup target")),
                Destination::Tar(_) | Destination::Stdout => {
                    return Err(usage("WAL directory location can only be specified in plain mode"));
                }
                Destination::Plain(_) if !dir.is_absolute() => return Err(usage("WAL directory location must be an absolute path")),
                Destination::Plain(_) => {}
            }
        }
        if given.has("P") && given.has("no-estimate-size") {
            return Err(incompatible("--progress", "--no-estimate-size"));
        }
        let manifest_checksums = given.value("manifest-checksums").map(str::to_owned);
        if given.has("no-manifest") {
            if manifest_checksums.is_some() {
                return Err(incompatible("--no-manifest", "--manifest-checksums"));
            }
            if given.has("manifest-force-encode") {
                return Err(incompatible("--no-manifest", "--manifest-force-encode"));
            }
        }
        if given.has("R") && target.is_some() {
            return Err(error("recovery configuration cannot be written when a backup target is used"));
        }
        let jobs = match given.value("j").map(str::parse::<u32>) {
            None => 1,
            Some(Ok(jobs)) if (1..=64).contains(&jobs) => jobs,
            Some(_) => return Err(error("invalid number of parallel jobs: must be between 1 and 64")),
        };
        if jobs > 1 && (!matches!(destination, Destination::Plain(_)) || max_rate.is_some() || server_compression.is_some()) {
            return Err(usage("-j/--jobs needs a backup in plain format, without --max-rate and server-side compression"));
        }
        let bad = |e: crate::replication::conninfo::ConnInfoError| error(e.to_string());
        let mut info = ConnInfo::parse(given.value("d").unwrap_or("")).map_err(bad)?;
        for (option, key) in [("h", "host"), ("p", "port"), ("U", "user")] {
            if let Some(value) = given.value(option) {
                info.set(key, value).map_err(bad)?;
            }
        }
        Ok(Self {
            destination,
            max_rate,
            write_recovery_conf: given.has("R"),
            tablespace_mapping,
            wal_dir,
            wal,
            compression,
            server_compression,
            fast_checkpoint,
            create_slot: given.has("C"),
            label: given.value("l").unwrap_or("pg_basebackup base backup").to_owned(),
            clean: !given.has("n"),
            sync: !given.has("N"),
            progress: given.has("P"),
            slot,
            temporary_slot: !given.has("no-slot"),
            verbose: given.has("v"),
            manifest: !given.has("no-manifest"),
            manifest_checksums,
            manifest_force_encode: given.has("manifest-force-encode"),
            estimate_size: !given.has("no-estimate-size"),
            verify_checksums: !given.has("no-verify-checksums"),
            status_interval,
            prompt: if given.has("W") { Some(true) } else { given.has("w").then_some(false) },
            jobs,
            info,
        })
    }
}

/// A method and its detail, as the server is asked for them.
pub(super) type ServerCompression = (String, Option<String>);

/// `-z` and `-Z`, the last of them: what is compressed here, and what the server is asked for.
fn compression(given: &Parsed, has_target: bool) -> Result<(Compression, Option<ServerCompression>), Refusal> {
    let last = given.options.iter().rev().find(|(key, _)| matches!(*key, "z" | "Z"));
    let Some((key, value)) = last else { return Ok((Compression::None, None)) };
    let text = if *key == "z" { "gzip" } else { value.as_deref().unwrap_or("") };
    let (place, method, detail) = if text.parse::<i64>().is_ok() {
        // A number alone is gzip's level, as in versions before 15.
        (None, "gzip", Some(text))
    } else {
        let (place, rest) = match (text.strip_prefix("server-"), text.strip_prefix("client-")) {
            (Some(rest), _) => (Some(true), rest),
            (None, Some(rest)) => (Some(false), rest),
            (None, None) => (None, text),
        };
        let (method, detail) = rest.split_once(':').map_or((rest, None), |(method, detail)| (method, Some(detail)));
        (place, method, detail)
    };
    if place.unwrap_or(has_target) {
        // The server judges it.
        return Ok((Compression::None, Some((method.to_owned(), detail.map(str::to_owned)))));
    }
    Compression::parse(method, detail).map(|compression| (compression, None)).map_err(|e| error(e.to_string()))
}

/// A rate in kB/s, or with `k` or `M`.
fn max_rate(text: &str) -> Result<u32, Refusal> {
    let number_end = text.trim_start().find(|c: char| !matches!(c, '0'..='9' | '.' | '-' | '+' | 'e' | 'E')).unwrap_or(text.len());
    let (number, suffix) = text.trim_start().split_at(number_end.min(text.trim_start().len()));
    let number: f64 = number.parse().map_err(|_| error(format!("transfer rate \"{text}\" is not a valid value")))?;
    if number <= 0.0 {
        return Err(error("transfer rate must be greater than zero"));
    }
    let kilobytes = match suffix.trim() {
        "" | "k" => number,
        "M" => number * 1024.0,
        _ => return Err(error(format!("invalid --max-rate unit: \"{}\"", suffix.trim_start()))),
    };
    if kilobytes > f64::from(u32::MAX) {
        return Err(error(format!("transfer rate \"{text}\" exceeds integer range")));
    }
    if !(32.0..=1_048_576.0).contains(&kilobytes) {
        return Err(error(format!("transfer rate \"{text}\" is out of range")));
    }
    #[expect(clippy::cast_possible_truncation, reason = "between 32 and 1048576")]
    let rate = kilobytes as u32;
    Ok(rate)
}

/// `OLDDIR=NEWDIR`, `\=` standing for an equals sign in a name.
fn mapping(text: &str) -> Result<(String, String), Refusal> {
    let invalid = || error(format!("invalid tablespace mapping format \"{text}\", must be \"OLDDIR=NEWDIR\""));
    let (mut old, mut new) = (String::new(), None::<String>);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let next = match c {
            '\\' if chars.peek() == Some(&'=') => chars.next().unwrap_or(c),
            '=' if new.is_some() => return Err(error("multiple \"=\" signs in tablespace mapping")),
            '=' => {
                new = Some(String::new());
                continue;
            }
            c => c,
        };
        new.as_mut().unwrap_or(&mut old).push(next);
    }
    let new = new.filter(|new| !new.is_empty() && !old.is_empty()).ok_or_else(invalid)?;
    for (dir, which) in [(&old, "old"), (&new, "new")] {
        if !dir.starts_with('/') {
            return Err(error(format!("{which} directory is not an absolute path in tablespace mapping: {dir}")));
        }
    }
    Ok((old.trim_end_matches('/').to_owned(), new.trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Options, Refusal> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn usual_command_lines() {
        let plain = of("-D dir -R -c fast -N -d host=x -p 5433").unwrap();
        assert_eq!(plain.destination, Destination::Plain("dir".into()));
        assert!(plain.write_recovery_conf && plain.fast_checkpoint && !plain.sync && plain.temporary_slot);
        assert_eq!((plain.info.get("host"), plain.info.get("port")), (Some("x"), Some("5433")));
        let tar = of("-D dir -Ft -z -X fetch --max-rate 2M").unwrap();
        assert_eq!((tar.destination, tar.compression), (Destination::Tar("dir".into()), Compression::Gzip(6)));
        assert_eq!((tar.max_rate, tar.wal), (Some(2048), WalMethod::Fetch));
        let server = of("-t server:/b -X none -Z zstd:5").unwrap();
        assert_eq!(server.destination, Destination::Target("server".into(), Some("/b".into())));
        assert_eq!(server.server_compression, Some(("zstd".into(), Some("5".into()))));
        assert_eq!(of("-D dir -Z server-lz4").unwrap().server_compression, Some(("lz4".into(), None)));
        assert_eq!(of("-D - -F tar -X none").unwrap().destination, Destination::Stdout);
        assert_eq!(of("-D d -T /a\\=b=/c").unwrap().tablespace_mapping, [("/a=b".to_owned(), "/c".to_owned())]);
    }

    #[test]
    fn mistakes_are_refused_in_postgresqls_words() {
        for (line, usage, text) in [
            ("", true, "must specify output directory or backup target"),
            ("-D d -t blackhole", true, "cannot specify both output directory and backup target"),
            ("-t blackhole -Fp", true, "cannot specify both format and backup target"),
            ("-t blackhole", true, "WAL cannot be streamed when a backup target is specified"),
            ("-t blackhole -X fetch -Z client-gzip", true, "client-side compression is not possible when a backup target is specified"),
            ("-D d -z", true, "only tar mode backups can be compressed"),
            ("-D - -Ft", true, "cannot stream write-ahead logs in tar mode to stdout"),
            ("-D d -X none -S s", true, "replication slots can only be used with WAL streaming"),
            ("-D d -C", true, "--create-slot needs a slot to be specified using --slot"),
            ("-D d -S s --no-slot", true, "--no-slot cannot be used with slot name"),
            ("-D d -Ft --waldir /w", true, "WAL directory location can only be specified in plain mode"),
            ("-D d --waldir w", true, "WAL directory location must be an absolute path"),
            ("-D d -P --no-estimate-size", true, "--progress and --no-estimate-size are incompatible options"),
            ("-D d --no-manifest --manifest-force-encode", true, "--no-manifest and --manifest-force-encode are incompatible options"),
            ("-D d extra", true, "too many command-line arguments (first is \"extra\")"),
            ("-D d -Fx", false, "invalid output format \"x\", must be \"plain\" or \"tar\""),
            ("-D d -X x", false, "invalid wal-method option \"x\", must be \"fetch\", \"stream\", or \"none\""),
            ("-D d -r 1", false, "transfer rate \"1\" is out of range"),
            ("-D d -r 2T", false, "invalid --max-rate unit: \"T\""),
            ("-D d -r x", false, "transfer rate \"x\" is not a valid value"),
            ("-D d -T a=/b", false, "old directory is not an absolute path in tablespace mapping: a"),
            ("-D d -T /a=/b=/c", false, "multiple \"=\" signs in tablespace mapping"),
            ("-D d -T =/b", false, "invalid tablespace mapping format \"=/b\", must be \"OLDDIR=NEWDIR\""),
            (
                "-D d -Z none:1",
                false,
                "invalid compression specification: compression algorithm \"none\" does not accept a compression level",
            ),
            ("-D d -Z none+", false, "unrecognized compression algorithm: \"none+\""),
        ] {
            let refused = of(line).unwrap_err();
            assert_eq!(refused, if usage { Refusal::Usage(text.into()) } else { Refusal::Error(text.into()) }, "{line}");
        }
        assert_eq!(of("-x").unwrap_err(), Refusal::Getopt("invalid option -- 'x'".into()));
    }
}
