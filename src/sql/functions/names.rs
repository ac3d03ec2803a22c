//! Functions and operators by name: `regproc`, `regprocedure`, `regoper`, `regoperator`.

use super::registry::{OperEntry, ProcEntry, oper_by_oid, opers_by_name, proc_by_oid, procs_by_name};
use crate::sql::types::names::{quote_ident, split_identifiers};
use crate::sql::types::settings::ObjectKind;
use crate::sql::types::typmod::{parse_type, type_name};
use crate::sql::types::{IoSettings, Oid, oids};
use crate::sqlstate::{SqlError, SqlState};

fn ambiguous(message: String) -> SqlError {
    SqlError::new(SqlState::AMBIGUOUS_FUNCTION, message)
}

/// Splits `name(type, type)`.
fn signature(s: &str, io: &IoSettings) -> Result<(String, Vec<Oid>), SqlError> {
    let invalid = |m: &str| SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, m);
    let open = s.find('(').ok_or_else(|| invalid("expected a left parenthesis"))?;
    let body = s[open + 1..].trim_end().strip_suffix(')').ok_or_else(|| invalid("expected a right parenthesis"))?;
    let mut types = Vec::new();
    let (mut depth, mut start) = (0, 0);
    let mut parts = Vec::new();
    for (i, c) in body.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&body[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    if !body.trim().is_empty() {
        parts.push(&body[start..]);
    }
    for p in parts {
        types.push(if p.trim().eq_ignore_ascii_case("none") { 0 } else { parse_type(p, io)?.0 });
    }
    Ok((s[..open].trim().to_owned(), types))
}

/// The name without its schema; `None` when the schema is not `pg_catalog`.
fn in_catalog(name: &str) -> Result<(Option<String>, String), SqlError> {
    let parts = split_identifiers(name).ok_or_else(|| SqlError::new(SqlState::INVALID_NAME, "invalid name syntax"))?;
    match parts.as_slice() {
        [name] => Ok((None, name.clone())),
        [schema, name] => Ok((Some(schema.clone()), name.clone())),
        _ => Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("improper qualified name (too many dotted names): {name}"))),
    }
}

/// An operator's name without its schema.
fn operator_name(s: &str) -> &str {
    s.rsplit_once('.').filter(|(schema, _)| schema.bytes().any(|b| b.is_ascii_alphabetic())).map_or(s, |(_, n)| n)
}

/// Reads one of the four types.
///
/// # Errors
/// `42725` when a bare name is not unique, syntax errors.
pub(crate) fn lookup(type_oid: Oid, s: &str, io: &IoSettings) -> Result<Option<Oid>, SqlError> {
    match type_oid {
        oids::REGPROC => {
            let (schema, name) = in_catalog(s)?;
            let found = if schema.as_deref().is_none_or(|s| s == "pg_catalog") { procs_by_name(&name) } else { &[] };
            match found {
                [one] => Ok(Some(one.oid)),
                [] => match &io.names {
                    Some(n) => match n.functions_named(schema.as_deref(), &name)?.as_slice() {
                        [] => Ok(None),
                        [(oid, _)] => Ok(Some(*oid)),
                        _ => Err(ambiguous(format!("more than one function named \"{s}\""))),
                    },
                    None => Ok(None),
                },
                _ => Err(ambiguous(format!("more than one function named \"{s}\""))),
            }
        }
        oids::REGPROCEDURE => {
            let (name, types) = signature(s, io)?;
            let (schema, name) = in_catalog(&name)?;
            let builtin = if schema.as_deref().is_none_or(|s| s == "pg_catalog") { procs_by_name(&name) } else { &[] };
            if let Some(found) = builtin.iter().find(|p| *p.args == *types) {
                return Ok(Some(found.oid));
            }
            let Some(names) = &io.names else { return Ok(None) };
            let own = names.functions_named(schema.as_deref(), &name)?;
            Ok(own.into_iter().find(|(_, args)| *args == types).map(|(oid, _)| oid))
        }
        oids::REGOPER => match opers_by_name(operator_name(s)) {
            [one] => Ok(Some(one.oid)),
            [] => Ok(None),
            _ => Err(ambiguous(format!("more than one operator named {s}"))),
        },
        oids::REGOPERATOR => {
            let (name, types) = signature(s, io)?;
            let [left, right] = types.as_slice() else {
                return Err(SqlError::new(SqlState::UNDEFINED_PARAMETER, "missing argument")
                    .hint("Use NONE to denote the missing argument of a unary operator."));
            };
            let found = opers_by_name(operator_name(&name)).iter().find(|o| o.left == *left && o.right == *right);
            Ok(found.map(|o| o.oid))
        }
        _ => Ok(None),
    }
}

fn proc_text(p: &ProcEntry, with_args: bool) -> String {
    let name = quote_ident(p.name);
    if with_args {
        let args: Vec<String> = p.args.iter().map(|&t| type_name(t)).collect();
        return format!("{name}({})", args.join(","));
    }
    if procs_by_name(p.name).len() == 1 { name.into_owned() } else { format!("pg_catalog.{name}") }
}

fn oper_text(o: &OperEntry, with_args: bool) -> String {
    if with_args {
        let left = if o.left == 0 { "NONE".to_owned() } else { type_name(o.left) };
        return format!("{}({left},{})", o.name, type_name(o.right));
    }
    if opers_by_name(o.name).len() == 1 { o.name.to_owned() } else { format!("pg_catalog.{}", o.name) }
}

/// Writes one of the four types; `None` for OIDs nobody knows.
///
/// # Errors
/// What the catalog lookup failed with.
pub(crate) fn text(type_oid: Oid, oid: Oid, io: &IoSettings) -> Result<Option<String>, SqlError> {
    Ok(match type_oid {
        oids::REGPROC | oids::REGPROCEDURE => match proc_by_oid(oid) {
            Some(p) => Some(proc_text(p, type_oid == oids::REGPROCEDURE)),
            None => match &io.names {
                Some(n) => match n.name_of(ObjectKind::Function, oid)? {
                    Some((schema, name)) => {
                        let name = crate::sql::types::names::qualify(schema.as_deref(), &name);
                        Some(match n.arguments_of(oid)? {
                            Some(args) if type_oid == oids::REGPROCEDURE => {
                                let args: Vec<String> = args.iter().map(|&t| type_name(t)).collect();
                                format!("{name}({})", args.join(","))
                            }
                            _ => name,
                        })
                    }
                    None => None,
                },
                None => None,
            },
        },
        _ => oper_by_oid(oid).map(|o| oper_text(o, type_oid == oids::REGOPERATOR)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_and_operators_have_names() {
        let io = IoSettings::default();
        assert_eq!(lookup(oids::REGPROC, "int4pl", &io).unwrap(), Some(177));
        assert_eq!(text(oids::REGPROC, 177, &io).unwrap().unwrap(), "int4pl");
        assert_eq!(lookup(oids::REGPROCEDURE, "abs(integer)", &io).unwrap(), Some(1397));
        assert_eq!(text(oids::REGPROCEDURE, 1397, &io).unwrap().unwrap(), "abs(integer)");
        assert_eq!(lookup(oids::REGOPERATOR, "=(integer, integer)", &io).unwrap(), Some(96));
        assert_eq!(text(oids::REGOPER, 96, &io).unwrap().unwrap(), "pg_catalog.=");
        assert_eq!(lookup(oids::REGPROC, "abs", &io).unwrap_err().state(), SqlState::AMBIGUOUS_FUNCTION);
    }
}
