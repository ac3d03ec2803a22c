//! Descriptors of relations: what the binder, planner and executor need to know of a table, all in one [`Arc`].
//!
//! Expressions (defaults, checks, index expressions and predicates, view bodies) are SQL text, parsed by whoever uses
//! them. Attribute numbers are PostgreSQL's: 1-based, never reused, dropped columns keep theirs; a row stores
//! dropped columns as NULL, so `columns[attnum - 1]` is always the column.

use std::sync::Arc;

use afterimage_wal::{Oid, RelId, Xid};

use super::virtual_table::VirtualTable;
use crate::access::{self, RelHandle};
use crate::sql::types::{ColDesc, ToastTable, TupleDesc};
use crate::txn::LockTag;

/// First OID given to user objects; everything below is compiled in or made by bootstrap.
pub const FIRST_NORMAL_OID: Oid = 16384;

/// Schema `pg_catalog`.
pub const PG_CATALOG_NAMESPACE: Oid = 11;
/// Schema `pg_toast`.
pub const PG_TOAST_NAMESPACE: Oid = 99;
/// Schema `public`.
pub const PUBLIC_NAMESPACE: Oid = 2200;
/// Tablespace `pg_default`.
pub const DEFAULT_TABLESPACE: Oid = 1663;
/// Tablespace `pg_global`, home of the shared catalogs.
pub const GLOBAL_TABLESPACE: Oid = 1664;
/// The role initdb makes.
pub const BOOTSTRAP_ROLE: Oid = 10;

/// `pg_class.relkind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RelKind {
    /// Ordinary table, `r`.
    Table,
    /// Index, `i`.
    Index,
    /// Sequence, `S`.
    Sequence,
    /// View, `v`.
    View,
    /// Materialized view, `m`.
    MatView,
    /// Composite type, `c`.
    Composite,
    /// TOAST table, `t`.
    Toast,
    /// Foreign table, `f`.
    Foreign,
    /// Partitioned table, `p`.
    Partitioned,
    /// Partitioned index, `I`.
    PartitionedIndex,
}

impl RelKind {
    /// The letter stored in `pg_class.relkind`.
    pub fn letter(self) -> u8 {
        match self {
            Self::Table => b'r',
            Self::Index => b'i',
            Self::Sequence => b'S',
            Self::View => b'v',
            Self::MatView => b'm',
            Self::Composite => b'c',
            Self::Toast => b't',
            Self::Foreign => b'f',
            Self::Partitioned => b'p',
            Self::PartitionedIndex => b'I',
        }
    }

    /// The kind with this letter.
    pub fn from_letter(letter: u8) -> Option<Self> {
        Some(match letter {
            b'r' => Self::Table,
            b'i' => Self::Index,
            b'S' => Self::Sequence,
            b'v' => Self::View,
            b'm' => Self::MatView,
            b'c' => Self::Composite,
            b't' => Self::Toast,
            b'f' => Self::Foreign,
            b'p' => Self::Partitioned,
            b'I' => Self::PartitionedIndex,
            _ => return None,
        })
    }

    /// As messages name it: "table", "index", ...
    pub fn noun(self) -> &'static str {
        match self {
            Self::Table | Self::Partitioned | Self::Toast => "table",
            Self::Index | Self::PartitionedIndex => "index",
            Self::Sequence => "sequence",
            Self::View => "view",
            Self::MatView => "materialized view",
            Self::Composite => "composite type",
            Self::Foreign => "foreign table",
        }
    }

    /// More than one of them.
    pub fn plural(self) -> String {
        let noun = self.noun();
        if noun.ends_with('x') { format!("{noun}es") } else { format!("{noun}s") }
    }
}

/// `pg_class.relpersistence`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Persistence {
    /// `p`.
    Permanent,
    /// `u`.
    Unlogged,
    /// `t`.
    Temporary,
}

impl Persistence {
    /// The letter stored in `pg_class.relpersistence`.
    pub fn letter(self) -> u8 {
        match self {
            Self::Permanent => b'p',
            Self::Unlogged => b'u',
            Self::Temporary => b't',
        }
    }
}

