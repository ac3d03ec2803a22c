//! Relations whose rows are made on the fly: compiled-in catalogs, statistics views, settings.

use super::handle::CatalogHandle;

/// What a provider may look at while it makes rows.
pub struct VirtualCx<'a> {
    /// The catalogs, at the query's snapshot.
    pub catalog: &'a CatalogHandle,
}

/// Makes the rows of one relation. Registered by name with the server's catalog (`Catalog::register_virtual`); the layer
/// that owns the facts implements it (session: `pg_stat_activity`; replication: `pg_stat_replication`).
pub trait VirtualTable: Send + Sync {}
