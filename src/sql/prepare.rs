//! Statements to prepared statements: the door the session comes in by.

use std::sync::Arc;

use pg_query::protobuf;

use super::parse;
use super::types::{Datum, Oid};
use crate::executor::portal::Body;
use crate::executor::{Portal, Prepared, RawStmt, SessionContext, SqlFrontEnd, StmtKind, TableExpr, utility};
use crate::sql::catalog::Relation;
use crate::sqlstate::SqlError;

/// Binding and planning, as the executor's utility statements reach them.
pub static FRONT_END: FrontEnd = FrontEnd;

/// See [`FRONT_END`].
#[derive(Debug)]
pub struct FrontEnd;

/// Binds and plans a statement. `param_types` may be short or have zeros: types not given are found out.
///
/// # Errors
/// PostgreSQL's.
pub fn prepare(session: &mut SessionContext, statement: RawStmt, param_types: &[Oid]) -> Result<Arc<Prepared>, SqlError> {
    match statement.kind() {
        StmtKind::Select | StmtKind::Modify | StmtKind::Explain => Err(SqlError::unsupported("queries")),
        _ => {
            let columns = utility::describe(session, &statement)?;
            Ok(Arc::new(Prepared { statement, param_types: param_types.to_vec(), columns, body: Body::Utility }))
        }
    }
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
        _session: &mut SessionContext,
        _node: &protobuf::Node,
        _relation: Option<&Relation>,
        _target: Option<(Oid, i32)>,
        _what: &str,
    ) -> Result<TableExpr, SqlError> {
        Err(SqlError::unsupported("expressions"))
    }

    fn table_expression_text(
        &self,
        session: &mut SessionContext,
        text: &str,
        relation: Option<&Relation>,
        target: Option<(Oid, i32)>,
        what: &str,
    ) -> Result<TableExpr, SqlError> {
        let node = parse::parse_expression(text)?;
        self.table_expression(session, &node, relation, target, what)
    }

    fn prepare(&self, session: &mut SessionContext, statement: &RawStmt, param_types: &[Oid]) -> Result<Arc<Prepared>, SqlError> {
        prepare(session, statement.clone(), param_types)
    }

    fn resolve_type(&self, _session: &mut SessionContext, _name: &protobuf::TypeName) -> Result<(Oid, i32), SqlError> {
        Err(SqlError::unsupported("type names"))
    }

    fn deparse(&self, _node: &protobuf::Node) -> Result<String, SqlError> {
        Err(SqlError::unsupported("deparse"))
    }

    fn parse(&self, text: &str) -> Result<Vec<RawStmt>, SqlError> {
        parse::parse_statements(text)
    }
}
