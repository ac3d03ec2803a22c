//! The numbers that name things in the WAL: positions, timelines, segments, transactions, relations, blocks.
//!
//! Each is a type of its own with only the arithmetic that makes sense. Bytes are little-endian everywhere.

use std::fmt;
use std::str::FromStr;

/// Bytes of alignment of every record in the WAL.
pub const ALIGN: u64 = 8;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($int:ty), $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($int);

        impl $name {
            #[doc = concat!("The id with this number.")]
            #[inline]
            pub const fn new(n: $int) -> Self {
                Self(n)
            }

            /// The number.
            #[inline]
            pub const fn get(self) -> $int {
                self.0
            }

            /// Little-endian bytes.
            #[inline]
            pub const fn to_le_bytes(self) -> [u8; $bytes] {
                self.0.to_le_bytes()
            }

            /// From little-endian bytes.
            #[inline]
            pub const fn from_le_bytes(bytes: [u8; $bytes]) -> Self {
                Self(<$int>::from_le_bytes(bytes))
            }
        }
    };
}

id! {
    /// Byte position in the WAL. Never reused within one timeline; printed as PostgreSQL does, `16/B374D848`.
    Lsn(u64), 8
}

impl Lsn {
    /// No position. WAL starts in segment 1, so no record has LSN 0.
    pub const INVALID: Self = Self(0);
    /// Above every position.
    pub const MAX: Self = Self(u64::MAX);

    /// The position with this number.
    #[inline]
    pub const fn from_u64(n: u64) -> Self {
        Self(n)
    }

    /// The number.
    #[inline]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// False for [`Lsn::INVALID`].
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// Bytes from `earlier` up to `self`; `None` if `earlier` is ahead.
    #[inline]
    pub const fn bytes_since(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// The position `bytes` further on; stops at [`Lsn::MAX`].
    #[inline]
    pub const fn advance(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// Upper half, as printed before the slash.
    #[inline]
    pub const fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Lower half, as printed after the slash.
    #[expect(clippy::cast_possible_truncation, reason = "the lower 32 bits are what is wanted")]
    #[inline]
    pub const fn low(self) -> u32 {
        self.0 as u32
    }

    /// From the two halves.
    #[inline]
    pub const fn from_halves(high: u32, low: u32) -> Self {
        Self(((high as u64) << 32) | low as u64)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.high(), self.low())
    }
}

/// Text that is not an LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid WAL location: \"{text}\"")]
pub struct ParseLsnError {
    /// What was given.
    pub text: String,
}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, ParseLsnError> {
        let half = |s: &str| {
            let ok = (1..=8).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_hexdigit());
            if ok { u32::from_str_radix(s, 16).ok() } else { None }
        };
        text.split_once('/')
            .and_then(|(hi, lo)| Some(Self::from_halves(half(hi)?, half(lo)?)))
            .ok_or_else(|| ParseLsnError { text: text.to_owned() })
    }
}

/// The bytes of one record: `start` inclusive, `end` exclusive and aligned. `end` is what pages and commits store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LsnRange {
    /// First byte of the record.
    pub start: Lsn,
    /// First byte after it, aligned; at a segment's end the boundary itself.
    pub end: Lsn,
}

id! {
    /// One line of history. A promotion begins a new one with a higher number.
    TimelineId(u32), 4
}

impl TimelineId {
    /// No timeline.
    pub const INVALID: Self = Self(0);
    /// Where every new cluster starts.
    pub const FIRST: Self = Self(1);

    /// The number above this one.
    #[must_use]
    #[inline]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

id! {
    /// Number of a segment file; segment `n` holds the bytes from `n * segment_bytes`.
    SegNo(u64), 8
}

impl SegNo {
    /// The first segment a cluster writes.
    pub const FIRST: Self = Self(1);

    /// The segment that holds the byte at `lsn`.
    #[inline]
    pub const fn of(lsn: Lsn, segment_bytes: u32) -> Self {
        Self(lsn.0 / segment_bytes as u64)
    }

    /// The segment that holds the byte before `lsn`: where bytes that end at `lsn` lie.
    #[inline]
    pub const fn of_end(lsn: Lsn, segment_bytes: u32) -> Self {
        Self(lsn.0.saturating_sub(1) / segment_bytes as u64)
    }

    /// Position of the segment's first byte, its header included.
    #[inline]
    pub const fn start_lsn(self, segment_bytes: u32) -> Lsn {
        Lsn(self.0.saturating_mul(segment_bytes as u64))
    }

    /// Position after the segment's last byte.
    #[inline]
    pub const fn end_lsn(self, segment_bytes: u32) -> Lsn {
        Lsn(self.0.saturating_add(1).saturating_mul(segment_bytes as u64))
    }

    /// The segment after this one.
    #[must_use]
    #[inline]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for SegNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

id! {
    /// Transaction id, 64 bits: it never wraps.
    Xid(u64), 8
}

impl Xid {
    /// No transaction.
    pub const INVALID: Self = Self(0);
    /// The first id a client's transaction may get.
    pub const FIRST_NORMAL: Self = Self(3);

