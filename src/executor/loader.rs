//! Putting many rows into a table: COPY FROM, CREATE TABLE AS. Rows go to the heap a page at a time, then their index entries.

use std::sync::Arc;

use afterimage_wal::Xid;

use super::ddl::index::{bind_expressions, key_text};
use super::eval::{Exec, ExecState};
use super::front_end::TableExpr;
use super::large::RowWriter;
use super::modify::index_error;
use super::plan::TableWriter;
use super::{referential, trigger};
use crate::access::btree::{self, Inserted, UniqueProbe};
use crate::access::{RelHandle, Tid, heap};
use crate::executor::SessionContext;
use crate::sql::catalog::index_key::EntryBytes;
use crate::sql::catalog::relation::{Index, Relation, Trigger};
use crate::sql::types::{Datum, oids, text_out};
use crate::sqlstate::{SqlError, SqlState};

/// Rows kept before they are written.
const BATCH_ROWS: usize = 1000;
/// Bytes of rows kept before they are written.
const BATCH_BYTES: usize = 256 * 1024;

/// Writes rows to one table.
pub(crate) struct Loader {
    relation: Arc<Relation>,
    handle: RelHandle,
    indexes: Vec<LoadIndex>,
    checks: Vec<(Arc<str>, TableExpr)>,
    /// Generated columns: position, expression.
    generated: Vec<(usize, TableExpr)>,
    /// Rows to be written, one behind the other, and where each ends.
    rows: Vec<u8>,
    ends: Vec<usize>,
    /// Their values, where indexes or foreign keys want them.
    values: Vec<Vec<Datum>>,
    written: u64,
    /// Rows are visible to everyone at once: COPY FREEZE.
    frozen: bool,
    tids: Vec<Tid>,
    entry: EntryBytes,
    /// What the rows ask of foreign keys, and triggers after them.
    events: referential::Events,
    /// The table's triggers, if it has any and they are to fire.
    triggers: Option<Arc<TableWriter>>,
}

struct LoadIndex {
    index: Arc<Index>,
    handle: RelHandle,
    expressions: Vec<TableExpr>,
    predicate: Option<TableExpr>,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("relation", &self.relation.name).field("written", &self.written).finish_non_exhaustive()
    }
}

impl Loader {
    /// A loader of a table that the caller locked.
    pub(crate) fn new(ctx: &mut SessionContext, relation: Arc<Relation>) -> Result<Self, SqlError> {
        let handle = relation.rel_handle().ok_or_else(|| SqlError::internal("table without file"))?;
        let front_end = ctx.front_end;
        let mut indexes = Vec::new();
        for index in relation.indexes.iter().filter(|i| i.ready) {
            let (expressions, predicate) = bind_expressions(ctx, &relation, index)?;
            let handle = relation.index_handle(index);
            indexes.push(LoadIndex { index: index.clone(), handle, expressions, predicate });
        }
        let mut checks = Vec::new();
        for check in &relation.checks {
            let target = Some((oids::BOOL, -1));
            let expr = front_end.table_expression_text(ctx, &check.expression, Some(&relation), target, "check constraints")?;
            checks.push((check.name.clone(), expr));
        }
        let mut generated = Vec::new();
        for (i, column) in relation.columns.iter().enumerate() {
            if let (true, Some(text)) = (column.generated && !column.dropped, &column.default) {
                let target = Some((column.type_oid, column.typmod));
                let what = "column generation expressions";
                generated.push((i, front_end.table_expression_text(ctx, text, Some(&relation), target, what)?));
            }
        }
        Ok(Self {
            relation,
            handle,
            indexes,
            checks,
            generated,
            rows: Vec::new(),
            ends: Vec::new(),
            values: Vec::new(),
            written: 0,
            frozen: false,
            tids: Vec::new(),
            entry: EntryBytes::default(),
            events: referential::Events::default(),
            triggers: None,
        })
    }

    /// Rows are written as ones that everybody sees.
    ///
    /// # Errors
    /// 55000: the table's file is not new in the transaction, or the savepoint, at hand.
    pub(crate) fn freeze(&mut self, ctx: &mut SessionContext) -> Result<(), SqlError> {
        if !ctx.transaction()?.has_just_created(self.handle.file) {
            let message = "cannot perform COPY FREEZE because the table was not created or truncated in the current subtransaction";
            return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
        }
        self.frozen = true;
        Ok(())
    }

