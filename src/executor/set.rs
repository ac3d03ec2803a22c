//! Nodes over whole sets: append, distinct, set operations, WITH queries.

use std::sync::Arc;

use hashbrown::HashTable;

use super::eval::{Exec, Row};
use super::hash::{hash_values, same_rows, same_value};
use super::node::{Node, build};
use super::plan::{PlanNode, PlanOp, SetOpKind};
use super::row_store::{RowStore, SharedRows, shared, work_mem};
use super::spill::Aside;
use crate::sql::types::Datum;
use crate::sqlstate::SqlError;

fn wrong_plan() -> SqlError {
    SqlError::internal("a node got another node's plan")
}

/// Children one after the other.
pub(super) struct AppendNode {
    children: Vec<Box<dyn Node>>,
    at: usize,
}

impl AppendNode {
    pub(super) fn new(children: Vec<Box<dyn Node>>) -> Self {
        Self { children, at: 0 }
    }
}

impl Node for AppendNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        while let Some(child) = self.children.get_mut(self.at) {
            if child.next(x, out)? {
                return Ok(true);
            }
            self.at += 1;
        }
        out.clear();
        Ok(false)
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.at = 0;
        self.children.iter_mut().try_for_each(|c| c.rescan(x))
    }
}

/// Drops rows equal to the one before.
pub(super) struct UniqueNode {
    plan: Arc<PlanNode>,
    child: Box<dyn Node>,
    last: Row,
}

impl UniqueNode {
    pub(super) fn new(plan: Arc<PlanNode>, child: Box<dyn Node>) -> Self {
        Self { plan, child, last: Row::new() }
    }
}

impl Node for UniqueNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let PlanOp::Unique(_, columns) = &self.plan.op else { return Err(wrong_plan()) };
        while self.child.next(x, out)? {
            let same = !self.last.is_empty()
                && columns.iter().all(|c| match (self.last.get(*c), out.get(*c)) {
                    (Some(a), Some(b)) => same_value(a, b),
                    _ => false,
                });
            if !same {
                self.last.clone_from(out);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.last.clear();
        self.child.rescan(x)
    }
}

/// Rows seen, by value.
#[derive(Default)]
struct Seen {
    rows: Vec<Row>,
    table: HashTable<usize>,
}

impl Seen {
    fn find(&self, row: &[Datum]) -> Option<usize> {
        self.find_hashed(hash_values(row), row)
    }

    fn find_hashed(&self, hash: u64, row: &[Datum]) -> Option<usize> {
        self.table.find(hash, |i| self.rows.get(*i).is_some_and(|r| same_rows(r, row))).copied()
    }

    /// Its number, and whether it is new.
    fn insert(&mut self, row: &[Datum]) -> (usize, bool) {
        if let Some(i) = self.find(row) {
            return (i, false);
        }
        let i = self.rows.len();
        self.rows.push(row.to_vec());
        let rows = &self.rows;
        self.table.insert_unique(hash_values(row), i, |i| rows.get(*i).map_or(0, |r| hash_values(r.iter())));
        (i, true)
    }
}

/// Distinct rows.
pub(super) struct HashUniqueNode {
    plan: Arc<PlanNode>,
    child: Box<dyn Node>,
    seen: Seen,
    bytes: usize,
    memory: Option<usize>,
    aside: Aside,
    count: u32,
}

impl HashUniqueNode {
    pub(super) fn new(plan: Arc<PlanNode>, child: Box<dyn Node>) -> Self {
        Self { plan, child, seen: Seen::default(), bytes: 0, memory: None, aside: Aside::default(), count: 0 }
    }
}

impl Node for HashUniqueNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let memory = *self.memory.get_or_insert_with(|| super::hash::memory(x));
        loop {
            let found = if self.aside.reading() {
                match self.aside.next_row()? {
                    Some(row) => {
                        *out = row;
                        true
                    }
                    None => false,
                }
            } else {
                self.child.next(x, out)?
            };
            if !found {
                self.aside.note(x, self.plan.id, self.bytes);
                if !self.aside.open_next() {
                    out.clear();
                    return Ok(false);
                }
                self.seen = Seen::default();
                self.bytes = 0;
                continue;
            }
            self.count = self.count.wrapping_add(1);
            if self.count & 1023 == 0 {
                x.session.check_cancel()?;
            }
            let hash = hash_values(out.iter());
            if self.seen.find_hashed(hash, out).is_some() {
                continue;
            }
            // A full table takes no more rows: the others wait until it is empty again.
            if self.bytes > memory && !self.seen.rows.is_empty() && self.aside.can_split() {
                self.aside.push(x, hash, out, memory)?;
                continue;
            }
            self.bytes += super::hash::row_bytes(out) + 16;
            self.seen.insert(out);
            return Ok(true);
        }
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.seen = Seen::default();
        self.aside = Aside::default();
        self.bytes = 0;
        self.child.rescan(x)
    }
}

