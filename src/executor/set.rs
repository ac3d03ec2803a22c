//! Nodes over whole sets: append, distinct, set operations, WITH queries.

use std::sync::Arc;

use hashbrown::HashTable;

use super::eval::{Exec, Row};
use super::hash::{hash_values, same_rows, same_value};
use super::node::{Node, build};
use super::plan::{PlanNode, PlanOp, SetOpKind};
use super::row_store::{RowStore, SharedRows, shared, work_mem};
use super::spill::{Aside, read_row, write_row};
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
    fn find_hashed(&self, hash: u64, row: &[Datum]) -> Option<usize> {
        self.table.find(hash, |i| self.rows.get(*i).is_some_and(|r| same_rows(r, row))).copied()
    }

    /// The number of a row that is new.
    fn insert_hashed(&mut self, hash: u64, row: &[Datum]) -> usize {
        let i = self.rows.len();
        self.rows.push(row.to_vec());
        let rows = &self.rows;
        self.table.insert_unique(hash, i, |i| rows.get(*i).map_or(0, |r| hash_values(r.iter())));
        i
    }
}

/// Rows seen, as short as they can be kept: WITH RECURSIVE has no use for them but to know them again, and no moment to set some aside, for each
/// row's place in the result depends on all before it. PostgreSQL keeps them in memory too (nodeRecursiveunion.c).
#[derive(Default)]
struct Known {
    /// As in temporary files, in chunks, so that growing moves nothing.
    chunks: Vec<Vec<u8>>,
    /// Hash, chunk and place of each.
    table: HashTable<(u64, u32, u32)>,
}

impl Known {
    const CHUNK: usize = 1 << 20;

