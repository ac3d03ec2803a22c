//! Stands in until the WAL crate's identifiers land.

/// Object identifier.
pub type Oid = u32;

/// Relation file locator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelId {
    /// Tablespace.
    pub spc: u32,
    /// Database, 0 for shared relations.
    pub db: u32,
    /// File number.
    pub rel: u32,
}
