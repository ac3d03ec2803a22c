//! Descriptors to catalog rows.

use afterimage_wal::Xid;

use super::compiled::{int2vector, oidvector, text_array};
use super::load::EXPRESSION_SEPARATOR;
use super::relation::{CheckConstraint, Column, Constraint, ConstraintKind, FkMatch, Identity, Index, Persistence, RelKind};
use super::schema::{CatalogDef, pg_attrdef, pg_attribute, pg_class, pg_constraint, pg_depend, pg_index, pg_shdepend};
use crate::sql::types::registry::type_by_oid;
use crate::sql::types::{ArrayValue, Datum, Oid, oids};

/// A row of NULLs.
pub fn blank(def: &CatalogDef) -> Vec<Datum> {
    vec![Datum::Null; def.columns.len()]
}

/// What `pg_class` says of a new relation.
#[derive(Clone, Debug)]
pub struct ClassRow<'a> {
    /// OID.
    pub oid: Oid,
    /// Name.
    pub name: &'a str,
    /// Schema.
    pub namespace: Oid,
    /// Owner.
    pub owner: Oid,
    /// Access method, 0 for none.
    pub access_method: Oid,
    /// File, 0 for none.
    pub file: Oid,
    /// Tablespace, 0 for the database's.
    pub tablespace: Oid,
    /// Kind.
    pub kind: RelKind,
    /// Persistence.
    pub persistence: Persistence,
    /// Shared by all databases.
    pub shared: bool,
    /// Attributes.
    pub columns: usize,
    /// CHECK constraints.
    pub checks: usize,
    /// Has indexes.
    pub has_index: bool,
    /// Has rules (views).
    pub has_rules: bool,
    /// `reloptions`.
    pub options: &'a [String],
    /// Below it no xid's status is needed.
    pub frozen: Xid,
}

impl ClassRow<'_> {
    /// The row.
    pub fn values(&self) -> Vec<Datum> {
        let count = |n: usize| Datum::Int2(i16::try_from(n).unwrap_or(i16::MAX));
        let stored = matches!(self.kind, RelKind::Table | RelKind::MatView | RelKind::Toast);
        let mut row = blank(&pg_class::DEF);
        row[pg_class::oid] = Datum::Oid(self.oid);
        row[pg_class::relname] = Datum::text(self.name);
        row[pg_class::relnamespace] = Datum::Oid(self.namespace);
        row[pg_class::reltype] = Datum::Oid(super::relation::row_type_of(self.oid, self.kind));
        row[pg_class::reloftype] = Datum::Oid(0);
        row[pg_class::relowner] = Datum::Oid(self.owner);
        row[pg_class::relam] = Datum::Oid(self.access_method);
        row[pg_class::relfilenode] = Datum::Oid(self.file);
        row[pg_class::reltablespace] = Datum::Oid(self.tablespace);
        row[pg_class::relpages] = Datum::Int4(0);
        row[pg_class::reltuples] = Datum::Float4(if self.kind == RelKind::Index { 0.0 } else { -1.0 });
        row[pg_class::relallvisible] = Datum::Int4(0);
        row[pg_class::reltoastrelid] = Datum::Oid(0);
        row[pg_class::relhasindex] = Datum::Bool(self.has_index);
        row[pg_class::relisshared] = Datum::Bool(self.shared);
        row[pg_class::relpersistence] = Datum::Char(self.persistence.letter());
        row[pg_class::relkind] = Datum::Char(self.kind.letter());
        row[pg_class::relnatts] = count(self.columns);
        row[pg_class::relchecks] = count(self.checks);
        row[pg_class::relhasrules] = Datum::Bool(self.has_rules);
        row[pg_class::relhastriggers] = Datum::Bool(false);
        row[pg_class::relhassubclass] = Datum::Bool(false);
        row[pg_class::relrowsecurity] = Datum::Bool(false);
        row[pg_class::relforcerowsecurity] = Datum::Bool(false);
        row[pg_class::relispopulated] = Datum::Bool(true);
        let identity = if stored && !self.shared && self.namespace != super::relation::PG_CATALOG_NAMESPACE { b'd' } else { b'n' };
        row[pg_class::relreplident] = Datum::Char(identity);
        row[pg_class::relispartition] = Datum::Bool(false);
        row[pg_class::relrewrite] = Datum::Oid(0);
        let [frozen, half] = if stored { xid_halves(self.frozen) } else { [Datum::Oid(0), Datum::Oid(0)] };
        (row[pg_class::relfrozenxid], row[pg_class::relminmxid]) = (frozen, half);
        row[pg_class::reloptions] = text_array(self.options);
        row
    }
}

