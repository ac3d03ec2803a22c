//! A setting's value: parsing with units, PostgreSQL's messages, and showing it.

use std::fmt::Write as _;
use std::sync::Arc;

use super::definition::{Kind, SettingDef, Unit};
use super::table::Setting;
use crate::sqlstate::{SqlError, SqlState};

/// A value of a setting, in the setting's unit.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// on/off.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Real(f64),
    /// A label of the setting's list.
    Enum(&'static str),
    /// Text.
    Str(Arc<str>),
}

const MEMORY_UNITS: &[(&str, u64)] = &[("B", 1), ("kB", 1 << 10), ("MB", 1 << 20), ("GB", 1 << 30), ("TB", 1 << 40)];
const TIME_UNITS: &[(&str, u64)] =
    &[("us", 1), ("ms", 1_000), ("s", 1_000_000), ("min", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

impl Value {
    /// Parses `text` for `def`.
    ///
    /// # Errors
    /// 22023 with PostgreSQL's message.
    pub fn parse(def: &SettingDef, text: &str) -> Result<Self, SqlError> {
        match def.kind {
            Kind::Bool => parse_bool(text).map(Self::Bool).ok_or_else(|| {
                SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("parameter \"{}\" requires a Boolean value", def.name))
            }),
            Kind::Int { min, max } => {
                let number = parse_number(def, text)?;
                let rounded = number.round_ties_even();
                if !(-9.2e18..9.2e18).contains(&rounded) {
                    return Err(invalid(def, text).hint("Value exceeds integer range."));
                }
                #[expect(clippy::cast_possible_truncation, reason = "range checked above")]
                let value = rounded as i64;
                if value < min || value > max {
                    let unit = def.unit.name().map(|u| format!(" {u}")).unwrap_or_default();
                    return Err(SqlError::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        format!("{value}{unit} is outside the valid range for parameter \"{}\" ({min} .. {max})", def.name),
                    ));
                }
                Ok(Self::Int(value))
            }
            Kind::Real { min, max } => {
                let value = parse_number(def, text)?;
                if value < min || value > max {
                    let unit = def.unit.name().map(|u| format!(" {u}")).unwrap_or_default();
                    return Err(SqlError::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        format!(
                            "{value}{unit} is outside the valid range for parameter \"{}\" ({} .. {})",
                            def.name,
                            show_real(min),
                            show_real(max)
                        ),
                    ));
                }
                Ok(Self::Real(value))
            }
            Kind::Enum(labels) => match_label(def, labels, text)
                .map(Self::Enum)
                .ok_or_else(|| invalid(def, text).hint(format!("Available values: {}.", labels.join(", ")))),
            Kind::Str => Ok(Self::Str(text.into())),
        }
    }

    /// As SHOW prints it: numbers in the largest unit that divides them.
    pub fn show(&self, def: &SettingDef) -> String {
        match self {
            Self::Bool(b) => if *b { "on" } else { "off" }.to_owned(),
            Self::Int(n) if is_octal(def.id) => format!("{n:04o}"),
            Self::Int(n) => {
                if *n > 0 && def.unit != Unit::None {
                    let (factor, table) = unit_table(def.unit);
                    let total = u64::try_from(*n).unwrap_or(0).saturating_mul(factor);
                    let (name, size) = table.iter().rev().find(|(_, size)| total.is_multiple_of(*size)).copied().unwrap_or(table[0]);
                    format!("{}{name}", total / size)
                } else {
                    n.to_string()
                }
            }
            Self::Real(x) => {
                if *x > 0.0 && def.unit != Unit::None {
                    let (factor, table) = unit_table(def.unit);
                    #[expect(clippy::cast_precision_loss, reason = "unit factors are small")]
                    let total = *x * factor as f64;
                    for (name, size) in table.iter().rev() {
                        #[expect(clippy::cast_precision_loss, reason = "unit factors are small")]
                        let in_unit = total / *size as f64;
                        if in_unit.fract() == 0.0 {
                            return format!("{}{name}", show_real(in_unit));
                        }
                    }
                }
                show_real(*x)
            }
            Self::Enum(label) => (*label).to_owned(),
            Self::Str(s) => s.to_string(),
        }
    }

    /// As `pg_settings.setting` prints it: numbers in the setting's own unit.
    pub fn raw(&self, def: &SettingDef) -> String {
        match self {
            Self::Int(n) if is_octal(def.id) => format!("{n:04o}"),
            Self::Int(n) => n.to_string(),
            Self::Real(x) => show_real(*x),
            Self::Bool(_) | Self::Enum(_) | Self::Str(_) => self.show(def),
        }
    }
}

/// File modes.
fn is_octal(setting: Setting) -> bool {
    matches!(setting, Setting::UnixSocketPermissions | Setting::LogFileMode | Setting::DataDirectoryMode)
}

fn show_real(x: f64) -> String {
    if x.abs() >= 1e15 { format!("{x:e}").replace('e', "e+") } else { format!("{x}") }
}

fn invalid(def: &SettingDef, text: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid value for parameter \"{}\": \"{text}\"", def.name))
}

/// PostgreSQL's spellings of a boolean, any unambiguous prefix included.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    let t = text.to_ascii_lowercase();
    let is_prefix = |word: &str, least: usize| t.len() >= least && word.starts_with(&t);
    if is_prefix("true", 1) || is_prefix("yes", 1) || t == "on" || t == "1" {
        Some(true)
    } else if is_prefix("false", 1) || is_prefix("no", 1) || is_prefix("off", 2) || t == "0" {
        Some(false)
    } else {
        None
    }
}

