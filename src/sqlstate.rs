//! SQLSTATE constants, the error a client sees, and its mapping from every layer's error.
//!
//! Each layer has its own `thiserror` enum; here a `match` without `_` gives each variant its SQLSTATE and its reach.

use std::fmt;

use afterimage_wal::WalError;

use crate::access::AccessError;
use crate::control::error::ControlError;
use crate::engine::EngineError;
use crate::recovery::RecoveryError;
use crate::storage::StorageError;
use crate::txn::cancel::Conflict;
use crate::txn::{CancelReason, TxnError};

/// Five characters, as PostgreSQL's errcodes.txt lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SqlState(pub &'static str);

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

macro_rules! sqlstates {
    ($($name:ident = $code:literal;)*) => {
        impl SqlState {
            $(#[doc = concat!("SQLSTATE ", $code, ".")] pub const $name: Self = Self($code);)*
            /// The constant with this code, if it is one of ours.
            pub fn from_code(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
        }
    };
}

sqlstates! {
    SUCCESSFUL_COMPLETION = "00000";
    WARNING = "01000";
    NO_DATA = "02000";
    CONNECTION_FAILURE = "08006";
    PROTOCOL_VIOLATION = "08P01";
    FEATURE_NOT_SUPPORTED = "0A000";
    CARDINALITY_VIOLATION = "21000";
    CASE_NOT_FOUND = "20000";
    DATA_EXCEPTION = "22000";
    STRING_DATA_RIGHT_TRUNCATION = "22001";
    NUMERIC_VALUE_OUT_OF_RANGE = "22003";
    NULL_VALUE_NOT_ALLOWED = "22004";
    SEQUENCE_GENERATOR_LIMIT_EXCEEDED = "2200H";
    INVALID_DATETIME_FORMAT = "22007";
    DATETIME_FIELD_OVERFLOW = "22008";
    INVALID_TIME_ZONE_DISPLACEMENT_VALUE = "22009";
    SUBSTRING_ERROR = "22011";
    DIVISION_BY_ZERO = "22012";
    INVALID_PRECEDING_OR_FOLLOWING_SIZE = "22013";
    INTERVAL_FIELD_OVERFLOW = "22015";
    INVALID_ARGUMENT_FOR_LOG = "2201E";
    INVALID_ARGUMENT_FOR_POWER_FUNCTION = "2201F";
    INVALID_REGULAR_EXPRESSION = "2201B";
    INVALID_ROW_COUNT_IN_LIMIT_CLAUSE = "2201W";
    INVALID_ROW_COUNT_IN_RESULT_OFFSET_CLAUSE = "2201X";
    CHARACTER_NOT_IN_REPERTOIRE = "22021";
    INVALID_PARAMETER_VALUE = "22023";
    INVALID_ESCAPE_SEQUENCE = "22025";
    ERROR_IN_ASSIGNMENT = "22005";
    ARRAY_SUBSCRIPT_ERROR = "2202E";
    FLOATING_POINT_EXCEPTION = "22P01";
    INVALID_TEXT_REPRESENTATION = "22P02";
    INVALID_BINARY_REPRESENTATION = "22P03";
    BAD_COPY_FILE_FORMAT = "22P04";
    UNTRANSLATABLE_CHARACTER = "22P05";
    INTEGRITY_CONSTRAINT_VIOLATION = "23000";
    NOT_NULL_VIOLATION = "23502";
    FOREIGN_KEY_VIOLATION = "23503";
    UNIQUE_VIOLATION = "23505";
    CHECK_VIOLATION = "23514";
    INVALID_CURSOR_STATE = "24000";
    INVALID_TRANSACTION_STATE = "25000";
    ACTIVE_SQL_TRANSACTION = "25001";
    READ_ONLY_SQL_TRANSACTION = "25006";
    NO_ACTIVE_SQL_TRANSACTION = "25P01";
    IN_FAILED_SQL_TRANSACTION = "25P02";
    IDLE_IN_TRANSACTION_SESSION_TIMEOUT = "25P03";
    INVALID_SQL_STATEMENT_NAME = "26000";
    INVALID_GRANT_OPERATION = "0LP01";
    INVALID_AUTHORIZATION_SPECIFICATION = "28000";
    INVALID_PASSWORD = "28P01";
    DEPENDENT_OBJECTS_STILL_EXIST = "2BP01";
    INVALID_TRANSACTION_TERMINATION = "2D000";
    TRIGGERED_DATA_CHANGE_VIOLATION = "27000";
    FUNCTION_EXECUTED_NO_RETURN_STATEMENT = "2F005";
    STACKED_DIAGNOSTICS_ACCESSED_WITHOUT_ACTIVE_HANDLER = "0Z002";
    INVALID_CURSOR_NAME = "34000";
    S_E_INVALID_SPECIFICATION = "3B001";
    INVALID_CATALOG_NAME = "3D000";
    INVALID_SCHEMA_NAME = "3F000";
    SERIALIZATION_FAILURE = "40001";
    DEADLOCK_DETECTED = "40P01";
    STATEMENT_COMPLETION_UNKNOWN = "40003";
    SYNTAX_ERROR = "42601";
    INSUFFICIENT_PRIVILEGE = "42501";
    CANNOT_COERCE = "42846";
    GROUPING_ERROR = "42803";
    WINDOWING_ERROR = "42P20";
    INVALID_RECURSION = "42P19";
    INVALID_FOREIGN_KEY = "42830";
    INVALID_NAME = "42602";
    NAME_TOO_LONG = "42622";
    RESERVED_NAME = "42939";
    DATATYPE_MISMATCH = "42804";
    INDETERMINATE_DATATYPE = "42P18";
    COLLATION_MISMATCH = "42P21";
    WRONG_OBJECT_TYPE = "42809";
    UNDEFINED_COLUMN = "42703";
    UNDEFINED_FUNCTION = "42883";
    UNDEFINED_TABLE = "42P01";
    UNDEFINED_PARAMETER = "42P02";
    UNDEFINED_OBJECT = "42704";
    DUPLICATE_COLUMN = "42701";
    DUPLICATE_CURSOR = "42P03";
    DUPLICATE_DATABASE = "42P04";
    DUPLICATE_FUNCTION = "42723";
    DUPLICATE_PREPARED_STATEMENT = "42P05";
    DUPLICATE_SCHEMA = "42P06";
    DUPLICATE_TABLE = "42P07";
    DUPLICATE_ALIAS = "42712";
    DUPLICATE_OBJECT = "42710";
    AMBIGUOUS_COLUMN = "42702";
    AMBIGUOUS_FUNCTION = "42725";
    AMBIGUOUS_PARAMETER = "42P08";
    AMBIGUOUS_ALIAS = "42P09";
    INVALID_COLUMN_REFERENCE = "42P10";
    INVALID_COLUMN_DEFINITION = "42611";
    INVALID_CURSOR_DEFINITION = "42P11";
    INVALID_DATABASE_DEFINITION = "42P12";
    INVALID_FUNCTION_DEFINITION = "42P13";
    INVALID_PREPARED_STATEMENT_DEFINITION = "42P14";
    INVALID_SCHEMA_DEFINITION = "42P15";
    INVALID_TABLE_DEFINITION = "42P16";
    INVALID_OBJECT_DEFINITION = "42P17";
    INSUFFICIENT_RESOURCES = "53000";
    DISK_FULL = "53100";
    OUT_OF_MEMORY = "53200";
    TOO_MANY_CONNECTIONS = "53300";
    CONFIGURATION_LIMIT_EXCEEDED = "53400";
    PROGRAM_LIMIT_EXCEEDED = "54000";
    STATEMENT_TOO_COMPLEX = "54001";
    TOO_MANY_COLUMNS = "54011";
    TOO_MANY_ARGUMENTS = "54023";
    OBJECT_NOT_IN_PREREQUISITE_STATE = "55000";
    OBJECT_IN_USE = "55006";
    CANT_CHANGE_RUNTIME_PARAM = "55P02";
    LOCK_NOT_AVAILABLE = "55P03";
    QUERY_CANCELED = "57014";
    ADMIN_SHUTDOWN = "57P01";
    CRASH_SHUTDOWN = "57P02";
    CANNOT_CONNECT_NOW = "57P03";
    DATABASE_DROPPED = "57P04";
    IDLE_SESSION_TIMEOUT = "57P05";
    IO_ERROR = "58030";
    UNDEFINED_FILE = "58P01";
    DUPLICATE_FILE = "58P02";
    CONFIG_FILE_ERROR = "F0000";
    RAISE_EXCEPTION = "P0001";
    NO_DATA_FOUND = "P0002";
    TOO_MANY_ROWS = "P0003";
    ASSERT_FAILURE = "P0004";
    INTERNAL_ERROR = "XX000";
    DATA_CORRUPTED = "XX001";
    INDEX_CORRUPTED = "XX002";
}

impl SqlState {
    /// Any five characters, as a function may raise them. Codes of no constant are kept for the life of the process, once each.
    pub fn custom(code: &str) -> Self {
        static KNOWN: std::sync::Mutex<std::collections::BTreeSet<&'static str>> = std::sync::Mutex::new(std::collections::BTreeSet::new());
        if let Some(known) = Self::from_code(code) {
            return known;
        }
        let mut known = KNOWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(found) = known.get(code) {
            return Self(found);
        }
        let kept: &'static str = String::leak(code.to_owned());
        known.insert(kept);
        Self(kept)
    }
}

/// How far an error reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// `ERROR`: the statement and its transaction.
    Statement,
    /// `FATAL`: the session.
    Session,
    /// `PANIC`: the node stops and recovers from what is on disk.
    Node,
}

/// An error on its way to a client. Boxed inside, so that `Result<T, SqlError>` stays small.
#[derive(Clone, Debug)]
pub struct SqlError(Box<ErrorFields>);

/// The fields of an ErrorResponse (PostgreSQL protocol, "Error and Notice Message Fields").
#[derive(Clone, Debug)]
pub struct ErrorFields {
    /// SQLSTATE.
    pub state: SqlState,
    /// What it ends.
    pub reach: Reach,
    /// Primary message.
    pub message: String,
    /// DETAIL.
    pub detail: Option<String>,
    /// HINT.
    pub hint: Option<String>,
    /// Where in the statement, 1-based, in characters.
    pub position: Option<u32>,
    /// CONTEXT.
    pub context: Option<String>,
    /// The statement inside a function it happened in.
    pub internal_query: Option<String>,
    /// Where in that statement, as `position`.
    pub internal_position: Option<u32>,
    /// Schema, table, column, data type, constraint names, for constraint errors.
    pub schema: Option<String>,
    /// Table name.
    pub table: Option<String>,
    /// Column name.
    pub column: Option<String>,
    /// Constraint name.
    pub constraint: Option<String>,
}

impl SqlError {
    /// An `ERROR` with this SQLSTATE and message.
    pub fn new(state: SqlState, message: impl Into<String>) -> Self {
        Self(Box::new(ErrorFields {
            state,
            reach: Reach::Statement,
            message: without_errno(message.into()),
            detail: None,
            hint: None,
            position: None,
            context: None,
            internal_query: None,
            internal_position: None,
            schema: None,
            table: None,
            column: None,
            constraint: None,
        }))
    }

    /// `0A000` for something PostgreSQL has and this build does not.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::new(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} is not supported"))
    }

    /// `XX000`: a bug here, reported, not hidden.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(SqlState::INTERNAL_ERROR, message)
    }

    /// Makes it end the session.
    #[must_use]
    pub fn fatal(mut self) -> Self {
        self.0.reach = Reach::Session;
        self
    }

    /// Makes it stop the node.
    #[must_use]
    pub fn panic(mut self) -> Self {
        self.0.reach = Reach::Node;
        self
    }

    /// Adds DETAIL.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// With another message, made of the one it has.
    #[must_use]
    pub fn with_message(mut self, f: impl FnOnce(&str) -> String) -> Self {
        self.0.message = f(&self.0.message);
        self
    }

    /// Adds HINT.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds CONTEXT.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.0.context = Some(context.into());
        self
    }

    /// Adds the statement position (1-based, characters) unless one is known already.
    #[must_use]
    pub fn at(mut self, position: u32) -> Self {
        self.0.position.get_or_insert(position);
        self
    }

    /// Gives it another position.
    #[must_use]
    pub fn moved(mut self, position: u32) -> Self {
        self.0.position = Some(position);
        self
    }

    /// Makes its position one in a statement inside a function, of which `skipped` bytes nobody wrote.
    #[must_use]
    pub fn inside(mut self, statement: &str, skipped: u32) -> Self {
        self.0.internal_position = self.0.position.take().and_then(|p| p.checked_sub(skipped));
        self.0.internal_query = Some(statement.to_owned());
        self
    }

    /// Names what it is about.
    #[must_use]
    pub fn named(mut self, schema: Option<String>, table: Option<String>, column: Option<String>, constraint: Option<String>) -> Self {
        (self.0.schema, self.0.table, self.0.column, self.0.constraint) = (schema, table, column, constraint);
        self
    }

    /// Names the constraint and its table.
    #[must_use]
    pub fn constraint(mut self, schema: &str, table: &str, constraint: &str) -> Self {
        self.0.schema = Some(schema.to_owned());
        self.0.table = Some(table.to_owned());
        self.0.constraint = Some(constraint.to_owned());
        self
    }

    /// Names the column.
    #[must_use]
    pub fn column(mut self, schema: &str, table: &str, column: &str) -> Self {
        self.0.schema = Some(schema.to_owned());
        self.0.table = Some(table.to_owned());
        self.0.column = Some(column.to_owned());
        self
    }

    /// SQLSTATE.
    pub fn state(&self) -> SqlState {
        self.0.state
    }

    /// All fields.
    pub fn fields(&self) -> &ErrorFields {
        &self.0
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for SqlError {}

/// The message without the number that the standard library adds to the system's words.
pub(crate) fn without_errno(mut message: String) -> String {
    while let Some(at) = message.find(" (os error ") {
        let Some(len) = message.get(at..).and_then(|rest| rest.find(')')) else { break };
        message.replace_range(at..=at + len, "");
    }
    message
}

/// The SQLSTATE of a failure on a file.
///
/// PostgreSQL: `errcode_for_file_access`.
pub(crate) fn io_state(source: &std::io::Error) -> SqlState {
    #[expect(clippy::wildcard_enum_match_arm, reason = "std's list grows; the rest are I/O errors")]
    match source.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => SqlState::DISK_FULL,
        std::io::ErrorKind::NotFound => SqlState::UNDEFINED_FILE,
        _ => SqlState::IO_ERROR,
    }
}

