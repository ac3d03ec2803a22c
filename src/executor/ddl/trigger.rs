//! CREATE TRIGGER, and what ALTER does to triggers. What they do then: [`crate::executor::trigger`].

use std::sync::Arc;

use pg_query::protobuf::CreateTrigStmt;

use super::{drop, nodes, table};
use crate::executor::SessionContext;
use crate::sql::catalog::compiled::int2vector;
use crate::sql::catalog::load::{CatalogReader, CatalogRow, by};
use crate::sql::catalog::names::truncate;
use crate::sql::catalog::privilege;
use crate::sql::catalog::relation::{RelKind, Relation, Trigger};
use crate::sql::catalog::rows::{self, DependKind, ObjectAddress, blank};
use crate::sql::catalog::schema::{pg_class, pg_constraint, pg_proc, pg_trigger};
use crate::sql::types::{Datum, Oid, oids};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::LockMode;

fn wrong(message: String, detail: &str) -> SqlError {
    SqlError::new(SqlState::WRONG_OBJECT_TYPE, message).detail(detail.to_owned())
}

fn bad(message: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_OBJECT_DEFINITION, message)
}

fn unable(message: &str) -> SqlError {
    SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message)
}

/// What no relation of a kind can have.
fn refused(relation: &Relation, plural: &str) -> SqlError {
    wrong(format!("relation \"{}\" cannot have triggers", relation.name), &format!("This operation is not supported for {plural}."))
}

/// Whether a relation can have such a trigger.
fn check_kind(relation: &Relation, stmt: &CreateTrigStmt, kind: i16) -> Result<(), SqlError> {
    let instead = kind & Trigger::INSTEAD != 0;
    match relation.kind {
        RelKind::Table | RelKind::Partitioned if instead => {
            return Err(wrong(format!("\"{}\" is a table", relation.name), "Tables cannot have INSTEAD OF triggers."));
        }
        RelKind::Table => {}
        RelKind::View if !instead && stmt.row => {
            return Err(wrong(format!("\"{}\" is a view", relation.name), "Views cannot have row-level BEFORE or AFTER triggers."));
        }
        RelKind::View if kind & Trigger::TRUNCATE != 0 => {
            return Err(wrong(format!("\"{}\" is a view", relation.name), "Views cannot have TRUNCATE triggers."));
        }
        RelKind::View => return Err(SqlError::unsupported("a trigger of a view")),
        RelKind::Partitioned => return Err(SqlError::unsupported("a trigger of a partitioned table")),
        RelKind::Foreign => return Err(SqlError::unsupported("a trigger of a foreign table")),
        RelKind::Index => return Err(refused(relation, "indexes")),
        RelKind::Sequence => return Err(refused(relation, "sequences")),
        RelKind::MatView => return Err(refused(relation, "materialized views")),
        RelKind::Composite => return Err(refused(relation, "composite types")),
        RelKind::Toast => return Err(refused(relation, "TOAST tables")),
        RelKind::PartitionedIndex => return Err(refused(relation, "partitioned indexes")),
    }
    if relation.is_system() {
        let message = format!("permission denied: \"{}\" is a system catalog", relation.name);
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
    }
    Ok(())
}

fn check_right(ctx: &SessionContext, relation: &Relation) -> Result<(), SqlError> {
    if privilege::on_relation(&ctx.catalog, ctx.user, relation, privilege::TRIGGER)? {
        return Ok(());
    }
    let noun = relation.kind.noun();
    Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied for {noun} {}", relation.name)))
}

