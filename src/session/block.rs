//! The transaction block: what BEGIN, COMMIT, errors and the end of a query do to the session's transaction.
//!
//! PostgreSQL: `TBlockState` in xact.c. A transaction without a block (`Single`) ends with its statement, or with Sync in the extended
//! protocol; several statements in one query share an `Implicit` block.

use super::client::{End, Session};
use super::extended::PortalEntry;
use super::registry::now;
use crate::config::{SetScope, Setting, Value};
use crate::executor::TransactionKind;
use crate::executor::context::cancelled;
use crate::executor::utility;
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{CancelReason, CommitLevel, Isolation, TransactionOptions, TxnError};
use crate::wire::BlockStatus;

/// What kind of transaction runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// None.
    None,
    /// One statement's, or one Sync's.
    Single,
    /// Of several statements in one query.
    Implicit,
    /// BEGIN's.
    Explicit,
    /// BEGIN's, after an error.
    Failed,
}

/// The block and its savepoints.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) kind: Kind,
    savepoints: Vec<String>,
}

impl Block {
    pub(super) fn new() -> Self {
        Self { kind: Kind::None, savepoints: Vec::new() }
    }

    /// For ReadyForQuery.
    pub(super) fn status(&self) -> BlockStatus {
        match self.kind {
            Kind::None | Kind::Single | Kind::Implicit => BlockStatus::Idle,
            Kind::Explicit => BlockStatus::InBlock,
            Kind::Failed => BlockStatus::Failed,
        }
    }

    pub(super) fn is_block(&self) -> bool {
        matches!(self.kind, Kind::Implicit | Kind::Explicit | Kind::Failed)
    }
}

fn level(label: &str) -> CommitLevel {
    match label {
        "off" => CommitLevel::Off,
        "local" => CommitLevel::Local,
        "remote_write" => CommitLevel::RemoteWrite,
        "remote_apply" => CommitLevel::RemoteApply,
        _ => CommitLevel::On,
    }
}

fn isolation(label: &str) -> Isolation {
    match label {
        "repeatable read" => Isolation::RepeatableRead,
        "serializable" => Isolation::Serializable,
        _ => Isolation::ReadCommitted,
    }
}

/// In a failed block only the end of it is accepted.
pub(super) fn aborted() -> SqlError {
    SqlError::new(SqlState::IN_FAILED_SQL_TRANSACTION, "current transaction is aborted, commands ignored until end of transaction block")
}

fn not_in_recovery(in_recovery: bool, command: &str) -> Result<(), SqlError> {
    if in_recovery {
        return Err(SqlError::new(SqlState::READ_ONLY_SQL_TRANSACTION, format!("cannot execute {command} during recovery")));
    }
    Ok(())
}

fn no_transaction() -> SqlError {
    SqlError::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, "there is no transaction in progress")
}

impl Session {
    /// Begins a transaction if none runs, and gives the next statement its view of the catalogs.
    pub(super) fn begin_statement(&mut self) {
        self.ctx.cancel.reset();
        if self.ctx.transaction.is_none() && self.block.kind != Kind::Failed {
            self.begin();
            if self.block.kind == Kind::None {
                self.block.kind = Kind::Single;
            }
        }
        self.refresh();
    }

    /// What a transaction begun now waits for when it commits, and reads at.
    pub(super) fn commit_level(&self) -> CommitLevel {
        match &self.ctx.transaction {
            Some(transaction) => transaction.options().level,
            None => level(self.ctx.settings.str(Setting::SynchronousCommit)),
        }
    }

