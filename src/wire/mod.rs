//! Bytes to messages and back: PostgreSQL's protocol 3.0 and its replication messages. No sockets, no state.

pub mod backend;
pub mod frontend;

pub use backend::{BlockStatus, Column, CopyKind, Writer};
pub use frontend::{CloseTarget, Frontend, Startup, WireError};
