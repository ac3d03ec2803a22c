//! Text and binary forms of every type.

use std::io::Write as _;
use std::sync::Arc;

use super::bits::BitString;
use super::datum::{Inet, RangeBounds, RangeValue, RecordValue, Text, Tid};
use super::json::Json;
use super::registry::type_by_oid;
use super::row::{ColDesc, TupleDesc};
use super::scalar::{self, clip_name, fit_varchar};
use super::settings::{IntervalStyle, IoSettings};
use super::{ArrayValue, Datum, Interval, Numeric, Oid, array, datetime, float, interval, names, oids, range, typmod};
use crate::sqlstate::{SqlError, SqlState};

/// Reads a value from its text form (`typinput`) and applies the type modifier.
///
/// # Errors
/// PostgreSQL's: `22P02` bad syntax, `22003`/`22008` out of range, `22001` too long, ...
pub fn text_in(type_oid: Oid, typmod: i32, s: &str, io: &IoSettings) -> Result<Datum, SqlError> {
    let value = match type_oid {
        oids::INT4 => Datum::Int4(scalar::parse_int(s, "integer")?),
        oids::INT8 => Datum::Int8(scalar::parse_int(s, "bigint")?),
        oids::TEXT | oids::UNKNOWN | oids::CSTRING | oids::REFCURSOR | oids::XML | oids::ACLITEM | oids::PG_NODE_TREE => Datum::text(s),
        oids::VARCHAR => Datum::Text(fit_varchar(Text::from(s), typmod, false)?),
        oids::BPCHAR => Datum::Text(scalar::fitted_bpchar(s, typmod, false)?.unwrap_or_else(|| Text::from(s))),
        oids::NAME => Datum::text(clip_name(s)),
        oids::BOOL => Datum::Bool(scalar::parse_bool(s)?),
        oids::CHAR => Datum::Char(scalar::parse_char(s)),
        oids::INT2 => Datum::Int2(scalar::parse_int(s, "smallint")?),
        oids::OID => Datum::Oid(scalar::parse_oid(s, "oid")?),
        oids::XID => Datum::Oid(scalar::parse_oid(s, "xid")?),
        oids::CID => Datum::Oid(scalar::parse_oid(s, "cid")?),
        oids::XID8 => scalar::parse_xid8(s)?,
        oids::FLOAT4 => Datum::Float4(float::parse_f32(s)?),
        oids::FLOAT8 => Datum::Float8(float::parse_f64(s)?),
        oids::NUMERIC => Datum::Numeric(Numeric::parse(s)?.fit(typmod)?),
        oids::BYTEA => Datum::Bytea(scalar::parse_bytea(s)?.into()),
        oids::DATE => Datum::Date(datetime::parse_date(s, io)?),
        oids::TIME => datetime::fit(Datum::Time(datetime::parse_time(s, io)?), typmod)?,
        oids::TIMETZ => {
            let (t, z) = datetime::parse_timetz(s, io)?;
            datetime::fit(Datum::TimeTz(t, z), typmod)?
        }
        oids::TIMESTAMP => datetime::fit(Datum::Timestamp(datetime::parse_timestamp(s, io)?), typmod)?,
        oids::TIMESTAMPTZ => datetime::fit(Datum::TimestampTz(datetime::parse_timestamptz(s, io)?), typmod)?,
        oids::INTERVAL => Datum::Interval(interval::parse(s, typmod, io)?),
        oids::PG_LSN => Datum::Lsn(scalar::parse_lsn(s)?),
        oids::TID => Datum::Tid(scalar::parse_tid(s)?),
        oids::UUID => Datum::Uuid(scalar::parse_uuid(s)?),
        oids::JSON => {
            Json::parse(s)?;
            Datum::text(s)
        }
        oids::JSONB => Datum::Jsonb(Arc::new(Json::parse(s)?)),
        oids::INET => Datum::Inet(Arc::new(Inet::parse(s, false)?)),
        oids::CIDR => Datum::Inet(Arc::new(Inet::parse(s, true)?)),
        oids::MACADDR => Datum::MacAddr(super::inet::parse_mac(s, false)?),
        oids::MACADDR8 => Datum::MacAddr(super::inet::parse_mac(s, true)?),
        oids::BIT => super::bits::fit(Arc::new(BitString::parse(s)?), true, typmod, false)?,
        oids::VARBIT => super::bits::fit(Arc::new(BitString::parse(s)?), false, typmod, false)?,
        oids::MONEY => Datum::Int8(parse_money(s)?),
        oids::REGCLASS
        | oids::REGTYPE
        | oids::REGNAMESPACE
        | oids::REGROLE
        | oids::REGCOLLATION
        | oids::REGPROC
        | oids::REGPROCEDURE
        | oids::REGOPER
        | oids::REGOPERATOR => Datum::Oid(names::parse_reg(type_oid, s, io)?),
        oids::REGCONFIG | oids::REGDICTIONARY => Datum::Oid(scalar::parse_oid(s, "oid")?),
        oids::INT2VECTOR | oids::OIDVECTOR => parse_vector(type_oid, s)?,
        oids::VOID => Datum::Void,
        _ => return text_in_other(type_oid, typmod, s, io),
    };
    Ok(value)
}

