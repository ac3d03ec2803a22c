//! The simple protocol, and what one statement does in either.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pg_query::NodeEnum;
use pg_query::protobuf::{self, DiscardMode};

use super::block::{Kind, aborted};
use super::client::{End, Session, redact};
use super::extended::StatementEntry;
use super::output::{RowWriter, describe};
use super::registry::now;
use crate::config::Setting;
use crate::control::log::{self, Entry, Level};
use crate::executor::copy::CopyInState;
use crate::executor::{Exec, ExecState, Portal, PortalStatus, Prepared, RawStmt, StmtKind, TransactionKind};
use crate::sql::types::Datum;
use crate::sql::{self, Lookup};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::CancelReason;
use crate::wire::frontend::MAX_MESSAGE_BYTES;
use crate::wire::{CopyKind, Frontend};

/// Raises the cancel flag when the statement takes too long; forgotten when dropped.
pub(super) struct Deadline(Option<tokio::task::JoinHandle<()>>);

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Whether a statement may run in a failed block.
pub(super) fn ends_block(kind: &StmtKind) -> bool {
    matches!(
        kind,
        StmtKind::Transaction(
            TransactionKind::Commit(_) | TransactionKind::Rollback(_) | TransactionKind::RollbackTo(_) | TransactionKind::Prepare(_)
        )
    )
}

/// Settings that parsing, binding, constant folding and planning look at.
const PLAN_SETTINGS: &[Setting] = &[
    Setting::SearchPath,
    Setting::TimeZone,
    Setting::DateStyle,
    Setting::IntervalStyle,
    Setting::ByteaOutput,
    Setting::ExtraFloatDigits,
    Setting::ArrayNulls,
    Setting::StandardConformingStrings,
    Setting::TransformNullEquals,
    Setting::DefaultTextSearchConfig,
    Setting::Xmlbinary,
    Setting::WorkMem,
    Setting::HashMemMultiplier,
    Setting::EnableBitmapscan,
    Setting::EnableHashagg,
    Setting::EnableHashjoin,
    Setting::EnableIndexonlyscan,
    Setting::EnableIndexscan,
    Setting::EnableMaterial,
    Setting::EnableMergejoin,
    Setting::EnableNestloop,
    Setting::EnableSeqscan,
    Setting::EnableSort,
    Setting::EnableTidscan,
];

impl Session {
    pub(super) fn deadline(&self) -> Deadline {
        let limit = self.ctx.settings.duration(Setting::StatementTimeout).filter(|d| !d.is_zero());
        Deadline(limit.map(|limit| {
            let entry = Arc::clone(&self.registered.entry);
            tokio::spawn(async move {
                tokio::time::sleep(limit).await;
                entry.stop(CancelReason::StatementTimeout);
            })
        }))
    }

    /// A Query message: all its statements, up to the first that fails.
    pub(super) async fn simple_query(&mut self, text: String) -> Result<(), End> {
        self.ctx.statement_timestamp = now();
        let began = Instant::now();
        self.ctx.cancel.reset();
        let shared: Arc<str> = text.into();
        self.active(&shared);
        // A Query destroys the unnamed statement and portal.
        self.statements.remove("");
        self.portals.remove("");
        let mut deadline = self.deadline();
        if let Some(wait) = super::wait_for::parse(&shared) {
            let logged = self.log_statement(&shared, &[]);
            let done = match wait {
                Ok(wait) => self.simple_wait_for_lsn(&wait).await,
                Err(e) => Err(e),
            };
            if let Err(e) = done {
                self.fail(e)?;
            }
            self.log_duration(began.elapsed(), &shared, logged);
            return Ok(());
        }
        if let Err(e) = self.wait_for_reads(&shared) {
            self.begin_statement();
            return self.fail(e);
        }
        let context = self.plan_context();
        let mut known = match &context {
            Some(context) => {
                self.begin_statement();
                self.plans.look_up(&self.ctx, context, &shared)
            }
            None => Lookup::Miss,
        };
        if let Lookup::Hit(prepared, values) = known {
            match prepared.lock(&mut self.ctx) {
                Ok(true) => return self.known(prepared, values, began, &shared).await,
                // Changed while its locks were waited for: as if it had never been seen.
                Ok(false) => known = Lookup::Miss,
                Err(e) => return self.not_run(e, began, &shared),
            }
        }
        let statements = match sql::parse_statements(&shared) {
            Ok(statements) => statements,
            Err(e) => {
                self.begin_statement();
                return self.fail(e);
            }
        };
        if let (Lookup::Learn, Some(context), [statement]) = (known, &context, statements.as_slice()) {
            let plans = Arc::clone(&self.plans);
            match plans.learn(&mut self.ctx, context, &shared, statement) {
                Ok(Some((prepared, values))) => return self.known(prepared, values, began, &shared).await,
                Ok(None) => {}
                Err(e) => return self.not_run(e, began, &shared),
            }
        }
        let logged = self.log_statement(&shared, &statements);
        if statements.is_empty() {
            self.conn.out.empty(b'I');
        }
        let many = statements.len() > 1;
        let mut left = statements.len();
        for statement in statements {
            left -= 1;
            if let Err(e) = self.one(statement, many, left == 0).await {
                self.fail(e)?;
                break;
            }
            if left > 0 {
                // Each statement has its time, by the setting of now.
                drop(std::mem::replace(&mut deadline, self.deadline()));
            }
        }
        drop(deadline);
        // Nothing is left to commit unless the query was empty or ended in a failed block.
        let ended = self.end_statement().await;
        self.settle(ended)?;
        self.log_duration(began.elapsed(), &shared, logged);
        Ok(())
    }

