//! From an accepted socket to a logged-in session.

use std::sync::Arc;
use std::time::Duration;

use super::auth::{self, AuthError};
use super::client::Session;
use super::hba::{Method, Request};
use super::os_user::user_name;
use super::registry::{Registered, SessionState};
use super::server::Server;
use super::stream::{Connection, ReadError, Stream};
use crate::config::{SessionSettings, Setting, Source};
use crate::control::log::{self, Entry, Level, Who};
use crate::sql::catalog::bootstrap::TEMPLATE1;
use crate::sql::catalog::relation::BOOTSTRAP_ROLE;
use crate::sql::catalog::{CatalogHandle, Database, Role, Viewer};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, LockTag, Proc, ProcId, TransactionOptions, WaitPolicy};
use crate::wire::Startup;

/// What the startup packet asks for.
#[derive(Debug, Default)]
struct Wish {
    user: String,
    database: String,
    application: String,
    physical_replication: bool,
    walsender: bool,
    settings: Vec<(String, String)>,
}

/// A client that proved who it is.
pub(super) struct Login {
    pub(super) role: Arc<Role>,
    pub(super) database: Option<Arc<Database>>,
    pub(super) settings: SessionSettings,
    pub(super) proc: Arc<Proc>,
    pub(super) who: Who,
    pub(super) replication: bool,
}

/// Serves one client from its first byte to its last.
pub(super) async fn serve(server: Arc<Server>, stream: Stream) {
    let peer = stream.peer();
    let mut conn = Connection::new(stream);
    let limit = server.config.current().duration(Setting::AuthenticationTimeout).unwrap_or(Duration::from_secs(60));
    let mut who = Who {
        host: peer.map_or_else(|| "[local]".to_owned(), |p| p.ip().to_string()),
        port: peer.map_or_else(String::new, |p| p.port().to_string()),
        started_micros: jiff::Timestamp::now().as_microsecond(),
        ..Who::default()
    };
    let login = tokio::time::timeout(limit, Box::pin(log_in(&server, &mut conn, &mut who))).await;
    let (registered, login) = match login {
        // PostgreSQL closes without a word.
        Err(_) | Ok(Err(AuthError::Gone)) => return,
        Ok(Err(AuthError::Refused(error, detail))) => {
            let fields = error.fields();
            let mut entry = Entry::new(Level::Fatal, &fields.message);
            entry.sqlstate = fields.state.0;
            entry.detail = detail.as_deref().or(fields.detail.as_deref());
            log::emit(Some(&who), &entry);
            conn.out.error(fields);
            // Best effort: the client may be gone.
            let _told = tokio::time::timeout(Duration::from_secs(5), conn.flush()).await;
            return;
        }
        Ok(Ok(None)) => return,
        Ok(Ok(Some(found))) => found,
    };
    if let Some(session) = Session::new(server, conn, registered, login) {
        Box::pin(session.run()).await;
    }
}

fn fatal(state: SqlState, text: impl Into<String>) -> AuthError {
    AuthError::Refused(SqlError::new(state, text).fatal(), None)
}

