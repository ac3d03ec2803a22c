//! Rewind: a node that went its own way is made to follow again, and started until it is level.
//!
//! A clone is promoted and takes transactions of its own while the primary takes others; then it is stopped and rewound. PostgreSQL's needs `wal_log_hints`,
//! which is on for that node only.

use std::time::Instant;

use super::{Bench, subject::Subject};
use crate::load::{Length, Load, Script};
use crate::program::System;
use crate::report::Sample;

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    let (mut stray, _) = subject.primary.clone_standby(false)?;
    if stray.system == System::Postgres {
        stray.add_settings(&["wal_log_hints = on"])?;
    }
    stray.start()?;
    subject.wait_for(&stray)?;
    let session = stray.session()?;
    session.execute("select pg_promote()")?;
    session.execute("checkpoint")?;
    let load = Load {
        script: Script::Tpcb,
        protocol: "prepared",
        clients: bench.options.clients,
        length: Length::Transactions(bench.options.transactions / 4),
        rate: None,
        no_wait: true,
    };
    bench.run_on(&stray, &load)?;
    subject.run(&load)?;
    // Commits that did not wait are to be there in any case.
    subject.primary.session()?.execute("delete from bench_marks where id = -1; insert into bench_marks values (-1)")?;
    let bytes = stray.data_bytes()?;
    stray.stop()?;

    let began = Instant::now();
    stray.rewind_to(&subject.primary)?;
    let rewound = began.elapsed();
    stray.configure()?;
    let began = Instant::now();
    stray.start()?;
    subject.wait_for(&stray)?;
    let level = began.elapsed();
    subject.verify_on(&stray)?;
    #[expect(clippy::cast_precision_loss, reason = "bytes of a benchmark's data are far below 2^53")]
    let rate = bytes as f64 / 1e6 / rewound.as_secs_f64();
    Ok(vec![
        Sample::lower("rewind", "s", rewound.as_secs_f64()),
        Sample::higher("rewind, data looked at", "MB/s", rate),
        Sample::lower("start to level", "s", level.as_secs_f64()),
    ])
}
