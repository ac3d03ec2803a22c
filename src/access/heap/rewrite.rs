//! A table's versions written anew into an empty file, in any order: VACUUM FULL and CLUSTER.
//!
//! What some snapshot may still see is kept, with who made it and who ended it, and leads to the version that followed it as before. Nobody knows
//! the file before the transaction commits, so whole pages are written and logged. No version is heap-only there: each has index entries of its
//! own, so that a HOT chain's members may part.
//!
//! A version's successor may be written long before it or long after. Both are noted, under the successor's old place, and sorted together at the end,
//! in as much memory as is given; then the links are put in, page by page. PostgreSQL: access/heap/rewriteheap.c, which keeps whole versions in
//! memory until their successors come.

use afterimage_wal::ids::{BlockNo, Fork, Lsn, Xid};
use afterimage_wal::{RecordBuilder, WalError, record, rmgr};

use super::change::{check_size, extend, has_room, wanted};
use super::log::{self, Latched};
use super::tuple::{HEADER, Header, header, later, mask, put_header};
use super::vacuum::set_visible;
use super::visibility::{Fate, Lookup};
use crate::access::btree::{SortedEntries, Sorter};
use crate::access::{AccessCtx, AccessError, RelHandle, Tid};
use crate::storage::page::FLAG_PRUNABLE;
use crate::storage::{Buffer, CriticalSection, Page, fsm, vm, vm::MapPin};
use crate::txn::XidStatus;

/// Every version that a table's file has, whoever may see it. The caller keeps writers out.
pub struct AllVersions {
    rel: RelHandle,
    next: BlockNo,
    end: BlockNo,
    page: Box<Page>,
    off: u16,
}

/// A version: its place, its header and its row.
pub type PlacedVersion<'a> = (Tid, Header, &'a [u8]);

impl AllVersions {
    /// Of the blocks there are now.
    ///
    /// # Errors
    /// I/O.
    pub fn new(ctx: &AccessCtx, rel: &RelHandle) -> Result<Self, AccessError> {
        let end = ctx.pool.n_blocks(rel.file, Fork::Main)?;
        Ok(Self { rel: *rel, next: BlockNo::new(0), end, page: Box::default(), off: 0 })
    }

    /// The next one; its row is lent until the next call.
    ///
    /// # Errors
    /// I/O.
    pub fn next(&mut self, ctx: &AccessCtx) -> Result<Option<PlacedVersion<'_>>, AccessError> {
        loop {
            while self.next.get() == 0 || self.off >= self.page.max_offset() {
                if self.next >= self.end {
                    return Ok(None);
                }
                let buffer = ctx.pool.read(self.rel.file, Fork::Main, self.next)?;
                self.page.bytes_mut().copy_from_slice(buffer.read().bytes());
                self.next = BlockNo::new(self.next.get() + 1);
                self.off = 0;
            }
            self.off += 1;
            if header(&self.page, self.off).is_some() {
                break;
            }
        }
        let tid = Tid::new(BlockNo::new(self.next.get() - 1), self.off);
        let h = header(&self.page, self.off);
        Ok(h.zip(self.page.item(self.off)).map(|(h, item)| (tid, h, &item[HEADER..])))
    }
}

/// The version at `tid` whoever may see it, its row put into `row`.
///
/// # Errors
/// I/O.
pub fn read_version(ctx: &AccessCtx, rel: &RelHandle, tid: Tid, row: &mut Vec<u8>) -> Result<Option<Header>, AccessError> {
    row.clear();
    if tid.block >= ctx.pool.n_blocks(rel.file, Fork::Main)? {
        return Ok(None);
    }
    let buffer = ctx.pool.read(rel.file, Fork::Main, tid.block)?;
    let page = buffer.read();
    let (Some(h), Some(item)) = (header(&page, tid.offset), page.item(tid.offset)) else { return Ok(None) };
    row.extend_from_slice(&item[HEADER..]);
    Ok(Some(h))
}

/// How many versions a rewrite met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RewriteCounts {
    /// Left out.
    pub removed: u64,
    /// Written.
    pub kept: u64,
    /// Of those: ended, but needed by someone still.
    pub recently_dead: u64,
}

/// A version that is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Where it was.
    from: Tid,
    /// Its header there, but for what is of no use any more.
    header: Header,
    /// Where its making committed, if everybody sees it and will.
    visible: Option<Lsn>,
}

