//! GRANT and REVOKE on tables, sequences, schemas, databases and built-in functions.

use pg_query::NodeEnum;
use pg_query::protobuf::{DropBehavior, GrantStmt, GrantTargetType, ObjectType, ObjectWithArgs, RoleSpec};

use super::nodes::{self, RoleName};
use crate::executor::SessionContext;
use crate::sql::catalog::bootstrap::acl as acl_value;
use crate::sql::catalog::load::{self, CatalogReader, CatalogRow, by};
use crate::sql::catalog::privilege::{
    self, ALL_DATABASE, ALL_FUNCTION, ALL_NAMESPACE, ALL_SEQUENCE, ALL_TABLE, AclItem, CONNECT, TEMPORARY, default_acl,
};
use crate::sql::catalog::relation::{BOOTSTRAP_ROLE, FIRST_NORMAL_OID, RelKind};
use crate::sql::catalog::rows::{self, ObjectAddress};
use crate::sql::catalog::schema::{
    CatalogDef, afterimage_function_acl, pg_authid, pg_class, pg_database, pg_namespace, pg_proc, pg_shdepend,
};
use crate::sql::functions::{ProcEntry, procs_by_name};
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::{SqlError, SqlState};

/// An object whose list is changed.
struct Target {
    def: &'static CatalogDef,
    row: CatalogRow,
    address: ObjectAddress,
    owner: Oid,
    acl: usize,
    /// All rights there are, and what PUBLIC has by default.
    all: &'static [u8],
    public: &'static [u8],
    noun: &'static str,
    name: String,
}

