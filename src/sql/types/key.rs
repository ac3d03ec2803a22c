//! Index keys: bytes whose `memcmp` order is the order of the values.
//!
//! A key is its columns one after the other. Each starts with a marker byte that places NULL (0 before, 1 value, 2 after),
//! then the value, self-delimiting, so that a shorter key is a prefix bound. Descending columns have the value's bytes
//! inverted. Equal values have equal bytes.
//!
//! Integers and times: big-endian with the sign bit flipped. Floats: the IEEE bits, inverted when negative. Strings: the bytes
//! with 0 escaped as `00 FF`, then `00 00`. Numeric: see `put_numeric`.

use std::sync::Arc;

use num_bigint::BigInt;
use num_traits::{Signed, Zero};

use super::compare::interval_span;
use super::datum::{Text, Tid};
use super::stored::Repr;
use super::{ArrayValue, Datum, Numeric, Oid, oids};
use crate::sqlstate::{SqlError, SqlState};

/// How one key column is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyOrder {
    /// DESC.
    pub desc: bool,
    /// NULLS FIRST.
    pub nulls_first: bool,
}

impl KeyOrder {
    /// ASC NULLS LAST, the default.
    pub const ASC: Self = Self { desc: false, nulls_first: false };
    /// DESC NULLS FIRST, the default for DESC.
    pub const DESC: Self = Self { desc: true, nulls_first: true };
}

const NULL_FIRST: u8 = 0;
const VALUE: u8 = 1;
const NULL_LAST: u8 = 2;

/// Appends one key column. `bpchar` values come stripped of trailing blanks ([`encode_typed`] does it).
///
/// # Errors
/// `0A000` for a type without an order.
#[inline]
pub fn encode(value: &Datum, order: KeyOrder, out: &mut Vec<u8>) -> Result<(), SqlError> {
    if value.is_null() {
        out.push(if order.nulls_first { NULL_FIRST } else { NULL_LAST });
        return Ok(());
    }
    out.push(VALUE);
    let start = out.len();
    put(value, out)?;
    if order.desc {
        for b in &mut out[start..] {
            *b = !*b;
        }
    }
    Ok(())
}

/// As [`encode`], for a value of this type: strips `bpchar`'s trailing blanks, which do not count in comparisons.
///
/// # Errors
/// As [`encode`].
#[inline]
pub fn encode_typed(value: &Datum, type_oid: Oid, order: KeyOrder, out: &mut Vec<u8>) -> Result<(), SqlError> {
    if type_oid == oids::BPCHAR
        && let Datum::Text(t) = value
        && t.ends_with(' ')
    {
        return encode(&Datum::text(t.trim_end_matches(' ')), order, out);
    }
    encode(value, order, out)
}

/// Appends what the key columns of all texts begin with that begin with `text`.
pub fn encode_start(text: &str, order: KeyOrder, out: &mut Vec<u8>) {
    out.push(VALUE);
    out.extend(text.bytes().map(|b| if order.desc { !b } else { b }));
}

