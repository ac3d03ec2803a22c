//! A bound expression: names resolved, types known.

use std::sync::Arc;

use super::query::Query;
use crate::executor::code::{BoolTest, CompareOp, SessionValue};
use crate::sql::functions::{CallTypes, OperEntry, ProcEntry};
use crate::sql::types::{self, Datum, Oid, TupleDesc, oids};
use crate::sqlstate::SqlError;

/// An expression and its type.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Its type.
    pub ty: Oid,
    /// Its type modifier.
    pub typmod: i32,
    /// Byte position in the statement, -1 unknown.
    pub at: i32,
}

/// Kinds of expressions.
#[derive(Clone, Debug)]
pub enum ExprKind {
    /// A value.
    Const(Datum),
    /// A column: range table index, attribute number (0: whole row, negative: system), query levels up.
    Var(usize, i16, usize),
    /// `$n`, from 0.
    Param(usize),
    /// What `CASE x` and array casts work on.
    CaseValue,
    /// A column of the row at hand; made by the planner, and by the binder for coercions of whole rows.
    Slot(usize),
    /// An exec slot; made by the planner.
    Exec(usize),
    /// Column of the subquery of the enclosing ANY.
    SubColumn(usize),
    /// A function or operator.
    Call(Box<CallExpr>),
    /// AND.
    And(Vec<Expr>),
    /// OR.
    Or(Vec<Expr>),
    /// NOT.
    Not(Box<Expr>),
    /// IS NULL (false), IS NOT NULL (true).
    IsNull(Box<Expr>, bool),
    /// IS TRUE and its kin.
    BoolTest(Box<Expr>, BoolTest),
    /// IS DISTINCT FROM (false), IS NOT (true).
    Distinct(Box<CallExpr>, bool),
    /// NULLIF.
    NullIf(Box<CallExpr>),
    /// CASE.
    Case(Box<CaseExpr>),
    /// COALESCE.
    Coalesce(Vec<Expr>),
    /// GREATEST (true), LEAST (false).
    MinMax(Vec<Expr>, bool),
    /// ARRAY[..]: items, element type, items are arrays.
    Array(Vec<Expr>, Oid, bool),
    /// ROW(..).
    Row(Vec<Expr>, Arc<TupleDesc>),
    /// `<` and its kin on rows.
    RowCompare(CompareOp, Vec<(Expr, Expr)>),
    /// Column of a record.
    Field(Box<Expr>, usize),
    /// Array subscripts: array, (lower, upper) per dimension, slice.
    Subscript(Box<Expr>, Vec<(Option<Expr>, Option<Expr>)>, bool),
    /// `x op ANY (array)`.
    ArrayCompare(Box<ArrayCompare>),
    /// Through text.
    InOut(Box<Expr>),
    /// Same representation, another type.
    Relabel(Box<Expr>),
    /// Same bits, another representation.
    Reinterpret(Box<Expr>),
    /// Elements of an array through an expression on `CaseValue`.
    ArrayCast(Box<Expr>, Box<Expr>, Oid),
    /// Fit to the type modifier; explicit.
    Typmod(Box<Expr>, bool),
    /// A subquery.
    SubLink(Box<SubLink>),
    /// CURRENT_USER and its kin.
    Session(SessionValue),
    /// An aggregate.
    Agg(Box<AggRef>),
    /// A window function.
    Window(Box<WindowRef>),
    /// GROUPING(..): arguments as positions in `Query::group`.
    Grouping(Vec<usize>),
    /// DEFAULT in INSERT and UPDATE.
    Default,
    /// Assignment to an array element: old value, subscripts, slice, new value.
    AssignElement(Box<Expr>, Vec<(Option<Expr>, Option<Expr>)>, bool, Box<Expr>),
}

/// A call.
#[derive(Clone, Debug)]
pub struct CallExpr {
    /// The function.
    pub func: &'static ProcEntry,
    /// It was written as this operator.
    pub oper: Option<&'static OperEntry>,
    /// Types.
    pub types: CallTypes,
    /// Arguments.
    pub args: Vec<Expr>,
    /// It stands for a cast.
    pub cast: bool,
}

/// CASE.
#[derive(Clone, Debug)]
pub struct CaseExpr {
    /// `CASE x`.
    pub arg: Option<Expr>,
    /// Conditions and results.
    pub arms: Vec<(Expr, Expr)>,
    /// ELSE.
    pub default: Expr,
}

