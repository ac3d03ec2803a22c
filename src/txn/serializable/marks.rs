//! What serializable transactions have read.

use std::collections::BTreeMap;
use std::hash::BuildHasherDefault;

use afterimage_wal::ids::{BlockNo, RelId};
use hashbrown::{HashMap, HashSet};
use rustc_hash::FxHasher;
use smallvec::SmallVec;

/// A transaction, by its number in the graph. 0 stands for all that were summed up.
pub(super) type SxId = u64;

type Fx = BuildHasherDefault<FxHasher>;

/// What was read. PostgreSQL: `PREDICATELOCKTARGETTAG`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mark {
    /// All of a table or index.
    Relation(RelId),
    /// The rows of a page.
    Page(RelId, BlockNo),
    /// One row version.
    Row(RelId, BlockNo, u16),
}

/// When marks move up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkLimits {
    /// Rows of a page before it is marked whole.
    pub per_page: usize,
    /// Marks on a relation before it is marked whole.
    pub per_relation: usize,
}

impl MarkLimits {
    /// From PostgreSQL's settings: `max_pred_locks_per_page`, `max_pred_locks_per_relation`, `max_pred_locks_per_transaction`.
    pub fn from_settings(per_page: i64, per_relation: i64, per_transaction: i64) -> Self {
        let per_relation = if per_relation < 0 { per_transaction / per_relation.saturating_neg() - 1 } else { per_relation };
        let size = |n: i64| usize::try_from(n).unwrap_or(0);
        Self { per_page: size(per_page), per_relation: size(per_relation) }
    }
}

impl Default for MarkLimits {
    fn default() -> Self {
        Self::from_settings(2, -2, 64)
    }
}

/// Ranges of index keys, disjoint: from the key (inclusive) up to the value (exclusive; `None`: no end).
#[derive(Debug, Default)]
struct Ranges(BTreeMap<Box<[u8]>, Option<Box<[u8]>>>);

impl Ranges {
    fn contains(&self, key: &[u8]) -> bool {
        let before = self.0.range::<[u8], _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(key))).next_back();
        before.is_some_and(|(_, upper)| upper.as_deref().is_none_or(|u| key < u))
    }

    fn covers(&self, lower: &[u8], upper: Option<&[u8]>) -> bool {
        let before = self.0.range::<[u8], _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(lower))).next_back();
        before.is_some_and(|(_, end)| match (end.as_deref(), upper) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(end), Some(upper)) => upper <= end,
        })
    }

    /// Adds a range, merged with those it touches.
    fn add(&mut self, lower: &[u8], upper: Option<&[u8]>) {
        let (mut from, mut to): (Box<[u8]>, Option<Box<[u8]>>) = (lower.into(), upper.map(Into::into));
        loop {
            let below_end = match &to {
                Some(to) => self.0.range::<[u8], _>((std::ops::Bound::Unbounded, std::ops::Bound::Included(&**to))).next_back(),
                None => self.0.last_key_value(),
            };
            let Some((start, end)) = below_end else { break };
            if end.as_ref().is_some_and(|e| **e < *from) {
                break;
            }
            let (start, end) = (start.clone(), end.clone());
            self.0.remove(&start);
            from = from.min(start);
            to = match (to, end) {
                (Some(a), Some(b)) => Some(a.max(b)),
                _ => None,
            };
        }
        self.0.insert(from, to);
    }
}

/// One transaction's marks on one relation.
#[derive(Debug, Default)]
struct Held {
    whole: bool,
    pages: HashSet<u32, Fx>,
    rows: HashMap<u32, SmallVec<[u16; 4]>, Fx>,
    row_count: usize,
    ranges: Ranges,
}

/// All marks.
#[derive(Debug, Default)]
pub(super) struct Marks {
    by_holder: HashMap<SxId, HashMap<RelId, Held, Fx>, Fx>,
    by_mark: HashMap<Mark, SmallVec<[SxId; 2]>, Fx>,
    /// Who has ranges of an index.
    ranged: HashMap<RelId, SmallVec<[SxId; 4]>, Fx>,
    pub(super) limits: MarkLimits,
}

