//! What initdb puts into the catalogs: databases, schemas, roles, and the catalogs' descriptions of themselves.
//!
//! Runs as an ordinary transaction on a fresh engine; everything goes through the WAL as later DDL does.

use std::sync::Arc;

use afterimage_wal::{Fork, Oid, Xid};

use super::builtin::{Builtin, INFORMATION_SCHEMA_NAMESPACE, Providers, views};
use super::database;
use super::relation::{
    BOOTSTRAP_ROLE, DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, PG_CATALOG_NAMESPACE, PG_TOAST_NAMESPACE, PUBLIC_NAMESPACE, Persistence,
    RelKind, Relation,
};
use super::rows::{self, ClassRow, blank};
use super::schema::{
    CATALOGS, Keep, pg_attribute, pg_auth_members, pg_authid, pg_class, pg_database, pg_description, pg_index, pg_init_privs, pg_namespace,
    pg_shdescription, pg_tablespace,
};
use super::tables::{CatalogWriter, heap_handle, index_handle};
use crate::access::{AccessCtx, btree};
use crate::sql::types::{ArrayValue, Datum, oids};
use crate::sqlstate::SqlError;
use crate::txn::{CancelFlag, CommitLevel, ProcId, TransactionOptions};

/// Database `template1`.
pub const TEMPLATE1: Oid = 1;
/// Database `template0`.
pub const TEMPLATE0: Oid = 4;
/// Database `postgres`.
pub const POSTGRES: Oid = 5;

/// What initdb was asked for.
#[derive(Clone, Debug)]
pub struct BootstrapOptions {
    /// Name of the superuser.
    pub superuser: String,
    /// Its password, already as stored (`SCRAM-SHA-256$...`).
    pub password: Option<String>,
    /// Encoding id; 6 is UTF8.
    pub encoding: i32,
    /// LC_COLLATE.
    pub collate: String,
    /// LC_CTYPE.
    pub ctype: String,
}

impl Default for BootstrapOptions {
    fn default() -> Self {
        Self { superuser: "postgres".into(), password: None, encoding: 6, collate: "C".into(), ctype: "C".into() }
    }
}

/// Predefined roles: OID, name.
const ROLES: [(Oid, &str); 12] = [
    (6171, "pg_database_owner"),
    (6181, "pg_read_all_data"),
    (6182, "pg_write_all_data"),
    (3373, "pg_monitor"),
    (3374, "pg_read_all_settings"),
    (3375, "pg_read_all_stats"),
    (3377, "pg_stat_scan_tables"),
    (4569, "pg_read_server_files"),
    (4570, "pg_write_server_files"),
    (4571, "pg_execute_server_program"),
    (4200, "pg_signal_backend"),
    (4544, "pg_checkpoint"),
];

/// Fills a new cluster: makes `template1`, then `template0` and `postgres` as copies of it.
///
/// # Errors
/// I/O; a bug.
pub fn bootstrap(ctx: &AccessCtx, options: &BootstrapOptions) -> Result<(), SqlError> {
    let proc = ctx.txns.enter(ProcId(0), Arc::new(CancelFlag::default()));
    let mut txn = ctx.txns.begin(&proc, TransactionOptions::default());
    for def in CATALOGS.iter().filter(|d| d.keep != Keep::Virtual) {
        let heap = heap_handle(def, TEMPLATE1);
        ctx.pool.create_fork(heap.file, Fork::Main)?;
        txn.drop_on_abort(heap.file);
        for index in def.indexes {
            let handle = index_handle(def, index.oid, TEMPLATE1);
            ctx.pool.create_fork(handle.file, Fork::Main)?;
            txn.drop_on_abort(handle.file);
            btree::create(ctx, &handle)?;
        }
    }
    let mut writer = CatalogWriter::new(ctx.clone(), TEMPLATE1, &mut txn);
    roles(&mut writer, options)?;
    tablespaces(&mut writer)?;
    databases(&mut writer, options)?;
    namespaces(&mut writer, &options.superuser)?;
    relations(&mut writer, &options.superuser)?;
    txn.commit(CommitLevel::Local)?.wait()?;

    for database in [TEMPLATE0, POSTGRES] {
        let mut txn = ctx.txns.begin(&proc, TransactionOptions::default());
        database::copy(ctx, &mut txn, TEMPLATE1, database)?;
        txn.commit(CommitLevel::Local)?.wait()?;
    }
    Ok(())
}

