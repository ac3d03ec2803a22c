//! CREATE and ALTER SEQUENCE, and the sequences behind `serial` and identity columns.

use afterimage_wal::Xid;
use pg_query::NodeEnum;
use pg_query::protobuf::{AlterSeqStmt, CreateSeqStmt, DefElem, Node};

use super::nodes;
use super::table::check_name_free;
use crate::access::RelHandle;
use crate::access::sequence::{self, SequenceState};
use crate::executor::SessionContext;
use crate::sql::catalog::load::{CatalogReader, by};
use crate::sql::catalog::relation::{Column, Persistence, RelKind, Relation, SequenceDef};
use crate::sql::catalog::rows::{self, ClassRow, DependKind, ObjectAddress, blank};
use crate::sql::catalog::schema::{pg_attribute, pg_class, pg_depend, pg_namespace, pg_sequence};
use crate::sql::types::{Datum, Oid, format_type, oids};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{LockMode, WaitPolicy};

/// What a statement asks of a sequence.
#[derive(Clone, Debug, Default)]
pub(crate) struct SequenceSpec {
    type_oid: Option<Oid>,
    start: Option<i64>,
    increment: Option<i64>,
    /// `Some(None)`: NO MAXVALUE.
    max: Option<Option<i64>>,
    min: Option<Option<i64>>,
    cache: Option<i64>,
    cycle: Option<bool>,
    /// `Some(None)`: RESTART without a value.
    restart: Option<Option<i64>>,
    /// OWNED BY: `Some(None)` is NONE.
    owned_by: Option<Option<Vec<String>>>,
    /// Name given by SEQUENCE NAME, for identity columns.
    pub(crate) name: Option<(Option<String>, String)>,
}

impl SequenceSpec {
    /// Of this type.
    pub(crate) fn of_type(type_oid: Oid) -> Self {
        Self { type_oid: Some(type_oid), ..Self::default() }
    }

    /// RESTART.
    pub(crate) fn restarted() -> Self {
        Self { restart: Some(None), ..Self::default() }
    }

    /// Reads options. `type_oid`: given already, as for identity columns.
    pub(crate) fn parse(ctx: &mut SessionContext, options: &[Node], type_oid: Option<Oid>, source: &str) -> Result<Self, SqlError> {
        let mut spec = Self { type_oid, ..Self::default() };
        for (i, option) in nodes::options(options).enumerate() {
            if nodes::options(options).take(i).any(|earlier| earlier.defname == option.defname) {
                let error = SqlError::new(SqlState::SYNTAX_ERROR, "conflicting or redundant options");
                return Err(nodes::located(error, source, option.location));
            }
            match option.defname.as_str() {
                "as" => {
                    if let Some(NodeEnum::TypeName(name)) = option.arg.as_ref().and_then(|a| a.node.as_ref()) {
                        let front_end = ctx.front_end;
                        spec.type_oid = Some(front_end.resolve_type(ctx, name)?.0);
                    }
                }
                "start" => spec.start = Some(nodes::option_int(option)?),
                "increment" => spec.increment = Some(nodes::option_int(option)?),
                "maxvalue" => spec.max = Some(optional_int(option)?),
                "minvalue" => spec.min = Some(optional_int(option)?),
                "cache" => spec.cache = Some(nodes::option_int(option)?),
                "cycle" => spec.cycle = Some(nodes::option_bool(option)?),
                "restart" => spec.restart = Some(optional_int(option)?),
                "owned_by" => {
                    let list = option.arg.as_deref().map(nodes::items).unwrap_or_default();
                    let parts: Vec<String> = nodes::strings(list).into_iter().map(str::to_owned).collect();
                    let none = parts.as_slice() == ["none"];
                    spec.owned_by = Some((!none).then_some(parts));
                }
                "sequence_name" => {
                    let list = option.arg.as_deref().map(nodes::items).unwrap_or_default();
                    let (schema, name) = nodes::qualified(list)?;
                    spec.name = Some((schema.map(str::to_owned), name.to_owned()));
                }
                "logged" | "unlogged" => {}
                other => {
                    return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("option \"{other}\" not recognized")));
                }
            }
        }
        Ok(spec)
    }

    /// The definition, over an older one for ALTER. PostgreSQL: `init_params` in commands/sequence.c.
    fn definition(&self, old: Option<&SequenceDef>) -> Result<SequenceDef, SqlError> {
        let bad = |message: String| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message);
        let type_oid = self.type_oid.or(old.map(|o| o.type_oid)).unwrap_or(oids::INT8);
        let (type_min, type_max) = type_bounds(type_oid).ok_or_else(|| bad("sequence type must be smallint, integer, or bigint".into()))?;
        // A bound that was the old type's own follows the type.
        let retyped = old.filter(|o| o.type_oid != type_oid);
        let increment = self.increment.or(old.map(|o| o.increment)).unwrap_or(1);
        if increment == 0 {
            return Err(bad("INCREMENT must not be zero".into()));
        }
        let default_max = if increment > 0 { type_max } else { -1 };
        let default_min = if increment > 0 { 1 } else { type_min };
        let follows = |value: i64| retyped.is_some_and(|o| type_bounds(o.type_oid).is_some_and(|(min, max)| value == min || value == max));
        let max = match self.max {
            Some(max) => max.unwrap_or(default_max),
            None => old.map(|o| o.max).filter(|max| !follows(*max)).unwrap_or(default_max),
        };
        let min = match self.min {
            Some(min) => min.unwrap_or(default_min),
            None => old.map(|o| o.min).filter(|min| !follows(*min)).unwrap_or(default_min),
        };
        let shown = format_type(type_oid, -1);
        if max < type_min || max > type_max {
            return Err(bad(format!("MAXVALUE ({max}) is out of range for sequence data type {shown}")));
        }
        if min < type_min || min > type_max {
            return Err(bad(format!("MINVALUE ({min}) is out of range for sequence data type {shown}")));
        }
        if min >= max {
            return Err(bad(format!("MINVALUE ({min}) must be less than MAXVALUE ({max})")));
        }
        let start = self.start.or(old.map(|o| o.start)).unwrap_or(if increment > 0 { min } else { max });
        if start < min {
            return Err(bad(format!("START value ({start}) cannot be less than MINVALUE ({min})")));
        }
        if start > max {
            return Err(bad(format!("START value ({start}) cannot be greater than MAXVALUE ({max})")));
        }
        let cache = self.cache.or(old.map(|o| o.cache)).unwrap_or(1);
        if cache < 1 {
            return Err(bad(format!("CACHE ({cache}) must be greater than zero")));
        }
        let cycle = self.cycle.or(old.map(|o| o.cycle)).unwrap_or(false);
        Ok(SequenceDef { type_oid, start, increment, max, min, cache, cycle })
    }
}

