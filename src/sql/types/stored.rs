//! How one value lies inside a row: fixed-length ones little-endian and unaligned, others with a length header.
//!
//! Length header: one byte `len << 1` for lengths up to 126, `0xFE` for values out of line ([`super::packed`]), else four bytes
//! little-endian `len << 2 | compressed << 1 | 1`. Compressed bytes are the raw length (u32, the method's name in its two top bits: 0 and 2
//! are `lz4`, 1 is `pglz`) and an LZ4 block.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use num_bigint::BigInt;
use smallvec::SmallVec;

use super::array::{ArrayValue, Dim};
use super::bits::BitString;
use super::datum::{Inet, Interval, RangeBounds, RangeValue, RecordValue, Text, Tid};
use super::json::Json;
use super::numeric::Numeric;
use super::packed::{Compression, Held, POINTER_BYTES, POINTER_TAG, Packed, Pointer, ToastTable};
use super::registry::type_by_oid;
use super::row::{ColDesc, TupleDesc};
use super::{Datum, Oid, oids};
use crate::sqlstate::{SqlError, SqlState};

/// Which [`Datum`] variant, and so which stored form, a type has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the variants of Datum")]
pub enum Repr {
    Bool,
    Char,
    Int2,
    Int4,
    Int8,
    Oid,
    Xid8,
    Float4,
    Float8,
    Numeric,
    Text,
    Bytea,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    Lsn,
    Tid,
    Uuid,
    Jsonb,
    Inet,
    MacAddr,
    Bits,
    Array,
    Range,
    Record,
    Void,
}

impl Repr {
    /// A representation that takes as many bytes as that of a type of this length (`attlen`): what is left to know of a dropped column.
    ///
    /// Of the two types of length 6 a table can hold, `macaddr` is meant; nobody drops a column of type `tid`.
    pub fn of_length(len: i16) -> Self {
        match len {
            1 => Self::Bool,
            2 => Self::Int2,
            4 => Self::Int4,
            6 => Self::MacAddr,
            8 => Self::Int8,
            12 => Self::TimeTz,
            16 => Self::Uuid,
            // Anything of varying length, taken for mere bytes; a name, of length 64, is kept so too.
            _ => Self::Bytea,
        }
    }

    /// Whether its values have a length header, so that they can be compressed and moved out of line.
    #[inline]
    pub fn has_header(self) -> bool {
        matches!(
            self,
            Self::Text | Self::Bytea | Self::Numeric | Self::Jsonb | Self::Inet | Self::Bits | Self::Array | Self::Range | Self::Record
        )
    }

    /// The representation of a built-in type. Types made by users are rows unless the catalog says otherwise.
    pub fn of(type_oid: Oid) -> Self {
        match type_oid {
            oids::BOOL => Self::Bool,
            oids::CHAR => Self::Char,
            oids::INT2 => Self::Int2,
            oids::INT4 => Self::Int4,
            oids::INT8 | oids::MONEY => Self::Int8,
            oids::OID
            | oids::XID
            | oids::CID
            | oids::REGPROC
            | oids::REGPROCEDURE
            | oids::REGOPER
            | oids::REGOPERATOR
            | oids::REGCLASS
            | oids::REGTYPE
            | oids::REGROLE
            | oids::REGNAMESPACE
            | oids::REGCONFIG
            | oids::REGDICTIONARY
            | oids::REGCOLLATION => Self::Oid,
            oids::XID8 => Self::Xid8,
            oids::FLOAT4 => Self::Float4,
            oids::FLOAT8 => Self::Float8,
            oids::NUMERIC => Self::Numeric,
            oids::BYTEA => Self::Bytea,
            oids::DATE => Self::Date,
            oids::TIME => Self::Time,
            oids::TIMETZ => Self::TimeTz,
            oids::TIMESTAMP => Self::Timestamp,
            oids::TIMESTAMPTZ => Self::TimestampTz,
            oids::INTERVAL => Self::Interval,
            oids::PG_LSN => Self::Lsn,
            oids::TID => Self::Tid,
            oids::UUID => Self::Uuid,
            oids::JSONB => Self::Jsonb,
            oids::INET | oids::CIDR => Self::Inet,
            oids::MACADDR | oids::MACADDR8 => Self::MacAddr,
            oids::BIT | oids::VARBIT => Self::Bits,
            oids::INT2VECTOR | oids::OIDVECTOR | oids::ANYARRAY | oids::ANYCOMPATIBLEARRAY => Self::Array,
            oids::RECORD => Self::Record,
            oids::VOID | oids::TRIGGER | oids::EVENT_TRIGGER => Self::Void,
            _ => match type_by_oid(type_oid) {
                Some(t) if t.is_array() => Self::Array,
                Some(t) if t.kind == b'r' => Self::Range,
                Some(t) if t.kind == b'c' => Self::Record,
                Some(_) => Self::Text,
                None => Self::Record,
            },
        }
    }
}