    /// Rows come as by INSERT: the table's triggers fire, those before the statement now.
    pub(crate) fn fire_triggers(&mut self, ctx: &mut SessionContext) -> Result<(), SqlError> {
        if self.relation.triggers.is_empty() {
            return Ok(());
        }
        let front_end = ctx.front_end;
        let writer = Arc::new(front_end.table_writer(ctx, &self.relation)?);
        ctx.transaction()?.write_cid();
        trigger::before_statement(ctx, &writer, Trigger::INSERT, None)?;
        self.triggers = Some(writer);
        Ok(())
    }

    fn has_triggers(&self, timing: i16) -> bool {
        self.triggers.as_ref().is_some_and(|t| t.has_triggers(true, timing, Trigger::INSERT))
    }

    /// Rows taken so far.
    pub(crate) fn count(&self) -> u64 {
        self.written + u64::try_from(self.ends.len()).unwrap_or(0)
    }

    /// Takes a row: a value per attribute, dropped ones included. The vector may be used again. False: a trigger did not want it.
    pub(crate) fn add(&mut self, ctx: &mut SessionContext, values: &mut Vec<Datum>) -> Result<bool, SqlError> {
        let single = self.has_triggers(Trigger::BEFORE);
        if single
            && let Some(writer) = &self.triggers
            && !trigger::before_row(ctx, writer, Trigger::INSERT, None, Some(values), None)?
        {
            return Ok(false);
        }
        for (i, expr) in &self.generated {
            let mut state = ExecState::bare();
            values[*i] = expr.code.eval(&mut Exec { session: ctx, state: &mut state }, values)?;
        }
        self.check(ctx, values)?;
        let engine = ctx.engine.clone();
        let writer = RowWriter::new(&engine, &ctx.settings, &self.relation);
        let txn = ctx.transaction.as_mut().ok_or_else(|| SqlError::internal("no transaction"))?;
        writer.write(txn, values, &[], &mut self.rows)?;
        self.ends.push(self.rows.len());
        if !self.indexes.is_empty() || referential::concerns(&self.relation) || self.has_triggers(0) {
            self.values.push(std::mem::take(values));
        }
        // A trigger before the next row may look at this one.
        if single || self.ends.len() >= BATCH_ROWS || self.rows.len() >= BATCH_BYTES {
            self.flush(ctx)?;
        }
        Ok(true)
    }

    fn check(&self, ctx: &mut SessionContext, values: &[Datum]) -> Result<(), SqlError> {
        let relation = &self.relation;
        for (column, value) in relation.columns.iter().zip(values) {
            if column.not_null && !column.dropped && value.is_null() {
                let message =
                    format!("null value in column \"{}\" of relation \"{}\" violates not-null constraint", column.name, relation.name);
                return Err(SqlError::new(SqlState::NOT_NULL_VIOLATION, message).detail(failing_row(ctx, relation, values)?).column(
                    &relation.namespace_name,
                    &relation.name,
                    &column.name,
                ));
            }
        }
        for (name, expr) in &self.checks {
            let mut state = ExecState::bare();
            let holds = expr.code.eval(&mut Exec { session: ctx, state: &mut state }, values)?;
            if matches!(holds, Datum::Bool(false)) {
                let message = format!("new row for relation \"{}\" violates check constraint \"{name}\"", relation.name);
                return Err(SqlError::new(SqlState::CHECK_VIOLATION, message).detail(failing_row(ctx, relation, values)?).constraint(
                    &relation.namespace_name,
                    &relation.name,
                    name,
                ));
            }
        }
        Ok(())
    }

    /// Writes what is kept.
    pub(crate) fn flush(&mut self, ctx: &mut SessionContext) -> Result<(), SqlError> {
        if self.ends.is_empty() {
            return Ok(());
        }
        ctx.check_cancel()?;
        let access = ctx.access();
        self.tids.clear();
        let mut start = 0;
        let rows: Vec<&[u8]> =
            self.ends.iter().map(|&end| self.rows.get(std::mem::replace(&mut start, end)..end).unwrap_or_default()).collect();
        heap::multi_insert(&access, ctx.transaction()?, &self.handle, &rows, self.frozen, &mut self.tids)?;
        self.written += u64::try_from(rows.len()).unwrap_or(0);
        self.rows.clear();
        self.ends.clear();
        let values = std::mem::take(&mut self.values);
        for (values, &tid) in values.iter().zip(&self.tids) {
            insert_entries(ctx, &self.relation, &self.handle, &self.indexes, values, tid, &mut self.entry, &mut self.events)?;
            referential::stored(&self.relation, &mut self.events, None, (tid, values));
            if let Some(writer) = &self.triggers {
                trigger::after_row(ctx, writer, Trigger::INSERT, (None, Some((tid, values))), None, &mut self.events)?;
            }
        }
        Ok(())
    }

