//! Functions with bodies as the executor calls them: found in the catalog, compiled once per session, run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pg_query::protobuf::{CallStmt, DoStmt};

use super::ast::{Function, TypeName};
use super::parse::{Argument, function};
use super::run::{self, Compiled, Outcome, Returns};
use crate::executor::code::Code;
use crate::executor::eval::{Exec, ExecState};
use crate::executor::routine::{RoutinePlan, VariableName, Variables};
use crate::executor::sink::{Collect, Discard};
use crate::executor::trigger::TriggerCall;
use crate::executor::{ColumnDesc, Portal, PortalStatus, RowSink, SessionContext, ValueStore};
use crate::sql::bind::{Binder, Expr, ExprKind};
use crate::sql::catalog::compiled::{PLPGSQL_LANGUAGE, SQL_LANGUAGE};
use crate::sql::functions::resolve::is_polymorphic;
use crate::sql::functions::{CallTypes, CoercionContext, ProcEntry, SetRows};
use crate::sql::parse::parse_statements;
use crate::sql::plan::Planner;
use crate::sql::plan::planner::{Deps, Layout};
use crate::sql::types::{ColDesc, Datum, NameLookup, Oid, RecordValue, TupleDesc, oids, registry};
use crate::sqlstate::{SqlError, SqlState};

/// Numbers of compiled bodies.
static NEXT: AtomicUsize = AtomicUsize::new(1);

/// A body in SQL.
struct SqlBody {
    id: usize,
    statements: Vec<(String, crate::executor::RawStmt)>,
    names: Arc<[VariableName]>,
    types: Arc<[(Oid, i32)]>,
}

/// A compiled body.
#[expect(clippy::large_enum_variant, reason = "one per routine, behind an Arc")]
enum Body {
    Plpgsql(Compiled),
    Sql(SqlBody),
}

/// Input arguments' names, in order.
fn argument_names(func: &ProcEntry) -> Vec<String> {
    let names: Vec<&str> = if func.arg_names.is_empty() { Vec::new() } else { func.arg_names.split(' ').collect() };
    let modes = func.arg_modes.as_bytes();
    let all = if func.all_args.is_empty() { func.args.len() } else { func.all_args.len() };
    (0..all)
        .filter(|&i| matches!(modes.get(i).copied().unwrap_or(b'i'), b'i' | b'b' | b'v'))
        .map(|i| names.get(i).map_or_else(String::new, |n| (*n).to_owned()))
        .collect()
}

/// OUT, INOUT and TABLE arguments: name, type, and for INOUT which input it is.
fn outputs(func: &ProcEntry) -> Vec<(String, Oid, Option<usize>)> {
    let names: Vec<&str> = func.arg_names.split(' ').collect();
    let (mut out, mut input) = (Vec::new(), 0);
    for (i, (&ty, mode)) in func.all_args.iter().zip(func.arg_modes.bytes()).enumerate() {
        let name = || names.get(i).map_or_else(String::new, |n| (*n).to_owned());
        match mode {
            b'o' | b't' => out.push((name(), ty, None)),
            b'b' => {
                out.push((name(), ty, Some(input)));
                input += 1;
            }
            _ => input += 1,
        }
    }
    out
}

