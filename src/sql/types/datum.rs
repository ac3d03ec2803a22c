//! One SQL value.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use super::{ArrayValue, Numeric, Oid, TupleDesc};
use crate::sqlstate::SqlError;

/// A value of some SQL type. Cloning never copies more than 24 bytes.
#[derive(Clone, Debug, Default)]
pub enum Datum {
    /// SQL NULL, of any type.
    #[default]
    Null,
    /// `bool`.
    Bool(bool),
    /// `"char"`: one byte.
    Char(u8),
    /// `int2`.
    Int2(i16),
    /// `int4`.
    Int4(i32),
    /// `int8`, `money`.
    Int8(i64),
    /// `oid`, `regclass` and its kin, `xid`, `cid`.
    Oid(Oid),
    /// `xid8`.
    Xid8(u64),
    /// `float4`.
    Float4(f32),
    /// `float8`.
    Float8(f64),
    /// `numeric`.
    Numeric(Numeric),
    /// `text`, `varchar`, `bpchar`, `name`, `unknown`, `cstring`, `json`, `xml`, `refcursor`.
    Text(Text),
    /// `bytea`.
    Bytea(Arc<[u8]>),
    /// `date`: days from 2000-01-01; `i32::MIN` and `i32::MAX` are the infinities.
    Date(i32),
    /// `time`: microseconds from midnight.
    Time(i64),
    /// `timetz`: microseconds from midnight, and the zone in seconds west of UTC.
    TimeTz(i64, i32),
    /// `timestamp`: microseconds from 2000-01-01; `i64::MIN` and `i64::MAX` are the infinities.
    Timestamp(i64),
    /// `timestamptz`: microseconds from 2000-01-01 UTC; infinities as for `timestamp`.
    TimestampTz(i64),
    /// `interval`.
    Interval(Interval),
    /// `pg_lsn`.
    Lsn(u64),
    /// `tid`.
    Tid(Tid),
    /// `uuid`.
    Uuid([u8; 16]),
    /// `jsonb`.
    Jsonb(Arc<super::json::Json>),
    /// `inet`, `cidr`.
    Inet(Arc<Inet>),
    /// `macaddr` (6 significant bytes), `macaddr8`.
    MacAddr([u8; 8]),
    /// `bit`, `varbit`.
    Bits(Arc<super::bits::BitString>),
    /// Any array, `int2vector`, `oidvector`.
    Array(Arc<ArrayValue>),
    /// Any range.
    Range(Arc<RangeValue>),
    /// A row: `record` or a composite type.
    Record(Arc<RecordValue>),
    /// `void`: a function that returns nothing.
    Void,
    /// A value of a row that is still compressed or out of line. Expressions and output never see one.
    Packed(Arc<super::packed::Packed>),
}

/// An immutable string, cheap to clone. Its bytes are valid UTF-8 without NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Arc<str>);

/// Months, days and microseconds, kept apart as PostgreSQL does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interval {
    /// Months, years included.
    pub months: i32,
    /// Days.
    pub days: i32,
    /// Microseconds.
    pub micros: i64,
}

/// Where a row version lies: block and 1-based line pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid {
    /// Block of the relation.
    pub block: u32,
    /// Line pointer, from 1.
    pub offset: u16,
}

/// A network address with its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Inet {
    /// The address.
    pub addr: IpAddr,
    /// Bits of the network part.
    pub prefix: u8,
}

/// A range of some element type.
#[derive(Clone, Debug)]
pub struct RangeValue {
    /// The element type.
    pub subtype: Oid,
    /// `None` when the range is empty.
    pub bounds: Option<RangeBounds>,
}

/// Both ends of a range that is not empty. NULL is "unbounded".
#[derive(Clone, Debug)]
pub struct RangeBounds {
    /// Lower bound.
    pub lower: Datum,
    /// Whether the lower bound belongs to the range.
    pub lower_inc: bool,
    /// Upper bound.
    pub upper: Datum,
    /// Whether the upper bound belongs to the range.
    pub upper_inc: bool,
}

/// A row as a value, with the description of its columns.
#[derive(Clone, Debug)]
pub struct RecordValue {
    /// The composite type, or `record`.
    pub type_oid: Oid,
    /// Columns.
    pub desc: Arc<TupleDesc>,
    /// One value per column.
    pub values: Box<[Datum]>,
}

macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident, $variant:ident, $ty:ty;)*) => {
        $($(#[$doc])*
        ///
        /// # Errors
        /// `XX000` when the value has another representation: the caller resolved to the wrong function.
        #[inline]
        pub fn $name(&self) -> Result<$ty, SqlError> {
            if let Self::$variant(v) = self { Ok(*v) } else { Err(self.mismatch(stringify!($variant))) }
        })*
    };
}

impl Datum {
    /// A `text`-like value.
    #[inline]
    pub fn text(s: impl AsRef<str>) -> Self {
        Self::Text(Text::from(s.as_ref()))
    }

    /// A `bytea` value.
    #[inline]
    pub fn bytea(b: impl AsRef<[u8]>) -> Self {
        Self::Bytea(Arc::from(b.as_ref()))
    }

