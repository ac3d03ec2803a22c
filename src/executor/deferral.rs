//! What waits for the end of the transaction, and SET CONSTRAINTS. PostgreSQL: commands/trigger.c.
//!
//! ROLLBACK TO takes back what was put off, looked at or said since the savepoint. So all of that is noted with the xid it happened under, and
//! holds as long as the transaction owns that: what is no longer true is always at the end of its list.

use afterimage_wal::Xid;
use rustc_hash::FxHashMap;

use super::referential::{Event, Events, PIECE};
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

/// Events put off, one after the other, under one xid.
#[derive(Debug)]
struct Waiting {
    by: Xid,
    events: Vec<Event>,
    /// Under which xid each was looked at already. Shorter than the events: none of those behind was.
    looked: Vec<Option<Xid>>,
}

impl Waiting {
    /// Has none of its events happened?
    fn is_undone(&self, t: &Transaction) -> bool {
        !t.owns(self.by)
    }

    fn is_looked_at(&self, at: usize, t: &Transaction) -> bool {
        self.looked.get(at).copied().flatten().is_some_and(|xid| t.owns(xid))
    }

    /// Takes out what is meant; what of it is due.
    fn take(&mut self, t: &Transaction, is_meant: impl Fn(&Event) -> bool) -> Vec<Event> {
        let undone = self.is_undone(t);
        let mut due = Vec::new();
        let mut stays = Self { by: self.by, events: Vec::new(), looked: Vec::new() };
        for (at, event) in std::mem::take(&mut self.events).into_iter().enumerate() {
            if !is_meant(&event) {
                stays.looked.extend((at < self.looked.len()).then(|| self.looked.get(at).copied().flatten()));
                stays.events.push(event);
            } else if !undone && !self.is_looked_at(at, t) {
                due.push(event);
            }
        }
        *self = stays;
        due
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
        while self.waiting.last().is_some_and(|w| w.is_undone(t)) {
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
        match self.waiting.last_mut() {
            Some(w) if w.by == by && w.events.len() < PIECE => w.events.push(event),
            _ => self.waiting.push(Waiting { by, events: vec![event], looked: Vec::new() }),
        }
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
    pub(super) fn take_due(&mut self, t: &mut Transaction, only: Option<&[Oid]>) -> Result<Events, SqlError> {
        let is_meant = |e: &Event| only.is_none_or(|list| list.contains(&e.timing().0));
        let mut due = Events::default();
        if t.savepoints() == 0 {
            for w in &mut self.waiting {
                due.push_piece(w.take(t, is_meant));
            }
            self.waiting.retain(|w| !w.events.is_empty());
            return Ok(due);
        }
        for w in &mut self.waiting {
            if w.is_undone(t) {
                continue;
            }
            for at in 0..w.events.len() {
                if let Some(event) = w.events.get(at).filter(|e| is_meant(e))
                    && !w.is_looked_at(at, t)
                {
                    due.push(event.clone());
                    w.looked.resize(w.events.len(), None);
                    if let Some(looked) = w.looked.get_mut(at) {
                        *looked = Some(t.xid()?);
                    }
                }
            }
        }
        Ok(due)
    }

    /// What waits; nothing does then.
    pub(super) fn take_all(&mut self, t: &Transaction) -> Events {
        let mut all = Events::default();
        for mut w in std::mem::take(&mut self.waiting) {
            match w.looked.is_empty() {
                true if w.is_undone(t) => {}
                true => all.push_piece(w.events),
                false => all.push_piece(w.take(t, |_| true)),
            }
        }
        all
    }

    /// Refuses to change a table that something waits for. PostgreSQL: `CheckTableNotInUse`.
    ///
    /// # Errors
    /// 55006.
    pub fn check_not_pending(&self, t: Option<&Transaction>, relation: &Relation, command: &str) -> Result<(), SqlError> {
        let Some(t) = t else { return Ok(()) };
        let is_due = |w: &Waiting| {
            let mut events = w.events.iter().enumerate();
            !w.is_undone(t) && events.any(|(at, e)| e.changed() == relation.oid && !w.is_looked_at(at, t))
        };
        if !self.waiting.iter().any(is_due) {
            return Ok(());
        }
        let message = format!("cannot {command} \"{}\" because it has pending trigger events", relation.name);
        Err(SqlError::new(SqlState::OBJECT_IN_USE, message))
    }
}
