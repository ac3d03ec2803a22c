//! Roles and memberships.

use pg_query::NodeEnum;
use pg_query::protobuf::{AlterRoleSetStmt, AlterRoleStmt, CreateRoleStmt, DropRoleStmt, GrantRoleStmt, RoleStmtType};

use super::nodes;
use crate::config::Setting;
use crate::executor::SessionContext;
use crate::sql::catalog::compiled::text_array;
use crate::sql::catalog::load::{CatalogReader, CatalogRow, by};
use crate::sql::catalog::names::truncate;
use crate::sql::catalog::relation::{BOOTSTRAP_ROLE, FIRST_NORMAL_OID};
use crate::sql::catalog::rows::blank;
use crate::sql::catalog::schema::{pg_auth_members, pg_authid, pg_database, pg_db_role_setting, pg_shdepend, pg_shdescription};
use crate::sql::types::{Datum, Oid, oids, text_in};
use crate::sqlstate::{SqlError, SqlState};

fn denied(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message)
}

/// Refuses names that mean something else.
pub(crate) fn check_role_name(name: &str) -> Result<(), SqlError> {
    if name.starts_with("pg_") {
        return Err(SqlError::new(SqlState::RESERVED_NAME, format!("role name \"{name}\" is reserved"))
            .detail("Role names starting with \"pg_\" are reserved."));
    }
    if matches!(name, "public" | "none") {
        return Err(SqlError::new(SqlState::RESERVED_NAME, format!("role name \"{name}\" is reserved")));
    }
    Ok(())
}

/// What options say of a role.
#[derive(Default)]
struct RoleOptions {
    changes: Vec<(usize, Datum)>,
    /// CREATE ROLE ... IN ROLE.
    member_of: Vec<Oid>,
    members: Vec<Oid>,
    admins: Vec<Oid>,
}

fn parse(ctx: &mut SessionContext, name: &str, options: &[pg_query::protobuf::Node]) -> Result<RoleOptions, SqlError> {
    let mut out = RoleOptions::default();
    for option in nodes::options(options) {
        let flag = |position: usize| -> Result<(usize, Datum), SqlError> { Ok((position, Datum::Bool(nodes::option_bool(option)?))) };
        let change = match option.defname.as_str() {
            "superuser" => flag(pg_authid::rolsuper)?,
            "inherit" => flag(pg_authid::rolinherit)?,
            "createrole" => flag(pg_authid::rolcreaterole)?,
            "createdb" => flag(pg_authid::rolcreatedb)?,
            "canlogin" => flag(pg_authid::rolcanlogin)?,
            "isreplication" => flag(pg_authid::rolreplication)?,
            "bypassrls" => flag(pg_authid::rolbypassrls)?,
            "connectionlimit" => {
                let n = i32::try_from(nodes::option_int(option)?).unwrap_or(-2);
                if n < -1 {
                    let message = format!("invalid connection limit: {n}");
                    return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
                }
                (pg_authid::rolconnlimit, Datum::Int4(n))
            }
            "password" => {
                let value = match nodes::option_text(option) {
                    Some(password) => verifier(ctx, name, &password),
                    None => None,
                };
                (pg_authid::rolpassword, value.map_or(Datum::Null, Datum::text))
            }
            "validUntil" => {
                let text = nodes::option_text(option).unwrap_or_default();
                (pg_authid::rolvaliduntil, text_in(oids::TIMESTAMPTZ, -1, &text, ctx.io())?)
            }
            "sysid" => {
                ctx.notice("SYSID can no longer be specified");
                continue;
            }
            list @ ("addroleto" | "rolemembers" | "adminmembers") => {
                let specs = option.arg.as_deref().map(nodes::items).unwrap_or_default();
                let mut found = Vec::new();
                for spec in nodes::roles(specs) {
                    found.push(ctx.role_oid(spec)?);
                }
                match list {
                    "addroleto" => out.member_of.extend(found),
                    "rolemembers" => out.members.extend(found),
                    _ => out.admins.extend(found),
                }
                continue;
            }
            other => {
                return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("option \"{other}\" not recognized")));
            }
        };
        if out.changes.iter().any(|c| c.0 == change.0) {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "conflicting or redundant options"));
        }
        out.changes.push(change);
    }
    Ok(out)
}

