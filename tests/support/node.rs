//! One server under test: the real binary, a data directory of its own, a free port on loopback.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Longest a condition may take to come true before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// PostgreSQL's own client programs, for what a user would run.
pub const PG_BIN: &str = "/usr/lib/postgresql/15/bin";

/// A node. Dropping it kills what still runs and removes its directory.
pub struct Node {
    /// Name in messages; also its `cluster_name`.
    pub name: String,
    /// Directory that holds data directory, log and socket.
    pub home: tempfile::TempDir,
    /// TCP port on 127.0.0.1.
    pub port: u16,
}

/// A port nobody listens on at this moment.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).map(|a| a.port()).expect("a free port on loopback")
}

/// Runs a program to its end; panics with its output unless it succeeds.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Node {
    fn unmade(name: &str) -> Self {
        let home = tempfile::Builder::new().prefix(&format!("ai-{name}-")).tempdir().expect("a temporary directory");
        Self { name: name.to_owned(), home, port: free_port() }
    }

    /// A new primary, not started.
    pub fn init(name: &str) -> Self {
        let node = Self::unmade(name);
        run(node.tool("initdb").args(["-D"]).arg(node.data()).args(["-U", "postgres", "-A", "trust", "-N"]));
        node.configure();
        node
    }

    /// A new primary, running.
    pub fn start_new(name: &str, conf: &str) -> Self {
        let node = Self::init(name);
        node.conf(conf);
        node.start();
        node
    }

    /// A standby of this node, cloned by the stock `pg_basebackup`, not started.
    pub fn clone_with_pg_basebackup(&self, name: &str) -> Self {
        let standby = Self::unmade(name);
        let mut command = Command::new(format!("{PG_BIN}/pg_basebackup"));
        run(command.args(["-D"]).arg(standby.data()).args(["-R", "-X", "stream", "-c", "fast", "-N"]).args(["-d", &self.conninfo(name)]));
        standby.configure();
        standby
    }

    /// A standby of this node, cloned by our own command, not started.
    pub fn clone_to(&self, name: &str) -> Self {
        let standby = Self::unmade(name);
        run(standby
            .tool("basebackup")
            .args(["-D"])
            .arg(standby.data())
            .args(["-R", "-c", "fast", "-N"])
            .args(["-d", &self.conninfo(name)]));
        standby.configure();
        standby
    }

    /// Another node, not started, with a copy of this one's directory as it is.
    pub fn copy(&self, name: &str) -> Self {
        let copy = Self::unmade(name);
        run(Command::new("cp").arg("-a").arg(self.data()).arg(copy.data()));
        copy.configure();
        copy
    }

    /// A running hot standby of this node from a data directory that is there, which is moved.
    pub fn standby_in(&self, data: &Path, name: &str) -> Self {
        let standby = Self::in_directory(data, name);
        standby.start();
        standby
    }

    /// A node, not started, from a data directory that is there, which is moved.
    pub fn in_directory(data: &Path, name: &str) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let node = Self::unmade(name);
        run(Command::new("mv").arg(data).arg(node.data()));
        fs::set_permissions(node.data(), fs::Permissions::from_mode(0o700)).expect("permissions");
        node.configure();
        node
    }

    /// A running hot standby of this node.
    pub fn standby(&self, name: &str) -> Self {
        let standby = self.clone_to(name);
        standby.start();
        standby
    }

    fn configure(&self) {
        let socket = self.home.path().display();
        self.conf(&format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{socket}'\ncluster_name = '{}'\nshared_buffers = '16MB'\nmax_connections = 60\nwal_retrieve_retry_interval = '200ms'\n",
            self.port, self.name
        ));
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// The server's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Adds lines to postgresql.conf; the last one of a setting wins.
    pub fn conf(&self, lines: &str) {
        let mut file = fs::OpenOptions::new().append(true).open(self.data().join("postgresql.conf")).expect("postgresql.conf");
        writeln!(file, "{lines}").expect("postgresql.conf is writable");
    }

    /// Points a standby at another upstream, where `-R` of a base backup did: in postgresql.auto.conf, which comes last.
    pub fn follow(&self, upstream: &Self) {
        self.follow_at(&upstream.conninfo(&self.name));
    }

    /// As [`Node::follow`], by connection string.
    pub fn follow_at(&self, conninfo: &str) {
        let mut file = fs::OpenOptions::new().append(true).open(self.data().join("postgresql.auto.conf")).expect("postgresql.auto.conf");
        writeln!(file, "primary_conninfo = '{conninfo}'").expect("postgresql.auto.conf is writable");
        let signal = self.data().join("standby.signal");
        fs::write(signal, "").expect("standby.signal");
    }

    /// How others connect to it.
    pub fn conninfo(&self, application_name: &str) -> String {
        format!("host=127.0.0.1 port={} user=postgres application_name={application_name}", self.port)
    }

    /// Our program with a command; `AFTERIMAGE_PROGRAM` names another than the one built with these tests.
    pub fn tool(&self, command: &str) -> Command {
        let program = std::env::var_os("AFTERIMAGE_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_afterimage").into());
        let mut tool = Command::new(program);
        tool.arg(command).env_remove("PGDATA").env_remove("PGHOST").env_remove("PGPORT").env_remove("PGUSER");
        tool
    }

    /// Starts it and waits until it accepts connections.
    pub fn start(&self) {
        let output = self.try_start();
        assert!(output.status.success(), "{} does not start: {}{}\n{}", self.name, text(&output.stdout), text(&output.stderr), self.log());
    }

    /// Tries to start it.
    pub fn try_start(&self) -> Output {
        self.start_command().output().expect("afterimage start")
    }

    fn start_command(&self) -> Command {
        let mut command = self.tool("start");
        command.arg("-D").arg(self.data()).arg("-l").arg(self.home.path().join("log")).args(["-w", "-t", "60"]);
        command
    }

    /// Starts it with variables in its environment.
    pub fn start_with(&self, variables: &[(&str, &str)]) {
        run(self.start_command().envs(variables.iter().copied()));
    }

    /// Starts it with a directory of its data on a file system of this many megabytes, which nobody else sees. See [`Node::make_room`].
    pub fn start_on_small_disk(&self, directory: &str, megabytes: u64) {
        const SCRIPT: &str = r#"set -e
            cp -a "$1" "$1.before"
            mount -t tmpfs -o "size=$2" none "$1"
            cp -a "$1.before/." "$1"
            rm -r "$1.before"
            shift 2
            exec "$@""#;
        let start = self.start_command();
        let mut command = Command::new("unshare");
        command.args(unshared()).args(["sh", "-c", SCRIPT, "sh"]).arg(self.data().join(directory)).arg(format!("{megabytes}m"));
        run(command.arg(start.get_program()).args(start.get_args()).env_remove("PGDATA"));
    }

    /// Makes the file system of [`Node::start_on_small_disk`] larger.
    pub fn make_room(&self, directory: &str, megabytes: u64) {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid().expect("a running node").to_string(), "-m"]);
        if !is_root() {
            command.args(["-U", "--preserve-credentials"]);
        }
        run(command.args(["mount", "-o", &format!("remount,size={megabytes}m")]).arg(self.data().join(directory)));
    }

    /// Stops it.
    pub fn stop(&self, mode: &str) {
        run(self.tool("stop").arg("-D").arg(self.data()).args(["-m", mode, "-t", "60"]));
    }

    /// Stops and starts it.
    pub fn restart(&self) {
        self.stop("fast");
        self.start();
    }

    /// Makes it read its settings again.
    pub fn reload(&self) {
        run(self.tool("reload").arg("-D").arg(self.data()));
    }

    /// Promotes it and waits until it is a primary.
    pub fn promote(&self) {
        run(self.tool("promote").arg("-D").arg(self.data()).args(["-w", "-t", "60"]));
        assert_eq!(self.sql("select pg_is_in_recovery()"), "f", "sessions know before the tool does");
    }

    /// The supervisor's pid, while there is one.
    pub fn pid(&self) -> Option<i32> {
        let file = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    /// The pids of the server processes below the supervisor.
    pub fn server_pids(&self) -> Vec<i32> {
        let Some(pid) = self.pid() else { return Vec::new() };
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|p| p.parse().ok())
            .collect()
    }

    /// How many temporary files of queries the server has open, or has left in its directory.
    pub fn temporary_files(&self) -> usize {
        let named = fs::read_dir(self.data().join("base/pgsql_tmp")).map_or(0, Iterator::count);
        let open = fs::read_dir(format!("/proc/{}/fd", self.server_pids()[0])).expect("the server's files");
        let targets = open.flatten().filter_map(|f| fs::read_link(f.path()).ok());
        named + targets.filter(|to| to.to_string_lossy().contains("/pgsql_tmp/")).count()
    }

    /// SIGKILL to supervisor and server, as when a machine is gone; returns when both are.
    pub fn kill(&self) {
        let pids: Vec<i32> = self.server_pids().into_iter().chain(self.pid()).collect();
        for pid in pids.iter().rev() {
            signal(*pid, "KILL");
        }
        for pid in pids {
            until(&format!("{} (pid {pid}) to be gone", self.name), || !is_running(pid));
        }
    }

    /// SIGKILL to the server process only: the supervisor must bring it back.
    pub fn kill_server(&self) {
        for pid in self.server_pids() {
            signal(pid, "KILL");
        }
    }

    /// psql with one command, unaligned, tuples only.
    pub fn psql(&self, sql: &str) -> Command {
        let mut command = Command::new("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &format!("{} dbname=postgres", self.conninfo("test")), "-c", sql]);
        command
    }

    /// Runs SQL; its rows as psql prints them.
    pub fn sql(&self, sql: &str) -> String {
        let output = self.psql(sql).output().expect("psql");
        assert!(output.status.success(), "{} on {}: {}\n--- log\n{}", sql, self.name, text(&output.stderr), tail(&self.log()));
        text(&output.stdout).trim_end().to_owned()
    }

    /// Runs SQL that must fail; psql's error text, SQLSTATE first.
    pub fn sql_error(&self, sql: &str) -> String {
        let output = self.psql(sql).args(["-v", "VERBOSITY=verbose"]).output().expect("psql");
        assert!(!output.status.success(), "{sql} on {} succeeded: {}", self.name, text(&output.stdout));
        text(&output.stderr)
    }

    /// Waits until SQL answers as expected.
    pub fn wait_for(&self, sql: &str, expected: &str) {
        let mut last = String::new();
        let done = holds_within(PATIENCE, || {
            let output = self.psql(sql).output().expect("psql");
            last = format!("{}{}", text(&output.stdout).trim_end(), text(&output.stderr));
            output.status.success() && text(&output.stdout).trim_end() == expected
        });
        assert!(done, "{} never answered {expected:?} to {sql}; last: {last}\n--- log\n{}", self.name, tail(&self.log()));
    }

    /// Waits until a standby has replayed all WAL this primary has inserted.
    pub fn wait_for_catchup(&self, standby: &Self) {
        let target = self.sql("select pg_current_wal_insert_lsn()");
        standby.wait_for(&format!("select pg_last_wal_replay_lsn() >= '{target}'::pg_lsn"), "t");
    }

    /// pgbench against this node; its output.
    pub fn pgbench(&self, args: &[&str]) -> String {
        run(&mut self.pgbench_command(args))
    }

    /// pgbench, to be run or spawned.
    pub fn pgbench_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("pgbench");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"]).args(args).arg("postgres");
        command
    }

    /// pgbench's invariant: every transaction changed one account, one teller, one branch and the history by the same amount.
    pub fn assert_pgbench_adds_up(&self) {
        let sums = self.sql(
            "select (select coalesce(sum(abalance), 0) from pgbench_accounts), (select coalesce(sum(tbalance), 0) from pgbench_tellers), \
                    (select coalesce(sum(bbalance), 0) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history)",
        );
        let fields: Vec<&str> = sums.split('|').collect();
        assert!(fields.iter().all(|f| *f == fields[0]), "{}: {sums}", self.name);
    }

    /// Row count and order-independent hash of every ordinary logged table in `public`.
    pub fn table_hashes(&self) -> Vec<(String, String)> {
        let tables =
            self.sql("select relname from pg_class where relnamespace = 2200 and relkind = 'r' and relpersistence = 'p' order by relname");
        tables
            .lines()
            .map(|table| {
                let sum = self.sql(&format!("select count(*) || ' ' || coalesce(sum(hashtext(t::text)::bigint), 0) from \"{table}\" t"));
                (table.to_owned(), sum)
            })
            .collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for pid in self.server_pids().into_iter().chain(self.pid()) {
            signal(pid, "KILL");
        }
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.name, tail(&self.log()));
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Sends a signal by number's name.
pub fn signal(pid: i32, name: &str) {
    drop(Command::new("kill").args([format!("-{name}"), pid.to_string()]).output());
}

/// Whether a process is there and not a zombie.
pub fn is_running(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Options of `unshare` for mounts of one's own: root has the right, others get it inside a user namespace.
fn unshared() -> &'static [&'static str] {
    if is_root() { &["-m"] } else { &["-r", "-m"] }
}

/// Asks again and again until it holds, or time is up.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    let mut pause = Duration::from_micros(100);
    loop {
        if condition() {
            return true;
        }
        if began.elapsed() > limit {
            return false;
        }
        // Whoever is to make it true needs the processor more.
        std::thread::park_timeout(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Waits for a condition; panics when it does not come true.
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, condition), "waited in vain for {what}");
}

/// A file below the directory of a node.
pub fn file(node: &Node, path: &str) -> PathBuf {
    Path::new(&node.data()).join(path)
}
