//! Removing dead versions that index entries still point to.
//!
//! First pass: prune every page that is not all-visible and collect its dead line pointers. The indexes drop the entries that point to
//! them. Second pass: free the line pointers, mark pages all-visible. PostgreSQL: access/heap/vacuumlazy.c.

use std::cell::Cell;

use afterimage_wal::ids::{BlockNo, Fork, Lsn, Xid};
use afterimage_wal::{RecordBuilder, rmgr};

use super::log::{self, Latched, change_pages};
use super::prune::prune_latched;
use super::tuple::{Header, header, later, mask, put_header};
use super::visibility::{Fate, Lookup};
use crate::access::{AccessCtx, AccessError, RelHandle, Tid};
use crate::storage::page::FLAG_ALL_VISIBLE;
use crate::storage::{Buffer, CriticalSection, LinePointer, Page, fsm, vm, vm::MapPin};
use crate::txn::{LockMode, LockTag, Transaction, VacuumProgress, WaitPolicy};

/// Places whose index entries are to be removed; sorted.
#[derive(Clone, Debug, Default)]
pub struct DeadTids {
    tids: Vec<u64>,
    /// Where the places of blocks looked up lately begin and end: neighbours in an index mostly point to a few blocks.
    recent: [Cell<Option<(u64, usize, usize)>>; RECENT_BLOCKS],
}

const RECENT_BLOCKS: usize = 16;

impl DeadTids {
    /// Whether the index entry that points to `tid` is to go.
    pub fn contains(&self, tid: Tid) -> bool {
        let wanted = tid.as_u64();
        let block = wanted >> 16;
        let recent = &self.recent[usize::try_from(block).unwrap_or(0) % RECENT_BLOCKS];
        let (start, end) = match recent.get() {
            Some((known, start, end)) if known == block => (start, end),
            _ => {
                let start = self.tids.partition_point(|t| t >> 16 < block);
                let end = start + self.tids[start..].iter().take_while(|t| **t >> 16 == block).count();
                recent.set(Some((block, start, end)));
                (start, end)
            }
        };
        self.tids[start..end].binary_search(&wanted).is_ok()
    }

    fn push(&mut self, tid: Tid) {
        self.tids.push(tid.as_u64());
    }

    fn clear(&mut self) {
        *self = Self { tids: std::mem::take(&mut self.tids), ..Self::default() };
        self.tids.clear();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tids.is_empty()
    }
}

/// How a vacuum goes.
#[derive(Clone, Copy, Debug)]
pub struct VacuumOptions {
    /// Look at every page, whatever the map says.
    pub all_pages: bool,
    /// Look at all-visible pages that are not marked frozen too, so that the table's oldest xid can advance.
    pub aggressive: bool,
    /// Freeze versions made by xids below this, so that their status can be forgotten. INVALID: none.
    pub freeze_below: Xid,
    /// Give empty blocks at the end back, if nobody uses the table just then.
    pub truncate: bool,
    /// Dead places kept in memory between two index cleanings.
    pub max_dead: usize,
    /// Whether dead entries are removed from indexes, so that their line pointers can be freed.
    pub index_cleanup: IndexCleanup,
}

/// Whether a vacuum looks at the indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IndexCleanup {
    /// Unless there is next to nothing to remove.
    #[default]
    Auto,
    /// If there is anything to remove.
    On,
    /// No.
    Off,
}

/// Fewer pages with dead line pointers than this share of the table are not worth a pass over its indexes. PostgreSQL: `BYPASS_THRESHOLD_PAGES`.
const BYPASS_ONE_IN: u32 = 50;
/// And no more dead line pointers than this.
const BYPASS_ITEMS: usize = (32 << 20) / 6;

impl Default for VacuumOptions {
    fn default() -> Self {
        Self {
            all_pages: false,
            aggressive: false,
            freeze_below: Xid::INVALID,
            truncate: true,
            max_dead: 8 << 20,
            index_cleanup: IndexCleanup::Auto,
        }
    }
}