/// `x op ANY (array)`.
#[derive(Clone, Debug)]
pub struct ArrayCompare {
    /// The operator.
    pub oper: &'static OperEntry,
    /// Its function.
    pub func: &'static ProcEntry,
    /// Its types.
    pub types: CallTypes,
    /// ANY, else ALL.
    pub any: bool,
    /// Left.
    pub left: Expr,
    /// The array.
    pub array: Expr,
}

/// A subquery in an expression.
#[derive(Clone, Debug)]
pub struct SubLink {
    /// What it yields.
    pub kind: SubLinkKind,
    /// The query.
    pub query: Query,
}

/// What a subquery yields.
#[derive(Clone, Debug)]
pub enum SubLinkKind {
    /// EXISTS.
    Exists,
    /// A value.
    Scalar,
    /// ARRAY(..).
    Array(Oid),
    /// A row.
    Row(Arc<TupleDesc>),
    /// ANY (true), ALL (false), with the comparison over `SubColumn`s and, if it is plain equality, its left sides.
    Quantified(bool, Box<Expr>, Option<Vec<Expr>>),
}

/// An aggregate call.
#[derive(Clone, Debug)]
pub struct AggRef {
    /// The function.
    pub func: &'static ProcEntry,
    /// Types.
    pub types: CallTypes,
    /// Arguments, then expressions only sorted by.
    pub args: Vec<Expr>,
    /// How many are arguments.
    pub arg_count: usize,
    /// ORDER BY over `args`.
    pub order: Vec<super::query::SortKey>,
    /// DISTINCT.
    pub distinct: bool,
    /// FILTER.
    pub filter: Option<Expr>,
    /// Query levels up of the query it aggregates.
    pub up: usize,
    /// `*`.
    pub star: bool,
}

/// A window function call.
#[derive(Clone, Debug)]
pub struct WindowRef {
    /// The function.
    pub func: &'static ProcEntry,
    /// Types.
    pub types: CallTypes,
    /// Arguments.
    pub args: Vec<Expr>,
    /// FILTER.
    pub filter: Option<Expr>,
    /// Index into `Query::windows`.
    pub window: usize,
    /// `*`.
    pub star: bool,
}

impl Expr {
    /// An expression without a place in the text.
    pub fn new(kind: ExprKind, ty: Oid, typmod: i32) -> Self {
        Self { kind, ty, typmod, at: -1 }
    }

    /// A constant.
    pub fn constant(value: Datum, ty: Oid) -> Self {
        Self::new(ExprKind::Const(value), ty, -1)
    }

    /// NULL of a type.
    pub fn null(ty: Oid) -> Self {
        Self::constant(Datum::Null, ty)
    }

    /// A boolean constant.
    pub fn bool(value: bool) -> Self {
        Self::constant(Datum::Bool(value), oids::BOOL)
    }

