//! The write-ahead log: one sequence of bytes, addressed by [`Lsn`], the same on every node that holds it.
//!
//! What it promises:
//! - [`Wal::insert`] gives a record its place; records become readable in order ([`Wal::published`]) and durable in order
//!   ([`Wal::flushed`]): `flushed <= published <= inserted`, all exclusive ends.
//! - A record that verifies at its LSN was inserted at that LSN by a writer of this cluster, and nothing of a segment's previous life does.
//! - A failed sync is final.
//! - [`reader::WalReader`] says why it stopped, and [`reader::judge`] whether that is the torn tail of a crash or damage to what was durable.
//!
//! What it relies on: records are understood by the layers above; this crate knows no SQL, no sockets, no page layout.
//! How the bytes lie: `docs/wal-format.md`, [`format`](mod@format).

pub mod control_file;
pub mod disk;
pub mod dump;
pub mod error;
mod flush;
pub mod format;
pub mod history;
pub mod ids;
mod insert;
pub mod lineage;
#[expect(unsafe_code, reason = "mapped files; each block says what it relies on")]
mod mmap;
pub mod reader;
mod receive;
pub mod record;
pub mod rmgr;
pub mod segment;

pub use error::WalError;
pub use flush::{FLUSHED_BYTES, FLUSHED_FILE, FlushedMark};
pub use ids::{BlockNo, Fork, Lsn, LsnRange, Oid, RelId, SegNo, StartId, SystemId, TimelineId, Xid};
pub use insert::{FailureHandler, Listener, Positions, StallHandler, SyncFollower, Wal, WalEnd, WalOptions, WalStats};
pub use reader::{ReadStop, StopReason, WalReader};
pub use receive::StreamCheck;
pub use record::{BlockRef, Record, RecordBuf, RecordBuilder};
