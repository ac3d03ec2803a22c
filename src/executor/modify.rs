//! INSERT, UPDATE, DELETE: rows, their indexes, their constraints.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::eval::{Exec, Row};
use super::hash::same_value;
use super::large::{self, RowWriter};
use super::node::Node;
use super::plan::{Command, IndexSource, IndexWriter, MergeDo, Modify, OnConflict, PlanNode, PlanOp, TableWriter};
use super::referential;
use super::scan::{datum_tid, low_half, tid_datum};
use super::trigger::{self, event_of};
use crate::access::btree::{self, Inserted, UniqueProbe};
use crate::access::heap::{self, ChangeOptions, ChangeResult, UpdateOptions};
use crate::access::{AccessError, RelHandle, Tid};
use crate::engine::Engine;
use crate::sql::catalog::index_key::EntryBytes;
use crate::sql::catalog::relation::{Persistence, Trigger};
use crate::sql::catalog::{Index, Relation};
use crate::sql::types::{self, Datum, IoSettings, row};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{Isolation, LockMode, RowLockMode, Transaction, WaitPolicy};

/// 40001 for a row changed since the snapshot.
pub(super) fn concurrent_update() -> SqlError {
    SqlError::new(SqlState::SERIALIZATION_FAILURE, "could not serialize access due to concurrent update")
}

/// 40001 for a row deleted since the snapshot.
pub(super) fn concurrent_delete() -> SqlError {
    SqlError::new(SqlState::SERIALIZATION_FAILURE, "could not serialize access due to concurrent delete")
}

/// A row about to be stored violates nothing that can be seen without looking at other rows.
///
/// # Errors
/// 23502, 23514; what the expressions fail with.
pub fn check_row(x: &mut Exec<'_>, table: &TableWriter, values: &mut Row) -> Result<(), SqlError> {
    for (i, code) in &table.generated {
        let v = code.eval(x, values)?;
        if let Some(slot) = values.get_mut(*i) {
            *slot = v;
        }
    }
    for i in &table.not_null {
        if values.get(*i).is_none_or(Datum::is_null) {
            let name = table.relation.columns.get(*i).map_or("?", |c| &*c.name);
            return Err(SqlError::new(
                SqlState::NOT_NULL_VIOLATION,
                format!("null value in column \"{name}\" of relation \"{}\" violates not-null constraint", table.relation.name),
            )
            .detail(failing_row(x, &table.relation, values)?)
            .column(&table.relation.namespace_name, &table.relation.name, name));
        }
    }
    for (name, code) in &table.checks {
        if matches!(code.eval(x, values)?, Datum::Bool(false)) {
            return Err(SqlError::new(
                SqlState::CHECK_VIOLATION,
                format!("new row for relation \"{}\" violates check constraint \"{name}\"", table.relation.name),
            )
            .detail(failing_row(x, &table.relation, values)?)
            .constraint(&table.relation.namespace_name, &table.relation.name, name));
        }
    }
    Ok(())
}

fn value_text(v: &Datum, ty: types::Oid, io: &IoSettings, max: usize) -> String {
    if v.is_null() {
        return "null".to_owned();
    }
    let mut out = Vec::new();
    if types::text_out(v, ty, &mut out, io).is_err() {
        return "?".to_owned();
    }
    let text = String::from_utf8_lossy(&out);
    if text.len() <= max {
        return text.into_owned();
    }
    let cut = (0..=max).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    format!("{}...", text.get(..cut).unwrap_or(""))
}

fn failing_row(x: &Exec<'_>, relation: &Relation, values: &[Datum]) -> Result<String, SqlError> {
    let mut values = values.to_vec();
    large::unpack_row(x.session.engine.ctx(), &mut values)?;
    let io = x.session.io();
    let texts: Vec<String> =
        relation.columns.iter().zip(&values).filter(|(c, _)| !c.dropped).map(|(c, v)| value_text(v, c.type_oid, io, 64)).collect();
    Ok(format!("Failing row contains ({}).", texts.join(", ")))
}

/// The values of a row in an index, of keys and INCLUDE columns; `None` if the index does not cover the row.
fn key_values(x: &mut Exec<'_>, w: &IndexWriter, values: &[Datum]) -> Result<Option<Row>, SqlError> {
    if let Some(p) = &w.predicate
        && !p.holds(x, values)?
    {
        return Ok(None);
    }
    let mut key = Row::with_capacity(w.columns.len());
    for source in &w.columns {
        key.push(match source {
            IndexSource::Attribute(i) => values.get(*i).cloned().unwrap_or_default(),
            IndexSource::Expression(code) => code.eval(x, values)?,
        });
    }
    large::unpack_entry(x.session.engine.ctx(), &w.index, &mut key)?;
    Ok(Some(key))
}

fn duplicate(x: &Exec<'_>, table: &TableWriter, w: &IndexWriter, key: &[Datum]) -> SqlError {
    let relation = &table.relation;
    let names: Vec<String> = w
        .index
        .keys()
        .iter()
        .map(|k| match &k.expression {
            Some(text) => text.to_string(),
            None => relation.attribute(k.attnum).map_or_else(|| "?".to_owned(), |c| c.name.to_string()),
        })
        .collect();
    let texts: Vec<String> = w.index.keys().iter().zip(key).map(|(k, v)| value_text(v, k.type_oid, x.session.io(), usize::MAX)).collect();
    SqlError::new(SqlState::UNIQUE_VIOLATION, format!("duplicate key value violates unique constraint \"{}\"", w.index.name))
        .detail(format!("Key ({})=({}) already exists.", names.join(", "), texts.join(", ")))
        .constraint(&relation.namespace_name, &relation.name, &w.index.name)
}

