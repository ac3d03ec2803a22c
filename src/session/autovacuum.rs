//! Autovacuum: every `autovacuum_naptime` a worker looks through each database for tables with enough dead or changed rows.
//!
//! Up to `autovacuum_max_workers` work at a time, each a session without a client. A worker gives way to whoever waits for its locks
//! (`txn::locks`), rests as its cost budget says, and ends when a stop begins. PostgreSQL: postmaster/autovacuum.c.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use afterimage_wal::Xid;
use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tokio::sync::Semaphore;

use super::internal;
use super::registry::{Registered, SessionState, now};
use super::server::{Server, Services, Stopping};
use crate::config::{Setting, Settings};
use crate::control::log::{self, Entry, Level};
use crate::executor::SessionContext;
use crate::executor::vacuum::{self, Auto};
use crate::sql::catalog::Database;
use crate::sql::catalog::load::CatalogReader as _;
use crate::sql::catalog::relation::{Persistence, RelKind, Relation};
use crate::sql::catalog::schema::pg_class;
use crate::sqlstate::SqlError;
use crate::txn::{CancelFlag, CancelReason, CommitLevel, LockMode, LockTag, ProcId, TableKey, TransactionOptions, WaitPolicy};

/// What workers share.
#[derive(Default)]
struct Shared {
    /// Leaf. Tables being worked on.
    busy: Mutex<FxHashSet<TableKey>>,
    /// Workers that vacuum: they share one cost limit.
    workers: AtomicU64,
}

/// Starts the launcher. It ends when a stop begins or the node is no primary any more.
pub(super) fn start(server: &Arc<Server>) {
    tokio::spawn(launch(Arc::clone(server)));
}

async fn launch(server: Arc<Server>) {
    let mut stopping = server.subscribe_stopping();
    let mut settings_changed = server.config.subscribe();
    let places = usize::try_from(server.config.current().int(Setting::AutovacuumMaxWorkers)).unwrap_or(3);
    let places = Arc::new(Semaphore::new(places.max(1)));
    let shared = Arc::<Shared>::default();
    loop {
        let nap = server.config.current().duration(Setting::AutovacuumNaptime).unwrap_or(Duration::from_secs(60));
        tokio::select! {
            () = tokio::time::sleep(nap) => {}
            changed = settings_changed.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            _ = stopping.wait_for(|s| *s > Stopping::No) => return,
        }
        let settings = server.config.current();
        if !settings.bool(Setting::Autovacuum) || !settings.bool(Setting::TrackCounts) {
            continue;
        }
        let inside = Arc::clone(&server);
        let Ok(databases) = tokio::task::spawn_blocking(move || databases(&inside)).await else { return };
        for database in databases {
            let place = tokio::select! {
                place = Arc::clone(&places).acquire_owned() => place,
                _ = stopping.wait_for(|s| *s > Stopping::No) => return,
            };
            let (server, shared) = (Arc::clone(&server), Arc::clone(&shared));
            tokio::task::spawn_blocking(move || {
                work(&server, &shared, &database);
                drop(place);
            });
        }
    }
}

fn databases(server: &Arc<Server>) -> Vec<Arc<Database>> {
    let Ok(services) = server.services() else { return Vec::new() };
    let proc = services.engine.ctx().txns.enter(ProcId(0), CancelFlag::new());
    internal::databases(services, &proc).unwrap_or_else(|e| {
        log::emit(None, &Entry::new(Level::Warning, &format!("autovacuum could not list databases: {e}")));
        Vec::new()
    })
}

/// One worker's life.
fn work(server: &Arc<Server>, shared: &Shared, database: &Arc<Database>) {
    let Ok(services) = server.services() else { return };
    let registered = server.registry.enter(None, None);
    {
        let mut activity = registered.entry.activity.lock();
        activity.autovacuum = true;
        activity.state = SessionState::Active;
        activity.database = Some((database.oid, Arc::clone(&database.name)));
    }
    // A stop that began before this one was listed has not told it.
    if server.services().is_err() {
        return;
    }
    if let Err(e) = work_in(server, services, shared, database, &registered)
        && registered.entry.cancel.reason() != Some(CancelReason::Terminate)
    {
        log::emit(None, &Entry::new(Level::Error, &e.to_string()));
    }
}

