//! COPY FROM into a table with a primary key that lives on, unlike the empty one of `load`.

use std::time::Instant;

use super::{Bench, accounts, micros_each, subject::Subject};
use crate::report::Sample;

/// Keys come neither in order nor twice: a prime that does not divide the number of rows.
const STRIDE: u64 = 7_919;

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    let session = subject.primary.session()?;
    session.execute("drop table if exists bench_copy; create table bench_copy (aid int primary key, bid int, abalance int, filler char(84)); checkpoint")?;
    let rows = accounts(bench.options.scale).unsigned_abs();
    let (began, before) = (Instant::now(), subject.primary.cpu()?);
    let copied =
        session.copy_in("copy bench_copy from stdin", (0..rows).map(|n| format!("{}\t{}\t0\tfiller\n", n * STRIDE % rows, n % 100)))?;
    let took = began.elapsed();
    let cpu = subject.primary.cpu()?.saturating_sub(before);
    anyhow::ensure!(copied == rows, "{copied} rows copied of {rows}");
    let found: i64 = session.value("select count(*) from bench_copy")?;
    anyhow::ensure!(u64::try_from(found) == Ok(rows), "{found} rows found of {rows}");
    session.execute("drop table bench_copy; checkpoint")?;
    Ok(vec![Sample::lower("time", "s", took.as_secs_f64()), Sample::lower("server CPU per row", "us", micros_each(cpu, rows))])
}
