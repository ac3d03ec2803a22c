//! Every call site of the disk fails once, with EIO and with ENOSPC.
//!
//! A site is what a call does, to which kind of file, from which of our functions. A first run of a part of a node's life finds the sites,
//! then that part is run again for each of them: the first call from there fails. Nothing acknowledged may be lost, a statement that fails
//! says so with the right SQLSTATE, a failed sync stops the node, and a full disk does not.

use std::{
    backtrace::Backtrace,
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use afterimage_wal::disk::sim::Call;

use super::{load::Failure, *};
use crate::sqlstate::SqlError;

/// A part of a node's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// initdb.
    Create,
    /// Recovery from a crash, load, checkpoints, the begin and the end of a base backup, a shutdown.
    Primary,
    /// Recovery from a crash, WAL from the primary, restartpoints, promotion, load.
    Standby,
}

/// Where a call comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Site {
    call: Call,
    file: String,
    callers: Vec<String>,
}

/// The path below the data directory, numbers left out.
fn kind_of_file(path: &Path) -> String {
    let path = path.strip_prefix("/data").unwrap_or(path);
    let kind = |name: &str| {
        if name.len() == 24 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return "segment".to_owned();
        }
        let mut out = String::new();
        for c in name.chars() {
            if !c.is_ascii_digit() {
                out.push(c);
            } else if !out.ends_with('#') {
                out.push('#');
            }
        }
        out
    };
    path.iter().map(|name| kind(&name.to_string_lossy())).collect::<Vec<_>>().join("/")
}

/// Whether a frame of a backtrace is ours: by its place in our source, or where the build knows no places, by its name.
fn is_ours(name: &str, place: Option<&str>) -> bool {
    match place {
        Some(place) => {
            let place = place.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/")).or_else(|| place.strip_prefix("./")).unwrap_or(place);
            let ours = place.starts_with("src/") || place.starts_with("wal/src/");
            ours && !place.starts_with("wal/src/disk") && !place.starts_with("src/engine/simulation")
        }
        None => {
            name.trim_start_matches('<').starts_with("afterimage")
                && !name.contains("afterimage_wal::disk")
                && !name.contains("afterimage::engine::simulation")
        }
    }
}

/// Our functions that led here, with their places where the build knows them, innermost first; the disk itself and the test left out.
fn callers(depth: usize) -> Vec<String> {
    let trace = Backtrace::force_capture().to_string();
    let mut lines = trace.lines().map(str::trim_start).peekable();
    let mut found: Vec<String> = Vec::new();
    while let Some(line) = lines.next() {
        // What was inlined has no number of its own.
        let name = line.split_once(": ").filter(|(number, _)| number.parse::<u32>().is_ok()).map_or(line, |(_, name)| name);
        let place = lines.next_if(|next| next.starts_with("at ")).map(|next| &next["at ".len()..]);
        if is_ours(name, place) {
            found.push(place.map_or_else(|| name.to_owned(), |place| format!("{name} at {place}")));
            if found.len() == depth {
                break;
            }
        }
    }
    found
}

/// Ships durable WAL, asking again where a failure left it, as a receiver does.
fn feed(from: &Engine, to: &Engine, upto: Lsn) {
    let mut buf = vec![0; 10_000];
    while to.wal().received() < upto {
        let at = to.wal().received();
        let room = usize::try_from(upto.bytes_since(at).unwrap()).unwrap().min(buf.len());
        let n = from.wal().read_at(at, &mut buf[..room]).unwrap();
        // The one call that fails: the next try has it.
        drop(to.wal().append_received(at, &buf[..n]));
    }
    drop(to.wal().flush(to.wal().published()));
    to.wal().flush(to.wal().published()).unwrap();
    let mut replayed = to.subscribe_replayed();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(replayed.wait_for(|lsn| *lsn >= to.wal().published())).unwrap();
}

/// Runs `life` in a thread of its own, with the disk as it is now: were that looked at by a thread that begins late, it might be the next life's. If the node
/// stops itself the thread is left where it is.
fn in_a_thread(disk: &SimDisk, what: &str, life: impl FnOnce() -> Result<Vec<SqlError>, EngineError> + Send + 'static) -> Ended {
    let (tell, told) = mpsc::channel();
    let on_stop = tell.clone();
    let (dying, number) = (disk.clone(), disk.life());
    simulated::on_stop(Box::new(move |why| {
        dying.cut(number);
        drop(on_stop.send(Ended::Stopped(why.to_owned())));
    }));
    std::thread::spawn(move || {
        let ended = match life() {
            Err(error) => Ended::Refused(error.to_string()),
            Ok(failed) if failed.is_empty() => Ended::Well,
            Ok(failed) => Ended::Statements(failed.iter().map(|e| (e.fields().state.to_string(), e.to_string())).collect()),
        };
        drop(tell.send(ended));
    });
    told.recv_timeout(Duration::from_secs(120)).unwrap_or_else(|_| panic!("{what}: the life hangs, or its thread panicked"))
}

