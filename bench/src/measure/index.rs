//! Building an index over a table that is there: read, sort, write.

use std::time::Instant;

use super::{Bench, accounts, micros_each, subject::Subject};
use crate::report::Sample;

/// Definition; rows of the table.
const INDEXES: [(&str, &str, &str); 2] = [
    ("(abalance, aid)", "two integers: time", "two integers: server CPU per row"),
    ("(md5(aid::text))", "an expression's text: time", "an expression's text: server CPU per row"),
];

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    let session = subject.primary.session()?;
    let rows = accounts(bench.options.scale).unsigned_abs();
    let mut samples = Vec::new();
    for (columns, time, cost) in INDEXES {
        session.execute("checkpoint")?;
        let (began, before) = (Instant::now(), subject.primary.cpu()?);
        session.execute(&format!("create index bench_index on pgbench_accounts {columns}"))?;
        let took = began.elapsed();
        let cpu = subject.primary.cpu()?.saturating_sub(before);
        session.execute("drop index bench_index")?;
        samples.push(Sample::lower(time, "s", took.as_secs_f64()));
        samples.push(Sample::lower(cost, "us", micros_each(cpu, rows)));
    }
    Ok(samples)
}
