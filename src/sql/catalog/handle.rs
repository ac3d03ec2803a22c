//! Lookups at one snapshot, with one session's database, user and search path.

use std::sync::{Arc, OnceLock};

use afterimage_wal::{Lsn, Oid};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::cache::{Cache, DatabaseCache, Invalidations, SharedCache};
use super::function::{self, UserFunction};
use super::load::{self, CatalogReader, by};
use super::names::split_identifiers;
use super::relation::{Index, PG_CATALOG_NAMESPACE, Persistence, RelKind, Relation};
use super::schema::{pg_auth_members, pg_authid, pg_class, pg_database, pg_index, pg_namespace, pg_proc};
use super::shared::Catalog;
use super::tables::StoredReader;
use crate::sql::functions::ProcEntry;
use crate::sql::types::Datum;
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::snapshot::OwnXids;
use crate::txn::{CommitLevel, Proc, Transaction};

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
    /// CONNECTION LIMIT, -1 for none; -2: invalid.
    pub connection_limit: i32,
    /// Default tablespace.
    pub tablespace: Oid,
    /// LC_COLLATE.
    pub collate: Arc<str>,
    /// LC_CTYPE.
    pub ctype: Arc<str>,
}

impl Database {
    /// It can only be dropped: its `DROP DATABASE` was cut off, in PostgreSQL, or somebody marked it so. PostgreSQL: `database_is_invalid`.
    pub fn is_invalid(&self) -> bool {
        self.connection_limit == -2
    }
}

/// What a session tells the catalog about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewer {
    /// The connected database.
    pub database: Oid,
    /// The current user.
    pub user: Oid,
    /// Its name, for `"$user"` in the search path.
    pub user_name: Arc<str>,
    /// Setting `search_path`.
    pub search_path: Arc<str>,
    /// The session's temporary schema, once it has one.
    pub temp_namespace: Option<Oid>,
}

/// Whose eyes a handle sees with.
pub(super) struct View {
    pub(super) proc: Arc<Proc>,
    pub(super) level: CommitLevel,
    pub(super) cid: u32,
    pub(super) own: Option<Arc<OwnXids>>,
    /// The transaction has DDL of its own: what it reads is not for others, nor the other way round.
    pub(super) own_ddl: bool,
}

/// Catalog lookups of one session. Cheap to clone; make a new one per statement, and after each change of catalogs.
///
/// Holds no snapshot: each descriptor is the newest committed one, whatever the transaction's isolation level, since data must be
/// changed by the rules of now. A transaction that ran DDL of its own sees it: its handles bypass the shared cache.
#[derive(Clone)]
pub struct CatalogHandle {
    inner: Arc<Inner>,
}

struct Inner {
    catalog: Arc<Catalog>,
    database: Arc<DatabaseCache>,
    viewer: Viewer,
    view: View,
    /// Relations read so far by a handle with own DDL. Leaf.
    own: Mutex<FxHashMap<Oid, Option<Arc<Relation>>>>,
    search_path: OnceLock<Arc<SearchPath>>,
}

struct SearchPath {
    /// [`CatalogHandle::version`] before it was found out; `None`: not to be handed on.
    version: Option<u64>,
    /// With `pg_catalog` and the temporary schema where they are searched.
    effective: Vec<Oid>,
    /// As written: where new objects go.
    listed: Vec<Oid>,
}

impl std::fmt::Debug for CatalogHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CatalogHandle").field("viewer", &self.inner.viewer).finish_non_exhaustive()
    }
}

impl CatalogHandle {
    pub(super) fn new(catalog: Arc<Catalog>, database: Arc<DatabaseCache>, viewer: Viewer, view: View) -> Self {
        let own = Mutex::default();
        Self { inner: Arc::new(Inner { catalog, database, viewer, view, own, search_path: OnceLock::new() }) }
    }

