//! What sessions of an earlier life left behind: temporary schemas, of which a crash or a promotion leaves the catalog rows.

use std::sync::Arc;

use super::registry::now;
use super::server::{Server, Services};
use crate::config::SessionSettings;
use crate::control::log::{self, Entry, Level};
use crate::executor::{SessionContext, utility};
use crate::sql::catalog::bootstrap::TEMPLATE1;
use crate::sql::catalog::load::CatalogReader as _;
use crate::sql::catalog::relation::BOOTSTRAP_ROLE;
use crate::sql::catalog::schema::pg_database;
use crate::sql::catalog::{Database, Viewer};
use crate::sql::types::IoSettings;
use crate::sqlstate::SqlError;
use crate::txn::{CancelFlag, CommitLevel, Proc, ProcId, TransactionOptions};

/// Drops orphaned temporary schemas in every database. Called once the node writes; sessions may come meanwhile.
pub(super) fn remove(server: &Arc<Server>) {
    let Ok(services) = server.services() else { return };
    let cancel = CancelFlag::new();
    let proc = services.engine.ctx().txns.enter(ProcId(0), Arc::clone(&cancel));
    let databases = match databases(services, &proc) {
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

fn viewer(database: u32) -> Viewer {
    Viewer { database, user: BOOTSTRAP_ROLE, user_name: "".into(), search_path: "".into(), temp_namespace: None }
}

fn databases(services: &Services, proc: &Arc<Proc>) -> Result<Vec<Arc<Database>>, SqlError> {
    let catalog = services.catalog.handle_outside(viewer(TEMPLATE1), proc);
    let mut found = Vec::new();
    for row in catalog.reader()?.rows(&pg_database::DEF, 0, &[])? {
        found.extend(catalog.database_by_oid(row.oid(pg_database::oid)?)?);
    }
    Ok(found)
}

fn remove_in(
    server: &Arc<Server>,
    services: &Services,
    proc: &Arc<Proc>,
    cancel: &Arc<CancelFlag>,
    database: &Database,
) -> Result<(), SqlError> {
    let catalog = services.catalog.handle_outside(viewer(database.oid), proc);
    let name: Arc<str> = catalog.role(BOOTSTRAP_ROLE)?.map_or_else(|| "".into(), |r| Arc::clone(&r.name));
    let time = now();
    let mut ctx = SessionContext {
        engine: Arc::clone(&services.engine),
        proc: Arc::clone(proc),
        cancel: Arc::clone(cancel),
        transaction: None,
        in_block: false,
        config: Arc::clone(&server.config),
        login_user: BOOTSTRAP_ROLE,
        database: database.oid,
        database_name: Arc::clone(&database.name),
        user: BOOTSTRAP_ROLE,
        user_name: Arc::clone(&name),
        session_user: BOOTSTRAP_ROLE,
        session_user_name: name,
        backend_pid: 0,
        settings: SessionSettings::new(server.config.current()),
        io: IoSettings::default(),
        catalog,
        sequences: crate::executor::catalog_function::SequenceCache::default(),
        on_commit: Vec::new(),
        notices: Vec::new(),
        transaction_timestamp: time,
        statement_timestamp: time,
        front_end: &crate::sql::FRONT_END,
        externals: Vec::new(),
    };
    let transaction = services.engine.ctx().txns.begin(proc, TransactionOptions::default());
    let handle = services.catalog.handle(viewer(database.oid), &transaction);
    ctx.transaction = Some(transaction);
    ctx.set_catalog(handle);
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
