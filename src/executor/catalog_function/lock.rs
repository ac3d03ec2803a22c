//! Advisory locks.

use crate::executor::SessionContext;
use crate::sql::functions::{CallTypes, ProcEntry};
use crate::sql::types::Datum;
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, LockTag, WaitPolicy, blocking};

pub(super) fn call(
    ctx: &mut SessionContext,
    func: &'static ProcEntry,
    _types: &CallTypes,
    args: &[Datum],
) -> Result<Option<Datum>, SqlError> {
    if func.source == "pg_advisory_unlock_all" {
        ctx.transaction()?.unlock_all_for_session();
        return Ok(Some(Datum::Void));
    }
    let Some(name) = func.name.strip_prefix("pg_") else { return Ok(None) };
    let (name, try_only) = name.strip_prefix("try_").map_or((name, false), |n| (n, true));
    let Some(name) = name.strip_prefix("advisory_") else { return Ok(None) };
    let (name, shared) = name.strip_suffix("_shared").map_or((name, false), |n| (n, true));
    let mode = if shared { LockMode::Share } else { LockMode::Exclusive };
    let tag = tag(ctx, args)?;
    match name {
        "unlock" => {
            let held = ctx.transaction()?.unlock_for_session(tag, mode);
            if !held {
                let kind = if shared { "ShareLock" } else { "ExclusiveLock" };
                ctx.warning(SqlState::WARNING, format!("you don't own a lock of type {kind}"));
            }
            Ok(Some(Datum::Bool(held)))
        }
        "lock" | "xact_lock" => {
            let wait = if try_only { WaitPolicy::Skip } else { WaitPolicy::Block };
            let txn = ctx.transaction()?;
            let got =
                if name == "lock" { blocking(|| txn.lock_for_session(tag, mode, wait))? } else { blocking(|| txn.lock(tag, mode, wait))? };
            Ok(Some(if try_only { Datum::Bool(got) } else { Datum::Void }))
        }
        _ => Ok(None),
    }
}

fn tag(ctx: &SessionContext, args: &[Datum]) -> Result<LockTag, SqlError> {
    let db = ctx.database;
    match args {
        [key] => {
            let [a, b, c, d, e, f, g, h] = key.as_i64()?.to_be_bytes();
            let (key1, key2) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
            Ok(LockTag::Advisory { db, key1, key2, two_keys: false })
        }
        [first, second] => {
            let number = |d: &Datum| d.as_i32().map(|n| u32::from_be_bytes(n.to_be_bytes()));
            Ok(LockTag::Advisory { db, key1: number(first)?, key2: number(second)?, two_keys: true })
        }
        _ => Err(SqlError::internal("advisory lock function with other arguments")),
    }
}
