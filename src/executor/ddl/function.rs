//! CREATE, ALTER, DROP of functions and procedures.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AlterFunctionStmt, CreateFunctionStmt, DefElem, FunctionParameter, FunctionParameterMode, Node, ObjectType, ObjectWithArgs,
};

use super::nodes;
use crate::executor::SessionContext;
use crate::sql::catalog::cache::class;
use crate::sql::catalog::compiled::{PLPGSQL_LANGUAGE, SQL_LANGUAGE, language_by_name, oidvector, text_array};
use crate::sql::catalog::load::{CatalogReader, CatalogRow, by};
use crate::sql::catalog::names::{quote_qualified, truncate};
use crate::sql::catalog::privilege;
use crate::sql::catalog::rows::{DependKind, ObjectAddress, blank};
use crate::sql::catalog::schema::{pg_depend, pg_namespace, pg_proc};
use crate::sql::types::{ArrayValue, Datum, Oid, oids};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::Invalidation;

/// Functions changed.
pub(crate) fn changed(ctx: &mut SessionContext) -> Result<(), SqlError> {
    let invalidation = Invalidation { database: ctx.database, class: class::FUNCTION, object: 0 };
    ctx.transaction()?.invalidate(invalidation);
    ctx.refresh_catalog();
    Ok(())
}

/// What the options of CREATE and ALTER say.
#[derive(Default)]
struct Options {
    language: Option<String>,
    body: Vec<String>,
    volatility: Option<u8>,
    strict: Option<bool>,
    definer: Option<bool>,
    leakproof: Option<bool>,
    parallel: Option<u8>,
    cost: Option<f32>,
    rows: Option<f32>,
    settings: Vec<String>,
    window: bool,
}

impl Options {
    fn read(list: &[Node]) -> Result<Self, SqlError> {
        let mut out = Self::default();
        for option in nodes::options(list) {
            out.one(option)?;
        }
        Ok(out)
    }

    fn one(&mut self, option: &DefElem) -> Result<(), SqlError> {
        let text = || nodes::option_text(option).unwrap_or_default();
        match option.defname.as_str() {
            "language" => self.language = Some(text()),
            "as" => {
                self.body = match option.arg.as_ref().and_then(|a| a.node.as_ref()) {
                    Some(NodeEnum::List(list)) => nodes::strings(&list.items).into_iter().map(str::to_owned).collect(),
                    _ => vec![text()],
                }
            }
            "volatility" => {
                self.volatility = Some(match text().as_str() {
                    "immutable" => b'i',
                    "stable" => b's',
                    _ => b'v',
                });
            }
            "strict" => self.strict = Some(nodes::option_bool(option)?),
            "security" => self.definer = Some(nodes::option_bool(option)?),
            "leakproof" => self.leakproof = Some(nodes::option_bool(option)?),
            "parallel" => {
                self.parallel = Some(match text().as_str() {
                    "safe" => b's',
                    "restricted" => b'r',
                    "unsafe" => b'u',
                    _ => {
                        return Err(SqlError::new(SqlState::SYNTAX_ERROR, "parameter \"parallel\" must be SAFE, RESTRICTED, or UNSAFE"));
                    }
                });
            }
            "cost" => self.cost = text().parse().ok(),
            "rows" => self.rows = text().parse().ok(),
            "window" => self.window = true,
            "set" => {
                let Some(NodeEnum::VariableSetStmt(set)) = option.arg.as_ref().and_then(|a| a.node.as_ref()) else { return Ok(()) };
                let values: Vec<String> = set.args.iter().filter_map(nodes::value_text).collect();
                self.settings.push(format!("{}={}", set.name, values.join(", ")));
            }
            other => return Err(SqlError::unsupported(format_args!("CREATE FUNCTION ... {}", other.to_ascii_uppercase()))),
        }
        Ok(())
    }
}

struct Parameter {
    mode: u8,
    name: String,
    type_oid: Oid,
    default: Option<String>,
}

