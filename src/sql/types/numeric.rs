//! `numeric`: exact decimals with PostgreSQL's display scale, NaN and infinities.
//!
//! A finite value is `coefficient * 10^-scale`. PostgreSQL computes in base 10000; where its choice of result scale depends
//! on that (division, roots, logarithms), the weight in base 10000 is derived here. PostgreSQL: utils/adt/numeric.c.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use num_bigint::{BigInt, BigUint, Sign};
use num_traits::{Pow, Signed, ToPrimitive, Zero};

use crate::sqlstate::{SqlError, SqlState};

/// Significant digits division and functions deliver at least.
const MIN_SIG_DIGITS: i32 = 16;
/// Most digits after the point that functions choose by themselves.
const MAX_DISPLAY_SCALE: i32 = 1000;
/// Most digits after the point a value may have.
const MAX_SCALE: i32 = 16383;
/// Most digits before the point.
const MAX_WHOLE_DIGITS: i64 = 131_072;
/// `exp` gives up beyond three times this.
const MAX_RESULT_SCALE: i32 = 2000;

/// An exact decimal: `coefficient * 10^-scale`, where `scale` is PostgreSQL's display scale.
#[derive(Clone, Debug)]
pub enum Numeric {
    /// The coefficient fits 64 bits: the common case, never allocates.
    Small {
        /// Unscaled value.
        coef: i64,
        /// Digits after the point.
        scale: u16,
    },
    /// Any other finite value.
    Big(Arc<BigNumeric>),
    /// Not a number; equal to itself and greater than everything.
    NaN,
    /// Plus infinity.
    Infinity,
    /// Minus infinity.
    NegInfinity,
}

/// A decimal whose coefficient does not fit 64 bits.
#[derive(Debug)]
pub struct BigNumeric {
    /// Unscaled value.
    pub coef: BigInt,
    /// Digits after the point.
    pub scale: u16,
}

impl From<i64> for Numeric {
    #[inline]
    fn from(v: i64) -> Self {
        Self::Small { coef: v, scale: 0 }
    }
}

impl From<i128> for Numeric {
    fn from(v: i128) -> Self {
        Self::from_i128(v, 0)
    }
}

impl From<u64> for Numeric {
    fn from(v: u64) -> Self {
        Self::from_i128(i128::from(v), 0)
    }
}

fn overflow() -> SqlError {
    SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value overflows numeric format")
}

fn division_by_zero() -> SqlError {
    SqlError::new(SqlState::DIVISION_BY_ZERO, "division by zero")
}

fn bad_syntax(s: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("invalid input syntax for type numeric: \"{s}\""))
}

fn pow10(n: u32) -> BigInt {
    BigInt::from(Pow::pow(BigUint::from(10u32), n))
}

const POW10_I64: [i64; 19] = {
    let mut t = [1i64; 19];
    let mut i = 1;
    while i < 19 {
        t[i] = t[i - 1] * 10;
        i += 1;
    }
    t
};

fn pow10_i128(n: u32) -> Option<i128> {
    10i128.checked_pow(n)
}

/// `a / b` rounded half away from zero.
fn div_round(a: &BigInt, b: &BigInt) -> BigInt {
    let (q, r) = (a / b, a % b);
    if r.magnitude() * 2u32 >= *b.magnitude() { if a.sign() == b.sign() { q + 1 } else { q - 1 } } else { q }
}

fn div_round_i128(a: i128, b: i128) -> i128 {
    let (q, r) = (a / b, a % b);
    if r.unsigned_abs() >= b.unsigned_abs().div_ceil(2) && r != 0 { if (a < 0) == (b < 0) { q + 1 } else { q - 1 } } else { q }
}

fn digits_u128(v: u128) -> i64 {
    v.checked_ilog10().map_or(0, |d| i64::from(d) + 1)
}

fn digits_big(v: &BigInt) -> i64 {
    if v.is_zero() {
        return 0;
    }
    // An estimate from the bit length is at most one short; comparing settles it.
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "an estimate, corrected below")]
    let low = ((v.bits() - 1) as f64 * std::f64::consts::LOG10_2) as i64;
    let power = pow10(u32::try_from(low).unwrap_or(u32::MAX));
    if v.magnitude() >= power.magnitude() {
        let next: BigInt = power * 10;
        if v.magnitude() >= next.magnitude() { low + 2 } else { low + 1 }
    } else {
        low
    }
}

impl Numeric {
    /// Zero.
    pub const ZERO: Self = Self::Small { coef: 0, scale: 0 };
    /// One.
    pub const ONE: Self = Self::Small { coef: 1, scale: 0 };

    /// From an unscaled value.
    #[inline]
    pub fn from_i128(coef: i128, scale: u16) -> Self {
        i64::try_from(coef)
            .map_or_else(|_| Self::Big(Arc::new(BigNumeric { coef: BigInt::from(coef), scale })), |coef| Self::Small { coef, scale })
    }

    /// From an unscaled value of any size.
    pub fn from_big(coef: BigInt, scale: u16) -> Self {
        coef.to_i64().map_or_else(|| Self::Big(Arc::new(BigNumeric { coef: coef.clone(), scale })), |coef| Self::Small { coef, scale })
    }

    /// From an unscaled value, checking the bounds of the format: digits beyond them are rounded off or refused.
    fn checked(coef: BigInt, scale: i32) -> Result<Self, SqlError> {
        let (coef, scale) = if scale > MAX_SCALE {
            (div_round(&coef, &pow10(scale.abs_diff(MAX_SCALE))), MAX_SCALE)
        } else if scale < 0 {
            (coef * pow10(scale.unsigned_abs()), 0)
        } else {
            (coef, scale)
        };
        // Only large coefficients can be out of range: spare the common case the digit count.
        if coef.bits() > 400_000 && digits_big(&coef) - i64::from(scale) > MAX_WHOLE_DIGITS {
            return Err(overflow());
        }
        Ok(Self::from_big(coef, u16::try_from(scale).unwrap_or(0)))
    }

