//! Nodes that work on one row at a time: expressions, filters, limits.

use std::sync::Arc;

use super::code::Code;
use super::eval::{Exec, Row};
use super::node::Node;
use super::plan::{PlanNode, PlanOp, SetCall, SetItem};
use super::row_store::{RowStore, work_mem};
use crate::sql::functions::{Call, SetRows};
use crate::sql::types::{self, Datum};
use crate::sqlstate::{SqlError, SqlState};

fn wrong_plan() -> SqlError {
    SqlError::internal("a node got another node's plan")
}

/// One row.
pub(super) struct ResultNode {
    plan: Arc<PlanNode>,
    done: bool,
}

impl ResultNode {
    pub(super) fn new(plan: Arc<PlanNode>) -> Self {
        Self { plan, done: false }
    }
}

impl Node for ResultNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        out.clear();
        if self.done {
            return Ok(false);
        }
        self.done = true;
        let PlanOp::Result { exprs, condition } = &self.plan.op else { return Err(wrong_plan()) };
        if let Some(c) = condition
            && !c.holds(x, &[])?
        {
            return Ok(false);
        }
        for e in exprs {
            let v = e.eval(x, &[])?;
            out.push(v);
        }
        Ok(true)
    }

    fn rescan(&mut self, _x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.done = false;
        Ok(())
    }
}

/// Rows if a condition decided once holds.
pub(super) struct GateNode {
    plan: Arc<PlanNode>,
    child: Box<dyn Node>,
    open: Option<bool>,
}

impl GateNode {
    pub(super) fn new(plan: Arc<PlanNode>, child: Box<dyn Node>) -> Self {
        Self { plan, child, open: None }
    }
}

impl Node for GateNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let open = match self.open {
            Some(open) => open,
            None => {
                let PlanOp::Gate(_, condition) = &self.plan.op else { return Err(wrong_plan()) };
                let open = condition.holds(x, &[])?;
                self.open = Some(open);
                open
            }
        };
        if open { self.child.next(x, out) } else { Ok(false) }
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.open = None;
        self.child.rescan(x)
    }

    fn bound(&mut self, rows: u64) {
        self.child.bound(rows);
    }
}

/// Rows for which a condition holds.
pub(super) struct FilterNode {
    plan: Arc<PlanNode>,
    child: Box<dyn Node>,
}

impl FilterNode {
    pub(super) fn new(plan: Arc<PlanNode>, child: Box<dyn Node>) -> Self {
        Self { plan, child }
    }
}

impl Node for FilterNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let PlanOp::Filter(_, condition) = &self.plan.op else { return Err(wrong_plan()) };
        while self.child.next(x, out)? {
            if condition.holds(x, out)? {
                return Ok(true);
            }
            removed(x, self.plan.id);
        }
        Ok(false)
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.child.rescan(x)
    }
}

/// Counts a filtered row for EXPLAIN ANALYZE.
pub(super) fn removed(x: &mut Exec<'_>, id: usize) {
    if let Some(s) = x.state.stats.as_mut().and_then(|s| s.get_mut(id)) {
        s.removed += 1;
    }
}

/// Other values.
pub(super) struct ProjectNode {
    plan: Arc<PlanNode>,
    child: Box<dyn Node>,
    row: Row,
    /// Columns handed on may be packed.
    packed: bool,
}

impl ProjectNode {
    pub(super) fn new(plan: Arc<PlanNode>, child: Box<dyn Node>, packed: bool) -> Self {
        Self { plan, child, row: Row::new(), packed }
    }
}

impl Node for ProjectNode {
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let PlanOp::Project(_, exprs) = &self.plan.op else { return Err(wrong_plan()) };
        out.clear();
        if !self.child.next(x, &mut self.row)? {
            return Ok(false);
        }
        for e in exprs {
            out.push(match e {
                Code::Column(i) if self.packed => self.row.get(*i).cloned().unwrap_or_default(),
                e => e.eval(x, &self.row)?,
            });
        }
        Ok(true)
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.child.rescan(x)
    }

    fn bound(&mut self, rows: u64) {
        self.child.bound(rows);
    }
}

/// Starts a set.
pub(super) fn call_set(x: &mut Exec<'_>, call: &SetCall, row: &[Datum]) -> Result<SetRows, SqlError> {
    match call.func {
        Some(func) => {
            let args = call.args.iter().map(|a| a.eval(x, row)).collect::<Result<smallvec::SmallVec<[Datum; 4]>, _>>()?;
            func.invoke_set(&mut Call { ctx: x.session, types: &call.types }, &args)
        }
        None => {
            let v = match call.args.first() {
                Some(a) => a.eval(x, row)?,
                None => Datum::Null,
            };
            Ok(Box::new(std::iter::once(Ok(v))))
        }
    }
}

/// Sets in a select list: all run side by side, shorter ones end in NULLs.
pub(super) struct ProjectSetNode {
    plan: Arc<PlanNode>,
    child: Box<dyn Node>,
    row: Row,
    sets: Vec<Option<SetRows>>,
    values: Row,
    active: bool,
}

