//! Plans: what the planner hands to the executor. Immutable, shared by all executions of a statement.
//!
//! Every node turns its children's rows into rows of `width` values; [`Code`]s address the values of the row they are
//! given by position. Values that cross from one part of the plan to another that runs inside it (outer variables of a
//! subplan, the outer side of a nested loop) go through numbered exec slots.

use std::sync::Arc;

use afterimage_wal::ids::{RelId, Xid};

use super::code::Code;
use super::portal::ColumnDesc;
use crate::sql::catalog::relation::Trigger;
use crate::sql::catalog::{Index, Relation};
use crate::sql::functions::{CallTypes, NewAccumulator, ProcEntry, WindowFn};
use crate::sql::types::key::KeyOrder;
use crate::sql::types::{Oid, TupleDesc};

/// A statement's plan.
#[derive(Debug)]
pub struct PlannedStmt {
    /// What it does, for the command tag.
    pub command: Command,
    /// The tree.
    pub root: Arc<PlanNode>,
    /// Subplans, by number.
    pub subplans: Vec<Subplan>,
    /// WITH queries that are materialised, by number.
    pub ctes: Vec<Cte>,
    /// How many exec slots it needs.
    pub exec_slots: usize,
    /// How many nodes it has; their `id`s are below.
    pub nodes: usize,
    /// Output columns; `None` for changes without RETURNING.
    pub columns: Option<Vec<ColumnDesc>>,
    /// Relations it reads or changes: (oid, locked for change).
    pub relations: Vec<(Oid, RelationUse)>,
    /// It changes data (CTEs included).
    pub modifies: bool,
    /// It only reads, by functions marked PARALLEL SAFE: PostgreSQL might run it in a parallel worker.
    pub parallel_safe: bool,
    /// It runs on the session's task as it is, for it cannot take long while the tables it scans, these, are small. `None`: it may.
    pub short: Option<Box<[RelId]>>,
    /// Privileges the user needs: relation and `acl` letters.
    pub privileges: Vec<(Oid, u8)>,
    /// It may be run by who sees what these transactions did: they made indexes that it may use, in which older versions are not.
    pub young: Box<[Xid]>,
    /// It does without indexes that are too young for the snapshot at hand: good for one statement.
    pub passed_over: bool,
}

/// How a statement uses a relation: decides its table lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RelationUse {
    /// ACCESS SHARE.
    Read,
    /// ROW SHARE.
    LockRows,
    /// ROW EXCLUSIVE.
    Change,
}

/// Which command, for its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `SELECT n`.
    Select,
    /// `INSERT 0 n`.
    Insert,
    /// `UPDATE n`.
    Update,
    /// `DELETE n`.
    Delete,
    /// `MERGE n`.
    Merge,
}

/// A node.
#[derive(Debug)]
pub struct PlanNode {
    /// What it does.
    pub op: PlanOp,
    /// Values per output row.
    pub width: usize,
    /// Number within its statement.
    pub id: usize,
    /// Estimated rows.
    pub rows: f64,
    /// Estimated cost before the first row.
    pub startup_cost: f64,
    /// Estimated cost of all rows.
    pub total_cost: f64,
    /// Estimated bytes per row.
    pub row_bytes: u32,
    /// It reads exec slots set outside of itself, so that a rescan must compute it anew.
    pub correlated: bool,
    /// For EXPLAIN; filled when asked for.
    pub explain: Option<Box<NodeText>>,
}

/// A node's description, for EXPLAIN.
#[derive(Clone, Debug, Default)]
pub struct NodeText {
    /// `Seq Scan`, `Hash Join`, ...
    pub node_type: String,
    /// `on t a`, `using i on t`, with its parts for JSON.
    pub relation: Option<String>,
    /// Schema of the relation.
    pub schema: Option<String>,
    /// Alias.
    pub alias: Option<String>,
    /// Index name.
    pub index: Option<String>,
    /// Properties in order: label and value.
    pub props: Vec<(&'static str, TextValue)>,
    /// Output expressions, for VERBOSE.
    pub output: Vec<String>,
    /// How it relates to its parent: `Outer`, `Inner`, `SubPlan`, ...
    pub subplan_names: Vec<(usize, String)>,
    /// The index of a bitmap scan.
    pub bitmap: Option<String>,
    /// Backward scan.
    pub backward: bool,
    /// Of a join: no left row matches more than one right row.
    pub inner_unique: Option<bool>,
    /// Join type word for JSON (`Inner`, `Left`).
    pub join_type: Option<&'static str>,
    /// Strategy (`Plain`, `Sorted`, `Hashed`) or operation.
    pub strategy: Option<&'static str>,
}

/// A property's value.
#[derive(Clone, Debug)]
pub enum TextValue {
    /// Text.
    Text(String),
    /// A list.
    List(Vec<String>),
}

/// Join kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// INNER and CROSS.
    Inner,
    /// LEFT.
    Left,
    /// RIGHT.
    Right,
    /// FULL.
    Full,
    /// EXISTS, IN: left rows that match.
    Semi,
    /// NOT EXISTS: left rows that do not match.
    Anti,
}

