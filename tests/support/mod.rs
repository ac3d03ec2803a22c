//! What the test binaries share: nodes made of real processes, a load whose acknowledgements are written down, PostgreSQL to compare with.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses what it needs")]

pub mod journal;
pub mod node;
pub mod oracle;
