//! What can go wrong in a transaction.

use afterimage_wal::WalError;
use afterimage_wal::ids::{Lsn, Xid};

use super::cancel::CancelReason;
use crate::storage::StorageError;

/// Failures of transactions and locks.
#[derive(Debug, thiserror::Error)]
pub enum TxnError {
    /// A cycle of waits; this waiter was chosen to give up. `detail` has PostgreSQL's text, one line per wait.
    #[error("deadlock detected")]
    Deadlock {
        /// One line per edge of the cycle.
        detail: String,
    },
    /// `lock_timeout` passed.
    #[error("canceling statement due to lock timeout")]
    LockTimeout,
    /// A lock asked for with NOWAIT is held.
    #[error("could not obtain lock")]
    LockNotAvailable,
    /// The session was told to stop what it does.
    #[error("{}", .0.message())]
    Cancelled(CancelReason),
    /// REPEATABLE READ met a row changed by a later commit.
    #[error("could not serialize access due to concurrent {0}")]
    Serialization(&'static str),
    /// SERIALIZABLE: no serial order would give what was read. `detail` has PostgreSQL's reason code.
    #[error("could not serialize access due to read/write dependencies among transactions")]
    Dependencies {
        /// Why it was this transaction, and when.
        detail: String,
    },
    /// SERIALIZABLE, by default, on a standby.
    #[error("cannot use serializable mode in a hot standby")]
    SerializableInRecovery,
    /// `PREPARE TRANSACTION` with an identifier that is taken.
    #[error("transaction identifier \"{0}\" is already in use")]
    GidInUse(String),
    /// More prepared transactions than `max_prepared_transactions`.
    #[error("maximum number of prepared transactions reached")]
    TooManyPrepared(usize),
    /// What it did cannot wait for another session.
    #[error("cannot PREPARE {0}")]
    CannotPrepare(&'static str),
    /// COMMIT PREPARED or ROLLBACK PREPARED while another session does one of them.
    #[error("prepared transaction with identifier \"{0}\" is busy")]
    PreparedBusy(String),
    /// A state file of a prepared transaction that does not decode.
    #[error("corrupted two-phase state file {path}")]
    BadTwoPhaseFile {
        /// Which file.
        path: std::path::PathBuf,
    },
    /// A write, or something that needs an xid, on a standby.
    #[error("cannot {0} during recovery")]
    InRecovery(&'static str),
    /// A write in a read-only transaction.
    #[error("cannot execute {0} in a read-only transaction")]
    ReadOnly(&'static str),
    /// A savepoint that does not exist.
    #[error("savepoint \"{0}\" does not exist")]
    NoSuchSavepoint(String),
    /// More than 2^32-2 commands in one transaction.
    #[error("cannot have more than 2^32-2 commands in a transaction")]
    TooManyCommands,
    /// An xid whose status is no longer kept, or not yet assigned: a page is damaged.
    #[error("could not access status of transaction {0}")]
    StatusMissing(Xid),
    /// A commit, abort or status record that does not decode.
    #[error("invalid transaction record ending at {0}")]
    BadRecord(Lsn),
    /// The node stops while the session waits for its commit to be durable; its outcome is unknown to the client.
    #[error("the server stopped before the commit at {0} was confirmed")]
    CommitUnknown(Lsn),
    /// The session was told to stop while its commit waited for the standbys; its outcome is unknown to the client.
    #[error("{}", unconfirmed(*.0))]
    Unconfirmed(CancelReason),
    /// A status file could not be read or written.
    #[error("could not access file \"{}\": {source}", path.display())]
    StatusFile {
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The WAL failed.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// PostgreSQL: `SyncRepWaitForLSN`.
fn unconfirmed(reason: CancelReason) -> &'static str {
    if reason.ends_session() {
        "canceling the wait for synchronous replication and terminating connection due to administrator command"
    } else {
        "canceling wait for synchronous replication due to user request"
    }
}
