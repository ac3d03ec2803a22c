//! `config`: see docs/ARCHITECTURE.md.
