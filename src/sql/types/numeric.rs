//! `numeric`: exact decimals with PostgreSQL's display scale, NaN and infinities.

use std::sync::Arc;

use num_bigint::BigInt;

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
    fn from(v: i64) -> Self {
        Self::Small { coef: v, scale: 0 }
    }
}
