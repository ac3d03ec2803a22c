//! Values: their types, text and binary forms, order, and how they lie in rows and index keys.
//!
//! [`Datum`] is one value; what type it is travels beside it as an OID, since several types share a representation
//! (`text`, `varchar`, `name` are all [`Datum::Text`]). `pg_type` is one table ([`registry`]), with PostgreSQL's OIDs.

pub mod array;
pub mod bits;
pub mod compare;
pub mod datetime;
pub mod datum;
pub mod float;
pub mod inet;
pub mod interval;
pub mod io;
pub mod json;
pub mod key;
pub mod names;
pub mod numeric;
pub mod oids;
pub mod packed;
pub mod range;
pub mod record;
pub mod registry;
pub mod row;
pub mod scalar;
pub mod settings;
pub mod stored;
pub mod typmod;

pub use array::ArrayValue;
pub use compare::{compare, hash};
pub use datum::{Datum, Inet, Interval, RangeValue, RecordValue, Text, Tid};
pub use io::{binary_recv, binary_send, text_in, text_out};
pub use numeric::Numeric;
pub use packed::{Compression, Held, Packed, Pointer, ToastTable};
pub use registry::{TypeEntry, type_by_name, type_by_oid};
pub use row::{ColDesc, TupleDesc};
pub use settings::{ByteaOutput, DateOrder, DateStyle, IntervalStyle, IoSettings, NameLookup, ObjectKind};
pub use stored::Repr;
pub use typmod::format_type;

/// PostgreSQL's object identifier.
pub type Oid = u32;