fn corrupt() -> SqlError {
    SqlError::new(SqlState::DATA_CORRUPTED, "a stored row ends before its values do")
}

/// Appends a length header and the bytes.
#[inline]
pub(crate) fn put_bytes(b: &[u8], out: &mut Vec<u8>) -> Result<(), SqlError> {
    if b.len() <= 126 {
        #[expect(clippy::cast_possible_truncation, reason = "at most 252")]
        out.push((b.len() << 1) as u8);
    } else {
        out.extend_from_slice(&long_header(b.len(), false)?);
    }
    out.extend_from_slice(b);
    Ok(())
}

pub(super) fn long_header(len: usize, compressed: bool) -> Result<[u8; 4], SqlError> {
    match u32::try_from(len) {
        Ok(n) if n < 1 << 30 => Ok((n << 2 | u32::from(compressed) << 1 | 1).to_le_bytes()),
        _ => Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("value of {len} bytes exceeds the maximum of 1 GB"))),
    }
}

/// The LZ4 block of these bytes, if it is smaller.
pub(crate) fn compress(b: &[u8]) -> Option<Vec<u8>> {
    let packed = lz4_flex::block::compress(b);
    (packed.len() + 4 < b.len()).then_some(packed)
}

/// The bytes an LZ4 block was made of.
///
/// # Errors
/// XX001.
pub(crate) fn decompress(block: &[u8], raw_len: usize) -> Result<Vec<u8>, SqlError> {
    // No LZ4 block grows more than 255 times: a damaged length does not make us ask for a gigabyte.
    if raw_len > block.len().saturating_mul(256).saturating_add(64) {
        return Err(corrupt());
    }
    lz4_flex::block::decompress(block, raw_len)
        .map_err(|e| SqlError::new(SqlState::DATA_CORRUPTED, format!("a stored value does not decompress: {e}")))
}

/// Appends a compressed value: its length header, raw length and method, and the block.
pub(crate) fn put_block(block: &[u8], raw_len: u32, method: Compression, out: &mut Vec<u8>) -> Result<(), SqlError> {
    out.extend_from_slice(&long_header(block.len() + 4, true)?);
    out.extend_from_slice(&(raw_len | Compression::bits(Some(method))).to_le_bytes());
    out.extend_from_slice(block);
    Ok(())
}

/// As [`put_bytes`], compressed if that helps.
fn put_compressed(b: &[u8], out: &mut Vec<u8>) -> Result<(), SqlError> {
    if b.len() > 126
        && let Some(block) = compress(b)
    {
        let raw = u32::try_from(b.len()).map_err(|_| corrupt())?;
        return put_block(&block, raw, Compression::Lz4, out);
    }
    put_bytes(b, out)
}

/// The length among the bits before a compressed value.
const RAW_LENGTH: u32 = (1 << 30) - 1;

/// Reads forward over stored bytes.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

/// Bytes of a value: where they lie, or unpacked.
pub(crate) enum Bytes<'a> {
    Lent(&'a [u8]),
    Unpacked(Vec<u8>),
}

