//! Constraints: CHECK, PRIMARY KEY, UNIQUE, FOREIGN KEY, of new tables and of old ones.

use std::sync::Arc;

use pg_query::protobuf::{self, ConstrType, Node};

use super::index::{self, NewIndex, NewIndexColumn};
use super::table::{self, NewColumn, choose_name, make_object_name};
use super::{expression, foreign_key, nodes};
use crate::access::heap::HeapScan;
use crate::executor::SessionContext;
use crate::executor::eval::{Exec, ExecState};
use crate::sql::catalog::load::{CatalogReader, by};
use crate::sql::catalog::relation::{CheckConstraint, Constraint, ConstraintKind, FkAction, FkMatch, Relation};
use crate::sql::catalog::rows::{self, DependKind, ObjectAddress};
use crate::sql::catalog::schema::{pg_attribute, pg_class, pg_constraint};
use crate::sql::types::{Datum, Oid, row};
use crate::sqlstate::{SqlError, SqlState};

/// A constraint as a statement defines it.
#[derive(Clone)]
pub(crate) struct NewConstraint {
    pub(crate) name: Option<String>,
    pub(crate) deferrable: bool,
    pub(crate) deferred: bool,
    pub(crate) not_valid: bool,
    /// Byte offset in the statement, -1: none.
    pub(crate) location: i32,
    pub(crate) kind: NewKind,
}

/// What it demands.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "one per constraint of a statement")]
pub(crate) enum NewKind {
    Check { expression: Node, no_inherit: bool, column: Option<String> },
    Key(NewKey),
    Foreign(NewForeign),
}

/// PRIMARY KEY or UNIQUE.
#[derive(Clone)]
pub(crate) struct NewKey {
    pub(crate) primary: bool,
    pub(crate) columns: Vec<String>,
    pub(crate) including: Vec<String>,
    pub(crate) nulls_not_distinct: bool,
    /// USING INDEX.
    pub(crate) using_index: Option<String>,
    pub(crate) options: Vec<String>,
}

/// FOREIGN KEY.
#[derive(Clone)]
pub(crate) struct NewForeign {
    pub(crate) columns: Vec<String>,
    pub(crate) table: protobuf::RangeVar,
    /// Empty: the primary key.
    pub(crate) referenced: Vec<String>,
    pub(crate) match_type: FkMatch,
    pub(crate) on_update: FkAction,
    pub(crate) on_delete: FkAction,
}

impl NewConstraint {
    /// A CHECK.
    pub(crate) fn check(name: Option<&str>, expression: Node) -> Self {
        Self {
            name: name.map(str::to_owned),
            deferrable: false,
            deferred: false,
            not_valid: false,
            location: -1,
            kind: NewKind::Check { expression, no_inherit: false, column: None },
        }
    }
}

fn owned(list: &[Node]) -> Vec<String> {
    nodes::strings(list).into_iter().map(str::to_owned).collect()
}