/// Set operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetOpKind {
    /// UNION.
    Union,
    /// INTERSECT.
    Intersect,
    /// EXCEPT.
    Except,
}

/// Row lock strengths, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockStrength {
    /// FOR KEY SHARE.
    KeyShare,
    /// FOR SHARE.
    Share,
    /// FOR NO KEY UPDATE.
    NoKeyUpdate,
    /// FOR UPDATE.
    Update,
}

impl LockStrength {
    /// The clause that asks for it.
    pub fn clause(self) -> &'static str {
        match self {
            Self::KeyShare => "FOR KEY SHARE",
            Self::Share => "FOR SHARE",
            Self::NoKeyUpdate => "FOR NO KEY UPDATE",
            Self::Update => "FOR UPDATE",
        }
    }
}

/// What to do about a row locked by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitPolicy {
    /// Wait.
    Wait,
    /// SKIP LOCKED.
    Skip,
    /// NOWAIT.
    Error,
}

/// Window frame modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameMode {
    /// ROWS.
    Rows,
    /// RANGE.
    Range,
    /// GROUPS.
    Groups,
}

/// Window frame exclusions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameExclude {
    /// EXCLUDE NO OTHERS.
    None,
    /// EXCLUDE CURRENT ROW.
    CurrentRow,
    /// EXCLUDE GROUP.
    Group,
    /// EXCLUDE TIES.
    Ties,
}

/// What a node does.
#[derive(Debug)]
pub enum PlanOp {
    /// One row of expressions, if the condition holds.
    Result {
        /// Its values.
        exprs: Box<[Code]>,
        /// Evaluated once.
        condition: Option<Code>,
    },
    /// The child's rows if the condition, evaluated once, holds.
    Gate(Arc<PlanNode>, Code),
    /// Children one after the other.
    Append(Vec<Arc<PlanNode>>),
    /// All rows of a table.
    SeqScan(Scan),
    /// Rows of a table by index.
    IndexScan(Box<IndexScan>),
    /// Rows made by a catalog or system view.
    VirtualScan(Scan),
    /// Rows by `ctid = ..`: a tid or an array of tids.
    TidScan(Scan, Code),
    /// VALUES.
    Values(Vec<Box<[Code]>>),
    /// Functions in FROM.
    Function(Box<FunctionScan>),
    /// Set-returning functions in a select list: child row columns kept as they are are `Column`s.
    ProjectSet(Arc<PlanNode>, Box<[SetItem]>),
    /// Rows for which it holds.
    Filter(Arc<PlanNode>, Code),
    /// Other values.
    Project(Arc<PlanNode>, Box<[Code]>),
    /// For each left row, the right side again.
    NestLoop(Box<NestLoop>),
    /// Right side into a hash table.
    HashJoin(Box<HashJoin>),
    /// Two sides in the order of their keys, side by side.
    MergeJoin(Box<MergeJoin>),
    /// Remembers its child's rows for rescans.
    Materialize(Arc<PlanNode>),
    /// Sorted; with a bound only the first rows matter.
    Sort(Arc<PlanNode>, Box<[SortColumn]>),
    /// Drops rows equal to the one before in these columns.
    Unique(Arc<PlanNode>, Box<[usize]>),
    /// LIMIT and OFFSET.
    Limit(Box<Limit>),
    /// Aggregation.
    Aggregate(Box<Aggregate>),
    /// Window functions.
    Window(Box<WindowAgg>),
    /// INTERSECT and EXCEPT.
    SetOp(Box<SetOp>),
    /// Distinct rows, by hashing all columns.
    HashUnique(Arc<PlanNode>),
    /// WITH RECURSIVE: left once, then right until it yields nothing; its rows are in working table `number`.
    RecursiveUnion {
        /// The term that does not recurse.
        left: Arc<PlanNode>,
        /// The recursive term.
        right: Arc<PlanNode>,
        /// Working table.
        number: usize,
        /// Exec slot that counts turns.
        turn: usize,
        /// UNION rather than UNION ALL.
        distinct: bool,
    },
    /// Rows of a working table.
    WorkingScan(usize),
    /// Rows of a materialised WITH query.
    CteScan(usize),
    /// Row locks.
    LockRows(Arc<PlanNode>, Box<[LockMark]>),
    /// INSERT, UPDATE, DELETE.
    Modify(Box<Modify>),
}

