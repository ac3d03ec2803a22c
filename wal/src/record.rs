//! One record: built by the layers that change pages, decoded by those that redo them.
//!
//! ```text
//! header (28 bytes) | block reference, its data | block reference, its data | ... | main data | flushed mark | zeros to 8
//! ```
//! Offsets are in `format.rs` and `docs/wal-format.md`. A builder holds its bytes inline up to a few hundred and can be reused, so
//! that inserting allocates nothing.

use crate::error::WalError;
use crate::format::{self, RECORD_HEADER_BYTES};
use crate::ids::{BlockNo, Fork, Lsn, RelId, Xid};
use smallvec::SmallVec;

/// The block's data is a full page image.
pub const FPI: u8 = format::BLOCK_FPI;
/// The page is made anew by redo; what was there does not matter.
pub const WILL_INIT: u8 = format::BLOCK_WILL_INIT;

/// Collects a record before it is inserted.
#[derive(Debug, Clone)]
pub struct RecordBuilder {
    pub(crate) rmgr: u8,
    pub(crate) kind: u8,
    pub(crate) xid: Xid,
    pub(crate) block_count: u8,
    /// Blocks with a full image.
    pub(crate) images: u8,
    pub(crate) flags: u8,
    last_rel: Option<RelId>,
    /// Set when a caller asked for what no record can hold; `insert` reports it.
    pub(crate) too_large: bool,
    /// Block references, each followed by its data.
    pub(crate) blocks: SmallVec<[u8; 256]>,
    pub(crate) main: SmallVec<[u8; 128]>,
}

impl RecordBuilder {
    /// An empty record. `xid` is the (sub)transaction that makes the change, or [`Xid::INVALID`].
    pub fn new(rmgr: u8, kind: u8, xid: Xid) -> Self {
        Self {
            rmgr,
            kind,
            xid,
            block_count: 0,
            images: 0,
            flags: 0,
            last_rel: None,
            too_large: false,
            blocks: SmallVec::new(),
            main: SmallVec::new(),
        }
    }

    /// Starts another record, keeping the memory.
    pub fn reset(&mut self, rmgr: u8, kind: u8, xid: Xid) -> &mut Self {
        self.rmgr = rmgr;
        self.kind = kind;
        self.xid = xid;
        self.clear()
    }

    /// Forgets blocks and data; resource manager, kind and xid stay.
    pub fn clear(&mut self) -> &mut Self {
        self.block_count = 0;
        self.images = 0;
        self.flags = 0;
        self.last_rel = None;
        self.too_large = false;
        self.blocks.clear();
        self.main.clear();
        self
    }

    /// Adds a changed page. `flags` are [`FPI`] and [`WILL_INIT`]; `data` is what redo of this page needs.
    ///
    /// References keep their order: the first is `block(0)` of the decoded record.
    pub fn block(&mut self, rel: RelId, fork: Fork, block: BlockNo, flags: u8, data: &[u8]) -> &mut Self {
        self.block_parts(rel, fork, block, flags, &[data])
    }

    /// Like [`block`](Self::block), with data in several pieces that are stored one after the other.
    pub fn block_parts(&mut self, rel: RelId, fork: Fork, block: BlockNo, flags: u8, data: &[&[u8]]) -> &mut Self {
        let Some(count) = self.block_count.checked_add(1) else {
            self.too_large = true;
            return self;
        };
        self.block_count = count;
        self.images += u8::from(flags & FPI != 0);
        let data_bytes: usize = data.iter().map(|d| d.len()).sum();
        let mut head = fork.as_u8() | (flags & (FPI | WILL_INIT));
        let same_rel = self.last_rel == Some(rel);
        if same_rel {
            head |= format::BLOCK_SAME_REL;
        }
        let long = u16::try_from(data_bytes).is_err();
        if long {
            head |= format::BLOCK_LONG_DATA;
        }
        self.blocks.push(head);
        if !same_rel {
            self.blocks.extend_from_slice(&rel.to_le_bytes());
            self.last_rel = Some(rel);
        }
        self.blocks.extend_from_slice(&block.to_le_bytes());
        match (u16::try_from(data_bytes), u32::try_from(data_bytes)) {
            (Ok(n), _) => self.blocks.extend_from_slice(&n.to_le_bytes()),
            (Err(_), Ok(n)) => self.blocks.extend_from_slice(&n.to_le_bytes()),
            (Err(_), Err(_)) => {
                self.too_large = true;
                return self;
            }
        }
        for d in data {
            self.blocks.extend_from_slice(d);
        }
        self
    }

