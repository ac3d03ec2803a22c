//! What one client waits for one commit that is durable on a synchronous standby too.

use anyhow::Context as _;

use super::{Bench, commit, subject::Subject};
use crate::report::{Sample, quantile};

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    let standby = subject.standby()?;
    let session = subject.primary.session()?;
    session.execute("alter system set synchronous_standby_names = 'standby'")?;
    session.execute("select pg_reload_conf()")?;
    session
        .wait_until("select count(*) = 1 from pg_stat_replication where sync_state = 'sync'")
        .with_context(|| format!("the standby does not become synchronous; its log:\n{}", standby.log_tail()))?;
    let samples = commit::latencies(bench, subject);
    // Before the standby goes, whatever came of it: else the next write here would wait for ever.
    session.execute("alter system reset synchronous_standby_names")?;
    session.execute("select pg_reload_conf()")?;
    session.wait_until("select current_setting('synchronous_standby_names') = ''")?;
    let samples = samples?;
    Ok(vec![Sample::lower("latency, median", "ms", quantile(&samples, 0.5)), Sample::lower("latency, p99", "ms", quantile(&samples, 0.99))])
}
