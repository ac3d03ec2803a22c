//! Window functions.

use super::call::Call;
use crate::sql::types::Datum;
use crate::sqlstate::{SqlError, SqlState};

/// The partition a window function is computed in, as the executor holds it. Positions count from 0 within the partition.
pub trait WindowFrame {
    /// Rows in the partition.
    fn partition_rows(&self) -> i64;
    /// The current row.
    fn current(&self) -> i64;
    /// First row of the current row's peer group.
    fn peers_start(&self) -> i64;
    /// One past the last row of the current row's peer group.
    fn peers_end(&self) -> i64;
    /// How many peer groups come before the current one.
    fn peer_groups_before(&self) -> i64;
    /// The rows of the frame, exclusions applied: the `n`th from its start (or from its end, counting back).
    ///
    /// # Errors
    /// Evaluation errors.
    fn frame_row(&mut self, n: i64, from_end: bool) -> Result<Option<i64>, SqlError>;
    /// Argument `arg` of the call, evaluated at a row of the partition.
    ///
    /// # Errors
    /// Evaluation errors.
    fn arg_at(&mut self, arg: usize, row: i64) -> Result<Datum, SqlError>;
}

/// Body of a window function: the value at the current row.
pub type WindowFn = fn(&mut Call<'_>, &mut dyn WindowFrame) -> Result<Datum, SqlError>;

fn row_number(_: &mut Call<'_>, w: &mut dyn WindowFrame) -> Result<Datum, SqlError> {
    Ok(Datum::Int8(w.current() + 1))
}

fn rank(_: &mut Call<'_>, w: &mut dyn WindowFrame) -> Result<Datum, SqlError> {
    Ok(Datum::Int8(w.peers_start() + 1))
}

fn dense_rank(_: &mut Call<'_>, w: &mut dyn WindowFrame) -> Result<Datum, SqlError> {
    Ok(Datum::Int8(w.peer_groups_before() + 1))
}

#[expect(clippy::cast_precision_loss, reason = "row counts")]
fn percent_rank(_: &mut Call<'_>, w: &mut dyn WindowFrame) -> Result<Datum, SqlError> {
    let rows = w.partition_rows();
    Ok(Datum::Float8(if rows <= 1 { 0.0 } else { w.peers_start() as f64 / (rows - 1) as f64 }))
}

#[expect(clippy::cast_precision_loss, reason = "row counts")]
fn cume_dist(_: &mut Call<'_>, w: &mut dyn WindowFrame) -> Result<Datum, SqlError> {
    Ok(Datum::Float8(w.peers_end() as f64 / w.partition_rows() as f64))
}

fn ntile(_: &mut Call<'_>, w: &mut dyn WindowFrame) -> Result<Datum, SqlError> {
    let Datum::Int4(buckets) = w.arg_at(0, 0)? else { return Ok(Datum::Null) };
    if buckets <= 0 {
        return Err(SqlError::new(SqlState("22014"), "argument of ntile must be greater than zero"));
    }
    let (buckets, rows, at) = (i64::from(buckets), w.partition_rows(), w.current());
    let (each, extra) = (rows / buckets, rows % buckets);
    // The first `extra` buckets hold one row more.
    let long = extra * (each + 1);
    let bucket = if at < long { at / (each + 1) } else { extra + (at - long) / each.max(1) };
    Ok(Datum::Int4(i32::try_from(bucket + 1).unwrap_or(i32::MAX)))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn shifted(w: &mut dyn WindowFrame, sign: i64, offset: bool, default: bool) -> Result<Datum, SqlError> {
    let at = w.current();
    let by = if offset {
        match w.arg_at(1, at)? {
            Datum::Int4(n) => i64::from(n),
            _ => return Ok(Datum::Null),
        }
    } else {
        1
    };
    let target = at + sign * by;
    if (0..w.partition_rows()).contains(&target) {
        w.arg_at(0, target)
    } else if default {
        w.arg_at(2, at)
    } else {
        Ok(Datum::Null)
    }
}

fn nth(w: &mut dyn WindowFrame, n: i64, from_end: bool) -> Result<Datum, SqlError> {
    match w.frame_row(n, from_end)? {
        Some(row) => w.arg_at(0, row),
        None => Ok(Datum::Null),
    }
}

fn nth_value(_: &mut Call<'_>, w: &mut dyn WindowFrame) -> Result<Datum, SqlError> {
    let at = w.current();
    let Datum::Int4(n) = w.arg_at(1, at)? else { return Ok(Datum::Null) };
    if n <= 0 {
        return Err(SqlError::new(SqlState("22016"), "argument of nth_value must be greater than zero"));
    }
    nth(w, i64::from(n) - 1, false)
}

/// By `prosrc`.
pub(super) const WINDOWS: &[(&str, WindowFn)] = &[
    ("window_row_number", row_number),
    ("window_rank", rank),
    ("window_dense_rank", dense_rank),
    ("window_percent_rank", percent_rank),
    ("window_cume_dist", cume_dist),
    ("window_ntile", ntile),
    ("window_lag", |_, w| shifted(w, -1, false, false)),
    ("window_lag_with_offset", |_, w| shifted(w, -1, true, false)),
    ("window_lag_with_offset_and_default", |_, w| shifted(w, -1, true, true)),
    ("window_lead", |_, w| shifted(w, 1, false, false)),
    ("window_lead_with_offset", |_, w| shifted(w, 1, true, false)),
    ("window_lead_with_offset_and_default", |_, w| shifted(w, 1, true, true)),
    ("window_first_value", |_, w| nth(w, 0, false)),
    ("window_last_value", |_, w| nth(w, 0, true)),
    ("window_nth_value", nth_value),
];
