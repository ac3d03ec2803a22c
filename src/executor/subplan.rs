//! Subqueries in expressions.

use std::sync::Arc;

use hashbrown::HashTable;

use super::eval::{Exec, Row};
use super::hash::{hash_values, row_bytes, same_rows, same_value};
use super::node::{Node, build};
use super::plan::{PlannedStmt, Quantified, SortColumn, Subplan, SubplanKind};
use super::row_store::{RowStore, work_mem};
use super::sort::Sorter;
use super::spill::{Part, Store};
use crate::sql::types::{ArrayValue, Datum, RecordValue, array::Dim};
use crate::sqlstate::{SqlError, SqlState};

/// A subplan's execution.
pub struct SubplanRun {
    node: Box<dyn Node>,
    started: bool,
    /// Its result, if that cannot change.
    cached: Option<Datum>,
    /// For hashed quantified comparison.
    hashed: Option<Hashed>,
}

/// The distinct rows of a subquery, to be looked up by value: in a hash table, or once they are more than the memory for one, in a file in the order
/// of their hashes, where a row is found by reading one block.
struct Hashed {
    memory: usize,
    rows: Vec<Row>,
    table: HashTable<usize>,
    bytes: usize,
    file: Option<HashedFile>,
    /// Rows with a NULL.
    partial: RowStore,
    any: bool,
}

/// Rows behind their hashes, in the order of these.
struct HashedFile {
    store: Store,
    rows: Part,
    /// Hash of the first row of each block.
    firsts: Vec<i64>,
    /// Blocks read last, each at its number modulo their count.
    cached: Vec<Option<(usize, Vec<Row>)>>,
}

/// Bytes of rows that are read together: a look-up wants one row.
const BLOCK: usize = 4 << 10;

pub(super) fn eval(x: &mut Exec<'_>, number: usize, row: &[Datum]) -> Result<Datum, SqlError> {
    let stmt = x.state.plan()?.clone();
    let s = plan_of(&stmt, number)?;
    let mut run = match x.state.subplans.get_mut(number).and_then(Option::take) {
        Some(run) => run,
        None => Box::new(SubplanRun { node: build(&s.plan, x)?, started: false, cached: None, hashed: None }),
    };
    if let Some(v) = &run.cached {
        let v = v.clone();
        put_back(x, number, run);
        return Ok(v);
    }
    let result = run_once(x, s, &mut run, row);
    put_back(x, number, run);
    result
}

fn plan_of(stmt: &PlannedStmt, number: usize) -> Result<&Subplan, SqlError> {
    stmt.subplans.get(number).ok_or_else(|| SqlError::internal("subplan"))
}

fn put_back(x: &mut Exec<'_>, number: usize, run: Box<SubplanRun>) {
    if let Some(slot) = x.state.subplans.get_mut(number) {
        *slot = Some(run);
    }
}

fn run_once(x: &mut Exec<'_>, s: &Subplan, run: &mut SubplanRun, row: &[Datum]) -> Result<Datum, SqlError> {
    for (slot, code) in &s.args {
        let v = code.eval(x, row)?;
        if let Some(e) = x.state.exec.get_mut(*slot) {
            *e = v;
        }
    }
    if let SubplanKind::Quantified(q) = &s.kind
        && let Some(lefts) = &q.hash
    {
        if run.hashed.is_none() {
            run.hashed = Some(Hashed::new(x, run.node.as_mut())?);
            run.started = true;
        }
        let values = lefts.iter().map(|l| l.eval(x, row)).collect::<Result<Row, _>>()?;
        return match &mut run.hashed {
            Some(h) => h.probe(x, &values),
            None => Err(SqlError::internal("hashed subplan")),
        };
    }
    if run.started {
        run.node.rescan(x)?;
    }
    run.started = true;
    let node = run.node.as_mut();
    let mut out = Row::new();
    let value = match &s.kind {
        SubplanKind::Exists => {
            node.bound(1);
            Datum::Bool(node.next(x, &mut out)?)
        }
        SubplanKind::Scalar => {
            if node.next(x, &mut out)? {
                let v = out.first().cloned().unwrap_or_default();
                if node.next(x, &mut out)? {
                    return Err(more_than_one());
                }
                v
            } else {
                Datum::Null
            }
        }
        SubplanKind::Row(desc) => {
            if node.next(x, &mut out)? {
                let values: Box<[Datum]> = out.iter().take(desc.len()).cloned().collect();
                if node.next(x, &mut out)? {
                    return Err(more_than_one());
                }
                Datum::Record(Arc::new(RecordValue { type_oid: crate::sql::types::oids::RECORD, desc: desc.clone(), values }))
            } else {
                Datum::Null
            }
        }
        SubplanKind::Array(elem) => {
            let mut values = Vec::new();
            while node.next(x, &mut out)? {
                values.push(out.first().cloned().unwrap_or_default());
            }
            // Arrays of arrays grow a dimension.
            if let Some(Datum::Array(first)) = values.first()
                && first.elem == *elem
            {
                let inner = first.dims.clone();
                let mut dims = smallvec::SmallVec::new();
                dims.push(Dim { len: i32::try_from(values.len()).unwrap_or(i32::MAX), lower: 1 });
                dims.extend(inner.iter().copied());
                let mut flat = Vec::new();
                for v in &values {
                    if let Datum::Array(a) = v {
                        if a.dims != inner {
                            return Err(SqlError::new(
                                SqlState::ARRAY_SUBSCRIPT_ERROR,
                                "cannot accumulate arrays of different dimensionality",
                            ));
                        }
                        flat.extend(a.values.iter().cloned());
                    }
                }
                Datum::array(ArrayValue { elem: *elem, dims, values: flat })
            } else {
                Datum::array(ArrayValue::one_dim(*elem, values))
            }
        }
        SubplanKind::Quantified(q) => return quantified(x, q, node, row),
    };
    if s.args.is_empty() && s.cacheable {
        run.cached = Some(value.clone());
    }
    Ok(value)
}

