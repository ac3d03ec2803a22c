//! The joins of a FROM clause, flattened.

use super::planner::RelSet;
use crate::executor::plan::JoinKind;
use crate::sql::bind::expr::{Expr, ExprKind};
use crate::sql::bind::query::{FromItem, Query};
use crate::sqlstate::{SqlError, SqlState};

/// An item of a flattened FROM.
pub(super) enum Item {
    Rel(usize),
    Outer { left: Group, right: Group, kind: JoinKind, on: Vec<Expr> },
}

/// Items joined by inner joins, and their conditions.
#[derive(Default)]
pub(super) struct Group {
    pub items: Vec<Item>,
    pub quals: Vec<Expr>,
}

impl Item {
    pub(super) fn rels(&self) -> RelSet {
        match self {
            Self::Rel(rt) => RelSet::one(*rt),
            Self::Outer { left, right, .. } => left.rels().union(&right.rels()),
        }
    }
}

impl Group {
    pub(super) fn rels(&self) -> RelSet {
        self.items.iter().fold(RelSet::default(), |s, i| s.union(&i.rels()))
    }
}

pub(super) fn flatten(item: &FromItem, group: &mut Group) {
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
pub(super) fn reduce(group: &mut Group, outer_quals: &[Expr]) {
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
pub(super) fn refuse_nullable_locks(q: &Query, group: &Group) -> Result<(), SqlError> {
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
