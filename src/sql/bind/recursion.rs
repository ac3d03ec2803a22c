//! WITH RECURSIVE before it is bound: in which order its queries can be, which of them refer to themselves, and whether they do so
//! where they may.
//!
//! PostgreSQL: parser/parse_cte.c.

use pg_query::NodeEnum;
use pg_query::protobuf::{self, CommonTableExpr, JoinType, Node, SelectStmt, SetOperation, WithClause};

use super::scope::Binder;
use crate::sqlstate::{SqlError, SqlState};
use crate::stack;

/// One query of a WITH clause, in the order in which they can be bound.
pub(super) struct Item<'n> {
    /// Its node.
    pub cte: &'n CommonTableExpr,
    /// It refers to itself.
    pub recursive: bool,
}

/// What a reference to the recursive query stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    Allowed,
    NonRecursiveTerm,
    Sublink,
    OuterJoin,
    Intersect,
    Except,
}

impl Context {
    fn words(self) -> &'static str {
        match self {
            Self::Allowed => "",
            Self::NonRecursiveTerm => "its non-recursive term",
            Self::Sublink => "a subquery",
            Self::OuterJoin => "an outer join",
            Self::Intersect => "INTERSECT",
            Self::Except => "EXCEPT",
        }
    }
}

/// Is called with each unqualified table name that no inner WITH defines, its place, and what it stands in.
type Visit<'v> = dyn FnMut(&str, i32, Context) -> Result<(), SqlError> + 'v;

impl Binder<'_> {
    /// The queries of a WITH clause in an order without forward references, checked.
    ///
    /// # Errors
    /// Duplicate names; of WITH RECURSIVE: mutual recursion, self-references that are not allowed.
    pub(super) fn with_items<'n>(&self, with: &'n WithClause) -> Result<Vec<Item<'n>>, SqlError> {
        let mut items: Vec<Item<'n>> = Vec::with_capacity(with.ctes.len());
        for node in &with.ctes {
            let Some(NodeEnum::CommonTableExpr(cte)) = &node.node else { continue };
            if items.iter().any(|i| i.cte.ctename == cte.ctename) {
                return Err(self.error(
                    SqlState::DUPLICATE_ALIAS,
                    format!("WITH query name \"{}\" specified more than once", cte.ctename),
                    cte.location,
                ));
            }
            items.push(Item { cte, recursive: false });
        }
        if !with.recursive {
            return Ok(items);
        }
        let mut needs: Vec<Vec<usize>> = Vec::with_capacity(items.len());
        for item in &items {
            let mut found = Vec::new();
            let mut walk = Walk::default();
            if let Some(query) = query_of(item.cte) {
                walk.any(query, &mut |name, _, _| {
                    if let Some(i) = items.iter().position(|i| i.cte.ctename == name)
                        && !found.contains(&i)
                    {
                        found.push(i);
                    }
                    Ok(())
                })?;
            }
            needs.push(found);
        }
        for (i, (item, needs)) in items.iter_mut().zip(&mut needs).enumerate() {
            item.recursive = needs.contains(&i);
            needs.retain(|n| *n != i);
        }
        let mut left: Vec<(usize, Item<'n>)> = items.into_iter().enumerate().collect();
        let mut sorted = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let free = left.iter().position(|(i, _)| needs.get(*i).is_none_or(Vec::is_empty));
            let Some(at) = free else {
                return Err(self.error(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "mutual recursion between WITH items is not implemented",
                    left.first().map_or(-1, |(_, item)| item.cte.location),
                ));
            };
            let (done, item) = left.remove(at);
            needs.iter_mut().for_each(|n| n.retain(|i| *i != done));
            sorted.push(item);
        }
        for item in sorted.iter().filter(|i| i.recursive) {
            self.check_recursion(item.cte)?;
        }
        Ok(sorted)
    }

    fn check_recursion(&self, cte: &CommonTableExpr) -> Result<(), SqlError> {
        let own = cte.ctename.as_str();
        let Some(NodeEnum::SelectStmt(s)) = query_of(cte) else {
            return Err(self.error(
                SqlState::INVALID_RECURSION,
                format!("recursive query \"{own}\" must not contain data-modifying statements"),
                cte.location,
            ));
        };
        let (Some(left), Some(right), Ok(SetOperation::SetopUnion)) = (&s.larg, &s.rarg, SetOperation::try_from(s.op)) else {
            return Err(self.error(
                SqlState::INVALID_RECURSION,
                format!("recursive query \"{own}\" does not have the form non-recursive-term UNION [ALL] recursive-term"),
                cte.location,
            ));
        };
        let mut seen = 0usize;
        let mut visit = |name: &str, at: i32, context: Context| {
            if name != own {
                return Ok(());
            }
            if context != Context::Allowed {
                return Err(self.error(
                    SqlState::INVALID_RECURSION,
                    format!("recursive reference to query \"{own}\" must not appear within {}", context.words()),
                    at,
                ));
            }
            seen += 1;
            if seen > 1 {
                return Err(self.error(
                    SqlState::INVALID_RECURSION,
                    format!("recursive reference to query \"{own}\" must not appear more than once"),
                    at,
                ));
            }
            Ok(())
        };
        if let Some(with) = &s.with_clause {
            Walk { context: Context::Sublink, ..Walk::default() }.nodes(&with.ctes, &mut visit)?;
        }
        let refuse = |what: &str, at: i32| {
            Err(self.error(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} in a recursive query is not implemented"), at))
        };
        if let Some(first) = s.sort_clause.first() {
            return refuse("ORDER BY", location(first));
        }
        if let Some(e) = &s.limit_offset {
            return refuse("OFFSET", location(e));
        }
        if let Some(e) = &s.limit_count {
            return refuse("LIMIT", location(e));
        }
        if !s.locking_clause.is_empty() {
            return refuse("FOR UPDATE/SHARE", -1);
        }
        Walk { context: Context::NonRecursiveTerm, ..Walk::default() }.select(left, &mut visit)?;
        Walk::default().select(right, &mut visit)
    }
}

