//! Replay alone: a standby receives while its replay is paused, then replays what it has.

use std::time::Instant;

use super::subject::{Subject, lsn, replayed};
use super::{Bench, micros_each};
use crate::report::Sample;

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    subject.primary.session()?.execute("checkpoint")?;
    let standby = subject.standby()?;
    let session = standby.session()?;
    session.execute("select pg_wal_replay_pause()")?;
    let (transactions, bytes) = subject.make_wal(&bench.options)?;
    let target = lsn(&subject.primary.session()?)?;
    session.wait_until(&format!("select coalesce(pg_last_wal_receive_lsn() >= '{target}'::pg_lsn, false)"))?;

    let (began, before) = (Instant::now(), standby.cpu()?);
    session.execute("select pg_wal_replay_resume()")?;
    session.wait_until(&replayed(&target))?;
    let took = began.elapsed();
    let cpu = standby.cpu()?.saturating_sub(before);
    subject.verify_on(&standby)?;
    #[expect(clippy::cast_precision_loss, reason = "counts of transactions are far below 2^53")]
    let rate = transactions as f64 / took.as_secs_f64();
    Ok(vec![
        Sample::higher("transactions", "per s", rate),
        Sample::higher("WAL", "MB/s", bytes / 1e6 / took.as_secs_f64()),
        Sample::lower("standby CPU per transaction", "us", micros_each(cpu, transactions)),
    ])
}
