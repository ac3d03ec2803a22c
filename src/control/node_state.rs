//! What this node is doing: one table of state, event and next state, and a watch for those who care.
//!
//! [`next`] decides and does nothing; whoever causes an event does the work and reports it here.

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

/// What the node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Reading its control file.
    Starting,
    /// Redoing its own WAL after an unclean stop.
    CrashRecovery,
    /// Redoing WAL as a standby, not yet consistent: no sessions.
    StandbyRecovering,
    /// A consistent standby: read-only sessions.
    HotStandby,
    /// Finishing replay to become a primary; sessions stay, still read-only.
    Promoting,
    /// Accepts writes.
    Primary,
    /// No new sessions; the last checkpoint is being written.
    ShuttingDown,
    /// Ended cleanly.
    Stopped,
    /// Ended by a failure: the process must go.
    Failed,
}

/// What can happen to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The control file says: own WAL to redo.
    BeginCrashRecovery,
    /// There is a standby or recovery signal.
    BeginStandby,
    /// The control file says: clean, and no signal.
    BeginPrimary,
    /// Every page is at or past the consistent point.
    Consistent,
    /// Crash recovery reached the end of WAL and the writer started.
    Recovered,
    /// Somebody asked for promotion.
    Promote,
    /// Promotion failed before its point of no return.
    PromoteFailed,
    /// The new timeline is open for writes.
    Promoted,
    /// Somebody asked to stop.
    Shutdown,
    /// All is written.
    ShutdownDone,
    /// Recovery or the disk failed.
    Fail,
}

/// The state an event leads to; `None` if it cannot happen there.
pub fn next(state: State, event: Event) -> Option<State> {
    use Event as E;
    use State as S;
    Some(match (state, event) {
        (_, E::Fail) => S::Failed,
        (S::Starting, E::BeginCrashRecovery) => S::CrashRecovery,
        (S::Starting, E::BeginStandby) => S::StandbyRecovering,
        (S::Starting, E::BeginPrimary) | (S::CrashRecovery, E::Recovered) | (S::Promoting, E::Promoted) => S::Primary,
        (S::StandbyRecovering, E::Consistent) | (S::Promoting, E::PromoteFailed) => S::HotStandby,
        (S::HotStandby, E::Promote) => S::Promoting,
        (S::Stopped | S::Failed, _) => return None,
        (_, E::Shutdown) => S::ShuttingDown,
        (S::ShuttingDown, E::ShutdownDone) => S::Stopped,
        _ => return None,
    })
}

impl State {
    /// Whether sessions may read.
    pub fn accepts_reads(self) -> bool {
        matches!(self, Self::HotStandby | Self::Promoting | Self::Primary)
    }

    /// Whether sessions may write.
    pub fn accepts_writes(self) -> bool {
        self == Self::Primary
    }

    /// `pg_is_in_recovery()`.
    pub fn in_recovery(self) -> bool {
        matches!(self, Self::Starting | Self::CrashRecovery | Self::StandbyRecovering | Self::HotStandby | Self::Promoting)
    }

    /// Text for a client that cannot be served now; SQLSTATE 57P03. PostgreSQL: `canAcceptConnections`.
    pub fn refusal(self) -> Option<&'static str> {
        match self {
            Self::HotStandby | Self::Promoting | Self::Primary => None,
            Self::Starting => Some("the database system is starting up"),
            Self::CrashRecovery | Self::Failed => Some("the database system is in recovery mode"),
            Self::StandbyRecovering => Some("the database system is not yet accepting connections"),
            Self::ShuttingDown | Self::Stopped => Some("the database system is shutting down"),
        }
    }
}

/// The node's state, shared. Subscribers see every change.
#[derive(Debug)]
pub struct NodeState {
    watch: watch::Sender<State>,
    /// Leaf: orders events; its condition wakes threads that wait for a state.
    order: Mutex<()>,
    changed: Condvar,
}

impl Default for NodeState {
    fn default() -> Self {
        Self { watch: watch::Sender::new(State::Starting), order: Mutex::new(()), changed: Condvar::new() }
    }
}

impl NodeState {
    /// State now.
    pub fn get(&self) -> State {
        *self.watch.borrow()
    }

    /// A receiver that sees every change from now on.
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.watch.subscribe()
    }

    /// Applies an event; returns the state before and after, or the state that refused it.
    ///
    /// # Errors
    /// The state in which the event cannot happen.
    pub fn apply(&self, event: Event) -> Result<(State, State), State> {
        let _ordered = self.order.lock();
        let from = self.get();
        let to = next(from, event).ok_or(from)?;
        self.watch.send_replace(to);
        self.changed.notify_all();
        Ok((from, to))
    }

    /// Waits, on a thread, until `done` says so about the state.
    pub fn wait_until(&self, done: impl Fn(State) -> bool) -> State {
        let mut held = self.order.lock();
        loop {
            let state = self.get();
            if done(state) {
                return state;
            }
            self.changed.wait(&mut held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crash_recovery_leads_to_primary_and_standby_to_hot_standby() {
        let node = NodeState::default();
        assert_eq!(node.apply(Event::BeginCrashRecovery), Ok((State::Starting, State::CrashRecovery)));
        assert!(node.apply(Event::Promote).is_err());
        assert_eq!(node.apply(Event::Recovered), Ok((State::CrashRecovery, State::Primary)));
        let node = NodeState::default();
        node.apply(Event::BeginStandby).unwrap();
        assert!(!node.get().accepts_reads());
        node.apply(Event::Consistent).unwrap();
        assert!(node.get().accepts_reads() && !node.get().accepts_writes());
        node.apply(Event::Promote).unwrap();
        assert!(node.get().in_recovery());
        node.apply(Event::Promoted).unwrap();
        assert!(node.get().accepts_writes());
    }

    #[test]
    fn nothing_leaves_stopped() {
        for event in [Event::Promote, Event::Consistent, Event::Shutdown, Event::BeginPrimary] {
            assert_eq!(next(State::Stopped, event), None);
        }
    }
}
