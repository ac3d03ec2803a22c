//! `sql::bind`: see docs/ARCHITECTURE.md.
