//! `pgbench -i`: COPY into an empty table, vacuum, primary keys.

use std::time::Instant;

use super::{Bench, accounts, subject::Subject};
use crate::report::Sample;

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    let (began, before) = (Instant::now(), subject.primary.cpu()?);
    subject.fill()?;
    let took = began.elapsed();
    let cpu = subject.primary.cpu()?.saturating_sub(before);
    let rows = accounts(bench.options.scale).unsigned_abs();
    subject.primary.session()?.execute("checkpoint")?;
    Ok(vec![Sample::lower("time", "s", took.as_secs_f64()), Sample::lower("server CPU per row", "us", super::micros_each(cpu, rows))])
}
