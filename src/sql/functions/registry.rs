//! `pg_proc`, `pg_operator`, `pg_cast`, `pg_aggregate` and the btree and hash operator classes, built in.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use rustc_hash::FxHashMap;

use super::aggregate::{AggEntry, NewAccumulator};
use super::call::{Call, ScalarFn, SetFn, SetRows, fitting};
use super::window::WindowFn;
use crate::sql::types::datum::RecordValue;
use crate::sql::types::registry::Fields;
use crate::sql::types::{ColDesc, Datum, Oid, TupleDesc, format_type, oids};
use crate::sqlstate::SqlError;

/// What runs when a function is called.
#[derive(Clone, Copy)]
pub enum ProcBody {
    /// One value.
    Scalar(ScalarFn),
    /// A set.
    Set(SetFn),
    /// An aggregate.
    Aggregate(NewAccumulator),
    /// A window function.
    Window(WindowFn),
    /// Answered by [`super::FnCtx::external`].
    External,
}

/// A row of `pg_proc`.
pub struct ProcEntry {
    /// OID.
    pub oid: Oid,
    /// Name in `pg_catalog`.
    pub name: &'static str,
    /// `f`unction, `a`ggregate, `w`indow, `p`rocedure.
    pub kind: u8,
    /// NULL in, NULL out.
    pub strict: bool,
    /// `i`mmutable, `s`table, `v`olatile.
    pub volatility: u8,
    /// Parallel safety letter.
    pub parallel: u8,
    /// Returns a set.
    pub returns_set: bool,
    /// Leakproof.
    pub leakproof: bool,
    /// Cost.
    pub cost: f32,
    /// Estimated rows of a set.
    pub rows: f32,
    /// Element type of the variadic argument, 0 when not variadic.
    pub variadic: Oid,
    /// Planner support function.
    pub support: Oid,
    /// Language.
    pub language: Oid,
    /// Result type.
    pub result: Oid,
    /// Types of input arguments.
    pub args: Box<[Oid]>,
    /// Types of all arguments, when some are not plain input; else empty.
    pub all_args: Box<[Oid]>,
    /// Mode letter of each of `all_args`.
    pub arg_modes: &'static str,
    /// Names of arguments, separated by blanks; empty when none is named.
    pub arg_names: &'static str,
    /// How many trailing input arguments have defaults.
    pub default_count: usize,
    /// Their expressions, as SQL separated by commas.
    pub defaults: &'static str,
    /// `prosrc`: what bodies are keyed by. For SQL-language functions, `name@argument OIDs`.
    pub source: &'static str,
    /// What runs.
    pub body: ProcBody,
}

/// A row of `pg_operator`.
#[derive(Debug)]
pub struct OperEntry {
    /// OID.
    pub oid: Oid,
    /// Name.
    pub name: &'static str,
    /// `b`inary or `l`eft (prefix).
    pub kind: u8,
    /// Usable in merge joins.
    pub can_merge: bool,
    /// Usable in hash joins.
    pub can_hash: bool,
    /// Left type, 0 for prefix operators.
    pub left: Oid,
    /// Right type.
    pub right: Oid,
    /// Result type.
    pub result: Oid,
    /// The same with sides swapped.
    pub commutator: Oid,
    /// Its negation.
    pub negator: Oid,
    /// The function.
    pub func: Oid,
    /// Selectivity estimator.
    pub restrict: Oid,
    /// Join selectivity estimator.
    pub join: Oid,
}

/// A row of `pg_cast`.
#[derive(Debug)]
pub struct CastEntry {
    /// From.
    pub source: Oid,
    /// To.
    pub target: Oid,
    /// Function, 0 for binary-coercible and I/O casts.
    pub func: Oid,
    /// `i`mplicit, `a`ssignment, `e`xplicit.
    pub context: u8,
    /// `f`unction, `b`inary, `i`nput/output.
    pub method: u8,
}

/// A row of `pg_amop`, btree (403) and hash (405).
#[derive(Debug)]
pub struct AmopEntry {
    /// Access method.
    pub method: Oid,
    /// Operator family.
    pub family: Oid,
    /// Left type.
    pub left: Oid,
    /// Right type.
    pub right: Oid,
    /// btree: 1 `<`, 2 `<=`, 3 `=`, 4 `>=`, 5 `>`.
    pub strategy: i16,
    /// `s`earch or `o`rdering.
    pub purpose: u8,
    /// The operator.
    pub oper: Oid,
    /// Sort family of ordering operators.
    pub sort_family: Oid,
}

