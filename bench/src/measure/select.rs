//! Point queries by primary key, in the three protocols of pgbench.

use super::{Bench, micros_each, subject::Subject};
use crate::load::{Length, Load, Script};
use crate::report::Sample;

const PROTOCOLS: [(&str, &str, &str); 3] = [
    ("simple", "simple", "simple, server CPU per transaction"),
    ("extended", "extended", "extended, server CPU per transaction"),
    ("prepared", "prepared", "prepared, server CPU per transaction"),
];

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for (protocol, rate, cost) in PROTOCOLS {
        let load = Load {
            script: Script::SelectOnly,
            protocol,
            clients: bench.options.clients,
            length: Length::Seconds(bench.options.seconds),
            rate: None,
            no_wait: false,
        };
        let (done, cpu) = subject.run(&load)?;
        samples.push(Sample::higher(rate, "tps", done.tps));
        samples.push(Sample::lower(cost, "us", micros_each(cpu, done.transactions)));
    }
    Ok(samples)
}
