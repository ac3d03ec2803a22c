//! Bound expressions to code, against the layout of the rows they will see.

use std::sync::{Arc, OnceLock};

use super::planner::{Deps, Layout, Planner};
use crate::executor::code::{ArrayCompareCode, AssignCode, CallCode, CaseCode, Code, CompareCode, RowCompareCode, SubscriptCode};
use crate::executor::plan::{Quantified, SetCall, Subplan, SubplanKind};
use crate::executor::{Exec, ExecState};
use crate::sql::bind::expr::{CallExpr, Expr, ExprKind, SubLink, SubLinkKind};
use crate::sql::functions::{CallTypes, ProcBody};
use crate::sql::types::{Datum, oids, registry};
use crate::sqlstate::SqlError;

impl Planner<'_> {
    /// Compiles an expression. Slots it reads are added to `deps`.
    ///
    /// # Errors
    /// A subquery cannot be planned.
    pub fn compile(&mut self, e: &Expr, layout: &Layout, deps: &mut Deps) -> Result<Code, SqlError> {
        crate::stack::check()?;
        if !layout.exprs.is_empty()
            && !matches!(e.kind, ExprKind::Const(_))
            && let Some((_, column)) = layout.exprs.iter().find(|(x, _)| x.same(e))
        {
            return Ok(Code::Column(*column));
        }
        let code = match &e.kind {
            ExprKind::Const(v) => Code::Const(v.clone()),
            ExprKind::Var(rt, att, 0) => match layout.vars.get(&(*rt, *att)) {
                Some(column) => Code::Column(*column),
                None => match self.nest_slot(*rt, *att) {
                    Some(slot) => {
                        deps.insert(slot);
                        Code::Exec(slot)
                    }
                    None => return Err(SqlError::internal(format!("column {att} of range table entry {rt} is not at hand"))),
                },
            },
            ExprKind::Var(rt, att, up) => {
                let own = Expr { kind: ExprKind::Var(*rt, *att, 0), ..e.clone() };
                let slot = self.request(*up, own)?;
                deps.insert(slot);
                Code::Exec(slot)
            }
            ExprKind::Agg(a) if a.up > 0 => {
                let mut own = e.clone();
                lower_levels(&mut own, a.up);
                let slot = self.request(a.up, own)?;
                deps.insert(slot);
                Code::Exec(slot)
            }
            ExprKind::Grouping(args) => match &layout.grouping {
                Some((column, sets)) => {
                    let bits = sets.iter().map(|set| args.iter().fold(0i32, |bits, a| bits << 1 | i32::from(!set.contains(a)))).collect();
                    Code::Grouping(*column, bits)
                }
                None => Code::Const(Datum::Int4(0)),
            },
            ExprKind::Agg(_) | ExprKind::Window(_) => return Err(SqlError::internal("aggregate outside of aggregation")),
            ExprKind::Param(n) => Code::Param(*n),
            ExprKind::CaseValue => Code::CaseValue,
            ExprKind::Slot(n) => Code::Column(*n),
            ExprKind::Exec(n) => {
                deps.insert(*n);
                Code::Exec(*n)
            }
            ExprKind::SubColumn(n) => {
                let slot = self.sub_columns.get(*n).copied().ok_or_else(|| SqlError::internal("subquery column"))?;
                Code::Exec(slot)
            }
            ExprKind::Call(c) => return self.call(c, layout, deps),
            ExprKind::And(items) => {
                let items = self.codes(items, layout, deps)?;
                // Constants decide or drop out.
                if items.iter().any(|c| matches!(c, Code::Const(Datum::Bool(false)))) {
                    return Ok(Code::Const(Datum::Bool(false)));
                }
                let mut left: Vec<Code> = items.into_vec().into_iter().filter(|c| !matches!(c, Code::Const(Datum::Bool(true)))).collect();
                match left.len() {
                    0 => Code::Const(Datum::Bool(true)),
                    1 => left.swap_remove(0),
                    _ => Code::And(left.into()),
                }
            }
            ExprKind::Or(items) => {
                let items = self.codes(items, layout, deps)?;
                if items.iter().any(|c| matches!(c, Code::Const(Datum::Bool(true)))) {
                    return Ok(Code::Const(Datum::Bool(true)));
                }
                Code::Or(items)
            }
            ExprKind::Not(x) => Code::Not(Box::new(self.compile(x, layout, deps)?)),
            ExprKind::IsNull(x, negated) => {
                let code = Box::new(self.compile(x, layout, deps)?);
                if x.ty == oids::RECORD || x.ty >= oids::FIRST_NORMAL || matches!(x.kind, ExprKind::Row(..)) {
                    Code::RowIsNull(code, *negated)
                } else {
                    Code::IsNull(code, *negated)
                }
            }
            ExprKind::BoolTest(x, test) => Code::BoolTest(Box::new(self.compile(x, layout, deps)?), *test),
            ExprKind::Distinct(c, negated) => Code::Distinct(Box::new(self.call_code(c, layout, deps)?), *negated),
            ExprKind::NullIf(c) => Code::NullIf(Box::new(self.call_code(c, layout, deps)?)),
            ExprKind::Case(c) => {
                let arg = match &c.arg {
                    Some(a) => Some(self.compile(a, layout, deps)?),
                    None => None,
                };
                let mut arms = Vec::with_capacity(c.arms.len());
                for (condition, result) in &c.arms {
                    arms.push((self.compile(condition, layout, deps)?, self.compile(result, layout, deps)?));
                }
                let default = self.compile(&c.default, layout, deps)?;
                Code::Case(Box::new(CaseCode { arg, arms: arms.into(), default }))
            }
            ExprKind::Coalesce(items) => Code::Coalesce(self.codes(items, layout, deps)?),
            ExprKind::MinMax(items, greatest) => Code::MinMax(self.codes(items, layout, deps)?, *greatest),
            ExprKind::Array(items, elem, nested) => {
                let items = self.codes(items, layout, deps)?;
                let constant = items.iter().all(|c| matches!(c, Code::Const(_)));
                let code = Code::Array(items, *elem, *nested);
                return Ok(if constant { self.fold(code) } else { code });
            }
            ExprKind::Row(items, desc) => Code::Row(self.codes(items, layout, deps)?, desc.clone(), e.ty),
            ExprKind::RowCompare(op, pairs) => {
                let mut out = Vec::with_capacity(pairs.len());
                for (l, r) in pairs {
                    out.push((self.compile(l, layout, deps)?, self.compile(r, layout, deps)?));
                }
                Code::RowCompare(Box::new(RowCompareCode { op: *op, pairs: out.into() }))
            }
            ExprKind::Field(x, i) => Code::Field(Box::new(self.compile(x, layout, deps)?), *i),
            ExprKind::Subscript(x, subscripts, slice) => {
                let array = self.compile(x, layout, deps)?;
                let subscripts = self.subscripts(subscripts, layout, deps)?;
                Code::Subscript(Box::new(SubscriptCode { array, subscripts, slice: *slice, fixed: fixed_elem(x.ty) }))
            }
            ExprKind::ArrayCompare(c) => {
                let left = self.compile(&c.left, layout, deps)?;
                let array = self.compile(&c.array, layout, deps)?;
                let shortcut = Code::comparison(c.func);
                Code::ArrayCompare(Box::new(ArrayCompareCode {
                    func: c.func,
                    types: c.types.clone(),
                    any: c.any,
                    left,
                    array,
                    shortcut,
                    list: OnceLock::new(),
                }))
            }
            ExprKind::InOut(x) => {
                let code = self.compile(x, layout, deps)?;
                Code::InOut(Box::new(code), x.ty, e.ty, e.typmod)
            }
            ExprKind::Relabel(x) => self.compile(x, layout, deps)?,
            ExprKind::Reinterpret(x) => {
                let code = self.compile(x, layout, deps)?;
                let constant = matches!(code, Code::Const(_));
                let code = Code::Reinterpret(Box::new(code), e.ty);
                return Ok(if constant { self.fold(code) } else { code });
            }
            ExprKind::ArrayCast(x, each, elem) => {
                let code = self.compile(x, layout, deps)?;
                let each = self.compile(each, &Layout::default(), deps)?;
                Code::ArrayCast(Box::new(code), Box::new(each), *elem)
            }
            ExprKind::Typmod(x, explicit) => Code::Typmod(Box::new(self.compile(x, layout, deps)?), e.ty, e.typmod, *explicit),
            ExprKind::SubLink(s) => self.sublink(s, layout, deps)?,
            ExprKind::Session(v) => Code::Session(*v),
            ExprKind::Default => return Err(SqlError::internal("DEFAULT was not replaced")),
            ExprKind::AssignElement(old, subscripts, slice, value) => {
                let target = self.compile(old, layout, deps)?;
                let value = self.compile(value, layout, deps)?;
                let subscripts = self.subscripts(subscripts, layout, deps)?;
                let elem = registry::element_type(old.ty).unwrap_or(0);
                Code::AssignElement(Box::new(AssignCode { target, elem, subscripts, slice: *slice, value }))
            }
        };
        Ok(code)
    }

    #[expect(clippy::type_complexity, reason = "lower and upper of each dimension")]
    fn subscripts(
        &mut self,
        list: &[(Option<Expr>, Option<Expr>)],
        layout: &Layout,
        deps: &mut Deps,
    ) -> Result<Box<[(Option<Code>, Option<Code>)]>, SqlError> {
        let mut out = Vec::with_capacity(list.len());
        for (l, u) in list {
            let l = l.as_ref().map(|x| self.compile(x, layout, deps)).transpose()?;
            let u = u.as_ref().map(|x| self.compile(x, layout, deps)).transpose()?;
            out.push((l, u));
        }
        Ok(out.into())
    }

    /// Compiles a list.
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub fn codes(&mut self, items: &[Expr], layout: &Layout, deps: &mut Deps) -> Result<Box<[Code]>, SqlError> {
        items.iter().map(|e| self.compile(e, layout, deps)).collect()
    }

    fn call_code(&mut self, c: &CallExpr, layout: &Layout, deps: &mut Deps) -> Result<CallCode, SqlError> {
        self.parallel_safe &= c.func.parallel == b's';
        Ok(CallCode { func: c.func, types: c.types.clone(), args: self.codes(&c.args, layout, deps)? })
    }

    fn call(&mut self, c: &CallExpr, layout: &Layout, deps: &mut Deps) -> Result<Code, SqlError> {
        if c.func.returns_set {
            return Err(SqlError::new(
                crate::sqlstate::SqlState::FEATURE_NOT_SUPPORTED,
                "set-valued function called in context that cannot accept a set",
            ));
        }
        let call = self.call_code(c, layout, deps)?;
        let constant = call.args.iter().all(|a| matches!(a, Code::Const(_)));
        if constant && c.func.volatility == b'i' && matches!(c.func.body, ProcBody::Scalar(_)) {
            return Ok(self.fold(Code::Call(Box::new(call))));
        }
        if c.func.strict && c.func.volatility != b'v' && call.args.iter().any(|a| matches!(a, Code::Const(Datum::Null))) {
            return Ok(Code::Const(Datum::Null));
        }
        if let Some(op) = Code::comparison(c.func)
            && call.args.len() == 2
        {
            let mut args = call.args.into_vec().into_iter();
            if let (Some(left), Some(right)) = (args.next(), args.next()) {
                return Ok(Code::Compare(Box::new(CompareCode { op, left, right })));
            }
            return Err(SqlError::internal("comparison"));
        }
        Ok(Code::Call(Box::new(call)))
    }

    /// Evaluates now; what fails now is left to fail when it runs.
    fn fold(&mut self, code: Code) -> Code {
        let mut state = ExecState::bare();
        match code.eval(&mut Exec { session: self.session, state: &mut state }, &[]) {
            Ok(v) => Code::Const(v),
            Err(_) => code,
        }
    }

    /// The value of an expression if it is constant.
    pub fn constant(&mut self, e: &Expr) -> Option<Datum> {
        if let ExprKind::Const(v) = &e.kind {
            return Some(v.clone());
        }
        let free = e.any(&|x| {
            matches!(
                x.kind,
                ExprKind::Var(..)
                    | ExprKind::Param(_)
                    | ExprKind::SubLink(_)
                    | ExprKind::Agg(_)
                    | ExprKind::Window(_)
                    | ExprKind::SubColumn(_)
                    | ExprKind::Slot(_)
                    | ExprKind::Exec(_)
            )
        });
        if free || e.returns_set() {
            return None;
        }
        match self.compile(e, &Layout::default(), &mut Deps::new()) {
            Ok(Code::Const(v)) => Some(v),
            _ => None,
        }
    }

    fn sublink(&mut self, s: &SubLink, layout: &Layout, deps: &mut Deps) -> Result<Code, SqlError> {
        let number = self.subplans.len();
        self.subplans.push(None);
        self.subplan_deps.push(Deps::new());
        let before = self.level()?.requests.len();
        let limit = match &s.kind {
            SubLinkKind::Exists => Some(1.0),
            SubLinkKind::Scalar | SubLinkKind::Row(_) => Some(2.0),
            SubLinkKind::Array(_) | SubLinkKind::Quantified(..) => None,
        };
        let built = self.query(&s.query, limit)?;
        let requests = self.take_requests(before)?;
        let mut inner = built.deps;
        let mut args = Vec::with_capacity(requests.len());
        for (e, slot) in requests {
            inner.remove(&slot);
            args.push((slot, self.compile(&e, layout, deps)?));
        }
        deps.extend(&inner);
        let kind = match &s.kind {
            SubLinkKind::Exists => SubplanKind::Exists,
            SubLinkKind::Scalar => SubplanKind::Scalar,
            SubLinkKind::Array(elem) => SubplanKind::Array(*elem),
            SubLinkKind::Row(desc) => SubplanKind::Row(Arc::clone(desc)),
            SubLinkKind::Quantified(any, test, lefts) => {
                let slots: Vec<usize> = (0..built.node.width).map(|_| self.slot()).collect();
                let before = std::mem::replace(&mut self.sub_columns, slots.clone());
                let mut own = Deps::new();
                let code = self.compile(test, layout, &mut own);
                self.sub_columns = before;
                let test = code?;
                for slot in &slots {
                    own.remove(slot);
                }
                deps.extend(&own);
                let hash = match lefts {
                    // Hashed only if the rows are the same for every outer row.
                    Some(lefts) if args.is_empty() && inner.is_empty() => Some(self.codes(lefts, layout, deps)?),
                    _ => None,
                };
                SubplanKind::Quantified(Box::new(Quantified { any: *any, slots: slots.into(), test, hash }))
            }
        };
        if let Some(slot) = self.subplan_deps.get_mut(number) {
            slot.clone_from(&inner);
        }
        if let Some(slot) = self.subplans.get_mut(number) {
            *slot = Some(Subplan { plan: Arc::new(built.node), kind, args: args.into(), cacheable: inner.is_empty() });
        }
        Ok(Code::Subplan(number))
    }

    /// A set-returning call, or any expression in FROM.
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub fn set_call(&mut self, e: &Expr, record: bool, layout: &Layout, deps: &mut Deps) -> Result<SetCall, SqlError> {
        if let ExprKind::Call(c) = &e.kind
            && c.func.returns_set
        {
            return Ok(SetCall { func: Some(c.func), types: c.types.clone(), args: self.codes(&c.args, layout, deps)?, record });
        }
        let types = CallTypes { func: 0, args: smallvec::SmallVec::new(), result: e.ty, variadic_array: false };
        let code = self.compile(e, layout, deps)?;
        Ok(SetCall { func: None, types, args: vec![code].into(), record })
    }
}

/// Fixed-length "arrays" (`name`, `point`) count subscripts from 0 and are no array values.
fn fixed_elem(ty: u32) -> bool {
    crate::sql::types::type_by_oid(ty).is_some_and(|t| t.elem != 0 && t.len > 0)
}

/// Lowers outer references by `by` levels: what a subquery calls level `by` is the level itself.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
fn lower_levels(e: &mut Expr, by: usize) {
    match &mut e.kind {
        ExprKind::Var(_, _, up) => *up = up.saturating_sub(by),
        ExprKind::Agg(a) => a.up = a.up.saturating_sub(by),
        _ => {}
    }
    let _infallible = e.children_mut(&mut |c| {
        lower_levels(c, by);
        Ok(())
    });
}
