//! What the node is and does as a whole: `node_state` decides, `checkpoint` and promotion act.

pub mod checkpoint;
pub mod control_store;
pub mod error;
pub mod node_state;
pub mod oids;
