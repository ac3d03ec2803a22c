//! Runs a PL/pgSQL body. PostgreSQL: pl_exec.c.

use std::sync::Arc;

use pg_query::NodeEnum;
use rustc_hash::FxHashMap;

use super::ast::{Block, Expr, Function, Into, Raise, Rows, Stmt, StmtKind, Target, Variable};
use super::conditions;
use crate::executor::context::Notice;
use crate::executor::eval::{Exec, ExecState};
use crate::executor::routine::{RoutinePlan, VariableName, Variables};
use crate::executor::sink::{Collect, Discard};
use crate::executor::trigger::TriggerCall;
use crate::executor::{ColumnDesc, Portal, PortalStatus, Prepared, RawStmt, RowSink, SessionContext, StmtKind as Kind, ValueStore};
use crate::sql::catalog::relation::Trigger;
use crate::sql::parse::parse_statements;
use crate::sql::types::{self, ArrayValue, ColDesc, Datum, Oid, RecordValue, TupleDesc, oids, registry};
use crate::sqlstate::{Reach, SqlError, SqlState};

/// Rows a loop fetches at once.
const BATCH: u64 = 50;

/// A body ready to run: its tree with types.
pub(super) struct Compiled {
    pub(super) tree: Function,
    /// A number of its own, for what sessions keep of it.
    pub(super) id: usize,
    /// If it names row types: the catalogs' version it was made under.
    pub(super) rows_of: Option<Option<u64>>,
    /// Signature, as messages name it.
    pub(super) signature: String,
    pub(super) types: Arc<[(Oid, i32)]>,
    /// Columns of variables declared as rows of a table.
    pub(super) shapes: Vec<Option<Arc<TupleDesc>>>,
    /// Names in scope, by scope.
    pub(super) names: Vec<Arc<[VariableName]>>,
    pub(super) returns: Returns,
}

/// What a function gives back.
#[derive(Clone, Debug)]
pub(super) enum Returns {
    /// Nothing: `void`, DO, a procedure without OUT arguments.
    Nothing,
    /// A value of a type.
    Value(Oid, i32),
    /// A row.
    Row(Option<Arc<TupleDesc>>),
    /// A row of the table, or nothing.
    Trigger,
    /// What OUT arguments hold: one is a value, several are a row.
    Out(Vec<usize>, Arc<TupleDesc>),
}

/// What a statement ended with.
enum Flow {
    Next,
    Exit(Option<String>),
    Continue(Option<String>),
    Return,
}

/// One call.
pub(super) struct Run<'a> {
    session: &'a mut SessionContext,
    f: &'a Compiled,
    values: Vec<Datum>,
    /// Those of the body, and of the values CASE tests as they came.
    types: Arc<[(Oid, i32)]>,
    shapes: Vec<Option<Arc<TupleDesc>>>,
    returned: Option<Datum>,
    /// Rows of a set-returning function.
    set: Option<ValueStore>,
    /// Errors whose handlers run, innermost last.
    handled: Vec<SqlError>,
    cursors: FxHashMap<usize, (Portal, Vec<ColumnDesc>)>,
    row_count: i64,
    /// Where it is, for CONTEXT.
    place: (u32, &'static str),
    /// For expressions that need no execution.
    state: ExecState,
}

/// The result of a call.
pub(super) enum Outcome {
    Value(Datum),
    Set(ValueStore),
}

/// Runs a body with its arguments.
pub(super) fn call(session: &mut SessionContext, f: &Compiled, arguments: &[Datum], set: bool) -> Result<Outcome, SqlError> {
    let mut values = vec![Datum::Null; f.types.len()];
    for (slot, value) in values.iter_mut().zip(arguments) {
        *slot = value.clone();
    }
    let mut run = Run {
        session,
        f,
        values,
        types: Arc::clone(&f.types),
        shapes: f.shapes.clone(),
        returned: None,
        set: set.then(ValueStore::default),
        handled: Vec::new(),
        cursors: FxHashMap::default(),
        row_count: 0,
        place: (0, ""),
        state: ExecState::bare(),
    };
    run.body_of_function()
}

/// Runs a trigger's function.
pub(super) fn trigger(session: &mut SessionContext, f: &Compiled, call: TriggerCall<'_>) -> Result<Option<Vec<Datum>>, SqlError> {
    let TriggerCall { trigger, table, event, old, new } = call;
    let Some(first) = f.tree.trigger else { return Err(SqlError::internal("a function that is no trigger's")) };
    let mut values = vec![Datum::Null; f.types.len()];
    let mut shapes = f.shapes.clone();
    let is_row = trigger.kind & Trigger::ROW != 0;
    let columns = table.columns.iter().map(|c| ColDesc { dropped: c.dropped, ..ColDesc::new(&c.name, c.type_oid, c.typmod) });
    let desc = Arc::new(TupleDesc::new(columns.collect()));
    for (n, row) in [old, new].into_iter().enumerate() {
        // Triggers for statements leave them unassigned; for rows, one that does not apply is a row of NULLs.
        if is_row && let (Some(shape), Some(slot)) = (shapes.get_mut(first + n), values.get_mut(first + n)) {
            *shape = Some(Arc::clone(&desc));
            if let Some(row) = row {
                *slot = Datum::Record(Arc::new(RecordValue::anonymous(Arc::clone(&desc), row)));
            }
        }
    }
    let when = match trigger.kind & Trigger::TIMING {
        Trigger::BEFORE => "BEFORE",
        Trigger::INSTEAD => "INSTEAD OF",
        _ => "AFTER",
    };
    let op = match event {
        Trigger::INSERT => "INSERT",
        Trigger::DELETE => "DELETE",
        Trigger::UPDATE => "UPDATE",
        _ => "TRUNCATE",
    };
    let args: Vec<Datum> = trigger.args.iter().map(|a| Datum::text(&**a)).collect();
    let said = [
        Datum::text(&*trigger.name),
        Datum::text(when),
        Datum::text(if is_row { "ROW" } else { "STATEMENT" }),
        Datum::text(op),
        Datum::Oid(table.oid),
        Datum::text(&*table.name),
        Datum::text(&*table.name),
        Datum::text(&*table.namespace_name),
        Datum::Int4(i32::try_from(args.len()).unwrap_or(i32::MAX)),
        if args.is_empty() { Datum::Null } else { Datum::array(ArrayValue::with_lower(oids::TEXT, args, 0)) },
    ];
    for (slot, value) in values.iter_mut().skip(first + 2).zip(said) {
        *slot = value;
    }
    let mut run = Run {
        session,
        f,
        values,
        types: Arc::clone(&f.types),
        shapes,
        returned: None,
        set: None,
        handled: Vec::new(),
        cursors: FxHashMap::default(),
        row_count: 0,
        place: (0, ""),
        state: ExecState::bare(),
    };
    let record = match run.body_of_function()? {
        Outcome::Value(Datum::Record(record)) if is_row => record,
        Outcome::Value(_) | Outcome::Set(_) => return Ok(None),
    };
    if Arc::ptr_eq(&record.desc, &desc) {
        return Ok(Some(record.values.to_vec()));
    }
    run.fit_to_table(&record, &desc).map(Some)
}

