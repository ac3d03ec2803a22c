//! pgbench's TPC-B: three updates, a select and an insert in a transaction that is durable when it is acknowledged.

use super::{Bench, subject::Subject};
use crate::load::{Length, Load, Script};
use crate::report::Sample;

const PROTOCOLS: [(&str, &str, &str); 2] =
    [("simple", "simple", "simple, server CPU per transaction"), ("prepared", "prepared", "prepared, server CPU per transaction")];

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for (protocol, rate, cost) in PROTOCOLS {
        let load = Load::closed(Script::Tpcb, protocol, bench.options.clients, Length::Seconds(bench.options.seconds));
        samples.extend(subject.throughput(&load, rate, cost)?);
    }
    Ok(samples)
}