impl ProjectSetNode {
    pub(super) fn new(plan: Arc<PlanNode>, child: Box<dyn Node>) -> Self {
        Self { plan, child, row: Row::new(), sets: Vec::new(), values: Row::new(), active: false }
    }
}

impl Node for ProjectSetNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let PlanOp::ProjectSet(_, items) = &self.plan.op else { return Err(wrong_plan()) };
        loop {
            out.clear();
            if !self.active {
                if !self.child.next(x, &mut self.row)? {
                    return Ok(false);
                }
                self.sets.clear();
                self.values.clear();
                for item in items {
                    match item {
                        SetItem::Value(code) => {
                            self.values.push(code.eval(x, &self.row)?);
                            self.sets.push(None);
                        }
                        SetItem::Set(call) => {
                            self.sets.push(Some(call_set(x, call, &self.row)?));
                            self.values.push(Datum::Null);
                        }
                    }
                }
                self.active = true;
            }
            x.session.check_cancel()?;
            let mut any = false;
            for (i, set) in self.sets.iter_mut().enumerate() {
                match set {
                    None => out.push(self.values.get(i).cloned().unwrap_or_default()),
                    Some(rows) => match rows.next() {
                        Some(v) => {
                            any = true;
                            out.push(v?);
                        }
                        None => out.push(Datum::Null),
                    },
                }
            }
            if any {
                return Ok(true);
            }
            self.active = false;
        }
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.active = false;
        self.sets.clear();
        self.child.rescan(x)
    }
}

/// Keeps its child's rows for rescans, in memory up to `work_mem`.
pub(super) struct MaterializeNode {
    plan: Arc<PlanNode>,
    child: Box<dyn Node>,
    rows: Option<RowStore>,
    at: usize,
    complete: bool,
}

impl MaterializeNode {
    pub(super) fn new(plan: Arc<PlanNode>, child: Box<dyn Node>) -> Self {
        Self { plan, child, rows: None, at: 0, complete: false }
    }
}

impl Node for MaterializeNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let rows = self.rows.get_or_insert_with(|| RowStore::new(work_mem(x)));
        if let Some(row) = rows.get(self.at)? {
            self.at += 1;
            out.clear();
            out.extend_from_slice(row);
            return Ok(true);
        }
        if self.complete {
            return Ok(false);
        }
        if self.child.next(x, out)? {
            rows.push(x, out.clone())?;
            self.at += 1;
            return Ok(true);
        }
        self.complete = true;
        Ok(false)
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.at = 0;
        if self.plan.correlated {
            if let Some(rows) = &mut self.rows {
                rows.clear();
            }
            self.complete = false;
            self.child.rescan(x)?;
        }
        Ok(())
    }
}

/// LIMIT and OFFSET.
pub(super) struct LimitNode {
    plan: Arc<PlanNode>,
    child: Box<dyn Node>,
    started: bool,
    skip: u64,
    left: Option<u64>,
    last: Row,
}

impl LimitNode {
    pub(super) fn new(plan: Arc<PlanNode>, child: Box<dyn Node>) -> Self {
        Self { plan, child, started: false, skip: 0, left: None, last: Row::new() }
    }
}

impl Node for LimitNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let PlanOp::Limit(l) = &self.plan.op else { return Err(wrong_plan()) };
        if !self.started {
            self.started = true;
            self.skip = 0;
            self.left = None;
            if let Some(c) = &l.offset
                && let Datum::Int8(n) = c.eval(x, &[])?
            {
                self.skip = u64::try_from(n)
                    .map_err(|_| SqlError::new(SqlState::INVALID_ROW_COUNT_IN_RESULT_OFFSET_CLAUSE, "OFFSET must not be negative"))?;
            }
            if let Some(c) = &l.limit
                && let Datum::Int8(n) = c.eval(x, &[])?
            {
                let n = u64::try_from(n)
                    .map_err(|_| SqlError::new(SqlState::INVALID_ROW_COUNT_IN_LIMIT_CLAUSE, "LIMIT must not be negative"))?;
                self.left = Some(n);
                if l.ties.is_none() {
                    self.child.bound(n.saturating_add(self.skip));
                }
            }
        }
        if self.left == Some(0) {
            let Some(ties) = &l.ties else { return Ok(false) };
            if self.last.is_empty() || !self.child.next(x, out)? {
                return Ok(false);
            }
            return Ok(ties.iter().all(|c| match (self.last.get(*c), out.get(*c)) {
                (Some(a), Some(b)) => types::compare(a, b).is_eq(),
                _ => false,
            }));
        }
        while self.skip > 0 {
            if !self.child.next(x, out)? {
                self.left = Some(0);
                self.last.clear();
                return Ok(false);
            }
            self.skip -= 1;
        }
        if !self.child.next(x, out)? {
            return Ok(false);
        }
        if let Some(n) = &mut self.left {
            *n -= 1;
            if *n == 0 && l.ties.is_some() {
                self.last.clone_from(out);
            }
        }
        Ok(true)
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.started = false;
        self.last.clear();
        self.child.rescan(x)
    }
}
