//! What stands above FROM and WHERE: aggregation, windows, sets, DISTINCT, ORDER BY, row locks, LIMIT.

use std::sync::Arc;

use super::create::Wanted;
use super::path::{OrderKey, cost, rels_of};
use super::planner::{Built, Deps, Layout, Planner, prop};
use super::selectivity::{column_of, distinct_values, strip};
use crate::executor::code::Code;
use crate::executor::plan::{
    self, AggCall, AggStrategy, Aggregate, JoinKind, Limit, LockMark, NodeText, PlanOp, RelationUse, SetItem, SortColumn, TextValue,
    WindowAgg, WindowBody, WindowCall,
};
use crate::sql::bind::expr::{CallExpr, Expr, ExprKind};
use crate::sql::bind::query::{Distinct, FrameEdge, FromItem, Query, RteSource, SortKey};
use crate::sql::functions::{CallTypes, CoercionContext, ProcBody, coercion, resolve_operator};
use crate::sql::types::{Datum, oids};
use crate::sqlstate::SqlError;

/// What has one value in all rows of FROM and WHERE, as conditions that hold for all of them say: `= constant`, or equal to what has one.
/// PostgreSQL: equivalence classes with a constant in them.
fn fixed(q: &Query) -> Vec<Expr> {
    fn conditions<'q>(item: &'q FromItem, out: &mut Vec<&'q Expr>) {
        let FromItem::Join(j) = item else { return };
        let (left, right) = match j.kind {
            JoinKind::Inner | JoinKind::Semi => (true, true),
            JoinKind::Left | JoinKind::Anti => (true, false),
            JoinKind::Right => (false, true),
            JoinKind::Full => (false, false),
        };
        if left && right {
            out.extend(&j.quals);
        }
        if left {
            conditions(&j.left, out);
        }
        if right {
            conditions(&j.right, out);
        }
    }
    let mut all: Vec<&Expr> = q.quals.iter().collect();
    for item in &q.from {
        conditions(item, &mut all);
    }
    let mut equalities: Vec<(Expr, Expr)> = Vec::new();
    for e in all.into_iter().cloned().flat_map(Expr::conjuncts) {
        if let ExprKind::Call(c) = &e.kind
            && c.oper.is_some_and(|o| o.can_merge)
            && let [a, b] = c.args.as_slice()
            && !a.is_volatile()
            && !b.is_volatile()
        {
            equalities.push((strip(a).clone(), strip(b).clone()));
        }
    }
    let mut found: Vec<Expr> = Vec::new();
    loop {
        let before = equalities.len();
        equalities.retain(|(a, b)| {
            let known = |e: &Expr| rels_of(e).is_empty() || found.iter().any(|f| f.same(e));
            let (a_known, b_known) = (known(a), known(b));
            if a_known && !b_known {
                found.push(b.clone());
            } else if b_known && !a_known {
                found.push(a.clone());
            }
            !(a_known || b_known)
        });
        if equalities.len() == before {
            return found;
        }
    }
}