/// Least and greatest value of a type that a sequence can have.
pub(crate) fn type_bounds(type_oid: Oid) -> Option<(i64, i64)> {
    Some(match type_oid {
        oids::INT2 => (i64::from(i16::MIN), i64::from(i16::MAX)),
        oids::INT4 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        oids::INT8 => (i64::MIN, i64::MAX),
        _ => return None,
    })
}

fn optional_int(option: &DefElem) -> Result<Option<i64>, SqlError> {
    if option.arg.is_none() { Ok(None) } else { nodes::option_int(option).map(Some) }
}

/// Makes a sequence and returns its OID.
pub(crate) fn create_sequence(
    ctx: &mut SessionContext,
    namespace: Oid,
    name: &str,
    persistence: Persistence,
    spec: &SequenceSpec,
) -> Result<Oid, SqlError> {
    let def = spec.definition(None)?;
    let oid = ctx.new_relation_oid()?;
    let file = ctx.new_file(0, persistence)?;
    let columns = sequence_columns();
    let owner = ctx.user;
    let class = ClassRow {
        frozen: Xid::INVALID,
        oid,
        name,
        namespace,
        owner,
        access_method: 0,
        file: file.rel,
        tablespace: 0,
        kind: RelKind::Sequence,
        persistence,
        shared: false,
        columns: columns.len(),
        checks: 0,
        has_index: false,
        has_rules: false,
        options: &[],
    };
    let mut row = class.values();
    row[pg_class::relpages] = Datum::Int4(1);
    row[pg_class::reltuples] = Datum::Float4(1.0);
    let attributes: Vec<_> = columns.iter().map(|c| rows::attribute(oid, c)).collect();
    let mut writer = ctx.writer()?;
    writer.insert(&pg_class::DEF, &row)?;
    writer.insert_all(&pg_attribute::DEF, &attributes)?;
    writer.insert(&pg_sequence::DEF, &sequence_row(oid, &def))?;
    let access = ctx.access();
    let handle = RelHandle { oid, file, persistence: persistence.access(), reserve: 0 };
    let state = SequenceState { last_value: def.start, log_count: 0, is_called: false };
    sequence::create(&access, ctx.transaction()?, &handle, state)?;
    let address = ObjectAddress::relation(oid);
    ctx.depend(address, ObjectAddress::new(pg_namespace::ID, namespace), DependKind::Normal)?;
    ctx.depend_on_owner(address, owner, false)?;
    ctx.relation_names_changed()?;
    Ok(oid)
}

