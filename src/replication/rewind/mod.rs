//! Rewind: makes a data directory that has WAL its new upstream does not have follow that upstream again.
//!
//! It is an incremental base backup. A block of the target stays only if both sides hold it with the same page LSN, that LSN and the
//! target's newest hint LSN are at or below the fork, and its checksum is right; everything else is made like the source's. Recovery
//! of the result starts at the redo point the source's control file named before the first file was read, so every change older
//! than that was in the files, and every younger one is in the WAL that is copied along. The target's own WAL is not
//! needed, nor a clean shutdown of it, and a rewind that was cut off is run again:
//!
//! 1. [`marker`] is written, durably: from here the directory does not start.
//! 2. Files and directories only the target has are removed.
//! 3. Blocks, files and WAL are copied; everything is synced.
//! 4. `backup_label`, then `global/pg_control` (the source's, with the end position as least end of recovery), then the marker goes.
//!
//! The fork is where the two histories part; if a node lost a tail under the same timeline, start ids tell it, and if what is left of the
//! WAL does not, everything is copied.
//!
//! [`source`] reads the other side, a stopped directory or a live server; [`files`] lists and classifies; [`run`](fn@run) does the steps.
//!
//! PostgreSQL: bin/pg_rewind, which reads the target's WAL instead to learn which blocks changed since the last common checkpoint.

pub mod error;
pub mod files;
pub mod marker;
pub mod run;
pub mod source;

pub use error::RewindError;
pub use run::{Observer, Options, Outcome, Quiet, Step, run};
pub use source::Source;
