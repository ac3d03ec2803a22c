//! The session settings that values' text forms depend on.

use std::fmt;
use std::sync::Arc;

use jiff::tz::TimeZone;

use super::Oid;
use crate::sqlstate::SqlError;

/// First half of `DateStyle`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DateStyle {
    /// `2024-01-31 10:20:30`.
    #[default]
    Iso,
    /// `01/31/2024 10:20:30`.
    Sql,
    /// `Wed Jan 31 10:20:30 2024`.
    Postgres,
    /// `31.01.2024 10:20:30`.
    German,
}

/// Second half of `DateStyle`: how an ambiguous date is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DateOrder {
    /// Month, day, year.
    #[default]
    Mdy,
    /// Day, month, year.
    Dmy,
    /// Year, month, day.
    Ymd,
}

/// `IntervalStyle`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IntervalStyle {
    /// `1 year 2 mons 3 days 04:05:06`.
    #[default]
    Postgres,
    /// `@ 1 year 2 mons 3 days 4 hours 5 mins 6 secs`.
    PostgresVerbose,
    /// `+1-2 +3 +4:05:06`.
    SqlStandard,
    /// `P1Y2M3DT4H5M6S`.
    Iso8601,
}

/// `bytea_output`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ByteaOutput {
    /// `\xdeadbeef`.
    #[default]
    Hex,
    /// Octal escapes.
    Escape,
}

/// Settings and lookups that reading and writing values depends on. Cheap to clone.
#[derive(Clone)]
pub struct IoSettings {
    /// `DateStyle`, output.
    pub date_style: DateStyle,
    /// `DateStyle`, input order.
    pub date_order: DateOrder,
    /// `IntervalStyle`.
    pub interval_style: IntervalStyle,
    /// `bytea_output`.
    pub bytea_output: ByteaOutput,
    /// `extra_float_digits`.
    pub extra_float_digits: i32,
    /// `TimeZone`.
    pub time_zone: TimeZone,
    /// `TimeZone` as `SHOW` prints it.
    pub time_zone_name: Arc<str>,
    /// What `now`, `today` mean on input: transaction start, microseconds from 2000-01-01 UTC.
    pub now: i64,
    /// Names of catalog objects, for `regclass` and its kin; `None` reads and writes them as numbers only.
    pub names: Option<Arc<dyn NameLookup>>,
}

impl Default for IoSettings {
    fn default() -> Self {
        Self {
            date_style: DateStyle::Iso,
            date_order: DateOrder::Mdy,
            interval_style: IntervalStyle::Postgres,
            bytea_output: ByteaOutput::Hex,
            extra_float_digits: 1,
            time_zone: TimeZone::UTC,
            time_zone_name: Arc::from("UTC"),
            now: 0,
            names: None,
        }
    }
}

impl fmt::Debug for IoSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoSettings")
            .field("date_style", &self.date_style)
            .field("date_order", &self.date_order)
            .field("time_zone", &self.time_zone_name)
            .finish_non_exhaustive()
    }
}

/// Which catalog a name is looked up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// Tables, indexes, sequences, views: `regclass`.
    Relation,
    /// Types, tables' row types: `regtype`. Built-in ones are answered without asking.
    Type,
    /// `regnamespace`.
    Namespace,
    /// `regrole`.
    Role,
    /// `regcollation`.
    Collation,
    /// Functions made by users: `regproc`, `regprocedure`. Built-in ones are answered without asking.
    Function,
}

/// Catalog names, as the session that reads or writes a value sees them. The catalog implements it.
pub trait NameLookup: Send + Sync {
    /// The object a possibly qualified name (already split and folded) means, along the search path.
    ///
    /// # Errors
    /// What reading the catalog failed with. "Not found" is `Ok(None)`.
    fn oid_of(&self, kind: ObjectKind, schema: Option<&str>, name: &str) -> Result<Option<Oid>, SqlError>;

    /// Functions made by users under a name: OID and argument types, those of earlier schemas first.
    ///
    /// # Errors
    /// What reading the catalog failed with.
    fn functions_named(&self, schema: Option<&str>, name: &str) -> Result<Vec<(Oid, Vec<Oid>)>, SqlError> {
        let _ = (schema, name);
        Ok(Vec::new())
    }

    /// Argument types of a function made by a user.
    ///
    /// # Errors
    /// What reading the catalog failed with.
    fn arguments_of(&self, function: Oid) -> Result<Option<Vec<Oid>>, SqlError> {
        let _ = function;
        Ok(None)
    }

    /// Name of an object: its schema, when it must be written for the name to be found, and its name.
    ///
    /// # Errors
    /// What reading the catalog failed with. "Not found" is `Ok(None)`.
    fn name_of(&self, kind: ObjectKind, oid: Oid) -> Result<Option<(Option<String>, String)>, SqlError>;

    /// The array type over a type made by a user.
    fn array_type_of(&self, elem: Oid) -> Option<Oid> {
        let _ = elem;
        None
    }

    /// Is this type, made by a user, an array type?
    fn is_array_type(&self, oid: Oid) -> bool {
        let _ = oid;
        false
    }

    /// Columns of a composite type, for reading its text form.
    ///
    /// # Errors
    /// What reading the catalog failed with. "Not found" is `Ok(None)`.
    fn composite(&self, oid: Oid) -> Result<Option<Arc<super::TupleDesc>>, SqlError> {
        let _ = oid;
        Ok(None)
    }
}
