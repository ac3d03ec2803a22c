//! Identifiers: quoting, splitting, and the types that are names of catalog objects (`regclass` and its kin).

use std::borrow::Cow;

use super::scalar::is_space;
use super::settings::{IoSettings, ObjectKind};
use super::{Oid, oids, typmod};
use crate::sqlstate::{SqlError, SqlState};

/// Keywords that cannot stand as a bare identifier everywhere, so `quote_ident` quotes them; sorted.
const QUOTED_KEYWORDS: &str = "all analyse analyze and any array as asc asymmetric authorization between bigint binary bit \
boolean both case cast char character check coalesce collate collation column concurrently constraint create cross \
current_catalog current_date current_role current_schema current_time current_timestamp current_user dec decimal default \
deferrable desc distinct do else end except exists extract false fetch float for foreign freeze from full grant greatest \
group grouping having ilike in initially inner inout int integer intersect interval into is isnull join lateral leading \
least left like limit localtime localtimestamp national natural nchar none normalize not notnull null nullif numeric offset \
on only or order out outer overlaps overlay placing position precision primary real references returning right row select \
session_user setof similar smallint some substring symmetric table tablesample then time timestamp to trailing treat trim \
true union unique user using values varchar variadic verbose when where window with xmlattributes xmlconcat xmlelement \
xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable";

/// An identifier, in double quotes if it would not read back bare.
pub fn quote_ident(name: &str) -> Cow<'_, str> {
    let bare = name.bytes().next().is_some_and(|c| c.is_ascii_lowercase() || c == b'_')
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
        && !QUOTED_KEYWORDS.split(' ').any(|k| k == name);
    if bare { Cow::Borrowed(name) } else { Cow::Owned(format!("\"{}\"", name.replace('"', "\"\""))) }
}

/// `schema.name`, each quoted as needed.
pub fn qualify(schema: Option<&str>, name: &str) -> String {
    match schema {
        Some(s) => format!("{}.{}", quote_ident(s), quote_ident(name)),
        None => quote_ident(name).into_owned(),
    }
}

/// Splits `a."B".c` into folded identifiers; `None` for what is no list of identifiers.
pub fn split_identifiers(text: &str) -> Option<Vec<String>> {
    split_on(text, '.')
}

/// Splits identifiers at a separator (`,` for search paths), folding and unquoting them.
pub fn split_on(text: &str, separator: char) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text.trim_matches(is_space);
    loop {
        let name;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut s = String::new();
            let mut chars = quoted.char_indices().peekable();
            let end = loop {
                match chars.next()? {
                    (_, '"') if chars.next_if(|&(_, c)| c == '"').is_some() => s.push('"'),
                    (i, '"') => break i,
                    (_, c) => s.push(c),
                }
            };
            name = s;
            rest = &quoted[end + 1..];
        } else {
            let end = rest.find(|c: char| c == separator || is_space(c)).unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            name = rest[..end].to_lowercase();
            rest = &rest[end..];
        }
        parts.push(super::scalar::clip_name(&name).to_owned());
        rest = rest.trim_start_matches(is_space);
        match rest.strip_prefix(separator) {
            Some(more) => rest = more.trim_start_matches(is_space),
            None if rest.is_empty() => return Some(parts),
            None => return None,
        }
    }
}

fn kind_of(type_oid: Oid) -> Option<ObjectKind> {
    Some(match type_oid {
        oids::REGCLASS => ObjectKind::Relation,
        oids::REGTYPE => ObjectKind::Type,
        oids::REGNAMESPACE => ObjectKind::Namespace,
        oids::REGROLE => ObjectKind::Role,
        oids::REGCOLLATION => ObjectKind::Collation,
        oids::REGPROC | oids::REGPROCEDURE => ObjectKind::Function,
        _ => return None,
    })
}

/// Reads a `reg*` value other than functions and operators, which the function registry reads.
///
/// # Errors
/// `42P01`, `42704`, `3F000`, ... when there is no such object.
pub fn parse_reg(type_oid: Oid, text: &str, io: &IoSettings) -> Result<Oid, SqlError> {
    let s = text.trim_matches(is_space);
    if s == "-" {
        return Ok(0);
    }
    if !s.is_empty() && s.bytes().all(|c| c.is_ascii_digit()) {
        return super::scalar::parse_oid(s, "oid");
    }
    lookup_reg(type_oid, s, io)?.ok_or_else(|| undefined_reg(type_oid, s))
}

