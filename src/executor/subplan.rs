//! Subqueries in expressions.

use hashbrown::HashTable;

use super::eval::{Exec, Row};
use super::hash::{hash_values, same_rows};
use super::node::{Node, build};
use super::plan::{PlannedStmt, Quantified, Subplan, SubplanKind};
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

struct Hashed {
    rows: Vec<Row>,
    table: HashTable<usize>,
    /// Rows with a NULL.
    partial: Vec<usize>,
}

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
            run.hashed = Some(hash(x, run.node.as_mut())?);
            run.started = true;
        }
        let values = lefts.iter().map(|l| l.eval(x, row)).collect::<Result<Row, _>>()?;
        return match &run.hashed {
            Some(h) => Ok(probe(h, &values)),
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
                Datum::Record(std::sync::Arc::new(RecordValue { type_oid: crate::sql::types::oids::RECORD, desc: desc.clone(), values }))
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

fn hash(x: &mut Exec<'_>, node: &mut dyn Node) -> Result<Hashed, SqlError> {
    let mut h = Hashed { rows: Vec::new(), table: HashTable::new(), partial: Vec::new() };
    let mut out = Row::new();
    while node.next(x, &mut out)? {
        if h.rows.len() & 1023 == 0 {
            x.session.check_cancel()?;
        }
        let code = hash_values(out.iter());
        let Hashed { rows, table, partial } = &mut h;
        if table.find(code, |i| rows.get(*i).is_some_and(|r| same_rows(r, &out))).is_some() {
            continue;
        }
        let i = rows.len();
        if out.iter().any(Datum::is_null) {
            partial.push(i);
        }
        rows.push(std::mem::take(&mut out));
        table.insert_unique(code, i, |i| rows.get(*i).map_or(0, |r| hash_values(r.iter())));
    }
    Ok(h)
}

/// IN with NULL rules: unknown if a row might be equal but for its NULLs.
fn probe(h: &Hashed, values: &[Datum]) -> Datum {
    if h.rows.is_empty() {
        return Datum::Bool(false);
    }
    let possible = |r: &Row| r.iter().zip(values).all(|(a, b)| a.is_null() || b.is_null() || super::hash::same_value(a, b));
    if values.iter().any(Datum::is_null) {
        return if h.rows.iter().any(possible) { Datum::Null } else { Datum::Bool(false) };
    }
    if h.table.find(hash_values(values), |i| h.rows.get(*i).is_some_and(|r| same_rows(r, values))).is_some() {
        return Datum::Bool(true);
    }
    if h.partial.iter().filter_map(|i| h.rows.get(*i)).any(possible) { Datum::Null } else { Datum::Bool(false) }
}
