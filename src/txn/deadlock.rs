//! Finding a cycle of waits. A function from the graph to the cycle; the lock manager supplies the graph and acts on the answer.

use std::collections::HashSet;

use super::proc::ProcId;

/// A cycle that `start` is part of, beginning with it, if there is one. `blockers` lists who keeps a session waiting.
pub(super) fn find_cycle(start: ProcId, blockers: impl Fn(ProcId) -> Vec<ProcId>) -> Option<Vec<ProcId>> {
    // Depth first with an explicit stack: a chain of waits may be as long as there are sessions.
    let blockers = |p: ProcId| {
        // The first is looked at first: who holds the lock before who is ahead in its queue, and there the foremost.
        let mut list = blockers(p);
        list.reverse();
        list
    };
    let mut path = vec![(start, blockers(start))];
    let mut seen = HashSet::from([start]);
    while let Some((_, todo)) = path.last_mut() {
        match todo.pop() {
            Some(next) if next == start => return Some(path.into_iter().map(|(p, _)| p).collect()),
            Some(next) => {
                if seen.insert(next) {
                    let b = blockers(next);
                    path.push((next, b));
                }
            }
            None => {
                path.pop();
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &'static [(i32, i32)]) -> impl Fn(ProcId) -> Vec<ProcId> {
        |p| edges.iter().filter(|e| e.0 == p.0).map(|e| ProcId(e.1)).collect()
    }

    #[test]
    fn a_cycle_is_found_only_by_its_members() {
        let g = graph(&[(1, 2), (2, 3), (3, 1), (4, 1), (3, 5)]);
        let c = find_cycle(ProcId(1), &g).unwrap();
        assert_eq!(c, [1, 2, 3].map(ProcId));
        assert!(find_cycle(ProcId(4), &g).is_none());
        assert!(find_cycle(ProcId(5), &g).is_none());
    }
}
