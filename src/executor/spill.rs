//! Rows in temporary files.
//!
//! The runs of a sort, and what is split by hash, share one file ([`Store`]), whose parts take turns in it block by block, so that the number of
//! parts is not bound by the number of files that may be open.

use super::eval::{Exec, Row};
use super::temp_file::{TempFile, temp_file};
use crate::access::{Persistence, RelHandle};
use crate::sql::types::{Compression, Datum, Held, Interval, Packed, Pointer, Repr, Tid, ToastTable, stored};
use crate::sqlstate::{SqlError, SqlState};

fn tag(v: &Datum) -> Option<u8> {
    Some(match v {
        Datum::Null => 0,
        Datum::Bool(_) => 1,
        Datum::Char(_) => 2,
        Datum::Int2(_) => 3,
        Datum::Int4(_) => 4,
        Datum::Int8(_) => 5,
        Datum::Oid(_) => 6,
        Datum::Xid8(_) => 7,
        Datum::Float4(_) => 8,
        Datum::Float8(_) => 9,
        Datum::Text(_) => 10,
        Datum::Bytea(_) => 11,
        Datum::Date(_) => 12,
        Datum::Time(_) => 13,
        Datum::TimeTz(..) => 14,
        Datum::Timestamp(_) => 15,
        Datum::TimestampTz(_) => 16,
        Datum::Interval(_) => 17,
        Datum::Lsn(_) => 18,
        Datum::Tid(_) => 19,
        Datum::Uuid(_) => 20,
        Datum::Numeric(_) => 21,
        Datum::Void => 22,
        Datum::Packed(p) if packed_repr(p.repr).is_some() => 23,
        Datum::Jsonb(_) => 24,
        Datum::Inet(_) => 25,
        Datum::MacAddr(_) => 26,
        Datum::Bits(_) => 27,
        Datum::Array(_) => 28,
        Datum::Range(_) => 29,
        Datum::Record(_) => 30,
        Datum::Packed(_) => return None,
    })
}

/// Length of the values, and their number.
const HEAD: usize = 8;

/// Appends a row.
pub(super) fn write_row(buf: &mut Vec<u8>, row: &[Datum]) -> Result<(), SqlError> {
    let at = buf.len();
    buf.extend([0; HEAD]);
    let written = write_values(buf, row).and_then(|()| {
        let count = u32::try_from(row.len()).map_err(|_| SqlError::internal("row too wide"))?;
        let len = u32::try_from(buf.len() - at - HEAD)
            .map_err(|_| SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "row too big for a temporary file"))?;
        if let Some((head, _)) = buf.get_mut(at..).and_then(|b| b.split_first_chunk_mut::<HEAD>()) {
            let ([a, b, c, d], [e, f, g, h]) = (len.to_le_bytes(), count.to_le_bytes());
            *head = [a, b, c, d, e, f, g, h];
        }
        Ok(())
    });
    if written.is_err() {
        buf.truncate(at);
    }
    written
}

fn write_values(buf: &mut Vec<u8>, row: &[Datum]) -> Result<(), SqlError> {
    for v in row {
        buf.push(tag(v).ok_or_else(|| SqlError::internal("a value that cannot be written to a temporary file"))?);
        #[expect(clippy::wildcard_enum_match_arm, reason = "tag() refuses the others")]
        match v {
            Datum::Bool(v) => buf.push(u8::from(*v)),
            Datum::Char(v) => buf.push(*v),
            Datum::Int2(v) => buf.extend(v.to_le_bytes()),
            Datum::Int4(v) | Datum::Date(v) => buf.extend(v.to_le_bytes()),
            Datum::Int8(v) | Datum::Time(v) | Datum::Timestamp(v) | Datum::TimestampTz(v) => buf.extend(v.to_le_bytes()),
            Datum::Oid(v) => buf.extend(v.to_le_bytes()),
            Datum::Xid8(v) | Datum::Lsn(v) => buf.extend(v.to_le_bytes()),
            Datum::Float4(v) => buf.extend(v.to_bits().to_le_bytes()),
            Datum::Float8(v) => buf.extend(v.to_bits().to_le_bytes()),
            Datum::Text(t) => bytes(buf, t.as_bytes()),
            Datum::Bytea(b) => bytes(buf, b),
            Datum::TimeTz(t, z) => {
                buf.extend(t.to_le_bytes());
                buf.extend(z.to_le_bytes());
            }
            Datum::Interval(i) => {
                buf.extend(i.months.to_le_bytes());
                buf.extend(i.days.to_le_bytes());
                buf.extend(i.micros.to_le_bytes());
            }
            Datum::Tid(t) => {
                buf.extend(t.block.to_le_bytes());
                buf.extend(t.offset.to_le_bytes());
            }
            Datum::Uuid(u) => buf.extend(u),
            Datum::Numeric(_)
            | Datum::Jsonb(_)
            | Datum::Inet(_)
            | Datum::MacAddr(_)
            | Datum::Bits(_)
            | Datum::Array(_)
            | Datum::Range(_)
            | Datum::Record(_) => stored::put(v, false, buf)?,
            Datum::Packed(p) => write_packed(p, buf),
            _ => {}
        }
    }
    Ok(())
}

