//! LOCK TABLE.

use pg_query::NodeEnum;
use pg_query::protobuf::LockStmt;

use super::nodes;
use crate::executor::SessionContext;
use crate::sql::catalog::privilege::{self, DELETE, INSERT, SELECT, TRUNCATE, UPDATE};
use crate::sql::catalog::relation::RelKind;
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, WaitPolicy};

/// LOCK TABLE.
pub(crate) fn run(ctx: &mut SessionContext, stmt: &LockStmt) -> Result<(), SqlError> {
    if !ctx.in_block {
        return Err(SqlError::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, "LOCK TABLE can only be used in transaction blocks"));
    }
    let mode = LockMode::ALL.into_iter().find(|m| *m as i32 == stmt.mode).ok_or_else(|| SqlError::internal("unknown lock mode"))?;
    // A read-only transaction may, a standby may not.
    if mode > LockMode::RowExclusive && ctx.engine.is_in_recovery() {
        return Err(SqlError::new(SqlState::READ_ONLY_SQL_TRANSACTION, "cannot execute LOCK TABLE during recovery"));
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
        ctx.find_locked(schema, name, mode, wait)?;
    }
    Ok(())
}
