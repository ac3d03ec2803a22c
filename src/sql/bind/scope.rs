//! What names mean where.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::Node;

use super::expr::{Expr, ExprKind};
use super::query::{Cte, Rte, RteColumn, Window};
use crate::executor::SessionContext;
use crate::executor::routine::Variables;
use crate::sql::parse::{self, MAX_DEPTH};
use crate::sql::types::{Oid, oids};
use crate::sqlstate::{SqlError, SqlState};
use crate::stack;

/// Binds one statement.
pub struct Binder<'a> {
    /// Catalogs and settings.
    pub session: &'a mut SessionContext,
    /// The statement's text, for positions.
    pub source: &'a str,
    /// Types of `$1`, `$2`, ...; 0: not known yet.
    pub params: Vec<Oid>,
    /// Where each was first used, as error positions.
    pub param_places: Vec<u32>,
    /// Parameters may be used that were not declared.
    pub open_params: bool,
    /// Query levels, innermost last.
    pub scopes: Vec<Scope>,
    /// Depth of recursion.
    pub(super) depth: usize,
    /// Privileges needed: relation and `acl` letter.
    pub privileges: Vec<(Oid, u8)>,
    /// Variables of the function the statement is in.
    pub variables: Option<Arc<Variables>>,
    /// A CALL is bound: procedures, and no functions.
    pub(super) calling: bool,
    /// Views being expanded, innermost last.
    pub(super) views: Vec<Oid>,
}

/// One query level.
#[derive(Debug, Default)]
pub struct Scope {
    /// Names visible now.
    pub names: Vec<NameItem>,
    /// The range table so far.
    pub rtable: Vec<Rte>,
    /// WITH queries.
    pub ctes: Vec<Cte>,
    /// WITH queries whose columns are known while their recursive term is bound: index into `ctes`.
    pub working: Option<(Arc<str>, usize)>,
    /// What is being bound.
    pub place: Place,
    /// An aggregate of this level was seen.
    pub has_aggregates: bool,
    /// WITH queries that are not visible yet, for hints.
    pub future: Vec<String>,
    /// Windows so far.
    pub windows: Vec<Window>,
    /// WINDOW clause definitions not yet used: name and node.
    pub window_defs: Vec<(String, pg_query::protobuf::WindowDef)>,
    /// Window partition and order expressions, for the target list: filled as junk targets.
    pub extra_targets: Vec<Expr>,
    /// Expressions of GROUP BY, for GROUPING().
    pub grouping_args: Vec<Expr>,
    /// Tables whose rows FOR UPDATE and its kin lock, by name; an empty list: all.
    pub locked: Option<Vec<String>>,
}

impl Scope {
    /// Whether rows of the table in FROM with this name are locked.
    pub(super) fn locks_rows_of(&self, name: &str) -> bool {
        self.locked.as_ref().is_some_and(|names| names.is_empty() || names.iter().any(|n| n == name))
    }
}

/// Where an expression stands: decides whether aggregates, windows, sets and subqueries are allowed, and the words of the refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Select list.
    #[default]
    Target,
    /// WHERE.
    Where,
    /// JOIN ON.
    JoinOn,
    /// HAVING.
    Having,
    /// GROUP BY.
    GroupBy,
    /// ORDER BY.
    OrderBy,
    /// DISTINCT ON.
    DistinctOn,
    /// LIMIT, OFFSET: the word.
    Limit(&'static str),
    /// VALUES.
    Values,
    /// Functions in FROM.
    FromFunction,
    /// UPDATE SET.
    UpdateSource,
    /// VALUES of one row in INSERT, which stands for a SELECT.
    ValuesOfOne,
    /// RETURNING.
    Returning,
    /// PARTITION BY.
    WindowPartition,
    /// ORDER BY of a window.
    WindowOrder,
    /// Arguments of an aggregate.
    Aggregate,
    /// FILTER.
    Filter,
    /// Arguments of a window function.
    WindowArgs,
    /// Column default, check constraint, ...: its name in messages.
    Stored(&'static str),
}

impl Place {
    /// As messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Target => "SELECT",
            Self::Where => "WHERE",
            Self::JoinOn => "JOIN conditions",
            Self::Having => "HAVING",
            Self::GroupBy => "GROUP BY",
            Self::OrderBy => "ORDER BY",
            Self::DistinctOn => "DISTINCT ON",
            Self::Limit(word) => word,
            Self::Values => "VALUES",
            Self::FromFunction => "functions in FROM",
            Self::UpdateSource => "UPDATE",
            Self::ValuesOfOne => "VALUES",
            Self::Returning => "RETURNING",
            Self::WindowPartition => "PARTITION BY",
            Self::WindowOrder => "window ORDER BY",
            Self::Aggregate => "aggregate function calls",
            Self::Filter => "FILTER",
            Self::WindowArgs => "window function calls",
            Self::Stored(what) => what,
        }
    }
}

