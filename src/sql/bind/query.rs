//! A bound statement: names resolved, types known, nothing planned yet.

use std::sync::Arc;

use super::expr::Expr;
use crate::sql::catalog::{Index, Relation};
use crate::sql::types::Oid;

/// A bound query. Which of its parts count depends on `command`.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// What it does.
    pub command: Command,
    /// Its range table: everything a [`Var`](super::expr::ExprKind::Var) can name, index = `rt`.
    pub rtable: Vec<Rte>,
    /// FROM: items joined by comma.
    pub from: Vec<FromItem>,
    /// WHERE.
    pub quals: Option<Expr>,
    /// Output expressions; junk ones (sort keys, ...) follow the visible ones.
    pub targets: Vec<Target>,
    /// GROUP BY, as indexes into `targets`; with grouping sets, all expressions any set uses.
    pub group: Vec<usize>,
    /// Grouping sets as indexes into `group`; `None` for a plain GROUP BY.
    pub grouping_sets: Option<Vec<Vec<usize>>>,
    /// HAVING.
    pub having: Option<Expr>,
    /// Aggregates are called, or GROUP BY or HAVING is there.
    pub has_aggregates: bool,
    /// Windows used by window functions.
    pub windows: Vec<Window>,
    /// SELECT DISTINCT.
    pub distinct: Distinct,
    /// ORDER BY.
    pub sort: Vec<SortKey>,
    /// LIMIT, an int8 expression.
    pub limit: Option<Expr>,
    /// OFFSET, an int8 expression.
    pub offset: Option<Expr>,
    /// FETCH FIRST .. WITH TIES.
    pub with_ties: bool,
    /// UNION and its kin; then `from` is empty and `targets` are Vars of the leftmost arm.
    pub set_op: Option<SetOpTree>,
    /// WITH.
    pub ctes: Vec<Cte>,
    /// FOR UPDATE and its kin.
    pub row_marks: Vec<RowMark>,
    /// Target of INSERT, UPDATE, DELETE in `rtable`.
    pub result: usize,
    /// For INSERT: where rows come from.
    pub insert: Option<Box<Insert>>,
    /// For MERGE: what to do.
    pub merge: Vec<MergeAction>,
    /// For UPDATE: assigned (attribute, expression) pairs.
    pub assignments: Vec<(i16, Expr)>,
    /// RETURNING.
    pub returning: Vec<Target>,
    /// The view it is the query of.
    pub view: Option<Arc<Relation>>,
    /// Contains a data-modifying CTE.
    pub has_modifying_cte: bool,
}

/// What a query does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Command {
    /// SELECT and VALUES.
    #[default]
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// MERGE.
    Merge,
}

/// A WHEN of MERGE.
#[derive(Clone, Debug)]
pub struct MergeAction {
    /// WHEN MATCHED, else WHEN NOT MATCHED.
    pub matched: bool,
    /// AND.
    pub condition: Option<Expr>,
    /// THEN.
    pub kind: MergeKind,
}

/// What a WHEN of MERGE does.
#[derive(Clone, Debug)]
pub enum MergeKind {
    /// DO NOTHING.
    Nothing,
    /// UPDATE SET.
    Update(Vec<(i16, Expr)>),
    /// DELETE.
    Delete,
    /// INSERT: a value per attribute, `None` for NULL.
    Insert(Vec<Option<Expr>>),
}

impl MergeAction {
    /// Its expressions.
    pub fn exprs(&self) -> impl Iterator<Item = &Expr> {
        let (set, values): (&[(i16, Expr)], &[Option<Expr>]) = match &self.kind {
            MergeKind::Nothing | MergeKind::Delete => (&[], &[]),
            MergeKind::Update(set) => (set, &[]),
            MergeKind::Insert(values) => (&[], values),
        };
        self.condition.iter().chain(set.iter().map(|(_, e)| e)).chain(values.iter().flatten())
    }

    /// Its expressions, to change them.
    pub fn exprs_mut(&mut self) -> impl Iterator<Item = &mut Expr> {
        let (set, values): (&mut [(i16, Expr)], &mut [Option<Expr>]) = match &mut self.kind {
            MergeKind::Nothing | MergeKind::Delete => (&mut [], &mut []),
            MergeKind::Update(set) => (set, &mut []),
            MergeKind::Insert(values) => (&mut [], values),
        };
        self.condition.iter_mut().chain(set.iter_mut().map(|(_, e)| e)).chain(values.iter_mut().flatten())
    }
}

/// SELECT DISTINCT.
#[derive(Clone, Debug, Default)]
pub enum Distinct {
    /// Not there.
    #[default]
    No,
    /// DISTINCT.
    All,
    /// DISTINCT ON, indexes into `targets`.
    On(Vec<usize>),
}

/// One output expression.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its value.
    pub expr: Expr,
    /// Its name.
    pub name: Arc<str>,
    /// Not part of the result.
    pub junk: bool,
    /// The table column it is, for RowDescription.
    pub origin: (Oid, i16),
}

/// One ORDER BY item.
#[derive(Clone, Copy, Debug)]
pub struct SortKey {
    /// Index into `targets` (or into a window's or aggregate's list).
    pub target: usize,
    /// DESC.
    pub desc: bool,
    /// NULLS FIRST.
    pub nulls_first: bool,
}

/// An entry of the range table.
#[derive(Clone, Debug)]
pub struct Rte {
    /// The name it goes by, for EXPLAIN and messages.
    pub alias: Arc<str>,
    /// What it is.
    pub source: RteSource,
    /// Its columns (of a table: all attributes, dropped ones with type 0).
    pub columns: Vec<RteColumn>,
    /// May refer to items before it.
    pub lateral: bool,
}

