//! Expressions.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{
    self, AExprKind, BoolExprType, BoolTestType, MinMaxOp, Node, NullTestType, SqlValueFunctionOp, SubLinkType, a_const,
};

use super::deparse::live_items;
use super::expr::{ArrayCompare, CallExpr, CaseExpr, Expr, ExprKind, SubLink, SubLinkKind};
use super::scope::{Binder, NameItem, Place, SYSTEM_COLUMNS, strings_of};
use crate::executor::code::{BoolTest, CompareOp, SessionValue, row_desc};
use crate::executor::routine::Meaning;
use crate::sql::functions::{CallTypes, CoercionContext, resolve_operator, select_common_type};
use crate::sql::types::{self, ColDesc, Datum, Oid, TupleDesc, oids, registry};
use crate::sqlstate::{SqlError, SqlState};

impl Binder<'_> {
    /// Binds an expression in a place.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn expr_at(&mut self, node: &Node, place: Place) -> Result<Expr, SqlError> {
        self.at_place(place, |b| b.expr(node))
    }

    /// Binds an optional boxed node.
    pub(super) fn boxed(&mut self, node: &Option<Box<Node>>) -> Result<Expr, SqlError> {
        match node {
            Some(node) => self.expr(node),
            None => Err(SqlError::internal("expression without an operand")),
        }
    }

    /// Binds an expression.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn expr(&mut self, node: &Node) -> Result<Expr, SqlError> {
        self.deeper(|b| b.expr_inner(node))
    }

    fn expr_inner(&mut self, node: &Node) -> Result<Expr, SqlError> {
        let Some(node) = &node.node else { return Err(SqlError::internal("empty node")) };
        #[expect(clippy::wildcard_enum_match_arm, reason = "other nodes are no expressions")]
        match node {
            NodeEnum::AConst(c) => self.constant(c),
            NodeEnum::ColumnRef(c) => self.column_ref(c),
            NodeEnum::ParamRef(p) => self.param(p),
            NodeEnum::AExpr(e) => self.a_expr(e),
            NodeEnum::BoolExpr(e) => self.bool_expr(e),
            NodeEnum::FuncCall(f) => self.func_call(f),
            NodeEnum::TypeCast(c) => self.type_cast(c),
            NodeEnum::CaseExpr(c) => self.case_expr(c),
            NodeEnum::SubLink(s) => self.sub_link(s),
            NodeEnum::NullTest(t) => {
                let arg = self.boxed(&t.arg)?;
                let arg = if arg.ty == oids::UNKNOWN { self.settle_unknown(arg)? } else { arg };
                let negated = NullTestType::try_from(t.nulltesttype) == Ok(NullTestType::IsNotNull);
                Ok(Expr::new(ExprKind::IsNull(Box::new(arg), negated), oids::BOOL, -1).located(t.location))
            }
            NodeEnum::BooleanTest(t) => {
                let (test, name) = match BoolTestType::try_from(t.booltesttype) {
                    Ok(BoolTestType::IsTrue) => (BoolTest::True, "IS TRUE"),
                    Ok(BoolTestType::IsNotTrue) => (BoolTest::NotTrue, "IS NOT TRUE"),
                    Ok(BoolTestType::IsFalse) => (BoolTest::False, "IS FALSE"),
                    Ok(BoolTestType::IsNotFalse) => (BoolTest::NotFalse, "IS NOT FALSE"),
                    Ok(BoolTestType::IsUnknown) => (BoolTest::Unknown, "IS UNKNOWN"),
                    Ok(BoolTestType::IsNotUnknown) => (BoolTest::NotUnknown, "IS NOT UNKNOWN"),
                    Ok(BoolTestType::Undefined) | Err(_) => return Err(SqlError::internal("boolean test")),
                };
                let arg = self.boxed(&t.arg)?;
                let arg = self.coerce_bool(arg, name)?;
                Ok(Expr::new(ExprKind::BoolTest(Box::new(arg), test), oids::BOOL, -1).located(t.location))
            }
            NodeEnum::CoalesceExpr(c) => {
                let items = self.exprs(&c.args)?;
                let (items, ty) = self.common(items, "COALESCE")?;
                self.no_sets(&items, "COALESCE")?;
                let typmod = common_typmod(&items);
                Ok(Expr::new(ExprKind::Coalesce(items), ty, typmod).located(c.location))
            }
            NodeEnum::MinMaxExpr(m) => {
                let greatest = MinMaxOp::try_from(m.op) == Ok(MinMaxOp::IsGreatest);
                let items = self.exprs(&m.args)?;
                let (items, ty) = self.common(items, if greatest { "GREATEST" } else { "LEAST" })?;
                let typmod = common_typmod(&items);
                Ok(Expr::new(ExprKind::MinMax(items, greatest), ty, typmod).located(m.location))
            }
            NodeEnum::RowExpr(r) => self.row(r, true),
            NodeEnum::AArrayExpr(a) => self.array_expr(a, None),
            NodeEnum::AIndirection(i) => self.indirection(i),
            NodeEnum::CollateClause(c) => {
                let arg = self.boxed(&c.arg)?;
                let arg = self.settle_unknown(arg)?;
                if types::type_by_oid(arg.ty).is_some_and(|t| t.collation == 0 && t.kind == b'b') {
                    return Err(self.error(
                        SqlState::DATATYPE_MISMATCH,
                        format!("collations are not supported by type {}", self.type_text(arg.ty)),
                        c.location,
                    ));
                }
                let names = strings_of(&c.collname);
                let known = matches!(
                    names.last(),
                    Some(
                        &("default"
                            | "C"
                            | "POSIX"
                            | "ucs_basic"
                            | "C.UTF-8"
                            | "C.utf8"
                            | "en_US.utf8"
                            | "en_US"
                            | "und-x-icu"
                            | "unicode")
                    )
                );
                if !known {
                    return Err(self.error(
                        SqlState::UNDEFINED_OBJECT,
                        format!("collation \"{}\" for encoding \"UTF8\" does not exist", names.join(".")),
                        c.location,
                    ));
                }
                Ok(arg)
            }
            NodeEnum::SqlvalueFunction(f) => self.session_value(f),
            NodeEnum::SetToDefault(d) => Ok(Expr::new(ExprKind::Default, oids::UNKNOWN, -1).located(d.location)),
            NodeEnum::GroupingFunc(g) => self.grouping_func(g),
            NodeEnum::NamedArgExpr(_) => Err(SqlError::new(SqlState::SYNTAX_ERROR, "named argument outside of a function call")),
            NodeEnum::List(list) => {
                // A row without ROW.
                let items = self.exprs(&list.items)?;
                let desc = row_desc(&items.iter().map(|e| (e.ty, e.typmod)).collect::<Vec<_>>());
                Ok(Expr::new(ExprKind::Row(items, desc), oids::RECORD, -1))
            }
            NodeEnum::CurrentOfExpr(_) => Err(SqlError::unsupported("WHERE CURRENT OF")),
            NodeEnum::XmlExpr(_) | NodeEnum::XmlSerialize(_) => Err(SqlError::unsupported("XML")),
            other => Err(SqlError::unsupported(node_name(other))),
        }
    }

    /// Binds a list.
    pub(super) fn exprs(&mut self, nodes: &[Node]) -> Result<Vec<Expr>, SqlError> {
        nodes.iter().map(|n| self.expr(n)).collect()
    }

    fn constant(&mut self, c: &protobuf::AConst) -> Result<Expr, SqlError> {
        if c.isnull {
            return Ok(Expr::null(oids::UNKNOWN).located(c.location));
        }
        let (value, ty) = match &c.val {
            Some(a_const::Val::Ival(i)) => (Datum::Int4(i.ival), oids::INT4),
            Some(a_const::Val::Fval(f)) => {
                // Too big for int4, or with point or exponent.
                let text = f.fval.replace('_', "");
                match parse_integer(&text) {
                    Some(v) => match i32::try_from(v) {
                        Ok(v) => (Datum::Int4(v), oids::INT4),
                        Err(_) => (Datum::Int8(v), oids::INT8),
                    },
                    None => {
                        let value =
                            types::text_in(oids::NUMERIC, -1, &text, self.session.io()).map_err(|e| self.position(e, c.location))?;
                        (value, oids::NUMERIC)
                    }
                }
            }
            Some(a_const::Val::Boolval(b)) => (Datum::Bool(b.boolval), oids::BOOL),
            Some(a_const::Val::Sval(s)) => (Datum::text(&s.sval), oids::UNKNOWN),
            Some(a_const::Val::Bsval(b)) => {
                let value = types::text_in(oids::BIT, -1, &b.bsval, self.session.io()).map_err(|e| self.position(e, c.location))?;
                (value, oids::BIT)
            }
            // The wire form leaves out zero.
            None => (Datum::Int4(0), oids::INT4),
        };
        Ok(Expr::constant(value, ty).located(c.location))
    }

    fn param(&mut self, p: &protobuf::ParamRef) -> Result<Expr, SqlError> {
        let missing = |b: &Self| b.error(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter ${}", p.number), p.location);
        let Some(n) = usize::try_from(p.number).ok().and_then(|n| n.checked_sub(1)) else { return Err(missing(self)) };
        if n >= self.params.len() {
            if !self.open_params || n >= 65535 {
                return Err(missing(self));
            }
            self.params.resize(n + 1, 0);
        }
        if self.param_places.len() <= n {
            self.param_places.resize(n + 1, 0);
        }
        if let (Some(place), Ok(byte)) = (self.param_places.get_mut(n), usize::try_from(p.location))
            && *place == 0
        {
            *place = crate::sql::parse::char_position(self.source, byte);
        }
        let ty = match self.params.get(n).copied() {
            None | Some(0) => oids::UNKNOWN,
            Some(ty) => ty,
        };
        Ok(Expr::new(ExprKind::Param(n), ty, -1).located(p.location))
    }

    pub(super) fn column_ref(&mut self, c: &protobuf::ColumnRef) -> Result<Expr, SqlError> {
        if matches!(c.fields.last().map(|f| &f.node), Some(Some(NodeEnum::AStar(_)))) {
            let names = strings_of(&c.fields);
            if let [name] = names.as_slice()
                && let Some((up, item)) = self.find_item(None, name, c.location)?
            {
                return self.whole_row(&item, up, c.location);
            }
            return Err(self.error(SqlState::SYNTAX_ERROR, "row expansion via \"*\" is not supported here", c.location));
        }
        let names = strings_of(&c.fields);
        let at = c.location;
        if let Place::Stored(what) = self.scope()?.place
            && what == "DEFAULT expressions"
        {
            return Err(self.error(SqlState::FEATURE_NOT_SUPPORTED, "cannot use column reference in DEFAULT expression", at));
        }
        let variable = self.variable(&names, at)?;
        match names.as_slice() {
            [name] => {
                if let Some(e) = self.find_column(name, at)? {
                    return match variable {
                        Some(_) if self.variables.as_ref().is_some_and(|v| !v.prefer_columns) => Err(self.ambiguous_variable(name, at)),
                        _ => Ok(e),
                    };
                }
                if let Some(e) = variable {
                    return Ok(e);
                }
                if let Some((up, item)) = self.find_item(None, name, at)? {
                    return self.whole_row(&item, up, at);
                }
                let error = self.error(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist"), at);
                Err(self.column_hint(error, None, name))
            }
            [table, name] => match variable {
                Some(e) if self.find_item(None, table, at)?.is_none() => Ok(e),
                _ => self.qualified(None, table, name, at),
            },
            [schema, table, _] if variable.is_some() && self.find_item(Some(schema), table, at)?.is_none() => {
                variable.ok_or_else(|| SqlError::internal("variable"))
            }
            [schema, table, name] | [_, schema, table, name] => self.qualified(Some(schema), table, name, at),
            _ => {
                Err(self.error(SqlState::SYNTAX_ERROR, format!("improper qualified name (too many dotted names): {}", names.join(".")), at))
            }
        }
    }

    fn ambiguous_variable(&self, name: &str, at: i32) -> SqlError {
        self.error(SqlState::AMBIGUOUS_COLUMN, format!("column reference \"{name}\" is ambiguous"), at)
            .detail("It could refer to either a PL/pgSQL variable or a table column.")
    }

    /// The variable, or field of one, that a name means in a function.
    fn variable(&mut self, names: &[&str], at: i32) -> Result<Option<Expr>, SqlError> {
        let Some(variables) = self.variables.clone().filter(|_| self.views.is_empty()) else { return Ok(None) };
        let whole = |i: usize| {
            let (ty, typmod) = variables.types.get(i).copied().unwrap_or((oids::TEXT, -1));
            Expr::new(ExprKind::Param(i), ty, typmod).located(at)
        };
        match variables.meaning(names) {
            None => Ok(None),
            Some(Meaning::Variable(i)) => Ok(Some(whole(i))),
            Some(Meaning::Field(i, field)) => {
                let record = names.get(names.len().saturating_sub(2)).copied().unwrap_or_default();
                let known = variables.shapes.get(i).cloned().flatten();
                let declared = variables.types.get(i).map_or(0, |(ty, _)| *ty);
                let Some(shape) = known.map_or_else(|| self.composite(declared), |shape| Ok(Some(shape)))? else {
                    let message = format!("record \"{record}\" is not assigned yet");
                    return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
                        .detail("The tuple structure of a not-yet-assigned record is indeterminate."));
                };
                match shape.cols.iter().position(|c| !c.dropped && &*c.name == field) {
                    Some(place) => {
                        let (ty, typmod) = shape.cols.get(place).map_or((oids::TEXT, -1), |c| (c.type_oid, c.typmod));
                        Ok(Some(Expr::new(ExprKind::Field(Box::new(whole(i)), place), ty, typmod).located(at)))
                    }
                    None => Err(self.error(SqlState::UNDEFINED_COLUMN, format!("record \"{record}\" has no field \"{field}\""), at)),
                }
            }
        }
    }

    fn qualified(&mut self, schema: Option<&str>, table: &str, name: &str, at: i32) -> Result<Expr, SqlError> {
        let Some((up, item)) = self.find_item(schema, table, at)? else {
            let full = schema.map_or_else(|| table.to_owned(), |s| format!("{s}.{table}"));
            // Hidden by an alias, or out of reach?
            let mut error = self.error(SqlState::UNDEFINED_TABLE, format!("missing FROM-clause entry for table \"{full}\""), at);
            for scope in self.scopes.iter().rev() {
                if let Some(rte) = scope
                    .rtable
                    .iter()
                    .find(|r| matches!(&r.source, super::query::RteSource::Table(t) if &*t.name == table) && &*r.alias != table)
                {
                    error = self
                        .error(SqlState::UNDEFINED_TABLE, format!("invalid reference to FROM-clause entry for table \"{full}\""), at)
                        .hint(format!("Perhaps you meant to reference the table alias \"{}\".", rte.alias));
                } else if scope.rtable.iter().any(|r| &*r.alias == table) {
                    error = self
                        .error(SqlState::UNDEFINED_TABLE, format!("invalid reference to FROM-clause entry for table \"{full}\""), at)
                        .hint(format!("There is an entry for table \"{table}\", but it cannot be referenced from this part of the query."));
                }
            }
            return Err(error);
        };
        let mut found = item.columns.iter().filter(|c| &*c.name == name);
        if let Some(column) = found.next() {
            if found.next().is_some() {
                return Err(self.error(SqlState::AMBIGUOUS_COLUMN, format!("column reference \"{name}\" is ambiguous"), at));
            }
            let mut e = column.expr.clone();
            if up > 0 {
                e.shift_levels(0, up);
            }
            e.at = at;
            return Ok(e);
        }
        if item.is_table
            && let Some(rt) = item.rt
            && let Some((_, att, ty)) = SYSTEM_COLUMNS.iter().find(|(n, ..)| *n == name)
        {
            return Ok(Expr::new(ExprKind::Var(rt, *att, up), *ty, -1).located(at));
        }
        let error = self.error(SqlState::UNDEFINED_COLUMN, format!("column {table}.{name} does not exist"), at);
        Err(self.column_hint(error, Some(table), name))
    }

    /// Adds what column may have been meant: the nearest by edit distance, as PostgreSQL judges it (parse_relation.c,
    /// `searchRangeTableForCol`).
    fn column_hint(&self, error: SqlError, table: Option<&str>, name: &str) -> SqlError {
        const TOO_FAR: usize = 3;
        let mut best = TOO_FAR;
        let mut found: Vec<String> = Vec::new();
        for scope in self.scopes.iter().rev() {
            for item in scope.names.iter().filter(|i| i.rt.is_some()) {
                let Some(item_name) = item.name.as_deref() else { continue };
                let off = table.map_or(0, |t| edit_distance(t, item_name));
                if off > best {
                    continue;
                }
                for c in &item.columns {
                    let hidden = off == 0 && *c.name == *name;
                    let distance = off + edit_distance(name, &c.name);
                    if !hidden && distance > name.len() / 2 {
                        continue;
                    }
                    if distance < best {
                        best = distance;
                        found.clear();
                    }
                    if distance <= best && distance < TOO_FAR + 1 {
                        found.push(format!("{item_name}.{}", c.name));
                    }
                }
            }
        }
        match found.as_slice() {
            [one] => error.hint(format!("Perhaps you meant to reference the column \"{one}\".")),
            [one, two] => error.hint(format!("Perhaps you meant to reference the column \"{one}\" or the column \"{two}\".")),
            _ => error,
        }
    }

    /// A whole row as a value.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    pub(super) fn whole_row(&mut self, item: &NameItem, up: usize, at: i32) -> Result<Expr, SqlError> {
        // A function's single column stands for itself.
        if let Some(rt) = item.rt
            && up < self.scopes.len()
            && let Some(scope) = self.scopes.iter().rev().nth(up)
            && let Some(rte) = scope.rtable.get(rt)
            && let super::query::RteSource::Function { calls, ordinality: false } = &rte.source
            && let [(call, 1)] = calls.as_slice()
            && call.ty != oids::RECORD
            && call.ty < oids::FIRST_NORMAL
            && let [column] = item.columns.as_slice()
        {
            let mut e = column.expr.clone();
            e.shift_levels(0, up);
            return Ok(e.located(at));
        }
        let mut items = Vec::with_capacity(item.columns.len());
        let mut cols = Vec::with_capacity(item.columns.len());
        let table =
            item.rt.and_then(|rt| self.scopes.iter().rev().nth(up).and_then(|s| s.rtable.get(rt))).and_then(|rte| match &rte.source {
                super::query::RteSource::Table(t) if t.row_type != 0 => Some(t.clone()),
                _ => None,
            });
        let ty = table.as_ref().map_or(oids::RECORD, |t| t.row_type);
        // In the places the row type has them.
        let dropped: Vec<usize> =
            table.iter().flat_map(|t| t.columns.iter().enumerate()).filter(|(_, c)| c.dropped).map(|(i, _)| i).collect();
        for column in &item.columns {
            while dropped.contains(&items.len()) {
                items.push(dropped_item());
                cols.push(ColDesc { dropped: true, ..ColDesc::new("", 0, -1) });
            }
            let mut e = column.expr.clone();
            if up > 0 {
                e.shift_levels(0, up);
            }
            cols.push(ColDesc::new(&column.name, e.ty, e.typmod));
            items.push(e);
        }
        while dropped.contains(&items.len()) {
            items.push(dropped_item());
            cols.push(ColDesc { dropped: true, ..ColDesc::new("", 0, -1) });
        }
        Ok(Expr::new(ExprKind::Row(items, Arc::new(TupleDesc::new(cols))), ty, -1).located(at))
    }

    /// An operator by name.
    pub(super) fn operator(&mut self, name: &str, left: Option<Expr>, right: Expr, at: i32) -> Result<Expr, SqlError> {
        let resolved =
            resolve_operator(name, left.as_ref().map(|l| self.known_type(l)), self.known_type(&right)).map_err(|e| self.position(e, at))?;
        let mut args = Vec::with_capacity(2);
        if let Some(left) = left {
            args.push(self.argument(left, resolved.left)?);
        }
        args.push(self.argument(right, resolved.right)?);
        let types = CallTypes {
            func: resolved.func.oid,
            args: args.iter().map(|a| a.ty).collect(),
            result: resolved.result,
            variadic_array: false,
        };
        Ok(Expr::new(
            ExprKind::Call(Box::new(CallExpr { func: resolved.func, oper: Some(resolved.oper), types, args, cast: false })),
            resolved.result,
            -1,
        )
        .located(at))
    }

    /// The type as resolution sees it: a parameter's may have been settled since.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    pub(super) fn known_type(&self, e: &Expr) -> Oid {
        match e.kind {
            ExprKind::Param(n) if e.ty == oids::UNKNOWN => self.params.get(n).copied().filter(|t| *t != 0).unwrap_or(oids::UNKNOWN),
            _ => e.ty,
        }
    }

    /// Converts an argument to what resolution chose.
    pub(super) fn argument(&mut self, arg: Expr, ty: Oid) -> Result<Expr, SqlError> {
        if ty == 0 || ty == arg.ty {
            return Ok(arg);
        }
        self.coerce(arg, ty, -1, CoercionContext::Implicit)
    }

    fn a_expr(&mut self, e: &protobuf::AExpr) -> Result<Expr, SqlError> {
        let at = e.location;
        let name = strings_of(&e.name).last().copied().unwrap_or_default().to_owned();
        let kind = AExprKind::try_from(e.kind).unwrap_or(AExprKind::Undefined);
        match kind {
            AExprKind::AexprOp => {
                // Both sides rows?
                if let (Some(l), Some(r)) = (&e.lexpr, &e.rexpr) {
                    if is_row(l) && is_row(r) {
                        let (l, r) = (self.side(l)?, self.side(r)?);
                        return self.row_operator(&name, l, r, at);
                    }
                    if is_row(l)
                        && let Some(NodeEnum::SubLink(s)) = &r.node
                        && SubLinkType::try_from(s.sub_link_type) == Ok(SubLinkType::ExprSublink)
                    {
                        let l = self.side(l)?;
                        let r = self.row_sublink(s)?;
                        return self.row_operator(&name, l, r, at);
                    }
                }
                let left = match &e.lexpr {
                    Some(l) => Some(self.expr(l)?),
                    None => None,
                };
                let right = self.boxed(&e.rexpr)?;
                // `- constant` is a constant, as the grammar has it for literals.
                if left.is_none()
                    && name == "-"
                    && let ExprKind::Const(v) = &right.kind
                {
                    #[expect(clippy::wildcard_enum_match_arm, reason = "only integers are folded here")]
                    let folded = match v {
                        Datum::Int4(v) => v.checked_neg().map(|v| (Datum::Int4(v), oids::INT4)),
                        Datum::Int8(v) if *v == 2_147_483_648 => Some((Datum::Int4(i32::MIN), oids::INT4)),
                        Datum::Int8(v) => v.checked_neg().map(|v| (Datum::Int8(v), oids::INT8)),
                        _ => None,
                    };
                    if let Some((v, ty)) = folded
                        && right.ty == ty
                    {
                        return Ok(Expr::constant(v, ty).located(at));
                    }
                }
                self.operator(&name, left, right, at)
            }
            AExprKind::AexprOpAny | AExprKind::AexprOpAll => {
                let left = self.boxed(&e.lexpr)?;
                let right = self.boxed(&e.rexpr)?;
                self.array_operator(&name, left, right, kind == AExprKind::AexprOpAny, at)
            }
            AExprKind::AexprDistinct | AExprKind::AexprNotDistinct => {
                let negated = kind == AExprKind::AexprNotDistinct;
                if let (Some(l), Some(r)) = (&e.lexpr, &e.rexpr)
                    && is_row(l)
                    && is_row(r)
                {
                    let (l, r) = (self.side(l)?, self.side(r)?);
                    let (ExprKind::Row(l, _), ExprKind::Row(r, _)) = (l.kind, r.kind) else { return Err(SqlError::internal("row")) };
                    if l.len() != r.len() {
                        return Err(self.error(SqlState::SYNTAX_ERROR, "unequal number of entries in row expressions", at));
                    }
                    let mut items = Vec::new();
                    for (l, r) in l.into_iter().zip(r) {
                        items.push(self.distinct(l, r, negated, at)?);
                    }
                    let kind = if negated { ExprKind::And(items) } else { ExprKind::Or(items) };
                    return Ok(Expr::new(kind, oids::BOOL, -1).located(at));
                }
                let left = self.boxed(&e.lexpr)?;
                let right = self.boxed(&e.rexpr)?;
                self.distinct(left, right, negated, at)
            }
            AExprKind::AexprNullif => {
                let left = self.boxed(&e.lexpr)?;
                let right = self.boxed(&e.rexpr)?;
                let call = self.operator(&name, Some(left), right, at)?;
                let ExprKind::Call(call) = call.kind else { return Err(SqlError::internal("NULLIF")) };
                let (ty, typmod) = call.args.first().map_or((oids::UNKNOWN, -1), |a| (a.ty, a.typmod));
                Ok(Expr::new(ExprKind::NullIf(call), ty, typmod).located(at))
            }
            AExprKind::AexprIn => self.in_list(e, &name),
            AExprKind::AexprLike | AExprKind::AexprIlike | AExprKind::AexprSimilar => {
                let left = self.boxed(&e.lexpr)?;
                let right = self.boxed(&e.rexpr)?;
                self.operator(&name, Some(left), right, at)
            }
            AExprKind::AexprBetween | AExprKind::AexprNotBetween | AExprKind::AexprBetweenSym | AExprKind::AexprNotBetweenSym => {
                let Some(NodeEnum::List(bounds)) = e.rexpr.as_ref().and_then(|r| r.node.as_ref()) else {
                    return Err(SqlError::internal("BETWEEN without bounds"));
                };
                let [low, high] = bounds.items.as_slice() else { return Err(SqlError::internal("BETWEEN without bounds")) };
                let (x, low, high) = match e.lexpr.as_deref() {
                    Some(x) if is_row(x) && is_row(low) && is_row(high) => (self.side(x)?, self.side(low)?, self.side(high)?),
                    _ => (self.boxed(&e.lexpr)?, self.expr(low)?, self.expr(high)?),
                };
                let mut between = |low: &Expr, high: &Expr| -> Result<Expr, SqlError> {
                    let mut compare = |name: &str, bound: &Expr| match (&x.kind, &bound.kind) {
                        (ExprKind::Row(..), ExprKind::Row(..)) => self.row_operator(name, x.clone(), bound.clone(), at),
                        _ => self.operator(name, Some(x.clone()), bound.clone(), at),
                    };
                    let (a, b) = (compare(">=", low)?, compare("<=", high)?);
                    Ok(Expr::new(ExprKind::And(vec![a, b]), oids::BOOL, -1).located(at))
                };
                let mut result = between(&low, &high)?;
                if matches!(kind, AExprKind::AexprBetweenSym | AExprKind::AexprNotBetweenSym) {
                    let other = between(&high, &low)?;
                    result = Expr::new(ExprKind::Or(vec![result, other]), oids::BOOL, -1).located(at);
                }
                if matches!(kind, AExprKind::AexprNotBetween | AExprKind::AexprNotBetweenSym) {
                    result = Expr::new(ExprKind::Not(Box::new(result)), oids::BOOL, -1).located(at);
                }
                Ok(result)
            }
            AExprKind::Undefined => Err(SqlError::internal("expression kind")),
        }
    }

    fn distinct(&mut self, left: Expr, right: Expr, negated: bool, at: i32) -> Result<Expr, SqlError> {
        let call = self.operator("=", Some(left), right, at)?;
        if call.ty != oids::BOOL {
            return Err(self.error(SqlState::DATATYPE_MISMATCH, "IS DISTINCT FROM requires = operator to yield boolean", at));
        }
        let ExprKind::Call(call) = call.kind else { return Err(SqlError::internal("IS DISTINCT FROM")) };
        Ok(Expr::new(ExprKind::Distinct(call, negated), oids::BOOL, -1).located(at))
    }

    /// `x op ANY (array)`.
    pub(super) fn array_operator(&mut self, name: &str, left: Expr, array: Expr, any: bool, at: i32) -> Result<Expr, SqlError> {
        let array_ty = self.known_type(&array);
        let element = if array_ty == oids::UNKNOWN {
            oids::UNKNOWN
        } else {
            match registry::element_type(array_ty) {
                Some(e) => e,
                None => return Err(self.error(SqlState::WRONG_OBJECT_TYPE, "op ANY/ALL (array) requires array on right side", at)),
            }
        };
        let left_ty = self.known_type(&left);
        let resolved = resolve_operator(name, Some(left_ty), element).map_err(|e| self.position(e, at))?;
        if resolved.result != oids::BOOL {
            return Err(self.error(SqlState::WRONG_OBJECT_TYPE, "op ANY/ALL (array) requires operator to yield boolean", at));
        }
        let wanted = if resolved.right == element && element != oids::UNKNOWN {
            array_ty
        } else {
            registry::array_type(resolved.right).ok_or_else(|| {
                self.error(
                    SqlState::UNDEFINED_OBJECT,
                    format!("could not find array type for data type {}", self.type_text(resolved.right)),
                    at,
                )
            })?
        };
        let left = self.argument(left, resolved.left)?;
        let array = self.argument(array, wanted)?;
        let types = CallTypes {
            func: resolved.func.oid,
            args: [left.ty, resolved.right].into_iter().collect(),
            result: oids::BOOL,
            variadic_array: false,
        };
        Ok(Expr::new(
            ExprKind::ArrayCompare(Box::new(ArrayCompare { oper: resolved.oper, func: resolved.func, types, any, left, array })),
            oids::BOOL,
            -1,
        )
        .located(at))
    }

    fn in_list(&mut self, e: &protobuf::AExpr, name: &str) -> Result<Expr, SqlError> {
        let at = e.location;
        let Some(NodeEnum::List(list)) = e.rexpr.as_ref().and_then(|r| r.node.as_ref()) else {
            return Err(SqlError::internal("IN without a list"));
        };
        let any = name == "=";
        let (left, items) = match e.lexpr.as_deref().filter(|l| is_row(l)) {
            Some(row) => (self.side(row)?, list.items.iter().map(|i| self.side(i)).collect::<Result<Vec<_>, _>>()?),
            None => (self.boxed(&e.lexpr)?, self.exprs(&list.items)?),
        };
        let rows = matches!(left.kind, ExprKind::Row(..));
        if !rows && items.len() > 1 {
            // Only what has no variables goes into the array.
            let (variables, constants): (Vec<Expr>, Vec<Expr>) =
                items.into_iter().partition(|i| i.any(&|e| matches!(e.kind, ExprKind::Var(..))));
            let mut result = Vec::new();
            let mut constants = constants;
            if constants.len() > 1 {
                let mut all: Vec<Oid> = vec![self.known_type(&left)];
                all.extend(constants.iter().map(|i| self.known_type(i)));
                let common = select_common_type(&all, "IN").ok().filter(|t| *t != oids::RECORD);
                if let Some((ty, array_ty)) =
                    common.map(|t| if t == oids::UNKNOWN { oids::TEXT } else { t }).and_then(|t| registry::array_type(t).map(|a| (t, a)))
                {
                    let mut values = Vec::with_capacity(constants.len());
                    for item in std::mem::take(&mut constants) {
                        values.push(self.coerce(item, ty, -1, CoercionContext::Implicit)?);
                    }
                    let array = Expr::new(ExprKind::Array(values, ty, false), array_ty, -1).located(at);
                    result.push(self.array_operator(name, left.clone(), array, any, at)?);
                }
            }
            for item in constants.into_iter().chain(variables) {
                result.push(self.operator(name, Some(left.clone()), item, at)?);
            }
            if result.len() == 1
                && let Some(one) = result.pop()
            {
                return Ok(one);
            }
            return Ok(Expr::new(if any { ExprKind::Or(result) } else { ExprKind::And(result) }, oids::BOOL, -1).located(at));
        }
        let mut result = Vec::with_capacity(items.len());
        for item in items {
            result.push(if rows {
                self.row_operator(name, left.clone(), item, at)?
            } else {
                self.operator(name, Some(left.clone()), item, at)?
            });
        }
        if result.len() == 1
            && let Some(one) = result.pop()
        {
            return Ok(one);
        }
        Ok(Expr::new(if any { ExprKind::Or(result) } else { ExprKind::And(result) }, oids::BOOL, -1).located(at))
    }

    /// `ROW(..)`. Literals and parameters of unknown type become text if `settle`.
    fn row(&mut self, r: &protobuf::RowExpr, settle: bool) -> Result<Expr, SqlError> {
        let mut items = Vec::with_capacity(r.args.len());
        for arg in &r.args {
            if let Some(stars) = self.star(arg)? {
                items.extend(stars.into_iter().map(|(_, e)| e));
            } else {
                let e = self.expr(arg)?;
                items.push(if settle { self.settle_unknown(e)? } else { e });
            }
        }
        if items.len() > 1664 {
            return Err(self.error(SqlState::TOO_MANY_COLUMNS, "ROW expressions can have at most 1664 entries", r.location));
        }
        let desc = row_desc(&items.iter().map(|e| (e.ty, e.typmod)).collect::<Vec<_>>());
        Ok(Expr::new(ExprKind::Row(items, desc), oids::RECORD, -1).located(r.location))
    }

    /// One side of a comparison: what a row's items of unknown type are, the other side says.
    fn side(&mut self, node: &Node) -> Result<Expr, SqlError> {
        match &node.node {
            Some(NodeEnum::RowExpr(r)) => self.deeper(|b| b.row(r, false)),
            _ => self.expr(node),
        }
    }

    /// `ROW(..) op ROW(..)`.
    fn row_operator(&mut self, name: &str, left: Expr, right: Expr, at: i32) -> Result<Expr, SqlError> {
        let (ExprKind::Row(left, left_desc), ExprKind::Row(right, right_desc)) = (left.kind, right.kind) else {
            return Err(self.error(SqlState::FEATURE_NOT_SUPPORTED, "row comparison with something that is no row is not supported", at));
        };
        let (left, right) = (live_items(&left, &left_desc), live_items(&right, &right_desc));
        if left.len() != right.len() {
            return Err(self.error(SqlState::SYNTAX_ERROR, "unequal number of entries in row expressions", at));
        }
        if left.is_empty() {
            return Err(self.error(SqlState::FEATURE_NOT_SUPPORTED, "cannot compare rows of zero length", at));
        }
        if left.len() == 1 {
            return match (left.into_iter().next(), right.into_iter().next()) {
                (Some(l), Some(r)) => self.operator(name, Some(l), r, at),
                _ => Err(SqlError::internal("row")),
            };
        }
        let mut calls = Vec::with_capacity(left.len());
        for (l, r) in left.into_iter().zip(right) {
            calls.push(self.operator(name, Some(l), r, at)?);
        }
        let op = match name {
            "=" => return Ok(Expr::new(ExprKind::And(calls), oids::BOOL, -1).located(at)),
            "<>" => return Ok(Expr::new(ExprKind::Or(calls), oids::BOOL, -1).located(at)),
            "<" => CompareOp::Lt,
            "<=" => CompareOp::Le,
            ">" => CompareOp::Gt,
            ">=" => CompareOp::Ge,
            _ => {
                return Err(self
                    .error(
                        SqlState::FEATURE_NOT_SUPPORTED,
                        format!("could not determine interpretation of row comparison operator {name}"),
                        at,
                    )
                    .hint("Row comparison operators must be associated with btree operator families."));
            }
        };
        let mut pairs = Vec::with_capacity(calls.len());
        for call in calls {
            let ExprKind::Call(mut call) = call.kind else { return Err(SqlError::internal("row comparison")) };
            match (call.args.pop(), call.args.pop()) {
                (Some(r), Some(l)) => pairs.push((l, r)),
                _ => return Err(SqlError::internal("row comparison")),
            }
        }
        Ok(Expr::new(ExprKind::RowCompare(op, pairs), oids::BOOL, -1).located(at))
    }

    fn bool_expr(&mut self, e: &protobuf::BoolExpr) -> Result<Expr, SqlError> {
        let (name, kind) = match BoolExprType::try_from(e.boolop) {
            Ok(BoolExprType::AndExpr) => ("AND", 0),
            Ok(BoolExprType::OrExpr) => ("OR", 1),
            Ok(BoolExprType::NotExpr) => ("NOT", 2),
            Ok(BoolExprType::Undefined) | Err(_) => return Err(SqlError::internal("boolean expression")),
        };
        let mut items = Vec::with_capacity(e.args.len());
        for arg in &e.args {
            let item = self.expr(arg)?;
            items.push(self.coerce_bool(item, name)?);
        }
        let kind = match (kind, items.len()) {
            (0, _) => ExprKind::And(items),
            (1, _) => ExprKind::Or(items),
            (_, 1) => match items.pop() {
                Some(item) => ExprKind::Not(Box::new(item)),
                None => return Err(SqlError::internal("NOT")),
            },
            _ => return Err(SqlError::internal("NOT")),
        };
        Ok(Expr::new(kind, oids::BOOL, -1).located(e.location))
    }

    fn type_cast(&mut self, c: &protobuf::TypeCast) -> Result<Expr, SqlError> {
        let Some(name) = &c.type_name else { return Err(SqlError::internal("cast without a type")) };
        let (ty, typmod) = self.type_name(name)?;
        let Some(arg) = &c.arg else { return Err(SqlError::internal("cast without a value")) };
        let arg = match &arg.node {
            Some(NodeEnum::AArrayExpr(a)) if registry::element_type(ty).is_some() => self.deeper(|b| b.array_expr(a, Some(ty)))?,
            _ => self.expr(arg)?,
        };
        // Errors point at the literal's text as PostgreSQL does, at the cast otherwise.
        let mut arg = arg;
        let at = if arg.is_unknown_literal() || c.location < 0 { arg.at } else { c.location };
        // What is wrong with an aggregate is said of the aggregate.
        if !matches!(arg.kind, ExprKind::Agg(_)) {
            arg.at = at;
        }
        let source = arg.ty;
        match self.try_coerce(arg, ty, typmod, CoercionContext::Explicit)? {
            Some(e) => Ok(e),
            None => Err(self.error(
                SqlState::CANNOT_COERCE,
                format!("cannot cast type {} to {}", self.type_text(source), self.type_text(ty)),
                at,
            )),
        }
    }

    fn case_expr(&mut self, c: &protobuf::CaseExpr) -> Result<Expr, SqlError> {
        let arg = match &c.arg {
            Some(arg) => {
                let e = self.expr(arg)?;
                Some(self.settle_unknown(e)?)
            }
            None => None,
        };
        let mut conditions = Vec::new();
        let mut results = Vec::new();
        for when in &c.args {
            let Some(NodeEnum::CaseWhen(w)) = &when.node else { return Err(SqlError::internal("CASE")) };
            let condition = self.boxed(&w.expr)?;
            let condition = match &arg {
                Some(arg) => {
                    let value = Expr::new(ExprKind::CaseValue, arg.ty, arg.typmod);
                    self.operator("=", Some(value), condition, w.location)?
                }
                None => condition,
            };
            conditions.push(self.coerce_bool(condition, "CASE/WHEN")?);
            results.push(self.boxed(&w.result)?);
        }
        let default = match &c.defresult {
            Some(d) => self.expr(d)?,
            None => Expr::null(oids::UNKNOWN),
        };
        // The ELSE counts first, as PostgreSQL has it.
        let mut all = vec![default];
        all.append(&mut results);
        let (mut all, ty) = self.common(all, "CASE")?;
        self.no_sets(arg.iter().chain(&conditions).chain(&all), "CASE")?;
        let typmod = common_typmod(&all);
        let results = all.split_off(1);
        let default = all.pop().ok_or_else(|| SqlError::internal("CASE"))?;
        let arms = conditions.into_iter().zip(results).collect();
        Ok(Expr::new(ExprKind::Case(Box::new(CaseExpr { arg, arms, default })), ty, typmod).located(c.location))
    }

    /// Brings items to their common type.
    pub(super) fn common(&mut self, items: Vec<Expr>, what: &str) -> Result<(Vec<Expr>, Oid), SqlError> {
        let all: Vec<Oid> = items.iter().map(|i| self.known_type(i)).collect();
        let at = items.iter().map(|i| i.at).find(|a| *a >= 0).unwrap_or(-1);
        let mut ty = select_common_type(&all, what).map_err(|e| self.position(e, at))?;
        if ty == oids::UNKNOWN {
            ty = oids::TEXT;
        }
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            let (source, at) = (item.ty, item.at);
            match self.try_coerce(item, ty, -1, CoercionContext::Implicit)? {
                Some(e) => out.push(e),
                None => {
                    return Err(self.error(
                        SqlState::CANNOT_COERCE,
                        format!("{what} could not convert type {} to {}", self.type_text(source), self.type_text(ty)),
                        at,
                    ));
                }
            }
        }
        Ok((out, ty))
    }

    pub(super) fn array_expr(&mut self, a: &protobuf::AArrayExpr, target: Option<Oid>) -> Result<Expr, SqlError> {
        let at = a.location;
        let element_target = target.and_then(registry::element_type);
        let mut items = Vec::with_capacity(a.elements.len());
        let mut nested = false;
        for node in &a.elements {
            let e = match &node.node {
                Some(NodeEnum::AArrayExpr(inner)) => {
                    nested = true;
                    self.deeper(|b| b.array_expr(inner, target))?
                }
                _ => self.expr(node)?,
            };
            if registry::element_type(e.ty).is_some()
                && types::type_by_oid(e.ty).is_some_and(types::TypeEntry::is_array)
                && element_target.is_none()
            {
                nested = true;
            }
            items.push(e);
        }
        if let (Some(array_ty), Some(elem)) = (target, element_target) {
            let wanted = if nested { array_ty } else { elem };
            let mut out = Vec::with_capacity(items.len());
            for item in items {
                let ok = self.coerce(item, wanted, -1, CoercionContext::Explicit)?;
                out.push(ok);
            }
            return Ok(Expr::new(ExprKind::Array(out, elem, nested), array_ty, -1).located(at));
        }
        if items.is_empty() {
            return Err(self
                .error(SqlState::INDETERMINATE_DATATYPE, "cannot determine type of empty array", at)
                .hint("Explicitly cast to the desired type, for example ARRAY[]::integer[]."));
        }
        let (items, ty) = self.common(items, "ARRAY")?;
        let (elem, array_ty) = if nested {
            (registry::element_type(ty).unwrap_or(ty), ty)
        } else {
            let array_ty = registry::array_type(ty).ok_or_else(|| {
                self.error(SqlState::UNDEFINED_OBJECT, format!("could not find array type for data type {}", self.type_text(ty)), at)
            })?;
            (ty, array_ty)
        };
        Ok(Expr::new(ExprKind::Array(items, elem, nested), array_ty, -1).located(at))
    }

    #[expect(clippy::type_complexity, reason = "lower and upper bounds")]
    pub(super) fn subscripts(&mut self, indices: &[&protobuf::AIndices]) -> Result<(Vec<(Option<Expr>, Option<Expr>)>, bool), SqlError> {
        let slice = indices.iter().any(|i| i.is_slice);
        let mut out = Vec::with_capacity(indices.len());
        for i in indices {
            let mut one = |node: &Option<Box<Node>>| -> Result<Option<Expr>, SqlError> {
                match node {
                    None => Ok(None),
                    Some(n) => {
                        let e = self.expr(n)?;
                        let (source, at) = (e.ty, e.at);
                        match self.try_coerce(e, oids::INT4, -1, CoercionContext::Assignment)? {
                            Some(e) => Ok(Some(e)),
                            None => Err(self.error(
                                SqlState::DATATYPE_MISMATCH,
                                format!("array subscript must have type integer, not {}", self.type_text(source)),
                                at,
                            )),
                        }
                    }
                }
            };
            let lower = one(&i.lidx)?;
            let upper = one(&i.uidx)?;
            // Among slices a plain subscript n means 1:n.
            out.push(if slice && !i.is_slice { (Some(Expr::constant(Datum::Int4(1), oids::INT4)), upper) } else { (lower, upper) });
        }
        Ok((out, slice))
    }

    fn indirection(&mut self, i: &protobuf::AIndirection) -> Result<Expr, SqlError> {
        let mut e = self.boxed(&i.arg)?;
        let mut at = 0;
        while let Some(step) = i.indirection.get(at) {
            match &step.node {
                Some(NodeEnum::AIndices(_)) => {
                    let mut indices = Vec::new();
                    while let Some(Some(NodeEnum::AIndices(index))) = i.indirection.get(at).map(|s| &s.node) {
                        indices.push(&**index);
                        at += 1;
                    }
                    e = self.subscript(e, &indices)?;
                    continue;
                }
                Some(NodeEnum::String(s)) => e = self.field(e, &s.sval)?,
                _ => return Err(SqlError::new(SqlState::SYNTAX_ERROR, "row expansion via \"*\" is not supported here")),
            }
            at += 1;
        }
        Ok(e)
    }

    fn subscript(&mut self, e: Expr, indices: &[&protobuf::AIndices]) -> Result<Expr, SqlError> {
        let at = e.at;
        let ty = e.ty;
        if ty == oids::JSONB {
            let mut e = e;
            for index in indices {
                let key = self.boxed(&index.uidx)?;
                e = self.operator("->", Some(e), key, at)?;
            }
            return Ok(e);
        }
        if ty == oids::NAME
            && let [index] = indices
            && !index.is_slice
        {
            return self.name_byte(e, index);
        }
        let Some(elem) = registry::element_type(ty) else {
            return Err(self.error(
                SqlState::DATATYPE_MISMATCH,
                format!("cannot subscript type {} because it does not support subscripting", self.type_text(ty)),
                at,
            ));
        };
        if indices.len() > 6 {
            return Err(self.error(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("number of array dimensions ({}) exceeds the maximum allowed (6)", indices.len()),
                at,
            ));
        }
        let typmod = e.typmod;
        let (subscripts, slice) = self.subscripts(indices)?;
        Ok(Expr::new(ExprKind::Subscript(Box::new(e), subscripts, slice), if slice { ty } else { elem }, typmod).located(at))
    }

    /// A byte of a name, which counts as an array of `"char"` from 0.
    fn name_byte(&mut self, e: Expr, index: &protobuf::AIndices) -> Result<Expr, SqlError> {
        const SUBSTR: u32 = 877;
        let at = e.at;
        let func = crate::sql::functions::proc_by_oid(SUBSTR).ok_or_else(|| SqlError::internal("substr"))?;
        let text = self.coerce(e, oids::TEXT, -1, CoercionContext::Implicit)?;
        let place = self.boxed(&index.uidx)?;
        let place = self.coerce(place, oids::INT4, -1, CoercionContext::Assignment)?;
        let place = self.operator("+", Some(place), Expr::constant(Datum::Int4(1), oids::INT4), at)?;
        let args = vec![text, place, Expr::constant(Datum::Int4(1), oids::INT4)];
        let types = CallTypes { func: SUBSTR, args: args.iter().map(|a| a.ty).collect(), result: oids::TEXT, variadic_array: false };
        let call = CallExpr { func, oper: None, types, args, cast: false };
        let byte = Expr::new(ExprKind::Call(Box::new(call)), oids::TEXT, -1).located(at);
        self.coerce(byte, oids::CHAR, -1, CoercionContext::Explicit)
    }

    /// Shape of a record-valued expression.
    pub(super) fn record_shape(&mut self, e: &Expr) -> Result<Option<Arc<TupleDesc>>, SqlError> {
        let found = self.shape_of_kind(e)?;
        if found.is_some() || e.ty < oids::FIRST_NORMAL {
            return Ok(found);
        }
        self.composite(e.ty)
    }

    /// Columns of a row type.
    pub(super) fn composite(&self, ty: Oid) -> Result<Option<Arc<TupleDesc>>, SqlError> {
        match &self.session.io().names {
            Some(names) if ty >= oids::FIRST_NORMAL => names.composite(ty),
            _ => Ok(None),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    fn shape_of_kind(&mut self, e: &Expr) -> Result<Option<Arc<TupleDesc>>, SqlError> {
        Ok(match &e.kind {
            ExprKind::Row(_, desc) => Some(desc.clone()),
            ExprKind::Call(c) => c.func.out_columns(),
            ExprKind::Param(n) => self.variables.as_ref().and_then(|v| v.shapes.get(*n).cloned().flatten()),
            ExprKind::SubLink(s) => match &s.kind {
                SubLinkKind::Scalar => match s.query.targets.iter().find(|t| !t.junk) {
                    Some(t) => self.record_shape(&t.expr.clone())?,
                    None => None,
                },
                SubLinkKind::Row(desc) => Some(desc.clone()),
                SubLinkKind::Exists | SubLinkKind::Array(_) | SubLinkKind::Quantified(..) => None,
            },
            ExprKind::Var(rt, att, up) => {
                let inner = self.scopes.iter().rev().nth(*up).and_then(|s| s.rtable.get(*rt)).and_then(|r| match &r.source {
                    super::query::RteSource::Subquery(q) => usize::try_from(*att)
                        .ok()
                        .and_then(|a| a.checked_sub(1))
                        .and_then(|a| q.targets.iter().filter(|t| !t.junk).nth(a))
                        .map(|t| t.expr.clone()),
                    _ => None,
                });
                match inner {
                    Some(e) if e.ty == oids::RECORD || matches!(e.kind, ExprKind::Row(..)) => self.record_shape(&e)?,
                    _ => None,
                }
            }
            ExprKind::Relabel(e) => self.record_shape(&(**e).clone())?,
            _ => None,
        })
    }

    fn field(&mut self, e: Expr, name: &str) -> Result<Expr, SqlError> {
        let at = e.at;
        let shape = self.record_shape(&e)?;
        let Some(shape) = shape else {
            return Err(self.error(
                SqlState::WRONG_OBJECT_TYPE,
                format!("column notation .{name} applied to type {}, which is not a composite type", self.type_text(e.ty)),
                at,
            ));
        };
        match shape.cols.iter().position(|c| &*c.name == name && !c.dropped) {
            Some(i) => {
                let (ty, typmod) = shape.cols.get(i).map_or((oids::UNKNOWN, -1), |c| (c.type_oid, c.typmod));
                if let ExprKind::Row(items, _) = e.kind {
                    return items.into_iter().nth(i).ok_or_else(|| SqlError::internal("record without its column"));
                }
                Ok(Expr::new(ExprKind::Field(Box::new(e), i), ty, typmod).located(at))
            }
            None => Err(self.error(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{name}\" not found in data type {}", self.type_text(e.ty)),
                at,
            )),
        }
    }

    fn session_value(&mut self, f: &protobuf::SqlValueFunction) -> Result<Expr, SqlError> {
        use SqlValueFunctionOp as Op;
        let n = f.typmod;
        let (value, ty) = match Op::try_from(f.op).unwrap_or(Op::SqlvalueFunctionOpUndefined) {
            Op::SvfopCurrentDate => (SessionValue::CurrentDate, oids::DATE),
            Op::SvfopCurrentTime => (SessionValue::CurrentTime(-1), oids::TIMETZ),
            Op::SvfopCurrentTimeN => (SessionValue::CurrentTime(n), oids::TIMETZ),
            Op::SvfopCurrentTimestamp => (SessionValue::CurrentTimestamp(-1), oids::TIMESTAMPTZ),
            Op::SvfopCurrentTimestampN => (SessionValue::CurrentTimestamp(n), oids::TIMESTAMPTZ),
            Op::SvfopLocaltime => (SessionValue::LocalTime(-1), oids::TIME),
            Op::SvfopLocaltimeN => (SessionValue::LocalTime(n), oids::TIME),
            Op::SvfopLocaltimestamp => (SessionValue::LocalTimestamp(-1), oids::TIMESTAMP),
            Op::SvfopLocaltimestampN => (SessionValue::LocalTimestamp(n), oids::TIMESTAMP),
            Op::SvfopCurrentRole | Op::SvfopCurrentUser | Op::SvfopUser => (SessionValue::CurrentUser, oids::NAME),
            Op::SvfopSessionUser => (SessionValue::SessionUser, oids::NAME),
            Op::SvfopCurrentCatalog => (SessionValue::CurrentCatalog, oids::NAME),
            Op::SvfopCurrentSchema => (SessionValue::CurrentSchema, oids::NAME),
            Op::SqlvalueFunctionOpUndefined => return Err(SqlError::internal("value function")),
        };
        Ok(Expr::new(ExprKind::Session(value), ty, -1).located(f.location))
    }

    fn grouping_func(&mut self, g: &protobuf::GroupingFunc) -> Result<Expr, SqlError> {
        let mut args = Vec::with_capacity(g.args.len());
        for node in &g.args {
            let e = self.expr(node)?;
            let scope = self.scope()?;
            let at = match scope.grouping_args.iter().position(|x| x.same(&e)) {
                Some(i) => i,
                None => {
                    scope.grouping_args.push(e);
                    scope.grouping_args.len() - 1
                }
            };
            args.push(at);
        }
        self.scope()?.has_aggregates = true;
        Ok(Expr::new(ExprKind::Grouping(args), oids::INT4, -1).located(g.location))
    }

    /// `(a, b) op (SELECT ..)`: the subquery's columns as a row.
    fn row_sublink(&mut self, s: &protobuf::SubLink) -> Result<Expr, SqlError> {
        let query = self.sub_query(s)?;
        let columns: Vec<(Oid, i32)> = query.targets.iter().filter(|t| !t.junk).map(|t| (t.expr.ty, t.expr.typmod)).collect();
        let desc = row_desc(&columns);
        let row = Expr::new(ExprKind::SubLink(Box::new(SubLink { kind: SubLinkKind::Row(desc.clone()), query })), oids::RECORD, -1)
            .located(s.location);
        let items = columns
            .iter()
            .enumerate()
            .map(|(i, (ty, typmod))| Expr::new(ExprKind::Field(Box::new(row.clone()), i), *ty, *typmod))
            .collect();
        Ok(Expr::new(ExprKind::Row(items, desc), oids::RECORD, -1).located(s.location))
    }

    fn sub_query(&mut self, s: &protobuf::SubLink) -> Result<super::Query, SqlError> {
        if let Place::Stored(what) = self.scope()?.place {
            return Err(self.error(SqlState::FEATURE_NOT_SUPPORTED, format!("cannot use subquery in {}", singular(what)), s.location));
        }
        match s.subselect.as_ref().and_then(|n| n.node.as_ref()) {
            Some(NodeEnum::SelectStmt(select)) => self.deeper(|b| b.select(select)),
            _ => Err(SqlError::internal("subquery")),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    fn sub_link(&mut self, s: &protobuf::SubLink) -> Result<Expr, SqlError> {
        let at = s.location;
        let kind = SubLinkType::try_from(s.sub_link_type).unwrap_or(SubLinkType::Undefined);
        let query = self.sub_query(s)?;
        let columns: Vec<(Oid, i32)> = query.targets.iter().filter(|t| !t.junk).map(|t| (t.expr.ty, t.expr.typmod)).collect();
        let make = |kind, query, ty, typmod| Expr::new(ExprKind::SubLink(Box::new(SubLink { kind, query })), ty, typmod).located(at);
        let one_column = |b: &Self| match columns.as_slice() {
            [c] => Ok(*c),
            _ => Err(b.error(SqlState::SYNTAX_ERROR, "subquery must return only one column", at)),
        };
        match kind {
            SubLinkType::ExistsSublink => Ok(make(SubLinkKind::Exists, query, oids::BOOL, -1)),
            SubLinkType::ExprSublink => {
                let (ty, typmod) = one_column(self)?;
                Ok(make(SubLinkKind::Scalar, query, ty, typmod))
            }
            SubLinkType::ArraySublink => {
                let (ty, typmod) = one_column(self)?;
                let (elem, array) = if types::type_by_oid(ty).is_some_and(types::TypeEntry::is_array) {
                    (registry::element_type(ty).unwrap_or(ty), ty)
                } else {
                    let array = registry::array_type(ty).ok_or_else(|| {
                        self.error(
                            SqlState::UNDEFINED_OBJECT,
                            format!("could not find array type for data type {}", self.type_text(ty)),
                            at,
                        )
                    })?;
                    (ty, array)
                };
                Ok(make(SubLinkKind::Array(elem), query, array, typmod))
            }
            SubLinkType::AnySublink | SubLinkType::AllSublink => {
                let any = kind == SubLinkType::AnySublink;
                let name = strings_of(&s.oper_name).last().copied().unwrap_or("=").to_owned();
                let left = match s.testexpr.as_deref() {
                    Some(test) => self.side(test)?,
                    None => return Err(SqlError::internal("expression without an operand")),
                };
                let lefts = match left.kind {
                    ExprKind::Row(items, _) => items,
                    _ => vec![left],
                };
                if lefts.len() != columns.len() {
                    let message =
                        if lefts.len() > columns.len() { "subquery has too few columns" } else { "subquery has too many columns" };
                    return Err(self.error(SqlState::SYNTAX_ERROR, message, at));
                }
                let rights =
                    columns.iter().enumerate().map(|(i, (ty, typmod))| Expr::new(ExprKind::SubColumn(i), *ty, *typmod)).collect::<Vec<_>>();
                let test = if let ([l], [r]) = (lefts.as_slice(), rights.as_slice()) {
                    self.operator(&name, Some(l.clone()), r.clone(), at)?
                } else {
                    let row = |items: Vec<Expr>| {
                        let desc = row_desc(&items.iter().map(|e| (e.ty, e.typmod)).collect::<Vec<_>>());
                        Expr::new(ExprKind::Row(items, desc), oids::RECORD, -1)
                    };
                    self.row_operator(&name, row(lefts), row(rights), at)?
                };
                if test.ty != oids::BOOL {
                    return Err(self.error(
                        SqlState::WRONG_OBJECT_TYPE,
                        format!("operator {name} must return type boolean, not type {}", self.type_text(test.ty)),
                        at,
                    ));
                }
                let hash = (any && name == "=").then(|| hash_lefts(&test)).flatten();
                Ok(make(SubLinkKind::Quantified(any, Box::new(test), hash), query, oids::BOOL, -1))
            }
            SubLinkType::RowcompareSublink => Err(SqlError::unsupported("row comparison with a subquery")),
            SubLinkType::MultiexprSublink | SubLinkType::CteSublink | SubLinkType::Undefined => Err(SqlError::internal("subquery kind")),
        }
    }

    /// The expansion of `t.*` or `*`, if the node is one: names and values.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    #[expect(clippy::type_complexity, reason = "names and expressions")]
    pub(super) fn star(&mut self, node: &Node) -> Result<Option<Vec<(Arc<str>, Expr)>>, SqlError> {
        match &node.node {
            Some(NodeEnum::ColumnRef(c)) if matches!(c.fields.last().map(|f| &f.node), Some(Some(NodeEnum::AStar(_)))) => {
                let names = strings_of(&c.fields);
                let at = c.location;
                let columns = match names.as_slice() {
                    [] => {
                        let scope = self.scope()?;
                        let columns: Vec<_> = scope.names.iter().filter(|i| i.plain).flat_map(|i| i.columns.iter().cloned()).collect();
                        if scope.names.is_empty() {
                            return Err(self.error(SqlState::SYNTAX_ERROR, "SELECT * with no tables specified is not valid", at));
                        }
                        columns
                    }
                    names => {
                        let (schema, table) = match names {
                            [t] => (None, *t),
                            [s, t] | [_, s, t] => (Some(*s), *t),
                            _ => return Err(self.error(SqlState::SYNTAX_ERROR, "improper qualified name", at)),
                        };
                        let Some((up, item)) = self.find_item(schema, table, at)? else {
                            return Err(self.error(
                                SqlState::UNDEFINED_TABLE,
                                format!("missing FROM-clause entry for table \"{}\"", names.join(".")),
                                at,
                            ));
                        };
                        let mut columns = item.columns;
                        if up > 0 {
                            for c in &mut columns {
                                c.expr.shift_levels(0, up);
                            }
                        }
                        columns
                    }
                };
                Ok(Some(columns.into_iter().map(|c| (c.name, c.expr.located(at))).collect()))
            }
            Some(NodeEnum::AIndirection(i)) if matches!(i.indirection.last().map(|f| &f.node), Some(Some(NodeEnum::AStar(_)))) => {
                let mut inner = (**i).clone();
                inner.indirection.pop();
                let e = self.indirection(&inner)?;
                let Some(shape) = self.record_shape(&e)? else {
                    return Err(self.error(SqlState::WRONG_OBJECT_TYPE, format!("type {} is not composite", self.type_text(e.ty)), e.at));
                };
                let mut out = Vec::new();
                for (n, col) in shape.cols.iter().enumerate().filter(|(_, c)| !c.dropped) {
                    let value = match &e.kind {
                        ExprKind::Row(items, _) => items.get(n).cloned().ok_or_else(|| SqlError::internal("record"))?,
                        _ => Expr::new(ExprKind::Field(Box::new(e.clone()), n), col.type_oid, col.typmod),
                    };
                    out.push((col.name.clone(), value));
                }
                Ok(Some(out))
            }
            _ => Ok(None),
        }
    }
}

/// What stands in the place of a column that is dropped.
pub(super) fn dropped_item() -> Expr {
    Expr::new(ExprKind::Const(Datum::Null), oids::UNKNOWN, -1)
}

/// Left sides of plain equalities with `SubColumn(0)`, `SubColumn(1)`, ..., if that is all there is and both sides have the same type.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
fn hash_lefts(test: &Expr) -> Option<Vec<Expr>> {
    let one = |e: &Expr, n: usize| match &e.kind {
        ExprKind::Call(c) if c.oper.is_some_and(|o| o.can_hash) => match c.args.as_slice() {
            [l, r] if matches!(r.kind, ExprKind::SubColumn(i) if i == n) && l.ty == r.ty => Some(l.clone()),
            _ => None,
        },
        _ => None,
    };
    match &test.kind {
        ExprKind::And(items) => items.iter().enumerate().map(|(i, e)| one(e, i)).collect(),
        _ => one(test, 0).map(|e| vec![e]),
    }
}

/// Levenshtein distance, in bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut before = i;
        let mut left = i + 1;
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let value = (before + usize::from(x != y)).min(*cell + 1).min(left + 1);
            before = *cell;
            *cell = value;
            left = value;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

fn is_row(node: &Node) -> bool {
    matches!(&node.node, Some(NodeEnum::RowExpr(_)))
}

fn parse_integer(text: &str) -> Option<i64> {
    let (digits, radix) = match text.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (text.get(2..)?, 16),
        Some("0o") => (text.get(2..)?, 8),
        Some("0b") => (text.get(2..)?, 2),
        _ => (text, 10),
    };
    i64::from_str_radix(digits, radix).ok()
}

/// The modifier all items share.
pub(super) fn common_typmod(items: &[Expr]) -> i32 {
    let mut all = items.iter().filter(|i| !matches!(&i.kind, ExprKind::Const(Datum::Null))).map(|i| i.typmod);
    match all.next() {
        Some(first) if all.all(|t| t == first) => first,
        _ => -1,
    }
}

/// `check constraints` as PostgreSQL's messages about one of them.
pub(super) fn singular(what: &str) -> String {
    match what {
        "check constraints" => "check constraint".to_owned(),
        "DEFAULT expressions" => "DEFAULT expression".to_owned(),
        "index expressions" => "index expression".to_owned(),
        "index predicates" => "index predicate".to_owned(),
        other => other.strip_suffix('s').unwrap_or(other).to_owned(),
    }
}

fn node_name(node: &NodeEnum) -> String {
    let text = format!("{node:?}");
    text.split(['(', ' ']).next().unwrap_or("expression").to_owned()
}
