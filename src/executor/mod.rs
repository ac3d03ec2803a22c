//! `executor`: see docs/ARCHITECTURE.md.
