//! Conversions between types, and the length coercions.

use super::call::{Call, ScalarFn};
use super::integer::out_of_range;
use super::resolve::reinterpret;
use crate::sql::types::datetime::{self, DAY};
use crate::sql::types::scalar::clip_name;
use crate::sql::types::typmod::coerce_typmod;
use crate::sql::types::{Datum, Interval, Numeric, Oid, Text, io, oids};
use crate::sqlstate::SqlError;

type Out = Result<Datum, SqlError>;

fn to_int<T: TryFrom<i64>>(a: &[Datum], name: &str, make: fn(T) -> Datum) -> Out {
    T::try_from(super::integer::wide(&a[0])?).map(make).map_err(|_| out_of_range(name))
}

/// Rounds half to even, as C's `rint`.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "range checked")]
fn float_to_int(v: f64, name: &str) -> Result<i64, SqlError> {
    let r = v.round_ties_even();
    let (low, high) = match name {
        "smallint" => (f64::from(i16::MIN), f64::from(i16::MAX) + 1.0),
        "integer" => (f64::from(i32::MIN), f64::from(i32::MAX) + 1.0),
        _ => (i64::MIN as f64, i64::MAX as f64),
    };
    if r >= low && r < high { Ok(r as i64) } else { Err(out_of_range(name)) }
}

fn ftoi<T: TryFrom<i64>>(a: &[Datum], name: &str, make: fn(T) -> Datum) -> Out {
    let v = float_to_int(super::float::wide(&a[0])?, name)?;
    T::try_from(v).map(make).map_err(|_| out_of_range(name))
}

#[expect(clippy::cast_precision_loss, reason = "nearest float is what the cast means")]
fn itof8(a: &[Datum]) -> Out {
    Ok(Datum::Float8(super::integer::wide(&a[0])? as f64))
}

#[expect(clippy::cast_precision_loss, reason = "nearest float is what the cast means")]
fn itof4(a: &[Datum]) -> Out {
    Ok(Datum::Float4(super::integer::wide(&a[0])? as f32))
}

fn dtof(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let v = a[0].as_f64()?;
    #[expect(clippy::cast_possible_truncation, reason = "range checked below")]
    let f = v as f32;
    let fail = |m: &str| Err(SqlError::new(crate::sqlstate::SqlState::NUMERIC_VALUE_OUT_OF_RANGE, m));
    if f.is_infinite() && !v.is_infinite() {
        return fail("value out of range: overflow");
    }
    if f == 0.0 && v != 0.0 {
        return fail("value out of range: underflow");
    }
    Ok(Datum::Float4(f))
}

fn from_text(c: &Call<'_>, target: Oid, s: &str) -> Out {
    io::text_in(target, -1, s, c.io())
}

fn numeric_to_float(a: &[Datum], single: bool) -> Out {
    let n = a[0].as_numeric()?;
    let v = n.to_f64();
    if v.is_infinite() && n.is_finite() {
        let name = if single { "real" } else { "double precision" };
        return Err(SqlError::new(
            crate::sqlstate::SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
            format!("\"{n}\" is out of range for type {name}"),
        ));
    }
    if single {
        let f: f32 = n.to_string().parse().unwrap_or(f32::NAN);
        if f.is_infinite() && n.is_finite() {
            return Err(SqlError::new(
                crate::sqlstate::SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                format!("\"{n}\" is out of range for type real"),
            ));
        }
        return Ok(Datum::Float4(f));
    }
    Ok(Datum::Float8(v))
}

/// A length coercion: (value, typmod, explicit).
fn fit(type_oid: Oid, a: &[Datum]) -> Out {
    let explicit = a.get(2).is_some_and(Datum::is_true);
    coerce_typmod(a[0].clone(), type_oid, a[1].as_i32()?, explicit)
}

fn ts_to_date(ts: i64) -> Datum {
    Datum::Date(match ts {
        i64::MAX => i32::MAX,
        i64::MIN => i32::MIN,
        ts => i32::try_from(datetime::split(ts).0).unwrap_or(i32::MAX),
    })
}

