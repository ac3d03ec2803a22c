//! One client's loop: a message in, its work done, one write when nothing more is waiting to be read.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use afterimage_wal::Lsn;
use futures_util::FutureExt as _;
use rustc_hash::FxHashMap;

use super::block::Block;
use super::extended::{PortalEntry, StatementEntry};
use super::registry::{Registered, SessionEntry, SessionState, now};
use super::server::Server;
use super::startup::Login;
use super::stream::{Connection, ReadError, Stream};
use crate::config::{SessionSettings, Setting};
use crate::control::log::{self, Entry, Level, Who};
use crate::engine::Engine;
use crate::executor::context::{Outlet, cancelled};
use crate::executor::{Notice, SessionContext};
use crate::replication::Replication;
use crate::replication::sender::After;
use crate::replication::{command, connection, sender};
use crate::sql::PlanCache;
use crate::sql::catalog::bootstrap::TEMPLATE1;
use crate::sql::catalog::{Catalog, Viewer};
use crate::sql::types::{ByteaOutput, DateOrder, DateStyle, IntervalStyle, IoSettings, Oid};
use crate::sqlstate::{Reach, SqlError, SqlState};
use crate::txn::cancel::Conflict;
use crate::txn::{CancelReason, LockLog};
use crate::wire::frontend::MAX_MESSAGE_BYTES;
use crate::wire::{Frontend, Writer};

/// Why a session ends.
pub(super) enum End {
    /// The client said so, or is gone.
    Client,
    /// It was told an error that ends it.
    Fatal,
}

/// One logged-in client.
pub(super) struct Session {
    pub(super) server: Arc<Server>,
    pub(super) engine: Arc<Engine>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) replication: Arc<Replication>,
    pub(super) conn: Connection,
    pub(super) ctx: SessionContext,
    pub(super) viewer: Viewer,
    pub(super) who: Who,
    pub(super) block: Block,
    pub(super) statements: FxHashMap<String, StatementEntry>,
    pub(super) portals: FxHashMap<String, PortalEntry>,
    /// After an error in the extended protocol: messages are skipped up to the next Sync.
    pub(super) skipping: bool,
    /// The statement text errors are logged with.
    pub(super) text: Arc<str>,
    is_walsender: bool,
    physical: bool,
    settings_version: u64,
    reported_version: u64,
    /// ReadyForQuery was the last it said.
    at_rest: bool,
    pub(super) plans: Arc<PlanCache>,
    /// What parsing and binding depend on but catalogs, and the settings' version and user it was put together for.
    pub(super) plan_context: Option<(u64, Oid, Arc<str>)>,
    /// `read_after_lsn`, as of this version of the settings.
    pub(super) read_after: (u64, Lsn),
    /// Threads that run sessions.
    pub(super) workers: usize,
    /// Last: the session leaves the list after everything else is gone.
    pub(super) registered: Registered,
}

/// Whether the client wants messages of a level.
fn is_wanted(settings: &SessionSettings, level: Level) -> bool {
    // For clients LOG lies between DEBUG1 and INFO.
    let rank = |l: Level| if l == Level::Log { (Level::Debug1, 1) } else { (l, 0) };
    level == Level::Info || rank(level) >= rank(Level::from_label(settings.str(Setting::ClientMinMessages)))
}

/// Notices on their way while the statement runs.
struct Direct {
    stream: Stream,
    entry: Arc<SessionEntry>,
    who: Who,
}

impl std::fmt::Debug for Direct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Direct").field("pid", &self.entry.pid).finish_non_exhaustive()
    }
}

impl LockLog for Direct {
    fn waited(&self, message: &str, detail: Option<&str>) {
        let (application, query) = {
            let activity = self.entry.activity.lock();
            (activity.application.to_string(), Arc::clone(&activity.query))
        };
        let who = Who { application, ..self.who.clone() };
        let statement = redact(&query);
        log::emit(Some(&who), &Entry { detail, statement: Some(&statement), ..Entry::new(Level::Log, message) });
    }
}

impl Outlet for Direct {
    fn notice(&self, settings: &SessionSettings, notice: &Notice) -> bool {
        if !is_wanted(settings, Level::from_label(notice.severity)) {
            return true;
        }
        let mut out = Writer::default();
        out.notice(notice.severity, notice.fields.fields());
        self.stream.write_at_once(&self.entry, &out.buf).is_ok()
    }
}

