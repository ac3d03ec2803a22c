//! `afterimage-bench`: Afterimage and PostgreSQL 15 side by side, on this machine, in one run.
//!
//! Both get the same settings, data and load, in rounds that alternate, and each figure is the median of its rounds. The order of files is the
//! order of work: [`options`] what was asked for, [`machine`] where it runs, [`program`] and [`node`] the two servers, [`load`] what they are given,
//! `measure/` one file per measured thing, [`report`] the table.
//!
//! Every measurement also looks at the data afterwards: a server that is fast because it loses rows has no figure.

mod load;
mod machine;
mod measure;
mod node;
mod options;
mod process;
mod program;
mod relay;
mod report;
mod session;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::measure::Bench;
use crate::options::Options;
use crate::process::Interrupt;
use crate::report::Report;

fn main() -> ExitCode {
    match run(&Options::parse().settled()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("afterimage-bench: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, prints the table, writes the JSON. The servers end when `bench` goes, on every way out.
fn run(options: &Options) -> anyhow::Result<()> {
    let wanted = measure::select(&options.only)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().context("could not start a runtime")?;
    let interrupt = Arc::new(Interrupt::default());
    let mut signals = {
        let _in_runtime = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let raised = Arc::clone(&interrupt);
    runtime.spawn(async move {
        tokio::select! {
            _ = signals.0.recv() => {}
            _ = signals.1.recv() => {}
        }
        raised.raise();
    });

    let bench = Bench::new(options.clone(), runtime.handle().clone(), interrupt)?;
    let mut report = Report::new(bench.facts());
    print!("{}", report.heading());
    for measurement in wanted {
        eprintln!("{}: {}", measurement.name, measurement.about);
        report.add(measurement.name, bench.rounds(measurement).with_context(|| measurement.name.to_owned())?);
    }
    print!("{}", report.table());
    if let Some(path) = &options.json {
        report.write_json(path).with_context(|| format!("could not write \"{}\"", path.display()))?;
    }
    Ok(())
}
