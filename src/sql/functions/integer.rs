//! Integer arithmetic and bit operations. Nothing here allocates.

use super::call::{Call, ScalarFn};
use crate::sql::types::Datum;
use crate::sqlstate::{SqlError, SqlState};

/// Any integer, widened.
#[inline]
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
pub(super) fn wide(d: &Datum) -> Result<i64, SqlError> {
    match d {
        Datum::Int4(v) => Ok(i64::from(*v)),
        Datum::Int8(v) => Ok(*v),
        Datum::Int2(v) => Ok(i64::from(*v)),
        other => Err(other.mismatch("Int8")),
    }
}

/// `22003` for an integer type.
#[cold]
pub(super) fn out_of_range(type_name: &str) -> SqlError {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{type_name} out of range"))
}

/// `22012`.
#[cold]
pub(super) fn division_by_zero() -> SqlError {
    SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero")
}

/// An integer type as results are made of.
trait Int: Copy {
    const NAME: &'static str;
    fn datum(v: i64) -> Result<Datum, SqlError>;
}

#[derive(Clone, Copy)]
struct I2;
#[derive(Clone, Copy)]
struct I4;
#[derive(Clone, Copy)]
struct I8;

impl Int for I2 {
    const NAME: &'static str = "smallint";
    #[inline]
    fn datum(v: i64) -> Result<Datum, SqlError> {
        i16::try_from(v).map(Datum::Int2).map_err(|_| out_of_range(Self::NAME))
    }
}

impl Int for I4 {
    const NAME: &'static str = "integer";
    #[inline]
    fn datum(v: i64) -> Result<Datum, SqlError> {
        i32::try_from(v).map(Datum::Int4).map_err(|_| out_of_range(Self::NAME))
    }
}

impl Int for I8 {
    const NAME: &'static str = "bigint";
    #[inline]
    fn datum(v: i64) -> Result<Datum, SqlError> {
        Ok(Datum::Int8(v))
    }
}

type Out = Result<Datum, SqlError>;

fn add<T: Int>(_: &mut Call<'_>, a: &[Datum]) -> Out {
    T::datum(wide(&a[0])?.checked_add(wide(&a[1])?).ok_or_else(|| out_of_range(T::NAME))?)
}

fn sub<T: Int>(_: &mut Call<'_>, a: &[Datum]) -> Out {
    T::datum(wide(&a[0])?.checked_sub(wide(&a[1])?).ok_or_else(|| out_of_range(T::NAME))?)
}

fn mul<T: Int>(_: &mut Call<'_>, a: &[Datum]) -> Out {
    T::datum(wide(&a[0])?.checked_mul(wide(&a[1])?).ok_or_else(|| out_of_range(T::NAME))?)
}

fn div<T: Int>(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (x, y) = (wide(&a[0])?, wide(&a[1])?);
    if y == 0 {
        return Err(division_by_zero());
    }
    T::datum(x.checked_div(y).ok_or_else(|| out_of_range(T::NAME))?)
}

fn rem<T: Int>(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (x, y) = (wide(&a[0])?, wide(&a[1])?);
    if y == 0 {
        return Err(division_by_zero());
    }
    T::datum(x.checked_rem(y).unwrap_or(0))
}

fn neg<T: Int>(_: &mut Call<'_>, a: &[Datum]) -> Out {
    T::datum(wide(&a[0])?.checked_neg().ok_or_else(|| out_of_range(T::NAME))?)
}

fn abs<T: Int>(_: &mut Call<'_>, a: &[Datum]) -> Out {
    T::datum(wide(&a[0])?.checked_abs().ok_or_else(|| out_of_range(T::NAME))?)
}

fn same(_: &mut Call<'_>, a: &[Datum]) -> Out {
    Ok(a[0].clone())
}

fn and<T: Int>(_: &mut Call<'_>, a: &[Datum]) -> Out {
    T::datum(wide(&a[0])? & wide(&a[1])?)
}

fn or<T: Int>(_: &mut Call<'_>, a: &[Datum]) -> Out {
    T::datum(wide(&a[0])? | wide(&a[1])?)
}

fn xor<T: Int>(_: &mut Call<'_>, a: &[Datum]) -> Out {
    T::datum(wide(&a[0])? ^ wide(&a[1])?)
}

fn not<T: Int>(_: &mut Call<'_>, a: &[Datum]) -> Out {
    T::datum(!wide(&a[0])?)
}

/// Shifts wrap the count at the width of C's `int` or `int64`, as the hardware does there.
#[expect(clippy::cast_possible_truncation, reason = "shifting drops bits by definition")]
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn shift(_: &mut Call<'_>, a: &[Datum], left: bool) -> Out {
    let by = a[1].as_i32()?.cast_unsigned();
    Ok(match &a[0] {
        Datum::Int2(v) => {
            let v = i32::from(*v);
            Datum::Int2(if left { v.wrapping_shl(by) } else { v.wrapping_shr(by) } as i16)
        }
        Datum::Int4(v) => Datum::Int4(if left { v.wrapping_shl(by) } else { v.wrapping_shr(by) }),
        Datum::Int8(v) => Datum::Int8(if left { v.wrapping_shl(by) } else { v.wrapping_shr(by) }),
        other => return Err(other.mismatch("Int8")),
    })
}

fn gcd_of(x: i64, y: i64) -> u64 {
    let (mut x, mut y) = (x.unsigned_abs(), y.unsigned_abs());
    while y != 0 {
        (x, y) = (y, x % y);
    }
    x
}

fn gcd<T: Int>(_: &mut Call<'_>, a: &[Datum]) -> Out {
    T::datum(i64::try_from(gcd_of(wide(&a[0])?, wide(&a[1])?)).map_err(|_| out_of_range(T::NAME))?)
}