impl Session {
    pub(super) fn new(server: Arc<Server>, conn: Connection, registered: Registered, login: Login) -> Option<Self> {
        let services = server.services().ok()?;
        let (engine, catalog, replication) =
            (Arc::clone(&services.engine), Arc::clone(&services.catalog), Arc::clone(&services.replication));
        let plans = Arc::clone(&services.plans);
        let database = login.database.as_ref().map_or(TEMPLATE1, |d| d.oid);
        let viewer = Viewer {
            database,
            user: login.role.oid,
            user_name: Arc::clone(&login.role.name),
            search_path: login.settings.str(Setting::SearchPath).into(),
            temp_namespace: None,
        };
        let handle = catalog.handle_outside(viewer.clone(), &login.proc);
        let time = now();
        let mut ctx = SessionContext {
            engine: Arc::clone(&engine),
            proc: login.proc,
            cancel: Arc::clone(&registered.entry.cancel),
            transaction: None,
            in_block: false,
            config: Arc::clone(&server.config),
            login_user: login.role.oid,
            database,
            database_name: login.database.as_ref().map_or_else(|| "".into(), |d| Arc::clone(&d.name)),
            user: login.role.oid,
            user_name: Arc::clone(&login.role.name),
            session_user: login.role.oid,
            session_user_name: Arc::clone(&login.role.name),
            backend_pid: registered.entry.pid,
            settings: login.settings,
            timeouts_version: 0,
            io: IoSettings::default(),
            catalog: handle.clone(),
            sequences: crate::executor::catalog_function::SequenceCache::default(),
            variables: None,
            routines: crate::executor::routine::Routines::default(),
            deferral: crate::executor::deferral::Deferral::default(),
            temp_space: crate::executor::TempSpace::default(),
            on_commit: Vec::new(),
            notices: Vec::new(),
            told: 0,
            outlet: Some(Arc::new(Direct { stream: conn.stream.clone(), entry: Arc::clone(&registered.entry), who: login.who.clone() })),
            transaction_timestamp: time,
            statement_timestamp: time,
            front_end: &crate::sql::FRONT_END,
            externals: services.externals.clone(),
        };
        ctx.set_catalog(handle);
        Some(Self {
            server,
            engine,
            catalog,
            replication,
            conn,
            ctx,
            viewer,
            who: login.who,
            block: Block::new(),
            statements: FxHashMap::default(),
            portals: FxHashMap::default(),
            skipping: false,
            text: "".into(),
            is_walsender: login.replication,
            physical: login.replication && login.database.is_none(),
            settings_version: 0,
            reported_version: 0,
            at_rest: false,
            plans,
            plan_context: None,
            read_after: (u64::MAX, Lsn::INVALID),
            workers: tokio::runtime::Handle::current().metrics().num_workers(),
            registered,
        })
    }

    /// Serves until the client leaves or must.
    pub(super) async fn run(mut self) {
        let began = std::time::Instant::now();
        self.conn.session = Some(Arc::clone(&self.registered.entry));
        self.take_settings();
        self.conn.out.key_data(self.registered.entry.pid, self.registered.secret);
        // A bug in one session must not touch the others. What it had open is undone as after any error that ends a session.
        let end = match AssertUnwindSafe(self.serve()).catch_unwind().await {
            Ok(end) => end,
            Err(_) => {
                let _told = self.fail(SqlError::internal("internal error: the session panicked").fatal());
                End::Fatal
            }
        };
        if matches!(end, End::Fatal) {
            self.conn.session = None;
            // Best effort: a client that does not read must not keep the session.
            let _told = tokio::time::timeout(Duration::from_secs(1), self.conn.flush()).await;
        }
        self.abandon();
        if self.ctx.settings.bool(Setting::LogDisconnections) {
            let seconds = began.elapsed().as_secs();
            let text = format!(
                "disconnection: session time: {}:{:02}:{:02}.{:03} user={} database={} host={}{}",
                seconds / 3600,
                seconds / 60 % 60,
                seconds % 60,
                began.elapsed().subsec_millis(),
                self.who.user,
                self.who.database,
                self.who.host,
                if self.who.port.is_empty() { String::new() } else { format!(" port={}", self.who.port) },
            );
            log::emit(Some(&self.who), &Entry::new(Level::Log, &text));
        }
    }

