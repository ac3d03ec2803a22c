//! Lookups at one snapshot, with one session's database, user and search path.

use std::sync::Arc;

use afterimage_wal::Oid;
use super::relation::{Index, Relation};
use crate::sqlstate::{SqlError, SqlState};

/// A role, from `pg_authid`.
#[derive(Clone, Debug)]
pub struct Role {
    /// `pg_authid.oid`.
    pub oid: Oid,
    /// Name.
    pub name: Arc<str>,
    /// SUPERUSER.
    pub superuser: bool,
    /// INHERIT.
    pub inherit: bool,
    /// CREATEROLE.
    pub create_role: bool,
    /// CREATEDB.
    pub create_db: bool,
    /// LOGIN.
    pub login: bool,
    /// REPLICATION.
    pub replication: bool,
    /// BYPASSRLS.
    pub bypass_rls: bool,
    /// CONNECTION LIMIT, -1 for none.
    pub connection_limit: i32,
    /// Stored password (`SCRAM-SHA-256$...` or `md5...`).
    pub password: Option<Arc<str>>,
    /// VALID UNTIL, microseconds from 2000-01-01 UTC.
    pub valid_until: Option<i64>,
}

/// A database, from `pg_database`.
#[derive(Clone, Debug)]
pub struct Database {
    /// `pg_database.oid`.
    pub oid: Oid,
    /// Name.
    pub name: Arc<str>,
    /// Owner.
    pub owner: Oid,
    /// Encoding id (6 = UTF8).
    pub encoding: i32,
    /// May be cloned by anyone with CREATEDB.
    pub is_template: bool,
    /// Accepts connections.
    pub allow_connections: bool,
    /// CONNECTION LIMIT, -1 for none.
    pub connection_limit: i32,
    /// Default tablespace.
    pub tablespace: Oid,
    /// LC_COLLATE.
    pub collate: Arc<str>,
    /// LC_CTYPE.
    pub ctype: Arc<str>,
}

/// Catalog lookups at one snapshot. Cheap to clone; make a new one per statement.
///
/// A transaction that ran DDL of its own sees it: its handles bypass the shared cache.
#[derive(Clone)]
pub struct CatalogHandle {
    database: Oid,
    user: Oid,
    search_path: Arc<[Oid]>,
}

impl CatalogHandle {
    /// The connected database.
    pub fn database(&self) -> Oid {
        self.database
    }

    /// The current user.
    pub fn user(&self) -> Oid {
        self.user
    }

    /// Schemas searched for unqualified names, `pg_catalog` (first unless listed) included.
    pub fn search_path(&self) -> &[Oid] {
        &self.search_path
    }

    /// Changes whenever any catalog this handle reads has changed; part of a plan cache's key. `None` while the
    /// transaction has DDL of its own: do not use or fill shared caches then.
    pub fn version(&self) -> Option<u64> {
        None
    }

    /// The relation with this OID.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn relation(&self, _oid: Oid) -> Result<Option<Arc<Relation>>, SqlError> {
        Err(SqlError::unsupported("catalog"))
    }

    /// The relation of this name in `schema`, or the first on the search path. `None` if there is none.
    ///
    /// # Errors
    /// `3F000` if `schema` does not exist; reading catalogs failed.
    pub fn find_relation(&self, _schema: Option<&str>, _name: &str) -> Result<Option<Arc<Relation>>, SqlError> {
        Err(SqlError::unsupported("catalog"))
    }

    /// Like [`Self::find_relation`], with `42P01` if there is none.
    ///
    /// # Errors
    /// `42P01`, and as [`Self::find_relation`].
    pub fn open_relation(&self, schema: Option<&str>, name: &str) -> Result<Arc<Relation>, SqlError> {
        match self.find_relation(schema, name) {
            Ok(Some(relation)) => Ok(relation),
            Ok(None) => Err(undefined_table(schema, name)),
            // PostgreSQL reports a missing schema of a relation as a missing relation.
            Err(e) if e.state() == SqlState::INVALID_SCHEMA_NAME => Err(undefined_table(schema, name)),
            Err(e) => Err(e),
        }
    }

    /// The index with this OID and its table.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn index(&self, _oid: Oid) -> Result<Option<(Arc<Relation>, Arc<Index>)>, SqlError> {
        Err(SqlError::unsupported("catalog"))
    }

    /// OID of a schema.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn find_namespace(&self, _name: &str) -> Result<Option<Oid>, SqlError> {
        Err(SqlError::unsupported("catalog"))
    }

    /// Name of a schema.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn namespace_name(&self, _oid: Oid) -> Result<Option<Arc<str>>, SqlError> {
        Err(SqlError::unsupported("catalog"))
    }

    /// A role by name.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn find_role(&self, _name: &str) -> Result<Option<Arc<Role>>, SqlError> {
        Err(SqlError::unsupported("catalog"))
    }

    /// A role by OID.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn role(&self, _oid: Oid) -> Result<Option<Arc<Role>>, SqlError> {
        Err(SqlError::unsupported("catalog"))
    }

    /// A database by name.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn find_database(&self, _name: &str) -> Result<Option<Arc<Database>>, SqlError> {
        Err(SqlError::unsupported("catalog"))
    }

    /// A database by OID.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn database_by_oid(&self, _oid: Oid) -> Result<Option<Arc<Database>>, SqlError> {
        Err(SqlError::unsupported("catalog"))
    }
}

fn undefined_table(schema: Option<&str>, name: &str) -> SqlError {
    let full = schema.map_or_else(|| name.to_owned(), |s| format!("{s}.{name}"));
    SqlError::new(SqlState::UNDEFINED_TABLE, format!("relation \"{full}\" does not exist"))
}
