//! CREATE INDEX, REINDEX, and the indexes behind constraints.

use std::sync::Arc;

use afterimage_wal::{RelId, Xid};
use pg_query::NodeEnum;
use pg_query::protobuf::{IndexElem, IndexStmt, SortByDir, SortByNulls};

use super::table::{self, choose_name};
use super::{expression, nodes};
use crate::access::btree::{self, BuildOptions, Built, Direction, Inserted, KeyRange, ScanOptions, SortedEntries, Sorter, UniqueProbe};
use crate::access::heap::{self, BuildRow, BuildScanned, Versions};
use crate::access::{AccessError, RelHandle, Tid};
use crate::config::Setting;
use crate::executor::SessionContext;
use crate::executor::eval::{Exec, ExecState};
use crate::executor::front_end::TableExpr;
use crate::executor::modify::index_error;
use crate::executor::vacuum::next_transaction;
use crate::sql::catalog::index_key::EntryBytes;
use crate::sql::catalog::load::{CatalogReader, CatalogRow, by};
use crate::sql::catalog::names::truncate;
use crate::sql::catalog::relation::{Column, DEFAULT_TABLESPACE, Index, IndexColumn, RelKind, Relation};
use crate::sql::catalog::rows::{self, ClassRow, DependKind, ObjectAddress};
use crate::sql::catalog::schema::{pg_attribute, pg_class, pg_index};
use crate::sql::functions::registry::{BTREE_AM, all_opclasses, default_opclass};
use crate::sql::functions::resolve::is_binary_coercible;
use crate::sql::types::{Datum, Oid, format_type, key, oids, row, text_out};
use crate::sqlstate::{SqlError, SqlState};
use crate::storage::vm;
use crate::txn::{CommitLevel, LockMode, LockTag, WaitPolicy, blocking};

/// An index to be made.
#[derive(Clone)]
pub(crate) struct NewIndex {
    pub(crate) name: String,
    pub(crate) unique: bool,
    pub(crate) primary: bool,
    pub(crate) nulls_not_distinct: bool,
    pub(crate) immediate: bool,
    /// A constraint will own it.
    pub(crate) constraint: bool,
    pub(crate) columns: Vec<NewIndexColumn>,
    /// INCLUDE columns.
    pub(crate) including: Vec<i16>,
    pub(crate) predicate: Option<NewExpression>,
    pub(crate) options: Vec<String>,
    /// 0 for the database's.
    pub(crate) tablespace: Oid,
    /// Filled later, while others write.
    pub(crate) concurrent: bool,
}

/// An expression in an index.
#[derive(Clone)]
pub(crate) struct NewExpression {
    pub(crate) text: String,
    pub(crate) expr: TableExpr,
}

/// A key column of an index to be made.
#[derive(Clone)]
pub(crate) struct NewIndexColumn {
    /// 0 for an expression.
    pub(crate) attnum: i16,
    pub(crate) expression: Option<NewExpression>,
    /// Its name as the index's attribute.
    pub(crate) name: Option<String>,
    pub(crate) desc: bool,
    pub(crate) nulls_first: bool,
    pub(crate) opclass: Option<Oid>,
    pub(crate) collation: Option<Oid>,
}

impl NewIndexColumn {
    /// A column of the table, ascending.
    pub(crate) fn plain(attnum: i16) -> Self {
        Self { attnum, expression: None, name: None, desc: false, nulls_first: false, opclass: None, collation: None }
    }
}

/// CREATE INDEX.
pub(crate) fn create(ctx: &mut SessionContext, stmt: &IndexStmt, source: &str) -> Result<(), SqlError> {
    let range = nodes::relation(stmt.relation.as_ref())?;
    if stmt.concurrent {
        ctx.prevent_in_block("CREATE INDEX CONCURRENTLY")?;
    }
    let mode = if stmt.concurrent { LockMode::ShareUpdateExclusive } else { LockMode::Share };
    let relation = ctx.open_locked(range, source, mode)?;
    if !matches!(relation.kind, RelKind::Table | RelKind::MatView) {
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("cannot create index on relation \"{}\"", relation.name))
            .detail(format!("This operation is not supported for {}.", relation.kind.plural())));
    }
    ctx.check_owner(&relation)?;
    check_method(&stmt.access_method)?;
    let mut columns = Vec::new();
    for param in &stmt.index_params {
        let Some(NodeEnum::IndexElem(element)) = &param.node else { continue };
        columns.push(column(ctx, &relation, element)?);
    }
    let mut including = Vec::new();
    for param in &stmt.index_including_params {
        let Some(NodeEnum::IndexElem(element)) = &param.node else { continue };
        if element.expr.is_some() {
            return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "expressions are not supported in included columns"));
        }
        let refused = [
            (!element.collation.is_empty(), "a collation"),
            (!element.opclass.is_empty(), "an operator class"),
            (!matches!(element.ordering(), SortByDir::SortbyDefault | SortByDir::Undefined), "ASC/DESC options"),
            (!matches!(element.nulls_ordering(), SortByNulls::SortbyNullsDefault | SortByNulls::Undefined), "NULLS FIRST/LAST options"),
        ];
        if let Some((_, what)) = refused.iter().find(|(given, _)| *given) {
            let message = format!("including column does not support {what}");
            return Err(SqlError::new(SqlState::INVALID_OBJECT_DEFINITION, message));
        }
        including.push(attnum_of(&relation, &element.name)?);
    }
    let predicate = match &stmt.where_clause {
        None => None,
        Some(node) => {
            let stored = expression::store(ctx, node, Some(&relation), Some((oids::BOOL, -1)), "index predicates")?;
            if !stored.expr.immutable {
                return Err(SqlError::new(SqlState::INVALID_OBJECT_DEFINITION, "functions in index predicate must be marked IMMUTABLE"));
            }
            // PostgreSQL computes what has no columns when it plans the predicate, be there rows or not.
            if stored.expr.columns.is_empty() {
                stored.expr.code.eval(&mut Exec { session: ctx, state: &mut ExecState::bare() }, &[])?;
            }
            Some(NewExpression { text: stored.text, expr: stored.expr })
        }
    };
    let name = if stmt.idxname.is_empty() {
        let names = columns
            .iter()
            .map(|c| match (&c.name, relation.attribute(c.attnum)) {
                (Some(name), _) => name.as_str(),
                (None, Some(column)) => &column.name,
                (None, None) => "expr",
            })
            .chain(including.iter().filter_map(|&n| relation.attribute(n)).map(|c| &*c.name));
        let mut addition: Vec<String> = Vec::new();
        for name in names {
            addition.push(unique_name(name, |n| addition.iter().any(|a| a == n)));
        }
        let addition = addition.join("_");
        choose_name(ctx, relation.namespace, &relation.name, Some(&addition), "idx", &[])?
    } else {
        truncate(&stmt.idxname).to_owned()
    };
    if !table::check_name_free(ctx, relation.namespace, &name, stmt.if_not_exists)? {
        return Ok(());
    }
    let new = NewIndex {
        name,
        unique: stmt.unique,
        primary: false,
        nulls_not_distinct: stmt.nulls_not_distinct,
        immediate: true,
        constraint: false,
        columns,
        including,
        predicate,
        options: super::options::checked(&stmt.options, super::options::Of::Index)?,
        tablespace: super::tablespace::choose(ctx, &stmt.table_space, relation.persistence)?,
        concurrent: stmt.concurrent,
    };
    if stmt.concurrent {
        return create_concurrently(ctx, &relation, &new);
    }
    define(ctx, relation.oid, &new)?;
    Ok(())
}