/// INTERSECT and EXCEPT.
pub(super) struct SetOpNode {
    plan: Arc<PlanNode>,
    left: Box<dyn Node>,
    right: Box<dyn Node>,
    result: Option<std::vec::IntoIter<(Row, usize)>>,
    pending: Option<(Row, usize)>,
}

impl SetOpNode {
    pub(super) fn new(plan: Arc<PlanNode>, left: Box<dyn Node>, right: Box<dyn Node>) -> Self {
        Self { plan, left, right, result: None, pending: None }
    }

    fn compute(&mut self, x: &mut Exec<'_>) -> Result<Vec<(Row, usize)>, SqlError> {
        let PlanOp::SetOp(s) = &self.plan.op else { return Err(wrong_plan()) };
        let mut seen = Seen::default();
        let mut counts: Vec<(usize, usize)> = Vec::new();
        let mut row = Row::new();
        while self.left.next(x, &mut row)? {
            x.session.check_cancel()?;
            let (i, new) = seen.insert(&row);
            if new {
                counts.push((0, 0));
            }
            if let Some(c) = counts.get_mut(i) {
                c.0 += 1;
            }
        }
        while self.right.next(x, &mut row)? {
            x.session.check_cancel()?;
            if let Some(c) = seen.find(&row).and_then(|i| counts.get_mut(i)) {
                c.1 += 1;
            }
        }
        Ok(seen
            .rows
            .into_iter()
            .zip(counts)
            .filter_map(|(row, (l, r))| {
                let n = match (s.kind, s.all) {
                    (SetOpKind::Intersect, true) => l.min(r),
                    (SetOpKind::Intersect, false) => usize::from(r > 0),
                    (_, true) => l.saturating_sub(r),
                    (_, false) => usize::from(r == 0),
                };
                (n > 0).then_some((row, n))
            })
            .collect())
    }
}

impl Node for SetOpNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        if self.result.is_none() {
            let rows = self.compute(x)?;
            self.result = Some(rows.into_iter());
        }
        if self.pending.is_none() {
            self.pending = self.result.as_mut().and_then(Iterator::next);
        }
        out.clear();
        let Some((row, n)) = &mut self.pending else { return Ok(false) };
        out.extend_from_slice(row);
        *n -= 1;
        if *n == 0 {
            self.pending = None;
        }
        Ok(true)
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.result = None;
        self.pending = None;
        self.left.rescan(x)?;
        self.right.rescan(x)
    }
}

/// WITH RECURSIVE.
pub(super) struct RecursiveNode {
    plan: Arc<PlanNode>,
    left: Box<dyn Node>,
    right: Box<dyn Node>,
    seen: Seen,
    next_turn: Option<RowStore>,
    in_right: bool,
}

impl RecursiveNode {
    pub(super) fn new(plan: Arc<PlanNode>, left: Box<dyn Node>, right: Box<dyn Node>) -> Self {
        Self { plan, left, right, seen: Seen::default(), next_turn: None, in_right: false }
    }
}

impl Node for RecursiveNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let plan = self.plan.clone();
        let PlanOp::RecursiveUnion { number, turn, distinct, .. } = &plan.op else { return Err(wrong_plan()) };
        loop {
            x.session.check_cancel()?;
            let found = if self.in_right { self.right.next(x, out)? } else { self.left.next(x, out)? };
            if found {
                if *distinct && !self.seen.insert(out).1 {
                    continue;
                }
                self.next_turn.get_or_insert_with(|| RowStore::new(work_mem(x))).push(x, out.clone())?;
                return Ok(true);
            }
            let Some(rows) = self.next_turn.take() else { return Ok(false) };
            if let Some(table) = x.state.working.get_mut(*number) {
                *table = shared(rows);
            }
            if let Some(slot) = x.state.exec.get_mut(*turn) {
                *slot = Datum::Int8(if let Datum::Int8(n) = slot { *n + 1 } else { 0 });
            }
            self.right.rescan(x)?;
            self.in_right = true;
        }
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.seen = Seen::default();
        self.next_turn = None;
        self.in_right = false;
        self.left.rescan(x)
    }
}

