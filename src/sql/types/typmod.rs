//! Type names as SQL writes them, and type modifiers.

use super::{Datum, IoSettings, Oid};
use crate::sqlstate::SqlError;

/// SQL name of a built-in type, with its modifier: `numeric(10,2)`, `character varying(20)[]`. `???` when unknown.
pub fn format_type(oid: Oid, typmod: i32) -> String {
    let _ = (oid, typmod);
    "???".to_owned()
}

/// [`format_type`], asking the catalog for types that are not built in.
///
/// # Errors
/// What the catalog lookup failed with.
pub fn format_type_with(oid: Oid, typmod: i32, io: &IoSettings) -> Result<String, SqlError> {
    let _ = io;
    Ok(format_type(oid, typmod))
}

/// The modifier from the constants in parentheses after a type name (`typmodin`).
///
/// # Errors
/// `22023` for values out of range, `42601` when the type takes none.
pub fn typmod_in(oid: Oid, args: &[i32]) -> Result<i32, SqlError> {
    let _ = (oid, args);
    Ok(-1)
}

/// Fits a value to a type modifier (the length coercion casts): `varchar(3)`, `numeric(4,1)`, `timestamp(0)`.
/// `explicit` casts truncate strings silently.
///
/// # Errors
/// `22001` value too long, `22003` numeric field overflow.
pub fn coerce_typmod(value: Datum, type_oid: Oid, typmod: i32, explicit: bool) -> Result<Datum, SqlError> {
    let _ = (type_oid, typmod, explicit);
    Ok(value)
}

/// A type name in SQL's spelling (`integer[]`, `character varying(10)`, `pg_catalog.int4`), as `regtype` input and casts read it.
///
/// # Errors
/// `42704` when there is no such type.
pub fn parse_type(s: &str, io: &IoSettings) -> Result<(Oid, i32), SqlError> {
    let _ = io;
    Err(SqlError::new(crate::sqlstate::SqlState::UNDEFINED_OBJECT, format!("type \"{s}\" does not exist")))
}