/// Representations of packed values, by number.
const PACKED: [Repr; 9] =
    [Repr::Text, Repr::Bytea, Repr::Numeric, Repr::Jsonb, Repr::Inet, Repr::Bits, Repr::Array, Repr::Range, Repr::Record];

fn packed_repr(repr: Repr) -> Option<u8> {
    PACKED.iter().position(|r| *r == repr).and_then(|n| u8::try_from(n).ok())
}

fn write_packed(p: &Packed, buf: &mut Vec<u8>) {
    buf.push(packed_repr(p.repr).unwrap_or(0));
    match &p.held {
        Held::Inline { bytes: block, raw_len, method } => {
            buf.push(if *method == Compression::Lz4 { 1 } else { 0 });
            buf.extend(raw_len.to_le_bytes());
            bytes(buf, block);
        }
        Held::OutOfLine(pointer, toast) => {
            buf.push(2);
            buf.extend(pointer.encode());
            for rel in [toast.table, toast.index] {
                buf.extend(rel.oid.to_le_bytes());
                buf.extend(rel.file.to_le_bytes());
                buf.push(match rel.persistence {
                    Persistence::Permanent => 0,
                    Persistence::Unlogged => 1,
                    Persistence::Temporary => 2,
                });
            }
        }
    }
}

fn read_packed(c: &mut Cursor<'_>) -> Result<Packed, SqlError> {
    let bad = || SqlError::internal("temporary file");
    let [repr, kind] = c.array()?;
    let repr = *PACKED.get(usize::from(repr)).ok_or_else(bad)?;
    let held = match kind {
        0 | 1 => {
            let raw_len = u32::from_le_bytes(c.array()?);
            let method = if kind == 1 { Compression::Lz4 } else { Compression::Pglz };
            Held::Inline { bytes: c.sized()?.into(), raw_len, method }
        }
        _ => {
            let pointer = Pointer::decode(&c.array()?).ok_or_else(bad)?;
            let mut handle = || -> Result<RelHandle, SqlError> {
                let (oid, file) = (u32::from_le_bytes(c.array()?), afterimage_wal::RelId::from_le_bytes(c.array()?));
                let persistence = match c.array()? {
                    [0] => Persistence::Permanent,
                    [1] => Persistence::Unlogged,
                    _ => Persistence::Temporary,
                };
                Ok(RelHandle { oid, file, persistence, reserve: 0 })
            };
            Held::OutOfLine(pointer, ToastTable { table: handle()?, index: handle()? })
        }
    };
    Ok(Packed { repr, held })
}

fn bytes(buf: &mut Vec<u8>, b: &[u8]) {
    buf.extend(u32::try_from(b.len()).unwrap_or(u32::MAX).to_le_bytes());
    buf.extend_from_slice(b);
}

struct Cursor<'b>(&'b [u8]);

impl<'b> Cursor<'b> {
    fn take(&mut self, n: usize) -> Result<&'b [u8], SqlError> {
        let (head, rest) =
            self.0.split_at_checked(n).ok_or_else(|| SqlError::new(SqlState::IO_ERROR, "temporary file is shorter than written"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SqlError> {
        self.take(N)?.try_into().map_err(|_| SqlError::internal("temporary file"))
    }

    /// A value as rows of tables hold it.
    fn stored(&mut self, repr: Repr) -> Result<Datum, SqlError> {
        let mut r = stored::Reader(self.0);
        let v = stored::get(repr, &mut r)?;
        self.0 = r.0;
        Ok(v)
    }

    fn sized(&mut self) -> Result<&'b [u8], SqlError> {
        let n = u32::from_le_bytes(self.array()?);
        self.take(usize::try_from(n).unwrap_or(usize::MAX))
    }
}

/// A temporary file of many parts.
pub(super) struct Store {
    file: TempFile,
    end: u64,
}

/// Rows that belong together in a [`Store`].
#[derive(Default)]
pub(super) struct Part {
    /// Rows not yet written.
    buf: Vec<u8>,
    /// Blocks written: place and length.
    blocks: Vec<(u64, usize)>,
    /// Rows.
    pub rows: u64,
}

/// Reads a part.
pub(super) struct PartReader {
    blocks: std::vec::IntoIter<(u64, usize)>,
    /// What was not yet written when reading began: the last rows.
    tail: Vec<u8>,
    block: Vec<u8>,
    at: usize,
}

impl Store {
    /// An empty one.
    pub(super) fn new(x: &Exec<'_>) -> Result<Self, SqlError> {
        Ok(Self { file: temp_file(x.session)?, end: 0 })
    }

