//! What the executor asks of the layers above it: text and nodes to plans and code.

use std::sync::Arc;

use pg_query::protobuf;

use super::code::Code;
use super::context::SessionContext;
use super::plan::TableWriter;
use super::portal::Prepared;
use super::sink::RowSink;
use super::statement::RawStmt;
use super::trigger::TriggerCall;
use crate::sql::catalog::Relation;
use crate::sql::functions::{CallTypes, ProcEntry, SetRows};
use crate::sql::types::{Datum, Oid};
use crate::sqlstate::SqlError;

/// An expression ready to run over a relation's rows (value `i` = attribute `i + 1`).
#[derive(Clone, Debug)]
pub struct TableExpr {
    /// To run.
    pub code: Arc<Code>,
    /// Its type.
    pub type_oid: Oid,
    /// Its type modifier.
    pub typmod: i32,
    /// Attributes it reads, sorted.
    pub columns: Vec<i16>,
    /// Whether it calls nothing but immutable functions.
    pub immutable: bool,
}

/// A trigger's WHEN as catalogs keep it.
#[derive(Clone, Debug)]
pub struct TriggerCondition {
    /// Text over `old` and `new`.
    pub text: String,
    /// Columns of the old row it reads, and the byte where.
    pub old: Vec<(i16, i32)>,
    /// Columns of the new row it reads.
    pub new: Vec<(i16, i32)>,
}

/// Binding and planning, for DDL, COPY and views, which run below them. `sql` implements it; every
/// [`SessionContext`] carries it as `front_end`.
pub trait SqlFrontEnd: Send + Sync {
    /// Binds an expression node over the columns of `relation` (none: no columns), and coerces it to `target`
    /// (type, typmod) as an assignment does. Aggregates and subqueries are refused, as in column defaults and checks;
    /// `what` names the place for that message ("DEFAULT expressions", "check constraints", ...).
    ///
    /// # Errors
    /// PostgreSQL's, with positions into the text the node came from.
    fn table_expression(
        &self,
        session: &mut SessionContext,
        node: &protobuf::Node,
        relation: Option<&Relation>,
        target: Option<(Oid, i32)>,
        what: &'static str,
    ) -> Result<TableExpr, SqlError>;

    /// The same from stored SQL text.
    ///
    /// # Errors
    /// As [`Self::table_expression`].
    fn table_expression_text(
        &self,
        session: &mut SessionContext,
        text: &str,
        relation: Option<&Relation>,
        target: Option<(Oid, i32)>,
        what: &'static str,
    ) -> Result<TableExpr, SqlError>;

    /// What is needed to insert rows with [`super::modify::check_row`] and [`super::modify::insert_index_entries`] (COPY).
    ///
    /// # Errors
    /// A stored expression cannot be bound.
    fn table_writer(&self, session: &mut SessionContext, relation: &Arc<Relation>) -> Result<TableWriter, SqlError>;

    /// Binds and plans a statement (the query of CREATE VIEW, CREATE TABLE AS, COPY (query) TO).
    ///
    /// # Errors
    /// PostgreSQL's.
    fn prepare(&self, session: &mut SessionContext, statement: &RawStmt, param_types: &[Oid]) -> Result<Arc<Prepared>, SqlError>;

    /// The type a type name denotes, with its typmod.
    ///
    /// # Errors
    /// 42704 and others, with position.
    fn resolve_type(&self, session: &mut SessionContext, name: &protobuf::TypeName) -> Result<(Oid, i32), SqlError>;

    /// SQL text of an expression node, as `pg_get_expr` shows it and as catalogs store it.
    ///
    /// # Errors
    /// The node has no text form.
    fn deparse(&self, node: &protobuf::Node) -> Result<String, SqlError>;

