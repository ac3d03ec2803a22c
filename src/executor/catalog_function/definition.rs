//! Definitions as SQL text: `pg_get_expr`, `pg_get_indexdef`, `pg_get_constraintdef`, `pg_get_viewdef`, functions' arguments.
//!
//! PostgreSQL: utils/adt/ruleutils.c.

use pg_query::NodeEnum;

use crate::executor::SessionContext;
use crate::executor::ddl::expression::parse_text;
use crate::executor::ddl::view::stored_text;
use crate::sql::catalog::compiled::collation_name;
use crate::sql::catalog::load::{CatalogReader, EXPRESSION_SEPARATOR, by, trigger};
use crate::sql::catalog::names::{quote_identifier, quote_qualified, split_identifiers};
use crate::sql::catalog::relation::{Constraint, ConstraintKind, FkAction, FkMatch, Index, RelKind, Relation, Source, Trigger};
use crate::sql::catalog::schema::{pg_constraint, pg_trigger};
use crate::sql::functions::registry::{BTREE_AM, all_opclasses, default_opclass, proc_by_oid};
use crate::sql::functions::{CallTypes, ProcEntry};
use crate::sql::types::{Datum, NameLookup, ObjectKind, Oid};
use crate::sqlstate::SqlError;

pub(super) fn call(
    ctx: &mut SessionContext,
    func: &'static ProcEntry,
    _types: &CallTypes,
    args: &[Datum],
) -> Result<Option<Datum>, SqlError> {
    // A wrap column implies it.
    let with_pretty = || args.len() > 1 && !matches!(args.last(), Some(Datum::Bool(false)));
    let pretty = || args.last().is_some_and(Datum::is_true);
    let text = |value: Option<String>| Ok(Some(value.map_or(Datum::Null, Datum::text)));
    match func.source {
        "pg_get_expr" | "pg_get_expr_ext" => {
            let stored = args[0].as_str()?.to_owned();
            let pretty = func.source == "pg_get_expr_ext" && pretty();
            let relation = match args[1].as_oid()? {
                0 => None,
                oid => ctx.catalog.relation(oid)?,
            };
            let mut out = Vec::new();
            for part in stored.split(EXPRESSION_SEPARATOR) {
                out.push(expression_text(ctx, part, relation.as_deref(), pretty)?);
            }
            text(Some(out.join(", ")))
        }
        "pg_get_indexdef" => text(index_definition(ctx, args[0].as_oid()?, 0, false)?),
        "pg_get_indexdef_ext" => text(index_definition(ctx, args[0].as_oid()?, args[1].as_i32()?, pretty())?),
        "pg_get_constraintdef" => text(constraint_definition(ctx, args[0].as_oid()?, false)?),
        "pg_get_constraintdef_ext" => text(constraint_definition(ctx, args[0].as_oid()?, pretty())?),
        "pg_get_viewdef" | "pg_get_viewdef_ext" | "pg_get_viewdef_wrap" => {
            let relation = ctx.catalog.relation(args[0].as_oid()?)?;
            match relation {
                Some(relation) => text(view_definition(ctx, &relation, with_pretty())?),
                None => text(None),
            }
        }
        "pg_get_viewdef_name" | "pg_get_viewdef_name_ext" => {
            let parts = split_identifiers(args[0].as_str()?, '.').unwrap_or_default();
            let (schema, name) = match parts.as_slice() {
                [name] => (None, name.as_str()),
                [schema, name] => (Some(schema.as_str()), name.as_str()),
                _ => return Ok(Some(Datum::Null)),
            };
            let relation = ctx.catalog.open_relation(schema, name)?;
            text(view_definition(ctx, &relation, with_pretty())?)
        }
        "pg_get_triggerdef" => text(trigger_definition(ctx, args[0].as_oid()?, false)?),
        "pg_get_triggerdef_ext" => text(trigger_definition(ctx, args[0].as_oid()?, pretty())?),
        "pg_get_ruledef"
        | "pg_get_ruledef_ext"
        | "pg_get_partkeydef"
        | "pg_get_partition_constraintdef"
        | "pg_get_statisticsobjdef"
        | "pg_get_statisticsobjdef_columns"
        | "pg_get_statisticsobjdef_expressions"
        | "pg_get_function_sqlbody" => Ok(Some(Datum::Null)),
        "pg_get_function_arguments" => text(function(ctx, args)?.map(|p| arguments(ctx, p, true))),
        "pg_get_function_identity_arguments" => text(function(ctx, args)?.map(|p| arguments(ctx, p, false))),
        "pg_get_function_result" => text(function(ctx, args)?.and_then(|f| function_result(ctx, f))),
        "pg_get_function_arg_default" => Ok(Some(Datum::Null)),
        "pg_get_functiondef" => match function(ctx, args)? {
            Some(p) => text(Some(function_definition(ctx, p)?)),
            None => text(None),
        },
        _ => Ok(None),
    }
}