/// A row of `pg_amproc`, btree and hash.
#[derive(Debug)]
pub struct AmprocEntry {
    /// Access method.
    pub method: Oid,
    /// Operator family.
    pub family: Oid,
    /// Left type.
    pub left: Oid,
    /// Right type.
    pub right: Oid,
    /// Support number.
    pub number: i16,
    /// Function.
    pub func: Oid,
}

/// A row of `pg_opclass`.
#[derive(Debug)]
pub struct OpclassEntry {
    /// OID.
    pub oid: Oid,
    /// Access method.
    pub method: Oid,
    /// Name.
    pub name: &'static str,
    /// Operator family.
    pub family: Oid,
    /// Type of indexed values.
    pub input: Oid,
    /// Default for the type.
    pub is_default: bool,
    /// Type of stored keys, 0 for the same.
    pub key: Oid,
}

/// A row of `pg_opfamily`.
#[derive(Debug)]
pub struct OpfamilyEntry {
    /// OID.
    pub oid: Oid,
    /// Access method.
    pub method: Oid,
    /// Name.
    pub name: &'static str,
}

/// OID of the btree access method.
pub const BTREE_AM: Oid = 403;
/// OID of the hash access method.
pub const HASH_AM: Oid = 405;

static PROCS: LazyLock<Vec<ProcEntry>> = LazyLock::new(|| include_str!("tables/pg_proc.tsv").lines().map(parse_proc).collect());
static PROC_BY_OID: LazyLock<FxHashMap<Oid, &'static ProcEntry>> = LazyLock::new(|| PROCS.iter().map(|p| (p.oid, p)).collect());
static PROCS_BY_NAME: LazyLock<FxHashMap<&'static str, Vec<&'static ProcEntry>>> = LazyLock::new(|| {
    let mut map: FxHashMap<_, Vec<_>> = FxHashMap::default();
    for p in PROCS.iter() {
        map.entry(p.name).or_default().push(p);
    }
    map
});
static OPERS: LazyLock<Vec<OperEntry>> = LazyLock::new(|| include_str!("tables/pg_operator.tsv").lines().map(parse_oper).collect());
static OPER_BY_OID: LazyLock<FxHashMap<Oid, &'static OperEntry>> = LazyLock::new(|| OPERS.iter().map(|o| (o.oid, o)).collect());
static OPERS_BY_NAME: LazyLock<FxHashMap<&'static str, Vec<&'static OperEntry>>> = LazyLock::new(|| {
    let mut map: FxHashMap<_, Vec<_>> = FxHashMap::default();
    for o in OPERS.iter() {
        map.entry(o.name).or_default().push(o);
    }
    map
});
static CASTS: LazyLock<Vec<CastEntry>> = LazyLock::new(|| include_str!("tables/pg_cast.tsv").lines().map(parse_cast).collect());
static CAST_BY_TYPES: LazyLock<FxHashMap<(Oid, Oid), &'static CastEntry>> =
    LazyLock::new(|| CASTS.iter().map(|c| ((c.source, c.target), c)).collect());
static AGGREGATES: LazyLock<Vec<AggEntry>> =
    LazyLock::new(|| include_str!("tables/pg_aggregate.tsv").lines().map(parse_aggregate).collect());
static AMOPS: LazyLock<Vec<AmopEntry>> = LazyLock::new(|| include_str!("tables/pg_amop.tsv").lines().map(parse_amop).collect());
static AMPROCS: LazyLock<Vec<AmprocEntry>> = LazyLock::new(|| include_str!("tables/pg_amproc.tsv").lines().map(parse_amproc).collect());
static OPCLASSES: LazyLock<Vec<OpclassEntry>> =
    LazyLock::new(|| include_str!("tables/pg_opclass.tsv").lines().map(parse_opclass).collect());
static OPFAMILIES: LazyLock<Vec<OpfamilyEntry>> =
    LazyLock::new(|| include_str!("tables/pg_opfamily.tsv").lines().map(parse_opfamily).collect());

