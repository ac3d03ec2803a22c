//! What waits for the end of the transaction, and SET CONSTRAINTS. PostgreSQL: commands/trigger.c.
//!
//! ROLLBACK TO takes back what was put off, looked at or said since the savepoint. So all of that is noted with the xid it happened under, and
//! holds as long as the transaction owns that: what is no longer true is always at the end of its list.

use afterimage_wal::Xid;
use rustc_hash::FxHashMap;

use super::referential::Event;
use crate::sql::catalog::Relation;
use crate::sql::types::Oid;
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::Transaction;

/// What a transaction puts off.
#[derive(Debug, Default)]
pub struct Deferral {
    said: Said,
    /// What was said before, and the xid under which it was replaced.
    before: Vec<(Xid, Said)>,
    waiting: Vec<Waiting>,
}

/// What SET CONSTRAINTS said.
#[derive(Clone, Debug, Default)]
struct Said {
    /// ALL, the last time.
    all: Option<bool>,
    /// By constraint, since.
    some: FxHashMap<Oid, bool>,
}

/// An event put off.
#[derive(Debug)]
struct Waiting {
    by: Xid,
    /// Looked at already, under this xid.
    looked: Option<Xid>,
    event: Event,
}

impl Waiting {
    fn is_due(&self, t: &Transaction) -> bool {
        t.owns(self.by) && !self.looked.is_some_and(|xid| t.owns(xid))
    }
}

impl Deferral {
    /// Another transaction begins.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets what was rolled back.
    fn settle(&mut self, t: &Transaction) {
        while self.waiting.last().is_some_and(|w| !t.owns(w.by)) {
            self.waiting.pop();
        }
        while let Some((_, said)) = self.before.pop_if(|(xid, _)| !t.owns(*xid)) {
            self.said = said;
        }
    }

    /// Whether the event is to wait.
    pub(super) fn puts_off(&mut self, t: &Transaction, event: &Event) -> bool {
        let (oid, deferrable, deferred) = event.timing();
        if !deferrable {
            return false;
        }
        self.settle(t);
        self.said.some.get(&oid).copied().or(self.said.all).unwrap_or(deferred)
    }

    /// Lets an event wait that happened under an xid.
    pub(super) fn put_off(&mut self, by: Xid, event: Event) {
        self.waiting.push(Waiting { by, looked: None, event });
    }

    /// SET CONSTRAINTS. `only`: some constraints, else all.
    pub(super) fn say(&mut self, t: &mut Transaction, only: Option<&[Oid]>, deferred: bool) {
        self.settle(t);
        // A standby has no xids, nor anything that waits.
        if t.savepoints() > 0
            && let Ok(xid) = t.xid()
        {
            self.before.push((xid, self.said.clone()));
        }
        match only {
            None => self.said = Said { all: Some(deferred), some: FxHashMap::default() },
            Some(list) => self.said.some.extend(list.iter().map(|oid| (*oid, deferred))),
        }
    }

    /// What waits of these constraints, or of all; they count as looked at, unless that is rolled back.
    ///
    /// # Errors
    /// On a standby.
    pub(super) fn take_due(&mut self, t: &mut Transaction, only: Option<&[Oid]>) -> Result<Vec<Event>, SqlError> {
        let meant = |e: &Event| only.is_none_or(|list| list.contains(&e.timing().0));
        if t.savepoints() == 0 {
            let t = &*t;
            return Ok(self.waiting.extract_if(.., |w| meant(&w.event)).filter(|w| w.is_due(t)).map(|w| w.event).collect());
        }
        let mut due = Vec::new();
        for w in &mut self.waiting {
            if meant(&w.event) && w.is_due(t) {
                w.looked = Some(t.xid()?);
                due.push(w.event.clone());
            }
        }
        Ok(due)
    }

    /// What waits; nothing does then.
    pub(super) fn take_all(&mut self, t: &Transaction) -> Vec<Event> {
        std::mem::take(&mut self.waiting).into_iter().filter(|w| w.is_due(t)).map(|w| w.event).collect()
    }

    /// Refuses to change a table that something waits for. PostgreSQL: `CheckTableNotInUse`.
    ///
    /// # Errors
    /// 55006.
    pub fn check_not_pending(&self, t: Option<&Transaction>, relation: &Relation, command: &str) -> Result<(), SqlError> {
        let Some(t) = t else { return Ok(()) };
        if !self.waiting.iter().any(|w| w.event.changed() == relation.oid && w.is_due(t)) {
            return Ok(());
        }
        let message = format!("cannot {command} \"{}\" because it has pending trigger events", relation.name);
        Err(SqlError::new(SqlState::OBJECT_IN_USE, message))
    }
}
