//! `nextval` and its kin.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::access::RelHandle;
use crate::access::sequence::{self, SequenceOptions, SequenceState, Taken};
use crate::executor::SessionContext;
use crate::sql::catalog::privilege;
use crate::sql::catalog::relation::{Persistence, RelKind, Relation, SequenceDef};
use crate::sql::functions::{CallTypes, ProcEntry};
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, WaitPolicy};

/// What a session remembers of the sequences it used: values taken ahead, and the last one handed out.
#[derive(Debug, Default)]
pub struct SequenceCache {
    sequences: FxHashMap<Oid, Remembered>,
    /// The sequence that `lastval()` is about.
    last: Option<Oid>,
}

#[derive(Debug)]
struct Remembered {
    /// File the values are from: another one means TRUNCATE RESTART or such.
    file: Oid,
    last: i64,
    /// Last value taken ahead; equal to `last` when none is left.
    cached: i64,
    increment: i64,
}

impl SequenceCache {
    /// DISCARD SEQUENCES.
    pub fn discard(&mut self) {
        self.sequences.clear();
        self.last = None;
    }
}

pub(super) fn call(
    ctx: &mut SessionContext,
    func: &'static ProcEntry,
    _types: &CallTypes,
    args: &[Datum],
) -> Result<Option<Datum>, SqlError> {
    match (func.source, args) {
        ("nextval_oid", [relation]) => next_value(ctx, relation.as_oid()?).map(|n| Some(Datum::Int8(n))),
        ("currval_oid", [relation]) => current_value(ctx, relation.as_oid()?).map(|n| Some(Datum::Int8(n))),
        ("lastval", []) => last_value(ctx).map(|n| Some(Datum::Int8(n))),
        ("setval_oid", [relation, value]) => set_value(ctx, relation.as_oid()?, value.as_i64()?, true).map(Some),
        ("setval3_oid", [relation, value, called]) => set_value(ctx, relation.as_oid()?, value.as_i64()?, called.as_bool()?).map(Some),
        ("pg_sequence_last_value", [relation]) => {
            let relation = open(ctx, relation.as_oid()?, b"rU")?;
            // An unlogged one has no state on a standby, another session's temporary one none here.
            let lost = relation.persistence == Persistence::Unlogged && ctx.engine.is_in_recovery();
            if lost || ctx.catalog.is_other_temporary(&relation) {
                return Ok(Some(Datum::Null));
            }
            let handle = relation.rel_handle().ok_or_else(|| SqlError::internal("sequence without file"))?;
            let state = sequence::read(&ctx.access(), &handle)?;
            Ok(Some(if state.is_called { Datum::Int8(state.last_value) } else { Datum::Null }))
        }
        _ => Ok(None),
    }
}

/// The sequence, if the user has one of these rights on it.
fn open(ctx: &mut SessionContext, oid: Oid, rights: &[u8]) -> Result<Arc<Relation>, SqlError> {
    let relation = ctx
        .catalog
        .relation(oid)?
        .ok_or_else(|| SqlError::new(SqlState::UNDEFINED_TABLE, format!("could not open relation with OID {oid}")))?;
    if relation.kind != RelKind::Sequence {
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a sequence", relation.name)));
    }
    for &right in rights {
        if privilege::on_relation(&ctx.catalog, ctx.user, &relation, right)? {
            return Ok(relation);
        }
    }
    Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied for sequence {}", relation.name)))
}

fn definition(relation: &Relation) -> Result<&SequenceDef, SqlError> {
    relation.sequence.as_ref().ok_or_else(|| SqlError::internal("sequence without definition"))
}