/// A 64-bit xid as `relfrozenxid` and `relminmxid` hold it, or `datfrozenxid` and `datminmxid`: the lower half, which is what clients know by that
/// name, and the upper half plus one, where PostgreSQL keeps the oldest multixact. We have no multixacts.
pub fn xid_halves(xid: Xid) -> [Datum; 2] {
    let upper = u32::try_from(xid.as_u64() >> 32).unwrap_or(u32::MAX);
    [Datum::Oid(xid.low()), Datum::Oid(upper.saturating_add(1))]
}

/// Back from [`xid_halves`]; INVALID for what has none.
pub fn xid_of_halves(frozen: Oid, half: Oid) -> Xid {
    match half.checked_sub(1) {
        Some(upper) if frozen != 0 => Xid::from_u64(u64::from(upper) << 32 | u64::from(frozen)),
        _ => Xid::INVALID,
    }
}

/// A row of `pg_attribute`.
pub fn attribute(relation: Oid, column: &Column) -> Vec<Datum> {
    let entry = type_by_oid(column.type_oid);
    let mut row = blank(&pg_attribute::DEF);
    row[pg_attribute::attrelid] = Datum::Oid(relation);
    row[pg_attribute::attname] = Datum::text(&*column.name);
    row[pg_attribute::atttypid] = Datum::Oid(column.type_oid);
    row[pg_attribute::attstattarget] = Datum::Int4(column.stats_target);
    row[pg_attribute::attlen] = Datum::Int2(column.len);
    row[pg_attribute::attnum] = Datum::Int2(column.attnum);
    row[pg_attribute::attndims] = Datum::Int4(i32::from(entry.is_some_and(|t| t.is_array())));
    row[pg_attribute::attcacheoff] = Datum::Int4(-1);
    row[pg_attribute::atttypmod] = Datum::Int4(column.typmod);
    row[pg_attribute::attbyval] = Datum::Bool(entry.is_some_and(|t| t.by_value));
    row[pg_attribute::attalign] = Datum::Char(entry.map_or(b'i', |t| t.align));
    row[pg_attribute::attstorage] = Datum::Char(column.storage);
    row[pg_attribute::attcompression] = Datum::Char(column.compression);
    row[pg_attribute::attnotnull] = Datum::Bool(column.not_null);
    row[pg_attribute::atthasdef] = Datum::Bool(column.default.is_some());
    row[pg_attribute::atthasmissing] = Datum::Bool(column.missing.is_some());
    row[pg_attribute::attidentity] = Datum::Char(match column.identity {
        Some(Identity::Always) => b'a',
        Some(Identity::ByDefault) => b'd',
        None => 0,
    });
    row[pg_attribute::attgenerated] = Datum::Char(if column.generated { b's' } else { 0 });
    row[pg_attribute::attisdropped] = Datum::Bool(column.dropped);
    row[pg_attribute::attislocal] = Datum::Bool(true);
    row[pg_attribute::attinhcount] = Datum::Int4(0);
    row[pg_attribute::attcollation] = Datum::Oid(column.collation);
    if let Some(missing) = &column.missing {
        row[pg_attribute::attmissingval] = text_array(&[missing]);
    }
    row
}

/// A row of `pg_attrdef`.
pub fn default(oid: Oid, relation: Oid, attnum: i16, expression: &str) -> Vec<Datum> {
    let mut row = blank(&pg_attrdef::DEF);
    row[pg_attrdef::oid] = Datum::Oid(oid);
    row[pg_attrdef::adrelid] = Datum::Oid(relation);
    row[pg_attrdef::adnum] = Datum::Int2(attnum);
    row[pg_attrdef::adbin] = Datum::text(expression);
    row
}