fn check_method(method: &str) -> Result<(), SqlError> {
    match method {
        "" | "btree" => Ok(()),
        "hash" | "gist" | "gin" | "spgist" | "brin" => Err(SqlError::unsupported(format_args!("index access method \"{method}\""))),
        other => Err(SqlError::new(SqlState::UNDEFINED_OBJECT, format!("access method \"{other}\" does not exist"))),
    }
}

fn attnum_of(relation: &Relation, name: &str) -> Result<i16, SqlError> {
    if matches!(name, "ctid" | "xmin" | "cmin" | "xmax" | "cmax" | "tableoid") {
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "index creation on system columns is not supported"));
    }
    relation
        .column(name)
        .map(|c| c.attnum)
        .ok_or_else(|| SqlError::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist")))
}

fn column(ctx: &mut SessionContext, relation: &Arc<Relation>, element: &IndexElem) -> Result<NewIndexColumn, SqlError> {
    let mut new = NewIndexColumn::plain(0);
    let type_oid;
    if let Some(node) = &element.expr {
        let stored = expression::store(ctx, node, Some(relation), None, "index expressions")?;
        if !stored.expr.immutable {
            return Err(SqlError::new(SqlState::INVALID_OBJECT_DEFINITION, "functions in index expression must be marked IMMUTABLE"));
        }
        type_oid = stored.expr.type_oid;
        new.name = Some(expression_name(node).to_owned());
        new.expression = Some(NewExpression { text: stored.text, expr: stored.expr });
    } else {
        new.attnum = attnum_of(relation, &element.name)?;
        type_oid = relation.attribute(new.attnum).map_or(0, |c| c.type_oid);
    }
    new.desc = element.ordering() == SortByDir::SortbyDesc;
    new.nulls_first = match element.nulls_ordering() {
        SortByNulls::SortbyNullsFirst => true,
        SortByNulls::SortbyNullsLast => false,
        SortByNulls::SortbyNullsDefault | SortByNulls::Undefined => new.desc,
    };
    if !element.collation.is_empty() {
        new.collation = Some(table::collation(&nodes::strings(&element.collation), type_oid)?);
    }
    if !element.opclass.is_empty() {
        let (_, name) = nodes::qualified(&element.opclass)?;
        let found = all_opclasses().iter().find(|c| c.method == BTREE_AM && c.name == name).ok_or_else(|| {
            let message = format!("operator class \"{name}\" does not exist for access method \"btree\"");
            SqlError::new(SqlState::UNDEFINED_OBJECT, message)
        })?;
        let type_oid = new.expression.as_ref().map_or(type_oid, |e| e.expr.type_oid);
        if !is_binary_coercible(type_oid, found.input) {
            let message = format!("operator class \"{name}\" does not accept data type {}", format_type(type_oid, -1));
            return Err(SqlError::new(SqlState::DATATYPE_MISMATCH, message));
        }
        new.opclass = Some(found.oid);
    }
    Ok(new)
}

/// The attribute name of an expression. PostgreSQL: `FigureIndexColname`.
fn expression_name(node: &pg_query::protobuf::Node) -> &str {
    match &node.node {
        Some(NodeEnum::FuncCall(call)) => nodes::strings(&call.funcname).last().copied().unwrap_or("expr"),
        Some(NodeEnum::TypeCast(cast)) => match cast.arg.as_deref().map(expression_name) {
            Some("expr") | None => cast.type_name.as_ref().and_then(|t| nodes::strings(&t.names).last().copied()).unwrap_or("expr"),
            Some(name) => name,
        },
        Some(NodeEnum::ColumnRef(column)) => nodes::strings(&column.fields).last().copied().unwrap_or("expr"),
        Some(NodeEnum::CoalesceExpr(_)) => "coalesce",
        _ => "expr",
    }
}

