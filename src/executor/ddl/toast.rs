//! The tables that hold large values: `pg_toast.pg_toast_<oid of the table>`, with an index on (chunk_id, chunk_seq).
//!
//! PostgreSQL: catalog/toasting.c.

use std::sync::Arc;

use afterimage_wal::Xid;

use super::table::{HEAP_AM, frozen_at, plain_column, update_class};
use crate::access::{RelHandle, btree};
use crate::executor::SessionContext;
use crate::sql::catalog::relation::{Column, Index, IndexColumn, PG_TOAST_NAMESPACE, Persistence, RelKind, Relation};
use crate::sql::catalog::rows::{self, ClassRow, DependKind, ObjectAddress};
use crate::sql::catalog::schema::{pg_attribute, pg_class, pg_index};
use crate::sql::functions::registry::{BTREE_AM, default_opclass};
use crate::sql::types::{Datum, Oid, Repr, ToastTable, oids};
use crate::sqlstate::SqlError;
use crate::txn::{LockMode, WaitPolicy};

/// Whether a table with these columns may have rows too long for a page. PostgreSQL: `heapam_relation_needs_toast_table`.
fn needed(columns: &[Column]) -> bool {
    columns.iter().any(|c| !c.dropped && c.len < 0 && c.storage != b'p' && Repr::of(c.type_oid).has_header())
}

/// Gives a table a large-value table if its columns may need one and it has none.
pub(crate) fn ensure(
    ctx: &mut SessionContext,
    table: Oid,
    owner: Oid,
    persistence: Persistence,
    columns: &[Column],
    options: &[String],
) -> Result<(), SqlError> {
    if !needed(columns) {
        return Ok(());
    }
    let (oid, index) = (ctx.new_relation_oid()?, ctx.new_relation_oid()?);
    let (file, index_file) = (ctx.new_file(0, persistence)?, ctx.new_file(0, persistence)?);
    let (name, index_name) = (format!("pg_toast_{table}"), format!("pg_toast_{table}_index"));
    let column = |name: &str, type_oid: Oid, attnum: i16| -> Result<Column, SqlError> {
        Ok(Column { attnum, storage: b'p', ..plain_column(name, type_oid, -1)? })
    };
    let columns = [column("chunk_id", oids::OID, 1)?, column("chunk_seq", oids::INT4, 2)?, column("chunk_data", oids::BYTEA, 3)?];
    let class = ClassRow {
        frozen: ctx.engine.txns().settled_floor(),
        oid,
        name: &name,
        namespace: PG_TOAST_NAMESPACE,
        owner,
        access_method: HEAP_AM,
        file: file.rel,
        tablespace: 0,
        kind: RelKind::Toast,
        persistence,
        shared: false,
        columns: columns.len(),
        checks: 0,
        has_index: true,
        has_rules: false,
        options,
    };
    let index_class = ClassRow {
        options: &[],
        oid: index,
        name: &index_name,
        access_method: BTREE_AM,
        file: index_file.rel,
        kind: RelKind::Index,
        columns: 2,
        has_index: false,
        ..class.clone()
    };
    let keys = columns.iter().take(2).map(|c| IndexColumn {
        attnum: c.attnum,
        expression: None,
        type_oid: c.type_oid,
        typmod: -1,
        desc: false,
        nulls_first: false,
        collation: 0,
        opclass: default_opclass(BTREE_AM, c.type_oid).map_or(0, |o| o.oid),
        storage: b'p',
    });
    let def = Index {
        oid: index,
        name: Arc::from(index_name.as_str()),
        table: oid,
        file: index_file,
        unique: true,
        primary: true,
        nulls_not_distinct: false,
        immediate: true,
        valid: true,
        ready: true,
        live: true,
        since: None,
        columns: keys.collect(),
        n_key: 2,
        predicate: None,
        constraint: 0,
        method: Arc::from("btree"),
        rel_pages: 0,
        rel_tuples: 0.0,
        options: Vec::new(),
    };
    btree::create(&ctx.access(), &RelHandle { oid: index, file: index_file, persistence: persistence.access(), reserve: 0 })?;
    let attributes: Vec<_> = columns.iter().map(|c| rows::attribute(oid, c)).collect();
    let index_attributes: Vec<_> = columns.iter().take(2).map(|c| rows::attribute(index, c)).collect();
    let mut writer = ctx.writer()?;
    writer.insert(&pg_class::DEF, &class.values())?;
    writer.insert_all(&pg_attribute::DEF, &attributes)?;
    writer.insert(&pg_class::DEF, &index_class.values())?;
    writer.insert_all(&pg_attribute::DEF, &index_attributes)?;
    writer.insert(&pg_index::DEF, &rows::index(&def))?;
    ctx.depend(ObjectAddress::relation(oid), ObjectAddress::relation(table), DependKind::Internal)?;
    ctx.depend(ObjectAddress::relation(index), ObjectAddress::relation(oid), DependKind::Internal)?;
    update_class(ctx, table, &[(pg_class::reltoastrelid, Datum::Oid(oid))])
}

/// As [`ensure`], for a table that is there.
pub(crate) fn ensure_for(ctx: &mut SessionContext, table: Oid) -> Result<(), SqlError> {
    let relation = ctx.reopen(table)?;
    if relation.toast.is_some() || !matches!(relation.kind, RelKind::Table | RelKind::MatView) {
        return Ok(());
    }
    ensure(ctx, table, relation.owner, relation.persistence, &relation.columns, &[])
}

/// New, empty files for a table's large values, to be put in place with [`put_files`].
pub(crate) fn new_files(ctx: &mut SessionContext, relation: &Relation, persistence: Persistence) -> Result<Option<ToastTable>, SqlError> {
    let new = bare_files(ctx, relation, persistence)?;
    if let Some(new) = &new {
        btree::create(&ctx.access(), &new.index)?;
    }
    Ok(new)
}

/// As [`new_files`], without so much as an empty index: it is to be built.
pub(crate) fn bare_files(ctx: &mut SessionContext, relation: &Relation, persistence: Persistence) -> Result<Option<ToastTable>, SqlError> {
    let Some(old) = relation.toast else { return Ok(None) };
    ctx.lock_oid(old.table.oid, false, LockMode::AccessExclusive, WaitPolicy::Block)?;
    let mut new = |old: RelHandle| -> Result<RelHandle, SqlError> {
        let file = ctx.new_file(old.file.spc, persistence)?;
        Ok(RelHandle { file, persistence: persistence.access(), ..old })
    };
    Ok(Some(ToastTable { table: new(old.table)?, index: new(old.index)? }))
}

/// Puts files made by [`new_files`] in place of the old ones. No version in them needs the status of an xid below `floor`.
pub(crate) fn put_files(ctx: &mut SessionContext, relation: &Relation, new: Option<ToastTable>, floor: Xid) -> Result<(), SqlError> {
    let (Some(old), Some(new)) = (relation.toast, new) else { return Ok(()) };
    let toast = new.table;
    for (old, new) in [(old.table, new.table), (old.index, new.index)] {
        ctx.transaction()?.drop_on_commit(old.file);
        let mut changes = vec![
            (pg_class::relfilenode, Datum::Oid(new.file.rel)),
            (pg_class::relpages, Datum::Int4(0)),
            (pg_class::reltuples, Datum::Float4(-1.0)),
        ];
        if new.oid == toast.oid {
            changes.extend(frozen_at(floor));
        }
        update_class(ctx, new.oid, &changes)?;
    }
    ctx.relation_changed(relation.oid)
}
