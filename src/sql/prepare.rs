//! Statements to prepared statements: the door the session comes in by.

use std::sync::Arc;

use pg_query::{NodeEnum, protobuf};

use super::bind::deparse::Deparser;
use super::bind::{Binder, Expr, ExprKind};
use super::functions::{CallTypes, ProcEntry, SetRows};
use super::parse;
use super::plan::planner::{Deps, Layout, Level};
use super::plan::{self, Planner};
use super::plpgsql;
use super::types::{Datum, Oid, oids};
use crate::executor::front_end::TriggerCondition;
use crate::executor::plan::{PlannedStmt, TableWriter};
use crate::executor::portal::{Body, Explain, PlanCell, PlanVersion};
use crate::executor::trigger::TriggerCall;
use crate::executor::{ColumnDesc, Portal, Prepared, RawStmt, RowSink, SessionContext, SqlFrontEnd, StmtKind, TableExpr, utility};
use crate::sql::catalog::Relation;
use crate::sqlstate::{SqlError, SqlState};

/// Binding and planning, as the executor's utility statements reach them.
pub static FRONT_END: FrontEnd = FrontEnd;

/// See [`FRONT_END`].
#[derive(Debug)]
pub struct FrontEnd;

/// Binds and plans a statement. `param_types` may be short or have zeros: types not given are found out.
///
/// # Errors
/// PostgreSQL's.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
pub fn prepare(session: &mut SessionContext, statement: RawStmt, param_types: &[Oid]) -> Result<Arc<Prepared>, SqlError> {
    match statement.kind() {
        StmtKind::Select | StmtKind::Modify => {
            session.transaction()?.begin_query()?;
            let (plan, param_types, param_places) = plan_statement(session, &statement, &statement.node, param_types, false)?;
            let columns = plan.columns.clone();
            let version = PlanVersion::now(session, plan);
            Ok(Arc::new(Prepared { statement, param_types, param_places, columns, body: Body::Plan(PlanCell::new(version)) }))
        }
        StmtKind::Explain => {
            session.transaction()?.begin_query()?;
            explain(session, statement, param_types)
        }
        _ => {
            let columns = utility::describe(session, &statement)?;
            Ok(Arc::new(Prepared { statement, param_types: param_types.to_vec(), param_places: Vec::new(), columns, body: Body::Utility }))
        }
    }
}

fn plan_statement(
    session: &mut SessionContext,
    statement: &RawStmt,
    node: &NodeEnum,
    param_types: &[Oid],
    explain: bool,
) -> Result<(PlannedStmt, Vec<Oid>, Vec<u32>), SqlError> {
    let mut binder = Binder::new(session, &statement.source, param_types.to_vec(), true);
    binder.variables = binder.session.variables.clone();
    #[expect(clippy::wildcard_enum_match_arm, reason = "the caller sends queries only")]
    let query = match node {
        NodeEnum::SelectStmt(s) => binder.select(s)?,
        other => binder.modify(other)?,
    };
    let params = std::mem::take(&mut binder.params);
    let privileges = std::mem::take(&mut binder.privileges);
    let places = std::mem::take(&mut binder.param_places);
    drop(binder);
    if let Some(n) = params.iter().position(|t| *t == 0 || *t == oids::UNKNOWN) {
        let error = SqlError::new(SqlState::INDETERMINATE_DATATYPE, format!("could not determine data type of parameter ${}", n + 1));
        return Err(match places.get(n) {
            Some(place) if *place > 0 => error.at(*place),
            _ => error,
        });
    }
    Ok((plan::plan(session, &query, explain, privileges)?, params, places))
}

