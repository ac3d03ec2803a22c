//! What a setting is: type, bounds, unit, who may change it and when.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::table::{Setting, TABLE};

/// Type and bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// on/off.
    Bool,
    /// A whole number in the setting's unit.
    Int {
        /// Least value.
        min: i64,
        /// Largest value.
        max: i64,
    },
    /// A number in the setting's unit.
    Real {
        /// Least value.
        min: f64,
        /// Largest value.
        max: f64,
    },
    /// One of these labels.
    Enum(&'static [&'static str]),
    /// Text.
    Str,
}

/// What one step of the stored number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A plain number.
    None,
    /// Bytes.
    Bytes,
    /// 1024 bytes.
    Kb,
    /// 8192 bytes, one page.
    Blocks,
    /// 1024 kB.
    Mb,
    /// 16 MB; in no setting of version 15, kept for extensions of the table.
    Seg,
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
    /// Minutes.
    Min,
}

impl Unit {
    /// Bytes per step of a memory unit.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::Bytes => Some(1),
            Self::Kb => Some(1024),
            Self::Blocks => Some(8192),
            Self::Mb => Some(1024 * 1024),
            Self::Seg => Some(16 * 1024 * 1024),
            Self::None | Self::Ms | Self::S | Self::Min => None,
        }
    }

    /// Microseconds per step of a time unit.
    pub fn micros(self) -> Option<u64> {
        match self {
            Self::Ms => Some(1_000),
            Self::S => Some(1_000_000),
            Self::Min => Some(60_000_000),
            Self::None | Self::Bytes | Self::Kb | Self::Blocks | Self::Mb | Self::Seg => None,
        }
    }

    /// As `pg_settings.unit` shows it.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Bytes => Some("B"),
            Self::Kb => Some("kB"),
            Self::Blocks => Some("8kB"),
            Self::Mb => Some("MB"),
            Self::Seg => Some("16MB"),
            Self::Ms => Some("ms"),
            Self::S => Some("s"),
            Self::Min => Some("min"),
        }
    }
}

/// Who may change a setting, and when. PostgreSQL: `GucContext`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Context {
    /// Nobody.
    Internal,
    /// At server start.
    Postmaster,
    /// By reload.
    Sighup,
    /// By a superuser, at connection start.
    SuperuserBackend,
    /// At connection start.
    Backend,
    /// By a superuser, at any time.
    Superuser,
    /// By anyone, at any time.
    User,
}

impl Context {
    /// As `pg_settings.context` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Postmaster => "postmaster",
            Self::Sighup => "sighup",
            Self::SuperuserBackend => "superuser-backend",
            Self::Backend => "backend",
            Self::Superuser => "superuser",
            Self::User => "user",
        }
    }
}

/// Bits of [`SettingDef::flags`].
pub mod flag {
    /// Changes are told to the client by ParameterStatus.
    pub const REPORT: u16 = 1;
    /// A comma-separated list.
    pub const LIST: u16 = 2;
    /// A list whose elements are quoted like identifiers.
    pub const LIST_QUOTE: u16 = 4;
    /// Left out of SHOW ALL and pg_settings.
    pub const NO_SHOW_ALL: u16 = 8;
    /// Left alone by RESET ALL.
    pub const NO_RESET_ALL: u16 = 16;
    /// Shown to superusers and pg_read_all_settings only.
    pub const SUPERUSER_ONLY: u16 = 32;
    /// Not allowed in configuration files.
    pub const NOT_IN_FILE: u16 = 64;
    /// Listed by EXPLAIN (SETTINGS).
    pub const EXPLAIN: u16 = 128;
}

/// One row of the table of settings.
#[derive(Debug)]
pub struct SettingDef {
    /// Index of this row.
    pub id: Setting,
    /// Name as documented; looked up without regard to case.
    pub name: &'static str,
    /// Type and bounds.
    pub kind: Kind,
    /// Unit of the stored number.
    pub unit: Unit,
    /// Who may change it, when.
    pub context: Context,
    /// Default, in the stored unit.
    pub default: &'static str,
    /// Bits of [`flag`].
    pub flags: u16,
    /// Group, as `pg_settings.category` shows it.
    pub group: &'static str,
    /// One line for `pg_settings.short_desc`.
    pub doc: &'static str,
}

impl SettingDef {
    /// Whether all bits of `flag` are set.
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag == flag
    }

    /// As `pg_settings.vartype` shows it.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Bool => "bool",
            Kind::Int { .. } => "integer",
            Kind::Real { .. } => "real",
            Kind::Enum(_) => "enum",
            Kind::Str => "string",
        }
    }
}

impl Setting {
    /// This setting's row.
    pub fn def(self) -> &'static SettingDef {
        &TABLE[self as usize]
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.def().name
    }
}

static BY_NAME: LazyLock<HashMap<String, Setting>> = LazyLock::new(|| {
    let mut map: HashMap<String, Setting> = TABLE.iter().map(|d| (d.name.to_ascii_lowercase(), d.id)).collect();
    // Names PostgreSQL still takes.
    map.insert("sort_mem".into(), Setting::WorkMem);
    map.insert("vacuum_mem".into(), Setting::MaintenanceWorkMem);
    map
});

/// The setting of this name, in any case.
pub fn lookup(name: &str) -> Option<Setting> {
    if let Some(found) = BY_NAME.get(name) {
        return Some(*found);
    }
    BY_NAME.get(&name.to_ascii_lowercase()).copied()
}
