//! `has_table_privilege` and its many kin.

use crate::executor::SessionContext;
use crate::sql::catalog::names::split_identifiers;
use crate::sql::catalog::privilege::{self, letter};
use crate::sql::catalog::relation::RelKind;
use crate::sql::functions::registry::proc_by_oid;
use crate::sql::functions::{CallTypes, ProcEntry};
use crate::sql::types::registry::type_by_oid;
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::{SqlError, SqlState};

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
pub(super) fn call(
    ctx: &mut SessionContext,
    func: &'static ProcEntry,
    _types: &CallTypes,
    args: &[Datum],
) -> Result<Option<Datum>, SqlError> {
    if func.source == "acldefault_sql" {
        let owner = ctx.catalog.role(args[1].as_oid()?)?.map_or_else(|| args[1].as_oid().unwrap_or(0).to_string(), |r| r.name.to_string());
        let kind = match args[0] {
            Datum::Char(c) => c,
            _ => 0,
        };
        return default_list(kind, &owner).map(Some);
    }
    let Some((privilege_text, mut rest)) = args.split_last() else { return Ok(None) };
    let (what, arity) = match func.name {
        "has_table_privilege" | "has_any_column_privilege" => (What::Table, 1),
        "has_column_privilege" => (What::Column, 2),
        "has_sequence_privilege" => (What::Sequence, 1),
        "has_schema_privilege" => (What::Schema, 1),
        "has_database_privilege" => (What::Database, 1),
        "has_function_privilege" => (What::Function, 1),
        "has_type_privilege" => (What::Type, 1),
        "has_tablespace_privilege" => (What::Tablespace, 1),
        "has_language_privilege" | "has_foreign_data_wrapper_privilege" | "has_server_privilege" | "has_parameter_privilege" => {
            (What::Other, 1)
        }
        "pg_has_role" => (What::Role, 1),
        _ => return Ok(None),
    };
    let user = if rest.len() > arity {
        let (first, others) = rest.split_first().unwrap_or((privilege_text, rest));
        rest = others;
        match first {
            Datum::Oid(oid) => *oid,
            // The pseudo-role of everybody.
            Datum::Text(name) if name.as_str() == "public" => 0,
            other => ctx.catalog.require_role(other.as_str()?)?.oid,
        }
    } else {
        ctx.user
    };
    let Some(object) = rest.first() else { return Ok(None) };
    let mut held = false;
    for word in privilege_text.as_str()?.split(',') {
        let word = word.trim();
        let base = word.to_ascii_uppercase();
        let base = base.strip_suffix(" WITH GRANT OPTION").unwrap_or(&base).trim().to_owned();
        match has(ctx, what, user, object, rest.get(1), &base, word)? {
            Some(true) => held = true,
            Some(false) => {}
            None => return Ok(Some(Datum::Null)),
        }
    }
    Ok(Some(Datum::Bool(held)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Table,
    Column,
    Sequence,
    Schema,
    Database,
    Function,
    Type,
    Tablespace,
    Role,
    Other,
}

/// `None`: the object does not exist (given by OID).
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn has(
    ctx: &mut SessionContext,
    what: What,
    user: Oid,
    object: &Datum,
    column: Option<&Datum>,
    base: &str,
    word: &str,
) -> Result<Option<bool>, SqlError> {
    let unknown = || SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("unrecognized privilege type: \"{word}\""));
    let catalog = ctx.catalog.clone();
    match what {
        What::Table | What::Column | What::Sequence => {
            let relation = match object {
                Datum::Oid(oid) => match catalog.relation(*oid)? {
                    Some(relation) => relation,
                    None => return Ok(None),
                },
                other => {
                    let parts = split_identifiers(other.as_str()?, '.').unwrap_or_default();
                    match parts.as_slice() {
                        [name] => catalog.open_relation(None, name)?,
                        [schema, name] | [_, schema, name] => catalog.open_relation(Some(schema), name)?,
                        _ => return Err(SqlError::new(SqlState::INVALID_NAME, "invalid name syntax")),
                    }
                }
            };
            if what == What::Sequence && relation.kind != RelKind::Sequence {
                let message = format!("\"{}\" is not a sequence", relation.name);
                return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, message));
            }
            if let Some(Datum::Text(name)) = column
                && relation.column(name).is_none()
            {
                let message = format!("column \"{name}\" of relation \"{}\" does not exist", relation.name);
                return Err(SqlError::new(SqlState::UNDEFINED_COLUMN, message));
            }
            let letter = letter(base).ok_or_else(unknown)?;
            privilege::on_relation(&catalog, user, &relation, letter).map(Some)
        }
        What::Schema => {
            let oid = match object {
                Datum::Oid(oid) => *oid,
                other => catalog.require_namespace(other.as_str()?)?,
            };
            if catalog.namespace_name(oid)?.is_none() {
                return Ok(None);
            }
            privilege::on_namespace(&catalog, user, oid, letter(base).ok_or_else(unknown)?).map(Some)
        }
        What::Database => {
            let oid = match object {
                Datum::Oid(oid) => *oid,
                other => {
                    let name = other.as_str()?;
                    let found = catalog
                        .find_database(name)?
                        .ok_or_else(|| SqlError::new(SqlState::INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist")))?;
                    found.oid
                }
            };
            if catalog.database_by_oid(oid)?.is_none() {
                return Ok(None);
            }
            privilege::on_database(&catalog, user, oid, letter(base).ok_or_else(unknown)?).map(Some)
        }
        What::Function => {
            if !matches!(base, "EXECUTE") {
                return Err(unknown());
            }
            let oid = match object {
                Datum::Oid(oid) => *oid,
                other => crate::sql::types::names::parse_reg(crate::sql::types::oids::REGPROCEDURE, other.as_str()?, &ctx.io)?,
            };
            let function = match proc_by_oid(oid) {
                Some(function) => Some(function),
                None => catalog.function(oid)?.map(|f| f.entry),
            };
            function.map(|function| privilege::on_function(&catalog, user, function)).transpose()
        }
        What::Type => match object {
            Datum::Oid(oid) => Ok(type_by_oid(*oid).map(|_| true)),
            _ => Ok(Some(true)),
        },
        What::Tablespace | What::Other => catalog.is_superuser(user).map(Some),
        What::Role => {
            let role = match object {
                Datum::Oid(oid) => *oid,
                other => catalog.require_role(other.as_str()?)?.oid,
            };
            let inherited = match base {
                "USAGE" => true,
                "MEMBER" | "SET" => false,
                _ => return Err(unknown()),
            };
            Ok(Some(catalog.is_superuser(user)? || catalog.roles_of(user, inherited)?.contains(&role)))
        }
    }
}

/// The privileges on an object of a kind that nobody has changed. PostgreSQL: `acldefault` in utils/adt/acl.c.
fn default_list(kind: u8, owner: &str) -> Result<Datum, SqlError> {
    // What everybody may, what the owner may.
    let (public, own) = match kind {
        b'c' => ("", ""),
        b'r' => ("", "arwdDxt"),
        b's' => ("", "rwU"),
        b'd' => ("Tc", "CTc"),
        b'f' => ("X", "X"),
        b'l' | b'T' => ("U", "U"),
        b'L' => ("", "rw"),
        b'n' => ("", "UC"),
        b'p' => ("", "sA"),
        b't' => ("", "C"),
        b'F' | b'S' => ("", "U"),
        _ => {
            let message = format!("unrecognized object type abbreviation: {}", char::from(kind));
            return Err(SqlError::new(SqlState::INTERNAL_ERROR, message));
        }
    };
    let grantor = crate::sql::catalog::names::quote_identifier(owner);
    let mut items = Vec::new();
    if !public.is_empty() {
        items.push(Datum::text(format!("={public}/{grantor}")));
    }
    if !own.is_empty() {
        items.push(Datum::text(format!("{grantor}={own}/{grantor}")));
    }
    let oid = crate::sql::types::oids::ACLITEM;
    Ok(Datum::array(crate::sql::types::ArrayValue::one_dim(oid, items)))
}
