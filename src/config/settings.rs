//! The server-wide values at one moment.

use std::sync::Arc;
use std::time::Duration;

use super::server::Source;
use super::table::{Setting, TABLE};
use super::value::Value;
use crate::sqlstate::SqlError;

/// A value and where it came from.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) value: Value,
    pub(super) source: Source,
    /// File and line, for values from a file.
    pub(super) place: Option<(Arc<str>, u32)>,
}

/// The server-wide values at one moment; a reload makes a new one.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) slots: Box<[Slot]>,
    /// Settings with a dot in their name, which nobody here knows.
    pub(super) custom: Vec<(String, String)>,
    /// Grows with each reload.
    pub(super) generation: u64,
}

impl Default for Settings {
    /// Every setting at its default.
    fn default() -> Self {
        let slots = TABLE
            .iter()
            .map(|def| Slot {
                value: Value::parse(def, def.default).unwrap_or(Value::Str(def.default.into())),
                source: Source::Default,
                place: None,
            })
            .collect();
        Self { slots, custom: Vec::new(), generation: 0 }
    }
}

impl Settings {
    /// The value of `setting`.
    pub fn value(&self, setting: Setting) -> &Value {
        &self.slots[setting as usize].value
    }

    /// Where the value came from.
    pub fn source(&self, setting: Setting) -> Source {
        self.slots[setting as usize].source
    }

    /// File and line the value came from, if it came from a file.
    pub fn place(&self, setting: Setting) -> Option<(&str, u32)> {
        self.slots[setting as usize].place.as_ref().map(|(file, line)| (&**file, *line))
    }

    /// Grows with each reload.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A boolean setting.
    pub fn bool(&self, setting: Setting) -> bool {
        as_bool(self.value(setting))
    }

    /// A whole-number setting, in its own unit.
    pub fn int(&self, setting: Setting) -> i64 {
        as_int(self.value(setting))
    }

    /// A numeric setting, in its own unit.
    pub fn real(&self, setting: Setting) -> f64 {
        as_real(self.value(setting))
    }

    /// A text or label setting.
    pub fn str(&self, setting: Setting) -> &str {
        as_str(self.value(setting))
    }

    /// A memory setting in bytes; `None` for a negative (unset, unlimited) value.
    pub fn bytes(&self, setting: Setting) -> Option<u64> {
        as_bytes(setting, self.value(setting))
    }

    /// A time setting; `None` for a negative (unset, unlimited) value.
    pub fn duration(&self, setting: Setting) -> Option<Duration> {
        as_duration(setting, self.value(setting))
    }

    /// Size of the page cache in bytes.
    pub fn shared_buffers(&self) -> u64 {
        self.bytes(Setting::SharedBuffers).unwrap_or(128 << 20)
    }

    /// Whether commits and checkpoints wait for the disk.
    pub fn fsync(&self) -> bool {
        self.bool(Setting::Fsync)
    }

    /// Size of a WAL segment in bytes.
    pub fn wal_segment_size(&self) -> u64 {
        self.bytes(Setting::WalSegmentSize).unwrap_or(16 << 20)
    }

    /// Longest time between checkpoints.
    pub fn checkpoint_timeout(&self) -> Duration {
        self.duration(Setting::CheckpointTimeout).unwrap_or(Duration::from_secs(300))
    }

    /// WAL volume in bytes that brings the next checkpoint forward.
    pub fn max_wal_size(&self) -> u64 {
        self.bytes(Setting::MaxWalSize).unwrap_or(1 << 30)
    }

    /// WAL in bytes kept for reuse.
    pub fn min_wal_size(&self) -> u64 {
        self.bytes(Setting::MinWalSize).unwrap_or(80 << 20)
    }

    /// WAL in bytes kept for standbys.
    pub fn wal_keep_size(&self) -> u64 {
        self.bytes(Setting::WalKeepSize).unwrap_or(0)
    }

    /// Share of the checkpoint interval its writes are spread over.
    pub fn checkpoint_completion_target(&self) -> f64 {
        self.real(Setting::CheckpointCompletionTarget)
    }

    /// What commits wait for when the session did not say: one of on, off, local, remote_write, remote_apply.
    pub fn synchronous_commit(&self) -> &str {
        self.str(Setting::SynchronousCommit)
    }

    /// Standbys that commits wait for.
    pub fn synchronous_standby_names(&self) -> &str {
        self.str(Setting::SynchronousStandbyNames)
    }

    /// Wait before a lock wait is checked for deadlock.
    pub fn deadlock_timeout(&self) -> Duration {
        self.duration(Setting::DeadlockTimeout).unwrap_or(Duration::from_secs(1))
    }

    /// These values with `setting` set from text, for tests and for tools that need an engine without files.
    ///
    /// # Errors
    /// 22023 if the text is no value of the setting.
    pub fn with(mut self, setting: Setting, text: &str) -> Result<Self, SqlError> {
        self.slots[setting as usize].value = Value::parse(setting.def(), text)?;
        Ok(self)
    }
}

pub(super) fn as_bool(value: &Value) -> bool {
    matches!(value, Value::Bool(true))
}

pub(super) fn as_int(value: &Value) -> i64 {
    match value {
        Value::Int(n) => *n,
        #[expect(clippy::cast_possible_truncation, reason = "saturates, by definition of `as`")]
        Value::Real(x) => *x as i64,
        Value::Bool(_) | Value::Enum(_) | Value::Str(_) => 0,
    }
}

pub(super) fn as_real(value: &Value) -> f64 {
    match value {
        #[expect(clippy::cast_precision_loss, reason = "settings are far below 2^53")]
        Value::Int(n) => *n as f64,
        Value::Real(x) => *x,
        Value::Bool(_) | Value::Enum(_) | Value::Str(_) => 0.0,
    }
}

pub(super) fn as_str(value: &Value) -> &str {
    match value {
        Value::Enum(label) => label,
        Value::Str(s) => s,
        Value::Bool(true) => "on",
        Value::Bool(false) => "off",
        Value::Int(_) | Value::Real(_) => "",
    }
}

pub(super) fn as_bytes(setting: Setting, value: &Value) -> Option<u64> {
    let unit = setting.def().unit.bytes().unwrap_or(1);
    u64::try_from(as_int(value)).ok().map(|n| n.saturating_mul(unit))
}

pub(super) fn as_duration(setting: Setting, value: &Value) -> Option<Duration> {
    let unit = setting.def().unit.micros().unwrap_or(1_000_000);
    if let Value::Real(x) = value {
        #[expect(clippy::cast_precision_loss, reason = "unit factors are small")]
        return Duration::try_from_secs_f64(x * unit as f64 / 1e6).ok();
    }
    u64::try_from(as_int(value)).ok().map(|n| Duration::from_micros(n.saturating_mul(unit)))
}
