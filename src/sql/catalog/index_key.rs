//! The bytes of an index entry. One place, because builds, changes and scans must agree.
//!
//! An entry's key is its key columns, each encoded by [`key::encode`] in the column's order. INCLUDE columns ride along: a bitmap of those that
//! are not NULL, then their values as a row holds them, long ones compressed. Indexes made before INCLUDE columns were stored have entries
//! without them; their values are in the row.

use smallvec::SmallVec;

use super::relation::{Index, IndexColumn};
use crate::access::btree::Item;
use crate::sql::types::key::{self, KeyOrder};
use crate::sql::types::stored::{self, Reader, Repr};
use crate::sql::types::{Compression, Datum};
use crate::sqlstate::{SqlError, SqlState};

/// Room for most keys.
pub type KeyBytes = SmallVec<[u8; 64]>;

/// The bytes of one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryBytes {
    /// Key.
    pub key: Vec<u8>,
    /// INCLUDE columns.
    pub carried: Vec<u8>,
}

impl EntryBytes {
    /// As the B-tree takes it.
    pub fn item(&self) -> Item<'_> {
        Item { key: &self.key, carried: &self.carried }
    }
}

impl From<Item<'_>> for EntryBytes {
    fn from(item: Item<'_>) -> Self {
        Self { key: item.key.to_vec(), carried: item.carried.to_vec() }
    }
}

/// Values longer than this are compressed. PostgreSQL: `TOAST_INDEX_TARGET`.
const COMPRESS_ABOVE: usize = 508;

impl IndexColumn {
    /// How its values sort.
    pub fn order(&self) -> KeyOrder {
        KeyOrder { desc: self.desc, nulls_first: self.nulls_first }
    }
}

impl Index {
    /// The INCLUDE columns.
    pub fn included(&self) -> &[IndexColumn] {
        self.columns.get(self.n_key..).unwrap_or_default()
    }

    /// Makes the entry of a row; `values`: one per column, those of keys unpacked, others in line. The result tells whether its key must be unique.
    ///
    /// # Errors
    /// As [`Self::encode_key`]; `54000` for values beyond 1 GB.
    pub fn encode_entry(&self, values: &[Datum], out: &mut EntryBytes) -> Result<bool, SqlError> {
        out.key.clear();
        out.carried.clear();
        self.encode_carried(values, true, &mut out.carried)?;
        self.encode_key(values, &mut out.key)
    }

    fn encode_carried(&self, values: &[Datum], compress: bool, out: &mut Vec<u8>) -> Result<(), SqlError> {
        let values = values.get(self.n_key..).unwrap_or_default();
        for eight in values.chunks(8) {
            out.push(eight.iter().enumerate().fold(0, |bits, (i, v)| bits | u8::from(!v.is_null()) << i));
        }
        for (value, column) in values.iter().zip(self.included()).filter(|(v, _)| !v.is_null()) {
            let start = out.len();
            stored::put(value, false, out)?;
            let plain = out.get(start..).unwrap_or_default();
            let (header, is_plain) = stored::header_of(plain);
            if compress && is_plain && plain.len() > COMPRESS_ABOVE && matches!(column.storage, b'x' | b'm') {
                let raw = plain.get(header..).unwrap_or_default();
                let raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
                if let Some(block) = stored::compress(raw) {
                    out.truncate(start);
                    stored::put_block(&block, raw_len, Compression::Pglz, out)?;
                }
            }
        }
        Ok(())
    }

    /// The values of the INCLUDE columns an entry carries, packed if they are compressed.
    ///
    /// # Errors
    /// `XX002` when the bytes are not what [`Self::encode_entry`] makes.
    pub fn decode_carried(&self, bytes: &[u8], out: &mut Vec<Datum>) -> Result<(), SqlError> {
        let corrupt =
            || SqlError::new(SqlState::INDEX_CORRUPTED, format!("an entry of index \"{}\" ends before its columns do", self.name));
        let included = self.included();
        let (present, values) = bytes.split_at_checked(included.len().div_ceil(8)).ok_or_else(corrupt)?;
        let mut reader = Reader(values);
        for (i, column) in included.iter().enumerate() {
            out.push(match present.get(i / 8) {
                Some(bits) if bits & 1 << (i % 8) != 0 => {
                    stored::get_packed(Repr::of(column.type_oid), &mut reader, None).map_err(|_| corrupt())?
                }
                _ => Datum::Null,
            });
        }
        Ok(())
    }

    /// Whether two entries carry the same, however it is compressed. `unpack` unpacks values.
    ///
    /// # Errors
    /// As [`Self::decode_carried`]; what `unpack` gives.
    pub fn carries_same(&self, a: &[u8], b: &[u8], unpack: impl Fn(&mut [Datum]) -> Result<(), SqlError>) -> Result<bool, SqlError> {
        if a == b {
            return Ok(true);
        }
        let plain = |bytes: &[u8]| -> Result<Vec<u8>, SqlError> {
            // In the places of the keys there is nothing.
            let (mut values, mut out) = (vec![Datum::Null; self.n_key], Vec::new());
            self.decode_carried(bytes, &mut values)?;
            unpack(&mut values)?;
            self.encode_carried(&values, false, &mut out)?;
            Ok(out)
        };
        Ok(plain(a)? == plain(b)?)
    }

    /// Appends the key of an entry whose columns have these values (one per key column, in order). The result tells whether the
    /// key must be unique: not if a column is NULL, unless NULLS NOT DISTINCT.
    ///
    /// # Errors
    /// A value has no key form.
    pub fn encode_key(&self, values: &[Datum], out: &mut Vec<u8>) -> Result<bool, SqlError> {
        let mut unique = self.unique;
        for (column, value) in self.keys().iter().zip(values) {
            unique &= !value.is_null() || self.nulls_not_distinct;
            key::encode_typed(value, column.type_oid, column.order(), out)?;
        }
        Ok(unique)
    }
}
