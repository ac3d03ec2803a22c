//! Sessions without a client: what the server does of its own accord in a database.

use std::sync::Arc;

use super::registry::now;
use super::server::{Server, Services};
use crate::config::SessionSettings;
use crate::executor::SessionContext;
use crate::sql::catalog::bootstrap::TEMPLATE1;
use crate::sql::catalog::load::CatalogReader as _;
use crate::sql::catalog::relation::BOOTSTRAP_ROLE;
use crate::sql::catalog::schema::pg_database;
use crate::sql::catalog::{Database, Viewer};
use crate::sql::types::IoSettings;
use crate::sqlstate::SqlError;
use crate::txn::{CancelFlag, CommitLevel, Proc, TransactionOptions};

fn viewer(database: u32) -> Viewer {
    Viewer { database, user: BOOTSTRAP_ROLE, user_name: "".into(), search_path: "".into(), temp_namespace: None }
}

/// All databases but those that can only be dropped.
pub(super) fn databases(services: &Services, proc: &Arc<Proc>) -> Result<Vec<Arc<Database>>, SqlError> {
    let catalog = services.catalog.handle_outside(viewer(TEMPLATE1), proc);
    let mut found = Vec::new();
    for row in catalog.reader()?.rows(&pg_database::DEF, 0, &[])? {
        found.extend(catalog.database_by_oid(row.oid(pg_database::oid)?)?.filter(|database| !database.is_invalid()));
    }
    Ok(found)
}

/// A session of the bootstrap superuser in a database, with a transaction begun.
pub(super) fn context(
    server: &Arc<Server>,
    services: &Services,
    proc: &Arc<Proc>,
    cancel: &Arc<CancelFlag>,
    database: &Database,
) -> Result<SessionContext, SqlError> {
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
        backend_pid: proc.id().0,
        settings: SessionSettings::new(server.config.current()),
        timeouts_version: 0,
        io: IoSettings::default(),
        catalog,
        sequences: crate::executor::catalog_function::SequenceCache::default(),
        variables: None,
        routines: crate::executor::routine::Routines::default(),
        deferral: crate::executor::deferral::Deferral::default(),
        temp_space: crate::executor::TempSpace::default(),
        on_commit: Vec::new(),
        notices: Vec::new(),
        told: 0,
        outlet: None,
        transaction_timestamp: time,
        statement_timestamp: time,
        front_end: &crate::sql::FRONT_END,
        externals: Vec::new(),
    };
    // What the server does of its own accord waits for no standby.
    let options = TransactionOptions { level: CommitLevel::Local, ..TransactionOptions::default() };
    let transaction = services.engine.ctx().txns.begin(proc, options);
    let handle = services.catalog.handle(viewer(database.oid), &transaction);
    ctx.transaction = Some(transaction);
    ctx.set_catalog(handle);
    Ok(ctx)
}
