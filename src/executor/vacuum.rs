//! VACUUM and ANALYZE: which tables, each in a transaction of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use afterimage_wal::{Fork, Xid};
use parking_lot::{Condvar, Mutex};
use pg_query::NodeEnum;
use pg_query::protobuf::VacuumStmt;

use super::analyze;
use super::ddl::{nodes, rewrite, table};
use crate::access::heap::{IndexCleanup, VacuumOptions};
use crate::access::vacuum::{TableVacuum, vacuum_table};
use crate::config::Setting;
use crate::executor::SessionContext;
use crate::sql::catalog::load::{CatalogReader, CatalogRow, by};
use crate::sql::catalog::relation::{FIRST_NORMAL_OID, Index, RelKind, Relation};
use crate::sql::catalog::rows;
use crate::sql::catalog::schema::{pg_class, pg_database};
use crate::sql::functions::call::system_clock_micros;
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, VacuumProgress, WaitPolicy, blocking};

/// PostgreSQL: `MAX_PARALLEL_WORKER_LIMIT`.
const MAX_WORKERS: i64 = 1024;

/// What was asked for.
#[derive(Clone, Debug, Default)]
struct Request {
    vacuum: bool,
    analyze: bool,
    verbose: bool,
    full: bool,
    freeze: bool,
    skip_locked: bool,
    all_pages: bool,
    truncate: Option<bool>,
    process_toast: bool,
    index_cleanup: Option<bool>,
    auto: Option<Auto>,
}

impl Request {
    fn parse(stmt: &VacuumStmt, source: &str) -> Result<Self, SqlError> {
        let mut this = Self { vacuum: stmt.is_vacuumcmd, analyze: !stmt.is_vacuumcmd, process_toast: true, ..Self::default() };
        let mut workers = 0;
        for option in nodes::options(&stmt.options) {
            let name = option.defname.as_str();
            let refuse = |message: String| Err(nodes::located(SqlError::new(SqlState::SYNTAX_ERROR, message), source, option.location));
            // ANALYZE has these two only.
            match if this.vacuum || matches!(name, "verbose" | "skip_locked") { name } else { "" } {
                "verbose" => this.verbose = nodes::option_bool(option)?,
                "skip_locked" => this.skip_locked = nodes::option_bool(option)?,
                "analyze" => this.analyze = nodes::option_bool(option)?,
                "full" => this.full = nodes::option_bool(option)?,
                "freeze" => this.freeze = nodes::option_bool(option)?,
                "disable_page_skipping" => this.all_pages = nodes::option_bool(option)?,
                "truncate" => this.truncate = Some(nodes::option_bool(option)?),
                "process_toast" => this.process_toast = nodes::option_bool(option)?,
                "index_cleanup" => {
                    let text = nodes::option_text(option).unwrap_or_default().to_lowercase();
                    this.index_cleanup = if text == "auto" { None } else { Some(nodes::option_bool(option)?) };
                }
                // Indexes are cleaned one after the other, whatever is asked for.
                "parallel" => {
                    if nodes::option_text(option).is_none() {
                        return refuse(format!("parallel option requires a value between 0 and {MAX_WORKERS}"));
                    }
                    workers = nodes::option_int(option)?;
                    if !(0..=MAX_WORKERS).contains(&workers) {
                        return refuse(format!("parallel workers for vacuum must be between 0 and {MAX_WORKERS}"));
                    }
                }
                _ => return refuse(format!("unrecognized {} option \"{name}\"", this.command())),
            }
        }
        let refused = match (this.full, workers > 0, this.all_pages, this.process_toast) {
            (true, true, ..) => "VACUUM FULL cannot be performed in parallel",
            (true, _, true, _) => "VACUUM option DISABLE_PAGE_SKIPPING cannot be used with FULL",
            (true, _, _, false) => "PROCESS_TOAST required with VACUUM FULL",
            _ => return Ok(this),
        };
        Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, refused))
    }

    fn command(&self) -> &'static str {
        if self.vacuum { "VACUUM" } else { "ANALYZE" }
    }
}