impl Persistence {
    /// The same for access methods.
    pub fn access(self) -> access::Persistence {
        match self {
            Self::Permanent => access::Persistence::Permanent,
            Self::Unlogged => access::Persistence::Unlogged,
            Self::Temporary => access::Persistence::Temporary,
        }
    }
}

/// Where a relation's rows come from.
#[derive(Clone)]
pub enum Source {
    /// Heap, index or sequence pages in this file.
    File(RelId),
    /// Rows made on the fly.
    Virtual(Arc<dyn VirtualTable>),
    /// A view: its defining SELECT, as SQL text without a trailing semicolon.
    View(Arc<str>),
    /// Nothing stored (composite type, partitioned table).
    None,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(file) => f.debug_tuple("File").field(file).finish(),
            Self::Virtual(_) => f.write_str("Virtual"),
            Self::View(text) => f.debug_tuple("View").field(text).finish(),
            Self::None => f.write_str("None"),
        }
    }
}

/// A relation, with everything needed to read and change its rows. Immutable; a change makes a new one.
#[derive(Clone, Debug)]
pub struct Relation {
    /// `pg_class.oid`.
    pub oid: Oid,
    /// Name without schema.
    pub name: Arc<str>,
    /// Schema.
    pub namespace: Oid,
    /// Schema's name.
    pub namespace_name: Arc<str>,
    /// Owner.
    pub owner: Oid,
    /// Table, view, ...
    pub kind: RelKind,
    /// Permanent, unlogged or temporary.
    pub persistence: Persistence,
    /// In the global tablespace, the same for all databases.
    pub shared: bool,
    /// Where rows come from.
    pub source: Source,
    /// All columns ever added, dropped ones included; index = attnum - 1.
    pub columns: Vec<Column>,
    /// The same for row encoding: dropped columns and missing values included.
    pub desc: Arc<TupleDesc>,
    /// Valid and building indexes; each INSERT maintains those that are `ready`.
    pub indexes: Vec<Arc<Index>>,
    /// Primary key, unique, foreign key, exclusion constraints.
    pub constraints: Vec<Constraint>,
    /// CHECK constraints.
    pub checks: Vec<CheckConstraint>,
    /// Foreign keys of other tables that point here: (referencing table, constraint).
    pub referenced_by: Vec<(Oid, Constraint)>,
    /// Its triggers, in the order they fire: by name.
    pub triggers: Vec<Arc<Trigger>>,
    /// For [`RelKind::Sequence`].
    pub sequence: Option<SequenceDef>,
    /// `pg_class.relpages` at the last VACUUM or ANALYZE.
    pub rel_pages: u32,
    /// `pg_class.reltuples`; below 0: unknown.
    pub rel_tuples: f32,
    /// `pg_class.relallvisible`: pages all of whose rows everybody sees.
    pub rel_all_visible: u32,
    /// `pg_class.relacl` items as text (`role=arwdDxt/grantor`); `None`: the default for its owner.
    pub acl: Option<Vec<Arc<str>>>,
    /// `reloptions`, `name=value`.
    pub options: Vec<Arc<str>>,
    /// Row type, or 0.
    pub row_type: Oid,
    /// Where its large values are; `pg_class.reltoastrelid`.
    pub toast: Option<ToastTable>,
    /// Per column (index = attnum - 1), from `pg_statistic`; empty if never analyzed.
    pub stats: Vec<Option<Arc<ColumnStats>>>,
}

/// The type of a relation's rows, 0 if it has none. It has the relation's own OID: OIDs need only be unique within a catalog, and the rows of
/// `pg_type` for such types are made from `pg_class`. Built-in catalogs and views have none.
pub fn row_type_of(relation: Oid, kind: RelKind) -> Oid {
    let has_rows =
        matches!(kind, RelKind::Table | RelKind::View | RelKind::MatView | RelKind::Composite | RelKind::Foreign | RelKind::Partitioned);
    if has_rows && relation >= FIRST_NORMAL_OID { relation } else { 0 }
}

impl Relation {
    /// Its columns as those of a value of its row type: in their places, dropped ones marked.
    pub fn row_desc(&self) -> Arc<TupleDesc> {
        let columns = self.columns.iter().map(|c| ColDesc { dropped: c.dropped, ..ColDesc::new(&c.name, c.type_oid, c.typmod) });
        Arc::new(TupleDesc::new(columns.collect()))
    }