    /// AND of conditions, flattened.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    pub fn and(items: Vec<Self>) -> Option<Self> {
        let mut flat = Vec::with_capacity(items.len());
        for item in items {
            match item.kind {
                ExprKind::And(inner) => flat.extend(inner),
                _ => flat.push(item),
            }
        }
        match flat.len() {
            0 => None,
            1 => flat.pop(),
            _ => Some(Self::new(ExprKind::And(flat), oids::BOOL, -1)),
        }
    }

    /// The conditions of an AND.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    pub fn conjuncts(self) -> Vec<Self> {
        match self.kind {
            ExprKind::And(items) => items.into_iter().flat_map(Self::conjuncts).collect(),
            _ => vec![self],
        }
    }

    /// Sets the place in the text.
    #[must_use]
    pub fn located(mut self, at: i32) -> Self {
        if self.at < 0 {
            self.at = at;
        }
        self
    }

    /// An untyped string literal or NULL.
    pub fn is_unknown_literal(&self) -> bool {
        self.ty == oids::UNKNOWN && matches!(self.kind, ExprKind::Const(_))
    }

    /// Calls `f` on each direct child. Subqueries' expressions are not children.
    pub fn children<'a>(&'a self, f: &mut dyn FnMut(&'a Self)) {
        match &self.kind {
            ExprKind::Const(_)
            | ExprKind::Var(..)
            | ExprKind::Param(_)
            | ExprKind::CaseValue
            | ExprKind::Slot(_)
            | ExprKind::Exec(_)
            | ExprKind::SubColumn(_)
            | ExprKind::Session(_)
            | ExprKind::Grouping(_)
            | ExprKind::Default => {}
            ExprKind::Call(c) | ExprKind::Distinct(c, _) | ExprKind::NullIf(c) => c.args.iter().for_each(f),
            ExprKind::And(items)
            | ExprKind::Or(items)
            | ExprKind::Coalesce(items)
            | ExprKind::MinMax(items, _)
            | ExprKind::Array(items, ..)
            | ExprKind::Row(items, _) => {
                items.iter().for_each(f);
            }
            ExprKind::Not(e)
            | ExprKind::IsNull(e, _)
            | ExprKind::BoolTest(e, _)
            | ExprKind::Field(e, _)
            | ExprKind::InOut(e)
            | ExprKind::Relabel(e)
            | ExprKind::Reinterpret(e)
            | ExprKind::Typmod(e, _) => f(e),
            ExprKind::ArrayCast(e, each, _) => {
                f(e);
                f(each);
            }
            ExprKind::Case(c) => {
                c.arg.iter().for_each(&mut *f);
                for (condition, result) in &c.arms {
                    f(condition);
                    f(result);
                }
                f(&c.default);
            }
            ExprKind::RowCompare(_, pairs) => {
                for (l, r) in pairs {
                    f(l);
                    f(r);
                }
            }
            ExprKind::Subscript(e, subscripts, _) => {
                f(e);
                for (l, u) in subscripts {
                    l.iter().for_each(&mut *f);
                    u.iter().for_each(&mut *f);
                }
            }
            ExprKind::ArrayCompare(c) => {
                f(&c.left);
                f(&c.array);
            }
            ExprKind::SubLink(s) => {
                if let SubLinkKind::Quantified(_, test, left) = &s.kind {
                    f(test);
                    left.iter().flatten().for_each(f);
                }
            }
            ExprKind::Agg(a) => {
                a.args.iter().for_each(&mut *f);
                a.filter.iter().for_each(f);
            }
            ExprKind::Window(w) => {
                w.args.iter().for_each(&mut *f);
                w.filter.iter().for_each(f);
            }
            ExprKind::AssignElement(old, subscripts, _, value) => {
                f(old);
                for (l, u) in subscripts {
                    l.iter().for_each(&mut *f);
                    u.iter().for_each(&mut *f);
                }
                f(value);
            }
        }
    }

    /// Calls `f` on each direct child, to change it.
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn children_mut(&mut self, f: &mut dyn FnMut(&mut Self) -> Result<(), SqlError>) -> Result<(), SqlError> {
        match &mut self.kind {
            ExprKind::Const(_)
            | ExprKind::Var(..)
            | ExprKind::Param(_)
            | ExprKind::CaseValue
            | ExprKind::Slot(_)
            | ExprKind::Exec(_)
            | ExprKind::SubColumn(_)
            | ExprKind::Session(_)
            | ExprKind::Grouping(_)
            | ExprKind::Default => Ok(()),
            ExprKind::Call(c) | ExprKind::Distinct(c, _) | ExprKind::NullIf(c) => c.args.iter_mut().try_for_each(f),
            ExprKind::And(items)
            | ExprKind::Or(items)
            | ExprKind::Coalesce(items)
            | ExprKind::MinMax(items, _)
            | ExprKind::Array(items, ..)
            | ExprKind::Row(items, _) => items.iter_mut().try_for_each(f),
            ExprKind::Not(e)
            | ExprKind::IsNull(e, _)
            | ExprKind::BoolTest(e, _)
            | ExprKind::Field(e, _)
            | ExprKind::InOut(e)
            | ExprKind::Relabel(e)
            | ExprKind::Reinterpret(e)
            | ExprKind::Typmod(e, _) => f(e),
            ExprKind::ArrayCast(e, each, _) => {
                f(e)?;
                f(each)
            }
            ExprKind::Case(c) => {
                c.arg.iter_mut().try_for_each(&mut *f)?;
                for (condition, result) in &mut c.arms {
                    f(condition)?;
                    f(result)?;
                }
                f(&mut c.default)
            }
            ExprKind::RowCompare(_, pairs) => {
                for (l, r) in pairs {
                    f(l)?;
                    f(r)?;
                }
                Ok(())
            }
            ExprKind::Subscript(e, subscripts, _) => {
                f(e)?;
                for (l, u) in subscripts {
                    l.iter_mut().try_for_each(&mut *f)?;
                    u.iter_mut().try_for_each(&mut *f)?;
                }
                Ok(())
            }
            ExprKind::ArrayCompare(c) => {
                f(&mut c.left)?;
                f(&mut c.array)
            }
            ExprKind::SubLink(s) => {
                if let SubLinkKind::Quantified(_, test, left) = &mut s.kind {
                    f(test)?;
                    left.iter_mut().flatten().try_for_each(f)?;
                }
                Ok(())
            }
            ExprKind::Agg(a) => {
                a.args.iter_mut().try_for_each(&mut *f)?;
                a.filter.iter_mut().try_for_each(f)
            }
            ExprKind::Window(w) => {
                w.args.iter_mut().try_for_each(&mut *f)?;
                w.filter.iter_mut().try_for_each(f)
            }
            ExprKind::AssignElement(old, subscripts, _, value) => {
                f(old)?;
                for (l, u) in subscripts {
                    l.iter_mut().try_for_each(&mut *f)?;
                    u.iter_mut().try_for_each(&mut *f)?;
                }
                f(value)
            }
        }
    }

    /// Calls `f` on this expression and on all inside it (subqueries' insides left out).
    pub fn visit(&self, f: &mut dyn FnMut(&Self)) {
        f(self);
        self.children(&mut |c| c.visit(f));
    }

    /// Does `f` hold for this expression or one inside it (subqueries' insides not asked)?
    pub fn any(&self, f: &dyn Fn(&Self) -> bool) -> bool {
        if f(self) {
            return true;
        }
        let mut found = false;
        self.children(&mut |c| found = found || c.any(f));
        found
    }

    /// Visits every `Var` and outer aggregate in it that belongs to the query `depth` levels above its own, subqueries included.
    pub fn visit_vars(&self, depth: usize, f: &mut dyn FnMut(usize, i16)) {
        if let ExprKind::Var(rt, att, up) = self.kind
            && up == depth
        {
            f(rt, att);
        }
        self.children(&mut |c| c.visit_vars(depth, f));
        if let ExprKind::SubLink(s) = &self.kind {
            s.query.visit_exprs(&mut |e, inner| e.visit_vars(depth + inner, f), 1);
        }
    }

    /// Raises the levels of outer references (those `from` or more levels up) by `by`.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    pub fn shift_levels(&mut self, from: usize, by: usize) {
        match &mut self.kind {
            ExprKind::Var(_, _, up) if *up >= from => *up += by,
            ExprKind::Agg(a) if a.up >= from && a.up > 0 => a.up += by,
            _ => {}
        }
        let _infallible = self.children_mut(&mut |c| {
            c.shift_levels(from, by);
            Ok(())
        });
        if let ExprKind::SubLink(s) = &mut self.kind {
            s.query.shift_outer(from + 1, by);
        }
    }

    /// The same expression, places in the text aside?
    pub fn same(&self, other: &Self) -> bool {
        if self.ty != other.ty || self.typmod != other.typmod {
            return false;
        }
        let all = |a: &[Self], b: &[Self]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b));
        let call = |a: &CallExpr, b: &CallExpr| a.func.oid == b.func.oid && all(&a.args, &b.args);
        let option = |a: &Option<Self>, b: &Option<Self>| match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => a.same(b),
            _ => false,
        };
        match (&self.kind, &other.kind) {
            (ExprKind::Const(a), ExprKind::Const(b)) => match (a.is_null(), b.is_null()) {
                (false, false) => types::compare(a, b).is_eq(),
                (a, b) => a == b,
            },
            (ExprKind::Var(a, b, c), ExprKind::Var(d, e, f)) => a == d && b == e && c == f,
            (ExprKind::Param(a), ExprKind::Param(b))
            | (ExprKind::Slot(a), ExprKind::Slot(b))
            | (ExprKind::Exec(a), ExprKind::Exec(b))
            | (ExprKind::SubColumn(a), ExprKind::SubColumn(b)) => a == b,
            (ExprKind::CaseValue, ExprKind::CaseValue) => true,
            (ExprKind::Call(a), ExprKind::Call(b)) | (ExprKind::NullIf(a), ExprKind::NullIf(b)) => call(a, b),
            (ExprKind::Distinct(a, x), ExprKind::Distinct(b, y)) => x == y && call(a, b),
            (ExprKind::And(a), ExprKind::And(b)) | (ExprKind::Or(a), ExprKind::Or(b)) | (ExprKind::Coalesce(a), ExprKind::Coalesce(b)) => {
                all(a, b)
            }
            (ExprKind::MinMax(a, x), ExprKind::MinMax(b, y)) => x == y && all(a, b),
            (ExprKind::Array(a, x, _), ExprKind::Array(b, y, _)) => x == y && all(a, b),
            (ExprKind::Row(a, _), ExprKind::Row(b, _)) => all(a, b),
            (ExprKind::Not(a), ExprKind::Not(b))
            | (ExprKind::InOut(a), ExprKind::InOut(b))
            | (ExprKind::Relabel(a), ExprKind::Relabel(b))
            | (ExprKind::Reinterpret(a), ExprKind::Reinterpret(b)) => a.same(b),
            (ExprKind::IsNull(a, x), ExprKind::IsNull(b, y)) | (ExprKind::Typmod(a, x), ExprKind::Typmod(b, y)) => x == y && a.same(b),
            (ExprKind::BoolTest(a, x), ExprKind::BoolTest(b, y)) => x == y && a.same(b),
            (ExprKind::Field(a, x), ExprKind::Field(b, y)) => x == y && a.same(b),
            (ExprKind::ArrayCast(a, e, x), ExprKind::ArrayCast(b, g, y)) => x == y && a.same(b) && e.same(g),
            (ExprKind::Case(a), ExprKind::Case(b)) => {
                option(&a.arg, &b.arg)
                    && a.arms.len() == b.arms.len()
                    && a.arms.iter().zip(&b.arms).all(|((c, r), (d, s))| c.same(d) && r.same(s))
                    && a.default.same(&b.default)
            }
            (ExprKind::RowCompare(x, a), ExprKind::RowCompare(y, b)) => {
                x == y && a.len() == b.len() && a.iter().zip(b).all(|((c, r), (d, s))| c.same(d) && r.same(s))
            }
            (ExprKind::Subscript(a, s, x), ExprKind::Subscript(b, t, y)) => {
                x == y && a.same(b) && s.len() == t.len() && s.iter().zip(t).all(|((a, b), (c, d))| option(a, c) && option(b, d))
            }
            (ExprKind::ArrayCompare(a), ExprKind::ArrayCompare(b)) => {
                a.func.oid == b.func.oid && a.any == b.any && a.left.same(&b.left) && a.array.same(&b.array)
            }
            (ExprKind::Session(a), ExprKind::Session(b)) => a == b,
            (ExprKind::Agg(a), ExprKind::Agg(b)) => {
                a.func.oid == b.func.oid
                    && a.distinct == b.distinct
                    && a.up == b.up
                    && a.arg_count == b.arg_count
                    && a.order.len() == b.order.len()
                    && a.order.iter().zip(&b.order).all(|(x, y)| x.target == y.target && x.desc == y.desc && x.nulls_first == y.nulls_first)
                    && all(&a.args, &b.args)
                    && option(&a.filter, &b.filter)
            }
            (ExprKind::Window(a), ExprKind::Window(b)) => {
                a.func.oid == b.func.oid && a.window == b.window && all(&a.args, &b.args) && option(&a.filter, &b.filter)
            }
            (ExprKind::Grouping(a), ExprKind::Grouping(b)) => a == b,
            // Whole queries are compared by all they hold but places in the text.
            (ExprKind::SubLink(a), ExprKind::SubLink(b)) => {
                let shape = |s: &SubLink| {
                    let mut e = Self::new(ExprKind::SubLink(Box::new(s.clone())), 0, -1);
                    e.forget_places();
                    format!("{e:?}")
                };
                std::mem::discriminant(&a.kind) == std::mem::discriminant(&b.kind)
                    && a.query.rtable.len() == b.query.rtable.len()
                    && a.query.targets.len() == b.query.targets.len()
                    && shape(a) == shape(b)
            }
            _ => false,
        }
    }

    /// Drops places in the text, those of subqueries included.
    fn forget_places(&mut self) {
        self.at = -1;
        let _infallible = self.children_mut(&mut |c| {
            c.forget_places();
            Ok(())
        });
        if let ExprKind::SubLink(s) = &mut self.kind {
            s.query.visit_exprs_mut(&mut |e, _| e.forget_places(), 0);
        }
    }

    /// Calls a volatile function.
    pub fn is_volatile(&self) -> bool {
        self.calls(&|f| f.volatility == b'v')
    }

    /// Its value can change between executions or rows: anything but immutable functions of constants.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    pub fn calls(&self, f: &dyn Fn(&ProcEntry) -> bool) -> bool {
        self.any(&|e| match &e.kind {
            ExprKind::Call(c) | ExprKind::Distinct(c, _) | ExprKind::NullIf(c) => f(c.func),
            ExprKind::ArrayCompare(c) => f(c.func),
            _ => false,
        })
    }

    /// Contains a set-returning function.
    pub fn returns_set(&self) -> bool {
        self.any(&|e| matches!(&e.kind, ExprKind::Call(c) if c.func.returns_set))
    }

    /// Contains a subquery.
    pub fn has_sublink(&self) -> bool {
        self.any(&|e| matches!(e.kind, ExprKind::SubLink(_)))
    }
}

