//! `json` and `jsonb` functions.

use std::sync::Arc;

use super::call::{Call, ScalarFn, SetFn, SetRows};
use crate::sql::types::json::{Json, write_string};
use crate::sql::types::registry::type_by_oid;
use crate::sql::types::{ArrayValue, Datum, IoSettings, Oid, RecordValue, Text, datetime, io, oids};
use crate::sqlstate::{SqlError, SqlState};

type Out = Result<Datum, SqlError>;

/// Text of a value as JSON shows it: date/time values in ISO 8601 with a `T`.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn iso_text(v: &Datum, ty: Oid, settings: &IoSettings) -> Result<String, SqlError> {
    let iso = || IoSettings { date_style: crate::sql::types::DateStyle::Iso, ..settings.clone() };
    let mut out = String::new();
    match v {
        Datum::Date(d) => datetime::write_date(*d, &iso(), &mut out),
        Datum::Timestamp(t) => {
            datetime::write_timestamp(*t, &iso(), &mut out);
            out = out.replacen(' ', "T", 1);
        }
        Datum::TimestampTz(t) => {
            datetime::write_timestamptz(*t, &iso(), &mut out);
            out = out.replacen(' ', "T", 1);
            // JSON wants minutes in the offset.
            if let Some(at) = out.rfind(['+', '-'])
                && at > 10
                && out.len() - at == 3
            {
                out.push_str(":00");
            }
        }
        other => return io::text_string(other, ty, settings),
    }
    Ok(out)
}

fn is_number(v: &Datum) -> bool {
    matches!(v, Datum::Int2(_) | Datum::Int4(_) | Datum::Int8(_) | Datum::Float4(_) | Datum::Float8(_) | Datum::Numeric(_))
}

/// Appends a value as `json` text (`to_json`).
///
/// # Errors
/// The type's output errors.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
pub(super) fn write_json(v: &Datum, ty: Oid, settings: &IoSettings, out: &mut String) -> Result<(), SqlError> {
    match v {
        Datum::Null => out.push_str("null"),
        Datum::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Datum::Text(t) if ty == oids::JSON => out.push_str(t),
        Datum::Jsonb(j) => j.write(out),
        Datum::Array(a) if type_by_oid(ty).is_none_or(|t| t.category == b'A') => {
            let mut values = a.values.iter();
            write_array(a, 0, &mut values, settings, out)?;
        }
        Datum::Record(r) => {
            out.push('{');
            let live = r.desc.cols.iter().zip(&r.values).filter(|(c, _)| !c.dropped);
            for (i, (c, v)) in live.enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_string(&c.name, out);
                out.push(':');
                write_json(v, c.type_oid, settings, out)?;
            }
            out.push('}');
        }
        v if is_number(v) && ty != oids::MONEY => {
            let text = io::text_string(v, ty, settings)?;
            // NaN and infinities are no JSON numbers.
            if text.ends_with(|c: char| c.is_ascii_digit()) { out.push_str(&text) } else { write_string(&text, out) }
        }
        v => write_string(&iso_text(v, ty, settings)?, out),
    }
    Ok(())
}

fn write_array<'a>(
    a: &'a ArrayValue,
    dim: usize,
    values: &mut impl Iterator<Item = &'a Datum>,
    settings: &IoSettings,
    out: &mut String,
) -> Result<(), SqlError> {
    out.push('[');
    for i in 0..a.dims.get(dim).map_or(0, |d| d.len) {
        if i > 0 {
            out.push(',');
        }
        if dim + 1 < a.dims.len() {
            write_array(a, dim + 1, values, settings, out)?;
        } else {
            write_json(values.next().unwrap_or(&Datum::Null), a.elem, settings, out)?;
        }
    }
    out.push(']');
    Ok(())
}

/// A value as `jsonb` (`to_jsonb`).
///
/// # Errors
/// The type's output errors.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
pub(super) fn to_jsonb(v: &Datum, ty: Oid, settings: &IoSettings) -> Result<Json, SqlError> {
    match v {
        Datum::Jsonb(j) => Ok((**j).clone()),
        v => {
            let mut text = String::new();
            write_json(v, ty, settings, &mut text)?;
            Json::parse(&text)
        }
    }
}

fn jsonb(v: Json) -> Datum {
    Datum::Jsonb(Arc::new(v))
}

