//! Ways to read one range table entry, with their costs.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use afterimage_wal::ids::Fork;
use rustc_hash::FxHashMap;

use super::pattern;
use super::planner::{Built, Planner, RelSet};
use super::selectivity::{relation_distinct, selectivity, strip};
use crate::config::Setting;
use crate::executor::code::CompareOp;
use crate::executor::plan::{JoinKind, Pattern};
use crate::sql::bind::expr::{Expr, ExprKind};
use crate::sql::bind::query::{Query, RteSource};
use crate::sql::catalog::{Index, Relation, Source};
use crate::sql::functions::registry::{BTREE_AM, all_amops, oper_by_oid};
use crate::sql::types::{Oid, oids};
use crate::sqlstate::SqlError;

/// PostgreSQL's cost constants.
pub mod cost {
    /// A page in sequence.
    pub const SEQ_PAGE: f64 = 1.0;
    /// A page out of sequence.
    pub const RANDOM_PAGE: f64 = 4.0;
    /// A row.
    pub const TUPLE: f64 = 0.01;
    /// An index entry.
    pub const INDEX_TUPLE: f64 = 0.005;
    /// An operator call.
    pub const OPERATOR: f64 = 0.0025;
    /// On top of a way that an `enable_` setting switches off: it is taken where there is no other.
    pub const DISABLED: f64 = 1.0e10;
}

/// A way to get rows.
pub struct Path {
    /// How.
    pub kind: PathKind,
    /// Range table entries it yields.
    pub rels: RelSet,
    /// Range table entries it must be run inside of.
    pub requires: RelSet,
    /// Rows.
    pub rows: f64,
    /// Cost before the first.
    pub startup: f64,
    /// Cost of all.
    pub total: f64,
    /// Order of its rows.
    pub order: Vec<OrderKey>,
}

/// One column of an order.
#[derive(Clone, Debug)]
pub struct OrderKey {
    /// What is ordered.
    pub expr: Expr,
    /// What is equal to it in all rows.
    pub also: Vec<Expr>,
    /// DESC.
    pub desc: bool,
    /// NULLS FIRST.
    pub nulls_first: bool,
}

impl OrderKey {
    /// By an expression.
    pub fn of(expr: &Expr, desc: bool, nulls_first: bool) -> Self {
        Self { expr: expr.clone(), also: Vec::new(), desc, nulls_first }
    }

    /// Whether what this orders is `e`, or equal to it.
    pub fn is(&self, e: &Expr) -> bool {
        let e = strip(e);
        strip(&self.expr).same(e) || self.also.iter().any(|a| strip(a).same(e))
    }

    fn same(&self, other: &Self) -> bool {
        self.desc == other.desc && self.nulls_first == other.nulls_first && (self.is(&other.expr) || other.also.iter().any(|e| self.is(e)))
    }
}

/// How two paths compare in one respect.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compared {
    Equal,
    Better,
    Worse,
    Different,
}

/// Costs within this factor of each other are taken for equal.
const FUZZ: f64 = 1.01;
/// The same where nothing else tells two paths apart.
const TINY_FUZZ: f64 = 1.000_000_000_1;

/// Compares costs. `startup`: not all rows may be wanted, so that a lower cost before the first may outweigh a higher one of all. PostgreSQL:
/// `compare_path_costs_fuzzily` in optimizer/util/pathnode.c.
fn compare_costs(a: &Path, b: &Path, fuzz: f64, startup: bool) -> Compared {
    if a.total > b.total * fuzz {
        return if startup && b.startup > a.startup * fuzz { Compared::Different } else { Compared::Worse };
    }
    if b.total > a.total * fuzz {
        return if startup && a.startup > b.startup * fuzz { Compared::Different } else { Compared::Better };
    }
    if a.startup > b.startup * fuzz {
        Compared::Worse
    } else if b.startup > a.startup * fuzz {
        Compared::Better
    } else {
        Compared::Equal
    }
}

/// Compares orders: one that begins like the other and goes on is better.
fn compare_orders(a: &[OrderKey], b: &[OrderKey]) -> Compared {
    if !a.iter().zip(b).all(|(x, y)| x.same(y)) {
        return Compared::Different;
    }
    match a.len().cmp(&b.len()) {
        std::cmp::Ordering::Equal => Compared::Equal,
        std::cmp::Ordering::Greater => Compared::Better,
        std::cmp::Ordering::Less => Compared::Worse,
    }
}

