//! FOREIGN KEY constraints: their making. What they do then: [`crate::executor::referential`].

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::ConstraintsSetStmt;

use super::constraint::{NewConstraint, NewForeign, choose_constraint_name};
use super::{nodes, table};
use crate::executor::{SessionContext, referential};
use crate::sql::catalog::load::{CatalogReader, by};
use crate::sql::catalog::privilege;
use crate::sql::catalog::relation::{Constraint, ConstraintKind, ForeignKey, Persistence, RelKind, Relation};
use crate::sql::catalog::rows::{self, DependKind, ObjectAddress};
use crate::sql::catalog::schema::{pg_class, pg_constraint};
use crate::sql::functions::resolve::resolve_operator;
use crate::sql::types::{Datum, Oid, format_type};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::LockMode;

fn attributes(relation: &Relation, names: &[String], what: &str) -> Result<Vec<i16>, SqlError> {
    let mut out = Vec::with_capacity(names.len());
    for name in names {
        let column = relation.column(name).ok_or_else(|| {
            let message = format!("column \"{name}\" {what}");
            SqlError::new(SqlState::UNDEFINED_COLUMN, message)
        })?;
        out.push(column.attnum);
    }
    Ok(out)
}

/// PostgreSQL: `INDEX_MAX_KEYS`.
const MAX_KEYS: usize = 32;

/// The referenced columns and the unique index over them.
fn referenced_key(referenced: &Relation, foreign: &NewForeign) -> Result<(Vec<i16>, Oid), SqlError> {
    if foreign.referenced.is_empty() {
        let primary = referenced.indexes.iter().find(|i| i.primary).ok_or_else(|| {
            let message = format!("there is no primary key for referenced table \"{}\"", referenced.name);
            SqlError::new(SqlState::UNDEFINED_OBJECT, message)
        })?;
        if !primary.immediate {
            let message = format!("cannot use a deferrable primary key for referenced table \"{}\"", referenced.name);
            return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
        }
        return Ok((primary.keys().iter().map(|k| k.attnum).collect(), primary.oid));
    }
    let columns = attributes(referenced, &foreign.referenced, "referenced in foreign key constraint does not exist")?;
    let mut sorted = columns.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|w| w[0] == w[1]) {
        let message = "foreign key referenced-columns list must not contain duplicates";
        return Err(SqlError::new(SqlState::INVALID_FOREIGN_KEY, message));
    }
    let mut deferrable = false;
    for index in referenced.indexes.iter().filter(|i| i.unique && i.valid && i.predicate.is_none()) {
        let mut keys: Vec<i16> = index.keys().iter().map(|k| k.attnum).collect();
        keys.sort_unstable();
        if keys == sorted && !keys.contains(&0) {
            if index.immediate {
                return Ok((columns, index.oid));
            }
            deferrable = true;
        }
    }
    if deferrable {
        let message = format!("cannot use a deferrable unique constraint for referenced table \"{}\"", referenced.name);
        return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
    }
    let message = format!("there is no unique constraint matching given keys for referenced table \"{}\"", referenced.name);
    Err(SqlError::new(SqlState::INVALID_FOREIGN_KEY, message))
}

fn check_persistence(relation: &Relation, referenced: &Relation) -> Result<(), SqlError> {
    let bad = |what: &str| Err(SqlError::new(SqlState::INVALID_TABLE_DEFINITION, format!("constraints on {what}")));
    match (relation.persistence, referenced.persistence) {
        (Persistence::Permanent, Persistence::Unlogged | Persistence::Temporary) => {
            bad("permanent tables may reference only permanent tables")
        }
        (Persistence::Unlogged, Persistence::Temporary) => bad("unlogged tables may reference only permanent or unlogged tables"),
        (Persistence::Temporary, Persistence::Permanent | Persistence::Unlogged) => {
            bad("temporary tables may reference only temporary tables")
        }
        _ => Ok(()),
    }
}

