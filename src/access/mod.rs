//! Access methods: how rows and keys lie on pages.

pub mod btree;
pub mod ctx;
pub mod heap;
pub mod sequence;

pub use ctx::AccessCtx;
