//! The counter of OIDs, also used as relfilenodes.
//!
//! A record every `PREFETCH` OIDs says which may be in use, so that a crash never hands one out twice. Wraps at 2^32 to the first
//! that is not reserved, as PostgreSQL's; whoever needs uniqueness looks before using one.

use afterimage_wal::{Oid, RecordBuilder, Wal, WalError, Xid, rmgr};
use parking_lot::Mutex;

/// First OID that initdb's own objects do not have. PostgreSQL: `FirstNormalObjectId`.
pub const FIRST_NORMAL: Oid = 16_384;
/// OIDs per record. PostgreSQL: `VAR_OID_PREFETCH`.
const PREFETCH: u32 = 8_192;

#[derive(Debug)]
struct Counter {
    next: Oid,
    /// How many from `next` on are logged.
    logged: u32,
}

/// Next OID. Rank 50: held across the insertion of one record every 8192 OIDs.
#[derive(Debug)]
pub struct OidCounter(Mutex<Counter>);

impl Default for OidCounter {
    fn default() -> Self {
        Self::new(FIRST_NORMAL)
    }
}

impl OidCounter {
    /// Starts at `next`.
    pub fn new(next: Oid) -> Self {
        Self(Mutex::new(Counter { next: next.max(FIRST_NORMAL), logged: 0 }))
    }

    /// The next OID.
    ///
    /// # Errors
    /// If the record cannot be inserted.
    pub fn allocate(&self, wal: &Wal) -> Result<Oid, WalError> {
        let mut counter = self.0.lock();
        if counter.next < FIRST_NORMAL {
            *counter = Counter { next: FIRST_NORMAL, logged: 0 };
        }
        if counter.logged == 0 {
            let mut record = RecordBuilder::new(rmgr::XLOG, rmgr::xlog::NEXTOID, Xid::INVALID);
            record.main(&counter.next.wrapping_add(PREFETCH).to_le_bytes());
            wal.insert(&record)?;
            counter.logged = PREFETCH;
        }
        let oid = counter.next;
        counter.next = counter.next.wrapping_add(1);
        counter.logged -= 1;
        Ok(oid)
    }

    /// What a checkpoint keeps: no OID from here on was handed out.
    pub fn upper_bound(&self) -> Oid {
        let counter = self.0.lock();
        counter.next.wrapping_add(counter.logged)
    }

    /// What a shutdown checkpoint keeps: nothing runs, so the logged but unused ones are given back.
    pub fn exact(&self) -> Oid {
        self.0.lock().next
    }

    /// Redo: the record says so.
    pub fn set(&self, next: Oid) {
        *self.0.lock() = Counter { next, logged: 0 };
    }
}
