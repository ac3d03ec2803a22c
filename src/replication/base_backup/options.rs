//! The options of `BASE_BACKUP`, checked as PostgreSQL 15 checks them.

use super::super::command::CommandOption;
use super::super::manifest::ChecksumKind;
use crate::sqlstate::{SqlError, SqlState};

/// How the server compresses the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip at a level of 1 to 9.
    Gzip(u32),
    /// LZ4 frames.
    Lz4,
    /// zstd at a level of up to 22; below 1 it is faster still.
    Zstd(i32),
}

impl Compression {
    /// What is appended to the archive's name.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip(_) => ".gz",
            Self::Lz4 => ".lz4",
            Self::Zstd(_) => ".zst",
        }
    }

    /// What an archive of this name is compressed with, at the method's usual level.
    pub fn of_name(name: &str) -> Self {
        match name.rsplit_once('.').map(|(_, last)| last) {
            Some("gz") => Self::Gzip(6),
            Some("lz4") => Self::Lz4,
            Some("zst") => Self::Zstd(3),
            Some(_) | None => Self::None,
        }
    }

    /// Reads a method and its specification: a number, or `level=5,workers=2`.
    ///
    /// PostgreSQL: common/compression.c.
    ///
    /// # Errors
    /// With PostgreSQL's texts.
    pub fn parse(method: &str, detail: Option<&str>) -> Result<Self, SqlError> {
        compression(method, detail)
    }
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupOptions {
    /// Label in `backup_label`.
    pub label: String,
    /// Report the size beforehand.
    pub progress: bool,
    /// Checkpoint at once, not spread.
    pub fast_checkpoint: bool,
    /// Put the WAL needed into the archive.
    pub wal: bool,
    /// Wait until that WAL is archived.
    pub wait: bool,
    /// Bytes per second, if limited.
    pub max_rate_bytes: Option<u64>,
    /// Send `tablespace_map`.
    pub tablespace_map: bool,
    /// Check every page's checksum.
    pub verify_checksums: bool,
    /// Send a manifest; `Some(true)` encodes every path in hex.
    pub manifest: Option<bool>,
    /// Checksum per file in it.
    pub manifest_checksums: ChecksumKind,
    /// Compression done here.
    pub compression: Compression,
    /// Let other connections send parts of it.
    pub streams: bool,
    /// Where the archives go.
    pub target: Target,
}

/// Where the archives of a backup go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the client.
    Client,
    /// Nowhere, after reading everything.
    Blackhole,
    /// Into files of this directory on the server.
    Server(String),
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            label: "base backup".to_owned(),
            progress: false,
            fast_checkpoint: false,
            wal: false,
            wait: true,
            max_rate_bytes: None,
            tablespace_map: false,
            verify_checksums: true,
            manifest: None,
            manifest_checksums: ChecksumKind::Crc32c,
            compression: Compression::None,
            streams: false,
            target: Target::Client,
        }
    }
}

fn bad(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::SYNTAX_ERROR, message)
}

fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