/// WHEN as stored; with the columns it reads.
fn condition(
    ctx: &mut SessionContext,
    relation: &Relation,
    stmt: &CreateTrigStmt,
    kind: i16,
    source: &str,
) -> Result<Option<(String, Vec<i16>)>, SqlError> {
    let Some(node) = stmt.when_clause.as_deref() else { return Ok(None) };
    let front_end = ctx.front_end;
    let made = front_end.trigger_condition(ctx, node, relation, source)?;
    let place = |e: SqlError, at: i32| nodes::located(e, source, at);
    if let Some((_, at)) = made.old.iter().chain(&made.new).next().filter(|_| !stmt.row) {
        return Err(place(bad("statement trigger's WHEN condition cannot reference column values"), *at));
    }
    if let Some((_, at)) = made.old.first().filter(|_| kind & Trigger::INSERT != 0) {
        return Err(place(bad("INSERT trigger's WHEN condition cannot reference OLD values"), *at));
    }
    if let Some((_, at)) = made.new.first().filter(|_| kind & Trigger::DELETE != 0) {
        return Err(place(bad("DELETE trigger's WHEN condition cannot reference NEW values"), *at));
    }
    for (att, at) in made.new.iter().filter(|_| kind & Trigger::BEFORE != 0) {
        if *att < 0 {
            return Err(place(unable("BEFORE trigger's WHEN condition cannot reference NEW system columns"), *at));
        }
        if let Some(c) = relation.attribute(*att).filter(|c| c.generated) {
            let e = bad("BEFORE trigger's WHEN condition cannot reference NEW generated columns");
            return Err(place(e.detail(format!("Column \"{}\" is a generated column.", c.name)), *at));
        }
    }
    let mut columns: Vec<i16> = made.old.iter().chain(&made.new).map(|(att, _)| *att).collect();
    if columns.iter().any(|att| *att < 0) {
        return Err(SqlError::unsupported("a system column in a trigger's WHEN condition"));
    }
    columns.sort_unstable();
    columns.dedup();
    Ok(Some((made.text, columns)))
}

/// The function a trigger calls.
fn function(ctx: &mut SessionContext, stmt: &CreateTrigStmt) -> Result<Oid, SqlError> {
    let (schema, name) = nodes::qualified(&stmt.funcname)?;
    let shown = nodes::strings(&stmt.funcname).join(".");
    let found = ctx.catalog.functions(schema, name)?.into_iter().find(|f| f.args.is_empty() && f.kind != b'p');
    let Some(func) = found else {
        let builtin = crate::sql::functions::registry::procs_by_name(name).iter().find(|f| f.args.is_empty());
        return Err(match builtin.filter(|_| schema.is_none_or(|s| s == "pg_catalog")) {
            Some(builtin) if builtin.result == oids::TRIGGER => SqlError::unsupported(format_args!("trigger function {shown}")),
            Some(_) => SqlError::new(SqlState::INVALID_OBJECT_DEFINITION, format!("function {shown} must return type trigger")),
            None => SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("function {shown}() does not exist")),
        });
    };
    if !privilege::on_function(&ctx.catalog, ctx.user, func)? {
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied for function {shown}")));
    }
    if func.result != oids::TRIGGER {
        return Err(SqlError::new(SqlState::INVALID_OBJECT_DEFINITION, format!("function {shown} must return type trigger")));
    }
    Ok(func.oid)
}

fn columns(relation: &Relation, stmt: &CreateTrigStmt) -> Result<Vec<i16>, SqlError> {
    let mut out = Vec::new();
    for name in nodes::strings(&stmt.columns) {
        let column = relation.column(name).ok_or_else(|| {
            SqlError::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" of relation \"{}\" does not exist", relation.name))
        })?;
        if out.contains(&column.attnum) {
            return Err(SqlError::new(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" specified more than once")));
        }
        out.push(column.attnum);
    }
    Ok(out)
}

/// The row of a table's trigger.
fn row_of(ctx: &mut SessionContext, relation: Oid, name: &str) -> Result<Option<CatalogRow>, SqlError> {
    ctx.catalog_reader()?.row(&pg_trigger::DEF, by::TRIGGER_TABLE, &[Datum::Oid(relation), Datum::text(name)])
}

