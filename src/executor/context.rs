//! What every execution gets: the session it runs for.

use std::sync::Arc;

use super::code::SessionValue;
use super::front_end::SqlFrontEnd;
use crate::config::{Config, SessionSettings, SetScope, Setting};
use crate::engine::Engine;
use crate::sql::catalog::CatalogHandle;
use crate::sql::functions::call::{FnCtx, SetRows, not_implemented};
use crate::sql::functions::registry::{cast_by_types, proc_by_oid};
use crate::sql::functions::{Call, CallTypes, ProcEntry};
use crate::sql::types::{Datum, IoSettings, Oid, Text, oids};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{CancelFlag, CancelReason, LockLog, LockManager, Proc, Transaction, TxnError};

/// One session's state as far as SQL needs it. The session owns it and lends it to each statement.
pub struct SessionContext {
    /// Storage, WAL, transactions.
    pub engine: Arc<Engine>,
    /// This session, as other sessions see it.
    pub proc: Arc<Proc>,
    /// Raised to stop the running statement; check it in long loops.
    pub cancel: Arc<CancelFlag>,
    /// The running transaction. The session begins one before every statement and ends it; a statement that must end it on its own
    /// (VACUUM) takes it and puts a new one back.
    pub transaction: Option<Transaction>,
    /// Inside a transaction block (BEGIN, or several statements in one query): VACUUM and its like refuse, see
    /// [`Self::prevent_in_block`].
    pub in_block: bool,
    /// The server's settings, for ALTER SYSTEM.
    pub config: Arc<Config>,
    /// The user who logged in; `session_user` unless SET SESSION AUTHORIZATION changed that.
    pub login_user: Oid,
    /// The connected database.
    pub database: Oid,
    /// Its name.
    pub database_name: Arc<str>,
    /// `current_user`.
    pub user: Oid,
    /// Its name.
    pub user_name: Arc<str>,
    /// `session_user`.
    pub session_user: Oid,
    /// Its name.
    pub session_user_name: Arc<str>,
    /// `pg_backend_pid()`.
    pub backend_pid: i32,
    /// Settings.
    pub settings: SessionSettings,
    /// Their version when the lock manager was last told of its timeouts.
    pub timeouts_version: u64,
    /// Text forms of values; rebuilt when settings change.
    pub io: IoSettings,
    /// Catalogs at the current statement's snapshot.
    pub catalog: CatalogHandle,
    /// Sequences used so far.
    pub sequences: super::catalog_function::SequenceCache,
    /// Variables of the function whose statement is being bound or run.
    pub variables: Option<Arc<super::routine::Variables>>,
    /// Functions called so far.
    pub routines: super::routine::Routines,
    /// Constraints whose checks are put off.
    pub deferral: super::deferral::Deferral,
    /// Bytes in temporary files of its queries.
    pub temp_space: super::TempSpace,
    /// Temporary tables that COMMIT empties or drops.
    pub on_commit: Vec<super::OnCommit>,
    /// Notices and warnings the session has yet to send; severity is the first word of each (`NOTICE`, `WARNING`).
    pub notices: Vec<Notice>,
    /// How many of them the client was told already.
    pub told: usize,
    /// Tells the client of a notice while the statement runs; without it, it is told at the end.
    pub outlet: Option<Arc<dyn Outlet>>,
    /// `now()`, microseconds from 2000-01-01 UTC.
    pub transaction_timestamp: i64,
    /// `statement_timestamp()`.
    pub statement_timestamp: i64,
    /// Binding and planning.
    pub front_end: &'static dyn SqlFrontEnd,
    /// Functions of higher layers, asked in order.
    pub externals: Vec<Arc<dyn ExternalFunctions>>,
}

/// A message that is not an error.
#[derive(Clone, Debug)]
pub struct Notice {
    /// `NOTICE`, `WARNING`, `INFO`, `DEBUG1`, ...
    pub severity: &'static str,
    /// Its fields.
    pub fields: SqlError,
}

/// A way to the client, and to the log, from inside a statement.
pub trait Outlet: LockLog {
    /// Sends a notice, if the client wants to hear of it; false if it cannot be sent.
    fn notice(&self, settings: &SessionSettings, notice: &Notice) -> bool;
}