fn text_in_other(type_oid: Oid, typmod: i32, s: &str, io: &IoSettings) -> Result<Datum, SqlError> {
    if let Some(t) = type_by_oid(type_oid) {
        if t.is_array() {
            let delimiter = type_by_oid(t.elem).map_or(b',', |e| e.delimiter);
            return ArrayValue::parse(s, t.elem, delimiter, |e| text_in(t.elem, typmod, e, io)).map(Datum::array);
        }
        if let Some(sub) = range::subtype(type_oid) {
            return RangeValue::parse(s, sub, io).map(RangeValue::into_datum);
        }
        if t.kind == b'p' {
            return Err(SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                if type_oid == oids::RECORD {
                    "input of anonymous composite types is not implemented".to_owned()
                } else {
                    format!("cannot accept a value of type {}", t.name)
                },
            ));
        }
    }
    if let Some(names) = &io.names
        && let Some(desc) = names.composite(type_oid)?
    {
        return RecordValue::parse(s, type_oid, desc, io).map(|r| Datum::Record(Arc::new(r)));
    }
    Err(SqlError::unsupported(format_args!("input of type {}", typmod::type_name(type_oid))))
}

fn parse_money(s: &str) -> Result<i64, SqlError> {
    let fail = || scalar::bad_syntax("money", s);
    let t = s.trim_matches(scalar::is_space);
    let negative = t.starts_with('-') || (t.starts_with('(') && t.ends_with(')'));
    let plain: String = t.chars().filter(|c| !matches!(c, '$' | ',' | '(' | ')' | '-' | ' ')).collect();
    let cents = Numeric::parse(&plain).and_then(|n| n.mul(&Numeric::from(100i64))).map_err(|_| fail())?;
    let cents: i64 = cents.to_integer("money")?;
    Ok(if negative { -cents } else { cents })
}

fn write_money(v: i64, out: &mut Vec<u8>) {
    let digits = (v.unsigned_abs() / 100).to_string();
    if v < 0 {
        out.push(b'-');
    }
    out.push(b'$');
    for (i, c) in digits.bytes().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(b',');
        }
        out.push(c);
    }
    put(out, format_args!(".{:02}", v.unsigned_abs() % 100));
}

fn parse_vector(type_oid: Oid, s: &str) -> Result<Datum, SqlError> {
    let words = s.split_ascii_whitespace();
    Ok(Datum::array(if type_oid == oids::INT2VECTOR {
        let values = words.map(|w| scalar::parse_int(w, "smallint").map(Datum::Int2)).collect::<Result<_, _>>()?;
        ArrayValue::with_lower(oids::INT2, values, 0)
    } else {
        let values = words.map(|w| scalar::parse_oid(w, "oid").map(Datum::Oid)).collect::<Result<_, _>>()?;
        ArrayValue::with_lower(oids::OID, values, 0)
    }))
}

