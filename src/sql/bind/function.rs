//! Function calls: plain functions, aggregates, window functions.

use pg_query::NodeEnum;
use pg_query::protobuf::{self, Node};

use super::expr::{AggRef, CallExpr, Expr, ExprKind, WindowRef};
use super::query::{Frame, FrameEdge, SortKey, Window};
use super::scope::{Binder, Place, strings_of};
use crate::executor::plan::{FrameExclude, FrameMode};
use crate::sql::functions::resolve::{resolve_among, undefined_function};
use crate::sql::functions::{CallTypes, CoercionContext, ProcBody, ProcEntry, ResolvedFn};
use crate::sql::types::{Oid, oids, registry, type_by_name};
use crate::sqlstate::{SqlError, SqlState};

/// Bits of `WindowDef::frame_options` (nodes/parsenodes.h).
mod frame_bits {
    pub(super) const NONDEFAULT: i32 = 0x1;
    pub(super) const RANGE: i32 = 0x2;
    pub(super) const ROWS: i32 = 0x4;
    pub(super) const GROUPS: i32 = 0x8;
    pub(super) const START_UNBOUNDED_PRECEDING: i32 = 0x20;
    pub(super) const END_UNBOUNDED_FOLLOWING: i32 = 0x100;
    pub(super) const START_CURRENT_ROW: i32 = 0x200;
    pub(super) const END_CURRENT_ROW: i32 = 0x400;
    pub(super) const START_OFFSET_PRECEDING: i32 = 0x800;
    pub(super) const END_OFFSET_PRECEDING: i32 = 0x1000;
    pub(super) const START_OFFSET_FOLLOWING: i32 = 0x2000;
    pub(super) const END_OFFSET_FOLLOWING: i32 = 0x4000;
    pub(super) const EXCLUDE_CURRENT_ROW: i32 = 0x8000;
    pub(super) const EXCLUDE_GROUP: i32 = 0x10000;
    pub(super) const EXCLUDE_TIES: i32 = 0x20000;
}

/// What to do about a set-returning function where none may be.
const MOVE_TO_FROM: &str = "You might be able to move the set-returning function into a LATERAL FROM item.";

/// PostgreSQL: `FUNC_MAX_ARGS`.
const MAX_ARGUMENTS: usize = 100;

