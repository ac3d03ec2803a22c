//! Pages in memory and on disk: page layout, buffer pool, double-write area, relation files, free space and visibility maps.
//!
//! Promises: no page reaches its file before the WAL that made it is durable, nor before a copy of it is durable in the
//! double-write area; every page read from disk verified its checksum.

pub mod backup_images;
pub mod buffer_pool;
pub mod critical;
pub mod database;
pub mod double_write;
pub mod error;
pub mod files;
pub mod fsm;
pub mod missing;
pub mod page;
pub mod repair;
pub mod smgr_redo;
pub mod unlogged;
pub mod vm;

pub use buffer_pool::{Buffer, BufferPool, LoggedImages, OwnedRead, OwnedWrite, PageRead, PageTag, PageWrite, PoolOptions};
pub use critical::CriticalSection;
pub use error::StorageError;
pub use files::Files;
pub use page::{LinePointer, PAGE_SIZE, Page};

#[cfg(test)]
mod tests;