/// Formats straight into the buffer; writing to a `Vec` cannot fail.
#[inline]
fn put(out: &mut Vec<u8>, args: std::fmt::Arguments<'_>) {
    let _infallible = out.write_fmt(args);
}

/// Decimal digits of an integer, without the formatting machinery.
#[inline]
fn put_int(v: i64, out: &mut Vec<u8>) {
    let mut buffer = [0u8; 20];
    let mut at = buffer.len();
    let mut rest = v.unsigned_abs();
    loop {
        at -= 1;
        let digit = (rest % 10) as u8;
        buffer[at] = b'0' + digit;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if v < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    out.extend_from_slice(&buffer[at..]);
}

fn put_with(out: &mut Vec<u8>, write: impl FnOnce(&mut String)) {
    let mut s = String::new();
    write(&mut s);
    out.extend_from_slice(s.as_bytes());
}

/// Appends a value's text form (`typoutput`). The value is not NULL.
///
/// # Errors
/// `0A000` for types without text output; catalog errors for `regclass` and its kin.
pub fn text_out(value: &Datum, type_oid: Oid, out: &mut Vec<u8>, io: &IoSettings) -> Result<(), SqlError> {
    match value {
        Datum::Int4(v) => put_int(i64::from(*v), out),
        Datum::Int8(v) if type_oid == oids::MONEY => write_money(*v, out),
        Datum::Int8(v) => put_int(*v, out),
        Datum::Text(t) => out.extend_from_slice(t.as_bytes()),
        Datum::Null | Datum::Void => {}
        Datum::Bool(v) => out.push(if *v { b't' } else { b'f' }),
        Datum::Char(c) => scalar::write_char(*c, out),
        Datum::Int2(v) => put_int(i64::from(*v), out),
        Datum::Oid(v) => match type_oid {
            oids::REGCLASS
            | oids::REGTYPE
            | oids::REGNAMESPACE
            | oids::REGROLE
            | oids::REGCOLLATION
            | oids::REGPROC
            | oids::REGPROCEDURE
            | oids::REGOPER
            | oids::REGOPERATOR => names::write_reg(type_oid, *v, out, io)?,
            _ => put_int(i64::from(*v), out),
        },
        Datum::Xid8(v) => put(out, format_args!("{v}")),
        Datum::Float4(v) => put_with(out, |s| float::write_f32(*v, s, io)),
        Datum::Float8(v) => put_with(out, |s| float::write_f64(*v, s, io)),
        Datum::Numeric(n) => put(out, format_args!("{n}")),
        Datum::Bytea(b) => scalar::write_bytea(b, io.bytea_output, out),
        Datum::Date(d) => put_with(out, |s| datetime::write_date(*d, io, s)),
        Datum::Time(t) => put_with(out, |s| datetime::write_time(*t, s)),
        Datum::TimeTz(t, z) => put_with(out, |s| datetime::write_timetz(*t, *z, s)),
        Datum::Timestamp(t) => put_with(out, |s| datetime::write_timestamp(*t, io, s)),
        Datum::TimestampTz(t) => put_with(out, |s| datetime::write_timestamptz(*t, io, s)),
        Datum::Interval(i) => put_with(out, |s| interval::write(*i, io, s)),
        Datum::Lsn(v) => put_with(out, |s| scalar::write_lsn(*v, s)),
        Datum::Tid(t) => put(out, format_args!("({},{})", t.block, t.offset)),
        Datum::Uuid(u) => scalar::write_uuid(u, out),
        Datum::Jsonb(j) => put_with(out, |s| j.write(s)),
        Datum::Inet(i) => put_with(out, |s| i.write(type_oid == oids::CIDR, s)),
        Datum::MacAddr(m) => {
            let n = if type_oid == oids::MACADDR8 { 8 } else { 6 };
            for (i, b) in m[..n].iter().enumerate() {
                if i > 0 {
                    out.push(b':');
                }
                scalar::write_hex(&[*b], out);
            }
        }
        Datum::Bits(b) => b.write(out),
        Datum::Array(a) if matches!(type_oid, oids::INT2VECTOR | oids::OIDVECTOR) => {
            for (i, v) in a.values.iter().enumerate() {
                if i > 0 {
                    out.push(b' ');
                }
                text_out(v, a.elem, out, io)?;
            }
        }
        Datum::Array(a) => {
            let delimiter = type_by_oid(a.elem).map_or(b',', |e| e.delimiter);
            a.write(delimiter, out, |v, out| text_out(v, a.elem, out, io))?;
        }
        Datum::Range(r) => r.write(out, io)?,
        Datum::Record(r) => r.write(out, io)?,
        Datum::Packed(_) => return Err(value.mismatch("unpacked")),
    }
    Ok(())
}

/// Text form as a string: for casts to text, `format`, `concat`.
///
/// # Errors
/// As [`text_out`].
pub fn text_string(value: &Datum, type_oid: Oid, io: &IoSettings) -> Result<String, SqlError> {
    let mut out = Vec::new();
    text_out(value, type_oid, &mut out, io)?;
    String::from_utf8(out).map_err(|_| SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, "invalid byte sequence for encoding \"UTF8\""))
}