impl Run<'_> {
    fn body_of_function(&mut self) -> Result<Outcome, SqlError> {
        let f = self.f;
        self.assign_bool(f.tree.found, false);
        let flow = self.block(&f.tree.body)?;
        if let Flow::Exit(_) | Flow::Continue(_) = flow {
            let what = if matches!(flow, Flow::Exit(_)) { "EXIT" } else { "CONTINUE" };
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("{what} cannot be used outside a loop, unless it has a label")));
        }
        self.result(matches!(flow, Flow::Return))
    }

    /// A row that a trigger made up, as a row of its table: by place.
    fn fit_to_table(&self, record: &RecordValue, desc: &Arc<TupleDesc>) -> Result<Vec<Datum>, SqlError> {
        let mismatch = |detail: String| {
            let message = "returned row structure does not match the structure of the triggering table";
            let context = format!("PL/pgSQL function {} during function exit", self.f.signature);
            SqlError::new(SqlState::DATATYPE_MISMATCH, message).detail(detail).context(context)
        };
        let mut out = Vec::with_capacity(desc.len());
        let mut from = record.desc.cols.iter().zip(record.values.iter()).filter(|(c, _)| !c.dropped);
        let mut place = 0;
        for col in &desc.cols {
            if col.dropped {
                out.push(Datum::Null);
                continue;
            }
            place += 1;
            let Some((source, value)) = from.next() else { break };
            if source.type_oid != col.type_oid || (source.typmod != col.typmod && source.typmod >= 0) {
                let name = |c: &ColDesc| types::format_type(c.type_oid, c.typmod);
                return Err(mismatch(format!(
                    "Returned type {} does not match expected type {} in column {place}.",
                    name(source),
                    name(col)
                )));
            }
            out.push(value.clone());
        }
        let live = |d: &TupleDesc| d.cols.iter().filter(|c| !c.dropped).count();
        let (found, wanted) = (live(&record.desc), live(desc));
        if found != wanted {
            return Err(mismatch(format!("Number of returned columns ({found}) does not match expected column count ({wanted}).")));
        }
        Ok(out)
    }
}

fn type_desc(columns: &[ColumnDesc]) -> Arc<TupleDesc> {
    Arc::new(TupleDesc::new(columns.iter().map(|c| ColDesc::new(&c.name, c.type_oid, c.typmod)).collect()))
}

fn is_shape_of(desc: &TupleDesc, columns: &[ColumnDesc]) -> bool {
    desc.cols.len() == columns.len()
        && desc.cols.iter().zip(columns).all(|(a, b)| *a.name == *b.name && a.type_oid == b.type_oid && a.typmod == b.typmod)
}

fn same_shape(a: &Option<Arc<TupleDesc>>, b: &Option<Arc<TupleDesc>>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            Arc::ptr_eq(a, b)
                || (a.cols.len() == b.cols.len()
                    && a.cols.iter().zip(&b.cols).all(|(a, b)| a.name == b.name && a.type_oid == b.type_oid && a.typmod == b.typmod))
        }
        _ => false,
    }
}

fn null_into(v: &Variable) -> SqlError {
    SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, format!("null value cannot be assigned to variable \"{}\" declared NOT NULL", v.name))
}