fn put_string(b: &[u8], out: &mut Vec<u8>) {
    let mut rest = b;
    while let Some(i) = rest.iter().position(|&c| c == 0) {
        out.extend_from_slice(&rest[..i]);
        out.extend_from_slice(&[0, 0xFF]);
        rest = &rest[i + 1..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(&[0, 0]);
}

fn put_i32(v: i32, out: &mut Vec<u8>) {
    out.extend_from_slice(&(v.cast_unsigned() ^ 1 << 31).to_be_bytes());
}

fn put_i64(v: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&(v.cast_unsigned() ^ 1 << 63).to_be_bytes());
}

fn float_bits(v: f64) -> u64 {
    let bits = if v == 0.0 {
        0
    } else if v.is_nan() {
        f64::NAN.to_bits() & !(1 << 63)
    } else {
        v.to_bits()
    };
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn unordered(value: &Datum) -> SqlError {
    SqlError::unsupported(format_args!("an index on values such as {value:?}"))
}

fn put(value: &Datum, out: &mut Vec<u8>) -> Result<(), SqlError> {
    match value {
        Datum::Int4(v) | Datum::Date(v) => put_i32(*v, out),
        Datum::Int8(v) | Datum::Time(v) | Datum::Timestamp(v) | Datum::TimestampTz(v) => put_i64(*v, out),
        Datum::Text(t) => put_string(t.as_bytes(), out),
        Datum::Bool(v) => out.push(u8::from(*v)),
        Datum::Char(v) => out.push(*v),
        Datum::Int2(v) => out.extend_from_slice(&(v.cast_unsigned() ^ 1 << 15).to_be_bytes()),
        Datum::Oid(v) => out.extend_from_slice(&v.to_be_bytes()),
        Datum::Xid8(v) | Datum::Lsn(v) => out.extend_from_slice(&v.to_be_bytes()),
        Datum::Float4(v) => out.extend_from_slice(&float_bits(f64::from(*v)).to_be_bytes()),
        Datum::Float8(v) => out.extend_from_slice(&float_bits(*v).to_be_bytes()),
        Datum::Numeric(n) => put_numeric(n, out),
        Datum::Bytea(b) => put_string(b, out),
        Datum::TimeTz(t, z) => {
            put_i64(t + i64::from(*z) * 1_000_000, out);
            put_i32(*z, out);
        }
        Datum::Interval(i) => {
            out.extend_from_slice(&(interval_span(*i).cast_unsigned() ^ 1 << 127).to_be_bytes());
        }
        Datum::Tid(t) => {
            out.extend_from_slice(&t.block.to_be_bytes());
            out.extend_from_slice(&t.offset.to_be_bytes());
        }
        Datum::Uuid(u) => out.extend_from_slice(u),
        Datum::MacAddr(m) => out.extend_from_slice(m),
        Datum::Bits(b) => {
            put_string(&b.bytes, out);
            out.extend_from_slice(&b.len.to_be_bytes());
        }
        Datum::Array(a) => {
            for v in &a.values {
                encode(v, KeyOrder::ASC, out)?;
            }
            out.push(0);
            // Arrays with equal elements differ in shape.
            out.push(u8::try_from(a.dims.len()).unwrap_or(u8::MAX));
            for d in &a.dims {
                put_i32(d.len, out);
            }
            for d in &a.dims {
                put_i32(d.lower, out);
            }
        }
        Datum::Record(r) => {
            for v in &r.values {
                encode(v, KeyOrder::ASC, out)?;
            }
            out.push(0);
        }
        Datum::Packed(_) => return Err(value.mismatch("unpacked")),
        Datum::Null | Datum::Void | Datum::Inet(_) | Datum::Range(_) | Datum::Jsonb(_) => {
            return Err(unordered(value));
        }
    }
    Ok(())
}

/// Numeric: a class byte (0 -Infinity, 1 negative, 2 zero, 3 positive, 4 Infinity, 5 NaN); for finite non-zero values the
/// decimal exponent of the first digit (i32), then the digits without trailing zeros, one byte each from 1 to 10, ended by 0.
/// Negative values have exponent and digits inverted.
fn put_numeric(n: &Numeric, out: &mut Vec<u8>) {
    let class = match n {
        Numeric::NegInfinity => 0,
        Numeric::Infinity => 4,
        Numeric::NaN => 5,
        Numeric::Small { .. } | Numeric::Big(_) => match n.signum() {
            -1 => 1,
            0 => 2,
            _ => 3,
        },
    };
    out.push(class);
    if class != 1 && class != 3 {
        return;
    }
    let Some((coef, scale)) = n.coefficient() else { return };
    let digits = coef.magnitude().to_string();
    let exponent = i32::try_from(digits.len()).unwrap_or(i32::MAX) - 1 - i32::from(scale);
    let start = out.len();
    put_i32(exponent, out);
    out.extend(digits.trim_end_matches('0').bytes().map(|d| d - b'0' + 1));
    out.push(0);
    if class == 1 {
        for b in &mut out[start..] {
            *b = !*b;
        }
    }
}

fn corrupt() -> SqlError {
    SqlError::new(SqlState::INDEX_CORRUPTED, "an index key ends before its columns do")
}

/// Reads key bytes forward, inverting those of descending columns.
struct Reader<'a, 'b> {
    bytes: &'a mut &'b [u8],
    flip: u8,
}

impl Reader<'_, '_> {
    fn byte(&mut self) -> Result<u8, SqlError> {
        self.fixed::<1>().map(|[b]| b)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], SqlError> {
        let (head, tail) = self.bytes.split_first_chunk::<N>().ok_or_else(corrupt)?;
        *self.bytes = tail;
        Ok(head.map(|b| b ^ self.flip))
    }

    fn i32(&mut self) -> Result<i32, SqlError> {
        Ok((u32::from_be_bytes(self.fixed()?) ^ 1 << 31).cast_signed())
    }

    fn i64(&mut self) -> Result<i64, SqlError> {
        Ok((u64::from_be_bytes(self.fixed()?) ^ 1 << 63).cast_signed())
    }

    fn f64(&mut self) -> Result<f64, SqlError> {
        let bits = u64::from_be_bytes(self.fixed()?);
        Ok(f64::from_bits(if bits >> 63 == 1 { bits & !(1 << 63) } else { !bits }))
    }

    fn string(&mut self) -> Result<Vec<u8>, SqlError> {
        let mut out = Vec::new();
        loop {
            match self.byte()? {
                0 => match self.byte()? {
                    0 => return Ok(out),
                    _ => out.push(0),
                },
                b => out.push(b),
            }
        }
    }
}

/// Reads one key column of type `type_oid` from the front of `bytes` and advances it.
///
/// # Errors
/// `XX002` for bytes that are no key. Types of which [`is_lossless`] says no come back equal in comparisons, not in looks.
pub fn decode(type_oid: Oid, order: KeyOrder, bytes: &mut &[u8]) -> Result<Datum, SqlError> {
    let (&marker, tail) = bytes.split_first().ok_or_else(corrupt)?;
    *bytes = tail;
    if marker != VALUE {
        return Ok(Datum::Null);
    }
    let mut r = Reader { bytes, flip: if order.desc { 0xFF } else { 0 } };
    get(type_oid, &mut r)
}

fn get(type_oid: Oid, r: &mut Reader<'_, '_>) -> Result<Datum, SqlError> {
    let text = |b: Vec<u8>| String::from_utf8(b).map(|s| Datum::Text(Text::from(s))).map_err(|_| corrupt());
    Ok(match Repr::of(type_oid) {
        Repr::Bool => Datum::Bool(r.byte()? != 0),
        Repr::Char => Datum::Char(r.byte()?),
        Repr::Int2 => Datum::Int2((u16::from_be_bytes(r.fixed()?) ^ 1 << 15).cast_signed()),
        Repr::Int4 => Datum::Int4(r.i32()?),
        Repr::Date => Datum::Date(r.i32()?),
        Repr::Int8 => Datum::Int8(r.i64()?),
        Repr::Time => Datum::Time(r.i64()?),
        Repr::Timestamp => Datum::Timestamp(r.i64()?),
        Repr::TimestampTz => Datum::TimestampTz(r.i64()?),
        Repr::Oid => Datum::Oid(u32::from_be_bytes(r.fixed()?)),
        Repr::Xid8 => Datum::Xid8(u64::from_be_bytes(r.fixed()?)),
        Repr::Lsn => Datum::Lsn(u64::from_be_bytes(r.fixed()?)),
        Repr::Float4 => {
            #[expect(clippy::cast_possible_truncation, reason = "widened from an f32 when encoded")]
            let v = r.f64()? as f32;
            Datum::Float4(v)
        }
        Repr::Float8 => Datum::Float8(r.f64()?),
        Repr::Numeric => Datum::Numeric(get_numeric(r)?),
        Repr::Text => text(r.string()?)?,
        Repr::Bytea => Datum::Bytea(Arc::from(r.string()?)),
        Repr::TimeTz => {
            let utc = r.i64()?;
            let zone = r.i32()?;
            Datum::TimeTz(utc - i64::from(zone) * 1_000_000, zone)
        }
        Repr::Interval => {
            let span = (u128::from_be_bytes(r.fixed()?) ^ 1 << 127).cast_signed();
            let micros = i64::try_from(span).map_err(|_| corrupt())?;
            Datum::Interval(super::Interval { months: 0, days: 0, micros })
        }
        Repr::Tid => Datum::Tid(Tid { block: u32::from_be_bytes(r.fixed()?), offset: u16::from_be_bytes(r.fixed()?) }),
        Repr::Uuid => Datum::Uuid(r.fixed()?),
        Repr::MacAddr => Datum::MacAddr(r.fixed()?),
        Repr::Bits => {
            let bytes = r.string()?.into();
            Datum::Bits(Arc::new(super::bits::BitString { len: u32::from_be_bytes(r.fixed()?), bytes }))
        }
        Repr::Array => {
            let elem = super::registry::type_by_oid(type_oid).map_or(0, |t| t.elem);
            let mut values = Vec::new();
            loop {
                match r.byte()? {
                    0 => break,
                    VALUE => values.push(get(elem, r)?),
                    _ => values.push(Datum::Null),
                }
            }
            let ndims = r.byte()?;
            let lens = (0..ndims).map(|_| r.i32()).collect::<Result<Vec<_>, _>>()?;
            let dims = lens.into_iter().map(|len| Ok(super::array::Dim { len, lower: r.i32()? })).collect::<Result<_, SqlError>>()?;
            Datum::Array(Arc::new(ArrayValue { elem, dims, values }))
        }
        Repr::Void | Repr::Jsonb | Repr::Inet | Repr::Range | Repr::Record => {
            return Err(SqlError::internal(format!("index keys of type {type_oid} do not decode")));
        }
    })
}

fn get_numeric(r: &mut Reader<'_, '_>) -> Result<Numeric, SqlError> {
    let class = r.byte()?;
    match class {
        0 => return Ok(Numeric::NegInfinity),
        2 => return Ok(Numeric::ZERO),
        4 => return Ok(Numeric::Infinity),
        5 => return Ok(Numeric::NaN),
        _ => {}
    }
    let before = r.flip;
    if class == 1 {
        r.flip = !r.flip;
    }
    let exponent = r.i32()?;
    let (mut coef, mut count) = (BigInt::zero(), 0i32);
    loop {
        match r.byte()? {
            0 => break,
            d @ 1..=10 => {
                coef = coef * 10 + (d - 1);
                count += 1;
            }
            _ => return Err(corrupt()),
        }
    }
    r.flip = before;
    if class == 1 {
        coef = -coef.abs();
    }
    let scale = count - 1 - exponent;
    if scale >= 0 {
        return Ok(Numeric::from_big(coef, u16::try_from(scale).map_err(|_| corrupt())?));
    }
    if scale < -131_072 {
        return Err(corrupt());
    }
    Ok(Numeric::from_big(coef * BigInt::from(10).pow(scale.unsigned_abs()), 0))
}

/// Skips one key column.
///
/// # Errors
/// `XX002` for bytes that are no key.
pub fn skip(type_oid: Oid, order: KeyOrder, bytes: &mut &[u8]) -> Result<(), SqlError> {
    decode(type_oid, order, bytes).map(drop)
}

/// Does a key hold the whole value, so that an index-only scan can answer from it?
/// Not for `numeric` (display scale), `float` (minus zero), `bpchar` (trailing blanks), `interval`.
pub fn is_lossless(type_oid: Oid) -> bool {
    if type_oid == oids::BPCHAR {
        return false;
    }
    match Repr::of(type_oid) {
        Repr::Numeric
        | Repr::Float4
        | Repr::Float8
        | Repr::Interval
        | Repr::Array
        | Repr::Jsonb
        | Repr::Inet
        | Repr::Range
        | Repr::Record
        | Repr::Void => false,
        Repr::Text => super::registry::type_by_oid(type_oid).is_some_and(|t| t.kind == b'b'),
        Repr::Bool
        | Repr::Char
        | Repr::Int2
        | Repr::Int4
        | Repr::Int8
        | Repr::Oid
        | Repr::Xid8
        | Repr::Bytea
        | Repr::Date
        | Repr::Time
        | Repr::TimeTz
        | Repr::Timestamp
        | Repr::TimestampTz
        | Repr::Lsn
        | Repr::Tid
        | Repr::Uuid
        | Repr::MacAddr
        | Repr::Bits => true,
    }
}

/// Can values of this type be index keys at all?
pub fn is_supported(type_oid: Oid) -> bool {
    !matches!(Repr::of(type_oid), Repr::Void | Repr::Jsonb | Repr::Inet | Repr::Range)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::compare::compare;
    use super::*;

    fn key(v: &Datum, order: KeyOrder) -> Vec<u8> {
        let mut out = Vec::new();
        encode(v, order, &mut out).unwrap();
        out
    }

    fn datum_pair() -> impl Strategy<Value = (u32, Datum, Datum)> {
        fn two<T: std::fmt::Debug>(
            oid: u32,
            s: impl Strategy<Value = T> + Clone,
            f: fn(T) -> Datum,
        ) -> impl Strategy<Value = (u32, Datum, Datum)> {
            (s.clone(), s).prop_map(move |(a, b)| (oid, f(a), f(b)))
        }
        prop_oneof![
            two(oids::INT2, any::<i16>(), Datum::Int2),
            two(oids::INT4, any::<i32>(), Datum::Int4),
            two(oids::INT8, any::<i64>(), Datum::Int8),
            two(oids::FLOAT8, any::<f64>(), Datum::Float8),
            two(oids::TEXT, "[a\u{0}-c]{0,4}", |s: String| Datum::text(s)),
            two(oids::BYTEA, prop::collection::vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 0..5), |b| { Datum::bytea(b) }),
            two(oids::NUMERIC, (any::<i64>(), 0u16..25), |(coef, scale)| { Datum::Numeric(Numeric::Small { coef, scale }) }),
            two(oids::NUMERIC, (-200i64..200, 0u16..3), |(coef, scale)| { Datum::Numeric(Numeric::Small { coef, scale }) }),
            two(oids::BOOL, any::<bool>(), Datum::Bool),
            two(oids::INT4_ARRAY, prop::collection::vec(prop::option::of(-2i32..3), 0..4), |v| {
                Datum::array(ArrayValue::one_dim(oids::INT4, v.into_iter().map(Into::into).collect()))
            }),
        ]
    }

    proptest! {
        #[test]
        fn bytes_order_as_values_and_decode((oid, a, b) in datum_pair()) {
            for order in [KeyOrder::ASC, KeyOrder::DESC] {
                let (x, y) = (key(&a, order), key(&b, order));
                let wanted = compare(&a, &b);
                prop_assert_eq!(x.cmp(&y), if order.desc { wanted.reverse() } else { wanted });
                let mut rest = x.as_slice();
                let back = decode(oid, order, &mut rest).unwrap();
                prop_assert!(rest.is_empty());
                prop_assert!(compare(&a, &back).is_eq());
            }
        }
    }

    #[test]
    fn nulls_go_where_asked() {
        let five = Datum::Int4(5);
        assert!(key(&Datum::Null, KeyOrder::ASC) > key(&five, KeyOrder::ASC));
        assert!(key(&Datum::Null, KeyOrder::DESC) < key(&five, KeyOrder::DESC));
        let last = KeyOrder { desc: true, nulls_first: false };
        assert!(key(&Datum::Null, last) > key(&five, last));
    }
}
