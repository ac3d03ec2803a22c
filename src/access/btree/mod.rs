//! `btree` access method.