/// Base of scans: the relation and what of it is wanted.
#[derive(Debug)]
pub struct Scan {
    /// The relation.
    pub relation: Arc<Relation>,
    /// Its row shape.
    pub desc: Arc<TupleDesc>,
    /// Range table index within the query, and a number unique in the statement, for row locks and re-checks.
    pub scan_id: usize,
    /// What the output row holds.
    pub outputs: Box<[ScanColumn]>,
    /// Which attributes must be decoded (index = attnum - 1).
    pub wanted: Box<[bool]>,
    /// Values of row types among the outputs, and the columns these types have by now.
    pub rows: Box<[(usize, Arc<TupleDesc>)]>,
    /// Condition on the output row.
    pub filter: Option<Code>,
}

/// One value of a scan's output row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanColumn {
    /// Attribute, by index (attnum - 1).
    Attribute(usize),
    /// `ctid`.
    Tid,
    /// `tableoid`.
    TableOid,
    /// `xmin`.
    Xmin,
    /// `xmax`.
    Xmax,
    /// `cmin`.
    Cmin,
    /// `cmax`.
    Cmax,
}

/// An index scan.
#[derive(Debug)]
pub struct IndexScan {
    /// The table's side.
    pub scan: Scan,
    /// The index.
    pub index: Arc<Index>,
    /// Order of each key column.
    pub orders: Vec<KeyOrder>,
    /// `=` on the leading columns, values of the columns' types; `None` for IS NULL.
    pub equal: Vec<IndexEqual>,
    /// Bounds on the next column, or on the next ones together.
    pub lower: Option<IndexBound>,
    /// Upper bound.
    pub upper: Option<IndexBound>,
    /// Instead of bounds on the next column: IS NOT NULL.
    pub not_null: bool,
    /// Beside bounds on the next column: what it begins with.
    pub pattern: Option<(Code, Pattern)>,
    /// From the end.
    pub backward: bool,
    /// Answer from the index where the page is all-visible: for each output, the key column it comes from.
    pub index_only: Option<Vec<usize>>,
    /// At most one row matches: all columns of a unique index are bound.
    pub single: bool,
    /// Gather the tids, then visit the table in its own order.
    pub bitmap: bool,
    /// Type of each key column.
    pub types: Vec<Oid>,
    /// The conditions the index answers, for rows that come another way (re-checks).
    pub recheck: Option<Code>,
}

/// `column = value` or its kin.
#[derive(Debug)]
pub enum IndexEqual {
    /// `= value`.
    Value(Code),
    /// `= ANY (array)`.
    Any(Code),
    /// IS NULL.
    Null,
}

/// A bound of an index scan.
#[derive(Debug)]
pub struct IndexBound {
    /// Its values, compared as a row is.
    pub values: Box<[Code]>,
    /// `<=` or `>=`.
    pub inclusive: bool,
}

/// How a text matches a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// `LIKE`.
    Like,
    /// A regular expression.
    Regex,
    /// It begins with it.
    Start,
}

/// Functions in FROM.
#[derive(Debug)]
pub struct FunctionScan {
    /// Calls, each with how many columns it yields.
    pub calls: Vec<(SetCall, usize)>,
    /// WITH ORDINALITY.
    pub ordinality: bool,
    /// Condition.
    pub filter: Option<Code>,
}

/// A call of a set-returning (or any) function.
#[derive(Debug)]
pub struct SetCall {
    /// The function; `None` for an expression that returns one value.
    pub func: Option<&'static ProcEntry>,
    /// Types.
    pub types: CallTypes,
    /// Arguments, or the expression alone.
    pub args: Box<[Code]>,
    /// It returns records whose columns are spread.
    pub record: bool,
}

/// One output of [`PlanOp::ProjectSet`].
#[derive(Debug)]
pub enum SetItem {
    /// An ordinary expression.
    Value(Code),
    /// A set.
    Set(SetCall),
}