    /// The last row is in: foreign keys look at all of them.
    pub(crate) fn finish(&mut self, ctx: &mut SessionContext) -> Result<(), SqlError> {
        self.flush(ctx)?;
        if let Some(writer) = &self.triggers {
            trigger::after_statement(ctx, writer, Trigger::INSERT, None, &mut self.events)?;
        }
        ctx.transaction()?.command_counter_increment()?;
        referential::after_statement(ctx, std::mem::take(&mut self.events))
    }
}

#[expect(clippy::too_many_arguments, reason = "one caller; a struct would only rename them")]
fn insert_entries(
    ctx: &mut SessionContext,
    relation: &Relation,
    heap: &RelHandle,
    indexes: &[LoadIndex],
    values: &[Datum],
    tid: Tid,
    entry: &mut EntryBytes,
    events: &mut referential::Events,
) -> Result<(), SqlError> {
    let access = ctx.access();
    for load in indexes {
        let mut state = ExecState::bare();
        if let Some(predicate) = &load.predicate {
            let holds = predicate.code.eval(&mut Exec { session: ctx, state: &mut state }, values)?;
            if !holds.is_true() {
                continue;
            }
        }
        let mut key_values = Vec::with_capacity(load.index.columns.len());
        let mut expressions = load.expressions.iter();
        for column in &load.index.columns {
            key_values.push(match usize::try_from(column.attnum).ok().and_then(|n| n.checked_sub(1)) {
                Some(i) => values.get(i).cloned().unwrap_or_default(),
                None => match expressions.next() {
                    Some(e) => e.code.eval(&mut Exec { session: ctx, state: &mut state }, values)?,
                    None => Datum::Null,
                },
            });
        }
        super::large::unpack_entry(&access, &load.index, &mut key_values)?;
        let unique = load.index.encode_entry(&key_values, entry)?;
        let xid: Xid = ctx.transaction()?.xid()?;
        let inserted = if unique && !load.index.immediate {
            let t = ctx.transaction()?;
            let index = (&*load.index, &load.handle);
            referential::enter_deferrable(&access, t, (relation, heap), index, tid, entry.item(), events)
                .map_err(|e| index_error(e, &load.index))?;
            Inserted::Yes
        } else {
            let mut probe = heap::Probe::new(&access, *heap, ctx.transaction()?);
            let probe = unique.then_some((&mut probe as &mut dyn UniqueProbe, entry.key.len()));
            btree::insert(&access, xid, &load.handle, entry.item(), tid, probe).map_err(|e| index_error(e, &load.index))?
        };
        if let Some(s) = ctx.transaction()?.serializable().filter(|_| load.handle.is_marked()) {
            s.wrote_key(load.handle.file, &entry.key)?;
        }
        if let Inserted::Duplicate(_) = inserted {
            let name = &load.index.name;
            let message = format!("duplicate key value violates unique constraint \"{name}\"");
            let key = key_text(ctx, relation, &load.index, &key_values)?;
            return Err(SqlError::new(SqlState::UNIQUE_VIOLATION, message).detail(format!("Key {key} already exists.")).constraint(
                &relation.namespace_name,
                &relation.name,
                name,
            ));
        }
    }
    Ok(())
}

/// `Failing row contains (1, abc, null).` PostgreSQL: `ExecBuildSlotValueDescription`.
pub(crate) fn failing_row(ctx: &SessionContext, relation: &Relation, values: &[Datum]) -> Result<String, SqlError> {
    const MAX: usize = 64;
    let mut parts = Vec::new();
    for (column, value) in relation.columns.iter().zip(values).filter(|(c, _)| !c.dropped) {
        if value.is_null() {
            parts.push("null".to_owned());
            continue;
        }
        let mut out = Vec::new();
        text_out(value, column.type_oid, &mut out, ctx.io())?;
        let text = String::from_utf8_lossy(&out);
        if text.len() <= MAX {
            parts.push(text.into_owned());
        } else {
            let end = (0..=MAX).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
            parts.push(format!("{}...", &text[..end]));
        }
    }
    Ok(format!("Failing row contains ({}).", parts.join(", ")))
}
