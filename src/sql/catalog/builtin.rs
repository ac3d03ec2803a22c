//! Descriptors of system catalogs and system views: compiled in, so that reading catalogs needs no catalogs.

use std::sync::{Arc, LazyLock};

use afterimage_wal::{Oid, RelId};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;

use super::compiled::{self, FnTable};
use super::relation::{
    BOOTSTRAP_ROLE, Column, Constraint, ConstraintKind, DEFAULT_TABLESPACE, GLOBAL_TABLESPACE, Index, IndexColumn, PG_CATALOG_NAMESPACE,
    Persistence, RelKind, Relation, Source,
};
use super::schema::{CATALOGS, CatalogDef, Keep};
use super::statistics;
use super::virtual_table::{VirtualCx, VirtualTable};
use crate::sql::functions::registry::{BTREE_AM, default_opclass};
use crate::sql::types::registry::type_by_oid;
use crate::sql::types::{ColDesc, Datum, TupleDesc};
use crate::sqlstate::SqlError;

/// Schema `information_schema`.
pub(super) const INFORMATION_SCHEMA_NAMESPACE: Oid = 13_207;

/// A system view: its place, its columns, and for those written in SQL their text.
pub(super) struct ViewDef {
    pub(super) oid: Oid,
    pub(super) namespace: Oid,
    pub(super) name: &'static str,
    pub(super) columns: Vec<(&'static str, Oid, i32)>,
    pub(super) body: Option<Arc<str>>,
}

/// `data/views.tsv` (schema, name, OID, `column:type[:typmod]` ...) joined with `data/views.sql`.
static VIEWS: LazyLock<Vec<ViewDef>> = LazyLock::new(|| {
    let bodies = view_bodies(include_str!("data/views.sql"));
    include_str!("data/views.tsv").lines().filter_map(|line| parse_view(line, &bodies)).collect()
});

/// Bodies by `schema.name`: each follows a line `-- view schema.name` and ends at the next such line.
fn view_bodies(text: &'static str) -> FxHashMap<&'static str, &'static str> {
    text.split("-- view ")
        .skip(1)
        .filter_map(|part| part.split_once('\n'))
        .map(|(name, body)| (name.trim(), body.trim().trim_end_matches(';')))
        .collect()
}

fn parse_view(line: &'static str, bodies: &FxHashMap<&'static str, &'static str>) -> Option<ViewDef> {
    let mut fields = line.split('\t');
    let (schema, name, oid, columns) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let columns = columns.split(' ').filter_map(|column| {
        let mut parts = column.split(':');
        let typmod = |s: Option<&str>| s.and_then(|s| s.parse().ok()).unwrap_or(-1);
        Some((parts.next()?, parts.next()?.parse().ok()?, typmod(parts.next())))
    });
    Some(ViewDef {
        oid: oid.parse().ok()?,
        namespace: if schema == "pg_catalog" { PG_CATALOG_NAMESPACE } else { INFORMATION_SCHEMA_NAMESPACE },
        name,
        columns: columns.collect(),
        body: bodies.get(format!("{schema}.{name}").as_str()).map(|&b| Arc::from(b)),
    })
}

/// Every system view.
pub(super) fn views() -> &'static [ViewDef] {
    &VIEWS
}

/// The place of a provider, filled when the layer that owns the facts starts. Empty: no rows.
struct Slot {
    provider: RwLock<Option<Arc<dyn VirtualTable>>>,
}

impl VirtualTable for Slot {
    fn rows(&self, cx: &mut VirtualCx<'_>, emit: &mut dyn FnMut(&[Datum]) -> Result<(), SqlError>) -> Result<(), SqlError> {
        let provider = self.provider.read().clone();
        provider.map_or(Ok(()), |p| p.rows(cx, emit))
    }
}

/// Providers of virtual relations, by OID.
pub(super) struct Providers {
    slots: FxHashMap<Oid, Arc<Slot>>,
    by_name: FxHashMap<&'static str, Oid>,
}

impl Providers {
    /// One place per virtual catalog and per view without SQL text; compiled-in catalogs are there from the start.
    pub(super) fn new() -> Self {
        let mut slots = FxHashMap::default();
        let mut by_name = FxHashMap::default();
        let mut add = |oid, name, provider: Option<Arc<dyn VirtualTable>>| {
            slots.insert(oid, Arc::new(Slot { provider: RwLock::new(provider) }));
            by_name.insert(name, oid);
        };
        for def in CATALOGS.iter().filter(|d| matches!(d.keep, Keep::Virtual | Keep::Mixed)) {
            add(def.oid, def.name, compiled::provider(def.oid).map(|p| Arc::new(p) as Arc<dyn VirtualTable>));
        }
        for view in views().iter().filter(|v| v.body.is_none()) {
            let own = (view.name == "pg_stats").then(|| Arc::new(FnTable(statistics::stats)) as Arc<dyn VirtualTable>);
            add(view.oid, view.name, own);
        }
        Self { slots, by_name }
    }

