//! Temporary relations: what COMMIT does to them, and their end with the session.
//!
//! PostgreSQL: `PreCommit_on_commit_actions` in commands/tablecmds.c, `RemoveTempRelations` in catalog/namespace.c.

use pg_query::protobuf::OnCommitAction;

use super::{drop, truncate};
use crate::executor::SessionContext;
use crate::sql::catalog::load::{CatalogReader, by};
use crate::sql::catalog::relation::Persistence;
use crate::sql::catalog::rows::ObjectAddress;
use crate::sql::catalog::schema::pg_namespace;
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, LockTag, WaitPolicy};

/// Name of a session's temporary schema, before its number.
const PREFIX: &str = "pg_temp_";

/// A temporary table that COMMIT does something to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnCommit {
    relation: Oid,
    /// DROP, else DELETE ROWS.
    drop: bool,
    /// It was not there at the last commit, which may have failed after it looked.
    gone: bool,
}

/// Whether a schema of this name holds a session's temporary relations.
pub(crate) fn is_schema_name(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Refuses ON COMMIT on a table that is not temporary.
pub(crate) fn check(action: OnCommitAction, persistence: Persistence) -> Result<(), SqlError> {
    let given = !matches!(action, OnCommitAction::OncommitNoop | OnCommitAction::Undefined);
    if given && persistence != Persistence::Temporary {
        return Err(SqlError::new(SqlState::INVALID_TABLE_DEFINITION, "ON COMMIT can only be used on temporary tables"));
    }
    Ok(())
}

/// Notes what the next commits do to a new table.
pub(crate) fn register(ctx: &mut SessionContext, relation: Oid, action: OnCommitAction) {
    match action {
        OnCommitAction::OncommitDeleteRows => ctx.on_commit.push(OnCommit { relation, drop: false, gone: false }),
        OnCommitAction::OncommitDrop => ctx.on_commit.push(OnCommit { relation, drop: true, gone: false }),
        OnCommitAction::OncommitNoop | OnCommitAction::OncommitPreserveRows | OnCommitAction::Undefined => {}
    }
}

/// The transaction is about to commit: empties and drops tables as they were made to be.
pub(crate) fn before_commit(ctx: &mut SessionContext) -> Result<(), SqlError> {
    ctx.refresh_catalog();
    let database = ctx.database;
    // Not forgotten before the commit after this: if this one fails, all is as it was.
    ctx.on_commit.retain_mut(|entry| !entry.gone);
    for i in 0..ctx.on_commit.len() {
        let Some(&entry) = ctx.on_commit.get(i) else { break };
        let found = ctx.catalog.relation(entry.relation)?;
        let Some(relation) = found else {
            // Dropped meanwhile, or its creation was rolled back.
            if let Some(entry) = ctx.on_commit.get_mut(i) {
                entry.gone = true;
            }
            continue;
        };
        if entry.drop {
            let told = ctx.notices.len();
            drop::delete(ctx, &[ObjectAddress::relation(entry.relation)], true)?;
            ctx.notices.truncate(told);
            ctx.told = ctx.told.min(told);
            continue;
        }
        for (table, _) in &relation.referenced_by {
            if !ctx.on_commit.iter().any(|e| e.relation == *table && !e.drop) {
                let name = ctx.catalog.relation(*table)?.map(|r| r.name.to_string()).unwrap_or_default();
                return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "unsupported ON COMMIT and foreign key combination").detail(
                    format!("Table \"{name}\" references \"{}\", but they do not have the same ON COMMIT setting.", relation.name),
                ));
            }
        }
        // Only what this transaction may have filled needs to be emptied.
        let tag = LockTag::Relation { db: database, rel: entry.relation };
        let transaction = ctx.transaction()?;
        let written = [LockMode::RowExclusive, LockMode::ShareRowExclusive, LockMode::AccessExclusive];
        if written.into_iter().any(|mode| transaction.holds(&tag, mode)) {
            transaction.lock(tag, LockMode::AccessExclusive, WaitPolicy::Block)?;
            truncate::empty(ctx, &relation)?;
        }
    }
    ctx.transaction()?.command_counter_increment()?;
    Ok(())
}

/// Drops the session's temporary schema with all that is in it.
pub(crate) fn drop_own(ctx: &mut SessionContext) -> Result<(), SqlError> {
    ctx.on_commit.clear();
    let Some(namespace) = ctx.catalog.viewer().temp_namespace else { return Ok(()) };
    if ctx.catalog.namespace_name(namespace)?.is_some() {
        drop_namespace(ctx, namespace)?;
    }
    ctx.set_temp_namespace(None);
    Ok(())
}

fn drop_namespace(ctx: &mut SessionContext, namespace: Oid) -> Result<(), SqlError> {
    drop::empty_namespace(ctx, namespace)?;
    drop::delete(ctx, &[ObjectAddress::new(pg_namespace::ID, namespace)], false)
}

/// Drops the temporary schemas that sessions which ended uncleanly left in this database. `alive` knows the sessions there are.
pub(crate) fn drop_orphans(ctx: &mut SessionContext, alive: &dyn Fn(i32) -> bool) -> Result<usize, SqlError> {
    let mut found = Vec::new();
    for row in ctx.catalog_reader()?.rows(&pg_namespace::DEF, by::NAMESPACE_OID, &[])? {
        if let Some(number) = row.str(pg_namespace::nspname)?.strip_prefix(PREFIX).and_then(|n| n.parse::<i32>().ok()) {
            found.push((row.oid(pg_namespace::oid)?, number));
        }
    }
    let mut dropped = 0;
    for (namespace, number) in found {
        let tag = LockTag::Object { db: ctx.database, class: pg_namespace::ID, object: namespace };
        if alive(number) || !ctx.transaction()?.lock(tag, LockMode::AccessExclusive, WaitPolicy::Skip)? {
            continue;
        }
        let key = [Datum::Oid(namespace)];
        if ctx.catalog_reader()?.row(&pg_namespace::DEF, by::NAMESPACE_OID, &key)?.is_some() {
            drop_namespace(ctx, namespace)?;
            dropped += 1;
        }
    }
    Ok(dropped)
}

/// The name of the temporary schema of a session.
pub(crate) fn schema_name(session: i32) -> String {
    format!("{PREFIX}{session}")
}
