//! pgbench: the load of both systems, and what it says afterwards.

use std::process::{Child, Command};

use anyhow::{Context as _, ensure};

use crate::node::Node;
use crate::process::{self, Interrupt};
use crate::program::Programs;

/// pgbench's own scripts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Script {
    /// One row of accounts by its key.
    SelectOnly,
    /// TPC-B: three updates, a select and an insert in a transaction.
    Tpcb,
}

/// How long a load runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    /// Seconds.
    Seconds(u32),
    /// Transactions, all clients together; rounded down to a multiple of the clients.
    Transactions(u32),
}

/// A load.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// What each transaction does.
    pub(crate) script: Script,
    /// `simple`, `extended` or `prepared`.
    pub(crate) protocol: &'static str,
    /// Connections.
    pub(crate) clients: u32,
    /// How long.
    pub(crate) length: Length,
    /// Transactions a second, at most.
    pub(crate) rate: Option<u32>,
    /// Commits do not wait for the disk: for loads that only make WAL.
    pub(crate) no_wait: bool,
}

/// What it did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    /// Transactions a second, without the time to connect.
    pub(crate) tps: f64,
    /// Transactions.
    pub(crate) transactions: u64,
}

/// A load that runs.
pub(crate) struct Running {
    child: Child,
    command: Command,
}

impl Load {
    /// Each client as fast as it is answered, every commit durable.
    pub(crate) const fn closed(script: Script, protocol: &'static str, clients: u32, length: Length) -> Self {
        Self { script, protocol, clients, length, rate: None, no_wait: false }
    }

    /// Starts it.
    pub(crate) fn start(&self, programs: &Programs, node: &Node) -> anyhow::Result<Running> {
        let mut command = programs.pgbench();
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-n", "-p", &node.port.to_string(), "-M", self.protocol]);
        command.args(["-c", &self.clients.to_string(), "-j", &self.clients.min(2).to_string(), "-b"]);
        command.arg(match self.script {
            Script::SelectOnly => "select-only",
            Script::Tpcb => "tpcb-like",
        });
        match self.length {
            Length::Seconds(seconds) => command.args(["-T", &seconds.to_string()]),
            Length::Transactions(n) => command.args(["-t", &(n / self.clients).max(1).to_string()]),
        };
        if let Some(rate) = self.rate {
            command.args(["-R", &rate.to_string()]);
        }
        if self.no_wait {
            command.env("PGOPTIONS", "-c synchronous_commit=off");
        }
        command.arg("postgres");
        let child = process::spawn(&mut command)?;
        Ok(Running { child, command })
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, programs: &Programs, interrupt: &Interrupt, node: &Node) -> anyhow::Result<Done> {
        interrupt.check()?;
        self.start(programs, node)?.finish(interrupt)
    }
}

impl Running {
    /// Waits for its end. A transaction that failed is an error.
    pub(crate) fn finish(self, interrupt: &Interrupt) -> anyhow::Result<Done> {
        let said = interrupt.finish(self.child, &self.command)?;
        parse(&said).with_context(|| format!("pgbench said:\n{said}"))
    }
}

fn parse(said: &str) -> anyhow::Result<Done> {
    let after = |name: &str| said.lines().find_map(|l| l.trim().strip_prefix(name)).with_context(|| format!("no line \"{name}\""));
    let number = |text: &str| text.trim().split([' ', '/']).next().unwrap_or("").parse::<f64>().context("not a number");
    let failed = number(after("number of failed transactions:")?)?;
    ensure!(failed == 0.0, "{failed} transactions failed");
    let done = Done {
        tps: number(after("tps =")?)?,
        transactions: after("number of transactions actually processed:")?.trim().split('/').next().unwrap_or("").parse()?,
    };
    ensure!(done.tps > 0.0 && done.transactions > 0, "no transactions");
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::parse;

    const SAID: &str = "pgbench (15.18)\ntransaction type: <builtin: select only>\nnumber of transactions actually processed: 200/200\n\
        number of failed transactions: 0 (0.000%)\nlatency average = 0.151 ms\ninitial connection time = 5.1 ms\ntps = 26445.5 (without initial connection time)\n";

    #[test]
    fn reads_what_pgbench_says() {
        let done = parse(SAID).unwrap();
        assert_eq!((done.transactions, done.tps), (200, 26445.5));
    }

    #[test]
    fn failed_transactions_have_no_figure() {
        assert!(parse(&SAID.replace(": 0 (0", ": 3 (1")).is_err());
        assert!(parse("tps = nonsense").is_err());
    }
}