/// Makes an index on a table and fills it. Returns its OID.
pub(crate) fn define(ctx: &mut SessionContext, table: Oid, new: &NewIndex) -> Result<Oid, SqlError> {
    let relation = ctx.reopen(table)?;
    let oid = ctx.new_relation_oid()?;
    let file = ctx.new_file(new.tablespace, relation.persistence)?;
    let mut columns = Vec::new();
    let mut attributes = Vec::new();
    for c in &new.columns {
        let (type_oid, typmod, collation, name) = match &c.expression {
            Some(e) => {
                let collation = crate::sql::catalog::compiled::type_collation(e.expr.type_oid);
                (e.expr.type_oid, e.expr.typmod, collation, Arc::from(c.name.as_deref().unwrap_or("expr")))
            }
            None => {
                let column = relation.attribute(c.attnum).ok_or_else(|| SqlError::internal("no such column"))?;
                (column.type_oid, column.typmod, column.collation, column.name.clone())
            }
        };
        if type_oid >= oids::FIRST_NORMAL {
            return Err(SqlError::unsupported("an index on values of a row type"));
        }
        let opclass = c.opclass.or_else(|| default_opclass(BTREE_AM, type_oid).map(|o| o.oid));
        let opclass = opclass.filter(|_| key::is_supported(type_oid)).ok_or_else(|| {
            let shown = format_type(type_oid, -1);
            SqlError::new(
                SqlState::UNDEFINED_OBJECT,
                format!("data type {shown} has no default operator class for access method \"btree\""),
            )
            .hint("You must specify an operator class for the index or define a default operator class for the data type.")
        })?;
        let collation = c.collation.unwrap_or(collation);
        columns.push(IndexColumn {
            attnum: c.attnum,
            expression: c.expression.as_ref().map(|e| Arc::from(e.text.as_str())),
            type_oid,
            typmod,
            desc: c.desc,
            nulls_first: c.nulls_first,
            collation,
            opclass,
            storage: b'p',
        });
        let storage = relation.attribute(c.attnum).map(|c| c.storage);
        attributes.push(attribute(&unique_attribute(&name, &attributes), type_oid, typmod, collation, storage, attributes.len())?);
    }
    for &attnum in &new.including {
        let column = relation.attribute(attnum).ok_or_else(|| SqlError::internal("no such column"))?;
        columns.push(IndexColumn {
            attnum,
            expression: None,
            type_oid: column.type_oid,
            typmod: column.typmod,
            desc: false,
            nulls_first: false,
            collation: column.collation,
            opclass: 0,
            storage: column.storage,
        });
        let name = unique_attribute(&column.name, &attributes);
        attributes.push(attribute(&name, column.type_oid, column.typmod, column.collation, Some(column.storage), attributes.len())?);
    }
    let index = Index {
        oid,
        name: Arc::from(new.name.as_str()),
        table,
        file,
        unique: new.unique,
        primary: new.primary,
        nulls_not_distinct: new.nulls_not_distinct,
        immediate: new.immediate,
        valid: !new.concurrent,
        ready: !new.concurrent,
        live: true,
        since: None,
        n_key: new.columns.len(),
        columns,
        predicate: new.predicate.as_ref().map(|p| Arc::from(p.text.as_str())),
        constraint: 0,
        method: Arc::from("btree"),
        rel_pages: 0,
        rel_tuples: 0.0,
        options: Vec::new(),
    };
    let class = ClassRow {
        frozen: Xid::INVALID,
        oid,
        name: &new.name,
        namespace: relation.namespace,
        owner: relation.owner,
        access_method: BTREE_AM,
        file: file.rel,
        tablespace: new.tablespace,
        kind: RelKind::Index,
        persistence: relation.persistence,
        shared: false,
        columns: attributes.len(),
        checks: 0,
        has_index: false,
        has_rules: false,
        options: &new.options,
    };
    let attributes: Vec<_> = attributes.iter().map(|c| rows::attribute(oid, c)).collect();
    let mut writer = ctx.writer()?;
    writer.insert(&pg_class::DEF, &class.values())?;
    writer.insert_all(&pg_attribute::DEF, &attributes)?;
    writer.insert(&pg_index::DEF, &rows::index(&index))?;
    let address = ObjectAddress::relation(oid);
    let mut used: Vec<i16> = index.columns.iter().map(|c| c.attnum).filter(|&n| n != 0).collect();
    let expressions = new.columns.iter().filter_map(|c| c.expression.as_ref()).chain(&new.predicate);
    used.extend(expressions.flat_map(|e| e.expr.columns.iter().copied()));
    used.sort_unstable();
    used.dedup();
    // A constraint's index goes with the constraint, which depends on the columns itself.
    if !new.constraint {
        for attnum in &used {
            ctx.depend(address, ObjectAddress::column(table, *attnum), DependKind::Auto)?;
        }
        if used.is_empty() {
            ctx.depend(address, ObjectAddress::relation(table), DependKind::Auto)?;
        }
    }
    let mut expressions: Vec<TableExpr> = Vec::new();
    expressions.extend(new.columns.iter().filter_map(|c| c.expression.as_ref()).map(|e| e.expr.clone()));
    let predicate = new.predicate.as_ref().map(|p| p.expr.clone());
    let rows = if new.concurrent {
        btree::create(&ctx.access(), &relation.index_handle(&index))?;
        None
    } else {
        let filled = fill(ctx, &relation, &index, &expressions, predicate.as_ref(), Versions::All)?;
        set_counts(ctx, oid, file, filled.entries)?;
        if filled.passed_over {
            set_flags(ctx, table, oid, &[(pg_index::indcheckxmin, true)])?;
        }
        Some(filled.rows)
    };
    note_table(ctx, &relation, rows)?;
    ctx.relation_changed(table)?;
    ctx.relation_names_changed()?;
    Ok(oid)
}

/// A column of an index. `storage`: its table's column's.
fn attribute(name: &str, type_oid: Oid, typmod: i32, collation: Oid, storage: Option<u8>, before: usize) -> Result<Column, SqlError> {
    let attnum = i16::try_from(before + 1).map_err(|_| SqlError::new(SqlState::TOO_MANY_COLUMNS, "too many index columns"))?;
    if attnum > 32 {
        return Err(SqlError::new(SqlState::TOO_MANY_COLUMNS, "cannot use more than 32 columns in an index"));
    }
    let plain = table::plain_column(name, type_oid, typmod)?;
    Ok(Column { attnum, collation, storage: storage.unwrap_or(plain.storage), ..plain })
}

