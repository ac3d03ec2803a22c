//! Session facts, names of things, sizes, ranges, network addresses, WAL positions: what has no file of its own.

use std::net::IpAddr;
use std::sync::Arc;

use super::call::{Call, ScalarFn};
use crate::sql::types::compare::compare_bounds;
use crate::sql::types::datum::{Inet, RangeBounds, RangeValue};
use crate::sql::types::settings::ObjectKind;
use crate::sql::types::{ArrayValue, Datum, Numeric, Oid, compare, names, oids, range, typmod};
use crate::sqlstate::{SqlError, SqlState};

type Out = Result<Datum, SqlError>;

// ---------------------------------------------------------------------------------------------------------------------
// Session

fn current_schema(c: &mut Call<'_>, _: &[Datum]) -> Out {
    Ok(c.ctx.current_schemas(false).into_iter().next().map_or(Datum::Null, Datum::Text))
}

fn current_schemas(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let schemas = c.ctx.current_schemas(a[0].as_bool()?);
    Ok(Datum::array(ArrayValue::one_dim(oids::NAME, schemas.into_iter().map(Datum::Text).collect())))
}

fn show(c: &mut Call<'_>, a: &[Datum], missing_ok: bool) -> Out {
    let name = a[0].as_str()?;
    match c.ctx.setting(name)? {
        Some(v) => Ok(Datum::from(v)),
        None if missing_ok => Ok(Datum::Null),
        None => Err(SqlError::new(SqlState::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""))),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn set_config(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let Datum::Text(name) = &a[0] else {
        return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "SET requires parameter name"));
    };
    let value = match &a[1] {
        Datum::Text(t) => Some(&**t),
        _ => None,
    };
    c.ctx.set_setting(name, value, a[2].is_true()).map(Datum::from)
}

/// `pg_typeof`: what the binder resolved.
fn typeof_any(c: &mut Call<'_>, _: &[Datum]) -> Out {
    Ok(Datum::Oid(c.arg_type(0)))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn format_type(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let Datum::Oid(oid) = a[0] else { return Ok(Datum::Null) };
    let modifier = match a[1] {
        Datum::Int4(m) => Some(m),
        _ => None,
    };
    typmod::format_type_with(oid, modifier, c.io()).map(Datum::from)
}

/// `to_regclass` and kin: NULL for what is not there.
fn to_reg(c: &mut Call<'_>, a: &[Datum], type_oid: Oid) -> Out {
    let s = a[0].as_str()?.trim();
    if !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(Datum::Null);
    }
    match names::lookup_reg(type_oid, s, c.io()) {
        Ok(found) => Ok(found.map_or(Datum::Null, Datum::Oid)),
        Err(e) if matches!(e.state(), SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_OBJECT | SqlState::INVALID_SCHEMA_NAME) => {
            Ok(Datum::Null)
        }
        Err(e) => Err(e),
    }
}

fn userbyid(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let oid = a[0].as_oid()?;
    let name = match &c.io().names {
        Some(n) => n.name_of(ObjectKind::Role, oid)?.map(|(_, name)| name),
        None => None,
    };
    Ok(Datum::from(name.unwrap_or_else(|| format!("unknown (OID={oid})"))))
}

fn encoding_name(id: i32) -> &'static str {
    match id {
        0 => "SQL_ASCII",
        1 => "EUC_JP",
        2 => "EUC_CN",
        3 => "EUC_KR",
        4 => "EUC_TW",
        5 => "EUC_JIS_2004",
        6 => "UTF8",
        7 => "MULE_INTERNAL",
        8 => "LATIN1",
        9 => "LATIN2",
        10 => "LATIN3",
        11 => "LATIN4",
        12 => "LATIN5",
        13 => "LATIN6",
        14 => "LATIN7",
        15 => "LATIN8",
        16 => "LATIN9",
        17 => "LATIN10",
        18 => "WIN1256",
        19 => "WIN1258",
        20 => "WIN866",
        21 => "WIN874",
        22 => "KOI8R",
        23 => "WIN1251",
        24 => "WIN1252",
        _ => "",
    }
}

fn encoding_number(name: &str) -> i32 {
    let clean: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_uppercase();
    if clean == "UNICODE" {
        return 6;
    }
    (0..=24).find(|&i| encoding_name(i).replace('_', "") == clean).unwrap_or(-1)
}

