//! The text log: `LEVEL:  message` lines in PostgreSQL's form, to stderr, or to files (`log_files.rs`).
//!
//! Any layer logs by `tracing`: `info!` is LOG, `warn!` WARNING, `error!` ERROR, `debug!` DEBUG1, `trace!` DEBUG2. The fields `severity`
//! (another level name), `detail`, `hint`, `context`, `statement` and `sqlstate` are understood. Sessions log through [`emit`], which also
//! knows who they are for `log_line_prefix`.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Metadata, Subscriber};

use super::log_files::LogFiles;
use crate::config::{Setting, Settings};

/// Severity, in the order `log_min_messages` compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// DEBUG5, DEBUG4.
    Debug5,
    /// DEBUG3.
    Debug3,
    /// DEBUG2.
    Debug2,
    /// DEBUG1.
    Debug1,
    /// INFO.
    Info,
    /// NOTICE.
    Notice,
    /// WARNING.
    Warning,
    /// ERROR.
    Error,
    /// LOG.
    Log,
    /// FATAL.
    Fatal,
    /// PANIC.
    Panic,
}

impl Level {
    /// As it stands in a log line.
    pub fn label(self) -> &'static str {
        match self {
            Self::Debug5 | Self::Debug3 | Self::Debug2 | Self::Debug1 => "DEBUG",
            Self::Info => "INFO",
            Self::Notice => "NOTICE",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Log => "LOG",
            Self::Fatal => "FATAL",
            Self::Panic => "PANIC",
        }
    }

    /// The level a setting's label names.
    pub fn from_label(label: &str) -> Self {
        match label.to_ascii_lowercase().as_str() {
            "debug5" | "debug4" => Self::Debug5,
            "debug3" => Self::Debug3,
            "debug2" | "debug" => Self::Debug2,
            "debug1" => Self::Debug1,
            "info" => Self::Info,
            "notice" => Self::Notice,
            "warning" => Self::Warning,
            "log" => Self::Log,
            "fatal" => Self::Fatal,
            "panic" => Self::Panic,
            _ => Self::Error,
        }
    }
}

/// Who a line is about, for `log_line_prefix`.
#[derive(Clone, Debug, Default)]
pub struct Who {
    /// The session's process id as clients see it; 0 for the server itself.
    pub pid: i32,
    /// User.
    pub user: String,
    /// Database.
    pub database: String,
    /// `application_name`.
    pub application: String,
    /// Remote address, without port.
    pub host: String,
    /// Remote port.
    pub port: String,
    /// `client backend`, `walsender`, ...
    pub backend_type: String,
    /// When the session began, microseconds since 1970.
    pub started_micros: i64,
}

/// One entry of the log.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Severity.
    pub level: Level,
    /// SQLSTATE, or empty.
    pub sqlstate: &'a str,
    /// Message.
    pub message: &'a str,
    /// DETAIL.
    pub detail: Option<&'a str>,
    /// HINT.
    pub hint: Option<&'a str>,
    /// CONTEXT.
    pub context: Option<&'a str>,
    /// STATEMENT.
    pub statement: Option<&'a str>,
    /// Position in the statement, from 1.
    pub position: Option<u32>,
}

impl<'a> Entry<'a> {
    /// An entry with a message only.
    pub fn new(level: Level, message: &'a str) -> Self {
        Self { level, sqlstate: "", message, detail: None, hint: None, context: None, statement: None, position: None }
    }
}

/// What the log's form depends on.
struct Format {
    prefix: String,
    zone: TimeZone,
}

struct Logger {
    format: ArcSwap<Format>,
    /// Least level written, a [`Level`]. Relaxed: a line more or less at a change does not matter.
    min: AtomicU8,
    lines: AtomicU64,
    /// One writer at a time, so that lines do not mix; and the files, with `logging_collector`. Rank 100: nothing is taken while
    /// held; held across the write.
    out: Mutex<Option<LogFiles>>,
}

fn logger() -> &'static Logger {
    static LOGGER: OnceLock<Logger> = OnceLock::new();
    LOGGER.get_or_init(|| Logger {
        format: ArcSwap::from_pointee(Format { prefix: "%m [%p] ".into(), zone: TimeZone::UTC }),
        min: AtomicU8::new(Level::Warning as u8),
        lines: AtomicU64::new(0),
        out: Mutex::new(None),
    })
}

/// Takes `tracing`'s events from now on; call once per process, early.
pub fn install() {
    // A second call in one process (tests) keeps the first subscriber, which is the same.
    let _already_set = tracing::subscriber::set_global_default(Bridge);
}

