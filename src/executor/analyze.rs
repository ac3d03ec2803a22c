//! ANALYZE: a sample of a table's rows, and what it says about each column.
//!
//! PostgreSQL: commands/analyze.c; the estimate of distinct values is Haas and Stokes' Duj1.

use std::cmp::Ordering;

use afterimage_wal::Fork;

use super::vacuum::store_counts;
use crate::access::heap::HeapScan;
use crate::config::Setting;
use crate::executor::SessionContext;
use crate::sql::catalog::load::{CatalogReader, STATISTIC_KIND_CORRELATION, STATISTIC_KIND_HISTOGRAM, STATISTIC_KIND_MCV, by};
use crate::sql::catalog::relation::{Column, Relation};
use crate::sql::catalog::rows::blank;
use crate::sql::catalog::schema::pg_statistic;
use crate::sql::functions::registry::{equality_operator, less_operator};
use crate::sql::types::{ArrayValue, Datum, IoSettings, compare, oids, row, text_out};
use crate::sqlstate::SqlError;

/// Values wider than this are counted, not compared.
const WIDE_VALUE: usize = 1024;

/// What ANALYZE looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Analyzed {
    pub(super) pages: u32,
    pub(super) rows: u64,
    pub(super) sampled: usize,
}

/// Gathers statistics of a table and stores them. `columns`: which, all if empty.
pub(super) fn run(ctx: &mut SessionContext, relation: &Relation, columns: &[String]) -> Result<Analyzed, SqlError> {
    let Some(handle) = relation.rel_handle() else { return Ok(Analyzed::default()) };
    let default_target = ctx.settings.int(Setting::DefaultStatisticsTarget);
    let target = |c: &Column| -> usize {
        let own = i64::from(c.stats_target);
        usize::try_from(if own < 0 { default_target } else { own }).unwrap_or(100)
    };
    let wanted: Vec<&Column> = relation
        .live_columns()
        .filter(|c| columns.is_empty() || columns.iter().any(|n| **n == *c.name))
        .filter(|c| target(c) > 0)
        .collect();
    let rows_wanted = 300 * wanted.iter().map(|c| target(c)).max().unwrap_or(100).max(1);
    let (sample, total) = sample(ctx, relation, &handle, rows_wanted)?;
    for column in wanted {
        let position = usize::try_from(column.attnum - 1).unwrap_or(0);
        let values: Vec<&Datum> = sample.iter().filter_map(|row| row.get(position)).collect();
        let row = column_row(relation, column, &values, total, target(column))?;
        let key = [Datum::Oid(relation.oid), Datum::Int2(column.attnum), Datum::Bool(false)];
        let old = ctx.catalog_reader()?.row(&pg_statistic::DEF, by::STATISTIC, &key)?;
        match (old, row) {
            (Some(old), Some(row)) => {
                ctx.writer()?.update(&pg_statistic::DEF, &old, &row)?;
            }
            (Some(old), None) => ctx.writer()?.delete(&pg_statistic::DEF, &old)?,
            (None, Some(row)) => {
                ctx.writer()?.insert(&pg_statistic::DEF, &row)?;
            }
            (None, None) => {}
        }
    }
    let pages = ctx.engine.pool().n_blocks(handle.file, Fork::Main)?.get();
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let tuples = total as f32;
    store_counts(ctx, relation.oid, pages, tuples, None)?;
    for index in &relation.indexes {
        let pages = ctx.engine.pool().n_blocks(index.file, Fork::Main)?.get();
        store_counts(ctx, index.oid, pages, tuples, None)?;
    }
    ctx.relation_changed(relation.oid)?;
    Ok(Analyzed { pages, rows: total, sampled: sample.len() })
}

/// A random sample of at most `wanted` rows in the order they lie, and how many rows there are. Vitter's algorithm R.
fn sample(
    ctx: &mut SessionContext,
    relation: &Relation,
    handle: &crate::access::RelHandle,
    wanted: usize,
) -> Result<(Vec<Vec<Datum>>, u64), SqlError> {
    let access = ctx.access();
    let snapshot = ctx.transaction()?.latest_snapshot()?;
    let mut scan = HeapScan::new(&access, handle, &snapshot)?;
    let mut kept: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut total = 0_u64;
    while let Some((_, bytes)) = scan.next(&access)? {
        if kept.len() < wanted {
            kept.push((total, bytes.to_vec()));
        } else {
            let place = rand::random_range(0..=total);
            if let Ok(place) = usize::try_from(place)
                && let Some(slot) = kept.get_mut(place)
            {
                slot.0 = total;
                slot.1.clear();
                slot.1.extend_from_slice(bytes);
            }
        }
        total += 1;
        if total.is_multiple_of(4096) {
            ctx.check_cancel()?;
        }
    }
    kept.sort_unstable_by_key(|(number, _)| *number);
    let n = relation.columns.len();
    let mut rows = Vec::with_capacity(kept.len());
    for (_, bytes) in kept {
        let mut values = vec![Datum::Null; n];
        row::decode(&relation.desc, &bytes, n, &mut values)?;
        for value in &mut values {
            // What is too wide to be looked at stays where it is.
            if matches!(value, Datum::Packed(p) if p.raw_len() <= WIDE_VALUE) {
                super::large::unpack_in_place(ctx.engine.ctx(), value)?;
            }
        }
        rows.push(values);
    }
    Ok((rows, total))
}