fn query_of(cte: &CommonTableExpr) -> Option<&NodeEnum> {
    cte.ctequery.as_ref()?.node.as_ref()
}

/// Where an expression begins, as far as ORDER BY and LIMIT need it.
fn location(node: &Node) -> i32 {
    match &node.node {
        Some(NodeEnum::SortBy(s)) => s.node.as_ref().map_or(-1, |n| location(n)),
        Some(NodeEnum::AConst(c)) => c.location,
        Some(NodeEnum::ColumnRef(c)) => c.location,
        Some(NodeEnum::ParamRef(p)) => p.location,
        Some(NodeEnum::FuncCall(f)) => f.location,
        Some(NodeEnum::TypeCast(t)) => t.arg.as_ref().map_or(t.location, |n| location(n)),
        Some(NodeEnum::AExpr(e)) => e.lexpr.as_ref().map_or(e.location, |n| location(n)),
        Some(NodeEnum::SubLink(s)) => s.location,
        _ => -1,
    }
}

/// A walk over raw nodes that knows which names inner WITH clauses have taken.
struct Walk {
    context: Context,
    hidden: Vec<String>,
}

impl Default for Walk {
    fn default() -> Self {
        Self { context: Context::Allowed, hidden: Vec::new() }
    }
}

impl Walk {
    fn within(&mut self, context: Context, f: impl FnOnce(&mut Self) -> Result<(), SqlError>) -> Result<(), SqlError> {
        let before = std::mem::replace(&mut self.context, context);
        let result = f(self);
        self.context = before;
        result
    }

    fn nodes(&mut self, nodes: &[Node], visit: &mut Visit<'_>) -> Result<(), SqlError> {
        nodes.iter().filter_map(|n| n.node.as_ref()).try_for_each(|n| self.any(n, visit))
    }

    fn boxed(&mut self, node: &Option<Box<Node>>, visit: &mut Visit<'_>) -> Result<(), SqlError> {
        match node.as_ref().and_then(|n| n.node.as_ref()) {
            Some(n) => self.any(n, visit),
            None => Ok(()),
        }
    }

