//! Expressions that catalogs keep: bound once to check them, stored as text.
//!
//! Relations named by a `regclass` constant are stored by OID, so that the text survives a rename and does not depend on the
//! search path; `executor::catalog_function` shows them by name again.

use pg_query::NodeEnum;
use pg_query::protobuf::{self, Node, a_const};

use super::nodes;
use crate::executor::SessionContext;
use crate::executor::front_end::TableExpr;
use crate::sql::catalog::names::split_identifiers;
use crate::sql::catalog::relation::Relation;
use crate::sql::types::Oid;
use crate::sqlstate::SqlError;

/// An expression as checked and as stored.
pub(crate) struct Stored {
    /// Bound.
    pub expr: TableExpr,
    /// Text for the catalog.
    pub text: String,
    /// Relations it names.
    pub relations: Vec<Oid>,
}

/// Checks an expression and makes its stored form.
pub(crate) fn store(
    ctx: &mut SessionContext,
    node: &Node,
    relation: Option<&Relation>,
    target: Option<(Oid, i32)>,
    what: &'static str,
) -> Result<Stored, SqlError> {
    let mut node = node.clone();
    let mut relations = Vec::new();
    fix_names(ctx, &mut node, &mut relations)?;
    let front_end = ctx.front_end;
    let expr = front_end.table_expression(ctx, &node, relation, target, what)?;
    let text = canonical(ctx, &node, relation, target, what)?;
    Ok(Stored { expr, text, relations })
}

/// The text PostgreSQL would show, if it means the same when read again; else the parser's own.
pub(crate) fn canonical(
    ctx: &mut SessionContext,
    node: &Node,
    relation: Option<&Relation>,
    target: Option<(Oid, i32)>,
    what: &'static str,
) -> Result<String, SqlError> {
    let front_end = ctx.front_end;
    if let Ok(text) = front_end.expression_text(ctx, node, relation, target, what)
        && let Ok(again) = parse_text(ctx, &text)
        && front_end.expression_text(ctx, &again, relation, target, what).is_ok_and(|second| second == text)
    {
        return Ok(text);
    }
    front_end.deparse(node)
}

/// Functions whose first argument is a `regclass`.
fn takes_regclass(name: &str) -> bool {
    matches!(name, "nextval" | "currval" | "setval")
}

/// Replaces names in `regclass` constants by OIDs.
fn fix_names(ctx: &mut SessionContext, node: &mut Node, relations: &mut Vec<Oid>) -> Result<(), SqlError> {
    let Some(inner) = &mut node.node else { return Ok(()) };
    #[expect(clippy::wildcard_enum_match_arm, reason = "only nodes with expressions inside matter")]
    match inner {
        NodeEnum::TypeCast(cast) => {
            let names = cast.type_name.as_ref().map(|t| nodes::strings(&t.names)).unwrap_or_default();
            if names.last() == Some(&"regclass")
                && let Some(arg) = &mut cast.arg
            {
                return fix_constant(ctx, arg, relations);
            }
            cast.arg.as_deref_mut().map_or(Ok(()), |arg| fix_names(ctx, arg, relations))
        }
        NodeEnum::FuncCall(call) => {
            if nodes::strings(&call.funcname).last().is_some_and(|n| takes_regclass(n))
                && let Some(first) = call.args.first_mut()
                && matches!(first.node, Some(NodeEnum::AConst(_)))
            {
                fix_constant(ctx, first, relations)?;
                let constant = std::mem::take(first);
                let name = Node { node: Some(NodeEnum::String(protobuf::String { sval: "regclass".into() })) };
                let type_name = protobuf::TypeName { names: vec![name], typemod: -1, location: -1, ..Default::default() };
                let cast = protobuf::TypeCast { arg: Some(Box::new(constant)), type_name: Some(type_name), location: -1 };
                first.node = Some(NodeEnum::TypeCast(Box::new(cast)));
            }
            call.args.iter_mut().try_for_each(|arg| fix_names(ctx, arg, relations))
        }
        NodeEnum::AExpr(e) => {
            let sides = [e.lexpr.as_deref_mut(), e.rexpr.as_deref_mut()];
            sides.into_iter().flatten().try_for_each(|side| fix_names(ctx, side, relations))
        }
        NodeEnum::BoolExpr(e) => e.args.iter_mut().try_for_each(|arg| fix_names(ctx, arg, relations)),
        NodeEnum::CoalesceExpr(e) => e.args.iter_mut().try_for_each(|arg| fix_names(ctx, arg, relations)),
        NodeEnum::List(list) => list.items.iter_mut().try_for_each(|item| fix_names(ctx, item, relations)),
        _ => Ok(()),
    }
}

fn fix_constant(ctx: &mut SessionContext, node: &mut Node, relations: &mut Vec<Oid>) -> Result<(), SqlError> {
    let Some(NodeEnum::AConst(constant)) = &mut node.node else { return Ok(()) };
    let Some(a_const::Val::Sval(text)) = &mut constant.val else { return Ok(()) };
    let oid = match text.sval.parse::<Oid>() {
        Ok(oid) => oid,
        Err(_) => {
            let parts = split_identifiers(&text.sval, '.').unwrap_or_default();
            let (schema, name) = match parts.as_slice() {
                [name] => (None, name.as_str()),
                [schema, name] | [_, schema, name] => (Some(schema.as_str()), name.as_str()),
                _ => return Ok(()),
            };
            ctx.catalog.open_relation(schema, name)?.oid
        }
    };
    relations.push(oid);
    text.sval = oid.to_string();
    Ok(())
}

/// Reads stored expression text.
pub(crate) fn parse_text(ctx: &SessionContext, text: &str) -> Result<Node, SqlError> {
    let statements = ctx.front_end.parse(&format!("SELECT {text}"))?;
    if let Some(statement) = statements.first()
        && let NodeEnum::SelectStmt(select) = &*statement.node
        && let Some(NodeEnum::ResTarget(target)) = select.target_list.first().and_then(|n| n.node.as_ref())
        && let Some(value) = &target.val
    {
        return Ok((**value).clone());
    }
    Err(SqlError::internal(format!("stored expression does not parse: {text}")))
}
