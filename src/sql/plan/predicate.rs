//! Does one condition follow from others? Decides whether a partial index may be used, and which one ON CONFLICT means.
//!
//! Judged for rows on which the conditions are true; what cannot be shown is taken not to follow.
//! PostgreSQL: `predicate_implied_by` in optimizer/util/predtest.c.

use std::cmp::Ordering;

use super::path::strategy;
use crate::executor::code::BoolTest;
use crate::sql::bind::expr::{CallExpr, Expr, ExprKind};
use crate::sql::types::{self, Datum};

/// Elements of an IN list that are looked at one by one.
const MAX_ELEMENTS: usize = 100;

/// Does `predicate` hold wherever all of `clauses` do?
pub fn implied(clauses: &[Expr], predicate: &Expr) -> bool {
    if let ExprKind::And(parts) = &predicate.kind {
        return parts.iter().all(|p| implied(clauses, p));
    }
    clauses.iter().any(|c| one(c, predicate))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "of other kinds nothing is known to follow")]
fn one(clause: &Expr, predicate: &Expr) -> bool {
    if clause.same(predicate) {
        return true;
    }
    match (&clause.kind, &predicate.kind) {
        (_, ExprKind::And(parts)) => return parts.iter().all(|p| one(clause, p)),
        (ExprKind::Or(arms), _) => return !arms.is_empty() && arms.iter().all(|a| one(a, predicate)),
        (ExprKind::And(parts), _) => return implied(parts, predicate),
        (_, ExprKind::Or(arms)) => return arms.iter().any(|a| one(clause, a)),
        _ => {}
    }
    if let ExprKind::ArrayCompare(a) = &clause.kind
        && a.any
        && let ExprKind::Const(Datum::Array(list)) = &a.array.kind
        && list.values.len() <= MAX_ELEMENTS
        && let Some(elem) = types::registry::element_type(a.array.ty)
    {
        return !list.values.is_empty()
            && list.values.iter().all(|v| {
                // NULL among the elements never makes it true.
                v.is_null()
                    || one(
                        &Expr::new(
                            ExprKind::Call(Box::new(CallExpr {
                                func: a.func,
                                oper: Some(a.oper),
                                types: a.types.clone(),
                                args: vec![a.left.clone(), Expr::constant(v.clone(), elem)],
                                cast: false,
                            })),
                            clause.ty,
                            -1,
                        ),
                        predicate,
                    )
            });
    }
    match &predicate.kind {
        ExprKind::IsNull(inner, true) => not_null(clause, inner),
        ExprKind::BoolTest(inner, BoolTest::True | BoolTest::NotFalse) => one(clause, inner),
        ExprKind::BoolTest(inner, BoolTest::NotUnknown) => not_null(clause, inner),
        ExprKind::Not(inner) => match &clause.kind {
            ExprKind::BoolTest(x, BoolTest::False) => x.same(inner),
            _ => false,
        },
        ExprKind::Call(_) => matches!((comparison(clause), comparison(predicate)), (Some(c), Some(p)) if compares(&c, &p)),
        _ => matches!(&clause.kind, ExprKind::BoolTest(x, BoolTest::True) if one(x, predicate)),
    }
}

/// Is `inner` known not to be NULL where `clause` is true?
#[expect(clippy::wildcard_enum_match_arm, reason = "of other kinds nothing is known to follow")]
fn not_null(clause: &Expr, inner: &Expr) -> bool {
    if clause.same(inner) {
        return true;
    }
    match &clause.kind {
        ExprKind::Call(c) => c.func.strict && c.args.iter().any(|a| not_null(a, inner)),
        ExprKind::ArrayCompare(a) => a.any && a.func.strict && not_null(&a.left, inner),
        ExprKind::Relabel(x) | ExprKind::Typmod(x, _) | ExprKind::InOut(x) | ExprKind::Not(x) => not_null(x, inner),
        ExprKind::BoolTest(x, BoolTest::True | BoolTest::False) => not_null(x, inner),
        _ => false,
    }
}

/// `expression op constant`.
struct Comparison<'e> {
    left: &'e Expr,
    /// btree strategy, 0 for `<>`.
    strategy: i16,
    value: &'e Datum,
    ty: u32,
}

fn comparison(e: &Expr) -> Option<Comparison<'_>> {
    let ExprKind::Call(c) = &e.kind else { return None };
    let oper = c.oper?;
    let [l, r] = c.args.as_slice() else { return None };
    let number = |name: &str, oid| if name == "<>" { Some(0) } else { strategy(oid) };
    match (&l.kind, &r.kind) {
        (_, ExprKind::Const(value)) if !value.is_null() => {
            Some(Comparison { left: l, strategy: number(oper.name, oper.oid)?, value, ty: r.ty })
        }
        (ExprKind::Const(value), _) if !value.is_null() => {
            Some(Comparison { left: r, strategy: number(oper.name, oper.commutator)?, value, ty: l.ty })
        }
        _ => None,
    }
}

fn compares(clause: &Comparison<'_>, predicate: &Comparison<'_>) -> bool {
    if clause.ty != predicate.ty || !clause.left.same(predicate.left) {
        return false;
    }
    let order = types::compare(clause.value, predicate.value);
    let holds = |strategy: i16| match strategy {
        1 => order == Ordering::Less,
        2 => order != Ordering::Greater,
        3 => order == Ordering::Equal,
        4 => order != Ordering::Less,
        5 => order == Ordering::Greater,
        _ => order != Ordering::Equal,
    };
    match (clause.strategy, predicate.strategy) {
        (3, p) => holds(p),
        (1, 0..=2) | (2, 2) => order != Ordering::Greater,
        (2, 1 | 0) => order == Ordering::Less,
        (5, 5 | 4 | 0) | (4, 4) => order != Ordering::Less,
        (4, 5 | 0) => order == Ordering::Greater,
        (0, 0) => order == Ordering::Equal,
        _ => false,
    }
}
