//! SET, RESET, SHOW, ALTER SYSTEM, DISCARD, CHECKPOINT.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{AlterSystemStmt, Node, VariableSetKind, VariableSetStmt, a_const};

use super::context::SessionContext;
use super::portal::ColumnDesc;
use super::sink::RowSink;
use super::statement::RawStmt;
use crate::config::{Config, SessionSettings, SetScope, Setting, TABLE, flag, lookup};
use crate::control::checkpoint::CheckpointRequest;
use crate::sql::types::{Datum, oids};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::Isolation;

/// Members may run CHECKPOINT.
const PG_CHECKPOINT: u32 = 4544;

fn column(name: &str) -> ColumnDesc {
    ColumnDesc { name: name.into(), table: 0, attnum: 0, type_oid: oids::TEXT, type_len: -1, typmod: -1 }
}

/// SHOW's columns.
pub(super) fn describe(session: &SessionContext, statement: &RawStmt) -> Result<Option<Vec<ColumnDesc>>, SqlError> {
    let NodeEnum::VariableShowStmt(show) = &*statement.node else { return Ok(None) };
    if show.name.eq_ignore_ascii_case("all") {
        return Ok(Some(vec![column("name"), column("setting"), column("description")]));
    }
    // An unknown one is refused before anything is described.
    session.settings.show(&show.name)?;
    let name = lookup(&show.name).map_or(show.name.as_str(), |s| s.name());
    Ok(Some(vec![column(name)]))
}

/// Runs the statement if it is one of these; its tag.
pub(super) fn run(session: &mut SessionContext, statement: &RawStmt, sink: &mut dyn RowSink) -> Result<Option<String>, SqlError> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "all other statements are somebody else's")]
    match &*statement.node {
        NodeEnum::VariableShowStmt(show) => {
            if show.name.eq_ignore_ascii_case("all") {
                show_all(session, sink)?;
            } else {
                let value = session.settings.show(&show.name)?;
                sink.row(&[Datum::text(value)])?;
            }
            Ok(Some("SHOW".into()))
        }
        NodeEnum::VariableSetStmt(set) => set_variable(session, set).map(|tag| Some(tag.to_owned())),
        NodeEnum::AlterSystemStmt(alter) => {
            alter_system(session, alter)?;
            Ok(Some("ALTER SYSTEM".into()))
        }
        NodeEnum::CheckPointStmt(_) => {
            let user = session.user;
            if !session.catalog.has_privileges_of(user, PG_CHECKPOINT)? && !session.catalog.is_superuser(user)? {
                return Err(SqlError::new(
                    SqlState::INSUFFICIENT_PRIVILEGE,
                    "must be superuser or have privileges of pg_checkpoint to do CHECKPOINT",
                ));
            }
            let engine = Arc::clone(&session.engine);
            let request = CheckpointRequest { immediate: true, force: !engine.is_in_recovery(), ..CheckpointRequest::default() };
            crate::txn::blocking(|| engine.checkpoint(request))?;
            Ok(Some("CHECKPOINT".into()))
        }
        _ => Ok(None),
    }
}

