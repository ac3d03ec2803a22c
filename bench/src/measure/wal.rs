//! WAL bytes of a transaction.
//!
//! PostgreSQL logs a whole page at the first change after a checkpoint, so what a transaction costs depends on how long ago that was. Both ends are
//! shown: right after a checkpoint, and with `full_page_writes = off`, the least PostgreSQL ever writes (and unsafe, outside of a measurement).
//! Afterimage logs no page images in normal running.

use super::{Bench, subject::Subject};
use crate::program::System;
use crate::report::Sample;

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    let session = subject.primary.session()?;
    session.execute("checkpoint")?;
    let after_checkpoint = bytes_each(bench, subject)?;
    if subject.primary.system == System::Postgres {
        session.execute("alter system set full_page_writes = off")?;
        session.execute("select pg_reload_conf()")?;
        // The checkpointer is who turns it off: by its record in the WAL.
        session.wait_until("select current_setting('full_page_writes') = 'off'")?;
        session.execute("checkpoint")?;
    }
    let without_images = bytes_each(bench, subject)?;
    if subject.primary.system == System::Postgres {
        session.execute("alter system reset full_page_writes")?;
        session.execute("select pg_reload_conf()")?;
        session.wait_until("select current_setting('full_page_writes') = 'on'")?;
        session.execute("checkpoint")?;
    }
    Ok(vec![
        Sample::lower("per transaction, after a checkpoint", "bytes", after_checkpoint),
        Sample::lower("per transaction, full_page_writes off", "bytes", without_images),
    ])
}

#[expect(clippy::cast_precision_loss, reason = "counts of transactions are far below 2^53")]
fn bytes_each(bench: &Bench, subject: &mut Subject) -> anyhow::Result<f64> {
    let (transactions, bytes) = subject.make_wal(&bench.options)?;
    Ok(bytes / transactions as f64)
}
