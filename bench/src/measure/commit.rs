//! What one client waits for one durable commit.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{Bench, subject::Subject};
use crate::report::{Sample, quantile};

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    let samples = latencies(bench, subject)?;
    Ok(vec![Sample::lower("latency, median", "ms", quantile(&samples, 0.5)), Sample::lower("latency, p99", "ms", quantile(&samples, 0.99))])
}

/// Milliseconds of one insert after another, sorted.
pub(super) fn latencies(bench: &Bench, subject: &Subject) -> anyhow::Result<Vec<f64>> {
    let session = subject.primary.session()?;
    session.execute("drop table if exists bench_commit; create table bench_commit (id int primary key, note text)")?;
    let insert = session.prepare("insert into bench_commit values ($1, 'one row')")?;
    let length = Duration::from_secs(bench.options.seconds.into());
    let (began, mut id, mut samples) = (Instant::now(), 0_i32, Vec::new());
    while began.elapsed() < length {
        id += 1;
        let sent = Instant::now();
        session.change(&insert, &[&id])?;
        samples.push(sent.elapsed().as_secs_f64() * 1000.0);
    }
    let rows: i64 = session.value("select count(*) from bench_commit")?;
    ensure!(rows == i64::from(id), "{rows} rows where {id} were acknowledged");
    samples.sort_by(f64::total_cmp);
    Ok(samples)
}
