//! The server process: recovers, listens, serves, reloads, stops.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use afterimage_wal::TimelineId;
use afterimage_wal::control_file::Parameters;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rand::RngCore as _;
use rustix::process::Signal;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::watch;

use super::hba::Hba;
use super::listener;
use super::registry::Registry;
use super::{functions, views};
use crate::config::{Config, Setting, Settings};
use crate::control::log::{self, Entry, Level};
use crate::control::node_state::{NodeState, State};
use crate::control::pid_file::{self, Status};
use crate::control::supervisor::{self, Invocation, Leash, exit};
use crate::engine::{CheckpointSettings, Engine, EngineError, EngineOptions, ShutdownMode};
use crate::executor::ExternalFunctions;
use crate::recovery::RecoveryError;
use crate::recovery::restore::Commands;
use crate::recovery::start::RecoveryOptions;
use crate::recovery::target::{Action, Goal, Target, TimelineGoal};
use crate::recovery::{PrefetchSettings, ReplaySettings};
use crate::replication::Replication;
use crate::replication::services::Verdict;
use crate::sql::PlanCache;
use crate::sql::catalog::Catalog;
use crate::sql::types::IoSettings;
use crate::sql::types::datetime::parse_timestamptz;
use crate::stack;
use crate::storage::PoolOptions;
use crate::txn::{CancelReason, LockManager, MarkLimits};

/// What exists once the engine is open.
pub struct Services {
    /// Storage, WAL, transactions.
    pub engine: Arc<Engine>,
    /// Catalogs.
    pub catalog: Arc<Catalog>,
    /// Senders, receiver, slots.
    pub replication: Arc<Replication>,
    /// Functions of the upper layers.
    pub externals: Vec<Arc<dyn ExternalFunctions>>,
    /// Plans of simple queries.
    pub plans: Arc<PlanCache>,
}

/// How far a stop has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stopping {
    /// Not at all.
    No,
    /// No new sessions; those there may finish.
    Smart,
    /// Sessions are ended.
    Fast,
}

/// One server: what its sessions share.
pub struct Server {
    /// Settings.
    pub config: Arc<Config>,
    /// Who is connected.
    pub registry: Arc<Registry>,
    /// What the node is doing.
    pub node: Arc<NodeState>,
    pub(super) hba: ArcSwap<Hba>,
    /// Makes exchanges with unknown users look like those with known ones.
    pub(super) secret: [u8; 32],
    services: OnceLock<Services>,
    stopping: watch::Sender<Stopping>,
    /// When the server started, microseconds since 2000.
    pub started: i64,
    /// When the settings were last loaded, microseconds since 2000.
    pub loaded: Mutex<i64>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("node", &self.node.get()).finish_non_exhaustive()
    }
}

impl Server {
    /// What exists once the engine is open; before that, why a client cannot be served.
    pub(super) fn services(&self) -> Result<&Services, &'static str> {
        if *self.stopping.borrow() > Stopping::No {
            return Err("the database system is shutting down");
        }
        let state = self.node.get();
        if let Some(refusal) = state.refusal() {
            return Err(refusal);
        }
        if state.in_recovery() && !self.config.current().bool(Setting::HotStandby) {
            return Err("the database system is not accepting connections");
        }
        self.services.get().ok_or("the database system is starting up")
    }

    /// What exists once the engine is open, whatever the node is doing.
    pub(super) fn services_even_if_stopping(&self) -> Option<&Services> {
        self.services.get()
    }

    /// Told when a stop begins.
    pub(super) fn subscribe_stopping(&self) -> watch::Receiver<Stopping> {
        self.stopping.subscribe()
    }

    /// Reads the settings and the authentication rules again.
    pub fn reload(&self) {
        say(Level::Log, "received SIGHUP, reloading configuration files");
        match self.config.reload() {
            Ok(report) => {
                *self.loaded.lock() = super::registry::now();
                for line in &report.changes {
                    say(Level::Log, line);
                }
                for line in &report.problems {
                    say(Level::Log, line);
                }
                if !report.problems.is_empty() {
                    let file = self.config.config_file().display();
                    say(Level::Log, &format!("configuration file \"{file}\" contains errors; unaffected changes were applied"));
                }
                let settings = self.config.current();
                log::configure(&settings);
                if let Some(services) = self.services.get() {
                    services.engine.set_checkpoint_settings(checkpoint_settings(&settings));
                    set_mark_limits(&services.engine, &settings);
                    services.engine.set_recovery_settings(recovery_commands(&settings), replay_settings(&settings));
                }
            }
            Err(e) => {
                if let crate::config::ConfigError::Values { problems, .. } = &e {
                    for problem in problems {
                        say(Level::Log, problem);
                    }
                }
                say(Level::Log, &format!("{e}; no changes were applied"));
            }
        }
        match load_hba(&self.config.current()) {
            Ok(hba) => self.hba.store(Arc::new(hba)),
            Err(problems) => {
                for problem in problems {
                    say(Level::Log, &problem);
                }
                say(Level::Log, "pg_hba.conf was not reloaded");
            }
        }
    }
}