/// Reads a constraint node; `column`: the column it is attached to.
pub(crate) fn parse(c: &protobuf::Constraint, column: Option<&str>, source: &str) -> Result<Option<NewConstraint>, SqlError> {
    let at = |e: SqlError| match nodes::position(source, c.location) {
        Some(position) => e.at(position),
        None => e,
    };
    let this_column = || column.map(str::to_owned).into_iter().collect::<Vec<_>>();
    let kind = match c.contype() {
        ConstrType::ConstrCheck => NewKind::Check {
            expression: c.raw_expr.as_deref().cloned().unwrap_or_default(),
            no_inherit: c.is_no_inherit,
            column: column.map(str::to_owned),
        },
        kind @ (ConstrType::ConstrPrimary | ConstrType::ConstrUnique) => NewKind::Key(NewKey {
            primary: kind == ConstrType::ConstrPrimary,
            columns: if column.is_some() { this_column() } else { owned(&c.keys) },
            including: owned(&c.including),
            nulls_not_distinct: c.nulls_not_distinct,
            using_index: (!c.indexname.is_empty()).then(|| c.indexname.clone()),
            options: super::options::checked(&c.options, super::options::Of::Index)?,
        }),
        ConstrType::ConstrForeign => NewKind::Foreign(NewForeign {
            columns: if column.is_some() { this_column() } else { owned(&c.fk_attrs) },
            table: nodes::relation(c.pktable.as_ref())?.clone(),
            referenced: owned(&c.pk_attrs),
            match_type: match c.fk_matchtype.as_str() {
                "f" => FkMatch::Full,
                "p" => return Err(at(SqlError::unsupported("MATCH PARTIAL"))),
                _ => FkMatch::Simple,
            },
            on_update: action(&c.fk_upd_action),
            on_delete: action(&c.fk_del_action),
        }),
        ConstrType::ConstrExclusion => return Err(at(SqlError::unsupported("EXCLUDE"))),
        ConstrType::ConstrNotnull
        | ConstrType::ConstrNull
        | ConstrType::ConstrDefault
        | ConstrType::ConstrIdentity
        | ConstrType::ConstrGenerated
        | ConstrType::ConstrAttrDeferrable
        | ConstrType::ConstrAttrNotDeferrable
        | ConstrType::ConstrAttrDeferred
        | ConstrType::ConstrAttrImmediate
        | ConstrType::Undefined => return Ok(None),
    };
    Ok(Some(NewConstraint {
        name: (!c.conname.is_empty()).then(|| c.conname.clone()),
        deferrable: c.deferrable,
        deferred: c.initdeferred,
        not_valid: c.skip_validation,
        location: c.location,
        kind,
    }))
}

fn action(letter: &str) -> FkAction {
    FkAction::from_letter(letter.bytes().next().unwrap_or(b'a'))
}

/// Applies DEFERRABLE and its kin, which follow a column constraint as nodes of their own. PostgreSQL: `transformConstraintAttrs`.
#[derive(Default)]
pub(crate) struct Attributes {
    saw_deferrability: bool,
    saw_initially: bool,
}

impl Attributes {
    /// `last`: the constraint before it, if that can be deferred.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser gives no other kind here")]
    pub(crate) fn apply(&mut self, last: Option<&mut NewConstraint>, c: &protobuf::Constraint, source: &str) -> Result<(), SqlError> {
        let wrong = |message: String| Err(nodes::located(SqlError::new(SqlState::SYNTAX_ERROR, message), source, c.location));
        let clause = match c.contype() {
            ConstrType::ConstrAttrDeferrable => "DEFERRABLE",
            ConstrType::ConstrAttrNotDeferrable => "NOT DEFERRABLE",
            ConstrType::ConstrAttrDeferred => "INITIALLY DEFERRED",
            _ => "INITIALLY IMMEDIATE",
        };
        let Some(last) = last else { return wrong(format!("misplaced {clause} clause")) };
        let (seen, what) = match clause {
            "DEFERRABLE" | "NOT DEFERRABLE" => (&mut self.saw_deferrability, "DEFERRABLE/NOT DEFERRABLE"),
            _ => (&mut self.saw_initially, "INITIALLY IMMEDIATE/DEFERRED"),
        };
        if std::mem::replace(seen, true) {
            return wrong(format!("multiple {what} clauses not allowed"));
        }
        match clause {
            "DEFERRABLE" => last.deferrable = true,
            "NOT DEFERRABLE" => last.deferrable = false,
            "INITIALLY DEFERRED" => {
                // Deferred by itself means deferrable.
                last.deferrable |= !self.saw_deferrability;
                last.deferred = true;
            }
            _ => last.deferred = false,
        }
        if last.deferred && !last.deferrable {
            return wrong("constraint declared INITIALLY DEFERRED must be DEFERRABLE".into());
        }
        Ok(())
    }
}

