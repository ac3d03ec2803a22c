//! What every DDL command does: look up, lock, check rights, write catalog rows, invalidate.

use std::sync::Arc;

use afterimage_wal::{Fork, RelId};
use pg_query::protobuf::{RangeVar, RoleSpec};

use super::nodes::{self, RoleName};
use crate::access::{AccessCtx, heap};
use crate::config::Setting;
use crate::executor::SessionContext;
use crate::sql::catalog::cache::class;
use crate::sql::catalog::load::{CatalogReader, CatalogRow, by};
use crate::sql::catalog::relation::{DEFAULT_TABLESPACE, FIRST_NORMAL_OID, PG_CATALOG_NAMESPACE, Persistence, RelKind, Relation};
use crate::sql::catalog::rows::{self, DependKind, ObjectAddress};
use crate::sql::catalog::schema::{CatalogDef, pg_authid, pg_depend, pg_namespace, pg_shdepend, pg_type};
use crate::sql::catalog::tables::{CatalogWriter, heap_handle};
use crate::sql::catalog::{Viewer, privilege};
use crate::sql::types::typmod::format_type_with;
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{Invalidation, LockMode, LockTag, WaitPolicy};

impl SessionContext {
    /// Pages, WAL, transactions.
    pub(crate) fn access(&self) -> AccessCtx {
        self.engine.ctx().clone()
    }

    /// Takes up changes of catalogs made so far in this transaction, and of the session's search path and user.
    pub fn refresh_catalog(&mut self) {
        let Some(txn) = &self.transaction else { return };
        let mut viewer = self.catalog.viewer().clone();
        viewer.user = self.user;
        viewer.user_name.clone_from(&self.user_name);
        let search_path = self.settings.str(Setting::SearchPath);
        if *viewer.search_path != *search_path {
            viewer.search_path = Arc::from(search_path);
        }
        let handle = self.catalog.catalog().handle(viewer, txn);
        self.set_catalog(handle);
    }

    /// Tells the session which schema its temporary relations are in.
    pub(crate) fn set_temp_namespace(&mut self, namespace: Option<Oid>) {
        let Some(txn) = &self.transaction else { return };
        let viewer = Viewer { temp_namespace: namespace, ..self.catalog.viewer().clone() };
        let handle = self.catalog.catalog().handle(viewer, txn);
        self.set_catalog(handle);
    }