/// The parsed form of a `json` or `jsonb` argument.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn parsed(d: &Datum) -> Result<Arc<Json>, SqlError> {
    match d {
        Datum::Jsonb(j) => Ok(Arc::clone(j)),
        Datum::Text(t) => Json::parse_ordered(t).map(Arc::new),
        other => Err(other.mismatch("Jsonb")),
    }
}

/// A part of a document, in the document's own type: `jsonb`, or the compact text of `json`.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn part(like: &Datum, j: &Json) -> Datum {
    match like {
        Datum::Jsonb(_) => jsonb(j.clone()),
        _ => {
            let mut out = String::new();
            j.write_compact(&mut out);
            Datum::from(out)
        }
    }
}

/// A part of a document as text: strings bare, JSON null as NULL.
fn part_text(j: &Json, compact: bool) -> Datum {
    match j {
        Json::Null => Datum::Null,
        Json::String(s) => Datum::Text(s.clone()),
        j @ Json::Bool(_) | j @ Json::Number(_) | j @ Json::Array(_) | j @ Json::Object(_) => {
            let mut out = String::new();
            if compact {
                j.write_compact(&mut out)
            } else {
                j.write(&mut out)
            }
            Datum::from(out)
        }
    }
}

fn show(like: &Datum, j: Option<&Json>, text: bool) -> Datum {
    match j {
        None => Datum::Null,
        Some(j) if text => part_text(j, !matches!(like, Datum::Jsonb(_))),
        Some(j) => part(like, j),
    }
}

fn field(a: &[Datum], text: bool) -> Out {
    let doc = parsed(&a[0])?;
    Ok(show(&a[0], doc.get(a[1].as_str()?), text))
}

fn element(a: &[Datum], text: bool) -> Out {
    let doc = parsed(&a[0])?;
    let n = i64::from(a[1].as_i32()?);
    // A jsonb scalar counts as an array of one here.
    let scalar = matches!(&a[0], Datum::Jsonb(_)) && !matches!(&*doc, Json::Array(_) | Json::Object(_));
    if scalar && (n == 0 || n == -1) {
        return Ok(show(&a[0], Some(&doc), text));
    }
    Ok(show(&a[0], doc.at(n), text))
}

/// Follows one step of a path: a key, or an index into an array.
fn step<'a>(j: &'a Json, key: &str) -> Option<&'a Json> {
    match j {
        Json::Object(_) => j.get(key),
        Json::Array(_) => j.at(key.trim().parse().ok()?),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    }
}

fn path(a: &[Datum], text: bool) -> Out {
    let doc = parsed(&a[0])?;
    if a[1].as_array()?.values.is_empty() && matches!(&a[0], Datum::Text(_)) && !(text && matches!(&*doc, Json::String(_) | Json::Null)) {
        return Ok(a[0].clone());
    }
    let mut at = Some(&*doc);
    for key in &a[1].as_array()?.values {
        let Datum::Text(key) = key else { return Ok(Datum::Null) };
        at = at.and_then(|j| step(j, key));
    }
    Ok(show(&a[0], at, text))
}

fn scalar_error(what: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, what.to_owned())
}

fn array_length(a: &[Datum]) -> Out {
    match &*parsed(&a[0])? {
        Json::Array(v) => Ok(Datum::Int4(i32::try_from(v.len()).unwrap_or(i32::MAX))),
        Json::Object(_) => Err(scalar_error("cannot get array length of a non-array")),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Err(scalar_error("cannot get array length of a scalar")),
    }
}

fn elements(a: &[Datum], text: bool) -> Result<SetRows, SqlError> {
    match &*parsed(&a[0])? {
        Json::Array(v) => Ok(super::series::rows(v.iter().map(|j| show(&a[0], Some(j), text)).collect())),
        Json::Object(_) => Err(scalar_error("cannot extract elements from an object")),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Err(scalar_error("cannot extract elements from a scalar")),
    }
}

fn object_keys(c: &Call<'_>, a: &[Datum]) -> Result<SetRows, SqlError> {
    let name = super::registry::proc_by_oid(c.types.func).map_or("json_object_keys", |p| p.name);
    match &*parsed(&a[0])? {
        Json::Object(o) => Ok(super::series::rows(o.iter().map(|(k, _)| Datum::Text(k.clone())).collect())),
        Json::Array(_) => Err(scalar_error(&format!("cannot call {name} on an array"))),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Err(scalar_error(&format!("cannot call {name} on a scalar"))),
    }
}