fn unique_attribute(name: &str, attributes: &[Column]) -> String {
    unique_name(name, |n| attributes.iter().any(|c| &*c.name == n))
}

/// A name not yet used: `expr`, `expr1`, ...
fn unique_name(name: &str, used: impl Fn(&str) -> bool) -> String {
    let mut out = name.to_owned();
    let mut n = 0;
    while used(&out) {
        n += 1;
        out = format!("{name}{n}");
    }
    out
}

/// Notes that a table has an index and, of one that was filled, how large the table was found. In place: GRANT goes on meanwhile, nobody relies on
/// the one, and the other is true whatever becomes of the transaction. PostgreSQL: `index_update_stats`.
fn note_table(ctx: &mut SessionContext, table: &Relation, rows: Option<u64>) -> Result<(), SqlError> {
    let mut changes = vec![(pg_class::relhasindex, Datum::Bool(true))];
    // An index made along with its table says nothing about what the table will be.
    let told = rows.filter(|rows| *rows > 0 || table.rel_tuples >= 0.0);
    if let (Some(rows), Some(file)) = (told, table.file()) {
        let pages = ctx.engine.pool().n_blocks(file, afterimage_wal::Fork::Main)?.get();
        let (visible, _) = vm::count(ctx.engine.pool(), file)?;
        let int4 = |n: u32| Datum::Int4(i32::try_from(n).unwrap_or(i32::MAX));
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let tuples = rows as f32;
        changes.push((pg_class::relpages, int4(pages)));
        changes.push((pg_class::reltuples, Datum::Float4(tuples)));
        changes.push((pg_class::relallvisible, int4(visible)));
    }
    ctx.set_in_place(&pg_class::DEF, by::CLASS_OID, &[Datum::Oid(table.oid)], &changes)
}

fn set_counts(ctx: &mut SessionContext, index: Oid, file: RelId, entries: u64) -> Result<(), SqlError> {
    let pages = ctx.engine.pool().n_blocks(file, afterimage_wal::Fork::Main)?;
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let tuples = entries as f32;
    let pages = i32::try_from(pages.get()).unwrap_or(i32::MAX);
    table::update_class(ctx, index, &[(pg_class::relpages, Datum::Int4(pages)), (pg_class::reltuples, Datum::Float4(tuples))])
}

/// CREATE INDEX CONCURRENTLY: writers go on meanwhile. A failure leaves the index there, not valid, as in PostgreSQL; from step 3 on its keys are
/// checked for uniqueness all the same.
///
/// 1. The empty index is committed as one that nobody maintains or reads, but that heap-only versions must respect.
/// 2. Once those who may not know of it have let go of the table, it is built of what is committed, in a file of its own that goes if that fails,
///    and committed as one that writers maintain.
/// 3. Once that is known to all too, what came in between is entered, row by row in the order of the keys.
/// 4. Once no snapshot is older than that, the index is valid: older ones may see members of HOT chains whose keys it does not have.
fn create_concurrently(ctx: &mut SessionContext, relation: &Relation, new: &NewIndex) -> Result<(), SqlError> {
    let table = relation.oid;
    beside_writers(ctx, &[relation.lock_tag(ctx.database)], |ctx, tag| {
        let oid = fill_beside_writers(ctx, table, tag, new)?;
        set_flags(ctx, table, oid, &[(pg_index::indisvalid, true)])
    })
}

/// Runs `f` with the table, the first of these, locked across the transactions that `f` consists of: vacuum must not free places that entries
/// are about to be made for, and nobody else may change the indexes.
fn beside_writers(
    ctx: &mut SessionContext,
    tags: &[LockTag],
    f: impl FnOnce(&mut SessionContext, LockTag) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    let Some(&table) = tags.first() else { return Ok(()) };
    for &tag in tags {
        let t = ctx.transaction()?;
        blocking(|| t.lock_for_session(tag, LockMode::ShareUpdateExclusive, WaitPolicy::Block))?;
    }
    let result = f(ctx, table);
    if let Some(t) = &ctx.transaction {
        for &tag in tags {
            t.unlock_for_session(tag, LockMode::ShareUpdateExclusive);
        }
    }
    result
}

/// Changes flags of an index.
pub(super) fn set_flags(ctx: &mut SessionContext, table: Oid, index: Oid, flags: &[(usize, bool)]) -> Result<(), SqlError> {
    let row = ctx.catalog_reader()?.row(&pg_index::DEF, by::INDEX_OID, &[Datum::Oid(index)])?;
    let row = row.ok_or_else(|| SqlError::internal("index has no pg_index row"))?;
    let changes: Vec<_> = flags.iter().map(|&(column, on)| (column, Datum::Bool(on))).collect();
    ctx.writer()?.set(&pg_index::DEF, &row, &changes)?;
    ctx.relation_changed(table)
}

/// Commits, and waits until everybody who may not know of it has let go of the table.
fn commit_and_wait(ctx: &mut SessionContext, tag: LockTag, mode: LockMode) -> Result<(), SqlError> {
    next_transaction(ctx)?;
    let (proc, locks) = (ctx.proc.clone(), ctx.engine.locks().clone());
    Ok(locks.wait_for_lockers(&proc, tag, mode)?)
}

/// Steps 1 to 4 of [`create_concurrently`], but for making the index valid. Returns its OID.
fn fill_beside_writers(ctx: &mut SessionContext, table: Oid, tag: LockTag, new: &NewIndex) -> Result<Oid, SqlError> {
    let oid = define(ctx, table, new)?;
    commit_and_wait(ctx, tag, LockMode::Share)?;
    let (relation, index) = reopen_index(ctx, table, oid)?;
    build_beside_writers(ctx, &relation, &index)?;
    commit_and_wait(ctx, tag, LockMode::Share)?;
    let (relation, index) = reopen_index(ctx, table, oid)?;
    enter_missing(ctx, &relation, &index)?;
    next_transaction(ctx)?;
    let (proc, txns) = (ctx.proc.clone(), ctx.engine.ctx().txns.clone());
    txns.wait_for_older_snapshots(&proc, ctx.database, txns.readable_for(&proc, CommitLevel::Off))?;
    Ok(oid)
}

