//! CREATE TABLE, and what ALTER TABLE ADD COLUMN shares with it.

use std::sync::Arc;

use afterimage_wal::Xid;
use pg_query::NodeEnum;
use pg_query::protobuf::{self, ColumnDef, ConstrType, CreateStmt, Node, RangeVar};

use super::constraint::{self, NewConstraint};
use super::sequence::{self, SequenceSpec};
use super::{expression, nodes};
use crate::executor::SessionContext;
use crate::sql::catalog::compiled::{collation_by_name, type_collation};
use crate::sql::catalog::load::{CatalogReader, by};
use crate::sql::catalog::names::truncate;
use crate::sql::catalog::relation::{Column, Identity, Persistence, RelKind, Relation};
use crate::sql::catalog::rows::{self, ClassRow, DependKind, ObjectAddress};
use crate::sql::catalog::schema::{pg_attrdef, pg_attribute, pg_class, pg_namespace};
use crate::sql::types::registry::type_by_oid;
use crate::sql::types::{Datum, Oid, format_type, oids};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::LockMode;

/// Most columns a table may have.
const MAX_COLUMNS: usize = 1600;

/// Heap access method.
pub(crate) const HEAP_AM: Oid = 2;

/// A column as a statement defines it.
pub(crate) struct NewColumn {
    pub(crate) column: Column,
    /// Its default, or generation expression.
    pub(crate) default: Option<Node>,
    /// `serial`, or GENERATED AS IDENTITY: the sequence to make.
    pub(crate) sequence: Option<SequenceSpec>,
}

/// Schema and persistence of a relation to be made.
pub(crate) fn target_namespace(ctx: &mut SessionContext, range: &RangeVar) -> Result<(Oid, Persistence), SqlError> {
    let (schema, _) = nodes::names(range);
    if range.relpersistence == "t" || schema == Some("pg_temp") {
        if schema.is_some_and(|s| s != "pg_temp") {
            return Err(SqlError::new(SqlState::INVALID_TABLE_DEFINITION, "cannot create temporary relation in non-temporary schema"));
        }
        if range.relpersistence == "u" {
            let message = "only temporary relations may be created in temporary schemas";
            return Err(SqlError::new(SqlState::INVALID_TABLE_DEFINITION, message));
        }
        return Ok((super::schema::temp_namespace(ctx)?, Persistence::Temporary));
    }
    let persistence = if range.relpersistence == "u" { Persistence::Unlogged } else { Persistence::Permanent };
    Ok((ctx.creation_namespace(schema)?, persistence))
}

/// Checks that no relation has the name yet. `false`: one has, and the statement says to skip it.
pub(crate) fn check_name_free(ctx: &mut SessionContext, namespace: Oid, name: &str, if_not_exists: bool) -> Result<bool, SqlError> {
    if ctx.catalog.relation_oid(namespace, name)?.is_none() {
        return Ok(true);
    }
    let message = format!("relation \"{name}\" already exists");
    if if_not_exists {
        ctx.notice_with(SqlState::DUPLICATE_TABLE, format!("{message}, skipping"));
        return Ok(false);
    }
    Err(SqlError::new(SqlState::DUPLICATE_TABLE, message))
}

/// A relation to be described in the catalogs.
pub(crate) struct NewRelation<'a> {
    pub(crate) name: &'a str,
    pub(crate) namespace: Oid,
    pub(crate) kind: RelKind,
    pub(crate) persistence: Persistence,
    pub(crate) columns: &'a [Column],
    pub(crate) options: &'a [String],
    /// 0 for the database's.
    pub(crate) tablespace: Oid,
}

