//! FROM and WHERE: which order to join in, and how.
//!
//! Inner joins are flattened into a list of items and a list of conditions and ordered by cost (dynamic programming up to
//! `EXHAUSTIVE` items, then greedily). An outer join is an item whose two sides are ordered on their own.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::path::{Equal, IndexPath, MergeKey, MergePath, OrderKey, Path, PathKind, Ready, add_path, cost, rels_of};
use super::planner::{Built, Deps, Layout, Nest, Planner, RelSet};
use super::selectivity::{Spread, selectivity, strip};
use crate::config::Setting;
use crate::executor::code::Code;
use crate::executor::plan::{
    self, FunctionScan, HashJoin, IndexBound, IndexEqual, IndexScan, JoinKind, MergeJoin, NestLoop, PlanOp, RelationUse, Scan, ScanColumn,
    SortColumn,
};
use crate::sql::bind::expr::{Expr, ExprKind};
use crate::sql::bind::query::{self, Distinct, FromItem, Query, RteSource};
use crate::sql::catalog::relation::Persistence;
use crate::sql::catalog::{RelKind, Relation, Source};
use crate::sql::types::key::KeyOrder;
use crate::sql::types::{Datum, oids};
use crate::sqlstate::{SqlError, SqlState};

/// The ways to the rows of one side.
type Paths<'a> = &'a [Rc<Path>];

/// Items up to which all join orders are compared.
const EXHAUSTIVE: usize = 9;

/// An item of a flattened FROM.
enum Item {
    Rel(usize),
    Outer { left: Group, right: Group, kind: JoinKind, on: Vec<Expr> },
}

/// Items joined by inner joins, and their conditions.
#[derive(Default)]
struct Group {
    items: Vec<Item>,
    quals: Vec<Expr>,
}

impl Item {
    fn rels(&self) -> RelSet {
        match self {
            Self::Rel(rt) => RelSet::one(*rt),
            Self::Outer { left, right, .. } => left.rels().union(&right.rels()),
        }
    }
}

impl Group {
    fn rels(&self) -> RelSet {
        self.items.iter().fold(RelSet::default(), |s, i| s.union(&i.rels()))
    }
}

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

fn flatten(item: &FromItem, group: &mut Group) {
    match item {
        FromItem::Rel(rt) => group.items.push(Item::Rel(*rt)),
        FromItem::Join(j) => match j.kind {
            JoinKind::Inner | JoinKind::Semi | JoinKind::Anti => {
                flatten(&j.left, group);
                flatten(&j.right, group);
                if let Some(e) = &j.quals {
                    group.quals.extend(e.clone().conjuncts());
                }
            }
            JoinKind::Left | JoinKind::Right | JoinKind::Full => {
                let (mut left, mut right) = (Group::default(), Group::default());
                flatten(&j.left, &mut left);
                flatten(&j.right, &mut right);
                let on = j.quals.clone().map(Expr::conjuncts).unwrap_or_default();
                let (left, right, kind) = if j.kind == JoinKind::Right { (right, left, JoinKind::Left) } else { (left, right, j.kind) };
                group.items.push(Item::Outer { left, right, kind, on });
            }
        },
    }
}

/// Does the condition hold only if some column of `rels` is not NULL?
#[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
fn strict_in(e: &Expr, rels: &RelSet) -> bool {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    fn strict_value(e: &Expr, rels: &RelSet) -> bool {
        match &e.kind {
            ExprKind::Var(rt, _, 0) => rels.contains(*rt),
            ExprKind::Relabel(x) | ExprKind::InOut(x) | ExprKind::Reinterpret(x) | ExprKind::Typmod(x, _) => strict_value(x, rels),
            ExprKind::Call(c) => c.func.strict && !c.func.returns_set && c.args.iter().any(|a| strict_value(a, rels)),
            _ => false,
        }
    }
    match &e.kind {
        ExprKind::IsNull(x, true) => strict_value(x, rels) && !matches!(x.kind, ExprKind::Row(..)),
        ExprKind::ArrayCompare(c) => c.func.strict && c.any && strict_value(&c.left, rels),
        ExprKind::And(items) => items.iter().any(|i| strict_in(i, rels)),
        ExprKind::Or(items) => items.iter().all(|i| strict_in(i, rels)),
        _ => strict_value(e, rels),
    }
}

