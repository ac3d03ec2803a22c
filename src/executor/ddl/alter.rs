//! ALTER TABLE.

use std::sync::Arc;

use afterimage_wal::Xid;
use pg_query::NodeEnum;
use pg_query::protobuf::{AlterTableCmd, AlterTableStmt, AlterTableType, ColumnDef, ConstrType, DropBehavior, Node, ObjectType};

use super::constraint::{self, NewConstraint};
use super::sequence::SequenceSpec;
use super::{drop, expression, index, nodes, options, sequence, step, table, tablespace, toast, trigger};
use crate::access::RelHandle;
use crate::access::heap::{self, HeapScan};
use crate::executor::SessionContext;
use crate::executor::eval::{Exec, ExecState};
use crate::executor::front_end::TableExpr;
use crate::executor::large::RowWriter;
use crate::sql::catalog::load::{CatalogReader, by};
use crate::sql::catalog::names::truncate;
use crate::sql::catalog::relation::{Column, Constraint, ConstraintKind, FIRST_NORMAL_OID, Identity, Persistence, RelKind, Relation};
use crate::sql::catalog::rows::{self, DependKind, ObjectAddress};
use crate::sql::catalog::schema::{
    pg_attrdef, pg_attribute, pg_authid, pg_class, pg_constraint, pg_depend, pg_rewrite, pg_shdepend, pg_statistic, pg_type,
};
use crate::sql::types::{Datum, IoSettings, Oid, TupleDesc, row, text_out};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, WaitPolicy};

/// ALTER TABLE, and the forms of ALTER INDEX, VIEW and SEQUENCE that share its commands.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these kinds of objects come here")]
pub(crate) fn run(ctx: &mut SessionContext, stmt: &AlterTableStmt, source: &str) -> Result<(), SqlError> {
    let range = nodes::relation(stmt.relation.as_ref())?;
    let (schema, name) = nodes::names(range);
    let commands: Vec<&AlterTableCmd> = stmt
        .cmds
        .iter()
        .filter_map(|node| match &node.node {
            Some(NodeEnum::AlterTableCmd(command)) => Some(&**command),
            _ => None,
        })
        .collect();
    let mode = commands.iter().map(|c| lock_mode(c)).max().unwrap_or(LockMode::AccessExclusive);
    if stmt.missing_ok && ctx.find_locked(schema, name, mode, WaitPolicy::Block)?.is_none() {
        ctx.notice(format!("relation \"{name}\" does not exist, skipping"));
        return Ok(());
    }
    let relation = ctx.open_locked(range, source, mode)?;
    let fits = match stmt.objtype() {
        ObjectType::ObjectIndex => relation.kind == RelKind::Index,
        ObjectType::ObjectView => relation.kind == RelKind::View,
        ObjectType::ObjectSequence => relation.kind == RelKind::Sequence,
        ObjectType::ObjectMatview => relation.kind == RelKind::MatView,
        // PostgreSQL lets ALTER TABLE touch the others too, where the command makes sense.
        _ => matches!(relation.kind, RelKind::Table | RelKind::View | RelKind::Index | RelKind::Sequence | RelKind::MatView),
    };
    if !fits {
        let wanted = stmt.objtype().as_str_name().trim_start_matches("OBJECT_").to_lowercase();
        return Err(step::wrong_kind(&relation, &wanted));
    }
    ctx.check_owner(&relation)?;
    ctx.deferral.check_not_pending(ctx.transaction.as_ref(), &relation, "ALTER TABLE")?;
    // Columns go and come before constraints, which may name them.
    let mut ordered = commands.clone();
    ordered.sort_by_key(|c| pass(c.subtype()));
    for command in ordered {
        run_command(ctx, relation.oid, command, source)?;
    }
    Ok(())
}

/// PostgreSQL: `AlterTableGetLockLevel`.
fn lock_mode(command: &AlterTableCmd) -> LockMode {
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others take the strongest lock")]
    match command.subtype() {
        AlterTableType::AtAddConstraint => match command.def.as_deref().and_then(|n| n.node.as_ref()) {
            Some(NodeEnum::Constraint(c)) if c.contype() == ConstrType::ConstrForeign => LockMode::ShareRowExclusive,
            _ => LockMode::AccessExclusive,
        },
        AlterTableType::AtSetStatistics | AlterTableType::AtValidateConstraint | AlterTableType::AtClusterOn => {
            LockMode::ShareUpdateExclusive
        }
        AlterTableType::AtSetRelOptions | AlterTableType::AtResetRelOptions => LockMode::ShareUpdateExclusive,
        AlterTableType::AtEnableTrig
        | AlterTableType::AtEnableAlwaysTrig
        | AlterTableType::AtEnableReplicaTrig
        | AlterTableType::AtEnableTrigAll
        | AlterTableType::AtEnableTrigUser
        | AlterTableType::AtDisableTrig
        | AlterTableType::AtDisableTrigAll
        | AlterTableType::AtDisableTrigUser => LockMode::ShareRowExclusive,
        _ => LockMode::AccessExclusive,
    }
}

/// Order of the commands of one statement. PostgreSQL: `AT_PASS_*`.
fn pass(kind: AlterTableType) -> u8 {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest come last")]
    match kind {
        AlterTableType::AtDropColumn | AlterTableType::AtDropConstraint => 0,
        AlterTableType::AtAlterColumnType => 1,
        AlterTableType::AtAddColumn => 2,
        AlterTableType::AtColumnDefault | AlterTableType::AtSetNotNull | AlterTableType::AtDropNotNull => 3,
        AlterTableType::AtAddConstraint => 4,
        _ => 5,
    }
}

