//! DROP: what goes with an object, and in which order.
//!
//! PostgreSQL: catalog/dependency.c.

use pg_query::protobuf::{DropBehavior, DropStmt, Node, ObjectType};

use super::nodes;
use crate::executor::SessionContext;
use crate::sql::catalog::load::{CatalogReader, CatalogRow, by};
use crate::sql::catalog::names::{quote_identifier, quote_qualified};
use crate::sql::catalog::relation::{PG_CATALOG_NAMESPACE, PUBLIC_NAMESPACE, Persistence, RelKind, Relation};
use crate::sql::catalog::rows::ObjectAddress;
use crate::sql::catalog::schema::{
    CatalogDef, pg_attrdef, pg_attribute, pg_class, pg_constraint, pg_depend, pg_description, pg_index, pg_namespace, pg_proc, pg_rewrite,
    pg_sequence, pg_shdepend, pg_statistic, pg_trigger, pg_type,
};
use crate::sql::types::typmod::format_type_with;
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, WaitPolicy};

/// DROP TABLE, INDEX, SEQUENCE, VIEW, SCHEMA.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these kinds of objects come here")]
pub(crate) fn run(ctx: &mut SessionContext, stmt: &DropStmt) -> Result<(), SqlError> {
    let cascade = stmt.behavior() == DropBehavior::DropCascade;
    if stmt.concurrent {
        return index_concurrently(ctx, stmt, cascade);
    }
    let mut targets = Vec::new();
    for object in &stmt.objects {
        let found = match stmt.remove_type() {
            kind @ (ObjectType::ObjectTable
            | ObjectType::ObjectIndex
            | ObjectType::ObjectSequence
            | ObjectType::ObjectView
            | ObjectType::ObjectMatview) => relation_target(ctx, object, kind, stmt.missing_ok, LockMode::AccessExclusive)?,
            ObjectType::ObjectSchema => schema_target(ctx, object, stmt.missing_ok)?,
            ObjectType::ObjectTrigger => trigger_target(ctx, object, stmt.missing_ok)?,
            kind @ (ObjectType::ObjectFunction | ObjectType::ObjectProcedure | ObjectType::ObjectRoutine) => {
                let named = super::function::object(object)?;
                match super::function::find(ctx, named, kind, stmt.missing_ok)? {
                    Some(row) => Some(ObjectAddress::new(pg_proc::ID, row.oid(pg_proc::oid)?)),
                    None => None,
                }
            }
            other => {
                return Err(SqlError::unsupported(format_args!("DROP {}", other.as_str_name().trim_start_matches("OBJECT_"))));
            }
        };
        targets.extend(found);
    }
    delete(ctx, &targets, cascade)
}

/// DROP INDEX CONCURRENTLY: readers and writers of the table go on meanwhile.
fn index_concurrently(ctx: &mut SessionContext, stmt: &DropStmt, cascade: bool) -> Result<(), SqlError> {
    ctx.prevent_in_block("DROP INDEX CONCURRENTLY")?;
    let [object] = stmt.objects.as_slice() else {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "DROP INDEX CONCURRENTLY does not support dropping multiple objects"));
    };
    if cascade {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "DROP INDEX CONCURRENTLY does not support CASCADE"));
    }
    let mode = LockMode::ShareUpdateExclusive;
    let Some(target) = relation_target(ctx, object, ObjectType::ObjectIndex, stmt.missing_ok, mode)? else { return Ok(()) };
    let (table, _) = ctx.catalog.index(target.object)?.ok_or_else(|| SqlError::internal("index without a table"))?;
    if table.persistence == Persistence::Temporary {
        return delete(ctx, &[target], false);
    }
    // Whether it may go at all, before it is given up.
    doomed_with(ctx, &[target], false)?;
    super::index::drop_concurrently(ctx, &table, target.object, |ctx| delete(ctx, &[target], false))
}

