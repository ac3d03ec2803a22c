//! SERIALIZABLE: serializable snapshot isolation (Cahill, Röhm, Fekete 2008; Ports and Grittner 2012, as PostgreSQL does it).
//!
//! A transaction reads at its snapshot and takes no lock that anybody waits for. Instead it leaves a mark on all it reads (`marks`): row,
//! page, table, or range of index keys. A serializable writer that meets another's mark, and a reader that meets a version written by
//! a serializable transaction it does not see, record a *read-write conflict*: the reader comes before the writer in any serial order
//! (`graph`). Every anomaly holds two such conflicts in a row, `T0 -> pivot -> T2`, with T2 the first of the three to commit; where that
//! is about to come true, one of them fails with 40001.
//!
//! **With commit LSNs.** Two transactions are concurrent if neither's commit LSN is at or below the other's snapshot. That is one rule for
//! a commit in flight, one that waits for its standby, and one that is long readable: what a snapshot does not see it is concurrent with.
//! A finished transaction is forgotten once no serializable snapshot, running or to come, lies below its commit.
//!
//! **No latch is needed twice.** A reader marks, then reads (for a single row: both under the page latch); a writer changes the page, then
//! looks for marks. One of the two meets the other. Ranges of keys, not pages, are marked in an index, so splits and merges of its
//! pages need nothing.
//!
//! **Memory.** Marks move up, row to page to table, at PostgreSQL's thresholds (`max_pred_locks_per_page`, `_per_relation`,
//! `_per_transaction`), ranges to the whole index likewise. Beyond some thousand, the oldest finished transactions are summed up in one.

mod graph;
mod marks;
#[cfg(test)]
mod tests;

pub use graph::{MarkInfo, Serializable, SerializableNode};
pub use marks::{Mark, MarkLimits};