fn reopen_index(ctx: &mut SessionContext, table: Oid, oid: Oid) -> Result<(Arc<Relation>, Arc<Index>), SqlError> {
    let relation = ctx.reopen(table)?;
    let index = relation.indexes.iter().find(|i| i.oid == oid).cloned().ok_or_else(|| SqlError::internal("new index vanished"))?;
    Ok((relation, index))
}

/// Builds an index that nobody maintains yet of what is committed. From the commit on writers maintain it.
fn build_beside_writers(ctx: &mut SessionContext, relation: &Relation, index: &Index) -> Result<(), SqlError> {
    let (expressions, predicate) = bind_expressions(ctx, relation, index)?;
    let snapshot = ctx.transaction()?.committed_snapshot()?;
    let file = ctx.new_file(index.file.spc, relation.persistence)?;
    let new = Index { file, ..index.clone() };
    let filled = fill(ctx, relation, &new, &expressions, predicate.as_ref(), Versions::SeenBy(&snapshot))?;
    ctx.transaction()?.drop_on_commit(index.file);
    table::update_class(ctx, index.oid, &[(pg_class::relfilenode, Datum::Oid(file.rel))])?;
    set_counts(ctx, index.oid, file, filled.entries)?;
    note_table(ctx, relation, Some(filled.rows))?;
    set_flags(ctx, relation.oid, index.oid, &[(pg_index::indisready, true)])
}

/// DROP INDEX CONCURRENTLY, up to the drop itself, which `drop` does: by then nobody uses the index. A failure leaves it not valid.
pub(crate) fn drop_concurrently(
    ctx: &mut SessionContext,
    table: &Relation,
    index: Oid,
    drop: impl FnOnce(&mut SessionContext) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    let tags = [table.lock_tag(ctx.database), LockTag::Relation { db: ctx.database, rel: index }];
    let table = table.oid;
    beside_writers(ctx, &tags, |ctx, tag| {
        let flags = [pg_index::indisvalid, pg_index::indisclustered, pg_index::indisreplident].map(|flag| (flag, false));
        set_flags(ctx, table, index, &flags)?;
        retire(ctx, table, tag, index)?;
        drop(ctx)
    })
}

/// Once nobody reads an index that is not valid any more, writers stop to maintain it; returns once none of them does.
fn retire(ctx: &mut SessionContext, table: Oid, tag: LockTag, index: Oid) -> Result<(), SqlError> {
    commit_and_wait(ctx, tag, LockMode::AccessExclusive)?;
    set_flags(ctx, table, index, &[(pg_index::indisready, false), (pg_index::indislive, false)])?;
    commit_and_wait(ctx, tag, LockMode::AccessExclusive)
}

/// REINDEX CONCURRENTLY of one index: a twin is made beside it, the two change files, and the twin goes with the old one. The index keeps its
/// OID, its name and what depends on it. A failure leaves the twin, not valid: `<name>_ccnew`, or `<name>_ccold` once it has the old file.
pub(crate) fn rebuild_concurrently(ctx: &mut SessionContext, table: Oid, index: Oid) -> Result<(), SqlError> {
    let relation = ctx.reopen(table)?;
    let tags = [relation.lock_tag(ctx.database), LockTag::Relation { db: ctx.database, rel: index }];
    beside_writers(ctx, &tags, |ctx, tag| {
        let relation = ctx.reopen(table)?;
        let Some(old) = relation.indexes.iter().find(|i| i.oid == index).cloned() else { return Ok(()) };
        let new = twin_of(ctx, &relation, &old)?;
        let twin = fill_beside_writers(ctx, table, tag, &new)?;
        // Writers maintain both from here to the end, whichever of the files they take for whose.
        let (a, b) = (class_row(ctx, index)?, class_row(ctx, twin)?);
        let old_name = choose_name(ctx, relation.namespace, &old.name, None, "ccold", &[])?;
        for (row, from, name) in [(&a, &b, &*old.name), (&b, &a, &*old_name)] {
            let changes = [
                (pg_class::relname, Datum::text(name)),
                (pg_class::relfilenode, Datum::Oid(from.oid(pg_class::relfilenode)?)),
                (pg_class::relpages, Datum::Int4(from.int4(pg_class::relpages)?)),
                (pg_class::reltuples, Datum::Float4(from.float4(pg_class::reltuples)?)),
            ];
            ctx.writer()?.set(&pg_class::DEF, row, &changes)?;
        }
        ctx.relation_names_changed()?;
        set_flags(ctx, table, index, &[(pg_index::indisvalid, true), (pg_index::indisready, true), (pg_index::indislive, true)])?;
        retire(ctx, table, tag, twin)?;
        super::drop::delete(ctx, &[ObjectAddress::relation(twin)], false)?;
        next_transaction(ctx)
    })
}

fn class_row(ctx: &mut SessionContext, oid: Oid) -> Result<CatalogRow, SqlError> {
    let row = ctx.catalog_reader()?.row(&pg_class::DEF, by::CLASS_OID, &[Datum::Oid(oid)])?;
    row.ok_or_else(|| SqlError::internal("index has no pg_class row"))
}