/// A row of `pg_index`.
pub fn index(index: &Index) -> Vec<Datum> {
    let keys: Vec<i16> = index.columns.iter().map(|c| c.attnum).collect();
    let options: Vec<i16> = index.keys().iter().map(|c| i16::from(c.desc) | i16::from(c.nulls_first) << 1).collect();
    let classes: Vec<Oid> = index.keys().iter().map(|c| c.opclass).collect();
    let collations: Vec<Oid> = index.keys().iter().map(|c| c.collation).collect();
    let expressions: Vec<&str> = index.columns.iter().filter_map(|c| c.expression.as_deref()).collect();
    let count = |n: usize| Datum::Int2(i16::try_from(n).unwrap_or(i16::MAX));
    let mut row = blank(&pg_index::DEF);
    row[pg_index::indexrelid] = Datum::Oid(index.oid);
    row[pg_index::indrelid] = Datum::Oid(index.table);
    row[pg_index::indnatts] = count(index.columns.len());
    row[pg_index::indnkeyatts] = count(index.n_key);
    row[pg_index::indisunique] = Datum::Bool(index.unique);
    row[pg_index::indnullsnotdistinct] = Datum::Bool(index.nulls_not_distinct);
    row[pg_index::indisprimary] = Datum::Bool(index.primary);
    row[pg_index::indisexclusion] = Datum::Bool(false);
    row[pg_index::indimmediate] = Datum::Bool(index.immediate);
    row[pg_index::indisclustered] = Datum::Bool(false);
    row[pg_index::indisvalid] = Datum::Bool(index.valid);
    row[pg_index::indcheckxmin] = Datum::Bool(false);
    row[pg_index::indisready] = Datum::Bool(index.ready);
    row[pg_index::indislive] = Datum::Bool(index.live);
    row[pg_index::indisreplident] = Datum::Bool(false);
    row[pg_index::indkey] = int2vector(&keys);
    row[pg_index::indcollation] = oidvector(&collations);
    row[pg_index::indclass] = oidvector(&classes);
    row[pg_index::indoption] = int2vector(&options);
    if !expressions.is_empty() {
        row[pg_index::indexprs] = Datum::text(expressions.join(&EXPRESSION_SEPARATOR.to_string()));
    }
    if let Some(predicate) = &index.predicate {
        row[pg_index::indpred] = Datum::text(&**predicate);
    }
    row
}

fn int2_array(list: &[i16]) -> Datum {
    if list.is_empty() {
        return Datum::Null;
    }
    Datum::array(ArrayValue::one_dim(oids::INT2, list.iter().map(|&n| Datum::Int2(n)).collect()))
}

fn constraint_common(oid: Oid, name: &str, namespace: Oid, relation: Oid, kind: u8, columns: &[i16]) -> Vec<Datum> {
    let mut row = blank(&pg_constraint::DEF);
    row[pg_constraint::oid] = Datum::Oid(oid);
    row[pg_constraint::conname] = Datum::text(name);
    row[pg_constraint::connamespace] = Datum::Oid(namespace);
    row[pg_constraint::contype] = Datum::Char(kind);
    row[pg_constraint::condeferrable] = Datum::Bool(false);
    row[pg_constraint::condeferred] = Datum::Bool(false);
    row[pg_constraint::convalidated] = Datum::Bool(true);
    row[pg_constraint::conrelid] = Datum::Oid(relation);
    row[pg_constraint::contypid] = Datum::Oid(0);
    row[pg_constraint::conindid] = Datum::Oid(0);
    row[pg_constraint::conparentid] = Datum::Oid(0);
    row[pg_constraint::confrelid] = Datum::Oid(0);
    row[pg_constraint::confupdtype] = Datum::Char(b' ');
    row[pg_constraint::confdeltype] = Datum::Char(b' ');
    row[pg_constraint::confmatchtype] = Datum::Char(b' ');
    row[pg_constraint::conislocal] = Datum::Bool(true);
    row[pg_constraint::coninhcount] = Datum::Int4(0);
    row[pg_constraint::connoinherit] = Datum::Bool(kind != b'c');
    row[pg_constraint::conkey] = int2_array(columns);
    row
}

/// A row of `pg_constraint` for a CHECK.
pub fn check(namespace: Oid, relation: Oid, check: &CheckConstraint) -> Vec<Datum> {
    let mut row = constraint_common(check.oid, &check.name, namespace, relation, b'c', &check.columns);
    row[pg_constraint::convalidated] = Datum::Bool(check.validated);
    row[pg_constraint::connoinherit] = Datum::Bool(check.no_inherit);
    row[pg_constraint::conbin] = Datum::text(&*check.expression);
    row
}

