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

fn names(config: &Config) -> Option<SyncNames> {
    SyncNames::parse(config.current().str(Setting::SynchronousStandbyNames)).unwrap_or_else(|error| {
        tracing::warn!("synchronous_standby_names: {error}");
        None
    })
}

/// Keeps the transactions' replicated position up to date until the node stops. When this returns the setting is in force already, on a standby
/// for the time after its promotion: no commit slips through before the task has run.
pub fn start(senders: Arc<Senders>, config: Arc<Config>, txns: Arc<Transactions>, roles: watch::Receiver<State>) {
    let reloads = config.subscribe();
    let names = names(&config);
    txns.set_replicated(required(&senders, names.as_ref()));
    tokio::spawn(run(senders, config, txns, roles, reloads, names));
}

async fn run(
    senders: Arc<Senders>,
    config: Arc<Config>,
    txns: Arc<Transactions>,
    mut roles: watch::Receiver<State>,
    mut reloads: watch::Receiver<u64>,
    mut wanted: Option<SyncNames>,
) {
    let mut reports = senders.subscribe();
    loop {
        txns.set_replicated(required(&senders, wanted.as_ref()));
        tokio::select! {
            changed = reports.changed() => if changed.is_err() { return },
            // A new primary looks at once at the standbys it has.
            changed = roles.changed() => if changed.is_err() { return },
            changed = reloads.changed() => {
                if changed.is_err() { return }
                wanted = names(&config);
            }
        }
    }
}
