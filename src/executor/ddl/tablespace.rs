//! Tablespaces: directories elsewhere that relations may lie in.
//!
//! PostgreSQL: commands/tablespace.c.

use std::path::Path;
use std::sync::Arc;

use afterimage_wal::{Fork, RelId};
use pg_query::protobuf::{CreateTableSpaceStmt, DropTableSpaceStmt};

use crate::config::{Setting, split_identifier_list};
use crate::control::checkpoint::CheckpointRequest;
use crate::executor::SessionContext;
use crate::sql::catalog::load::{CatalogReader, CatalogRow, by};
use crate::sql::catalog::names::truncate;
use crate::sql::catalog::privilege::{self, CREATE};
use crate::sql::catalog::relation::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, Persistence, RelKind, Relation};
use crate::sql::catalog::rows::{ObjectAddress, blank};
use crate::sql::catalog::schema::{pg_class, pg_index, pg_shdepend, pg_tablespace};
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::{SqlError, SqlState};
use crate::storage::StorageError;
use crate::storage::files::TABLESPACE_VERSION_DIR;
use crate::txn::{LockMode, WaitPolicy};

fn missing(name: &str) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_OBJECT, format!("tablespace \"{name}\" does not exist"))
}

fn row_of(ctx: &mut SessionContext, name: &str) -> Result<Option<CatalogRow>, SqlError> {
    ctx.catalog_reader()?.row(&pg_tablespace::DEF, by::TABLESPACE_NAME, &[Datum::text(name)])
}

/// Whether there is a tablespace of this name.
pub(crate) fn exists(ctx: &mut SessionContext, name: &str) -> Result<bool, SqlError> {
    Ok(row_of(ctx, name)?.is_some())
}

/// CREATE TABLESPACE.
pub(crate) fn create(ctx: &mut SessionContext, stmt: &CreateTableSpaceStmt) -> Result<(), SqlError> {
    ctx.prevent_in_block("CREATE TABLESPACE")?;
    let name = truncate(&stmt.tablespacename).to_owned();
    if !ctx.catalog.is_superuser(ctx.user)? {
        let message = format!("permission denied to create tablespace \"{name}\"");
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message).hint("Must be superuser to create a tablespace."));
    }
    let owner = match &stmt.owner {
        Some(spec) => ctx.role_oid(spec)?,
        None => ctx.user,
    };
    let location = match stmt.location.trim_end_matches('/') {
        "" if stmt.location.starts_with('/') => "/".to_owned(),
        trimmed => trimmed.to_owned(),
    };
    if location.contains('\'') {
        return Err(SqlError::new(SqlState::INVALID_NAME, "tablespace location cannot contain single quotes"));
    }
    let in_place = location.is_empty() && ctx.settings.bool(Setting::AllowInPlaceTablespaces);
    if !in_place && !location.starts_with('/') {
        return Err(SqlError::new(SqlState::INVALID_OBJECT_DEFINITION, "tablespace location must be an absolute path"));
    }
    if name.starts_with("pg_") {
        return Err(SqlError::new(SqlState::RESERVED_NAME, format!("unacceptable tablespace name \"{name}\""))
            .detail("The prefix \"pg_\" is reserved for system tablespaces."));
    }
    if row_of(ctx, &name)?.is_some() {
        return Err(SqlError::new(SqlState::DUPLICATE_OBJECT, format!("tablespace \"{name}\" already exists")));
    }
    if !stmt.options.is_empty() {
        return Err(SqlError::unsupported("options of a tablespace"));
    }
    if !in_place {
        let path = Path::new(&location);
        if path.starts_with(ctx.engine.data_dir()) {
            ctx.warning(SqlState::INVALID_OBJECT_DEFINITION, "tablespace location should not be inside the data directory");
        }
        if !path.is_dir() {
            return Err(SqlError::new(SqlState::UNDEFINED_FILE, format!("directory \"{location}\" does not exist")));
        }
        let ours = path.join(TABLESPACE_VERSION_DIR);
        if ours.exists() {
            let message = format!("directory \"{}\" already in use as a tablespace", ours.display());
            return Err(SqlError::new(SqlState::OBJECT_IN_USE, message));
        }
    }
    let oid = ctx.new_oid(&pg_tablespace::DEF, by::TABLESPACE_OID)?;
    let mut row = blank(&pg_tablespace::DEF);
    row[pg_tablespace::oid] = Datum::Oid(oid);
    row[pg_tablespace::spcname] = Datum::text(&name);
    row[pg_tablespace::spcowner] = Datum::Oid(owner);
    ctx.writer()?.insert(&pg_tablespace::DEF, &row)?;
    ctx.depend_on_owner(ObjectAddress::new(pg_tablespace::ID, oid), owner, true)?;
    let xid = ctx.transaction()?.xid()?;
    ctx.engine.pool().create_tablespace(oid, &location, xid)?;
    Ok(())
}

