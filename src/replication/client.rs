//! A libpq-like client for replication connections: what the receiver, `basebackup` and `rewind` talk to a server with.
//!
//! tokio-postgres has no CopyBoth, which streaming needs; this takes its message crate for everything else and frames
//! `W` itself. One task owns a client; reading is cancel safe, so it can stand in a `select!`.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::{backend, frontend};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::conninfo::{Address, ConnInfo, ConnInfoError};

/// Failures of a connection we opened.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection string.
    #[error(transparent)]
    ConnInfo(#[from] ConnInfoError),
    /// Nobody answered at any address.
    #[error("connection to server {address} failed: {}", why(address, source))]
    Connect {
        /// `at "host", port n` or `on socket "file"`.
        address: String,
        /// The last error.
        #[source]
        source: io::Error,
    },
    /// The server said no.
    #[error("{severity}:  {message}{}", detail.as_ref().map(|d| format!("\nDETAIL:  {d}")).unwrap_or_default())]
    Server {
        /// FATAL, ERROR, ..
        severity: String,
        /// SQLSTATE.
        code: String,
        /// Message.
        message: String,
        /// DETAIL.
        detail: Option<String>,
    },
    /// The connection broke.
    #[error("server closed the connection unexpectedly")]
    Closed,
    /// Part of a message came, the rest did not.
    #[error("server stopped sending in the middle of a message")]
    Stalled,
    /// The socket.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A message that does not belong here.
    #[error("unexpected message from server: {0}")]
    Protocol(String),
    /// An authentication method this client does not know, or no password to give.
    #[error("{0}")]
    Authentication(String),
}

impl ClientError {
    /// SQLSTATE, if the server sent one.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Server { code, .. } => Some(code),
            _ => None,
        }
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Duplex for T {}

/// A row of text values.
pub type TextRow = Vec<Option<Bytes>>;

/// What a server sends after a command.
#[derive(Debug)]
pub enum Event {
    /// Column names of the rows that follow.
    Columns(Vec<String>),
    /// One row, values in text format.
    Row(TextRow),
    /// A command ended, with its tag.
    Complete(String),
    /// Rows leave as CopyData.
    CopyOut,
    /// Both sides may send CopyData.
    CopyBoth,
    /// One CopyData payload.
    Data(Bytes),
    /// The server ends its side of the copy.
    CopyDone,
    /// A notice or warning, with its severity in front.
    Notice(String),
    /// Ready for the next command.
    Ready,
}

/// Columns and rows of one statement.
#[derive(Debug, Default)]
pub struct ResultSet {
    /// Column names.
    pub columns: Vec<String>,
    /// Rows in text format.
    pub rows: Vec<TextRow>,
}

impl ResultSet {
    /// The text at row and column, if there and not NULL.
    pub fn text(&self, row: usize, column: usize) -> Option<&str> {
        std::str::from_utf8(self.rows.get(row)?.get(column)?.as_ref()?).ok()
    }
}

/// An open connection.
pub struct Client {
    stream: Box<dyn Duplex>,
    incoming: BytesMut,
    outgoing: BytesMut,
    parameters: HashMap<String, String>,
    backend_pid: i32,
    peer: String,
    bounds: Bounds,
    /// The last read took all it had room for: there may be more.
    filled: bool,
    /// When the last byte came, while part of a message is there.
    partial_since: Option<tokio::time::Instant>,
}

/// What a client accepts from its server.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most bytes one message may announce.
    pub message_bytes: usize,
    /// Longest silence in the middle of a message.
    pub stall: Option<Duration>,
}

impl Bounds {
    /// For a base backup: the largest message is a CopyData.
    pub const BACKUP: Self = Self { message_bytes: 1 << 30, stall: None };
    /// For a WAL stream, whose messages have 128 kB at most. A length that a flipped bit made longer would otherwise be waited for until
    /// the stream times out; asking again costs nothing.
    pub const STREAM: Self = Self { message_bytes: 4 << 20, stall: Some(Duration::from_secs(2)) };
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects, authenticates and waits for ReadyForQuery.
    ///
    /// `replication` asks for a physical replication connection; `fallback_name` is the application_name unless the string gives one.
    ///
    /// # Errors
    /// [`ClientError`] of the last address tried.
    pub async fn connect(info: &ConnInfo, replication: bool, fallback_name: &str) -> Result<Self, ClientError> {
        Self::connect_within(info, replication, fallback_name, Bounds::BACKUP).await
    }