    /// The id with this number.
    #[inline]
    pub const fn from_u64(n: u64) -> Self {
        Self(n)
    }

    /// The number.
    #[inline]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// False for [`Xid::INVALID`].
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// The id above this one.
    #[must_use]
    #[inline]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The 32 bits that PostgreSQL's `xid` type shows.
    #[expect(clippy::cast_possible_truncation, reason = "the lower 32 bits are what is wanted")]
    #[inline]
    pub const fn low(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Object id, as in PostgreSQL's catalogs.
pub type Oid = u32;

id! {
    /// Number of a block in one fork of a relation.
    BlockNo(u32), 4
}

impl BlockNo {
    /// No block.
    pub const INVALID: Self = Self(u32::MAX);
}

impl fmt::Display for BlockNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

id! {
    /// Identity of a cluster, drawn at initdb; the same on all its nodes.
    SystemId(u64), 8
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

id! {
    /// Identity of one start of a writer: tells two histories under one timeline and LSN apart.
    StartId(u64), 8
}

impl StartId {
    /// No start yet.
    pub const NONE: Self = Self(0);

    /// A new random id.
    pub fn draw() -> Self {
        loop {
            let id = Self(rand::random());
            if id != Self::NONE {
                return id;
            }
        }
    }
}

impl fmt::Display for StartId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where a relation's files are: tablespace, database, relfilenode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelId {
    /// Tablespace.
    pub spc: Oid,
    /// Database; 0 for relations shared by all.
    pub db: Oid,
    /// Relfilenode, never reused.
    pub rel: Oid,
}

impl RelId {
    /// Encoded length.
    pub const BYTES: usize = 12;

    /// From its three numbers.
    #[inline]
    pub const fn new(spc: Oid, db: Oid, rel: Oid) -> Self {
        Self { spc, db, rel }
    }

    /// All that a database has in a tablespace, where files to unlink are named: no relation has number 0.
    #[inline]
    pub const fn database(spc: Oid, db: Oid) -> Self {
        Self { spc, db, rel: 0 }
    }

    /// Whether it stands for a database's whole directory.
    #[inline]
    pub const fn is_database(self) -> bool {
        self.rel == 0
    }

    /// Whether it is `other`, or lies in the directory that `other` stands for.
    #[inline]
    pub const fn is_within(self, other: Self) -> bool {
        self.spc == other.spc && self.db == other.db && (self.rel == other.rel || other.is_database())
    }

    /// Little-endian bytes: spc, db, rel.
    pub fn to_le_bytes(self) -> [u8; Self::BYTES] {
        let mut b = [0; Self::BYTES];
        b[0..4].copy_from_slice(&self.spc.to_le_bytes());
        b[4..8].copy_from_slice(&self.db.to_le_bytes());
        b[8..12].copy_from_slice(&self.rel.to_le_bytes());
        b
    }

    /// From little-endian bytes.
    #[inline]
    pub const fn from_le_bytes(b: [u8; Self::BYTES]) -> Self {
        Self {
            spc: u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            db: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            rel: u32::from_le_bytes([b[8], b[9], b[10], b[11]]),
        }
    }
}

impl fmt::Display for RelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.spc, self.db, self.rel)
    }
}

/// Which of a relation's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Fork {
    /// The data.
    #[default]
    Main = 0,
    /// Free space map.
    Fsm = 1,
    /// Visibility map.
    Vm = 2,
    /// What an unlogged relation is reset to.
    Init = 3,
}

impl Fork {
    /// All forks, in order of their numbers.
    pub const ALL: [Self; 4] = [Self::Main, Self::Fsm, Self::Vm, Self::Init];

    /// The fork with this number.
    #[inline]
    pub const fn from_u8(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::Main),
            1 => Some(Self::Fsm),
            2 => Some(Self::Vm),
            3 => Some(Self::Init),
            _ => None,
        }
    }

    /// The number.
    #[inline]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// PostgreSQL's name: `main`, `fsm`, `vm`, `init`.
    #[inline]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Fsm => "fsm",
            Self::Vm => "vm",
            Self::Init => "init",
        }
    }

    /// The fork with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.name() == name)
    }
}

impl fmt::Display for Fork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_prints_and_parses_as_postgresql_does() {
        let lsn = Lsn::from_u64(0x16_B374_D848);
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert_eq!("16/B374D848".parse(), Ok(lsn));
        assert_eq!("0/0".parse(), Ok(Lsn::INVALID));
        for bad in ["", "/", "0/", "/0", "x/0", "0/123456789", "+1/0", "0/0/0", " 0/0"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn boundary_belongs_to_the_next_segment_and_an_end_to_the_one_before() {
        let s = 1 << 24;
        assert_eq!(SegNo::of(Lsn::new(1 << 24), s), SegNo::new(1));
        assert_eq!(SegNo::of_end(Lsn::new(2 << 24), s), SegNo::new(1));
        assert_eq!(SegNo::new(1).end_lsn(s), SegNo::new(2).start_lsn(s));
    }
}