/// Settings under which text forms do not depend on the session: what `pg_dump`-like stored expressions use.
pub fn portable_settings(io: &IoSettings) -> IoSettings {
    IoSettings { interval_style: IntervalStyle::Postgres, extra_float_digits: 1, ..io.clone() }
}

fn bad_length() -> SqlError {
    SqlError::new(SqlState::PROTOCOL_VIOLATION, "insufficient data left in message")
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], SqlError> {
    <[u8; N]>::try_from(bytes).map_err(|_| {
        if bytes.len() < N { bad_length() } else { SqlError::new(SqlState::INVALID_BINARY_REPRESENTATION, "incorrect binary data format") }
    })
}

fn utf8(bytes: &[u8]) -> Result<&str, SqlError> {
    let bad = |at: usize| {
        let shown: Vec<String> = bytes[at..].iter().take(4).map(|b| format!("0x{b:02x}")).collect();
        let take = if bytes[at] == 0 { 1 } else { shown.len().min(utf8_width(bytes[at])) };
        SqlError::new(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            format!("invalid byte sequence for encoding \"UTF8\": {}", shown[..take].join(" ")),
        )
    };
    if let Some(at) = bytes.iter().position(|&b| b == 0) {
        return Err(bad(at));
    }
    std::str::from_utf8(bytes).map_err(|e| bad(e.valid_up_to()))
}

fn utf8_width(first: u8) -> usize {
    match first {
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF7 => 4,
        _ => 1,
    }
}

/// Checks that client bytes are text: UTF-8 without NUL.
///
/// # Errors
/// `22021` in PostgreSQL's words.
pub fn check_text(bytes: &[u8]) -> Result<&str, SqlError> {
    utf8(bytes)
}

