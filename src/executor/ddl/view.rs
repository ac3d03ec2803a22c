//! CREATE VIEW. A view is stored as the text of its query, made independent of names that may change: relations are named by OID,
//! `*` is written out.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{self, Node, RangeVar, SelectStmt, ViewStmt};

use super::table::{NewRelation, insert_relation, plain_column, target_namespace};
use super::{drop, nodes, step};
use crate::executor::portal::ColumnDesc;
use crate::executor::{RawStmt, SessionContext};
use crate::sql::catalog::load::{CatalogReader, by};
use crate::sql::catalog::names::truncate;
use crate::sql::catalog::relation::{Column, Persistence, RelKind, Relation};
use crate::sql::catalog::rows::{self, DependKind, ObjectAddress, blank};
use crate::sql::catalog::schema::{pg_attribute, pg_class, pg_rewrite};
use crate::sql::types::{Datum, Oid, format_type};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::LockMode;

/// CREATE VIEW.
pub(crate) fn create(ctx: &mut SessionContext, stmt: &ViewStmt, raw: &RawStmt) -> Result<(), SqlError> {
    let range = nodes::relation(stmt.view.as_ref())?;
    if stmt.with_check_option > 1 {
        return Err(SqlError::unsupported("WITH CHECK OPTION"));
    }
    let Some(query) = &stmt.query else { return Err(SqlError::internal("view without a query")) };
    let stored = store_query(ctx, query, raw)?;
    let aliases = nodes::strings(&stmt.aliases);
    if aliases.len() > stored.columns.len() {
        return Err(SqlError::new(SqlState::SYNTAX_ERROR, "CREATE VIEW specifies more column names than columns"));
    }
    let columns = view_columns(&stored.columns, &aliases)?;
    let mut range = range.clone();
    if matches!(range.relpersistence.as_str(), "" | "p") && range.schemaname != "pg_temp" && stored.uses_temporary(ctx)? {
        "t".clone_into(&mut range.relpersistence);
        ctx.notice(format!("view \"{}\" will be a temporary view", range.relname));
    }
    let (namespace, persistence) = target_namespace(ctx, &range)?;
    if persistence == Persistence::Unlogged {
        return Err(SqlError::new(SqlState::SYNTAX_ERROR, "views cannot be unlogged because they do not have storage"));
    }
    let name = truncate(&range.relname);
    let options = super::options::checked(&stmt.options, super::options::Of::View)?;
    if let Some(oid) = ctx.catalog.relation_oid(namespace, name)? {
        if !stmt.replace {
            return Err(SqlError::new(SqlState::DUPLICATE_TABLE, format!("relation \"{name}\" already exists")));
        }
        return replace(ctx, oid, columns, &stored);
    }
    let new = NewRelation { name, namespace, kind: RelKind::View, persistence, columns: &columns, options: &options, tablespace: 0 };
    let oid = insert_relation(ctx, &new)?;
    insert_rule(ctx, oid, &stored)
}

/// Columns of a view over a query's output.
pub(crate) fn view_columns(output: &[ColumnDesc], aliases: &[&str]) -> Result<Vec<Column>, SqlError> {
    super::table::check_column_count(output.len())?;
    let mut columns: Vec<Column> = Vec::new();
    for (i, c) in output.iter().enumerate() {
        let name = truncate(aliases.get(i).copied().unwrap_or(&c.name));
        // A literal without a type is text by now; what is left unknown cannot be stored.
        let type_oid = if c.type_oid == crate::sql::types::oids::UNKNOWN { crate::sql::types::oids::TEXT } else { c.type_oid };
        let mut column = plain_column(name, type_oid, c.typmod)?;
        if columns.iter().any(|c| *c.name == *name) {
            let message = format!("column \"{name}\" specified more than once");
            return Err(SqlError::new(SqlState::DUPLICATE_COLUMN, message));
        }
        column.attnum =
            i16::try_from(i + 1).map_err(|_| SqlError::new(SqlState::TOO_MANY_COLUMNS, "views can have at most 1664 columns"))?;
        columns.push(column);
    }
    Ok(columns)
}

/// A query in its stored form.
pub(crate) struct StoredQuery {
    pub(crate) text: String,
    pub(crate) columns: Vec<ColumnDesc>,
    /// Relations it names, with the attributes it may use.
    relations: Vec<(Oid, Vec<i16>)>,
}