fn say(level: Level, message: &str) {
    log::emit(None, &Entry::new(level, message));
}

fn load_hba(settings: &Settings) -> Result<Hba, Vec<String>> {
    Hba::load(&PathBuf::from(settings.str(Setting::HbaFile)), &PathBuf::from(settings.str(Setting::IdentFile)))
}

/// The engine's options from the settings.
fn engine_options(settings: &Settings, node: Arc<NodeState>) -> Result<EngineOptions, Failed> {
    let buffers = usize::try_from(settings.int(Setting::SharedBuffers)).unwrap_or(16_384);
    let mut options = EngineOptions {
        pool: PoolOptions { buffers },
        checkpoint: checkpoint_settings(settings),
        node,
        // Slots are read once the engine is there.
        hold_wal: true,
        recovery: RecoveryOptions {
            asks_for_pages: !settings.str(Setting::PrimaryConninfo).is_empty(),
            ignore_wal_damage: settings.bool(Setting::IgnoreWalDamage),
            goal: recovery_goal(settings)?,
            commands: recovery_commands(settings),
            replay: replay_settings(settings),
        },
        parameters: Some(parameters(settings)),
        ..EngineOptions::default()
    };
    options.startup_progress = settings.duration(Setting::LogStartupProgressInterval).filter(|d| !d.is_zero());
    if let Some(delay) = settings.duration(Setting::WalWriterDelay) {
        options.wal.writer_delay = delay;
    }
    Ok(options)
}

/// `recovery_target*`. PostgreSQL: the check and assign hooks in access/transam/xlogrecovery.c.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
fn recovery_goal(settings: &Settings) -> Result<Goal, Failed> {
    let invalid = |name: &str, value: &str| Failed { message: format!("invalid value for parameter \"{name}\": \"{value}\""), hint: None };
    let mut targets = Vec::new();
    for setting in [
        Setting::RecoveryTarget,
        Setting::RecoveryTargetXid,
        Setting::RecoveryTargetTime,
        Setting::RecoveryTargetName,
        Setting::RecoveryTargetLsn,
    ] {
        let value = settings.str(setting);
        if value.is_empty() {
            continue;
        }
        let target = match setting {
            Setting::RecoveryTarget if value == "immediate" => Some(Target::Immediate),
            Setting::RecoveryTargetXid => value.parse().ok().map(Target::Xid),
            Setting::RecoveryTargetTime => {
                let zone = settings.str(Setting::TimeZone);
                let time_zone = jiff::tz::TimeZone::get(zone).map_err(|_| invalid("TimeZone", zone))?;
                let io = IoSettings { time_zone, time_zone_name: zone.into(), ..IoSettings::default() };
                parse_timestamptz(value, &io).ok().map(Target::Time)
            }
            Setting::RecoveryTargetName => Some(Target::Name(value.to_owned())).filter(|_| value.len() < 64),
            Setting::RecoveryTargetLsn => value.parse().ok().map(Target::Lsn),
            _ => None,
        };
        targets.push(target.ok_or_else(|| invalid(setting.def().name, value))?);
    }
    if targets.len() > 1 {
        return Err(Failed {
            message:
                "multiple recovery targets specified\nDETAIL:  At most one of recovery_target, recovery_target_lsn, recovery_target_name, \
                      recovery_target_time, recovery_target_xid may be set."
                    .to_owned(),
            hint: None,
        });
    }
    let timeline = match settings.str(Setting::RecoveryTargetTimeline) {
        "latest" | "" => TimelineGoal::Latest,
        "current" => TimelineGoal::Current,
        number => number
            .parse()
            .ok()
            .filter(|tli| *tli > 0)
            .map(|tli| TimelineGoal::Id(TimelineId::new(tli)))
            .ok_or_else(|| invalid("recovery_target_timeline", number))?,
    };
    let action = match settings.str(Setting::RecoveryTargetAction) {
        "promote" => Action::Promote,
        "shutdown" => Action::Shutdown,
        // Nobody could connect to resume.
        _ if !settings.bool(Setting::HotStandby) => Action::Shutdown,
        _ => Action::Pause,
    };
    Ok(Goal { target: targets.pop(), exclusive: !settings.bool(Setting::RecoveryTargetInclusive), action, timeline })
}

