//! Text and binary forms of every type.

use super::{Datum, IoSettings, Oid};
use crate::sqlstate::SqlError;

/// Reads a value from its text form (`typinput`) and applies the type modifier.
///
/// # Errors
/// PostgreSQL's: `22P02` bad syntax, `22003`/`22008` out of range, `22001` too long, ...
pub fn text_in(type_oid: Oid, typmod: i32, s: &str, io: &IoSettings) -> Result<Datum, SqlError> {
    let _ = (typmod, s, io);
    Err(SqlError::unsupported(format_args!("input of type {type_oid}")))
}

/// Appends a value's text form (`typoutput`). The value is not NULL.
///
/// # Errors
/// `0A000` for types without text output; catalog errors for `regclass` and its kin.
pub fn text_out(value: &Datum, type_oid: Oid, out: &mut Vec<u8>, io: &IoSettings) -> Result<(), SqlError> {
    let _ = (value, out, io);
    Err(SqlError::unsupported(format_args!("output of type {type_oid}")))
}

/// Reads a value from its binary form (`typreceive`) and applies the type modifier.
///
/// # Errors
/// `22P03` and the type's own.
pub fn binary_recv(type_oid: Oid, typmod: i32, bytes: &[u8], io: &IoSettings) -> Result<Datum, SqlError> {
    let _ = (typmod, bytes, io);
    Err(SqlError::unsupported(format_args!("binary input of type {type_oid}")))
}

/// Appends a value's binary form (`typsend`). The value is not NULL.
///
/// # Errors
/// `42883` for types without binary output.
pub fn binary_send(value: &Datum, type_oid: Oid, out: &mut Vec<u8>) -> Result<(), SqlError> {
    let _ = (value, out);
    Err(SqlError::unsupported(format_args!("binary output of type {type_oid}")))
}
