//! Window functions.

use super::call::Call;
use crate::sql::types::Datum;
use crate::sqlstate::SqlError;

/// The partition a window function is computed in, as the executor holds it. Positions count from 0 within the partition.
pub trait WindowFrame {
    /// Rows in the partition.
    fn partition_rows(&self) -> i64;
    /// The current row.
    fn current(&self) -> i64;
    /// First row of the current row's peer group.
    fn peers_start(&self) -> i64;
    /// One past the last row of the current row's peer group.
    fn peers_end(&self) -> i64;
    /// How many peer groups come before the current one.
    fn peer_groups_before(&self) -> i64;
    /// The rows of the frame, exclusions applied: the `n`th from its start (or from its end, counting back).
    ///
    /// # Errors
    /// Evaluation errors.
    fn frame_row(&mut self, n: i64, from_end: bool) -> Result<Option<i64>, SqlError>;
    /// Argument `arg` of the call, evaluated at a row of the partition.
    ///
    /// # Errors
    /// Evaluation errors.
    fn arg_at(&mut self, arg: usize, row: i64) -> Result<Datum, SqlError>;
}

/// Body of a window function: the value at the current row.
pub type WindowFn = fn(&mut Call<'_>, &mut dyn WindowFrame) -> Result<Datum, SqlError>;
