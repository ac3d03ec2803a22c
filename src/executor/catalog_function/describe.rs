//! Comments, names, encodings and other small facts.

use crate::executor::SessionContext;
use crate::executor::ddl::drop;
use crate::sql::catalog::load::{CatalogReader, by};
use crate::sql::catalog::names::{quote_qualified, split_identifiers};
use crate::sql::catalog::relation::{GLOBAL_TABLESPACE, RelKind};
use crate::sql::catalog::rows::ObjectAddress;
use crate::sql::catalog::schema::{CATALOGS, pg_class, pg_depend, pg_description, pg_shdescription, pg_tablespace};
use crate::sql::functions::{CallTypes, ProcEntry};
use crate::sql::types::{Datum, Oid, format_type, registry::type_by_oid};
use crate::sqlstate::{SqlError, SqlState};

/// Encodings by their number. PostgreSQL: common/encnames.c.
const ENCODINGS: [&str; 42] = [
    "SQL_ASCII",
    "EUC_JP",
    "EUC_CN",
    "EUC_KR",
    "EUC_TW",
    "EUC_JIS_2004",
    "UTF8",
    "MULE_INTERNAL",
    "LATIN1",
    "LATIN2",
    "LATIN3",
    "LATIN4",
    "LATIN5",
    "LATIN6",
    "LATIN7",
    "LATIN8",
    "LATIN9",
    "LATIN10",
    "WIN1256",
    "WIN1258",
    "WIN866",
    "WIN874",
    "KOI8R",
    "WIN1251",
    "WIN1252",
    "ISO_8859_5",
    "ISO_8859_6",
    "ISO_8859_7",
    "ISO_8859_8",
    "WIN1250",
    "WIN1253",
    "WIN1254",
    "WIN1255",
    "WIN1257",
    "KOI8U",
    "SJIS",
    "BIG5",
    "GBK",
    "UHC",
    "GB18030",
    "JOHAB",
    "SHIFT_JIS_2004",
];