/// A column of a range table entry.
#[derive(Clone, Debug)]
pub struct RteColumn {
    /// Name.
    pub name: Arc<str>,
    /// Type.
    pub ty: Oid,
    /// Type modifier.
    pub typmod: i32,
}

/// What a range table entry reads.
#[derive(Clone, Debug)]
pub enum RteSource {
    /// A table, catalog or virtual table.
    Table(Arc<Relation>),
    /// A subquery, or a view's query.
    Subquery(Box<Query>),
    /// Set-returning functions; several for ROWS FROM.
    Function {
        /// The calls, with how many columns each yields.
        calls: Vec<(Expr, usize)>,
        /// WITH ORDINALITY adds a last column.
        ordinality: bool,
    },
    /// VALUES lists.
    Values(Vec<Vec<Expr>>),
    /// A CTE: levels up, index into that query's `ctes`.
    Cte(usize, usize),
    /// The working table inside a recursive CTE: levels up, index into that query's `ctes`.
    Working(usize, usize),
    /// `excluded` of ON CONFLICT: the row proposed for insertion.
    Excluded,
    /// A JOIN with an alias: columns are found through the names only.
    None,
}

/// A tree of FROM.
#[derive(Clone, Debug)]
pub enum FromItem {
    /// A range table entry.
    Rel(usize),
    /// A join.
    Join(Box<Join>),
}

/// One join.
#[derive(Clone, Debug)]
pub struct Join {
    /// Its kind.
    pub kind: JoinKind,
    /// Left side.
    pub left: FromItem,
    /// Right side.
    pub right: FromItem,
    /// ON.
    pub quals: Option<Expr>,
    /// Columns of USING or NATURAL, which `quals` compares.
    pub using: Vec<Arc<str>>,
}

pub use crate::executor::plan::JoinKind;

/// A tree of set operations.
#[derive(Clone, Debug)]
pub enum SetOpTree {
    /// An arm: a subquery's range table index.
    Arm(usize),
    /// An operation.
    Op {
        /// UNION, INTERSECT, EXCEPT.
        kind: SetOpKind,
        /// ALL.
        all: bool,
        /// Left input.
        left: Box<SetOpTree>,
        /// Right input.
        right: Box<SetOpTree>,
        /// Column types of the result.
        types: Vec<(Oid, i32)>,
    },
}

pub use crate::executor::plan::SetOpKind;

/// A WITH query.
#[derive(Clone, Debug)]
pub struct Cte {
    /// Its name.
    pub name: Arc<str>,
    /// Its columns.
    pub columns: Vec<RteColumn>,
    /// Its query; of a recursive one, the term that does not recurse.
    pub query: Query,
    /// The recursive term, and whether UNION ALL.
    pub recursive: Option<(Query, bool)>,
    /// References to it.
    pub references: usize,
    /// `[NOT] MATERIALIZED`.
    pub materialized: Option<bool>,
    /// Its name is not visible: it belongs to a recursive query's own WITH.
    pub hidden: bool,
}

/// FOR UPDATE and its kin on one table.
#[derive(Clone, Copy, Debug)]
pub struct RowMark {
    /// The table's range table index.
    pub rt: usize,
    /// How strong.
    pub strength: crate::executor::plan::LockStrength,
    /// What to do about a lock held by another.
    pub wait: crate::executor::plan::WaitPolicy,
}

/// Rows to insert.
#[derive(Clone, Debug)]
pub struct Insert {
    /// Query whose output columns fill `columns`, in that order.
    pub source: InsertSource,
    /// Attributes filled from the source.
    pub columns: Vec<i16>,
    /// Value per attribute (index = attnum - 1) not in `columns`: default expression, `None` for NULL.
    pub defaults: Vec<Option<Expr>>,
    /// ON CONFLICT.
    pub on_conflict: Option<OnConflict>,
}

/// Where inserted rows come from.
#[derive(Clone, Debug)]
pub enum InsertSource {
    /// VALUES rows, coerced to the columns' types.
    Values(Vec<Vec<Expr>>),
    /// A query, with one coercion per column over `Slot(i)`.
    Query(Box<Query>, Vec<Expr>),
}

/// ON CONFLICT.
#[derive(Clone, Debug)]
pub struct OnConflict {
    /// Indexes that arbitrate; empty: all unique ones.
    pub arbiters: Vec<Arc<Index>>,
    /// DO UPDATE SET; `None` for DO NOTHING.
    pub set: Option<Vec<(i16, Expr)>>,
    /// WHERE of DO UPDATE.
    pub quals: Option<Expr>,
    /// Range table index of `excluded`.
    pub excluded: usize,
}

/// A window definition.
#[derive(Clone, Debug)]
pub struct Window {
    /// Name, empty if none.
    pub name: Arc<str>,
    /// PARTITION BY, as indexes into `targets`.
    pub partition: Vec<usize>,
    /// ORDER BY.
    pub order: Vec<SortKey>,
    /// Frame.
    pub frame: Frame,
}

/// A window frame; offsets are expressions without variables.
#[derive(Clone, Debug)]
pub struct Frame {
    /// ROWS, RANGE, GROUPS.
    pub mode: crate::executor::plan::FrameMode,
    /// Start.
    pub start: FrameEdge,
    /// End.
    pub end: FrameEdge,
    /// EXCLUDE.
    pub exclude: crate::executor::plan::FrameExclude,
}

/// One edge of a window frame.
#[derive(Clone, Debug)]
pub enum FrameEdge {
    /// UNBOUNDED PRECEDING.
    UnboundedPreceding,
    /// n PRECEDING.
    Preceding(Expr),
    /// CURRENT ROW.
    CurrentRow,
    /// n FOLLOWING.
    Following(Expr),
    /// UNBOUNDED FOLLOWING.
    UnboundedFollowing,
}
