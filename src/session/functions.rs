//! SQL functions that need the server: other sessions, settings, files, time spent waiting.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::server::Server;
use crate::config::{Setting, flag, lookup};
use crate::control::log;
use crate::executor::{ExternalFunctions, SessionContext};
use crate::replication::rewind::source::page_lsns_of;
use crate::sql::functions::{CallTypes, ProcEntry, SetRows};
use crate::sql::types::{ArrayValue, Datum, Inet, oids};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{CancelReason, ProcId, Transactions};

/// The functions, over one server.
pub(super) struct Functions {
    server: Weak<Server>,
}

impl Functions {
    pub(super) fn new(server: &Arc<Server>) -> Self {
        Self { server: Arc::downgrade(server) }
    }
}

/// Roles whose members may do what superusers may, for one purpose.
const PG_SIGNAL_BACKEND: u32 = 4200;
const PG_READ_SERVER_FILES: u32 = 4569;

fn denied(text: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, text)
}

fn text_arg(args: &[Datum], i: usize) -> Result<&str, SqlError> {
    match args.get(i) {
        Some(Datum::Text(t)) => Ok(t),
        _ => Err(SqlError::internal(format!("argument {} is not text", i + 1))),
    }
}

fn bool_arg(args: &[Datum], i: usize) -> bool {
    matches!(args.get(i), Some(Datum::Bool(true)))
}

fn int_arg(args: &[Datum], i: usize) -> i64 {
    match args.get(i) {
        Some(Datum::Int4(n)) => i64::from(*n),
        Some(Datum::Int8(n)) => *n,
        _ => 0,
    }
}

/// Stops another session's statement, or the session.
fn signal(server: &Server, session: &mut SessionContext, pid: i32, reason: CancelReason) -> Result<Option<bool>, SqlError> {
    let Some(entry) = server.registry.find(pid) else {
        session.warning(SqlState::WARNING, format!("PID {pid} is not a PostgreSQL backend process"));
        return Ok(None);
    };
    let target = entry.activity.lock().user.as_ref().map_or(0, |(oid, _)| *oid);
    let me = session.user;
    let verb = if reason == CancelReason::Terminate { "terminate" } else { "cancel" };
    if !session.catalog.is_superuser(me)? {
        if session.catalog.is_superuser(target)? {
            return Err(denied(format!("must be a superuser to {verb} superuser {}", if verb == "cancel" { "query" } else { "process" })));
        }
        if !session.catalog.has_privileges_of(me, target)? && !session.catalog.has_privileges_of(me, PG_SIGNAL_BACKEND)? {
            let what = if verb == "cancel" { "query is being canceled" } else { "process is being terminated" };
            return Err(denied(format!("must be a member of the role whose {what} or member of pg_signal_backend")));
        }
    }
    entry.stop(reason);
    Ok(Some(true))
}

/// Waits until `done` says so, a cancel comes, or time is up (`None` then).
fn wait<T>(server: &Server, session: &SessionContext, limit: Duration, mut done: impl FnMut() -> Option<T>) -> Result<Option<T>, SqlError> {
    let Some(entry) = server.registry.find(session.backend_pid) else { return Ok(None) };
    let mut changes = server.registry.subscribe();
    crate::txn::blocking(|| {
        tokio::runtime::Handle::current().block_on(async {
            let until = tokio::time::Instant::now() + limit;
            loop {
                session.check_cancel()?;
                if let Some(result) = done() {
                    return Ok(Some(result));
                }
                tokio::select! {
                    () = entry.wake.notified() => {}
                    _ = changes.changed() => {}
                    () = tokio::time::sleep_until(until) => return Ok(done()),
                }
            }
        })
    })
}

fn sleep(server: &Server, session: &SessionContext, seconds: f64) -> Result<Datum, SqlError> {
    if seconds > 0.0 {
        let limit = Duration::try_from_secs_f64(seconds.min(1e9)).unwrap_or(Duration::MAX);
        wait::<()>(server, session, limit, || None)?;
    }
    Ok(Datum::Void)
}

