//! Physical replication: WAL leaves through [`sender`], arrives through [`receiver`], and is promised to standbys by [`slot`]s.
//!
//! - [`command`], [`message`], [`conninfo`], [`client`]: the protocol, both sides.
//! - [`senders`]: who streams from us and how far they are; `pg_stat_replication`.
//! - [`sync_names`], [`sync_wait`]: `synchronous_standby_names`, and the position commits wait for.
//! - [`base_backup`], [`manifest`]: a copy of a running node.
//! - [`first_wal`]: what a standby that came without WAL begins with.
//! - [`rewind`]: makes a node that went its own way follow again.
//! - [`repair`]: a damaged page fetched again from upstream; [`compare`]: whether two nodes have the same pages.
//! - [`archive`]: `archive_command` and `restore_command`; [`location`]: an archive without scripts.
//! - [`services`]: what one node has of all this, put together.

pub mod archive;
pub mod base_backup;
pub mod client;
pub mod command;
pub mod compare;
pub mod connection;
pub mod conninfo;
mod control_rows;
pub mod first_wal;
pub mod functions;
pub mod location;
pub mod manifest;
pub mod message;
pub mod receiver;
pub mod repair;
pub mod rewind;
pub mod sender;
pub mod senders;
pub mod services;
pub mod slot;
pub mod sync_names;
pub mod sync_wait;
pub mod views;

pub use services::Replication;

/// Microseconds since 2000-01-01 UTC, as the protocol counts time.
pub fn timestamp_now() -> i64 {
    const PG_EPOCH_MICROS: i64 = 946_684_800_000_000;
    jiff::Timestamp::now().as_microsecond() - PG_EPOCH_MICROS
}

/// Processor time this thread has used.
fn thread_cpu_time() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    std::time::Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests;
