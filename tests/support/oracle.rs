//! PostgreSQL 15 itself, to compare with: a cluster of its own in a temporary directory, under an unprivileged user.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::node::{PG_BIN, free_port, run};

/// A running PostgreSQL 15. Dropping it stops it and removes its directory.
pub struct Oracle {
    home: tempfile::TempDir,
    /// TCP port on 127.0.0.1.
    pub port: u16,
}

impl Oracle {
    /// Makes and starts one. `conf` is added to postgresql.conf.
    pub fn start(conf: &str) -> Self {
        assert!(Path::new(PG_BIN).join("postgres").exists(), "PostgreSQL 15 is not installed: run scripts/install-deps test");
        let home = tempfile::Builder::new().prefix("ai-oracle-").tempdir().expect("a temporary directory");
        let oracle = Self { home, port: free_port() };
        if is_root() {
            run(Command::new("chown").arg("postgres:").arg(oracle.home.path()));
        }
        run(oracle.tool("initdb").args(["-U", "postgres", "-A", "trust", "-N", "--locale=C.UTF-8", "-E", "UTF8", "-D"]).arg(oracle.data()));
        let settings = format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\nautovacuum = off\njit = off\n{conf}\n",
            oracle.port,
            oracle.home.path().display()
        );
        let path = oracle.data().join("postgresql.conf");
        let old = fs::read_to_string(&path).expect("postgresql.conf");
        fs::write(&path, old + &settings).expect("postgresql.conf is writable");
        run(oracle.tool("pg_ctl").args(["start", "-w", "-s", "-D"]).arg(oracle.data()).arg("-l").arg(oracle.home.path().join("log")));
        oracle
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// One of its programs, which refuse to run as root.
    fn tool(&self, name: &str) -> Command {
        let program = Path::new(PG_BIN).join(name);
        let mut command = if is_root() {
            let mut c = Command::new("setpriv");
            c.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
            c
        } else {
            Command::new(program)
        };
        command.current_dir("/").env_remove("PGDATA").env_remove("PGHOST").env_remove("PGPORT").env_remove("PGUSER");
        command
    }

    /// How to connect.
    pub fn conninfo(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        drop(self.tool("pg_ctl").args(["stop", "-s", "-m", "immediate", "-D"]).arg(self.data()).output());
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