fn roles(writer: &mut CatalogWriter<'_>, options: &BootstrapOptions) -> Result<(), SqlError> {
    let mut list = Vec::new();
    let all = std::iter::once((BOOTSTRAP_ROLE, options.superuser.as_str())).chain(ROLES);
    for (oid, name) in all {
        let first = oid == BOOTSTRAP_ROLE;
        let mut row = blank(&pg_authid::DEF);
        row[pg_authid::oid] = Datum::Oid(oid);
        row[pg_authid::rolname] = Datum::text(name);
        for position in [
            pg_authid::rolsuper,
            pg_authid::rolcreaterole,
            pg_authid::rolcreatedb,
            pg_authid::rolcanlogin,
            pg_authid::rolreplication,
            pg_authid::rolbypassrls,
        ] {
            row[position] = Datum::Bool(first);
        }
        row[pg_authid::rolinherit] = Datum::Bool(true);
        row[pg_authid::rolconnlimit] = Datum::Int4(-1);
        if let (true, Some(password)) = (first, &options.password) {
            row[pg_authid::rolpassword] = Datum::text(password);
        }
        list.push(row);
    }
    writer.insert_all(&pg_authid::DEF, &list)?;
    // PostgreSQL: system_functions.sql grants the three reading roles to pg_monitor.
    let memberships = [3374, 3375, 3377].map(|role| {
        let mut row = blank(&pg_auth_members::DEF);
        row[pg_auth_members::roleid] = Datum::Oid(role);
        row[pg_auth_members::member] = Datum::Oid(3373);
        row[pg_auth_members::grantor] = Datum::Oid(BOOTSTRAP_ROLE);
        row[pg_auth_members::admin_option] = Datum::Bool(false);
        row
    });
    writer.insert_all(&pg_auth_members::DEF, &memberships)
}

fn tablespaces(writer: &mut CatalogWriter<'_>) -> Result<(), SqlError> {
    let list = [(DEFAULT_TABLESPACE, "pg_default"), (GLOBAL_TABLESPACE, "pg_global")].map(|(oid, name)| {
        let mut row = blank(&pg_tablespace::DEF);
        row[pg_tablespace::oid] = Datum::Oid(oid);
        row[pg_tablespace::spcname] = Datum::text(name);
        row[pg_tablespace::spcowner] = Datum::Oid(BOOTSTRAP_ROLE);
        row
    });
    writer.insert_all(&pg_tablespace::DEF, &list)
}

fn databases(writer: &mut CatalogWriter<'_>, options: &BootstrapOptions) -> Result<(), SqlError> {
    let list = [
        (TEMPLATE1, "template1", true, true, "default template for new databases"),
        (TEMPLATE0, "template0", true, false, "unmodifiable empty database"),
        (POSTGRES, "postgres", false, true, "default administrative connection database"),
    ];
    for (oid, name, template, connect, description) in list {
        let mut row = blank(&pg_database::DEF);
        row[pg_database::oid] = Datum::Oid(oid);
        row[pg_database::datname] = Datum::text(name);
        row[pg_database::datdba] = Datum::Oid(BOOTSTRAP_ROLE);
        row[pg_database::encoding] = Datum::Int4(options.encoding);
        row[pg_database::datlocprovider] = Datum::Char(b'c');
        row[pg_database::datistemplate] = Datum::Bool(template);
        row[pg_database::datallowconn] = Datum::Bool(connect);
        row[pg_database::datconnlimit] = Datum::Int4(-1);
        row[pg_database::datfrozenxid] = Datum::Oid(3);
        row[pg_database::datminmxid] = Datum::Oid(1);
        row[pg_database::dattablespace] = Datum::Oid(DEFAULT_TABLESPACE);
        row[pg_database::datcollate] = Datum::text(&options.collate);
        row[pg_database::datctype] = Datum::text(&options.ctype);
        if template {
            let owner = &options.superuser;
            row[pg_database::datacl] = acl(&[format!("=c/{owner}"), format!("{owner}=CTc/{owner}")]);
        }
        writer.insert(&pg_database::DEF, &row)?;
        let mut row = blank(&pg_shdescription::DEF);
        row[pg_shdescription::objoid] = Datum::Oid(oid);
        row[pg_shdescription::classoid] = Datum::Oid(pg_database::ID);
        row[pg_shdescription::description] = Datum::text(description);
        writer.insert(&pg_shdescription::DEF, &row)?;
    }
    Ok(())
}

