//! REINDEX.

use pg_query::protobuf::{ReindexObjectType, ReindexStmt};

use super::{index, nodes, step};
use crate::executor::SessionContext;
use crate::sql::catalog::load::CatalogReader;
use crate::sql::catalog::relation::RelKind;
use crate::sql::catalog::schema::pg_class;
use crate::sql::types::Oid;
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, WaitPolicy};

/// REINDEX.
pub(crate) fn run(ctx: &mut SessionContext, stmt: &ReindexStmt, source: &str) -> Result<(), SqlError> {
    match stmt.kind() {
        ReindexObjectType::ReindexObjectIndex => {
            let range = nodes::relation(stmt.relation.as_ref())?;
            let relation = ctx.open_locked(range, source, LockMode::AccessExclusive)?;
            if relation.kind != RelKind::Index {
                return Err(step::wrong_kind(&relation, "index"));
            }
            ctx.check_owner(&relation)?;
            let found = ctx.catalog.index(relation.oid)?;
            let (table, found) = found.ok_or_else(|| SqlError::internal("index without a table"))?;
            ctx.lock_oid(table.oid, table.shared, LockMode::Share, WaitPolicy::Block)?;
            index::rebuild(ctx, &table, &found)
        }
        ReindexObjectType::ReindexObjectTable => {
            let range = nodes::relation(stmt.relation.as_ref())?;
            let relation = ctx.open_locked(range, source, LockMode::Share)?;
            if !matches!(relation.kind, RelKind::Table | RelKind::MatView) {
                return Err(step::wrong_kind(&relation, "table or materialized view"));
            }
            ctx.check_owner(&relation)?;
            rebuild_all(ctx, relation.oid)
        }
        ReindexObjectType::ReindexObjectSchema | ReindexObjectType::ReindexObjectDatabase => {
            let namespace = if stmt.kind() == ReindexObjectType::ReindexObjectSchema {
                Some(ctx.catalog.require_namespace(&stmt.name)?)
            } else {
                if !stmt.name.is_empty() && *stmt.name != *ctx.database_name {
                    return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "can only reindex the currently open database"));
                }
                None
            };
            for row in ctx.catalog_reader()?.rows(&pg_class::DEF, 0, &[])? {
                let oid = row.oid(pg_class::oid)?;
                let there = namespace.is_none_or(|n| row.oid(pg_class::relnamespace).is_ok_and(|o| o == n));
                if !there || !matches!(row.char(pg_class::relkind)?, b'r' | b'm') {
                    continue;
                }
                let found = ctx.catalog.relation(oid)?;
                if let Some(relation) = found.filter(|r| !r.is_system()) {
                    ctx.check_owner(&relation)?;
                    ctx.lock_oid(oid, false, LockMode::Share, WaitPolicy::Block)?;
                    rebuild_all(ctx, oid)?;
                }
            }
            Ok(())
        }
        ReindexObjectType::ReindexObjectSystem | ReindexObjectType::Undefined => Err(SqlError::unsupported("REINDEX SYSTEM")),
    }
}

fn rebuild_all(ctx: &mut SessionContext, table: Oid) -> Result<(), SqlError> {
    let relation = ctx.reopen(table)?;
    for found in &relation.indexes {
        ctx.lock_oid(found.oid, false, LockMode::AccessExclusive, WaitPolicy::Block)?;
        index::rebuild(ctx, &relation, found)?;
    }
    Ok(())
}
