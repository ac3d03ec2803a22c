//! Stories with real processes and real clients; one module per story.

#[path = "../support/mod.rs"]
mod support;

mod archive;
mod basebackup;
mod client;
mod concurrency;
mod conflicts;
mod faults;
mod file_copy;
mod histories;
mod large_values;
mod network;
mod operations;
mod pgbench;
mod promotion;
mod protocol;
mod queries;
mod quickstart;
mod reads;
mod replication;
mod rewind;
mod serializable;
mod slots;
mod soak;
mod synchronous;
mod tablespaces;
mod targets;
mod transactions;
mod two_phase;
mod unlogged;
mod vacuum;
mod verify;