/// The sequences that belong to columns of a table.
pub(crate) fn owned_by(ctx: &mut SessionContext, table: Oid) -> Result<Vec<Oid>, SqlError> {
    let key = [Datum::Oid(pg_class::ID), Datum::Oid(table)];
    let mut found = Vec::new();
    for row in ctx.catalog_reader()?.rows(&pg_depend::DEF, by::DEPEND_REFERENCED, &key)? {
        let part = matches!(row.char(pg_depend::deptype)?, b'a' | b'i');
        if !part || row.oid(pg_depend::classid)? != pg_class::ID || row.int4(pg_depend::refobjsubid)? == 0 {
            continue;
        }
        let oid = row.oid(pg_depend::objid)?;
        if ctx.catalog.relation(oid)?.is_some_and(|r| r.kind == RelKind::Sequence) {
            found.push(oid);
        }
    }
    Ok(found)
}

/// Makes a sequence logged or unlogged, in a new file. The caller holds AccessExclusive.
pub(crate) fn set_persistence(ctx: &mut SessionContext, relation: &Relation, to: Persistence) -> Result<(), SqlError> {
    if relation.persistence == to {
        return Ok(());
    }
    let old = relation.rel_handle().ok_or_else(|| SqlError::internal("sequence without file"))?;
    let state = sequence::read(&ctx.access(), &old)?;
    put_in_new_file(ctx, relation, to, state)
}

/// Gives a sequence a new file with this state, so that a rollback brings the old one back. The caller keeps those who take values out.
fn put_in_new_file(ctx: &mut SessionContext, relation: &Relation, to: Persistence, state: SequenceState) -> Result<(), SqlError> {
    let old = relation.rel_handle().ok_or_else(|| SqlError::internal("sequence without file"))?;
    let file = ctx.new_file(old.file.spc, to)?;
    let access = ctx.access();
    let new = RelHandle { file, persistence: to.access(), ..old };
    sequence::create(&access, ctx.transaction()?, &new, SequenceState { log_count: 0, ..state })?;
    ctx.transaction()?.drop_on_commit(old.file);
    let changes = [(pg_class::relfilenode, Datum::Oid(file.rel)), (pg_class::relpersistence, Datum::Char(to.letter()))];
    super::table::update_class(ctx, relation.oid, &changes)?;
    ctx.relation_changed(relation.oid)
}

fn sequence_row(oid: Oid, def: &SequenceDef) -> Vec<Datum> {
    let mut row = blank(&pg_sequence::DEF);
    row[pg_sequence::seqrelid] = Datum::Oid(oid);
    row[pg_sequence::seqtypid] = Datum::Oid(def.type_oid);
    row[pg_sequence::seqstart] = Datum::Int8(def.start);
    row[pg_sequence::seqincrement] = Datum::Int8(def.increment);
    row[pg_sequence::seqmax] = Datum::Int8(def.max);
    row[pg_sequence::seqmin] = Datum::Int8(def.min);
    row[pg_sequence::seqcache] = Datum::Int8(def.cache);
    row[pg_sequence::seqcycle] = Datum::Bool(def.cycle);
    row
}

/// Columns of a sequence seen as a table.
fn sequence_columns() -> Vec<Column> {
    [("last_value", oids::INT8, 8), ("log_cnt", oids::INT8, 8), ("is_called", oids::BOOL, 1)]
        .into_iter()
        .zip(1_i16..)
        .map(|((name, type_oid, len), attnum)| Column {
            attnum,
            name: name.into(),
            type_oid,
            typmod: -1,
            not_null: true,
            dropped: false,
            default: None,
            generated: false,
            identity: None,
            missing: None,
            collation: 0,
            len,
            stats_target: -1,
            storage: b'p',
            compression: 0,
        })
        .collect()
}

/// CREATE SEQUENCE.
pub(crate) fn create(ctx: &mut SessionContext, stmt: &CreateSeqStmt, source: &str) -> Result<(), SqlError> {
    let range = nodes::relation(stmt.sequence.as_ref())?;
    let (schema, name) = nodes::names(range);
    let (namespace, persistence) = super::table::target_namespace(ctx, range)?;
    if !check_name_free(ctx, namespace, name, stmt.if_not_exists)? {
        return Ok(());
    }
    let spec = SequenceSpec::parse(ctx, &stmt.options, None, source)?;
    let oid = create_sequence(ctx, namespace, name, persistence, &spec)?;
    let _ = (schema, source);
    own(ctx, oid, &spec)
}

