//! Transactions: who did what, who may see it, who waits for whom.
//!
//! - [`Transactions`]: one per node. Assigns xids, keeps their status ([`xact_status`]) and commit LSNs ([`commit_lsns`]),
//!   the visible positions and the queue of commits that wait for them ([`positions`]), and the removal horizon.
//! - [`Proc`]: one per session. What others see of it: xid, oldest snapshot, what it waits for.
//! - [`Transaction`]: owned by a session; dropping it aborts.
//! - [`Snapshot`]: one commit LSN, plus the own changes up to a command.
//! - [`Serializable`]: what a SERIALIZABLE transaction has read and whom it conflicts with.
//! - [`LockManager`]: table, object, row and advisory locks, deadlock detection.
//!
//! Visibility: look at the status first, then at the commit LSN. Writers publish in the opposite order: commit record,
//! commit LSN, status, then the positions advance (architecture 5).

pub mod cancel;
pub mod commit_lsns;
mod conflicts;
pub mod deadlock;
pub mod error;
pub mod exported;
pub mod locks;
pub mod positions;
pub mod proc;
pub mod record;
pub mod redo;
pub mod serializable;
pub mod snapshot;
pub mod standby;
pub mod table_stats;
pub mod transaction;
pub mod transactions;
pub mod two_phase;
pub mod wait;
pub mod xact_status;

pub use cancel::{CancelFlag, CancelReason, Conflict};
pub use conflicts::Conflicts;
pub use error::TxnError;
pub use exported::ExportedSnapshot;
pub use locks::{LockManager, LockMode, LockTag, Locked, RowLockMode, WaitPolicy};
pub use positions::{CommitLevel, CommitWait, Positions, SyncPositions};
pub use proc::{LockLog, Proc, ProcId};
pub use record::Invalidation;
pub use serializable::{Mark, MarkLimits, Serializable};
pub use snapshot::{InTablespace, OnPage, OwnXids, Snapshot};
pub use standby::Need;
pub use table_stats::{TableKey, TableStats, VacuumProgress};
pub use transaction::{Isolation, SavepointMark, Transaction, TransactionOptions};
pub use transactions::{CheckpointXids, Transactions, TransactionsStart, XidStatus};
pub use two_phase::Prepared;
pub use wait::blocking;
