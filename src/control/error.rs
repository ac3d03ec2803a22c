//! Failures of checkpoints and of the control file.

use afterimage_wal::WalError;

use crate::{storage::StorageError, txn::TxnError};

/// Failures of checkpoints and of the control file.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Pages or files.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// WAL or control file.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// Transaction status.
    #[error(transparent)]
    Txn(#[from] TxnError),
    /// A local file of a checkpoint.
    #[error("could not write file \"{path}\": {source}")]
    File {
        /// File.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A checkpoint somebody waited for failed.
    #[error("checkpoint request failed")]
    RequestFailed {
        /// Why, as logged.
        why: String,
    },
    /// The checkpointer has ended.
    #[error("the database system is shutting down")]
    ShuttingDown,
}
