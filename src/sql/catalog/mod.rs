//! `sql::catalog`: see docs/ARCHITECTURE.md.