/// `None` if there is nothing to serve: a cancel request, or a client that left.
async fn log_in(server: &Arc<Server>, conn: &mut Connection, who: &mut Who) -> Result<Option<(Registered, Login)>, AuthError> {
    let Some((wish, minor)) = first_packet(server, conn).await? else { return Ok(None) };
    who.user.clone_from(&wish.user);
    who.database = if wish.physical_replication { String::new() } else { wish.database.clone() };
    who.application.clone_from(&wish.application);
    if minor > 0 {
        conn.out.negotiate_version(0, &[]);
    }
    let services = server.services().map_err(|text| fatal(SqlState::CANNOT_CONNECT_NOW, text))?;
    let peer = conn.stream.peer();
    let registered = server.registry.enter(peer.map(|p| (p.ip(), p.port())), conn.stream.local().map(|p| (p.ip(), p.port())));
    who.pid = registered.entry.pid;
    let settings = server.config.current();
    if settings.bool(Setting::LogConnections) {
        let text = if who.port.is_empty() {
            format!("connection received: host={}", who.host)
        } else {
            format!("connection received: host={} port={}", who.host, who.port)
        };
        log::emit(Some(&Who { user: String::new(), ..who.clone() }), &Entry::new(Level::Log, &text));
    }
    let proc = services.engine.ctx().txns.enter(ProcId(registered.entry.pid), Arc::clone(&registered.entry.cancel));
    // Roles and databases are in catalogs all databases share; any database's view of them will do.
    let viewer = Viewer {
        database: TEMPLATE1,
        user: BOOTSTRAP_ROLE,
        user_name: wish.user.as_str().into(),
        search_path: "".into(),
        temp_namespace: None,
    };
    let catalog = services.catalog.handle_outside(viewer, &proc);
    let role = catalog.find_role(&wish.user).map_err(refuse)?;
    let method = authenticate(server, conn, &wish, role.as_deref(), &catalog).await?;
    let Some(role) = role else {
        return Err(fatal(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, format!("role \"{}\" does not exist", wish.user)));
    };
    if !role.login {
        return Err(fatal(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, format!("role \"{}\" is not permitted to log in", wish.user)));
    }
    if wish.walsender && !role.replication && !role.superuser {
        let error = SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, "must be superuser or replication role to start walsender");
        return Err(AuthError::Refused(error.fatal(), None));
    }
    let over = |limit: i32, count: usize| !wish.walsender && !role.superuser && usize::try_from(limit).is_ok_and(|limit| count > limit);
    registered.entry.activity.lock().user = Some((role.oid, Arc::clone(&role.name)));
    if over(role.connection_limit, server.registry.count_of(role.oid)) {
        return Err(fatal(SqlState::TOO_MANY_CONNECTIONS, format!("too many connections for role \"{}\"", role.name)));
    }
    let database = if wish.physical_replication { None } else { Some(find_database(&catalog, &wish.database)?) };
    if let Some(database) = &database {
        proc.set_database(database.oid);
        // From here whoever drops the database counts this session, or has dropped it already.
        let txns = &services.engine.ctx().txns;
        let login = txns.begin(&proc, TransactionOptions::default());
        login.lock(LockTag::database(database.oid), LockMode::RowExclusive, WaitPolicy::Block).map_err(|e| refuse(e.into()))?;
        if catalog.database_by_oid(database.oid).map_err(refuse)?.is_none() {
            let error = SqlError::new(SqlState::INVALID_CATALOG_NAME, format!("database \"{}\" does not exist", wish.database));
            return Err(refuse(error.detail("It seems to have just been dropped or renamed.")));
        }
        // With this one. Two that come at once may both find themselves one too many, as in PostgreSQL.
        let connected = txns.procs().iter().filter(|p| p.id() != ProcId::NOBODY && p.database() == database.oid).count();
        if over(database.connection_limit, connected) {
            return Err(fatal(SqlState::TOO_MANY_CONNECTIONS, format!("too many connections for database \"{}\"", database.name)));
        }
    }
    if wish.walsender {
        let max = usize::try_from(settings.int(Setting::MaxWalSenders)).unwrap_or(10);
        if server.registry.sender_count() >= max {
            return Err(fatal(
                SqlState::TOO_MANY_CONNECTIONS,
                format!("number of requested standby connections exceeds max_wal_senders (currently {max})"),
            ));
        }
    } else {
        let max = usize::try_from(settings.int(Setting::MaxConnections)).unwrap_or(100);
        let reserved = usize::try_from(settings.int(Setting::SuperuserReservedConnections)).unwrap_or(3);
        server.registry.take_place(&registered.entry, max, reserved, role.superuser).map_err(|full| {
            fatal(
                SqlState::TOO_MANY_CONNECTIONS,
                if full {
                    "sorry, too many clients already"
                } else {
                    "remaining connection slots are reserved for non-replication superuser connections"
                },
            )
        })?;
    }
    let mut session = SessionSettings::new(Arc::clone(&settings));
    session.set_superuser(role.superuser);
    session.set_internal(
        Setting::SessionAuthorization,
        crate::config::Value::Str(Arc::clone(&role.name)),
        crate::config::SetScope::Session,
    );
    for (name, value) in &wish.settings {
        session.set_session_default(name, value, Source::Client).map_err(|e| AuthError::Refused(e.fatal(), None))?;
    }
    {
        let mut activity = registered.entry.activity.lock();
        activity.database = database.as_ref().map(|d| (d.oid, Arc::clone(&d.name)));
        activity.application = session.str(Setting::ApplicationName).into();
        activity.replication = wish.walsender;
        activity.state = SessionState::Idle;
    }
    who.application = session.str(Setting::ApplicationName).to_owned();
    who.backend_type = if wish.walsender { "walsender".into() } else { "client backend".into() };
    if settings.bool(Setting::LogConnections) {
        let text = format!("connection authenticated: identity=\"{}\" method={method}", wish.user);
        log::emit(Some(who), &Entry::new(Level::Log, &text));
        let mut text = if wish.walsender {
            format!("replication connection authorized: user={}", wish.user)
        } else {
            format!("connection authorized: user={}", wish.user)
        };
        if database.is_some() {
            text.push_str(&format!(" database={}", wish.database));
        }
        if !who.application.is_empty() {
            text.push_str(&format!(" application_name={}", who.application));
        }
        log::emit(Some(who), &Entry::new(Level::Log, &text));
    }
    let login = Login { role, database, settings: session, proc, who: who.clone(), replication: wish.walsender };
    Ok(Some((registered, login)))
}