/// Sets NOT NULL on the columns of a new table's primary key, of which there may be one.
pub(crate) fn mark_primary_columns(
    table: &str,
    columns: &mut [NewColumn],
    constraints: &[NewConstraint],
    source: &str,
) -> Result<(), SqlError> {
    let mut primary = constraints.iter().filter_map(|c| match &c.kind {
        NewKind::Key(key) if key.primary => Some((key, c.location)),
        NewKind::Key(_) | NewKind::Check { .. } | NewKind::Foreign(_) => None,
    });
    let Some((key, _)) = primary.next() else { return Ok(()) };
    if let Some((_, location)) = primary.next() {
        let message = format!("multiple primary keys for table \"{table}\" are not allowed");
        return Err(nodes::located(SqlError::new(SqlState::INVALID_TABLE_DEFINITION, message), source, location));
    }
    for name in &key.columns {
        if let Some(new) = columns.iter_mut().find(|c| *c.column.name == **name) {
            new.column.not_null = true;
        }
    }
    Ok(())
}

/// PRIMARY KEY and UNIQUE constraints as another table has them, for LIKE INCLUDING INDEXES.
pub(crate) fn keys_like(relation: &Relation) -> Vec<NewConstraint> {
    let names = |list: &[i16]| -> Vec<String> { list.iter().filter_map(|&n| relation.attribute(n)).map(|c| c.name.to_string()).collect() };
    let mut out = Vec::new();
    for c in &relation.constraints {
        let primary = match c.kind {
            ConstraintKind::Primary => true,
            ConstraintKind::Unique => false,
            ConstraintKind::Foreign(_) | ConstraintKind::Exclusion => continue,
        };
        let key = NewKey {
            primary,
            columns: names(&c.columns),
            including: Vec::new(),
            nulls_not_distinct: false,
            using_index: None,
            options: Vec::new(),
        };
        let (deferrable, deferred) = (c.deferrable, c.deferred);
        out.push(NewConstraint { name: None, deferrable, deferred, not_valid: false, location: -1, kind: NewKind::Key(key) });
    }
    out
}

/// Adds constraints to a table of this transaction, keys first, as foreign keys may need them.
pub(crate) fn add_all(ctx: &mut SessionContext, table: Oid, list: Vec<NewConstraint>, source: &str) -> Result<(), SqlError> {
    let rank = |c: &NewConstraint| match c.kind {
        NewKind::Check { .. } => 0,
        NewKind::Key(_) => 1,
        NewKind::Foreign(_) => 2,
    };
    let mut list = list;
    list.sort_by_key(rank);
    list.into_iter().try_for_each(|c| add(ctx, table, c, source).map(|_| ()))
}

/// Adds one constraint to an existing table, checking its rows. Returns its OID.
pub(crate) fn add(ctx: &mut SessionContext, table: Oid, new: NewConstraint, source: &str) -> Result<Oid, SqlError> {
    let relation = ctx.reopen(table)?;
    if let Some(name) = &new.name {
        check_name(ctx, &relation, name)?;
    }
    match new.kind.clone() {
        NewKind::Check { expression, no_inherit, column } => add_check(ctx, &relation, &new, &expression, no_inherit, column.as_deref()),
        NewKind::Key(key) => add_key(ctx, &relation, &new, &key),
        NewKind::Foreign(foreign) => foreign_key::add(ctx, &relation, &new, &foreign, source),
    }
}

/// `42710` if the table has a constraint of this name.
pub(crate) fn check_name(ctx: &mut SessionContext, relation: &Relation, name: &str) -> Result<(), SqlError> {
    let key = [Datum::Oid(relation.oid), Datum::Oid(0), Datum::text(name)];
    if ctx.catalog_reader()?.row(&pg_constraint::DEF, by::CONSTRAINT_TABLE, &key)?.is_some() {
        return Err(SqlError::new(
            SqlState::DUPLICATE_OBJECT,
            format!("constraint \"{name}\" for relation \"{}\" already exists", relation.name),
        ));
    }
    Ok(())
}