/// CREATE TRIGGER, as PostgreSQL writes it.
fn trigger_definition(ctx: &mut SessionContext, oid: Oid, pretty: bool) -> Result<Option<String>, SqlError> {
    let Some(row) = ctx.catalog.reader()?.row(&pg_trigger::DEF, by::TRIGGER_OID, &[Datum::Oid(oid)])? else { return Ok(None) };
    let t = trigger(&row)?;
    let Some(table) = ctx.catalog.relation(row.oid(pg_trigger::tgrelid)?)? else { return Ok(None) };
    let named = |ctx: &SessionContext, relation: &Relation| -> Result<String, SqlError> {
        let schema = if ctx.catalog.is_visible(relation)? { None } else { Some(&*relation.namespace_name) };
        Ok(quote_qualified(schema, &relation.name))
    };
    let timing = match t.kind & Trigger::TIMING {
        Trigger::BEFORE => "BEFORE",
        Trigger::INSTEAD => "INSTEAD OF",
        _ => "AFTER",
    };
    let mut events = Vec::new();
    for (bit, word) in
        [(Trigger::INSERT, "INSERT"), (Trigger::DELETE, "DELETE"), (Trigger::UPDATE, "UPDATE"), (Trigger::TRUNCATE, "TRUNCATE")]
    {
        if t.kind & bit == 0 {
            continue;
        }
        let names: Vec<String> = t.columns.iter().filter_map(|n| table.attribute(*n)).map(|c| quote_identifier(&c.name)).collect();
        let of = if bit == Trigger::UPDATE && !names.is_empty() { format!(" OF {}", names.join(", ")) } else { String::new() };
        events.push(format!("{word}{of}"));
    }
    let mut out = format!(
        "CREATE {}TRIGGER {} {timing} {} ON {} ",
        if t.constraint != 0 { "CONSTRAINT " } else { "" },
        quote_identifier(&t.name),
        events.join(" OR "),
        if pretty { named(ctx, &table)? } else { quote_qualified(Some(&table.namespace_name), &table.name) },
    );
    if t.constraint != 0 {
        if let Some(other) = ctx.catalog.relation(t.other)?.filter(|_| t.other != 0) {
            out.push_str(&format!("FROM {} ", named(ctx, &other)?));
        }
        out.push_str(if t.deferrable { "DEFERRABLE INITIALLY " } else { "NOT DEFERRABLE INITIALLY " });
        out.push_str(if t.deferred { "DEFERRED " } else { "IMMEDIATE " });
    }
    out.push_str(if t.kind & Trigger::ROW != 0 { "FOR EACH ROW " } else { "FOR EACH STATEMENT " });
    if let Some(condition) = &t.condition {
        let front_end = ctx.front_end;
        let shown = front_end.shown_condition(ctx, condition, &table, pretty)?;
        out.push_str(&format!("WHEN ({shown}) "));
    }
    let function = match ctx.catalog.function(t.function)? {
        Some(f) => {
            let found = ctx.catalog.functions(None, f.entry.name)?.into_iter().find(|g| g.args.is_empty());
            let schema = ctx.catalog.namespace_name(f.namespace)?;
            quote_qualified(schema.as_deref().filter(|_| found.is_none_or(|g| g.oid != t.function)), f.entry.name)
        }
        None => t.function.to_string(),
    };
    let args: Vec<String> = t.args.iter().map(|a| crate::sql::catalog::names::quote_literal(a)).collect();
    out.push_str(&format!("EXECUTE FUNCTION {function}({})", args.join(", ")));
    Ok(Some(out))
}