    /// Whether a row is new.
    fn insert(&mut self, row: &[Datum]) -> Result<bool, SqlError> {
        let hash = hash_values(row);
        let mut failed = None;
        let found = self.table.find(hash, |(h, chunk, at)| {
            let chunk = || self.chunks.get(usize::try_from(*chunk).ok()?)?.get(usize::try_from(*at).ok()?..);
            *h == hash
                && match chunk().map(|mut bytes| read_row(&mut bytes)) {
                    Some(Ok(Some(known))) => same_rows(&known, row),
                    Some(Err(e)) => {
                        failed = Some(e);
                        false
                    }
                    Some(Ok(None)) | None => false,
                }
        });
        if let Some(e) = failed {
            return Err(e);
        }
        if found.is_some() {
            return Ok(false);
        }
        if self.chunks.last().is_none_or(|c| c.len() >= Self::CHUNK) {
            self.chunks.push(Vec::with_capacity(if self.chunks.is_empty() { 0 } else { Self::CHUNK + 1024 }));
        }
        let many = |_| SqlError::internal("too many rows in WITH RECURSIVE");
        let number = u32::try_from(self.chunks.len() - 1).map_err(many)?;
        let Some(chunk) = self.chunks.last_mut() else { return Err(wrong_plan()) };
        let at = u32::try_from(chunk.len()).map_err(many)?;
        write_row(chunk, row)?;
        self.table.insert_unique(hash, (hash, number, at), |(hash, ..)| *hash);
        Ok(true)
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
            self.bytes += super::hash::row_bytes(out) + 32;
            self.seen.insert_hashed(hash, out);
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

/// INTERSECT and EXCEPT: how often each row is on the left, and on the right.
///
/// Once the table of the left side's rows is full, rows that are not in it are set aside by hash: those of the left side, and of the right side those
/// that might be equal to one of them. They are read again when the table's rows are done with.
pub(super) struct SetOpNode {
    plan: Arc<PlanNode>,
    left: Box<dyn Node>,
    right: Box<dyn Node>,
    seen: Seen,
    counts: Vec<(u64, u64)>,
    bytes: usize,
    aside: Aside,
    /// The row of the table to give out, and how often it was; `None` before the table is made.
    at: Option<(usize, u64)>,
}

impl SetOpNode {
    pub(super) fn new(plan: Arc<PlanNode>, left: Box<dyn Node>, right: Box<dyn Node>) -> Self {
        Self { plan, left, right, seen: Seen::default(), counts: Vec::new(), bytes: 0, aside: Aside::default(), at: None }
    }

    /// Counts a row, or sets it aside.
    fn count(&mut self, x: &mut Exec<'_>, row: &mut Row, right: bool, memory: usize) -> Result<(), SqlError> {
        let hash = hash_values(row.iter());
        let at = match self.seen.find_hashed(hash, row) {
            Some(at) => at,
            None if self.bytes > memory && self.aside.can_split() => {
                if !right || self.aside.has_like(hash) {
                    row.push(Datum::Bool(right));
                    self.aside.push(x, hash, row, memory)?;
                }
                return Ok(());
            }
            None if right => return Ok(()),
            None => {
                self.bytes += super::hash::row_bytes(row) + 32;
                self.counts.push((0, 0));
                self.seen.insert_hashed(hash, row)
            }
        };
        if let Some((l, r)) = self.counts.get_mut(at) {
            *if right { r } else { l } += 1;
        }
        Ok(())
    }

    /// Makes the table of the input, or of the next of its parts that were set aside.
    fn fill(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        let memory = super::hash::memory(x);
        self.seen = Seen::default();
        self.counts.clear();
        self.bytes = 0;
        let mut row = Row::new();
        let mut count = 0u32;
        let mut tick = |x: &mut Exec<'_>| {
            count = count.wrapping_add(1);
            if count & 1023 == 0 { x.session.check_cancel() } else { Ok(()) }
        };
        if self.aside.reading() {
            // A part's rows come as they were set aside: those of the left side first.
            while let Some(mut row) = self.aside.next_row()? {
                tick(x)?;
                let Some(Datum::Bool(right)) = row.pop() else { return Err(wrong_plan()) };
                self.count(x, &mut row, right, memory)?;
            }
        } else {
            while self.left.next(x, &mut row)? {
                tick(x)?;
                self.count(x, &mut row, false, memory)?;
            }
            while self.right.next(x, &mut row)? {
                tick(x)?;
                self.count(x, &mut row, true, memory)?;
            }
        }
        self.aside.note(x, self.plan.id, self.bytes);
        self.at = Some((0, 0));
        Ok(())
    }
}

impl Node for SetOpNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let plan = Arc::clone(&self.plan);
        let PlanOp::SetOp(s) = &plan.op else { return Err(wrong_plan()) };
        out.clear();
        loop {
            let (at, given) = match self.at {
                Some(at) => at,
                None => {
                    self.fill(x)?;
                    (0, 0)
                }
            };
            let Some((row, (l, r))) = self.seen.rows.get(at).zip(self.counts.get(at).copied()) else {
                if !self.aside.open_next() {
                    return Ok(false);
                }
                self.at = None;
                continue;
            };
            let wanted = match (s.kind, s.all) {
                (SetOpKind::Intersect, true) => l.min(r),
                (SetOpKind::Intersect, false) => u64::from(r > 0),
                (_, true) => l.saturating_sub(r),
                (_, false) => u64::from(r == 0),
            };
            if given < wanted {
                self.at = Some((at, given + 1));
                out.extend_from_slice(row);
                return Ok(true);
            }
            self.at = Some((at + 1, 0));
        }
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.at = None;
        self.aside = Aside::default();
        self.left.rescan(x)?;
        self.right.rescan(x)
    }
}

/// WITH RECURSIVE.
pub(super) struct RecursiveNode {
    plan: Arc<PlanNode>,
    left: Box<dyn Node>,
    right: Box<dyn Node>,
    known: Known,
    next_turn: Option<RowStore>,
    in_right: bool,
}

impl RecursiveNode {
    pub(super) fn new(plan: Arc<PlanNode>, left: Box<dyn Node>, right: Box<dyn Node>) -> Self {
        Self { plan, left, right, known: Known::default(), next_turn: None, in_right: false }
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
                if *distinct && !self.known.insert(out)? {
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
        self.known = Known::default();
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