fn run_command(ctx: &mut SessionContext, oid: Oid, command: &AlterTableCmd, source: &str) -> Result<(), SqlError> {
    let relation = ctx.reopen(oid)?;
    let cascade = command.behavior() == DropBehavior::DropCascade;
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest are refused by name")]
    match command.subtype() {
        AlterTableType::AtAddColumn => add_column(ctx, &relation, command, source),
        AlterTableType::AtDropColumn => drop_column(ctx, &relation, command, cascade),
        AlterTableType::AtColumnDefault => set_default(ctx, &relation, &command.name, command.def.as_deref()),
        AlterTableType::AtSetNotNull => {
            let attnum = attnum_of(&relation, &command.name)?;
            constraint::set_not_null(ctx, &relation, &[attnum])
        }
        AlterTableType::AtDropNotNull => drop_not_null(ctx, &relation, &command.name),
        AlterTableType::AtAddConstraint => {
            table::require_table(&relation)?;
            let Some(NodeEnum::Constraint(c)) = command.def.as_deref().and_then(|n| n.node.as_ref()) else {
                return Err(SqlError::internal("ADD CONSTRAINT without a constraint"));
            };
            match constraint::parse(c, None, source)? {
                Some(new) => constraint::add(ctx, oid, new, source).map(|_| ()),
                None => Err(SqlError::unsupported("this constraint")),
            }
        }
        AlterTableType::AtDropConstraint => drop_constraint(ctx, &relation, command, cascade),
        AlterTableType::AtAlterConstraint => alter_constraint(ctx, &relation, command),
        AlterTableType::AtValidateConstraint => validate_constraint(ctx, &relation, &command.name),
        AlterTableType::AtAlterColumnType => alter_type(ctx, &relation, command, source),
        AlterTableType::AtChangeOwner => match &command.newowner {
            Some(spec) => {
                let owner = ctx.role_oid(spec)?;
                change_owner(ctx, &relation, owner)
            }
            None => Ok(()),
        },
        AlterTableType::AtSetStatistics => {
            let target = command.def.as_deref().and_then(nodes::value_text).and_then(|t| t.parse().ok()).unwrap_or(-1);
            let attnum = attnum_of(&relation, &command.name)?;
            table::update_attribute(ctx, oid, attnum, &[(pg_attribute::attstattarget, Datum::Int4(target))])
        }
        AlterTableType::AtSetStorage => {
            let attnum = attnum_of(&relation, &command.name)?;
            let name = command.def.as_deref().and_then(nodes::value_text).unwrap_or_default().to_lowercase();
            let letter = match name.as_str() {
                "plain" => b'p',
                "external" => b'e',
                "extended" => b'x',
                "main" => b'm',
                _ => {
                    let message = format!("invalid storage type \"{name}\"");
                    return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
                }
            };
            let column = relation.attribute(attnum).ok_or_else(|| SqlError::internal("no such column"))?;
            if letter != b'p' && crate::sql::types::type_by_oid(column.type_oid).is_none_or(|t| t.storage == b'p') {
                let shown = crate::sql::types::format_type(column.type_oid, -1);
                return Err(SqlError::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    format!("column data type {shown} can only have storage PLAIN"),
                ));
            }
            table::update_attribute(ctx, oid, attnum, &[(pg_attribute::attstorage, Datum::Char(letter))])?;
            for index in &relation.indexes {
                for (_, position) in index.columns.iter().zip(1_i16..).filter(|(c, _)| c.attnum == attnum) {
                    table::update_attribute(ctx, index.oid, position, &[(pg_attribute::attstorage, Datum::Char(letter))])?;
                }
            }
            toast::ensure_for(ctx, oid)
        }
        AlterTableType::AtSetCompression => {
            let attnum = attnum_of(&relation, &command.name)?;
            let name = command.def.as_deref().and_then(nodes::value_text).unwrap_or_default();
            let type_oid = relation.attribute(attnum).map_or(0, |c| c.type_oid);
            let letter = table::compression(&name, type_oid)?;
            table::update_attribute(ctx, oid, attnum, &[(pg_attribute::attcompression, Datum::Char(letter))])
        }
        AlterTableType::AtSetRelOptions | AlterTableType::AtResetRelOptions => rel_options(ctx, &relation, command),
        AlterTableType::AtAddIdentity => add_identity(ctx, &relation, command, source),
        AlterTableType::AtDropIdentity => drop_identity(ctx, &relation, command),
        AlterTableType::AtSetIdentity => set_identity(ctx, &relation, command, source),
        AlterTableType::AtDropExpression => drop_expression(ctx, &relation, command),
        AlterTableType::AtSetLogged | AlterTableType::AtSetUnLogged => {
            let logged = command.subtype() == AlterTableType::AtSetLogged;
            set_persistence(ctx, &relation, if logged { Persistence::Permanent } else { Persistence::Unlogged })
        }
        AlterTableType::AtEnableTrig | AlterTableType::AtEnableTrigAll | AlterTableType::AtEnableTrigUser => {
            trigger::set_enabled(ctx, &relation, &command.name, b'O')
        }
        AlterTableType::AtEnableAlwaysTrig => trigger::set_enabled(ctx, &relation, &command.name, b'A'),
        AlterTableType::AtEnableReplicaTrig => trigger::set_enabled(ctx, &relation, &command.name, b'R'),
        AlterTableType::AtDisableTrig | AlterTableType::AtDisableTrigAll | AlterTableType::AtDisableTrigUser => {
            trigger::set_enabled(ctx, &relation, &command.name, b'D')
        }
        AlterTableType::AtSetTableSpace => tablespace::move_relation(ctx, &relation, &command.name),
        AlterTableType::AtClusterOn => super::cluster::choose(ctx, &relation, Some(&command.name)),
        AlterTableType::AtDropCluster => super::cluster::choose(ctx, &relation, None),
        other => Err(SqlError::unsupported(format_args!("ALTER TABLE command {}", other.as_str_name()))),
    }
}

fn attnum_of(relation: &Relation, name: &str) -> Result<i16, SqlError> {
    relation.column(name).map(|c| c.attnum).ok_or_else(|| undefined_column(relation, name))
}

fn undefined_column(relation: &Relation, name: &str) -> SqlError {
    let message = format!("column \"{name}\" of relation \"{}\" does not exist", relation.name);
    SqlError::new(SqlState::UNDEFINED_COLUMN, message)
}