    async fn serve(&mut self) -> End {
        self.ready();
        loop {
            let message = match self.conn.decode(MAX_MESSAGE_BYTES) {
                Ok(Some(message)) => message,
                Ok(None) => {
                    if self.conn.flush().await.is_err() {
                        return End::Client;
                    }
                    match self.wait().await {
                        Ok(()) => continue,
                        Err(end) => return end,
                    }
                }
                Err(e) => match self.broken(e) {
                    Some(end) => return end,
                    None => continue,
                },
            };
            if let Err(end) = self.handle(message).await {
                return end;
            }
        }
    }

    /// A message that does not decode.
    fn broken(&mut self, e: ReadError) -> Option<End> {
        match e {
            ReadError::Closed => Some(End::Client),
            ReadError::Wire(w) => {
                let end = self.fail(SqlError::from(w)).err();
                // What can be followed is followed up to the next Sync.
                self.skipping = true;
                end
            }
        }
    }

    async fn handle(&mut self, message: Frontend) -> Result<(), End> {
        self.at_rest = false;
        if self.skipping && !matches!(message, Frontend::Sync | Frontend::Terminate) {
            if matches!(message, Frontend::Query(_)) {
                self.skipping = false;
            } else {
                return Ok(());
            }
        }
        match message {
            Frontend::Query(text) => {
                if self.is_walsender && (self.physical || command::is_replication_command(&text)) {
                    self.replication_command(&text).await?;
                } else {
                    self.simple_query(text).await?;
                }
                self.ready();
            }
            Frontend::Sync => {
                self.skipping = false;
                self.sync().await?;
                self.ready();
            }
            Frontend::Flush => {
                if self.conn.flush().await.is_err() {
                    return Err(End::Client);
                }
            }
            Frontend::Terminate => return Err(End::Client),
            Frontend::FunctionCall => {
                self.fail(SqlError::unsupported("the function call message"))?;
                self.ready();
            }
            // Left over from a COPY that failed.
            Frontend::CopyData(_) | Frontend::CopyDone | Frontend::CopyFail(_) => {}
            Frontend::Password(_) => {
                self.fail(SqlError::new(SqlState::PROTOCOL_VIOLATION, "invalid frontend message type 112").fatal())?;
            }
            Frontend::Parse { .. } | Frontend::Bind { .. } | Frontend::Describe(_) | Frontend::Execute { .. } | Frontend::Close(_) => {
                self.extended(message).await?
            }
        }
        Ok(())
    }

    /// Waits for bytes from the client, for a call to end, or for an idle timeout.
    async fn wait(&mut self) -> Result<(), End> {
        self.conn.shrink();
        let (setting, reason) = match self.block.status() {
            crate::wire::BlockStatus::Idle => (Setting::IdleSessionTimeout, CancelReason::IdleSessionTimeout),
            // A failed one too.
            crate::wire::BlockStatus::InBlock | crate::wire::BlockStatus::Failed => {
                (Setting::IdleInTransactionSessionTimeout, CancelReason::IdleInTransactionTimeout)
            }
        };
        // Between messages of the extended protocol a session is not idle.
        let limit = self.ctx.settings.duration(setting).filter(|d| self.at_rest && !d.is_zero());
        let idle = limit.and_then(|d| tokio::time::Instant::now().checked_add(d)).map(|until| (until, reason));
        let entry = Arc::clone(&self.registered.entry);
        loop {
            let reason = match entry.cancel.reason() {
                // Nothing runs that could be cancelled, and the snapshot stays while the transaction does.
                Some(CancelReason::RecoveryConflict(Conflict::Snapshot)) if self.ctx.proc.oldest_snapshot().is_none() => None,
                Some(CancelReason::RecoveryConflict(kind)) if self.ctx.transaction.is_some() => {
                    Some(CancelReason::RecoveryConflictEnds(kind))
                }
                reason => reason,
            };
            if let Some(reason) = reason.filter(|r| r.ends_session()) {
                let _told = self.fail(cancelled(reason));
                return Err(End::Fatal);
            }
            let woken = match idle {
                None => tokio::select! {
                    read = self.conn.fill() => Some(read),
                    () = entry.wake.notified() => None,
                },
                Some((until, reason)) => tokio::select! {
                    read = self.conn.fill() => Some(read),
                    () = entry.wake.notified() => None,
                    () = tokio::time::sleep_until(until) => {
                        entry.cancel.cancel(reason);
                        None
                    }
                },
            };
            match woken {
                Some(Ok(())) => return Ok(()),
                Some(Err(_)) => {
                    if self.ctx.transaction.is_some() && log::enabled(Level::Log) {
                        log::emit(Some(&self.who), &Entry::new(Level::Log, "unexpected EOF on client connection with an open transaction"));
                    }
                    return Err(End::Client);
                }
                // Looked at above.
                None if matches!(entry.cancel.reason(), Some(CancelReason::RecoveryConflict(_))) => {}
                // A cancel request while idle is for no one.
                None => entry.cancel.reset(),
            }
        }
    }