/// A nested loop.
#[derive(Debug)]
pub struct NestLoop {
    /// Kind: Inner, Left, Semi, Anti.
    pub kind: JoinKind,
    /// Outer side.
    pub left: Arc<PlanNode>,
    /// Inner side, run again for each outer row.
    pub right: Arc<PlanNode>,
    /// Exec slots set from columns of the outer row.
    pub params: Box<[(usize, usize)]>,
    /// Join condition on the joined row.
    pub condition: Option<Code>,
    /// At most one inner row can match.
    pub single: bool,
}

/// A hash join.
#[derive(Debug)]
pub struct HashJoin {
    /// Kind; any.
    pub kind: JoinKind,
    /// Probe side.
    pub left: Arc<PlanNode>,
    /// Build side.
    pub right: Arc<PlanNode>,
    /// Keys over left rows.
    pub left_keys: Box<[Code]>,
    /// Keys over right rows.
    pub right_keys: Box<[Code]>,
    /// The rest of the join condition, on the joined row.
    pub condition: Option<Code>,
}

/// A merge join.
#[derive(Debug)]
pub struct MergeJoin {
    /// Kind; any. Right and Full have no `condition`.
    pub kind: JoinKind,
    /// Outer side.
    pub left: Arc<PlanNode>,
    /// Inner side.
    pub right: Arc<PlanNode>,
    /// What both sides are sorted by, first to last.
    pub keys: Box<[MergeKey]>,
    /// The rest of the join condition, on the joined row.
    pub condition: Option<Code>,
}

/// A key of a merge join.
#[derive(Debug)]
pub struct MergeKey {
    /// Over left rows.
    pub left: Code,
    /// Over right rows.
    pub right: Code,
    /// DESC.
    pub desc: bool,
}

/// One sort column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortColumn {
    /// Column of the row.
    pub column: usize,
    /// DESC.
    pub desc: bool,
    /// NULLS FIRST.
    pub nulls_first: bool,
}

/// LIMIT.
#[derive(Debug)]
pub struct Limit {
    /// Its input.
    pub child: Arc<PlanNode>,
    /// LIMIT; NULL is none.
    pub limit: Option<Code>,
    /// OFFSET.
    pub offset: Option<Code>,
    /// WITH TIES: the columns compared.
    pub ties: Option<Box<[usize]>>,
}

/// How groups are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggStrategy {
    /// One group.
    Plain,
    /// Input sorted by the keys.
    Sorted,
    /// A hash table.
    Hashed,
}

/// Aggregation. Output: the keys, then the results, then (with grouping sets) the set's number.
#[derive(Debug)]
pub struct Aggregate {
    /// Its input.
    pub child: Arc<PlanNode>,
    /// How.
    pub strategy: AggStrategy,
    /// Group keys over input rows.
    pub keys: Box<[Code]>,
    /// Grouping sets: which keys count in each; `None` for one set of all keys.
    pub sets: Option<Vec<Vec<bool>>>,
    /// Aggregates.
    pub calls: Box<[AggCall]>,
    /// HAVING, over output rows.
    pub having: Option<Code>,
}

/// One aggregate call.
#[derive(Debug)]
pub struct AggCall {
    /// Makes its state.
    pub new: NewAccumulator,
    /// Types.
    pub types: CallTypes,
    /// Arguments over input rows.
    pub args: Box<[Code]>,
    /// How many of `args` are arguments; the rest are sort keys only.
    pub arg_count: usize,
    /// FILTER.
    pub filter: Option<Code>,
    /// DISTINCT.
    pub distinct: bool,
    /// ORDER BY: columns of `args`.
    pub order: Box<[SortColumn]>,
}

/// Window functions of one window. Input is sorted by partition and order. Output: input, then results.
#[derive(Debug)]
pub struct WindowAgg {
    /// Its input.
    pub child: Arc<PlanNode>,
    /// Partition columns.
    pub partition: Box<[usize]>,
    /// Order columns.
    pub order: Box<[SortColumn]>,
    /// Functions.
    pub calls: Box<[WindowCall]>,
    /// Frame mode.
    pub mode: FrameMode,
    /// Start.
    pub start: FrameEdge,
    /// End.
    pub end: FrameEdge,
    /// EXCLUDE.
    pub exclude: FrameExclude,
}