/// Reads a value from its binary form (`typreceive`) and applies the type modifier.
///
/// # Errors
/// `22P03` and the type's own.
pub fn binary_recv(type_oid: Oid, typmod: i32, bytes: &[u8], io: &IoSettings) -> Result<Datum, SqlError> {
    let value = match type_oid {
        oids::INT4 => Datum::Int4(i32::from_be_bytes(fixed(bytes)?)),
        oids::INT8 | oids::MONEY => Datum::Int8(i64::from_be_bytes(fixed(bytes)?)),
        oids::INT2 => Datum::Int2(i16::from_be_bytes(fixed(bytes)?)),
        oids::TEXT
        | oids::UNKNOWN
        | oids::CSTRING
        | oids::VARCHAR
        | oids::BPCHAR
        | oids::NAME
        | oids::JSON
        | oids::XML
        | oids::REFCURSOR => return text_in(type_oid, typmod, utf8(bytes)?, io),
        oids::BOOL => Datum::Bool(fixed::<1>(bytes)? != [0]),
        oids::CHAR => Datum::Char(fixed::<1>(bytes)?[0]),
        oids::FLOAT4 => Datum::Float4(f32::from_be_bytes(fixed(bytes)?)),
        oids::FLOAT8 => Datum::Float8(f64::from_be_bytes(fixed(bytes)?)),
        oids::NUMERIC => Datum::Numeric(Numeric::recv(bytes)?.fit(typmod)?),
        oids::BYTEA => Datum::bytea(bytes),
        oids::DATE => {
            let d = i32::from_be_bytes(fixed(bytes)?);
            if d != i32::MIN && d != i32::MAX && !(datetime::DATE_MIN..datetime::DATE_END).contains(&d) {
                return Err(datetime::date_out_of_range());
            }
            Datum::Date(d)
        }
        oids::TIME => {
            let t = i64::from_be_bytes(fixed(bytes)?);
            if !(0..=datetime::DAY).contains(&t) {
                return Err(SqlError::new(SqlState::DATETIME_FIELD_OVERFLOW, "time out of range"));
            }
            datetime::fit(Datum::Time(t), typmod)?
        }
        oids::TIMETZ => {
            let b = fixed::<12>(bytes)?;
            let (t, z) = b.split_at(8);
            datetime::fit(Datum::TimeTz(i64::from_be_bytes(fixed(t)?), i32::from_be_bytes(fixed(z)?)), typmod)?
        }
        oids::TIMESTAMP | oids::TIMESTAMPTZ => {
            let t = i64::from_be_bytes(fixed(bytes)?);
            if !datetime::is_infinite(t) {
                datetime::check_timestamp(i128::from(t))?;
            }
            datetime::fit(if type_oid == oids::TIMESTAMP { Datum::Timestamp(t) } else { Datum::TimestampTz(t) }, typmod)?
        }
        oids::INTERVAL => {
            let b = fixed::<16>(bytes)?;
            let i = Interval {
                micros: i64::from_be_bytes(fixed(&b[..8])?),
                days: i32::from_be_bytes(fixed(&b[8..12])?),
                months: i32::from_be_bytes(fixed(&b[12..])?),
            };
            Datum::Interval(interval::fit(i, typmod)?)
        }
        oids::PG_LSN => Datum::Lsn(u64::from_be_bytes(fixed(bytes)?)),
        oids::XID8 => Datum::Xid8(u64::from_be_bytes(fixed(bytes)?)),
        oids::TID => {
            let b = fixed::<6>(bytes)?;
            Datum::Tid(Tid { block: u32::from_be_bytes(fixed(&b[..4])?), offset: u16::from_be_bytes(fixed(&b[4..])?) })
        }
        oids::UUID => Datum::Uuid(fixed(bytes)?),
        oids::JSONB => match bytes.split_first() {
            Some((1, text)) => return text_in(type_oid, typmod, utf8(text)?, io),
            Some((v, _)) => {
                return Err(SqlError::new(SqlState::INTERNAL_ERROR, format!("unsupported jsonb version number {v}")));
            }
            None => return Err(bad_length()),
        },
        oids::INET | oids::CIDR => Datum::Inet(Arc::new(Inet::recv(bytes)?)),
        oids::MACADDR => {
            let b = fixed::<6>(bytes)?;
            Datum::MacAddr([b[0], b[1], b[2], b[3], b[4], b[5], 0, 0])
        }
        oids::MACADDR8 => Datum::MacAddr(fixed(bytes)?),
        oids::BIT | oids::VARBIT => {
            let (len, rest) = bytes.split_first_chunk::<4>().ok_or_else(bad_length)?;
            let len = u32::from_be_bytes(*len);
            if rest.len() != len.div_ceil(8) as usize {
                return Err(bad_length());
            }
            let b = Arc::new(BitString { len, bytes: rest.into() });
            super::bits::fit(b, type_oid == oids::BIT, typmod, false)?
        }
        oids::VOID => Datum::Void,
        _ => return recv_other(type_oid, typmod, bytes, io),
    };
    Ok(value)
}

/// Takes `n` bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Result<&'a [u8], SqlError> {
    let (head, tail) = bytes.split_at_checked(n).ok_or_else(bad_length)?;
    *bytes = tail;
    Ok(head)
}

