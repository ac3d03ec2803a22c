//! REINDEX.

use std::sync::Arc;

use pg_query::protobuf::{ReindexObjectType, ReindexStmt};

use super::{index, nodes, step};
use crate::executor::SessionContext;
use crate::executor::vacuum::{Stopwatch, next_transaction};
use crate::sql::catalog::load::CatalogReader;
use crate::sql::catalog::relation::{Index, Persistence, RelKind, Relation};
use crate::sql::catalog::schema::pg_class;
use crate::sql::types::Oid;
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, WaitPolicy};

/// REINDEX.
pub(crate) fn run(ctx: &mut SessionContext, stmt: &ReindexStmt, source: &str) -> Result<(), SqlError> {
    let (mut concurrently, mut verbose) = (false, false);
    for option in nodes::options(&stmt.params) {
        match option.defname.as_str() {
            "concurrently" => concurrently = nodes::option_bool(option)?,
            "verbose" => verbose = nodes::option_bool(option)?,
            "tablespace" => return Err(SqlError::unsupported("REINDEX (TABLESPACE)")),
            other => {
                let error = SqlError::new(SqlState::SYNTAX_ERROR, format!("unrecognized REINDEX option \"{other}\""));
                return Err(nodes::located(error, source, option.location));
            }
        }
    }
    if concurrently {
        ctx.prevent_in_block("REINDEX CONCURRENTLY")?;
    }
    match stmt.kind() {
        ReindexObjectType::ReindexObjectSchema => ctx.prevent_in_block("REINDEX SCHEMA")?,
        ReindexObjectType::ReindexObjectDatabase => ctx.prevent_in_block("REINDEX DATABASE")?,
        ReindexObjectType::ReindexObjectSystem => ctx.prevent_in_block("REINDEX SYSTEM")?,
        ReindexObjectType::ReindexObjectIndex | ReindexObjectType::ReindexObjectTable | ReindexObjectType::Undefined => {}
    }
    let table_mode = if concurrently { LockMode::ShareUpdateExclusive } else { LockMode::Share };
    match stmt.kind() {
        ReindexObjectType::ReindexObjectIndex => {
            let mode = if concurrently { LockMode::ShareUpdateExclusive } else { LockMode::AccessExclusive };
            let range = nodes::relation(stmt.relation.as_ref())?;
            let relation = ctx.open_locked(range, source, mode)?;
            if relation.kind != RelKind::Index {
                return Err(step::is_not(&relation, "index"));
            }
            refuse_system(&relation, concurrently)?;
            ctx.check_owner(&relation)?;
            let found = ctx.catalog.index(relation.oid)?;
            let (table, _) = found.ok_or_else(|| SqlError::internal("index without a table"))?;
            let owner = lock_owner(ctx, &table, concurrently)?;
            let table_mode = if owner.is_some() { LockMode::Share } else { table_mode };
            ctx.lock_oid(table.oid, table.shared, table_mode, WaitPolicy::Block)?;
            // As it is after the waits.
            ctx.refresh_catalog();
            let found = ctx.catalog.index(relation.oid)?;
            let (table, found) = found.ok_or_else(|| {
                let name = format!("{}.{}", relation.namespace_name, relation.name);
                SqlError::new(SqlState::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))
            })?;
            let watch = Stopwatch::start();
            if concurrently && beside(&table) {
                index::rebuild_concurrently(ctx, table.oid, found.oid)?;
                let times = format!("{}.", watch.times());
                tell(ctx, verbose, &format!("index \"{}.{}\"", table.namespace_name, found.name), Some(times));
                return Ok(());
            }
            index::rebuild(ctx, &table, &found, true)?;
            tell(ctx, verbose, &format!("index \"{}\"", found.name), Some(watch.times()));
            owner.map_or(Ok(()), |owner| ctx.relation_changed(owner))
        }
        ReindexObjectType::ReindexObjectTable => {
            let range = nodes::relation(stmt.relation.as_ref())?;
            let (schema, name) = nodes::names(range);
            let owner = match ctx.catalog.open_relation(schema, name) {
                Ok(relation) => lock_owner(ctx, &relation, concurrently)?,
                Err(_) => None,
            };
            let table_mode = if owner.is_some() { LockMode::Share } else { table_mode };
            let relation = ctx.open_locked(range, source, table_mode)?;
            if !matches!(relation.kind, RelKind::Table | RelKind::MatView | RelKind::Toast) {
                return Err(step::is_not(&relation, "table or materialized view"));
            }
            refuse_system(&relation, concurrently)?;
            ctx.check_owner(&relation)?;
            if relation.indexes.is_empty() {
                let what = if concurrently { "that can be reindexed concurrently" } else { "to reindex" };
                ctx.notice(format!("table \"{}\" has no indexes {what}", relation.name));
                return Ok(());
            }
            rebuild_all(ctx, relation.oid, concurrently, verbose)?;
            owner.map_or(Ok(()), |owner| ctx.relation_changed(owner))
        }
        ReindexObjectType::ReindexObjectSchema | ReindexObjectType::ReindexObjectDatabase => {
            let namespace = if stmt.kind() == ReindexObjectType::ReindexObjectSchema {
                Some(ctx.catalog.require_namespace(&stmt.name)?)
            } else {
                if !stmt.name.is_empty() && *stmt.name != *ctx.database_name {
                    return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "can only reindex the currently open database"));
                }
                if concurrently {
                    ctx.warning(SqlState::WARNING, "cannot reindex system catalogs concurrently, skipping all");
                }
                None
            };
            let mut tables = Vec::new();
            for row in ctx.catalog_reader()?.rows(&pg_class::DEF, 0, &[])? {
                let there = namespace.is_none_or(|n| row.oid(pg_class::relnamespace).is_ok_and(|o| o == n));
                if there && matches!(row.char(pg_class::relkind)?, b'r' | b'm') {
                    tables.push(row.oid(pg_class::oid)?);
                }
            }
            for oid in tables {
                if concurrently {
                    next_transaction(ctx)?;
                }
                let found = ctx.catalog.relation(oid)?;
                if let Some(relation) = found.filter(|r| !r.is_system()) {
                    ctx.check_owner(&relation)?;
                    ctx.lock_oid(oid, false, table_mode, WaitPolicy::Block)?;
                    let watch = Stopwatch::start();
                    rebuild_all(ctx, oid, concurrently, verbose)?;
                    if !concurrently && !relation.indexes.is_empty() {
                        tell(ctx, verbose, &format!("table \"{}.{}\"", relation.namespace_name, relation.name), Some(watch.times()));
                    }
                }
            }
            Ok(())
        }
        ReindexObjectType::ReindexObjectSystem | ReindexObjectType::Undefined => Err(SqlError::unsupported("REINDEX SYSTEM")),
    }
}

