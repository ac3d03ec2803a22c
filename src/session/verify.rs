//! Checking a data directory that no server runs on: every page, every table, every index. Nothing in it is changed: the engine recovers
//! and works on an overlay whose changes stay in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use afterimage_wal::disk::{OverlayDisk, RealDisk};
use afterimage_wal::{BlockNo, Fork};

use crate::config::{Config, SessionSettings, Setting};
use crate::control::node_state::State;
use crate::engine::{CheckpointSettings, Engine, EngineOptions};
use crate::executor::SessionContext;
use crate::executor::catalog_function::SequenceCache;
use crate::executor::verify::{self, IndexCheck};
use crate::sql::catalog::bootstrap::TEMPLATE1;
use crate::sql::catalog::load::CatalogReader;
use crate::sql::catalog::relation::{BOOTSTRAP_ROLE, Persistence, Relation};
use crate::sql::catalog::schema::pg_database;
use crate::sql::catalog::{Catalog, Viewer};
use crate::sql::types::{IoSettings, Oid};
use crate::sqlstate::SqlError;
use crate::storage::{Files, Page, PageTag, StorageError};
use crate::txn::{CancelFlag, ProcId, TransactionOptions};

/// Gets what a check finds and how far it is.
pub trait Watch {
    /// Something is damaged.
    fn found(&mut self, damage: &str);
    /// So many more pages are to be looked at.
    fn todo(&mut self, pages: u64);
    /// So many were.
    fn done(&mut self, pages: u64);
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Relation files.
    pub files: u64,
    /// Pages in them.
    pub pages: u64,
    /// Tables whose rows were checked.
    pub tables: u64,
    /// Indexes.
    pub indexes: u64,
    /// Pieces of damage found.
    pub damaged: u64,
}

/// Checks a data directory.
///
/// # Errors
/// What kept it from being checked; damage is told to `watch`.
pub fn run(dir: &Path, watch: &mut dyn Watch) -> Result<Checked, String> {
    let mut checked = Checked::default();
    let real = RealDisk::shared();
    let temporary = Temporary(std::env::temp_dir().join(format!("afterimage-verify.{}", std::process::id())));
    let options = EngineOptions {
        disk: OverlayDisk::over(Arc::clone(&real)),
        temp_root: Some(temporary.0.clone()),
        checkpoint: CheckpointSettings {
            log: false,
            timeout: Duration::from_secs(86_400 * 365),
            max_wal_bytes: u64::MAX,
            ..CheckpointSettings::default()
        },
        ..EngineOptions::default()
    };
    let engine = match Engine::open(dir, options) {
        Ok(engine) => engine,
        Err(error) => {
            checked.damaged += 1;
            watch.found(&format!("the directory cannot be recovered: {error}"));
            // As it lies on disk, torn pages of a crash included: that is all that can be said.
            check_pages(&Files::new(Arc::clone(&real), dir), &mut checked, watch)?;
            return Ok(checked);
        }
    };
    wait_for_replay(&engine);
    engine.pool().flush_all().map_err(|e| e.to_string())?;
    check_pages(engine.files(), &mut checked, watch)?;
    if matches!(engine.node().get(), State::Primary | State::HotStandby) {
        check_databases(&engine, dir, &mut checked, watch).map_err(|e| e.to_string())?;
    } else {
        watch.found("the standby has not reached a consistent state with the WAL it has: tables and indexes were not checked");
        checked.damaged += 1;
    }
    Ok(checked)
}

/// Where sorts put what memory does not hold, if there is such.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.0.exists() {
            let _best_effort = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A standby replays what it has.
fn wait_for_replay(engine: &Engine) {
    if !engine.is_in_recovery() {
        return;
    }
    let end = engine.wal().confirmed();
    let mut replayed = engine.subscribe_replayed();
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() {
        // The sender lives as long as the engine.
        let _reached = runtime.block_on(replayed.wait_for(|lsn| *lsn >= end));
    }
}

/// Every page of every relation file, whether a catalog knows it or not.
fn check_pages(files: &Files, checked: &mut Checked, watch: &mut dyn Watch) -> Result<(), String> {
    let relations = files.relations().map_err(|e| e.to_string())?;
    for (rel, fork) in &relations {
        watch.todo(u64::from(files.n_blocks(*rel, *fork).map_err(|e| e.to_string())?.get()));
    }
    let mut page = Page::zeroed();
    for (rel, fork) in relations {
        checked.files += 1;
        for block in (0..files.n_blocks(rel, fork).map_err(|e| e.to_string())?.get()).map(BlockNo::new) {
            let tag = PageTag { rel, fork, block };
            checked.pages += 1;
            watch.done(1);
            match files.read_page(tag, &mut page) {
                Ok(()) => {}
                // The free space map is not logged: blocks of it that a crash kept from being written are made anew.
                Err(StorageError::BadPage { .. }) if fork == Fork::Fsm && page.is_zero() => {}
                // Of a relation whose drop was committed: the checkpointer removed it since it was listed.
                Err(StorageError::Open { .. }) if !files.has_file(rel, fork).map_err(|e| e.to_string())? => break,
                Err(error) => {
                    checked.damaged += 1;
                    let zero = if page.is_zero() { " (all zero)" } else { "" };
                    watch.found(&format!("{error}{zero}"));
                }
            }
        }
    }
    Ok(())
}