fn add_column(ctx: &mut SessionContext, relation: &Arc<Relation>, command: &AlterTableCmd, source: &str) -> Result<(), SqlError> {
    table::require_table(relation)?;
    let Some(NodeEnum::ColumnDef(def)) = command.def.as_deref().and_then(|n| n.node.as_ref()) else {
        return Err(SqlError::internal("ADD COLUMN without a column"));
    };
    let name = truncate(&def.colname);
    if relation.column(name).is_some() {
        let message = format!("column \"{name}\" of relation \"{}\" already exists", relation.name);
        if command.missing_ok {
            ctx.notice_with(SqlState::DUPLICATE_COLUMN, format!("{message}, skipping"));
            return Ok(());
        }
        return Err(SqlError::new(SqlState::DUPLICATE_COLUMN, message));
    }
    table::check_column_name(name)?;
    let mut constraints = Vec::new();
    let mut new = table::column(ctx, def, &relation.name, source, &mut constraints)?;
    let attnum = i16::try_from(relation.columns.len() + 1)
        .ok()
        .filter(|&n| n <= 1600)
        .ok_or_else(|| SqlError::new(SqlState::TOO_MANY_COLUMNS, "tables can have at most 1600 columns"))?;
    new.column.attnum = attnum;
    let mut sequence = None;
    let mut default = None;
    if let Some(spec) = &new.sequence {
        let made = table::column_sequence(ctx, &relation.name, relation.namespace, relation.persistence, name, spec)?;
        let text = format!("nextval('{made}'::regclass)");
        let target = Some((new.column.type_oid, new.column.typmod));
        let expr = ctx.front_end.table_expression_text(ctx, &text, None, target, "DEFAULT expressions")?;
        default = Some((text, vec![made], expr));
        sequence = Some(made);
    } else if let Some(node) = new.default.as_ref().filter(|n| !table::is_null_constant(n) && !new.column.generated) {
        let target = Some((new.column.type_oid, new.column.typmod));
        let stored = expression::store(ctx, node, None, target, "DEFAULT expressions")?;
        default = Some((stored.text, stored.relations, stored.expr));
    }
    let stores_default = default.is_some() && new.column.identity.is_none();
    new.column.default = default.as_ref().filter(|_| stores_default).map(|(text, ..)| Arc::from(text.as_str()));
    // A value that is the same for all old rows is kept once; otherwise the table is rewritten.
    let mut rewrite = new.column.generated;
    if let Some((_, _, expr)) = &default {
        if expr.immutable {
            let value = evaluate(ctx, expr, &[])?;
            if !value.is_null() {
                let mut out = Vec::new();
                text_out(&value, new.column.type_oid, &mut out, &IoSettings::default())?;
                let text = String::from_utf8(out).map_err(|_| SqlError::internal("text form is not UTF-8"))?;
                new.column.missing = Some(Arc::from(text.as_str()));
            }
        } else {
            rewrite = true;
        }
    }
    if new.column.not_null && new.column.missing.is_none() && !rewrite {
        let mut any = false;
        constraint::for_each_row(ctx, relation, |_, _| {
            any = true;
            Ok(false)
        })?;
        if any {
            return Err(SqlError::new(
                SqlState::NOT_NULL_VIOLATION,
                format!("column \"{name}\" of relation \"{}\" contains null values", relation.name),
            )
            .column(&relation.namespace_name, &relation.name, name));
        }
    }
    let oid = relation.oid;
    refuse_own_type(ctx, relation, new.column.type_oid)?;
    if default.is_some() || rewrite {
        // Rows stored as values of other tables would lack it.
        refuse_used_type(ctx, relation)?;
    }
    ctx.writer()?.insert(&pg_attribute::DEF, &rows::attribute(oid, &new.column))?;
    ctx.depend_on_type(ObjectAddress::column(oid, attnum), new.column.type_oid)?;
    table::update_class(ctx, oid, &[(pg_class::relnatts, Datum::Int2(attnum))])?;
    toast::ensure_for(ctx, oid)?;
    if let Some((text, relations, _)) = &default
        && stores_default
    {
        table::insert_default(ctx, oid, attnum, text, relations)?;
    }
    if let Some(sequence) = sequence {
        let kind = if new.column.identity.is_some() { DependKind::Internal } else { DependKind::Auto };
        ctx.depend(ObjectAddress::relation(sequence), ObjectAddress::column(oid, attnum), kind)?;
    }
    if new.column.generated
        && let Some(node) = &new.default
    {
        table::set_generated(ctx, oid, attnum, node)?;
    }
    ctx.relation_changed(oid)?;
    if rewrite {
        let now = ctx.reopen(oid)?;
        let column = now.attribute(attnum).ok_or_else(|| SqlError::internal("new column vanished"))?.clone();
        let expr = match (&default, &column.default) {
            (Some((_, _, expr)), _) => expr.clone(),
            (None, Some(text)) => {
                let target = Some((column.type_oid, column.typmod));
                let front_end = ctx.front_end;
                front_end.table_expression_text(ctx, text, Some(&now), target, "column generation expressions")?
            }
            (None, None) => return Err(SqlError::internal("nothing to fill a new column with")),
        };
        rewrite_table(ctx, &now, &now.desc, |ctx, values| {
            let value = evaluate(ctx, &expr, values)?;
            if value.is_null() && column.not_null {
                return Err(SqlError::new(
                    SqlState::NOT_NULL_VIOLATION,
                    format!("column \"{}\" of relation \"{}\" contains null values", column.name, now.name),
                )
                .column(&now.namespace_name, &now.name, &column.name));
            }
            if let Some(place) = usize::try_from(attnum - 1).ok().and_then(|i| values.get_mut(i)) {
                *place = value;
            }
            Ok(())
        })?;
    }
    constraint::add_all(ctx, oid, constraints, source)
}

/// Runs a bound expression over a row.
pub(crate) fn evaluate(ctx: &mut SessionContext, expr: &TableExpr, values: &[Datum]) -> Result<Datum, SqlError> {
    let mut state = ExecState::bare();
    expr.code.eval(&mut Exec { session: ctx, state: &mut state }, values)
}

/// Writes all rows anew into a new file, changed by `change`, and rebuilds the indexes. `source`: how the old rows lie. Old versions are not kept: to a
/// snapshot from before the table is as it is now. PostgreSQL, which shows such a snapshot an empty table, calls that not MVCC-safe.
pub(crate) fn rewrite_table(
    ctx: &mut SessionContext,
    relation: &Relation,
    source: &TupleDesc,
    change: impl FnMut(&mut SessionContext, &mut Vec<Datum>) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    rewrite_table_as(ctx, relation, relation.persistence, source, change)
}