pub(super) fn call(
    ctx: &mut SessionContext,
    func: &'static ProcEntry,
    types: &CallTypes,
    args: &[Datum],
) -> Result<Option<Datum>, SqlError> {
    let some = |d: Datum| Ok(Some(d));
    // Functions whose bodies PostgreSQL wrote in SQL have their argument types for a source; their names tell them apart.
    match (func.name, args) {
        ("obj_description", [object]) => return some(comment(ctx, object.as_oid()?, None, 0)?),
        ("obj_description", [object, catalog]) => {
            return some(comment(ctx, object.as_oid()?, catalog_oid(catalog.as_str()?), 0)?);
        }
        ("col_description", [object, column]) => {
            return some(comment(ctx, object.as_oid()?, Some(pg_class::ID), column.as_i32()?)?);
        }
        ("shobj_description", [object, catalog]) => {
            let Some(class) = catalog_oid(catalog.as_str()?) else { return some(Datum::Null) };
            let key = [Datum::Oid(object.as_oid()?), Datum::Oid(class)];
            let row = ctx.catalog.reader()?.row(&pg_shdescription::DEF, by::SHDESCRIPTION, &key)?;
            return some(row.map_or(Datum::Null, |row| row.values[pg_shdescription::description].clone()));
        }
        _ => {}
    }
    match func.source {
        "pg_get_userbyid" => {
            let oid = args[0].as_oid()?;
            let name = ctx.catalog.role(oid)?.map_or_else(|| format!("unknown (OID={oid})"), |r| r.name.to_string());
            some(Datum::text(name))
        }
        "PG_encoding_to_char" => {
            let name = usize::try_from(args[0].as_i32()?).ok().and_then(|i| ENCODINGS.get(i)).copied().unwrap_or("");
            some(Datum::text(name))
        }
        "PG_char_to_encoding" => {
            let wanted = args[0].as_str()?.to_ascii_uppercase().replace(['-', '_'], "");
            let wanted = if wanted == "UNICODE" { "UTF8".to_owned() } else { wanted };
            let found = ENCODINGS.iter().position(|e| e.replace('_', "") == wanted);
            some(Datum::Int4(found.and_then(|i| i32::try_from(i).ok()).unwrap_or(-1)))
        }
        "pg_encoding_max_length_sql" => some(Datum::Int4(if args[0].as_i32()? == 6 { 4 } else { 1 })),
        "format_type" => {
            let typmod = args.get(1).and_then(|d| d.as_i32().ok());
            match args.first() {
                Some(Datum::Oid(oid)) if *oid != 0 => {
                    let name = match type_by_oid(*oid) {
                        Some(_) => format_type(*oid, typmod.unwrap_or(-1)),
                        None => "???".to_owned(),
                    };
                    some(Datum::text(name))
                }
                Some(Datum::Oid(_)) => some(Datum::text("-")),
                _ => some(Datum::Null),
            }
        }
        "pg_collation_for" => {
            let collation = type_by_oid(types.args.first().copied().unwrap_or(0)).map_or(0, |t| t.collation);
            some(if collation == 0 { Datum::Null } else { Datum::text("\"default\"") })
        }
        "pg_describe_object" => {
            let (class, object, sub) = (args[0].as_oid()?, args[1].as_oid()?, args[2].as_i32()?);
            if class == 0 && object == 0 {
                return some(Datum::Null);
            }
            some(Datum::text(drop::describe(ctx, ObjectAddress { class, object, sub })?))
        }
        "pg_tablespace_location" => {
            let oid = args[0].as_oid()?;
            let row = ctx.catalog.reader()?.row(&pg_tablespace::DEF, by::TABLESPACE_OID, &[Datum::Oid(oid)])?;
            match row {
                Some(_) => {
                    let link = format!("pg_tblspc/{oid}");
                    match std::fs::read_link(ctx.engine.data_dir().join(&link)) {
                        Ok(target) => some(Datum::text(target.display().to_string())),
                        // In place, or one of the two that are no links at all.
                        Err(_) if ctx.engine.data_dir().join(&link).is_dir() => some(Datum::text(link)),
                        Err(_) => some(Datum::text("")),
                    }
                }
                None if oid == 0 => some(Datum::text("")),
                None => Err(SqlError::new(SqlState::UNDEFINED_OBJECT, format!("tablespace with OID {oid} does not exist"))),
            }
        }
        "pg_get_serial_sequence" => serial_sequence(ctx, args[0].as_str()?, args[1].as_str()?).map(Some),
        "pg_relation_is_publishable" => {
            let relation = ctx.catalog.relation(args[0].as_oid()?)?;
            some(relation.map_or(Datum::Null, |r| Datum::Bool(r.kind == RelKind::Table && !r.is_system())))
        }
        "pg_relation_is_updatable" => {
            // Bits: 4 UPDATE, 8 INSERT, 16 DELETE.
            let relation = ctx.catalog.relation(args[0].as_oid()?)?;
            let all = relation.is_some_and(|r| r.kind == RelKind::Table);
            some(Datum::Int4(if all { (1 << 2) | (1 << 3) | (1 << 4) } else { 0 }))
        }
        "pg_column_is_updatable" => {
            let relation = ctx.catalog.relation(args[0].as_oid()?)?;
            some(Datum::Bool(relation.is_some_and(|r| r.kind == RelKind::Table) && args[1].as_i16()? > 0))
        }
        "pg_get_replica_identity_index" => {
            let relation = ctx.catalog.relation(args[0].as_oid()?)?;
            let index = relation.and_then(|r| r.primary_key().map(|i| i.oid));
            some(index.map_or(Datum::Null, Datum::Oid))
        }
        "row_security_active" | "row_security_active_name" => some(Datum::Bool(false)),
        "pg_trigger_depth" => some(Datum::Int4(ctx.routines.trigger_depth)),
        "pg_partition_root" => some(Datum::Null),
        "pg_collation_actual_version" | "pg_database_collation_actual_version" => some(Datum::Null),
        "pg_index_column_has_property" => index_column_property(ctx, args).map(Some),
        "pg_index_has_property" => some(match args[1].as_str()?.to_ascii_lowercase().as_str() {
            "clusterable" | "index_scan" | "bitmap_scan" | "backward_scan" => Datum::Bool(true),
            _ => Datum::Null,
        }),
        "pg_indexam_has_property" => {
            let btree = args[0].as_oid()? == 403;
            some(match args[1].as_str()?.to_ascii_lowercase().as_str() {
                "can_order" | "can_unique" | "can_multi_col" | "can_include" if btree => Datum::Bool(true),
                "can_exclude" => Datum::Bool(false),
                _ => Datum::Null,
            })
        }
        "pg_stat_have_stats" => some(Datum::Bool(false)),
        "current_query" => some(Datum::Null),
        "pg_column_compression" => some(Datum::Null),
        "pg_char_is_ascii" => some(Datum::Null),
        _ => Ok(None),
    }
}

