//! Triggers at work. Those BEFORE a row are called while the statement runs and may change the row or have it left alone; those AFTER wait
//! in the queue of [`super::referential`] until the statement is over, or, if deferred, the transaction.
//!
//! A waiting event is the places of the row's versions, not the rows: neither can go before the transaction ends.
//!
//! PostgreSQL: commands/trigger.c.

use std::sync::Arc;

use afterimage_wal::Xid;

use super::context::SessionContext;
use super::eval::{Exec, ExecState, Row};
use super::hash::same_value;
use super::large;
use super::plan::{Command, TableWriter, TriggerWriter};
use super::referential::{Events, Subject};
use crate::access::{Tid, heap};
use crate::config::Setting;
use crate::sql::catalog::relation::{Relation, Trigger};
use crate::sql::types::{Datum, Oid, row};
use crate::sqlstate::SqlError;

/// One call of a trigger's function.
#[derive(Debug)]
pub struct TriggerCall<'a> {
    /// The trigger.
    pub trigger: &'a Trigger,
    /// Its table.
    pub table: &'a Relation,
    /// What happened: [`Trigger::INSERT`] and its kin.
    pub event: i16,
    /// The row as it was; of triggers for each row.
    pub old: Option<Row>,
    /// The row as it is to be, or is.
    pub new: Option<Row>,
}

/// The event of a command.
pub fn event_of(command: Command) -> i16 {
    match command {
        Command::Insert => Trigger::INSERT,
        Command::Update => Trigger::UPDATE,
        Command::Delete => Trigger::DELETE,
        Command::Select | Command::Merge => 0,
    }
}

/// Whether a trigger fires in this session, as `session_replication_role` wants it.
fn is_enabled(session: &SessionContext, trigger: &Trigger) -> bool {
    match trigger.enabled {
        b'A' => true,
        b'R' => session.settings.str(Setting::SessionReplicationRole) == "replica",
        b'O' => session.settings.str(Setting::SessionReplicationRole) != "replica",
        _ => false,
    }
}

/// UPDATE OF: whether the statement sets one of the trigger's columns (indexes of attributes). `None`: not an UPDATE.
fn concerns(trigger: &Trigger, assigned: Option<&[usize]>) -> bool {
    let Some(assigned) = assigned else { return true };
    let index = |attnum: &i16| usize::try_from(*attnum).ok().and_then(|n| n.checked_sub(1));
    trigger.columns.is_empty() || trigger.columns.iter().filter_map(index).any(|i| assigned.contains(&i))
}

impl TableWriter {
    /// Whether it has triggers FOR EACH ROW (else STATEMENT) at a time of an event.
    pub fn has_triggers(&self, row: bool, timing: i16, event: i16) -> bool {
        self.triggers.iter().any(|t| t.trigger.is_for(row, timing, event))
    }
}

impl TriggerWriter {
    /// WHEN. The rows' values may be packed.
    fn holds(&self, session: &mut SessionContext, width: usize, old: Option<&[Datum]>, new: Option<&[Datum]>) -> Result<bool, SqlError> {
        let Some(condition) = &self.condition else { return Ok(true) };
        let mut wide = Row::with_capacity(2 * width);
        wide.extend_from_slice(old.unwrap_or_default());
        wide.resize(width, Datum::Null);
        wide.extend_from_slice(new.unwrap_or_default());
        wide.resize(2 * width, Datum::Null);
        large::unpack_row(session.engine.ctx(), &mut wide)?;
        let mut state = ExecState::bare();
        condition.holds(&mut Exec { session, state: &mut state }, &wide)
    }

    fn call(
        &self,
        session: &mut SessionContext,
        table: &Relation,
        event: i16,
        old: Option<Row>,
        new: Option<Row>,
    ) -> Result<Option<Row>, SqlError> {
        let front_end = session.front_end;
        let call = TriggerCall { trigger: &self.trigger, table, event, old, new };
        session.routines.trigger_depth += 1;
        let result = front_end.call_trigger(session, self.func, call);
        session.routines.trigger_depth -= 1;
        result
    }
}

fn unpacked(session: &SessionContext, values: &[Datum], width: usize) -> Result<Row, SqlError> {
    let mut row: Row = values.get(..width).unwrap_or(values).to_vec();
    large::unpack_row(session.engine.ctx(), &mut row)?;
    Ok(row)
}

/// Calls the triggers BEFORE a row is changed. `new` may come out changed; false: the row is to be left alone.
///
/// # Errors
/// The functions' own.
pub fn before_row(
    session: &mut SessionContext,
    table: &TableWriter,
    event: i16,
    old: Option<&[Datum]>,
    mut new: Option<&mut Row>,
    assigned: Option<&[usize]>,
) -> Result<bool, SqlError> {
    let width = table.desc.len();
    for t in table.triggers.iter().filter(|t| t.trigger.is_for(true, Trigger::BEFORE, event)) {
        if !is_enabled(session, &t.trigger)
            || !concerns(&t.trigger, assigned)
            || !t.holds(session, width, old, new.as_deref().map(Vec::as_slice))?
        {
            continue;
        }
        let given_old = old.map(|old| unpacked(session, old, width)).transpose()?;
        let given_new = match new.as_deref() {
            Some(new) => {
                let mut row = unpacked(session, new, width)?;
                // They are computed from what the triggers leave.
                for (i, _) in &table.generated {
                    if let Some(slot) = row.get_mut(*i) {
                        *slot = Datum::Null;
                    }
                }
                Some(row)
            }
            None => None,
        };
        let before = given_new.clone();
        let Some(result) = t.call(session, &table.relation, event, given_old, given_new)? else { return Ok(false) };
        if let (Some(new), Some(before)) = (new.as_deref_mut(), before) {
            // A value that was not touched stays as it was stored.
            for ((slot, before), after) in new.iter_mut().zip(&before).zip(result) {
                if !same_value(before, &after) {
                    *slot = after;
                }
            }
        }
    }
    Ok(true)
}