/// VACUUM or ANALYZE.
pub(crate) fn run(ctx: &mut SessionContext, stmt: &VacuumStmt, source: &str) -> Result<&'static str, SqlError> {
    let request = Request::parse(stmt, source)?;
    if request.vacuum {
        ctx.prevent_in_block("VACUUM")?;
    }
    if ctx.engine.is_in_recovery() {
        return Err(SqlError::new(SqlState::READ_ONLY_SQL_TRANSACTION, format!("cannot execute {} during recovery", request.command())));
    }
    let targets = targets(ctx, stmt, &request)?;
    // A transaction per table, so that locks and the horizon are let go of in between. ANALYZE in a block keeps the one there is.
    let own_transactions = request.vacuum || !ctx.in_block;
    for Target { oid, name, columns } in targets {
        if own_transactions {
            next_transaction(ctx)?;
        }
        if request.vacuum {
            // What cannot be vacuumed is not analyzed either.
            let Some(done) = vacuum_one(ctx, oid, name.as_deref(), &request)? else { continue };
            if let Some(toast) = done.toast.filter(|_| request.process_toast && !request.full) {
                next_transaction(ctx)?;
                vacuum_one(ctx, toast, None, &request)?;
            }
        }
        if request.analyze {
            if request.vacuum {
                next_transaction(ctx)?;
            }
            analyze_one(ctx, oid, name.as_deref(), &columns, &request)?;
        }
    }
    if request.vacuum {
        update_database(ctx)?;
    }
    if own_transactions {
        next_transaction(ctx)?;
    }
    Ok(request.command())
}

/// Commits what there is and begins anew.
pub(super) fn next_transaction(ctx: &mut SessionContext) -> Result<(), SqlError> {
    if let Some(txn) = ctx.transaction.take() {
        let options = *txn.options();
        let wait = txn.commit(options.level);
        ctx.transaction = Some(ctx.engine.ctx().txns.begin(&ctx.proc, options));
        let wait = wait?;
        if !wait.is_done() {
            let (cancel, txns) = (&ctx.cancel, &ctx.engine.ctx().txns);
            ctx.proc.set_committing(Some(wait.lsn()));
            let waited = blocking(|| wait.wait_unless(cancel, || txns.is_synchronous()));
            ctx.proc.set_committing(None);
            waited?;
        }
    }
    ctx.refresh_catalog();
    Ok(())
}

/// A table to work on.
struct Target {
    oid: Oid,
    /// As the statement names it; nothing is said of others that cannot be had.
    name: Option<String>,
    /// Those to analyze; all if none is named.
    columns: Vec<String>,
}

/// What a vacuum left to do.
struct Vacuumed {
    /// The table of its large values.
    toast: Option<Oid>,
}