/// An index like this one, `<name>_ccnew`, that no constraint owns.
fn twin_of(ctx: &mut SessionContext, relation: &Relation, index: &Index) -> Result<NewIndex, SqlError> {
    let (expressions, predicate) = bind_expressions(ctx, relation, index)?;
    let mut expressions = expressions.into_iter();
    let columns = index.keys().iter().map(|c| NewIndexColumn {
        attnum: c.attnum,
        expression: c.expression.as_ref().and_then(|text| Some(NewExpression { text: text.to_string(), expr: expressions.next()? })),
        name: None,
        desc: c.desc,
        nulls_first: c.nulls_first,
        opclass: Some(c.opclass),
        collation: Some(c.collation),
    });
    Ok(NewIndex {
        columns: columns.collect(),
        name: choose_name(ctx, relation.namespace, &index.name, None, "ccnew", &[])?,
        unique: index.unique,
        primary: false,
        nulls_not_distinct: index.nulls_not_distinct,
        immediate: index.immediate,
        constraint: false,
        including: index.columns.iter().skip(index.n_key).map(|c| c.attnum).collect(),
        predicate: index.predicate.as_ref().zip(predicate).map(|(text, expr)| NewExpression { text: text.to_string(), expr }),
        options: index.options.iter().map(ToString::to_string).collect(),
        tablespace: if index.file.spc == DEFAULT_TABLESPACE { 0 } else { index.file.spc },
        concurrent: true,
    })
}

/// Enters the rows that are not there into an index that writers maintain already.
fn enter_missing(ctx: &mut SessionContext, relation: &Relation, index: &Index) -> Result<(), SqlError> {
    let handle = relation.rel_handle().ok_or_else(|| SqlError::internal("table without file"))?;
    let index_handle = relation.index_handle(index);
    let (expressions, predicate) = bind_expressions(ctx, relation, index)?;
    let (sorter, _) = sort_keys(ctx, relation, index, &expressions, predicate.as_ref(), Versions::All, true)?;
    let mut sorted = sorter.finish()?;
    let access = ctx.access();
    let cancel = ctx.cancel.clone();
    let xid = ctx.transaction()?.xid()?;
    while let Some(entry) = sorted.next()? {
        cancel.check()?;
        let (bytes, tid) = (EntryBytes::from(entry.item), entry.tid);
        let (key, item) = (&bytes.key, bytes.item());
        // The build, or whoever changed the row meanwhile, may have entered it.
        let mut scan = btree::Scan::new(&index_handle, KeyRange::prefix(key), Direction::Forward, ScanOptions::default());
        let mut there = false;
        while let Some((_, found)) = scan.next(&access)? {
            there |= found == tid;
        }
        if there {
            continue;
        }
        let unique = if index.unique && entry.live { unique_length(index, key) } else { None };
        if let Some(bytes) = unique {
            let t = ctx.transaction()?;
            let mut probe = heap::Probe::new(&access, handle, t);
            let probe: (&mut dyn UniqueProbe, usize) = (&mut probe, bytes);
            let inserted = btree::insert(&access, xid, &index_handle, item, tid, Some(probe)).map_err(|e| index_error(e, index))?;
            if inserted == Inserted::Yes {
                continue;
            }
            // A row that is gone by now, or replaced, conflicts with none.
            if matches!(heap::liveness(&access, t, &handle, tid)?, heap::Liveness::Live(_)) {
                return Err(duplicate(ctx, relation, index, &expressions, predicate.as_ref(), (tid, false))?);
            }
        }
        btree::insert(&access, xid, &index_handle, item, tid, None).map_err(|e| index_error(e, index))?;
    }
    Ok(())
}

/// What an index was filled with.
struct Filled {
    /// Its entries.
    entries: u64,
    /// The table's live rows.
    rows: u64,
    /// Some snapshots see versions that it does not have.
    passed_over: bool,
}

/// Fills the empty file of an index from its table. `expressions`: those of its columns, in order.
fn fill(
    ctx: &mut SessionContext,
    relation: &Relation,
    index: &Index,
    expressions: &[TableExpr],
    predicate: Option<&TableExpr>,
    which: Versions<'_>,
) -> Result<Filled, SqlError> {
    let handle = relation.rel_handle().ok_or_else(|| SqlError::internal("table without file"))?;
    let index_handle = RelHandle { oid: index.oid, file: index.file, persistence: handle.persistence, reserve: 0 };
    let access = ctx.access();
    let (sorter, scanned) = sort_keys(ctx, relation, index, expressions, predicate, which, false)?;
    let mut sorted = sorter.finish()?;
    // A key with a NULL conflicts with none.
    let unique = |key: &[u8]| unique_length(index, key);
    let fill = index.options.iter().find_map(|o| o.strip_prefix("fillfactor=")).and_then(|v| v.parse().ok());
    let options = BuildOptions { fill, unique: index.unique.then_some(&unique) };
    let cancel = ctx.cancel.clone();
    let mut check = || Ok::<(), AccessError>(cancel.check()?);
    match btree::build(&access, &index_handle, &mut sorted, &options, &mut check).map_err(|e| index_error(e, index))? {
        Built::Entries(entries) => Ok(Filled { entries, rows: scanned.live, passed_over: scanned.passed_over }),
        Built::Duplicate { first, .. } => Err(duplicate(ctx, relation, index, expressions, predicate, (first, true))?),
    }
}

/// `23505` for the row at `tid`, which has the key of another; `building`: not one that was found when it was entered into a built index.
fn duplicate(
    ctx: &mut SessionContext,
    relation: &Relation,
    index: &Index,
    expressions: &[TableExpr],
    predicate: Option<&TableExpr>,
    (tid, building): (Tid, bool),
) -> Result<SqlError, SqlError> {
    let handle = relation.rel_handle().ok_or_else(|| SqlError::internal("table without file"))?;
    let snapshot = ctx.transaction()?.committed_snapshot()?;
    let bytes = heap::fetch(&ctx.access(), &handle, tid, &snapshot, |_, bytes| bytes.to_vec())?;
    let (what, how) = if building {
        ("could not create unique index", "is duplicated")
    } else {
        ("duplicate key value violates unique constraint", "already exists")
    };
    let e = SqlError::new(SqlState::UNIQUE_VIOLATION, format!("{what} \"{}\"", index.name));
    let e = e.constraint(&relation.namespace_name, &relation.name, &index.name);
    let Some(bytes) = bytes else { return Ok(e) };
    let mut keys = KeyMaker::new(relation, index, expressions, predicate);
    keys.make(ctx, &bytes, &mut EntryBytes::default())?;
    Ok(e.detail(format!("Key {} {how}.", key_text(ctx, relation, index, &keys.key_values)?)))
}