fn each(c: &Call<'_>, a: &[Datum], text: bool) -> Result<SetRows, SqlError> {
    let Json::Object(o) = &*parsed(&a[0])? else {
        let name = super::registry::proc_by_oid(c.types.func).map_or("json_each", |p| p.name);
        return Err(scalar_error(&format!("cannot call {name} on a non-object")));
    };
    let value_type = match (text, &a[0]) {
        (true, _) => oids::TEXT,
        (false, Datum::Jsonb(_)) => oids::JSONB,
        (false, _) => oids::JSON,
    };
    let desc = Arc::new(crate::sql::types::TupleDesc::new(vec![
        crate::sql::types::ColDesc::new("key", oids::TEXT, -1),
        crate::sql::types::ColDesc::new("value", value_type, -1),
    ]));
    let rows = o
        .iter()
        .map(|(k, v)| {
            let values = vec![Datum::Text(k.clone()), show(&a[0], Some(v), text)];
            Datum::Record(Arc::new(RecordValue::anonymous(Arc::clone(&desc), values)))
        })
        .collect();
    Ok(super::series::rows(rows))
}

/// The arguments of a variadic `"any"` function with their types: gathered ones one by one, or an array's elements.
fn any_args(c: &Call<'_>, a: &[Datum]) -> Vec<(Datum, Oid)> {
    if c.types.variadic_array
        && let [Datum::Array(array)] = a
    {
        return array.values.iter().map(|v| (v.clone(), array.elem)).collect();
    }
    a.iter().enumerate().map(|(i, v)| (v.clone(), c.arg_type(i))).collect()
}

fn build_array(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let binary = c.types.result == oids::JSONB;
    let args = any_args(c, a);
    if binary {
        let values = args.iter().map(|(v, t)| to_jsonb(v, *t, c.io())).collect::<Result<_, _>>()?;
        return Ok(jsonb(Json::Array(values)));
    }
    let mut out = String::from("[");
    for (i, (v, t)) in args.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write_json(v, *t, c.io(), &mut out)?;
    }
    out.push(']');
    Ok(Datum::from(out))
}

fn build_object(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let binary = c.types.result == oids::JSONB;
    let args = any_args(c, a);
    if !args.len().is_multiple_of(2) {
        return Err(scalar_error("argument list must have even number of elements").hint(format!(
            "The arguments of {} must consist of alternating keys and values.",
            if binary { "jsonb_build_object()" } else { "json_build_object()" }
        )));
    }
    let mut members = Vec::new();
    let mut out = String::from("{");
    for (i, pair) in args.chunks(2).enumerate() {
        let [(key, key_type), (v, t)] = pair else { continue };
        if key.is_null() {
            return Err(if binary {
                scalar_error(&format!("argument {}: key must not be null", 2 * i + 1))
            } else {
                SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("argument {} cannot be null", 2 * i + 1))
                    .hint("Object keys should be text.")
            });
        }
        let key = io::text_string(key, *key_type, c.io())?;
        if binary {
            members.push((Text::from(key), to_jsonb(v, *t, c.io())?));
            continue;
        }
        if i > 0 {
            out.push_str(", ");
        }
        write_string(&key, &mut out);
        out.push_str(" : ");
        write_json(v, *t, c.io(), &mut out)?;
    }
    if binary {
        return Ok(jsonb(Json::object(members)));
    }
    out.push('}');
    Ok(Datum::from(out))
}

fn contains(a: &Json, b: &Json, top: bool) -> bool {
    match (a, b) {
        (Json::Object(_), Json::Object(o)) => o.iter().all(|(k, v)| a.get(k).is_some_and(|x| contains(x, v, false))),
        (Json::Array(x), Json::Array(y)) => y.iter().all(|v| x.iter().any(|w| contains(w, v, false))),
        // An array contains a bare primitive, at the top only.
        (Json::Array(x), b) if top && !matches!(b, Json::Object(_)) => x.iter().any(|w| contains(w, b, false)),
        (Json::Object(_) | Json::Array(_), _) | (_, Json::Object(_) | Json::Array(_)) => false,
        (a, b) => crate::sql::types::compare::compare_json(a, b).is_eq(),
    }
}

