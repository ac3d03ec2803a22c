//! `sql::types`: see docs/ARCHITECTURE.md.