/// CREATE TRIGGER.
pub(crate) fn create(ctx: &mut SessionContext, stmt: &CreateTrigStmt, source: &str) -> Result<(), SqlError> {
    let range = nodes::relation(stmt.relation.as_ref())?;
    let relation = ctx.open_locked(range, source, LockMode::ShareRowExclusive)?;
    let name = truncate(&stmt.trigname).to_owned();
    let bits = |n: i32| i16::try_from(n).map_err(|_| SqlError::internal("trigger event"));
    let kind = (i16::from(stmt.row) * Trigger::ROW) | bits(stmt.timing)? | bits(stmt.events)?;
    check_kind(&relation, stmt, kind)?;
    let other = match &stmt.constrrel {
        Some(range) if stmt.isconstraint => Some(ctx.open_locked(range, source, LockMode::AccessShare)?),
        _ => None,
    };
    check_right(ctx, &relation)?;
    if let Some(other) = &other {
        check_right(ctx, other)?;
    }
    if stmt.row && kind & Trigger::TRUNCATE != 0 {
        return Err(unable("TRUNCATE FOR EACH ROW triggers are not supported"));
    }
    if !stmt.transition_rels.is_empty() {
        return Err(SqlError::unsupported("the REFERENCING clause of a trigger"));
    }
    let condition = condition(ctx, &relation, stmt, kind, source)?;
    let function = function(ctx, stmt)?;
    let old = row_of(ctx, relation.oid, &name)?;
    if let Some(old) = &old {
        let refuse = |what: &str| {
            let message = format!("trigger \"{name}\" for relation \"{}\" {what}", relation.name);
            SqlError::new(SqlState::DUPLICATE_OBJECT, message)
        };
        if !stmt.replace {
            return Err(refuse("already exists"));
        }
        if old.oid(pg_trigger::tgconstraint)? != 0 {
            return Err(refuse("is a constraint trigger"));
        }
    }
    let oid = match &old {
        Some(old) => old.oid(pg_trigger::oid)?,
        None => ctx.new_oid(&pg_trigger::DEF, by::TRIGGER_OID)?,
    };
    let address = ObjectAddress::new(pg_trigger::ID, oid);
    let constraint = if stmt.isconstraint { ctx.new_oid(&pg_constraint::DEF, by::CONSTRAINT_OID)? } else { 0 };
    let columns = columns(&relation, stmt)?;
    let mut args = Vec::new();
    for arg in nodes::strings(&stmt.args) {
        args.extend_from_slice(arg.as_bytes());
        args.push(0);
    }
    let mut row = blank(&pg_trigger::DEF);
    row[pg_trigger::oid] = Datum::Oid(oid);
    row[pg_trigger::tgrelid] = Datum::Oid(relation.oid);
    row[pg_trigger::tgparentid] = Datum::Oid(0);
    row[pg_trigger::tgname] = Datum::text(&name);
    row[pg_trigger::tgfoid] = Datum::Oid(function);
    row[pg_trigger::tgtype] = Datum::Int2(kind);
    row[pg_trigger::tgenabled] = Datum::Char(b'O');
    row[pg_trigger::tgisinternal] = Datum::Bool(false);
    row[pg_trigger::tgconstrrelid] = Datum::Oid(other.as_ref().map_or(0, |o| o.oid));
    row[pg_trigger::tgconstrindid] = Datum::Oid(0);
    row[pg_trigger::tgconstraint] = Datum::Oid(constraint);
    row[pg_trigger::tgdeferrable] = Datum::Bool(stmt.deferrable);
    row[pg_trigger::tginitdeferred] = Datum::Bool(stmt.initdeferred);
    row[pg_trigger::tgnargs] = Datum::Int2(i16::try_from(stmt.args.len()).unwrap_or(i16::MAX));
    row[pg_trigger::tgattr] = int2vector(&columns);
    row[pg_trigger::tgargs] = Datum::Bytea(Arc::from(args));
    if let Some((text, _)) = &condition {
        row[pg_trigger::tgqual] = Datum::text(text);
    }
    match &old {
        Some(old) => {
            let changes: Vec<(usize, Datum)> = row.into_iter().enumerate().collect();
            ctx.writer()?.set(&pg_trigger::DEF, old, &changes)?;
            drop::forget_dependencies(ctx, address)?;
        }
        None => {
            ctx.writer()?.insert(&pg_trigger::DEF, &row)?;
        }
    }
    ctx.depend(address, ObjectAddress::new(pg_proc::ID, function), DependKind::Normal)?;
    ctx.depend(address, ObjectAddress::relation(relation.oid), DependKind::Auto)?;
    if let Some(other) = &other {
        ctx.depend(address, ObjectAddress::relation(other.oid), DependKind::Auto)?;
    }
    let mut read = columns;
    read.extend(condition.into_iter().flat_map(|(_, columns)| columns));
    read.sort_unstable();
    read.dedup();
    for attnum in read {
        ctx.depend(address, ObjectAddress::column(relation.oid, attnum), DependKind::Normal)?;
    }
    if constraint != 0 {
        let row = rows::trigger_constraint(constraint, &name, relation.namespace, relation.oid, stmt.deferrable, stmt.initdeferred);
        ctx.writer()?.insert(&pg_constraint::DEF, &row)?;
        ctx.depend(ObjectAddress::new(pg_constraint::ID, constraint), address, DependKind::Internal)?;
    }
    table::update_class(ctx, relation.oid, &[(pg_class::relhastriggers, Datum::Bool(true))])
}