fn exists(j: &Json, key: &str) -> bool {
    match j {
        Json::Object(_) => j.get(key).is_some(),
        Json::Array(a) => a.iter().any(|v| matches!(v, Json::String(s) if &**s == key)),
        Json::String(s) => &**s == key,
        Json::Null | Json::Bool(_) | Json::Number(_) => false,
    }
}

fn exists_of(a: &[Datum], all: bool) -> Out {
    let doc = parsed(&a[0])?;
    let mut keys = a[1].as_array()?.values.iter().filter_map(|k| k.as_str().ok());
    Ok(Datum::Bool(if all { keys.all(|k| exists(&doc, k)) } else { keys.any(|k| exists(&doc, k)) }))
}

fn concat(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (x, y) = (parsed(&a[0])?, parsed(&a[1])?);
    Ok(jsonb(match (&*x, &*y) {
        (Json::Object(p), Json::Object(q)) => Json::object(p.iter().chain(q).cloned().collect()),
        (Json::Array(p), Json::Array(q)) => Json::Array(p.iter().chain(q).cloned().collect()),
        (Json::Array(p), q) => Json::Array(p.iter().chain([q]).cloned().collect()),
        (p, Json::Array(q)) => Json::Array([p].into_iter().chain(q).cloned().collect()),
        (p, q) => Json::Array(vec![p.clone(), q.clone()]),
    }))
}

fn delete_keys(a: &[Datum], keys: &[&str]) -> Out {
    Ok(jsonb(match &*parsed(&a[0])? {
        Json::Object(o) => Json::Object(o.iter().filter(|(k, _)| !keys.contains(&&**k)).cloned().collect()),
        Json::Array(v) => Json::Array(v.iter().filter(|j| !matches!(j, Json::String(s) if keys.contains(&&**s))).cloned().collect()),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => return Err(scalar_error("cannot delete from scalar")),
    }))
}

fn delete_index(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let n = i64::from(a[1].as_i32()?);
    Ok(jsonb(match &*parsed(&a[0])? {
        Json::Array(v) => {
            let at = if n < 0 { n + i64::try_from(v.len()).unwrap_or(i64::MAX) } else { n };
            Json::Array(v.iter().enumerate().filter(|(i, _)| i64::try_from(*i).ok() != Some(at)).map(|(_, j)| j.clone()).collect())
        }
        Json::Object(_) => return Err(scalar_error("cannot delete from object using integer index")),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => return Err(scalar_error("cannot delete from scalar")),
    }))
}

/// What to do at the end of a path.
#[derive(Clone, Copy)]
enum Edit<'a> {
    Set(&'a Json, bool),
    Insert(&'a Json, bool),
    Delete,
}

fn edit(j: &Json, path: &[Option<&str>], level: usize, what: Edit<'_>) -> Result<Json, SqlError> {
    let Some((key, rest)) = path.split_first() else { return Ok(j.clone()) };
    let empty = match j {
        Json::Object(o) => o.is_empty(),
        Json::Array(v) => v.is_empty(),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => return Ok(j.clone()),
    };
    if empty && !(rest.is_empty() && matches!(what, Edit::Set(_, true) | Edit::Insert(..))) {
        return Ok(j.clone());
    }
    let key = &key.ok_or_else(|| SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, format!("path element at position {level} is null")))?;
    match j {
        Json::Object(o) => {
            let mut members = o.clone();
            let at = members.iter().position(|(k, _)| &**k == *key);
            match (at, rest.is_empty(), what) {
                (Some(i), false, _) => members[i].1 = edit(&members[i].1, rest, level + 1, what)?,
                (Some(i), true, Edit::Set(v, _)) => members[i].1 = v.clone(),
                (Some(i), true, Edit::Delete) => {
                    members.remove(i);
                }
                (Some(_), true, Edit::Insert(..)) => {
                    return Err(scalar_error("cannot replace existing key").hint("Try using the function jsonb_set to replace key value."));
                }
                (None, true, Edit::Set(v, true) | Edit::Insert(v, _)) => members.push((Text::from(*key), v.clone())),
                (None, _, _) => {}
            }
            Ok(Json::object(members))
        }
        Json::Array(v) => {
            let n: i64 = key.trim().parse().map_err(|_| {
                SqlError::new(
                    SqlState::INVALID_TEXT_REPRESENTATION,
                    format!("path element at position {level} is not an integer: \"{key}\""),
                )
            })?;
            let len = i64::try_from(v.len()).unwrap_or(i64::MAX);
            let at = if n < 0 { n + len } else { n };
            let mut values = v.clone();
            let index = usize::try_from(at).ok().filter(|&i| i < v.len());
            match (index, rest.is_empty(), what) {
                (Some(i), false, _) => values[i] = edit(&values[i], rest, level + 1, what)?,
                (Some(i), true, Edit::Set(v, _)) => values[i] = v.clone(),
                (Some(i), true, Edit::Delete) => {
                    values.remove(i);
                }
                (Some(i), true, Edit::Insert(v, after)) => values.insert(i + usize::from(after), v.clone()),
                (None, true, Edit::Set(v, true) | Edit::Insert(v, _)) => {
                    if at < 0 {
                        values.insert(0, v.clone())
                    } else {
                        values.push(v.clone())
                    }
                }
                (None, _, _) => {}
            }
            Ok(Json::Array(values))
        }
        other @ Json::Null | other @ Json::Bool(_) | other @ Json::Number(_) | other @ Json::String(_) => Ok(other.clone()),
    }
}

