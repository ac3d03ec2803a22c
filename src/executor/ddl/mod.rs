//! Commands that change what exists. Each is a set of changes to catalog rows in the caller's transaction, with the files that go
//! with them; the commit record carries which cached descriptors are stale.
//!
//! Locks as in PostgreSQL: the relation first, then its descriptor is read again. Expressions are bound through
//! [`super::SqlFrontEnd`], since binding lives above.

pub(crate) mod alter;
pub(crate) mod cluster;
pub(crate) mod comment;
pub(crate) mod constraint;
pub(crate) mod database;
pub(crate) mod drop;
pub(crate) mod expression;
pub(crate) mod foreign_key;
pub(crate) mod function;
pub(crate) mod grant;
pub(crate) mod index;
pub(crate) mod lock;
pub(crate) mod nodes;
pub(crate) mod options;
pub(crate) mod reindex;
pub(crate) mod rename;
pub(crate) mod rewrite;
pub(crate) mod role;
pub(crate) mod schema;
pub(crate) mod sequence;
pub(crate) mod step;
pub(crate) mod table;
pub(crate) mod table_as;
pub(crate) mod tablespace;
pub(crate) mod temp;
pub(crate) mod toast;
pub(crate) mod trigger;
pub(crate) mod truncate;
pub(crate) mod view;
