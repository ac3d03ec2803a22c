//! Rows to bytes, with large values compressed and moved out of line.

use std::borrow::Cow;

use super::unpack;
use crate::access::heap::tuple::{HEADER, MAX_TUPLE};
use crate::config::{SessionSettings, Setting};
use crate::engine::Engine;
use crate::sql::catalog::Relation;
use crate::sql::catalog::chunks::{self, Stored};
use crate::sql::types::packed::POINTER_BYTES;
use crate::sql::types::{Compression, Datum, ToastTable, TupleDesc, row, stored};
use crate::sqlstate::SqlError;
use crate::txn::Transaction;

/// Rows longer than this, header included, have their large values made smaller, down to this. PostgreSQL: `TOAST_TUPLE_TARGET`.
const TARGET: usize = 2032;

/// Makes the stored form of one table's rows.
pub(crate) struct RowWriter<'a> {
    engine: &'a Engine,
    relation: &'a Relation,
    desc: &'a TupleDesc,
    toast: Option<ToastTable>,
    default: Compression,
}

/// A row that is too long as it is.
pub(crate) struct Wide<'v> {
    values: Cow<'v, [Datum]>,
    pieces: Vec<Piece>,
    /// Length of the row now.
    len: usize,
}

/// A value of a wide row.
struct Piece {
    /// Its stored form, header included; empty for NULL.
    bytes: Vec<u8>,
    /// May be made smaller.
    storage: u8,
    /// Compression is done or was in vain.
    tried: bool,
    /// The value's own bytes before compression; its compressed form, if it is.
    raw_len: u32,
    method: Compression,
    compressed: Option<Vec<u8>>,
    /// Moves out of line.
    external: bool,
}

impl<'a> RowWriter<'a> {
    /// For rows of `relation`.
    pub(crate) fn new(engine: &'a Engine, settings: &SessionSettings, relation: &'a Relation) -> Self {
        let default = Compression::from_name(settings.str(Setting::DefaultToastCompression));
        Self { engine, relation, desc: &relation.desc, toast: relation.desc.toast, default: default.unwrap_or(Compression::Pglz) }
    }

    /// Into another large-value table than the relation's own.
    pub(crate) fn into_toast(mut self, toast: Option<ToastTable>) -> Self {
        self.toast = toast;
        self
    }

    /// Appends the row's bytes to `out`, or gives it back if it is too long for that. `old`: the version that is replaced, whose large
    /// values stay where they are if the row still has them.
    ///
    /// # Errors
    /// 54000; what reading values fails with.
    pub(crate) fn start<'v>(&self, values: &'v [Datum], old: &[Datum], out: &mut Vec<u8>) -> Result<Option<Wide<'v>>, SqlError> {
        let mut values = Cow::Borrowed(values);
        for i in 0..values.len() {
            let Some(Datum::Packed(p)) = values.get(i) else { continue };
            let Some(pointer) = p.pointer() else { continue };
            let kept = matches!(old.get(i), Some(Datum::Packed(o)) if o.is_same(p));
            if !kept || self.toast.is_none_or(|t| t.table.oid != pointer.toast) {
                let value = unpack(self.engine.ctx(), p)?;
                if let Some(slot) = values.to_mut().get_mut(i) {
                    *slot = value;
                }
            }
        }
        let start = out.len();
        row::encode_as(self.desc, &values, false, out)?;
        let len = out.len() - start;
        if !self.is_wide(len) {
            return Ok(None);
        }
        out.truncate(start);
        let mut wide = self.pieces(values, len)?;
        wide.shrink(self.target() - HEADER, self.toast.is_some());
        if wide.pieces.iter().any(|p| p.external) {
            return Ok(Some(wide));
        }
        wide.write(self.desc, out)?;
        Ok(None)
    }

    /// Stores what goes out of line, then appends the row.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(crate) fn finish(&self, txn: &mut Transaction, mut wide: Wide<'_>, out: &mut Vec<u8>) -> Result<(), SqlError> {
        let toast = self.toast.ok_or_else(|| SqlError::internal("large value without a table for it"))?;
        for piece in wide.pieces.iter_mut().filter(|p| p.external) {
            let (head, _) = stored::header_of(&piece.bytes);
            let raw = piece.bytes.get(head..).unwrap_or_default();
            let (bytes, method) = match &piece.compressed {
                Some(block) => (block.as_slice(), Some(piece.method)),
                None => (raw, None),
            };
            let value = Stored { bytes, raw_len: piece.raw_len, method };
            let mut next_id = || self.engine.allocate_oid().map_err(SqlError::from);
            let pointer = chunks::put(self.engine.ctx(), txn, &toast, &value, &mut next_id)?;
            piece.bytes = pointer.encode().to_vec();
            piece.compressed = None;
        }
        wide.write(self.desc, out)
    }

    /// Both at once.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(crate) fn write(&self, txn: &mut Transaction, values: &[Datum], old: &[Datum], out: &mut Vec<u8>) -> Result<(), SqlError> {
        match self.start(values, old, out)? {
            Some(wide) => self.finish(txn, wide, out),
            None => Ok(()),
        }
    }

    /// Whether a row of so many bytes has its large values made smaller.
    pub(crate) fn is_wide(&self, len: usize) -> bool {
        // A smaller target is what is shrunk to, not what is shrunk for.
        len + HEADER > self.target().max(TARGET)
    }

    fn target(&self) -> usize {
        let asked = self.relation.option("toast_tuple_target").and_then(|v| v.parse::<usize>().ok());
        asked.map_or(TARGET, |n| n.clamp(128, MAX_TUPLE))
    }

    fn pieces<'v>(&self, values: Cow<'v, [Datum]>, len: usize) -> Result<Wide<'v>, SqlError> {
        let mut pieces = Vec::with_capacity(values.len());
        for (i, value) in values.iter().enumerate() {
            let column = self.relation.columns.get(i);
            let mut bytes = Vec::new();
            if !value.is_null() {
                stored::put(value, false, &mut bytes)?;
            }
            let (head, plain) = stored::header_of(&bytes);
            let has_header = self.desc.cols.get(i).is_some_and(|c| c.repr.has_header());
            let storage = if has_header && !value.is_null() { column.map_or(b'x', |c| c.storage) } else { b'p' };
            let mut piece = Piece {
                raw_len: u32::try_from(bytes.len() - head.min(bytes.len())).unwrap_or(u32::MAX),
                storage,
                tried: !plain,
                method: column.and_then(|c| Compression::from_letter(c.compression)).unwrap_or(self.default),
                compressed: None,
                external: false,
                bytes,
            };
            if let Datum::Packed(p) = value {
                match &p.held {
                    // Where it is it stays.
                    crate::sql::types::Held::OutOfLine(..) => piece.storage = b'p',
                    crate::sql::types::Held::Inline { bytes, raw_len, method } => {
                        (piece.raw_len, piece.method, piece.compressed) = (*raw_len, *method, Some(bytes.to_vec()));
                    }
                }
            }
            pieces.push(piece);
        }
        Ok(Wide { values, pieces, len })
    }
}