fn explain(session: &mut SessionContext, statement: RawStmt, param_types: &[Oid]) -> Result<Arc<Prepared>, SqlError> {
    let NodeEnum::ExplainStmt(e) = &*statement.node else { return Err(SqlError::internal("EXPLAIN")) };
    let mut options = Explain {
        plan: None,
        analyze: false,
        verbose: false,
        costs: true,
        timing: true,
        summary: false,
        buffers: false,
        json: false,
        planning: std::time::Duration::ZERO,
    };
    let (mut timing, mut summary) = (None, None);
    for node in &e.options {
        let Some(NodeEnum::DefElem(d)) = &node.node else { continue };
        let text = match d.arg.as_ref().and_then(|a| a.node.as_ref()) {
            Some(NodeEnum::String(s)) => s.sval.clone(),
            Some(NodeEnum::Integer(i)) => i.ival.to_string(),
            Some(NodeEnum::Boolean(b)) => b.boolval.to_string(),
            _ => "true".to_owned(),
        };
        let flag = || match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("{} requires a Boolean value", d.defname))),
        };
        match d.defname.as_str() {
            "analyze" => options.analyze = flag()?,
            "verbose" => options.verbose = flag()?,
            "costs" => options.costs = flag()?,
            "buffers" => options.buffers = flag()?,
            "timing" => timing = Some(flag()?),
            "summary" => summary = Some(flag()?),
            "settings" | "wal" => {
                flag()?;
            }
            "format" => match text.to_ascii_lowercase().as_str() {
                "text" => options.json = false,
                "json" => options.json = true,
                "xml" | "yaml" => return Err(SqlError::unsupported(format_args!("EXPLAIN (FORMAT {})", text.to_ascii_uppercase()))),
                _ => {
                    return Err(SqlError::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        format!("unrecognized value for EXPLAIN option \"format\": \"{text}\""),
                    ));
                }
            },
            other => return Err(SqlError::new(SqlState::SYNTAX_ERROR, format!("unrecognized EXPLAIN option \"{other}\""))),
        }
    }
    if timing == Some(true) && !options.analyze {
        return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "EXPLAIN option TIMING requires ANALYZE"));
    }
    options.timing = timing.unwrap_or(true);
    options.summary = summary.unwrap_or(options.analyze);
    let begin = std::time::Instant::now();
    let mut types = param_types.to_vec();
    match e.query.as_ref().and_then(|q| q.node.as_ref()) {
        Some(
            query @ (NodeEnum::SelectStmt(_)
            | NodeEnum::InsertStmt(_)
            | NodeEnum::UpdateStmt(_)
            | NodeEnum::DeleteStmt(_)
            | NodeEnum::MergeStmt(_)),
        ) => {
            let (plan, params, _) = plan_statement(session, &statement, query, param_types, true)?;
            options.plan = Some(Arc::new(plan));
            types = params;
        }
        Some(NodeEnum::CreateTableAsStmt(c)) => {
            if let Some(query @ NodeEnum::SelectStmt(_)) = c.query.as_ref().and_then(|q| q.node.as_ref()) {
                let (plan, params, _) = plan_statement(session, &statement, query, param_types, true)?;
                options.plan = Some(Arc::new(plan));
                types = params;
            }
        }
        _ => {}
    }
    options.planning = begin.elapsed();
    let type_oid = if options.json { oids::JSON } else { oids::TEXT };
    let columns = vec![ColumnDesc { name: Arc::from("QUERY PLAN"), table: 0, attnum: 0, type_oid, type_len: -1, typmod: -1 }];
    Ok(Arc::new(Prepared {
        statement,
        param_types: types,
        param_places: Vec::new(),
        columns: Some(columns),
        body: Body::Explain(Box::new(options)),
    }))
}

/// An execution of a prepared statement with these parameters, values of `Prepared::param_types`.
///
/// # Errors
/// The number of parameters is wrong.
pub fn open_portal(session: &mut SessionContext, prepared: Arc<Prepared>, params: Vec<Datum>) -> Result<Portal, SqlError> {
    Portal::open(session, prepared, params)
}

impl SqlFrontEnd for FrontEnd {
    fn table_expression(
        &self,
        session: &mut SessionContext,
        node: &protobuf::Node,
        relation: Option<&Relation>,
        target: Option<(Oid, i32)>,
        what: &'static str,
    ) -> Result<TableExpr, SqlError> {
        let mut binder = Binder::new(session, "", Vec::new(), false);
        let e = binder.table_expr(node, relation, target, what)?;
        let mut columns = Vec::new();
        e.visit_vars(0, &mut |_, att| {
            if !columns.contains(&att) {
                columns.push(att);
            }
        });
        columns.sort_unstable();
        let immutable = !e.calls(&|f| f.volatility != b'i') && !e.any(&|e| matches!(e.kind, ExprKind::Session(_)));
        let count = relation.map_or(0, |r| r.columns.len());
        let mut layout = Layout { width: count, ..Layout::default() };
        for i in 0..count {
            layout.vars.insert((0, i16::try_from(i + 1).unwrap_or(i16::MAX)), i);
        }
        let code = Planner::bare(session).compile(&e, &layout, &mut Deps::new())?;
        Ok(TableExpr { code: Arc::new(code), type_oid: e.ty, typmod: e.typmod, columns, immutable })
    }

    fn table_expression_text(
        &self,
        session: &mut SessionContext,
        text: &str,
        relation: Option<&Relation>,
        target: Option<(Oid, i32)>,
        what: &'static str,
    ) -> Result<TableExpr, SqlError> {
        let node = parse::parse_expression(text)?;
        self.table_expression(session, &node, relation, target, what)
    }

