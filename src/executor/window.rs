//! Window functions, a partition at a time.

use std::sync::Arc;

use super::eval::{Exec, Row};
use super::hash::same_value;
use super::node::Node;
use super::plan::{FrameEdge, FrameExclude, FrameMode, PlanNode, PlanOp, WindowAgg, WindowBody};
use super::sort::compare_values;
use crate::sql::functions::{Accumulator, Call, WindowFrame};
use crate::sql::types::Datum;
use crate::sqlstate::{SqlError, SqlState};

/// Window functions of one window.
pub(super) struct WindowNode {
    plan: Arc<PlanNode>,
    child: Box<dyn Node>,
    /// First row of the next partition.
    pending: Option<Row>,
    done: bool,
    ready: std::vec::IntoIter<Row>,
    started: bool,
}

/// A partition, its rows' peer groups.
struct Partition {
    rows: Vec<Row>,
    /// Group number of each row.
    group: Vec<usize>,
    /// First row of each group, and the end.
    starts: Vec<usize>,
}

impl Partition {
    fn new(rows: Vec<Row>, w: &WindowAgg) -> Self {
        let mut group = Vec::with_capacity(rows.len());
        let mut starts = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            let same = i > 0
                && w.order.iter().all(|c| match (rows.get(i - 1).and_then(|r| r.get(c.column)), row.get(c.column)) {
                    (Some(a), Some(b)) => same_value(a, b),
                    _ => false,
                });
            if !same {
                starts.push(i);
            }
            group.push(starts.len() - 1);
        }
        starts.push(rows.len());
        Self { rows, group, starts }
    }

    fn group_of(&self, row: usize) -> usize {
        self.group.get(row).copied().unwrap_or(0)
    }

    fn start_of(&self, group: usize) -> usize {
        self.starts.get(group).copied().unwrap_or(self.rows.len())
    }

    fn groups(&self) -> usize {
        self.starts.len() - 1
    }
}

/// Offsets of the frame's edges, evaluated once.
#[derive(Clone)]
struct Offsets {
    start: Datum,
    end: Datum,
}

impl WindowNode {
    pub(super) fn new(plan: Arc<PlanNode>, child: Box<dyn Node>) -> Self {
        Self { plan, child, pending: None, done: false, ready: Vec::new().into_iter(), started: false }
    }

