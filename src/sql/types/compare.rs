//! The default (btree) order and hash of values of one type.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use super::datum::{Inet, Interval, RangeBounds, RangeValue};
use super::json::Json;
use super::{ArrayValue, Datum};

/// Microseconds in a day.
const DAY_MICROS: i128 = 86_400_000_000;

/// Order of two values of the same type, neither NULL. NULLs compare equal to each other and after everything else.
///
/// `numeric`, float: NaN is equal to NaN and greater than all else. Text: by bytes (collation "C"). Blanks at the end of
/// `bpchar` are the operators' business: they strip them first.
#[inline]
pub fn compare(a: &Datum, b: &Datum) -> Ordering {
    match (a, b) {
        (Datum::Int4(a), Datum::Int4(b)) | (Datum::Date(a), Datum::Date(b)) => a.cmp(b),
        (Datum::Int8(a), Datum::Int8(b))
        | (Datum::Time(a), Datum::Time(b))
        | (Datum::Timestamp(a), Datum::Timestamp(b))
        | (Datum::TimestampTz(a), Datum::TimestampTz(b)) => a.cmp(b),
        (Datum::Text(a), Datum::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Datum::Int2(a), Datum::Int2(b)) => a.cmp(b),
        (Datum::Oid(a), Datum::Oid(b)) => a.cmp(b),
        (Datum::Bool(a), Datum::Bool(b)) => a.cmp(b),
        (Datum::Char(a), Datum::Char(b)) => a.cmp(b),
        (Datum::Xid8(a), Datum::Xid8(b)) | (Datum::Lsn(a), Datum::Lsn(b)) => a.cmp(b),
        (Datum::Float8(a), Datum::Float8(b)) => compare_f64(*a, *b),
        (Datum::Float4(a), Datum::Float4(b)) => compare_f64(f64::from(*a), f64::from(*b)),
        (Datum::Numeric(a), Datum::Numeric(b)) => a.cmp(b),
        (Datum::Bytea(a), Datum::Bytea(b)) => a.cmp(b),
        (Datum::Interval(a), Datum::Interval(b)) => interval_span(*a).cmp(&interval_span(*b)),
        _ => compare_rare(a, b),
    }
}

#[inline(never)]
fn compare_rare(a: &Datum, b: &Datum) -> Ordering {
    match (a, b) {
        (Datum::Null, Datum::Null) => Ordering::Equal,
        (Datum::Null, _) => Ordering::Greater,
        (_, Datum::Null) => Ordering::Less,
        (Datum::TimeTz(t, z), Datum::TimeTz(u, y)) => {
            let utc = |t: i64, z: i32| t + i64::from(z) * 1_000_000;
            utc(*t, *z).cmp(&utc(*u, *y)).then(z.cmp(y))
        }
        (Datum::Tid(a), Datum::Tid(b)) => a.cmp(b),
        (Datum::Uuid(a), Datum::Uuid(b)) => a.cmp(b),
        (Datum::MacAddr(a), Datum::MacAddr(b)) => a.cmp(b),
        (Datum::Inet(a), Datum::Inet(b)) => compare_inet(a, b),
        (Datum::Bits(a), Datum::Bits(b)) => a.bytes.cmp(&b.bytes).then(a.len.cmp(&b.len)),
        (Datum::Array(a), Datum::Array(b)) => compare_arrays(a, b),
        (Datum::Range(a), Datum::Range(b)) => compare_ranges(a, b),
        (Datum::Jsonb(a), Datum::Jsonb(b)) => compare_json(a, b),
        (Datum::Record(a), Datum::Record(b)) => compare_lists(&a.values, &b.values).then(a.values.len().cmp(&b.values.len())),
        (Datum::Packed(a), Datum::Packed(b)) if a.is_same(b) => Ordering::Equal,
        _ => rank(a).cmp(&rank(b)),
    }
}

/// A last resort for values of different representations, which callers never compare: a total order, no panic.
fn rank(d: &Datum) -> String {
    format!("{d:?}")
}

