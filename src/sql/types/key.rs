//! Index keys: bytes whose `memcmp` order is the order of the values.
//!
//! A key is its columns one after the other. Each starts with a marker byte that places NULL, then the value, self-delimiting,
//! so that a shorter key is a prefix bound. Descending columns have all their bytes inverted. Equal values have equal bytes.

use super::{Datum, Oid};
use crate::sqlstate::SqlError;

/// How one key column is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyOrder {
    /// DESC.
    pub desc: bool,
    /// NULLS FIRST.
    pub nulls_first: bool,
}

impl KeyOrder {
    /// ASC NULLS LAST, the default.
    pub const ASC: Self = Self { desc: false, nulls_first: false };
    /// DESC NULLS FIRST, the default for DESC.
    pub const DESC: Self = Self { desc: true, nulls_first: true };
}

/// Appends one key column.
///
/// # Errors
/// `0A000` for a type without an order.
pub fn encode(value: &Datum, order: KeyOrder, out: &mut Vec<u8>) -> Result<(), SqlError> {
    let _ = (value, order, out);
    Err(SqlError::internal("key::encode"))
}

/// Reads one key column of type `type_oid` from the front of `bytes` and advances it.
///
/// # Errors
/// `XX002` for bytes that are no key; `XX000` for types of which [`is_lossless`] says no.
pub fn decode(type_oid: Oid, order: KeyOrder, bytes: &mut &[u8]) -> Result<Datum, SqlError> {
    let _ = (type_oid, order, bytes);
    Err(SqlError::internal("key::decode"))
}

/// Skips one key column.
///
/// # Errors
/// `XX002` for bytes that are no key.
pub fn skip(type_oid: Oid, order: KeyOrder, bytes: &mut &[u8]) -> Result<(), SqlError> {
    let _ = (type_oid, order, bytes);
    Err(SqlError::internal("key::skip"))
}

/// Does a key hold the whole value, so that an index-only scan can answer from it?
/// Not for `numeric` (display scale), `float` (minus zero), `bpchar` (trailing blanks), `interval`, `jsonb`.
pub fn is_lossless(type_oid: Oid) -> bool {
    let _ = type_oid;
    false
}

/// Can values of this type be index keys at all?
pub fn is_supported(type_oid: Oid) -> bool {
    let _ = type_oid;
    false
}
