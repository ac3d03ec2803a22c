//! Functions that answer from the catalogs and the storage below: definitions, visibility, privileges, sizes, sequences,
//! advisory locks, transaction ids. Keyed by `prosrc`.

mod definition;
mod describe;
mod lock;
mod lookup;
mod privilege;
mod sequence;
mod size;
mod snapshot;
mod visible;

pub use sequence::SequenceCache;

use crate::executor::SessionContext;
use crate::sql::functions::{CallTypes, ProcEntry};
use crate::sql::types::Datum;
use crate::sqlstate::SqlError;

/// The value, or `None` if the function is not one of these.
pub(crate) fn call(
    ctx: &mut SessionContext,
    func: &'static ProcEntry,
    types: &CallTypes,
    args: &[Datum],
) -> Result<Option<Datum>, SqlError> {
    for part in [definition::call, visible::call, describe::call, privilege::call, size::call, sequence::call, lock::call, snapshot::call] {
        if let Some(value) = part(ctx, func, types, args)? {
            return Ok(Some(value));
        }
    }
    super::verify::call(ctx, func, args)
}
