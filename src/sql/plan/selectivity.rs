//! How many rows a condition keeps. PostgreSQL's defaults, and statistics from ANALYZE where there are any.

use crate::sql::bind::expr::{Expr, ExprKind};
use crate::sql::bind::query::{Query, RteSource};
use crate::sql::catalog::Relation;
use crate::sql::catalog::relation::ColumnStats;
use crate::sql::types::Datum;

/// `=` with unknown distinct values.
const DEFAULT_EQ: f64 = 0.005;
/// `<` and its kin.
const DEFAULT_INEQ: f64 = 1.0 / 3.0;
/// LIKE and regular expressions.
const DEFAULT_MATCH: f64 = 0.005;

/// Strips what does not change the value.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
pub fn strip(e: &Expr) -> &Expr {
    match &e.kind {
        ExprKind::Relabel(x) => strip(x),
        _ => e,
    }
}

/// The table column an expression is.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
pub fn column_of(e: &Expr) -> Option<(usize, i16)> {
    match strip(e).kind {
        ExprKind::Var(rt, att, 0) => Some((rt, att)),
        _ => None,
    }
}

/// Distinct values of a column among `rows`.
pub fn distinct_values(q: &Query, rt: usize, att: i16, rows: f64) -> f64 {
    let Some(RteSource::Table(relation)) = q.rtable.get(rt).map(|r| &r.source) else { return (rows / 10.0).clamp(1.0, 200.0) };
    relation_distinct(relation, att, rows)
}

/// The same of a relation's column.
pub fn relation_distinct(relation: &Relation, att: i16, rows: f64) -> f64 {
    let index = usize::try_from(att).ok().and_then(|a| a.checked_sub(1));
    if let Some(stats) = index.and_then(|i| relation.stats.get(i)).and_then(Option::as_ref) {
        let n = f64::from(stats.n_distinct);
        if n > 0.0 {
            return n.max(1.0);
        }
        if n < 0.0 {
            return (-n * rows).max(1.0);
        }
    }
    if att == -1
        || relation
            .indexes
            .iter()
            .any(|i| i.unique && i.valid && i.n_key == 1 && i.predicate.is_none() && i.keys().first().is_some_and(|k| k.attnum == att))
    {
        return rows.max(1.0);
    }
    if index.and_then(|i| relation.columns.get(i)).is_some_and(|c| c.type_oid == crate::sql::types::oids::BOOL) {
        return 2.0;
    }
    rows.clamp(1.0, 200.0)
}

/// How a column's numbers are spread, as ANALYZE found them.
pub struct Spread {
    /// Common ones, with their fractions of the rows.
    common: Vec<(f64, f64)>,
    /// Bounds of as many equal parts of the others.
    bounds: Vec<f64>,
    /// The fraction of the rows that are others.
    rest: f64,
}

impl Spread {
    /// Of a column of numbers; `None` if nothing is known of it.
    pub fn of(stats: &ColumnStats) -> Option<Self> {
        let number = |text: &str| text.parse::<f64>().ok().filter(|v| v.is_finite());
        let common = stats.common.iter().map(|(v, part)| Some((number(v)?, f64::from(*part)))).collect::<Option<Vec<_>>>()?;
        let bounds = stats.histogram.iter().map(|v| number(v)).collect::<Option<Vec<_>>>()?;
        if common.is_empty() && bounds.is_empty() {
            return None;
        }
        let taken: f64 = common.iter().map(|(_, part)| part).sum();
        Some(Self { common, bounds, rest: (1.0 - f64::from(stats.null_frac) - taken).max(0.0) })
    }

