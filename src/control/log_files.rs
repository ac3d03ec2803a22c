//! Log files: text, CSV and JSON, named by a pattern, changed by age, size or on request. PostgreSQL: syslogger.c, csvlog.c, jsonlog.c.
//!
//! The text file is also the process's stderr, so that what libraries and commands print lands in it. Files are opened for appending: the
//! supervisor, which writes little, finds the server's file by `current_logfiles` each time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::log::{Entry, Who, time_text};
use crate::config::{Setting, Settings, split_identifier_list};

/// File that names the current log files, in the data directory.
const CURRENT: &str = "current_logfiles";

/// The kinds of file, with their `log_destination` and their suffix.
const KINDS: [(&str, &str); 3] = [("stderr", ".log"), ("csvlog", ".csv"), ("jsonlog", ".json")];

/// Open log files.
#[derive(Debug)]
pub(super) struct LogFiles {
    data_dir: PathBuf,
    directory: String,
    pattern: String,
    mode: u32,
    truncate: bool,
    max_age: Option<Duration>,
    max_bytes: Option<u64>,
    wanted: [bool; 3],
    open: [Option<(String, File)>; 3],
    opened: Timestamp,
    bytes: u64,
    follow: bool,
}

impl LogFiles {
    /// Opens the first files; with `follow` it only looks where another process writes.
    pub(super) fn open(settings: &Settings, data_dir: &Path, follow: bool, zone: &TimeZone) -> io::Result<Self> {
        let mut files = Self {
            data_dir: data_dir.to_owned(),
            directory: String::new(),
            pattern: String::new(),
            mode: 0o600,
            truncate: false,
            max_age: None,
            max_bytes: None,
            wanted: [true, false, false],
            open: [None, None, None],
            opened: Timestamp::now(),
            bytes: 0,
            follow,
        };
        files.configure(settings);
        if !follow {
            let directory = files.data_dir.join(&files.directory);
            if !directory.exists() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
            }
            files.rotate(Timestamp::now(), zone)?;
        }
        Ok(files)
    }

    /// Takes changed settings; names and kinds count from the next rotation on.
    pub(super) fn configure(&mut self, settings: &Settings) {
        settings.str(Setting::LogDirectory).clone_into(&mut self.directory);
        settings.str(Setting::LogFilename).clone_into(&mut self.pattern);
        self.mode = u32::try_from(settings.int(Setting::LogFileMode)).unwrap_or(0o600);
        self.truncate = settings.bool(Setting::LogTruncateOnRotation);
        self.max_age = settings.duration(Setting::LogRotationAge).filter(|d| !d.is_zero());
        self.max_bytes = settings.bytes(Setting::LogRotationSize).filter(|b| *b > 0);
        let asked = split_identifier_list(settings.str(Setting::LogDestination)).unwrap_or_default();
        self.wanted = KINDS.map(|(name, _)| asked.iter().any(|a| a == name));
    }

    /// Opens files by the pattern as of `now` and goes over to them.
    pub(super) fn rotate(&mut self, now: Timestamp, zone: &TimeZone) -> io::Result<()> {
        if self.follow {
            return Ok(());
        }
        let stem = Zoned::new(now, zone.clone()).strftime(&self.pattern).to_string();
        let base = stem.strip_suffix(".log").unwrap_or(&stem);
        for (i, (_, suffix)) in KINDS.iter().enumerate() {
            // The text file always exists: it is stderr.
            if i > 0 && !self.wanted[i] {
                self.open[i] = None;
                continue;
            }
            let file_name = if i == 0 { stem.clone() } else { format!("{base}{suffix}") };
            let name = Path::new(&self.directory).join(file_name).display().to_string();
            let again = self.open[i].as_ref().is_some_and(|(old, _)| *old == name);
            let fresh = self.truncate && !again && self.open[i].is_some();
            let mut options = OpenOptions::new();
            options.append(true).create(true).mode(self.mode);
            let path = self.data_dir.join(&name);
            let file = options.open(&path)?;
            if fresh {
                file.set_len(0)?;
            }
            if i == 0 {
                rustix::stdio::dup2_stderr(&file)?;
            }
            self.open[i] = Some((name, file));
        }
        self.opened = now;
        self.bytes = 0;
        self.write_current()
    }

    fn write_current(&self) -> io::Result<()> {
        let mut text = String::new();
        for (i, (destination, _)) in KINDS.iter().enumerate() {
            if let (Some((name, _)), true) = (&self.open[i], self.wanted[i]) {
                text.push_str(&format!("{destination} {name}\n"));
            }
        }
        let temp = self.data_dir.join(format!("{CURRENT}.tmp"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(self.mode).open(&temp)?;
        file.write_all(text.as_bytes())?;
        #[expect(clippy::disallowed_methods, reason = "a hint for readers, remade at each start; not worth a sync")]
        fs::rename(&temp, self.data_dir.join(CURRENT))
    }

    /// The current file of a destination.
    pub(super) fn name_of(&self, destination: Option<&str>) -> Option<String> {
        KINDS.iter().enumerate().find_map(|(i, (name, _))| {
            let asked = destination.is_none_or(|d| d == *name);
            self.open[i].as_ref().filter(|_| asked && self.wanted[i]).map(|(file, _)| file.clone())
        })
    }

    /// Writes one entry, whose text form is `text`. Failures cannot be reported anywhere.
    pub(super) fn write(&mut self, text: &str, who: Option<&Who>, entry: &Entry<'_>, now: Timestamp, line: u64, zone: &TimeZone) {
        if self.follow {
            self.write_followed(text);
            return;
        }
        let aged = self.max_age.is_some_and(|limit| {
            let age = now.as_microsecond().saturating_sub(self.opened.as_microsecond());
            u128::from(age.unsigned_abs()) >= limit.as_micros()
        });
        if aged || self.max_bytes.is_some_and(|limit| self.bytes >= limit) {
            // The old file goes on if a new one cannot be had.
            let _old_stays = self.rotate(now, zone);
        }
        let csv = self.open[1].is_some().then(|| csv(who, entry, now, line, zone));
        let json = self.open[2].is_some().then(|| json(who, entry, now, line, zone));
        let text = self.wanted[0].then(|| text.to_owned());
        for (slot, text) in self.open.iter_mut().zip([text, csv, json]) {
            if let (Some((_, file)), Some(text)) = (slot, text) {
                self.bytes += u64::try_from(text.len()).unwrap_or(0);
                let _unreportable = file.write_all(text.as_bytes());
            }
        }
    }

    fn write_followed(&self, text: &str) {
        let current = fs::read_to_string(self.data_dir.join(CURRENT)).unwrap_or_default();
        let name = current.lines().find_map(|l| l.strip_prefix("stderr "));
        let opened = name.and_then(|n| OpenOptions::new().append(true).open(self.data_dir.join(n)).ok());
        let _unreportable = match opened {
            Some(mut file) => file.write_all(text.as_bytes()),
            None => io::stderr().write_all(text.as_bytes()),
        };
    }
}

fn pid(who: Option<&Who>) -> i64 {
    match who {
        Some(w) if w.pid != 0 => i64::from(w.pid),
        _ => i64::from(std::process::id()),
    }
}

fn session_id(who: Option<&Who>) -> String {
    format!("{:x}.{:x}", who.map_or(0, |w| w.started_micros) / 1_000_000, pid(who))
}

fn started(who: Option<&Who>, zone: &TimeZone) -> String {
    let at = who.and_then(|w| Timestamp::from_microsecond(w.started_micros).ok()).unwrap_or(Timestamp::UNIX_EPOCH);
    time_text(zone, at, false)
}

/// One line of the CSV log, in PostgreSQL 15's columns.
fn csv(who: Option<&Who>, e: &Entry<'_>, now: Timestamp, line: u64, zone: &TimeZone) -> String {
    let quoted = |text: &str| if text.is_empty() { String::new() } else { format!("\"{}\"", text.replace('"', "\"\"")) };
    let from = who.map_or(String::new(), |w| if w.port.is_empty() { w.host.clone() } else { format!("{}:{}", w.host, w.port) });
    let sqlstate = if e.sqlstate.is_empty() { "00000" } else { e.sqlstate };
    let fields = [
        time_text(zone, now, true),
        quoted(who.map_or("", |w| &w.user)),
        quoted(who.map_or("", |w| &w.database)),
        pid(who).to_string(),
        quoted(&from),
        session_id(who),
        line.to_string(),
        quoted(""),
        started(who, zone),
        String::new(),
        "0".into(),
        e.level.label().into(),
        sqlstate.into(),
        quoted(e.message),
        quoted(e.detail.unwrap_or("")),
        quoted(e.hint.unwrap_or("")),
        String::new(),
        String::new(),
        quoted(e.context.unwrap_or("")),
        quoted(e.statement.unwrap_or("")),
        e.position.map_or(String::new(), |p| p.to_string()),
        String::new(),
        quoted(who.map_or("", |w| &w.application)),
        quoted(who.map_or("server", |w| &w.backend_type)),
        String::new(),
        "0".into(),
    ];
    format!("{}\n", fields.join(","))
}

/// One line of the JSON log, with PostgreSQL 15's keys.
fn json(who: Option<&Who>, e: &Entry<'_>, now: Timestamp, line: u64, zone: &TimeZone) -> String {
    let mut map = serde_json::Map::new();
    let mut put = |key: &str, value: serde_json::Value| {
        if value != serde_json::Value::String(String::new()) {
            map.insert(key.to_owned(), value);
        }
    };
    put("timestamp", time_text(zone, now, true).into());
    if let Some(w) = who {
        put("user", w.user.clone().into());
        put("dbname", w.database.clone().into());
    }
    put("pid", pid(who).into());
    if let Some(w) = who {
        put("remote_host", w.host.clone().into());
        put("remote_port", w.port.parse::<u16>().map_or(serde_json::Value::String(String::new()), Into::into));
    }
    put("session_id", session_id(who).into());
    put("line_num", line.into());
    put("session_start", started(who, zone).into());
    put("txid", 0.into());
    put("error_severity", e.level.label().into());
    put("state_code", e.sqlstate.into());
    put("message", e.message.into());
    put("detail", e.detail.unwrap_or("").into());
    put("hint", e.hint.unwrap_or("").into());
    put("context", e.context.unwrap_or("").into());
    put("statement", e.statement.unwrap_or("").into());
    if let Some(position) = e.position {
        put("cursor_position", position.into());
    }
    if let Some(w) = who {
        put("application_name", w.application.clone().into());
    }
    put("backend_type", who.map_or("server", |w| &w.backend_type).into());
    put("query_id", 0.into());
    format!("{}\n", serde_json::Value::Object(map))
}