/// Resolves the types a body declares.
fn resolve(session: &mut SessionContext, tree: Function, signature: String, returns: Returns) -> Result<Compiled, SqlError> {
    let (mut types, mut shapes) = (Vec::new(), Vec::new());
    for v in &tree.variables {
        let mut shape = None;
        let ty = match &v.ty {
            TypeName::Known(ty, typmod) => {
                shape = composite(session, *ty)?;
                (*ty, *typmod)
            }
            TypeName::Record => (oids::RECORD, -1),
            TypeName::Named(text) => {
                match named_type(session, text) {
                    Ok(found) => {
                        shape = composite(session, found.0)?;
                        found
                    }
                    // A table's name is the type of its rows.
                    Err(e) if e.state() == SqlState::UNDEFINED_OBJECT => {
                        let parts = crate::sql::catalog::names::split_identifiers(text, '.').unwrap_or_default();
                        shape = row_of(session, &parts).map_err(|_| e)?;
                        (oids::RECORD, -1)
                    }
                    Err(e) => return Err(e),
                }
            }
            TypeName::Same(names) => {
                let found = same_type(session, &tree, &types, names)?;
                shape = composite(session, found.0)?;
                found
            }
            TypeName::RowOf(names) => {
                shape = row_of(session, names)?;
                (oids::RECORD, -1)
            }
        };
        let ty = if shape.is_some() { (oids::RECORD, -1) } else { ty };
        types.push(ty);
        shapes.push(shape);
    }
    let names = (0..tree.scopes.len()).map(|scope| visible(&tree, scope)).collect();
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let any = matches!(returns, Returns::Row(Some(_))) || shapes.iter().any(Option::is_some);
    let rows_of = any.then(|| session.catalog.version());
    Ok(Compiled { tree, id, rows_of, signature, types: types.into(), shapes, names, returns })
}

/// Columns of a row type; `None` for other types.
fn composite(session: &SessionContext, ty: Oid) -> Result<Option<Arc<TupleDesc>>, SqlError> {
    if ty < oids::FIRST_NORMAL {
        return Ok(None);
    }
    session.catalog.composite(ty)
}

/// Columns of the table a name means.
fn row_of(session: &SessionContext, names: &[String]) -> Result<Option<Arc<TupleDesc>>, SqlError> {
    let (schema, name) = match names {
        [name] => (None, name),
        [schema, name] => (Some(schema.as_str()), name),
        _ => return Err(SqlError::new(SqlState::SYNTAX_ERROR, "improper %ROWTYPE reference")),
    };
    let relation = session.catalog.open_relation(schema, name)?;
    Ok(Some(relation.row_desc()))
}

/// Names a scope sees, innermost first.
fn visible(tree: &Function, scope: usize) -> Arc<[VariableName]> {
    let mut out: Vec<VariableName> = Vec::new();
    let mut at = Some(scope);
    while let Some(found) = at.and_then(|s| tree.scopes.get(s)) {
        let label: Option<Arc<str>> = found.label.as_deref().map(Arc::from);
        for (name, variable) in found.names.iter().rev() {
            out.push((label.clone(), Arc::from(name.as_str()), *variable));
        }
        at = found.parent;
    }
    out.into()
}

fn named_type(session: &mut SessionContext, text: &str) -> Result<(Oid, i32), SqlError> {
    use pg_query::NodeEnum;
    let node = crate::sql::parse::parse_expression(&format!("NULL::{text}"))?;
    let Some(NodeEnum::TypeCast(cast)) = &node.node else { return Err(SqlError::internal("type name")) };
    let Some(name) = &cast.type_name else { return Err(SqlError::internal("type name")) };
    // The position would count in a text nobody wrote.
    Binder::new(session, "", Vec::new(), false).type_name(name)
}

fn same_type(session: &mut SessionContext, tree: &Function, types: &[(Oid, i32)], names: &[String]) -> Result<(Oid, i32), SqlError> {
    let parts: Vec<&str> = names.iter().map(String::as_str).collect();
    if let [name] = parts.as_slice()
        && let Some(i) = tree.variables.iter().take(types.len()).rposition(|v| v.name == *name)
    {
        return Ok(types.get(i).copied().unwrap_or((oids::TEXT, -1)));
    }
    let (schema, table, column) = match parts.as_slice() {
        [table, column] => (None, *table, *column),
        [schema, table, column] => (Some(*schema), *table, *column),
        _ => return Err(SqlError::new(SqlState::UNDEFINED_OBJECT, format!("variable \"{}\" does not exist", names.join(".")))),
    };
    let relation = session.catalog.open_relation(schema, table)?;
    let found = relation.column(column).map(|c| (c.type_oid, c.typmod));
    found.ok_or_else(|| {
        let message = format!("column \"{column}\" of relation \"{table}\" does not exist");
        SqlError::new(SqlState::UNDEFINED_COLUMN, message)
    })
}

fn signature(session: &SessionContext, func: &ProcEntry) -> String {
    let types: Vec<String> = func.args.iter().map(|&t| session.type_text(t)).collect();
    format!("{}({})", func.name, types.join(","))
}