/// A password as stored; one that is a verifier already stays as it is. `None`: an empty one, which cannot log in.
fn verifier(ctx: &mut SessionContext, role: &str, password: &str) -> Option<String> {
    let md5 = password.len() == 35 && password.starts_with("md5") && password[3..].bytes().all(|b| b.is_ascii_hexdigit());
    if md5 || password.starts_with("SCRAM-SHA-256$") {
        return Some(password.to_owned());
    }
    if password.is_empty() {
        ctx.notice("empty string is not a valid password, clearing password");
        return None;
    }
    Some(if ctx.settings.str(Setting::PasswordEncryption) == "md5" {
        postgres_protocol::password::md5(password.as_bytes(), role)
    } else {
        postgres_protocol::password::scram_sha_256(password.as_bytes())
    })
}

/// CREATE ROLE, USER, GROUP.
pub(crate) fn create(ctx: &mut SessionContext, stmt: &CreateRoleStmt) -> Result<(), SqlError> {
    let name = truncate(&stmt.role).to_owned();
    let options = parse(ctx, &name, &stmt.options)?;
    let me = ctx.catalog.role(ctx.user)?;
    let (superuser, may_create) = me.map_or((false, false), |r| (r.superuser, r.create_role));
    let asks = |position: usize| options.changes.iter().any(|c| c.0 == position && c.1.is_true());
    for (position, what) in [
        (pg_authid::rolsuper, "must be superuser to create superusers"),
        (pg_authid::rolreplication, "must be superuser to create replication users"),
        (pg_authid::rolbypassrls, "must be superuser to create bypassrls users"),
    ] {
        if asks(position) && !superuser {
            return Err(denied(what));
        }
    }
    if !superuser && !may_create {
        return Err(denied("permission denied to create role"));
    }
    check_role_name(&name)?;
    if ctx.catalog.find_role(&name)?.is_some() {
        return Err(SqlError::new(SqlState::DUPLICATE_OBJECT, format!("role \"{name}\" already exists")));
    }
    let oid = ctx.new_oid(&pg_authid::DEF, by::AUTHID_OID)?;
    let mut row = blank(&pg_authid::DEF);
    row[pg_authid::oid] = Datum::Oid(oid);
    row[pg_authid::rolname] = Datum::text(&name);
    for position in
        [pg_authid::rolsuper, pg_authid::rolcreaterole, pg_authid::rolcreatedb, pg_authid::rolreplication, pg_authid::rolbypassrls]
    {
        row[position] = Datum::Bool(false);
    }
    row[pg_authid::rolinherit] = Datum::Bool(true);
    row[pg_authid::rolcanlogin] = Datum::Bool(stmt.stmt_type() == RoleStmtType::RolestmtUser);
    row[pg_authid::rolconnlimit] = Datum::Int4(-1);
    for (position, value) in options.changes {
        row[position] = value;
    }
    ctx.writer()?.insert(&pg_authid::DEF, &row)?;
    ctx.roles_changed()?;
    for role in options.member_of {
        add_member(ctx, role, oid, false)?;
    }
    for member in options.members {
        add_member(ctx, oid, member, false)?;
    }
    for member in options.admins {
        add_member(ctx, oid, member, true)?;
    }
    Ok(())
}

/// The row of a role that must exist.
pub(crate) fn row_of(ctx: &mut SessionContext, name: &str) -> Result<CatalogRow, SqlError> {
    let row = ctx.catalog_reader()?.row(&pg_authid::DEF, by::AUTHID_NAME, &[Datum::text(name)])?;
    row.ok_or_else(|| SqlError::new(SqlState::UNDEFINED_OBJECT, format!("role \"{name}\" does not exist")))
}

