//! LOCK TABLE.

use pg_query::NodeEnum;
use pg_query::protobuf::LockStmt;

use super::nodes;
use crate::executor::SessionContext;
use crate::sql::catalog::privilege::{self, DELETE, INSERT, SELECT, TRUNCATE, UPDATE};
use crate::sql::catalog::relation::RelKind;
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, LockTag, WaitPolicy};

/// LOCK TABLE.
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
                .detail(format!("This operation is not supported for {}s.", relation.kind.noun())));
        }
        // PostgreSQL: `LockTableAclCheck`.
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
        let mut may = false;
        for right in rights {
            may |= privilege::on_relation(&ctx.catalog, ctx.user, &relation, *right)?;
        }
        if !may {
            let message = format!("permission denied for {} {}", relation.kind.noun(), relation.name);
            return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
        }
        let found = ctx.find_locked(schema, name, mode, wait)?;
        if let Some(relation) = found.filter(|_| in_recovery) {
            let db = if relation.shared { 0 } else { ctx.database };
            ctx.transaction()?.lock(LockTag::replayed_relation(db, relation.oid), mode, wait)?;
            // It may have waited for the end of what changes the table.
            ctx.find_locked(schema, name, mode, wait)?;
            ctx.catalog.open_relation(schema, name)?;
        }
    }
    Ok(())
}