fn take_i32(bytes: &mut &[u8]) -> Result<i32, SqlError> {
    Ok(i32::from_be_bytes(fixed(take(bytes, 4)?)?))
}

fn take_value(bytes: &mut &[u8], type_oid: Oid, typmod: i32, io: &IoSettings) -> Result<Datum, SqlError> {
    let len = take_i32(bytes)?;
    match usize::try_from(len) {
        Err(_) => Ok(Datum::Null),
        Ok(n) => binary_recv(type_oid, typmod, take(bytes, n)?, io),
    }
}

fn recv_other(type_oid: Oid, typmod: i32, mut bytes: &[u8], io: &IoSettings) -> Result<Datum, SqlError> {
    let bad = |m: String| SqlError::new(SqlState::INVALID_BINARY_REPRESENTATION, m);
    if let Some(sub) = range::subtype(type_oid) {
        let flags = take(&mut bytes, 1)?[0];
        if flags & 1 != 0 {
            return Ok(RangeValue { subtype: sub, bounds: None }.into_datum());
        }
        let lower = if flags & 8 != 0 { Datum::Null } else { take_value(&mut bytes, sub, -1, io)? };
        let upper = if flags & 16 != 0 { Datum::Null } else { take_value(&mut bytes, sub, -1, io)? };
        let bounds = RangeBounds { lower, lower_inc: flags & 2 != 0, upper, upper_inc: flags & 4 != 0 };
        return RangeValue::new(sub, bounds).map(RangeValue::into_datum);
    }
    let elem = match type_by_oid(type_oid) {
        Some(t) if t.is_array() => t.elem,
        _ if type_oid == oids::INT2VECTOR => oids::INT2,
        _ if type_oid == oids::OIDVECTOR => oids::OID,
        _ if super::stored::Repr::of(type_oid) == super::stored::Repr::Oid => {
            return Ok(Datum::Oid(u32::from_be_bytes(fixed(bytes)?)));
        }
        _ => {
            let name = typmod::type_name(type_oid);
            return Err(SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("no binary input function available for type {name}")));
        }
    };
    let ndims = take_i32(&mut bytes)?;
    let Ok(ndims) = usize::try_from(ndims) else { return Err(bad(format!("invalid number of dimensions: {ndims}"))) };
    if ndims > array::MAX_DIMS {
        return Err(array::too_many_dims(ndims));
    }
    let flags = take_i32(&mut bytes)?;
    if !(0..=1).contains(&flags) {
        return Err(bad("invalid array flags".to_owned()));
    }
    let sent = u32::from_be_bytes(fixed(take(&mut bytes, 4)?)?);
    if sent != elem {
        return Err(SqlError::new(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "binary data has array element type {sent} ({}) instead of expected {elem} ({})",
                typmod::type_name(sent),
                typmod::type_name(elem)
            ),
        ));
    }
    let mut dims = smallvec::SmallVec::new();
    let mut count = usize::from(ndims > 0);
    for _ in 0..ndims {
        let d = array::Dim { len: take_i32(&mut bytes)?, lower: take_i32(&mut bytes)? };
        count = usize::try_from(d.len).ok().and_then(|n| count.checked_mul(n)).filter(|&n| n <= bytes.len()).ok_or_else(bad_length)?;
        dims.push(d);
    }
    let values = (0..count).map(|_| take_value(&mut bytes, elem, typmod, io)).collect::<Result<Vec<_>, _>>()?;
    if values.is_empty() {
        return Ok(Datum::array(ArrayValue::empty(elem)));
    }
    ArrayValue::shaped(elem, dims, values).map(Datum::array)
}

/// Appends `write`'s bytes after their length.
fn with_length(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), SqlError>) -> Result<(), SqlError> {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let len =
        i32::try_from(out.len() - at - 4).map_err(|_| SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "value too long for a message"))?;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
    Ok(())
}

fn send_nullable(v: &Datum, type_oid: Oid, out: &mut Vec<u8>) -> Result<(), SqlError> {
    if v.is_null() {
        out.extend_from_slice(&(-1i32).to_be_bytes());
        return Ok(());
    }
    with_length(out, |out| binary_send(v, type_oid, out))
}