impl Planner<'_> {
    /// Plans a SELECT.
    ///
    /// # Errors
    /// As [`super::plan`].
    pub fn select(&mut self, q: &Query, limit: Option<f64>) -> Result<Built, SqlError> {
        let bound = self.row_bound(q).or(limit);
        let has_sets = q.targets.iter().any(|t| t.expr.returns_set());
        let mut ordered = false;
        // In a grouping set what has one value is NULL where it is not grouped by.
        let fixed = if q.sort.is_empty() || q.grouping_sets.is_some() { Vec::new() } else { fixed(q) };
        let is_fixed = |e: &Expr| fixed.iter().any(|f| f.same(strip(e)));
        let mut built = if let Some(tree) = &q.set_op {
            let mut built = self.set_op(q, tree)?;
            for i in 0..built.layout.width {
                built.layout.vars.insert((q.result, i16::try_from(i + 1).unwrap_or(i16::MAX)), i);
            }
            built
        } else {
            let mut wanted = Wanted::of(q);
            for mark in &q.row_marks {
                wanted.add(mark.rt, -1);
            }
            self.mention(q, &[]);
            let plain = !q.has_aggregates && q.windows.is_empty() && !has_sets && matches!(q.distinct, Distinct::No);
            let mut want: Vec<OrderKey> = if plain { self.order_wanted(q, &q.sort) } else { Vec::new() };
            want.retain(|k| !is_fixed(&k.expr));
            if let Some(built) = self.min_max(q)? {
                built
            } else {
                let inner_limit = if plain { bound } else { None };
                let (built, sorted) = self.from_where(q, &wanted, &want, inner_limit)?;
                ordered = sorted;
                if q.has_aggregates { self.aggregate(q, built)? } else { built }
            }
        };
        if !q.windows.is_empty() {
            built = self.windows(q, built)?;
        }
        if has_sets {
            built = self.sets(q, built)?;
        }
        // Output columns: the visible ones, then those that are only sorted by or locked by.
        let visible = q.targets.iter().filter(|t| !t.junk).count();
        let needs_order = !q.sort.is_empty() && !ordered;
        let mut columns: Vec<Expr> = q.targets.iter().filter(|t| !t.junk).map(|t| t.expr.clone()).collect();
        let place = |columns: &mut Vec<Expr>, e: &Expr| match columns.iter().position(|x| x.same(e)) {
            Some(i) => i,
            None => {
                columns.push(e.clone());
                columns.len() - 1
            }
        };
        let target = |i: usize| q.targets.get(i).map(|t| &t.expr).ok_or_else(|| SqlError::internal("sort target"));
        let mut sort: Vec<SortColumn> = Vec::new();
        let mut ties: Vec<usize> = Vec::new();
        for k in &q.sort {
            let key = target(k.target)?;
            // What has one value, or is sorted by already, orders nothing.
            let orders = !is_fixed(key);
            if q.with_ties || orders && (needs_order || matches!(q.distinct, Distinct::On(_))) {
                let column = place(&mut columns, key);
                ties.push(column);
                if orders && !sort.iter().any(|s| s.column == column) {
                    sort.push(SortColumn { column, desc: k.desc, nulls_first: k.nulls_first });
                }
            }
        }
        let mut unique: Option<Vec<usize>> = None;
        if let Distinct::On(on) = &q.distinct {
            let mut list = Vec::new();
            for t in on {
                let column = place(&mut columns, target(*t)?);
                if !is_fixed(target(*t)?) && !sort.iter().any(|s| s.column == column) {
                    sort.push(SortColumn { column, desc: false, nulls_first: false });
                }
                list.push(column);
            }
            unique = Some(list);
        }
        let mut marks = Vec::new();
        for m in &q.row_marks {
            let Some(RteSource::Table(relation)) = q.rtable.get(m.rt).map(|r| &r.source) else { continue };
            let tid = place(&mut columns, &Expr::new(ExprKind::Var(m.rt, -1, 0), oids::TID, -1));
            let Some(scan_id) = self.level()?.scan_ids.get(&m.rt).copied() else { continue };
            self.uses(relation.oid, RelationUse::LockRows);
            marks.push(LockMark { relation: relation.clone(), scan_id, tid, strength: m.strength, wait: m.wait });
        }
        built = self.project(built, &columns)?;
        if matches!(q.distinct, Distinct::All) {
            let Built { node, layout, deps, .. } = built;
            let (width, rows) = (node.width, node.rows);
            let total = node.total_cost + rows * cost::OPERATOR * 2.0;
            let distinct = (rows / 2.0).clamp(1.0, 200.0f64.max(rows / 10.0));
            let mut unique = self.node(PlanOp::HashUnique(Arc::new(node)), width, distinct, (total, total), &deps);
            self.describe(&mut unique, |p| NodeText {
                node_type: "HashAggregate".into(),
                strategy: Some("Hashed"),
                props: vec![("Group Key", TextValue::List(columns.iter().take(visible).map(|e| p.text_bare(e)).collect()))],
                ..NodeText::default()
            });
            built = Built { node: unique, layout, deps, order: Vec::new() };
        }
        if !sort.is_empty() && (needs_order || unique.is_some()) {
            let texts = if self.explain { self.sort_texts(&sort, &columns) } else { Vec::new() };
            built = self.sort(built, sort.clone(), bound, texts);
        }
        if let Some(on) = unique {
            let Built { node, layout, deps, order } = built;
            let (width, rows, costs) = (node.width, node.rows, (node.startup_cost, node.total_cost + node.rows * cost::OPERATOR));
            let mut node = self.node(PlanOp::Unique(Arc::new(node), on.into()), width, (rows / 2.0).max(1.0), costs, &deps);
            self.describe(&mut node, |_| NodeText { node_type: "Unique".into(), ..NodeText::default() });
            built = Built { node, layout, deps, order };
        }
        if !marks.is_empty() {
            let Built { node, layout, deps, order } = built;
            let (width, rows, costs) = (node.width, node.rows, (node.startup_cost, node.total_cost + node.rows * cost::TUPLE));
            let mut node = self.node(PlanOp::LockRows(Arc::new(node), marks.into()), width, rows, costs, &deps);
            self.describe(&mut node, |_| NodeText { node_type: "LockRows".into(), ..NodeText::default() });
            built = Built { node, layout, deps, order };
        }
        if q.limit.is_some() || q.offset.is_some() {
            let Built { node, layout, mut deps, order } = built;
            let none = Layout::default();
            let count = match &q.limit {
                Some(e) => Some(self.compile(e, &none, &mut deps)?),
                None => None,
            };
            let offset = match &q.offset {
                Some(e) => Some(self.compile(e, &none, &mut deps)?),
                None => None,
            };
            let rows = bound.map_or(node.rows, |b| b.min(node.rows)).max(1.0);
            let fraction = (rows / node.rows.max(1.0)).min(1.0);
            let costs = (node.startup_cost, node.startup_cost + (node.total_cost - node.startup_cost) * fraction);
            let width = node.width;
            let ties = q.with_ties.then(|| ties.into());
            let mut node =
                self.node(PlanOp::Limit(Box::new(Limit { child: Arc::new(node), limit: count, offset, ties })), width, rows, costs, &deps);
            self.describe(&mut node, |_| NodeText { node_type: "Limit".into(), ..NodeText::default() });
            built = Built { node, layout, deps, order };
        }
        if built.node.width > visible {
            built = self.keep_columns(built, visible);
        }
        built.layout = Layout { width: visible, ..Layout::default() };
        Ok(built)
    }

    /// Constant LIMIT plus OFFSET.
    fn row_bound(&mut self, q: &Query) -> Option<f64> {
        let mut value = |e: &Expr| match self.constant(e) {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            Some(Datum::Int8(v)) => Some(v.max(0) as f64),
            _ => None,
        };
        let limit = value(q.limit.as_ref()?)?;
        Some(limit + q.offset.as_ref().and_then(value).unwrap_or(0.0))
    }

    fn order_wanted(&mut self, q: &Query, sort: &[SortKey]) -> Vec<OrderKey> {
        sort.iter().filter_map(|k| q.targets.get(k.target).map(|t| OrderKey::of(&t.expr, k.desc, k.nulls_first))).collect()
    }

    /// First `width` columns only.
    fn keep_columns(&mut self, built: Built, width: usize) -> Built {
        let Built { node, deps, order, .. } = built;
        let exprs: Box<[Code]> = (0..width).map(Code::Column).collect();
        let (rows, costs) = (node.rows, (node.startup_cost, node.total_cost));
        let node = self.node(PlanOp::Project(Arc::new(node), exprs), width, rows, costs, &deps);
        Built { node, layout: Layout { width, ..Layout::default() }, deps, order }
    }

    /// Computes expressions: the output is these and nothing else.
    ///
    /// # Errors
    /// As [`super::plan`].
    pub fn project(&mut self, built: Built, exprs: &[Expr]) -> Result<Built, SqlError> {
        let Built { node, layout, mut deps, order } = built;
        let codes = self.codes(exprs, &layout, &mut deps)?;
        let identity = codes.len() == node.width && codes.iter().enumerate().all(|(i, c)| matches!(c, Code::Column(n) if *n == i));
        let mut out = Layout { width: exprs.len(), ..Layout::default() };
        for (i, e) in exprs.iter().enumerate() {
            if let ExprKind::Var(rt, att, 0) = e.kind {
                out.vars.insert((rt, att), i);
            } else if !matches!(e.kind, ExprKind::Const(_)) {
                out.exprs.push((e.clone(), i));
            }
        }
        if identity {
            let mut node = node;
            self.set_output(&mut node, exprs);
            return Ok(Built { node, layout: out, deps, order });
        }
        // A Result without input takes the expressions itself.
        if let PlanOp::Result { exprs: old, condition } = &node.op
            && old.is_empty()
        {
            let mut result = self.node(PlanOp::Result { exprs: codes, condition: condition.clone() }, exprs.len(), 1.0, (0.0, 0.01), &deps);
            result.explain.clone_from(&node.explain);
            self.set_output(&mut result, exprs);
            return Ok(Built { node: result, layout: out, deps, order: Vec::new() });
        }
        let (rows, costs) = (node.rows, (node.startup_cost, node.total_cost));
        let mut node = self.node(PlanOp::Project(Arc::new(node), codes), exprs.len(), rows, costs, &deps);
        self.set_output(&mut node, exprs);
        Ok(Built { node, layout: out, deps, order: Vec::new() })
    }

    pub(super) fn set_output(&self, node: &mut plan::PlanNode, exprs: &[Expr]) {
        if self.explain {
            let output: Vec<String> = exprs.iter().map(|e| self.text_bare(e)).collect();
            node.explain.get_or_insert_default().output = output;
        }
    }

    /// Adds expressions as columns behind those there are: their places.
    fn with_columns(&mut self, built: Built, exprs: &[Expr]) -> Result<(Built, Vec<usize>), SqlError> {
        let mut places = Vec::with_capacity(exprs.len());
        let mut added: Vec<Expr> = Vec::new();
        let mut deps = built.deps.clone();
        let mut codes: Vec<Code> = (0..built.node.width).map(Code::Column).collect();
        for e in exprs {
            let code = self.compile(e, &built.layout, &mut deps)?;
            if let Code::Column(i) = code {
                places.push(i);
                continue;
            }
            if let Some(i) = added.iter().position(|x| x.same(e)) {
                places.push(built.node.width + i);
                continue;
            }
            places.push(codes.len());
            codes.push(code);
            added.push(e.clone());
        }
        if added.is_empty() {
            return Ok((built, places));
        }
        let Built { node, mut layout, order, .. } = built;
        for (i, e) in added.into_iter().enumerate() {
            if !matches!(e.kind, ExprKind::Const(_)) {
                layout.exprs.push((e, node.width + i));
            }
        }
        layout.width = codes.len();
        let (rows, costs) = (node.rows, (node.startup_cost, node.total_cost));
        let node = self.node(PlanOp::Project(Arc::new(node), codes.into()), layout.width, rows, costs, &deps);
        Ok((Built { node, layout, deps, order }, places))
    }

    fn sort_texts(&self, sort: &[SortColumn], columns: &[Expr]) -> Vec<String> {
        sort.iter()
            .filter_map(|s| {
                columns.get(s.column).map(|e| {
                    let mut text = self.text_bare(e);
                    if s.desc {
                        text.push_str(" DESC");
                    }
                    if s.nulls_first != s.desc {
                        text.push_str(if s.nulls_first { " NULLS FIRST" } else { " NULLS LAST" });
                    }
                    text
                })
            })
            .collect()
    }

    /// Sorts.
    pub fn sort(&mut self, built: Built, columns: Vec<SortColumn>, bound: Option<f64>, texts: Vec<String>) -> Built {
        if !built.order.is_empty() && built.order.len() >= columns.len() && built.order.iter().zip(&columns).all(|(a, b)| a == b) {
            return built;
        }
        let Built { node, layout, deps, .. } = built;
        let (width, rows) = (node.width, node.rows);
        let compares = bound.map_or(rows, |b| b.min(rows)).max(2.0).log2();
        let startup = node.total_cost + rows * compares * cost::OPERATOR * 2.0;
        let mut node =
            self.node(PlanOp::Sort(Arc::new(node), columns.clone().into()), width, rows, (startup, startup + rows * cost::OPERATOR), &deps);
        self.describe(&mut node, |_| NodeText {
            node_type: "Sort".into(),
            props: vec![("Sort Key", TextValue::List(texts))],
            ..NodeText::default()
        });
        Built { node, layout, deps, order: columns }
    }

    /// Sorts by expressions.
    ///
    /// # Errors
    /// One cannot be computed.
    pub(super) fn sort_by(&mut self, built: Built, order: &[OrderKey]) -> Result<Built, SqlError> {
        let exprs: Vec<Expr> = order.iter().map(|k| k.expr.clone()).collect();
        let (built, places) = self.with_columns(built, &exprs)?;
        let columns: Vec<SortColumn> =
            order.iter().zip(places).map(|(k, column)| SortColumn { column, desc: k.desc, nulls_first: k.nulls_first }).collect();
        let mut texts = Vec::new();
        if self.explain {
            let numbered: Vec<SortColumn> = columns.iter().enumerate().map(|(column, c)| SortColumn { column, ..*c }).collect();
            texts = self.sort_texts(&numbered, &exprs);
        }
        Ok(self.sort(built, columns, None, texts))
    }

    /// `SELECT min(x) FROM t WHERE ..` by index: each aggregate becomes the first value of an ordered subquery.
    fn min_max(&mut self, q: &Query) -> Result<Option<Built>, SqlError> {
        if !q.has_aggregates
            || !q.group.is_empty()
            || q.having.is_some()
            || q.grouping_sets.is_some()
            || q.from.len() != 1
            || !q.windows.is_empty()
        {
            return Ok(None);
        }
        let Some(FromItem::Rel(rt)) = q.from.first() else { return Ok(None) };
        let Some(RteSource::Table(relation)) = q.rtable.get(*rt).map(|r| &r.source) else { return Ok(None) };
        if relation.indexes.is_empty() {
            return Ok(None);
        }
        let mut calls = Vec::new();
        for t in &q.targets {
            collect(&t.expr, 0, &mut |e| matches!(&e.kind, ExprKind::Agg(a) if a.up == 0), &mut calls);
        }
        let mut found = Vec::new();
        for e in &calls {
            let ExprKind::Agg(a) = &e.kind else { return Ok(None) };
            let desc = match a.func.name {
                "max" => true,
                "min" => false,
                _ => return Ok(None),
            };
            let [arg] = a.args.as_slice() else { return Ok(None) };
            let Some((v, att)) = column_of(arg) else { return Ok(None) };
            if a.filter.is_some()
                || a.distinct
                || v != *rt
                || !relation.indexes.iter().any(|i| i.valid && i.predicate.is_none() && i.columns.iter().any(|c| c.attnum == att))
            {
                return Ok(None);
            }
            found.push((arg.clone(), desc));
        }
        if found.is_empty() {
            return Ok(None);
        }
        let mut exprs = Vec::new();
        for (arg, desc) in found {
            let inner = Query {
                rtable: q.rtable.clone(),
                from: q.from.clone(),
                quals: Expr::and(
                    q.quals
                        .clone()
                        .map(Expr::conjuncts)
                        .unwrap_or_default()
                        .into_iter()
                        .chain([Expr::new(ExprKind::IsNull(Box::new(arg.clone()), true), oids::BOOL, -1)])
                        .collect(),
                ),
                targets: vec![crate::sql::bind::query::Target { expr: arg.clone(), name: "x".into(), junk: false, origin: (0, 0) }],
                sort: vec![SortKey { target: 0, desc, nulls_first: desc }],
                limit: Some(Expr::constant(Datum::Int8(1), oids::INT8)),
                ..Query::default()
            };
            let mut inner = inner;
            inner.shift_outer(1, 1);
            // Only worth it if no sort is needed.
            let ty = arg.ty;
            exprs.push(Expr::new(
                ExprKind::SubLink(Box::new(crate::sql::bind::expr::SubLink {
                    kind: crate::sql::bind::expr::SubLinkKind::Scalar,
                    query: inner,
                })),
                ty,
                arg.typmod,
            ));
        }
        // An ordered index must lead: try, and look.
        let marks = (self.subplans.len(), self.nodes, self.slots, self.scans);
        let mut deps = Deps::new();
        let mut codes = Vec::new();
        let before = self.level()?.requests.len();
        for e in &exprs {
            codes.push(self.compile(e, &Layout::default(), &mut deps)?);
        }
        let sorted = self.subplans.iter().skip(marks.0).flatten().any(|s| has_sort(&s.plan));
        if sorted || self.level()?.requests.len() != before {
            self.subplans.truncate(marks.0);
            self.subplan_deps.truncate(marks.0);
            let _ = self.take_requests(before)?;
            return Ok(None);
        }
        let mut layout = Layout { width: calls.len(), ..Layout::default() };
        for (i, e) in calls.into_iter().enumerate() {
            layout.exprs.push((e, i));
        }
        let mut node = self.node(PlanOp::Result { exprs: codes.into(), condition: None }, layout.width, 1.0, (0.5, 0.5), &deps);
        self.describe(&mut node, |_| NodeText { node_type: "Result".into(), ..NodeText::default() });
        Ok(Some(Built { node, layout, deps, order: Vec::new() }))
    }

    fn aggregate(&mut self, q: &Query, built: Built) -> Result<Built, SqlError> {
        let mut calls: Vec<Expr> = Vec::new();
        for e in q.targets.iter().map(|t| &t.expr).chain(&q.having) {
            collect(e, 0, &mut |e| matches!(&e.kind, ExprKind::Agg(a) if a.up == 0), &mut calls);
        }
        let keys: Vec<Expr> = q.group.iter().filter_map(|g| q.targets.get(*g)).map(|t| t.expr.clone()).collect();
        let input_rows = built.node.rows;
        let mut groups = 1.0f64;
        for k in &keys {
            groups *= match column_of(k) {
                Some((rt, att)) => distinct_values(q, rt, att, input_rows),
                None => 200.0,
            };
        }
        let groups = groups.min(input_rows).max(1.0);
        let memory = self.session.settings.bytes(crate::config::Setting::WorkMem).unwrap_or(4 << 20);
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let fits = groups * (100.0 + 40.0 * (keys.len() + calls.len()) as f64) <= memory as f64 * 2.0;
        let strategy = if keys.is_empty() && q.grouping_sets.is_none() {
            AggStrategy::Plain
        } else if fits || q.grouping_sets.is_some() {
            AggStrategy::Hashed
        } else {
            AggStrategy::Sorted
        };
        let mut built = built;
        if strategy == AggStrategy::Sorted {
            let (with, places) = self.with_columns(built, &keys)?;
            let columns: Vec<SortColumn> = places.iter().map(|c| SortColumn { column: *c, desc: false, nulls_first: false }).collect();
            let texts = keys.iter().map(|k| if self.explain { self.text_bare(k) } else { String::new() }).collect();
            built = self.sort(with, columns, None, texts);
        }
        let Built { node, layout: input, mut deps, .. } = built;
        let key_codes = self.codes(&keys, &input, &mut deps)?;
        let mut agg_calls = Vec::with_capacity(calls.len());
        for e in &calls {
            let ExprKind::Agg(a) = &e.kind else { continue };
            let ProcBody::Aggregate(new) = a.func.body else {
                return Err(SqlError::unsupported(format_args!("aggregate {}", a.func.signature())));
            };
            let args = self.codes(&a.args, &input, &mut deps)?;
            let filter = match &a.filter {
                Some(f) => Some(self.compile(f, &input, &mut deps)?),
                None => None,
            };
            let order = a.order.iter().map(|k| SortColumn { column: k.target, desc: k.desc, nulls_first: k.nulls_first }).collect();
            agg_calls.push(AggCall { new, types: a.types.clone(), args, arg_count: a.arg_count, filter, distinct: a.distinct, order });
        }
        let mut layout = Layout { width: keys.len() + agg_calls.len(), ..Layout::default() };
        for (i, k) in keys.iter().enumerate() {
            if let ExprKind::Var(rt, att, 0) = k.kind {
                layout.vars.insert((rt, att), i);
            }
            layout.exprs.push((k.clone(), i));
        }
        for (i, c) in calls.iter().enumerate() {
            layout.exprs.push((c.clone(), keys.len() + i));
        }
        let sets = q.grouping_sets.as_ref().map(|sets| {
            layout.grouping = Some((layout.width, sets.clone()));
            layout.width += 1;
            sets.iter().map(|set| (0..keys.len()).map(|k| set.contains(&k)).collect::<Vec<bool>>()).collect::<Vec<_>>()
        });
        let having = match &q.having {
            Some(e) => Some(self.compile(e, &layout, &mut deps)?),
            None => None,
        };
        let rows = if strategy == AggStrategy::Plain { 1.0 } else { groups };
        #[expect(clippy::cast_precision_loss, reason = "a cost")]
        let per_row = cost::OPERATOR * (keys.len() + agg_calls.len()) as f64;
        let total = node.total_cost + input_rows * per_row + rows * cost::TUPLE;
        let startup = if strategy == AggStrategy::Sorted { node.startup_cost } else { total - rows * cost::TUPLE };
        let width = layout.width;
        let op = PlanOp::Aggregate(Box::new(Aggregate {
            child: Arc::new(node),
            strategy,
            keys: key_codes,
            sets,
            calls: agg_calls.into(),
            having,
        }));
        let mut node = self.node(op, width, rows, (startup, total), &deps);
        self.describe(&mut node, |p| {
            let (node_type, word) = match strategy {
                AggStrategy::Plain => ("Aggregate", "Plain"),
                AggStrategy::Sorted => ("GroupAggregate", "Sorted"),
                AggStrategy::Hashed => ("HashAggregate", "Hashed"),
            };
            let mut text = NodeText { node_type: node_type.into(), strategy: Some(word), ..NodeText::default() };
            if !keys.is_empty() {
                text.props.push(("Group Key", TextValue::List(keys.iter().map(|k| p.text_bare(k)).collect())));
            }
            if let Some(e) = &q.having {
                text.props.push(prop("Filter", p.text(e)));
            }
            text
        });
        Ok(Built { node, layout, deps, order: Vec::new() })
    }

    fn windows(&mut self, q: &Query, mut built: Built) -> Result<Built, SqlError> {
        let mut all: Vec<Expr> = Vec::new();
        for t in &q.targets {
            collect(&t.expr, 0, &mut |e| matches!(e.kind, ExprKind::Window(_)), &mut all);
        }
        // Those with more to sort by first, as PostgreSQL orders them (planner.c, `common_prefix_cmp`): the last decides the output's order.
        let mut numbers: Vec<usize> = (0..q.windows.len()).collect();
        let keys = |n: &usize| -> Vec<(usize, bool, bool)> {
            q.windows.get(*n).map_or_else(Vec::new, |w| {
                w.partition.iter().map(|p| (*p, false, false)).chain(w.order.iter().map(|k| (k.target, k.desc, k.nulls_first))).collect()
            })
        };
        numbers.sort_by(|a, b| {
            let (a, b) = (keys(a), keys(b));
            a.iter().zip(&b).map(|(x, y)| y.cmp(x)).find(|o| o.is_ne()).unwrap_or_else(|| b.len().cmp(&a.len()))
        });
        for number in numbers {
            let Some(w) = q.windows.get(number) else { continue };
            let mine: Vec<Expr> = all.iter().filter(|e| matches!(&e.kind, ExprKind::Window(x) if x.window == number)).cloned().collect();
            if mine.is_empty() {
                continue;
            }
            let target = |i: usize| q.targets.get(i).map(|t| t.expr.clone()).ok_or_else(|| SqlError::internal("window target"));
            let mut exprs = Vec::new();
            for p in &w.partition {
                exprs.push(target(*p)?);
            }
            for k in &w.order {
                exprs.push(target(k.target)?);
            }
            let (with, places) = self.with_columns(built, &exprs)?;
            let (partition, order_places) = places.split_at(w.partition.len().min(places.len()));
            let partition: Vec<usize> = partition.to_vec();
            let order: Vec<SortColumn> = order_places
                .iter()
                .zip(&w.order)
                .map(|(c, k)| SortColumn { column: *c, desc: k.desc, nulls_first: k.nulls_first })
                .collect();
            let mut columns: Vec<SortColumn> =
                partition.iter().map(|c| SortColumn { column: *c, desc: false, nulls_first: false }).collect();
            for o in &order {
                if !columns.iter().any(|c| c.column == o.column) {
                    columns.push(*o);
                }
            }
            let texts: Vec<String> = if self.explain { exprs.iter().map(|e| self.text_bare(e)).collect() } else { Vec::new() };
            let sorted = if columns.is_empty() { with } else { self.sort(with, columns, None, texts) };
            let Built { node, mut layout, mut deps, .. } = sorted;
            let mut calls = Vec::with_capacity(mine.len());
            for e in &mine {
                let ExprKind::Window(x) = &e.kind else { continue };
                let body = match x.func.body {
                    ProcBody::Window(f) => WindowBody::Function(f),
                    ProcBody::Aggregate(new) => WindowBody::Aggregate(new),
                    ProcBody::Scalar(_) | ProcBody::Set(_) | ProcBody::External => {
                        return Err(SqlError::unsupported(format_args!("window function {}", x.func.signature())));
                    }
                };
                let args = self.codes(&x.args, &layout, &mut deps)?;
                let filter = match &x.filter {
                    Some(f) => Some(self.compile(f, &layout, &mut deps)?),
                    None => None,
                };
                calls.push(WindowCall { body, types: x.types.clone(), args, filter });
            }
            let key = w.order.first().map(|k| (k.desc, exprs.get(w.partition.len()).cloned()));
            let start = self.frame_edge(&w.frame.start, w.frame.mode, key.as_ref(), &mut deps)?;
            let end = self.frame_edge(&w.frame.end, w.frame.mode, key.as_ref(), &mut deps)?;
            let before = node.width;
            for (i, e) in mine.iter().enumerate() {
                layout.exprs.push((e.clone(), before + i));
            }
            layout.width = before + calls.len();
            let (rows, costs) = (node.rows, (node.startup_cost, node.total_cost + node.rows * cost::OPERATOR * 4.0));
            let width = layout.width;
            let op = PlanOp::Window(Box::new(WindowAgg {
                child: Arc::new(node),
                partition: partition.into(),
                order: order.into(),
                calls: calls.into(),
                mode: w.frame.mode,
                start,
                end,
                exclude: w.frame.exclude,
            }));
            let mut node = self.node(op, width, rows, costs, &deps);
            self.describe(&mut node, |_| NodeText { node_type: "WindowAgg".into(), ..NodeText::default() });
            built = Built { node, layout, deps, order: Vec::new() };
        }
        Ok(built)
    }

    fn frame_edge(
        &mut self,
        edge: &FrameEdge,
        mode: plan::FrameMode,
        key: Option<&(bool, Option<Expr>)>,
        deps: &mut Deps,
    ) -> Result<plan::FrameEdge, SqlError> {
        let none = Layout::default();
        let (offset, preceding) = match edge {
            FrameEdge::UnboundedPreceding => return Ok(plan::FrameEdge::UnboundedPreceding),
            FrameEdge::UnboundedFollowing => return Ok(plan::FrameEdge::UnboundedFollowing),
            FrameEdge::CurrentRow => return Ok(plan::FrameEdge::CurrentRow),
            FrameEdge::Preceding(e) => (e, true),
            FrameEdge::Following(e) => (e, false),
        };
        let code = self.compile(offset, &none, deps)?;
        let range = if mode == plan::FrameMode::Range {
            let Some((desc, Some(key))) = key else { return Err(SqlError::internal("RANGE without an order")) };
            let slot = self.slot();
            let name = if preceding == *desc { "+" } else { "-" };
            let resolved = resolve_operator(name, Some(key.ty), offset.ty)?;
            let args = vec![
                convert(Expr::new(ExprKind::CaseValue, key.ty, key.typmod), resolved.left)?,
                convert(Expr::new(ExprKind::Exec(slot), offset.ty, -1), resolved.right)?,
            ];
            let types = CallTypes {
                func: resolved.func.oid,
                args: args.iter().map(|a| a.ty).collect(),
                result: resolved.result,
                variadic_array: false,
            };
            let e = Expr::new(
                ExprKind::Call(Box::new(CallExpr { func: resolved.func, oper: Some(resolved.oper), types, args, cast: false })),
                resolved.result,
                -1,
            );
            let e = convert(e, key.ty)?;
            let mut own = Deps::new();
            let edge = self.compile(&e, &none, &mut own)?;
            Some(Box::new(plan::RangeEdge { slot, edge }))
        } else {
            None
        };
        Ok(if preceding { plan::FrameEdge::Preceding(code, range) } else { plan::FrameEdge::Following(code, range) })
    }

    /// Set-returning functions of the select list, innermost first.
    fn sets(&mut self, q: &Query, mut built: Built) -> Result<Built, SqlError> {
        for _ in 0..64 {
            let mut calls: Vec<Expr> = Vec::new();
            for t in &q.targets {
                collect_sets(&t.expr, &built.layout, &mut calls);
            }
            if calls.is_empty() {
                return Ok(built);
            }
            let Built { node, mut layout, mut deps, .. } = built;
            let mut items: Vec<SetItem> = (0..node.width).map(|i| SetItem::Value(Code::Column(i))).collect();
            let mut rows = 1.0f64;
            for e in calls {
                if let ExprKind::Call(c) = &e.kind {
                    rows = rows.max(f64::from(c.func.rows));
                }
                items.push(SetItem::Set(self.set_call(&e, false, &layout, &mut deps)?));
                layout.exprs.push((e, items.len() - 1));
            }
            layout.width = items.len();
            let (rows, costs) = (node.rows * rows, (node.startup_cost, node.total_cost + node.rows * rows * cost::TUPLE));
            let width = layout.width;
            let mut node = self.node(PlanOp::ProjectSet(Arc::new(node), items.into()), width, rows, costs, &deps);
            self.describe(&mut node, |_| NodeText { node_type: "ProjectSet".into(), ..NodeText::default() });
            built = Built { node, layout, deps, order: Vec::new() };
        }
        Err(crate::stack::too_deep())
    }
}