/// A page being filled.
#[derive(Default)]
struct Filling {
    page: Box<Page>,
    /// Where the newest of its versions was made, while everybody sees all of them.
    visible: Option<Lsn>,
    frozen: bool,
}

impl Filling {
    fn new() -> Self {
        let mut page = Box::<Page>::default();
        page.init(0);
        Self { page, visible: Some(Lsn::INVALID), frozen: true }
    }
}

/// Pages written with one record.
const PAGES_PER_RECORD: usize = 8;

/// Writes versions into the empty file of `rel`.
pub struct Rewrite<'a> {
    ctx: &'a AccessCtx,
    rel: RelHandle,
    look: Lookup<'a>,
    floor: Xid,
    /// Blocks on disk.
    written: u32,
    full: Vec<Filling>,
    open: Filling,
    /// Who looks for its successor, and who may be one: under the xid of both and the successor's old place.
    links: Sorter,
    /// The links that were found, by place.
    found: Sorter,
    maps: MapPin,
    /// The newest xid whose status was looked at for the last time.
    newest: Xid,
    counts: RewriteCounts,
}

impl std::fmt::Debug for Rewrite<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rewrite({}, {:?})", self.rel.file, self.counts)
    }
}

/// What a place in the sorted links is: a version that looks for its successor, or that successor.
const LOOKS: u8 = 0;
const FOLLOWS: u8 = 1;

fn link_key(by: Xid, successor: Tid, what: u8) -> [u8; 17] {
    let mut key = [what; 17];
    key[..8].copy_from_slice(&by.as_u64().to_be_bytes());
    key[8..16].copy_from_slice(&successor.as_u64().to_be_bytes());
    key
}

impl<'a> Rewrite<'a> {
    /// Into `rel`, a file this transaction made. The two sorters are for links between versions.
    ///
    /// What xids below `floor` made is frozen: the settled floor, before the first version is looked at. Nothing that is written names a lower one.
    pub fn new(ctx: &'a AccessCtx, rel: &RelHandle, floor: Xid, [links, found]: [Sorter; 2]) -> Self {
        Self {
            ctx,
            rel: *rel,
            look: Lookup::of(&ctx.txns, rel),
            floor,
            written: 0,
            full: Vec::new(),
            open: Filling::new(),
            links,
            found,
            maps: MapPin::default(),
            newest: Xid::INVALID,
            counts: RewriteCounts::default(),
        }
    }

    /// Whether a version of the old file is to be written: not if nobody can see it. Counts it.
    ///
    /// # Errors
    /// If a status file is damaged.
    pub fn keep(&mut self, from: Tid, h: &Header) -> Result<Option<Kept>, AccessError> {
        let fate = self.look.fate(h)?;
        let mut visible = None;
        match fate {
            Fate::Dead { ended, known } => {
                // Rolled back: nobody ever saw it.
                if ended.is_valid() || !known {
                    self.newest = self.newest.max(h.xmax);
                }
                self.counts.removed += 1;
                return Ok(None);
            }
            Fate::Live { made } if self.ctx.txns.is_removable(made) => {
                visible = Some(if made.is_valid() { made } else { self.ctx.txns.horizon() });
            }
            Fate::Live { .. } | Fate::InProgress => {}
            // Ended by this transaction, as in PostgreSQL's count.
            Fate::RecentlyDead | Fate::BeingEnded => self.counts.recently_dead += 1,
        }
        self.counts.kept += 1;
        let header = self.carried(h)?;
        Ok(Some(Kept { from, header, visible: visible.map(|made| if header.has(mask::FROZEN) { Lsn::INVALID } else { made }) }))
    }

    /// A version that goes where another goes, whatever is to become of it: a piece of a large value. `None`: its making was rolled back.
    ///
    /// # Errors
    /// If a status file is damaged.
    pub fn follow(&mut self, from: Tid, h: &Header) -> Result<Option<Kept>, AccessError> {
        if matches!(self.look.xmin(h)?, XidStatus::Aborted) {
            return Ok(None);
        }
        self.counts.kept += 1;
        let header = self.carried(h)?;
        let visible = (header.has(mask::FROZEN) && !header.xmax.is_valid()).then_some(Lsn::INVALID);
        Ok(Some(Kept { from, header, visible }))
    }

