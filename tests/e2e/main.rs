//! Stories with real processes and real clients; one module per story.

#[path = "../support/mod.rs"]
mod support;

mod client;
mod concurrency;
mod large_values;
mod operations;
mod pgbench;
mod protocol;
mod quickstart;
mod replication;
mod rewind;
