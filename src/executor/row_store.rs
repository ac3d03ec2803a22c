//! Rows in the order they came, to be read at any place and again: in memory up to a limit, behind that in a temporary file.

use std::sync::Arc;

use parking_lot::Mutex;

use super::eval::{Exec, Row};
use super::hash::row_bytes;
use super::spill;
use super::temp_file::{TempFile, temp_file};
use crate::config::Setting;
use crate::sqlstate::SqlError;

/// Bytes of rows that are written and read together.
const BLOCK: usize = 32 << 10;
/// Blocks read last, kept.
const CACHED: usize = 8;

/// The rows. What was first stays in memory; blocks of what follows lie in the file, but for the last, which grows.
#[derive(Default)]
pub(super) struct RowStore {
    /// Bytes that `head` may take.
    memory: usize,
    used: usize,
    head: Vec<Row>,
    file: Option<TempFile>,
    end: u64,
    /// Number of its first row and place of each block.
    blocks: Vec<(usize, u64)>,
    /// Rows of the block that grows, and as they will be written.
    last: Vec<Row>,
    bytes: Vec<u8>,
    count: usize,
    /// First row and rows of blocks read last; the newest at the end.
    cached: Vec<(usize, Vec<Row>)>,
}

/// Rows that several nodes read.
pub(super) type SharedRows = Arc<Mutex<RowStore>>;

/// For several readers.
pub(super) fn shared(rows: RowStore) -> SharedRows {
    Arc::new(Mutex::new(rows))
}

/// `work_mem`.
pub(super) fn work_mem(x: &Exec<'_>) -> usize {
    usize::try_from(x.session.settings.bytes(Setting::WorkMem).unwrap_or(4 << 20)).unwrap_or(usize::MAX)
}

impl RowStore {
    /// An empty one that takes about so many bytes of memory.
    pub(super) fn new(memory: usize) -> Self {
        Self { memory, ..Self::default() }
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Forgets all rows.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.memory);
    }

    /// Adds a row.
    pub(super) fn push(&mut self, x: &Exec<'_>, row: Row) -> Result<(), SqlError> {
        self.count += 1;
        if self.blocks.is_empty() && self.last.is_empty() {
            self.used += row_bytes(&row);
            if self.used <= self.memory || self.head.is_empty() {
                self.head.push(row);
                return Ok(());
            }
        }
        spill::write_row(&mut self.bytes, &row)?;
        self.last.push(row);
        if self.bytes.len() >= BLOCK {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(temp_file(x.session)?),
            };
            file.write_at(&self.bytes, self.end)?;
            self.blocks.push((self.count - self.last.len(), self.end));
            self.end += self.bytes.len() as u64;
            self.bytes.clear();
            self.last.clear();
        }
        Ok(())
    }

    /// The row at a place, `None` behind the last.
    pub(super) fn get(&mut self, at: usize) -> Result<Option<&Row>, SqlError> {
        if at < self.head.len() {
            return Ok(self.head.get(at));
        }
        if at >= self.count {
            return Ok(None);
        }
        let grows_from = self.count - self.last.len();
        if at >= grows_from {
            return Ok(self.last.get(at - grows_from));
        }
        let holds = |(first, rows): &(usize, Vec<Row>)| (*first..*first + rows.len()).contains(&at);
        match self.cached.iter().rposition(holds) {
            Some(found) => {
                if found + 1 < self.cached.len() {
                    let block = self.cached.remove(found);
                    self.cached.push(block);
                }
            }
            None => {
                let block = self.blocks.partition_point(|(first, _)| *first <= at).saturating_sub(1);
                let read = self.read(block)?;
                if self.cached.len() == CACHED {
                    self.cached.remove(0);
                }
                self.cached.push(read);
            }
        }
        Ok(self.cached.last().and_then(|(first, rows)| rows.get(at - first)))
    }

    fn read(&self, block: usize) -> Result<(usize, Vec<Row>), SqlError> {
        let gone = || SqlError::internal("temporary file");
        let (first, at) = *self.blocks.get(block).ok_or_else(gone)?;
        let upto = self.blocks.get(block + 1).map_or(self.end, |(_, at)| *at);
        let mut bytes = vec![0; usize::try_from(upto - at).map_err(|_| gone())?];
        self.file.as_ref().ok_or_else(gone)?.read_at(&mut bytes, at)?;
        let (mut rest, mut rows) = (bytes.as_slice(), Vec::new());
        while let Some(row) = spill::read_row(&mut rest)? {
            rows.push(row);
        }
        Ok((first, rows))
    }
}
