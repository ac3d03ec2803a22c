//! Subqueries in expressions.

use std::sync::Arc;

use hashbrown::HashTable;

use super::eval::{Exec, Row};
use super::hash::{hash_values, row_bytes, same_rows, same_value};
use super::node::{Node, build};
use super::plan::{PlannedStmt, Quantified, SortColumn, Subplan, SubplanKind};
use super::sort::Sorter;
use super::spill::{read_row, row_len, write_row};
use super::temp_file::{TempFile, temp_file};
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

/// The rows of a subquery that a row is looked for in, and what NULLs make of the answer.
struct Hashed {
    rows: RowSet,
    /// The rows as a row sees them that has NULLs of its own: with the same NULLs, which are these.
    seen: Vec<(Nulls, RowSet)>,
}

/// Which columns of a row are NULL.
type Nulls = Box<[bool]>;

/// More sets of rows than this, each with other NULLs, are not made: then each row is looked at.
const MOST_SEEN: usize = 8;
/// More kinds of rows than this, each with other NULLs, are not told apart.
const MOST_KINDS: usize = 64;

/// Distinct rows, to be looked up by value: in a hash table, or once they are more than the memory for one, in a file in the order
/// of their hashes, where a row is found by reading one block.
struct RowSet {
    memory: usize,
    rows: Vec<Row>,
    table: HashTable<usize>,
    bytes: usize,
    /// Rows on their way to the file.
    sorter: Option<Sorter>,
    file: Option<HashedFile>,
    /// The NULLs of rows that have some, each kind once.
    kinds: Vec<Nulls>,
    /// There are too many kinds.
    manifold: bool,
    any: bool,
}

/// Rows behind their hashes, in the order of these.
struct HashedFile {
    file: TempFile,
    end: u64,
    /// Hash of the first row of each block, and the block's place.
    blocks: Vec<(i64, u64)>,
    /// The block being written.
    buf: Vec<u8>,
    /// Blocks read last, each at its number modulo their count.
    cached: Vec<(usize, Vec<u8>)>,
}

/// Bytes of rows that are read together: a look-up wants one row.
const BLOCK: usize = 4 << 10;
/// No block.
const NO_BLOCK: usize = usize::MAX;

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

/// The row with NULLs in these columns, too.
fn masked(row: &[Datum], nulls: &[bool]) -> Row {
    row.iter().zip(nulls).map(|(v, null)| if *null { Datum::Null } else { v.clone() }).collect()
}

fn nulls_of(row: &[Datum]) -> Nulls {
    row.iter().map(Datum::is_null).collect()
}

/// A hash as a sort key.
fn sort_hash(row: &[Datum]) -> i64 {
    hash_values(row).cast_signed()
}

fn behind_hash(row: Row) -> Row {
    std::iter::once(Datum::Int8(sort_hash(&row))).chain(row).collect()
}

fn lost() -> SqlError {
    SqlError::internal("hashed subplan")
}

impl Hashed {
    fn new(x: &mut Exec<'_>, node: &mut dyn Node) -> Result<Self, SqlError> {
        let mut rows = RowSet::new(super::hash::memory(x));
        let mut out = Row::new();
        let mut count = 0u32;
        while node.next(x, &mut out)? {
            count = count.wrapping_add(1);
            if count & 1023 == 0 {
                x.session.check_cancel()?;
            }
            rows.push(x, std::mem::take(&mut out))?;
        }
        rows.finish(x)?;
        Ok(Self { rows, seen: Vec::new() })
    }

    /// IN with NULL rules: unknown if a row might be equal but for its NULLs.
    fn probe(&mut self, x: &Exec<'_>, values: &[Datum]) -> Result<Datum, SqlError> {
        if !self.rows.any {
            return Ok(Datum::Bool(false));
        }
        let nulls = values.iter().filter(|v| v.is_null()).count();
        let possible = if nulls == values.len() {
            true
        } else if nulls > 0 {
            let own = nulls_of(values);
            match self.seen_with(x, &own)? {
                Some(rows) => rows.has_possible(x, values)?,
                None => self.rows.any(x, |r| is_possible(r, values))?,
            }
        } else if self.rows.contains(values)? {
            return Ok(Datum::Bool(true));
        } else {
            self.rows.has_possible(x, values)?
        };
        Ok(if possible { Datum::Null } else { Datum::Bool(false) })
    }

