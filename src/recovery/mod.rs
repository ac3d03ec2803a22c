//! `recovery`: see docs/ARCHITECTURE.md.
