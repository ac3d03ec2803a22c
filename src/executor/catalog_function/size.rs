//! Sizes and places of files.

use afterimage_wal::{Fork, Oid, RelId};

use super::describe::is_global;
use crate::executor::SessionContext;
use crate::sql::catalog::load::{CatalogReader, by, file_of};
use crate::sql::catalog::relation::{DEFAULT_TABLESPACE, RelKind, Relation};
use crate::sql::catalog::schema::{CATALOGS, Keep, pg_class};
use crate::sql::functions::{CallTypes, ProcEntry};
use crate::sql::types::Datum;
use crate::sqlstate::{SqlError, SqlState};

const FORKS: [Fork; 4] = [Fork::Main, Fork::Fsm, Fork::Vm, Fork::Init];

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
pub(super) fn call(
    ctx: &mut SessionContext,
    func: &'static ProcEntry,
    _types: &CallTypes,
    args: &[Datum],
) -> Result<Option<Datum>, SqlError> {
    let bytes = |n: Option<u64>| match n {
        Some(n) => Ok(Some(Datum::Int8(i64::try_from(n).unwrap_or(i64::MAX)))),
        None => Ok(Some(Datum::Null)),
    };
    match (func.name, args) {
        ("pg_relation_size", [relation]) => bytes(fork_size(ctx, relation.as_oid()?, Fork::Main)?),
        ("pg_relation_size", [relation, fork]) => {
            let fork = match fork.as_str()? {
                "main" => Fork::Main,
                "fsm" => Fork::Fsm,
                "vm" => Fork::Vm,
                "init" => Fork::Init,
                _ => {
                    return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "invalid fork name")
                        .hint("Valid fork names are \"main\", \"fsm\", \"vm\", and \"init\"."));
                }
            };
            bytes(fork_size(ctx, relation.as_oid()?, fork)?)
        }
        ("pg_table_size", [relation]) => bytes(table_size(ctx, relation.as_oid()?)?),
        ("pg_indexes_size", [relation]) => bytes(indexes_size(ctx, relation.as_oid()?)?),
        ("pg_total_relation_size", [relation]) => {
            let oid = relation.as_oid()?;
            let (table, indexes) = (table_size(ctx, oid)?, indexes_size(ctx, oid)?);
            bytes(table.map(|t| t + indexes.unwrap_or(0)))
        }
        ("pg_database_size", [Datum::Oid(oid)]) => bytes(database_size(ctx, *oid)?),
        ("pg_database_size", [name]) => {
            let name = name.as_str()?;
            let found = ctx
                .catalog
                .find_database(name)?
                .ok_or_else(|| SqlError::new(SqlState::INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist")))?;
            bytes(database_size(ctx, found.oid)?)
        }
        ("pg_tablespace_size", [tablespace]) => {
            let global = match tablespace {
                Datum::Oid(oid) => is_global(*oid),
                other => other.as_str()? == "pg_global",
            };
            let dir = ctx.engine.data_dir().join(if global { "global" } else { "base" });
            bytes(Some(directory_bytes(&dir)?))
        }
        ("pg_relation_filenode", [relation]) => {
            let file = file_of_relation(ctx, relation.as_oid()?)?;
            Ok(Some(file.map_or(Datum::Null, |f| Datum::Oid(f.rel))))
        }
        ("pg_relation_filepath", [relation]) => {
            let file = file_of_relation(ctx, relation.as_oid()?)?;
            let path = file.map(|f| ctx.engine.files().relative_path(f, Fork::Main, 0));
            Ok(Some(path.map_or(Datum::Null, Datum::text)))
        }
        ("pg_filenode_relation", [tablespace, node]) => {
            let (tablespace, node) = (tablespace.as_oid()?, node.as_oid()?);
            filenode_relation(ctx, tablespace, node).map(Some)
        }
        ("pg_column_size", [value]) => {
            let mut out = Vec::new();
            let desc = crate::sql::types::TupleDesc::new(vec![crate::sql::types::ColDesc::new(
                "",
                _types.args.first().copied().unwrap_or(25),
                -1,
            )]);
            crate::sql::types::row::encode_as(&desc, std::slice::from_ref(value), false, &mut out)?;
            // The row header is not part of the value.
            Ok(Some(Datum::Int4(i32::try_from(out.len().saturating_sub(4)).unwrap_or(i32::MAX))))
        }
        // What is not as it lies in a table is not compressed.
        ("pg_column_compression", [_]) => Ok(Some(Datum::Null)),
        _ => Ok(None),
    }
}