/// Rows a command tag counts.
fn count_of(tag: &str) -> i64 {
    tag.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

impl Run<'_> {
    fn result(&mut self, returned: bool) -> Result<Outcome, SqlError> {
        if let Some(rows) = self.set.take() {
            return Ok(Outcome::Set(rows));
        }
        Ok(Outcome::Value(match &self.f.returns {
            Returns::Nothing => Datum::Void,
            Returns::Out(variables, desc) => self.out_value(variables, desc),
            Returns::Trigger => match self.returned.take() {
                Some(value) if returned => value,
                _ => {
                    let state = SqlState::FUNCTION_EXECUTED_NO_RETURN_STATEMENT;
                    return Err(SqlError::new(state, "control reached end of trigger procedure without RETURN")
                        .context(format!("PL/pgSQL function {}", self.f.signature)));
                }
            },
            Returns::Value(..) | Returns::Row(_) => match self.returned.take() {
                Some(value) if returned => value,
                _ => {
                    let state = SqlState::FUNCTION_EXECUTED_NO_RETURN_STATEMENT;
                    return Err(SqlError::new(state, "control reached end of function without RETURN")
                        .context(format!("PL/pgSQL function {}", self.f.signature)));
                }
            },
        }))
    }

    fn out_value(&self, variables: &[usize], desc: &Arc<TupleDesc>) -> Datum {
        let value = |i: &usize| self.values.get(*i).cloned().unwrap_or_default();
        match variables {
            [one] => value(one),
            several => {
                let values = several.iter().map(value).collect();
                Datum::Record(Arc::new(RecordValue::anonymous(Arc::clone(desc), values)))
            }
        }
    }

    // ---- statements

    /// Where an error happened, added to it once per function.
    fn located(&self, e: SqlError) -> SqlError {
        if e.fields().reach != Reach::Statement {
            return e;
        }
        let (line, name) = self.place;
        let here = if line == 0 {
            format!("PL/pgSQL function {} {name}", self.f.signature)
        } else {
            format!("PL/pgSQL function {} line {line} at {name}", self.f.signature)
        };
        let context = match &e.fields().context {
            Some(inner) => format!("{inner}\n{here}"),
            None => here,
        };
        e.context(context)
    }

    fn block(&mut self, block: &Block) -> Result<Flow, SqlError> {
        for &variable in &block.declared {
            if let Err(e) = self.declare(variable) {
                let line = self.f.tree.variables.get(variable).map_or(0, |v| v.line);
                self.place = (line, "during statement block local variable initialization");
                let context = format!(
                    "{}PL/pgSQL function {} line {line} during statement block local variable initialization",
                    e.fields().context.as_ref().map_or_else(String::new, |c| format!("{c}\n")),
                    self.f.signature
                );
                return Err(e.context(context));
            }
        }
        if block.handlers.is_empty() {
            let flow = self.body(&block.body)?;
            return Ok(match flow {
                Flow::Exit(Some(label)) if block.label.as_ref() == Some(&label) => Flow::Next,
                other @ Flow::Next | other @ Flow::Exit(_) | other @ Flow::Continue(_) | other @ Flow::Return => other,
            });
        }
        let mark = self.session.transaction()?.begin_sub(None);
        self.session.settings.begin_level();
        let cursors: Vec<usize> = self.cursors.keys().copied().collect();
        match self.body(&block.body) {
            Ok(flow) => {
                self.session.transaction()?.release_sub(mark);
                self.session.settings.end_level(true);
                Ok(match flow {
                    Flow::Exit(Some(label)) if block.label.as_ref() == Some(&label) => Flow::Next,
                    other @ Flow::Next | other @ Flow::Exit(_) | other @ Flow::Continue(_) | other @ Flow::Return => other,
                })
            }
            Err(e) => {
                if e.fields().reach != Reach::Statement {
                    return Err(e);
                }
                self.cursors.retain(|c, _| cursors.contains(c));
                let stale = self.session.transaction()?.rollback_sub(mark)?;
                self.session.settings.end_level(false);
                if !stale.is_empty() {
                    self.session.routines.undone += 1;
                }
                self.session.refresh_catalog();
                let code = e.state().0;
                let catches = |state: &Option<String>| match state {
                    // OTHERS leaves a cancelled query and a failed assertion alone.
                    None => !matches!(code, "57014" | "P0004"),
                    // A class catches all its members.
                    Some(s) => s == code || (s.ends_with("000") && s.get(..2) == code.get(..2)),
                };
                let Some(handler) = block.handlers.iter().find(|h| h.states.iter().any(catches)) else { return Err(e) };
                // Whoever catches the cancel of a query goes on.
                self.session.cancel.reset();
                if let Some((state, message)) = block.error {
                    self.store(state, Datum::text(code));
                    self.store(message, Datum::text(&e.fields().message));
                }
                self.handled.push(e);
                let flow = self.body(&handler.body);
                self.handled.pop();
                Ok(match flow? {
                    Flow::Exit(Some(label)) if block.label.as_ref() == Some(&label) => Flow::Next,
                    other @ Flow::Next | other @ Flow::Exit(_) | other @ Flow::Continue(_) | other @ Flow::Return => other,
                })
            }
        }
    }

    fn declare(&mut self, variable: usize) -> Result<(), SqlError> {
        let f = self.f;
        let Some(v) = f.tree.variables.get(variable) else { return Ok(()) };
        if let Some(slot) = self.shapes.get_mut(variable) {
            slot.clone_from(f.shapes.get(variable).unwrap_or(&None));
        }
        self.store(variable, Datum::Null);
        match &v.default {
            Some(default) => self.assign(&Target::Variable(variable), default),
            None => Ok(()),
        }
    }

    fn body(&mut self, body: &[Stmt]) -> Result<Flow, SqlError> {
        for stmt in body {
            self.session.check_cancel()?;
            let outer = self.place;
            self.place = (stmt.line, stmt.kind.name());
            match self.statement(&stmt.kind) {
                Ok(Flow::Next) => self.place = outer,
                Ok(other) => return Ok(other),
                // Blocks and loops are places of statements; those have said where they are.
                Err(e) => {
                    let nested = matches!(
                        stmt.kind,
                        StmtKind::Block(_)
                            | StmtKind::If(..)
                            | StmtKind::Case(..)
                            | StmtKind::Loop(..)
                            | StmtKind::While(..)
                            | StmtKind::For(..)
                            | StmtKind::ForRows(..)
                            | StmtKind::ForEach(..)
                    );
                    let said = e.fields().context.as_ref().is_some_and(|c| c.contains(&format!("PL/pgSQL function {}", self.f.signature)));
                    let again = matches!(&stmt.kind, StmtKind::Raise(r) if r.level.is_none());
                    if (nested || again) && said {
                        return Err(e);
                    }
                    self.place = (stmt.line, stmt.kind.name());
                    return Err(self.located(e));
                }
            }
        }
        Ok(Flow::Next)
    }

    /// A loop's body once. `Some`: the loop ends so.
    fn turn(&mut self, label: Option<&String>, body: &[Stmt]) -> Result<Option<Flow>, SqlError> {
        self.session.check_cancel()?;
        Ok(match self.body(body)? {
            Flow::Next | Flow::Continue(None) => None,
            Flow::Exit(None) => Some(Flow::Next),
            Flow::Exit(Some(l)) if label == Some(&l) => Some(Flow::Next),
            Flow::Continue(Some(l)) if label == Some(&l) => None,
            other @ Flow::Exit(_) | other @ Flow::Continue(_) | other @ Flow::Return => Some(other),
        })
    }

    #[expect(clippy::too_many_lines, reason = "one arm per statement")]
    fn statement(&mut self, kind: &StmtKind) -> Result<Flow, SqlError> {
        match kind {
            StmtKind::Nothing => {}
            StmtKind::Block(block) => return self.block(block),
            StmtKind::Assign(target, value) => self.assign(target, value)?,
            StmtKind::If(arms, otherwise) => {
                for (condition, body) in arms {
                    if self.holds(condition)? {
                        return self.body(body);
                    }
                }
                return self.body(otherwise);
            }
            StmtKind::Case(tested, arms, otherwise) => {
                if let Some((variable, value)) = tested {
                    let (value, ty, typmod) = self.evaluate(value)?;
                    if self.variable_type(*variable) != (ty, typmod) {
                        let mut types = self.types.to_vec();
                        if let Some(slot) = types.get_mut(*variable) {
                            *slot = (ty, typmod);
                        }
                        self.types = types.into();
                    }
                    self.store(*variable, value);
                }
                for (condition, body) in arms {
                    if self.holds(condition)? {
                        return self.body(body);
                    }
                }
                return match otherwise {
                    Some(body) => self.body(body),
                    None => Err(SqlError::new(SqlState::CASE_NOT_FOUND, "case not found").hint("CASE statement is missing ELSE part.")),
                };
            }
            StmtKind::Loop(label, body) => loop {
                if let Some(flow) = self.turn(label.as_ref(), body)? {
                    return Ok(flow);
                }
            },
            StmtKind::While(label, condition, body) => {
                while self.holds(condition)? {
                    if let Some(flow) = self.turn(label.as_ref(), body)? {
                        return Ok(flow);
                    }
                }
            }
            StmtKind::For(label, variable, from, to, step, reverse, body) => {
                let bounds = (from, to, step.as_ref());
                return self.for_integers(label.as_ref(), *variable, bounds, *reverse, body);
            }
            StmtKind::ForRows(label, targets, rows, body) => return self.for_rows(label.as_ref(), targets, rows, body),
            StmtKind::ForEach(label, target, slice, array, body) => {
                return self.for_each(label.as_ref(), target, *slice, array, body);
            }
            StmtKind::Exit(exit, label, when) => {
                if match when {
                    Some(when) => self.holds(when)?,
                    None => true,
                } {
                    return Ok(if *exit { Flow::Exit(label.clone()) } else { Flow::Continue(label.clone()) });
                }
            }
            StmtKind::Return(value) => {
                if let Some(value) = value {
                    self.return_value(value)?;
                } else if let (Returns::Value(..) | Returns::Row(_) | Returns::Trigger, None) = (&self.f.returns, &self.set) {
                    return Err(SqlError::new(SqlState::SYNTAX_ERROR, "missing expression at or near \";\""));
                }
                return Ok(Flow::Return);
            }
            StmtKind::ReturnNext(value) => self.return_next(value.as_ref())?,
            StmtKind::ReturnQuery(rows) => self.return_query(rows)?,
            StmtKind::Raise(raise) => self.raise(raise)?,
            StmtKind::Assert(condition, message) => {
                if !self.holds(condition)? {
                    let text = match message {
                        Some(message) => self.text(message)?,
                        None => None,
                    };
                    return Err(SqlError::new(SqlState::ASSERT_FAILURE, text.unwrap_or_else(|| "assertion failed".into())));
                }
            }
            StmtKind::Perform(query) => {
                let plan = self.plan(query)?;
                let count = self.run_plan(query, &plan, &mut Discard)?;
                self.found(count);
            }
            StmtKind::Execute(text, into, using) => self.execute(text, into.as_ref(), using)?,
            StmtKind::Sql(statement, into) => self.sql(statement, into.as_ref())?,
            StmtKind::Diagnostics(stacked, items) => self.diagnostics(*stacked, items)?,
            StmtKind::Open(cursor, rows, arguments) => {
                if self.cursors.contains_key(cursor) {
                    return Err(SqlError::new(SqlState::DUPLICATE_CURSOR, format!("cursor \"{}\" already in use", self.name_of(*cursor))));
                }
                let opened = match rows {
                    Some(rows) => self.open(rows)?,
                    None => self.open(&Rows::Cursor(*cursor, arguments.clone()))?,
                };
                let name = self.name_of(*cursor).to_owned();
                self.store(*cursor, Datum::text(name));
                self.cursors.insert(*cursor, opened);
            }
            StmtKind::Fetch(cursor, targets) => {
                let Some((mut portal, columns)) = self.cursors.remove(cursor) else { return Err(self.no_cursor(*cursor)) };
                let mut sink = Collect::default();
                let ran = self.run_portal(&mut portal, 1, &mut sink);
                self.cursors.insert(*cursor, (portal, columns.clone()));
                ran?;
                let row = sink.rows.pop();
                self.found(i64::from(row.is_some()));
                if !targets.is_empty() {
                    self.assign_row(targets, row, &columns)?;
                }
            }
            StmtKind::Close(cursor) => {
                if self.cursors.remove(cursor).is_none() {
                    return Err(self.no_cursor(*cursor));
                }
            }
            StmtKind::Transaction(_) => {
                return Err(SqlError::new(SqlState::INVALID_TRANSACTION_TERMINATION, "invalid transaction termination"));
            }
        }
        Ok(Flow::Next)
    }

    fn no_cursor(&self, cursor: usize) -> SqlError {
        SqlError::new(SqlState::INVALID_CURSOR_NAME, format!("cursor \"{}\" does not exist", self.name_of(cursor)))
    }

    fn name_of(&self, variable: usize) -> &str {
        self.f.tree.variables.get(variable).map_or("", |v| &v.name)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
    fn for_integers(
        &mut self,
        label: Option<&String>,
        variable: usize,
        (from, to, step): (&Expr, &Expr, Option<&Expr>),
        reverse: bool,
        body: &[Stmt],
    ) -> Result<Flow, SqlError> {
        let mut bound = |what: &str, e: Option<&Expr>| -> Result<i64, SqlError> {
            let Some(e) = e else { return Ok(1) };
            match self.evaluate_as(e, oids::INT4, -1)? {
                Datum::Int4(n) => Ok(i64::from(n)),
                _ => Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, format!("{what} of FOR loop cannot be null"))),
            }
        };
        let mut value = bound("lower bound", Some(from))?;
        let last = bound("upper bound", Some(to))?;
        let step = bound("BY value", step)?;
        if step <= 0 {
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "BY value of FOR loop must be greater than zero"));
        }
        let mut any = false;
        let mut ended = Flow::Next;
        while if reverse { value >= last } else { value <= last } {
            any = true;
            self.store(variable, Datum::Int4(i32::try_from(value).unwrap_or(i32::MAX)));
            if let Some(flow) = self.turn(label, body)? {
                ended = flow;
                break;
            }
            value += if reverse { -step } else { step };
            if i32::try_from(value).is_err() {
                break;
            }
        }
        self.found(i64::from(any));
        Ok(ended)
    }

    fn for_rows(&mut self, label: Option<&String>, targets: &[Target], rows: &Rows, body: &[Stmt]) -> Result<Flow, SqlError> {
        let (mut portal, columns) = self.open(rows)?;
        let mut any = false;
        loop {
            let mut sink = Collect::default();
            let more = self.run_portal(&mut portal, BATCH, &mut sink)?;
            for row in sink.rows {
                any = true;
                self.assign_row(targets, Some(row), &columns)?;
                if let Some(flow) = self.turn(label, body)? {
                    self.found(1);
                    return Ok(flow);
                }
            }
            if !more {
                break;
            }
        }
        if !any {
            self.assign_row(targets, None, &columns)?;
        }
        self.found(i64::from(any));
        Ok(Flow::Next)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
    fn for_each(&mut self, label: Option<&String>, target: &Target, slice: usize, array: &Expr, body: &[Stmt]) -> Result<Flow, SqlError> {
        let (value, ty, _) = self.evaluate(array)?;
        let array = match value {
            Datum::Array(array) => array,
            Datum::Null => return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "FOREACH expression must not be null")),
            _ => {
                let message = format!("FOREACH expression must yield an array, not type {}", types::format_type(ty, -1));
                return Err(SqlError::new(SqlState::DATATYPE_MISMATCH, message));
            }
        };
        let (items, item_type): (Vec<Datum>, Oid) = if slice == 0 {
            (array.values.to_vec(), array.elem)
        } else {
            if slice > array.dims.len() {
                let message = format!("slice dimension ({slice}) is out of the valid range 0..{}", array.dims.len());
                return Err(SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, message));
            }
            let inner: Vec<_> = array.dims.iter().skip(array.dims.len() - slice).cloned().collect();
            let width: usize = inner.iter().map(|d| usize::try_from(d.len).unwrap_or(0)).product();
            let parts = array.values.chunks(width.max(1)).map(|chunk| {
                ArrayValue::shaped(array.elem, inner.iter().cloned().collect(), chunk.to_vec()).map(|a| Datum::Array(Arc::new(a)))
            });
            (parts.collect::<Result<_, _>>()?, ty)
        };
        let any = !items.is_empty();
        for item in items {
            self.assign_value(target, item, item_type, -1)?;
            if let Some(flow) = self.turn(label, body)? {
                self.found(1);
                return Ok(flow);
            }
        }
        self.found(i64::from(any));
        Ok(Flow::Next)
    }

    // ---- RETURN

    /// Fits a row to the function's own, by place.
    fn fit_row(&mut self, value: Datum, ty: Oid, desc: &Arc<TupleDesc>) -> Result<Datum, SqlError> {
        let Datum::Record(record) = value else {
            if value.is_null() {
                return Ok(Datum::Null);
            }
            let _ = ty;
            return Err(SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                "cannot return non-composite value from function returning composite type",
            ));
        };
        let live = |d: &TupleDesc| d.cols.iter().filter(|c| !c.dropped).count();
        if live(&record.desc) != live(desc) {
            let detail =
                format!("Number of returned columns ({}) does not match expected column count ({}).", live(&record.desc), live(desc));
            let message = "returned record type does not match expected record type";
            return Err(SqlError::new(SqlState::DATATYPE_MISMATCH, message).detail(detail));
        }
        let mut values = Vec::with_capacity(desc.len());
        let mut from = record.desc.cols.iter().zip(record.values.iter()).filter(|(c, _)| !c.dropped);
        for col in &desc.cols {
            if col.dropped {
                values.push(Datum::Null);
                continue;
            }
            let Some((source, value)) = from.next() else { break };
            let (source, value) = (source.type_oid, value.clone());
            values.push(self.convert(value, source, col.type_oid, col.typmod)?);
        }
        let type_oid = match self.f.returns {
            Returns::Value(ty, _) => ty,
            Returns::Row(_) | Returns::Nothing | Returns::Trigger | Returns::Out(..) => oids::RECORD,
        };
        Ok(Datum::Record(Arc::new(RecordValue { type_oid, desc: Arc::clone(desc), values: values.into() })))
    }

    fn return_value(&mut self, value: &Expr) -> Result<(), SqlError> {
        let f = self.f;
        if self.set.is_some() {
            return Err(SqlError::new(SqlState::DATATYPE_MISMATCH, "RETURN cannot have a parameter in function returning set")
                .hint("Use RETURN NEXT or RETURN QUERY."));
        }
        match &f.returns {
            Returns::Nothing => {
                return Err(SqlError::new(SqlState::DATATYPE_MISMATCH, "RETURN cannot have a parameter in function returning void"));
            }
            Returns::Out(..) => {
                return Err(SqlError::new(SqlState::DATATYPE_MISMATCH, "RETURN cannot have a parameter in function with OUT parameters"));
            }
            Returns::Value(ty, typmod) => {
                let value = self.evaluate_as(value, *ty, *typmod)?;
                self.returned = Some(value);
            }
            Returns::Trigger => {
                let (value, _, _) = self.evaluate(value)?;
                if !matches!(value, Datum::Null | Datum::Record(_)) {
                    let message = "cannot return non-composite value from function returning composite type";
                    return Err(SqlError::new(SqlState::DATATYPE_MISMATCH, message));
                }
                self.returned = Some(value);
            }
            Returns::Row(desc) => {
                let (value, ty, _) = self.evaluate(value)?;
                let value = match desc {
                    Some(desc) => self.fit_row(value, ty, desc)?,
                    None => value,
                };
                self.returned = Some(value);
            }
        }
        Ok(())
    }

    fn push_row(&mut self, row: Datum) -> Result<(), SqlError> {
        match &mut self.set {
            Some(rows) => rows.push(self.session, row),
            None => Err(SqlError::new(SqlState::DATATYPE_MISMATCH, "cannot use RETURN NEXT in a non-SETOF function")),
        }
    }

    fn return_next(&mut self, value: Option<&Expr>) -> Result<(), SqlError> {
        let f = self.f;
        let row = match (&f.returns, value) {
            (Returns::Out(variables, desc), None) => self.out_value(variables, desc),
            (Returns::Out(..), Some(_)) => {
                let message = "RETURN NEXT cannot have a parameter in function with OUT parameters";
                return Err(SqlError::new(SqlState::DATATYPE_MISMATCH, message));
            }
            (_, None) => return Err(SqlError::new(SqlState::SYNTAX_ERROR, "RETURN NEXT must have a parameter")),
            (Returns::Value(ty, typmod), Some(value)) => self.evaluate_as(value, *ty, *typmod)?,
            (Returns::Row(desc), Some(value)) => {
                let (value, ty, _) = self.evaluate(value)?;
                match desc {
                    Some(desc) => self.fit_row(value, ty, desc)?,
                    None => value,
                }
            }
            (Returns::Nothing | Returns::Trigger, Some(_)) => Datum::Void,
        };
        self.push_row(row)
    }

    fn return_query(&mut self, rows: &Rows) -> Result<(), SqlError> {
        let f = self.f;
        if self.set.is_none() {
            return Err(SqlError::new(SqlState::DATATYPE_MISMATCH, "cannot use RETURN QUERY in a non-SETOF function"));
        }
        let (mut portal, columns) = self.open(rows)?;
        let desc = type_desc(&columns);
        let mut count = 0;
        loop {
            let mut sink = Collect::default();
            let more = self.run_portal(&mut portal, BATCH, &mut sink)?;
            for row in sink.rows {
                count += 1;
                let record = Datum::Record(Arc::new(RecordValue::anonymous(Arc::clone(&desc), row.clone())));
                let value = match &f.returns {
                    Returns::Value(ty, typmod) => {
                        let ([value], [column]) = (row.as_slice(), columns.as_slice()) else {
                            return Err(SqlError::new(
                                SqlState::DATATYPE_MISMATCH,
                                "structure of query does not match function result type",
                            )
                            .detail(format!("Number of returned columns ({}) does not match expected column count (1).", columns.len())));
                        };
                        let (value, from) = (value.clone(), column.type_oid);
                        self.convert(value, from, *ty, *typmod)?
                    }
                    Returns::Out(_, shape) if shape.len() == 1 => {
                        let to = shape.cols.first().map_or((0, -1), |c| (c.type_oid, c.typmod));
                        let value = row.first().cloned().unwrap_or_default();
                        let from = columns.first().map_or(0, |c| c.type_oid);
                        self.convert(value, from, to.0, to.1)?
                    }
                    Returns::Out(_, shape) | Returns::Row(Some(shape)) => {
                        let shape = Arc::clone(shape);
                        self.fit_row(record, oids::RECORD, &shape)?
                    }
                    Returns::Row(None) | Returns::Nothing | Returns::Trigger => record,
                };
                self.push_row(value)?;
            }
            if !more {
                break;
            }
        }
        self.found(count);
        Ok(())
    }

    // ---- RAISE and diagnostics

    fn raise(&mut self, raise: &Raise) -> Result<(), SqlError> {
        let Some(level) = raise.level else {
            return Err(match self.handled.last() {
                Some(e) => e.clone(),
                None => SqlError::new(
                    SqlState::STACKED_DIAGNOSTICS_ACCESSED_WITHOUT_ACTIVE_HANDLER,
                    "RAISE without parameters cannot be used outside an exception handler",
                ),
            });
        };
        let mut state = raise.state.clone();
        let mut message = None;
        if let Some(format) = &raise.format {
            let mut text = String::new();
            let mut args = raise.args.iter();
            let mut chars = format.chars().peekable();
            while let Some(c) = chars.next() {
                if c != '%' {
                    text.push(c);
                } else if chars.peek() == Some(&'%') {
                    chars.next();
                    text.push('%');
                } else if let Some(arg) = args.next() {
                    let value = self.text(arg)?;
                    text.push_str(value.as_deref().unwrap_or("<NULL>"));
                }
            }
            message = Some(text);
        }
        let (mut detail, mut hint, mut names) = (None, None, [None, None, None, None]);
        for (option, value) in &raise.options {
            let Some(value) = self.text(value)? else {
                return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "RAISE statement option cannot be null"));
            };
            match option.as_str() {
                "errcode" => {
                    let is_code = value.len() == 5 && value.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
                    let named = conditions::states(&value).next();
                    state = Some(match named {
                        _ if is_code => value,
                        Some(code) => code.to_owned(),
                        None => {
                            return Err(SqlError::new(SqlState::UNDEFINED_OBJECT, format!("unrecognized exception condition \"{value}\"")));
                        }
                    });
                }
                "message" => {
                    if message.is_some() {
                        return Err(SqlError::new(SqlState::SYNTAX_ERROR, "RAISE option already specified: MESSAGE"));
                    }
                    message = Some(value);
                }
                "detail" => detail = Some(value),
                "hint" => hint = Some(value),
                "schema" => names[0] = Some(value),
                "table" => names[1] = Some(value),
                "column" => names[2] = Some(value),
                "constraint" => names[3] = Some(value),
                _ => {}
            }
        }
        let exception = level == "EXCEPTION";
        let message = message.or_else(|| raise.condition.clone()).or_else(|| state.clone()).unwrap_or_default();
        let code = match &state {
            Some(code) => SqlState::custom(code),
            None if exception => SqlState::RAISE_EXCEPTION,
            None if level == "WARNING" => SqlState::WARNING,
            None => SqlState::SUCCESSFUL_COMPLETION,
        };
        let mut e = SqlError::new(code, message);
        if let Some(detail) = detail {
            e = e.detail(detail);
        }
        if let Some(hint) = hint {
            e = e.hint(hint);
        }
        let [schema, table, column, constraint] = names;
        e = e.named(schema, table, column, constraint);
        if exception {
            return Err(e);
        }
        let severity = if level == "DEBUG" { "DEBUG1" } else { level };
        let fields = self.located(e);
        self.session.notices.push(Notice { severity, fields });
        self.session.tell();
        Ok(())
    }

    fn diagnostics(&mut self, stacked: bool, items: &[(Target, String)]) -> Result<(), SqlError> {
        for (target, item) in items {
            let text = |s: Option<&String>| Datum::text(s.map_or("", |s| s.as_str()));
            let (value, ty) = match (item.as_str(), stacked) {
                ("row_count", false) => (Datum::Int8(self.row_count), oids::INT8),
                ("pg_context", false) => {
                    let (line, name) = self.place;
                    (Datum::text(format!("PL/pgSQL function {} line {line} at {name}", self.f.signature)), oids::TEXT)
                }
                ("pg_routine_oid", false) => (Datum::Oid(0), oids::OID),
                (item, true) => {
                    let Some(e) = self.handled.last() else {
                        return Err(SqlError::new(
                            SqlState::STACKED_DIAGNOSTICS_ACCESSED_WITHOUT_ACTIVE_HANDLER,
                            "GET STACKED DIAGNOSTICS cannot be used outside an exception handler",
                        ));
                    };
                    let f = e.fields();
                    let value = match item {
                        "returned_sqlstate" => Datum::text(f.state.0),
                        "message_text" => Datum::text(&f.message),
                        "pg_exception_detail" => text(f.detail.as_ref()),
                        "pg_exception_hint" => text(f.hint.as_ref()),
                        "pg_exception_context" => text(f.context.as_ref()),
                        "schema_name" => text(f.schema.as_ref()),
                        "table_name" => text(f.table.as_ref()),
                        "column_name" => text(f.column.as_ref()),
                        "constraint_name" => text(f.constraint.as_ref()),
                        "pg_datatype_name" => text(None),
                        _ => return Err(SqlError::new(SqlState::SYNTAX_ERROR, "unrecognized GET DIAGNOSTICS item")),
                    };
                    (value, oids::TEXT)
                }
                _ => return Err(SqlError::new(SqlState::SYNTAX_ERROR, "unrecognized GET DIAGNOSTICS item")),
            };
            self.assign_value(target, value, ty, -1)?;
        }
        Ok(())
    }

    // ---- values

    fn store(&mut self, variable: usize, value: Datum) {
        if let Some(slot) = self.values.get_mut(variable) {
            *slot = value;
        }
    }

    fn assign_bool(&mut self, variable: usize, value: bool) {
        self.store(variable, Datum::Bool(value));
    }

    fn found(&mut self, count: i64) {
        self.row_count = count;
        self.assign_bool(self.f.tree.found, count > 0);
    }

    fn holds(&mut self, condition: &Expr) -> Result<bool, SqlError> {
        Ok(self.evaluate_as(condition, oids::BOOL, -1)?.is_true())
    }

    fn text(&mut self, e: &Expr) -> Result<Option<String>, SqlError> {
        let (value, ty, _) = self.evaluate(e)?;
        if value.is_null() {
            return Ok(None);
        }
        let mut out = Vec::new();
        types::text_out(&value, ty, &mut out, self.session.io())?;
        Ok(Some(String::from_utf8_lossy(&out).into_owned()))
    }

    fn evaluate_as(&mut self, e: &Expr, ty: Oid, typmod: i32) -> Result<Datum, SqlError> {
        let (value, from, _) = self.evaluate(e)?;
        self.convert(value, from, ty, typmod)
    }

    /// A value as another type, as an assignment makes it, else through text.
    fn convert(&mut self, value: Datum, from: Oid, to: Oid, typmod: i32) -> Result<Datum, SqlError> {
        if (from == to && typmod < 0) || to == 0 || to == oids::RECORD {
            return Ok(value);
        }
        let key = (from, to, typmod);
        let code = match self.session.routines.casts.get(&key) {
            Some(code) => Arc::clone(code),
            None => {
                let code = super::routine::cast_code(self.session, from, to, typmod)?;
                self.session.routines.casts.insert(key, Arc::clone(&code));
                code
            }
        };
        let value = code.eval(&mut Exec { session: self.session, state: &mut self.state }, &[value]);
        self.state.case_values.clear();
        value
    }

    fn assign(&mut self, target: &Target, value: &Expr) -> Result<(), SqlError> {
        let (value, ty, typmod) = self.evaluate(value)?;
        self.assign_value(target, value, ty, typmod)
    }

    fn variable_type(&self, variable: usize) -> (Oid, i32) {
        self.types.get(variable).copied().unwrap_or((0, -1))
    }

    fn is_row(&self, variable: usize) -> bool {
        self.variable_type(variable).0 == oids::RECORD || self.f.shapes.get(variable).is_some_and(Option::is_some)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
    fn assign_value(&mut self, target: &Target, value: Datum, from: Oid, _typmod: i32) -> Result<(), SqlError> {
        let f = self.f;
        match target {
            Target::Variable(variable) => {
                if self.is_row(*variable) {
                    return self.assign_record(*variable, value);
                }
                let (ty, typmod) = self.variable_type(*variable);
                let value = self.convert(value, from, ty, typmod)?;
                if let Some(v) = f.tree.variables.get(*variable)
                    && v.not_null
                    && value.is_null()
                {
                    return Err(null_into(v));
                }
                self.store(*variable, value);
            }
            Target::Field(variable, field) => {
                let Some(desc) = self.shapes.get(*variable).cloned().flatten() else { return Err(self.not_assigned(*variable)) };
                let Some(place) = desc.cols.iter().position(|c| !c.dropped && *c.name == **field) else {
                    let message = format!("record \"{}\" has no field \"{field}\"", self.name_of(*variable));
                    return Err(SqlError::new(SqlState::UNDEFINED_COLUMN, message));
                };
                let (ty, typmod) = desc.cols.get(place).map_or((0, -1), |c| (c.type_oid, c.typmod));
                let value = self.convert(value, from, ty, typmod)?;
                let mut values: Vec<Datum> = match self.values.get(*variable) {
                    Some(Datum::Record(r)) => r.values.to_vec(),
                    _ => vec![Datum::Null; desc.len()],
                };
                if let Some(slot) = values.get_mut(place) {
                    *slot = value;
                }
                self.store(*variable, Datum::Record(Arc::new(RecordValue::anonymous(desc, values))));
            }
            Target::Element(variable, subscripts) => {
                let (ty, _) = self.variable_type(*variable);
                let Some(elem) = registry::element_type(ty) else {
                    let message = format!("cannot subscript type {} because it does not support subscripting", types::format_type(ty, -1));
                    return Err(SqlError::new(SqlState::DATATYPE_MISMATCH, message));
                };
                let mut places = Vec::with_capacity(subscripts.len());
                for s in subscripts {
                    match self.evaluate_as(s, oids::INT4, -1)? {
                        Datum::Int4(n) => places.push(n),
                        _ => {
                            return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "array subscript in assignment must not be null"));
                        }
                    }
                }
                let value = self.convert(value, from, elem, -1)?;
                if let Some(Datum::Array(array)) = self.values.get_mut(*variable) {
                    Arc::make_mut(array).set(&places, value)?;
                } else {
                    let mut array = ArrayValue::empty(elem);
                    array.set(&places, value)?;
                    self.store(*variable, Datum::array(array));
                }
            }
        }
        Ok(())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
    fn assign_record(&mut self, variable: usize, value: Datum) -> Result<(), SqlError> {
        match value {
            Datum::Record(record) => match self.f.shapes.get(variable).cloned().flatten() {
                Some(desc) => {
                    let live: Vec<(Oid, Datum)> = record
                        .desc
                        .cols
                        .iter()
                        .zip(record.values.iter())
                        .filter(|(c, _)| !c.dropped)
                        .map(|(c, v)| (c.type_oid, v.clone()))
                        .collect();
                    self.fill_row(variable, &desc, live)?;
                }
                None => {
                    if let Some(slot) = self.shapes.get_mut(variable) {
                        *slot = Some(Arc::clone(&record.desc));
                    }
                    self.store(variable, Datum::Record(record));
                }
            },
            Datum::Null => self.store(variable, Datum::Null),
            other => match (&other, self.f.shapes.get(variable).cloned().flatten()) {
                (Datum::Text(text), Some(desc)) => {
                    let record = RecordValue::parse(text, oids::RECORD, desc, self.session.io())?;
                    self.store(variable, Datum::Record(Arc::new(record)));
                }
                _ => return Err(SqlError::new(SqlState::DATATYPE_MISMATCH, "cannot assign non-composite value to a record variable")),
            },
        }
        Ok(())
    }

    /// Values by place into a row of known columns; what is missing is NULL.
    fn fill_row(&mut self, variable: usize, desc: &Arc<TupleDesc>, from: Vec<(Oid, Datum)>) -> Result<(), SqlError> {
        let mut from = from.into_iter();
        let mut values = Vec::with_capacity(desc.len());
        for col in &desc.cols {
            if col.dropped {
                values.push(Datum::Null);
                continue;
            }
            values.push(match from.next() {
                Some((ty, value)) => self.convert(value, ty, col.type_oid, col.typmod)?,
                None => Datum::Null,
            });
        }
        self.store(variable, Datum::Record(Arc::new(RecordValue::anonymous(Arc::clone(desc), values))));
        Ok(())
    }

    /// A query's row into targets; none: NULLs.
    fn assign_row(&mut self, targets: &[Target], row: Option<Vec<Datum>>, columns: &[ColumnDesc]) -> Result<(), SqlError> {
        if let [Target::Variable(variable)] = targets
            && self.is_row(*variable)
        {
            let Some(row) = row else {
                let desc = self.f.shapes.get(*variable).cloned().flatten().unwrap_or_else(|| type_desc(columns));
                if let Some(slot) = self.shapes.get_mut(*variable) {
                    *slot = Some(desc);
                }
                self.store(*variable, Datum::Null);
                return Ok(());
            };
            if let ([value @ Datum::Record(_)], [_]) = (row.as_slice(), columns) {
                let value = value.clone();
                return self.assign_record(*variable, value);
            }
            if let Some(desc) = self.f.shapes.get(*variable).cloned().flatten() {
                let from = columns.iter().map(|c| c.type_oid).zip(row).collect();
                return self.fill_row(*variable, &desc, from);
            }
            let desc = match self.shapes.get_mut(*variable) {
                Some(Some(known)) if is_shape_of(known, columns) => Arc::clone(known),
                Some(slot) => Arc::clone(slot.insert(type_desc(columns))),
                None => type_desc(columns),
            };
            self.store(*variable, Datum::Record(Arc::new(RecordValue::anonymous(desc, row))));
            return Ok(());
        }
        let mut row = row.unwrap_or_default().into_iter();
        for (i, target) in targets.iter().enumerate() {
            let value = row.next().unwrap_or_default();
            let ty = columns.get(i).map_or(oids::TEXT, |c| c.type_oid);
            self.assign_value(target, value, ty, -1)?;
        }
        Ok(())
    }

    fn not_assigned(&self, variable: usize) -> SqlError {
        let message = format!("record \"{}\" is not assigned yet", self.name_of(variable));
        SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .detail("The tuple structure of a not-yet-assigned record is indeterminate.")
    }

    // ---- plans

    fn epoch(&mut self) -> Result<u64, SqlError> {
        let own = self.session.transaction()?.invalidations().len();
        Ok((self.session.routines.undone << 32).wrapping_add(u64::try_from(own).unwrap_or(u64::MAX)))
    }

    /// The prepared form of an expression's statement.
    fn plan(&mut self, e: &Expr) -> Result<RoutinePlan, SqlError> {
        let key = (self.f.id, e.id);
        let epoch = self.epoch()?;
        if let Some(plan) = self.session.routines.plans.get(&key)
            && plan.epoch == epoch
            && (Arc::ptr_eq(&plan.variables.types, &self.types) || plan.variables.types == self.types)
            && plan.variables.shapes.iter().zip(&self.shapes).all(|(a, b)| same_shape(a, b))
        {
            let plan = plan.clone();
            if plan.is_good(self.session)? {
                return Ok(plan);
            }
        }
        let f = self.f;
        let variables = Arc::new(Variables {
            names: f.names.get(e.scope).cloned().unwrap_or_else(|| Arc::from([])),
            types: Arc::clone(&self.types),
            shapes: self.shapes.clone(),
            prefer_columns: false,
        });
        let mut statements = parse_statements(&e.text).map_err(|error| internal(error, e))?;
        let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("not one SQL statement: {}", e.shown)));
        };
        refuse(&statement)?;
        if !f.types.is_empty() {
            self.session.refresh_catalog();
        }
        let types: Vec<Oid> = self.types.iter().map(|(ty, _)| if *ty == 0 { oids::TEXT } else { *ty }).collect();
        let outer = self.session.variables.replace(Arc::clone(&variables));
        let front_end = self.session.front_end;
        let prepared = front_end.prepare(self.session, &statement, &types);
        self.session.variables = outer;
        let prepared = prepared.map_err(|error| internal(error, e))?;
        let plan = RoutinePlan::new(prepared, variables, epoch);
        self.session.routines.plans.insert(key, plan.clone());
        Ok(plan)
    }

    fn portal(&mut self, plan: &RoutinePlan) -> Result<Portal, SqlError> {
        Portal::open(self.session, Arc::clone(&plan.prepared), self.values.clone())
    }

    /// Runs to the end; rows there were.
    fn run_plan(&mut self, e: &Expr, plan: &RoutinePlan, sink: &mut dyn RowSink) -> Result<i64, SqlError> {
        let mut portal = self.portal(plan)?;
        let outer = self.session.variables.replace(Arc::clone(&plan.variables));
        let status = portal.run(self.session, 0, sink);
        self.session.variables = outer;
        let tag = finished(status.map_err(|error| internal(error, e))?)?;
        self.after()?;
        Ok(count_of(&tag))
    }

    /// Some rows of a portal; whether there may be more.
    fn run_portal(&mut self, portal: &mut Portal, max: u64, sink: &mut dyn RowSink) -> Result<bool, SqlError> {
        match portal.run(self.session, max, sink)? {
            PortalStatus::Suspended => Ok(true),
            PortalStatus::Complete(_) => Ok(false),
            PortalStatus::CopyIn(_) => Err(no_copy()),
        }
    }

    fn after(&mut self) -> Result<(), SqlError> {
        self.session.transaction()?.command_counter_increment()?;
        Ok(())
    }

    /// An expression's value, type and modifier.
    fn evaluate(&mut self, e: &Expr) -> Result<(Datum, Oid, i32), SqlError> {
        let plan = self.plan(e)?;
        let columns = plan.prepared.columns.as_deref().unwrap_or_default();
        let [column] = columns else {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("query returned {} columns", columns.len()))
                .context(format!("query: {}", e.text)));
        };
        let (ty, typmod) = (column.type_oid, column.typmod);
        if let Some(code) = &plan.simple {
            let value = code.eval(&mut Exec { session: self.session, state: &mut self.state }, &self.values);
            self.state.case_values.clear();
            return Ok((value.map_err(|error| internal(error, e))?, ty, typmod));
        }
        let mut sink = Collect::default();
        self.run_plan(e, &plan, &mut sink)?;
        let mut rows = sink.rows.into_iter();
        let value = rows.next().and_then(|mut row| row.pop()).unwrap_or_default();
        if rows.next().is_some() {
            return Err(
                SqlError::new(SqlState::CARDINALITY_VIOLATION, "query returned more than one row").context(format!("query: {}", e.text))
            );
        }
        Ok((value, ty, typmod))
    }

    /// Opens what a loop reads.
    fn open(&mut self, rows: &Rows) -> Result<(Portal, Vec<ColumnDesc>), SqlError> {
        match rows {
            Rows::Query(query) => {
                let plan = self.plan(query)?;
                self.open_plan(&plan)
            }
            Rows::Cursor(cursor, arguments) => {
                let f = self.f;
                let Some((query, parameters)) = f.tree.variables.get(*cursor).and_then(|v| v.cursor.as_ref()) else {
                    return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("cursor \"{}\" has no query", self.name_of(*cursor))));
                };
                if arguments.len() != parameters.len() {
                    let message = format!("wrong number of arguments for cursor \"{}\"", self.name_of(*cursor));
                    return Err(SqlError::new(SqlState::SYNTAX_ERROR, message));
                }
                for (parameter, argument) in parameters.iter().zip(arguments) {
                    self.assign(&Target::Variable(*parameter), argument)?;
                }
                let plan = self.plan(query)?;
                self.open_plan(&plan)
            }
            Rows::Dynamic(text, using) => {
                let (prepared, values) = self.dynamic(text, using)?;
                let Some(columns) = prepared.columns.clone() else {
                    return Err(SqlError::new(
                        SqlState::INVALID_CURSOR_DEFINITION,
                        "cannot open a statement that returns no rows as cursor",
                    ));
                };
                Ok((Portal::open(self.session, prepared, values)?, columns))
            }
        }
    }

    fn open_plan(&mut self, plan: &RoutinePlan) -> Result<(Portal, Vec<ColumnDesc>), SqlError> {
        let Some(columns) = plan.prepared.columns.clone() else {
            return Err(SqlError::new(SqlState::INVALID_CURSOR_DEFINITION, "cannot open a statement that returns no rows as cursor"));
        };
        // Made sure of now, while its variables are at hand: what runs later must not be planned again.
        Ok((self.portal(plan)?, columns))
    }

    // ---- SQL

    fn sql(&mut self, statement: &Expr, into: Option<&Into>) -> Result<(), SqlError> {
        let plan = self.plan(statement)?;
        self.finish_sql(into, plan.prepared.columns.clone(), &plan.prepared.statement.kind(), |run, sink| {
            let mut portal = run.portal(&plan)?;
            let outer = run.session.variables.replace(Arc::clone(&plan.variables));
            let status = portal.run(run.session, 0, sink);
            run.session.variables = outer;
            finished(status.map_err(|error| internal(error, statement))?)
        })
    }

    fn finish_sql(
        &mut self,
        into: Option<&Into>,
        columns: Option<Vec<ColumnDesc>>,
        kind: &Kind,
        run: impl FnOnce(&mut Self, &mut dyn RowSink) -> Result<String, SqlError>,
    ) -> Result<(), SqlError> {
        let Some(into) = into else {
            if columns.is_some() {
                let e = SqlError::new(SqlState::SYNTAX_ERROR, "query has no destination for result data");
                return Err(if matches!(kind, Kind::Select) {
                    e.hint("If you want to discard the results of a SELECT, use PERFORM instead.")
                } else {
                    e
                });
            }
            let tag = run(self, &mut Discard)?;
            self.after()?;
            if matches!(kind, Kind::Modify) {
                self.found(count_of(&tag));
            } else {
                self.row_count = count_of(&tag);
                self.session.refresh_catalog();
            }
            return Ok(());
        };
        let Some(columns) = columns else {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "INTO used with a command that cannot return data"));
        };
        let mut sink = Collect::default();
        run(self, &mut sink)?;
        self.after()?;
        let modify = matches!(kind, Kind::Modify);
        if sink.rows.len() > 1 && (into.strict || modify) {
            let e = SqlError::new(SqlState::TOO_MANY_ROWS, "query returned more than one row");
            return Err(e.hint("Make sure the query returns a single row, or use LIMIT 1."));
        }
        if sink.rows.is_empty() && into.strict {
            return Err(SqlError::new(SqlState::NO_DATA_FOUND, "query returned no rows"));
        }
        let row = sink.rows.into_iter().next();
        self.found(i64::from(row.is_some()));
        self.assign_row(&into.targets, row, &columns)
    }

    fn using(&mut self, using: &[Expr]) -> Result<(Vec<Oid>, Vec<Datum>), SqlError> {
        let (mut types, mut values) = (Vec::new(), Vec::new());
        for e in using {
            let (value, ty, _) = self.evaluate(e)?;
            types.push(ty);
            values.push(value);
        }
        Ok((types, values))
    }

    fn dynamic_text(&mut self, text: &Expr) -> Result<Expr, SqlError> {
        let Some(text) = self.text(text)? else {
            return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "query string argument of EXECUTE is null"));
        };
        Ok(Expr { id: usize::MAX, shown: text.clone(), text, scope: 0 })
    }

    fn prepare_dynamic(&mut self, statement: &RawStmt, text: &Expr, types: &[Oid]) -> Result<Arc<Prepared>, SqlError> {
        refuse(statement)?;
        self.session.refresh_catalog();
        let outer = self.session.variables.take();
        let front_end = self.session.front_end;
        let prepared = front_end.prepare(self.session, statement, types);
        self.session.variables = outer;
        prepared.map_err(|e| internal(e, text))
    }

    fn dynamic(&mut self, text: &Expr, using: &[Expr]) -> Result<(Arc<Prepared>, Vec<Datum>), SqlError> {
        let text = self.dynamic_text(text)?;
        let (types, values) = self.using(using)?;
        let mut statements = parse_statements(&text.text).map_err(|e| internal(e, &text))?;
        let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "cannot open multi-query plan as cursor"));
        };
        Ok((self.prepare_dynamic(&statement, &text, &types)?, values))
    }

    fn execute(&mut self, text: &Expr, into: Option<&Into>, using: &[Expr]) -> Result<(), SqlError> {
        let text = self.dynamic_text(text)?;
        let (types, values) = self.using(using)?;
        let statements = parse_statements(&text.text).map_err(|e| internal(e, &text))?;
        let last = statements.len().saturating_sub(1);
        for (i, statement) in statements.iter().enumerate() {
            let prepared = self.prepare_dynamic(statement, &text, &types)?;
            let kind = statement.kind();
            let outer = self.session.variables.take();
            let mut portal = Portal::open(self.session, Arc::clone(&prepared), values.clone())?;
            let found = self.values.get(self.f.tree.found).cloned();
            let into = into.filter(|_| i == last);
            let columns = prepared.columns.clone().filter(|_| into.is_some());
            let mut sink_only = Discard;
            let ran = self.finish_sql(into, columns, &kind, |run, sink| {
                let sink: &mut dyn RowSink = if into.is_some() { sink } else { &mut sink_only };
                finished(portal.run(run.session, 0, sink).map_err(|e| internal(e, &text))?)
            });
            self.session.variables = outer;
            // EXECUTE leaves FOUND alone.
            if let Some(found) = found {
                self.store(self.f.tree.found, found);
            }
            ran?;
        }
        Ok(())
    }
}