/// Midnight of a date.
pub(super) fn midnight(d: i32) -> Result<i64, SqlError> {
    if d != i32::MAX && i128::from(d) * i128::from(DAY) >= i128::from(datetime::TIMESTAMP_END) {
        return Err(SqlError::new(crate::sqlstate::SqlState::DATETIME_FIELD_OVERFLOW, "date out of range for timestamp"));
    }
    Ok(match d {
        i32::MAX => i64::MAX,
        i32::MIN => i64::MIN,
        d => i64::from(d) * DAY,
    })
}

fn date_timestamp(_: &mut Call<'_>, a: &[Datum]) -> Out {
    midnight(a[0].as_date()?).map(Datum::Timestamp)
}

fn date_timestamptz(c: &mut Call<'_>, a: &[Datum]) -> Out {
    datetime::to_utc(midnight(a[0].as_date()?)?, &c.io().time_zone).map(Datum::TimestampTz)
}

fn infinite_to_null(ts: i64, f: impl Fn(i64) -> Datum) -> Datum {
    if datetime::is_infinite(ts) { Datum::Null } else { f(ts) }
}

fn text_char(_: &mut Call<'_>, a: &[Datum]) -> Out {
    Ok(Datum::Char(crate::sql::types::scalar::parse_char(a[0].as_str()?)))
}

fn char_text(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let mut out = Vec::new();
    crate::sql::types::scalar::write_char(a[0].as_char()?, &mut out);
    Ok(Datum::from(String::from_utf8_lossy(&out).into_owned()))
}

fn bits_to_int(a: &[Datum], width: u32, name: &str) -> Result<i64, SqlError> {
    let Datum::Bits(b) = &a[0] else { return Err(a[0].mismatch("Bits")) };
    if b.len > width {
        return Err(out_of_range(name));
    }
    Ok(b.bits().fold(0i64, |v, bit| v << 1 | i64::from(bit)))
}

fn int_to_bits(v: i64, width: u32, typmod: i32) -> Datum {
    let len = u32::try_from(typmod).ok().filter(|n| (1..=crate::sql::types::bits::MAX_LEN).contains(n)).unwrap_or(1);
    let bits = (0..len).rev().map(|i| {
        let i = i.min(63);
        if i >= width { v < 0 } else { v >> i & 1 == 1 }
    });
    Datum::Bits(std::sync::Arc::new(crate::sql::types::bits::BitString::from_bits(bits)))
}