fn recovery_commands(settings: &Settings) -> Commands {
    Commands {
        restore: crate::replication::location::restore_command(settings),
        end: settings.str(Setting::RecoveryEndCommand).to_owned(),
        cleanup: settings.str(Setting::ArchiveCleanupCommand).to_owned(),
        archive_always: settings.str(Setting::ArchiveMode) == "always",
    }
}

fn replay_settings(settings: &Settings) -> ReplaySettings {
    ReplaySettings {
        min_apply_delay: settings.duration(Setting::RecoveryMinApplyDelay).unwrap_or_default(),
        // -1: as long as it takes.
        streaming_delay: settings.duration(Setting::MaxStandbyStreamingDelay),
        archive_delay: settings.duration(Setting::MaxStandbyArchiveDelay),
        deadlock_timeout: settings.duration(Setting::DeadlockTimeout).unwrap_or(LockManager::DEADLOCK_TIMEOUT),
        log_conflict_waits: settings.bool(Setting::LogRecoveryConflictWaits),
        prefetch: PrefetchSettings {
            enabled: settings.str(Setting::RecoveryPrefetch) != "off",
            io_concurrency: usize::try_from(settings.int(Setting::MaintenanceIoConcurrency)).unwrap_or(0),
            decode_bytes: u64::try_from(settings.int(Setting::WalDecodeBufferSize)).unwrap_or(0),
        },
    }
}

fn parameters(settings: &Settings) -> Parameters {
    let number = |setting| u32::try_from(settings.int(setting)).unwrap_or(0);
    Parameters {
        wal_level: match settings.str(Setting::WalLevel) {
            "minimal" => 0,
            "logical" => 2,
            _ => 1,
        },
        wal_log_hints: settings.bool(Setting::WalLogHints),
        max_connections: number(Setting::MaxConnections),
        max_worker_processes: number(Setting::MaxWorkerProcesses),
        max_wal_senders: number(Setting::MaxWalSenders),
        max_prepared_xacts: number(Setting::MaxPreparedTransactions),
        max_locks_per_xact: number(Setting::MaxLocksPerTransaction),
        track_commit_timestamp: settings.bool(Setting::TrackCommitTimestamp),
    }
}

/// When what serializable transactions have read is kept by the page, or by the table.
fn set_mark_limits(engine: &Engine, settings: &Settings) {
    let int = |s: Setting| settings.int(s);
    let limits = MarkLimits::from_settings(
        int(Setting::MaxPredLocksPerPage),
        int(Setting::MaxPredLocksPerRelation),
        int(Setting::MaxPredLocksPerTransaction),
    );
    engine.ctx().txns.serializable().set_limits(limits);
}

fn checkpoint_settings(settings: &Settings) -> CheckpointSettings {
    CheckpointSettings {
        timeout: settings.checkpoint_timeout(),
        max_wal_bytes: settings.max_wal_size(),
        wal_keep_bytes: settings.wal_keep_size(),
        completion_target: settings.checkpoint_completion_target(),
        warning: settings.duration(Setting::CheckpointWarning).unwrap_or(Duration::from_secs(30)),
        log: settings.bool(Setting::LogCheckpoints),
    }
}