/// Something in FROM, by name.
#[derive(Clone, Debug)]
pub struct NameItem {
    /// Name it is qualified with; `None` for a join without alias.
    pub name: Option<Arc<str>>,
    /// Schema, for `schema.table.column`.
    pub schema: Option<Arc<str>>,
    /// Its columns.
    pub columns: Vec<NameColumn>,
    /// `name.column` works.
    pub qualified: bool,
    /// Plain `column` works.
    pub plain: bool,
    /// Its range table index, for whole rows and system columns; `None` for joins.
    pub rt: Option<usize>,
    /// It is a table, so that system columns exist.
    pub is_table: bool,
}

/// A column by name.
#[derive(Clone, Debug)]
pub struct NameColumn {
    /// Name.
    pub name: Arc<str>,
    /// What it means at its own level.
    pub expr: Expr,
}

/// Attribute numbers of system columns.
pub const SYSTEM_COLUMNS: [(&str, i16, Oid); 6] = [
    ("ctid", -1, oids::TID),
    ("xmin", -2, oids::XID),
    ("cmin", -3, oids::CID),
    ("xmax", -4, oids::XID),
    ("cmax", -5, oids::CID),
    ("tableoid", -6, oids::OID),
];

impl<'a> Binder<'a> {
    /// A binder for one statement of `source`.
    pub fn new(session: &'a mut SessionContext, source: &'a str, params: Vec<Oid>, open_params: bool) -> Self {
        Self {
            session,
            source,
            params,
            param_places: Vec::new(),
            open_params,
            scopes: Vec::new(),
            depth: 0,
            privileges: Vec::new(),
            variables: None,
            calling: false,
            views: Vec::new(),
        }
    }

    /// Adds the position of byte `at` of the statement.
    pub fn position(&self, error: SqlError, at: i32) -> SqlError {
        match usize::try_from(at) {
            Ok(byte) if self.views.is_empty() && !self.source.is_empty() => error.at(parse::char_position(self.source, byte)),
            _ => error,
        }
    }

    /// An error at a place.
    pub fn error(&self, state: SqlState, message: impl Into<String>, at: i32) -> SqlError {
        self.position(SqlError::new(state, message), at)
    }

    /// The innermost scope.
    ///
    /// # Errors
    /// There is none: a bug.
    pub fn scope(&mut self) -> Result<&mut Scope, SqlError> {
        self.scopes.last_mut().ok_or_else(|| SqlError::internal("no query level"))
    }