impl BackupOptions {
    /// Reads the option list.
    ///
    /// # Errors
    /// 42601 for duplicates and unknown options, 22023 for values, 0A000 for what is not here.
    pub fn parse(list: &[CommandOption]) -> Result<Self, SqlError> {
        let mut options = Self::default();
        let mut target: Option<&str> = None;
        let mut target_detail: Option<&str> = None;
        let mut method: Option<&str> = None;
        let mut detail: Option<&str> = None;
        let mut checksums_given = false;
        for (i, option) in list.iter().enumerate() {
            if list[..i].iter().any(|earlier| earlier.name == option.name) {
                return Err(bad(format!("duplicate option \"{}\"", option.name)));
            }
            match option.name.as_str() {
                "label" => options.label = option.text()?.to_owned(),
                "progress" => options.progress = option.boolean()?,
                "checkpoint" => {
                    options.fast_checkpoint = match option.text()? {
                        "fast" => true,
                        "spread" => false,
                        other => return Err(bad(format!("unrecognized checkpoint type: \"{other}\""))),
                    }
                }
                "wait" => options.wait = option.boolean()?,
                "wal" => options.wal = option.boolean()?,
                "max_rate" => {
                    let text = option.text()?;
                    let kilobytes: u64 = text.parse().map_err(|_| bad("max_rate requires a numeric value"))?;
                    if !(32..=1_048_576).contains(&kilobytes) {
                        return Err(SqlError::new(
                            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                            format!("{kilobytes} is outside the valid range for parameter \"MAX_RATE\" (32 .. 1048576)"),
                        ));
                    }
                    options.max_rate_bytes = Some(kilobytes * 1024);
                }
                "tablespace_map" => options.tablespace_map = option.boolean()?,
                "verify_checksums" => options.verify_checksums = option.boolean()?,
                "manifest" => {
                    let text = option.text()?;
                    options.manifest = match text.to_ascii_lowercase().as_str() {
                        "yes" | "true" | "on" | "1" => Some(false),
                        "no" | "false" | "off" | "0" => None,
                        "force-encode" => Some(true),
                        _ => return Err(bad(format!("unrecognized manifest option: \"{text}\""))),
                    };
                }
                "manifest_checksums" => {
                    let text = option.text()?;
                    checksums_given = true;
                    options.manifest_checksums =
                        ChecksumKind::parse(text).ok_or_else(|| bad(format!("unrecognized checksum algorithm: \"{text}\"")))?;
                }
                "streams" => options.streams = option.boolean()?,
                "target" => target = Some(option.text()?),
                "target_detail" => target_detail = Some(option.text()?),
                "compression" => method = Some(option.text()?),
                "compression_detail" => detail = Some(option.text()?),
                other => return Err(bad(format!("unrecognized base backup option: \"{other}\""))),
            }
        }
        if options.manifest.is_none() {
            if checksums_given {
                return Err(bad("manifest checksums require a backup manifest"));
            }
            options.manifest_checksums = ChecksumKind::None;
        }
        let no_detail = |name: &str| match target_detail {
            None => Ok(()),
            Some(_) => Err(bad(format!("target \"{name}\" does not accept a target detail"))),
        };
        options.target = match target {
            None if target_detail.is_some() => return Err(bad("target detail cannot be used without target")),
            None | Some("client") => {
                no_detail("client")?;
                Target::Client
            }
            Some("blackhole") => {
                no_detail("blackhole")?;
                Target::Blackhole
            }
            Some("server") => Target::Server(target_detail.ok_or_else(|| bad("target \"server\" requires a target detail"))?.to_owned()),
            Some(other) => {
                return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("unrecognized target: \"{other}\"")));
            }
        };
        if detail.is_some() && method.is_none() {
            return Err(bad("compression detail cannot be specified unless compression is enabled"));
        }
        if let Some(method) = method {
            options.compression = compression(method, detail)?;
        }
        Ok(options)
    }
}

/// What a compression specification may say of a method: its levels and the default, whether it takes workers.
struct Method {
    name: &'static str,
    least: i32,
    most: i32,
    default: i32,
}

const METHODS: &[Method] = &[
    Method { name: "gzip", least: 1, most: 9, default: -1 },
    Method { name: "lz4", least: 1, most: 12, default: 0 },
    Method { name: "zstd", least: -131_072, most: 22, default: 3 },
];