    /// Writes catalogs in the running transaction.
    pub(crate) fn writer(&mut self) -> Result<CatalogWriter<'_>, SqlError> {
        let (ctx, database) = (self.access(), self.database);
        Ok(CatalogWriter::new(ctx, database, self.transaction()?))
    }

    /// A reader that sees what this transaction wrote so far.
    pub(crate) fn catalog_reader(&mut self) -> Result<crate::sql::catalog::tables::StoredReader, SqlError> {
        self.writer()?.reader()
    }

    /// The newest version of a catalog's row, with the place in the queue for it taken, so that nobody who waits for the row as well changes it
    /// first; the place is [`SessionContext::leave_queue`]'s to give up, or the transaction's end. `None`: there is no such row any more.
    /// PostgreSQL: `SearchSysCacheLocked1`.
    pub(crate) fn queue_for_row(
        &mut self,
        def: &'static CatalogDef,
        index: Oid,
        key: &[Datum],
    ) -> Result<Option<(CatalogRow, LockTag)>, SqlError> {
        let mut queued: Option<(CatalogRow, LockTag)> = None;
        loop {
            let found = self.catalog_reader()?.row(def, index, key)?;
            if let Some((before, tag)) = queued {
                if let Some(row) = found.as_ref().filter(|row| row.tid == before.tid) {
                    return Ok(Some((row.clone(), tag)));
                }
                self.leave_queue(tag)?;
            }
            let Some(row) = found else { return Ok(None) };
            let tag = heap::queue_tag(&heap_handle(def, self.database), row.tid);
            self.transaction()?.lock(tag, LockMode::Exclusive, WaitPolicy::Block)?;
            queued = Some((row, tag));
        }
    }

    /// Gives up a place in the queue for a row.
    pub(crate) fn leave_queue(&mut self, tag: LockTag) -> Result<(), SqlError> {
        self.transaction()?.unlock(tag, LockMode::Exclusive);
        Ok(())
    }

    /// Changes columns of fixed length of a catalog's row where it is: see [`CatalogWriter::overwrite`]. Without changes, only waits as long.
    pub(crate) fn set_in_place(
        &mut self,
        def: &'static CatalogDef,
        index: Oid,
        key: &[Datum],
        changes: &[(usize, Datum)],
    ) -> Result<(), SqlError> {
        loop {
            let Some((row, tag)) = self.queue_for_row(def, index, key)? else {
                return Err(SqlError::internal("a catalog's row is gone"));
            };
            let same = |(position, value): &(usize, Datum)| match (row.values.get(*position), value) {
                (Some(Datum::Bool(old)), Datum::Bool(new)) => old == new,
                (Some(Datum::Int4(old)), Datum::Int4(new)) => old == new,
                (Some(Datum::Float4(old)), Datum::Float4(new)) => old == new,
                _ => false,
            };
            let known = !changes.is_empty() && changes.iter().all(same);
            let done = known || self.writer()?.overwrite(def, &row, changes)?;
            self.leave_queue(tag)?;
            if done {
                return Ok(());
            }
        }
    }

    /// Error if this transaction may not write. `command` as PostgreSQL names it in the message.
    pub(crate) fn check_writable(&mut self, command: &'static str) -> Result<(), SqlError> {
        Ok(self.transaction()?.check_writable(command)?)
    }

    /// An OID that no row of `def` has (`index`: its index on the OID).
    pub(crate) fn new_oid(&mut self, def: &'static CatalogDef, index: Oid) -> Result<Oid, SqlError> {
        loop {
            let oid = self.engine.allocate_oid()?;
            if self.catalog_reader()?.row(def, index, &[Datum::Oid(oid)])?.is_none() {
                return Ok(oid);
            }
        }
    }

    /// An OID for a relation.
    pub(crate) fn new_relation_oid(&mut self) -> Result<Oid, SqlError> {
        self.new_oid(&crate::sql::catalog::schema::pg_class::DEF, by::CLASS_OID)
    }

    /// Makes the empty files of a new relation in a tablespace (0: the database's), gone again if the transaction rolls back.
    pub(crate) fn new_file(&mut self, tablespace: Oid, persistence: Persistence) -> Result<RelId, SqlError> {
        let file = self.new_file_number(tablespace)?;
        let pool = self.engine.pool();
        match persistence {
            Persistence::Unlogged => {
                pool.create_unlogged(file)?;
            }
            Persistence::Permanent => {
                pool.create_fork(file, Fork::Main)?;
            }
            Persistence::Temporary => pool.files().create_temporary(file, self.backend_pid)?,
        }
        Ok(file)
    }

    /// A number for a relation's files in a tablespace, not made yet, gone again if the transaction rolls back.
    pub(crate) fn new_file_number(&mut self, tablespace: Oid) -> Result<RelId, SqlError> {
        let spc = if tablespace == 0 { DEFAULT_TABLESPACE } else { tablespace };
        let pool = self.engine.pool().clone();
        loop {
            let file = RelId { spc, db: self.database, rel: self.engine.allocate_oid()? };
            if pool.files().exists(file, Fork::Main)? || pool.files().exists(file, Fork::Init)? {
                continue;
            }
            let xid = self.transaction()?.xid()?;
            if spc != DEFAULT_TABLESPACE && !pool.has_database_dir(self.database, spc) {
                pool.create_database_dir(self.database, spc, xid)?;
            }
            self.transaction()?.drop_on_abort(file);
            return Ok(file);
        }
    }

    fn invalidate(&mut self, database: Oid, class: Oid, object: Oid) -> Result<(), SqlError> {
        self.transaction()?.invalidate(Invalidation { database, class, object });
        self.refresh_catalog();
        Ok(())
    }

    /// A relation's descriptor changed.
    pub(crate) fn relation_changed(&mut self, relation: Oid) -> Result<(), SqlError> {
        self.invalidate(self.database, class::RELATION, relation)
    }

    /// A relation came, went, or has another name.
    pub(crate) fn relation_names_changed(&mut self) -> Result<(), SqlError> {
        self.invalidate(self.database, class::RELATION_NAMES, 0)
    }

    /// A schema came, went, or has another name.
    pub(crate) fn namespaces_changed(&mut self) -> Result<(), SqlError> {
        self.invalidate(self.database, class::RELATION, 0)?;
        self.invalidate(self.database, class::NAMESPACE, 0)
    }

    /// Roles or memberships changed.
    pub(crate) fn roles_changed(&mut self) -> Result<(), SqlError> {
        self.invalidate(0, class::ROLE, 0)
    }

    /// Databases changed.
    pub(crate) fn databases_changed(&mut self) -> Result<(), SqlError> {
        self.invalidate(0, class::DATABASE, 0)
    }

    /// Locks a relation until the transaction ends.
    pub(crate) fn lock_oid(&mut self, relation: Oid, shared: bool, mode: LockMode, wait: WaitPolicy) -> Result<bool, SqlError> {
        let db = if shared { 0 } else { self.database };
        let tag = LockTag::Relation { db, rel: relation };
        let transaction = self.transaction()?;
        // Held already, so logged already.
        let logged = mode != LockMode::AccessExclusive || transaction.holds(&tag, mode);
        if !transaction.lock(tag, mode, wait)? {
            return Ok(false);
        }
        if !logged && transaction.transactions().in_recovery() {
            return Err(SqlError::internal("an exclusive lock during recovery"));
        }
        if !logged {
            let xid = transaction.xid()?;
            transaction.transactions().log_lock(xid, db, relation)?;
        }
        Ok(true)
    }

    /// Locks an object that is no relation.
    pub(crate) fn lock_object(&mut self, shared: bool, class: Oid, object: Oid, mode: LockMode) -> Result<(), SqlError> {
        let db = if shared { 0 } else { self.database };
        self.transaction()?.lock(LockTag::Object { db, class, object }, mode, WaitPolicy::Block)?;
        Ok(())
    }

    /// Finds a relation by name and locks it. The name is looked up again after waiting, as it may mean another relation then.
    /// `None`: there is no such relation.
    pub(crate) fn find_locked(
        &mut self,
        schema: Option<&str>,
        name: &str,
        mode: LockMode,
        wait: WaitPolicy,
    ) -> Result<Option<Arc<Relation>>, SqlError> {
        let mut locked = None;
        loop {
            self.refresh_catalog();
            let found = match self.catalog.find_relation(schema, name) {
                Err(e) if e.state() == SqlState::INVALID_SCHEMA_NAME => return Ok(None),
                other => other?,
            };
            let Some(relation) = found else { return Ok(None) };
            if locked == Some(relation.oid) {
                return Ok(Some(relation));
            }
            match self.lock_oid(relation.oid, relation.shared, mode, wait) {
                Ok(_) => {}
                Err(e) if e.state() == SqlState::LOCK_NOT_AVAILABLE && wait == WaitPolicy::Error => {
                    return Err(SqlError::new(e.state(), format!("could not obtain lock on relation \"{}\"", relation.name)));
                }
                Err(e) => return Err(e),
            }
            locked = Some(relation.oid);
        }
    }

    /// As [`Self::find_locked`], with `42P01` and its position.
    pub(crate) fn open_locked(&mut self, range: &RangeVar, source: &str, mode: LockMode) -> Result<Arc<Relation>, SqlError> {
        let (schema, name) = nodes::names(range);
        match self.find_locked(schema, name, mode, WaitPolicy::Block)? {
            Some(relation) => Ok(relation),
            None => {
                let e = self.catalog.open_relation(schema, name).err();
                let e = e.unwrap_or_else(|| SqlError::new(SqlState::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist")));
                let _ = source;
                Err(e)
            }
        }
    }

    /// The newest descriptor of a relation this transaction works on.
    pub(crate) fn reopen(&mut self, relation: Oid) -> Result<Arc<Relation>, SqlError> {
        self.refresh_catalog();
        self.catalog.relation(relation)?.ok_or_else(|| SqlError::internal(format!("could not open relation with OID {relation}")))
    }

    /// Locks where a table's large values are, for whoever stores some; the table as it is then.
    pub(crate) fn lock_large_values(&mut self, relation: Arc<Relation>) -> Result<Arc<Relation>, SqlError> {
        let Some(toast) = &relation.toast else { return Ok(relation) };
        self.lock_oid(toast.table.oid, false, LockMode::RowExclusive, WaitPolicy::Block)?;
        self.reopen(relation.oid)
    }

    /// Refuses changes of system catalogs, and of what belongs to others.
    pub(crate) fn check_owner(&self, relation: &Relation) -> Result<(), SqlError> {
        if relation.is_system() {
            return Err(SqlError::new(
                SqlState::INSUFFICIENT_PRIVILEGE,
                format!("permission denied: \"{}\" is a system catalog", relation.name),
            ));
        }
        if !self.catalog.has_privileges_of(self.user, relation.owner)? {
            let noun = relation.kind.noun();
            return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("must be owner of {noun} {}", relation.name)));
        }
        Ok(())
    }

    /// True if the current user is a superuser.
    pub(crate) fn is_superuser(&self) -> Result<bool, SqlError> {
        self.catalog.is_superuser(self.user)
    }

    /// The schema a new object named `name` goes to, checked for the right to create there.
    pub(crate) fn creation_namespace(&mut self, schema: Option<&str>) -> Result<Oid, SqlError> {
        let namespace = match schema {
            Some(schema) => self.catalog.require_namespace(schema)?,
            None => self.catalog.creation_namespace()?,
        };
        if namespace == PG_CATALOG_NAMESPACE {
            return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, "permission denied to create in schema \"pg_catalog\"")
                .detail("System catalog modifications are currently disallowed."));
        }
        self.check_schema_create(namespace)?;
        Ok(namespace)
    }

    /// `42501` unless the user may create in the schema.
    pub(crate) fn check_schema_create(&mut self, namespace: Oid) -> Result<(), SqlError> {
        if !privilege::on_namespace(&self.catalog, self.user, namespace, privilege::CREATE)? {
            let name = self.catalog.namespace_name(namespace)?.unwrap_or_else(|| Arc::from("?"));
            return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied for schema {name}")));
        }
        Ok(())
    }

    /// The role a specification names.
    pub(crate) fn role_oid(&self, spec: &RoleSpec) -> Result<Oid, SqlError> {
        match nodes::role(spec) {
            RoleName::Named(name) => Ok(self.catalog.require_role(name)?.oid),
            RoleName::Current => Ok(self.user),
            RoleName::Session => Ok(self.session_user),
            RoleName::Public => Err(SqlError::new(SqlState::UNDEFINED_OBJECT, "role \"public\" does not exist")),
        }
    }

    /// A type's name, as messages have it.
    pub(crate) fn type_text(&self, type_oid: Oid) -> String {
        format_type_with(type_oid, Some(-1), self.io()).unwrap_or_default()
    }

    /// Records that `depender` needs a type, if that is one that can be dropped: a row type.
    pub(crate) fn depend_on_type(&mut self, depender: ObjectAddress, type_oid: Oid) -> Result<(), SqlError> {
        self.depend(depender, ObjectAddress::new(pg_type::ID, type_oid), DependKind::Normal)
    }

    /// Records that `depender` needs `on`. Nothing is recorded on what cannot be dropped.
    pub(crate) fn depend(&mut self, depender: ObjectAddress, on: ObjectAddress, kind: DependKind) -> Result<(), SqlError> {
        let pinned = on.object < FIRST_NORMAL_OID && !(on.class == pg_namespace::ID && on.object == 2200);
        if !pinned && depender != on {
            self.writer()?.insert(&pg_depend::DEF, &rows::depend(depender, on, kind))?;
        }
        Ok(())
    }

    /// Records the owner of an object.
    pub(crate) fn depend_on_owner(&mut self, depender: ObjectAddress, owner: Oid, shared: bool) -> Result<(), SqlError> {
        if owner >= FIRST_NORMAL_OID {
            let database = if shared { 0 } else { self.database };
            let row = rows::shared_depend(database, depender, ObjectAddress::new(pg_authid::ID, owner), b'o');
            self.writer()?.insert(&pg_shdepend::DEF, &row)?;
        }
        Ok(())
    }
}

