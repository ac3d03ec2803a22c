//! `synchronous_standby_names`: which standbys a commit waits for, and how far they have come together.
//!
//! Pure functions from (setting, standby positions) to positions; `sync_wait` does the waiting.
//! PostgreSQL: SyncRepGetSyncRecPtr in syncrep.c.

use afterimage_wal::ids::Lsn;

pub use crate::config::{SyncMethod, SyncNames};
use crate::txn::SyncPositions;

/// A standby that streams, as far as synchronous replication looks at it.
#[derive(Clone, Debug)]
pub struct StandbyPosition {
    /// `application_name`.
    pub name: String,
    /// Tie-break among equal priorities: the sender that started first wins.
    pub started: u64,
    /// Written on the standby (exclusive end).
    pub written: Lsn,
    /// Durable on the standby.
    pub flushed: Lsn,
    /// Replayed on the standby.
    pub applied: Lsn,
}

impl SyncNames {
    /// 1 for the first name, 2 for the second; 0 if this standby is asynchronous.
    pub fn priority(&self, application_name: &str) -> usize {
        let place = self.names.iter().position(|name| name == "*" || name.eq_ignore_ascii_case(application_name));
        match (place, self.method) {
            (None, _) => 0,
            (Some(at), SyncMethod::First) => at + 1,
            // A quorum has no order.
            (Some(_), SyncMethod::Any) => 1,
        }
    }

    /// Indexes into `standbys` of those that are synchronous now (FIRST) or candidates (ANY), best first.
    pub fn candidates(&self, standbys: &[StandbyPosition]) -> Vec<usize> {
        let mut found: Vec<(usize, u64, usize)> = standbys
            .iter()
            .enumerate()
            .map(|(i, s)| (self.priority(&s.name), s.started, i))
            .filter(|&(priority, _, _)| priority > 0)
            .collect();
        found.sort_unstable();
        if self.method == SyncMethod::First {
            found.truncate(self.count);
        }
        found.into_iter().map(|(_, _, i)| i).collect()
    }

    /// `sync`, `quorum`, `potential` or `async`, as `pg_stat_replication.sync_state` shows it.
    pub fn sync_state(&self, standbys: &[StandbyPosition], index: usize) -> &'static str {
        if self.priority(&standbys[index].name) == 0 {
            return "async";
        }
        match (self.method, self.candidates(standbys).contains(&index)) {
            (SyncMethod::Any, _) => "quorum",
            (SyncMethod::First, true) => "sync",
            (SyncMethod::First, false) => "potential",
        }
    }

    /// What the required number of standbys have confirmed; `None` while fewer are connected.
    pub fn confirmed(&self, standbys: &[StandbyPosition]) -> Option<SyncPositions> {
        let chosen = self.candidates(standbys);
        if chosen.len() < self.count {
            return None;
        }
        let nth = |position: fn(&StandbyPosition) -> Lsn| {
            let mut lsns: Vec<Lsn> = chosen.iter().map(|&i| position(&standbys[i])).collect();
            lsns.sort_unstable_by(|a, b| b.cmp(a));
            // FIRST kept exactly `count` of them, so the count-th largest is the least of all.
            lsns[self.count - 1]
        };
        Some(SyncPositions { written: nth(|s| s.written), flushed: nth(|s| s.flushed), applied: nth(|s| s.applied) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str, started: u64, lsn: u64) -> StandbyPosition {
        let lsn = Lsn::from_u64(lsn);
        StandbyPosition { name: name.into(), started, written: lsn, flushed: lsn, applied: lsn }
    }

    #[test]
    fn first_waits_for_the_listed_order_and_any_for_the_fastest() {
        let standbys = [at("a", 1, 100), at("b", 2, 300), at("c", 3, 200)];
        let confirmed = |text: &str| SyncNames::parse(text).unwrap().unwrap().confirmed(&standbys).map(|p| p.flushed.as_u64());
        assert_eq!(confirmed("FIRST 1 (a, b)"), Some(100));
        assert_eq!(confirmed("FIRST 2 (b, c)"), Some(200));
        assert_eq!(confirmed("ANY 1 (a, b, c)"), Some(300));
        assert_eq!(confirmed("ANY 2 (a, b, c)"), Some(200));
        assert_eq!(confirmed("ANY 4 (*)"), None);
        assert_eq!(confirmed("nobody"), None);
    }

    #[test]
    fn states_as_the_view_shows_them() {
        let standbys = [at("a", 1, 1), at("b", 2, 1), at("x", 3, 1)];
        let names = SyncNames::parse("FIRST 1 (a, b)").unwrap().unwrap();
        let states: Vec<_> = (0..3).map(|i| names.sync_state(&standbys, i)).collect();
        assert_eq!(states, ["sync", "potential", "async"]);
    }
}
