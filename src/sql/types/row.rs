//! Descriptions of rows, and how a row lies in a heap tuple.
//!
//! ```text
//! 0   natts u16       attributes present; later ones read as their missing value, or NULL
//! 2   flags u16       bit 0: a NULL bitmap follows; bit 1: some values are out of line
//! 4   bitmap          (natts + 7) / 8 bytes when bit 0 is set; bit set = value present
//!     values          fixed-length ones little-endian, unaligned; others with a length header
//! ```
//! Length headers and the stored form of each type: [`super::stored`].

use std::sync::Arc;

use super::packed::{Pointer, ToastTable};
use super::stored::{self, Reader, Repr};
use super::{Datum, Oid};
use crate::sqlstate::{SqlError, SqlState};

/// One column of a row.
#[derive(Clone, Debug)]
pub struct ColDesc {
    /// Name.
    pub name: Arc<str>,
    /// Type.
    pub type_oid: Oid,
    /// How values are held; follows from the type.
    pub repr: Repr,
    /// Type modifier, -1 for none.
    pub typmod: i32,
    /// NOT NULL is known to hold.
    pub not_null: bool,
    /// Dropped: kept for the column numbers, always NULL.
    pub dropped: bool,
    /// What rows written before this column was added hold in it (`attmissingval`).
    pub missing: Option<Datum>,
}

/// The columns of a row, in order.
#[derive(Clone, Debug, Default)]
pub struct TupleDesc {
    /// Columns.
    pub cols: Vec<ColDesc>,
    /// Values that are compressed or out of line are read as [`Datum::Packed`]: rows of tables. Others (catalogs) are unpacked at once.
    pub packed: bool,
    /// Where values out of line are.
    pub toast: Option<ToastTable>,
}

impl ColDesc {
    /// A nullable column.
    pub fn new(name: &str, type_oid: Oid, typmod: i32) -> Self {
        Self { name: Arc::from(name), type_oid, repr: Repr::of(type_oid), typmod, not_null: false, dropped: false, missing: None }
    }
}

impl TupleDesc {
    /// From columns.
    pub fn new(cols: Vec<ColDesc>) -> Self {
        Self { cols, packed: false, toast: None }
    }

    /// Number of columns.
    pub fn len(&self) -> usize {
        self.cols.len()
    }

    /// No columns?
    pub fn is_empty(&self) -> bool {
        self.cols.is_empty()
    }
}

/// Rows longer than this have their long values compressed, so that several fit a page (PostgreSQL's `TOAST_TUPLE_THRESHOLD`).
const COMPRESS_ABOVE: usize = 2032;
const HAS_NULLS: u16 = 1;
const HAS_POINTERS: u16 = 2;

/// Appends the bytes of a row to `out`. `values` has one value per column.
///
/// # Errors
/// `54000` for values beyond 1 GB.
pub fn encode(desc: &TupleDesc, values: &[Datum], out: &mut Vec<u8>) -> Result<(), SqlError> {
    let start = out.len();
    encode_as(desc, values, false, out)?;
    if out.len() - start > COMPRESS_ABOVE {
        out.truncate(start);
        encode_as(desc, values, true, out)?;
    }
    Ok(())
}

pub(crate) fn encode_as(desc: &TupleDesc, values: &[Datum], compress: bool, out: &mut Vec<u8>) -> Result<(), SqlError> {
    let pointers = values.iter().any(|v| matches!(v, Datum::Packed(p) if p.pointer().is_some()));
    put_header(desc, values, pointers, out)?;
    values.iter().filter(|v| !v.is_null()).try_for_each(|v| stored::put(v, compress, out))
}

/// Appends what is before the values. `pointers`: some of them are out of line.
pub(crate) fn put_header(desc: &TupleDesc, values: &[Datum], pointers: bool, out: &mut Vec<u8>) -> Result<(), SqlError> {
    if values.len() != desc.len() {
        return Err(SqlError::internal(format!("row of {} values for {} columns", values.len(), desc.len())));
    }
    let natts =
        u16::try_from(values.len()).map_err(|_| SqlError::new(SqlState::TOO_MANY_COLUMNS, "tables can have at most 1600 columns"))?;
    let nulls = values.iter().any(Datum::is_null);
    out.extend_from_slice(&natts.to_le_bytes());
    let flags = if nulls { HAS_NULLS } else { 0 } | if pointers { HAS_POINTERS } else { 0 };
    out.extend_from_slice(&flags.to_le_bytes());
    if nulls {
        for eight in values.chunks(8) {
            out.push(eight.iter().enumerate().fold(0, |bits, (i, v)| bits | u8::from(!v.is_null()) << i));
        }
    }
    Ok(())
}

/// The values of a row that are out of line.
///
/// # Errors
/// `XX001` when the bytes are not a row of this shape.
pub fn pointers(desc: &TupleDesc, bytes: &[u8]) -> Result<Vec<Pointer>, SqlError> {
    let mut found = Vec::new();
    let flags = Reader(bytes.get(2..).unwrap_or_default()).array().map_or(0, u16::from_le_bytes);
    if flags & HAS_POINTERS != 0 {
        let mut values = vec![Datum::Null; desc.len()];
        read(desc, bytes, desc.len(), |i| desc.cols.get(i).is_some_and(|c| c.repr.has_header()), &mut values)?;
        found.extend(values.iter().filter_map(|v| if let Datum::Packed(p) = v { p.pointer() } else { None }));
    }
    Ok(found)
}

/// Reads the first `upto` columns of a row into `out[..upto]`.
///
/// # Errors
/// `XX001` when the bytes are not a row of this shape.
pub fn decode(desc: &TupleDesc, bytes: &[u8], upto: usize, out: &mut [Datum]) -> Result<(), SqlError> {
    read(desc, bytes, upto, |_| true, out)
}

/// Reads only the columns set in `wanted` (an entry per column, `wanted.len() <= desc.len()`); others stay as they are.
///
/// # Errors
/// `XX001` when the bytes are not a row of this shape.
pub fn decode_some(desc: &TupleDesc, bytes: &[u8], wanted: &[bool], out: &mut [Datum]) -> Result<(), SqlError> {
    let upto = wanted.iter().rposition(|&w| w).map_or(0, |i| i + 1);
    read(desc, bytes, upto, |i| wanted[i], out)
}

#[inline]
fn read(desc: &TupleDesc, bytes: &[u8], upto: usize, wanted: impl Fn(usize) -> bool, out: &mut [Datum]) -> Result<(), SqlError> {
    let mut r = Reader(bytes);
    let natts = usize::from(u16::from_le_bytes(r.array()?));
    let flags = u16::from_le_bytes(r.array()?);
    let nulls = if flags & HAS_NULLS != 0 { Some(r.take(natts.div_ceil(8))?) } else { None };
    for (i, (col, slot)) in desc.cols.iter().zip(out).take(upto).enumerate() {
        if i >= natts {
            if wanted(i) {
                *slot = col.missing.clone().unwrap_or_default();
            }
        } else if nulls.is_some_and(|n| n[i / 8] & 1 << (i % 8) == 0) {
            if wanted(i) {
                *slot = Datum::Null;
            }
        } else if wanted(i) {
            *slot = if desc.packed { stored::get_packed(col.repr, &mut r, desc.toast.as_ref())? } else { stored::get(col.repr, &mut r)? };
        } else {
            stored::skip(col.repr, &mut r)?;
        }
    }
    Ok(())
}
