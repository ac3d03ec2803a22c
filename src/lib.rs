//! Afterimage: a PostgreSQL-compatible server built around physical replication.
//!
//! The folders are the way of a statement; `docs/ARCHITECTURE.md` draws it.
#![forbid(unsafe_code)]

pub mod access;
pub mod cli;
pub mod config;
pub mod control;
pub mod engine;
pub mod executor;
pub mod recovery;
pub mod replication;
pub mod session;
pub mod sql;
pub mod sqlstate;
pub mod stack;
pub mod storage;
pub mod txn;
pub mod wire;
