//! Scans: tables, indexes, tids, virtual tables, functions, VALUES.

use std::sync::Arc;

use afterimage_wal::ids::Xid;

use super::eval::{Exec, Row};
use super::large;
use super::node::Node;
use super::plan::{IndexBound, IndexEqual, IndexScan, PlanNode, PlanOp, Scan, ScanColumn};
use super::simple::{call_set, removed};
use crate::access::btree::{self, Direction, KeyRange, ScanOptions};
use crate::access::heap::{self, HeapScan};
use crate::access::{AccessError, RelHandle, Tid};
use crate::sql::catalog::{RelKind, Source, VirtualCx};
use crate::sql::functions::SetRows;
use crate::sql::types::key::{self, KeyOrder};
use crate::sql::types::{self, Datum, Oid, oids, row};
use crate::sqlstate::SqlError;
use crate::storage::vm;
use crate::txn::{TableKey, Transactions};

fn wrong_plan() -> SqlError {
    SqlError::internal("a node got another node's plan")
}

/// A scan's relation as access functions see it.
pub(super) fn handle(scan: &Scan) -> Result<RelHandle, SqlError> {
    scan.relation.rel_handle().ok_or_else(|| SqlError::internal(format!("relation \"{}\" has no file", scan.relation.name)))
}

/// A tid as a value.
pub(super) fn tid_datum(tid: Tid) -> Datum {
    Datum::Tid(types::Tid { block: tid.block.get(), offset: tid.offset })
}

/// A value as a tid.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
pub(super) fn datum_tid(v: &Datum) -> Option<Tid> {
    match v {
        Datum::Tid(t) => Some(Tid::new(afterimage_wal::ids::BlockNo::new(t.block), t.offset)),
        _ => None,
    }
}

/// Decodes a row's wanted columns into `out`. `scratch` is as wide as what must be decoded.
pub(super) fn fill(scan: &Scan, tid: Tid, bytes: &[u8], scratch: &mut Vec<Datum>, out: &mut Row) -> Result<(), SqlError> {
    out.clear();
    if !scan.wanted.is_empty() {
        scratch.clear();
        scratch.resize(scan.wanted.len(), Datum::Null);
        row::decode_some(&scan.desc, bytes, &scan.wanted, scratch)?;
    }
    for o in &scan.outputs {
        out.push(match o {
            ScanColumn::Attribute(i) => scratch.get_mut(*i).map(std::mem::take).unwrap_or_default(),
            ScanColumn::Tid => tid_datum(tid),
            ScanColumn::TableOid => Datum::Oid(scan.relation.oid),
            ScanColumn::Xmin | ScanColumn::Xmax | ScanColumn::Cmin | ScanColumn::Cmax => Datum::Oid(0),
        });
    }
    shape_rows(scan, out);
    Ok(())
}

/// Values of row types as these are now: a type may have got columns, or lost some, since the value was stored.
fn shape_rows(scan: &Scan, out: &mut Row) {
    for (at, shape) in &scan.rows {
        if let Some(Datum::Record(row)) = out.get_mut(*at)
            && (row.desc.len() != shape.len() || row.desc.cols.iter().zip(&shape.cols).any(|(a, b)| a.dropped != b.dropped))
        {
            *row = Arc::new(row.shaped(shape));
        }
    }
}

/// An xid as PostgreSQL's columns of 32 bits show it.
#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
pub(super) fn low_half(xid: Xid) -> Datum {
    Datum::Oid(xid.as_u64() as u32)
}

/// xmin and its kin, for the few queries that ask.
fn system_columns(x: &Exec<'_>, scan: &Scan, tid: Tid, out: &mut Row) -> Result<(), SqlError> {
    let asked = scan.outputs.iter().any(|o| matches!(o, ScanColumn::Xmin | ScanColumn::Xmax | ScanColumn::Cmin | ScanColumn::Cmax));
    if !asked {
        return Ok(());
    }
    let ctx = x.access()?;
    let buffer = ctx.pool.read(handle(scan)?.file, afterimage_wal::ids::Fork::Main, tid.block)?;
    let page = buffer.read();
    let Some(h) = heap::tuple::header(&page, tid.offset) else { return Ok(()) };
    for (o, v) in scan.outputs.iter().zip(out.iter_mut()) {
        match o {
            ScanColumn::Xmin => *v = low_half(h.xmin),
            ScanColumn::Xmax => *v = low_half(h.xmax),
            ScanColumn::Cmin | ScanColumn::Cmax => *v = Datum::Oid(h.cid),
            ScanColumn::Attribute(_) | ScanColumn::Tid | ScanColumn::TableOid => {}
        }
    }
    Ok(())
}

