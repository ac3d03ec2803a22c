//! `sql::plan`: see docs/ARCHITECTURE.md.