    /// Appends to the main data.
    pub fn main(&mut self, data: &[u8]) -> &mut Self {
        self.main.extend_from_slice(data);
        self
    }

    /// Makes the record carry the flushed LSN at its insertion. Commit records do; see `reader.rs` on what it proves.
    pub fn carry_flushed_mark(&mut self) -> &mut Self {
        self.flags |= format::RECORD_FLUSHED_MARK;
        self
    }

    /// Transaction the record belongs to.
    pub fn xid(&self) -> Xid {
        self.xid
    }

    /// Bytes the record takes, before alignment.
    pub fn total_bytes(&self) -> usize {
        let mark = if self.flags & format::RECORD_FLUSHED_MARK != 0 { 8 } else { 0 };
        RECORD_HEADER_BYTES + self.blocks.len() + self.main.len() + mark
    }

    /// The record as it would lie at `start` after the record at `prev`. For tests, golden files and tools; `insert` does not use it.
    ///
    /// # Errors
    /// [`WalError::RecordTooLarge`].
    pub fn encode(&self, start: Lsn, prev: Lsn, flushed_mark: Lsn) -> Result<Vec<u8>, WalError> {
        let header = self.header(prev)?;
        let mut bytes = Vec::with_capacity(self.total_bytes() + 8);
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(&self.blocks);
        bytes.extend_from_slice(&self.main);
        if self.flags & format::RECORD_FLUSHED_MARK != 0 {
            bytes.extend_from_slice(&flushed_mark.to_le_bytes());
        }
        let body_crc = crc32c::crc32c(&bytes[RECORD_HEADER_BYTES..]);
        let crc = header.crc(body_crc, start);
        bytes[format::RECORD_CRC..format::RECORD_CRC + 4].copy_from_slice(&crc.to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        Ok(bytes)
    }

    /// The header with crc 0.
    pub(crate) fn header(&self, prev: Lsn) -> Result<format::RecordHeader, WalError> {
        let total = self.total_bytes();
        let total_bytes = u32::try_from(total).ok().filter(|&n| n <= format::RECORD_MAX_BYTES);
        match total_bytes {
            Some(total_bytes) if !self.too_large => Ok(format::RecordHeader {
                total_bytes,
                crc: 0,
                prev,
                xid: self.xid,
                rmgr: self.rmgr,
                kind: self.kind,
                block_count: self.block_count,
                flags: self.flags,
            }),
            _ => Err(WalError::RecordTooLarge { bytes: total, blocks: usize::from(self.block_count) }),
        }
    }
}

/// A page a record changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRef<'a> {
    /// Relation.
    pub rel: RelId,
    /// Which of its files.
    pub fork: Fork,
    /// Which block.
    pub block: BlockNo,
    /// [`FPI`] and [`WILL_INIT`].
    pub flags: u8,
    /// What redo of this page needs.
    pub data: &'a [u8],
}

impl BlockRef<'_> {
    /// The data is a full page image.
    pub fn is_fpi(&self) -> bool {
        self.flags & FPI != 0
    }

    /// Redo makes the page anew.
    pub fn will_init(&self) -> bool {
        self.flags & WILL_INIT != 0
    }
}

/// A decoded record whose crc was right. Lends the reader's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    start: Lsn,
    end: Lsn,
    header: format::RecordHeader,
    blocks: SmallVec<[BlockRef<'a>; 4]>,
    main: &'a [u8],
    flushed_mark: Option<Lsn>,
}

