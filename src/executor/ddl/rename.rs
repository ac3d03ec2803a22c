//! ALTER ... RENAME, SET SCHEMA, OWNER TO.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{AlterObjectSchemaStmt, AlterOwnerStmt, Node, ObjectType, RenameStmt};

use super::{expression, nodes, step, table};
use crate::executor::SessionContext;
use crate::sql::catalog::load::{CatalogReader, EXPRESSION_SEPARATOR, by};
use crate::sql::catalog::names::truncate;
use crate::sql::catalog::relation::{PG_CATALOG_NAMESPACE, RelKind, Relation};
use crate::sql::catalog::rows::{DependKind, ObjectAddress};
use crate::sql::catalog::schema::{
    pg_attrdef, pg_attribute, pg_authid, pg_class, pg_constraint, pg_database, pg_depend, pg_index, pg_namespace, pg_rewrite, pg_shdepend,
    pg_trigger,
};
use crate::sql::types::{Datum, Oid, oids};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, WaitPolicy};

/// ALTER ... RENAME TO.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these kinds of objects come here")]
pub(crate) fn run(ctx: &mut SessionContext, stmt: &RenameStmt, source: &str) -> Result<(), SqlError> {
    let new = truncate(&stmt.newname);
    match stmt.rename_type() {
        ObjectType::ObjectTable
        | ObjectType::ObjectIndex
        | ObjectType::ObjectSequence
        | ObjectType::ObjectView
        | ObjectType::ObjectMatview => match open(ctx, stmt, source)? {
            Some(relation) => {
                // ALTER TABLE and ALTER INDEX are lenient, as in PostgreSQL.
                let wanted = match stmt.rename_type() {
                    ObjectType::ObjectSequence if relation.kind != RelKind::Sequence => Some("sequence"),
                    ObjectType::ObjectView if relation.kind != RelKind::View => Some("view"),
                    ObjectType::ObjectMatview if relation.kind != RelKind::MatView => Some("materialized view"),
                    _ => None,
                };
                match wanted {
                    Some(wanted) => Err(step::is_not(&relation, wanted)),
                    None => rename_relation(ctx, &relation, new),
                }
            }
            None => Ok(()),
        },
        ObjectType::ObjectColumn | ObjectType::ObjectAttribute => match open(ctx, stmt, source)? {
            Some(relation) => rename_column(ctx, &relation, &stmt.subname, new),
            None => Ok(()),
        },
        ObjectType::ObjectTabconstraint => match open(ctx, stmt, source)? {
            Some(relation) => rename_constraint(ctx, &relation, &stmt.subname, new),
            None => Ok(()),
        },
        kind @ (ObjectType::ObjectFunction | ObjectType::ObjectProcedure | ObjectType::ObjectRoutine) => {
            super::function::rename(ctx, stmt.object.as_deref(), kind, new)
        }
        ObjectType::ObjectTrigger => match open(ctx, stmt, source)? {
            Some(relation) => super::trigger::rename(ctx, &relation, &stmt.subname, new),
            None => Ok(()),
        },
        ObjectType::ObjectSchema => rename_schema(ctx, &stmt.subname, new),
        ObjectType::ObjectDatabase => rename_database(ctx, &stmt.subname, new),
        ObjectType::ObjectRole => rename_role(ctx, &stmt.subname, new),
        other => Err(SqlError::unsupported(format_args!("renaming of {}", other.as_str_name()))),
    }
}

fn open(ctx: &mut SessionContext, stmt: &RenameStmt, source: &str) -> Result<Option<Arc<Relation>>, SqlError> {
    let range = nodes::relation(stmt.relation.as_ref())?;
    let (schema, name) = nodes::names(range);
    if stmt.missing_ok && ctx.find_locked(schema, name, LockMode::AccessExclusive, WaitPolicy::Block)?.is_none() {
        ctx.notice(format!("relation \"{name}\" does not exist, skipping"));
        return Ok(None);
    }
    let relation = ctx.open_locked(range, source, LockMode::AccessExclusive)?;
    ctx.check_owner(&relation)?;
    Ok(Some(relation))
}

fn rename_relation(ctx: &mut SessionContext, relation: &Relation, new: &str) -> Result<(), SqlError> {
    if ctx.catalog.relation_oid(relation.namespace, new)?.is_some() {
        return Err(SqlError::new(SqlState::DUPLICATE_TABLE, format!("relation \"{new}\" already exists")));
    }
    table::update_class(ctx, relation.oid, &[(pg_class::relname, Datum::text(new))])?;
    // The constraint that an index stands for has its name.
    if let Some((owner, index)) = ctx.catalog.index(relation.oid)? {
        if index.constraint != 0 {
            set_constraint_name(ctx, owner.oid, index.constraint, new)?;
        }
        ctx.relation_changed(owner.oid)?;
    }
    ctx.relation_names_changed()
}