    fn begin(&mut self) {
        self.ctx.deferral.clear();
        self.ctx.transaction_timestamp = self.ctx.statement_timestamp;
        self.ctx.io.now = self.ctx.transaction_timestamp;
        let settings = &mut self.ctx.settings;
        settings.begin_level();
        let options = TransactionOptions {
            isolation: isolation(settings.str(Setting::DefaultTransactionIsolation)),
            read_only: settings.bool(Setting::DefaultTransactionReadOnly) || self.engine.is_in_recovery(),
            deferrable: settings.bool(Setting::DefaultTransactionDeferrable),
            level: level(settings.str(Setting::SynchronousCommit)),
        };
        if options.read_only && self.engine.is_in_recovery() {
            settings.set_internal(Setting::TransactionReadOnly, Value::Bool(true), SetScope::Local);
        }
        self.ctx.transaction = Some(self.engine.ctx().txns.begin(&self.ctx.proc, options));
    }

    /// The catalogs as the transaction sees them now.
    pub(super) fn refresh(&mut self) {
        self.viewer.user = self.ctx.user;
        if self.viewer.user_name != self.ctx.user_name {
            self.viewer.user_name = self.ctx.user_name.clone();
        }
        self.viewer.temp_namespace = self.ctx.catalog.viewer().temp_namespace.or(self.viewer.temp_namespace);
        self.ctx.in_block = self.block.is_block();
        let handle = match &self.ctx.transaction {
            Some(transaction) if self.ctx.catalog.serves(&self.viewer, transaction) => return,
            Some(transaction) => self.catalog.handle_after(&self.ctx.catalog, self.viewer.clone(), transaction),
            None => self.catalog.handle_outside(self.viewer.clone(), &self.ctx.proc),
        };
        self.ctx.set_catalog(handle);
    }

    /// A statement succeeded: its changes are visible to the next one of its transaction.
    pub(super) fn end_command(&mut self) -> Result<(), SqlError> {
        // It may have been its own doing: `pg_terminate_backend(pg_backend_pid())`.
        if let Some(reason) = self.registered.entry.cancel.reason().filter(|r| r.ends_session()) {
            return Err(cancelled(reason));
        }
        if let Some(transaction) = &mut self.ctx.transaction {
            transaction.command_counter_increment()?;
        }
        Ok(())
    }

    /// Several statements in one query share a transaction, though nobody said BEGIN.
    pub(super) fn make_implicit(&mut self) {
        if matches!(self.block.kind, Kind::None | Kind::Single) {
            self.block.kind = Kind::Implicit;
        }
    }

    /// Commits what is not in an explicit block.
    pub(super) async fn end_statement(&mut self) -> Result<(), SqlError> {
        match self.block.kind {
            Kind::Single | Kind::Implicit => self.commit().await,
            Kind::None | Kind::Explicit | Kind::Failed => Ok(()),
        }
    }

    fn over(&mut self, committed: bool) {
        self.block.kind = Kind::None;
        self.block.savepoints.clear();
        while self.ctx.settings.level() > 0 {
            self.ctx.settings.end_level(committed);
        }
        self.portals.retain(|_, p| p.outlives_transaction);
        self.ctx.in_block = false;
        self.take_settings();
    }

    async fn commit(&mut self) -> Result<(), SqlError> {
        // Cursors WITH HOLD take what they have still to give before temporary tables are emptied.
        if self.ctx.transaction.is_some()
            && let Err(e) = self.hold_cursors().and_then(|()| utility::before_commit(&mut self.ctx))
        {
            self.rollback()?;
            return Err(e);
        }
        let Some(transaction) = self.ctx.transaction.take() else {
            self.over(true);
            return Ok(());
        };
        let at = level(self.ctx.settings.str(Setting::SynchronousCommit));
        // Cursors look into the transaction; they go first.
        self.portals.retain(|_, p| p.outlives_transaction);
        match transaction.commit(at) {
            Ok(wait) => {
                self.over(true);
                self.wait_for_commit(wait).await
            }
            Err(e) => {
                self.over(false);
                Err(e.into())
            }
        }
    }

