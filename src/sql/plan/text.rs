//! Expressions as SQL text, for EXPLAIN.

use super::planner::Planner;
use crate::executor::code::{BoolTest, CompareOp};
use crate::sql::bind::deparse::{columns_in_order, live_items};
use crate::sql::bind::expr::{Expr, ExprKind, SubLinkKind};
use crate::sql::types::{self, Datum};

impl Planner<'_> {
    /// In parentheses, as EXPLAIN shows conditions.
    pub fn text(&self, e: &Expr) -> String {
        let text = self.text_bare(e);
        if text.starts_with('(') && text.ends_with(')') && !matches!(e.kind, ExprKind::Row(..)) { text } else { format!("({text})") }
    }

    fn quoted(name: &str) -> String {
        let plain =
            name.bytes().enumerate().all(|(i, b)| b.is_ascii_lowercase() || b == b'_' || (i > 0 && (b.is_ascii_digit() || b == b'$')));
        if plain && !name.is_empty() { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
    }

    fn column(&self, rt: usize, att: i16, up: usize) -> String {
        let level = self.levels.len().checked_sub(up + 1).and_then(|l| self.levels.get(l));
        let Some((alias, columns)) = level.and_then(|l| l.names.get(rt)) else { return format!("${rt}.{att}") };
        let column = match att {
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
                .map_or_else(|| "?".to_owned(), |c| Self::quoted(c)),
        };
        // Alone in its query a table need not be named.
        let several = level.is_some_and(|l| l.names.len() > 1) || self.levels.len() > 1;
        if several { format!("{}.{column}", Self::quoted(alias)) } else { column }
    }

    /// `old.*`, where a row of all columns means that.
    fn whole_row(&self, items: &[Expr]) -> Option<String> {
        let level = self.levels.last()?;
        let (alias, _) = level.names.get(columns_in_order(items)?).filter(|_| level.rows == Some(items.len()))?;
        Some(format!("{}.*", Self::quoted(alias)))
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
    fn constant_text(&self, v: &Datum, e: &Expr) -> String {
        match v {
            Datum::Null => format!("NULL::{}", self.type_name(e)),
            Datum::Bool(b) => b.to_string(),
            Datum::Int4(v) if *v >= 0 => v.to_string(),
            Datum::Int4(v) => format!("'{v}'::integer"),
            _ => {
                let mut out = Vec::new();
                if types::text_out(v, e.ty, &mut out, self.session.io()).is_err() {
                    return "?".to_owned();
                }
                let text = String::from_utf8_lossy(&out);
                match v {
                    Datum::Numeric(_) if !text.starts_with('-') && text.contains('.') => text.into_owned(),
                    _ => format!("'{}'::{}", text.replace('\'', "''"), self.type_name(e)),
                }
            }
        }
    }

    fn type_name(&self, e: &Expr) -> String {
        types::typmod::format_type_with(e.ty, Some(e.typmod), self.session.io()).unwrap_or_else(|_| types::format_type(e.ty, e.typmod))
    }

    fn list(&self, items: &[Expr]) -> String {
        items.iter().map(|e| self.text_bare(e)).collect::<Vec<_>>().join(", ")
    }

    /// Without outer parentheses where none are needed.
    pub fn text_bare(&self, e: &Expr) -> String {
        match &e.kind {
            ExprKind::Const(v) => self.constant_text(v, e),
            ExprKind::Var(rt, att, up) => self.column(*rt, *att, *up),
            ExprKind::Param(n) => format!("${}", n + 1),
            ExprKind::CaseValue => "CASE_TEST_EXPR".to_owned(),
            ExprKind::Slot(n) => format!("${n}"),
            ExprKind::Exec(n) => format!("${n}"),
            ExprKind::SubColumn(n) => format!("${n}"),
            ExprKind::Call(c) => match (c.oper, c.args.as_slice()) {
                (Some(o), [l, r]) => format!("({} {} {})", self.text_bare(l), o.name, self.text_bare(r)),
                (Some(o), [r]) => format!("({} {})", o.name, self.text_bare(r)),
                _ if c.cast => match c.args.first() {
                    Some(a) => {
                        let inner = self.text_bare(a);
                        let inner =
                            if matches!(a.kind, ExprKind::Var(..) | ExprKind::Const(_) | ExprKind::Call(_)) && !inner.starts_with('(') {
                                format!("({inner})")
                            } else {
                                inner
                            };
                        format!("{inner}::{}", self.type_name(e))
                    }
                    None => String::new(),
                },
                _ => format!("{}({})", Self::quoted(c.func.name), self.list(&c.args)),
            },
            ExprKind::And(items) => format!("({})", items.iter().map(|i| self.text(i)).collect::<Vec<_>>().join(" AND ")),
            ExprKind::Or(items) => format!("({})", items.iter().map(|i| self.text(i)).collect::<Vec<_>>().join(" OR ")),
            ExprKind::Not(x) => format!("(NOT {})", self.text_bare(x)),
            ExprKind::IsNull(x, negated) => format!("({} IS {}NULL)", self.text_bare(x), if *negated { "NOT " } else { "" }),
            ExprKind::BoolTest(x, t) => {
                let word = match t {
                    BoolTest::True => "TRUE",
                    BoolTest::NotTrue => "NOT TRUE",
                    BoolTest::False => "FALSE",
                    BoolTest::NotFalse => "NOT FALSE",
                    BoolTest::Unknown => "UNKNOWN",
                    BoolTest::NotUnknown => "NOT UNKNOWN",
                };
                format!("({} IS {word})", self.text_bare(x))
            }
            ExprKind::Distinct(c, negated) => match c.args.as_slice() {
                [l, r] => format!("({} IS {}DISTINCT FROM {})", self.text_bare(l), if *negated { "NOT " } else { "" }, self.text_bare(r)),
                _ => String::new(),
            },
            ExprKind::NullIf(c) => format!("NULLIF({})", self.list(&c.args)),
            ExprKind::Case(c) => {
                let mut s = String::from("CASE");
                if let Some(a) = &c.arg {
                    s.push(' ');
                    s.push_str(&self.text_bare(a));
                }
                for (condition, result) in &c.arms {
                    // `CASE x WHEN v` shows the value only.
                    let condition = match (&c.arg, &condition.kind) {
                        (Some(_), ExprKind::Call(call)) => call.args.last().map_or_else(String::new, |a| self.text_bare(a)),
                        _ => self.text_bare(condition),
                    };
                    s.push_str(&format!(" WHEN {condition} THEN {}", self.text_bare(result)));
                }
                s.push_str(&format!(" ELSE {} END", self.text_bare(&c.default)));
                s
            }
            ExprKind::Coalesce(items) => format!("COALESCE({})", self.list(items)),
            ExprKind::MinMax(items, greatest) => format!("{}({})", if *greatest { "GREATEST" } else { "LEAST" }, self.list(items)),
            ExprKind::Array(items, ..) => {
                if items.iter().all(|i| matches!(i.kind, ExprKind::Const(_))) {
                    let texts: Vec<String> = items
                        .iter()
                        .map(|i| {
                            let mut out = Vec::new();
                            if let ExprKind::Const(v) = &i.kind
                                && types::text_out(v, i.ty, &mut out, self.session.io()).is_ok()
                                && !v.is_null()
                            {
                                String::from_utf8_lossy(&out).into_owned()
                            } else {
                                "NULL".to_owned()
                            }
                        })
                        .collect();
                    return format!("'{{{}}}'::{}", texts.join(",").replace('\'', "''"), self.type_name(e));
                }
                format!("ARRAY[{}]", self.list(items))
            }
            ExprKind::Row(items, desc) => {
                let items = live_items(items, desc);
                match self.whole_row(&items) {
                    Some(text) => text,
                    None => format!("ROW({})", self.list(&items)),
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
                let l: Vec<String> = pairs.iter().map(|p| self.text_bare(&p.0)).collect();
                let r: Vec<String> = pairs.iter().map(|p| self.text_bare(&p.1)).collect();
                match (l.as_slice(), r.as_slice()) {
                    ([l], [r]) => format!("({l} {op} {r})"),
                    _ => format!("(ROW({}) {op} ROW({}))", l.join(", "), r.join(", ")),
                }
            }
            ExprKind::Field(x, i) => format!("({}).f{}", self.text_bare(x), i + 1),
            ExprKind::Subscript(x, subscripts, _) => {
                let mut s = self.text_bare(x);
                for (l, u) in subscripts {
                    let part = |e: &Option<Expr>| e.as_ref().map_or_else(String::new, |e| self.text_bare(e));
                    s.push_str(&if l.is_some() { format!("[{}:{}]", part(l), part(u)) } else { format!("[{}]", part(u)) });
                }
                s
            }
            ExprKind::ArrayCompare(c) => format!(
                "({} {} {} ({}))",
                self.text_bare(&c.left),
                c.oper.name,
                if c.any { "ANY" } else { "ALL" },
                self.text_bare(&c.array)
            ),
            ExprKind::InOut(x) | ExprKind::Relabel(x) | ExprKind::Reinterpret(x) | ExprKind::ArrayCast(x, ..) => {
                let inner = self.text_bare(x);
                if inner.starts_with('(') { format!("{inner}::{}", self.type_name(e)) } else { format!("({inner})::{}", self.type_name(e)) }
            }
            ExprKind::Typmod(x, _) => format!("({})::{}", self.text_bare(x), self.type_name(e)),
            ExprKind::SubLink(s) => match &s.kind {
                SubLinkKind::Quantified(any, ..) => format!("(hashed or plain SubPlan {})", if *any { "ANY" } else { "ALL" }),
                SubLinkKind::Exists => "(EXISTS SubPlan)".to_owned(),
                SubLinkKind::Scalar | SubLinkKind::Array(_) | SubLinkKind::Row(_) => "(SubPlan)".to_owned(),
            },
            ExprKind::Session(v) => {
                use crate::executor::code::SessionValue as S;
                match v {
                    S::CurrentUser => "CURRENT_USER",
                    S::SessionUser => "SESSION_USER",
                    S::CurrentCatalog => "CURRENT_CATALOG",
                    S::CurrentSchema => "CURRENT_SCHEMA",
                    S::CurrentDate => "CURRENT_DATE",
                    S::CurrentTime(_) => "CURRENT_TIME",
                    S::CurrentTimestamp(_) => "CURRENT_TIMESTAMP",
                    S::LocalTime(_) => "LOCALTIME",
                    S::LocalTimestamp(_) => "LOCALTIMESTAMP",
                }
                .to_owned()
            }
            ExprKind::Agg(a) => {
                let args = if a.star {
                    "*".to_owned()
                } else {
                    a.args.iter().take(a.arg_count).map(|e| self.text_bare(e)).collect::<Vec<_>>().join(", ")
                };
                format!("{}({}{args})", Self::quoted(a.func.name), if a.distinct { "DISTINCT " } else { "" })
            }
            ExprKind::Window(w) => {
                format!("{}({}) OVER (?)", Self::quoted(w.func.name), if w.star { "*".to_owned() } else { self.list(&w.args) })
            }
            ExprKind::Grouping(_) => "GROUPING(..)".to_owned(),
            ExprKind::Default => "DEFAULT".to_owned(),
            ExprKind::AssignElement(..) => "(assignment)".to_owned(),
        }
    }
}