/// A free constraint name. PostgreSQL: `ChooseConstraintName`.
pub(crate) fn choose_constraint_name(
    ctx: &mut SessionContext,
    relation: &Relation,
    column: Option<&str>,
    label: &str,
) -> Result<String, SqlError> {
    let reader = ctx.catalog_reader()?;
    let rows = reader.rows(&pg_constraint::DEF, by::CONSTRAINT_TABLE, &[Datum::Oid(relation.oid)])?;
    let mut attempt = 0_u32;
    loop {
        let label = if attempt == 0 { label.to_owned() } else { format!("{label}{attempt}") };
        let name = make_object_name(&relation.name, column, &label);
        if !rows.iter().any(|row| row.str(pg_constraint::conname).is_ok_and(|n| n == name)) {
            return Ok(name);
        }
        attempt += 1;
    }
}

fn add_check(
    ctx: &mut SessionContext,
    relation: &Arc<Relation>,
    new: &NewConstraint,
    expression: &Node,
    no_inherit: bool,
    column: Option<&str>,
) -> Result<Oid, SqlError> {
    let target = Some((crate::sql::types::oids::BOOL, -1));
    let stored = expression::store(ctx, expression, Some(relation), target, "check constraints")?;
    let name = match &new.name {
        Some(name) => name.clone(),
        None => {
            // PostgreSQL names a check after its column if it mentions only one.
            let only = match stored.expr.columns.as_slice() {
                [one] => relation.attribute(*one).map(|c| c.name.to_string()),
                _ => None,
            };
            let column = only.or_else(|| column.map(str::to_owned));
            choose_constraint_name(ctx, relation, column.as_deref(), "check")?
        }
    };
    let oid = ctx.new_oid(&pg_constraint::DEF, by::CONSTRAINT_OID)?;
    let check = CheckConstraint {
        oid,
        name: Arc::from(name.as_str()),
        expression: Arc::from(stored.text.as_str()),
        columns: stored.expr.columns.clone(),
        validated: !new.not_valid,
        no_inherit,
    };
    ctx.writer()?.insert(&pg_constraint::DEF, &rows::check(relation.namespace, relation.oid, &check))?;
    let address = ObjectAddress::new(pg_constraint::ID, oid);
    if stored.expr.columns.is_empty() {
        ctx.depend(address, ObjectAddress::relation(relation.oid), DependKind::Auto)?;
    }
    for &attnum in &stored.expr.columns {
        ctx.depend(address, ObjectAddress::column(relation.oid, attnum), DependKind::Auto)?;
    }
    for &other in &stored.relations {
        ctx.depend(address, ObjectAddress::relation(other), DependKind::Normal)?;
    }
    let checks = i16::try_from(relation.checks.len() + 1).unwrap_or(i16::MAX);
    table::update_class(ctx, relation.oid, &[(pg_class::relchecks, Datum::Int2(checks))])?;
    if !new.not_valid {
        validate_check(ctx, relation, &name, &stored.expr)?;
    }
    Ok(oid)
}

/// Checks a condition against every row of a table.
pub(crate) fn validate_check(
    ctx: &mut SessionContext,
    relation: &Relation,
    name: &str,
    expr: &crate::executor::front_end::TableExpr,
) -> Result<(), SqlError> {
    let mut failed = false;
    for_each_row(ctx, relation, |ctx, values| {
        let mut state = ExecState::bare();
        let value = expr.code.eval(&mut Exec { session: ctx, state: &mut state }, values)?;
        failed = matches!(value, Datum::Bool(false));
        Ok(!failed)
    })?;
    if failed {
        return Err(SqlError::new(
            SqlState::CHECK_VIOLATION,
            format!("check constraint \"{name}\" of relation \"{}\" is violated by some row", relation.name),
        )
        .constraint(&relation.namespace_name, &relation.name, name));
    }
    Ok(())
}

