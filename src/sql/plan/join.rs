//! FROM and WHERE: which order to join in, and how.
//!
//! Inner joins are flattened into a list of items and a list of conditions and ordered by cost (dynamic programming up to
//! `EXHAUSTIVE` items, then greedily). An outer join is an item whose two sides are ordered on their own.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::create::Wanted;
use super::join_tree::{Group, Item, flatten, reduce, refuse_nullable_locks};
use super::merge::{Pair, merge_pair, merge_pairs, merge_sides};
use super::path::{OrderKey, Path, PathKind, Ready, add_path, cost, rels_of};
use super::planner::{Built, Deps, Layout, Planner, RelSet};
use super::selectivity::{selectivity, strip};
use crate::config::Setting;
use crate::executor::code::Code;
use crate::executor::plan::{self, JoinKind, PlanOp};
use crate::sql::bind::expr::{Expr, ExprKind};
use crate::sql::bind::query::{self, Distinct, Query, RteSource};
use crate::sql::catalog::Source;
use crate::sql::catalog::relation::Persistence;
use crate::sql::types::Datum;
use crate::sqlstate::{SqlError, SqlState};

/// The ways to the rows of one side.
type Paths<'a> = &'a [Rc<Path>];

/// Items up to which all join orders are compared.
const EXHAUSTIVE: usize = 9;

