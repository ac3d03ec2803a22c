//! What exists: relations, columns, indexes, constraints, schemas, roles, databases, and who may see them.
//!
//! Catalogs are ordinary versioned heap tables with B-tree indexes (`schema` lists them), written by DDL through
//! `tables` and replicated by the same WAL. [`CatalogHandle`] answers lookups at one snapshot. Descriptors are
//! shared through a cache (`cache`) that commit records invalidate, on a standby too. Catalogs whose contents are
//! compiled in, and system views, are [`VirtualTable`]s.

pub mod bootstrap;
mod builtin;
pub mod cache;
pub(crate) mod chunks;
pub mod compiled;
pub mod database;
pub mod function;
pub mod handle;
pub mod index_key;
pub mod load;
pub mod names;
pub mod privilege;
pub mod relation;
pub mod rows;
pub mod schema;
pub mod shared;
mod statistics;
pub mod tables;
pub mod virtual_table;

pub use handle::{CatalogHandle, Database, Role, Viewer};
pub use relation::{
    CheckConstraint, Column, ColumnStats, Constraint, ConstraintKind, FkAction, FkMatch, ForeignKey, Identity, Index, IndexColumn,
    Persistence, RelKind, Relation, SequenceDef, Source,
};
pub use shared::Catalog;
pub use virtual_table::{VirtualCx, VirtualTable};
