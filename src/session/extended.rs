//! The extended protocol: Parse, Bind, Describe, Execute, Close, Sync.

use std::sync::Arc;

use bytes::Bytes;

use super::block::{Kind, aborted};
use super::client::{End, Session};
use super::cursor::Cursor;
use super::output::{RowWriter, describe, format_of};
use super::query::{duplicate_portal, duplicate_statement, ends_block, unknown_statement};
use super::registry::now;
use super::wait_for::{self, WaitFor};
use crate::control::log::{self, Entry, Level};
use crate::executor::{ColumnDesc, Portal, PortalStatus, Prepared, SessionContext, StmtKind};
use crate::sql::types::{Datum, Oid, binary_recv, text_in};
use crate::sql::{self, Lookup};
use crate::sqlstate::{SqlError, SqlState};
use crate::wire::{CloseTarget, Frontend};

/// A prepared statement of the session.
pub(super) struct StatementEntry {
    /// `None` for an empty statement.
    prepared: Option<Arc<Prepared>>,
    /// WAIT FOR, which the grammar does not know; `prepared` is `None` then.
    wait: Option<WaitFor>,
    pub(super) kind: StmtKind,
    pub(super) text: Arc<str>,
    /// Parameter types as the client gave them.
    types: Vec<Oid>,
    /// Catalog version it was prepared at.
    version: Option<u64>,
    settings_version: u64,
}

impl StatementEntry {
    pub(super) fn new(prepared: Option<Arc<Prepared>>, kind: StmtKind, text: Arc<str>, types: Vec<Oid>, ctx: &SessionContext) -> Self {
        Self { prepared, wait: None, kind, text, types, version: ctx.catalog.version(), settings_version: ctx.settings.version() }
    }
}

/// A portal, or a cursor.
pub(super) struct PortalEntry {
    /// `None` for an empty statement.
    pub(super) portal: Option<Portal>,
    wait: Option<WaitFor>,
    kind: StmtKind,
    text: Arc<str>,
    pub(super) formats: Vec<i16>,
    pub(super) done: bool,
    /// A cursor WITH HOLD that holds its rows by now.
    pub(super) outlives_transaction: bool,
    pub(super) cursor: Cursor,
}

impl PortalEntry {
    pub(super) fn cursor(portal: Portal, cursor: Cursor) -> Self {
        let text = Arc::clone(&portal.prepared.statement.source);
        Self {
            portal: Some(portal),
            wait: None,
            kind: StmtKind::Select,
            text,
            formats: Vec::new(),
            done: false,
            outlives_transaction: false,
            cursor,
        }
    }
}

impl Session {
    /// One message of the extended protocol. After an error the rest up to Sync is skipped.
    pub(super) async fn extended(&mut self, message: Frontend) -> Result<(), End> {
        let result = match message {
            Frontend::Parse { name, query, types } => self.parse(name, query, types),
            Frontend::Bind { portal, statement, param_formats, params, result_formats } => {
                self.bind(portal, &statement, &param_formats, &params, result_formats)
            }
            Frontend::Describe(target) => self.describe(&target),
            Frontend::Execute { portal, max_rows } => self.execute(&portal, max_rows).await,
            Frontend::Close(target) => {
                match target {
                    CloseTarget::Statement(name) => drop(self.statements.remove(&name)),
                    CloseTarget::Portal(name) => drop(self.portals.remove(&name)),
                }
                self.conn.out.empty(b'3');
                Ok(())
            }
            Frontend::Query(_)
            | Frontend::Flush
            | Frontend::Sync
            | Frontend::CopyData(_)
            | Frontend::CopyDone
            | Frontend::CopyFail(_)
            | Frontend::FunctionCall
            | Frontend::Password(_)
            | Frontend::Terminate => Ok(()),
        };
        if let Err(e) = result {
            self.skipping = true;
            self.fail(e)?;
        }
        Ok(())
    }

    /// Sync: what was not in a block is committed.
    pub(super) async fn sync(&mut self) -> Result<(), End> {
        let ended = self.end_statement().await;
        self.settle(ended)?;
        self.send_notices();
        Ok(())
    }