/// Turns outer joins whose NULLs a condition throws away into inner ones.
fn reduce(group: &mut Group, outer_quals: &[Expr]) {
    let mut i = 0;
    while i < group.items.len() {
        let quals: Vec<Expr> = group.quals.iter().chain(outer_quals).cloned().collect();
        let mut dissolve = false;
        if let Some(Item::Outer { left, right, kind, on }) = group.items.get_mut(i) {
            if *kind == JoinKind::Full {
                let keeps_left = quals.iter().any(|q| strict_in(q, &left.rels()));
                let keeps_right = quals.iter().any(|q| strict_in(q, &right.rels()));
                match (keeps_left, keeps_right) {
                    (true, true) => dissolve = true,
                    (true, false) => *kind = JoinKind::Left,
                    (false, true) => {
                        std::mem::swap(left, right);
                        *kind = JoinKind::Left;
                    }
                    (false, false) => {}
                }
            }
            if *kind == JoinKind::Left && quals.iter().any(|q| strict_in(q, &right.rels())) {
                dissolve = true;
            }
            if !dissolve {
                let inherited: Vec<Expr> = if *kind == JoinKind::Left { quals.clone() } else { Vec::new() };
                reduce(left, &inherited);
                // Below the nullable side only its own ON filters.
                let own = on.clone();
                reduce(right, if *kind == JoinKind::Left { &own } else { &[] });
            }
        }
        if dissolve {
            if let Item::Outer { left, right, on, .. } = group.items.remove(i) {
                for (n, item) in left.items.into_iter().chain(right.items).enumerate() {
                    group.items.insert(i + n, item);
                }
                group.quals.extend(left.quals);
                group.quals.extend(right.quals);
                group.quals.extend(on);
            }
            // Look at what came in its place.
            continue;
        }
        i += 1;
    }
}

/// The range table entries that outer joins may fill with NULLs.
fn nullable(group: &Group, under: bool, found: &mut Vec<usize>) {
    for item in &group.items {
        match item {
            Item::Rel(rt) if under => found.push(*rt),
            Item::Rel(_) => {}
            Item::Outer { left, right, kind, .. } => {
                nullable(left, under || *kind == JoinKind::Full, found);
                nullable(right, true, found);
            }
        }
    }
}