/// Enters a row into its table's indexes. `only`: those that depend on one of these attributes.
///
/// # Errors
/// 23505.
pub fn insert_index_entries(x: &mut Exec<'_>, table: &TableWriter, rel: &RelHandle, values: &[Datum], tid: Tid) -> Result<(), SqlError> {
    for w in &table.indexes {
        if let Some(key) = insert_entry(x, table, w, rel, values, tid)? {
            return Err(duplicate(x, table, w, &key));
        }
    }
    Ok(())
}

/// What a row puts into one index.
struct Entry {
    key: Row,
    bytes: EntryBytes,
    /// The key counts for uniqueness: the index is unique, and no NULL stands in the way.
    unique: bool,
    index: RelHandle,
}

impl Entry {
    /// `None` where the index leaves the row out.
    fn of(x: &mut Exec<'_>, table: &TableWriter, w: &IndexWriter, values: &[Datum]) -> Result<Option<Self>, SqlError> {
        let Some(key) = key_values(x, w, values)? else { return Ok(None) };
        let mut bytes = EntryBytes { key: Vec::with_capacity(32), carried: Vec::new() };
        let unique = w.index.encode_entry(&key, &mut bytes)?;
        Ok(Some(Self { key, bytes, unique, index: table.relation.index_handle(&w.index) }))
    }

    /// Tells a SERIALIZABLE transaction of the key.
    fn note_written(&self, t: &Transaction) -> Result<(), SqlError> {
        if let Some(s) = t.serializable().filter(|_| self.index.is_marked()) {
            s.wrote_key(self.index.file, &self.bytes.key)?;
        }
        Ok(())
    }
}

/// Enters a row into one index; the key if it is there already.
fn insert_entry(
    x: &mut Exec<'_>,
    table: &TableWriter,
    w: &IndexWriter,
    rel: &RelHandle,
    values: &[Datum],
    tid: Tid,
) -> Result<Option<Row>, SqlError> {
    let Some(entry) = Entry::of(x, table, w, values)? else { return Ok(None) };
    let Entry { bytes, index, .. } = &entry;
    let engine: Arc<Engine> = x.state.engine()?.clone();
    let ctx = engine.ctx();
    let t = x.session.transaction()?;
    let xid = t.xid()?;
    let inserted = if entry.unique && !w.index.immediate {
        let events = &mut x.state.foreign;
        referential::enter_deferrable(ctx, t, (&table.relation, rel), (&w.index, index), tid, bytes.item(), events).map(|()| Inserted::Yes)
    } else {
        let mut probe = heap::Probe::new(ctx, *rel, t);
        let probe: Option<(&mut dyn UniqueProbe, usize)> = if entry.unique { Some((&mut probe, bytes.key.len())) } else { None };
        btree::insert(ctx, xid, index, bytes.item(), tid, probe)
    };
    let inserted = inserted.map_err(|e| index_error(e, &w.index))?;
    // Before a duplicate is reported: what hides behind it may be a serialization failure, which is worth a retry.
    entry.note_written(t)?;
    match inserted {
        Inserted::Yes => Ok(None),
        Inserted::Duplicate(_) => Ok(Some(entry.key)),
    }
}

/// Enters a row into an index that decides about ON CONFLICT, waiting for nobody; true: another row has the key, or may have it.
fn insert_perhaps(
    x: &mut Exec<'_>,
    table: &TableWriter,
    w: &IndexWriter,
    rel: &RelHandle,
    values: &[Datum],
    tid: Tid,
) -> Result<bool, SqlError> {
    let Some(entry) = Entry::of(x, table, w, values)? else { return Ok(false) };
    let Entry { bytes, index, .. } = &entry;
    let engine: Arc<Engine> = x.state.engine()?.clone();
    let ctx = engine.ctx();
    let t = x.session.transaction()?;
    let xid = t.xid()?;
    let mut probe = heap::HastyProbe(heap::Probe::new(ctx, *rel, t));
    let probe: Option<(&mut dyn UniqueProbe, usize)> = if entry.unique { Some((&mut probe, bytes.key.len())) } else { None };
    let mut inserted = btree::insert(ctx, xid, index, bytes.item(), tid, probe);
    let conflict = matches!(inserted, Ok(Inserted::Duplicate(_)));
    if conflict {
        // The row goes away again, but its entry is there as that of any dead row is.
        inserted = btree::insert(ctx, xid, index, bytes.item(), tid, None);
    }
    inserted.map_err(|e| index_error(e, &w.index))?;
    entry.note_written(t)?;
    Ok(conflict)
}

/// Computes the expressions of an index for a row that is in it. What comes of it is known, but functions are called as often as PostgreSQL calls
/// them, which compares the values it gets: `check_exclusion_or_unique_constraint`.
fn compute_again(x: &mut Exec<'_>, table: &TableWriter, w: &IndexWriter, rel: &RelHandle, tid: Tid) -> Result<(), SqlError> {
    if !w.columns.iter().any(|c| matches!(c, IndexSource::Expression(_))) {
        return Ok(());
    }
    let engine: Arc<Engine> = x.state.engine()?.clone();
    let Some(bytes) = heap::row_bytes(engine.ctx(), rel, tid)? else { return Ok(()) };
    let count = table.desc.len();
    let mut values = vec![Datum::Null; count];
    row::decode(&table.desc, &bytes, count, &mut values)?;
    key_values(x, w, &values).map(drop)
}