/// What a vacuum found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VacuumStats {
    /// Blocks of the table.
    pub pages: u32,
    /// Blocks looked at.
    pub scanned: u32,
    /// Blocks in which every row is visible to all.
    pub all_visible: u32,
    /// Rows that stay, on the blocks looked at.
    pub live_rows: u64,
    /// Versions that are dead but still needed by someone.
    pub recently_dead: u64,
    /// Line pointers freed.
    pub removed: u64,
    /// Versions frozen.
    pub frozen: u64,
    /// Blocks given back at the end.
    pub truncated: u32,
    /// Row versions removed, by pruning.
    pub tuples_removed: u64,
    /// Dead line pointers found.
    pub dead_items: u64,
    /// Blocks that had dead line pointers.
    pub pages_with_dead: u32,
    /// There was so little to remove that the indexes were left alone.
    pub bypassed: bool,
    /// Times the indexes were cleaned.
    pub index_passes: u32,
    /// Blocks left out since the map says that all their rows are visible.
    pub skipped: u32,
    /// Those of them whose rows are all frozen.
    pub skipped_frozen: u32,
    /// No version on the blocks looked at, and none added meanwhile, needs the status of an xid below this.
    pub oldest_xid: Option<Xid>,
}

impl VacuumStats {
    /// What `relfrozenxid` may be now; `None` if something that is not known to be frozen was not looked at.
    pub fn frozen_below(&self) -> Option<Xid> {
        self.oldest_xid.filter(|_| self.skipped == self.skipped_frozen)
    }
}

/// Vacuums a table. `clean_indexes` removes the entries that point to the given places from every index; it runs between the
/// pass that finds them and the pass that frees them, as often as memory needs. The caller holds `ShareUpdateExclusive`.
///
/// # Errors
/// I/O, cancel, and what `clean_indexes` returns.
pub fn vacuum<E: From<AccessError>>(
    ctx: &AccessCtx,
    txn: &Transaction,
    rel: &RelHandle,
    options: VacuumOptions,
    mut clean_indexes: impl FnMut(&DeadTids) -> Result<(), E>,
) -> Result<VacuumStats, E> {
    vacuum_watched(ctx, txn, rel, options, &mut |_| Ok(()), |dead, _, _| clean_indexes(dead))
}

/// Told of every page; slows the vacuum down, or ends it.
pub type Watch<'w> = dyn FnMut(&VacuumProgress) -> Result<(), AccessError> + 'w;