/// A row that passed its filter: unpacked, unless the parent takes it as it is.
#[inline]
fn pass(x: &Exec<'_>, packed: bool, out: &mut Row) -> Result<bool, SqlError> {
    if !packed {
        large::unpack_row(x.session.engine.ctx(), out)?;
    }
    Ok(true)
}

/// In a re-check: the row that stands for this scan's; `None` if the scan runs as usual.
fn replaced(
    x: &mut Exec<'_>,
    scan: &Scan,
    done: &mut bool,
    scratch: &mut Vec<Datum>,
    out: &mut Row,
    also: Option<&super::code::Code>,
) -> Result<Option<bool>, SqlError> {
    let Some(rows) = &x.state.replaced else { return Ok(None) };
    let Some(entry) = rows.get(&scan.scan_id) else { return Ok(None) };
    if *done {
        return Ok(Some(false));
    }
    *done = true;
    let Some((tid, bytes)) = entry else { return Ok(Some(false)) };
    fill(scan, *tid, bytes, scratch, out)?;
    for code in [also, scan.filter.as_ref()].into_iter().flatten() {
        if !code.holds(x, out)? {
            return Ok(Some(false));
        }
    }
    Ok(Some(true))
}

/// Counts a node's scans and rows for `pg_stat_*_tables` and `_indexes`, added when the node goes.
struct Tally {
    txns: Arc<Transactions>,
    table: TableKey,
    index: Option<TableKey>,
    scans: u64,
    rows: u64,
}

impl Tally {
    fn new(x: &Exec<'_>, rel: &RelHandle, index: Option<&RelHandle>) -> Result<Self, SqlError> {
        let txns = Arc::clone(&x.access()?.txns);
        Ok(Self { txns, table: rel.stats_key(), index: index.map(RelHandle::stats_key), scans: 0, rows: 0 })
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if self.scans > 0 {
            let stats = self.txns.table_stats();
            stats.scanned(self.table, self.index.is_some(), self.scans, self.rows);
            if let Some(index) = self.index {
                stats.scanned(index, true, self.scans, self.rows);
            }
        }
    }
}

/// All rows of a table.
pub(super) struct SeqScanNode {
    plan: Arc<PlanNode>,
    rel: RelHandle,
    scan: Option<HeapScan>,
    scratch: Vec<Datum>,
    count: u32,
    tally: Option<Tally>,
    replaced: bool,
    packed: bool,
}

impl SeqScanNode {
    pub(super) fn new(plan: Arc<PlanNode>, packed: bool) -> Result<Self, SqlError> {
        let PlanOp::SeqScan(scan) = &plan.op else { return Err(wrong_plan()) };
        let rel = handle(scan)?;
        Ok(Self { plan, rel, scan: None, scratch: Vec::new(), count: 0, tally: None, replaced: false, packed })
    }
}

impl Node for SeqScanNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let PlanOp::SeqScan(scan) = &self.plan.op else { return Err(wrong_plan()) };
        if x.state.replaced.is_some()
            && let Some(found) = replaced(x, scan, &mut self.replaced, &mut self.scratch, out, None)?
        {
            return if found { pass(x, self.packed, out) } else { Ok(false) };
        }
        let heap = match &mut self.scan {
            Some(heap) => heap,
            None => {
                self.tally.insert(Tally::new(x, &self.rel, None)?).scans = 1;
                self.scan.insert(HeapScan::new(x.access()?, &self.rel, x.state.snapshot()?)?)
            }
        };
        loop {
            let Some((tid, bytes)) = heap.next(x.state.engine()?.ctx())? else { return Ok(false) };
            self.count = self.count.wrapping_add(1);
            if let Some(tally) = &mut self.tally {
                tally.rows += 1;
            }
            if self.count & 1023 == 0 {
                x.session.check_cancel()?;
            }
            fill(scan, tid, bytes, &mut self.scratch, out)?;
            system_columns(x, scan, tid, out)?;
            match &scan.filter {
                Some(f) if !f.holds(x, out)? => removed(x, self.plan.id),
                _ => return pass(x, self.packed, out),
            }
        }
    }

    fn rescan(&mut self, _x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.replaced = false;
        if let Some(s) = &mut self.scan {
            s.rewind();
        }
        if let Some(tally) = &mut self.tally {
            tally.scans += 1;
        }
        Ok(())
    }
}

