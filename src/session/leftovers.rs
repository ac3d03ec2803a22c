//! What sessions of an earlier life left behind: temporary schemas, of which a crash or a promotion leaves the catalog rows.

use std::sync::Arc;

use super::internal;
use super::server::{Server, Services};
use crate::control::log::{self, Entry, Level};
use crate::executor::utility;
use crate::sql::catalog::Database;
use crate::sqlstate::SqlError;
use crate::txn::{CancelFlag, CommitLevel, Proc, ProcId};

/// Drops orphaned temporary schemas in every database. Called once the node writes; sessions may come meanwhile.
pub(super) fn remove(server: &Arc<Server>) {
    let Ok(services) = server.services() else { return };
    let cancel = CancelFlag::new();
    let proc = services.engine.ctx().txns.enter(ProcId(0), Arc::clone(&cancel));
    let databases = match internal::databases(services, &proc) {
        Ok(databases) => databases,
        Err(e) => return warn(&e),
    };
    for database in databases {
        if let Err(e) = remove_in(server, services, &proc, &cancel, &database) {
            warn(&e);
        }
    }
}

fn warn(e: &SqlError) {
    log::emit(None, &Entry::new(Level::Warning, &format!("could not remove orphaned temporary relations: {e}")));
}

fn remove_in(
    server: &Arc<Server>,
    services: &Services,
    proc: &Arc<Proc>,
    cancel: &Arc<CancelFlag>,
    database: &Database,
) -> Result<(), SqlError> {
    let mut ctx = internal::context(server, services, proc, cancel, database)?;
    let registry = Arc::clone(&server.registry);
    let dropped = utility::drop_orphaned_temp(&mut ctx, &|pid| registry.find(pid).is_some())?;
    let Some(transaction) = ctx.transaction.take() else { return Ok(()) };
    if dropped == 0 {
        return Ok(transaction.abort()?);
    }
    // Nobody waits for it: what a crash loses of it is done again at the next start.
    let _wait = transaction.commit(CommitLevel::Off)?;
    let text = format!("removed {dropped} orphaned temporary schemas in database \"{}\"", database.name);
    log::emit(None, &Entry::new(Level::Log, &text));
    Ok(())
}