/// Adds a way to get the same rows, unless one of those there is as good in every respect; those it is as good as go. Cheapest first. PostgreSQL:
/// `add_path`.
pub fn add_path(list: &mut Vec<Rc<Path>>, new: Rc<Path>, startup: bool) {
    let mut i = 0;
    while let Some(old) = list.get(i) {
        let costs = compare_costs(&new, old, FUZZ, startup);
        let order = compare_orders(&new.order, &old.order);
        // Which may be run inside of fewer others. With the same ones they have the same rows, whatever is estimated.
        let (fewer, more) = (new.requires.subset(&old.requires), old.requires.subset(&new.requires));
        let as_few = fewer && (more || new.rows <= old.rows);
        let as_many = more && (fewer || new.rows >= old.rows);
        let (replaces, refused) = match (costs, order) {
            (Compared::Different, _) | (_, Compared::Different) => (false, false),
            (Compared::Equal, Compared::Better) | (Compared::Better, Compared::Better | Compared::Equal) => (as_few, false),
            (Compared::Equal, Compared::Worse) | (Compared::Worse, Compared::Worse | Compared::Equal) => (false, as_many),
            (Compared::Equal, Compared::Equal) if fewer && more => {
                let cheaper = compare_costs(&new, old, TINY_FUZZ, startup) == Compared::Better;
                (cheaper, !cheaper)
            }
            (Compared::Equal, Compared::Equal) => (as_few, !as_few && as_many),
            (Compared::Better, Compared::Worse) | (Compared::Worse, Compared::Better) => (false, false),
        };
        if refused {
            return;
        }
        if replaces {
            list.remove(i);
            continue;
        }
        i += 1;
    }
    let at = list.iter().take_while(|p| p.total <= new.total).count();
    list.insert(at, new);
}

/// Kinds of paths.
#[expect(clippy::large_enum_variant, reason = "few live at a time, and only while planning")]
pub enum PathKind {
    /// All rows of a table, filtered.
    Seq(usize, Vec<Expr>),
    /// By index.
    Index(Box<IndexPath>),
    /// By tid.
    Tid(usize, Expr, Vec<Expr>),
    /// Rows of a subquery, function, ...: planned already; conditions on them; references to bind.
    Ready(usize, RefCell<Option<Ready>>, Vec<Expr>),
    /// Nested loop.
    Nest(JoinKind, Rc<Path>, Rc<Path>, Vec<Expr>),
    /// Hash join: keys (left, right), then the rest.
    Hash(JoinKind, Rc<Path>, Rc<Path>, Vec<(Expr, Expr)>, Vec<Expr>),
    /// Merge join.
    Merge(Box<MergePath>),
    /// Sorted.
    Sort(Rc<Path>, Vec<OrderKey>),
    /// Filtered.
    Filter(Rc<Path>, Vec<Expr>),
}

/// A merge join.
pub struct MergePath {
    /// Kind.
    pub kind: JoinKind,
    /// Outer side.
    pub left: Rc<Path>,
    /// Inner side.
    pub right: Rc<Path>,
    /// Both sides' columns in the order they are sorted by.
    pub keys: Vec<MergeKey>,
    /// The rest of the condition.
    pub rest: Vec<Expr>,
    /// The inner side cannot or had better not go back by itself.
    pub materialize: bool,
}

/// An equality two sides are merged by.
#[derive(Clone, Debug)]
pub struct MergeKey {
    /// Of the outer side.
    pub left: Expr,
    /// Of the inner side.
    pub right: Expr,
    /// DESC.
    pub desc: bool,
    /// NULLS FIRST.
    pub nulls_first: bool,
}

/// A planned source.
#[expect(clippy::large_enum_variant, reason = "few live at a time, and only while planning")]
pub enum Ready {
    /// A subquery or WITH query, with what it asks of this level.
    Query(Built, Vec<(Expr, usize)>),
    /// Something whose expressions are compiled when it is built: function, VALUES.
    Late,
}

/// By index.
#[derive(Clone)]
pub struct IndexPath {
    /// Range table entry.
    pub rt: usize,
    /// The index.
    pub index: Arc<Index>,
    /// Equality on the leading columns.
    pub equal: Vec<Equal>,
    /// Bounds on the next, or on the next ones as a row: values, inclusive.
    pub lower: Option<(Vec<Expr>, bool)>,
    /// Upper bound.
    pub upper: Option<(Vec<Expr>, bool)>,
    /// Instead of bounds on the next: IS NOT NULL.
    pub not_null: bool,
    /// Beside bounds on the next: a pattern it matches.
    pub pattern: Option<(Expr, Pattern)>,
    /// Of the answered conditions those that rows with NULLs may fail all the same.
    pub nearly: Vec<Expr>,
    /// Of the conditions left those of which the index takes the most.
    pub narrowed: Vec<Expr>,
    /// From the end.
    pub backward: bool,
    /// Conditions the index answers.
    pub answered: Vec<Expr>,
    /// Conditions left.
    pub quals: Vec<Expr>,
    /// At most one row.
    pub single: bool,
    /// Gather the tids first and visit the table in its own order.
    pub bitmap: bool,
}

