//! Large values: compressed in the row, or out of line in the table's large-value table (PostgreSQL's TOAST).
//!
//! A large-value table has rows (chunk_id, chunk_seq, chunk_data) and a unique index on the first two; it is an ordinary table to the heap,
//! the WAL, vacuum and standbys. A row of the main table that is too long has its largest values compressed, then moved there; it keeps a
//! pointer ([`Packed`]). The rule is PostgreSQL's (`heap_toast_insert_or_update`): down to about a quarter of a page.
//!
//! Chunks live and die with the row version that points to them: written before it, deleted with it, kept by an update that does not touch
//! the value. So whoever sees the row may read its chunks, and they are read without asking for visibility.

mod encode;

pub(crate) use crate::sql::catalog::chunks::delete_values;
pub(crate) use encode::RowWriter;

use std::sync::Arc;

use super::code::CallCode;
use super::eval::Exec;
use crate::access::AccessCtx;
use crate::sql::catalog::{Index, chunks};
use crate::sql::functions::{Call, ProcEntry};
use crate::sql::types::stored;
use crate::sql::types::{Datum, Held, Packed, Repr};
use crate::sqlstate::SqlError;

/// The value, read and decompressed.
///
/// # Errors
/// XX001; I/O.
#[cold]
pub(crate) fn unpack(ctx: &AccessCtx, packed: &Packed) -> Result<Datum, SqlError> {
    let bytes = match &packed.held {
        Held::Inline { bytes, raw_len, .. } => stored::decompress(bytes, to_usize(*raw_len))?,
        Held::OutOfLine(pointer, toast) => {
            let bytes = chunks::fetch(ctx, pointer, toast, 0, to_usize(pointer.stored_len()))?;
            match pointer.method() {
                Some(_) => stored::decompress(&bytes, to_usize(pointer.raw_len))?,
                None => bytes,
            }
        }
    };
    stored::from_bytes(packed.repr, &bytes)
}

/// Unpacks in place.
///
/// # Errors
/// As [`unpack`].
#[inline]
pub(crate) fn unpack_in_place(ctx: &AccessCtx, value: &mut Datum) -> Result<(), SqlError> {
    if let Datum::Packed(packed) = value {
        *value = unpack(ctx, packed)?;
    }
    Ok(())
}

/// Unpacks all of a row.
///
/// # Errors
/// As [`unpack`].
#[inline]
pub(crate) fn unpack_row(ctx: &AccessCtx, row: &mut [Datum]) -> Result<(), SqlError> {
    row.iter_mut().try_for_each(|v| unpack_in_place(ctx, v))
}

/// Makes the values of a row in an index usable for its entry: keys are unpacked, INCLUDE columns only brought in line.
///
/// # Errors
/// As [`unpack`].
pub(crate) fn unpack_entry(ctx: &AccessCtx, index: &Index, values: &mut [Datum]) -> Result<(), SqlError> {
    let (keys, included) = values.split_at_mut(index.n_key.min(values.len()));
    unpack_row(ctx, keys)?;
    included.iter_mut().try_for_each(|value| {
        if let Datum::Packed(packed) = value
            && let Held::OutOfLine(pointer, toast) = &packed.held
        {
            let bytes = chunks::fetch(ctx, pointer, toast, 0, to_usize(pointer.stored_len()))?;
            *value = match pointer.method() {
                Some(method) => {
                    let held = Held::Inline { bytes: bytes.into(), raw_len: pointer.raw_len, method };
                    Datum::Packed(Arc::new(Packed { repr: packed.repr, held }))
                }
                None => stored::from_bytes(packed.repr, &bytes)?,
            };
        }
        Ok(())
    })
}

/// Functions that do not need all of their first argument.
pub(crate) fn takes_packed(func: &ProcEntry) -> bool {
    matches!(func.name, "pg_column_size" | "pg_column_compression")
        || matches!(func.source, "text_substr" | "bytea_substr" | "bytea_substr_no_len" | "text_left" | "textoctetlen" | "byteaoctetlen")
}

/// A call of one of those with a packed first argument. PostgreSQL: `detoast_attr_slice`.
#[cold]
pub(crate) fn call(x: &mut Exec<'_>, code: &CallCode, packed: &Packed, args: &[Datum]) -> Result<Datum, SqlError> {
    let int = |i: usize| args.get(i).and_then(|v| v.as_i32().ok()).map(i64::from);
    let access = x.session.engine.ctx().clone();
    match code.func.name {
        "pg_column_size" => return Ok(Datum::Int4(i32::try_from(packed.stored_len()).unwrap_or(i32::MAX))),
        "pg_column_compression" => return Ok(packed.method().map_or(Datum::Null, |m| Datum::text(m.name()))),
        _ => {}
    }
    if matches!(code.func.source, "textoctetlen" | "byteaoctetlen") && matches!(packed.repr, Repr::Text | Repr::Bytea) {
        return Ok(Datum::Int4(i32::try_from(packed.raw_len()).unwrap_or(i32::MAX)));
    }
    if let Held::OutOfLine(pointer, toast) = &packed.held
        && matches!(code.func.source, "bytea_substr" | "bytea_substr_no_len")
        && packed.method().is_none()
        && let Some(from) = int(1)
        && int(2).is_none_or(|n| n >= 0)
    {
        // Only the chunks with these bytes.
        let place = |n: i64| usize::try_from(n.max(1) - 1).unwrap_or(usize::MAX);
        let (start, end) = (place(from), int(2).map_or(usize::MAX, |n| place(from.saturating_add(n))));
        let part = chunks::fetch(&access, pointer, toast, start, end.saturating_sub(start))?;
        return stored::from_bytes(packed.repr, &part);
    }
    let mut args: smallvec::SmallVec<[Datum; 4]> = args.iter().cloned().collect();
    // How far into the value the function looks.
    let upto = match code.func.source {
        "text_substr" | "bytea_substr" => int(1).zip(int(2)).map(|(from, n)| if n < 0 { 0 } else { from.saturating_add(n).max(1) - 1 }),
        "text_left" => int(1).filter(|n| *n >= 0),
        _ => None,
    };
    let value = match (&packed.held, upto) {
        (Held::OutOfLine(pointer, toast), Some(upto)) if packed.method().is_none() => {
            let text = packed.repr == Repr::Text;
            // The longest character has four bytes.
            let bytes = usize::try_from(if text { upto.saturating_mul(4) } else { upto }).unwrap_or(usize::MAX);
            let mut part = chunks::fetch(&access, pointer, toast, 0, bytes.min(to_usize(pointer.stored_len())))?;
            if text && let Err(e) = std::str::from_utf8(&part) {
                // The last character is cut; whether the rest is good is asked below.
                if e.error_len().is_none() {
                    part.truncate(e.valid_up_to());
                }
            }
            stored::from_bytes(packed.repr, &part)?
        }
        _ => unpack(&access, packed)?,
    };
    if let Some(first) = args.first_mut() {
        *first = value;
    }
    code.func.invoke(&mut Call { ctx: x.session, types: &code.types }, &args)
}

fn to_usize(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
