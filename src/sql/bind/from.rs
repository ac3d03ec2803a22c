//! FROM: tables, views, subqueries, functions, joins.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{self, Alias, Node};

use super::expr::{Expr, ExprKind};
use super::query::{FromItem, Join, JoinKind, Query, Rte, RteColumn, RteSource};
use super::scope::{Binder, NameColumn, NameItem, Place, columns_of, string_of, strings_of};
use crate::executor::portal;
use crate::sql::catalog::{RelKind, Relation, Source};
use crate::sql::parse;
use crate::sql::types::{Oid, oids};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::LockMode;

impl Binder<'_> {
    /// Binds FROM's list; its names become visible.
    #[expect(clippy::wrong_self_convention, reason = "FROM is the clause")]
    pub(super) fn from_list(&mut self, nodes: &[Node]) -> Result<Vec<FromItem>, SqlError> {
        let mut items = Vec::with_capacity(nodes.len());
        for node in nodes {
            let (item, names) = self.from_item(node)?;
            for name in &names {
                self.check_duplicate(name)?;
            }
            self.scope()?.names.extend(names);
            items.push(item);
        }
        Ok(items)
    }

    fn check_duplicate(&mut self, item: &NameItem) -> Result<(), SqlError> {
        let Some(name) = &item.name else { return Ok(()) };
        if item.qualified && self.scope()?.names.iter().any(|i| i.qualified && i.name.as_ref() == Some(name) && i.schema == item.schema) {
            return Err(SqlError::new(SqlState::DUPLICATE_ALIAS, format!("table name \"{name}\" specified more than once")));
        }
        Ok(())
    }

    #[expect(clippy::wrong_self_convention, reason = "FROM is the clause")]
    pub(super) fn from_item(&mut self, node: &Node) -> Result<(FromItem, Vec<NameItem>), SqlError> {
        self.deeper(|b| match &node.node {
            Some(NodeEnum::RangeVar(r)) => {
                let (rt, item) = b.range_var(r)?;
                Ok((FromItem::Rel(rt), vec![item]))
            }
            Some(NodeEnum::RangeSubselect(s)) => b.range_subselect(s),
            Some(NodeEnum::RangeFunction(f)) => b.range_function(f),
            Some(NodeEnum::JoinExpr(j)) => b.join_expr(j),
            Some(NodeEnum::RangeTableSample(_)) => Err(SqlError::unsupported("TABLESAMPLE")),
            Some(NodeEnum::JsonTable(_)) => Err(SqlError::unsupported("JSON_TABLE")),
            Some(NodeEnum::RangeTableFunc(_)) => Err(SqlError::unsupported("XMLTABLE")),
            _ => Err(SqlError::internal("FROM item")),
        })
    }

    /// Applies an alias to columns.
    fn alias(&self, alias: Option<&Alias>, default: &str, columns: &mut [RteColumn]) -> Result<Arc<str>, SqlError> {
        let Some(alias) = alias else { return Ok(Arc::from(default)) };
        let names = strings_of(&alias.colnames);
        let live: Vec<usize> = columns.iter().enumerate().filter(|(_, c)| c.ty != 0).map(|(i, _)| i).collect();
        if names.len() > live.len() {
            return Err(SqlError::new(
                SqlState::INVALID_COLUMN_REFERENCE,
                format!("table \"{}\" has {} columns available but {} columns specified", alias.aliasname, live.len(), names.len()),
            ));
        }
        for (name, i) in names.iter().zip(live) {
            if let Some(c) = columns.get_mut(i) {
                c.name = Arc::from(*name);
            }
        }
        Ok(Arc::from(alias.aliasname.as_str()))
    }

    /// A relation by name, locked until the transaction ends: what is bound stays true. The name is looked up again after a wait, as it may
    /// mean another relation then. PostgreSQL: `parserOpenTable`, `RangeVarGetRelidExtended`.
    pub(super) fn open(&mut self, r: &protobuf::RangeVar, mode: LockMode) -> Result<Arc<Relation>, SqlError> {
        if !r.catalogname.is_empty() && *r.catalogname != *self.session.database_name {
            return Err(self.error(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("cross-database references are not implemented: \"{}.{}.{}\"", r.catalogname, r.schemaname, r.relname),
                r.location,
            ));
        }
        let schema = (!r.schemaname.is_empty()).then_some(r.schemaname.as_str());
        let mut relation = self.session.catalog.open_relation(schema, &r.relname).map_err(|e| self.position(e, r.location))?;
        // In recovery all temporary relations are others': the planner says so.
        if self.session.catalog.is_other_temporary(&relation) && !self.session.engine.is_in_recovery() {
            return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "cannot access temporary tables of other sessions"));
        }
        while portal::lock_relation(self.session, relation.oid, mode)? {
            let again = self.session.catalog.open_relation(schema, &r.relname).map_err(|e| self.position(e, r.location))?;
            if again.oid == relation.oid {
                return Ok(again);
            }
            relation = again;
        }
        Ok(relation)
    }

    fn range_var(&mut self, r: &protobuf::RangeVar) -> Result<(usize, NameItem), SqlError> {
        if r.schemaname.is_empty()
            && let Some(found) = self.find_cte(&r.relname, r.location)?
        {
            let (source, mut columns) = found;
            let alias = self.alias(r.alias.as_ref(), &r.relname, &mut columns)?;
            let rte = Rte { alias, source, columns, lateral: false };
            let rt = self.next_rt()?;
            let item = self.item_for(rt, &rte, None, false);
            self.add_rte(rte)?;
            return Ok((rt, item));
        }
        let name = r.alias.as_ref().map_or(&r.relname, |a| &a.aliasname);
        let mode = if self.scope()?.locks_rows_of(name) { LockMode::RowShare } else { LockMode::AccessShare };
        let relation = match self.open(r, mode) {
            Err(e) if r.schemaname.is_empty() && self.scopes.iter().any(|s| s.future.contains(&r.relname)) => {
                return Err(e
                    .detail(format!(
                        "There is a WITH item named \"{}\", but it cannot be referenced from this part of the query.",
                        r.relname
                    ))
                    .hint("Use WITH RECURSIVE, or re-order the WITH items to remove forward references."));
            }
            other => other?,
        };
        let at = r.location;
        match relation.kind {
            RelKind::Table | RelKind::MatView | RelKind::Toast | RelKind::Sequence | RelKind::Partitioned | RelKind::View => {}
            RelKind::Index | RelKind::PartitionedIndex => {
                return Err(self
                    .error(SqlState::WRONG_OBJECT_TYPE, format!("cannot open relation \"{}\"", relation.name), at)
                    .detail("This operation is not supported for indexes."));
            }
            RelKind::Composite => {
                return Err(self
                    .error(SqlState::WRONG_OBJECT_TYPE, format!("cannot open relation \"{}\"", relation.name), at)
                    .detail("This operation is not supported for composite types."));
            }
            RelKind::Foreign => return Err(SqlError::unsupported("a foreign table")),
        }
        self.need(relation.oid, b'r');
        self.relation_item(&relation, r.alias.as_ref(), at)
    }

    /// Notes a privilege the statement needs.
    pub(super) fn need(&mut self, relation: Oid, privilege: u8) {
        // Inside a view its owner's privileges count.
        if self.views.is_empty() && !self.privileges.contains(&(relation, privilege)) {
            self.privileges.push((relation, privilege));
        }
    }

    fn next_rt(&mut self) -> Result<usize, SqlError> {
        Ok(self.scope()?.rtable.len())
    }

    /// Adds a relation (a view as its query) to the range table.
    pub(super) fn relation_item(
        &mut self,
        relation: &Arc<Relation>,
        alias: Option<&Alias>,
        at: i32,
    ) -> Result<(usize, NameItem), SqlError> {
        let mut columns = relation_columns(relation);
        let name = self.alias(alias, &relation.name, &mut columns)?;
        let schema = alias.is_none().then(|| relation.namespace_name.clone());
        let (source, is_table) = match &relation.source {
            Source::View(text) => (RteSource::Subquery(Box::new(self.view(relation, text, at)?)), false),
            Source::File(_) | Source::Virtual(_) | Source::None => (RteSource::Table(relation.clone()), true),
        };
        let rte = Rte { alias: name, source, columns, lateral: false };
        let rt = self.next_rt()?;
        let item = self.item_for(rt, &rte, schema, is_table);
        self.add_rte(rte)?;
        Ok((rt, item))
    }

    /// A view's query, bound apart from the statement's names.
    fn view(&mut self, relation: &Arc<Relation>, text: &str, at: i32) -> Result<Query, SqlError> {
        if self.views.contains(&relation.oid) {
            return Err(self.error(
                SqlState::INVALID_OBJECT_DEFINITION,
                format!("infinite recursion detected in rules for relation \"{}\"", relation.name),
                at,
            ));
        }
        let statements = parse::parse_statements(text)?;
        let Some(NodeEnum::SelectStmt(select)) = statements.first().map(|s| &*s.node) else {
            return Err(SqlError::internal(format!("the definition of view \"{}\" is no query", relation.name)));
        };
        self.views.push(relation.oid);
        let scopes = std::mem::take(&mut self.scopes);
        let query = self.deeper(|b| b.select(select));
        self.scopes = scopes;
        self.views.pop();
        let mut query = query?;
        query.view = Some(Arc::clone(relation));
        // Columns added to a table since do not count; types are as they were.
        let mut columns = relation.columns.iter().filter(|c| !c.dropped);
        for target in query.targets.iter_mut().filter(|t| !t.junk) {
            if let Some(c) = columns.next() {
                target.name = c.name.clone();
            }
        }
        Ok(query)
    }

    fn range_subselect(&mut self, s: &protobuf::RangeSubselect) -> Result<(FromItem, Vec<NameItem>), SqlError> {
        let Some(NodeEnum::SelectStmt(select)) = s.subquery.as_ref().and_then(|n| n.node.as_ref()) else {
            return Err(SqlError::internal("subquery in FROM"));
        };
        // Only LATERAL sees its neighbours.
        let hidden = if s.lateral { Vec::new() } else { std::mem::take(&mut self.scope()?.names) };
        let query = self.at_place(Place::FromFunction, |b| b.select(select));
        if !s.lateral {
            self.scope()?.names = hidden;
        }
        let query = query?;
        let mut columns = output_columns(&query);
        let alias = self.alias(s.alias.as_ref(), "unnamed_subquery", &mut columns)?;
        let named = s.alias.is_some();
        let rte = Rte { alias, source: RteSource::Subquery(Box::new(query)), columns, lateral: s.lateral };
        let rt = self.next_rt()?;
        let mut item = self.item_for(rt, &rte, None, false);
        item.qualified = named;
        self.add_rte(rte)?;
        Ok((FromItem::Rel(rt), vec![item]))
    }

    fn range_function(&mut self, f: &protobuf::RangeFunction) -> Result<(FromItem, Vec<NameItem>), SqlError> {
        let mut calls = Vec::new();
        let mut columns: Vec<RteColumn> = Vec::new();
        let mut default_name = String::new();
        let single = f.functions.len() == 1;
        let alias_name = f.alias.as_ref().map(|a| a.aliasname.clone());
        for node in &f.functions {
            let Some(NodeEnum::List(list)) = &node.node else { return Err(SqlError::internal("function in FROM")) };
            let Some(call) = list.items.first() else { return Err(SqlError::internal("function in FROM")) };
            let definitions: &[Node] = match list.items.get(1).and_then(|n| n.node.as_ref()) {
                Some(NodeEnum::List(d)) if !d.items.is_empty() => &d.items,
                _ => &f.coldeflist,
            };
            let name = super::target::figure_name(call);
            if default_name.is_empty() {
                default_name.clone_from(&name);
            }
            let expr = self.expr_at(call, Place::FromFunction)?;
            let expr = self.settle_unknown(expr)?;
            let before = columns.len();
            if !definitions.is_empty() {
                for d in definitions {
                    let Some(NodeEnum::ColumnDef(d)) = &d.node else { continue };
                    let Some(t) = &d.type_name else { continue };
                    let (ty, typmod) = self.type_name(t)?;
                    columns.push(RteColumn { name: Arc::from(d.colname.as_str()), ty, typmod });
                }
            } else if let Some(shape) = self.record_shape(&expr)? {
                columns.extend(shape.cols.iter().filter(|c| !c.dropped).map(|c| RteColumn {
                    name: c.name.clone(),
                    ty: c.type_oid,
                    typmod: c.typmod,
                }));
            } else if expr.ty == oids::RECORD {
                return Err(self.error(
                    SqlState::SYNTAX_ERROR,
                    "a column definition list is required for functions returning \"record\"",
                    expr.at,
                ));
            } else {
                let column = match &alias_name {
                    Some(a) if single => a.clone(),
                    _ => name,
                };
                columns.push(RteColumn { name: Arc::from(column.as_str()), ty: expr.ty, typmod: expr.typmod });
            }
            calls.push((expr, columns.len() - before));
        }
        if f.ordinality {
            columns.push(RteColumn { name: Arc::from("ordinality"), ty: oids::INT8, typmod: -1 });
        }
        let alias = self.alias(f.alias.as_ref(), &default_name, &mut columns)?;
        let rte = Rte { alias, source: RteSource::Function { calls, ordinality: f.ordinality }, columns, lateral: true };
        let rt = self.next_rt()?;
        let item = self.item_for(rt, &rte, None, false);
        self.add_rte(rte)?;
        Ok((FromItem::Rel(rt), vec![item]))
    }

    fn join_expr(&mut self, j: &protobuf::JoinExpr) -> Result<(FromItem, Vec<NameItem>), SqlError> {
        use protobuf::JoinType;
        let kind = match JoinType::try_from(j.jointype) {
            Ok(JoinType::JoinInner) => JoinKind::Inner,
            Ok(JoinType::JoinLeft) => JoinKind::Left,
            Ok(JoinType::JoinRight) => JoinKind::Right,
            Ok(JoinType::JoinFull) => JoinKind::Full,
            _ => return Err(SqlError::internal("join type")),
        };
        let (Some(left), Some(right)) = (&j.larg, &j.rarg) else { return Err(SqlError::internal("join without sides")) };
        let (left, mut left_names) = self.from_item(left)?;
        // The right side may refer laterally to the left one.
        let before = self.scope()?.names.len();
        self.scope()?.names.extend(left_names.iter().cloned());
        let result = self.from_item(right);
        self.scope()?.names.truncate(before);
        let (right, mut right_names) = result?;
        for item in &right_names {
            if item.qualified
                && item.name.is_some()
                && left_names.iter().any(|i| i.qualified && i.name == item.name && i.schema == item.schema)
            {
                let name = item.name.as_deref().unwrap_or_default();
                return Err(SqlError::new(SqlState::DUPLICATE_ALIAS, format!("table name \"{name}\" specified more than once")));
            }
        }
        let plain =
            |names: &[NameItem]| -> Vec<NameColumn> { names.iter().filter(|i| i.plain).flat_map(|i| i.columns.iter().cloned()).collect() };
        let left_columns = plain(&left_names);
        let right_columns = plain(&right_names);
        let using: Vec<String> = if j.is_natural {
            left_columns.iter().filter(|l| right_columns.iter().any(|r| r.name == l.name)).map(|l| l.name.to_string()).collect()
        } else {
            j.using_clause.iter().filter_map(string_of).map(str::to_owned).collect()
        };
        let mut quals = None;
        let mut merged: Vec<NameColumn> = Vec::new();
        if !using.is_empty() {
            let mut conditions = Vec::new();
            for name in &using {
                let find = |columns: &[NameColumn], side: &str| -> Result<Expr, SqlError> {
                    let mut found = columns.iter().filter(|c| *c.name == **name);
                    match (found.next(), found.next()) {
                        (Some(c), None) => Ok(c.expr.clone()),
                        (None, _) => Err(SqlError::new(
                            SqlState::UNDEFINED_COLUMN,
                            format!("column \"{name}\" specified in USING clause does not exist in {side} table"),
                        )),
                        (Some(_), Some(_)) => Err(SqlError::new(
                            SqlState::AMBIGUOUS_COLUMN,
                            format!("common column name \"{name}\" appears more than once in {side} table"),
                        )),
                    }
                };
                let l = find(&left_columns, "left")?;
                let r = find(&right_columns, "right")?;
                conditions.push(self.operator("=", Some(l.clone()), r.clone(), -1)?);
                let (mut pair, ty) = self.common(vec![l, r], "JOIN/USING")?;
                let (Some(r), Some(l)) = (pair.pop(), pair.pop()) else { return Err(SqlError::internal("USING")) };
                let expr = match kind {
                    JoinKind::Right => r,
                    JoinKind::Full => {
                        let typmod = if l.typmod == r.typmod { l.typmod } else { -1 };
                        Expr::new(ExprKind::Coalesce(vec![l, r]), ty, typmod)
                    }
                    JoinKind::Inner | JoinKind::Left | JoinKind::Semi | JoinKind::Anti => l,
                };
                merged.push(NameColumn { name: Arc::from(name.as_str()), expr });
            }
            quals = Expr::and(conditions);
        } else if let Some(node) = &j.quals {
            // ON sees the two sides, outer queries, and nothing else of this FROM.
            let outside = std::mem::take(&mut self.scope()?.names);
            let mut names = left_names.clone();
            names.extend(right_names.iter().cloned());
            self.scope()?.names = names;
            let result = self.expr_at(node, Place::JoinOn);
            self.scope()?.names = outside;
            let e = result?;
            quals = Some(self.coerce_bool(e, "JOIN/ON")?);
        }
        let item =
            FromItem::Join(Box::new(Join { kind, left, right, quals, using: using.iter().map(|u| Arc::from(u.as_str())).collect() }));
        let join_columns = |merged: Vec<NameColumn>| -> Vec<NameColumn> {
            let mut columns = merged;
            columns.extend(left_columns.iter().chain(&right_columns).filter(|c| !using.iter().any(|u| **u == *c.name)).cloned());
            columns
        };
        if let Some(alias) = &j.alias {
            let mut columns = join_columns(merged);
            for (name, c) in strings_of(&alias.colnames).iter().zip(&mut columns) {
                c.name = Arc::from(*name);
            }
            let name = NameItem {
                name: Some(Arc::from(alias.aliasname.as_str())),
                schema: None,
                columns,
                qualified: true,
                plain: true,
                rt: None,
                is_table: false,
            };
            return Ok((item, vec![name]));
        }
        if using.is_empty() {
            left_names.append(&mut right_names);
            return Ok((item, left_names));
        }
        // Plain names now mean the join's columns; qualified ones the sides'.
        let mut names = vec![];
        if let Some(alias) = &j.join_using_alias {
            names.push(NameItem {
                name: Some(Arc::from(alias.aliasname.as_str())),
                schema: None,
                columns: merged.clone(),
                qualified: true,
                plain: false,
                rt: None,
                is_table: false,
            });
        }
        names.push(NameItem {
            name: None,
            schema: None,
            columns: join_columns(merged),
            qualified: false,
            plain: true,
            rt: None,
            is_table: false,
        });
        for mut n in left_names.into_iter().chain(right_names) {
            n.plain = false;
            names.push(n);
        }
        Ok((item, names))
    }

    /// What a plain table name means if it is a WITH query's.
    fn find_cte(&mut self, name: &str, at: i32) -> Result<Option<(RteSource, Vec<RteColumn>)>, SqlError> {
        let mut found = None;
        for (up, scope) in self.scopes.iter_mut().rev().enumerate() {
            if let Some((working, index)) = &scope.working
                && **working == *name
            {
                let columns = scope.ctes.get(*index).map(|c| c.columns.clone()).unwrap_or_default();
                found = Some((RteSource::Working(up, *index), columns));
                break;
            }
            if let Some(index) = scope.ctes.iter().rposition(|c| !c.hidden && &*c.name == name) {
                if let Some(cte) = scope.ctes.get_mut(index) {
                    cte.references += 1;
                    found = Some((RteSource::Cte(up, index), cte.columns.clone()));
                    if cte.query.command != super::query::Command::Select && cte.columns.is_empty() {
                        return Err(self.error(
                            SqlState::FEATURE_NOT_SUPPORTED,
                            format!("WITH query \"{name}\" does not have a RETURNING clause"),
                            at,
                        ));
                    }
                }
                break;
            }
        }
        Ok(found)
    }
}

/// A relation's columns, dropped ones with type 0.
pub(super) fn relation_columns(relation: &Relation) -> Vec<RteColumn> {
    relation
        .columns
        .iter()
        .map(|c| RteColumn { name: c.name.clone(), ty: if c.dropped { 0 } else { c.type_oid }, typmod: c.typmod })
        .collect()
}

/// What a query returns, as columns.
pub(super) fn output_columns(query: &Query) -> Vec<RteColumn> {
    let targets = if query.command == super::query::Command::Select { &query.targets } else { &query.returning };
    targets.iter().filter(|t| !t.junk).map(|t| RteColumn { name: t.name.clone(), ty: t.expr.ty, typmod: t.expr.typmod }).collect()
}

/// Names for a relation whose row is at hand (defaults, checks): Var(0, attnum).
pub(super) fn stored_names(relation: &Relation) -> NameItem {
    NameItem {
        name: Some(relation.name.clone()),
        schema: Some(relation.namespace_name.clone()),
        columns: columns_of(0, &relation_columns(relation)),
        qualified: true,
        plain: true,
        rt: Some(0),
        is_table: true,
    }
}