/// The keys of the rows of a table, and what was met on the way. `others_enter`: without the rows that others enter themselves.
fn sort_keys(
    ctx: &mut SessionContext,
    relation: &Relation,
    index: &Index,
    expressions: &[TableExpr],
    predicate: Option<&TableExpr>,
    which: Versions<'_>,
    others_enter: bool,
) -> Result<(Sorter, BuildScanned), SqlError> {
    let handle = relation.rel_handle().ok_or_else(|| SqlError::internal("table without file"))?;
    let access = ctx.access();
    let memory = ctx.settings.bytes(Setting::MaintenanceWorkMem).unwrap_or(64 << 20);
    let mut sorter = Sorter::new(crate::executor::temp_file::scratch(ctx), usize::try_from(memory).unwrap_or(usize::MAX));
    // Functions in expressions run in the transaction, which may get savepoints and an xid by it.
    let own = ctx.transaction()?.own().cloned();
    let mut keys = KeyMaker::new(relation, index, expressions, predicate);
    let mut entry = EntryBytes::default();
    let mut count = 0_u32;
    let scanned = heap::build_scan(&access, own.as_deref(), &handle, which, |found: BuildRow<'_>| -> Result<(), SqlError> {
        if !(others_enter && found.entered_by_maker) && keys.make(ctx, found.row, &mut entry)?.is_some() {
            sorter.push(entry.item(), found.root, found.live).map_err(|e| index_error(e, index))?;
        }
        count = count.wrapping_add(1);
        if count.is_multiple_of(1024) { ctx.check_cancel() } else { Ok(()) }
    })?;
    Ok((sorter, scanned))
}

/// Length of the part of a key that must be unique: all of it, unless a column is NULL.
fn unique_length(index: &Index, key: &[u8]) -> Option<usize> {
    if index.nulls_not_distinct {
        return Some(key.len());
    }
    let mut rest = key;
    for column in index.keys() {
        let order = column.order();
        let mut null = Vec::new();
        key::encode(&Datum::Null, order, &mut null).ok()?;
        if rest.starts_with(&null) {
            return None;
        }
        key::skip(column.type_oid, order, &mut rest).ok()?;
    }
    Some(key.len())
}

/// Makes index keys from stored rows.
pub(crate) struct KeyMaker<'a> {
    relation: &'a Relation,
    index: &'a Index,
    expressions: &'a [TableExpr],
    predicate: Option<&'a TableExpr>,
    /// Columns that are needed, up to the last of them.
    wanted: Vec<bool>,
    values: Vec<Datum>,
    key_values: Vec<Datum>,
}

impl<'a> KeyMaker<'a> {
    /// Keys of `index`, with its expressions and predicate bound.
    pub(crate) fn new(relation: &'a Relation, index: &'a Index, expressions: &'a [TableExpr], predicate: Option<&'a TableExpr>) -> Self {
        // Of expressions it is not known here which columns they take.
        let all = !expressions.is_empty() || predicate.is_some();
        let mut wanted = vec![all; relation.columns.len()];
        for i in index.columns.iter().filter_map(|c| usize::try_from(c.attnum).ok()?.checked_sub(1)) {
            if let Some(w) = wanted.get_mut(i) {
                *w = true;
            }
        }
        wanted.truncate(wanted.iter().rposition(|w| *w).map_or(0, |last| last + 1));
        Self { relation, index, expressions, predicate, wanted, values: Vec::new(), key_values: Vec::new() }
    }

    /// Makes the entry of a row; `None` if the predicate leaves the row out.
    pub(crate) fn make(&mut self, ctx: &mut SessionContext, bytes: &[u8], out: &mut EntryBytes) -> Result<Option<bool>, SqlError> {
        // What is not wanted stays NULL.
        self.values.resize(self.wanted.len(), Datum::Null);
        row::decode_some(&self.relation.desc, bytes, &self.wanted, &mut self.values)?;
        if let Some(predicate) = self.predicate {
            let mut state = ExecState::bare();
            let value = predicate.code.eval(&mut Exec { session: ctx, state: &mut state }, &self.values)?;
            if !value.is_true() {
                return Ok(None);
            }
        }
        self.key_values.clear();
        let mut expressions = self.expressions.iter();
        for column in &self.index.columns {
            let value = match usize::try_from(column.attnum).ok().and_then(|n| n.checked_sub(1)) {
                Some(i) => self.values.get(i).cloned().unwrap_or_default(),
                None => match expressions.next() {
                    Some(e) => {
                        let mut state = ExecState::bare();
                        e.code.eval(&mut Exec { session: ctx, state: &mut state }, &self.values)?
                    }
                    None => Datum::Null,
                },
            };
            self.key_values.push(value);
        }
        crate::executor::large::unpack_entry(ctx.engine.ctx(), self.index, &mut self.key_values)?;
        self.index.encode_entry(&self.key_values, out).map(Some)
    }
}

/// `(a, b)=(1, 2)`, for messages about keys.
pub(crate) fn key_text(ctx: &SessionContext, relation: &Relation, index: &Index, values: &[Datum]) -> Result<String, SqlError> {
    let names = index.keys().iter().map(|c| match (&c.expression, relation.attribute(c.attnum)) {
        (Some(text), _) => text.to_string(),
        (None, Some(column)) => crate::sql::catalog::names::quote_identifier(&column.name),
        (None, None) => "?".to_owned(),
    });
    let names = names.collect::<Vec<_>>().join(", ");
    let mut shown = Vec::new();
    for (column, value) in index.keys().iter().zip(values) {
        if value.is_null() {
            shown.push("null".to_owned());
            continue;
        }
        let mut out = Vec::new();
        text_out(value, column.type_oid, &mut out, ctx.io())?;
        shown.push(String::from_utf8_lossy(&out).into_owned());
    }
    Ok(format!("({names})=({})", shown.join(", ")))
}

