//! What is measured, one file each, and the rounds in which it is.

mod catch_up;
mod clients;
mod commit;
mod copy;
mod crash;
mod idle;
mod index;
mod lag;
mod load;
mod promote;
mod replay;
mod rewind;
mod select;
mod subject;
mod sync;
mod tpcb;
mod vacuum;
mod wal;
mod wire;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use tokio::runtime::Handle;

use crate::load::Load;
use crate::machine;
use crate::node::{Node, Surroundings};
use crate::options::Options;
use crate::process::Interrupt;
use crate::program::{Programs, System};
use crate::report::Sample;
use subject::Subject;

/// Settings of both systems. What is not here is each system's default.
const SETTINGS: [&str; 9] = [
    "shared_buffers = 128MB",
    "max_connections = 1100",
    "fsync = on",
    "synchronous_commit = on",
    "wal_level = replica",
    "wal_keep_size = 1GB",
    "max_wal_size = 1GB",
    "checkpoint_timeout = 5min",
    "checkpoint_completion_target = 0.9",
];

/// One measured thing.
pub(crate) struct Measurement {
    /// For `--only`.
    pub(crate) name: &'static str,
    /// What is done, and what its rows mean.
    pub(crate) about: &'static str,
    round: fn(&Bench, &mut Subject) -> anyhow::Result<Vec<Sample>>,
}

const ALL: [Measurement; 18] = [
    Measurement { name: "load", about: "pgbench -i: COPY, vacuum and primary keys", round: load::round },
    Measurement { name: "copy", about: "COPY FROM into a table with a primary key", round: copy::round },
    Measurement { name: "index", about: "CREATE INDEX over a loaded table", round: index::round },
    Measurement { name: "select", about: "pgbench -S in each protocol", round: select::round },
    Measurement { name: "tpcb", about: "pgbench's TPC-B, every commit durable", round: tpcb::round },
    Measurement { name: "clients", about: "select-only and TPC-B with 1 to 256 clients", round: clients::round },
    Measurement { name: "idle", about: "memory of 1,000 idle connections", round: idle::round },
    Measurement { name: "vacuum", about: "VACUUM of a table whose rows were all changed", round: vacuum::round },
    Measurement { name: "commit", about: "one client, one row a transaction, durable", round: commit::round },
    Measurement { name: "wal", about: "WAL of a fixed number of TPC-B transactions", round: wal::round },
    Measurement { name: "crash", about: "SIGKILL, then from start to the first answer", round: crash::round },
    Measurement { name: "replay", about: "replay on a standby that has the WAL already", round: replay::round },
    Measurement { name: "catchup", about: "a standby started behind its primary, until it is level", round: catch_up::round },
    Measurement {
        name: "lag",
        about: "commit acknowledged to row visible on the standby, under load; and the clone it needs",
        round: lag::round,
    },
    Measurement { name: "sync", about: "as commit, with a synchronous standby on the same disk", round: sync::round },
    Measurement { name: "promote", about: "primary killed; request to first accepted write", round: promote::round },
    Measurement { name: "wire", about: "bytes on the wire to a standby, plain and as it comes", round: wire::round },
    Measurement { name: "rewind", about: "a node that went its own way, until it follows again", round: rewind::round },
];

/// The end of `--help`.
pub(crate) fn help() -> String {
    let mut out = "Names for --only:\n".to_owned();
    for m in &ALL {
        writeln!(out, "  {:<8}  {}", m.name, m.about).expect("writing to a String cannot fail");
    }
    out
}

/// The measurements of these names, in the usual order; all if none is named.
pub(crate) fn select(names: &[String]) -> anyhow::Result<Vec<&'static Measurement>> {
    static MEASUREMENTS: &[Measurement] = &ALL;
    if let Some(unknown) = names.iter().find(|n| MEASUREMENTS.iter().all(|m| m.name != n.as_str())) {
        bail!("nothing is called \"{unknown}\"\n{}", help());
    }
    Ok(MEASUREMENTS.iter().filter(|m| names.is_empty() || names.iter().any(|n| n == m.name)).collect())
}

/// The two systems under measurement.
pub(crate) struct Bench {
    /// What was asked for.
    pub(crate) options: Options,
    // Before `home`: the servers end before their directory goes.
    subjects: RefCell<Vec<Subject>>,
    around: Surroundings,
    /// Removed when dropped.
    _home: tempfile::TempDir,
}