impl Planner<'_> {
    /// Plans FROM and WHERE. `want`: an order that would be welcome.
    ///
    /// # Errors
    /// PostgreSQL's planner errors.
    pub fn from_where(&mut self, q: &Query, wanted: &Wanted, want: &[OrderKey], limit: Option<f64>) -> Result<(Built, bool), SqlError> {
        let mut group = Group::default();
        for item in &q.from {
            flatten(item, &mut group);
        }
        if let Some(e) = &q.quals {
            group.quals.extend(e.clone().conjuncts());
        }
        reduce(&mut group, &[]);
        refuse_nullable_locks(q, &group)?;
        if group.items.is_empty() {
            let mut deps = Deps::new();
            let condition = match Expr::and(group.quals) {
                Some(e) => Some(self.compile(&e, &Layout::default(), &mut deps)?),
                None => None,
            };
            let mut node = self.node(PlanOp::Result { exprs: Box::new([]), condition }, 0, 1.0, (0.0, 0.01), &deps);
            self.describe(&mut node, |_| plan::NodeText { node_type: "Result".into(), ..plan::NodeText::default() });
            return Ok((Built { node, layout: Layout::default(), deps, order: Vec::new() }, false));
        }
        // Conditions without columns are decided once, on top.
        let (gates, quals): (Vec<Expr>, Vec<Expr>) = group
            .quals
            .into_iter()
            .partition(|e| rels_of(e).is_empty() && !e.is_volatile() && !matches!(e.kind, ExprKind::Const(Datum::Bool(true))));
        group.quals = quals;
        if let Ok(level) = self.level() {
            level.limited = limit.is_some();
            level.wanted.clone_from(&wanted.columns);
        }
        let paths = self.solve(q, group, want, &[])?;
        let path = self.choose(paths, want, limit)?;
        // An index that answers the condition has an order of its own, which need not be the one wanted.
        let ordered = super::path::satisfies(&path.order, want, &[]);
        let mut built = self.build(q, wanted, &path)?;
        if let Some(e) = Expr::and(gates) {
            let mut deps = std::mem::take(&mut built.deps);
            let code = self.compile(&e, &built.layout, &mut deps)?;
            if matches!(code, Code::Const(Datum::Bool(false) | Datum::Null)) {
                let op = PlanOp::Result { exprs: vec![Code::Const(Datum::Null); built.layout.width].into(), condition: Some(code) };
                let mut node = self.node(op, built.layout.width, 1.0, (0.0, 0.0), &deps);
                self.describe(&mut node, |_| plan::NodeText {
                    node_type: "Result".into(),
                    props: vec![super::planner::prop("One-Time Filter", "false".into())],
                    ..plan::NodeText::default()
                });
                return Ok((Built { node, layout: built.layout, deps, order: Vec::new() }, ordered));
            }
            let (rows, costs) = (built.node.rows, (built.node.startup_cost, built.node.total_cost));
            let width = built.node.width;
            let mut node = self.node(PlanOp::Gate(Arc::new(built.node), code), width, rows, costs, &deps);
            self.describe(&mut node, |p| plan::NodeText {
                node_type: "Result".into(),
                props: vec![super::planner::prop("One-Time Filter", p.text(&e))],
                ..plan::NodeText::default()
            });
            built.node = node;
            built.deps = deps;
        }
        Ok((built, ordered))
    }

    /// Ways to get the rows of a group. `want`: an order that would be welcome; `merges`: what they may be merged by with others.
    fn solve(&mut self, q: &Query, group: Group, want: &[OrderKey], merges: &[Expr]) -> Result<Vec<Rc<Path>>, SqlError> {
        let Group { items, quals } = group;
        let sets: Vec<RelSet> = items.iter().map(Item::rels).collect();
        let mut own: Vec<Vec<Expr>> = items.iter().map(|_| Vec::new()).collect();
        let mut joins: Vec<(Expr, RelSet)> = Vec::new();
        let here = sets.iter().fold(RelSet::default(), |s, r| s.union(r));
        for e in quals {
            let used = rels_of(&e);
            // References to tables outside of the group come from LATERAL; the rest decides.
            let mine = used.minus(&used.minus(&here));
            match sets.iter().position(|s| mine.subset(s)) {
                Some(i) => {
                    if let Some(list) = own.get_mut(i) {
                        list.push(e);
                    }
                }
                None => joins.push((e, mine)),
            }
        }
        let join_exprs: Vec<Expr> = joins.iter().map(|(e, _)| e.clone()).collect();
        let mut merges = merges.to_vec();
        merges.extend(merge_sides(&join_exprs));
        let mut leaves: Vec<Vec<Rc<Path>>> = Vec::with_capacity(items.len());
        for (item, own) in items.into_iter().zip(own) {
            let want = wanted_of(&item.rels(), want, &join_exprs);
            leaves.push(self.item_paths(q, item, own, &join_exprs, &want, &merges)?);
        }
        if leaves.len() == 1 {
            return Ok(leaves.pop().unwrap_or_default());
        }
        self.order(q, &leaves, &joins, want)
    }

    /// The best of ways to get the same rows: the cheapest of those in the wanted order and of the cheapest of all, sorted.
    fn choose(&self, paths: Vec<Rc<Path>>, want: &[OrderKey], limit: Option<f64>) -> Result<Rc<Path>, SqlError> {
        let cheapest = cheapest(&paths).cloned();
        let ordered = |p: &Path| want.is_empty() || super::path::satisfies(&p.order, want, &[]);
        let mut best: Option<(Rc<Path>, f64, f64)> = None;
        for p in paths {
            let (startup, total) = if ordered(&p) {
                (p.startup, p.total)
            } else if cheapest.as_ref().is_some_and(|c| Rc::ptr_eq(c, &p)) {
                self.sort_costs(&p, limit)
            } else {
                continue;
            };
            let fraction = limit.map_or(1.0, |n| (n / p.rows.max(1.0)).min(1.0));
            let cost = startup + (total - startup) * fraction;
            if best.as_ref().is_none_or(|(_, c, s)| cost < *c || cost <= *c && startup < *s) {
                best = Some((p, cost, startup));
            }
        }
        best.map(|(p, _, _)| p).ok_or_else(|| SqlError::internal("no path"))
    }

    /// What a path costs once it is sorted, up to the first row and in all. PostgreSQL: `cost_sort`.
    fn sort_costs(&self, path: &Path, limit: Option<f64>) -> (f64, f64) {
        let rows = path.rows.max(2.0);
        let compares = match limit {
            Some(n) if n * 2.0 < rows => (2.0 * n.max(1.0)).log2(),
            _ => rows.log2(),
        };
        let startup = path.total + self.unless(Setting::EnableSort) + rows * compares * cost::OPERATOR * 2.0;
        (startup, startup + rows * cost::OPERATOR)
    }

    /// A path's rows in an order, which they may be in already.
    pub(super) fn sorted(&self, path: &Rc<Path>, order: &[OrderKey]) -> Rc<Path> {
        if super::path::satisfies(&path.order, order, &[]) {
            return path.clone();
        }
        let (startup, total) = self.sort_costs(path, None);
        Rc::new(Path {
            kind: PathKind::Sort(path.clone(), order.to_vec()),
            rels: path.rels.clone(),
            requires: path.requires.clone(),
            rows: path.rows,
            startup,
            total,
            order: order.to_vec(),
        })
    }

    /// Whether not all of this level's rows may be asked for.
    fn limited(&self) -> bool {
        self.levels.last().is_some_and(|l| l.limited)
    }

    fn item_paths(
        &mut self,
        q: &Query,
        item: Item,
        own: Vec<Expr>,
        joins: &[Expr],
        want: &[OrderKey],
        merges: &[Expr],
    ) -> Result<Vec<Rc<Path>>, SqlError> {
        match item {
            Item::Rel(rt) => self.rel_paths(q, rt, own, joins, (want, merges)),
            Item::Outer { mut left, mut right, kind, mut on } => {
                let right_rels = right.rels();
                let left_rels = left.rels();
                let mut above = Vec::new();
                if kind == JoinKind::Left {
                    // WHERE on the kept side goes below; ON of the nullable side too.
                    for e in own {
                        if rels_of(&e).overlaps(&right_rels) || e.is_volatile() { above.push(e) } else { left.quals.push(e) }
                    }
                    let (push, keep): (Vec<Expr>, Vec<Expr>) =
                        on.into_iter().partition(|e| !rels_of(e).overlaps(&left_rels) && !rels_of(e).is_empty());
                    right.quals.extend(push);
                    on = keep;
                } else {
                    above = own;
                }
                let mut sides = merges.to_vec();
                sides.extend(merge_sides(&on));
                let kept = if kind == JoinKind::Left && want.iter().all(|k| rels_of(&k.expr).subset(&left_rels)) { want } else { &[] };
                let left = self.solve(q, left, kept, &sides)?;
                // The nullable side on its own, or looked up for each left row.
                let mut lookups = Vec::new();
                if let ([Item::Rel(rt)], JoinKind::Left) = (right.items.as_slice(), kind) {
                    lookups = self.rel_paths(q, *rt, right.quals.clone(), &on, (&[], &[]))?;
                    lookups.retain(|p| p.requires.subset(&left_rels) && !p.requires.is_empty());
                }
                let right = self.solve(q, right, &[], &sides)?;
                let mut paths = Vec::new();
                self.join_all(q, kind, (&left, &right, &lookups), &on, want, &mut paths);
                if paths.is_empty() {
                    let message = "FULL JOIN is only supported with merge-joinable or hash-joinable join conditions";
                    return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message));
                }
                if above.is_empty() {
                    return Ok(paths);
                }
                let filtered = paths.into_iter().map(|best| {
                    let kept: f64 = above.iter().map(|e| selectivity(q, e, &|_| best.rows)).product();
                    Rc::new(Path {
                        rels: best.rels.clone(),
                        requires: best.requires.union(&above.iter().fold(RelSet::default(), |s, e| s.union(&rels_of(e))).minus(&best.rels)),
                        rows: (best.rows * kept).max(1.0),
                        startup: best.startup,
                        total: best.total + best.rows * cost::OPERATOR,
                        order: best.order.clone(),
                        kind: PathKind::Filter(best, above.clone()),
                    })
                });
                Ok(filtered.collect())
            }
        }
    }

    /// Adds the ways to join two sides. `lookups`: ways to get the right one's rows for each of the left one's.
    /// PostgreSQL: `add_paths_to_joinrel`.
    fn join_all(
        &self,
        q: &Query,
        kind: JoinKind,
        (left, right, lookups): (Paths<'_>, Paths<'_>, Paths<'_>),
        quals: &[Expr],
        want: &[OrderKey],
        out: &mut Vec<Rc<Path>>,
    ) {
        let limited = self.limited();
        let mut add = |p: Rc<Path>| add_path(out, p, limited);
        let Some(best_left) = cheapest(left) else { return };
        let right_best = cheapest(right);
        let right_rels = match (right_best, lookups.first()) {
            (Some(p), _) | (None, Some(p)) => p.rels.clone(),
            (None, None) => return,
        };
        // A side that is run inside of the other can be neither sorted nor hashed.
        let apart = right_best.filter(|r| !r.requires.overlaps(&best_left.rels) && !best_left.requires.overlaps(&r.rels));
        let (keys, rest) = hash_keys(quals, &best_left.rels, &right_rels);
        // Inner joins come both ways anyway.
        let other_way = match kind {
            JoinKind::Left => Some(JoinKind::Right),
            JoinKind::Full => Some(JoinKind::Full),
            JoinKind::Inner | JoinKind::Right | JoinKind::Semi | JoinKind::Anti => None,
        };
        if let Some(r) = apart {
            let (pairs, others) = merge_pairs(quals, &best_left.rels, &right_rels);
            if !pairs.is_empty() {
                self.merges(q, kind, (left, right), &pairs, &others, want, &mut add);
                if let Some(kind) = other_way {
                    let turned: Vec<Pair> =
                        pairs.iter().map(|p| Pair { left: p.right.clone(), right: p.left.clone(), qual: p.qual.clone() }).collect();
                    self.merges(q, kind, (right, left), &turned, &others, want, &mut add);
                }
            }
            if !keys.is_empty() {
                add(self.hash(q, kind, best_left, r, &keys, &rest));
                if let Some(kind) = other_way {
                    let turned: Vec<(Expr, Expr)> = keys.iter().map(|(l, r)| (r.clone(), l.clone())).collect();
                    add(self.hash(q, kind, r, best_left, &turned, &rest));
                }
            }
        }
        if kind == JoinKind::Full {
            // What always holds, or never: every row pairs with every other, or none does.
            if let Some(r) = apart.filter(|_| keys.is_empty() && quals.iter().all(|e| rels_of(e).is_empty())) {
                add(self.hash(q, kind, best_left, r, &keys, &rest));
            }
            return;
        }
        for l in left {
            for r in right_best.into_iter().chain(lookups) {
                add(self.nest(q, kind, l, r, quals));
            }
        }
    }

    fn rel_paths(
        &mut self,
        q: &Query,
        rt: usize,
        mut quals: Vec<Expr>,
        joins: &[Expr],
        useful: (&[OrderKey], &[Expr]),
    ) -> Result<Vec<Rc<Path>>, SqlError> {
        let Some(rte) = q.rtable.get(rt) else { return Err(SqlError::internal("range table")) };
        // Cheap conditions first, as they were written otherwise.
        quals.sort_by_key(|e| (e.has_sublink(), e.is_volatile()));
        let rows_of_filter =
            |q: &Query, rows: f64, quals: &[Expr]| (rows * quals.iter().map(|e| selectivity(q, e, &|_| rows)).product::<f64>()).max(1.0);
        let outside = |quals: &[Expr]| quals.iter().fold(RelSet::default(), |s, e| s.union(&rels_of(e))).minus(&RelSet::one(rt));
        let mut ready = |rows: f64, startup: f64, total: f64, requires: RelSet, what: Ready, quals: Vec<Expr>| {
            let kept = rows_of_filter(q, rows, &quals);
            let requires = requires.union(&outside(&quals));
            vec![Rc::new(Path {
                kind: PathKind::Ready(rt, RefCell::new(Some(what)), quals),
                rels: RelSet::one(rt),
                requires,
                rows: kept,
                startup,
                total: total + rows * cost::OPERATOR,
                order: Vec::new(),
            })]
        };
        match &rte.source {
            RteSource::Table(relation) => {
                let relation = relation.clone();
                if relation.persistence != Persistence::Permanent && self.session.engine.is_in_recovery() {
                    let message = "cannot access temporary or unlogged relations during recovery";
                    return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message));
                }
                match relation.source {
                    Source::File(_) => self.table_paths(q, rt, &relation, &quals, joins, useful),
                    Source::Virtual(_) | Source::View(_) | Source::None => {
                        let (_, rows) = self.size(&relation);
                        Ok(ready(rows, 0.0, 5.0 + rows * cost::TUPLE, RelSet::default(), Ready::Late, quals))
                    }
                }
            }
            RteSource::Subquery(inner) => {
                let (inner, quals) = push_down(inner, rt, quals);
                self.query_path(&inner, quals, &mut ready)
            }
            RteSource::Cte(up, index) => {
                let level = self.levels.len().checked_sub(up + 1).ok_or_else(|| SqlError::internal("WITH query"))?;
                let Some(cte) = self.levels.get(level).and_then(|l| l.ctes.get(*index)).cloned() else {
                    return Err(SqlError::internal("WITH query"));
                };
                let plain = cte.recursive.is_none() && cte.query.command == query::Command::Select && cte.query.row_marks.is_empty();
                let inline = plain
                    && (cte.materialized == Some(false) || (cte.materialized.is_none() && cte.references == 1))
                    && !has_volatile(&cte.query);
                if inline {
                    let mut inner = cte.query;
                    inner.shift_outer(1, *up);
                    let (inner, quals) = push_down(&inner, rt, quals);
                    return self.query_path(&inner, quals, &mut ready);
                }
                let (number, deps, rows) = self.cte_number(level, *index)?;
                let width = rte.columns.len();
                let mut node = self.node(PlanOp::CteScan(number), width, rows, (0.0, rows * cost::TUPLE * 2.0), &deps);
                let (name, alias) = (cte.name.clone(), rte.alias.clone());
                self.describe(&mut node, |_| plan::NodeText {
                    node_type: "CTE Scan".into(),
                    relation: Some(name.to_string()),
                    alias: Some(alias.to_string()),
                    ..plan::NodeText::default()
                });
                let total = node.total_cost;
                let built = Built { node, layout: Layout { width, ..Layout::default() }, deps, order: Vec::new() };
                Ok(ready(rows, 0.0, total, RelSet::default(), Ready::Query(built, Vec::new()), quals))
            }
            RteSource::Working(up, index) => {
                let level = self.levels.len().checked_sub(up + 1).ok_or_else(|| SqlError::internal("WITH query"))?;
                let (number, turn) = self
                    .working
                    .iter()
                    .rev()
                    .find(|w| w.level == level && w.cte == *index)
                    .map(|w| (w.number, w.turn))
                    .ok_or_else(|| SqlError::internal("recursive reference outside of its query"))?;
                let width = rte.columns.len();
                let deps = Deps::from([turn]);
                let mut node = self.node(PlanOp::WorkingScan(number), width, 100.0, (0.0, 1.0), &deps);
                let alias = rte.alias.clone();
                self.describe(&mut node, |_| plan::NodeText {
                    node_type: "WorkTable Scan".into(),
                    relation: Some(alias.to_string()),
                    ..plan::NodeText::default()
                });
                let built = Built { node, layout: Layout { width, ..Layout::default() }, deps, order: Vec::new() };
                Ok(ready(100.0, 0.0, 1.0, RelSet::default(), Ready::Query(built, Vec::new()), quals))
            }
            RteSource::Function { calls, .. } => {
                let mut rows = 1.0f64;
                let mut requires = RelSet::default();
                for (e, _) in calls {
                    requires = requires.union(&rels_of(e));
                    if let ExprKind::Call(c) = &e.kind
                        && c.func.returns_set
                    {
                        rows = rows.max(self.set_rows(c));
                    }
                }
                Ok(ready(rows, 0.0, rows * cost::TUPLE, requires, Ready::Late, quals))
            }
            RteSource::Values(lists) => {
                #[expect(clippy::cast_precision_loss, reason = "an estimate")]
                let rows = lists.len() as f64;
                let requires = lists.iter().flatten().fold(RelSet::default(), |s, e| s.union(&rels_of(e)));
                Ok(ready(rows, 0.0, rows * cost::OPERATOR, requires, Ready::Late, quals))
            }
            RteSource::Excluded | RteSource::None => Err(SqlError::internal("range table entry without rows")),
        }
    }

    /// Rows of a set-returning call: generate_series over constants is known.
    fn set_rows(&mut self, c: &crate::sql::bind::expr::CallExpr) -> f64 {
        if c.func.name == "generate_series" {
            let values: Vec<Option<Datum>> = c.args.iter().map(|a| self.constant(a)).collect();
            let int = |v: &Option<Datum>| match v {
                Some(Datum::Int4(v)) => Some(f64::from(*v)),
                #[expect(clippy::cast_precision_loss, reason = "an estimate")]
                Some(Datum::Int8(v)) => Some(*v as f64),
                _ => None,
            };
            if let (Some(from), Some(to)) = (values.first().and_then(int), values.get(1).and_then(int)) {
                let step = values.get(2).and_then(int).unwrap_or(1.0);
                if step != 0.0 {
                    return ((to - from) / step + 1.0).floor().max(1.0);
                }
            }
        }
        f64::from(c.func.rows).max(1.0)
    }

    fn query_path(
        &mut self,
        inner: &Query,
        quals: Vec<Expr>,
        ready: &mut dyn FnMut(f64, f64, f64, RelSet, Ready, Vec<Expr>) -> Vec<Rc<Path>>,
    ) -> Result<Vec<Rc<Path>>, SqlError> {
        let before = self.level()?.requests.len();
        let built = self.query(inner, None)?;
        let requests = self.take_requests(before)?;
        let requires = requests.iter().fold(RelSet::default(), |s, (e, _)| s.union(&rels_of(e)));
        Ok(ready(built.node.rows, built.node.startup_cost, built.node.total_cost, requires, Ready::Query(built, requests), quals))
    }

    /// Chooses the join order.
    fn order(
        &mut self,
        q: &Query,
        leaves: &[Vec<Rc<Path>>],
        joins: &[(Expr, RelSet)],
        want: &[OrderKey],
    ) -> Result<Vec<Rc<Path>>, SqlError> {
        let n = leaves.len();
        let sets: Vec<RelSet> = leaves.iter().map(|l| l.first().map(|p| p.rels.clone()).unwrap_or_default()).collect();
        let all = sets.iter().fold(RelSet::default(), |s, r| s.union(r));
        // The ways to have one item alone: requiring nothing of this group.
        let alone = |i: usize| -> Vec<Rc<Path>> {
            leaves.get(i).map(|l| l.iter().filter(|p| !p.requires.overlaps(&all)).cloned().collect()).unwrap_or_default()
        };
        if n <= EXHAUSTIVE {
            let mut best: Vec<Vec<Rc<Path>>> = vec![Vec::new(); 1 << n];
            for i in 0..n {
                if let Some(slot) = best.get_mut(1 << i) {
                    *slot = alone(i);
                }
            }
            for mask in 1usize..1 << n {
                if mask.count_ones() < 2 {
                    continue;
                }
                let mut found: Vec<Rc<Path>> = Vec::new();
                for connected in [true, false] {
                    // Upwards: of ways that cost the same the first table is the outer one.
                    let mut sub = mask & mask.wrapping_neg();
                    while sub != mask {
                        let other = mask & !sub;
                        if let (Some(left), Some(right)) = (best.get(sub), best.get(other))
                            && !left.is_empty()
                        {
                            let right_leaf = (other.count_ones() == 1).then(|| other.trailing_zeros() as usize);
                            let leaf = right_leaf.and_then(|i| leaves.get(i)).map(Vec::as_slice);
                            self.join_paths(q, (left, right, leaf), joins, connected, want, &mut found);
                        }
                        sub = sub.wrapping_sub(mask) & mask;
                    }
                    // Without a condition between them only if there is no other way.
                    if !found.is_empty() {
                        break;
                    }
                }
                if let Some(slot) = best.get_mut(mask) {
                    *slot = found;
                }
            }
            return best.pop().filter(|paths| !paths.is_empty()).ok_or_else(|| SqlError::internal("no join order"));
        }
        // Greedily: of all pairs the join with the fewest rows.
        let mut parts: Vec<(Vec<Rc<Path>>, Option<usize>)> = (0..n).map(|i| (alone(i), Some(i))).collect();
        while parts.len() > 1 {
            let mut found: Option<(usize, usize, Vec<Rc<Path>>)> = None;
            for connected in [true, false] {
                for a in 0..parts.len() {
                    for b in 0..parts.len() {
                        let (Some((left, _)), Some((right, leaf))) = (parts.get(a), parts.get(b)) else { continue };
                        if a == b || left.is_empty() {
                            continue;
                        }
                        let leaf = leaf.and_then(|i| leaves.get(i)).map(Vec::as_slice);
                        let mut paths = Vec::new();
                        self.join_paths(q, (left, right, leaf), joins, connected, want, &mut paths);
                        let better = |f: &[Rc<Path>]| match (cheapest(&paths), cheapest(f)) {
                            (Some(p), Some(f)) => (p.rows, p.total) < (f.rows, f.total),
                            (p, _) => p.is_some(),
                        };
                        if !paths.is_empty() && found.as_ref().is_none_or(|(_, _, f)| better(f)) {
                            found = Some((a, b, paths));
                        }
                    }
                }
                if found.is_some() {
                    break;
                }
            }
            let Some((a, b, paths)) = found else { return Err(SqlError::internal("no join order")) };
            let (first, second) = (a.max(b), a.min(b));
            parts.remove(first);
            parts.remove(second);
            parts.push((paths, None));
        }
        parts.pop().map(|p| p.0).filter(|paths| !paths.is_empty()).ok_or_else(|| SqlError::internal("no join order"))
    }

    /// Adds the ways to join two parts.
    fn join_paths(
        &self,
        q: &Query,
        (left, right, leaf): (Paths<'_>, Paths<'_>, Option<Paths<'_>>),
        joins: &[(Expr, RelSet)],
        connected: bool,
        want: &[OrderKey],
        out: &mut Vec<Rc<Path>>,
    ) {
        let (Some(left_rels), Some(right_rels)) =
            (left.first().map(|p| &p.rels), right.first().or(leaf.and_then(<[_]>::first)).map(|p| &p.rels))
        else {
            return;
        };
        let both = left_rels.union(right_rels);
        let quals: Vec<Expr> = joins
            .iter()
            .filter(|(_, s)| s.subset(&both) && !s.subset(left_rels) && !s.subset(right_rels))
            .map(|(e, _)| e.clone())
            .collect();
        let lateral = leaf.is_some_and(|l| l.iter().all(|p| p.requires.overlaps(left_rels)));
        if connected && quals.is_empty() && !lateral {
            return;
        }
        let lookups: Vec<Rc<Path>> =
            leaf.unwrap_or_default().iter().filter(|p| p.requires.overlaps(left_rels) && p.requires.subset(left_rels)).cloned().collect();
        self.join_all(q, JoinKind::Inner, (left, right, &lookups), &quals, want, out);
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    fn join_rows(&self, q: &Query, kind: JoinKind, left: &Path, right: &Path, quals: &[Expr]) -> f64 {
        // A side that was looked up by a condition has it in its rows already.
        let answered: &[Expr] = match &right.kind {
            PathKind::Index(i) => &i.answered,
            _ => &[],
        };
        let estimate = |rt: usize| if left.rels.contains(rt) { left.rows } else { right.rows };
        let kept: f64 = quals.iter().filter(|e| !answered.iter().any(|a| a.same(e))).map(|e| selectivity(q, e, &estimate)).product();
        let rows = (left.rows * right.rows * kept).max(1.0);
        match kind {
            JoinKind::Left => rows.max(left.rows),
            JoinKind::Full => rows.max(left.rows).max(right.rows),
            JoinKind::Inner | JoinKind::Right | JoinKind::Semi | JoinKind::Anti => rows,
        }
    }

    fn nest(&self, q: &Query, kind: JoinKind, left: &Rc<Path>, right: &Rc<Path>, quals: &[Expr]) -> Rc<Path> {
        let rows = self.join_rows(q, kind, left, right, quals);
        let again = if right.requires.overlaps(&left.rels) {
            right.total
        } else {
            // Remembered rows.
            right.rows * cost::OPERATOR
        };
        #[expect(clippy::cast_precision_loss, reason = "a cost")]
        let checks = quals.len() as f64 * cost::OPERATOR;
        let off = self.unless(Setting::EnableNestloop);
        let total = off + left.total + right.total + (left.rows - 1.0).max(0.0) * again + left.rows * right.rows * (cost::TUPLE + checks);
        Rc::new(Path {
            kind: PathKind::Nest(kind, left.clone(), right.clone(), quals.to_vec()),
            rels: left.rels.union(&right.rels),
            requires: left.requires.union(&right.requires).minus(&left.rels).minus(&right.rels),
            rows,
            startup: off + left.startup + right.startup,
            total,
            order: left.order.clone(),
        })
    }

    /// Rows of a join by equality.
    pub(super) fn keyed_rows(
        &self,
        q: &Query,
        kind: JoinKind,
        left: &Path,
        right: &Path,
        keys: impl Iterator<Item = (Expr, Expr)>,
        rest: &[Expr],
    ) -> (f64, f64) {
        let mut kept = 1.0;
        for (l, r) in keys {
            let d = |e: &Expr, rows: f64| match super::selectivity::column_of(e) {
                Some((rt, att)) => super::selectivity::distinct_values(q, rt, att, rows),
                None => 200.0f64.min(rows),
            };
            kept /= d(&l, left.rows).max(d(&r, right.rows)).max(1.0);
        }
        let estimate = |rt: usize| if left.rels.contains(rt) { left.rows } else { right.rows };
        let pairs = (left.rows * right.rows * kept).max(1.0);
        kept *= rest.iter().map(|e| selectivity(q, e, &estimate)).product::<f64>();
        let rows = (left.rows * right.rows * kept).max(1.0);
        let rows = match kind {
            JoinKind::Left => rows.max(left.rows),
            JoinKind::Right => rows.max(right.rows),
            JoinKind::Full => rows.max(left.rows).max(right.rows),
            JoinKind::Inner | JoinKind::Semi | JoinKind::Anti => rows,
        };
        (rows, pairs)
    }

    fn hash(&self, q: &Query, kind: JoinKind, left: &Rc<Path>, right: &Rc<Path>, keys: &[(Expr, Expr)], rest: &[Expr]) -> Rc<Path> {
        let (rows, _) = self.keyed_rows(q, kind, left, right, keys.iter().cloned(), rest);
        #[expect(clippy::cast_precision_loss, reason = "a cost")]
        let hashing = keys.len().max(1) as f64 * cost::OPERATOR;
        let build = self.unless(Setting::EnableHashjoin) + right.total + right.rows * (hashing + cost::TUPLE);
        let total = build + left.total + left.rows * hashing + rows * cost::TUPLE;
        Rc::new(Path {
            kind: PathKind::Hash(kind, left.clone(), right.clone(), keys.to_vec(), rest.to_vec()),
            rels: left.rels.union(&right.rels),
            requires: left.requires.union(&right.requires).minus(&left.rels).minus(&right.rels),
            rows,
            startup: build + left.startup,
            total,
            order: Vec::new(),
        })
    }
}

/// The cheapest of some paths.
pub(super) fn cheapest(paths: &[Rc<Path>]) -> Option<&Rc<Path>> {
    paths.iter().min_by(|a, b| a.total.total_cmp(&b.total))
}

/// An order as tables of a join may come in it: by what is theirs, or equal to it by a condition of the join.
fn wanted_of(rels: &RelSet, want: &[OrderKey], joins: &[Expr]) -> Vec<OrderKey> {
    let own = |e: &Expr| {
        let used = rels_of(e);
        used.subset(rels) && !used.is_empty()
    };
    let translated = want.iter().map(|k| {
        if own(&k.expr) {
            return Some(k.clone());
        }
        let other = joins.iter().filter_map(merge_pair).find_map(|(a, b)| {
            let (is_a, is_b) = (strip(&a).same(strip(&k.expr)), strip(&b).same(strip(&k.expr)));
            if is_a && own(&b) {
                Some(b)
            } else if is_b && own(&a) {
                Some(a)
            } else {
                None
            }
        });
        other.map(|e| OrderKey::of(strip(&e), k.desc, k.nulls_first))
    });
    translated.collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// Splits conditions into equalities that can be hashed, as (left, right), and the rest.
fn hash_keys(quals: &[Expr], left: &RelSet, right: &RelSet) -> (Vec<(Expr, Expr)>, Vec<Expr>) {
    let mut keys = Vec::new();
    let mut rest = Vec::new();
    for e in quals {
        if let ExprKind::Call(c) = &e.kind
            && let Some(oper) = c.oper
            && oper.name == "="
            && oper.can_hash
            && let [a, b] = c.args.as_slice()
            && !a.is_volatile()
            && !b.is_volatile()
        {
            let (ra, rb) = (rels_of(a), rels_of(b));
            if !ra.is_empty() && !rb.is_empty() {
                if ra.subset(left) && rb.subset(right) {
                    keys.push((a.clone(), b.clone()));
                    continue;
                }
                if rb.subset(left) && ra.subset(right) {
                    keys.push((b.clone(), a.clone()));
                    continue;
                }
            }
        }
        rest.push(e.clone());
    }
    (keys, rest)
}

fn has_volatile(q: &Query) -> bool {
    let mut found = false;
    q.visit_exprs(&mut |e, _| found = found || e.is_volatile(), 0);
    found
}

/// Moves conditions on a subquery's output into it where that changes nothing but the work. The rest stays.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
fn push_down(inner: &Query, rt: usize, quals: Vec<Expr>) -> (Query, Vec<Expr>) {
    let mut inner = inner.clone();
    let simple = inner.set_op.is_none()
        && inner.command == query::Command::Select
        && inner.limit.is_none()
        && inner.offset.is_none()
        && inner.windows.is_empty()
        && !inner.has_aggregates
        && matches!(inner.distinct, Distinct::No | Distinct::All)
        && inner.row_marks.is_empty()
        && !inner.targets.iter().any(|t| t.expr.returns_set());
    if !simple {
        return (inner, quals);
    }
    let visible: Vec<Expr> = inner.targets.iter().filter(|t| !t.junk).map(|t| t.expr.clone()).collect();
    let mut rest = Vec::new();
    let mut pushed = Vec::new();
    for e in quals {
        let only_mine = rels_of(&e) == RelSet::one(rt);
        let movable = only_mine
            && !e.has_sublink()
            && !e.is_volatile()
            && !e.any(&|x| match x.kind {
                ExprKind::Var(r, att, 0) if r == rt => {
                    match usize::try_from(att).ok().and_then(|a| a.checked_sub(1)).and_then(|a| visible.get(a)) {
                        Some(t) => t.is_volatile() || t.has_sublink(),
                        None => true,
                    }
                }
                ExprKind::Agg(_) => true,
                _ => false,
            });
        if movable {
            let mut moved = e;
            substitute(&mut moved, rt, &visible);
            pushed.push(moved);
        } else {
            rest.push(e);
        }
    }
    if !pushed.is_empty() {
        let mut all: Vec<Expr> = inner.quals.take().map(Expr::conjuncts).unwrap_or_default();
        all.extend(pushed);
        inner.quals = Expr::and(all);
    }
    (inner, rest)
}

/// Replaces columns of the subquery by its expressions; what refers further out is one level further out now.
fn substitute(e: &mut Expr, rt: usize, visible: &[Expr]) {
    if let ExprKind::Var(r, att, up) = &mut e.kind {
        if *up == 0 && *r == rt {
            if let Some(t) = usize::try_from(*att).ok().and_then(|a| a.checked_sub(1)).and_then(|a| visible.get(a)) {
                *e = t.clone();
            }
        } else {
            *up += 1;
        }
        return;
    }
    let _infallible = e.children_mut(&mut |c| {
        substitute(c, rt, visible);
        Ok(())
    });
}