fn count_nulls(c: &Call<'_>, a: &[Datum], want_null: bool) -> Out {
    let n = if c.types.variadic_array {
        match a.first() {
            Some(Datum::Array(array)) => array.values.iter().filter(|v| v.is_null() == want_null).count(),
            _ => return Ok(Datum::Null),
        }
    } else {
        a.iter().filter(|v| v.is_null() == want_null).count()
    };
    Ok(Datum::Int4(i32::try_from(n).unwrap_or(i32::MAX)))
}

fn uuid(_: &mut Call<'_>, _: &[Datum]) -> Out {
    let mut b: [u8; 16] = rand::random();
    b[6] = b[6] & 0x0F | 0x40;
    b[8] = b[8] & 0x3F | 0x80;
    Ok(Datum::Uuid(b))
}

// ---------------------------------------------------------------------------------------------------------------------
// Sizes

/// Units of `pg_size_pretty`: name, limit below which it is used (in that unit), bits to the next.
const UNITS: [(&str, i64); 6] =
    [("bytes", 10 * 1024), ("kB", 20 * 1024 - 1), ("MB", 20 * 1024 - 1), ("GB", 20 * 1024 - 1), ("TB", 20 * 1024 - 1), ("PB", i64::MAX)];

fn half_rounded(v: i128) -> i128 {
    (v + if v < 0 { -1 } else { 1 }) / 2
}

fn size_pretty(mut size: i128) -> String {
    for (i, (name, limit)) in UNITS.iter().enumerate() {
        let rounding = i > 0;
        if size.abs() < i128::from(*limit) || i + 1 == UNITS.len() {
            let shown = if rounding { half_rounded(size) } else { size };
            return format!("{shown} {name}");
        }
        // One bit is kept for rounding once in the units above bytes.
        size >>= if i == 0 { 9 } else { 10 };
    }
    String::new()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn size_pretty_any(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let size = match &a[0] {
        Datum::Int8(v) => i128::from(*v),
        Datum::Numeric(n) => {
            if n.abs() < Numeric::from(10_240i64) {
                return Ok(Datum::from(format!("{n} bytes")));
            }
            n.trunc(0)?.to_i128().ok_or_else(|| super::integer::out_of_range("bigint"))?
        }
        other => return Err(other.mismatch("Int8")),
    };
    // Shifts round toward minus infinity; sizes are symmetric about zero.
    let text = if size < 0 { format!("-{}", size_pretty(-size)) } else { size_pretty(size) };
    Ok(Datum::from(text))
}

fn size_bytes(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let s = a[0].as_str()?;
    let t = s.trim();
    let fail = |what: Option<&str>| {
        let e = SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid size: \"{s}\""));
        match what {
            Some(unit) => e
                .detail(format!("Invalid size unit: \"{unit}\"."))
                .hint("Valid units are \"bytes\", \"B\", \"kB\", \"MB\", \"GB\", \"TB\", and \"PB\"."),
            None => e,
        }
    };
    let end = t.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(t.len());
    let (number, unit) = t.split_at(end);
    let n = Numeric::parse(number).map_err(|_| fail(None))?;
    let unit = unit.trim();
    let shift: u32 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" | "bytes" => 0,
        "kb" => 10,
        "mb" => 20,
        "gb" => 30,
        "tb" => 40,
        "pb" => 50,
        _ => return Err(fail(Some(unit))),
    };
    n.mul(&Numeric::from(1i64 << shift))?.to_integer("bigint").map(Datum::Int8)
}

// ---------------------------------------------------------------------------------------------------------------------
// WAL positions

fn lsn_plus(a: &[Datum], by: &Numeric, minus: bool) -> Out {
    let lsn = Numeric::from(a[0].as_lsn()?);
    if by.is_nan() {
        let what = if minus { "cannot subtract NaN from pg_lsn" } else { "cannot add NaN to pg_lsn" };
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, what));
    }
    let by = if minus { by.neg() } else { by.clone() };
    let sum = lsn.add(&by)?;
    sum.to_i128()
        .and_then(|v| u64::try_from(v).ok())
        .map(Datum::Lsn)
        .ok_or_else(|| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "pg_lsn out of range"))
}