/// Runs the server process under the supervisor; the result is its exit code.
pub fn run(invocation: &Invocation, supervisor: i32) -> u8 {
    log::install();
    let leash = match Leash::take(supervisor) {
        Ok(leash) => leash,
        Err(e) => {
            say(Level::Fatal, &format!("could not start under the supervisor: {e}"));
            return exit::FATAL;
        }
    };
    if let Err((message, _)) = supervisor::check_data_dir(&invocation.data_dir) {
        say(Level::Fatal, &message);
        return exit::FATAL;
    }
    let config = match Config::load(&invocation.data_dir, invocation.settings.clone()) {
        Ok(config) => config,
        Err(e) => {
            supervisor::report_config_error(&e);
            return exit::FATAL;
        }
    };
    log::configure(&config.current());
    if config.current().bool(Setting::LoggingCollector)
        && let Err(e) = log::collect(&config.current(), &invocation.data_dir, false)
    {
        say(Level::Fatal, &format!("could not open log file: {e}"));
        return exit::FATAL;
    }
    std::panic::set_hook(Box::new(|info| {
        let text = format!("panic: {info}");
        let backtrace = std::backtrace::Backtrace::force_capture().to_string();
        let mut entry = Entry::new(Level::Log, &text);
        entry.detail = Some(&backtrace);
        log::emit(None, &entry);
    }));
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("session")
        .thread_stack_size(stack::SESSION_BYTES)
        .on_thread_start(|| stack::begin(stack::SESSION_BYTES))
        // A session that waits for a lock keeps a thread; if these could run out, whoever holds the lock might never run again.
        .max_blocking_threads(1 << 16)
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            say(Level::Fatal, &format!("could not start threads: {e}"));
            return exit::FATAL;
        }
    };
    let code = match runtime.block_on(serve(config, leash)) {
        Ok(code) => code,
        Err(Failed { message, hint }) => {
            let mut entry = Entry::new(Level::Fatal, &message);
            entry.hint = hint.as_deref();
            log::emit(None, &entry);
            exit::FATAL
        }
    };
    // Tasks that are left have nothing to finish; a blocked one must not hold up the stop.
    runtime.shutdown_background();
    code
}

/// Why the server could not start.
struct Failed {
    message: String,
    hint: Option<String>,
}

impl From<std::io::Error> for Failed {
    fn from(e: std::io::Error) -> Self {
        Self { message: format!("could not start: {e}"), hint: None }
    }
}

struct Signals {
    term: SignalStream,
    int: SignalStream,
    quit: SignalStream,
    hup: SignalStream,
    usr1: SignalStream,
}

async fn serve(config: Arc<Config>, leash: Leash) -> Result<u8, Failed> {
    // Before anything else, so that no signal kills a process that could have stopped in order.
    let signals = Signals {
        term: signal(SignalKind::terminate())?,
        int: signal(SignalKind::interrupt())?,
        quit: signal(SignalKind::quit())?,
        hup: signal(SignalKind::hangup())?,
        usr1: signal(SignalKind::user_defined1())?,
    };
    let _pipe = signal(SignalKind::pipe())?;
    let settings = config.current();
    let data_dir = config.data_dir().to_owned();
    say(Level::Log, &format!("starting PostgreSQL {} on {}", super::POSTGRES_VERSION, std::env::consts::ARCH));
    let mut listeners = listener::bind(&settings, &data_dir, leash.supervisor).map_err(|(message, hint)| Failed { message, hint })?;
    let registry = Arc::new(Registry::default());
    // Where PostgreSQL has its shared memory: by this `pg_ctl kill` tells whose a session is.
    let numbers = format!("{:>9} {:>9}", registry.first(), 0);
    for (number, text) in [(5, listeners.first_directory.as_str()), (6, &listeners.first_address), (7, &numbers)] {
        pid_file::set_line(&data_dir, number, text)?;
    }
    pid_file::set_status(&data_dir, Status::Starting)?;
    let hba = load_hba(&settings).map_err(|problems| {
        for problem in &problems {
            say(Level::Log, problem);
        }
        Failed { message: format!("could not load {}", settings.str(Setting::HbaFile)), hint: None }
    })?;
    let mut secret = [0_u8; 32];
    rand::rng().fill_bytes(&mut secret);
    let now = super::registry::now();
    let server = Arc::new(Server {
        config,
        registry,
        node: Arc::new(NodeState::default()),
        hba: ArcSwap::from_pointee(hba),
        secret,
        services: OnceLock::new(),
        stopping: watch::Sender::new(Stopping::No),
        started: now,
        loaded: Mutex::new(now),
    });
    listeners.accept(&server);
    run_until_stopped(&server, signals, &leash).await
}

