//! INSERT, UPDATE, DELETE.

use std::sync::Arc;

use super::create::Wanted;
use super::path::cost;
use super::planner::{Built, Deps, Layout, Planner};
use crate::executor::code::Code;
use crate::executor::plan::{
    Command, ConflictUpdate, IndexSource, IndexWriter, MergeDo, MergeStep, Modify, NodeText, OnConflict, PlanOp, RelationUse, TableWriter,
    TriggerWriter,
};
use crate::sql::bind::expr::{Expr, ExprKind};
use crate::sql::bind::query::{self, InsertSource, MergeKind, Query, RteSource};
use crate::sql::catalog::Relation;
use crate::sql::catalog::relation::Trigger;
use crate::sql::types::key::KeyOrder;
use crate::sql::types::oids;
use crate::sqlstate::SqlError;

fn index_of(att: i16) -> Option<usize> {
    usize::try_from(att).ok().and_then(|a| a.checked_sub(1))
}

impl Planner<'_> {
    fn target(&self, q: &Query) -> Result<Arc<Relation>, SqlError> {
        match q.rtable.get(q.result).map(|r| &r.source) {
            Some(RteSource::Table(t)) => Ok(t.clone()),
            _ => Err(SqlError::internal("no target table")),
        }
    }

    /// Notes that a table is changed, and where its large values are. They have a lock of their own, so that their index can be made anew while
    /// nobody stores any.
    fn changes(&mut self, relation: &Relation) {
        self.uses(relation.oid, RelationUse::Change);
        if let Some(toast) = &relation.toast {
            self.uses(toast.table.oid, RelationUse::Change);
        }
    }

    /// Where a row of the target is in a row made of attributes and system columns, as [`Modify::system_columns`] has them.
    fn row_layout(relation: &Relation, rt: usize, from: usize) -> Layout {
        let count = relation.columns.len();
        let system = Modify::SYSTEM_COLUMNS;
        let mut layout = Layout { width: count + system.len(), ..Layout::default() };
        for i in 0..count {
            layout.vars.insert((rt, i16::try_from(i + 1).unwrap_or(i16::MAX)), from + i);
        }
        for (i, att) in system.into_iter().enumerate() {
            layout.vars.insert((rt, att), from + count + i);
        }
        layout
    }

    /// Whether an expression shows xmin or its kin of a row of `rt`.
    fn shows_xids<'e>(rt: usize, mut exprs: impl Iterator<Item = &'e Expr>) -> bool {
        exprs.any(|e| {
            let mut found = false;
            e.visit_vars(0, &mut |r, att| found |= r == rt && (-5..=-2).contains(&att));
            found
        })
    }

    /// What is needed to change a table.
    ///
    /// # Errors
    /// A stored expression cannot be bound.
    pub fn table_writer(&mut self, relation: &Arc<Relation>) -> Result<TableWriter, SqlError> {
        let layout = Self::row_layout(relation, 0, 0);
        let mut deps = Deps::new();
        let mut code = |p: &mut Self, text: &str, target: Option<(u32, i32)>, what: &'static str| -> Result<(Code, Expr), SqlError> {
            let node = crate::sql::parse::parse_expression(text)?;
            let mut b = crate::sql::bind::Binder::new(p.session, text, Vec::new(), false);
            let e = b.table_expr(&node, Some(relation), target, what)?;
            Ok((p.compile(&e, &layout, &mut deps)?, e))
        };
        let mut checks = Vec::with_capacity(relation.checks.len());
        for c in &relation.checks {
            checks.push((c.name.clone(), code(self, &c.expression, None, "check constraints")?.0));
        }
        let mut generated = Vec::new();
        for c in relation.live_columns().filter(|c| c.generated) {
            if let (Some(text), Some(i)) = (&c.default, index_of(c.attnum)) {
                generated.push((i, code(self, text, Some((c.type_oid, c.typmod)), "column generation expressions")?.0));
            }
        }
        let mut indexes = Vec::with_capacity(relation.indexes.len());
        let mut coming = Vec::new();
        for index in &relation.indexes {
            let mut columns = Vec::with_capacity(index.columns.len());
            let mut attributes = Vec::new();
            for c in &index.columns {
                match (&c.expression, index_of(c.attnum)) {
                    (None, Some(i)) => {
                        attributes.push(i);
                        columns.push(IndexSource::Attribute(i));
                    }
                    (Some(text), _) => {
                        let (code, e) = code(self, text, None, "index expressions")?;
                        e.visit_vars(0, &mut |_, att| attributes.extend(index_of(att)));
                        columns.push(IndexSource::Expression(code));
                    }
                    (None, None) => return Err(SqlError::internal(format!("index \"{}\" has a column of nothing", index.name))),
                }
            }
            let predicate = match &index.predicate {
                Some(text) => {
                    let (code, e) = code(self, text, None, "index predicates")?;
                    e.visit_vars(0, &mut |_, att| attributes.extend(index_of(att)));
                    Some(code)
                }
                None => None,
            };
            attributes.sort_unstable();
            attributes.dedup();
            if !index.ready {
                coming.extend(attributes);
                continue;
            }
            let orders = index.columns.iter().map(|k| KeyOrder { desc: k.desc, nulls_first: k.nulls_first }).collect();
            indexes.push(IndexWriter { index: index.clone(), columns, orders, predicate, attributes });
        }
        let mut key_attributes: Vec<usize> = relation
            .indexes
            .iter()
            .filter(|i| i.unique && i.predicate.is_none() && i.immediate)
            .flat_map(|i| i.keys().iter().filter_map(|k| index_of(k.attnum)))
            .collect();
        key_attributes.sort_unstable();
        key_attributes.dedup();
        let mut triggers = Vec::with_capacity(relation.triggers.len());
        for trigger in &relation.triggers {
            let Some(made) = self.session.catalog.function(trigger.function)? else { continue };
            let condition = match &trigger.condition {
                Some(text) => {
                    let node = crate::sql::parse::parse_expression(text)?;
                    let e = crate::sql::bind::Binder::new(self.session, text, Vec::new(), false).trigger_condition(&node, relation)?;
                    let mut layout = Self::row_layout(relation, 0, 0);
                    let width = relation.columns.len();
                    layout.width = 2 * width;
                    layout.vars.retain(|(_, att), _| *att > 0);
                    for i in 0..width {
                        layout.vars.insert((1, i16::try_from(i + 1).unwrap_or(i16::MAX)), width + i);
                    }
                    Some(self.compile(&e, &layout, &mut deps)?)
                }
                None => None,
            };
            triggers.push(TriggerWriter { trigger: trigger.clone(), func: made.entry, condition });
        }
        Ok(TableWriter {
            triggers,
            relation: relation.clone(),
            desc: relation.desc.clone(),
            not_null: relation.live_columns().filter(|c| c.not_null).filter_map(|c| index_of(c.attnum)).collect(),
            checks,
            generated,
            indexes,
            coming,
            key_attributes,
        })
    }

    fn returning(&mut self, q: &Query, relation: &Relation, input: &Layout, deps: &mut Deps) -> Result<Option<Box<[Code]>>, SqlError> {
        if q.returning.is_empty() {
            return Ok(None);
        }
        let mut layout = Self::row_layout(relation, q.result, 0);
        let behind = layout.width;
        for ((rt, att), column) in &input.vars {
            layout.vars.entry((*rt, *att)).or_insert(behind + column);
        }
        layout.width += input.width;
        let exprs: Vec<Expr> = q.returning.iter().filter(|t| !t.junk).map(|t| t.expr.clone()).collect();
        if exprs.iter().any(Expr::returns_set) {
            return Err(SqlError::new(
                crate::sqlstate::SqlState::FEATURE_NOT_SUPPORTED,
                "set-returning functions are not allowed in RETURNING",
            ));
        }
        self.codes(&exprs, &layout, deps).map(Some)
    }

    /// Plans INSERT.
    ///
    /// # Errors
    /// As [`super::plan`].
    pub fn insert(&mut self, q: &Query) -> Result<Built, SqlError> {
        let relation = self.target(q)?;
        self.changes(&relation);
        let Some(insert) = &q.insert else { return Err(SqlError::internal("INSERT without rows")) };
        let width = relation.columns.len();
        let mut deps = Deps::new();
        let none = Layout::default();
        let mut defaults: Vec<Code> = Vec::with_capacity(width);
        for d in &insert.defaults {
            defaults.push(match d {
                Some(e) => self.compile(e, &none, &mut deps)?,
                None => Code::Const(crate::sql::types::Datum::Null),
            });
        }
        let child = match &insert.source {
            InsertSource::Values(rows) => {
                let mut lists = Vec::with_capacity(rows.len());
                for row in rows {
                    let mut list = defaults.clone();
                    for (att, e) in insert.columns.iter().zip(row) {
                        if let Some(slot) = index_of(*att).and_then(|i| list.get_mut(i)) {
                            *slot = self.compile(e, &none, &mut deps)?;
                        }
                    }
                    lists.push(list.into_boxed_slice());
                }
                #[expect(clippy::cast_precision_loss, reason = "a cost")]
                let rows = lists.len() as f64;
                if lists.len() == 1
                    && let Some(exprs) = lists.pop()
                {
                    let mut node = self.node(PlanOp::Result { exprs, condition: None }, width, 1.0, (0.0, 0.01), &deps);
                    self.describe(&mut node, |_| NodeText { node_type: "Result".into(), ..NodeText::default() });
                    node
                } else {
                    let mut node = self.node(PlanOp::Values(lists), width, rows, (0.0, rows * cost::TUPLE), &deps);
                    self.describe(&mut node, |_| NodeText {
                        node_type: "Values Scan".into(),
                        alias: Some("*VALUES*".into()),
                        ..NodeText::default()
                    });
                    node
                }
            }
            InsertSource::Query(inner, coercions) => {
                let before = self.level()?.requests.len();
                let built = self.query(inner, None)?;
                let requests = self.take_requests(before)?;
                if !requests.is_empty() {
                    return Err(SqlError::internal("INSERT source refers to its target"));
                }
                deps.extend(&built.deps);
                let layout = Layout { width: built.node.width, ..Layout::default() };
                let mut list = defaults;
                for (att, e) in insert.columns.iter().zip(coercions) {
                    if let Some(slot) = index_of(*att).and_then(|i| list.get_mut(i)) {
                        *slot = self.compile(e, &layout, &mut deps)?;
                    }
                }
                let (rows, costs) = (built.node.rows, (built.node.startup_cost, built.node.total_cost));
                self.node(PlanOp::Project(Arc::new(built.node), list.into()), width, rows, costs, &deps)
            }
        };
        let writer = self.table_writer(&relation)?;
        let on_conflict = match &insert.on_conflict {
            None => None,
            Some(c) => {
                let arbiters = c.arbiters.iter().filter_map(|i| writer.indexes.iter().position(|w| w.index.oid == i.oid)).collect();
                let mut layout = Self::row_layout(&relation, q.result, 0);
                let behind = layout.width;
                for i in 0..width {
                    layout.vars.insert((c.excluded, i16::try_from(i + 1).unwrap_or(i16::MAX)), behind + i);
                }
                layout.width += width;
                let update = match &c.set {
                    None => None,
                    Some(list) => {
                        let mut set = Vec::with_capacity(list.len());
                        for (att, e) in list {
                            let i = index_of(*att).ok_or_else(|| SqlError::internal("attribute"))?;
                            set.push((i, self.compile(e, &layout, &mut deps)?));
                        }
                        let condition = match &c.quals {
                            Some(e) => Some(self.compile(e, &layout, &mut deps)?),
                            None => None,
                        };
                        Some(ConflictUpdate { set, condition })
                    }
                };
                Some(Box::new(OnConflict { arbiters, update }))
            }
        };
        let returning = self.returning(q, &relation, &Layout::default(), &mut deps)?;
        let conflict = insert.on_conflict.iter().flat_map(|c| c.set.iter().flatten().map(|(_, e)| e).chain(&c.quals));
        let shows_xids = Self::shows_xids(q.result, q.returning.iter().map(|t| &t.expr).chain(conflict));
        let (rows, costs) = (child.rows, (child.startup_cost, child.total_cost));
        let out = returning.as_ref().map_or(0, |r| r.len());
        let name = relation.name.to_string();
        let conflict = on_conflict.as_ref().map(|c| if c.update.is_some() { "UPDATE" } else { "NOTHING" });
        let op = PlanOp::Modify(Box::new(Modify {
            command: Command::Insert,
            table: Arc::new(writer),
            child: Arc::new(child),
            tid: 0,
            old_values: false,
            assigned: Box::new([]),
            scan_id: usize::MAX,
            companions: Box::new([]),
            returning,
            on_conflict,
            merge: Vec::new(),
            foreign: crate::executor::referential::concerns(&relation),
            input_width: width,
            shows_xids,
        }));
        let mut node = self.node(op, out, if out == 0 { 1.0 } else { rows }, costs, &deps);
        if out == 0 {
            node.rows = 0.0;
        }
        let schema = relation.namespace_name.to_string();
        let alias = q.rtable.get(q.result).map(|r| r.alias.to_string());
        self.describe(&mut node, |_| {
            let mut text =
                NodeText { node_type: "Insert".into(), relation: Some(name), schema: Some(schema), alias, ..NodeText::default() };
            if let Some(c) = conflict {
                text.props.push(super::planner::prop("Conflict Resolution", c.to_owned()));
            }
            text
        });
        Ok(Built { node, layout: Layout { width: out, ..Layout::default() }, deps, order: Vec::new() })
    }

    /// Plans UPDATE, DELETE and MERGE.
    ///
    /// # Errors
    /// As [`super::plan`].
    pub fn update_or_delete(&mut self, q: &Query) -> Result<Built, SqlError> {
        let relation = self.target(q)?;
        self.changes(&relation);
        let merge = q.command == query::Command::Merge;
        let update = q.command == query::Command::Update || merge;
        let rt = q.result;
        let count = relation.columns.len();
        let mut wanted = Wanted::of(q);
        wanted.add(rt, -1);
        let old_values = update
            || !q.returning.is_empty()
            || !relation.referenced_by.is_empty()
            || relation.triggers.iter().any(|t| t.kind & Trigger::ROW != 0 && t.kind & Trigger::DELETE != 0);
        if old_values {
            for c in relation.live_columns() {
                wanted.add(rt, c.attnum);
            }
        }
        // The other tables' rows are found again by their tids in a re-check.
        let others: Vec<usize> = (0..q.rtable.len()).filter(|r| *r != rt && super::path::is_table(q, *r)).collect();
        for r in &others {
            if matches!(q.rtable.get(*r).map(|r| &r.source), Some(RteSource::Table(t)) if t.file().is_some()) {
                wanted.add(*r, -1);
            }
        }
        // As PostgreSQL has it: new values, the row's place, what MERGE's actions read, the other rows' places.
        let mut shown: Vec<Expr> = q.assignments.iter().map(|(_, e)| e.clone()).collect();
        let place = |r: usize| Expr::new(ExprKind::Var(r, -1, 0), oids::TID, -1);
        shown.push(place(rt));
        for e in q.merge.iter().flat_map(query::MergeAction::exprs) {
            e.visit_vars(0, &mut |r, att| {
                let var = Expr::new(ExprKind::Var(r, att, 0), oids::TID, -1);
                if r != rt && !shown.iter().any(|s| s.same(&var)) {
                    shown.push(var);
                }
            });
        }
        shown.extend(others.iter().filter(|r| wanted.columns.get(r).is_some_and(|c| c.contains(&-1))).map(|r| place(*r)));
        self.mention(q, &shown);
        let (built, _) = self.from_where(q, &wanted, &[], None)?;
        let scan_id = self.level()?.scan_ids.get(&rt).copied().unwrap_or(usize::MAX);
        let mut companions = Vec::new();
        let mut exprs: Vec<Expr> = Vec::new();
        let mut input = Layout::default();
        if old_values {
            for i in 0..count {
                let att = i16::try_from(i + 1).unwrap_or(i16::MAX);
                exprs.push(match relation.columns.get(i) {
                    Some(c) if !c.dropped => {
                        input.vars.insert((rt, att), i);
                        Expr::new(ExprKind::Var(rt, att, 0), c.type_oid, c.typmod)
                    }
                    _ => Expr::null(oids::INT4),
                });
            }
        }
        let tid = exprs.len();
        exprs.push(Expr::new(ExprKind::Var(rt, -1, 0), oids::TID, -1));
        let mut assigned = Vec::with_capacity(q.assignments.len());
        for (att, e) in &q.assignments {
            let i = index_of(*att).ok_or_else(|| SqlError::internal("attribute"))?;
            assigned.push((i, exprs.len()));
            exprs.push(e.clone());
        }
        for r in others {
            let Some(id) = self.level()?.scan_ids.get(&r).copied() else { continue };
            if built.layout.vars.contains_key(&(r, -1)) {
                companions.push((id, exprs.len()));
                exprs.push(Expr::new(ExprKind::Var(r, -1, 0), oids::TID, -1));
            }
        }
        if merge {
            input.vars.insert((rt, -1), tid);
        }
        // Other tables' columns that RETURNING shows, or actions read.
        for e in q.returning.iter().map(|t| &t.expr).chain(q.merge.iter().flat_map(query::MergeAction::exprs)) {
            let mut more: Vec<(usize, i16)> = Vec::new();
            e.visit_vars(0, &mut |r, att| {
                if (r != rt || merge && att < 0) && !more.contains(&(r, att)) {
                    more.push((r, att));
                }
            });
            for (r, att) in more {
                if input.vars.contains_key(&(r, att)) {
                    continue;
                }
                let c = index_of(att).and_then(|i| q.rtable.get(r).and_then(|rte| rte.columns.get(i)));
                let system = match att {
                    -1 => oids::TID,
                    -2 | -4 => oids::XID,
                    -3 | -5 => oids::CID,
                    _ => oids::OID,
                };
                let (ty, typmod) = c.map_or((system, -1), |c| (c.ty, c.typmod));
                input.vars.insert((r, att), exprs.len());
                exprs.push(Expr::new(ExprKind::Var(r, att, 0), ty, typmod));
            }
        }
        let mut built = self.project(built, &exprs)?;
        self.set_output(&mut built.node, &shown);
        input.width = exprs.len();
        let mut deps = built.deps.clone();
        let writer = self.table_writer(&relation)?;
        let returning = self.returning(q, &relation, &input, &mut deps)?;
        let mut steps = Vec::with_capacity(q.merge.len());
        for action in &q.merge {
            let condition = match &action.condition {
                Some(e) => Some(self.compile(e, &input, &mut deps)?),
                None => None,
            };
            let kind = match &action.kind {
                MergeKind::Nothing => MergeDo::Nothing,
                MergeKind::Delete => MergeDo::Delete,
                MergeKind::Update(set) => {
                    let mut codes = Vec::with_capacity(set.len());
                    for (att, e) in set {
                        let i = index_of(*att).ok_or_else(|| SqlError::internal("attribute"))?;
                        codes.push((i, self.compile(e, &input, &mut deps)?));
                    }
                    MergeDo::Update(codes)
                }
                MergeKind::Insert(values) => {
                    let mut codes = Vec::with_capacity(values.len());
                    for e in values {
                        codes.push(match e {
                            Some(e) => self.compile(e, &input, &mut deps)?,
                            None => Code::Const(crate::sql::types::Datum::Null),
                        });
                    }
                    MergeDo::Insert(codes)
                }
            };
            steps.push(MergeStep { matched: action.matched, condition, kind });
        }
        let out = returning.as_ref().map_or(0, |r| r.len());
        let child = built.node;
        let (rows, costs) = (child.rows, (child.startup_cost, child.total_cost));
        let name = relation.name.to_string();
        let command = match q.command {
            query::Command::Merge => Command::Merge,
            query::Command::Update => Command::Update,
            query::Command::Delete | query::Command::Insert | query::Command::Select => Command::Delete,
        };
        let op = PlanOp::Modify(Box::new(Modify {
            command,
            table: Arc::new(writer),
            child: Arc::new(child),
            tid,
            old_values,
            assigned: assigned.into(),
            scan_id,
            companions: companions.into(),
            returning,
            on_conflict: None,
            merge: steps,
            foreign: crate::executor::referential::concerns(&relation),
            input_width: exprs.len(),
            shows_xids: Self::shows_xids(rt, q.returning.iter().map(|t| &t.expr)),
        }));
        let mut node = self.node(op, out, rows, costs, &deps);
        if out == 0 {
            node.rows = 0.0;
        }
        let schema = relation.namespace_name.to_string();
        let alias = q.rtable.get(rt).map(|r| r.alias.to_string());
        self.describe(&mut node, |_| NodeText {
            node_type: match command {
                Command::Merge => "Merge",
                Command::Update => "Update",
                Command::Delete | Command::Insert | Command::Select => "Delete",
            }
            .into(),
            relation: Some(name),
            schema: Some(schema),
            alias,
            ..NodeText::default()
        });
        Ok(Built { node, layout: Layout { width: out, ..Layout::default() }, deps, order: Vec::new() })
    }
}