/// Tables to work on.
fn targets(ctx: &mut SessionContext, stmt: &VacuumStmt, request: &Request) -> Result<Vec<Target>, SqlError> {
    let mut out = Vec::new();
    for node in &stmt.rels {
        let Some(NodeEnum::VacuumRelation(target)) = &node.node else { continue };
        let range = nodes::relation(target.relation.as_ref())?;
        let (schema, name) = nodes::names(range);
        let relation = ctx.catalog.open_relation(schema, name)?;
        if !matches!(relation.kind, RelKind::Table | RelKind::MatView | RelKind::Toast) {
            let what = if request.vacuum { "vacuum" } else { "analyze" };
            let message = format!("skipping \"{}\" --- cannot {what} non-tables or special system tables", relation.name);
            ctx.warning(SqlState::WARNING, message);
            continue;
        }
        let columns: Vec<String> = nodes::strings(&target.va_cols).into_iter().map(str::to_owned).collect();
        if !columns.is_empty() && request.vacuum && !request.analyze {
            return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "ANALYZE option must be specified when a column list is provided"));
        }
        for (i, column) in columns.iter().enumerate() {
            if relation.column(column).is_none() {
                let message = format!("column \"{column}\" of relation \"{}\" does not exist", relation.name);
                return Err(SqlError::new(SqlState::UNDEFINED_COLUMN, message));
            }
            if columns[..i].contains(column) {
                let message = format!("column \"{column}\" of relation \"{}\" appears more than once", relation.name);
                return Err(SqlError::new(SqlState::DUPLICATE_COLUMN, message));
            }
        }
        if !may_maintain(ctx, &relation)? {
            let what = if request.vacuum { "vacuum" } else { "analyze" };
            let message = format!("skipping \"{}\" --- only table or database owner can {what} it", relation.name);
            ctx.warning(SqlState::WARNING, message);
            continue;
        }
        out.push(Target { oid: relation.oid, name: Some(name.to_owned()), columns });
    }
    if stmt.rels.is_empty() {
        for row in ctx.catalog_reader()?.rows(&pg_class::DEF, 0, &[])? {
            if !matches!(row.char(pg_class::relkind)?, b'r' | b'm') || row.oid(pg_class::relfilenode)? == 0 {
                continue;
            }
            let oid = row.oid(pg_class::oid)?;
            if let Some(relation) = ctx.catalog.relation(oid)?
                && may_maintain(ctx, &relation)?
            {
                out.push(Target { oid, name: None, columns: Vec::new() });
            }
        }
    }
    Ok(out)
}

fn may_maintain(ctx: &SessionContext, relation: &Relation) -> Result<bool, SqlError> {
    if ctx.catalog.has_privileges_of(ctx.user, relation.owner)? {
        return Ok(true);
    }
    let owner = ctx.catalog.database_by_oid(ctx.database)?.map_or(0, |d| d.owner);
    Ok(!relation.shared && ctx.catalog.has_privileges_of(ctx.user, owner)?)
}

/// Locks a target; `None` if it is gone, or locked and to be skipped. PostgreSQL: `vacuum_open_relation`.
fn open(
    ctx: &mut SessionContext,
    oid: Oid,
    name: Option<&str>,
    mode: LockMode,
    request: &Request,
) -> Result<Option<Arc<Relation>>, SqlError> {
    let mut found = ctx.catalog.relation(oid)?;
    if let Some(relation) = &found {
        let wait = if request.skip_locked { WaitPolicy::Skip } else { WaitPolicy::Block };
        if !ctx.lock_oid(oid, relation.shared, mode, wait)? {
            skipped(ctx, request, name, SqlState::LOCK_NOT_AVAILABLE, "lock not available");
            return Ok(None);
        }
        ctx.refresh_catalog();
        found = ctx.catalog.relation(oid)?;
    }
    if found.is_none() {
        skipped(ctx, request, name, SqlState::UNDEFINED_TABLE, "relation no longer exists");
    }
    // Other sessions' temporary tables are theirs; PostgreSQL passes over them silently too.
    Ok(found.filter(|relation| !ctx.catalog.is_other_temporary(relation)))
}

/// Says of a table that the statement names why nothing is done with it.
fn skipped(ctx: &mut SessionContext, request: &Request, name: Option<&str>, state: SqlState, why: &str) {
    if let Some(name) = name {
        let what = if request.vacuum { "vacuum" } else { "analyze" };
        ctx.warning(state, format!("skipping {what} of \"{name}\" --- {why}"));
    }
}

