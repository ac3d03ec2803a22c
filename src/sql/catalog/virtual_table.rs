//! Relations whose rows are made on the fly: compiled-in catalogs, statistics views, settings.

use super::handle::CatalogHandle;
use crate::sql::functions::FnCtx;
use crate::sql::types::Datum;
use crate::sqlstate::SqlError;

/// What a provider may look at while it makes rows.
pub struct VirtualCx<'a> {
    /// The catalogs, at the query's snapshot.
    pub catalog: &'a CatalogHandle,
    /// The session's facts.
    pub session: &'a mut dyn FnCtx,
}

/// Makes the rows of one relation. Registered by name with the server's catalog (`Catalog::register_virtual`); the layer
/// that owns the facts implements it (session: `pg_stat_activity`; replication: `pg_stat_replication`).
pub trait VirtualTable: Send + Sync {
    /// Calls `emit` once per row, values in the order of the relation's columns.
    ///
    /// # Errors
    /// What `emit` returned, or the provider's own failure.
    fn rows(&self, cx: &mut VirtualCx<'_>, emit: &mut dyn FnMut(&[Datum]) -> Result<(), SqlError>) -> Result<(), SqlError>;
}
