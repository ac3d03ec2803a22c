//! SELECT, VALUES, set operations, WITH.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{
    self, GroupingSetKind, LockClauseStrength, LockWaitPolicy, Node, SelectStmt, SetOperation, SortByDir, SortByNulls,
};

use super::expr::{Expr, ExprKind};
use super::from::output_columns;
use super::query::{Command, Cte, Distinct, Query, RowMark, Rte, RteColumn, RteSource, SetOpKind, SetOpTree, SortKey, Target};
use super::recursion::Item;
use super::scope::{Binder, Place, Scope, columns_of, string_of, strings_of};
use crate::executor::plan::{LockStrength, WaitPolicy};
use crate::sql::catalog::relation::RelKind;
use crate::sql::functions::{CoercionContext, select_common_type};
use crate::sql::types::{Oid, oids};
use crate::sqlstate::{SqlError, SqlState};

impl Binder<'_> {
    /// Binds a query at a new level; literals of unknown type in its output become text.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn select(&mut self, s: &SelectStmt) -> Result<Query, SqlError> {
        self.select_with(s, true)
    }

    pub(super) fn select_with(&mut self, s: &SelectStmt, settle: bool) -> Result<Query, SqlError> {
        self.scopes.push(Scope { locked: locked_tables(&s.locking_clause), ..Scope::default() });
        let result = self.deeper(|b| b.select_body(s, settle));
        self.scopes.pop();
        result
    }

    /// Takes what a level has gathered into its query.
    pub(super) fn close_scope(&mut self, query: &mut Query) -> Result<(), SqlError> {
        /// PostgreSQL: `MaxTupleAttributeNumber`.
        const MAX_TARGETS: usize = 1664;
        if query.targets.len() > MAX_TARGETS {
            return Err(SqlError::new(SqlState::TOO_MANY_COLUMNS, format!("target lists can have at most {MAX_TARGETS} entries")));
        }
        let scope = self.scope()?;
        query.rtable = std::mem::take(&mut scope.rtable);
        query.ctes = std::mem::take(&mut scope.ctes);
        query.windows = std::mem::take(&mut scope.windows);
        query.has_aggregates |= scope.has_aggregates;
        query.has_modifying_cte = query.ctes.iter().any(|c| c.query.command != Command::Select || c.query.has_modifying_cte);
        Ok(())
    }

    fn select_body(&mut self, s: &SelectStmt, settle: bool) -> Result<Query, SqlError> {
        if let Some(with) = &s.with_clause {
            self.with_clause(with)?;
        }
        if s.into_clause.is_some() {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "SELECT ... INTO is not allowed here"));
        }
        let op = SetOperation::try_from(s.op).unwrap_or(SetOperation::SetopNone);
        if !matches!(op, SetOperation::SetopNone | SetOperation::Undefined) {
            return self.set_operation(s);
        }
        if !s.values_lists.is_empty() {
            return self.values(s, settle);
        }
        let mut query = Query { from: self.from_list(&s.from_clause)?, ..Query::default() };
        for def in &s.window_clause {
            if let Some(NodeEnum::WindowDef(def)) = &def.node {
                let at = def.location;
                if self.scope()?.window_defs.iter().any(|(n, _)| *n == def.name) {
                    return Err(self.error(SqlState::WINDOWING_ERROR, format!("window \"{}\" is already defined", def.name), at));
                }
                let def = (**def).clone();
                self.scope()?.window_defs.push((def.name.clone(), def));
            }
        }
        query.targets = self.target_list(&s.target_list, Place::Target)?;
        query.quals = self.where_clause(&s.where_clause)?;
        if let Some(having) = &s.having_clause {
            let e = self.expr_at(having, Place::Having)?;
            query.having = Some(self.coerce_bool(e, "HAVING")?);
            query.has_aggregates = true;
        }
        self.order_by(&s.sort_clause, &mut query)?;
        self.group_by(s, &mut query)?;
        self.distinct_clause(s, &mut query)?;
        self.limit(s, &mut query)?;
        // Window expressions join the target list; window keys then count within it.
        let extra = std::mem::take(&mut self.scope()?.extra_targets);
        let mut places = Vec::with_capacity(extra.len());
        for e in extra {
            places.push(add_target(&mut query.targets, e));
        }
        for window in &mut self.scope()?.windows {
            for p in &mut window.partition {
                *p = places.get(*p).copied().unwrap_or(*p);
            }
            for k in &mut window.order {
                k.target = places.get(k.target).copied().unwrap_or(k.target);
            }
        }
        if settle {
            self.settle_targets(&mut query)?;
        }
        self.close_scope_grouped(&mut query)?;
        self.locking(s, &mut query)?;
        Ok(query)
    }

    fn settle_targets(&mut self, query: &mut Query) -> Result<(), SqlError> {
        for target in &mut query.targets {
            if target.expr.ty == oids::UNKNOWN {
                let e = std::mem::replace(&mut target.expr, Expr::null(oids::TEXT));
                target.expr = self.settle_unknown(e)?;
            }
        }
        Ok(())
    }

    /// Closes the level and checks that what is not grouped is aggregated.
    fn close_scope_grouped(&mut self, query: &mut Query) -> Result<(), SqlError> {
        let grouping_args = std::mem::take(&mut self.scope()?.grouping_args);
        self.close_scope(query)?;
        if !grouping_args.is_empty() {
            // GROUPING's arguments were numbered as they came; now as GROUP BY has them.
            let mut places = Vec::new();
            for e in &grouping_args {
                match query.group.iter().position(|g| query.targets.get(*g).is_some_and(|t| t.expr.same(e))) {
                    Some(i) => places.push(i),
                    None => {
                        return Err(self.error(
                            SqlState::GROUPING_ERROR,
                            "arguments to GROUPING must be grouping expressions of the associated query level",
                            e.at,
                        ));
                    }
                }
            }
            let fix = |e: &mut Expr| renumber_grouping(e, &places);
            query.targets.iter_mut().for_each(|t| fix(&mut t.expr));
            query.having.iter_mut().for_each(fix);
        }
        if query.has_aggregates || !query.group.is_empty() {
            query.has_aggregates = true;
            self.check_recursive_term(query)?;
            self.check_grouped(query)?;
        }
        Ok(())
    }

    /// A level that reads the recursive query itself cannot aggregate: each turn sees its own rows only.
    fn check_recursive_term(&self, query: &Query) -> Result<(), SqlError> {
        if !query.rtable.iter().any(|r| matches!(r.source, RteSource::Working(..))) {
            return Ok(());
        }
        let mut found = None;
        for e in query.targets.iter().map(|t| &t.expr).chain(&query.having) {
            e.visit(&mut |e| {
                if found.is_none() && matches!(&e.kind, ExprKind::Agg(a) if a.up == 0) {
                    found = Some(e.at);
                }
            });
        }
        match found {
            Some(at) => Err(self.error(
                SqlState::INVALID_RECURSION,
                "aggregate functions are not allowed in a recursive query's recursive term",
                at,
            )),
            None => Ok(()),
        }
    }

    /// Every variable outside of aggregates must be grouped, or depend on a grouped primary key.
    fn check_grouped(&mut self, query: &mut Query) -> Result<(), SqlError> {
        let mut dependent: Vec<Expr> = Vec::new();
        let keys: Vec<Expr> = query.group.iter().filter_map(|g| query.targets.get(*g)).map(|t| t.expr.clone()).collect();
        // Tables whose primary key is grouped.
        let mut free: Vec<usize> = Vec::new();
        if query.grouping_sets.is_none() {
            for (rt, rte) in query.rtable.iter().enumerate() {
                if let RteSource::Table(t) = &rte.source
                    && let Some(pk) = t.primary_key()
                    && pk.keys().iter().all(|c| keys.iter().any(|k| matches!(k.kind, ExprKind::Var(r, a, 0) if r == rt && a == c.attnum)))
                {
                    free.push(rt);
                }
            }
        }
        let mut bad: Option<(Expr, bool)> = None;
        for e in query.targets.iter().map(|t| &t.expr).chain(&query.having) {
            ungrouped(e, &keys, &free, &mut dependent, &mut bad, 0);
        }
        if let Some((e, outer)) = bad {
            let ExprKind::Var(rt, att, _) = e.kind else { return Err(SqlError::internal("grouping")) };
            let (table, column) = query.rtable.get(rt).map_or_else(
                || (String::new(), String::new()),
                |r| {
                    let column = usize::try_from(att)
                        .ok()
                        .and_then(|a| a.checked_sub(1))
                        .and_then(|a| r.columns.get(a))
                        .map_or_else(|| "*".to_owned(), |c| c.name.to_string());
                    (r.alias.to_string(), column)
                },
            );
            let message = if outer {
                format!("subquery uses ungrouped column \"{table}.{column}\" from outer query")
            } else {
                format!("column \"{table}.{column}\" must appear in the GROUP BY clause or be used in an aggregate function")
            };
            return Err(self.error(SqlState::GROUPING_ERROR, message, e.at));
        }
        for e in dependent {
            let at = add_target(&mut query.targets, e);
            if !query.group.contains(&at) {
                query.group.push(at);
            }
        }
        Ok(())
    }

    pub(super) fn where_clause(&mut self, node: &Option<Box<Node>>) -> Result<Option<Expr>, SqlError> {
        match node {
            Some(node) => {
                let e = self.expr_at(node, Place::Where)?;
                Ok(Some(self.coerce_bool(e, "WHERE")?))
            }
            None => Ok(None),
        }
    }

    pub(super) fn sort_direction(&mut self, s: &protobuf::SortBy) -> Result<(bool, bool), SqlError> {
        let desc = match SortByDir::try_from(s.sortby_dir) {
            Ok(SortByDir::SortbyDesc) => true,
            Ok(SortByDir::SortbyUsing) => match strings_of(&s.use_op).last() {
                Some(&"<") => false,
                Some(&">") => true,
                _ => {
                    return Err(self
                        .error(
                            SqlState::WRONG_OBJECT_TYPE,
                            format!("operator {} is not a valid ordering operator", strings_of(&s.use_op).join(".")),
                            s.location,
                        )
                        .hint("Ordering operators must be \"<\" or \">\" members of btree operator families."));
                }
            },
            _ => false,
        };
        let nulls_first = match SortByNulls::try_from(s.sortby_nulls) {
            Ok(SortByNulls::SortbyNullsFirst) => true,
            Ok(SortByNulls::SortbyNullsLast) => false,
            _ => desc,
        };
        Ok((desc, nulls_first))
    }

    fn check_sortable(&mut self, e: &Expr, verb: &str) -> Result<(), SqlError> {
        let ty = e.ty;
        if matches!(ty, oids::UNKNOWN | oids::RECORD | oids::VOID)
            || crate::sql::functions::registry::less_operator(ty).is_some()
            || ty >= 16384
        {
            return Ok(());
        }
        if crate::sql::types::type_by_oid(ty).is_some_and(|t| t.is_array() || matches!(t.kind, b'r' | b'm' | b'e' | b'c' | b'd')) {
            return Ok(());
        }
        let _ = verb;
        Err(self
            .error(SqlState::UNDEFINED_FUNCTION, format!("could not identify an ordering operator for type {}", self.type_text(ty)), e.at)
            .hint("Use an explicit ordering operator or modify the query."))
    }

    fn order_by(&mut self, nodes: &[Node], query: &mut Query) -> Result<(), SqlError> {
        for node in nodes {
            let Some(NodeEnum::SortBy(s)) = &node.node else { continue };
            let Some(item) = &s.node else { continue };
            let target = self.clause_target(item, query, Place::OrderBy)?;
            let (desc, nulls_first) = self.sort_direction(s)?;
            let e = query.targets.get_mut(target).ok_or_else(|| SqlError::internal("sort target"))?;
            if e.expr.ty == oids::UNKNOWN {
                let x = std::mem::replace(&mut e.expr, Expr::null(oids::TEXT));
                e.expr = self.settle_unknown(x)?;
            }
            let e = e.expr.clone();
            self.check_sortable(&e, "ordering")?;
            if !query.sort.iter().any(|k| k.target == target) {
                query.sort.push(SortKey { target, desc, nulls_first });
            }
        }
        Ok(())
    }

    /// The target an item of ORDER BY, GROUP BY or DISTINCT ON means; added if it is none yet.
    fn clause_target(&mut self, node: &Node, query: &mut Query, place: Place) -> Result<usize, SqlError> {
        let clause = place.name();
        match &node.node {
            Some(NodeEnum::ColumnRef(c)) => {
                if let [field] = c.fields.as_slice()
                    && let Some(name) = string_of(field)
                {
                    // GROUP BY takes an input column first, the others an output column.
                    let input_first = place == Place::GroupBy
                        && self.scope()?.names.iter().filter(|i| i.plain).flat_map(|i| &i.columns).any(|c| &*c.name == name);
                    if !input_first {
                        let mut found: Option<usize> = None;
                        for (i, t) in query.targets.iter().enumerate().filter(|(_, t)| !t.junk && &*t.name == name) {
                            match found {
                                Some(before) if !query.targets.get(before).is_some_and(|b| b.expr.same(&t.expr)) => {
                                    return Err(self.error(
                                        SqlState::AMBIGUOUS_COLUMN,
                                        format!("{clause} \"{name}\" is ambiguous"),
                                        c.location,
                                    ));
                                }
                                Some(_) => {}
                                None => found = Some(i),
                            }
                        }
                        if let Some(i) = found {
                            return Ok(i);
                        }
                    }
                }
            }
            Some(NodeEnum::AConst(c)) if !c.isnull => match &c.val {
                Some(protobuf::a_const::Val::Ival(_)) | None => {
                    let n = match &c.val {
                        Some(protobuf::a_const::Val::Ival(i)) => i.ival,
                        _ => 0,
                    };
                    let visible = query.targets.iter().filter(|t| !t.junk).count();
                    return match usize::try_from(n).ok().and_then(|n| n.checked_sub(1)).filter(|n| *n < visible) {
                        Some(n) => query
                            .targets
                            .iter()
                            .enumerate()
                            .filter(|(_, t)| !t.junk)
                            .nth(n)
                            .map(|(i, _)| i)
                            .ok_or_else(|| SqlError::internal("target")),
                        None => Err(self.error(
                            SqlState::INVALID_COLUMN_REFERENCE,
                            format!("{clause} position {n} is not in select list"),
                            c.location,
                        )),
                    };
                }
                Some(_) => return Err(self.error(SqlState::SYNTAX_ERROR, format!("non-integer constant in {clause}"), c.location)),
            },
            _ => {}
        }
        let e = self.expr_at(node, place)?;
        let e = self.settle_unknown(e)?;
        Ok(add_target(&mut query.targets, e))
    }

    fn group_by(&mut self, s: &SelectStmt, query: &mut Query) -> Result<(), SqlError> {
        if s.group_clause.is_empty() {
            return Ok(());
        }
        query.has_aggregates = true;
        let mut sets: Vec<Vec<Vec<usize>>> = Vec::new();
        let mut has_sets = false;
        for node in &s.group_clause {
            if matches!(&node.node, Some(NodeEnum::GroupingSet(_))) {
                has_sets = true;
            }
            sets.push(self.grouping_item(node, query)?);
        }
        // The cross product of the items.
        let mut product: Vec<Vec<usize>> = vec![Vec::new()];
        for item in &sets {
            let mut next = Vec::new();
            for before in &product {
                for set in item {
                    let mut both = before.clone();
                    for t in set {
                        if !both.contains(t) {
                            both.push(*t);
                        }
                    }
                    next.push(both);
                }
            }
            if next.len() > 4096 {
                return Err(SqlError::new(SqlState::STATEMENT_TOO_COMPLEX, "too many grouping sets present (maximum 4096)"));
            }
            product = next;
        }
        if s.group_distinct {
            let mut seen: Vec<Vec<usize>> = Vec::new();
            product.retain(|set| {
                let mut sorted = set.clone();
                sorted.sort_unstable();
                let new = !seen.contains(&sorted);
                if new {
                    seen.push(sorted);
                }
                new
            });
        }
        let mut all: Vec<usize> = Vec::new();
        for t in product.iter().flatten() {
            if !all.contains(t) {
                all.push(*t);
            }
        }
        for t in &all {
            let e = query.targets.get_mut(*t).ok_or_else(|| SqlError::internal("group target"))?;
            if e.expr.ty == oids::UNKNOWN {
                let x = std::mem::replace(&mut e.expr, Expr::null(oids::TEXT));
                e.expr = self.settle_unknown(x)?;
            }
            let e = e.expr.clone();
            if e.any(&|e| matches!(&e.kind, ExprKind::Agg(a) if a.up == 0)) {
                return Err(self.error(SqlState::GROUPING_ERROR, "aggregate functions are not allowed in GROUP BY", e.at));
            }
            if e.any(&|e| matches!(e.kind, ExprKind::Window(_))) {
                return Err(self.error(SqlState::WINDOWING_ERROR, "window functions are not allowed in GROUP BY", e.at));
            }
            self.check_sortable(&e, "equality")?;
        }
        if has_sets {
            query.grouping_sets =
                Some(product.iter().map(|set| set.iter().filter_map(|t| all.iter().position(|a| a == t)).collect()).collect());
        }
        query.group = all;
        Ok(())
    }

    fn grouping_item(&mut self, node: &Node, query: &mut Query) -> Result<Vec<Vec<usize>>, SqlError> {
        match &node.node {
            Some(NodeEnum::GroupingSet(g)) => {
                let kind = GroupingSetKind::try_from(g.kind).unwrap_or(GroupingSetKind::Undefined);
                let mut parts: Vec<Vec<Vec<usize>>> = Vec::new();
                for item in &g.content {
                    parts.push(self.grouping_item(item, query)?);
                }
                Ok(match kind {
                    GroupingSetKind::GroupingSetEmpty => vec![Vec::new()],
                    GroupingSetKind::GroupingSetSets => parts.into_iter().flatten().collect(),
                    GroupingSetKind::GroupingSetRollup => {
                        let items: Vec<Vec<usize>> = parts.into_iter().map(|p| p.into_iter().next().unwrap_or_default()).collect();
                        (0..=items.len()).rev().map(|n| items.iter().take(n).flatten().copied().collect()).collect()
                    }
                    GroupingSetKind::GroupingSetCube => {
                        let items: Vec<Vec<usize>> = parts.into_iter().map(|p| p.into_iter().next().unwrap_or_default()).collect();
                        if items.len() > 12 {
                            return Err(self.error(SqlState::TOO_MANY_COLUMNS, "CUBE is limited to 12 elements", g.location));
                        }
                        (0..1usize << items.len())
                            .rev()
                            .map(|mask| {
                                items
                                    .iter()
                                    .enumerate()
                                    .filter(|(i, _)| mask & (1 << (items.len() - 1 - i)) != 0)
                                    .flat_map(|(_, p)| p.iter().copied())
                                    .collect()
                            })
                            .collect()
                    }
                    GroupingSetKind::GroupingSetSimple | GroupingSetKind::Undefined => parts.into_iter().flatten().collect(),
                })
            }
            // A parenthesised list is one set of several.
            Some(NodeEnum::RowExpr(r))
                if protobuf::CoercionForm::try_from(r.row_format) == Ok(protobuf::CoercionForm::CoerceImplicitCast) =>
            {
                let mut set = Vec::new();
                for item in &r.args {
                    set.push(self.clause_target(item, query, Place::GroupBy)?);
                }
                Ok(vec![set])
            }
            _ => Ok(vec![vec![self.clause_target(node, query, Place::GroupBy)?]]),
        }
    }

    fn distinct_clause(&mut self, s: &SelectStmt, query: &mut Query) -> Result<(), SqlError> {
        if s.distinct_clause.is_empty() {
            return Ok(());
        }
        if s.distinct_clause.iter().all(|n| n.node.is_none()) {
            for key in &query.sort {
                if let Some(t) = query.targets.get(key.target)
                    && t.junk
                {
                    return Err(self.error(
                        SqlState::INVALID_COLUMN_REFERENCE,
                        "for SELECT DISTINCT, ORDER BY expressions must appear in select list",
                        t.expr.at,
                    ));
                }
            }
            for t in query.targets.clone() {
                if !t.junk {
                    self.check_sortable(&t.expr, "equality")?;
                }
            }
            query.distinct = Distinct::All;
            return Ok(());
        }
        let mut on = Vec::new();
        for node in &s.distinct_clause {
            let t = self.clause_target(node, query, Place::DistinctOn)?;
            if !on.contains(&t) {
                on.push(t);
            }
        }
        // ORDER BY must begin with them.
        let leading = query.sort.iter().take_while(|k| on.contains(&k.target)).count();
        if leading < on.len() && leading < query.sort.len() {
            let at = on.iter().find_map(|t| query.targets.get(*t)).map_or(-1, |t| t.expr.at);
            return Err(self.error(
                SqlState::INVALID_COLUMN_REFERENCE,
                "SELECT DISTINCT ON expressions must match initial ORDER BY expressions",
                at,
            ));
        }
        query.distinct = Distinct::On(on);
        Ok(())
    }

    fn limit(&mut self, s: &SelectStmt, query: &mut Query) -> Result<(), SqlError> {
        let one = |b: &mut Self, node: &Option<Box<Node>>, word: &'static str| -> Result<Option<Expr>, SqlError> {
            let Some(node) = node else { return Ok(None) };
            let e = b.expr_at(node, Place::Limit(word))?;
            let e = b.coerce_to(e, oids::INT8, word)?;
            if e.any(&|e| matches!(e.kind, ExprKind::Var(_, _, 0))) {
                return Err(b.error(SqlState::INVALID_COLUMN_REFERENCE, format!("argument of {word} must not contain variables"), e.at));
            }
            Ok(Some(e))
        };
        query.offset = one(self, &s.limit_offset, "OFFSET")?;
        query.limit = one(self, &s.limit_count, "LIMIT")?;
        query.with_ties = protobuf::LimitOption::try_from(s.limit_option) == Ok(protobuf::LimitOption::WithTies);
        if query.with_ties && query.sort.is_empty() {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "WITH TIES cannot be specified without ORDER BY clause"));
        }
        Ok(())
    }

    fn locking(&mut self, s: &SelectStmt, query: &mut Query) -> Result<(), SqlError> {
        for node in &s.locking_clause {
            let Some(NodeEnum::LockingClause(l)) = &node.node else { continue };
            let strength = match LockClauseStrength::try_from(l.strength) {
                Ok(LockClauseStrength::LcsForkeyshare) => LockStrength::KeyShare,
                Ok(LockClauseStrength::LcsForshare) => LockStrength::Share,
                Ok(LockClauseStrength::LcsFornokeyupdate) => LockStrength::NoKeyUpdate,
                Ok(LockClauseStrength::LcsForupdate) => LockStrength::Update,
                _ => continue,
            };
            let word = strength.clause();
            let wait = match LockWaitPolicy::try_from(l.wait_policy) {
                Ok(LockWaitPolicy::LockWaitSkip) => WaitPolicy::Skip,
                Ok(LockWaitPolicy::LockWaitError) => WaitPolicy::Error,
                _ => WaitPolicy::Wait,
            };
            let refuse = |what: &str| Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("{word} is not allowed with {what}")));
            if query.set_op.is_some() {
                return refuse("UNION/INTERSECT/EXCEPT");
            }
            if !matches!(query.distinct, Distinct::No) {
                return refuse("DISTINCT clause");
            }
            if !query.group.is_empty() {
                return refuse("GROUP BY clause");
            }
            if query.having.is_some() {
                return refuse("HAVING clause");
            }
            if query.has_aggregates {
                return refuse("aggregate functions");
            }
            if !query.windows.is_empty() {
                return refuse("window functions");
            }
            if query.targets.iter().any(|t| t.expr.returns_set()) {
                return refuse("set-returning functions in the target list");
            }
            let mark = |query: &mut Query, rt: usize| match query.row_marks.iter_mut().find(|m| m.rt == rt) {
                Some(m) => {
                    m.strength = m.strength.max(strength);
                    m.wait = m.wait.max(wait);
                }
                None => query.row_marks.push(RowMark { rt, strength, wait }),
            };
            if l.locked_rels.is_empty() {
                for rt in 0..query.rtable.len() {
                    if matches!(query.rtable.get(rt).map(|r| &r.source), Some(RteSource::Table(_))) {
                        mark(query, rt);
                    }
                }
            } else {
                for node in &l.locked_rels {
                    let Some(NodeEnum::RangeVar(r)) = &node.node else { continue };
                    match query.rtable.iter().position(|x| *x.alias == *r.relname) {
                        Some(rt) => match query.rtable.get(rt).map(|r| &r.source) {
                            Some(RteSource::Table(_)) => mark(query, rt),
                            Some(RteSource::Subquery(_)) => {}
                            Some(RteSource::Function { .. }) => {
                                return Err(self.error(
                                    SqlState::FEATURE_NOT_SUPPORTED,
                                    format!("{word} cannot be applied to a function"),
                                    r.location,
                                ));
                            }
                            Some(RteSource::Values(_)) => {
                                return Err(self.error(
                                    SqlState::FEATURE_NOT_SUPPORTED,
                                    format!("{word} cannot be applied to VALUES"),
                                    r.location,
                                ));
                            }
                            _ => {
                                return Err(self.error(
                                    SqlState::FEATURE_NOT_SUPPORTED,
                                    format!("{word} cannot be applied to a WITH query"),
                                    r.location,
                                ));
                            }
                        },
                        None => {
                            return Err(self.error(
                                SqlState::UNDEFINED_TABLE,
                                format!("relation \"{}\" in {word} clause not found in FROM clause", r.relname),
                                r.location,
                            ));
                        }
                    }
                }
            }
        }
        for m in query.row_marks.clone() {
            if let Some(RteSource::Table(t)) = query.rtable.get(m.rt).map(|r| &r.source) {
                let oid = t.oid;
                let kind = match t.kind {
                    RelKind::Sequence => Some("sequence"),
                    RelKind::MatView => Some("materialized view"),
                    RelKind::Toast => Some("TOAST relation"),
                    RelKind::Table
                    | RelKind::Index
                    | RelKind::View
                    | RelKind::Composite
                    | RelKind::Foreign
                    | RelKind::Partitioned
                    | RelKind::PartitionedIndex => None,
                };
                if let Some(kind) = kind {
                    let message = format!("cannot lock rows in {kind} \"{}\"", t.name);
                    return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, message));
                }
                self.need(oid, b'w');
            }
        }
        Ok(())
    }

    fn values(&mut self, s: &SelectStmt, settle: bool) -> Result<Query, SqlError> {
        let mut rows: Vec<Vec<Expr>> = Vec::with_capacity(s.values_lists.len());
        for list in &s.values_lists {
            let Some(NodeEnum::List(list)) = &list.node else { continue };
            let row = self.at_place(Place::Values, |b| b.exprs(&list.items))?;
            if let Some(first) = rows.first()
                && first.len() != row.len()
            {
                let at = row.iter().map(|e| e.at).find(|a| *a >= 0).unwrap_or(-1);
                return Err(self.error(SqlState::SYNTAX_ERROR, "VALUES lists must all be the same length", at));
            }
            if let Some(d) = row.iter().find(|e| matches!(e.kind, ExprKind::Default)) {
                return Err(self.error(SqlState::SYNTAX_ERROR, "DEFAULT is not allowed in this context", d.at));
            }
            rows.push(row);
        }
        let width = rows.first().map_or(0, Vec::len);
        let mut columns = Vec::with_capacity(width);
        for i in 0..width {
            let column: Vec<Expr> =
                rows.iter_mut().filter_map(|r| r.get_mut(i)).map(|e| std::mem::replace(e, Expr::null(oids::UNKNOWN))).collect();
            let all_unknown = column.iter().all(|e| self.known_type(e) == oids::UNKNOWN);
            let (column, ty) = if all_unknown && !settle { (column, oids::UNKNOWN) } else { self.common(column, "VALUES")? };
            let typmod = super::expression::common_typmod(&column);
            for (row, e) in rows.iter_mut().zip(column) {
                if let Some(slot) = row.get_mut(i) {
                    *slot = e;
                }
            }
            columns.push(RteColumn { name: Arc::from(format!("column{}", i + 1)), ty, typmod });
        }
        let rte = Rte { alias: Arc::from("*VALUES*"), source: RteSource::Values(rows), columns: columns.clone(), lateral: false };
        let item = self.item_for(0, &rte, None, false);
        let rt = self.add_rte(rte)?;
        self.scope()?.names.push(item);
        let mut query = Query { from: vec![super::query::FromItem::Rel(rt)], ..Query::default() };
        for c in columns_of(rt, &columns) {
            query.targets.push(Target { name: c.name, expr: c.expr, junk: false, origin: (0, 0) });
        }
        self.order_by(&s.sort_clause, &mut query)?;
        self.limit(s, &mut query)?;
        if !s.locking_clause.is_empty() {
            return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "FOR UPDATE cannot be applied to VALUES"));
        }
        self.close_scope(&mut query)?;
        Ok(query)
    }

    fn set_operation(&mut self, s: &SelectStmt) -> Result<Query, SqlError> {
        let mut query = Query::default();
        let mut names: Vec<Arc<str>> = Vec::new();
        let (tree, types) = self.set_op_tree(s, true, &mut names)?;
        let columns: Vec<RteColumn> =
            names.iter().zip(&types).map(|(n, (ty, typmod))| RteColumn { name: n.clone(), ty: *ty, typmod: *typmod }).collect();
        // The result's columns are Vars of a range table entry of its own.
        let rt = self.add_rte(Rte { alias: Arc::from("*SETOP*"), source: RteSource::None, columns: columns.clone(), lateral: false })?;
        for c in columns_of(rt, &columns) {
            query.targets.push(Target { name: c.name, expr: c.expr, junk: false, origin: (0, 0) });
        }
        query.set_op = Some(tree);
        query.result = rt;
        let visible = query.targets.len();
        // ORDER BY sees the output names only.
        self.scope()?.names = vec![super::scope::NameItem {
            name: None,
            schema: None,
            columns: columns_of(rt, &columns),
            qualified: false,
            plain: true,
            rt: None,
            is_table: false,
        }];
        self.order_by(&s.sort_clause, &mut query)?;
        if query.targets.len() != visible {
            let at = query.targets.get(visible).map_or(-1, |t| t.expr.at);
            return Err(self
                .error(SqlState::FEATURE_NOT_SUPPORTED, "invalid UNION/INTERSECT/EXCEPT ORDER BY clause", at)
                .detail("Only result column names can be used, not expressions or functions.")
                .hint("Add the expression/function to every SELECT, or move the UNION into a FROM clause."));
        }
        self.limit(s, &mut query)?;
        self.locking(s, &mut query)?;
        self.close_scope(&mut query)?;
        Ok(query)
    }

    fn set_op_tree(&mut self, s: &SelectStmt, top: bool, names: &mut Vec<Arc<str>>) -> Result<(SetOpTree, Vec<(Oid, i32)>), SqlError> {
        let op = SetOperation::try_from(s.op).unwrap_or(SetOperation::SetopNone);
        let nested = !s.sort_clause.is_empty()
            || s.limit_count.is_some()
            || s.limit_offset.is_some()
            || s.with_clause.is_some()
            || !s.locking_clause.is_empty();
        let leaf = matches!(op, SetOperation::SetopNone | SetOperation::Undefined) || (!top && nested);
        if leaf {
            let query = self.select_with(s, false)?;
            let columns = output_columns(&query);
            if names.is_empty() {
                names.extend(columns.iter().map(|c| c.name.clone()));
            }
            let types = columns.iter().map(|c| (c.ty, c.typmod)).collect();
            let count = self.scope()?.rtable.len() + 1;
            let rt = self.add_rte(Rte {
                alias: Arc::from(format!("*SELECT* {count}")),
                source: RteSource::Subquery(Box::new(query)),
                columns,
                lateral: false,
            })?;
            return Ok((SetOpTree::Arm(rt), types));
        }
        self.deeper(|b| {
            let (Some(left), Some(right)) = (&s.larg, &s.rarg) else { return Err(SqlError::internal("set operation")) };
            let (mut left, left_types) = b.set_op_tree(left, false, names)?;
            let mut ignored = vec![Arc::from("")];
            let (mut right, right_types) = b.set_op_tree(right, false, &mut ignored)?;
            let (kind, word) = match op {
                SetOperation::SetopUnion => (SetOpKind::Union, "UNION"),
                SetOperation::SetopIntersect => (SetOpKind::Intersect, "INTERSECT"),
                SetOperation::SetopExcept => (SetOpKind::Except, "EXCEPT"),
                SetOperation::SetopNone | SetOperation::Undefined => return Err(SqlError::internal("set operation")),
            };
            if left_types.len() != right_types.len() {
                let at = b.arm_location(&right, 0).unwrap_or(-1);
                return Err(b.error(SqlState::SYNTAX_ERROR, format!("each {word} query must have the same number of columns"), at));
            }
            let mut types = Vec::with_capacity(left_types.len());
            for (i, (l, r)) in left_types.iter().zip(&right_types).enumerate() {
                let mut ty = select_common_type(&[l.0, r.0], word).map_err(|e| match b.arm_location(&right, i) {
                    Some(at) => b.position(e, at),
                    None => e,
                })?;
                if ty == oids::UNKNOWN {
                    ty = oids::TEXT;
                }
                types.push((ty, if l.0 == r.0 && l.1 == r.1 { l.1 } else { -1 }));
            }
            b.convert_arm(&mut left, &types)?;
            b.convert_arm(&mut right, &types)?;
            Ok((SetOpTree::Op { kind, all: s.all, left: Box::new(left), right: Box::new(right), types: types.clone() }, types))
        })
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these range table entries matter here")]
    fn arm_location(&self, tree: &SetOpTree, column: usize) -> Option<i32> {
        match tree {
            SetOpTree::Arm(rt) => match &self.scopes.last()?.rtable.get(*rt)?.source {
                RteSource::Subquery(q) => q.targets.iter().filter(|t| !t.junk).nth(column).map(|t| t.expr.at),
                _ => None,
            },
            SetOpTree::Op { right, .. } => self.arm_location(right, column),
        }
    }

    /// Converts an arm's output columns to the operation's types.
    fn convert_arm(&mut self, tree: &mut SetOpTree, types: &[(Oid, i32)]) -> Result<(), SqlError> {
        let rt = match tree {
            SetOpTree::Arm(rt) => *rt,
            SetOpTree::Op { types: own, .. } => {
                if own.iter().zip(types).all(|(a, b)| a.0 == b.0) {
                    return Ok(());
                }
                // An operation whose own types differ is wrapped: the planner converts its output.
                return self.convert_operation(tree, types);
            }
        };
        let Some(mut rte) = self.scope()?.rtable.get(rt).cloned() else { return Err(SqlError::internal("arm")) };
        if let RteSource::Subquery(q) = &mut rte.source {
            let simple = q.set_op.is_none() && matches!(q.distinct, Distinct::No) && q.command == Command::Select;
            if rte.columns.iter().zip(types).all(|(c, t)| c.ty == t.0) {
                return Ok(());
            }
            if simple {
                let mut visible = 0usize;
                for i in 0..q.targets.len() {
                    let Some(t) = q.targets.get_mut(i) else { continue };
                    if t.junk {
                        continue;
                    }
                    let Some((ty, _)) = types.get(visible) else { continue };
                    visible += 1;
                    let sorted = q.sort.iter().any(|k| k.target == i) || q.group.contains(&i);
                    if t.expr.ty != *ty {
                        let old = t.expr.clone();
                        let new = self.coerce(old.clone(), *ty, -1, CoercionContext::Implicit)?;
                        t.expr = new;
                        if sorted {
                            // The key stays what it was.
                            let key = Target { expr: old, name: Arc::from("?column?"), junk: true, origin: (0, 0) };
                            q.targets.push(key);
                            let at = q.targets.len() - 1;
                            q.sort.iter_mut().filter(|k| k.target == i).for_each(|k| k.target = at);
                            q.group.iter_mut().filter(|g| **g == i).for_each(|g| *g = at);
                        }
                    }
                }
            } else {
                let inner = std::mem::take(&mut **q);
                **q = self.wrap(inner, types)?;
            }
            rte.columns = output_columns(q);
        }
        if let Some(slot) = self.scope()?.rtable.get_mut(rt) {
            *slot = rte;
        }
        Ok(())
    }

    fn convert_operation(&mut self, tree: &mut SetOpTree, types: &[(Oid, i32)]) -> Result<(), SqlError> {
        // Move the operation into a subquery of its own level; its arms' range table indexes move with it.
        let SetOpTree::Op { types: own, .. } = &*tree else { return Ok(()) };
        let own = own.clone();
        let mut inner = Query::default();
        let mut map = Vec::new();
        let moved = move_arms(tree.clone(), &mut |rt| {
            map.push(rt);
            map.len() - 1
        });
        for rt in &map {
            if let Some(rte) = self.scope()?.rtable.get(*rt) {
                let mut rte = rte.clone();
                // One level deeper than before.
                if let RteSource::Subquery(q) = &mut rte.source {
                    q.shift_outer(2, 1);
                }
                inner.rtable.push(rte);
            }
        }
        let columns: Vec<RteColumn> = own
            .iter()
            .enumerate()
            .map(|(i, (ty, typmod))| RteColumn { name: Arc::from(format!("column{}", i + 1)), ty: *ty, typmod: *typmod })
            .collect();
        inner.rtable.push(Rte { alias: Arc::from("*SETOP*"), source: RteSource::None, columns: columns.clone(), lateral: false });
        inner.result = inner.rtable.len() - 1;
        for c in columns_of(inner.result, &columns) {
            inner.targets.push(Target { name: c.name, expr: c.expr, junk: false, origin: (0, 0) });
        }
        inner.set_op = Some(moved);
        let query = self.wrap(inner, types)?;
        let columns = output_columns(&query);
        let rt =
            self.add_rte(Rte { alias: Arc::from("*SELECT*"), source: RteSource::Subquery(Box::new(query)), columns, lateral: false })?;
        *tree = SetOpTree::Arm(rt);
        Ok(())
    }

    /// `SELECT columns converted FROM (query)`.
    fn wrap(&mut self, inner: Query, types: &[(Oid, i32)]) -> Result<Query, SqlError> {
        let columns = output_columns(&inner);
        let mut query = Query { from: vec![super::query::FromItem::Rel(0)], ..Query::default() };
        for (c, (ty, _)) in columns_of(0, &columns).into_iter().zip(types) {
            let expr = self.coerce(c.expr, *ty, -1, CoercionContext::Implicit)?;
            query.targets.push(Target { name: c.name, expr, junk: false, origin: (0, 0) });
        }
        let mut inner = inner;
        inner.shift_outer(1, 1);
        query.rtable.push(Rte { alias: Arc::from("*SELECT*"), source: RteSource::Subquery(Box::new(inner)), columns, lateral: false });
        Ok(query)
    }

    /// WITH.
    pub(super) fn with_clause(&mut self, with: &protobuf::WithClause) -> Result<(), SqlError> {
        let items = self.with_items(with)?;
        let future = items.iter().map(|i| i.cte.ctename.clone()).collect();
        let before = std::mem::replace(&mut self.scope()?.future, future);
        let result = self.with_queries(with, items);
        self.scope()?.future = before;
        result
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    fn with_queries(&mut self, with: &protobuf::WithClause, items: Vec<Item<'_>>) -> Result<(), SqlError> {
        for item in items {
            let c = item.cte;
            let materialized = match protobuf::CteMaterialize::try_from(c.ctematerialized) {
                Ok(protobuf::CteMaterialize::Always) => Some(true),
                Ok(protobuf::CteMaterialize::Never) => Some(false),
                _ => None,
            };
            let Some(inner) = c.ctequery.as_ref().and_then(|q| q.node.as_ref()) else { continue };
            if c.search_clause.is_some() || c.cycle_clause.is_some() {
                return Err(SqlError::unsupported("SEARCH and CYCLE"));
            }
            let aliases = strings_of(&c.aliascolnames);
            let name: Arc<str> = Arc::from(c.ctename.as_str());
            let cte = match inner {
                NodeEnum::SelectStmt(select) if item.recursive => self.recursive_cte(select, &name, &aliases, materialized, c.location)?,
                NodeEnum::SelectStmt(select) => {
                    let query = self.select(select)?;
                    let columns = self.cte_columns(&query, &aliases, &name, c.location)?;
                    Cte { name, columns, query, recursive: None, references: 0, materialized, hidden: false }
                }
                NodeEnum::InsertStmt(_) | NodeEnum::UpdateStmt(_) | NodeEnum::DeleteStmt(_) => {
                    if self.scopes.len() > 1 {
                        return Err(self.error(
                            SqlState::FEATURE_NOT_SUPPORTED,
                            "WITH clause containing a data-modifying statement must be at the top level",
                            c.location,
                        ));
                    }
                    let query = self.modify(inner)?;
                    let columns = self.cte_columns(&query, &aliases, &name, c.location)?;
                    Cte { name, columns, query, recursive: None, references: 0, materialized: Some(true), hidden: false }
                }
                _ => return Err(SqlError::unsupported("this statement in WITH")),
            };
            let scope = self.scope()?;
            scope.ctes.push(cte);
            if !with.recursive {
                scope.future.remove(0);
            }
        }
        Ok(())
    }

    fn cte_columns(&mut self, query: &Query, aliases: &[&str], name: &str, at: i32) -> Result<Vec<RteColumn>, SqlError> {
        let mut columns = output_columns(query);
        if aliases.len() > columns.len() {
            return Err(self.error(
                SqlState::INVALID_COLUMN_REFERENCE,
                format!("WITH query \"{name}\" has {} columns available but {} columns specified", columns.len(), aliases.len()),
                at,
            ));
        }
        for (c, alias) in columns.iter_mut().zip(aliases) {
            c.name = Arc::from(*alias);
        }
        Ok(columns)
    }

    fn recursive_cte(
        &mut self,
        s: &SelectStmt,
        name: &Arc<str>,
        aliases: &[&str],
        materialized: Option<bool>,
        at: i32,
    ) -> Result<Cte, SqlError> {
        let (Some(left), Some(right)) = (&s.larg, &s.rarg) else { return Err(SqlError::internal("recursive query")) };
        // Both terms, and nothing after them, see the names of a WITH above the UNION.
        let outer = self.scope()?.ctes.len();
        if let Some(with) = &s.with_clause {
            self.with_clause(with)?;
        }
        let inner = self.scope()?.ctes.len();
        let query = self.select(left)?;
        let columns = self.cte_columns(&query, aliases, name, at)?;
        let index = self.scope()?.ctes.len();
        self.scope()?.ctes.push(Cte {
            name: name.clone(),
            columns: columns.clone(),
            query: Query::default(),
            recursive: None,
            references: 0,
            materialized,
            hidden: false,
        });
        let before = self.scope()?.working.replace((name.clone(), index));
        let result = self.select_with(right, false);
        let scope = self.scope()?;
        scope.working = before;
        scope.ctes.truncate(inner);
        scope.ctes.iter_mut().skip(outer).for_each(|c| c.hidden = true);
        let recursive = result?;
        let types: Vec<(Oid, i32)> = columns.iter().map(|c| (c.ty, c.typmod)).collect();
        let own = output_columns(&recursive);
        if own.len() != types.len() {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "each UNION query must have the same number of columns"));
        }
        for (i, (c, (ty, _))) in own.iter().zip(&types).enumerate() {
            let common = select_common_type(&[*ty, c.ty], "UNION")?;
            if common != *ty {
                let e = query.targets.iter().filter(|t| !t.junk).nth(i).map_or(-1, |t| t.expr.at);
                return Err(self
                    .error(
                        SqlState::DATATYPE_MISMATCH,
                        format!(
                            "recursive query \"{name}\" column {} has type {} in non-recursive term but type {} overall",
                            i + 1,
                            self.type_text(*ty),
                            self.type_text(common)
                        ),
                        e,
                    )
                    .hint("Cast the output of the non-recursive term to the correct type."));
            }
        }
        let recursive =
            if own.iter().zip(&types).all(|(c, t)| c.ty == t.0) { recursive } else { self.convert_recursive(recursive, &types)? };
        Ok(Cte {
            name: name.clone(),
            columns,
            query,
            recursive: Some((recursive, s.all)),
            references: 0,
            materialized: Some(true),
            hidden: false,
        })
    }

    fn convert_recursive(&mut self, mut q: Query, types: &[(Oid, i32)]) -> Result<Query, SqlError> {
        if q.set_op.is_some() || !matches!(q.distinct, Distinct::No) {
            return self.wrap(q, types);
        }
        let mut visible = 0;
        for t in &mut q.targets {
            if t.junk {
                continue;
            }
            if let Some((ty, _)) = types.get(visible) {
                let e = std::mem::replace(&mut t.expr, Expr::null(*ty));
                t.expr = self.coerce(e, *ty, -1, CoercionContext::Implicit)?;
            }
            visible += 1;
        }
        Ok(q)
    }
}

