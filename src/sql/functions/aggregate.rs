//! Aggregates: running states and the table that binds them to `pg_aggregate`.

use super::call::{Call, CallTypes};
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::SqlError;

/// The state of one aggregate over one group.
pub trait Accumulator: Send {
    /// Takes one input row's arguments (FILTER, DISTINCT and ORDER BY are the caller's). NULLs included: the state skips
    /// what its transition function would.
    ///
    /// # Errors
    /// The aggregate's own.
    fn add(&mut self, call: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError>;

    /// The result so far; may be asked repeatedly (window frames).
    ///
    /// # Errors
    /// The aggregate's own.
    fn finish(&self, call: &mut Call<'_>) -> Result<Datum, SqlError>;

    /// Takes back the oldest row added (moving window frames). `false`: cannot, recompute the frame.
    ///
    /// # Errors
    /// The aggregate's own.
    fn remove(&mut self, call: &mut Call<'_>, args: &[Datum]) -> Result<bool, SqlError> {
        let _ = (call, args);
        Ok(false)
    }

    /// Bytes held beyond a fixed size, for hash aggregation's memory limit.
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// Makes the empty state for a call site.
pub type NewAccumulator = fn(&CallTypes) -> Box<dyn Accumulator>;

/// A row of `pg_aggregate`.
#[derive(Debug)]
pub struct AggEntry {
    /// The aggregate, in `pg_proc`.
    pub func: Oid,
    /// `n`ormal, `o`rdered-set, `h`ypothetical-set.
    pub kind: u8,
    /// Direct arguments of an ordered-set aggregate.
    pub direct_args: i16,
    /// Support functions and types, as `pg_aggregate` orders them.
    pub transition: Oid,
    /// Final function.
    pub finish: Oid,
    /// Combine function.
    pub combine: Oid,
    /// Serialisation function.
    pub serialize: Oid,
    /// Deserialisation function.
    pub deserialize: Oid,
    /// Moving transition.
    pub moving_transition: Oid,
    /// Moving inverse transition.
    pub moving_inverse: Oid,
    /// Moving final function.
    pub moving_finish: Oid,
    /// Final function takes extra arguments.
    pub finish_extra: bool,
    /// Moving final function takes extra arguments.
    pub moving_finish_extra: bool,
    /// Whether the final function modifies the state.
    pub finish_modify: u8,
    /// The same for moving.
    pub moving_finish_modify: u8,
    /// Sort operator of min and max.
    pub sort_operator: Oid,
    /// State type.
    pub state_type: Oid,
    /// State size estimate.
    pub state_space: i32,
    /// Moving state type.
    pub moving_state_type: Oid,
    /// Moving state size estimate.
    pub moving_state_space: i32,
    /// Initial state.
    pub initial: &'static str,
    /// Initial moving state.
    pub moving_initial: &'static str,
}
