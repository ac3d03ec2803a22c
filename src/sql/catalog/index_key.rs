//! The bytes of an index entry. One place, because builds, changes and scans must agree.
//!
//! An entry's key is its key columns, each encoded by [`key::encode`] in the column's order. INCLUDE columns are not stored:
//! queries fetch them from the row.

use smallvec::SmallVec;

use super::relation::{Index, IndexColumn};
use crate::sql::types::Datum;
use crate::sql::types::key::{self, KeyOrder};
use crate::sqlstate::SqlError;

/// Room for most keys.
pub type KeyBytes = SmallVec<[u8; 64]>;

impl IndexColumn {
    /// How its values sort.
    pub fn order(&self) -> KeyOrder {
        KeyOrder { desc: self.desc, nulls_first: self.nulls_first }
    }
}

impl Index {
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
