//! `json` and `jsonb`.

use super::{Numeric, Text};

/// A parsed JSON value, as `jsonb` keeps it: object keys unique and sorted by length, then bytes.
#[derive(Clone, Debug)]
pub enum Json {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A number, exact.
    Number(Numeric),
    /// A string.
    String(Text),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Vec<(Text, Json)>),
}