impl Marks {
    fn add(&mut self, mark: Mark, id: SxId) {
        self.by_mark.entry(mark).or_default().push(id);
    }

    fn drop_mark(by_mark: &mut HashMap<Mark, SmallVec<[SxId; 2]>, Fx>, mark: Mark, id: SxId) {
        if let Some(list) = by_mark.get_mut(&mark) {
            if let Some(i) = list.iter().position(|h| *h == id) {
                list.swap_remove(i);
            }
            if list.is_empty() {
                by_mark.remove(&mark);
            }
        }
    }

    pub(super) fn mark_relation(&mut self, id: SxId, rel: RelId) {
        let held = self.by_holder.entry(id).or_default().entry(rel).or_default();
        if held.whole {
            return;
        }
        let old = std::mem::take(held);
        held.whole = true;
        self.unlist(id, rel, &old);
        self.add(Mark::Relation(rel), id);
    }

    /// Takes what `held` names out of the shared tables.
    fn unlist(&mut self, id: SxId, rel: RelId, held: &Held) {
        if held.whole {
            Self::drop_mark(&mut self.by_mark, Mark::Relation(rel), id);
        }
        for p in &held.pages {
            Self::drop_mark(&mut self.by_mark, Mark::Page(rel, BlockNo::new(*p)), id);
        }
        for (p, rows) in &held.rows {
            for r in rows {
                Self::drop_mark(&mut self.by_mark, Mark::Row(rel, BlockNo::new(*p), *r), id);
            }
        }
        if !held.ranges.0.is_empty()
            && let Some(list) = self.ranged.get_mut(&rel)
        {
            list.retain(|h| *h != id);
            if list.is_empty() {
                self.ranged.remove(&rel);
            }
        }
    }

    pub(super) fn mark_page(&mut self, id: SxId, rel: RelId, block: BlockNo) {
        let held = self.by_holder.entry(id).or_default().entry(rel).or_default();
        if held.whole || !held.pages.insert(block.get()) {
            return;
        }
        let rows = held.rows.remove(&block.get()).unwrap_or_default();
        held.row_count -= rows.len();
        let total = held.pages.len() + held.row_count;
        for r in rows {
            Self::drop_mark(&mut self.by_mark, Mark::Row(rel, block, r), id);
        }
        self.add(Mark::Page(rel, block), id);
        if total > self.limits.per_relation {
            self.mark_relation(id, rel);
        }
    }

    pub(super) fn mark_row(&mut self, id: SxId, rel: RelId, block: BlockNo, offset: u16) {
        let held = self.by_holder.entry(id).or_default().entry(rel).or_default();
        if held.whole || held.pages.contains(&block.get()) {
            return;
        }
        let rows = held.rows.entry(block.get()).or_default();
        if rows.contains(&offset) {
            return;
        }
        rows.push(offset);
        held.row_count += 1;
        let (here, total) = (rows.len(), held.pages.len() + held.row_count);
        self.add(Mark::Row(rel, block, offset), id);
        if here > self.limits.per_page {
            self.mark_page(id, rel, block);
        } else if total > self.limits.per_relation {
            self.mark_relation(id, rel);
        }
    }

    pub(super) fn mark_range(&mut self, id: SxId, index: RelId, lower: &[u8], upper: Option<&[u8]>) {
        let held = self.by_holder.entry(id).or_default().entry(index).or_default();
        if held.whole || held.ranges.covers(lower, upper) {
            return;
        }
        let first = held.ranges.0.is_empty();
        held.ranges.add(lower, upper);
        let many = held.ranges.0.len() > self.limits.per_relation;
        if first {
            self.ranged.entry(index).or_default().push(id);
        }
        if many {
            self.mark_relation(id, index);
        }
    }