    /// ReadyForQuery, after what changed since the last one.
    fn ready(&mut self) {
        self.take_settings();
        self.report();
        self.conn.out.ready(self.block.status());
        self.at_rest = true;
        self.registered.set_at_work(false);
        let state = match self.block.status() {
            crate::wire::BlockStatus::Idle => SessionState::Idle,
            crate::wire::BlockStatus::InBlock => SessionState::IdleInTransaction,
            crate::wire::BlockStatus::Failed => SessionState::IdleInTransactionAborted,
        };
        let mut activity = self.registered.entry.activity.lock();
        activity.state = state;
        activity.state_change = Some(self.ctx.statement_timestamp);
        activity.xact_start = self.ctx.transaction.is_some().then_some(self.ctx.transaction_timestamp);
    }

    /// ParameterStatus of what the client does not know yet.
    fn report(&mut self) {
        let version = self.ctx.settings.version();
        if version == self.reported_version {
            return;
        }
        self.reported_version = version;
        for (name, value) in self.ctx.settings.take_reports() {
            self.conn.out.parameter_status(name, &value);
        }
    }

    /// Takes reloaded server settings, and derives from the settings what statements use.
    pub(super) fn take_settings(&mut self) {
        if self.server.config.is_newer_than(self.ctx.settings.base().generation()) {
            self.ctx.settings.rebase(self.server.config.current());
        }
        let version = self.ctx.settings.version();
        if version == self.settings_version {
            return;
        }
        self.settings_version = version;
        let settings = &self.ctx.settings;
        apply_io(settings, &mut self.ctx.io);
        if &*self.viewer.search_path != settings.str(Setting::SearchPath) {
            self.viewer.search_path = settings.str(Setting::SearchPath).into();
        }
        if let Err(e) = crate::executor::setting::follow_role(&mut self.ctx) {
            // The role is gone; the session stays who it was.
            log::emit(Some(&self.who), &Entry::new(Level::Warning, &e.to_string()));
        }
        self.settings_version = self.ctx.settings.version();
        let application = self.ctx.settings.str(Setting::ApplicationName);
        if application != self.who.application {
            application.clone_into(&mut self.who.application);
            self.registered.entry.activity.lock().application = application.into();
        }
    }

    /// Notes for `pg_stat_activity` that a statement begins.
    pub(super) fn active(&mut self, text: &Arc<str>) {
        self.registered.set_at_work(true);
        self.text = Arc::clone(text);
        let mut activity = self.registered.entry.activity.lock();
        activity.state = SessionState::Active;
        activity.query = Arc::clone(text);
        activity.query_start = Some(self.ctx.statement_timestamp);
        activity.state_change = Some(self.ctx.statement_timestamp);
        if self.ctx.transaction.is_none() {
            // The one that begins with this statement.
            activity.xact_start = Some(self.ctx.statement_timestamp);
        }
    }

    /// Sends the notices that piled up.
    pub(super) fn send_notices(&mut self) {
        if self.ctx.notices.is_empty() {
            return;
        }
        let told = std::mem::take(&mut self.ctx.told);
        for (i, Notice { severity, fields }) in std::mem::take(&mut self.ctx.notices).into_iter().enumerate() {
            let level = Level::from_label(severity);
            if i >= told && is_wanted(&self.ctx.settings, level) {
                self.conn.out.notice(severity, fields.fields());
            }
            if log::enabled(level) && level >= Level::Warning {
                self.log_error(level, fields.fields());
            }
        }
    }