/// Makes the file of a relation that has one, and the rows of `pg_class`, `pg_attribute` and `pg_attrdef`. Returns its OID.
pub(crate) fn insert_relation(ctx: &mut SessionContext, new: &NewRelation<'_>) -> Result<Oid, SqlError> {
    let oid = ctx.new_relation_oid()?;
    let stored = matches!(new.kind, RelKind::Table | RelKind::MatView);
    let file = if stored { ctx.new_file(new.tablespace, new.persistence)?.rel } else { 0 };
    let owner = ctx.user;
    let (options, toast_options) = nodes::split_options(new.options);
    let class = ClassRow {
        frozen: ctx.engine.txns().settled_floor(),
        oid,
        name: truncate(new.name),
        namespace: new.namespace,
        owner,
        access_method: if stored { HEAP_AM } else { 0 },
        file,
        tablespace: new.tablespace,
        kind: new.kind,
        persistence: new.persistence,
        shared: false,
        columns: new.columns.len(),
        checks: 0,
        has_index: false,
        has_rules: new.kind == RelKind::View,
        options: &options,
    };
    let attributes: Vec<_> = new.columns.iter().map(|c| rows::attribute(oid, c)).collect();
    let mut writer = ctx.writer()?;
    writer.insert(&pg_class::DEF, &class.values())?;
    writer.insert_all(&pg_attribute::DEF, &attributes)?;
    let address = ObjectAddress::relation(oid);
    ctx.depend(address, ObjectAddress::new(pg_namespace::ID, new.namespace), DependKind::Normal)?;
    ctx.depend_on_owner(address, owner, false)?;
    // A view's query depends on the table itself.
    for column in new.columns.iter().filter(|_| new.kind != RelKind::View) {
        ctx.depend_on_type(ObjectAddress::column(oid, column.attnum), column.type_oid)?;
    }
    if stored {
        super::toast::ensure(ctx, oid, owner, new.persistence, new.columns, &toast_options)?;
    }
    ctx.relation_names_changed()?;
    Ok(oid)
}

/// CREATE TABLE. `None`: it exists already and IF NOT EXISTS was given.
pub(crate) fn create(ctx: &mut SessionContext, stmt: &CreateStmt, source: &str) -> Result<Option<Oid>, SqlError> {
    let range = nodes::relation(stmt.relation.as_ref())?;
    let name = truncate(&range.relname).to_owned();
    for (given, what) in [
        (!stmt.inh_relations.is_empty() || stmt.partbound.is_some(), "table inheritance"),
        (stmt.partspec.is_some(), "table partitioning"),
        (stmt.of_typename.is_some(), "CREATE TABLE OF"),
    ] {
        if given {
            return Err(SqlError::unsupported(what));
        }
    }
    if !stmt.access_method.is_empty() && stmt.access_method != "heap" {
        let message = format!("access method \"{}\" does not exist", stmt.access_method);
        return Err(SqlError::new(SqlState::UNDEFINED_OBJECT, message));
    }
    let (namespace, persistence) = target_namespace(ctx, range).map_err(|e| nodes::located(e, source, range.location))?;
    super::temp::check(stmt.oncommit(), persistence)?;
    if !check_name_free(ctx, namespace, &name, stmt.if_not_exists)? {
        return Ok(None);
    }
    let (mut columns, mut constraints) = (Vec::new(), Vec::new());
    for element in &stmt.table_elts {
        match &element.node {
            Some(NodeEnum::ColumnDef(def)) => columns.push(column(ctx, def, &name, source, &mut constraints)?),
            Some(NodeEnum::Constraint(c)) => constraints.extend(constraint::parse(c, None, source)?),
            Some(NodeEnum::TableLikeClause(like)) => like_columns(ctx, like, &mut columns, &mut constraints)?,
            _ => return Err(SqlError::unsupported("this table element")),
        }
    }
    constraints.extend(
        stmt.constraints
            .iter()
            .filter_map(|node| match &node.node {
                Some(NodeEnum::Constraint(c)) => Some(constraint::parse(c, None, source)),
                _ => None,
            })
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten(),
    );
    finish_columns(&mut columns)?;
    constraint::mark_primary_columns(&name, &mut columns, &constraints, source)?;
    let options = super::options::checked(&stmt.options, super::options::Of::Table)?;
    let tablespace = super::tablespace::choose(ctx, &stmt.tablespacename, persistence)?;
    let oid = create_with(ctx, &name, namespace, persistence, columns, constraints, &options, tablespace, source)?;
    super::temp::register(ctx, oid, stmt.oncommit());
    Ok(Some(oid))
}