fn text_of(value: &Datum, type_oid: u32) -> Result<Datum, SqlError> {
    let mut out = Vec::new();
    text_out(value, type_oid, &mut out, &IoSettings::default())?;
    Ok(Datum::text(String::from_utf8_lossy(&out)))
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "estimates")]
fn column_row(relation: &Relation, column: &Column, values: &[&Datum], total: u64, target: usize) -> Result<Option<Vec<Datum>>, SqlError> {
    if values.is_empty() {
        return Ok(None);
    }
    let n = values.len();
    let nulls = values.iter().filter(|v| v.is_null()).count();
    let null_frac = nulls as f64 / n as f64;
    let ordered = less_operator(column.type_oid).is_some();
    let mut present: Vec<(usize, &Datum)> = Vec::with_capacity(n - nulls);
    let mut width = 0_usize;
    let mut text = Vec::new();
    for (i, value) in values.iter().filter(|v| !v.is_null()).enumerate() {
        if column.len > 0 {
            width += usize::try_from(column.len).unwrap_or(0);
        } else if let Datum::Packed(packed) = value {
            width += packed.stored_len();
            continue;
        } else {
            text.clear();
            text_out(value, column.type_oid, &mut text, &IoSettings::default())?;
            width += text.len() + 1;
            if text.len() > WIDE_VALUE {
                continue;
            }
        }
        present.push((i, value));
    }
    let count = n - nulls;
    let avg_width = width.checked_div(count).map_or(0, |w| i32::try_from(w).unwrap_or(i32::MAX));
    let mut row = blank(&pg_statistic::DEF);
    row[pg_statistic::starelid] = Datum::Oid(relation.oid);
    row[pg_statistic::staattnum] = Datum::Int2(column.attnum);
    row[pg_statistic::stainherit] = Datum::Bool(false);
    row[pg_statistic::stanullfrac] = Datum::Float4(null_frac as f32);
    row[pg_statistic::stawidth] = Datum::Int4(avg_width);
    for slot in 0..5 {
        row[pg_statistic::stakind1 + slot] = Datum::Int2(0);
        row[pg_statistic::staop1 + slot] = Datum::Oid(0);
        row[pg_statistic::stacoll1 + slot] = Datum::Oid(0);
    }
    if !ordered || present.is_empty() {
        row[pg_statistic::stadistinct] = Datum::Float4(if count == 0 { 0.0 } else { -1.0 });
        return Ok(Some(row));
    }
    present.sort_by(|a, b| compare(a.1, b.1).then(a.0.cmp(&b.0)));
    // Groups of equal values: (first position in `present`, how many).
    let mut groups: Vec<(usize, usize)> = Vec::new();
    for (i, (_, value)) in present.iter().enumerate() {
        match groups.last_mut() {
            Some((first, length)) if compare(present[*first].1, value) == Ordering::Equal => *length += 1,
            _ => groups.push((i, 1)),
        }
    }
    let distinct = groups.len();
    let once = groups.iter().filter(|g| g.1 == 1).count();
    row[pg_statistic::stadistinct] = Datum::Float4(n_distinct(n, total, count, distinct, once, null_frac) as f32);
    let mut slot = 0;
    let mut add = |row: &mut Vec<Datum>, kind: i16, operator: u32, numbers: Option<Vec<f32>>, list: Option<Vec<Datum>>| {
        row[pg_statistic::stakind1 + slot] = Datum::Int2(kind);
        row[pg_statistic::staop1 + slot] = Datum::Oid(operator);
        row[pg_statistic::stacoll1 + slot] = Datum::Oid(column.collation);
        if let Some(numbers) = numbers {
            let numbers = numbers.into_iter().map(Datum::Float4).collect();
            row[pg_statistic::stanumbers1 + slot] = Datum::array(ArrayValue::one_dim(oids::FLOAT4, numbers));
        }
        if let Some(list) = list {
            row[pg_statistic::stavalues1 + slot] = Datum::array(ArrayValue::one_dim(oids::TEXT, list));
        }
        slot += 1;
    };
    let equal = equality_operator(column.type_oid).map_or(0, |o| o.oid);
    let less = less_operator(column.type_oid).map_or(0, |o| o.oid);
    let common = common_values(&groups, n, count, distinct, once, total, target);
    if !common.is_empty() {
        let mut list = Vec::new();
        for &(first, _) in &common {
            list.push(text_of(present[first].1, column.type_oid)?);
        }
        let numbers = common.iter().map(|g| g.1 as f32 / n as f32).collect();
        add(&mut row, STATISTIC_KIND_MCV, equal, Some(numbers), Some(list));
    }
    let rest: Vec<usize> =
        groups.iter().filter(|g| !common.iter().any(|c| c.0 == g.0)).flat_map(|&(first, length)| first..first + length).collect();
    let rest_distinct = distinct - common.len();
    if rest_distinct >= 2 {
        let bounds = rest_distinct.min(target + 1).max(2);
        let mut list = Vec::new();
        for i in 0..bounds {
            let at = i * (rest.len() - 1) / (bounds - 1);
            list.push(text_of(present[rest[at]].1, column.type_oid)?);
        }
        add(&mut row, STATISTIC_KIND_HISTOGRAM, less, None, Some(list));
    }
    if present.len() > 1 {
        add(&mut row, STATISTIC_KIND_CORRELATION, less, Some(vec![correlation(&present)]), None);
    }
    Ok(Some(row))
}