    /// The rows as one sees them that has these NULLs. `None`: look at each.
    fn seen_with(&mut self, x: &Exec<'_>, own: &[bool]) -> Result<Option<&mut RowSet>, SqlError> {
        let at = match self.seen.iter().position(|(nulls, _)| **nulls == *own) {
            Some(at) => at,
            None if self.seen.len() >= MOST_SEEN => return Ok(None),
            None => {
                let mut set = RowSet::new(self.rows.memory / MOST_SEEN);
                self.rows.each(x, |row| set.push(x, masked(row, own)).map(|()| true))?;
                set.finish(x)?;
                self.seen.push((own.into(), set));
                self.seen.len() - 1
            }
        };
        Ok(self.seen.get_mut(at).map(|(_, rows)| rows))
    }
}

impl RowSet {
    fn new(memory: usize) -> Self {
        Self {
            memory,
            rows: Vec::new(),
            table: HashTable::new(),
            bytes: 0,
            sorter: None,
            file: None,
            kinds: Vec::new(),
            manifold: false,
            any: false,
        }
    }

    fn push(&mut self, x: &Exec<'_>, row: Row) -> Result<(), SqlError> {
        self.any = true;
        if row.iter().any(Datum::is_null) && !self.manifold {
            let is_known = |kind: &Nulls| kind.iter().zip(&row).all(|(null, v)| *null == v.is_null());
            if !self.kinds.iter().any(is_known) {
                self.kinds.push(nulls_of(&row));
                self.manifold = self.kinds.len() > MOST_KINDS;
            }
        }
        if let Some(sorter) = &mut self.sorter {
            return sorter.push(x, behind_hash(row));
        }
        self.insert(row);
        if self.bytes > self.memory {
            let order = [SortColumn { column: 0, desc: false, nulls_first: false }];
            let mut all = Sorter::new(x, Arc::from(order));
            self.table = HashTable::new();
            for row in std::mem::take(&mut self.rows) {
                all.push(x, behind_hash(row))?;
            }
            self.sorter = Some(all);
        }
        Ok(())
    }

    fn insert(&mut self, row: Row) {
        let hash = hash_values(row.iter());
        let Self { rows, table, .. } = self;
        if table.find(hash, |i| rows.get(*i).is_some_and(|r| same_rows(r, &row))).is_some() {
            return;
        }
        self.bytes += row_bytes(&row) + 32;
        let i = rows.len();
        rows.push(row);
        table.insert_unique(hash, i, |i| rows.get(*i).map_or(0, |r| hash_values(r.iter())));
    }

    /// All rows are there: those that were sorted go into the file, equal ones once.
    fn finish(&mut self, x: &Exec<'_>) -> Result<(), SqlError> {
        let Some(sorter) = self.sorter.take() else { return Ok(()) };
        let mut sorted = sorter.finish(x)?;
        let mut file = HashedFile { file: temp_file(x.session)?, end: 0, blocks: Vec::new(), buf: Vec::new(), cached: Vec::new() };
        let mut last = Row::new();
        let mut count = 0u32;
        while let Some(row) = sorted.next()? {
            count = count.wrapping_add(1);
            if count & 1023 == 0 {
                x.session.check_cancel()?;
            }
            if same_rows(&last, &row) {
                continue;
            }
            file.push(&row)?;
            last = row;
        }
        file.flush()?;
        file.cached.resize_with((self.memory / BLOCK).max(1), || (NO_BLOCK, Vec::new()));
        self.file = Some(file);
        Ok(())
    }

    fn contains(&mut self, values: &[Datum]) -> Result<bool, SqlError> {
        if let Some(file) = &mut self.file {
            return file.contains(values);
        }
        Ok(self.table.find(hash_values(values), |i| self.rows.get(*i).is_some_and(|r| same_rows(r, values))).is_some())
    }