fn set_constraint_name(ctx: &mut SessionContext, relation: Oid, constraint: Oid, new: &str) -> Result<(), SqlError> {
    let row = ctx.catalog_reader()?.row(&pg_constraint::DEF, by::CONSTRAINT_OID, &[Datum::Oid(constraint)])?;
    if let Some(row) = row {
        ctx.writer()?.set(&pg_constraint::DEF, &row, &[(pg_constraint::conname, Datum::text(new))])?;
    }
    ctx.relation_changed(relation)
}

fn rename_constraint(ctx: &mut SessionContext, relation: &Relation, old: &str, new: &str) -> Result<(), SqlError> {
    let checks = relation.checks.iter().map(|c| (c.oid, &c.name, 0));
    let others = relation.constraints.iter().map(|c| (c.oid, &c.name, c.index));
    let found = checks.chain(others).find(|(_, name, _)| &***name == old).map(|(oid, _, index)| (oid, index));
    let Some((oid, index)) = found else {
        let message = format!("constraint \"{old}\" for table \"{}\" does not exist", relation.name);
        return Err(SqlError::new(SqlState::UNDEFINED_OBJECT, message));
    };
    let own_index = relation.indexes.iter().find(|i| i.oid == index && i.constraint == oid);
    if own_index.is_some() && ctx.catalog.relation_oid(relation.namespace, new)?.is_some() {
        return Err(SqlError::new(SqlState::DUPLICATE_TABLE, format!("relation \"{new}\" already exists")));
    }
    super::constraint::check_name(ctx, relation, new)?;
    set_constraint_name(ctx, relation.oid, oid, new)?;
    if let Some(index) = own_index {
        table::update_class(ctx, index.oid, &[(pg_class::relname, Datum::text(new))])?;
        ctx.relation_names_changed()?;
    }
    Ok(())
}

fn rename_column(ctx: &mut SessionContext, relation: &Relation, old: &str, new: &str) -> Result<(), SqlError> {
    let column =
        relation.column(old).ok_or_else(|| SqlError::new(SqlState::UNDEFINED_COLUMN, format!("column \"{old}\" does not exist")))?;
    table::check_column_name(new)?;
    if relation.column(new).is_some() {
        let message = format!("column \"{new}\" of relation \"{}\" already exists", relation.name);
        return Err(SqlError::new(SqlState::DUPLICATE_COLUMN, message));
    }
    let attnum = column.attnum;
    refuse_in_views(ctx, relation, attnum)?;
    table::update_attribute(ctx, relation.oid, attnum, &[(pg_attribute::attname, Datum::text(new))])?;
    // Expressions are text: they follow.
    let names = (old, new);
    let now = ctx.reopen(relation.oid)?;
    let boolean = Some((oids::BOOL, -1));
    for check in relation.checks.iter().filter(|c| c.columns.contains(&attnum)) {
        let text = renamed(ctx, &check.expression, names, &now, boolean)?;
        let row = ctx.catalog_reader()?.row(&pg_constraint::DEF, by::CONSTRAINT_OID, &[Datum::Oid(check.oid)])?;
        if let Some(row) = row {
            ctx.writer()?.set(&pg_constraint::DEF, &row, &[(pg_constraint::conbin, Datum::text(text))])?;
        }
    }
    for c in relation.columns.iter().filter(|c| c.generated) {
        let key = [Datum::Oid(relation.oid), Datum::Int2(c.attnum)];
        let row = ctx.catalog_reader()?.row(&pg_attrdef::DEF, by::ATTRDEF_COLUMN, &key)?;
        if let (Some(row), Some(text)) = (row, &c.default) {
            let text = renamed(ctx, text, names, &now, Some((c.type_oid, c.typmod)))?;
            ctx.writer()?.set(&pg_attrdef::DEF, &row, &[(pg_attrdef::adbin, Datum::text(text))])?;
        }
    }
    for t in &relation.triggers {
        let Some(text) = &t.condition else { continue };
        let mut node = expression::parse_text(ctx, text)?;
        rename_in(&mut node, old, new);
        let front_end = ctx.front_end;
        let text = front_end.trigger_condition(ctx, &node, &now, "")?.text;
        let row = ctx.catalog_reader()?.row(&pg_trigger::DEF, by::TRIGGER_OID, &[Datum::Oid(t.oid)])?;
        if let Some(row) = row {
            ctx.writer()?.set(&pg_trigger::DEF, &row, &[(pg_trigger::tgqual, Datum::text(text))])?;
        }
    }
    for index in &relation.indexes {
        let row = ctx.catalog_reader()?.row(&pg_index::DEF, by::INDEX_OID, &[Datum::Oid(index.oid)])?;
        let Some(row) = row else { continue };
        let mut changes = Vec::new();
        let mut expressions = Vec::new();
        for text in index.columns.iter().filter_map(|c| c.expression.as_ref()) {
            expressions.push(renamed(ctx, text, names, &now, None)?);
        }
        if !expressions.is_empty() {
            changes.push((pg_index::indexprs, Datum::text(expressions.join(&EXPRESSION_SEPARATOR.to_string()))));
        }
        if let Some(predicate) = &index.predicate {
            changes.push((pg_index::indpred, Datum::text(renamed(ctx, predicate, names, &now, boolean)?)));
        }
        if !changes.is_empty() {
            ctx.writer()?.set(&pg_index::DEF, &row, &changes)?;
        }
        for (c, position) in index.columns.iter().zip(1_i16..) {
            if c.attnum == attnum {
                table::update_attribute(ctx, index.oid, position, &[(pg_attribute::attname, Datum::text(new))])?;
            }
        }
    }
    ctx.relation_changed(relation.oid)
}

