//! Ranges: text form and canonical form.

use std::cmp::Ordering;
use std::sync::Arc;

use super::compare::compare;
use super::datum::{RangeBounds, RangeValue};
use super::scalar::is_space;
use super::{Datum, IoSettings, Oid, io, oids};
use crate::sqlstate::{SqlError, SqlState};

/// Element type of a built-in range type.
pub fn subtype(range: Oid) -> Option<Oid> {
    Some(match range {
        oids::INT4RANGE => oids::INT4,
        oids::INT8RANGE => oids::INT8,
        oids::NUMRANGE => oids::NUMERIC,
        oids::DATERANGE => oids::DATE,
        oids::TSRANGE => oids::TIMESTAMP,
        oids::TSTZRANGE => oids::TIMESTAMPTZ,
        _ => return None,
    })
}

/// The built-in range type over an element type.
pub fn range_type(elem: Oid) -> Option<Oid> {
    [oids::INT4RANGE, oids::INT8RANGE, oids::NUMRANGE, oids::DATERANGE, oids::TSRANGE, oids::TSTZRANGE]
        .into_iter()
        .find(|&r| subtype(r) == Some(elem))
}

fn malformed(text: &str, detail: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("malformed range literal: \"{text}\"")).detail(detail)
}

impl RangeValue {
    /// A range in canonical form: discrete ones as `[a,b)`, nothing between the bounds as empty.
    ///
    /// # Errors
    /// `22000` when the lower bound is above the upper.
    pub fn new(subtype: Oid, mut b: RangeBounds) -> Result<Self, SqlError> {
        b.lower_inc &= !b.lower.is_null();
        b.upper_inc &= !b.upper.is_null();
        if !b.lower.is_null() && !b.upper.is_null() {
            match compare(&b.lower, &b.upper) {
                Ordering::Greater => {
                    return Err(SqlError::new(
                        SqlState::DATA_EXCEPTION,
                        "range lower bound must be less than or equal to range upper bound",
                    ));
                }
                Ordering::Equal if !(b.lower_inc && b.upper_inc) => return Ok(Self { subtype, bounds: None }),
                Ordering::Less | Ordering::Equal => {}
            }
        }
        if let Some(v) = (!b.lower_inc).then(|| next(&b.lower)).transpose()?.flatten() {
            b.lower = v;
            b.lower_inc = true;
        }
        if let Some(v) = b.upper_inc.then(|| next(&b.upper)).transpose()?.flatten() {
            b.upper = v;
            b.upper_inc = false;
        }
        let discrete = matches!(subtype, oids::INT4 | oids::INT8 | oids::DATE);
        if discrete && !b.lower.is_null() && !b.upper.is_null() && compare(&b.lower, &b.upper).is_ge() {
            return Ok(Self { subtype, bounds: None });
        }
        Ok(Self { subtype, bounds: Some(b) })
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// `22P02`.
    pub fn parse(text: &str, subtype: Oid, settings: &IoSettings) -> Result<Self, SqlError> {
        let s = text.trim_matches(is_space);
        if s.eq_ignore_ascii_case("empty") {
            return Ok(Self { subtype, bounds: None });
        }
        let lower_inc = match s.as_bytes().first() {
            Some(b'[') => true,
            Some(b'(') => false,
            _ => return Err(malformed(text, "Missing left parenthesis or bracket.")),
        };
        let (lower, at) = bound(text, s, 1)?;
        if s.as_bytes().get(at) != Some(&b',') {
            return Err(malformed(text, "Missing comma after lower bound."));
        }
        let (upper, at) = bound(text, s, at + 1)?;
        let upper_inc = match s.as_bytes().get(at) {
            Some(b']') => true,
            Some(b')') => false,
            Some(_) => return Err(malformed(text, "Too many commas.")),
            None => return Err(malformed(text, "Unexpected end of input.")),
        };
        if at + 1 < s.len() {
            return Err(malformed(text, "Junk after right parenthesis or bracket."));
        }
        let read = |b: Option<String>| b.map_or(Ok(Datum::Null), |b| io::text_in(subtype, -1, &b, settings));
        Self::new(subtype, RangeBounds { lower: read(lower)?, lower_inc, upper: read(upper)?, upper_inc })
    }

    /// Appends the text form.
    ///
    /// # Errors
    /// The element type's.
    pub fn write(&self, out: &mut Vec<u8>, settings: &IoSettings) -> Result<(), SqlError> {
        let Some(b) = &self.bounds else {
            out.extend_from_slice(b"empty");
            return Ok(());
        };
        let bound = |v: &Datum, out: &mut Vec<u8>| -> Result<(), SqlError> {
            if v.is_null() {
                return Ok(());
            }
            let start = out.len();
            io::text_out(v, self.subtype, out, settings)?;
            super::record::quote_field(start, b"(),[]", out);
            Ok(())
        };
        out.push(if b.lower_inc { b'[' } else { b'(' });
        bound(&b.lower, out)?;
        out.push(b',');
        bound(&b.upper, out)?;
        out.push(if b.upper_inc { b']' } else { b')' });
        Ok(())
    }

    /// Does the range hold this value?
    pub fn contains(&self, v: &Datum) -> bool {
        let Some(b) = &self.bounds else { return false };
        let above = b.lower.is_null()
            || match compare(&b.lower, v) {
                Ordering::Less => true,
                Ordering::Equal => b.lower_inc,
                Ordering::Greater => false,
            };
        let below = b.upper.is_null()
            || match compare(v, &b.upper) {
                Ordering::Less => true,
                Ordering::Equal => b.upper_inc,
                Ordering::Greater => false,
            };
        above && below
    }

    /// As a value.
    pub fn into_datum(self) -> Datum {
        Datum::Range(Arc::new(self))
    }
}

/// The value after `v`, of the discrete types.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn next(v: &Datum) -> Result<Option<Datum>, SqlError> {
    let over = |m: &str| SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, m);
    Ok(match v {
        Datum::Int4(v) => Some(Datum::Int4(v.checked_add(1).ok_or_else(|| over("integer out of range"))?)),
        Datum::Int8(v) => Some(Datum::Int8(v.checked_add(1).ok_or_else(|| over("bigint out of range"))?)),
        Datum::Date(v) if *v != i32::MAX && *v != i32::MIN => Some(Datum::Date(v + 1)),
        _ => None,
    })
}

/// One bound from byte `at`: its text (`None` when absent) and where it ends.
fn bound(text: &str, s: &str, mut at: usize) -> Result<(Option<String>, usize), SqlError> {
    let mut out = String::new();
    let (mut quoted, mut any) = (false, false);
    loop {
        let Some(c) = s[at..].chars().next() else { return Err(malformed(text, "Unexpected end of input.")) };
        if !quoted && matches!(c, ',' | '(' | ')' | '[' | ']') {
            return Ok((any.then_some(out), at));
        }
        at += c.len_utf8();
        match c {
            '\\' => {
                let Some(e) = s[at..].chars().next() else { return Err(malformed(text, "Unexpected end of input.")) };
                at += e.len_utf8();
                out.push(e);
            }
            '"' if quoted && s[at..].starts_with('"') => {
                at += 1;
                out.push('"');
            }
            '"' => quoted = !quoted,
            c => out.push(c),
        }
        any = true;
    }
}