/// A promotion or anything else the engine does on request, off the async threads.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(f).await.ok()
}

async fn run_until_stopped(server: &Arc<Server>, mut signals: Signals, leash: &Leash) -> Result<u8, Failed> {
    let data_dir = server.config.data_dir().to_owned();
    let mut states = server.node.subscribe();
    let options = engine_options(&server.config.current(), Arc::clone(&server.node))?;
    let opening_dir = data_dir.clone();
    let config = Arc::clone(&server.config);
    let mut opening = Some(tokio::spawn(async move {
        crate::replication::first_wal::fetch(config).await;
        tokio::task::spawn_blocking(move || Engine::open(&opening_dir, options)).await
    }));
    let mut told: Option<State> = None;
    let mut ended: Option<tokio::task::JoinHandle<Result<(), EngineError>>> = None;
    let mut verdict = None;
    loop {
        tell_state(server, leash, &mut told)?;
        tokio::select! {
            opened = join(&mut opening), if opening.is_some() => {
                opening = None;
                match opened {
                    Some(Ok(Ok(Ok(engine)))) => {
                        start_services(server, engine)?;
                        verdict = server.services.get().map(|services| services.replication.verdict());
                    }
                    Some(Ok(Ok(Err(e)))) => return Err(refused(&e)),
                    Some(Ok(Err(e)) | Err(e)) => return Err(Failed { message: format!("recovery ended unexpectedly: {e}"), hint: None }),
                    None => {}
                }
            }
            changed = states.changed() => {
                if changed.is_err() || server.node.get() == State::Failed {
                    // A start that is refused says why itself.
                    if let Some(Ok(Ok(Err(e)))) = join(&mut opening).await {
                        return Err(refused(&e));
                    }
                    say(Level::Panic, "the storage engine failed");
                    std::process::abort();
                }
            }
            given = wait_for_verdict(&mut verdict), if verdict.is_some() => {
                verdict = None;
                match given {
                    Some(Verdict::Fatal(message)) => {
                        say(Level::Fatal, &message);
                        return Ok(exit::RECOVERY);
                    }
                    Some(Verdict::Shutdown) => {
                        say(Level::Log, "shutdown at recovery target");
                        server.stopping.send_replace(Stopping::Fast);
                        set_status(server, Status::Stopping);
                        ended.get_or_insert_with(|| tokio::spawn(stop(Arc::clone(server))));
                    }
                    None => {}
                }
            }
            _ = signals.hup.recv() => server.reload(),
            _ = signals.usr1.recv() => on_request(server).await,
            _ = signals.quit.recv() => {
                say(Level::Log, "received immediate shutdown request");
                return Ok(exit::IMMEDIATE);
            }
            _ = signals.term.recv() => {
                if *server.stopping.borrow() < Stopping::Smart {
                    say(Level::Log, "received smart shutdown request");
                    server.stopping.send_replace(Stopping::Smart);
                    set_status(server, Status::Stopping);
                    ended.get_or_insert_with(|| tokio::spawn(stop(Arc::clone(server))));
                }
            }
            _ = signals.int.recv() => {
                if *server.stopping.borrow() < Stopping::Fast {
                    say(Level::Log, "received fast shutdown request");
                    say(Level::Log, "aborting any active transactions");
                    server.stopping.send_replace(Stopping::Fast);
                    set_status(server, Status::Stopping);
                    ended.get_or_insert_with(|| tokio::spawn(stop(Arc::clone(server))));
                }
            }
            result = join(&mut ended), if ended.is_some() => {
                return match result {
                    Some(Ok(Ok(()))) | None => Ok(exit::CLEAN),
                    Some(Ok(Err(e))) => Err(Failed { message: error_chain(&e), hint: None }),
                    Some(Err(e)) => Err(Failed { message: format!("shutdown ended unexpectedly: {e}"), hint: None }),
                };
            }
        }
    }
}

/// A start that was refused: why, and what to do about it.
fn refused(error: &EngineError) -> Failed {
    let hint = matches!(error, EngineError::Recovery(RecoveryError::Damage { .. })).then(|| {
        "Restore the missing WAL (from an archive or a standby), or restore a backup. If neither exists, start once with \
         ignore_wal_damage = on: every transaction committed behind that position is then lost."
            .to_owned()
    });
    Failed { message: error_chain(error), hint }
}