    /// The file, if it has one.
    pub fn file(&self) -> Option<RelId> {
        match self.source {
            Source::File(file) => Some(file),
            Source::Virtual(_) | Source::View(_) | Source::None => None,
        }
    }

    /// The relation as access methods see it; `None` if it has no file.
    pub fn rel_handle(&self) -> Option<RelHandle> {
        self.file().map(|file| RelHandle { oid: self.oid, file, persistence: self.persistence.access(), reserve: self.reserve() })
    }

    /// One of its indexes as access methods see it.
    pub fn index_handle(&self, index: &Index) -> RelHandle {
        RelHandle { oid: index.oid, file: index.file, persistence: self.persistence.access(), reserve: 0 }
    }

    /// What to lock for uses of the relation.
    pub fn lock_tag(&self, database: Oid) -> LockTag {
        LockTag::Relation { db: if self.shared { 0 } else { database }, rel: self.oid }
    }

    /// The live column with this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| !c.dropped && &*c.name == name)
    }

    /// The column with this attribute number, dropped or not.
    pub fn attribute(&self, attnum: i16) -> Option<&Column> {
        usize::try_from(attnum).ok().and_then(|n| n.checked_sub(1)).and_then(|i| self.columns.get(i))
    }

    /// Columns that are not dropped.
    pub fn live_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|c| !c.dropped)
    }

    /// The primary key's index.
    pub fn primary_key(&self) -> Option<&Arc<Index>> {
        self.indexes.iter().find(|i| i.primary)
    }

    /// A catalog or system view.
    pub fn is_system(&self) -> bool {
        self.oid < FIRST_NORMAL_OID
    }

    /// Bytes of each page that inserts leave free: what `fillfactor` asks for.
    fn reserve(&self) -> u16 {
        let fill = self.option("fillfactor").and_then(|v| v.parse::<usize>().ok()).unwrap_or(100).clamp(10, 100);
        u16::try_from(crate::storage::PAGE_SIZE * (100 - fill) / 100).unwrap_or(0)
    }

    /// A boolean of `reloptions`.
    pub fn bool_option(&self, name: &str) -> Option<bool> {
        self.option(name).and_then(crate::sql::types::scalar::parse_bool_opt)
    }

    /// A value of `reloptions`.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find_map(|o| o.split_once('=').filter(|(n, _)| *n == name).map(|(_, v)| v))
    }
}

/// A trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// `pg_trigger.oid`.
    pub oid: Oid,
    /// Name.
    pub name: Arc<str>,
    /// The function it calls.
    pub function: Oid,
    /// When and for what it fires: bits of [`Trigger::ROW`] and its kin, as `pg_trigger.tgtype`.
    pub kind: i16,
    /// `pg_trigger.tgenabled`: `O`rigin and local, `D`isabled, `R`eplica, `A`lways.
    pub enabled: u8,
    /// Its row in `pg_constraint`, for CREATE CONSTRAINT TRIGGER; else 0.
    pub constraint: Oid,
    /// The other table of a constraint trigger; else 0.
    pub other: Oid,
    /// DEFERRABLE.
    pub deferrable: bool,
    /// INITIALLY DEFERRED.
    pub deferred: bool,
    /// UPDATE OF: attribute numbers; none: any.
    pub columns: Vec<i16>,
    /// `TG_ARGV`.
    pub args: Vec<Arc<str>>,
    /// WHEN, over `old` and `new`.
    pub condition: Option<Arc<str>>,
}

impl Trigger {
    /// FOR EACH ROW.
    pub const ROW: i16 = 1;
    /// BEFORE.
    pub const BEFORE: i16 = 1 << 1;
    /// INSERT.
    pub const INSERT: i16 = 1 << 2;
    /// DELETE.
    pub const DELETE: i16 = 1 << 3;
    /// UPDATE.
    pub const UPDATE: i16 = 1 << 4;
    /// TRUNCATE.
    pub const TRUNCATE: i16 = 1 << 5;
    /// INSTEAD OF.
    pub const INSTEAD: i16 = 1 << 6;
    /// BEFORE and INSTEAD OF; neither: AFTER.
    pub const TIMING: i16 = Self::BEFORE | Self::INSTEAD;

