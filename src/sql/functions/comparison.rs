//! Bodies of comparison functions, derived from the btree operator families: whichever function a family names as its `<`,
//! `=`, ... or comparison gets a body for its pair of types.

use std::cmp::Ordering;
use std::sync::LazyLock;

use rustc_hash::FxHashMap;

use super::call::{Call, ScalarFn};
use super::registry::{BTREE_AM, ProcEntry, all_amops, all_amprocs, oper_by_oid};
use crate::sql::types::compare::{compare, compare_f64};
use crate::sql::types::datetime::{self, DAY};
use crate::sql::types::{Datum, Oid, oids};
use crate::sqlstate::SqlError;

/// Not a strategy of any family: the negator of `=`.
const NOT_EQUAL: i16 = 6;
/// The comparison support function.
const COMPARE: i16 = 7;

/// Which comparison a function is: (strategy, left, right).
static ROLES: LazyLock<FxHashMap<Oid, (i16, Oid, Oid)>> = LazyLock::new(|| {
    let mut roles = FxHashMap::default();
    for a in all_amops().iter().filter(|a| a.purpose == b's') {
        let Some(oper) = oper_by_oid(a.oper) else { continue };
        let strategy = if a.method == BTREE_AM { a.strategy } else { 3 };
        roles.entry(oper.func).or_insert((strategy, a.left, a.right));
        if strategy == 3
            && let Some(ne) = oper_by_oid(oper.negator)
        {
            roles.entry(ne.func).or_insert((NOT_EQUAL, a.left, a.right));
        }
    }
    // Of no family: xideqint4 and xidneqint4.
    roles.entry(1319).or_insert((3, oids::XID, oids::INT4));
    roles.entry(3309).or_insert((NOT_EQUAL, oids::XID, oids::INT4));
    for p in all_amprocs().iter().filter(|p| p.method == BTREE_AM && p.number == 1) {
        roles.entry(p.func).or_insert((COMPARE, p.left, p.right));
    }
    roles
});

/// The body, if the function is a comparison.
pub(super) fn body(proc: &ProcEntry) -> Option<ScalarFn> {
    let &(strategy, left, right) = ROLES.get(&proc.oid)?;
    let int = |t| matches!(t, oids::INT2 | oids::INT4 | oids::INT8);
    let float = |t| matches!(t, oids::FLOAT4 | oids::FLOAT8);
    let moment = |t| matches!(t, oids::DATE | oids::TIMESTAMP | oids::TIMESTAMPTZ);
    Some(match (left, right) {
        (oids::INT4, oids::INT4) => pick::<Int4>(strategy),
        (oids::INT8, oids::INT8) => pick::<Int8>(strategy),
        (oids::TEXT | oids::NAME, oids::TEXT | oids::NAME) => pick::<Text>(strategy),
        (oids::BPCHAR, oids::BPCHAR) => pick::<Bpchar>(strategy),
        (oids::XID, oids::INT4) => pick::<XidInt>(strategy),
        (a, b) if a != b && int(a) && int(b) => pick::<Ints>(strategy),
        (a, b) if a != b && float(a) && float(b) => pick::<Floats>(strategy),
        (a, b) if a != b && moment(a) && moment(b) => pick::<Moments>(strategy),
        _ => pick::<Any>(strategy),
    })
}