fn inet(addr: IpAddr) -> Datum {
    Datum::Inet(Arc::new(Inet { addr, prefix: if addr.is_ipv4() { 32 } else { 128 } }))
}

/// A path a user may read, given the right to execute the function: anything for those who may read server files, else below the data directory.
fn path(server: &Server, session: &SessionContext, name: &str) -> Result<PathBuf, SqlError> {
    let path = PathBuf::from(name);
    let me = session.user;
    if session.catalog.is_superuser(me)? || session.catalog.has_privileges_of(me, PG_READ_SERVER_FILES)? {
        return Ok(server.config.data_dir().join(path));
    }
    if path.is_absolute() {
        return Err(denied("absolute path not allowed"));
    }
    if path.components().any(|c| matches!(c, std::path::Component::ParentDir)) {
        return Err(denied("path must be in or below the current directory"));
    }
    Ok(server.config.data_dir().join(path))
}

fn file_error(doing: &str, name: &str, e: &std::io::Error) -> SqlError {
    let state = if e.kind() == std::io::ErrorKind::NotFound {
        SqlState::UNDEFINED_FILE
    } else if e.kind() == std::io::ErrorKind::PermissionDenied {
        SqlState::INSUFFICIENT_PRIVILEGE
    } else {
        SqlState::IO_ERROR
    };
    let text = e.to_string();
    let text = text.split_once(" (os error").map_or(text.as_str(), |(t, _)| t);
    SqlError::new(state, format!("could not {doing} \"{name}\": {text}"))
}

/// The bytes of a file from `offset`; `None` if it is missing and may be.
fn read_file(server: &Server, session: &SessionContext, args: &[Datum]) -> Result<Option<Vec<u8>>, SqlError> {
    let name = text_arg(args, 0)?;
    let (offset, length, missing_ok) = match args.len() {
        1 => (0, -1, false),
        2 => (0, -1, bool_arg(args, 1)),
        _ => (int_arg(args, 1), int_arg(args, 2), bool_arg(args, 3)),
    };
    if args.len() > 2 && length < 0 {
        return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "requested length cannot be negative"));
    }
    let full = path(server, session, name)?;
    let mut file = match fs::File::open(full) {
        Ok(file) => file,
        Err(e) if missing_ok && e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(file_error("open file", name, &e)),
    };
    let mut bytes = Vec::new();
    let from = if offset < 0 { SeekFrom::End(offset) } else { SeekFrom::Start(offset.unsigned_abs()) };
    file.seek(from).map_err(|e| file_error("seek in file", name, &e))?;
    let limit = u64::try_from(length).unwrap_or(0x3fff_ffff);
    file.take(limit).read_to_end(&mut bytes).map_err(|e| file_error("read file", name, &e))?;
    Ok(Some(bytes))
}

fn micros(seconds: i64, nanos: i64) -> i64 {
    (seconds - 946_684_800) * 1_000_000 + nanos / 1000
}

fn stat_file(server: &Server, session: &SessionContext, func: &'static ProcEntry, args: &[Datum]) -> Result<Datum, SqlError> {
    let name = text_arg(args, 0)?;
    let full = path(server, session, name)?;
    let meta = match fs::metadata(full) {
        Ok(meta) => meta,
        Err(e) if bool_arg(args, 1) && e.kind() == std::io::ErrorKind::NotFound => return Ok(Datum::Null),
        Err(e) => return Err(file_error("stat file", name, &e)),
    };
    let values = vec![
        Datum::Int8(i64::try_from(meta.len()).unwrap_or(i64::MAX)),
        Datum::TimestampTz(micros(meta.atime(), meta.atime_nsec())),
        Datum::TimestampTz(micros(meta.mtime(), meta.mtime_nsec())),
        Datum::TimestampTz(micros(meta.ctime(), meta.ctime_nsec())),
        Datum::Null,
        Datum::Bool(meta.is_dir()),
    ];
    func.record(values)
}