/// `42501` unless the user may alter the role.
pub(crate) fn check_may_change(ctx: &SessionContext, row: &CatalogRow) -> Result<(), SqlError> {
    let me = ctx.catalog.role(ctx.user)?;
    let (superuser, may_create) = me.map_or((false, false), |r| (r.superuser, r.create_role));
    if row.bool(pg_authid::rolsuper)? && !superuser {
        return Err(denied("must be superuser to alter superuser roles or change superuser attribute"));
    }
    if row.bool(pg_authid::rolreplication)? && !superuser {
        return Err(denied("must be superuser to alter replication roles or change replication attribute"));
    }
    if !superuser && !may_create {
        return Err(denied("permission denied"));
    }
    Ok(())
}

/// ALTER ROLE.
pub(crate) fn alter(ctx: &mut SessionContext, stmt: &AlterRoleStmt) -> Result<(), SqlError> {
    let Some(spec) = &stmt.role else { return Ok(()) };
    let oid = ctx.role_oid(spec)?;
    let row = ctx.catalog_reader()?.row(&pg_authid::DEF, by::AUTHID_OID, &[Datum::Oid(oid)])?;
    let row = row.ok_or_else(|| SqlError::new(SqlState::UNDEFINED_OBJECT, format!("role {oid} does not exist")))?;
    let name = row.str(pg_authid::rolname)?.to_owned();
    if name.starts_with("pg_") {
        let message = format!("role name \"{name}\" is reserved");
        return Err(SqlError::new(SqlState::RESERVED_NAME, message).detail("Role names starting with \"pg_\" are reserved."));
    }
    let options = parse(ctx, &name, &stmt.options)?;
    let superuser = ctx.is_superuser()?;
    let only_password = options.changes.iter().all(|c| c.0 == pg_authid::rolpassword);
    if !(oid == ctx.user && only_password && options.members.is_empty()) {
        check_may_change(ctx, &row)?;
    }
    let touches = |position: usize| options.changes.iter().any(|c| c.0 == position);
    if !superuser {
        for (position, what) in [
            (pg_authid::rolsuper, "must be superuser to alter superuser roles or change superuser attribute"),
            (pg_authid::rolreplication, "must be superuser to alter replication roles or change replication attribute"),
            (pg_authid::rolbypassrls, "must be superuser to change bypassrls attribute"),
        ] {
            if touches(position) {
                return Err(denied(what));
            }
        }
    }
    if oid == BOOTSTRAP_ROLE && options.changes.iter().any(|c| c.0 == pg_authid::rolsuper && !c.1.is_true()) {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "permission denied: bootstrap user must be superuser"));
    }
    ctx.writer()?.set(&pg_authid::DEF, &row, &options.changes)?;
    ctx.roles_changed()?;
    // ALTER GROUP ... ADD and DROP USER.
    for member in options.members {
        if stmt.action >= 0 { add_member(ctx, oid, member, false)? } else { remove_member(ctx, oid, member)? }
    }
    Ok(())
}

/// DROP ROLE.
pub(crate) fn drop(ctx: &mut SessionContext, stmt: &DropRoleStmt) -> Result<(), SqlError> {
    let me = ctx.catalog.role(ctx.user)?;
    if !me.is_some_and(|r| r.superuser || r.create_role) {
        return Err(denied("permission denied to drop role"));
    }
    for spec in nodes::roles(&stmt.roles) {
        let found = match ctx.role_oid(spec) {
            Ok(oid) => oid,
            Err(e) if stmt.missing_ok && e.state() == SqlState::UNDEFINED_OBJECT => {
                ctx.notice(format!("role \"{}\" does not exist, skipping", spec.rolename));
                continue;
            }
            Err(e) => return Err(e),
        };
        drop_one(ctx, found)?;
    }
    Ok(())
}

