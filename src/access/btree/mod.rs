//! B-tree (Lehman and Yao, "Efficient Locking for Concurrent Operations on B-Trees") over byte-comparable keys with the tid as tie-break.
//!
//! Here: [`create`], [`build`](fn@build), [`insert`](fn@insert), [`Scan`], [`vacuum`](fn@vacuum), [`verify`](fn@verify), [`redo`](fn@redo). Keys are opaque bytes; `sql::types::key` makes
//! them. Each node has a right link and both its fences, so a search finds out by itself that a node was split, merged or
//! reused meanwhile; no lock is held on the tree, and a search holds one latch at a time. `node` draws a page, `descend` says
//! why links may be out of date, `insert` gives the order of latches, `record` lists the WAL records.
//!
//! Relies on: one vacuum per index at a time; every statement that inserts has a registered snapshot (blocks of deleted nodes are
//! reused behind the removal horizon); keys of a unique index are prefix-free.
//!
//! An entry may carry bytes besides its key, for scans that need not look at the row ([`Item`]). They decide nothing.
//!
//! PostgreSQL: access/nbtree. Differences: no meta page (the root stays at block 0), no left links (a backward scan descends once per leaf),
//! fences at both ends, page-wide prefix compression instead of posting lists.

mod alloc;
mod build;
mod descend;
mod insert;
mod node;
mod record;
pub mod redo;
mod scan;
mod sort;
#[cfg(test)]
pub(in crate::access) mod tests;
mod vacuum;
mod verify;

pub use build::{BuildOptions, Built, SortedEntries, SortedEntry, UniquePart, build, create};
pub use insert::{Inserted, LEAF_FILL, Liveness, UniqueProbe, find_duplicate, find_other, insert};
pub use node::{Item, MAX_KEY_BYTES, mask_page};
pub use record::DescribeBtree;
pub use redo::{conflict_horizon, redo};
pub use scan::{Direction, KeyRange, Scan, ScanOptions, successor};
pub use sort::{OpenScratch, Scratch, Sorted, Sorter};
pub use vacuum::{VacuumStats, count_entries, vacuum};
pub use verify::{Verified, Visit, verify};
