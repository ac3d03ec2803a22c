//! What the test binaries share: nodes made of real processes, a load whose acknowledgements are written down, PostgreSQL to compare with.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses what it needs")]

pub mod histories;
pub mod journal;
pub mod lists;
pub mod node;
pub mod oracle;
pub mod proxy;

/// A number from the environment, which makes a run longer or another one.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}
