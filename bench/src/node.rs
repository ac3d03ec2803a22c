//! One server of either system: its data directory, its process, what it has used.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use tokio::runtime::Handle;

use crate::process::{self, Interrupt};
use crate::program::{Programs, System};
use crate::session::{PATIENCE, Session, pause};

/// What every node needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    /// The programs.
    pub(crate) programs: Programs,
    /// For connections.
    pub(crate) runtime: Handle,
    /// Ctrl-C.
    pub(crate) interrupt: Arc<Interrupt>,
    /// Directory of all nodes.
    pub(crate) home: PathBuf,
    /// Lines for postgresql.conf, the same for both systems.
    pub(crate) settings: Vec<String>,
}

/// A node. Dropping it ends its processes and removes its directory.
pub(crate) struct Node {
    /// Which system.
    pub(crate) system: System,
    /// TCP port on 127.0.0.1.
    pub(crate) port: u16,
    around: Surroundings,
    home: PathBuf,
    server: Option<Child>,
}

impl Node {
    /// A new primary, running.
    pub(crate) fn primary(around: &Surroundings, system: System) -> anyhow::Result<Self> {
        let mut node = Self::unmade(around, system, "primary")?;
        let mut initdb = around.programs.tool(system, "initdb");
        initdb.args(["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8", "-D"]).arg(node.data());
        around.interrupt.run(&mut initdb)?;
        node.configure()?;
        node.start()?;
        Ok(node)
    }

    /// A hot standby of this node by the system's own base backup, not started; and how long the copy took. Only a durable copy is worth timing.
    pub(crate) fn clone_standby(&self, durable: bool) -> anyhow::Result<(Self, Duration)> {
        let standby = Self::unmade(&self.around, self.system, "standby")?;
        let upstream = format!("host=127.0.0.1 port={} user=postgres application_name=standby", self.port);
        let mut copy = self.around.programs.tool(self.system, "pg_basebackup");
        copy.args(["-R", "-X", "stream", "-c", "fast", "-d", &upstream, "-D"]).arg(standby.data());
        if !durable {
            copy.arg("--no-sync");
        }
        let began = Instant::now();
        self.around.interrupt.run(&mut copy)?;
        let took = began.elapsed();
        standby.configure()?;
        Ok((standby, took))
    }