impl std::ops::Deref for Bytes<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Lent(b) => b,
            Self::Unpacked(v) => v,
        }
    }
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], SqlError> {
        let (head, tail) = self.0.split_at_checked(n).ok_or_else(corrupt)?;
        self.0 = tail;
        Ok(head)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], SqlError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or_else(corrupt)?;
        self.0 = tail;
        Ok(*head)
    }

    fn header(&mut self) -> Result<(usize, bool), SqlError> {
        let [first] = self.array::<1>()?;
        if first & 1 == 0 {
            if first == POINTER_TAG {
                return Err(SqlError::new(SqlState::DATA_CORRUPTED, "a stored value is of a kind this version does not know"));
            }
            return Ok((usize::from(first >> 1), false));
        }
        let [b, c, d] = self.array::<3>()?;
        let word = u32::from_le_bytes([first, b, c, d]);
        Ok(((word >> 2) as usize, word & 2 != 0))
    }

    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<Bytes<'a>, SqlError> {
        let (len, compressed) = self.header()?;
        let b = self.take(len)?;
        if !compressed {
            return Ok(Bytes::Lent(b));
        }
        let mut r = Reader(b);
        let raw = u32::from_le_bytes(r.array()?) & RAW_LENGTH;
        decompress(r.0, raw as usize).map(Bytes::Unpacked)
    }

    /// A value that is compressed or out of line, as it is; `None`, and nothing is read, for others.
    #[inline]
    fn packed(&mut self, repr: Repr, toast: Option<&ToastTable>) -> Result<Option<Packed>, SqlError> {
        match self.0.first() {
            Some(&POINTER_TAG) => {
                let pointer = Pointer::decode(&self.array()?).ok_or_else(corrupt)?;
                let toast = toast.filter(|t| t.table.oid == pointer.toast).ok_or_else(|| {
                    SqlError::new(SqlState::DATA_CORRUPTED, format!("a stored value points to relation {}", pointer.toast))
                })?;
                Ok(Some(Packed { repr, held: Held::OutOfLine(pointer, *toast) }))
            }
            Some(first) if first & 3 == 3 => {
                let (len, _) = self.header()?;
                let mut r = Reader(self.take(len)?);
                let word = u32::from_le_bytes(r.array()?);
                let method = Compression::of_bits(word).unwrap_or(Compression::Lz4);
                Ok(Some(Packed { repr, held: Held::Inline { bytes: r.0.into(), raw_len: word & RAW_LENGTH, method } }))
            }
            _ => Ok(None),
        }
    }

    fn skip_bytes(&mut self) -> Result<(), SqlError> {
        if self.0.first() == Some(&POINTER_TAG) {
            return self.take(POINTER_BYTES).map(drop);
        }
        let (len, _) = self.header()?;
        self.take(len).map(drop)
    }
}