/// Applies the logging settings.
pub fn configure(settings: &Settings) {
    let log = logger();
    let prefix = settings.str(Setting::LogLinePrefix).to_owned();
    log.format.store(std::sync::Arc::new(Format { prefix, zone: zone_of(settings) }));
    if let Some(files) = log.out.lock().as_mut() {
        files.configure(settings);
    }
    log.min.store(Level::from_label(settings.str(Setting::LogMinMessages)) as u8, Ordering::Relaxed);
}

/// Whether `level` reaches the log at the server's `log_min_messages`.
pub fn enabled(level: Level) -> bool {
    reaches(level, logger().min.load(Ordering::Relaxed))
}

/// LOG is above everything but FATAL and PANIC as a threshold, yet as a message it passes any threshold up to LOG.
fn reaches(level: Level, min: u8) -> bool {
    level as u8 >= min
}

/// Whoever has only a text to give an error puts DETAIL and HINT, in this order, behind it.
fn take_apart<'a>(entry: &Entry<'a>) -> Entry<'a> {
    let (text, hint) = entry.message.split_once("\nHINT:  ").map_or((entry.message, entry.hint), |(text, hint)| (text, Some(hint)));
    let (message, detail) = text.split_once("\nDETAIL:  ").map_or((text, entry.detail), |(text, detail)| (text, Some(detail)));
    Entry { message, detail, hint, ..entry.clone() }
}

/// Writes an entry, whatever `log_min_messages` says; ask [`enabled`] first.
pub fn emit(who: Option<&Who>, entry: &Entry<'_>) {
    let entry = &take_apart(entry);
    let log = logger();
    let format = log.format.load();
    let now = Timestamp::now();
    let mut prefix = String::with_capacity(64);
    let line_number = log.lines.fetch_add(1, Ordering::Relaxed) + 1;
    write_prefix(&mut prefix, &format, who, now, line_number, entry.sqlstate);
    let mut out = String::with_capacity(256);
    let mut line = |label: &str, text: &str| {
        out.push_str(&prefix);
        out.push_str(label);
        out.push_str(":  ");
        // Continuation lines are indented, so that a line that starts with the prefix is always an entry.
        for (i, part) in text.split('\n').enumerate() {
            if i > 0 {
                out.push_str("\n\t");
            }
            out.push_str(part);
        }
        out.push('\n');
    };
    let message = crate::sqlstate::without_errno(entry.message.to_owned());
    match entry.position {
        Some(at) => line(entry.level.label(), &format!("{message} at character {at}")),
        None => line(entry.level.label(), &message),
    }
    for (label, text) in [("DETAIL", entry.detail), ("HINT", entry.hint), ("CONTEXT", entry.context), ("STATEMENT", entry.statement)] {
        if let Some(text) = text {
            line(label, text);
        }
    }
    let mut files = log.out.lock();
    match files.as_mut() {
        Some(files) => files.write(&out, who, entry, now, line_number, &format.zone),
        None => {
            // Nothing can be told to anyone if stderr itself fails.
            let _unreportable = std::io::stderr().write_all(out.as_bytes());
        }
    }
}

/// Sends the log to files from now on, as the settings ask (`logging_collector`). The supervisor follows the server process's files.
///
/// # Errors
/// The directory or the first file cannot be made.
pub fn collect(settings: &Settings, data_dir: &std::path::Path, follow: bool) -> std::io::Result<()> {
    let zone = zone_of(settings);
    let files = LogFiles::open(settings, data_dir, follow, &zone)?;
    *logger().out.lock() = Some(files);
    Ok(())
}

/// Goes on to new files; false if the log is not collected into files.
///
/// # Errors
/// The new file cannot be made; the old one stays.
pub fn rotate() -> std::io::Result<bool> {
    let log = logger();
    let zone = log.format.load().zone.clone();
    match log.out.lock().as_mut() {
        Some(files) => files.rotate(Timestamp::now(), &zone).map(|()| true),
        None => Ok(false),
    }
}

/// Name of the current file for `stderr`, `csvlog` or `jsonlog`; with `None`, of the first there is.
pub fn current_file(destination: Option<&str>) -> Option<String> {
    logger().out.lock().as_ref().and_then(|files| files.name_of(destination))
}

fn zone_of(settings: &Settings) -> TimeZone {
    let zone = settings.str(Setting::LogTimezone);
    TimeZone::get(zone).or_else(|_| TimeZone::posix(zone)).unwrap_or(TimeZone::UTC)
}

