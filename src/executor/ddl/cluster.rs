//! CLUSTER: a table's rows written anew in the order of one of its indexes.
//!
//! PostgreSQL: commands/cluster.c. It sorts where that is cheaper; here rows are always fetched by the index.

use std::sync::Arc;

use pg_query::protobuf::ClusterStmt;

use super::{index, nodes, rewrite};
use crate::executor::SessionContext;
use crate::executor::vacuum::next_transaction;
use crate::sql::catalog::load::{CatalogReader, by};
use crate::sql::catalog::relation::{Index, RelKind, Relation};
use crate::sql::catalog::schema::pg_index;
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, WaitPolicy};

/// CLUSTER.
pub(crate) fn run(ctx: &mut SessionContext, stmt: &ClusterStmt, source: &str) -> Result<(), SqlError> {
    let mut verbose = false;
    for option in nodes::options(&stmt.params) {
        match option.defname.as_str() {
            "verbose" => verbose = nodes::option_bool(option)?,
            other => {
                let e = SqlError::new(SqlState::SYNTAX_ERROR, format!("unrecognized CLUSTER option \"{other}\""));
                return Err(nodes::located(e, source, option.location));
            }
        }
    }
    if stmt.relation.is_none() {
        return run_all(ctx, verbose);
    }
    let range = nodes::relation(stmt.relation.as_ref())?;
    let relation = ctx.open_locked(range, source, LockMode::AccessExclusive)?;
    if !matches!(relation.kind, RelKind::Table | RelKind::MatView) {
        let message = format!("\"{}\" is not a table or materialized view", relation.name);
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, message));
    }
    ctx.check_owner(&relation)?;
    if ctx.catalog.is_other_temporary(&relation) {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "cannot cluster temporary tables of other sessions"));
    }
    let chosen = if stmt.indexname.is_empty() {
        marked(ctx, &relation)?.ok_or_else(|| {
            let message = format!("there is no previously clustered index for table \"{}\"", relation.name);
            SqlError::new(SqlState::UNDEFINED_OBJECT, message)
        })?
    } else {
        named(ctx, &relation, &stmt.indexname)?
    };
    write_in_order(ctx, &relation, &chosen, verbose)
}

/// All tables of the user that were clustered before, each in a transaction of its own.
fn run_all(ctx: &mut SessionContext, verbose: bool) -> Result<(), SqlError> {
    ctx.prevent_in_block("CLUSTER")?;
    let mut tables: Vec<Oid> = Vec::new();
    for row in ctx.catalog_reader()?.rows(&pg_index::DEF, 0, &[])? {
        if row.bool(pg_index::indisclustered)? {
            tables.push(row.oid(pg_index::indrelid)?);
        }
    }
    for oid in tables {
        next_transaction(ctx)?;
        ctx.lock_oid(oid, false, LockMode::AccessExclusive, WaitPolicy::Block)?;
        ctx.refresh_catalog();
        let Some(relation) = ctx.catalog.relation(oid)? else { continue };
        if ctx.catalog.is_other_temporary(&relation) || !ctx.catalog.has_privileges_of(ctx.user, relation.owner)? {
            continue;
        }
        if let Some(chosen) = marked(ctx, &relation)? {
            write_in_order(ctx, &relation, &chosen, verbose)?;
        }
    }
    Ok(())
}

fn write_in_order(ctx: &mut SessionContext, relation: &Relation, chosen: &Index, verbose: bool) -> Result<(), SqlError> {
    ctx.deferral.check_not_pending(ctx.transaction.as_ref(), relation, "CLUSTER")?;
    mark(ctx, relation, Some(chosen))?;
    rewrite::write_anew(ctx, relation, Some(chosen), verbose)
}

/// The table's index that it was clustered by.
fn marked(ctx: &mut SessionContext, relation: &Relation) -> Result<Option<Arc<Index>>, SqlError> {
    for index in &relation.indexes {
        let row = ctx.catalog_reader()?.row(&pg_index::DEF, by::INDEX_OID, &[Datum::Oid(index.oid)])?;
        if let Some(row) = row
            && row.bool(pg_index::indisclustered)?
        {
            return Ok(Some(index.clone()));
        }
    }
    Ok(None)
}

/// The table's index of this name, if a table can be clustered by it.
fn named(ctx: &SessionContext, relation: &Relation, name: &str) -> Result<Arc<Index>, SqlError> {
    let Some(index) = relation.indexes.iter().find(|i| *i.name == *name) else {
        let table = &relation.name;
        if let Some(oid) = ctx.catalog.relation_oid(relation.namespace, name)?
            && ctx.catalog.relation(oid)?.is_some()
        {
            let message = format!("\"{name}\" is not an index for table \"{table}\"");
            return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, message));
        }
        let message = format!("index \"{name}\" for table \"{table}\" does not exist");
        return Err(SqlError::new(SqlState::UNDEFINED_OBJECT, message));
    };
    let refused = |what: &str| Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("cannot cluster on {what} index \"{name}\"")));
    if index.predicate.is_some() {
        return refused("partial");
    }
    if !index.valid {
        return refused("invalid");
    }
    Ok(index.clone())
}

/// ALTER TABLE .. CLUSTER ON, and SET WITHOUT CLUSTER, which names no index.
pub(crate) fn choose(ctx: &mut SessionContext, relation: &Relation, name: Option<&str>) -> Result<(), SqlError> {
    let chosen = match name {
        Some(name) => Some(named(ctx, relation, name)?),
        None => None,
    };
    mark(ctx, relation, chosen.as_deref())
}

fn mark(ctx: &mut SessionContext, relation: &Relation, chosen: Option<&Index>) -> Result<(), SqlError> {
    if let Some(old) = marked(ctx, relation)?.filter(|old| chosen.is_none_or(|c| c.oid != old.oid)) {
        index::set_flags(ctx, relation.oid, old.oid, &[(pg_index::indisclustered, false)])?;
    }
    match chosen {
        Some(chosen) => index::set_flags(ctx, relation.oid, chosen.oid, &[(pg_index::indisclustered, true)]),
        None => Ok(()),
    }
}