/// As [`rewrite_table`], into files of this persistence.
fn rewrite_table_as(
    ctx: &mut SessionContext,
    relation: &Relation,
    persistence: Persistence,
    source: &TupleDesc,
    mut change: impl FnMut(&mut SessionContext, &mut Vec<Datum>) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    const BATCH: usize = 512;
    let old = relation.rel_handle().ok_or_else(|| SqlError::internal("table without file"))?;
    let file = ctx.new_file(old.file.spc, persistence)?;
    let new = RelHandle { file, persistence: persistence.access(), ..old };
    // Values out of line move too, so that none is left behind that no row points to.
    let toast = toast::new_files(ctx, relation, persistence)?;
    let engine = ctx.engine.clone();
    let access = ctx.access();
    let snapshot = ctx.transaction()?.committed_snapshot()?;
    let mut rows = HeapScan::new(&access, &old, &snapshot)?;
    let mut batch: Vec<Vec<u8>> = Vec::with_capacity(BATCH);
    let mut tids = Vec::new();
    let n = relation.columns.len();
    loop {
        let mut values = vec![Datum::Null; n.max(source.len())];
        let found = rows.next(&access)?;
        let done = found.is_none();
        if let Some((_, bytes)) = found {
            row::decode(source, bytes, source.len(), &mut values)?;
            change(ctx, &mut values)?;
            values.resize(n, Datum::Null);
            for (value, column) in values.iter_mut().zip(&relation.columns) {
                if column.dropped {
                    *value = Datum::Null;
                }
            }
            let mut bytes = Vec::new();
            let writer = RowWriter::new(&engine, &ctx.settings, relation).into_toast(toast);
            let txn = ctx.transaction.as_mut().ok_or_else(|| SqlError::internal("no transaction"))?;
            writer.write(txn, &values, &[], &mut bytes)?;
            batch.push(bytes);
        }
        if batch.len() >= BATCH || done {
            ctx.check_cancel()?;
            if !batch.is_empty() {
                // Snapshots that do not reach up to this transaction find the rows, not an empty table.
                heap::multi_insert(&access, ctx.transaction()?, &new, &batch, true, &mut tids)?;
                tids.clear();
                batch.clear();
            }
        }
        if done {
            break;
        }
    }
    // Nobody who writes to a file made now has an xid that is settled.
    let floor = engine.txns().settled_floor();
    toast::put_files(ctx, relation, toast, floor)?;
    if persistence != relation.persistence {
        let toast = relation.toast.iter().flat_map(|t| [t.table.oid, t.index.oid]);
        for target in relation.indexes.iter().map(|i| i.oid).chain(toast).chain([relation.oid]) {
            table::update_class(ctx, target, &[(pg_class::relpersistence, Datum::Char(persistence.letter()))])?;
        }
    }
    drop_old_file(ctx, relation, file.rel, floor, true)
}

/// SET LOGGED and SET UNLOGGED. PostgreSQL: `ATPrepChangePersistence`.
fn set_persistence(ctx: &mut SessionContext, relation: &Relation, to: Persistence) -> Result<(), SqlError> {
    let name = &relation.name;
    if relation.persistence == Persistence::Temporary {
        let message = format!("cannot change logged status of table \"{name}\" because it is temporary");
        return Err(SqlError::new(SqlState::INVALID_TABLE_DEFINITION, message));
    }
    if relation.kind == RelKind::Sequence {
        return sequence::set_persistence(ctx, relation, to);
    }
    table::require_table(relation)?;
    if relation.persistence == to {
        return Ok(());
    }
    // A logged table may not point to one that a crash empties.
    let others: Vec<Oid> = if to == Persistence::Permanent {
        let foreign = |c: &Constraint| match &c.kind {
            ConstraintKind::Foreign(f) => Some(f.table),
            ConstraintKind::Primary | ConstraintKind::Unique | ConstraintKind::Exclusion => None,
        };
        relation.constraints.iter().filter_map(foreign).collect()
    } else {
        relation.referenced_by.iter().map(|(table, _)| *table).collect()
    };
    for other in others.into_iter().filter(|o| *o != relation.oid) {
        let Some(other) = ctx.catalog.relation(other)? else { continue };
        let (this_is, that_is) = if to == Persistence::Permanent { ("logged", "unlogged") } else { ("unlogged", "logged") };
        if (other.persistence == Persistence::Permanent) != (to == Persistence::Permanent) {
            let message =
                format!("could not change table \"{name}\" to {this_is} because it references {that_is} table \"{}\"", other.name);
            return Err(SqlError::new(SqlState::INVALID_TABLE_DEFINITION, message));
        }
    }
    rewrite_table_as(ctx, relation, to, &relation.desc, |_, _| Ok(()))?;
    for sequence in sequence::owned_by(ctx, relation.oid)? {
        if let Some(sequence) = ctx.catalog.relation(sequence)? {
            ctx.lock_oid(sequence.oid, false, LockMode::AccessExclusive, WaitPolicy::Block)?;
            sequence::set_persistence(ctx, &sequence, to)?;
        }
    }
    Ok(())
}

/// Puts a new file in place of a table's old one, with its indexes built anew. No version in it needs the status of an xid below `floor`. `checked`:
/// whether indexes that are not valid find out whether their keys are unique.
pub(crate) fn drop_old_file(ctx: &mut SessionContext, relation: &Relation, file: Oid, floor: Xid, checked: bool) -> Result<(), SqlError> {
    if let Some(old) = relation.file() {
        let new = afterimage_wal::ids::RelId { rel: file, ..old };
        ctx.transaction()?.moves_relation(old, new);
        ctx.transaction()?.drop_on_commit(old);
    }
    let [frozen, half] = table::frozen_at(floor);
    table::update_class(ctx, relation.oid, &[(pg_class::relfilenode, Datum::Oid(file)), frozen, half])?;
    clear_missing(ctx, relation)?;
    let now = ctx.reopen(relation.oid)?;
    for index in now.indexes.iter().filter(|i| i.live) {
        index::rebuild(ctx, &now, index, checked)?;
    }
    ctx.relation_changed(relation.oid)
}

/// All rows have their own values now.
pub(crate) fn clear_missing(ctx: &mut SessionContext, relation: &Relation) -> Result<(), SqlError> {
    for column in relation.columns.iter().filter(|c| c.missing.is_some()) {
        let changes = [(pg_attribute::atthasmissing, Datum::Bool(false)), (pg_attribute::attmissingval, Datum::Null)];
        table::update_attribute(ctx, relation.oid, column.attnum, &changes)?;
    }
    Ok(())
}

fn drop_column(ctx: &mut SessionContext, relation: &Relation, command: &AlterTableCmd, cascade: bool) -> Result<(), SqlError> {
    table::require_table(relation)?;
    let Some(column) = relation.column(&command.name) else {
        let e = undefined_column(relation, &command.name);
        if command.missing_ok {
            ctx.notice(format!("{e}, skipping"));
            return Ok(());
        }
        return Err(e);
    };
    let mut targets = vec![ObjectAddress::column(relation.oid, column.attnum)];
    // An index over several columns goes with any of them.
    let uses = |list: &[i16]| list.contains(&column.attnum);
    targets.extend(relation.constraints.iter().filter(|c| uses(&c.columns)).map(|c| ObjectAddress::new(pg_constraint::ID, c.oid)));
    drop::delete(ctx, &targets, cascade)
}

