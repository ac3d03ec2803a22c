//! Compiled expressions: what the planner makes of bound ones, once per plan.
//!
//! Names, types and functions are resolved, constants folded, variables are positions in the input row. Evaluation
//! follows PostgreSQL's order and NULL rules.

use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

use super::eval::Exec;
use super::large;
use crate::sql::functions::{Call, CallTypes, ProcEntry};
use crate::sql::types::{self, ArrayValue, ColDesc, Datum, Oid, RecordValue, TupleDesc, array::Dim, oids};
use crate::sqlstate::{SqlError, SqlState};

/// The language of the server's own functions.
const INTERNAL: Oid = 12;

/// A compiled expression.
#[derive(Clone)]
pub enum Code {
    /// A value.
    Const(Datum),
    /// Column of the input row.
    Column(usize),
    /// `$n`, from 0.
    Param(usize),
    /// A value another part of the plan sets: outer variables of subplans, inner sides of nested loops.
    Exec(usize),
    /// The value `CASE x WHEN` and array casts work on.
    CaseValue,
    /// A function or operator.
    Call(Box<CallCode>),
    /// A comparison of integers, dates, timestamps, booleans or text, without a function call.
    Compare(Box<CompareCode>),
    /// AND.
    And(Box<[Code]>),
    /// OR.
    Or(Box<[Code]>),
    /// NOT.
    Not(Box<Code>),
    /// IS NULL (false), IS NOT NULL (true), of a plain value.
    IsNull(Box<Code>, bool),
    /// The same of a row: each column is asked.
    RowIsNull(Box<Code>, bool),
    /// `IS [NOT] TRUE`, `FALSE`, `UNKNOWN`.
    BoolTest(Box<Code>, BoolTest),
    /// IS DISTINCT FROM (false), IS NOT DISTINCT FROM (true); the last is `=` over Exec-free `CaseValue` pairs.
    Distinct(Box<CallCode>, bool),
    /// NULLIF: the call is `=`.
    NullIf(Box<CallCode>),
    /// CASE.
    Case(Box<CaseCode>),
    /// COALESCE.
    Coalesce(Box<[Code]>),
    /// GREATEST (true), LEAST (false).
    MinMax(Box<[Code]>, bool),
    /// ARRAY[..]; nested when the items are arrays themselves.
    Array(Box<[Code]>, Oid, bool),
    /// ROW(..) and whole rows.
    Row(Box<[Code]>, Arc<TupleDesc>, Oid),
    /// Row comparison by `<`, `<=`, `>=`, `>`: per column its `<`-like call on both sides and its `=`.
    RowCompare(Box<RowCompareCode>),
    /// Column of a record.
    Field(Box<Code>, usize),
    /// Array subscripts and slices.
    Subscript(Box<SubscriptCode>),
    /// `x op ANY (array)` (true) or ALL (false).
    ArrayCompare(Box<ArrayCompareCode>),
    /// Text output, then text input.
    InOut(Box<Code>, Oid, Oid, i32),
    /// Same bits, other representation.
    Reinterpret(Box<Code>, Oid),
    /// Each element of an array through a code on `CaseValue`; the new element type.
    ArrayCast(Box<Code>, Box<Code>, Oid),
    /// Fit to a type modifier.
    Typmod(Box<Code>, Oid, i32, bool),
    /// A subplan of the statement.
    Subplan(usize),
    /// CURRENT_USER and its kin.
    Session(SessionValue),
    /// Column of the input row that must not be NULL in rows of a nullable side: a whole row that is NULL if the marker
    /// column is.
    NullIfMissing(Box<Code>, usize),
    /// Assign to an array element or a record field: see `assign`.
    AssignElement(Box<AssignCode>),
    /// GROUPING(): bits by grouping set, from the column that holds the set's number.
    Grouping(usize, Box<[i32]>),
    /// A constant that raises this error when evaluated (kept from folding, as PostgreSQL keeps `1/0` under CASE).
    Fail(Box<SqlError>),
    /// A domain's or column's NOT NULL.
    NotNull(Box<Code>, Arc<str>),
}

/// A call.
#[derive(Clone)]
pub struct CallCode {
    /// The function.
    pub func: &'static ProcEntry,
    /// Types at this site.
    pub types: CallTypes,
    /// Arguments.
    pub args: Box<[Code]>,
}