fn refuse(error: SqlError) -> AuthError {
    AuthError::Refused(error.fatal(), None)
}

fn find_database(catalog: &CatalogHandle, name: &str) -> Result<Arc<Database>, AuthError> {
    let Some(database) = catalog.find_database(name).map_err(refuse)? else {
        return Err(fatal(SqlState::INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist")));
    };
    if database.is_invalid() {
        let error = SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("cannot connect to invalid database \"{name}\""));
        return Err(refuse(error.hint("Use DROP DATABASE to drop invalid databases.")));
    }
    if !database.allow_connections {
        return Err(fatal(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("database \"{name}\" is not currently accepting connections"),
        ));
    }
    Ok(database)
}

/// Reads startup packets until one asks for a session.
async fn first_packet(server: &Server, conn: &mut Connection) -> Result<Option<(Wish, u16)>, AuthError> {
    loop {
        let packet = match Startup::decode(&mut conn.input) {
            Ok(Some(packet)) => packet,
            Ok(None) => {
                match conn.fill().await {
                    Ok(()) => continue,
                    // A port scan, or pg_isready: nothing to say.
                    Err(ReadError::Closed) => return Ok(None),
                    Err(e) => return Err(e.into()),
                }
            }
            Err(e) => return Err(AuthError::Refused(SqlError::from(e), None)),
        };
        match packet {
            Startup::Ssl | Startup::Gss => {
                conn.out.buf.extend_from_slice(b"N");
                conn.flush().await?;
            }
            Startup::Cancel { pid, secret } => {
                if !server.registry.cancel(pid, secret) {
                    let text = format!("PID {pid} in cancel request did not match any process");
                    log::emit(None, &Entry::new(Level::Log, &text));
                }
                return Ok(None);
            }
            Startup::Session { major, minor, params } => {
                if major != 3 {
                    return Err(fatal(
                        SqlState::FEATURE_NOT_SUPPORTED,
                        format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0"),
                    ));
                }
                return Wish::read(params).map(|wish| Some((wish, minor)));
            }
        }
    }
}

impl Wish {
    fn read(params: Vec<(String, String)>) -> Result<Self, AuthError> {
        let mut wish = Self::default();
        for (name, value) in params {
            match name.as_str() {
                "user" => wish.user = value,
                "database" => wish.database = value,
                "options" => wish.read_options(&value)?,
                "replication" => match value.as_str() {
                    "database" => wish.walsender = true,
                    "true" | "on" | "yes" | "1" | "t" | "y" => (wish.walsender, wish.physical_replication) = (true, true),
                    "false" | "off" | "no" | "0" | "f" | "n" => {}
                    other => {
                        return Err(fatal(
                            SqlState::INVALID_PARAMETER_VALUE,
                            format!("invalid value for parameter \"replication\": \"{other}\""),
                        ));
                    }
                },
                _ if name.starts_with("_pq_.") => {}
                "application_name" => {
                    wish.application.clone_from(&value);
                    wish.settings.push((name, value));
                }
                _ => wish.settings.push((name, value)),
            }
        }
        if wish.user.is_empty() {
            return Err(fatal(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, "no PostgreSQL user name specified in startup packet"));
        }
        if wish.database.is_empty() {
            wish.database.clone_from(&wish.user);
        }
        Ok(wish)
    }

    /// `-c name=value`, `--name=value`; a backslash quotes the next character.
    fn read_options(&mut self, text: &str) -> Result<(), AuthError> {
        let mut words: Vec<String> = Vec::new();
        let mut chars = text.chars().peekable();
        while chars.peek().is_some() {
            while chars.peek().is_some_and(|c| c.is_whitespace()) {
                chars.next();
            }
            let mut word = String::new();
            while let Some(&c) = chars.peek() {
                if c.is_whitespace() {
                    break;
                }
                chars.next();
                match c {
                    '\\' => word.extend(chars.next()),
                    _ => word.push(c),
                }
            }
            if !word.is_empty() {
                words.push(word);
            }
        }
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let setting = if let Some(long) = word.strip_prefix("--") {
                long.to_owned()
            } else if word == "-c" {
                words.next().unwrap_or_default()
            } else if let Some(attached) = word.strip_prefix("-c") {
                attached.to_owned()
            } else {
                return Err(fatal(SqlState::SYNTAX_ERROR, format!("invalid command-line argument for server process: {word}")));
            };
            let Some((name, value)) = setting.split_once('=') else {
                return Err(fatal(SqlState::SYNTAX_ERROR, format!("-c {setting} requires a value")));
            };
            self.settings.push((name.replace('-', "_"), value.to_owned()));
        }
        Ok(())
    }
}