/// What a body is compiled for.
#[derive(Clone, Copy)]
enum Purpose<'a> {
    /// To see whether it is one.
    Check,
    /// A call with these types: those of polymorphic arguments are known then.
    Call(&'a CallTypes),
    /// A trigger of a table.
    Trigger(Oid),
}

/// What a declared type of a function stands for in a call.
fn actual(func: &ProcEntry, declared: Oid, purpose: Purpose<'_>) -> Oid {
    let Purpose::Call(types) = purpose else { return declared };
    if !is_polymorphic(declared) {
        return declared;
    }
    let given = |wanted: &[Oid]| {
        let place = func.args.iter().position(|a| wanted.contains(a))?;
        types.args.get(place).copied().filter(|t| *t != 0 && *t != oids::UNKNOWN)
    };
    let element = [oids::ANYELEMENT, oids::ANYNONARRAY, oids::ANYENUM];
    let common = [oids::ANYCOMPATIBLE, oids::ANYCOMPATIBLENONARRAY];
    let found = given(&[declared]).or_else(|| match declared {
        oids::ANYARRAY => given(&element).and_then(registry::array_type),
        oids::ANYCOMPATIBLEARRAY => given(&common).and_then(registry::array_type),
        t if element.contains(&t) => given(&element).or_else(|| given(&[oids::ANYARRAY]).and_then(registry::element_type)),
        t if common.contains(&t) => given(&common).or_else(|| given(&[oids::ANYCOMPATIBLEARRAY]).and_then(registry::element_type)),
        _ => None,
    });
    found.unwrap_or(if types.result == 0 { declared } else { types.result })
}

/// The body of a function.
fn compile(session: &mut SessionContext, func: &'static ProcEntry, purpose: Purpose<'_>) -> Result<Arc<Body>, SqlError> {
    let trigger = func.result == oids::TRIGGER;
    if trigger && matches!(purpose, Purpose::Call(_)) {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "trigger functions can only be called as triggers"));
    }
    let own = match purpose {
        Purpose::Check => Vec::new(),
        Purpose::Trigger(table) => vec![table],
        Purpose::Call(types) if func.args.iter().any(|t| is_polymorphic(*t)) => types.args.iter().copied().chain([types.result]).collect(),
        Purpose::Call(_) => Vec::new(),
    };
    let key = (std::ptr::from_ref(func).addr(), own);
    if let Some(body) = session.routines.bodies.get(&key)
        && let Ok(body) = Arc::clone(body).downcast::<Body>()
    {
        // A table may have got columns since.
        let stale = matches!(&*body, Body::Plpgsql(Compiled { rows_of: Some(version), .. })
            if version.is_none() || *version != session.catalog.version());
        if !stale {
            return Ok(body);
        }
    }
    let names = argument_names(func);
    let body = match func.language {
        PLPGSQL_LANGUAGE => {
            let mut outputs = outputs(func);
            for (_, ty, _) in &mut outputs {
                *ty = actual(func, *ty, purpose);
            }
            let argument = |(&ty, name): (&Oid, &String)| Argument { name: name.clone(), type_oid: actual(func, ty, purpose) };
            let mut arguments: Vec<Argument> = func.args.iter().zip(&names).map(argument).collect();
            let mut places = Vec::new();
            for (name, type_oid, input) in &outputs {
                places.push(match input {
                    Some(input) => *input,
                    None => {
                        arguments.push(Argument { name: name.clone(), type_oid: *type_oid });
                        arguments.len() - 1
                    }
                });
            }
            let tree = function(func.source, func.name, &arguments, trigger)?;
            let returns = if trigger {
                Returns::Trigger
            } else if outputs.is_empty() {
                match actual(func, func.result, purpose) {
                    oids::VOID | 0 => Returns::Nothing,
                    oids::RECORD => Returns::Row(None),
                    ty => match composite(session, ty)? {
                        Some(desc) => Returns::Row(Some(desc)),
                        None => Returns::Value(ty, -1),
                    },
                }
            } else {
                let desc = outputs.iter().enumerate().map(|(i, (name, ty, _))| {
                    let name = if name.is_empty() { format!("column{}", i + 1) } else { name.clone() };
                    ColDesc::new(&name, *ty, -1)
                });
                Returns::Out(places, Arc::new(TupleDesc::new(desc.collect())))
            };
            let signature = signature(session, func);
            Body::Plpgsql(resolve(session, tree, signature, returns)?)
        }
        SQL_LANGUAGE => {
            let mut visible: Vec<VariableName> = Vec::new();
            let label: Arc<str> = Arc::from(func.name);
            for (i, name) in names.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
                visible.push((Some(Arc::clone(&label)), Arc::from(name.as_str()), i));
            }
            let statements = parse_statements(func.source)?.into_iter().map(|s| (s.text().to_owned(), s)).collect();
            let types: Vec<(Oid, i32)> = func.args.iter().map(|&t| (actual(func, t, purpose), -1)).collect();
            Body::Sql(SqlBody { id: NEXT.fetch_add(1, Ordering::Relaxed), statements, names: visible.into(), types: types.into() })
        }
        _ => return Err(SqlError::unsupported(format_args!("function {} in this language", func.name))),
    };
    let body = Arc::new(body);
    session.routines.bodies.insert(key, Arc::clone(&body) as Arc<dyn std::any::Any + Send + Sync>);
    Ok(body)
}

