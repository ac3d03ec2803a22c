//! A session's settings: the server's values and this session's changes over them, undone with the transaction that made them.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::definition::{Context, flag, lookup};
use super::server::{Source, unknown};
use super::settings::{self, Settings};
use super::table::{Setting, TABLE};
use super::value::{Value, quote_identifier, split_identifier_list};
use crate::sqlstate::{SqlError, SqlState};

/// How long a SET lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetScope {
    /// SET: until the session ends, unless its transaction rolls back.
    Session,
    /// SET LOCAL: until its transaction ends.
    Local,
    /// SET in a function's SET clause, or a savepoint's: until [`SessionSettings::end_level`].
    Level,
}

#[derive(Clone, Debug)]
struct Override {
    value: Value,
    source: Source,
}

/// What a rollback to `level` restores. `None` is "no override".
#[derive(Debug)]
struct Undo {
    level: u32,
    target: Target,
    before: Option<Override>,
    before_custom: Option<String>,
    /// Restore on commit too (SET LOCAL).
    local: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Target {
    Known(Setting),
    Custom(String),
}

/// The settings one session sees.
#[derive(Debug)]
pub struct SessionSettings {
    base: Arc<Settings>,
    over: FxHashMap<Setting, Override>,
    custom: FxHashMap<String, String>,
    undo: Vec<Undo>,
    /// 0 outside a transaction, 1 in it, more in savepoints and functions.
    level: u32,
    /// Set by any change; tells caches (plan cache, I/O settings) to look again.
    version: u64,
    /// Values last told to the client, per reported setting.
    told: Vec<(Setting, String)>,
    superuser: bool,
    /// Session defaults (startup packet, ALTER ROLE/DATABASE SET), what RESET goes back to.
    reset: FxHashMap<Setting, Override>,
}

impl SessionSettings {
    /// A session over the server's values.
    pub fn new(base: Arc<Settings>) -> Self {
        Self {
            base,
            over: FxHashMap::default(),
            custom: FxHashMap::default(),
            undo: Vec::new(),
            level: 0,
            version: 1,
            told: Vec::new(),
            superuser: false,
            reset: FxHashMap::default(),
        }
    }

    /// Takes the server's new values after a reload.
    pub fn rebase(&mut self, base: Arc<Settings>) {
        self.base = base;
        self.version += 1;
    }

    /// The server-wide values under this session.
    pub fn base(&self) -> &Arc<Settings> {
        &self.base
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether superuser-only settings may be set and shown.
    pub fn set_superuser(&mut self, superuser: bool) {
        self.superuser = superuser;
        let value = Override { value: Value::Bool(superuser), source: Source::Session };
        self.over.insert(Setting::IsSuperuser, value);
        self.version += 1;
    }

    /// The value of `setting`.
    pub fn value(&self, setting: Setting) -> &Value {
        if !self.over.is_empty()
            && let Some(o) = self.over.get(&setting)
        {
            return &o.value;
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "settings without a fallback of their own")]
        match setting {
            Setting::TransactionIsolation => self.value(Setting::DefaultTransactionIsolation),
            Setting::TransactionReadOnly => self.value(Setting::DefaultTransactionReadOnly),
            Setting::TransactionDeferrable => self.value(Setting::DefaultTransactionDeferrable),
            _ => self.base.value(setting),
        }
    }

    /// Whether this session has a value of its own for `setting`.
    pub fn is_overridden(&self, setting: Setting) -> bool {
        self.over.contains_key(&setting)
    }

    /// Where the value of `setting` came from.
    pub fn source(&self, setting: Setting) -> Source {
        self.over.get(&setting).map_or_else(|| self.base.source(setting), |o| o.source)
    }

    /// A boolean setting.
    pub fn bool(&self, setting: Setting) -> bool {
        settings::as_bool(self.value(setting))
    }

    /// A whole-number setting, in its own unit.
    pub fn int(&self, setting: Setting) -> i64 {
        settings::as_int(self.value(setting))
    }

    /// A numeric setting, in its own unit.
    pub fn real(&self, setting: Setting) -> f64 {
        settings::as_real(self.value(setting))
    }