/// Appends a value that is not NULL. `compress` packs long strings.
pub(crate) fn put(value: &Datum, compress: bool, out: &mut Vec<u8>) -> Result<(), SqlError> {
    let var = if compress { put_compressed } else { put_bytes };
    match value {
        Datum::Null => return Err(SqlError::internal("NULL has no stored form")),
        Datum::Packed(p) => match &p.held {
            Held::Inline { bytes, raw_len, method } => put_block(bytes, *raw_len, *method, out)?,
            Held::OutOfLine(pointer, _) => out.extend_from_slice(&pointer.encode()),
        },
        Datum::Void => {}
        Datum::Bool(v) => out.push(u8::from(*v)),
        Datum::Char(v) => out.push(*v),
        Datum::Int2(v) => out.extend_from_slice(&v.to_le_bytes()),
        Datum::Int4(v) | Datum::Date(v) => out.extend_from_slice(&v.to_le_bytes()),
        Datum::Int8(v) | Datum::Time(v) | Datum::Timestamp(v) | Datum::TimestampTz(v) => {
            out.extend_from_slice(&v.to_le_bytes());
        }
        Datum::Oid(v) => out.extend_from_slice(&v.to_le_bytes()),
        Datum::Xid8(v) | Datum::Lsn(v) => out.extend_from_slice(&v.to_le_bytes()),
        Datum::Float4(v) => out.extend_from_slice(&v.to_le_bytes()),
        Datum::Float8(v) => out.extend_from_slice(&v.to_le_bytes()),
        Datum::TimeTz(t, zone) => {
            out.extend_from_slice(&t.to_le_bytes());
            out.extend_from_slice(&zone.to_le_bytes());
        }
        Datum::Interval(i) => {
            out.extend_from_slice(&i.micros.to_le_bytes());
            out.extend_from_slice(&i.days.to_le_bytes());
            out.extend_from_slice(&i.months.to_le_bytes());
        }
        Datum::Tid(t) => {
            out.extend_from_slice(&t.block.to_le_bytes());
            out.extend_from_slice(&t.offset.to_le_bytes());
        }
        Datum::Uuid(u) => out.extend_from_slice(u),
        Datum::MacAddr(m) => out.extend_from_slice(m),
        Datum::Text(t) => var(t.as_bytes(), out)?,
        Datum::Bytea(b) => var(b, out)?,
        Datum::Numeric(n) => {
            let mut b: SmallVec<[u8; 16]> = SmallVec::new();
            put_numeric(n, &mut b);
            put_bytes(&b, out)?;
        }
        Datum::Jsonb(j) => {
            let mut b = Vec::new();
            put_json(j, &mut b)?;
            var(&b, out)?;
        }
        Datum::Inet(i) => {
            let mut b: SmallVec<[u8; 17]> = SmallVec::new();
            b.push(i.prefix);
            match i.addr {
                IpAddr::V4(a) => b.extend_from_slice(&a.octets()),
                IpAddr::V6(a) => b.extend_from_slice(&a.octets()),
            }
            put_bytes(&b, out)?;
        }
        Datum::Bits(bits) => {
            let mut b = Vec::with_capacity(bits.bytes.len() + 4);
            b.extend_from_slice(&bits.len.to_le_bytes());
            b.extend_from_slice(&bits.bytes);
            var(&b, out)?;
        }
        Datum::Array(a) => {
            let mut b = Vec::new();
            b.extend_from_slice(&a.elem.to_le_bytes());
            b.push(u8::try_from(a.dims.len()).map_err(|_| corrupt())?);
            for d in &a.dims {
                b.extend_from_slice(&d.len.to_le_bytes());
                b.extend_from_slice(&d.lower.to_le_bytes());
            }
            for v in &a.values {
                put_nullable(v, &mut b)?;
            }
            var(&b, out)?;
        }
        Datum::Range(r) => {
            let mut b = Vec::new();
            b.extend_from_slice(&r.subtype.to_le_bytes());
            match &r.bounds {
                None => b.push(0),
                Some(x) => {
                    b.push(1 | u8::from(x.lower_inc) << 1 | u8::from(x.upper_inc) << 2);
                    put_nullable(&x.lower, &mut b)?;
                    put_nullable(&x.upper, &mut b)?;
                }
            }
            var(&b, out)?;
        }
        Datum::Record(r) => {
            let mut b = Vec::new();
            b.extend_from_slice(&r.type_oid.to_le_bytes());
            b.extend_from_slice(&u32::try_from(r.values.len()).map_err(|_| corrupt())?.to_le_bytes());
            for (c, v) in r.desc.cols.iter().zip(&r.values) {
                // A dropped column has no type.
                b.extend_from_slice(&if c.dropped { 0 } else { c.type_oid }.to_le_bytes());
                put_bytes(c.name.as_bytes(), &mut b)?;
                put_nullable(v, &mut b)?;
            }
            var(&b, out)?;
        }
    }
    Ok(())
}

fn put_nullable(v: &Datum, out: &mut Vec<u8>) -> Result<(), SqlError> {
    if v.is_null() {
        out.push(0);
        return Ok(());
    }
    out.push(1);
    put(v, false, out)
}