/// Gives `f` every row there is now, until it returns false.
pub(crate) fn for_each_row(
    ctx: &mut SessionContext,
    relation: &Relation,
    mut f: impl FnMut(&mut SessionContext, &[Datum]) -> Result<bool, SqlError>,
) -> Result<(), SqlError> {
    let Some(handle) = relation.rel_handle() else { return Ok(()) };
    let access = ctx.access();
    let snapshot = ctx.transaction()?.committed_snapshot()?;
    let mut scan = HeapScan::new(&access, &handle, &snapshot)?;
    let mut values = vec![Datum::Null; relation.columns.len()];
    let mut count = 0_u32;
    while let Some((_, bytes)) = scan.next(&access)? {
        row::decode(&relation.desc, bytes, values.len(), &mut values)?;
        if !f(ctx, &values)? {
            break;
        }
        count = count.wrapping_add(1);
        if count.is_multiple_of(1024) {
            ctx.check_cancel()?;
        }
    }
    Ok(())
}

fn add_key(ctx: &mut SessionContext, relation: &Arc<Relation>, new: &NewConstraint, key: &NewKey) -> Result<Oid, SqlError> {
    if key.primary && relation.primary_key().is_some() {
        return Err(SqlError::new(
            SqlState::INVALID_TABLE_DEFINITION,
            format!("multiple primary keys for table \"{}\" are not allowed", relation.name),
        ));
    }
    if let Some(index) = &key.using_index {
        return use_index(ctx, relation, new, key, index);
    }
    let mut columns = Vec::new();
    for (i, name) in key.columns.iter().enumerate() {
        let column = relation
            .column(name)
            .ok_or_else(|| SqlError::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" named in key does not exist")))?;
        if key.columns[..i].contains(name) {
            let what = if key.primary { "primary key" } else { "unique" };
            return Err(SqlError::new(SqlState::DUPLICATE_COLUMN, format!("column \"{name}\" appears twice in {what} constraint")));
        }
        columns.push(NewIndexColumn::plain(column.attnum));
    }
    let mut including = Vec::new();
    for name in &key.including {
        let column = relation
            .column(name)
            .ok_or_else(|| SqlError::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" named in key does not exist")))?;
        including.push(column.attnum);
    }
    if key.primary {
        set_not_null(ctx, relation, &columns.iter().map(|c| c.attnum).collect::<Vec<_>>())?;
    }
    let name = match &new.name {
        Some(name) => name.clone(),
        None if key.primary => choose_name(ctx, relation.namespace, &relation.name, None, "pkey", &[])?,
        None => {
            let all: Vec<&str> = key.columns.iter().chain(&key.including).map(String::as_str).collect();
            choose_name(ctx, relation.namespace, &relation.name, Some(&all.join("_")), "key", &[])?
        }
    };
    if !table::check_name_free(ctx, relation.namespace, &name, false)? {
        return Err(SqlError::internal("constraint name taken"));
    }
    let definition = NewIndex {
        name: name.clone(),
        unique: true,
        primary: key.primary,
        nulls_not_distinct: key.nulls_not_distinct,
        immediate: !new.deferrable,
        constraint: true,
        columns,
        including,
        predicate: None,
        options: key.options.clone(),
        tablespace: super::tablespace::choose(ctx, "", relation.persistence)?,
        concurrent: false,
    };
    let index = index::define(ctx, relation.oid, &definition)?;
    key_constraint(ctx, relation, new, key.primary, &name, index)
}

