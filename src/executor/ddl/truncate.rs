//! TRUNCATE.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{DropBehavior, TruncateStmt};

use super::{alter, nodes, sequence, table};
use crate::access::RelHandle;
use crate::access::btree;
use crate::executor::{SessionContext, referential, trigger};
use crate::sql::catalog::privilege;
use crate::sql::catalog::relation::{RelKind, Relation, Trigger};
use crate::sql::catalog::schema::pg_class;
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, WaitPolicy};

/// TRUNCATE: gives each table, and each of its indexes, a new empty file.
pub(crate) fn run(ctx: &mut SessionContext, stmt: &TruncateStmt, source: &str) -> Result<(), SqlError> {
    let cascade = stmt.behavior() == DropBehavior::DropCascade;
    let mut targets: Vec<Oid> = Vec::new();
    for node in &stmt.relations {
        let Some(NodeEnum::RangeVar(range)) = &node.node else { continue };
        // Nobody waits for a lock who may not have it.
        let (schema, name) = nodes::names(range);
        if let Ok(Some(relation)) = ctx.catalog.find_relation(schema, name) {
            check(ctx, &relation)?;
        }
        let relation = ctx.open_locked(range, source, LockMode::AccessExclusive)?;
        check(ctx, &relation)?;
        if !targets.contains(&relation.oid) {
            targets.push(relation.oid);
        }
    }
    let mut next = 0;
    while let Some(&oid) = targets.get(next) {
        next += 1;
        let relation = ctx.reopen(oid)?;
        for &(other, _) in &relation.referenced_by {
            if targets.contains(&other) {
                continue;
            }
            if !cascade {
                let other = ctx.catalog.relation(other)?.map(|r| r.name.to_string()).unwrap_or_default();
                return Err(SqlError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "cannot truncate a table referenced in a foreign key constraint",
                )
                .detail(format!("Table \"{other}\" references \"{}\".", relation.name))
                .hint(format!("Truncate table \"{other}\" at the same time, or use TRUNCATE ... CASCADE.")));
            }
            ctx.lock_oid(other, false, LockMode::AccessExclusive, WaitPolicy::Block)?;
            let found = ctx.reopen(other)?;
            check(ctx, &found)?;
            ctx.notice(format!("truncate cascades to table \"{}\"", found.name));
            targets.push(other);
        }
    }
    // All triggers before, then all tables, then all triggers after.
    let mut writers = Vec::new();
    for &oid in &targets {
        let relation = ctx.reopen(oid)?;
        if !relation.triggers.is_empty() {
            let front_end = ctx.front_end;
            let writer = Arc::new(front_end.table_writer(ctx, &relation)?);
            trigger::before_statement(ctx, &writer, Trigger::TRUNCATE, None)?;
            writers.push(writer);
        }
    }
    for oid in targets {
        let relation = ctx.reopen(oid)?;
        if stmt.restart_seqs {
            restart_sequences(ctx, &relation)?;
        }
        empty(ctx, &relation)?;
    }
    let mut events = referential::Events::default();
    for writer in &writers {
        trigger::after_statement(ctx, writer, Trigger::TRUNCATE, None, &mut events)?;
    }
    if events.is_empty() {
        return Ok(());
    }
    ctx.transaction()?.command_counter_increment()?;
    referential::after_statement(ctx, events)
}

fn check(ctx: &SessionContext, relation: &Relation) -> Result<(), SqlError> {
    if relation.kind != RelKind::Table {
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not a table", relation.name)));
    }
    if relation.is_system() {
        let message = format!("permission denied: \"{}\" is a system catalog", relation.name);
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
    }
    may_truncate(ctx, relation)?;
    if ctx.catalog.is_other_temporary(relation) {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "cannot truncate temporary tables of other sessions"));
    }
    ctx.deferral.check_not_pending(ctx.transaction.as_ref(), relation, "TRUNCATE")
}

/// `42501` unless the user may empty the table.
fn may_truncate(ctx: &SessionContext, relation: &Relation) -> Result<(), SqlError> {
    if privilege::on_relation(&ctx.catalog, ctx.user, relation, privilege::TRUNCATE)? {
        return Ok(());
    }
    Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied for table {}", relation.name)))
}

/// Gives a table and its indexes new empty files.
pub(crate) fn empty(ctx: &mut SessionContext, relation: &Relation) -> Result<(), SqlError> {
    let toast = super::toast::new_files(ctx, relation, relation.persistence)?;
    let floor = ctx.engine.txns().settled_floor();
    super::toast::put_files(ctx, relation, toast, floor)?;
    let file = ctx.new_file(relation.rel_handle().map_or(0, |r| r.file.spc), relation.persistence)?;
    let access = ctx.access();
    for index in relation.indexes.iter().filter(|i| i.live) {
        let file = ctx.new_file(index.file.spc, relation.persistence)?;
        let handle = RelHandle { oid: index.oid, file, persistence: relation.persistence.access(), reserve: 0 };
        btree::create(&access, &handle)?;
        ctx.transaction()?.drop_on_commit(index.file);
        table::update_class(
            ctx,
            index.oid,
            &[
                (pg_class::relfilenode, Datum::Oid(file.rel)),
                (pg_class::relpages, Datum::Int4(1)),
                (pg_class::reltuples, Datum::Float4(0.0)),
            ],
        )?;
        super::index::made_anew(ctx, relation, index, false)?;
    }
    if let Some(old) = relation.file() {
        ctx.transaction()?.empties_relation(old)?;
        ctx.transaction()?.drop_on_commit(old);
        ctx.transaction()?.counts((old.db, relation.oid)).truncated = true;
    }
    let [frozen, half] = table::frozen_at(floor);
    table::update_class(
        ctx,
        relation.oid,
        &[
            frozen,
            half,
            (pg_class::relfilenode, Datum::Oid(file.rel)),
            (pg_class::relpages, Datum::Int4(0)),
            (pg_class::reltuples, Datum::Float4(-1.0)),
            (pg_class::relallvisible, Datum::Int4(0)),
        ],
    )?;
    alter::clear_missing(ctx, relation)?;
    ctx.relation_changed(relation.oid)
}

/// RESTART IDENTITY: sequences owned by the table's columns start over.
fn restart_sequences(ctx: &mut SessionContext, relation: &Relation) -> Result<(), SqlError> {
    for other in sequence::owned_by(ctx, relation.oid)? {
        ctx.lock_oid(other, false, LockMode::ShareRowExclusive, WaitPolicy::Block)?;
        if let Some(found) = ctx.catalog.relation(other)? {
            sequence::change(ctx, &found, &sequence::SequenceSpec::restarted())?;
        }
    }
    Ok(())
}
