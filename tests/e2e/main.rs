//! Stories with real processes and real clients; one module per story.

#[path = "../support/mod.rs"]
mod support;

mod replication;