/// Runs `f` one call deeper, as a function: what cannot be undone is refused.
fn deeper<T>(session: &mut SessionContext, f: impl FnOnce(&mut SessionContext) -> Result<T, SqlError>) -> Result<T, SqlError> {
    crate::stack::check()?;
    session.routines.depth += 1;
    let block = std::mem::replace(&mut session.in_block, true);
    let alone = session.routines.alone;
    session.routines.alone |= !block;
    let variables = session.variables.take();
    let result = f(session);
    session.variables = variables;
    session.in_block = block;
    session.routines.alone = alone;
    session.routines.depth -= 1;
    result
}

/// Moves a position in a body to where the body stands in its statement, if it stands there as it is.
fn in_statement(e: SqlError, source: &str, body: &str) -> SqlError {
    let Some(position) = e.fields().position else { return e };
    match source.find(body) {
        Some(at) => {
            let before = u32::try_from(source.get(..at).map_or(0, |s| s.chars().count())).unwrap_or(0);
            e.moved(position + before)
        }
        None => e.inside(body, 0),
    }
}

/// DO.
///
/// # Errors
/// 42601, 0A000, 42704; what the block fails with.
pub fn do_block(session: &mut SessionContext, stmt: &DoStmt, source: &str) -> Result<(), SqlError> {
    use crate::executor::ddl::nodes;
    let (mut text, mut language) = (None, "plpgsql".to_owned());
    for option in nodes::options(&stmt.args) {
        match option.defname.as_str() {
            "as" => text = nodes::option_text(option),
            "language" => language = nodes::option_text(option).unwrap_or_default(),
            _ => {}
        }
    }
    let Some(text) = text else { return Err(SqlError::new(SqlState::SYNTAX_ERROR, "no inline code specified")) };
    if language != "plpgsql" {
        return Err(match language.as_str() {
            "sql" | "c" | "internal" => {
                SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("language \"{language}\" does not support inline code execution"))
            }
            _ => SqlError::new(SqlState::UNDEFINED_OBJECT, format!("language \"{language}\" does not exist")),
        });
    }
    deeper(session, |session| {
        let tree = function(&text, "", &[], false).map_err(|e| in_statement(e, source, &text))?;
        let compiled = resolve(session, tree, "inline_code_block".to_owned(), Returns::Nothing)?;
        let done = run::call(session, &compiled, &[], false);
        session.routines.plans.retain(|(id, _), _| *id != compiled.id);
        done.map(|_| ())
    })
}

fn call(session: &mut SessionContext, func: &'static ProcEntry, types: &CallTypes, args: &[Datum], set: bool) -> Result<Outcome, SqlError> {
    crate::txn::blocking(|| {
        deeper(session, |session| {
            let body = compile(session, func, Purpose::Call(types))?;
            match &*body {
                Body::Plpgsql(compiled) => run::call(session, compiled, args, set),
                Body::Sql(sql) => call_sql(session, func, sql, args, set),
            }
        })
    })
}