/// Vacuums one table; `None` if it could not be had.
fn vacuum_one(ctx: &mut SessionContext, oid: Oid, name: Option<&str>, request: &Request) -> Result<Option<Vacuumed>, SqlError> {
    let mode = if request.full { LockMode::AccessExclusive } else { LockMode::ShareUpdateExclusive };
    let Some(relation) = open(ctx, oid, name, mode, request)? else { return Ok(None) };
    let Some(handle) = relation.rel_handle() else { return Ok(None) };
    let done_with = Vacuumed { toast: relation.toast.map(|t| t.table.oid) };
    if request.full && !relation.is_system() {
        rewrite::write_anew(ctx, &relation, None, request.verbose)?;
        return Ok(Some(done_with));
    }
    if request.verbose {
        let message = format!("vacuuming \"{}.{}.{}\"", ctx.database_name, relation.namespace_name, relation.name);
        ctx.notices.push(super::context::Notice { severity: "INFO", fields: SqlError::new(SqlState::SUCCESSFUL_COMPLETION, message) });
    }
    // What CREATE or DROP INDEX CONCURRENTLY left as one that nobody maintains is read by nobody before it is made anew.
    let maintained: Vec<_> = relation.indexes.iter().filter(|i| i.ready).cloned().collect();
    let indexes: Vec<_> = maintained.iter().map(|i| relation.index_handle(i)).collect();
    let own = ctx
        .settings
        .bytes(Setting::AutovacuumWorkMem)
        .filter(|_| request.auto.is_some() && ctx.settings.int(Setting::AutovacuumWorkMem) > 0);
    let memory = own.or_else(|| ctx.settings.bytes(Setting::MaintenanceWorkMem)).unwrap_or(64 << 20);
    // Against CREATE DATABASE, which copies what is frozen here with what says so.
    let database = ctx.database;
    ctx.lock_object(true, pg_database::ID, database, LockMode::RowExclusive)?;
    let txns = ctx.engine.ctx().txns.clone();
    txns.settle()?;
    let was_frozen = frozen_xid(ctx, oid)?;
    let next = txns.next_xid().as_u64();
    let age = |s: Setting| u64::try_from(ctx.settings.int(s)).unwrap_or(0);
    // Pages that the map calls all-visible are looked at again once the table's oldest xid is old.
    let table_age = age(Setting::VacuumFreezeTableAge).min(age(Setting::AutovacuumFreezeMaxAge) / 20 * 19);
    let old = request.freeze || next.saturating_sub(was_frozen.as_u64()) >= table_age;
    let freeze_below = if request.freeze {
        txns.settled_floor()
    } else {
        Xid::from_u64(next.saturating_sub(age(Setting::VacuumFreezeMinAge).min(age(Setting::AutovacuumFreezeMaxAge) / 2)))
    };
    let options = VacuumOptions {
        all_pages: request.all_pages,
        aggressive: old,
        freeze_below,
        // Who writes to catalogs does not lock them: a page that is cut off may just have got a row.
        truncate: !relation.is_system() && request.truncate.unwrap_or_else(|| relation.bool_option("vacuum_truncate") != Some(false)),
        max_dead: usize::try_from(memory / 8).unwrap_or(1 << 20).max(1 << 16),
        // AUTO is no boolean.
        index_cleanup: match request.index_cleanup.or_else(|| relation.bool_option("vacuum_index_cleanup")) {
            Some(true) => IndexCleanup::On,
            Some(false) => IndexCleanup::Off,
            None => IndexCleanup::Auto,
        },
    };
    let access = ctx.access();
    let watch = Stopwatch::start();
    let mut pace = Pace::new(ctx, request);
    let mut last = VacuumProgress::default();
    let txn = ctx.transaction.take().ok_or_else(|| SqlError::internal("no transaction"))?;
    let stats = access.txns.table_stats();
    let id = ctx.proc.id();
    let done = blocking(|| {
        vacuum_table(&access, &txn, &handle, &indexes, options, &mut |progress| {
            last = *progress;
            stats.set_progress(id, Some(last));
            pace.keep(progress);
            Ok(txn.check_cancel()?)
        })
    });
    stats.set_progress(id, None);
    ctx.transaction = Some(txn);
    let done = done?;
    let frozen = done.heap.frozen_below().filter(|xid| *xid > was_frozen);
    let tuples = estimate(relation.rel_pages, relation.rel_tuples, done.heap.pages, done.heap.scanned, done.heap.live_rows);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
    let live = if relation.is_system() { done.heap.live_rows } else { tuples.max(0.0) as u64 };
    let now = u64::try_from(system_clock_micros()).unwrap_or(0);
    access.txns.table_stats().vacuumed(handle.stats_key(), live, done.heap.recently_dead, request.auto.is_some(), now);
    let logged = request.auto.is_some_and(|a| a.log_above.is_some_and(|limit| watch.began.elapsed() >= limit));
    if request.verbose || logged {
        let name = format!("{}.{}.{}", ctx.database_name, relation.namespace_name, relation.name);
        let text = report(ctx, &maintained, &done, &options, &last, live, frozen.map(|xid| (xid, was_frozen)), &watch);
        if logged {
            tracing::info!("automatic vacuum of table \"{name}\": {text}");
        } else {
            let message = format!("finished vacuuming \"{name}\": {text}");
            ctx.notices.push(super::context::Notice { severity: "INFO", fields: SqlError::new(SqlState::SUCCESSFUL_COMPLETION, message) });
        }
    }
    if relation.is_system() {
        // Catalogs are described by compiled-in descriptors; nobody plans by their counts.
        if let Some(xid) = frozen.filter(|_| old) {
            table::update_class(ctx, oid, &table::frozen_at(xid))?;
        }
        return Ok(Some(done_with));
    }
    if let Some(xid) = frozen {
        table::update_class(ctx, oid, &table::frozen_at(xid))?;
    }
    store_counts(ctx, oid, done.heap.pages - done.heap.truncated, tuples, Some(done.heap.all_visible))?;
    for (i, index) in maintained.iter().enumerate() {
        let stats = done.indexes.as_ref().and_then(|list| list.get(i));
        let pages = match stats {
            Some(stats) => stats.pages,
            None => ctx.engine.pool().n_blocks(index.file, Fork::Main)?.get(),
        };
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let tuples = stats.map_or(tuples, |s| s.entries as f32);
        store_counts(ctx, index.oid, pages, tuples, None)?;
    }
    ctx.relation_changed(oid)?;
    Ok(Some(done_with))
}