impl From<WalError> for SqlError {
    fn from(e: WalError) -> Self {
        let message = e.to_string();
        match e {
            WalError::RecordTooLarge { .. } => Self::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message),
            WalError::Io { source, .. } => Self::new(io_state(&source), message),
            WalError::Sync { source, .. } => Self::new(io_state(&source), message).panic(),
            WalError::Closed => Self::new(SqlState::ADMIN_SHUTDOWN, message).fatal(),
            WalError::NotWriting => Self::new(SqlState::READ_ONLY_SQL_TRANSACTION, message),
            WalError::NotReceiving => Self::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message),
            WalError::FlushBeyondEnd { .. } => Self::new(SqlState::INTERNAL_ERROR, message),
            WalError::SegmentGone { .. } => Self::new(SqlState::UNDEFINED_FILE, message),
            WalError::Gap { .. }
            | WalError::ReceivedDamage { .. }
            | WalError::Diverged { .. }
            | WalError::NotARecordEnd { .. }
            | WalError::BadFile { .. }
            | WalError::BadVersion { .. }
            | WalError::Checksum { .. }
            | WalError::WrongSystem { .. }
            | WalError::BadTimeline { .. } => Self::new(SqlState::DATA_CORRUPTED, message),
            WalError::SegmentMissing { .. } => Self::new(SqlState::UNDEFINED_FILE, message),
        }
    }
}

