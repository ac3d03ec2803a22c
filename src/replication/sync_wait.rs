//! Turns standbys' reports into the position synchronous commits wait for.
//!
//! One task: whenever a report comes in, a standby comes or goes, or the setting changes, it computes what the required
//! standbys have confirmed and hands it to the transactions, whose advance wakes the commits and releases their locks. A
//! session does not wait here; it waits for its position (architecture 5).
//!
//! PostgreSQL: replication/syncrep.c.

use std::sync::Arc;

use tokio::sync::watch;

use super::senders::Senders;
use super::sync_names::SyncNames;
use crate::config::{Config, Setting};
use crate::control::node_state::State;
use crate::txn::{SyncPositions, Transactions};

/// The synchronous standbys' positions now; `None` when the setting names none.
pub fn required(senders: &Senders, names: Option<&SyncNames>) -> Option<SyncPositions> {
    names.map(|names| names.confirmed(&senders.streaming()).unwrap_or(SyncPositions::NONE_THERE))
}

/// Keeps the transactions' replicated position up to date until the node stops.
pub async fn run(senders: Arc<Senders>, config: Arc<Config>, txns: Arc<Transactions>, mut roles: watch::Receiver<State>) {
    let mut reports = senders.subscribe();
    let mut reloads = config.subscribe();
    loop {
        let names = SyncNames::parse(config.current().str(Setting::SynchronousStandbyNames)).unwrap_or_else(|error| {
            tracing::warn!("synchronous_standby_names: {error}");
            None
        });
        loop {
            txns.set_replicated(if roles.borrow_and_update().in_recovery() { None } else { required(&senders, names.as_ref()) });
            tokio::select! {
                changed = reports.changed() => if changed.is_err() { return },
                changed = roles.changed() => if changed.is_err() { return },
                changed = reloads.changed() => {
                    if changed.is_err() { return }
                    break;
                }
            }
        }
    }
}
