//! The server's settings: loaded from files and command line, replaced by reload.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::definition::{Context, flag, lookup};
use super::file::{FileEntry, ParseProblem, parse_file};
use super::settings::{Settings, Slot};
use super::table::{Setting, TABLE};
use super::value::Value;
use crate::sqlstate::{SqlError, SqlState};

/// Where a value came from; later ones win. PostgreSQL: `GucSource`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Built in.
    Default,
    /// Worked out at start.
    DynamicDefault,
    /// The environment.
    Environment,
    /// A configuration file.
    File,
    /// The command line.
    CommandLine,
    /// ALTER DATABASE SET.
    Database,
    /// ALTER ROLE SET.
    User,
    /// The startup packet.
    Client,
    /// SET, or worked out in place.
    Session,
}

impl Source {
    /// As `pg_settings.source` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default | Self::DynamicDefault => "default",
            Self::Environment => "environment variable",
            Self::File => "configuration file",
            Self::CommandLine => "command line",
            Self::Database => "database",
            Self::User => "user",
            Self::Client => "client",
            Self::Session => "session",
        }
    }
}

/// Failures of loading settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file is missing or malformed.
    #[error(transparent)]
    File(#[from] ParseProblem),
    /// One or more values are wrong; each line says where.
    #[error("configuration file \"{}\" contains errors", file.display())]
    Values {
        /// The main file.
        file: PathBuf,
        /// What is wrong, one line each.
        problems: Vec<String>,
    },
    /// A command-line setting is wrong.
    #[error("{0}")]
    CommandLine(SqlError),
    /// `postgresql.auto.conf` cannot be replaced.
    #[error("could not write file \"{}\": {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a reload did, for the log.
#[derive(Debug, Default)]
pub struct ReloadReport {
    /// `parameter "x" changed to "y"` and the like, in order.
    pub changes: Vec<String>,
    /// What could not be applied: errors, and settings that need a restart.
    pub problems: Vec<String>,
}

/// The server's settings and where they are loaded from.
pub struct Config {
    data_dir: PathBuf,
    config_file: PathBuf,
    command_line: Vec<(String, String)>,
    current: ArcSwap<Settings>,
    /// Settings whose file value waits for a restart (`pg_settings.pending_restart`).
    pending_restart: Mutex<Vec<Setting>>,
    /// Held while files are read or `postgresql.auto.conf` is rewritten, so that two reloads do not cross. Rank 5; held across I/O.
    loading: Mutex<()>,
    changed: watch::Sender<u64>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

impl Config {
    /// Loads the settings of a data directory: defaults, `postgresql.conf`, `postgresql.auto.conf`, then `command_line` (`name`, `value`).
    ///
    /// # Errors
    /// A file that cannot be read or a value that is none; nothing is half applied.
    pub fn load(data_dir: &Path, command_line: Vec<(String, String)>) -> Result<Arc<Self>, ConfigError> {
        let config_file = command_line
            .iter()
            .rev()
            .find(|(n, _)| n.eq_ignore_ascii_case("config_file"))
            .map_or_else(|| data_dir.join("postgresql.conf"), |(_, v)| PathBuf::from(v));
        let config = Self {
            data_dir: data_dir.to_owned(),
            config_file,
            command_line,
            current: ArcSwap::from_pointee(Settings::default()),
            pending_restart: Mutex::new(Vec::new()),
            loading: Mutex::new(()),
            changed: watch::channel(0).0,
        };
        let settings = config.read(None)?;
        config.current.store(Arc::new(settings.0));
        Ok(Arc::new(config))
    }

    /// Settings at their defaults, for tests and tools without files; `overrides` are `(name, value)`.
    ///
    /// # Errors
    /// An override that is no setting or no value of it.
    pub fn in_memory(data_dir: &Path, overrides: &[(&str, &str)]) -> Result<Arc<Self>, ConfigError> {
        let mut settings = Settings::default();
        for (name, value) in overrides {
            apply(&mut settings, name, value, Source::CommandLine, None).map_err(ConfigError::CommandLine)?;
        }
        Ok(Arc::new(Self {
            data_dir: data_dir.to_owned(),
            config_file: data_dir.join("postgresql.conf"),
            command_line: overrides.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            current: ArcSwap::from_pointee(settings),
            pending_restart: Mutex::new(Vec::new()),
            loading: Mutex::new(()),
            changed: watch::channel(0).0,
        }))
    }

    /// The values now. Cheap; hold it for one decision, not for ever.
    pub fn current(&self) -> Arc<Settings> {
        self.current.load_full()
    }

    /// Whether a reload has replaced the values of `generation`.
    pub fn is_newer_than(&self, generation: u64) -> bool {
        self.current.load().generation != generation
    }

    /// Told (the generation) after each reload.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The main configuration file.
    pub fn config_file(&self) -> &Path {
        &self.config_file
    }

    /// Whether a changed file value of `setting` waits for a restart.
    pub fn is_pending_restart(&self, setting: Setting) -> bool {
        self.pending_restart.lock().contains(&setting)
    }

    /// Reads the files again and applies what may change at run time.
    ///
    /// # Errors
    /// A file that cannot be read or a value that is none: then nothing is applied, as PostgreSQL does.
    pub fn reload(&self) -> Result<ReloadReport, ConfigError> {
        let _loading = self.loading.lock();
        let before = self.current();
        let (settings, report) = self.read(Some(&before))?;
        let generation = settings.generation;
        self.current.store(Arc::new(settings));
        self.changed.send_replace(generation);
        Ok(report)
    }

    /// Sets a value the server works out itself (`in_hot_standby`, `server_version`, ..., or a dynamic default).
    ///
    /// # Errors
    /// 22023 if the text is no value of the setting.
    pub fn set_internal(&self, setting: Setting, text: &str) -> Result<(), SqlError> {
        let _loading = self.loading.lock();
        let mut settings = (*self.current()).clone();
        let slot = &mut settings.slots[setting as usize];
        slot.value = Value::parse(setting.def(), text)?;
        if slot.source < Source::DynamicDefault {
            slot.source = Source::DynamicDefault;
        }
        settings.generation += 1;
        let generation = settings.generation;
        self.current.store(Arc::new(settings));
        self.changed.send_replace(generation);
        Ok(())
    }

    /// ALTER SYSTEM SET (`Some`) or RESET (`None`) of one setting: rewrites `postgresql.auto.conf`; takes effect at reload.
    ///
    /// # Errors
    /// An unknown setting, one that cannot be changed, a bad value, or a failed write.
    pub fn alter_system(&self, name: &str, value: Option<&str>) -> Result<(), SqlError> {
        let custom = name.contains('.');
        let setting = match lookup(name) {
            Some(s) => Some(s),
            None if custom => None,
            None => return Err(unknown(name)),
        };
        if let Some(setting) = setting {
            let def = setting.def();
            if def.context == Context::Internal || def.has(flag::NOT_IN_FILE) || setting == Setting::DataDirectory {
                return Err(SqlError::new(SqlState::CANT_CHANGE_RUNTIME_PARAM, format!("parameter \"{}\" cannot be changed", def.name)));
            }
            if let Some(value) = value {
                let value = Value::parse(def, value)?;
                super::session::check(setting, &value)?;
            }
        }
        if value.is_some_and(|v| v.contains('\n')) {
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "parameter value for ALTER SYSTEM must not contain a newline"));
        }
        let canonical = setting.map_or_else(|| name.to_owned(), |s| s.name().to_owned());
        let _loading = self.loading.lock();
        self.edit_auto_conf(|entries| {
            entries.retain(|(n, _)| !n.eq_ignore_ascii_case(&canonical));
            if let Some(value) = value {
                entries.push((canonical.clone(), value.to_owned()));
            }
        })
    }

    /// ALTER SYSTEM RESET ALL.
    ///
    /// # Errors
    /// A failed write.
    pub fn alter_system_reset_all(&self) -> Result<(), SqlError> {
        let _loading = self.loading.lock();
        self.edit_auto_conf(Vec::clear)
    }

    fn edit_auto_conf(&self, edit: impl FnOnce(&mut Vec<(String, String)>)) -> Result<(), SqlError> {
        let path = self.data_dir.join("postgresql.auto.conf");
        let mut entries: Vec<(String, String)> = Vec::new();
        if path.exists() {
            let parsed = parse_file(&path).map_err(|e| SqlError::new(SqlState::CONFIG_FILE_ERROR, e.to_string()))?;
            for entry in parsed {
                entries.retain(|(n, _)| !n.eq_ignore_ascii_case(&entry.name));
                entries.push((entry.name, entry.value));
            }
        }
        edit(&mut entries);
        write_auto_conf(&path, &entries)
            .map_err(|source| SqlError::new(SqlState::IO_ERROR, format!("could not write file \"{}\": {source}", path.display())))
    }

    /// All values from the files; with `before`, only changes that are allowed at run time.
    fn read(&self, before: Option<&Settings>) -> Result<(Settings, ReloadReport), ConfigError> {
        let mut settings = Settings::default();
        if let Some(before) = before {
            settings.generation = before.generation + 1;
            // What was worked out at start stays.
            for def in TABLE {
                let slot = &before.slots[def.id as usize];
                if matches!(slot.source, Source::DynamicDefault | Source::Environment) {
                    settings.slots[def.id as usize] = slot.clone();
                }
            }
        } else {
            for (setting, path) in [
                (Setting::DataDirectory, self.data_dir.clone()),
                (Setting::ConfigFile, self.config_file.clone()),
                (Setting::HbaFile, self.data_dir.join("pg_hba.conf")),
                (Setting::IdentFile, self.data_dir.join("pg_ident.conf")),
            ] {
                let text = path.display().to_string();
                settings.slots[setting as usize] = Slot { value: Value::Str(text.into()), source: Source::DynamicDefault, place: None };
            }
        }
        let mut entries = parse(&self.config_file)?;
        let auto = self.data_dir.join("postgresql.auto.conf");
        if auto.exists() {
            entries.extend(parse(&auto)?);
        }
        // The last one wins, and only it is judged.
        let mut last: HashMap<String, usize> = HashMap::new();
        for (i, entry) in entries.iter().enumerate() {
            last.insert(entry.name.to_ascii_lowercase(), i);
        }
        let mut problems = Vec::new();
        for (i, entry) in entries.iter().enumerate() {
            if last.get(&entry.name.to_ascii_lowercase()) != Some(&i) {
                continue;
            }
            if let Err(problem) = apply_entry(&mut settings, entry) {
                problems.push(problem);
            }
        }
        if !problems.is_empty() {
            return Err(ConfigError::Values { file: self.config_file.clone(), problems });
        }
        for (name, value) in &self.command_line {
            apply(&mut settings, name, value, Source::CommandLine, None).map_err(ConfigError::CommandLine)?;
        }
        let mut report = ReloadReport::default();
        if let Some(before) = before {
            let mut pending = self.pending_restart.lock();
            pending.clear();
            for def in TABLE {
                let (old, new) = (&before.slots[def.id as usize], &settings.slots[def.id as usize]);
                if old.value == new.value {
                    continue;
                }
                if def.context <= Context::Postmaster {
                    report.problems.push(format!("parameter \"{}\" cannot be changed without restarting the server", def.name));
                    pending.push(def.id);
                    settings.slots[def.id as usize] = old.clone();
                } else if new.source < Source::File && old.source >= Source::File {
                    report.changes.push(format!("parameter \"{}\" removed from configuration file, reset to default", def.name));
                } else {
                    let text = new.value.raw(def);
                    report.changes.push(format!("parameter \"{}\" changed to \"{text}\"", def.name));
                }
            }
        }
        Ok((settings, report))
    }
}