    /// A text or label setting.
    pub fn str(&self, setting: Setting) -> &str {
        settings::as_str(self.value(setting))
    }

    /// A memory setting in bytes; `None` for a negative value.
    pub fn bytes(&self, setting: Setting) -> Option<u64> {
        settings::as_bytes(setting, self.value(setting))
    }

    /// A time setting; `None` for a negative value.
    pub fn duration(&self, setting: Setting) -> Option<Duration> {
        settings::as_duration(setting, self.value(setting))
    }

    /// The value of a named setting, as SHOW prints it.
    ///
    /// # Errors
    /// 42704 for an unknown name, 42501 for one this user may not see.
    pub fn show(&self, name: &str) -> Result<String, SqlError> {
        match lookup(name) {
            Some(setting) => {
                if setting.def().has(flag::SUPERUSER_ONLY) && !self.superuser {
                    return Err(SqlError::new(
                        SqlState::INSUFFICIENT_PRIVILEGE,
                        format!("must be superuser or have privileges of pg_read_all_settings to examine \"{}\"", setting.name()),
                    ));
                }
                Ok(self.show_setting(setting))
            }
            None => self.custom_value(name).map(str::to_owned).ok_or_else(|| unknown(name)),
        }
    }

    /// The value of a setting, as SHOW prints it.
    pub fn show_setting(&self, setting: Setting) -> String {
        self.value(setting).show(setting.def())
    }

    fn custom_value(&self, name: &str) -> Option<&str> {
        if let Some(value) = self.custom.get(&name.to_ascii_lowercase()) {
            return Some(value);
        }
        self.base.custom.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// SET name = value. Lists arrive joined by `, ` with elements quoted as needed (see [`Self::join_list`]).
    ///
    /// # Errors
    /// An unknown setting, one this user or this moment may not change, a bad value; PostgreSQL's texts.
    pub fn set(&mut self, name: &str, value: &str, scope: SetScope) -> Result<(), SqlError> {
        let Some(setting) = lookup(name) else { return self.set_custom(name, Some(value), scope) };
        self.may_change(setting, Source::Session)?;
        let value = self.parse(setting, value)?;
        self.put(setting, Some(Override { value, source: Source::Session }), scope);
        Ok(())
    }

    /// Whether [`Self::set`] would take this value; for ALTER ROLE and DATABASE SET.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn check(&self, name: &str, value: &str) -> Result<(), SqlError> {
        let Some(setting) = lookup(name) else {
            return if name.contains('.') { Ok(()) } else { Err(unknown(name)) };
        };
        self.may_change(setting, Source::Session)?;
        self.parse(setting, value).map(|_| ())
    }

    /// Elements of a SET list, joined as the setting stores them.
    pub fn join_list(name: &str, elements: &[String]) -> String {
        let quoting = lookup(name).is_some_and(|s| s.def().has(flag::LIST_QUOTE));
        if quoting { elements.iter().map(|e| quote_identifier(e)).collect::<Vec<_>>().join(", ") } else { elements.join(", ") }
    }

    /// A value from the startup packet, or ALTER ROLE/DATABASE SET: the session's own default.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn set_session_default(&mut self, name: &str, value: &str, source: Source) -> Result<(), SqlError> {
        let Some(setting) = lookup(name) else { return self.set_custom(name, Some(value), SetScope::Session) };
        self.may_change(setting, source)?;
        let value = self.parse(setting, value)?;
        let over = Override { value, source };
        self.reset.insert(setting, over.clone());
        self.over.insert(setting, over);
        self.version += 1;
        Ok(())
    }

    /// Sets a value the server decides for this session (`transaction_read_only` by BEGIN, `session_authorization`, ...), unchecked.
    pub fn set_internal(&mut self, setting: Setting, value: Value, scope: SetScope) {
        self.put(setting, Some(Override { value, source: Source::Session }), scope);
    }