    fn expression_text(
        &self,
        session: &mut SessionContext,
        node: &protobuf::Node,
        relation: Option<&Relation>,
        target: Option<(Oid, i32)>,
        what: &'static str,
    ) -> Result<String, SqlError> {
        // Relations by number, so that the text does not depend on the search path.
        let names = session.io.names.take();
        let text = typed_text(session, node, relation, target, what);
        session.io.names = names;
        text
    }

    fn table_writer(&self, session: &mut SessionContext, relation: &Arc<Relation>) -> Result<TableWriter, SqlError> {
        Planner::bare(session).table_writer(relation)
    }

    fn prepare(&self, session: &mut SessionContext, statement: &RawStmt, param_types: &[Oid]) -> Result<Arc<Prepared>, SqlError> {
        prepare(session, statement.clone(), param_types)
    }

    fn resolve_type(&self, session: &mut SessionContext, name: &protobuf::TypeName) -> Result<(Oid, i32), SqlError> {
        Binder::new(session, "", Vec::new(), false).type_name(name)
    }

    fn deparse(&self, node: &protobuf::Node) -> Result<String, SqlError> {
        deparse_expression(node)
    }

    fn shown_expression(&self, session: &mut SessionContext, text: &str, relation: Option<&Relation>) -> Result<String, SqlError> {
        let node = parse::parse_expression(text)?;
        let e = Binder::new(session, "", Vec::new(), false).table_expr(&node, relation, None, "stored expressions")?;
        let names = relation.map(|r| (r.name.clone(), r.columns.iter().map(|c| c.name.clone()).collect()));
        Ok(Deparser::new(session, true).expression(&e, names))
    }

    fn shown_query(&self, session: &mut SessionContext, text: &str, columns: &[Arc<str>], pretty: bool) -> Result<String, SqlError> {
        let statements = parse::parse_statements(text)?;
        let Some(NodeEnum::SelectStmt(select)) = statements.first().map(|s| &*s.node) else {
            return Err(SqlError::internal("the definition of a view is no query"));
        };
        let query = Binder::new(session, "", Vec::new(), false).select(select)?;
        Ok(Deparser::new(session, pretty).view(&query, columns))
    }

    fn deparse_query(&self, node: &NodeEnum) -> Result<String, SqlError> {
        deparse_statement(node.clone())
    }

    fn call_routine(
        &self,
        session: &mut SessionContext,
        func: &'static ProcEntry,
        types: &CallTypes,
        args: &[Datum],
    ) -> Result<Datum, SqlError> {
        plpgsql::call_scalar(session, func, types, args)
    }

    fn call_routine_set(
        &self,
        session: &mut SessionContext,
        func: &'static ProcEntry,
        types: &CallTypes,
        args: &[Datum],
    ) -> Result<SetRows, SqlError> {
        plpgsql::call_set(session, func, types, args)
    }

    fn call_trigger(
        &self,
        session: &mut SessionContext,
        func: &'static ProcEntry,
        call: TriggerCall<'_>,
    ) -> Result<Option<Vec<Datum>>, SqlError> {
        plpgsql::call_trigger(session, func, call)
    }

    fn trigger_condition(
        &self,
        session: &mut SessionContext,
        node: &protobuf::Node,
        relation: &Relation,
        source: &str,
    ) -> Result<TriggerCondition, SqlError> {
        let e = Binder::new(session, source, Vec::new(), false).trigger_condition(node, relation)?;
        let found = std::cell::RefCell::new((Vec::new(), Vec::new()));
        e.any(&|e| {
            if let ExprKind::Var(rt, att, 0) = e.kind {
                let (old, new) = &mut *found.borrow_mut();
                if rt == 0 { old.push((att, e.at)) } else { new.push((att, e.at)) }
            }
            false
        });
        let (old, new) = found.into_inner();
        // Relations by number, so that the text does not depend on the search path.
        let names = session.io.names.take();
        let text = condition_text(session, &e, relation);
        session.io.names = names;
        let again = parse::parse_expression(&text)
            .and_then(|node| Binder::new(session, &text, Vec::new(), false).trigger_condition(&node, relation));
        let text = if again.is_ok_and(|again| again.same(&e)) { text } else { deparse_expression(node)? };
        Ok(TriggerCondition { text, old, new })
    }

