//! `control`: see docs/ARCHITECTURE.md.

pub mod node_state;