impl IndexPath {
    /// All entries of an index.
    fn all(index: &Arc<Index>, rt: usize) -> Self {
        Self {
            rt,
            index: index.clone(),
            equal: Vec::new(),
            lower: None,
            upper: None,
            not_null: false,
            pattern: None,
            nearly: Vec::new(),
            narrowed: Vec::new(),
            backward: false,
            answered: Vec::new(),
            quals: Vec::new(),
            single: false,
            bitmap: false,
        }
    }

    /// Whether something bounds the column behind those with equality.
    fn is_bounded(&self) -> bool {
        self.lower.is_some() || self.upper.is_some() || self.pattern.is_some()
    }
}

/// Equality on an index column.
#[derive(Clone, Debug)]
pub enum Equal {
    /// `= value`.
    Value(Expr),
    /// `= ANY (array)`.
    Any(Expr),
    /// IS NULL.
    Null,
}

/// btree strategy of each plain comparison operator.
static STRATEGIES: LazyLock<FxHashMap<Oid, i16>> = LazyLock::new(|| {
    all_amops()
        .iter()
        .filter(|a| a.method == BTREE_AM && a.purpose == b's')
        .filter(|a| oper_by_oid(a.oper).is_some_and(|o| matches!(o.name, "=" | "<" | "<=" | ">" | ">=")))
        .map(|a| (a.oper, a.strategy))
        .collect()
});

/// btree strategy of an operator.
pub fn strategy(oper: Oid) -> Option<i16> {
    STRATEGIES.get(&oper).copied()
}

/// Can a value of type `value` be looked up in an index on a column of type `column`?
fn searchable(column: Oid, value: Oid) -> bool {
    let int = |t| matches!(t, oids::INT2 | oids::INT4 | oids::INT8);
    let text = |t| matches!(t, oids::TEXT | oids::VARCHAR | oids::NAME);
    column == value || (int(column) && int(value)) || (text(column) && text(value))
}

/// Range table entries of this level an expression mentions, subqueries included.
pub fn rels_of(e: &Expr) -> RelSet {
    let mut s = RelSet::default();
    e.visit_vars(0, &mut |rt, _| s.insert(rt));
    s
}

/// A comparison an index may answer: column side's expression, strategy, value.
struct Clause<'e> {
    column: &'e Expr,
    strategy: i16,
    value: &'e Expr,
}

fn clause(e: &Expr, rt: usize) -> Option<Clause<'_>> {
    let ExprKind::Call(c) = &e.kind else { return None };
    let [l, r] = c.args.as_slice() else { return None };
    let oper = c.oper?;
    let mine = |x: &Expr| {
        let s = rels_of(x);
        s == RelSet::one(rt)
    };
    let free = |x: &Expr| !rels_of(x).contains(rt) && !x.is_volatile() && !x.has_sublink();
    if mine(l) && free(r) {
        return strategy(oper.oid).map(|s| Clause { column: l, strategy: s, value: r });
    }
    if mine(r) && free(l) {
        return strategy(oper.commutator).map(|s| Clause { column: r, strategy: s, value: l });
    }
    None
}