    /// Whether a row with NULLs might be this one but for them.
    fn has_possible(&mut self, x: &Exec<'_>, values: &[Datum]) -> Result<bool, SqlError> {
        if self.manifold {
            return self.any(x, |r| r.iter().any(Datum::is_null) && is_possible(r, values));
        }
        for at in 0..self.kinds.len() {
            let Some(kind) = self.kinds.get(at) else { continue };
            let wanted = masked(values, kind);
            if self.contains(&wanted)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn any(&self, x: &Exec<'_>, test: impl Fn(&[Datum]) -> bool) -> Result<bool, SqlError> {
        let mut found = false;
        self.each(x, |row| {
            found = test(row);
            Ok(!found)
        })?;
        Ok(found)
    }

    /// Hands out each row until it is said to be enough.
    fn each(&self, x: &Exec<'_>, mut f: impl FnMut(&[Datum]) -> Result<bool, SqlError>) -> Result<(), SqlError> {
        for rows in self.rows.chunks(1024) {
            x.session.check_cancel()?;
            for row in rows {
                if !f(row)? {
                    return Ok(());
                }
            }
        }
        let Some(file) = &self.file else { return Ok(()) };
        let mut bytes = Vec::new();
        for number in 0..file.blocks.len() {
            x.session.check_cancel()?;
            file.read(number, &mut bytes)?;
            let mut rest = bytes.as_slice();
            while let Some((_, mut row)) = split(&mut rest)? {
                if !f(&read_row(&mut row)?.ok_or_else(lost)?)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Takes a hash and the row behind it off the front.
fn split<'b>(bytes: &mut &'b [u8]) -> Result<Option<(i64, &'b [u8])>, SqlError> {
    let Some((hash, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let (row, rest) = rest.split_at_checked(row_len(rest)?).ok_or_else(lost)?;
    *bytes = rest;
    Ok(Some((i64::from_le_bytes(*hash), row)))
}

impl HashedFile {
    /// Adds a row that lies behind its hash.
    fn push(&mut self, row: &[Datum]) -> Result<(), SqlError> {
        let Some((Datum::Int8(hash), values)) = row.split_first() else { return Err(lost()) };
        if self.buf.is_empty() {
            self.blocks.push((*hash, self.end));
        }
        self.buf.extend(hash.to_le_bytes());
        write_row(&mut self.buf, values)?;
        if self.buf.len() >= BLOCK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SqlError> {
        self.file.write_at(&self.buf, self.end)?;
        self.end += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }

    fn read(&self, number: usize, bytes: &mut Vec<u8>) -> Result<(), SqlError> {
        let (_, at) = self.blocks.get(number).ok_or_else(lost)?;
        let upto = self.blocks.get(number + 1).map_or(self.end, |(_, at)| *at);
        bytes.resize(usize::try_from(upto - at).map_err(|_| lost())?, 0);
        self.file.read_at(bytes, *at)
    }

    /// Rows are compared as they lie there, by hash; only one with the right hash is made a row.
    fn contains(&mut self, values: &[Datum]) -> Result<bool, SqlError> {
        let hash = sort_hash(values);
        // Rows of one hash may begin in the block before the first that begins with it.
        let from = self.blocks.partition_point(|(first, _)| *first < hash).saturating_sub(1);
        for number in from..self.blocks.len() {
            let slots = self.cached.len().max(1);
            let (at, mut bytes) = std::mem::take(self.cached.get_mut(number % slots).ok_or_else(lost)?);
            if at != number {
                self.read(number, &mut bytes)?;
            }
            let found = find(&bytes, hash, values);
            if let Some(slot) = self.cached.get_mut(number % slots) {
                *slot = (number, bytes);
            }
            if let Some(found) = found? {
                return Ok(found);
            }
        }
        Ok(false)
    }
}

/// Whether the row is in a block; `None`: it would come later.
fn find(mut block: &[u8], hash: i64, values: &[Datum]) -> Result<Option<bool>, SqlError> {
    while let Some((at, mut row)) = split(&mut block)? {
        if at > hash {
            return Ok(Some(false));
        }
        if at == hash && same_rows(&read_row(&mut row)?.ok_or_else(lost)?, values) {
            return Ok(Some(true));
        }
    }
    Ok(None)
}