/// Functions that need what only a higher layer knows (`pg_terminate_backend`, replication slots, ...), by `prosrc`.
pub trait ExternalFunctions: Send + Sync {
    /// The value, or `None` if the function is not its own.
    ///
    /// # Errors
    /// The function's own.
    fn call(
        &self,
        session: &mut SessionContext,
        func: &'static ProcEntry,
        types: &CallTypes,
        args: &[Datum],
    ) -> Result<Option<Datum>, SqlError>;

    /// The rows of a set-returning one, or `None`.
    ///
    /// # Errors
    /// The function's own.
    fn call_set(
        &self,
        session: &mut SessionContext,
        func: &'static ProcEntry,
        types: &CallTypes,
        args: &[Datum],
    ) -> Result<Option<SetRows>, SqlError>;
}

impl SessionContext {
    /// Looks at the catalogs through `handle` from now on, for names in values' text forms too.
    pub fn set_catalog(&mut self, handle: CatalogHandle) {
        self.io.names = Some(Arc::new(handle.clone()));
        self.catalog = handle;
    }

    /// The running transaction.
    ///
    /// # Errors
    /// `25P01` outside one, which is a bug of the caller.
    pub fn transaction(&mut self) -> Result<&mut Transaction, SqlError> {
        if self.timeouts_version != self.settings.version() {
            self.follow_timeouts();
        }
        self.transaction.as_mut().ok_or_else(|| SqlError::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, "there is no transaction in progress"))
    }

    /// `deadlock_timeout` and `lock_timeout` hold from the moment they are set, inside a function too.
    #[cold]
    fn follow_timeouts(&mut self) {
        self.timeouts_version = self.settings.version();
        let deadlock = self.settings.duration(Setting::DeadlockTimeout).unwrap_or(LockManager::DEADLOCK_TIMEOUT);
        let lock = self.settings.duration(Setting::LockTimeout).filter(|d| !d.is_zero());
        self.proc.set_lock_timeouts(deadlock, lock);
        let log = self.outlet.clone().filter(|_| self.settings.bool(Setting::LogLockWaits));
        self.proc.set_lock_log(log.map(|outlet| outlet as Arc<dyn LockLog>));
    }

    /// Refuses a command that cannot be rolled back.
    ///
    /// # Errors
    /// `25001` with PostgreSQL's text.
    pub fn prevent_in_block(&self, command: &str) -> Result<(), SqlError> {
        if self.in_block {
            let why = if self.routines.alone { "cannot be executed from a function" } else { "cannot run inside a transaction block" };
            return Err(SqlError::new(SqlState::ACTIVE_SQL_TRANSACTION, format!("{command} {why}")));
        }
        Ok(())
    }

    /// Stops here if the session was told to.
    ///
    /// # Errors
    /// `57014` and its like.
    pub fn check_cancel(&self) -> Result<(), SqlError> {
        match self.cancel.reason() {
            None => Ok(()),
            Some(reason) => Err(cancelled(reason)),
        }
    }

    /// Text input and output settings.
    pub fn io(&self) -> &IoSettings {
        &self.io
    }

    /// Tells the client what is queued, now: what was RAISEd ahead of a long wait.
    pub fn tell(&mut self) {
        let Some(outlet) = self.outlet.clone() else { return };
        while let Some(notice) = self.notices.get(self.told) {
            if !outlet.notice(&self.settings, notice) {
                return;
            }
            self.told += 1;
        }
    }

    /// Queues a NOTICE.
    pub fn notice(&mut self, message: impl Into<String>) {
        self.notices.push(Notice { severity: "NOTICE", fields: SqlError::new(SqlState("00000"), message) });
    }

    /// Queues an INFO message.
    pub fn info(&mut self, fields: SqlError) {
        self.notices.push(Notice { severity: "INFO", fields });
    }

    /// Queues a WARNING.
    pub fn warning(&mut self, state: SqlState, message: impl Into<String>) {
        self.notices.push(Notice { severity: "WARNING", fields: SqlError::new(state, message) });
    }

    pub(super) fn session_value(&mut self, value: SessionValue) -> Result<Datum, SqlError> {
        match value {
            SessionValue::CurrentUser => Ok(Datum::text(&*self.user_name)),
            SessionValue::SessionUser => Ok(Datum::text(&*self.session_user_name)),
            SessionValue::CurrentCatalog => Ok(Datum::text(&*self.database_name)),
            SessionValue::CurrentSchema => Ok(self.current_schemas(false).into_iter().next().map_or(Datum::Null, Datum::Text)),
            SessionValue::CurrentDate => self.now_as(oids::DATE, -1),
            SessionValue::CurrentTime(n) => self.now_as(oids::TIMETZ, n),
            SessionValue::CurrentTimestamp(n) => self.now_as(oids::TIMESTAMPTZ, n),
            SessionValue::LocalTime(n) => self.now_as(oids::TIME, n),
            SessionValue::LocalTimestamp(n) => self.now_as(oids::TIMESTAMP, n),
        }
    }

    /// The transaction's time as another type, to so many digits.
    fn now_as(&mut self, ty: Oid, typmod: i32) -> Result<Datum, SqlError> {
        let now = Datum::TimestampTz(self.transaction_timestamp);
        let value = if ty == oids::TIMESTAMPTZ {
            now
        } else {
            let func = cast_by_types(oids::TIMESTAMPTZ, ty)
                .and_then(|c| proc_by_oid(c.func))
                .ok_or_else(|| SqlError::internal("cast of the current time"))?;
            let types = CallTypes { func: func.oid, args: [oids::TIMESTAMPTZ].into_iter().collect(), result: ty, variadic_array: false };
            func.invoke(&mut Call { ctx: self, types: &types }, &[now])?
        };
        crate::sql::types::typmod::coerce_typmod(value, ty, typmod, true)
    }
}