fn parse_proc(line: &'static str) -> ProcEntry {
    let mut f = Fields::new(line);
    let mut p = ProcEntry {
        oid: f.number(),
        name: f.text(),
        kind: f.letter(),
        strict: f.flag(),
        volatility: f.letter(),
        parallel: f.letter(),
        returns_set: f.flag(),
        leakproof: f.flag(),
        cost: f.number(),
        rows: f.number(),
        variadic: f.number(),
        support: f.number(),
        language: f.number(),
        result: f.number(),
        args: f.oids(),
        all_args: f.oids(),
        arg_modes: f.text(),
        arg_names: f.text(),
        default_count: f.number(),
        defaults: f.text(),
        source: f.text(),
        body: ProcBody::External,
    };
    if p.source.is_empty() {
        p.source = p.name;
    } else if p.source.starts_with('@') {
        p.source = String::leak(format!("{}{}", p.name, p.source));
    }
    p.body = super::bodies::find(&p);
    p
}

fn parse_oper(line: &'static str) -> OperEntry {
    let mut f = Fields::new(line);
    OperEntry {
        oid: f.number(),
        name: f.text(),
        kind: f.letter(),
        can_merge: f.flag(),
        can_hash: f.flag(),
        left: f.number(),
        right: f.number(),
        result: f.number(),
        commutator: f.number(),
        negator: f.number(),
        func: f.number(),
        restrict: f.number(),
        join: f.number(),
    }
}

fn parse_cast(line: &'static str) -> CastEntry {
    let mut f = Fields::new(line);
    CastEntry { source: f.number(), target: f.number(), func: f.number(), context: f.letter(), method: f.letter() }
}

fn parse_aggregate(line: &'static str) -> AggEntry {
    let mut f = Fields::new(line);
    AggEntry {
        func: f.number(),
        kind: f.letter(),
        direct_args: f.number(),
        transition: f.number(),
        finish: f.number(),
        combine: f.number(),
        serialize: f.number(),
        deserialize: f.number(),
        moving_transition: f.number(),
        moving_inverse: f.number(),
        moving_finish: f.number(),
        finish_extra: f.flag(),
        moving_finish_extra: f.flag(),
        finish_modify: f.letter(),
        moving_finish_modify: f.letter(),
        sort_operator: f.number(),
        state_type: f.number(),
        state_space: f.number(),
        moving_state_type: f.number(),
        moving_state_space: f.number(),
        initial: f.text(),
        moving_initial: f.text(),
    }
}

fn parse_amop(line: &'static str) -> AmopEntry {
    let mut f = Fields::new(line);
    AmopEntry {
        method: f.number(),
        family: f.number(),
        left: f.number(),
        right: f.number(),
        strategy: f.number(),
        purpose: f.letter(),
        oper: f.number(),
        sort_family: f.number(),
    }
}

fn parse_amproc(line: &'static str) -> AmprocEntry {
    let mut f = Fields::new(line);
    AmprocEntry { method: f.number(), family: f.number(), left: f.number(), right: f.number(), number: f.number(), func: f.number() }
}

fn parse_opclass(line: &'static str) -> OpclassEntry {
    let mut f = Fields::new(line);
    OpclassEntry {
        oid: f.number(),
        method: f.number(),
        name: f.text(),
        family: f.number(),
        input: f.number(),
        is_default: f.flag(),
        key: f.number(),
    }
}

fn parse_opfamily(line: &'static str) -> OpfamilyEntry {
    let mut f = Fields::new(line);
    OpfamilyEntry { oid: f.number(), method: f.number(), name: f.text() }
}

/// All built-in functions, by rising OID.
pub fn all_procs() -> &'static [ProcEntry] {
    &PROCS
}

/// The built-in function with this OID.
pub fn proc_by_oid(oid: Oid) -> Option<&'static ProcEntry> {
    PROC_BY_OID.get(&oid).copied()
}

/// The built-in functions of this name.
pub fn procs_by_name(name: &str) -> &'static [&'static ProcEntry] {
    PROCS_BY_NAME.get(name).map_or(&[], |v| v.as_slice())
}

/// All built-in operators, by rising OID.
pub fn all_opers() -> &'static [OperEntry] {
    &OPERS
}

/// The built-in operator with this OID.
pub fn oper_by_oid(oid: Oid) -> Option<&'static OperEntry> {
    OPER_BY_OID.get(&oid).copied()
}

/// The built-in operators of this name.
pub fn opers_by_name(name: &str) -> &'static [&'static OperEntry] {
    OPERS_BY_NAME.get(name).map_or(&[], |v| v.as_slice())
}