    fn parse(&mut self, name: String, query: String, types: Vec<u32>) -> Result<(), SqlError> {
        self.ctx.statement_timestamp = now();
        let text: Arc<str> = query.into();
        self.active(&text);
        self.wait_for_reads(&text)?;
        if name.is_empty() {
            self.statements.remove("");
        } else if self.statements.contains_key(&name) {
            return Err(duplicate_statement(&name));
        }
        let context = self.plan_context();
        let mut known = match &context {
            Some(context) => {
                self.begin_statement();
                self.plans.look_up_parsed(&self.ctx, context, &text, &types)
            }
            None => Lookup::Miss,
        };
        let _deadline = self.deadline();
        if let Lookup::Hit(prepared, _) = &known
            && !prepared.lock(&mut self.ctx)?
        {
            known = Lookup::Miss;
        }
        let entry = match known {
            Lookup::Hit(prepared, _) => {
                let kind = prepared.statement.kind();
                StatementEntry::new(Some(prepared), kind, text, types, &self.ctx)
            }
            Lookup::Learn | Lookup::Miss => {
                let entry = self.parse_unknown(text, types)?;
                if let (Lookup::Learn, Some(context), Some(prepared)) = (known, &context, &entry.prepared) {
                    self.plans.keep(&self.ctx, context, &entry.text, &entry.types, prepared);
                }
                entry
            }
        };
        self.statements.insert(name, entry);
        self.conn.out.empty(b'1');
        Ok(())
    }