/// An implicit or explicit conversion where one surely exists.
fn convert(e: Expr, ty: u32) -> Result<Expr, SqlError> {
    if ty == 0 || e.ty == ty {
        return Ok(e);
    }
    let how = coercion(e.ty, ty, CoercionContext::Explicit).ok_or_else(|| SqlError::internal("conversion of a frame edge"))?;
    use crate::sql::functions::Coercion;
    let kind = match how {
        Coercion::Function(func) => {
            let mut args = vec![e];
            if func.args.len() > 1 {
                args.push(Expr::constant(Datum::Int4(-1), oids::INT4));
            }
            if func.args.len() > 2 {
                args.push(Expr::bool(true));
            }
            let types = CallTypes { func: func.oid, args: args.iter().map(|a| a.ty).collect(), result: ty, variadic_array: false };
            ExprKind::Call(Box::new(CallExpr { func, oper: None, types, args, cast: true }))
        }
        Coercion::Relabel => ExprKind::Relabel(Box::new(e)),
        Coercion::Reinterpret => ExprKind::Reinterpret(Box::new(e)),
        Coercion::InOut => ExprKind::InOut(Box::new(e)),
        Coercion::Array(..) | Coercion::Record => return Err(SqlError::internal("conversion of a frame edge")),
    };
    Ok(Expr::new(kind, ty, -1))
}

