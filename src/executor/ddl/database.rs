//! CREATE, ALTER and DROP DATABASE.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pg_query::protobuf::{AlterDatabaseSetStmt, AlterDatabaseStmt, CreatedbStmt, DropdbStmt};

use super::nodes;
use crate::executor::SessionContext;
use crate::sql::catalog::load::{CatalogReader, CatalogRow, by};
use crate::sql::catalog::names::truncate;
use crate::sql::catalog::relation::{DEFAULT_TABLESPACE, FIRST_NORMAL_OID};
use crate::sql::catalog::rows::{ObjectAddress, blank};
use crate::sql::catalog::schema::{pg_database, pg_db_role_setting, pg_shdepend, pg_shdescription};
use crate::sql::catalog::{Database, database};
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{CancelReason, LockMode, blocking};

fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

fn missing(name: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist"))
}

fn not_valid(message: String) -> SqlError {
    SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message).hint("Use DROP DATABASE to drop invalid databases.")
}

/// CREATE DATABASE.
pub(crate) fn create(ctx: &mut SessionContext, stmt: &CreatedbStmt) -> Result<(), SqlError> {
    ctx.prevent_in_block("CREATE DATABASE")?;
    let name = truncate(&stmt.dbname).to_owned();
    let mut template = "template1".to_owned();
    let mut owner = ctx.user;
    let (mut connection_limit, mut is_template, mut allow, mut oid) = (-1, false, true, None);
    let (mut collate, mut ctype) = (None, None);
    for (i, option) in nodes::options(&stmt.options).enumerate() {
        if nodes::options(&stmt.options).take(i).any(|earlier| earlier.defname == option.defname) {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "conflicting or redundant options"));
        }
        let text = nodes::option_text(option);
        let default = text.is_none();
        let text = text.unwrap_or_default();
        match option.defname.as_str() {
            "template" if default => {}
            "template" => template = text,
            "owner" if default => {}
            "owner" => owner = ctx.catalog.require_role(&text)?.oid,
            "encoding" => {
                let wanted = text.to_ascii_uppercase().replace(['-', '_'], "");
                if !default && !matches!(wanted.as_str(), "UTF8" | "UNICODE" | "6" | "1") {
                    return Err(SqlError::unsupported(format_args!("encoding {text}")));
                }
            }
            "locale" => (collate, ctype) = (Some(text.clone()), Some(text)),
            "lc_collate" => collate = Some(text),
            "lc_ctype" => ctype = Some(text),
            "connection_limit" => {
                connection_limit = i32::try_from(nodes::option_int(option)?).unwrap_or(-2);
                if connection_limit < -1 {
                    return Err(invalid(format!("invalid connection limit: {connection_limit}")));
                }
            }
            "is_template" => is_template = nodes::option_bool(option)?,
            "allow_connections" => allow = nodes::option_bool(option)?,
            "oid" => {
                let wanted = Oid::try_from(nodes::option_int(option)?).unwrap_or_default();
                if wanted < FIRST_NORMAL_OID {
                    return Err(invalid(format!("OIDs less than {FIRST_NORMAL_OID} are reserved for system objects")));
                }
                oid = Some(wanted);
            }
            "strategy" if default || matches!(text.to_ascii_lowercase().as_str(), "wal_log" | "file_copy") => {}
            "strategy" => {
                let error = invalid(format!("invalid create database strategy \"{text}\""));
                return Err(error.hint("Valid strategies are \"wal_log\" and \"file_copy\"."));
            }
            "location" | "tablespace" | "locale_provider" | "collation_version" => {
                if option.defname == "tablespace" && !default && text != "pg_default" {
                    if super::tablespace::exists(ctx, &text)? {
                        return Err(SqlError::unsupported("CREATE DATABASE in another tablespace than pg_default"));
                    }
                    let message = format!("tablespace \"{text}\" does not exist");
                    return Err(SqlError::new(SqlState::UNDEFINED_OBJECT, message));
                }
            }
            other => {
                return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("option \"{other}\" not recognized")));
            }
        }
    }
    let me = ctx.catalog.role(ctx.user)?;
    let superuser = me.as_ref().is_some_and(|r| r.superuser);
    if !superuser && !me.is_some_and(|r| r.create_db) {
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, "permission denied to create database"));
    }
    if !superuser && !ctx.catalog.roles_of(ctx.user, false)?.contains(&owner) {
        let name = ctx.catalog.role(owner)?.map(|r| r.name.to_string()).unwrap_or_default();
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("must be member of role \"{name}\"")));
    }
    if ctx.catalog.find_database(&name)?.is_some() {
        return Err(SqlError::new(SqlState::DUPLICATE_DATABASE, format!("database \"{name}\" already exists")));
    }
    let source = ctx
        .catalog
        .find_database(&template)?
        .ok_or_else(|| SqlError::new(SqlState::INVALID_CATALOG_NAME, format!("template database \"{template}\" does not exist")))?;
    if !source.is_template && !ctx.catalog.has_privileges_of(ctx.user, source.owner)? {
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied to copy database \"{template}\"")));
    }
    if source.is_invalid() {
        return Err(not_valid(format!("cannot use invalid database \"{template}\" as template")));
    }
    // Vacuum, which moves what the new database inherits of it, waits; so do others who copy it.
    ctx.lock_object(true, pg_database::ID, source.oid, LockMode::ShareRowExclusive)?;
    refuse_used(ctx, &source, "source database", false)?;
    let oid = match oid {
        Some(oid) => match ctx.catalog.database_by_oid(oid)? {
            None => oid,
            Some(other) => return Err(invalid(format!("database OID {oid} is already in use by database \"{}\"", other.name))),
        },
        None => ctx.new_oid(&pg_database::DEF, by::DATABASE_OID)?,
    };
    let mut row = blank(&pg_database::DEF);
    row[pg_database::oid] = Datum::Oid(oid);
    row[pg_database::datname] = Datum::text(&name);
    row[pg_database::datdba] = Datum::Oid(owner);
    row[pg_database::encoding] = Datum::Int4(source.encoding);
    row[pg_database::datlocprovider] = Datum::Char(b'c');
    row[pg_database::datistemplate] = Datum::Bool(is_template);
    row[pg_database::datallowconn] = Datum::Bool(allow);
    row[pg_database::datconnlimit] = Datum::Int4(connection_limit);
    let old = ctx.catalog_reader()?.row(&pg_database::DEF, by::DATABASE_OID, &[Datum::Oid(source.oid)])?;
    let old = old.ok_or_else(|| missing(&template))?;
    for column in [pg_database::datfrozenxid, pg_database::datminmxid] {
        row[column] = Datum::Oid(old.oid(column)?);
    }
    row[pg_database::dattablespace] = Datum::Oid(DEFAULT_TABLESPACE);
    row[pg_database::datcollate] = Datum::text(collate.unwrap_or_else(|| source.collate.to_string()));
    row[pg_database::datctype] = Datum::text(ctype.unwrap_or_else(|| source.ctype.to_string()));
    ctx.writer()?.insert(&pg_database::DEF, &row)?;
    ctx.depend_on_owner(ObjectAddress::new(pg_database::ID, oid), owner, true)?;
    copy_dependencies(ctx, source.oid, oid)?;
    let access = ctx.access();
    database::copy(&access, ctx.transaction()?, source.oid, oid)?;
    ctx.databases_changed()
}