/// A function's value.
///
/// # Errors
/// What the function fails with.
pub fn call_scalar(session: &mut SessionContext, func: &'static ProcEntry, types: &CallTypes, args: &[Datum]) -> Result<Datum, SqlError> {
    match call(session, func, types, args, false)? {
        Outcome::Value(value) => Ok(value),
        Outcome::Set(_) => Err(SqlError::internal("a set where a value was wanted")),
    }
}

/// A trigger's function: the row it returns, `None` for NULL.
///
/// # Errors
/// What the function fails with.
pub fn call_trigger(session: &mut SessionContext, func: &'static ProcEntry, call: TriggerCall<'_>) -> Result<Option<Vec<Datum>>, SqlError> {
    crate::txn::blocking(|| {
        deeper(session, |session| match &*compile(session, func, Purpose::Trigger(call.table.oid))? {
            Body::Plpgsql(compiled) => run::trigger(session, compiled, call),
            Body::Sql(_) => Err(SqlError::internal("a trigger function in SQL")),
        })
    })
}

/// A set-returning function's rows.
///
/// # Errors
/// What the function fails with.
pub fn call_set(session: &mut SessionContext, func: &'static ProcEntry, types: &CallTypes, args: &[Datum]) -> Result<SetRows, SqlError> {
    Ok(match call(session, func, types, args, true)? {
        Outcome::Set(rows) => Box::new(rows.into_values()),
        Outcome::Value(value) => Box::new(std::iter::once(Ok(value))),
    })
}

/// Rows of a query in a function that are converted at once.
const BATCH: u64 = 256;

fn call_sql(
    session: &mut SessionContext,
    func: &'static ProcEntry,
    body: &SqlBody,
    args: &[Datum],
    set: bool,
) -> Result<Outcome, SqlError> {
    let context = |e: SqlError, n: usize| {
        let line = format!("SQL function \"{}\" statement {}", func.name, n + 1);
        let context = e.fields().context.as_ref().map_or_else(|| line.clone(), |c| format!("{c}\n{line}"));
        e.context(context)
    };
    let last = body.statements.len().saturating_sub(1);
    let mut values = ValueStore::default();
    let mut first = None;
    for (n, (_, statement)) in body.statements.iter().enumerate() {
        let plan = sql_plan(session, body, n, statement).map_err(|e| context(e, n))?;
        let mut portal = Portal::open(session, Arc::clone(&plan.prepared), args.to_vec())?;
        let wanted = n == last && plan.prepared.columns.is_some() && func.result != oids::VOID;
        let mut shape = match &plan.prepared.columns {
            Some(columns) if wanted => Some(SqlRows::new(session, func, columns)?),
            _ => None,
        };
        loop {
            let mut sink = Collect::default();
            let outer = session.variables.replace(Arc::clone(&plan.variables));
            // Only a set needs more than the first row of the last statement.
            let select = matches!(statement.kind(), crate::executor::StmtKind::Select);
            let status = match wanted {
                true => portal.run(session, if set || !select { BATCH } else { 1 }, &mut sink),
                false => portal.run(session, 0, &mut Discard),
            };
            session.variables = outer;
            let status = status.map_err(|e| context(e, n))?;
            if let Some(shape) = &mut shape {
                for row in sink.rows {
                    if set {
                        let value = shape.value(session, row)?;
                        values.push(session, value)?;
                    } else if first.is_none() {
                        first = Some(shape.value(session, row)?);
                    }
                }
            }
            match status {
                PortalStatus::Suspended if set || !select => {}
                PortalStatus::Suspended | PortalStatus::Complete(_) => break,
                PortalStatus::CopyIn(_) => {
                    return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "cannot COPY to/from client in an SQL function"));
                }
            }
        }
        session.transaction()?.command_counter_increment()?;
        if plan.prepared.columns.is_none() {
            session.refresh_catalog();
        }
    }
    if set {
        return Ok(Outcome::Set(values));
    }
    Ok(Outcome::Value(if func.result == oids::VOID { Datum::Void } else { first.unwrap_or_default() }))
}