impl Planner<'_> {
    /// Pages and rows of a relation, as PostgreSQL estimates them.
    pub fn size(&mut self, relation: &Relation) -> (f64, f64) {
        let file = match &relation.source {
            Source::File(file) => *file,
            Source::Virtual(_) => return (1.0, if relation.rel_tuples > 0.0 { f64::from(relation.rel_tuples) } else { 500.0 }),
            Source::View(_) | Source::None => return (0.0, 1.0),
        };
        let blocks = self.session.engine.ctx().pool.n_blocks(file, Fork::Main).map_or(0, |b| b.get());
        let pages = if blocks < 10 && relation.rel_pages == 0 { 10.0 } else { f64::from(blocks) };
        let density = if relation.rel_pages > 0 && relation.rel_tuples >= 0.0 {
            f64::from(relation.rel_tuples) / f64::from(relation.rel_pages)
        } else {
            let mut width = 32.0 + 4.0;
            for c in relation.live_columns() {
                width += match crate::sql::types::type_by_oid(c.type_oid).map_or(-1, |t| t.len) {
                    len if len > 0 => f64::from(len),
                    _ if c.typmod > 4 => f64::from(c.typmod - 4).min(64.0),
                    _ => 32.0,
                };
            }
            8160.0 / width
        };
        (pages, (pages * density).round().max(1.0))
    }

    /// What a way costs more that this setting allows or switches off.
    pub fn unless(&self, setting: Setting) -> f64 {
        if self.session.settings.bool(setting) { 0.0 } else { cost::DISABLED }
    }

    /// Paths of a table. `want`: the order its rows should come in; `merges`: what else they may be ordered by to be of use.
    ///
    /// # Errors
    /// An index's expression cannot be bound.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    pub fn table_paths(
        &mut self,
        q: &Query,
        rt: usize,
        relation: &Arc<Relation>,
        quals: &[Expr],
        joins: &[Expr],
        (want, merges): (&[OrderKey], &[Expr]),
    ) -> Result<Vec<Rc<Path>>, SqlError> {
        let (pages, tuples) = self.size(relation);
        let rows_of = |_: usize| tuples;
        let kept: f64 = quals.iter().map(|e| selectivity(q, e, &rows_of)).product();
        let rows = (tuples * kept).max(1.0);
        #[expect(clippy::cast_precision_loss, reason = "a cost")]
        let per_row = cost::TUPLE + cost::OPERATOR * quals.len() as f64;
        let off = self.unless(Setting::EnableSeqscan);
        let mut paths = vec![Rc::new(Path {
            kind: PathKind::Seq(rt, quals.to_vec()),
            rels: RelSet::one(rt),
            requires: RelSet::default(),
            rows,
            startup: off,
            total: off + pages * cost::SEQ_PAGE + tuples * per_row,
            order: Vec::new(),
        })];
        // ctid = value.
        for (i, e) in quals.iter().enumerate() {
            let value = match &e.kind {
                ExprKind::Call(c) if c.oper.is_some_and(|o| o.name == "=") => match c.args.as_slice() {
                    [l, r] if matches!(l.kind, ExprKind::Var(v, -1, 0) if v == rt) && rels_of(r).is_empty() => Some(r),
                    [l, r] if matches!(r.kind, ExprKind::Var(v, -1, 0) if v == rt) && rels_of(l).is_empty() => Some(l),
                    _ => None,
                },
                ExprKind::ArrayCompare(c)
                    if c.any
                        && c.oper.name == "="
                        && matches!(c.left.kind, ExprKind::Var(v, -1, 0) if v == rt)
                        && rels_of(&c.array).is_empty() =>
                {
                    Some(&c.array)
                }
                _ => None,
            };
            if let Some(value) = value
                && matches!(relation.source, Source::File(_))
            {
                let mut rest = quals.to_vec();
                rest.remove(i);
                paths.push(Rc::new(Path {
                    kind: PathKind::Tid(rt, value.clone(), rest),
                    rels: RelSet::one(rt),
                    requires: RelSet::default(),
                    rows: 1.0,
                    startup: self.unless(Setting::EnableTidscan),
                    total: self.unless(Setting::EnableTidscan) + cost::RANDOM_PAGE + cost::TUPLE,
                    order: Vec::new(),
                }));
            }
        }
        for index in relation.indexes.iter().filter(|i| i.valid && &*i.method == "btree") {
            if let Some(xid) = index.since {
                if !self.session.transaction()?.reads_after(xid)? {
                    self.passed_over = true;
                    continue;
                }
                self.young.push(xid);
            }
            let mut implied: Vec<Expr> = Vec::new();
            if let Some(text) = &index.predicate {
                let predicate = self.index_expr(text, relation, rt)?;
                let parts = predicate.conjuncts();
                if !parts.iter().all(|p| super::predicate::implied(quals, p)) {
                    continue;
                }
                implied = parts;
            }
            let mut keys: Vec<Expr> = Vec::with_capacity(index.n_key);
            for k in index.keys() {
                keys.push(match &k.expression {
                    None => {
                        let typmod = relation.attribute(k.attnum).map_or(-1, |c| c.typmod);
                        let ty = relation.attribute(k.attnum).map_or(k.type_oid, |c| c.type_oid);
                        Expr::new(ExprKind::Var(rt, k.attnum, 0), ty, typmod)
                    }
                    Some(text) => self.index_expr(text, relation, rt)?,
                });
            }
            // With the table's own conditions, then with those that join it to others too.
            let mut variants: Vec<Vec<&Expr>> = vec![quals.iter().collect()];
            let useful: Vec<&Expr> = joins.iter().filter(|e| clause(e, rt).is_some()).collect();
            if !useful.is_empty() {
                // One variant per set of other tables, smallest sets only: each join condition alone, and all together.
                let mut seen: Vec<RelSet> = Vec::new();
                for e in &useful {
                    let others = rels_of(e).minus(&RelSet::one(rt));
                    if !seen.contains(&others) {
                        let with: Vec<&Expr> = quals
                            .iter()
                            .chain(useful.iter().copied().filter(|x| rels_of(x).minus(&RelSet::one(rt)).subset(&others)))
                            .collect();
                        variants.push(with);
                        seen.push(others);
                    }
                }
                if seen.len() > 1 {
                    variants.push(quals.iter().chain(useful.iter().copied()).collect());
                }
            }
            for (n, clauses) in variants.iter().enumerate() {
                let own = n == 0;
                let Some(mut path) = match_index(index, rt, &keys, clauses, quals) else {
                    // Without conditions an index may still give an order.
                    if own && (!want.is_empty() || !merges.is_empty()) {
                        let path = IndexPath { quals: quals.to_vec(), ..IndexPath::all(index, rt) };
                        self.push_index(q, path, relation, &keys, (pages, tuples), (want, merges), &mut paths, true);
                    }
                    continue;
                };
                path.quals.retain(|e| !implied.iter().any(|p| p.same(e)));
                self.push_index(q, path, relation, &keys, (pages, tuples), (want, merges), &mut paths, false);
            }
        }
        let startup = self.levels.last().is_some_and(|l| l.limited);
        let mut kept = Vec::new();
        for path in paths {
            add_path(&mut kept, path, startup);
        }
        Ok(kept)
    }

    #[expect(clippy::too_many_arguments, reason = "one caller")]
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    fn push_index(
        &mut self,
        q: &Query,
        mut path: IndexPath,
        relation: &Relation,
        keys: &[Expr],
        (pages, tuples): (f64, f64),
        (want, merges): (&[OrderKey], &[Expr]),
        out: &mut Vec<Rc<Path>>,
        only_if_ordered: bool,
    ) {
        let rows_of = |_: usize| tuples;
        // Distinct values of a key column; of several together at most the rows.
        let mut kept = 1.0f64;
        let mut lookups = 1.0f64;
        for (key, equal) in keys.iter().zip(&path.equal) {
            let distinct = match strip(key).kind {
                ExprKind::Var(_, att, _) => relation_distinct(relation, att, tuples),
                _ => (tuples / 10.0).clamp(1.0, 200.0),
            };
            match equal {
                Equal::Value(_) => kept /= distinct.max(1.0),
                Equal::Any(array) => {
                    let n = match &array.kind {
                        ExprKind::Array(items, ..) => items.len(),
                        _ => 10,
                    };
                    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
                    let n = n as f64;
                    lookups *= n;
                    kept *= (n / distinct.max(1.0)).min(1.0);
                }
                Equal::Null => kept *= 0.005,
            }
        }
        match (&path.lower, &path.upper) {
            (Some(_), Some(_)) => kept *= 0.005,
            (Some(_), None) | (None, Some(_)) => kept *= 1.0 / 3.0,
            (None, None) if path.not_null => {
                kept *= path.answered.last().map_or(1.0, |e| selectivity(q, e, &rows_of));
            }
            (None, None) => {}
        }
        if let Some((e, kind)) = &path.pattern {
            // The longer the beginning, the fewer begin so.
            kept *= match &strip(e).kind {
                ExprKind::Const(crate::sql::types::Datum::Text(t)) => match kind.beginning(t).0.chars().count() {
                    1 => 0.05,
                    _ => 0.005,
                },
                _ => 0.005,
            };
        }
        let matched = if path.single { 1.0 } else { (tuples * kept).max(1.0) };
        let rest = path.quals.iter().filter(|e| !path.narrowed.iter().any(|n| n.same(e)));
        let rest: f64 = rest.map(|e| selectivity(q, e, &rows_of)).product();
        let rows = (matched * rest).max(1.0);
        let fraction = (matched / tuples.max(1.0)).min(1.0);
        let requires =
            path.answered.iter().chain(&path.quals).fold(RelSet::default(), |s, e| s.union(&rels_of(e))).minus(&RelSet::one(path.rt));
        let index_pages = if path.index.rel_pages > 0 {
            f64::from(path.index.rel_pages)
        } else {
            let blocks = self.session.engine.ctx().pool.n_blocks(path.index.file, Fork::Main).map_or(0, |b| b.get());
            f64::from(blocks).max(1.0)
        };
        #[expect(clippy::cast_precision_loss, reason = "a cost")]
        let (filter, answering) = (cost::OPERATOR * path.quals.len() as f64, cost::OPERATOR * path.answered.len() as f64);
        // PostgreSQL: `btcostestimate` in utils/adt/selfuncs.c.
        let leaves = if index_pages > 1.0 { (matched / lookups * index_pages / tuples.max(1.0)).ceil().max(1.0) } else { 1.0 };
        let leaves = if lookups > 1.0 { pages_fetched(leaves * lookups, index_pages) } else { leaves };
        let levels = if index_pages <= 2.0 { 1.0 } else { 1.0 + (index_pages.ln() / 300f64.ln()).ceil() };
        let descent = (tuples.max(2.0).log2().ceil() * cost::OPERATOR + levels * 50.0 * cost::OPERATOR) * lookups;
        let entries = descent + leaves * cost::RANDOM_PAGE + matched * (cost::INDEX_TUPLE + answering);
        // Pages of the table, `cost_index` in optimizer/path/costsize.c: between each row from elsewhere and one next to the other.
        let heap_cost = if requires.is_empty() {
            let only = self.session.settings.bool(Setting::EnableIndexonlyscan) && self.answers(&path);
            let hidden = if only { (1.0 - f64::from(relation.rel_all_visible) / pages.max(1.0)).clamp(0.0, 1.0) } else { 1.0 };
            let scattered = (pages_fetched(matched, pages) * hidden).ceil() * cost::RANDOM_PAGE;
            let together = ((fraction * pages).ceil() * hidden).ceil();
            let together = if together > 0.0 { cost::RANDOM_PAGE + (together - 1.0) * cost::SEQ_PAGE } else { 0.0 };
            let correlation = correlation(relation, &path.index);
            scattered + correlation * correlation * (together - scattered)
        } else {
            // Run again and again, it finds many of them where the last run has left them.
            cost::RANDOM_PAGE + (matched.min(pages) - 1.0).max(0.0) * (cost::RANDOM_PAGE * 0.5)
        };
        let total = entries + matched * (cost::TUPLE + filter) + heap_cost;
        // The order it yields: the columns after those bound to one value, which order nothing.
        let bound = path.equal.iter().take_while(|e| !matches!(e, Equal::Any(_))).count();
        let any = path.equal.len() > bound;
        let mut order = Vec::new();
        if !any {
            for (key, column) in keys.iter().zip(path.index.keys()).skip(bound) {
                order.push(OrderKey::of(strip(key), column.desc, column.nulls_first));
            }
        }
        let fixed: Vec<Expr> = keys.iter().take(bound).map(|k| strip(k).clone()).collect();
        let reversed: Vec<OrderKey> = order.iter().map(|k| OrderKey::of(&k.expr, !k.desc, !k.nulls_first)).collect();
        // As far as others can be merged with it, which are in ascending order.
        let merged = |order: &[OrderKey]| order.iter().take_while(|k| !k.desc && merges.iter().any(|m| k.is(m))).count();
        let (ahead, back) = (merged(&order), merged(&reversed));
        if satisfies(&order, want, &fixed) {
            let merged = order.get(..ahead).unwrap_or_default();
            order = if ahead > want.len() { merged.to_vec() } else { want.to_vec() };
        } else if satisfies(&reversed, want, &fixed) {
            path.backward = true;
            order = want.to_vec();
        } else if ahead > 0 {
            order.truncate(ahead);
        } else if back > 0 {
            path.backward = true;
            order = reversed;
            order.truncate(back);
        } else if only_if_ordered {
            return;
        } else {
            order.clear();
        }
        // Inside of others it starts over for each of their rows.
        if !requires.is_empty() {
            order.clear();
            path.backward = false;
        }
        let rels = RelSet::one(path.rt);
        // Many rows: in the table's order each page is visited once, and the nearer to each other the cheaper.
        if !path.single && matched > 1.0 && (!path.equal.is_empty() || path.is_bounded()) {
            let visited = pages_fetched(matched, pages);
            let per_page = if visited >= 2.0 {
                cost::RANDOM_PAGE - (cost::RANDOM_PAGE - cost::SEQ_PAGE) * (visited / pages.max(1.0)).sqrt()
            } else {
                cost::RANDOM_PAGE
            };
            let gather = entries + matched * cost::OPERATOR * 0.1;
            let visit = visited * per_page + matched * (cost::TUPLE + filter + answering);
            let gather = gather + self.unless(Setting::EnableBitmapscan);
            let bitmap = IndexPath { bitmap: true, backward: false, ..path.clone() };
            out.push(Rc::new(Path {
                kind: PathKind::Index(Box::new(bitmap)),
                rels: rels.clone(),
                requires: requires.clone(),
                rows,
                startup: gather,
                total: gather + visit,
                order: Vec::new(),
            }));
        }
        let off = self.unless(Setting::EnableIndexscan);
        out.push(Rc::new(Path {
            kind: PathKind::Index(Box::new(path)),
            rels,
            requires,
            rows,
            startup: off + descent,
            total: off + total,
            order,
        }));
    }

    /// Whether an index has all that is asked of its table.
    fn answers(&self, path: &IndexPath) -> bool {
        let wanted = self.levels.last().and_then(|l| l.wanted.get(&path.rt));
        wanted.is_some_and(|list| list.iter().all(|att| entry_column(&path.index, *att).is_some()))
    }

    /// An index's expression or predicate over range table entry `rt`.
    ///
    /// # Errors
    /// The stored text does not bind.
    pub fn index_expr(&mut self, text: &str, relation: &Relation, rt: usize) -> Result<Expr, SqlError> {
        let node = crate::sql::parse::parse_expression(text)?;
        let mut b = crate::sql::bind::Binder::new(self.session, text, Vec::new(), false);
        let mut e = b.table_expr(&node, Some(relation), None, "index expressions")?;
        move_var(&mut e, rt);
        Ok(e)
    }
}