/// A comparison with a short cut.
#[derive(Clone)]
pub struct CompareCode {
    /// Which.
    pub op: CompareOp,
    /// Left.
    pub left: Code,
    /// Right.
    pub right: Code,
}

/// A comparison operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareOp {
    /// =
    Eq,
    /// <>
    Ne,
    /// <
    Lt,
    /// <=
    Le,
    /// >
    Gt,
    /// >=
    Ge,
}

impl CompareOp {
    /// Whether an order satisfies it.
    #[inline]
    pub fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Eq => order.is_eq(),
            Self::Ne => order.is_ne(),
            Self::Lt => order.is_lt(),
            Self::Le => order.is_le(),
            Self::Gt => order.is_gt(),
            Self::Ge => order.is_ge(),
        }
    }
}

/// The order of two values, which may be integers, or floats, of different widths.
#[expect(clippy::wildcard_enum_match_arm, reason = "all others have one type")]
fn compare_wide(l: &Datum, r: &Datum) -> Ordering {
    let int = |d: &Datum| match d {
        Datum::Int2(v) => Some(i64::from(*v)),
        Datum::Int4(v) => Some(i64::from(*v)),
        Datum::Int8(v) => Some(*v),
        _ => None,
    };
    match (l, r) {
        (Datum::Float4(a), Datum::Float8(_)) => types::compare(&Datum::Float8(f64::from(*a)), r),
        (Datum::Float8(_), Datum::Float4(b)) => types::compare(l, &Datum::Float8(f64::from(*b))),
        _ => match (int(l), int(r)) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => types::compare(l, r),
        },
    }
}

/// IS TRUE and its kin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoolTest {
    /// IS TRUE.
    True,
    /// IS NOT TRUE.
    NotTrue,
    /// IS FALSE.
    False,
    /// IS NOT FALSE.
    NotFalse,
    /// IS UNKNOWN.
    Unknown,
    /// IS NOT UNKNOWN.
    NotUnknown,
}

/// CASE.
#[derive(Clone)]
pub struct CaseCode {
    /// `CASE x`: its value is `CaseValue` in the conditions.
    pub arg: Option<Code>,
    /// Conditions and results.
    pub arms: Box<[(Code, Code)]>,
    /// ELSE.
    pub default: Code,
}

/// Row comparison.
#[derive(Clone)]
pub struct RowCompareCode {
    /// Which.
    pub op: CompareOp,
    /// Pairs.
    pub pairs: Box<[(Code, Code)]>,
}

/// Array subscripts.
#[derive(Clone)]
pub struct SubscriptCode {
    /// The array.
    pub array: Code,
    /// Per dimension: lower (of a slice), upper or the subscript itself.
    pub subscripts: Box<[(Option<Code>, Option<Code>)]>,
    /// Any of them is a slice.
    pub slice: bool,
    /// A fixed-length type whose subscripts count from 0.
    pub fixed: bool,
}

/// Assignment to a part of a column.
#[derive(Clone)]
pub struct AssignCode {
    /// The old value.
    pub target: Code,
    /// Element type of the array.
    pub elem: Oid,
    /// Subscripts.
    pub subscripts: Box<[(Option<Code>, Option<Code>)]>,
    /// Any of them is a slice.
    pub slice: bool,
    /// The new value.
    pub value: Code,
}

/// `x op ANY (array)`.
#[derive(Clone)]
pub struct ArrayCompareCode {
    /// The operator's function.
    pub func: &'static ProcEntry,
    /// Its types.
    pub types: CallTypes,
    /// ANY, else ALL.
    pub any: bool,
    /// Left.
    pub left: Code,
    /// The array.
    pub array: Code,
    /// `=` or `<>` with the type's default meaning: values may be compared without a call.
    pub shortcut: Option<CompareOp>,
    /// A long list of constants that a value is to be found in, made when it is first looked for.
    pub list: OnceLock<Arc<ConstantList>>,
}

/// The values of an array in their order, and whether a NULL is among them.
pub struct ConstantList {
    values: Vec<Datum>,
    null: bool,
}

impl ConstantList {
    /// Below this many values looking at each is as good.
    const LEAST: usize = 9;

    fn of(values: &[Datum]) -> Self {
        let mut sorted: Vec<Datum> = values.iter().filter(|v| !v.is_null()).cloned().collect();
        sorted.sort_by(|a, b| compare_plain(a, b).unwrap_or(Ordering::Equal));
        Self { null: sorted.len() < values.len(), values: sorted }
    }

