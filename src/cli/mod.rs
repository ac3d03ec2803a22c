//! `cli`: see docs/ARCHITECTURE.md.

pub mod basebackup;
