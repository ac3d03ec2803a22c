//! Catching up: a standby that was away is started, asks for what it lacks, receives and replays it.

use std::time::Instant;

use super::subject::{Subject, lsn, replayed};
use super::{Bench, micros_each};
use crate::report::Sample;

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    subject.primary.session()?.execute("checkpoint")?;
    let mut standby = subject.standby()?;
    standby.stop()?;
    let (transactions, bytes) = subject.make_wal(&bench.options)?;
    let target = lsn(&subject.primary.session()?)?;

    let began = Instant::now();
    standby.start()?;
    standby.session()?.wait_until(&replayed(&target))?;
    let took = began.elapsed();
    let cpu = standby.cpu()?;
    subject.verify_on(&standby)?;
    #[expect(clippy::cast_precision_loss, reason = "counts of transactions are far below 2^53")]
    let rate = transactions as f64 / took.as_secs_f64();
    Ok(vec![
        Sample::lower("start to level", "s", took.as_secs_f64()),
        Sample::higher("transactions", "per s", rate),
        Sample::higher("WAL", "MB/s", bytes / 1e6 / took.as_secs_f64()),
        Sample::lower("standby CPU per transaction", "us", micros_each(cpu, transactions)),
    ])
}