/// Rows by index.
pub(super) struct IndexScanNode {
    plan: Arc<PlanNode>,
    rel: RelHandle,
    index: RelHandle,
    scan: Option<btree::Scan>,
    /// Ranges still to scan, last first.
    ranges: Vec<KeyRange>,
    scratch: Vec<Datum>,
    started: bool,
    done: bool,
    replaced: bool,
    count: u32,
    /// A bitmap scan's tids.
    tids: Option<std::vec::IntoIter<Tid>>,
    tally: Option<Tally>,
    /// Rows on all-visible pages come from the index.
    keys_only: bool,
    packed: bool,
}

/// One end of a range.
enum Bound {
    /// There is none.
    None,
    /// No row satisfies it.
    Nothing,
    /// The key, and whether what begins with it is inside.
    At(Vec<u8>, bool),
}

/// A value as an index column of type `column` holds it.
enum Fit {
    Value(Datum),
    /// Below all values of the column's type.
    Below,
    /// Above them.
    Above,
    Null,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn fit(value: Datum, column: Oid) -> Fit {
    let wide = match value {
        Datum::Null => return Fit::Null,
        Datum::Int2(v) => i64::from(v),
        Datum::Int4(v) => i64::from(v),
        Datum::Int8(v) => v,
        other => return Fit::Value(other),
    };
    let out = |r: Result<Datum, _>| match r {
        Ok(v) => Fit::Value(v),
        Err(std::num::TryFromIntError { .. }) if wide < 0 => Fit::Below,
        Err(_) => Fit::Above,
    };
    match column {
        oids::INT2 => out(i16::try_from(wide).map(Datum::Int2)),
        oids::INT4 => out(i32::try_from(wide).map(Datum::Int4)),
        _ => Fit::Value(Datum::Int8(wide)),
    }
}

impl IndexScanNode {
    pub(super) fn new(plan: Arc<PlanNode>, packed: bool) -> Result<Self, SqlError> {
        let PlanOp::IndexScan(s) = &plan.op else { return Err(wrong_plan()) };
        let rel = handle(&s.scan)?;
        let index = s.scan.relation.index_handle(&s.index);
        Ok(Self {
            plan,
            rel,
            index,
            scan: None,
            ranges: Vec::new(),
            scratch: Vec::new(),
            started: false,
            done: false,
            replaced: false,
            count: 0,
            tids: None,
            tally: None,
            keys_only: false,
            packed,
        })
    }

    /// What a bound is, after the columns with equality.
    fn bound(s: &IndexScan, x: &mut Exec<'_>, b: &IndexBound, is_lower: bool) -> Result<Bound, SqlError> {
        let mut bytes = Vec::new();
        for (i, code) in b.values.iter().enumerate() {
            let at = s.equal.len() + i;
            let ty = s.types.get(at).copied().unwrap_or(0);
            // What is equal so far: does it satisfy the rest of the row?
            let rest = match (fit(code.eval(x, &[])?, ty), is_lower) {
                (Fit::Value(v), _) => {
                    key::encode_typed(&v, ty, s.orders.get(at).copied().unwrap_or(KeyOrder::ASC), &mut bytes)?;
                    continue;
                }
                (Fit::Below, true) | (Fit::Above, false) => true,
                (Fit::Null, _) | (Fit::Above, true) | (Fit::Below, false) => false,
            };
            return Ok(match (i, rest) {
                (0, true) => Bound::None,
                (0, false) => Bound::Nothing,
                _ => Bound::At(bytes, rest),
            });
        }
        Ok(Bound::At(bytes, b.inclusive))
    }

