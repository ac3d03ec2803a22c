//! `control`: see docs/ARCHITECTURE.md.