    fn has(&self, value: &Datum) -> bool {
        self.values.binary_search_by(|v| compare_plain(v, value).unwrap_or(Ordering::Less)).is_ok()
    }
}

/// What the session knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionValue {
    /// CURRENT_USER, CURRENT_ROLE, USER.
    CurrentUser,
    /// SESSION_USER.
    SessionUser,
    /// CURRENT_CATALOG.
    CurrentCatalog,
    /// CURRENT_SCHEMA.
    CurrentSchema,
    /// CURRENT_DATE.
    CurrentDate,
    /// CURRENT_TIME(n).
    CurrentTime(i32),
    /// CURRENT_TIMESTAMP(n).
    CurrentTimestamp(i32),
    /// LOCALTIME(n).
    LocalTime(i32),
    /// LOCALTIMESTAMP(n).
    LocalTimestamp(i32),
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Code")
    }
}

impl Code {
    /// The short cut for this function, if it is a plain comparison of values of one representation class.
    pub fn comparison(func: &ProcEntry) -> Option<CompareOp> {
        let (kind, op) = func.source.split_at_checked(func.source.len().checked_sub(2)?)?;
        let op = match op {
            "eq" => CompareOp::Eq,
            "ne" => CompareOp::Ne,
            "lt" => CompareOp::Lt,
            "le" => CompareOp::Le,
            "gt" => CompareOp::Gt,
            "ge" => CompareOp::Ge,
            _ => return None,
        };
        matches!(
            kind,
            "int2"
                | "int4"
                | "int8"
                | "int24"
                | "int42"
                | "int28"
                | "int82"
                | "int48"
                | "int84"
                | "oid"
                | "date_"
                | "timestamp_"
                | "timestamptz_"
                | "bool"
                | "text"
                | "text_"
                | "name"
                | "char"
        )
        .then_some(op)
    }

    /// The same with the parameters as columns of the input row, if it is made of operators and of immutable functions of the server alone:
    /// these need nothing of an execution.
    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not known to be simple is not")]
    pub fn over_params(&self) -> Option<Self> {
        let all = |items: &[Self]| items.iter().map(Self::over_params).collect::<Option<Box<[Self]>>>();
        let pair = |(a, b): &(Self, Self)| Some((a.over_params()?, b.over_params()?));
        Some(match self {
            Self::Const(_) | Self::CaseValue => self.clone(),
            Self::Param(i) => Self::Column(*i),
            Self::Call(c) => Self::Call(Box::new(c.over_params()?)),
            Self::Distinct(c, negated) => Self::Distinct(Box::new(c.over_params()?), *negated),
            Self::NullIf(c) => Self::NullIf(Box::new(c.over_params()?)),
            Self::Compare(c) => {
                Self::Compare(Box::new(CompareCode { op: c.op, left: c.left.over_params()?, right: c.right.over_params()? }))
            }
            Self::And(items) => Self::And(all(items)?),
            Self::Or(items) => Self::Or(all(items)?),
            Self::Coalesce(items) => Self::Coalesce(all(items)?),
            Self::MinMax(items, greatest) => Self::MinMax(all(items)?, *greatest),
            Self::Array(items, elem, nested) => Self::Array(all(items)?, *elem, *nested),
            Self::Not(item) => Self::Not(Box::new(item.over_params()?)),
            Self::IsNull(item, negated) => Self::IsNull(Box::new(item.over_params()?), *negated),
            Self::RowIsNull(item, negated) => Self::RowIsNull(Box::new(item.over_params()?), *negated),
            Self::BoolTest(item, test) => Self::BoolTest(Box::new(item.over_params()?), *test),
            Self::Field(item, i) => Self::Field(Box::new(item.over_params()?), *i),
            Self::Reinterpret(item, ty) => Self::Reinterpret(Box::new(item.over_params()?), *ty),
            Self::Case(case) => Self::Case(Box::new(CaseCode {
                arg: match &case.arg {
                    Some(arg) => Some(arg.over_params()?),
                    None => None,
                },
                arms: case.arms.iter().map(pair).collect::<Option<_>>()?,
                default: case.default.over_params()?,
            })),
            Self::Subscript(s) => Self::Subscript(Box::new(SubscriptCode {
                array: s.array.over_params()?,
                subscripts: s.subscripts.iter().map(|(a, b)| Some((inside(a)?, inside(b)?))).collect::<Option<_>>()?,
                slice: s.slice,
                fixed: s.fixed,
            })),
            _ => return None,
        })
    }

