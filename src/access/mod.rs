//! Access methods: how rows and keys lie on pages.

pub mod btree;
pub mod heap;
pub mod sequence;
