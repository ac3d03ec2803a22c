//! Sockets to listen on.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::server::Server;
use super::startup;
use super::stream::Stream;
use crate::config::{Setting, Settings, split_identifier_list};
use crate::control::log::{self, Entry, Level};
use crate::control::pid_file::{self, LockError, LockFile};

const BACKLOG: i32 = 1024;

/// One socket.
#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// All sockets; a Unix socket's file and lock file go when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    sockets: Vec<Listening>,
    files: Vec<(PathBuf, LockFile)>,
    /// First address, for line 6 of `postmaster.pid`.
    pub(super) first_address: String,
    /// First directory, for line 5.
    pub(super) first_directory: String,
}

impl Drop for Listeners {
    fn drop(&mut self) {
        for (path, _lock) in &self.files {
            // Left behind, it is replaced at the next start.
            let _best_effort = fs::remove_file(path);
        }
    }
}

fn say(level: Level, message: &str, hint: Option<&str>) {
    let mut entry = Entry::new(level, message);
    entry.hint = hint;
    log::emit(None, &entry);
}

/// Binds what `listen_addresses` and `unix_socket_directories` ask for. `supervisor` is whom lock files name.
///
/// # Errors
/// The FATAL message, if a kind was asked for and none of it could be had.
pub(super) fn bind(settings: &Settings, data_dir: &Path, supervisor: i32) -> Result<Listeners, (String, Option<String>)> {
    let mut out = Listeners::default();
    let port = u16::try_from(settings.int(Setting::Port)).unwrap_or(5432);
    let addresses = settings.str(Setting::ListenAddresses);
    let names =
        split_identifier_list(addresses).ok_or_else(|| (format!("invalid list syntax in parameter \"{}\"", "listen_addresses"), None))?;
    let mut tcp = 0;
    for name in &names {
        let before = tcp;
        for address in resolve(name, port) {
            match bind_tcp(address) {
                Ok(listener) => {
                    let kind = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                    say(Level::Log, &format!("listening on {kind} address \"{}\", port {port}", address.ip()), None);
                    out.sockets.push(Listening::Tcp(listener));
                    tcp += 1;
                }
                Err(e) => {
                    let kind = if address.is_ipv4() { "IPv4" } else { "IPv6" };
                    // A machine without IPv6 is no reason to complain about "localhost" and "*".
                    if address.is_ipv6() && matches!(e.raw_os_error(), Some(97 | 99)) {
                        continue;
                    }
                    let hint = (e.kind() == io::ErrorKind::AddrInUse)
                        .then(|| format!("Is another postmaster already running on port {port}? If not, wait a few seconds and retry."));
                    let text = os_text(&e);
                    say(Level::Log, &format!("could not bind {kind} address \"{}\": {text}", address.ip()), hint.as_deref());
                }
            }
        }
        if tcp == before {
            say(Level::Warning, &format!("could not create listen socket for \"{name}\""), None);
        } else if out.first_address.is_empty() {
            out.first_address.clone_from(name);
        }
    }
    if tcp == 0 && !names.is_empty() {
        return Err(("could not create any TCP/IP sockets".into(), None));
    }
    let directories: Vec<&str> = pid_file::socket_directories(settings.str(Setting::UnixSocketDirectories)).collect();
    let mut unix = 0;
    for directory in directories.iter().copied() {
        match bind_unix(directory, port, settings, data_dir, supervisor) {
            Ok((listener, path, lock)) => {
                say(Level::Log, &format!("listening on Unix socket \"{}\"", path.display()), None);
                out.sockets.push(Listening::Unix(listener));
                out.files.push((path, lock));
                unix += 1;
                if out.first_directory.is_empty() {
                    directory.clone_into(&mut out.first_directory);
                }
            }
            Err(UnixError::Locked(message, hint)) => return Err((message, hint)),
            Err(UnixError::Io(message)) => {
                say(Level::Log, &message, None);
                say(Level::Warning, &format!("could not create Unix-domain socket in directory \"{directory}\""), None);
            }
        }
    }
    if unix == 0 && !directories.is_empty() {
        return Err(("could not create any Unix-domain sockets".into(), None));
    }
    if tcp + unix == 0 {
        return Err(("no socket created for listening".into(), None));
    }
    Ok(out)
}

