//! Clients: listener, login, one client's loop, the simple and the extended protocol, transaction blocks, cancel.
//!
//! A session is a task. It reads messages, hands statements to `sql`, and writes once per Sync. What it runs below is synchronous and
//! inline; what may block says so by [`crate::txn::blocking`].

mod auth;
mod autovacuum;
mod block;
pub mod bootstrap;
mod client;
mod cursor;
mod extended;
mod functions;
mod hba;
mod internal;
mod leftovers;
mod listener;
mod os_user;
mod output;
mod query;
pub mod registry;
mod scram;
pub mod server;
mod startup;
mod stream;
pub mod verify;
mod views;
mod wait_for;

pub use os_user::os_user;
pub use registry::{Activity, Registry, SessionEntry, SessionState};
pub use scram::scram_verifier;
pub use server::Server;

/// The version of PostgreSQL whose behaviour this is, as its tools print it.
pub const POSTGRES_VERSION: &str = "15.18 (Afterimage 0.1.0)";
