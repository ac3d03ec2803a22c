//! Failover: the primary is killed, the standby promoted through a session, and another session writes as soon as it may.

use std::time::Instant;

use anyhow::{Context as _, bail, ensure};

use super::{Bench, subject::Subject};
use crate::report::Sample;
use crate::session::PATIENCE;

/// `read_only_sql_transaction`.
const READ_ONLY: &str = "25006";

pub(super) fn round(bench: &Bench, subject: &mut Subject) -> anyhow::Result<Vec<Sample>> {
    let standby = subject.standby()?;
    subject.make_wal(&bench.options)?;
    subject.primary.session()?.execute("delete from bench_marks where id = 1")?;
    subject.wait_for(&standby)?;
    let (operator, writer) = (standby.session()?, standby.session()?);
    let insert = writer.prepare("insert into bench_marks values (1)")?;
    subject.primary.kill()?;

    let began = Instant::now();
    operator.execute("select pg_promote(false)")?;
    loop {
        match writer.change(&insert, &[]) {
            Ok(1) => break,
            Ok(rows) => bail!("the first write changed {rows} rows"),
            Err(error) if error.code().is_some_and(|c| c.code() == READ_ONLY) && began.elapsed() < PATIENCE => {}
            Err(error) => return Err(error).with_context(|| format!("the standby's log:\n{}", standby.log_tail())),
        }
    }
    let took = began.elapsed();
    let marks: i64 = writer.value("select count(*) from bench_marks where id = 1")?;
    ensure!(marks == 1, "the first write is not there");
    subject.verify_on(&standby)?;
    drop(standby);
    subject.primary.start()?;
    Ok(vec![Sample::lower("request to first write", "ms", took.as_secs_f64() * 1000.0)])
}
