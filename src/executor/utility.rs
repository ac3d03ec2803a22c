//! Statements without a plan: DDL, settings, maintenance. Looks at the node and calls who does it.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::ObjectType;

use super::context::SessionContext;
use super::ddl;
use super::portal::{PortalStatus, Prepared};
use super::sink::RowSink;
use crate::sql::types::Datum;
use crate::sqlstate::SqlError;

/// Result columns of a utility statement (`SHOW`, ...), known before it runs; `None` for most.
///
/// # Errors
/// The statement names something that does not exist.
pub fn describe(session: &mut SessionContext, statement: &super::RawStmt) -> Result<Option<Vec<super::ColumnDesc>>, SqlError> {
    if let NodeEnum::CallStmt(call) = &*statement.node {
        session.refresh_catalog();
        let front_end = session.front_end;
        let columns = front_end.call_columns(session, call, &statement.source)?;
        let desc = |(name, type_oid): (String, crate::sql::types::Oid)| super::ColumnDesc {
            name: Arc::from(name.as_str()),
            table: 0,
            attnum: 0,
            type_oid,
            type_len: crate::sql::types::registry::type_by_oid(type_oid).map_or(-1, |t| t.len),
            typmod: -1,
        };
        return Ok(columns.map(|c| c.into_iter().map(desc).collect()));
    }
    super::setting::describe(session, statement)
}