    /// Whether it fires FOR EACH ROW (else STATEMENT) at this time ([`Self::BEFORE`], [`Self::INSTEAD`], 0 for AFTER) of this event.
    pub fn is_for(&self, row: bool, timing: i16, event: i16) -> bool {
        (self.kind & Self::ROW != 0) == row && self.kind & Self::TIMING == timing && self.kind & event != 0
    }
}

/// `pg_attribute.attidentity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// GENERATED ALWAYS, `a`.
    Always,
    /// GENERATED BY DEFAULT, `d`.
    ByDefault,
}

/// One column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Attribute number, from 1.
    pub attnum: i16,
    /// Name; of a dropped column `........pg.dropped.N........`.
    pub name: Arc<str>,
    /// Type; 0 for a dropped column.
    pub type_oid: Oid,
    /// Type modifier, -1 for none.
    pub typmod: i32,
    /// NOT NULL.
    pub not_null: bool,
    /// Dropped; reads as NULL and is written as NULL.
    pub dropped: bool,
    /// Default, or for `generated` the generation expression, as SQL text.
    pub default: Option<Arc<str>>,
    /// GENERATED ... STORED.
    pub generated: bool,
    /// GENERATED ... AS IDENTITY.
    pub identity: Option<Identity>,
    /// Value of this column in rows older than the column (text form), as `attmissingval`.
    pub missing: Option<Arc<str>>,
    /// Collation, or 0.
    pub collation: Oid,
    /// The type's length as stored in `attlen`: of a dropped column, what it had.
    pub len: i16,
    /// Statistics target, -1 for the default.
    pub stats_target: i32,
    /// `attstorage`: `p`, `e`, `m` or `x`.
    pub storage: u8,
    /// `attcompression`: `p`, `l`, or 0 for `default_toast_compression`.
    pub compression: u8,
}

/// What ANALYZE found out about a column.
#[derive(Clone, Debug, Default)]
pub struct ColumnStats {
    /// Fraction of NULLs.
    pub null_frac: f32,
    /// Average width in bytes.
    pub width: i32,
    /// Distinct values; negative: a fraction of the rows.
    pub n_distinct: f32,
    /// Most common values in text form with their frequencies.
    pub common: Vec<(Arc<str>, f32)>,
    /// Histogram bounds in text form, of values not in `common`.
    pub histogram: Vec<Arc<str>>,
    /// Correlation of physical and logical order.
    pub correlation: Option<f32>,
}

/// One index.
#[derive(Clone, Debug)]
pub struct Index {
    /// `pg_class.oid` of the index.
    pub oid: Oid,
    /// Name.
    pub name: Arc<str>,
    /// The table.
    pub table: Oid,
    /// The index's file.
    pub file: RelId,
    /// UNIQUE.
    pub unique: bool,
    /// PRIMARY KEY.
    pub primary: bool,
    /// NULLS NOT DISTINCT.
    pub nulls_not_distinct: bool,
    /// Uniqueness is checked at once, not deferred.
    pub immediate: bool,
    /// Usable by queries.
    pub valid: bool,
    /// Maintained by changes.
    pub ready: bool,
    /// Not on its way out.
    pub live: bool,
    /// Only who sees what this transaction did may read by it: older versions of some rows are not in it (`indcheckxmin`).
    pub since: Option<Xid>,
    /// Key columns first, then INCLUDE columns.
    pub columns: Vec<IndexColumn>,
    /// How many of `columns` are keys.
    pub n_key: usize,
    /// WHERE clause as SQL text.
    pub predicate: Option<Arc<str>>,
    /// The constraint it implements, or 0.
    pub constraint: Oid,
    /// Name of access method ("btree").
    pub method: Arc<str>,
    /// Pages at the last VACUUM or ANALYZE.
    pub rel_pages: u32,
    /// Entries at the last VACUUM or ANALYZE.
    pub rel_tuples: f32,
    /// `reloptions`.
    pub options: Vec<Arc<str>>,
}

impl Index {
    /// The key columns.
    pub fn keys(&self) -> &[IndexColumn] {
        self.columns.get(..self.n_key).unwrap_or(&self.columns)
    }

