//! Crash recovery: all processes get SIGKILL with so many transactions since the checkpoint; from start to the first answer.
//!
//! Transactions a second compare; megabytes a second do not quite, since the same work is not the same WAL in both.

use super::{Bench, micros_each, subject::Subject};
use crate::report::Sample;

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    subject.primary.session()?.execute("checkpoint")?;
    let (transactions, bytes) = subject.make_wal(&bench.options)?;
    subject.primary.kill()?;
    let took = subject.primary.start()?;
    let cpu = subject.primary.cpu()?;
    #[expect(clippy::cast_precision_loss, reason = "counts of transactions are far below 2^53")]
    let rate = transactions as f64 / took.as_secs_f64();
    Ok(vec![
        Sample::lower("start to first answer", "s", took.as_secs_f64()),
        Sample::higher("transactions recovered", "per s", rate),
        Sample::higher("WAL recovered", "MB/s", bytes / 1e6 / took.as_secs_f64()),
        Sample::lower("server CPU per transaction", "us", micros_each(cpu, transactions)),
    ])
}