/// GRANT and REVOKE.
pub(crate) fn run(ctx: &mut SessionContext, stmt: &GrantStmt) -> Result<(), SqlError> {
    for target in targets(ctx, stmt)? {
        change(ctx, stmt, target)?;
    }
    Ok(())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these kinds of objects come here")]
fn targets(ctx: &mut SessionContext, stmt: &GrantStmt) -> Result<Vec<Target>, SqlError> {
    let mut out = Vec::new();
    if stmt.targtype() == GrantTargetType::AclTargetAllInSchema {
        for schema in nodes::strings(&stmt.objects) {
            let namespace = ctx.catalog.require_namespace(schema)?;
            for row in ctx.catalog_reader()?.rows(&pg_class::DEF, 0, &[])? {
                if row.oid(pg_class::relnamespace)? != namespace {
                    continue;
                }
                let sequence = row.char(pg_class::relkind)? == b'S';
                let wanted = match stmt.objtype() {
                    ObjectType::ObjectSequence => sequence,
                    ObjectType::ObjectTable => matches!(row.char(pg_class::relkind)?, b'r' | b'v' | b'm' | b'p' | b'f'),
                    _ => false,
                };
                if wanted {
                    out.push(relation_target(row)?);
                }
            }
        }
        return Ok(out);
    }
    for object in &stmt.objects {
        match stmt.objtype() {
            ObjectType::ObjectTable | ObjectType::ObjectSequence => {
                let Some(NodeEnum::RangeVar(range)) = &object.node else { continue };
                let (schema, name) = nodes::names(range);
                let relation = ctx.catalog.open_relation(schema, name)?;
                if relation.kind == RelKind::Index {
                    let message = format!("\"{}\" is an index", relation.name);
                    return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, message));
                }
                if stmt.objtype() == ObjectType::ObjectSequence && relation.kind != RelKind::Sequence {
                    let message = format!("\"{}\" is not a sequence", relation.name);
                    return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, message));
                }
                let row = ctx.catalog_reader()?.row(&pg_class::DEF, by::CLASS_OID, &[Datum::Oid(relation.oid)])?;
                out.push(relation_target(row.ok_or_else(|| vanished("relation", relation.oid))?)?);
            }
            ObjectType::ObjectSchema => {
                let name = nodes::string(object).unwrap_or_default();
                let row = super::schema::row_of(ctx, name)?
                    .ok_or_else(|| SqlError::new(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist")))?;
                out.push(Target {
                    def: &pg_namespace::DEF,
                    address: ObjectAddress::new(pg_namespace::ID, row.oid(pg_namespace::oid)?),
                    owner: row.oid(pg_namespace::nspowner)?,
                    acl: pg_namespace::nspacl,
                    all: ALL_NAMESPACE,
                    public: b"",
                    noun: "schema",
                    name: name.to_owned(),
                    row,
                });
            }
            ObjectType::ObjectDatabase => {
                let name = nodes::string(object).unwrap_or_default();
                let row = ctx.catalog_reader()?.row(&pg_database::DEF, by::DATABASE_NAME, &[Datum::text(name)])?;
                let row =
                    row.ok_or_else(|| SqlError::new(SqlState::INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist")))?;
                out.push(Target {
                    def: &pg_database::DEF,
                    address: ObjectAddress::new(pg_database::ID, row.oid(pg_database::oid)?),
                    owner: row.oid(pg_database::datdba)?,
                    acl: pg_database::datacl,
                    all: ALL_DATABASE,
                    public: &[TEMPORARY, CONNECT],
                    noun: "database",
                    name: name.to_owned(),
                    row,
                });
            }
            ObjectType::ObjectFunction | ObjectType::ObjectProcedure | ObjectType::ObjectRoutine => {
                let Some(NodeEnum::ObjectWithArgs(named)) = &object.node else { continue };
                out.push(function_target(ctx, stmt, named)?);
            }
            other => {
                let what = other.as_str_name().trim_start_matches("OBJECT_").to_lowercase();
                return Err(SqlError::unsupported(format_args!("GRANT on a {what}")));
            }
        }
    }
    Ok(out)
}

fn relation_target(row: CatalogRow) -> Result<Target, SqlError> {
    let sequence = row.char(pg_class::relkind)? == b'S';
    Ok(Target {
        def: &pg_class::DEF,
        address: ObjectAddress::relation(row.oid(pg_class::oid)?),
        owner: row.oid(pg_class::relowner)?,
        acl: pg_class::relacl,
        all: if sequence { ALL_SEQUENCE } else { ALL_TABLE },
        public: b"",
        noun: if sequence { "sequence" } else { "table" },
        name: row.str(pg_class::relname)?.to_owned(),
        row,
    })
}

/// The built-in function meant by a name and argument types.
fn function_named(ctx: &mut SessionContext, named: &ObjectWithArgs) -> Result<&'static ProcEntry, SqlError> {
    let (schema, name) = nodes::qualified(&named.objname)?;
    let mut types = Vec::new();
    for node in &named.objargs {
        if let Some(NodeEnum::TypeName(type_name)) = &node.node {
            let front_end = ctx.front_end;
            types.push(front_end.resolve_type(ctx, type_name)?.0);
        }
    }
    let built_in = schema.is_none_or(|s| s == "pg_catalog");
    let mut found = procs_by_name(name).iter().filter(|p| built_in && (named.args_unspecified || p.args[..] == types[..]));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(SqlError::new(SqlState::AMBIGUOUS_FUNCTION, format!("function name \"{name}\" is not unique"))
            .hint("Specify the argument list to select the function unambiguously.")),
        (None, _) => {
            let types: Vec<String> = types.iter().map(|t| crate::sql::types::typmod::type_name(*t)).collect();
            let shown = if named.args_unspecified { name.to_owned() } else { format!("{name}({})", types.join(", ")) };
            Err(SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("function {shown} does not exist")))
        }
    }
}

/// Built-in functions have no row of their own to keep a list in: it lies in `afterimage_function_acl`, once it was changed.
fn function_target(ctx: &mut SessionContext, stmt: &GrantStmt, named: &ObjectWithArgs) -> Result<Target, SqlError> {
    let function = function_named(ctx, named)?;
    if !stmt.is_grant && !privilege::is_restricted(function) {
        return Err(SqlError::unsupported(format_args!("REVOKE on function {}", function.name)));
    }
    let def = &afterimage_function_acl::DEF;
    let key = [Datum::Oid(function.oid)];
    if ctx.catalog_reader()?.row(def, by::FUNCTION_ACL, &key)?.is_none() {
        let owner = ctx.catalog.role(BOOTSTRAP_ROLE)?.map(|r| r.name.to_string()).unwrap_or_default();
        let texts: Vec<String> = privilege::default_function_acl(&owner, function).iter().map(AclItem::text).collect();
        ctx.writer()?.insert(def, &[Datum::Oid(function.oid), acl_value(&texts)])?;
    }
    let row = ctx.catalog_reader()?.row(def, by::FUNCTION_ACL, &key)?;
    Ok(Target {
        def,
        row: row.ok_or_else(|| SqlError::internal("list of a function vanished"))?,
        address: ObjectAddress::new(pg_proc::ID, function.oid),
        owner: BOOTSTRAP_ROLE,
        acl: afterimage_function_acl::funcacl,
        all: ALL_FUNCTION,
        public: b"",
        noun: "function",
        name: function.name.to_owned(),
    })
}