/// An `aclitem[]`.
pub(crate) fn acl<S: AsRef<str>>(items: &[S]) -> Datum {
    Datum::array(ArrayValue::one_dim(oids::ACLITEM, items.iter().map(Datum::text).collect()))
}

fn namespaces(writer: &mut CatalogWriter<'_>, superuser: &str) -> Result<(), SqlError> {
    let public = ["pg_database_owner=UC/pg_database_owner".to_owned(), "=U/pg_database_owner".to_owned()];
    let system = [format!("{superuser}=UC/{superuser}"), format!("=U/{superuser}")];
    let list = [
        (PG_CATALOG_NAMESPACE, "pg_catalog", BOOTSTRAP_ROLE, Some(&system), "system catalog schema"),
        (PG_TOAST_NAMESPACE, "pg_toast", BOOTSTRAP_ROLE, None, "reserved schema for TOAST tables"),
        (PUBLIC_NAMESPACE, "public", 6171, Some(&public), "standard public schema"),
        (INFORMATION_SCHEMA_NAMESPACE, "information_schema", BOOTSTRAP_ROLE, Some(&system), ""),
    ];
    for (oid, name, owner, privileges, description) in list {
        let mut row = blank(&pg_namespace::DEF);
        row[pg_namespace::oid] = Datum::Oid(oid);
        row[pg_namespace::nspname] = Datum::text(name);
        row[pg_namespace::nspowner] = Datum::Oid(owner);
        if let Some(privileges) = privileges {
            row[pg_namespace::nspacl] = acl(privileges);
            writer.insert(&pg_init_privs::DEF, &initial_privileges(pg_namespace::ID, Datum::Oid(oid), acl(privileges)))?;
        }
        writer.insert(&pg_namespace::DEF, &row)?;
        if !description.is_empty() {
            let mut row = blank(&pg_description::DEF);
            row[pg_description::objoid] = Datum::Oid(oid);
            row[pg_description::classoid] = Datum::Oid(pg_namespace::ID);
            row[pg_description::objsubid] = Datum::Int4(0);
            row[pg_description::description] = Datum::text(description);
            writer.insert(&pg_description::DEF, &row)?;
        }
    }
    Ok(())
}

/// The catalogs' and system views' rows about themselves, for those who ask; our own lookups do not need them.
fn relations(writer: &mut CatalogWriter<'_>, superuser: &str) -> Result<(), SqlError> {
    let builtin = Builtin::new(TEMPLATE1, &Providers::new());
    let (mut classes, mut attributes, mut indexes) = (Vec::new(), Vec::new(), Vec::new());
    for def in CATALOGS {
        let Some(relation) = builtin.relation(def.oid) else { continue };
        let file = if def.keep == Keep::Virtual { 0 } else { def.oid };
        classes.push(class(relation, file, 2, superuser));
        attributes.extend(relation.columns.iter().map(|c| rows::attribute(relation.oid, c)));
        if def.keep != Keep::Virtual {
            for index in def.indexes {
                let Some(as_relation) = builtin.relation(index.oid) else { continue };
                classes.push(class(as_relation, index.oid, 403, superuser));
                attributes.extend(as_relation.columns.iter().map(|c| rows::attribute(index.oid, c)));
            }
        }
        indexes.extend(relation.indexes.iter().map(|index| rows::index(index)));
    }
    for view in views() {
        let Some(relation) = builtin.relation(view.oid) else { continue };
        classes.push(class(relation, 0, 0, superuser));
        attributes.extend(relation.columns.iter().map(|c| rows::attribute(relation.oid, c)));
    }
    let privileges: Vec<_> = classes
        .iter()
        .filter(|row| !row[pg_class::relacl].is_null())
        .map(|row| initial_privileges(pg_class::ID, row[pg_class::oid].clone(), row[pg_class::relacl].clone()))
        .collect();
    writer.insert_all(&pg_init_privs::DEF, &privileges)?;
    writer.insert_all(&pg_class::DEF, &classes)?;
    writer.insert_all(&pg_attribute::DEF, &attributes)?;
    writer.insert_all(&pg_index::DEF, &indexes)
}