/// Which column of an index's entries has an attribute's values as they are.
pub fn entry_column(index: &Index, att: i16) -> Option<usize> {
    (0..)
        .zip(&index.columns)
        .position(|(n, k)| att > 0 && k.attnum == att && (n >= index.n_key || crate::sql::types::key::is_lossless(k.type_oid)))
}

/// How the rows of a table lie in the order of an index: 1 or -1 as the index has them, 0 anyhow.
fn correlation(relation: &Relation, index: &Index) -> f64 {
    let first = index.keys().first().and_then(|k| usize::try_from(k.attnum).ok()?.checked_sub(1));
    let known = first.and_then(|i| relation.stats.get(i)?.as_ref()?.correlation).map_or(0.0, f64::from);
    if index.n_key > 1 { known * 0.75 } else { known }
}

/// Pages that so many rows of anywhere in a table are on. Mackert and Lohman; PostgreSQL: `index_pages_fetched` with a cache that takes it all.
fn pages_fetched(rows: f64, pages: f64) -> f64 {
    let pages = pages.max(1.0);
    let found = 2.0 * pages * rows / (2.0 * pages + rows);
    if found >= pages { pages } else { found.ceil().max(1.0) }
}

/// Points variables of the one table to `rt`.
pub fn move_var(e: &mut Expr, rt: usize) {
    if let ExprKind::Var(r, _, _) = &mut e.kind {
        *r = rt;
    }
    let _infallible = e.children_mut(&mut |c| {
        move_var(c, rt);
        Ok(())
    });
}