/// Turns a column into a dropped one; what depends on it is gone.
pub(crate) fn remove_column(ctx: &mut SessionContext, relation: Oid, attnum: i16) -> Result<(), SqlError> {
    let key = [Datum::Oid(relation), Datum::Int2(attnum)];
    let Some(row) = ctx.catalog_reader()?.row(&pg_attribute::DEF, by::ATTRIBUTE_NUM, &key)? else { return Ok(()) };
    let stats = ctx.catalog_reader()?.rows(&pg_statistic::DEF, by::STATISTIC, &key)?;
    for row in &stats {
        ctx.writer()?.delete(&pg_statistic::DEF, row)?;
    }
    let changes = [
        (pg_attribute::attname, Datum::text(format!("........pg.dropped.{attnum}........"))),
        (pg_attribute::atttypid, Datum::Oid(0)),
        (pg_attribute::attnotnull, Datum::Bool(false)),
        (pg_attribute::atthasdef, Datum::Bool(false)),
        (pg_attribute::attidentity, Datum::Char(0)),
        (pg_attribute::attgenerated, Datum::Char(0)),
        (pg_attribute::attisdropped, Datum::Bool(true)),
        (pg_attribute::atthasmissing, Datum::Bool(false)),
        (pg_attribute::attmissingval, Datum::Null),
        (pg_attribute::attstattarget, Datum::Int4(0)),
        (pg_attribute::attacl, Datum::Null),
    ];
    ctx.writer()?.set(&pg_attribute::DEF, &row, &changes)?;
    ctx.relation_changed(relation)
}

/// Removes a column's default, if it has one.
fn remove_default(ctx: &mut SessionContext, relation: Oid, attnum: i16) -> Result<(), SqlError> {
    let key = [Datum::Oid(relation), Datum::Int2(attnum)];
    let Some(row) = ctx.catalog_reader()?.row(&pg_attrdef::DEF, by::ATTRDEF_COLUMN, &key)? else { return Ok(()) };
    let oid = row.oid(pg_attrdef::oid)?;
    drop::forget_dependencies(ctx, ObjectAddress::new(pg_attrdef::ID, oid))?;
    ctx.writer()?.delete(&pg_attrdef::DEF, &row)?;
    table::update_attribute(ctx, relation, attnum, &[(pg_attribute::atthasdef, Datum::Bool(false))])
}

fn set_default(ctx: &mut SessionContext, relation: &Arc<Relation>, name: &str, node: Option<&Node>) -> Result<(), SqlError> {
    let column = relation.column(name).ok_or_else(|| undefined_column(relation, name))?;
    let refuse = |what: &str| {
        let message = format!("column \"{name}\" of relation \"{}\" is {what} column", relation.name);
        SqlError::new(SqlState::SYNTAX_ERROR, message)
    };
    if column.identity.is_some() {
        return Err(refuse("an identity"));
    }
    if column.generated {
        return Err(refuse("a generated"));
    }
    let attnum = column.attnum;
    let stored = match node {
        Some(node) => {
            let target = Some((column.type_oid, column.typmod));
            Some(expression::store(ctx, node, None, target, "DEFAULT expressions")?)
        }
        None => None,
    };
    remove_default(ctx, relation.oid, attnum)?;
    let Some(stored) = stored.filter(|_| !node.is_some_and(table::is_null_constant)) else {
        return ctx.relation_changed(relation.oid);
    };
    table::insert_default(ctx, relation.oid, attnum, &stored.text, &stored.relations)?;
    table::update_attribute(ctx, relation.oid, attnum, &[(pg_attribute::atthasdef, Datum::Bool(true))])
}

fn drop_not_null(ctx: &mut SessionContext, relation: &Relation, name: &str) -> Result<(), SqlError> {
    let attnum = attnum_of(relation, name)?;
    if relation.primary_key().is_some_and(|pk| pk.keys().iter().any(|c| c.attnum == attnum)) {
        let message = format!("column \"{name}\" is in a primary key");
        return Err(SqlError::new(SqlState::INVALID_TABLE_DEFINITION, message));
    }
    if relation.attribute(attnum).is_some_and(|c| c.identity.is_some()) {
        let message = format!("column \"{name}\" of relation \"{}\" is an identity column", relation.name);
        return Err(SqlError::new(SqlState::SYNTAX_ERROR, message));
    }
    table::update_attribute(ctx, relation.oid, attnum, &[(pg_attribute::attnotnull, Datum::Bool(false))])
}

/// OID of a constraint of any kind by name.
fn constraint_oid(relation: &Relation, name: &str) -> Option<Oid> {
    let checks = relation.checks.iter().map(|c| (c.oid, &c.name));
    let others = relation.constraints.iter().map(|c| (c.oid, &c.name));
    checks.chain(others).find(|(_, n)| &***n == name).map(|(oid, _)| oid)
}

fn drop_constraint(ctx: &mut SessionContext, relation: &Relation, command: &AlterTableCmd, cascade: bool) -> Result<(), SqlError> {
    let Some(oid) = constraint_oid(relation, &command.name) else {
        let message = format!("constraint \"{}\" of relation \"{}\" does not exist", command.name, relation.name);
        if command.missing_ok {
            ctx.notice(format!("{message}, skipping"));
            return Ok(());
        }
        return Err(SqlError::new(SqlState::UNDEFINED_OBJECT, message));
    };
    drop::delete(ctx, &[ObjectAddress::new(pg_constraint::ID, oid)], cascade)
}

fn validate_constraint(ctx: &mut SessionContext, relation: &Arc<Relation>, name: &str) -> Result<(), SqlError> {
    let oid = constraint_oid(relation, name).ok_or_else(|| {
        let message = format!("constraint \"{name}\" of relation \"{}\" does not exist", relation.name);
        SqlError::new(SqlState::UNDEFINED_OBJECT, message)
    })?;
    if let Some(check) = relation.checks.iter().find(|c| c.oid == oid) {
        let target = Some((crate::sql::types::oids::BOOL, -1));
        let front_end = ctx.front_end;
        let expr = front_end.table_expression_text(ctx, &check.expression, Some(relation), target, "check constraints")?;
        constraint::validate_check(ctx, relation, name, &expr)?;
    }
    if let Some(foreign) = relation.constraints.iter().find(|c| c.oid == oid && matches!(c.kind, ConstraintKind::Foreign(_))) {
        crate::executor::referential::validate(ctx, relation.oid, foreign)?;
    }
    let row = ctx.catalog_reader()?.row(&pg_constraint::DEF, by::CONSTRAINT_OID, &[Datum::Oid(oid)])?;
    let row = row.ok_or_else(|| SqlError::internal("constraint vanished"))?;
    ctx.writer()?.set(&pg_constraint::DEF, &row, &[(pg_constraint::convalidated, Datum::Bool(true))])?;
    ctx.relation_changed(relation.oid)
}