/// As [`vacuum`], with somebody watching.
///
/// # Errors
/// As [`vacuum`], and what `watch` gives.
pub fn vacuum_watched<E: From<AccessError>>(
    ctx: &AccessCtx,
    txn: &Transaction,
    rel: &RelHandle,
    options: VacuumOptions,
    watch: &mut Watch<'_>,
    mut clean_indexes: impl FnMut(&DeadTids, &mut VacuumProgress, &mut Watch<'_>) -> Result<(), E>,
) -> Result<VacuumStats, E> {
    // Before the size: whoever writes to blocks that come later has an xid that is not settled now.
    let mut stats = VacuumStats { oldest_xid: Some(ctx.txns.settled_floor()), ..VacuumStats::default() };
    let end = ctx.pool.n_blocks(rel.file, Fork::Main).map_err(AccessError::from)?;
    let mut dead = DeadTids::default();
    let mut maps = MapPin::default();
    let mut progress = VacuumProgress {
        table: rel.stats_key(),
        phase: "scanning heap",
        blocks: end.get(),
        max_dead: u64::try_from(options.max_dead).unwrap_or(u64::MAX),
        ..VacuumProgress::default()
    };
    for block in (0..end.get()).map(BlockNo::new) {
        stats.pages += 1;
        txn.check_cancel().map_err(AccessError::from)?;
        let known = if options.all_pages { 0 } else { maps.bits(&ctx.pool, rel.file, block).map_err(AccessError::from)? };
        if known & if options.aggressive { vm::FROZEN } else { vm::VISIBLE } != 0 {
            stats.all_visible += 1;
            stats.skipped += 1;
            stats.skipped_frozen += u32::from(known & vm::FROZEN != 0);
            progress.scanned += 1;
            continue;
        }
        let before = (stats.tuples_removed, stats.frozen);
        let buffer = read(ctx, rel, block, &mut progress)?;
        scan_page(ctx, rel, &buffer, &options, &mut maps, &mut dead, &mut stats)?;
        progress.dirtied += u64::from(before != (stats.tuples_removed, stats.frozen));
        progress.scanned += 1;
        progress.dead = u64::try_from(dead.len()).unwrap_or(u64::MAX);
        watch(&progress)?;
        if options.index_cleanup == IndexCleanup::Off {
            dead.clear();
        }
        if dead.len() >= options.max_dead {
            clean(ctx, txn, rel, &mut dead, &mut stats, &mut progress, watch, &mut clean_indexes)?;
        }
    }
    stats.bypassed = !dead.is_empty()
        && options.index_cleanup == IndexCleanup::Auto
        && stats.index_passes == 0
        && stats.pages_with_dead < end.get() / BYPASS_ONE_IN
        && dead.len() < BYPASS_ITEMS;
    if !dead.is_empty() && !stats.bypassed {
        clean(ctx, txn, rel, &mut dead, &mut stats, &mut progress, watch, &mut clean_indexes)?;
    }
    if options.truncate {
        progress.phase = "truncating heap";
        watch(&progress)?;
        stats.truncated = truncate_tail(ctx, txn, rel)?;
    }
    Ok(stats)
}

/// Index cleaning, then the second pass.
#[expect(clippy::too_many_arguments, reason = "one place, called twice")]
fn clean<E: From<AccessError>>(
    ctx: &AccessCtx,
    txn: &Transaction,
    rel: &RelHandle,
    dead: &mut DeadTids,
    stats: &mut VacuumStats,
    progress: &mut VacuumProgress,
    watch: &mut Watch<'_>,
    clean_indexes: &mut impl FnMut(&DeadTids, &mut VacuumProgress, &mut Watch<'_>) -> Result<(), E>,
) -> Result<(), E> {
    progress.phase = "vacuuming indexes";
    watch(progress)?;
    clean_indexes(dead, progress, watch)?;
    stats.index_passes += 1;
    progress.index_passes += 1;
    progress.phase = "vacuuming heap";
    free_dead(ctx, txn, rel, dead, stats, progress, watch)?;
    progress.phase = "scanning heap";
    progress.dead = 0;
    Ok(())
}

/// Pins a page, and counts whether it was here.
fn read(ctx: &AccessCtx, rel: &RelHandle, block: BlockNo, progress: &mut VacuumProgress) -> Result<Buffer, AccessError> {
    if let Some(buffer) = ctx.pool.read_if_cached(rel.file, Fork::Main, block) {
        progress.hits += 1;
        return Ok(buffer);
    }
    progress.misses += 1;
    Ok(ctx.pool.read(rel.file, Fork::Main, block)?)
}

fn scan_page(
    ctx: &AccessCtx,
    rel: &RelHandle,
    buffer: &Buffer,
    options: &VacuumOptions,
    maps: &mut MapPin,
    dead: &mut DeadTids,
    stats: &mut VacuumStats,
) -> Result<(), AccessError> {
    let block = buffer.block();
    let map = maps.pin(&ctx.pool, rel.file, block, rel.logged())?;
    let mut latched = Latched::with_map(buffer, map);
    stats.tuples_removed += prune_latched(ctx, rel, &mut latched)?.unwrap_or(0);
    stats.scanned += 1;
    let before = dead.len();
    let found = examine(ctx, rel, &latched.page)?;
    stats.live_rows += found.live;
    stats.recently_dead += found.recently_dead;
    for off in found.dead {
        dead.push(Tid::new(block, off));
    }
    let frozen = freeze(ctx, rel, &mut latched, options.freeze_below)?;
    stats.frozen += frozen;
    let oldest = if frozen == 0 { found.oldest_named } else { oldest_named(&latched.page) };
    stats.oldest_xid = stats.oldest_xid.map(|known| known.min(oldest.unwrap_or(known)));
    if let Some(horizon) = found.all_visible {
        let bits = vm::VISIBLE | if oldest.is_none() { vm::FROZEN } else { 0 };
        set_visible(ctx, rel, &mut latched, bits, horizon)?;
        stats.all_visible += 1;
    }
    let free = latched.page.raw_free_space();
    drop(latched);
    stats.pages_with_dead += u32::from(dead.len() > before);
    stats.dead_items += u64::try_from(dead.len() - before).unwrap_or(0);
    if dead.len() == before {
        // Pages with dead line pointers are recorded once those are freed.
        fsm::record(&ctx.pool, rel.file, block, free)?;
    }
    Ok(())
}

/// The least xid whose status a version on this page needs; `None`: none does.
fn oldest_named(page: &Page) -> Option<Xid> {
    (1..=page.max_offset()).filter_map(|off| header(page, off)).filter_map(|h| named(&h)).min()
}

/// The lesser of the xids whose status a version needs.
fn named(h: &Header) -> Option<Xid> {
    let made = Some(h.xmin).filter(|_| !h.has(mask::FROZEN));
    let ended = Some(h.xmax).filter(|x| x.is_valid());
    made.into_iter().chain(ended).min()
}

#[derive(Default)]
struct Found {
    live: u64,
    recently_dead: u64,
    dead: Vec<u16>,
    /// If all rows are visible to everyone: the newest commit among them.
    all_visible: Option<Lsn>,
    /// As [`oldest_named`].
    oldest_named: Option<Xid>,
}

fn examine(ctx: &AccessCtx, rel: &RelHandle, page: &Page) -> Result<Found, AccessError> {
    let mut look = Lookup::of(&ctx.txns, rel);
    let mut found = Found::default();
    let (mut all, mut newest, mut known) = (true, Lsn::INVALID, true);
    for off in 1..=page.max_offset() {
        match page.line(off) {
            LinePointer::Unused | LinePointer::Redirect(_) => continue,
            LinePointer::Dead => {
                found.dead.push(off);
                all = false;
                continue;
            }
            LinePointer::Normal { .. } => {}
        }
        let Some(h) = header(page, off) else { continue };
        found.oldest_named = found.oldest_named.into_iter().chain(named(&h)).min();
        match look.fate(&h)? {
            Fate::Live { made } => {
                found.live += 1;
                all &= ctx.txns.is_removable(made);
                newest = later(newest, made);
                known &= made.is_valid() || h.has(mask::FROZEN);
            }
            Fate::InProgress | Fate::BeingEnded => {
                found.live += 1;
                all = false;
            }
            Fate::RecentlyDead => {
                found.recently_dead += 1;
                all = false;
            }
            Fate::Dead { .. } => all = false,
        }
    }
    if all {
        // A commit of long ago has no LSN any more, but a standby's snapshot may still be older than it.
        found.all_visible = Some(if known { newest } else { later(newest, ctx.txns.horizon()) });
    }
    Ok(found)
}

/// Marks a latched page all-visible, in the map too, and frozen there if `bits` says so. Logged; the horizon is the newest commit on it.
pub(super) fn set_visible(ctx: &AccessCtx, rel: &RelHandle, latched: &mut Latched<'_>, bits: u8, horizon: Lsn) -> Result<(), AccessError> {
    let (page, block) = (&mut latched.page, latched.buffer.block());
    let Some(map) = &latched.map else { return Ok(()) };
    if page.has_flag(FLAG_ALL_VISIBLE) && vm::bits(&map.read(), block) & bits == bits {
        return Ok(());
    }
    CriticalSection::run("mark a page all-visible", || -> Result<(), AccessError> {
        let mut m = map.write();
        page.set_flag(FLAG_ALL_VISIBLE, true);
        vm::set(&mut m, block, bits);
        if !rel.logged() {
            return Ok(());
        }
        let mut record = RecordBuilder::new(rmgr::HEAP, log::VISIBLE, Xid::INVALID);
        record.block(rel.file, Fork::Main, block, 0, &[]);
        record.block(rel.file, Fork::Vm, map.block(), 0, &[bits]);
        record.main(&horizon.to_le_bytes());
        let end = ctx.wal.insert(&record)?.end;
        page.set_lsn(end);
        m.set_lsn(end);
        Ok(())
    });
    Ok(())
}

fn freeze(ctx: &AccessCtx, rel: &RelHandle, latched: &mut Latched<'_>, below: Xid) -> Result<u64, AccessError> {
    if !below.is_valid() {
        return Ok(0);
    }
    let below = below.min(ctx.txns.settled_floor());
    let mut look = Lookup::of(&ctx.txns, rel);
    let mut offs: Vec<u16> = Vec::new();
    let mut newest = Xid::INVALID;
    for off in 1..=latched.page.max_offset() {
        let Some(h) = header(&latched.page, off) else { continue };
        // Both xids' statuses are to be forgotten: what an undone end left goes too.
        let undone = h.xmax.is_valid() && h.xmax < below && look.xmax(&h)?.is_none();
        let frozen = h.has(mask::FROZEN) || h.xmin >= below;
        if (undone || !frozen) && matches!(look.fate(&h)?, Fate::Live { .. } | Fate::BeingEnded | Fate::RecentlyDead) {
            offs.push(off | if undone { CLEAR_END } else { 0 } | if frozen { 0 } else { FREEZE_MADE });
            newest = if frozen { newest } else { newest.max(h.xmin) };
        }
    }
    if offs.is_empty() {
        return Ok(0);
    }
    let mut record = RecordBuilder::new(rmgr::HEAP, log::FREEZE, Xid::INVALID);
    // Freezing changes what nobody sees: the page stays all-visible.
    let visible = latched.page.has_flag(FLAG_ALL_VISIBLE);
    CriticalSection::run("freeze rows", || -> Result<(), AccessError> {
        let page = &mut latched.page;
        apply_freeze(page, &offs);
        let data: Vec<u8> = offs.iter().flat_map(|o| o.to_le_bytes()).collect();
        record.block(rel.file, Fork::Main, latched.buffer.block(), 0, &data);
        // What is settled committed at or before the horizon.
        record.main(&newest.to_le_bytes()).main(&ctx.txns.horizon().to_le_bytes());
        if rel.logged() {
            page.set_lsn(ctx.wal.insert(&record)?.end);
        }
        debug_assert_eq!(visible, page.has_flag(FLAG_ALL_VISIBLE));
        Ok(())
    });
    Ok(u64::try_from(offs.len()).unwrap_or(0))
}

/// Bits beside a line pointer in a FREEZE record: its maker's xid is frozen; its end, rolled back, is forgotten.
const FREEZE_MADE: u16 = 0x8000;
const CLEAR_END: u16 = 0x4000;

/// Freezes versions. The same on a primary and in redo.
pub(super) fn apply_freeze(page: &mut Page, offs: &[u16]) {
    for flagged in offs {
        let off = flagged & !(FREEZE_MADE | CLEAR_END);
        if let Some(mut h) = header(page, off) {
            if flagged & FREEZE_MADE != 0 {
                h.mask |= mask::FROZEN;
            }
            if flagged & CLEAR_END != 0 {
                let next = h.next;
                h.end(Xid::INVALID, next, false, false);
            }
            put_header(page, off, &h);
        }
    }
}

fn free_dead(
    ctx: &AccessCtx,
    txn: &Transaction,
    rel: &RelHandle,
    dead: &mut DeadTids,
    stats: &mut VacuumStats,
    progress: &mut VacuumProgress,
    watch: &mut Watch<'_>,
) -> Result<(), AccessError> {
    let mut maps = MapPin::default();
    for places in dead.tids.chunk_by(|a, b| a >> 16 == b >> 16) {
        txn.check_cancel()?;
        let Some(first) = places.first() else { continue };
        let block = Tid::from_u64(*first).block;
        let map = maps.pin(&ctx.pool, rel.file, block, rel.logged())?;
        let buffer = read(ctx, rel, block, progress)?;
        let mut latched = Latched::with_map(&buffer, map);
        let offs: Vec<u16> =
            places.iter().map(|p| Tid::from_u64(*p).offset).filter(|o| latched.page.line(*o) == LinePointer::Dead).collect();
        let mut record = RecordBuilder::new(rmgr::HEAP, log::VACUUM, Xid::INVALID);
        if !offs.is_empty() {
            change_pages(ctx, rel, "free line pointers", &mut record, &mut [&mut latched], |pages, record| {
                apply_unused(&mut pages[0].page, &offs);
                let data: Vec<u8> = offs.iter().flat_map(|o| o.to_le_bytes()).collect();
                record.block(rel.file, Fork::Main, block, 0, &data);
            });
        }
        stats.removed += u64::try_from(offs.len()).unwrap_or(0);
        let free = latched.page.raw_free_space();
        let found = examine(ctx, rel, &latched.page)?;
        if let Some(horizon) = found.all_visible {
            let bits = vm::VISIBLE | if found.oldest_named.is_none() { vm::FROZEN } else { 0 };
            set_visible(ctx, rel, &mut latched, bits, horizon)?;
            stats.all_visible += 1;
        }
        drop(latched);
        fsm::record(&ctx.pool, rel.file, block, free)?;
        progress.vacuumed += 1;
        progress.dirtied += 1;
        watch(progress)?;
    }
    dead.clear();
    Ok(())
}

/// Frees dead line pointers. The same on a primary and in redo.
pub(super) fn apply_unused(page: &mut Page, offs: &[u16]) {
    for off in offs {
        page.set_line(*off, LinePointer::Unused);
    }
    page.trim_unused_lines();
    // Dead line pointers had no storage: there is no gap to close.
    page.note_free_lines();
}

/// Gives empty blocks at the end back if that is worth it and nobody holds the table.
fn truncate_tail(ctx: &AccessCtx, txn: &Transaction, rel: &RelHandle) -> Result<u32, AccessError> {
    let empty_from = |ctx: &AccessCtx| -> Result<(BlockNo, BlockNo), AccessError> {
        let end = ctx.pool.n_blocks(rel.file, Fork::Main)?;
        let mut keep = end.get();
        while keep > 0 {
            let buffer = ctx.pool.read(rel.file, Fork::Main, BlockNo::new(keep - 1))?;
            let page = buffer.read();
            if (1..=page.max_offset()).any(|o| page.line(o) != LinePointer::Unused) {
                break;
            }
            keep -= 1;
        }
        Ok((BlockNo::new(keep), end))
    };
    let (keep, end) = empty_from(ctx)?;
    let gain = end.get() - keep.get();
    if gain == 0 || (gain < 1000 && gain < end.get() / 16) {
        return Ok(0);
    }
    let tag = LockTag::Relation { db: rel.file.db, rel: rel.oid };
    if !txn.lock(tag, LockMode::AccessExclusive, WaitPolicy::Skip)? {
        return Ok(0);
    }
    // Again, now that nobody can insert there.
    let (keep, end) = empty_from(ctx)?;
    let gain = end.get() - keep.get();
    if gain > 0 && rel.logged() {
        ctx.pool.truncate(rel.file, Fork::Main, keep, ctx.txns.horizon())?;
    } else if gain > 0 {
        ctx.pool.truncate_unlogged(rel.file, keep)?;
    }
    txn.unlock(tag, LockMode::AccessExclusive);
    Ok(gain)
}