fn edit_at(a: &[Datum], what: Edit<'_>, verb: &str) -> Out {
    let doc = parsed(&a[0])?;
    let array = a[1].as_array()?;
    let keys: Vec<Option<&str>> = array.values.iter().map(|k| k.as_str().ok()).collect();
    if !matches!(&*doc, Json::Object(_) | Json::Array(_)) {
        return Err(scalar_error(&format!("cannot {verb} scalar")));
    }
    edit(&doc, &keys, 1, what).map(jsonb)
}

fn set_lax(_: &mut Call<'_>, a: &[Datum]) -> Out {
    if a[0].is_null() || a[1].is_null() || a[3].is_null() {
        return Ok(Datum::Null);
    }
    let invalid = |m: &str| Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, m));
    let Datum::Text(treatment) = &a[4] else {
        return invalid("null_value_treatment must be \"delete_key\", \"return_target\", \"use_json_null\", or \"raise_exception\"");
    };
    let create = a[3].is_true();
    if !a[2].is_null() {
        let v = parsed(&a[2])?;
        return edit_at(a, Edit::Set(&v, create), "set path in");
    }
    match &**treatment {
        "raise_exception" => Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "JSON value must not be null")
            .detail("Exception was raised because null_value_treatment is \"raise_exception\".")
            .hint("To avoid, either change the null_value_treatment argument or ensure that an SQL NULL is not passed.")),
        "use_json_null" => edit_at(a, Edit::Set(&Json::Null, create), "set path in"),
        "delete_key" => edit_at(a, Edit::Delete, "delete path in"),
        "return_target" => Ok(a[0].clone()),
        _ => invalid("null_value_treatment must be \"delete_key\", \"return_target\", \"use_json_null\", or \"raise_exception\""),
    }
}

fn strip_nulls(j: &Json) -> Json {
    match j {
        Json::Object(o) => {
            Json::Object(o.iter().filter(|(_, v)| !matches!(v, Json::Null)).map(|(k, v)| (k.clone(), strip_nulls(v))).collect())
        }
        Json::Array(v) => Json::Array(v.iter().map(strip_nulls).collect()),
        other @ Json::Null | other @ Json::Bool(_) | other @ Json::Number(_) | other @ Json::String(_) => other.clone(),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn object_from_arrays(c: &Call<'_>, a: &[Datum]) -> Out {
    let binary = c.types.result == oids::JSONB;
    let text = |d: &Datum| match d {
        Datum::Text(t) => Some(t.clone()),
        _ => None,
    };
    let first = a[0].as_array()?;
    let pairs: Vec<(Option<Text>, Option<Text>)> = if let Some(second) = a.get(1) {
        let second = second.as_array()?;
        if first.values.len() != second.values.len() {
            return Err(SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, "mismatched array dimensions"));
        }
        first.values.iter().map(text).zip(second.values.iter().map(text)).collect()
    } else {
        if first.values.len() % 2 != 0 {
            return Err(SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, "array must have even number of elements"));
        }
        first.values.chunks(2).map(|p| (text(&p[0]), text(&p[1]))).collect()
    };
    let mut members = Vec::new();
    for (k, v) in pairs {
        let k = k.ok_or_else(|| SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "null value not allowed for object key"))?;
        members.push((k, v.map_or(Json::Null, Json::String)));
    }
    if binary {
        return Ok(jsonb(Json::object(members)));
    }
    let mut out = String::from("{");
    for (i, (k, v)) in members.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        write_string(k, &mut out);
        out.push_str(" : ");
        v.write(&mut out);
    }
    out.push('}');
    Ok(Datum::from(out))
}

