//! `sql::parse`: see docs/ARCHITECTURE.md.