    fn finite(&self) -> Option<(BigInt, i32)> {
        match self {
            Self::Small { coef, scale } => Some((BigInt::from(*coef), i32::from(*scale))),
            Self::Big(b) => Some((b.coef.clone(), i32::from(b.scale))),
            Self::NaN | Self::Infinity | Self::NegInfinity => None,
        }
    }

    /// NaN?
    pub fn is_nan(&self) -> bool {
        matches!(self, Self::NaN)
    }

    /// Neither NaN nor infinite?
    pub fn is_finite(&self) -> bool {
        matches!(self, Self::Small { .. } | Self::Big(_))
    }

    /// -1, 0 or 1. NaN counts as 1, as it sorts.
    pub fn signum(&self) -> i32 {
        match self {
            Self::Small { coef, .. } => coef.signum().try_into().unwrap_or(0),
            Self::Big(b) => match b.coef.sign() {
                Sign::Minus => -1,
                Sign::NoSign => 0,
                Sign::Plus => 1,
            },
            Self::NaN | Self::Infinity => 1,
            Self::NegInfinity => -1,
        }
    }

    /// Is it zero?
    pub fn is_zero(&self) -> bool {
        self.signum() == 0
    }

    /// Digits after the point that are shown.
    pub fn scale(&self) -> u16 {
        match self {
            Self::Small { scale, .. } => *scale,
            Self::Big(b) => b.scale,
            Self::NaN | Self::Infinity | Self::NegInfinity => 0,
        }
    }

    /// Reads the text form (`numeric_in`).
    ///
    /// # Errors
    /// `22P02` bad syntax, `22003` out of range.
    pub fn parse(text: &str) -> Result<Self, SqlError> {
        let s = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b');
        if let Some(n) = Self::parse_plain(s) {
            return Ok(n);
        }
        let (negative, body) = match s.as_bytes().first() {
            Some(b'-') => (true, &s[1..]),
            Some(b'+') => (false, &s[1..]),
            _ => (false, s),
        };
        if body.eq_ignore_ascii_case("nan") {
            return if s.len() == 3 { Ok(Self::NaN) } else { Err(bad_syntax(text)) };
        }
        if body.eq_ignore_ascii_case("infinity") || body.eq_ignore_ascii_case("inf") {
            return Ok(if negative { Self::NegInfinity } else { Self::Infinity });
        }
        let (mantissa, exponent) = match body.find(['e', 'E']) {
            Some(i) => (&body[..i], Some(&body[i + 1..])),
            None => (body, None),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
            return Err(bad_syntax(text));
        }
        let exponent: i64 = match exponent {
            None => 0,
            Some(e) => {
                let digits = e.strip_prefix(['+', '-']).unwrap_or(e);
                if digits.is_empty() || !all_digits(digits) {
                    return Err(bad_syntax(text));
                }
                e.parse().map_err(|_| overflow())?
            }
        };
        if exponent.abs() >= i64::from(i32::MAX / 2) {
            return Err(overflow());
        }
        let digits: String = [whole, fraction].concat();
        let mut coef: BigInt = digits.parse().map_err(|_| bad_syntax(text))?;
        if negative {
            coef = -coef;
        }
        let scale = i64::try_from(fraction.len()).map_err(|_| overflow())? - exponent;
        if scale > i64::from(MAX_SCALE) {
            return Err(overflow());
        }
        if coef.is_zero() {
            return Ok(Self::Small { coef: 0, scale: u16::try_from(scale.max(0)).unwrap_or(0) });
        }
        if digits_big(&coef) - scale > MAX_WHOLE_DIGITS {
            return Err(overflow());
        }
        Self::checked(coef, i32::try_from(scale).map_err(|_| overflow())?)
    }

    /// Digits, at most one point, a leading minus, up to 18 digits: without a big integer.
    fn parse_plain(s: &str) -> Option<Self> {
        let b = s.as_bytes();
        let (negative, b) = match b.split_first() {
            Some((b'-', rest)) => (true, rest),
            _ => (false, b),
        };
        if b.is_empty() || b.len() > 19 {
            return None;
        }
        let (mut coef, mut scale, mut digits, mut point) = (0i64, 0u16, 0, false);
        for &c in b {
            match c {
                b'0'..=b'9' => {
                    coef = coef.checked_mul(10)?.checked_add(i64::from(c - b'0'))?;
                    digits += 1;
                    scale += u16::from(point);
                }
                b'.' if !point => point = true,
                _ => return None,
            }
        }
        (digits > 0 && digits <= 18).then_some(Self::Small { coef: if negative { -coef } else { coef }, scale })
    }

    /// The nearest decimal of a float with `digits` significant digits (15 for `float8`, 6 for `float4`), as the cast does.
    ///
    /// # Errors
    /// None today; the signature leaves room.
    pub fn from_f64(v: f64, digits: usize) -> Result<Self, SqlError> {
        if v.is_nan() {
            return Ok(Self::NaN);
        }
        if v.is_infinite() {
            return Ok(if v > 0.0 { Self::Infinity } else { Self::NegInfinity });
        }
        Self::parse(&super::float::format_g(v, digits))
    }

    /// Nearest float; overflows to infinity only for values beyond its range, which is an error in the cast.
    pub fn to_f64(&self) -> f64 {
        match self {
            Self::NaN => f64::NAN,
            Self::Infinity => f64::INFINITY,
            Self::NegInfinity => f64::NEG_INFINITY,
            Self::Small { coef, scale: 0 } => {
                #[expect(clippy::cast_precision_loss, reason = "nearest float is what is asked for")]
                let v = *coef as f64;
                v
            }
            Self::Small { .. } | Self::Big(_) => self.to_string().parse().unwrap_or(f64::NAN),
        }
    }