/// The primary's life after its start.
fn primary_life(engine: &Engine, model: &Mutex<Model>, seed: u64) -> Vec<SqlError> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut failed = live(engine, model, &mut rng, true);
    let mut note = |result: Result<(), Failure>| failed.extend(result.err().map(SqlError::from));
    note(engine.checkpoint(forced()).map_err(Failure::from));
    match engine.backup_start(true) {
        Ok(start) => note(engine.backup_stop(&start).map(drop).map_err(Failure::from)),
        Err(error) => note(Err(error.into())),
    }
    failed.extend(live(engine, model, &mut rng, true));
    failed
}

/// One part of a life with these eyes on its disk; afterwards nothing acknowledged is missing.
fn run(part: Part, seed: u64, what: &str, watch: impl FnMut(Call, &Path) -> Option<i32> + Send + 'static) -> Ended {
    let dir = Path::new("/data");
    let disk = SimDisk::new();
    let model = Model::new();
    if part == Part::Create {
        disk.watch(watch);
        let create = CreateOptions { segment_bytes: 1 << 20, pool: POOL, area_slots: AREA_SLOTS, disk: disk.for_this_life() };
        let ended = in_a_thread(&disk, what, move || {
            Engine::create(dir, create)?.shutdown(ShutdownMode::Fast)?;
            Ok(Vec::new())
        });
        disk.crash(seed);
        if ended == Ended::Well {
            drop(Engine::open(dir, options(&disk)).unwrap_or_else(|e| panic!("{what}: {e}")));
        }
        disk.wipe();
        return ended;
    }
    let disk_a = SimDisk::new();
    let primary_disk = if part == Part::Primary { &disk } else { &disk_a };
    create(primary_disk, dir);
    let engine = Engine::open(dir, options(primary_disk)).unwrap();
    let mut rng = StdRng::seed_from_u64(seed);
    live(&engine, &model, &mut rng, false);
    if part == Part::Primary {
        drop(engine);
        disk.crash(seed);
        disk.watch(watch);
        let (of_this_life, known) = (options(&disk), Arc::clone(&model));
        let ended = in_a_thread(&disk, what, move || {
            let engine = Engine::open(dir, of_this_life)?;
            let mut failed = primary_life(&engine, &known, seed + 1);
            if seed.is_multiple_of(2) {
                failed.extend(engine.shutdown(ShutdownMode::Fast).err().map(SqlError::from));
            }
            Ok(failed)
        });
        disk.crash(seed + 2);
        let engine = Engine::open(dir, options(&disk)).unwrap_or_else(|e| panic!("{what}, {ended:?}: {e}"));
        check(&engine, &model, what);
        drop(engine);
        disk.wipe();
        return ended;
    }
    let primary = engine;
    clone_to(&primary, &disk, dir);
    let standby = Engine::open(dir, options(&disk)).unwrap();
    // All the primary does is done before: whoever is left behind by a stop must not touch it any more.
    let positions: Vec<Lsn> = (0..4)
        .map(|_| {
            live(&primary, &model, &mut rng, false);
            primary.wal().flush(primary.wal().inserted()).unwrap();
            model.lock().acknowledge();
            primary.wal().flushed()
        })
        .collect();
    feed(&primary, &standby, positions[0]);
    standby.checkpoint(forced()).unwrap();
    feed(&primary, &standby, positions[1]);
    drop(standby);
    disk.crash(seed);
    disk.watch(watch);
    let (of_this_life, known, upstream) = (options(&disk), Arc::clone(&model), Arc::clone(&primary));
    let ended = in_a_thread(&disk, what, move || {
        let standby = Engine::open(dir, of_this_life)?;
        let mut failed = Vec::new();
        for upto in positions {
            feed(&upstream, &standby, upto);
            failed.extend(standby.checkpoint(forced()).err().map(|e| SqlError::from(Failure::from(e))));
            failed.extend(standby.pool().write_dirty(|_, _| {}).err().map(SqlError::from));
        }
        if let Err(error) = standby.promote() {
            failed.push(error.into());
            return Ok(failed);
        }
        failed.extend(primary_life(&standby, &known, seed + 1));
        Ok(failed)
    });
    disk.crash(seed + 2);
    let standby = Engine::open(dir, options(&disk)).unwrap_or_else(|e| panic!("{what}, {ended:?}: {e}"));
    if standby.is_in_recovery() {
        feed(&primary, &standby, primary.wal().flushed());
        standby.promote().unwrap_or_else(|e| panic!("{what}, {ended:?}: {e}"));
    }
    check(&standby, &model, what);
    drop((primary, standby));
    disk.wipe();
    disk_a.wipe();
    ended
}

