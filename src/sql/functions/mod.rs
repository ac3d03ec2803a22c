//! `sql::functions`: see docs/ARCHITECTURE.md.