impl Bench {
    /// Finds the programs; nothing is started yet.
    pub(crate) fn new(options: Options, runtime: Handle, interrupt: Arc<Interrupt>) -> anyhow::Result<Self> {
        let programs = Programs::find(&options, &interrupt)?;
        let mut settings: Vec<String> = SETTINGS.map(str::to_owned).into();
        for setting in &options.set {
            let (name, value) = setting.split_once('=').with_context(|| format!("--set \"{setting}\" has no \"=\""))?;
            settings.push(format!("{} = '{}'", name.trim(), value.trim()));
        }
        let parent = options.dir.clone().unwrap_or_else(std::env::temp_dir);
        let home = tempfile::Builder::new()
            .prefix("afterimage-bench-")
            .tempdir_in(&parent)
            .with_context(|| format!("could not make a directory in \"{}\"", parent.display()))?;
        // PostgreSQL's user must reach its own directory below.
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
        let around = Surroundings { programs, runtime, interrupt, home: home.path().to_owned(), settings };
        Ok(Self { options, subjects: RefCell::new(Vec::new()), around, _home: home })
    }

    /// What the figures depend on.
    pub(crate) fn facts(&self) -> Vec<(String, String)> {
        let o = &self.options;
        let mut facts = machine::facts(&self.around.home);
        let mut put = |name: &str, value: String| facts.push((name.to_owned(), value));
        for system in System::BOTH {
            put(&system.to_string(), self.around.programs.version(system));
        }
        put("settings", self.around.settings.join(", "));
        put("data", format!("pgbench scale {}: {} accounts", o.scale, accounts(o.scale)));
        put(
            "rounds",
            format!(
                "{} alternating, {} s or {} transactions each, {} clients on the same machine",
                o.rounds, o.seconds, o.transactions, o.clients
            ),
        );
        facts
    }

    /// Runs a load on a node that is no subject's primary: nobody counts what it does.
    pub(crate) fn run_on(&self, node: &Node, load: &Load) -> anyhow::Result<()> {
        load.run(&self.around.programs, &self.around.interrupt, node).map(drop)
    }

    /// Measures both systems in turn; who is first alternates.
    pub(crate) fn rounds(&self, measurement: &Measurement) -> anyhow::Result<Vec<(System, Sample)>> {
        let mut subjects = self.subjects.borrow_mut();
        if subjects.is_empty() {
            for system in System::BOTH {
                subjects.push(Subject::load(&self.around, &self.options, system)?);
            }
        }
        let mut samples = Vec::new();
        for round in 0..self.options.rounds {
            let mut order: Vec<&mut Subject> = subjects.iter_mut().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for subject in order {
                let system = subject.primary.system;
                let figures = (measurement.round)(self, subject)
                    .and_then(|figures| subject.verify().map(|()| figures))
                    .with_context(|| format!("{system}; the end of its log:\n{}\n", subject.primary.log_tail()))?;
                for figure in &figures {
                    // A load that short may use less CPU than the clock counts.
                    let sound = figure.value > 0.0 || (self.options.quick && figure.value == 0.0);
                    ensure!(figure.value.is_finite() && sound, "{system}: {} is {}", figure.what, figure.value);
                    eprintln!("  round {}  {system:<10}  {:<44} {:>12.2} {}", round + 1, figure.what, figure.value, figure.unit);
                }
                samples.extend(figures.into_iter().map(|f| (system, f)));
            }
        }
        Ok(samples)
    }
}

/// Rows of pgbench_accounts.
pub(crate) fn accounts(scale: u32) -> i64 {
    i64::from(scale) * 100_000
}

/// Microseconds of CPU a transaction.
#[expect(clippy::cast_precision_loss, reason = "counts of transactions are far below 2^53")]
pub(crate) fn micros_each(cpu: std::time::Duration, transactions: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / transactions as f64
}

#[cfg(test)]
mod tests {
    use super::{ALL, select};

    #[test]
    fn names_are_found_and_unknown_ones_refused() {
        assert_eq!(select(&[]).unwrap().len(), ALL.len());
        assert_eq!(select(&["tpcb".into(), "select".into()]).unwrap().iter().map(|m| m.name).collect::<Vec<_>>(), ["select", "tpcb"]);
        assert!(select(&["tpcc".into()]).is_err());
    }
}