    /// What a plan depends on besides the catalogs; `None` while plans are not to be shared.
    pub(super) fn plan_context(&mut self) -> Option<Arc<str>> {
        let settings = &self.ctx.settings;
        let (version, user) = (settings.version(), self.ctx.user);
        if self.block.kind == Kind::Failed
            || settings.str(Setting::LogStatement) != "none"
            || settings.str(Setting::PlanCacheMode) == "force_custom_plan"
        {
            return None;
        }
        if let Some((v, u, context)) = &self.plan_context
            && (*v, *u) == (version, user)
        {
            return Some(Arc::clone(context));
        }
        let mut context = format!("{}\0{user}", self.ctx.database);
        for setting in PLAN_SETTINGS {
            context.push('\0');
            context.push_str(&settings.show_setting(*setting));
        }
        let context: Arc<str> = context.into();
        self.plan_context = Some((version, user, Arc::clone(&context)));
        Some(context)
    }

    /// A query that is one statement with a plan from the cache.
    async fn known(&mut self, prepared: Arc<Prepared>, values: Vec<Datum>, began: Instant, text: &str) -> Result<(), End> {
        if let Err(e) = self.run_known(prepared, values).await {
            self.fail(e)?;
        }
        let ended = self.end_statement().await;
        self.settle(ended)?;
        self.log_duration(began.elapsed(), text, false);
        Ok(())
    }

    /// A query that failed before it ran.
    fn not_run(&mut self, error: SqlError, began: Instant, text: &str) -> Result<(), End> {
        self.fail(error)?;
        self.log_duration(began.elapsed(), text, false);
        Ok(())
    }

    async fn run_known(&mut self, prepared: Arc<Prepared>, values: Vec<Datum>) -> Result<(), SqlError> {
        let mut portal = sql::open_portal(&mut self.ctx, prepared, values)?;
        let tag = self.run_whole(&mut portal).await?;
        self.take_settings();
        self.end_command()?;
        // The client hears of success only when it is one.
        self.end_statement().await?;
        self.send_notices();
        if let Some(tag) = tag {
            self.conn.out.command_complete(&tag);
        }
        Ok(())
    }

    async fn one(&mut self, statement: RawStmt, many: bool, last: bool) -> Result<(), SqlError> {
        let kind = statement.kind();
        if self.block.kind == Kind::Failed && !ends_block(&kind) {
            return Err(aborted());
        }
        if !matches!(kind, StmtKind::Set | StmtKind::Show | StmtKind::Transaction(_)) {
            // It may have been set by a statement before this one.
            self.wait_for_reads("")?;
        }
        self.begin_statement();
        if many && !matches!(kind, StmtKind::Transaction(_)) {
            self.make_implicit();
            self.ctx.in_block = true;
        }
        let tag = self.run_statement(statement, kind).await?;
        self.take_settings();
        self.end_command()?;
        if last {
            // The client hears of success only when it is one.
            self.end_statement().await?;
        }
        self.send_notices();
        if let Some(tag) = tag {
            self.conn.out.command_complete(&tag);
        }
        Ok(())
    }

