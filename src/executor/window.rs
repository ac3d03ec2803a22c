//! Window functions, a partition at a time. Its rows, and the arguments of its calls, are in memory up to `work_mem`.

use std::sync::Arc;

use super::eval::{Exec, Row};
use super::hash::same_value;
use super::node::Node;
use super::plan::{FrameEdge, FrameExclude, FrameMode, PlanNode, PlanOp, WindowAgg, WindowBody};
use super::row_store::{RowStore, work_mem};
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
    running: Option<Running>,
}

/// A bit for each row, and how many are set before each word of them.
#[derive(Default)]
struct Bits {
    words: Vec<(u64, usize)>,
    len: usize,
    set: usize,
}

impl Bits {
    fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(64) {
            self.words.push((0, self.set));
        }
        if bit && let Some((word, _)) = self.words.last_mut() {
            *word |= 1 << (self.len % 64);
            self.set += 1;
        }
        self.len += 1;
    }

    fn get(&self, at: usize) -> bool {
        self.words.get(at / 64).is_some_and(|(word, _)| word >> (at % 64) & 1 == 1)
    }

    /// How many are set up to and with this one.
    fn upto(&self, at: usize) -> usize {
        self.words.get(at / 64).map_or(0, |(word, before)| before + count_ones(word & (u64::MAX >> (63 - at % 64))))
    }

    /// Where the `n`th that is set lies, counted from 0; `None`: there are not so many.
    fn place(&self, n: usize) -> Option<usize> {
        if n >= self.set {
            return None;
        }
        let at = self.words.partition_point(|(_, before)| *before <= n).checked_sub(1)?;
        let (mut word, before) = *self.words.get(at)?;
        for _ in before..n {
            word &= word - 1;
        }
        Some(at * 64 + usize::try_from(word.trailing_zeros()).unwrap_or(0))
    }
}

fn count_ones(word: u64) -> usize {
    usize::try_from(word.count_ones()).unwrap_or(0)
}

/// A partition, its rows' peer groups.
struct Partition {
    rows: RowStore,
    /// First row of each group.
    starts: Bits,
    /// Rows whose first ordering column is NULL: they lie at one end.
    nulls: usize,
    /// Where the last row's frame began and ended, for RANGE: the next one's is seldom far.
    near: [usize; 2],
}

impl Partition {
    fn group_of(&self, row: usize) -> usize {
        self.starts.upto(row).saturating_sub(1)
    }

    fn start_of(&self, group: usize) -> usize {
        self.starts.place(group).unwrap_or_else(|| self.rows.len())
    }

    fn groups(&self) -> usize {
        self.starts.set
    }

    /// A column of a row.
    fn value(&mut self, row: usize, column: usize) -> Result<Datum, SqlError> {
        Ok(self.rows.get(row)?.and_then(|r| r.get(column)).cloned().unwrap_or_default())
    }
}

/// A call in a partition.
struct CallState {
    /// Arguments at each row; none if there are none.
    args: Option<RowStore>,
    /// Rows that pass its filter, if it has one.
    passes: Option<Bits>,
    /// An aggregate over the last row's frame.
    aggregate: Option<(Box<dyn Accumulator>, FrameRows, Datum)>,
}

impl CallState {
    fn pass(&self, row: usize) -> bool {
        self.passes.as_ref().is_none_or(|p| p.get(row))
    }

    fn add(&mut self, c: &mut Call<'_>, acc: &mut dyn Accumulator, row: usize) -> Result<(), SqlError> {
        if self.pass(row) {
            match &mut self.args {
                Some(args) => acc.add(c, args.get(row)?.map_or(&[][..], |a| a))?,
                None => acc.add(c, &[])?,
            }
        }
        Ok(())
    }

    /// Takes a row away again; false: that cannot be done.
    fn remove(&mut self, c: &mut Call<'_>, acc: &mut dyn Accumulator, row: usize) -> Result<bool, SqlError> {
        if !self.pass(row) {
            return Ok(true);
        }
        match &mut self.args {
            Some(args) => acc.remove(c, args.get(row)?.map_or(&[][..], |a| a)),
            None => acc.remove(c, &[]),
        }
    }
}