    /// The ranges of keys the conditions leave.
    fn ranges(s: &IndexScan, x: &mut Exec<'_>, out: &mut Vec<KeyRange>) -> Result<(), SqlError> {
        out.clear();
        let mut prefixes: Vec<Vec<u8>> = vec![Vec::with_capacity(32)];
        for (i, equal) in s.equal.iter().enumerate() {
            let order = s.orders.get(i).copied().unwrap_or(KeyOrder::ASC);
            let ty = s.types.get(i).copied().unwrap_or(0);
            match equal {
                IndexEqual::Null => {
                    for p in &mut prefixes {
                        key::encode(&Datum::Null, order, p)?;
                    }
                }
                IndexEqual::Value(code) => {
                    let Fit::Value(v) = fit(code.eval(x, &[])?, ty) else { return Ok(()) };
                    for p in &mut prefixes {
                        key::encode_typed(&v, ty, order, p)?;
                    }
                }
                IndexEqual::Any(code) => {
                    let Datum::Array(array) = code.eval(x, &[])? else { return Ok(()) };
                    let mut values: Vec<Vec<u8>> = Vec::with_capacity(array.values.len());
                    for v in &array.values {
                        if let Fit::Value(v) = fit(v.clone(), ty) {
                            let mut bytes = Vec::new();
                            key::encode_typed(&v, ty, order, &mut bytes)?;
                            values.push(bytes);
                        }
                    }
                    values.sort_unstable();
                    values.dedup();
                    prefixes = prefixes.iter().flat_map(|p| values.iter().map(move |v| [p.as_slice(), v.as_slice()].concat())).collect();
                }
            }
        }
        let order = s.orders.get(s.equal.len()).copied().unwrap_or(KeyOrder::ASC);
        let mut bound = |b: &Option<IndexBound>, is_lower| match b {
            Some(b) => Self::bound(s, x, b, is_lower),
            None => Ok(Bound::None),
        };
        let (lower, upper) = (bound(&s.lower, true)?, bound(&s.upper, false)?);
        let start = match &s.pattern {
            Some((code, kind)) => {
                let value = code.eval(x, &[])?;
                if value.is_null() {
                    return Ok(());
                }
                let mut bytes = Vec::new();
                key::encode_start(&kind.beginning(value.as_str()?).0, order, &mut bytes);
                Some(bytes)
            }
            None => None,
        };
        for p in prefixes {
            let mut range = match &start {
                Some(start) => KeyRange::prefix(&[p.as_slice(), start].concat()),
                None => KeyRange::prefix(&p),
            };
            if s.lower.is_some() || s.upper.is_some() || s.not_null {
                // NULLs are at one end and satisfy no bound.
                let mut null = p.clone();
                key::encode(&Datum::Null, order, &mut null)?;
                range = if order.nulls_first { range.above(&null) } else { range.below(&null) };
            }
            for (bound, is_lower) in [(&lower, true), (&upper, false)] {
                match bound {
                    Bound::None => {}
                    Bound::Nothing => return Ok(()),
                    Bound::At(bytes, inclusive) => {
                        let bytes = [p.as_slice(), bytes].concat();
                        range = match (is_lower != order.desc, inclusive) {
                            (true, true) => range.at_least(&bytes),
                            (true, false) => range.above(&bytes),
                            (false, true) => range.at_most(&bytes),
                            (false, false) => range.below(&bytes),
                        };
                    }
                }
            }
            if !range.is_empty() {
                out.push(range);
            }
        }
        if !s.backward {
            out.reverse();
        }
        Ok(())
    }
}

/// The output row from an index entry: `map` names the index's column of each value. False if the entry does not carry them: it was made
/// before INCLUDE columns were stored.
fn from_entry(s: &IndexScan, map: &[usize], entry: &btree::Item<'_>, values: &mut Vec<Datum>, out: &mut Row) -> Result<bool, SqlError> {
    values.clear();
    let n_key = s.index.n_key;
    let last_key = map.iter().copied().filter(|column| *column < n_key).max();
    let mut key = entry.key;
    for (ty, order) in s.types.iter().zip(&s.orders).take(last_key.map_or(0, |last| last + 1)) {
        values.push(key::decode(*ty, *order, &mut key)?);
    }
    if map.iter().any(|column| *column >= n_key) {
        if entry.carried.is_empty() {
            return Ok(false);
        }
        values.resize(n_key, Datum::Null);
        s.index.decode_carried(entry.carried, values)?;
    }
    out.clear();
    out.extend(map.iter().map(|column| values.get(*column).cloned().unwrap_or_default()));
    shape_rows(&s.scan, out);
    Ok(true)
}

impl IndexScanNode {
    /// A bitmap scan: all tids first, then the rows in the table's order.
    fn next_in_heap_order(&mut self, x: &mut Exec<'_>, s: &IndexScan, id: usize, out: &mut Row) -> Result<bool, SqlError> {
        let engine = x.state.engine()?.clone();
        let ctx = engine.ctx();
        let tids = match &mut self.tids {
            Some(tids) => tids,
            None => {
                let mut list: Vec<Tid> = Vec::new();
                while let Some(range) = self.ranges.pop() {
                    let mut scan =
                        btree::Scan::new(&self.index, range, Direction::Forward, ScanOptions::default()).reading_for(x.state.snapshot()?);
                    while let Some((_, tid)) = scan.next(ctx)? {
                        list.push(tid);
                        if list.len() & 4095 == 0 {
                            x.session.check_cancel()?;
                        }
                    }
                }
                list.sort_unstable();
                list.dedup();
                self.tids.insert(list.into_iter())
            }
        };
        loop {
            let Some(tid) = tids.next() else { return Ok(false) };
            self.count = self.count.wrapping_add(1);
            if self.count & 1023 == 0 {
                x.session.check_cancel()?;
            }
            let scratch = &mut self.scratch;
            let found = heap::fetch(ctx, &self.rel, tid, x.state.snapshot()?, |at, bytes| (at, fill(&s.scan, at, bytes, scratch, out)))?;
            let Some((at, filled)) = found else { continue };
            filled?;
            if let Some(tally) = &mut self.tally {
                tally.rows += 1;
            }
            system_columns(x, &s.scan, at, out)?;
            match &s.scan.filter {
                Some(f) if !f.holds(x, out)? => removed(x, id),
                _ => return pass(x, self.packed, out),
            }
        }
    }
}

impl Node for IndexScanNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let plan = self.plan.clone();
        let PlanOp::IndexScan(s) = &plan.op else { return Err(wrong_plan()) };
        if x.state.replaced.is_some()
            && let Some(found) = replaced(x, &s.scan, &mut self.replaced, &mut self.scratch, out, s.recheck.as_ref())?
        {
            return if found { pass(x, self.packed, out) } else { Ok(false) };
        }
        if !self.started {
            Self::ranges(s, x, &mut self.ranges)?;
            self.started = true;
            self.done = true;
            self.tids = None;
            if self.tally.is_none() {
                self.tally = Some(Tally::new(x, &self.rel, Some(&self.index))?);
            }
            if let Some(tally) = &mut self.tally {
                tally.scans += 1;
            }
        }
        if s.bitmap {
            return self.next_in_heap_order(x, s, plan.id, out);
        }
        loop {
            if self.done {
                let Some(range) = self.ranges.pop() else { return Ok(false) };
                match &mut self.scan {
                    Some(scan) => scan.restart(range),
                    None => {
                        let direction = if s.backward { Direction::Backward } else { Direction::Forward };
                        // Replay does not wait for pins as vacuum does; and what a serializable transaction reads is marked by row.
                        self.keys_only =
                            s.index_only.is_some() && !x.access()?.txns.in_recovery() && x.state.snapshot()?.serializable().is_none();
                        let options = ScanOptions { keys: self.keys_only, pin: self.keys_only };
                        let scan = btree::Scan::new(&self.index, range, direction, options);
                        self.scan = Some(scan.reading_for(x.state.snapshot()?));
                    }
                }
                self.done = false;
            }
            let Some(scan) = &mut self.scan else { return Err(wrong_plan()) };
            let engine = x.state.engine()?;
            let ctx = engine.ctx();
            self.count = self.count.wrapping_add(1);
            if self.count & 1023 == 0 {
                x.session.check_cancel()?;
            }
            let Some((_, tid)) = scan.next(ctx)? else {
                self.done = true;
                continue;
            };
            // The leaf is pinned, so that the entry's row cannot have been replaced since the entry was read.
            if let (true, Some(map)) = (self.keys_only, &s.index_only)
                && vm::all_visible(&ctx.pool, self.rel.file, tid.block).map_err(AccessError::from)?
                && from_entry(s, map, &scan.last(), &mut self.scratch, out)?
            {
                if s.single {
                    scan.end(ctx)?;
                    self.done = true;
                }
                match &s.scan.filter {
                    Some(f) if !f.holds(x, out)? => removed(x, plan.id),
                    _ => return pass(x, self.packed, out),
                }
                continue;
            }
            let scratch = &mut self.scratch;
            let found = heap::fetch(ctx, &self.rel, tid, x.state.snapshot()?, |at, bytes| (at, fill(&s.scan, at, bytes, scratch, out)))?;
            let Some((at, filled)) = found else {
                if !ctx.txns.in_recovery() && heap::is_dead_to_all(ctx, &self.rel, tid)? {
                    scan.mark_dead();
                }
                x.note(plan.id, |stats| stats.heap_fetches += 1);
                continue;
            };
            filled?;
            if let Some(tally) = &mut self.tally {
                tally.rows += 1;
            }
            if s.single {
                // No other row can match; let go of the leaf.
                scan.end(ctx)?;
                self.done = true;
            }
            x.note(plan.id, |stats| stats.heap_fetches += 1);
            system_columns(x, &s.scan, at, out)?;
            match &s.scan.filter {
                Some(f) if !f.holds(x, out)? => removed(x, plan.id),
                _ => return pass(x, self.packed, out),
            }
        }
    }

    fn rescan(&mut self, _x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.started = false;
        self.done = false;
        self.replaced = false;
        Ok(())
    }
}