/// ALTER CONSTRAINT: whether, and whether at first, a foreign key is checked at the end of the transaction.
fn alter_constraint(ctx: &mut SessionContext, relation: &Arc<Relation>, command: &AlterTableCmd) -> Result<(), SqlError> {
    let Some(NodeEnum::Constraint(c)) = command.def.as_deref().and_then(|d| d.node.as_ref()) else {
        return Err(SqlError::internal("ALTER CONSTRAINT without one"));
    };
    let name = &c.conname;
    let oid = constraint_oid(relation, name).ok_or_else(|| {
        let message = format!("constraint \"{name}\" of relation \"{}\" does not exist", relation.name);
        SqlError::new(SqlState::UNDEFINED_OBJECT, message)
    })?;
    if !relation.constraints.iter().any(|f| f.oid == oid && matches!(f.kind, ConstraintKind::Foreign(_))) {
        let message = format!("constraint \"{name}\" of relation \"{}\" is not a foreign key constraint", relation.name);
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, message));
    }
    let row = ctx.catalog_reader()?.row(&pg_constraint::DEF, by::CONSTRAINT_OID, &[Datum::Oid(oid)])?;
    let row = row.ok_or_else(|| SqlError::internal("constraint vanished"))?;
    let changes = [(pg_constraint::condeferrable, Datum::Bool(c.deferrable)), (pg_constraint::condeferred, Datum::Bool(c.initdeferred))];
    ctx.writer()?.set(&pg_constraint::DEF, &row, &changes)?;
    ctx.relation_changed(relation.oid)
}

/// `42P16` if a table's rows would be part of themselves.
fn refuse_own_type(ctx: &SessionContext, relation: &Relation, type_oid: Oid) -> Result<(), SqlError> {
    if type_oid == relation.row_type && type_oid != 0 {
        let message = format!("composite type {} cannot be made a member of itself", relation.name);
        return Err(SqlError::new(SqlState::INVALID_TABLE_DEFINITION, message));
    }
    if type_oid >= FIRST_NORMAL_OID
        && let Some(inner) = ctx.catalog.relation(type_oid)?
    {
        inner.live_columns().try_for_each(|c| refuse_own_type(ctx, relation, c.type_oid))?;
    }
    Ok(())
}

/// `0A000` if a column holds rows of this table.
fn refuse_used_type(ctx: &mut SessionContext, relation: &Relation) -> Result<(), SqlError> {
    let key = [Datum::Oid(pg_type::ID), Datum::Oid(relation.oid)];
    for row in ctx.catalog_reader()?.rows(&pg_depend::DEF, by::DEPEND_REFERENCED, &key)? {
        let attnum = i16::try_from(row.int4(pg_depend::objsubid)?).unwrap_or(0);
        if row.oid(pg_depend::classid)? == pg_class::ID
            && attnum > 0
            && let Some(user) = ctx.catalog.relation(row.oid(pg_depend::objid)?)?
            && let Some(column) = user.attribute(attnum)
        {
            let message =
                format!("cannot alter table \"{}\" because column \"{}.{}\" uses its row type", relation.name, user.name, column.name);
            return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message));
        }
    }
    Ok(())
}

fn alter_type(ctx: &mut SessionContext, relation: &Arc<Relation>, command: &AlterTableCmd, source: &str) -> Result<(), SqlError> {
    table::require_table(relation)?;
    let Some(NodeEnum::ColumnDef(def)) = command.def.as_deref().and_then(|n| n.node.as_ref()) else {
        return Err(SqlError::internal("ALTER COLUMN TYPE without a type"));
    };
    let name = command.name.as_str();
    let old = relation.column(name).ok_or_else(|| undefined_column(relation, name))?.clone();
    let changed = ColumnDef { colname: name.to_owned(), constraints: Vec::new(), raw_default: None, ..(**def).clone() };
    let new: Column = table::column(ctx, &changed, &relation.name, source, &mut Vec::<NewConstraint>::new())?.column;
    if old.generated {
        return Err(SqlError::unsupported("changing the type of a generated column"));
    }
    refuse_dependents(ctx, relation, &old)?;
    refuse_own_type(ctx, relation, new.type_oid)?;
    refuse_used_type(ctx, relation)?;
    // The conversion: USING, or an assignment cast of the old value.
    let front_end = ctx.front_end;
    let target = Some((new.type_oid, new.typmod));
    let convert = match def.raw_default.as_deref() {
        Some(node) => front_end.table_expression(ctx, node, Some(relation), target, "transform expressions")?,
        None => {
            let text = crate::sql::catalog::names::quote_identifier(name);
            front_end.table_expression_text(ctx, &text, Some(relation), target, "transform expressions").map_err(|e| {
                if e.state() == SqlState::DATATYPE_MISMATCH || e.state() == SqlState::CANNOT_COERCE {
                    let shown = crate::sql::types::format_type(new.type_oid, new.typmod);
                    SqlError::new(SqlState::DATATYPE_MISMATCH, format!("column \"{name}\" cannot be cast automatically to type {shown}"))
                        .hint(format!("You might need to specify \"USING {name}::{shown}\"."))
                } else {
                    e
                }
            })?
        }
    };
    let default = old.default.clone().filter(|_| old.identity.is_none());
    let oid = relation.oid;
    table::update_attribute(
        ctx,
        oid,
        old.attnum,
        &[
            (pg_attribute::atttypid, Datum::Oid(new.type_oid)),
            (pg_attribute::atttypmod, Datum::Int4(new.typmod)),
            (pg_attribute::attlen, Datum::Int2(new.len)),
            (pg_attribute::attcollation, Datum::Oid(new.collation)),
            (pg_attribute::attbyval, rows::attribute(oid, &new)[pg_attribute::attbyval].clone()),
            (pg_attribute::attalign, rows::attribute(oid, &new)[pg_attribute::attalign].clone()),
            (pg_attribute::attstorage, rows::attribute(oid, &new)[pg_attribute::attstorage].clone()),
            (pg_attribute::atthasmissing, Datum::Bool(false)),
            (pg_attribute::attmissingval, Datum::Null),
        ],
    )?;
    if old.type_oid != new.type_oid {
        let address = ObjectAddress::column(oid, old.attnum);
        let key = [Datum::Oid(address.class), Datum::Oid(address.object), Datum::Int4(address.sub)];
        for row in ctx.catalog_reader()?.rows(&pg_depend::DEF, by::DEPEND_DEPENDER, &key)? {
            if row.oid(pg_depend::refclassid)? == pg_type::ID {
                ctx.writer()?.delete(&pg_depend::DEF, &row)?;
            }
        }
        ctx.depend_on_type(address, new.type_oid)?;
    }
    for index in &relation.indexes {
        for (column, position) in index.columns.iter().zip(1_i16..) {
            if column.attnum == old.attnum {
                index::retype_column(ctx, index, position, &new)?;
            }
        }
    }
    if let Some(text) = default {
        let node = expression::parse_text(ctx, &text)?;
        let now = ctx.reopen(oid)?;
        set_default(ctx, &now, name, Some(&node)).map_err(|e| {
            if e.state() == SqlState::DATATYPE_MISMATCH {
                let shown = crate::sql::types::format_type(new.type_oid, new.typmod);
                let message = format!("default for column \"{name}\" cannot be cast automatically to type {shown}");
                SqlError::new(SqlState::DATATYPE_MISMATCH, message)
            } else {
                e
            }
        })?;
    }
    toast::ensure_for(ctx, oid)?;
    let now = ctx.reopen(oid)?;
    rewrite_table(ctx, &now, &relation.desc, |ctx, values| {
        let value = evaluate(ctx, &convert, values)?;
        if let Some(place) = usize::try_from(old.attnum - 1).ok().and_then(|i| values.get_mut(i)) {
            *place = value;
        }
        Ok(())
    })?;
    let now = ctx.reopen(oid)?;
    for check in now.checks.iter().filter(|c| c.columns.contains(&old.attnum)) {
        let target = Some((crate::sql::types::oids::BOOL, -1));
        let expr = front_end.table_expression_text(ctx, &check.expression, Some(&now), target, "check constraints")?;
        constraint::validate_check(ctx, &now, &check.name, &expr)?;
    }
    Ok(())
}