/// `42809`: the relation is of another kind than the command is for.
pub(crate) fn is_not(relation: &Relation, wanted: &str) -> SqlError {
    let article = if wanted.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{}\" is not {article} {wanted}", relation.name))
}

/// The same, with the command that drops it.
pub(crate) fn wrong_kind(relation: &Relation, wanted: &str) -> SqlError {
    let e = is_not(relation, wanted);
    let hint = match relation.kind {
        RelKind::View => "DROP VIEW to remove a view",
        RelKind::Sequence => "DROP SEQUENCE to remove a sequence",
        RelKind::Table | RelKind::Partitioned => "DROP TABLE to remove a table",
        RelKind::Index | RelKind::PartitionedIndex => "DROP INDEX to remove an index",
        RelKind::MatView => "DROP MATERIALIZED VIEW to remove a materialized view",
        RelKind::Composite | RelKind::Toast | RelKind::Foreign => return e,
    };
    e.hint(format!("Use {hint}."))
}

impl SessionContext {
    /// Queues a NOTICE with a SQLSTATE of its own.
    pub(crate) fn notice_with(&mut self, state: SqlState, message: impl Into<String>) {
        let fields = SqlError::new(state, message);
        self.notices.push(crate::executor::context::Notice { severity: "NOTICE", fields });
    }
}
