//! May the user do what a statement does?

use super::context::SessionContext;
use super::plan::PlannedStmt;
use crate::sql::catalog::privilege;
use crate::sql::functions::ProcEntry;
use crate::sqlstate::{SqlError, SqlState};

/// Checks a plan's privileges.
///
/// # Errors
/// 42501.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
pub fn check(session: &SessionContext, plan: &PlannedStmt) -> Result<(), SqlError> {
    if plan.privileges.is_empty() || session.catalog.is_superuser(session.user)? {
        return Ok(());
    }
    let roles = session.catalog.roles_of(session.user, true)?;
    for (oid, letter) in &plan.privileges {
        let Some(relation) = session.catalog.relation(*oid)? else { continue };
        if roles.contains(&relation.owner) || (relation.is_system() && *letter == b'r' && relation.acl.is_none()) {
            continue;
        }
        let mut names: Vec<String> = vec![String::new()];
        for role in &roles {
            if let Some(role) = session.catalog.role(*role)? {
                names.push(role.name.to_string());
            }
        }
        let granted = relation.acl.iter().flatten().any(|item| {
            // grantee=letters/grantor
            let Some((grantee, rest)) = item.rsplit_once('=') else { return false };
            let letters = rest.split('/').next().unwrap_or("");
            let grantee = grantee.trim_matches('"').replace("\"\"", "\"");
            names.contains(&grantee) && letters.bytes().any(|b| b == *letter)
        });
        if !granted {
            let noun = match relation.kind {
                crate::sql::catalog::RelKind::View => "view",
                crate::sql::catalog::RelKind::Sequence => "sequence",
                crate::sql::catalog::RelKind::MatView => "materialized view",
                _ => "table",
            };
            return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied for {noun} {}", relation.name)));
        }
    }
    Ok(())
}

/// Checks that the user may execute a function that PUBLIC may not. All of these need a server around them, so
/// they are asked for here, where such functions are called, and not of every call of every plan.
///
/// # Errors
/// 42501.
pub fn check_function(session: &SessionContext, func: &'static ProcEntry) -> Result<(), SqlError> {
    if !privilege::is_restricted(func) || privilege::on_function(&session.catalog, session.user, func)? {
        return Ok(());
    }
    Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied for function {}", func.name)))
}
