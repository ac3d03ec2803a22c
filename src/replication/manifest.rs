//! `backup_manifest`: every file of a base backup with size and checksum, and the WAL needed to make it consistent.
//!
//! The format is PostgreSQL's version 1, so that the stock `pg_verifybackup` checks our backups.
//! PostgreSQL: backup/backup_manifest.c, "Backup Manifest Format".

use std::fmt::Write as _;

use afterimage_wal::ids::{Lsn, TimelineId};
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};

/// Which checksum a manifest carries per file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumKind {
    /// No checksum.
    None,
    /// CRC-32C, the default.
    Crc32c,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl ChecksumKind {
    /// Reads PostgreSQL's spelling, any case.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "none" => Some(Self::None),
            "crc32c" => Some(Self::Crc32c),
            "sha224" => Some(Self::Sha224),
            "sha256" => Some(Self::Sha256),
            "sha384" => Some(Self::Sha384),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Crc32c => "CRC32C",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }
}

/// A checksum being computed over one file's bytes.
pub enum FileChecksum {
    /// Nothing.
    None,
    /// CRC-32C so far.
    Crc32c(u32),
    /// SHA-224 state.
    Sha224(Box<Sha224>),
    /// SHA-256 state.
    Sha256(Box<Sha256>),
    /// SHA-384 state.
    Sha384(Box<Sha384>),
    /// SHA-512 state.
    Sha512(Box<Sha512>),
}

impl FileChecksum {
    /// Starts one.
    pub fn new(kind: ChecksumKind) -> Self {
        match kind {
            ChecksumKind::None => Self::None,
            ChecksumKind::Crc32c => Self::Crc32c(0),
            ChecksumKind::Sha224 => Self::Sha224(Box::default()),
            ChecksumKind::Sha256 => Self::Sha256(Box::default()),
            ChecksumKind::Sha384 => Self::Sha384(Box::default()),
            ChecksumKind::Sha512 => Self::Sha512(Box::default()),
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::None => {}
            Self::Crc32c(crc) => *crc = crc32c::crc32c_append(*crc, bytes),
            Self::Sha224(sha) => sha.update(bytes),
            Self::Sha256(sha) => sha.update(bytes),
            Self::Sha384(sha) => sha.update(bytes),
            Self::Sha512(sha) => sha.update(bytes),
        }
    }

    /// The kind and the digest in hex; `None` without a checksum. The crc is printed low byte first, as PostgreSQL does.
    pub fn finish(self) -> Option<(ChecksumKind, String)> {
        match self {
            Self::None => None,
            Self::Crc32c(crc) => Some((ChecksumKind::Crc32c, hex(&crc.to_le_bytes()))),
            Self::Sha224(sha) => Some((ChecksumKind::Sha224, hex(&sha.finalize()))),
            Self::Sha256(sha) => Some((ChecksumKind::Sha256, hex(&sha.finalize()))),
            Self::Sha384(sha) => Some((ChecksumKind::Sha384, hex(&sha.finalize()))),
            Self::Sha512(sha) => Some((ChecksumKind::Sha512, hex(&sha.finalize()))),
        }
    }
}

/// WAL on one timeline that a backup needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRange {
    /// Timeline.
    pub tli: TimelineId,
    /// First byte needed.
    pub start_lsn: Lsn,
    /// End (exclusive).
    pub end_lsn: Lsn,
}

const BEGIN: &str = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [";

/// A manifest being written.
#[derive(Debug)]
pub struct Manifest {
    text: String,
    files: usize,
    force_encode: bool,
}

impl Manifest {
    /// Starts one; `force_encode` writes every path in hex, as `MANIFEST 'force-encode'` asks.
    pub fn new(force_encode: bool) -> Self {
        Self { text: BEGIN.to_owned(), files: 0, force_encode }
    }

    /// Adds a file of the archive. `modified` is in seconds since 1970.
    pub fn add_file(&mut self, path: &str, bytes: u64, modified: i64, checksum: FileChecksum) {
        self.text.push_str(if self.files == 0 { "\n" } else { ",\n" });
        self.files += 1;
        if self.force_encode {
            write_to(&mut self.text, format_args!("{{ \"Encoded-Path\": \"{}\", ", hex(path.as_bytes())));
        } else {
            write_to(&mut self.text, format_args!("{{ \"Path\": {}, ", serde_json::Value::from(path)));
        }
        let stamp = jiff::Timestamp::from_second(modified).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        write_to(&mut self.text, format_args!("\"Size\": {bytes}, \"Last-Modified\": \"{} GMT\"", stamp.strftime("%Y-%m-%d %H:%M:%S")));
        if let Some((kind, digest)) = checksum.finish() {
            write_to(&mut self.text, format_args!(", \"Checksum-Algorithm\": \"{}\", \"Checksum\": \"{digest}\"", kind.name()));
        }
        self.text.push_str(" }");
    }

    /// Adds another's files.
    pub fn absorb(&mut self, other: &Self) {
        if other.files > 0 {
            self.text.push_str(if self.files == 0 { "" } else { "," });
            self.text.push_str(other.text.get(BEGIN.len()..).unwrap_or_default());
            self.files += other.files;
        }
    }

    /// Ends the file list, adds the WAL ranges (newest timeline first) and the manifest's own SHA-256.
    pub fn finish(mut self, ranges: &[WalRange]) -> String {
        self.text.push_str("\n],\n\"WAL-Ranges\": [\n");
        for (i, range) in ranges.iter().enumerate() {
            let separator = if i == 0 { "" } else { ",\n" };
            write_to(
                &mut self.text,
                format_args!(
                    "{separator}{{ \"Timeline\": {}, \"Start-LSN\": \"{}\", \"End-LSN\": \"{}\" }}",
                    range.tli, range.start_lsn, range.end_lsn
                ),
            );
        }
        self.text.push_str("\n],\n");
        let digest = hex(&Sha256::digest(self.text.as_bytes()));
        write_to(&mut self.text, format_args!("\"Manifest-Checksum\": \"{digest}\"}}\n"));
        self.text
    }
}

fn write_to(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a String cannot fail");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        write_to(&mut out, format_args!("{byte:02x}"));
        out
    })
}
