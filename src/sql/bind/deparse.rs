//! Bound queries and expressions as SQL text, laid out as PostgreSQL shows stored ones: views, defaults, checks.
//!
//! PostgreSQL: utils/adt/ruleutils.c. `pretty` leaves out parentheses that change nothing.

use std::sync::Arc;

use super::expr::{CallExpr, Expr, ExprKind, SubLink, SubLinkKind, WindowRef};
use super::query::{
    Distinct, Frame, FrameEdge, FromItem, Join, JoinKind, Query, Rte, RteSource, SetOpKind, SetOpTree, SortKey, Target, Window,
};
use crate::executor::SessionContext;
use crate::executor::code::{BoolTest, CompareOp, SessionValue};
use crate::executor::plan::{FrameExclude, FrameMode, LockStrength, WaitPolicy};
use crate::sql::catalog::names::{quote_identifier, quote_qualified};
use crate::sql::types::{self, Datum, TupleDesc, oids};

/// Spaces a query's clauses are indented by.
const STD: i32 = 8;
/// Joins.
const JOIN: i32 = 4;
/// List items, arms of CASE.
const VAR: i32 = 4;
/// Deepest indentation.
const LIMIT: i32 = 40;

/// Names of one query level's range table: alias and columns of each entry.
type Names = Vec<(Arc<str>, Vec<Arc<str>>)>;

/// Writes SQL.
pub struct Deparser<'a> {
    session: &'a SessionContext,
    pretty: bool,
    levels: Vec<Level>,
    out: String,
    indent: i32,
    /// The next query's column names are seen by nobody.
    nameless: bool,
    /// So many columns of a table in a row are the whole row.
    whole: Option<usize>,
}

struct Level {
    names: Names,
    /// Columns carry their table's name.
    qualify: bool,
    targets: Vec<Target>,
    group: Vec<usize>,
    windows: Vec<Window>,
    ctes: Vec<Arc<str>>,
    /// Nobody sees its column names.
    exists: bool,
}

impl Level {
    /// For an expression outside a query.
    fn over(names: Names, qualify: bool) -> Self {
        Self { names, qualify, targets: Vec::new(), group: Vec::new(), windows: Vec::new(), ctes: Vec::new(), exists: false }
    }
}

/// What encloses an expression, for parentheses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parent<'p> {
    /// A place of its own: a list, a call's arguments.
    Open,
    /// An operator; whether this is its first argument.
    Oper(&'p str, bool),
    And,
    Or,
    Not,
    Cast,
    /// Other syntax made of words.
    Words,
}

/// The items of a row without those in the places of dropped columns.
pub fn live_items(items: &[Expr], desc: &TupleDesc) -> Vec<Expr> {
    items.iter().zip(&desc.cols).filter(|(_, c)| !c.dropped).map(|(e, _)| e.clone()).collect()
}

/// The one table that all of these are columns of, in ascending order.
pub fn columns_in_order(items: &[Expr]) -> Option<usize> {
    let mut last = 0;
    let mut table = None;
    for item in items {
        let ExprKind::Var(rt, att, 0) = item.kind else { return None };
        if att <= last || *table.get_or_insert(rt) != rt {
            return None;
        }
        last = att;
    }
    table
}

fn names_of(rtable: &[Rte]) -> Names {
    rtable.iter().map(|r| (Arc::clone(&r.alias), r.columns.iter().map(|c| Arc::clone(&c.name)).collect())).collect()
}

impl<'a> Deparser<'a> {
    /// Over no relation, or the columns of one.
    pub fn new(session: &'a SessionContext, pretty: bool) -> Self {
        Self { session, pretty, levels: Vec::new(), out: String::new(), indent: 0, nameless: false, whole: None }
    }

    /// An expression over a relation's columns, which go by their names alone.
    #[must_use]
    pub fn expression(mut self, e: &Expr, relation: Option<(Arc<str>, Vec<Arc<str>>)>) -> String {
        self.levels.push(Level::over(relation.into_iter().collect(), false));
        self.expr(e, Parent::Open);
        self.out
    }

    /// A trigger's WHEN: over the old and the new row of a table with these columns, dropped ones included, `live` of them not.
    #[must_use]
    pub fn condition(mut self, e: &Expr, columns: Vec<Arc<str>>, live: usize) -> String {
        self.whole = Some(live);
        self.levels.push(Level::over(vec![(Arc::from("old"), columns.clone()), (Arc::from("new"), columns)], true));
        self.expr(e, Parent::Open);
        self.out
    }

    /// The table whose whole row a row of columns is.
    fn whole_row(&self, items: &[Expr]) -> Option<usize> {
        columns_in_order(items).filter(|_| self.whole == Some(items.len()))
    }

    /// A query, its output columns named `names`.
    #[must_use]
    pub fn view(mut self, q: &Query, names: &[Arc<str>]) -> String {
        self.query(q, Some(names));
        self.out.push(';');
        self.out
    }