/// A way to compare two values that are not NULL.
trait Order {
    fn order(call: &Call<'_>, a: &Datum, b: &Datum) -> Result<Ordering, SqlError>;
}

fn pick<O: Order>(strategy: i16) -> ScalarFn {
    match strategy {
        1 => |c, a| Ok(Datum::Bool(O::order(c, &a[0], &a[1])?.is_lt())),
        2 => |c, a| Ok(Datum::Bool(O::order(c, &a[0], &a[1])?.is_le())),
        3 => |c, a| Ok(Datum::Bool(O::order(c, &a[0], &a[1])?.is_eq())),
        4 => |c, a| Ok(Datum::Bool(O::order(c, &a[0], &a[1])?.is_ge())),
        5 => |c, a| Ok(Datum::Bool(O::order(c, &a[0], &a[1])?.is_gt())),
        NOT_EQUAL => |c, a| Ok(Datum::Bool(O::order(c, &a[0], &a[1])?.is_ne())),
        _ => |c, a| Ok(Datum::Int4(O::order(c, &a[0], &a[1])? as i32)),
    }
}

struct Int4;
impl Order for Int4 {
    #[inline]
    fn order(_: &Call<'_>, a: &Datum, b: &Datum) -> Result<Ordering, SqlError> {
        Ok(a.as_i32()?.cmp(&b.as_i32()?))
    }
}

struct Int8;
impl Order for Int8 {
    #[inline]
    fn order(_: &Call<'_>, a: &Datum, b: &Datum) -> Result<Ordering, SqlError> {
        Ok(a.as_i64()?.cmp(&b.as_i64()?))
    }
}

struct Text;
impl Order for Text {
    #[inline]
    fn order(_: &Call<'_>, a: &Datum, b: &Datum) -> Result<Ordering, SqlError> {
        Ok(a.as_str()?.as_bytes().cmp(b.as_str()?.as_bytes()))
    }
}

struct Bpchar;
impl Order for Bpchar {
    fn order(_: &Call<'_>, a: &Datum, b: &Datum) -> Result<Ordering, SqlError> {
        Ok(a.as_str()?.trim_end_matches(' ').as_bytes().cmp(b.as_str()?.trim_end_matches(' ').as_bytes()))
    }
}

struct Ints;
impl Order for Ints {
    #[inline]
    fn order(_: &Call<'_>, a: &Datum, b: &Datum) -> Result<Ordering, SqlError> {
        Ok(super::integer::wide(a)?.cmp(&super::integer::wide(b)?))
    }
}

struct Floats;
impl Order for Floats {
    fn order(_: &Call<'_>, a: &Datum, b: &Datum) -> Result<Ordering, SqlError> {
        Ok(compare_f64(super::float::wide(a)?, super::float::wide(b)?))
    }
}

struct XidInt;
impl Order for XidInt {
    fn order(_: &Call<'_>, a: &Datum, b: &Datum) -> Result<Ordering, SqlError> {
        Ok(a.as_oid()?.cmp(&b.as_i32()?.cast_unsigned()))
    }
}

/// Dates, local and absolute times among each other: dates are midnights, local times are the session zone's.
struct Moments;
impl Order for Moments {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
    fn order(call: &Call<'_>, a: &Datum, b: &Datum) -> Result<Ordering, SqlError> {
        let absolute = matches!(a, Datum::TimestampTz(_)) || matches!(b, Datum::TimestampTz(_));
        let micros = |d: &Datum| -> Result<i128, SqlError> {
            let (local, is_local) = match d {
                Datum::Date(i32::MAX) => return Ok(i128::from(i64::MAX)),
                Datum::Date(i32::MIN) => return Ok(i128::from(i64::MIN)),
                Datum::Date(v) => (i128::from(*v) * i128::from(DAY), true),
                Datum::Timestamp(v) => (i128::from(*v), !datetime::is_infinite(*v)),
                Datum::TimestampTz(v) => (i128::from(*v), false),
                other => return Err(other.mismatch("Timestamp")),
            };
            match i64::try_from(local) {
                Ok(near) if absolute && is_local => {
                    let east = datetime::local_offset(&call.io().time_zone, near);
                    Ok(local - i128::from(east) * i128::from(datetime::SECOND))
                }
                _ => Ok(local),
            }
        };
        Ok(micros(a)?.cmp(&micros(b)?))
    }
}

struct Any;
impl Order for Any {
    #[inline]
    fn order(_: &Call<'_>, a: &Datum, b: &Datum) -> Result<Ordering, SqlError> {
        Ok(compare(a, b))
    }
}