/// Appends a value's binary form (`typsend`). The value is not NULL.
///
/// # Errors
/// `42883` for types without binary output.
pub fn binary_send(value: &Datum, type_oid: Oid, out: &mut Vec<u8>) -> Result<(), SqlError> {
    match value {
        Datum::Int4(v) | Datum::Date(v) => out.extend_from_slice(&v.to_be_bytes()),
        Datum::Int8(v) | Datum::Time(v) | Datum::Timestamp(v) | Datum::TimestampTz(v) => {
            out.extend_from_slice(&v.to_be_bytes());
        }
        Datum::Text(t) => out.extend_from_slice(t.as_bytes()),
        Datum::Null | Datum::Void => {}
        Datum::Bool(v) => out.push(u8::from(*v)),
        Datum::Char(v) => out.push(*v),
        Datum::Int2(v) => out.extend_from_slice(&v.to_be_bytes()),
        Datum::Oid(v) => out.extend_from_slice(&v.to_be_bytes()),
        Datum::Xid8(v) | Datum::Lsn(v) => out.extend_from_slice(&v.to_be_bytes()),
        Datum::Float4(v) => out.extend_from_slice(&v.to_be_bytes()),
        Datum::Float8(v) => out.extend_from_slice(&v.to_be_bytes()),
        Datum::Numeric(n) => n.send(out),
        Datum::Bytea(b) => out.extend_from_slice(b),
        Datum::TimeTz(t, z) => {
            out.extend_from_slice(&t.to_be_bytes());
            out.extend_from_slice(&z.to_be_bytes());
        }
        Datum::Interval(i) => {
            out.extend_from_slice(&i.micros.to_be_bytes());
            out.extend_from_slice(&i.days.to_be_bytes());
            out.extend_from_slice(&i.months.to_be_bytes());
        }
        Datum::Tid(t) => {
            out.extend_from_slice(&t.block.to_be_bytes());
            out.extend_from_slice(&t.offset.to_be_bytes());
        }
        Datum::Uuid(u) => out.extend_from_slice(u),
        Datum::Jsonb(j) => {
            out.push(1);
            put_with(out, |s| j.write(s));
        }
        Datum::Inet(i) => i.send(type_oid == oids::CIDR, out),
        Datum::MacAddr(m) => out.extend_from_slice(if type_oid == oids::MACADDR8 { m } else { &m[..6] }),
        Datum::Bits(b) => {
            out.extend_from_slice(&b.len.to_be_bytes());
            out.extend_from_slice(&b.bytes);
        }
        Datum::Array(a) => {
            let put = |v: i32, out: &mut Vec<u8>| out.extend_from_slice(&v.to_be_bytes());
            put(i32::try_from(a.dims.len()).unwrap_or(0), out);
            put(i32::from(a.values.iter().any(Datum::is_null)), out);
            out.extend_from_slice(&a.elem.to_be_bytes());
            for d in &a.dims {
                put(d.len, out);
                put(d.lower, out);
            }
            for v in &a.values {
                send_nullable(v, a.elem, out)?;
            }
        }
        Datum::Range(r) => {
            let Some(b) = &r.bounds else {
                out.push(1);
                return Ok(());
            };
            out.push(
                u8::from(b.lower_inc) << 1
                    | u8::from(b.upper_inc) << 2
                    | u8::from(b.lower.is_null()) << 3
                    | u8::from(b.upper.is_null()) << 4,
            );
            for v in [&b.lower, &b.upper] {
                if !v.is_null() {
                    send_nullable(v, r.subtype, out)?;
                }
            }
        }
        Datum::Record(r) => {
            let live: Vec<(&ColDesc, &Datum)> = r.desc.cols.iter().zip(&r.values).filter(|(c, _)| !c.dropped).collect();
            out.extend_from_slice(&i32::try_from(live.len()).unwrap_or(0).to_be_bytes());
            for (c, v) in live {
                out.extend_from_slice(&c.type_oid.to_be_bytes());
                send_nullable(v, c.type_oid, out)?;
            }
        }
        Datum::Packed(_) => return Err(value.mismatch("unpacked")),
    }
    Ok(())
}

