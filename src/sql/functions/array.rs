//! Array functions.

use super::call::{Call, ScalarFn};
use crate::sql::types::array::{Dim, MAX_DIMS, MAX_SIZE, too_large, too_many_dims};
use crate::sql::types::registry::element_type;
use crate::sql::types::{ArrayValue, Datum, Text, compare, io, oids};
use crate::sqlstate::{SqlError, SqlState};

type Out = Result<Datum, SqlError>;

fn subscript_error(m: &str) -> SqlError {
    SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, m)
}

/// The array, or an empty one of the result's element type for NULL.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn array_or_empty(c: &Call<'_>, d: &Datum) -> Result<ArrayValue, SqlError> {
    match d {
        Datum::Null => Ok(ArrayValue::empty(element_type(c.types.result).unwrap_or(0))),
        d => Ok((**d.as_array()?).clone()),
    }
}

fn append(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let mut array = array_or_empty(c, &a[0])?;
    if array.dims.len() > 1 {
        return Err(SqlError::new(SqlState::DATA_EXCEPTION, "argument must be empty or one-dimensional array"));
    }
    let at = array.dims.first().map_or(1, |d| d.lower + d.len);
    array.set(&[at], a[1].clone())?;
    Ok(Datum::array(array))
}

fn prepend(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let mut array = array_or_empty(c, &a[1])?;
    if array.dims.len() > 1 {
        return Err(SqlError::new(SqlState::DATA_EXCEPTION, "argument must be empty or one-dimensional array"));
    }
    array.values.insert(0, a[0].clone());
    // The lower bound stays where it was.
    let lower = array.dims.first().map_or(1, |d| d.lower);
    let len = i32::try_from(array.values.len()).map_err(|_| too_large())?;
    ArrayValue::shaped(array.elem, smallvec::smallvec![Dim { len, lower }], array.values).map(Datum::array)
}

fn cat(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let (x, y) = match (&a[0], &a[1]) {
        (Datum::Null, other) | (other, Datum::Null) => return Ok(other.clone()),
        (x, y) => (x.as_array()?, y.as_array()?),
    };
    if x.values.is_empty() {
        return Ok(a[1].clone());
    }
    if y.values.is_empty() {
        return Ok(a[0].clone());
    }
    let incompatible = |detail: &str| Err(subscript_error("cannot concatenate incompatible arrays").detail(detail));
    let values: Vec<Datum> = x.values.iter().chain(&y.values).cloned().collect();
    let mut dims = match (x.dims.len(), y.dims.len()) {
        (m, n) if m == n => {
            if x.dims[1..] != y.dims[1..] {
                return incompatible("Arrays with differing element dimensions are not compatible for concatenation.");
            }
            let mut dims = x.dims.clone();
            dims[0].len += y.dims[0].len;
            dims
        }
        (m, n) if m + 1 == n => {
            if x.dims[..] != y.dims[1..] {
                return incompatible("Arrays with differing dimensions are not compatible for concatenation.");
            }
            let mut dims = y.dims.clone();
            dims[0].len += 1;
            dims
        }
        (m, n) if m == n + 1 => {
            if y.dims[..] != x.dims[1..] {
                return incompatible("Arrays with differing dimensions are not compatible for concatenation.");
            }
            let mut dims = x.dims.clone();
            dims[0].len += 1;
            dims
        }
        (m, n) => {
            return incompatible(&format!("Arrays of {m} and {n} dimensions are not compatible for concatenation."));
        }
    };
    dims.shrink_to_fit();
    ArrayValue::shaped(x.elem, dims, values).map(Datum::array)
}

fn dim(a: &[Datum]) -> Result<Option<Dim>, SqlError> {
    let n = a[1].as_i32()?;
    Ok(usize::try_from(i64::from(n) - 1).ok().and_then(|i| a[0].as_array().ok()?.dims.get(i).copied()))
}

fn dims_text(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let array = a[0].as_array()?;
    if array.dims.is_empty() {
        return Ok(Datum::Null);
    }
    Ok(Datum::from(array.dims.iter().map(|d| format!("[{}:{}]", d.lower, d.lower + d.len - 1)).collect::<String>()))
}

fn same(x: &Datum, y: &Datum) -> bool {
    match (x.is_null(), y.is_null()) {
        (true, true) => true,
        (false, false) => compare(x, y).is_eq(),
        _ => false,
    }
}

fn one_dimensional(a: &ArrayValue, what: &str) -> Result<(), SqlError> {
    if a.dims.len() > 1 {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} multidimensional arrays is not supported")));
    }
    Ok(())
}