/// The new database's objects have the same owners as the template's.
fn copy_dependencies(ctx: &mut SessionContext, source: Oid, target: Oid) -> Result<(), SqlError> {
    for row in ctx.catalog_reader()?.rows(&pg_shdepend::DEF, by::SHDEPEND_DEPENDER, &[Datum::Oid(source)])? {
        let mut values = row.values.clone();
        values[pg_shdepend::dbid] = Datum::Oid(target);
        ctx.writer()?.insert(&pg_shdepend::DEF, &values)?;
    }
    Ok(())
}

/// How long sessions that are about to leave a database are waited for.
const LEAVING: Duration = Duration::from_secs(5);

/// `55006` if other sessions stay connected to the database. With `force` they are ended.
fn refuse_used(ctx: &mut SessionContext, database: &Database, what: &str, force: bool) -> Result<(), SqlError> {
    let txns = Arc::clone(&ctx.engine.ctx().txns);
    for proc in txns.procs().iter().filter(|p| p.database() == database.oid && p.id() != ctx.proc.id()) {
        if force || proc.is_autovacuum() {
            proc.cancel().cancel(CancelReason::Terminate);
        }
    }
    let deadline = Instant::now() + LEAVING;
    let others = blocking(|| txns.wait_for_database(database.oid, &ctx.proc, deadline));
    ctx.check_cancel()?;
    let prepared = txns.prepared().iter().filter(|p| p.state.database == database.oid).count();
    let detail = match (others, prepared) {
        (0, 0) => return Ok(()),
        (1, 0) => "There is 1 other session using the database.".to_owned(),
        (n, 0) => format!("There are {n} other sessions using the database."),
        (0, 1) => "There is 1 prepared transaction using the database.".to_owned(),
        (0, n) => format!("There are {n} prepared transactions using the database."),
        (n, m) => format!("There are {n} other session(s) and {m} prepared transaction(s) using the database."),
    };
    let message = format!("{what} \"{}\" is being accessed by other users", database.name);
    Err(SqlError::new(SqlState::OBJECT_IN_USE, message).detail(detail))
}