/// DROP TABLESPACE.
pub(crate) fn drop(ctx: &mut SessionContext, stmt: &DropTableSpaceStmt) -> Result<(), SqlError> {
    ctx.prevent_in_block("DROP TABLESPACE")?;
    let name = truncate(&stmt.tablespacename).to_owned();
    let Some(row) = row_of(ctx, &name)? else {
        if stmt.missing_ok {
            ctx.notice_with(SqlState::UNDEFINED_OBJECT, format!("tablespace \"{name}\" does not exist, skipping"));
            return Ok(());
        }
        return Err(missing(&name));
    };
    let oid = row.oid(pg_tablespace::oid)?;
    if !ctx.catalog.has_privileges_of(ctx.user, row.oid(pg_tablespace::spcowner)?)? {
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("must be owner of tablespace {name}")));
    }
    if matches!(oid, DEFAULT_TABLESPACE | GLOBAL_TABLESPACE) {
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied for tablespace {name}")));
    }
    ctx.lock_object(true, pg_tablespace::ID, oid, LockMode::AccessExclusive)?;
    if !is_empty(ctx, oid)? {
        // Files of relations dropped a moment ago may still be there: a checkpoint unlinks those no snapshot needs.
        let engine = ctx.engine.clone();
        let request = CheckpointRequest { immediate: true, force: true, ..CheckpointRequest::default() };
        crate::txn::blocking(|| engine.checkpoint(request))?;
        if !is_empty(ctx, oid)? {
            let message = format!("tablespace \"{name}\" is not empty");
            return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
        }
    }
    ctx.writer()?.delete(&pg_tablespace::DEF, &row)?;
    let key = [Datum::Oid(0), Datum::Oid(pg_tablespace::ID), Datum::Oid(oid)];
    for row in ctx.catalog_reader()?.rows(&pg_shdepend::DEF, by::SHDEPEND_DEPENDER, &key)? {
        ctx.writer()?.delete(&pg_shdepend::DEF, &row)?;
    }
    let xid = ctx.transaction()?.xid()?;
    ctx.engine.pool().drop_tablespace(oid, xid)?;
    Ok(())
}

/// Whether no relation of any database lies in it.
fn is_empty(ctx: &SessionContext, oid: Oid) -> Result<bool, SqlError> {
    let top = ctx.engine.data_dir().join(format!("pg_tblspc/{oid}/{TABLESPACE_VERSION_DIR}"));
    let list = |dir: &Path| match std::fs::read_dir(dir) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    };
    let fail = |source| StorageError::Io { what: "list", path: top.display().to_string(), source };
    for database in list(&top).map_err(fail)? {
        let used = list(&database.path()).map_err(fail)?.iter().any(|e| e.file_name() != "PG_VERSION");
        if used {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The tablespace a new relation goes to: the one named, else `default_tablespace`; 0 for the database's.
pub(crate) fn choose(ctx: &mut SessionContext, named: &str, persistence: Persistence) -> Result<Oid, SqlError> {
    let default = ctx.settings.str(Setting::DefaultTablespace).to_owned();
    let name = if named.is_empty() { default.as_str() } else { named };
    if name.is_empty() || (named.is_empty() && persistence == Persistence::Temporary) {
        return Ok(0);
    }
    let Some(row) = row_of(ctx, name)? else {
        // A setting that names none is as if it were empty.
        return if named.is_empty() { Ok(0) } else { Err(missing(name)) };
    };
    match row.oid(pg_tablespace::oid)? {
        DEFAULT_TABLESPACE => Ok(0),
        GLOBAL_TABLESPACE => {
            let message = "only shared relations can be placed in pg_global tablespace";
            Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message))
        }
        oid => {
            let owner = row.oid(pg_tablespace::spcowner)?;
            let acl = crate::sql::catalog::load::acl(&row, pg_tablespace::spcacl)?;
            if !privilege::allows(&ctx.catalog, ctx.user, owner, acl.as_deref(), b"", CREATE)? {
                return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied for tablespace {name}")));
            }
            Ok(oid)
        }
    }
}

