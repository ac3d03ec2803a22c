//! Who sees a row version: the status first, then the commit LSN.

use afterimage_wal::ids::{Lsn, Xid};

use super::tuple::{Header, mask};
use crate::access::{AccessError, Persistence, RelHandle, Tid};
use crate::txn::{Snapshot, Transaction, Transactions, TxnError, XidStatus};

/// Status lookups with a memory of the last few: neighbouring versions mostly share their xids, those that made and those that ended them.
pub(super) struct Lookup<'a> {
    pub(super) txns: &'a Transactions,
    last: [(Xid, XidStatus); KNOWN],
    /// The versions are a temporary table's: no other session has a snapshot that sees them.
    local: bool,
}

/// Xids remembered, each in the place that its number gives it.
const KNOWN: usize = 4;

impl<'a> Lookup<'a> {
    pub(super) fn new(txns: &'a Transactions) -> Self {
        Self { txns, last: [(Xid::INVALID, XidStatus::Aborted); KNOWN], local: false }
    }

    /// Of a table's versions.
    pub(super) fn of(txns: &'a Transactions, rel: &RelHandle) -> Self {
        Self { local: rel.persistence == Persistence::Temporary, ..Self::new(txns) }
    }

    #[inline]
    pub(super) fn status(&mut self, xid: Xid) -> Result<XidStatus, TxnError> {
        let known = &mut self.last[usize::try_from(xid.as_u64()).unwrap_or(0) % KNOWN];
        if known.0 == xid {
            return Ok(known.1);
        }
        let s = self.txns.xid_status(xid)?;
        // A running one may be decided by the next look; within one page it makes no difference to a snapshot.
        *known = (xid, s);
        Ok(s)
    }

    #[inline]
    pub(super) fn xmin(&mut self, h: &Header) -> Result<XidStatus, TxnError> {
        if h.has(mask::FROZEN) || (h.has(mask::XMIN_COMMITTED) && self.txns.is_settled(h.xmin)) {
            return Ok(XidStatus::Committed(Lsn::INVALID));
        }
        if h.has(mask::XMIN_ABORTED) {
            return Ok(XidStatus::Aborted);
        }
        self.status(h.xmin)
    }

    /// `None`: not ended.
    #[inline]
    pub(super) fn xmax(&mut self, h: &Header) -> Result<Option<XidStatus>, TxnError> {
        if !h.xmax.is_valid() || h.has(mask::XMAX_ABORTED) {
            return Ok(None);
        }
        if h.has(mask::XMAX_COMMITTED) && self.txns.is_settled(h.xmax) {
            return Ok(Some(XidStatus::Committed(Lsn::INVALID)));
        }
        Ok(match self.status(h.xmax)? {
            XidStatus::Aborted => None,
            s @ (XidStatus::Running | XidStatus::Committed(_)) => Some(s),
        })
    }

    /// Whether `snapshot` sees the version.
    #[inline]
    pub(super) fn visible(&mut self, h: &Header, snapshot: &Snapshot) -> Result<bool, TxnError> {
        if let Some(own) = snapshot.own() {
            if own.contains(h.xmin) && !h.has(mask::FROZEN) {
                let (cmin, cmax) = cids(h, own);
                if cmin >= snapshot.cid() {
                    return Ok(false);
                }
                return Ok(match h.xmax {
                    Xid::INVALID => true,
                    x if own.contains(x) => cmax >= snapshot.cid(),
                    // Another's xmax on a version of our own: only after this transaction committed, so not for this snapshot.
                    // Or a rolled back savepoint's, which is no longer among the own.
                    _ => true,
                });
            }
            if own.contains(h.xmax) {
                return Ok(self.sees(h, snapshot)? && cids(h, own).1 >= snapshot.cid());
            }
        }
        if !self.sees(h, snapshot)? {
            return Ok(false);
        }
        Ok(!matches!(self.xmax(h)?, Some(XidStatus::Committed(lsn)) if lsn <= snapshot.lsn()))
    }

    /// The transaction that made, or ended, a version and that `snapshot` does not see; `seen`: whether it sees the version.
    pub(super) fn unseen_writer(&mut self, h: &Header, snapshot: &Snapshot, seen: bool) -> Result<Option<Xid>, TxnError> {
        let own = |x: Xid| snapshot.own().is_some_and(|o| o.contains(x));
        let (xid, status) = if seen {
            (h.xmax, self.xmax(h)?)
        } else if h.has(mask::FROZEN) {
            (h.xmin, None)
        } else {
            (h.xmin, Some(self.xmin(h)?))
        };
        let unseen = match status {
            Some(XidStatus::Running) => true,
            Some(XidStatus::Committed(lsn)) => lsn > snapshot.lsn(),
            Some(XidStatus::Aborted) | None => false,
        };
        Ok((unseen && !own(xid)).then_some(xid))
    }

