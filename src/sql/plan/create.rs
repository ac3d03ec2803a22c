//! Chosen paths to plan nodes.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::merge::{merge_pairs, unique_by};
use super::path::{Equal, IndexPath, MergePath, OrderKey, Path, PathKind, Ready, cost};
use super::planner::{Built, Deps, Layout, Nest, Planner};
use crate::config::Setting;
use crate::executor::plan::{
    self, FunctionScan, HashJoin, IndexBound, IndexEqual, IndexScan, JoinKind, MergeJoin, NestLoop, PlanOp, RelationUse, Scan, ScanColumn,
    SortColumn,
};
use crate::sql::bind::expr::{Expr, ExprKind};
use crate::sql::bind::query::{self, Query, RteSource};
use crate::sql::catalog::{RelKind, Relation};
use crate::sql::types::key::KeyOrder;
use crate::sql::types::oids;
use crate::sqlstate::SqlError;

/// What the scans of a level must yield.
pub struct Wanted {
    /// Attributes per range table entry.
    pub columns: FxHashMap<usize, Vec<i16>>,
}

impl Wanted {
    /// What a query's expressions mention at its own level.
    pub fn of(q: &Query) -> Self {
        let mut columns: FxHashMap<usize, Vec<i16>> = FxHashMap::default();
        q.visit_exprs(
            &mut |e, depth| {
                e.visit_vars(depth, &mut |rt, att| {
                    let list = columns.entry(rt).or_default();
                    if !list.contains(&att) {
                        list.push(att);
                    }
                });
            },
            0,
        );
        Self { columns }
    }

    /// Asks for one more.
    pub fn add(&mut self, rt: usize, att: i16) {
        let list = self.columns.entry(rt).or_default();
        if !list.contains(&att) {
            list.push(att);
        }
    }
}