/// `ctid = ..`.
pub(super) struct TidScanNode {
    plan: Arc<PlanNode>,
    tids: Option<std::vec::IntoIter<Tid>>,
    scratch: Vec<Datum>,
    replaced: bool,
    packed: bool,
}

impl TidScanNode {
    pub(super) fn new(plan: Arc<PlanNode>, packed: bool) -> Self {
        Self { plan, tids: None, scratch: Vec::new(), replaced: false, packed }
    }
}

/// The places that `ctid = ..` asks for, each once, in their order.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn wanted_places(x: &mut Exec<'_>, code: &super::code::Code) -> Result<Vec<Tid>, SqlError> {
    let mut list: Vec<Tid> = match code.eval(x, &[])? {
        Datum::Array(a) => a.values.iter().filter_map(datum_tid).collect(),
        v => datum_tid(&v).into_iter().collect(),
    };
    list.sort_unstable();
    list.dedup();
    Ok(list)
}

impl Node for TidScanNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let PlanOp::TidScan(scan, code) = &self.plan.op else { return Err(wrong_plan()) };
        if x.state.replaced.is_some()
            && let Some(found) = replaced(x, scan, &mut self.replaced, &mut self.scratch, out, None)?
        {
            let places = wanted_places(x, code)?;
            // The row has moved on; it is one of those asked for only if its new place is.
            let at = x.state.replaced.as_ref().and_then(|rows| rows.get(&scan.scan_id)).and_then(|row| row.as_ref()).map(|row| row.0);
            let meant = found && at.is_some_and(|at| places.contains(&at));
            return if meant { pass(x, self.packed, out) } else { Ok(false) };
        }
        let tids = match &mut self.tids {
            Some(t) => t,
            None => self.tids.insert(wanted_places(x, code)?.into_iter()),
        };
        let rel = handle(scan)?;
        loop {
            let Some(tid) = tids.next() else { return Ok(false) };
            let scratch = &mut self.scratch;
            let found = heap::fetch_exact(x.access()?, &rel, tid, x.state.snapshot()?, |at, bytes| fill(scan, at, bytes, scratch, out))?;
            let Some(filled) = found else { continue };
            filled?;
            system_columns(x, scan, tid, out)?;
            match &scan.filter {
                Some(f) if !f.holds(x, out)? => removed(x, self.plan.id),
                _ => return pass(x, self.packed, out),
            }
        }
    }

    fn rescan(&mut self, _x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.tids = None;
        self.replaced = false;
        Ok(())
    }
}