/// Below which xid no version in a table needs a status, as `pg_class` says; INVALID for what is no table.
pub(crate) fn frozen_xid(ctx: &mut SessionContext, oid: Oid) -> Result<Xid, SqlError> {
    let row = ctx.catalog_reader()?.row(&pg_class::DEF, by::CLASS_OID, &[Datum::Oid(oid)])?;
    row.map_or(Ok(Xid::INVALID), |row| frozen_of(&row))
}

/// The same of a row of `pg_class`.
pub(crate) fn frozen_of(row: &CatalogRow) -> Result<Xid, SqlError> {
    Ok(rows::xid_of_halves(row.oid(pg_class::relfrozenxid)?, row.oid(pg_class::relminmxid)?))
}

/// Raises this database's `datfrozenxid` to the least of its tables', and forgets statuses that no database needs. Begins a transaction of its
/// own and leaves one.
///
/// PostgreSQL: `vac_update_datfrozenxid`, `vac_truncate_clog` in commands/vacuum.c.
pub(crate) fn update_database(ctx: &mut SessionContext) -> Result<(), SqlError> {
    next_transaction(ctx)?;
    let database = ctx.database;
    // One at a time, and none while the database is being copied.
    ctx.lock_object(true, pg_database::ID, database, LockMode::ShareUpdateExclusive)?;
    let mut oldest: Option<Xid> = None;
    for row in ctx.catalog_reader()?.rows(&pg_class::DEF, 0, &[])? {
        let (oid, xid) = (row.oid(pg_class::oid)?, frozen_of(&row)?);
        // Some catalogs are built in: they have no versions.
        let built_in = oid < FIRST_NORMAL_OID && ctx.catalog.relation(oid)?.is_some_and(|r| r.file().is_none());
        if xid.is_valid() && !built_in {
            oldest = Some(oldest.map_or(xid, |o| o.min(xid)));
        }
    }
    let row = ctx.catalog_reader()?.row(&pg_database::DEF, by::DATABASE_OID, &[Datum::Oid(database)])?;
    let (Some(oldest), Some(row)) = (oldest, row) else { return Ok(()) };
    let known = |row: &CatalogRow| -> Result<Xid, SqlError> {
        Ok(rows::xid_of_halves(row.oid(pg_database::datfrozenxid)?, row.oid(pg_database::datminmxid)?))
    };
    let key = [Datum::Oid(database)];
    if oldest <= known(&row)? {
        // As PostgreSQL, which finds that out last.
        return ctx.set_in_place(&pg_database::DEF, by::DATABASE_OID, &key, &[]);
    }
    let [frozen, half] = rows::xid_halves(oldest);
    // In place, after whoever grants rights on the database: the two are no versions of each other.
    let changes = [(pg_database::datfrozenxid, frozen), (pg_database::datminmxid, half)];
    ctx.set_in_place(&pg_database::DEF, by::DATABASE_OID, &key, &changes)?;
    ctx.databases_changed()?;
    next_transaction(ctx)?;
    let mut oldest = oldest;
    for row in ctx.catalog_reader()?.rows(&pg_database::DEF, 0, &[])? {
        oldest = oldest.min(known(&row)?);
    }
    Ok(ctx.engine.ctx().txns.trim_status(oldest)?)
}

