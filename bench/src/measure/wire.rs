//! Bytes on the wire to a standby for a transaction, headers and status reports included, counted by a relay between the two.
//!
//! Once as each system sends WAL plainly, once as it comes: compressed by zstd in Afterimage. PostgreSQL has one way, so it is in both rows.

use anyhow::Context as _;

use super::{Bench, subject::Subject};
use crate::program::System;
use crate::relay::Relay;
use crate::report::Sample;

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    subject.primary.session()?.execute("checkpoint")?;
    let relay = Relay::new(subject.primary.port)?;
    let mut standby = subject.standby()?;
    let conninfo = format!("host=127.0.0.1 port={} user=postgres application_name=standby", relay.port);
    standby.session()?.execute(&format!("alter system set primary_conninfo = '{conninfo}'"))?;
    let mut per_transaction = Vec::new();
    for plain in [false, true] {
        if subject.primary.system == System::Afterimage {
            let way = if plain { "off" } else { "zstd" };
            standby.session()?.execute(&format!("alter system set wal_receiver_compression = '{way}'"))?;
        }
        standby.stop()?;
        standby.start()?;
        subject.wait_for(&standby)?;
        let before = relay.bytes();
        let (transactions, _) = subject.make_wal(&bench.options)?;
        subject.wait_for(&standby).context("over the relay")?;
        let after = relay.bytes();
        #[expect(clippy::cast_precision_loss, reason = "bytes and transactions of a benchmark are far below 2^53")]
        let each = |from: u64, to: u64| (to - from) as f64 / transactions as f64;
        per_transaction.push((each(before.0, after.0), each(before.1, after.1)));
    }
    subject.verify_on(&standby)?;
    let [(zstd, _), (plain, reports)] = per_transaction[..] else { anyhow::bail!("two ways") };
    Ok(vec![
        Sample::lower("to the standby per transaction, plain", "bytes", plain),
        Sample::lower("to the standby per transaction, zstd where there is", "bytes", zstd),
        Sample::lower("from the standby per transaction", "bytes", reports),
    ])
}