/// Puts what needs the engine together, and opens the door to sessions.
fn start_services(server: &Arc<Server>, engine: Arc<Engine>) -> Result<(), Failed> {
    let bad = |e: crate::sqlstate::SqlError| Failed { message: e.to_string(), hint: None };
    let segment = engine.wal().segment_bytes();
    server.config.set_internal(Setting::WalSegmentSize, &segment.to_string()).map_err(bad)?;
    let mode = std::fs::metadata(engine.data_dir())?.mode() & 0o777;
    server.config.set_internal(Setting::DataDirectoryMode, &format!("0{mode:o}")).map_err(bad)?;
    set_mark_limits(&engine, &server.config.current());
    crate::executor::remove_temporary_files(engine.data_dir())?;
    let catalog = Catalog::new(engine.ctx().clone());
    let replication =
        Replication::start(Arc::clone(&engine), Arc::clone(&server.config)).map_err(|e| Failed { message: error_chain(&e), hint: None })?;
    let views = views::providers(server).into_iter().chain(crate::replication::views::providers(&replication));
    for (name, provider) in views {
        if !catalog.register_virtual(name, provider) {
            tracing::warn!("no system view named {name}");
        }
    }
    let externals: Vec<Arc<dyn ExternalFunctions>> = vec![
        Arc::new(functions::Functions::new(server)),
        Arc::new(crate::replication::functions::Functions::new(Arc::clone(&replication))),
    ];
    // Only this task sets it.
    let _once = server.services.set(Services { engine, catalog, replication, externals, plans: Arc::default() });
    Ok(())
}

/// Why the node is to stop by itself; `None` if it no longer can be.
async fn wait_for_verdict(verdict: &mut Option<watch::Receiver<Option<Verdict>>>) -> Option<Verdict> {
    match verdict {
        Some(verdict) => verdict.wait_for(Option::is_some).await.ok().and_then(|given| given.clone()),
        None => None,
    }
}

async fn join<T>(task: &mut Option<tokio::task::JoinHandle<T>>) -> Option<Result<T, tokio::task::JoinError>> {
    match task {
        Some(task) => Some(task.await),
        None => None,
    }
}

/// An error with its causes, on one line.
fn error_chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}

fn set_status(server: &Server, status: Status) {
    if let Err(e) = pid_file::set_status(server.config.data_dir(), status) {
        say(Level::Log, &format!("could not write lock file \"{}\": {e}", pid_file::PID_FILE));
    }
}

/// Tells log, lock file and supervisor about a state sessions care about.
fn tell_state(server: &Arc<Server>, leash: &Leash, told: &mut Option<State>) -> Result<(), Failed> {
    if server.services.get().is_none() || *server.stopping.borrow() > Stopping::No {
        return Ok(());
    }
    let state = server.node.get();
    if *told == Some(state) {
        return Ok(());
    }
    let hot = server.config.current().bool(Setting::HotStandby);
    match state {
        State::StandbyRecovering if !hot => {
            pid_file::set_status(server.config.data_dir(), Status::Standby)?;
            leash.ready();
        }
        State::HotStandby if hot => {
            server.config.set_internal(Setting::InHotStandby, "on").map_err(|e| Failed { message: e.to_string(), hint: None })?;
            say(Level::Log, "database system is ready to accept read-only connections");
            pid_file::set_status(server.config.data_dir(), Status::Ready)?;
            leash.ready();
        }
        State::Primary => {
            server.config.set_internal(Setting::InHotStandby, "off").map_err(|e| Failed { message: e.to_string(), hint: None })?;
            say(Level::Log, "database system is ready to accept connections");
            pid_file::set_status(server.config.data_dir(), Status::Ready)?;
            leash.ready();
            let leftovers = Arc::clone(server);
            tokio::task::spawn_blocking(move || super::leftovers::remove(&leftovers));
            super::autovacuum::start(server);
        }
        State::Starting
        | State::CrashRecovery
        | State::StandbyRecovering
        | State::HotStandby
        | State::Promoting
        | State::ShuttingDown
        | State::Stopped
        | State::Failed => {}
    }
    *told = Some(state);
    Ok(())
}

