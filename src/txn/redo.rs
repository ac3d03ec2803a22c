//! Redo of commit and abort records.

use afterimage_wal::Record;
use afterimage_wal::ids::{Oid, Xid};

use super::error::TxnError;
use super::record::{Decision, KIND_ABORT, KIND_ABORT_PREPARED, KIND_COMMIT, KIND_COMMIT_PREPARED, KIND_PREPARE, KIND_TRIM};
use super::transactions::Transactions;
use super::two_phase::PreparedState;

/// Applies a record of resource manager `XACT`.
///
/// # Errors
/// [`TxnError::BadRecord`] if it does not decode.
pub fn redo(txns: &Transactions, record: &Record<'_>) -> Result<(), TxnError> {
    let bad = || TxnError::BadRecord(record.end());
    let commit = match record.kind() {
        KIND_COMMIT | KIND_COMMIT_PREPARED => true,
        KIND_ABORT | KIND_ABORT_PREPARED => false,
        KIND_PREPARE => {
            let state = PreparedState::decode(record.main(), record.xid()).ok_or_else(bad)?;
            return txns.add_recovered(record.xid(), state, record.end());
        }
        KIND_TRIM => return txns.redo_trim(trimmed_below(record).ok_or_else(bad)?),
        _ => return Err(bad()),
    };
    let d = Decision::decode(record.main(), record.xid()).ok_or_else(bad)?;
    txns.redo_decision(record.xid(), &d, commit, record.end())
}

/// The database that a commit drops.
pub fn dropped_database(record: &Record<'_>) -> Option<Oid> {
    if !matches!(record.kind(), KIND_COMMIT | KIND_COMMIT_PREPARED) {
        return None;
    }
    let decision = Decision::decode(record.main(), record.xid())?;
    decision.drops.iter().find(|rel| rel.is_database()).map(|rel| rel.db)
}

fn trimmed_below(record: &Record<'_>) -> Option<Xid> {
    Some(Xid::from_le_bytes(record.main().try_into().ok()?))
}

/// Shows commit and abort records in `waldump`.
#[derive(Debug)]
pub struct DescribeXact;

impl afterimage_wal::rmgr::Describe for DescribeXact {
    fn kind_name(&self, kind: u8) -> Option<&'static str> {
        match kind {
            KIND_COMMIT => Some("COMMIT"),
            KIND_ABORT => Some("ABORT"),
            KIND_PREPARE => Some("PREPARE"),
            KIND_COMMIT_PREPARED => Some("COMMIT_PREPARED"),
            KIND_ABORT_PREPARED => Some("ABORT_PREPARED"),
            KIND_TRIM => Some("TRIM"),
            _ => None,
        }
    }

    fn describe(&self, record: &Record<'_>, out: &mut dyn std::fmt::Write) -> std::fmt::Result {
        if record.kind() == KIND_TRIM {
            return match trimmed_below(record) {
                Some(xid) => write!(out, "oldest xid {xid}"),
                None => write!(out, "does not decode"),
            };
        }
        if record.kind() == KIND_PREPARE {
            return match PreparedState::decode(record.main(), record.xid()) {
                None => write!(out, "does not decode"),
                Some(s) => write!(out, "gid {}; time {}; subxacts: {}; locks: {}", s.gid, s.time, s.commit.subs.len(), s.locks.len()),
            };
        }
        let Some(d) = Decision::decode(record.main(), record.xid()) else {
            return write!(out, "does not decode");
        };
        write!(out, "time {}", d.time)?;
        if !d.subs.is_empty() {
            write!(out, "; subxacts:")?;
            for x in &d.subs {
                write!(out, " {x}")?;
            }
        }
        if !d.drops.is_empty() {
            write!(out, "; rels:")?;
            for r in &d.drops {
                write!(out, " {r}")?;
            }
        }
        if !d.invalidations.is_empty() {
            write!(out, "; inval msgs: {}", d.invalidations.len())?;
        }
        Ok(())
    }
}