    /// The value for `row`.
    ///
    /// # Errors
    /// What the expression's functions fail with.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
    pub fn eval(&self, x: &mut Exec<'_>, row: &[Datum]) -> Result<Datum, SqlError> {
        match self {
            Self::Const(v) => Ok(v.clone()),
            Self::Column(i) => match row.get(*i) {
                Some(Datum::Packed(p)) => large::unpack(x.session.engine.ctx(), p),
                Some(v) => Ok(v.clone()),
                None => Ok(Datum::Null),
            },
            Self::Param(i) => Ok(x.state.params.get(*i).cloned().unwrap_or_default()),
            Self::Exec(i) => Ok(x.state.exec.get(*i).cloned().unwrap_or_default()),
            Self::CaseValue => Ok(x.state.case_values.last().cloned().unwrap_or_default()),
            Self::Call(call) => call.eval(x, row),
            Self::Compare(c) => {
                let compare = |a: &Datum, b: &Datum| match compare_plain(a, b) {
                    Some(order) => Datum::Bool(c.op.holds(order)),
                    None => Datum::Null,
                };
                // Columns and constants are looked at where they are, unless they are packed.
                let plain = |i: &usize| row.get(*i).filter(|v| !matches!(v, Datum::Packed(_)));
                match (&c.left, &c.right) {
                    (Self::Column(l), Self::Const(r)) if let Some(l) = plain(l) => Ok(compare(l, r)),
                    (Self::Column(l), Self::Column(r)) if let (Some(l), Some(r)) = (plain(l), plain(r)) => Ok(compare(l, r)),
                    (Self::Column(l), r) if let Some(l) = plain(l) => {
                        let r = r.eval(x, row)?;
                        Ok(compare(l, &r))
                    }
                    (l, r) => {
                        let l = l.eval(x, row)?;
                        let r = r.eval(x, row)?;
                        Ok(compare(&l, &r))
                    }
                }
            }
            Self::And(items) => {
                let mut null = false;
                for item in items {
                    match item.eval(x, row)? {
                        Datum::Bool(true) => {}
                        Datum::Null => null = true,
                        _ => return Ok(Datum::Bool(false)),
                    }
                }
                Ok(if null { Datum::Null } else { Datum::Bool(true) })
            }
            Self::Or(items) => {
                let mut null = false;
                for item in items {
                    match item.eval(x, row)? {
                        Datum::Bool(true) => return Ok(Datum::Bool(true)),
                        Datum::Null => null = true,
                        _ => {}
                    }
                }
                Ok(if null { Datum::Null } else { Datum::Bool(false) })
            }
            Self::Not(item) => Ok(match item.eval(x, row)? {
                Datum::Bool(b) => Datum::Bool(!b),
                other => other,
            }),
            Self::IsNull(item, negated) => {
                let null = match &**item {
                    Self::Column(i) => row.get(*i).is_none_or(Datum::is_null),
                    item => item.eval(x, row)?.is_null(),
                };
                Ok(Datum::Bool(null != *negated))
            }
            Self::RowIsNull(item, negated) => Ok(Datum::Bool(match item.eval(x, row)? {
                Datum::Null => !*negated,
                Datum::Record(r) => r.desc.cols.iter().zip(&r.values).filter(|(c, _)| !c.dropped).all(|(_, v)| v.is_null() != *negated),
                _ => *negated,
            })),
            Self::BoolTest(item, test) => {
                let v = item.eval(x, row)?;
                let (is_true, is_null) = (v.is_true(), v.is_null());
                Ok(Datum::Bool(match test {
                    BoolTest::True => is_true,
                    BoolTest::NotTrue => !is_true,
                    BoolTest::False => !is_true && !is_null,
                    BoolTest::NotFalse => is_true || is_null,
                    BoolTest::Unknown => is_null,
                    BoolTest::NotUnknown => !is_null,
                }))
            }
            Self::Distinct(call, negated) => {
                let args = call.args(x, row)?;
                let same = match args.as_slice() {
                    [a, b] if a.is_null() || b.is_null() => a.is_null() && b.is_null(),
                    args => call.invoke(x, args)?.is_true(),
                };
                Ok(Datum::Bool(same == *negated))
            }
            Self::NullIf(call) => {
                let mut args = call.args(x, row)?;
                if let [a, b] = args.as_slice()
                    && !a.is_null()
                    && !b.is_null()
                    && call.invoke(x, &args)?.is_true()
                {
                    return Ok(Datum::Null);
                }
                Ok(args.drain(..).next().unwrap_or_default())
            }
            Self::Case(case) => {
                let pushed = match &case.arg {
                    Some(arg) => {
                        let v = arg.eval(x, row)?;
                        x.state.case_values.push(v);
                        true
                    }
                    None => false,
                };
                case.eval_arms(x, row, pushed)
            }
            Self::Coalesce(items) => {
                for item in items {
                    let v = item.eval(x, row)?;
                    if !v.is_null() {
                        return Ok(v);
                    }
                }
                Ok(Datum::Null)
            }
            Self::MinMax(items, greatest) => {
                let mut best = Datum::Null;
                for item in items {
                    let v = item.eval(x, row)?;
                    if v.is_null() {
                        continue;
                    }
                    if best.is_null() || (types::compare(&v, &best).is_gt() == *greatest && types::compare(&v, &best).is_ne()) {
                        best = v;
                    }
                }
                Ok(best)
            }
            Self::Array(items, elem, nested) => make_array(x, row, items, *elem, *nested),
            Self::Row(items, desc, type_oid) => {
                let values = items.iter().map(|i| i.eval(x, row)).collect::<Result<Box<[Datum]>, _>>()?;
                Ok(Datum::Record(Arc::new(RecordValue { type_oid: *type_oid, desc: desc.clone(), values })))
            }
            Self::RowCompare(c) => {
                for (l, r) in &c.pairs {
                    let l = l.eval(x, row)?;
                    let r = r.eval(x, row)?;
                    if l.is_null() || r.is_null() {
                        return Ok(Datum::Null);
                    }
                    let order = compare_wide(&l, &r);
                    if order.is_ne() {
                        return Ok(Datum::Bool(c.op.holds(order)));
                    }
                }
                Ok(Datum::Bool(c.op.holds(Ordering::Equal)))
            }
            Self::Field(item, i) => Ok(match item.eval(x, row)? {
                Datum::Record(r) => r.values.get(*i).cloned().unwrap_or_default(),
                _ => Datum::Null,
            }),
            Self::Subscript(s) => s.eval(x, row),
            Self::ArrayCompare(c) => c.eval(x, row),
            Self::InOut(item, from, to, typmod) => {
                let v = item.eval(x, row)?;
                if v.is_null() {
                    return Ok(v);
                }
                let mut text = Vec::new();
                let io = x.session.io();
                types::text_out(&v, *from, &mut text, io)?;
                let text = String::from_utf8(text).map_err(|_| SqlError::internal("text output is not UTF-8"))?;
                if is_string(*to) && *typmod < 0 {
                    return Ok(Datum::text(text));
                }
                types::text_in(*to, *typmod, &text, io)
            }
            Self::Reinterpret(item, to) => reinterpret(item.eval(x, row)?, *to),
            Self::ArrayCast(item, each, elem) => {
                let v = item.eval(x, row)?;
                let Datum::Array(a) = v else { return Ok(Datum::Null) };
                let mut values = Vec::with_capacity(a.values.len());
                for v in &a.values {
                    if v.is_null() {
                        values.push(Datum::Null);
                        continue;
                    }
                    x.state.case_values.push(v.clone());
                    let v = each.eval(x, row);
                    x.state.case_values.pop();
                    values.push(v?);
                }
                Ok(Datum::array(ArrayValue { elem: *elem, dims: a.dims.clone(), values }))
            }
            Self::Typmod(item, ty, typmod, explicit) => {
                let v = item.eval(x, row)?;
                if v.is_null() { Ok(v) } else { types::typmod::coerce_typmod(v, *ty, *typmod, *explicit) }
            }
            Self::Subplan(i) => super::subplan::eval(x, *i, row),
            Self::Session(value) => x.session.session_value(*value),
            Self::NullIfMissing(item, marker) => {
                if row.get(*marker).is_none_or(Datum::is_null) {
                    Ok(Datum::Null)
                } else {
                    item.eval(x, row)
                }
            }
            Self::AssignElement(a) => a.eval(x, row),
            Self::Grouping(column, bits) => {
                let set = match row.get(*column) {
                    Some(Datum::Int4(n)) => usize::try_from(*n).unwrap_or(0),
                    _ => 0,
                };
                Ok(Datum::Int4(bits.get(set).copied().unwrap_or(0)))
            }
            Self::Fail(e) => Err((**e).clone()),
            Self::NotNull(item, message) => {
                let v = item.eval(x, row)?;
                if v.is_null() { Err(SqlError::new(SqlState::NOT_NULL_VIOLATION, &**message)) } else { Ok(v) }
            }
        }
    }