fn parameter(ctx: &mut SessionContext, p: &FunctionParameter, source: &str) -> Result<Parameter, SqlError> {
    let Some(name) = &p.arg_type else { return Err(SqlError::internal("parameter without a type")) };
    let front_end = ctx.front_end;
    let type_oid = front_end.resolve_type(ctx, name).map_err(|e| nodes::located(e, source, name.location))?.0;
    let mode = match p.mode() {
        FunctionParameterMode::FuncParamOut => b'o',
        FunctionParameterMode::FuncParamInout => b'b',
        FunctionParameterMode::FuncParamVariadic => b'v',
        FunctionParameterMode::FuncParamTable => b't',
        FunctionParameterMode::FuncParamIn | FunctionParameterMode::FuncParamDefault | FunctionParameterMode::Undefined => b'i',
    };
    let default = match &p.defexpr {
        Some(node) => Some(super::expression::store(ctx, node, None, Some((type_oid, -1)), "DEFAULT expressions")?.text),
        None => None,
    };
    Ok(Parameter { mode, name: truncate(&p.name).to_owned(), type_oid, default })
}

/// CREATE [OR REPLACE] FUNCTION and PROCEDURE.
pub(crate) fn create(ctx: &mut SessionContext, stmt: &CreateFunctionStmt, source: &str) -> Result<(), SqlError> {
    let (schema, name) = nodes::qualified(&stmt.funcname)?;
    let name = truncate(name).to_owned();
    let options = Options::read(&stmt.options)?;
    if stmt.sql_body.is_some() {
        return Err(SqlError::unsupported("a function body in SQL syntax"));
    }
    if options.window {
        return Err(SqlError::unsupported("CREATE FUNCTION ... WINDOW"));
    }
    let Some(language_name) = &options.language else {
        return Err(SqlError::new(SqlState::INVALID_FUNCTION_DEFINITION, "no language specified"));
    };
    let language = match language_by_name(language_name) {
        Some(language @ (SQL_LANGUAGE | PLPGSQL_LANGUAGE)) => language,
        Some(_) => return Err(SqlError::unsupported(format_args!("CREATE FUNCTION ... LANGUAGE {language_name}"))),
        None => {
            return Err(SqlError::new(SqlState::UNDEFINED_OBJECT, format!("language \"{language_name}\" does not exist")));
        }
    };
    let [body] = options.body.as_slice() else {
        return Err(SqlError::new(SqlState::INVALID_FUNCTION_DEFINITION, "no function body specified"));
    };
    let mut parameters = Vec::new();
    for node in &stmt.parameters {
        if let Some(NodeEnum::FunctionParameter(p)) = &node.node {
            parameters.push(parameter(ctx, p, source)?);
        }
    }
    if parameters.len() > 100 {
        return Err(SqlError::new(SqlState::TOO_MANY_ARGUMENTS, "functions cannot have more than 100 arguments"));
    }
    let inputs: Vec<&Parameter> = parameters.iter().filter(|p| matches!(p.mode, b'i' | b'b' | b'v')).collect();
    let outputs: Vec<Oid> = parameters.iter().filter(|p| matches!(p.mode, b'o' | b'b' | b't')).map(|p| p.type_oid).collect();
    let first_default = inputs.iter().position(|p| p.default.is_some()).unwrap_or(inputs.len());
    if inputs.iter().skip(first_default).any(|p| p.default.is_none()) {
        return Err(SqlError::new(
            SqlState::INVALID_FUNCTION_DEFINITION,
            "input parameters after one with a default value must also have defaults",
        ));
    }
    let implied = match outputs.as_slice() {
        [] => None,
        [one] => Some(*one),
        _ => Some(oids::RECORD),
    };
    let is_table = parameters.iter().any(|p| p.mode == b't');
    let (result, set) = match &stmt.return_type {
        Some(_) if is_table => (implied.unwrap_or(oids::RECORD), true),
        Some(ty) => {
            let front_end = ctx.front_end;
            let found = front_end.resolve_type(ctx, ty)?.0;
            if let Some(implied) = implied
                && implied != found
            {
                let message = format!("function result type must be {} because of OUT parameters", ctx.type_text(implied));
                return Err(SqlError::new(SqlState::INVALID_FUNCTION_DEFINITION, message));
            }
            (found, ty.setof)
        }
        None if stmt.is_procedure => (implied.unwrap_or(0), false),
        None => match implied {
            Some(implied) => (implied, false),
            None => return Err(SqlError::new(SqlState::INVALID_FUNCTION_DEFINITION, "function result type must be specified")),
        },
    };
    let result = if stmt.is_procedure && outputs.is_empty() { oids::VOID } else { result };
    if result == oids::TRIGGER {
        if language == SQL_LANGUAGE {
            return Err(SqlError::new(SqlState::INVALID_FUNCTION_DEFINITION, "SQL functions cannot return type trigger"));
        }
        if !inputs.is_empty() {
            return Err(SqlError::new(SqlState::INVALID_FUNCTION_DEFINITION, "trigger functions cannot have declared arguments")
                .hint("The arguments of the trigger can be accessed through TG_NARGS and TG_ARGV instead."));
        }
    }
    let namespace = ctx.creation_namespace(schema)?;
    let types: Vec<Oid> = inputs.iter().map(|p| p.type_oid).collect();
    let key = [Datum::text(&name), oidvector(&types), Datum::Oid(namespace)];
    let old = ctx.catalog_reader()?.row(&pg_proc::DEF, by::PROC_NAME, &key)?;
    let kind = if stmt.is_procedure { b'p' } else { b'f' };
    if let Some(old) = &old {
        if !stmt.replace {
            let message = format!("function \"{name}\" already exists with same argument types");
            return Err(SqlError::new(SqlState::DUPLICATE_FUNCTION, message));
        }
        check_owner(ctx, old)?;
        if old.char(pg_proc::prokind)? != kind {
            let e = SqlError::new(SqlState::WRONG_OBJECT_TYPE, "cannot change routine kind");
            let what = if kind == b'f' { "procedure" } else { "function" };
            return Err(e.detail(format!("\"{name}\" is a {what}.")));
        }
        if old.oid(pg_proc::prorettype)? != result || old.bool(pg_proc::proretset)? != set {
            let types: Vec<String> = types.iter().map(|&t| ctx.type_text(t)).collect();
            return Err(SqlError::new(SqlState::INVALID_FUNCTION_DEFINITION, "cannot change return type of existing function")
                .hint(format!("Use DROP FUNCTION {name}({}) first.", types.join(","))));
        }
    }
    let oid = match &old {
        Some(old) => old.oid(pg_proc::oid)?,
        None => ctx.new_oid(&pg_proc::DEF, by::PROC_OID)?,
    };
    let owner = match &old {
        Some(old) => old.oid(pg_proc::proowner)?,
        None => ctx.user,
    };
    let mut row = blank(&pg_proc::DEF);
    row[pg_proc::oid] = Datum::Oid(oid);
    row[pg_proc::proname] = Datum::text(&name);
    row[pg_proc::pronamespace] = Datum::Oid(namespace);
    row[pg_proc::proowner] = Datum::Oid(owner);
    row[pg_proc::prolang] = Datum::Oid(language);
    row[pg_proc::procost] = Datum::Float4(options.cost.unwrap_or(100.0));
    row[pg_proc::prorows] = Datum::Float4(if set { options.rows.unwrap_or(1000.0) } else { 0.0 });
    let variadic = parameters.iter().find(|p| p.mode == b'v').map(|p| p.type_oid);
    row[pg_proc::provariadic] = Datum::Oid(variadic.map_or(0, |t| crate::sql::types::registry::element_type(t).unwrap_or(0)));
    row[pg_proc::prosupport] = Datum::Oid(0);
    row[pg_proc::prokind] = Datum::Char(kind);
    row[pg_proc::prosecdef] = Datum::Bool(options.definer.unwrap_or(false));
    row[pg_proc::proleakproof] = Datum::Bool(options.leakproof.unwrap_or(false));
    row[pg_proc::proisstrict] = Datum::Bool(options.strict.unwrap_or(false));
    row[pg_proc::proretset] = Datum::Bool(set);
    row[pg_proc::provolatile] = Datum::Char(options.volatility.unwrap_or(b'v'));
    row[pg_proc::proparallel] = Datum::Char(options.parallel.unwrap_or(b'u'));
    row[pg_proc::pronargs] = Datum::Int2(i16::try_from(types.len()).unwrap_or(i16::MAX));
    row[pg_proc::pronargdefaults] = Datum::Int2(i16::try_from(inputs.len() - first_default).unwrap_or(0));
    row[pg_proc::prorettype] = Datum::Oid(result);
    row[pg_proc::proargtypes] = oidvector(&types);
    if parameters.iter().any(|p| p.mode != b'i') {
        let all = parameters.iter().map(|p| Datum::Oid(p.type_oid)).collect();
        row[pg_proc::proallargtypes] = Datum::array(ArrayValue::one_dim(oids::OID, all));
        let modes = parameters.iter().map(|p| Datum::Char(p.mode)).collect();
        row[pg_proc::proargmodes] = Datum::array(ArrayValue::one_dim(oids::CHAR, modes));
    }
    if parameters.iter().any(|p| !p.name.is_empty()) {
        row[pg_proc::proargnames] = text_array(&parameters.iter().map(|p| p.name.as_str()).collect::<Vec<_>>());
    }
    let defaults: Vec<&str> = inputs.iter().filter_map(|p| p.default.as_deref()).collect();
    if !defaults.is_empty() {
        row[pg_proc::proargdefaults] = Datum::text(defaults.join(", "));
    }
    row[pg_proc::prosrc] = Datum::text(body);
    if !options.settings.is_empty() {
        row[pg_proc::proconfig] = text_array(&options.settings);
    }
    match &old {
        Some(old) => {
            let changes: Vec<(usize, Datum)> = row.iter().cloned().enumerate().filter(|(i, _)| *i != pg_proc::proacl).collect();
            ctx.writer()?.set(&pg_proc::DEF, old, &changes)?;
        }
        None => {
            ctx.writer()?.insert(&pg_proc::DEF, &row)?;
            let address = ObjectAddress::new(pg_proc::ID, oid);
            ctx.depend(address, ObjectAddress::new(pg_namespace::ID, namespace), DependKind::Normal)?;
            ctx.depend_on_owner(address, owner, false)?;
            let mut types: Vec<Oid> = parameters.iter().map(|p| p.type_oid).chain([result]).collect();
            types.sort_unstable();
            types.dedup();
            for type_oid in types {
                ctx.depend_on_type(address, type_oid)?;
            }
        }
    }
    changed(ctx)?;
    if ctx.settings.bool(crate::config::Setting::CheckFunctionBodies)
        && let Some(made) = ctx.catalog.function(oid)?
    {
        let front_end = ctx.front_end;
        front_end.check_routine(ctx, made.entry, source)?;
    }
    Ok(())
}

