//! The two programs, and how to call their tools.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::options::Options;
use crate::process::Interrupt;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum System {
    /// Ours.
    Afterimage,
    /// The yardstick.
    Postgres,
}

impl System {
    /// Both, in the order of the table's columns.
    pub(crate) const BOTH: [Self; 2] = [Self::Afterimage, Self::Postgres];
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Afterimage => "Afterimage",
            Self::Postgres => "PostgreSQL",
        })
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    afterimage: PathBuf,
    postgres_bin: PathBuf,
    /// PostgreSQL refuses to run as root.
    as_postgres_user: bool,
}

impl Programs {
    /// Finds them; builds ours if cargo runs us, so that no figure comes from an old build.
    ///
    /// # Errors
    /// One is missing, or the build fails.
    pub(crate) fn find(options: &Options, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let afterimage = match &options.afterimage {
            Some(path) => path.clone(),
            None => own_build(interrupt)?,
        };
        ensure!(afterimage.is_file(), "\"{}\" is not there: build it with cargo build --release", afterimage.display());
        for tool in ["initdb", "postgres", "pg_basebackup", "pgbench"] {
            let path = options.postgres_bin.join(tool);
            ensure!(path.is_file(), "\"{}\" is not there: run scripts/install-deps test, or say --postgres-bin", path.display());
        }
        Ok(Self {
            afterimage: std::path::absolute(afterimage)?,
            postgres_bin: options.postgres_bin.clone(),
            as_postgres_user: rustix::process::geteuid().is_root(),
        })
    }

    /// A tool of a system by PostgreSQL's name, run as the user that owns the system's files.
    pub(crate) fn tool(&self, system: System, name: &str) -> Command {
        let mut command = match system {
            System::Afterimage => {
                let mut command = Command::new(&self.afterimage);
                command.arg(name.strip_prefix("pg_").unwrap_or(name));
                command
            }
            System::Postgres => self.as_owner(&self.postgres_bin.join(name)),
        };
        clear(&mut command);
        command
    }

    /// The server in the foreground. It ends with the thread that starts it: the main one, in this program.
    pub(crate) fn server(&self, system: System) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "QUIT"]);
        match system {
            System::Afterimage => command.arg(&self.afterimage).arg("postgres"),
            System::Postgres => {
                if self.as_postgres_user {
                    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
                }
                command.arg(self.postgres_bin.join("postgres"))
            }
        };
        clear(&mut command);
        command
    }

    /// PostgreSQL's pgbench, the client of both.
    pub(crate) fn pgbench(&self) -> Command {
        let mut command = Command::new(self.postgres_bin.join("pgbench"));
        clear(&mut command);
        command
    }

    /// Lets the system's user make files in a directory of ours.
    pub(crate) fn hand_over(&self, system: System, dir: &Path) -> anyhow::Result<()> {
        if system == System::Postgres && self.as_postgres_user {
            let status = Command::new("chown").arg("postgres:").arg(dir).status().context("chown")?;
            ensure!(status.success(), "could not give \"{}\" to the user postgres", dir.display());
        }
        Ok(())
    }

    /// What a system says of itself.
    pub(crate) fn version(&self, system: System) -> String {
        let output = self.tool(system, "postgres").arg("--version").output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
    }

    fn as_owner(&self, program: &Path) -> Command {
        if !self.as_postgres_user {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
        command
    }
}

/// Nothing of the caller's surroundings decides where a tool connects to.
fn clear(command: &mut Command) {
    command.current_dir("/");
    for variable in ["PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGAPPNAME", "PGPASSWORD", "PGOPTIONS", "PGSSLMODE"] {
        command.env_remove(variable);
    }
}

/// `target/release/afterimage`, made by cargo if cargo runs us.
fn own_build(interrupt: &Interrupt) -> anyhow::Result<PathBuf> {
    if let (Some(cargo), Some(manifest_dir)) = (std::env::var_os("CARGO"), std::env::var_os("CARGO_MANIFEST_DIR"))
        && std::env::var_os("NEXTEST").is_none()
    {
        eprintln!("building afterimage ...");
        let workspace = Path::new(&manifest_dir).join("..");
        let mut build = Command::new(cargo);
        build.args(["build", "--release", "--locked", "--package", "afterimage", "--bin", "afterimage"]).current_dir(workspace);
        // What `cargo run` says of this package would make the build scripts that ask for it (ring's) run again, and all that depends
        // on them compile again, ourselves included.
        for (variable, _) in std::env::vars_os() {
            if variable.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
                build.env_remove(&variable);
            }
        }
        interrupt.run(&mut build)?;
    }
    let own = std::env::current_exe().context("own program")?;
    Ok(own.parent().context("own program has no directory")?.join("afterimage"))
}
