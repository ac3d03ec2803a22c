//! The planner's state, and planning of one query level.

use std::collections::BTreeSet;
use std::sync::Arc;

use afterimage_wal::ids::{RelId, Xid};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::executor::SessionContext;
use crate::executor::plan::{self, Command, NodeText, PlanNode, PlanOp, PlannedStmt, RelationUse, Scan, Subplan, TextValue};
use crate::sql::bind::expr::{Expr, ExprKind};
use crate::sql::bind::query::{self, Query, RteSource, SetOpKind, SetOpTree};
use crate::sql::catalog::relation::Source;
use crate::sql::types::{Oid, type_by_oid};
use crate::sqlstate::{SqlError, SqlState};

/// Exec slots a node reads that are set outside of it.
pub type Deps = BTreeSet<usize>;

/// Plans one statement.
pub struct Planner<'a> {
    /// Catalogs, settings, relation sizes, constant folding.
    pub session: &'a mut SessionContext,
    /// Descriptions for EXPLAIN are wanted.
    pub explain: bool,
    /// Subplans so far; `None` while one is being planned.
    pub subplans: Vec<Option<Subplan>>,
    /// Deps of each subplan.
    pub subplan_deps: Vec<Deps>,
    /// Materialised WITH queries so far.
    pub ctes: Vec<Option<plan::Cte>>,
    /// Exec slots so far.
    pub slots: usize,
    /// Nodes so far.
    pub nodes: usize,
    /// Scans so far.
    pub scans: usize,
    /// Query levels, innermost last.
    pub levels: Vec<Level>,
    /// Relations used.
    pub relations: Vec<(Oid, RelationUse)>,
    /// Outer sides of the nested loops being built around what is built now.
    pub nests: Vec<Nest>,
    /// Where `SubColumn`s are, while a quantified test is compiled.
    pub sub_columns: Vec<usize>,
    /// Recursive queries being planned, innermost last.
    pub working: Vec<Working>,
    /// It calls nothing that is not marked PARALLEL SAFE.
    pub parallel_safe: bool,
    /// Makers of indexes that only snapshots which see them may use.
    pub young: Vec<Xid>,
    /// There were such indexes that must not be used now.
    pub passed_over: bool,
}

/// One query level while it is planned.
#[derive(Default)]
pub struct Level {
    /// Outer references subqueries made to this level: expression and slot. Taken by whoever runs the subquery.
    pub requests: Vec<(Expr, usize)>,
    /// WITH queries.
    pub ctes: Vec<query::Cte>,
    /// Number in `Planner::ctes` of those planned so far, with their deps and rows.
    pub cte_numbers: Vec<Option<(usize, Deps, f64)>>,
    /// Names of the range table, for text.
    pub names: Vec<(Arc<str>, Vec<Arc<str>>)>,
    /// How many nests were open when the level began: inner levels do not see them.
    pub nest_base: usize,
    /// Scan number of each range table entry that is scanned.
    pub scan_ids: FxHashMap<usize, usize>,
    /// Columns its scans must yield.
    pub wanted: FxHashMap<usize, Vec<i16>>,
    /// Columns in the order in which they are mentioned, for EXPLAIN.
    pub mentioned: Vec<(usize, i16)>,
    /// Maybe not all of its rows are asked for.
    pub limited: bool,
    /// Its tables have so many columns each, and all of them in a row are shown as the whole row.
    pub rows: Option<usize>,
}

/// A recursive query whose recursive term is being planned.
pub struct Working {
    /// Query level that defines it.
    pub level: usize,
    /// Its index among that level's WITH queries.
    pub cte: usize,
    /// Number of its working table.
    pub number: usize,
    /// Exec slot that counts its turns: what depends on the working table is computed anew when it changes.
    pub turn: usize,
}

/// The outer side of a nested loop.
pub struct Nest {
    /// Its columns.
    pub layout: Layout,
    /// Slots set from them: (slot, column).
    pub params: Vec<(usize, usize)>,
}

