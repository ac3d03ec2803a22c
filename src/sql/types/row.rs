//! Descriptions of rows, and how a row lies in a heap tuple.
//!
//! ```text
//! 0   natts u16       attributes present; later ones read as their missing value, or NULL
//! 2   flags u16       bit 0: a NULL bitmap follows
//! 4   bitmap          (natts + 7) / 8 bytes when bit 0 is set; bit set = value present
//!     values          fixed-length ones little-endian, unaligned; others with a length header
//! ```
//! Length header: one byte `len << 1` for lengths below 127, `0xFE` for a value stored elsewhere or compressed (reserved),
//! else four bytes little-endian `len << 2 | 1`.

use std::sync::Arc;

use super::{Datum, Oid};
use crate::sqlstate::SqlError;

/// One column of a row.
#[derive(Clone, Debug)]
pub struct ColDesc {
    /// Name.
    pub name: Arc<str>,
    /// Type.
    pub type_oid: Oid,
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
}

impl ColDesc {
    /// A nullable column.
    pub fn new(name: &str, type_oid: Oid, typmod: i32) -> Self {
        Self { name: Arc::from(name), type_oid, typmod, not_null: false, dropped: false, missing: None }
    }
}

impl TupleDesc {
    /// From columns.
    pub fn new(cols: Vec<ColDesc>) -> Self {
        Self { cols }
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

/// Appends the bytes of a row to `out`. `values` has one value per column.
///
/// # Errors
/// `54011`/`XX000` for rows that cannot be encoded.
pub fn encode(desc: &TupleDesc, values: &[Datum], out: &mut Vec<u8>) -> Result<(), SqlError> {
    let _ = (desc, values, out);
    Err(SqlError::internal("row::encode"))
}

/// Reads the first `upto` columns of a row into `out[..upto]`.
///
/// # Errors
/// `XX001` when the bytes are not a row of this shape.
pub fn decode(desc: &TupleDesc, bytes: &[u8], upto: usize, out: &mut [Datum]) -> Result<(), SqlError> {
    let _ = (desc, bytes, upto, out);
    Err(SqlError::internal("row::decode"))
}

/// Reads only the columns set in `wanted` (a bit per column, `wanted.len() <= desc.len()`); others stay as they are.
///
/// # Errors
/// `XX001` when the bytes are not a row of this shape.
pub fn decode_some(desc: &TupleDesc, bytes: &[u8], wanted: &[bool], out: &mut [Datum]) -> Result<(), SqlError> {
    let _ = (desc, bytes, wanted, out);
    Err(SqlError::internal("row::decode"))
}
