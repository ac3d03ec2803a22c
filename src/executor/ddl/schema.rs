//! Schemas, temporary ones included.

use pg_query::NodeEnum;
use pg_query::protobuf::CreateSchemaStmt;

use crate::config::{SetScope, Setting, Value};
use crate::executor::SessionContext;
use crate::sql::catalog::load::{CatalogReader, by};
use crate::sql::catalog::names::{quote_identifier, truncate};
use crate::sql::catalog::privilege;
use crate::sql::catalog::rows::{ObjectAddress, blank};
use crate::sql::catalog::schema::pg_namespace;
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::{SqlError, SqlState};

/// Makes a schema and returns its OID.
fn insert(ctx: &mut SessionContext, name: &str, owner: Oid) -> Result<Oid, SqlError> {
    let oid = ctx.new_oid(&pg_namespace::DEF, by::NAMESPACE_OID)?;
    let mut row = blank(&pg_namespace::DEF);
    row[pg_namespace::oid] = Datum::Oid(oid);
    row[pg_namespace::nspname] = Datum::text(name);
    row[pg_namespace::nspowner] = Datum::Oid(owner);
    ctx.writer()?.insert(&pg_namespace::DEF, &row)?;
    ctx.depend_on_owner(ObjectAddress::new(pg_namespace::ID, oid), owner, false)?;
    ctx.namespaces_changed()?;
    Ok(oid)
}

/// CREATE SCHEMA. Returns the statements inside, to be run in it.
pub(crate) fn create(ctx: &mut SessionContext, stmt: &CreateSchemaStmt, raw: &crate::executor::RawStmt) -> Result<(), SqlError> {
    let owner = match &stmt.authrole {
        Some(spec) => ctx.role_oid(spec)?,
        None => ctx.user,
    };
    let name = if stmt.schemaname.is_empty() {
        ctx.catalog.role(owner)?.map(|r| r.name.to_string()).unwrap_or_default()
    } else {
        truncate(&stmt.schemaname).to_owned()
    };
    if !privilege::on_database(&ctx.catalog, ctx.user, ctx.database, privilege::CREATE)? {
        let database = &ctx.database_name;
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied for database {database}")));
    }
    if name.starts_with("pg_") {
        return Err(SqlError::new(SqlState::RESERVED_NAME, format!("unacceptable schema name \"{name}\""))
            .detail("The prefix \"pg_\" is reserved for system schemas."));
    }
    if ctx.catalog.find_namespace(&name)?.is_some() {
        let message = format!("schema \"{name}\" already exists");
        if stmt.if_not_exists {
            ctx.notice_with(SqlState::DUPLICATE_SCHEMA, format!("{message}, skipping"));
            return Ok(());
        }
        return Err(SqlError::new(SqlState::DUPLICATE_SCHEMA, message));
    }
    insert(ctx, &name, owner)?;
    if stmt.schema_elts.is_empty() {
        return Ok(());
    }
    // Names in them are looked up in the new schema first; they may be in any order. PostgreSQL: `transformCreateSchemaStmt`.
    let mut elements: Vec<_> = stmt.schema_elts.iter().collect();
    elements.sort_by_key(|element| rank(element));
    let path = format!("{}, {}", quote_identifier(&name), ctx.settings.str(Setting::SearchPath));
    ctx.settings.begin_level();
    ctx.settings.set_internal(Setting::SearchPath, Value::Str(path.into()), SetScope::Level);
    let done = elements.into_iter().try_for_each(|element| {
        ctx.refresh_catalog();
        run_inside(ctx, &name, element, raw)
    });
    ctx.settings.end_level(false);
    ctx.refresh_catalog();
    done
}

/// What is made first.
fn rank(element: &pg_query::protobuf::Node) -> u8 {
    match &element.node {
        Some(NodeEnum::CreateSeqStmt(_)) => 0,
        Some(NodeEnum::CreateStmt(_)) => 1,
        Some(NodeEnum::ViewStmt(_)) => 2,
        Some(NodeEnum::IndexStmt(_)) => 3,
        Some(NodeEnum::CreateTrigStmt(_)) => 4,
        _ => 5,
    }
}

/// Runs a statement of CREATE SCHEMA with the new schema as its target.
fn run_inside(
    ctx: &mut SessionContext,
    schema: &str,
    element: &pg_query::protobuf::Node,
    raw: &crate::executor::RawStmt,
) -> Result<(), SqlError> {
    let Some(mut node) = element.node.clone() else { return Ok(()) };
    #[expect(clippy::wildcard_enum_match_arm, reason = "others have no relation of their own")]
    let range = match &mut node {
        NodeEnum::CreateStmt(s) => s.relation.as_mut(),
        NodeEnum::ViewStmt(s) => s.view.as_mut(),
        NodeEnum::CreateSeqStmt(s) => s.sequence.as_mut(),
        NodeEnum::IndexStmt(s) => s.relation.as_mut(),
        _ => None,
    };
    if let Some(range) = range
        && range.schemaname.is_empty()
    {
        schema.clone_into(&mut range.schemaname);
    }
    crate::executor::utility::run_node(ctx, &node, raw).map(|_| ())
}

/// The session's temporary schema, made on first use.
pub(crate) fn temp_namespace(ctx: &mut SessionContext) -> Result<Oid, SqlError> {
    ctx.transaction()?.note_temporary();
    if let Some(oid) = ctx.catalog.viewer().temp_namespace {
        // Gone if the transaction that made it rolled back.
        if ctx.catalog.namespace_name(oid)?.is_some() {
            return Ok(oid);
        }
        ctx.set_temp_namespace(None);
    }
    if !privilege::on_database(&ctx.catalog, ctx.user, ctx.database, privilege::TEMPORARY)? {
        let database = &ctx.database_name;
        let message = format!("permission denied to create temporary tables in database \"{database}\"");
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
    }
    let name = super::temp::schema_name(ctx.backend_pid);
    let oid = loop {
        let Some(oid) = ctx.catalog.find_namespace(&name)? else {
            break insert(ctx, &name, crate::sql::catalog::relation::BOOTSTRAP_ROLE)?;
        };
        // Left by a session with our number that did not end cleanly. Whoever removes such schemas may be at this one.
        ctx.lock_object(false, pg_namespace::ID, oid, crate::txn::LockMode::AccessShare)?;
        ctx.refresh_catalog();
        if ctx.catalog.find_namespace(&name)? == Some(oid) {
            super::drop::empty_namespace(ctx, oid)?;
            break oid;
        }
    };
    ctx.set_temp_namespace(Some(oid));
    Ok(oid)
}

/// `3F000` unless the schema exists.
pub(crate) fn row_of(ctx: &mut SessionContext, name: &str) -> Result<Option<crate::sql::catalog::load::CatalogRow>, SqlError> {
    let name = truncate(name);
    ctx.catalog_reader()?.row(&pg_namespace::DEF, by::NAMESPACE_NAME, &[Datum::text(name)])
}
