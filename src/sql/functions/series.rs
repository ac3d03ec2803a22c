//! `generate_series`, `unnest` and the other set-returning functions over plain values.

use std::sync::Arc;

use super::call::{Call, SetFn, SetRows};
use crate::sql::types::{Datum, Numeric};
use crate::sqlstate::{SqlError, SqlState};

type Rows = Result<SetRows, SqlError>;

fn zero_step() -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "step size cannot equal zero")
}

fn ints(a: &[Datum], make: fn(i64) -> Datum) -> Rows {
    let (start, stop) = (super::integer::wide(&a[0])?, super::integer::wide(&a[1])?);
    let step = a.get(2).map_or(Ok(1), super::integer::wide)?;
    if step == 0 {
        return Err(zero_step());
    }
    let mut next = Some(start);
    Ok(Box::new(std::iter::from_fn(move || {
        let v = next.filter(|v| if step > 0 { *v <= stop } else { *v >= stop })?;
        next = v.checked_add(step);
        Some(Ok(make(v)))
    })))
}

#[expect(clippy::cast_possible_truncation, reason = "between start and stop, which are int4")]
fn int4(v: i64) -> Datum {
    Datum::Int4(v as i32)
}

fn numerics(_: &mut Call<'_>, a: &[Datum]) -> Rows {
    let (start, stop) = (a[0].as_numeric()?.clone(), a[1].as_numeric()?.clone());
    let step = a.get(2).map_or(Ok(&Numeric::ONE), Datum::as_numeric)?.clone();
    let bad = |what: &str, why: &str| Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("{what} value cannot be {why}")));
    for (what, v) in [("start", &start), ("stop", &stop)] {
        if v.is_nan() {
            return bad(what, "NaN");
        }
        if !v.is_finite() {
            return bad(what, "infinity");
        }
    }
    if step.is_nan() || !step.is_finite() {
        let why = if step.is_nan() { "NaN" } else { "infinity" };
        return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("step size cannot be {why}")));
    }
    if step.is_zero() {
        return Err(zero_step());
    }
    let up = step.signum() > 0;
    // Each value shows at least the scale of the step.
    let mut next = Some(start);
    Ok(Box::new(std::iter::from_fn(move || {
        let v = next.take().filter(|v| if up { *v <= stop } else { *v >= stop })?;
        match v.add(&step) {
            Ok(n) => next = Some(n),
            Err(e) => return Some(Err(e)),
        }
        Some(Ok(Datum::Numeric(v)))
    })))
}

fn moments(c: &mut Call<'_>, a: &[Datum], absolute: bool) -> Rows {
    let get = |d: &Datum| if absolute { d.as_timestamptz() } else { d.as_timestamp() };
    let (start, stop, step) = (get(&a[0])?, get(&a[1])?, a[2].as_interval()?);
    let span = crate::sql::types::compare::interval_span(step);
    if span == 0 {
        return Err(zero_step());
    }
    let zone = absolute.then(|| c.io().time_zone.clone());
    let mut next = Some(start);
    Ok(Box::new(std::iter::from_fn(move || {
        let v = next.take().filter(|v| if span > 0 { *v <= stop } else { *v >= stop })?;
        let advanced = match &zone {
            Some(z) => super::datetime::add_interval_tz(v, step, z),
            None => super::datetime::add_interval(v, step),
        };
        match advanced {
            Ok(n) if n != v => next = Some(n),
            Ok(_) => {}
            Err(e) => return Some(Err(e)),
        }
        Some(Ok(if zone.is_some() { Datum::TimestampTz(v) } else { Datum::Timestamp(v) }))
    })))
}

fn unnest(_: &mut Call<'_>, a: &[Datum]) -> Rows {
    let array = Arc::clone(a[0].as_array()?);
    let mut at = 0;
    Ok(Box::new(std::iter::from_fn(move || {
        let v = array.values.get(at)?.clone();
        at += 1;
        Some(Ok(v))
    })))
}

