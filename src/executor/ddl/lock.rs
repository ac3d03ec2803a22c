//! LOCK TABLE.

use pg_query::NodeEnum;
use pg_query::protobuf::LockStmt;

use super::nodes;
use crate::executor::SessionContext;
use crate::sql::catalog::privilege::{self, DELETE, SELECT, TRUNCATE, UPDATE};
use crate::sql::catalog::relation::RelKind;
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, WaitPolicy};

/// LOCK TABLE.
pub(crate) fn run(ctx: &mut SessionContext, stmt: &LockStmt) -> Result<(), SqlError> {
    if !ctx.in_block {
        return Err(SqlError::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, "LOCK TABLE can only be used in transaction blocks"));
    }
    let mode = LockMode::ALL.into_iter().find(|m| *m as i32 == stmt.mode).ok_or_else(|| SqlError::internal("unknown lock mode"))?;
    if mode > LockMode::RowExclusive {
        ctx.check_writable("LOCK TABLE")?;
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
        // Any right to change will do; reading is enough for the weakest lock.
        let mut rights = vec![UPDATE, DELETE, TRUNCATE];
        if mode == LockMode::AccessShare {
            rights.push(SELECT);
        }
        let mut may = false;
        for right in rights {
            may |= privilege::on_relation(&ctx.catalog, ctx.user, &relation, right)?;
        }
        if !may {
            let message = format!("permission denied for table {}", relation.name);
            return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
        }
        ctx.find_locked(schema, name, mode, wait)?;
    }
    Ok(())
}
