//! Floating-point arithmetic and mathematical functions.

use super::call::{Call, ScalarFn};
use super::integer::division_by_zero;
use crate::sql::types::Datum;
use crate::sql::types::compare::compare_f64;
use crate::sqlstate::{SqlError, SqlState};

type Out = Result<Datum, SqlError>;

/// Either float type, widened.
#[inline]
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
pub(super) fn wide(d: &Datum) -> Result<f64, SqlError> {
    match d {
        Datum::Float8(v) => Ok(*v),
        Datum::Float4(v) => Ok(f64::from(*v)),
        other => Err(other.mismatch("Float8")),
    }
}

fn overflow() -> SqlError {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow")
}

fn underflow() -> SqlError {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: underflow")
}

fn input_out_of_range() -> SqlError {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "input is out of range")
}

/// Checks a result: infinite from finite arguments is overflow, zero from non-zero ones underflow.
fn checked(v: f64, inf_ok: bool, zero_ok: bool) -> Result<f64, SqlError> {
    if v.is_infinite() && !inf_ok {
        Err(overflow())
    } else if v == 0.0 && !zero_ok {
        Err(underflow())
    } else {
        Ok(v)
    }
}

#[derive(Clone, Copy)]
enum Op {
    Add,
    Sub,
    Mul,
    Div,
}

fn apply(op: Op, x: f64, y: f64) -> Result<f64, SqlError> {
    let inf = x.is_infinite() || y.is_infinite();
    match op {
        Op::Add => checked(x + y, inf, true),
        Op::Sub => checked(x - y, inf, true),
        Op::Mul => checked(x * y, inf, x == 0.0 || y == 0.0),
        Op::Div => {
            if y == 0.0 && !x.is_nan() {
                return Err(division_by_zero());
            }
            checked(x / y, x.is_infinite(), x == 0.0 || y.is_infinite())
        }
    }
}

fn double(op: Op, a: &[Datum]) -> Out {
    apply(op, wide(&a[0])?, wide(&a[1])?).map(Datum::Float8)
}

#[expect(clippy::cast_possible_truncation, reason = "float4 arithmetic; range checked")]
fn single(op: Op, a: &[Datum]) -> Out {
    let (x, y) = (a[0].as_f32()?, a[1].as_f32()?);
    if matches!(op, Op::Div) && y == 0.0 && !x.is_nan() {
        return Err(division_by_zero());
    }
    let v = match op {
        Op::Add => x + y,
        Op::Sub => x - y,
        Op::Mul => x * y,
        Op::Div => x / y,
    };
    let inf = x.is_infinite() || (y.is_infinite() && !matches!(op, Op::Div));
    let zero_ok = match op {
        Op::Add | Op::Sub => true,
        Op::Mul => x == 0.0 || y == 0.0,
        Op::Div => x == 0.0 || y.is_infinite(),
    };
    checked(f64::from(v), inf, zero_ok).map(|v| Datum::Float4(v as f32))
}

/// A function of one argument that is finite for finite ones.
fn unary(a: &[Datum], f: impl Fn(f64) -> f64) -> Out {
    Ok(Datum::Float8(f(a[0].as_f64()?)))
}

fn trig(a: &[Datum], f: impl Fn(f64) -> f64) -> Out {
    let x = a[0].as_f64()?;
    if x.is_infinite() {
        return Err(input_out_of_range());
    }
    Ok(Datum::Float8(f(x)))
}

fn within(a: &[Datum], low: f64, high: f64, f: impl Fn(f64) -> f64) -> Out {
    let x = a[0].as_f64()?;
    if x < low || x > high {
        return Err(input_out_of_range());
    }
    Ok(Datum::Float8(f(x)))
}

/// One degree, in radians.
const DEGREE: f64 = 0.017_453_292_519_943_295;

/// Sine from 0 to 30 degrees, scaled so that 30 gives exactly a half.
fn sin_to_30(x: f64) -> f64 {
    (x * DEGREE).sin() / (30.0 * DEGREE).sin() / 2.0
}

/// Cosine from 0 to 60 degrees, scaled so that 60 gives exactly a half.
fn cos_to_60(x: f64) -> f64 {
    1.0 - (1.0 - (x * DEGREE).cos()) / (1.0 - (60.0 * DEGREE).cos()) / 2.0
}

/// Sine in the first quadrant.
fn sin_quadrant(x: f64) -> f64 {
    if x <= 30.0 { sin_to_30(x) } else { cos_to_60(90.0 - x) }
}

/// Cosine in the first quadrant.
fn cos_quadrant(x: f64) -> f64 {
    if x <= 60.0 { cos_to_60(x) } else { sin_to_30(90.0 - x) }
}

/// Sine of an angle in degrees, exact where it should be (PostgreSQL: `dsind`).
fn sin_degrees(x: f64) -> f64 {
    let (mut r, mut sign) = (x % 360.0, 1.0);
    if r < 0.0 {
        (r, sign) = (-r, -sign);
    }
    if r > 180.0 {
        (r, sign) = (360.0 - r, -sign);
    }
    if r > 90.0 {
        r = 180.0 - r;
    }
    sign * sin_quadrant(r)
}