/// Does an order begin as wanted? Expressions in `fixed` have one value and order nothing.
pub fn satisfies(order: &[OrderKey], want: &[OrderKey], fixed: &[Expr]) -> bool {
    if want.is_empty() {
        return false;
    }
    let mut have = order.iter();
    want.iter().all(|w| {
        let e = strip(&w.expr);
        if fixed.iter().any(|f| f.same(e)) {
            return true;
        }
        have.next().is_some_and(|h| h.is(e) && h.desc == w.desc && h.nulls_first == w.nulls_first)
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
fn match_index(index: &Arc<Index>, rt: usize, keys: &[Expr], clauses: &[&Expr], quals: &[Expr]) -> Option<IndexPath> {
    let mut path = IndexPath::all(index, rt);
    for (at, key) in keys.iter().enumerate() {
        let is_key = |x: &Expr| strip(x).same(strip(key));
        let key_ty = strip(key).ty;
        let mut found = None;
        for e in clauses {
            if let Some(c) = clause(e, rt)
                && c.strategy == 3
                && is_key(c.column)
                && searchable(key_ty, strip(c.value).ty)
            {
                found = Some((Equal::Value(c.value.clone()), (*e).clone()));
                break;
            }
        }
        if found.is_none() {
            for e in clauses {
                match &e.kind {
                    ExprKind::IsNull(x, false) if is_key(x) => found = Some((Equal::Null, (*e).clone())),
                    ExprKind::ArrayCompare(c)
                        if c.any
                            && strategy(c.oper.oid) == Some(3)
                            && is_key(&c.left)
                            && !rels_of(&c.array).contains(rt)
                            && !c.array.has_sublink() =>
                    {
                        let elem = crate::sql::types::registry::element_type(c.array.ty).unwrap_or(0);
                        if searchable(key_ty, elem) {
                            found = Some((Equal::Any(c.array.clone()), (*e).clone()));
                        }
                    }
                    _ => {}
                }
                if found.is_some() {
                    break;
                }
            }
        }
        if let Some((equal, e)) = found {
            path.equal.push(equal);
            path.answered.push(e);
            continue;
        }
        for e in clauses {
            let Some(c) = clause(e, rt) else { continue };
            if !is_key(c.column) || !searchable(key_ty, strip(c.value).ty) {
                continue;
            }
            match c.strategy {
                4 | 5 if path.lower.is_none() => {
                    path.lower = Some((vec![c.value.clone()], c.strategy == 4));
                    path.answered.push((*e).clone());
                }
                1 | 2 if path.upper.is_none() => {
                    path.upper = Some((vec![c.value.clone()], c.strategy == 2));
                    path.answered.push((*e).clone());
                }
                _ => {}
            }
        }
        for e in clauses {
            match_row(&mut path, rt, keys, at, e);
            match_pattern(&mut path, rt, key, at, e);
        }
        if path.lower.is_none()
            && path.upper.is_none()
            && path.pattern.is_none()
            && let Some(e) = clauses.iter().find(|e| matches!(&e.kind, ExprKind::IsNull(x, true) if is_key(x)))
        {
            path.not_null = true;
            path.answered.push((*e).clone());
        }
        break;
    }
    if path.equal.is_empty() && !path.is_bounded() && !path.not_null {
        return None;
    }
    // A deferrable constraint may be broken until it is looked at.
    path.single =
        index.unique && index.immediate && path.equal.len() == keys.len() && path.equal.iter().all(|e| matches!(e, Equal::Value(_)));
    path.quals = quals.iter().filter(|e| !path.answered.iter().chain(&path.nearly).any(|a| a.same(e))).cloned().collect();
    // Join conditions used must all be among those answered; the others are applied by the join.
    Some(path)
}

/// `(a, b) > (x, y)`, where `a` is key column `at`: a bound on it and on those of the next that continue the row.
/// PostgreSQL: `expand_indexqual_rowcompare` in optimizer/path/indxpath.c.
fn match_row(path: &mut IndexPath, rt: usize, keys: &[Expr], at: usize, e: &Expr) {
    let ExprKind::RowCompare(op, pairs) = &e.kind else { return };
    let columns = path.index.keys();
    let matching = |turned: bool| {
        let sides = pairs.iter().map(|(l, r)| if turned { (r, l) } else { (l, r) });
        let fits = sides.zip(keys.iter().zip(columns).skip(at)).take_while(|((column, value), (key, _))| {
            strip(column).same(strip(key))
                && searchable(strip(key).ty, strip(value).ty)
                && !rels_of(value).contains(rt)
                && !value.is_volatile()
                && !value.has_sublink()
        });
        fits.map(|((column, value), _)| (column.clone(), value.clone())).collect::<Vec<_>>()
    };
    let (plain, turned) = (matching(false), matching(true));
    // As it reads with the columns on the left.
    let (found, op) = match (op, plain.is_empty(), turned.is_empty()) {
        (op, false, _) => (plain, *op),
        (CompareOp::Gt, true, false) => (turned, CompareOp::Lt),
        (CompareOp::Ge, true, false) => (turned, CompareOp::Le),
        (CompareOp::Lt, true, false) => (turned, CompareOp::Gt),
        (CompareOp::Le, true, false) => (turned, CompareOp::Ge),
        _ => return,
    };
    let (lower, inclusive) = match op {
        CompareOp::Gt => (true, false),
        CompareOp::Ge => (true, true),
        CompareOp::Lt => (false, false),
        CompareOp::Le => (false, true),
        CompareOp::Eq | CompareOp::Ne => return,
    };
    if if lower { path.lower.is_some() } else { path.upper.is_some() } {
        return;
    }
    // Columns that go the other way cannot be part of one bound.
    let desc = columns.get(at).is_some_and(|c| c.desc);
    let values: Vec<Expr> =
        found.iter().zip(columns.iter().skip(at)).take_while(|(_, c)| c.desc == desc).map(|((_, value), _)| value.clone()).collect();
    let exact = values.len() == pairs.len();
    if found.len() == pairs.len() {
        path.answered.push(Expr::new(ExprKind::RowCompare(op, found), e.ty, -1));
        path.nearly.push(e.clone());
    } else {
        // What the index can tell of it.
        let op = if lower { CompareOp::Ge } else { CompareOp::Le };
        path.answered.push(Expr::new(ExprKind::RowCompare(op, found), e.ty, -1));
        path.narrowed.push(e.clone());
    }
    let bound = Some((values, !exact || inclusive));
    if lower {
        path.lower = bound;
    } else {
        path.upper = bound;
    }
}

/// A text that matches a pattern whose beginning is fixed.
fn match_pattern(path: &mut IndexPath, rt: usize, key: &Expr, at: usize, e: &Expr) {
    let ExprKind::Call(c) = &e.kind else { return };
    let [column, value] = c.args.as_slice() else { return };
    let Some(kind) = c.oper.and_then(|o| pattern::kind_of(o.name)) else { return };
    let text = |t: Oid| matches!(t, oids::TEXT | oids::VARCHAR);
    let key = strip(key);
    if path.pattern.is_some() || !strip(column).same(key) || !text(key.ty) || !text(strip(value).ty) {
        return;
    }
    let known = if let ExprKind::Const(crate::sql::types::Datum::Text(t)) = &strip(value).kind {
        !kind.beginning(t).0.is_empty()
    } else {
        matches!(strip(value).kind, ExprKind::Param(_))
    };
    if !known || rels_of(value).contains(rt) {
        return;
    }
    let opclass = path.index.keys().get(at).map_or(0, |k| k.opclass);
    path.answered.extend(pattern::bounds(key, value, kind, opclass));
    path.narrowed.push(e.clone());
    path.pattern = Some((value.clone(), kind));
}

/// Is the entry something other than a table?
pub fn is_table(q: &Query, rt: usize) -> bool {
    matches!(q.rtable.get(rt).map(|r| &r.source), Some(RteSource::Table(_)))
}
