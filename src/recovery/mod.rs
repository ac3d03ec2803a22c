//! Recovery: one redo loop for crash recovery, base backups and standbys.
//!
//! What it promises: after it, every page holds exactly what the WAL up to the replayed position says. It reads records forward from the
//! redo point, hands each to the layer that wrote it, and publishes how far it is. Redo is idempotent by page LSN, so it may be
//! repeated from any earlier redo point. What it relies on: `wal::reader` tells the torn tail of a crash from damage; the buffer pool
//! lets no page reach disk before its WAL and its copy in the double-write area. The whole story: `docs/recovery.md`.

pub mod backup_label;
pub mod conflict;
pub mod dispatch;
pub mod error;
pub mod prefetch;
pub mod progress;
pub mod replay;
pub mod restore;
pub mod start;
pub mod target;

pub use error::RecoveryError;
pub use prefetch::PrefetchSettings;
pub use progress::{Ending, Progress};
pub use replay::{Replay, ReplaySettings};
