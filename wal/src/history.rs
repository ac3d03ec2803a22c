//! Timeline history (skeleton).

use crate::ids::TimelineId;

/// The timelines that lead to one, with where each forked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    tli: TimelineId,
}

impl History {
    /// Of the first timeline.
    pub fn first() -> Self {
        Self { tli: TimelineId::FIRST }
    }

    /// The timeline it leads to.
    pub fn tli(&self) -> TimelineId {
        self.tli
    }
}