/// Chooses where the transaction's temporary files go, by `temp_tablespaces`: once, as PostgreSQL's `PrepareTempTablespaces`. What is not there or
/// may not be used is passed over.
pub(crate) fn reserve_temporary(ctx: &mut SessionContext) -> Result<(), SqlError> {
    if ctx.settings.str(Setting::TempTablespaces).is_empty() || ctx.transaction.as_ref().is_none_or(|t| t.has_temp_spaces()) {
        return Ok(());
    }
    let names = split_identifier_list(ctx.settings.str(Setting::TempTablespaces)).unwrap_or_default();
    let mut spaces = Vec::new();
    for name in names {
        if let Ok(oid) = choose(ctx, &name, Persistence::Permanent)
            && oid != 0
        {
            spaces.push(oid);
        }
    }
    ctx.transaction()?.set_temp_spaces(&spaces);
    Ok(())
}

/// ALTER TABLE, INDEX, MATERIALIZED VIEW ... SET TABLESPACE: its pages as they are, into new files there; large values come along, indexes do not.
/// PostgreSQL: `ATExecSetTableSpace`.
pub(crate) fn move_relation(ctx: &mut SessionContext, relation: &Relation, name: &str) -> Result<(), SqlError> {
    if !matches!(relation.kind, RelKind::Table | RelKind::MatView | RelKind::Index) {
        let message = format!("ALTER action SET TABLESPACE cannot be performed on relation \"{}\"", relation.name);
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, message)
            .detail(format!("This operation is not supported for {}.", relation.kind.plural())));
    }
    let Some(file) = relation.file() else { return Err(SqlError::internal("a relation without a file")) };
    let to = choose(ctx, name, Persistence::Permanent)?;
    if file.spc == if to == 0 { DEFAULT_TABLESPACE } else { to } {
        return Ok(());
    }
    if relation.kind == RelKind::Index {
        let key = [Datum::Oid(relation.oid)];
        let row = ctx.catalog_reader()?.row(&pg_index::DEF, by::INDEX_OID, &key)?;
        let table = row.ok_or_else(|| SqlError::internal("index has no pg_index row"))?.oid(pg_index::indrelid)?;
        // Who writes to the table writes to the index, by the table's descriptor.
        ctx.lock_oid(table, false, LockMode::Share, WaitPolicy::Block)?;
        move_file(ctx, relation.oid, file, relation.persistence, to)?;
        return ctx.relation_changed(table);
    }
    move_file(ctx, relation.oid, file, relation.persistence, to)?;
    for part in relation.toast.iter().flat_map(|toast| [toast.table, toast.index]) {
        ctx.lock_oid(part.oid, false, LockMode::AccessExclusive, WaitPolicy::Block)?;
        move_file(ctx, part.oid, part.file, relation.persistence, to)?;
    }
    Ok(())
}

fn move_file(ctx: &mut SessionContext, oid: Oid, from: RelId, persistence: Persistence, to: Oid) -> Result<(), SqlError> {
    let file = ctx.new_file_number(to)?;
    let pool = Arc::clone(ctx.engine.pool());
    match persistence {
        Persistence::Permanent => {
            pool.copy_fork(from, file, Fork::Main)?;
            pool.copy_fork(from, file, Fork::Vm)?;
        }
        Persistence::Unlogged => pool.copy_unlogged(from, file)?,
        Persistence::Temporary => {
            pool.files().create_temporary(file, ctx.backend_pid)?;
            pool.copy_unlogged(from, file)?;
        }
    }
    ctx.transaction()?.moves_relation(from, file);
    ctx.transaction()?.drop_on_commit(from);
    let changes = [(pg_class::relfilenode, Datum::Oid(file.rel)), (pg_class::reltablespace, Datum::Oid(to))];
    super::table::update_class(ctx, oid, &changes)?;
    ctx.relation_changed(oid)
}