/// OID of a catalog by name.
fn catalog_oid(name: &str) -> Option<Oid> {
    CATALOGS.iter().find(|d| d.name == name).map(|d| d.oid)
}

fn comment(ctx: &mut SessionContext, object: Oid, class: Option<Oid>, sub: i32) -> Result<Datum, SqlError> {
    let mut key = vec![Datum::Oid(object)];
    if let Some(class) = class {
        key.extend([Datum::Oid(class), Datum::Int4(sub)]);
    }
    let rows = ctx.catalog.reader()?.rows(&pg_description::DEF, by::DESCRIPTION, &key)?;
    let row = rows.iter().find(|row| row.int4(pg_description::objsubid).is_ok_and(|n| n == sub));
    Ok(row.map_or(Datum::Null, |row| row.values[pg_description::description].clone()))
}

fn serial_sequence(ctx: &mut SessionContext, table: &str, column: &str) -> Result<Datum, SqlError> {
    let parts = split_identifiers(table, '.').unwrap_or_default();
    let (schema, name) = match parts.as_slice() {
        [name] => (None, name.as_str()),
        [schema, name] => (Some(schema.as_str()), name.as_str()),
        _ => return Err(SqlError::new(SqlState::INVALID_NAME, "invalid name syntax")),
    };
    let relation = ctx.catalog.open_relation(schema, name)?;
    let attnum = relation.column(column).map(|c| c.attnum).ok_or_else(|| {
        let message = format!("column \"{column}\" of relation \"{}\" does not exist", relation.name);
        SqlError::new(SqlState::UNDEFINED_COLUMN, message)
    })?;
    let key = [Datum::Oid(pg_class::ID), Datum::Oid(relation.oid), Datum::Int4(i32::from(attnum))];
    for row in ctx.catalog.reader()?.rows(&pg_depend::DEF, by::DEPEND_REFERENCED, &key)? {
        if row.oid(pg_depend::classid)? != pg_class::ID || !matches!(row.char(pg_depend::deptype)?, b'a' | b'i') {
            continue;
        }
        let found = ctx.catalog.relation(row.oid(pg_depend::objid)?)?;
        if let Some(found) = found.filter(|r| r.kind == RelKind::Sequence) {
            return Ok(Datum::text(quote_qualified(Some(&found.namespace_name), &found.name)));
        }
    }
    Ok(Datum::Null)
}

fn index_column_property(ctx: &mut SessionContext, args: &[Datum]) -> Result<Datum, SqlError> {
    let (oid, number) = (args[0].as_oid()?, args[1].as_i32()?);
    let Some((_, index)) = ctx.catalog.index(oid)? else { return Ok(Datum::Null) };
    let Some(column) = usize::try_from(number - 1).ok().and_then(|i| index.columns.get(i)) else { return Ok(Datum::Null) };
    let key = usize::try_from(number).is_ok_and(|n| n <= index.n_key);
    let answer = match args[2].as_str()?.to_ascii_lowercase().as_str() {
        "asc" => !column.desc,
        "desc" => column.desc,
        "nulls_first" => column.nulls_first,
        "nulls_last" => !column.nulls_first,
        "orderable" | "search_array" | "search_nulls" => key,
        "returnable" => key,
        "distance_orderable" => false,
        _ => return Ok(Datum::Null),
    };
    Ok(if key { Datum::Bool(answer) } else { Datum::Null })
}

/// True for the tablespace of shared catalogs.
pub(super) fn is_global(tablespace: Oid) -> bool {
    tablespace == GLOBAL_TABLESPACE
}
