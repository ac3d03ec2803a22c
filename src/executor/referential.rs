//! Foreign keys and deferrable unique constraints at work: what a change asks for, at the end of its statement or of its transaction. AFTER
//! triggers wait in the same queue, so that all is looked at in the order it happened.
//!
//! A change notes an event; nothing is looked at while the statement still runs. Checks lock the referenced row FOR KEY SHARE, so that it
//! stays until the transaction ends. What the rows are now decides, not the event.
//!
//! PostgreSQL: utils/adt/ri_triggers.c, commands/trigger.c.

use std::sync::Arc;

use afterimage_wal::BlockNo;

use super::context::SessionContext;
use super::eval::ExecState;
use super::hash::same_value;
use super::plan::Command;
use super::portal::{Portal, PortalStatus};
use super::routine::{RoutinePlan, Variables};
use super::sink::{Collect, RowSink};
use crate::access::btree::{self, Inserted, Item};
use crate::access::{AccessCtx, AccessError, RelHandle, Tid, heap};
use crate::sql::catalog::index_key::EntryBytes;
use crate::sql::catalog::names::{quote_identifier, quote_qualified};
use crate::sql::catalog::relation::{Constraint, ConstraintKind, FkAction, FkMatch, ForeignKey, Index, Relation};
use crate::sql::types::{Datum, Oid, row, text_out};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{CommitLevel, Isolation, Transaction};

/// Something to look at when a statement is over, or later: what it is about, and where the row's versions are. There may be as many as rows
/// are changed, so it is small; what the rows are is read from the table.
#[derive(Clone, Debug)]
pub struct Event {
    subject: Arc<Subject>,
    /// The version that is gone, and the one that was stored.
    old: Tid,
    new: Tid,
}

/// No version.
const NOWHERE: Tid = Tid { block: BlockNo::INVALID, offset: 0 };

fn version(tid: Tid) -> Option<Tid> {
    (tid != NOWHERE).then_some(tid)
}

/// What the events of one kind are about.
#[derive(Debug)]
pub enum Subject {
    /// By a foreign key or a deferrable unique constraint.
    Key(KeySubject),
    /// A trigger to fire.
    Trigger(super::trigger::Fired),
}

/// What a constraint has to look at.
#[derive(Debug)]
pub struct KeySubject {
    /// The constraint's own table: of a foreign key the referencing one.
    table: Oid,
    constraint: Constraint,
    kind: EventKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EventKind {
    /// A referencing row was stored.
    Stored,
    /// A referenced key is gone.
    Deleted,
    /// A referenced key has become another.
    Updated,
    /// A row was entered into a unique index that may have its key already.
    Entered,
}

/// Events in their order. They lie in pieces, which go one by one as they are looked at.
#[derive(Debug, Default)]
pub struct Events {
    subjects: Vec<Arc<Subject>>,
    pieces: Vec<Vec<Event>>,
}

/// Events of a piece.
pub(super) const PIECE: usize = 4096;

impl Events {
    /// None?
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Adds one about a subject, which is made if none of those known is meant.
    pub(super) fn note(&mut self, is_meant: impl Fn(&Subject) -> bool, make: impl FnOnce() -> Subject, old: Option<Tid>, new: Option<Tid>) {
        let subject = match self.subjects.iter().rfind(|s| is_meant(s)) {
            Some(subject) => Arc::clone(subject),
            None => {
                let subject = Arc::new(make());
                self.subjects.push(Arc::clone(&subject));
                subject
            }
        };
        self.push(Event { subject, old: old.unwrap_or(NOWHERE), new: new.unwrap_or(NOWHERE) });
    }

    fn note_key(&mut self, table: Oid, constraint: &Constraint, kind: EventKind, old: Option<Tid>, new: Option<Tid>) {
        let is_meant =
            |s: &Subject| matches!(s, Subject::Key(k) if k.kind == kind && k.table == table && k.constraint.oid == constraint.oid);
        self.note(is_meant, || Subject::Key(KeySubject { table, constraint: constraint.clone(), kind }), old, new);
    }

    /// Adds one.
    pub(super) fn push(&mut self, event: Event) {
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < PIECE => piece.push(event),
            _ => self.pieces.push(vec![event]),
        }
    }