/// Stored view queries name columns by name, so a column that one may use keeps its own.
fn refuse_in_views(ctx: &mut SessionContext, relation: &Relation, attnum: i16) -> Result<(), SqlError> {
    let key = [Datum::Oid(pg_class::ID), Datum::Oid(relation.oid), Datum::Int4(i32::from(attnum))];
    for row in ctx.catalog_reader()?.rows(&pg_depend::DEF, by::DEPEND_REFERENCED, &key)? {
        if row.oid(pg_depend::classid)? == pg_rewrite::ID {
            return Err(SqlError::unsupported("renaming a column that a view uses"));
        }
    }
    Ok(())
}

/// Expression text with a column's new name, which `relation` has already.
fn renamed(
    ctx: &mut SessionContext,
    stored: &str,
    (old, new): (&str, &str),
    relation: &Relation,
    target: Option<(Oid, i32)>,
) -> Result<String, SqlError> {
    let mut node = expression::parse_text(ctx, stored)?;
    rename_in(&mut node, old, new);
    expression::canonical(ctx, &node, Some(relation), target, "expressions")
}

fn rename_in(node: &mut Node, old: &str, new: &str) {
    let each = |list: &mut [Node]| list.iter_mut().for_each(|n| rename_in(n, old, new));
    match &mut node.node {
        Some(NodeEnum::ColumnRef(column)) => {
            if let Some(NodeEnum::String(s)) = column.fields.last_mut().and_then(|f| f.node.as_mut())
                && s.sval == old
            {
                new.clone_into(&mut s.sval);
            }
        }
        Some(NodeEnum::AExpr(e)) => {
            e.lexpr.iter_mut().chain(&mut e.rexpr).for_each(|n| rename_in(n, old, new));
        }
        Some(NodeEnum::BoolExpr(e)) => each(&mut e.args),
        Some(NodeEnum::FuncCall(e)) => each(&mut e.args),
        Some(NodeEnum::CoalesceExpr(e)) => each(&mut e.args),
        Some(NodeEnum::MinMaxExpr(e)) => each(&mut e.args),
        Some(NodeEnum::RowExpr(e)) => each(&mut e.args),
        Some(NodeEnum::AArrayExpr(e)) => each(&mut e.elements),
        Some(NodeEnum::List(e)) => each(&mut e.items),
        Some(NodeEnum::CaseExpr(e)) => {
            e.arg.iter_mut().chain(&mut e.defresult).for_each(|n| rename_in(n, old, new));
            each(&mut e.args);
        }
        Some(NodeEnum::CaseWhen(e)) => {
            e.expr.iter_mut().chain(&mut e.result).for_each(|n| rename_in(n, old, new));
        }
        Some(NodeEnum::TypeCast(e)) => e.arg.iter_mut().for_each(|n| rename_in(n, old, new)),
        Some(NodeEnum::CollateClause(e)) => e.arg.iter_mut().for_each(|n| rename_in(n, old, new)),
        Some(NodeEnum::NullTest(e)) => e.arg.iter_mut().for_each(|n| rename_in(n, old, new)),
        Some(NodeEnum::BooleanTest(e)) => e.arg.iter_mut().for_each(|n| rename_in(n, old, new)),
        Some(NodeEnum::AIndirection(e)) => e.arg.iter_mut().for_each(|n| rename_in(n, old, new)),
        _ => {}
    }
}