fn cos_degrees(x: f64) -> f64 {
    let (mut r, mut sign) = ((x % 360.0).abs(), 1.0);
    if r > 180.0 {
        r = 360.0 - r;
    }
    if r > 90.0 {
        (r, sign) = (180.0 - r, -sign);
    }
    sign * cos_quadrant(r)
}

/// An angle of the first quadrant with the same tangent up to the sign, and that sign.
fn tangent_quadrant(x: f64) -> (f64, f64) {
    let (mut r, mut sign) = (x % 360.0, 1.0);
    if r < 0.0 {
        (r, sign) = (-r, -sign);
    }
    if r > 180.0 {
        (r, sign) = (360.0 - r, -sign);
    }
    if r > 90.0 {
        (r, sign) = (180.0 - r, -sign);
    }
    (r, sign)
}

fn tan_degrees(x: f64) -> f64 {
    let (r, sign) = tangent_quadrant(x);
    let unit = sin_quadrant(45.0) / cos_quadrant(45.0);
    sign * (sin_quadrant(r) / cos_quadrant(r) / unit) + 0.0
}

fn cot_degrees(x: f64) -> f64 {
    let (r, sign) = tangent_quadrant(x);
    let unit = cos_quadrant(45.0) / sin_quadrant(45.0);
    sign * (cos_quadrant(r) / sin_quadrant(r) / unit) + 0.0
}

fn log_checked(a: &[Datum], f: impl Fn(f64) -> f64) -> Out {
    let x = a[0].as_f64()?;
    let fail = |m: &str| Err(SqlError::new(SqlState::INVALID_ARGUMENT_FOR_LOG, m));
    if x == 0.0 {
        return fail("cannot take logarithm of zero");
    }
    if x < 0.0 {
        return fail("cannot take logarithm of a negative number");
    }
    Ok(Datum::Float8(f(x)))
}

fn power(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (x, y) = (a[0].as_f64()?, a[1].as_f64()?);
    let fail = |m: &str| Err(SqlError::new(SqlState::INVALID_ARGUMENT_FOR_POWER_FUNCTION, m));
    if x.is_nan() {
        return Ok(Datum::Float8(if y == 0.0 { 1.0 } else { f64::NAN }));
    }
    if y.is_nan() {
        return Ok(Datum::Float8(if x == 1.0 { 1.0 } else { f64::NAN }));
    }
    if x == 0.0 && y < 0.0 {
        return fail("zero raised to a negative power is undefined");
    }
    if x < 0.0 && y.floor() != y {
        return fail("a negative number raised to a non-integer power yields a complex result");
    }
    let v = x.powf(y);
    if x.is_infinite() || y.is_infinite() {
        return Ok(Datum::Float8(v));
    }
    checked(v, false, x == 0.0).map(Datum::Float8)
}

fn exp(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let x = a[0].as_f64()?;
    if x.is_nan() || x.is_infinite() {
        return Ok(Datum::Float8(x.exp()));
    }
    checked(x.exp(), false, false).map(Datum::Float8)
}

fn sqrt(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let x = a[0].as_f64()?;
    if x < 0.0 {
        return Err(SqlError::new(SqlState::INVALID_ARGUMENT_FOR_POWER_FUNCTION, "cannot take square root of a negative number"));
    }
    Ok(Datum::Float8(x.sqrt()))
}

fn larger(_: &mut Call<'_>, a: &[Datum]) -> Out {
    Ok(if compare_f64(wide(&a[0])?, wide(&a[1])?).is_gt() { a[0].clone() } else { a[1].clone() })
}

fn smaller(_: &mut Call<'_>, a: &[Datum]) -> Out {
    Ok(if compare_f64(wide(&a[0])?, wide(&a[1])?).is_lt() { a[0].clone() } else { a[1].clone() })
}

fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        0.0
    }
}

fn width_bucket(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (x, low, high, count) = (a[0].as_f64()?, a[1].as_f64()?, a[2].as_f64()?, a[3].as_i32()?);
    let fail = |m: &str| Err(SqlError::new(SqlState("2201G"), m));
    if count <= 0 {
        return fail("count must be greater than zero");
    }
    if x.is_nan() || low.is_nan() || high.is_nan() {
        return fail("operand, lower bound, and upper bound cannot be NaN");
    }
    if low.is_infinite() || high.is_infinite() {
        return fail("lower and upper bounds must be finite");
    }
    let over = || super::integer::out_of_range("integer");
    let bucket = |from: f64, to: f64, x: f64| -> Result<i32, SqlError> {
        if x < from {
            Ok(0)
        } else if x >= to {
            count.checked_add(1).ok_or_else(over)
        } else {
            #[expect(clippy::cast_possible_truncation, reason = "below count")]
            let b = (f64::from(count) * ((x - from) / (to - from))) as i32;
            Ok(b.min(count - 1) + 1)
        }
    };
    if low < high {
        bucket(low, high, x).map(Datum::Int4)
    } else if low > high {
        bucket(-low, -high, -x).map(Datum::Int4)
    } else {
        fail("lower bound cannot equal upper bound")
    }
}