    /// The least and the greatest.
    pub fn range(&self) -> (f64, f64) {
        let all = self.common.iter().map(|(v, _)| *v).chain(self.bounds.first().copied()).chain(self.bounds.last().copied());
        all.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, greatest), v| (least.min(v), greatest.max(v)))
    }

    /// The fraction of the rows less than a value.
    pub fn before(&self, value: f64) -> f64 {
        self.fraction(value, |v| v < value)
    }

    /// The fraction of the rows up to and with a value.
    pub fn upto(&self, value: f64) -> f64 {
        self.fraction(value, |v| v <= value)
    }

    fn fraction(&self, value: f64, within: impl Fn(f64) -> bool) -> f64 {
        let common: f64 = self.common.iter().filter(|(v, _)| within(*v)).map(|(_, part)| part).sum();
        let (Some(first), Some(last)) = (self.bounds.first(), self.bounds.last()) else { return common };
        let part = if !within(*first) {
            0.0
        } else if within(*last) {
            1.0
        } else {
            let after = self.bounds.partition_point(|b| within(*b));
            let (low, high) = (self.bounds.get(after.saturating_sub(1)), self.bounds.get(after));
            let inside = match (low, high) {
                (Some(low), Some(high)) if high > low => ((value - low) / (high - low)).clamp(0.0, 1.0),
                _ => 0.5,
            };
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let (before, parts) = (after.saturating_sub(1) as f64, (self.bounds.len() - 1).max(1) as f64);
            (before + inside) / parts
        };
        common + part * self.rest
    }
}

/// Fraction of rows for which `e` holds. `rows`: of the table a column belongs to.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
pub fn selectivity(q: &Query, e: &Expr, rows: &dyn Fn(usize) -> f64) -> f64 {
    match &e.kind {
        ExprKind::Const(Datum::Bool(true)) => 1.0,
        ExprKind::Const(_) => 0.0,
        ExprKind::And(items) => items.iter().map(|i| selectivity(q, i, rows)).product(),
        ExprKind::Or(items) => items.iter().fold(0.0, |s, i| {
            let t = selectivity(q, i, rows);
            s + t - s * t
        }),
        ExprKind::Not(x) => 1.0 - selectivity(q, x, rows),
        ExprKind::IsNull(x, negated) => {
            let null = column_of(x)
                .and_then(|(rt, att)| match q.rtable.get(rt).map(|r| &r.source) {
                    Some(RteSource::Table(t)) => {
                        let index = usize::try_from(att).ok()?.checked_sub(1)?;
                        if t.columns.get(index).is_some_and(|c| c.not_null) {
                            return Some(0.0);
                        }
                        t.stats.get(index)?.as_ref().map(|s| f64::from(s.null_frac))
                    }
                    _ => None,
                })
                .unwrap_or(DEFAULT_EQ);
            if *negated { 1.0 - null } else { null }
        }
        ExprKind::BoolTest(..) => 0.5,
        // As its first columns compare.
        ExprKind::RowCompare(..) => DEFAULT_INEQ,
        ExprKind::Call(c) => {
            let Some(oper) = c.oper else { return 1.0 / 3.0 };
            let [l, r] = c.args.as_slice() else { return 0.5 };
            match oper.name {
                "=" => equality(q, l, r, rows),
                "<>" => 1.0 - equality(q, l, r, rows),
                "<" | "<=" | ">" | ">=" => DEFAULT_INEQ,
                "~~" | "~~*" | "~" | "~*" => DEFAULT_MATCH,
                "!~~" | "!~~*" | "!~" | "!~*" => 1.0 - DEFAULT_MATCH,
                "@>" | "<@" | "&&" => 0.01,
                _ => 0.5,
            }
        }
        ExprKind::ArrayCompare(c) => {
            let count = match &c.array.kind {
                ExprKind::Array(items, ..) => items.len(),
                ExprKind::Const(Datum::Array(a)) => a.values.len(),
                _ => 10,
            };
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let count = count as f64;
            let one = match column_of(&c.left) {
                Some((rt, att)) => 1.0 / distinct_values(q, rt, att, rows(rt)),
                None => DEFAULT_EQ,
            };
            if c.oper.name == "=" && c.any { (one * count).min(1.0) } else { (1.0 - one * count).max(0.0) }
        }
        ExprKind::SubLink(_) => 0.5,
        ExprKind::Var(..) => 0.5,
        _ => 0.5,
    }
}

fn equality(q: &Query, l: &Expr, r: &Expr, rows: &dyn Fn(usize) -> f64) -> f64 {
    match (column_of(l), column_of(r)) {
        (Some((a, x)), Some((b, y))) => 1.0 / distinct_values(q, a, x, rows(a)).max(distinct_values(q, b, y, rows(b))).max(1.0),
        (Some((a, x)), None) | (None, Some((a, x))) => {
            let n = rows(a);
            let found = 1.0 / distinct_values(q, a, x, n).max(1.0);
            if n <= 1.0 { 1.0 } else { found }
        }
        (None, None) => DEFAULT_EQ,
    }
}