/// What a vacuum did, in PostgreSQL's words. PostgreSQL: `heap_vacuum_rel` in access/heap/vacuumlazy.c.
#[expect(clippy::too_many_arguments, reason = "all that the text tells, for its one caller")]
fn report(
    ctx: &SessionContext,
    indexes: &[Arc<Index>],
    done: &TableVacuum,
    options: &VacuumOptions,
    last: &VacuumProgress,
    live: u64,
    frozen: Option<(Xid, Xid)>,
    watch: &Stopwatch,
) -> String {
    let heap = &done.heap;
    // Of no pages all are scanned.
    let percent = |n: u32| if heap.pages == 0 { 100.0 } else { f64::from(n) * 100.0 / f64::from(heap.pages) };
    let txns = &ctx.engine.ctx().txns;
    let cutoff = txns.settled_floor();
    let age = txns.next_xid().as_u64().saturating_sub(cutoff.as_u64());
    let mut text = format!(
        "index scans: {}\npages: {} removed, {} remain, {} scanned ({:.2}% of total)\ntuples: {} removed, {} remain, {} are dead but not yet \
         removable\nremovable cutoff: {cutoff}, which was {age} XIDs old when operation ended\n",
        if indexes.is_empty() { 0 } else { heap.index_passes },
        heap.truncated,
        heap.pages - heap.truncated,
        heap.scanned,
        percent(heap.scanned),
        heap.tuples_removed,
        live,
        heap.recently_dead,
    );
    if let Some((xid, was)) = frozen {
        text.push_str(&format!("new relfrozenxid: {xid}, which is {} XIDs ahead of previous value\n", xid.as_u64() - was.as_u64()));
    }
    let (word, verb, items) = if options.index_cleanup == IndexCleanup::Off || heap.bypassed {
        ("bypassed", "have", String::new())
    } else if indexes.is_empty() || heap.index_passes == 0 {
        ("not needed", "had", " removed".to_owned())
    } else {
        ("needed", "had", " removed".to_owned())
    };
    text.push_str(&format!(
        "index scan {word}: {} pages from table ({:.2}% of total) {verb} {} dead item identifiers{items}\n",
        heap.pages_with_dead,
        percent(heap.pages_with_dead),
        heap.dead_items,
    ));
    for (index, stats) in indexes.iter().zip(done.indexes.iter().flatten()) {
        text.push_str(&format!(
            "index \"{}\": pages: {} in total, {} newly deleted, {} currently deleted, {} reusable\n",
            index.name, stats.pages, stats.pages_deleted, stats.pages_free, stats.pages_free
        ));
    }
    let seconds = watch.began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = |pages: u64| if seconds > 0.0 { pages as f64 * 8192.0 / (1024.0 * 1024.0) / seconds } else { 0.0 };
    text.push_str(&format!(
        "avg read rate: {:.3} MB/s, avg write rate: {:.3} MB/s\nbuffer usage: {} hits, {} misses, {} dirtied\nsystem usage: {}",
        rate(last.misses),
        rate(last.dirtied),
        last.hits,
        last.misses,
        last.dirtied,
        watch.times(),
    ));
    text
}

