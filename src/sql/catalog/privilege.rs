//! Access control lists: what they say, and what holds without one.
//!
//! An item reads `grantee=letters/grantor`, an empty grantee meaning PUBLIC, a `*` after a letter the right to grant it on.

use std::sync::Arc;

use super::handle::CatalogHandle;
use super::load::{self, CatalogReader, by};
use super::names::quote_identifier;
use super::relation::{BOOTSTRAP_ROLE, RelKind, Relation};
use super::schema::{afterimage_function_acl, pg_database, pg_namespace};
use crate::sql::functions::ProcEntry;
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::SqlError;

/// SELECT.
pub const SELECT: u8 = b'r';
/// INSERT.
pub const INSERT: u8 = b'a';
/// UPDATE.
pub const UPDATE: u8 = b'w';
/// DELETE.
pub const DELETE: u8 = b'd';
/// TRUNCATE.
pub const TRUNCATE: u8 = b'D';
/// REFERENCES.
pub const REFERENCES: u8 = b'x';
/// TRIGGER.
pub const TRIGGER: u8 = b't';
/// USAGE.
pub const USAGE: u8 = b'U';
/// CREATE.
pub const CREATE: u8 = b'C';
/// CONNECT.
pub const CONNECT: u8 = b'c';
/// TEMPORARY.
pub const TEMPORARY: u8 = b'T';
/// EXECUTE.
pub const EXECUTE: u8 = b'X';

/// All rights on tables, in the order ACLs show them.
pub const ALL_TABLE: &[u8] = b"arwdDxt";
/// All rights on sequences.
pub const ALL_SEQUENCE: &[u8] = b"rwU";
/// All rights on schemas.
pub const ALL_NAMESPACE: &[u8] = b"UC";
/// All rights on databases.
pub const ALL_DATABASE: &[u8] = b"CTc";
/// All rights on functions.
pub const ALL_FUNCTION: &[u8] = &[EXECUTE];

/// Built-in functions that PUBLIC may not execute, sorted, and whether members of `pg_monitor` may.
///
/// PostgreSQL: catalog/system_functions.sql.
const RESTRICTED: &[(&str, bool)] = &[
    ("afterimage_page_digests", false),
    ("afterimage_page_lsns", false),
    ("afterimage_relation_files", false),
    ("afterimage_repair_page", false),
    ("lo_export", false),
    ("lo_import", false),
    ("pg_backup_start", false),
    ("pg_backup_stop", false),
    ("pg_create_restore_point", false),
    ("pg_current_logfile", true),
    ("pg_log_backend_memory_contexts", false),
    ("pg_ls_archive_statusdir", true),
    ("pg_ls_dir", false),
    ("pg_ls_logdir", true),
    ("pg_ls_logicalmapdir", true),
    ("pg_ls_logicalsnapdir", true),
    ("pg_ls_replslotdir", true),
    ("pg_ls_tmpdir", true),
    ("pg_ls_waldir", true),
    ("pg_promote", false),
    ("pg_read_binary_file", false),
    ("pg_read_file", false),
    ("pg_reload_conf", false),
    ("pg_rotate_logfile", false),
    ("pg_show_replication_origin_status", false),
    ("pg_stat_file", false),
    ("pg_stat_have_stats", false),
    ("pg_stat_reset", false),
    ("pg_stat_reset_replication_slot", false),
    ("pg_stat_reset_shared", false),
    ("pg_stat_reset_single_function_counters", false),
    ("pg_stat_reset_single_table_counters", false),
    ("pg_stat_reset_slru", false),
    ("pg_stat_reset_subscription_stats", false),
    ("pg_switch_wal", false),
    ("pg_wal_replay_pause", false),
    ("pg_wal_replay_resume", false),
];
/// `pg_read_binary_file(text, bigint, bigint, boolean)`: whoever may execute it may ask for less of the same file too.
const READ_BINARY_FILE: Oid = 3295;
/// Role `pg_monitor`.
const PG_MONITOR: &str = "pg_monitor";

/// Letter of a privilege's name.
pub fn letter(name: &str) -> Option<u8> {
    Some(match name.to_ascii_uppercase().as_str() {
        "SELECT" => SELECT,
        "INSERT" => INSERT,
        "UPDATE" => UPDATE,
        "DELETE" => DELETE,
        "TRUNCATE" => TRUNCATE,
        "REFERENCES" => REFERENCES,
        "TRIGGER" => TRIGGER,
        "USAGE" => USAGE,
        "CREATE" => CREATE,
        "CONNECT" => CONNECT,
        "TEMPORARY" | "TEMP" => TEMPORARY,
        "EXECUTE" => EXECUTE,
        _ => return None,
    })
}