fn move_arms(tree: SetOpTree, map: &mut dyn FnMut(usize) -> usize) -> SetOpTree {
    match tree {
        SetOpTree::Arm(rt) => SetOpTree::Arm(map(rt)),
        SetOpTree::Op { kind, all, left, right, types } => {
            let left = Box::new(move_arms(*left, map));
            let right = Box::new(move_arms(*right, map));
            SetOpTree::Op { kind, all, left, right, types }
        }
    }
}

/// The place of an expression among the targets; added as junk if it is not there.
pub(super) fn add_target(targets: &mut Vec<Target>, e: Expr) -> usize {
    if let Some(i) = targets.iter().position(|t| t.expr.same(&e)) {
        return i;
    }
    targets.push(Target { expr: e, name: Arc::from("?column?"), junk: true, origin: (0, 0) });
    targets.len() - 1
}

fn renumber_grouping(e: &mut Expr, places: &[usize]) {
    if let ExprKind::Grouping(args) = &mut e.kind {
        for a in args {
            *a = places.get(*a).copied().unwrap_or(*a);
        }
    }
    let _infallible = e.children_mut(&mut |c| {
        renumber_grouping(c, places);
        Ok(())
    });
}

/// Finds variables of the grouped level that are neither grouped nor aggregated. `depth`: levels below it.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
fn ungrouped(e: &Expr, keys: &[Expr], free: &[usize], dependent: &mut Vec<Expr>, bad: &mut Option<(Expr, bool)>, depth: usize) {
    if bad.is_some() {
        return;
    }
    if depth == 0 && keys.iter().any(|k| k.same(e)) {
        return;
    }
    match &e.kind {
        ExprKind::Agg(a) if a.up == depth => return,
        ExprKind::Grouping(_) if depth == 0 => return,
        ExprKind::Var(rt, att, up) if *up == depth => {
            let mut own = e.clone();
            own.kind = ExprKind::Var(*rt, *att, 0);
            if keys.iter().any(|k| k.same(&own)) {
                return;
            }
            if free.contains(rt) {
                if !dependent.iter().any(|d| d.same(&own)) {
                    dependent.push(own);
                }
                return;
            }
            *bad = Some((e.clone(), depth > 0));
            return;
        }
        _ => {}
    }
    e.children(&mut |c| ungrouped(c, keys, free, dependent, bad, depth));
    if let ExprKind::SubLink(s) = &e.kind {
        s.query.visit_exprs(&mut |c, d| ungrouped(c, keys, free, dependent, bad, depth + d), 1);
    }
}

/// Names after OF in FOR UPDATE and its kin; empty if one of them names none: all are locked then.
fn locked_tables(clauses: &[Node]) -> Option<Vec<String>> {
    let mut names = None;
    for node in clauses {
        let Some(NodeEnum::LockingClause(l)) = &node.node else { continue };
        if l.locked_rels.is_empty() {
            return Some(Vec::new());
        }
        let named = l.locked_rels.iter().filter_map(|n| match &n.node {
            Some(NodeEnum::RangeVar(r)) => Some(r.relname.clone()),
            _ => None,
        });
        names.get_or_insert_with(Vec::new).extend(named);
    }
    names
}
