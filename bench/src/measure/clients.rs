//! One client to many, more than there are cores: what waiting for one another costs.

use super::{Bench, subject::Subject};
use crate::load::{Length, Load, Script};
use crate::report::Sample;

/// Clients; rows of the table.
const STEPS: [(u32, [&str; 4]); 5] = [
    (1, ["select, 1 client", "select, 1 client, server CPU", "TPC-B, 1 client", "TPC-B, 1 client, server CPU"]),
    (4, ["select, 4 clients", "select, 4 clients, server CPU", "TPC-B, 4 clients", "TPC-B, 4 clients, server CPU"]),
    (16, ["select, 16 clients", "select, 16 clients, server CPU", "TPC-B, 16 clients", "TPC-B, 16 clients, server CPU"]),
    (64, ["select, 64 clients", "select, 64 clients, server CPU", "TPC-B, 64 clients", "TPC-B, 64 clients, server CPU"]),
    (256, ["select, 256 clients", "select, 256 clients, server CPU", "TPC-B, 256 clients", "TPC-B, 256 clients, server CPU"]),
];

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    // To see that it runs a few are enough.
    let steps = STEPS.into_iter().filter(|(clients, _)| !bench.options.quick || *clients <= bench.options.clients);
    for (clients, [select, select_cpu, tpcb, tpcb_cpu]) in steps {
        for (script, rate, cost) in [(Script::SelectOnly, select, select_cpu), (Script::Tpcb, tpcb, tpcb_cpu)] {
            let load = Load::closed(script, "prepared", clients, Length::Seconds(bench.options.seconds));
            samples.extend(subject.throughput(&load, rate, cost)?);
        }
    }
    Ok(samples)
}