    fn log_error(&self, level: Level, fields: &crate::sqlstate::ErrorFields) {
        let least = Level::from_label(self.ctx.settings.str(Setting::LogMinErrorStatement));
        let statement = (level >= least && !self.text.is_empty()).then_some(&*self.text);
        let redacted = statement.map(|s| redact(s));
        log::emit(
            Some(&self.who),
            &Entry {
                level,
                sqlstate: fields.state.0,
                message: &fields.message,
                detail: fields.detail.as_deref(),
                hint: fields.hint.as_deref(),
                context: fields.context.as_deref(),
                statement: redacted.as_deref(),
                position: fields.position,
            },
        );
    }

    /// Tells the client and the log about an error, and does to the transaction what it must.
    pub(super) fn fail(&mut self, error: SqlError) -> Result<(), End> {
        // A stop that came meanwhile outranks whatever the statement made of it.
        let error = match self.registered.entry.cancel.reason() {
            Some(reason) if reason.ends_session() && error.fields().reach == Reach::Statement => cancelled(reason),
            _ => error,
        };
        self.send_notices();
        let fields = error.fields();
        let level = match fields.reach {
            Reach::Statement => Level::Error,
            Reach::Session => Level::Fatal,
            Reach::Node => Level::Panic,
        };
        if log::enabled(level) {
            self.log_error(level, fields);
        }
        self.conn.out.error(fields);
        match fields.reach {
            Reach::Statement => {
                self.transaction_failed();
                Ok(())
            }
            Reach::Session => Err(End::Fatal),
            Reach::Node => {
                // The kernel and the WAL have what is durable; what is in memory cannot be trusted any more.
                std::process::abort();
            }
        }
    }

    /// The session is over: what it had open is undone.
    fn abandon(&mut self) {
        self.portals.clear();
        self.statements.clear();
        let pid = self.registered.entry.pid;
        self.replication.slots.end_session(pid);
        if self.replication.file_copies.end_session(pid) {
            let text = "aborting backup due to backend exiting before pg_backup_stop was called";
            log::emit(Some(&self.who), &Entry::new(Level::Warning, text));
        }
        if let Some(transaction) = self.ctx.transaction.take()
            && let Err(e) = transaction.abort()
        {
            log::emit(Some(&self.who), &Entry::new(Level::Warning, &format!("could not record the end of a transaction: {e}")));
        }
        self.drop_temporary();
        self.ctx.engine.ctx().txns.locks().end_session(&self.ctx.proc);
    }