fn more_than_one() -> SqlError {
    SqlError::new(SqlState::CARDINALITY_VIOLATION, "more than one row returned by a subquery used as an expression")
}

/// Row by row.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn quantified(x: &mut Exec<'_>, q: &Quantified, node: &mut dyn Node, row: &[Datum]) -> Result<Datum, SqlError> {
    let mut null = false;
    let mut out = Row::new();
    while node.next(x, &mut out)? {
        for (slot, v) in q.slots.iter().zip(out.drain(..)) {
            if let Some(e) = x.state.exec.get_mut(*slot) {
                *e = v;
            }
        }
        match q.test.eval(x, row)? {
            Datum::Bool(b) if b == q.any => return Ok(Datum::Bool(q.any)),
            Datum::Null => null = true,
            _ => {}
        }
    }
    Ok(if null { Datum::Null } else { Datum::Bool(!q.any) })
}

/// Could two rows be equal but for their NULLs?
fn is_possible(a: &[Datum], b: &[Datum]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.is_null() || b.is_null() || same_value(a, b))
}

/// A hash as a sort key.
fn sort_hash(row: &[Datum]) -> i64 {
    hash_values(row).cast_signed()
}

fn behind_hash(row: Row) -> Row {
    std::iter::once(Datum::Int8(sort_hash(&row))).chain(row).collect()
}

impl Hashed {
    fn new(x: &mut Exec<'_>, node: &mut dyn Node) -> Result<Self, SqlError> {
        let memory = super::hash::memory(x);
        let partial = RowStore::new(work_mem(x) / 4);
        let mut h = Self { memory, rows: Vec::new(), table: HashTable::new(), bytes: 0, file: None, partial, any: false };
        let mut sorter: Option<Sorter> = None;
        let mut out = Row::new();
        let mut count = 0u32;
        while node.next(x, &mut out)? {
            count = count.wrapping_add(1);
            if count & 1023 == 0 {
                x.session.check_cancel()?;
            }
            h.any = true;
            match &mut sorter {
                None => h.insert(x, std::mem::take(&mut out))?,
                Some(sorter) => sorter.push(x, behind_hash(std::mem::take(&mut out)))?,
            }
            if sorter.is_none() && h.bytes > memory {
                let order = [SortColumn { column: 0, desc: false, nulls_first: false }];
                let mut all = Sorter::new(x, Arc::from(order));
                h.table = HashTable::new();
                for row in std::mem::take(&mut h.rows) {
                    all.push(x, behind_hash(row))?;
                }
                h.partial.clear();
                sorter = Some(all);
            }
        }
        if let Some(sorter) = sorter {
            h.lay_out(x, sorter)?;
        }
        Ok(h)
    }

    fn insert(&mut self, x: &Exec<'_>, row: Row) -> Result<(), SqlError> {
        let hash = hash_values(row.iter());
        let Self { rows, table, .. } = self;
        if table.find(hash, |i| rows.get(*i).is_some_and(|r| same_rows(r, &row))).is_some() {
            return Ok(());
        }
        if row.iter().any(Datum::is_null) {
            self.partial.push(x, row.clone())?;
        }
        self.bytes += row_bytes(&row) + 32;
        let i = rows.len();
        rows.push(row);
        table.insert_unique(hash, i, |i| rows.get(*i).map_or(0, |r| hash_values(r.iter())));
        Ok(())
    }