/// Where a row's values are.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Table columns.
    pub vars: FxHashMap<(usize, i16), usize>,
    /// Other expressions computed already.
    pub exprs: Vec<(Expr, usize)>,
    /// Values per row.
    pub width: usize,
    /// For GROUPING(): column of the grouping set's number, and the sets.
    pub grouping: Option<(usize, Vec<Vec<usize>>)>,
}

/// A node with what its parents must know.
pub struct Built {
    /// The node.
    pub node: PlanNode,
    /// Its output.
    pub layout: Layout,
    /// Slots it reads.
    pub deps: Deps,
    /// Order of its rows: columns.
    pub order: Vec<plan::SortColumn>,
}

/// A set of range table indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RelSet(SmallVec<[u64; 2]>);

impl RelSet {
    /// One member.
    pub fn one(rt: usize) -> Self {
        let mut s = Self::default();
        s.insert(rt);
        s
    }

    /// Adds a member.
    pub fn insert(&mut self, rt: usize) {
        let word = rt / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(w) = self.0.get_mut(word) {
            *w |= 1 << (rt % 64);
        }
    }

    /// Is it a member?
    pub fn contains(&self, rt: usize) -> bool {
        self.0.get(rt / 64).is_some_and(|w| w & (1 << (rt % 64)) != 0)
    }

    /// Both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut s = self.clone();
        if s.0.len() < other.0.len() {
            s.0.resize(other.0.len(), 0);
        }
        for (a, b) in s.0.iter_mut().zip(&other.0) {
            *a |= b;
        }
        s
    }

    /// Are all members in `other`?
    pub fn subset(&self, other: &Self) -> bool {
        self.0.iter().enumerate().all(|(i, w)| w & !other.0.get(i).copied().unwrap_or(0) == 0)
    }

    /// Any in both?
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|w| *w == 0)
    }

    /// Members not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut s = self.clone();
        for (a, b) in s.0.iter_mut().zip(&other.0) {
            *a &= !b;
        }
        s
    }
}

/// Plans a bound statement.
///
/// # Errors
/// What PostgreSQL's planner refuses, and features this one does not have.
pub fn plan(session: &mut SessionContext, query: &Query, explain: bool, privileges: Vec<(Oid, u8)>) -> Result<PlannedStmt, SqlError> {
    let mut p = Planner { explain, ..Planner::bare(session) };
    let built = p.query(query, None)?;
    let columns = result_columns(query);
    let command = match query.command {
        query::Command::Select => Command::Select,
        query::Command::Insert => Command::Insert,
        query::Command::Update => Command::Update,
        query::Command::Delete => Command::Delete,
        query::Command::Merge => Command::Merge,
    };
    let subplans = p.subplans.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| SqlError::internal("unfinished subplan"))?;
    let ctes = p.ctes.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| SqlError::internal("unfinished WITH query"))?;
    let modifies = command != Command::Select || ctes.iter().any(|c| c.modifies);
    let parallel_safe = p.parallel_safe && p.relations.iter().all(|(_, how)| *how == RelationUse::Read);
    let mut scanned = Vec::new();
    let short = subplans.is_empty() && ctes.is_empty() && is_short(&built.node, &mut scanned) && scanned.len() <= SHORT_TABLES;
    let short = short.then(|| scanned.into_boxed_slice());
    Ok(PlannedStmt {
        command,
        root: Arc::new(built.node),
        subplans,
        ctes,
        exec_slots: p.slots,
        nodes: p.nodes,
        columns,
        relations: p.relations,
        modifies,
        parallel_safe,
        short,
        privileges,
        young: p.young.into_boxed_slice(),
        passed_over: p.passed_over,
    })
}

/// Joins and the like are short up to this cost: a millisecond or so.
const SHORT_COST: f64 = 100.0;
/// Estimates may be wrong; how many tables are scanned bounds what a wrong one can cost.
const SHORT_TABLES: usize = 2;