fn work_in(
    server: &Arc<Server>,
    services: &Services,
    shared: &Shared,
    database: &Arc<Database>,
    registered: &Registered,
) -> Result<(), SqlError> {
    let cancel = &registered.entry.cancel;
    let proc = services.engine.ctx().txns.enter(ProcId(registered.entry.pid), Arc::clone(cancel));
    proc.set_autovacuum();
    proc.set_database(database.oid);
    let mut ctx = internal::context(server, services, &proc, cancel, database)?;
    {
        // As at a login: who drops the database ends this worker, or has dropped it already.
        let login = services.engine.ctx().txns.begin(&proc, TransactionOptions::default());
        login.lock(LockTag::database(database.oid), LockMode::RowExclusive, WaitPolicy::Block)?;
        if ctx.catalog.database_by_oid(database.oid)?.is_none() {
            return Ok(());
        }
    }
    let settings = server.config.current();
    let found = candidates(&mut ctx, &settings)?;
    let any = !found.is_empty();
    for (oid, key) in found {
        if !shared.busy.lock().insert(key) {
            continue;
        }
        let result = one(&mut ctx, registered, shared, &settings, oid);
        shared.busy.lock().remove(&key);
        if let Err(e) = result {
            ctx.transaction = None;
            if cancel.reason().is_some_and(CancelReason::ends_session) {
                return Err(e);
            }
            let text = if cancel.reason() == Some(CancelReason::Query) { "canceling autovacuum task".to_owned() } else { e.to_string() };
            let table = registered.entry.activity.lock().query.rsplit(' ').next().unwrap_or_default().to_owned();
            let context = format!("automatic vacuum of table \"{}.{table}\"", database.name);
            let mut entry = Entry::new(Level::Error, &text);
            entry.context = Some(&context);
            log::emit(None, &entry);
            cancel.reset();
        }
        // Its commits wait for no standby.
        let options = TransactionOptions { level: CommitLevel::Local, ..TransactionOptions::default() };
        ctx.transaction = Some(services.engine.ctx().txns.begin(&proc, options));
    }
    if any {
        vacuum::update_database(&mut ctx)?;
        if let Some(transaction) = ctx.transaction.take() {
            let _wait = transaction.commit(CommitLevel::Off)?;
        }
    }
    Ok(())
}

/// Tables of the database that are due.
fn candidates(ctx: &mut SessionContext, settings: &Settings) -> Result<Vec<(u32, TableKey)>, SqlError> {
    let mut oids = Vec::new();
    for row in ctx.catalog.reader()?.rows(&pg_class::DEF, 0, &[])? {
        if matches!(row.char(pg_class::relkind)?, b'r' | b'm' | b't') && row.oid(pg_class::relfilenode)? != 0 {
            oids.push((row.oid(pg_class::oid)?, vacuum::frozen_of(&row)?));
        }
    }
    let mut found = Vec::new();
    for (oid, frozen) in oids {
        let Some(relation) = ctx.catalog.relation(oid)? else { continue };
        if let Some(handle) = relation.rel_handle()
            && due(ctx, &relation, settings, frozen).is_some()
        {
            found.push((oid, handle.stats_key()));
        }
    }
    Ok(found)
}