/// By `prosrc`.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
pub(super) const SCALARS: &[(&str, ScalarFn)] = &[
    // Also the cast to oid and kin, as the same 32 bits.
    ("i2toi4", |c, a| Ok(reinterpret(Datum::Int4(i32::from(a[0].as_i16()?)), c.types.result))),
    ("i4toi2", |_, a| to_int(a, "smallint", Datum::Int2)),
    ("int28", |_, a| to_int(a, "bigint", Datum::Int8)),
    ("int48", |_, a| to_int(a, "bigint", Datum::Int8)),
    ("int82", |_, a| to_int(a, "smallint", Datum::Int2)),
    ("int84", |_, a| to_int(a, "integer", Datum::Int4)),
    ("i8tooid", |_, a| to_int(a, "OID", Datum::Oid)),
    ("oidtoi8", |_, a| Ok(Datum::Int8(i64::from(a[0].as_oid()?)))),
    ("i2tod", |_, a| itof8(a)),
    ("i4tod", |_, a| itof8(a)),
    ("i8tod", |_, a| itof8(a)),
    ("i2tof", |_, a| itof4(a)),
    ("i4tof", |_, a| itof4(a)),
    ("i8tof", |_, a| itof4(a)),
    ("dtoi2", |_, a| ftoi(a, "smallint", Datum::Int2)),
    ("dtoi4", |_, a| ftoi(a, "integer", Datum::Int4)),
    ("dtoi8", |_, a| ftoi(a, "bigint", Datum::Int8)),
    ("ftoi2", |_, a| ftoi(a, "smallint", Datum::Int2)),
    ("ftoi4", |_, a| ftoi(a, "integer", Datum::Int4)),
    ("ftoi8", |_, a| ftoi(a, "bigint", Datum::Int8)),
    ("ftod", |_, a| Ok(Datum::Float8(f64::from(a[0].as_f32()?)))),
    ("dtof", dtof),
    ("int2_numeric", |_, a| Ok(Datum::Numeric(Numeric::from(super::integer::wide(&a[0])?)))),
    ("int4_numeric", |_, a| Ok(Datum::Numeric(Numeric::from(super::integer::wide(&a[0])?)))),
    ("int8_numeric", |_, a| Ok(Datum::Numeric(Numeric::from(super::integer::wide(&a[0])?)))),
    ("float4_numeric", |_, a| Numeric::from_f64(f64::from(a[0].as_f32()?), 6).map(Datum::Numeric)),
    ("float8_numeric", |_, a| Numeric::from_f64(a[0].as_f64()?, 15).map(Datum::Numeric)),
    ("numeric_int2", |_, a| a[0].as_numeric()?.to_integer("smallint").map(Datum::Int2)),
    ("numeric_int4", |_, a| a[0].as_numeric()?.to_integer("integer").map(Datum::Int4)),
    ("numeric_int8", |_, a| a[0].as_numeric()?.to_integer("bigint").map(Datum::Int8)),
    ("numeric_float4", |_, a| numeric_to_float(a, true)),
    ("numeric_float8", |_, a| numeric_to_float(a, false)),
    ("int4_bool", |_, a| Ok(Datum::Bool(a[0].as_i32()? != 0))),
    ("bool_int4", |_, a| Ok(Datum::Int4(i32::from(a[0].as_bool()?)))),
    ("booltext", |_, a| Ok(Datum::text(if a[0].as_bool()? { "true" } else { "false" }))),
    ("text_char", text_char),
    ("char_text", char_text),
    ("chartoi4", |_, a| Ok(Datum::Int4(i32::from(a[0].as_char()?.cast_signed())))),
    ("i4tochar", |_, a| {
        i8::try_from(a[0].as_i32()?)
            .map(|v| Datum::Char(v.cast_unsigned()))
            .map_err(|_| SqlError::new(crate::sqlstate::SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "\"char\" out of range"))
    }),
    ("char_bpchar", char_text),
    ("name_text", |_, a| Ok(a[0].clone())),
    ("name_bpchar", |_, a| Ok(a[0].clone())),
    ("text_name", |_, a| Ok(Datum::text(clip_name(a[0].as_str()?)))),
    ("bpchar_name", |_, a| Ok(Datum::text(clip_name(a[0].as_str()?).trim_end_matches(' ')))),
    // bpchar to text and varchar drops the padding.
    ("rtrim1", |_, a| Ok(Datum::text(a[0].as_str()?.trim_end_matches(' ')))),
    ("varchar", |_, a| fit(oids::VARCHAR, a)),
    ("bpchar", |_, a| fit(oids::BPCHAR, a)),
    ("numeric", |_, a| fit(oids::NUMERIC, a)),
    ("bit", |_, a| fit(oids::BIT, a)),
    ("varbit", |_, a| fit(oids::VARBIT, a)),
    ("time_scale", |_, a| fit(oids::TIME, a)),
    ("timetz_scale", |_, a| fit(oids::TIMETZ, a)),
    ("timestamp_scale", |_, a| fit(oids::TIMESTAMP, a)),
    ("timestamptz_scale", |_, a| fit(oids::TIMESTAMPTZ, a)),
    ("interval_scale", |_, a| fit(oids::INTERVAL, a)),
    ("bittoint4", |_, a| {
        #[expect(clippy::cast_possible_truncation, reason = "32 bits at most")]
        bits_to_int(a, 32, "integer").map(|v| Datum::Int4((v as u32).cast_signed()))
    }),
    ("bittoint8", |_, a| bits_to_int(a, 64, "bigint").map(Datum::Int8)),
    ("bitfromint4", |_, a| Ok(int_to_bits(i64::from(a[0].as_i32()?), 32, a[1].as_i32()?))),
    ("bitfromint8", |_, a| Ok(int_to_bits(a[0].as_i64()?, 64, a[1].as_i32()?))),
    ("date_timestamp", date_timestamp),
    ("date_timestamptz", date_timestamptz),
    ("timestamp_date", |_, a| Ok(ts_to_date(a[0].as_timestamp()?))),
    ("timestamptz_date", |c, a| Ok(ts_to_date(datetime::to_local(a[0].as_timestamptz()?, &c.io().time_zone)))),
    ("timestamp_timestamptz", |c, a| datetime::to_utc(a[0].as_timestamp()?, &c.io().time_zone).map(Datum::TimestampTz)),
    ("timestamptz_timestamp", |c, a| Ok(Datum::Timestamp(datetime::to_local(a[0].as_timestamptz()?, &c.io().time_zone)))),
    ("timestamp_time", |_, a| Ok(infinite_to_null(a[0].as_timestamp()?, |t| Datum::Time(datetime::split(t).1)))),
    ("timestamptz_time", |c, a| {
        let zone = &c.io().time_zone;
        Ok(infinite_to_null(a[0].as_timestamptz()?, |t| Datum::Time(datetime::split(datetime::to_local(t, zone)).1)))
    }),
    ("timestamptz_timetz", |c, a| {
        let zone = &c.io().time_zone;
        Ok(infinite_to_null(a[0].as_timestamptz()?, |t| {
            Datum::TimeTz(datetime::split(datetime::to_local(t, zone)).1, -datetime::offset_seconds(zone, t))
        }))
    }),
    ("time_timetz", |c, a| {
        let io = c.io();
        let t = a[0].as_time()?;
        let (today, _) = datetime::split(datetime::to_local(io.now, &io.time_zone));
        Ok(Datum::TimeTz(t, -datetime::local_offset(&io.time_zone, today * DAY + t)))
    }),
    ("timetz_time", |_, a| match &a[0] {
        Datum::TimeTz(t, _) => Ok(Datum::Time(*t)),
        other => Err(other.mismatch("TimeTz")),
    }),
    ("time_interval", |_, a| Ok(Datum::Interval(Interval { months: 0, days: 0, micros: a[0].as_time()? }))),
    ("interval_time", |_, a| Ok(Datum::Time(a[0].as_interval()?.micros.rem_euclid(DAY)))),
    ("xid8toxid", |_, a| {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is what the cast means")]
        Ok(Datum::Oid(a[0].as_xid8()? as u32))
    }),
    ("text_regclass", |c, a| from_text(c, oids::REGCLASS, a[0].as_str()?)),
    ("inet_to_cidr", |_, a| match &a[0] {
        Datum::Inet(i) => Ok(Datum::Inet(std::sync::Arc::new(i.network()))),
        other => Err(other.mismatch("Inet")),
    }),
    ("network_show", |_, a| match &a[0] {
        Datum::Inet(i) => {
            let mut out = String::new();
            i.write(true, &mut out);
            Ok(Datum::from(out))
        }
        other => Err(other.mismatch("Inet")),
    }),
    ("macaddrtomacaddr8", |_, a| match &a[0] {
        Datum::MacAddr([a, b, c, d, e, f, ..]) => Ok(Datum::MacAddr([*a, *b, *c, 0xFF, 0xFE, *d, *e, *f])),
        other => Err(other.mismatch("MacAddr")),
    }),
];

/// Reads text as a type: the input functions when SQL calls them by name (`int4in('5')`).
pub(super) fn call_input(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let target = c.types.result;
    let typmod = a.get(2).map_or(Ok(-1), Datum::as_i32)?;
    io::text_in(target, typmod, a[0].as_str()?, c.io())
}

/// Writes a value as text: the output functions.
pub(super) fn call_output(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let from = c.arg_type(0);
    io::text_string(&a[0], from, c.io()).map(|s| Datum::Text(Text::from(s)))
}

/// Writes a value's binary form: the send functions.
pub(super) fn call_send(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let mut out = Vec::new();
    io::binary_send(&a[0], c.arg_type(0), &mut out)?;
    Ok(Datum::bytea(out))
}
