//! Rows in temporary files. A file has no name from the moment it is open, so that nothing is left of it after a crash.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::eval::Row;
use crate::access::{Persistence, RelHandle};
use crate::sql::types::{Compression, Datum, Held, Interval, Packed, Pointer, Repr, Tid, ToastTable};
use crate::sqlstate::{SqlError, SqlState};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// An I/O failure on a temporary file.
pub(super) fn io_error(e: io::Error) -> SqlError {
    let state = if e.kind() == io::ErrorKind::StorageFull { SqlState::DISK_FULL } else { SqlState::IO_ERROR };
    SqlError::new(state, format!("could not use temporary file: {e}"))
}

/// A new temporary file, unlinked already.
pub(super) fn temp_file(data_dir: &Path) -> Result<File, SqlError> {
    let dir = data_dir.join("base/pgsql_tmp");
    fs::create_dir_all(&dir).map_err(io_error)?;
    let path = dir.join(format!("pgsql_tmp{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(io_error)?;
    fs::remove_file(&path).map_err(io_error)?;
    Ok(file)
}

/// Can all values of the row be written?
pub(super) fn can_write(row: &[Datum]) -> bool {
    row.iter().all(|v| tag(v).is_some())
}

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
        Datum::Jsonb(_)
        | Datum::Inet(_)
        | Datum::MacAddr(_)
        | Datum::Bits(_)
        | Datum::Array(_)
        | Datum::Range(_)
        | Datum::Record(_)
        | Datum::Packed(_) => return None,
    })
}

/// Writes a row.
pub(super) fn write_row(w: &mut impl Write, row: &[Datum]) -> Result<(), SqlError> {
    let mut buf: Vec<u8> = Vec::with_capacity(64);
    for v in row {
        buf.push(tag(v).unwrap_or(0));
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
            Datum::Text(t) => bytes(&mut buf, t.as_bytes()),
            Datum::Bytea(b) => bytes(&mut buf, b),
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
            Datum::Numeric(n) => bytes(&mut buf, n.to_string().as_bytes()),
            Datum::Packed(p) => write_packed(p, &mut buf),
            _ => {}
        }
    }
    let count = u32::try_from(row.len()).map_err(|_| SqlError::internal("row too wide"))?;
    let len = u32::try_from(buf.len()).map_err(|_| SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "row too big for a temporary file"))?;
    w.write_all(&len.to_le_bytes()).map_err(io_error)?;
    w.write_all(&count.to_le_bytes()).map_err(io_error)?;
    w.write_all(&buf).map_err(io_error)
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
                Ok(RelHandle { oid, file, persistence })
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

    fn sized(&mut self) -> Result<&'b [u8], SqlError> {
        let n = u32::from_le_bytes(self.array()?);
        self.take(usize::try_from(n).unwrap_or(usize::MAX))
    }
}

/// Reads a row; `None` at the end.
pub(super) fn read_row(r: &mut impl Read) -> Result<Option<Row>, SqlError> {
    let mut head = [0u8; 8];
    match r.read_exact(&mut head) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(io_error(e)),
    }
    let [a, b, c, d, e, f, g, h] = head;
    let len = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(0);
    let count = usize::try_from(u32::from_le_bytes([e, f, g, h])).unwrap_or(0);
    let mut buf = vec![0u8; len];
    r.read_exact(&mut buf).map_err(io_error)?;
    let mut c = Cursor(&buf);
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
            21 => {
                let text = std::str::from_utf8(c.sized()?).map_err(|_| SqlError::internal("temporary file"))?;
                crate::sql::types::text_in(crate::sql::types::oids::NUMERIC, -1, text, &crate::sql::types::IoSettings::default())?
            }
            22 => Datum::Void,
            23 => Datum::Packed(std::sync::Arc::new(read_packed(&mut c)?)),
            _ => return Err(SqlError::internal("temporary file")),
        });
    }
    Ok(Some(row))
}