/// SIGUSR1: files in the data directory say what is asked for.
async fn on_request(server: &Arc<Server>) {
    let promote = server.config.data_dir().join("promote");
    if std::fs::remove_file(&promote).is_ok() {
        match server.services.get() {
            Some(services) if services.engine.is_in_recovery() => {
                let replication = Arc::clone(&services.replication);
                // Not awaited: the server goes on serving, and stops if asked to, meanwhile.
                tokio::spawn(async move {
                    if let Err(e) = replication.promote().await {
                        say(Level::Log, &format!("promotion failed: {}", error_chain(&e)));
                    }
                });
            }
            _ => say(Level::Log, "promote request ignored: recovery is not in progress"),
        }
    }
    let request = server.config.data_dir().join(SESSION_SIGNAL);
    if let Ok(text) = std::fs::read_to_string(&request) {
        signal_session(server, &request, &text).await;
    }
    let rotate = server.config.data_dir().join("logrotate");
    if std::fs::remove_file(&rotate).is_ok() {
        match log::rotate() {
            Ok(true) => {}
            Ok(false) => say(Level::Log, "log rotation request ignored: the log is not collected into files"),
            Err(e) => say(Level::Log, &format!("could not open log file: {e}")),
        }
    }
}

/// `pg_ctl kill` of a session: its number and a signal's. The file is gone once it is done; one that says otherwise stays for `pg_ctl`.
pub const SESSION_SIGNAL: &str = "session_signal";
/// What is left in [`SESSION_SIGNAL`] if there is no such session.
pub const NO_SUCH_SESSION: &str = "no such session\n";

async fn signal_session(server: &Arc<Server>, request: &std::path::Path, text: &str) {
    let mut words = text.split_whitespace().map(str::parse::<i32>);
    let (Some(Ok(number)), Some(Ok(signal))) = (words.next(), words.next()) else { return };
    let Some(entry) = server.registry.find(number) else {
        let _told = std::fs::write(request, NO_SUCH_SESSION)
            .inspect_err(|e| say(Level::Log, &format!("could not write \"{SESSION_SIGNAL}\": {e}")));
        return;
    };
    let _gone = std::fs::remove_file(request);
    match Signal::from_named_raw(signal) {
        Some(Signal::INT) => entry.stop(CancelReason::Query),
        Some(Signal::TERM) => entry.stop(CancelReason::Terminate),
        // As where a session is a process: nobody knows what it left half done, so the server starts again.
        Some(Signal::QUIT) => {
            say(Level::Log, &format!("server process (PID {number}) exited with exit code {}", exit::IMMEDIATE));
            server.registry.stop_all(CancelReason::Crash, true);
            let _late = tokio::time::timeout(Duration::from_secs(1), server.registry.wait_gone(|_| false)).await;
            std::process::exit(i32::from(exit::IMMEDIATE));
        }
        Some(fatal @ (Signal::KILL | Signal::ABORT)) => {
            say(Level::Log, &format!("server process (PID {number}) was terminated by signal {signal}"));
            let _never_returns = rustix::process::kill_process(rustix::process::getpid(), fatal);
        }
        _ => {}
    }
}

async fn is_fast(stopping: &mut watch::Receiver<Stopping>) {
    // An error means the server is gone, and nobody waits for this.
    let _gone = stopping.wait_for(|s| *s >= Stopping::Fast).await.is_err();
}

/// Ends sessions as the mode asks, then the engine.
async fn stop(server: Arc<Server>) -> Result<(), EngineError> {
    server.registry.stop_autovacuum();
    let mut stopping = server.stopping.subscribe();
    let clients_gone = || server.registry.wait_gone(|a| a.replication);
    tokio::select! {
        () = clients_gone() => {}
        () = is_fast(&mut stopping) => {
            server.registry.stop_all(CancelReason::Terminate, false);
            clients_gone().await;
        }
    }
    let Some(services) = server.services.get() else {
        // Still recovering: what is on disk is what the next start recovers.
        return Ok(());
    };
    services.replication.stop_receiver().await;
    let replication = Arc::clone(&services.replication);
    say(Level::Log, "shutting down");
    let result = blocking(move || {
        replication.prepare_shutdown();
        replication.engine.shutdown(ShutdownMode::Fast)
    })
    .await;
    services.replication.finish_senders().await;
    services.replication.finish_archiver().await;
    server.registry.stop_all(CancelReason::Terminate, true);
    server.registry.wait_gone(|_| false).await;
    result.unwrap_or(Ok(()))
}