impl StoredQuery {
    /// Whether it reads a temporary relation.
    pub(crate) fn uses_temporary(&self, ctx: &SessionContext) -> Result<bool, SqlError> {
        for (oid, _) in &self.relations {
            if ctx.catalog.relation(*oid)?.is_some_and(|r| r.persistence == Persistence::Temporary) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Makes the stored form of a query.
pub(crate) fn store_query(ctx: &mut SessionContext, query: &Node, raw: &RawStmt) -> Result<StoredQuery, SqlError> {
    let Some(NodeEnum::SelectStmt(select)) = &query.node else {
        return Err(SqlError::unsupported("views over this kind of query"));
    };
    if select.into_clause.is_some() {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "views must not contain SELECT INTO"));
    }
    let mut select = (**select).clone();
    let front_end = ctx.front_end;
    let prepared = front_end.prepare(ctx, &raw.with_node(NodeEnum::SelectStmt(Box::new(select.clone()))), &[])?;
    if !prepared.param_types.is_empty() {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "views must not contain parameters"));
    }
    let columns = prepared.columns.clone().unwrap_or_default();
    expand_stars(ctx, &mut select, raw)?;
    let mut pass = Pass { relations: Vec::new(), names: Vec::new(), ctes: Vec::new() };
    pass.select(ctx, &mut select)?;
    let mut relations = Vec::new();
    for oid in pass.relations {
        let Some(relation) = ctx.catalog.relation(oid)? else { continue };
        // A name may belong to another relation of the query; better one dependency too many.
        let used = relation.live_columns().filter(|c| pass.names.iter().any(|n| **n == *c.name)).map(|c| c.attnum);
        relations.push((oid, used.collect()));
    }
    let text = front_end.deparse_query(&NodeEnum::SelectStmt(Box::new(select)))?;
    Ok(StoredQuery { text, columns, relations })
}

/// Stores a query as the rule of a view or materialized view.
pub(crate) fn insert_rule(ctx: &mut SessionContext, view: Oid, stored: &StoredQuery) -> Result<(), SqlError> {
    let oid = ctx.new_oid(&pg_rewrite::DEF, by::REWRITE_OID)?;
    let mut row = blank(&pg_rewrite::DEF);
    row[pg_rewrite::oid] = Datum::Oid(oid);
    row[pg_rewrite::rulename] = Datum::text("_RETURN");
    row[pg_rewrite::ev_class] = Datum::Oid(view);
    row[pg_rewrite::ev_type] = Datum::Char(b'1');
    row[pg_rewrite::ev_enabled] = Datum::Char(b'O');
    row[pg_rewrite::is_instead] = Datum::Bool(true);
    row[pg_rewrite::ev_qual] = Datum::text("<>");
    row[pg_rewrite::ev_action] = Datum::text(&stored.text);
    ctx.writer()?.insert(&pg_rewrite::DEF, &row)?;
    let rule = ObjectAddress::new(pg_rewrite::ID, oid);
    ctx.depend(rule, ObjectAddress::relation(view), DependKind::Internal)?;
    for (relation, columns) in &stored.relations {
        if *relation == view {
            continue;
        }
        ctx.depend(rule, ObjectAddress::relation(*relation), DependKind::Normal)?;
        for &attnum in columns {
            ctx.depend(rule, ObjectAddress::column(*relation, attnum), DependKind::Normal)?;
        }
    }
    ctx.relation_changed(view)
}

/// CREATE OR REPLACE VIEW of one that exists: columns may be added at the end.
fn replace(ctx: &mut SessionContext, oid: Oid, columns: Vec<Column>, stored: &StoredQuery) -> Result<(), SqlError> {
    ctx.lock_oid(oid, false, LockMode::AccessExclusive, crate::txn::WaitPolicy::Block)?;
    let old = ctx.reopen(oid)?;
    if old.kind != RelKind::View {
        return Err(step::wrong_kind(&old, "view"));
    }
    ctx.check_owner(&old)?;
    let bad = |message: String| Err(SqlError::new(SqlState::INVALID_TABLE_DEFINITION, message));
    if columns.len() < old.columns.len() {
        return bad("cannot drop columns from view".into());
    }
    for (before, after) in old.columns.iter().zip(&columns) {
        if before.name != after.name {
            let message = format!("cannot change name of view column \"{}\" to \"{}\"", before.name, after.name);
            let e = SqlError::new(SqlState::INVALID_TABLE_DEFINITION, message);
            return Err(e.hint("Use ALTER VIEW ... RENAME COLUMN ... to change name of view column instead."));
        }
        if (before.type_oid, before.typmod) != (after.type_oid, after.typmod) {
            let (from, to) = (format_type(before.type_oid, before.typmod), format_type(after.type_oid, after.typmod));
            return bad(format!("cannot change data type of view column \"{}\" from {from} to {to}", before.name));
        }
    }
    for column in columns.iter().skip(old.columns.len()) {
        ctx.writer()?.insert(&pg_attribute::DEF, &rows::attribute(oid, column))?;
    }
    let count = i16::try_from(columns.len()).unwrap_or(i16::MAX);
    super::table::update_class(ctx, oid, &[(pg_class::relnatts, Datum::Int2(count))])?;
    remove_rule(ctx, oid)?;
    insert_rule(ctx, oid, stored)
}