    /// RESET name, SET name TO DEFAULT.
    ///
    /// # Errors
    /// An unknown setting, or one this user or this moment may not change.
    pub fn reset(&mut self, name: &str, scope: SetScope) -> Result<(), SqlError> {
        let Some(setting) = lookup(name) else { return self.set_custom(name, None, scope) };
        self.may_change(setting, Source::Session)?;
        if matches!(setting, Setting::TransactionIsolation | Setting::TransactionReadOnly | Setting::TransactionDeferrable) {
            return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, format!("parameter \"{}\" cannot be reset", setting.name())));
        }
        self.put(setting, self.reset.get(&setting).cloned(), scope);
        Ok(())
    }

    /// RESET ALL.
    pub fn reset_all(&mut self) {
        let changed: Vec<Setting> = self.over.keys().copied().filter(|s| !s.def().has(flag::NO_RESET_ALL)).collect();
        for setting in changed {
            if setting.def().context >= Context::Superuser {
                self.put(setting, self.reset.get(&setting).cloned(), SetScope::Session);
            }
        }
    }

    fn set_custom(&mut self, name: &str, value: Option<&str>, scope: SetScope) -> Result<(), SqlError> {
        if !name.contains('.') {
            return Err(unknown(name));
        }
        let valid = name.split('.').all(|part| {
            part.starts_with(|c: char| c.is_alphabetic() || c == '_') && part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$')
        });
        if !valid {
            return Err(SqlError::new(SqlState::INVALID_NAME, format!("invalid configuration parameter name \"{name}\""))
                .detail("Custom parameter names must be two or more simple identifiers separated by dots."));
        }
        let key = name.to_ascii_lowercase();
        let before_custom = self.custom.get(&key).cloned();
        if self.level > 0 || scope == SetScope::Local {
            self.undo.push(Undo {
                level: self.level,
                target: Target::Custom(key.clone()),
                before: None,
                before_custom,
                local: scope != SetScope::Session,
            });
        }
        match value {
            Some(v) => self.custom.insert(key, v.to_owned()),
            None => self.custom.remove(&key),
        };
        self.version += 1;
        Ok(())
    }

    fn may_change(&self, setting: Setting, source: Source) -> Result<(), SqlError> {
        let def = setting.def();
        let refuse = |text: &str| Err(SqlError::new(SqlState::CANT_CHANGE_RUNTIME_PARAM, format!("parameter \"{}\" {text}", def.name)));
        match def.context {
            Context::Internal => refuse("cannot be changed"),
            Context::Postmaster => refuse("cannot be changed without restarting the server"),
            Context::Sighup => refuse("cannot be changed now"),
            Context::SuperuserBackend | Context::Backend if source == Source::Session => refuse("cannot be set after connection start"),
            Context::SuperuserBackend | Context::Superuser if !self.superuser => {
                Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied to set parameter \"{}\"", def.name)))
            }
            Context::SuperuserBackend | Context::Backend | Context::Superuser | Context::User => Ok(()),
        }
    }

    fn parse(&self, setting: Setting, text: &str) -> Result<Value, SqlError> {
        let value = Value::parse(setting.def(), text)?;
        Ok(check(setting, &value)?.unwrap_or(value))
    }

    fn put(&mut self, setting: Setting, over: Option<Override>, scope: SetScope) {
        let before = match over {
            Some(o) => self.over.insert(setting, o),
            None => self.over.remove(&setting),
        };
        if self.level > 0 {
            self.undo.push(Undo {
                level: self.level,
                target: Target::Known(setting),
                before,
                before_custom: None,
                local: scope != SetScope::Session,
            });
        }
        self.version += 1;
    }

    /// Starts a transaction, savepoint, or function level.
    pub fn begin_level(&mut self) {
        self.level += 1;
    }

    /// How many levels are open.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// Ends the innermost level. At rollback its changes are undone; at commit of the outermost, SET LOCAL's are.
    pub fn end_level(&mut self, commit: bool) {
        let ending = self.level;
        if ending == 0 {
            return;
        }
        if !commit {
            while self.undo.last().is_some_and(|u| u.level >= ending) {
                if let Some(u) = self.undo.pop() {
                    self.restore(u);
                }
            }
        } else if ending == 1 {
            // A later plain SET outlives an earlier SET LOCAL of the same setting; an earlier one is what SET LOCAL falls back to.
            let undo = std::mem::take(&mut self.undo);
            let mut settled: Vec<Target> = Vec::new();
            for u in undo.into_iter().rev() {
                if u.local {
                    if !settled.contains(&u.target) {
                        self.restore(u);
                    }
                } else {
                    settled.push(u.target);
                }
            }
        } else {
            // Those of deeper levels come last.
            for u in self.undo.iter_mut().rev().take_while(|u| u.level >= ending) {
                u.level = ending - 1;
            }
        }
        self.level = ending - 1;
    }

    fn restore(&mut self, undo: Undo) {
        match undo.target {
            Target::Known(setting) => match undo.before {
                Some(o) => {
                    self.over.insert(setting, o);
                }
                None => {
                    self.over.remove(&setting);
                }
            },
            Target::Custom(name) => match undo.before_custom {
                Some(v) => {
                    self.custom.insert(name, v);
                }
                None => {
                    self.custom.remove(&name);
                }
            },
        }
        self.version += 1;
    }

    /// Reported settings whose value the client does not know yet; they count as told afterwards.
    pub fn take_reports(&mut self) -> Vec<(&'static str, String)> {
        let mut out = Vec::new();
        for def in TABLE.iter().filter(|d| d.has(flag::REPORT)) {
            let value = self.show_setting(def.id);
            match self.told.iter_mut().find(|(s, _)| *s == def.id) {
                Some((_, told)) if *told == value => {}
                Some((_, told)) => {
                    told.clone_from(&value);
                    out.push((def.name, value));
                }
                None => {
                    self.told.push((def.id, value.clone()));
                    out.push((def.name, value));
                }
            }
        }
        out
    }
}

