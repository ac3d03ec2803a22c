//! INSERT, UPDATE, DELETE.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{self, Node, OnConflictAction, OverridingKind, SetOperation};

use super::expr::{Expr, ExprKind};
use super::from::{output_columns, relation_columns};
use super::query::{Command, FromItem, Insert, InsertSource, MergeAction, MergeKind, OnConflict, Query, Rte, RteSource};
use super::scope::{Binder, NameItem, Place, Scope, columns_of};
use crate::sql::catalog::{Column, Identity, RelKind, Relation, Source};
use crate::sql::functions::CoercionContext;
use crate::sql::parse;
use crate::sql::plan::predicate::implied;
use crate::sql::types::oids;
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::LockMode;

impl Binder<'_> {
    /// Binds INSERT, UPDATE or DELETE at a new level.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn modify(&mut self, node: &NodeEnum) -> Result<Query, SqlError> {
        self.scopes.push(Scope::default());
        #[expect(clippy::wildcard_enum_match_arm, reason = "other statements do not come here")]
        let result = match node {
            NodeEnum::InsertStmt(s) => self.insert(s),
            NodeEnum::UpdateStmt(s) => self.update(s),
            NodeEnum::DeleteStmt(s) => self.delete(s),
            NodeEnum::MergeStmt(s) => self.merge(s),
            _ => Err(SqlError::internal("not a change")),
        };
        self.scopes.pop();
        result
    }

    fn target(&mut self, r: Option<&protobuf::RangeVar>, verb: &str) -> Result<Arc<Relation>, SqlError> {
        let Some(r) = r else { return Err(SqlError::internal("statement without a target")) };
        let relation = self.open(r, LockMode::RowExclusive)?;
        let refuse = |b: &Self, message: String| Err(b.error(SqlState::WRONG_OBJECT_TYPE, message, -1));
        match relation.kind {
            RelKind::Table => {}
            RelKind::Partitioned => return Err(SqlError::unsupported("changing a partitioned table")),
            RelKind::View => {
                return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("cannot {verb} view \"{}\"", relation.name))
                    .detail("Views are not automatically updatable."));
            }
            RelKind::Sequence => return refuse(self, format!("cannot change sequence \"{}\"", relation.name)),
            RelKind::Toast => return refuse(self, format!("cannot change TOAST relation \"{}\"", relation.name)),
            RelKind::MatView => return refuse(self, format!("cannot change materialized view \"{}\"", relation.name)),
            RelKind::Index | RelKind::PartitionedIndex => return refuse(self, format!("cannot open relation \"{}\"", relation.name)),
            RelKind::Composite => return refuse(self, format!("cannot open relation \"{}\"", relation.name)),
            RelKind::Foreign => return Err(SqlError::unsupported("changing a foreign table")),
        }
        if !matches!(relation.source, Source::File(_)) {
            return Err(self.error(
                SqlState::INSUFFICIENT_PRIVILEGE,
                format!("permission denied: \"{}\" is a system catalog", relation.name),
                -1,
            ));
        }
        Ok(relation)
    }

    /// Adds the target table as range table entry 0.
    fn target_item(&mut self, relation: &Arc<Relation>, alias: Option<&protobuf::Alias>) -> Result<NameItem, SqlError> {
        let columns = relation_columns(relation);
        let name: Arc<str> = alias.map_or_else(|| relation.name.clone(), |a| Arc::from(a.aliasname.as_str()));
        let schema = alias.is_none().then(|| relation.namespace_name.clone());
        let rte = Rte { alias: name, source: RteSource::Table(relation.clone()), columns, lateral: false };
        let rt = self.scope()?.rtable.len();
        let item = self.item_for(rt, &rte, schema, true);
        self.add_rte(rte)?;
        Ok(item)
    }

    fn column<'r>(&self, relation: &'r Relation, name: &str, at: i32) -> Result<&'r Column, SqlError> {
        match relation.column(name) {
            Some(c) => Ok(c),
            None if super::scope::SYSTEM_COLUMNS.iter().any(|(n, ..)| *n == name) => {
                Err(self.error(SqlState::FEATURE_NOT_SUPPORTED, format!("cannot assign to system column \"{name}\""), at))
            }
            None => Err(self.error(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{name}\" of relation \"{}\" does not exist", relation.name),
                at,
            )),
        }
    }

    /// A column's default as an expression; `None` for NULL.
    pub(super) fn default_of(&mut self, column: &Column) -> Result<Option<Expr>, SqlError> {
        if column.generated {
            return Ok(None);
        }
        let Some(text) = &column.default else { return Ok(None) };
        let node = parse::parse_expression(text)?;
        // The stored text has positions of its own.
        self.views.push(0);
        self.scopes.push(Scope { place: Place::Stored("DEFAULT expressions"), ..Scope::default() });
        let result = self.expr(&node).and_then(|e| self.coerce_column(e, &column.name, column.type_oid, column.typmod));
        self.scopes.pop();
        self.views.pop();
        result.map(Some)
    }

    fn insert(&mut self, s: &protobuf::InsertStmt) -> Result<Query, SqlError> {
        if let Some(with) = &s.with_clause {
            self.with_clause(with)?;
        }
        let relation = self.target(s.relation.as_ref(), "insert into")?;
        self.need(relation.oid, b'a');
        let alias = s.relation.as_ref().and_then(|r| r.alias.as_ref());
        let item = self.target_item(&relation, alias)?;
        // Which columns.
        let mut columns: Vec<&Column> = Vec::new();
        let mut places: Vec<i32> = Vec::new();
        let explicit = !s.cols.is_empty();
        if explicit {
            for node in &s.cols {
                let Some(NodeEnum::ResTarget(t)) = &node.node else { continue };
                if !t.indirection.is_empty() {
                    return Err(SqlError::unsupported("INSERT into a part of a column"));
                }
                let c = self.column(&relation, &t.name, t.location)?;
                if columns.iter().any(|x| x.attnum == c.attnum) {
                    return Err(self.error(
                        SqlState::DUPLICATE_COLUMN,
                        format!("column \"{}\" specified more than once", t.name),
                        t.location,
                    ));
                }
                columns.push(c);
                places.push(t.location);
            }
        } else {
            columns = relation.live_columns().collect();
        }
        let overriding = OverridingKind::try_from(s.r#override).unwrap_or(OverridingKind::OverridingNotSet);
        let mut query = Query { command: Command::Insert, result: 0, ..Query::default() };
        let mut defaults: Vec<Option<Expr>> = Vec::with_capacity(relation.columns.len());
        let mut default_cache: Vec<Option<Option<Expr>>> = vec![None; relation.columns.len()];
        let source = match s.select_stmt.as_ref().and_then(|n| n.node.as_ref()) {
            None => {
                // DEFAULT VALUES.
                columns.clear();
                InsertSource::Values(vec![Vec::new()])
            }
            Some(NodeEnum::SelectStmt(select)) if is_plain_values(select) => {
                match self.insert_values(select, &mut columns, explicit.then_some(&*places), overriding, &mut default_cache)? {
                    Some(rows) => InsertSource::Values(rows),
                    None => {
                        let select = self.one_row_as_select(select, &mut columns, explicit.then_some(&mut places))?;
                        self.insert_query(&select, &mut columns, explicit.then_some(&*places), overriding)?
                    }
                }
            }
            Some(NodeEnum::SelectStmt(select)) => self.insert_query(select, &mut columns, explicit.then_some(&*places), overriding)?,
            Some(_) => return Err(SqlError::internal("INSERT source")),
        };
        for c in &relation.columns {
            let given = columns.iter().any(|x| x.attnum == c.attnum);
            if given || c.dropped {
                defaults.push(None);
                continue;
            }
            let index = usize::try_from(c.attnum - 1).unwrap_or(0);
            let d = match default_cache.get(index).cloned().flatten() {
                Some(d) => d,
                None => self.default_of(c)?,
            };
            defaults.push(d);
        }
        let attributes = columns.iter().map(|c| c.attnum).collect();
        // ON CONFLICT and RETURNING see the table.
        self.scope()?.names = vec![item.clone()];
        let on_conflict = match &s.on_conflict_clause {
            Some(c) => Some(self.on_conflict(c, &relation)?),
            None => None,
        };
        self.scope()?.names = vec![item];
        query.insert = Some(Box::new(Insert { source, columns: attributes, defaults, on_conflict }));
        query.returning = self.returning(&s.returning_list)?;
        self.close_scope(&mut query)?;
        Ok(query)
    }

    /// Rows of VALUES for `columns`, which are cut to their width; `None` when a lone row calls a set-returning function, which only a
    /// query can run.
    fn insert_values(
        &mut self,
        select: &protobuf::SelectStmt,
        columns: &mut Vec<&Column>,
        places: Option<&[i32]>,
        overriding: OverridingKind,
        cache: &mut [Option<Option<Expr>>],
    ) -> Result<Option<Vec<Vec<Expr>>>, SqlError> {
        let place = if select.values_lists.len() == 1 { Place::ValuesOfOne } else { Place::Values };
        let mut rows = Vec::with_capacity(select.values_lists.len());
        let mut width = None;
        for list in &select.values_lists {
            let Some(NodeEnum::List(list)) = &list.node else { continue };
            let mut row = Vec::with_capacity(list.items.len());
            if *width.get_or_insert(list.items.len()) != list.items.len() {
                return Err(self.error(SqlState::SYNTAX_ERROR, "VALUES lists must all be the same length", first_location(&list.items)));
            }
            for (i, node) in list.items.iter().enumerate() {
                if self.star(node)?.is_some() {
                    return Err(SqlError::unsupported("row expansion in VALUES"));
                }
                let e = self.expr_at(node, place)?;
                let Some(c) = columns.get(i) else {
                    return Err(self.error(SqlState::SYNTAX_ERROR, "INSERT has more expressions than target columns", e.at));
                };
                if place == Place::ValuesOfOne && e.returns_set() {
                    return Ok(None);
                }
                row.push(self.insert_value(e, c, overriding, cache)?);
            }
            if row.len() < columns.len()
                && let Some(places) = places
            {
                let at = places.get(row.len()).copied().unwrap_or(-1);
                return Err(self.error(SqlState::SYNTAX_ERROR, "INSERT has more target columns than expressions", at));
            }
            rows.push(row);
        }
        columns.truncate(width.unwrap_or(0));
        Ok(Some(rows))
    }

    /// One row of VALUES as the target list of a SELECT. Columns that get DEFAULT leave `columns`: they are filled like those not named.
    fn one_row_as_select(
        &mut self,
        select: &protobuf::SelectStmt,
        columns: &mut Vec<&Column>,
        mut places: Option<&mut Vec<i32>>,
    ) -> Result<protobuf::SelectStmt, SqlError> {
        let Some(NodeEnum::List(list)) = select.values_lists.first().and_then(|n| n.node.as_ref()) else {
            return Err(SqlError::internal("VALUES without a row"));
        };
        if list.items.len() > columns.len() {
            let at = list.items.get(columns.len()..).map_or(-1, first_location);
            return Err(self.error(SqlState::SYNTAX_ERROR, "INSERT has more expressions than target columns", at));
        }
        let mut out = protobuf::SelectStmt {
            op: SetOperation::SetopNone.into(),
            limit_option: protobuf::LimitOption::Default.into(),
            ..protobuf::SelectStmt::default()
        };
        let mut kept = 0;
        for item in &list.items {
            if matches!(item.node, Some(NodeEnum::SetToDefault(_))) {
                columns.remove(kept);
                if let Some(p) = &mut places
                    && kept < p.len()
                {
                    p.remove(kept);
                }
                continue;
            }
            kept += 1;
            let target = protobuf::ResTarget { val: Some(Box::new(item.clone())), location: -1, ..protobuf::ResTarget::default() };
            out.target_list.push(Node { node: Some(NodeEnum::ResTarget(Box::new(target))) });
        }
        Ok(out)
    }

    /// A query's output for `columns`, which are cut to its width.
    fn insert_query(
        &mut self,
        select: &protobuf::SelectStmt,
        columns: &mut Vec<&Column>,
        places: Option<&[i32]>,
        overriding: OverridingKind,
    ) -> Result<InsertSource, SqlError> {
        let mut inner = self.select_with(select, false)?;
        let output = output_columns(&inner);
        if output.len() > columns.len() {
            let at = inner.targets.iter().filter(|t| !t.junk).nth(columns.len()).map_or(-1, |t| t.expr.at);
            return Err(self.error(SqlState::SYNTAX_ERROR, "INSERT has more expressions than target columns", at));
        }
        if output.len() < columns.len()
            && let Some(places) = places
        {
            let at = places.get(output.len()).copied().unwrap_or(-1);
            return Err(self.error(SqlState::SYNTAX_ERROR, "INSERT has more target columns than expressions", at));
        }
        columns.truncate(output.len());
        // Literals take the column's type in place.
        let in_place = inner.set_op.is_none() && matches!(inner.distinct, super::query::Distinct::No);
        for (visible, t) in inner.targets.iter_mut().filter(|t| !t.junk).enumerate() {
            if let Some(c) = columns.get(visible)
                && t.expr.ty == oids::UNKNOWN
            {
                let e = std::mem::replace(&mut t.expr, Expr::null(oids::UNKNOWN));
                t.expr = if in_place { self.coerce_column(e, &c.name, c.type_oid, c.typmod)? } else { self.settle_unknown(e)? };
            }
        }
        let output = output_columns(&inner);
        let mut coercions = Vec::with_capacity(columns.len());
        let locations: Vec<i32> = inner.targets.iter().filter(|t| !t.junk).map(|t| t.expr.at).collect();
        for (i, (o, c)) in output.iter().zip(&*columns).enumerate() {
            let e = Expr::new(ExprKind::Slot(i), o.ty, o.typmod).located(locations.get(i).copied().unwrap_or(-1));
            if c.identity.is_some() && overriding == OverridingKind::OverridingUserValue {
                coercions.push(self.default_of(c)?.unwrap_or_else(|| Expr::null(c.type_oid)));
                continue;
            }
            if c.identity == Some(Identity::Always) && overriding != OverridingKind::OverridingSystemValue {
                return Err(always_identity(c));
            }
            if c.generated {
                return Err(generated_insert(c));
            }
            coercions.push(self.coerce_column(e, &c.name, c.type_oid, c.typmod)?);
        }
        Ok(InsertSource::Query(Box::new(inner), coercions))
    }

    fn insert_value(
        &mut self,
        e: Expr,
        c: &Column,
        overriding: OverridingKind,
        cache: &mut [Option<Option<Expr>>],
    ) -> Result<Expr, SqlError> {
        if matches!(e.kind, ExprKind::Default) {
            let index = usize::try_from(c.attnum - 1).unwrap_or(0);
            let d = match cache.get(index).cloned().flatten() {
                Some(d) => d,
                None => {
                    let d = self.default_of(c)?;
                    if let Some(slot) = cache.get_mut(index) {
                        *slot = Some(d.clone());
                    }
                    d
                }
            };
            return Ok(d.unwrap_or_else(|| Expr::null(c.type_oid)));
        }
        if c.identity.is_some() && overriding == OverridingKind::OverridingUserValue {
            return Ok(self.default_of(c)?.unwrap_or_else(|| Expr::null(c.type_oid)));
        }
        if c.identity == Some(Identity::Always) && overriding != OverridingKind::OverridingSystemValue {
            return Err(always_identity(c));
        }
        if c.generated {
            return Err(generated_insert(c));
        }
        self.coerce_column(e, &c.name, c.type_oid, c.typmod)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    fn on_conflict(&mut self, c: &protobuf::OnConflictClause, relation: &Arc<Relation>) -> Result<OnConflict, SqlError> {
        let update = OnConflictAction::try_from(c.action) == Ok(OnConflictAction::OnconflictUpdate);
        let mut arbiters = Vec::new();
        match &c.infer {
            Some(infer) if !infer.conname.is_empty() => {
                let found = relation.constraints.iter().find(|k| *k.name == *infer.conname).map(|k| k.oid);
                let index = relation.indexes.iter().find(|i| {
                    found.is_some_and(|oid| i.constraint == oid) || (found.is_none() && *i.name == *infer.conname && i.constraint != 0)
                });
                match index {
                    Some(i) => arbiters.push(i.clone()),
                    None => {
                        return Err(self.error(
                            SqlState::UNDEFINED_OBJECT,
                            format!("constraint \"{}\" for table \"{}\" does not exist", infer.conname, relation.name),
                            infer.location,
                        ));
                    }
                }
            }
            Some(infer) => {
                let mut wanted: Vec<i16> = Vec::new();
                let mut expressions = Vec::new();
                for node in &infer.index_elems {
                    let Some(NodeEnum::IndexElem(e)) = &node.node else { continue };
                    if let Some(node) = &e.expr {
                        let e = self.expr_at(node, Place::Where)?;
                        match e.kind {
                            ExprKind::Var(_, att, 0) if att > 0 => wanted.push(att),
                            _ => expressions.push(e),
                        }
                    } else {
                        wanted.push(self.column(relation, &e.name, infer.location)?.attnum);
                    }
                }
                let condition = self.where_clause(&infer.where_clause)?.map(Expr::conjuncts).unwrap_or_default();
                for index in relation.indexes.iter().filter(|i| i.unique && i.valid) {
                    if let Some(text) = &index.predicate {
                        let node = parse::parse_expression(text)?;
                        let predicate = self.stored(&node, Place::Where)?;
                        if !implied(&condition, &predicate) {
                            continue;
                        }
                    }
                    let plain: Vec<i16> = index.keys().iter().filter(|k| k.attnum != 0).map(|k| k.attnum).collect();
                    let computed: Vec<Arc<str>> = index.keys().iter().filter_map(|k| k.expression.clone()).collect();
                    let same =
                        plain.len() == wanted.len() && plain.iter().all(|a| wanted.contains(a)) && computed.len() == expressions.len();
                    if !same {
                        continue;
                    }
                    let mut all = true;
                    for text in &computed {
                        let node = parse::parse_expression(text)?;
                        let e = self.stored(&node, Place::Where)?;
                        all &= expressions.iter().any(|x| x.same(&e));
                    }
                    if all {
                        arbiters.push(index.clone());
                    }
                }
                if arbiters.is_empty() {
                    return Err(self.error(
                        SqlState::INVALID_COLUMN_REFERENCE,
                        "there is no unique or exclusion constraint matching the ON CONFLICT specification",
                        -1,
                    ));
                }
            }
            None if update => {
                return Err(self
                    .error(SqlState::SYNTAX_ERROR, "ON CONFLICT DO UPDATE requires inference specification or constraint name", c.location)
                    .hint("For example, ON CONFLICT (column_name)."));
            }
            None => {}
        }
        let columns = relation_columns(relation);
        let excluded =
            self.add_rte(Rte { alias: Arc::from("excluded"), source: RteSource::Excluded, columns: columns.clone(), lateral: false })?;
        let mut result = OnConflict { arbiters, set: None, quals: None, excluded };
        if update {
            self.need(relation.oid, b'w');
            let item = NameItem {
                name: Some(Arc::from("excluded")),
                schema: None,
                columns: columns_of(excluded, &columns),
                qualified: true,
                plain: false,
                rt: Some(excluded),
                is_table: false,
            };
            // Plain names mean the table; `excluded.x` the proposed row.
            self.scope()?.names.push(item);
            result.set = Some(self.set_clause(&c.target_list, relation, 0)?);
            result.quals = self.where_clause(&c.where_clause)?;
        }
        Ok(result)
    }

    /// Binds a stored expression over the target table; its text has positions of its own.
    fn stored(&mut self, node: &Node, place: Place) -> Result<Expr, SqlError> {
        self.views.push(0);
        let result = self.expr_at(node, place);
        self.views.pop();
        result
    }

    /// SET.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    fn set_clause(&mut self, nodes: &[Node], relation: &Arc<Relation>, rt: usize) -> Result<Vec<(i16, Expr)>, SqlError> {
        let mut out: Vec<(i16, Expr)> = Vec::with_capacity(nodes.len());
        // The source of (a, b) = .. is bound once, at its first column.
        let mut multi: Option<Expr> = None;
        for node in nodes {
            let Some(NodeEnum::ResTarget(t)) = &node.node else { continue };
            let c = self.column(relation, &t.name, t.location)?;
            let Some(value) = &t.val else { continue };
            let e = match &value.node {
                Some(NodeEnum::MultiAssignRef(m)) => {
                    if m.colno == 1 {
                        multi = Some(self.multi_source(m)?);
                    }
                    let Some(source) = &multi else { return Err(SqlError::internal("multiple assignment")) };
                    let i = usize::try_from(m.colno - 1).unwrap_or(0);
                    match &source.kind {
                        ExprKind::Row(items, _) => items.get(i).cloned().ok_or_else(|| SqlError::internal("multiple assignment"))?,
                        _ => {
                            let shape = self.record_shape(source)?.ok_or_else(|| SqlError::internal("multiple assignment"))?;
                            let (ty, typmod) = shape.cols.get(i).map_or((oids::UNKNOWN, -1), |c| (c.type_oid, c.typmod));
                            Expr::new(ExprKind::Field(Box::new(source.clone()), i), ty, typmod)
                        }
                    }
                }
                _ => self.expr_at(value, Place::UpdateSource)?,
            };
            let duplicate = out.iter().position(|(a, _)| *a == c.attnum);
            if !t.indirection.is_empty() {
                let mut indices = Vec::new();
                for step in &t.indirection {
                    match &step.node {
                        Some(NodeEnum::AIndices(i)) => indices.push(&**i),
                        _ => return Err(SqlError::unsupported("assignment to a field of a composite column")),
                    }
                }
                let Some(elem) = crate::sql::types::registry::element_type(c.type_oid) else {
                    return Err(self.error(
                        SqlState::DATATYPE_MISMATCH,
                        format!("cannot subscript type {} because it does not support subscripting", self.type_text(c.type_oid)),
                        t.location,
                    ));
                };
                let (subscripts, slice) = self.subscripts(&indices)?;
                let value = self.coerce_column(e, &c.name, if slice { c.type_oid } else { elem }, c.typmod)?;
                let old = match duplicate.and_then(|d| out.get(d)) {
                    Some((_, before)) => before.clone(),
                    None => Expr::new(ExprKind::Var(rt, c.attnum, 0), c.type_oid, c.typmod),
                };
                let e = Expr::new(ExprKind::AssignElement(Box::new(old), subscripts, slice, Box::new(value)), c.type_oid, c.typmod);
                match duplicate.and_then(|d| out.get_mut(d)) {
                    Some(slot) => slot.1 = e,
                    None => out.push((c.attnum, e)),
                }
                continue;
            }
            if duplicate.is_some() {
                return Err(self.error(SqlState::SYNTAX_ERROR, format!("multiple assignments to same column \"{}\"", t.name), t.location));
            }
            let is_default = matches!(e.kind, ExprKind::Default);
            if c.generated && !is_default {
                return Err(self
                    .error(SqlState("428C9"), format!("column \"{}\" can only be updated to DEFAULT", c.name), -1)
                    .detail(format!("Column \"{}\" is a generated column.", c.name)));
            }
            if c.generated {
                continue;
            }
            if c.identity == Some(Identity::Always) && !is_default {
                return Err(self
                    .error(SqlState("428C9"), format!("column \"{}\" can only be updated to DEFAULT", c.name), -1)
                    .detail(format!("Column \"{}\" is an identity column defined as GENERATED ALWAYS.", c.name)));
            }
            let e = if is_default { self.default_of(c)?.unwrap_or_else(|| Expr::null(c.type_oid)) } else { e };
            if e.returns_set() {
                return Err(self.error(SqlState::FEATURE_NOT_SUPPORTED, "set-returning functions are not allowed in UPDATE", e.at));
            }
            let e = self.coerce_column(e, &c.name, c.type_oid, c.typmod)?;
            out.push((c.attnum, e));
        }
        Ok(out)
    }

    /// The source of `(a, b) = ..`.
    fn multi_source(&mut self, m: &protobuf::MultiAssignRef) -> Result<Expr, SqlError> {
        let Some(source) = &m.source else { return Err(SqlError::internal("multiple assignment")) };
        let count = usize::try_from(m.ncolumns).unwrap_or(0);
        let mismatch = |b: &Self, at: i32| b.error(SqlState::SYNTAX_ERROR, "number of columns does not match number of values", at);
        match &source.node {
            Some(NodeEnum::SubLink(s)) => {
                let Some(NodeEnum::SelectStmt(select)) = s.subselect.as_ref().and_then(|n| n.node.as_ref()) else {
                    return Err(SqlError::internal("multiple assignment"));
                };
                let query = self.at_place(Place::UpdateSource, |b| b.select(select))?;
                let columns: Vec<_> = query.targets.iter().filter(|t| !t.junk).map(|t| (t.expr.ty, t.expr.typmod)).collect();
                if columns.len() != count {
                    return Err(mismatch(self, s.location));
                }
                let desc = crate::executor::code::row_desc(&columns);
                Ok(Expr::new(
                    ExprKind::SubLink(Box::new(super::expr::SubLink { kind: super::expr::SubLinkKind::Row(desc), query })),
                    oids::RECORD,
                    -1,
                )
                .located(s.location))
            }
            Some(NodeEnum::RowExpr(r)) => {
                if r.args.len() != count {
                    return Err(mismatch(self, r.location));
                }
                let items = self.at_place(Place::UpdateSource, |b| b.exprs(&r.args))?;
                let desc = crate::executor::code::row_desc(&items.iter().map(|e| (e.ty, e.typmod)).collect::<Vec<_>>());
                Ok(Expr::new(ExprKind::Row(items, desc), oids::RECORD, -1))
            }
            _ => {
                let e = self.expr_at(source, Place::UpdateSource)?;
                Err(self.error(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "source for a multiple-column UPDATE item must be a sub-SELECT or ROW() expression",
                    e.at,
                ))
            }
        }
    }

    fn returning(&mut self, nodes: &[Node]) -> Result<Vec<super::query::Target>, SqlError> {
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(RteSource::Table(t)) = self.scope()?.rtable.first().map(|r| &r.source) {
            let oid = t.oid;
            self.need(oid, b'r');
        }
        let mut targets = self.target_list(nodes, Place::Returning)?;
        for t in &mut targets {
            let e = std::mem::replace(&mut t.expr, Expr::null(oids::TEXT));
            t.expr = self.settle_unknown(e)?;
        }
        Ok(targets)
    }

    fn update(&mut self, s: &protobuf::UpdateStmt) -> Result<Query, SqlError> {
        if let Some(with) = &s.with_clause {
            self.with_clause(with)?;
        }
        let relation = self.target(s.relation.as_ref(), "update")?;
        self.need(relation.oid, b'w');
        let item = self.target_item(&relation, s.relation.as_ref().and_then(|r| r.alias.as_ref()))?;
        self.scope()?.names.push(item);
        let mut query = Query { command: Command::Update, result: 0, ..Query::default() };
        let mut from = vec![FromItem::Rel(0)];
        from.extend(self.from_list(&s.from_clause)?);
        query.from = from;
        query.quals = self.where_clause(&s.where_clause)?;
        query.assignments = self.set_clause(&s.target_list, &relation, 0)?;
        if query.quals.is_some() || query.assignments.iter().any(|(_, e)| e.any(&|e| matches!(e.kind, ExprKind::Var(0, _, 0)))) {
            self.need(relation.oid, b'r');
        }
        query.returning = self.returning(&s.returning_list)?;
        self.close_scope(&mut query)?;
        Ok(query)
    }

    fn delete(&mut self, s: &protobuf::DeleteStmt) -> Result<Query, SqlError> {
        if let Some(with) = &s.with_clause {
            self.with_clause(with)?;
        }
        let relation = self.target(s.relation.as_ref(), "delete from")?;
        self.need(relation.oid, b'd');
        let item = self.target_item(&relation, s.relation.as_ref().and_then(|r| r.alias.as_ref()))?;
        self.scope()?.names.push(item);
        let mut query = Query { command: Command::Delete, result: 0, ..Query::default() };
        let mut from = vec![FromItem::Rel(0)];
        from.extend(self.from_list(&s.using_clause)?);
        query.from = from;
        query.quals = self.where_clause(&s.where_clause)?;
        if query.quals.is_some() {
            self.need(relation.oid, b'r');
        }
        query.returning = self.returning(&s.returning_list)?;
        self.close_scope(&mut query)?;
        Ok(query)
    }

    /// MERGE: the source joined to the target, and what to do with each row of that.
    fn merge(&mut self, s: &protobuf::MergeStmt) -> Result<Query, SqlError> {
        if let Some(with) = &s.with_clause {
            self.with_clause(with)?;
        }
        if !s.returning_list.is_empty() {
            return Err(SqlError::unsupported("MERGE ... RETURNING"));
        }
        let relation = self.target(s.relation.as_ref(), "merge into")?;
        self.need(relation.oid, b'r');
        let item = self.target_item(&relation, s.relation.as_ref().and_then(|r| r.alias.as_ref()))?;
        let Some(source) = &s.source_relation else { return Err(SqlError::internal("MERGE without a source")) };
        let (source, names) = self.from_item(source)?;
        if let Some(name) = names.iter().filter(|n| n.qualified).find_map(|n| n.name.as_ref().filter(|n| item.name.as_ref() == Some(n))) {
            return Err(SqlError::new(SqlState::DUPLICATE_ALIAS, format!("name \"{name}\" specified more than once"))
                .detail("The name is used both as MERGE target table and data source."));
        }
        self.scope()?.names = names.clone();
        self.scope()?.names.insert(0, item);
        let both = self.scope()?.names.clone();
        let quals = match s.join_condition.as_deref() {
            Some(node) => {
                let e = self.expr_at(node, Place::JoinOn)?;
                Some(self.coerce_bool(e, "JOIN/ON")?)
            }
            None => None,
        };
        let mut query = Query { command: Command::Merge, result: 0, ..Query::default() };
        let mut always = [false; 2];
        for node in &s.merge_when_clauses {
            let Some(NodeEnum::MergeWhenClause(when)) = &node.node else { continue };
            let matched = match when.match_kind() {
                protobuf::MergeMatchKind::MergeWhenMatched => true,
                protobuf::MergeMatchKind::MergeWhenNotMatchedByTarget | protobuf::MergeMatchKind::Undefined => false,
                protobuf::MergeMatchKind::MergeWhenNotMatchedBySource => {
                    return Err(SqlError::unsupported("WHEN NOT MATCHED BY SOURCE"));
                }
            };
            if always[usize::from(matched)] {
                let message = "unreachable WHEN clause specified after unconditional WHEN clause";
                return Err(SqlError::new(SqlState::SYNTAX_ERROR, message));
            }
            always[usize::from(matched)] |= when.condition.is_none();
            // What is not matched has no row of the target to speak of.
            self.scope()?.names = if matched { both.clone() } else { names.clone() };
            let condition = match when.condition.as_deref() {
                Some(node) => {
                    let e = self.expr_at(node, Place::Where)?;
                    Some(self.coerce_bool(e, "WHEN")?)
                }
                None => None,
            };
            let kind = match when.command_type() {
                protobuf::CmdType::CmdUpdate => {
                    self.need(relation.oid, b'w');
                    MergeKind::Update(self.set_clause(&when.target_list, &relation, 0)?)
                }
                protobuf::CmdType::CmdDelete => {
                    self.need(relation.oid, b'd');
                    MergeKind::Delete
                }
                protobuf::CmdType::CmdInsert => {
                    self.need(relation.oid, b'a');
                    MergeKind::Insert(self.merge_insert(when, &relation)?)
                }
                protobuf::CmdType::CmdNothing
                | protobuf::CmdType::Undefined
                | protobuf::CmdType::CmdUnknown
                | protobuf::CmdType::CmdSelect
                | protobuf::CmdType::CmdMerge
                | protobuf::CmdType::CmdUtility => MergeKind::Nothing,
            };
            query.merge.push(MergeAction { matched, condition, kind });
        }
        self.scope()?.names = both;
        let inserts = query.merge.iter().any(|a| !a.matched && !matches!(a.kind, MergeKind::Nothing));
        let kind = if inserts { super::query::JoinKind::Left } else { super::query::JoinKind::Inner };
        let join = super::query::Join { kind, left: source, right: FromItem::Rel(0), quals, using: Vec::new() };
        query.from = vec![FromItem::Join(Box::new(join))];
        self.close_scope(&mut query)?;
        Ok(query)
    }

    /// WHEN NOT MATCHED THEN INSERT: a value per attribute.
    fn merge_insert(&mut self, when: &protobuf::MergeWhenClause, relation: &Arc<Relation>) -> Result<Vec<Option<Expr>>, SqlError> {
        let overriding = OverridingKind::try_from(when.r#override).unwrap_or(OverridingKind::OverridingNotSet);
        let mut columns: Vec<(&Column, i32)> = Vec::new();
        for node in &when.target_list {
            let Some(NodeEnum::ResTarget(t)) = &node.node else { continue };
            let c = self.column(relation, &t.name, t.location)?;
            if columns.iter().any(|(x, _)| x.attnum == c.attnum) {
                let message = format!("column \"{}\" specified more than once", t.name);
                return Err(self.error(SqlState::DUPLICATE_COLUMN, message, t.location));
            }
            columns.push((c, t.location));
        }
        let explicit = !columns.is_empty();
        if !explicit {
            columns = relation.live_columns().map(|c| (c, -1)).collect();
        }
        let mut cache: Vec<Option<Option<Expr>>> = vec![None; relation.columns.len()];
        let mut given: Vec<(i16, Expr)> = Vec::new();
        for (i, node) in when.values.iter().enumerate() {
            let e = self.expr_at(node, Place::ValuesOfOne)?;
            let Some((c, _)) = columns.get(i) else {
                return Err(self.error(SqlState::SYNTAX_ERROR, "INSERT has more expressions than target columns", e.at));
            };
            given.push((c.attnum, self.insert_value(e, c, overriding, &mut cache)?));
        }
        if explicit
            && !given.is_empty()
            && let Some((_, at)) = columns.get(given.len())
        {
            return Err(self.error(SqlState::SYNTAX_ERROR, "INSERT has more target columns than expressions", *at));
        }
        let mut out = Vec::with_capacity(relation.columns.len());
        for c in &relation.columns {
            out.push(match given.iter().find(|(att, _)| *att == c.attnum) {
                Some((_, e)) => Some(e.clone()),
                None if c.dropped => None,
                None => self.default_of(c)?,
            });
        }
        Ok(out)
    }

    /// Binds a trigger's WHEN: `old` is range table entry 0, `new` is 1.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn trigger_condition(&mut self, node: &Node, relation: &Relation) -> Result<Expr, SqlError> {
        let columns = relation_columns(relation);
        let mut scope = Scope { place: Place::Stored("trigger WHEN conditions"), ..Scope::default() };
        for (rt, name) in ["old", "new"].into_iter().enumerate() {
            scope.rtable.push(Rte { alias: Arc::from(name), source: RteSource::None, columns: columns.clone(), lateral: false });
            scope.names.push(NameItem {
                name: Some(Arc::from(name)),
                schema: None,
                columns: columns_of(rt, &columns),
                qualified: true,
                plain: false,
                rt: Some(rt),
                is_table: true,
            });
        }
        self.scopes.push(scope);
        let result = self.expr(node).and_then(|e| self.coerce_bool(e, "WHEN"));
        self.scopes.pop();
        result
    }

    /// Binds an expression over one relation's columns, as defaults, checks and indexes store them.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn table_expr(
        &mut self,
        node: &Node,
        relation: Option<&Relation>,
        target: Option<(u32, i32)>,
        what: &'static str,
    ) -> Result<Expr, SqlError> {
        let mut scope = Scope { place: Place::Stored(what), ..Scope::default() };
        if let Some(r) = relation {
            scope.names.push(super::from::stored_names(r));
            scope.rtable.push(Rte { alias: r.name.clone(), source: RteSource::None, columns: relation_columns(r), lateral: false });
        }
        self.scopes.push(scope);
        let result = self.expr(node).and_then(|e| match target {
            Some((ty, typmod)) => {
                let (source, at) = (e.ty, e.at);
                match self.try_coerce(e, ty, typmod, CoercionContext::Assignment)? {
                    Some(e) => Ok(e),
                    None => Err(self
                        .error(
                            SqlState::DATATYPE_MISMATCH,
                            format!(
                                "{} is of type {} but expression is of type {}",
                                if what == "DEFAULT expressions" { "column" } else { what },
                                self.type_text(ty),
                                self.type_text(source)
                            ),
                            at,
                        )
                        .hint("You will need to rewrite or cast the expression.")),
                }
            }
            None => self.settle_unknown(e),
        });
        self.scopes.pop();
        result
    }
}

