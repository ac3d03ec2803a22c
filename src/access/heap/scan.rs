//! Scans: a page at a time, visibility decided under the latch, rows lent from the scan's own copy of the page.

use afterimage_wal::ids::{BlockNo, Fork};

use super::prune::next_in_chain;
use super::tuple::{HEADER, Header, header, mask};
use super::visibility::{Fate, Lookup};
use crate::access::{AccessCtx, AccessError, RelHandle, Tid};
use crate::storage::page::FLAG_ALL_VISIBLE;
use crate::storage::{LinePointer, Page, StorageError};
use crate::txn::{OnPage, OwnXids, Snapshot};

/// A sequential scan.
///
/// The page is copied once its visible rows are known: 8 KiB for some sixty rows, and no latch or pin is held while the rows are used. On a
/// standby it stands on its page all the same, as PostgreSQL's scans do: replay that cleans up the page waits for it as long as for other conflicts.
pub struct HeapScan {
    rel: RelHandle,
    snapshot: Snapshot,
    next: BlockNo,
    end: BlockNo,
    page: Box<Page>,
    block: BlockNo,
    /// Line pointer, first byte and end of each visible row's bytes.
    rows: Vec<(u16, u16, u16)>,
    at: usize,
    /// On a standby: replay does not clean up the page it stands on.
    stands: Option<OnPage>,
}

impl HeapScan {
    /// A scan of the blocks there are now.
    ///
    /// # Errors
    /// I/O.
    pub fn new(ctx: &AccessCtx, rel: &RelHandle, snapshot: &Snapshot) -> Result<Self, AccessError> {
        if let Some(s) = snapshot.serializable().filter(|_| rel.is_marked()) {
            s.reads_relation(rel.file);
        }
        Ok(Self {
            rel: *rel,
            snapshot: snapshot.clone(),
            next: BlockNo::new(0),
            end: ctx.pool.n_blocks(rel.file, Fork::Main)?,
            page: Box::default(),
            block: BlockNo::new(0),
            rows: Vec::new(),
            at: 0,
            stands: None,
        })
    }

    /// Limits the scan to blocks from `from` up to `upto`, for parallel and sampling scans.
    #[must_use]
    pub fn blocks(mut self, from: BlockNo, upto: BlockNo) -> Self {
        self.next = from;
        self.end = self.end.min(upto);
        self
    }

    /// The next visible row; `None` at the end. The bytes are lent until the next call.
    ///
    /// # Errors
    /// I/O.
    pub fn next(&mut self, ctx: &AccessCtx) -> Result<Option<(Tid, &[u8])>, AccessError> {
        while self.at >= self.rows.len() {
            if !self.next_batch(ctx)? {
                return Ok(None);
            }
        }
        let (off, start, end) = self.rows[self.at];
        self.at += 1;
        let row = &self.page.bytes()[usize::from(start)..usize::from(end)];
        Ok(Some((Tid::new(self.block, off), row)))
    }