fn os_text(e: &io::Error) -> String {
    let text = e.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(t, _)| t.to_owned())
}

fn resolve(name: &str, port: u16) -> Vec<SocketAddr> {
    if name == "*" {
        return vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()];
    }
    if let Ok(ip) = name.parse::<IpAddr>() {
        return vec![(ip, port).into()];
    }
    match (name, port).to_socket_addrs() {
        Ok(found) => {
            let mut out: Vec<SocketAddr> = Vec::new();
            for address in found {
                if !out.contains(&address) {
                    out.push(address);
                }
            }
            out
        }
        Err(e) => {
            say(Level::Log, &format!("could not translate host name \"{name}\", service \"{port}\" to address: {e}"), None);
            Vec::new()
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

enum UnixError {
    Locked(String, Option<String>),
    Io(String),
}

fn bind_unix(
    directory: &str,
    port: u16,
    settings: &Settings,
    data_dir: &Path,
    supervisor: i32,
) -> Result<(UnixListener, PathBuf, LockFile), UnixError> {
    let path = pid_file::socket_path(directory, port);
    let shown = path.display().to_string();
    if shown.len() > 107 {
        return Err(UnixError::Io(format!("Unix-domain socket path \"{shown}\" is too long (maximum 107 bytes)")));
    }
    let lock_path = PathBuf::from(format!("{shown}.lock"));
    let started = jiff::Timestamp::now().as_second();
    let text = format!("{supervisor}\n{}\n{started}\n{port}\n{directory}\n", data_dir.display());
    let lock =
        LockFile::create(&lock_path, &lock_path.display().to_string(), &shown, true, &text, 0o600, &[supervisor]).map_err(
            |e| match &e {
                LockError::Io { .. } => UnixError::Io(e.to_string()),
                LockError::Exists { .. } | LockError::Empty(_) => UnixError::Locked(e.to_string(), e.hint()),
            },
        )?;
    // Ours by the lock: what lies there is left over.
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(UnixError::Io(format!("could not remove old socket file \"{shown}\": {}", os_text(&e)))),
    }
    let bound = (|| {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&socket2::SockAddr::unix(&path)?)?;
        let mode = u32::try_from(settings.int(Setting::UnixSocketPermissions)).unwrap_or(0o777);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        UnixListener::from_std(socket.into())
    })();
    match bound {
        Ok(listener) => Ok((listener, path, lock)),
        Err(e) => Err(UnixError::Io(format!("could not bind Unix address \"{shown}\": {}", os_text(&e)))),
    }
}

impl Listeners {
    /// Accepts clients for ever, each on its own task.
    pub(super) fn accept(&mut self, server: &Arc<Server>) {
        for socket in self.sockets.drain(..) {
            let server = Arc::clone(server);
            tokio::spawn(async move {
                loop {
                    let accepted = match &socket {
                        Listening::Tcp(l) => l.accept().await.map(|(s, _)| {
                            // Answers are written whole; waiting for more to send only delays them.
                            let _best_effort = s.set_nodelay(true);
                            Stream::tcp(s)
                        }),
                        Listening::Unix(l) => l.accept().await.map(|(s, _)| Stream::unix(s)),
                    };
                    match accepted {
                        Ok(stream) => {
                            let server = Arc::clone(&server);
                            tokio::spawn(startup::serve(server, stream));
                        }
                        Err(e) => {
                            say(Level::Log, &format!("could not accept new connection: {}", os_text(&e)), None);
                            // Out of file descriptors: trying again at once would spin.
                            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        }
                    }
                }
            });
        }
    }
}
