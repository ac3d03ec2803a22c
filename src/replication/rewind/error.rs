//! Failures of a rewind, with `pg_rewind`'s texts where it has one.

use std::io;
use std::path::PathBuf;

use afterimage_wal::WalError;

use super::super::client::ClientError;

/// Failures of a rewind. After the marker is written each leaves a directory that does not start and can be rewound again.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// A file of the target or of a local source.
    #[error("could not {what} \"{}\": {}", path.display(), reason(source))]
    Io {
        /// What was tried, with the kind of file.
        what: &'static str,
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection to the source.
    #[error("{0}")]
    Client(#[from] ClientError),
    /// A control file, history or segment.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The source sent something else than asked for.
    #[error("unexpected result from the source server: {0}")]
    Unexpected(&'static str),
    /// A file the source must have.
    #[error("could not fetch file \"{0}\" from the source")]
    Missing(String),
    /// Different clusters.
    #[error("source and target clusters are from different systems")]
    OtherSystem,
    /// Another format.
    #[error("clusters are not compatible with this version of pg_rewind")]
    OtherVersion,
    /// A server runs on the target.
    #[error("target server must be shut down cleanly")]
    TargetRuns {
        /// What says so.
        detail: String,
    },
    /// A local source is in use, or crashed.
    #[error("source data directory must be shut down cleanly")]
    SourceRuns,
    /// Nothing in common.
    #[error("could not find common ancestor of the source and target cluster's timelines")]
    NoAncestor,
    /// Two histories under one timeline id, or a damaged marker.
    #[error("invalid data in file \"{path}\": {what}")]
    BadFile {
        /// File.
        path: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A local source changed while it was read.
    #[error("size of source file \"{path}\" changed concurrently: {expected} bytes expected, {found} copied")]
    Grew {
        /// File.
        path: String,
        /// Size when listed.
        expected: u64,
        /// Bytes there now, at least.
        found: u64,
    },
    /// A damaged page of the source.
    #[error("checksum verification failed in source file \"{path}\", block {block}")]
    Damaged {
        /// File.
        path: String,
        /// Block in the relation.
        block: u32,
    },
    /// WAL the copy needs.
    #[error("WAL segment \"{0}\" has been removed from the source; run pg_rewind again")]
    WalGone(String),
    /// The observer ended it.
    #[error("stopped")]
    Stopped,
}

impl RewindError {
    /// DETAIL line.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::TargetRuns { detail } => Some(detail),
            _ => None,
        }
    }

    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

/// The system's text without Rust's error number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(t, _)| t.to_owned())
}
