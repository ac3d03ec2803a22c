//! Hash tables over values: groups, distinct rows, join keys.

use std::cmp::Ordering;
use std::hash::Hasher;

use rustc_hash::FxHasher;

use super::eval::Exec;
use crate::config::Setting;
use crate::sql::types::{self, Datum};

/// Feeds a value so that values an equality operator may call equal hash equal, across integer and float widths too.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn feed(v: &Datum, h: &mut FxHasher) {
    match v {
        Datum::Null => h.write_u8(0),
        Datum::Int2(v) => h.write_i64(i64::from(*v)),
        Datum::Int4(v) => h.write_i64(i64::from(*v)),
        Datum::Int8(v) => h.write_i64(*v),
        Datum::Oid(v) => h.write_i64(i64::from(*v)),
        Datum::Float4(v) => types::hash(&Datum::Float8(f64::from(*v)), h),
        Datum::Date(_) | Datum::Timestamp(_) | Datum::TimestampTz(_) => types::hash(v, h),
        other => types::hash(other, h),
    }
}

/// Bytes a hash table may take: `work_mem` times `hash_mem_multiplier`.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a limit, rounded; casts saturate"
)]
pub(super) fn memory(x: &Exec<'_>) -> usize {
    let work = x.session.settings.bytes(Setting::WorkMem).unwrap_or(4 << 20);
    (work as f64 * x.session.settings.real(Setting::HashMemMultiplier).max(1.0)) as usize
}

/// Hash of a row of values.
pub(super) fn hash_values<'v>(values: impl IntoIterator<Item = &'v Datum>) -> u64 {
    let mut h = FxHasher::default();
    for v in values {
        feed(v, &mut h);
    }
    h.finish()
}

/// Equal, NULLs equal to each other, integers across widths.
pub(super) fn same_value(a: &Datum, b: &Datum) -> bool {
    match (a, b) {
        (Datum::Null, Datum::Null) => true,
        (Datum::Null, _) | (_, Datum::Null) => false,
        (Datum::Int4(a), Datum::Int4(b)) => a == b,
        (Datum::Int8(a), Datum::Int8(b)) => a == b,
        (Datum::Text(a), Datum::Text(b)) => a.as_str() == b.as_str(),
        _ => match (wide(a), wide(b)) {
            (Some(a), Some(b)) => a == b,
            _ => match (a, b) {
                (Datum::Float4(a), Datum::Float8(b)) => types::compare(&Datum::Float8(f64::from(*a)), &Datum::Float8(*b)).is_eq(),
                (Datum::Float8(a), Datum::Float4(b)) => types::compare(&Datum::Float8(*a), &Datum::Float8(f64::from(*b))).is_eq(),
                _ => types::compare(a, b).is_eq(),
            },
        },
    }
}

/// The order of two values that are not NULL, integers and floats across widths.
pub(super) fn compare_values(a: &Datum, b: &Datum) -> Ordering {
    match (a, b) {
        (Datum::Int4(a), Datum::Int4(b)) => a.cmp(b),
        (Datum::Int8(a), Datum::Int8(b)) => a.cmp(b),
        (Datum::Float4(a), Datum::Float8(b)) => types::compare(&Datum::Float8(f64::from(*a)), &Datum::Float8(*b)),
        (Datum::Float8(a), Datum::Float4(b)) => types::compare(&Datum::Float8(*a), &Datum::Float8(f64::from(*b))),
        _ => match (wide(a), wide(b)) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => types::compare(a, b),
        },
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn wide(v: &Datum) -> Option<i64> {
    match v {
        Datum::Int2(v) => Some(i64::from(*v)),
        Datum::Int4(v) => Some(i64::from(*v)),
        Datum::Int8(v) => Some(*v),
        Datum::Oid(v) => Some(i64::from(*v)),
        _ => None,
    }
}

/// Rows equal in all columns?
pub(super) fn same_rows(a: &[Datum], b: &[Datum]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_value(a, b))
}

/// Bytes a row takes in memory, roughly.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
pub(super) fn row_bytes(row: &[Datum]) -> usize {
    24 + row
        .iter()
        .map(|v| {
            24 + match v {
                Datum::Text(t) => 16 + t.len(),
                Datum::Bytea(b) => 16 + b.len(),
                Datum::Array(a) => 48 + a.values.len() * 32,
                Datum::Record(r) => 48 + r.values.len() * 32,
                Datum::Numeric(_) => 16,
                Datum::Jsonb(_) => 128,
                Datum::Packed(_) => 96,
                _ => 0,
            }
        })
        .sum::<usize>()
}