    fn parse_unknown(&mut self, text: Arc<str>, types: Vec<Oid>) -> Result<StatementEntry, SqlError> {
        if let Some(wait) = wait_for::parse(&text) {
            let wait = Some(wait?);
            if self.block.kind == Kind::Failed {
                return Err(aborted());
            }
            self.begin_unless_failed();
            return Ok(StatementEntry { wait, ..StatementEntry::new(None, StmtKind::Utility, text, types, &self.ctx) });
        }
        let mut statements = sql::parse_statements(&text)?;
        if statements.len() > 1 {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "cannot insert multiple commands into a prepared statement"));
        }
        Ok(match statements.pop() {
            None => {
                self.begin_unless_failed();
                StatementEntry::new(None, StmtKind::Utility, text, types, &self.ctx)
            }
            Some(statement) => {
                let kind = statement.kind();
                if self.block.kind == Kind::Failed && !ends_block(&kind) {
                    return Err(aborted());
                }
                self.begin_unless_failed();
                let prepared = sql::prepare(&mut self.ctx, statement, &types)?;
                StatementEntry::new(Some(prepared), kind, text, types, &self.ctx)
            }
        })
    }

    /// Begins a transaction if none runs; in a failed block there is none to begin.
    fn begin_unless_failed(&mut self) {
        if self.block.kind != Kind::Failed {
            self.begin_statement();
        }
    }

    /// The statement as of now: prepared again if the catalogs or the settings it was bound under have changed.
    pub(super) fn current_statement(&mut self, name: &str) -> Result<Option<Arc<Prepared>>, SqlError> {
        let Some(entry) = self.statements.get(name) else { return Err(unknown_statement(name)) };
        let Some(prepared) = &entry.prepared else { return Ok(None) };
        let version = self.ctx.catalog.version();
        let settings_version = self.ctx.settings.version();
        let fresh = version.is_some() && version == entry.version && settings_version == entry.settings_version;
        if fresh || matches!(entry.kind, StmtKind::Transaction(_)) || self.block.kind == Kind::Failed {
            return Ok(Some(Arc::clone(prepared)));
        }
        let again = sql::prepare(&mut self.ctx, prepared.statement.clone(), &entry.types)?;
        let same = |a: &Option<Vec<ColumnDesc>>, b: &Option<Vec<ColumnDesc>>| match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.name == b.name && a.type_oid == b.type_oid && a.typmod == b.typmod)
            }
            (None, Some(_)) | (Some(_), None) => false,
        };
        if !same(&again.columns, &prepared.columns) {
            return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "cached plan must not change result type"));
        }
        if let Some(entry) = self.statements.get_mut(name) {
            entry.prepared = Some(Arc::clone(&again));
            entry.version = version;
            entry.settings_version = settings_version;
        }
        Ok(Some(again))
    }

    fn bind(
        &mut self,
        name: String,
        statement: &str,
        formats: &[i16],
        params: &[Option<Bytes>],
        result_formats: Vec<i16>,
    ) -> Result<(), SqlError> {
        self.ctx.statement_timestamp = now();
        let Some(entry) = self.statements.get(statement) else { return Err(unknown_statement(statement)) };
        let (kind, text) = (entry.kind.clone(), Arc::clone(&entry.text));
        self.active(&text);
        let _deadline = self.deadline();
        self.wait_for_reads(&text)?;
        if formats.len() > 1 && formats.len() != params.len() {
            return Err(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                format!("bind message has {} parameter formats but {} parameters", formats.len(), params.len()),
            ));
        }
        if self.block.kind == Kind::Failed && !(ends_block(&kind) && params.is_empty()) {
            return Err(aborted());
        }
        if name.is_empty() {
            self.portals.remove("");
        } else if self.portals.contains_key(&name) {
            return Err(duplicate_portal(&name));
        }
        self.begin_unless_failed();
        let prepared = self.current_statement(statement)?;
        let types: &[Oid] = prepared.as_ref().map_or(&[], |p| &p.param_types);
        if params.len() != types.len() {
            return Err(SqlError::new(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but prepared statement \"{statement}\" requires {}",
                    params.len(),
                    types.len()
                ),
            ));
        }
        let mut values = Vec::with_capacity(params.len());
        for (i, (bytes, type_oid)) in params.iter().zip(types).enumerate() {
            values.push(self.param(i, bytes.as_deref(), format_of(formats, i), *type_oid)?);
        }
        let portal = match prepared {
            Some(prepared) => {
                let columns = prepared.columns.as_ref().map_or(0, Vec::len);
                if result_formats.len() > 1 && result_formats.len() != columns {
                    return Err(SqlError::new(
                        SqlState::PROTOCOL_VIOLATION,
                        format!("bind message has {} result formats but query has {columns} columns", result_formats.len()),
                    ));
                }
                Some(sql::open_portal(&mut self.ctx, prepared, values)?)
            }
            None => None,
        };
        let wait = self.statements.get(statement).and_then(|entry| entry.wait.clone());
        let entry = PortalEntry {
            portal,
            wait,
            kind,
            text,
            formats: result_formats,
            done: false,
            outlives_transaction: false,
            cursor: Cursor::default(),
        };
        self.portals.insert(name, entry);
        self.conn.out.empty(b'2');
        Ok(())
    }

    fn param(&self, i: usize, bytes: Option<&[u8]>, format: i16, type_oid: Oid) -> Result<Datum, SqlError> {
        let Some(bytes) = bytes else { return Ok(Datum::Null) };
        match format {
            0 => {
                let text = std::str::from_utf8(bytes)
                    .map_err(|_| SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, "invalid byte sequence for encoding \"UTF8\""))?;
                text_in(type_oid, -1, text, &self.ctx.io)
            }
            1 => binary_recv(type_oid, -1, bytes, &self.ctx.io).map_err(|e| e.context(format!("unnamed portal parameter ${}", i + 1))),
            other => Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("unsupported format code: {other}"))),
        }
    }

    fn describe(&mut self, target: &CloseTarget) -> Result<(), SqlError> {
        match target {
            CloseTarget::Statement(name) => {
                if !self.statements.contains_key(name) {
                    return Err(unknown_statement(name));
                }
                self.begin_unless_failed();
                if self.statements.get(name).is_some_and(|entry| entry.wait.is_some()) {
                    self.conn.out.parameter_description(&[]);
                    wait_for::describe(&mut self.conn.out, 0);
                    return Ok(());
                }
                let prepared = self.current_statement(name)?;
                let (types, columns) = match &prepared {
                    Some(p) => (p.param_types.as_slice(), p.columns.as_deref()),
                    None => (&[][..], None),
                };
                if self.block.kind == Kind::Failed && columns.is_some() {
                    return Err(aborted());
                }
                self.conn.out.parameter_description(types);
                match columns {
                    Some(columns) => describe(&mut self.conn, columns, &[]),
                    None => self.conn.out.empty(b'n'),
                }
            }
            CloseTarget::Portal(name) => {
                let Some(entry) = self.portals.get(name) else { return Err(unknown_portal(name)) };
                if entry.wait.is_some() {
                    wait_for::describe(&mut self.conn.out, format_of(&entry.formats, 0));
                    return Ok(());
                }
                let columns = entry.portal.as_ref().and_then(|p| p.prepared.columns.as_deref());
                if self.block.kind == Kind::Failed && columns.is_some() {
                    return Err(aborted());
                }
                match columns {
                    Some(columns) => describe(&mut self.conn, columns, &entry.formats),
                    None => self.conn.out.empty(b'n'),
                }
            }
        }
        Ok(())
    }

    async fn execute(&mut self, name: &str, max_rows: u32) -> Result<(), SqlError> {
        let Some(mut entry) = self.portals.remove(name) else { return Err(unknown_portal(name)) };
        let text = Arc::clone(&entry.text);
        self.active(&text);
        if self.block.kind == Kind::Failed && !ends_block(&entry.kind) {
            return Err(aborted());
        }
        self.wait_for_reads(&text)?;
        self.begin_unless_failed();
        if self.is_logged(&entry.kind) && !entry.done {
            let name = if name.is_empty() { "<unnamed>" } else { name };
            let line = format!("execute {name}: {}", super::client::redact(&text));
            log::emit(Some(&self.who), &Entry::new(Level::Log, &line));
        }
        let began = std::time::Instant::now();
        let _deadline = self.deadline();
        let complete = self.execute_portal(&mut entry, max_rows).await?;
        match complete {
            Some(tag) => {
                self.end_command()?;
                self.send_notices();
                self.conn.out.command_complete(&tag);
                entry.done = true;
            }
            None => self.send_notices(),
        }
        self.log_duration(began.elapsed(), &text, false);
        // A transaction statement has taken all portals with it.
        if self.ctx.transaction.is_some() || entry.outlives_transaction {
            self.portals.insert(name.to_owned(), entry);
        }
        Ok(())
    }

    /// Runs a portal; `None` if it is suspended or empty, whose messages are sent already.
    async fn execute_portal(&mut self, entry: &mut PortalEntry, max_rows: u32) -> Result<Option<String>, SqlError> {
        if let Some(wait) = &entry.wait {
            if entry.done {
                return Ok(Some("WAIT".into()));
            }
            // The statement's own transaction holds no snapshot yet.
            let status = self.wait_for_lsn(wait).await?;
            wait_for::put_status(&mut self.conn.out, status);
            return Ok(Some("WAIT".into()));
        }
        let Some(portal) = entry.portal.as_mut() else {
            self.conn.out.empty(b'I');
            return Ok(None);
        };
        let statement = portal.prepared.statement.clone();
        match entry.kind.clone() {
            StmtKind::Transaction(kind) => return self.transaction_statement(kind).await.map(Some),
            StmtKind::Prepare => return self.sql_prepare(&statement).map(Some),
            StmtKind::Deallocate(name) => return self.sql_deallocate(name).map(Some),
            StmtKind::DeclareCursor => return self.declare_cursor(&statement).map(Some),
            StmtKind::ClosePortal(name) => return self.close_cursor(name).map(Some),
            StmtKind::Fetch => return self.fetch(&statement, None).map(Some),
            StmtKind::Execute => {
                let inner = self.sql_execute(&statement)?;
                return self.run_inner(inner, &entry.formats).map(Some);
            }
            StmtKind::Explain => {
                if let Some(inner) = self.explain_execute(&statement)? {
                    return self.run_inner(inner, &entry.formats).map(Some);
                }
            }
            StmtKind::Copy
            | StmtKind::Select
            | StmtKind::Modify
            | StmtKind::Set
            | StmtKind::Show
            | StmtKind::Notify
            | StmtKind::Utility => {}
        }
        if let pg_query::NodeEnum::DiscardStmt(discard) = &*statement.node {
            return self.discard(discard.target()).map(Some);
        }
        if entry.done {
            // A portal that ran to its end has no more rows; one that changed something must not do it twice.
            if matches!(entry.kind, StmtKind::Select | StmtKind::Show | StmtKind::Explain) {
                return Ok(Some("SELECT 0".into()));
            }
            return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "portal cannot be run anymore"));
        }
        let prepared = Arc::clone(&portal.prepared);
        let columns = prepared.columns.as_deref().unwrap_or(&[]);
        let io = self.ctx.io.clone();
        let mut sink = RowWriter::new(&mut self.conn, columns, &entry.formats, &io);
        let status = portal.run(&mut self.ctx, u64::from(max_rows), &mut sink)?;
        let copying = sink.copying;
        match status {
            PortalStatus::Complete(tag) => {
                if copying {
                    self.conn.out.empty(b'c');
                }
                if entry.kind == StmtKind::Set {
                    self.follow_characteristics()?;
                }
                Ok(Some(tag))
            }
            PortalStatus::Suspended => {
                self.conn.out.empty(b's');
                Ok(None)
            }
            PortalStatus::CopyIn(state) => self.copy_in(*state).await.map(Some),
        }
    }

    /// Runs what an EXECUTE, or an EXPLAIN of one, stands for, to its end.
    fn run_inner(&mut self, mut inner: Portal, formats: &[i16]) -> Result<String, SqlError> {
        let prepared = Arc::clone(&inner.prepared);
        let columns = prepared.columns.as_deref().unwrap_or(&[]);
        let io = self.ctx.io.clone();
        let mut sink = RowWriter::new(&mut self.conn, columns, formats, &io);
        match inner.run(&mut self.ctx, 0, &mut sink)? {
            PortalStatus::Complete(tag) => Ok(tag),
            PortalStatus::Suspended => Ok(String::new()),
            PortalStatus::CopyIn(_) => Err(SqlError::unsupported("COPY inside EXECUTE")),
        }
    }
}

fn unknown_portal(name: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}