impl Piece {
    /// Bytes it takes in the row.
    fn len(&self) -> usize {
        if self.external { POINTER_BYTES } else { self.compressed.as_ref().map_or(self.bytes.len(), |c| c.len() + 8) }
    }
}

impl Wide<'_> {
    /// PostgreSQL: `heap_toast_insert_or_update`, its four rounds.
    fn shrink(&mut self, target: usize, toast: bool) {
        // The largest are compressed; what is too long even so moves out at once.
        while self.len > target
            && let Some(at) = self.biggest(|p| !p.tried && matches!(p.storage, b'x' | b'e'))
        {
            self.compress(at);
            if toast && self.pieces.get(at).is_some_and(|p| p.len() > target) {
                self.move_out(at);
            }
        }
        while self.len > target
            && toast
            && let Some(at) = self.biggest(|p| matches!(p.storage, b'x' | b'e'))
        {
            self.move_out(at);
        }
        while self.len > target
            && let Some(at) = self.biggest(|p| !p.tried && p.storage == b'm')
        {
            self.compress(at);
        }
        // Values of storage MAIN move only if the row does not fit a page otherwise.
        while self.len > MAX_TUPLE - HEADER
            && toast
            && let Some(at) = self.biggest(|p| p.storage == b'm')
        {
            self.move_out(at);
        }
    }

    /// The largest of those asked for that a pointer would make smaller.
    fn biggest(&self, wanted: impl Fn(&Piece) -> bool) -> Option<usize> {
        let candidates = self.pieces.iter().enumerate().filter(|(_, p)| !p.external && p.len() > POINTER_BYTES + 7 && wanted(p));
        candidates.max_by_key(|(_, p)| p.len()).map(|(at, _)| at)
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut Piece)) {
        if let Some(piece) = self.pieces.get_mut(at) {
            let before = piece.len();
            change(piece);
            self.len = self.len - before + piece.len();
        }
    }

    fn compress(&mut self, at: usize) {
        self.change(at, |piece| {
            piece.tried = true;
            if piece.storage != b'e' {
                let (head, _) = stored::header_of(&piece.bytes);
                piece.compressed = stored::compress(piece.bytes.get(head..).unwrap_or_default());
            }
        });
    }

    fn move_out(&mut self, at: usize) {
        self.change(at, |piece| piece.external = true);
    }

    fn write(&self, desc: &TupleDesc, out: &mut Vec<u8>) -> Result<(), SqlError> {
        let kept = self.values.iter().any(|v| matches!(v, Datum::Packed(p) if p.pointer().is_some()));
        row::put_header(desc, &self.values, kept || self.pieces.iter().any(|p| p.external), out)?;
        for piece in &self.pieces {
            match &piece.compressed {
                Some(block) if !piece.external => stored::put_block(block, piece.raw_len, piece.method, out)?,
                _ => out.extend_from_slice(&piece.bytes),
            }
        }
        Ok(())
    }
}