fn compression(method: &str, detail: Option<&str>) -> Result<Compression, SqlError> {
    let wrong = |text: String| bad(format!("invalid compression specification: {text}"));
    let limits = METHODS.iter().find(|m| m.name == method);
    if limits.is_none() && method != "none" {
        return Err(bad(format!("unrecognized compression algorithm: \"{method}\"")));
    }
    let mut level: Option<i64> = None;
    let mut workers: Option<i64> = None;
    match detail.map(str::parse::<i64>) {
        None => {}
        Some(Ok(number)) => level = Some(number),
        Some(Err(_)) => {
            for part in detail.unwrap_or_default().split(',') {
                let (name, value) = part.split_once('=').map_or((part, None), |(n, v)| (n, Some(v)));
                let place = match name {
                    "" => return Err(wrong("found empty string where a compression option was expected".to_owned())),
                    "level" => &mut level,
                    "workers" => &mut workers,
                    other => return Err(wrong(format!("unrecognized compression option: \"{other}\""))),
                };
                let value = value.ok_or_else(|| wrong(format!("compression option \"{name}\" requires a value")))?;
                let number = value.parse().map_err(|_| wrong(format!("value for compression option \"{name}\" must be an integer")))?;
                *place = Some(number);
            }
        }
    }
    let Some(limits) = limits else {
        return match level {
            Some(_) => Err(wrong("compression algorithm \"none\" does not accept a compression level".to_owned())),
            None => Ok(Compression::None),
        };
    };
    let level = match level {
        None => limits.default,
        Some(level) => i32::try_from(level).ok().filter(|l| (limits.least..=limits.most).contains(l)).ok_or_else(|| {
            wrong(format!(
                "compression algorithm \"{method}\" expects a compression level between {} and {} (default at {})",
                limits.least, limits.most, limits.default
            ))
        })?,
    };
    if workers.is_some() && method != "zstd" {
        return Err(wrong(format!("compression algorithm \"{method}\" does not accept a worker count")));
    }
    if let Some(count) = workers.filter(|w| *w != 0) {
        return Err(invalid(format!("could not set compression worker count to {count}: Unsupported parameter")));
    }
    Ok(match method {
        "gzip" => Compression::Gzip(u32::try_from(level).unwrap_or(6)),
        // There is one level; the others are accepted, as any level is a wish.
        "lz4" => Compression::Lz4,
        _ => Compression::Zstd(level),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &[(&str, &str)]) -> Result<BackupOptions, SqlError> {
        let list: Vec<_> = list.iter().map(|(n, v)| CommandOption { name: (*n).into(), value: Some((*v).into()) }).collect();
        BackupOptions::parse(&list)
    }

    #[test]
    fn pg_basebackups_usual_options() {
        let options = parse(&[
            ("label", "x"),
            ("progress", "true"),
            ("checkpoint", "fast"),
            ("wait", "0"),
            ("manifest", "yes"),
            ("target", "client"),
        ])
        .unwrap();
        assert!(options.progress && options.fast_checkpoint && !options.wait);
        assert_eq!(options.manifest, Some(false));
        assert_eq!(options.manifest_checksums, ChecksumKind::Crc32c);
    }

    #[test]
    fn mistakes_are_named() {
        let message = |list: &[(&str, &str)]| parse(list).unwrap_err().to_string();
        assert_eq!(message(&[("label", "a"), ("label", "b")]), "duplicate option \"label\"");
        assert_eq!(message(&[("max_rate", "1")]), "1 is outside the valid range for parameter \"MAX_RATE\" (32 .. 1048576)");
        assert_eq!(message(&[("manifest_checksums", "sha256")]), "manifest checksums require a backup manifest");
        assert_eq!(message(&[("compression_detail", "5")]), "compression detail cannot be specified unless compression is enabled");
        for (detail, wanted) in [
            ("", "found empty string where a compression option was expected"),
            ("thunk", "unrecognized compression option: \"thunk\""),
            ("level", "compression option \"level\" requires a value"),
            ("level=high", "value for compression option \"level\" must be an integer"),
            ("level=236", "compression algorithm \"gzip\" expects a compression level between 1 and 9 (default at -1)"),
            ("level=9,", "found empty string where a compression option was expected"),
            ("workers=3", "compression algorithm \"gzip\" does not accept a worker count"),
        ] {
            let said = message(&[("compression", "gzip"), ("compression_detail", detail)]);
            assert_eq!(said, format!("invalid compression specification: {wanted}"));
        }
        assert_eq!(parse(&[("compression", "zstd"), ("compression_detail", "7")]).unwrap().compression, Compression::Zstd(7));
        assert_eq!(message(&[("target", "server")]), "target \"server\" requires a target detail");
        assert_eq!(message(&[("colour", "5")]), "unrecognized base backup option: \"colour\"");
    }
}