    /// Bytes written.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    /// Appends a row to a part, and writes the part's rows once they are `block` bytes.
    pub(super) fn push(&mut self, part: &mut Part, row: &[Datum], block: usize) -> Result<(), SqlError> {
        write_row(&mut part.buf, row)?;
        part.rows += 1;
        if part.buf.len() >= block { self.flush(part) } else { Ok(()) }
    }

    /// Writes what a part has gathered.
    pub(super) fn flush(&mut self, part: &mut Part) -> Result<(), SqlError> {
        if !part.buf.is_empty() {
            self.file.write_at(&part.buf, self.end)?;
            part.blocks.push((self.end, part.buf.len()));
            self.end += part.buf.len() as u64;
            part.buf.clear();
        }
        Ok(())
    }

    /// Reads a part, in the order it was written.
    pub(super) fn read(part: Part) -> PartReader {
        PartReader { blocks: part.blocks.into_iter(), tail: part.buf, block: Vec::new(), at: 0 }
    }

    /// Reads a part that is read again later.
    pub(super) fn read_again(part: &Part) -> PartReader {
        PartReader { blocks: part.blocks.clone().into_iter(), tail: part.buf.clone(), block: Vec::new(), at: 0 }
    }

    /// Forgets all parts.
    pub(super) fn clear(&mut self) -> Result<(), SqlError> {
        self.end = 0;
        self.file.clear()
    }

    /// The next row of a part.
    pub(super) fn next(&self, reader: &mut PartReader) -> Result<Option<Row>, SqlError> {
        loop {
            let mut rest = reader.block.get(reader.at..).unwrap_or_default();
            let before = rest.len();
            if let Some(row) = read_row(&mut rest)? {
                reader.at += before - rest.len();
                return Ok(Some(row));
            }
            reader.at = 0;
            match reader.blocks.next() {
                Some((at, len)) => {
                    reader.block.resize(len, 0);
                    self.file.read_at(&mut reader.block, at)?;
                }
                None if reader.tail.is_empty() => {
                    reader.block.clear();
                    return Ok(None);
                }
                None => reader.block = std::mem::take(&mut reader.tail),
            }
        }
    }
}

/// Parts a pass over rows sets aside at most.
const FAN_OUT: usize = 16;
/// How often a row may be set aside: each time by other bits of its hash.
const MAX_LEVEL: u32 = 8;

/// Rows set aside by hash while a hash table is full, to be read when it is empty again.
#[derive(Default)]
pub(super) struct Aside {
    store: Option<Store>,
    /// Of the pass that runs, by hash.
    parts: Vec<Part>,
    /// Whole parts yet to be read, each with its level.
    waiting: Vec<(Part, u32)>,
    reader: Option<PartReader>,
    level: u32,
    passes: u64,
}

impl Aside {
    /// Is a part being read?
    pub(super) fn reading(&self) -> bool {
        self.reader.is_some()
    }

    /// May rows of this pass be set aside?
    pub(super) fn can_split(&self) -> bool {
        self.level < MAX_LEVEL
    }

    /// Which of the pass's parts a hash belongs to.
    fn part(&self, hash: u64) -> usize {
        usize::try_from(hash >> (24 + 4 * self.level)).unwrap_or(0) % FAN_OUT
    }

    /// Was a row set aside in this pass whose hash may be the same?
    pub(super) fn has_like(&self, hash: u64) -> bool {
        self.parts.get(self.part(hash)).is_some_and(|p| p.rows > 0)
    }

    /// Sets a row aside.
    pub(super) fn push(&mut self, x: &Exec<'_>, hash: u64, row: &[Datum], memory: usize) -> Result<(), SqlError> {
        if self.store.is_none() {
            self.store = Some(Store::new(x)?);
        }
        if self.parts.is_empty() {
            self.parts.resize_with(FAN_OUT, Part::default);
        }
        let at = self.part(hash);
        match (&mut self.store, self.parts.get_mut(at)) {
            (Some(store), Some(part)) => store.push(part, row, (memory / 8 / FAN_OUT).clamp(1 << 10, 64 << 10)),
            _ => Err(SqlError::internal("rows set aside")),
        }
    }