    /// What of a header is carried over.
    fn carried(&mut self, h: &Header) -> Result<Header, AccessError> {
        let mut to = *h;
        to.mask &= mask::KEYS_CHANGED | mask::UPDATED | mask::FROZEN | mask::COMBO_CID;
        if h.xmax.is_valid() && self.look.xmax(h)?.is_none() {
            // Rolled back. A combined id still tells this transaction when it made the version.
            to.xmax = Xid::INVALID;
            to.mask &= !mask::KEYS_CHANGED;
        }
        if !to.has(mask::FROZEN) && h.xmin < self.floor && matches!(self.look.xmin(h)?, XidStatus::Committed(_)) {
            to.mask |= mask::FROZEN;
            self.newest = self.newest.max(h.xmin);
        }
        if to.has(mask::FROZEN) && !to.xmax.is_valid() {
            to.mask &= !mask::COMBO_CID;
            to.cid = 0;
        }
        Ok(to)
    }

    /// Writes a version with this row; returns its new place.
    ///
    /// # Errors
    /// `RowTooBig`; I/O.
    pub fn put(&mut self, kept: &Kept, row: &[u8]) -> Result<Tid, AccessError> {
        let size = check_size(row)?;
        if self.open.page.max_offset() > 0 && !has_room(&self.open.page, wanted(&self.rel, size)) {
            self.close()?;
        }
        let block = BlockNo::new(self.written + u32::try_from(self.full.len()).unwrap_or(0));
        let tid = Tid::new(block, self.open.page.max_offset() + 1);
        let h = Header { next: tid, ..kept.header };
        if self.open.page.add_parts(&h.encode(), row, Some(tid.offset)).is_none() {
            return Err(AccessError::Damaged { rel: self.rel.file, block, what: "a row written anew does not fit an empty page" });
        }
        let ended = h.xmax.is_valid();
        if ended {
            self.open.page.set_flag(FLAG_PRUNABLE, true);
        }
        self.open.frozen &= h.has(mask::FROZEN) && !ended;
        self.open.visible = self.open.visible.zip(kept.visible).map(|(a, b)| later(a, b));
        if ended && kept.header.next != kept.from {
            self.links.push(&link_key(h.xmax, kept.header.next, LOOKS)[..], tid, true)?;
        }
        if h.has(mask::UPDATED) && !h.has(mask::FROZEN) {
            self.links.push(&link_key(h.xmin, kept.from, FOLLOWS)[..], tid, true)?;
        }
        Ok(tid)
    }

    fn close(&mut self) -> Result<(), AccessError> {
        self.full.push(std::mem::replace(&mut self.open, Filling::new()));
        if self.full.len() >= PAGES_PER_RECORD { self.write() } else { Ok(()) }
    }

    /// Writes the pages that are full.
    fn write(&mut self) -> Result<(), AccessError> {
        let full = std::mem::take(&mut self.full);
        let n = u32::try_from(full.len()).unwrap_or(0);
        if n == 0 {
            return Ok(());
        }
        let (ctx, rel) = (self.ctx, &self.rel);
        let first = extend(ctx, rel, n)?.block();
        if first.get() != self.written {
            return Err(AccessError::Damaged { rel: rel.file, block: first, what: "the file of a table to be written anew is not empty" });
        }
        let mut buffers: Vec<Buffer> = Vec::with_capacity(full.len());
        let mut image = RecordBuilder::new(rmgr::XLOG, rmgr::xlog::FPI, Xid::INVALID);
        for (at, filled) in (self.written..).zip(&full) {
            let block = BlockNo::new(at);
            buffers.push(ctx.pool.read(rel.file, Fork::Main, block)?);
            image.block(rel.file, Fork::Main, block, record::FPI | record::WILL_INIT, filled.page.bytes());
        }
        CriticalSection::run("write pages anew", || -> Result<(), WalError> {
            let mut pages: Vec<_> = buffers.iter().map(Buffer::write).collect();
            for (page, filled) in pages.iter_mut().zip(&full) {
                page.bytes_mut().copy_from_slice(filled.page.bytes());
            }
            if rel.logged() {
                let end = ctx.wal.insert(&image)?.end;
                pages.iter_mut().for_each(|page| page.set_lsn(end));
            }
            Ok(())
        });
        self.written += n;
        for (buffer, filled) in buffers.iter().zip(&full) {
            if let Some(horizon) = filled.visible {
                let map = self.maps.pin(&ctx.pool, rel.file, buffer.block(), rel.logged())?;
                let bits = vm::VISIBLE | if filled.frozen { vm::FROZEN } else { 0 };
                set_visible(ctx, rel, &mut Latched::with_map(buffer, map), bits, horizon)?;
            }
        }
        Ok(())
    }