/// An index's failure; a key that is too long names its index.
pub(super) fn index_error(e: AccessError, index: &Index) -> SqlError {
    let too_big = matches!(e, AccessError::KeyTooBig { .. });
    let e = SqlError::from(e);
    if too_big { e.with_message(|m| format!("{m} for index \"{}\"", index.name)) } else { e }
}

/// ON CONFLICT DO NOTHING may not tell of a row that the transaction's snapshot does not see. PostgreSQL: `ExecCheckTupleVisible`.
///
/// # Errors
/// 40001.
fn conflict_is_seen(x: &mut Exec<'_>, engine: &Arc<Engine>, rel: &RelHandle, existing: Tid) -> Result<(), SqlError> {
    let t = x.session.transaction()?;
    if t.isolation() == Isolation::ReadCommitted {
        return Ok(());
    }
    let heap::Liveness::Live(tid) = heap::liveness(engine.ctx(), t, rel, existing)? else { return Ok(()) };
    let snapshot = x.state.snapshot()?.clone();
    let seen = heap::fetch_exact(engine.ctx(), rel, tid, &snapshot, |_, _| ())?.is_some();
    if seen || inserted_by_this_command(engine, rel, tid, &snapshot, x.session.transaction()?)? { Ok(()) } else { Err(concurrent_update()) }
}

/// INSERT, UPDATE, DELETE.
pub struct ModifyNode {
    plan: Arc<PlanNode>,
    child: Box<dyn Node>,
    row: Row,
    values: Row,
    bytes: Vec<u8>,
    rel: Option<RelHandle>,
    /// What is done with the row at hand: the command, or what MERGE chose.
    act: Command,
    /// Attributes that UPDATE sets, by index.
    set: Vec<usize>,
    /// Where the row was before it was changed.
    before: Option<Tid>,
    /// ON CONFLICT updated a row, and noted that.
    noted: bool,
    /// ON CONFLICT updated the row at hand.
    met: bool,
    /// The last row was changed, and triggers after the statement are queued.
    done: bool,
}

impl ModifyNode {
    pub(super) fn new(plan: Arc<PlanNode>, child: Box<dyn Node>) -> Self {
        Self {
            plan,
            child,
            row: Row::new(),
            values: Row::new(),
            bytes: Vec::new(),
            rel: None,
            act: Command::Select,
            set: Vec::new(),
            before: None,
            noted: false,
            met: false,
            done: false,
        }
    }

    /// Inserts `self.values`: the row's place, or `None` if ON CONFLICT took another way.
    fn insert(&mut self, x: &mut Exec<'_>, m: &Modify, rel: &RelHandle) -> Result<Option<Tid>, SqlError> {
        if m.table.has_triggers(true, Trigger::BEFORE, Trigger::INSERT)
            && !trigger::before_row(x.session, &m.table, Trigger::INSERT, None, Some(&mut self.values), None)?
        {
            return Ok(None);
        }
        check_row(x, &m.table, &mut self.values)?;
        let engine = x.state.engine()?.clone();
        let cid = x.state.snapshot()?.cid();
        let Some(conflict) = &m.on_conflict else {
            self.encode(x, m)?;
            let tid = x.session.transaction()?.at_command(cid, |t| heap::insert(engine.ctx(), t, rel, &self.bytes))?;
            insert_index_entries(x, &m.table, rel, &self.values, tid)?;
            return Ok(Some(tid));
        };
        loop {
            x.session.check_cancel()?;
            if let Some(existing) = self.find_conflict(x, m, conflict, rel)? {
                let Some(update) = &conflict.update else {
                    conflict_is_seen(x, &engine, rel, existing)?;
                    return Ok(None);
                };
                match self.conflict_update(x, m, update, rel, existing)? {
                    Conflict::Done(tid) => return Ok(tid),
                    Conflict::Again => continue,
                }
            }
            self.encode(x, m)?;
            let tid = x.session.transaction()?.at_command(cid, |t| heap::insert(engine.ctx(), t, rel, &self.bytes))?;
            // Until it is in all indexes the row may go away again: who finds it meanwhile waits for no more than that.
            let (token, mode) = (heap::speculative_tag(rel, tid), LockMode::Exclusive);
            x.session.transaction()?.lock(token, mode, WaitPolicy::Block)?;
            let mut lost = false;
            for (i, w) in m.table.indexes.iter().enumerate() {
                let arbiter = if conflict.arbiters.is_empty() { w.index.unique } else { conflict.arbiters.contains(&i) };
                if arbiter {
                    lost |= insert_perhaps(x, &m.table, w, rel, &self.values, tid)?;
                } else if let Some(key) = insert_entry(x, &m.table, w, rel, &self.values, tid)? {
                    return Err(duplicate(x, &m.table, w, &key));
                }
            }
            if lost {
                // Somebody was faster. The search starts over, and waits for him.
                let t = x.session.transaction()?;
                t.command_counter_increment()?;
                let snapshot = t.latest_snapshot()?;
                t.at_command(cid, |t| heap::delete(engine.ctx(), t, rel, &snapshot, tid, ChangeOptions::default()))?;
                if let Some(toast) = &m.table.desc.toast {
                    let pointers = row::pointers(&m.table.desc, &self.bytes)?;
                    large::delete_values(engine.ctx(), x.session.transaction()?, toast, &pointers)?;
                }
            }
            x.session.transaction()?.unlock(token, mode);
            if !lost {
                return Ok(Some(tid));
            }
        }
    }