/// The crc was right but the body does not parse: the writer was wrong, or not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("block reference {block} does not fit the record")]
pub struct BadBody {
    /// Which reference.
    pub block: u8,
}

impl<'a> Record<'a> {
    /// Decodes the body. `bytes` is the whole record, header included, without padding; its crc was checked.
    ///
    /// # Errors
    /// [`BadBody`].
    pub fn decode(start: Lsn, end: Lsn, header: format::RecordHeader, bytes: &'a [u8]) -> Result<Self, BadBody> {
        let mut rest = bytes.get(RECORD_HEADER_BYTES..).ok_or(BadBody { block: 0 })?;
        let mut blocks = SmallVec::new();
        let mut last_rel = None;
        for i in 0..header.block_count {
            let bad = BadBody { block: i };
            let (&[head], r) = rest.split_first_chunk::<1>().ok_or(bad)?;
            rest = r;
            if head & !format::BLOCK_KNOWN != 0 {
                return Err(bad);
            }
            let rel = if head & format::BLOCK_SAME_REL != 0 {
                last_rel.ok_or(bad)?
            } else {
                let (rel, r) = rest.split_first_chunk::<{ RelId::BYTES }>().ok_or(bad)?;
                rest = r;
                RelId::from_le_bytes(*rel)
            };
            last_rel = Some(rel);
            let (block, r) = rest.split_first_chunk::<4>().ok_or(bad)?;
            let block = BlockNo::from_le_bytes(*block);
            rest = r;
            let data_bytes = if head & format::BLOCK_LONG_DATA != 0 {
                let (n, r) = rest.split_first_chunk::<4>().ok_or(bad)?;
                rest = r;
                u32::from_le_bytes(*n)
            } else {
                let (n, r) = rest.split_first_chunk::<2>().ok_or(bad)?;
                rest = r;
                u32::from(u16::from_le_bytes(*n))
            };
            let (data, r) = rest.split_at_checked(usize::try_from(data_bytes).map_err(|_| bad)?).ok_or(bad)?;
            rest = r;
            let fork = Fork::from_u8(head & format::BLOCK_FORK).ok_or(bad)?;
            blocks.push(BlockRef { rel, fork, block, flags: head & (FPI | WILL_INIT), data });
        }
        let mut flushed_mark = None;
        if header.flags & format::RECORD_FLUSHED_MARK != 0 {
            let (r, mark) = rest.split_last_chunk::<8>().ok_or(BadBody { block: header.block_count })?;
            rest = r;
            flushed_mark = Some(Lsn::from_le_bytes(*mark));
        }
        Ok(Self { start, end, header, blocks, main: rest, flushed_mark })
    }

    /// First byte.
    pub fn start(&self) -> Lsn {
        self.start
    }

    /// First byte after it, aligned: the LSN that pages and commits store.
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// Start of the record before; [`Lsn::INVALID`] for the very first.
    pub fn prev(&self) -> Lsn {
        self.header.prev
    }

    /// The transaction, or [`Xid::INVALID`].
    pub fn xid(&self) -> Xid {
        self.header.xid
    }

    /// Resource manager, see [`crate::rmgr`].
    pub fn rmgr(&self) -> u8 {
        self.header.rmgr
    }

    /// Kind within the resource manager.
    pub fn kind(&self) -> u8 {
        self.header.kind
    }

    /// Checksum as stored.
    pub fn crc(&self) -> u32 {
        self.header.crc
    }

    /// Bytes of the record without padding.
    pub fn total_bytes(&self) -> u32 {
        self.header.total_bytes
    }

    /// The pages it changes, in the order of the builder.
    pub fn blocks(&self) -> &[BlockRef<'a>] {
        &self.blocks
    }