fn show_all(session: &SessionContext, sink: &mut dyn RowSink) -> Result<(), SqlError> {
    for def in TABLE.iter().filter(|d| !d.has(flag::NO_SHOW_ALL)) {
        match session.settings.show(def.name) {
            Ok(value) => sink.row(&[Datum::text(def.name), Datum::text(value), Datum::text(def.doc)])?,
            Err(e) if e.state() == SqlState::INSUFFICIENT_PRIVILEGE => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The text of one argument.
fn argument(node: &Node) -> Result<String, SqlError> {
    let bad = || SqlError::new(SqlState::SYNTAX_ERROR, "unsupported value in SET");
    match node.node.as_ref() {
        Some(NodeEnum::AConst(c)) => match &c.val {
            Some(a_const::Val::Sval(s)) => Ok(s.sval.clone()),
            Some(a_const::Val::Ival(i)) => Ok(i.ival.to_string()),
            Some(a_const::Val::Fval(f)) => Ok(f.fval.clone()),
            Some(a_const::Val::Boolval(b)) => Ok(if b.boolval { "on" } else { "off" }.to_owned()),
            Some(a_const::Val::Bsval(_)) | None => Err(bad()),
        },
        // SET TIME ZONE INTERVAL '-3' HOUR.
        Some(NodeEnum::TypeCast(cast)) => cast.arg.as_ref().ok_or_else(bad).and_then(|arg| argument(arg)),
        _ => Err(bad()),
    }
}

/// The value of SET name = a, b, c, as the setting stores it.
fn value(name: &str, args: &[Node]) -> Result<String, SqlError> {
    let mut parts = args.iter().map(argument).collect::<Result<Vec<_>, _>>()?;
    let is_list = lookup(name).is_some_and(|s| s.def().has(flag::LIST));
    if is_list {
        return Ok(SessionSettings::join_list(name, &parts));
    }
    match (parts.pop(), parts.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("SET {name} takes only one argument"))),
    }
}

fn set_variable(session: &mut SessionContext, set: &VariableSetStmt) -> Result<&'static str, SqlError> {
    let scope = if set.is_local { SetScope::Local } else { SetScope::Session };
    if set.is_local && !session.in_block {
        session.warning(SqlState::NO_ACTIVE_SQL_TRANSACTION, "SET LOCAL can only be used in transaction blocks");
    }
    match set.kind() {
        VariableSetKind::VarSetValue => {
            let value = value(&set.name, &set.args)?;
            match lookup(&set.name) {
                Some(Setting::Role) => set_role(session, &value, scope)?,
                Some(Setting::SessionAuthorization) => set_session_authorization(session, &value, scope)?,
                _ => session.settings.set(&set.name, &value, scope)?,
            }
            Ok("SET")
        }
        VariableSetKind::VarSetDefault | VariableSetKind::VarReset => {
            match lookup(&set.name) {
                Some(Setting::Role) => set_role(session, "none", scope)?,
                Some(Setting::SessionAuthorization) => reset_session_authorization(session, scope)?,
                _ => session.settings.reset(&set.name, scope)?,
            }
            Ok(if set.kind() == VariableSetKind::VarReset { "RESET" } else { "SET" })
        }
        VariableSetKind::VarResetAll => {
            session.settings.reset_all();
            Ok("RESET")
        }
        VariableSetKind::VarSetMulti => {
            set_characteristics(session, set)?;
            Ok("SET")
        }
        VariableSetKind::VarSetCurrent | VariableSetKind::Undefined => Err(SqlError::unsupported("SET ... FROM CURRENT here")),
    }
}

/// SET TRANSACTION, SET SESSION CHARACTERISTICS AS TRANSACTION.
fn set_characteristics(session: &mut SessionContext, set: &VariableSetStmt) -> Result<(), SqlError> {
    let for_session = match set.name.as_str() {
        "TRANSACTION" => {
            if !session.in_block {
                session.warning(SqlState::NO_ACTIVE_SQL_TRANSACTION, "SET TRANSACTION can only be used in transaction blocks");
            }
            false
        }
        "SESSION CHARACTERISTICS" => true,
        _ => {
            let id = set.args.first().map(argument).transpose()?.unwrap_or_default();
            return import_snapshot(session, &id);
        }
    };
    for node in &set.args {
        let Some(NodeEnum::DefElem(element)) = &node.node else { continue };
        let Some(arg) = &element.arg else { continue };
        let text = argument(arg)?;
        // READ ONLY arrives as a number.
        let text = match (element.defname.as_str(), text.as_str()) {
            ("transaction_read_only" | "transaction_deferrable", "1") => "on".to_owned(),
            ("transaction_read_only" | "transaction_deferrable", "0") => "off".to_owned(),
            _ => text,
        };
        if for_session {
            session.settings.set(&format!("default_{}", element.defname), &text, SetScope::Session)?;
        } else {
            session.settings.set(&element.defname, &text, SetScope::Local)?;
        }
    }
    Ok(())
}

/// SET TRANSACTION SNAPSHOT. PostgreSQL: `ImportSnapshot` in utils/time/snapmgr.c.
fn import_snapshot(session: &mut SessionContext, id: &str) -> Result<(), SqlError> {
    if !session.in_block {
        session.warning(SqlState::NO_ACTIVE_SQL_TRANSACTION, "SET TRANSACTION can only be used in transaction blocks");
    }
    let (database, unsupported) = (session.database, |message| Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message)));
    let txn = session.transaction()?;
    if txn.has_queried() || txn.top_xid().is_some() || txn.savepoints() > 0 {
        return Err(SqlError::new(SqlState::ACTIVE_SQL_TRANSACTION, "SET TRANSACTION SNAPSHOT must be called before any query"));
    }
    let (isolation, read_only) = (txn.isolation(), txn.options().read_only);
    if isolation == Isolation::ReadCommitted {
        return unsupported("a snapshot-importing transaction must have isolation level SERIALIZABLE or REPEATABLE READ");
    }
    let invalid = || SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid snapshot identifier: \"{id}\""));
    let exported = txn.find_exported(id).ok_or_else(invalid)?;
    if isolation == Isolation::Serializable {
        if exported.isolation != Isolation::Serializable {
            return unsupported("a serializable transaction cannot import a snapshot from a non-serializable transaction");
        }
        if exported.read_only && !read_only {
            return unsupported("a non-read-only serializable transaction cannot import a snapshot from a read-only transaction");
        }
    }
    if exported.database != database {
        return unsupported("cannot import a snapshot from a different database");
    }
    if txn.import_snapshot(id) { Ok(()) } else { Err(invalid()) }
}