    /// Sets the provider of the virtual relation `name`; `false` if there is none of that name.
    pub(super) fn register(&self, name: &str, provider: Arc<dyn VirtualTable>) -> bool {
        let Some(slot) = self.by_name.get(name).and_then(|oid| self.slots.get(oid)) else { return false };
        *slot.provider.write() = Some(provider);
        true
    }
}

/// The system relations as one database sees them.
pub(super) struct Builtin {
    by_oid: FxHashMap<Oid, Arc<Relation>>,
    by_name: FxHashMap<(Oid, &'static str), Oid>,
    index_table: FxHashMap<Oid, Oid>,
}

impl Builtin {
    pub(super) fn new(database: Oid, providers: &Providers) -> Self {
        let mut this = Self { by_oid: FxHashMap::default(), by_name: FxHashMap::default(), index_table: FxHashMap::default() };
        for def in CATALOGS {
            let mut relation = catalog_relation(def, database, providers);
            for index in &relation.indexes {
                this.index_table.insert(index.oid, def.oid);
            }
            for index in def.indexes {
                this.by_name.insert((PG_CATALOG_NAMESPACE, index.name), index.oid);
                this.by_oid.insert(index.oid, Arc::new(index_relation(&relation, index.oid)));
            }
            if def.keep == Keep::Mixed {
                // They know only the stored rows: no use to scans.
                relation.indexes.clear();
            }
            this.by_name.insert((PG_CATALOG_NAMESPACE, def.name), def.oid);
            this.by_oid.insert(def.oid, Arc::new(relation));
        }
        for view in views() {
            this.by_name.insert((view.namespace, view.name), view.oid);
            this.by_oid.insert(view.oid, Arc::new(view_relation(view, providers)));
        }
        this
    }

    pub(super) fn relation(&self, oid: Oid) -> Option<&Arc<Relation>> {
        self.by_oid.get(&oid)
    }

    pub(super) fn find(&self, namespace: Oid, name: &str) -> Option<Oid> {
        // A key of another lifetime needs no copy of `name`: both are `&str`.
        self.by_name.get(&(namespace, name) as &(Oid, &str)).copied()
    }