/// `0A000` if rows are to be locked that may not be there. PostgreSQL: `make_outerjoininfo`.
fn refuse_nullable_locks(q: &Query, group: &Group) -> Result<(), SqlError> {
    if q.row_marks.is_empty() {
        return Ok(());
    }
    let mut found = Vec::new();
    nullable(group, false, &mut found);
    match q.row_marks.iter().find(|m| found.contains(&m.rt)) {
        Some(mark) => {
            let message = format!("{} cannot be applied to the nullable side of an outer join", mark.strength.clause());
            Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message))
        }
        None => Ok(()),
    }
}

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
    fn sorted(&self, path: &Rc<Path>, order: &[OrderKey]) -> Rc<Path> {
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

    /// Adds the ways to merge two sides: both sorted, the outer one as it comes, the inner one as it comes. PostgreSQL:
    /// `sort_inner_and_outer`, `match_unsorted_outer` and `generate_mergejoin_paths` in optimizer/path/joinpath.c.
    #[expect(clippy::too_many_arguments, reason = "the parts of a join")]
    fn merges(
        &self,
        q: &Query,
        kind: JoinKind,
        (left, right): (&[Rc<Path>], &[Rc<Path>]),
        keys: &[Pair],
        rest: &[Expr],
        want: &[OrderKey],
        add: &mut dyn FnMut(Rc<Path>),
    ) {
        // In a merge every row of a key pairs with every row of the other side, or it is not known in time which of them never did.
        let exact = matches!(kind, JoinKind::Right | JoinKind::Full);
        let (Some(best_left), Some(best_right)) = (cheapest(left), cheapest(right)) else { return };
        if exact && !rest.is_empty() {
            return;
        }
        // The wanted order first, if the join can give it; then each key in front once.
        let mut first: Vec<(usize, bool, bool)> = Vec::new();
        if matches!(kind, JoinKind::Inner | JoinKind::Left) {
            for w in want {
                let side =
                    |p: &Pair| strip(&p.left).same(strip(&w.expr)) || kind == JoinKind::Inner && strip(&p.right).same(strip(&w.expr));
                match keys.iter().position(side) {
                    Some(i) if !first.iter().any(|(n, ..)| *n == i) => first.push((i, w.desc, w.nulls_first)),
                    _ => {
                        first.clear();
                        break;
                    }
                }
            }
        }
        let directed = |i: usize, given: &[(usize, bool, bool)]| -> Option<MergeKey> {
            let pair = keys.get(i)?;
            let (desc, nulls_first) = given.iter().find(|g| g.0 == i).map_or((false, false), |g| (g.1, g.2));
            Some(MergeKey { left: pair.left.clone(), right: pair.right.clone(), desc, nulls_first })
        };
        for front in 0..keys.len() {
            let mut numbers: Vec<usize> = if first.is_empty() { Vec::new() } else { first.iter().map(|f| f.0).collect() };
            numbers.extend((0..keys.len()).filter(|i| !first.iter().any(|f| f.0 == *i)));
            let number = numbers.remove(front);
            numbers.insert(0, number);
            let chosen: Vec<MergeKey> = numbers.into_iter().filter_map(|i| directed(i, &first)).collect();
            let (l, r) = (self.sorted(best_left, &left_order(&chosen)), self.sorted(best_right, &right_order(&chosen)));
            add(self.merge(q, kind, &l, &r, chosen, rest));
        }
        for l in left {
            // As many of the keys as its order begins with.
            let mut chosen: Vec<MergeKey> = Vec::new();
            let mut used: Vec<usize> = Vec::new();
            for o in &l.order {
                let Some((i, pair)) = keys.iter().enumerate().find(|(i, p)| !used.contains(i) && o.is(&p.left)) else { break };
                used.push(i);
                chosen.push(MergeKey { left: pair.left.clone(), right: pair.right.clone(), desc: o.desc, nulls_first: o.nulls_first });
            }
            if chosen.is_empty() || exact && chosen.len() < keys.len() {
                continue;
            }
            let with_rest = |n: usize| -> Vec<Expr> {
                let others = keys.iter().enumerate().filter(|(i, _)| !used.iter().take(n).any(|u| u == i));
                others.map(|(_, p)| p.qual.clone()).chain(rest.iter().cloned()).collect()
            };
            let sorted = self.sorted(best_right, &right_order(&chosen));
            add(self.merge(q, kind, l, &sorted, chosen.clone(), &with_rest(chosen.len())));
            for n in (1..=chosen.len()).rev() {
                let part = chosen.get(..n).unwrap_or_default();
                let order = right_order(part);
                let best =
                    right.iter().filter(|r| super::path::satisfies(&r.order, &order, &[])).min_by(|a, b| a.total.total_cmp(&b.total));
                if let Some(r) = best {
                    add(self.merge(q, kind, l, r, part.to_vec(), &with_rest(n)));
                }
                if exact {
                    break;
                }
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
    fn keyed_rows(
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

    /// A merge join of two sides that are in order. PostgreSQL: `final_cost_mergejoin` in optimizer/path/costsize.c.
    fn merge(&self, q: &Query, kind: JoinKind, left: &Rc<Path>, right: &Rc<Path>, keys: Vec<MergeKey>, rest: &[Expr]) -> Rc<Path> {
        let pairs = keys.iter().map(|k| (k.left.clone(), k.right.clone()));
        let (rows, pairs) = self.keyed_rows(q, kind, left, right, pairs, rest);
        let single = unique_by(q, right, keys.iter().map(|k| &k.right));
        let ((left_from, left_upto), (right_from, right_upto)) = keys.first().map_or(((0.0, 1.0), (0.0, 1.0)), |k| parts_read(q, kind, k));
        let right_rows = (right.rows * right_upto).max(1.0);
        // Rows of the inner side that are read again, for each further outer row of the same key.
        let again = if single && rest.is_empty() { 0.0 } else { (pairs - right.rows).max(0.0) };
        let ratio = 1.0 + again / right_rows;
        let (left_run, right_run) = (left.total - left.startup, right.total - right.startup);
        let run = right_run * (right_upto - right_from);
        let (bare, kept) = (run * ratio, run + cost::OPERATOR * right_rows * ratio);
        // Going back takes an index or rows that are kept.
        let goes_back = match &right.kind {
            PathKind::Index(i) => !i.bitmap,
            PathKind::Sort(..) => true,
            PathKind::Seq(..)
            | PathKind::Tid(..)
            | PathKind::Ready(..)
            | PathKind::Nest(..)
            | PathKind::Hash(..)
            | PathKind::Merge(_)
            | PathKind::Filter(..) => false,
        };
        let materialize =
            !(single && rest.is_empty()) && (!goes_back || self.session.settings.bool(Setting::EnableMaterial) && kept < bare);
        #[expect(clippy::cast_precision_loss, reason = "a cost")]
        let (compare, check) = (keys.len() as f64 * cost::OPERATOR, rest.len() as f64 * cost::OPERATOR);
        let (left_skipped, right_skipped) = ((left.rows * left_from).round(), (right.rows * right_from).round() * ratio);
        let startup = self.unless(Setting::EnableMergejoin)
            + left.startup
            + right.startup
            + left_run * left_from
            + right_run * right_from
            + compare * (left_skipped + right_skipped);
        let total = startup
            + left_run * (left_upto - left_from)
            + if materialize { kept } else { bare }
            + compare * ((left.rows * left_upto).max(1.0) - left_skipped + right_rows * ratio - right_skipped)
            + (cost::TUPLE + check) * pairs;
        let order = match kind {
            JoinKind::Inner | JoinKind::Left | JoinKind::Semi | JoinKind::Anti => {
                // In an inner join what is equal orders alike.
                let mut order = if left.order.is_empty() { left_order(&keys) } else { left.order.clone() };
                if kind == JoinKind::Inner {
                    for (o, k) in order.iter_mut().zip(&keys).filter(|(o, k)| o.is(&k.left)) {
                        o.also.push(k.right.clone());
                    }
                }
                order
            }
            JoinKind::Right | JoinKind::Full => Vec::new(),
        };
        Rc::new(Path {
            rels: left.rels.union(&right.rels),
            requires: left.requires.union(&right.requires).minus(&left.rels).minus(&right.rels),
            rows,
            startup,
            total,
            order,
            kind: PathKind::Merge(Box::new(MergePath {
                kind,
                left: left.clone(),
                right: right.clone(),
                keys,
                rest: rest.to_vec(),
                materialize,
            })),
        })
    }

    /// Makes the nodes of a path.
    fn build(&mut self, q: &Query, wanted: &Wanted, path: &Path) -> Result<Built, SqlError> {
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

/// The cheapest of some paths.
fn cheapest(paths: &[Rc<Path>]) -> Option<&Rc<Path>> {
    paths.iter().min_by(|a, b| a.total.total_cmp(&b.total))
}

/// Which parts of its two sides a merge reads, from and up to, the rest having nothing to be merged with; as far as ANALYZE knows how far
/// their numbers go. PostgreSQL: `mergejoinscansel` in utils/adt/selfuncs.c.
fn parts_read(q: &Query, kind: JoinKind, key: &MergeKey) -> ((f64, f64), (f64, f64)) {
    let stats = |e: &Expr| {
        let (rt, att) = super::selectivity::column_of(e)?;
        let Some(RteSource::Table(relation)) = q.rtable.get(rt).map(|r| &r.source) else { return None };
        let number = matches!(strip(e).ty, oids::INT2 | oids::INT4 | oids::INT8 | oids::FLOAT4 | oids::FLOAT8 | oids::NUMERIC);
        let position = usize::try_from(att).ok()?.checked_sub(1)?;
        if number { relation.stats.get(position)?.as_deref().and_then(Spread::of) } else { None }
    };
    let whole = (0.0, 1.0);
    let (Some(left), Some(right)) = (stats(&key.left), stats(&key.right)) else { return (whole, whole) };
    // Fractions before the other's first value, and up to its last.
    let part = |own: &Spread, other: &Spread| {
        let (least, greatest) = other.range();
        if key.desc { (1.0 - own.upto(greatest), 1.0 - own.before(least)) } else { (own.before(least), own.upto(greatest)) }
    };
    let ((mut left_from, mut left_upto), (mut right_from, mut right_upto)) = (part(&left, &right), part(&right, &left));
    // Only one side can begin, and one end, ahead of the other; the estimates may say that both do.
    match left_from.total_cmp(&right_from) {
        std::cmp::Ordering::Less => left_from = 0.0,
        std::cmp::Ordering::Greater => right_from = 0.0,
        std::cmp::Ordering::Equal => (left_from, right_from) = (0.0, 0.0),
    }
    match left_upto.total_cmp(&right_upto) {
        std::cmp::Ordering::Greater => left_upto = 1.0,
        std::cmp::Ordering::Less => right_upto = 1.0,
        std::cmp::Ordering::Equal => (left_upto, right_upto) = (1.0, 1.0),
    }
    let all = |shown: bool, from: f64, upto: f64| if shown || from >= upto { whole } else { (from, upto) };
    let (left_shown, right_shown) = match kind {
        JoinKind::Inner | JoinKind::Semi => (false, false),
        JoinKind::Left | JoinKind::Anti => (true, false),
        JoinKind::Right => (false, true),
        JoinKind::Full => (true, true),
    };
    (all(left_shown, left_from, left_upto), all(right_shown, right_from, right_upto))
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

/// A condition two sides can be merged by.
struct Pair {
    left: Expr,
    right: Expr,
    qual: Expr,
}

/// Both sides of a condition that rows can be merged by: an equality of two orders that are one.
fn merge_pair(e: &Expr) -> Option<(Expr, Expr)> {
    let ExprKind::Call(c) = &e.kind else { return None };
    let [a, b] = c.args.as_slice() else { return None };
    if !c.oper.is_some_and(|o| o.can_merge) || a.is_volatile() || b.is_volatile() {
        return None;
    }
    let (x, y) = (strip(a).ty, strip(b).ty);
    let int = |t| matches!(t, oids::INT2 | oids::INT4 | oids::INT8);
    let float = |t| matches!(t, oids::FLOAT4 | oids::FLOAT8);
    let text = |t| matches!(t, oids::TEXT | oids::VARCHAR | oids::NAME);
    let alike = x == y || (int(x) && int(y)) || (float(x) && float(y)) || (text(x) && text(y));
    alike.then(|| (a.clone(), b.clone()))
}

/// What rows may be sorted by to be merged by these conditions.
fn merge_sides(quals: &[Expr]) -> Vec<Expr> {
    quals.iter().filter_map(merge_pair).flat_map(|(a, b)| [a, b]).collect()
}

/// Splits conditions into those two sides can be merged by and the rest.
fn merge_pairs(quals: &[Expr], left: &RelSet, right: &RelSet) -> (Vec<Pair>, Vec<Expr>) {
    let (mut pairs, mut rest) = (Vec::new(), Vec::new());
    for e in quals {
        let pair = merge_pair(e).and_then(|(a, b)| {
            let (ra, rb) = (rels_of(&a), rels_of(&b));
            if ra.is_empty() || rb.is_empty() {
                None
            } else if ra.subset(left) && rb.subset(right) {
                Some(Pair { left: a, right: b, qual: e.clone() })
            } else if rb.subset(left) && ra.subset(right) {
                Some(Pair { left: b, right: a, qual: e.clone() })
            } else {
                None
            }
        });
        match pair {
            Some(pair) => pairs.push(pair),
            None => rest.push(e.clone()),
        }
    }
    (pairs, rest)
}

fn order_of<'k>(keys: impl Iterator<Item = (&'k Expr, &'k MergeKey)>) -> Vec<OrderKey> {
    let mut order: Vec<OrderKey> = Vec::new();
    for (e, k) in keys {
        // What is ordered by already orders nothing more.
        if !order.iter().any(|o| o.is(e)) {
            order.push(OrderKey::of(strip(e), k.desc, k.nulls_first));
        }
    }
    order
}

/// The order a merge asks of its outer side.
fn left_order(keys: &[MergeKey]) -> Vec<OrderKey> {
    order_of(keys.iter().map(|k| (&k.left, k)))
}

/// The order a merge asks of its inner side.
fn right_order(keys: &[MergeKey]) -> Vec<OrderKey> {
    order_of(keys.iter().map(|k| (&k.right, k)))
}

/// Whether at most one row of a table has the same values of these expressions.
fn unique_by<'e>(q: &Query, path: &Path, exprs: impl Iterator<Item = &'e Expr>) -> bool {
    let mut columns: Vec<(usize, i16)> = Vec::new();
    columns.extend(exprs.filter_map(super::selectivity::column_of));
    let Some(&(rt, _)) = columns.first() else { return false };
    let Some(RteSource::Table(relation)) = q.rtable.get(rt).map(|r| &r.source) else { return false };
    path.rels == RelSet::one(rt)
        && relation.indexes.iter().any(|i| {
            i.unique
                && i.immediate
                && i.valid
                && i.predicate.is_none()
                && i.keys().iter().all(|k| k.expression.is_none() && columns.contains(&(rt, k.attnum)))
        })
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
