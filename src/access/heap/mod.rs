//! Heap: row versions in place, HOT chains, pruning, vacuum.
//!
//! A row version is 28 bytes of header ([`mod@tuple`]) and the row, opaque here. An update writes a new version and links the old one to it; if
//! the new one fits on the same page and no indexed column changed it is heap-only: index entries keep pointing to the chain's root.
//! Row bytes are looked at, or copied, under the page latch; nobody keeps a place inside a page without it, so pruning needs the
//! exclusive latch and nothing more.
//!
//! PostgreSQL: access/heap/README.HOT, heapam.c, pruneheap.c, vacuumlazy.c.

pub mod change;
pub mod fetch;
pub mod log;
mod prune;
pub mod redo;
mod rewrite;
pub mod scan;
pub mod tuple;
pub mod vacuum;
pub mod verify;
mod visibility;

pub use change::{
    ChangeOptions, ChangeResult, PassingLock, UpdateOptions, delete, insert, lock_row, multi_insert, overwrite_in_place, queue_tag,
    row_tag, speculative_tag, update,
};
pub use fetch::{
    HastyProbe, Latest, Liveness, Probe, fetch, fetch_exact, fetch_latest, is_dead_to_all, liveness, row_bytes, versions_of,
    wait_for_writer,
};
pub use rewrite::{AllVersions, Kept, PlacedVersion, Rewrite, RewriteCounts, read_version};
pub use scan::{BuildRow, BuildScanned, HeapScan, Versions, build_scan};
pub use vacuum::{DeadTids, IndexCleanup, VacuumOptions, VacuumStats, Watch, vacuum, vacuum_watched};
pub use verify::{Finding, may_be_indexed, verify_page};

#[cfg(test)]
mod tests;