/// Whether it cannot take long while the tables it adds to `scanned` are small.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these nodes matter here")]
fn is_short(node: &PlanNode, scanned: &mut Vec<RelId>) -> bool {
    let mut small = |scan: &Scan| match &scan.relation.source {
        Source::File(file) => {
            scanned.push(*file);
            true
        }
        Source::Virtual(_) | Source::View(_) | Source::None => false,
    };
    match &node.op {
        PlanOp::Result { .. } => true,
        PlanOp::SeqScan(s) => small(s),
        PlanOp::IndexScan(s) => s.single || small(&s.scan),
        PlanOp::Values(rows) => rows.len() <= 64,
        PlanOp::Filter(c, _) | PlanOp::Project(c, _) | PlanOp::LockRows(c, _) | PlanOp::Gate(c, _) => is_short(c, scanned),
        PlanOp::Limit(l) => is_short(&l.child, scanned),
        PlanOp::Modify(m) => is_short(&m.child, scanned),
        _ if node.total_cost > SHORT_COST => false,
        PlanOp::Sort(c, _) | PlanOp::Unique(c, _) | PlanOp::HashUnique(c) | PlanOp::Materialize(c) => is_short(c, scanned),
        PlanOp::Aggregate(a) => is_short(&a.child, scanned),
        PlanOp::NestLoop(j) => is_short(&j.left, scanned) && is_short(&j.right, scanned),
        PlanOp::HashJoin(j) => is_short(&j.left, scanned) && is_short(&j.right, scanned),
        PlanOp::MergeJoin(j) => is_short(&j.left, scanned) && is_short(&j.right, scanned),
        _ => false,
    }
}

/// Output columns as RowDescription tells them.
pub fn result_columns(query: &Query) -> Option<Vec<crate::executor::ColumnDesc>> {
    let targets = match query.command {
        query::Command::Select => &query.targets,
        _ if query.returning.is_empty() => return None,
        query::Command::Insert | query::Command::Update | query::Command::Delete | query::Command::Merge => &query.returning,
    };
    Some(
        targets
            .iter()
            .filter(|t| !t.junk)
            .map(|t| crate::executor::ColumnDesc {
                name: t.name.clone(),
                table: t.origin.0,
                attnum: t.origin.1,
                type_oid: t.expr.ty,
                type_len: type_by_oid(t.expr.ty).map_or(-1, |t| t.len),
                typmod: t.expr.typmod,
            })
            .collect(),
    )
}

impl<'a> Planner<'a> {
    /// For single expressions.
    pub fn bare(session: &'a mut SessionContext) -> Self {
        Self {
            session,
            explain: false,
            subplans: Vec::new(),
            subplan_deps: Vec::new(),
            ctes: Vec::new(),
            slots: 0,
            nodes: 0,
            scans: 0,
            levels: Vec::new(),
            relations: Vec::new(),
            nests: Vec::new(),
            sub_columns: Vec::new(),
            working: Vec::new(),
            parallel_safe: true,
            young: Vec::new(),
            passed_over: false,
        }
    }
}