/// Rows of a working table.
pub(super) struct WorkingScanNode {
    number: usize,
    rows: Option<SharedRows>,
    at: usize,
}

impl WorkingScanNode {
    pub(super) fn new(number: usize) -> Self {
        Self { number, rows: None, at: 0 }
    }
}

impl Node for WorkingScanNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let rows = self.rows.get_or_insert_with(|| x.state.working.get(self.number).cloned().unwrap_or_default());
        out.clear();
        let mut rows = rows.lock();
        let Some(row) = rows.get(self.at)? else { return Ok(false) };
        self.at += 1;
        out.extend_from_slice(row);
        Ok(true)
    }

    fn rescan(&mut self, _x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.rows = None;
        self.at = 0;
        Ok(())
    }
}

/// Rows of a WITH query, computed as far as anybody asked.
pub(super) struct CteScanNode {
    number: usize,
    at: usize,
}

impl CteScanNode {
    pub(super) fn new(number: usize) -> Self {
        Self { number, at: 0 }
    }
}

/// One more row of a WITH query, appended to its rows; false at its end.
pub(super) fn pull_cte(x: &mut Exec<'_>, number: usize) -> Result<bool, SqlError> {
    let stmt = x.state.plan()?.clone();
    let cte = stmt.ctes.get(number).ok_or_else(wrong_plan)?;
    let slots: Vec<Datum> = cte.deps.iter().map(|d| x.state.exec.get(*d).cloned().unwrap_or_default()).collect();
    let state = x.state.ctes.get_mut(number).ok_or_else(wrong_plan)?;
    if state.started && !same_rows(&slots, &state.slots) {
        *state = super::eval::CteState::default();
    }
    if state.done {
        return Ok(false);
    }
    let mut node = match state.node.take() {
        Some(node) => node,
        None if state.started => return Err(SqlError::internal("WITH query refers to itself while it runs")),
        None => {
            state.started = true;
            state.slots = slots;
            let rows = shared(RowStore::new(work_mem(x)));
            if let Some(state) = x.state.ctes.get_mut(number) {
                state.rows = rows;
            }
            build(&cte.plan, x)?
        }
    };
    let mut row = Row::new();
    // A change in WITH runs to its end before anybody reads its result.
    loop {
        let found = node.next(x, &mut row)?;
        let state = x.state.ctes.get_mut(number).ok_or_else(wrong_plan)?;
        if found {
            let rows = Arc::clone(&state.rows);
            rows.lock().push(x, std::mem::take(&mut row))?;
            if cte.modifies {
                continue;
            }
            if let Some(state) = x.state.ctes.get_mut(number) {
                state.node = Some(node);
            }
            return Ok(true);
        }
        state.done = true;
        return Ok(cte.modifies && state.rows.lock().len() > 0);
    }
}

impl Node for CteScanNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        out.clear();
        let deps_changed = {
            let stmt = x.state.plan()?.clone();
            let cte = stmt.ctes.get(self.number).ok_or_else(wrong_plan)?;
            let state = x.state.ctes.get(self.number).ok_or_else(wrong_plan)?;
            state.started && cte.deps.iter().zip(&state.slots).any(|(d, v)| !x.state.exec.get(*d).is_some_and(|e| same_value(e, v)))
        };
        loop {
            let state = x.state.ctes.get(self.number).ok_or_else(wrong_plan)?;
            if !deps_changed || self.at > 0 {
                if let Some(row) = state.rows.lock().get(self.at)? {
                    self.at += 1;
                    out.extend_from_slice(row);
                    return Ok(true);
                }
                if state.done {
                    return Ok(false);
                }
            }
            if !pull_cte(x, self.number)? {
                let state = x.state.ctes.get(self.number).ok_or_else(wrong_plan)?;
                if self.at >= state.rows.lock().len() {
                    return Ok(false);
                }
            }
            if deps_changed && self.at == 0 {
                let state = x.state.ctes.get(self.number).ok_or_else(wrong_plan)?;
                let mut rows = state.rows.lock();
                let Some(row) = rows.get(0)? else { return Ok(false) };
                self.at = 1;
                out.extend_from_slice(row);
                return Ok(true);
            }
        }
    }

    fn rescan(&mut self, _x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.at = 0;
        Ok(())
    }
}