/// Rows made on the fly, all at once: providers have no way to pause.
pub(super) struct VirtualScanNode {
    plan: Arc<PlanNode>,
    rows: Option<std::vec::IntoIter<Row>>,
}

impl VirtualScanNode {
    pub(super) fn new(plan: Arc<PlanNode>) -> Self {
        Self { plan, rows: None }
    }
}

impl Node for VirtualScanNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let PlanOp::VirtualScan(scan) = &self.plan.op else { return Err(wrong_plan()) };
        let rows = match &mut self.rows {
            Some(rows) => rows,
            None => {
                let mut list: Vec<Row> = Vec::new();
                let mut emit = |values: &[Datum]| {
                    list.push(
                        scan.outputs
                            .iter()
                            .map(|o| match o {
                                ScanColumn::Attribute(i) => values.get(*i).cloned().unwrap_or_default(),
                                ScanColumn::TableOid => Datum::Oid(scan.relation.oid),
                                ScanColumn::Tid | ScanColumn::Xmin | ScanColumn::Xmax | ScanColumn::Cmin | ScanColumn::Cmax => Datum::Null,
                            })
                            .collect(),
                    );
                    Ok(())
                };
                match &scan.relation.source {
                    Source::Virtual(table) => {
                        let table = table.clone();
                        let catalog = x.session.catalog.clone();
                        table.rows(&mut VirtualCx { catalog: &catalog, session: x.session }, &mut emit)?;
                    }
                    Source::File(_) if scan.relation.kind == RelKind::Sequence => {
                        let state = crate::access::sequence::read(&x.session.access(), &handle(scan)?)?;
                        emit(&[Datum::Int8(state.last_value), Datum::Int8(state.log_count), Datum::Bool(state.is_called)])?;
                    }
                    // Composite types and partitioned tables hold nothing.
                    Source::File(_) | Source::View(_) | Source::None => return Ok(false),
                }
                self.rows.insert(list.into_iter())
            }
        };
        for row in rows.by_ref() {
            out.clear();
            out.extend(row);
            match &scan.filter {
                Some(f) if !f.holds(x, out)? => removed(x, self.plan.id),
                _ => return Ok(true),
            }
        }
        Ok(false)
    }

    fn rescan(&mut self, _x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.rows = None;
        Ok(())
    }
}