    /// Whether `txn`'s next statement, looked at by `viewer`, may go on with it: a new one would say the same.
    pub fn serves(&self, viewer: &Viewer, txn: &Transaction) -> bool {
        let view = &self.inner.view;
        let same_own = match (&view.own, txn.own()) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, Some(_)) | (Some(_), None) => false,
        };
        same_own
            && !view.own_ddl
            && txn.invalidations().is_empty()
            && view.cid == txn.cid()
            && view.level == txn.options().level
            && Arc::ptr_eq(&view.proc, txn.proc())
            && self.inner.viewer == *viewer
            && self.inner.search_path.get().is_none_or(|path| path.version.is_some() && path.version == self.version())
    }

    /// Takes over what `before` found out about the search path, if it still holds.
    pub(super) fn go_on_from(&self, before: &Self) {
        if let Some(path) = before.inner.search_path.get()
            && path.version.is_some()
            && self.inner.viewer == before.inner.viewer
            && path.version == self.version()
        {
            // It is new: nobody has asked it.
            let _first = self.inner.search_path.set(Arc::clone(path));
        }
    }

    /// Who looks.
    pub fn viewer(&self) -> &Viewer {
        &self.inner.viewer
    }

    /// Whether it is another session's temporary relation: its rows are that session's alone, and gone with a crash.
    pub fn is_other_temporary(&self, relation: &Relation) -> bool {
        // Tables of large values are in a schema of all sessions; nobody gets at them but through their table.
        relation.persistence == Persistence::Temporary
            && relation.kind != RelKind::Toast
            && Some(relation.namespace) != self.inner.viewer.temp_namespace
    }

    /// The server's catalog.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.inner.catalog
    }

    /// The connected database.
    pub fn database(&self) -> Oid {
        self.inner.viewer.database
    }

    /// The current user.
    pub fn user(&self) -> Oid {
        self.inner.viewer.user
    }

    /// Reads stored catalogs, at a snapshot taken now.
    ///
    /// # Errors
    /// If the node stops.
    pub fn reader(&self) -> Result<StoredReader, SqlError> {
        let View { proc, level, cid, own, .. } = &self.inner.view;
        let ctx = self.inner.catalog.ctx();
        let snapshot = ctx.txns.snapshot_for(proc, *level, *cid, own.clone())?;
        Ok(StoredReader::new(ctx.clone(), self.database(), snapshot))
    }

    /// Where a snapshot taken now would read.
    fn now(&self) -> Lsn {
        self.inner.catalog.ctx().txns.readable_for(&self.inner.view.proc, self.inner.view.level)
    }

    /// Schemas searched for unqualified names, in order, `pg_catalog` (first unless listed) included.
    pub fn search_path(&self) -> &[Oid] {
        &self.search().effective
    }

    /// The schema that new objects without a schema go to.
    ///
    /// # Errors
    /// `3F000` if no schema of the search path exists.
    pub fn creation_namespace(&self) -> Result<Oid, SqlError> {
        self.search()
            .listed
            .first()
            .copied()
            .ok_or_else(|| SqlError::new(SqlState::INVALID_SCHEMA_NAME, "no schema has been selected to create in"))
    }

    /// Existing schemas of the search path as written.
    pub fn listed_search_path(&self) -> &[Oid] {
        &self.search().listed
    }

    fn search(&self) -> &SearchPath {
        self.inner.search_path.get_or_init(|| {
            let mut version = self.version();
            let viewer = &self.inner.viewer;
            let mut listed = Vec::new();
            for name in split_identifiers(&viewer.search_path, ',').unwrap_or_default() {
                let oid = match name.as_str() {
                    "$user" => self.find_namespace(&viewer.user_name),
                    "pg_temp" => Ok(viewer.temp_namespace),
                    other => self.find_namespace(other),
                };
                // A schema that cannot be read is not searched; using the catalog will say why.
                if oid.is_err() {
                    version = None;
                }
                if let Ok(Some(oid)) = oid
                    && !listed.contains(&oid)
                {
                    listed.push(oid);
                }
            }
            let mut effective = listed.clone();
            if !effective.contains(&PG_CATALOG_NAMESPACE) {
                effective.insert(0, PG_CATALOG_NAMESPACE);
            }
            if let Some(temp) = viewer.temp_namespace
                && !effective.contains(&temp)
            {
                effective.insert(0, temp);
            }
            Arc::new(SearchPath { version, effective, listed })
        })
    }

    /// Newest change of anything this handle reads; part of a plan cache's key. `None` when shared caches must be neither
    /// used nor filled: the transaction has DDL of its own, or a change is not yet visible at its commit level.
    pub fn version(&self) -> Option<u64> {
        let newest = self.inner.database.invalidations.newest().max(self.shared().invalidations.newest());
        (!self.inner.view.own_ddl && newest <= self.now()).then(|| newest.as_u64())
    }

    /// True if the transaction has DDL of its own.
    pub fn has_own_ddl(&self) -> bool {
        self.inner.view.own_ddl
    }

    fn shared(&self) -> &SharedCache {
        self.inner.catalog.shared()
    }

    /// From the cache, or read and kept.
    fn cached<K, V>(
        &self,
        cache: &Cache<K, V>,
        invalidations: &Invalidations,
        key: K,
        object: Oid,
        read: impl FnOnce(&StoredReader) -> Result<Option<V>, SqlError>,
    ) -> Result<Option<V>, SqlError>
    where
        K: std::hash::Hash + Eq,
        V: Clone,
    {
        if self.inner.view.own_ddl {
            return read(&self.reader()?);
        }
        if let Some(known) = cache.get(invalidations, &key, object, self.now()) {
            return Ok(known);
        }
        let reader = self.reader()?;
        let value = read(&reader)?;
        cache.put(key, value.clone(), reader.lsn());
        Ok(value)
    }

    /// The relation with this OID.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn relation(&self, oid: Oid) -> Result<Option<Arc<Relation>>, SqlError> {
        let db = &self.inner.database;
        if let Some(relation) = db.builtin.relation(oid) {
            return Ok(Some(relation.clone()));
        }
        let read = |reader: &StoredReader| Ok(load::relation(reader, self.database(), oid)?.map(Arc::new));
        if self.inner.view.own_ddl {
            if let Some(known) = self.inner.own.lock().get(&oid) {
                return Ok(known.clone());
            }
            let relation = read(&self.reader()?)?;
            self.inner.own.lock().insert(oid, relation.clone());
            return Ok(relation);
        }
        self.cached(&db.relations, &db.invalidations, oid, oid, read)
    }

    /// Functions users made under a name, in a schema or in the search path's, those of earlier schemas first.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn functions(&self, schema: Option<&str>, name: &str) -> Result<Vec<&'static ProcEntry>, SqlError> {
        let db = &self.inner.database;
        let read = |reader: &StoredReader| -> Result<Option<Arc<[UserFunction]>>, SqlError> {
            let rows = reader.rows(&pg_proc::DEF, by::PROC_NAME, &[Datum::text(name)])?;
            if rows.is_empty() {
                return Ok(None);
            }
            Ok(Some(rows.iter().map(function::from_row).collect::<Result<Vec<_>, _>>()?.into()))
        };
        let Some(all) = self.cached(&db.functions, &db.invalidations, Arc::from(name), 0, read)? else { return Ok(Vec::new()) };
        let schemas = match schema {
            Some(schema) => self.find_namespace(schema)?.into_iter().collect(),
            None => self.search_path().to_vec(),
        };
        Ok(schemas.iter().flat_map(|s| all.iter().filter(move |f| f.namespace == *s)).map(|f| f.entry).collect())
    }

    /// A function users made, by OID.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn function(&self, oid: Oid) -> Result<Option<UserFunction>, SqlError> {
        let row = self.reader()?.row(&pg_proc::DEF, by::PROC_OID, &[Datum::Oid(oid)])?;
        row.as_ref().map(function::from_row).transpose()
    }

    /// OID of the relation of this name in this schema.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn relation_oid(&self, namespace: Oid, name: &str) -> Result<Option<Oid>, SqlError> {
        let db = &self.inner.database;
        if let Some(oid) = db.builtin.find(namespace, name) {
            return Ok(Some(oid));
        }
        if namespace == PG_CATALOG_NAMESPACE {
            // Stored queries name relations by OID: `pg_catalog."#16384"`.
            let oid = name.strip_prefix('#').and_then(|digits| digits.parse().ok());
            return Ok(oid.filter(|_| name.len() > 1));
        }
        self.cached(&db.names, &db.invalidations, (namespace, Arc::from(name)), 0, |reader| {
            let key = [Datum::text(name), Datum::Oid(namespace)];
            reader.row(&pg_class::DEF, by::CLASS_NAME, &key)?.map(|row| row.oid(pg_class::oid)).transpose()
        })
    }

    /// The relation of this name in `schema`, or the first on the search path. `None` if there is none.
    ///
    /// # Errors
    /// `3F000` if `schema` does not exist; reading catalogs failed.
    pub fn find_relation(&self, schema: Option<&str>, name: &str) -> Result<Option<Arc<Relation>>, SqlError> {
        if let Some(schema) = schema {
            let namespace = self.require_namespace(schema)?;
            return match self.relation_oid(namespace, name)? {
                Some(oid) => self.relation(oid),
                None => Ok(None),
            };
        }
        if name.starts_with('#') {
            // Only a stored query means an OID by this, and says so by the schema.
            return self.find_listed(name);
        }
        for &namespace in self.search_path() {
            if let Some(oid) = self.relation_oid(namespace, name)? {
                return self.relation(oid);
            }
        }
        Ok(None)
    }

    fn find_listed(&self, name: &str) -> Result<Option<Arc<Relation>>, SqlError> {
        for &namespace in self.search_path().iter().filter(|&&n| n != PG_CATALOG_NAMESPACE) {
            if let Some(oid) = self.relation_oid(namespace, name)? {
                return self.relation(oid);
            }
        }
        Ok(None)
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
    #[expect(clippy::type_complexity, reason = "the table and its index")]
    pub fn index(&self, oid: Oid) -> Result<Option<(Arc<Relation>, Arc<Index>)>, SqlError> {
        let db = &self.inner.database;
        let table = match db.builtin.index_table(oid) {
            Some(table) => Some(table),
            None => self.cached(&db.index_tables, &db.invalidations, oid, 0, |reader| {
                let row = reader.row(&pg_index::DEF, by::INDEX_OID, &[Datum::Oid(oid)])?;
                row.map(|row| row.oid(pg_index::indrelid)).transpose()
            })?,
        };
        let Some(table) = table else { return Ok(None) };
        let Some(relation) = self.relation(table)? else { return Ok(None) };
        let index = relation.indexes.iter().find(|i| i.oid == oid).cloned();
        Ok(index.map(|index| (relation, index)))
    }

    /// True if an unqualified use of the relation's name finds it.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn is_visible(&self, relation: &Relation) -> Result<bool, SqlError> {
        for &namespace in self.search_path() {
            if namespace == relation.namespace {
                return Ok(true);
            }
            if self.relation_oid(namespace, &relation.name)?.is_some() {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// OID of a schema.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn find_namespace(&self, name: &str) -> Result<Option<Oid>, SqlError> {
        match name {
            "pg_catalog" => return Ok(Some(PG_CATALOG_NAMESPACE)),
            "pg_temp" => return Ok(self.inner.viewer.temp_namespace),
            _ => {}
        }
        let db = &self.inner.database;
        self.cached(&db.namespaces, &db.invalidations, Arc::from(name), 0, |reader| {
            let row = reader.row(&pg_namespace::DEF, by::NAMESPACE_NAME, &[Datum::text(name)])?;
            row.map(|row| row.oid(pg_namespace::oid)).transpose()
        })
    }

    /// OID of a schema that must exist.
    ///
    /// # Errors
    /// `3F000`.
    pub fn require_namespace(&self, name: &str) -> Result<Oid, SqlError> {
        self.find_namespace(name)?.ok_or_else(|| SqlError::new(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist")))
    }

    /// Name of a schema.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn namespace_name(&self, oid: Oid) -> Result<Option<Arc<str>>, SqlError> {
        if oid == PG_CATALOG_NAMESPACE {
            return Ok(Some(Arc::from("pg_catalog")));
        }
        let db = &self.inner.database;
        self.cached(&db.namespace_names, &db.invalidations, oid, 0, |reader| {
            let row = reader.row(&pg_namespace::DEF, by::NAMESPACE_OID, &[Datum::Oid(oid)])?;
            row.map(|row| row.str(pg_namespace::nspname).map(Arc::from)).transpose()
        })
    }

    /// A role by name.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn find_role(&self, name: &str) -> Result<Option<Arc<Role>>, SqlError> {
        let shared = self.shared();
        let oid = self.cached(&shared.role_names, &shared.invalidations, Arc::from(name), 0, |reader| {
            let row = reader.row(&pg_authid::DEF, by::AUTHID_NAME, &[Datum::text(name)])?;
            row.map(|row| row.oid(pg_authid::oid)).transpose()
        })?;
        oid.map_or(Ok(None), |oid| self.role(oid))
    }

    /// A role by name that must exist.
    ///
    /// # Errors
    /// `42704`.
    pub fn require_role(&self, name: &str) -> Result<Arc<Role>, SqlError> {
        self.find_role(name)?.ok_or_else(|| SqlError::new(SqlState::UNDEFINED_OBJECT, format!("role \"{name}\" does not exist")))
    }

    /// A role by OID.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn role(&self, oid: Oid) -> Result<Option<Arc<Role>>, SqlError> {
        let shared = self.shared();
        self.cached(&shared.roles, &shared.invalidations, oid, 0, |reader| {
            let Some(row) = reader.row(&pg_authid::DEF, by::AUTHID_OID, &[Datum::Oid(oid)])? else { return Ok(None) };
            Ok(Some(Arc::new(Role {
                oid,
                name: Arc::from(row.str(pg_authid::rolname)?),
                superuser: row.bool(pg_authid::rolsuper)?,
                inherit: row.bool(pg_authid::rolinherit)?,
                create_role: row.bool(pg_authid::rolcreaterole)?,
                create_db: row.bool(pg_authid::rolcreatedb)?,
                login: row.bool(pg_authid::rolcanlogin)?,
                replication: row.bool(pg_authid::rolreplication)?,
                bypass_rls: row.bool(pg_authid::rolbypassrls)?,
                connection_limit: row.int4(pg_authid::rolconnlimit)?,
                password: row.opt_str(pg_authid::rolpassword)?,
                valid_until: match row.values.get(pg_authid::rolvaliduntil) {
                    Some(Datum::TimestampTz(t)) => Some(*t),
                    _ => None,
                },
            })))
        })
    }

    /// Roles that `role` is a member of, itself included, directly or through others (whose membership it inherits, when
    /// `inherited`).
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn roles_of(&self, role: Oid, inherited: bool) -> Result<Vec<Oid>, SqlError> {
        let mut out = vec![role];
        let mut next = 0;
        while let Some(&member) = out.get(next) {
            next += 1;
            if inherited && !self.role(member)?.is_some_and(|r| r.inherit) {
                continue;
            }
            for &granted in self.direct_memberships(member)?.iter() {
                if !out.contains(&granted) {
                    out.push(granted);
                }
            }
        }
        Ok(out)
    }

    fn direct_memberships(&self, member: Oid) -> Result<Arc<[Oid]>, SqlError> {
        let shared = self.shared();
        let found = self.cached(&shared.memberships, &shared.invalidations, member, 0, |reader| {
            let rows = reader.rows(&pg_auth_members::DEF, by::MEMBERS_MEMBER, &[Datum::Oid(member)])?;
            rows.iter().map(|row| row.oid(pg_auth_members::roleid)).collect::<Result<Arc<[Oid]>, _>>().map(Some)
        })?;
        Ok(found.unwrap_or_else(|| Arc::from([])))
    }

    /// True if `user` is a superuser.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn is_superuser(&self, user: Oid) -> Result<bool, SqlError> {
        Ok(self.role(user)?.is_some_and(|r| r.superuser))
    }

    /// True if `user` may act as `owner`: is it, a superuser, or inherits from it.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn has_privileges_of(&self, user: Oid, owner: Oid) -> Result<bool, SqlError> {
        Ok(user == owner || self.is_superuser(user)? || self.roles_of(user, true)?.contains(&owner))
    }

    /// A database by name.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn find_database(&self, name: &str) -> Result<Option<Arc<Database>>, SqlError> {
        let shared = self.shared();
        let oid = self.cached(&shared.database_names, &shared.invalidations, Arc::from(name), 0, |reader| {
            let row = reader.row(&pg_database::DEF, by::DATABASE_NAME, &[Datum::text(name)])?;
            row.map(|row| row.oid(pg_database::oid)).transpose()
        })?;
        oid.map_or(Ok(None), |oid| self.database_by_oid(oid))
    }

    /// A database by OID.
    ///
    /// # Errors
    /// Reading catalogs failed.
    pub fn database_by_oid(&self, oid: Oid) -> Result<Option<Arc<Database>>, SqlError> {
        let shared = self.shared();
        self.cached(&shared.databases, &shared.invalidations, oid, 0, |reader| {
            let row = reader.row(&pg_database::DEF, by::DATABASE_OID, &[Datum::Oid(oid)])?;
            row.map(|row| {
                Ok(Arc::new(Database {
                    oid,
                    name: Arc::from(row.str(pg_database::datname)?),
                    owner: row.oid(pg_database::datdba)?,
                    encoding: row.int4(pg_database::encoding)?,
                    is_template: row.bool(pg_database::datistemplate)?,
                    allow_connections: row.bool(pg_database::datallowconn)?,
                    connection_limit: row.int4(pg_database::datconnlimit)?,
                    tablespace: row.oid(pg_database::dattablespace)?,
                    collate: Arc::from(row.str(pg_database::datcollate)?),
                    ctype: Arc::from(row.str(pg_database::datctype)?),
                }))
            })
            .transpose()
        })
    }
}

fn undefined_table(schema: Option<&str>, name: &str) -> SqlError {
    let full = schema.map_or_else(|| name.to_owned(), |s| format!("{s}.{name}"));
    SqlError::new(SqlState::UNDEFINED_TABLE, format!("relation \"{full}\" does not exist"))
}