    fn shown_condition(&self, session: &mut SessionContext, text: &str, relation: &Relation, pretty: bool) -> Result<String, SqlError> {
        let node = parse::parse_expression(text)?;
        let e = Binder::new(session, text, Vec::new(), false).trigger_condition(&node, relation)?;
        let columns = relation.columns.iter().map(|c| c.name.clone()).collect();
        Ok(Deparser::new(session, pretty).condition(&e, columns, relation.live_columns().count()))
    }

    fn check_routine(&self, session: &mut SessionContext, func: &'static ProcEntry, source: &str) -> Result<(), SqlError> {
        plpgsql::validate(session, func, source)
    }

    fn do_block(&self, session: &mut SessionContext, stmt: &protobuf::DoStmt, source: &str) -> Result<(), SqlError> {
        crate::txn::blocking(|| plpgsql::do_block(session, stmt, source))
    }

    fn call_procedure(
        &self,
        session: &mut SessionContext,
        stmt: &protobuf::CallStmt,
        source: &str,
        sink: &mut dyn RowSink,
    ) -> Result<(), SqlError> {
        plpgsql::call_procedure(session, stmt, source, sink)
    }

    fn call_columns(
        &self,
        session: &mut SessionContext,
        stmt: &protobuf::CallStmt,
        source: &str,
    ) -> Result<Option<Vec<(String, Oid)>>, SqlError> {
        plpgsql::call_columns(session, stmt, source)
    }

    fn parse(&self, text: &str) -> Result<Vec<RawStmt>, SqlError> {
        parse::parse_statements(text)
    }
}

/// Text of an expression with its casts, as PostgreSQL shows stored expressions.
fn typed_text(
    session: &mut SessionContext,
    node: &protobuf::Node,
    relation: Option<&Relation>,
    target: Option<(Oid, i32)>,
    what: &'static str,
) -> Result<String, SqlError> {
    // What an assignment adds is not shown, save that a bare string becomes a value of its type.
    let bare = matches!(&node.node, Some(NodeEnum::AConst(c)) if c.isnull || matches!(c.val, Some(protobuf::a_const::Val::Sval(_))));
    // The length is checked when the value is stored. Only an interval's modifier says how to read it.
    let target = target.filter(|_| bare).map(|(ty, typmod)| (ty, if ty == oids::INTERVAL { typmod } else { -1 }));
    let e = Binder::new(session, "", Vec::new(), false).table_expr(node, relation, target, what)?;
    let mut planner = Planner::bare(session);
    let names = relation.map(|r| (r.name.clone(), r.columns.iter().map(|c| c.name.clone()).collect()));
    planner.levels.push(Level { names: names.into_iter().collect(), ..Level::default() });
    Ok(planner.text_bare(&e))
}

/// Text of a trigger's WHEN.
fn condition_text(session: &mut SessionContext, e: &Expr, relation: &Relation) -> String {
    let mut planner = Planner::bare(session);
    let columns: Vec<Arc<str>> = relation.columns.iter().map(|c| c.name.clone()).collect();
    let names = vec![(Arc::from("old"), columns.clone()), (Arc::from("new"), columns)];
    planner.levels.push(Level { names, rows: Some(relation.live_columns().count()), ..Level::default() });
    planner.text_bare(e)
}

/// Text of an expression, by the parser library's own printer: as the one target of a SELECT.
fn deparse_expression(node: &protobuf::Node) -> Result<String, SqlError> {
    let target = protobuf::ResTarget { val: Some(Box::new(node.clone())), ..protobuf::ResTarget::default() };
    let select = protobuf::SelectStmt {
        target_list: vec![protobuf::Node { node: Some(NodeEnum::ResTarget(Box::new(target))) }],
        op: protobuf::SetOperation::SetopNone.into(),
        limit_option: protobuf::LimitOption::Default.into(),
        ..protobuf::SelectStmt::default()
    };
    let text = deparse_statement(NodeEnum::SelectStmt(Box::new(select)))?;
    Ok(text.strip_prefix("SELECT ").unwrap_or(&text).to_owned())
}

/// Text of a statement.
fn deparse_statement(node: NodeEnum) -> Result<String, SqlError> {
    let stmt = protobuf::RawStmt { stmt: Some(Box::new(protobuf::Node { node: Some(node) })), stmt_location: 0, stmt_len: 0 };
    // The printer wants the version its own parser writes.
    static VERSION: std::sync::LazyLock<i32> = std::sync::LazyLock::new(|| pg_query::parse("SELECT 1").map_or(0, |r| r.protobuf.version));
    let tree = protobuf::ParseResult { version: *VERSION, stmts: vec![stmt] };
    tree.deparse().map_err(|e| SqlError::internal(format!("expression has no text form: {e}")))
}