/// A frame edge.
#[derive(Debug)]
pub enum FrameEdge {
    /// UNBOUNDED PRECEDING.
    UnboundedPreceding,
    /// n PRECEDING: rows or groups; for RANGE, `in_range(value, edge)` is computed as `order value - n`.
    Preceding(Code, Option<Box<RangeEdge>>),
    /// CURRENT ROW.
    CurrentRow,
    /// n FOLLOWING.
    Following(Code, Option<Box<RangeEdge>>),
    /// UNBOUNDED FOLLOWING.
    UnboundedFollowing,
}

/// How to move a RANGE edge: functions over `CaseValue` (current order value) and the offset in an exec slot.
#[derive(Debug)]
pub struct RangeEdge {
    /// Slot that holds the offset.
    pub slot: usize,
    /// Value of the edge.
    pub edge: Code,
}

/// One window function call.
#[derive(Debug)]
pub struct WindowCall {
    /// What runs.
    pub body: WindowBody,
    /// Types.
    pub types: CallTypes,
    /// Arguments over input rows.
    pub args: Box<[Code]>,
    /// FILTER, for aggregates.
    pub filter: Option<Code>,
}

/// A window function, or an aggregate over the frame.
#[derive(Clone, Copy)]
pub enum WindowBody {
    /// A window function.
    Function(WindowFn),
    /// An aggregate.
    Aggregate(NewAccumulator),
}

impl std::fmt::Debug for WindowBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WindowBody")
    }
}

/// INTERSECT and EXCEPT over rows of equal types.
#[derive(Debug)]
pub struct SetOp {
    /// Intersect or Except.
    pub kind: SetOpKind,
    /// ALL.
    pub all: bool,
    /// Left input.
    pub left: Arc<PlanNode>,
    /// Right input.
    pub right: Arc<PlanNode>,
}

/// A row lock to take.
#[derive(Clone, Debug)]
pub struct LockMark {
    /// The relation.
    pub relation: Arc<Relation>,
    /// Scan to re-check with.
    pub scan_id: usize,
    /// Column of the input row that holds the tid.
    pub tid: usize,
    /// Strength.
    pub strength: LockStrength,
    /// What if it is taken.
    pub wait: WaitPolicy,
}

/// A WITH query run at most once and kept.
#[derive(Debug)]
pub struct Cte {
    /// Its name.
    pub name: Arc<str>,
    /// Its plan.
    pub plan: Arc<PlanNode>,
    /// It changes data, so it runs to its end even if nobody reads it.
    pub modifies: bool,
    /// Exec slots it reads: it is computed anew when they change.
    pub deps: Vec<usize>,
}

/// A subquery in an expression.
#[derive(Debug)]
pub struct Subplan {
    /// Its plan.
    pub plan: Arc<PlanNode>,
    /// What it yields.
    pub kind: SubplanKind,
    /// Exec slots to set first, over the row of the expression that contains it.
    pub args: Box<[(usize, Code)]>,
    /// Without `args` its result is the same throughout the execution: it reads no slot set outside.
    pub cacheable: bool,
}

/// What a subplan yields.
#[derive(Debug)]
pub enum SubplanKind {
    /// EXISTS.
    Exists,
    /// The one row's first column.
    Scalar,
    /// ARRAY(..), with its element type.
    Array(Oid),
    /// `(a, b) = (select ..)`, UPDATE SET (a, b) = (select ..): the row as a record.
    Row(Arc<TupleDesc>),
    /// ANY (true) or ALL (false).
    Quantified(Box<Quantified>),
}

/// `x op ANY (select ..)`.
#[derive(Debug)]
pub struct Quantified {
    /// ANY, else ALL.
    pub any: bool,
    /// Exec slots the subquery's columns go to.
    pub slots: Box<[usize]>,
    /// The comparison, over the outer row and those slots.
    pub test: Code,
    /// For plain `=`: left values; the subquery's rows go into a hash table.
    pub hash: Option<Box<[Code]>>,
}