/// Makes values of the rows of a function's last query.
struct SqlRows<'f> {
    func: &'static ProcEntry,
    columns: &'f [ColumnDesc],
    desc: Arc<TupleDesc>,
    shape: Option<Arc<TupleDesc>>,
    targets: Vec<Oid>,
}

impl<'f> SqlRows<'f> {
    fn new(session: &mut SessionContext, func: &'static ProcEntry, columns: &'f [ColumnDesc]) -> Result<Self, SqlError> {
        let desc = Arc::new(TupleDesc::new(columns.iter().map(|c| ColDesc::new(&c.name, c.type_oid, c.typmod)).collect()));
        let shape = composite(session, func.result)?;
        Ok(Self { func, columns, desc, shape, targets: outputs(func).iter().map(|(_, ty, _)| *ty).collect() })
    }

    fn value(&mut self, session: &mut SessionContext, mut row: Vec<Datum>) -> Result<Datum, SqlError> {
        let Self { func, columns, targets, .. } = self;
        if let Some(shape) = &self.shape {
            return row_value(session, func, row, columns, shape);
        }
        if func.result == oids::RECORD && targets.len() != 1 && !matches!(row.as_slice(), [Datum::Record(_)]) {
            let mut fitted = Vec::with_capacity(row.len());
            for (i, value) in row.into_iter().enumerate() {
                let from = columns.get(i).map_or(0, |c| c.type_oid);
                let to = targets.get(i).copied().unwrap_or(from);
                fitted.push(cast(session, value, from, to)?);
            }
            return Ok(Datum::Record(Arc::new(RecordValue { type_oid: func.result, desc: Arc::clone(&self.desc), values: fitted.into() })));
        }
        let value = if row.is_empty() { Datum::Null } else { row.swap_remove(0) };
        let from = columns.first().map_or(0, |c| c.type_oid);
        cast(session, value, from, func.result)
    }
}

/// What a query's row is as a value of the row type that a function returns.
fn row_value(
    session: &mut SessionContext,
    func: &ProcEntry,
    mut row: Vec<Datum>,
    columns: &[ColumnDesc],
    shape: &Arc<TupleDesc>,
) -> Result<Datum, SqlError> {
    if columns.first().is_some_and(|c| columns.len() == 1 && c.type_oid == func.result) {
        return Ok(row.pop().unwrap_or_default());
    }
    if row.is_empty() {
        return Ok(Datum::Null);
    }
    let mismatch = |detail: &str| {
        let name = crate::sql::types::typmod::format_type_with(func.result, None, session.io()).unwrap_or_default();
        let message = format!("return type mismatch in function declared to return {name}");
        Err(SqlError::new(SqlState::INVALID_FUNCTION_DEFINITION, message).detail(detail.to_owned()))
    };
    let live = shape.cols.iter().filter(|c| !c.dropped).count();
    if columns.len() != live {
        return mismatch(if columns.len() < live {
            "Final statement returns too few columns."
        } else {
            "Final statement returns too many columns."
        });
    }
    let mut from = row.into_iter().zip(columns);
    let mut values = Vec::with_capacity(shape.len());
    for col in &shape.cols {
        if col.dropped {
            values.push(Datum::Null);
        } else if let Some((value, column)) = from.next() {
            values.push(cast(session, value, column.type_oid, col.type_oid)?);
        }
    }
    Ok(Datum::Record(Arc::new(RecordValue { type_oid: func.result, desc: Arc::clone(shape), values: values.into() })))
}

fn cast(session: &mut SessionContext, value: Datum, from: Oid, to: Oid) -> Result<Datum, SqlError> {
    if from == to || to == oids::RECORD || from == oids::RECORD {
        return Ok(value);
    }
    let code = cast_code(session, from, to, -1)?;
    let mut state = ExecState::bare();
    code.eval(&mut Exec { session, state: &mut state }, &[value])
}