/// The object a name means; `None` if there is none.
///
/// # Errors
/// `42602` for what is no name.
pub fn lookup_reg(type_oid: Oid, s: &str, io: &IoSettings) -> Result<Option<Oid>, SqlError> {
    if type_oid == oids::REGTYPE {
        return match typmod::parse_type(s, io) {
            Ok((oid, _)) => Ok(Some(oid)),
            Err(e) if e.state() == SqlState::UNDEFINED_OBJECT => Ok(None),
            Err(e) => Err(e),
        };
    }
    if matches!(type_oid, oids::REGPROC | oids::REGPROCEDURE | oids::REGOPER | oids::REGOPERATOR) {
        return crate::sql::functions::names::lookup(type_oid, s, io);
    }
    let Some(kind) = kind_of(type_oid) else {
        return Err(SqlError::unsupported(format_args!("input of type {}", typmod::type_name(type_oid))));
    };
    let parts = split_identifiers(s).ok_or_else(|| SqlError::new(SqlState::INVALID_NAME, "invalid name syntax"))?;
    let (schema, name) = match parts.as_slice() {
        [name] => (None, name.as_str()),
        [schema, name] => (Some(schema.as_str()), name.as_str()),
        [_database, schema, name] => (Some(schema.as_str()), name.as_str()),
        _ => {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("improper relation name (too many dotted names): {s}")));
        }
    };
    match &io.names {
        Some(names) => names.oid_of(kind, schema, name),
        None => Ok(None),
    }
}

fn undefined_reg(type_oid: Oid, s: &str) -> SqlError {
    let shown = split_identifiers(s).map_or_else(|| s.to_owned(), |p| p.join("."));
    let (state, what) = match type_oid {
        oids::REGCLASS => (SqlState::UNDEFINED_TABLE, "relation"),
        oids::REGTYPE => return SqlError::new(SqlState::UNDEFINED_OBJECT, format!("type \"{s}\" does not exist")),
        oids::REGNAMESPACE => (SqlState::INVALID_SCHEMA_NAME, "schema"),
        oids::REGROLE => (SqlState::UNDEFINED_OBJECT, "role"),
        oids::REGCOLLATION => (SqlState::UNDEFINED_OBJECT, "collation"),
        oids::REGPROC | oids::REGPROCEDURE => (SqlState::UNDEFINED_FUNCTION, "function"),
        _ => return SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("operator does not exist: {s}")),
    };
    SqlError::new(state, format!("{what} \"{shown}\" does not exist"))
}

/// Writes a `reg*` value: the name if it is known, else the number.
///
/// # Errors
/// What the catalog lookup failed with.
pub fn write_reg(type_oid: Oid, oid: Oid, out: &mut Vec<u8>, io: &IoSettings) -> Result<(), SqlError> {
    if oid == 0 && !matches!(type_oid, oids::REGOPER | oids::REGOPERATOR) {
        out.push(b'-');
        return Ok(());
    }
    let name = if type_oid == oids::REGTYPE {
        Some(typmod::format_type_with(oid, None, io)?).filter(|s| s != "???")
    } else if matches!(type_oid, oids::REGPROC | oids::REGPROCEDURE | oids::REGOPER | oids::REGOPERATOR) {
        crate::sql::functions::names::text(type_oid, oid, io)?
    } else {
        match (kind_of(type_oid), &io.names) {
            (Some(kind), Some(names)) => names.name_of(kind, oid)?.map(|(schema, name)| qualify(schema.as_deref(), &name)),
            _ => None,
        }
    };
    match name {
        Some(n) => out.extend_from_slice(n.as_bytes()),
        None => out.extend_from_slice(oid.to_string().as_bytes()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_quote_and_split() {
        assert_eq!(quote_ident("abc"), "abc");
        assert_eq!(quote_ident("Abc"), "\"Abc\"");
        assert_eq!(quote_ident("select"), "\"select\"");
        assert_eq!(quote_ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(split_identifiers("Foo.\"Bar\"\"x\"").unwrap(), ["foo", "Bar\"x"]);
        assert!(split_identifiers("a..b").is_none() && split_identifiers("").is_none());
    }
}
