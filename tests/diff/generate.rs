//! Random SQL whose result is determined by the SQL.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// A statement to run on both sides.
pub(crate) struct Statement {
    pub(crate) sql: String,
    /// Rows come in a total order.
    pub(crate) ordered: bool,
    /// It changes rows or the schema: a difference spreads.
    pub(crate) changes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ty {
    Int,
    Big,
    Numeric,
    Text,
    Bool,
    Date,
    Timestamp,
}

impl Ty {
    const ALL: [Self; 7] = [Self::Int, Self::Big, Self::Numeric, Self::Text, Self::Bool, Self::Date, Self::Timestamp];

    fn name(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::Big => "bigint",
            Self::Numeric => "numeric(12,3)",
            Self::Text => "text",
            Self::Bool => "boolean",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
        }
    }
}

#[derive(Clone)]
struct Table {
    name: String,
    /// The first is the primary key.
    columns: Vec<(String, Ty)>,
}

/// A column in reach of an expression.
type Scope = Vec<(String, Ty)>;

pub(crate) struct Generator {
    rng: StdRng,
    tables: Vec<Table>,
    next_name: u32,
    next_id: u32,
    in_block: bool,
    savepoints: u32,
    /// Statements that have to come first.
    pending: Vec<Statement>,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        let mut g = Self {
            rng: StdRng::seed_from_u64(seed),
            tables: Vec::new(),
            next_name: 0,
            next_id: 0,
            in_block: false,
            savepoints: 0,
            pending: Vec::new(),
        };
        let mut first = vec![plain("set client_min_messages = error; set timezone = 'UTC'; set datestyle = 'ISO'")];
        for _ in 0..3 {
            let create = g.create_table();
            first.push(create);
        }
        first.reverse();
        g.pending = first;
        g
    }

    pub(crate) fn next(&mut self) -> Statement {
        if let Some(s) = self.pending.pop() {
            return s;
        }
        if self.in_block {
            match self.rng.random_range(0..100) {
                0..=5 => return self.end_block(),
                6..=9 => {
                    self.savepoints += 1;
                    return plain(format!("savepoint s{}", self.savepoints));
                }
                10..=13 if self.savepoints > 0 => {
                    let to = self.rng.random_range(1..=self.savepoints);
                    let verb = if self.rng.random_bool(0.6) {
                        self.savepoints = to;
                        "rollback to"
                    } else {
                        self.savepoints = to - 1;
                        "release"
                    };
                    return plain(format!("{verb} s{to}"));
                }
                _ => {}
            }
        }
        match self.rng.random_range(0..100) {
            0..=24 => self.insert(),
            25..=36 => self.update(),
            37..=44 => self.delete(),
            45..=47 if !self.in_block => {
                self.in_block = true;
                let level = ["", " isolation level repeatable read"].choose(&mut self.rng).copied().unwrap_or("");
                plain(format!("begin{level}"))
            }
            48..=50 if !self.in_block => self.schema_change(),
            51..=54 => self.failing(),
            55..=60 => {
                let t = self.table();
                Statement { sql: format!("select * from {} order by {}", t.name, ordinals(t.columns.len())), ordered: true, changes: false }
            }
            _ => self.select(),
        }
    }

    /// The last statement failed on PostgreSQL: a block it was in has to go back.
    pub(crate) fn failed(&mut self, sql: &str, state: &str) {
        if !self.in_block {
            return;
        }
        if sql.starts_with("savepoint") {
            self.savepoints -= 1;
        }
        if state == "3B001" || self.savepoints == 0 {
            self.in_block = false;
            self.savepoints = 0;
            self.pending.push(plain("rollback"));
        } else if self.rng.random_bool(0.8) {
            self.pending.push(plain(format!("rollback to s{}", self.savepoints)));
        }
    }

    fn end_block(&mut self) -> Statement {
        self.in_block = false;
        self.savepoints = 0;
        plain(if self.rng.random_bool(0.7) { "commit" } else { "rollback" })
    }

    fn table(&mut self) -> Table {
        self.tables.choose(&mut self.rng).cloned().expect("there are tables")
    }

    fn name(&mut self, prefix: &str) -> String {
        self.next_name += 1;
        format!("{prefix}{}", self.next_name)
    }

    fn create_table(&mut self) -> Statement {
        let name = self.name("t");
        let mut columns = vec![("id".to_owned(), Ty::Int)];
        let mut sql = format!("create table {name} (id int primary key");
        for i in 0..self.rng.random_range(3..7) {
            let ty = Ty::ALL.choose(&mut self.rng).copied().expect("not empty");
            let column = format!("c{i}");
            sql.push_str(&format!(", {column} {}", ty.name()));
            match self.rng.random_range(0..8) {
                0 => sql.push_str(&format!(" default {}", self.literal(ty))),
                1 if matches!(ty, Ty::Big | Ty::Numeric | Ty::Timestamp) => sql.push_str(" unique"),
                _ => {}
            }
            columns.push((column, ty));
        }
        sql.push(')');
        self.tables.push(Table { name, columns });
        changing(sql)
    }

    fn schema_change(&mut self) -> Statement {
        let t = self.table();
        match self.rng.random_range(0..7) {
            0 if self.tables.len() < 6 => self.create_table(),
            1 | 2 => {
                let name = self.name("i");
                let mut columns: Vec<String> = t.columns.iter().map(|c| c.0.clone()).filter(|_| self.rng.random_bool(0.4)).collect();
                if columns.is_empty() {
                    columns.push(t.columns[1].0.clone());
                }
                let orders = ["", " desc", " nulls first", " desc nulls last"];
                let columns: Vec<String> =
                    columns.into_iter().map(|c| format!("{c}{}", orders.choose(&mut self.rng).copied().unwrap_or(""))).collect();
                changing(format!("create index {name} on {} ({})", t.name, columns.join(", ")))
            }
            3 if t.columns.len() < 9 => {
                let ty = Ty::ALL.choose(&mut self.rng).copied().expect("not empty");
                let column = self.name("a");
                let default = if self.rng.random_bool(0.5) { format!(" default {}", self.literal(ty)) } else { String::new() };
                for table in &mut self.tables {
                    if table.name == t.name {
                        table.columns.push((column.clone(), ty));
                    }
                }
                changing(format!("alter table {} add column {column} {}{default}", t.name, ty.name()))
            }
            4 if t.columns.len() > 4 => {
                let column = t.columns.last().map(|c| c.0.clone()).expect("more than four");
                for table in &mut self.tables {
                    if table.name == t.name {
                        table.columns.pop();
                    }
                }
                changing(format!("alter table {} drop column {column}", t.name))
            }
            5 => changing(format!("vacuum {}", t.name)),
            _ => changing(format!("analyze {}", t.name)),
        }
    }

    fn literal(&mut self, ty: Ty) -> String {
        let r = &mut self.rng;
        match ty {
            Ty::Int => r.random_range(-50..200).to_string(),
            Ty::Big => r.random_range(-5_000_000_000_i64..5_000_000_000).to_string(),
            Ty::Numeric => format!("{}.{:0w$}", r.random_range(-999..9999), r.random_range(0..100), w = r.random_range(1..4)),
            Ty::Text => {
                let words = ["", "a", "ab", "abc", "b", "Zed", "zed", "ünïcode", "with space", "it''s", "%_x", "0", "42", "\\n"];
                format!("'{}'", words.choose(r).copied().unwrap_or(""))
            }
            Ty::Bool => if r.random_bool(0.5) { "true" } else { "false" }.to_owned(),
            Ty::Date => format!("date '20{:02}-{:02}-{:02}'", r.random_range(0..40), r.random_range(1..13), r.random_range(1..29)),
            Ty::Timestamp => format!(
                "timestamp '20{:02}-{:02}-{:02} {:02}:{:02}:{:02}{}'",
                r.random_range(0..40),
                r.random_range(1..13),
                r.random_range(1..29),
                r.random_range(0..24),
                r.random_range(0..60),
                r.random_range(0..60),
                if r.random_bool(0.3) { ".25" } else { "" }
            ),
        }
    }

    /// An expression of a type that fails on no row.
    fn expr(&mut self, ty: Ty, depth: u32, scope: &Scope) -> String {
        let fitting: Vec<&str> = scope.iter().filter(|c| c.1 == ty).map(|c| c.0.as_str()).collect();
        if depth == 0 || self.rng.random_bool(0.25) {
            if !fitting.is_empty() && self.rng.random_bool(0.75) {
                return (*fitting.choose(&mut self.rng).expect("not empty")).to_owned();
            }
            if self.rng.random_bool(0.06) {
                return format!("null::{}", ty.name());
            }
            return self.literal(ty);
        }
        let d = depth - 1;
        match self.rng.random_range(0..12) {
            0 => {
                let (c, a, b) = (self.expr(Ty::Bool, d, scope), self.expr(ty, d, scope), self.expr(ty, d, scope));
                return format!("case when {c} then {a} else {b} end");
            }
            1 => return format!("coalesce({}, {})", self.expr(ty, d, scope), self.expr(ty, d, scope)),
            2 => return format!("nullif({}, {})", self.expr(ty, d, scope), self.expr(ty, d, scope)),
            3 => return format!("greatest({}, {})", self.expr(ty, d, scope), self.expr(ty, d, scope)),
            _ => {}
        }
        macro_rules! e {
            ($t:ident) => {
                self.expr(Ty::$t, d, scope)
            };
        }
        match ty {
            Ty::Int => match self.rng.random_range(0..8) {
                0 => format!("({} % 1000 + {} % 1000)", e!(Int), e!(Int)),
                1 => format!("({} % 1000 - {} % 1000)", e!(Int), e!(Int)),
                2 => format!("({} % 100 * ({} % 100))", e!(Int), e!(Int)),
                3 => format!("({} / nullif({}, 0))", e!(Int), e!(Int)),
                4 => format!("length({})", e!(Text)),
                5 => format!("extract(day from {})::int", e!(Date)),
                6 => format!("({} - {})", e!(Date), e!(Date)),
                _ => format!("abs({})", e!(Int)),
            },
            Ty::Big => match self.rng.random_range(0..4) {
                0 => format!("({} % 100000 * {}::bigint)", e!(Big), e!(Int)),
                1 => format!("({} % 100000 + {})", e!(Big), e!(Int)),
                2 => format!("{}::bigint", e!(Int)),
                _ => format!("(- ({}))", e!(Big)),
            },
            Ty::Numeric => match self.rng.random_range(0..7) {
                0 => format!("({} + {})::numeric(18,3)", e!(Numeric), e!(Int)),
                1 => format!("round({} * 0.5, 2)", e!(Numeric)),
                2 => format!("round({} / nullif({}, 0), 4)", e!(Numeric), e!(Int)),
                3 => format!("trunc({}, 1)", e!(Numeric)),
                4 => format!("({}::numeric - {})", e!(Int), e!(Numeric)),
                5 => format!("{}::numeric", e!(Big)),
                _ => format!("abs({})", e!(Numeric)),
            },
            Ty::Text => match self.rng.random_range(0..10) {
                0 => format!("({} || {})", e!(Text), e!(Text)),
                1 => format!("upper({})", e!(Text)),
                2 => format!("substr({}, 2, 3)", e!(Text)),
                3 => format!("{}::text", e!(Int)),
                4 => format!("{}::text", e!(Numeric)),
                5 => format!("replace({}, 'a', {})", e!(Text), e!(Text)),
                6 => format!("left({}, abs({} % 5))", e!(Text), e!(Int)),
                7 => format!("{}::text", e!(Bool)),
                8 => format!("{}::text", e!(Timestamp)),
                _ => format!("lpad({}, 4, '*')", e!(Text)),
            },
            Ty::Bool => match self.rng.random_range(0..12) {
                0 | 1 => format!("({} and {})", e!(Bool), e!(Bool)),
                2 => format!("({} or {})", e!(Bool), e!(Bool)),
                3 => format!("(not {})", e!(Bool)),
                4 => format!("({} is null)", self.any(d, scope)),
                5 => format!("({} like '%a%')", e!(Text)),
                6 => format!("({} in ({}, {}, {}))", e!(Int), e!(Int), e!(Int), e!(Int)),
                7 => format!("({} between {} and {})", e!(Numeric), e!(Numeric), e!(Numeric)),
                8 => format!("({} is distinct from {})", e!(Text), e!(Text)),
                _ => {
                    let ty = Ty::ALL.choose(&mut self.rng).copied().expect("not empty");
                    let op = ["=", "<>", "<", "<=", ">", ">="].choose(&mut self.rng).copied().unwrap_or("=");
                    format!("({} {op} {})", self.expr(ty, d, scope), self.expr(ty, d, scope))
                }
            },
            Ty::Date => match self.rng.random_range(0..3) {
                0 => format!("({} + {} % 1000)", e!(Date), e!(Int)),
                1 => format!("{}::date", e!(Timestamp)),
                _ => format!("({} - {} % 1000)", e!(Date), e!(Int)),
            },
            Ty::Timestamp => match self.rng.random_range(0..4) {
                0 => format!("({} + interval '1 day 02:03:04')", e!(Timestamp)),
                1 => format!("date_trunc('month', {})", e!(Timestamp)),
                2 => format!("{}::timestamp", e!(Date)),
                _ => format!("({} - interval '1 month')", e!(Timestamp)),
            },
        }
    }

    fn any(&mut self, depth: u32, scope: &Scope) -> String {
        let ty = Ty::ALL.choose(&mut self.rng).copied().expect("not empty");
        self.expr(ty, depth, scope)
    }

    /// A condition, more often one that an index can answer.
    fn condition(&mut self, scope: &Scope) -> String {
        if self.rng.random_bool(0.5)
            && let Some((column, ty)) = scope.choose(&mut self.rng).cloned()
        {
            let literal = self.literal(ty);
            let op = ["=", "=", "<", "<=", ">", ">="].choose(&mut self.rng).copied().unwrap_or("=");
            return format!("{column} {op} {literal}");
        }
        self.expr(Ty::Bool, 2, scope)
    }

    fn insert(&mut self) -> Statement {
        let t = self.table();
        let columns: Vec<&str> = t.columns.iter().map(|c| c.0.as_str()).collect();
        let rows = self.rng.random_range(1..6);
        let mut values = Vec::new();
        for _ in 0..rows {
            self.next_id += 1;
            // Now and then an id that is there already.
            let id = if self.rng.random_bool(0.08) { self.rng.random_range(1..=self.next_id) } else { self.next_id };
            let mut row = vec![id.to_string()];
            for (_, ty) in &t.columns[1..] {
                row.push(match self.rng.random_range(0..10) {
                    0 => "null".to_owned(),
                    1 => "default".to_owned(),
                    _ => self.literal(*ty),
                });
            }
            values.push(format!("({})", row.join(", ")));
        }
        // One row only where the statement says what happens on a conflict: which of two comes first would matter.
        let conflict = match self.rng.random_range(0..6) {
            0 => " on conflict do nothing".to_owned(),
            1 => {
                values.truncate(1);
                let (column, ty) = t.columns[1..].choose(&mut self.rng).cloned().expect("more than one column");
                let scope = scope_of(&t, Some(&t.name));
                // Folded before it is known whether the row is there: a constant must fit its column.
                let value = self.expr(ty, 2, &scope);
                let value = if ty == Ty::Numeric { format!("({value}) % 100000") } else { value };
                format!(" on conflict (id) do update set {column} = {value}")
            }
            _ => String::new(),
        };
        let returning = if self.rng.random_bool(0.3) { " returning *" } else { "" };
        changing(format!("insert into {} ({}) values {}{conflict}{returning}", t.name, columns.join(", "), values.join(", ")))
    }

    fn update(&mut self) -> Statement {
        let t = self.table();
        let scope = scope_of(&t, None);
        let (column, ty) = t.columns[1..].choose(&mut self.rng).cloned().expect("more than one column");
        let value = self.expr(ty, 2, &scope);
        let value = if ty == Ty::Numeric { format!("({value}) % 100000") } else { value };
        let condition = self.condition(&scope);
        let returning = if self.rng.random_bool(0.4) { format!(" returning id, {column}") } else { String::new() };
        changing(format!("update {} set {column} = {value} where {condition}{returning}", t.name))
    }

    fn delete(&mut self) -> Statement {
        let t = self.table();
        let scope = scope_of(&t, None);
        let condition = self.condition(&scope);
        let returning = if self.rng.random_bool(0.4) { " returning *" } else { "" };
        // Not too many at once, or the tables stay empty.
        let low = self.rng.random_range(0..=self.next_id);
        changing(format!("delete from {} where id between {low} and {} and ({condition}){returning}", t.name, low + 20))
    }

    fn select(&mut self) -> Statement {
        match self.rng.random_range(0..12) {
            0..=3 => self.simple_select(),
            4..=6 => self.join(),
            7 | 8 => self.aggregate(),
            9 => self.set_operation(),
            10 => self.subquery(),
            _ => self.window(),
        }
    }

    fn projection(&mut self, scope: &Scope) -> Vec<String> {
        (0..self.rng.random_range(1..5)).map(|_| self.any(2, scope)).collect()
    }

    fn simple_select(&mut self) -> Statement {
        let t = self.table();
        let scope = scope_of(&t, None);
        let list = self.projection(&scope);
        let condition = self.condition(&scope);
        let distinct = if self.rng.random_bool(0.2) { "distinct " } else { "" };
        let mut sql = format!("select {distinct}{} from {} where {condition} order by {}", list.join(", "), t.name, ordinals(list.len()));
        if self.rng.random_bool(0.3) {
            sql.push_str(&format!(" limit {} offset {}", self.rng.random_range(0..10), self.rng.random_range(0..5)));
        }
        ordered(sql)
    }

    fn join(&mut self) -> Statement {
        let (a, b) = (self.table(), self.table());
        let mut scope = scope_of(&a, Some("a"));
        scope.extend(scope_of(&b, Some("b")));
        let list = self.projection(&scope);
        let kind = ["join", "left join", "right join", "full join"].choose(&mut self.rng).copied().unwrap_or("join");
        // FULL JOIN takes only conditions that a merge or a hash join can use.
        let on = if kind == "full join" || self.rng.random_bool(0.6) {
            "a.id = b.id".to_owned()
        } else {
            format!("a.id = b.id + {}", self.rng.random_range(0..9))
        };
        let condition = self.condition(&scope);
        ordered(format!(
            "select {} from {} a {kind} {} b on {on} where {condition} order by {}",
            list.join(", "),
            a.name,
            b.name,
            ordinals(list.len())
        ))
    }

    fn aggregate(&mut self) -> Statement {
        let t = self.table();
        let scope = scope_of(&t, None);
        let key = self.any(1, &scope);
        let mut list = vec![key];
        for _ in 0..self.rng.random_range(1..4) {
            list.push(match self.rng.random_range(0..8) {
                0 => "count(*)".to_owned(),
                1 => format!("count(distinct {})", self.any(1, &scope)),
                2 => format!("sum({})", self.expr(Ty::Int, 2, &scope)),
                3 => format!("round(avg({}), 5)", self.expr(Ty::Numeric, 1, &scope)),
                4 => format!("min({})", self.expr(Ty::Text, 1, &scope)),
                5 => format!("max({})", self.expr(Ty::Timestamp, 1, &scope)),
                6 => format!("string_agg({}, ',' order by id)", self.expr(Ty::Text, 1, &scope)),
                _ => format!("bool_or({})", self.expr(Ty::Bool, 1, &scope)),
            });
        }
        let having = if self.rng.random_bool(0.3) { " having count(*) > 1" } else { "" };
        let condition = self.condition(&scope);
        if self.rng.random_bool(0.25) {
            return ordered(format!("select {} from {} where {condition}", list[1..].join(", "), t.name));
        }
        // A constant as key would be taken for an output column's number.
        ordered(format!(
            "select {} from (select ({}) as k, x.* from {} x) x where {condition} group by k{having} order by {}",
            std::iter::once("k").chain(list[1..].iter().map(String::as_str)).collect::<Vec<_>>().join(", "),
            list[0],
            t.name,
            ordinals(list.len())
        ))
    }

    fn set_operation(&mut self) -> Statement {
        let (a, b) = (self.table(), self.table());
        let op = ["union", "union all", "intersect", "except"].choose(&mut self.rng).copied().unwrap_or("union");
        let types: Vec<Ty> = (0..self.rng.random_range(1..4)).map(|_| Ty::ALL.choose(&mut self.rng).copied().expect("not empty")).collect();
        let mut side = |t: &Table| -> String {
            let scope = scope_of(t, None);
            let list: Vec<String> = types.iter().map(|ty| self.expr(*ty, 1, &scope)).collect();
            format!("select {} from {} where {}", list.join(", "), t.name, self.condition(&scope))
        };
        let (left, right) = (side(&a), side(&b));
        ordered(format!("{left} {op} {right} order by {}", ordinals(types.len())))
    }

    fn subquery(&mut self) -> Statement {
        let (a, b) = (self.table(), self.table());
        let scope = scope_of(&a, Some("a"));
        let inner = scope_of(&b, Some("b"));
        let mut both = scope.clone();
        both.extend(inner.clone());
        let list = self.projection(&scope);
        let by = ordinals(list.len());
        let condition = self.expr(Ty::Bool, 1, &both);
        let sql = match self.rng.random_range(0..4) {
            0 => format!(
                "select {} from {} a where exists (select 1 from {} b where b.id = a.id and {condition}) order by {by}",
                list.join(", "),
                a.name,
                b.name
            ),
            1 => format!(
                "select {} from {} a where a.id not in (select b.id from {} b where {}) order by {by}",
                list.join(", "),
                a.name,
                b.name,
                self.condition(&inner)
            ),
            2 => format!(
                "select {}, (select count(*) from {} b where b.id < a.id and {condition}) from {} a order by {}",
                list.join(", "),
                b.name,
                a.name,
                ordinals(list.len() + 1)
            ),
            _ => format!(
                "with q as (select {} from {} a where {}) select * from q, lateral (select count(*) from q) n order by {}",
                list.iter().enumerate().map(|(i, e)| format!("{e} as x{i}")).collect::<Vec<_>>().join(", "),
                a.name,
                self.condition(&scope),
                ordinals(list.len() + 1)
            ),
        };
        ordered(sql)
    }

    fn window(&mut self) -> Statement {
        let t = self.table();
        let scope = scope_of(&t, None);
        let (part, value) = (self.any(1, &scope), self.expr(Ty::Int, 1, &scope));
        let f = ["row_number()", "rank()", "dense_rank()", "count(*)"].choose(&mut self.rng).copied().unwrap_or("rank()");
        ordered(format!(
            "select id, {f} over (partition by {part} order by id), sum({value}) over (order by id), lag(id) over (order by id desc) from {} order by 1",
            t.name
        ))
    }

    /// Fails on every row or none, the same way on both sides.
    fn failing(&mut self) -> Statement {
        let t = self.table();
        let sql = match self.rng.random_range(0..9) {
            0 => "select 1 / 0".to_owned(),
            1 => format!("select nope from {}", t.name),
            2 => "select * from no_such_table".to_owned(),
            3 => "select 'x'::int".to_owned(),
            4 => format!("insert into {} (id) values (null)", t.name),
            5 => format!("select id from {} group by c0", t.name),
            6 => "select 2147483647 + 1".to_owned(),
            7 => format!("select no_such_function(id) from {}", t.name),
            _ => "selekt".to_owned(),
        };
        plain(sql)
    }
}

fn scope_of(t: &Table, alias: Option<&str>) -> Scope {
    t.columns.iter().map(|(c, ty)| (alias.map_or_else(|| c.clone(), |a| format!("{a}.{c}")), *ty)).collect()
}

fn ordinals(n: usize) -> String {
    (1..=n).map(|i| i.to_string()).collect::<Vec<_>>().join(", ")
}

fn plain(sql: impl Into<String>) -> Statement {
    Statement { sql: sql.into(), ordered: true, changes: false }
}

fn ordered(sql: String) -> Statement {
    Statement { sql, ordered: true, changes: false }
}

fn changing(sql: String) -> Statement {
    Statement { sql, ordered: false, changes: true }
}
