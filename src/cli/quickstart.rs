//! `afterimage quickstart`: a primary and a hot standby in one go; with `--check` a failover drill that judges itself.
//!
//! It drives the same commands and the same SQL a user would. Whatever it made, it removes again when a step fails, and at
//! the end of a check.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::{Client, NoTls};

/// Bytes that must be free where the two data directories go.
const NEEDED_BYTES: u64 = 256 << 20;
/// Longest anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rows sent one by one to measure the way from commit to visible.
const LAG_SAMPLES: i32 = 50;

/// Options.
#[derive(Parser, Clone, Debug)]
#[command(name = "afterimage quickstart", about = "Runs a primary and a hot standby until Ctrl-C.", disable_version_flag = true)]
pub(super) struct Options {
    /// Unattended: kills the primary, promotes the standby, verifies every row, prints what each step took.
    #[arg(long)]
    check: bool,
    /// Where the data directories go: must not exist or be empty. Default: "afterimage-quickstart" in the temporary directory.
    #[arg(long, short = 'D', value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Port of the primary; the standby takes the next one. Default: 54320, with --check two free ones.
    #[arg(long, short = 'p', value_name = "PORT")]
    port: Option<u16>,
    /// Rows to load.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(i32).range(1..=100_000_000))]
    rows: i32,
    /// Leave the data directories behind.
    #[arg(long)]
    keep: bool,
}

/// Runs the command; the result is its exit code.
pub(super) fn run(args: &[String]) -> u8 {
    let options = match Options::try_parse_from(std::iter::once("afterimage quickstart").chain(args.iter().map(String::as_str))) {
        Ok(options) => options,
        Err(error) => {
            drop(error.print());
            return u8::from(error.use_stderr());
        }
    };
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("could not start")
        .and_then(|runtime| runtime.block_on(drive(&options)));
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("quickstart: error: {error:#}");
            1
        }
    }
}

/// One of the two nodes.
struct Node {
    name: &'static str,
    dir: PathBuf,
    log: PathBuf,
    port: u16,
    /// It was killed: there is nothing left to stop.
    killed: AtomicBool,
}

impl Node {
    fn command(&self, command: &str) -> anyhow::Result<Command> {
        let mut process = Command::new(std::env::current_exe().context("own program")?);
        process.arg(command).stdin(Stdio::null());
        for variable in ["PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGAPPNAME", "PGPASSWORD"] {
            process.env_remove(variable);
        }
        Ok(process)
    }

    fn conninfo(&self, name: &str) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres application_name={name}", self.port)
    }

    fn start(&self) -> anyhow::Result<()> {
        let mut start = self.command("start")?;
        start.arg("-D").arg(&self.dir).arg("-l").arg(&self.log).args(["-s", "-w", "-t", "60"]);
        finish(&mut start).with_context(|| format!("the {} did not start; its log is {}", self.name, self.log.display()))
    }

    fn stop(&self) -> anyhow::Result<()> {
        if self.killed.load(Ordering::Relaxed) || self.supervisor().is_none() {
            return Ok(());
        }
        finish(self.command("stop")?.arg("-D").arg(&self.dir).args(["-s", "-m", "fast", "-t", "60"]))
    }

    /// The supervisor's pid, while it runs.
    fn supervisor(&self) -> Option<Pid> {
        let file = fs::read_to_string(self.dir.join("postmaster.pid")).ok()?;
        Pid::from_raw(file.lines().next()?.trim().parse().ok()?)
    }

    /// SIGKILL to supervisor and server: what a power cut looks like to the others.
    fn kill(&self) -> anyhow::Result<()> {
        let supervisor = self.supervisor().context("the primary has no postmaster.pid")?;
        self.killed.store(true, Ordering::Relaxed);
        let raw = supervisor.as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{raw}/task/{raw}/children")).unwrap_or_default();
        let children: Vec<Pid> = children.split_whitespace().filter_map(|p| Pid::from_raw(p.parse().ok()?)).collect();
        for pid in std::iter::once(supervisor).chain(children) {
            match kill_process(pid, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error).context("could not kill the primary"),
            }
        }
        Ok(())
    }

    async fn connect(&self) -> anyhow::Result<Client> {
        let (client, io) = tokio_postgres::connect(&self.conninfo("quickstart"), NoTls)
            .await
            .with_context(|| format!("could not connect to the {}", self.name))?;
        tokio::spawn(io);
        Ok(client)
    }
}

/// Runs a command to its end; its output is the error when it fails.
fn finish(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("could not run {command:?}"))?;
    if !output.status.success() {
        bail!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

/// Both nodes and the directory they live in. Stops the nodes and removes the directory when dropped, unless told otherwise.
struct Pair {
    home: PathBuf,
    primary: Node,
    standby: Node,
    made_home: bool,
    keep: bool,
}

impl Drop for Pair {
    fn drop(&mut self) {
        for node in [&self.primary, &self.standby] {
            if let Err(error) = node.stop() {
                eprintln!("quickstart: could not stop the {}: {error:#}", node.name);
            }
        }
        if self.keep {
            return;
        }
        for entry in fs::read_dir(&self.home).into_iter().flatten().flatten() {
            let path = entry.path();
            drop(if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) });
        }
        if self.made_home {
            drop(fs::remove_dir(&self.home));
        }
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).context("no free port")?.port())
}

