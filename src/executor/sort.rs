//! Sorting: in memory up to `work_mem`, then runs in temporary files, merged.
//!
//! As many runs are merged at once as there is memory for a block of each. Beyond that some are first merged into one, which goes one level up,
//! so that a row is written once more for each level, and the number of levels is the logarithm of the number of runs.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::eval::{Exec, Row};
use super::hash::row_bytes;
use super::large;
use super::node::Node;
use super::plan::{PlanNode, PlanOp, SortColumn};
use super::spill::{Part, PartReader, Store};
use crate::config::Setting;
use crate::sql::types::{self, Datum};
use crate::sqlstate::SqlError;

/// Order of two rows by columns.
#[inline]
pub(super) fn compare_rows(a: &[Datum], b: &[Datum], columns: &[SortColumn]) -> Ordering {
    for c in columns {
        let (Some(x), Some(y)) = (a.get(c.column), b.get(c.column)) else { continue };
        let order = compare_values(x, y, c.desc, c.nulls_first);
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Order of two values.
#[inline]
pub(super) fn compare_values(x: &Datum, y: &Datum, desc: bool, nulls_first: bool) -> Ordering {
    match (x.is_null(), y.is_null()) {
        (true, true) => Ordering::Equal,
        (true, false) => {
            if nulls_first {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (false, true) => {
            if nulls_first {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (false, false) => {
            let order = match (x, y) {
                (Datum::Int4(a), Datum::Int4(b)) => a.cmp(b),
                (Datum::Int8(a), Datum::Int8(b)) => a.cmp(b),
                _ => types::compare(x, y),
            };
            if desc { order.reverse() } else { order }
        }
    }
}

/// A row that compares by the sort's columns; the greatest is on top of a heap.
struct Keyed {
    row: Row,
    columns: Arc<[SortColumn]>,
    /// Breaks ties: the order of arrival, or of runs.
    number: u64,
}

impl PartialEq for Keyed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Keyed {}

impl PartialOrd for Keyed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Keyed {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_rows(&self.row, &other.row, &self.columns).then(self.number.cmp(&other.number))
    }
}

/// Rows in order.
pub(super) enum Sorted {
    Memory(std::vec::IntoIter<Row>),
    Merge(Merge),
}

/// Bytes of a run that are read together.
const BLOCK: usize = 16 << 10;

/// Runs being merged.
pub(super) struct Merge {
    stores: Vec<Store>,
    /// Each run, and its store's number.
    readers: Vec<(usize, PartReader)>,
    /// Smallest first: reversed order on a max-heap.
    heap: BinaryHeap<std::cmp::Reverse<Keyed>>,
    columns: Arc<[SortColumn]>,
    /// Rows of the last run, which never left memory.
    memory: std::vec::IntoIter<Row>,
}

impl Merge {
    /// Of levels, those with the oldest runs first, and rows that came after all of them.
    fn new(levels: Vec<Level>, columns: Arc<[SortColumn]>, memory: Vec<Row>) -> Result<Self, SqlError> {
        let mut merge = Self { stores: Vec::new(), readers: Vec::new(), heap: BinaryHeap::new(), columns, memory: memory.into_iter() };
        for level in levels {
            merge.readers.extend(level.runs.into_iter().map(|run| (merge.stores.len(), Store::read(run))));
            merge.stores.push(level.store);
        }
        for run in 0..=merge.readers.len() {
            merge.pull(run)?;
        }
        Ok(merge)
    }

    fn row_of(&mut self, run: usize) -> Result<Option<Row>, SqlError> {
        match self.readers.get_mut(run) {
            Some((store, reader)) => match self.stores.get(*store) {
                Some(store) => store.next(reader),
                None => Ok(None),
            },
            None => Ok(self.memory.next()),
        }
    }

    fn pull(&mut self, run: usize) -> Result<(), SqlError> {
        if let Some(row) = self.row_of(run)? {
            self.heap.push(std::cmp::Reverse(Keyed { row, columns: self.columns.clone(), number: run as u64 }));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Row>, SqlError> {
        let Some(top) = self.heap.peek() else { return Ok(None) };
        let run = usize::try_from(top.0.number).unwrap_or(usize::MAX);
        match self.row_of(run)? {
            // The run's next row in place of this one: the heap is put in order once, not twice.
            Some(row) => Ok(self.heap.peek_mut().map(|mut top| std::mem::replace(&mut top.0.row, row))),
            None => Ok(self.heap.pop().map(|top| top.0.row)),
        }
    }
}

/// Runs that were merged equally often, in their order.
struct Level {
    store: Store,
    runs: Vec<Part>,
}

/// Takes rows in any order and gives them back sorted, through runs in temporary files once they are more than `work_mem`.
pub(super) struct Sorter {
    columns: Arc<[SortColumn]>,
    memory: usize,
    rows: Vec<Row>,
    used: usize,
    peak: usize,
    levels: Vec<Level>,
    disk: u64,
}

impl Sorter {
    pub(super) fn new(x: &Exec<'_>, columns: Arc<[SortColumn]>) -> Self {
        let memory = usize::try_from(x.session.settings.bytes(Setting::WorkMem).unwrap_or(4 << 20)).unwrap_or(usize::MAX);
        Self { columns, memory, rows: Vec::new(), used: 0, peak: 0, levels: Vec::new(), disk: 0 }
    }

    pub(super) fn push(&mut self, x: &Exec<'_>, row: Row) -> Result<(), SqlError> {
        self.used += row_bytes(&row);
        self.peak = self.peak.max(self.used);
        self.rows.push(row);
        if self.used <= self.memory || self.rows.len() < 2 {
            return Ok(());
        }
        self.used = 0;
        self.rows.sort_by(|a, b| compare_rows(a, b, &self.columns));
        let mut rows = std::mem::take(&mut self.rows);
        let mut sorted = rows.drain(..);
        self.write(x, 0, || Ok(sorted.next()))?;
        drop(sorted);
        self.rows = rows;
        let mut level = 0;
        while self.levels.get(level).is_some_and(|l| l.runs.len() >= self.order()) {
            self.merge(x, level)?;
            level += 1;
        }
        Ok(())
    }

    /// How many runs are merged at once.
    fn order(&self) -> usize {
        (self.memory / BLOCK).clamp(8, 1024)
    }

    /// A new run on a level.
    fn write(&mut self, x: &Exec<'_>, level: usize, mut next: impl FnMut() -> Result<Option<Row>, SqlError>) -> Result<(), SqlError> {
        while self.levels.len() <= level {
            self.levels.push(Level { store: Store::new(x)?, runs: Vec::new() });
        }
        let Some(Level { store, runs }) = self.levels.get_mut(level) else { return Err(SqlError::internal("a sort's levels")) };
        let before = store.bytes();
        let mut run = Part::default();
        while let Some(row) = next()? {
            if run.rows & 1023 == 0 {
                x.session.check_cancel()?;
            }
            store.push(&mut run, &row, BLOCK)?;
        }
        store.flush(&mut run)?;
        self.disk += store.bytes() - before;
        runs.push(run);
        Ok(())
    }

    /// Makes one run of a level's, on the next.
    fn merge(&mut self, x: &Exec<'_>, level: usize) -> Result<(), SqlError> {
        let Some(at) = self.levels.get_mut(level) else { return Ok(()) };
        let whole = Level { store: std::mem::replace(&mut at.store, Store::new(x)?), runs: std::mem::take(&mut at.runs) };
        let mut merge = Merge::new(vec![whole], self.columns.clone(), Vec::new())?;
        self.write(x, level + 1, || merge.next())
    }

    /// How it went, for EXPLAIN ANALYZE.
    fn note(&self, x: &mut Exec<'_>, id: usize) {
        let (peak, disk) = (self.peak as u64, self.disk);
        x.note(id, |s| {
            s.memory = s.memory.max(peak);
            s.disk = s.disk.max(disk);
            s.sort_method = Some(if disk > 0 { "external merge" } else { "quicksort" });
        });
    }

    /// The rows in order.
    pub(super) fn finish(mut self, x: &Exec<'_>) -> Result<Sorted, SqlError> {
        self.rows.sort_by(|a, b| compare_rows(a, b, &self.columns));
        if self.levels.is_empty() {
            return Ok(Sorted::Memory(self.rows.into_iter()));
        }
        let runs = |levels: &[Level]| levels.iter().map(|l| l.runs.len()).sum::<usize>();
        let mut level = 0;
        while runs(&self.levels) > self.order() {
            self.merge(x, level)?;
            level += 1;
        }
        self.levels.reverse();
        Ok(Sorted::Merge(Merge::new(self.levels, self.columns, self.rows)?))
    }
}

impl Sorted {
    /// The next row in order.
    pub(super) fn next(&mut self) -> Result<Option<Row>, SqlError> {
        match self {
            Self::Memory(rows) => Ok(rows.next()),
            Self::Merge(merge) => merge.next(),
        }
    }
}

/// Sorts.
pub(super) struct SortNode {
    plan: Arc<PlanNode>,
    child: Box<dyn Node>,
    sorted: Option<Sorted>,
    /// Kept for rescans, if nothing was spilled.
    kept: Option<Vec<Row>>,
    bound: Option<u64>,
    rescanned: bool,
}

impl SortNode {
    pub(super) fn new(plan: Arc<PlanNode>, child: Box<dyn Node>) -> Self {
        Self { plan, child, sorted: None, kept: None, bound: None, rescanned: false }
    }

    fn run(&mut self, x: &mut Exec<'_>, columns: &Arc<[SortColumn]>) -> Result<Sorted, SqlError> {
        let mut row = Row::new();
        let mut count = 0u64;
        // Rows may be packed, what they are sorted by may not.
        let unpack = |x: &Exec<'_>, row: &mut Row| -> Result<(), SqlError> {
            for c in columns.iter() {
                if let Some(v) = row.get_mut(c.column) {
                    large::unpack_in_place(x.session.engine.ctx(), v)?;
                }
            }
            Ok(())
        };
        // Only the first so many: keep them in a heap, the worst on top.
        if let Some(bound) = self.bound.and_then(|b| usize::try_from(b).ok()).filter(|b| *b <= 10_000) {
            let mut heap: BinaryHeap<Keyed> = BinaryHeap::new();
            while self.child.next(x, &mut row)? {
                unpack(x, &mut row)?;
                count += 1;
                if count & 1023 == 0 {
                    x.session.check_cancel()?;
                }
                if bound == 0 {
                    continue;
                }
                if heap.len() < bound {
                    heap.push(Keyed { row: std::mem::take(&mut row), columns: columns.clone(), number: count });
                } else if let Some(mut top) = heap.peek_mut()
                    && compare_rows(&row, &top.row, columns).is_lt()
                {
                    *top = Keyed { row: std::mem::take(&mut row), columns: columns.clone(), number: count };
                }
            }
            let rows: Vec<Row> = heap.into_sorted_vec().into_iter().map(|k| k.row).collect();
            let bytes = rows.iter().map(|r| row_bytes(r) as u64).sum();
            x.note(self.plan.id, |s| {
                s.memory = s.memory.max(bytes);
                s.sort_method = Some(if count > bound as u64 { "top-N heapsort" } else { "quicksort" });
            });
            return Ok(Sorted::Memory(rows.into_iter()));
        }
        let mut sorter = Sorter::new(x, columns.clone());
        while self.child.next(x, &mut row)? {
            count += 1;
            if count & 1023 == 0 {
                x.session.check_cancel()?;
            }
            unpack(x, &mut row)?;
            sorter.push(x, std::mem::take(&mut row))?;
        }
        sorter.note(x, self.plan.id);
        sorter.finish(x)
    }
}

impl Node for SortNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let plan = self.plan.clone();
        let PlanOp::Sort(_, columns) = &plan.op else { return Err(SqlError::internal("a node got another node's plan")) };
        if self.sorted.is_none() {
            let columns: Arc<[SortColumn]> = columns.iter().copied().collect();
            let mut sorted = self.run(x, &columns)?;
            // A sort that is read again and again is kept.
            if self.rescanned
                && !plan.correlated
                && let Sorted::Memory(rows) = &mut sorted
            {
                self.kept = Some(rows.as_slice().to_vec());
            }
            self.sorted = Some(sorted);
        }
        let row = match &mut self.sorted {
            Some(sorted) => sorted.next()?,
            None => None,
        };
        out.clear();
        match row {
            Some(row) => {
                *out = row;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.rescanned = true;
        if !self.plan.correlated
            && let Some(rows) = &self.kept
        {
            self.sorted = Some(Sorted::Memory(rows.clone().into_iter()));
            return Ok(());
        }
        self.sorted = None;
        self.kept = None;
        self.child.rescan(x)
    }

    fn bound(&mut self, rows: u64) {
        self.bound = Some(rows);
    }
}