pub(super) fn unknown(name: &str) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_OBJECT, format!("unrecognized configuration parameter \"{name}\""))
}

fn apply_entry(settings: &mut Settings, entry: &FileEntry) -> Result<(), String> {
    let place = Some((Arc::clone(&entry.file), entry.line));
    if let Some(setting) = lookup(&entry.name) {
        if setting.def().has(flag::NOT_IN_FILE) || setting.def().context == Context::Internal {
            return Err(format!("parameter \"{}\" cannot be changed", entry.name));
        }
    } else if !entry.name.contains('.') {
        return Err(format!("unrecognized configuration parameter \"{}\" in file \"{}\" line {}", entry.name, entry.file, entry.line));
    }
    apply(settings, &entry.name, &entry.value, Source::File, place).map_err(|e| in_log(&e))
}

/// Message, DETAIL and HINT, as the log takes them.
fn in_log(error: &SqlError) -> String {
    let fields = error.fields();
    let mut text = fields.message.clone();
    for (label, more) in [("DETAIL", &fields.detail), ("HINT", &fields.hint)] {
        if let Some(more) = more {
            text.push_str(&format!("\n{label}:  {more}"));
        }
    }
    text
}

/// As [`parse_file`]; a line that does not read is a problem of the file like others.
fn parse(path: &Path) -> Result<Vec<FileEntry>, ConfigError> {
    parse_file(path).map_err(|problem| match problem {
        ParseProblem::Syntax { .. } => ConfigError::Values { file: path.to_owned(), problems: vec![problem.to_string()] },
        ParseProblem::Open { .. } | ParseProblem::Nesting { .. } => problem.into(),
    })
}

