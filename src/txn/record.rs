//! Commit and abort records.
//!
//! Main data: flags u8, then what the flags name, in this order. Numbers are LEB128 unless a width is given.
//!
//! | part | in | bytes |
//! |---|---|---|
//! | time | always | i64 microseconds since 2000-01-01 UTC |
//! | sub-xids | `SUBS` | count, then each as its distance from the one before (the first: from the top xid) |
//! | relations to unlink | `DROPS` | count, then spc, db, rel as u32 each |
//! | invalidations | `INVALS` | count, then database, class, object as u32 each |
//!
//! The top xid is the record's, and so is the flushed mark that a commit carries. An abort without a top xid in the header does not exist: a rolled back savepoint's record carries
//! its own first xid.

use afterimage_wal::ids::{Oid, RelId, Xid};

/// Commit of a transaction and its sub-xids.
pub const KIND_COMMIT: u8 = 1;
/// Abort of a transaction, or of a savepoint's xids.
pub const KIND_ABORT: u8 = 2;

/// A transaction is prepared: main data is [`super::two_phase::PreparedState`].
pub const KIND_PREPARE: u8 = 3;
/// Commit of a prepared transaction; main data as of a commit.
pub const KIND_COMMIT_PREPARED: u8 = 4;
/// Abort of a prepared transaction; main data as of an abort.
pub const KIND_ABORT_PREPARED: u8 = 5;
/// Statuses below an xid are forgotten: no row version names one. Main data is that xid, 8 bytes.
pub const KIND_TRIM: u8 = 6;

const SUBS: u8 = 1;
const DROPS: u8 = 2;
const INVALS: u8 = 4;

/// A catalog object whose cached form is stale once the transaction commits. The catalog gives the numbers their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Invalidation {
    /// Database, 0 for shared objects.
    pub database: Oid,
    /// Catalog the object is described in, 0 for everything.
    pub class: Oid,
    /// The object, 0 for all of its class.
    pub object: Oid,
}

/// What a commit or abort record says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Microseconds since 2000-01-01 UTC.
    pub time: i64,
    /// Sub-xids, ascending.
    pub subs: Vec<Xid>,
    /// Files to unlink: dropped by a commit, created by an abort.
    pub drops: Vec<RelId>,
    /// Stale cache entries.
    pub invalidations: Vec<Invalidation>,
}

impl Decision {
    /// Appends the record's main data.
    pub fn encode(&self, top: Xid, out: &mut Vec<u8>) {
        let mut flags = 0;
        flags |= if self.subs.is_empty() { 0 } else { SUBS };
        flags |= if self.drops.is_empty() { 0 } else { DROPS };
        flags |= if self.invalidations.is_empty() { 0 } else { INVALS };
        out.push(flags);
        out.extend_from_slice(&self.time.to_le_bytes());
        if !self.subs.is_empty() {
            put(out, len(&self.subs));
            let mut last = top.as_u64();
            for s in &self.subs {
                put(out, s.as_u64().wrapping_sub(last));
                last = s.as_u64();
            }
        }
        if !self.drops.is_empty() {
            put(out, len(&self.drops));
            for r in &self.drops {
                for v in [r.spc, r.db, r.rel] {
                    out.extend_from_slice(&v.to_le_bytes());
                }
            }
        }
        if !self.invalidations.is_empty() {
            put(out, len(&self.invalidations));
            for i in &self.invalidations {
                for v in [i.database, i.class, i.object] {
                    out.extend_from_slice(&v.to_le_bytes());
                }
            }
        }
    }

    /// Reads what `encode` wrote. `None` if it is not that.
    pub fn decode(mut d: &[u8], top: Xid) -> Option<Self> {
        let flags = u8::from_le_bytes(take(&mut d)?);
        let mut x = Self { time: i64::from_le_bytes(take(&mut d)?), ..Self::default() };
        if flags & SUBS != 0 {
            let mut last = top.as_u64();
            for _ in 0..get(&mut d)? {
                last = last.checked_add(get(&mut d)?)?;
                x.subs.push(Xid::from_u64(last));
            }
        }
        if flags & DROPS != 0 {
            for _ in 0..get(&mut d)? {
                x.drops.push(RelId { spc: oid(&mut d)?, db: oid(&mut d)?, rel: oid(&mut d)? });
            }
        }
        if flags & INVALS != 0 {
            for _ in 0..get(&mut d)? {
                let (database, class, object) = (oid(&mut d)?, oid(&mut d)?, oid(&mut d)?);
                x.invalidations.push(Invalidation { database, class, object });
            }
        }
        (d.is_empty() && flags & !(SUBS | DROPS | INVALS) == 0).then_some(x)
    }
}

fn len<T>(v: &[T]) -> u64 {
    u64::try_from(v.len()).unwrap_or(u64::MAX)
}

pub(super) fn put(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push((v & 0x7f) as u8 | 0x80);
        v >>= 7;
    }
    out.push((v & 0x7f) as u8);
}

pub(super) fn get(d: &mut &[u8]) -> Option<u64> {
    let mut v = 0u64;
    for shift in (0..64).step_by(7) {
        let b = u8::from_le_bytes(take(d)?);
        let part = u64::from(b & 0x7f);
        if part.leading_zeros() < shift {
            return None;
        }
        v |= part << shift;
        if b & 0x80 == 0 {
            return Some(v);
        }
    }
    None
}

pub(super) fn take<const N: usize>(d: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = d.split_first_chunk()?;
    *d = rest;
    Some(*head)
}

pub(super) fn oid(d: &mut &[u8]) -> Option<Oid> {
    Some(u32::from_le_bytes(take(d)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_survive_encoding_and_no_cut_of_them_passes() {
        let top = Xid::from_u64(1000);
        let d = Decision {
            time: -5,
            subs: [1001u64, 1002, 5_000_000_000].map(Xid::from_u64).to_vec(),
            drops: vec![RelId { spc: 1663, db: 5, rel: 16384 }],
            invalidations: vec![Invalidation { database: 5, class: 1259, object: 16384 }],
        };
        let mut b = Vec::new();
        d.encode(top, &mut b);
        assert_eq!(Decision::decode(&b, top).as_ref(), Some(&d));
        for n in 0..b.len() {
            assert_eq!(Decision::decode(&b[..n], top), None, "{n}");
        }
        b.clear();
        Decision::default().encode(top, &mut b);
        assert_eq!(b.len(), 9);
    }
}