fn sql_plan(session: &mut SessionContext, body: &SqlBody, n: usize, statement: &crate::executor::RawStmt) -> Result<RoutinePlan, SqlError> {
    let own = session.transaction()?.invalidations().len();
    let epoch = (session.routines.undone << 32).wrapping_add(u64::try_from(own).unwrap_or(u64::MAX));
    if let Some(plan) = session.routines.plans.get(&(body.id, n))
        && plan.epoch == epoch
    {
        let plan = plan.clone();
        if plan.is_good(session)? {
            return Ok(plan);
        }
    }
    let variables =
        Arc::new(Variables { names: Arc::clone(&body.names), types: Arc::clone(&body.types), shapes: Vec::new(), prefer_columns: true });
    session.refresh_catalog();
    let types: Vec<Oid> = body.types.iter().map(|(ty, _)| *ty).collect();
    let outer = session.variables.replace(Arc::clone(&variables));
    let front_end = session.front_end;
    let prepared = front_end.prepare(session, statement, &types);
    session.variables = outer;
    let plan = RoutinePlan::new(prepared?, variables, epoch);
    session.routines.plans.insert((body.id, n), plan.clone());
    Ok(plan)
}

/// What turns a value of one type into another as an assignment does, else through its text.
pub(super) fn cast_code(session: &mut SessionContext, from: Oid, to: Oid, typmod: i32) -> Result<Arc<Code>, SqlError> {
    let mut binder = Binder::new(session, "", Vec::new(), false);
    let from = if from == oids::UNKNOWN { oids::TEXT } else { from };
    let e = Expr::new(ExprKind::Slot(0), from, -1);
    let e = match binder.try_coerce(e.clone(), to, typmod, CoercionContext::Assignment)? {
        Some(e) => e,
        None => {
            let text = Expr::new(ExprKind::InOut(Box::new(e)), to, -1);
            if typmod < 0 { text } else { Expr::new(ExprKind::Typmod(Box::new(text), false), to, typmod) }
        }
    };
    let layout = Layout { width: 1, ..Layout::default() };
    let code = Planner::bare(session).compile(&e, &layout, &mut Deps::new())?;
    Ok(Arc::new(code))
}

/// CALL.
///
/// # Errors
/// The call does not bind; what the procedure fails with.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
pub fn call_procedure(session: &mut SessionContext, stmt: &CallStmt, source: &str, sink: &mut dyn RowSink) -> Result<(), SqlError> {
    let Some(call) = &stmt.funccall else { return Err(SqlError::internal("CALL of nothing")) };
    let mut binder = Binder::new(session, source, Vec::new(), false);
    let e = binder.procedure(call)?;
    let has_rows = matches!(&e.kind, ExprKind::Call(c) if !outputs(c.func).is_empty());
    let layout = Layout::default();
    let code = Planner::bare(session).compile(&e, &layout, &mut Deps::new())?;
    let mut state = ExecState::bare();
    let value = code.eval(&mut Exec { session, state: &mut state }, &[])?;
    if has_rows {
        match value {
            Datum::Record(record) => sink.row(&record.values)?,
            one => sink.row(&[one])?,
        }
    }
    Ok(())
}

/// Columns of a CALL's row, if it gives one.
///
/// # Errors
/// The call does not bind.
pub fn call_columns(session: &mut SessionContext, stmt: &CallStmt, source: &str) -> Result<Option<Vec<(String, Oid)>>, SqlError> {
    let Some(call) = &stmt.funccall else { return Ok(None) };
    let e = Binder::new(session, source, Vec::new(), false).procedure(call)?;
    let ExprKind::Call(c) = &e.kind else { return Ok(None) };
    let columns: Vec<(String, Oid)> = outputs(c.func).into_iter().map(|(name, ty, _)| (name, ty)).collect();
    Ok((!columns.is_empty()).then_some(columns))
}

/// Checks a new function's body as far as CREATE FUNCTION does.
///
/// # Errors
/// 42601, and what binding the body finds.
pub fn validate(session: &mut SessionContext, func: &'static ProcEntry, source: &str) -> Result<(), SqlError> {
    compile(session, func, Purpose::Check).map(|_| ()).map_err(|e| in_statement(e, source, func.source))
}