    /// Writes what is left, and the links between versions.
    ///
    /// # Errors
    /// I/O.
    pub fn finish(mut self) -> Result<RewriteCounts, AccessError> {
        if self.open.page.max_offset() > 0 {
            let free = self.open.page.raw_free_space();
            self.close()?;
            self.write()?;
            fsm::record(&self.ctx.pool, self.rel.file, BlockNo::new(self.written - 1), free)?;
        }
        let Self { ctx, rel, newest, counts, links, found, .. } = self;
        link(ctx, &rel, links, found)?;
        if newest.is_valid() && rel.logged() {
            let mut removed = RecordBuilder::new(rmgr::HEAP, log::REMOVED, Xid::INVALID);
            removed.main(&newest.to_le_bytes()).main(&ctx.txns.horizon().to_le_bytes());
            ctx.wal.insert(&removed)?;
        }
        Ok(counts)
    }
}

/// Puts in the links between versions whose places are noted.
fn link(ctx: &AccessCtx, rel: &RelHandle, noted: Sorter, mut found: Sorter) -> Result<(), AccessError> {
    let mut noted = noted.finish()?;
    let mut looks: Option<([u8; 16], Tid)> = None;
    while let Some(entry) = noted.next()? {
        let Some((place, what)) = entry.item.key.split_first_chunk::<16>() else { continue };
        if what == [LOOKS] {
            looks = Some((*place, entry.tid));
        } else if let Some((wanted, from)) = looks
            && wanted == *place
        {
            found.push(&from.as_u64().to_be_bytes()[..], entry.tid, true)?;
        }
    }
    let mut found = found.finish()?;
    let mut page: Vec<(u16, Tid)> = Vec::new();
    let mut block = BlockNo::new(0);
    while let Some(entry) = found.next()? {
        let Some(from) = entry.item.key.first_chunk::<8>() else { continue };
        let (from, to) = (Tid::from_u64(u64::from_be_bytes(*from)), entry.tid);
        if from.block != block {
            link_page(ctx, rel, block, &page)?;
            page.clear();
            block = from.block;
        }
        page.push((from.offset, to));
    }
    link_page(ctx, rel, block, &page)
}

fn link_page(ctx: &AccessCtx, rel: &RelHandle, block: BlockNo, found: &[(u16, Tid)]) -> Result<(), AccessError> {
    if found.is_empty() {
        return Ok(());
    }
    let buffer = ctx.pool.read(rel.file, Fork::Main, block)?;
    let mut data = Vec::with_capacity(8 * found.len());
    for (off, to) in found {
        data.extend_from_slice(&off.to_le_bytes());
        data.extend_from_slice(&to.block.to_le_bytes());
        data.extend_from_slice(&to.offset.to_le_bytes());
    }
    let mut record = RecordBuilder::new(rmgr::HEAP, log::LINK, Xid::INVALID);
    record.block(rel.file, Fork::Main, block, 0, &data);
    CriticalSection::run("link versions written anew", || -> Result<(), AccessError> {
        let mut page = buffer.write();
        let what = "a version written anew is not where it was put";
        apply_links(&mut page, found).ok_or(AccessError::Damaged { rel: rel.file, block, what })?;
        if rel.logged() {
            page.set_lsn(ctx.wal.insert(&record)?.end);
        }
        Ok(())
    });
    Ok(())
}

/// The links of a LINK record: line pointers, and where the next version of each is.
pub(super) fn links(data: &[u8]) -> Option<Vec<(u16, Tid)>> {
    let (each, rest) = data.as_chunks::<8>();
    let link = |b: &[u8; 8]| {
        let place = Tid::new(BlockNo::new(u32::from_le_bytes([b[2], b[3], b[4], b[5]])), u16::from_le_bytes([b[6], b[7]]));
        (u16::from_le_bytes([b[0], b[1]]), place)
    };
    rest.is_empty().then(|| each.iter().map(link).collect())
}

/// Puts links in. The same on a primary and in redo.
pub(super) fn apply_links(page: &mut Page, links: &[(u16, Tid)]) -> Option<()> {
    links.iter().try_for_each(|(off, next)| {
        let mut h = header(page, *off)?;
        h.next = *next;
        put_header(page, *off, &h);
        Some(())
    })
}