fn drop_one(ctx: &mut SessionContext, oid: Oid) -> Result<(), SqlError> {
    let in_use = |message: &str| Err(SqlError::new(SqlState::OBJECT_IN_USE, message));
    if oid == ctx.user {
        return in_use("current user cannot be dropped");
    }
    if oid == ctx.session_user {
        return in_use("session user cannot be dropped");
    }
    let row = ctx.catalog_reader()?.row(&pg_authid::DEF, by::AUTHID_OID, &[Datum::Oid(oid)])?;
    let Some(row) = row else { return Ok(()) };
    let name = row.str(pg_authid::rolname)?.to_owned();
    if row.bool(pg_authid::rolsuper)? && !ctx.is_superuser()? {
        return Err(denied("must be superuser to drop superusers"));
    }
    if oid < FIRST_NORMAL_OID {
        let message = format!("cannot drop role {name} because it is required by the database system");
        return Err(SqlError::new(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message));
    }
    let key = [Datum::Oid(pg_authid::ID), Datum::Oid(oid)];
    let dependents = ctx.catalog_reader()?.rows(&pg_shdepend::DEF, by::SHDEPEND_REFERENCED, &key)?;
    if !dependents.is_empty() {
        let mut detail = Vec::new();
        let mut elsewhere = 0;
        for row in &dependents {
            let database = row.oid(pg_shdepend::dbid)?;
            let object = crate::sql::catalog::rows::ObjectAddress {
                class: row.oid(pg_shdepend::classid)?,
                object: row.oid(pg_shdepend::objid)?,
                sub: row.int4(pg_shdepend::objsubid)?,
            };
            let word = if row.char(pg_shdepend::deptype)? == b'o' { "owner of" } else { "privileges for" };
            if database == ctx.database {
                detail.push(format!("{word} {}", super::drop::describe(ctx, object)?));
            } else if database == 0 && object.class == pg_database::ID {
                let name = ctx.catalog.database_by_oid(object.object)?.map(|d| d.name.to_string());
                detail.push(format!("{word} database {}", name.unwrap_or_default()));
            } else {
                elsewhere += 1;
            }
        }
        if elsewhere > 0 {
            detail.push(format!("{elsewhere} objects in other databases"));
        }
        let message = format!("role \"{name}\" cannot be dropped because some objects depend on it");
        return Err(SqlError::new(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message).detail(detail.join("\n")));
    }
    for index in [by::MEMBERS_ROLE, by::MEMBERS_MEMBER] {
        for row in ctx.catalog_reader()?.rows(&pg_auth_members::DEF, index, &[Datum::Oid(oid)])? {
            ctx.writer()?.delete(&pg_auth_members::DEF, &row)?;
        }
    }
    for row in ctx.catalog_reader()?.rows(&pg_db_role_setting::DEF, 0, &[])? {
        if row.oid(pg_db_role_setting::setrole)? == oid {
            ctx.writer()?.delete(&pg_db_role_setting::DEF, &row)?;
        }
    }
    let key = [Datum::Oid(oid), Datum::Oid(pg_authid::ID)];
    for row in ctx.catalog_reader()?.rows(&pg_shdescription::DEF, by::SHDESCRIPTION, &key)? {
        ctx.writer()?.delete(&pg_shdescription::DEF, &row)?;
    }
    ctx.writer()?.delete(&pg_authid::DEF, &row)?;
    ctx.roles_changed()
}

/// GRANT and REVOKE of roles.
pub(crate) fn grant(ctx: &mut SessionContext, stmt: &GrantRoleStmt) -> Result<(), SqlError> {
    let admin = nodes::options(&stmt.opt).any(|o| o.defname == "admin" && nodes::option_bool(o).unwrap_or(true));
    let mut members = Vec::new();
    for spec in nodes::roles(&stmt.grantee_roles) {
        members.push(ctx.role_oid(spec)?);
    }
    for node in &stmt.granted_roles {
        let Some(NodeEnum::AccessPriv(granted)) = &node.node else { continue };
        let role = ctx.catalog.require_role(&granted.priv_name)?.oid;
        may_grant(ctx, role)?;
        for &member in &members {
            if stmt.is_grant {
                add_member(ctx, role, member, admin)?;
            } else if admin {
                set_admin(ctx, role, member, false)?;
            } else {
                remove_member(ctx, role, member)?;
            }
        }
    }
    Ok(())
}