    /// True if `attnum` is stored in it or used by an expression or predicate we cannot look into.
    pub fn may_depend_on(&self, attnum: i16) -> bool {
        self.predicate.is_some() || self.columns.iter().any(|c| c.attnum == attnum || c.attnum == 0)
    }
}

/// One column of an index.
#[derive(Clone, Debug)]
pub struct IndexColumn {
    /// Column of the table, or 0 for an expression.
    pub attnum: i16,
    /// The expression as SQL text, if `attnum` is 0.
    pub expression: Option<Arc<str>>,
    /// Type of the stored value.
    pub type_oid: Oid,
    /// Its type modifier.
    pub typmod: i32,
    /// DESC.
    pub desc: bool,
    /// NULLS FIRST (the default for DESC).
    pub nulls_first: bool,
    /// Collation, or 0.
    pub collation: Oid,
    /// Operator class.
    pub opclass: Oid,
    /// Storage strategy of the value (`attstorage`).
    pub storage: u8,
}

/// A CHECK constraint.
#[derive(Clone, Debug)]
pub struct CheckConstraint {
    /// `pg_constraint.oid`.
    pub oid: Oid,
    /// Name.
    pub name: Arc<str>,
    /// Expression as SQL text over the table's columns.
    pub expression: Arc<str>,
    /// Columns it mentions.
    pub columns: Vec<i16>,
    /// Checked for existing rows too.
    pub validated: bool,
    /// NO INHERIT.
    pub no_inherit: bool,
}

/// What a constraint other than CHECK demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConstraintKind {
    /// PRIMARY KEY.
    Primary,
    /// UNIQUE.
    Unique,
    /// FOREIGN KEY.
    Foreign(ForeignKey),
    /// EXCLUDE.
    Exclusion,
}

/// A constraint other than CHECK.
#[derive(Clone, Debug)]
pub struct Constraint {
    /// `pg_constraint.oid`.
    pub oid: Oid,
    /// Name.
    pub name: Arc<str>,
    /// What it demands.
    pub kind: ConstraintKind,
    /// Columns of this table.
    pub columns: Vec<i16>,
    /// The index behind it (of a foreign key: the referenced one), or 0.
    pub index: Oid,
    /// DEFERRABLE.
    pub deferrable: bool,
    /// INITIALLY DEFERRED.
    pub deferred: bool,
    /// Checked for existing rows too.
    pub validated: bool,
}

/// ON DELETE / ON UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FkAction {
    /// `a`.
    NoAction,
    /// `r`.
    Restrict,
    /// `c`.
    Cascade,
    /// `n`.
    SetNull,
    /// `d`.
    SetDefault,
}

impl FkAction {
    /// The letter stored in `pg_constraint`.
    pub fn letter(self) -> u8 {
        match self {
            Self::NoAction => b'a',
            Self::Restrict => b'r',
            Self::Cascade => b'c',
            Self::SetNull => b'n',
            Self::SetDefault => b'd',
        }
    }

    /// The action with this letter; anything unknown is `NO ACTION`.
    pub fn from_letter(letter: u8) -> Self {
        match letter {
            b'r' => Self::Restrict,
            b'c' => Self::Cascade,
            b'n' => Self::SetNull,
            b'd' => Self::SetDefault,
            _ => Self::NoAction,
        }
    }
}

/// MATCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FkMatch {
    /// A row with any NULL is not checked.
    Simple,
    /// All or none may be NULL.
    Full,
}

/// The far side of a foreign key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    /// Referenced table.
    pub table: Oid,
    /// Referenced columns, in the order of [`Constraint::columns`].
    pub columns: Vec<i16>,
    /// ON UPDATE.
    pub on_update: FkAction,
    /// ON DELETE.
    pub on_delete: FkAction,
    /// MATCH.
    pub match_type: FkMatch,
}

/// A sequence's parameters, from `pg_sequence`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceDef {
    /// int2, int4 or int8.
    pub type_oid: Oid,
    /// START.
    pub start: i64,
    /// INCREMENT.
    pub increment: i64,
    /// MAXVALUE.
    pub max: i64,
    /// MINVALUE.
    pub min: i64,
    /// CACHE.
    pub cache: i64,
    /// CYCLE.
    pub cycle: bool,
}
