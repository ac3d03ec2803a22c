//! A row version's header.