fn write_prefix(out: &mut String, format: &Format, who: Option<&Who>, now: Timestamp, line: u64, sqlstate: &str) {
    let mut chars = format.prefix.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut width = String::new();
        let code = loop {
            match chars.next() {
                Some(d) if d == '-' || d.is_ascii_digit() => width.push(d),
                other => break other,
            }
        };
        let started = who.map_or(0, |w| w.started_micros);
        let text = match code {
            Some('m') => time(format, now, true),
            Some('t') => time(format, now, false),
            Some('n') => format!("{}.{:03}", now.as_second(), now.subsec_millisecond()),
            Some('s') => time(format, Timestamp::from_microsecond(started).unwrap_or(now), false),
            Some('p') => who.filter(|w| w.pid != 0).map_or_else(|| std::process::id().to_string(), |w| w.pid.to_string()),
            Some('u') => unknown_if_empty(who.map(|w| w.user.as_str())),
            Some('d') => unknown_if_empty(who.map(|w| w.database.as_str())),
            Some('a') => unknown_if_empty(who.map(|w| w.application.as_str())),
            Some('h') => who.map_or(String::new(), |w| w.host.clone()),
            Some('r') => who.map_or(String::new(), |w| if w.port.is_empty() { w.host.clone() } else { format!("{}({})", w.host, w.port) }),
            Some('b') => who.filter(|w| !w.backend_type.is_empty()).map_or_else(|| "server".into(), |w| w.backend_type.clone()),
            Some('l') => line.to_string(),
            Some('e') => if sqlstate.is_empty() { "00000" } else { sqlstate }.to_owned(),
            Some('c') => format!("{:x}.{:x}", started / 1_000_000, who.map_or(0, |w| w.pid)),
            Some('x' | 'Q') => "0".into(),
            Some('v') => String::new(),
            // What follows is for sessions only.
            Some('q') if who.is_none_or(|w| w.pid == 0) => return,
            Some('q') => continue,
            Some('%') => "%".into(),
            Some(_) => continue,
            None => return,
        };
        pad(out, &text, &width);
    }
}

fn pad(out: &mut String, text: &str, width: &str) {
    let n = width.parse::<i32>().unwrap_or(0);
    let wide = usize::try_from(n.unsigned_abs()).unwrap_or(0);
    let _infallible = if n < 0 { write!(out, "{text:<wide$}") } else { write!(out, "{text:>wide$}") };
}

fn unknown_if_empty(text: Option<&str>) -> String {
    match text {
        None => String::new(),
        Some("") => "[unknown]".into(),
        Some(t) => t.to_owned(),
    }
}

fn time(format: &Format, at: Timestamp, millis: bool) -> String {
    time_text(&format.zone, at, millis)
}

/// `2026-11-21 02:08:26.143 UTC`.
pub(super) fn time_text(zone: &TimeZone, at: Timestamp, millis: bool) -> String {
    let z = Zoned::new(at, zone.clone());
    let abbreviation = z.strftime("%Z").to_string();
    if millis {
        format!("{}.{:03} {abbreviation}", z.strftime("%Y-%m-%d %H:%M:%S"), z.millisecond())
    } else {
        format!("{} {abbreviation}", z.strftime("%Y-%m-%d %H:%M:%S"))
    }
}

/// `tracing`'s way into the log. Spans are not kept.
struct Bridge;

fn level_of(meta: &Metadata<'_>) -> Level {
    match *meta.level() {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warning,
        tracing::Level::INFO => Level::Log,
        tracing::Level::DEBUG => Level::Debug1,
        _ => Level::Debug2,
    }
}

impl Subscriber for Bridge {
    fn enabled(&self, meta: &Metadata<'_>) -> bool {
        if !meta.is_event() {
            return false;
        }
        // Libraries may warn; what they do otherwise is theirs.
        if !meta.target().starts_with("afterimage") && *meta.level() > tracing::Level::WARN {
            return false;
        }
        // `severity` may raise an entry, never lower it.
        enabled(level_of(meta))
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = fields.severity.as_deref().map_or_else(|| level_of(event.metadata()), Level::from_label);
        let entry = Entry {
            level,
            sqlstate: fields.sqlstate.as_deref().unwrap_or(""),
            message: &fields.message,
            detail: fields.detail.as_deref(),
            hint: fields.hint.as_deref(),
            context: fields.context.as_deref(),
            statement: fields.statement.as_deref(),
            position: None,
        };
        emit(None, &entry);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Fields {
    message: String,
    severity: Option<String>,
    sqlstate: Option<String>,
    detail: Option<String>,
    hint: Option<String>,
    context: Option<String>,
    statement: Option<String>,
}

impl Fields {
    fn put(&mut self, name: &str, text: String) {
        match name {
            "message" => self.message.insert_str(0, &text),
            "severity" => self.severity = Some(text),
            "sqlstate" => self.sqlstate = Some(text),
            "detail" => self.detail = Some(text),
            "hint" => self.hint = Some(text),
            "context" => self.context = Some(text),
            "statement" => self.statement = Some(text),
            _ => {
                let _infallible = write!(self.message, " {name}={text}");
            }
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}"));
    }
}