/// The expressions of an index, bound anew from their text.
pub(crate) fn bind_expressions(
    ctx: &mut SessionContext,
    relation: &Relation,
    index: &Index,
) -> Result<(Vec<TableExpr>, Option<TableExpr>), SqlError> {
    let front_end = ctx.front_end;
    let mut out = Vec::new();
    for column in index.keys() {
        if let Some(text) = &column.expression {
            out.push(front_end.table_expression_text(ctx, text, Some(relation), None, "index expressions")?);
        }
    }
    let target = Some((oids::BOOL, -1));
    let predicate =
        index.predicate.as_ref().map(|text| front_end.table_expression_text(ctx, text, Some(relation), target, "index predicates"));
    Ok((out, predicate.transpose()?))
}

/// Gives an index a new, freshly built file; the old one goes when the transaction commits. `checked`: whether an index that is not valid is to
/// find out whether its keys are unique.
pub(crate) fn rebuild(ctx: &mut SessionContext, relation: &Relation, index: &Index, checked: bool) -> Result<(), SqlError> {
    let (expressions, predicate) = bind_expressions(ctx, relation, index)?;
    let file = ctx.new_file(index.file.spc, relation.persistence)?;
    let new = Index { file, unique: index.unique && (checked || index.valid), ..index.clone() };
    let filled = fill(ctx, relation, &new, &expressions, predicate.as_ref(), Versions::All)?;
    ctx.transaction()?.moves_relation(index.file, file);
    ctx.transaction()?.drop_on_commit(index.file);
    table::update_class(ctx, index.oid, &[(pg_class::relfilenode, Datum::Oid(file.rel))])?;
    set_counts(ctx, index.oid, file, filled.entries)?;
    if !relation.is_system() {
        // Nobody plans by the counts of catalogs.
        note_table(ctx, relation, Some(filled.rows))?;
    }
    if filled.passed_over != index.since.is_some() && !relation.is_system() {
        set_flags(ctx, relation.oid, index.oid, &[(pg_index::indcheckxmin, filled.passed_over)])?;
    }
    made_anew(ctx, relation, index, checked)?;
    ctx.relation_changed(relation.oid)
}

/// What a failed CREATE or DROP INDEX CONCURRENTLY left is whole again, unless its keys may not be unique.
pub(crate) fn made_anew(ctx: &mut SessionContext, relation: &Relation, index: &Index, checked: bool) -> Result<(), SqlError> {
    if (index.valid && index.ready) || (index.unique && !checked) {
        return Ok(());
    }
    let flags = [(pg_index::indisvalid, true), (pg_index::indisready, true), (pg_index::indislive, true)];
    set_flags(ctx, relation.oid, index.oid, &flags)
}

/// Marks an index as the one behind a constraint.
pub(crate) fn become_constraint(ctx: &mut SessionContext, index: &Index, primary: bool, immediate: bool) -> Result<(), SqlError> {
    let row = ctx.catalog_reader()?.row(&pg_index::DEF, by::INDEX_OID, &[Datum::Oid(index.oid)])?;
    let row = row.ok_or_else(|| SqlError::internal("index has no pg_index row"))?;
    let changes = [(pg_index::indisprimary, Datum::Bool(primary)), (pg_index::indimmediate, Datum::Bool(immediate))];
    ctx.writer()?.set(&pg_index::DEF, &row, &changes)?;
    super::drop::forget_dependencies(ctx, ObjectAddress::relation(index.oid))
}

/// Follows a change of a table column's type in an index over it.
pub(crate) fn retype_column(ctx: &mut SessionContext, index: &Index, position: i16, new: &Column) -> Result<(), SqlError> {
    let at = usize::try_from(position - 1).unwrap_or(0);
    let opclass = if at < index.n_key {
        let opclass = default_opclass(BTREE_AM, new.type_oid).filter(|_| key::is_supported(new.type_oid));
        opclass.map(|o| o.oid).ok_or_else(|| {
            let shown = format_type(new.type_oid, -1);
            let message = format!("data type {shown} has no default operator class for access method \"btree\"");
            SqlError::new(SqlState::UNDEFINED_OBJECT, message)
        })?
    } else {
        0
    };
    table::update_attribute(
        ctx,
        index.oid,
        position,
        &[
            (pg_attribute::atttypid, Datum::Oid(new.type_oid)),
            (pg_attribute::atttypmod, Datum::Int4(new.typmod)),
            (pg_attribute::attlen, Datum::Int2(new.len)),
            (pg_attribute::attcollation, Datum::Oid(new.collation)),
            (pg_attribute::attstorage, Datum::Char(new.storage)),
        ],
    )?;
    let row = ctx.catalog_reader()?.row(&pg_index::DEF, by::INDEX_OID, &[Datum::Oid(index.oid)])?;
    let row = row.ok_or_else(|| SqlError::internal("index has no pg_index row"))?;
    let (mut classes, mut collations) = (row.oids(pg_index::indclass)?, row.oids(pg_index::indcollation)?);
    if let (Some(class), Some(collation)) = (classes.get_mut(at), collations.get_mut(at)) {
        (*class, *collation) = (opclass, new.collation);
    }
    ctx.writer()?.set(
        &pg_index::DEF,
        &row,
        &[
            (pg_index::indclass, crate::sql::catalog::compiled::oidvector(&classes)),
            (pg_index::indcollation, crate::sql::catalog::compiled::oidvector(&collations)),
        ],
    )?;
    ctx.relation_changed(index.table)
}