fn relation(ctx: &SessionContext, oid: Oid) -> Result<Option<std::sync::Arc<Relation>>, SqlError> {
    ctx.catalog.relation(oid)
}

fn file_of_relation(ctx: &SessionContext, oid: Oid) -> Result<Option<RelId>, SqlError> {
    if let Some(file) = relation(ctx, oid)?.and_then(|r| r.file()) {
        return Ok(Some(file));
    }
    // Catalogs whose contents are built in have a file for what is not.
    let beside = CATALOGS.iter().any(|def| def.oid == oid && def.keep == Keep::Mixed);
    Ok(beside.then_some(RelId { spc: DEFAULT_TABLESPACE, db: ctx.database, rel: oid }))
}

fn fork_bytes(ctx: &SessionContext, file: RelId, fork: Fork) -> Result<u64, SqlError> {
    // Of the files there are: sizes are asked for where something is missing, too.
    Ok(ctx.engine.files().fork_bytes(file, fork)?)
}

fn fork_size(ctx: &SessionContext, oid: Oid, fork: Fork) -> Result<Option<u64>, SqlError> {
    let Some(relation) = relation(ctx, oid)? else { return Ok(None) };
    relation.file().map_or(Ok(Some(0)), |file| fork_bytes(ctx, file, fork).map(Some))
}

fn all_forks(ctx: &SessionContext, file: RelId) -> Result<u64, SqlError> {
    FORKS.iter().try_fold(0, |sum, &fork| Ok(sum + fork_bytes(ctx, file, fork)?))
}

fn table_size(ctx: &SessionContext, oid: Oid) -> Result<Option<u64>, SqlError> {
    let Some(relation) = relation(ctx, oid)? else { return Ok(None) };
    let own = relation.file().map_or(Ok(0), |file| all_forks(ctx, file))?;
    let toast = relation.toast.map_or(Ok(0), |t| Ok::<u64, SqlError>(all_forks(ctx, t.table.file)? + all_forks(ctx, t.index.file)?))?;
    Ok(Some(own + toast))
}

fn indexes_size(ctx: &SessionContext, oid: Oid) -> Result<Option<u64>, SqlError> {
    let Some(relation) = relation(ctx, oid)? else { return Ok(None) };
    relation.indexes.iter().try_fold(0, |sum, index| Ok(sum + all_forks(ctx, index.file)?)).map(Some)
}

fn database_size(ctx: &SessionContext, oid: Oid) -> Result<Option<u64>, SqlError> {
    if ctx.catalog.database_by_oid(oid)?.is_none() {
        return Ok(None);
    }
    let may = crate::sql::catalog::privilege::CONNECT;
    if !crate::sql::catalog::privilege::on_database(&ctx.catalog, ctx.user, oid, may)? {
        let name = ctx.catalog.database_by_oid(oid)?.map(|d| d.name.to_string()).unwrap_or_default();
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied for database {name}")));
    }
    directory_bytes(&ctx.engine.data_dir().join("base").join(oid.to_string())).map(Some)
}

fn directory_bytes(dir: &std::path::Path) -> Result<u64, SqlError> {
    let failed = |e: std::io::Error| SqlError::new(SqlState::IO_ERROR, format!("could not read directory \"{}\": {e}", dir.display()));
    let mut total = 0;
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(failed(e)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        match entry.metadata() {
            Ok(found) if found.is_dir() => total += directory_bytes(&entry.path())?,
            Ok(found) => total += found.len(),
            // Dropped meanwhile.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(total)
}

fn filenode_relation(ctx: &SessionContext, tablespace: Oid, node: Oid) -> Result<Datum, SqlError> {
    if let Some(def) = CATALOGS.iter().find(|d| d.oid == node && (d.keep == Keep::Shared) == is_global(tablespace)) {
        return Ok(Datum::Oid(def.oid));
    }
    let stored = if tablespace == DEFAULT_TABLESPACE { 0 } else { tablespace };
    for row in ctx.catalog.reader()?.rows(&pg_class::DEF, by::CLASS_TABLESPACE_FILE, &[Datum::Oid(stored), Datum::Oid(node)])? {
        if file_of(&row, ctx.database)?.rel == node && row.char(pg_class::relkind)? != RelKind::View.letter() {
            return Ok(Datum::Oid(row.oid(pg_class::oid)?));
        }
    }
    Ok(Datum::Null)
}