    /// Who has marked a row about to be changed, its page or its table. A new row: `place` is `None`.
    pub(super) fn holders_of_row(&self, rel: RelId, place: Option<(BlockNo, u16)>) -> SmallVec<[SxId; 4]> {
        let mut out = SmallVec::new();
        let mut look = |mark: Mark| {
            for id in self.by_mark.get(&mark).into_iter().flatten() {
                if !out.contains(id) {
                    out.push(*id);
                }
            }
        };
        if let Some((block, offset)) = place {
            look(Mark::Row(rel, block, offset));
            look(Mark::Page(rel, block));
        }
        look(Mark::Relation(rel));
        out
    }

    /// Who has read where `key` goes.
    pub(super) fn holders_of_key(&self, index: RelId, key: &[u8]) -> SmallVec<[SxId; 4]> {
        let mut out = self.holders_of_row(index, None);
        for id in self.ranged.get(&index).into_iter().flatten() {
            let hit = self.by_holder.get(id).and_then(|h| h.get(&index)).is_some_and(|h| h.ranges.contains(key));
            if hit && !out.contains(id) {
                out.push(*id);
            }
        }
        out
    }

    /// Who has read anything of a relation that is emptied or dropped.
    pub(super) fn holders_of_any(&self, rel: RelId) -> SmallVec<[SxId; 4]> {
        self.by_holder.iter().filter(|(_, rels)| rels.contains_key(&rel)).map(|(id, _)| *id).collect()
    }

    /// A relation's rows move to other places, or it is gone and another stands for it: who has a mark on `from` gets one on all of `to`.
    /// The old marks stay: the change may be rolled back.
    pub(super) fn transfer(&mut self, from: RelId, to: RelId) {
        for id in self.holders_of_any(from) {
            self.mark_relation(id, to);
        }
    }

    /// Forgets what `id` has read.
    pub(super) fn release(&mut self, id: SxId) {
        for (rel, held) in self.by_holder.remove(&id).unwrap_or_default() {
            self.unlist(id, rel, &held);
        }
    }

    /// Gives `from`'s marks to `to`.
    pub(super) fn give(&mut self, from: SxId, to: SxId) {
        for (rel, held) in self.by_holder.remove(&from).unwrap_or_default() {
            self.unlist(from, rel, &held);
            if held.whole {
                self.mark_relation(to, rel);
            }
            for p in held.pages {
                self.mark_page(to, rel, BlockNo::new(p));
            }
            for (p, rows) in held.rows {
                for r in rows {
                    self.mark_row(to, rel, BlockNo::new(p), r);
                }
            }
            for (lower, upper) in held.ranges.0 {
                self.mark_range(to, rel, &lower, upper.as_deref());
            }
        }
    }

    /// Every mark with its holder, ranges as marks on their index.
    pub(super) fn list(&self) -> Vec<(SxId, Mark)> {
        let mut all: Vec<(SxId, Mark)> = self.by_mark.iter().flat_map(|(m, ids)| ids.iter().map(move |id| (*id, *m))).collect();
        all.extend(self.ranged.iter().flat_map(|(rel, ids)| ids.iter().map(move |id| (*id, Mark::Relation(*rel)))));
        all
    }

    /// What a prepared transaction has read, as far as its state keeps it: an index's ranges become the whole index.
    pub(super) fn of(&self, id: SxId) -> Vec<Mark> {
        let mut out = Vec::new();
        for (rel, held) in self.by_holder.get(&id).into_iter().flatten() {
            if held.whole || !held.ranges.0.is_empty() {
                out.push(Mark::Relation(*rel));
            }
            out.extend(held.pages.iter().map(|p| Mark::Page(*rel, BlockNo::new(*p))));
            out.extend(held.rows.iter().flat_map(|(p, rows)| rows.iter().map(move |r| Mark::Row(*rel, BlockNo::new(*p), *r))));
        }
        out
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_holder.is_empty()
    }
}