    /// Adds some.
    pub(super) fn push_piece(&mut self, piece: Vec<Event>) {
        if !piece.is_empty() {
            self.pieces.push(piece);
        }
    }
}

impl IntoIterator for Events {
    type Item = Event;
    type IntoIter = std::iter::Flatten<std::vec::IntoIter<Vec<Event>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.pieces.into_iter().flatten()
    }
}

impl Event {
    /// The constraint that says when it is looked at: itself, whether deferrable, whether deferred.
    pub(super) fn timing(&self) -> (Oid, bool, bool) {
        match &*self.subject {
            Subject::Key(k) => (k.constraint.oid, k.constraint.deferrable, k.constraint.deferred),
            Subject::Trigger(fired) => fired.timing(),
        }
    }

    /// The table whose change it is about.
    pub(super) fn changed(&self) -> Oid {
        match &*self.subject {
            Subject::Key(k) => match (k.kind, foreign(&k.constraint)) {
                (EventKind::Deleted | EventKind::Updated, Some(f)) => f.table,
                _ => k.table,
            },
            Subject::Trigger(fired) => fired.table(),
        }
    }

    /// What happens at once, whatever is deferred.
    fn is_action(&self) -> bool {
        let Subject::Key(k) = &*self.subject else { return false };
        match (k.kind, foreign(&k.constraint)) {
            (EventKind::Updated, Some(f)) => f.on_update != FkAction::NoAction,
            (EventKind::Deleted, Some(f)) => f.on_delete != FkAction::NoAction,
            _ => false,
        }
    }

    fn look(&self, session: &mut SessionContext) -> Result<(), SqlError> {
        match &*self.subject {
            Subject::Key(k) => look(session, k, self.old, self.new),
            Subject::Trigger(fired) => fired.fire(session, version(self.old), version(self.new)),
        }
    }
}

fn foreign(c: &Constraint) -> Option<&ForeignKey> {
    match &c.kind {
        ConstraintKind::Foreign(f) => Some(f),
        ConstraintKind::Primary | ConstraintKind::Unique | ConstraintKind::Exclusion => None,
    }
}

fn key_of(values: &[Datum], columns: &[i16]) -> Vec<Datum> {
    let value = |n: &i16| usize::try_from(*n).ok().and_then(|n| n.checked_sub(1)).and_then(|i| values.get(i)).cloned().unwrap_or_default();
    columns.iter().map(value).collect()
}

fn same_key(a: &[Datum], b: &[Datum]) -> bool {
    a.iter().zip(b).all(|(a, b)| same_value(a, b))
}

/// Whether changes of a table concern foreign keys at all.
pub fn concerns(relation: &Relation) -> bool {
    !relation.referenced_by.is_empty() || relation.constraints.iter().any(|c| matches!(c.kind, ConstraintKind::Foreign(_)))
}

/// A version of a row, and its values.
pub type Version<'a> = (Tid, &'a [Datum]);

/// Notes what a stored row asks for; `old`: what it was before an update.
pub fn stored(relation: &Relation, events: &mut Events, old: Option<Version<'_>>, new: Version<'_>) {
    for c in &relation.constraints {
        if foreign(c).is_none() {
            continue;
        }
        let key = key_of(new.1, &c.columns);
        if key.iter().all(Datum::is_null) || old.is_some_and(|(_, old)| same_key(&key_of(old, &c.columns), &key)) {
            continue;
        }
        events.note_key(relation.oid, c, EventKind::Stored, None, Some(new.0));
    }
    if let Some(old) = old {
        gone(relation, events, old, Some(new));
    }
}

/// Notes what a row that is no longer what it was asks for.
pub fn gone(relation: &Relation, events: &mut Events, old: Version<'_>, new: Option<Version<'_>>) {
    for (table, c) in &relation.referenced_by {
        let Some(f) = foreign(c) else { continue };
        let before = key_of(old.1, &f.columns);
        if before.iter().any(Datum::is_null) || new.is_some_and(|(_, new)| same_key(&before, &key_of(new, &f.columns))) {
            continue;
        }
        let kind = if new.is_some() { EventKind::Updated } else { EventKind::Deleted };
        events.note_key(*table, c, kind, Some(old.0), new.map(|(tid, _)| tid));
    }
}

