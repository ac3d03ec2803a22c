//! `numeric` functions.

use super::call::{Call, ScalarFn};
use crate::sql::types::{Datum, Numeric};
use crate::sqlstate::{SqlError, SqlState};

type Out = Result<Datum, SqlError>;

fn two(a: &[Datum], f: impl Fn(&Numeric, &Numeric) -> Result<Numeric, SqlError>) -> Out {
    f(a[0].as_numeric()?, a[1].as_numeric()?).map(Datum::Numeric)
}

fn one(a: &[Datum], f: impl Fn(&Numeric) -> Result<Numeric, SqlError>) -> Out {
    f(a[0].as_numeric()?).map(Datum::Numeric)
}

fn fac(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let n = a[0].as_i64()?;
    if n < 0 {
        return Err(SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "factorial of a negative number is undefined"));
    }
    if n > 32_177 {
        return Err(SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value overflows numeric format"));
    }
    let mut v = Numeric::ONE;
    for i in 2..=n {
        v = v.mul(&Numeric::from(i))?;
    }
    Ok(Datum::Numeric(v))
}

fn gcd(a: &Numeric, b: &Numeric) -> Result<Numeric, SqlError> {
    if !a.is_finite() || !b.is_finite() {
        return Ok(Numeric::NaN);
    }
    let scale = i32::from(a.scale().max(b.scale()));
    let (mut a, mut b) = (a.abs(), b.abs());
    while !b.is_zero() {
        let r = a.rem(&b)?;
        a = b;
        b = r;
    }
    a.round(scale)
}

fn lcm(a: &Numeric, b: &Numeric) -> Result<Numeric, SqlError> {
    if !a.is_finite() || !b.is_finite() {
        return Ok(Numeric::NaN);
    }
    let scale = i32::from(a.scale().max(b.scale()));
    if a.is_zero() || b.is_zero() {
        return Numeric::ZERO.round(scale);
    }
    a.abs().div_trunc(&gcd(a, b)?)?.mul(&b.abs())?.round(scale)
}

fn width_bucket(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (x, low, high, count) = (a[0].as_numeric()?, a[1].as_numeric()?, a[2].as_numeric()?, a[3].as_i32()?);
    let fail = |m: &str| Err(SqlError::new(SqlState("2201G"), m));
    if count <= 0 {
        return fail("count must be greater than zero");
    }
    if x.is_nan() || low.is_nan() || high.is_nan() {
        return fail("operand, lower bound, and upper bound cannot be NaN");
    }
    if !low.is_finite() || !high.is_finite() {
        return fail("lower and upper bounds must be finite");
    }
    let (x, low, high) = if low > high {
        (x.neg(), low.neg(), high.neg())
    } else if low == high {
        return fail("lower bound cannot equal upper bound");
    } else {
        (x.clone(), low.clone(), high.clone())
    };
    if x < low {
        return Ok(Datum::Int4(0));
    }
    if x >= high {
        return count.checked_add(1).map(Datum::Int4).ok_or_else(|| super::integer::out_of_range("integer"));
    }
    let bucket = x.sub(&low)?.mul(&Numeric::from(i64::from(count)))?.div(&high.sub(&low)?)?.floor()?;
    let bucket: i32 = bucket.to_integer("integer")?;
    Ok(Datum::Int4(bucket + 1))
}

/// By `prosrc`.
pub(super) const SCALARS: &[(&str, ScalarFn)] = &[
    ("numeric_add", |_, a| two(a, Numeric::add)),
    ("numeric_sub", |_, a| two(a, Numeric::sub)),
    ("numeric_mul", |_, a| two(a, Numeric::mul)),
    ("numeric_div", |_, a| two(a, Numeric::div)),
    ("numeric_div_trunc", |_, a| two(a, Numeric::div_trunc)),
    ("numeric_mod", |_, a| two(a, Numeric::rem)),
    ("numeric_power", |_, a| two(a, Numeric::power)),
    ("numeric_log", |_, a| two(a, Numeric::log)),
    ("numeric_gcd", |_, a| two(a, gcd)),
    ("numeric_lcm", |_, a| two(a, lcm)),
    ("numeric_uminus", |_, a| one(a, |n| Ok(n.neg()))),
    ("numeric_uplus", |_, a| Ok(a[0].clone())),
    ("numeric_abs", |_, a| one(a, |n| Ok(n.abs()))),
    ("numeric_sign", |_, a| one(a, |n| Ok(if n.is_nan() { Numeric::NaN } else { Numeric::from(i64::from(n.signum())) }))),
    ("numeric_ceil", |_, a| one(a, Numeric::ceil)),
    ("numeric_floor", |_, a| one(a, Numeric::floor)),
    ("numeric_sqrt", |_, a| one(a, Numeric::sqrt)),
    ("numeric_exp", |_, a| one(a, Numeric::exp)),
    ("numeric_ln", |_, a| one(a, Numeric::ln)),
    ("log@1700", |_, a| one(a, |n| Numeric::log(&Numeric::from(10i64), n))),
    ("log10@1700", |_, a| one(a, |n| Numeric::log(&Numeric::from(10i64), n))),
    ("numeric_round", |_, a| a[0].as_numeric()?.round(a[1].as_i32()?).map(Datum::Numeric)),
    ("round@1700", |_, a| one(a, |n| n.round(0))),
    ("numeric_trunc", |_, a| a[0].as_numeric()?.trunc(a[1].as_i32()?).map(Datum::Numeric)),
    ("trunc@1700", |_, a| one(a, |n| n.trunc(0))),
    ("numeric_inc", |_, a| one(a, |n| n.add(&Numeric::ONE))),
    ("numeric_fac", fac),
    ("numeric_scale", |_, a| {
        let n = a[0].as_numeric()?;
        Ok(if n.is_finite() { Datum::Int4(i32::from(n.scale())) } else { Datum::Null })
    }),
    ("numeric_min_scale", |_, a| {
        let n = a[0].as_numeric()?;
        Ok(if n.is_finite() { Datum::Int4(i32::from(n.min_scale())) } else { Datum::Null })
    }),
    ("numeric_trim_scale", |_, a| one(a, |n| Ok(n.trimmed()))),
    ("numeric_larger", |_, a| Ok(if a[0].as_numeric()? > a[1].as_numeric()? { a[0].clone() } else { a[1].clone() })),
    ("numeric_smaller", |_, a| Ok(if a[0].as_numeric()? < a[1].as_numeric()? { a[0].clone() } else { a[1].clone() })),
    ("width_bucket_numeric", width_bucket),
];