async fn authenticate(
    server: &Server,
    conn: &mut Connection,
    wish: &Wish,
    role: Option<&Role>,
    catalog: &CatalogHandle,
) -> Result<&'static str, AuthError> {
    let member_of = |name: &str| {
        let (Some(role), Ok(Some(group))) = (role, catalog.find_role(name)) else { return false };
        role.oid == group.oid || catalog.roles_of(role.oid, false).is_ok_and(|all| all.contains(&group.oid))
    };
    let peer = conn.stream.peer();
    let hba = server.hba.load_full();
    let found = hba.find(&Request {
        database: &wish.database,
        user: &wish.user,
        replication: wish.physical_replication,
        address: peer.map(|p| p.ip()),
        member_of: &member_of,
    });
    let host = peer.map_or_else(|| "[local]".to_owned(), |p| p.ip().to_string());
    let describe = |what: &str| {
        if wish.physical_replication {
            format!("{what} replication connection from host \"{host}\", user \"{}\", no encryption", wish.user)
        } else {
            format!("{what} host \"{host}\", user \"{}\", database \"{}\", no encryption", wish.user, wish.database)
        }
    };
    let Some(rule) = found else {
        return Err(fatal(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, describe("no pg_hba.conf entry for")));
    };
    match rule.method {
        Method::Reject => {
            let what = if wish.physical_replication { "pg_hba.conf rejects" } else { "pg_hba.conf rejects connection for" };
            return Err(fatal(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, describe(what)));
        }
        Method::Trust => auth::accept(conn),
        Method::Peer => {
            let system = conn.stream.peer_uid().and_then(user_name);
            let allowed = system.as_deref().is_some_and(|s| hba.may_use(rule.map.as_deref(), s, &wish.user));
            if !allowed {
                let detail = format!(
                    "Connection matched pg_hba.conf line {}: the operating system user is \"{}\".",
                    rule.line,
                    system.unwrap_or_default()
                );
                return Err(auth::peer_refused(&wish.user, detail));
            }
            auth::accept(conn);
        }
        Method::Scram | Method::Md5 | Method::Password => {
            let expired = role.and_then(|r| r.valid_until).is_some_and(|until| until < super::registry::now());
            let stored = role.filter(|_| !expired).and_then(|r| r.password.as_deref());
            auth::password(conn, rule.method, &wish.user, stored, &server.secret).await?;
        }
    }
    Ok(rule.method.name())
}