/// Floats with NaN above everything and equal to itself; both zeros equal.
#[inline]
pub fn compare_f64(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// Length of an interval with months of 30 days, as the operators compare it.
pub fn interval_span(i: Interval) -> i128 {
    (i128::from(i.months) * 30 + i128::from(i.days)) * DAY_MICROS + i128::from(i.micros)
}

fn compare_lists(a: &[Datum], b: &[Datum]) -> Ordering {
    a.iter().zip(b).map(|(x, y)| compare(x, y)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
}

fn compare_arrays(a: &ArrayValue, b: &ArrayValue) -> Ordering {
    compare_lists(&a.values, &b.values).then(a.values.len().cmp(&b.values.len())).then(a.dims.len().cmp(&b.dims.len())).then_with(|| {
        let lens = |x: &ArrayValue| x.dims.iter().map(|d| d.len).collect::<Vec<_>>();
        let lowers = |x: &ArrayValue| x.dims.iter().map(|d| d.lower).collect::<Vec<_>>();
        lens(a).cmp(&lens(b)).then(lowers(a).cmp(&lowers(b)))
    })
}

fn compare_inet(a: &Inet, b: &Inet) -> Ordering {
    let family = |x: &Inet| u8::from(x.addr.is_ipv6());
    let bits = |x: &Inet| match x.addr {
        IpAddr::V4(v) => u128::from(u32::from(v)) << 96,
        IpAddr::V6(v) => u128::from(v),
    };
    let mask = |n: u8| if n == 0 { 0 } else { u128::MAX << (128 - u32::from(n.min(128))) };
    family(a)
        .cmp(&family(b))
        .then_with(|| {
            let m = mask(a.prefix.min(b.prefix));
            (bits(a) & m).cmp(&(bits(b) & m))
        })
        .then(a.prefix.cmp(&b.prefix))
        .then_with(|| bits(a).cmp(&bits(b)))
}

/// Order of two lower or two upper bounds, or one of each. NULL is unbounded.
pub(crate) fn compare_bounds(a: (&Datum, bool, bool), b: (&Datum, bool, bool)) -> Ordering {
    // (value, inclusive, is lower)
    match (a.0.is_null(), b.0.is_null()) {
        (true, true) => b.2.cmp(&a.2),
        (true, false) => {
            if a.2 {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (false, true) => {
            if b.2 {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (false, false) => compare(a.0, b.0).then_with(|| {
            // Just inside or just outside the value.
            let offset = |x: (&Datum, bool, bool)| match (x.1, x.2) {
                (true, _) => 0,
                (false, true) => 1,
                (false, false) => -1,
            };
            offset(a).cmp(&offset(b))
        }),
    }
}

fn compare_ranges(a: &RangeValue, b: &RangeValue) -> Ordering {
    let lower = |x: &RangeBounds| (x.lower.clone(), x.lower_inc);
    let upper = |x: &RangeBounds| (x.upper.clone(), x.upper_inc);
    match (&a.bounds, &b.bounds) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(x), Some(y)) => {
            let ((xl, xi), (yl, yi)) = (lower(x), lower(y));
            compare_bounds((&xl, xi, true), (&yl, yi, true)).then_with(|| {
                let ((xu, xi), (yu, yi)) = (upper(x), upper(y));
                compare_bounds((&xu, xi, false), (&yu, yi, false))
            })
        }
    }
}

/// The order of `jsonb`: Object > Array > Boolean > Number > String > Null; longer containers after shorter ones.
pub(crate) fn compare_json(a: &Json, b: &Json) -> Ordering {
    let rank = |j: &Json| match j {
        Json::Null => 0,
        Json::String(_) => 1,
        Json::Number(_) => 2,
        Json::Bool(_) => 3,
        Json::Array(_) => 4,
        Json::Object(_) => 5,
    };
    match (a, b) {
        (Json::Bool(a), Json::Bool(b)) => a.cmp(b),
        (Json::Number(a), Json::Number(b)) => a.cmp(b),
        (Json::String(a), Json::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Json::Array(a), Json::Array(b)) => a
            .len()
            .cmp(&b.len())
            .then_with(|| a.iter().zip(b).map(|(x, y)| compare_json(x, y)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)),
        (Json::Object(a), Json::Object(b)) => a.len().cmp(&b.len()).then_with(|| {
            a.iter()
                .zip(b)
                .map(|((k, v), (l, w))| k.as_bytes().cmp(l.as_bytes()).then_with(|| compare_json(v, w)))
                .find(|o| o.is_ne())
                .unwrap_or(Ordering::Equal)
        }),
        // An empty array sorts below everything: PostgreSQL's historical quirk.
        (Json::Array(x), _) if x.is_empty() => Ordering::Less,
        (_, Json::Array(x)) if x.is_empty() => Ordering::Greater,
        _ => rank(a).cmp(&rank(b)),
    }
}

/// Feeds a value to a hasher so that values that [`compare`] equal hash equal.
#[inline]
pub fn hash<H: Hasher>(value: &Datum, state: &mut H) {
    match value {
        Datum::Null | Datum::Void => 0u8.hash(state),
        Datum::Bool(v) => v.hash(state),
        Datum::Char(v) => v.hash(state),
        Datum::Int2(v) => i64::from(*v).hash(state),
        Datum::Int4(v) | Datum::Date(v) => i64::from(*v).hash(state),
        Datum::Int8(v) | Datum::Time(v) | Datum::Timestamp(v) | Datum::TimestampTz(v) => v.hash(state),
        Datum::Oid(v) => v.hash(state),
        Datum::Xid8(v) | Datum::Lsn(v) => v.hash(state),
        Datum::Float4(v) => hash_f64(f64::from(*v), state),
        Datum::Float8(v) => hash_f64(*v, state),
        Datum::Numeric(v) => v.hash(state),
        Datum::Text(v) => state.write(v.as_bytes()),
        Datum::Bytea(v) => state.write(v),
        Datum::TimeTz(t, z) => (t, z).hash(state),
        Datum::Interval(i) => interval_span(*i).hash(state),
        Datum::Tid(t) => t.hash(state),
        Datum::Uuid(u) => u.hash(state),
        Datum::MacAddr(m) => m.hash(state),
        Datum::Inet(i) => i.hash(state),
        Datum::Bits(b) => b.hash(state),
        Datum::Array(a) => {
            a.values.len().hash(state);
            a.values.iter().for_each(|v| hash(v, state));
        }
        Datum::Record(r) => r.values.iter().for_each(|v| hash(v, state)),
        Datum::Range(r) => {
            if let Some(b) = &r.bounds {
                (b.lower_inc, b.upper_inc).hash(state);
                hash(&b.lower, state);
                hash(&b.upper, state);
            }
        }
        Datum::Jsonb(j) => hash_json(j, state),
        // Never asked for: keys are unpacked.
        Datum::Packed(p) => p.pointer().hash(state),
    }
}

fn hash_f64<H: Hasher>(v: f64, state: &mut H) {
    let v = if v == 0.0 {
        0.0
    } else if v.is_nan() {
        f64::NAN
    } else {
        v
    };
    v.to_bits().hash(state);
}

fn hash_json<H: Hasher>(j: &Json, state: &mut H) {
    match j {
        Json::Null => 0u8.hash(state),
        Json::Bool(b) => b.hash(state),
        Json::Number(n) => n.hash(state),
        Json::String(s) => s.hash(state),
        Json::Array(a) => {
            a.len().hash(state);
            a.iter().for_each(|v| hash_json(v, state));
        }
        Json::Object(o) => {
            o.len().hash(state);
            o.iter().for_each(|(k, v)| {
                k.hash(state);
                hash_json(v, state);
            });
        }
    }
}

/// Equality as [`compare`] sees it, for keys of hash tables.
#[derive(Clone, Debug)]
pub struct HashKey(pub Box<[Datum]>);

impl PartialEq for HashKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && compare_lists(&self.0, &other.0).is_eq()
    }
}

impl Eq for HashKey {}

impl Hash for HashKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.iter().for_each(|v| hash(v, state));
    }
}
