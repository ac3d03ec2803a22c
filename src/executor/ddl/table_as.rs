//! CREATE TABLE AS, SELECT INTO, materialized views.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{CreateTableAsStmt, IntoClause, Node, ObjectType, RefreshMatViewStmt, SelectStmt};

use super::table::{NewRelation, check_name_free, insert_relation, target_namespace};
use super::view::{self, store_query, view_columns};
use super::{nodes, step, table};
use crate::executor::loader::Loader;
use crate::executor::portal::PortalStatus;
use crate::executor::sink::Collect;
use crate::executor::{Portal, Prepared, RawStmt, SessionContext};
use crate::sql::catalog::names::truncate;
use crate::sql::catalog::relation::{Persistence, RelKind, Relation};
use crate::sql::catalog::schema::pg_class;
use crate::sql::types::Datum;
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, WaitPolicy};

/// Rows fetched before they are stored.
const BATCH: u64 = 1000;

/// CREATE TABLE AS and CREATE MATERIALIZED VIEW. Returns the command tag.
pub(crate) fn create(ctx: &mut SessionContext, stmt: &CreateTableAsStmt, raw: &RawStmt) -> Result<String, SqlError> {
    let (Some(query), Some(into)) = (&stmt.query, &stmt.into) else {
        return Err(SqlError::internal("CREATE TABLE AS without a query"));
    };
    run(ctx, query, into, stmt.objtype() == ObjectType::ObjectMatview, stmt.if_not_exists, raw)
}

/// SELECT ... INTO.
pub(crate) fn select_into(ctx: &mut SessionContext, select: &SelectStmt, raw: &RawStmt) -> Result<String, SqlError> {
    let mut select = select.clone();
    let Some(into) = select.into_clause.take() else { return Err(SqlError::internal("no INTO")) };
    let query = Node { node: Some(NodeEnum::SelectStmt(Box::new(select))) };
    run(ctx, &query, &into, false, false, raw)
}

fn run(
    ctx: &mut SessionContext,
    query: &Node,
    into: &IntoClause,
    materialized: bool,
    if_not_exists: bool,
    raw: &RawStmt,
) -> Result<String, SqlError> {
    let noun = if materialized { "CREATE MATERIALIZED VIEW" } else { "CREATE TABLE AS" };
    let range = nodes::relation(into.rel.as_ref())?;
    let (namespace, persistence) = target_namespace(ctx, range)?;
    super::temp::check(into.on_commit(), persistence)?;
    if materialized && persistence == Persistence::Unlogged {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "materialized views cannot be unlogged"));
    }
    let name = truncate(&range.relname).to_owned();
    if !check_name_free(ctx, namespace, &name, if_not_exists)? {
        return Ok(noun.to_owned());
    }
    let Some(node) = query.node.clone() else { return Err(SqlError::internal("no query")) };
    let front_end = ctx.front_end;
    let prepared = front_end.prepare(ctx, &raw.with_node(node), &[])?;
    let Some(output) = prepared.columns.clone() else {
        return Err(SqlError::unsupported("CREATE TABLE AS over this statement"));
    };
    let aliases = nodes::strings(&into.col_names);
    if aliases.len() > output.len() {
        return Err(SqlError::new(SqlState::SYNTAX_ERROR, "too many column names were specified"));
    }
    let columns = view_columns(&output, &aliases)?;
    for column in &columns {
        table::check_column_name(&column.name)?;
    }
    let stored = if materialized { Some(store_query(ctx, query, raw)?) } else { None };
    if let Some(stored) = &stored
        && stored.uses_temporary(ctx)?
    {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "materialized views must not use temporary tables or views"));
    }
    let options = super::options::checked(&into.options, super::options::Of::Table)?;
    let kind = if materialized { RelKind::MatView } else { RelKind::Table };
    let tablespace = super::tablespace::choose(ctx, &into.table_space_name, persistence)?;
    let new = NewRelation { name: &name, namespace, kind, persistence, columns: &columns, options: &options, tablespace };
    let oid = insert_relation(ctx, &new)?;
    super::temp::register(ctx, oid, into.on_commit());
    // The commit that empties tables looks for who was locked for writing.
    ctx.lock_oid(oid, false, LockMode::RowExclusive, WaitPolicy::Block)?;
    if let Some(stored) = stored {
        view::insert_rule(ctx, oid, &stored)?;
    }
    if into.skip_data {
        if materialized {
            table::update_class(ctx, oid, &[(pg_class::relispopulated, Datum::Bool(false))])?;
        }
        return Ok(noun.to_owned());
    }
    let relation = ctx.reopen(oid)?;
    let rows = fill(ctx, relation, prepared)?;
    Ok(format!("SELECT {rows}"))
}

/// Stores a query's rows in a table made for them.
fn fill(ctx: &mut SessionContext, relation: Arc<Relation>, prepared: Arc<Prepared>) -> Result<u64, SqlError> {
    let mut loader = Loader::new(ctx, relation)?;
    let mut portal = Portal::open(ctx, prepared, Vec::new())?;
    loop {
        let mut batch = Collect::default();
        let status = portal.run(ctx, BATCH, &mut batch)?;
        for mut row in batch.rows {
            loader.add(ctx, &mut row)?;
        }
        match status {
            PortalStatus::Suspended => {}
            PortalStatus::Complete(_) => break,
            PortalStatus::CopyIn(_) => return Err(SqlError::internal("COPY as a query")),
        }
    }
    loader.flush(ctx)?;
    Ok(loader.count())
}

/// REFRESH MATERIALIZED VIEW.
pub(crate) fn refresh(ctx: &mut SessionContext, stmt: &RefreshMatViewStmt, raw: &RawStmt) -> Result<(), SqlError> {
    if stmt.concurrent {
        return Err(SqlError::unsupported("REFRESH MATERIALIZED VIEW CONCURRENTLY"));
    }
    let range = nodes::relation(stmt.relation.as_ref())?;
    let relation = ctx.open_locked(range, &raw.source, LockMode::AccessExclusive)?;
    if relation.kind != RelKind::MatView {
        return Err(step::wrong_kind(&relation, "materialized view"));
    }
    ctx.check_owner(&relation)?;
    let text = view::stored_text(ctx, &relation)?.ok_or_else(|| SqlError::internal("materialized view without a query"))?;
    super::truncate::empty(ctx, &relation)?;
    table::update_class(ctx, relation.oid, &[(pg_class::relispopulated, Datum::Bool(!stmt.skip_data))])?;
    if stmt.skip_data {
        return Ok(());
    }
    let front_end = ctx.front_end;
    let statements = front_end.parse(&text)?;
    let statement = statements.first().ok_or_else(|| SqlError::internal("stored query is empty"))?;
    let prepared = front_end.prepare(ctx, statement, &[])?;
    let relation = ctx.reopen(relation.oid)?;
    fill(ctx, relation, prepared)?;
    Ok(())
}