/// Letters a statement grants on this kind of object.
fn letters(stmt: &GrantStmt, target: &Target) -> Result<Vec<u8>, SqlError> {
    if stmt.privileges.is_empty() {
        return Ok(target.all.to_vec());
    }
    let mut out = Vec::new();
    for node in &stmt.privileges {
        let Some(NodeEnum::AccessPriv(right)) = &node.node else { continue };
        if !right.cols.is_empty() {
            return Err(SqlError::unsupported("column privileges"));
        }
        let letter = privilege::letter(&right.priv_name)
            .ok_or_else(|| SqlError::new(SqlState::SYNTAX_ERROR, format!("unrecognized privilege type \"{}\"", right.priv_name)))?;
        if !target.all.contains(&letter) {
            let message = format!("invalid privilege type {} for {}", right.priv_name.to_uppercase(), target.noun);
            return Err(SqlError::new(SqlState::INVALID_GRANT_OPERATION, message));
        }
        out.push(letter);
    }
    Ok(out)
}

fn role_name(ctx: &SessionContext, spec: &RoleSpec) -> Result<(Oid, String), SqlError> {
    if let RoleName::Public = nodes::role(spec) {
        return Ok((0, String::new()));
    }
    let oid = ctx.role_oid(spec)?;
    Ok((oid, ctx.catalog.role(oid)?.map(|r| r.name.to_string()).unwrap_or_default()))
}

fn vanished(noun: &str, oid: Oid) -> SqlError {
    SqlError::internal(format!("cache lookup failed for {noun} {oid}"))
}

fn change(ctx: &mut SessionContext, stmt: &GrantStmt, mut target: Target) -> Result<(), SqlError> {
    let letters = letters(stmt, &target)?;
    // As it is once those who wait for the row as well have been served.
    let queued = match target.def.oid {
        pg_class::ID => Some(("relation", by::CLASS_OID)),
        pg_database::ID => Some(("database", by::DATABASE_OID)),
        _ => None,
    };
    let mut place = None;
    if let Some((noun, index)) = queued {
        let found = ctx.queue_for_row(target.def, index, &[Datum::Oid(target.address.object)])?;
        let (row, tag) = found.ok_or_else(|| vanished(noun, target.address.object))?;
        (target.row, place) = (row, Some(tag));
    }
    let owner_name = ctx.catalog.role(target.owner)?.map(|r| r.name.to_string()).unwrap_or_default();
    let mut items: Vec<AclItem> = match load::acl(&target.row, target.acl)? {
        Some(list) => list.iter().filter_map(|item| AclItem::parse(item)).collect(),
        None => default_acl(&owner_name, target.all, target.public),
    };
    // The owner grants by right, as do superusers in its name; others grant what they hold with the option.
    let as_owner = ctx.catalog.has_privileges_of(ctx.user, target.owner)?;
    let (grantor, allowed) = if as_owner {
        (owner_name.clone(), letters.clone())
    } else {
        let me = ctx.user_name.to_string();
        let mut held = Vec::new();
        for item in items.iter().filter(|i| i.grantee == me) {
            held.extend(item.rights.iter().filter(|r| r.1).map(|r| r.0));
        }
        (me, letters.iter().copied().filter(|l| held.contains(l)).collect())
    };
    if allowed.is_empty() {
        let message = format!("permission denied for {} {}", target.noun, target.name);
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
    }
    if allowed.len() < letters.len() && !stmt.privileges.is_empty() {
        let verb = if stmt.is_grant { "granted" } else { "revoked" };
        let message = format!("not all privileges were {verb} for \"{}\"", target.name);
        ctx.warning(SqlState::WARNING, message);
    }
    for spec in nodes::roles(&stmt.grantees) {
        let (oid, grantee) = role_name(ctx, spec)?;
        if stmt.is_grant && stmt.grant_option && oid == 0 {
            let message = "grant options can only be granted to roles";
            return Err(SqlError::new(SqlState::INVALID_GRANT_OPERATION, message));
        }
        if stmt.is_grant {
            grant(&mut items, &grantee, &grantor, &allowed, stmt.grant_option, target.all);
        } else {
            let cascade = stmt.behavior() == DropBehavior::DropCascade;
            revoke(&mut items, &grantee, &grantor, &allowed, stmt.grant_option, cascade)?;
        }
    }
    items.retain(|item| !item.rights.is_empty());
    let texts: Vec<String> = items.iter().map(AclItem::text).collect();
    ctx.writer()?.set(target.def, &target.row, &[(target.acl, acl_value(&texts))])?;
    if let Some(tag) = place {
        ctx.leave_queue(tag)?;
    }
    record_grantees(ctx, &target, &items)?;
    match target.def.oid {
        pg_class::ID => ctx.relation_changed(target.address.object),
        pg_namespace::ID => ctx.namespaces_changed(),
        afterimage_function_acl::ID => Ok(()),
        _ => ctx.databases_changed(),
    }
}

