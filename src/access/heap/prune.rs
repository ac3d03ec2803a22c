//! Pruning: removes dead versions of one page and shortens its HOT chains, without touching indexes.
//!
//! PostgreSQL: access/heap/pruneheap.c. The plan is made first, since looking up a status may fail; then it is applied and logged.

use afterimage_wal::ids::{Fork, Lsn, Xid};
use afterimage_wal::{RecordBuilder, rmgr};
use smallvec::SmallVec;

use super::log::{self, Latched, change_pages};
use super::tuple::{Header, header, later, mask};
use super::visibility::{Fate, Lookup};
use crate::access::{AccessCtx, AccessError, RelHandle};
use crate::storage::page::{FLAG_FULL, FLAG_PRUNABLE};
use crate::storage::{LinePointer, Page};
use crate::txn::CommitLevel;

/// What pruning does to a page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Root, and the first live version of its chain.
    pub(super) redirect: Vec<(u16, u16)>,
    /// Become dead: index entries may point there.
    pub(super) dead: Vec<u16>,
    /// Become unused.
    pub(super) unused: Vec<u16>,
    /// Some version that stays has been ended, so there will be more to prune.
    pub(super) ended: bool,
    /// No snapshot may be older than this when the plan is applied.
    pub(super) horizon: Lsn,
}

/// Bit of the first count in a record: [`Plan::ended`]. A page has far fewer line pointers.
const ENDED: u16 = 1 << 15;

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.redirect.is_empty() && self.dead.is_empty() && self.unused.is_empty()
    }

    /// Applies it. The same on a primary and in redo.
    pub(super) fn apply(&self, page: &mut Page) {
        for (from, to) in &self.redirect {
            page.set_line(*from, LinePointer::Redirect(*to));
        }
        for off in &self.dead {
            page.set_line(*off, LinePointer::Dead);
        }
        for off in &self.unused {
            page.set_line(*off, LinePointer::Unused);
        }
        page.set_flag(FLAG_FULL, false);
        page.set_flag(FLAG_PRUNABLE, self.ended);
        page.compact();
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let n = |v: usize| u16::try_from(v).unwrap_or(u16::MAX);
        let mut b = Vec::with_capacity(6 + 4 * self.redirect.len() + 2 * (self.dead.len() + self.unused.len()));
        let first = n(self.redirect.len()) | if self.ended { ENDED } else { 0 };
        b.extend_from_slice(&first.to_le_bytes());
        b.extend_from_slice(&n(self.dead.len()).to_le_bytes());
        b.extend_from_slice(&n(self.unused.len()).to_le_bytes());
        for (f, t) in &self.redirect {
            b.extend_from_slice(&f.to_le_bytes());
            b.extend_from_slice(&t.to_le_bytes());
        }
        for o in self.dead.iter().chain(&self.unused) {
            b.extend_from_slice(&o.to_le_bytes());
        }
        b
    }

    pub(super) fn decode(data: &[u8], horizon: Lsn) -> Option<Self> {
        let (words, rest) = data.as_chunks::<2>();
        let mut w = words.iter().map(|b| u16::from_le_bytes(*b));
        let (r, d, u) = (w.next()?, w.next()?, w.next()?);
        let mut p = Self { horizon, ended: r & ENDED != 0, ..Self::default() };
        for _ in 0..r & !ENDED {
            p.redirect.push((w.next()?, w.next()?));
        }
        for _ in 0..d {
            p.dead.push(w.next()?);
        }
        for _ in 0..u {
            p.unused.push(w.next()?);
        }
        (w.next().is_none() && rest.is_empty()).then_some(p)
    }
}