impl From<StorageError> for SqlError {
    fn from(e: StorageError) -> Self {
        let message = e.to_string();
        match e {
            StorageError::Wal(e) => e.into(),
            StorageError::BadPage { .. } | StorageError::MissingBlock { .. } | StorageError::BadFile { .. } => {
                Self::new(SqlState::DATA_CORRUPTED, message)
            }
            StorageError::ShortSegment { .. } => Self::new(SqlState::UNDEFINED_FILE, message),
            StorageError::UnexplainedBlocks { .. } | StorageError::PageAheadOfWal { .. } | StorageError::BadRecord { .. } => {
                Self::new(SqlState::DATA_CORRUPTED, message).panic()
            }
            StorageError::Open { source, .. } | StorageError::Io { source, .. } | StorageError::Block { source, .. } => {
                let state = io_state(&source);
                let error = Self::new(state, message);
                if state == SqlState::DISK_FULL { error.hint("Check free disk space.") } else { error }
            }
            StorageError::Sync { source, .. } => Self::new(io_state(&source), message).panic(),
            StorageError::TooLong { .. } => Self::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message),
            StorageError::NoBuffer => Self::new(SqlState::INSUFFICIENT_RESOURCES, message),
        }
    }
}

impl From<TxnError> for SqlError {
    fn from(e: TxnError) -> Self {
        let message = e.to_string();
        match e {
            TxnError::Wal(e) => e.into(),
            TxnError::Storage(e) => e.into(),
            TxnError::Deadlock { detail } => {
                Self::new(SqlState::DEADLOCK_DETECTED, message).detail(detail).hint("See server log for query details.")
            }
            TxnError::LockTimeout | TxnError::LockNotAvailable => Self::new(SqlState::LOCK_NOT_AVAILABLE, message),
            TxnError::Cancelled(reason) => {
                let state = match reason {
                    CancelReason::StatementTimeout | CancelReason::Query => SqlState::QUERY_CANCELED,
                    CancelReason::RecoveryConflictEnds(Conflict::Database) => SqlState::DATABASE_DROPPED,
                    CancelReason::RecoveryConflict(_) | CancelReason::RecoveryConflictEnds(_) => SqlState::SERIALIZATION_FAILURE,
                    CancelReason::IdleInTransactionTimeout => SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                    CancelReason::IdleSessionTimeout => SqlState::IDLE_SESSION_TIMEOUT,
                    CancelReason::Terminate => SqlState::ADMIN_SHUTDOWN,
                    CancelReason::Crash => SqlState::CRASH_SHUTDOWN,
                };
                let mut error = Self::new(state, message);
                if let CancelReason::RecoveryConflict(kind) | CancelReason::RecoveryConflictEnds(kind) = reason {
                    error = error.detail(kind.detail());
                }
                if matches!(reason, CancelReason::RecoveryConflictEnds(kind) if kind != Conflict::Database) {
                    error = error.hint("In a moment you should be able to reconnect to the database and repeat your command.");
                }
                if reason.ends_session() { error.fatal() } else { error }
            }
            TxnError::Serialization(_) => Self::new(SqlState::SERIALIZATION_FAILURE, message),
            TxnError::Dependencies { detail } => {
                Self::new(SqlState::SERIALIZATION_FAILURE, message).detail(detail).hint("The transaction might succeed if retried.")
            }
            TxnError::SerializableInRecovery => Self::new(SqlState::FEATURE_NOT_SUPPORTED, message)
                .detail("\"default_transaction_isolation\" is set to \"serializable\".")
                .hint("You can use \"SET default_transaction_isolation = 'repeatable read'\" to change the default."),
            TxnError::GidInUse(_) => Self::new(SqlState::DUPLICATE_OBJECT, message),
            TxnError::TooManyPrepared(limit) => {
                Self::new(SqlState::OUT_OF_MEMORY, message).hint(format!("Increase max_prepared_transactions (currently {limit})."))
            }
            TxnError::CannotPrepare(_) => Self::new(SqlState::FEATURE_NOT_SUPPORTED, message),
            TxnError::PreparedBusy(_) => Self::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message),
            TxnError::BadTwoPhaseFile { .. } => Self::new(SqlState::DATA_CORRUPTED, message),
            TxnError::InRecovery(_) | TxnError::ReadOnly(_) => Self::new(SqlState::READ_ONLY_SQL_TRANSACTION, message),
            TxnError::NoSuchSavepoint(_) => Self::new(SqlState::S_E_INVALID_SPECIFICATION, message),
            TxnError::TooManyCommands => Self::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message),
            TxnError::StatusMissing(_) | TxnError::BadRecord(_) => Self::new(SqlState::DATA_CORRUPTED, message),
            TxnError::Unconfirmed(_) => Self::new(SqlState::STATEMENT_COMPLETION_UNKNOWN, message)
                .detail("The transaction has already committed locally, but might not have been replicated to the standby.")
                .fatal(),
            TxnError::CommitUnknown(_) => Self::new(SqlState::STATEMENT_COMPLETION_UNKNOWN, message).fatal(),
            TxnError::StatusFile { source, .. } => Self::new(io_state(&source), message),
        }
    }
}