fn is_plain_values(s: &protobuf::SelectStmt) -> bool {
    !s.values_lists.is_empty()
        && s.sort_clause.is_empty()
        && s.limit_count.is_none()
        && s.limit_offset.is_none()
        && s.with_clause.is_none()
        && s.locking_clause.is_empty()
}

fn first_location(nodes: &[Node]) -> i32 {
    nodes
        .iter()
        .find_map(|n| match &n.node {
            Some(NodeEnum::AConst(c)) => Some(c.location),
            Some(NodeEnum::ColumnRef(c)) => Some(c.location),
            Some(NodeEnum::FuncCall(c)) => Some(c.location),
            _ => None,
        })
        .unwrap_or(-1)
}

fn always_identity(c: &Column) -> SqlError {
    SqlError::new(SqlState("428C9"), format!("cannot insert a non-DEFAULT value into column \"{}\"", c.name))
        .detail(format!("Column \"{}\" is an identity column defined as GENERATED ALWAYS.", c.name))
        .hint("Use OVERRIDING SYSTEM VALUE to override.")
}

fn generated_insert(c: &Column) -> SqlError {
    SqlError::new(SqlState("428C9"), format!("cannot insert a non-DEFAULT value into column \"{}\"", c.name))
        .detail(format!("Column \"{}\" is a generated column.", c.name))
}
