//! A value as it lies in a row: compressed, or out of line in the table's large-value table.
//!
//! Rows hand such values on unread, so that sorting, updating or counting rows does not fetch what nobody looks at. Expressions never see
//! one: the executor unpacks a column when it is loaded (`executor::large`), the readers of catalogs all of a row.
//!
//! Out of line, the row holds 17 bytes: `0xFE`, the raw length, the stored length with the method in its two top bits, the chunk id, and
//! the OID of the large-value table (all u32, little-endian). PostgreSQL: `varatt_external`.

use super::{Oid, stored::Repr};
use crate::access::RelHandle;

/// The table that holds a table's large values, and its index on (chunk_id, chunk_seq).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToastTable {
    /// The table.
    pub table: RelHandle,
    /// Its index.
    pub index: RelHandle,
}

/// How a stored value is compressed. Both names are the same LZ4 block here; the name asked for is kept, for `pg_column_compression`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// `pglz`.
    Pglz,
    /// `lz4`.
    Lz4,
}

impl Compression {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pglz => "pglz",
            Self::Lz4 => "lz4",
        }
    }

    /// By `pg_attribute.attcompression`.
    pub fn from_letter(letter: u8) -> Option<Self> {
        match letter {
            b'p' => Some(Self::Pglz),
            b'l' => Some(Self::Lz4),
            _ => None,
        }
    }

    /// By name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Pglz, Self::Lz4].into_iter().find(|c| c.name() == name)
    }

    /// As the two top bits of a length.
    pub(super) fn bits(method: Option<Self>) -> u32 {
        match method {
            None => 0,
            Some(Self::Pglz) => 1 << 30,
            Some(Self::Lz4) => 2 << 30,
        }
    }

    /// From the two top bits of a length.
    pub(super) fn of_bits(word: u32) -> Option<Self> {
        match word >> 30 {
            1 => Some(Self::Pglz),
            2 => Some(Self::Lz4),
            _ => None,
        }
    }
}

/// Where a value out of line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pointer {
    /// Bytes of the value.
    pub raw_len: u32,
    /// Bytes in the large-value table; the method in the two top bits.
    stored: u32,
    /// Which value of the large-value table.
    pub chunk_id: Oid,
    /// The large-value table.
    pub toast: Oid,
}

/// Bytes of a [`Pointer`] in a row.
pub const POINTER_BYTES: usize = 17;
/// First byte of a [`Pointer`].
pub(super) const POINTER_TAG: u8 = 0xFE;
/// Most bytes a value may have: lengths have 30 bits.
pub const MAX_VALUE_BYTES: usize = (1 << 30) - 1;
const LENGTH: u32 = (1 << 30) - 1;

impl Pointer {
    /// A pointer; lengths are below 1 GB.
    pub fn new(raw_len: u32, stored_len: u32, method: Option<Compression>, chunk_id: Oid, toast: Oid) -> Self {
        Self { raw_len, stored: stored_len & LENGTH | Compression::bits(method), chunk_id, toast }
    }

    /// Bytes in the large-value table.
    pub fn stored_len(&self) -> u32 {
        self.stored & LENGTH
    }

    /// How they are compressed.
    pub fn method(&self) -> Option<Compression> {
        Compression::of_bits(self.stored)
    }

    /// As a row holds it.
    pub fn encode(&self) -> [u8; POINTER_BYTES] {
        let mut out = [POINTER_TAG; POINTER_BYTES];
        out[1..5].copy_from_slice(&self.raw_len.to_le_bytes());
        out[5..9].copy_from_slice(&self.stored.to_le_bytes());
        out[9..13].copy_from_slice(&self.chunk_id.to_le_bytes());
        out[13..17].copy_from_slice(&self.toast.to_le_bytes());
        out
    }

    /// From a row; `None` if it is none.
    pub fn decode(bytes: &[u8; POINTER_BYTES]) -> Option<Self> {
        let (words, _) = bytes[1..].as_chunks::<4>();
        let word = |i: usize| words.get(i).map(|w| u32::from_le_bytes(*w));
        (bytes[0] == POINTER_TAG).then_some(())?;
        Some(Self { raw_len: word(0)?, stored: word(1)?, chunk_id: word(2)?, toast: word(3)? })
    }
}

/// Where the bytes of a [`Packed`] are.
#[derive(Clone, Debug)]
pub enum Held {
    /// Compressed, here.
    Inline {
        /// The LZ4 block.
        bytes: Box<[u8]>,
        /// Its length when unpacked.
        raw_len: u32,
        /// The method's name.
        method: Compression,
    },
    /// In this large-value table.
    OutOfLine(Pointer, ToastTable),
}

/// A value that is not unpacked.
#[derive(Clone, Debug)]
pub struct Packed {
    /// What it is when unpacked.
    pub repr: Repr,
    /// Its bytes.
    pub held: Held,
}

impl Packed {
    /// Whether both are the same stored value: out of line at the same place, or the same bytes.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.held, &other.held) {
            (Held::OutOfLine(a, _), Held::OutOfLine(b, _)) => a == b,
            (Held::Inline { bytes: a, raw_len: m, .. }, Held::Inline { bytes: b, raw_len: n, .. }) => m == n && a == b,
            (Held::OutOfLine(..), Held::Inline { .. }) | (Held::Inline { .. }, Held::OutOfLine(..)) => false,
        }
    }

    /// Bytes of the value when unpacked.
    pub fn raw_len(&self) -> usize {
        let (Held::Inline { raw_len, .. } | Held::OutOfLine(Pointer { raw_len, .. }, _)) = &self.held;
        usize::try_from(*raw_len).unwrap_or(usize::MAX)
    }

    /// Bytes it takes, in the row or out of line: `pg_column_size`.
    pub fn stored_len(&self) -> usize {
        match &self.held {
            Held::Inline { bytes, .. } => bytes.len() + 8,
            Held::OutOfLine(pointer, _) => usize::try_from(pointer.stored_len()).unwrap_or(usize::MAX),
        }
    }

    /// How it is compressed.
    pub fn method(&self) -> Option<Compression> {
        match &self.held {
            Held::Inline { method, .. } => Some(*method),
            Held::OutOfLine(pointer, _) => pointer.method(),
        }
    }

    /// The pointer, if it is out of line.
    pub fn pointer(&self) -> Option<Pointer> {
        match &self.held {
            Held::OutOfLine(pointer, _) => Some(*pointer),
            Held::Inline { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointer_survives_its_bytes() {
        let p = Pointer::new(LENGTH, 5, Some(Compression::Lz4), 70_000, 16_400);
        let bytes = p.encode();
        assert_eq!(Pointer::decode(&bytes), Some(p));
        assert_eq!((p.stored_len(), p.method()), (5, Some(Compression::Lz4)));
        assert_eq!(Pointer::decode(&[0; POINTER_BYTES]), None);
        assert_eq!(Pointer::new(3, 3, None, 1, 1).method(), None);
    }
}