    /// `self.values` as they will lie in the table, large ones stored.
    fn encode(&mut self, x: &mut Exec<'_>, m: &Modify) -> Result<(), SqlError> {
        self.bytes.clear();
        let engine = x.session.engine.clone();
        let writer = RowWriter::new(&engine, &x.session.settings, &m.table.relation);
        writer.write(x.session.transaction()?, &self.values, &[], &mut self.bytes)
    }

    /// A row that conflicts with `self.values` in an arbiter index.
    fn find_conflict(&mut self, x: &mut Exec<'_>, m: &Modify, conflict: &OnConflict, rel: &RelHandle) -> Result<Option<Tid>, SqlError> {
        for (i, w) in m.table.indexes.iter().enumerate() {
            let arbiter = if conflict.arbiters.is_empty() { w.index.unique } else { conflict.arbiters.contains(&i) };
            if !arbiter {
                continue;
            }
            if !w.index.immediate {
                let message = "ON CONFLICT does not support deferrable unique constraints/exclusion constraints as arbiters";
                let relation = &m.table.relation;
                let error = SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message);
                return Err(error.constraint(&relation.namespace_name, &relation.name, &w.index.name));
            }
            let Some(entry) = Entry::of(x, &m.table, w, &self.values)?.filter(|entry| entry.unique) else { continue };
            let engine = x.state.engine()?.clone();
            loop {
                let t = x.session.transaction()?;
                let mut probe = heap::HastyProbe(heap::Probe::new(engine.ctx(), *rel, t));
                let Some(tid) = btree::find_duplicate(engine.ctx(), &entry.index, &entry.bytes.key, &mut probe)? else { break };
                let found = heap::liveness(engine.ctx(), t, rel, tid)?;
                if let heap::Liveness::Live(at) | heap::Liveness::Inserting(at, _) | heap::Liveness::Deleting(at, _) = found {
                    compute_again(x, &m.table, w, rel, at)?;
                }
                match found {
                    heap::Liveness::Live(_) => return Ok(Some(tid)),
                    heap::Liveness::Inserting(at, xid) | heap::Liveness::Deleting(at, xid) => {
                        heap::wait_for_writer(engine.ctx(), x.session.transaction()?, rel, at, xid)?;
                    }
                    heap::Liveness::Dead => {}
                }
            }
        }
        Ok(None)
    }

    fn conflict_update(
        &mut self,
        x: &mut Exec<'_>,
        m: &Modify,
        update: &super::plan::ConflictUpdate,
        rel: &RelHandle,
        existing: Tid,
    ) -> Result<Conflict, SqlError> {
        let engine = x.state.engine()?.clone();
        // The index names the chain's root; the live version may be further on.
        let t = x.session.transaction()?;
        let existing = match heap::liveness(engine.ctx(), t, rel, existing)? {
            heap::Liveness::Live(tid) => tid,
            heap::Liveness::Inserting(..) | heap::Liveness::Deleting(..) | heap::Liveness::Dead => return Ok(Conflict::Again),
        };
        // A row this very command inserted or updated already.
        let own = x.state.snapshot()?.clone();
        if inserted_by_this_command(&engine, rel, existing, &own, x.session.transaction()?)? {
            return Err(twice());
        }
        let t = x.session.transaction()?;
        let latest = t.latest_snapshot()?;
        // As an UPDATE of these columns would: who only refers to the row need not wait.
        let key = update.set.iter().any(|(i, _)| m.table.key_attributes.contains(i));
        let mode = if key { RowLockMode::Update } else { RowLockMode::NoKeyUpdate };
        let passing = heap::PassingLock::new(t, rel, existing, mode);
        match heap::lock_row(engine.ctx(), t, rel, &latest, existing, mode, WaitPolicy::Block)? {
            ChangeResult::Done { .. } => {}
            ChangeResult::SelfModified { .. } => return Err(twice()),
            ChangeResult::Updated { .. } | ChangeResult::Deleted { .. } | ChangeResult::Skipped => {
                if t.isolation() != Isolation::ReadCommitted {
                    return Err(concurrent_update());
                }
                return Ok(Conflict::Again);
            }
        }
        if t.isolation() != Isolation::ReadCommitted {
            let snapshot = x.state.snapshot()?.clone();
            if heap::fetch_exact(engine.ctx(), rel, existing, &snapshot, |_, _| ())?.is_none() {
                return Err(concurrent_update());
            }
        }
        let t = x.session.transaction()?;
        let old = match heap::fetch_latest(engine.ctx(), t, rel, existing, own.cid(), |_, bytes| bytes.to_vec())? {
            heap::Latest::Row(old) => old,
            heap::Latest::SelfModified { .. } => return Err(twice()),
            heap::Latest::Gone => return Ok(Conflict::Again),
        };
        let count = m.table.desc.len();
        let mut wide = vec![Datum::Null; count];
        row::decode(&m.table.desc, &old, count, &mut wide)?;
        wide.extend(m.system_columns(x, rel, existing, false)?);
        wide.extend_from_slice(&self.values);
        if let Some(c) = &update.condition
            && !c.holds(x, &wide)?
        {
            return Ok(Conflict::Done(None));
        }
        let mut new: Row = wide.get(..count).unwrap_or_default().to_vec();
        for (i, code) in &update.set {
            let v = code.eval(x, &wide)?;
            if let Some(slot) = new.get_mut(*i) {
                *slot = v;
            }
        }
        let old_values: Row = wide.into_iter().take(count).collect();
        if m.table.has_triggers(true, Trigger::BEFORE, Trigger::UPDATE) {
            let assigned: Vec<usize> = update.set.iter().map(|(i, _)| *i).collect();
            if !trigger::before_row(x.session, &m.table, Trigger::UPDATE, Some(&old_values), Some(&mut new), Some(&assigned))? {
                return Ok(Conflict::Done(None));
            }
        }
        check_row(x, &m.table, &mut new)?;
        self.bytes.clear();
        // The row is locked already: what is stored out of line will be pointed to.
        RowWriter::new(&engine, &x.session.settings, &m.table.relation).write(
            x.session.transaction.as_mut().ok_or_else(|| SqlError::internal("no transaction"))?,
            &new,
            &old_values,
            &mut self.bytes,
        )?;
        let options = update_options(&m.table, &old_values, &new);
        let cid = x.state.snapshot()?.cid();
        let result =
            x.session.transaction()?.at_command(cid, |t| heap::update(engine.ctx(), t, rel, &latest, existing, &self.bytes, options))?;
        match result {
            ChangeResult::Done { tid, hot } => {
                passing.give_up(x.session.transaction()?);
                if !hot {
                    insert_index_entries(x, &m.table, rel, &new, tid)?;
                }
                drop_values(x, m, &old, Some(&self.bytes))?;
                if m.foreign {
                    referential::note(x.state, &m.table.relation, Command::Update, tid, Some((existing, &*old_values)), &new);
                }
                if m.table.has_triggers(true, 0, Trigger::UPDATE) {
                    let assigned: Vec<usize> = update.set.iter().map(|(i, _)| *i).collect();
                    let change = (Some((existing, &*old_values)), Some((tid, &*new)));
                    trigger::after_row(x.session, &m.table, Trigger::UPDATE, change, Some(&assigned), &mut x.state.foreign)?;
                }
                self.noted = true;
                self.met = true;
                self.values = new;
                Ok(Conflict::Done(Some(tid)))
            }
            ChangeResult::SelfModified { .. } => Err(twice()),
            ChangeResult::Updated { .. } | ChangeResult::Deleted { .. } | ChangeResult::Skipped => Ok(Conflict::Again),
        }
    }

    /// Chooses what MERGE does with the input row at hand; for INSERT and UPDATE `self.values` is the row to store. False: nothing.
    fn choose(&mut self, x: &mut Exec<'_>, m: &Modify, matched: bool) -> Result<bool, SqlError> {
        for step in m.merge.iter().filter(|s| s.matched == matched) {
            if let Some(condition) = &step.condition
                && !condition.holds(x, &self.row)?
            {
                continue;
            }
            self.values.clear();
            match &step.kind {
                MergeDo::Nothing => return Ok(false),
                MergeDo::Delete => self.act = Command::Delete,
                MergeDo::Update(set) => {
                    self.act = Command::Update;
                    self.set = set.iter().map(|(i, _)| *i).collect();
                    self.values.extend_from_slice(self.row.get(..m.table.desc.len()).unwrap_or_default());
                    for (i, code) in set {
                        let v = code.eval(x, &self.row)?;
                        if let Some(slot) = self.values.get_mut(*i) {
                            *slot = v;
                        }
                    }
                }
                MergeDo::Insert(codes) => {
                    self.act = Command::Insert;
                    for code in codes {
                        let v = code.eval(x, &self.row)?;
                        self.values.push(v);
                    }
                }
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Updates or deletes the row of the input row at hand, or does what MERGE chooses: the new row's place, or `None` if nothing was done.
    fn change(&mut self, x: &mut Exec<'_>, m: &Modify, rel: &RelHandle) -> Result<Option<Tid>, SqlError> {
        let engine = x.state.engine()?.clone();
        let snapshot = x.state.snapshot()?.clone();
        let mut at = self.row.get(m.tid).and_then(datum_tid);
        let count = m.table.desc.len();
        let merge = m.command == Command::Merge;
        loop {
            if merge && !self.choose(x, m, at.is_some())? {
                return Ok(None);
            }
            if self.act == Command::Insert {
                return self.insert(x, m, rel);
            }
            let Some(tid) = at else { return Ok(None) };
            let event = event_of(self.act);
            let triggers = m.table.has_triggers(true, Trigger::BEFORE, event);
            if let Some(crosscheck) = &x.state.crosscheck
                && heap::fetch_exact(engine.ctx(), rel, tid, crosscheck, |_, _| ())?.is_none()
            {
                return Err(concurrent_update());
            }
            let mut passing: SmallVec<[heap::PassingLock; 2]> = SmallVec::new();
            let result = if triggers && let Some(other) = self.lock_for_triggers(x, m, rel, tid, &mut passing)? {
                other
            } else if self.act == Command::Update {
                if !merge {
                    self.values.clear();
                    self.values.extend_from_slice(self.row.get(..count).unwrap_or_default());
                    for (attribute, column) in &m.assigned {
                        let v = self.row.get(*column).cloned().unwrap_or_default();
                        if let Some(slot) = self.values.get_mut(*attribute) {
                            *slot = v;
                        }
                    }
                }
                if triggers {
                    let old = self.row.get(..count).unwrap_or_default();
                    if !trigger::before_row(x.session, &m.table, event, Some(old), Some(&mut self.values), Some(&self.set))? {
                        return Ok(None);
                    }
                }
                check_row(x, &m.table, &mut self.values)?;
                self.bytes.clear();
                let old = self.row.get(..count).unwrap_or_default();
                let options = update_options(&m.table, old, &self.values);
                let writer = RowWriter::new(&engine, &x.session.settings, &m.table.relation);
                let t = x.session.transaction.as_mut().ok_or_else(|| SqlError::internal("no transaction"))?;
                let mut locked = ChangeResult::Done { tid, hot: false };
                if let Some(wide) = writer.start(&self.values, old, &mut self.bytes)? {
                    // Nothing is stored out of line for an update that does not come to be: nobody would find it again.
                    let mode = if options.key_changed { RowLockMode::Update } else { RowLockMode::NoKeyUpdate };
                    passing.push(heap::PassingLock::new(t, rel, tid, mode));
                    locked = heap::lock_row(engine.ctx(), t, rel, &snapshot, tid, mode, options.wait)?;
                    if matches!(locked, ChangeResult::Done { .. }) {
                        writer.finish(t, wide, &mut self.bytes)?;
                    }
                }
                match locked {
                    ChangeResult::Done { .. } => {
                        t.at_command(snapshot.cid(), |t| heap::update(engine.ctx(), t, rel, &snapshot, tid, &self.bytes, options))?
                    }
                    ChangeResult::Updated { .. }
                    | ChangeResult::Deleted { .. }
                    | ChangeResult::SelfModified { .. }
                    | ChangeResult::Skipped => locked,
                }
            } else {
                if triggers {
                    let old = self.row.get(..count).unwrap_or_default();
                    if !trigger::before_row(x.session, &m.table, event, Some(old), None, None)? {
                        return Ok(None);
                    }
                }
                let t = x.session.transaction()?;
                t.at_command(snapshot.cid(), |t| heap::delete(engine.ctx(), t, rel, &snapshot, tid, ChangeOptions::default()))?
            };
            let newest = match result {
                ChangeResult::Updated { next, .. } => {
                    let t = x.session.transaction()?;
                    if t.isolation() != Isolation::ReadCommitted {
                        return Err(concurrent_update());
                    }
                    heap::fetch_latest(engine.ctx(), t, rel, next, snapshot.cid(), |tid, bytes| (tid, bytes.to_vec()))?
                }
                ChangeResult::SelfModified { same_command } => heap::Latest::SelfModified { same_command },
                ChangeResult::Deleted { .. } => {
                    if x.session.transaction()?.isolation() != Isolation::ReadCommitted {
                        return Err(concurrent_delete());
                    }
                    heap::Latest::Gone
                }
                ChangeResult::Skipped => return Ok(None),
                ChangeResult::Done { tid: new, hot } => {
                    let t = x.session.transaction()?;
                    passing.into_iter().rev().for_each(|lock| lock.give_up(t));
                    self.before = Some(tid);
                    if m.table.desc.toast.is_some()
                        && let Some(old) = heap::row_bytes(engine.ctx(), rel, tid)?
                    {
                        drop_values(x, m, &old, (self.act == Command::Update).then_some(&self.bytes))?;
                    }
                    if self.act == Command::Update {
                        if !hot {
                            insert_index_entries(x, &m.table, rel, &self.values, new)?;
                        }
                    } else if m.old_values {
                        self.values.clear();
                        self.values.extend_from_slice(self.row.get(..count).unwrap_or_default());
                    }
                    return Ok(Some(new));
                }
            };
            match newest {
                heap::Latest::SelfModified { same_command: true } if merge => return Err(merged_twice()),
                // A join gave the row twice: the first change stands.
                heap::Latest::SelfModified { same_command: true } => return Ok(None),
                heap::Latest::SelfModified { same_command: false } => {
                    return Err(modified_by_trigger(if merge { m.command } else { self.act }));
                }
                heap::Latest::Gone if !merge => return Ok(None),
                newest @ (heap::Latest::Gone | heap::Latest::Row(_)) => {
                    let mut replaced: FxHashMap<usize, Option<(Tid, Vec<u8>)>> = FxHashMap::default();
                    replaced.insert(m.scan_id, newest.row());
                    self.companions(x, m, &mut replaced)?;
                    match x.recheck(&m.child, replaced)? {
                        Some(row) => self.row = row,
                        None => return Ok(None),
                    }
                    at = self.row.get(m.tid).and_then(datum_tid);
                }
            }
        }
    }

    /// Locks the row before its triggers see it, so that what they see is what is changed. `None`: it is locked, else what came between.
    fn lock_for_triggers(
        &self,
        x: &mut Exec<'_>,
        m: &Modify,
        rel: &RelHandle,
        tid: Tid,
        passing: &mut SmallVec<[heap::PassingLock; 2]>,
    ) -> Result<Option<ChangeResult>, SqlError> {
        let engine = x.state.engine()?.clone();
        let snapshot = x.state.snapshot()?.clone();
        let key = self.act == Command::Delete || self.set.iter().any(|i| m.table.key_attributes.contains(i));
        let mode = if key { RowLockMode::Update } else { RowLockMode::NoKeyUpdate };
        let t = x.session.transaction()?;
        passing.push(heap::PassingLock::new(t, rel, tid, mode));
        let locked = heap::lock_row(engine.ctx(), t, rel, &snapshot, tid, mode, WaitPolicy::Block)?;
        Ok(if matches!(locked, ChangeResult::Done { .. }) { None } else { Some(locked) })
    }

    /// Queues what a changed row asks of foreign keys and triggers.
    fn note(&mut self, x: &mut Exec<'_>, m: &Modify, tid: Tid) -> Result<(), SqlError> {
        let event = event_of(self.act);
        let after = m.table.has_triggers(true, 0, event);
        if std::mem::take(&mut self.noted) || !(m.foreign || after) {
            return Ok(());
        }
        let old = self.row.get(..m.table.desc.len()).unwrap_or_default();
        if m.foreign {
            referential::note(x.state, &m.table.relation, self.act, tid, self.before.map(|tid| (tid, old)), &self.values);
        }
        if !after {
            return Ok(());
        }
        let (before, now) = (self.before.map(|tid| (tid, old)), Some((tid, &*self.values)));
        let change = match self.act {
            Command::Insert => (None, now),
            Command::Delete => (before, None),
            Command::Update | Command::Select | Command::Merge => (before, now),
        };
        let set = (self.act == Command::Update).then_some(&*self.set);
        trigger::after_row(x.session, &m.table, event, change, set, &mut x.state.foreign)
    }

    /// Calls triggers before the statement, or queues those after it.
    fn statement_triggers(&self, x: &mut Exec<'_>, m: &Modify, before: bool) -> Result<(), SqlError> {
        if m.table.triggers.is_empty() {
            return Ok(());
        }
        let own = (event_of(m.command), (m.command == Command::Update).then(|| assigned(m)));
        let mut events = vec![own];
        if m.command == Command::Merge {
            let has = |f: &dyn Fn(&MergeDo) -> bool| m.merge.iter().any(|s| f(&s.kind));
            let set = |k: &MergeDo| if let MergeDo::Update(set) = k { set.iter().map(|(i, _)| *i).collect() } else { Vec::new() };
            events = Vec::new();
            if has(&|k| matches!(k, MergeDo::Insert(_))) {
                events.push((Trigger::INSERT, None));
            }
            if has(&|k| matches!(k, MergeDo::Update(_))) {
                events.push((Trigger::UPDATE, Some(m.merge.iter().flat_map(|s| -> Vec<usize> { set(&s.kind) }).collect())));
            }
            if has(&|k| matches!(k, MergeDo::Delete)) {
                events.push((Trigger::DELETE, None));
            }
        }
        if let Some(update) = m.on_conflict.as_ref().and_then(|c| c.update.as_ref()) {
            events.push((Trigger::UPDATE, Some(update.set.iter().map(|(i, _)| *i).collect())));
        }
        if !before {
            events.reverse();
        }
        for (event, set) in events {
            if before {
                trigger::before_statement(x.session, &m.table, event, set.as_deref())?;
            } else {
                trigger::after_statement(x.session, &m.table, event, set.as_deref(), &mut x.state.foreign)?;
            }
        }
        Ok(())
    }

    /// The rows of the other tables that go with the row at hand.
    fn companions(&self, x: &mut Exec<'_>, m: &Modify, replaced: &mut FxHashMap<usize, Option<(Tid, Vec<u8>)>>) -> Result<(), SqlError> {
        if m.companions.is_empty() {
            return Ok(());
        }
        let engine = x.state.engine()?.clone();
        let stmt = x.state.plan()?.clone();
        for (scan_id, column) in &m.companions {
            let entry = match self.row.get(*column).and_then(datum_tid) {
                Some(tid) => match find_scan(&stmt.root, *scan_id) {
                    Some(rel) => heap::fetch_exact(engine.ctx(), &rel, tid, x.state.snapshot()?, |tid, bytes| (tid, bytes.to_vec()))?,
                    None => continue,
                },
                None => None,
            };
            replaced.insert(*scan_id, entry);
        }
        Ok(())
    }

    /// RETURNING's row.
    fn returning(&mut self, x: &mut Exec<'_>, m: &Modify, tid: Tid, out: &mut Row) -> Result<(), SqlError> {
        out.clear();
        let Some(codes) = &m.returning else { return Ok(()) };
        let mut wide = std::mem::take(&mut self.values);
        let rel = self.rel.ok_or_else(|| SqlError::internal("a change that has not begun"))?;
        wide.extend(m.system_columns(x, &rel, tid, self.met)?);
        if m.command != Command::Insert {
            wide.extend_from_slice(&self.row);
        }
        for code in codes {
            let v = code.eval(x, &wide)?;
            out.push(v);
        }
        self.values = wide;
        Ok(())
    }
}

impl Modify {
    /// The system columns of a version of the target, as `Self::SYSTEM_COLUMNS` lists them. `met`: ON CONFLICT made it of a row that it had to
    /// lock; PostgreSQL leaves the locker in xmax, and people tell by that whether a row was inserted.
    fn system_columns(&self, x: &Exec<'_>, rel: &RelHandle, tid: Tid, met: bool) -> Result<[Datum; 6], SqlError> {
        let mut columns = [tid_datum(tid), Datum::Oid(self.table.relation.oid), Datum::Null, Datum::Null, Datum::Null, Datum::Null];
        if !self.shows_xids {
            return Ok(columns);
        }
        let buffer = x.access()?.pool.read(rel.file, afterimage_wal::ids::Fork::Main, tid.block)?;
        let page = buffer.read();
        if let Some(h) = heap::tuple::header(&page, tid.offset) {
            let xmax = if met && !h.xmax.is_valid() { h.xmin } else { h.xmax };
            let [_, _, xmin, cmin, end, cmax] = &mut columns;
            (*xmin, *end) = (low_half(h.xmin), low_half(xmax));
            (*cmin, *cmax) = (Datum::Oid(h.cid), Datum::Oid(h.cid));
        }
        Ok(columns)
    }
}

/// Deletes the large values of a row's old version that its new one, if there is one, does not have.
fn drop_values(x: &mut Exec<'_>, m: &Modify, old: &[u8], new: Option<&Vec<u8>>) -> Result<(), SqlError> {
    let Some(toast) = &m.table.desc.toast else { return Ok(()) };
    let mut pointers = row::pointers(&m.table.desc, old)?;
    if pointers.is_empty() {
        return Ok(());
    }
    if let Some(new) = new {
        let kept = row::pointers(&m.table.desc, new)?;
        pointers.retain(|p| !kept.contains(p));
    }
    let engine = x.session.engine.clone();
    large::delete_values(engine.ctx(), x.session.transaction()?, toast, &pointers)
}

/// Attributes that SET names, by index.
fn assigned(m: &Modify) -> Vec<usize> {
    m.assigned.iter().map(|(i, _)| *i).collect()
}

/// 21000: two rows of MERGE's source match one of its target.
fn merged_twice() -> SqlError {
    SqlError::new(SqlState::CARDINALITY_VIOLATION, "MERGE command cannot affect row a second time")
        .hint("Ensure that not more than one source row matches any one target row.")
}

/// 27000: a function that the statement called changed the row the statement is to change.
fn modified_by_trigger(command: Command) -> SqlError {
    let verb = match command {
        Command::Update => "updated",
        Command::Merge => "updated or deleted",
        Command::Insert | Command::Delete | Command::Select => "deleted",
    };
    let message = format!("tuple to be {verb} was already modified by an operation triggered by the current command");
    SqlError::new(SqlState::TRIGGERED_DATA_CHANGE_VIOLATION, message)
        .hint("Consider using an AFTER trigger instead of a BEFORE trigger to propagate changes to other rows.")
}

enum Conflict {
    Done(Option<Tid>),
    Again,
}

fn twice() -> SqlError {
    SqlError::new(SqlState::CARDINALITY_VIOLATION, "ON CONFLICT DO UPDATE command cannot affect row a second time")
        .hint("Ensure that no rows proposed for insertion within the same command have duplicate constrained values.")
}

/// Was the version made by the running command?
fn inserted_by_this_command(
    engine: &Arc<Engine>,
    rel: &RelHandle,
    tid: Tid,
    snapshot: &crate::txn::Snapshot,
    t: &Transaction,
) -> Result<bool, SqlError> {
    let buffer = engine.ctx().pool.read(rel.file, afterimage_wal::ids::Fork::Main, tid.block)?;
    let page = buffer.read();
    Ok(heap::tuple::header(&page, tid.offset).is_some_and(|h| t.owns(h.xmin) && h.cid >= snapshot.cid()))
}

/// The file of a scan somewhere in a plan.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these nodes matter here")]
fn find_scan(node: &PlanNode, scan_id: usize) -> Option<RelHandle> {
    let own = match &node.op {
        PlanOp::SeqScan(s) | PlanOp::TidScan(s, _) => Some(s),
        PlanOp::IndexScan(i) => Some(&i.scan),
        _ => None,
    };
    if let Some(s) = own {
        return if s.scan_id == scan_id { s.relation.rel_handle() } else { None };
    }
    super::explain::children(node).into_iter().find_map(|c| find_scan(c, scan_id))
}

fn update_options(table: &TableWriter, old: &[Datum], new: &[Datum]) -> UpdateOptions {
    let changed = |i: &usize| match (old.get(*i), new.get(*i)) {
        (Some(a), Some(b)) => !same_value(a, b),
        _ => true,
    };
    UpdateOptions {
        wait: WaitPolicy::Block,
        hot_ok: !table.coming.iter().chain(table.indexes.iter().flat_map(|w| &w.attributes)).any(changed),
        key_changed: table.key_attributes.iter().any(changed),
    }
}

impl Node for ModifyNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let plan = self.plan.clone();
        let PlanOp::Modify(m) = &plan.op else { return Err(SqlError::internal("a node got another node's plan")) };
        let rel = match self.rel {
            Some(rel) => rel,
            None => {
                let rel = m.table.relation.rel_handle().ok_or_else(|| SqlError::internal("table without a file"))?;
                let word = match m.command {
                    Command::Insert => "INSERT",
                    Command::Update => "UPDATE",
                    Command::Merge => "MERGE",
                    Command::Delete | Command::Select => "DELETE",
                };
                if m.table.relation.persistence != Persistence::Temporary {
                    x.session.transaction()?.check_writable(word)?;
                }
                self.rel = Some(rel);
                self.act = m.command;
                self.set = assigned(m);
                self.statement_triggers(x, m, true)?;
                rel
            }
        };
        out.clear();
        loop {
            let mut row = std::mem::take(&mut self.row);
            let found = self.child.next(x, &mut row)?;
            self.row = row;
            if !found {
                if !std::mem::replace(&mut self.done, true) {
                    self.statement_triggers(x, m, false)?;
                }
                return Ok(false);
            }
            let done = if m.command == Command::Insert {
                self.values.clear();
                self.values.append(&mut self.row);
                self.met = false;
                self.insert(x, m, &rel)?
            } else {
                self.change(x, m, &rel)?
            };
            let Some(tid) = done else { continue };
            self.note(x, m, tid)?;
            count_row(x, &plan);
            if m.returning.is_some() {
                self.returning(x, m, tid, out)?;
                return Ok(true);
            }
        }
    }

    fn rescan(&mut self, _x: &mut Exec<'_>) -> Result<(), SqlError> {
        Err(SqlError::internal("a change cannot run twice"))
    }
}

/// Counts for the command tag: only the statement's own rows, not those of changes in WITH.
fn count_row(x: &mut Exec<'_>, plan: &Arc<PlanNode>) {
    let own = x.state.plan.as_ref().is_some_and(|p| Arc::ptr_eq(&p.root, plan));
    if own {
        x.state.processed += 1;
    }
}