    /// Runs one statement of a simple query; rows go to the client in text. Returns the tag.
    async fn run_statement(&mut self, statement: RawStmt, kind: StmtKind) -> Result<Option<String>, SqlError> {
        match kind {
            StmtKind::Transaction(kind) => self.transaction_statement(kind).await.map(Some),
            StmtKind::Prepare => self.sql_prepare(&statement).map(Some),
            StmtKind::Deallocate(name) => self.sql_deallocate(name).map(Some),
            StmtKind::DeclareCursor => self.declare_cursor(&statement).map(Some),
            StmtKind::ClosePortal(name) => self.close_cursor(name).map(Some),
            StmtKind::Fetch => self.fetch(&statement, Some(&[])).map(Some),
            StmtKind::Execute => {
                let mut portal = self.sql_execute(&statement)?;
                self.run_whole(&mut portal).await
            }
            StmtKind::Copy
            | StmtKind::Select
            | StmtKind::Modify
            | StmtKind::Explain
            | StmtKind::Set
            | StmtKind::Show
            | StmtKind::Notify
            | StmtKind::Utility => {
                if let NodeEnum::DiscardStmt(discard) = &*statement.node {
                    return self.discard(discard.target()).map(Some);
                }
                if let Some(mut portal) = self.explain_execute(&statement)? {
                    return self.run_whole(&mut portal).await;
                }
                let prepared = sql::prepare(&mut self.ctx, statement, &[])?;
                let mut portal = sql::open_portal(&mut self.ctx, prepared, Vec::new())?;
                let tag = self.run_whole(&mut portal).await?;
                if kind == StmtKind::Set {
                    self.follow_characteristics()?;
                }
                Ok(tag)
            }
        }
    }

    /// DISCARD. Temporary tables and cached sequence values are the executor's.
    pub(super) fn discard(&mut self, what: DiscardMode) -> Result<String, SqlError> {
        match what {
            DiscardMode::DiscardPlans => Ok("DISCARD PLANS".into()),
            DiscardMode::DiscardSequences => {
                self.ctx.sequences.discard();
                Ok("DISCARD SEQUENCES".into())
            }
            DiscardMode::DiscardTemp => {
                crate::executor::utility::discard_temp(&mut self.ctx)?;
                Ok("DISCARD TEMP".into())
            }
            DiscardMode::DiscardAll => {
                self.ctx.prevent_in_block("DISCARD ALL")?;
                self.portals.clear();
                self.statements.clear();
                self.ctx.settings.reset_all();
                self.ctx.sequences.discard();
                crate::executor::utility::discard_temp(&mut self.ctx)?;
                if let Some(transaction) = &self.ctx.transaction {
                    transaction.unlock_all_for_session();
                }
                Ok("DISCARD ALL".into())
            }
            DiscardMode::Undefined => Err(SqlError::internal("DISCARD of nothing")),
        }
    }

    /// SET of `transaction_isolation` and its kin concerns the running transaction.
    pub(super) fn follow_characteristics(&mut self) -> Result<(), SqlError> {
        if self.ctx.transaction.is_none() {
            return Ok(());
        }
        for setting in [Setting::TransactionIsolation, Setting::TransactionReadOnly, Setting::TransactionDeferrable] {
            if self.ctx.settings.is_overridden(setting) && !self.has_characteristic(setting)? {
                let value = self.ctx.settings.show_setting(setting);
                self.apply_options(&[(setting.name().to_owned(), value)])?;
            }
        }
        Ok(())
    }

    /// Runs a portal to its end, with RowDescription first.
    async fn run_whole(&mut self, portal: &mut Portal) -> Result<Option<String>, SqlError> {
        let prepared = Arc::clone(&portal.prepared);
        if let Some(columns) = &prepared.columns {
            describe(&mut self.conn, columns, &[]);
        }
        let columns = prepared.columns.as_deref().unwrap_or(&[]);
        let io = self.ctx.io.clone();
        let mut sink = RowWriter::new(&mut self.conn, columns, &[], &io);
        let status = portal.run(&mut self.ctx, 0, &mut sink)?;
        let copying = sink.copying;
        match status {
            PortalStatus::Complete(tag) => {
                if copying {
                    self.conn.out.empty(b'c');
                }
                Ok(Some(tag))
            }
            PortalStatus::Suspended => Ok(Some(String::new())),
            PortalStatus::CopyIn(state) => self.copy_in(*state).await.map(Some),
        }
    }