// ---------------------------------------------------------------------------------------------------------------------
// Ranges

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn as_range(d: &Datum) -> Result<&Arc<RangeValue>, SqlError> {
    match d {
        Datum::Range(r) => Ok(r),
        other => Err(other.mismatch("Range")),
    }
}

fn construct(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let subtype = range::subtype(c.types.result)
        .ok_or_else(|| SqlError::unsupported(format_args!("ranges of type {}", typmod::type_name(c.types.result))))?;
    let flags = match a.get(2) {
        None => "[)",
        Some(Datum::Null) => {
            return Err(SqlError::new(SqlState::DATA_EXCEPTION, "range constructor flags argument must not be null"));
        }
        Some(d) => d.as_str()?,
    };
    let (lower_inc, upper_inc) = match flags {
        "[]" => (true, true),
        "[)" => (true, false),
        "(]" => (false, true),
        "()" => (false, false),
        _ => {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "invalid range bound flags")
                .hint("Valid values are \"[]\", \"[)\", \"(]\", and \"()\"."));
        }
    };
    let bounds = RangeBounds { lower: a[0].clone(), lower_inc, upper: a[1].clone(), upper_inc };
    RangeValue::new(subtype, bounds).map(RangeValue::into_datum)
}

type Bound<'a> = (&'a Datum, bool, bool);

fn lower(b: &RangeBounds) -> Bound<'_> {
    (&b.lower, b.lower_inc, true)
}

fn upper(b: &RangeBounds) -> Bound<'_> {
    (&b.upper, b.upper_inc, false)
}

fn overlaps(x: &RangeValue, y: &RangeValue) -> bool {
    match (&x.bounds, &y.bounds) {
        (Some(a), Some(b)) => compare_bounds(lower(a), upper(b)).is_le() && compare_bounds(lower(b), upper(a)).is_le(),
        _ => false,
    }
}

fn holds(x: &RangeValue, y: &RangeValue) -> bool {
    match (&x.bounds, &y.bounds) {
        (_, None) => true,
        (None, _) => false,
        (Some(a), Some(b)) => compare_bounds(lower(a), lower(b)).is_le() && compare_bounds(upper(a), upper(b)).is_ge(),
    }
}

/// Do an upper bound and a lower bound meet without overlap or gap?
fn meet(up: Bound<'_>, low: Bound<'_>) -> bool {
    !up.0.is_null() && !low.0.is_null() && compare(up.0, low.0).is_eq() && up.1 != low.1
}

fn adjacent(x: &RangeValue, y: &RangeValue) -> bool {
    match (&x.bounds, &y.bounds) {
        (Some(a), Some(b)) => meet(upper(a), lower(b)) || meet(upper(b), lower(a)),
        _ => false,
    }
}

fn range_pair(a: &[Datum], f: impl Fn(&RangeValue, &RangeValue) -> bool) -> Out {
    Ok(Datum::Bool(f(as_range(&a[0])?, as_range(&a[1])?)))
}

fn both(a: &[Datum], f: impl Fn(&RangeBounds, &RangeBounds) -> bool) -> Out {
    range_pair(a, |x, y| matches!((&x.bounds, &y.bounds), (Some(p), Some(q)) if f(p, q)))
}

fn pick<'a>(x: Bound<'a>, y: Bound<'a>, greater: bool) -> Bound<'a> {
    if compare_bounds(x, y).is_gt() == greater { x } else { y }
}

fn intersect(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (x, y) = (as_range(&a[0])?, as_range(&a[1])?);
    let empty = RangeValue { subtype: x.subtype, bounds: None };
    let (Some(p), Some(q)) = (&x.bounds, &y.bounds) else { return Ok(empty.into_datum()) };
    if !overlaps(x, y) {
        return Ok(empty.into_datum());
    }
    let (low, up) = (pick(lower(p), lower(q), true), pick(upper(p), upper(q), false));
    let bounds = RangeBounds { lower: low.0.clone(), lower_inc: low.1, upper: up.0.clone(), upper_inc: up.1 };
    RangeValue::new(x.subtype, bounds).map(RangeValue::into_datum)
}

