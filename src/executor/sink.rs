//! Where result rows go.

use crate::sql::types::Datum;
use crate::sqlstate::SqlError;

/// Takes a statement's results: the wire, a tuple store, a test.
pub trait RowSink {
    /// One result row, values in the order and types of the statement's columns.
    ///
    /// # Errors
    /// The client went away, or a value has no output form.
    fn row(&mut self, values: &[Datum]) -> Result<(), SqlError>;

    /// COPY TO STDOUT begins: `binary`, and its number of columns.
    ///
    /// # Errors
    /// The client went away; the sink takes no copies.
    fn copy_out_begin(&mut self, binary: bool, columns: usize) -> Result<(), SqlError>;

    /// One CopyData message.
    ///
    /// # Errors
    /// The client went away.
    fn copy_data(&mut self, bytes: &[u8]) -> Result<(), SqlError>;
}

/// Throws rows away.
#[derive(Debug, Default)]
pub struct Discard;

impl RowSink for Discard {
    fn row(&mut self, _values: &[Datum]) -> Result<(), SqlError> {
        Ok(())
    }

    fn copy_out_begin(&mut self, _binary: bool, _columns: usize) -> Result<(), SqlError> {
        Ok(())
    }

    fn copy_data(&mut self, _bytes: &[u8]) -> Result<(), SqlError> {
        Ok(())
    }
}

/// Keeps rows.
#[derive(Debug, Default)]
pub struct Collect {
    /// The rows so far.
    pub rows: Vec<Vec<Datum>>,
}

impl RowSink for Collect {
    fn row(&mut self, values: &[Datum]) -> Result<(), SqlError> {
        self.rows.push(values.to_vec());
        Ok(())
    }

    fn copy_out_begin(&mut self, _binary: bool, _columns: usize) -> Result<(), SqlError> {
        Err(SqlError::internal("COPY TO STDOUT into a collection"))
    }

    fn copy_data(&mut self, _bytes: &[u8]) -> Result<(), SqlError> {
        Err(SqlError::internal("COPY TO STDOUT into a collection"))
    }
}