    /// As [`Client::connect`], with other bounds on what the server may send.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_within(info: &ConnInfo, replication: bool, fallback_name: &str, bounds: Bounds) -> Result<Self, ClientError> {
        let timeout = info.get_or_env("connect_timeout", "PGCONNECT_TIMEOUT").and_then(|t| t.parse::<u64>().ok()).filter(|&t| t > 0);
        let mut last = None;
        for address in info.addresses()? {
            let attempt = Self::connect_to(&address, info, replication, fallback_name, bounds);
            let outcome = match timeout {
                Some(seconds) => match tokio::time::timeout(Duration::from_secs(seconds.max(2)), attempt).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(ClientError::Connect {
                        address: describe(&address),
                        source: io::Error::new(io::ErrorKind::TimedOut, "timeout expired"),
                    }),
                },
                None => attempt.await,
            };
            match outcome {
                Ok(client) => return Ok(client),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(ClientError::Closed))
    }

    async fn connect_to(
        address: &Address,
        info: &ConnInfo,
        replication: bool,
        fallback_name: &str,
        bounds: Bounds,
    ) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect { address: describe(address), source };
        let stream: Box<dyn Duplex> = match address {
            Address::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                socket2::SockRef::from(&stream).set_keepalive(true).map_err(failed)?;
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(failed)?),
        };
        let mut client = Self {
            stream,
            incoming: BytesMut::with_capacity(256 * 1024),
            outgoing: BytesMut::new(),
            parameters: HashMap::new(),
            backend_pid: 0,
            peer: describe(address),
            bounds,
            filled: false,
            partial_since: None,
        };
        client.start(info, replication, fallback_name).await?;
        Ok(client)
    }

    async fn start(&mut self, info: &ConnInfo, replication: bool, fallback_name: &str) -> Result<(), ClientError> {
        let user = info.user();
        let name = info
            .get_or_env("application_name", "PGAPPNAME")
            .or_else(|| info.get("fallback_application_name").map(str::to_owned))
            .unwrap_or_else(|| fallback_name.to_owned());
        let mut parameters = vec![("user", user.as_str()), ("application_name", name.as_str())];
        let dbname = info.get_or_env("dbname", "PGDATABASE");
        if replication {
            parameters.push(("replication", "true"));
            parameters.push(("database", "replication"));
        } else {
            parameters.push(("database", dbname.as_deref().unwrap_or(&user)));
        }
        if let Some(options) = info.get("options") {
            parameters.push(("options", options));
        }
        frontend::startup_message(parameters, &mut self.outgoing)?;
        self.flush().await?;
        let password = info
            .get_or_env("password", "PGPASSWORD")
            .or_else(|| passfile_lookup(info, &user, if replication { "replication" } else { dbname.as_deref().unwrap_or(&user) }));
        let need = || password.clone().ok_or_else(|| ClientError::Authentication("fe_sendauth: no password supplied".to_owned()));
        let mut scram: Option<sasl::ScramSha256> = None;
        loop {
            match self.message().await? {
                Incoming::Plain(backend::Message::AuthenticationOk) => {}
                Incoming::Plain(backend::Message::AuthenticationCleartextPassword) => {
                    frontend::password_message(need()?.as_bytes(), &mut self.outgoing)?;
                    self.flush().await?;
                }
                Incoming::Plain(backend::Message::AuthenticationMd5Password(body)) => {
                    let hash = md5_hash(user.as_bytes(), need()?.as_bytes(), body.salt());
                    frontend::password_message(hash.as_bytes(), &mut self.outgoing)?;
                    self.flush().await?;
                }
                Incoming::Plain(backend::Message::AuthenticationSasl(_)) => {
                    let exchange = sasl::ScramSha256::new(need()?.as_bytes(), sasl::ChannelBinding::unsupported());
                    frontend::sasl_initial_response(sasl::SCRAM_SHA_256, exchange.message(), &mut self.outgoing)?;
                    self.flush().await?;
                    scram = Some(exchange);
                }
                Incoming::Plain(backend::Message::AuthenticationSaslContinue(body)) => {
                    let exchange = scram.as_mut().ok_or_else(|| ClientError::Protocol("SASL continue before start".to_owned()))?;
                    exchange.update(body.data())?;
                    frontend::sasl_response(exchange.message(), &mut self.outgoing)?;
                    self.flush().await?;
                }
                Incoming::Plain(backend::Message::AuthenticationSaslFinal(body)) => {
                    scram.as_mut().ok_or_else(|| ClientError::Protocol("SASL final before start".to_owned()))?.finish(body.data())?;
                }
                Incoming::Plain(backend::Message::ParameterStatus(body)) => {
                    self.parameters.insert(body.name()?.to_owned(), body.value()?.to_owned());
                }
                Incoming::Plain(backend::Message::ReadyForQuery(_)) => return Ok(()),
                Incoming::Plain(backend::Message::ErrorResponse(body)) => return Err(server_error(&body)),
                Incoming::Plain(backend::Message::BackendKeyData(body)) => self.backend_pid = body.process_id(),
                Incoming::Plain(backend::Message::NoticeResponse(_)) => {}
                Incoming::Plain(_) | Incoming::CopyBoth => {
                    return Err(ClientError::Authentication("authentication method not supported".to_owned()));
                }
            }
        }
    }

    /// `ParameterStatus` values, such as `server_version`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The session's number on the server.
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// Where it is connected to, as host and port or socket file.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Whether more has come, or is likely to be there, than [`Client::event`] has told so far.
    pub fn has_more(&self) -> bool {
        self.filled || !self.incoming.is_empty()
    }

    /// Sends a command without waiting for its answer; read it with [`Client::event`].
    ///
    /// # Errors
    /// The socket's.
    pub async fn send(&mut self, command: &str) -> Result<(), ClientError> {
        frontend::query(command, &mut self.outgoing)?;
        self.flush().await
    }

    /// Runs a command that returns rows and ends.
    ///
    /// # Errors
    /// [`ClientError::Server`] after the server is ready again, so the connection stays usable.
    pub async fn query(&mut self, command: &str) -> Result<Vec<ResultSet>, ClientError> {
        self.send(command).await?;
        let mut sets = Vec::new();
        let mut current = ResultSet::default();
        let mut failure = None;
        loop {
            match self.event().await {
                Ok(Event::Columns(columns)) => current = ResultSet { columns, rows: Vec::new() },
                Ok(Event::Row(row)) => current.rows.push(row),
                Ok(Event::Complete(_)) => sets.push(std::mem::take(&mut current)),
                Ok(Event::Ready) => return failure.map_or(Ok(sets), Err),
                Ok(Event::Notice(_)) => {}
                Ok(other @ (Event::CopyOut | Event::CopyBoth | Event::Data(_) | Event::CopyDone)) => {
                    return Err(ClientError::Protocol(format!("{other:?}")));
                }
                Err(error @ ClientError::Server { .. }) => failure = Some(error),
                Err(error) => return Err(error),
            }
        }
    }

    /// The next thing the server says. Cancel safe.
    ///
    /// # Errors
    /// [`ClientError::Server`] for an ErrorResponse (a Ready follows unless it was FATAL), [`ClientError::Closed`] at the end.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    pub async fn event(&mut self) -> Result<Event, ClientError> {
        loop {
            let message = match self.message().await? {
                Incoming::CopyBoth => return Ok(Event::CopyBoth),
                Incoming::Plain(message) => message,
            };
            return Ok(match message {
                backend::Message::RowDescription(body) => {
                    Event::Columns(body.fields().map(|f| Ok(f.name().to_owned())).collect::<Vec<String>>()?)
                }
                backend::Message::DataRow(body) => {
                    let bytes = body.buffer_bytes().clone();
                    Event::Row(body.ranges().map(|range| Ok(range.map(|r| bytes.slice(r)))).collect::<Vec<_>>()?)
                }
                backend::Message::CommandComplete(body) => Event::Complete(body.tag()?.to_owned()),
                backend::Message::CopyOutResponse(_) => Event::CopyOut,
                backend::Message::CopyData(body) => Event::Data(body.into_bytes()),
                backend::Message::CopyDone => Event::CopyDone,
                backend::Message::ReadyForQuery(_) => Event::Ready,
                backend::Message::ErrorResponse(body) => return Err(server_error(&body)),
                backend::Message::NoticeResponse(body) => {
                    let field = |kind| -> io::Result<String> {
                        let found = body.fields().filter(|f| Ok(f.type_() == kind)).next()?;
                        Ok(found.map(|f| String::from_utf8_lossy(f.value_bytes()).into_owned()).unwrap_or_default())
                    };
                    Event::Notice(format!("{}:  {}", field(b'S')?, field(b'M')?))
                }
                backend::Message::ParameterStatus(body) => {
                    self.parameters.insert(body.name()?.to_owned(), body.value()?.to_owned());
                    continue;
                }
                backend::Message::EmptyQueryResponse => Event::Complete(String::new()),
                backend::Message::NotificationResponse(_) => continue,
                // We send simple queries only. A CopyData whose kind lost a bit comes by here: skipping it would lose WAL in silence.
                _ => return Err(ClientError::Protocol("a message that nobody asked for".to_owned())),
            });
        }
    }

    /// Sends one CopyData message; `write` fills in the payload.
    ///
    /// # Errors
    /// The socket's.
    pub async fn send_copy_data(&mut self, write: impl FnOnce(&mut BytesMut)) -> Result<(), ClientError> {
        let mut payload = BytesMut::new();
        write(&mut payload);
        frontend::CopyData::new(payload.freeze())?.write(&mut self.outgoing);
        self.flush().await
    }

    /// Ends our side of a copy.
    ///
    /// # Errors
    /// The socket's.
    pub async fn send_copy_done(&mut self) -> Result<(), ClientError> {
        frontend::copy_done(&mut self.outgoing);
        self.flush().await
    }

    /// Says goodbye; errors no longer matter.
    pub async fn close(mut self) {
        frontend::terminate(&mut self.outgoing);
        drop(self.flush().await);
    }

    async fn flush(&mut self) -> Result<(), ClientError> {
        self.stream.write_all_buf(&mut self.outgoing).await?;
        self.stream.flush().await?;
        Ok(())
    }

    async fn message(&mut self) -> Result<Incoming, ClientError> {
        loop {
            if self.incoming.len() >= 5 {
                let tag = self.incoming[0];
                let length = u32::from_be_bytes([self.incoming[1], self.incoming[2], self.incoming[3], self.incoming[4]]);
                let total = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(1);
                if !(5..=self.bounds.message_bytes).contains(&total) {
                    return Err(ClientError::Protocol(format!("message '{}' of {length} bytes", char::from(tag))));
                }
                if self.incoming.len() >= total {
                    if tag == b'W' {
                        self.incoming.advance(total);
                        return Ok(Incoming::CopyBoth);
                    }
                    if let Some(message) = backend::Message::parse(&mut self.incoming)? {
                        return Ok(Incoming::Plain(message));
                    }
                }
                self.incoming.reserve(total.saturating_sub(self.incoming.len()).max(64 * 1024));
            }
            let deadline = match self.bounds.stall {
                Some(stall) if !self.incoming.is_empty() => Some(*self.partial_since.get_or_insert_with(tokio::time::Instant::now) + stall),
                Some(_) | None => None,
            };
            let room = self.incoming.capacity() - self.incoming.len();
            let read = match deadline {
                Some(at) => match tokio::time::timeout_at(at, self.stream.read_buf(&mut self.incoming)).await {
                    Ok(read) => read?,
                    Err(_) => return Err(ClientError::Stalled),
                },
                None => self.stream.read_buf(&mut self.incoming).await?,
            };
            self.partial_since = None;
            self.filled = read == room;
            if read == 0 {
                return Err(ClientError::Closed);
            }
        }
    }
}

