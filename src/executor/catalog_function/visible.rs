//! Whether an object is found by its name alone: `pg_table_is_visible` and its kin.

use crate::executor::SessionContext;
use crate::sql::catalog::compiled::collation_name;
use crate::sql::functions::registry::{all_opclasses, all_opfamilies, oper_by_oid, proc_by_oid};
use crate::sql::functions::{CallTypes, ProcEntry};
use crate::sql::types::registry::type_by_oid;
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::SqlError;

pub(super) fn call(
    ctx: &mut SessionContext,
    func: &'static ProcEntry,
    _types: &CallTypes,
    args: &[Datum],
) -> Result<Option<Datum>, SqlError> {
    // Built-in objects live in pg_catalog, which is always searched. An OID of nothing gives NULL.
    let known = |found: bool| Ok(Some(if found { Datum::Bool(true) } else { Datum::Null }));
    let oid = || -> Result<Oid, SqlError> { args[0].as_oid() };
    match func.source {
        "pg_table_is_visible" => match ctx.catalog.relation(oid()?)? {
            Some(relation) => Ok(Some(Datum::Bool(ctx.catalog.is_visible(&relation)?))),
            None => Ok(Some(Datum::Null)),
        },
        "pg_type_is_visible" => match (type_by_oid(oid()?), ctx.catalog.relation(oid()?)?) {
            (None, Some(relation)) if relation.row_type != 0 => Ok(Some(Datum::Bool(ctx.catalog.is_visible(&relation)?))),
            (found, _) => known(found.is_some()),
        },
        "pg_function_is_visible" => {
            let oid = oid()?;
            match (proc_by_oid(oid), ctx.catalog.function(oid)?) {
                (Some(_), _) => known(true),
                (None, Some(f)) => {
                    let first = ctx.catalog.functions(None, f.entry.name)?.into_iter().find(|o| o.args == f.entry.args);
                    Ok(Some(Datum::Bool(first.is_some_and(|o| o.oid == oid))))
                }
                (None, None) => known(false),
            }
        }
        "pg_operator_is_visible" => known(oper_by_oid(oid()?).is_some()),
        "pg_opclass_is_visible" => {
            let oid = oid()?;
            known(all_opclasses().iter().any(|o| o.oid == oid))
        }
        "pg_opfamily_is_visible" => {
            let oid = oid()?;
            known(all_opfamilies().iter().any(|o| o.oid == oid))
        }
        "pg_collation_is_visible" => known(collation_name(oid()?).is_some()),
        "pg_conversion_is_visible"
        | "pg_statistics_obj_is_visible"
        | "pg_ts_parser_is_visible"
        | "pg_ts_dict_is_visible"
        | "pg_ts_config_is_visible"
        | "pg_ts_template_is_visible" => known(false),
        "pg_my_temp_schema" => Ok(Some(Datum::Oid(ctx.catalog.viewer().temp_namespace.unwrap_or(0)))),
        "pg_is_other_temp_schema" => {
            let oid = oid()?;
            let temporary = ctx.catalog.namespace_name(oid)?.is_some_and(|n| n.starts_with("pg_temp_"));
            Ok(Some(Datum::Bool(temporary && ctx.catalog.viewer().temp_namespace != Some(oid))))
        }
        _ => Ok(None),
    }
}