impl Planner<'_> {
    /// Makes the nodes of a path.
    pub(super) fn build(&mut self, q: &Query, wanted: &Wanted, path: &Path) -> Result<Built, SqlError> {
        let built = match &path.kind {
            PathKind::Seq(rt, quals) => self.build_scan(q, wanted, *rt, quals, path, |scan, _, _| {
                // A sequence's page holds its state, not a row version.
                Ok(if scan.relation.kind == RelKind::Sequence { PlanOp::VirtualScan(scan) } else { PlanOp::SeqScan(scan) })
            })?,
            PathKind::Tid(rt, tid, quals) => {
                let tid = tid.clone();
                self.build_scan(q, wanted, *rt, quals, path, move |scan, p, deps| {
                    let code = p.compile(&tid, &Layout::default(), deps)?;
                    Ok(PlanOp::TidScan(scan, code))
                })?
            }
            PathKind::Index(i) => self.build_index(q, wanted, i, path)?,
            PathKind::Ready(rt, ready, quals) => {
                let Some(ready) = ready.borrow_mut().take() else { return Err(SqlError::internal("a source was built twice")) };
                self.build_ready(q, wanted, *rt, ready, quals, path)?
            }
            PathKind::Filter(child, quals) => {
                let child = self.build(q, wanted, child)?;
                self.filter(child, quals, path.rows)?
            }
            PathKind::Nest(kind, left, right, quals) => self.build_nest(q, wanted, path, *kind, left, right, quals)?,
            PathKind::Hash(kind, left, right, keys, rest) => self.build_hash(q, wanted, path, *kind, left, right, keys, rest)?,
            PathKind::Merge(m) => self.build_merge(q, wanted, path, m)?,
            PathKind::Sort(child, order) => {
                let child = self.build(q, wanted, child)?;
                self.sort_by(child, order)?
            }
        };
        Ok(built)
    }

    /// What is read of a table, for EXPLAIN: as it is mentioned, first in what comes out, then in conditions.
    fn mentioned(&self, rt: usize) -> Vec<String> {
        let Some(level) = self.levels.last() else { return Vec::new() };
        level
            .mentioned
            .iter()
            .filter(|(e, _)| *e == rt)
            .map(|(rt, att)| self.text_bare(&Expr::new(ExprKind::Var(*rt, *att, 0), 0, -1)))
            .collect()
    }

    /// Notes for EXPLAIN in which order columns are mentioned: in `first`, then in conditions, then elsewhere.
    pub(super) fn mention(&mut self, q: &Query, first: &[Expr]) {
        if !self.explain {
            return;
        }
        let mut list: Vec<(usize, i16)> = Vec::new();
        let mut note = |rt: usize, att: i16| {
            if !list.contains(&(rt, att)) {
                list.push((rt, att));
            }
        };
        let targets = q.targets.iter().map(|t| &t.expr).filter(|_| q.command == query::Command::Select);
        for e in first.iter().chain(targets) {
            e.visit_vars(0, &mut note);
        }
        q.visit_exprs(&mut |e, depth| e.visit_vars(depth, &mut note), 0);
        if let Ok(level) = self.level() {
            level.mentioned = list;
        }
    }

    /// A filter on top.
    pub(super) fn filter(&mut self, child: Built, quals: &[Expr], rows: f64) -> Result<Built, SqlError> {
        let Some(e) = Expr::and(quals.to_vec()) else { return Ok(child) };
        let Built { node, layout, mut deps, order } = child;
        let code = self.compile(&e, &layout, &mut deps)?;
        let (width, costs) = (node.width, (node.startup_cost, node.total_cost + node.rows * cost::OPERATOR));
        let mut filter = self.node(PlanOp::Filter(Arc::new(node), code), width, rows, costs, &deps);
        self.describe(&mut filter, |p| plan::NodeText {
            node_type: "Filter".into(),
            props: vec![super::planner::prop("Filter", p.text(&e))],
            ..plan::NodeText::default()
        });
        Ok(Built { node: filter, layout, deps, order })
    }

    /// The scan part of a table's node: what it yields, and where.
    fn scan(&mut self, relation: &Arc<Relation>, wanted: &Wanted, rt: usize) -> Result<(Scan, Layout), SqlError> {
        let mut attributes = wanted.columns.get(&rt).cloned().unwrap_or_default();
        attributes.sort_unstable();
        let mut layout = Layout::default();
        let mut outputs = Vec::with_capacity(attributes.len());
        let mut need = 0usize;
        for att in attributes {
            let output = match att {
                -1 => ScanColumn::Tid,
                -2 => ScanColumn::Xmin,
                -3 => ScanColumn::Cmin,
                -4 => ScanColumn::Xmax,
                -5 => ScanColumn::Cmax,
                -6 => ScanColumn::TableOid,
                a => {
                    let index =
                        usize::try_from(a).ok().and_then(|a| a.checked_sub(1)).ok_or_else(|| SqlError::internal("attribute number"))?;
                    need = need.max(index + 1);
                    ScanColumn::Attribute(index)
                }
            };
            layout.vars.insert((rt, att), outputs.len());
            outputs.push(output);
        }
        layout.width = outputs.len();
        let mut bits = vec![false; need];
        for o in &outputs {
            if let ScanColumn::Attribute(i) = o
                && let Some(b) = bits.get_mut(*i)
            {
                *b = true;
            }
        }
        self.scans += 1;
        let scan_id = self.scans - 1;
        self.level()?.scan_ids.insert(rt, scan_id);
        self.uses(relation.oid, RelationUse::Read);
        let desc = relation.desc.clone();
        let mut rows = Vec::new();
        for (at, output) in outputs.iter().enumerate() {
            if let ScanColumn::Attribute(i) = output
                && let Some(column) = relation.columns.get(*i).filter(|c| c.type_oid >= oids::FIRST_NORMAL)
                && let Some(names) = &self.session.io().names
                && let Some(shape) = names.composite(column.type_oid)?
            {
                rows.push((at, shape));
            }
        }
        let scan = Scan {
            relation: relation.clone(),
            desc,
            scan_id,
            outputs: outputs.into(),
            wanted: bits.into(),
            rows: rows.into(),
            filter: None,
        };
        Ok((scan, layout))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these nodes matter here")]
    fn build_scan(
        &mut self,
        q: &Query,
        wanted: &Wanted,
        rt: usize,
        quals: &[Expr],
        path: &Path,
        op: impl FnOnce(Scan, &mut Self, &mut Deps) -> Result<PlanOp, SqlError>,
    ) -> Result<Built, SqlError> {
        let Some(RteSource::Table(relation)) = q.rtable.get(rt).map(|r| &r.source) else {
            return Err(SqlError::internal("scan of no table"));
        };
        let relation = relation.clone();
        let (mut scan, layout) = self.scan(&relation, wanted, rt)?;
        let mut deps = Deps::new();
        let filter = Expr::and(quals.to_vec());
        if let Some(e) = &filter {
            scan.filter = Some(self.compile(e, &layout, &mut deps)?);
        }
        let width = layout.width;
        let op = op(scan, self, &mut deps)?;
        let name = match &op {
            PlanOp::TidScan(..) => "Tid Scan",
            PlanOp::VirtualScan(_) => "Seq Scan",
            _ => "Seq Scan",
        };
        let mut node = self.node(op, width, path.rows, (path.startup, path.total), &deps);
        let alias = q.rtable.get(rt).map(|r| r.alias.to_string());
        self.describe(&mut node, |p| {
            let mut text = plan::NodeText {
                output: p.mentioned(rt),
                node_type: name.into(),
                relation: Some(relation.name.to_string()),
                schema: Some(relation.namespace_name.to_string()),
                alias,
                ..plan::NodeText::default()
            };
            if let Some(e) = &filter {
                text.props.push(super::planner::prop("Filter", p.text(e)));
            }
            text
        });
        Ok(Built { node, layout, deps, order: Vec::new() })
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    fn build_index(&mut self, q: &Query, wanted: &Wanted, i: &IndexPath, path: &Path) -> Result<Built, SqlError> {
        let Some(RteSource::Table(relation)) = q.rtable.get(i.rt).map(|r| &r.source) else {
            return Err(SqlError::internal("scan of no table"));
        };
        let relation = relation.clone();
        let (mut scan, layout) = self.scan(&relation, wanted, i.rt)?;
        let mut deps = Deps::new();
        let filter = Expr::and(i.quals.clone());
        // What the index answers but for rows with NULLs is not shown as a filter.
        if let Some(e) = Expr::and(i.quals.iter().chain(&i.nearly).cloned().collect()) {
            scan.filter = Some(self.compile(&e, &layout, &mut deps)?);
        }
        let recheck = match Expr::and(i.answered.clone()) {
            Some(e) => Some(self.compile(&e, &layout, &mut deps)?),
            None => None,
        };
        let none = Layout::default();
        let mut equal = Vec::with_capacity(i.equal.len());
        for e in &i.equal {
            equal.push(match e {
                Equal::Value(v) => IndexEqual::Value(self.compile(v, &none, &mut deps)?),
                Equal::Any(v) => IndexEqual::Any(self.compile(v, &none, &mut deps)?),
                Equal::Null => IndexEqual::Null,
            });
        }
        let mut bound = |p: &mut Self, b: &Option<(Vec<Expr>, bool)>| -> Result<Option<IndexBound>, SqlError> {
            match b {
                Some((e, inclusive)) => Ok(Some(IndexBound { values: p.codes(e, &none, &mut deps)?, inclusive: *inclusive })),
                None => Ok(None),
            }
        };
        let lower = bound(self, &i.lower)?;
        let upper = bound(self, &i.upper)?;
        let pattern = match &i.pattern {
            Some((e, kind)) => Some((self.compile(e, &none, &mut deps)?, *kind)),
            None => None,
        };
        let orders: Vec<KeyOrder> = i.index.keys().iter().map(|k| KeyOrder { desc: k.desc, nulls_first: k.nulls_first }).collect();
        let types = i.index.keys().iter().map(|k| k.type_oid).collect();
        // All that is wanted in the entry itself?
        let index_only = scan
            .outputs
            .iter()
            .map(|o| match o {
                ScanColumn::Attribute(a) => super::path::entry_column(&i.index, i16::try_from(a + 1).unwrap_or(0)),
                _ => None,
            })
            .collect::<Option<Vec<usize>>>()
            .filter(|_| !scan.outputs.is_empty() && self.session.settings.bool(Setting::EnableIndexonlyscan));
        // What the index answers by itself need not be visited in the table's order.
        let bitmap = i.bitmap && index_only.is_none();
        let only = index_only.is_some();
        let width = layout.width;
        let op = PlanOp::IndexScan(Box::new(IndexScan {
            scan,
            index: i.index.clone(),
            orders,
            types,
            equal,
            lower,
            upper,
            not_null: i.not_null,
            pattern,
            backward: i.backward,
            index_only,
            single: i.single,
            bitmap,
            recheck,
        }));
        let mut node = self.node(op, width, path.rows, (path.startup, path.total), &deps);
        let alias = q.rtable.get(i.rt).map(|r| r.alias.to_string());
        self.describe(&mut node, |p| {
            let mut text = plan::NodeText {
                output: p.mentioned(i.rt),
                node_type: match (bitmap, only) {
                    (true, _) => "Bitmap Heap Scan",
                    (false, true) => "Index Only Scan",
                    (false, false) => "Index Scan",
                }
                .into(),
                relation: Some(relation.name.to_string()),
                schema: Some(relation.namespace_name.to_string()),
                alias,
                index: (!bitmap).then(|| i.index.name.to_string()),
                bitmap: bitmap.then(|| i.index.name.to_string()),
                backward: i.backward,
                ..plan::NodeText::default()
            };
            if let Some(e) = Expr::and(i.answered.clone()) {
                text.props.push(super::planner::prop(if bitmap { "Recheck Cond" } else { "Index Cond" }, p.text(&e)));
            }
            if let Some(e) = &filter {
                text.props.push(super::planner::prop("Filter", p.text(e)));
            }
            text
        });
        Ok(Built { node, layout, deps, order: Vec::new() })
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    fn build_ready(&mut self, q: &Query, wanted: &Wanted, rt: usize, ready: Ready, quals: &[Expr], path: &Path) -> Result<Built, SqlError> {
        let Some(rte) = q.rtable.get(rt) else { return Err(SqlError::internal("range table")) };
        let full = |width: usize| {
            let mut layout = Layout { width, ..Layout::default() };
            for i in 0..width {
                layout.vars.insert((rt, i16::try_from(i + 1).unwrap_or(i16::MAX)), i);
            }
            layout
        };
        match ready {
            Ready::Query(built, requests) => {
                for (e, slot) in &requests {
                    self.bind_request(e, *slot)?;
                }
                let layout = full(built.node.width);
                let mut node = built.node;
                let alias = rte.alias.clone();
                if self.explain && matches!(rte.source, RteSource::Subquery(_)) && !quals.is_empty() {
                    let _ = alias;
                }
                node.correlated = !built.deps.is_empty();
                let child = Built { node, layout, deps: built.deps, order: Vec::new() };
                self.filter(child, quals, path.rows)
            }
            Ready::Late => match &rte.source {
                RteSource::Table(_) => self.build_scan(q, wanted, rt, quals, path, |scan, _, _| Ok(PlanOp::VirtualScan(scan))),
                RteSource::Values(lists) => {
                    let mut deps = Deps::new();
                    let none = Layout::default();
                    let mut rows = Vec::with_capacity(lists.len());
                    for list in lists {
                        rows.push(self.codes(list, &none, &mut deps)?);
                    }
                    let width = rte.columns.len();
                    let mut node = self.node(PlanOp::Values(rows), width, path.rows, (path.startup, path.total), &deps);
                    let alias = rte.alias.to_string();
                    self.describe(&mut node, |_| plan::NodeText {
                        node_type: "Values Scan".into(),
                        relation: None,
                        alias: Some(alias),
                        ..plan::NodeText::default()
                    });
                    self.filter(Built { node, layout: full(width), deps, order: Vec::new() }, quals, path.rows)
                }
                RteSource::Function { calls, ordinality } => {
                    let mut deps = Deps::new();
                    let none = Layout::default();
                    let mut out = Vec::with_capacity(calls.len());
                    for (e, n) in calls {
                        let record = *n != 1
                            || e.ty == oids::RECORD
                            || e.ty >= oids::FIRST_NORMAL
                            || matches!(&e.kind, ExprKind::Call(c) if c.func.out_columns().is_some())
                            || matches!(e.kind, ExprKind::Row(..));
                        out.push((self.set_call(e, record, &none, &mut deps)?, *n));
                    }
                    let width = rte.columns.len();
                    let layout = full(width);
                    let filter = match Expr::and(quals.to_vec()) {
                        Some(e) => Some(self.compile(&e, &layout, &mut deps)?),
                        None => None,
                    };
                    let op = PlanOp::Function(Box::new(FunctionScan { calls: out, ordinality: *ordinality, filter }));
                    let mut node = self.node(op, width, path.rows, (path.startup, path.total), &deps);
                    let alias = rte.alias.to_string();
                    let name = calls.first().map(|(e, _)| match &e.kind {
                        ExprKind::Call(c) => c.func.name.to_owned(),
                        _ => alias.clone(),
                    });
                    self.describe(&mut node, |p| {
                        let mut text = plan::NodeText {
                            node_type: "Function Scan".into(),
                            relation: name,
                            alias: Some(alias),
                            ..plan::NodeText::default()
                        };
                        if let Some(e) = Expr::and(quals.to_vec()) {
                            text.props.push(super::planner::prop("Filter", p.text(&e)));
                        }
                        text
                    });
                    Ok(Built { node, layout, deps, order: Vec::new() })
                }
                RteSource::Subquery(_) | RteSource::Cte(..) | RteSource::Working(..) | RteSource::Excluded | RteSource::None => {
                    Err(SqlError::internal("source"))
                }
            },
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a path")]
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    fn build_nest(
        &mut self,
        q: &Query,
        wanted: &Wanted,
        path: &Path,
        kind: JoinKind,
        left: &Path,
        right: &Path,
        quals: &[Expr],
    ) -> Result<Built, SqlError> {
        let left_rels = left.rels.clone();
        let left = self.build(q, wanted, left)?;
        self.nests.push(Nest { layout: left.layout.clone(), params: Vec::new() });
        let inner = self.build(q, wanted, right);
        let nest = self.nests.pop().ok_or_else(|| SqlError::internal("nested loop"))?;
        let mut inner = inner?;
        let params: Vec<(usize, usize)> = nest.params;
        let mut deps = left.deps.clone();
        deps.extend(inner.deps.iter().filter(|d| !params.iter().any(|(s, _)| s == *d)));
        let independent = inner.deps.is_empty();
        // What does not change is kept, unless it is cheap to scan again.
        if independent
            && !matches!(inner.node.op, PlanOp::Materialize(_) | PlanOp::Values(_) | PlanOp::Result { .. } | PlanOp::CteScan(_))
            && left.node.rows > 1.0
        {
            inner = self.materialize(inner);
        }
        let layout = joined(&left.layout, &inner.layout, left.node.width);
        let answered: &[Expr] = match &right.kind {
            PathKind::Index(i) => &i.answered,
            _ => &[],
        };
        let rest: Vec<Expr> = quals.iter().filter(|e| !answered.iter().any(|a| a.same(e))).cloned().collect();
        let condition = match Expr::and(rest.clone()) {
            Some(e) => Some(self.compile(&e, &layout, &mut deps)?),
            None => None,
        };
        let unique = {
            let (pairs, _) = merge_pairs(quals, &left_rels, &right.rels);
            unique_by(q, right, pairs.iter().map(|p| &p.right))
        };
        let single = unique && matches!(kind, JoinKind::Inner | JoinKind::Left);
        let width = layout.width;
        let op = PlanOp::NestLoop(Box::new(NestLoop {
            kind,
            left: Arc::new(left.node),
            right: Arc::new(inner.node),
            params: params.into(),
            condition,
            single,
        }));
        let mut node = self.node(op, width, path.rows, (path.startup, path.total), &deps);
        self.describe(&mut node, |p| {
            let mut text = plan::NodeText {
                node_type: if kind == JoinKind::Inner { "Nested Loop".into() } else { format!("Nested Loop{} Join", join_suffix(kind)) },
                join_type: Some(join_word(kind)),
                inner_unique: Some(unique),
                ..plan::NodeText::default()
            };
            if let Some(e) = Expr::and(rest) {
                text.props.push(super::planner::prop("Join Filter", p.text(&e)));
            }
            text
        });
        Ok(Built { node, layout, deps, order: Vec::new() })
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a path")]
    fn build_hash(
        &mut self,
        q: &Query,
        wanted: &Wanted,
        path: &Path,
        kind: JoinKind,
        left: &Path,
        right: &Path,
        keys: &[(Expr, Expr)],
        rest: &[Expr],
    ) -> Result<Built, SqlError> {
        let unique = unique_by(q, right, keys.iter().map(|(_, r)| r));
        let left = self.build(q, wanted, left)?;
        let right = self.build(q, wanted, right)?;
        let mut deps = left.deps.clone();
        deps.extend(&right.deps);
        let mut left_keys = Vec::with_capacity(keys.len());
        let mut right_keys = Vec::with_capacity(keys.len());
        for (l, r) in keys {
            left_keys.push(self.compile(l, &left.layout, &mut deps)?);
            right_keys.push(self.compile(r, &right.layout, &mut deps)?);
        }
        let layout = joined(&left.layout, &right.layout, left.node.width);
        let condition = match Expr::and(rest.to_vec()) {
            Some(e) => Some(self.compile(&e, &layout, &mut deps)?),
            None => None,
        };
        let width = layout.width;
        let op = PlanOp::HashJoin(Box::new(HashJoin {
            kind,
            left: Arc::new(left.node),
            right: Arc::new(right.node),
            left_keys: left_keys.into(),
            right_keys: right_keys.into(),
            condition,
        }));
        let mut node = self.node(op, width, path.rows, (path.startup, path.total), &deps);
        self.describe(&mut node, |p| {
            let mut text = plan::NodeText {
                node_type: format!("Hash{} Join", join_suffix(kind)),
                join_type: Some(join_word(kind)),
                inner_unique: Some(unique),
                ..plan::NodeText::default()
            };
            if kind == JoinKind::Inner {
                text.node_type = "Hash Join".into();
            }
            let conditions: Vec<String> = keys.iter().map(|(l, r)| format!("({} = {})", p.text_bare(l), p.text_bare(r))).collect();
            let value = if conditions.len() == 1 { conditions.concat() } else { format!("({})", conditions.join(" AND ")) };
            text.props.push(super::planner::prop("Hash Cond", value));
            if let Some(e) = Expr::and(rest.to_vec()) {
                text.props.push(super::planner::prop("Join Filter", p.text(&e)));
            }
            text
        });
        Ok(Built { node, layout, deps, order: Vec::new() })
    }

    fn build_merge(&mut self, q: &Query, wanted: &Wanted, path: &Path, m: &MergePath) -> Result<Built, SqlError> {
        let left = self.build(q, wanted, &m.left)?;
        let mut right = self.build(q, wanted, &m.right)?;
        if m.materialize {
            right = self.materialize(right);
        }
        let mut deps = left.deps.clone();
        deps.extend(&right.deps);
        let mut keys = Vec::with_capacity(m.keys.len());
        for k in &m.keys {
            let (left, right) = (self.compile(&k.left, &left.layout, &mut deps)?, self.compile(&k.right, &right.layout, &mut deps)?);
            keys.push(plan::MergeKey { left, right, desc: k.desc });
        }
        let layout = joined(&left.layout, &right.layout, left.node.width);
        let condition = match Expr::and(m.rest.clone()) {
            Some(e) => Some(self.compile(&e, &layout, &mut deps)?),
            None => None,
        };
        let single = unique_by(q, &m.right, m.keys.iter().map(|k| &k.right));
        let width = layout.width;
        let op = PlanOp::MergeJoin(Box::new(MergeJoin {
            kind: m.kind,
            left: Arc::new(left.node),
            right: Arc::new(right.node),
            keys: keys.into(),
            condition,
        }));
        let mut node = self.node(op, width, path.rows, (path.startup, path.total), &deps);
        self.describe(&mut node, |p| {
            let mut text = plan::NodeText {
                node_type: format!("Merge{} Join", join_suffix(m.kind)),
                join_type: Some(join_word(m.kind)),
                inner_unique: Some(single),
                ..plan::NodeText::default()
            };
            let conditions: Vec<String> =
                m.keys.iter().map(|k| format!("({} = {})", p.text_bare(&k.left), p.text_bare(&k.right))).collect();
            let value = if conditions.len() == 1 { conditions.concat() } else { format!("({})", conditions.join(" AND ")) };
            text.props.push(super::planner::prop("Merge Cond", value));
            if let Some(e) = Expr::and(m.rest.clone()) {
                text.props.push(super::planner::prop("Join Filter", p.text(&e)));
            }
            text
        });
        Ok(Built { node, layout, deps, order: Vec::new() })
    }

    /// Rows kept for those who go back.
    fn materialize(&mut self, built: Built) -> Built {
        let Built { node, layout, deps, order } = built;
        let (width, rows, costs) = (node.width, node.rows, (node.startup_cost, node.total_cost + node.rows * cost::OPERATOR));
        let mut node = self.node(PlanOp::Materialize(Arc::new(node)), width, rows, costs, &deps);
        self.describe(&mut node, |_| plan::NodeText { node_type: "Materialize".into(), ..plan::NodeText::default() });
        Built { node, layout, deps, order }
    }

    /// Columns of an order, if all are plain columns of the layout.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    pub fn order_columns(layout: &Layout, want: &[OrderKey]) -> Option<Vec<SortColumn>> {
        want.iter()
            .map(|k| {
                let column = match k.expr.kind {
                    ExprKind::Var(rt, att, 0) => layout.vars.get(&(rt, att)).copied(),
                    _ => layout.exprs.iter().find(|(e, _)| e.same(&k.expr)).map(|(_, c)| *c),
                }?;
                Some(SortColumn { column, desc: k.desc, nulls_first: k.nulls_first })
            })
            .collect()
    }
}

fn join_suffix(kind: JoinKind) -> &'static str {
    match kind {
        JoinKind::Inner => "",
        JoinKind::Left => " Left",
        JoinKind::Right => " Right",
        JoinKind::Full => " Full",
        JoinKind::Semi => " Semi",
        JoinKind::Anti => " Anti",
    }
}

fn join_word(kind: JoinKind) -> &'static str {
    match kind {
        JoinKind::Inner => "Inner",
        JoinKind::Left => "Left",
        JoinKind::Right => "Right",
        JoinKind::Full => "Full",
        JoinKind::Semi => "Semi",
        JoinKind::Anti => "Anti",
    }
}

/// The layout of a joined row.
pub(super) fn joined(left: &Layout, right: &Layout, left_width: usize) -> Layout {
    let mut layout = left.clone();
    for (k, v) in &right.vars {
        layout.vars.insert(*k, v + left_width);
    }
    for (e, c) in &right.exprs {
        layout.exprs.push((e.clone(), c + left_width));
    }
    layout.width = left_width + right.width;
    layout
}