/// `stadistinct`: the number of distinct values, or negative their fraction of the rows when it grows with them.
#[expect(clippy::cast_precision_loss, reason = "estimates")]
fn n_distinct(sampled: usize, total: u64, count: usize, distinct: usize, once: usize, null_frac: f64) -> f64 {
    if once == count {
        // Every value seen but once: taken for unique.
        return -(1.0 - null_frac);
    }
    if once == 0 {
        // Every value seen again: taken for all there are.
        return distinct as f64;
    }
    let (n, d, f1) = (sampled as f64, distinct as f64, once as f64);
    let rows = total as f64 * (1.0 - null_frac);
    let numerator = count as f64 * d;
    let denominator = (count as f64 - f1) + f1 * count as f64 / rows.max(1.0);
    let estimate = (numerator / denominator.max(1.0)).clamp(d, rows.max(d)).round();
    let _ = n;
    if estimate > 0.1 * total as f64 { -(estimate / total as f64) } else { estimate }
}

/// Groups worth naming, most frequent first. All, if they fit and are all there is; else those clearly above the average.
#[expect(clippy::cast_precision_loss, reason = "estimates")]
fn common_values(
    groups: &[(usize, usize)],
    sampled: usize,
    count: usize,
    distinct: usize,
    once: usize,
    total: u64,
    target: usize,
) -> Vec<(usize, usize)> {
    let mut repeated: Vec<(usize, usize)> = groups.iter().copied().filter(|g| g.1 > 1).collect();
    repeated.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    if once == 0 && distinct <= target {
        return repeated;
    }
    repeated.truncate(target);
    if u64::try_from(sampled).unwrap_or(u64::MAX) >= total && distinct <= target {
        return repeated;
    }
    // PostgreSQL's analyze_mcv_list in short: keep what is more frequent than the rest by more than chance explains.
    let mut kept = repeated.len();
    let mut sum: usize = repeated.iter().map(|g| g.1).sum();
    let n = sampled as f64;
    let rows = total as f64;
    while kept > 0 {
        let this = repeated[kept - 1].1;
        sum -= this;
        let others = distinct.saturating_sub(kept - 1).max(1) as f64;
        let selectivity = (count as f64 - sum as f64) / n / others;
        let expected = selectivity * n;
        let k = selectivity * rows;
        let variance = if rows > 1.0 { n * k * (rows - k) * (rows - n) / (rows * rows * (rows - 1.0)) } else { 0.0 };
        if this as f64 > expected + 2.0 * variance.max(0.0).sqrt() + 0.5 {
            break;
        }
        kept -= 1;
    }
    repeated.truncate(kept);
    repeated
}

/// Correlation between where a value lies and where it sorts.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "estimates")]
fn correlation(sorted: &[(usize, &Datum)]) -> f32 {
    let n = sorted.len() as f64;
    let product: f64 = sorted.iter().enumerate().map(|(i, (at, _))| i as f64 * *at as f64).sum();
    let sum = (n - 1.0) * n / 2.0;
    let squares = (n - 1.0) * n * (2.0 * n - 1.0) / 6.0;
    let denominator = n * squares - sum * sum;
    if denominator == 0.0 { 0.0 } else { ((n * product - sum * sum) / denominator) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinct_values_are_estimated() {
        assert_eq!(n_distinct(1000, 100_000, 1000, 1000, 1000, 0.0), -1.0);
        assert_eq!(n_distinct(1000, 100_000, 1000, 7, 0, 0.0), 7.0);
        let e = n_distinct(1000, 100_000, 1000, 500, 200, 0.0);
        assert!((500.0..1000.0).contains(&e), "{e}");
    }

    #[test]
    fn rising_values_correlate() {
        let values: Vec<Datum> = (0..100).map(Datum::Int4).collect();
        let up: Vec<(usize, &Datum)> = values.iter().enumerate().collect();
        assert!(correlation(&up) > 0.999);
        let down: Vec<(usize, &Datum)> = values.iter().enumerate().map(|(i, v)| (99 - i, v)).collect();
        assert!(correlation(&down) < -0.999);
    }
}