/// Runs a utility statement.
///
/// # Errors
/// PostgreSQL's.
pub fn run(
    session: &mut SessionContext,
    prepared: &Arc<Prepared>,
    _params: &[Datum],
    sink: &mut dyn RowSink,
) -> Result<PortalStatus, SqlError> {
    let statement = &prepared.statement;
    if let Some(tag) = super::setting::run(session, statement, sink)? {
        return Ok(PortalStatus::Complete(tag));
    }
    if session.in_block && begins_snapshot(&statement.node) {
        session.transaction()?.begin_query()?;
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others return no rows")]
    match &*statement.node {
        NodeEnum::CopyStmt(s) => super::copy::run(session, s, statement, sink),
        NodeEnum::CallStmt(s) => {
            session.refresh_catalog();
            let front_end = session.front_end;
            front_end.call_procedure(session, s, &statement.source, sink)?;
            Ok(PortalStatus::Complete("CALL".to_owned()))
        }
        node => run_node(session, node, statement).map(PortalStatus::Complete),
    }
}

/// Of those that come here all but two. PostgreSQL: `PlannedStmtRequiresSnapshot` in tcop/pquery.c.
fn begins_snapshot(node: &NodeEnum) -> bool {
    !matches!(node, NodeEnum::LockStmt(_) | NodeEnum::ConstraintsSetStmt(_))
}

/// Runs a statement that returns no rows, and gives its command tag.
pub(crate) fn run_node(ctx: &mut SessionContext, node: &NodeEnum, raw: &super::RawStmt) -> Result<String, SqlError> {
    ctx.refresh_catalog();
    let source = &*raw.source;
    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not here is refused")]
    let tag = match node {
        NodeEnum::CreateStmt(s) => {
            ctx.check_writable("CREATE TABLE")?;
            ddl::table::create(ctx, s, source)?;
            "CREATE TABLE"
        }
        NodeEnum::AlterTableStmt(s) => {
            let tag = alter_tag(s.objtype());
            ctx.check_writable(tag)?;
            ddl::alter::run(ctx, s, source)?;
            tag
        }
        NodeEnum::IndexStmt(s) => {
            ctx.check_writable("CREATE INDEX")?;
            ddl::index::create(ctx, s, source)?;
            "CREATE INDEX"
        }
        NodeEnum::DropStmt(s) => {
            let tag = drop_tag(s.remove_type());
            ctx.check_writable(tag)?;
            ddl::drop::run(ctx, s)?;
            tag
        }
        NodeEnum::CreateSeqStmt(s) => {
            ctx.check_writable("CREATE SEQUENCE")?;
            ddl::sequence::create(ctx, s, source)?;
            "CREATE SEQUENCE"
        }
        NodeEnum::AlterSeqStmt(s) => {
            ctx.check_writable("ALTER SEQUENCE")?;
            ddl::sequence::alter(ctx, s, source)?;
            "ALTER SEQUENCE"
        }
        NodeEnum::CreateSchemaStmt(s) => {
            ctx.check_writable("CREATE SCHEMA")?;
            ddl::schema::create(ctx, s, raw)?;
            "CREATE SCHEMA"
        }
        NodeEnum::TruncateStmt(s) => {
            ctx.check_writable("TRUNCATE TABLE")?;
            ddl::truncate::run(ctx, s, source)?;
            "TRUNCATE TABLE"
        }
        NodeEnum::VacuumStmt(s) => super::vacuum::run(ctx, s, source)?,
        NodeEnum::ViewStmt(s) => {
            ctx.check_writable("CREATE VIEW")?;
            ddl::view::create(ctx, s, raw)?;
            "CREATE VIEW"
        }
        NodeEnum::CreateTableAsStmt(s) => {
            let is_view = s.objtype() == ObjectType::ObjectMatview;
            ctx.check_writable(if is_view { "CREATE MATERIALIZED VIEW" } else { "CREATE TABLE AS" })?;
            return ddl::table_as::create(ctx, s, raw);
        }
        NodeEnum::SelectStmt(s) => {
            ctx.check_writable("SELECT INTO")?;
            return ddl::table_as::select_into(ctx, s, raw);
        }
        NodeEnum::RefreshMatViewStmt(s) => {
            ctx.check_writable("REFRESH MATERIALIZED VIEW")?;
            ddl::table_as::refresh(ctx, s, raw)?;
            "REFRESH MATERIALIZED VIEW"
        }
        NodeEnum::RenameStmt(s) => {
            let kind = if s.rename_type() == ObjectType::ObjectColumn || s.rename_type() == ObjectType::ObjectTabconstraint {
                s.relation_type()
            } else {
                s.rename_type()
            };
            let tag = alter_tag(kind);
            ctx.check_writable(tag)?;
            ddl::rename::run(ctx, s, source)?;
            tag
        }
        NodeEnum::AlterObjectSchemaStmt(s) => {
            let tag = alter_tag(s.object_type());
            ctx.check_writable(tag)?;
            ddl::rename::set_schema(ctx, s, source)?;
            tag
        }
        NodeEnum::AlterOwnerStmt(s) => {
            let tag = alter_tag(s.object_type());
            ctx.check_writable(tag)?;
            ddl::rename::set_owner(ctx, s)?;
            tag
        }
        NodeEnum::CommentStmt(s) => {
            ctx.check_writable("COMMENT")?;
            ddl::comment::run(ctx, s)?;
            "COMMENT"
        }
        NodeEnum::LockStmt(s) => {
            ddl::lock::run(ctx, s)?;
            "LOCK TABLE"
        }
        NodeEnum::ReindexStmt(s) => {
            ctx.transaction()?.check_not_in_recovery("execute REINDEX")?;
            ddl::reindex::run(ctx, s, source)?;
            "REINDEX"
        }
        NodeEnum::ClusterStmt(s) => {
            ctx.transaction()?.check_not_in_recovery("execute CLUSTER")?;
            ddl::cluster::run(ctx, s, source)?;
            "CLUSTER"
        }
        NodeEnum::CreateRoleStmt(s) => {
            ctx.check_writable("CREATE ROLE")?;
            ddl::role::create(ctx, s)?;
            "CREATE ROLE"
        }
        NodeEnum::AlterRoleStmt(s) => {
            ctx.check_writable("ALTER ROLE")?;
            ddl::role::alter(ctx, s)?;
            "ALTER ROLE"
        }
        NodeEnum::AlterRoleSetStmt(s) => {
            ctx.check_writable("ALTER ROLE")?;
            ddl::role::set(ctx, s)?;
            "ALTER ROLE"
        }
        NodeEnum::DropRoleStmt(s) => {
            ctx.check_writable("DROP ROLE")?;
            ddl::role::drop(ctx, s)?;
            "DROP ROLE"
        }
        NodeEnum::GrantRoleStmt(s) => {
            let tag = if s.is_grant { "GRANT ROLE" } else { "REVOKE ROLE" };
            ctx.check_writable(tag)?;
            ddl::role::grant(ctx, s)?;
            tag
        }
        NodeEnum::GrantStmt(s) => {
            let tag = if s.is_grant { "GRANT" } else { "REVOKE" };
            ctx.check_writable(tag)?;
            ddl::grant::run(ctx, s)?;
            tag
        }
        NodeEnum::CreatedbStmt(s) => {
            ctx.check_writable("CREATE DATABASE")?;
            ddl::database::create(ctx, s)?;
            "CREATE DATABASE"
        }
        NodeEnum::CreateTableSpaceStmt(s) => {
            ctx.check_writable("CREATE TABLESPACE")?;
            ddl::tablespace::create(ctx, s)?;
            "CREATE TABLESPACE"
        }
        NodeEnum::DropTableSpaceStmt(s) => {
            ctx.check_writable("DROP TABLESPACE")?;
            ddl::tablespace::drop(ctx, s)?;
            "DROP TABLESPACE"
        }
        NodeEnum::DropdbStmt(s) => {
            ctx.check_writable("DROP DATABASE")?;
            ddl::database::drop(ctx, s)?;
            "DROP DATABASE"
        }
        NodeEnum::AlterDatabaseStmt(s) => {
            ctx.check_writable("ALTER DATABASE")?;
            ddl::database::alter(ctx, s)?;
            "ALTER DATABASE"
        }
        NodeEnum::AlterDatabaseSetStmt(s) => {
            ctx.check_writable("ALTER DATABASE")?;
            ddl::database::set(ctx, s)?;
            "ALTER DATABASE"
        }
        NodeEnum::CreateFunctionStmt(s) => {
            let tag = if s.is_procedure { "CREATE PROCEDURE" } else { "CREATE FUNCTION" };
            ctx.check_writable(tag)?;
            ddl::function::create(ctx, s, source)?;
            tag
        }
        NodeEnum::AlterFunctionStmt(s) => {
            let tag = if s.objtype() == ObjectType::ObjectProcedure { "ALTER PROCEDURE" } else { "ALTER FUNCTION" };
            ctx.check_writable(tag)?;
            ddl::function::alter(ctx, s)?;
            tag
        }
        NodeEnum::CreateTrigStmt(s) => {
            ctx.check_writable("CREATE TRIGGER")?;
            ddl::trigger::create(ctx, s, source)?;
            "CREATE TRIGGER"
        }
        NodeEnum::ConstraintsSetStmt(s) => {
            ddl::foreign_key::set_constraints(ctx, s)?;
            "SET CONSTRAINTS"
        }
        NodeEnum::DoStmt(s) => {
            let front_end = ctx.front_end;
            front_end.do_block(ctx, s, source)?;
            "DO"
        }
        other => return Err(SqlError::unsupported(super::unsupported::command(other))),
    };
    Ok(tag.to_owned())
}

/// What a transaction still has to do before its commit record.
///
/// # Errors
/// PostgreSQL's; the transaction must then roll back.
pub fn before_commit(session: &mut SessionContext) -> Result<(), SqlError> {
    if !session.deferral.is_empty() {
        super::referential::before_commit(session)?;
    }
    if session.on_commit.is_empty() { Ok(()) } else { ddl::temp::before_commit(session) }
}

/// The session ends: drops its temporary relations and their schema.
///
/// # Errors
/// Reading or writing catalogs failed.
pub fn drop_temp(session: &mut SessionContext) -> Result<(), SqlError> {
    ddl::temp::drop_own(session)
}

/// Drops what sessions that are not `alive` left behind in the database; how many had left something.
///
/// # Errors
/// Reading or writing catalogs failed.
pub fn drop_orphaned_temp(session: &mut SessionContext, alive: &dyn Fn(i32) -> bool) -> Result<usize, SqlError> {
    session.refresh_catalog();
    ddl::temp::drop_orphans(session, alive)
}

/// Drops the session's temporary relations.
///
/// # Errors
/// Reading or writing catalogs failed.
pub fn discard_temp(session: &mut SessionContext) -> Result<(), SqlError> {
    match session.catalog.viewer().temp_namespace {
        Some(namespace) if session.catalog.namespace_name(namespace)?.is_some() => ddl::drop::empty_namespace(session, namespace),
        Some(_) | None => Ok(()),
    }
}

fn drop_tag(kind: ObjectType) -> &'static str {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest are refused later")]
    match kind {
        ObjectType::ObjectTable => "DROP TABLE",
        ObjectType::ObjectIndex => "DROP INDEX",
        ObjectType::ObjectSequence => "DROP SEQUENCE",
        ObjectType::ObjectView => "DROP VIEW",
        ObjectType::ObjectMatview => "DROP MATERIALIZED VIEW",
        ObjectType::ObjectSchema => "DROP SCHEMA",
        ObjectType::ObjectFunction => "DROP FUNCTION",
        ObjectType::ObjectProcedure => "DROP PROCEDURE",
        ObjectType::ObjectRoutine => "DROP ROUTINE",
        ObjectType::ObjectTrigger => "DROP TRIGGER",
        _ => "DROP",
    }
}

fn alter_tag(kind: ObjectType) -> &'static str {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest are tables")]
    match kind {
        ObjectType::ObjectIndex => "ALTER INDEX",
        ObjectType::ObjectSequence => "ALTER SEQUENCE",
        ObjectType::ObjectView => "ALTER VIEW",
        ObjectType::ObjectMatview => "ALTER MATERIALIZED VIEW",
        ObjectType::ObjectSchema => "ALTER SCHEMA",
        ObjectType::ObjectDatabase => "ALTER DATABASE",
        ObjectType::ObjectRole => "ALTER ROLE",
        ObjectType::ObjectTrigger => "ALTER TRIGGER",
        ObjectType::ObjectFunction => "ALTER FUNCTION",
        ObjectType::ObjectProcedure => "ALTER PROCEDURE",
        ObjectType::ObjectRoutine => "ALTER ROUTINE",
        _ => "ALTER TABLE",
    }
}
