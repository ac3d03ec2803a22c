//! LOCK TABLE.

use pg_query::NodeEnum;
use pg_query::protobuf::LockStmt;

use super::nodes;
use crate::executor::SessionContext;
use crate::sql::catalog::Relation;
use crate::sql::catalog::load::{CatalogReader, by};
use crate::sql::catalog::privilege::{self, DELETE, INSERT, SELECT, TRUNCATE, UPDATE};
use crate::sql::catalog::relation::RelKind;
use crate::sql::catalog::schema::{pg_class, pg_depend, pg_rewrite};
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, LockTag, WaitPolicy};

/// LOCK TABLE. A view is locked with what its query reads, and so on down.
pub(crate) fn run(ctx: &mut SessionContext, stmt: &LockStmt) -> Result<(), SqlError> {
    let mode = LockMode::ALL.into_iter().find(|m| *m as i32 == stmt.mode).ok_or_else(|| SqlError::internal("unknown lock mode"))?;
    let in_recovery = ctx.engine.ctx().txns.in_recovery();
    if mode > LockMode::RowExclusive {
        ctx.transaction()?.check_not_in_recovery("execute LOCK TABLE")?;
    }
    if !ctx.in_block {
        return Err(SqlError::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, "LOCK TABLE can only be used in transaction blocks"));
    }
    let wait = if stmt.nowait { WaitPolicy::Error } else { WaitPolicy::Block };
    for node in &stmt.relations {
        let Some(NodeEnum::RangeVar(range)) = &node.node else { continue };
        let (schema, name) = nodes::names(range);
        let relation = ctx.catalog.open_relation(schema, name)?;
        if !matches!(relation.kind, RelKind::Table | RelKind::View | RelKind::Partitioned) {
            let message = format!("cannot lock relation \"{}\"", relation.name);
            return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, message)
                .detail(format!("This operation is not supported for {}.", relation.kind.plural())));
        }
        check_rights(ctx, &relation, mode, ctx.user)?;
        let found = ctx.find_locked(schema, name, mode, wait)?;
        if let Some(relation) = found.as_ref().filter(|_| in_recovery) {
            let db = if relation.shared { 0 } else { ctx.database };
            ctx.transaction()?.lock(LockTag::replayed_relation(db, relation.oid), mode, wait)?;
            // It may have waited for the end of what changes the table.
            ctx.find_locked(schema, name, mode, wait)?;
            ctx.catalog.open_relation(schema, name)?;
        }
        if let Some(view) = found.filter(|r| r.kind == RelKind::View) {
            lock_read_by(ctx, &view, mode, wait)?;
        }
    }
    Ok(())
}

/// `42501` unless the user may lock the table so. PostgreSQL: `LockTableAclCheck`.
fn check_rights(ctx: &SessionContext, relation: &Relation, mode: LockMode, user: Oid) -> Result<(), SqlError> {
    let rights: &[_] = match mode {
        LockMode::AccessShare => &[SELECT],
        LockMode::RowExclusive => &[INSERT, UPDATE, DELETE, TRUNCATE],
        LockMode::RowShare
        | LockMode::ShareUpdateExclusive
        | LockMode::Share
        | LockMode::ShareRowExclusive
        | LockMode::Exclusive
        | LockMode::AccessExclusive => &[UPDATE, DELETE, TRUNCATE],
    };
    for right in rights {
        if privilege::on_relation(&ctx.catalog, user, relation, *right)? {
            return Ok(());
        }
    }
    let message = format!("permission denied for {} {}", relation.kind.noun(), relation.name);
    Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message))
}

/// Locks the tables and views that a locked view's query reads, by the rights of the view's owner. PostgreSQL: `LockViewRecurse`.
fn lock_read_by(ctx: &mut SessionContext, view: &Relation, mode: LockMode, wait: WaitPolicy) -> Result<(), SqlError> {
    crate::stack::check()?;
    let mut read: Vec<Oid> = Vec::new();
    for rule in ctx.catalog_reader()?.rows(&pg_rewrite::DEF, by::REWRITE_TABLE, &[Datum::Oid(view.oid)])? {
        let key = [Datum::Oid(pg_rewrite::ID), Datum::Oid(rule.oid(pg_rewrite::oid)?)];
        for row in ctx.catalog_reader()?.rows(&pg_depend::DEF, by::DEPEND_DEPENDER, &key)? {
            let on = row.oid(pg_depend::refobjid)?;
            if row.oid(pg_depend::refclassid)? == pg_class::ID && on != view.oid && !read.contains(&on) {
                read.push(on);
            }
        }
    }
    for oid in read {
        let Some(relation) = ctx.catalog.relation(oid)? else { continue };
        if !matches!(relation.kind, RelKind::Table | RelKind::View | RelKind::Partitioned) {
            continue;
        }
        check_rights(ctx, &relation, mode, view.owner)?;
        match ctx.lock_oid(oid, relation.shared, mode, wait) {
            Err(e) if e.state() == SqlState::LOCK_NOT_AVAILABLE && wait == WaitPolicy::Error => {
                return Err(SqlError::new(e.state(), format!("could not obtain lock on relation \"{}\"", relation.name)));
            }
            locked => locked?,
        };
        if ctx.engine.ctx().txns.in_recovery() {
            let db = if relation.shared { 0 } else { ctx.database };
            ctx.transaction()?.lock(LockTag::replayed_relation(db, oid), mode, wait)?;
        }
        if relation.kind == RelKind::View {
            lock_read_by(ctx, &relation, mode, wait)?;
        }
    }
    Ok(())
}