/// INSERT, UPDATE, DELETE.
#[derive(Debug)]
pub struct Modify {
    /// What.
    pub command: Command,
    /// The table.
    pub table: Arc<TableWriter>,
    /// Input rows. INSERT: one value per attribute. UPDATE: the old values of all attributes, the tid, the new values of
    /// `assigned`. DELETE: the old values if `old_values`, the tid.
    pub child: Arc<PlanNode>,
    /// The input begins with the old row's attributes.
    pub old_values: bool,
    /// UPDATE and DELETE: column of the input that holds the tid.
    pub tid: usize,
    /// UPDATE: (attribute index, input column).
    pub assigned: Box<[(usize, usize)]>,
    /// UPDATE, DELETE: the target's scan, for the re-check.
    pub scan_id: usize,
    /// Other tables' scans and the input column of their tid, to find the same rows in a re-check.
    pub companions: Box<[(usize, usize)]>,
    /// RETURNING, over the row (old or new) of the target's attributes, then `SYSTEM_COLUMNS`, then the input row.
    pub returning: Option<Box<[Code]>>,
    /// ON CONFLICT.
    pub on_conflict: Option<Box<OnConflict>>,
    /// MERGE: input as of UPDATE, with what its actions read behind it; no tid: no match.
    pub merge: Vec<MergeStep>,
    /// Foreign keys must be told of changes.
    pub foreign: bool,
    /// INSERT: values may be taken as they are, a row at a time from VALUES.
    pub input_width: usize,
    /// RETURNING or ON CONFLICT reads `xmin`, `cmin`, `xmax` or `cmax` of the target.
    pub shows_xids: bool,
}

impl Modify {
    /// The target's system columns that expressions may read, by attribute number: `ctid`, `tableoid`, `xmin`, `cmin`, `xmax`, `cmax`.
    pub const SYSTEM_COLUMNS: [i16; 6] = [-1, -6, -2, -3, -4, -5];
}

/// A WHEN of MERGE; its codes are over the input row.
#[derive(Debug)]
pub struct MergeStep {
    /// WHEN MATCHED, else WHEN NOT MATCHED.
    pub matched: bool,
    /// AND.
    pub condition: Option<Code>,
    /// THEN.
    pub kind: MergeDo,
}

/// What a WHEN of MERGE does.
#[derive(Debug)]
pub enum MergeDo {
    /// DO NOTHING.
    Nothing,
    /// (attribute index, value).
    Update(Vec<(usize, Code)>),
    /// DELETE.
    Delete,
    /// A value per attribute.
    Insert(Vec<Code>),
}

/// ON CONFLICT.
#[derive(Debug)]
pub struct OnConflict {
    /// Positions in `TableWriter::indexes` that arbitrate; empty: all unique ones.
    pub arbiters: Vec<usize>,
    /// DO UPDATE.
    pub update: Option<ConflictUpdate>,
}

/// DO UPDATE, over the existing row's attributes, tid, table oid, then the proposed row's attributes.
#[derive(Debug)]
pub struct ConflictUpdate {
    /// (attribute index, value).
    pub set: Vec<(usize, Code)>,
    /// WHERE.
    pub condition: Option<Code>,
}

/// What is needed to change a table's rows: shape, indexes, constraints.
#[derive(Debug)]
pub struct TableWriter {
    /// The table.
    pub relation: Arc<Relation>,
    /// Its row shape.
    pub desc: Arc<TupleDesc>,
    /// NOT NULL attributes, by index.
    pub not_null: Vec<usize>,
    /// CHECK constraints: name and condition over the attributes.
    pub checks: Vec<(Arc<str>, Code)>,
    /// GENERATED columns: attribute index and value over the attributes.
    pub generated: Vec<(usize, Code)>,
    /// Indexes to maintain.
    pub indexes: Vec<IndexWriter>,
    /// Attributes of indexes that are not maintained yet, or not any more: a change of one makes no heap-only version.
    pub coming: Vec<usize>,
    /// Attributes whose change is a key change: of unique indexes usable by foreign keys.
    pub key_attributes: Vec<usize>,
    /// Triggers, in the order they fire.
    pub triggers: Vec<TriggerWriter>,
}

/// What is needed to fire a trigger.
#[derive(Debug)]
pub struct TriggerWriter {
    /// The trigger.
    pub trigger: Arc<Trigger>,
    /// Its function.
    pub func: &'static ProcEntry,
    /// WHEN, over the old row's attributes and then the new row's.
    pub condition: Option<Code>,
}

/// What is needed to maintain an index.
#[derive(Debug)]
pub struct IndexWriter {
    /// The index.
    pub index: Arc<Index>,
    /// Per key column: its attribute's index or its expression.
    pub columns: Vec<IndexSource>,
    /// Order of each key column.
    pub orders: Vec<KeyOrder>,
    /// Partial index: condition over the attributes.
    pub predicate: Option<Code>,
    /// Attributes it depends on, by index; `None`: any.
    pub attributes: Vec<usize>,
}

/// Where an index column's value comes from.
#[derive(Debug)]
pub enum IndexSource {
    /// An attribute, by index.
    Attribute(usize),
    /// An expression over the attributes.
    Expression(Code),
}
