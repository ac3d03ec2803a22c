//! `replication`: see docs/ARCHITECTURE.md.
