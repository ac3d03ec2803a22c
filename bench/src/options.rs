//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Options.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "afterimage-bench",
    version,
    about = "Measures Afterimage and PostgreSQL 15 side by side and prints ratios of medians.",
    long_about = "Measures Afterimage and PostgreSQL 15 side by side on this machine: same settings, same data, same load, in rounds that alternate.\n\
        A ratio above 1 means that Afterimage is better, whichever way the row counts. Both servers run on loopback in a temporary directory and end with\n\
        the program. Needs PostgreSQL 15 with pgbench (scripts/install-deps test). As root, PostgreSQL runs as the user postgres.",
    after_help = crate::measure::help()
)]
pub(crate) struct Options {
    /// Measure only this; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// pgbench's scale: 100,000 accounts, about 16 MB, each.
    #[arg(long, short = 's', default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) scale: u32,
    /// Length of one timed round.
    #[arg(long, short = 'T', default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,
    /// Rounds of each system; odd numbers have a median that was measured.
    #[arg(long, short = 'r', default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Clients of the loads with several.
    #[arg(long, short = 'c', default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=90))]
    pub(crate) clients: u32,
    /// Transactions that a recovery or a standby has to replay in one round.
    #[arg(long, short = 't', default_value_t = 40_000, value_parser = clap::value_parser!(u32).range(100..))]
    pub(crate) transactions: u32,
    /// Only see that everything runs: scale 1, one round of one second, 800 transactions.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Also write every sample and the machine's facts to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Where the data directories go. Default: a new directory in the temporary directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Afterimage's program. Default: built from this checkout when run by cargo, else the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub(crate) afterimage: Option<PathBuf>,
    /// Directory of PostgreSQL 15's programs.
    #[arg(long, value_name = "DIR", default_value = "/usr/lib/postgresql/15/bin")]
    pub(crate) postgres_bin: PathBuf,
    /// A line for both servers' postgresql.conf; may be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
}

impl Options {
    /// With `--quick` applied.
    pub(crate) fn settled(self) -> Self {
        if !self.quick {
            return self;
        }
        Self { scale: 1, seconds: 1, rounds: 1, clients: 4, transactions: 800, ..self }
    }
}