impl Query {
    /// Calls `f` on every expression of the query and of the queries in it, with how many levels they are below `depth`'s.
    pub fn visit_exprs(&self, f: &mut dyn FnMut(&Expr, usize), depth: usize) {
        use super::query::{FrameEdge, FromItem, InsertSource, RteSource};
        fn from(item: &FromItem, f: &mut dyn FnMut(&Expr, usize), depth: usize) {
            if let FromItem::Join(j) = item {
                from(&j.left, f, depth);
                from(&j.right, f, depth);
                j.quals.iter().for_each(|q| f(q, depth));
            }
        }
        for rte in &self.rtable {
            match &rte.source {
                RteSource::Subquery(q) => q.visit_exprs(f, depth + 1),
                RteSource::Function { calls, .. } => calls.iter().for_each(|(e, _)| f(e, depth)),
                RteSource::Values(rows) => rows.iter().flatten().for_each(|e| f(e, depth)),
                RteSource::Table(_) | RteSource::Cte(..) | RteSource::Working(..) | RteSource::Excluded | RteSource::None => {}
            }
        }
        self.from.iter().for_each(|item| from(item, f, depth));
        let mut one = |e: &Expr| f(e, depth);
        self.quals.iter().for_each(&mut one);
        self.targets.iter().for_each(|t| one(&t.expr));
        self.having.iter().for_each(&mut one);
        self.limit.iter().for_each(&mut one);
        self.offset.iter().for_each(&mut one);
        self.assignments.iter().for_each(|(_, e)| one(e));
        self.merge.iter().flat_map(super::query::MergeAction::exprs).for_each(&mut one);
        self.returning.iter().for_each(|t| one(&t.expr));
        for w in &self.windows {
            for edge in [&w.frame.start, &w.frame.end] {
                if let FrameEdge::Preceding(e) | FrameEdge::Following(e) = edge {
                    one(e);
                }
            }
        }
        if let Some(insert) = &self.insert {
            insert.defaults.iter().flatten().for_each(&mut one);
            if let Some(c) = &insert.on_conflict {
                c.set.iter().flatten().for_each(|(_, e)| one(e));
                c.quals.iter().for_each(&mut one);
            }
            match &insert.source {
                InsertSource::Values(rows) => rows.iter().flatten().for_each(&mut one),
                InsertSource::Query(q, coercions) => {
                    coercions.iter().for_each(&mut one);
                    q.visit_exprs(f, depth + 1);
                }
            }
        }
        for cte in &self.ctes {
            cte.query.visit_exprs(f, depth + 1);
            if let Some((q, _)) = &cte.recursive {
                q.visit_exprs(f, depth + 1);
            }
        }
    }