/// Adds a foreign key to an existing table, checking its rows. Returns its OID.
pub(crate) fn add(
    ctx: &mut SessionContext,
    relation: &Arc<Relation>,
    new: &NewConstraint,
    foreign: &NewForeign,
    source: &str,
) -> Result<Oid, SqlError> {
    let referenced = ctx.open_locked(&foreign.table, source, LockMode::ShareRowExclusive)?;
    if referenced.kind != RelKind::Table {
        let message = format!("referenced relation \"{}\" is not a table", referenced.name);
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, message));
    }
    if referenced.is_system() {
        let message = format!("permission denied: \"{}\" is a system catalog", referenced.name);
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
    }
    check_persistence(relation, &referenced)?;
    if foreign.columns.len() > MAX_KEYS {
        return Err(SqlError::new(SqlState::TOO_MANY_COLUMNS, format!("cannot have more than {MAX_KEYS} keys in a foreign key")));
    }
    let columns = attributes(relation, &foreign.columns, "referenced in foreign key constraint does not exist")?;
    let (keys, index) = referenced_key(&referenced, foreign)?;
    if !privilege::on_relation(&ctx.catalog, ctx.user, &referenced, privilege::REFERENCES)? {
        let message = format!("permission denied for table {}", referenced.name);
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
    }
    if keys.len() != columns.len() {
        let message = "number of referencing and referenced columns for foreign key disagree";
        return Err(SqlError::new(SqlState::INVALID_FOREIGN_KEY, message));
    }
    let name = match &new.name {
        Some(name) => name.clone(),
        None => choose_constraint_name(ctx, relation, Some(&foreign.columns.join("_")), "fkey")?,
    };
    for (&own, &their) in columns.iter().zip(&keys) {
        let (Some(a), Some(b)) = (relation.attribute(own), referenced.attribute(their)) else { continue };
        if a.type_oid != b.type_oid && resolve_operator("=", Some(b.type_oid), a.type_oid).is_err() {
            let (own, their) = (format_type(a.type_oid, -1), format_type(b.type_oid, -1));
            return Err(SqlError::new(SqlState::DATATYPE_MISMATCH, format!("foreign key constraint \"{name}\" cannot be implemented"))
                .detail(format!("Key columns \"{}\" and \"{}\" are of incompatible types: {own} and {their}.", a.name, b.name)));
        }
    }
    let oid = ctx.new_oid(&pg_constraint::DEF, by::CONSTRAINT_OID)?;
    let made = Constraint {
        oid,
        name: Arc::from(name.as_str()),
        kind: ConstraintKind::Foreign(ForeignKey {
            table: referenced.oid,
            columns: keys.clone(),
            on_update: foreign.on_update,
            on_delete: foreign.on_delete,
            match_type: foreign.match_type,
        }),
        columns: columns.clone(),
        index,
        deferrable: new.deferrable || new.deferred,
        deferred: new.deferred,
        validated: !new.not_valid,
    };
    let row = rows::constraint(relation.namespace, relation.oid, &made);
    ctx.writer()?.insert(&pg_constraint::DEF, &row)?;
    let address = ObjectAddress::new(pg_constraint::ID, oid);
    for &attnum in &columns {
        ctx.depend(address, ObjectAddress::column(relation.oid, attnum), DependKind::Auto)?;
    }
    for &attnum in &keys {
        ctx.depend(address, ObjectAddress::column(referenced.oid, attnum), DependKind::Normal)?;
    }
    ctx.depend(address, ObjectAddress::relation(index), DependKind::Normal)?;
    // Clients ask a table's constraints only of tables that say they have triggers.
    for table in [relation.oid, referenced.oid] {
        table::update_class(ctx, table, &[(pg_class::relhastriggers, Datum::Bool(true))])?;
    }
    ctx.relation_changed(referenced.oid)?;
    if !new.not_valid {
        referential::validate(ctx, relation.oid, &made)?;
    }
    Ok(oid)
}

/// SET CONSTRAINTS.
pub(crate) fn set_constraints(ctx: &mut SessionContext, stmt: &ConstraintsSetStmt) -> Result<(), SqlError> {
    if !ctx.in_block {
        ctx.warning(SqlState::NO_ACTIVE_SQL_TRANSACTION, "SET CONSTRAINTS can only be used in transaction blocks");
    }
    if stmt.constraints.is_empty() {
        return referential::set_constraints(ctx, None, stmt.deferred);
    }
    let mut list = Vec::new();
    for node in &stmt.constraints {
        let Some(NodeEnum::RangeVar(range)) = &node.node else { continue };
        let (schema, name) = nodes::names(range);
        let schemas = match schema {
            Some(schema) => vec![ctx.catalog.require_namespace(schema)?],
            None => ctx.catalog.search_path().to_vec(),
        };
        let rows = ctx.catalog_reader()?.rows(&pg_constraint::DEF, by::CONSTRAINT_NAME, &[Datum::text(name)])?;
        let mut found = false;
        'schemas: for schema in schemas {
            for row in rows.iter().filter(|r| r.oid(pg_constraint::connamespace).is_ok_and(|n| n == schema)) {
                found = true;
                if row.bool(pg_constraint::condeferrable)? {
                    list.push(row.oid(pg_constraint::oid)?);
                } else if stmt.deferred {
                    return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("constraint \"{name}\" is not deferrable")));
                }
            }
            if found {
                break 'schemas;
            }
        }
        if !found {
            return Err(SqlError::new(SqlState::UNDEFINED_OBJECT, format!("constraint \"{name}\" does not exist")));
        }
    }
    referential::set_constraints(ctx, Some(&list), stmt.deferred)
}
