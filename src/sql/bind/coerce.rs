//! Conversions between types, as assignments, calls and casts ask for them.

use std::sync::Arc;

use super::expr::{CallExpr, Expr, ExprKind};
use super::scope::Binder;
use crate::sql::functions::{CallTypes, Coercion, CoercionContext, ProcEntry, coercion};
use crate::sql::types::{self, Datum, Oid, TupleDesc, format_type, oids, registry, typmod};
use crate::sqlstate::{SqlError, SqlState};

impl Binder<'_> {
    /// Converts `expr` to a type, or `None` if this context has no way to.
    ///
    /// # Errors
    /// A literal is no value of the type.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    pub fn try_coerce(&mut self, expr: Expr, ty: Oid, modifier: i32, context: CoercionContext) -> Result<Option<Expr>, SqlError> {
        let explicit = context == CoercionContext::Explicit;
        let at = expr.at;
        if expr.ty == ty && (modifier < 0 || expr.typmod == modifier) {
            return Ok(Some(expr));
        }
        if matches!(ty, oids::ANY | oids::ANYELEMENT | oids::ANYNONARRAY | oids::ANYCOMPATIBLE | oids::ANYCOMPATIBLENONARRAY) {
            return Ok(Some(expr));
        }
        if expr.ty == oids::UNKNOWN {
            match expr.kind {
                ExprKind::Const(Datum::Null) => {
                    let mut e = Expr::null(ty).located(at);
                    e.typmod = modifier;
                    return Ok(Some(e));
                }
                ExprKind::Const(Datum::Text(text)) => {
                    let value = self.literal(&text, ty, modifier, at)?;
                    let mut e = Expr::constant(value, ty).located(at);
                    if ty != oids::INTERVAL && modifier >= 0 {
                        let value = match e.kind {
                            ExprKind::Const(v) => v,
                            _ => Datum::Null,
                        };
                        // PostgreSQL folds this when it plans, where no position is known.
                        let value = typmod::coerce_typmod(value, ty, modifier, explicit)?;
                        e.kind = ExprKind::Const(value);
                    }
                    e.typmod = modifier;
                    return Ok(Some(e));
                }
                ExprKind::Param(n) if self.params.get(n).is_none_or(|t| *t == 0 || *t == oids::UNKNOWN) && self.open_params => {
                    if let Some(slot) = self.params.get_mut(n) {
                        *slot = ty;
                    }
                    let e = Expr::new(ExprKind::Param(n), ty, -1).located(at);
                    return self.with_typmod(e, modifier, explicit).map(Some);
                }
                _ => {}
            }
        }
        // A parameter whose type another use settled.
        if let ExprKind::Param(n) = expr.kind
            && expr.ty == oids::UNKNOWN
            && let Some(known) = self.params.get(n).copied().filter(|t| *t != 0 && *t != oids::UNKNOWN)
        {
            return self.try_coerce(Expr::new(ExprKind::Param(n), known, -1).located(at), ty, modifier, context);
        }
        if expr.ty == ty {
            return self.with_typmod(expr, modifier, explicit).map(Some);
        }
        if let ExprKind::Row(items, desc) = &expr.kind {
            if ty == oids::RECORD {
                return Ok(Some(expr));
            }
            if expr.ty == oids::RECORD
                && let Some(shape) = self.composite(ty)?
            {
                return self.row_as(items, desc, &shape, (ty, expr.at), context).map(Some);
            }
        }
        let source = expr.ty;
        let Some(how) = coercion(source, ty, context) else {
            return Ok(None);
        };
        // Cast functions that know the modifier apply it; others leave it to the length coercion.
        let converted = self.apply(expr, &how, ty, modifier, explicit)?;
        let done = matches!(&how, Coercion::Function(f) if f.args.len() > 1);
        if done { Ok(Some(converted)) } else { self.with_typmod(converted, modifier, explicit).map(Some) }
    }

    /// The items of a row as the columns of a row type. PostgreSQL: `coerce_record_to_complex`.
    fn row_as(
        &mut self,
        items: &[Expr],
        from: &TupleDesc,
        shape: &Arc<TupleDesc>,
        (ty, at): (Oid, i32),
        context: CoercionContext,
    ) -> Result<Expr, SqlError> {
        let refuse = |b: &Self, detail: String| {
            b.error(SqlState::CANNOT_COERCE, format!("cannot cast type record to {}", b.type_text(ty)), at).detail(detail)
        };
        let live = items.iter().zip(&from.cols).filter(|(_, c)| !c.dropped).map(|(e, _)| e);
        let mut live = live.enumerate();
        let mut out = Vec::with_capacity(shape.len());
        for col in &shape.cols {
            if col.dropped {
                out.push(super::expression::dropped_item());
                continue;
            }
            let Some((n, item)) = live.next() else { return Err(refuse(self, "Input has too few columns.".to_owned())) };
            let source = item.ty;
            // A literal has been taken for a text when the row was made.
            let mut item = item.clone();
            if item.ty == oids::TEXT && matches!(item.kind, ExprKind::Const(Datum::Text(_) | Datum::Null)) {
                item.ty = oids::UNKNOWN;
            }
            let fitted = self.try_coerce(item, col.type_oid, col.typmod, context)?;
            out.push(match fitted {
                Some(e) => e,
                None => {
                    let (from, to) = (self.type_text(source), self.type_text(col.type_oid));
                    return Err(refuse(self, format!("Cannot cast type {from} to {to} in column {}.", n + 1)));
                }
            });
        }
        if live.next().is_some() {
            return Err(refuse(self, "Input has too many columns.".to_owned()));
        }
        Ok(Expr::new(ExprKind::Row(out, Arc::clone(shape)), ty, -1).located(at))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    fn apply(&mut self, expr: Expr, how: &Coercion, ty: Oid, modifier: i32, explicit: bool) -> Result<Expr, SqlError> {
        let at = expr.at;
        let source = expr.ty;
        let kind = match how {
            Coercion::Relabel => match expr.kind {
                // Values of both types look the same.
                ExprKind::Const(value) => ExprKind::Const(value),
                _ => ExprKind::Relabel(Box::new(expr)),
            },
            Coercion::Reinterpret => ExprKind::Reinterpret(Box::new(expr)),
            Coercion::Function(func) => return Ok(cast_call(func, expr, ty, modifier, explicit)),
            Coercion::InOut => ExprKind::InOut(Box::new(expr)),
            Coercion::Array(each, elem) => {
                let from = registry::element_type(source).unwrap_or(oids::UNKNOWN);
                let each = self.apply(Expr::new(ExprKind::CaseValue, from, -1), each, *elem, modifier, explicit)?;
                let each = self.with_typmod(each, modifier, explicit)?;
                ExprKind::ArrayCast(Box::new(expr), Box::new(each), *elem)
            }
            Coercion::Record => ExprKind::Relabel(Box::new(expr)),
        };
        let mut result = Expr::new(kind, ty, -1).located(at);
        if matches!(how, Coercion::Array(..)) {
            result.typmod = modifier;
        }
        Ok(result)
    }

    /// Fits an expression of the right type to a modifier.
    ///
    /// # Errors
    /// A constant does not fit.
    pub fn with_typmod(&mut self, expr: Expr, modifier: i32, explicit: bool) -> Result<Expr, SqlError> {
        if modifier < 0 || expr.typmod == modifier {
            return Ok(expr);
        }
        let (ty, at) = (expr.ty, expr.at);
        if let Some(elem) = registry::element_type(ty)
            && types::type_by_oid(ty).is_some_and(types::TypeEntry::is_array)
        {
            let mut each = Expr::new(ExprKind::Typmod(Box::new(Expr::new(ExprKind::CaseValue, elem, -1)), explicit), elem, modifier);
            each.at = at;
            return Ok(Expr::new(ExprKind::ArrayCast(Box::new(expr), Box::new(each), elem), ty, modifier).located(at));
        }
        Ok(Expr::new(ExprKind::Typmod(Box::new(expr), explicit), ty, modifier).located(at))
    }

    /// Value of a string literal as a type.
    fn literal(&mut self, text: &str, ty: Oid, modifier: i32, at: i32) -> Result<Datum, SqlError> {
        let modifier = if ty == oids::INTERVAL { modifier } else { -1 };
        types::text_in(ty, modifier, text, self.session.io()).map_err(|e| self.position(e, at))
    }

    /// Converts or refuses with PostgreSQL's words for a cast.
    ///
    /// # Errors
    /// 42846.
    pub fn coerce(&mut self, expr: Expr, ty: Oid, modifier: i32, context: CoercionContext) -> Result<Expr, SqlError> {
        let (source, at) = (expr.ty, expr.at);
        match self.try_coerce(expr, ty, modifier, context)? {
            Some(e) => Ok(e),
            None => Err(self.error(
                SqlState::CANNOT_COERCE,
                format!("cannot cast type {} to {}", self.type_text(source), self.type_text(ty)),
                at,
            )),
        }
    }

    /// Converts for storing into a column.
    ///
    /// # Errors
    /// 42804.
    pub fn coerce_column(&mut self, expr: Expr, column: &str, ty: Oid, modifier: i32) -> Result<Expr, SqlError> {
        let (source, at) = (expr.ty, expr.at);
        match self.try_coerce(expr, ty, modifier, CoercionContext::Assignment)? {
            Some(e) => Ok(e),
            None => Err(self
                .error(
                    SqlState::DATATYPE_MISMATCH,
                    format!("column \"{column}\" is of type {} but expression is of type {}", self.type_text(ty), self.type_text(source)),
                    at,
                )
                .hint("You will need to rewrite or cast the expression.")),
        }
    }

    /// Requires a boolean.
    ///
    /// # Errors
    /// 42804.
    pub fn coerce_bool(&mut self, expr: Expr, what: &str) -> Result<Expr, SqlError> {
        let (source, at) = (expr.ty, expr.at);
        if expr.returns_set() {
            return Err(self.error(SqlState::DATATYPE_MISMATCH, format!("argument of {what} must not return a set"), at));
        }
        match self.try_coerce(expr, oids::BOOL, -1, CoercionContext::Assignment)? {
            Some(e) => Ok(e),
            None => Err(self.error(
                SqlState::DATATYPE_MISMATCH,
                format!("argument of {what} must be type boolean, not type {}", self.type_text(source)),
                at,
            )),
        }
    }

    /// Requires an integer of type `ty`.
    ///
    /// # Errors
    /// 42804.
    pub fn coerce_to(&mut self, expr: Expr, ty: Oid, what: &str) -> Result<Expr, SqlError> {
        let (source, at) = (expr.ty, expr.at);
        match self.try_coerce(expr, ty, -1, CoercionContext::Assignment)? {
            Some(e) => Ok(e),
            None => Err(self.error(
                SqlState::DATATYPE_MISMATCH,
                format!("argument of {what} must be type {}, not type {}", self.type_text(ty), self.type_text(source)),
                at,
            )),
        }
    }

    /// Literals without a type become text.
    ///
    /// # Errors
    /// None in practice.
    pub fn settle_unknown(&mut self, expr: Expr) -> Result<Expr, SqlError> {
        if expr.ty == oids::UNKNOWN { self.coerce(expr, oids::TEXT, -1, CoercionContext::Implicit) } else { Ok(expr) }
    }

    /// A type's name for messages.
    pub fn type_text(&self, ty: Oid) -> String {
        typmod::format_type_with(ty, None, self.session.io()).unwrap_or_else(|_| format_type(ty, -1))
    }
}

fn cast_call(func: &'static ProcEntry, expr: Expr, ty: Oid, modifier: i32, explicit: bool) -> Expr {
    let at = expr.at;
    let mut args = vec![expr];
    if func.args.len() > 1 {
        args.push(Expr::constant(Datum::Int4(modifier), oids::INT4));
    }
    if func.args.len() > 2 {
        args.push(Expr::bool(explicit));
    }
    let types = CallTypes { func: func.oid, args: args.iter().map(|a| a.ty).collect(), result: ty, variadic_array: false };
    let mut call = Expr::new(ExprKind::Call(Box::new(CallExpr { func, oper: None, types, args, cast: true })), ty, -1).located(at);
    if func.args.len() > 1 {
        call.typmod = modifier;
    }
    call
}