    /// The queries of an inner WITH; their names stay hidden until the caller cuts `hidden` back.
    fn with(&mut self, with: Option<&WithClause>, visit: &mut Visit<'_>) -> Result<(), SqlError> {
        let Some(with) = with else { return Ok(()) };
        let ctes = || {
            with.ctes.iter().filter_map(|n| match &n.node {
                Some(NodeEnum::CommonTableExpr(c)) => Some(c),
                _ => None,
            })
        };
        if with.recursive {
            self.hidden.extend(ctes().map(|c| c.ctename.clone()));
        }
        for c in ctes() {
            if let Some(query) = query_of(c) {
                self.any(query, visit)?;
            }
            if !with.recursive {
                self.hidden.push(c.ctename.clone());
            }
        }
        Ok(())
    }

    fn select(&mut self, s: &SelectStmt, visit: &mut Visit<'_>) -> Result<(), SqlError> {
        stack::check()?;
        let hidden = self.hidden.len();
        self.with(s.with_clause.as_ref(), visit)?;
        let context = self.context;
        let (left, right) = match SetOperation::try_from(s.op) {
            Ok(SetOperation::SetopIntersect) if s.all => (Context::Intersect, Context::Intersect),
            Ok(SetOperation::SetopExcept) => (if s.all { Context::Except } else { context }, Context::Except),
            _ => (context, context),
        };
        if let Some(l) = &s.larg {
            self.within(left, |w| w.select(l, visit))?;
        }
        if let Some(r) = &s.rarg {
            self.within(right, |w| w.select(r, visit))?;
        }
        self.nodes(&s.distinct_clause, visit)?;
        self.nodes(&s.target_list, visit)?;
        self.nodes(&s.from_clause, visit)?;
        self.boxed(&s.where_clause, visit)?;
        self.nodes(&s.group_clause, visit)?;
        self.boxed(&s.having_clause, visit)?;
        self.nodes(&s.window_clause, visit)?;
        self.nodes(&s.values_lists, visit)?;
        self.nodes(&s.sort_clause, visit)?;
        self.boxed(&s.limit_offset, visit)?;
        self.boxed(&s.limit_count, visit)?;
        self.hidden.truncate(hidden);
        Ok(())
    }

    fn join(&mut self, j: &protobuf::JoinExpr, visit: &mut Visit<'_>) -> Result<(), SqlError> {
        let (left, right) = match JoinType::try_from(j.jointype) {
            Ok(JoinType::JoinLeft) => (false, true),
            Ok(JoinType::JoinRight) => (true, false),
            Ok(JoinType::JoinFull) => (true, true),
            _ => (false, false),
        };
        for (side, outer) in [(&j.larg, left), (&j.rarg, right)] {
            let context = if outer && self.context == Context::Allowed { Context::OuterJoin } else { self.context };
            self.within(context, |w| w.boxed(side, visit))?;
        }
        self.boxed(&j.quals, visit)
    }

    /// A table name.
    fn target(&mut self, r: Option<&protobuf::RangeVar>, visit: &mut Visit<'_>) -> Result<(), SqlError> {
        match r {
            Some(r) if r.schemaname.is_empty() && !self.hidden.contains(&r.relname) => visit(&r.relname, r.location, self.context),
            _ => Ok(()),
        }
    }

    fn window(&mut self, w: &protobuf::WindowDef, visit: &mut Visit<'_>) -> Result<(), SqlError> {
        self.nodes(&w.partition_clause, visit)?;
        self.nodes(&w.order_clause, visit)?;
        self.boxed(&w.start_offset, visit)?;
        self.boxed(&w.end_offset, visit)
    }