fn get_nullable(repr: Repr, r: &mut Reader<'_>) -> Result<Datum, SqlError> {
    match r.array::<1>()? {
        [0] => Ok(Datum::Null),
        _ => get(repr, r),
    }
}

fn put_numeric(n: &Numeric, b: &mut SmallVec<[u8; 16]>) {
    match n {
        Numeric::NaN => b.push(2),
        Numeric::Infinity => b.push(3),
        Numeric::NegInfinity => b.push(4),
        Numeric::Small { coef, scale } => {
            b.push(1);
            b.extend_from_slice(&scale.to_le_bytes());
            let bytes = coef.to_le_bytes();
            let fill = if *coef < 0 { 0xFF } else { 0 };
            let mut len = 8;
            while len > 1 && bytes[len - 1] == fill && (bytes[len - 2] & 0x80) == (fill & 0x80) {
                len -= 1;
            }
            b.extend_from_slice(&bytes[..len]);
        }
        Numeric::Big(x) => {
            b.push(1);
            b.extend_from_slice(&x.scale.to_le_bytes());
            b.extend_from_slice(&x.coef.to_signed_bytes_le());
        }
    }
}

fn get_numeric(b: &[u8]) -> Result<Numeric, SqlError> {
    let mut r = Reader(b);
    match r.array::<1>()? {
        [2] => Ok(Numeric::NaN),
        [3] => Ok(Numeric::Infinity),
        [4] => Ok(Numeric::NegInfinity),
        _ => {
            let scale = u16::from_le_bytes(r.array()?);
            if r.0.len() <= 8 {
                let fill = if r.0.last().is_some_and(|b| b & 0x80 != 0) { 0xFF } else { 0 };
                let mut bytes = [fill; 8];
                bytes[..r.0.len()].copy_from_slice(r.0);
                return Ok(Numeric::Small { coef: i64::from_le_bytes(bytes), scale });
            }
            Ok(Numeric::from_big(BigInt::from_signed_bytes_le(r.0), scale))
        }
    }
}

fn put_json(j: &Json, out: &mut Vec<u8>) -> Result<(), SqlError> {
    match j {
        Json::Null => out.push(0),
        Json::Bool(b) => out.push(1 + u8::from(*b)),
        Json::Number(n) => {
            out.push(3);
            put(&Datum::Numeric(n.clone()), false, out)?;
        }
        Json::String(s) => {
            out.push(4);
            put_bytes(s.as_bytes(), out)?;
        }
        Json::Array(a) => {
            out.push(5);
            out.extend_from_slice(&u32::try_from(a.len()).map_err(|_| corrupt())?.to_le_bytes());
            for v in a {
                put_json(v, out)?;
            }
        }
        Json::Object(o) => {
            out.push(6);
            out.extend_from_slice(&u32::try_from(o.len()).map_err(|_| corrupt())?.to_le_bytes());
            for (k, v) in o {
                put_bytes(k.as_bytes(), out)?;
                put_json(v, out)?;
            }
        }
    }
    Ok(())
}

fn get_json(r: &mut Reader<'_>, depth: u32) -> Result<Json, SqlError> {
    if depth > super::json::MAX_DEPTH {
        return Err(corrupt());
    }
    Ok(match r.array::<1>()? {
        [0] => Json::Null,
        [1] => Json::Bool(false),
        [2] => Json::Bool(true),
        [3] => Json::Number(get_numeric(&r.bytes()?)?),
        [4] => Json::String(get_text(&r.bytes()?)?),
        [5] => {
            let n = u32::from_le_bytes(r.array()?);
            (0..n).map(|_| get_json(r, depth + 1)).collect::<Result<_, _>>().map(Json::Array)?
        }
        [6] => {
            let n = u32::from_le_bytes(r.array()?);
            (0..n).map(|_| Ok((get_text(&r.bytes()?)?, get_json(r, depth + 1)?))).collect::<Result<_, SqlError>>().map(Json::Object)?
        }
        _ => return Err(corrupt()),
    })
}

fn get_text(b: &[u8]) -> Result<Text, SqlError> {
    std::str::from_utf8(b).map(Text::from).map_err(|_| SqlError::new(SqlState::DATA_CORRUPTED, "a stored string is not valid UTF-8"))
}

