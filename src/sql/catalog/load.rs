//! Catalog rows to descriptors.

use std::sync::Arc;

use afterimage_wal::{Oid, RelId, Xid};

use super::relation::{
    CheckConstraint, Column, ColumnStats, Constraint, ConstraintKind, DEFAULT_TABLESPACE, FkAction, FkMatch, ForeignKey, Identity, Index,
    IndexColumn, Persistence, RelKind, Relation, SequenceDef, Source, Trigger,
};
use super::schema::{
    CatalogDef, pg_attrdef, pg_attribute, pg_class, pg_constraint, pg_depend, pg_index, pg_namespace, pg_rewrite, pg_sequence,
    pg_statistic, pg_trigger,
};
use crate::access::{RelHandle, Tid};
use crate::sql::types::{ColDesc, Datum, IoSettings, Pointer, Repr, ToastTable, TupleDesc, text_in};
use crate::sqlstate::{SqlError, SqlState};

/// Separates the expressions of one index in `pg_index.indexprs`.
pub const EXPRESSION_SEPARATOR: char = '\u{1f}';

/// One row of a catalog.
#[derive(Clone, Debug)]
pub struct CatalogRow {
    /// Where it lies.
    pub tid: Tid,
    /// Its values, by position.
    pub values: Vec<Datum>,
    /// Where those of them are that lie out of line.
    pub large: Vec<Pointer>,
}

impl CatalogRow {
    /// An `oid` or `regproc` column.
    ///
    /// # Errors
    /// XX001: the value is not of that type; likewise below.
    pub fn oid(&self, position: usize) -> Result<Oid, SqlError> {
        self.values.get(position).ok_or_else(short)?.as_oid()
    }

    /// A `bool` column.
    ///
    /// # Errors
    /// XX001.
    pub fn bool(&self, position: usize) -> Result<bool, SqlError> {
        self.values.get(position).ok_or_else(short)?.as_bool()
    }

    /// An `int2` column.
    ///
    /// # Errors
    /// XX001.
    pub fn int2(&self, position: usize) -> Result<i16, SqlError> {
        self.values.get(position).ok_or_else(short)?.as_i16()
    }

    /// An `int4` column.
    ///
    /// # Errors
    /// XX001.
    pub fn int4(&self, position: usize) -> Result<i32, SqlError> {
        self.values.get(position).ok_or_else(short)?.as_i32()
    }

    /// An `int8` column.
    ///
    /// # Errors
    /// XX001.
    pub fn int8(&self, position: usize) -> Result<i64, SqlError> {
        self.values.get(position).ok_or_else(short)?.as_i64()
    }

    /// A `float4` column.
    ///
    /// # Errors
    /// XX001.
    pub fn float4(&self, position: usize) -> Result<f32, SqlError> {
        self.values.get(position).ok_or_else(short)?.as_f32()
    }

    /// A `"char"` column.
    ///
    /// # Errors
    /// XX001.
    pub fn char(&self, position: usize) -> Result<u8, SqlError> {
        self.values.get(position).ok_or_else(short)?.as_char()
    }

    /// A `name` or `text` column.
    ///
    /// # Errors
    /// XX001.
    pub fn str(&self, position: usize) -> Result<&str, SqlError> {
        self.values.get(position).ok_or_else(short)?.as_str()
    }

    /// A `name` or `text` column that may be NULL.
    ///
    /// # Errors
    /// XX001.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
    pub fn opt_str(&self, position: usize) -> Result<Option<Arc<str>>, SqlError> {
        match self.values.get(position).ok_or_else(short)? {
            Datum::Null => Ok(None),
            other => Ok(Some(Arc::from(other.as_str()?))),
        }
    }

    /// Elements of an array column; none for NULL.
    ///
    /// # Errors
    /// XX001.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
    pub fn list(&self, position: usize) -> Result<&[Datum], SqlError> {
        match self.values.get(position).ok_or_else(short)? {
            Datum::Null => Ok(&[]),
            other => Ok(&other.as_array()?.values),
        }
    }