fn rename_schema(ctx: &mut SessionContext, old: &str, new: &str) -> Result<(), SqlError> {
    let row = super::schema::row_of(ctx, old)?
        .ok_or_else(|| SqlError::new(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{old}\" does not exist")))?;
    if !ctx.catalog.has_privileges_of(ctx.user, row.oid(pg_namespace::nspowner)?)? {
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("must be owner of schema {old}")));
    }
    if new.starts_with("pg_") {
        return Err(SqlError::new(SqlState::RESERVED_NAME, format!("unacceptable schema name \"{new}\""))
            .detail("The prefix \"pg_\" is reserved for system schemas."));
    }
    if ctx.catalog.find_namespace(new)?.is_some() {
        return Err(SqlError::new(SqlState::DUPLICATE_SCHEMA, format!("schema \"{new}\" already exists")));
    }
    ctx.writer()?.set(&pg_namespace::DEF, &row, &[(pg_namespace::nspname, Datum::text(new))])?;
    ctx.namespaces_changed()
}

fn rename_database(ctx: &mut SessionContext, old: &str, new: &str) -> Result<(), SqlError> {
    let row = super::database::owned_row(ctx, old)?;
    if row.oid(pg_database::oid)? == ctx.database {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "current database cannot be renamed"));
    }
    if ctx.catalog.find_database(new)?.is_some() {
        return Err(SqlError::new(SqlState::DUPLICATE_DATABASE, format!("database \"{new}\" already exists")));
    }
    ctx.writer()?.set(&pg_database::DEF, &row, &[(pg_database::datname, Datum::text(new))])?;
    ctx.databases_changed()
}

fn rename_role(ctx: &mut SessionContext, old: &str, new: &str) -> Result<(), SqlError> {
    let row = super::role::row_of(ctx, old)?;
    if row.oid(pg_authid::oid)? == ctx.session_user {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "session user cannot be renamed"));
    }
    super::role::check_may_change(ctx, &row)?;
    super::role::check_role_name(new)?;
    if ctx.catalog.find_role(new)?.is_some() {
        return Err(SqlError::new(SqlState::DUPLICATE_OBJECT, format!("role \"{new}\" already exists")));
    }
    let mut changes = vec![(pg_authid::rolname, Datum::text(new))];
    // An MD5 verifier is salted with the name.
    if row.opt_str(pg_authid::rolpassword)?.is_some_and(|p| p.starts_with("md5")) {
        changes.push((pg_authid::rolpassword, Datum::Null));
        ctx.notice("MD5 password cleared because of role rename");
    }
    ctx.writer()?.set(&pg_authid::DEF, &row, &changes)?;
    ctx.roles_changed()
}

