//! A session over libpq's protocol, for stories that need several at once.

use std::future::Future;

use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage};

use crate::support::node::Node;

/// Runs a story's asynchronous part.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime").block_on(future)
}

/// A session of `postgres` in the database `postgres`.
pub(crate) async fn connect(node: &Node) -> Client {
    try_connect(&node.conninfo("e2e")).await.expect("a connection")
}

/// A session with another connection string.
pub(crate) async fn try_connect(conninfo: &str) -> Result<Client, Error> {
    let mut config: Config = conninfo.parse().expect("a connection string");
    if config.get_dbname().is_none() {
        config.dbname("postgres");
    }
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Rows of a simple query, cells joined by `|`, rows by newline.
pub(crate) async fn text(client: &Client, sql: &str) -> String {
    match client.simple_query(sql).await {
        Ok(messages) => rows(messages),
        Err(e) => panic!("{sql}: {}", describe(&e)),
    }
}

fn rows(messages: Vec<SimpleQueryMessage>) -> String {
    let mut lines = Vec::new();
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            lines.push((0..row.len()).map(|i| row.get(i).unwrap_or("")).collect::<Vec<_>>().join("|"));
        }
    }
    lines.join("\n")
}

/// SQLSTATE and message of a statement that must fail.
pub(crate) async fn error(client: &Client, sql: &str) -> String {
    match client.simple_query(sql).await {
        Ok(messages) => panic!("{sql} succeeded: {}", rows(messages)),
        Err(e) => describe(&e),
    }
}

/// SQLSTATE and message of an error.
pub(crate) fn describe(error: &Error) -> String {
    match error.as_db_error() {
        Some(e) => format!("{} {}", e.code().code(), e.message()),
        None => error.to_string(),
    }
}