    /// True for `true`; NULL and false are false.
    ///
    /// # Errors
    /// As [`Self::eval`].
    #[inline]
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    pub fn holds(&self, x: &mut Exec<'_>, row: &[Datum]) -> Result<bool, SqlError> {
        match self {
            Self::And(items) => {
                for item in items {
                    if !item.holds(x, row)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            other => Ok(other.eval(x, row)?.is_true()),
        }
    }
}

impl CallCode {
    /// See [`Code::over_params`].
    fn over_params(&self) -> Option<Self> {
        let simple = self.func.volatility == b'i' && self.func.language == INTERNAL && self.func.kind == b'f' && !self.func.returns_set;
        let args = self.args.iter().map(Code::over_params).collect::<Option<_>>();
        if simple { Some(Self { func: self.func, types: self.types.clone(), args: args? }) } else { None }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    fn args(&self, x: &mut Exec<'_>, row: &[Datum]) -> Result<SmallVec<[Datum; 4]>, SqlError> {
        let mut args = SmallVec::new();
        for arg in &self.args {
            args.push(match arg {
                // Some functions can do with a part.
                Code::Column(i) if args.is_empty() && matches!(row.get(*i), Some(Datum::Packed(_))) && large::takes_packed(self.func) => {
                    row.get(*i).cloned().unwrap_or_default()
                }
                arg => arg.eval(x, row)?,
            });
        }
        Ok(args)
    }

    fn invoke(&self, x: &mut Exec<'_>, args: &[Datum]) -> Result<Datum, SqlError> {
        self.func.invoke(&mut Call { ctx: x.session, types: &self.types }, args)
    }

    fn eval(&self, x: &mut Exec<'_>, row: &[Datum]) -> Result<Datum, SqlError> {
        let args = self.args(x, row)?;
        match args.first() {
            Some(Datum::Packed(packed)) => large::call(x, self, packed, &args),
            _ => self.invoke(x, &args),
        }
    }
}

impl CaseCode {
    fn eval_arms(&self, x: &mut Exec<'_>, row: &[Datum], pushed: bool) -> Result<Datum, SqlError> {
        let mut chosen = &self.default;
        for (condition, result) in &self.arms {
            if condition.eval(x, row)?.is_true() {
                chosen = result;
                break;
            }
        }
        // Results see the CASE value of an enclosing array cast or CASE, not of this one.
        if pushed {
            x.state.case_values.pop();
        }
        chosen.eval(x, row)
    }
}

/// Order of two values of the same representation class; `None` if either is NULL.
#[inline]
fn compare_plain(a: &Datum, b: &Datum) -> Option<Ordering> {
    match (a, b) {
        (Datum::Int4(a), Datum::Int4(b)) => Some(a.cmp(b)),
        (Datum::Int8(a), Datum::Int8(b)) => Some(a.cmp(b)),
        (Datum::Text(a), Datum::Text(b)) => Some(a.as_str().cmp(b.as_str())),
        (Datum::Null, _) | (_, Datum::Null) => None,
        _ => match (integer(a), integer(b)) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => Some(types::compare(a, b)),
        },
    }
}

fn integer(v: &Datum) -> Option<i64> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only integers are meant")]
    match v {
        Datum::Int2(v) => Some(i64::from(*v)),
        Datum::Int4(v) => Some(i64::from(*v)),
        Datum::Int8(v) => Some(*v),
        Datum::Oid(v) => Some(i64::from(*v)),
        _ => None,
    }
}

/// [`Code::over_params`] of what may not be there.
#[expect(clippy::option_option, reason = "there and simple, not there, or not simple")]
fn inside(code: &Option<Code>) -> Option<Option<Code>> {
    match code {
        Some(code) => code.over_params().map(Some),
        None => Some(None),
    }
}

/// Text, varchar, name, cstring, unknown: no input function needed.
pub fn is_string(ty: Oid) -> bool {
    matches!(ty, oids::TEXT | oids::VARCHAR | oids::UNKNOWN | oids::CSTRING)
}

fn make_array(x: &mut Exec<'_>, row: &[Datum], items: &[Code], elem: Oid, nested: bool) -> Result<Datum, SqlError> {
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        values.push(item.eval(x, row)?);
    }
    if !nested {
        return Ok(Datum::array(ArrayValue::one_dim(elem, values)));
    }
    let mismatch =
        || SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, "multidimensional arrays must have array expressions with matching dimensions");
    let mut inner: Option<SmallVec<[Dim; 1]>> = None;
    let mut flat = Vec::new();
    let mut count = 0i32;
    for value in values {
        let Datum::Array(a) = value else { continue };
        match &inner {
            None => inner = Some(a.dims.clone()),
            Some(dims) if *dims == a.dims => {}
            Some(_) => return Err(mismatch()),
        }
        count += 1;
        flat.extend(a.values.iter().cloned());
    }
    let inner = inner.unwrap_or_default();
    if inner.is_empty() {
        return Ok(Datum::array(ArrayValue::empty(elem)));
    }
    let mut dims: SmallVec<[Dim; 1]> = SmallVec::new();
    dims.push(Dim { len: count, lower: 1 });
    dims.extend(inner);
    if dims.len() > 6 {
        return Err(SqlError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("number of array dimensions ({}) exceeds the maximum allowed (6)", dims.len()),
        ));
    }
    Ok(Datum::array(ArrayValue { elem, dims, values: flat }))
}