/// What an object's privileges are from the start: dumps leave out what has not changed since.
fn initial_privileges(class: Oid, object: Datum, privileges: Datum) -> Vec<Datum> {
    let mut row = blank(&pg_init_privs::DEF);
    row[pg_init_privs::objoid] = object;
    row[pg_init_privs::classoid] = Datum::Oid(class);
    row[pg_init_privs::objsubid] = Datum::Int4(0);
    row[pg_init_privs::privtype] = Datum::Char(b'i');
    row[pg_init_privs::initprivs] = privileges;
    row
}

fn class(relation: &Relation, file: Oid, access_method: Oid, superuser: &str) -> Vec<Datum> {
    let mut row = ClassRow {
        frozen: Xid::FIRST_NORMAL,
        oid: relation.oid,
        name: &relation.name,
        namespace: relation.namespace,
        owner: BOOTSTRAP_ROLE,
        access_method,
        file,
        tablespace: if relation.shared { GLOBAL_TABLESPACE } else { 0 },
        kind: relation.kind,
        persistence: Persistence::Permanent,
        shared: relation.shared,
        columns: relation.columns.len(),
        checks: 0,
        has_index: !relation.indexes.is_empty(),
        has_rules: relation.kind == RelKind::View,
        options: &[],
    }
    .values();
    // PostgreSQL's initdb leaves the catalogs readable by all, except those with passwords.
    if relation.kind != RelKind::Index && !matches!(&*relation.name, "pg_authid" | "pg_shadow" | "pg_statistic" | "pg_user_mapping") {
        row[pg_class::relacl] = acl(&[format!("{superuser}=arwdDxt/{superuser}"), format!("=r/{superuser}")]);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{CreateOptions, Engine, EngineOptions, ShutdownMode};
    use crate::sql::catalog::load::{CatalogReader, by};
    use crate::sql::catalog::{Catalog, Viewer};
    use crate::sql::types::Datum;

    fn viewer(database: Oid) -> Viewer {
        Viewer {
            database,
            user: BOOTSTRAP_ROLE,
            user_name: "postgres".into(),
            search_path: "\"$user\", public".into(),
            temp_namespace: None,
        }
    }

    #[test]
    fn a_new_cluster_describes_itself_in_every_database() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::create(dir.path(), CreateOptions::default()).unwrap();
        bootstrap(engine.ctx(), &BootstrapOptions::default()).unwrap();
        engine.shutdown(ShutdownMode::Fast).unwrap();
        drop(engine);
        let engine = Engine::open(dir.path(), EngineOptions::default()).unwrap();
        let catalog = Catalog::new(engine.ctx().clone());
        let proc = engine.ctx().txns.enter(ProcId(1), Arc::new(CancelFlag::default()));
        for database in [TEMPLATE1, TEMPLATE0, POSTGRES] {
            let handle = catalog.handle_outside(viewer(database), &proc);
            assert_eq!(handle.find_database("postgres").unwrap().unwrap().oid, POSTGRES);
            assert!(handle.find_role("postgres").unwrap().unwrap().superuser);
            assert_eq!(handle.search_path(), [PG_CATALOG_NAMESPACE, PUBLIC_NAMESPACE]);
            assert_eq!(handle.find_relation(None, "pg_class").unwrap().unwrap().oid, pg_class::ID);
            assert!(handle.find_relation(None, "nothing").unwrap().is_none());
            let reader = handle.reader().unwrap();
            let row = reader.row(&pg_class::DEF, by::CLASS_NAME, &[Datum::text("pg_class"), Datum::Oid(11)]).unwrap();
            assert_eq!(row.unwrap().oid(pg_class::oid).unwrap(), pg_class::ID);
            let rows = reader.rows(&pg_attribute::DEF, by::ATTRIBUTE_NUM, &[Datum::Oid(pg_class::ID)]).unwrap();
            assert_eq!(rows.len(), pg_class::DEF.columns.len());
            assert_eq!(reader.rows(&pg_class::DEF, 0, &[]).unwrap().len(), {
                let indexes: usize = CATALOGS.iter().filter(|d| d.keep != Keep::Virtual).map(|d| d.indexes.len()).sum();
                CATALOGS.len() + indexes + views().len()
            });
        }
        engine.shutdown(ShutdownMode::Fast).unwrap();
    }
}