/// Locks a sequence for a change; its files are those it has once it is locked.
fn lock(ctx: &mut SessionContext, relation: Arc<Relation>, handle: RelHandle) -> Result<(Arc<Relation>, RelHandle), SqlError> {
    let tag = relation.lock_tag(ctx.database);
    if ctx.transaction()?.holds(&tag, LockMode::RowExclusive) {
        return Ok((relation, handle));
    }
    ctx.lock_oid(relation.oid, false, LockMode::RowExclusive, WaitPolicy::Block)?;
    let now = ctx.reopen(relation.oid)?;
    let handle = now.rel_handle().ok_or_else(|| SqlError::internal("sequence without file"))?;
    Ok((now, handle))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
fn next_value(ctx: &mut SessionContext, oid: Oid) -> Result<i64, SqlError> {
    let relation = open(ctx, oid, b"Uw")?;
    let handle = relation.rel_handle().ok_or_else(|| SqlError::internal("sequence without file"))?;
    if let Some(known) = ctx.sequences.sequences.get_mut(&oid)
        && known.file == handle.file.rel
        && known.last != known.cached
    {
        known.last += known.increment;
        ctx.sequences.last = Some(oid);
        return Ok(known.last);
    }
    ctx.check_writable("nextval()")?;
    let (relation, handle) = lock(ctx, relation, handle)?;
    let def = definition(&relation)?;
    let options =
        SequenceOptions { start: def.start, increment: def.increment, min: def.min, max: def.max, cache: def.cache, cycle: def.cycle };
    let access = ctx.access();
    let taken = sequence::take(&access, ctx.transaction()?, &handle, &options);
    let Taken { first, last } = taken.map_err(|e| match e {
        crate::access::AccessError::SequenceExhausted { max, bound } => {
            let what = if max { "maximum" } else { "minimum" };
            SqlError::new(
                SqlState::SEQUENCE_GENERATOR_LIMIT_EXCEEDED,
                format!("nextval: reached {what} value of sequence \"{}\" ({bound})", relation.name),
            )
        }
        other => other.into(),
    })?;
    let known = Remembered { file: handle.file.rel, last: first, cached: last, increment: def.increment };
    ctx.sequences.sequences.insert(oid, known);
    ctx.sequences.last = Some(oid);
    Ok(first)
}

fn current_value(ctx: &mut SessionContext, oid: Oid) -> Result<i64, SqlError> {
    let relation = open(ctx, oid, b"rU")?;
    ctx.sequences.sequences.get(&oid).map(|known| known.last).ok_or_else(|| {
        SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("currval of sequence \"{}\" is not yet defined in this session", relation.name),
        )
    })
}

fn last_value(ctx: &mut SessionContext) -> Result<i64, SqlError> {
    let undefined = || SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "lastval is not yet defined in this session");
    let oid = ctx.sequences.last.ok_or_else(undefined)?;
    if ctx.catalog.relation(oid)?.is_none() {
        return Err(undefined());
    }
    current_value(ctx, oid)
}

fn set_value(ctx: &mut SessionContext, oid: Oid, value: i64, called: bool) -> Result<Datum, SqlError> {
    let relation = open(ctx, oid, b"w")?;
    let def = definition(&relation)?;
    if value < def.min || value > def.max {
        return Err(SqlError::new(
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("setval: value {value} is out of bounds for sequence \"{}\" ({}..{})", relation.name, def.min, def.max),
        ));
    }
    ctx.check_writable("setval()")?;
    let handle = relation.rel_handle().ok_or_else(|| SqlError::internal("sequence without file"))?;
    let increment = def.increment;
    let (_, handle) = lock(ctx, relation, handle)?;
    let access = ctx.access();
    let state = SequenceState { last_value: value, log_count: 0, is_called: called };
    sequence::set(&access, ctx.transaction()?, &handle, state)?;
    if called {
        let known = Remembered { file: handle.file.rel, last: value, cached: value, increment };
        ctx.sequences.sequences.insert(oid, known);
        ctx.sequences.last = Some(oid);
    } else {
        // Values taken ahead are void.
        if let Some(known) = ctx.sequences.sequences.get_mut(&oid) {
            known.cached = known.last;
        }
    }
    Ok(Datum::Int8(value))
}
