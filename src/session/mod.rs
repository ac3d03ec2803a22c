//! `session`: see docs/ARCHITECTURE.md.
