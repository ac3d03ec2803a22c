//! `afterimage basebackup`, and `pg_basebackup` when called by that name: copies a running node.
//!
//! `options` is the command line, as PostgreSQL 15's; `run` talks to the server and hands each archive to a thread of its own, which unpacks it
//! or writes it as tar (`unpack`, `tarball`); a second connection streams the WAL written meanwhile (`wal`).
//! On a failure what was made is removed again. PostgreSQL: bin/pg_basebackup/pg_basebackup.c.

mod options;
mod progress;
mod run;
mod tarball;
mod unpack;
mod wal;

pub use options::{Destination, Options, Refusal, WalMethod};
pub use run::{BackupError, Summary, run};