    fn any(&mut self, node: &NodeEnum, visit: &mut Visit<'_>) -> Result<(), SqlError> {
        stack::check()?;
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest holds no table names")]
        match node {
            NodeEnum::RangeVar(r) => self.target(Some(r), visit),
            NodeEnum::SelectStmt(s) => self.select(s, visit),
            NodeEnum::InsertStmt(s) => {
                let hidden = self.hidden.len();
                self.with(s.with_clause.as_ref(), visit)?;
                self.target(s.relation.as_ref(), visit)?;
                self.boxed(&s.select_stmt, visit)?;
                if let Some(c) = &s.on_conflict_clause {
                    self.nodes(&c.target_list, visit)?;
                    self.boxed(&c.where_clause, visit)?;
                }
                self.nodes(&s.returning_list, visit)?;
                self.hidden.truncate(hidden);
                Ok(())
            }
            NodeEnum::UpdateStmt(s) => {
                let hidden = self.hidden.len();
                self.with(s.with_clause.as_ref(), visit)?;
                self.target(s.relation.as_ref(), visit)?;
                self.nodes(&s.target_list, visit)?;
                self.boxed(&s.where_clause, visit)?;
                self.nodes(&s.from_clause, visit)?;
                self.nodes(&s.returning_list, visit)?;
                self.hidden.truncate(hidden);
                Ok(())
            }
            NodeEnum::DeleteStmt(s) => {
                let hidden = self.hidden.len();
                self.with(s.with_clause.as_ref(), visit)?;
                self.target(s.relation.as_ref(), visit)?;
                self.nodes(&s.using_clause, visit)?;
                self.boxed(&s.where_clause, visit)?;
                self.nodes(&s.returning_list, visit)?;
                self.hidden.truncate(hidden);
                Ok(())
            }
            NodeEnum::CommonTableExpr(c) => self.boxed(&c.ctequery, visit),
            NodeEnum::JoinExpr(j) => self.join(j, visit),
            NodeEnum::SubLink(s) => {
                // It stands by itself: what is around it does not count.
                self.within(Context::Sublink, |w| w.boxed(&s.subselect, visit))?;
                self.boxed(&s.testexpr, visit)
            }
            NodeEnum::RangeSubselect(s) => self.boxed(&s.subquery, visit),
            NodeEnum::RangeFunction(f) => self.nodes(&f.functions, visit),
            NodeEnum::RangeTableSample(s) => {
                self.boxed(&s.relation, visit)?;
                self.nodes(&s.args, visit)?;
                self.boxed(&s.repeatable, visit)
            }
            NodeEnum::List(l) => self.nodes(&l.items, visit),
            NodeEnum::ResTarget(t) => {
                self.nodes(&t.indirection, visit)?;
                self.boxed(&t.val, visit)
            }
            NodeEnum::AExpr(e) => {
                self.boxed(&e.lexpr, visit)?;
                self.boxed(&e.rexpr, visit)
            }
            NodeEnum::BoolExpr(e) => self.nodes(&e.args, visit),
            NodeEnum::FuncCall(f) => {
                self.nodes(&f.args, visit)?;
                self.nodes(&f.agg_order, visit)?;
                self.boxed(&f.agg_filter, visit)?;
                f.over.as_ref().map_or(Ok(()), |w| self.window(w, visit))
            }
            NodeEnum::WindowDef(w) => self.window(w, visit),
            NodeEnum::NamedArgExpr(a) => self.boxed(&a.arg, visit),
            NodeEnum::TypeCast(c) => self.boxed(&c.arg, visit),
            NodeEnum::CollateClause(c) => self.boxed(&c.arg, visit),
            NodeEnum::CaseExpr(c) => {
                self.boxed(&c.arg, visit)?;
                self.nodes(&c.args, visit)?;
                self.boxed(&c.defresult, visit)
            }
            NodeEnum::CaseWhen(c) => {
                self.boxed(&c.expr, visit)?;
                self.boxed(&c.result, visit)
            }
            NodeEnum::CoalesceExpr(c) => self.nodes(&c.args, visit),
            NodeEnum::MinMaxExpr(m) => self.nodes(&m.args, visit),
            NodeEnum::RowExpr(r) => self.nodes(&r.args, visit),
            NodeEnum::AArrayExpr(a) => self.nodes(&a.elements, visit),
            NodeEnum::AIndirection(i) => {
                self.boxed(&i.arg, visit)?;
                self.nodes(&i.indirection, visit)
            }
            NodeEnum::AIndices(i) => {
                self.boxed(&i.lidx, visit)?;
                self.boxed(&i.uidx, visit)
            }
            NodeEnum::NullTest(t) => self.boxed(&t.arg, visit),
            NodeEnum::BooleanTest(t) => self.boxed(&t.arg, visit),
            NodeEnum::MultiAssignRef(m) => self.boxed(&m.source, visit),
            NodeEnum::SortBy(s) => self.boxed(&s.node, visit),
            NodeEnum::GroupingSet(g) => self.nodes(&g.content, visit),
            NodeEnum::GroupingFunc(g) => self.nodes(&g.args, visit),
            _ => Ok(()),
        }
    }
}