/// Since when a command of this thread runs.
pub(crate) struct Stopwatch {
    began: Instant,
    /// Seconds of CPU before, in user mode and in the kernel.
    cpu: (f64, f64),
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now(), cpu: cpu_times() }
    }

    /// `CPU: user: 0.00 s, system: 0.00 s, elapsed: 0.00 s`
    pub(crate) fn times(&self) -> String {
        let (seconds, now) = (self.began.elapsed().as_secs_f64(), cpu_times());
        format!("CPU: user: {:.2} s, system: {:.2} s, elapsed: {seconds:.2} s", now.0 - self.cpu.0, now.1 - self.cpu.1)
    }
}

/// Seconds this thread has run, in user mode and in the kernel.
fn cpu_times() -> (f64, f64) {
    // In hundredths; the name before them may hold blanks, but ends with the last parenthesis.
    let text = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    let fields = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let mut ticks = fields.split(' ').skip(11).map(|f| f.parse::<f64>().unwrap_or(0.0) / 100.0);
    (ticks.next().unwrap_or(0.0), ticks.next().unwrap_or(0.0))
}

/// Slows a vacuum down to its budget. PostgreSQL: `vacuum_delay_point`.
struct Pace {
    delay: Duration,
    limit: u64,
    hit: u64,
    miss: u64,
    dirty: u64,
    /// Cost up to the last rest.
    paid: u64,
}

impl Pace {
    fn new(ctx: &SessionContext, request: &Request) -> Self {
        let cost = |s: Setting| u64::try_from(ctx.settings.int(s)).unwrap_or(0);
        let (delay, limit) = match request.auto {
            Some(auto) => (auto.cost_delay, auto.cost_limit),
            None => (ctx.settings.real(Setting::VacuumCostDelay), cost(Setting::VacuumCostLimit)),
        };
        Self {
            delay: Duration::from_secs_f64(delay.max(0.0) / 1000.0),
            limit: limit.max(1),
            hit: cost(Setting::VacuumCostPageHit),
            miss: cost(Setting::VacuumCostPageMiss),
            dirty: cost(Setting::VacuumCostPageDirty),
            paid: 0,
        }
    }

    fn keep(&mut self, p: &VacuumProgress) {
        if self.delay.is_zero() {
            return;
        }
        let cost = p.hits * self.hit + p.misses * self.miss + p.dirtied * self.dirty;
        let due = cost.saturating_sub(self.paid);
        if due >= self.limit {
            self.paid = cost;
            #[expect(clippy::cast_precision_loss, reason = "a ratio")]
            let rest = self.delay.mul_f64((due as f64 / self.limit as f64).min(4.0));
            let (lock, nobody) = (Mutex::new(()), Condvar::new());
            // Not a wait for an event: the budget itself is time.
            nobody.wait_for(&mut lock.lock(), rest);
        }
    }
}

/// How autovacuum works on a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Auto {
    /// Vacuum it.
    pub(crate) vacuum: bool,
    /// Analyze it.
    pub(crate) analyze: bool,
    /// Milliseconds to rest.
    pub(crate) cost_delay: f64,
    /// Cost after which to rest.
    pub(crate) cost_limit: u64,
    /// Work that takes longer is logged.
    pub(crate) log_above: Option<Duration>,
}