/// `int4` to `oid` and the like: PostgreSQL's same bits, another variant here.
fn reinterpret(v: Datum, to: Oid) -> Result<Datum, SqlError> {
    Ok(match (v, to) {
        (Datum::Int4(v), oids::INT4) => Datum::Int4(v),
        (
            Datum::Int4(v),
            oids::OID
            | oids::XID
            | oids::CID
            | oids::REGCLASS
            | oids::REGTYPE
            | oids::REGPROC
            | oids::REGPROCEDURE
            | oids::REGOPER
            | oids::REGOPERATOR
            | oids::REGNAMESPACE
            | oids::REGROLE
            | oids::REGCONFIG
            | oids::REGDICTIONARY
            | oids::REGCOLLATION,
        ) => Datum::Oid(v.cast_unsigned()),
        (Datum::Oid(v), oids::INT4) => Datum::Int4(v.cast_signed()),
        (v, _) => v,
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
fn subscript_value(code: &Option<Code>, x: &mut Exec<'_>, row: &[Datum]) -> Result<Option<Option<i32>>, SqlError> {
    match code {
        None => Ok(Some(None)),
        Some(code) => match code.eval(x, row)? {
            Datum::Null => Ok(None),
            Datum::Int4(v) => Ok(Some(Some(v))),
            other => Err(SqlError::internal(format!("array subscript {other:?}"))),
        },
    }
}

impl SubscriptCode {
    fn eval(&self, x: &mut Exec<'_>, row: &[Datum]) -> Result<Datum, SqlError> {
        let value = self.array.eval(x, row)?;
        let mut bounds: SmallVec<[(Option<i32>, Option<i32>); 2]> = SmallVec::new();
        for (lower, upper) in &self.subscripts {
            let (Some(lower), Some(upper)) = (subscript_value(lower, x, row)?, subscript_value(upper, x, row)?) else {
                return Ok(Datum::Null);
            };
            bounds.push((lower, upper));
        }
        let Datum::Array(array) = value else { return Ok(Datum::Null) };
        if self.slice {
            return Ok(Datum::array(array.slice(&bounds)));
        }
        let at: SmallVec<[i32; 2]> = bounds.iter().filter_map(|b| b.1).collect();
        Ok(array.get(&at).cloned().unwrap_or_default())
    }
}

impl AssignCode {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
    fn eval(&self, x: &mut Exec<'_>, row: &[Datum]) -> Result<Datum, SqlError> {
        let old = self.target.eval(x, row)?;
        let value = self.value.eval(x, row)?;
        let null = || SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "array subscript in assignment must not be null");
        let mut bounds: SmallVec<[(Option<i32>, Option<i32>); 2]> = SmallVec::new();
        for (lower, upper) in &self.subscripts {
            let lower = subscript_value(lower, x, row)?.ok_or_else(null)?;
            let upper = subscript_value(upper, x, row)?.ok_or_else(null)?;
            bounds.push((lower, upper));
        }
        let mut array = match old {
            Datum::Array(a) => Arc::unwrap_or_clone(a),
            _ => ArrayValue::empty(self.elem),
        };
        if !self.slice {
            let at: SmallVec<[i32; 2]> = bounds.iter().map(|b| b.1.ok_or_else(null)).collect::<Result<_, _>>()?;
            array.set(&at, value)?;
        } else if let Datum::Array(source) = value {
            array.set_slice(&bounds, &source)?;
        }
        Ok(Datum::array(array))
    }
}

impl ArrayCompareCode {
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
    fn eval(&self, x: &mut Exec<'_>, row: &[Datum]) -> Result<Datum, SqlError> {
        let left = self.left.eval(x, row)?;
        let array;
        let array = match &self.array {
            Code::Const(Datum::Array(a)) => a,
            other => match other.eval(x, row)? {
                Datum::Array(a) => {
                    array = a;
                    &array
                }
                _ => return Ok(Datum::Null),
            },
        };
        if array.values.is_empty() {
            return Ok(Datum::Bool(!self.any));
        }
        if left.is_null() && self.func.strict {
            return Ok(Datum::Null);
        }
        let searched = matches!((self.shortcut, self.any), (Some(CompareOp::Eq), true) | (Some(CompareOp::Ne), false));
        if searched
            && array.values.len() >= ConstantList::LEAST
            && let Some(list) = self.list(x, array)
        {
            return Ok(match list.has(&left) {
                true => Datum::Bool(self.any),
                false if list.null => Datum::Null,
                false => Datum::Bool(!self.any),
            });
        }
        let mut null = false;
        for item in &array.values {
            let result = match self.shortcut {
                Some(op) => compare_plain(&left, item).map(|order| op.holds(order)),
                None => {
                    let args = [left.clone(), item.clone()];
                    match self.func.invoke(&mut Call { ctx: x.session, types: &self.types }, &args)? {
                        Datum::Bool(b) => Some(b),
                        _ => None,
                    }
                }
            };
            match result {
                None => null = true,
                Some(b) if b == self.any => return Ok(Datum::Bool(self.any)),
                Some(_) => {}
            }
        }
        Ok(if null { Datum::Null } else { Datum::Bool(!self.any) })
    }
}

impl ArrayCompareCode {
    /// The array to be searched. One that is no constant is sorted when it is met for the second time: a parameter, or what a subquery gave.
    fn list(&self, x: &mut Exec<'_>, array: &Arc<ArrayValue>) -> Option<Arc<ConstantList>> {
        if matches!(self.array, Code::Const(_)) {
            return Some(Arc::clone(self.list.get_or_init(|| Arc::new(ConstantList::of(&array.values)))));
        }
        let site = std::ptr::from_ref(self).addr();
        match x.state.searched.iter_mut().find(|s| s.site == site) {
            Some(s) if Arc::ptr_eq(&s.array, array) => {
                Some(Arc::clone(s.list.get_or_insert_with(|| Arc::new(ConstantList::of(&array.values)))))
            }
            Some(s) => {
                *s = SearchedArray { site, array: Arc::clone(array), list: None };
                None
            }
            None => {
                x.state.searched.push(SearchedArray { site, array: Arc::clone(array), list: None });
                None
            }
        }
    }
}

/// The array that was last compared with at a place of a plan.
pub struct SearchedArray {
    /// Which place: the address of its code, which is the plan's and stays.
    site: usize,
    /// Kept, so that another one cannot come to lie where it was.
    array: Arc<ArrayValue>,
    list: Option<Arc<ConstantList>>,
}

/// A description for rows made of these types, columns named `f1`, `f2`, ...
pub fn row_desc(items: &[(Oid, i32)]) -> Arc<TupleDesc> {
    Arc::new(TupleDesc::new(items.iter().enumerate().map(|(i, (ty, typmod))| ColDesc::new(&format!("f{}", i + 1), *ty, *typmod)).collect()))
}
