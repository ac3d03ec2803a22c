//! Merge joins: what two sides can be merged by, and what that costs.

use std::rc::Rc;

use super::join::cheapest;
use super::path::{MergeKey, MergePath, OrderKey, Path, PathKind, cost, rels_of};
use super::planner::{Planner, RelSet};
use super::selectivity::{Spread, strip};
use crate::config::Setting;
use crate::executor::plan::JoinKind;
use crate::sql::bind::expr::{Expr, ExprKind};
use crate::sql::bind::query::{Query, RteSource};
use crate::sql::types::oids;

impl Planner<'_> {
    /// Adds the ways to merge two sides: both sorted, the outer one as it comes, the inner one as it comes. PostgreSQL:
    /// `sort_inner_and_outer`, `match_unsorted_outer` and `generate_mergejoin_paths` in optimizer/path/joinpath.c.
    #[expect(clippy::too_many_arguments, reason = "the parts of a join")]
    pub(super) fn merges(
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

    /// A merge join of two sides that are in order. PostgreSQL: `final_cost_mergejoin` in optimizer/path/costsize.c.
    pub(super) fn merge(
        &self,
        q: &Query,
        kind: JoinKind,
        left: &Rc<Path>,
        right: &Rc<Path>,
        keys: Vec<MergeKey>,
        rest: &[Expr],
    ) -> Rc<Path> {
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
}

/// Which parts of its two sides a merge reads, from and up to, the rest having nothing to be merged with; as far as ANALYZE knows how far
/// their numbers go. PostgreSQL: `mergejoinscansel` in utils/adt/selfuncs.c.
pub(super) fn parts_read(q: &Query, kind: JoinKind, key: &MergeKey) -> ((f64, f64), (f64, f64)) {
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

/// A condition two sides can be merged by.
pub(super) struct Pair {
    pub left: Expr,
    pub right: Expr,
    pub qual: Expr,
}

/// Both sides of a condition that rows can be merged by: an equality of two orders that are one.
pub(super) fn merge_pair(e: &Expr) -> Option<(Expr, Expr)> {
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
pub(super) fn merge_sides(quals: &[Expr]) -> Vec<Expr> {
    quals.iter().filter_map(merge_pair).flat_map(|(a, b)| [a, b]).collect()
}

/// Splits conditions into those two sides can be merged by and the rest.
pub(super) fn merge_pairs(quals: &[Expr], left: &RelSet, right: &RelSet) -> (Vec<Pair>, Vec<Expr>) {
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

pub(super) fn order_of<'k>(keys: impl Iterator<Item = (&'k Expr, &'k MergeKey)>) -> Vec<OrderKey> {
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
pub(super) fn left_order(keys: &[MergeKey]) -> Vec<OrderKey> {
    order_of(keys.iter().map(|k| (&k.left, k)))
}

/// The order a merge asks of its inner side.
pub(super) fn right_order(keys: &[MergeKey]) -> Vec<OrderKey> {
    order_of(keys.iter().map(|k| (&k.right, k)))
}

/// Whether at most one row of a table has the same values of these expressions.
pub(super) fn unique_by<'e>(q: &Query, path: &Path, exprs: impl Iterator<Item = &'e Expr>) -> bool {
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