/// All casts.
pub fn all_casts() -> &'static [CastEntry] {
    &CASTS
}

/// The cast between two types.
pub fn cast_by_types(source: Oid, target: Oid) -> Option<&'static CastEntry> {
    CAST_BY_TYPES.get(&(source, target)).copied()
}

/// All aggregates, by rising function OID.
pub fn all_aggregates() -> &'static [AggEntry] {
    &AGGREGATES
}

/// The aggregate row of a function.
pub fn aggregate_by_func(func: Oid) -> Option<&'static AggEntry> {
    AGGREGATES.binary_search_by_key(&func, |a| a.func).ok().and_then(|i| AGGREGATES.get(i))
}

/// `pg_amop` of btree and hash.
pub fn all_amops() -> &'static [AmopEntry] {
    &AMOPS
}

/// `pg_amproc` of btree and hash.
pub fn all_amprocs() -> &'static [AmprocEntry] {
    &AMPROCS
}

/// All operator classes.
pub fn all_opclasses() -> &'static [OpclassEntry] {
    &OPCLASSES
}

/// All operator families.
pub fn all_opfamilies() -> &'static [OpfamilyEntry] {
    &OPFAMILIES
}

/// The default operator class of an access method for a type; binary-coercible types use their base's.
pub fn default_opclass(method: Oid, type_oid: Oid) -> Option<&'static OpclassEntry> {
    let exact = |t: Oid| OPCLASSES.iter().find(|c| c.method == method && c.is_default && c.input == t);
    exact(type_oid).or_else(|| {
        use crate::sql::types::oids;
        let base = match type_oid {
            oids::VARCHAR => oids::TEXT,
            oids::CIDR => oids::INET,
            oids::REGPROC
            | oids::REGPROCEDURE
            | oids::REGOPER
            | oids::REGOPERATOR
            | oids::REGCLASS
            | oids::REGTYPE
            | oids::REGROLE
            | oids::REGNAMESPACE
            | oids::REGCONFIG
            | oids::REGDICTIONARY
            | oids::REGCOLLATION => oids::OID,
            t if crate::sql::types::registry::element_type(t).is_some() => oids::ANYARRAY,
            _ => return None,
        };
        exact(base)
    })
}

/// The operator of a btree strategy (1 `<`, 2 `<=`, 3 `=`, 4 `>=`, 5 `>`) between two types of a family.
pub fn family_member(family: Oid, left: Oid, right: Oid, strategy: i16) -> Option<&'static OperEntry> {
    AMOPS
        .iter()
        .find(|a| a.family == family && a.left == left && a.right == right && a.strategy == strategy && a.purpose == b's')
        .and_then(|a| oper_by_oid(a.oper))
}

/// The btree strategies an operator has: (family, strategy, left, right).
pub fn btree_strategies(oper: Oid) -> impl Iterator<Item = &'static AmopEntry> {
    AMOPS.iter().filter(move |a| a.oper == oper && a.method == BTREE_AM && a.purpose == b's')
}

/// `=` for a type's default btree class: (operator OID), as GROUP BY, DISTINCT and IN use it.
pub fn equality_operator(type_oid: Oid) -> Option<&'static OperEntry> {
    ordering_member(type_oid, 3)
}

/// `<` for a type's default btree class, as ORDER BY uses it.
pub fn less_operator(type_oid: Oid) -> Option<&'static OperEntry> {
    ordering_member(type_oid, 1)
}

/// `>` for a type's default btree class, as ORDER BY DESC uses it.
pub fn greater_operator(type_oid: Oid) -> Option<&'static OperEntry> {
    ordering_member(type_oid, 5)
}

fn ordering_member(type_oid: Oid, strategy: i16) -> Option<&'static OperEntry> {
    let class = default_opclass(BTREE_AM, type_oid)?;
    family_member(class.family, class.input, class.input, strategy)
}

impl ProcEntry {
    /// Is it an aggregate?
    pub fn is_aggregate(&self) -> bool {
        self.kind == b'a'
    }

    /// Is it a window function (and not an aggregate)?
    pub fn is_window(&self) -> bool {
        self.kind == b'w'
    }

    /// `name(type, type)`, as error messages and `regprocedure` print it.
    pub fn signature(&self) -> String {
        let mut s = String::from(self.name);
        s.push('(');
        for (i, &t) in self.args.iter().enumerate() {
            if i > 0 {
                s.push(',');
            }
            s.push_str(&format_type(t, -1));
        }
        s.push(')');
        s
    }