fn position(_: &mut Call<'_>, a: &[Datum]) -> Out {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let array = a[0].as_array()?;
    one_dimensional(array, "searching for elements in")?;
    let lower = array.dims.first().map_or(1, |d| d.lower);
    let from = match a.get(2) {
        None => lower,
        Some(Datum::Null) => {
            return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "initial position must not be null"));
        }
        Some(d) => d.as_i32()?,
    };
    let skip = usize::try_from(i64::from(from) - i64::from(lower)).unwrap_or(0);
    let found = array.values.iter().enumerate().skip(skip).find(|(_, v)| same(v, &a[1]));
    Ok(found.map_or(Datum::Null, |(i, _)| Datum::Int4(lower + i32::try_from(i).unwrap_or(0))))
}

fn positions(_: &mut Call<'_>, a: &[Datum]) -> Out {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let array = a[0].as_array()?;
    one_dimensional(array, "searching for elements in")?;
    let lower = array.dims.first().map_or(1, |d| d.lower);
    let hits = array
        .values
        .iter()
        .enumerate()
        .filter(|(_, v)| same(v, &a[1]))
        .map(|(i, _)| Datum::Int4(lower + i32::try_from(i).unwrap_or(0)))
        .collect();
    Ok(Datum::array(ArrayValue::one_dim(oids::INT4, hits)))
}

fn remove(_: &mut Call<'_>, a: &[Datum]) -> Out {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let array = a[0].as_array()?;
    one_dimensional(array, "removing elements from")?;
    let values: Vec<Datum> = array.values.iter().filter(|v| !same(v, &a[1])).cloned().collect();
    let lower = array.dims.first().map_or(1, |d| d.lower);
    Ok(Datum::array(ArrayValue::with_lower(array.elem, values, lower)))
}

fn replace(_: &mut Call<'_>, a: &[Datum]) -> Out {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let array = a[0].as_array()?;
    let values = array.values.iter().map(|v| if same(v, &a[1]) { a[2].clone() } else { v.clone() }).collect();
    Ok(Datum::array(ArrayValue { elem: array.elem, dims: array.dims.clone(), values }))
}

/// Does every element of `inner` that is not NULL occur in `outer`? A NULL in `inner` is never found.
fn contains(outer: &ArrayValue, inner: &ArrayValue) -> bool {
    inner.values.iter().all(|v| !v.is_null() && outer.values.iter().any(|w| !w.is_null() && compare(v, w).is_eq()))
}

fn overlap(x: &ArrayValue, y: &ArrayValue) -> bool {
    x.values.iter().any(|v| !v.is_null() && y.values.iter().any(|w| !w.is_null() && compare(v, w).is_eq()))
}

fn to_text(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let (Datum::Array(array), Datum::Text(by)) = (&a[0], &a[1]) else { return Ok(Datum::Null) };
    let null_text = match a.get(2) {
        Some(Datum::Text(t)) => Some(t),
        _ => None,
    };
    let mut out = Vec::new();
    let mut first = true;
    for v in &array.values {
        if v.is_null() && null_text.is_none() {
            continue;
        }
        if !first {
            out.extend_from_slice(by.as_bytes());
        }
        first = false;
        match (v.is_null(), null_text) {
            (true, Some(t)) => out.extend_from_slice(t.as_bytes()),
            _ => io::text_out(v, array.elem, &mut out, c.io())?,
        }
    }
    Ok(Datum::from(String::from_utf8_lossy(&out).into_owned()))
}

/// `string_to_array`'s parts, those equal to the third argument as NULL.
///
/// # Errors
/// None for text arguments.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn split_text(a: &[Datum]) -> Result<Vec<Datum>, SqlError> {
    let Datum::Text(s) = &a[0] else { return Ok(Vec::new()) };
    let by = match &a[1] {
        Datum::Null => None,
        d => Some(d.as_str()?),
    };
    let null_text: Option<&Text> = match a.get(2) {
        Some(Datum::Text(t)) => Some(t),
        _ => None,
    };
    Ok(super::string::split(s, by)
        .into_iter()
        .map(|p| if null_text.is_some_and(|n| &**n == p) { Datum::Null } else { super::string::datum(p) })
        .collect())
}

fn from_text(_: &mut Call<'_>, a: &[Datum]) -> Out {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    Ok(Datum::array(ArrayValue::one_dim(oids::TEXT, split_text(a)?)))
}