fn union(a: &[Datum], strict: bool) -> Out {
    let (x, y) = (as_range(&a[0])?, as_range(&a[1])?);
    let (Some(p), Some(q)) = (&x.bounds, &y.bounds) else {
        return Ok(if x.bounds.is_none() { a[1].clone() } else { a[0].clone() });
    };
    if strict && !overlaps(x, y) && !adjacent(x, y) {
        return Err(SqlError::new(SqlState::DATA_EXCEPTION, "result of range union would not be contiguous"));
    }
    let (low, up) = (pick(lower(p), lower(q), false), pick(upper(p), upper(q), true));
    let bounds = RangeBounds { lower: low.0.clone(), lower_inc: low.1, upper: up.0.clone(), upper_inc: up.1 };
    RangeValue::new(x.subtype, bounds).map(RangeValue::into_datum)
}

fn bound_of(a: &[Datum], f: impl Fn(&RangeBounds) -> Datum, empty: Datum) -> Out {
    Ok(as_range(&a[0])?.bounds.as_ref().map_or(empty, f))
}

// ---------------------------------------------------------------------------------------------------------------------
// Network addresses

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn inet(d: &Datum) -> Result<&Arc<Inet>, SqlError> {
    match d {
        Datum::Inet(i) => Ok(i),
        other => Err(other.mismatch("Inet")),
    }
}

fn inet_datum(i: Inet) -> Datum {
    Datum::Inet(Arc::new(i))
}

fn within(inner: &Inet, outer: &Inet, strict: bool) -> bool {
    inner.addr.is_ipv4() == outer.addr.is_ipv4()
        && (inner.prefix > outer.prefix || (!strict && inner.prefix == outer.prefix))
        && Inet { addr: inner.addr, prefix: outer.prefix }.network().addr == outer.network().addr
}

fn map_addr(i: &Inet, v4: impl Fn(u32, u32) -> u32, v6: impl Fn(u128, u128) -> u128) -> IpAddr {
    match i.addr {
        IpAddr::V4(a) => v4(u32::from(a), u32::MAX.checked_shl(32 - u32::from(i.prefix)).unwrap_or(0)).to_be_bytes().into(),
        IpAddr::V6(a) => v6(u128::from(a), u128::MAX.checked_shl(128 - u32::from(i.prefix)).unwrap_or(0)).to_be_bytes().into(),
    }
}

fn minus(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (x, y) = (as_range(&a[0])?, as_range(&a[1])?);
    let (Some(p), Some(q)) = (&x.bounds, &y.bounds) else { return Ok(a[0].clone()) };
    if !overlaps(x, y) {
        return Ok(a[0].clone());
    }
    let (below, above) = (compare_bounds(lower(p), lower(q)).is_lt(), compare_bounds(upper(p), upper(q)).is_gt());
    if below && above {
        return Err(SqlError::new(SqlState::DATA_EXCEPTION, "result of range difference would not be contiguous"));
    }
    let bounds = if below {
        RangeBounds { lower: p.lower.clone(), lower_inc: p.lower_inc, upper: q.lower.clone(), upper_inc: !q.lower_inc }
    } else if above {
        RangeBounds { lower: q.upper.clone(), lower_inc: !q.upper_inc, upper: p.upper.clone(), upper_inc: p.upper_inc }
    } else {
        return Ok(RangeValue { subtype: x.subtype, bounds: None }.into_datum());
    };
    RangeValue::new(x.subtype, bounds).map(RangeValue::into_datum)
}

fn inet_bits(a: &[Datum], what: &str, v4: fn(u32, u32) -> u32, v6: fn(u128, u128) -> u128) -> Out {
    let (x, y) = (inet(&a[0])?, inet(&a[1])?);
    let addr: IpAddr = match (x.addr, y.addr) {
        (IpAddr::V4(p), IpAddr::V4(q)) => v4(p.into(), q.into()).to_be_bytes().into(),
        (IpAddr::V6(p), IpAddr::V6(q)) => v6(p.into(), q.into()).to_be_bytes().into(),
        _ => {
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("cannot {what} inet values of different sizes")));
        }
    };
    Ok(inet_datum(Inet { addr, prefix: x.prefix.max(y.prefix) }))
}

fn inet_plus(i: &Inet, by: i128) -> Out {
    let over = || SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "result is out of range");
    let addr: IpAddr = match i.addr {
        IpAddr::V4(p) => u32::try_from(i128::from(u32::from(p)) + by).map_err(|_| over())?.to_be_bytes().into(),
        IpAddr::V6(p) => {
            let v = u128::from(p);
            let sum = if by < 0 { v.checked_sub(by.unsigned_abs()) } else { v.checked_add(by.unsigned_abs()) };
            sum.ok_or_else(over)?.to_be_bytes().into()
        }
    };
    Ok(inet_datum(Inet { addr, prefix: i.prefix }))
}

