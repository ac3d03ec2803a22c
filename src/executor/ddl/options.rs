//! Storage parameters: what `WITH (..)`, `SET (..)` and `RESET (..)` of tables, indexes and views may name, and which values.
//!
//! PostgreSQL: access/common/reloptions.c.

use pg_query::protobuf::{DefElem, Node};

use super::nodes;
use crate::sql::catalog::relation::RelKind;
use crate::sql::types::scalar::parse_bool_opt;
use crate::sqlstate::{SqlError, SqlState};

/// What a parameter's value may be.
enum Kind {
    Bool,
    Int(i64, i64),
    Real(f64, f64),
    /// Words, and how the detail of the error lists them.
    Word(&'static [&'static str], &'static str),
}

/// Of what a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// A table, or a materialized view.
    Table,
    /// A table of large values.
    Toast,
    /// A B-tree.
    Index,
    /// A view.
    View,
}

impl Of {
    /// Of relations of this kind; `None`: they have none.
    pub(crate) fn kind(kind: RelKind) -> Option<Self> {
        match kind {
            RelKind::Table | RelKind::MatView => Some(Self::Table),
            RelKind::Toast => Some(Self::Toast),
            RelKind::Index => Some(Self::Index),
            RelKind::View => Some(Self::View),
            RelKind::Sequence | RelKind::Composite | RelKind::Foreign | RelKind::Partitioned | RelKind::PartitionedIndex => None,
        }
    }
}

const MAX_INT: i64 = i32::MAX as i64;

/// The parameter of this name.
fn parameter(of: Of, name: &str) -> Option<Kind> {
    // What vacuum goes by is a table's own and its large values' own.
    let vacuumed = matches!(of, Of::Table | Of::Toast);
    let found = match name {
        "autovacuum_enabled" | "vacuum_truncate" if vacuumed => Kind::Bool,
        "vacuum_index_cleanup" if vacuumed => {
            Kind::Word(&["auto", "on", "off", "true", "false", "yes", "no", "1", "0"], "Valid values are \"on\", \"off\", and \"auto\".")
        }
        "autovacuum_vacuum_threshold" if vacuumed => Kind::Int(0, MAX_INT),
        "autovacuum_vacuum_insert_threshold" | "log_autovacuum_min_duration" if vacuumed => Kind::Int(-1, MAX_INT),
        "autovacuum_vacuum_cost_limit" if vacuumed => Kind::Int(1, 10_000),
        "autovacuum_freeze_min_age" | "autovacuum_multixact_freeze_min_age" if vacuumed => Kind::Int(0, 1_000_000_000),
        "autovacuum_freeze_max_age" if vacuumed => Kind::Int(100_000, 2_000_000_000),
        "autovacuum_multixact_freeze_max_age" if vacuumed => Kind::Int(10_000, 2_000_000_000),
        "autovacuum_freeze_table_age" | "autovacuum_multixact_freeze_table_age" if vacuumed => Kind::Int(0, 2_000_000_000),
        "autovacuum_vacuum_cost_delay" | "autovacuum_vacuum_scale_factor" | "autovacuum_vacuum_insert_scale_factor" if vacuumed => {
            Kind::Real(0.0, 100.0)
        }
        "autovacuum_analyze_threshold" if of == Of::Table => Kind::Int(0, MAX_INT),
        "autovacuum_analyze_scale_factor" if of == Of::Table => Kind::Real(0.0, 100.0),
        "user_catalog_table" if of == Of::Table => Kind::Bool,
        // As PostgreSQL's page has room for.
        "toast_tuple_target" if of == Of::Table => Kind::Int(128, 8160),
        "parallel_workers" if of == Of::Table => Kind::Int(0, 1024),
        "fillfactor" if matches!(of, Of::Table | Of::Index) => Kind::Int(10, 100),
        "deduplicate_items" if of == Of::Index => Kind::Bool,
        "vacuum_cleanup_index_scale_factor" if of == Of::Index => Kind::Real(0.0, 1e10),
        "security_barrier" | "security_invoker" if of == Of::View => Kind::Bool,
        "check_option" if of == Of::View => Kind::Word(&["local", "cascaded"], "Valid values are \"local\" and \"cascaded\"."),
        _ => return None,
    };
    Some(found)
}