/// Autovacuum's work on one table. The caller begins a transaction before and ends the one there is after.
pub(crate) fn auto(ctx: &mut SessionContext, oid: Oid, work: Auto) -> Result<(), SqlError> {
    let request = Request {
        vacuum: work.vacuum,
        analyze: work.analyze,
        // Who holds the table is busy with it; it is looked at again next time.
        skip_locked: true,
        process_toast: false,
        auto: Some(work),
        ..Request::default()
    };
    if work.vacuum {
        vacuum_one(ctx, oid, None, &request)?;
        next_transaction(ctx)?;
    }
    if work.analyze {
        analyze_one(ctx, oid, None, &[], &request)?;
    }
    Ok(())
}

/// Rows in all, from those on the blocks looked at. PostgreSQL: `vac_estimate_reltuples`.
fn estimate(old_pages: u32, old_tuples: f32, pages: u32, scanned: u32, found: u64) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let (found, rest) = (found as f32, pages.saturating_sub(scanned) as f32);
    if scanned >= pages || old_pages == 0 || old_tuples < 0.0 {
        if scanned == 0 || scanned >= pages {
            return found;
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let density = found / scanned as f32;
        return (found + density * rest).round();
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let density = old_tuples / old_pages as f32;
    (found + density * rest).round()
}

/// Stores what the planner goes by, if it changed.
pub(super) fn store_counts(ctx: &mut SessionContext, oid: Oid, pages: u32, tuples: f32, all_visible: Option<u32>) -> Result<(), SqlError> {
    let int4 = |n: u32| Datum::Int4(i32::try_from(n).unwrap_or(i32::MAX));
    let mut changes = vec![(pg_class::relpages, int4(pages)), (pg_class::reltuples, Datum::Float4(tuples))];
    if let Some(n) = all_visible {
        changes.push((pg_class::relallvisible, int4(n)));
    }
    table::update_class(ctx, oid, &changes)
}

fn analyze_one(ctx: &mut SessionContext, oid: Oid, name: Option<&str>, columns: &[String], request: &Request) -> Result<(), SqlError> {
    let request = Request { vacuum: false, ..request.clone() };
    let Some(relation) = open(ctx, oid, name, LockMode::ShareUpdateExclusive, &request)? else { return Ok(()) };
    if relation.is_system() {
        return Ok(());
    }
    if request.verbose {
        let message = format!("analyzing \"{}.{}\"", relation.namespace_name, relation.name);
        ctx.notices.push(super::context::Notice { severity: "INFO", fields: SqlError::new(SqlState::SUCCESSFUL_COMPLETION, message) });
    }
    let watch = Stopwatch::start();
    let found = analyze::run(ctx, &relation, columns)?;
    let Some(handle) = relation.rel_handle() else { return Ok(()) };
    let stats = ctx.engine.ctx().txns.table_stats();
    let dead = stats.get(handle.stats_key()).map_or(0, |t| t.n_dead_tup);
    stats.analyzed(handle.stats_key(), found.rows, dead, request.auto.is_some(), u64::try_from(system_clock_micros()).unwrap_or(0));
    if request.verbose {
        let message = format!(
            "\"{}\": scanned {pages} of {pages} pages, containing {} live rows and {dead} dead rows; {} rows in sample, {} estimated total rows",
            relation.name,
            found.rows,
            found.sampled,
            found.rows,
            pages = found.pages,
        );
        ctx.notices.push(super::context::Notice { severity: "INFO", fields: SqlError::new(SqlState::SUCCESSFUL_COMPLETION, message) });
    }
    if request.auto.is_some_and(|a| a.log_above.is_some_and(|limit| watch.began.elapsed() >= limit)) {
        let name = format!("{}.{}.{}", ctx.database_name, relation.namespace_name, relation.name);
        tracing::info!("automatic analyze of table \"{name}\"\nsystem usage: {}", watch.times());
    }
    Ok(())
}