/// Reads a value that is not NULL.
#[inline]
pub(crate) fn get(repr: Repr, r: &mut Reader<'_>) -> Result<Datum, SqlError> {
    Ok(match repr {
        Repr::Bool => Datum::Bool(r.array::<1>()?[0] != 0),
        Repr::Char => Datum::Char(r.array::<1>()?[0]),
        Repr::Int2 => Datum::Int2(i16::from_le_bytes(r.array()?)),
        Repr::Int4 => Datum::Int4(i32::from_le_bytes(r.array()?)),
        Repr::Int8 => Datum::Int8(i64::from_le_bytes(r.array()?)),
        Repr::Oid => Datum::Oid(u32::from_le_bytes(r.array()?)),
        Repr::Xid8 => Datum::Xid8(u64::from_le_bytes(r.array()?)),
        Repr::Float4 => Datum::Float4(f32::from_le_bytes(r.array()?)),
        Repr::Float8 => Datum::Float8(f64::from_le_bytes(r.array()?)),
        Repr::Date => Datum::Date(i32::from_le_bytes(r.array()?)),
        Repr::Time => Datum::Time(i64::from_le_bytes(r.array()?)),
        Repr::TimeTz => Datum::TimeTz(i64::from_le_bytes(r.array()?), i32::from_le_bytes(r.array()?)),
        Repr::Timestamp => Datum::Timestamp(i64::from_le_bytes(r.array()?)),
        Repr::TimestampTz => Datum::TimestampTz(i64::from_le_bytes(r.array()?)),
        Repr::Interval => Datum::Interval(Interval {
            micros: i64::from_le_bytes(r.array()?),
            days: i32::from_le_bytes(r.array()?),
            months: i32::from_le_bytes(r.array()?),
        }),
        Repr::Lsn => Datum::Lsn(u64::from_le_bytes(r.array()?)),
        Repr::Tid => Datum::Tid(Tid { block: u32::from_le_bytes(r.array()?), offset: u16::from_le_bytes(r.array()?) }),
        Repr::Uuid => Datum::Uuid(r.array()?),
        Repr::MacAddr => Datum::MacAddr(r.array()?),
        Repr::Void => Datum::Void,
        Repr::Text => Datum::Text(get_text(&r.bytes()?)?),
        Repr::Bytea => Datum::Bytea(Arc::from(&*r.bytes()?)),
        Repr::Numeric => Datum::Numeric(get_numeric(&r.bytes()?)?),
        Repr::Jsonb | Repr::Inet | Repr::Bits | Repr::Array | Repr::Range | Repr::Record => get_composed(repr, &r.bytes()?)?,
    })
}

/// As [`get`], leaving packed what is packed.
#[inline]
pub(crate) fn get_packed(repr: Repr, r: &mut Reader<'_>, toast: Option<&ToastTable>) -> Result<Datum, SqlError> {
    if repr.has_header()
        && let Some(packed) = r.packed(repr, toast)?
    {
        return Ok(Datum::Packed(Arc::new(packed)));
    }
    get(repr, r)
}

/// The value whose bytes, without a length header, are these.
///
/// # Errors
/// XX001.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest have parts, or no header")]
pub(crate) fn from_bytes(repr: Repr, held: &[u8]) -> Result<Datum, SqlError> {
    match repr {
        Repr::Text => get_text(held).map(Datum::Text),
        Repr::Bytea => Ok(Datum::Bytea(Arc::from(held))),
        Repr::Numeric => get_numeric(held).map(Datum::Numeric),
        _ if repr.has_header() => get_composed(repr, held),
        _ => Err(corrupt()),
    }
}