    /// Goes on to the next part; false if none is left.
    pub(super) fn open_next(&mut self) -> bool {
        let level = self.level + 1;
        self.waiting.extend(self.parts.drain(..).filter(|p| p.rows > 0).map(|p| (p, level)));
        match self.waiting.pop() {
            Some((part, level)) => {
                self.reader = Some(Store::read(part));
                self.level = level;
                true
            }
            None => {
                self.reader = None;
                false
            }
        }
    }

    /// The next row of the part being read.
    pub(super) fn next_row(&mut self) -> Result<Option<Row>, SqlError> {
        match (&self.store, &mut self.reader) {
            (Some(store), Some(reader)) => store.next(reader),
            _ => Ok(None),
        }
    }

    /// Tells EXPLAIN ANALYZE about a pass whose table took `bytes`.
    pub(super) fn note(&mut self, x: &mut Exec<'_>, id: usize, bytes: usize) {
        self.passes += 1;
        let (passes, disk) = (self.passes, self.store.as_ref().map_or(0, Store::bytes));
        x.note(id, |s| {
            s.batches = (passes, 1);
            s.memory = s.memory.max(bytes as u64);
            s.disk = s.disk.max(disk);
        });
    }
}

/// Bytes of the row at the front.
pub(super) fn row_len(bytes: &[u8]) -> Result<usize, SqlError> {
    let len = u32::from_le_bytes(Cursor(bytes).array()?);
    Ok(usize::try_from(len).unwrap_or(usize::MAX).saturating_add(HEAD))
}

/// Takes a row off the front; `None` at the end.
pub(super) fn read_row(bytes: &mut &[u8]) -> Result<Option<Row>, SqlError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut whole = Cursor(bytes);
    let len = u32::from_le_bytes(whole.array()?);
    let count = usize::try_from(u32::from_le_bytes(whole.array()?)).unwrap_or(0);
    let mut c = Cursor(whole.take(usize::try_from(len).unwrap_or(usize::MAX))?);
    *bytes = whole.0;
    let mut row = Row::with_capacity(count);
    for _ in 0..count {
        let [tag] = c.array()?;
        row.push(match tag {
            0 => Datum::Null,
            1 => Datum::Bool(c.array::<1>()? != [0]),
            2 => Datum::Char(u8::from_le_bytes(c.array()?)),
            3 => Datum::Int2(i16::from_le_bytes(c.array()?)),
            4 => Datum::Int4(i32::from_le_bytes(c.array()?)),
            5 => Datum::Int8(i64::from_le_bytes(c.array()?)),
            6 => Datum::Oid(u32::from_le_bytes(c.array()?)),
            7 => Datum::Xid8(u64::from_le_bytes(c.array()?)),
            8 => Datum::Float4(f32::from_bits(u32::from_le_bytes(c.array()?))),
            9 => Datum::Float8(f64::from_bits(u64::from_le_bytes(c.array()?))),
            10 => Datum::text(std::str::from_utf8(c.sized()?).map_err(|_| SqlError::internal("temporary file"))?),
            11 => Datum::bytea(c.sized()?),
            12 => Datum::Date(i32::from_le_bytes(c.array()?)),
            13 => Datum::Time(i64::from_le_bytes(c.array()?)),
            14 => Datum::TimeTz(i64::from_le_bytes(c.array()?), i32::from_le_bytes(c.array()?)),
            15 => Datum::Timestamp(i64::from_le_bytes(c.array()?)),
            16 => Datum::TimestampTz(i64::from_le_bytes(c.array()?)),
            17 => Datum::Interval(Interval {
                months: i32::from_le_bytes(c.array()?),
                days: i32::from_le_bytes(c.array()?),
                micros: i64::from_le_bytes(c.array()?),
            }),
            18 => Datum::Lsn(u64::from_le_bytes(c.array()?)),
            19 => Datum::Tid(Tid { block: u32::from_le_bytes(c.array()?), offset: u16::from_le_bytes(c.array()?) }),
            20 => Datum::Uuid(c.array()?),
            21 => c.stored(Repr::Numeric)?,
            22 => Datum::Void,
            24 => c.stored(Repr::Jsonb)?,
            25 => c.stored(Repr::Inet)?,
            26 => c.stored(Repr::MacAddr)?,
            27 => c.stored(Repr::Bits)?,
            28 => c.stored(Repr::Array)?,
            29 => c.stored(Repr::Range)?,
            30 => c.stored(Repr::Record)?,
            23 => Datum::Packed(std::sync::Arc::new(read_packed(&mut c)?)),
            _ => return Err(SqlError::internal("temporary file")),
        });
    }
    Ok(Some(row))
}