impl Planner<'_> {
    /// A new exec slot.
    pub fn slot(&mut self) -> usize {
        self.slots += 1;
        self.slots - 1
    }

    /// A node.
    pub fn node(&mut self, op: PlanOp, width: usize, rows: f64, costs: (f64, f64), deps: &Deps) -> PlanNode {
        self.nodes += 1;
        PlanNode {
            op,
            width,
            id: self.nodes - 1,
            rows: if rows.is_finite() { rows.max(1.0).round() } else { 1e18 },
            startup_cost: costs.0,
            total_cost: costs.1.max(costs.0),
            row_bytes: u32::try_from(width).unwrap_or(0).saturating_mul(8),
            correlated: !deps.is_empty(),
            explain: None,
        }
    }

    /// Describes a node if EXPLAIN asked.
    pub fn describe(&self, node: &mut PlanNode, text: impl FnOnce(&Self) -> NodeText) {
        if self.explain {
            node.explain = Some(Box::new(text(self)));
        }
    }

    /// The innermost level.
    ///
    /// # Errors
    /// None is open: a defect of the planner.
    pub fn level(&mut self) -> Result<&mut Level, SqlError> {
        self.levels.last_mut().ok_or_else(|| SqlError::internal("no query level"))
    }

    /// Notes that a relation is used.
    pub fn uses(&mut self, oid: Oid, how: RelationUse) {
        match self.relations.iter_mut().find(|(o, _)| *o == oid) {
            Some((_, h)) => *h = (*h).max(how),
            None => self.relations.push((oid, how)),
        }
    }

    /// Plans a query at a new level. `limit`: only so many rows will be wanted.
    ///
    /// # Errors
    /// As [`plan`](fn@plan).
    pub fn query(&mut self, q: &Query, limit: Option<f64>) -> Result<Built, SqlError> {
        crate::stack::check()?;
        let names = if self.explain {
            q.rtable.iter().map(|r| (r.alias.clone(), r.columns.iter().map(|c| c.name.clone()).collect())).collect()
        } else {
            Vec::new()
        };
        self.levels.push(Level {
            ctes: q.ctes.clone(),
            cte_numbers: vec![None; q.ctes.len()],
            names,
            nest_base: self.nests.len(),
            ..Level::default()
        });
        let result = self.query_level(q, limit);
        self.levels.pop();
        result
    }

    fn query_level(&mut self, q: &Query, limit: Option<f64>) -> Result<Built, SqlError> {
        // Changes in WITH run whether or not they are read.
        for i in 0..q.ctes.len() {
            if q.ctes.get(i).is_some_and(|c| c.query.command != query::Command::Select) {
                self.cte_number(self.levels.len() - 1, i)?;
            }
        }
        match q.command {
            query::Command::Select => self.select(q, limit),
            query::Command::Insert => self.insert(q),
            query::Command::Update | query::Command::Delete | query::Command::Merge => self.update_or_delete(q),
        }
    }

    /// Number of a materialised WITH query, planned on first use.
    ///
    /// # Errors
    /// Planning the query failed.
    pub fn cte_number(&mut self, level: usize, index: usize) -> Result<(usize, Deps, f64), SqlError> {
        if let Some(Some(known)) = self.levels.get(level).and_then(|l| l.cte_numbers.get(index)) {
            return Ok(known.clone());
        }
        let Some(cte) = self.levels.get(level).and_then(|l| l.ctes.get(index)).cloned() else {
            return Err(SqlError::internal("WITH query"));
        };
        let number = self.ctes.len();
        self.ctes.push(None);
        // It is planned where it is defined: inner levels and nested loops are out of sight.
        let inner = self.levels.split_off(level + 1);
        let nests = std::mem::take(&mut self.nests);
        let result = match &cte.recursive {
            None => self.query(&cte.query, None),
            Some((term, all)) => self.recursive(&cte, term, *all, level, index, number),
        };
        self.nests = nests;
        self.levels.extend(inner);
        let built = result?;
        let rows = built.node.rows;
        let deps = built.deps.clone();
        let modifies = cte.query.command != query::Command::Select;
        if let Some(slot) = self.ctes.get_mut(number) {
            *slot = Some(plan::Cte { name: cte.name.clone(), plan: Arc::new(built.node), modifies, deps: deps.iter().copied().collect() });
        }
        let known = (number, deps, rows);
        if let Some(slot) = self.levels.get_mut(level).and_then(|l| l.cte_numbers.get_mut(index)) {
            *slot = Some(known.clone());
        }
        Ok(known)
    }

    fn recursive(
        &mut self,
        cte: &query::Cte,
        term: &Query,
        all: bool,
        level: usize,
        index: usize,
        number: usize,
    ) -> Result<Built, SqlError> {
        let left = self.query(&cte.query, None)?;
        let turn = self.slot();
        self.working.push(Working { level, cte: index, number, turn });
        let right = self.query(term, None);
        self.working.pop();
        let right = right?;
        let mut deps = left.deps.clone();
        deps.extend(&right.deps);
        deps.remove(&turn);
        let rows = left.node.rows + 10.0 * right.node.rows;
        let cost = left.node.total_cost + 10.0 * right.node.total_cost;
        let width = cte.columns.len();
        let op = PlanOp::RecursiveUnion { left: Arc::new(left.node), right: Arc::new(right.node), number, turn, distinct: !all };
        let mut node = self.node(op, width, rows, (0.0, cost), &deps);
        self.describe(&mut node, |_| NodeText { node_type: "Recursive Union".into(), ..NodeText::default() });
        Ok(Built { node, layout: Layout { width, ..Layout::default() }, deps, order: Vec::new() })
    }

    /// Plans a set operation tree.
    ///
    /// # Errors
    /// As [`plan`](fn@plan).
    pub fn set_op(&mut self, q: &Query, tree: &SetOpTree) -> Result<Built, SqlError> {
        match tree {
            SetOpTree::Arm(rt) => match q.rtable.get(*rt).map(|r| &r.source) {
                Some(RteSource::Subquery(inner)) => {
                    let built = self.query(inner, None)?;
                    // Requests to this level have nothing to come from: a set operation has no columns of its own.
                    Ok(built)
                }
                _ => Err(SqlError::internal("set operation arm")),
            },
            SetOpTree::Op { kind: SetOpKind::Union, all, .. } => {
                let mut arms = Vec::new();
                self.union_arms(q, tree, *all, &mut arms)?;
                let mut deps = Deps::new();
                let mut rows = 0.0;
                let mut cost = 0.0;
                let width = arms.first().map_or(0, |a| a.node.width);
                let mut children = Vec::with_capacity(arms.len());
                for arm in arms {
                    deps.extend(&arm.deps);
                    rows += arm.node.rows;
                    cost += arm.node.total_cost;
                    children.push(Arc::new(arm.node));
                }
                let mut node = self.node(PlanOp::Append(children), width, rows, (0.0, cost + rows * 0.005), &deps);
                self.describe(&mut node, |_| NodeText { node_type: "Append".into(), ..NodeText::default() });
                if !all {
                    let total = node.total_cost + node.rows * 0.0125;
                    let rows = node.rows;
                    let mut unique = self.node(PlanOp::HashUnique(Arc::new(node)), width, rows, (total, total), &deps);
                    self.describe(&mut unique, |_| NodeText {
                        node_type: "HashAggregate".into(),
                        strategy: Some("Hashed"),
                        ..NodeText::default()
                    });
                    node = unique;
                }
                Ok(Built { node, layout: Layout { width, ..Layout::default() }, deps, order: Vec::new() })
            }
            SetOpTree::Op { kind, all, left, right, .. } => {
                let l = self.set_op(q, left)?;
                let r = self.set_op(q, right)?;
                let mut deps = l.deps.clone();
                deps.extend(&r.deps);
                let width = l.node.width;
                let rows = if *kind == SetOpKind::Intersect { l.node.rows.min(r.node.rows) } else { l.node.rows };
                let cost = l.node.total_cost + r.node.total_cost + (l.node.rows + r.node.rows) * 0.0125;
                let op = PlanOp::SetOp(Box::new(plan::SetOp { kind: *kind, all: *all, left: Arc::new(l.node), right: Arc::new(r.node) }));
                let mut node = self.node(op, width, rows, (cost, cost), &deps);
                let name = match (kind, all) {
                    (SetOpKind::Intersect, false) => "HashSetOp Intersect",
                    (SetOpKind::Intersect, true) => "HashSetOp Intersect All",
                    (_, false) => "HashSetOp Except",
                    (_, true) => "HashSetOp Except All",
                };
                self.describe(&mut node, |_| NodeText { node_type: name.into(), strategy: Some("Hashed"), ..NodeText::default() });
                Ok(Built { node, layout: Layout { width, ..Layout::default() }, deps, order: Vec::new() })
            }
        }
    }

    /// UNIONs of the same kind, flattened.
    fn union_arms(&mut self, q: &Query, tree: &SetOpTree, all: bool, out: &mut Vec<Built>) -> Result<(), SqlError> {
        match tree {
            SetOpTree::Op { kind: SetOpKind::Union, all: a, left, right, .. } if *a == all || !all => {
                self.union_arms(q, left, all, out)?;
                self.union_arms(q, right, all, out)
            }
            other @ SetOpTree::Arm(_) | other @ SetOpTree::Op { .. } => {
                let built = self.set_op(q, other)?;
                out.push(built);
                Ok(())
            }
        }
    }

    /// Takes the requests subqueries made to the innermost level since `from`.
    ///
    /// # Errors
    /// No level is open: a defect of the planner.
    pub fn take_requests(&mut self, from: usize) -> Result<Vec<(Expr, usize)>, SqlError> {
        let level = self.level()?;
        let at = from.min(level.requests.len());
        Ok(level.requests.split_off(at))
    }

    /// The slot for an outer reference `up` levels above.
    ///
    /// # Errors
    /// The reference leads beyond the statement.
    pub fn request(&mut self, up: usize, e: Expr) -> Result<usize, SqlError> {
        let target = self.levels.len().checked_sub(up + 1).ok_or_else(|| SqlError::internal("outer reference beyond the statement"))?;
        if let Some(slot) = self.levels.get(target).and_then(|l| l.requests.iter().find(|(x, _)| x.same(&e))).map(|(_, s)| *s) {
            return Ok(slot);
        }
        let slot = self.slot();
        if let Some(level) = self.levels.get_mut(target) {
            level.requests.push((e, slot));
        }
        Ok(slot)
    }

    /// Finds a column in the outer sides of the nested loops of this level: its slot.
    pub fn nest_slot(&mut self, rt: usize, att: i16) -> Option<usize> {
        let base = self.levels.last().map_or(0, |l| l.nest_base);
        for i in (base..self.nests.len()).rev() {
            let Some(nest) = self.nests.get(i) else { continue };
            let Some(column) = nest.layout.vars.get(&(rt, att)).copied() else { continue };
            if let Some((slot, _)) = nest.params.iter().find(|(_, c)| *c == column) {
                return Some(*slot);
            }
            let slot = self.slot();
            if let Some(nest) = self.nests.get_mut(i) {
                nest.params.push((slot, column));
            }
            return Some(slot);
        }
        None
    }

    /// Lets a nested loop around set the slot of a request for one of its columns.
    ///
    /// # Errors
    /// 0A000: the reference is no column.
    pub fn bind_request(&mut self, e: &Expr, slot: usize) -> Result<(), SqlError> {
        let ExprKind::Var(rt, att, _) = e.kind else {
            return Err(SqlError::unsupported("LATERAL reference to something that is no column"));
        };
        let base = self.levels.last().map_or(0, |l| l.nest_base);
        for i in (base..self.nests.len()).rev() {
            if let Some(nest) = self.nests.get_mut(i)
                && let Some(column) = nest.layout.vars.get(&(rt, att)).copied()
            {
                nest.params.push((slot, column));
                return Ok(());
            }
        }
        Err(SqlError::internal("LATERAL reference without its table"))
    }

    /// An error about an unsupported plan.
    pub fn refuse(what: &str) -> SqlError {
        SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, what)
    }
}

/// A property for EXPLAIN.
pub fn prop(label: &'static str, value: String) -> (&'static str, TextValue) {
    (label, TextValue::Text(value))
}