/// Calls the triggers BEFORE a statement.
///
/// # Errors
/// The functions' own.
pub fn before_statement(session: &mut SessionContext, table: &TableWriter, event: i16, assigned: Option<&[usize]>) -> Result<(), SqlError> {
    for t in table.triggers.iter().filter(|t| t.trigger.is_for(false, Trigger::BEFORE, event)) {
        if !is_enabled(session, &t.trigger) || !concerns(&t.trigger, assigned) || !t.holds(session, table.desc.len(), None, None)? {
            continue;
        }
        t.call(session, &table.relation, event, None, None)?;
    }
    Ok(())
}

/// A row's versions, for triggers after its change: place and values before, place and values after.
pub type Change<'a> = (Option<(Tid, &'a [Datum])>, Option<(Tid, &'a [Datum])>);

/// Queues the triggers AFTER a row's change.
///
/// # Errors
/// What WHEN fails with.
pub fn after_row(
    session: &mut SessionContext,
    table: &Arc<TableWriter>,
    event: i16,
    (old, new): Change<'_>,
    assigned: Option<&[usize]>,
    queue: &mut Events,
) -> Result<(), SqlError> {
    let width = table.desc.len();
    for (n, t) in table.triggers.iter().enumerate().filter(|(_, t)| t.trigger.is_for(true, 0, event)) {
        if !is_enabled(session, &t.trigger)
            || !concerns(&t.trigger, assigned)
            || !t.holds(session, width, old.map(|(_, v)| v.get(..width).unwrap_or(v)), new.map(|(_, v)| v.get(..width).unwrap_or(v)))?
        {
            continue;
        }
        let xid = session.transaction()?.xid()?;
        let fired = Fired { table: Arc::clone(table), trigger: n, event, xid: Some(xid) };
        queue.note(|s| fired.is(s), || Subject::Trigger(fired.clone()), old.map(|(tid, _)| tid), new.map(|(tid, _)| tid));
    }
    Ok(())
}

/// Queues the triggers AFTER a statement.
///
/// # Errors
/// What WHEN fails with.
pub fn after_statement(
    session: &mut SessionContext,
    table: &Arc<TableWriter>,
    event: i16,
    assigned: Option<&[usize]>,
    queue: &mut Events,
) -> Result<(), SqlError> {
    for (n, t) in table.triggers.iter().enumerate().filter(|(_, t)| t.trigger.is_for(false, 0, event)) {
        if is_enabled(session, &t.trigger) && concerns(&t.trigger, assigned) && t.holds(session, table.desc.len(), None, None)? {
            let fired = Fired { table: Arc::clone(table), trigger: n, event, xid: None };
            queue.note(|s| fired.is(s), || Subject::Trigger(fired.clone()), None, None);
        }
    }
    Ok(())
}

/// A trigger that waits for its statement, or its transaction, to end.
#[derive(Clone, Debug)]
pub struct Fired {
    table: Arc<TableWriter>,
    /// Its place among the table's triggers.
    trigger: usize,
    event: i16,
    /// Who changed the row: if that is rolled back, nothing happened.
    xid: Option<Xid>,
}

impl Fired {
    fn is(&self, subject: &Subject) -> bool {
        matches!(subject, Subject::Trigger(other) if Arc::ptr_eq(&self.table, &other.table)
            && (self.trigger, self.event, self.xid) == (other.trigger, other.event, other.xid))
    }

    /// The constraint that says when it fires: itself, whether deferrable, whether deferred.
    pub(super) fn timing(&self) -> (Oid, bool, bool) {
        self.table
            .triggers
            .get(self.trigger)
            .map_or((0, false, false), |t| (t.trigger.constraint, t.trigger.deferrable, t.trigger.deferred))
    }

    /// The table it is about.
    pub(super) fn table(&self) -> Oid {
        self.table.relation.oid
    }

    fn version(&self, session: &SessionContext, tid: Option<Tid>) -> Result<Option<Row>, SqlError> {
        let Some(tid) = tid else { return Ok(None) };
        let rel = self.table.relation.rel_handle().ok_or_else(|| SqlError::internal("table without a file"))?;
        let bytes = heap::row_bytes(session.engine.ctx(), &rel, tid)?;
        let bytes = bytes.ok_or_else(|| SqlError::internal("a row that a trigger was to see is gone"))?;
        let mut values = vec![Datum::Null; self.table.desc.len()];
        row::decode(&self.table.desc, &bytes, values.len(), &mut values)?;
        large::unpack_row(session.engine.ctx(), &mut values)?;
        Ok(Some(values))
    }

    /// Calls it, with the row's versions before and after.
    ///
    /// # Errors
    /// The function's own.
    pub(super) fn fire(&self, session: &mut SessionContext, old: Option<Tid>, new: Option<Tid>) -> Result<(), SqlError> {
        let Some(t) = self.table.triggers.get(self.trigger) else { return Ok(()) };
        if let Some(xid) = self.xid
            && !session.transaction()?.owns(xid)
        {
            return Ok(());
        }
        let (old, new) = (self.version(session, old)?, self.version(session, new)?);
        // What it returns says nothing.
        t.call(session, &self.table.relation, self.event, old, new).map(|_| ())
    }
}