    /// `SHOW` on a replication connection, with this role's rights: columns and rows.
    #[expect(clippy::type_complexity, reason = "columns and rows")]
    fn show_for_walsender(&self, name: &str) -> Result<(Vec<String>, Vec<Vec<Option<String>>>), SqlError> {
        const PG_READ_ALL_SETTINGS: u32 = 3374;
        let all = self.ctx.catalog.has_privileges_of(self.ctx.user, PG_READ_ALL_SETTINGS)?;
        let mut base = SessionSettings::new(self.server.config.current());
        base.set_superuser(true);
        let settings = if all { &base } else { &self.ctx.settings };
        if name != "all" {
            return Ok((vec![name.to_owned()], vec![vec![Some(settings.show(name)?)]]));
        }
        let mut rows = Vec::new();
        for def in crate::config::TABLE.iter().filter(|d| !d.has(crate::config::flag::NO_SHOW_ALL)) {
            match settings.show(def.name) {
                Ok(value) => rows.push(vec![Some(def.name.to_owned()), Some(value), Some(def.doc.to_owned())]),
                Err(e) if e.state() == SqlState::INSUFFICIENT_PRIVILEGE => {}
                Err(e) => return Err(e),
            }
        }
        Ok((["name", "setting", "description"].map(str::to_owned).to_vec(), rows))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    async fn replication_command(&mut self, text: &str) -> Result<(), End> {
        let shared: Arc<str> = text.into();
        self.ctx.statement_timestamp = now();
        self.active(&shared);
        let command = match command::parse(text) {
            Ok(command) => command,
            Err(e) => return self.fail(e),
        };
        if self.ctx.settings.bool(Setting::LogReplicationCommands) {
            let line = format!("received replication command: {text}");
            log::emit(Some(&self.who), &Entry::new(Level::Log, &line));
        }
        let shown = match &command {
            command::ReplicationCommand::Show(name) => match self.show_for_walsender(name) {
                Ok(shown) => Some(shown),
                Err(e) => return self.fail(e),
            },
            _ => None,
        };
        let (pid, client, start) = {
            let entry = &self.registered.entry;
            (entry.pid, entry.client, entry.backend_start)
        };
        let application = self.who.application.clone();
        if matches!(command, command::ReplicationCommand::StartReplication(_)) {
            self.registered.entry.activity.lock().state = SessionState::Streaming;
        }
        let may_write_files = self.ctx.catalog.has_privileges_of(self.ctx.user, PG_WRITE_SERVER_FILES).unwrap_or(false);
        let mut connection = connection::Connection {
            may_write_files,
            socket: &mut self.conn.stream,
            incoming: &mut self.conn.input,
            out: &mut self.conn.out,
            pid,
            user: &self.who.user,
            application_name: &application,
            client,
            backend_start: start,
            database: if self.physical { None } else { Some(&self.who.database) },
        };
        if let Some((columns, rows)) = shown {
            let columns: Vec<_> = columns.iter().map(|name| (name.as_str(), connection::ColumnType::Text)).collect();
            connection.put_rows(&columns, &rows);
            connection.out.command_complete("SHOW");
            return Ok(());
        }
        let cancel = Arc::clone(&self.registered.entry);
        let served = {
            let mut running = Box::pin(sender::serve(&self.replication, &mut connection, command));
            loop {
                tokio::select! {
                    served = &mut running => break served,
                    () = cancel.wake.notified() => {
                        if let Some(reason) = cancel.cancel.reason() {
                            break Err(cancelled(reason));
                        }
                    }
                }
            }
        };
        match served {
            Ok(After::Ready) => Ok(()),
            Ok(After::Close) => Err(End::Fatal),
            Err(e) => self.fail(e),
        }
    }
}

/// Role `pg_write_server_files`.
const PG_WRITE_SERVER_FILES: u32 = 4570;

/// Passwords in statements do not belong into the log.
pub(super) fn redact(text: &str) -> std::borrow::Cow<'_, str> {
    let lower = text.to_ascii_lowercase();
    match lower.find("password") {
        Some(at) if lower.contains("role") || lower.contains("user") => {
            let end = at + "password".len();
            match text[end..].find(['\'', '$']) {
                Some(quote) => format!("{}<REDACTED>", &text[..end + quote]).into(),
                None => text.into(),
            }
        }
        _ => text.into(),
    }
}

fn apply_io(settings: &SessionSettings, io: &mut IoSettings) {
    let style = settings.str(Setting::DateStyle);
    let (first, second) = style.split_once(", ").unwrap_or((style, "MDY"));
    io.date_style = match first {
        "SQL" => DateStyle::Sql,
        "Postgres" => DateStyle::Postgres,
        "German" => DateStyle::German,
        _ => DateStyle::Iso,
    };
    io.date_order = match second {
        "DMY" => DateOrder::Dmy,
        "YMD" => DateOrder::Ymd,
        _ => DateOrder::Mdy,
    };
    io.interval_style = match settings.str(Setting::IntervalStyle) {
        "postgres_verbose" => IntervalStyle::PostgresVerbose,
        "sql_standard" => IntervalStyle::SqlStandard,
        "iso_8601" => IntervalStyle::Iso8601,
        _ => IntervalStyle::Postgres,
    };
    io.bytea_output = if settings.str(Setting::ByteaOutput) == "escape" { ByteaOutput::Escape } else { ByteaOutput::Hex };
    io.extra_float_digits = i32::try_from(settings.int(Setting::ExtraFloatDigits)).unwrap_or(1);
    let zone = settings.str(Setting::TimeZone);
    if &*io.time_zone_name != zone {
        io.time_zone = jiff::tz::TimeZone::get(zone).or_else(|_| jiff::tz::TimeZone::posix(zone)).unwrap_or(jiff::tz::TimeZone::UTC);
        io.time_zone_name = zone.into();
    }
}