fn missing(name: &str, relation: &Relation) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_OBJECT, format!("trigger \"{name}\" for table \"{}\" does not exist", relation.name))
}

/// ALTER TABLE ... ENABLE and DISABLE TRIGGER; no name: all.
pub(crate) fn set_enabled(ctx: &mut SessionContext, relation: &Relation, name: &str, letter: u8) -> Result<(), SqlError> {
    let mut key = vec![Datum::Oid(relation.oid)];
    if !name.is_empty() {
        key.push(Datum::text(name));
    }
    let rows = ctx.catalog_reader()?.rows(&pg_trigger::DEF, by::TRIGGER_TABLE, &key)?;
    if rows.is_empty() && !name.is_empty() {
        return Err(missing(name, relation));
    }
    for row in rows {
        ctx.writer()?.set(&pg_trigger::DEF, &row, &[(pg_trigger::tgenabled, Datum::Char(letter))])?;
    }
    ctx.relation_changed(relation.oid)
}

/// ALTER TRIGGER ... RENAME TO.
pub(crate) fn rename(ctx: &mut SessionContext, relation: &Relation, old: &str, new: &str) -> Result<(), SqlError> {
    let row = row_of(ctx, relation.oid, old)?.ok_or_else(|| missing(old, relation))?;
    if row_of(ctx, relation.oid, new)?.is_some() {
        let message = format!("trigger \"{new}\" for relation \"{}\" already exists", relation.name);
        return Err(SqlError::new(SqlState::DUPLICATE_OBJECT, message));
    }
    ctx.writer()?.set(&pg_trigger::DEF, &row, &[(pg_trigger::tgname, Datum::text(new))])?;
    ctx.relation_changed(relation.oid)
}

/// The trigger that the last of `names` is, on the table the others name.
pub(crate) fn find(relation: &Relation, name: &str) -> Result<ObjectAddress, SqlError> {
    let found = relation.triggers.iter().find(|t| *t.name == *name).ok_or_else(|| missing(name, relation))?;
    Ok(ObjectAddress::new(pg_trigger::ID, found.oid))
}

/// Removes a trigger's row.
pub(crate) fn remove(ctx: &mut SessionContext, oid: Oid) -> Result<(), SqlError> {
    let Some(row) = ctx.catalog_reader()?.row(&pg_trigger::DEF, by::TRIGGER_OID, &[Datum::Oid(oid)])? else { return Ok(()) };
    let relation = row.oid(pg_trigger::tgrelid)?;
    ctx.lock_oid(relation, false, LockMode::AccessExclusive, crate::txn::WaitPolicy::Block)?;
    ctx.writer()?.delete(&pg_trigger::DEF, &row)?;
    ctx.relation_changed(relation)
}