    /// Waits until the commit is as safe as the session asked. A stop meanwhile leaves the outcome unknown to the client, and says so.
    async fn wait_for_commit(&mut self, mut wait: crate::txn::CommitWait) -> Result<(), SqlError> {
        if wait.is_done() {
            return Ok(());
        }
        let entry = std::sync::Arc::clone(&self.registered.entry);
        self.ctx.proc.set_committing(Some(wait.lsn()));
        // While there is a thread for each session that has something to do, this one may sync itself: to have it done costs two switches.
        if self.registered.count_at_work() < self.workers {
            wait.sync_here();
        }
        let result = loop {
            tokio::select! {
                biased;
                done = &mut wait => break done,
                () = entry.wake.notified() => {
                    // The statement's time no longer counts, and a disk answers soon.
                    if let Some(reason) = entry.cancel.reason()
                        && reason != CancelReason::StatementTimeout
                        && wait.may_need_standbys()
                        && self.engine.ctx().txns.is_synchronous()
                    {
                        break Err(TxnError::Unconfirmed(reason));
                    }
                }
            }
        };
        self.ctx.proc.set_committing(None);
        Ok(result?)
    }

    fn rollback(&mut self) -> Result<(), SqlError> {
        self.portals.retain(|_, p| p.outlives_transaction);
        let result = match self.ctx.transaction.take() {
            Some(transaction) => transaction.abort().map_err(SqlError::from),
            None => Ok(()),
        };
        self.over(false);
        result
    }

    /// The session is over: its temporary relations go, whatever it was stopped for.
    pub(super) fn drop_temporary(&mut self) {
        self.refresh();
        if self.viewer.temp_namespace.is_none() {
            return;
        }
        self.ctx.cancel.forget();
        self.ctx.statement_timestamp = now();
        self.begin();
        self.refresh();
        let dropped = utility::drop_temp(&mut self.ctx);
        let Some(transaction) = self.ctx.transaction.take() else { return };
        // Nobody waits for this commit: a crash leaves no more than one before it would have.
        let ended = match dropped {
            Ok(()) => transaction.commit(CommitLevel::Off).map(|_| ()).map_err(SqlError::from),
            Err(e) => transaction.abort().map_err(SqlError::from).and(Err(e)),
        };
        if let Err(e) = ended {
            tracing::warn!("could not drop temporary relations: {e}");
        }
    }

    /// After an error.
    pub(super) fn transaction_failed(&mut self) {
        match self.block.kind {
            Kind::None | Kind::Single | Kind::Implicit => {
                if let Err(e) = self.rollback() {
                    tracing::warn!("could not record the end of a transaction: {e}");
                }
            }
            Kind::Explicit => {
                self.block.kind = Kind::Failed;
                self.portals.retain(|_, p| p.outlives_transaction);
                // What the failed part holds is given up at once: all of it, or back to the innermost savepoint.
                match self.block.savepoints.last() {
                    None => {
                        if let Some(transaction) = self.ctx.transaction.take()
                            && let Err(e) = transaction.abort()
                        {
                            tracing::warn!("could not record the end of a transaction: {e}");
                        }
                    }
                    Some(name) => {
                        if let Some(transaction) = &mut self.ctx.transaction
                            && let Err(e) = transaction.rollback_to(name)
                        {
                            tracing::warn!("could not roll back to a savepoint: {e}");
                        }
                    }
                }
                self.refresh();
            }
            Kind::Failed => {}
        }
    }