enum Incoming {
    Plain(backend::Message),
    CopyBoth,
}

fn describe(address: &Address) -> String {
    match address {
        Address::Tcp(host, port) => format!("at \"{host}\", port {port}"),
        Address::Unix(path) => format!("on socket \"{}\"", path.display()),
    }
}

/// libpq's words for it: `connectFailureMessage` in fe-connect.c.
fn why(address: &str, error: &io::Error) -> String {
    let text = error.to_string();
    let reason = text.split_once(" (os error").map_or(text.as_str(), |(reason, _)| reason);
    let question = match (error.kind(), address.starts_with("at ")) {
        (io::ErrorKind::TimedOut, _) => "",
        (_, true) => "\n\tIs the server running on that host and accepting TCP/IP connections?",
        (_, false) => "\n\tIs the server running locally and accepting connections on that socket?",
    };
    format!("{reason}{question}")
}

fn server_error(body: &backend::ErrorResponseBody) -> ClientError {
    let mut fields: HashMap<u8, String> = HashMap::new();
    let mut iter = body.fields();
    while let Ok(Some(field)) = iter.next() {
        fields.insert(field.type_(), String::from_utf8_lossy(field.value_bytes()).into_owned());
    }
    let mut take = |tag: u8| fields.remove(&tag).unwrap_or_default();
    ClientError::Server { severity: take(b'S'), code: take(b'C'), message: take(b'M'), detail: Some(take(b'D')).filter(|d| !d.is_empty()) }
}

/// The password of a matching `~/.pgpass` line (host:port:database:user:password, `*` matches all).
fn passfile_lookup(info: &ConnInfo, user: &str, database: &str) -> Option<String> {
    let path = info
        .get_or_env("passfile", "PGPASSFILE")
        .map(std::path::PathBuf::from)
        .or_else(|| Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".pgpass")))?;
    let text = std::fs::read_to_string(path).ok()?;
    let host = info.get_or_env("host", "PGHOST").unwrap_or_else(|| "localhost".to_owned());
    let host = if host.starts_with('/') { "localhost".to_owned() } else { host };
    let port = info.get_or_env("port", "PGPORT").unwrap_or_else(|| "5432".to_owned());
    text.lines().find_map(|line| {
        let mut fields = line.splitn(5, ':');
        let wanted = [host.as_str(), port.as_str(), database, user];
        for want in wanted {
            let field = fields.next()?;
            if field != "*" && field != want {
                return None;
            }
        }
        Some(fields.next()?.replace("\\:", ":").replace("\\\\", "\\"))
    })
}