/// Enters a row into the index of a deferrable constraint: one that may have its key already is noted, to be looked at once the statement, or
/// the transaction, is over. PostgreSQL: `UNIQUE_CHECK_PARTIAL`.
///
/// # Errors
/// Storage, WAL, a key that is too long.
pub(super) fn enter_deferrable(
    access: &AccessCtx,
    t: &mut Transaction,
    table: (&Relation, &RelHandle),
    index: (&Index, &RelHandle),
    tid: Tid,
    item: Item<'_>,
    events: &mut Events,
) -> Result<(), AccessError> {
    let xid = t.xid()?;
    // The twin of an index that is made anew has no constraint: the index itself does the checking.
    let constraint = table.0.constraints.iter().find(|c| c.oid == index.0.constraint);
    let Some(constraint) = constraint else { return btree::insert(access, xid, index.1, item, tid, None).map(drop) };
    let mut probe = heap::HastyProbe(heap::Probe::new(access, *table.1, t));
    if let Inserted::Duplicate(_) = btree::insert(access, xid, index.1, item, tid, Some((&mut probe, item.key.len())))? {
        btree::insert(access, xid, index.1, item, tid, None)?;
        events.note_key(table.0.oid, constraint, EventKind::Entered, None, Some(tid));
    }
    Ok(())
}

/// Whether a row whose key may be there twice is alone by now.
fn alone(session: &mut SessionContext, subject: &KeySubject, tid: Tid) -> Result<(), SqlError> {
    let Some(relation) = session.catalog.relation(subject.table)? else { return Ok(()) };
    let Some(index) = relation.indexes.iter().find(|i| i.oid == subject.constraint.index).cloned() else { return Ok(()) };
    let Some(table) = relation.rel_handle() else { return Ok(()) };
    let access = session.engine.ctx().clone();
    let t = session.transaction()?;
    // Deleted, changed again, or rolled back: it asks for nothing.
    if !matches!(heap::liveness(&access, t, &table, tid)?, heap::Liveness::Live(_)) {
        return Ok(());
    }
    // A constraint's index has no expressions.
    let columns: Vec<i16> = index.columns.iter().map(|c| c.attnum).collect();
    let mut values = key_at(&access, &relation, tid, &columns)?;
    super::large::unpack_entry(&access, &index, &mut values)?;
    let mut entry = EntryBytes::default();
    index.encode_entry(&values, &mut entry)?;
    let mut probe = heap::Probe::new(&access, table, session.transaction()?);
    if btree::find_other(&access, &relation.index_handle(&index), &entry.key, tid, &mut probe)?.is_none() {
        return Ok(());
    }
    super::large::unpack_row(&access, &mut values)?;
    let key = super::ddl::index::key_text(session, &relation, &index, &values)?;
    Err(SqlError::new(SqlState::UNIQUE_VIOLATION, format!("duplicate key value violates unique constraint \"{}\"", index.name))
        .detail(format!("Key {key} already exists."))
        .constraint(&relation.namespace_name, &relation.name, &index.name))
}

/// The values of some columns of a version of a row; they may be packed.
fn key_at(access: &AccessCtx, relation: &Relation, tid: Tid, columns: &[i16]) -> Result<Vec<Datum>, SqlError> {
    let rel = relation.rel_handle().ok_or_else(|| SqlError::internal("table without a file"))?;
    let bytes = heap::row_bytes(access, &rel, tid)?;
    let bytes = bytes.ok_or_else(|| SqlError::internal("a row that a constraint was to look at is gone"))?;
    let mut values = vec![Datum::Null; relation.desc.len()];
    let wanted: Vec<bool> = (1_i16..).take(values.len()).map(|n| columns.contains(&n)).collect();
    row::decode_some(&relation.desc, &bytes, &wanted, &mut values)?;
    Ok(key_of(&values, columns))
}

/// Notes what one change of a statement asks for.
pub(super) fn note(state: &mut ExecState, relation: &Relation, command: Command, tid: Tid, old: Option<Version<'_>>, new: &[Datum]) {
    match (command, old) {
        (Command::Insert, _) => stored(relation, &mut state.foreign, None, (tid, new)),
        (Command::Update, old) => stored(relation, &mut state.foreign, old, (tid, new)),
        (Command::Delete, Some(old)) => gone(relation, &mut state.foreign, old, None),
        (Command::Delete | Command::Select | Command::Merge, _) => {}
    }
}