fn check_owner(ctx: &SessionContext, row: &CatalogRow) -> Result<(), SqlError> {
    if !ctx.catalog.has_privileges_of(ctx.user, row.oid(pg_proc::proowner)?)? {
        let message = format!("must be owner of function {}", row.str(pg_proc::proname)?);
        return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message));
    }
    Ok(())
}

/// The row of the function a statement names, checked for its owner. `None`: there is none, and that is fine.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these kinds of objects come here")]
pub(crate) fn find(
    ctx: &mut SessionContext,
    object: &ObjectWithArgs,
    kind: ObjectType,
    missing_ok: bool,
) -> Result<Option<CatalogRow>, SqlError> {
    let (schema, name) = nodes::qualified(&object.objname)?;
    let noun = match kind {
        ObjectType::ObjectProcedure => "procedure",
        ObjectType::ObjectRoutine => "routine",
        _ => "function",
    };
    let mut types = Vec::new();
    for node in &object.objargs {
        if let Some(NodeEnum::TypeName(ty)) = &node.node {
            let front_end = ctx.front_end;
            types.push(front_end.resolve_type(ctx, ty)?.0);
        }
    }
    let mut found = ctx.catalog.functions(schema, name)?;
    if !object.args_unspecified {
        found.retain(|f| *f.args == *types);
    }
    let any = !found.is_empty();
    match kind {
        ObjectType::ObjectProcedure => found.retain(|f| f.kind == b'p'),
        ObjectType::ObjectFunction => found.retain(|f| f.kind != b'p'),
        _ => {}
    }
    let shown = || {
        let types: Vec<String> = types.iter().map(|&t| ctx.type_text(t)).collect();
        let name = quote_qualified(schema, name);
        if object.args_unspecified { name } else { format!("{name}({})", types.join(",")) }
    };
    if any && found.is_empty() {
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("{} is not a {noun}", shown())));
    }
    match found.as_slice() {
        [one] => {
            let row = ctx.catalog_reader()?.row(&pg_proc::DEF, by::PROC_OID, &[Datum::Oid(one.oid)])?;
            let Some(row) = row else { return Ok(None) };
            check_owner(ctx, &row)?;
            Ok(Some(row))
        }
        [] if missing_ok => {
            let message = format!("{noun} {} does not exist, skipping", shown());
            ctx.notice_with(SqlState::SUCCESSFUL_COMPLETION, message);
            Ok(None)
        }
        [] => {
            let message = if object.args_unspecified {
                format!("could not find a {noun} named \"{name}\"")
            } else {
                format!("{noun} {} does not exist", shown())
            };
            Err(SqlError::new(SqlState::UNDEFINED_FUNCTION, message))
        }
        _ => Err(SqlError::new(SqlState::AMBIGUOUS_FUNCTION, format!("{noun} name \"{name}\" is not unique"))
            .hint(format!("Specify the argument list to select the {noun} unambiguously."))),
    }
}

