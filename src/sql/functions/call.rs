//! What a function body is given.

use std::sync::Arc;

use smallvec::SmallVec;

use super::registry::ProcEntry;
use crate::sql::types::{Datum, IoSettings, Oid, Text};
use crate::sqlstate::{SqlError, SqlState};

/// Body of a function that returns one value. Strict functions never see NULL: [`ProcEntry::invoke`] answers before.
pub type ScalarFn = fn(&mut Call<'_>, &[Datum]) -> Result<Datum, SqlError>;

/// Body of a set-returning function.
pub type SetFn = fn(&mut Call<'_>, &[Datum]) -> Result<SetRows, SqlError>;

/// Rows of a set-returning function: plain values, or [`Datum::Record`] when it has several OUT columns.
pub type SetRows = Box<dyn Iterator<Item = Result<Datum, SqlError>> + Send>;

/// One call: the session's facts, and the types the binder chose.
pub struct Call<'a> {
    /// The session.
    pub ctx: &'a mut dyn FnCtx,
    /// Types at this call site.
    pub types: &'a CallTypes,
}

/// Actual types at a call site, fixed when the expression was bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallTypes {
    /// The function, for [`FnCtx::external`].
    pub func: Oid,
    /// Actual argument types, after coercion.
    pub args: SmallVec<[Oid; 4]>,
    /// Result type.
    pub result: Oid,
    /// The call was written with VARIADIC, or the function's variadic arguments were gathered into an array.
    pub variadic_array: bool,
}

impl Call<'_> {
    /// Text input and output settings.
    pub fn io(&self) -> &IoSettings {
        self.ctx.io()
    }

    /// Actual type of an argument.
    pub fn arg_type(&self, i: usize) -> Oid {
        self.types.args.get(i).copied().unwrap_or(0)
    }
}

/// Most bytes a value may have: PostgreSQL's largest allocation, less the length word before a value.
pub const MAX_VALUE_BYTES: usize = 0x3fff_ffff - 4;

/// Whether `more` bytes may be added to a string of `have`.
///
/// # Errors
/// 54000. PostgreSQL: `enlargeStringInfo` in common/stringinfo.c.
pub fn enlarged(have: usize, more: usize) -> Result<(), SqlError> {
    if have.saturating_add(more) <= MAX_VALUE_BYTES {
        return Ok(());
    }
    Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "out of memory")
        .detail(format!("Cannot enlarge string buffer containing {have} bytes by {more} more bytes.")))
}

/// A value that is not too large.
///
/// # Errors
/// XX000, as PostgreSQL's allocator.
#[inline]
pub fn fitting(value: Datum) -> Result<Datum, SqlError> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these grow by what functions do")]
    let bytes = match &value {
        Datum::Text(t) => t.len(),
        Datum::Bytea(b) => b.len(),
        _ => 0,
    };
    if bytes <= MAX_VALUE_BYTES { Ok(value) } else { Err(SqlError::internal(format!("invalid memory alloc request size {}", bytes + 4))) }
}

/// What functions may ask of the session. The executor's context implements it.
pub trait FnCtx {
    /// Settings for text forms, and catalog names.
    fn io(&self) -> &IoSettings;

    /// `now()`: start of the transaction, microseconds from 2000-01-01 UTC.
    fn transaction_timestamp(&self) -> i64 {
        self.io().now
    }

    /// `statement_timestamp()`.
    fn statement_timestamp(&self) -> i64 {
        self.transaction_timestamp()
    }

    /// `clock_timestamp()`.
    fn clock_timestamp(&self) -> i64 {
        system_clock_micros()
    }

    /// `current_user`.
    fn current_user(&self) -> Text {
        Text::from("")
    }

    /// `session_user`.
    fn session_user(&self) -> Text {
        self.current_user()
    }

    /// `current_database()`.
    fn current_database(&self) -> Text {
        Text::from("")
    }

    /// Schemas of the search path that exist; `pg_catalog` (and the like) only when `implicit`.
    fn current_schemas(&self, implicit: bool) -> Vec<Text> {
        let _ = implicit;
        Vec::new()
    }

    /// `pg_backend_pid()`.
    fn backend_pid(&self) -> i32 {
        i32::try_from(std::process::id()).unwrap_or(0)
    }

    /// `current_setting(name)`; `None` when there is no such setting.
    ///
    /// # Errors
    /// `42501` when the setting may not be read.
    fn setting(&self, name: &str) -> Result<Option<String>, SqlError> {
        let _ = name;
        Ok(None)
    }

    /// `set_config(name, value, is_local)`: the value as it then reads.
    ///
    /// # Errors
    /// What SET would fail with.
    fn set_setting(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<String, SqlError> {
        let _ = (value, local);
        Err(SqlError::unsupported(format_args!("set_config(\"{name}\") here")))
    }

    /// `random()`: uniform in [0, 1).
    fn random(&mut self) -> f64 {
        rand::random()
    }

    /// `setseed()`.
    ///
    /// # Errors
    /// `0A000` unless implemented.
    fn set_seed(&mut self, seed: f64) -> Result<(), SqlError> {
        let _ = seed;
        Err(SqlError::unsupported("setseed()"))
    }

    /// Has the statement been cancelled?
    ///
    /// # Errors
    /// `57014` when it has.
    fn check_cancel(&self) -> Result<(), SqlError> {
        Ok(())
    }

    /// A function that needs more than values: catalogs, WAL, sequences, other sessions. Keyed by `func.source` (`prosrc`).
    ///
    /// # Errors
    /// `0A000` for functions nobody implements, and the function's own.
    fn external(&mut self, func: &'static ProcEntry, types: &CallTypes, args: &[Datum]) -> Result<Datum, SqlError> {
        let _ = (types, args);
        Err(not_implemented(func))
    }

    /// The set-returning ones of the same.
    ///
    /// # Errors
    /// `0A000` for functions nobody implements, and the function's own.
    fn external_set(&mut self, func: &'static ProcEntry, types: &CallTypes, args: &[Datum]) -> Result<SetRows, SqlError> {
        let _ = (types, args);
        Err(not_implemented(func))
    }
}

/// `0A000` for a function that has no body.
pub fn not_implemented(func: &ProcEntry) -> SqlError {
    SqlError::unsupported(format_args!("function {}", func.signature()))
}

/// Microseconds from 2000-01-01 UTC, now.
pub fn system_clock_micros() -> i64 {
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_micros());
    i64::try_from(unix).unwrap_or(i64::MAX) - 946_684_800_000_000
}

/// A context with settings and nothing else: constant folding, tests.
#[derive(Debug, Default)]
pub struct PlainCtx {
    /// Settings.
    pub io: Arc<IoSettings>,
}

impl FnCtx for PlainCtx {
    fn io(&self) -> &IoSettings {
        &self.io
    }
}