impl From<AccessError> for SqlError {
    fn from(e: AccessError) -> Self {
        let message = e.to_string();
        match e {
            AccessError::Txn(e) => e.into(),
            AccessError::Wal(e) => e.into(),
            AccessError::Storage(e) => e.into(),
            AccessError::RowTooBig { .. } => Self::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message),
            AccessError::KeyTooBig { .. } => Self::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message).hint(
                "Values larger than 1/3 of a buffer page cannot be indexed.\nConsider a function index of an MD5 hash of \
                 the value, or use full text indexing.",
            ),
            AccessError::NoSuchRow { .. } | AccessError::Damaged { .. } => Self::new(SqlState::DATA_CORRUPTED, message),
            AccessError::TempFileLimit { .. } => Self::new(SqlState::CONFIGURATION_LIMIT_EXCEEDED, message),
            AccessError::Invisible => Self::new(SqlState::INTERNAL_ERROR, message),
            AccessError::BadRecord { .. } => Self::new(SqlState::DATA_CORRUPTED, message).panic(),
            AccessError::SequenceExhausted { .. } => Self::new(SqlState::SEQUENCE_GENERATOR_LIMIT_EXCEEDED, message),
        }
    }
}

impl From<EngineError> for SqlError {
    fn from(e: EngineError) -> Self {
        let message = e.to_string();
        match e {
            EngineError::Storage(e) => e.into(),
            EngineError::Wal(e) => e.into(),
            EngineError::Txn(e) => e.into(),
            EngineError::Control(e) => match e {
                ControlError::Storage(e) => e.into(),
                ControlError::Wal(e) => e.into(),
                ControlError::Txn(e) => e.into(),
                ControlError::File { source, .. } => Self::new(io_state(&source), message),
                ControlError::RequestFailed { .. } => {
                    Self::new(SqlState::INTERNAL_ERROR, message).hint("Consult recent messages in the server log for details.")
                }
                ControlError::ShuttingDown => Self::new(SqlState::ADMIN_SHUTDOWN, message).fatal(),
            },
            EngineError::Recovery(RecoveryError::Restore { .. } | RecoveryError::Command { .. }) => {
                Self::new(SqlState::IO_ERROR, message).fatal()
            }
            EngineError::Recovery(_) => Self::new(SqlState::DATA_CORRUPTED, message).panic(),
            EngineError::DataDirectory { .. } => Self::new(SqlState::CONFIG_FILE_ERROR, message).fatal(),
            EngineError::TargetNotReached => Self::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message).fatal(),
            EngineError::WrongState { .. } => Self::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message),
        }
    }
}