/// SET ROLE. Who the session then is, is taken from the setting by [`follow_role`].
/// A role as the value of a setting: another SQLSTATE than where a statement names one.
fn existing_role(session: &SessionContext, name: &str) -> Result<Arc<crate::sql::catalog::Role>, SqlError> {
    let found = session.catalog.find_role(name)?;
    found.ok_or_else(|| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("role \"{name}\" does not exist")))
}

fn set_role(session: &mut SessionContext, name: &str, scope: SetScope) -> Result<(), SqlError> {
    if name != "none" {
        let role = existing_role(session, name)?;
        let me = session.session_user;
        if !session.catalog.is_superuser(me)? && me != role.oid && !session.catalog.roles_of(me, false)?.contains(&role.oid) {
            return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied to set role \"{name}\"")));
        }
    }
    session.settings.set_internal(Setting::Role, crate::config::Value::Str(name.into()), scope);
    follow_role(session)
}

fn set_session_authorization(session: &mut SessionContext, name: &str, scope: SetScope) -> Result<(), SqlError> {
    let role = existing_role(session, name)?;
    let login = session.login_user;
    if role.oid != login && !session.catalog.is_superuser(login)? {
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, "permission denied to set session authorization"));
    }
    session.settings.set_internal(Setting::SessionAuthorization, crate::config::Value::Str(name.into()), scope);
    session.settings.set_internal(Setting::Role, crate::config::Value::Str("none".into()), scope);
    follow_role(session)
}

fn reset_session_authorization(session: &mut SessionContext, scope: SetScope) -> Result<(), SqlError> {
    let name = match session.catalog.role(session.login_user)? {
        Some(role) => Arc::clone(&role.name),
        None => return Ok(()),
    };
    set_session_authorization(session, &name, scope)
}

/// Makes the session's users what `session_authorization` and `role` say: after SET, and after a rollback took a SET back.
///
/// # Errors
/// A role is gone meanwhile, or reading the catalogs failed.
pub fn follow_role(session: &mut SessionContext) -> Result<(), SqlError> {
    let wanted: Arc<str> = session.settings.str(Setting::SessionAuthorization).into();
    if !wanted.is_empty() && wanted != session.session_user_name {
        let role = session.catalog.require_role(&wanted)?;
        session.session_user = role.oid;
        session.session_user_name = wanted;
    }
    let role: Arc<str> = session.settings.str(Setting::Role).into();
    let current = if &*role == "none" || role.is_empty() { Arc::clone(&session.session_user_name) } else { role };
    if current != session.user_name {
        let role = session.catalog.require_role(&current)?;
        session.user = role.oid;
        session.user_name = current;
        session.settings.set_superuser(role.superuser);
    }
    Ok(())
}

fn alter_system(session: &mut SessionContext, alter: &AlterSystemStmt) -> Result<(), SqlError> {
    let Some(set) = &alter.setstmt else { return Err(SqlError::internal("ALTER SYSTEM without a setting")) };
    if !session.catalog.is_superuser(session.user)? {
        let text = if set.name.is_empty() {
            "permission denied to perform ALTER SYSTEM RESET ALL".to_owned()
        } else {
            format!("permission denied to set parameter \"{}\"", set.name)
        };
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, text));
    }
    session.prevent_in_block("ALTER SYSTEM")?;
    let config: &Config = &session.config;
    match set.kind() {
        VariableSetKind::VarSetValue => config.alter_system(&set.name, Some(&value(&set.name, &set.args)?)),
        VariableSetKind::VarSetDefault | VariableSetKind::VarReset => config.alter_system(&set.name, None),
        VariableSetKind::VarResetAll => config.alter_system_reset_all(),
        VariableSetKind::VarSetMulti | VariableSetKind::VarSetCurrent | VariableSetKind::Undefined => {
            Err(SqlError::unsupported("this form of ALTER SYSTEM"))
        }
    }
}