/// What can be removed from a page of `rel`.
pub(super) fn plan(ctx: &AccessCtx, rel: &RelHandle, block: afterimage_wal::BlockNo, page: &Page) -> Result<Plan, AccessError> {
    let mut look = Lookup::of(&ctx.txns, rel);
    let lines = page.max_offset();
    let mut plan = Plan::default();
    // Whether every removed version's end is known by its LSN; else the record carries the whole horizon.
    let mut known = true;
    // Line pointers reached from a root.
    let mut seen: SmallVec<[bool; 384]> = SmallVec::from_elem(false, usize::from(lines) + 1);
    let mut gone = |fate: Fate, plan: &mut Plan| {
        if let Fate::Dead { ended, known: k } = fate {
            plan.horizon = later(plan.horizon, ended);
            known &= k;
        }
    };
    for root in 1..=lines {
        let first = match page.line(root) {
            LinePointer::Normal { .. } => match header(page, root) {
                Some(h) if h.has(mask::HEAP_ONLY) => continue,
                Some(_) => root,
                None => return Err(damaged(rel, block)),
            },
            LinePointer::Redirect(to) => to,
            LinePointer::Unused | LinePointer::Dead => continue,
        };
        // The chain's members, and how many of them, from the front, are dead: all up to the last dead one.
        let mut chain: SmallVec<[u16; 32]> = SmallVec::new();
        let mut dead = 0;
        let mut fates: SmallVec<[Fate; 32]> = SmallVec::new();
        let (mut off, mut expect) = (first, None::<Xid>);
        while let Some(h) = header(page, off) {
            let linked = expect.is_none_or(|x| h.xmin == x) && (off == root || h.has(mask::HEAP_ONLY));
            if !linked || seen.get(usize::from(off)).copied().unwrap_or(true) {
                break;
            }
            seen[usize::from(off)] = true;
            let fate = look.fate(&h)?;
            chain.push(off);
            fates.push(fate);
            match fate {
                Fate::Dead { .. } => dead = chain.len(),
                Fate::RecentlyDead => {}
                Fate::Live { .. } | Fate::InProgress | Fate::BeingEnded => break,
            }
            match next_in_chain(&h, block) {
                Some((o, x)) => (off, expect) = (o, Some(x)),
                None => break,
            }
        }
        if dead == 0 {
            continue;
        }
        for f in &fates[..dead] {
            gone(*f, &mut plan);
        }
        if fates[..dead].iter().any(|f| matches!(f, Fate::RecentlyDead)) {
            // A version before a dead one is dead too, whatever its own end's LSN says; take no chances with the horizon.
            known_horizon(ctx, &mut plan);
        }
        let is_redirect = matches!(page.line(root), LinePointer::Redirect(_));
        match chain.get(dead) {
            Some(live) => plan.redirect.push((root, *live)),
            None => plan.dead.push(root),
        }
        plan.unused.extend(chain[..dead].iter().copied().filter(|o| is_redirect || *o != root));
    }
    // Heap-only versions that no chain reaches: made by updates that were rolled back.
    for off in 1..=lines {
        if seen[usize::from(off)] {
            continue;
        }
        if let Some(h) = header(page, off)
            && h.has(mask::HEAP_ONLY)
        {
            let fate = look.fate(&h)?;
            if matches!(fate, Fate::Dead { .. }) {
                gone(fate, &mut plan);
                plan.unused.push(off);
            }
        }
    }
    if !known {
        known_horizon(ctx, &mut plan);
    }
    plan.unused.sort_unstable();
    if !plan.is_empty() {
        let mut goes: SmallVec<[bool; 384]> = SmallVec::from_elem(false, usize::from(lines) + 1);
        for off in plan.redirect.iter().map(|(from, _)| from).chain(&plan.dead).chain(&plan.unused) {
            goes[usize::from(*off)] = true;
        }
        plan.ended = (1..=lines).any(|o| !goes[usize::from(o)] && header(page, o).is_some_and(|h| h.xmax.is_valid()));
    }
    Ok(plan)
}

fn known_horizon(ctx: &AccessCtx, plan: &mut Plan) {
    plan.horizon = later(plan.horizon, ctx.txns.horizon());
}

/// The next member of a version's HOT chain, and who must have made it.
pub(super) fn next_in_chain(h: &Header, block: afterimage_wal::BlockNo) -> Option<(u16, Xid)> {
    (h.has(mask::HOT_UPDATED) && h.xmax.is_valid() && h.next.block == block).then_some((h.next.offset, h.xmax))
}

fn damaged(rel: &RelHandle, block: afterimage_wal::BlockNo) -> AccessError {
    AccessError::Damaged { rel: rel.file, block, what: "an item too short for a row version, or outside the page" }
}

/// Prunes a latched page if something may have become removable since the last try. Returns whether anything was removed.
pub(super) fn prune_sometimes(ctx: &AccessCtx, rel: &RelHandle, latched: &mut Latched<'_>) -> Result<bool, AccessError> {
    let worth =
        latched.page.has_flag(FLAG_PRUNABLE) && ctx.prune_memo.try_at(rel.file, latched.buffer.block(), ctx.txns.readable(CommitLevel::On));
    let removed = if worth { prune_latched(ctx, rel, latched)? } else { None };
    if let Some(n) = removed {
        ctx.txns.table_stats().pruned(rel.stats_key(), n);
    }
    Ok(removed.is_some())
}

/// Prunes a latched page. Returns how many versions went; `None` if there was nothing to do.
pub(super) fn prune_latched(ctx: &AccessCtx, rel: &RelHandle, latched: &mut Latched<'_>) -> Result<Option<u64>, AccessError> {
    if ctx.txns.in_recovery() {
        return Ok(None);
    }
    let block = latched.buffer.block();
    let plan = plan(ctx, rel, block, &latched.page)?;
    if plan.is_empty() {
        return Ok(None);
    }
    let gone = plan.redirect.iter().map(|(root, _)| root).chain(&plan.dead).chain(&plan.unused);
    let removed = gone.filter(|off| matches!(latched.page.line(**off), LinePointer::Normal { .. })).count();
    let mut record = RecordBuilder::new(rmgr::HEAP, log::PRUNE, Xid::INVALID);
    change_pages(ctx, rel, "prune a page", &mut record, &mut [latched], |pages, record| {
        plan.apply(&mut pages[0].page);
        record.block(rel.file, Fork::Main, block, 0, &plan.encode());
        record.main(&plan.horizon.to_le_bytes());
    });
    Ok(Some(u64::try_from(removed).unwrap_or(0)))
}