/// Removes a view's rule with what it depends on.
fn remove_rule(ctx: &mut SessionContext, view: Oid) -> Result<(), SqlError> {
    for row in ctx.catalog_reader()?.rows(&pg_rewrite::DEF, by::REWRITE_TABLE, &[Datum::Oid(view)])? {
        drop::forget_dependencies(ctx, ObjectAddress::new(pg_rewrite::ID, row.oid(pg_rewrite::oid)?))?;
        ctx.writer()?.delete(&pg_rewrite::DEF, &row)?;
    }
    Ok(())
}

/// The stored query of a view or materialized view.
pub(crate) fn stored_text(ctx: &mut SessionContext, relation: &Relation) -> Result<Option<Arc<str>>, SqlError> {
    let row = ctx.catalog_reader()?.row(&pg_rewrite::DEF, by::REWRITE_TABLE, &[Datum::Oid(relation.oid)])?;
    row.map(|row| row.str(pg_rewrite::ev_action).map(Arc::from)).transpose()
}

/// Writes `*` out, in the query and the queries it is made of, so that columns added later do not show.
fn expand_stars(ctx: &mut SessionContext, select: &mut SelectStmt, raw: &RawStmt) -> Result<(), SqlError> {
    if let Some(with) = &mut select.with_clause {
        for cte in &mut with.ctes {
            if let Some(NodeEnum::CommonTableExpr(cte)) = &mut cte.node
                && !with.recursive
                && let Some(NodeEnum::SelectStmt(inner)) = cte.ctequery.as_mut().and_then(|q| q.node.as_mut())
            {
                expand_stars(ctx, inner, raw)?;
            }
        }
    }
    for side in [&mut select.larg, &mut select.rarg].into_iter().flatten() {
        // Arms see the WITH queries of the whole.
        let own = side.with_clause.is_some();
        if !own {
            side.with_clause.clone_from(&select.with_clause);
        }
        expand_stars(ctx, side, raw)?;
        if !own {
            side.with_clause = None;
        }
    }
    for item in &mut select.from_clause {
        expand_in_from(ctx, item, raw)?;
    }
    let mut targets = Vec::with_capacity(select.target_list.len());
    for target in std::mem::take(&mut select.target_list) {
        let Some(prefix) = star_prefix(&target) else {
            targets.push(target);
            continue;
        };
        let only = SelectStmt {
            target_list: vec![target],
            from_clause: select.from_clause.clone(),
            with_clause: select.with_clause.clone(),
            limit_option: protobuf::LimitOption::Default.into(),
            op: protobuf::SetOperation::SetopNone.into(),
            ..SelectStmt::default()
        };
        let front_end = ctx.front_end;
        let prepared = front_end.prepare(ctx, &raw.with_node(NodeEnum::SelectStmt(Box::new(only))), &[])?;
        let columns = prepared.columns.clone().unwrap_or_default();
        for column in &columns {
            let mut fields = prefix.clone();
            if fields.is_empty() && columns.iter().filter(|c| c.name == column.name).count() > 1 {
                let alias = alias_of(ctx, &select.from_clause, column.table)?;
                fields.push(alias.ok_or_else(|| {
                    SqlError::new(SqlState::DUPLICATE_COLUMN, format!("column \"{}\" specified more than once", column.name))
                })?);
            }
            fields.push(column.name.to_string());
            targets.push(column_target(fields));
        }
    }
    select.target_list = targets;
    Ok(())
}