    /// Puts sorted rows into the file, equal ones once.
    fn lay_out(&mut self, x: &Exec<'_>, sorter: Sorter) -> Result<(), SqlError> {
        let mut sorted = sorter.finish(x)?;
        let mut file = HashedFile { store: Store::new(x)?, rows: Part::default(), firsts: Vec::new(), cached: Vec::new() };
        let mut last = Row::new();
        while let Some(row) = sorted.next()? {
            if same_rows(&last, &row) {
                continue;
            }
            if file.rows.rows & 1023 == 0 {
                x.session.check_cancel()?;
            }
            let (Some(Datum::Int8(hash)), Some(values)) = (row.first(), row.get(1..)) else {
                return Err(SqlError::internal("hashed subplan"));
            };
            if values.iter().any(Datum::is_null) {
                self.partial.push(x, values.to_vec())?;
            }
            if file.firsts.len() == file.rows.blocks() {
                file.firsts.push(*hash);
            }
            file.store.push(&mut file.rows, &row, BLOCK)?;
            last = row;
        }
        file.store.flush(&mut file.rows)?;
        // What a block's rows take in memory is several times what they take in the file.
        file.cached.resize_with((self.memory / (8 * BLOCK)).max(1), || None);
        self.file = Some(file);
        Ok(())
    }

    fn contains(&mut self, values: &[Datum]) -> Result<bool, SqlError> {
        if let Some(file) = &mut self.file {
            return file.contains(values);
        }
        Ok(self.table.find(hash_values(values), |i| self.rows.get(*i).is_some_and(|r| same_rows(r, values))).is_some())
    }

    /// IN with NULL rules: unknown if a row might be equal but for its NULLs.
    fn probe(&mut self, x: &Exec<'_>, values: &[Datum]) -> Result<Datum, SqlError> {
        if !self.any {
            return Ok(Datum::Bool(false));
        }
        let nulls = values.iter().filter(|v| v.is_null()).count();
        let possible = if nulls == values.len() {
            true
        } else if nulls > 0 {
            let found = self.rows.iter().any(|r| is_possible(r, values));
            found
                || match &mut self.file {
                    Some(file) => file.any(x, |r| is_possible(r, values))?,
                    None => false,
                }
        } else if self.contains(values)? {
            return Ok(Datum::Bool(true));
        } else {
            let mut found = false;
            for at in 0..self.partial.len() {
                if at & 1023 == 1023 {
                    x.session.check_cancel()?;
                }
                if self.partial.get(at)?.is_some_and(|r| is_possible(r, values)) {
                    found = true;
                    break;
                }
            }
            found
        };
        Ok(if possible { Datum::Null } else { Datum::Bool(false) })
    }
}

impl HashedFile {
    fn block(&mut self, number: usize) -> Result<&[Row], SqlError> {
        let slots = self.cached.len().max(1);
        let slot = self.cached.get_mut(number % slots).ok_or_else(|| SqlError::internal("hashed subplan"))?;
        if slot.as_ref().is_none_or(|(at, _)| *at != number) {
            *slot = Some((number, self.store.block(&self.rows, number)?));
        }
        Ok(slot.as_ref().map_or(&[], |(_, rows)| rows))
    }

    fn contains(&mut self, values: &[Datum]) -> Result<bool, SqlError> {
        let hash = sort_hash(values);
        // Rows of one hash may begin in the block before the first that begins with it.
        let mut number = self.firsts.partition_point(|first| *first < hash).saturating_sub(1);
        while number < self.firsts.len() {
            let rows = self.block(number)?;
            let hash_of = |row: &Row| match row.first() {
                Some(Datum::Int8(hash)) => *hash,
                _ => i64::MIN,
            };
            let from = rows.partition_point(|row| hash_of(row) < hash);
            for row in rows.get(from..).unwrap_or_default() {
                if hash_of(row) > hash {
                    return Ok(false);
                }
                if row.get(1..).is_some_and(|r| same_rows(r, values)) {
                    return Ok(true);
                }
            }
            number += 1;
        }
        Ok(false)
    }

    fn any(&mut self, x: &Exec<'_>, test: impl Fn(&[Datum]) -> bool) -> Result<bool, SqlError> {
        for number in 0..self.firsts.len() {
            x.session.check_cancel()?;
            if self.block(number)?.iter().any(|row| row.get(1..).is_some_and(&test)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
