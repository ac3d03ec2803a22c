//! Vacuum of a table whose rows were all changed once, each by a transaction that touched the row alone or one that touched every third.

use std::time::Instant;

use super::{Bench, accounts, micros_each, subject::Subject};
use crate::report::Sample;

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    let session = subject.primary.session()?;
    // Autovacuum would do part of the work beside the clock.
    session.execute("alter table pgbench_accounts set (autovacuum_enabled = off)")?;
    for third in 0..3 {
        session.execute(&format!("update pgbench_accounts set filler = 'changed' where aid % 3 = {third}"))?;
    }
    session.execute("checkpoint")?;
    let (began, before) = (Instant::now(), subject.primary.cpu()?);
    session.execute("vacuum pgbench_accounts")?;
    let took = began.elapsed();
    let cpu = subject.primary.cpu()?.saturating_sub(before);
    session.execute("alter table pgbench_accounts reset (autovacuum_enabled)")?;
    let dead = accounts(bench.options.scale).unsigned_abs();
    Ok(vec![Sample::lower("time", "s", took.as_secs_f64()), Sample::lower("server CPU per dead row", "us", micros_each(cpu, dead))])
}