    /// The same, to change them.
    pub fn visit_exprs_mut(&mut self, f: &mut dyn FnMut(&mut Expr, usize), depth: usize) {
        use super::query::{FrameEdge, FromItem, InsertSource, RteSource};
        fn from(item: &mut FromItem, f: &mut dyn FnMut(&mut Expr, usize), depth: usize) {
            if let FromItem::Join(j) = item {
                from(&mut j.left, f, depth);
                from(&mut j.right, f, depth);
                j.quals.iter_mut().for_each(|q| f(q, depth));
            }
        }
        for rte in &mut self.rtable {
            match &mut rte.source {
                RteSource::Subquery(q) => q.visit_exprs_mut(f, depth + 1),
                RteSource::Function { calls, .. } => calls.iter_mut().for_each(|(e, _)| f(e, depth)),
                RteSource::Values(rows) => rows.iter_mut().flatten().for_each(|e| f(e, depth)),
                RteSource::Table(_) | RteSource::Cte(..) | RteSource::Working(..) | RteSource::Excluded | RteSource::None => {}
            }
        }
        self.from.iter_mut().for_each(|item| from(item, f, depth));
        let mut one = |e: &mut Expr| f(e, depth);
        self.quals.iter_mut().for_each(&mut one);
        self.targets.iter_mut().for_each(|t| one(&mut t.expr));
        self.having.iter_mut().for_each(&mut one);
        self.limit.iter_mut().for_each(&mut one);
        self.offset.iter_mut().for_each(&mut one);
        self.assignments.iter_mut().for_each(|(_, e)| one(e));
        self.merge.iter_mut().flat_map(super::query::MergeAction::exprs_mut).for_each(&mut one);
        self.returning.iter_mut().for_each(|t| one(&mut t.expr));
        for w in &mut self.windows {
            for edge in [&mut w.frame.start, &mut w.frame.end] {
                if let FrameEdge::Preceding(e) | FrameEdge::Following(e) = edge {
                    one(e);
                }
            }
        }
        if let Some(insert) = &mut self.insert {
            insert.defaults.iter_mut().flatten().for_each(&mut one);
            if let Some(c) = &mut insert.on_conflict {
                c.set.iter_mut().flatten().for_each(|(_, e)| one(e));
                c.quals.iter_mut().for_each(&mut one);
            }
            match &mut insert.source {
                InsertSource::Values(rows) => rows.iter_mut().flatten().for_each(&mut one),
                InsertSource::Query(q, coercions) => {
                    coercions.iter_mut().for_each(&mut one);
                    q.visit_exprs_mut(f, depth + 1);
                }
            }
        }
        for cte in &mut self.ctes {
            cte.query.visit_exprs_mut(f, depth + 1);
            if let Some((q, _)) = &mut cte.recursive {
                q.visit_exprs_mut(f, depth + 1);
            }
        }
    }

