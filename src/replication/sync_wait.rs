//! Turns standbys' reports into the position synchronous commits wait for.
//!
//! Whenever a report comes in, a standby comes or goes, or the setting changes, what the required standbys have confirmed is
//! computed, by whoever brought the news, and handed to the transactions, whose advance wakes the commits and releases their locks. A
//! session does not wait here; it waits for its position (architecture 5).
//!
//! PostgreSQL: replication/syncrep.c.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
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

/// What commits wait for, as of the last news.
struct SyncWait {
    senders: Weak<Senders>,
    txns: Arc<Transactions>,
    /// What is wanted. Rank 39, outside the commit queue; held while positions are computed and handed over, so that older ones never come last.
    names: Mutex<Option<SyncNames>>,
}

impl SyncWait {
    fn look(&self, names: Option<Option<SyncNames>>) {
        let Some(senders) = self.senders.upgrade() else { return };
        let mut wanted = self.names.lock();
        if let Some(names) = names {
            *wanted = names;
        }
        self.txns.set_replicated(required(&senders, wanted.as_ref()));
    }
}

/// Keeps the transactions' replicated position up to date until the node stops. When this returns the setting is in force already, on a standby
/// for the time after its promotion: no commit slips through before anybody has looked.
pub fn start(senders: &Arc<Senders>, config: Arc<Config>, txns: Arc<Transactions>, roles: watch::Receiver<State>) {
    let reloads = config.subscribe();
    let wait = Arc::new(SyncWait { senders: Arc::downgrade(senders), txns, names: Mutex::new(names(&config)) });
    wait.look(None);
    let told = Arc::clone(&wait);
    senders.on_news(move || told.look(None));
    tokio::spawn(run(wait, config, roles, reloads));
}

async fn run(wait: Arc<SyncWait>, config: Arc<Config>, mut roles: watch::Receiver<State>, mut reloads: watch::Receiver<u64>) {
    loop {
        let changed = tokio::select! {
            // A new primary looks at once at the standbys it has.
            changed = roles.changed() => changed.map(|()| None),
            changed = reloads.changed() => changed.map(|()| Some(names(&config))),
        };
        match changed {
            Ok(names) => wait.look(names),
            Err(_) => return,
        }
    }
}