fn match_label(def: &SettingDef, labels: &'static [&'static str], text: &str) -> Option<&'static str> {
    if let Some(label) = labels.iter().find(|l| l.eq_ignore_ascii_case(text)) {
        return Some(label);
    }
    let find = |name: &str| labels.iter().find(|l| **l == name).copied();
    let lower = text.to_ascii_lowercase();
    match lower.as_str() {
        // Hidden spellings of on/off in lists that contain them.
        "true" | "yes" | "1" => find("on").or_else(|| (def.id == Setting::WalCompression).then_some("pglz")),
        "false" | "no" | "0" => find("off"),
        "debug" => find("debug2"),
        "group" | "hash" => find(&lower),
        _ => None,
    }
}

fn unit_table(unit: Unit) -> (u64, &'static [(&'static str, u64)]) {
    match (unit.bytes(), unit.micros()) {
        (Some(bytes), _) => (bytes, MEMORY_UNITS),
        (None, Some(micros)) => (micros, TIME_UNITS),
        (None, None) => (1, &[("", 1)]),
    }
}

/// A number with an optional unit, in the setting's unit.
fn parse_number(def: &SettingDef, text: &str) -> Result<f64, SqlError> {
    let t = text.trim();
    let (sign, body) = match t.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, t.strip_prefix('+').unwrap_or(t)),
    };
    let (number, rest) = if let Some(hex) = body.strip_prefix("0x").or_else(|| body.strip_prefix("0X")) {
        let end = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        (i64::from_str_radix(&hex[..end], 16).ok().map(int_to_f64), &hex[end..])
    } else {
        let end = number_end(body);
        let digits = &body[..end];
        let octal = digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
        if octal && matches!(def.kind, Kind::Int { .. }) {
            (i64::from_str_radix(digits, 8).ok().map(int_to_f64), &body[end..])
        } else {
            (digits.parse::<f64>().ok(), &body[end..])
        }
    };
    let Some(number) = number.filter(|n| n.is_finite()) else { return Err(invalid(def, text)) };
    let number = number * sign;
    let suffix = rest.trim();
    if suffix.is_empty() {
        return Ok(number);
    }
    if def.unit == Unit::None {
        return Err(invalid(def, text));
    }
    let (factor, table) = unit_table(def.unit);
    let Some((_, size)) = table.iter().find(|(name, _)| *name == suffix) else {
        let hint = if def.unit.bytes().is_some() {
            "Valid units for this parameter are \"B\", \"kB\", \"MB\", \"GB\", and \"TB\"."
        } else {
            "Valid units for this parameter are \"us\", \"ms\", \"s\", \"min\", \"h\", and \"d\"."
        };
        return Err(invalid(def, text).hint(hint));
    };
    #[expect(clippy::cast_precision_loss, reason = "unit factors are exact in f64")]
    let scaled = number * (*size as f64) / (factor as f64);
    Ok(scaled)
}

#[expect(clippy::cast_precision_loss, reason = "settings are far below 2^53")]
fn int_to_f64(n: i64) -> f64 {
    n as f64
}

/// Where the decimal number at the start of `s` ends.
fn number_end(s: &str) -> usize {
    let bytes = s.as_bytes();
    let mut i = 0;
    while i < bytes.len() && (bytes[i].is_ascii_digit() || bytes[i] == b'.') {
        i += 1;
    }
    if i > 0 && i < bytes.len() && (bytes[i] == b'e' || bytes[i] == b'E') {
        let mut j = i + 1;
        if j < bytes.len() && (bytes[j] == b'+' || bytes[j] == b'-') {
            j += 1;
        }
        if j < bytes.len() && bytes[j].is_ascii_digit() {
            while j < bytes.len() && bytes[j].is_ascii_digit() {
                j += 1;
            }
            return j;
        }
    }
    i
}

/// Splits `a, "B c", d` as PostgreSQL's `SplitIdentifierString` does: unquoted parts are folded to lower case. `None` if malformed.
pub fn split_identifier_list(text: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut chars = text.trim().chars().peekable();
    if chars.peek().is_none() {
        return Some(out);
    }
    loop {
        while chars.peek().is_some_and(|c| c.is_whitespace()) {
            chars.next();
        }
        let mut name = String::new();
        if chars.peek() == Some(&'"') {
            chars.next();
            loop {
                match chars.next()? {
                    '"' if chars.peek() == Some(&'"') => {
                        chars.next();
                        name.push('"');
                    }
                    '"' => break,
                    c => name.push(c),
                }
            }
        } else {
            while let Some(&c) = chars.peek() {
                if c == ',' || c.is_whitespace() {
                    break;
                }
                name.extend(c.to_lowercase());
                chars.next();
            }
            if name.is_empty() {
                return None;
            }
        }
        out.push(name);
        while chars.peek().is_some_and(|c| c.is_whitespace()) {
            chars.next();
        }
        match chars.next() {
            None => return Some(out),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

/// Quotes an identifier if it needs it, for list settings.
pub(super) fn quote_identifier(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if plain {
        return name.to_owned();
    }
    let mut out = String::with_capacity(name.len() + 2);
    let _infallible = write!(out, "\"{}\"", name.replace('"', "\"\""));
    out
}
