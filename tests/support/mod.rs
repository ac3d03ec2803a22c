//! What the test binaries share: nodes made of real processes, and a load whose acknowledgements are written down.

pub mod journal;
pub mod node;