/// The statement is over: looks at its events, or puts them off.
///
/// # Errors
/// 23503, and what the actions fail with.
pub fn after_statement(session: &mut SessionContext, events: Events) -> Result<(), SqlError> {
    for event in events {
        let t = session.transaction.as_mut().ok_or_else(|| SqlError::internal("no transaction"))?;
        if !event.is_action() && session.deferral.puts_off(t, &event) {
            session.deferral.put_off(t.xid()?, event);
        } else {
            event.look(session)?;
        }
    }
    Ok(())
}

/// The transaction is about to commit: what was put off is due.
///
/// # Errors
/// 23503, and what the actions fail with.
pub fn before_commit(session: &mut SessionContext) -> Result<(), SqlError> {
    while !session.deferral.is_empty() {
        let t = session.transaction.as_ref().ok_or_else(|| SqlError::internal("no transaction"))?;
        for event in session.deferral.take_all(t) {
            event.look(session)?;
        }
    }
    Ok(())
}

/// SET CONSTRAINTS. `only`: some constraints, else all.
///
/// # Errors
/// 23503, if what was put off is due now.
pub fn set_constraints(session: &mut SessionContext, only: Option<&[Oid]>, deferred: bool) -> Result<(), SqlError> {
    let t = session.transaction.as_mut().ok_or_else(|| SqlError::internal("no transaction"))?;
    session.deferral.say(t, only, deferred);
    if deferred {
        return Ok(());
    }
    let due = session.deferral.take_due(t, only)?;
    due.into_iter().try_for_each(|event| event.look(session))
}

/// Names and types both sides of a constraint are asked by.
struct Sides {
    referencing: Arc<Relation>,
    referenced: Arc<Relation>,
    own_columns: Vec<String>,
    own_types: Vec<Oid>,
    their_columns: Vec<String>,
    their_types: Vec<Oid>,
}

fn sides(session: &SessionContext, table: Oid, c: &Constraint, f: &ForeignKey) -> Result<Option<Sides>, SqlError> {
    let (Some(referencing), Some(referenced)) = (session.catalog.relation(table)?, session.catalog.relation(f.table)?) else {
        return Ok(None);
    };
    let columns = |r: &Relation, list: &[i16]| -> (Vec<String>, Vec<Oid>) {
        list.iter().filter_map(|&n| r.attribute(n)).map(|c| (quote_identifier(&c.name), c.type_oid)).unzip()
    };
    let (own_columns, own_types) = columns(&referencing, &c.columns);
    let (their_columns, their_types) = columns(&referenced, &f.columns);
    Ok(Some(Sides { referencing, referenced, own_columns, own_types, their_columns, their_types }))
}

fn name_of(r: &Relation) -> String {
    quote_qualified(Some(&r.namespace_name), &r.name)
}

fn conditions(alias: &str, columns: &[String], first: usize) -> String {
    let one = |(i, c): (usize, &String)| format!("{alias}{c} = ${}", i + first);
    columns.iter().enumerate().map(one).collect::<Vec<_>>().join(" AND ")
}