fn context(engine: &Arc<Engine>, catalog: &Arc<Catalog>, config: &Arc<Config>, database: (Oid, Arc<str>)) -> SessionContext {
    let cancel = CancelFlag::new();
    let proc = engine.txns().enter(ProcId(1), Arc::clone(&cancel));
    let name: Arc<str> = "afterimage".into();
    let viewer =
        Viewer { database: database.0, user: BOOTSTRAP_ROLE, user_name: Arc::clone(&name), search_path: "".into(), temp_namespace: None };
    let transaction = engine.txns().begin(&proc, TransactionOptions::default());
    let handle = catalog.handle(viewer, &transaction);
    let mut settings = SessionSettings::new(config.current());
    settings.set_superuser(true);
    SessionContext {
        engine: Arc::clone(engine),
        proc,
        cancel,
        transaction: Some(transaction),
        in_block: false,
        config: Arc::clone(config),
        login_user: BOOTSTRAP_ROLE,
        database: database.0,
        database_name: database.1,
        user: BOOTSTRAP_ROLE,
        user_name: Arc::clone(&name),
        session_user: BOOTSTRAP_ROLE,
        session_user_name: name,
        backend_pid: 1,
        settings,
        timeouts_version: 0,
        io: IoSettings::default(),
        catalog: handle,
        sequences: SequenceCache::default(),
        notices: Vec::new(),
        told: 0,
        outlet: None,
        transaction_timestamp: 0,
        statement_timestamp: 0,
        variables: None,
        routines: crate::executor::routine::Routines::default(),
        deferral: crate::executor::deferral::Deferral::default(),
        temp_space: crate::executor::TempSpace::default(),
        on_commit: Vec::new(),
        front_end: &crate::sql::FRONT_END,
        externals: Vec::new(),
    }
}

fn check_databases(engine: &Arc<Engine>, dir: &Path, checked: &mut Checked, watch: &mut dyn Watch) -> Result<(), SqlError> {
    let config = Config::in_memory(dir, &[]).map_err(|e| SqlError::internal(e.to_string()))?;
    let _memory = config.current().bytes(Setting::MaintenanceWorkMem);
    let catalog = Catalog::new(engine.ctx().clone());
    let mut databases: Vec<(Oid, Arc<str>)> = Vec::new();
    {
        let mut ctx = context(engine, &catalog, &config, (TEMPLATE1, "template1".into()));
        for row in ctx.catalog_reader()?.rows(&pg_database::DEF, 0, &[])? {
            databases.push((row.oid(pg_database::oid)?, row.str(pg_database::datname)?.into()));
        }
    }
    let mut shared_done = false;
    for database in databases {
        let name = Arc::clone(&database.1);
        let mut ctx = context(engine, &catalog, &config, database);
        let tables = match verify::tables(&mut ctx) {
            Ok(tables) => tables,
            Err(error) => {
                checked.damaged += 1;
                watch.found(&format!("database \"{name}\": its catalogs cannot be read: {error}"));
                continue;
            }
        };
        for oid in tables {
            match ctx.catalog.relation(oid) {
                Ok(Some(table)) if !table.shared || !shared_done => check_table(&mut ctx, &name, &table, checked, watch),
                Ok(_) => {}
                Err(error) => {
                    checked.damaged += 1;
                    watch.found(&format!("database \"{name}\", relation with OID {oid}: {error}"));
                }
            }
        }
        shared_done = true;
    }
    Ok(())
}

fn check_table(ctx: &mut SessionContext, database: &str, table: &Relation, checked: &mut Checked, watch: &mut dyn Watch) {
    let Some(handle) = table.rel_handle() else { return };
    // A standby has no content of unlogged relations, and nobody has any of temporary ones: their sessions are gone.
    if table.persistence == Persistence::Temporary || (!handle.logged() && ctx.engine.is_in_recovery()) {
        return;
    }
    let shown = format!("database \"{database}\", table \"{}.{}\"", table.namespace_name, table.name);
    checked.tables += 1;
    let blocks = match ctx.engine.pool().n_blocks(handle.file, Fork::Main) {
        Ok(blocks) => blocks.get(),
        Err(error) => {
            checked.damaged += 1;
            return watch.found(&format!("{shown}: {error}"));
        }
    };
    watch.todo(u64::from(blocks));
    let mut unreadable = false;
    for block in (0..blocks).map(BlockNo::new) {
        watch.done(1);
        match verify::check_heap_page(ctx, table, &handle, block) {
            Ok(findings) => {
                for finding in findings {
                    checked.damaged += 1;
                    watch.found(&format!("{shown}, block {block}, offset {}: {}", finding.offset, finding.message));
                }
            }
            // Told with the file already.
            Err(_) => unreadable = true,
        }
    }
    // One that CREATE INDEX CONCURRENTLY or its like did not finish lacks entries, and no query reads it.
    for index in table.indexes.iter().filter(|index| index.valid) {
        checked.indexes += 1;
        // Without the whole table there is nothing to compare with.
        let check = IndexCheck { heap_all_indexed: !unreadable, exclusive: !unreadable };
        if let Err(error) = verify::check_index(ctx, table, index, check) {
            checked.damaged += 1;
            watch.found(&format!("{shown}, index \"{}\": {error}", index.name));
        }
        // A failed check may have taken the transaction along.
        if ctx.transaction.is_none() {
            ctx.transaction = Some(ctx.engine.txns().begin(&ctx.proc, TransactionOptions::default()));
        }
    }
}