    /// Runs `f` one recursion deeper.
    ///
    /// # Errors
    /// 54001 when too deep; what `f` fails with.
    pub fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, SqlError>) -> Result<T, SqlError> {
        if self.depth >= MAX_DEPTH {
            return Err(stack::too_deep());
        }
        stack::check()?;
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }

    /// Binds with another [`Place`] in the innermost scope.
    ///
    /// # Errors
    /// What `f` fails with.
    pub fn at_place<T>(&mut self, place: Place, f: impl FnOnce(&mut Self) -> Result<T, SqlError>) -> Result<T, SqlError> {
        let before = std::mem::replace(&mut self.scope()?.place, place);
        let result = f(self);
        self.scope()?.place = before;
        result
    }

    /// A column of any visible query level.
    pub(super) fn find_column(&mut self, name: &str, at: i32) -> Result<Option<Expr>, SqlError> {
        for (up, scope) in self.scopes.iter().rev().enumerate() {
            let mut found: Option<&Expr> = None;
            for column in scope.names.iter().filter(|i| i.plain).flat_map(|i| &i.columns).filter(|c| &*c.name == name) {
                if found.is_some() {
                    return Err(self.error(SqlState::AMBIGUOUS_COLUMN, format!("column reference \"{name}\" is ambiguous"), at));
                }
                found = Some(&column.expr);
            }
            if let Some(expr) = found {
                let mut expr = expr.clone();
                if up > 0 {
                    expr.shift_levels(0, up);
                }
                expr.at = at;
                return Ok(Some(expr));
            }
            if let Some((_, att, ty)) = SYSTEM_COLUMNS.iter().find(|(n, ..)| *n == name) {
                let tables: Vec<usize> =
                    scope.names.iter().filter(|i| i.is_table && (i.plain || i.qualified)).filter_map(|i| i.rt).collect();
                match tables.as_slice() {
                    [] => {}
                    [rt] => return Ok(Some(Expr::new(ExprKind::Var(*rt, *att, up), *ty, -1).located(at))),
                    _ => return Err(self.error(SqlState::AMBIGUOUS_COLUMN, format!("column reference \"{name}\" is ambiguous"), at)),
                }
            }
        }
        Ok(None)
    }

    /// The item `name` (or `schema.name`) means, and how many levels up.
    pub(super) fn find_item(&self, schema: Option<&str>, name: &str, at: i32) -> Result<Option<(usize, NameItem)>, SqlError> {
        for (up, scope) in self.scopes.iter().rev().enumerate() {
            let mut found: Option<&NameItem> = None;
            for item in scope.names.iter().filter(|i| i.qualified && i.name.as_deref() == Some(name)) {
                if schema.is_some() && item.schema.as_deref() != schema {
                    continue;
                }
                if found.is_some() {
                    return Err(self.error(SqlState::AMBIGUOUS_ALIAS, format!("table reference \"{name}\" is ambiguous"), at));
                }
                found = Some(item);
            }
            if let Some(item) = found {
                return Ok(Some((up, item.clone())));
            }
        }
        Ok(None)
    }

    /// Adds a range table entry to the innermost scope.
    pub(super) fn add_rte(&mut self, rte: Rte) -> Result<usize, SqlError> {
        let scope = self.scope()?;
        scope.rtable.push(rte);
        Ok(scope.rtable.len() - 1)
    }

    /// A name item for a range table entry, columns renamed by `aliases`.
    pub(super) fn item_for(&self, rt: usize, rte: &Rte, qualified_schema: Option<Arc<str>>, is_table: bool) -> NameItem {
        NameItem {
            name: Some(rte.alias.clone()),
            schema: qualified_schema,
            columns: columns_of(rt, &rte.columns),
            qualified: true,
            plain: true,
            rt: Some(rt),
            is_table,
        }
    }
}

/// Columns as names, dropped ones left out.
pub(super) fn columns_of(rt: usize, columns: &[RteColumn]) -> Vec<NameColumn> {
    columns
        .iter()
        .enumerate()
        .filter(|(_, c)| c.ty != 0)
        .map(|(i, c)| NameColumn {
            name: c.name.clone(),
            expr: Expr::new(ExprKind::Var(rt, i16::try_from(i + 1).unwrap_or(i16::MAX), 0), c.ty, c.typmod),
        })
        .collect()
}

/// The string of a String node.
pub(super) fn string_of(node: &Node) -> Option<&str> {
    match &node.node {
        Some(NodeEnum::String(s)) => Some(&s.sval),
        _ => None,
    }
}

/// The strings of a list of String nodes.
pub(super) fn strings_of(nodes: &[Node]) -> Vec<&str> {
    nodes.iter().filter_map(string_of).collect()
}
