//! Failures of storage.

use std::{io, path::PathBuf};

use afterimage_wal::{BlockNo, Fork, Lsn, RelId, WalError};

/// Failures of pages, buffers and relation files.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A page does not verify: torn outside recovery, a flipped bit, written to the wrong place.
    #[error("invalid page in block {block} of relation {path}")]
    BadPage {
        /// Relation.
        rel: RelId,
        /// Fork.
        fork: Fork,
        /// Block.
        block: BlockNo,
        /// The relation's file, relative to the data directory.
        path: String,
        /// Checksum found on the page.
        stored: u32,
        /// Checksum of what was read.
        computed: u32,
    },
    /// A block that should be there is past the end of the file.
    #[error("could not read block {block} in file \"{path}\": the relation has {blocks} blocks")]
    MissingBlock {
        /// Block.
        block: BlockNo,
        /// The relation's file, relative to the data directory.
        path: String,
        /// Blocks there are.
        blocks: u32,
    },
    /// Redo met blocks that are missing or zero and no later record explained them.
    #[error("WAL contains references to invalid pages: block {block} of relation {path} and {others} others")]
    UnexplainedBlocks {
        /// First of them.
        block: BlockNo,
        /// Its file.
        path: String,
        /// How many more.
        others: usize,
    },
    /// A relation has no file.
    #[error("could not open file \"{path}\": {source}")]
    Open {
        /// File, relative to the data directory.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A relation has a segment behind one that is not full.
    #[error("could not open file \"{path}\": previous segment is only {blocks} blocks")]
    ShortSegment {
        /// The segment that follows.
        path: String,
        /// Blocks in the one before.
        blocks: u32,
    },
    /// Reading, writing or resizing a file failed.
    #[error("could not {what} file \"{path}\": {source}")]
    Io {
        /// "read", "write", "extend", "truncate", "remove".
        what: &'static str,
        /// File, relative to the data directory.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Reading or writing a page failed.
    #[error("could not {what} block {block} in file \"{path}\": {source}")]
    Block {
        /// "read" or "write".
        what: &'static str,
        /// Block.
        block: BlockNo,
        /// File, relative to the data directory.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A sync failed. The kernel may have dropped the pages: the node stops and recovers from the WAL.
    #[error("could not fsync file \"{path}\": {source}")]
    Sync {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A relation would exceed 2^32 - 2 blocks.
    #[error("cannot extend relation {path} beyond {limit} blocks")]
    TooLong {
        /// The relation's file.
        path: String,
        /// The limit.
        limit: u32,
    },
    /// Every buffer is pinned.
    #[error("no unpinned buffers available")]
    NoBuffer,
    /// A page claims an LSN the WAL has not reached: this data directory's WAL is not the one that wrote the page.
    #[error("page {block} of relation {path} has LSN {lsn}, but the WAL ends at {end}")]
    PageAheadOfWal {
        /// Block.
        block: BlockNo,
        /// The relation's file.
        path: String,
        /// Page LSN.
        lsn: Lsn,
        /// End of inserted WAL.
        end: Lsn,
    },
    /// A record of ours that cannot be understood.
    #[error("WAL record at {at}: {what}")]
    BadRecord {
        /// Where it starts.
        at: Lsn,
        /// What is wrong.
        what: &'static str,
    },
    /// One of our files is not what it should be.
    #[error("file \"{path}\": {what}")]
    BadFile {
        /// File.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// The WAL below failed.
    #[error(transparent)]
    Wal(#[from] WalError),
}