/// Checks beyond type and bounds; `Some` is the canonical spelling to store.
pub(super) fn check(setting: Setting, value: &Value) -> Result<Option<Value>, SqlError> {
    let Value::Str(text) = value else { return Ok(None) };
    let bad =
        || SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid value for parameter \"{}\": \"{text}\"", setting.name()));
    let canonical = |s: &str| Ok(Some(Value::Str(s.into())));
    #[expect(clippy::wildcard_enum_match_arm, reason = "most settings need no further check")]
    match setting {
        Setting::ClientEncoding => {
            let plain: String = text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
            match plain.as_str() {
                "utf8" | "unicode" => canonical("UTF8"),
                "sqlascii" => canonical("SQL_ASCII"),
                _ => Err(bad()),
            }
        }
        Setting::TimeZone | Setting::LogTimezone => match time_zone(text) {
            Some(name) => canonical(&name),
            None => Err(bad()),
        },
        Setting::ReadAfterLsn => match text.parse::<afterimage_wal::Lsn>() {
            _ if text.is_empty() => Ok(None),
            Ok(lsn) => canonical(&lsn.to_string()),
            Err(_) => Err(bad()),
        },
        Setting::RecoveryTarget if !matches!(&**text, "" | "immediate") => Err(bad().detail("The only allowed value is \"immediate\".")),
        Setting::RecoveryTargetName if text.len() >= 64 => Err(bad().detail("recovery_target_name is too long (maximum 63 characters).")),
        Setting::RecoveryTargetLsn if !text.is_empty() && text.parse::<afterimage_wal::Lsn>().is_err() => Err(bad()),
        Setting::RecoveryTargetXid if !text.is_empty() && text.parse::<u64>().is_err() => Err(bad()),
        // They mean another moment at each start.
        Setting::RecoveryTargetTime
            if ["now", "today", "tomorrow", "yesterday", "epoch", "infinity", "-infinity"]
                .contains(&text.trim().to_ascii_lowercase().as_str())
                || !text.is_empty() && !text.contains(|c: char| c.is_ascii_digit()) =>
        {
            Err(bad())
        }
        Setting::RecoveryTargetTimeline if !matches!(&**text, "" | "latest" | "current") && text.parse::<u32>().is_err() => {
            Err(bad().detail("recovery_target_timeline is not a valid number."))
        }
        Setting::PrimarySlotName if !text.is_empty() => match slot_name_fault(text) {
            Some(fault) if fault.ends_with("invalid character") => Err(bad()
                .detail(fault)
                .hint("Replication slot names may only contain lower case letters, numbers, and the underscore character.")),
            Some(fault) => Err(bad().detail(fault)),
            None => Ok(None),
        },
        Setting::SynchronousStandbyNames => super::SyncNames::parse(text).map(|_| None),
        Setting::DateStyle => date_style(text).ok_or_else(bad).and_then(|s| canonical(&s)),
        Setting::SearchPath | Setting::TempTablespaces => {
            if split_identifier_list(text).is_none() {
                return Err(bad().detail("List syntax is invalid."));
            }
            Ok(None)
        }
        Setting::ApplicationName | Setting::ClusterName => {
            // NAMEDATALEN - 1 bytes, printable ASCII only.
            let clean: String = text.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).take(63).collect();
            canonical(&clean)
        }
        Setting::LogDestination => {
            let list = split_identifier_list(text).ok_or_else(|| bad().detail("List syntax is invalid."))?;
            if let Some(unknown) = list.iter().find(|d| !matches!(d.as_str(), "stderr" | "csvlog" | "jsonlog" | "syslog")) {
                return Err(bad().detail(format!("Unrecognized key word: \"{unknown}\".")));
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// What is wrong with the name of a replication slot.
fn slot_name_fault(name: &str) -> Option<String> {
    if name.len() > 63 {
        return Some(format!("replication slot name \"{name}\" is too long"));
    }
    let allowed = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    (!allowed).then(|| format!("replication slot name \"{name}\" contains invalid character"))
}

/// The canonical name of a time zone: an IANA name, a number of hours, or `INTERVAL`-less offsets as `<+03>-03`.
fn time_zone(text: &str) -> Option<String> {
    let t = text.trim();
    if t.eq_ignore_ascii_case("default") || t.eq_ignore_ascii_case("local") {
        return Some("GMT".into());
    }
    if let Ok(hours) = t.parse::<f64>() {
        if !(-167.0..=167.0).contains(&hours) {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the line above")]
        let minutes = (hours * 60.0).round() as i64;
        let label = |m: i64| {
            let sign = if m < 0 { '-' } else { '+' };
            let (h, rest) = (m.abs() / 60, m.abs() % 60);
            if rest == 0 { format!("{sign}{h:02}") } else { format!("{sign}{h:02}:{rest:02}") }
        };
        return Some(format!("<{}>{}", label(minutes), label(-minutes)));
    }
    if t.eq_ignore_ascii_case("utc") || t.eq_ignore_ascii_case("gmt") || t.eq_ignore_ascii_case("zulu") {
        return Some(if t.eq_ignore_ascii_case("zulu") { "Zulu".into() } else { t.to_ascii_uppercase() });
    }
    if let Ok(zone) = jiff::tz::TimeZone::get(t) {
        return Some(zone.iana_name().unwrap_or(t).to_owned());
    }
    jiff::tz::TimeZone::posix(t).ok().map(|_| t.to_owned())
}

/// `DateStyle` in its canonical `Style, Order` form.
fn date_style(text: &str) -> Option<String> {
    let (mut style, mut order) = ("ISO", "MDY");
    for word in text.split([',', ' ']).map(str::trim).filter(|w| !w.is_empty()) {
        match word.to_ascii_lowercase().as_str() {
            "iso" => style = "ISO",
            "sql" => style = "SQL",
            "postgres" => style = "Postgres",
            "german" => {
                style = "German";
                order = "DMY";
            }
            "ymd" => order = "YMD",
            "dmy" | "european" | "euro" | "noneuropean_off" => order = "DMY",
            "mdy" | "us" | "noneuro" | "noneuropean" => order = "MDY",
            "default" => (style, order) = ("ISO", "MDY"),
            _ => return None,
        }
    }
    Some(format!("{style}, {order}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionSettings {
        SessionSettings::new(Arc::new(Settings::default()))
    }

    #[test]
    fn set_is_undone_by_rollback_and_kept_by_commit() {
        let mut s = session();
        s.begin_level();
        s.set("work_mem", "8MB", SetScope::Session).unwrap();
        s.end_level(false);
        assert_eq!(s.show("work_mem").unwrap(), "4MB");
        s.begin_level();
        s.set("work_mem", "8MB", SetScope::Session).unwrap();
        s.set("work_mem", "16MB", SetScope::Local).unwrap();
        assert_eq!(s.show("work_mem").unwrap(), "16MB");
        s.end_level(true);
        assert_eq!(s.show("work_mem").unwrap(), "8MB");
    }

    #[test]
    fn what_recovery_could_not_use_is_refused_when_it_is_set() {
        let refused = |setting: Setting, text: &str| check(setting, &Value::Str(text.into())).err().map(|e| e.to_string());
        for (setting, bad, good) in [
            (Setting::RecoveryTarget, "soon", "immediate"),
            (Setting::RecoveryTargetTime, "now", "2026-01-01 00:00:00+00"),
            (Setting::RecoveryTargetXid, "x", "731"),
            (Setting::RecoveryTargetLsn, "0/0/0", "0/3000060"),
            (Setting::RecoveryTargetName, &*"n".repeat(64), "before the mistake"),
            (Setting::RecoveryTargetTimeline, "newest", "latest"),
            (Setting::PrimarySlotName, "Upper", "node_2"),
        ] {
            assert_eq!(refused(setting, bad), Some(format!("invalid value for parameter \"{}\": \"{bad}\"", setting.name())));
            assert_eq!(refused(setting, good), None);
            assert_eq!(refused(setting, ""), None);
        }
    }

    #[test]
    fn savepoint_levels_undo_their_own_changes() {
        let mut s = session();
        s.begin_level();
        s.set("work_mem", "8MB", SetScope::Session).unwrap();
        s.begin_level();
        s.set("work_mem", "9MB", SetScope::Session).unwrap();
        s.end_level(false);
        assert_eq!(s.show("work_mem").unwrap(), "8MB");
        s.end_level(true);
        assert_eq!(s.show("work_mem").unwrap(), "8MB");
    }

    #[test]
    fn messages_are_postgresqls() {
        let mut s = session();
        let text = |e: SqlError| e.to_string();
        assert_eq!(text(s.set("nope", "1", SetScope::Session).unwrap_err()), "unrecognized configuration parameter \"nope\"");
        assert_eq!(
            text(s.set("port", "1", SetScope::Session).unwrap_err()),
            "parameter \"port\" cannot be changed without restarting the server"
        );
        assert_eq!(
            text(s.set("work_mem", "1", SetScope::Session).unwrap_err()),
            "1 kB is outside the valid range for parameter \"work_mem\" (64 .. 2147483647)"
        );
        assert_eq!(text(s.set("work_mem", "x", SetScope::Session).unwrap_err()), "invalid value for parameter \"work_mem\": \"x\"");
    }

    #[test]
    fn show_uses_the_largest_unit_that_divides() {
        let s = session();
        assert_eq!(s.show("shared_buffers").unwrap(), "128MB");
        assert_eq!(s.show("checkpoint_timeout").unwrap(), "5min");
        assert_eq!(s.show("wal_segment_size").unwrap(), "16MB");
        assert_eq!(s.show("unix_socket_permissions").unwrap(), "0777");
        assert_eq!(s.show("autovacuum_vacuum_cost_delay").unwrap(), "2ms");
        assert_eq!(s.show("max_wal_size").unwrap(), "1GB");
    }

    #[test]
    fn every_default_parses() {
        for def in TABLE {
            let value = Value::parse(def, def.default).unwrap_or_else(|e| panic!("{}: {e}", def.name));
            check(def.id, &value).unwrap_or_else(|e| panic!("{}: {e}", def.name));
        }
    }

    #[test]
    fn reports_only_what_changed() {
        let mut s = session();
        assert!(s.take_reports().iter().any(|(n, v)| *n == "server_encoding" && v == "UTF8"));
        assert!(s.take_reports().is_empty());
        s.set("application_name", "x", SetScope::Session).unwrap();
        assert_eq!(s.take_reports(), [("application_name", "x".to_owned())]);
    }
}