    #[inline]
    fn sees(&mut self, h: &Header, snapshot: &Snapshot) -> Result<bool, TxnError> {
        Ok(matches!(self.xmin(h)?, XidStatus::Committed(lsn) if lsn <= snapshot.lsn()))
    }

    /// What removal makes of the version.
    pub(super) fn fate(&mut self, h: &Header) -> Result<Fate, TxnError> {
        Ok(match self.xmin(h)? {
            XidStatus::Running => Fate::InProgress,
            XidStatus::Aborted => Fate::Dead { ended: Lsn::INVALID, known: true },
            XidStatus::Committed(made) => match self.xmax(h)? {
                None => Fate::Live { made },
                Some(XidStatus::Committed(lsn)) if self.local || self.txns.is_removable(lsn) => {
                    Fate::Dead { ended: lsn, known: lsn.is_valid() }
                }
                Some(XidStatus::Committed(_)) => Fate::RecentlyDead,
                Some(XidStatus::Running | XidStatus::Aborted) => Fate::BeingEnded,
            },
        })
    }
}

/// A version, as far as its removal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nobody can see it. `ended`: where its end committed, INVALID if it was never seen by anyone, or, with `known` false, long ago.
    Dead { ended: Lsn, known: bool },
    /// Ended, but some snapshot may still see it.
    RecentlyDead,
    /// Committed at `made` and not ended.
    Live { made: Lsn },
    /// Its maker runs.
    InProgress,
    /// Its ender runs.
    BeingEnded,
}

/// (cmin, cmax) of a version of which `own` made or ended at least one.
fn cids(h: &Header, own: &crate::txn::snapshot::OwnXids) -> (u32, u32) {
    if h.has(mask::COMBO_CID) { own.split(h.cid).unwrap_or((0, 0)) } else { (h.cid, h.cid) }
}

/// The command in which this transaction made the version; `None`: it did not.
pub(super) fn made_at(txn: &Transaction, h: &Header) -> Option<u32> {
    txn.own().filter(|own| own.contains(h.xmin) && !h.has(mask::FROZEN)).map(|own| cids(h, own).0)
}

/// The cid and mask for ending a version with command `cid`. The command that made it may end it too (INSERT ... ON CONFLICT does when it was
/// too late): one id then stands for both, by which others can tell.
pub(super) fn end_cid(h: &Header, txn: &Transaction, cid: u32) -> (u32, u16) {
    match (made_at(txn, h), txn.own()) {
        (Some(made), Some(own)) if made != cid => (own.combine(made, cid), mask::COMBO_CID),
        (Some(_) | None, Some(_) | None) => (cid, 0),
    }
}

/// Whether a transaction may change a version now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Yes.
    Free,
    /// Its maker is not done, or later than the statement.
    Invisible,
    /// Ended by this transaction at or after the statement's command.
    SelfModified { same_command: bool },
    /// Ended by a finished transaction.
    Ended { next: Tid, by: Xid, keys_changed: bool },
    /// Being ended by a running transaction, or one whose level is not reached, or above this session's position.
    Busy { by: Xid, keys_changed: bool, next: Tid },
}

/// Decides whether `txn`, in a statement of command `cid`, may change the version.
pub(super) fn judge(txn: &Transaction, h: &Header, cid: u32) -> Result<Verdict, AccessError> {
    let txns = txn.transactions();
    let mut look = Lookup::new(txns);
    match made_at(txn, h) {
        Some(made) if made >= cid => return Ok(Verdict::Invisible),
        Some(_) => {}
        None => match look.xmin(h)? {
            // Seen at a lower level than its maker waits for: its maker holds it still.
            XidStatus::Committed(lsn) if txns.is_waiting(lsn) => {
                return Ok(Verdict::Busy { by: h.xmin, keys_changed: true, next: h.next });
            }
            XidStatus::Committed(_) => {}
            XidStatus::Running | XidStatus::Aborted => return Ok(Verdict::Invisible),
        },
    }
    if !h.xmax.is_valid() {
        return Ok(Verdict::Free);
    }
    if txn.owns(h.xmax) {
        let cmax = txn.own().map_or(0, |own| cids(h, own).1);
        return Ok(if cmax >= cid { Verdict::SelfModified { same_command: cmax == cid } } else { Verdict::Invisible });
    }
    let busy = Verdict::Busy { by: h.xmax, keys_changed: h.has(mask::KEYS_CHANGED), next: h.next };
    Ok(match look.xmax(h)? {
        None => Verdict::Free,
        Some(XidStatus::Committed(lsn)) => {
            let read = lsn <= txns.readable(txn.options().level) || lsn <= txn.proc().last_commit();
            if read && !txns.is_waiting(lsn) {
                Verdict::Ended { next: h.next, by: h.xmax, keys_changed: h.has(mask::KEYS_CHANGED) }
            } else {
                busy
            }
        }
        Some(XidStatus::Running | XidStatus::Aborted) => busy,
    })
}
