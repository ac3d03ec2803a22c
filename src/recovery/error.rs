//! Failures of recovery: each refuses the start or stops the node.

use std::sync::Arc;

use afterimage_wal::{
    Lsn, TimelineId, WalError,
    reader::{Proof, ReadStop},
};

use crate::{access::AccessError, control::error::ControlError, storage::StorageError, txn::TxnError};

/// Failures of recovery.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// Pages or files.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// WAL.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// Transaction status.
    #[error(transparent)]
    Txn(#[from] TxnError),
    /// Control file.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Redo of one record failed.
    #[error("WAL redo at {at} for {rmgr}/{kind:#04x}: {source}")]
    Redo {
        /// Start of the record.
        at: Lsn,
        /// Resource manager.
        rmgr: &'static str,
        /// Kind.
        kind: u8,
        /// Why.
        #[source]
        source: AccessError,
    },
    /// A record no resource manager of ours writes, or that does not decode.
    #[error("WAL record at {at} is not understood: {what}")]
    UnknownRecord {
        /// Start of the record.
        at: Lsn,
        /// What is wrong.
        what: &'static str,
    },
    /// WAL that was durable is damaged or gone. PostgreSQL 15 silently drops what follows.
    #[error("WAL is damaged: {stop}; {proof}")]
    Damage {
        /// Where and what was found.
        stop: ReadStop,
        /// Why it must have been durable.
        proof: Proof,
    },
    /// WAL of another cluster or of an unknown format, or unreadable.
    #[error("could not read WAL: {stop}")]
    Unreadable {
        /// Where and what was found.
        stop: ReadStop,
    },
    /// There is no checkpoint where the control file or the backup label says.
    #[error("could not locate a valid checkpoint record at {at}: {found}")]
    NoCheckpoint {
        /// Where.
        at: Lsn,
        /// What was there.
        found: String,
    },
    /// The WAL ends before the pages are consistent.
    #[error("{what}")]
    Inconsistent {
        /// PostgreSQL's message.
        what: &'static str,
        /// Where WAL ends.
        end: Lsn,
        /// How far it would have to go.
        needed: Lsn,
    },
    /// The newest timeline does not contain what this directory already holds.
    #[error("requested timeline {wanted} is not a child of this server's history: latest checkpoint is at {at} on timeline {tli}")]
    NotAChild {
        /// Timeline to follow.
        wanted: TimelineId,
        /// Position this directory depends on.
        at: Lsn,
        /// Its timeline.
        tli: TimelineId,
    },
    /// The archive could not be asked.
    #[error("could not restore file \"{name}\" from archive: {status}")]
    Restore {
        /// File.
        name: String,
        /// How the command ended.
        status: String,
    },
    /// What the archive has under a segment's name is none.
    #[error("archive file \"{name}\" has wrong size: {bytes} instead of {segment_bytes}")]
    WrongSize {
        /// File.
        name: String,
        /// Its size.
        bytes: u64,
        /// A segment's.
        segment_bytes: u32,
    },
    /// A command of recovery was killed or not found.
    #[error("{name} \"{command}\": {status}")]
    Command {
        /// Its setting.
        name: String,
        /// As set.
        command: String,
        /// How it ended.
        status: String,
    },
    /// `recovery_target_timeline` names a timeline that nobody knows.
    #[error("recovery target timeline {0} does not exist")]
    NoSuchTimeline(TimelineId),
    /// Archive recovery without an archive.
    #[error("must specify restore_command when standby mode is not enabled")]
    NoRestoreCommand,
    /// How PostgreSQL was told until version 11.
    #[error("using recovery command file \"recovery.conf\" is not supported")]
    RecoveryConf,
    /// The primary ran without the WAL that recovery needs.
    #[error("WAL was generated with wal_level=minimal, cannot continue recovering")]
    WalLevelMinimal,
    /// A file recovery depends on.
    #[error("could not access file \"{path}\": {source}")]
    File {
        /// File.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that does not parse.
    #[error("invalid data in file \"{path}\": {what}")]
    BadFile {
        /// File.
        path: String,
        /// What is wrong.
        what: &'static str,
    },
}

impl RecoveryError {
    /// A file could not grow: trying again helps once there is room.
    pub fn is_disk_full(&self) -> bool {
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            let io = error.downcast_ref::<std::io::Error>().or_else(|| error.downcast_ref::<Arc<std::io::Error>>().map(AsRef::as_ref));
            if let Some(io) = io {
                return matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
            }
            next = error.source();
        }
        false
    }

    /// Replay must not go on, though nothing is broken: the node stops and says so.
    pub fn refuses_more(&self) -> bool {
        matches!(self, Self::WalLevelMinimal)
    }
}