/// By `prosrc`.
pub(super) const SCALARS: &[(&str, ScalarFn)] = &[
    ("float8pl", |_, a| double(Op::Add, a)),
    ("float8mi", |_, a| double(Op::Sub, a)),
    ("float8mul", |_, a| double(Op::Mul, a)),
    ("float8div", |_, a| double(Op::Div, a)),
    ("float48pl", |_, a| double(Op::Add, a)),
    ("float48mi", |_, a| double(Op::Sub, a)),
    ("float48mul", |_, a| double(Op::Mul, a)),
    ("float48div", |_, a| double(Op::Div, a)),
    ("float84pl", |_, a| double(Op::Add, a)),
    ("float84mi", |_, a| double(Op::Sub, a)),
    ("float84mul", |_, a| double(Op::Mul, a)),
    ("float84div", |_, a| double(Op::Div, a)),
    ("float4pl", |_, a| single(Op::Add, a)),
    ("float4mi", |_, a| single(Op::Sub, a)),
    ("float4mul", |_, a| single(Op::Mul, a)),
    ("float4div", |_, a| single(Op::Div, a)),
    ("float8um", |_, a| unary(a, |x| -x)),
    ("float8abs", |_, a| unary(a, f64::abs)),
    ("float8up", |_, a| Ok(a[0].clone())),
    ("float4um", |_, a| Ok(Datum::Float4(-a[0].as_f32()?))),
    ("float4abs", |_, a| Ok(Datum::Float4(a[0].as_f32()?.abs()))),
    ("float4up", |_, a| Ok(a[0].clone())),
    ("float8larger", larger),
    ("float8smaller", smaller),
    ("float4larger", larger),
    ("float4smaller", smaller),
    ("dceil", |_, a| unary(a, f64::ceil)),
    ("dfloor", |_, a| unary(a, f64::floor)),
    ("dround", |_, a| unary(a, f64::round_ties_even)),
    ("dtrunc", |_, a| unary(a, f64::trunc)),
    ("dsign", |_, a| unary(a, sign)),
    ("dsqrt", sqrt),
    ("dcbrt", |_, a| unary(a, f64::cbrt)),
    ("dpow", power),
    ("dexp", exp),
    ("dlog1", |_, a| log_checked(a, f64::ln)),
    ("dlog10", |_, a| log_checked(a, f64::log10)),
    ("dpi", |_, _| Ok(Datum::Float8(std::f64::consts::PI))),
    ("degrees", |_, a| checked(a[0].as_f64()? / DEGREE, a[0].as_f64()?.is_infinite(), true).map(Datum::Float8)),
    ("radians", |_, a| unary(a, |x| x * DEGREE)),
    ("dsin", |_, a| trig(a, f64::sin)),
    ("dcos", |_, a| trig(a, f64::cos)),
    ("dtan", |_, a| trig(a, f64::tan)),
    ("dcot", |_, a| trig(a, |x| 1.0 / x.tan())),
    ("dasin", |_, a| within(a, -1.0, 1.0, f64::asin)),
    ("dacos", |_, a| within(a, -1.0, 1.0, f64::acos)),
    ("datan", |_, a| unary(a, f64::atan)),
    ("datan2", |_, a| Ok(Datum::Float8(a[0].as_f64()?.atan2(a[1].as_f64()?)))),
    ("dsinh", |_, a| unary(a, f64::sinh)),
    ("dcosh", |_, a| unary(a, f64::cosh)),
    ("dtanh", |_, a| unary(a, f64::tanh)),
    ("dasinh", |_, a| unary(a, f64::asinh)),
    ("dacosh", |_, a| within(a, 1.0, f64::INFINITY, f64::acosh)),
    ("datanh", |_, a| within(a, -1.0, 1.0, f64::atanh)),
    ("dsind", |_, a| trig(a, sin_degrees)),
    ("dcosd", |_, a| trig(a, cos_degrees)),
    ("dtand", |_, a| trig(a, tan_degrees)),
    ("dcotd", |_, a| trig(a, cot_degrees)),
    ("dasind", |_, a| within(a, -1.0, 1.0, |x| x.asin().to_degrees())),
    ("dacosd", |_, a| within(a, -1.0, 1.0, |x| x.acos().to_degrees())),
    ("datand", |_, a| unary(a, |x| x.atan().to_degrees())),
    ("datan2d", |_, a| Ok(Datum::Float8(a[0].as_f64()?.atan2(a[1].as_f64()?).to_degrees()))),
    ("drandom", |c, _| Ok(Datum::Float8(c.ctx.random()))),
    ("setseed", |c, a| c.ctx.set_seed(a[0].as_f64()?).map(|()| Datum::Void)),
    ("width_bucket_float8", width_bucket),
];