/// A row of `pg_constraint` for a constraint trigger.
pub fn trigger_constraint(oid: Oid, name: &str, namespace: Oid, relation: Oid, deferrable: bool, deferred: bool) -> Vec<Datum> {
    let mut row = constraint_common(oid, name, namespace, relation, b't', &[]);
    row[pg_constraint::condeferrable] = Datum::Bool(deferrable);
    row[pg_constraint::condeferred] = Datum::Bool(deferred);
    row
}

/// A row of `pg_constraint` for any other constraint.
pub fn constraint(namespace: Oid, relation: Oid, constraint: &Constraint) -> Vec<Datum> {
    let kind = match constraint.kind {
        ConstraintKind::Primary => b'p',
        ConstraintKind::Unique => b'u',
        ConstraintKind::Exclusion => b'x',
        ConstraintKind::Foreign(_) => b'f',
    };
    let mut row = constraint_common(constraint.oid, &constraint.name, namespace, relation, kind, &constraint.columns);
    row[pg_constraint::condeferrable] = Datum::Bool(constraint.deferrable);
    row[pg_constraint::condeferred] = Datum::Bool(constraint.deferred);
    row[pg_constraint::convalidated] = Datum::Bool(constraint.validated);
    row[pg_constraint::conindid] = Datum::Oid(constraint.index);
    if let ConstraintKind::Foreign(foreign) = &constraint.kind {
        row[pg_constraint::confrelid] = Datum::Oid(foreign.table);
        row[pg_constraint::confupdtype] = Datum::Char(foreign.on_update.letter());
        row[pg_constraint::confdeltype] = Datum::Char(foreign.on_delete.letter());
        row[pg_constraint::confmatchtype] = Datum::Char(if foreign.match_type == FkMatch::Full { b'f' } else { b's' });
        row[pg_constraint::confkey] = int2_array(&foreign.columns);
    }
    row
}

/// A catalog object: its catalog, its OID, and for a column its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectAddress {
    /// The catalog it is described in.
    pub class: Oid,
    /// OID.
    pub object: Oid,
    /// Attribute number, 0 for the whole.
    pub sub: i32,
}

impl ObjectAddress {
    /// A whole object.
    pub fn new(class: Oid, object: Oid) -> Self {
        Self { class, object, sub: 0 }
    }

    /// A column of a relation.
    pub fn column(relation: Oid, attnum: i16) -> Self {
        Self { class: pg_class::ID, object: relation, sub: i32::from(attnum) }
    }

    /// A relation.
    pub fn relation(relation: Oid) -> Self {
        Self::new(pg_class::ID, relation)
    }
}

/// `pg_depend.deptype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DependKind {
    /// Dropping the referenced object needs CASCADE.
    Normal,
    /// Goes with the referenced object.
    Auto,
    /// Part of the referenced object; cannot be dropped alone.
    Internal,
}

impl DependKind {
    /// The letter stored.
    pub fn letter(self) -> u8 {
        match self {
            Self::Normal => b'n',
            Self::Auto => b'a',
            Self::Internal => b'i',
        }
    }
}

/// A row of `pg_depend`.
pub fn depend(depender: ObjectAddress, on: ObjectAddress, kind: DependKind) -> Vec<Datum> {
    let mut row = blank(&pg_depend::DEF);
    row[pg_depend::classid] = Datum::Oid(depender.class);
    row[pg_depend::objid] = Datum::Oid(depender.object);
    row[pg_depend::objsubid] = Datum::Int4(depender.sub);
    row[pg_depend::refclassid] = Datum::Oid(on.class);
    row[pg_depend::refobjid] = Datum::Oid(on.object);
    row[pg_depend::refobjsubid] = Datum::Int4(on.sub);
    row[pg_depend::deptype] = Datum::Char(kind.letter());
    row
}

/// A row of `pg_shdepend`: an object depends on a shared one (`o`wner, or `a`cl).
pub fn shared_depend(database: Oid, depender: ObjectAddress, on: ObjectAddress, kind: u8) -> Vec<Datum> {
    let mut row = blank(&pg_shdepend::DEF);
    row[pg_shdepend::dbid] = Datum::Oid(database);
    row[pg_shdepend::classid] = Datum::Oid(depender.class);
    row[pg_shdepend::objid] = Datum::Oid(depender.object);
    row[pg_shdepend::objsubid] = Datum::Int4(depender.sub);
    row[pg_shdepend::refclassid] = Datum::Oid(on.class);
    row[pg_shdepend::refobjid] = Datum::Oid(on.object);
    row[pg_shdepend::deptype] = Datum::Char(kind);
    row
}