/// Locks the table whose large values `toast` holds, if it is of that kind, before that is locked: who reads them has locked the table only, who
/// stores some both, and all find their files in its descriptor, which has to be told of new ones. Concurrently, only those who have stored
/// some are waited for, and nobody stores more until the index is made: large values know of one index only.
fn lock_owner(ctx: &mut SessionContext, toast: &Relation, concurrently: bool) -> Result<Option<Oid>, SqlError> {
    if toast.kind != RelKind::Toast {
        return Ok(None);
    }
    for row in ctx.catalog_reader()?.rows(&pg_class::DEF, 0, &[])? {
        if row.oid(pg_class::reltoastrelid)? == toast.oid {
            let owner = row.oid(pg_class::oid)?;
            let mode = if concurrently { LockMode::AccessShare } else { LockMode::Share };
            ctx.lock_oid(owner, false, mode, WaitPolicy::Block)?;
            return Ok(Some(owner));
        }
    }
    Ok(None)
}

fn refuse_system(relation: &Relation, concurrently: bool) -> Result<(), SqlError> {
    if concurrently && relation.is_system() {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "cannot reindex system catalogs concurrently"));
    }
    Ok(())
}

/// Whether its indexes can be made anew beside writers: others do not write to a temporary table, and large values know of one index only.
fn beside(table: &Relation) -> bool {
    table.persistence != Persistence::Temporary && table.kind != RelKind::Toast
}

/// What VERBOSE says.
fn tell(ctx: &mut SessionContext, verbose: bool, what: &str, times: Option<String>) {
    if verbose {
        let fields = SqlError::new(SqlState::SUCCESSFUL_COMPLETION, format!("{what} was reindexed"));
        let fields = match times {
            Some(times) => fields.detail(times),
            None => fields,
        };
        ctx.notices.push(crate::executor::context::Notice { severity: "INFO", fields });
    }
}

fn rebuild_all(ctx: &mut SessionContext, table: Oid, concurrently: bool, verbose: bool) -> Result<(), SqlError> {
    let (relation, watch) = (ctx.reopen(table)?, Stopwatch::start());
    let indexes: Vec<Arc<Index>> = relation.indexes.iter().filter(|i| i.live).cloned().collect();
    for found in &indexes {
        if !concurrently || !beside(&relation) {
            ctx.lock_oid(found.oid, false, LockMode::AccessExclusive, WaitPolicy::Block)?;
            let watch = Stopwatch::start();
            index::rebuild(ctx, &relation, found, true)?;
            tell(ctx, verbose, &format!("index \"{}\"", found.name), Some(watch.times()));
        } else if found.valid {
            index::rebuild_concurrently(ctx, table, found.oid)?;
            tell(ctx, verbose, &format!("index \"{}.{}\"", relation.namespace_name, found.name), None);
        } else {
            let name = format!("{}.{}", relation.namespace_name, found.name);
            ctx.warning(SqlState::FEATURE_NOT_SUPPORTED, format!("cannot reindex invalid index \"{name}\" concurrently, skipping"));
        }
    }
    if concurrently && beside(&relation) {
        let times = format!("{}.", watch.times());
        tell(ctx, verbose, &format!("table \"{}.{}\"", relation.namespace_name, relation.name), Some(times));
    }
    Ok(())
}