/// The partition whose rows are given out.
struct Running {
    partition: Partition,
    calls: Vec<CallState>,
    offsets: Offsets,
    at: usize,
}

/// Offsets of the frame's edges, evaluated once.
#[derive(Clone)]
struct Offsets {
    start: Datum,
    end: Datum,
}

impl WindowNode {
    pub(super) fn new(plan: Arc<PlanNode>, child: Box<dyn Node>) -> Self {
        Self { plan, child, pending: None, done: false, running: None }
    }

    /// Reads the next partition's rows.
    fn partition(&mut self, x: &mut Exec<'_>, w: &WindowAgg) -> Result<Option<Partition>, SqlError> {
        if self.done {
            return Ok(None);
        }
        let mut p = Partition { rows: RowStore::new(work_mem(x) / 2), starts: Bits::default(), nulls: 0, near: [0; 2] };
        // Key columns of the row before.
        let mut last: Option<(Row, Row)> = None;
        loop {
            if p.rows.len() & 1023 == 1023 {
                x.session.check_cancel()?;
            }
            let row = match self.pending.take() {
                Some(row) => row,
                None => {
                    let mut row = Row::new();
                    if !self.child.next(x, &mut row)? {
                        self.done = true;
                        break;
                    }
                    row
                }
            };
            let value = |column: usize| row.get(column).cloned().unwrap_or_default();
            let partition: Row = w.partition.iter().map(|c| value(*c)).collect();
            let order: Row = w.order.iter().map(|c| value(c.column)).collect();
            let equal = |a: &Row, b: &Row| a.iter().zip(b).all(|(a, b)| same_value(a, b));
            if last.as_ref().is_some_and(|(before, _)| !equal(before, &partition)) {
                self.pending = Some(row);
                break;
            }
            p.starts.push(last.as_ref().is_none_or(|(_, before)| !equal(before, &order)));
            p.nulls += usize::from(order.first().is_some_and(Datum::is_null));
            last = Some((partition, order));
            p.rows.push(x, row)?;
        }
        Ok((p.rows.len() > 0).then_some(p))
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
    p: &mut Partition,
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
            let current = p.value(i, key.column)?;
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
            let (mut low, mut high) = if key.nulls_first { (p.nulls, n) } else { (0, n - p.nulls) };
            let before = |p: &mut Partition, row: usize| -> Result<bool, SqlError> {
                let order = compare_values(&p.value(row, key.column)?, &bound, key.desc, key.nulls_first);
                Ok(if is_start { order.is_lt() } else { order.is_le() })
            };
            // From where the last row's lay, in growing steps.
            let (near, mut step) = (p.near[usize::from(is_start)], 1);
            if near > low && near <= high && before(p, near - 1)? {
                low = near;
                while low + step <= high {
                    if !before(p, low + step - 1)? {
                        high = low + step - 1;
                        break;
                    }
                    low += step;
                    step *= 2;
                }
            }
            while low < high {
                let mid = low.midpoint(high);
                if before(p, mid)? {
                    low = mid + 1;
                } else {
                    high = mid;
                }
            }
            p.near[usize::from(is_start)] = low;
            low
        }
    })
}

/// The frame of one row, as window functions see it.
struct Frame<'p> {
    partition: &'p Partition,
    args: Option<&'p mut RowStore>,
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

fn frame(x: &mut Exec<'_>, w: &WindowAgg, p: &mut Partition, i: usize, offsets: &Offsets) -> Result<FrameRows, SqlError> {
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
        let (Some(args), Ok(row)) = (&mut self.args, usize::try_from(row)) else { return Ok(Datum::Null) };
        Ok(args.get(row)?.and_then(|a| a.get(arg)).cloned().unwrap_or_default())
    }
}