fn lcm<T: Int>(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (x, y) = (wide(&a[0])?, wide(&a[1])?);
    if x == 0 || y == 0 {
        return T::datum(0);
    }
    let g = gcd_of(x, y);
    let v = (x.unsigned_abs() / g).checked_mul(y.unsigned_abs()).ok_or_else(|| out_of_range(T::NAME))?;
    T::datum(i64::try_from(v).map_err(|_| out_of_range(T::NAME))?)
}

fn inc<T: Int>(_: &mut Call<'_>, a: &[Datum]) -> Out {
    T::datum(wide(&a[0])?.checked_add(1).ok_or_else(|| out_of_range(T::NAME))?)
}

fn dec<T: Int>(_: &mut Call<'_>, a: &[Datum]) -> Out {
    T::datum(wide(&a[0])?.checked_sub(1).ok_or_else(|| out_of_range(T::NAME))?)
}

fn larger(_: &mut Call<'_>, a: &[Datum]) -> Out {
    Ok(if wide(&a[0])? >= wide(&a[1])? { a[0].clone() } else { a[1].clone() })
}

fn smaller(_: &mut Call<'_>, a: &[Datum]) -> Out {
    Ok(if wide(&a[0])? <= wide(&a[1])? { a[0].clone() } else { a[1].clone() })
}

/// `in_range`: is `value` within `offset` of `base`? Arguments: value, base, offset, sub, less.
fn in_range(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (value, base, offset) = (i128::from(wide(&a[0])?), i128::from(wide(&a[1])?), i128::from(wide(&a[2])?));
    if offset < 0 {
        return Err(SqlError::new(SqlState::INVALID_PRECEDING_OR_FOLLOWING_SIZE, "invalid preceding or following size in window function"));
    }
    let edge = if a[3].as_bool()? { base - offset } else { base + offset };
    Ok(Datum::Bool(if a[4].as_bool()? { value <= edge } else { value >= edge }))
}

/// By `prosrc`.
pub(super) const SCALARS: &[(&str, ScalarFn)] = &[
    ("int4pl", add::<I4>),
    ("int4mi", sub::<I4>),
    ("int4mul", mul::<I4>),
    ("int4div", div::<I4>),
    ("int4mod", rem::<I4>),
    ("int4um", neg::<I4>),
    ("int4abs", abs::<I4>),
    ("int4up", same),
    ("int4and", and::<I4>),
    ("int4or", or::<I4>),
    ("int4xor", xor::<I4>),
    ("int4not", not::<I4>),
    ("int4shl", |c, a| shift(c, a, true)),
    ("int4shr", |c, a| shift(c, a, false)),
    ("int4gcd", gcd::<I4>),
    ("int4lcm", lcm::<I4>),
    ("int4inc", inc::<I4>),
    ("int4larger", larger),
    ("int4smaller", smaller),
    ("int8pl", add::<I8>),
    ("int8mi", sub::<I8>),
    ("int8mul", mul::<I8>),
    ("int8div", div::<I8>),
    ("int8mod", rem::<I8>),
    ("int8um", neg::<I8>),
    ("int8abs", abs::<I8>),
    ("int8up", same),
    ("int8and", and::<I8>),
    ("int8or", or::<I8>),
    ("int8xor", xor::<I8>),
    ("int8not", not::<I8>),
    ("int8shl", |c, a| shift(c, a, true)),
    ("int8shr", |c, a| shift(c, a, false)),
    ("int8gcd", gcd::<I8>),
    ("int8lcm", lcm::<I8>),
    ("int8inc", inc::<I8>),
    ("int8inc_any", inc::<I8>),
    ("int8dec", dec::<I8>),
    ("int8dec_any", dec::<I8>),
    ("int8larger", larger),
    ("int8smaller", smaller),
    ("int2pl", add::<I2>),
    ("int2mi", sub::<I2>),
    ("int2mul", mul::<I2>),
    ("int2div", div::<I2>),
    ("int2mod", rem::<I2>),
    ("int2um", neg::<I2>),
    ("int2abs", abs::<I2>),
    ("int2up", same),
    ("int2and", and::<I2>),
    ("int2or", or::<I2>),
    ("int2xor", xor::<I2>),
    ("int2not", not::<I2>),
    ("int2shl", |c, a| shift(c, a, true)),
    ("int2shr", |c, a| shift(c, a, false)),
    ("int2larger", larger),
    ("int2smaller", smaller),
    ("int24pl", add::<I4>),
    ("int24mi", sub::<I4>),
    ("int24mul", mul::<I4>),
    ("int24div", div::<I4>),
    ("int42pl", add::<I4>),
    ("int42mi", sub::<I4>),
    ("int42mul", mul::<I4>),
    ("int42div", div::<I4>),
    ("int28pl", add::<I8>),
    ("int28mi", sub::<I8>),
    ("int28mul", mul::<I8>),
    ("int28div", div::<I8>),
    ("int82pl", add::<I8>),
    ("int82mi", sub::<I8>),
    ("int82mul", mul::<I8>),
    ("int82div", div::<I8>),
    ("int48pl", add::<I8>),
    ("int48mi", sub::<I8>),
    ("int48mul", mul::<I8>),
    ("int48div", div::<I8>),
    ("int84pl", add::<I8>),
    ("int84mi", sub::<I8>),
    ("int84mul", mul::<I8>),
    ("int84div", div::<I8>),
    ("in_range_int2_int2", in_range),
    ("in_range_int2_int4", in_range),
    ("in_range_int2_int8", in_range),
    ("in_range_int4_int2", in_range),
    ("in_range_int4_int4", in_range),
    ("in_range_int4_int8", in_range),
    ("in_range_int8_int8", in_range),
];