/// Refuses to change the type of a column that expressions use whose own types may follow from it.
fn refuse_dependents(ctx: &mut SessionContext, relation: &Arc<Relation>, column: &Column) -> Result<(), SqlError> {
    let front_end = ctx.front_end;
    let refuse = |what: &str, detail: String| {
        let message = format!("cannot alter type of a column used by {what}");
        Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message).detail(detail))
    };
    for c in relation.columns.iter().filter(|c| c.generated && !c.dropped) {
        let Some(text) = &c.default else { continue };
        let what = "column generation expressions";
        let expr = front_end.table_expression_text(ctx, text, Some(relation), None, what)?;
        if expr.columns.contains(&column.attnum) {
            let detail = format!("Column \"{}\" is used by generated column \"{}\".", column.name, c.name);
            return refuse("a generated column", detail);
        }
    }
    for found in &relation.indexes {
        let (expressions, predicate) = index::bind_expressions(ctx, relation, found)?;
        if expressions.iter().chain(&predicate).any(|e| e.columns.contains(&column.attnum)) {
            return Err(SqlError::unsupported("changing the type of a column that an index expression or predicate uses"));
        }
    }
    let key = [Datum::Oid(pg_class::ID), Datum::Oid(relation.oid), Datum::Int4(i32::from(column.attnum))];
    for row in ctx.catalog_reader()?.rows(&pg_depend::DEF, by::DEPEND_REFERENCED, &key)? {
        let object =
            ObjectAddress { class: row.oid(pg_depend::classid)?, object: row.oid(pg_depend::objid)?, sub: row.int4(pg_depend::objsubid)? };
        if object.class == pg_rewrite::ID {
            let detail = format!("{} depends on column \"{}\"", drop::describe(ctx, object)?, column.name);
            return refuse("a view or rule", detail);
        }
    }
    Ok(())
}

/// Gives a relation, its indexes and the sequences of its columns another owner.
pub(crate) fn change_owner(ctx: &mut SessionContext, relation: &Relation, owner: Oid) -> Result<(), SqlError> {
    if relation.owner == owner {
        return Ok(());
    }
    if !ctx.is_superuser()? && !ctx.catalog.roles_of(ctx.user, false)?.contains(&owner) {
        let name = ctx.catalog.role(owner)?.map(|r| r.name.to_string()).unwrap_or_default();
        let message = format!("must be member of role \"{name}\"");
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
    }
    let mut targets = vec![relation.oid];
    targets.extend(relation.indexes.iter().map(|i| i.oid));
    let key = [Datum::Oid(pg_class::ID), Datum::Oid(relation.oid)];
    for row in ctx.catalog_reader()?.rows(&pg_depend::DEF, by::DEPEND_REFERENCED, &key)? {
        let other = row.oid(pg_depend::objid)?;
        if row.oid(pg_depend::classid)? == pg_class::ID && ctx.catalog.relation(other)?.is_some_and(|r| r.kind == RelKind::Sequence) {
            targets.push(other);
        }
    }
    for oid in targets {
        table::update_class(ctx, oid, &[(pg_class::relowner, Datum::Oid(owner))])?;
        let database = ctx.database;
        let key = [Datum::Oid(database), Datum::Oid(pg_class::ID), Datum::Oid(oid)];
        for row in ctx.catalog_reader()?.rows(&pg_shdepend::DEF, by::SHDEPEND_DEPENDER, &key)? {
            if row.char(pg_shdepend::deptype)? == b'o' && row.oid(pg_shdepend::refclassid)? == pg_authid::ID {
                ctx.writer()?.delete(&pg_shdepend::DEF, &row)?;
            }
        }
        if oid == relation.oid || !relation.indexes.iter().any(|i| i.oid == oid) {
            ctx.depend_on_owner(ObjectAddress::relation(oid), owner, false)?;
        }
    }
    ctx.relation_changed(relation.oid)
}

fn rel_options(ctx: &mut SessionContext, relation: &Relation, command: &AlterTableCmd) -> Result<(), SqlError> {
    let list = command.def.as_deref().map(nodes::items).unwrap_or_default();
    let toast = list.iter().any(|n| matches!(&n.node, Some(NodeEnum::DefElem(o)) if o.defnamespace == "toast"));
    set_options(ctx, relation, command, list, false)?;
    // The options of the table of large values are its own.
    match relation.toast.filter(|_| toast) {
        Some(toast) => {
            let toast = ctx.reopen(toast.table.oid)?;
            set_options(ctx, &toast, command, list, true)
        }
        None => Ok(()),
    }
}