fn key_text(session: &SessionContext, columns: &[String], types: &[Oid], key: &[Datum]) -> String {
    let value = |(v, ty): (&Datum, &Oid)| {
        let mut out = Vec::new();
        if v.is_null() || text_out(v, *ty, &mut out, session.io()).is_err() {
            return "null".to_owned();
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    let values: Vec<String> = key.iter().zip(types).map(value).collect();
    let names: Vec<String> = columns.iter().map(|c| c.trim_matches('"').replace("\"\"", "\"")).collect();
    format!("Key ({})=({})", names.join(", "), values.join(", "))
}

/// What is asked of a table; each has one plan per constraint and session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Present = 1,
    StillReferenced = 2,
    Cascade = 3,
    CascadeUpdate = 4,
    SetNull = 5,
    SetDefault = 6,
    StillPresent = 7,
}

/// Marks plans of constraints among those of functions.
const PLANS: usize = usize::MAX / 2;

/// Runs `f` with all that is committed in sight, at whatever level: who committed it holds no lock any more that this would wait for.
fn among_all_committed<T>(session: &mut SessionContext, f: impl FnOnce(&mut SessionContext) -> Result<T, SqlError>) -> Result<T, SqlError> {
    let level = session.transaction()?.options().level;
    session.transaction()?.set_level(CommitLevel::Off);
    let result = f(session);
    session.transaction()?.set_level(level);
    result
}

/// Runs a statement of a constraint as the owner of the table it is about; its rows. One that looks for rows to do something about sees all that
/// is committed now, whatever the transaction sees otherwise; but it changes none that the transaction does not see. PostgreSQL: `ri_PerformCheck`.
fn ask(
    session: &mut SessionContext,
    constraint: Oid,
    question: Question,
    text: &str,
    owner: Oid,
    types: &[Oid],
    params: Vec<Datum>,
) -> Result<u64, SqlError> {
    let own = session.transaction()?.invalidations().len();
    let epoch = (session.routines.undone << 32).wrapping_add(u64::try_from(own).unwrap_or(u64::MAX));
    let key = (PLANS + usize::try_from(constraint).unwrap_or(0), question as usize);
    let known = session.routines.plans.get(&key).filter(|p| p.epoch == epoch && p.prepared.statement.source[..] == *text).cloned();
    let (user, name) = (session.user, Arc::clone(&session.user_name));
    session.user = owner;
    let outer = session.variables.take();
    // The transaction's own snapshot is as it would be.
    let transaction = session.transaction()?;
    if transaction.isolation() != Isolation::ReadCommitted {
        let _taken = transaction.snapshot()?;
    }
    let result = among_all_committed(session, |session| {
        let plan = match known {
            Some(plan) => plan,
            None => {
                session.refresh_catalog();
                let front_end = session.front_end;
                let statements = front_end.parse(text)?;
                let statement = statements.first().ok_or_else(|| SqlError::internal("a constraint's question"))?;
                let prepared = front_end.prepare(session, statement, types)?;
                let nothing = Variables { names: Arc::from([]), types: Arc::from([]), shapes: Vec::new(), prefer_columns: true };
                let plan = RoutinePlan::new(prepared, Arc::new(nothing), epoch);
                session.routines.plans.insert(key, plan.clone());
                plan
            }
        };
        let mut portal = Portal::open(session, plan.prepared, params)?;
        let mut sink = Collect::default();
        let max = if matches!(question, Question::Present | Question::StillPresent | Question::StillReferenced) { 1 } else { 0 };
        if question != Question::Present {
            portal.detect_new_rows();
        }
        let sink_ref: &mut dyn RowSink = &mut sink;
        match portal.run(session, max, sink_ref)? {
            PortalStatus::CopyIn(_) => Err(SqlError::internal("a constraint's question")),
            PortalStatus::Suspended | PortalStatus::Complete(_) => Ok(u64::try_from(sink.rows.len()).unwrap_or(0)),
        }
    });
    session.variables = outer;
    session.user = user;
    session.user_name = name;
    session.refresh_catalog();
    result
}

fn look(session: &mut SessionContext, subject: &KeySubject, old: Tid, new: Tid) -> Result<(), SqlError> {
    let c = &subject.constraint;
    if subject.kind == EventKind::Entered {
        return alone(session, subject, new);
    }
    let Some(f) = foreign(c) else { return Ok(()) };
    let Some(s) = sides(session, subject.table, c, f)? else { return Ok(()) };
    let access = session.engine.ctx().clone();
    let key = |relation: &Relation, tid: Tid, columns: &[i16]| -> Result<Vec<Datum>, SqlError> {
        let mut key = key_at(&access, relation, tid, columns)?;
        super::large::unpack_row(&access, &mut key)?;
        Ok(key)
    };
    match subject.kind {
        EventKind::Stored => present(session, c, f, &s, new, || key(&s.referencing, new, &c.columns)),
        EventKind::Deleted => act(session, c, f, &s, &key(&s.referenced, old, &f.columns)?, None),
        EventKind::Updated => {
            let (old, new) = (key(&s.referenced, old, &f.columns)?, key(&s.referenced, new, &f.columns)?);
            act(session, c, f, &s, &old, Some(&new))
        }
        EventKind::Entered => Ok(()),
    }
}

/// `23503` of the referencing side.
fn not_present(session: &SessionContext, c: &Constraint, s: &Sides, key: &[Datum]) -> SqlError {
    let message = format!("insert or update on table \"{}\" violates foreign key constraint \"{}\"", s.referencing.name, c.name);
    let shown = key_text(session, &s.own_columns, &s.own_types, key);
    SqlError::new(SqlState::FOREIGN_KEY_VIOLATION, message)
        .detail(format!("{shown} is not present in table \"{}\".", s.referenced.name))
        .constraint(&s.referencing.namespace_name, &s.referencing.name, &c.name)
}

fn present(
    session: &mut SessionContext,
    c: &Constraint,
    f: &ForeignKey,
    s: &Sides,
    tid: Tid,
    key: impl FnOnce() -> Result<Vec<Datum>, SqlError>,
) -> Result<(), SqlError> {
    // A row that is gone asks for nothing. One that was changed again asks as long as it has the key; if it has another, that has an event of
    // its own.
    let Some(handle) = s.referencing.rel_handle() else { return Ok(()) };
    let engine = session.engine.clone();
    let newest = heap::fetch_latest(engine.ctx(), session.transaction()?, &handle, tid, u32::MAX, |at, bytes| (at, bytes.to_vec()))?;
    let Some((at, bytes)) = newest.row() else { return Ok(()) };
    let key = &*key()?;
    if at != tid {
        let desc = &s.referencing.desc;
        let mut row = vec![Datum::Null; desc.len()];
        row::decode(desc, &bytes, desc.len(), &mut row)?;
        super::large::unpack_row(engine.ctx(), &mut row)?;
        if !same_key(&key_of(&row, &c.columns), key) {
            return Ok(());
        }
    }
    if key.iter().any(Datum::is_null) {
        return match f.match_type {
            FkMatch::Simple => Ok(()),
            FkMatch::Full => {
                let message =
                    format!("insert or update on table \"{}\" violates foreign key constraint \"{}\"", s.referencing.name, c.name);
                Err(SqlError::new(SqlState::FOREIGN_KEY_VIOLATION, message)
                    .detail("MATCH FULL does not allow mixing of null and nonnull key values.")
                    .constraint(&s.referencing.namespace_name, &s.referencing.name, &c.name))
            }
        };
    }
    if is_present(session, c, s, Question::Present, &s.own_types.clone(), key)? { Ok(()) } else { Err(not_present(session, c, s, key)) }
}

fn is_present(
    session: &mut SessionContext,
    c: &Constraint,
    s: &Sides,
    question: Question,
    types: &[Oid],
    key: &[Datum],
) -> Result<bool, SqlError> {
    let text =
        format!("SELECT 1 FROM ONLY {} x WHERE {} FOR KEY SHARE OF x", name_of(&s.referenced), conditions("x.", &s.their_columns, 1));
    Ok(ask(session, c.oid, question, &text, s.referenced.owner, types, key.to_vec())? > 0)
}

fn act(
    session: &mut SessionContext,
    c: &Constraint,
    f: &ForeignKey,
    s: &Sides,
    old: &[Datum],
    new: Option<&[Datum]>,
) -> Result<(), SqlError> {
    let action = if new.is_some() { f.on_update } else { f.on_delete };
    let table = name_of(&s.referencing);
    let owner = s.referencing.owner;
    let matching = conditions("", &s.own_columns, 1);
    let types = s.their_types.clone();
    let set = |value: &str| s.own_columns.iter().map(|c| format!("{c} = {value}")).collect::<Vec<_>>().join(", ");
    match action {
        FkAction::NoAction | FkAction::Restrict => {
            // Another row may have the key by now.
            if action == FkAction::NoAction && is_present(session, c, s, Question::StillPresent, &types, old)? {
                return Ok(());
            }
            let condition = conditions("x.", &s.own_columns, 1);
            let text = format!("SELECT 1 FROM ONLY {table} x WHERE {condition} FOR KEY SHARE OF x");
            if ask(session, c.oid, Question::StillReferenced, &text, owner, &types, old.to_vec())? > 0 {
                let message = format!(
                    "update or delete on table \"{}\" violates foreign key constraint \"{}\" on table \"{}\"",
                    s.referenced.name, c.name, s.referencing.name
                );
                let shown = key_text(session, &s.their_columns, &s.their_types, old);
                return Err(SqlError::new(SqlState::FOREIGN_KEY_VIOLATION, message)
                    .detail(format!("{shown} is still referenced from table \"{}\".", s.referencing.name))
                    .constraint(&s.referencing.namespace_name, &s.referencing.name, &c.name));
            }
        }
        FkAction::Cascade => match new {
            None => {
                let text = format!("DELETE FROM ONLY {table} WHERE {matching}");
                ask(session, c.oid, Question::Cascade, &text, owner, &types, old.to_vec())?;
            }
            Some(new) => {
                let n = s.own_columns.len();
                let values: Vec<String> = s.own_columns.iter().enumerate().map(|(i, c)| format!("{c} = ${}", n + i + 1)).collect();
                let text = format!("UPDATE ONLY {table} SET {} WHERE {matching}", values.join(", "));
                let twice: Vec<Oid> = types.iter().chain(&types).copied().collect();
                let params = old.iter().chain(new).cloned().collect();
                ask(session, c.oid, Question::CascadeUpdate, &text, owner, &twice, params)?;
            }
        },
        FkAction::SetNull | FkAction::SetDefault => {
            let (value, question) =
                if action == FkAction::SetNull { ("NULL", Question::SetNull) } else { ("DEFAULT", Question::SetDefault) };
            let text = format!("UPDATE ONLY {table} SET {} WHERE {matching}", set(value));
            ask(session, c.oid, question, &text, owner, &types, old.to_vec())?;
            // The default may be the very key that is gone.
            if action == FkAction::SetDefault {
                let again = Constraint {
                    kind: ConstraintKind::Foreign(ForeignKey { on_delete: FkAction::NoAction, on_update: FkAction::NoAction, ..f.clone() }),
                    ..c.clone()
                };
                if let Some(f) = foreign(&again) {
                    act(session, &again, f, s, old, new)?;
                }
            }
        }
    }
    Ok(())
}

/// Checks every row there is.
///
/// # Errors
/// 23503.
pub fn validate(session: &mut SessionContext, table: Oid, c: &Constraint) -> Result<(), SqlError> {
    let Some(f) = foreign(c) else { return Ok(()) };
    let Some(s) = sides(session, table, c, f)? else { return Ok(()) };
    let join: Vec<String> = s.own_columns.iter().zip(&s.their_columns).map(|(own, their)| format!("pk.{their} = fk.{own}")).collect();
    let full = f.match_type == FkMatch::Full;
    let given: Vec<String> = s.own_columns.iter().map(|c| format!("fk.{c} IS NOT NULL")).collect();
    let first = s.their_columns.first().map_or("", String::as_str);
    let keys: Vec<String> = s.own_columns.iter().map(|c| format!("fk.{c}")).collect();
    let text = format!(
        "SELECT {} FROM ONLY {} fk LEFT JOIN ONLY {} pk ON ({}) WHERE pk.{first} IS NULL AND ({}) LIMIT 1",
        keys.join(", "),
        name_of(&s.referencing),
        name_of(&s.referenced),
        join.join(" AND "),
        given.join(if full { " OR " } else { " AND " })
    );
    session.refresh_catalog();
    let front_end = session.front_end;
    let statements = front_end.parse(&text)?;
    let statement = statements.first().ok_or_else(|| SqlError::internal("a constraint's question"))?;
    let user = std::mem::replace(&mut session.user, s.referencing.owner);
    let outer = session.variables.take();
    let ran = among_all_committed(session, |session| {
        let prepared = front_end.prepare(session, statement, &[])?;
        let mut portal = Portal::open(session, prepared, Vec::new())?;
        let mut sink = Collect::default();
        portal.run(session, 1, &mut sink)?;
        Ok::<_, SqlError>(sink.rows.pop())
    });
    session.variables = outer;
    session.user = user;
    match ran? {
        None => Ok(()),
        Some(key) if full && key.iter().any(Datum::is_null) => {
            let message = format!("insert or update on table \"{}\" violates foreign key constraint \"{}\"", s.referencing.name, c.name);
            Err(SqlError::new(SqlState::FOREIGN_KEY_VIOLATION, message)
                .detail("MATCH FULL does not allow mixing of null and nonnull key values.")
                .constraint(&s.referencing.namespace_name, &s.referencing.name, &c.name))
        }
        Some(key) => Err(not_present(session, c, &s, &key)),
    }
}