/// The row of a key constraint over an index that exists.
fn key_constraint(
    ctx: &mut SessionContext,
    relation: &Arc<Relation>,
    new: &NewConstraint,
    primary: bool,
    name: &str,
    index: Oid,
) -> Result<Oid, SqlError> {
    let now = ctx.reopen(relation.oid)?;
    let made = now.indexes.iter().find(|i| i.oid == index).ok_or_else(|| SqlError::internal("index vanished"))?;
    let columns: Vec<i16> = made.keys().iter().map(|c| c.attnum).collect();
    let oid = ctx.new_oid(&pg_constraint::DEF, by::CONSTRAINT_OID)?;
    let constraint = Constraint {
        oid,
        name: Arc::from(name),
        kind: if primary { ConstraintKind::Primary } else { ConstraintKind::Unique },
        columns,
        index,
        deferrable: new.deferrable,
        deferred: new.deferred,
        validated: true,
    };
    let row = rows::constraint(relation.namespace, relation.oid, &constraint);
    ctx.writer()?.insert(&pg_constraint::DEF, &row)?;
    let address = ObjectAddress::new(pg_constraint::ID, oid);
    // INCLUDE columns too.
    for column in &made.columns {
        ctx.depend(address, ObjectAddress::column(relation.oid, column.attnum), DependKind::Auto)?;
    }
    ctx.depend(ObjectAddress::relation(index), address, DependKind::Internal)?;
    ctx.relation_changed(relation.oid)?;
    Ok(oid)
}

/// ADD CONSTRAINT ... USING INDEX.
fn use_index(ctx: &mut SessionContext, relation: &Arc<Relation>, new: &NewConstraint, key: &NewKey, name: &str) -> Result<Oid, SqlError> {
    let index = relation
        .indexes
        .iter()
        .find(|i| &*i.name == name)
        .cloned()
        .ok_or_else(|| SqlError::new(SqlState::UNDEFINED_OBJECT, format!("index \"{name}\" does not exist")))?;
    let refuse = |why: &str| {
        let e = SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{name}\" {why}"));
        Err(e.detail("Cannot create a primary key or unique constraint using such an index."))
    };
    if !index.valid {
        return Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("index \"{name}\" is not valid")));
    }
    if !index.unique {
        return refuse("is not a unique index");
    }
    if index.predicate.is_some() {
        return refuse("is a partial index");
    }
    if index.columns.iter().any(|c| c.attnum == 0) {
        return refuse("contains expressions");
    }
    if index.constraint != 0 {
        return Err(SqlError::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("index \"{name}\" is already associated with a constraint"),
        ));
    }
    index::become_constraint(ctx, &index, key.primary, !new.deferrable)?;
    let constraint = new.name.clone().unwrap_or_else(|| name.to_owned());
    if constraint != name {
        ctx.notice(format!("ALTER TABLE / ADD CONSTRAINT USING INDEX will rename index \"{name}\" to \"{constraint}\""));
        table::update_class(ctx, index.oid, &[(pg_class::relname, Datum::text(&constraint))])?;
        ctx.relation_names_changed()?;
    }
    if key.primary {
        let attnums: Vec<i16> = index.keys().iter().map(|c| c.attnum).collect();
        set_not_null(ctx, relation, &attnums)?;
    }
    key_constraint(ctx, relation, new, key.primary, &constraint, index.oid)
}

/// Sets NOT NULL on columns that lack it, checking the rows there are.
pub(crate) fn set_not_null(ctx: &mut SessionContext, relation: &Relation, attnums: &[i16]) -> Result<(), SqlError> {
    let missing: Vec<i16> = attnums.iter().copied().filter(|&n| relation.attribute(n).is_some_and(|c| !c.not_null)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut null = None;
    for_each_row(ctx, relation, |_, values| {
        null = missing.iter().copied().find(|&n| usize::try_from(n - 1).ok().and_then(|i| values.get(i)).is_some_and(Datum::is_null));
        Ok(null.is_none())
    })?;
    if let Some(attnum) = null {
        let column = relation.attribute(attnum).map_or("", |c| &c.name);
        return Err(SqlError::new(
            SqlState::NOT_NULL_VIOLATION,
            format!("column \"{column}\" of relation \"{}\" contains null values", relation.name),
        )
        .column(&relation.namespace_name, &relation.name, column));
    }
    for attnum in missing {
        table::update_attribute(ctx, relation.oid, attnum, &[(pg_attribute::attnotnull, Datum::Bool(true))])?;
    }
    Ok(())
}