fn subscripts(_: &mut Call<'_>, a: &[Datum], reverse: bool) -> Rows {
    let dim = a[1].as_i32()?;
    let d = usize::try_from(i64::from(dim) - 1).ok().and_then(|i| a[0].as_array().ok()?.dims.get(i).copied());
    let Some(d) = d else { return Ok(Box::new(std::iter::empty())) };
    let range = d.lower..d.lower + d.len;
    if reverse {
        return Ok(Box::new(range.rev().map(|v| Ok(Datum::Int4(v)))));
    }
    Ok(Box::new(range.map(|v| Ok(Datum::Int4(v)))))
}

/// Rows from values already at hand.
pub(super) fn rows(values: Vec<Datum>) -> SetRows {
    Box::new(values.into_iter().map(Ok))
}

/// `string_to_table`: a piece at a time.
fn text_to_table(_: &mut Call<'_>, a: &[Datum]) -> Rows {
    let Datum::Text(text) = &a[0] else { return Ok(Box::new(std::iter::empty())) };
    let text = text.clone();
    let by = if a[1].is_null() { None } else { Some(a[1].as_str()?.to_owned()) };
    let null = match a.get(2) {
        Some(Datum::Text(null)) => Some(null.clone()),
        _ => None,
    };
    let mut at = (!text.is_empty()).then_some(0);
    Ok(Box::new(std::iter::from_fn(move || {
        let from = at?;
        let rest = text.get(from..).unwrap_or_default();
        // Where the piece ends, and the delimiter behind it; no delimiter: the last one.
        let (piece, end) = match by.as_deref() {
            None => {
                let len = rest.chars().next().map_or(0, char::len_utf8);
                (len, (from + len < text.len()).then_some(len))
            }
            Some("") => (rest.len(), None),
            Some(by) => rest.find(by).map_or((rest.len(), None), |found| (found, Some(found + by.len()))),
        };
        at = end.map(|end| from + end);
        let piece = rest.get(..piece).unwrap_or_default();
        Some(Ok(if null.as_ref().is_some_and(|null| null.as_str() == piece) { Datum::Null } else { Datum::text(piece) }))
    })))
}

/// `regexp_split_to_table`: where the pieces lie is found at once, for the expression must fail before the first.
fn regexp_split_to_table(_: &mut Call<'_>, a: &[Datum]) -> Rows {
    let pieces = super::pattern::pieces(a)?;
    let text = a[0].as_str()?.to_owned();
    Ok(Box::new(pieces.into_iter().map(move |piece| Ok(Datum::text(text.get(piece).unwrap_or_default())))))
}

/// By `prosrc`.
pub(super) const SETS: &[(&str, SetFn)] = &[
    ("generate_series_int4", |_, a| ints(a, int4)),
    ("generate_series_step_int4", |_, a| ints(a, int4)),
    ("generate_series_int8", |_, a| ints(a, Datum::Int8)),
    ("generate_series_step_int8", |_, a| ints(a, Datum::Int8)),
    ("generate_series_numeric", numerics),
    ("generate_series_step_numeric", numerics),
    ("generate_series_timestamp", |c, a| moments(c, a, false)),
    ("generate_series_timestamptz", |c, a| moments(c, a, true)),
    ("array_unnest", unnest),
    ("generate_subscripts", |c, a| subscripts(c, a, a.get(2).is_some_and(Datum::is_true))),
    ("generate_subscripts_nodir", |c, a| subscripts(c, a, false)),
    ("text_to_table", text_to_table),
    ("text_to_table_null", text_to_table),
    ("regexp_split_to_table", regexp_split_to_table),
    ("regexp_split_to_table_no_flags", regexp_split_to_table),
    ("regexp_matches", |_, a| super::pattern::matches(a).map(rows)),
    ("regexp_matches_no_flags", |_, a| super::pattern::matches(a).map(rows)),
];