    fn push(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// A new line, then the word. PostgreSQL: `appendContextKeyword`.
    fn line(&mut self, word: &str, before: i32, after: i32, plus: i32) {
        self.indent += before;
        self.out.truncate(self.out.trim_end_matches(' ').len());
        self.out.push('\n');
        let amount =
            if self.indent < LIMIT { self.indent.max(0) + plus } else { (LIMIT + (self.indent - LIMIT) / (STD / 2)) % LIMIT + plus };
        for _ in 0..amount {
            self.out.push(' ');
        }
        self.out.push_str(word);
        self.indent = (self.indent + after).max(0);
    }

    /// Writes a list item; all but the first begin a line of their own.
    fn item(&mut self, first: bool, write: impl FnOnce(&mut Self)) {
        if first {
            return write(self);
        }
        self.push(", ");
        let before = self.out.len();
        write(self);
        let text = self.out.split_off(before);
        self.out.truncate(self.out.trim_end_matches(' ').len());
        if !text.starts_with('\n') {
            self.line("", -STD, STD, VAR);
        }
        self.push(&text);
    }

    // ---- queries

    fn query(&mut self, q: &Query, names: Option<&[Arc<str>]>) {
        self.levels.push(Level {
            names: names_of(&q.rtable),
            qualify: true,
            targets: q.targets.clone(),
            group: q.group.clone(),
            windows: q.windows.clone(),
            ctes: q.ctes.iter().map(|c| Arc::clone(&c.name)).collect(),
            exists: std::mem::take(&mut self.nameless),
        });
        let start = self.indent;
        self.with(q);
        if let Some(tree) = &q.set_op {
            self.set_operation(q, tree, names);
        } else if let Some(rows) = only_values(q) {
            if self.indent > 0 || self.out.ends_with('(') {
                self.push(" ");
            }
            self.push("VALUES ");
            self.values(rows);
        } else {
            self.basic(q, names);
        }
        self.sort_and_limit(q);
        self.indent = start;
        self.levels.pop();
    }

    fn with(&mut self, q: &Query) {
        if q.ctes.is_empty() {
            return;
        }
        self.indent += STD;
        self.push(if q.ctes.iter().any(|c| c.recursive.is_some()) { " WITH RECURSIVE " } else { " WITH " });
        for (i, cte) in q.ctes.iter().enumerate() {
            if i > 0 {
                self.push(", ");
            }
            self.push(&quote_identifier(&cte.name));
            let outputs: Vec<Arc<str>> = cte.query.targets.iter().filter(|t| !t.junk).map(|t| Arc::clone(&t.name)).collect();
            let columns: Vec<Arc<str>> = cte.columns.iter().map(|c| Arc::clone(&c.name)).collect();
            if outputs != columns {
                self.names(&columns);
            }
            self.push(" AS ");
            match cte.materialized {
                Some(true) => self.push("MATERIALIZED "),
                Some(false) => self.push("NOT MATERIALIZED "),
                None => {}
            }
            self.push("(");
            self.line("", 0, 0, 0);
            self.query(&cte.query, None);
            if let Some((again, all)) = &cte.recursive {
                self.line("UNION ", 0, 0, 0);
                if *all {
                    self.push("ALL ");
                }
                self.line("", 0, 0, 0);
                self.query(again, None);
            }
            self.line("", 0, 0, 0);
            self.push(")");
        }
        self.indent -= STD;
        self.line("", 0, 0, 0);
    }

    fn names(&mut self, names: &[Arc<str>]) {
        let list: Vec<String> = names.iter().map(|n| quote_identifier(n)).collect();
        self.push(&format!("({})", list.join(", ")));
    }

    fn values(&mut self, rows: &[Vec<Expr>]) {
        for (i, row) in rows.iter().enumerate() {
            self.push(if i > 0 { ", (" } else { "(" });
            for (n, e) in row.iter().enumerate() {
                if n > 0 {
                    self.push(",");
                }
                self.expr(e, Parent::Open);
            }
            self.push(")");
        }
    }

    fn basic(&mut self, q: &Query, names: Option<&[Arc<str>]>) {
        self.indent += STD;
        self.push(" SELECT");
        match &q.distinct {
            Distinct::No => {}
            Distinct::All => self.push(" DISTINCT"),
            Distinct::On(keys) => {
                self.push(" DISTINCT ON (");
                self.keys(q, keys);
                self.push(")");
            }
        }
        self.push(" ");
        for (i, target) in q.targets.iter().filter(|t| !t.junk).enumerate() {
            let name = names.and_then(|n| n.get(i)).unwrap_or(&target.name);
            self.item(i == 0, |d| d.target(target, name));
        }
        if !q.from.is_empty() {
            for (i, item) in q.from.iter().enumerate() {
                if i == 0 {
                    self.line(" FROM ", -STD, STD, 2);
                }
                self.item(i == 0, |d| d.from_item(q, item));
            }
        }
        if let Some(quals) = &q.quals {
            self.line(" WHERE ", -STD, STD, 1);
            self.expr(quals, Parent::Open);
        }
        if !q.group.is_empty() || q.grouping_sets.is_some() {
            self.line(" GROUP BY ", -STD, STD, 1);
            match &q.grouping_sets {
                None => self.keys(q, &q.group),
                Some(sets) => {
                    self.push("GROUPING SETS (");
                    for (i, set) in sets.iter().enumerate() {
                        self.push(if i > 0 { ", (" } else { "(" });
                        let keys: Vec<usize> = set.iter().filter_map(|&g| q.group.get(g).copied()).collect();
                        self.keys(q, &keys);
                        self.push(")");
                    }
                    self.push(")");
                }
            }
        }
        if let Some(having) = &q.having {
            self.line(" HAVING ", -STD, STD, 0);
            self.expr(having, Parent::Open);
        }
        let named: Vec<&Window> = q.windows.iter().filter(|w| !w.name.is_empty()).collect();
        for (i, window) in named.into_iter().enumerate() {
            if i == 0 {
                self.line(" WINDOW ", -STD, STD, 1);
            } else {
                self.push(", ");
            }
            self.push(&format!("{} AS ", quote_identifier(&window.name)));
            self.window(window);
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    fn target(&mut self, target: &Target, name: &str) {
        self.expr(&target.expr, Parent::Open);
        // A column shown under its own name needs no AS.
        let own = match &target.expr.kind {
            ExprKind::Var(rt, att, up) => self.column_name(*rt, *att, *up),
            _ => None,
        };
        let hidden = self.levels.last().is_some_and(|l| l.exists) && name == "?column?";
        if own.as_deref() != Some(name) && !hidden {
            self.push(&format!(" AS {}", quote_identifier(name)));
        }
    }

    /// Sort or group keys that are output columns.
    fn keys(&mut self, q: &Query, keys: &[usize]) {
        for (i, key) in keys.iter().enumerate() {
            if i > 0 {
                self.push(", ");
            }
            self.key(&q.targets, *key);
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    fn key(&mut self, targets: &[Target], key: usize) {
        let Some(target) = targets.get(key) else { return };
        match &target.expr.kind {
            // A bare number would mean a column's place.
            ExprKind::Const(_) => {
                let place = targets.iter().take(key + 1).filter(|t| !t.junk).count();
                if target.junk {
                    self.expr(&target.expr, Parent::Open);
                } else {
                    self.push(&place.to_string());
                }
            }
            ExprKind::Var(..) => self.expr(&target.expr, Parent::Open),
            _ => {
                let before = self.out.len();
                self.expr(&target.expr, Parent::Open);
                let text = self.out.split_off(before);
                let function = matches!(&target.expr.kind, ExprKind::Call(c) if c.oper.is_none() && !c.cast)
                    || matches!(target.expr.kind, ExprKind::Agg(_) | ExprKind::Coalesce(_));
                if function || (text.starts_with('(') && text.ends_with(')')) {
                    self.push(&text);
                } else {
                    self.push(&format!("({text})"));
                }
            }
        }
    }

    fn sort(&mut self, targets: &[Target], keys: &[SortKey]) {
        for (i, key) in keys.iter().enumerate() {
            if i > 0 {
                self.push(", ");
            }
            self.key(targets, key.target);
            match (key.desc, key.nulls_first) {
                (true, true) => self.push(" DESC"),
                (true, false) => self.push(" DESC NULLS LAST"),
                (false, true) => self.push(" NULLS FIRST"),
                (false, false) => {}
            }
        }
    }

    fn sort_and_limit(&mut self, q: &Query) {
        if !q.sort.is_empty() {
            self.line(" ORDER BY ", -STD, STD, 1);
            if q.set_op.is_some() {
                // The columns of a set operation go by their names.
                for (i, key) in q.sort.iter().enumerate() {
                    if i > 0 {
                        self.push(", ");
                    }
                    self.push(&(key.target + 1).to_string());
                    if key.desc {
                        self.push(" DESC");
                    }
                    if key.nulls_first != key.desc {
                        self.push(if key.nulls_first { " NULLS FIRST" } else { " NULLS LAST" });
                    }
                }
            } else {
                self.sort(&q.targets, &q.sort);
            }
        }
        if let Some(offset) = &q.offset {
            self.line(" OFFSET ", -STD, STD, 0);
            self.expr(offset, Parent::Open);
        }
        if let Some(limit) = &q.limit {
            if q.with_ties {
                self.line(" FETCH FIRST ", -STD, STD, 0);
                self.push("(");
                self.expr(limit, Parent::Open);
                self.push(") ROWS WITH TIES");
            } else {
                self.line(" LIMIT ", -STD, STD, 0);
                self.expr(limit, Parent::Open);
            }
        }
        for mark in &q.row_marks {
            let word = match mark.strength {
                LockStrength::KeyShare => " FOR KEY SHARE",
                LockStrength::Share => " FOR SHARE",
                LockStrength::NoKeyUpdate => " FOR NO KEY UPDATE",
                LockStrength::Update => " FOR UPDATE",
            };
            self.line(word, -STD, STD, 0);
            if let Some(rte) = q.rtable.get(mark.rt) {
                self.push(&format!(" OF {}", quote_identifier(&rte.alias)));
            }
            match mark.wait {
                WaitPolicy::Wait => {}
                WaitPolicy::Error => self.push(" NOWAIT"),
                WaitPolicy::Skip => self.push(" SKIP LOCKED"),
            }
        }
    }

    fn set_operation(&mut self, q: &Query, tree: &SetOpTree, names: Option<&[Arc<str>]>) {
        match tree {
            SetOpTree::Arm(rt) => {
                let Some(RteSource::Subquery(arm)) = q.rtable.get(*rt).map(|r| &r.source) else { return };
                let own =
                    !arm.ctes.is_empty() || !arm.sort.is_empty() || arm.limit.is_some() || arm.offset.is_some() || arm.set_op.is_some();
                if own {
                    self.push("(");
                }
                self.query(arm, names);
                if own {
                    self.push(")");
                }
            }
            SetOpTree::Op { kind, all, left, right, .. } => {
                let brackets = matches!(&**left, SetOpTree::Op { kind: k, all: a, .. } if k != kind || a != all);
                self.arm(q, left, names, brackets);
                if brackets {
                    self.line(") ", -STD, 0, 0);
                } else {
                    self.line("", 0, 0, 0);
                }
                self.push(match kind {
                    SetOpKind::Union => "UNION ",
                    SetOpKind::Intersect => "INTERSECT ",
                    SetOpKind::Except => "EXCEPT ",
                });
                if *all {
                    self.push("ALL ");
                }
                let brackets = matches!(&**right, SetOpTree::Op { .. });
                let before = self.indent;
                if brackets {
                    self.push("(");
                }
                self.line("", if brackets { STD } else { 0 }, 0, 0);
                self.set_operation(q, right, names);
                self.indent = before;
                if brackets {
                    self.line(")", 0, 0, 0);
                }
            }
        }
    }

    fn arm(&mut self, q: &Query, tree: &SetOpTree, names: Option<&[Arc<str>]>, brackets: bool) {
        if brackets {
            self.push("(");
            self.line("", STD, 0, 0);
        }
        self.set_operation(q, tree, names);
    }

    // ---- FROM

    #[expect(clippy::wrong_self_convention, reason = "FROM is the clause")]
    fn from_item(&mut self, q: &Query, item: &FromItem) {
        match item {
            FromItem::Rel(rt) => {
                if let Some(rte) = q.rtable.get(*rt) {
                    self.source(rte);
                }
            }
            FromItem::Join(join) => self.join(q, join),
        }
    }

    fn join(&mut self, q: &Query, join: &Join) {
        if !self.pretty {
            self.push("(");
        }
        self.from_item(q, &join.left);
        let word = match join.kind {
            JoinKind::Inner | JoinKind::Semi | JoinKind::Anti if join.quals.is_none() => " CROSS JOIN ",
            JoinKind::Inner | JoinKind::Semi | JoinKind::Anti => " JOIN ",
            JoinKind::Left => " LEFT JOIN ",
            JoinKind::Right => " RIGHT JOIN ",
            JoinKind::Full => " FULL JOIN ",
        };
        self.line(word, -STD, STD, JOIN);
        let brackets = self.pretty && matches!(join.right, FromItem::Join(_));
        if brackets {
            self.push("(");
        }
        self.from_item(q, &join.right);
        if brackets {
            self.push(")");
        }
        if join.using.is_empty() {
            if let Some(quals) = &join.quals {
                self.push(" ON ");
                if !self.pretty {
                    self.push("(");
                }
                self.expr(quals, Parent::Open);
                if !self.pretty {
                    self.push(")");
                }
            }
        } else {
            self.push(" USING ");
            self.names(&join.using);
        }
        if !self.pretty {
            self.push(")");
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these range table entries matter here")]
    fn source(&mut self, rte: &Rte) {
        let columns: Vec<Arc<str>> = rte.columns.iter().filter(|c| c.ty != 0).map(|c| Arc::clone(&c.name)).collect();
        if rte.lateral && matches!(rte.source, RteSource::Subquery(_)) {
            self.push("LATERAL ");
        }
        // Its name, and its columns' names where they are others than the source's.
        let mut own: Option<Vec<Arc<str>>> = None;
        let mut name: Option<Arc<str>> = None;
        let relation = match &rte.source {
            RteSource::Table(relation) => Some(relation),
            RteSource::Subquery(q) => q.view.as_ref(),
            _ => None,
        };
        if let Some(relation) = relation {
            let visible = self.session.catalog.is_visible(relation).unwrap_or(false);
            let schema = if visible { None } else { Some(&*relation.namespace_name) };
            let text = quote_qualified(schema, &relation.name);
            self.push(&text);
            name = Some(Arc::clone(&relation.name));
            own = Some(relation.live_columns().map(|c| Arc::clone(&c.name)).collect());
        } else {
            match &rte.source {
                RteSource::Subquery(q) => {
                    self.push("(");
                    self.query(q, None);
                    self.push(")");
                    own = Some(q.targets.iter().filter(|t| !t.junk).map(|t| Arc::clone(&t.name)).collect());
                    if &*rte.alias == "unnamed_subquery" {
                        return;
                    }
                }
                RteSource::Function { calls, ordinality } => {
                    if calls.len() > 1 {
                        self.push("ROWS FROM(");
                    }
                    for (i, (call, _)) in calls.iter().enumerate() {
                        if i > 0 {
                            self.push(", ");
                        }
                        self.expr(call, Parent::Open);
                    }
                    if calls.len() > 1 {
                        self.push(")");
                    }
                    if *ordinality {
                        self.push(" WITH ORDINALITY");
                    }
                }
                RteSource::Values(rows) => {
                    self.push("( VALUES ");
                    self.values(rows);
                    self.push(")");
                }
                RteSource::Cte(up, index) | RteSource::Working(up, index) => {
                    let found =
                        self.levels.len().checked_sub(up + 1).and_then(|l| self.levels.get(l)).and_then(|l| l.ctes.get(*index)).cloned();
                    if let Some(found) = found {
                        self.push(&quote_identifier(&found));
                        name = Some(found);
                    }
                    own = Some(columns.clone());
                }
                RteSource::Table(_) | RteSource::Excluded | RteSource::None => return,
            }
        }
        let renamed = own.as_ref().is_none_or(|own| *own != columns);
        if name.as_ref() != Some(&rte.alias) || renamed {
            self.push(&format!(" {}", quote_identifier(&rte.alias)));
        }
        if renamed {
            self.names(&columns);
        }
    }

    // ---- windows

    fn window(&mut self, w: &Window) {
        let targets = self.levels.last().map(|l| l.targets.clone()).unwrap_or_default();
        self.push("(");
        let mut words = false;
        if !w.partition.is_empty() {
            self.push("PARTITION BY ");
            for (i, key) in w.partition.iter().enumerate() {
                if i > 0 {
                    self.push(", ");
                }
                self.key(&targets, *key);
            }
            words = true;
        }
        if !w.order.is_empty() {
            self.push(if words { " ORDER BY " } else { "ORDER BY " });
            self.sort(&targets, &w.order);
            words = true;
        }
        self.frame(&w.frame, words);
        self.push(")");
    }

    fn frame(&mut self, f: &Frame, words: bool) {
        let default = f.mode == FrameMode::Range
            && matches!((&f.start, &f.end), (FrameEdge::UnboundedPreceding, FrameEdge::CurrentRow))
            && f.exclude == FrameExclude::None;
        if default {
            return;
        }
        if words {
            self.push(" ");
        }
        self.push(match f.mode {
            FrameMode::Rows => "ROWS BETWEEN ",
            FrameMode::Range => "RANGE BETWEEN ",
            FrameMode::Groups => "GROUPS BETWEEN ",
        });
        self.edge(&f.start);
        self.push(" AND ");
        self.edge(&f.end);
        match f.exclude {
            FrameExclude::None => {}
            FrameExclude::CurrentRow => self.push(" EXCLUDE CURRENT ROW"),
            FrameExclude::Group => self.push(" EXCLUDE GROUP"),
            FrameExclude::Ties => self.push(" EXCLUDE TIES"),
        }
    }

    fn edge(&mut self, edge: &FrameEdge) {
        match edge {
            FrameEdge::UnboundedPreceding => self.push("UNBOUNDED PRECEDING"),
            FrameEdge::CurrentRow => self.push("CURRENT ROW"),
            FrameEdge::UnboundedFollowing => self.push("UNBOUNDED FOLLOWING"),
            FrameEdge::Preceding(e) => {
                self.expr(e, Parent::Open);
                self.push(" PRECEDING");
            }
            FrameEdge::Following(e) => {
                self.expr(e, Parent::Open);
                self.push(" FOLLOWING");
            }
        }
    }

    // ---- expressions

    fn column_name(&self, rt: usize, att: i16, up: usize) -> Option<Arc<str>> {
        let level = self.levels.len().checked_sub(up + 1).and_then(|l| self.levels.get(l))?;
        let (_, columns) = level.names.get(rt)?;
        usize::try_from(att).ok()?.checked_sub(1).and_then(|i| columns.get(i)).cloned()
    }

    fn column(&mut self, rt: usize, att: i16, up: usize) {
        let Some(level) = self.levels.len().checked_sub(up + 1).and_then(|l| self.levels.get(l)) else { return };
        let Some((alias, columns)) = level.names.get(rt) else { return };
        let column = match att {
            0 => {
                let text = if level.qualify { format!("{}.*", quote_identifier(alias)) } else { quote_identifier(alias) };
                self.push(&text);
                return;
            }
            -1 => "ctid".to_owned(),
            -2 => "xmin".to_owned(),
            -3 => "cmin".to_owned(),
            -4 => "xmax".to_owned(),
            -5 => "cmax".to_owned(),
            -6 => "tableoid".to_owned(),
            _ => usize::try_from(att)
                .ok()
                .and_then(|a| a.checked_sub(1))
                .and_then(|a| columns.get(a))
                .map_or_else(|| "?".to_owned(), |c| quote_identifier(c)),
        };
        let text = if level.qualify { format!("{}.{column}", quote_identifier(alias)) } else { column };
        self.push(&text);
    }

    fn type_name(&self, e: &Expr) -> String {
        types::typmod::format_type_with(e.ty, Some(e.typmod), self.session.io()).unwrap_or_else(|_| types::format_type(e.ty, e.typmod))
    }

    /// PostgreSQL: `get_const_expr`.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
    fn constant(&mut self, v: &Datum, e: &Expr, label: bool) {
        let text = match v {
            Datum::Null => "NULL".to_owned(),
            Datum::Bool(b) => {
                let text = b.to_string();
                return self.push(&text);
            }
            Datum::Int4(n) if *n >= 0 => {
                let text = n.to_string();
                return self.push(&text);
            }
            _ => {
                let mut bytes = Vec::new();
                if types::text_out(v, e.ty, &mut bytes, self.session.io()).is_err() {
                    return self.push("?");
                }
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if matches!(v, Datum::Numeric(_)) && text.starts_with(|c: char| c.is_ascii_digit()) && text.contains(['.', 'e', 'E']) {
                    if e.typmod < 0 {
                        return self.push(&text);
                    }
                    text
                } else {
                    crate::sql::catalog::names::quote_literal(&text)
                }
            }
        };
        self.push(&text);
        if label && e.ty != oids::UNKNOWN {
            let name = self.type_name(e);
            self.push(&format!("::{name}"));
        }
    }

    fn list(&mut self, items: &[Expr]) {
        for (i, e) in items.iter().enumerate() {
            if i > 0 {
                self.push(", ");
            }
            self.expr(e, Parent::Open);
        }
    }

    /// Writes in parentheses unless `pretty` and they change nothing.
    fn bracketed(&mut self, needed: bool, write: impl FnOnce(&mut Self)) {
        if !self.pretty || needed {
            self.push("(");
            write(self);
            self.push(")");
        } else {
            write(self);
        }
    }

    /// Whether `pretty` must keep the parentheses of an operator under this parent. PostgreSQL: `isSimpleNode`.
    fn operator_needs(op: &str, parent: Parent<'_>) -> bool {
        let rank = |op: &str| match op {
            "+" | "-" => Some(1),
            "*" | "/" | "%" => Some(2),
            _ => None,
        };
        match parent {
            Parent::Open | Parent::And | Parent::Or | Parent::Not => false,
            Parent::Cast | Parent::Words => true,
            Parent::Oper(outer, first) => match (rank(op), rank(outer)) {
                (Some(a), Some(b)) => a < b || (a == b && !first),
                _ => true,
            },
        }
    }

    fn words_need(parent: Parent<'_>) -> bool {
        matches!(parent, Parent::Oper(..) | Parent::Cast | Parent::Words)
    }

    fn cast(&mut self, inner: &Expr, e: &Expr) {
        if let ExprKind::Const(v) = &inner.kind
            && inner.ty == e.ty
        {
            self.constant(v, inner, false);
        } else if self.pretty {
            self.expr(inner, Parent::Cast);
        } else {
            let before = self.out.len();
            self.expr(inner, Parent::Cast);
            let text = self.out.split_off(before);
            if text.starts_with('(') && text.ends_with(')') && is_bracketed(inner) {
                self.push(&text);
            } else {
                self.push(&format!("({text})"));
            }
        }
        let name = self.type_name(e);
        self.push(&format!("::{name}"));
    }

    fn call(&mut self, c: &CallExpr, e: &Expr, parent: Parent<'_>) {
        match (c.oper, c.args.as_slice()) {
            (Some(o), [l, r]) => self.bracketed(Self::operator_needs(o.name, parent), |d| {
                d.expr(l, Parent::Oper(o.name, true));
                d.push(&format!(" {} ", o.name));
                d.expr(r, Parent::Oper(o.name, false));
            }),
            (Some(o), [r]) => self.bracketed(Self::operator_needs(o.name, parent), |d| {
                d.push(&format!("{} ", o.name));
                d.expr(r, Parent::Oper(o.name, false));
            }),
            (_, [inner, ..]) if c.cast => self.cast(inner, e),
            _ => {
                // Functions the grammar has words for.
                match (c.func.name, c.args.as_slice()) {
                    ("extract", [Expr { kind: ExprKind::Const(Datum::Text(field)), .. }, of]) => {
                        let field = String::from_utf8_lossy(field.as_bytes()).into_owned();
                        self.push(&format!("EXTRACT({field} FROM "));
                        self.expr(of, Parent::Open);
                        self.push(")");
                        return;
                    }
                    ("timezone", [zone, at]) => {
                        self.push("(");
                        self.expr(at, Parent::Words);
                        self.push(" AT TIME ZONE ");
                        self.expr(zone, Parent::Words);
                        self.push(")");
                        return;
                    }
                    _ => {}
                }
                self.push(&quote_identifier(c.func.name));
                self.push("(");
                self.list(&c.args);
                self.push(")");
            }
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
    fn expr(&mut self, e: &Expr, parent: Parent<'_>) {
        match &e.kind {
            ExprKind::Const(v) => self.constant(v, e, true),
            ExprKind::Var(rt, att, up) => self.column(*rt, *att, *up),
            ExprKind::Param(n) => self.push(&format!("${}", n + 1)),
            ExprKind::CaseValue => self.push("CASE_TEST_EXPR"),
            ExprKind::Slot(n) | ExprKind::Exec(n) | ExprKind::SubColumn(n) => self.push(&format!("${n}")),
            ExprKind::Call(c) => self.call(c, e, parent),
            ExprKind::And(items) => self.bracketed(Self::words_need(parent) || parent == Parent::Not, |d| {
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        d.push(" AND ");
                    }
                    d.expr(item, Parent::And);
                }
            }),
            ExprKind::Or(items) => self.bracketed(Self::words_need(parent) || matches!(parent, Parent::And | Parent::Not), |d| {
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        d.push(" OR ");
                    }
                    d.expr(item, Parent::Or);
                }
            }),
            ExprKind::Not(x) => {
                // NOT IN and its kin are written as such.
                if let ExprKind::ArrayCompare(_) = x.kind {
                    self.bracketed(Self::words_need(parent), |d| {
                        d.push("NOT ");
                        d.expr(x, Parent::Not);
                    });
                } else {
                    self.bracketed(Self::words_need(parent) || parent == Parent::Not, |d| {
                        d.push("NOT ");
                        d.expr(x, Parent::Not);
                    });
                }
            }
            ExprKind::IsNull(x, negated) => self.bracketed(Self::words_need(parent), |d| {
                d.expr(x, Parent::Words);
                d.push(if *negated { " IS NOT NULL" } else { " IS NULL" });
            }),
            ExprKind::BoolTest(x, t) => {
                let word = match t {
                    BoolTest::True => " IS TRUE",
                    BoolTest::NotTrue => " IS NOT TRUE",
                    BoolTest::False => " IS FALSE",
                    BoolTest::NotFalse => " IS NOT FALSE",
                    BoolTest::Unknown => " IS UNKNOWN",
                    BoolTest::NotUnknown => " IS NOT UNKNOWN",
                };
                self.bracketed(Self::words_need(parent), |d| {
                    d.expr(x, Parent::Words);
                    d.push(word);
                });
            }
            ExprKind::Distinct(c, negated) => self.bracketed(Self::words_need(parent), |d| {
                if let [l, r] = c.args.as_slice() {
                    d.expr(l, Parent::Words);
                    d.push(if *negated { " IS NOT DISTINCT FROM " } else { " IS DISTINCT FROM " });
                    d.expr(r, Parent::Words);
                }
            }),
            ExprKind::NullIf(c) => self.function("NULLIF", &c.args),
            ExprKind::Case(c) => {
                self.line("CASE", 0, VAR, 0);
                if let Some(arg) = &c.arg {
                    self.push(" ");
                    self.expr(arg, Parent::Open);
                }
                for (condition, result) in &c.arms {
                    self.line("WHEN ", 0, 0, 0);
                    match (&c.arg, &condition.kind) {
                        (Some(_), ExprKind::Call(call)) => {
                            if let Some(value) = call.args.last() {
                                self.expr(value, Parent::Open);
                            }
                        }
                        _ => self.expr(condition, Parent::Open),
                    }
                    self.push(" THEN ");
                    self.expr(result, Parent::Open);
                }
                self.line("ELSE ", 0, 0, 0);
                self.expr(&c.default, Parent::Open);
                self.line("END", -VAR, 0, 0);
            }
            ExprKind::Coalesce(items) => self.function("COALESCE", items),
            ExprKind::MinMax(items, greatest) => self.function(if *greatest { "GREATEST" } else { "LEAST" }, items),
            ExprKind::Array(items, ..) => {
                self.push("ARRAY[");
                self.list(items);
                self.push("]");
                if items.is_empty() {
                    let name = self.type_name(e);
                    self.push(&format!("::{name}"));
                }
            }
            ExprKind::Row(items, desc) => {
                let items = live_items(items, desc);
                match self.whole_row(&items) {
                    Some(rt) => self.column(rt, 0, 0),
                    None => {
                        self.function("ROW", &items);
                        if e.ty >= oids::FIRST_NORMAL {
                            let name = self.type_name(e);
                            self.push(&format!("::{name}"));
                        }
                    }
                }
            }
            ExprKind::RowCompare(op, pairs) => {
                let op = match op {
                    CompareOp::Eq => "=",
                    CompareOp::Ne => "<>",
                    CompareOp::Lt => "<",
                    CompareOp::Le => "<=",
                    CompareOp::Gt => ">",
                    CompareOp::Ge => ">=",
                };
                self.push("(ROW(");
                for (i, (l, _)) in pairs.iter().enumerate() {
                    if i > 0 {
                        self.push(", ");
                    }
                    self.expr(l, Parent::Open);
                }
                self.push(&format!(") {op} ROW("));
                for (i, (_, r)) in pairs.iter().enumerate() {
                    if i > 0 {
                        self.push(", ");
                    }
                    self.expr(r, Parent::Open);
                }
                self.push("))");
            }
            ExprKind::Field(x, i) => {
                self.push("(");
                self.expr(x, Parent::Open);
                self.push(&format!(").f{}", i + 1));
            }
            ExprKind::Subscript(x, subscripts, _) => {
                let plain = matches!(x.kind, ExprKind::Var(..));
                if !plain {
                    self.push("(");
                }
                self.expr(x, Parent::Open);
                if !plain {
                    self.push(")");
                }
                for (lower, upper) in subscripts {
                    self.push("[");
                    if let Some(lower) = lower {
                        self.expr(lower, Parent::Open);
                        self.push(":");
                    }
                    if let Some(upper) = upper {
                        self.expr(upper, Parent::Open);
                    }
                    self.push("]");
                }
            }
            ExprKind::ArrayCompare(c) => self.bracketed(parent != Parent::Open, |d| {
                d.expr(&c.left, Parent::Words);
                d.push(&format!(" {} {} (", c.oper.name, if c.any { "ANY" } else { "ALL" }));
                d.expr(&c.array, Parent::Words);
                d.push(")");
            }),
            ExprKind::InOut(x) | ExprKind::Relabel(x) | ExprKind::Reinterpret(x) | ExprKind::ArrayCast(x, ..) | ExprKind::Typmod(x, _) => {
                // A cast and the fitting to its modifier are one.
                let inner = match &x.kind {
                    ExprKind::InOut(y) | ExprKind::Relabel(y) | ExprKind::Reinterpret(y)
                        if matches!(e.kind, ExprKind::Typmod(..)) && x.ty == e.ty =>
                    {
                        y
                    }
                    _ => x,
                };
                self.cast(inner, e);
            }
            ExprKind::SubLink(s) => self.sub_link(s),
            ExprKind::Session(v) => {
                let text = match v {
                    SessionValue::CurrentUser => "CURRENT_USER".to_owned(),
                    SessionValue::SessionUser => "SESSION_USER".to_owned(),
                    SessionValue::CurrentCatalog => "CURRENT_CATALOG".to_owned(),
                    SessionValue::CurrentSchema => "CURRENT_SCHEMA".to_owned(),
                    SessionValue::CurrentDate => "CURRENT_DATE".to_owned(),
                    SessionValue::CurrentTime(n) => digits("CURRENT_TIME", *n),
                    SessionValue::CurrentTimestamp(n) => digits("CURRENT_TIMESTAMP", *n),
                    SessionValue::LocalTime(n) => digits("LOCALTIME", *n),
                    SessionValue::LocalTimestamp(n) => digits("LOCALTIMESTAMP", *n),
                };
                self.push(&text);
            }
            ExprKind::Agg(a) => {
                self.push(&format!("{}(", quote_identifier(a.func.name)));
                if a.distinct {
                    self.push("DISTINCT ");
                }
                if a.star {
                    self.push("*");
                } else {
                    self.list(a.args.get(..a.arg_count).unwrap_or(&a.args));
                }
                if !a.order.is_empty() {
                    self.push(" ORDER BY ");
                    let keys: Vec<Target> =
                        a.args.iter().map(|e| Target { expr: e.clone(), name: Arc::from(""), junk: true, origin: (0, 0) }).collect();
                    self.sort(&keys, &a.order);
                }
                self.push(")");
                self.filter(a.filter.as_ref());
            }
            ExprKind::Window(w) => self.window_call(w),
            ExprKind::Grouping(places) => {
                let Some(level) = self.levels.last() else { return };
                let keys: Vec<Expr> =
                    places.iter().filter_map(|p| level.group.get(*p).and_then(|g| level.targets.get(*g)).map(|t| t.expr.clone())).collect();
                self.function("GROUPING", &keys);
            }
            ExprKind::Default => self.push("DEFAULT"),
            ExprKind::AssignElement(_, _, _, value) => self.expr(value, parent),
        }
    }

    fn function(&mut self, name: &str, args: &[Expr]) {
        self.push(name);
        self.push("(");
        self.list(args);
        self.push(")");
    }

    fn filter(&mut self, filter: Option<&Expr>) {
        if let Some(filter) = filter {
            self.push(" FILTER (WHERE ");
            self.expr(filter, Parent::Open);
            self.push(")");
        }
    }

    fn window_call(&mut self, w: &WindowRef) {
        self.push(&format!("{}(", quote_identifier(w.func.name)));
        if w.star {
            self.push("*");
        } else {
            self.list(&w.args);
        }
        self.push(")");
        self.filter(w.filter.as_ref());
        self.push(" OVER ");
        let Some(window) = self.levels.last().and_then(|l| l.windows.get(w.window)).cloned() else { return };
        if window.name.is_empty() {
            self.window(&window);
        } else {
            self.push(&quote_identifier(&window.name));
        }
    }

    fn sub_link(&mut self, s: &SubLink) {
        let array = matches!(s.kind, SubLinkKind::Array(_));
        self.push(if array { "ARRAY(" } else { "(" });
        let inner = match &s.kind {
            SubLinkKind::Exists => {
                self.push("EXISTS ");
                true
            }
            SubLinkKind::Quantified(any, test, left) => {
                if let (true, Some(left)) = (*any, left) {
                    match left.as_slice() {
                        [one] => self.expr(one, Parent::Words),
                        several => {
                            self.push("(");
                            self.list(several);
                            self.push(")");
                        }
                    }
                    self.push(" IN ");
                } else if let ExprKind::Call(c) = &test.kind
                    && let ([l, _], Some(o)) = (c.args.as_slice(), c.oper)
                {
                    self.expr(l, Parent::Words);
                    self.push(&format!(" {} {} ", o.name, if *any { "ANY" } else { "ALL" }));
                }
                true
            }
            SubLinkKind::Scalar | SubLinkKind::Array(_) | SubLinkKind::Row(_) => false,
        };
        if inner {
            self.push("(");
        }
        self.nameless = true;
        self.query(&s.query, None);
        if inner {
            self.push(")");
        }
        self.push(")");
    }
}

fn digits(name: &str, n: i32) -> String {
    if n < 0 { name.to_owned() } else { format!("{name}({n})") }
}

/// True if the expression writes parentheses of its own around itself.
#[expect(clippy::wildcard_enum_match_arm, reason = "only these expressions matter here, every other is left as it is")]
fn is_bracketed(e: &Expr) -> bool {
    match &e.kind {
        ExprKind::Call(c) => c.oper.is_some(),
        ExprKind::And(_) | ExprKind::Or(_) | ExprKind::Not(_) | ExprKind::IsNull(..) | ExprKind::SubLink(_) => true,
        _ => false,
    }
}

/// The rows of a query that is nothing but VALUES.
fn only_values(q: &Query) -> Option<&[Vec<Expr>]> {
    match (q.from.as_slice(), q.rtable.as_slice()) {
        ([FromItem::Rel(0)], [Rte { source: RteSource::Values(rows), alias, .. }]) if &**alias == "*VALUES*" => Some(rows),
        _ => None,
    }
}