    /// An `int2[]` or `int2vector` column.
    ///
    /// # Errors
    /// XX001.
    pub fn int2s(&self, position: usize) -> Result<Vec<i16>, SqlError> {
        self.list(position)?.iter().map(Datum::as_i16).collect()
    }

    /// An `oid[]` or `oidvector` column.
    ///
    /// # Errors
    /// XX001.
    pub fn oids(&self, position: usize) -> Result<Vec<Oid>, SqlError> {
        self.list(position)?.iter().map(Datum::as_oid).collect()
    }

    /// A `text[]` column (or another whose values are strings).
    ///
    /// # Errors
    /// XX001.
    pub fn strs(&self, position: usize) -> Result<Vec<Arc<str>>, SqlError> {
        self.list(position)?.iter().map(|d| Ok(Arc::from(d.as_str()?))).collect()
    }
}

fn short() -> SqlError {
    SqlError::new(SqlState::DATA_CORRUPTED, "catalog row has too few columns")
}

/// Reads rows of the catalogs that are stored.
pub trait CatalogReader {
    /// Rows whose first `key.len()` columns of the index `index` equal `key`; index 0: all rows.
    ///
    /// # Errors
    /// Reading failed.
    fn rows(&self, def: &'static CatalogDef, index: Oid, key: &[Datum]) -> Result<Vec<CatalogRow>, SqlError>;

    /// The first of [`Self::rows`].
    ///
    /// # Errors
    /// Reading failed.
    fn row(&self, def: &'static CatalogDef, index: Oid, key: &[Datum]) -> Result<Option<CatalogRow>, SqlError> {
        Ok(self.rows(def, index, key)?.into_iter().next())
    }

    /// Who made a row, unless that is so long ago that every snapshot sees it.
    ///
    /// # Errors
    /// Reading failed.
    fn maker(&self, def: &'static CatalogDef, row: &CatalogRow) -> Result<Option<Xid>, SqlError>;
}

/// Indexes of catalogs that lookups use.
pub mod by {
    use afterimage_wal::Oid;

    /// afterimage_function_acl (funcoid).
    pub const FUNCTION_ACL: Oid = 9101;
    /// afterimage_large_value (chunk_id, chunk_seq).
    pub const LARGE_VALUE: Oid = 9109;
    /// pg_class (oid).
    pub const CLASS_OID: Oid = 2662;
    /// pg_class (relname, relnamespace).
    pub const CLASS_NAME: Oid = 2663;
    /// pg_class (reltablespace, relfilenode).
    pub const CLASS_TABLESPACE_FILE: Oid = 3455;
    /// pg_attribute (attrelid, attname).
    pub const ATTRIBUTE_NAME: Oid = 2658;
    /// pg_attribute (attrelid, attnum).
    pub const ATTRIBUTE_NUM: Oid = 2659;
    /// pg_namespace (nspname).
    pub const NAMESPACE_NAME: Oid = 2684;
    /// `pg_proc (proname, proargtypes, pronamespace)`.
    pub const PROC_NAME: Oid = 2691;
    /// `pg_proc (oid)`.
    pub const PROC_OID: Oid = 2690;
    /// pg_namespace (oid).
    pub const NAMESPACE_OID: Oid = 2685;
    /// pg_index (indrelid).
    pub const INDEX_TABLE: Oid = 2678;
    /// pg_index (indexrelid).
    pub const INDEX_OID: Oid = 2679;
    /// pg_constraint (conrelid, contypid, conname).
    pub const CONSTRAINT_TABLE: Oid = 2665;
    /// pg_constraint (oid).
    pub const CONSTRAINT_OID: Oid = 2667;
    /// `pg_constraint (conname, connamespace)`.
    pub const CONSTRAINT_NAME: Oid = 2664;
    /// pg_attrdef (adrelid, adnum).
    pub const ATTRDEF_COLUMN: Oid = 2656;
    /// pg_attrdef (oid).
    pub const ATTRDEF_OID: Oid = 2657;
    /// pg_sequence (seqrelid).
    pub const SEQUENCE: Oid = 5002;
    /// pg_rewrite (ev_class, rulename).
    pub const REWRITE_TABLE: Oid = 2693;
    /// pg_trigger (tgrelid, tgname).
    pub const TRIGGER_TABLE: Oid = 2701;
    /// pg_trigger (oid).
    pub const TRIGGER_OID: Oid = 2702;
    /// pg_rewrite (oid).
    pub const REWRITE_OID: Oid = 2692;
    /// pg_depend (refclassid, refobjid, refobjsubid).
    pub const DEPEND_REFERENCED: Oid = 2674;
    /// pg_depend (classid, objid, objsubid).
    pub const DEPEND_DEPENDER: Oid = 2673;
    /// pg_shdepend (refclassid, refobjid).
    pub const SHDEPEND_REFERENCED: Oid = 1233;
    /// pg_shdepend (dbid, classid, objid, objsubid).
    pub const SHDEPEND_DEPENDER: Oid = 1232;
    /// pg_statistic (starelid, staattnum, stainherit).
    pub const STATISTIC: Oid = 2696;
    /// pg_authid (rolname).
    pub const AUTHID_NAME: Oid = 2676;
    /// pg_authid (oid).
    pub const AUTHID_OID: Oid = 2677;
    /// pg_auth_members (roleid, member).
    pub const MEMBERS_ROLE: Oid = 2694;
    /// pg_auth_members (member, roleid).
    pub const MEMBERS_MEMBER: Oid = 2695;
    /// pg_database (datname).
    pub const DATABASE_NAME: Oid = 2671;
    /// pg_database (oid).
    pub const DATABASE_OID: Oid = 2672;
    /// pg_description (objoid, classoid, objsubid).
    pub const DESCRIPTION: Oid = 2675;
    /// pg_shdescription (objoid, classoid).
    pub const SHDESCRIPTION: Oid = 2397;
    /// pg_db_role_setting (setdatabase, setrole).
    pub const DB_ROLE_SETTING: Oid = 2965;
    /// pg_inherits (inhparent).
    pub const INHERITS_PARENT: Oid = 2187;
    /// pg_tablespace (oid).
    pub const TABLESPACE_OID: Oid = 2697;
    /// pg_tablespace (spcname).
    pub const TABLESPACE_NAME: Oid = 2698;
}

/// Builds the descriptor of the relation with this OID; `None` if there is no such row.
pub(super) fn relation(reader: &dyn CatalogReader, database: Oid, oid: Oid) -> Result<Option<Relation>, SqlError> {
    let Some(class) = reader.row(&pg_class::DEF, by::CLASS_OID, &[Datum::Oid(oid)])? else { return Ok(None) };
    let kind = RelKind::from_letter(class.char(pg_class::relkind)?)
        .ok_or_else(|| SqlError::new(SqlState::DATA_CORRUPTED, format!("pg_class row of {oid} has an unknown relkind")))?;
    let namespace = class.oid(pg_class::relnamespace)?;
    let namespace_name = reader
        .row(&pg_namespace::DEF, by::NAMESPACE_OID, &[Datum::Oid(namespace)])?
        .map_or_else(|| Ok(Arc::from("")), |row| row.str(pg_namespace::nspname).map(Arc::from))?;
    let columns = columns(reader, oid)?;
    let file = file_of(&class, database)?;
    let persistence = match class.char(pg_class::relpersistence)? {
        b'u' => Persistence::Unlogged,
        b't' => Persistence::Temporary,
        _ => Persistence::Permanent,
    };
    let toast = toast_table(reader, database, class.oid(pg_class::reltoastrelid)?, persistence)?;
    let desc = Arc::new(TupleDesc { packed: true, toast, ..tuple_desc(&columns)? });
    let source = match kind {
        RelKind::Table | RelKind::Index | RelKind::Sequence | RelKind::MatView | RelKind::Toast => Source::File(file),
        RelKind::View => Source::View(view_text(reader, oid)?),
        RelKind::Composite | RelKind::Foreign | RelKind::Partitioned | RelKind::PartitionedIndex => Source::None,
    };
    let has_indexes = matches!(kind, RelKind::Table | RelKind::MatView | RelKind::Toast | RelKind::Partitioned);
    let indexes = if has_indexes { indexes(reader, database, oid)? } else { Vec::new() };
    let (mut constraints, checks) = if has_indexes { constraints(reader, oid)? } else { (Vec::new(), Vec::new()) };
    constraints.sort_by(|a, b| a.name.cmp(&b.name));
    let mut indexes: Vec<Arc<Index>> = indexes
        .into_iter()
        .map(|mut index| {
            index.constraint =
                constraints.iter().find(|c| c.index == index.oid && !matches!(c.kind, ConstraintKind::Foreign(_))).map_or(0, |c| c.oid);
            Arc::new(index)
        })
        .collect();
    indexes.sort_by_key(|i| i.oid);
    Ok(Some(Relation {
        oid,
        name: Arc::from(class.str(pg_class::relname)?),
        namespace,
        namespace_name,
        owner: class.oid(pg_class::relowner)?,
        kind,
        persistence,
        toast,
        shared: class.bool(pg_class::relisshared)?,
        source,
        indexes,
        checks,
        referenced_by: if has_indexes { referenced_by(reader, oid)? } else { Vec::new() },
        triggers: if class.bool(pg_class::relhastriggers)? { triggers(reader, oid)? } else { Vec::new() },
        constraints,
        sequence: if kind == RelKind::Sequence { sequence(reader, oid)? } else { None },
        rel_pages: u32::try_from(class.int4(pg_class::relpages)?).unwrap_or(0),
        rel_tuples: class.float4(pg_class::reltuples)?,
        rel_all_visible: u32::try_from(class.int4(pg_class::relallvisible)?).unwrap_or(0),
        acl: acl(&class, pg_class::relacl)?,
        options: class.strs(pg_class::reloptions)?,
        // Tables made before there were row types have one too.
        row_type: super::relation::row_type_of(oid, kind),
        stats: if has_indexes { stats(reader, oid, columns.len())? } else { Vec::new() },
        desc,
        columns,
    }))
}

/// The items of an ACL column, `None` for NULL.
pub(crate) fn acl(row: &CatalogRow, position: usize) -> Result<Option<Vec<Arc<str>>>, SqlError> {
    match row.values.get(position) {
        None | Some(Datum::Null) => Ok(None),
        Some(_) => row.strs(position).map(Some),
    }
}

/// The file a `pg_class` row names.
///
/// # Errors
/// XX001.
pub fn file_of(class: &CatalogRow, database: Oid) -> Result<RelId, SqlError> {
    let tablespace = class.oid(pg_class::reltablespace)?;
    let spc = if tablespace == 0 { DEFAULT_TABLESPACE } else { tablespace };
    let db = if class.bool(pg_class::relisshared)? { 0 } else { database };
    Ok(RelId { spc, db, rel: class.oid(pg_class::relfilenode)? })
}

fn columns(reader: &dyn CatalogReader, relation: Oid) -> Result<Vec<Column>, SqlError> {
    let mut rows = reader.rows(&pg_attribute::DEF, by::ATTRIBUTE_NUM, &[Datum::Oid(relation)])?;
    rows.retain(|row| row.int2(pg_attribute::attnum).is_ok_and(|n| n > 0));
    rows.sort_by_key(|row| row.int2(pg_attribute::attnum).unwrap_or(0));
    let defaults = if rows.iter().any(|row| row.bool(pg_attribute::atthasdef).unwrap_or(false)) {
        reader.rows(&pg_attrdef::DEF, by::ATTRDEF_COLUMN, &[Datum::Oid(relation)])?
    } else {
        Vec::new()
    };
    let mut columns = Vec::with_capacity(rows.len());
    for (row, expected) in rows.iter().zip(1_i16..) {
        let attnum = row.int2(pg_attribute::attnum)?;
        if attnum != expected {
            return Err(SqlError::new(SqlState::DATA_CORRUPTED, format!("pg_attribute lacks attribute {expected} of relation {relation}")));
        }
        let default = defaults.iter().find(|d| d.int2(pg_attrdef::adnum).is_ok_and(|n| n == attnum));
        let missing = match row.bool(pg_attribute::atthasmissing)? {
            true => row.list(pg_attribute::attmissingval)?.first().map(|d| d.as_str().map(Arc::from)).transpose()?,
            false => None,
        };
        let identity = match row.char(pg_attribute::attidentity)? {
            b'a' => Some(Identity::Always),
            b'd' => Some(Identity::ByDefault),
            _ => None,
        };
        let default = match (identity, default) {
            (Some(_), _) => identity_default(reader, relation, attnum)?,
            (None, default) => default.map(|d| d.str(pg_attrdef::adbin).map(Arc::from)).transpose()?,
        };
        columns.push(Column {
            attnum,
            name: Arc::from(row.str(pg_attribute::attname)?),
            type_oid: row.oid(pg_attribute::atttypid)?,
            typmod: row.int4(pg_attribute::atttypmod)?,
            not_null: row.bool(pg_attribute::attnotnull)?,
            dropped: row.bool(pg_attribute::attisdropped)?,
            default,
            generated: row.char(pg_attribute::attgenerated)? == b's',
            identity,
            missing,
            collation: row.oid(pg_attribute::attcollation)?,
            len: row.int2(pg_attribute::attlen)?,
            stats_target: row.int4(pg_attribute::attstattarget)?,
            storage: row.char(pg_attribute::attstorage)?,
            compression: row.char(pg_attribute::attcompression)?,
        });
    }
    Ok(columns)
}

/// An identity column takes its values from the sequence that is part of it.
fn identity_default(reader: &dyn CatalogReader, relation: Oid, attnum: i16) -> Result<Option<Arc<str>>, SqlError> {
    let key = [Datum::Oid(pg_class::ID), Datum::Oid(relation), Datum::Int4(i32::from(attnum))];
    for row in reader.rows(&pg_depend::DEF, by::DEPEND_REFERENCED, &key)? {
        if row.oid(pg_depend::classid)? == pg_class::ID && row.char(pg_depend::deptype)? == b'i' {
            return Ok(Some(Arc::from(format!("nextval('{}'::regclass)", row.oid(pg_depend::objid)?))));
        }
    }
    Ok(None)
}

/// The tuple descriptor of a relation's columns, dropped ones included.
pub(super) fn tuple_desc(columns: &[Column]) -> Result<TupleDesc, SqlError> {
    // Missing values were written with default settings.
    let io = IoSettings::default();
    let mut cols = Vec::with_capacity(columns.len());
    for c in columns {
        let missing = c.missing.as_ref().map(|text| text_in(c.type_oid, c.typmod, text, &io)).transpose()?;
        let mut desc = ColDesc { not_null: c.not_null, dropped: c.dropped, missing, ..ColDesc::new(&c.name, c.type_oid, c.typmod) };
        if c.dropped {
            desc.repr = Repr::of_length(c.len);
        }
        cols.push(desc);
    }
    Ok(TupleDesc::new(cols))
}

/// The table of large values with this OID, and its index; none for OID 0.
fn toast_table(reader: &dyn CatalogReader, database: Oid, oid: Oid, persistence: Persistence) -> Result<Option<ToastTable>, SqlError> {
    if oid == 0 {
        return Ok(None);
    }
    let missing = || SqlError::new(SqlState::DATA_CORRUPTED, format!("large-value table {oid} or its index has no pg_class row"));
    let handle = |oid: Oid| -> Result<RelHandle, SqlError> {
        let class = reader.row(&pg_class::DEF, by::CLASS_OID, &[Datum::Oid(oid)])?.ok_or_else(missing)?;
        Ok(RelHandle { oid, file: file_of(&class, database)?, persistence: persistence.access(), reserve: 0 })
    };
    let index = reader.row(&pg_index::DEF, by::INDEX_TABLE, &[Datum::Oid(oid)])?.ok_or_else(missing)?;
    Ok(Some(ToastTable { table: handle(oid)?, index: handle(index.oid(pg_index::indexrelid)?)? }))
}

fn view_text(reader: &dyn CatalogReader, view: Oid) -> Result<Arc<str>, SqlError> {
    let rows = reader.rows(&pg_rewrite::DEF, by::REWRITE_TABLE, &[Datum::Oid(view), Datum::text("_RETURN")])?;
    let row = rows.first().ok_or_else(|| SqlError::new(SqlState::DATA_CORRUPTED, format!("view {view} has no rule")))?;
    row.str(pg_rewrite::ev_action).map(Arc::from)
}

fn indexes(reader: &dyn CatalogReader, database: Oid, table: Oid) -> Result<Vec<Index>, SqlError> {
    let rows = reader.rows(&pg_index::DEF, by::INDEX_TABLE, &[Datum::Oid(table)])?;
    let mut out = Vec::with_capacity(rows.len());
    for row in rows {
        let oid = row.oid(pg_index::indexrelid)?;
        let Some(class) = reader.row(&pg_class::DEF, by::CLASS_OID, &[Datum::Oid(oid)])? else {
            return Err(SqlError::new(SqlState::DATA_CORRUPTED, format!("index {oid} has no pg_class row")));
        };
        let mut attributes = reader.rows(&pg_attribute::DEF, by::ATTRIBUTE_NUM, &[Datum::Oid(oid)])?;
        attributes.sort_by_key(|a| a.int2(pg_attribute::attnum).unwrap_or(0));
        let keys = row.int2s(pg_index::indkey)?;
        let options = row.int2s(pg_index::indoption)?;
        let classes = row.oids(pg_index::indclass)?;
        let collations = row.oids(pg_index::indcollation)?;
        let expressions = row.opt_str(pg_index::indexprs)?;
        let mut expressions = expressions.as_deref().unwrap_or("").split(EXPRESSION_SEPARATOR);
        let mut columns = Vec::with_capacity(keys.len());
        for (i, &attnum) in keys.iter().enumerate() {
            let attribute = attributes
                .get(i)
                .ok_or_else(|| SqlError::new(SqlState::DATA_CORRUPTED, format!("index {oid} lacks attribute {}", i + 1)))?;
            let option = options.get(i).copied().unwrap_or(0);
            columns.push(IndexColumn {
                attnum,
                expression: if attnum == 0 { expressions.next().map(Arc::from) } else { None },
                type_oid: attribute.oid(pg_attribute::atttypid)?,
                typmod: attribute.int4(pg_attribute::atttypmod)?,
                desc: option & 1 != 0,
                nulls_first: option & 2 != 0,
                collation: collations.get(i).copied().unwrap_or(0),
                opclass: classes.get(i).copied().unwrap_or(0),
                storage: attribute.char(pg_attribute::attstorage)?,
            });
        }
        out.push(Index {
            oid,
            name: Arc::from(class.str(pg_class::relname)?),
            table,
            file: file_of(&class, database)?,
            unique: row.bool(pg_index::indisunique)?,
            primary: row.bool(pg_index::indisprimary)?,
            nulls_not_distinct: row.bool(pg_index::indnullsnotdistinct)?,
            immediate: row.bool(pg_index::indimmediate)?,
            valid: row.bool(pg_index::indisvalid)?,
            ready: row.bool(pg_index::indisready)?,
            live: row.bool(pg_index::indislive)?,
            since: if row.bool(pg_index::indcheckxmin)? { reader.maker(&pg_index::DEF, &row)? } else { None },
            n_key: usize::try_from(row.int2(pg_index::indnkeyatts)?).unwrap_or(columns.len()),
            columns,
            predicate: row.opt_str(pg_index::indpred)?,
            constraint: 0,
            method: Arc::from(match class.oid(pg_class::relam)? {
                405 => "hash",
                _ => "btree",
            }),
            rel_pages: u32::try_from(class.int4(pg_class::relpages)?).unwrap_or(0),
            rel_tuples: class.float4(pg_class::reltuples)?,
            options: class.strs(pg_class::reloptions)?,
        });
    }
    Ok(out)
}

fn constraints(reader: &dyn CatalogReader, table: Oid) -> Result<(Vec<Constraint>, Vec<CheckConstraint>), SqlError> {
    let mut constraints = Vec::new();
    let mut checks = Vec::new();
    for row in reader.rows(&pg_constraint::DEF, by::CONSTRAINT_TABLE, &[Datum::Oid(table)])? {
        if row.char(pg_constraint::contype)? == b'c' {
            checks.push(CheckConstraint {
                oid: row.oid(pg_constraint::oid)?,
                name: Arc::from(row.str(pg_constraint::conname)?),
                expression: Arc::from(row.str(pg_constraint::conbin)?),
                columns: row.int2s(pg_constraint::conkey)?,
                validated: row.bool(pg_constraint::convalidated)?,
                no_inherit: row.bool(pg_constraint::connoinherit)?,
            });
        } else if let Some(constraint) = constraint(&row)? {
            constraints.push(constraint);
        }
    }
    checks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((constraints, checks))
}

fn constraint(row: &CatalogRow) -> Result<Option<Constraint>, SqlError> {
    let kind = match row.char(pg_constraint::contype)? {
        b'p' => ConstraintKind::Primary,
        b'u' => ConstraintKind::Unique,
        b'x' => ConstraintKind::Exclusion,
        b'f' => ConstraintKind::Foreign(ForeignKey {
            table: row.oid(pg_constraint::confrelid)?,
            columns: row.int2s(pg_constraint::confkey)?,
            on_update: FkAction::from_letter(row.char(pg_constraint::confupdtype)?),
            on_delete: FkAction::from_letter(row.char(pg_constraint::confdeltype)?),
            match_type: if row.char(pg_constraint::confmatchtype)? == b'f' { FkMatch::Full } else { FkMatch::Simple },
        }),
        _ => return Ok(None),
    };
    Ok(Some(Constraint {
        oid: row.oid(pg_constraint::oid)?,
        name: Arc::from(row.str(pg_constraint::conname)?),
        kind,
        columns: row.int2s(pg_constraint::conkey)?,
        index: row.oid(pg_constraint::conindid)?,
        deferrable: row.bool(pg_constraint::condeferrable)?,
        deferred: row.bool(pg_constraint::condeferred)?,
        validated: row.bool(pg_constraint::convalidated)?,
    }))
}

/// Foreign keys that point at `table`, found through `pg_depend`: `pg_constraint` has no index on the referenced table.
fn referenced_by(reader: &dyn CatalogReader, table: Oid) -> Result<Vec<(Oid, Constraint)>, SqlError> {
    let mut oids = Vec::new();
    let key = [Datum::Oid(pg_class::ID), Datum::Oid(table)];
    for row in reader.rows(&pg_depend::DEF, by::DEPEND_REFERENCED, &key)? {
        if row.oid(pg_depend::classid)? == pg_constraint::ID && row.char(pg_depend::deptype)? == b'n' {
            oids.push(row.oid(pg_depend::objid)?);
        }
    }
    oids.sort_unstable();
    oids.dedup();
    let mut out = Vec::new();
    for oid in oids {
        let Some(row) = reader.row(&pg_constraint::DEF, by::CONSTRAINT_OID, &[Datum::Oid(oid)])? else { continue };
        if row.oid(pg_constraint::confrelid)? == table
            && let Some(constraint) = constraint(&row)?
        {
            out.push((row.oid(pg_constraint::conrelid)?, constraint));
        }
    }
    Ok(out)
}

/// A table's triggers, in the order of their names.
fn triggers(reader: &dyn CatalogReader, table: Oid) -> Result<Vec<Arc<Trigger>>, SqlError> {
    let rows = reader.rows(&pg_trigger::DEF, by::TRIGGER_TABLE, &[Datum::Oid(table)])?;
    let mut out = rows.iter().map(|row| trigger(row).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

/// The trigger a row of `pg_trigger` describes.
///
/// # Errors
/// XX001.
pub fn trigger(row: &CatalogRow) -> Result<Trigger, SqlError> {
    let args = match row.values.get(pg_trigger::tgargs) {
        Some(Datum::Bytea(bytes)) => {
            // Each argument ends with a zero byte.
            let mut parts: Vec<&[u8]> = bytes.split(|b| *b == 0).collect();
            parts.pop();
            parts.iter().map(|p| Arc::from(&*String::from_utf8_lossy(p))).collect()
        }
        _ => Vec::new(),
    };
    Ok(Trigger {
        oid: row.oid(pg_trigger::oid)?,
        name: Arc::from(row.str(pg_trigger::tgname)?),
        function: row.oid(pg_trigger::tgfoid)?,
        kind: row.int2(pg_trigger::tgtype)?,
        enabled: row.char(pg_trigger::tgenabled)?,
        constraint: row.oid(pg_trigger::tgconstraint)?,
        other: row.oid(pg_trigger::tgconstrrelid)?,
        deferrable: row.bool(pg_trigger::tgdeferrable)?,
        deferred: row.bool(pg_trigger::tginitdeferred)?,
        columns: row.int2s(pg_trigger::tgattr)?,
        args,
        condition: row.opt_str(pg_trigger::tgqual)?,
    })
}

fn sequence(reader: &dyn CatalogReader, oid: Oid) -> Result<Option<SequenceDef>, SqlError> {
    let Some(row) = reader.row(&pg_sequence::DEF, by::SEQUENCE, &[Datum::Oid(oid)])? else { return Ok(None) };
    Ok(Some(SequenceDef {
        type_oid: row.oid(pg_sequence::seqtypid)?,
        start: row.int8(pg_sequence::seqstart)?,
        increment: row.int8(pg_sequence::seqincrement)?,
        max: row.int8(pg_sequence::seqmax)?,
        min: row.int8(pg_sequence::seqmin)?,
        cache: row.int8(pg_sequence::seqcache)?,
        cycle: row.bool(pg_sequence::seqcycle)?,
    }))
}

/// `stakind`: most common values.
pub(crate) const STATISTIC_KIND_MCV: i16 = 1;
/// `stakind`: histogram.
pub(crate) const STATISTIC_KIND_HISTOGRAM: i16 = 2;
/// `stakind`: correlation.
pub(crate) const STATISTIC_KIND_CORRELATION: i16 = 3;

fn stats(reader: &dyn CatalogReader, table: Oid, columns: usize) -> Result<Vec<Option<Arc<ColumnStats>>>, SqlError> {
    let rows = reader.rows(&pg_statistic::DEF, by::STATISTIC, &[Datum::Oid(table)])?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut out = vec![None; columns];
    for row in rows {
        let Ok(attnum) = usize::try_from(row.int2(pg_statistic::staattnum)?) else { continue };
        let Some(place) = attnum.checked_sub(1).and_then(|i| out.get_mut(i)) else { continue };
        let mut stats = ColumnStats {
            null_frac: row.float4(pg_statistic::stanullfrac)?,
            width: row.int4(pg_statistic::stawidth)?,
            n_distinct: row.float4(pg_statistic::stadistinct)?,
            ..ColumnStats::default()
        };
        for slot in 0..5 {
            let numbers = row.list(pg_statistic::stanumbers1 + slot)?;
            match row.int2(pg_statistic::stakind1 + slot)? {
                STATISTIC_KIND_MCV => {
                    let values = row.strs(pg_statistic::stavalues1 + slot)?;
                    let numbers = numbers.iter().map(|n| n.as_f32().unwrap_or(0.0));
                    stats.common = values.into_iter().zip(numbers).collect();
                }
                STATISTIC_KIND_HISTOGRAM => stats.histogram = row.strs(pg_statistic::stavalues1 + slot)?,
                STATISTIC_KIND_CORRELATION => stats.correlation = numbers.first().and_then(|n| n.as_f32().ok()),
                _ => {}
            }
        }
        *place = Some(Arc::new(stats));
    }
    Ok(out)
}