/// The function a node names.
pub(crate) fn object(node: &Node) -> Result<&ObjectWithArgs, SqlError> {
    match &node.node {
        Some(NodeEnum::ObjectWithArgs(object)) => Ok(object),
        _ => Err(SqlError::internal("not a function's name")),
    }
}

/// `42723` if the schema has a function of that name and the row's arguments already.
fn check_free(ctx: &mut SessionContext, row: &CatalogRow, name: &str, namespace: Oid) -> Result<(), SqlError> {
    let types = row.oids(pg_proc::proargtypes)?;
    let key = [Datum::text(name), oidvector(&types), Datum::Oid(namespace)];
    if ctx.catalog_reader()?.row(&pg_proc::DEF, by::PROC_NAME, &key)?.is_none() {
        return Ok(());
    }
    let shown: Vec<String> = types.iter().map(|&t| ctx.type_text(t)).collect();
    let schema = ctx.catalog.namespace_name(namespace)?.unwrap_or_else(|| "?".into());
    let noun = if row.char(pg_proc::prokind)? == b'p' { "procedure" } else { "function" };
    let message = format!("{noun} {name}({}) already exists in schema \"{schema}\"", shown.join(", "));
    Err(SqlError::new(SqlState::DUPLICATE_FUNCTION, message))
}