fn scalar_cast(a: &[Datum], name: &str, want: u8) -> Out {
    let j = parsed(&a[0])?;
    let fail = |what: &str| Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("cannot cast jsonb {what} to type {name}")));
    match (&*j, want) {
        (Json::Bool(b), b'b') => Ok(Datum::Bool(*b)),
        (Json::Number(n), b'n') => Ok(Datum::Numeric(n.clone())),
        (Json::Object(_), _) => fail("object"),
        (Json::Array(_), _) => fail("array"),
        (other, _) => fail(match other.kind() {
            "number" => "numeric",
            k => k,
        }),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn numeric_cast(a: &[Datum], name: &str, to: impl Fn(&crate::sql::types::Numeric) -> Out) -> Out {
    match scalar_cast(a, name, b'n')? {
        Datum::Numeric(n) => to(&n),
        other => Ok(other),
    }
}

fn typeof_json(_: &mut Call<'_>, a: &[Datum]) -> Out {
    Ok(Datum::text(parsed(&a[0])?.kind()))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn pretty_row(c: &Call<'_>, a: &[Datum], pretty: bool) -> Out {
    let mut out = String::new();
    match &a[0] {
        Datum::Array(array) if pretty && !array.dims.is_empty() => {
            out.push('[');
            let mut values = array.values.iter();
            for i in 0..array.dims[0].len {
                if i > 0 {
                    out.push_str(",\n ");
                }
                if array.dims.len() > 1 {
                    write_array(array, 1, &mut values, c.io(), &mut out)?;
                } else {
                    write_json(values.next().unwrap_or(&Datum::Null), array.elem, c.io(), &mut out)?;
                }
            }
            out.push(']');
        }
        Datum::Record(r) if pretty => {
            out.push('{');
            for (i, (col, v)) in r.desc.cols.iter().zip(&r.values).enumerate() {
                if i > 0 {
                    out.push_str(",\n ");
                }
                write_string(&col.name, &mut out);
                out.push(':');
                write_json(v, col.type_oid, c.io(), &mut out)?;
            }
            out.push('}');
        }
        v => write_json(v, c.arg_type(0), c.io(), &mut out)?,
    }
    Ok(Datum::from(out))
}

/// By `prosrc`.
pub(super) const SCALARS: &[(&str, ScalarFn)] = &[
    ("to_json", |c, a| {
        let mut out = String::new();
        write_json(&a[0], c.arg_type(0), c.io(), &mut out)?;
        Ok(Datum::from(out))
    }),
    ("to_jsonb", |c, a| to_jsonb(&a[0], c.arg_type(0), c.io()).map(jsonb)),
    ("row_to_json", |c, a| pretty_row(c, a, false)),
    ("row_to_json_pretty", |c, a| pretty_row(c, a, a[1].is_true())),
    ("array_to_json", |c, a| pretty_row(c, a, false)),
    ("array_to_json_pretty", |c, a| pretty_row(c, a, a[1].is_true())),
    ("json_object_field", |_, a| field(a, false)),
    ("json_object_field_text", |_, a| field(a, true)),
    ("jsonb_object_field", |_, a| field(a, false)),
    ("jsonb_object_field_text", |_, a| field(a, true)),
    ("json_array_element", |_, a| element(a, false)),
    ("json_array_element_text", |_, a| element(a, true)),
    ("jsonb_array_element", |_, a| element(a, false)),
    ("jsonb_array_element_text", |_, a| element(a, true)),
    ("json_extract_path", |_, a| path(a, false)),
    ("json_extract_path_text", |_, a| path(a, true)),
    ("jsonb_extract_path", |_, a| path(a, false)),
    ("jsonb_extract_path_text", |_, a| path(a, true)),
    ("json_array_length", |_, a| array_length(a)),
    ("jsonb_array_length", |_, a| array_length(a)),
    ("json_typeof", typeof_json),
    ("jsonb_typeof", typeof_json),
    ("json_build_array", build_array),
    ("json_build_array_noargs", build_array),
    ("jsonb_build_array", build_array),
    ("jsonb_build_array_noargs", build_array),
    ("json_build_object", build_object),
    ("json_build_object_noargs", build_object),
    ("jsonb_build_object", build_object),
    ("jsonb_build_object_noargs", build_object),
    ("json_object", |c, a| object_from_arrays(c, a)),
    ("json_object_two_arg", |c, a| object_from_arrays(c, a)),
    ("jsonb_object", |c, a| object_from_arrays(c, a)),
    ("jsonb_object_two_arg", |c, a| object_from_arrays(c, a)),
    ("jsonb_contains", |_, a| Ok(Datum::Bool(contains(&*parsed(&a[0])?, &*parsed(&a[1])?, true)))),
    ("jsonb_contained", |_, a| Ok(Datum::Bool(contains(&*parsed(&a[1])?, &*parsed(&a[0])?, true)))),
    ("jsonb_exists", |_, a| Ok(Datum::Bool(exists(&*parsed(&a[0])?, a[1].as_str()?)))),
    ("jsonb_exists_any", |_, a| exists_of(a, false)),
    ("jsonb_exists_all", |_, a| exists_of(a, true)),
    ("jsonb_concat", concat),
    ("jsonb_delete", |_, a| delete_keys(a, &[a[1].as_str()?])),
    ("jsonb_delete_array", |_, a| {
        let keys = a[1].as_array()?;
        let keys: Vec<&str> = keys.values.iter().filter_map(|k| k.as_str().ok()).collect();
        delete_keys(a, &keys)
    }),
    ("jsonb_delete_idx", delete_index),
    ("jsonb_delete_path", |_, a| edit_at(a, Edit::Delete, "delete path in")),
    ("jsonb_set", |_, a| {
        let v = parsed(&a[2])?;
        edit_at(a, Edit::Set(&v, a.get(3).is_none_or(Datum::is_true)), "set path in")
    }),
    ("jsonb_set_lax", set_lax),
    ("jsonb_insert", |_, a| {
        let v = parsed(&a[2])?;
        edit_at(a, Edit::Insert(&v, a.get(3).is_some_and(Datum::is_true)), "set path in")
    }),
    ("json_strip_nulls", |_, a| {
        let mut out = String::new();
        strip_nulls(&*parsed(&a[0])?).write_compact(&mut out);
        Ok(Datum::from(out))
    }),
    ("jsonb_strip_nulls", |_, a| Ok(jsonb(strip_nulls(&*parsed(&a[0])?)))),
    ("jsonb_pretty", |_, a| {
        let mut out = String::new();
        parsed(&a[0])?.write_pretty(0, &mut out);
        Ok(Datum::from(out))
    }),
    ("jsonb_bool", |_, a| scalar_cast(a, "boolean", b'b')),
    ("jsonb_numeric", |_, a| scalar_cast(a, "numeric", b'n')),
    ("jsonb_int2", |_, a| numeric_cast(a, "smallint", |n| n.to_integer("smallint").map(Datum::Int2))),
    ("jsonb_int4", |_, a| numeric_cast(a, "integer", |n| n.to_integer("integer").map(Datum::Int4))),
    ("jsonb_int8", |_, a| numeric_cast(a, "bigint", |n| n.to_integer("bigint").map(Datum::Int8))),
    ("jsonb_float8", |_, a| numeric_cast(a, "double precision", |n| Ok(Datum::Float8(n.to_f64())))),
    ("jsonb_float4", |_, a| {
        #[expect(clippy::cast_possible_truncation, reason = "the cast rounds to float4")]
        numeric_cast(a, "real", |n| Ok(Datum::Float4(n.to_f64() as f32)))
    }),
];

/// Set-returning ones, by `prosrc`.
pub(super) const SETS: &[(&str, SetFn)] = &[
    ("json_array_elements", |_, a| elements(a, false)),
    ("json_array_elements_text", |_, a| elements(a, true)),
    ("jsonb_array_elements", |_, a| elements(a, false)),
    ("jsonb_array_elements_text", |_, a| elements(a, true)),
    ("json_object_keys", |c, a| object_keys(c, a)),
    ("jsonb_object_keys", |c, a| object_keys(c, a)),
    ("json_each", |c, a| each(c, a, false)),
    ("json_each_text", |c, a| each(c, a, true)),
    ("jsonb_each", |c, a| each(c, a, false)),
    ("jsonb_each_text", |c, a| each(c, a, true)),
];