    /// Runs a transaction statement; returns its tag.
    pub(super) async fn transaction_statement(&mut self, kind: TransactionKind) -> Result<String, SqlError> {
        match kind {
            TransactionKind::Begin(options, tag) => {
                match self.block.kind {
                    Kind::Explicit => {
                        self.ctx.warning(SqlState::ACTIVE_SQL_TRANSACTION, "there is already a transaction in progress");
                    }
                    Kind::Failed => return Err(aborted()),
                    Kind::None | Kind::Single | Kind::Implicit => self.block.kind = Kind::Explicit,
                }
                self.apply_options(&options)?;
                Ok(tag.into())
            }
            TransactionKind::Commit(chain) => self.end_block(true, chain).await,
            TransactionKind::Rollback(chain) => self.end_block(false, chain).await,
            TransactionKind::Savepoint(name) => {
                self.need_block("SAVEPOINT")?;
                self.ctx.transaction()?.begin_sub(Some(&name));
                self.block.savepoints.push(name);
                self.ctx.settings.begin_level();
                Ok("SAVEPOINT".into())
            }
            TransactionKind::Release(name) => {
                self.need_block("RELEASE SAVEPOINT")?;
                let at = self.find_savepoint(&name)?;
                self.ctx.transaction()?.release(&name)?;
                while self.block.savepoints.len() > at {
                    self.block.savepoints.pop();
                    self.ctx.settings.end_level(true);
                }
                let read_only = self.ctx.transaction()?.options().read_only;
                if read_only != self.ctx.settings.bool(Setting::TransactionReadOnly) {
                    self.ctx.settings.set_internal(Setting::TransactionReadOnly, Value::Bool(read_only), SetScope::Local);
                }
                Ok("RELEASE".into())
            }
            TransactionKind::RollbackTo(name) => {
                if !matches!(self.block.kind, Kind::Explicit | Kind::Failed) {
                    self.need_block("ROLLBACK TO SAVEPOINT")?;
                }
                let at = self.find_savepoint(&name)?;
                self.ctx.transaction()?.rollback_to(&name)?;
                while self.block.savepoints.len() > at {
                    self.block.savepoints.pop();
                    self.ctx.settings.end_level(false);
                }
                self.block.savepoints.push(name);
                self.ctx.settings.begin_level();
                self.block.kind = Kind::Explicit;
                self.portals.retain(|_, p| p.outlives_transaction);
                Ok("ROLLBACK".into())
            }
            TransactionKind::Prepare(gid) => self.prepare_transaction(gid).await,
            TransactionKind::CommitPrepared(gid) => self.finish_prepared(&gid, true).await,
            TransactionKind::RollbackPrepared(gid) => self.finish_prepared(&gid, false).await,
        }
    }