impl Pair {
    /// Looks before anything is made: ports, directory, space.
    fn prepare(options: &Options) -> anyhow::Result<Self> {
        let (first, second) = match options.port {
            Some(port) => (port, port.checked_add(1).context("the standby needs the port after this one")?),
            None if options.check => (free_port()?, free_port()?),
            None => (54320, 54321),
        };
        for port in [first, second] {
            TcpListener::bind(("127.0.0.1", port)).with_context(|| format!("port {port} is busy; choose another with --port"))?;
        }
        let name = if options.check { format!("afterimage-quickstart-{}", std::process::id()) } else { "afterimage-quickstart".to_owned() };
        let home = std::path::absolute(options.dir.clone().unwrap_or_else(|| std::env::temp_dir().join(name)))?;
        let made_home = match fs::read_dir(&home) {
            Ok(mut entries) => {
                ensure!(entries.next().is_none(), "directory \"{}\" is in use; remove it or choose another with --dir", home.display());
                false
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(error).with_context(|| format!("could not read directory \"{}\"", home.display())),
        };
        let existing = home.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
        let space = rustix::fs::statvfs(existing).context("could not ask for free space")?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        ensure!(
            free >= NEEDED_BYTES,
            "only {} MB are free at \"{}\"; {} MB are needed",
            free >> 20,
            existing.display(),
            NEEDED_BYTES >> 20
        );
        if made_home {
            fs::create_dir_all(&home).with_context(|| format!("could not create directory \"{}\"", home.display()))?;
        }
        let node =
            |name, port| Node { name, dir: home.join(name), log: home.join(format!("{name}.log")), port, killed: AtomicBool::new(false) };
        Ok(Self { primary: node("primary", first), standby: node("standby", second), home, made_home, keep: options.keep })
    }

    fn configure(&self, node: &Node) -> anyhow::Result<()> {
        let text = format!(
            "\nport = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\ncluster_name = '{}'\nwal_retrieve_retry_interval = '200ms'\n",
            node.port,
            self.home.display(),
            node.name
        );
        let mut file = fs::OpenOptions::new().append(true).open(node.dir.join("postgresql.conf"))?;
        Ok(file.write_all(text.as_bytes())?)
    }
}

/// What each step took.
#[derive(Default)]
struct Times {
    rows: Vec<(&'static str, String)>,
}

impl Times {
    fn put(&mut self, what: &'static str, took: Duration) {
        self.rows.push((what, format!("{:.1} ms", took.as_secs_f64() * 1000.0)));
    }