    /// Raises the levels of its outer references (those `from` or more levels up from its own expressions) by `by`.
    pub fn shift_outer(&mut self, from: usize, by: usize) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "only these range table entries matter here")]
        fn ctes(q: &mut Query, from: usize, by: usize) {
            use super::query::{InsertSource, RteSource};
            for rte in &mut q.rtable {
                match &mut rte.source {
                    RteSource::Cte(up, _) | RteSource::Working(up, _) if *up >= from => *up += by,
                    RteSource::Subquery(inner) => ctes(inner, from + 1, by),
                    _ => {}
                }
            }
            for cte in &mut q.ctes {
                ctes(&mut cte.query, from + 1, by);
                if let Some((inner, _)) = &mut cte.recursive {
                    ctes(inner, from + 1, by);
                }
            }
            if let Some(insert) = &mut q.insert
                && let InsertSource::Query(inner, _) = &mut insert.source
            {
                ctes(inner, from + 1, by);
            }
        }
        ctes(self, from, by);
        self.visit_exprs_mut(&mut |e, depth| e.shift_levels(from + depth, by), 0);
    }

    /// Does any expression in it refer to a query outside of it?
    pub fn is_correlated(&self) -> bool {
        let mut found = false;
        self.visit_exprs(
            &mut |e, depth| {
                #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
                fn outer(e: &Expr, depth: usize) -> bool {
                    e.any(&|e| match &e.kind {
                        ExprKind::Var(_, _, up) => *up > depth,
                        ExprKind::Agg(a) => a.up > depth,
                        ExprKind::SubLink(s) => {
                            let mut found = false;
                            s.query.visit_exprs(&mut |e, d| found = found || outer(e, d), depth + 1);
                            found
                        }
                        _ => false,
                    })
                }
                found = found || outer(e, depth);
            },
            0,
        );
        found
    }
}