fn inet_minus(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (x, y) = (inet(&a[0])?, inet(&a[1])?);
    match (x.addr, y.addr) {
        (IpAddr::V4(p), IpAddr::V4(q)) => Ok(Datum::Int8(i64::from(u32::from(p)) - i64::from(u32::from(q)))),
        (IpAddr::V6(p), IpAddr::V6(q)) => {
            let (p, q) = (u128::from(p), u128::from(q));
            let size =
                i64::try_from(p.abs_diff(q)).map_err(|_| SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "result is out of range"))?;
            Ok(Datum::Int8(if p < q { -size } else { size }))
        }
        _ => Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "cannot subtract inet values of different sizes")),
    }
}

fn set_masklen(a: &[Datum], cidr: bool) -> Out {
    let i = inet(&a[0])?;
    let n = a[1].as_i32()?;
    let prefix = if n == -1 { Some(i.max_prefix()) } else { u8::try_from(n).ok().filter(|p| *p <= i.max_prefix()) };
    let prefix = prefix.ok_or_else(|| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid mask length: {n}")))?;
    let out = Inet { addr: i.addr, prefix };
    Ok(inet_datum(if cidr { out.network() } else { out }))
}

/// The greater or lesser of two values of a type with a default order.
fn extreme(a: &[Datum], greater: bool) -> Out {
    let order = compare(&a[0], &a[1]);
    Ok(if if greater { order.is_gt() } else { order.is_lt() } { a[0].clone() } else { a[1].clone() })
}

/// By `prosrc`.
pub(super) const SCALARS: &[(&str, ScalarFn)] = &[
    ("pgsql_version", version),
    ("current_database", |c, _| Ok(Datum::Text(c.ctx.current_database()))),
    ("current_user", |c, _| Ok(Datum::Text(c.ctx.current_user()))),
    ("session_user", |c, _| Ok(Datum::Text(c.ctx.session_user()))),
    ("current_schema", current_schema),
    ("current_schemas", current_schemas),
    ("pg_backend_pid", |c, _| Ok(Datum::Int4(c.ctx.backend_pid()))),
    ("show_config_by_name", |c, a| show(c, a, false)),
    ("show_config_by_name_missing_ok", |c, a| show(c, a, a[1].is_true())),
    ("set_config_by_name", set_config),
    ("pg_typeof", typeof_any),
    ("format_type", format_type),
    ("to_regclass", |c, a| to_reg(c, a, oids::REGCLASS)),
    ("to_regtype", |c, a| to_reg(c, a, oids::REGTYPE)),
    ("to_regnamespace", |c, a| to_reg(c, a, oids::REGNAMESPACE)),
    ("to_regrole", |c, a| to_reg(c, a, oids::REGROLE)),
    ("to_regcollation", |c, a| to_reg(c, a, oids::REGCOLLATION)),
    ("to_regproc", |c, a| to_reg(c, a, oids::REGPROC)),
    ("to_regprocedure", |c, a| to_reg(c, a, oids::REGPROCEDURE)),
    ("to_regoper", |c, a| to_reg(c, a, oids::REGOPER)),
    ("to_regoperator", |c, a| to_reg(c, a, oids::REGOPERATOR)),
    ("pg_get_userbyid", userbyid),
    ("PG_encoding_to_char", |_, a| Ok(Datum::text(encoding_name(a[0].as_i32()?)))),
    ("PG_char_to_encoding", |_, a| Ok(Datum::Int4(encoding_number(a[0].as_str()?)))),
    ("getdatabaseencoding", |_, _| Ok(Datum::text("UTF8"))),
    ("pg_client_encoding", |c, _| Ok(Datum::from(c.ctx.setting("client_encoding")?.unwrap_or_else(|| "UTF8".to_owned())))),
    ("pg_num_nulls", |c, a| count_nulls(c, a, true)),
    ("pg_num_nonnulls", |c, a| count_nulls(c, a, false)),
    ("gen_random_uuid", uuid),
    ("pg_jit_available", |_, _| Ok(Datum::Bool(false))),
    ("pg_size_pretty", size_pretty_any),
    ("pg_size_pretty_numeric", size_pretty_any),
    ("pg_size_bytes", size_bytes),
    ("pg_lsn_mi", |_, a| Numeric::from(a[0].as_lsn()?).sub(&Numeric::from(a[1].as_lsn()?)).map(Datum::Numeric)),
    ("pg_wal_lsn_diff", |_, a| Numeric::from(a[0].as_lsn()?).sub(&Numeric::from(a[1].as_lsn()?)).map(Datum::Numeric)),
    ("pg_lsn_pli", |_, a| lsn_plus(a, a[1].as_numeric()?, false)),
    ("pg_lsn_mii", |_, a| lsn_plus(a, a[1].as_numeric()?, true)),
    ("numeric_pl_pg_lsn@1700,3220", |_, a| lsn_plus(&a[1..], a[0].as_numeric()?, false)),
    ("numeric_pg_lsn", |_, a| a[0].as_numeric()?.to_integer("pg_lsn").map(Datum::Lsn)),
    ("pg_lsn_larger", |_, a| Ok(Datum::Lsn(a[0].as_lsn()?.max(a[1].as_lsn()?)))),
    ("pg_lsn_smaller", |_, a| Ok(Datum::Lsn(a[0].as_lsn()?.min(a[1].as_lsn()?)))),
    ("range_constructor2", construct),
    ("range_constructor3", construct),
    ("range_contains", |_, a| range_pair(a, holds)),
    ("range_contained_by", |_, a| range_pair(a, |x, y| holds(y, x))),
    ("range_contains_elem", |_, a| Ok(Datum::Bool(as_range(&a[0])?.contains(&a[1])))),
    ("elem_contained_by_range", |_, a| Ok(Datum::Bool(as_range(&a[1])?.contains(&a[0])))),
    ("range_overlaps", |_, a| range_pair(a, overlaps)),
    ("range_adjacent", |_, a| range_pair(a, adjacent)),
    ("range_before", |_, a| both(a, |p, q| compare_bounds(upper(p), lower(q)).is_lt())),
    ("range_after", |_, a| both(a, |p, q| compare_bounds(lower(p), upper(q)).is_gt())),
    ("range_overleft", |_, a| both(a, |p, q| compare_bounds(upper(p), upper(q)).is_le())),
    ("range_overright", |_, a| both(a, |p, q| compare_bounds(lower(p), lower(q)).is_ge())),
    ("range_intersect", intersect),
    ("range_union", |_, a| union(a, true)),
    ("range_merge", |_, a| union(a, false)),
    ("range_lower", |_, a| bound_of(a, |b| b.lower.clone(), Datum::Null)),
    ("range_upper", |_, a| bound_of(a, |b| b.upper.clone(), Datum::Null)),
    ("range_empty", |_, a| Ok(Datum::Bool(as_range(&a[0])?.bounds.is_none()))),
    ("range_lower_inc", |_, a| bound_of(a, |b| Datum::Bool(b.lower_inc), Datum::Bool(false))),
    ("range_upper_inc", |_, a| bound_of(a, |b| Datum::Bool(b.upper_inc), Datum::Bool(false))),
    ("range_lower_inf", |_, a| bound_of(a, |b| Datum::Bool(b.lower.is_null()), Datum::Bool(false))),
    ("range_upper_inf", |_, a| bound_of(a, |b| Datum::Bool(b.upper.is_null()), Datum::Bool(false))),
    ("date_larger", |_, a| extreme(a, true)),
    ("date_smaller", |_, a| extreme(a, false)),
    ("time_larger", |_, a| extreme(a, true)),
    ("time_smaller", |_, a| extreme(a, false)),
    ("timetz_larger", |_, a| extreme(a, true)),
    ("timetz_smaller", |_, a| extreme(a, false)),
    ("timestamp_larger", |_, a| extreme(a, true)),
    ("timestamp_smaller", |_, a| extreme(a, false)),
    ("interval_larger", |_, a| extreme(a, true)),
    ("interval_smaller", |_, a| extreme(a, false)),
    ("oidlarger", |_, a| extreme(a, true)),
    ("oidsmaller", |_, a| extreme(a, false)),
    ("tidlarger", |_, a| extreme(a, true)),
    ("tidsmaller", |_, a| extreme(a, false)),
    ("xid8_larger", |_, a| extreme(a, true)),
    ("xid8_smaller", |_, a| extreme(a, false)),
    ("network_larger", |_, a| extreme(a, true)),
    ("network_smaller", |_, a| extreme(a, false)),
    ("bpchar_larger", |_, a| extreme(a, true)),
    ("bpchar_smaller", |_, a| extreme(a, false)),
    ("enum_larger", |_, a| extreme(a, true)),
    ("enum_smaller", |_, a| extreme(a, false)),
    ("booland_statefunc", |_, a| Ok(Datum::Bool(a[0].as_bool()? && a[1].as_bool()?))),
    ("boolor_statefunc", |_, a| Ok(Datum::Bool(a[0].as_bool()? || a[1].as_bool()?))),
    ("range_minus", minus),
    ("inetand", |_, a| inet_bits(a, "AND", |p, q| p & q, |p, q| p & q)),
    ("inetor", |_, a| inet_bits(a, "OR", |p, q| p | q, |p, q| p | q)),
    ("inetnot", |_, a| {
        let i = inet(&a[0])?;
        Ok(inet_datum(Inet { addr: map_addr(i, |v, _| !v, |v, _| !v), prefix: i.prefix }))
    }),
    ("inetpl", |_, a| inet_plus(inet(&a[0])?, i128::from(a[1].as_i64()?))),
    ("int8pl_inet@20,869", |_, a| inet_plus(inet(&a[1])?, i128::from(a[0].as_i64()?))),
    ("inetmi_int8", |_, a| inet_plus(inet(&a[0])?, -i128::from(a[1].as_i64()?))),
    ("inetmi", inet_minus),
    ("inet_set_masklen", |_, a| set_masklen(a, false)),
    ("cidr_set_masklen", |_, a| set_masklen(a, true)),
    ("inet_same_family", |_, a| Ok(Datum::Bool(inet(&a[0])?.addr.is_ipv4() == inet(&a[1])?.addr.is_ipv4()))),
    ("inet_abbrev", |_, a| {
        let mut out = String::new();
        inet(&a[0])?.write(false, &mut out);
        Ok(Datum::from(out))
    }),
    ("network_sub", |_, a| Ok(Datum::Bool(within(inet(&a[0])?, inet(&a[1])?, true)))),
    ("network_subeq", |_, a| Ok(Datum::Bool(within(inet(&a[0])?, inet(&a[1])?, false)))),
    ("network_sup", |_, a| Ok(Datum::Bool(within(inet(&a[1])?, inet(&a[0])?, true)))),
    ("network_supeq", |_, a| Ok(Datum::Bool(within(inet(&a[1])?, inet(&a[0])?, false)))),
    ("network_overlap", |_, a| {
        let (x, y) = (inet(&a[0])?, inet(&a[1])?);
        Ok(Datum::Bool(within(x, y, false) || within(y, x, false)))
    }),
    ("network_host", |_, a| Ok(Datum::from(inet(&a[0])?.addr.to_string()))),
    ("network_masklen", |_, a| Ok(Datum::Int4(i32::from(inet(&a[0])?.prefix)))),
    ("network_family", |_, a| Ok(Datum::Int4(if inet(&a[0])?.addr.is_ipv4() { 4 } else { 6 }))),
    ("network_network", |_, a| Ok(inet_datum(inet(&a[0])?.network()))),
    ("network_broadcast", |_, a| {
        let i = inet(&a[0])?;
        Ok(inet_datum(Inet { addr: map_addr(i, |v, m| v | !m, |v, m| v | !m), prefix: i.prefix }))
    }),
    ("network_netmask", |_, a| Ok(inet_datum(Inet::host(map_addr(inet(&a[0])?, |_, m| m, |_, m| m))))),
    ("network_hostmask", |_, a| Ok(inet_datum(Inet::host(map_addr(inet(&a[0])?, |_, m| !m, |_, m| !m))))),
];

/// `version()`.
fn version(call: &mut Call<'_>, _: &[Datum]) -> Result<Datum, SqlError> {
    let version = call.ctx.setting("server_version")?.unwrap_or_default();
    Ok(Datum::text(format!(
        "PostgreSQL {version} on {}-pc-{}-gnu, compiled by rustc, 64-bit",
        std::env::consts::ARCH,
        std::env::consts::OS
    )))
}