impl Binder<'_> {
    /// Refuses set-returning functions in what runs some of its parts only.
    pub(super) fn no_sets<'e>(&self, parts: impl IntoIterator<Item = &'e Expr>, what: &str) -> Result<(), SqlError> {
        let mut found = None;
        for e in parts {
            e.visit(&mut |e| {
                if matches!(&e.kind, ExprKind::Call(c) if c.func.returns_set) {
                    found = Some(e.at);
                }
            });
        }
        match found {
            Some(at) => Err(self
                .error(SqlState::FEATURE_NOT_SUPPORTED, format!("set-returning functions are not allowed in {what}"), at)
                .hint(MOVE_TO_FROM)),
            None => Ok(()),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    pub(super) fn func_call(&mut self, f: &protobuf::FuncCall) -> Result<Expr, SqlError> {
        let names = strings_of(&f.funcname);
        let at = f.location;
        let (schema, name) = match names.as_slice() {
            [n] => (None, *n),
            [s, n] | [_, s, n] => (Some(*s), *n),
            _ => return Err(SqlError::internal("function without a name")),
        };
        let own = self.session.catalog.functions(schema, name)?;
        if let Some(s) = schema
            && s != "pg_catalog"
            && own.is_empty()
        {
            if self.session.catalog.find_namespace(s)?.is_none() {
                return Err(self.error(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{s}\" does not exist"), at));
            }
            let args = self.exprs(&f.args)?;
            let types: Vec<Oid> = args.iter().map(|a| self.known_type(a)).collect();
            return Err(self.position(undefined_function(&names.join("."), &types), at));
        }
        // Arguments.
        if f.args.len() > MAX_ARGUMENTS {
            let message = format!("cannot pass more than {MAX_ARGUMENTS} arguments to a function");
            return Err(self.error(SqlState::TOO_MANY_ARGUMENTS, message, at));
        }
        let builtin = if schema.is_none_or(|s| s == "pg_catalog") { crate::sql::functions::procs_by_name(name) } else { &[] };
        let candidates: Vec<&'static ProcEntry> = builtin.iter().copied().chain(own).collect();
        let probe = builtin;
        let aggregate = probe.iter().any(|p| p.is_aggregate());
        let place = match (&f.over, aggregate) {
            (Some(_), _) => Some(Place::WindowArgs),
            (None, true) => Some(Place::Aggregate),
            _ => None,
        };
        let scope_aggregates = self.scope()?.has_aggregates;
        let calling = std::mem::take(&mut self.calling);
        let mut args = Vec::with_capacity(f.args.len());
        let mut arg_names: Vec<Option<&str>> = Vec::new();
        let mut named = false;
        for node in &f.args {
            let (value, arg_name): (&Node, Option<&str>) = match &node.node {
                Some(NodeEnum::NamedArgExpr(n)) => match &n.arg {
                    Some(arg) => (arg, Some(n.name.as_str())),
                    None => return Err(SqlError::internal("named argument")),
                },
                _ => (node, None),
            };
            if named && arg_name.is_none() {
                return Err(self.error(SqlState::SYNTAX_ERROR, "positional argument cannot follow named argument", at));
            }
            named |= arg_name.is_some();
            arg_names.push(arg_name);
            args.push(match place {
                Some(place) if self.scope()?.place != Place::Aggregate || place != Place::Aggregate => {
                    let outer = self.scope()?.place;
                    // Nested aggregates are refused below with the place of the inner one.
                    let _ = outer;
                    self.expr_at(value, place)?
                }
                _ => self.expr(value)?,
            });
        }
        if !named {
            arg_names.clear();
        }
        if f.agg_within_group {
            for item in &f.agg_order {
                if let Some(NodeEnum::SortBy(s)) = &item.node {
                    args.push(self.at_place(Place::Aggregate, |b| b.boxed(&s.node))?);
                }
            }
        }
        let arg_types: Vec<Oid> = args.iter().map(|a| self.known_type(a)).collect();
        self.calling = calling;
        let resolved = if f.agg_star && args.is_empty() {
            resolve_among(name, &candidates, &[], &[], false).map_err(|e| self.position(e, at))?
        } else {
            resolve_among(name, &candidates, &arg_types, &arg_names, f.func_variadic).map_err(|e| self.position(e, at))?
        };
        let Some(resolved) = resolved else {
            // A cast in functional notation?
            if let [arg] = args.as_slice()
                && !f.agg_star
                && f.over.is_none()
                && let Some(ty) = type_by_name(name)
            {
                let arg = arg.clone();
                if let Some(e) = self.try_coerce(arg, ty.oid, -1, CoercionContext::Explicit)? {
                    return Ok(e.located(at));
                }
            }
            return Err(self.position(undefined_function(name, &arg_types), at));
        };
        let func = resolved.func;
        let special = match func.kind {
            b'a' => true,
            b'w' => true,
            b'p' if self.calling => false,
            _ if self.calling => {
                return Err(self
                    .error(SqlState::WRONG_OBJECT_TYPE, format!("{} is not a procedure", func.signature()), at)
                    .hint("To call a function, use SELECT."));
            }
            b'p' => {
                return Err(self
                    .error(SqlState::WRONG_OBJECT_TYPE, format!("{} is a procedure", func.signature()), at)
                    .hint("To call a procedure, use CALL."));
            }
            _ => false,
        };
        if !special {
            let refuse = |b: &Self, what: &str| {
                Err(b.error(SqlState::WRONG_OBJECT_TYPE, format!("{what}, but {name} is not an aggregate function"), at))
            };
            if f.agg_star {
                return refuse(self, &format!("{name}(*) specified"));
            }
            if f.agg_distinct {
                return refuse(self, "DISTINCT specified");
            }
            if !f.agg_order.is_empty() {
                return refuse(self, "ORDER BY specified");
            }
            if f.agg_filter.is_some() {
                return refuse(self, "FILTER specified");
            }
            if f.over.is_some() {
                return Err(self.error(
                    SqlState::WRONG_OBJECT_TYPE,
                    format!("OVER specified, but {name} is not a window function nor an aggregate function"),
                    at,
                ));
            }
        }
        let (args, types) = self.call_args(&resolved, args)?;
        if func.is_window() && f.over.is_none() {
            return Err(self.error(SqlState::WINDOWING_ERROR, format!("window function {name} requires an OVER clause"), at));
        }
        if f.over.is_some() {
            return self.window_call(f, func, types, args, resolved.result);
        }
        if func.is_aggregate() {
            return self.aggregate_call(f, func, types, args, resolved.result, scope_aggregates);
        }
        if func.returns_set {
            let place = self.scope()?.place;
            let allowed = matches!(
                place,
                Place::Target | Place::FromFunction | Place::OrderBy | Place::GroupBy | Place::DistinctOn | Place::ValuesOfOne
            );
            if !allowed {
                let message = match place {
                    Place::Aggregate => "aggregate function calls cannot contain set-returning function calls".to_owned(),
                    Place::WindowArgs => "window function calls cannot contain set-returning function calls".to_owned(),
                    Place::Stored(what) => format!("set-returning functions are not allowed in {what}"),
                    other => format!("set-returning functions are not allowed in {}", other.name()),
                };
                let error = self.error(SqlState::FEATURE_NOT_SUPPORTED, message, at);
                return Err(if matches!(place, Place::Aggregate | Place::WindowArgs) { error.hint(MOVE_TO_FROM) } else { error });
            }
        }
        Ok(Expr::new(ExprKind::Call(Box::new(CallExpr { func, oper: None, types, args, cast: false })), resolved.result, -1).located(at))
    }

    /// The call of a CALL.
    ///
    /// # Errors
    /// There is no such procedure.
    pub fn procedure(&mut self, f: &protobuf::FuncCall) -> Result<Expr, SqlError> {
        self.scopes.push(super::scope::Scope { place: Place::Stored("CALL arguments"), ..super::scope::Scope::default() });
        self.calling = true;
        let result = self.func_call(f).map_err(|e| {
            if e.state() == SqlState::UNDEFINED_FUNCTION {
                let message = e.to_string().replacen("function ", "procedure ", 1);
                let hint = "No procedure matches the given name and argument types. You might need to add explicit type casts.";
                self.position(SqlError::new(SqlState::UNDEFINED_FUNCTION, message).hint(hint), f.location)
            } else {
                e
            }
        });
        self.calling = false;
        self.scopes.pop();
        result
    }

    /// Arguments in the order of the parameters, converted, variadic ones gathered, defaults added.
    fn call_args(&mut self, resolved: &ResolvedFn, args: Vec<Expr>) -> Result<(Vec<Expr>, CallTypes), SqlError> {
        let count = args.len();
        let mut ordered: Vec<Option<Expr>> = Vec::new();
        ordered.resize_with(count.max(resolved.positions.iter().map(|p| p + 1).max().unwrap_or(0)), || None);
        for (i, arg) in args.into_iter().enumerate() {
            let place = resolved.positions.get(i).copied().unwrap_or(i);
            let ty = resolved.arg_types.get(place).or_else(|| resolved.arg_types.get(i)).copied().unwrap_or(0);
            let arg = self.argument(arg, ty)?;
            if let Some(slot) = ordered.get_mut(place) {
                *slot = Some(arg);
            }
        }
        let mut defaults = resolved.defaults.iter();
        let mut out = Vec::with_capacity(ordered.len() + resolved.defaults.len());
        let mut default = |b: &mut Self| -> Result<Option<Expr>, SqlError> {
            match defaults.next() {
                Some((text, ty)) => {
                    let node = crate::sql::parse::parse_expression(text)?;
                    let e = b.expr(&node)?;
                    let mut e = b.coerce(e, *ty, -1, CoercionContext::Implicit)?;
                    e.at = -1;
                    Ok(Some(e))
                }
                None => Ok(None),
            }
        };
        for slot in ordered {
            match slot {
                Some(e) => out.push(e),
                None => match default(self)? {
                    Some(e) => out.push(e),
                    None => return Err(SqlError::internal("function argument without a value")),
                },
            }
        }
        while let Some(e) = default(self)? {
            out.push(e);
        }
        let mut variadic_array = resolved.variadic;
        if let Some((from, elem)) = resolved.gather {
            variadic_array = true;
            let items = out.split_off(from.min(out.len()));
            let array = registry::array_type(elem).unwrap_or(oids::ANYARRAY);
            out.push(Expr::new(ExprKind::Array(items, elem, false), array, -1));
        }
        let types =
            CallTypes { func: resolved.func.oid, args: out.iter().map(|a| a.ty).collect(), result: resolved.result, variadic_array };
        Ok((out, types))
    }

    fn filter(&mut self, f: &protobuf::FuncCall) -> Result<Option<Expr>, SqlError> {
        match &f.agg_filter {
            Some(node) => {
                let e = self.expr_at(node, Place::Filter)?;
                Ok(Some(self.coerce_bool(e, "FILTER")?))
            }
            None => Ok(None),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    fn aggregate_call(
        &mut self,
        f: &protobuf::FuncCall,
        func: &'static ProcEntry,
        types: CallTypes,
        mut args: Vec<Expr>,
        result: Oid,
        _seen: bool,
    ) -> Result<Expr, SqlError> {
        let at = f.location;
        let filter = self.filter(f)?;
        let arg_count = args.len();
        let mut order = Vec::new();
        if !f.agg_within_group {
            for item in &f.agg_order {
                let Some(NodeEnum::SortBy(s)) = &item.node else { continue };
                let e = self.at_place(Place::Aggregate, |b| b.boxed(&s.node))?;
                let e = self.settle_unknown(e)?;
                let target = match args.iter().position(|a| a.same(&e)) {
                    Some(i) => i,
                    None => {
                        if f.agg_distinct {
                            return Err(self.error(
                                SqlState::INVALID_COLUMN_REFERENCE,
                                "in an aggregate with DISTINCT, ORDER BY expressions must appear in argument list",
                                e.at,
                            ));
                        }
                        args.push(e);
                        args.len() - 1
                    }
                };
                let (desc, nulls_first) = self.sort_direction(s)?;
                order.push(SortKey { target, desc, nulls_first });
            }
        } else {
            // Ordered-set: the sorted arguments come last; its accumulator sorts.
            for item in &f.agg_order {
                let Some(NodeEnum::SortBy(s)) = &item.node else { continue };
                let (desc, nulls_first) = self.sort_direction(s)?;
                let target = arg_count - f.agg_order.len() + order.len();
                order.push(SortKey { target, desc, nulls_first });
            }
        }
        let kind = crate::sql::functions::registry::aggregate_by_func(func.oid).map_or(b'n', |a| a.kind);
        if f.agg_within_group && kind == b'n' {
            let message = format!("{} is not an ordered-set aggregate, so it cannot have WITHIN GROUP", func.name);
            return Err(self.error(SqlState::WRONG_OBJECT_TYPE, message, at));
        }
        if !f.agg_within_group && kind != b'n' {
            let message = format!("WITHIN GROUP is required for ordered-set aggregate {}", func.name);
            return Err(self.error(SqlState::WRONG_OBJECT_TYPE, message, at));
        }
        if args.iter().chain(&filter).any(|a| a.any(&|e| matches!(e.kind, ExprKind::Window(_)))) {
            return Err(self.error(SqlState::GROUPING_ERROR, "aggregate function calls cannot contain window function calls", at));
        }
        // The query it belongs to: the innermost of its variables' levels.
        let mut up = usize::MAX;
        let levels = self.scopes.len();
        for e in args.iter().chain(&filter) {
            for level in 0..levels {
                if level < up {
                    e.visit_vars(level, &mut |_, _| up = up.min(level));
                }
            }
        }
        if up == usize::MAX {
            up = 0;
        }
        if args.iter().chain(&filter).any(|a| a.any(&|e| matches!(&e.kind, ExprKind::Agg(inner) if inner.up == up))) {
            return Err(self.error(SqlState::GROUPING_ERROR, "aggregate function calls cannot be nested", at));
        }
        let level = levels.checked_sub(up + 1).ok_or_else(|| SqlError::internal("aggregate level"))?;
        let place = self.scopes.get(level).map_or(Place::Target, |s| s.place);
        let refused = match place {
            Place::Target
            | Place::Having
            | Place::OrderBy
            | Place::DistinctOn
            | Place::WindowArgs
            | Place::WindowPartition
            | Place::WindowOrder
            | Place::Aggregate
            | Place::Filter => {
                if place == Place::Aggregate && up == 0 {
                    Some("aggregate function calls cannot be nested".to_owned())
                } else if place == Place::Filter && up == 0 {
                    Some("aggregate functions are not allowed in FILTER".to_owned())
                } else {
                    None
                }
            }
            Place::JoinOn => Some("aggregate functions are not allowed in JOIN conditions".to_owned()),
            other => Some(format!("aggregate functions are not allowed in {}", other.name())),
        };
        if let Some(message) = refused {
            return Err(self.error(SqlState::GROUPING_ERROR, message, at));
        }
        if let Some(scope) = self.scopes.get_mut(level) {
            scope.has_aggregates = true;
        }
        Ok(Expr::new(
            ExprKind::Agg(Box::new(AggRef { func, types, args, arg_count, order, distinct: f.agg_distinct, filter, up, star: f.agg_star })),
            result,
            -1,
        )
        .located(at))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    fn window_call(
        &mut self,
        f: &protobuf::FuncCall,
        func: &'static ProcEntry,
        types: CallTypes,
        args: Vec<Expr>,
        result: Oid,
    ) -> Result<Expr, SqlError> {
        let at = f.location;
        let Some(over) = &f.over else { return Err(SqlError::internal("OVER")) };
        if f.agg_distinct {
            return Err(self.error(SqlState::FEATURE_NOT_SUPPORTED, "DISTINCT is not implemented for window functions", at));
        }
        if !f.agg_order.is_empty() {
            return Err(self.error(SqlState::FEATURE_NOT_SUPPORTED, "aggregate ORDER BY is not implemented for window functions", at));
        }
        if func.is_window() && f.agg_filter.is_some() {
            return Err(self.error(SqlState::FEATURE_NOT_SUPPORTED, "FILTER is not implemented for non-aggregate window functions", at));
        }
        if !func.is_window() && !matches!(func.body, ProcBody::Aggregate(_)) {
            return Err(self.error(
                SqlState::WRONG_OBJECT_TYPE,
                format!("OVER specified, but {} is not a window function nor an aggregate function", func.name),
                at,
            ));
        }
        let place = self.scope()?.place;
        let message = match place {
            Place::Target | Place::OrderBy | Place::DistinctOn => None,
            Place::WindowArgs | Place::WindowPartition | Place::WindowOrder => Some("window function calls cannot be nested".to_owned()),
            Place::Aggregate => Some("aggregate function calls cannot contain window function calls".to_owned()),
            other => Some(format!("window functions are not allowed in {}", other.name())),
        };
        if let Some(message) = message {
            return Err(self.error(SqlState::WINDOWING_ERROR, message, at));
        }
        let filter = self.filter(f)?;
        let window = self.window(over)?;
        Ok(Expr::new(ExprKind::Window(Box::new(WindowRef { func, types, args, filter, window, star: f.agg_star })), result, -1).located(at))
    }

    /// The window an OVER clause means: its number.
    fn window(&mut self, def: &protobuf::WindowDef) -> Result<usize, SqlError> {
        if !def.name.is_empty() {
            return self.named_window(&def.name, def.location);
        }
        let window = self.window_definition(def)?;
        let scope = self.scope()?;
        scope.windows.push(window);
        Ok(scope.windows.len() - 1)
    }

    fn named_window(&mut self, name: &str, at: i32) -> Result<usize, SqlError> {
        if let Some(i) = self.scope()?.windows.iter().position(|w| &*w.name == name) {
            return Ok(i);
        }
        let Some((_, def)) = self.scope()?.window_defs.iter().find(|(n, _)| n == name).cloned() else {
            return Err(self.error(SqlState::UNDEFINED_OBJECT, format!("window \"{name}\" does not exist"), at));
        };
        let mut window = self.window_definition(&def)?;
        window.name = name.into();
        let scope = self.scope()?;
        scope.windows.push(window);
        Ok(scope.windows.len() - 1)
    }

    fn window_definition(&mut self, def: &protobuf::WindowDef) -> Result<Window, SqlError> {
        use frame_bits as bits;
        let base = if def.refname.is_empty() {
            None
        } else {
            let i = self.named_window(&def.refname, def.location)?;
            self.scope()?.windows.get(i).cloned()
        };
        let mut partition = Vec::new();
        for node in &def.partition_clause {
            let e = self.expr_at(node, Place::WindowPartition)?;
            let e = self.settle_unknown(e)?;
            partition.push(self.extra_target(e)?);
        }
        let mut order = Vec::new();
        for node in &def.order_clause {
            let Some(NodeEnum::SortBy(s)) = &node.node else { continue };
            let e = self.at_place(Place::WindowOrder, |b| b.boxed(&s.node))?;
            let e = self.settle_unknown(e)?;
            let (desc, nulls_first) = self.sort_direction(s)?;
            order.push(SortKey { target: self.extra_target(e)?, desc, nulls_first });
        }
        if let Some(base) = &base {
            if !partition.is_empty() {
                return Err(self.error(
                    SqlState::WINDOWING_ERROR,
                    format!("cannot override PARTITION BY clause of window \"{}\"", def.refname),
                    def.location,
                ));
            }
            partition.clone_from(&base.partition);
            if order.is_empty() {
                order.clone_from(&base.order);
            } else if !base.order.is_empty() {
                return Err(self.error(
                    SqlState::WINDOWING_ERROR,
                    format!("cannot override ORDER BY clause of window \"{}\"", def.refname),
                    def.location,
                ));
            }
        }
        let o = def.frame_options;
        let has = |bit: i32| o & bit != 0;
        let mode = if has(bits::NONDEFAULT) && has(bits::ROWS) {
            FrameMode::Rows
        } else if has(bits::NONDEFAULT) && has(bits::GROUPS) {
            FrameMode::Groups
        } else {
            let _range = bits::RANGE;
            FrameMode::Range
        };
        if mode == FrameMode::Groups && order.is_empty() {
            return Err(self.error(SqlState::WINDOWING_ERROR, "GROUPS mode requires an ORDER BY clause", def.location));
        }
        let offset_ty = match mode {
            FrameMode::Rows | FrameMode::Groups => Some(oids::INT8),
            FrameMode::Range => None,
        };
        let word = match mode {
            FrameMode::Rows => "ROWS",
            FrameMode::Groups => "GROUPS",
            FrameMode::Range => "RANGE",
        };
        let range_ty = match order.as_slice() {
            [key] => self.scope()?.extra_targets.get(key.target).map(|e| e.ty),
            _ => None,
        };
        let edge = |b: &mut Self, node: &Option<Box<Node>>| -> Result<Expr, SqlError> {
            let e = b.at_place(Place::Limit(word), |b| b.boxed(node))?;
            if e.any(&|e| matches!(e.kind, ExprKind::Var(_, _, 0))) {
                return Err(b.error(SqlState::INVALID_COLUMN_REFERENCE, format!("argument of {word} must not contain variables"), e.at));
            }
            match (offset_ty, range_ty) {
                (Some(ty), _) => b.coerce_to(e, ty, word),
                (None, Some(ty)) => {
                    let offset = match ty {
                        oids::INT2 | oids::INT4 | oids::INT8 | oids::FLOAT4 | oids::FLOAT8 | oids::NUMERIC => {
                            if ty == oids::FLOAT4 {
                                oids::FLOAT8
                            } else {
                                ty
                            }
                        }
                        oids::DATE | oids::TIMESTAMP | oids::TIMESTAMPTZ | oids::TIME | oids::TIMETZ | oids::INTERVAL => oids::INTERVAL,
                        _ => {
                            return Err(b.error(
                                SqlState::FEATURE_NOT_SUPPORTED,
                                format!("RANGE with offset PRECEDING/FOLLOWING is not supported for column type {}", b.type_text(ty)),
                                e.at,
                            ));
                        }
                    };
                    b.coerce_to(e, offset, word)
                }
                (None, None) => Err(b.error(
                    SqlState::WINDOWING_ERROR,
                    "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column",
                    def.location,
                )),
            }
        };
        let start = if has(bits::START_OFFSET_PRECEDING) {
            FrameEdge::Preceding(edge(self, &def.start_offset)?)
        } else if has(bits::START_OFFSET_FOLLOWING) {
            FrameEdge::Following(edge(self, &def.start_offset)?)
        } else if has(bits::START_CURRENT_ROW) {
            FrameEdge::CurrentRow
        } else {
            let _unbounded = bits::START_UNBOUNDED_PRECEDING;
            FrameEdge::UnboundedPreceding
        };
        let end = if has(bits::END_OFFSET_PRECEDING) {
            FrameEdge::Preceding(edge(self, &def.end_offset)?)
        } else if has(bits::END_OFFSET_FOLLOWING) {
            FrameEdge::Following(edge(self, &def.end_offset)?)
        } else if has(bits::END_UNBOUNDED_FOLLOWING) {
            FrameEdge::UnboundedFollowing
        } else {
            let _current = bits::END_CURRENT_ROW;
            FrameEdge::CurrentRow
        };
        let exclude = if has(bits::EXCLUDE_CURRENT_ROW) {
            FrameExclude::CurrentRow
        } else if has(bits::EXCLUDE_GROUP) {
            FrameExclude::Group
        } else if has(bits::EXCLUDE_TIES) {
            FrameExclude::Ties
        } else {
            FrameExclude::None
        };
        Ok(Window { name: "".into(), partition, order, frame: Frame { mode, start, end, exclude } })
    }

    /// Remembers an expression the target list must have: its number among the extra ones.
    fn extra_target(&mut self, e: Expr) -> Result<usize, SqlError> {
        let scope = self.scope()?;
        if let Some(i) = scope.extra_targets.iter().position(|x| x.same(&e)) {
            return Ok(i);
        }
        scope.extra_targets.push(e);
        Ok(scope.extra_targets.len() - 1)
    }
}