    /// Reads the next partition's rows.
    fn partition(&mut self, x: &mut Exec<'_>, w: &WindowAgg) -> Result<Option<Vec<Row>>, SqlError> {
        if self.done {
            return Ok(None);
        }
        let mut rows: Vec<Row> = Vec::new();
        if let Some(row) = self.pending.take() {
            rows.push(row);
        }
        loop {
            if rows.len() & 1023 == 1023 {
                x.session.check_cancel()?;
            }
            let mut row = Row::new();
            if !self.child.next(x, &mut row)? {
                self.done = true;
                return Ok(if rows.is_empty() { None } else { Some(rows) });
            }
            let same = rows.last().is_none_or(|last| {
                w.partition.iter().all(|c| match (last.get(*c), row.get(*c)) {
                    (Some(a), Some(b)) => same_value(a, b),
                    _ => false,
                })
            });
            if !same {
                self.pending = Some(row);
                return Ok(Some(rows));
            }
            rows.push(row);
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn offset_value(x: &mut Exec<'_>, edge: &FrameEdge, which: &str, mode: FrameMode) -> Result<Datum, SqlError> {
    let (FrameEdge::Preceding(code, _) | FrameEdge::Following(code, _)) = edge else { return Ok(Datum::Null) };
    let v = code.eval(x, &[])?;
    if v.is_null() {
        return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, format!("frame {which} offset must not be null")));
    }
    let negative = match &v {
        Datum::Int2(n) => *n < 0,
        Datum::Int4(n) => *n < 0,
        Datum::Int8(n) => *n < 0,
        Datum::Float4(n) => *n < 0.0 || n.is_nan(),
        Datum::Float8(n) => *n < 0.0 || n.is_nan(),
        Datum::Numeric(n) => n.to_string().starts_with('-'),
        Datum::Interval(i) => i.months < 0 || i.days < 0 || i.micros < 0,
        _ => false,
    };
    if negative {
        let message = if mode == FrameMode::Range {
            "invalid preceding or following size in window function".to_owned()
        } else {
            format!("frame {which} offset must not be negative")
        };
        return Err(SqlError::new(SqlState::INVALID_PRECEDING_OR_FOLLOWING_SIZE, message));
    }
    Ok(v)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn count(v: &Datum) -> usize {
    match v {
        Datum::Int8(n) => usize::try_from(*n).unwrap_or(usize::MAX),
        _ => 0,
    }
}

/// Row at which an edge of row `i`'s frame lies: the first row in it for a start, one past the last for an end.
fn edge(
    x: &mut Exec<'_>,
    w: &WindowAgg,
    p: &Partition,
    i: usize,
    e: &FrameEdge,
    offset: &Datum,
    is_start: bool,
) -> Result<usize, SqlError> {
    let n = p.rows.len();
    let g = p.group_of(i);
    Ok(match (e, w.mode) {
        (FrameEdge::UnboundedPreceding, _) => 0,
        (FrameEdge::UnboundedFollowing, _) => n,
        (FrameEdge::CurrentRow, FrameMode::Rows) => i + usize::from(!is_start),
        (FrameEdge::CurrentRow, _) => p.start_of(g + usize::from(!is_start)),
        (FrameEdge::Preceding(..), FrameMode::Rows) => match i.checked_sub(count(offset)) {
            Some(r) => r + usize::from(!is_start),
            None => 0,
        },
        (FrameEdge::Following(..), FrameMode::Rows) => i.saturating_add(count(offset)).saturating_add(usize::from(!is_start)).min(n),
        (FrameEdge::Preceding(..), FrameMode::Groups) => match g.checked_sub(count(offset)) {
            Some(g) => p.start_of(g + usize::from(!is_start)),
            None => 0,
        },
        (FrameEdge::Following(..), FrameMode::Groups) => {
            let g = g.saturating_add(count(offset));
            if g >= p.groups() { n } else { p.start_of(g + usize::from(!is_start)) }
        }
        (FrameEdge::Preceding(_, range) | FrameEdge::Following(_, range), FrameMode::Range) => {
            let Some(range) = range else { return Err(SqlError::internal("RANGE without an edge")) };
            let Some(key) = w.order.first() else { return Err(SqlError::internal("RANGE without an order")) };
            let value = |r: usize| p.rows.get(r).and_then(|row| row.get(key.column)).cloned().unwrap_or_default();
            let current = value(i);
            if current.is_null() {
                return Ok(p.start_of(g + usize::from(!is_start)));
            }
            x.state.case_values.push(current);
            if let Some(slot) = x.state.exec.get_mut(range.slot) {
                slot.clone_from(offset);
            }
            let bound = range.edge.eval(x, &[]);
            x.state.case_values.pop();
            let bound = bound?;
            // NULLs lie at one end and are out of range.
            let nulls = (0..n).filter(|r| value(*r).is_null()).count();
            let (mut low, mut high) = if key.nulls_first { (nulls, n) } else { (0, n - nulls) };
            while low < high {
                let mid = low.midpoint(high);
                let order = compare_values(&value(mid), &bound, key.desc, key.nulls_first);
                let before = if is_start { order.is_lt() } else { order.is_le() };
                if before {
                    low = mid + 1;
                } else {
                    high = mid;
                }
            }
            low
        }
    })
}

/// The frame of one row, as window functions see it.
struct Frame<'p> {
    partition: &'p Partition,
    args: &'p [Row],
    current: usize,
    rows: FrameRows,
}

/// A frame: from, upto, and what is excluded.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FrameRows {
    from: usize,
    upto: usize,
    /// Rows left out, as a range, and one row in it that stays (TIES).
    hole: Option<(usize, usize, Option<usize>)>,
}

impl FrameRows {
    fn contains(&self, row: usize) -> bool {
        let out = self.hole.is_some_and(|(a, b, stays)| (a..b).contains(&row) && stays != Some(row));
        (self.from..self.upto).contains(&row) && !out
    }

    fn iter(self) -> impl DoubleEndedIterator<Item = usize> {
        (self.from..self.upto).filter(move |r| self.contains(*r))
    }
}

fn frame(x: &mut Exec<'_>, w: &WindowAgg, p: &Partition, i: usize, offsets: &Offsets) -> Result<FrameRows, SqlError> {
    let from = edge(x, w, p, i, &w.start, &offsets.start, true)?;
    let upto = edge(x, w, p, i, &w.end, &offsets.end, false)?.max(from);
    let g = p.group_of(i);
    let hole = match w.exclude {
        FrameExclude::None => None,
        FrameExclude::CurrentRow => Some((i, i + 1, None)),
        FrameExclude::Group => Some((p.start_of(g), p.start_of(g + 1), None)),
        FrameExclude::Ties => Some((p.start_of(g), p.start_of(g + 1), Some(i))),
    };
    Ok(FrameRows { from, upto, hole })
}