/// Gathers outermost expressions that `f` picks; those inside subqueries are lowered to this level.
fn collect(e: &Expr, depth: usize, f: &mut dyn FnMut(&Expr) -> bool, out: &mut Vec<Expr>) {
    if depth == 0 {
        if f(e) {
            if !out.iter().any(|x| x.same(e)) {
                out.push(e.clone());
            }
            return;
        }
    } else if let ExprKind::Agg(a) = &e.kind
        && a.up == depth
    {
        let mut own = e.clone();
        lower(&mut own, depth);
        if f(&own) {
            if !out.iter().any(|x| x.same(&own)) {
                out.push(own);
            }
            return;
        }
    }
    e.children(&mut |c| collect(c, depth, f, out));
    if let ExprKind::SubLink(s) = &e.kind {
        s.query.visit_exprs(&mut |c, d| collect(c, depth + d, f, out), 1);
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
fn lower(e: &mut Expr, by: usize) {
    match &mut e.kind {
        ExprKind::Var(_, _, up) => *up = up.saturating_sub(by),
        ExprKind::Agg(a) => a.up = a.up.saturating_sub(by),
        _ => {}
    }
    let _infallible = e.children_mut(&mut |c| {
        lower(c, by);
        Ok(())
    });
}

/// Set-returning calls whose arguments hold none that is not computed yet.
fn collect_sets(e: &Expr, layout: &Layout, out: &mut Vec<Expr>) {
    if layout.exprs.iter().any(|(x, _)| x.same(e)) {
        return;
    }
    if let ExprKind::Call(c) = &e.kind
        && c.func.returns_set
    {
        let mut inner = Vec::new();
        for a in &c.args {
            collect_sets(a, layout, &mut inner);
        }
        if inner.is_empty() {
            if !out.iter().any(|x| x.same(e)) {
                out.push(e.clone());
            }
        } else {
            out.extend(inner);
        }
        return;
    }
    e.children(&mut |c| collect_sets(c, layout, out));
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these nodes matter here")]
fn has_sort(node: &plan::PlanNode) -> bool {
    match &node.op {
        PlanOp::Sort(..) => true,
        PlanOp::Limit(l) => has_sort(&l.child),
        PlanOp::Project(c, _) | PlanOp::Filter(c, _) | PlanOp::Gate(c, _) => has_sort(c),
        _ => false,
    }
}
