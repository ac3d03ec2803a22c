//! Rows as values: text form.

use std::sync::Arc;

use super::datum::RecordValue;
use super::row::TupleDesc;
use super::scalar::is_space;
use super::{Datum, IoSettings, Oid, io};
use crate::sqlstate::{SqlError, SqlState};

/// Bytes of text a value may have.
const MAX_TEXT: usize = 0x3fff_ffff;

/// Quotes the field that starts at `start` if it is empty or holds quotes, backslashes, blanks or one of `special`.
pub(crate) fn quote_field(start: usize, special: &[u8], out: &mut Vec<u8>) {
    let field = &out[start..];
    let needs = field.is_empty() || field.iter().any(|&c| matches!(c, b'"' | b'\\') || special.contains(&c) || is_space(char::from(c)));
    if !needs {
        return;
    }
    let field = field.to_vec();
    out.truncate(start);
    out.push(b'"');
    for c in field {
        if matches!(c, b'"' | b'\\') {
            out.push(c);
        }
        out.push(c);
    }
    out.push(b'"');
}

fn malformed(text: &str, detail: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("malformed record literal: \"{text}\"")).detail(detail)
}

impl RecordValue {
    /// An anonymous row.
    pub fn anonymous(desc: Arc<TupleDesc>, values: Vec<Datum>) -> Self {
        Self { type_oid: super::oids::RECORD, desc, values: values.into() }
    }

    /// The row as one of these columns, by place: what it lacks is NULL, and what is dropped.
    #[must_use]
    pub fn shaped(&self, desc: &Arc<TupleDesc>) -> Self {
        let values = desc.cols.iter().enumerate().map(|(i, c)| self.values.get(i).filter(|_| !c.dropped).cloned().unwrap_or_default());
        Self { type_oid: self.type_oid, desc: Arc::clone(desc), values: values.collect() }
    }

    /// Appends the text form.
    ///
    /// # Errors
    /// The columns'.
    pub fn write(&self, out: &mut Vec<u8>, settings: &IoSettings) -> Result<(), SqlError> {
        out.push(b'(');
        let live = self.desc.cols.iter().zip(&self.values).filter(|(c, _)| !c.dropped);
        for (i, (col, v)) in live.enumerate() {
            if i > 0 {
                out.push(b',');
            }
            if !v.is_null() {
                let start = out.len();
                io::text_out(v, col.type_oid, out, settings)?;
                quote_field(start, b"(),", out);
                // Each level of nesting doubles the quotes.
                if out.len() > MAX_TEXT {
                    return Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "out of memory").detail(format!(
                        "Cannot enlarge string buffer containing {} bytes by {} more bytes.",
                        out.len(),
                        out.len() - start
                    )));
                }
            }
        }
        out.push(b')');
        Ok(())
    }

    /// Reads the text form of a composite type.
    ///
    /// # Errors
    /// `22P02`.
    pub fn parse(text: &str, type_oid: Oid, desc: Arc<TupleDesc>, settings: &IoSettings) -> Result<Self, SqlError> {
        let s = text.trim_start_matches(is_space);
        let mut rest = s.strip_prefix('(').ok_or_else(|| malformed(text, "Missing left parenthesis."))?;
        let mut values = Vec::with_capacity(desc.len());
        let mut first = true;
        for col in &desc.cols {
            if col.dropped {
                values.push(Datum::Null);
                continue;
            }
            if !first {
                rest = rest.strip_prefix(',').ok_or_else(|| malformed(text, "Too few columns."))?;
            }
            first = false;
            let (field, tail) = field(rest).ok_or_else(|| malformed(text, "Unexpected end of input."))?;
            rest = tail;
            values.push(match field {
                None => Datum::Null,
                Some(f) => io::text_in(col.type_oid, col.typmod, &f, settings)?,
            });
        }
        let rest = rest.strip_prefix(')').ok_or_else(|| malformed(text, "Too many columns."))?;
        if !rest.trim_matches(is_space).is_empty() {
            return Err(malformed(text, "Junk after right parenthesis."));
        }
        Ok(Self { type_oid, desc, values: values.into() })
    }
}

/// One field and what follows it; an empty unquoted field is NULL.
fn field(s: &str) -> Option<(Option<String>, &str)> {
    let mut out = String::new();
    let (mut quoted, mut any) = (false, false);
    let mut chars = s.char_indices().peekable();
    loop {
        let &(i, c) = chars.peek()?;
        if !quoted && matches!(c, ',' | ')') {
            return Some((any.then_some(out), &s[i..]));
        }
        chars.next();
        any = true;
        match c {
            '\\' => out.push(chars.next()?.1),
            '"' if quoted && chars.peek().is_some_and(|&(_, c)| c == '"') => {
                chars.next();
                out.push('"');
            }
            '"' => quoted = !quoted,
            c => out.push(c),
        }
    }
}