    /// One of them.
    pub fn block(&self, i: usize) -> Option<&BlockRef<'a>> {
        self.blocks.get(i)
    }

    /// Main data.
    pub fn main(&self) -> &'a [u8] {
        self.main
    }

    /// The writer's flushed LSN when it inserted this.
    pub fn flushed_mark(&self) -> Option<Lsn> {
        self.flushed_mark
    }

    /// A copy that owns its bytes.
    pub fn to_buf(&self) -> RecordBuf {
        let mut body = Vec::new();
        let mut blocks = SmallVec::new();
        for b in &self.blocks {
            let at = body.len();
            body.extend_from_slice(b.data);
            blocks.push((BlockRef { data: &[], ..*b }, at..body.len()));
        }
        let at = body.len();
        body.extend_from_slice(self.main);
        RecordBuf {
            start: self.start,
            end: self.end,
            header: self.header,
            main: at..body.len(),
            body,
            blocks,
            flushed_mark: self.flushed_mark,
        }
    }
}

/// A record that owns its bytes, to hand to another thread.
#[derive(Debug, Clone)]
pub struct RecordBuf {
    start: Lsn,
    end: Lsn,
    header: format::RecordHeader,
    body: Vec<u8>,
    blocks: SmallVec<[(BlockRef<'static>, std::ops::Range<usize>); 4]>,
    main: std::ops::Range<usize>,
    flushed_mark: Option<Lsn>,
}

impl RecordBuf {
    /// The record.
    pub fn as_record(&self) -> Record<'_> {
        Record {
            start: self.start,
            end: self.end,
            header: self.header,
            blocks: self.blocks.iter().map(|(b, r)| BlockRef { data: &self.body[r.clone()], ..*b }).collect(),
            main: &self.body[self.main.clone()],
            flushed_mark: self.flushed_mark,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_comes_back_as_it_was_built() {
        let rel = RelId::new(1663, 5, 16384);
        let mut b = RecordBuilder::new(3, 0x10, Xid::new(77));
        let big = vec![7; 70_000];
        b.block(rel, Fork::Main, BlockNo::new(4), 0, b"abc").block(rel, Fork::Vm, BlockNo::new(0), WILL_INIT, b"").block(
            RelId::new(1, 2, 3),
            Fork::Main,
            BlockNo::new(9),
            FPI,
            &big,
        );
        b.main(b"main").carry_flushed_mark();
        let (start, prev, mark) = (Lsn::new(0x100_0040), Lsn::new(0x100_0000), Lsn::new(0x99));
        let bytes = b.encode(start, prev, mark).unwrap();
        let header = format::RecordHeader::decode(bytes[..RECORD_HEADER_BYTES].try_into().unwrap());
        let r = Record::decode(start, start, header, &bytes[..header.total_bytes as usize]).unwrap();
        assert_eq!((r.rmgr(), r.kind(), r.xid(), r.prev()), (3, 0x10, Xid::new(77), prev));
        assert_eq!(r.main(), b"main");
        assert_eq!(r.flushed_mark(), Some(mark));
        assert_eq!(r.blocks().len(), 3);
        assert_eq!(r.blocks()[0], BlockRef { rel, fork: Fork::Main, block: BlockNo::new(4), flags: 0, data: b"abc" });
        assert!(r.blocks()[1].will_init());
        assert_eq!(r.blocks()[1].fork, Fork::Vm);
        assert_eq!(r.blocks()[2].data, &big[..]);
        let copy = r.to_buf();
        assert_eq!(format!("{:?}", copy.as_record()), format!("{r:?}"));
    }

    #[test]
    fn body_that_does_not_parse_is_refused_at_every_truncation() {
        let mut b = RecordBuilder::new(3, 0, Xid::new(1));
        b.block(RelId::new(1, 2, 3), Fork::Main, BlockNo::new(0), 0, b"0123456789").carry_flushed_mark();
        let bytes = b.encode(Lsn::new(64), Lsn::INVALID, Lsn::INVALID).unwrap();
        let header = format::RecordHeader::decode(bytes[..RECORD_HEADER_BYTES].try_into().unwrap());
        for cut in 0..header.total_bytes as usize {
            assert!(Record::decode(Lsn::new(64), Lsn::new(64), header, &bytes[..cut]).is_err(), "{cut}");
        }
    }
}