/// Refuses more columns than a relation may have.
pub(super) fn check_column_count(columns: usize) -> Result<(), SqlError> {
    if columns > MAX_COLUMNS {
        return Err(SqlError::new(SqlState::TOO_MANY_COLUMNS, format!("tables can have at most {MAX_COLUMNS} columns")));
    }
    Ok(())
}

/// Numbers columns and refuses what cannot be.
fn finish_columns(columns: &mut [NewColumn]) -> Result<(), SqlError> {
    check_column_count(columns.len())?;
    for i in 0..columns.len() {
        let name = columns[i].column.name.clone();
        check_column_name(&name)?;
        if columns[..i].iter().any(|c| c.column.name == name) {
            let message = format!("column \"{name}\" specified more than once");
            return Err(SqlError::new(SqlState::DUPLICATE_COLUMN, message));
        }
        columns[i].column.attnum = i16::try_from(i + 1).expect("at most 1600 columns");
    }
    Ok(())
}

/// `42701` for names of system columns.
pub(crate) fn check_column_name(name: &str) -> Result<(), SqlError> {
    if matches!(name, "tableoid" | "cmax" | "xmax" | "cmin" | "xmin" | "ctid") {
        let message = format!("column name \"{name}\" conflicts with a system column name");
        return Err(SqlError::new(SqlState::DUPLICATE_COLUMN, message));
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the parts of one statement")]
fn create_with(
    ctx: &mut SessionContext,
    name: &str,
    namespace: Oid,
    persistence: Persistence,
    mut columns: Vec<NewColumn>,
    constraints: Vec<NewConstraint>,
    options: &[String],
    tablespace: Oid,
    source: &str,
) -> Result<Oid, SqlError> {
    let mut sequences = Vec::new();
    let mut defaults = Vec::new();
    for new in &mut columns {
        if let Some(spec) = &new.sequence {
            let sequence = column_sequence(ctx, name, namespace, persistence, &new.column.name, spec)?;
            sequences.push((new.column.attnum, sequence, new.column.identity.is_some()));
            if new.column.identity.is_none() {
                let text = format!("nextval('{sequence}'::regclass)");
                new.column.default = Some(Arc::from(text.as_str()));
                defaults.push((new.column.attnum, text, vec![sequence]));
            }
        } else if !new.column.generated
            && let Some(node) = &new.default
        {
            let target = Some((new.column.type_oid, new.column.typmod));
            let stored = expression::store(ctx, node, None, target, "DEFAULT expressions")?;
            if !is_null_constant(node) {
                new.column.default = Some(Arc::from(stored.text.as_str()));
                defaults.push((new.column.attnum, stored.text, stored.relations));
            }
        }
    }
    let plain: Vec<Column> = columns.iter().map(|c| c.column.clone()).collect();
    let new = NewRelation { name, namespace, kind: RelKind::Table, persistence, columns: &plain, options, tablespace };
    let oid = insert_relation(ctx, &new)?;
    for (attnum, text, relations) in defaults {
        insert_default(ctx, oid, attnum, &text, &relations)?;
    }
    for (attnum, sequence, identity) in sequences {
        let kind = if identity { DependKind::Internal } else { DependKind::Auto };
        ctx.depend(ObjectAddress::relation(sequence), ObjectAddress::column(oid, attnum), kind)?;
    }
    for new in &columns {
        if new.column.generated
            && let Some(node) = &new.default
        {
            set_generated(ctx, oid, new.column.attnum, node)?;
        }
    }
    ctx.relation_changed(oid)?;
    constraint::add_all(ctx, oid, constraints, source)?;
    Ok(oid)
}

/// True for a default of plain NULL, which is no default.
pub(crate) fn is_null_constant(node: &Node) -> bool {
    matches!(&node.node, Some(NodeEnum::AConst(c)) if c.isnull)
}

/// Makes the sequence of a `serial` or identity column.
pub(crate) fn column_sequence(
    ctx: &mut SessionContext,
    table: &str,
    namespace: Oid,
    persistence: Persistence,
    column: &str,
    spec: &SequenceSpec,
) -> Result<Oid, SqlError> {
    let name = match &spec.name {
        Some((_, name)) => name.clone(),
        None => choose_name(ctx, namespace, table, Some(column), "seq", &[])?,
    };
    if !check_name_free(ctx, namespace, &name, false)? {
        return Err(SqlError::internal("sequence name taken"));
    }
    sequence::create_sequence(ctx, namespace, &name, persistence, spec)
}

/// Adds a row of `pg_attrdef`, with what it depends on. The attribute's `atthasdef` is the caller's.
pub(crate) fn insert_default(ctx: &mut SessionContext, relation: Oid, attnum: i16, text: &str, relations: &[Oid]) -> Result<(), SqlError> {
    let oid = ctx.new_oid(&pg_attrdef::DEF, by::ATTRDEF_OID)?;
    ctx.writer()?.insert(&pg_attrdef::DEF, &rows::default(oid, relation, attnum, text))?;
    let address = ObjectAddress::new(pg_attrdef::ID, oid);
    ctx.depend(address, ObjectAddress::column(relation, attnum), DependKind::Auto)?;
    for &other in relations {
        ctx.depend(address, ObjectAddress::relation(other), DependKind::Normal)?;
    }
    Ok(())
}

/// Stores a GENERATED ALWAYS AS (...) STORED expression of an existing column.
pub(crate) fn set_generated(ctx: &mut SessionContext, relation: Oid, attnum: i16, node: &Node) -> Result<(), SqlError> {
    let rel = ctx.reopen(relation)?;
    let column = rel.attribute(attnum).ok_or_else(|| SqlError::internal("no such column"))?;
    let target = Some((column.type_oid, column.typmod));
    let stored = expression::store(ctx, node, Some(&rel), target, "column generation expressions")?;
    if !stored.expr.immutable {
        return Err(SqlError::new(SqlState::INVALID_OBJECT_DEFINITION, "generation expression is not immutable"));
    }
    for &used in &stored.expr.columns {
        if rel.attribute(used).is_some_and(|c| c.generated) {
            let name = rel.attribute(used).map_or("", |c| &c.name);
            return Err(SqlError::new(
                SqlState::INVALID_OBJECT_DEFINITION,
                format!("cannot use generated column \"{name}\" in column generation expression"),
            )
            .detail("A generated column cannot reference another generated column."));
        }
    }
    insert_default(ctx, relation, attnum, &stored.text, &stored.relations)?;
    update_attribute(ctx, relation, attnum, &[(pg_attribute::atthasdef, Datum::Bool(true))])?;
    for used in stored.expr.columns {
        let (this, other) = (ObjectAddress::column(relation, attnum), ObjectAddress::column(relation, used));
        ctx.depend(this, other, DependKind::Auto)?;
    }
    Ok(())
}

/// Changes columns of a `pg_attribute` row.
pub(crate) fn update_attribute(ctx: &mut SessionContext, relation: Oid, attnum: i16, changes: &[(usize, Datum)]) -> Result<(), SqlError> {
    let key = [Datum::Oid(relation), Datum::Int2(attnum)];
    let row = ctx.catalog_reader()?.row(&pg_attribute::DEF, by::ATTRIBUTE_NUM, &key)?;
    let row = row.ok_or_else(|| SqlError::internal(format!("cache lookup failed for attribute {attnum} of relation {relation}")))?;
    ctx.writer()?.set(&pg_attribute::DEF, &row, changes)?;
    ctx.relation_changed(relation)
}

/// Changes columns of a `pg_class` row.
pub(crate) fn update_class(ctx: &mut SessionContext, relation: Oid, changes: &[(usize, Datum)]) -> Result<(), SqlError> {
    let row = ctx.catalog_reader()?.row(&pg_class::DEF, by::CLASS_OID, &[Datum::Oid(relation)])?;
    let row = row.ok_or_else(|| SqlError::internal(format!("cache lookup failed for relation {relation}")))?;
    ctx.writer()?.set(&pg_class::DEF, &row, changes)?;
    ctx.relation_changed(relation)
}

/// The columns that say below which xid no version in a relation's file needs a status. Of a new file that is the settled floor: nobody who writes
/// to it has an xid that is settled.
pub(crate) fn frozen_at(xid: Xid) -> [(usize, Datum); 2] {
    let [frozen, half] = rows::xid_halves(xid);
    [(pg_class::relfrozenxid, frozen), (pg_class::relminmxid, half)]
}

/// The type a `serial` name stands for.
fn serial_type(def: &ColumnDef) -> Option<Oid> {
    let name = def.type_name.as_ref()?;
    match nodes::strings(&name.names).as_slice() {
        ["smallserial" | "serial2"] => Some(oids::INT2),
        ["serial" | "serial4"] => Some(oids::INT4),
        ["bigserial" | "serial8"] => Some(oids::INT8),
        _ => None,
    }
}

/// Reads a column definition. Its constraints, other than NOT NULL and DEFAULT, are added to `constraints`.
pub(crate) fn column(
    ctx: &mut SessionContext,
    def: &ColumnDef,
    table: &str,
    source: &str,
    constraints: &mut Vec<NewConstraint>,
) -> Result<NewColumn, SqlError> {
    let name = truncate(&def.colname);
    let serial = serial_type(def);
    let (type_oid, typmod) = match (serial, &def.type_name) {
        (Some(oid), _) => (oid, -1),
        (None, Some(type_name)) => {
            let front_end = ctx.front_end;
            front_end.resolve_type(ctx, type_name).map_err(|e| nodes::located(e, source, type_name.location))?
        }
        (None, None) => return Err(SqlError::internal("column without type")),
    };
    let mut new = NewColumn { column: plain_column(name, type_oid, typmod)?, default: None, sequence: None };
    if let Some(oid) = serial {
        new.sequence = Some(SequenceSpec::of_type(oid));
        new.column.not_null = true;
    }
    if let Some(clause) = &def.coll_clause {
        new.column.collation = collation(&nodes::strings(&clause.collname), type_oid)?;
    }
    new.column.not_null |= def.is_not_null;
    if !def.storage.is_empty() {
        // PostgreSQL: a letter, of columns copied from another table.
        new.column.storage = def.storage.bytes().next().unwrap_or(new.column.storage);
    }
    if !def.compression.is_empty() {
        new.column.compression = compression(&def.compression, type_oid)?;
    }
    let (mut saw_null, mut saw_not_null) = (false, false);
    let wrong = |location: i32, what: &str| {
        // The default of a serial column is nowhere in the text.
        let location = if serial.is_some() { -1 } else { location };
        let message = format!("{what} for column \"{name}\" of table \"{table}\"");
        Err(nodes::located(SqlError::new(SqlState::SYNTAX_ERROR, message), source, location))
    };
    // Whether what stands before may be deferred, and what was said of that.
    let (mut deferrable, mut attributes) = (false, constraint::Attributes::default());
    for node in &def.constraints {
        let Some(NodeEnum::Constraint(c)) = &node.node else { continue };
        match c.contype() {
            ConstrType::ConstrNotnull => {
                if saw_null {
                    return wrong(c.location, "conflicting NULL/NOT NULL declarations");
                }
                saw_not_null = true;
                new.column.not_null = true;
            }
            ConstrType::ConstrNull => {
                if saw_not_null || new.column.not_null {
                    return wrong(c.location, "conflicting NULL/NOT NULL declarations");
                }
                saw_null = true;
            }
            ConstrType::ConstrDefault => {
                if new.column.identity.is_some() {
                    return wrong(c.location, "both default and identity specified");
                }
                if new.column.generated {
                    return wrong(c.location, "both default and generation expression specified");
                }
                if new.default.is_some() || new.sequence.is_some() {
                    return wrong(c.location, "multiple default values specified");
                }
                new.default = c.raw_expr.as_deref().cloned();
            }
            ConstrType::ConstrGenerated => {
                if new.column.identity.is_some() {
                    return wrong(c.location, "both identity and generation expression specified");
                }
                if new.column.generated {
                    return wrong(c.location, "multiple generation clauses specified");
                }
                if new.default.is_some() || new.sequence.is_some() {
                    return wrong(c.location, "both default and generation expression specified");
                }
                new.default = c.raw_expr.as_deref().cloned();
                new.column.generated = true;
            }
            ConstrType::ConstrIdentity => {
                if !matches!(type_oid, oids::INT2 | oids::INT4 | oids::INT8) {
                    return Err(SqlError::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        "identity column type must be smallint, integer, or bigint",
                    ));
                }
                if new.column.identity.is_some() {
                    return wrong(c.location, "multiple identity specifications");
                }
                if new.column.generated {
                    return wrong(c.location, "both identity and generation expression specified");
                }
                if new.default.is_some() || new.sequence.is_some() {
                    return wrong(c.location, "both default and identity specified");
                }
                if saw_null {
                    return wrong(c.location, "conflicting NULL/NOT NULL declarations");
                }
                new.sequence = Some(SequenceSpec::parse(ctx, &c.options, Some(type_oid), source)?);
                new.column.identity = Some(if c.generated_when == "a" { Identity::Always } else { Identity::ByDefault });
                new.column.not_null = true;
            }
            ConstrType::ConstrCheck
            | ConstrType::ConstrPrimary
            | ConstrType::ConstrUnique
            | ConstrType::ConstrExclusion
            | ConstrType::ConstrForeign => constraints.extend(constraint::parse(c, Some(name), source)?),
            ConstrType::ConstrAttrDeferrable
            | ConstrType::ConstrAttrNotDeferrable
            | ConstrType::ConstrAttrDeferred
            | ConstrType::ConstrAttrImmediate => {
                let last = constraints.last_mut().filter(|_| deferrable);
                attributes.apply(last, c, source)?;
                continue;
            }
            ConstrType::Undefined => {}
        }
        attributes = constraint::Attributes::default();
        deferrable = matches!(
            c.contype(),
            ConstrType::ConstrPrimary | ConstrType::ConstrUnique | ConstrType::ConstrExclusion | ConstrType::ConstrForeign
        );
    }
    Ok(new)
}

/// A column of a type that tables may store.
pub(crate) fn plain_column(name: &str, type_oid: Oid, typmod: i32) -> Result<Column, SqlError> {
    let entry = type_by_oid(type_oid);
    if entry.is_some_and(|t| t.kind == b'p') {
        return Err(SqlError::new(
            SqlState::INVALID_TABLE_DEFINITION,
            format!("column \"{name}\" has pseudo-type {}", format_type(type_oid, -1)),
        ));
    }
    Ok(Column {
        attnum: 0,
        name: Arc::from(name),
        type_oid,
        typmod,
        not_null: false,
        dropped: false,
        default: None,
        generated: false,
        identity: None,
        missing: None,
        collation: type_collation(type_oid),
        len: entry.map_or(-1, |t| t.len),
        stats_target: -1,
        // What is not built in is a row.
        storage: entry.map_or(b'x', |t| t.storage),
        compression: 0,
    })
}

/// `attcompression` for `COMPRESSION name`.
pub(crate) fn compression(name: &str, type_oid: Oid) -> Result<u8, SqlError> {
    if name == "default" {
        return Ok(0);
    }
    if type_by_oid(type_oid).is_some_and(|t| t.storage == b'p') {
        let message = format!("column data type {} does not support compression", format_type(type_oid, -1));
        return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message));
    }
    match name {
        "pglz" => Ok(b'p'),
        "lz4" => Ok(b'l'),
        _ => Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid compression method \"{name}\""))),
    }
}