/// Applies OWNED BY.
fn own(ctx: &mut SessionContext, sequence: Oid, spec: &SequenceSpec) -> Result<(), SqlError> {
    let Some(owner) = &spec.owned_by else { return Ok(()) };
    let known = ctx.reopen(sequence)?;
    // An older owner is forgotten.
    let key = [Datum::Oid(pg_class::ID), Datum::Oid(sequence), Datum::Int4(0)];
    for row in ctx.catalog_reader()?.rows(&pg_depend::DEF, by::DEPEND_DEPENDER, &key)? {
        if row.char(pg_depend::deptype)? == b'i' && row.oid(pg_depend::refclassid)? == pg_class::ID {
            let table = ctx.catalog.relation(row.oid(pg_depend::refobjid)?)?.map(|t| t.name.to_string()).unwrap_or_default();
            return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, "cannot change ownership of identity sequence")
                .detail(format!("Sequence \"{}\" is linked to table \"{table}\".", known.name)));
        }
        if row.char(pg_depend::deptype)? == b'a' && row.oid(pg_depend::refclassid)? == pg_class::ID {
            ctx.writer()?.delete(&pg_depend::DEF, &row)?;
        }
    }
    let Some(parts) = owner else { return Ok(()) };
    let bad = |message: String| SqlError::new(SqlState::SYNTAX_ERROR, message);
    let (schema, table, column) = match parts.as_slice() {
        [table, column] => (None, table, column),
        [schema, table, column] => (Some(schema.as_str()), table, column),
        _ => return Err(bad("invalid OWNED BY option".into()).hint("Specify OWNED BY table.column or OWNED BY NONE.")),
    };
    let relation = ctx.catalog.open_relation(schema, table)?;
    if !matches!(relation.kind, RelKind::Table | RelKind::View) {
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("sequence cannot be owned by relation \"{}\"", relation.name))
            .detail(format!("This operation is not supported for {}.", relation.kind.plural())));
    }
    let differs =
        |what| Err(SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("sequence must {what} table it is linked to")));
    if relation.owner != known.owner {
        return differs("have same owner as");
    }
    if relation.namespace != known.namespace {
        return differs("be in same schema as");
    }
    let attnum = relation.column(column).map(|c| c.attnum).ok_or_else(|| {
        SqlError::new(SqlState::UNDEFINED_COLUMN, format!("column \"{column}\" of relation \"{}\" does not exist", relation.name))
    })?;
    ctx.depend(ObjectAddress::relation(sequence), ObjectAddress::column(relation.oid, attnum), DependKind::Auto)
}

/// ALTER SEQUENCE.
pub(crate) fn alter(ctx: &mut SessionContext, stmt: &AlterSeqStmt, source: &str) -> Result<(), SqlError> {
    let range = nodes::relation(stmt.sequence.as_ref())?;
    let (schema, name) = nodes::names(range);
    if stmt.missing_ok && ctx.catalog.find_relation(schema, name)?.is_none() {
        ctx.notice(format!("relation \"{name}\" does not exist, skipping"));
        return Ok(());
    }
    let relation = ctx.open_locked(range, source, LockMode::ShareRowExclusive)?;
    if relation.kind != RelKind::Sequence {
        return Err(super::step::wrong_kind(&relation, "sequence"));
    }
    ctx.check_owner(&relation)?;
    let spec = SequenceSpec::parse(ctx, &stmt.options, None, source)?;
    change(ctx, &relation, &spec)?;
    own(ctx, relation.oid, &spec)
}

/// Changes a sequence's definition and, for RESTART, its value.
pub(crate) fn change(ctx: &mut SessionContext, relation: &Relation, spec: &SequenceSpec) -> Result<(), SqlError> {
    let old = relation.sequence.as_ref().ok_or_else(|| SqlError::internal("sequence without definition"))?;
    let handle = relation.rel_handle().ok_or_else(|| SqlError::internal("sequence without file"))?;
    let def = spec.definition(Some(old))?;
    let access = ctx.access();
    ctx.lock_oid(relation.oid, false, LockMode::ShareRowExclusive, WaitPolicy::Block)?;
    let state = sequence::read(&access, &handle)?;
    let bad = |message: String| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message);
    let new_state = match spec.restart {
        Some(value) => SequenceState { last_value: value.unwrap_or(def.start), log_count: 0, is_called: false },
        None => state,
    };
    let last = new_state.last_value;
    if last < def.min {
        return Err(bad(format!("RESTART value ({last}) cannot be less than MINVALUE ({})", def.min)));
    }
    if last > def.max {
        return Err(bad(format!("RESTART value ({last}) cannot be greater than MAXVALUE ({})", def.max)));
    }
    if def != *old {
        let key = [Datum::Oid(relation.oid)];
        if let Some(row) = ctx.catalog_reader()?.row(&pg_sequence::DEF, by::SEQUENCE, &key)? {
            ctx.writer()?.update(&pg_sequence::DEF, &row, &sequence_row(relation.oid, &def))?;
        }
        ctx.relation_changed(relation.oid)?;
    }
    // Values taken under a definition that is rolled back come again.
    if spec.restart.is_some() || def != *old {
        put_in_new_file(ctx, relation, relation.persistence, new_state)?;
    }
    Ok(())
}