    /// A row of a function with several OUT arguments.
    ///
    /// # Errors
    /// XX000: it has one plain result.
    pub fn record(&self, values: Vec<Datum>) -> Result<Datum, SqlError> {
        let desc = self.out_columns().ok_or_else(|| SqlError::internal(format!("{} has no columns", self.name)))?;
        Ok(Datum::Record(Arc::new(RecordValue { type_oid: oids::RECORD, desc, values: values.into_boxed_slice() })))
    }

    /// The columns of a function with several OUT arguments; `None` for one plain result.
    pub fn out_columns(&self) -> Option<Arc<TupleDesc>> {
        let names: Vec<&str> = self.arg_names.split(' ').collect();
        let cols: Vec<ColDesc> = self
            .arg_modes
            .bytes()
            .zip(self.all_args.iter())
            .enumerate()
            .filter(|(_, (mode, _))| matches!(mode, b'o' | b'b' | b't'))
            .map(|(i, (_, &t))| {
                let mut fallback = String::new();
                let name = names.get(i).copied().filter(|n| !n.is_empty()).unwrap_or_else(|| {
                    let _infallible = write!(fallback, "column{}", i + 1);
                    &fallback
                });
                ColDesc::new(name, t, -1)
            })
            .collect();
        (cols.len() > 1 || (cols.len() == 1 && self.arg_modes.contains('t'))).then(|| Arc::new(TupleDesc::new(cols)))
    }

    /// Names of the input arguments, for `name => value` notation; empty names where unnamed.
    pub fn input_names(&self) -> Vec<&'static str> {
        let names = self.arg_names.split(' ');
        if self.arg_modes.is_empty() {
            names.collect()
        } else {
            names.zip(self.arg_modes.bytes()).filter(|(_, m)| matches!(m, b'i' | b'b' | b'v')).map(|(n, _)| n).collect()
        }
    }

    /// Calls a scalar function: NULL for a NULL argument if strict.
    ///
    /// # Errors
    /// The function's own.
    #[inline]
    pub fn invoke(&'static self, call: &mut Call<'_>, args: &[Datum]) -> Result<Datum, SqlError> {
        if self.strict && args.iter().any(Datum::is_null) {
            return Ok(Datum::Null);
        }
        match self.body {
            ProcBody::Scalar(f) => fitting(f(call, args)?),
            ProcBody::External => call.ctx.external(self, call.types, args),
            ProcBody::Set(_) | ProcBody::Aggregate(_) | ProcBody::Window(_) => {
                Err(SqlError::internal(format!("{} called as a scalar function", self.signature())))
            }
        }
    }

    /// Calls a set-returning function: no rows for a NULL argument if strict.
    ///
    /// # Errors
    /// The function's own.
    pub fn invoke_set(&'static self, call: &mut Call<'_>, args: &[Datum]) -> Result<SetRows, SqlError> {
        if self.strict && args.iter().any(Datum::is_null) {
            return Ok(Box::new(std::iter::empty()));
        }
        match self.body {
            ProcBody::Set(f) => f(call, args),
            ProcBody::Scalar(f) => Ok(Box::new(std::iter::once(Ok(f(call, args)?)))),
            ProcBody::External if self.returns_set => call.ctx.external_set(self, call.types, args),
            ProcBody::External => Ok(Box::new(std::iter::once(Ok(call.ctx.external(self, call.types, args)?)))),
            ProcBody::Aggregate(_) | ProcBody::Window(_) => {
                Err(SqlError::internal(format!("{} called as a set-returning function", self.signature())))
            }
        }
    }
}

impl std::fmt::Debug for ProcEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.oid, self.signature())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_reads() {
        assert!(all_procs().len() > 3000);
        assert_eq!(oper_by_oid(96).unwrap().name, "=");
        assert_eq!(cast_by_types(23, 20).unwrap().context, b'i');
        assert!(aggregate_by_func(2803).is_some());
        assert_eq!(equality_operator(23).unwrap().oid, 96);
        assert_eq!(less_operator(1043).unwrap().oid, 664);
        assert!(!all_amops().is_empty() && !all_amprocs().is_empty());
        assert!(!all_opclasses().is_empty() && !all_opfamilies().is_empty());
    }
}