    /// COPY FROM STDIN: takes data until the client ends or breaks it off.
    pub(super) async fn copy_in(&mut self, mut state: CopyInState) -> Result<String, SqlError> {
        self.send_notices();
        self.conn.out.copy_response(CopyKind::In, state.is_binary(), state.columns());
        loop {
            let message = match self.conn.decode(MAX_MESSAGE_BYTES) {
                Ok(Some(message)) => message,
                Ok(None) => {
                    let entry = Arc::clone(&self.registered.entry);
                    if self.conn.flush().await.is_err() {
                        return Err(client_left());
                    }
                    tokio::select! {
                        read = self.conn.fill() => read.map_err(|_| client_left())?,
                        () = entry.wake.notified() => self.ctx.check_cancel()?,
                    }
                    continue;
                }
                Err(super::stream::ReadError::Wire(w)) => return Err(w.into()),
                Err(super::stream::ReadError::Closed) => return Err(client_left()),
            };
            match message {
                Frontend::CopyData(bytes) => state.data(&mut self.ctx, &bytes)?,
                Frontend::CopyDone => return state.finish(&mut self.ctx),
                Frontend::CopyFail(reason) => {
                    return Err(SqlError::new(SqlState::QUERY_CANCELED, format!("COPY from stdin failed: {reason}")));
                }
                // Clients may send these without knowing that a COPY is going on.
                Frontend::Flush | Frontend::Sync => {}
                Frontend::Terminate => return Err(client_left()),
                Frontend::Query(_)
                | Frontend::Parse { .. }
                | Frontend::Bind { .. }
                | Frontend::Describe(_)
                | Frontend::Execute { .. }
                | Frontend::Close(_)
                | Frontend::FunctionCall
                | Frontend::Password(_) => {
                    return Err(SqlError::new(SqlState::PROTOCOL_VIOLATION, "unexpected message type during COPY from stdin").fatal());
                }
            }
        }
    }

    // ---- PREPARE, EXECUTE, DEALLOCATE

    pub(super) fn sql_prepare(&mut self, statement: &RawStmt) -> Result<String, SqlError> {
        let NodeEnum::PrepareStmt(p) = &*statement.node else { return Err(SqlError::internal("not a PREPARE")) };
        if self.statements.contains_key(&p.name) {
            return Err(duplicate_statement(&p.name));
        }
        let mut types = Vec::with_capacity(p.argtypes.len());
        for node in &p.argtypes {
            let Some(NodeEnum::TypeName(name)) = &node.node else { return Err(SqlError::internal("not a type name")) };
            let front_end = self.ctx.front_end;
            types.push(front_end.resolve_type(&mut self.ctx, name)?.0);
        }
        let Some(node) = p.query.as_ref().and_then(|q| q.node.clone()) else {
            return Err(SqlError::internal("PREPARE without a statement"));
        };
        let inner = statement.with_node(node);
        let kind = inner.kind();
        let prepared = sql::prepare(&mut self.ctx, inner, &types)?;
        self.statements.insert(p.name.clone(), StatementEntry::new(Some(prepared), kind, Arc::clone(&self.text), types, &self.ctx));
        Ok("PREPARE".into())
    }

    pub(super) fn sql_deallocate(&mut self, name: Option<String>) -> Result<String, SqlError> {
        match name {
            None => {
                self.statements.clear();
                Ok("DEALLOCATE ALL".into())
            }
            Some(name) => match self.statements.remove(&name) {
                Some(_) => Ok("DEALLOCATE".into()),
                None => Err(unknown_statement(&name)),
            },
        }
    }

    /// The portal of an EXECUTE.
    pub(super) fn sql_execute(&mut self, statement: &RawStmt) -> Result<Portal, SqlError> {
        let NodeEnum::ExecuteStmt(e) = &*statement.node else { return Err(SqlError::internal("not an EXECUTE")) };
        let (prepared, values) = self.executed(e)?;
        sql::open_portal(&mut self.ctx, prepared, values)
    }