/// VALUES.
pub(super) struct ValuesNode {
    plan: Arc<PlanNode>,
    at: usize,
}

impl ValuesNode {
    pub(super) fn new(plan: Arc<PlanNode>) -> Self {
        Self { plan, at: 0 }
    }
}

impl Node for ValuesNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let PlanOp::Values(rows) = &self.plan.op else { return Err(wrong_plan()) };
        out.clear();
        let Some(row) = rows.get(self.at) else { return Ok(false) };
        self.at += 1;
        for code in row {
            let v = code.eval(x, &[])?;
            out.push(v);
        }
        Ok(true)
    }

    fn rescan(&mut self, _x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.at = 0;
        Ok(())
    }
}

/// Functions in FROM.
pub(super) struct FunctionNode {
    plan: Arc<PlanNode>,
    sets: Option<Vec<SetRows>>,
    count: i64,
}

impl FunctionNode {
    pub(super) fn new(plan: Arc<PlanNode>) -> Self {
        Self { plan, sets: None, count: 0 }
    }
}

impl Node for FunctionNode {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let PlanOp::Function(f) = &self.plan.op else { return Err(wrong_plan()) };
        let sets = match &mut self.sets {
            Some(s) => s,
            None => {
                let mut sets = Vec::with_capacity(f.calls.len());
                for (call, _) in &f.calls {
                    sets.push(call_set(x, call, &[])?);
                }
                self.count = 0;
                self.sets.insert(sets)
            }
        };
        loop {
            out.clear();
            let mut any = false;
            for (set, (call, columns)) in sets.iter_mut().zip(&f.calls) {
                match set.next() {
                    None => out.extend(std::iter::repeat_n(Datum::Null, *columns)),
                    Some(v) => {
                        any = true;
                        match v? {
                            Datum::Record(r) if call.record => {
                                let end = out.len() + *columns;
                                out.extend(r.desc.cols.iter().zip(&r.values).filter(|(c, _)| !c.dropped).map(|(_, v)| v.clone()));
                                out.resize(end, Datum::Null);
                            }
                            Datum::Null if call.record => out.extend(std::iter::repeat_n(Datum::Null, *columns)),
                            v => out.push(v),
                        }
                    }
                }
            }
            if !any {
                return Ok(false);
            }
            self.count += 1;
            if self.count & 1023 == 0 {
                x.session.check_cancel()?;
            }
            if f.ordinality {
                out.push(Datum::Int8(self.count));
            }
            match &f.filter {
                Some(c) if !c.holds(x, out)? => removed(x, self.plan.id),
                _ => return Ok(true),
            }
        }
    }

    fn rescan(&mut self, _x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.sets = None;
        Ok(())
    }
}
