//! One connection, used from plain threads.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use futures_util::SinkExt as _;
use tokio::runtime::Handle;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{Client, NoTls, Statement};

/// Longest anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Between two questions where there is nothing to wait on.
const PAUSE: Duration = Duration::from_millis(2);

/// A connection. Closed when dropped.
pub(crate) struct Session {
    client: Client,
    runtime: Handle,
}

impl Session {
    /// # Errors
    /// The server does not take it.
    pub(crate) fn open(runtime: &Handle, port: u16) -> anyhow::Result<Self> {
        let conninfo = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres application_name=bench");
        let client = runtime.block_on(async {
            let (client, io) = tokio_postgres::connect(&conninfo, NoTls).await?;
            tokio::spawn(io);
            Ok::<_, tokio_postgres::Error>(client)
        })?;
        Ok(Self { client, runtime: runtime.clone() })
    }

    /// Opens one as soon as the server takes it and answers a query.
    pub(crate) fn open_when_ready(runtime: &Handle, port: u16, mut alive: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let began = Instant::now();
        loop {
            alive()?;
            match Self::open(runtime, port).and_then(|s| s.value::<i32>("select 1").map(|_| s)) {
                Ok(session) => return Ok(session),
                Err(error) if began.elapsed() > PATIENCE => return Err(error).context("the server does not become ready"),
                Err(_) => pause(runtime),
            }
        }
    }

    /// Statements without an answer.
    pub(crate) fn execute(&self, sql: &str) -> anyhow::Result<()> {
        self.runtime.block_on(self.client.batch_execute(sql)).with_context(|| sql.to_owned())
    }

    /// The one value of a query.
    pub(crate) fn value<T: FromSqlOwned>(&self, sql: &str) -> anyhow::Result<T> {
        let row = self.runtime.block_on(self.client.query_one(sql, &[])).with_context(|| sql.to_owned())?;
        row.try_get(0).with_context(|| sql.to_owned())
    }

    /// A statement for the two below.
    pub(crate) fn prepare(&self, sql: &str) -> anyhow::Result<Statement> {
        self.runtime.block_on(self.client.prepare(sql)).with_context(|| sql.to_owned())
    }

    /// Runs a prepared change; how many rows it changed.
    pub(crate) fn change(&self, statement: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<u64, tokio_postgres::Error> {
        self.runtime.block_on(self.client.execute(statement, params))
    }

    /// COPY FROM STDIN of these lines; how many rows the server took.
    pub(crate) fn copy_in(&self, sql: &str, lines: impl Iterator<Item = String>) -> anyhow::Result<u64> {
        /// Of one message.
        const CHUNK: usize = 64 << 10;
        self.runtime
            .block_on(async {
                let mut sink = std::pin::pin!(self.client.copy_in::<_, Bytes>(sql).await?);
                let mut chunk = BytesMut::with_capacity(CHUNK + 256);
                for line in lines {
                    chunk.extend_from_slice(line.as_bytes());
                    if chunk.len() >= CHUNK {
                        sink.send(chunk.split().freeze()).await?;
                    }
                }
                sink.send(chunk.freeze()).await?;
                sink.finish().await
            })
            .with_context(|| sql.to_owned())
    }

    /// How many rows a prepared query finds.
    pub(crate) fn count(&self, statement: &Statement, params: &[&(dyn ToSql + Sync)]) -> anyhow::Result<usize> {
        Ok(self.runtime.block_on(self.client.query(statement, params))?.len())
    }

    /// Asks until the answer is true.
    pub(crate) fn wait_until(&self, question: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        while !self.value::<bool>(question)? {
            if began.elapsed() > PATIENCE {
                bail!("waited {} s for: {question}", PATIENCE.as_secs());
            }
            pause(&self.runtime);
        }
        Ok(())
    }
}

/// Leaves the processor to whom we wait for.
pub(crate) fn pause(runtime: &Handle) {
    runtime.block_on(async { tokio::time::sleep(PAUSE).await });
}