    /// PREPARE TRANSACTION. PostgreSQL: `PrepareTransactionBlock`, `PrepareTransaction` in xact.c, `MarkAsPreparing` in twophase.c.
    async fn prepare_transaction(&mut self, gid: String) -> Result<String, SqlError> {
        not_in_recovery(self.engine.is_in_recovery(), "PREPARE TRANSACTION")?;
        if self.block.kind != Kind::Explicit {
            if self.block.kind != Kind::Failed {
                let warning = no_transaction();
                self.ctx.warning(warning.state(), warning.to_string());
            }
            self.rollback()?;
            return Ok("ROLLBACK".into());
        }
        if self.portals.values().any(PortalEntry::is_to_hold) {
            let message = "cannot PREPARE a transaction that has created a cursor WITH HOLD";
            self.rollback()?;
            return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message));
        }
        self.portals.retain(|_, p| p.outlives_transaction);
        let prepared = self.prepare_now(gid);
        match prepared {
            Ok(wait) => {
                self.over(true);
                self.wait_for_commit(wait).await?;
                Ok("PREPARE TRANSACTION".into())
            }
            Err(e) => {
                // As a commit that fails: the block is over.
                self.rollback()?;
                Err(e)
            }
        }
    }

    fn prepare_now(&mut self, gid: String) -> Result<crate::txn::CommitWait, SqlError> {
        use crate::sql::catalog::relation::Persistence;
        if gid.len() >= crate::txn::two_phase::GID_SIZE {
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("transaction identifier \"{gid}\" is too long")));
        }
        let limit = usize::try_from(self.ctx.config.current().int(Setting::MaxPreparedTransactions)).unwrap_or(0);
        if limit == 0 {
            return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "prepared transactions are disabled")
                .hint("Set max_prepared_transactions to a nonzero value."));
        }
        for oid in self.ctx.transaction()?.locked_relations() {
            if self.ctx.catalog.relation(oid)?.is_some_and(|r| r.persistence == Persistence::Temporary) {
                let what = "a transaction that has operated on temporary objects";
                return Err(TxnError::CannotPrepare(what).into());
            }
        }
        utility::before_commit(&mut self.ctx)?;
        let at = level(self.ctx.settings.str(Setting::SynchronousCommit));
        let (owner, database) = (self.ctx.user, self.ctx.database);
        match self.ctx.transaction.take() {
            Some(transaction) => Ok(transaction.prepare(gid, owner, database, limit, at)?),
            None => Err(no_transaction()),
        }
    }

    /// COMMIT PREPARED, ROLLBACK PREPARED. PostgreSQL: `LockGXact`, `FinishPreparedTransaction` in twophase.c.
    async fn finish_prepared(&mut self, gid: &str, commit: bool) -> Result<String, SqlError> {
        let command = if commit { "COMMIT PREPARED" } else { "ROLLBACK PREPARED" };
        self.ctx.in_block = self.block.is_block();
        self.ctx.prevent_in_block(command)?;
        not_in_recovery(self.engine.is_in_recovery(), command)?;
        let txns = self.engine.ctx().txns.clone();
        let Some(prepared) = txns.find_prepared(gid) else {
            let message = format!("prepared transaction with identifier \"{gid}\" does not exist");
            return Err(SqlError::new(SqlState::UNDEFINED_OBJECT, message));
        };
        if prepared.state.owner != self.ctx.user && !self.ctx.catalog.is_superuser(self.ctx.user)? {
            return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, "permission denied to finish prepared transaction")
                .hint("Must be superuser or the user that prepared the transaction."));
        }
        if prepared.state.database != self.ctx.database {
            return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "prepared transaction belongs to another database")
                .hint("Connect to the database where the transaction was prepared to finish it."));
        }
        let at = level(self.ctx.settings.str(Setting::SynchronousCommit));
        let wait = txns.finish_prepared(&self.ctx.proc, &prepared, commit, at)?;
        self.wait_for_commit(wait).await?;
        Ok(command.into())
    }

    fn need_block(&self, what: &str) -> Result<(), SqlError> {
        match self.block.kind {
            Kind::Explicit => Ok(()),
            Kind::Failed => Err(aborted()),
            Kind::None | Kind::Single | Kind::Implicit => {
                Err(SqlError::new(SqlState::NO_ACTIVE_SQL_TRANSACTION, format!("{what} can only be used in transaction blocks")))
            }
        }
    }

    fn find_savepoint(&self, name: &str) -> Result<usize, SqlError> {
        self.block
            .savepoints
            .iter()
            .rposition(|s| s == name)
            .ok_or_else(|| SqlError::new(SqlState::S_E_INVALID_SPECIFICATION, format!("savepoint \"{name}\" does not exist")))
    }

    async fn end_block(&mut self, commit: bool, chain: bool) -> Result<String, SqlError> {
        let explicit = matches!(self.block.kind, Kind::Explicit | Kind::Failed);
        if !explicit {
            if chain {
                let what = if commit { "COMMIT AND CHAIN" } else { "ROLLBACK AND CHAIN" };
                self.need_block(what)?;
            }
            let warning = no_transaction();
            self.ctx.warning(warning.state(), warning.to_string());
        }
        let characteristics = chain.then(|| self.characteristics());
        let tag = if commit && self.block.kind != Kind::Failed {
            self.commit().await?;
            "COMMIT"
        } else {
            self.rollback()?;
            "ROLLBACK"
        };
        if let Some(options) = characteristics {
            self.ctx.statement_timestamp = now();
            self.begin_statement();
            self.block.kind = Kind::Explicit;
            self.apply_options(&options)?;
        }
        Ok(tag.into())
    }

    fn characteristics(&self) -> Vec<(String, String)> {
        [Setting::TransactionIsolation, Setting::TransactionReadOnly, Setting::TransactionDeferrable]
            .map(|s| (s.name().to_owned(), self.ctx.settings.show_setting(s)))
            .to_vec()
    }

    /// BEGIN's and SET TRANSACTION's options.
    pub(super) fn apply_options(&mut self, options: &[(String, String)]) -> Result<(), SqlError> {
        for (name, value) in options {
            let setting = match name.as_str() {
                "transaction_isolation" => Setting::TransactionIsolation,
                "transaction_read_only" => Setting::TransactionReadOnly,
                "transaction_deferrable" => Setting::TransactionDeferrable,
                _ => continue,
            };
            let value = Value::parse(setting.def(), value)?;
            self.set_characteristic(setting, value)?;
        }
        Ok(())
    }

    /// Whether the running transaction is as the setting says.
    pub(super) fn has_characteristic(&mut self, setting: Setting) -> Result<bool, SqlError> {
        let options = *self.ctx.transaction()?.options();
        #[expect(clippy::wildcard_enum_match_arm, reason = "no others are a transaction's")]
        Ok(match setting {
            Setting::TransactionIsolation => isolation(self.ctx.settings.str(setting)) == options.isolation,
            Setting::TransactionReadOnly => self.ctx.settings.bool(setting) == options.read_only,
            Setting::TransactionDeferrable => self.ctx.settings.bool(setting) == options.deferrable,
            _ => true,
        })
    }

    fn set_characteristic(&mut self, setting: Setting, value: Value) -> Result<(), SqlError> {
        let in_recovery = self.engine.is_in_recovery();
        let too_late = |message: &str| Err(SqlError::new(SqlState::ACTIVE_SQL_TRANSACTION, message));
        let transaction = self.ctx.transaction()?;
        match (setting, &value) {
            (Setting::TransactionIsolation, Value::Enum(label)) => {
                let wanted = isolation(label);
                if wanted != transaction.isolation() {
                    if transaction.has_queried() {
                        return too_late("SET TRANSACTION ISOLATION LEVEL must be called before any query");
                    }
                    if transaction.savepoints() > 0 {
                        return too_late("SET TRANSACTION ISOLATION LEVEL must not be called in a subtransaction");
                    }
                }
                if wanted == Isolation::Serializable && in_recovery {
                    return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "cannot use serializable mode in a hot standby")
                        .hint("You can use REPEATABLE READ instead."));
                }
                transaction.set_isolation(wanted);
            }
            (Setting::TransactionReadOnly, Value::Bool(read_only)) => {
                if !read_only && transaction.options().read_only {
                    if transaction.savepoints() > 0 {
                        return too_late("cannot set transaction read-write mode inside a read-only transaction");
                    }
                    if transaction.has_queried() {
                        return too_late("transaction read-write mode must be set before any query");
                    }
                }
                if !read_only && in_recovery {
                    return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "cannot set transaction read-write mode during recovery"));
                }
                transaction.set_read_only(*read_only);
            }
            (Setting::TransactionDeferrable, Value::Bool(deferrable)) => {
                if transaction.savepoints() > 0 {
                    return too_late("SET TRANSACTION [NOT] DEFERRABLE cannot be called within a subtransaction");
                }
                if transaction.has_queried() {
                    return too_late("SET TRANSACTION [NOT] DEFERRABLE must be called before any query");
                }
                transaction.set_deferrable(*deferrable);
            }
            _ => {}
        }
        self.ctx.settings.set_internal(setting, value, SetScope::Local);
        Ok(())
    }

    /// Takes an error as the end of the statement; `Ok` if the session goes on.
    pub(super) fn settle(&mut self, result: Result<(), SqlError>) -> Result<bool, End> {
        match result {
            Ok(()) => Ok(true),
            Err(e) => self.fail(e).map(|()| false),
        }
    }
}