/// Stored expression text as shown: relations by name; `pretty` leaves out parentheses that change nothing.
fn expression_text(ctx: &mut SessionContext, stored: &str, relation: Option<&Relation>, pretty: bool) -> Result<String, SqlError> {
    let front_end = ctx.front_end;
    if pretty && let Ok(text) = front_end.shown_expression(ctx, stored, relation) {
        return Ok(text);
    }
    show_relations(ctx, stored)
}

/// Replaces `'16384'::regclass` by the relation's name.
fn show_relations(ctx: &SessionContext, stored: &str) -> Result<String, SqlError> {
    const MARK: &str = "'::regclass";
    let mut out = String::new();
    let mut rest = stored;
    while let Some(at) = rest.find(MARK) {
        let before = &rest[..at];
        let start = before.rfind('\'').map_or(0, |i| i + 1);
        let digits = &before[start..];
        match digits.parse::<Oid>() {
            Ok(oid) => {
                out.push_str(&before[..start]);
                match ctx.catalog.name_of(ObjectKind::Relation, oid)? {
                    Some((schema, name)) => out.push_str(&quote_qualified(schema.as_deref(), &name).replace('\'', "''")),
                    None => out.push_str(digits),
                }
            }
            Err(_) => out.push_str(before),
        }
        out.push_str(MARK);
        rest = &rest[at + MARK.len()..];
    }
    out.push_str(rest);
    Ok(out)
}

/// True if the expression stands in an index definition without parentheses.
fn looks_like_function(ctx: &SessionContext, text: &str) -> bool {
    let Ok(node) = parse_text(ctx, text) else { return false };
    matches!(node.node, Some(NodeEnum::FuncCall(_) | NodeEnum::CoalesceExpr(_) | NodeEnum::MinMaxExpr(_) | NodeEnum::NullIfExpr(_)))
}

fn index_definition(ctx: &mut SessionContext, oid: Oid, column: i32, pretty: bool) -> Result<Option<String>, SqlError> {
    let Some((table, index)) = ctx.catalog.index(oid)? else { return Ok(None) };
    if column != 0 {
        let Some(found) = usize::try_from(column - 1).ok().and_then(|i| index.columns.get(i)) else { return Ok(None) };
        return match (&found.expression, table.attribute(found.attnum)) {
            (Some(text), _) => {
                let shown = expression_text(ctx, text, Some(&table), pretty)?;
                Ok(Some(if looks_like_function(ctx, text) || !pretty { shown } else { format!("({shown})") }))
            }
            (None, Some(c)) => Ok(Some(quote_identifier(&c.name))),
            (None, None) => Ok(None),
        };
    }
    let visible = pretty && ctx.catalog.is_visible(&table)?;
    let schema = if visible { None } else { Some(&*table.namespace_name) };
    let mut out = format!(
        "CREATE {}INDEX {} ON {} USING {} (",
        if index.unique { "UNIQUE " } else { "" },
        quote_identifier(&index.name),
        quote_qualified(schema, &table.name),
        index.method
    );
    out.push_str(&key_columns(ctx, &table, &index, pretty)?);
    out.push(')');
    if index.columns.len() > index.n_key {
        let names: Vec<String> =
            index.columns[index.n_key..].iter().filter_map(|c| table.attribute(c.attnum)).map(|c| quote_identifier(&c.name)).collect();
        out.push_str(&format!(" INCLUDE ({})", names.join(", ")));
    }
    if index.nulls_not_distinct {
        out.push_str(" NULLS NOT DISTINCT");
    }
    if !index.options.is_empty() {
        out.push_str(&format!(" WITH ({})", options_text(&index.options)));
    }
    if let Some(predicate) = &index.predicate {
        out.push_str(&format!(" WHERE {}", expression_text(ctx, predicate, Some(&table), pretty)?));
    }
    Ok(Some(out))
}