    /// Rounded to an integer, if it fits.
    pub fn to_i128(&self) -> Option<i128> {
        match self {
            Self::Small { coef, scale: 0 } => Some(i128::from(*coef)),
            Self::Small { coef, scale } => {
                let Some(p) = pow10_i128(u32::from(*scale)) else { return Some(0) };
                Some(div_round_i128(i128::from(*coef), p))
            }
            Self::Big(b) => div_round(&b.coef, &pow10(u32::from(b.scale))).to_i128(),
            Self::NaN | Self::Infinity | Self::NegInfinity => None,
        }
    }

    /// Rounded to an integer of the type `name`.
    ///
    /// # Errors
    /// `22003` out of range; `0A000` for NaN and infinities.
    pub fn to_integer<T: TryFrom<i128>>(&self, name: &str) -> Result<T, SqlError> {
        match self {
            Self::NaN => Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("cannot convert NaN to {name}"))),
            Self::Infinity | Self::NegInfinity => {
                Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("cannot convert infinity to {name}")))
            }
            Self::Small { .. } | Self::Big(_) => self
                .to_i128()
                .and_then(|v| T::try_from(v).ok())
                .ok_or_else(|| SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{name} out of range"))),
        }
    }

    /// As an exact integer coefficient and scale.
    pub fn coefficient(&self) -> Option<(BigInt, u16)> {
        self.finite().map(|(c, _)| (c, self.scale()))
    }

    /// Sum.
    ///
    /// # Errors
    /// `22003` overflow.
    pub fn add(&self, other: &Self) -> Result<Self, SqlError> {
        self.add_signed(other, false)
    }

    /// Difference.
    ///
    /// # Errors
    /// `22003` overflow.
    pub fn sub(&self, other: &Self) -> Result<Self, SqlError> {
        self.add_signed(other, true)
    }

    fn add_signed(&self, other: &Self, negate: bool) -> Result<Self, SqlError> {
        if let (Self::Small { coef: a, scale: s }, Self::Small { coef: b, scale: t }) = (self, other) {
            let diff = s.abs_diff(*t);
            if diff <= 18 {
                let p = i128::from(POW10_I64[usize::from(diff)]);
                let (a, b) = (i128::from(*a), if negate { -i128::from(*b) } else { i128::from(*b) });
                let (a, b) = if s < t { (a * p, b) } else { (a, b * p) };
                return Ok(Self::from_i128(a + b, *s.max(t)));
            }
        }
        let (Some((a, s)), Some((b, t))) = (self.finite(), other.finite()) else {
            let other = if negate { other.neg() } else { other.clone() };
            return Ok(match (self, &other) {
                (Self::NaN, _) | (_, Self::NaN) | (Self::Infinity, Self::NegInfinity) | (Self::NegInfinity, Self::Infinity) => Self::NaN,
                (Self::Infinity, _) | (_, Self::Infinity) => Self::Infinity,
                _ => Self::NegInfinity,
            });
        };
        let (a, b) = align(a, s, b, t);
        Self::checked(if negate { a - b } else { a + b }, s.max(t))
    }

    /// Product.
    ///
    /// # Errors
    /// `22003` overflow.
    pub fn mul(&self, other: &Self) -> Result<Self, SqlError> {
        if let (Self::Small { coef: a, scale: s }, Self::Small { coef: b, scale: t }) = (self, other)
            && s + t <= 16383
        {
            return Ok(Self::from_i128(i128::from(*a) * i128::from(*b), s + t));
        }
        let (Some((a, s)), Some((b, t))) = (self.finite(), other.finite()) else {
            if self.is_nan() || other.is_nan() {
                return Ok(Self::NaN);
            }
            return Ok(match self.signum() * other.signum() {
                0 => Self::NaN,
                1 => Self::Infinity,
                _ => Self::NegInfinity,
            });
        };
        Self::checked(a * b, s + t)
    }

    /// Decimal exponent of the first digit; 0 for zero.
    fn exponent(&self) -> i64 {
        match self {
            Self::Small { coef: 0, .. } => 0,
            Self::Small { coef, scale } => digits_u128(u128::from(coef.unsigned_abs())) - 1 - i64::from(*scale),
            Self::Big(b) => digits_big(&b.coef) - 1 - i64::from(b.scale),
            Self::NaN | Self::Infinity | Self::NegInfinity => 0,
        }
    }

    /// Weight of the first base-10000 digit, and that digit: what PostgreSQL chooses result scales by.
    fn base_weight(&self) -> (i32, i32) {
        if self.is_zero() {
            return (0, 0);
        }
        let exponent = self.exponent();
        let weight = exponent.div_euclid(4);
        let wanted = exponent.rem_euclid(4) + 1;
        let (coef, _) = self.finite().unwrap_or_default();
        let text = coef.magnitude().to_string();
        let lead: String = text.chars().chain(std::iter::repeat('0')).take(usize::try_from(wanted).unwrap_or(1)).collect();
        (i32::try_from(weight).unwrap_or(0), lead.parse().unwrap_or(0))
    }

    fn division_scale(&self, other: &Self) -> i32 {
        let (w1, d1) = self.base_weight();
        let (w2, d2) = other.base_weight();
        let quotient = w1 - w2 - i32::from(d1 <= d2);
        (MIN_SIG_DIGITS - quotient * 4).max(i32::from(self.scale())).max(i32::from(other.scale())).clamp(0, MAX_DISPLAY_SCALE)
    }

    /// Quotient, with PostgreSQL's choice of scale.
    ///
    /// # Errors
    /// `22012` division by zero.
    pub fn div(&self, other: &Self) -> Result<Self, SqlError> {
        if !self.is_finite() || !other.is_finite() {
            if self.is_nan() || other.is_nan() {
                return Ok(Self::NaN);
            }
            return Ok(match (self.is_finite(), other.is_finite()) {
                (false, false) => Self::NaN,
                (true, _) => Self::ZERO,
                (false, true) => match self.signum() * other.signum() {
                    0 => return Err(division_by_zero()),
                    1 => Self::Infinity,
                    _ => Self::NegInfinity,
                },
            });
        }
        if other.is_zero() {
            return Err(division_by_zero());
        }
        self.div_to(other, self.division_scale(other))
    }

    /// Quotient rounded to this many digits after the point.
    fn div_to(&self, other: &Self, scale: i32) -> Result<Self, SqlError> {
        let (Some((a, s)), Some((b, t))) = (self.finite(), other.finite()) else { return Ok(Self::NaN) };
        if b.is_zero() {
            return Err(division_by_zero());
        }
        let shift = scale + t - s;
        let q =
            if shift >= 0 { div_round(&(a * pow10(shift.unsigned_abs())), &b) } else { div_round(&a, &(b * pow10(shift.unsigned_abs()))) };
        Self::checked(q, scale)
    }

    /// `div(a, b)`: the quotient truncated to an integer.
    ///
    /// # Errors
    /// `22012` division by zero.
    pub fn div_trunc(&self, other: &Self) -> Result<Self, SqlError> {
        let (Some((a, s)), Some((b, t))) = (self.finite(), other.finite()) else {
            return self.div(other);
        };
        if b.is_zero() {
            return Err(division_by_zero());
        }
        let (a, b) = align(a, s, b, t);
        Self::checked(a / b, 0)
    }

    /// Remainder, sign of the dividend.
    ///
    /// # Errors
    /// `22012` division by zero.
    pub fn rem(&self, other: &Self) -> Result<Self, SqlError> {
        let (Some((a, s)), Some((b, t))) = (self.finite(), other.finite()) else {
            if self.is_nan() || other.is_nan() {
                return Ok(Self::NaN);
            }
            if !self.is_finite() {
                return if other.is_zero() { Err(division_by_zero()) } else { Ok(Self::NaN) };
            }
            return Ok(self.clone());
        };
        if b.is_zero() {
            return Err(division_by_zero());
        }
        let (a, b) = align(a, s, b, t);
        Self::checked(a % b, s.max(t))
    }

    /// Negation.
    #[must_use]
    pub fn neg(&self) -> Self {
        match self {
            Self::Small { coef, scale } => Self::from_i128(-i128::from(*coef), *scale),
            Self::Big(b) => Self::from_big(-b.coef.clone(), b.scale),
            Self::NaN => Self::NaN,
            Self::Infinity => Self::NegInfinity,
            Self::NegInfinity => Self::Infinity,
        }
    }

    /// Absolute value.
    #[must_use]
    pub fn abs(&self) -> Self {
        if self.signum() < 0 { self.neg() } else { self.clone() }
    }

    /// Rounded half away from zero to `places` digits after the point; negative places round before it.
    ///
    /// # Errors
    /// `22003` overflow.
    pub fn round(&self, places: i32) -> Result<Self, SqlError> {
        self.rescale(places, div_round)
    }

    /// Cut off after `places` digits.
    ///
    /// # Errors
    /// `22003` overflow.
    pub fn trunc(&self, places: i32) -> Result<Self, SqlError> {
        self.rescale(places, |a, b| a / b)
    }

    /// Next integer up.
    ///
    /// # Errors
    /// `22003` overflow.
    pub fn ceil(&self) -> Result<Self, SqlError> {
        self.rescale(0, |a, b| {
            let q = a / b;
            if (a % b).is_positive() { q + 1 } else { q }
        })
    }

    /// Next integer down.
    ///
    /// # Errors
    /// `22003` overflow.
    pub fn floor(&self) -> Result<Self, SqlError> {
        self.rescale(0, |a, b| {
            let q = a / b;
            if (a % b).is_negative() { q - 1 } else { q }
        })
    }

    fn rescale(&self, places: i32, divide: impl Fn(&BigInt, &BigInt) -> BigInt) -> Result<Self, SqlError> {
        let Some((coef, scale)) = self.finite() else { return Ok(self.clone()) };
        let places = places.clamp(-131_072, MAX_SCALE);
        let shown = places.max(0);
        if places >= scale {
            if let Self::Small { coef, .. } = self
                && let Some(p) = pow10_i128(places.abs_diff(scale))
                && let Some(v) = i128::from(*coef).checked_mul(p)
            {
                return Ok(Self::from_i128(v, u16::try_from(shown).unwrap_or(0)));
            }
            return Self::checked(coef * pow10(places.abs_diff(scale)), shown);
        }
        let cut = divide(&coef, &pow10(scale.abs_diff(places)));
        Self::checked(if places < 0 { cut * pow10(places.unsigned_abs()) } else { cut }, shown)
    }

    /// Fewest digits after the point that show the value.
    pub fn min_scale(&self) -> u16 {
        let Some((mut coef, _)) = self.finite() else { return 0 };
        let mut scale = self.scale();
        if coef.is_zero() {
            return 0;
        }
        while scale > 0 && (&coef % 10u32).is_zero() {
            coef /= 10u32;
            scale -= 1;
        }
        scale
    }

    /// Without trailing zeros after the point.
    #[must_use]
    pub fn trimmed(&self) -> Self {
        self.round(i32::from(self.min_scale())).unwrap_or_else(|_| self.clone())
    }

    /// Fits `numeric(precision, scale)`, given as a type modifier.
    ///
    /// # Errors
    /// `22003` numeric field overflow.
    pub fn fit(&self, typmod: i32) -> Result<Self, SqlError> {
        if typmod < 4 {
            return Ok(self.clone());
        }
        let precision = (typmod - 4) >> 16 & 0xFFFF;
        let scale = ((typmod - 4) & 0x7FF ^ 1024) - 1024;
        let over = |detail: String| Err(SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow").detail(detail));
        if !self.is_finite() {
            return if self.is_nan() {
                Ok(Self::NaN)
            } else {
                over(format!("A field with precision {precision}, scale {scale} cannot hold an infinite value."))
            };
        }
        let rounded = self.round(scale)?;
        if !rounded.is_zero() && rounded.exponent() + 1 > i64::from(precision - scale) {
            let limit = precision - scale;
            return over(format!(
                "A field with precision {precision}, scale {scale} must round to an absolute value less than {}{}.",
                if limit == 0 { "1".to_owned() } else { format!("10^{limit}") },
                ""
            ));
        }
        Ok(rounded)
    }

    /// Square root.
    ///
    /// # Errors
    /// `2201F` of a negative number.
    pub fn sqrt(&self) -> Result<Self, SqlError> {
        if self.signum() < 0 {
            return Err(SqlError::new(SqlState::INVALID_ARGUMENT_FOR_POWER_FUNCTION, "cannot take square root of a negative number"));
        }
        let Some((coef, scale)) = self.finite() else { return Ok(self.clone()) };
        let (weight, _) = self.base_weight();
        let result_weight = (weight + 1) * 4 / 2 - 1;
        let places = (MIN_SIG_DIGITS - result_weight).max(scale).clamp(0, MAX_DISPLAY_SCALE);
        Self::sqrt_fixed(coef, scale, places)
    }

    /// Square root of a value that is not negative, to this many digits after the point.
    ///
    /// # Errors
    /// `22003` overflow.
    pub fn sqrt_to(&self, places: u16) -> Result<Self, SqlError> {
        let Some((coef, scale)) = self.finite() else { return Ok(self.clone()) };
        Self::sqrt_fixed(coef, scale, i32::from(places))
    }

    fn sqrt_fixed(coef: BigInt, scale: i32, places: i32) -> Result<Self, SqlError> {
        // One digit more than asked, then rounded: exact, since the root of an integer never lies on the half unless it is exact.
        let shift = 2 * (places + 1) - scale;
        let scaled = if shift >= 0 { coef * pow10(shift.unsigned_abs()) } else { coef / pow10(shift.unsigned_abs()) };
        Self::checked(div_round(&scaled.sqrt(), &BigInt::from(10)), places)
    }

    /// `e` to this power.
    ///
    /// # Errors
    /// `22003` overflow.
    pub fn exp(&self) -> Result<Self, SqlError> {
        match self {
            Self::NaN | Self::Infinity => return Ok(self.clone()),
            Self::NegInfinity => return Ok(Self::ZERO),
            Self::Small { .. } | Self::Big(_) => {}
        }
        let weight = (self.to_f64() * std::f64::consts::LOG10_E).clamp(f64::from(-MAX_RESULT_SCALE), f64::from(MAX_RESULT_SCALE));
        #[expect(clippy::cast_possible_truncation, reason = "clamped above")]
        let places = (MIN_SIG_DIGITS - weight as i32).max(i32::from(self.scale())).clamp(0, MAX_DISPLAY_SCALE);
        self.exp_to(places)
    }

    fn exp_to(&self, places: i32) -> Result<Self, SqlError> {
        let approx = self.to_f64();
        if approx.abs() >= f64::from(MAX_RESULT_SCALE * 3) {
            if approx > 0.0 {
                return Err(overflow());
            }
            return Self::checked(BigInt::zero(), places);
        }
        #[expect(clippy::cast_possible_truncation, reason = "below 2700")]
        let weight = (approx * std::f64::consts::LOG10_E) as i32;
        let digits = places + weight.max(0) + 20;
        let (coef, scale) = self.finite().unwrap_or_default();
        let one = pow10(digits.unsigned_abs());
        let x = fixed(&coef, scale, digits);
        // Halve until small, sum the series, square back.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 8 and 22")]
        let halvings = (approx.abs().max(1.0).log2().ceil() as u32) + 8;
        let guard = pow10(halvings / 2 + 8);
        let one = one * &guard;
        let x = (x * &guard) >> halvings;
        let (mut term, mut sum, mut n) = (one.clone(), one.clone(), 1u32);
        while !term.is_zero() {
            term = &term * &x / &one / n;
            sum += &term;
            n += 1;
        }
        for _ in 0..halvings {
            sum = &sum * &sum / &one;
        }
        let drop = (guard * pow10(digits.abs_diff(places))).abs();
        Self::checked(div_round(&sum, &drop), places)
    }

    /// Estimated decimal weight of the natural logarithm (`estimate_ln_dweight`).
    fn ln_weight(&self) -> i32 {
        if self.signum() <= 0 {
            return 0;
        }
        let v = self.to_f64();
        let near = Self::Small { coef: 9, scale: 1 } <= *self && *self <= Self::Small { coef: 11, scale: 1 };
        if near {
            let x = self.sub(&Self::ONE).unwrap_or(Self::ZERO);
            return if x.is_zero() { 0 } else { i32::try_from(x.exponent()).unwrap_or(0) };
        }
        let ln = if v.is_finite() && v > 0.0 {
            v.ln()
        } else {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let e = self.exponent() as f64;
            e * std::f64::consts::LN_10
        };
        #[expect(clippy::cast_possible_truncation, reason = "a logarithm of a logarithm")]
        let w = ln.abs().log10() as i32;
        w
    }

    fn check_log(&self) -> Result<(), SqlError> {
        let fail = |m: &str| Err(SqlError::new(SqlState::INVALID_ARGUMENT_FOR_LOG, m));
        match self.signum() {
            -1 => fail("cannot take logarithm of a negative number"),
            0 => fail("cannot take logarithm of zero"),
            _ => Ok(()),
        }
    }

    /// Natural logarithm.
    ///
    /// # Errors
    /// `2201E` of zero or a negative number.
    pub fn ln(&self) -> Result<Self, SqlError> {
        self.check_log()?;
        if !self.is_finite() {
            return Ok(self.clone());
        }
        let places = (MIN_SIG_DIGITS - self.ln_weight()).max(i32::from(self.scale())).clamp(0, MAX_DISPLAY_SCALE);
        Self::checked(self.ln_fixed(places), places)
    }

    /// Natural logarithm of a positive value, as an integer of `places` decimal places.
    fn ln_fixed(&self, places: i32) -> BigInt {
        let (coef, scale) = self.finite().unwrap_or_default();
        let exponent = i32::try_from(self.exponent()).unwrap_or(0);
        let digits = places.max(0) + 25 + exponent.abs().checked_ilog10().map_or(0, |d| i32::try_from(d).unwrap_or(0));
        // x = m * 10^e with m in [1, 10).
        let one = pow10(digits.unsigned_abs());
        let mantissa = fixed(&coef, scale + exponent, digits);
        let mut ln = ln_of_mantissa(&mantissa, &one);
        if exponent != 0 {
            ln += ln_of_mantissa(&(&one * 10), &one) * exponent;
        }
        if places >= 0 { div_round(&ln, &pow10(digits.abs_diff(places))) } else { ln }
    }

    /// Logarithm to a base.
    ///
    /// # Errors
    /// `2201E` of zero or negative numbers, `22012` for base 1.
    pub fn log(base: &Self, num: &Self) -> Result<Self, SqlError> {
        if base.is_nan() || num.is_nan() {
            return Ok(Self::NaN);
        }
        if base.signum() < 0 || num.signum() < 0 {
            return Err(SqlError::new(SqlState::INVALID_ARGUMENT_FOR_LOG, "cannot take logarithm of a negative number"));
        }
        base.check_log()?;
        num.check_log()?;
        match (base.is_finite(), num.is_finite()) {
            (false, false) => return Ok(Self::NaN),
            (false, true) => return Ok(Self::ZERO),
            (true, false) => return Ok(Self::Infinity),
            (true, true) => {}
        }
        let (bw, nw) = (base.ln_weight(), num.ln_weight());
        let rw = nw - bw;
        let places = (MIN_SIG_DIGITS - rw).max(i32::from(base.scale())).max(i32::from(num.scale())).clamp(0, MAX_DISPLAY_SCALE);
        let work = (places + rw - bw).max(places + rw - nw).max(0) + 12;
        let (b, n) = (base.ln_fixed(work), num.ln_fixed(work));
        if b.is_zero() {
            return Err(division_by_zero());
        }
        Self::checked(div_round(&(n * pow10(places.unsigned_abs())), &b), places)
    }

    fn is_integral(&self) -> bool {
        self.min_scale() == 0
    }

    fn is_odd(&self) -> bool {
        self.is_integral() && self.trimmed().finite().is_some_and(|(c, _)| c.bit(0))
    }

    /// This to a power.
    ///
    /// # Errors
    /// `2201F` for zero to a negative power and negative numbers to fractional powers, `22003` overflow.
    pub fn power(&self, exp: &Self) -> Result<Self, SqlError> {
        let power_error = |m: &str| Err(SqlError::new(SqlState::INVALID_ARGUMENT_FOR_POWER_FUNCTION, m));
        let one = |n: &Self| *n == Self::ONE;
        if self.is_nan() || exp.is_nan() {
            let defined = (self.is_nan() && !exp.is_nan() && exp.is_zero()) || (exp.is_nan() && one(self));
            return Ok(if defined { Self::ONE } else { Self::NaN });
        }
        let (s, t) = (self.signum(), exp.signum());
        if s == 0 && t < 0 {
            return power_error("zero raised to a negative power is undefined");
        }
        if s < 0 && exp.is_finite() && !exp.is_integral() {
            return power_error("a negative number raised to a non-integer power yields a complex result");
        }
        if !self.is_finite() || !exp.is_finite() {
            if one(self) || t == 0 {
                return Ok(Self::ONE);
            }
            if s == 0 {
                return Ok(Self::ZERO);
            }
            if !exp.is_finite() {
                if *self == Self::from(-1i64) {
                    return Ok(Self::ONE);
                }
                let beyond_one = !self.is_finite() || self.abs() > Self::ONE;
                return Ok(if beyond_one == (t > 0) { Self::Infinity } else { Self::ZERO });
            }
            return Ok(match (t > 0, s > 0 || !exp.is_odd()) {
                (false, _) => Self::ZERO,
                (true, true) => Self::Infinity,
                (true, false) => Self::NegInfinity,
            });
        }
        if exp.is_integral()
            && let Some(n) = exp.to_i128().and_then(|n| i32::try_from(n).ok())
        {
            let places = MIN_SIG_DIGITS.max(i32::from(self.scale())).clamp(0, MAX_DISPLAY_SCALE);
            return self.power_int(n, places);
        }
        if s == 0 {
            return Ok(Self::Small { coef: 0, scale: 16 });
        }
        let base = self.abs();
        let ln_weight = base.ln_weight();
        let local = (8 - ln_weight).max(0);
        let approx = Self::checked(base.ln_fixed(local), local)?.mul(exp)?.to_f64();
        if approx.abs() > f64::from(MAX_RESULT_SCALE) * 3.01 {
            if approx > 0.0 {
                return Err(overflow());
            }
            return Self::checked(BigInt::zero(), MAX_DISPLAY_SCALE);
        }
        #[expect(clippy::cast_possible_truncation, reason = "below 2700")]
        let weight = (approx * std::f64::consts::LOG10_E) as i32;
        let places = (MIN_SIG_DIGITS - weight).max(i32::from(self.scale())).max(i32::from(exp.scale())).clamp(0, MAX_DISPLAY_SCALE);
        let work = (places + weight).max(0) - ln_weight + 20;
        let result = Self::checked(base.ln_fixed(work.max(0)), work.max(0))?.mul(exp)?.exp_to(places)?;
        Ok(if s < 0 && exp.is_odd() { result.neg() } else { result })
    }

    fn power_int(&self, n: i32, places: i32) -> Result<Self, SqlError> {
        match n {
            0 => return Self::ONE.round(places),
            1 => return self.round(places),
            -1 => return Self::ONE.div_to(self, places),
            2 => return self.mul(self)?.round(places),
            _ => {}
        }
        if self.is_zero() {
            return if n < 0 { Err(division_by_zero()) } else { Self::checked(BigInt::zero(), places) };
        }
        let (coef, scale) = self.finite().unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "an estimate of the result's weight")]
        let log10 = {
            let digits = digits_big(&coef);
            let lead = digits.min(17);
            let head: f64 = coef.magnitude().to_string()[..usize::try_from(lead).unwrap_or(1)].parse().unwrap_or(1.0);
            head.log10() + (digits - lead) as f64 - f64::from(scale)
        };
        let weight = f64::from(n) * log10;
        if weight > 3.0 * 32767.0 * 4.0 {
            return Err(overflow());
        }
        if weight + 1.0 < f64::from(-places) || weight + 1.0 < f64::from(-MAX_DISPLAY_SCALE) {
            return Self::checked(BigInt::zero(), places);
        }
        #[expect(clippy::cast_possible_truncation, reason = "bounded above")]
        let significant = 1 + places + weight as i32 + (f64::from(n).abs().ln() as i32) + 8;
        // Repeated squaring, each product cut to the digits that still matter.
        let cut = |v: Self| -> Result<Self, SqlError> {
            let e = i32::try_from(v.exponent()).map_err(|_| overflow())?;
            let keep = (significant - e + 8).max(0);
            if i32::from(v.scale()) > keep { v.round(keep) } else { Ok(v) }
        };
        let (mut base, mut result, mut bits) = (self.clone(), Self::ONE, n.unsigned_abs());
        let failed = loop {
            if bits & 1 == 1 {
                match result.wide_mul(&base).and_then(&cut) {
                    Ok(v) => result = v,
                    Err(e) => break Some(e),
                }
            }
            bits >>= 1;
            if bits == 0 {
                break None;
            }
            match base.wide_mul(&base).and_then(&cut) {
                Ok(v) => base = v,
                Err(e) => break Some(e),
            }
        };
        match failed {
            Some(_) if n < 0 => Self::checked(BigInt::zero(), places),
            Some(e) => Err(e),
            None if n < 0 => Self::ONE.div_to(&result, places),
            None => result.round(places),
        }
    }

    fn wide_mul(&self, other: &Self) -> Result<Self, SqlError> {
        if self.exponent() + other.exponent() > MAX_WHOLE_DIGITS {
            return Err(overflow());
        }
        self.mul(other)
    }

    /// PostgreSQL's binary form: base-10000 digits.
    pub fn send(&self, out: &mut Vec<u8>) {
        let special = |sign: u16, out: &mut Vec<u8>| {
            for v in [0u16, 0, sign, 0] {
                out.extend_from_slice(&v.to_be_bytes());
            }
        };
        let (coef, scale) = match self {
            Self::NaN => return special(0xC000, out),
            Self::Infinity => return special(0xD000, out),
            Self::NegInfinity => return special(0xF000, out),
            Self::Small { .. } | Self::Big(_) => self.finite().unwrap_or_default(),
        };
        let text = coef.magnitude().to_string();
        let scale_digits = scale.unsigned_abs() as usize;
        let padded = format!("{text:0>width$}", width = scale_digits + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale_digits);
        let whole = format!("{whole:0>width$}", width = whole.len().next_multiple_of(4));
        let fraction = format!("{fraction:0<width$}", width = scale_digits.next_multiple_of(4));
        let all = [whole.as_str(), &fraction].concat();
        let digits: Vec<u16> = all.as_bytes().chunks(4).map(|c| c.iter().fold(0, |n, d| n * 10 + u16::from(d - b'0'))).collect();
        let mut weight = i16::try_from(whole.len() / 4).unwrap_or(i16::MAX) - 1;
        let lead = digits.iter().take_while(|d| **d == 0).count();
        let mut digits = &digits[lead..];
        weight -= i16::try_from(lead).unwrap_or(0);
        while let [head @ .., 0] = digits {
            digits = head;
        }
        if digits.is_empty() {
            weight = 0;
        }
        out.extend_from_slice(&u16::try_from(digits.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(&weight.to_be_bytes());
        out.extend_from_slice(&(if coef.is_negative() { 0x4000u16 } else { 0 }).to_be_bytes());
        out.extend_from_slice(&u16::try_from(scale).unwrap_or(0).to_be_bytes());
        for d in digits {
            out.extend_from_slice(&d.to_be_bytes());
        }
    }

    /// Reads PostgreSQL's binary form.
    ///
    /// # Errors
    /// `22P03` for bytes that are no numeric.
    pub fn recv(bytes: &[u8]) -> Result<Self, SqlError> {
        let bad =
            |what: &str| SqlError::new(SqlState::INVALID_BINARY_REPRESENTATION, format!("invalid {what} in external \"numeric\" value"));
        let mut words = bytes.chunks_exact(2).map(|c| u16::from_be_bytes([c[0], c[1]]));
        let mut next = |what: &str| words.next().ok_or_else(|| bad(what));
        let n = next("length")?;
        let weight = next("length")?.cast_signed();
        let sign = next("length")?;
        let scale = next("length")?;
        match sign {
            0xC000 => return Ok(Self::NaN),
            0xD000 => return Ok(Self::Infinity),
            0xF000 => return Ok(Self::NegInfinity),
            0 | 0x4000 => {}
            _ => return Err(bad("sign")),
        }
        if i32::from(scale) > MAX_SCALE {
            return Err(bad("scale"));
        }
        let mut coef = BigInt::zero();
        for _ in 0..n {
            let d = next("digit")?;
            if d > 9999 {
                return Err(bad("digit"));
            }
            coef = coef * 10_000u32 + d;
        }
        if sign == 0x4000 {
            coef = -coef;
        }
        let held = 4 * (i32::from(n) - i32::from(weight) - 1);
        let wanted = i32::from(scale);
        let coef = if wanted >= held { coef * pow10(wanted.abs_diff(held)) } else { coef / pow10(held.abs_diff(wanted)) };
        Self::checked(coef, wanted)
    }
}

/// `coef * 10^-scale` as an integer of `digits` decimal places, cut off.
fn fixed(coef: &BigInt, scale: i32, digits: i32) -> BigInt {
    if digits >= scale { coef * pow10(digits.abs_diff(scale)) } else { coef / pow10(scale.abs_diff(digits)) }
}

/// Natural logarithm of a fixed-point value between 1 and 10: roots until near 1, then the series of `atanh`.
fn ln_of_mantissa(x: &BigInt, one: &BigInt) -> BigInt {
    let guard = pow10(12);
    let one = one * &guard;
    let mut x = x * &guard;
    let mut roots = 0u32;
    let near = &one / 64u32;
    while (&x - &one).abs() > near {
        x = (&x * &one).sqrt();
        roots += 1;
    }
    let z = (&x - &one) * &one / (&x + &one);
    let square = &z * &z / &one;
    let (mut power, mut sum, mut n) = (z.clone(), z, 3u32);
    loop {
        power = &power * &square / &one;
        if power.is_zero() {
            break;
        }
        sum += &power / n;
        n += 2;
    }
    (sum << (roots + 1)) / guard
}

fn align(a: BigInt, s: i32, b: BigInt, t: i32) -> (BigInt, BigInt) {
    match s.cmp(&t) {
        Ordering::Less => (a * pow10(s.abs_diff(t)), b),
        Ordering::Greater => (a, b * pow10(s.abs_diff(t))),
        Ordering::Equal => (a, b),
    }
}

impl Ord for Numeric {
    fn cmp(&self, other: &Self) -> Ordering {
        if let (Self::Small { coef: a, scale: s }, Self::Small { coef: b, scale: t }) = (self, other) {
            if s == t {
                return a.cmp(b);
            }
            let diff = s.abs_diff(*t);
            if diff <= 18 {
                let p = i128::from(POW10_I64[usize::from(diff)]);
                return if s < t { (i128::from(*a) * p).cmp(&i128::from(*b)) } else { i128::from(*a).cmp(&(i128::from(*b) * p)) };
            }
        }
        let rank = |n: &Self| match n {
            Self::NegInfinity => 0,
            Self::Small { .. } | Self::Big(_) => 1,
            Self::Infinity => 2,
            Self::NaN => 3,
        };
        let (Some((a, s)), Some((b, t))) = (self.finite(), other.finite()) else { return rank(self).cmp(&rank(other)) };
        let (a, b) = align(a, s, b, t);
        a.cmp(&b)
    }
}

impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Numeric {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Numeric {}

impl Hash for Numeric {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Small { coef, scale } => {
                let (mut c, mut s) = (*coef, *scale);
                while s > 0 && c % 10 == 0 {
                    c /= 10;
                    s -= 1;
                }
                if c == 0 {
                    s = 0;
                }
                (c, s).hash(state);
            }
            Self::Big(_) => match self.trimmed() {
                t @ Self::Small { .. } => t.hash(state),
                Self::Big(b) => (&b.coef, b.scale).hash(state),
                Self::NaN | Self::Infinity | Self::NegInfinity => {}
            },
            Self::NaN => 1u8.hash(state),
            Self::Infinity => 2u8.hash(state),
            Self::NegInfinity => 3u8.hash(state),
        }
    }
}

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (negative, digits, scale) = match self {
            Self::NaN => return f.write_str("NaN"),
            Self::Infinity => return f.write_str("Infinity"),
            Self::NegInfinity => return f.write_str("-Infinity"),
            Self::Small { coef, scale: 0 } => return write!(f, "{coef}"),
            Self::Small { coef, scale } => (*coef < 0, coef.unsigned_abs().to_string(), usize::from(*scale)),
            Self::Big(b) => (b.coef.is_negative(), b.coef.magnitude().to_string(), usize::from(b.scale)),
        };
        if negative {
            f.write_str("-")?;
        }
        if scale == 0 {
            return f.write_str(&digits);
        }
        if digits.len() > scale {
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            write!(f, "{whole}.{fraction}")
        } else {
            write!(f, "0.{digits:0>scale$}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(s: &str) -> Numeric {
        Numeric::parse(s).unwrap()
    }

    #[test]
    fn text_round_trips_with_display_scale() {
        for s in ["0", "0.00", "-1.50", "123456789012345678901234567890.123", "NaN", "Infinity", "-Infinity", "0.0001"] {
            assert_eq!(n(s).to_string(), s);
        }
        assert_eq!(n("1e3").to_string(), "1000");
        assert_eq!(n("1.5e-3").to_string(), "0.0015");
        assert_eq!(n(" -0012.30 ").to_string(), "-12.30");
        assert!(Numeric::parse("1.2.3").is_err() && Numeric::parse("").is_err() && Numeric::parse("1e").is_err());
    }

    #[test]
    fn division_picks_postgres_scale() {
        assert_eq!(n("1").div(&n("3")).unwrap().to_string(), "0.33333333333333333333");
        assert_eq!(n("10").div(&n("4")).unwrap().to_string(), "2.5000000000000000");
        assert_eq!(n("100000").div(&n("3")).unwrap().to_string(), "33333.333333333333");
    }

    #[test]
    fn binary_form_round_trips() {
        for s in ["0", "0.00", "-1.50", "12345678.9", "10000", "0.00010", "99999999999999999999999.5", "NaN"] {
            let mut b = Vec::new();
            n(s).send(&mut b);
            assert_eq!(Numeric::recv(&b).unwrap().to_string(), s);
        }
    }

    #[test]
    fn functions_agree_with_postgres() {
        assert_eq!(n("2").sqrt().unwrap().to_string(), "1.414213562373095");
        assert_eq!(n("1").exp().unwrap().to_string(), "2.7182818284590452");
        assert_eq!(n("2").ln().unwrap().to_string(), "0.6931471805599453");
        assert_eq!(n("2").power(&n("10")).unwrap().to_string(), "1024.0000000000000000");
        assert_eq!(n("2").power(&n("0.5")).unwrap().to_string(), "1.4142135623730950");
        assert_eq!(Numeric::log(&n("10"), &n("1000")).unwrap().to_string(), "3.0000000000000000");
        assert_eq!(n("2.5").round(0).unwrap().to_string(), "3");
        assert_eq!(n("-2.5").round(0).unwrap().to_string(), "-3");
        assert_eq!(n("1234").round(-2).unwrap().to_string(), "1200");
    }
}