fn expand_in_from(ctx: &mut SessionContext, item: &mut Node, raw: &RawStmt) -> Result<(), SqlError> {
    match &mut item.node {
        Some(NodeEnum::RangeSubselect(sub)) if !sub.lateral => match sub.subquery.as_mut().and_then(|q| q.node.as_mut()) {
            Some(NodeEnum::SelectStmt(inner)) => expand_stars(ctx, inner, raw),
            _ => Ok(()),
        },
        Some(NodeEnum::JoinExpr(join)) => {
            for side in [&mut join.larg, &mut join.rarg].into_iter().flatten() {
                expand_in_from(ctx, side, raw)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Names before the star of a target `a.*`; `None`: no star.
fn star_prefix(target: &Node) -> Option<Vec<String>> {
    let Some(NodeEnum::ResTarget(target)) = &target.node else { return None };
    let Some(NodeEnum::ColumnRef(column)) = target.val.as_ref().and_then(|v| v.node.as_ref()) else { return None };
    matches!(column.fields.last().and_then(|f| f.node.as_ref()), Some(NodeEnum::AStar(_)))
        .then(|| nodes::strings(&column.fields).into_iter().map(str::to_owned).collect())
}

fn string_node(text: String) -> Node {
    Node { node: Some(NodeEnum::String(protobuf::String { sval: text })) }
}

fn column_target(fields: Vec<String>) -> Node {
    let fields = fields.into_iter().map(string_node).collect();
    let column = Node { node: Some(NodeEnum::ColumnRef(protobuf::ColumnRef { fields, location: -1 })) };
    let target = protobuf::ResTarget { val: Some(Box::new(column)), location: -1, ..protobuf::ResTarget::default() };
    Node { node: Some(NodeEnum::ResTarget(Box::new(target))) }
}

/// The alias under which a table is in FROM, if it is there once.
fn alias_of(ctx: &SessionContext, from: &[Node], table: Oid) -> Result<Option<String>, SqlError> {
    let mut found = Vec::new();
    let mut pending: Vec<&Node> = from.iter().collect();
    while let Some(item) = pending.pop() {
        match &item.node {
            Some(NodeEnum::RangeVar(range)) => {
                let (schema, name) = nodes::names(range);
                if table != 0 && ctx.catalog.find_relation(schema, name)?.is_some_and(|r| r.oid == table) {
                    found.push(range.alias.as_ref().map_or_else(|| name.to_owned(), |a| a.aliasname.clone()));
                }
            }
            Some(NodeEnum::JoinExpr(join)) => {
                pending.extend(join.larg.as_deref());
                pending.extend(join.rarg.as_deref());
            }
            _ => {}
        }
    }
    Ok(if found.len() == 1 { found.pop() } else { None })
}

/// Schema under which relations are named by OID in stored queries; see `CatalogHandle::find_relation`.
pub(crate) const BY_OID_SCHEMA: &str = "pg_catalog";

/// Goes through a query: names relations by OID, collects them and all column names used.
struct Pass {
    relations: Vec<Oid>,
    names: Vec<String>,
    /// WITH queries in scope: their names are no relations.
    ctes: Vec<String>,
}

impl Pass {
    fn select(&mut self, ctx: &mut SessionContext, select: &mut SelectStmt) -> Result<(), SqlError> {
        let outer = self.ctes.len();
        if let Some(with) = &mut select.with_clause {
            for cte in &mut with.ctes {
                let Some(NodeEnum::CommonTableExpr(cte)) = &mut cte.node else { continue };
                if with.recursive {
                    self.ctes.push(cte.ctename.clone());
                }
                if let Some(query) = &mut cte.ctequery {
                    self.node(ctx, query)?;
                }
                if !with.recursive {
                    self.ctes.push(cte.ctename.clone());
                }
            }
        }
        for side in [&mut select.larg, &mut select.rarg].into_iter().flatten() {
            self.select(ctx, side)?;
        }
        let lists = [
            &mut select.from_clause,
            &mut select.target_list,
            &mut select.group_clause,
            &mut select.window_clause,
            &mut select.sort_clause,
            &mut select.distinct_clause,
            &mut select.values_lists,
        ];
        for list in lists {
            for node in list {
                self.node(ctx, node)?;
            }
        }
        for node in
            [&mut select.where_clause, &mut select.having_clause, &mut select.limit_count, &mut select.limit_offset].into_iter().flatten()
        {
            self.node(ctx, node)?;
        }
        self.ctes.truncate(outer);
        Ok(())
    }

    fn nodes(&mut self, ctx: &mut SessionContext, list: &mut [Node]) -> Result<(), SqlError> {
        list.iter_mut().try_for_each(|node| self.node(ctx, node))
    }

    fn option(&mut self, ctx: &mut SessionContext, node: &mut Option<Box<Node>>) -> Result<(), SqlError> {
        node.as_deref_mut().map_or(Ok(()), |node| self.node(ctx, node))
    }

    fn range(&mut self, ctx: &mut SessionContext, range: &mut RangeVar) -> Result<(), SqlError> {
        if range.schemaname.is_empty() && self.ctes.contains(&range.relname) {
            return Ok(());
        }
        let (schema, name) = nodes::names(range);
        let relation = ctx.catalog.open_relation(schema, name)?;
        if !self.relations.contains(&relation.oid) {
            self.relations.push(relation.oid);
        }
        if relation.is_system() {
            range.schemaname = relation.namespace_name.to_string();
            return Ok(());
        }
        if range.alias.is_none() {
            range.alias = Some(protobuf::Alias { aliasname: relation.name.to_string(), colnames: Vec::new() });
        }
        range.catalogname.clear();
        BY_OID_SCHEMA.clone_into(&mut range.schemaname);
        range.relname = format!("#{}", relation.oid);
        Ok(())
    }

    fn node(&mut self, ctx: &mut SessionContext, node: &mut Node) -> Result<(), SqlError> {
        let Some(inner) = &mut node.node else { return Ok(()) };
        #[expect(clippy::wildcard_enum_match_arm, reason = "leaves, and nodes a SELECT does not have")]
        match inner {
            NodeEnum::SelectStmt(select) => self.select(ctx, select),
            NodeEnum::RangeVar(range) => self.range(ctx, range),
            NodeEnum::RangeSubselect(sub) => self.option(ctx, &mut sub.subquery),
            NodeEnum::RangeFunction(f) => self.nodes(ctx, &mut f.functions),
            NodeEnum::RangeTableSample(sample) => self.option(ctx, &mut sample.relation),
            NodeEnum::JoinExpr(join) => {
                self.names.extend(nodes::strings(&join.using_clause).into_iter().map(str::to_owned));
                self.option(ctx, &mut join.larg)?;
                self.option(ctx, &mut join.rarg)?;
                self.option(ctx, &mut join.quals)
            }
            NodeEnum::ResTarget(target) => self.option(ctx, &mut target.val),
            NodeEnum::ColumnRef(column) => {
                self.names.extend(nodes::strings(&column.fields).into_iter().map(str::to_owned));
                Ok(())
            }
            NodeEnum::AExpr(e) => {
                self.option(ctx, &mut e.lexpr)?;
                self.option(ctx, &mut e.rexpr)
            }
            NodeEnum::BoolExpr(e) => self.nodes(ctx, &mut e.args),
            NodeEnum::FuncCall(call) => {
                self.nodes(ctx, &mut call.args)?;
                self.nodes(ctx, &mut call.agg_order)?;
                self.option(ctx, &mut call.agg_filter)?;
                if let Some(over) = &mut call.over {
                    self.nodes(ctx, &mut over.partition_clause)?;
                    self.nodes(ctx, &mut over.order_clause)?;
                }
                Ok(())
            }
            NodeEnum::WindowDef(over) => {
                self.nodes(ctx, &mut over.partition_clause)?;
                self.nodes(ctx, &mut over.order_clause)
            }
            NodeEnum::SubLink(link) => {
                self.option(ctx, &mut link.testexpr)?;
                self.option(ctx, &mut link.subselect)
            }
            NodeEnum::CaseExpr(case) => {
                self.option(ctx, &mut case.arg)?;
                self.nodes(ctx, &mut case.args)?;
                self.option(ctx, &mut case.defresult)
            }
            NodeEnum::CaseWhen(when) => {
                self.option(ctx, &mut when.expr)?;
                self.option(ctx, &mut when.result)
            }
            NodeEnum::TypeCast(cast) => self.option(ctx, &mut cast.arg),
            NodeEnum::CollateClause(c) => self.option(ctx, &mut c.arg),
            NodeEnum::NullTest(test) => self.option(ctx, &mut test.arg),
            NodeEnum::BooleanTest(test) => self.option(ctx, &mut test.arg),
            NodeEnum::CoalesceExpr(e) => self.nodes(ctx, &mut e.args),
            NodeEnum::MinMaxExpr(e) => self.nodes(ctx, &mut e.args),
            NodeEnum::RowExpr(e) => self.nodes(ctx, &mut e.args),
            NodeEnum::AArrayExpr(e) => self.nodes(ctx, &mut e.elements),
            NodeEnum::AIndirection(e) => self.option(ctx, &mut e.arg),
            NodeEnum::SortBy(sort) => self.option(ctx, &mut sort.node),
            NodeEnum::GroupingSet(set) => self.nodes(ctx, &mut set.content),
            NodeEnum::List(list) => self.nodes(ctx, &mut list.items),
            _ => Ok(()),
        }
    }
}