/// The row of a database that the user owns.
pub(crate) fn owned_row(ctx: &mut SessionContext, name: &str) -> Result<CatalogRow, SqlError> {
    let row = ctx.catalog_reader()?.row(&pg_database::DEF, by::DATABASE_NAME, &[Datum::text(name)])?;
    let row = row.ok_or_else(|| missing(name))?;
    if !ctx.catalog.has_privileges_of(ctx.user, row.oid(pg_database::datdba)?)? {
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("must be owner of database {name}")));
    }
    Ok(row)
}

/// DROP DATABASE.
pub(crate) fn drop(ctx: &mut SessionContext, stmt: &DropdbStmt) -> Result<(), SqlError> {
    ctx.prevent_in_block("DROP DATABASE")?;
    let name = truncate(&stmt.dbname).to_owned();
    let Some(found): Option<Arc<Database>> = ctx.catalog.find_database(&name)? else {
        if stmt.missing_ok {
            ctx.notice(format!("database \"{name}\" does not exist, skipping"));
            return Ok(());
        }
        return Err(missing(&name));
    };
    let row = owned_row(ctx, &name)?;
    if found.is_template {
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, "cannot drop a template database"));
    }
    if found.oid == ctx.database {
        return Err(SqlError::new(SqlState::OBJECT_IN_USE, "cannot drop the currently open database"));
    }
    ctx.lock_object(true, pg_database::ID, found.oid, LockMode::AccessExclusive)?;
    let force = nodes::options(&stmt.options).any(|option| option.defname == "force");
    refuse_used(ctx, &found, "database", force)?;
    for spc in ctx.engine.pool().clone().database_tablespaces(found.oid)? {
        ctx.transaction()?.drop_database_on_commit(spc, found.oid);
    }
    for row in ctx.catalog_reader()?.rows(&pg_shdepend::DEF, by::SHDEPEND_DEPENDER, &[Datum::Oid(found.oid)])? {
        ctx.writer()?.delete(&pg_shdepend::DEF, &row)?;
    }
    let own = [Datum::Oid(0), Datum::Oid(pg_database::ID), Datum::Oid(found.oid)];
    for row in ctx.catalog_reader()?.rows(&pg_shdepend::DEF, by::SHDEPEND_DEPENDER, &own)? {
        ctx.writer()?.delete(&pg_shdepend::DEF, &row)?;
    }
    for row in ctx.catalog_reader()?.rows(&pg_db_role_setting::DEF, by::DB_ROLE_SETTING, &[Datum::Oid(found.oid)])? {
        ctx.writer()?.delete(&pg_db_role_setting::DEF, &row)?;
    }
    let key = [Datum::Oid(found.oid), Datum::Oid(pg_database::ID)];
    for row in ctx.catalog_reader()?.rows(&pg_shdescription::DEF, by::SHDESCRIPTION, &key)? {
        ctx.writer()?.delete(&pg_shdescription::DEF, &row)?;
    }
    ctx.writer()?.delete(&pg_database::DEF, &row)?;
    ctx.databases_changed()
}

/// ALTER DATABASE with options.
pub(crate) fn alter(ctx: &mut SessionContext, stmt: &AlterDatabaseStmt) -> Result<(), SqlError> {
    if ctx.catalog.find_database(&stmt.dbname)?.is_some_and(|database| database.is_invalid()) {
        return Err(not_valid(format!("cannot alter invalid database \"{}\"", stmt.dbname)).fatal());
    }
    let row = owned_row(ctx, &stmt.dbname)?;
    let mut changes = Vec::new();
    for option in nodes::options(&stmt.options) {
        changes.push(match option.defname.as_str() {
            "is_template" => (pg_database::datistemplate, Datum::Bool(nodes::option_bool(option)?)),
            "allow_connections" => {
                let allow = nodes::option_bool(option)?;
                if !allow && row.oid(pg_database::oid)? == ctx.database {
                    return Err(invalid("cannot disallow connections for current database"));
                }
                (pg_database::datallowconn, Datum::Bool(allow))
            }
            "connection_limit" => {
                let n = i32::try_from(nodes::option_int(option)?).unwrap_or(-2);
                if n < -1 {
                    return Err(invalid(format!("invalid connection limit: {n}")));
                }
                (pg_database::datconnlimit, Datum::Int4(n))
            }
            "tablespace" => return Err(SqlError::unsupported("ALTER DATABASE SET TABLESPACE")),
            other => {
                return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("option \"{other}\" not recognized")));
            }
        });
    }
    ctx.writer()?.set(&pg_database::DEF, &row, &changes)?;
    ctx.databases_changed()
}

/// ALTER DATABASE ... SET.
pub(crate) fn set(ctx: &mut SessionContext, stmt: &AlterDatabaseSetStmt) -> Result<(), SqlError> {
    let row = owned_row(ctx, &stmt.dbname)?;
    let oid = row.oid(pg_database::oid)?;
    super::role::change_setting(ctx, oid, 0, stmt.setstmt.as_ref())
}