/// The trigger that the last name means, on the table before it.
fn trigger_target(ctx: &mut SessionContext, object: &Node, missing_ok: bool) -> Result<Option<ObjectAddress>, SqlError> {
    let items = nodes::items(object);
    let Some((last, table)) = items.split_last() else { return Err(SqlError::internal("DROP TRIGGER of nothing")) };
    let trigger = nodes::string(last).unwrap_or_default();
    let (schema, name) = nodes::qualified(table)?;
    let Some(relation) = ctx.find_locked(schema, name, LockMode::AccessExclusive, WaitPolicy::Block)? else {
        let shown = schema.map_or_else(|| name.to_owned(), |s| format!("{s}.{name}"));
        let message = format!("relation \"{shown}\" does not exist");
        if missing_ok {
            ctx.notice_with(SqlState::SUCCESSFUL_COMPLETION, format!("{message}, skipping"));
            return Ok(None);
        }
        return Err(SqlError::new(SqlState::UNDEFINED_TABLE, message));
    };
    match super::trigger::find(&relation, trigger) {
        Ok(address) => {
            ctx.check_owner(&relation)?;
            ctx.deferral.check_not_pending(ctx.transaction.as_ref(), &relation, "DROP TRIGGER")?;
            Ok(Some(address))
        }
        Err(_) if missing_ok => {
            let message = format!("trigger \"{trigger}\" for relation \"{}\" does not exist, skipping", relation.name);
            ctx.notice_with(SqlState::SUCCESSFUL_COMPLETION, message);
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these kinds of objects come here")]
fn relation_target(
    ctx: &mut SessionContext,
    object: &Node,
    kind: ObjectType,
    missing_ok: bool,
    mode: LockMode,
) -> Result<Option<ObjectAddress>, SqlError> {
    let (schema, name) = nodes::qualified(nodes::items(object))?;
    let (wanted, noun): (&[RelKind], &str) = match kind {
        ObjectType::ObjectIndex => (&[RelKind::Index, RelKind::PartitionedIndex], "index"),
        ObjectType::ObjectSequence => (&[RelKind::Sequence], "sequence"),
        ObjectType::ObjectView => (&[RelKind::View], "view"),
        ObjectType::ObjectMatview => (&[RelKind::MatView], "materialized view"),
        _ => (&[RelKind::Table, RelKind::Partitioned], "table"),
    };
    // PostgreSQL locks an index's table before the index.
    if kind == ObjectType::ObjectIndex
        && let Ok(Some(found)) = ctx.catalog.find_relation(schema, name)
        && let Some((owner, _)) = ctx.catalog.index(found.oid)?
    {
        ctx.lock_oid(owner.oid, owner.shared, mode, WaitPolicy::Block)?;
    }
    let Some(relation) = ctx.find_locked(schema, name, mode, WaitPolicy::Block)? else {
        if missing_ok {
            if let Some(schema) = schema
                && ctx.catalog.find_namespace(schema)?.is_none()
            {
                ctx.notice_with(SqlState::SUCCESSFUL_COMPLETION, format!("schema \"{schema}\" does not exist, skipping"));
            } else {
                ctx.notice_with(SqlState::SUCCESSFUL_COMPLETION, format!("{noun} \"{name}\" does not exist, skipping"));
            }
            return Ok(None);
        }
        if let Some(schema) = schema
            && kind != ObjectType::ObjectTable
        {
            ctx.catalog.require_namespace(schema)?;
        }
        let shown = schema.map_or_else(|| name.to_owned(), |s| format!("{s}.{name}"));
        let state = if kind == ObjectType::ObjectIndex { SqlState::UNDEFINED_OBJECT } else { SqlState::UNDEFINED_TABLE };
        return Err(SqlError::new(state, format!("{noun} \"{shown}\" does not exist")));
    };
    if !wanted.contains(&relation.kind) {
        return Err(super::step::wrong_kind(&relation, noun));
    }
    ctx.check_owner(&relation)?;
    if relation.kind == RelKind::Table {
        ctx.deferral.check_not_pending(ctx.transaction.as_ref(), &relation, "DROP TABLE")?;
    }
    Ok(Some(ObjectAddress::relation(relation.oid)))
}

fn schema_target(ctx: &mut SessionContext, object: &Node, missing_ok: bool) -> Result<Option<ObjectAddress>, SqlError> {
    let name = nodes::strings(nodes::items(object)).last().copied().unwrap_or_default().to_owned();
    let Some(row) = super::schema::row_of(ctx, &name)? else {
        let message = format!("schema \"{name}\" does not exist");
        if missing_ok {
            ctx.notice_with(SqlState::SUCCESSFUL_COMPLETION, format!("{message}, skipping"));
            return Ok(None);
        }
        return Err(SqlError::new(SqlState::INVALID_SCHEMA_NAME, message));
    };
    let oid = row.oid(pg_namespace::oid)?;
    if !ctx.catalog.has_privileges_of(ctx.user, row.oid(pg_namespace::nspowner)?)? {
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("must be owner of schema {name}")));
    }
    if oid < PUBLIC_NAMESPACE || name == "information_schema" {
        let message = format!("cannot drop schema {name} because it is required by the database system");
        return Err(SqlError::new(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message));
    }
    Ok(Some(ObjectAddress::new(pg_namespace::ID, oid)))
}

/// An object found to go.
struct Doomed {
    object: ObjectAddress,
    /// Gone anyway with something else, without CASCADE.
    implied: bool,
    /// The object it depends on, for messages.
    because: Option<ObjectAddress>,
}

/// Drops objects and what depends on them.
pub(crate) fn delete(ctx: &mut SessionContext, targets: &[ObjectAddress], cascade: bool) -> Result<(), SqlError> {
    // Dependents were found after what they depend on.
    for item in doomed_with(ctx, targets, cascade)?.iter().rev() {
        remove(ctx, item.object)?;
    }
    Ok(())
}

/// What goes with these objects; an error if something may not.
fn doomed_with(ctx: &mut SessionContext, targets: &[ObjectAddress], cascade: bool) -> Result<Vec<Doomed>, SqlError> {
    let mut doomed: Vec<Doomed> = Vec::new();
    for &target in targets {
        refuse_part(ctx, target, targets)?;
        collect(ctx, target, true, None, targets, &mut doomed)?;
    }
    report(ctx, targets, &doomed, cascade)?;
    Ok(doomed)
}

/// `2BP01` if the object is a part of another that is not dropped too.
fn refuse_part(ctx: &mut SessionContext, target: ObjectAddress, targets: &[ObjectAddress]) -> Result<(), SqlError> {
    if target.sub != 0 {
        return Ok(());
    }
    let key = [Datum::Oid(target.class), Datum::Oid(target.object), Datum::Int4(0)];
    for row in ctx.catalog_reader()?.rows(&pg_depend::DEF, by::DEPEND_DEPENDER, &key)? {
        if row.char(pg_depend::deptype)? != b'i' {
            continue;
        }
        let owner = referenced(&row)?;
        if targets.contains(&owner) {
            continue;
        }
        let (this, whole) = (describe(ctx, target)?, describe(ctx, owner)?);
        return Err(SqlError::new(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, format!("cannot drop {this} because {whole} requires it"))
            .hint(format!("You can drop {whole} instead.")));
    }
    Ok(())
}

fn referenced(row: &CatalogRow) -> Result<ObjectAddress, SqlError> {
    Ok(ObjectAddress {
        class: row.oid(pg_depend::refclassid)?,
        object: row.oid(pg_depend::refobjid)?,
        sub: row.int4(pg_depend::refobjsubid)?,
    })
}

fn collect(
    ctx: &mut SessionContext,
    object: ObjectAddress,
    implied: bool,
    because: Option<ObjectAddress>,
    targets: &[ObjectAddress],
    doomed: &mut Vec<Doomed>,
) -> Result<(), SqlError> {
    if let Some(known) = doomed
        .iter_mut()
        .find(|d| d.object == object || (d.object.sub == 0 && d.object.class == object.class && d.object.object == object.object))
    {
        known.implied |= implied;
        // What was asked to go is the better reason.
        if let Some(because) = because
            && targets.contains(&because)
        {
            known.because = Some(because);
        }
        return Ok(());
    }
    doomed.push(Doomed { object, implied, because });
    if object.class == pg_class::ID && object.sub == 0 {
        // With a table goes the type of its rows, and what needs that.
        let row_type = ObjectAddress::new(pg_type::ID, object.object);
        collect_dependents(ctx, row_type, targets, doomed)?;
    }
    collect_dependents(ctx, object, targets, doomed)
}

/// What depends on an object that goes.
fn collect_dependents(
    ctx: &mut SessionContext,
    object: ObjectAddress,
    targets: &[ObjectAddress],
    doomed: &mut Vec<Doomed>,
) -> Result<(), SqlError> {
    let mut key = vec![Datum::Oid(object.class), Datum::Oid(object.object)];
    if object.sub != 0 {
        key.push(Datum::Int4(object.sub));
    }
    let mut dependents = Vec::new();
    for row in ctx.catalog_reader()?.rows(&pg_depend::DEF, by::DEPEND_REFERENCED, &key)? {
        let dependent =
            ObjectAddress { class: row.oid(pg_depend::classid)?, object: row.oid(pg_depend::objid)?, sub: row.int4(pg_depend::objsubid)? };
        // A column depends on another of the same table: the table as a whole goes on.
        let own = dependent.class == object.class && dependent.object == object.object;
        if own && (object.sub == 0 || dependent.sub == object.sub) {
            continue;
        }
        dependents.push((dependent, row.char(pg_depend::deptype)?));
    }
    if object.class == pg_type::ID {
        // PostgreSQL tells of the last column of a table first.
        dependents.sort_by_key(|(d, _)| (d.object, std::cmp::Reverse(d.sub)));
    }
    for (dependent, kind) in dependents {
        // A part goes with its whole, and takes the whole along: a view's rule, its view.
        if dependent.class == pg_rewrite::ID
            && kind != b'i'
            && let Some(view) = view_of_rule(ctx, dependent.object)?
        {
            let implied = targets.contains(&view);
            collect(ctx, view, implied, Some(object), targets, doomed)?;
            continue;
        }
        let implied = kind != b'n' || targets.contains(&dependent);
        collect(ctx, dependent, implied, Some(object), targets, doomed)?;
    }
    Ok(())
}

fn view_of_rule(ctx: &mut SessionContext, rule: Oid) -> Result<Option<ObjectAddress>, SqlError> {
    let row = ctx.catalog_reader()?.row(&pg_rewrite::DEF, by::REWRITE_OID, &[Datum::Oid(rule)])?;
    row.map(|row| row.oid(pg_rewrite::ev_class).map(ObjectAddress::relation)).transpose()
}

fn report(ctx: &mut SessionContext, targets: &[ObjectAddress], doomed: &[Doomed], cascade: bool) -> Result<(), SqlError> {
    const SHOWN: usize = 100;
    let mut lines = Vec::new();
    for item in doomed.iter().filter(|d| !d.implied && !targets.contains(&d.object)) {
        let this = describe(ctx, item.object)?;
        lines.push(match (cascade, item.because) {
            (true, _) | (false, None) => format!("drop cascades to {this}"),
            (false, Some(on)) => format!("{this} depends on {}", describe(ctx, on)?),
        });
    }
    if lines.is_empty() {
        return Ok(());
    }
    let count = lines.len();
    let mut detail = lines.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n");
    if count > SHOWN {
        detail.push_str(&format!("\nand {} other objects (see server log for list)", count - SHOWN));
    }
    if cascade {
        if let [line] = lines.as_slice() {
            ctx.notice(line.clone());
        } else {
            let fields = SqlError::new(SqlState::SUCCESSFUL_COMPLETION, format!("drop cascades to {count} other objects")).detail(detail);
            ctx.notices.push(crate::executor::context::Notice { severity: "NOTICE", fields });
        }
        return Ok(());
    }
    let message = match targets {
        [one] => format!("cannot drop {} because other objects depend on it", describe(ctx, *one)?),
        _ => "cannot drop desired object(s) because other objects depend on them".to_owned(),
    };
    Err(SqlError::new(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
        .detail(detail)
        .hint("Use DROP ... CASCADE to drop the dependent objects too."))
}

/// A relation's name, qualified if the search path does not find it.
fn relation_name(ctx: &SessionContext, relation: &Relation) -> Result<String, SqlError> {
    let schema = if ctx.catalog.is_visible(relation)? { None } else { Some(&*relation.namespace_name) };
    Ok(quote_qualified(schema, &relation.name))
}

/// As messages name an object: "table t", "constraint c on table t". PostgreSQL: `getObjectDescription`.
pub(crate) fn describe(ctx: &mut SessionContext, object: ObjectAddress) -> Result<String, SqlError> {
    let on = |ctx: &mut SessionContext, relation: Oid| -> Result<String, SqlError> {
        match ctx.catalog.relation(relation)? {
            Some(r) => Ok(format!("{} {}", r.kind.noun(), relation_name(ctx, &r)?)),
            None => Ok(format!("relation {relation}")),
        }
    };
    let reader = ctx.catalog_reader()?;
    match object.class {
        pg_class::ID => {
            let whole = on(ctx, object.object)?;
            if object.sub == 0 {
                return Ok(whole);
            }
            let relation = ctx.catalog.relation(object.object)?;
            let column = relation.as_ref().and_then(|r| i16::try_from(object.sub).ok().and_then(|n| r.attribute(n)));
            Ok(format!("column {} of {whole}", column.map_or_else(|| "?".to_owned(), |c| quote_identifier(&c.name))))
        }
        pg_constraint::ID => match reader.row(&pg_constraint::DEF, by::CONSTRAINT_OID, &[Datum::Oid(object.object)])? {
            Some(row) => {
                let name = quote_identifier(row.str(pg_constraint::conname)?);
                Ok(format!("constraint {name} on {}", on(ctx, row.oid(pg_constraint::conrelid)?)?))
            }
            None => Ok(format!("constraint {}", object.object)),
        },
        pg_attrdef::ID => match reader.row(&pg_attrdef::DEF, by::ATTRDEF_OID, &[Datum::Oid(object.object)])? {
            Some(row) => {
                let column = ObjectAddress::column(row.oid(pg_attrdef::adrelid)?, row.int2(pg_attrdef::adnum)?);
                Ok(format!("default value for {}", describe(ctx, column)?))
            }
            None => Ok(format!("default {}", object.object)),
        },
        pg_trigger::ID => match reader.row(&pg_trigger::DEF, by::TRIGGER_OID, &[Datum::Oid(object.object)])? {
            Some(row) => {
                let name = quote_identifier(row.str(pg_trigger::tgname)?);
                Ok(format!("trigger {name} on {}", on(ctx, row.oid(pg_trigger::tgrelid)?)?))
            }
            None => Ok(format!("trigger {}", object.object)),
        },
        pg_namespace::ID => {
            let name = ctx.catalog.namespace_name(object.object)?;
            Ok(format!("schema {}", name.map_or_else(|| object.object.to_string(), |n| quote_identifier(&n))))
        }
        pg_proc::ID => match ctx.catalog.function(object.object)? {
            Some(f) => {
                let noun = if f.entry.kind == b'p' { "procedure" } else { "function" };
                let types = f.entry.args.iter().map(|&t| format_type_with(t, None, ctx.io())).collect::<Result<Vec<_>, _>>()?;
                Ok(format!("{noun} {}({})", quote_identifier(f.entry.name), types.join(",")))
            }
            None => Ok(format!("function {}", object.object)),
        },
        pg_rewrite::ID => match view_of_rule(ctx, object.object)? {
            Some(view) => Ok(format!("rule _RETURN on {}", describe(ctx, view)?)),
            None => Ok(format!("rule {}", object.object)),
        },
        pg_type::ID => Ok(format!("type {}", format_type_with(object.object, None, ctx.io())?)),
        _ => Ok(format!("object {} of catalog {}", object.object, object.class)),
    }
}

/// Removes rows that begin with `key` in an index.
fn remove_rows(ctx: &mut SessionContext, def: &'static CatalogDef, index: Oid, key: &[Datum]) -> Result<usize, SqlError> {
    let rows = ctx.catalog_reader()?.rows(def, index, key)?;
    for row in &rows {
        ctx.writer()?.delete(def, row)?;
    }
    Ok(rows.len())
}

/// Removes what is recorded of an object's own dependencies.
pub(crate) fn forget_dependencies(ctx: &mut SessionContext, object: ObjectAddress) -> Result<(), SqlError> {
    let mut key = vec![Datum::Oid(object.class), Datum::Oid(object.object)];
    if object.sub != 0 {
        key.push(Datum::Int4(object.sub));
    }
    remove_rows(ctx, &pg_depend::DEF, by::DEPEND_DEPENDER, &key)?;
    if object.sub == 0 {
        let database = ctx.database;
        let key = [Datum::Oid(database), Datum::Oid(object.class), Datum::Oid(object.object)];
        remove_rows(ctx, &pg_shdepend::DEF, by::SHDEPEND_DEPENDER, &key)?;
    }
    Ok(())
}

/// Removes one object; everything that depends on it is gone.
fn remove(ctx: &mut SessionContext, object: ObjectAddress) -> Result<(), SqlError> {
    match object.class {
        pg_class::ID if object.sub != 0 => {
            let attnum = i16::try_from(object.sub).map_err(|_| SqlError::internal("attribute number out of range"))?;
            super::alter::remove_column(ctx, object.object, attnum)?;
        }
        pg_class::ID => remove_relation(ctx, object.object)?,
        pg_constraint::ID => remove_constraint(ctx, object.object)?,
        pg_trigger::ID => super::trigger::remove(ctx, object.object)?,
        pg_attrdef::ID => {
            let key = [Datum::Oid(object.object)];
            if let Some(row) = ctx.catalog_reader()?.row(&pg_attrdef::DEF, by::ATTRDEF_OID, &key)? {
                let (relation, attnum) = (row.oid(pg_attrdef::adrelid)?, row.int2(pg_attrdef::adnum)?);
                ctx.writer()?.delete(&pg_attrdef::DEF, &row)?;
                let key = [Datum::Oid(relation), Datum::Int2(attnum)];
                if let Some(row) = ctx.catalog_reader()?.row(&pg_attribute::DEF, by::ATTRIBUTE_NUM, &key)? {
                    ctx.writer()?.set(&pg_attribute::DEF, &row, &[(pg_attribute::atthasdef, Datum::Bool(false))])?;
                }
                ctx.relation_changed(relation)?;
            }
        }
        pg_rewrite::ID => {
            remove_rows(ctx, &pg_rewrite::DEF, by::REWRITE_OID, &[Datum::Oid(object.object)])?;
        }
        pg_namespace::ID => {
            remove_rows(ctx, &pg_namespace::DEF, by::NAMESPACE_OID, &[Datum::Oid(object.object)])?;
            ctx.namespaces_changed()?;
        }
        pg_proc::ID => {
            let key = [Datum::Oid(object.object)];
            if let Some(row) = ctx.catalog_reader()?.row(&pg_proc::DEF, by::PROC_OID, &key)? {
                note_temporary(ctx, row.oid(pg_proc::pronamespace)?)?;
                ctx.writer()?.delete(&pg_proc::DEF, &row)?;
            }
            super::function::changed(ctx)?;
        }
        other => return Err(SqlError::unsupported(format_args!("dropping objects of catalog {other}"))),
    }
    forget_dependencies(ctx, object)?;
    let mut key = vec![Datum::Oid(object.object), Datum::Oid(object.class)];
    if object.sub != 0 {
        key.push(Datum::Int4(object.sub));
    }
    remove_rows(ctx, &pg_description::DEF, by::DESCRIPTION, &key)?;
    Ok(())
}

/// A transaction that has dropped what was temporary cannot be prepared: once it is, the session could not end before it.
fn note_temporary(ctx: &mut SessionContext, namespace: Oid) -> Result<(), SqlError> {
    if ctx.catalog.viewer().temp_namespace == Some(namespace) {
        ctx.transaction()?.note_temporary();
    }
    Ok(())
}

fn remove_relation(ctx: &mut SessionContext, oid: Oid) -> Result<(), SqlError> {
    ctx.lock_oid(oid, false, LockMode::AccessExclusive, WaitPolicy::Block)?;
    let Some(class) = ctx.catalog_reader()?.row(&pg_class::DEF, by::CLASS_OID, &[Datum::Oid(oid)])? else { return Ok(()) };
    note_temporary(ctx, class.oid(pg_class::relnamespace)?)?;
    let kind = RelKind::from_letter(class.char(pg_class::relkind)?);
    let file = crate::sql::catalog::load::file_of(&class, ctx.database)?;
    let key = [Datum::Oid(oid)];
    let mut table = None;
    if kind == Some(RelKind::Index)
        && let Some(row) = ctx.catalog_reader()?.row(&pg_index::DEF, by::INDEX_OID, &key)?
    {
        table = Some(row.oid(pg_index::indrelid)?);
        ctx.writer()?.delete(&pg_index::DEF, &row)?;
    }
    if kind == Some(RelKind::Sequence) {
        remove_rows(ctx, &pg_sequence::DEF, by::SEQUENCE, &key)?;
    }
    if matches!(kind, Some(RelKind::Table | RelKind::MatView)) {
        remove_rows(ctx, &pg_statistic::DEF, by::STATISTIC, &key)?;
    }
    remove_rows(ctx, &pg_attribute::DEF, by::ATTRIBUTE_NUM, &key)?;
    ctx.writer()?.delete(&pg_class::DEF, &class)?;
    if file.rel != 0 {
        match table.map(|t| ctx.catalog.relation(t)).transpose()?.flatten().and_then(|t| t.file()) {
            Some(heap) => ctx.transaction()?.moves_relation(file, heap),
            None => ctx.transaction()?.empties_relation(file)?,
        }
        ctx.transaction()?.drop_on_commit(file);
        let (engine, db) = (ctx.engine.clone(), file.db);
        ctx.transaction()?.on_commit(move || engine.ctx().txns.table_stats().forget((db, oid)));
    }
    ctx.relation_changed(oid)?;
    if let Some(table) = table {
        ctx.relation_changed(table)?;
    }
    ctx.relation_names_changed()
}

fn remove_constraint(ctx: &mut SessionContext, oid: Oid) -> Result<(), SqlError> {
    let Some(row) = ctx.catalog_reader()?.row(&pg_constraint::DEF, by::CONSTRAINT_OID, &[Datum::Oid(oid)])? else {
        return Ok(());
    };
    let relation = row.oid(pg_constraint::conrelid)?;
    let foreign = row.oid(pg_constraint::confrelid)?;
    let check = row.char(pg_constraint::contype)? == b'c';
    ctx.writer()?.delete(&pg_constraint::DEF, &row)?;
    if check {
        let class = ctx.catalog_reader()?.row(&pg_class::DEF, by::CLASS_OID, &[Datum::Oid(relation)])?;
        if let Some(class) = class {
            let checks = class.int2(pg_class::relchecks)?.saturating_sub(1);
            ctx.writer()?.set(&pg_class::DEF, &class, &[(pg_class::relchecks, Datum::Int2(checks))])?;
        }
    }
    if foreign != 0 {
        ctx.relation_changed(foreign)?;
    }
    ctx.relation_changed(relation)
}

/// Drops everything in a schema, as at the end of a session with a temporary one.
pub(crate) fn empty_namespace(ctx: &mut SessionContext, namespace: Oid) -> Result<(), SqlError> {
    if namespace == PG_CATALOG_NAMESPACE {
        return Err(SqlError::internal("cannot empty pg_catalog"));
    }
    let key = [Datum::Oid(pg_namespace::ID), Datum::Oid(namespace)];
    let mut targets = Vec::new();
    for row in ctx.catalog_reader()?.rows(&pg_depend::DEF, by::DEPEND_REFERENCED, &key)? {
        let class = row.oid(pg_depend::classid)?;
        if matches!(class, pg_class::ID | pg_proc::ID) {
            targets.push(ObjectAddress::new(class, row.oid(pg_depend::objid)?));
        }
    }
    // Sequences owned by columns of these tables are named too; collecting them twice does no harm.
    let mut doomed = Vec::new();
    for &target in &targets {
        collect(ctx, target, true, None, &targets, &mut doomed)?;
    }
    for item in doomed.iter().rev() {
        remove(ctx, item.object)?;
    }
    Ok(())
}