/// ALTER ... SET SCHEMA.
pub(crate) fn set_schema(ctx: &mut SessionContext, stmt: &AlterObjectSchemaStmt, source: &str) -> Result<(), SqlError> {
    let kind = stmt.object_type();
    if matches!(kind, ObjectType::ObjectFunction | ObjectType::ObjectProcedure | ObjectType::ObjectRoutine) {
        return super::function::set_schema(ctx, stmt.object.as_deref(), kind, &stmt.newschema);
    }
    let range = nodes::relation(stmt.relation.as_ref())?;
    let (schema, name) = nodes::names(range);
    if stmt.missing_ok && ctx.find_locked(schema, name, LockMode::AccessExclusive, WaitPolicy::Block)?.is_none() {
        ctx.notice(format!("relation \"{name}\" does not exist, skipping"));
        return Ok(());
    }
    let relation = ctx.open_locked(range, source, LockMode::AccessExclusive)?;
    ctx.check_owner(&relation)?;
    let namespace = ctx.creation_namespace(Some(&stmt.newschema))?;
    if namespace == relation.namespace {
        return Ok(());
    }
    for oid in [namespace, relation.namespace] {
        let name = ctx.catalog.namespace_name(oid)?.unwrap_or_default();
        let what = if super::temp::is_schema_name(&name) {
            "temporary schemas"
        } else if &*name == "pg_toast" {
            "TOAST schema"
        } else {
            continue;
        };
        let message = format!("cannot move objects into or out of {what}");
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message));
    }
    if relation.namespace == PG_CATALOG_NAMESPACE || relation.kind == RelKind::Index {
        return Err(step::wrong_kind(&relation, "table, view, or sequence"));
    }
    let mut moved = vec![relation.oid];
    moved.extend(relation.indexes.iter().map(|i| i.oid));
    let key = [Datum::Oid(pg_class::ID), Datum::Oid(relation.oid)];
    for row in ctx.catalog_reader()?.rows(&pg_depend::DEF, by::DEPEND_REFERENCED, &key)? {
        let other = row.oid(pg_depend::objid)?;
        let owned = row.oid(pg_depend::classid)? == pg_class::ID && row.int4(pg_depend::refobjsubid)? != 0;
        if owned && ctx.catalog.relation(other)?.is_some_and(|r| r.kind == RelKind::Sequence) {
            moved.push(other);
        }
    }
    for oid in moved {
        let found = ctx.reopen(oid)?;
        if ctx.catalog.relation_oid(namespace, &found.name)?.is_some() {
            let message = format!("relation \"{}\" already exists in schema \"{}\"", found.name, stmt.newschema);
            return Err(SqlError::new(SqlState::DUPLICATE_TABLE, message));
        }
        table::update_class(ctx, oid, &[(pg_class::relnamespace, Datum::Oid(namespace))])?;
        let key = [Datum::Oid(pg_class::ID), Datum::Oid(oid), Datum::Int4(0)];
        for row in ctx.catalog_reader()?.rows(&pg_depend::DEF, by::DEPEND_DEPENDER, &key)? {
            if row.oid(pg_depend::refclassid)? == pg_namespace::ID {
                ctx.writer()?.delete(&pg_depend::DEF, &row)?;
                let on = ObjectAddress::new(pg_namespace::ID, namespace);
                ctx.depend(ObjectAddress::relation(oid), on, DependKind::Normal)?;
            }
        }
        for constraint in found.constraints.iter().map(|c| c.oid).chain(found.checks.iter().map(|c| c.oid)) {
            let key = [Datum::Oid(constraint)];
            if let Some(row) = ctx.catalog_reader()?.row(&pg_constraint::DEF, by::CONSTRAINT_OID, &key)? {
                let change = [(pg_constraint::connamespace, Datum::Oid(namespace))];
                ctx.writer()?.set(&pg_constraint::DEF, &row, &change)?;
            }
        }
        ctx.relation_changed(oid)?;
    }
    ctx.relation_names_changed()
}

/// ALTER ... OWNER TO of objects that are no relations.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these kinds of objects come here")]
pub(crate) fn set_owner(ctx: &mut SessionContext, stmt: &AlterOwnerStmt) -> Result<(), SqlError> {
    let Some(spec) = &stmt.newowner else { return Ok(()) };
    let owner = ctx.role_oid(spec)?;
    let name = stmt.object.as_deref().and_then(nodes::string).unwrap_or_default().to_owned();
    match stmt.object_type() {
        ObjectType::ObjectSchema => {
            let row = super::schema::row_of(ctx, &name)?
                .ok_or_else(|| SqlError::new(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist")))?;
            if !ctx.catalog.has_privileges_of(ctx.user, row.oid(pg_namespace::nspowner)?)? {
                return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("must be owner of schema {name}")));
            }
            ctx.writer()?.set(&pg_namespace::DEF, &row, &[(pg_namespace::nspowner, Datum::Oid(owner))])?;
            move_owner(ctx, ObjectAddress::new(pg_namespace::ID, row.oid(pg_namespace::oid)?), owner, false)?;
            ctx.namespaces_changed()
        }
        ObjectType::ObjectDatabase => {
            let row = super::database::owned_row(ctx, &name)?;
            ctx.writer()?.set(&pg_database::DEF, &row, &[(pg_database::datdba, Datum::Oid(owner))])?;
            move_owner(ctx, ObjectAddress::new(pg_database::ID, row.oid(pg_database::oid)?), owner, true)?;
            ctx.databases_changed()
        }
        kind @ (ObjectType::ObjectFunction | ObjectType::ObjectProcedure | ObjectType::ObjectRoutine) => {
            super::function::set_owner(ctx, stmt.object.as_deref(), kind, owner)
        }
        other => Err(SqlError::unsupported(format_args!("OWNER TO of {}", other.as_str_name()))),
    }
}

/// Records another owner in `pg_shdepend`.
pub(super) fn move_owner(ctx: &mut SessionContext, object: ObjectAddress, owner: Oid, shared: bool) -> Result<(), SqlError> {
    let database = if shared { 0 } else { ctx.database };
    let key = [Datum::Oid(database), Datum::Oid(object.class), Datum::Oid(object.object)];
    for row in ctx.catalog_reader()?.rows(&pg_shdepend::DEF, by::SHDEPEND_DEPENDER, &key)? {
        if row.char(pg_shdepend::deptype)? == b'o' {
            ctx.writer()?.delete(&pg_shdepend::DEF, &row)?;
        }
    }
    ctx.depend_on_owner(object, owner, shared)
}
