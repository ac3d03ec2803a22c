//! COMMENT ON.

use pg_query::NodeEnum;
use pg_query::protobuf::{CommentStmt, Node, ObjectType};

use super::{nodes, step};
use crate::executor::SessionContext;
use crate::sql::catalog::load::{CatalogReader, by};
use crate::sql::catalog::relation::RelKind;
use crate::sql::catalog::rows::{ObjectAddress, blank};
use crate::sql::catalog::schema::{pg_authid, pg_constraint, pg_database, pg_description, pg_namespace, pg_shdescription};
use crate::sql::types::Datum;
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, WaitPolicy};

/// COMMENT ON.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these kinds of objects come here")]
pub(crate) fn run(ctx: &mut SessionContext, stmt: &CommentStmt) -> Result<(), SqlError> {
    let Some(object) = stmt.object.as_deref() else { return Ok(()) };
    let text = (!stmt.comment.is_empty()).then_some(stmt.comment.as_str());
    let address = match stmt.objtype() {
        kind @ (ObjectType::ObjectTable
        | ObjectType::ObjectIndex
        | ObjectType::ObjectSequence
        | ObjectType::ObjectView
        | ObjectType::ObjectMatview) => {
            let (schema, name) = nodes::qualified(nodes::items(object))?;
            let relation = open(ctx, schema, name)?;
            let (wanted, noun) = match kind {
                ObjectType::ObjectIndex => (RelKind::Index, "index"),
                ObjectType::ObjectSequence => (RelKind::Sequence, "sequence"),
                ObjectType::ObjectView => (RelKind::View, "view"),
                ObjectType::ObjectMatview => (RelKind::MatView, "materialized view"),
                _ => (RelKind::Table, "table"),
            };
            if relation.kind != wanted {
                return Err(step::wrong_kind(&relation, noun));
            }
            ObjectAddress::relation(relation.oid)
        }
        ObjectType::ObjectColumn => {
            let (column, relation) = split_last(object)?;
            let (schema, name) = nodes::qualified(relation)?;
            let relation = open(ctx, schema, name)?;
            let attnum = relation.column(&column).map(|c| c.attnum).ok_or_else(|| {
                let message = format!("column \"{column}\" of relation \"{}\" does not exist", relation.name);
                SqlError::new(SqlState::UNDEFINED_COLUMN, message)
            })?;
            ObjectAddress::column(relation.oid, attnum)
        }
        ObjectType::ObjectTabconstraint => {
            let (constraint, relation) = split_last(object)?;
            let (schema, name) = nodes::qualified(relation)?;
            let relation = open(ctx, schema, name)?;
            let checks = relation.checks.iter().map(|c| (c.oid, &c.name));
            let others = relation.constraints.iter().map(|c| (c.oid, &c.name));
            let found = checks.chain(others).find(|(_, n)| ***n == *constraint).map(|(oid, _)| oid);
            let oid = found.ok_or_else(|| {
                let message = format!("constraint \"{constraint}\" for table \"{}\" does not exist", relation.name);
                SqlError::new(SqlState::UNDEFINED_OBJECT, message)
            })?;
            ObjectAddress::new(pg_constraint::ID, oid)
        }
        ObjectType::ObjectTrigger => {
            let (trigger, relation) = split_last(object)?;
            let (schema, name) = nodes::qualified(relation)?;
            let relation = open(ctx, schema, name)?;
            super::trigger::find(&relation, &trigger)?
        }
        ObjectType::ObjectSchema => {
            let name = nodes::string(object).unwrap_or_default();
            let row = super::schema::row_of(ctx, name)?
                .ok_or_else(|| SqlError::new(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist")))?;
            if !ctx.catalog.has_privileges_of(ctx.user, row.oid(pg_namespace::nspowner)?)? {
                let message = format!("must be owner of schema {name}");
                return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
            }
            ObjectAddress::new(pg_namespace::ID, row.oid(pg_namespace::oid)?)
        }
        ObjectType::ObjectDatabase => {
            let name = nodes::string(object).unwrap_or_default().to_owned();
            let row = super::database::owned_row(ctx, &name)?;
            return shared(ctx, ObjectAddress::new(pg_database::ID, row.oid(pg_database::oid)?), text);
        }
        ObjectType::ObjectRole => {
            let name = nodes::string(object).unwrap_or_default().to_owned();
            let role = ctx.catalog.require_role(&name)?;
            return shared(ctx, ObjectAddress::new(pg_authid::ID, role.oid), text);
        }
        other => {
            let what = other.as_str_name().trim_start_matches("OBJECT_").to_lowercase();
            return Err(SqlError::unsupported(format_args!("COMMENT ON {what}")));
        }
    };
    let key = [Datum::Oid(address.object), Datum::Oid(address.class), Datum::Int4(address.sub)];
    let old = ctx.catalog_reader()?.row(&pg_description::DEF, by::DESCRIPTION, &key)?;
    match (old, text) {
        (Some(old), Some(text)) => {
            let change = [(pg_description::description, Datum::text(text))];
            ctx.writer()?.set(&pg_description::DEF, &old, &change)?;
        }
        (Some(old), None) => ctx.writer()?.delete(&pg_description::DEF, &old)?,
        (None, Some(text)) => {
            let mut row = blank(&pg_description::DEF);
            row[pg_description::objoid] = Datum::Oid(address.object);
            row[pg_description::classoid] = Datum::Oid(address.class);
            row[pg_description::objsubid] = Datum::Int4(address.sub);
            row[pg_description::description] = Datum::text(text);
            ctx.writer()?.insert(&pg_description::DEF, &row)?;
        }
        (None, None) => {}
    }
    Ok(())
}

/// The last name of a list, and the names before it.
fn split_last(object: &Node) -> Result<(String, &[Node]), SqlError> {
    let list = match &object.node {
        Some(NodeEnum::List(list)) => list.items.as_slice(),
        _ => return Err(SqlError::internal("not a list of names")),
    };
    let (last, rest) = list.split_last().ok_or_else(|| SqlError::internal("empty name"))?;
    if rest.is_empty() {
        return Err(SqlError::new(SqlState::SYNTAX_ERROR, "column name must be qualified"));
    }
    Ok((nodes::string(last).unwrap_or_default().to_owned(), rest))
}

fn open(ctx: &mut SessionContext, schema: Option<&str>, name: &str) -> Result<std::sync::Arc<crate::sql::catalog::Relation>, SqlError> {
    let found = ctx.find_locked(schema, name, LockMode::ShareUpdateExclusive, WaitPolicy::Block)?;
    let relation = match found {
        Some(relation) => relation,
        None => ctx.catalog.open_relation(schema, name)?,
    };
    ctx.check_owner(&relation)?;
    Ok(relation)
}

fn shared(ctx: &mut SessionContext, address: ObjectAddress, text: Option<&str>) -> Result<(), SqlError> {
    let key = [Datum::Oid(address.object), Datum::Oid(address.class)];
    let old = ctx.catalog_reader()?.row(&pg_shdescription::DEF, by::SHDESCRIPTION, &key)?;
    match (old, text) {
        (Some(old), Some(text)) => {
            let change = [(pg_shdescription::description, Datum::text(text))];
            ctx.writer()?.set(&pg_shdescription::DEF, &old, &change)?;
        }
        (Some(old), None) => ctx.writer()?.delete(&pg_shdescription::DEF, &old)?,
        (None, Some(text)) => {
            let mut row = blank(&pg_shdescription::DEF);
            row[pg_shdescription::objoid] = Datum::Oid(address.object);
            row[pg_shdescription::classoid] = Datum::Oid(address.class);
            row[pg_shdescription::description] = Datum::text(text);
            ctx.writer()?.insert(&pg_shdescription::DEF, &row)?;
        }
        (None, None) => {}
    }
    Ok(())
}
