//! The view `pg_stats`: what ANALYZE found, for people.

use super::compiled::Emit;
use super::load::{CatalogReader, CatalogRow, STATISTIC_KIND_CORRELATION, STATISTIC_KIND_HISTOGRAM, STATISTIC_KIND_MCV};
use super::privilege;
use super::schema::pg_statistic;
use super::virtual_table::VirtualCx;
use crate::sql::types::Datum;
use crate::sqlstate::SqlError;

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
pub(super) fn stats(cx: &mut VirtualCx<'_>, emit: Emit<'_>) -> Result<(), SqlError> {
    for row in cx.catalog.reader()?.rows(&pg_statistic::DEF, 0, &[])? {
        let Some(relation) = cx.catalog.relation(row.oid(pg_statistic::starelid)?)? else { continue };
        let Some(column) = relation.attribute(row.int2(pg_statistic::staattnum)?) else { continue };
        if column.dropped || !privilege::on_relation(cx.catalog, cx.catalog.user(), &relation, privilege::SELECT)? {
            continue;
        }
        let values = |kind: i16| slot(&row, kind).map_or(Datum::Null, |s| row.values[pg_statistic::stavalues1 + s].clone());
        let numbers = |kind: i16| slot(&row, kind).map_or(Datum::Null, |s| row.values[pg_statistic::stanumbers1 + s].clone());
        let correlation = match numbers(STATISTIC_KIND_CORRELATION) {
            Datum::Array(list) => list.values.first().cloned().unwrap_or_default(),
            _ => Datum::Null,
        };
        emit(&[
            Datum::text(&*relation.namespace_name),
            Datum::text(&*relation.name),
            Datum::text(&*column.name),
            row.values[pg_statistic::stainherit].clone(),
            row.values[pg_statistic::stanullfrac].clone(),
            row.values[pg_statistic::stawidth].clone(),
            row.values[pg_statistic::stadistinct].clone(),
            values(STATISTIC_KIND_MCV),
            numbers(STATISTIC_KIND_MCV),
            values(STATISTIC_KIND_HISTOGRAM),
            correlation,
            Datum::Null,
            Datum::Null,
            Datum::Null,
        ])?;
    }
    Ok(())
}

/// The slot that holds statistics of this kind.
fn slot(row: &CatalogRow, kind: i16) -> Option<usize> {
    (0..5).find(|s| row.int2(pg_statistic::stakind1 + s).is_ok_and(|k| k == kind))
}
