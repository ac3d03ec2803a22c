//! Rows kept in the order they came, to be read again at any place: what a cursor has fetched, or holds beyond its transaction, and what a
//! set-returning function has returned.
//!
//! They are kept in memory up to `work_mem`, then in a temporary file, in blocks. A block is the unit of reading; where each begins is kept in memory.
//!
//! PostgreSQL: tuplestore.c.

use std::sync::Arc;

use super::context::SessionContext;
use super::eval::Row;
use super::sink::RowSink;
use super::spill::{read_row, write_row};
use super::temp_file::{TempFile, temp_file};
use crate::config::Setting;
use crate::sql::types::{Datum, Oid, RecordValue, TupleDesc};
use crate::sqlstate::SqlError;

/// Rows of a block in the file.
const BLOCK_ROWS: usize = 64;

/// The rows.
#[derive(Debug, Default)]
pub struct TupleStore {
    /// Rows that are not in the file: all, or those behind its last block.
    tail: Vec<Row>,
    /// About what they take.
    bytes: usize,
    file: Option<Blocks>,
}

/// The part in a file.
#[derive(Debug)]
struct Blocks {
    file: TempFile,
    /// Where each block begins, and at last where the next one will.
    starts: Vec<u64>,
    /// The block read last, by number.
    read: Option<(usize, Vec<Row>)>,
}

impl TupleStore {
    /// How many rows there are.
    pub fn len(&self) -> u64 {
        u64::try_from(self.in_file() + self.tail.len()).unwrap_or(u64::MAX)
    }

    /// No rows?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn in_file(&self) -> usize {
        self.file.as_ref().map_or(0, |f| (f.starts.len() - 1) * BLOCK_ROWS)
    }

    /// Row `n`, the first being 0.
    ///
    /// # Errors
    /// I/O.
    pub fn get(&mut self, n: u64) -> Result<Option<&[Datum]>, SqlError> {
        let Ok(n) = usize::try_from(n) else { return Ok(None) };
        let in_file = self.in_file();
        if n >= in_file {
            return Ok(self.tail.get(n - in_file).map(|row| &row[..]));
        }
        let Some(blocks) = &mut self.file else { return Ok(None) };
        let rows = blocks.block(n / BLOCK_ROWS)?;
        Ok(rows.get(n % BLOCK_ROWS).map(|row| &row[..]))
    }

    /// Moves what is beyond the memory there is to the file. To be called now and then while rows are added.
    ///
    /// # Errors
    /// I/O.
    pub fn spill(&mut self, session: &SessionContext) -> Result<(), SqlError> {
        let memory = usize::try_from(session.settings.bytes(Setting::WorkMem).unwrap_or(4 << 20)).unwrap_or(usize::MAX);
        if self.file.is_none() && self.bytes <= memory {
            return Ok(());
        }
        let blocks = match &mut self.file {
            Some(blocks) => blocks,
            None => self.file.insert(Blocks { file: temp_file(session)?, starts: vec![0], read: None }),
        };
        let whole = self.tail.len() / BLOCK_ROWS * BLOCK_ROWS;
        let mut bytes = Vec::new();
        for block in self.tail.get(..whole).unwrap_or_default().chunks(BLOCK_ROWS) {
            bytes.clear();
            block.iter().try_for_each(|row| write_row(&mut bytes, row))?;
            let start = blocks.starts.last().copied().unwrap_or(0);
            blocks.file.write_at(&bytes, start)?;
            blocks.starts.push(start + u64::try_from(bytes.len()).unwrap_or(0));
        }
        self.tail.drain(..whole);
        self.bytes = 0;
        Ok(())
    }
}

impl Blocks {
    fn block(&mut self, n: usize) -> Result<&[Row], SqlError> {
        if self.read.as_ref().is_none_or(|(at, _)| *at != n) {
            let start = self.starts.get(n).copied().unwrap_or(0);
            let end = self.starts.get(n + 1).copied().unwrap_or(start);
            let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(0)];
            self.file.read_at(&mut bytes, start)?;
            let (mut rest, mut rows) = (bytes.as_slice(), Vec::with_capacity(BLOCK_ROWS));
            while let Some(row) = read_row(&mut rest)? {
                rows.push(row);
            }
            self.read = Some((n, rows));
        }
        Ok(self.read.as_ref().map_or(&[], |(_, rows)| rows))
    }
}

/// The values a set-returning function gave, to be read once. Rows of one type are kept as rows, what they are is kept once.
#[derive(Debug, Default)]
pub struct ValueStore {
    rows: TupleStore,
    shape: Option<(Oid, Arc<TupleDesc>)>,
}

impl ValueStore {
    /// Adds a value.
    ///
    /// # Errors
    /// I/O.
    pub fn push(&mut self, session: &SessionContext, value: Datum) -> Result<(), SqlError> {
        let fields = if let Datum::Record(record) = &value {
            let (ty, desc) = self.shape.get_or_insert_with(|| (record.type_oid, Arc::clone(&record.desc)));
            (*ty == record.type_oid && Arc::ptr_eq(desc, &record.desc)).then(|| record.values.iter().cloned())
        } else {
            None
        };
        let mark = Datum::Bool(fields.is_some());
        let row: Row = match fields {
            Some(fields) => fields.chain([mark]).collect(),
            None => vec![value, mark],
        };
        self.rows.bytes += super::hash::row_bytes(&row);
        self.rows.tail.push(row);
        self.rows.spill(session)
    }

    /// The values, in the order they came.
    pub fn into_values(mut self) -> impl Iterator<Item = Result<Datum, SqlError>> + Send {
        let mut at = 0;
        std::iter::from_fn(move || {
            let row = match self.rows.get(at).transpose()? {
                Ok(row) => row,
                Err(e) => return Some(Err(e)),
            };
            at += 1;
            Some(Ok(match (row, &self.shape) {
                ([values @ .., Datum::Bool(true)], Some((type_oid, desc))) => {
                    Datum::Record(Arc::new(RecordValue { type_oid: *type_oid, desc: Arc::clone(desc), values: values.into() }))
                }
                (row, _) => row.first().cloned().unwrap_or_default(),
            }))
        })
    }
}

/// Adds rows.
impl RowSink for TupleStore {
    fn row(&mut self, values: &[Datum]) -> Result<(), SqlError> {
        self.bytes += super::hash::row_bytes(values);
        self.tail.push(values.to_vec());
        Ok(())
    }

    fn copy_out_begin(&mut self, _binary: bool, _columns: usize) -> Result<(), SqlError> {
        Err(SqlError::internal("COPY inside a cursor"))
    }

    fn copy_data(&mut self, _bytes: &[u8]) -> Result<(), SqlError> {
        Err(SqlError::internal("COPY inside a cursor"))
    }
}