fn options_text(options: &[std::sync::Arc<str>]) -> String {
    let one = |o: &std::sync::Arc<str>| match o.split_once('=') {
        // As PostgreSQL's `flatten_reloptions`: a value that could be an identifier stands as it is.
        Some((name, value)) if quote_identifier(value) == value => format!("{}={value}", quote_identifier(name)),
        Some((name, value)) => format!("{}='{}'", quote_identifier(name), value.replace('\'', "''")),
        None => o.to_string(),
    };
    options.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn key_columns(ctx: &mut SessionContext, table: &Relation, index: &Index, pretty: bool) -> Result<String, SqlError> {
    let mut parts = Vec::new();
    for c in index.keys() {
        let mut part = match (&c.expression, table.attribute(c.attnum)) {
            (Some(text), _) => {
                let shown = expression_text(ctx, text, Some(table), pretty)?;
                if looks_like_function(ctx, text) { shown } else { format!("({shown})") }
            }
            (None, Some(column)) => quote_identifier(&column.name),
            (None, None) => "?".to_owned(),
        };
        let own =
            table.attribute(c.attnum).map_or_else(|| crate::sql::catalog::compiled::type_collation(c.type_oid), |column| column.collation);
        if c.collation != 0
            && c.collation != own
            && let Some(name) = collation_name(c.collation)
        {
            part.push_str(&format!(" COLLATE {}", quote_identifier(name)));
        }
        if default_opclass(BTREE_AM, c.type_oid).is_some_and(|o| o.oid != c.opclass)
            && let Some(class) = all_opclasses().iter().find(|o| o.oid == c.opclass)
        {
            part.push_str(&format!(" {}", class.name));
        }
        match (c.desc, c.nulls_first) {
            (true, true) => part.push_str(" DESC"),
            (true, false) => part.push_str(" DESC NULLS LAST"),
            (false, true) => part.push_str(" NULLS FIRST"),
            (false, false) => {}
        }
        parts.push(part);
    }
    Ok(parts.join(", "))
}

fn constraint_definition(ctx: &mut SessionContext, oid: Oid, pretty: bool) -> Result<Option<String>, SqlError> {
    let row = ctx.catalog.reader()?.row(&pg_constraint::DEF, by::CONSTRAINT_OID, &[Datum::Oid(oid)])?;
    let Some(row) = row else { return Ok(None) };
    let Some(relation) = ctx.catalog.relation(row.oid(pg_constraint::conrelid)?)? else { return Ok(None) };
    if let Some(check) = relation.checks.iter().find(|c| c.oid == oid) {
        let mut out = format!("CHECK ({})", expression_text(ctx, &check.expression, Some(&relation), pretty)?);
        if check.no_inherit {
            out.push_str(" NO INHERIT");
        }
        if !check.validated {
            out.push_str(" NOT VALID");
        }
        return Ok(Some(out));
    }
    match relation.constraints.iter().find(|c| c.oid == oid) {
        Some(constraint) => Ok(Some(key_definition(ctx, &relation, constraint, pretty)?)),
        None => Ok(None),
    }
}

fn column_names(relation: &Relation, columns: &[i16]) -> String {
    let names = columns.iter().filter_map(|&n| relation.attribute(n)).map(|c| quote_identifier(&c.name));
    names.collect::<Vec<_>>().join(", ")
}

fn key_definition(ctx: &SessionContext, relation: &Relation, constraint: &Constraint, pretty: bool) -> Result<String, SqlError> {
    let mut out = match &constraint.kind {
        ConstraintKind::Primary | ConstraintKind::Unique => {
            let primary = constraint.kind == ConstraintKind::Primary;
            let index = relation.indexes.iter().find(|i| i.oid == constraint.index);
            let mut out = String::from(if primary { "PRIMARY KEY" } else { "UNIQUE" });
            if index.is_some_and(|i| i.nulls_not_distinct) {
                out.push_str(" NULLS NOT DISTINCT");
            }
            out.push_str(&format!(" ({})", column_names(relation, &constraint.columns)));
            if let Some(index) = index.filter(|i| i.columns.len() > i.n_key) {
                let included: Vec<i16> = index.columns[index.n_key..].iter().map(|c| c.attnum).collect();
                out.push_str(&format!(" INCLUDE ({})", column_names(relation, &included)));
            }
            if let Some(index) = index.filter(|i| !i.options.is_empty() && !pretty) {
                out.push_str(&format!(" WITH ({})", options_text(&index.options)));
            }
            out
        }
        ConstraintKind::Foreign(foreign) => {
            let other = ctx.catalog.relation(foreign.table)?;
            let (name, columns) = match &other {
                Some(other) => {
                    let visible = pretty && ctx.catalog.is_visible(other)? || ctx.catalog.is_visible(other)?;
                    let schema = if visible { None } else { Some(&*other.namespace_name) };
                    (quote_qualified(schema, &other.name), column_names(other, &foreign.columns))
                }
                None => (foreign.table.to_string(), String::new()),
            };
            let mine = column_names(relation, &constraint.columns);
            let mut out = format!("FOREIGN KEY ({mine}) REFERENCES {name}({columns})");
            if foreign.match_type == FkMatch::Full {
                out.push_str(" MATCH FULL");
            }
            for (what, action) in [("UPDATE", foreign.on_update), ("DELETE", foreign.on_delete)] {
                let action = match action {
                    FkAction::NoAction => continue,
                    FkAction::Restrict => "RESTRICT",
                    FkAction::Cascade => "CASCADE",
                    FkAction::SetNull => "SET NULL",
                    FkAction::SetDefault => "SET DEFAULT",
                };
                out.push_str(&format!(" ON {what} {action}"));
            }
            out
        }
        ConstraintKind::Exclusion => "EXCLUDE".to_owned(),
    };
    if constraint.deferrable {
        out.push_str(" DEFERRABLE");
    }
    if constraint.deferred {
        out.push_str(" INITIALLY DEFERRED");
    }
    if !constraint.validated {
        out.push_str(" NOT VALID");
    }
    Ok(out)
}

/// A view's query as PostgreSQL shows it; nothing for views that the server makes up.
fn view_definition(ctx: &mut SessionContext, relation: &Relation, pretty: bool) -> Result<Option<String>, SqlError> {
    let text = match (&relation.source, relation.kind) {
        (Source::View(text), _) => text.clone(),
        (_, RelKind::MatView) => match stored_text(ctx, relation)? {
            Some(text) => text,
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    let columns: Vec<_> = relation.live_columns().map(|c| c.name.clone()).collect();
    let front_end = ctx.front_end;
    front_end.shown_query(ctx, &text, &columns, pretty).map(Some)
}

/// A function's arguments as `\df` shows them. PostgreSQL: `print_function_arguments`.
fn arguments(ctx: &SessionContext, proc: &ProcEntry, with_defaults: bool) -> String {
    let names: Vec<&str> = proc.arg_names.split(' ').collect();
    let modes = proc.arg_modes.as_bytes();
    let types: &[Oid] = if proc.all_args.is_empty() { &proc.args } else { &proc.all_args };
    let inputs = proc.args.len();
    let defaults: Vec<&str> = if proc.defaults.is_empty() { Vec::new() } else { split_top_level(proc.defaults) };
    let mut out = Vec::new();
    let mut input = 0;
    for (i, &type_oid) in types.iter().enumerate() {
        let mode = modes.get(i).copied().unwrap_or(b'i');
        let is_input = matches!(mode, b'i' | b'b' | b'v');
        if mode == b't' {
            continue;
        }
        if is_input {
            input += 1;
        } else if !with_defaults {
            continue;
        }
        let mut part = String::new();
        part.push_str(match mode {
            b'o' => "OUT ",
            b'b' => "INOUT ",
            b'v' => "VARIADIC ",
            _ if proc.kind == b'p' => "IN ",
            _ => "",
        });
        if let Some(name) = names.get(i).filter(|n| !n.is_empty() && !proc.arg_names.is_empty()) {
            part.push_str(&quote_identifier(name));
            part.push(' ');
        }
        part.push_str(&ctx.type_text(type_oid));
        if with_defaults && is_input && input > inputs - proc.default_count {
            let at = input + proc.default_count - inputs - 1;
            if let Some(default) = defaults.get(at) {
                part.push_str(&format!(" DEFAULT {default}"));
            }
        }
        out.push(part);
    }
    if proc.kind == b'a' && out.is_empty() {
        return "*".to_owned();
    }
    out.join(", ")
}

/// Splits a list of expressions at its commas, not at those inside parentheses or quotes.
fn split_top_level(text: &str) -> Vec<&str> {
    let (mut out, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0_i32, false);
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'\'' => quoted = !quoted,
            b'(' | b'[' if !quoted => depth += 1,
            b')' | b']' if !quoted => depth -= 1,
            b',' if !quoted && depth == 0 => {
                out.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(text[start..].trim());
    out
}

fn function_result(ctx: &SessionContext, proc: &ProcEntry) -> Option<String> {
    if proc.kind == b'p' {
        return None;
    }
    let table: Vec<String> = proc
        .arg_modes
        .bytes()
        .enumerate()
        .filter(|(_, mode)| *mode == b't')
        .map(|(i, _)| {
            let name = proc.arg_names.split(' ').nth(i).unwrap_or_default();
            let type_oid = proc.all_args.get(i).copied().unwrap_or(0);
            format!("{} {}", quote_identifier(name), ctx.type_text(type_oid))
        })
        .collect();
    if !table.is_empty() {
        return Some(format!("TABLE({})", table.join(", ")));
    }
    let shown = ctx.type_text(proc.result);
    Some(if proc.returns_set { format!("SETOF {shown}") } else { shown })
}

/// A function by OID, built in or made by a user.
fn function(ctx: &SessionContext, args: &[Datum]) -> Result<Option<&'static ProcEntry>, SqlError> {
    let oid = args[0].as_oid()?;
    match proc_by_oid(oid) {
        Some(found) => Ok(Some(found)),
        None => Ok(ctx.catalog.function(oid)?.map(|f| f.entry)),
    }
}

fn function_definition(ctx: &SessionContext, proc: &ProcEntry) -> Result<String, SqlError> {
    let made = ctx.catalog.function(proc.oid)?;
    let schema = match &made {
        Some(f) => ctx.catalog.namespace_name(f.namespace)?.map_or_else(String::new, |n| n.to_string()),
        None => "pg_catalog".to_owned(),
    };
    let procedure = proc.kind == b'p';
    let mut out = format!(
        "CREATE OR REPLACE {} {}({})\n",
        if procedure { "PROCEDURE" } else { "FUNCTION" },
        quote_qualified(Some(&schema), proc.name),
        arguments(ctx, proc, true)
    );
    if !procedure {
        out.push_str(&format!(" RETURNS {}\n", function_result(ctx, proc).unwrap_or_default()));
    }
    let language = crate::sql::catalog::compiled::language_name(proc.language).unwrap_or("internal");
    out.push_str(&format!(" LANGUAGE {language}\n"));
    let mut flags = Vec::new();
    match proc.volatility {
        b'i' => flags.push("IMMUTABLE".to_owned()),
        b's' => flags.push("STABLE".to_owned()),
        _ => {}
    }
    match proc.parallel {
        b's' => flags.push("PARALLEL SAFE".to_owned()),
        b'r' => flags.push("PARALLEL RESTRICTED".to_owned()),
        _ => {}
    }
    if proc.strict {
        flags.push("STRICT".to_owned());
    }
    if proc.leakproof {
        flags.push("LEAKPROOF".to_owned());
    }
    let usual = if proc.language <= 13 { 1.0 } else { 100.0 };
    if (proc.cost - usual).abs() > f32::EPSILON {
        flags.push(format!("COST {}", proc.cost));
    }
    if proc.returns_set && (proc.rows - 1000.0).abs() > f32::EPSILON {
        flags.push(format!("ROWS {}", proc.rows));
    }
    if !flags.is_empty() {
        out.push_str(&format!(" {}\n", flags.join(" ")));
    }
    let mut quote = if procedure { "$procedure".to_owned() } else { "$function".to_owned() };
    while proc.source.contains(&quote) {
        quote.push('x');
    }
    out.push_str(&format!("AS {quote}${}{quote}$\n", proc.source));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_split_outside_parentheses_and_quotes() {
        assert_eq!(split_top_level("'a,b'::text, f(1, 2), 3"), ["'a,b'::text", "f(1, 2)", "3"]);
    }
}