/// One item of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclItem {
    /// Role; empty for PUBLIC.
    pub grantee: String,
    /// Letters, each with its right to grant on.
    pub rights: Vec<(u8, bool)>,
    /// Who granted.
    pub grantor: String,
}

impl AclItem {
    /// Reads an item.
    pub fn parse(text: &str) -> Option<Self> {
        let (grantee, rest) = split_name(text, '=')?;
        let (letters, grantor) = rest.split_once('/')?;
        let grantor = split_name(grantor, '\0').map_or_else(|| grantor.to_owned(), |(name, _)| name);
        let mut rights: Vec<(u8, bool)> = Vec::new();
        for b in letters.bytes() {
            if b == b'*' {
                if let Some(last) = rights.last_mut() {
                    last.1 = true;
                }
            } else {
                rights.push((b, false));
            }
        }
        Some(Self { grantee, rights, grantor })
    }

    /// Writes it.
    pub fn text(&self) -> String {
        let mut out = if self.grantee.is_empty() { String::new() } else { quote_identifier(&self.grantee) };
        out.push('=');
        for &(letter, grant) in &self.rights {
            out.push(char::from(letter));
            if grant {
                out.push('*');
            }
        }
        out.push('/');
        out.push_str(&quote_identifier(&self.grantor));
        out
    }

    /// True if it gives this right.
    pub fn gives(&self, letter: u8) -> bool {
        self.rights.iter().any(|r| r.0 == letter)
    }
}

/// A possibly quoted name up to `end`, and what follows it.
fn split_name(text: &str, end: char) -> Option<(String, &str)> {
    let Some(mut tail) = text.strip_prefix('"') else {
        return text.split_once(end).map(|(name, rest)| (name.to_owned(), rest));
    };
    let mut name = String::new();
    loop {
        let (before, after) = tail.split_once('"')?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                tail = more;
            }
            None => return Some((name, after.strip_prefix(end).unwrap_or(after))),
        }
    }
}

/// The list that holds when none is stored: all for the owner, and what PUBLIC has by default.
pub fn default_acl(owner: &str, all: &[u8], public: &[u8]) -> Vec<AclItem> {
    let item = |grantee: &str, letters: &[u8]| AclItem {
        grantee: grantee.to_owned(),
        rights: letters.iter().map(|&l| (l, false)).collect(),
        grantor: owner.to_owned(),
    };
    let mut out = Vec::new();
    if !public.is_empty() {
        out.push(item("", public));
    }
    out.push(item(owner, all));
    out
}

/// Whether `user`, by itself, PUBLIC, or a role it inherits from, has the right.
///
/// # Errors
/// Reading catalogs failed.
pub fn allows(
    catalog: &CatalogHandle,
    user: Oid,
    owner: Oid,
    acl: Option<&[Arc<str>]>,
    public_default: &[u8],
    letter: u8,
) -> Result<bool, SqlError> {
    if catalog.has_privileges_of(user, owner)? && acl.is_none() || catalog.is_superuser(user)? {
        return Ok(true);
    }
    let Some(acl) = acl else { return Ok(public_default.contains(&letter)) };
    let mut names = Vec::new();
    for role in catalog.roles_of(user, true)? {
        names.extend(catalog.role(role)?.map(|r| r.name.clone()));
    }
    let items = acl.iter().filter_map(|item| AclItem::parse(item));
    let mut gives = items.filter(|item| item.gives(letter));
    Ok(gives.any(|item| item.grantee.is_empty() || names.iter().any(|n| **n == item.grantee)))
}

/// Whether `user` has the right on a relation.
///
/// # Errors
/// Reading catalogs failed.
pub fn on_relation(catalog: &CatalogHandle, user: Oid, relation: &Relation, letter: u8) -> Result<bool, SqlError> {
    if relation.is_system() {
        // Catalogs are read by all, but for those with passwords and samples of data; changed by nobody.
        let secret = matches!(&*relation.name, "pg_authid" | "pg_shadow" | "pg_statistic" | "pg_user_mapping");
        return Ok(catalog.is_superuser(user)? || (letter == SELECT && !secret));
    }
    if relation.kind != RelKind::Sequence {
        // pg_read_all_data and pg_write_all_data.
        let role = match letter {
            SELECT => 6181,
            INSERT | UPDATE | DELETE => 6182,
            _ => 0,
        };
        if role != 0 && catalog.roles_of(user, true)?.contains(&role) {
            return Ok(true);
        }
    }
    allows(catalog, user, relation.owner, relation.acl.as_deref(), b"", letter)
}