/// The row of the function that ALTER names.
fn named(ctx: &mut SessionContext, object: Option<&Node>, kind: ObjectType) -> Result<CatalogRow, SqlError> {
    let object = object.ok_or_else(|| SqlError::internal("ALTER FUNCTION of nothing"))?;
    let object = self::object(object)?;
    find(ctx, object, kind, false)?.ok_or_else(|| SqlError::internal("a function that is gone"))
}

/// ALTER FUNCTION ... RENAME TO.
pub(crate) fn rename(ctx: &mut SessionContext, object: Option<&Node>, kind: ObjectType, new: &str) -> Result<(), SqlError> {
    let row = named(ctx, object, kind)?;
    let namespace = row.oid(pg_proc::pronamespace)?;
    ctx.check_schema_create(namespace)?;
    check_free(ctx, &row, new, namespace)?;
    ctx.writer()?.set(&pg_proc::DEF, &row, &[(pg_proc::proname, Datum::text(new))])?;
    changed(ctx)
}

/// ALTER FUNCTION ... SET SCHEMA.
pub(crate) fn set_schema(ctx: &mut SessionContext, object: Option<&Node>, kind: ObjectType, schema: &str) -> Result<(), SqlError> {
    let row = named(ctx, object, kind)?;
    let namespace = ctx.creation_namespace(Some(schema))?;
    if row.oid(pg_proc::pronamespace)? == namespace {
        return Ok(());
    }
    check_free(ctx, &row, row.str(pg_proc::proname)?, namespace)?;
    ctx.writer()?.set(&pg_proc::DEF, &row, &[(pg_proc::pronamespace, Datum::Oid(namespace))])?;
    let address = ObjectAddress::new(pg_proc::ID, row.oid(pg_proc::oid)?);
    let key = [Datum::Oid(address.class), Datum::Oid(address.object), Datum::Int4(0)];
    for row in ctx.catalog_reader()?.rows(&pg_depend::DEF, by::DEPEND_DEPENDER, &key)? {
        if row.oid(pg_depend::refclassid)? == pg_namespace::ID {
            ctx.writer()?.delete(&pg_depend::DEF, &row)?;
        }
    }
    ctx.depend(address, ObjectAddress::new(pg_namespace::ID, namespace), DependKind::Normal)?;
    changed(ctx)
}