fn membership(ctx: &mut SessionContext, role: Oid, member: Oid) -> Result<Option<CatalogRow>, SqlError> {
    let key = [Datum::Oid(role), Datum::Oid(member)];
    ctx.catalog_reader()?.row(&pg_auth_members::DEF, by::MEMBERS_ROLE, &key)
}

fn may_grant(ctx: &mut SessionContext, role: Oid) -> Result<(), SqlError> {
    let me = ctx.catalog.role(ctx.user)?;
    let (superuser, may_create) = me.map_or((false, false), |r| (r.superuser, r.create_role));
    let target = ctx.catalog.role(role)?;
    let name = target.as_ref().map(|r| r.name.to_string()).unwrap_or_default();
    if target.is_some_and(|r| r.superuser) {
        return if superuser { Ok(()) } else { Err(denied("must be superuser to alter superusers")) };
    }
    if superuser || may_create {
        return Ok(());
    }
    let user = ctx.user;
    let admin = membership(ctx, role, user)?.is_some_and(|row| row.bool(pg_auth_members::admin_option).unwrap_or(false));
    if admin { Ok(()) } else { Err(denied(format!("must have admin option on role \"{name}\""))) }
}

fn add_member(ctx: &mut SessionContext, role: Oid, member: Oid, admin: bool) -> Result<(), SqlError> {
    let names = |ctx: &SessionContext| -> Result<(String, String), SqlError> {
        let name = |oid| ctx.catalog.role(oid).map(|r| r.map(|r| r.name.to_string()).unwrap_or_default());
        Ok((name(role)?, name(member)?))
    };
    if role == member || ctx.catalog.roles_of(role, false)?.contains(&member) {
        let (role, member) = names(ctx)?;
        let message = format!("role \"{role}\" is a member of role \"{member}\"");
        return Err(SqlError::new(SqlState::INVALID_GRANT_OPERATION, message));
    }
    if let Some(row) = membership(ctx, role, member)? {
        if row.bool(pg_auth_members::admin_option)? || !admin {
            let (role, member) = names(ctx)?;
            ctx.notice(format!("role \"{member}\" is already a member of role \"{role}\""));
            return Ok(());
        }
        return set_admin(ctx, role, member, true);
    }
    let mut row = blank(&pg_auth_members::DEF);
    row[pg_auth_members::roleid] = Datum::Oid(role);
    row[pg_auth_members::member] = Datum::Oid(member);
    row[pg_auth_members::grantor] = Datum::Oid(ctx.user);
    row[pg_auth_members::admin_option] = Datum::Bool(admin);
    ctx.writer()?.insert(&pg_auth_members::DEF, &row)?;
    ctx.roles_changed()
}

fn set_admin(ctx: &mut SessionContext, role: Oid, member: Oid, admin: bool) -> Result<(), SqlError> {
    if let Some(row) = membership(ctx, role, member)? {
        let change = [(pg_auth_members::admin_option, Datum::Bool(admin))];
        ctx.writer()?.set(&pg_auth_members::DEF, &row, &change)?;
    }
    ctx.roles_changed()
}

fn remove_member(ctx: &mut SessionContext, role: Oid, member: Oid) -> Result<(), SqlError> {
    match membership(ctx, role, member)? {
        Some(row) => {
            ctx.writer()?.delete(&pg_auth_members::DEF, &row)?;
            ctx.roles_changed()
        }
        None => {
            let name = |oid| ctx.catalog.role(oid).map(|r| r.map(|r| r.name.to_string()).unwrap_or_default());
            let message = format!("role \"{}\" is not a member of role \"{}\"", name(member)?, name(role)?);
            ctx.warning(SqlState::WARNING, message);
            Ok(())
        }
    }
}