fn fill(c: &mut Call<'_>, a: &[Datum]) -> Out {
    let elem = element_type(c.types.result).unwrap_or_else(|| c.arg_type(0));
    if a[1].is_null() || a.get(2).is_some_and(Datum::is_null) {
        return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "dimension array or low bound array cannot be null"));
    }
    let lens = a[1].as_array()?;
    if lens.dims.len() > 1 {
        return Err(subscript_error("wrong number of array subscripts").detail("Dimension array must be one dimensional."));
    }
    if lens.values.len() > MAX_DIMS {
        return Err(too_many_dims(lens.values.len()));
    }
    let lowers = a.get(2).map(Datum::as_array).transpose()?;
    if lowers.is_some_and(|l| l.values.len() != lens.values.len()) {
        return Err(subscript_error("wrong number of array subscripts").detail("Low bound array has different size than dimensions array."));
    }
    let mut dims = smallvec::SmallVec::new();
    let mut count = 1usize;
    for (i, len) in lens.values.iter().enumerate() {
        if len.is_null() {
            return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "dimension values cannot be null"));
        }
        let len = len.as_i32()?;
        let lower = lowers.and_then(|l| l.values.get(i)).map_or(Ok(1), Datum::as_i32)?;
        if len < 0 {
            return Err(too_large());
        }
        count = usize::try_from(len).ok().and_then(|n| count.checked_mul(n)).filter(|n| *n <= MAX_SIZE).ok_or_else(too_large)?;
        dims.push(Dim { len, lower });
    }
    if count == 0 || lens.values.is_empty() {
        return Ok(Datum::array(ArrayValue::empty(elem)));
    }
    ArrayValue::shaped(elem, dims, vec![a[0].clone(); count]).map(Datum::array)
}

fn trim(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let array = a[0].as_array()?;
    let len = array.dims.first().map_or(0, |d| d.len);
    let n = a[1].as_i32()?;
    if n < 0 || n > len {
        return Err(subscript_error(&format!("number of elements to trim must be between 0 and {len}")));
    }
    let lower = array.dims.first().map_or(1, |d| d.lower);
    let mut cut = array.slice(&[(None, Some(lower + len - n - 1))]);
    if cut.values.is_empty() {
        cut = ArrayValue::empty(array.elem);
    }
    Ok(Datum::array(cut))
}

fn width_bucket(_: &mut Call<'_>, a: &[Datum]) -> Out {
    let array = a[1].as_array()?;
    if array.dims.len() > 1 {
        return Err(subscript_error("thresholds must be one-dimensional array"));
    }
    if array.values.iter().any(Datum::is_null) {
        return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "thresholds array must not contain NULLs"));
    }
    let n = array.values.partition_point(|t| compare(t, &a[0]).is_le());
    Ok(Datum::Int4(i32::try_from(n).unwrap_or(i32::MAX)))
}

/// By `prosrc`.
pub(super) const SCALARS: &[(&str, ScalarFn)] = &[
    ("array_append", append),
    ("array_prepend", prepend),
    ("array_cat", cat),
    ("array_length", |_, a| Ok(dim(a)?.map_or(Datum::Null, |d| Datum::Int4(d.len)))),
    ("array_lower", |_, a| Ok(dim(a)?.map_or(Datum::Null, |d| Datum::Int4(d.lower)))),
    ("array_upper", |_, a| Ok(dim(a)?.map_or(Datum::Null, |d| Datum::Int4(d.lower + d.len - 1)))),
    ("array_ndims", |_, a| {
        let n = a[0].as_array()?.dims.len();
        Ok(if n == 0 { Datum::Null } else { Datum::Int4(i32::try_from(n).unwrap_or(0)) })
    }),
    ("array_cardinality", |_, a| Ok(Datum::Int4(i32::try_from(a[0].as_array()?.values.len()).unwrap_or(i32::MAX)))),
    ("array_dims", dims_text),
    ("array_position", position),
    ("array_position_start", position),
    ("array_positions", positions),
    ("array_remove", remove),
    ("array_replace", replace),
    ("arraycontains", |_, a| Ok(Datum::Bool(contains(a[0].as_array()?, a[1].as_array()?)))),
    ("arraycontained", |_, a| Ok(Datum::Bool(contains(a[1].as_array()?, a[0].as_array()?)))),
    ("arrayoverlap", |_, a| Ok(Datum::Bool(overlap(a[0].as_array()?, a[1].as_array()?)))),
    ("array_larger", |_, a| Ok(if compare(&a[0], &a[1]).is_gt() { a[0].clone() } else { a[1].clone() })),
    ("array_smaller", |_, a| Ok(if compare(&a[0], &a[1]).is_lt() { a[0].clone() } else { a[1].clone() })),
    ("array_to_text", to_text),
    ("array_to_text_null", to_text),
    ("text_to_array", from_text),
    ("text_to_array_null", from_text),
    ("array_fill", fill),
    ("array_fill_with_lower_bounds", fill),
    ("trim_array", trim),
    ("width_bucket_array", width_bucket),
];
