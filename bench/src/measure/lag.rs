//! Replication lag as a client sees it: its commit was acknowledged on the primary; how long until another client sees the row on the standby.
//!
//! The standby is asked again and again; both systems run the same throttled TPC-B load meanwhile. The clone that makes the standby is measured too.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::{Bench, subject::Subject};
use crate::load::{Length, Load, Script};
use crate::report::{Sample, quantile};
use crate::session::PATIENCE;

/// Transactions a second of the load beside it.
const RATE: u32 = 300;

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    subject.primary.session()?.execute("drop table if exists bench_lag; create table bench_lag (id int primary key)")?;
    let bytes = subject.primary.data_bytes()?;
    let (mut standby, clone) = subject.primary.clone_standby(true)?;
    let began = Instant::now();
    standby.start()?;
    let start = began.elapsed();
    subject.wait_for(&standby)?;

    let load = Load {
        script: Script::Tpcb,
        protocol: "prepared",
        clients: bench.options.clients,
        length: Length::Seconds(bench.options.seconds),
        rate: Some(RATE),
        no_wait: false,
    };
    let (writer, reader) = (subject.primary.session()?, standby.session()?);
    let insert = writer.prepare("insert into bench_lag values ($1)")?;
    let look = reader.prepare("select 1 from bench_lag where id = $1")?;
    let length = Duration::from_secs(bench.options.seconds.into());
    let mut lags = subject.run_beside(&load, || {
        let (began, mut lags) = (Instant::now(), Vec::new());
        while began.elapsed() < length {
            let id = i32::try_from(lags.len())?;
            writer.change(&insert, &[&id])?;
            let committed = Instant::now();
            while reader.count(&look, &[&id])? == 0 {
                if committed.elapsed() > PATIENCE {
                    bail!("row {id} does not arrive on the standby");
                }
            }
            lags.push(committed.elapsed().as_secs_f64() * 1000.0);
        }
        Ok(lags)
    })?;
    subject.wait_for(&standby)?;
    subject.verify_on(&standby)?;
    let rows: i64 = reader.value("select count(*) from bench_lag")?;
    ensure!(usize::try_from(rows) == Ok(lags.len()), "the standby shows {rows} of {} rows", lags.len());
    lags.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "bytes of a benchmark's data are far below 2^53")]
    let rate = bytes as f64 / 1e6 / clone.as_secs_f64();
    Ok(vec![
        Sample::lower("base backup", "s", clone.as_secs_f64()),
        Sample::higher("base backup, data", "MB/s", rate),
        Sample::lower("start of the standby", "s", start.as_secs_f64()),
        Sample::lower("lag, median", "ms", quantile(&lags, 0.5)),
        Sample::lower("lag, p99", "ms", quantile(&lags, 0.99)),
    ])
}
