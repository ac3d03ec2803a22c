//! Memory of connections that have each run a query and now do nothing.

use super::{Bench, subject::Subject};
use crate::report::Sample;
use crate::session::Session;

const CONNECTIONS: u32 = 1000;

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    let connections = if bench.options.quick { 50 } else { CONNECTIONS };
    let before = subject.primary.memory()?;
    let mut open = Vec::new();
    for aid in 1..=connections {
        let session = subject.primary.session()?;
        let statement = session.prepare("select abalance from pgbench_accounts where aid = $1")?;
        anyhow::ensure!(session.count(&statement, &[&i32::try_from(aid)?])? == 1, "account {aid} is not there");
        open.push((session, statement));
    }
    let grown = subject.primary.memory()?.saturating_sub(before);
    // The statements close on their connections' way out.
    let sessions: Vec<Session> = open.into_iter().map(|(session, _)| session).collect();
    drop(sessions);
    #[expect(clippy::cast_precision_loss, reason = "bytes of memory are far below 2^53")]
    let each = grown as f64 / f64::from(connections) / 1024.0;
    Ok(vec![Sample::lower("memory per connection", "kB", each)])
}
