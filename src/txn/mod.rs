//! `txn`: see docs/ARCHITECTURE.md.
