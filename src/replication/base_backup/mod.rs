//! `BASE_BACKUP`: the data directory as a tar stream, consistent once the WAL up to its end is replayed.
//!
//! [`options`] says what was asked for, [`archive`] reads files and pages and writes tar, [`encoder`] compresses it, [`serve`] speaks the protocol.
//! [`file_copy`] is the other kind, where somebody else copies the files; [`label`] is what both leave in writing.
//! A backup starts with a checkpoint; recovery of the copy starts at its redo point and is consistent at the end position,
//! which lies beyond every page LSN and hint LSN that was copied.
//!
//! PostgreSQL: backup/basebackup.c, backup/basebackup_copy.c.

pub mod archive;
pub mod encoder;
pub mod file_copy;
pub mod label;
pub mod options;
pub mod parallel;
pub mod serve;

pub use options::{BackupOptions, Compression, Target};