fn set_options(ctx: &mut SessionContext, relation: &Relation, command: &AlterTableCmd, list: &[Node], toast: bool) -> Result<(), SqlError> {
    let old: Vec<String> = relation.options.iter().map(|o| o.to_string()).collect();
    let reset = command.subtype() == AlterTableType::AtResetRelOptions;
    let of = options::Of::kind(relation.kind).ok_or_else(|| SqlError::internal("options of what has none"))?;
    let options = options::changed(&old, list, reset, of, toast)?;
    let value = crate::sql::catalog::compiled::text_array(&options);
    table::update_class(ctx, relation.oid, &[(pg_class::reloptions, value)])
}

fn add_identity(ctx: &mut SessionContext, relation: &Arc<Relation>, command: &AlterTableCmd, source: &str) -> Result<(), SqlError> {
    let Some(NodeEnum::Constraint(c)) = command.def.as_deref().and_then(|n| n.node.as_ref()) else {
        return Err(SqlError::internal("ADD IDENTITY without a definition"));
    };
    let name = command.name.as_str();
    let column = relation.column(name).ok_or_else(|| undefined_column(relation, name))?.clone();
    let refuse = |why: &str| {
        let message = format!("column \"{name}\" of relation \"{}\" {why}", relation.name);
        Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message))
    };
    if sequence::type_bounds(column.type_oid).is_none() {
        let message = "identity column type must be smallint, integer, or bigint";
        return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
    }
    if !column.not_null {
        return refuse("must be declared NOT NULL before identity can be added");
    }
    if column.identity.is_some() {
        return refuse("is already an identity column");
    }
    if column.default.is_some() {
        return refuse("already has a default value");
    }
    let spec = SequenceSpec::parse(ctx, &c.options, Some(column.type_oid), source)?;
    let made = table::column_sequence(ctx, &relation.name, relation.namespace, relation.persistence, name, &spec)?;
    let address = ObjectAddress::column(relation.oid, column.attnum);
    ctx.depend(ObjectAddress::relation(made), address, DependKind::Internal)?;
    let identity = if c.generated_when == "a" { Identity::Always } else { Identity::ByDefault };
    let letter = if identity == Identity::Always { b'a' } else { b'd' };
    table::update_attribute(ctx, relation.oid, column.attnum, &[(pg_attribute::attidentity, Datum::Char(letter))])
}

fn drop_identity(ctx: &mut SessionContext, relation: &Relation, command: &AlterTableCmd) -> Result<(), SqlError> {
    let name = command.name.as_str();
    let column = relation.column(name).ok_or_else(|| undefined_column(relation, name))?;
    if column.identity.is_none() {
        let message = format!("column \"{name}\" of relation \"{}\" is not an identity column", relation.name);
        if command.missing_ok {
            ctx.notice(format!("{message}, skipping"));
            return Ok(());
        }
        return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
    }
    let (oid, attnum) = (relation.oid, column.attnum);
    table::update_attribute(ctx, oid, attnum, &[(pg_attribute::attidentity, Datum::Char(0))])?;
    let key = [Datum::Oid(pg_class::ID), Datum::Oid(oid), Datum::Int4(i32::from(attnum))];
    let mut sequences = Vec::new();
    for row in ctx.catalog_reader()?.rows(&pg_depend::DEF, by::DEPEND_REFERENCED, &key)? {
        if row.oid(pg_depend::classid)? == pg_class::ID && row.char(pg_depend::deptype)? == b'i' {
            sequences.push(ObjectAddress::relation(row.oid(pg_depend::objid)?));
            ctx.writer()?.delete(&pg_depend::DEF, &row)?;
        }
    }
    drop::delete(ctx, &sequences, false)
}

fn drop_expression(ctx: &mut SessionContext, relation: &Relation, command: &AlterTableCmd) -> Result<(), SqlError> {
    let name = command.name.as_str();
    let column = relation.column(name).ok_or_else(|| undefined_column(relation, name))?;
    if !column.generated {
        let message = format!("column \"{name}\" of relation \"{}\" is not a stored generated column", relation.name);
        if command.missing_ok {
            ctx.notice(format!("{message}, skipping"));
            return Ok(());
        }
        return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
    }
    remove_default(ctx, relation.oid, column.attnum)?;
    table::update_attribute(ctx, relation.oid, column.attnum, &[(pg_attribute::attgenerated, Datum::Char(0))])
}

/// ALTER COLUMN ... SET GENERATED, SET INCREMENT, RESTART: changes the column, or the sequence behind it.
fn set_identity(ctx: &mut SessionContext, relation: &Relation, command: &AlterTableCmd, source: &str) -> Result<(), SqlError> {
    let name = command.name.as_str();
    let column = relation.column(name).ok_or_else(|| undefined_column(relation, name))?.clone();
    if column.identity.is_none() {
        let message = format!("column \"{name}\" of relation \"{}\" is not an identity column", relation.name);
        return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
    }
    let list = command.def.as_deref().map(nodes::items).unwrap_or_default();
    let mut rest = Vec::new();
    for node in list {
        let generated = nodes::options(std::slice::from_ref(node)).find(|o| o.defname == "generated");
        match generated {
            Some(option) => {
                let always =
                    nodes::option_int(option).is_ok_and(|n| n == i64::from(b'a')) || nodes::option_text(option).is_some_and(|t| t == "a");
                let letter = if always { b'a' } else { b'd' };
                let change = [(pg_attribute::attidentity, Datum::Char(letter))];
                table::update_attribute(ctx, relation.oid, column.attnum, &change)?;
            }
            None => rest.push(node.clone()),
        }
    }
    if rest.is_empty() {
        return Ok(());
    }
    let spec = SequenceSpec::parse(ctx, &rest, None, source)?;
    let key = [Datum::Oid(pg_class::ID), Datum::Oid(relation.oid), Datum::Int4(i32::from(column.attnum))];
    for row in ctx.catalog_reader()?.rows(&pg_depend::DEF, by::DEPEND_REFERENCED, &key)? {
        if row.oid(pg_depend::classid)? == pg_class::ID && row.char(pg_depend::deptype)? == b'i' {
            let sequence = ctx.reopen(row.oid(pg_depend::objid)?)?;
            sequence::change(ctx, &sequence, &spec)?;
        }
    }
    Ok(())
}