    pub(super) fn index_table(&self, index: Oid) -> Option<Oid> {
        self.index_table.get(&index).copied()
    }
}

/// Where a catalog, or an index of one, is kept.
pub(super) fn catalog_file(def: &CatalogDef, rel: Oid, database: Oid) -> RelId {
    match def.keep {
        Keep::Shared => RelId { spc: GLOBAL_TABLESPACE, db: 0, rel },
        Keep::Heap | Keep::Virtual | Keep::Mixed => RelId { spc: DEFAULT_TABLESPACE, db: database, rel },
    }
}

fn column(attnum: usize, name: &str, type_oid: Oid, typmod: i32, not_null: bool, collation: Oid) -> Column {
    Column {
        attnum: i16::try_from(attnum).expect("catalogs have few columns"),
        name: Arc::from(name),
        type_oid,
        typmod,
        not_null,
        dropped: false,
        default: None,
        generated: false,
        identity: None,
        missing: None,
        collation,
        len: type_by_oid(type_oid).map_or(-1, |t| t.len),
        stats_target: -1,
        storage: type_by_oid(type_oid).map_or(b'p', |t| t.storage),
        compression: 0,
    }
}

/// The tuple descriptor of columns that are all live.
pub(super) fn plain_desc(columns: &[Column]) -> Arc<TupleDesc> {
    let cols = columns.iter().map(|c| ColDesc { not_null: c.not_null, ..ColDesc::new(&c.name, c.type_oid, c.typmod) });
    Arc::new(TupleDesc::new(cols.collect()))
}

fn blank(oid: Oid, name: &str, namespace: Oid, kind: RelKind, columns: Vec<Column>, source: Source) -> Relation {
    let namespace_name = if namespace == PG_CATALOG_NAMESPACE { "pg_catalog" } else { "information_schema" };
    Relation {
        oid,
        name: Arc::from(name),
        namespace,
        namespace_name: Arc::from(namespace_name),
        owner: BOOTSTRAP_ROLE,
        kind,
        persistence: Persistence::Permanent,
        shared: false,
        source,
        desc: plain_desc(&columns),
        columns,
        indexes: Vec::new(),
        constraints: Vec::new(),
        checks: Vec::new(),
        referenced_by: Vec::new(),
        triggers: Vec::new(),
        sequence: None,
        rel_pages: 0,
        rel_tuples: -1.0,
        rel_all_visible: 0,
        acl: None,
        options: Vec::new(),
        row_type: 0,
        toast: None,
        stats: Vec::new(),
    }
}

fn catalog_relation(def: &CatalogDef, database: Oid, providers: &Providers) -> Relation {
    let columns = def.columns.iter().enumerate().map(|(i, c)| {
        // PostgreSQL: catalogs' text columns have collation C, whatever the database's is.
        let collation = if compiled::type_collation(c.type_oid) == 0 { 0 } else { compiled::C_COLLATION };
        column(i + 1, c.name, c.type_oid, -1, c.not_null, collation)
    });
    let source = match def.keep {
        Keep::Heap | Keep::Shared => Source::File(catalog_file(def, def.oid, database)),
        Keep::Virtual | Keep::Mixed => match providers.slots.get(&def.oid) {
            Some(slot) => Source::Virtual(slot.clone()),
            None => Source::None,
        },
    };
    let mut relation = blank(def.oid, def.name, PG_CATALOG_NAMESPACE, RelKind::Table, columns.collect(), source);
    relation.shared = def.keep == Keep::Shared;
    if def.keep == Keep::Heap {
        let toast = Some(super::tables::large_values(database));
        relation.desc = Arc::new(TupleDesc { packed: true, toast, ..TupleDesc::clone(&relation.desc) });
    }
    if def.keep == Keep::Virtual {
        return relation;
    }
    for index in def.indexes {
        let columns = index.columns.iter().map(|&position| {
            let c = &relation.columns[position];
            IndexColumn {
                attnum: c.attnum,
                expression: None,
                type_oid: c.type_oid,
                typmod: -1,
                desc: false,
                nulls_first: false,
                collation: c.collation,
                opclass: default_opclass(BTREE_AM, c.type_oid).map_or(0, |o| o.oid),
                storage: c.storage,
            }
        });
        relation.indexes.push(Arc::new(Index {
            oid: index.oid,
            name: Arc::from(index.name),
            table: def.oid,
            file: catalog_file(def, index.oid, database),
            unique: index.unique,
            primary: index.primary,
            nulls_not_distinct: false,
            immediate: true,
            valid: true,
            ready: true,
            live: true,
            since: None,
            columns: columns.collect(),
            n_key: index.columns.len(),
            predicate: None,
            constraint: index.oid,
            method: Arc::from("btree"),
            rel_pages: 0,
            rel_tuples: -1.0,
            options: Vec::new(),
        }));
        if index.unique {
            relation.constraints.push(Constraint {
                oid: index.oid,
                name: Arc::from(index.name),
                kind: if index.primary { ConstraintKind::Primary } else { ConstraintKind::Unique },
                columns: index.columns.iter().map(|&p| relation.columns[p].attnum).collect(),
                index: index.oid,
                deferrable: false,
                deferred: false,
                validated: true,
            });
        }
    }
    relation
}

/// An index seen as a relation.
fn index_relation(table: &Relation, oid: Oid) -> Relation {
    let Some(index) = table.indexes.iter().find(|i| i.oid == oid) else {
        return blank(oid, "", PG_CATALOG_NAMESPACE, RelKind::Index, Vec::new(), Source::None);
    };
    let columns = index.columns.iter().enumerate().map(|(i, c)| {
        let name = table.attribute(c.attnum).map_or_else(|| Arc::from("expr"), |c| c.name.clone());
        column(i + 1, &name, c.type_oid, -1, false, c.collation)
    });
    let mut relation = blank(oid, &index.name, table.namespace, RelKind::Index, columns.collect(), Source::File(index.file));
    relation.shared = table.shared;
    relation
}

fn view_relation(view: &ViewDef, providers: &Providers) -> Relation {
    let columns = view
        .columns
        .iter()
        .enumerate()
        .map(|(i, &(name, type_oid, typmod))| column(i + 1, name, type_oid, typmod, false, compiled::type_collation(type_oid)));
    let source = match (&view.body, providers.slots.get(&view.oid)) {
        (Some(body), _) => Source::View(body.clone()),
        (None, Some(slot)) => Source::Virtual(slot.clone()),
        (None, None) => Source::None,
    };
    blank(view.oid, view.name, view.namespace, RelKind::View, columns.collect(), source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_relations_are_found_by_name_and_oid() {
        let builtin = Builtin::new(5, &Providers::new());
        let class = builtin.relation(builtin.find(PG_CATALOG_NAMESPACE, "pg_class").unwrap()).unwrap();
        assert_eq!(class.oid, 1259);
        assert_eq!(class.file(), Some(RelId { spc: 1663, db: 5, rel: 1259 }));
        assert_eq!(class.indexes.len(), 3);
        assert_eq!(class.column("relname").unwrap().attnum, 2);
        let database = builtin.relation(1262).unwrap();
        assert_eq!(database.file(), Some(RelId { spc: 1664, db: 0, rel: 1262 }));
        assert!(builtin.find(INFORMATION_SCHEMA_NAMESPACE, "tables").is_some());
        assert_eq!(builtin.index_table(2662), Some(1259));
    }

    #[test]
    fn catalogs_have_unique_oids_and_names() {
        let mut oids: Vec<Oid> = CATALOGS.iter().flat_map(|d| std::iter::once(d.oid).chain(d.indexes.iter().map(|i| i.oid))).collect();
        oids.extend(views().iter().map(|v| v.oid));
        let count = oids.len();
        oids.sort_unstable();
        oids.dedup();
        assert_eq!(oids.len(), count);
        assert!(views().iter().all(|v| !v.columns.is_empty()));
    }

    #[test]
    fn every_view_body_belongs_to_a_view() {
        for name in view_bodies(include_str!("data/views.sql")).keys() {
            assert!(views().iter().any(|v| v.body.is_some() && name.ends_with(v.name)), "{name}");
        }
    }
}