    fn table(&self) -> String {
        let mut out = String::new();
        let wide = self.rows.iter().map(|(what, _)| what.len()).max().unwrap_or(0);
        for (what, took) in &self.rows {
            writeln!(out, "  {what:<wide$}  {took:>12}").expect("writing to a String cannot fail");
        }
        out
    }
}

fn say(text: &str) {
    println!("{text}");
    // What is shown late is no use to somebody who watches.
    drop(io::stdout().flush());
}

async fn drive(options: &Options) -> anyhow::Result<()> {
    let pair = Pair::prepare(options)?;
    let mut interrupted = interrupts()?;
    tokio::select! {
        outcome = story(options, &pair) => outcome,
        () = interrupted.wait() => {
            say("\nstopping both nodes ...");
            Ok(())
        }
    }
}

/// Ctrl-C and SIGTERM.
struct Interrupts {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

fn interrupts() -> anyhow::Result<Interrupts> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok(Interrupts { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
}

impl Interrupts {
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

async fn story(options: &Options, pair: &Pair) -> anyhow::Result<()> {
    let (primary, standby) = (&pair.primary, &pair.standby);
    let mut times = Times::default();

    let began = Instant::now();
    finish(primary.command("initdb")?.arg("-D").arg(&primary.dir).args([
        "-U",
        "postgres",
        "-A",
        "trust",
        "--no-sync",
        "--no-instructions",
    ]))?;
    pair.configure(primary)?;
    primary.start()?;
    times.put("initialise and start the primary", began.elapsed());
    say(&format!("primary runs on port {}", primary.port));

    let writer = primary.connect().await?;
    let began = Instant::now();
    writer.batch_execute("create table drops (id int primary key, note text not null)").await?;
    writer.execute("insert into drops select g, 'row ' || g from generate_series(1, $1::int) g", &[&options.rows]).await?;
    times.put("load rows", began.elapsed());

    let began = Instant::now();
    let upstream = format!("host=127.0.0.1 port={} user=postgres application_name=standby", primary.port);
    finish(standby.command("basebackup")?.arg("-D").arg(&standby.dir).args(["-R", "-c", "fast", "--no-sync", "-d", &upstream]))?;
    pair.configure(standby)?;
    times.put("clone by base backup", began.elapsed());
    let began = Instant::now();
    standby.start()?;
    times.put("start the standby", began.elapsed());
    say(&format!("hot standby runs on port {}", standby.port));

    let reader = standby.connect().await?;
    wait_until(&writer, "select count(*) = 1 from pg_stat_replication where state = 'streaming'")
        .await
        .context("the standby does not stream")?;
    if options.check {
        writer.batch_execute("alter system set synchronous_standby_names = 'standby'").await?;
        writer.batch_execute("select pg_reload_conf()").await?;
        wait_until(&writer, "select count(*) = 1 from pg_stat_replication where sync_state = 'sync'")
            .await
            .context("the standby does not become synchronous")?;
    }
    let lag = measure_lag(options, &writer, &reader).await?;
    times.put("lag: commit to visible on the standby (median)", lag);
    let total = options.rows + LAG_SAMPLES;
    let seen: i64 = reader.query_one("select count(*) from drops", &[]).await?.get(0);
    ensure!(seen == i64::from(total), "the standby shows {seen} of {total} rows");
    say(&format!(
        "{total} rows arrived on the standby, the last {LAG_SAMPLES} one by one: {:.1} ms from commit to visible (median)",
        lag.as_secs_f64() * 1000.0
    ));

    if options.check {
        return check(pair, &mut times, total, &reader).await;
    }
    say(&format!(
        "\nLook around:\n\n    psql -h 127.0.0.1 -p {} -U postgres postgres      # the primary\n    psql -h 127.0.0.1 -p {} -U postgres postgres      # the hot standby: reads only\n\nMake the standby the primary:\n\n    afterimage promote -D {}\n\nCtrl-C stops both{}.",
        primary.port,
        standby.port,
        standby.dir.display(),
        if options.keep { "" } else { " and removes their data" }
    ));
    std::future::pending::<()>().await;
    Ok(())
}

/// Asks until the answer is true.
async fn wait_until(client: &Client, question: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if client.query_one(question, &[]).await?.get::<_, bool>(0) {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
    bail!("waited {} s for: {question}", PATIENCE.as_secs())
}

async fn measure_lag(options: &Options, writer: &Client, reader: &Client) -> anyhow::Result<Duration> {
    let insert = writer.prepare("insert into drops values ($1, 'one drop')").await?;
    let look = reader.prepare("select count(*) from drops where id = $1").await?;
    let mut samples = Vec::new();
    for n in 1..=LAG_SAMPLES {
        let id = options.rows + n;
        writer.execute(&insert, &[&id]).await?;
        let committed = Instant::now();
        while reader.query_one(&look, &[&id]).await?.get::<_, i64>(0) == 0 {
            ensure!(committed.elapsed() < PATIENCE, "row {id} does not arrive on the standby");
        }
        samples.push(committed.elapsed());
    }
    samples.sort_unstable();
    Ok(samples[samples.len() / 2])
}

/// The failover: SIGKILL, promote, write, verify.
async fn check(pair: &Pair, times: &mut Times, total: i32, session: &Client) -> anyhow::Result<()> {
    let refused = session.execute("insert into drops values (0, 'not here')", &[]).await;
    let code = refused.err().and_then(|e| e.code().map(|c| c.code().to_owned()));
    ensure!(code.as_deref() == Some("25006"), "a write on the standby was answered with {code:?} instead of 25006");

    pair.primary.kill()?;
    say("primary killed with SIGKILL");
    let began = Instant::now();
    let promoted: bool = session.query_one("select pg_promote()", &[]).await?.get(0);
    ensure!(promoted, "the standby was not promoted");
    times.put("promote", began.elapsed());
    let written = session.execute("insert into drops values (0, 'first write on the new primary')", &[]).await?;
    ensure!(written == 1, "the first write changed {written} rows");
    times.put("promote to first write", began.elapsed());
    say("standby promoted; the same session writes now");

    // Every row that was acknowledged, by number and by content.
    let found: i64 = session.query_one("select count(*) from drops", &[]).await?.get(0);
    ensure!(found == i64::from(total) + 1, "{found} rows where {} were acknowledged", i64::from(total) + 1);
    let wrong: i64 = session
        .query_one(
            "select count(*) from generate_series(0, $1::int) g left join drops d on d.id = g \
             where d.note is distinct from case when g = 0 then 'first write on the new primary' when g <= $2::int then 'row ' || g else 'one drop' end",
            &[&total, &(total - LAG_SAMPLES)],
        )
        .await?
        .get(0);
    ensure!(wrong == 0, "{wrong} rows are missing or wrong");
    let recovering: bool = session.query_one("select pg_is_in_recovery()", &[]).await?.get(0);
    ensure!(!recovering, "the promoted node says that it is in recovery");
    say(&format!("all {found} acknowledged rows are there\n\n{}", times.table()));
    Ok(())
}