/// Length of the header in front of a value just written, and whether the value is plain: not compressed, not out of line.
pub(crate) fn header_of(b: &[u8]) -> (usize, bool) {
    match b.first() {
        Some(&POINTER_TAG) | None => (0, false),
        Some(first) if first & 1 == 0 => (1, true),
        Some(first) => (4, first & 2 == 0),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
fn get_composed(repr: Repr, held: &[u8]) -> Result<Datum, SqlError> {
    let mut b = Reader(held);
    Ok(match repr {
        Repr::Jsonb => Datum::Jsonb(Arc::new(get_json(&mut b, 0)?)),
        Repr::Inet => {
            let [prefix] = b.array()?;
            let addr = match b.0.len() {
                4 => IpAddr::V4(Ipv4Addr::from(b.array::<4>()?)),
                _ => IpAddr::V6(Ipv6Addr::from(b.array::<16>()?)),
            };
            Datum::Inet(Arc::new(Inet { addr, prefix }))
        }
        Repr::Bits => {
            let len = u32::from_le_bytes(b.array()?);
            let bytes = b.take(len.div_ceil(8) as usize)?.into();
            Datum::Bits(Arc::new(BitString { len, bytes }))
        }
        Repr::Array => {
            let elem = u32::from_le_bytes(b.array()?);
            let [ndims] = b.array()?;
            let mut dims = SmallVec::new();
            let mut count = usize::from(ndims > 0);
            for _ in 0..ndims {
                let d = Dim { len: i32::from_le_bytes(b.array()?), lower: i32::from_le_bytes(b.array()?) };
                count = usize::try_from(d.len).ok().and_then(|n| count.checked_mul(n)).ok_or_else(corrupt)?;
                dims.push(d);
            }
            if count > b.0.len() {
                return Err(corrupt());
            }
            let repr = Repr::of(elem);
            let values = (0..count).map(|_| get_nullable(repr, &mut b)).collect::<Result<_, _>>()?;
            Datum::Array(Arc::new(ArrayValue { elem, dims, values }))
        }
        Repr::Range => {
            let subtype = u32::from_le_bytes(b.array()?);
            let repr = Repr::of(subtype);
            let [flags] = b.array()?;
            let bounds = if flags & 1 == 0 {
                None
            } else {
                Some(RangeBounds {
                    lower_inc: flags & 2 != 0,
                    upper_inc: flags & 4 != 0,
                    lower: get_nullable(repr, &mut b)?,
                    upper: get_nullable(repr, &mut b)?,
                })
            };
            Datum::Range(Arc::new(RangeValue { subtype, bounds }))
        }
        _ => {
            let type_oid = u32::from_le_bytes(b.array()?);
            let n = u32::from_le_bytes(b.array()?);
            let mut cols = Vec::new();
            let mut values = Vec::new();
            for _ in 0..n {
                let col_type = u32::from_le_bytes(b.array()?);
                let column = ColDesc::new(&get_text(&b.bytes()?)?, col_type, -1);
                cols.push(ColDesc { dropped: col_type == 0, ..column });
                values.push(get_nullable(Repr::of(col_type), &mut b)?);
            }
            let desc = Arc::new(TupleDesc::new(cols));
            Datum::Record(Arc::new(RecordValue { type_oid, desc, values: values.into() }))
        }
    })
}

/// Passes over a value.
#[inline]
pub(crate) fn skip(repr: Repr, r: &mut Reader<'_>) -> Result<(), SqlError> {
    let n = match repr {
        Repr::Void => 0,
        Repr::Bool | Repr::Char => 1,
        Repr::Int2 => 2,
        Repr::Int4 | Repr::Oid | Repr::Float4 | Repr::Date => 4,
        Repr::Tid => 6,
        Repr::Int8 | Repr::Xid8 | Repr::Float8 | Repr::Time | Repr::Timestamp | Repr::TimestampTz | Repr::Lsn | Repr::MacAddr => 8,
        Repr::TimeTz => 12,
        Repr::Interval | Repr::Uuid => 16,
        Repr::Text | Repr::Bytea | Repr::Numeric | Repr::Jsonb | Repr::Inet | Repr::Bits | Repr::Array | Repr::Range | Repr::Record => {
            return r.skip_bytes();
        }
    };
    r.take(n).map(drop)
}