impl Running {
    /// Evaluates the arguments of all calls.
    fn begin(x: &mut Exec<'_>, w: &WindowAgg, mut partition: Partition) -> Result<Self, SqlError> {
        let offsets = Offsets { start: offset_value(x, &w.start, "starting", w.mode)?, end: offset_value(x, &w.end, "ending", w.mode)? };
        let mut calls = Vec::with_capacity(w.calls.len());
        for call in &w.calls {
            let mut args = (!call.args.is_empty()).then(|| RowStore::new(work_mem(x) / 2 / w.calls.len()));
            let mut passes = call.filter.as_ref().map(|_| Bits::default());
            if args.is_some() || passes.is_some() {
                for at in 0..partition.rows.len() {
                    if at & 1023 == 1023 {
                        x.session.check_cancel()?;
                    }
                    let Some(row) = partition.rows.get(at)? else { break };
                    if let Some(args) = &mut args {
                        let values = call.args.iter().map(|a| a.eval(x, row)).collect::<Result<_, _>>()?;
                        args.push(x, values)?;
                    }
                    if let (Some(filter), Some(passes)) = (&call.filter, &mut passes) {
                        passes.push(filter.holds(x, row)?);
                    }
                }
            }
            calls.push(CallState { args, passes, aggregate: None });
        }
        Ok(Self { partition, calls, offsets, at: 0 })
    }

    /// The next row, its results behind it.
    fn next(&mut self, x: &mut Exec<'_>, w: &WindowAgg, out: &mut Row) -> Result<bool, SqlError> {
        let i = self.at;
        out.clear();
        let Some(row) = self.partition.rows.get(i)? else { return Ok(false) };
        out.extend_from_slice(row);
        self.at += 1;
        if i & 255 == 255 {
            x.session.check_cancel()?;
        }
        let rows = frame(x, w, &mut self.partition, i, &self.offsets)?;
        for (call, state) in w.calls.iter().zip(&mut self.calls) {
            let mut c = Call { ctx: x.session, types: &call.types };
            out.push(match call.body {
                WindowBody::Function(body) => {
                    let mut f = Frame { partition: &self.partition, args: state.args.as_mut(), current: i, rows };
                    body(&mut c, &mut f)?
                }
                WindowBody::Aggregate(new) => aggregate(&mut c, state, rows, || new(&call.types))?,
            });
        }
        Ok(true)
    }
}

/// An aggregate over a row's frame: the last row's, moved, where that can be done.
fn aggregate(
    c: &mut Call<'_>,
    state: &mut CallState,
    rows: FrameRows,
    new: impl FnOnce() -> Box<dyn Accumulator>,
) -> Result<Datum, SqlError> {
    let mut moved = None;
    if let Some((mut old, before, value)) = state.aggregate.take() {
        if before == rows {
            state.aggregate = Some((old, before, value.clone()));
            return Ok(value);
        }
        let forward = rows.from >= before.from && rows.upto >= before.upto && rows.from <= before.upto;
        if before.hole.is_none() && rows.hole.is_none() && forward {
            let mut ok = true;
            for row in before.from..rows.from {
                if !state.remove(c, &mut *old, row)? {
                    ok = false;
                    break;
                }
            }
            if ok {
                for row in before.upto..rows.upto {
                    state.add(c, &mut *old, row)?;
                }
                moved = Some(old);
            }
        }
    }
    let acc = match moved {
        Some(acc) => acc,
        None => {
            let mut acc = new();
            for row in rows.iter() {
                state.add(c, &mut *acc, row)?;
            }
            acc
        }
    };
    let value = acc.finish(c)?;
    state.aggregate = Some((acc, rows, value.clone()));
    Ok(value)
}

impl Node for WindowNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let plan = self.plan.clone();
        let PlanOp::Window(w) = &plan.op else { return Err(SqlError::internal("a node got another node's plan")) };
        loop {
            if let Some(running) = &mut self.running
                && running.next(x, w, out)?
            {
                return Ok(true);
            }
            // Its memory and files go before the next one takes some.
            self.running = None;
            let Some(partition) = self.partition(x, w)? else {
                out.clear();
                return Ok(false);
            };
            self.running = Some(Running::begin(x, w, partition)?);
        }
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.pending = None;
        self.done = false;
        self.running = None;
        self.child.rescan(x)
    }
}