/// Whether `user` has the right on a schema.
///
/// # Errors
/// Reading catalogs failed.
pub fn on_namespace(catalog: &CatalogHandle, user: Oid, namespace: Oid, letter: u8) -> Result<bool, SqlError> {
    if catalog.is_superuser(user)? {
        return Ok(true);
    }
    let reader = catalog.reader()?;
    let Some(row) = reader.row(&pg_namespace::DEF, by::NAMESPACE_OID, &[Datum::Oid(namespace)])? else {
        return Ok(false);
    };
    let mut owner = row.oid(pg_namespace::nspowner)?;
    if owner == DATABASE_OWNER_ROLE {
        owner = catalog.database_by_oid(catalog.database())?.map_or(owner, |d| d.owner);
        if catalog.has_privileges_of(user, owner)? {
            return Ok(true);
        }
    }
    allows(catalog, user, owner, load::acl(&row, pg_namespace::nspacl)?.as_deref(), b"", letter)
}

/// Whether PUBLIC may not execute this built-in function unless granted.
pub fn is_restricted(function: &ProcEntry) -> bool {
    RESTRICTED.binary_search_by_key(&function.name, |(name, _)| name).is_ok()
}

/// The list of a built-in function nobody has changed.
pub fn default_function_acl(owner: &str, function: &ProcEntry) -> Vec<AclItem> {
    match RESTRICTED.binary_search_by_key(&function.name, |(name, _)| name) {
        Err(_) => default_acl(owner, ALL_FUNCTION, ALL_FUNCTION),
        Ok(at) => {
            let mut items = default_acl(owner, ALL_FUNCTION, b"");
            if RESTRICTED[at].1 {
                let grantor = owner.to_owned();
                items.push(AclItem { grantee: PG_MONITOR.to_owned(), rights: vec![(EXECUTE, false)], grantor });
            }
            items
        }
    }
}

/// Whether `user` may execute a built-in function.
///
/// # Errors
/// Reading catalogs failed.
pub fn on_function(catalog: &CatalogHandle, user: Oid, function: &ProcEntry) -> Result<bool, SqlError> {
    if catalog.is_superuser(user)? {
        return Ok(true);
    }
    let oid = if function.name == "afterimage_page_lsns" { READ_BINARY_FILE } else { function.oid };
    let reader = catalog.reader()?;
    let row = reader.row(&afterimage_function_acl::DEF, by::FUNCTION_ACL, &[Datum::Oid(oid)])?;
    let acl = match row {
        Some(row) => load::acl(&row, afterimage_function_acl::funcacl)?,
        None => {
            let owner = catalog.role(BOOTSTRAP_ROLE)?.map(|r| r.name.to_string()).unwrap_or_default();
            Some(default_function_acl(&owner, function).iter().map(|item| Arc::from(item.text())).collect())
        }
    };
    allows(catalog, user, BOOTSTRAP_ROLE, acl.as_deref(), b"", EXECUTE)
}

/// Role `pg_database_owner`.
const DATABASE_OWNER_ROLE: Oid = 6171;

/// Whether `user` has the right on a database.
///
/// # Errors
/// Reading catalogs failed.
pub fn on_database(catalog: &CatalogHandle, user: Oid, database: Oid, letter: u8) -> Result<bool, SqlError> {
    let reader = catalog.reader()?;
    let Some(row) = reader.row(&pg_database::DEF, by::DATABASE_OID, &[Datum::Oid(database)])? else { return Ok(false) };
    let acl = load::acl(&row, pg_database::datacl)?;
    allows(catalog, user, row.oid(pg_database::datdba)?, acl.as_deref(), &[CONNECT, TEMPORARY], letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restricted_functions_exist_and_are_sorted() {
        assert!(RESTRICTED.is_sorted());
        for (name, _) in RESTRICTED {
            assert!(!crate::sql::functions::procs_by_name(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn items_read_and_write() {
        for text in ["=r/postgres", "bob=arwdDxt/alice", "\"we=ird\"=r*w/bob", "a=/b"] {
            assert_eq!(AclItem::parse(text).unwrap().text(), text);
        }
        let item = AclItem::parse("bob=r*w/alice").unwrap();
        assert_eq!(item.rights, [(b'r', true), (b'w', false)]);
        assert!(item.gives(b'w') && !item.gives(b'd'));
    }
}