/// The error for a raised [`CancelFlag`].
pub fn cancelled(reason: CancelReason) -> SqlError {
    TxnError::Cancelled(reason).into()
}

impl FnCtx for SessionContext {
    fn io(&self) -> &IoSettings {
        &self.io
    }

    fn transaction_timestamp(&self) -> i64 {
        self.transaction_timestamp
    }

    fn statement_timestamp(&self) -> i64 {
        self.statement_timestamp
    }

    fn current_user(&self) -> Text {
        Text::from(&*self.user_name)
    }

    fn session_user(&self) -> Text {
        Text::from(&*self.session_user_name)
    }

    fn current_database(&self) -> Text {
        Text::from(&*self.database_name)
    }

    fn current_schemas(&self, implicit: bool) -> Vec<Text> {
        let mut names = Vec::new();
        for oid in self.catalog.search_path() {
            if *oid == crate::sql::catalog::relation::PG_CATALOG_NAMESPACE && !implicit {
                continue;
            }
            if let Ok(Some(name)) = self.catalog.namespace_name(*oid) {
                names.push(Text::from(&*name));
            }
        }
        names
    }

    fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    fn setting(&self, name: &str) -> Result<Option<String>, SqlError> {
        match self.settings.show(name) {
            Ok(value) => Ok(Some(value)),
            Err(e) if e.state() == SqlState::UNDEFINED_OBJECT => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn set_setting(&mut self, name: &str, value: Option<&str>, local: bool) -> Result<String, SqlError> {
        let scope = if local { SetScope::Local } else { SetScope::Session };
        match value {
            Some(value) => self.settings.set(name, value, scope)?,
            None => self.settings.reset(name, scope)?,
        }
        self.settings.show(name)
    }

    fn check_cancel(&self) -> Result<(), SqlError> {
        Self::check_cancel(self)
    }

    fn external(&mut self, func: &'static ProcEntry, types: &CallTypes, args: &[Datum]) -> Result<Datum, SqlError> {
        super::privileges::check_function(self, func)?;
        if func.oid >= oids::FIRST_NORMAL {
            let front_end = self.front_end;
            return front_end.call_routine(self, func, types, args);
        }
        if let Some(value) = super::catalog_function::call(self, func, types, args)? {
            return Ok(value);
        }
        for other in self.externals.clone() {
            if let Some(value) = other.call(self, func, types, args)? {
                return Ok(value);
            }
        }
        Err(not_implemented(func))
    }

    fn external_set(&mut self, func: &'static ProcEntry, types: &CallTypes, args: &[Datum]) -> Result<SetRows, SqlError> {
        super::privileges::check_function(self, func)?;
        if func.oid >= oids::FIRST_NORMAL {
            let front_end = self.front_end;
            return front_end.call_routine_set(self, func, types, args);
        }
        // Nothing is partitioned.
        if matches!(func.source, "pg_partition_ancestors" | "pg_partition_tree") {
            return Ok(Box::new(std::iter::empty()));
        }
        if let Some(rows) = super::verify::call_set(self, func, types, args)? {
            return Ok(rows);
        }
        for other in self.externals.clone() {
            if let Some(rows) = other.call_set(self, func, types, args)? {
                return Ok(rows);
            }
        }
        Err(not_implemented(func))
    }
}
