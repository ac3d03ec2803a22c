//! One system with pgbench's tables loaded, and what its rows must add up to.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::{accounts, micros_each};
use crate::load::{Done, Length, Load, Script};
use crate::node::{Node, Surroundings};
use crate::options::Options;
use crate::program::System;
use crate::report::Sample;
use crate::session::Session;

/// A loaded primary.
pub(crate) struct Subject {
    /// It.
    pub(crate) primary: Node,
    /// Transactions of TPC-B since the load: rows of pgbench_history.
    pub(crate) history: u64,
    scale: u32,
    around: Surroundings,
}

impl Subject {
    /// Makes and loads one.
    pub(crate) fn load(around: &Surroundings, options: &Options, system: System) -> anyhow::Result<Self> {
        let primary = Node::primary(around, system)?;
        let mut subject = Self { primary, history: 0, scale: options.scale, around: around.clone() };
        subject.fill()?;
        subject.primary.session()?.execute("create table bench_marks (id int primary key); checkpoint")?;
        Ok(subject)
    }

    /// `pgbench -i`.
    pub(crate) fn fill(&mut self) -> anyhow::Result<()> {
        let mut command = self.around.programs.pgbench();
        command.args([
            "-i",
            "-q",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-p",
            &self.primary.port.to_string(),
            "-s",
            &self.scale.to_string(),
            "postgres",
        ]);
        self.around.interrupt.run(&mut command)?;
        self.history = 0;
        Ok(())
    }

    /// Runs a load; its figures and the CPU time the server used for it.
    pub(crate) fn run(&mut self, load: &Load) -> anyhow::Result<(Done, Duration)> {
        let before = self.primary.cpu()?;
        let done = load.run(&self.around.programs, &self.around.interrupt, &self.primary)?;
        let cpu = self.primary.cpu()?.saturating_sub(before);
        if matches!(load.script, Script::Tpcb) {
            self.history += done.transactions;
        }
        Ok((done, cpu))
    }

    /// Runs a load; its transactions a second and the server's CPU time for each, under these names.
    pub(crate) fn throughput(&mut self, load: &Load, rate: &'static str, cost: &'static str) -> anyhow::Result<[Sample; 2]> {
        let (done, cpu) = self.run(load)?;
        Ok([Sample::higher(rate, "tps", done.tps), Sample::lower(cost, "us", micros_each(cpu, done.transactions))])
    }

    /// Runs a load while something else happens.
    pub(crate) fn run_beside<T>(&mut self, load: &Load, beside: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let running = load.start(&self.around.programs, &self.primary)?;
        let result = beside();
        self.history += running.finish(&self.around.interrupt)?.transactions;
        result
    }

    /// Makes WAL: so many TPC-B transactions, whose commits do not wait, then one that does and so makes all durable. How many and how many bytes.
    pub(crate) fn make_wal(&mut self, options: &Options) -> anyhow::Result<(u64, f64)> {
        let load = Load {
            script: Script::Tpcb,
            protocol: "prepared",
            clients: options.clients,
            length: Length::Transactions(options.transactions),
            rate: None,
            no_wait: true,
        };
        let session = self.primary.session()?;
        let before: String = lsn(&session)?;
        let (done, _) = self.run(&load)?;
        session.execute("delete from bench_marks where id = -1; insert into bench_marks values (-1)")?;
        let bytes = session.value::<f64>(&format!("select pg_wal_lsn_diff(pg_current_wal_lsn(), '{before}')::float8"))?;
        Ok((done.transactions, bytes))
    }

    /// A running standby that has replayed all that is here.
    pub(crate) fn standby(&self) -> anyhow::Result<Node> {
        let (mut standby, _) = self.primary.clone_standby(false)?;
        standby.start()?;
        self.wait_for(&standby)?;
        Ok(standby)
    }

    /// Waits until a standby has replayed all that is here.
    pub(crate) fn wait_for(&self, standby: &Node) -> anyhow::Result<()> {
        let target = lsn(&self.primary.session()?)?;
        standby.session()?.wait_until(&replayed(&target)).with_context(|| format!("the standby's log:\n{}", standby.log_tail()))
    }

    /// Every transaction is there, once and whole, on the primary.
    pub(crate) fn verify(&self) -> anyhow::Result<()> {
        self.verify_on(&self.primary)
    }

    /// Every transaction is there, once and whole.
    pub(crate) fn verify_on(&self, node: &Node) -> anyhow::Result<()> {
        let session = node.session()?;
        let rows: i64 = session.value("select count(*) from pgbench_accounts")?;
        ensure!(rows == accounts(self.scale), "{rows} accounts where {} were loaded", accounts(self.scale));
        let history: i64 = session.value("select count(*) from pgbench_history")?;
        ensure!(
            u64::try_from(history) == Ok(self.history),
            "{history} rows of history where {} transactions were acknowledged",
            self.history
        );
        let sums: String = session.value(
            "select concat_ws(' ', (select coalesce(sum(abalance), 0) from pgbench_accounts), (select coalesce(sum(tbalance), 0) from pgbench_tellers), \
             (select coalesce(sum(bbalance), 0) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history))",
        )?;
        let fields: Vec<&str> = sums.split(' ').collect();
        ensure!(fields.len() == 4 && fields.iter().all(|f| *f == fields[0]), "balances differ: {sums}");
        Ok(())
    }
}

/// A node's end of WAL.
pub(crate) fn lsn(session: &Session) -> anyhow::Result<String> {
    session.value("select pg_current_wal_lsn()::text")
}

/// Asks a standby whether it has replayed up to a position.
pub(crate) fn replayed(target: &str) -> String {
    format!("select coalesce(pg_last_wal_replay_lsn() >= '{target}'::pg_lsn, false)")
}