    fn unmade(around: &Surroundings, system: System, role: &str) -> anyhow::Result<Self> {
        let port = free_port()?;
        let home = around.home.join(format!("{}-{role}-{port}", system.to_string().to_lowercase()));
        fs::create_dir(&home).with_context(|| format!("could not make \"{}\"", home.display()))?;
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755))?;
        around.programs.hand_over(system, &home)?;
        Ok(Self { system, port, around: around.clone(), home, server: None })
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Adds lines to postgresql.conf.
    pub(crate) fn add_settings(&self, lines: &[&str]) -> anyhow::Result<()> {
        let mut file = fs::OpenOptions::new().append(true).open(self.data().join("postgresql.conf")).context("postgresql.conf")?;
        for line in lines {
            writeln!(file, "{line}")?;
        }
        Ok(())
    }

    /// Makes this node, which is stopped, follow another one again by the system's own rewind. Its settings are then the other's.
    pub(crate) fn rewind_to(&self, source: &Self) -> anyhow::Result<()> {
        let server = format!("host=127.0.0.1 port={} user=postgres dbname=postgres application_name=standby", source.port);
        let mut rewind = self.around.programs.tool(self.system, "pg_rewind");
        rewind.args(["-R", "--source-server", &server, "-D"]).arg(self.data());
        self.around.interrupt.run(&mut rewind).map(drop)
    }

    /// Gives it this machine's settings.
    pub(crate) fn configure(&self) -> anyhow::Result<()> {
        let mut file = fs::OpenOptions::new().append(true).open(self.data().join("postgresql.conf")).context("postgresql.conf")?;
        let own = [
            format!("port = {}", self.port),
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("unix_socket_directories = '{}'", self.home.display()),
        ];
        for line in own.iter().chain(&self.around.settings) {
            writeln!(file, "{line}")?;
        }
        Ok(())
    }

    /// Starts it; how long until the first query was answered.
    pub(crate) fn start(&mut self) -> anyhow::Result<Duration> {
        self.around.interrupt.check()?;
        let log = fs::OpenOptions::new().append(true).create(true).open(self.home.join("log"))?;
        let mut command = self.around.programs.server(self.system);
        command.arg("-D").arg(self.data()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // Ctrl-C is for us: we end the servers ourselves, in order.
        command.process_group(0);
        let began = Instant::now();
        self.server = Some(command.spawn().with_context(|| format!("could not run {command:?}"))?);
        let (runtime, port) = (self.around.runtime.clone(), self.port);
        let ready = Session::open_when_ready(&runtime, port, || {
            self.around.interrupt.check()?;
            match self.server.as_mut().map(Child::try_wait) {
                Some(Ok(None)) => Ok(()),
                _ => bail!("{} does not start:\n{}", self.system, self.log_tail()),
            }
        });
        ready.map(|_| began.elapsed()).with_context(|| format!("log of {}:\n{}", self.system, self.log_tail()))
    }

    /// Fast shutdown.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.end(Signal::INT)
    }

    /// SIGKILL to all its processes at once: what a power cut looks like to the others.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        let Some(child) = &self.server else { return Ok(()) };
        let all = process::tree(process::pid_of(child)?.as_raw_nonzero().get());
        for pid in &all {
            process::send(*pid, Signal::KILL)?;
        }
        self.end(Signal::KILL)?;
        // PostgreSQL does not start while one of its processes still holds the shared memory.
        let began = Instant::now();
        while all.iter().any(|pid| process::lives(*pid)) {
            if began.elapsed() > PATIENCE {
                bail!("processes of {} do not end", self.system);
            }
            pause(&self.around.runtime);
        }
        Ok(())
    }

    fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        let Some(mut child) = self.server.take() else { return Ok(()) };
        process::send(process::pid_of(&child)?, signal)?;
        let began = Instant::now();
        while child.try_wait()?.is_none() {
            if began.elapsed() > PATIENCE {
                self.server = Some(child);
                bail!("{} does not stop:\n{}", self.system, self.log_tail());
            }
            pause(&self.around.runtime);
        }
        Ok(())
    }

    /// A new connection.
    pub(crate) fn session(&self) -> anyhow::Result<Session> {
        Session::open(&self.around.runtime, self.port)
            .with_context(|| format!("connection to {}; its log:\n{}", self.system, self.log_tail()))
    }

    /// CPU time its processes have used since it was started.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let child = self.server.as_ref().context("not running")?;
        process::cpu_time(process::pid_of(child)?.as_raw_nonzero().get())
    }

    /// Bytes of memory its processes hold; what several share counts once.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        let child = self.server.as_ref().context("not running")?;
        process::memory(process::pid_of(child)?.as_raw_nonzero().get())
    }

    /// Bytes of the data directory without its WAL.
    pub(crate) fn data_bytes(&self) -> anyhow::Result<u64> {
        let mut bytes = 0;
        let mut todo = vec![self.data()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir)?.flatten() {
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() && entry.file_name() != "pg_wal" {
                    todo.push(entry.path());
                } else if meta.is_file() {
                    bytes += meta.len();
                }
            }
        }
        Ok(bytes)
    }

    /// The end of its log, for errors.
    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.home.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
    }
}

/// A free port that no client is given by the kernel between now and the server's start: those get ports from 32768 on.
fn free_port() -> anyhow::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = u16::try_from(std::process::id() % 11_000).unwrap_or(0);
    for _ in 0..1000 {
        let port = 20_000 + (spread + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between 20000 and 32000")
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("afterimage-bench: could not end {}: {error:#}", self.system);
        }
        // The directory of all nodes goes at the end in any case.
        drop(fs::remove_dir_all(&self.home));
    }
}