/// The collation of a COLLATE clause.
pub(crate) fn collation(name: &[&str], type_oid: Oid) -> Result<Oid, SqlError> {
    let last = name.last().copied().unwrap_or_default();
    if type_collation(type_oid) == 0 {
        return Err(SqlError::new(
            SqlState::DATATYPE_MISMATCH,
            format!("collations are not supported by type {}", format_type(type_oid, -1)),
        ));
    }
    collation_by_name(last).ok_or_else(|| {
        let message = format!("collation \"{last}\" for encoding \"UTF8\" does not exist");
        SqlError::new(SqlState::UNDEFINED_OBJECT, message)
    })
}

/// LIKE: columns with their NOT NULLs, and as options say defaults, constraints, generation expressions.
fn like_columns(
    ctx: &mut SessionContext,
    like: &protobuf::TableLikeClause,
    columns: &mut Vec<NewColumn>,
    constraints: &mut Vec<NewConstraint>,
) -> Result<(), SqlError> {
    const CONSTRAINTS: u32 = 1 << 2;
    const DEFAULTS: u32 = 1 << 3;
    const GENERATED: u32 = 1 << 4;
    const IDENTITY: u32 = 1 << 5;
    const INDEXES: u32 = 1 << 6;
    const COMPRESSION: u32 = 1 << 1;
    const STORAGE: u32 = 1 << 8;
    let range = nodes::relation(like.relation.as_ref())?;
    let (schema, name) = nodes::names(range);
    let Some(relation) = ctx.find_locked(schema, name, LockMode::AccessShare, crate::txn::WaitPolicy::Block)? else {
        return Err(SqlError::new(SqlState::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist")));
    };
    for c in relation.live_columns() {
        let mut column = Column { default: None, missing: None, identity: None, generated: false, ..c.clone() };
        if like.options & STORAGE == 0 {
            column.storage = type_by_oid(c.type_oid).map_or(b'p', |t| t.storage);
        }
        if like.options & COMPRESSION == 0 {
            column.compression = 0;
        }
        let mut new = NewColumn { column: column.clone(), default: None, sequence: None };
        let wanted = if c.generated { GENERATED } else { DEFAULTS };
        if c.identity.is_some() {
            if like.options & IDENTITY != 0 {
                column.identity = c.identity;
                new.sequence = Some(SequenceSpec::of_type(c.type_oid));
            }
        } else if let Some(text) = &c.default
            && like.options & wanted != 0
        {
            new.default = Some(expression::parse_text(ctx, text)?);
            column.generated = c.generated;
        }
        new.column = column;
        columns.push(new);
    }
    if like.options & CONSTRAINTS != 0 {
        for check in &relation.checks {
            let node = expression::parse_text(ctx, &check.expression)?;
            constraints.push(NewConstraint::check(Some(&check.name), node));
        }
    }
    if like.options & INDEXES != 0 {
        constraints.extend(constraint::keys_like(&relation));
    }
    Ok(())
}

/// A name `table[_column]_suffix` that no relation of the schema has, nor is in `taken`. PostgreSQL: `ChooseRelationName`.
pub(crate) fn choose_name(
    ctx: &mut SessionContext,
    namespace: Oid,
    table: &str,
    column: Option<&str>,
    suffix: &str,
    taken: &[String],
) -> Result<String, SqlError> {
    for attempt in 0_u32.. {
        let label = if attempt == 0 { suffix.to_owned() } else { format!("{suffix}{attempt}") };
        let name = make_object_name(table, column, &label);
        if !taken.contains(&name) && ctx.catalog.relation_oid(namespace, &name)?.is_none() {
            return Ok(name);
        }
    }
    Err(SqlError::internal("no free name"))
}

/// Joins the parts, cutting the longer of the first two so that the whole fits. PostgreSQL: `makeObjectName`.
pub(crate) fn make_object_name(first: &str, second: Option<&str>, label: &str) -> String {
    let overhead = label.len() + 1 + second.map_or(0, |_| 1);
    let room = 63_usize.saturating_sub(overhead);
    let (mut a, mut b) = (first.len(), second.map_or(0, str::len));
    while a + b > room {
        if a > b { a -= 1 } else { b -= 1 }
    }
    let cut = |s: &str, mut n: usize| {
        while !s.is_char_boundary(n) {
            n -= 1;
        }
        s[..n].to_owned()
    };
    match second {
        Some(second) => format!("{}_{}_{label}", cut(first, a), cut(second, b)),
        None => format!("{}_{label}", cut(first, a)),
    }
}

/// Refuses a relation that is no ordinary table.
pub(crate) fn require_table(relation: &Relation) -> Result<(), SqlError> {
    if relation.kind == RelKind::Table { Ok(()) } else { Err(super::step::wrong_kind(relation, "table")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_are_cut_to_fit() {
        assert_eq!(make_object_name("t", Some("a"), "seq"), "t_a_seq");
        assert_eq!(make_object_name("t", None, "pkey"), "t_pkey");
        let long = make_object_name(&"x".repeat(60), Some(&"y".repeat(40)), "idx");
        assert_eq!(long.len(), 63);
        assert!(long.ends_with("_idx"));
    }
}