/// Name, size and modification time of each plain file.
fn list_files(func: &'static ProcEntry, dir: &str, entries: fs::ReadDir) -> Result<Vec<Datum>, SqlError> {
    let mut rows = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| file_error("read directory", dir, &e))?;
        // It may have been removed since it was listed.
        let Ok(meta) = entry.metadata() else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        if meta.is_file() && !name.starts_with('.') {
            let size = Datum::Int8(i64::try_from(meta.len()).unwrap_or(i64::MAX));
            rows.push(func.record(vec![Datum::text(name), size, Datum::TimestampTz(micros(meta.mtime(), meta.mtime_nsec()))])?);
        }
    }
    Ok(rows)
}

impl ExternalFunctions for Functions {
    fn call(
        &self,
        session: &mut SessionContext,
        func: &'static ProcEntry,
        _types: &CallTypes,
        args: &[Datum],
    ) -> Result<Option<Datum>, SqlError> {
        let Some(server) = self.server.upgrade() else { return Ok(None) };
        Ok(Some(match func.name {
            "version" => Datum::text(format!(
                "PostgreSQL {} on {}-{}, compiled by rustc, 64-bit",
                super::POSTGRES_VERSION,
                std::env::consts::ARCH,
                std::env::consts::OS
            )),
            "pg_reload_conf" => {
                server.reload();
                Datum::Bool(true)
            }
            "pg_cancel_backend" => {
                let pid = i32::try_from(int_arg(args, 0)).unwrap_or(0);
                let told = signal(&server, session, pid, CancelReason::Query)?.is_some();
                // It may have been itself.
                session.check_cancel()?;
                Datum::Bool(told)
            }
            "pg_stat_reset" => {
                session.engine.ctx().txns.table_stats().forget((session.database, 0));
                Datum::Void
            }
            "pg_stat_reset_single_table_counters" => {
                let oid = args.first().map_or(Ok(0), Datum::as_oid)?;
                session.engine.ctx().txns.table_stats().forget((session.database, oid));
                Datum::Void
            }
            "pg_terminate_backend" => {
                let pid = i32::try_from(int_arg(args, 0)).unwrap_or(0);
                let timeout = int_arg(args, 1);
                if timeout < 0 {
                    return Err(SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "\"timeout\" must not be negative"));
                }
                if signal(&server, session, pid, CancelReason::Terminate)?.is_none() {
                    return Ok(Some(Datum::Bool(false)));
                }
                if timeout > 0 && pid != session.backend_pid {
                    let limit = Duration::from_millis(timeout.unsigned_abs());
                    let gone = wait(&server, session, limit, || server.registry.find(pid).is_none().then_some(()))?;
                    if gone.is_none() {
                        session
                            .warning(SqlState::WARNING, format!("backend with PID {pid} did not terminate within {timeout} milliseconds"));
                        return Ok(Some(Datum::Bool(false)));
                    }
                }
                Datum::Bool(true)
            }
            "pg_postmaster_start_time" => Datum::TimestampTz(server.started),
            "pg_conf_load_time" => Datum::TimestampTz(*server.loaded.lock()),
            "pg_current_logfile" => {
                let destination = if args.is_empty() { None } else { Some(text_arg(args, 0)?) };
                if let Some(other) = destination.filter(|d| !matches!(*d, "stderr" | "csvlog" | "jsonlog")) {
                    return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("log format \"{other}\" is not supported"))
                        .hint("The supported log formats are \"stderr\", \"csvlog\", and \"jsonlog\"."));
                }
                log::current_file(destination).map_or(Datum::Null, Datum::text)
            }
            "pg_rotate_logfile" => match log::rotate() {
                Ok(true) => Datum::Bool(true),
                Ok(false) => {
                    session.warning(SqlState::WARNING, "rotation not possible because log collection not active");
                    Datum::Bool(false)
                }
                Err(e) => return Err(SqlError::new(SqlState::IO_ERROR, format!("could not open log file: {e}"))),
            },
            "pg_sleep" => {
                let seconds = match args.first() {
                    Some(Datum::Float8(s)) => *s,
                    _ => 0.0,
                };
                sleep(&server, session, seconds)?
            }
            "pg_sleep_for" => {
                let seconds = match args.first() {
                    #[expect(clippy::cast_precision_loss, reason = "seconds need no more")]
                    Some(Datum::Interval(i)) => {
                        let days = f64::from(i.months) * 30.0 + f64::from(i.days);
                        days * 86_400.0 + i.micros as f64 / 1e6
                    }
                    _ => 0.0,
                };
                sleep(&server, session, seconds)?
            }
            "pg_sleep_until" => {
                let seconds = match args.first() {
                    #[expect(clippy::cast_precision_loss, reason = "seconds need no more")]
                    Some(Datum::TimestampTz(t)) => t.saturating_sub(super::registry::now()) as f64 / 1e6,
                    _ => 0.0,
                };
                sleep(&server, session, seconds)?
            }
            "inet_client_addr" | "inet_client_port" => {
                let client = server.registry.find(session.backend_pid).and_then(|e| e.client);
                match (client, func.name) {
                    (None, _) => Datum::Null,
                    (Some((ip, _)), "inet_client_addr") => inet(ip),
                    (Some((_, port)), _) => Datum::Int4(i32::from(port)),
                }
            }
            "inet_server_addr" | "inet_server_port" => {
                let server_end = server.registry.find(session.backend_pid).and_then(|e| e.local);
                match (server_end, func.name) {
                    (None, _) => Datum::Null,
                    (Some((ip, _)), "inet_server_addr") => inet(ip),
                    (Some((_, port)), _) => Datum::Int4(i32::from(port)),
                }
            }
            "pg_blocking_pids" => {
                let pid = i32::try_from(int_arg(args, 0)).unwrap_or(0);
                let blockers = session.engine.ctx().txns.locks().blockers(ProcId(pid));
                let values = blockers.into_iter().map(|p| Datum::Int4(p.0)).collect();
                Datum::Array(Arc::new(ArrayValue::one_dim(oids::INT4, values)))
            }
            "pg_isolation_test_session_is_blocked" => {
                let pid = i32::try_from(int_arg(args, 0)).unwrap_or(0);
                let Some(Datum::Array(interesting)) = args.get(1) else { return Ok(Some(Datum::Null)) };
                let txns = &session.engine.ctx().txns;
                let mut blockers = txns.locks().blockers(ProcId(pid));
                blockers.extend(safe_snapshot_blockers(txns, ProcId(pid)));
                Datum::Bool(interesting.values.iter().any(|v| matches!(v, Datum::Int4(p) if blockers.contains(&ProcId(*p)))))
            }
            "pg_safe_snapshot_blocking_pids" => {
                let pid = i32::try_from(int_arg(args, 0)).unwrap_or(0);
                let blockers = safe_snapshot_blockers(&session.engine.ctx().txns, ProcId(pid));
                Datum::Array(Arc::new(ArrayValue::one_dim(oids::INT4, blockers.into_iter().map(|p| Datum::Int4(p.0)).collect())))
            }
            "pg_settings_get_flags" => match lookup(text_arg(args, 0)?) {
                None => Datum::Null,
                Some(setting) => {
                    let names = [(flag::EXPLAIN, "EXPLAIN"), (flag::NO_SHOW_ALL, "NO_SHOW_ALL"), (flag::NO_RESET_ALL, "NO_RESET_ALL")];
                    let set = names.iter().filter(|(f, _)| setting.def().has(*f)).map(|(_, n)| Datum::text(*n)).collect();
                    Datum::Array(Arc::new(ArrayValue::one_dim(oids::TEXT, set)))
                }
            },
            "pg_notification_queue_usage" => Datum::Float8(0.0),
            "pg_jit_available" => Datum::Bool(false),
            "pg_read_file" => match read_file(&server, session, args)? {
                None => Datum::Null,
                Some(bytes) => {
                    let text = String::from_utf8(bytes)
                        .map_err(|_| SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, "invalid byte sequence for encoding \"UTF8\""))?;
                    Datum::text(text)
                }
            },
            "pg_read_binary_file" => match read_file(&server, session, args)? {
                None => Datum::Null,
                Some(bytes) => Datum::Bytea(bytes.into()),
            },
            "afterimage_page_lsns" => {
                let name = text_arg(args, 0)?;
                let blocks = |i| {
                    u64::try_from(int_arg(args, i))
                        .map_err(|_| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "block numbers cannot be negative"))
                };
                // One answer stays well below the largest value.
                let count = blocks(2)?.min(1 << 17);
                match page_lsns_of(&path(&server, session, name)?, blocks(1)?, count).map_err(|e| file_error("read file", name, &e))? {
                    None => Datum::Null,
                    Some(bytes) => Datum::Bytea(bytes.into()),
                }
            }
            "pg_stat_file" => stat_file(&server, session, func, args)?,
            _ => return Ok(None),
        }))
    }

    fn call_set(
        &self,
        session: &mut SessionContext,
        func: &'static ProcEntry,
        _types: &CallTypes,
        args: &[Datum],
    ) -> Result<Option<SetRows>, SqlError> {
        let Some(server) = self.server.upgrade() else { return Ok(None) };
        let rows: Vec<Datum> = match func.name {
            "pg_listening_channels" => Vec::new(),
            "pg_ls_dir" => {
                let name = text_arg(args, 0)?;
                let full = path(&server, session, name)?;
                let listed = match fs::read_dir(full) {
                    Ok(listed) => listed,
                    Err(e) if bool_arg(args, 1) && e.kind() == std::io::ErrorKind::NotFound => {
                        return Ok(Some(Box::new(std::iter::empty())));
                    }
                    Err(e) => return Err(file_error("open directory", name, &e)),
                };
                let mut names: Vec<Datum> = Vec::new();
                if bool_arg(args, 2) {
                    names.extend([Datum::text("."), Datum::text("..")]);
                }
                for entry in listed {
                    let entry = entry.map_err(|e| file_error("read directory", name, &e))?;
                    names.push(Datum::text(&*entry.file_name().to_string_lossy()));
                }
                names
            }
            "pg_ls_waldir" | "pg_ls_archive_statusdir" | "pg_ls_logdir" => {
                let name = match func.name {
                    "pg_ls_waldir" => "pg_wal".to_owned(),
                    "pg_ls_logdir" => server.config.current().str(Setting::LogDirectory).to_owned(),
                    _ => "pg_wal/archive_status".to_owned(),
                };
                let dir = server.config.data_dir().join(&name);
                let entries = fs::read_dir(dir).map_err(|e| file_error("open directory", &name, &e))?;
                list_files(func, &name, entries)?
            }
            "pg_ls_tmpdir" | "pg_ls_logicalsnapdir" | "pg_ls_logicalmapdir" | "pg_ls_replslotdir" => {
                let name = match func.name {
                    "pg_ls_tmpdir" => "base/pgsql_tmp".to_owned(),
                    "pg_ls_logicalsnapdir" => "pg_logical/snapshots".to_owned(),
                    "pg_ls_logicalmapdir" => "pg_logical/mappings".to_owned(),
                    _ => {
                        let slot = text_arg(args, 0)?;
                        let plain = !slot.is_empty() && slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
                        if !plain || !server.config.data_dir().join("pg_replslot").join(slot).is_dir() {
                            let text = format!("replication slot \"{slot}\" does not exist");
                            return Err(SqlError::new(SqlState::UNDEFINED_OBJECT, text));
                        }
                        format!("pg_replslot/{slot}")
                    }
                };
                let entries = match fs::read_dir(server.config.data_dir().join(&name)) {
                    Ok(entries) => entries,
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Some(Box::new(std::iter::empty()))),
                    Err(e) => return Err(file_error("open directory", &name, &e)),
                };
                list_files(func, &name, entries)?
            }
            _ => return Ok(None),
        };
        Ok(Some(Box::new(rows.into_iter().map(Ok))))
    }
}

/// Whom a session waits for to have a safe snapshot.
fn safe_snapshot_blockers(txns: &Transactions, proc: ProcId) -> Vec<ProcId> {
    match txns.locks().waiting_for(proc) {
        Some("SafeSnapshot") => txns.serializable().safe_snapshot_blockers(proc),
        Some(_) | None => Vec::new(),
    }
}