/// A row description for columns named `f1`, `f2`, ...: what `ROW()` makes.
pub fn anonymous_desc(types: &[Oid]) -> Arc<TupleDesc> {
    Arc::new(TupleDesc::new(types.iter().enumerate().map(|(i, &t)| ColDesc::new(&format!("f{}", i + 1), t, -1)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_binary_round_trip() {
        let io = IoSettings::default();
        for (oid, s) in [
            (oids::BOOL, "t"),
            (oids::INT2, "-32768"),
            (oids::INT4, "-2147483648"),
            (oids::INT8, "-9223372036854775808"),
            (oids::FLOAT8, "1.5e-300"),
            (oids::NUMERIC, "-123.4500"),
            (oids::TEXT, "héllo"),
            (oids::BYTEA, "\\x00ff"),
            (oids::DATE, "2024-02-29"),
            (oids::TIME, "23:59:59.999999"),
            (oids::TIMETZ, "10:00:00-03:30"),
            (oids::TIMESTAMP, "1999-12-31 23:59:59.5"),
            (oids::TIMESTAMPTZ, "2024-02-29 12:00:00+00"),
            (oids::INTERVAL, "1 year 2 mons -3 days +04:05:06"),
            (oids::PG_LSN, "16/B374D848"),
            (oids::TID, "(3,4)"),
            (oids::UUID, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            (oids::JSONB, "{\"a\": [1, null]}"),
            (oids::INET, "10.0.0.1/8"),
            (oids::CIDR, "10.0.0.0/8"),
            (oids::VARBIT, "1011"),
            (oids::INT4_ARRAY, "{{1,2},{3,NULL}}"),
            (oids::TEXT_ARRAY, "{a,\"b c\"}"),
            (oids::INT4RANGE, "[1,10)"),
            (oids::NUMRANGE, "(1.5,)"),
            (oids::MACADDR, "08:00:2b:01:02:03"),
        ] {
            let v = text_in(oid, -1, s, &io).unwrap();
            assert_eq!(text_string(&v, oid, &io).unwrap(), s);
            let mut b = Vec::new();
            binary_send(&v, oid, &mut b).unwrap();
            let back = binary_recv(oid, -1, &b, &io).unwrap();
            assert_eq!(text_string(&back, oid, &io).unwrap(), s);
        }
    }

    #[test]
    fn rows_round_trip() {
        let io = IoSettings::default();
        let desc = TupleDesc::new(vec![
            ColDesc::new("a", oids::INT4, -1),
            ColDesc::new("b", oids::TEXT, -1),
            ColDesc::new("c", oids::NUMERIC, -1),
            ColDesc::new("d", oids::INT4_ARRAY, -1),
            ColDesc::new("e", oids::JSONB, -1),
        ]);
        let long = "x".repeat(5000);
        let texts = ["7", &long, "12345678901234567890.5", "{1,NULL,3}", "{\"k\": 1}"];
        let mut values: Vec<Datum> = desc.cols.iter().zip(texts).map(|(c, s)| text_in(c.type_oid, -1, s, &io).unwrap()).collect();
        let mut bytes = Vec::new();
        super::super::row::encode(&desc, &values, &mut bytes).unwrap();
        assert!(bytes.len() < 2000);
        let mut back = vec![Datum::Null; 5];
        super::super::row::decode(&desc, &bytes, 5, &mut back).unwrap();
        for ((c, s), v) in desc.cols.iter().zip(texts).zip(&back) {
            assert_eq!(text_string(v, c.type_oid, &io).unwrap(), s);
        }
        values[1] = Datum::Null;
        bytes.clear();
        super::super::row::encode(&desc, &values, &mut bytes).unwrap();
        super::super::row::decode_some(&desc, &bytes, &[false, true, true], &mut back).unwrap();
        assert!(back[1].is_null());
        for cut in 0..bytes.len() {
            assert!(super::super::row::decode(&desc, &bytes[..cut], 5, &mut back).is_err());
        }
    }
}
