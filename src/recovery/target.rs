//! Where recovery is to end: the settings `recovery_target*`, and what they say about a record.
//!
//! PostgreSQL: `recoveryStopsBefore`, `recoveryStopsAfter` and `getRecoveryStopReason` in access/transam/xlogrecovery.c.

use afterimage_wal::{Lsn, Record, TimelineId, rmgr};

use crate::txn::record::{Decision, KIND_COMMIT, KIND_TRIM};

/// Seconds from 1970 to 2000.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A point in the WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// As soon as the pages are consistent.
    Immediate,
    /// The end of a transaction.
    Xid(u64),
    /// A commit time, microseconds since 2000.
    Time(i64),
    /// A restore point.
    Name(String),
    /// A position.
    Lsn(Lsn),
}

/// Which timeline recovery follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimelineGoal {
    /// The newest there is, also one that appears later.
    #[default]
    Latest,
    /// The one the data directory or backup was on.
    Current,
    /// This one.
    Id(TimelineId),
}

/// What to do at the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Pause; resuming promotes.
    #[default]
    Pause,
    /// Promote.
    Promote,
    /// Stop the server.
    Shutdown,
}

/// Where recovery is to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Goal {
    /// Where to end; `None`: at the end of WAL.
    pub target: Option<Target>,
    /// Whether to end before the target rather than behind it.
    pub exclusive: bool,
    /// And then.
    pub action: Action,
    /// Along which history.
    pub timeline: TimelineGoal,
}

/// That the target was reached, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// For the log.
    pub message: String,
    /// For the history file of the timeline that begins there.
    pub reason: String,
}

/// A transaction's end in a record.
struct End {
    commit: bool,
    xid: u64,
    time: i64,
}

fn end_of(record: &Record<'_>) -> Option<End> {
    if record.rmgr() != rmgr::XACT || record.kind() == KIND_TRIM {
        return None;
    }
    let decision = Decision::decode(record.main(), record.xid())?;
    Some(End { commit: record.kind() == KIND_COMMIT, xid: record.xid().as_u64(), time: decision.time })
}

/// Commit time of a commit record, microseconds since 2000.
pub fn commit_time(record: &Record<'_>) -> Option<i64> {
    end_of(record).filter(|end| end.commit).map(|end| end.time)
}

/// A time as PostgreSQL's log shows it.
pub fn time_text(micros: i64) -> String {
    let unix = micros.saturating_add(EPOCH_MICROS);
    jiff::Timestamp::from_microsecond(unix).map_or_else(|_| micros.to_string(), |t| t.strftime("%Y-%m-%d %H:%M:%S%.f+00").to_string())
}

/// Now, microseconds since 2000.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond() - EPOCH_MICROS
}

fn same_xid(target: u64, xid: u64) -> bool {
    // Without an epoch the setting names the low 32 bits, as everywhere in PostgreSQL's logs.
    if target <= u64::from(u32::MAX) { target == xid & u64::from(u32::MAX) } else { target == xid }
}

impl Goal {
    /// Whether recovery ends before this record.
    pub fn stops_before(&self, record: &Record<'_>, consistent: bool) -> Option<Stop> {
        let side = "before";
        match self.target.as_ref()? {
            Target::Immediate if consistent => Some(at_consistency()),
            Target::Lsn(lsn) if self.exclusive && record.start() >= *lsn => Some(Stop {
                message: format!("recovery stopping before WAL location (LSN) \"{lsn}\""),
                reason: format!("{side} LSN {lsn}"),
            }),
            Target::Xid(xid) if self.exclusive => {
                end_of(record).filter(|end| same_xid(*xid, end.xid)).map(|end| at_transaction(side, &end, false))
            }
            Target::Time(time) => end_of(record)
                .filter(|end| if self.exclusive { end.time >= *time } else { end.time > *time })
                .map(|end| at_transaction(side, &end, true)),
            Target::Immediate | Target::Lsn(_) | Target::Xid(_) | Target::Name(_) => None,
        }
    }

    /// Whether recovery ends behind this record, which was just applied.
    pub fn stops_after(&self, record: &Record<'_>, consistent: bool) -> Option<Stop> {
        match self.target.as_ref()? {
            Target::Name(name) => {
                let point = RestorePoint::of(record).filter(|point| point.name == *name)?;
                Some(Stop {
                    message: format!("recovery stopping at restore point \"{name}\", time {}", time_text(point.time)),
                    reason: format!("at restore point \"{name}\""),
                })
            }
            Target::Lsn(lsn) if !self.exclusive && record.start() >= *lsn => {
                Some(Stop { message: format!("recovery stopping after WAL location (LSN) \"{lsn}\""), reason: format!("after LSN {lsn}") })
            }
            Target::Xid(xid) if !self.exclusive => {
                end_of(record).filter(|end| same_xid(*xid, end.xid)).map(|end| at_transaction("after", &end, false))
            }
            Target::Immediate if consistent => Some(at_consistency()),
            Target::Immediate | Target::Lsn(_) | Target::Xid(_) | Target::Time(_) => None,
        }
    }
}

/// Recovery ended where the pages became consistent.
pub fn at_consistency() -> Stop {
    Stop { message: "recovery stopping after reaching consistency".to_owned(), reason: "reached consistency".to_owned() }
}

fn at_transaction(side: &str, end: &End, by_time: bool) -> Stop {
    let (what, time) = (if end.commit { "commit" } else { "abort" }, time_text(end.time));
    Stop {
        message: format!("recovery stopping {side} {what} of transaction {}, time {time}", end.xid),
        reason: if by_time { format!("{side} {time}") } else { format!("{side} transaction {}", end.xid) },
    }
}

/// Main data of a restore point: when it was made, and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestorePoint {
    /// Microseconds since 2000.
    pub time: i64,
    /// Name.
    pub name: String,
}

impl RestorePoint {
    /// Main data.
    pub fn encode(&self) -> Vec<u8> {
        let mut main = self.time.to_le_bytes().to_vec();
        main.extend_from_slice(self.name.as_bytes());
        main
    }

    /// From a record, if it is one.
    pub fn of(record: &Record<'_>) -> Option<Self> {
        if record.rmgr() != rmgr::XLOG || record.kind() != rmgr::xlog::RESTORE_POINT {
            return None;
        }
        let (time, name) = record.main().split_first_chunk()?;
        Some(Self { time: i64::from_le_bytes(*time), name: String::from_utf8_lossy(name).into_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_xid_without_epoch_names_the_low_bits() {
        assert!(same_xid(741, (1 << 32) + 741));
        assert!(same_xid((1 << 32) + 741, (1 << 32) + 741));
        assert!(!same_xid((2 << 32) + 741, (1 << 32) + 741));
    }

    #[test]
    fn times_are_shown_as_in_postgresql() {
        assert_eq!(time_text(0), "2000-01-01 00:00:00+00");
        assert_eq!(time_text(1_500_000), "2000-01-01 00:00:01.5+00");
    }
}