/// ALTER FUNCTION ... OWNER TO.
pub(crate) fn set_owner(ctx: &mut SessionContext, object: Option<&Node>, kind: ObjectType, owner: Oid) -> Result<(), SqlError> {
    let row = named(ctx, object, kind)?;
    if row.oid(pg_proc::proowner)? == owner {
        return Ok(());
    }
    if !ctx.is_superuser()? {
        let role = ctx.catalog.role(owner)?.map(|r| r.name.to_string()).unwrap_or_default();
        if !ctx.catalog.roles_of(ctx.user, false)?.contains(&owner) {
            return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("must be member of role \"{role}\"")));
        }
        let namespace = row.oid(pg_proc::pronamespace)?;
        if !privilege::on_namespace(&ctx.catalog, owner, namespace, privilege::CREATE)? {
            let schema = ctx.catalog.namespace_name(namespace)?.unwrap_or_else(|| "?".into());
            return Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, format!("permission denied for schema {schema}")));
        }
    }
    ctx.writer()?.set(&pg_proc::DEF, &row, &[(pg_proc::proowner, Datum::Oid(owner))])?;
    super::rename::move_owner(ctx, ObjectAddress::new(pg_proc::ID, row.oid(pg_proc::oid)?), owner, false)?;
    changed(ctx)
}

/// ALTER FUNCTION ... with options.
pub(crate) fn alter(ctx: &mut SessionContext, stmt: &AlterFunctionStmt) -> Result<(), SqlError> {
    let Some(named) = &stmt.func else { return Err(SqlError::internal("ALTER FUNCTION of nothing")) };
    let Some(row) = find(ctx, named, stmt.objtype(), false)? else { return Ok(()) };
    let options = Options::read(&stmt.actions)?;
    let mut changes = Vec::new();
    let mut set = |position: usize, value: Option<Datum>| changes.extend(value.map(|v| (position, v)));
    set(pg_proc::provolatile, options.volatility.map(Datum::Char));
    set(pg_proc::proisstrict, options.strict.map(Datum::Bool));
    set(pg_proc::prosecdef, options.definer.map(Datum::Bool));
    set(pg_proc::proleakproof, options.leakproof.map(Datum::Bool));
    set(pg_proc::proparallel, options.parallel.map(Datum::Char));
    set(pg_proc::procost, options.cost.map(Datum::Float4));
    set(pg_proc::prorows, options.rows.map(Datum::Float4));
    if !options.settings.is_empty() {
        changes.push((pg_proc::proconfig, text_array(&options.settings)));
    }
    ctx.writer()?.set(&pg_proc::DEF, &row, &changes)?;
    changed(ctx)
}