fn grant(items: &mut Vec<AclItem>, grantee: &str, grantor: &str, letters: &[u8], option: bool, order: &[u8]) {
    let at = match items.iter().position(|i| i.grantee == grantee && i.grantor == grantor) {
        Some(at) => at,
        None => {
            items.push(AclItem { grantee: grantee.to_owned(), rights: Vec::new(), grantor: grantor.to_owned() });
            items.len() - 1
        }
    };
    let rights = &mut items[at].rights;
    for &letter in letters {
        match rights.iter_mut().find(|r| r.0 == letter) {
            Some(right) => right.1 |= option,
            None => rights.push((letter, option)),
        }
    }
    // PostgreSQL prints the letters in a fixed order.
    rights.sort_by_key(|r| order.iter().position(|l| *l == r.0));
}

fn revoke(
    items: &mut Vec<AclItem>,
    grantee: &str,
    grantor: &str,
    letters: &[u8],
    option_only: bool,
    cascade: bool,
) -> Result<(), SqlError> {
    for item in items.iter_mut().filter(|i| i.grantee == grantee && i.grantor == grantor) {
        if option_only {
            item.rights.iter_mut().filter(|r| letters.contains(&r.0)).for_each(|r| r.1 = false);
        } else {
            item.rights.retain(|r| !letters.contains(&r.0));
        }
    }
    // What the grantee may no longer grant is taken from those it granted it to.
    for &letter in letters {
        let may = grantee.is_empty() || items.iter().any(|i| i.grantee == grantee && i.rights.iter().any(|r| r.0 == letter && r.1));
        let granted: Vec<String> = items
            .iter()
            .filter(|i| !grantee.is_empty() && i.grantor == grantee && i.grantee != grantee && i.gives(letter))
            .map(|i| i.grantee.clone())
            .collect();
        if may || granted.is_empty() {
            continue;
        }
        if !cascade {
            return Err(SqlError::new(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, "dependent privileges exist")
                .hint("Use CASCADE to revoke them too."));
        }
        for other in granted {
            revoke(items, &other, grantee, &[letter], false, true)?;
        }
    }
    Ok(())
}

/// Notes in `pg_shdepend` which roles the list mentions, so that they cannot be dropped meanwhile.
fn record_grantees(ctx: &mut SessionContext, target: &Target, items: &[AclItem]) -> Result<(), SqlError> {
    let shared = target.def.oid == pg_database::ID;
    let database = if shared { 0 } else { ctx.database };
    let key = [Datum::Oid(database), Datum::Oid(target.address.class), Datum::Oid(target.address.object)];
    for row in ctx.catalog_reader()?.rows(&pg_shdepend::DEF, by::SHDEPEND_DEPENDER, &key)? {
        if row.char(pg_shdepend::deptype)? == b'a' {
            ctx.writer()?.delete(&pg_shdepend::DEF, &row)?;
        }
    }
    let mut seen = Vec::new();
    for item in items {
        for name in [&item.grantee, &item.grantor] {
            let Some(role) = ctx.catalog.find_role(name)? else { continue };
            if role.oid < FIRST_NORMAL_OID || role.oid == target.owner || seen.contains(&role.oid) {
                continue;
            }
            seen.push(role.oid);
            let on = ObjectAddress::new(pg_authid::ID, role.oid);
            let row = rows::shared_depend(database, target.address, on, b'a');
            ctx.writer()?.insert(&pg_shdepend::DEF, &row)?;
        }
    }
    Ok(())
}
