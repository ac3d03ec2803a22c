//! Select lists, and the names of their columns.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{self, Node, SqlValueFunctionOp, SubLinkType};

use super::expr::{Expr, ExprKind};
use super::query::{RteSource, Target};
use super::scope::{Binder, Place, string_of, strings_of};
use crate::sql::types::Oid;
use crate::sqlstate::SqlError;

impl Binder<'_> {
    /// Binds a select list or RETURNING.
    pub(super) fn target_list(&mut self, nodes: &[Node], place: Place) -> Result<Vec<Target>, SqlError> {
        let mut out = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Some(NodeEnum::ResTarget(t)) = &node.node else { continue };
            let Some(value) = &t.val else { continue };
            if let Some(stars) = self.at_place(place, |b| b.star(value))? {
                for (name, expr) in stars {
                    let origin = self.origin(&expr);
                    out.push(Target { expr, name, junk: false, origin });
                }
                continue;
            }
            let expr = self.expr_at(value, place)?;
            let name: Arc<str> = if t.name.is_empty() { Arc::from(figure_name(value)) } else { Arc::from(t.name.as_str()) };
            let origin = self.origin(&expr);
            out.push(Target { expr, name, junk: false, origin });
        }
        Ok(out)
    }

    /// The table column an expression is.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these range table entries matter here")]
    pub(super) fn origin(&self, e: &Expr) -> (Oid, i16) {
        if let ExprKind::Var(rt, att, up) = e.kind
            && let Some(rte) = self.scopes.iter().rev().nth(up).and_then(|s| s.rtable.get(rt))
        {
            match &rte.source {
                RteSource::Table(t) => return (t.oid, att),
                RteSource::Subquery(q) => {
                    if let Some(t) =
                        usize::try_from(att).ok().and_then(|a| a.checked_sub(1)).and_then(|a| q.targets.iter().filter(|t| !t.junk).nth(a))
                    {
                        return t.origin;
                    }
                }
                _ => {}
            }
        }
        (0, 0)
    }
}

/// The name a column gets from its expression.
pub(super) fn figure_name(node: &Node) -> String {
    figure(node).map_or_else(|| "?column?".to_owned(), |(name, _)| name)
}

/// Name and strength: 2 a real name, 1 a type's.
fn figure(node: &Node) -> Option<(String, u8)> {
    let strong = |s: &str| Some((s.to_owned(), 2));
    #[expect(clippy::wildcard_enum_match_arm, reason = "other nodes have no name")]
    match node.node.as_ref()? {
        NodeEnum::ColumnRef(c) => c.fields.iter().rev().find_map(string_of).map(|s| (s.to_owned(), 2)),
        NodeEnum::AIndirection(i) => {
            i.indirection.iter().rev().find_map(string_of).map(|s| (s.to_owned(), 2)).or_else(|| i.arg.as_ref().and_then(|a| figure(a)))
        }
        NodeEnum::FuncCall(f) => strings_of(&f.funcname).last().map(|s| ((*s).to_owned(), 2)),
        NodeEnum::AExpr(e) if protobuf::AExprKind::try_from(e.kind) == Ok(protobuf::AExprKind::AexprNullif) => strong("nullif"),
        NodeEnum::TypeCast(c) => match c.arg.as_ref().and_then(|a| figure(a)) {
            Some((name, 2)) => Some((name, 2)),
            weak => c.type_name.as_ref().and_then(|t| strings_of(&t.names).last().map(|s| ((*s).to_owned(), 1))).or(weak),
        },
        NodeEnum::CollateClause(c) => c.arg.as_ref().and_then(|a| figure(a)),
        NodeEnum::GroupingFunc(_) => strong("grouping"),
        NodeEnum::SubLink(s) => match SubLinkType::try_from(s.sub_link_type) {
            Ok(SubLinkType::ExistsSublink) => strong("exists"),
            Ok(SubLinkType::ArraySublink) => strong("array"),
            Ok(SubLinkType::ExprSublink) => match s.subselect.as_ref().and_then(|n| n.node.as_ref()) {
                Some(NodeEnum::SelectStmt(select)) => {
                    let mut select = &**select;
                    while let Some(left) = &select.larg {
                        select = left;
                    }
                    match select.target_list.first().and_then(|t| t.node.as_ref()) {
                        Some(NodeEnum::ResTarget(t)) if !t.name.is_empty() => Some((t.name.clone(), 2)),
                        Some(NodeEnum::ResTarget(t)) => t.val.as_ref().and_then(|v| figure(v)).map(|(n, _)| (n, 2)),
                        _ => (!select.values_lists.is_empty()).then(|| ("column1".to_owned(), 2)),
                    }
                }
                _ => None,
            },
            _ => None,
        },
        NodeEnum::CaseExpr(c) => match c.defresult.as_ref().and_then(|d| figure(d)) {
            Some((name, 2)) => Some((name, 2)),
            _ => Some(("case".to_owned(), 1)),
        },
        NodeEnum::AArrayExpr(_) => strong("array"),
        NodeEnum::RowExpr(_) => strong("row"),
        NodeEnum::CoalesceExpr(_) => strong("coalesce"),
        NodeEnum::MinMaxExpr(m) => {
            strong(if protobuf::MinMaxOp::try_from(m.op) == Ok(protobuf::MinMaxOp::IsGreatest) { "greatest" } else { "least" })
        }
        NodeEnum::SqlvalueFunction(f) => {
            use SqlValueFunctionOp as Op;
            strong(match Op::try_from(f.op).ok()? {
                Op::SvfopCurrentDate => "current_date",
                Op::SvfopCurrentTime | Op::SvfopCurrentTimeN => "current_time",
                Op::SvfopCurrentTimestamp | Op::SvfopCurrentTimestampN => "current_timestamp",
                Op::SvfopLocaltime | Op::SvfopLocaltimeN => "localtime",
                Op::SvfopLocaltimestamp | Op::SvfopLocaltimestampN => "localtimestamp",
                Op::SvfopCurrentRole => "current_role",
                Op::SvfopCurrentUser => "current_user",
                Op::SvfopUser => "user",
                Op::SvfopSessionUser => "session_user",
                Op::SvfopCurrentCatalog => "current_catalog",
                Op::SvfopCurrentSchema => "current_schema",
                Op::SqlvalueFunctionOpUndefined => return None,
            })
        }
        _ => None,
    }
}