/// The sites of one part, `depth` functions deep.
fn sites(part: Part, seeds: Range<u64>, depth: usize) -> BTreeMap<Site, u64> {
    let found: Arc<Mutex<BTreeMap<Site, u64>>> = Arc::default();
    for seed in seeds {
        let inside = Arc::clone(&found);
        let ended = run(part, seed, &format!("{part:?}, seed {seed}"), move |call, path| {
            let callers = callers(depth);
            if !callers.is_empty() {
                inside.lock().entry(Site { call, file: kind_of_file(path), callers }).or_insert(seed);
            }
            None
        });
        assert_eq!(ended, Ended::Well, "{part:?}, seed {seed}");
    }
    std::mem::take(&mut *found.lock())
}

/// Whether the node may end so when this call fails.
fn is_right(part: Part, site: &Site, errno: i32, ended: &Ended) -> bool {
    let data_or_wal = site.file.starts_with("base/") || site.file.starts_with("global/#") || site.file == "pg_wal/segment";
    let recovers = site.callers.iter().any(|name| name.contains("recovery") || name.contains("redo"));
    match ended {
        Ended::Statements(failed) => failed.iter().all(|(state, message)| {
            let asked = message.contains("checkpoint request failed");
            asked || state == if errno == ENOSPC { "53100" } else { "58030" }
        }),
        // What was written may be gone: going on would acknowledge what is not there. What cannot be read is no end of WAL.
        Ended::Well => {
            let synced = site.call == Call::Sync && data_or_wal && part != Part::Create;
            let read = matches!(site.call, Call::Open | Call::Read)
                && site.callers.iter().any(|name| name.contains("wal::reader") || name.contains("wal/src/reader"));
            !synced && !read
        }
        Ended::Stopped(_) if errno == ENOSPC && site.call == Call::Allocate && part == Part::Primary => {
            !site.file.starts_with("base/") || recovers
        }
        Ended::Stopped(_) | Ended::Refused(_) => true,
    }
}

/// Fails every site of every part once with each error. Returns how many there were, and how many were met again.
pub(super) fn fail_each(seeds: &Range<u64>, depth: usize) -> (usize, usize) {
    let (mut all, mut met, mut wrong) = (0, 0, Vec::new());
    for part in [Part::Create, Part::Primary, Part::Standby] {
        let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
        for (site, seed) in sites(part, seeds.clone(), depth) {
            for errno in [EIO, ENOSPC] {
                let what = format!("{part:?}, seed {seed}, errno {errno}, {site:?}");
                let hit = Arc::new(AtomicBool::new(false));
                let (seen, wanted) = (Arc::clone(&hit), site.clone());
                let ended = run(part, seed, &what, move |call, path| {
                    let here = call == wanted.call
                        && !seen.load(Ordering::Relaxed)
                        && kind_of_file(path) == wanted.file
                        && callers(depth) == wanted.callers;
                    here.then(|| {
                        seen.store(true, Ordering::Relaxed);
                        errno
                    })
                });
                all += 1;
                if !hit.load(Ordering::Relaxed) {
                    continue;
                }
                met += 1;
                *ends
                    .entry(match ended {
                        Ended::Well => "well",
                        Ended::Statements(_) => "failed statements",
                        Ended::Refused(_) => "refused",
                        Ended::Stopped(_) => "stopped",
                    })
                    .or_default() += 1;
                if std::env::var_os("SIMULATION_TRACE").is_some() {
                    println!("{what}: {ended:?}");
                }
                if !is_right(part, &site, errno, &ended) {
                    wrong.push(format!("{what}: {ended:?}"));
                }
            }
        }
        println!("{part:?}: {ends:?}");
    }
    assert!(wrong.is_empty(), "{} of {met} ended wrong:\n{}", wrong.len(), wrong.join("\n"));
    (all, met)
}
