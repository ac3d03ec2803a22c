//! The same random statements on PostgreSQL 15 and on us: same rows, same SQLSTATEs, same texts.
//!
//! `AFTERIMAGE_SEED` chooses the run (printed), `AFTERIMAGE_DIFF_STATEMENTS` its length. What PostgreSQL leaves open is not generated or not
//! compared: rows without a total order are compared as sets, float sums do not occur, an expression cannot fail on some rows only.

#[path = "../support/mod.rs"]
mod support;

mod concurrent;
mod generate;
mod stories;
mod tools;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use generate::Generator;
use support::node::Node;
use support::number;
use support::oracle::Oracle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// What a statement gave.
#[derive(Clone, PartialEq, Eq)]
enum Outcome {
    /// Rows as text, `None` for null; rows affected or returned.
    Rows(Vec<Vec<Option<String>>>, u64),
    /// SQLSTATE and message.
    Error(String, String),
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rows(rows, n) => {
                writeln!(f, "{n} rows")?;
                rows.iter().take(40).try_for_each(|row| {
                    let cells: Vec<&str> = row.iter().map(|c| c.as_deref().unwrap_or("(null)")).collect();
                    writeln!(f, "  {}", cells.join(" | "))
                })
            }
            Self::Error(state, message) => writeln!(f, "{state} {message}"),
        }
    }
}

async fn connect(conninfo: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(conninfo, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

async fn run(client: &Client, sql: &str, ordered: bool) -> Outcome {
    match client.simple_query(sql).await {
        Ok(messages) => {
            let (mut rows, mut count) = (Vec::new(), 0);
            for message in messages {
                match message {
                    SimpleQueryMessage::Row(row) => rows.push((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect::<Vec<_>>()),
                    SimpleQueryMessage::CommandComplete(n) => count = n,
                    SimpleQueryMessage::RowDescription(_) | _ => {}
                }
            }
            if !ordered {
                rows.sort();
            }
            Outcome::Rows(rows, count)
        }
        Err(error) => match error.as_db_error() {
            Some(e) => Outcome::Error(e.code().code().to_owned(), e.message().to_owned()),
            None => Outcome::Error("connection".to_owned(), error.to_string()),
        },
    }
}

/// Runs the same statements on two servers; the report of what differs, empty if nothing does.
fn compare(seed: u64, statements: u64, theirs: &str, ours: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (theirs, ours) = (connect(theirs).await, connect(ours).await);
        let mut generator = Generator::new(seed);
        let mut history: Vec<String> = Vec::new();
        let mut different = String::new();
        let (mut failures, mut errors, mut states) = (0, 0, BTreeMap::new());
        for i in 0..statements {
            let statement = generator.next();
            let expected = run(&theirs, &statement.sql, statement.ordered).await;
            let got = run(&ours, &statement.sql, statement.ordered).await;
            if let Outcome::Error(state, _) = &expected {
                errors += 1;
                *states.entry(state.clone()).or_insert(0_u64) += 1;
                generator.failed(&statement.sql, state);
            }
            let changes = statement.changes;
            history.push(statement.sql);
            if expected != got {
                failures += 1;
                let last = history.last().expect("just pushed");
                write!(different, "--- seed {seed}, statement {i}\n{last};\nexpected: {expected:?}got: {got:?}").expect("a string");
                if changes || failures >= 10 {
                    // From here the two no longer hold the same rows.
                    let from = history.len().saturating_sub(25);
                    write!(different, "--- before it\n{}", history[from..].join(";\n")).expect("a string");
                    break;
                }
            }
        }
        println!("seed {seed}: {} statements, {errors} of them errors: {states:?}", history.len());
        // A run in which everything fails would prove nothing.
        assert!(errors * 4 < statements, "{errors} of {statements} statements are errors: the generator is wrong");
        different
    })
}

#[test]
fn random_statements_give_what_postgresql_gives() {
    let oracle = Oracle::start("");
    let node = Node::start_new("diff", "");
    let ours = format!("{} dbname=postgres", node.conninfo("diff"));
    let different = compare(number("AFTERIMAGE_SEED", 1), number("AFTERIMAGE_DIFF_STATEMENTS", 1500), &oracle.conninfo(), &ours);
    assert!(different.is_empty(), "{different}");
}

/// `AFTERIMAGE_SEED` is the first of `AFTERIMAGE_DIFF_RUNS` seeds, each of `AFTERIMAGE_DIFF_STEPS` statements.
#[test]
fn two_sessions_wait_for_each_other_as_on_postgresql() {
    let oracle = Oracle::start("");
    let node = Node::start_new("diff_concurrent", "");
    let ours = format!("{} dbname=postgres", node.conninfo("diff"));
    let first = number("AFTERIMAGE_SEED", 1);
    for seed in first..first + number("AFTERIMAGE_DIFF_RUNS", 8) {
        let different = concurrent::compare(seed, number("AFTERIMAGE_DIFF_STEPS", 250), &oracle.conninfo(), &ours);
        assert!(different.is_empty(), "{different}");
    }
}

#[test]
fn isolation_levels_allow_what_postgresqls_allow() {
    let oracle = Oracle::start("max_prepared_transactions = 5");
    let node = Node::start_new("diff_stories", "max_prepared_transactions = 5\nfsync = off");
    let ours = format!("{} dbname=postgres", node.conninfo("diff"));
    let different = stories::compare(&oracle.conninfo(), &ours);
    assert!(different.is_empty(), "{different}");
}

#[test]
fn what_is_generated_does_not_depend_on_the_plan() {
    let plain = Oracle::start("");
    let other = Oracle::start("enable_seqscan = off\nenable_hashjoin = off\nenable_hashagg = off\nenable_mergejoin = off");
    let different = compare(number("AFTERIMAGE_SEED", 1), number("AFTERIMAGE_DIFF_STATEMENTS", 1500), &plain.conninfo(), &other.conninfo());
    assert!(different.is_empty(), "{different}");
}
