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
    /// zstd at a level of 1 to 22.
    Zstd(i32),
}

impl Compression {
    /// What is appended to the archive's name.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip(_) => ".gz",
            Self::Zstd(_) => ".zst",
        }
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
    /// Throw the archive away after reading it (target `blackhole`).
    pub blackhole: bool,
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
            blackhole: false,
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
        let mut target_detail = false;
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
                    let kilobytes: u64 = text.parse().map_err(|_| bad("max_rate requires an integer value"))?;
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
                "target" => target = Some(option.text()?),
                "target_detail" => {
                    option.text()?;
                    target_detail = true;
                }
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
        match target {
            None if target_detail => return Err(bad("target detail cannot be used without target")),
            None | Some("client") => {
                if target_detail {
                    return Err(bad("target \"client\" does not accept a target detail"));
                }
            }
            Some("blackhole") => {
                if target_detail {
                    return Err(bad("target \"blackhole\" does not accept a target detail"));
                }
                options.blackhole = true;
            }
            Some("server") => return Err(SqlError::unsupported("base backup target \"server\"")),
            Some(other) => return Err(bad(format!("unrecognized target: \"{other}\""))),
        }
        if detail.is_some() && method.is_none() {
            return Err(bad("compression detail cannot be specified unless compression is enabled"));
        }
        options.compression = match method {
            None | Some("none") => Compression::None,
            Some("gzip") => Compression::Gzip(level(detail, 6, 1, 9, "gzip")?),
            Some("zstd") => Compression::Zstd(i32::try_from(level(detail, 3, 1, 22, "zstd")?).unwrap_or(3)),
            Some("lz4") => return Err(SqlError::unsupported("server-side lz4 compression of a base backup")),
            Some(other) => return Err(bad(format!("unrecognized compression algorithm: \"{other}\""))),
        };
        Ok(options)
    }
}

/// Reads `5` or `level=5`.
fn level(detail: Option<&str>, default: u32, least: u32, most: u32, name: &str) -> Result<u32, SqlError> {
    let Some(detail) = detail else { return Ok(default) };
    let digits = detail.strip_prefix("level=").unwrap_or(detail);
    let level: u32 =
        digits.parse().map_err(|_| invalid(format!("invalid compression specification: unrecognized compression option: \"{detail}\"")))?;
    if (least..=most).contains(&level) {
        Ok(level)
    } else {
        Err(invalid(format!(
            "invalid compression specification: compression algorithm \"{name}\" expects a compression level between {least} and {most} (default at {default})"
        )))
    }
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
        assert_eq!(message(&[("colour", "5")]), "unrecognized base backup option: \"colour\"");
    }
}