fn apply(settings: &mut Settings, name: &str, text: &str, source: Source, place: Option<(Arc<str>, u32)>) -> Result<(), SqlError> {
    let Some(setting) = lookup(name) else {
        if name.contains('.') {
            settings.custom.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
            settings.custom.push((name.to_owned(), text.to_owned()));
            return Ok(());
        }
        return Err(unknown(name));
    };
    let value = Value::parse(setting.def(), text)?;
    let value = super::session::check(setting, &value)?.unwrap_or(value);
    settings.slots[setting as usize] = Slot { value, source, place };
    Ok(())
}

/// Writes the file beside itself and renames it over: a crash leaves the old one or the new one.
fn write_auto_conf(path: &Path, entries: &[(String, String)]) -> io::Result<()> {
    let mut text = String::from("# Do not edit this file manually!\n# It will be overwritten by the ALTER SYSTEM command.\n");
    for (name, value) in entries {
        text.push_str(&format!("{name} = '{}'\n", value.replace('\\', "\\\\").replace('\'', "''")));
    }
    let temp = path.with_extension("conf.tmp");
    let mut file = fs::File::create(&temp)?;
    if let Ok(meta) = fs::metadata(path) {
        file.set_permissions(meta.permissions())?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    #[expect(clippy::disallowed_methods, reason = "config is a leaf; the directory is synced on the next line")]
    fs::rename(&temp, path)?;
    if let Some(dir) = path.parent() {
        fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}
