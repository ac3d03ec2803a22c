//! Aggregates: running states and the table that binds them to `pg_aggregate`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::call::{Call, CallTypes, enlarged};
use super::registry::ProcEntry;
use crate::sql::types::array::Dim;
use crate::sql::types::json::Json;
use crate::sql::types::registry::element_type;
use crate::sql::types::{ArrayValue, Datum, Interval, Numeric, Oid, Text, compare, io, oids};
use crate::sqlstate::{SqlError, SqlState};

/// The state of one aggregate over one group.
pub trait Accumulator: Send {
    /// Takes one input row's arguments (FILTER, DISTINCT and ORDER BY are the caller's). NULLs included: the state skips
    /// what its transition function would.
    ///
    /// # Errors
    /// The aggregate's own.
    fn add(&mut self, call: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError>;

    /// The result so far; may be asked repeatedly (window frames).
    ///
    /// # Errors
    /// The aggregate's own.
    fn finish(&self, call: &mut Call<'_>) -> Result<Datum, SqlError>;

    /// Takes back the oldest row added (moving window frames). `false`: cannot, recompute the frame.
    ///
    /// # Errors
    /// The aggregate's own.
    fn remove(&mut self, call: &mut Call<'_>, args: &[Datum]) -> Result<bool, SqlError> {
        let _ = (call, args);
        Ok(false)
    }

    /// How many rows will come whose last argument is not NULL. Told before the first to aggregates whose rows come sorted.
    fn expect(&mut self, rows: u64) {
        let _ = rows;
    }

    /// Bytes held beyond a fixed size, for hash aggregation's memory limit.
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// Makes the empty state for a call site.
pub type NewAccumulator = fn(&CallTypes) -> Box<dyn Accumulator>;

/// A row of `pg_aggregate`.
#[derive(Debug)]
pub struct AggEntry {
    /// The aggregate, in `pg_proc`.
    pub func: Oid,
    /// `n`ormal, `o`rdered-set, `h`ypothetical-set.
    pub kind: u8,
    /// Direct arguments of an ordered-set aggregate.
    pub direct_args: i16,
    /// Support functions and types, as `pg_aggregate` orders them.
    pub transition: Oid,
    /// Final function.
    pub finish: Oid,
    /// Combine function.
    pub combine: Oid,
    /// Serialisation function.
    pub serialize: Oid,
    /// Deserialisation function.
    pub deserialize: Oid,
    /// Moving transition.
    pub moving_transition: Oid,
    /// Moving inverse transition.
    pub moving_inverse: Oid,
    /// Moving final function.
    pub moving_finish: Oid,
    /// Final function takes extra arguments.
    pub finish_extra: bool,
    /// Moving final function takes extra arguments.
    pub moving_finish_extra: bool,
    /// Whether the final function modifies the state.
    pub finish_modify: u8,
    /// The same for moving.
    pub moving_finish_modify: u8,
    /// Sort operator of min and max.
    pub sort_operator: Oid,
    /// State type.
    pub state_type: Oid,
    /// State size estimate.
    pub state_space: i32,
    /// Moving state type.
    pub moving_state_type: Oid,
    /// Moving state size estimate.
    pub moving_state_space: i32,
    /// Initial state.
    pub initial: &'static str,
    /// Initial moving state.
    pub moving_initial: &'static str,
}

// ---------------------------------------------------------------------------------------------------------------------
// Bodies

type Out = Result<Datum, SqlError>;
type State = Box<dyn Accumulator>;

/// The states of an aggregate, by its name and argument types.
pub(super) fn body(proc: &ProcEntry) -> Option<NewAccumulator> {
    let arg = proc.args.first().copied().unwrap_or(0);
    let int = matches!(arg, oids::INT2 | oids::INT4 | oids::INT8);
    let float = matches!(arg, oids::FLOAT4 | oids::FLOAT8);
    Some(match proc.name {
        "count" => |_| Box::new(Count(0)),
        "sum" => match arg {
            oids::INT2 | oids::INT4 => |_| Box::new(SumInt { sum: 0, count: 0, wide: false }),
            oids::INT8 => |_| Box::new(SumInt { sum: 0, count: 0, wide: true }),
            oids::NUMERIC => |_| Box::new(SumNumeric::new(false)),
            oids::FLOAT4 => |_| Box::new(SumFloat { sum: None, single: true }),
            oids::FLOAT8 => |_| Box::new(SumFloat { sum: None, single: false }),
            oids::INTERVAL => |_| Box::new(SumInterval { sum: Interval::default(), count: 0, mean: false }),
            oids::MONEY => |_| Box::new(SumInt { sum: 0, count: 0, wide: false }),
            _ => return None,
        },
        "avg" => match arg {
            _ if int => |_| Box::new(AvgInt { sum: 0, count: 0 }),
            oids::NUMERIC => |_| Box::new(SumNumeric::new(true)),
            _ if float => |_| Box::new(FloatMoments::new(Moment::Avg)),
            oids::INTERVAL => |_| Box::new(SumInterval { sum: Interval::default(), count: 0, mean: true }),
            _ => return None,
        },
        "min" => |t| Box::new(Extreme { best: Datum::Null, max: false, bpchar: t.args.first() == Some(&oids::BPCHAR) }),
        "max" => |t| Box::new(Extreme { best: Datum::Null, max: true, bpchar: t.args.first() == Some(&oids::BPCHAR) }),
        "bool_and" | "every" => |_| Box::new(Bools { value: None, and: true }),
        "bool_or" => |_| Box::new(Bools { value: None, and: false }),
        "bit_and" | "bit_or" | "bit_xor" if int => match proc.name {
            "bit_and" => |_| Box::new(BitInt { value: Datum::Null, op: |a, b| a & b }),
            "bit_or" => |_| Box::new(BitInt { value: Datum::Null, op: |a, b| a | b }),
            _ => |_| Box::new(BitInt { value: Datum::Null, op: |a, b| a ^ b }),
        },
        "string_agg" => |_| Box::new(StringAgg { out: None }),
        "array_agg" if arg == oids::ANYARRAY => |t| Box::new(ArrayAggArray { result: t.result, parts: Vec::new() }),
        "array_agg" => |t| {
            let elem = element_type(t.result).or_else(|| t.args.first().copied()).unwrap_or(0);
            Box::new(ArrayAgg { elem, values: Vec::new() })
        },
        "variance" | "var_samp" if float => |_| Box::new(FloatMoments::new(Moment::VarSamp)),
        "var_pop" if float => |_| Box::new(FloatMoments::new(Moment::VarPop)),
        "stddev" | "stddev_samp" if float => |_| Box::new(FloatMoments::new(Moment::DevSamp)),
        "stddev_pop" if float => |_| Box::new(FloatMoments::new(Moment::DevPop)),
        "variance" | "var_samp" => |_| Box::new(NumericMoments::new(Moment::VarSamp)),
        "var_pop" => |_| Box::new(NumericMoments::new(Moment::VarPop)),
        "stddev" | "stddev_samp" => |_| Box::new(NumericMoments::new(Moment::DevSamp)),
        "stddev_pop" => |_| Box::new(NumericMoments::new(Moment::DevPop)),
        "regr_count" => |_| Box::new(Regression::new(|r| Ok(Datum::Int8(r.n)))),
        "regr_sxx" => |_| Box::new(Regression::new(|r| r.some(r.sxx))),
        "regr_syy" => |_| Box::new(Regression::new(|r| r.some(r.syy))),
        "regr_sxy" => |_| Box::new(Regression::new(|r| r.some(r.sxy))),
        "regr_avgx" => |_| Box::new(Regression::new(|r| r.some(r.sx / r.float_n()))),
        "regr_avgy" => |_| Box::new(Regression::new(|r| r.some(r.sy / r.float_n()))),
        "regr_slope" => |_| Box::new(Regression::new(|r| r.unless(r.sxx == 0.0, r.sxy / r.sxx))),
        "regr_intercept" => |_| Box::new(Regression::new(|r| r.unless(r.sxx == 0.0, (r.sy - r.sx * r.sxy / r.sxx) / r.float_n()))),
        "regr_r2" => |_| {
            Box::new(Regression::new(|r| {
                if r.syy == 0.0 && r.sxx != 0.0 {
                    return r.some(1.0);
                }
                r.unless(r.sxx == 0.0, r.sxy * r.sxy / (r.sxx * r.syy))
            }))
        },
        "corr" => |_| Box::new(Regression::new(|r| r.unless(r.sxx == 0.0 || r.syy == 0.0, r.sxy / (r.sxx * r.syy).sqrt()))),
        "covar_pop" => |_| Box::new(Regression::new(|r| r.some(r.sxy / r.float_n()))),
        "covar_samp" => |_| Box::new(Regression::new(|r| r.unless(r.n < 2, r.sxy / (r.float_n() - 1.0)))),
        "json_agg" => |_| Box::new(JsonAgg { text: None, values: Vec::new(), binary: false }),
        "jsonb_agg" => |_| Box::new(JsonAgg { text: None, values: Vec::new(), binary: true }),
        "json_object_agg" => |_| Box::new(JsonObjectAgg { text: None, members: Vec::new(), binary: false }),
        "jsonb_object_agg" => |_| Box::new(JsonObjectAgg { text: None, members: Vec::new(), binary: true }),
        "mode" => |_| Box::new(Ordered::new(OrderedKind::Mode)),
        "percentile_disc" => |_| Box::new(Ordered::new(OrderedKind::Discrete)),
        "percentile_cont" => |_| Box::new(Ordered::new(OrderedKind::Continuous)),
        _ => return None,
    })
}

/// The aggregated argument, or nothing to do for NULL.
fn value(args: &[Datum]) -> Option<&Datum> {
    args.first().filter(|v| !v.is_null())
}

struct Count(i64);

impl Accumulator for Count {
    fn add(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        if !args.first().is_some_and(Datum::is_null) {
            self.0 += 1;
        }
        Ok(())
    }

    fn finish(&self, _: &mut Call<'_>) -> Out {
        Ok(Datum::Int8(self.0))
    }

    fn remove(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<bool, SqlError> {
        if !args.first().is_some_and(Datum::is_null) {
            self.0 -= 1;
        }
        Ok(true)
    }
}

/// `sum` of integers: `bigint`, or `numeric` over `bigint`.
struct SumInt {
    sum: i128,
    count: i64,
    wide: bool,
}

impl Accumulator for SumInt {
    fn add(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        if let Some(v) = value(args) {
            self.sum += i128::from(super::integer::wide(v)?);
            self.count += 1;
        }
        Ok(())
    }

    fn finish(&self, _: &mut Call<'_>) -> Out {
        if self.count == 0 {
            return Ok(Datum::Null);
        }
        if self.wide {
            return Ok(Datum::Numeric(Numeric::from(self.sum)));
        }
        i64::try_from(self.sum).map(Datum::Int8).map_err(|_| super::integer::out_of_range("bigint"))
    }

    fn remove(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<bool, SqlError> {
        if let Some(v) = value(args) {
            self.sum -= i128::from(super::integer::wide(v)?);
            self.count -= 1;
        }
        Ok(true)
    }
}

struct AvgInt {
    sum: i128,
    count: i64,
}

impl Accumulator for AvgInt {
    fn add(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        if let Some(v) = value(args) {
            self.sum += i128::from(super::integer::wide(v)?);
            self.count += 1;
        }
        Ok(())
    }

    fn finish(&self, _: &mut Call<'_>) -> Out {
        if self.count == 0 {
            return Ok(Datum::Null);
        }
        Numeric::from(self.sum).div(&Numeric::from(self.count)).map(Datum::Numeric)
    }

    fn remove(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<bool, SqlError> {
        if let Some(v) = value(args) {
            self.sum -= i128::from(super::integer::wide(v)?);
            self.count -= 1;
        }
        Ok(true)
    }
}

/// `sum` and `avg` of `numeric`; NaN and infinities are counted apart, so that they can be taken back.
struct SumNumeric {
    sum: Numeric,
    count: i64,
    nan: i64,
    plus: i64,
    minus: i64,
    mean: bool,
}

impl SumNumeric {
    fn new(mean: bool) -> Self {
        Self { sum: Numeric::ZERO, count: 0, nan: 0, plus: 0, minus: 0, mean }
    }

    fn step(&mut self, v: &Numeric, sign: i64) -> Result<(), SqlError> {
        self.count += sign;
        match v {
            Numeric::NaN => self.nan += sign,
            Numeric::Infinity => self.plus += sign,
            Numeric::NegInfinity => self.minus += sign,
            Numeric::Small { .. } | Numeric::Big(_) => {
                self.sum = if sign > 0 { self.sum.add(v)? } else { self.sum.sub(v)? };
            }
        }
        Ok(())
    }
}

impl Accumulator for SumNumeric {
    fn add(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        value(args).map_or(Ok(()), |v| self.step(v.as_numeric()?, 1))
    }

    fn finish(&self, _: &mut Call<'_>) -> Out {
        if self.count == 0 {
            return Ok(Datum::Null);
        }
        let special = if self.nan > 0 || (self.plus > 0 && self.minus > 0) {
            Some(Numeric::NaN)
        } else if self.plus > 0 {
            Some(Numeric::Infinity)
        } else if self.minus > 0 {
            Some(Numeric::NegInfinity)
        } else {
            None
        };
        if let Some(n) = special {
            return Ok(Datum::Numeric(n));
        }
        if self.mean {
            return self.sum.div(&Numeric::from(self.count)).map(Datum::Numeric);
        }
        Ok(Datum::Numeric(self.sum.clone()))
    }
}

struct SumFloat {
    sum: Option<f64>,
    single: bool,
}

impl Accumulator for SumFloat {
    #[expect(clippy::cast_possible_truncation, reason = "float4 sums round at each step, as PostgreSQL's do")]
    fn add(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        let Some(v) = value(args) else { return Ok(()) };
        let v = super::float::wide(v)?;
        let Some(sum) = self.sum else {
            self.sum = Some(v);
            return Ok(());
        };
        let next = if self.single { f64::from((sum as f32) + (v as f32)) } else { sum + v };
        if next.is_infinite() && !sum.is_infinite() && !v.is_infinite() {
            return Err(SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow"));
        }
        self.sum = Some(next);
        Ok(())
    }

    #[expect(clippy::cast_possible_truncation, reason = "kept in float4 precision")]
    fn finish(&self, _: &mut Call<'_>) -> Out {
        Ok(match self.sum {
            None => Datum::Null,
            Some(v) if self.single => Datum::Float4(v as f32),
            Some(v) => Datum::Float8(v),
        })
    }
}

struct SumInterval {
    sum: Interval,
    count: i64,
    mean: bool,
}

impl Accumulator for SumInterval {
    fn add(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        if let Some(v) = value(args) {
            self.sum = self.sum.checked_add(v.as_interval()?)?;
            self.count += 1;
        }
        Ok(())
    }

    fn finish(&self, _: &mut Call<'_>) -> Out {
        if self.count == 0 {
            return Ok(Datum::Null);
        }
        #[expect(clippy::cast_precision_loss, reason = "a row count")]
        let n = self.count as f64;
        Ok(Datum::Interval(if self.mean { self.sum.divided(n)? } else { self.sum }))
    }
}

struct Extreme {
    best: Datum,
    max: bool,
    bpchar: bool,
}

impl Accumulator for Extreme {
    #[inline]
    fn add(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        let Some(v) = value(args) else { return Ok(()) };
        if self.best.is_null() {
            self.best = v.clone();
            return Ok(());
        }
        let order = match (v, &self.best) {
            (Datum::Text(a), Datum::Text(b)) if self.bpchar => a.trim_end_matches(' ').as_bytes().cmp(b.trim_end_matches(' ').as_bytes()),
            (a, b) => compare(a, b),
        };
        if if self.max { order.is_gt() } else { order.is_lt() } {
            self.best = v.clone();
        }
        Ok(())
    }

    fn finish(&self, _: &mut Call<'_>) -> Out {
        Ok(self.best.clone())
    }
}

struct Bools {
    value: Option<bool>,
    and: bool,
}

impl Accumulator for Bools {
    fn add(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        if let Some(v) = value(args) {
            let v = v.as_bool()?;
            self.value = Some(match self.value {
                None => v,
                Some(old) if self.and => old && v,
                Some(old) => old || v,
            });
        }
        Ok(())
    }

    fn finish(&self, _: &mut Call<'_>) -> Out {
        Ok(self.value.into())
    }
}

struct BitInt {
    value: Datum,
    op: fn(i64, i64) -> i64,
}

impl Accumulator for BitInt {
    #[expect(clippy::cast_possible_truncation, reason = "bit operations stay within the width of their operands")]
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
    fn add(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        let Some(v) = value(args) else { return Ok(()) };
        if self.value.is_null() {
            self.value = v.clone();
            return Ok(());
        }
        let r = (self.op)(super::integer::wide(&self.value)?, super::integer::wide(v)?);
        self.value = match v {
            Datum::Int2(_) => Datum::Int2(r as i16),
            Datum::Int4(_) => Datum::Int4(r as i32),
            _ => Datum::Int8(r),
        };
        Ok(())
    }

    fn finish(&self, _: &mut Call<'_>) -> Out {
        Ok(self.value.clone())
    }
}

/// `string_agg` of `text` or `bytea`.
struct StringAgg {
    out: Option<(Vec<u8>, bool)>,
}

impl Accumulator for StringAgg {
    fn add(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
        fn bytes(d: &Datum) -> Result<(&[u8], bool), SqlError> {
            match d {
                Datum::Text(t) => Ok((t.as_bytes(), true)),
                Datum::Bytea(b) => Ok((b, false)),
                Datum::Null => Ok((&[], true)),
                other => Err(other.mismatch("Text")),
            }
        }
        let Some(v) = value(args) else { return Ok(()) };
        let (v, is_text) = bytes(v)?;
        match &mut self.out {
            None => self.out = Some((v.to_vec(), is_text)),
            Some((out, _)) => {
                if let Some(delimiter) = args.get(1) {
                    out.extend_from_slice(bytes(delimiter)?.0);
                }
                enlarged(out.len(), v.len())?;
                out.extend_from_slice(v);
            }
        }
        Ok(())
    }

    fn finish(&self, _: &mut Call<'_>) -> Out {
        Ok(match &self.out {
            None => Datum::Null,
            Some((b, true)) => Datum::from(String::from_utf8_lossy(b).into_owned()),
            Some((b, false)) => Datum::bytea(b),
        })
    }

    fn heap_bytes(&self) -> usize {
        self.out.as_ref().map_or(0, |(b, _)| b.capacity())
    }
}

struct ArrayAgg {
    elem: Oid,
    values: Vec<Datum>,
}

impl Accumulator for ArrayAgg {
    fn add(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        self.values.push(args.first().cloned().unwrap_or_default());
        Ok(())
    }

    fn finish(&self, _: &mut Call<'_>) -> Out {
        if self.values.is_empty() {
            return Ok(Datum::Null);
        }
        Ok(Datum::array(ArrayValue::one_dim(self.elem, self.values.clone())))
    }

    fn heap_bytes(&self) -> usize {
        self.values.capacity() * size_of::<Datum>()
    }
}

/// `array_agg` of arrays: one dimension more.
struct ArrayAggArray {
    result: Oid,
    parts: Vec<Arc<ArrayValue>>,
}

impl Accumulator for ArrayAggArray {
    fn add(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        let fail = |m: &str| Err(SqlError::new(SqlState::ARRAY_SUBSCRIPT_ERROR, m));
        let Some(v) = value(args) else {
            return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "cannot accumulate null arrays"));
        };
        let a = v.as_array()?;
        if a.values.is_empty() {
            return fail("cannot accumulate empty arrays");
        }
        if self.parts.first().is_some_and(|f| f.dims != a.dims) {
            return fail("cannot accumulate arrays of different dimensionality");
        }
        self.parts.push(Arc::clone(a));
        Ok(())
    }

    fn finish(&self, _: &mut Call<'_>) -> Out {
        let Some(first) = self.parts.first() else { return Ok(Datum::Null) };
        let len = i32::try_from(self.parts.len()).unwrap_or(i32::MAX);
        let dims = std::iter::once(Dim { len, lower: 1 }).chain(first.dims.iter().copied()).collect();
        let values = self.parts.iter().flat_map(|p| p.values.iter().cloned()).collect();
        let elem = element_type(self.result).unwrap_or(first.elem);
        ArrayValue::shaped(elem, dims, values).map(Datum::array)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Avg,
    VarSamp,
    VarPop,
    DevSamp,
    DevPop,
}

/// Running moments of floats (Youngs and Cramer).
struct FloatMoments {
    n: f64,
    sx: f64,
    sxx: f64,
    wanted: Moment,
}

impl FloatMoments {
    fn new(wanted: Moment) -> Self {
        Self { n: 0.0, sx: 0.0, sxx: 0.0, wanted }
    }
}

impl Accumulator for FloatMoments {
    fn add(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        let Some(v) = value(args) else { return Ok(()) };
        let x = super::float::wide(v)?;
        let old = self.sx;
        self.n += 1.0;
        self.sx += x;
        if self.n > 1.0 {
            let t = x * self.n - self.sx;
            self.sxx += t * t / (self.n * (self.n - 1.0));
            if self.sx.is_infinite() || self.sxx.is_infinite() {
                if !old.is_infinite() && !x.is_infinite() {
                    return Err(SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "value out of range: overflow"));
                }
                self.sxx = f64::NAN;
            }
        } else if x.is_nan() || x.is_infinite() {
            self.sxx = f64::NAN;
        }
        Ok(())
    }

    fn finish(&self, _: &mut Call<'_>) -> Out {
        let least = if matches!(self.wanted, Moment::VarSamp | Moment::DevSamp) { 2.0 } else { 1.0 };
        if self.n < least {
            return Ok(Datum::Null);
        }
        Ok(Datum::Float8(match self.wanted {
            Moment::Avg => self.sx / self.n,
            Moment::VarPop => self.sxx / self.n,
            Moment::VarSamp => self.sxx / (self.n - 1.0),
            Moment::DevPop => (self.sxx / self.n).sqrt(),
            Moment::DevSamp => (self.sxx / (self.n - 1.0)).sqrt(),
        }))
    }
}

/// Exact moments of integers and `numeric`.
struct NumericMoments {
    n: i64,
    special: bool,
    sum: Numeric,
    squares: Numeric,
    wanted: Moment,
}

impl NumericMoments {
    fn new(wanted: Moment) -> Self {
        Self { n: 0, special: false, sum: Numeric::ZERO, squares: Numeric::ZERO, wanted }
    }
}

impl Accumulator for NumericMoments {
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
    fn add(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        let Some(v) = value(args) else { return Ok(()) };
        let v = match v {
            Datum::Numeric(n) => n.clone(),
            other => Numeric::from(super::integer::wide(other)?),
        };
        self.n += 1;
        if !v.is_finite() {
            self.special = true;
            return Ok(());
        }
        self.squares = self.squares.add(&v.mul(&v)?)?;
        self.sum = self.sum.add(&v)?;
        Ok(())
    }

    fn finish(&self, _: &mut Call<'_>) -> Out {
        let sample = matches!(self.wanted, Moment::VarSamp | Moment::DevSamp);
        if self.n < if sample { 2 } else { 1 } {
            return Ok(Datum::Null);
        }
        if self.special {
            return Ok(Datum::Numeric(Numeric::NaN));
        }
        let n = Numeric::from(self.n);
        let numerator = n.mul(&self.squares)?.sub(&self.sum.mul(&self.sum)?)?;
        if numerator.signum() <= 0 {
            return Ok(Datum::Numeric(Numeric::ZERO));
        }
        let divisor = n.mul(&if sample { Numeric::from(self.n - 1) } else { n.clone() })?;
        let variance = numerator.div(&divisor)?;
        Ok(Datum::Numeric(match self.wanted {
            Moment::DevSamp | Moment::DevPop => variance.sqrt_to(variance.scale())?,
            Moment::Avg | Moment::VarSamp | Moment::VarPop => variance,
        }))
    }
}

/// `regr_*`, `corr`, `covar_*`: running sums over pairs (y, x).
struct Regression {
    n: i64,
    sx: f64,
    sxx: f64,
    sy: f64,
    syy: f64,
    sxy: f64,
    result: fn(&Self) -> Out,
}

impl Regression {
    fn new(result: fn(&Self) -> Out) -> Self {
        Self { n: 0, sx: 0.0, sxx: 0.0, sy: 0.0, syy: 0.0, sxy: 0.0, result }
    }

    #[expect(clippy::cast_precision_loss, reason = "a row count")]
    fn float_n(&self) -> f64 {
        self.n as f64
    }

    fn some(&self, v: f64) -> Out {
        self.unless(false, v)
    }

    fn unless(&self, undefined: bool, v: f64) -> Out {
        Ok(if self.n < 1 || undefined { Datum::Null } else { Datum::Float8(v) })
    }
}

impl Accumulator for Regression {
    fn add(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        let (Some(Datum::Float8(y)), Some(Datum::Float8(x))) = (args.first(), args.get(1)) else { return Ok(()) };
        let (x, y) = (*x, *y);
        self.n += 1;
        self.sx += x;
        self.sy += y;
        if self.n > 1 {
            let n = self.float_n();
            let (dx, dy) = (x * n - self.sx, y * n - self.sy);
            let scale = 1.0 / (n * (n - 1.0));
            self.sxx += dx * dx * scale;
            self.syy += dy * dy * scale;
            self.sxy += dx * dy * scale;
        } else if !x.is_finite() || !y.is_finite() {
            self.sxx = f64::NAN;
            self.syy = f64::NAN;
            self.sxy = f64::NAN;
        }
        Ok(())
    }

    fn finish(&self, _: &mut Call<'_>) -> Out {
        (self.result)(self)
    }
}

/// `json_agg`, `jsonb_agg`.
struct JsonAgg {
    text: Option<String>,
    values: Vec<Json>,
    binary: bool,
}

impl Accumulator for JsonAgg {
    fn add(&mut self, call: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        let v = args.first().unwrap_or(&Datum::Null);
        let ty = call.arg_type(0);
        if self.binary {
            self.values.push(super::json::to_jsonb(v, ty, call.io())?);
            return Ok(());
        }
        let out = self.text.get_or_insert_with(|| "[".to_owned());
        if out.len() > 1 {
            out.push_str(", ");
            if matches!(v, Datum::Array(_) | Datum::Record(_)) {
                out.push_str("\n ");
            }
        }
        super::json::write_json(v, ty, call.io(), out)
    }

    fn finish(&self, _: &mut Call<'_>) -> Out {
        if self.binary {
            return Ok(if self.values.is_empty() { Datum::Null } else { Datum::Jsonb(Arc::new(Json::Array(self.values.clone()))) });
        }
        Ok(match &self.text {
            None => Datum::Null,
            Some(t) => Datum::from(format!("{t}]")),
        })
    }
}

/// `json_object_agg`, `jsonb_object_agg`.
struct JsonObjectAgg {
    text: Option<String>,
    members: Vec<(Text, Json)>,
    binary: bool,
}

impl Accumulator for JsonObjectAgg {
    fn add(&mut self, call: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        let (key, v) = (args.first().unwrap_or(&Datum::Null), args.get(1).unwrap_or(&Datum::Null));
        let (key_type, ty) = (call.arg_type(0), call.arg_type(1));
        if key.is_null() {
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "field name must not be null"));
        }
        let key = io::text_string(key, key_type, call.io())?;
        if self.binary {
            self.members.push((Text::from(key), super::json::to_jsonb(v, ty, call.io())?));
            return Ok(());
        }
        let out = self.text.get_or_insert_with(|| "{ ".to_owned());
        if out.len() > 2 {
            out.push_str(", ");
        }
        crate::sql::types::json::write_string(&key, out);
        out.push_str(" : ");
        super::json::write_json(v, ty, call.io(), out)
    }

    fn finish(&self, _: &mut Call<'_>) -> Out {
        if self.binary {
            return Ok(if self.members.is_empty() { Datum::Null } else { Datum::Jsonb(Arc::new(Json::object(self.members.clone()))) });
        }
        Ok(match &self.text {
            None => Datum::Null,
            Some(t) => Datum::from(format!("{t} }}")),
        })
    }
}

#[derive(Clone, Copy)]
enum OrderedKind {
    Mode,
    Discrete,
    Continuous,
}

/// Ordered-set aggregates: rows come sorted; arguments are the direct ones, then the value. Only the rows that the result is made of are kept.
struct Ordered {
    kind: OrderedKind,
    fraction: Datum,
    /// Values that will come, and have.
    count: u64,
    at: u64,
    /// Places of the values to keep.
    wanted: Option<BTreeSet<u64>>,
    kept: BTreeMap<u64, Datum>,
    /// The value at hand and the one most often seen, and how often.
    run: (Datum, u64),
    best: (Datum, u64),
}

impl Ordered {
    fn new(kind: OrderedKind) -> Self {
        let none = || (Datum::Null, 0);
        Self { kind, fraction: Datum::Null, count: 0, at: 0, wanted: None, kept: BTreeMap::new(), run: none(), best: none() }
    }

    /// The places of the two values around a fraction, and how far from the first to the second it lies.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a position among the rows")]
    fn place(&self, p: f64) -> (u64, u64, f64) {
        let last = self.count.saturating_sub(1);
        if matches!(self.kind, OrderedKind::Discrete) {
            let at = (((p * self.count as f64).ceil() as u64).max(1) - 1).min(last);
            return (at, at, 0.0);
        }
        let at = p * last as f64;
        ((at.floor() as u64).min(last), (at.ceil() as u64).min(last), at - at.floor())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a fraction is of no other type")]
    fn wanted(&self) -> BTreeSet<u64> {
        let fractions = match &self.fraction {
            Datum::Array(a) => a.values.as_slice(),
            one => std::slice::from_ref(one),
        };
        let places = fractions.iter().filter_map(|p| match p {
            Datum::Float8(p) if (0.0..=1.0).contains(p) => Some(self.place(*p)),
            _ => None,
        });
        places.flat_map(|(low, high, _)| [low, high]).collect()
    }

    fn percentile(&self, p: f64) -> Out {
        if !(0.0..=1.0).contains(&p) {
            return Err(SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("percentile value {p} is not between 0 and 1")));
        }
        let (low, high, part) = self.place(p);
        let (Some(low), Some(high)) = (self.kept.get(&low), self.kept.get(&high)) else { return Ok(Datum::Null) };
        if matches!(self.kind, OrderedKind::Discrete) {
            return Ok(low.clone());
        }
        match (low, high) {
            (Datum::Float8(a), Datum::Float8(b)) => Ok(Datum::Float8(a + part * (b - a))),
            (Datum::Interval(a), Datum::Interval(b)) => {
                let span = b.checked_add(a.checked_neg()?)?;
                a.checked_add(span.scaled(part)?).map(Datum::Interval)
            }
            (a, _) => Err(a.mismatch("Float8")),
        }
    }
}

impl Accumulator for Ordered {
    fn expect(&mut self, rows: u64) {
        self.count = rows;
    }

    fn add(&mut self, _: &mut Call<'_>, args: &[Datum]) -> Result<(), SqlError> {
        let [direct @ .., v] = args else { return Ok(()) };
        if let Some(f) = direct.first() {
            self.fraction = f.clone();
        }
        if v.is_null() {
            return Ok(());
        }
        if matches!(self.kind, OrderedKind::Mode) {
            if self.run.1 > 0 && compare(&self.run.0, v).is_eq() {
                self.run.1 += 1;
            } else {
                self.run = (v.clone(), 1);
            }
            if self.run.1 > self.best.1 {
                self.best = self.run.clone();
            }
            return Ok(());
        }
        if self.wanted.is_none() {
            self.wanted = Some(self.wanted());
        }
        if self.wanted.as_ref().is_some_and(|w| w.contains(&self.at)) {
            self.kept.insert(self.at, v.clone());
        }
        self.at += 1;
        Ok(())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "only these types are taken here, every other gets one answer")]
    fn finish(&self, call: &mut Call<'_>) -> Out {
        if matches!(self.kind, OrderedKind::Mode) {
            return Ok(self.best.0.clone());
        }
        match &self.fraction {
            Datum::Float8(p) => self.percentile(*p),
            Datum::Array(a) if self.at > 0 => {
                let values = a
                    .values
                    .iter()
                    .map(|p| match p {
                        Datum::Float8(p) => self.percentile(*p),
                        _ => Ok(Datum::Null),
                    })
                    .collect::<Result<_, _>>()?;
                let elem = element_type(call.types.result).unwrap_or(oids::FLOAT8);
                Ok(Datum::array(ArrayValue { elem, dims: a.dims.clone(), values }))
            }
            _ => Ok(Datum::Null),
        }
    }
}

/// An empty state for `proc` at a call site.
pub fn new_state(proc: &ProcEntry, types: &CallTypes) -> Option<State> {
    body(proc).map(|new| new(types))
}