fn invalid(message: String) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// Refuses a parameter that does not exist and a value that it may not have.
fn check(of: Of, name: &str, value: &str) -> Result<(), SqlError> {
    let Some(kind) = parameter(of, name) else { return Err(invalid(format!("unrecognized parameter \"{name}\""))) };
    let outside = |least: String, most: String| {
        invalid(format!("value {value} out of bounds for option \"{name}\""))
            .detail(format!("Valid values are between \"{least}\" and \"{most}\"."))
    };
    match kind {
        Kind::Bool => match parse_bool_opt(value) {
            Some(_) => Ok(()),
            None => Err(invalid(format!("invalid value for boolean option \"{name}\": {value}"))),
        },
        Kind::Int(least, most) => match value.trim().parse::<i64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(()),
            Ok(number) if i32::try_from(number).is_ok() => Err(outside(least.to_string(), most.to_string())),
            Ok(_) | Err(_) => Err(invalid(format!("invalid value for integer option \"{name}\": {value}"))),
        },
        Kind::Real(least, most) => match value.trim().parse::<f64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(()),
            Ok(_) => Err(outside(format!("{least:.6}"), format!("{most:.6}"))),
            Err(_) => Err(invalid(format!("invalid value for floating point option \"{name}\": {value}"))),
        },
        Kind::Word(words, list) => {
            if words.iter().any(|w| w.eq_ignore_ascii_case(value)) {
                return Ok(());
            }
            Err(invalid(format!("invalid value for enum option \"{name}\": {value}")).detail(list))
        }
    }
}

/// The options of a definition as they are stored, `name=value`, those for its table of large values with [`nodes::TOAST_OPTION`] before them.
///
/// # Errors
/// 22023: there is no such option, it is there twice, or its value is none.
pub(crate) fn checked(list: &[Node], of: Of) -> Result<Vec<String>, SqlError> {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    let mut out = Vec::new();
    for option in nodes::options(list) {
        let toast = in_toast(option, of)?;
        if seen.contains(&(option.defnamespace.as_str(), option.defname.as_str())) {
            return Err(invalid(format!("parameter \"{}\" specified more than once", option.defname)));
        }
        seen.push((&option.defnamespace, &option.defname));
        if option.defname == "oids" && of == Of::Table && !toast {
            if nodes::option_bool(option)? {
                return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "tables declared WITH OIDS are not supported"));
            }
            continue;
        }
        let value = value(option);
        check(if toast { Of::Toast } else { of }, &option.defname, &value)?;
        out.push(format!("{}{}={value}", if toast { nodes::TOAST_OPTION } else { "" }, option.defname));
    }
    Ok(out)
}

/// The options of a relation after `SET (list)`, or `RESET (list)`. `toast`: the relation is a table's for large values, and only what is for that
/// counts.
///
/// # Errors
/// As [`checked`]; 42601: RESET with a value.
pub(crate) fn changed(old: &[String], list: &[Node], reset: bool, of: Of, toast: bool) -> Result<Vec<String>, SqlError> {
    if !reset {
        checked(list, if toast { Of::Table } else { of })?;
    }
    let mut out = old.to_vec();
    for option in nodes::options(list) {
        if reset && option.arg.is_some() {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "RESET must not include values for parameters"));
        }
        if in_toast(option, Of::Table)? != toast {
            continue;
        }
        out.retain(|o| o.split_once('=').is_none_or(|(name, _)| name != option.defname));
        if !reset && option.defname != "oids" {
            out.push(format!("{}={}", option.defname, value(option)));
        }
    }
    Ok(out)
}

fn value(option: &DefElem) -> String {
    nodes::option_text(option).unwrap_or_else(|| "true".to_owned())
}

/// Whether an option is for the table of large values.
fn in_toast(option: &DefElem, of: Of) -> Result<bool, SqlError> {
    match option.defnamespace.as_str() {
        "" => Ok(false),
        "toast" if of == Of::Table => Ok(true),
        other => Err(invalid(format!("unrecognized parameter namespace \"{other}\""))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_judged_as_postgresql_does() {
        let message = |of, name, value| check(of, name, value).err().map(|e| e.to_string()).unwrap_or_default();
        assert_eq!(message(Of::Table, "fillfactor", "10"), "");
        assert_eq!(message(Of::Table, "fillfactor", "9"), "value 9 out of bounds for option \"fillfactor\"");
        assert_eq!(message(Of::Table, "fillfactor", "many"), "invalid value for integer option \"fillfactor\": many");
        assert_eq!(message(Of::Toast, "fillfactor", "50"), "unrecognized parameter \"fillfactor\"");
        assert_eq!(message(Of::Table, "autovacuum_enabled", "OF"), "");
        assert_eq!(message(Of::Table, "autovacuum_enabled", "2"), "invalid value for boolean option \"autovacuum_enabled\": 2");
        assert_eq!(message(Of::Table, "vacuum_index_cleanup", "Auto"), "");
        assert_eq!(message(Of::Table, "vacuum_index_cleanup", "x"), "invalid value for enum option \"vacuum_index_cleanup\": x");
        assert_eq!(message(Of::Toast, "autovacuum_vacuum_scale_factor", "0.5"), "");
        assert_eq!(
            message(Of::Table, "autovacuum_vacuum_scale_factor", "101"),
            "value 101 out of bounds for option \"autovacuum_vacuum_scale_factor\""
        );
        assert_eq!(message(Of::View, "security_barrier", "yes"), "");
        assert_eq!(message(Of::Index, "autovacuum_enabled", "on"), "unrecognized parameter \"autovacuum_enabled\"");
    }
}