    /// The statement that an EXECUTE names, and the values of its parameters.
    fn executed(&mut self, e: &protobuf::ExecuteStmt) -> Result<(Arc<Prepared>, Vec<Datum>), SqlError> {
        let prepared = self.current_statement(&e.name)?.ok_or_else(|| unknown_statement(&e.name))?;
        // Where none is needed those given are not looked at: PostgreSQL's `ExecuteQuery`.
        if !prepared.param_types.is_empty() && e.params.len() != prepared.param_types.len() {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("wrong number of parameters for prepared statement \"{}\"", e.name))
                .detail(format!("Expected {} parameters but got {}.", prepared.param_types.len(), e.params.len())));
        }
        let mut values = Vec::with_capacity(e.params.len());
        for (node, type_oid) in e.params.iter().zip(&prepared.param_types) {
            let front_end = self.ctx.front_end;
            let expression = front_end.table_expression(&mut self.ctx, node, None, Some((*type_oid, -1)), "EXECUTE parameters")?;
            let mut state = ExecState::bare();
            let mut exec = Exec { session: &mut self.ctx, state: &mut state };
            values.push(expression.code.eval(&mut exec, &[])?);
        }
        Ok((prepared, values))
    }

    /// EXPLAIN of an EXECUTE, as one of the statement that this names; `None` if it is of something else.
    pub(super) fn explain_execute(&mut self, statement: &RawStmt) -> Result<Option<Portal>, SqlError> {
        let NodeEnum::ExplainStmt(explain) = &*statement.node else { return Ok(None) };
        let Some(NodeEnum::ExecuteStmt(e)) = explain.query.as_ref().and_then(|q| q.node.as_ref()) else { return Ok(None) };
        let (prepared, values) = self.executed(e)?;
        let inner = protobuf::Node { node: Some((*prepared.statement.node).clone()) };
        let explain = protobuf::ExplainStmt { query: Some(Box::new(inner)), options: explain.options.clone() };
        let statement = prepared.statement.with_node(NodeEnum::ExplainStmt(Box::new(explain)));
        let prepared = sql::prepare(&mut self.ctx, statement, &prepared.param_types)?;
        sql::open_portal(&mut self.ctx, prepared, values).map(Some)
    }

    // ---- logging

    /// Whether `log_statement` asks for statements of this kind.
    pub(super) fn is_logged(&self, kind: &StmtKind) -> bool {
        match self.ctx.settings.str(Setting::LogStatement) {
            "all" => true,
            "mod" => matches!(kind, StmtKind::Modify | StmtKind::Copy | StmtKind::Utility | StmtKind::Execute),
            "ddl" => matches!(kind, StmtKind::Utility),
            _ => false,
        }
    }

    fn log_statement(&self, text: &str, statements: &[RawStmt]) -> bool {
        let wanted = statements.iter().any(|s| self.is_logged(&s.kind()));
        if wanted {
            let line = format!("statement: {}", redact(text));
            log::emit(Some(&self.who), &Entry::new(Level::Log, &line));
        }
        wanted
    }

    pub(super) fn log_duration(&self, took: Duration, text: &str, logged: bool) {
        let least = self.ctx.settings.int(Setting::LogMinDurationStatement);
        let always = self.ctx.settings.bool(Setting::LogDuration);
        let millis = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
        let slow = least >= 0 && millis >= least;
        if !slow && !always {
            return;
        }
        let shown = format!("duration: {}.{:03} ms", took.as_millis(), took.as_micros() % 1000);
        let line = if slow && !logged { format!("{shown}  statement: {}", redact(text)) } else { shown };
        log::emit(Some(&self.who), &Entry::new(Level::Log, &line));
    }
}

fn client_left() -> SqlError {
    SqlError::new(SqlState::CONNECTION_FAILURE, "unexpected EOF on client connection with an open transaction").fatal()
}

pub(super) fn duplicate_statement(name: &str) -> SqlError {
    SqlError::new(SqlState::DUPLICATE_PREPARED_STATEMENT, format!("prepared statement \"{name}\" already exists"))
}

pub(super) fn unknown_statement(name: &str) -> SqlError {
    let text = if name.is_empty() {
        "unnamed prepared statement does not exist".to_owned()
    } else {
        format!("prepared statement \"{name}\" does not exist")
    };
    SqlError::new(SqlState::INVALID_SQL_STATEMENT_NAME, text)
}

pub(super) fn duplicate_portal(name: &str) -> SqlError {
    SqlError::new(SqlState::DUPLICATE_CURSOR, format!("cursor \"{name}\" already exists"))
}

pub(super) fn unknown_cursor(name: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_CURSOR_NAME, format!("cursor \"{name}\" does not exist"))
}