fn position(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl WindowFrame for Frame<'_> {
    fn partition_rows(&self) -> i64 {
        position(self.partition.rows.len())
    }

    fn current(&self) -> i64 {
        position(self.current)
    }

    fn peers_start(&self) -> i64 {
        position(self.partition.start_of(self.partition.group_of(self.current)))
    }

    fn peers_end(&self) -> i64 {
        position(self.partition.start_of(self.partition.group_of(self.current) + 1))
    }

    fn peer_groups_before(&self) -> i64 {
        position(self.partition.group_of(self.current))
    }

    fn frame_row(&mut self, n: i64, from_end: bool) -> Result<Option<i64>, SqlError> {
        let Ok(n) = usize::try_from(n) else { return Ok(None) };
        let found = if from_end { self.rows.iter().rev().nth(n) } else { self.rows.iter().nth(n) };
        Ok(found.map(position))
    }

    fn arg_at(&mut self, arg: usize, row: i64) -> Result<Datum, SqlError> {
        Ok(usize::try_from(row).ok().and_then(|r| self.args.get(r)).and_then(|a| a.get(arg)).cloned().unwrap_or_default())
    }
}

fn compute(x: &mut Exec<'_>, w: &WindowAgg, p: &mut Partition) -> Result<(), SqlError> {
    let offsets = Offsets { start: offset_value(x, &w.start, "starting", w.mode)?, end: offset_value(x, &w.end, "ending", w.mode)? };
    let n = p.rows.len();
    let mut results: Vec<Vec<Datum>> = Vec::with_capacity(w.calls.len());
    for call in &w.calls {
        let mut args: Vec<Row> = Vec::with_capacity(n);
        let mut passes: Vec<bool> = Vec::new();
        for row in &p.rows {
            args.push(call.args.iter().map(|a| a.eval(x, row)).collect::<Result<_, _>>()?);
            if let Some(f) = &call.filter {
                passes.push(f.holds(x, row)?);
            }
        }
        let pass = |r: usize| passes.get(r).copied().unwrap_or(true);
        let mut values = Vec::with_capacity(n);
        match call.body {
            WindowBody::Function(body) => {
                for i in 0..n {
                    let rows = frame(x, w, p, i, &offsets)?;
                    let mut f = Frame { partition: p, args: &args, current: i, rows };
                    values.push(body(&mut Call { ctx: x.session, types: &call.types }, &mut f)?);
                }
            }
            WindowBody::Aggregate(new) => {
                let mut state: Option<(Box<dyn Accumulator>, FrameRows, Datum)> = None;
                for i in 0..n {
                    if i & 255 == 255 {
                        x.session.check_cancel()?;
                    }
                    let rows = frame(x, w, p, i, &offsets)?;
                    let mut c = Call { ctx: x.session, types: &call.types };
                    if let Some((_, before, value)) = &state
                        && *before == rows
                    {
                        values.push(value.clone());
                        continue;
                    }
                    let mut acc = None;
                    if let Some((mut old, before, _)) = state.take()
                        && before.hole.is_none()
                        && rows.hole.is_none()
                        && rows.from >= before.from
                        && rows.upto >= before.upto
                        && rows.from <= before.upto
                    {
                        let mut ok = true;
                        for r in (before.from..rows.from).filter(|r| pass(*r)) {
                            if let Some(a) = args.get(r)
                                && !old.remove(&mut c, a)?
                            {
                                ok = false;
                                break;
                            }
                        }
                        if ok {
                            for r in (before.upto..rows.upto).filter(|r| pass(*r)) {
                                if let Some(a) = args.get(r) {
                                    old.add(&mut c, a)?;
                                }
                            }
                            acc = Some(old);
                        }
                    }
                    let acc = match acc {
                        Some(acc) => acc,
                        None => {
                            let mut acc = new(&call.types);
                            for r in rows.iter().filter(|r| pass(*r)) {
                                if let Some(a) = args.get(r) {
                                    acc.add(&mut c, a)?;
                                }
                            }
                            acc
                        }
                    };
                    let value = acc.finish(&mut c)?;
                    values.push(value.clone());
                    state = Some((acc, rows, value));
                }
            }
        }
        results.push(values);
    }
    for values in results {
        for (row, v) in p.rows.iter_mut().zip(values) {
            row.push(v);
        }
    }
    Ok(())
}

impl Node for WindowNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let plan = self.plan.clone();
        let PlanOp::Window(w) = &plan.op else { return Err(SqlError::internal("a node got another node's plan")) };
        self.started = true;
        loop {
            if let Some(row) = self.ready.next() {
                *out = row;
                return Ok(true);
            }
            let Some(rows) = self.partition(x, w)? else {
                out.clear();
                return Ok(false);
            };
            let mut p = Partition::new(rows, w);
            compute(x, w, &mut p)?;
            self.ready = p.rows.into_iter();
        }
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.pending = None;
        self.done = false;
        self.ready = Vec::new().into_iter();
        self.child.rescan(x)
    }
}