fn finished(status: PortalStatus) -> Result<String, SqlError> {
    match status {
        PortalStatus::Complete(tag) => Ok(tag),
        PortalStatus::Suspended => Ok(String::new()),
        PortalStatus::CopyIn(_) => Err(no_copy()),
    }
}

fn no_copy() -> SqlError {
    SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "cannot COPY to/from client in PL/pgSQL")
}

/// Statements that are the session's own business.
fn refuse(statement: &RawStmt) -> Result<(), SqlError> {
    let what = match statement.kind() {
        Kind::Transaction(_) => "unsupported transaction command in PL/pgSQL",
        Kind::Prepare | Kind::Execute | Kind::Deallocate(_) => "PREPARE, EXECUTE and DEALLOCATE in PL/pgSQL are not supported",
        Kind::DeclareCursor | Kind::Fetch | Kind::ClosePortal(_) => "SQL cursors in PL/pgSQL are not supported",
        Kind::Copy if copies_stdin(statement) => return Err(no_copy()),
        Kind::Copy | Kind::Select | Kind::Modify | Kind::Explain | Kind::Set | Kind::Show | Kind::Notify | Kind::Utility => return Ok(()),
    };
    Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, what))
}

fn copies_stdin(statement: &RawStmt) -> bool {
    matches!(&*statement.node, NodeEnum::CopyStmt(c) if c.filename.is_empty())
}

/// An error of a statement inside: its position counts in that statement's text.
fn internal(e: SqlError, statement: &Expr) -> SqlError {
    if e.fields().reach != Reach::Statement || e.fields().internal_query.is_some() {
        return e;
    }
    // An expression was given a SELECT in front, which nobody wrote.
    let added = statement.text.len() - statement.shown.len();
    let (text, shift) = if statement.text.ends_with(&statement.shown) { (&statement.shown, added) } else { (&statement.text, 0) };
    if e.fields().position.is_some() {
        return e.inside(text, u32::try_from(shift).unwrap_or(0));
    }
    if shift > 0 {
        return e;
    }
    let line = format!("SQL statement \"{text}\"");
    let context = match &e.fields().context {
        Some(inner) => format!("{inner}\n{line}"),
        None => line,
    };
    e.context(context)
}
