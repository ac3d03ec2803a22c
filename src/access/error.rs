//! What can go wrong in an access method.

use afterimage_wal::WalError;
use afterimage_wal::ids::{BlockNo, Lsn, RelId};

use crate::access::Tid;
use crate::storage::StorageError;
use crate::txn::TxnError;

/// Failures of heap, btree and sequences.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A row longer than a page holds.
    #[error("row is too big: size {size}, maximum size {max}")]
    RowTooBig {
        /// Bytes with header.
        size: usize,
        /// Bytes that fit.
        max: usize,
    },
    /// An index key longer than a third of a page. `size` and `max` as PostgreSQL's message has them.
    #[error("index row size {size} exceeds btree version 4 maximum {max}")]
    KeyTooBig {
        /// Bytes of the key.
        size: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// `tid` names no row version: an index and its table disagree, or a caller is wrong.
    #[error("no row version at {tid} in relation {rel}")]
    NoSuchRow {
        /// The relation's files.
        rel: RelId,
        /// The row version asked for.
        tid: Tid,
    },
    /// More in temporary files than a session may have.
    #[error("temporary file size exceeds temp_file_limit ({limit}kB)")]
    TempFileLimit {
        /// What it may have, in kB.
        limit: u64,
    },
    /// The version is not visible to the statement that wants to change it.
    #[error("attempted to change invisible tuple")]
    Invisible,
    /// A page of an index or heap breaks its structure though its checksum is right.
    #[error("block {block} of relation {rel} is damaged: {what}")]
    Damaged {
        /// The relation's files.
        rel: RelId,
        /// The block.
        block: BlockNo,
        /// What was found.
        what: &'static str,
    },
    /// A record that does not decode, or does not fit its page.
    #[error("redo of the record ending at {at}: {what}")]
    BadRecord {
        /// The record's end.
        at: Lsn,
        /// What was found.
        what: &'static str,
    },
    /// A sequence ran past its bound. `max` tells which.
    #[error("sequence exhausted")]
    SequenceExhausted {
        /// At its maximum (else at its minimum).
        max: bool,
        /// The bound.
        bound: i64,
    },
    /// The transaction or a lock failed.
    #[error(transparent)]
    Txn(#[from] TxnError),
    /// The WAL failed.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