    /// Loads the next page that has visible rows; false at the end. [`Self::rows`] then lends them all.
    ///
    /// # Errors
    /// I/O.
    pub fn next_batch(&mut self, ctx: &AccessCtx) -> Result<bool, AccessError> {
        self.rows.clear();
        self.at = 0;
        self.stands = None;
        while self.next < self.end {
            self.snapshot.check()?;
            let block = self.next;
            self.next = BlockNo::new(block.get() + 1);
            let buffer = match ctx.pool.read(self.rel.file, Fork::Main, block) {
                Ok(b) => b,
                // Truncated by replay since the scan began: those blocks held nothing a snapshot here may need.
                Err(StorageError::MissingBlock { .. }) if ctx.txns.in_recovery() => break,
                Err(e) => return Err(e.into()),
            };
            let page = buffer.read();
            let all = page.has_flag(FLAG_ALL_VISIBLE);
            let mut look = Lookup::new(&ctx.txns);
            let serializable = self.snapshot.serializable().filter(|_| self.rel.is_marked());
            for off in 1..=page.max_offset() {
                let LinePointer::Normal { offset, len } = page.line(off) else { continue };
                let Some(item) = page.item(off) else { continue };
                let Some(h) = Header::decode(item) else { continue };
                let seen = all || look.visible(&h, &self.snapshot)?;
                if seen {
                    self.rows.push((off, offset + 28, offset + len));
                }
                if let Some(s) = serializable
                    && !all
                    && let Some(writer) = look.unseen_writer(&h, &self.snapshot, seen)?
                {
                    s.met_writer(writer)?;
                }
            }
            if !self.rows.is_empty() {
                self.page.bytes_mut().copy_from_slice(page.bytes());
                self.block = block;
                if ctx.txns.in_recovery() {
                    self.stands = Some(self.snapshot.stand_on(self.rel.file, block));
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The visible rows of the page last loaded.
    pub fn rows(&self) -> impl Iterator<Item = (Tid, &[u8])> {
        self.rows.iter().map(|(off, start, end)| (Tid::new(self.block, *off), &self.page.bytes()[usize::from(*start)..usize::from(*end)]))
    }

    /// Starts over with the same snapshot.
    pub fn rewind(&mut self) {
        self.next = BlockNo::new(0);
        self.rows.clear();
        self.at = 0;
        self.stands = None;
    }

    /// Its snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

const _: () = assert!(HEADER == 28);

/// One row for an index build.
#[derive(Clone, Copy, Debug)]
pub struct BuildRow<'a> {
    /// The place index entries must point to: the HOT chain's root.
    pub root: Tid,
    /// The version the bytes are of.
    pub tid: Tid,
    /// The row.
    pub row: &'a [u8],
    /// Whether it counts for uniqueness: not deleted by a finished transaction or by this one.
    pub live: bool,
    /// Its maker is another transaction that runs, and it is no heap-only version: its maker enters it into indexes.
    pub entered_by_maker: bool,
}

/// What a scan for an index build met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BuildScanned {
    /// Rows that are live.
    pub live: u64,
    /// Some snapshot may see a version that was passed over for a newer one of its HOT chain.
    pub passed_over: bool,
}

/// Which versions [`build_scan`] gives.
#[derive(Clone, Copy, Debug)]
pub enum Versions<'a> {
    /// Those some snapshot may still see, for whoever keeps writers out (a Share lock). A HOT chain yields its newest version only: one entry per
    /// chain. A snapshot older than the index may see an older member, whose key may be another; it must not use the index (PostgreSQL:
    /// `indcheckxmin`).
    All,
    /// Those this snapshot sees, at most one of a chain: writers may go on, and what they write is entered later.
    SeenBy(&'a Snapshot),
}

/// Gives `f` the versions an index is built of. `own`: the xids of its transaction, which `f` may use meanwhile.
///
/// # Errors
/// I/O, and what `f` returns.
pub fn build_scan<E: From<AccessError>>(
    ctx: &AccessCtx,
    own: Option<&OwnXids>,
    rel: &RelHandle,
    which: Versions<'_>,
    mut f: impl FnMut(BuildRow<'_>) -> Result<(), E>,
) -> Result<BuildScanned, E> {
    let owns = |xid| own.is_some_and(|own| own.contains(xid));
    let end = ctx.pool.n_blocks(rel.file, Fork::Main).map_err(AccessError::from)?;
    let mut copy = Box::<Page>::default();
    let mut roots: Vec<u16> = Vec::new();
    let mut scanned = BuildScanned::default();
    for block in (0..end.get()).map(BlockNo::new) {
        {
            let buffer = ctx.pool.read(rel.file, Fork::Main, block).map_err(AccessError::from)?;
            copy.bytes_mut().copy_from_slice(buffer.read().bytes());
        }
        find_roots(&copy, block, &mut roots);
        let mut look = Lookup::of(&ctx.txns, rel);
        for off in 1..=copy.max_offset() {
            let (Some(h), Some(item)) = (header(&copy, off), copy.item(off)) else { continue };
            if let Versions::SeenBy(snapshot) = which {
                if look.visible(&h, snapshot).map_err(AccessError::from)? {
                    let root = roots.get(usize::from(off)).copied().filter(|r| *r != 0).unwrap_or(off);
                    let (root, tid, row) = (Tid::new(block, root), Tid::new(block, off), &item[HEADER..]);
                    f(BuildRow { root, tid, row, live: true, entered_by_maker: false })?;
                    scanned.live += 1;
                }
                continue;
            }
            let fate = look.fate(&h).map_err(AccessError::from)?;
            let live = match fate {
                Fate::Dead { .. } => continue,
                Fate::RecentlyDead => false,
                Fate::Live { .. } | Fate::InProgress => true,
                Fate::BeingEnded => !owns(h.xmax),
            };
            if let Some((o, x)) = next_in_chain(&h, block)
                && look.xmax(&h).map_err(AccessError::from)?.is_some()
                && header(&copy, o).is_some_and(|n| n.xmin == x)
            {
                scanned.passed_over = true;
                continue;
            }
            let live = live && !(owns(h.xmin) && h.xmax.is_valid() && owns(h.xmax));
            let root = roots.get(usize::from(off)).copied().filter(|r| *r != 0).unwrap_or(off);
            let entered_by_maker = fate == Fate::InProgress && root == off && !owns(h.xmin);
            f(BuildRow { root: Tid::new(block, root), tid: Tid::new(block, off), row: &item[HEADER..], live, entered_by_maker })?;
            scanned.live += u64::from(live);
        }
    }
    Ok(scanned)
}

/// For each line pointer with a row version: the root of its chain, or 0.
fn find_roots(page: &Page, block: BlockNo, roots: &mut Vec<u16>) {
    roots.clear();
    roots.resize(usize::from(page.max_offset()) + 1, 0);
    for root in 1..=page.max_offset() {
        let mut off = match page.line(root) {
            LinePointer::Redirect(to) => to,
            LinePointer::Normal { .. } if header(page, root).is_some_and(|h| !h.has(mask::HEAP_ONLY)) => root,
            LinePointer::Normal { .. } | LinePointer::Unused | LinePointer::Dead => continue,
        };
        let mut expect = None;
        while let Some(h) = header(page, off).filter(|h| expect.is_none_or(|x| x == h.xmin)) {
            if roots[usize::from(off)] != 0 {
                break;
            }
            roots[usize::from(off)] = root;
            match next_in_chain(&h, block) {
                Some((o, x)) => (off, expect) = (o, Some(x)),
                None => break,
            }
        }
    }
}