    /// Text of an expression as PostgreSQL shows stored ones: with the casts that binding found, relations in `regclass` constants by
    /// OID. Binds again to the same.
    ///
    /// # Errors
    /// As [`Self::table_expression`].
    fn expression_text(
        &self,
        session: &mut SessionContext,
        node: &protobuf::Node,
        relation: Option<&Relation>,
        target: Option<(Oid, i32)>,
        what: &'static str,
    ) -> Result<String, SqlError>;

    /// Stored expression text as PostgreSQL's `pretty` shows it: names as they are now, no parentheses without need.
    ///
    /// # Errors
    /// As [`Self::table_expression`].
    fn shown_expression(&self, session: &mut SessionContext, text: &str, relation: Option<&Relation>) -> Result<String, SqlError>;

    /// A view's stored query as PostgreSQL shows it, its output columns named `columns`.
    ///
    /// # Errors
    /// The query cannot be bound any more.
    fn shown_query(&self, session: &mut SessionContext, text: &str, columns: &[Arc<str>], pretty: bool) -> Result<String, SqlError>;

    /// SQL text of a query, as views store it.
    ///
    /// # Errors
    /// The query has no text form.
    fn deparse_query(&self, node: &pg_query::NodeEnum) -> Result<String, SqlError>;

    /// Calls a function with a body.
    ///
    /// # Errors
    /// The function's own.
    fn call_routine(
        &self,
        session: &mut SessionContext,
        func: &'static ProcEntry,
        types: &CallTypes,
        args: &[Datum],
    ) -> Result<Datum, SqlError>;

    /// The rows of a set-returning one.
    ///
    /// # Errors
    /// The function's own.
    fn call_routine_set(
        &self,
        session: &mut SessionContext,
        func: &'static ProcEntry,
        types: &CallTypes,
        args: &[Datum],
    ) -> Result<SetRows, SqlError>;

    /// Calls a trigger's function. The row it returns; `None` for NULL, and for whatever a trigger FOR EACH STATEMENT returns.
    ///
    /// # Errors
    /// The function's own.
    fn call_trigger(
        &self,
        session: &mut SessionContext,
        func: &'static ProcEntry,
        call: TriggerCall<'_>,
    ) -> Result<Option<Vec<Datum>>, SqlError>;

    /// Checks a trigger's WHEN and makes its stored form.
    ///
    /// # Errors
    /// PostgreSQL's, with positions into the text the node came from.
    fn trigger_condition(
        &self,
        session: &mut SessionContext,
        node: &protobuf::Node,
        relation: &Relation,
        source: &str,
    ) -> Result<TriggerCondition, SqlError>;

    /// A stored WHEN as PostgreSQL shows it.
    ///
    /// # Errors
    /// It cannot be bound any more.
    fn shown_condition(&self, session: &mut SessionContext, text: &str, relation: &Relation, pretty: bool) -> Result<String, SqlError>;

    /// Checks the body of a new function.
    ///
    /// # Errors
    /// Syntax; a type that does not exist.
    fn check_routine(&self, session: &mut SessionContext, func: &'static ProcEntry, source: &str) -> Result<(), SqlError>;

    /// DO.
    ///
    /// # Errors
    /// The block's own.
    fn do_block(&self, session: &mut SessionContext, stmt: &protobuf::DoStmt, source: &str) -> Result<(), SqlError>;

    /// CALL.
    ///
    /// # Errors
    /// The procedure's own.
    fn call_procedure(
        &self,
        session: &mut SessionContext,
        stmt: &protobuf::CallStmt,
        source: &str,
        sink: &mut dyn RowSink,
    ) -> Result<(), SqlError>;

    /// Names and types of the columns of a CALL's row, if it gives one.
    ///
    /// # Errors
    /// There is no such procedure.
    fn call_columns(
        &self,
        session: &mut SessionContext,
        stmt: &protobuf::CallStmt,
        source: &str,
    ) -> Result<Option<Vec<(String, Oid)>>, SqlError>;

    /// Parses a query string.
    ///
    /// # Errors
    /// 42601.
    fn parse(&self, text: &str) -> Result<Vec<RawStmt>, SqlError>;
}