/// Whether a table is to be vacuumed and analyzed. PostgreSQL: `relation_needs_vacanalyze`.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
fn due(ctx: &SessionContext, relation: &Relation, settings: &Settings, frozen: Xid) -> Option<(bool, bool)> {
    let option = |name: &str| relation.option(&format!("autovacuum_{name}"));
    // Other sessions' temporary tables are theirs.
    if relation.persistence == Persistence::Temporary {
        return None;
    }
    // So old that the statuses it names keep others from being forgotten: whatever else is asked for.
    let limit = settings.int(Setting::AutovacuumFreezeMaxAge);
    let limit = option("freeze_max_age").and_then(|v| v.parse().ok()).map_or(limit, |own: i64| own.min(limit));
    let age = ctx.engine.txns().next_xid().as_u64().saturating_sub(frozen.as_u64());
    let old = frozen.is_valid() && age > u64::try_from(limit).unwrap_or(u64::MAX);
    if relation.bool_option("autovacuum_enabled") == Some(false) {
        return old.then_some((true, false));
    }
    let number = |name: &str, setting: Setting| {
        let own = option(name).and_then(|v| v.parse::<f64>().ok());
        #[expect(clippy::cast_precision_loss, reason = "a threshold")]
        let server = || match setting {
            Setting::AutovacuumVacuumThreshold | Setting::AutovacuumVacuumInsertThreshold | Setting::AutovacuumAnalyzeThreshold => {
                settings.int(setting) as f64
            }
            _ => settings.real(setting),
        };
        own.unwrap_or_else(server)
    };
    let Some(stats) = ctx.engine.ctx().txns.table_stats().get(relation.rel_handle()?.stats_key()) else {
        return old.then_some((true, false));
    };
    let rows = f64::from(relation.rel_tuples.max(0.0));
    let threshold = |base: f64, scale: f64| base + scale * rows;
    let dead = threshold(
        number("vacuum_threshold", Setting::AutovacuumVacuumThreshold),
        number("vacuum_scale_factor", Setting::AutovacuumVacuumScaleFactor),
    );
    let insert_base = number("vacuum_insert_threshold", Setting::AutovacuumVacuumInsertThreshold);
    let inserted = threshold(insert_base, number("vacuum_insert_scale_factor", Setting::AutovacuumVacuumInsertScaleFactor));
    let changed = threshold(
        number("analyze_threshold", Setting::AutovacuumAnalyzeThreshold),
        number("analyze_scale_factor", Setting::AutovacuumAnalyzeScaleFactor),
    );
    #[expect(clippy::cast_precision_loss, reason = "a comparison with a threshold")]
    let above = |n: u64, limit: f64| n as f64 > limit;
    let vacuum = old || above(stats.n_dead_tup, dead) || (insert_base >= 0.0 && above(stats.n_ins_since_vacuum, inserted));
    let analyze = above(stats.n_mod_since_analyze, changed) && relation.kind != RelKind::Toast && !relation.is_system();
    (vacuum || analyze).then_some((vacuum, analyze))
}

/// Works on one table, if it is still due.
fn one(ctx: &mut SessionContext, registered: &Registered, shared: &Shared, settings: &Settings, oid: u32) -> Result<(), SqlError> {
    ctx.refresh_catalog();
    let Some(relation) = ctx.catalog.relation(oid)? else { return Ok(()) };
    let frozen = vacuum::frozen_xid(ctx, oid)?;
    let Some((vacuum, analyze)) = due(ctx, &relation, settings, frozen) else { return Ok(()) };
    {
        let what = match (vacuum, analyze) {
            (true, true) => "VACUUM ANALYZE",
            (true, false) => "VACUUM",
            (false, _) => "ANALYZE",
        };
        let mut activity = registered.entry.activity.lock();
        activity.query = format!("autovacuum: {what} {}.{}", relation.namespace_name, relation.name).into();
        (activity.xact_start, activity.query_start, activity.state_change) = (Some(now()), Some(now()), Some(now()));
    }
    let own = |name: &str| relation.option(name).and_then(|v| v.parse::<f64>().ok()).filter(|v| *v >= 0.0);
    let server_delay = settings.real(Setting::AutovacuumVacuumCostDelay);
    let server_delay = if server_delay < 0.0 { settings.real(Setting::VacuumCostDelay) } else { server_delay };
    let server_limit = settings.int(Setting::AutovacuumVacuumCostLimit);
    let server_limit = if server_limit < 1 { settings.int(Setting::VacuumCostLimit) } else { server_limit };
    let workers = shared.workers.fetch_add(1, Ordering::Relaxed) + 1;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a limit of at most 10000")]
    let limit = own("autovacuum_vacuum_cost_limit").map_or_else(|| u64::try_from(server_limit).unwrap_or(200) / workers, |v| v as u64);
    let log_above = match own("log_autovacuum_min_duration") {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "milliseconds, not negative")]
        Some(ms) => Some(Duration::from_millis(ms as u64)),
        None => u64::try_from(settings.int(Setting::LogAutovacuumMinDuration)).ok().map(Duration::from_millis),
    };
    let cost_delay = own("autovacuum_vacuum_cost_delay").unwrap_or(server_delay);
    let auto = Auto { vacuum, analyze, cost_delay, cost_limit: limit.max(1), log_above };
    let result = vacuum::auto(ctx, oid, auto);
    shared.workers.fetch_sub(1, Ordering::Relaxed);
    result?;
    if let Some(transaction) = ctx.transaction.take() {
        // Nobody waits for it: what a crash loses of it is done again.
        let _wait = transaction.commit(CommitLevel::Off)?;
    }
    Ok(())
}