    /// An array value.
    pub fn array(a: ArrayValue) -> Self {
        Self::Array(Arc::new(a))
    }

    /// Is it NULL?
    #[inline]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Is it `true`? NULL counts as not true, as in WHERE.
    #[inline]
    pub fn is_true(&self) -> bool {
        matches!(self, Self::Bool(true))
    }

    accessors! {
        /// The value of a `bool`.
        as_bool, Bool, bool;
        /// The value of a `"char"`.
        as_char, Char, u8;
        /// The value of an `int2`.
        as_i16, Int2, i16;
        /// The value of an `int4`.
        as_i32, Int4, i32;
        /// The value of an `int8`.
        as_i64, Int8, i64;
        /// The value of an `oid` or `reg*`.
        as_oid, Oid, Oid;
        /// The value of an `xid8`.
        as_xid8, Xid8, u64;
        /// The value of a `float4`.
        as_f32, Float4, f32;
        /// The value of a `float8`.
        as_f64, Float8, f64;
        /// The value of a `date`.
        as_date, Date, i32;
        /// The value of a `time`.
        as_time, Time, i64;
        /// The value of a `timestamp`.
        as_timestamp, Timestamp, i64;
        /// The value of a `timestamptz`.
        as_timestamptz, TimestampTz, i64;
        /// The value of an `interval`.
        as_interval, Interval, Interval;
        /// The value of a `pg_lsn`.
        as_lsn, Lsn, u64;
        /// The value of a `tid`.
        as_tid, Tid, Tid;
        /// The value of a `uuid`.
        as_uuid, Uuid, [u8; 16];
    }

    /// The string of a `text`-like value.
    ///
    /// # Errors
    /// `XX000` when it is not one.
    #[inline]
    pub fn as_str(&self) -> Result<&str, SqlError> {
        if let Self::Text(t) = self { Ok(t) } else { Err(self.mismatch("Text")) }
    }

    /// The bytes of a `bytea`.
    ///
    /// # Errors
    /// `XX000` when it is not one.
    #[inline]
    pub fn as_bytes(&self) -> Result<&[u8], SqlError> {
        if let Self::Bytea(b) = self { Ok(b) } else { Err(self.mismatch("Bytea")) }
    }

    /// The value of a `numeric`.
    ///
    /// # Errors
    /// `XX000` when it is not one.
    #[inline]
    pub fn as_numeric(&self) -> Result<&Numeric, SqlError> {
        if let Self::Numeric(n) = self { Ok(n) } else { Err(self.mismatch("Numeric")) }
    }

    /// The array.
    ///
    /// # Errors
    /// `XX000` when it is not one.
    #[inline]
    pub fn as_array(&self) -> Result<&Arc<ArrayValue>, SqlError> {
        if let Self::Array(a) = self { Ok(a) } else { Err(self.mismatch("Array")) }
    }

    /// The row.
    ///
    /// # Errors
    /// `XX000` when it is not one.
    #[inline]
    pub fn as_record(&self) -> Result<&Arc<RecordValue>, SqlError> {
        if let Self::Record(r) = self { Ok(r) } else { Err(self.mismatch("Record")) }
    }

    #[cold]
    pub(crate) fn mismatch(&self, wanted: &str) -> SqlError {
        SqlError::internal(format!("expected a value of representation {wanted}, found {self:?}"))
    }
}

impl Text {
    /// The string.
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Text {
    type Target = str;
    #[inline]
    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    #[inline]
    fn from(s: &str) -> Self {
        Self(Arc::from(s))
    }
}

impl From<String> for Text {
    #[inline]
    fn from(s: String) -> Self {
        Self(Arc::from(s))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<bool> for Datum {
    #[inline]
    fn from(v: bool) -> Self {
        Self::Bool(v)
    }
}

impl From<i16> for Datum {
    #[inline]
    fn from(v: i16) -> Self {
        Self::Int2(v)
    }
}

impl From<i32> for Datum {
    #[inline]
    fn from(v: i32) -> Self {
        Self::Int4(v)
    }
}

impl From<i64> for Datum {
    #[inline]
    fn from(v: i64) -> Self {
        Self::Int8(v)
    }
}

impl From<f64> for Datum {
    #[inline]
    fn from(v: f64) -> Self {
        Self::Float8(v)
    }
}

impl From<&str> for Datum {
    #[inline]
    fn from(v: &str) -> Self {
        Self::Text(v.into())
    }
}

impl From<String> for Datum {
    #[inline]
    fn from(v: String) -> Self {
        Self::Text(v.into())
    }
}

impl From<Numeric> for Datum {
    #[inline]
    fn from(v: Numeric) -> Self {
        Self::Numeric(v)
    }
}

impl<T: Into<Datum>> From<Option<T>> for Datum {
    #[inline]
    fn from(v: Option<T>) -> Self {
        v.map_or(Self::Null, Into::into)
    }
}

const _: () = assert!(size_of::<Datum>() <= 24);