/// ALTER ROLE ... SET.
pub(crate) fn set(ctx: &mut SessionContext, stmt: &AlterRoleSetStmt) -> Result<(), SqlError> {
    let role = match &stmt.role {
        Some(spec) => ctx.role_oid(spec)?,
        None => 0,
    };
    if role == 0 {
        if !ctx.is_superuser()? {
            return Err(denied("must be superuser to alter settings globally"));
        }
    } else if role != ctx.user {
        let row = ctx.catalog_reader()?.row(&pg_authid::DEF, by::AUTHID_OID, &[Datum::Oid(role)])?;
        if let Some(row) = row {
            check_may_change(ctx, &row)?;
        }
    }
    let database = if stmt.database.is_empty() {
        0
    } else {
        let name = &stmt.database;
        let found = ctx.catalog.find_database(name)?;
        found.map(|d| d.oid).ok_or_else(|| SqlError::new(SqlState::INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist")))?
    };
    change_setting(ctx, database, role, stmt.setstmt.as_ref())
}

/// Changes a default setting of a role, a database, or a role in a database.
pub(crate) fn change_setting(
    ctx: &mut SessionContext,
    database: Oid,
    role: Oid,
    stmt: Option<&pg_query::protobuf::VariableSetStmt>,
) -> Result<(), SqlError> {
    use pg_query::protobuf::VariableSetKind;
    let Some(stmt) = stmt else { return Ok(()) };
    let key = [Datum::Oid(database), Datum::Oid(role)];
    let old = ctx.catalog_reader()?.row(&pg_db_role_setting::DEF, by::DB_ROLE_SETTING, &key)?;
    let mut list: Vec<String> = match &old {
        Some(row) => row.strs(pg_db_role_setting::setconfig)?.iter().map(|s| s.to_string()).collect(),
        None => Vec::new(),
    };
    let prefix = format!("{}=", stmt.name);
    let drop = |list: &mut Vec<String>| list.retain(|s| !s.to_lowercase().starts_with(&prefix.to_lowercase()));
    match stmt.kind() {
        VariableSetKind::VarResetAll => list.clear(),
        VariableSetKind::VarReset | VariableSetKind::VarSetDefault => drop(&mut list),
        VariableSetKind::VarSetCurrent => {
            let value = ctx.settings.show(&stmt.name)?;
            drop(&mut list);
            list.push(format!("{prefix}{value}"));
        }
        VariableSetKind::VarSetValue | VariableSetKind::VarSetMulti | VariableSetKind::Undefined => {
            let parts: Vec<String> = stmt.args.iter().filter_map(nodes::value_text).collect();
            let value = crate::config::SessionSettings::join_list(&stmt.name, &parts);
            // Known and well formed?
            ctx.settings.check(&stmt.name, &value)?;
            drop(&mut list);
            list.push(format!("{prefix}{value}"));
        }
    }
    match (old, list.is_empty()) {
        (Some(row), true) => ctx.writer()?.delete(&pg_db_role_setting::DEF, &row)?,
        (Some(row), false) => {
            let change = [(pg_db_role_setting::setconfig, text_array(&list))];
            ctx.writer()?.set(&pg_db_role_setting::DEF, &row, &change)?;
        }
        (None, true) => {}
        (None, false) => {
            let mut row = blank(&pg_db_role_setting::DEF);
            row[pg_db_role_setting::setdatabase] = Datum::Oid(database);
            row[pg_db_role_setting::setrole] = Datum::Oid(role);
            row[pg_db_role_setting::setconfig] = text_array(&list);
            ctx.writer()?.insert(&pg_db_role_setting::DEF, &row)?;
        }
    }
    Ok(())
}
