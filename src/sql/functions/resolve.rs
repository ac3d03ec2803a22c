//! Overload resolution: which function, operator or cast an expression means.
//!
//! PostgreSQL: parser/parse_func.c, parse_oper.c, parse_coerce.c.

use super::registry::{OperEntry, ProcEntry, cast_by_types, opers_by_name, proc_by_oid, procs_by_name};
use crate::sql::types::range::{range_type, subtype};
use crate::sql::types::registry::{array_type, element_type, type_by_oid};
use crate::sql::types::stored::Repr;
use crate::sql::types::typmod::type_name;
use crate::sql::types::{Datum, Oid, oids};
use crate::sqlstate::{SqlError, SqlState};

/// How a conversion is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CoercionContext {
    /// By an operator or function argument.
    Implicit,
    /// By storing into a column.
    Assignment,
    /// By CAST or `::`.
    Explicit,
}

/// How a value of one type becomes another.
#[derive(Clone, Debug)]
pub enum Coercion {
    /// Nothing to do: same type, or same representation.
    Relabel,
    /// `int4` to `oid` and back: binary-coercible in PostgreSQL, another [`Datum`] variant here. See [`reinterpret`].
    Reinterpret,
    /// A cast function. It takes the value, and if it has more arguments the target typmod and whether the cast is explicit.
    Function(&'static ProcEntry),
    /// Text output, then text input.
    InOut,
    /// Element by element.
    Array(Box<Coercion>, Oid),
    /// Composite type to `record`, column by column for `ROW()`.
    Record,
}

/// A function chosen for a call.
#[derive(Clone, Debug)]
pub struct ResolvedFn {
    /// The function.
    pub func: &'static ProcEntry,
    /// For each argument of the call, the parameter it fills (differs from its place in `name => value` calls).
    pub positions: Vec<usize>,
    /// Type of each parameter, polymorphic ones made concrete; the variadic one repeated for each argument that is gathered.
    pub arg_types: Vec<Oid>,
    /// Result type, polymorphic ones made concrete.
    pub result: Oid,
    /// When arguments from this parameter on must be gathered into an array of this element type.
    pub gather: Option<(usize, Oid)>,
    /// The call was written with VARIADIC: the last argument is the array itself.
    pub variadic: bool,
    /// Values for parameters not given, in their order: SQL text of a constant, and its type.
    pub defaults: Vec<(String, Oid)>,
}

/// An operator chosen for an expression.
#[derive(Clone, Debug)]
pub struct ResolvedOp {
    /// The operator.
    pub oper: &'static OperEntry,
    /// Its function.
    pub func: &'static ProcEntry,
    /// Type the left operand is coerced to; 0 for prefix operators.
    pub left: Oid,
    /// Type the right operand is coerced to.
    pub right: Oid,
    /// Result type.
    pub result: Oid,
}

// ---------------------------------------------------------------------------------------------------------------------
// Casts

/// Category letter of a type; types made by users count as composite.
fn category(t: Oid) -> u8 {
    type_by_oid(t).map_or(b'C', |t| t.category)
}

fn is_preferred(category: u8, t: Oid) -> bool {
    type_by_oid(t).is_some_and(|t| t.category == category && t.preferred)
}

/// `int4` to `oid` and kin, and back: the same 32 bits.
pub fn reinterpret(value: Datum, target: Oid) -> Datum {
    match (value, Repr::of(target)) {
        (Datum::Int4(v), Repr::Oid) => Datum::Oid(v.cast_unsigned()),
        (Datum::Oid(v), Repr::Int4) => Datum::Int4(v.cast_signed()),
        (v, _) => v,
    }
}

fn is_composite(t: Oid) -> bool {
    t == oids::RECORD || type_by_oid(t).map_or(t >= oids::FIRST_NORMAL, |t| t.kind == b'c')
}

/// Polymorphic or otherwise open parameter types.
pub fn is_polymorphic(t: Oid) -> bool {
    matches!(
        t,
        oids::ANYELEMENT
            | oids::ANYARRAY
            | oids::ANYNONARRAY
            | oids::ANYENUM
            | oids::ANYRANGE
            | oids::ANYMULTIRANGE
            | oids::ANYCOMPATIBLE
            | oids::ANYCOMPATIBLEARRAY
            | oids::ANYCOMPATIBLENONARRAY
            | oids::ANYCOMPATIBLERANGE
            | oids::ANYCOMPATIBLEMULTIRANGE
    )
}

/// How `source` becomes `target`, if it may in this context. `unknown` literals are the caller's: they go through text input.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is treated alike here")]
pub fn coercion(source: Oid, target: Oid, context: CoercionContext) -> Option<Coercion> {
    if source == target || target == oids::ANY || source == oids::UNKNOWN {
        return Some(Coercion::Relabel);
    }
    if let Some(cast) = cast_by_types(source, target) {
        let needed = match cast.context {
            b'i' => CoercionContext::Implicit,
            b'a' => CoercionContext::Assignment,
            _ => CoercionContext::Explicit,
        };
        if context < needed {
            return None;
        }
        return match cast.method {
            b'b' if Repr::of(source) == Repr::of(target) => Some(Coercion::Relabel),
            b'b' => Some(Coercion::Reinterpret),
            b'i' => Some(Coercion::InOut),
            _ => proc_by_oid(cast.func).map(Coercion::Function),
        };
    }
    if (target == oids::RECORD && is_composite(source)) || (source == oids::RECORD && is_composite(target)) {
        return Some(Coercion::Record);
    }
    if target == oids::RECORD_ARRAY && element_type(source).is_some_and(is_composite) {
        return Some(Coercion::Relabel);
    }
    if !matches!(target, oids::INT2VECTOR | oids::OIDVECTOR)
        && let (Some(from), Some(to)) = (element_type(source), element_type(target))
    {
        return match coercion(from, to, context)? {
            Coercion::Relabel => Some(Coercion::Array(Box::new(Coercion::Relabel), to)),
            Coercion::InOut => Some(Coercion::InOut),
            each => Some(Coercion::Array(Box::new(each), to)),
        };
    }
    let string = |t| category(t) == b'S';
    if (context >= CoercionContext::Assignment && string(target)) || (context >= CoercionContext::Explicit && string(source)) {
        return Some(Coercion::InOut);
    }
    None
}

/// May a value of `source` stand where `target` is declared, polymorphic types looked at one by one?
fn can_coerce(source: Oid, target: Oid, context: CoercionContext) -> bool {
    if source == target || target == oids::ANY || source == oids::UNKNOWN || is_polymorphic(target) {
        return true;
    }
    coercion(source, target, context).is_some()
}

/// Is `source` used as `target` without any conversion?
pub fn is_binary_coercible(source: Oid, target: Oid) -> bool {
    if source == target || matches!(target, oids::ANY | oids::ANYELEMENT) {
        return true;
    }
    match target {
        oids::ANYARRAY => element_type(source).is_some(),
        oids::ANYRANGE => subtype(source).is_some(),
        oids::RECORD => is_composite(source),
        _ => cast_by_types(source, target).is_some_and(|c| c.method == b'b' && c.context == b'i'),
    }
}

/// The type that UNION, CASE, VALUES, ARRAY, COALESCE give their branches. `what` is the word in the error ("UNION", "CASE", ...).
///
/// # Errors
/// `42804` when the types cannot be matched.
pub fn select_common_type(types: &[Oid], what: &str) -> Result<Oid, SqlError> {
    common_type(types).map_err(|(a, b)| {
        SqlError::new(SqlState::DATATYPE_MISMATCH, format!("{what} types {} and {} cannot be matched", type_name(a), type_name(b)))
    })
}

fn common_type(types: &[Oid]) -> Result<Oid, (Oid, Oid)> {
    let mut best = types.first().copied().unwrap_or(oids::UNKNOWN);
    if best != oids::UNKNOWN && types.iter().all(|&t| t == best) {
        return Ok(best);
    }
    for &t in types {
        if t == oids::UNKNOWN || t == best {
            continue;
        }
        if best == oids::UNKNOWN {
            best = t;
        } else if category(t) != category(best) {
            return Err((best, t));
        } else if !is_preferred(category(best), best)
            && can_coerce(best, t, CoercionContext::Implicit)
            && !can_coerce(t, best, CoercionContext::Implicit)
        {
            best = t;
        }
    }
    // Every branch must be able to get there.
    if let Some(&t) = types.iter().find(|&&t| t != oids::UNKNOWN && !can_coerce(t, best, CoercionContext::Implicit)) {
        return Err((best, t));
    }
    Ok(if best == oids::UNKNOWN { oids::TEXT } else { best })
}

// ---------------------------------------------------------------------------------------------------------------------
// Polymorphism

/// What the polymorphic types of one call stand for.
#[derive(Default)]
struct Bindings {
    elem: Option<Oid>,
    array: Option<Oid>,
    range: Option<Oid>,
    compatible: Option<Oid>,
    compatible_range: Option<Oid>,
}

fn mismatch(message: String) -> SqlError {
    SqlError::new(SqlState::DATATYPE_MISMATCH, message)
}

/// Element type for the purposes of `anyarray`: also of arrays over types made by users, which the catalog passes as such.
fn bind(declared: &[Oid], actual: &[Oid]) -> Result<Bindings, SqlError> {
    let mut b = Bindings::default();
    let mut compatible = Vec::new();
    let mut any_compatible = false;
    for (&d, &a) in declared.iter().zip(actual) {
        match d {
            oids::ANYELEMENT | oids::ANYNONARRAY | oids::ANYENUM if a != oids::UNKNOWN => {
                if d == oids::ANYNONARRAY && element_type(a).is_some() {
                    return Err(mismatch(format!("type matched to anynonarray is an array type: {}", type_name(a))));
                }
                if d == oids::ANYENUM && type_by_oid(a).is_some() {
                    return Err(mismatch(format!("type matched to anyenum is not an enum type: {}", type_name(a))));
                }
                agree(&mut b.elem, a, "anyelement")?;
            }
            oids::ANYARRAY if a != oids::UNKNOWN => {
                if a != oids::ANYARRAY && element_type(a).is_none() && type_by_oid(a).is_some() {
                    return Err(mismatch(format!("argument declared anyarray is not an array but type {}", type_name(a))));
                }
                agree(&mut b.array, a, "anyarray")?;
            }
            oids::ANYRANGE if a != oids::UNKNOWN => {
                if subtype(a).is_none() {
                    return Err(mismatch(format!("argument declared anyrange is not a range type but type {}", type_name(a))));
                }
                agree(&mut b.range, a, "anyrange")?;
            }
            oids::ANYMULTIRANGE if a != oids::UNKNOWN => {
                return Err(mismatch(format!("argument declared anymultirange is not a multirange type but type {}", type_name(a))));
            }
            oids::ANYCOMPATIBLE | oids::ANYCOMPATIBLENONARRAY => {
                any_compatible = true;
                if a != oids::UNKNOWN {
                    if d == oids::ANYCOMPATIBLENONARRAY && element_type(a).is_some() {
                        return Err(mismatch(format!("type matched to anycompatiblenonarray is an array type: {}", type_name(a))));
                    }
                    compatible.push(a);
                }
            }
            oids::ANYCOMPATIBLEARRAY => {
                any_compatible = true;
                if a != oids::UNKNOWN {
                    let elem = element_type(a).ok_or_else(|| {
                        mismatch(format!("argument declared anycompatiblearray is not an array but type {}", type_name(a)))
                    })?;
                    compatible.push(elem);
                }
            }
            oids::ANYCOMPATIBLERANGE if a != oids::UNKNOWN => {
                any_compatible = true;
                let elem = subtype(a).ok_or_else(|| {
                    mismatch(format!("argument declared anycompatiblerange is not a range type but type {}", type_name(a)))
                })?;
                agree(&mut b.compatible_range, a, "anycompatiblerange")?;
                compatible.push(elem);
            }
            _ => {}
        }
    }
    if let Some(array) = b.array.filter(|&a| a != oids::ANYARRAY)
        && let Some(elem) = element_type(array)
    {
        match b.elem {
            None => b.elem = Some(elem),
            Some(e) if e == elem => {}
            Some(e) => {
                return Err(mismatch("argument declared anyarray is not consistent with argument declared anyelement".to_owned())
                    .detail(format!("{} versus {}", type_name(array), type_name(e))));
            }
        }
    }
    if let Some(range) = b.range
        && let Some(elem) = subtype(range)
    {
        match b.elem {
            None => b.elem = Some(elem),
            Some(e) if e == elem => {}
            Some(e) => {
                return Err(mismatch("argument declared anyrange is not consistent with argument declared anyelement".to_owned())
                    .detail(format!("{} versus {}", type_name(range), type_name(e))));
            }
        }
    }
    if any_compatible {
        b.compatible = Some(common_type(&compatible).map_err(|(a, c)| {
            mismatch(format!("arguments of anycompatible family cannot be cast to a common type: {} versus {}", type_name(a), type_name(c)))
        })?);
    }
    Ok(b)
}

fn agree(slot: &mut Option<Oid>, actual: Oid, name: &str) -> Result<(), SqlError> {
    match *slot {
        Some(old) if old != actual => Err(mismatch(format!("arguments declared \"{name}\" are not all alike")).detail(format!(
            "{} versus {}",
            type_name(old),
            type_name(actual)
        ))),
        _ => {
            *slot = Some(actual);
            Ok(())
        }
    }
}

impl Bindings {
    /// The concrete type a declared one stands for; `None` when nothing settles it.
    fn concrete(&self, declared: Oid) -> Option<Oid> {
        match declared {
            oids::ANYELEMENT | oids::ANYNONARRAY | oids::ANYENUM => self.elem,
            oids::ANYARRAY => self.array.or_else(|| self.elem.and_then(array_type)),
            oids::ANYRANGE => self.range.or_else(|| self.elem.and_then(range_type)),
            oids::ANYCOMPATIBLE | oids::ANYCOMPATIBLENONARRAY => self.compatible,
            oids::ANYCOMPATIBLEARRAY => self.compatible.and_then(array_type),
            oids::ANYCOMPATIBLERANGE => self.compatible_range,
            other => Some(other),
        }
    }
}

fn undetermined() -> SqlError {
    mismatch("could not determine polymorphic type because input has type unknown".to_owned())
}

/// Makes declared argument and result types concrete.
fn make_concrete(declared: &[Oid], actual: &[Oid], result: Oid) -> Result<(Vec<Oid>, Oid), SqlError> {
    if !is_polymorphic(result) && !declared.iter().any(|&d| is_polymorphic(d)) {
        let args = declared.iter().zip(actual).map(|(&d, &a)| if d == oids::ANY { a } else { d }).collect();
        return Ok((args, result));
    }
    let bindings = bind(declared, actual)?;
    let args = declared
        .iter()
        .zip(actual)
        .map(|(&d, &a)| {
            if d == oids::ANY {
                Ok(a)
            } else if is_polymorphic(d) && !d_is_compatible(d) && a != oids::UNKNOWN {
                // Of the first family, known arguments stay as they are.
                Ok(a)
            } else {
                bindings.concrete(d).ok_or_else(undetermined)
            }
        })
        .collect::<Result<_, _>>()?;
    let result = if is_polymorphic(result) { bindings.concrete(result).ok_or_else(undetermined)? } else { result };
    Ok((args, result))
}

fn d_is_compatible(d: Oid) -> bool {
    matches!(
        d,
        oids::ANYCOMPATIBLE
            | oids::ANYCOMPATIBLEARRAY
            | oids::ANYCOMPATIBLENONARRAY
            | oids::ANYCOMPATIBLERANGE
            | oids::ANYCOMPATIBLEMULTIRANGE
    )
}

/// Can these actual types be passed to these declared ones?
fn all_coercible(actual: &[Oid], declared: &[Oid]) -> bool {
    actual.len() == declared.len()
        && actual.iter().zip(declared).all(|(&a, &d)| {
            // An array is needed where one is declared, so that `anyarray` does not swallow everything.
            can_coerce(a, d, CoercionContext::Implicit)
        })
        && (!declared.iter().any(|&d| is_polymorphic(d)) || bind(declared, actual).is_ok())
}

// ---------------------------------------------------------------------------------------------------------------------
// Candidates

/// A function or operator with the types it would have in this call.
#[derive(Clone)]
struct Candidate<T> {
    item: T,
    types: Vec<Oid>,
}

/// Narrows candidates that all accept the arguments down to one, by PostgreSQL's rules.
fn select_candidate<T: Clone>(actual: &[Oid], mut candidates: Vec<Candidate<T>>) -> Option<Candidate<T>> {
    fn keep_best<T: Clone>(candidates: &mut Vec<Candidate<T>>, score: impl Fn(&Candidate<T>) -> usize) {
        let best = candidates.iter().map(&score).max().unwrap_or(0);
        candidates.retain(|c| score(c) == best);
    }
    let single = |c: &Vec<Candidate<T>>| (c.len() == 1).then(|| c[0].clone());
    let known = |a: Oid| a != oids::UNKNOWN;

    keep_best(&mut candidates, |c| actual.iter().zip(&c.types).filter(|(a, t)| known(**a) && a == t).count());
    if let Some(c) = single(&candidates) {
        return Some(c);
    }
    keep_best(&mut candidates, |c| {
        actual.iter().zip(&c.types).filter(|(a, t)| known(**a) && (a == t || is_preferred(category(**a), **t))).count()
    });
    if let Some(c) = single(&candidates) {
        return Some(c);
    }
    let unknowns = actual.iter().filter(|a| !known(**a)).count();
    if unknowns == 0 {
        return None;
    }

    // Each unknown argument: the category the candidates agree on, or strings if any takes one.
    let mut slots = vec![(0u8, false); actual.len()];
    let mut resolved = true;
    for (i, a) in actual.iter().enumerate() {
        if known(*a) {
            continue;
        }
        let (mut slot, mut preferred, mut conflict) = (None, false, false);
        for c in &candidates {
            let t = c.types[i];
            let cat = category(t);
            let pref = is_preferred(cat, t);
            match slot {
                None => (slot, preferred) = (Some(cat), pref),
                Some(s) if s == cat => preferred |= pref,
                Some(b'S') => {}
                Some(_) if cat == b'S' => (slot, preferred) = (Some(cat), pref),
                Some(_) => conflict = true,
            }
        }
        if conflict && slot != Some(b'S') {
            resolved = false;
            break;
        }
        slots[i] = (slot.unwrap_or(0), preferred);
    }
    if resolved {
        let fits = |c: &Candidate<T>| {
            actual
                .iter()
                .zip(&c.types)
                .zip(&slots)
                .all(|((a, t), (cat, preferred))| known(*a) || (category(*t) == *cat && (!preferred || is_preferred(*cat, *t))))
        };
        let kept: Vec<_> = candidates.iter().filter(|c| fits(c)).cloned().collect();
        if !kept.is_empty() {
            candidates = kept;
        }
        if let Some(c) = single(&candidates) {
            return Some(c);
        }
    }

    // All known arguments of one type: suppose the unknown ones are too.
    let mut knowns = actual.iter().copied().filter(|&a| known(a));
    if let Some(first) = knowns.next()
        && knowns.all(|k| k == first)
    {
        let supposed = vec![first; actual.len()];
        let kept: Vec<_> = candidates.into_iter().filter(|c| all_coercible(&supposed, &c.types)).collect();
        return single(&kept);
    }
    None
}

// ---------------------------------------------------------------------------------------------------------------------
// Functions

/// A function in one way of calling it.
#[derive(Clone)]
struct Way {
    func: &'static ProcEntry,
    /// Parameter of each argument.
    positions: Vec<usize>,
    /// Variadic arguments are gathered (or passed one by one, for `"any"`).
    expanded: bool,
}

/// The ways `func` can take `count` arguments, some named.
fn way(func: &'static ProcEntry, count: usize, names: &[Option<&str>], variadic: bool, expand: bool) -> Option<Candidate<Way>> {
    let params = func.args.len();
    if variadic && func.variadic == 0 {
        return None;
    }
    if expand && (func.variadic == 0 || variadic || names.iter().any(Option::is_some)) {
        return None;
    }
    if expand {
        if count < params {
            return None;
        }
        let mut types: Vec<Oid> = func.args[..params - 1].to_vec();
        types.resize(count, func.variadic);
        let positions = (0..count).collect();
        return Some(Candidate { item: Way { func, positions, expanded: true }, types });
    }
    if count > params || count + func.default_count < params {
        return None;
    }
    // A variadic function takes its array whole only when the call says VARIADIC.
    if func.variadic != 0 && !variadic && count == params {
        return None;
    }
    let mut positions = Vec::with_capacity(count);
    let param_names = func.input_names();
    for i in 0..count {
        match names.get(i).copied().flatten() {
            None => positions.push(i),
            Some(name) => positions.push(param_names.iter().position(|n| *n == name)?),
        }
    }
    let filled = |p: usize| positions.contains(&p);
    if positions.iter().enumerate().any(|(i, p)| positions[..i].contains(p)) {
        return None;
    }
    if (0..params).any(|p| !filled(p) && p + func.default_count < params) {
        return None;
    }
    let types = positions.iter().map(|&p| func.args[p]).collect();
    Some(Candidate { item: Way { func, positions, expanded: false }, types })
}

/// Chooses a built-in function. `names` are given for `name => value` arguments (`None` entries are positional; may be empty).
/// `variadic`: the last argument was written `VARIADIC`. `Ok(None)`: no function of that name at all or none that fits;
/// the caller words the error with [`undefined_function`].
///
/// # Errors
/// `42725` when several fit equally well, `42804` for polymorphic arguments that do not agree.
pub fn resolve_function(name: &str, args: &[Oid], names: &[Option<&str>], variadic: bool) -> Result<Option<ResolvedFn>, SqlError> {
    let all: Vec<&'static ProcEntry> = procs_by_name(name).to_vec();
    resolve_among(name, &all, args, names, variadic)
}

/// [`resolve_function`] among given functions.
///
/// # Errors
/// As [`resolve_function`].
pub fn resolve_among(
    name: &str,
    funcs: &[&'static ProcEntry],
    args: &[Oid],
    names: &[Option<&str>],
    variadic: bool,
) -> Result<Option<ResolvedFn>, SqlError> {
    let mut candidates: Vec<Candidate<Way>> = Vec::new();
    for &f in funcs {
        for expand in [false, true] {
            let Some(c) = way(f, args.len(), names, variadic, expand) else { continue };
            // The same argument types in two ways: the one that gathers nothing and fills in least wins.
            let rank = |c: &Candidate<Way>| (c.item.expanded, c.item.func.args.len());
            match candidates.iter_mut().find(|o| o.types == c.types && o.item.positions == c.item.positions) {
                Some(old) if rank(&c) < rank(old) => *old = c,
                Some(_) => {}
                None => candidates.push(c),
            }
        }
    }
    let chosen = if let Some(exact) = candidates.iter().find(|c| c.types == args) {
        exact.clone()
    } else {
        // `type(value)` means a cast when no function fits exactly; the caller tries that. Only unknown literals and
        // conversions without a function count here.
        candidates.retain(|c| all_coercible(args, &c.types));
        match candidates.len() {
            0 => return Ok(None),
            1 => candidates.swap_remove(0),
            _ => match select_candidate(args, candidates) {
                Some(c) => c,
                None => {
                    return Err(SqlError::new(SqlState::AMBIGUOUS_FUNCTION, format!("function {} is not unique", call_text(name, args)))
                        .hint("Could not choose a best candidate function. You might need to add explicit type casts."));
                }
            },
        }
    };
    let func = chosen.item.func;
    let (arg_types, result) = make_concrete(&chosen.types, args, func.result)?;
    let gather = (chosen.item.expanded && func.variadic != oids::ANY).then(|| {
        let from = func.args.len() - 1;
        (from, arg_types.get(from).copied().unwrap_or(func.variadic))
    });
    let params = func.args.len();
    let texts = split_defaults(func.defaults);
    let defaults = if chosen.item.expanded {
        Vec::new()
    } else {
        (0..params)
            .filter(|p| !chosen.item.positions.contains(p))
            .filter_map(|p| {
                let i = p.checked_sub(params - func.default_count)?;
                Some((texts.get(i)?.clone(), func.args[p]))
            })
            .collect()
    };
    let positions = chosen.item.positions;
    let arg_types = if chosen.item.expanded {
        arg_types
    } else {
        let mut by_param = func.args.to_vec();
        for (&p, t) in positions.iter().zip(arg_types) {
            by_param[p] = t;
        }
        by_param
    };
    Ok(Some(ResolvedFn { func, positions, arg_types, result, gather, variadic, defaults }))
}

/// Splits the expressions of `proargdefaults` at their commas.
fn split_defaults(s: &str) -> Vec<String> {
    let mut out = Vec::new();
    let (mut depth, mut quoted, mut current) = (0, false, String::new());
    for c in s.chars() {
        match c {
            '\'' => quoted = !quoted,
            '(' | '[' if !quoted => depth += 1,
            ')' | ']' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                out.push(current.trim().to_owned());
                current.clear();
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    if !current.trim().is_empty() {
        out.push(current.trim().to_owned());
    }
    out
}

fn call_text(name: &str, args: &[Oid]) -> String {
    let types: Vec<String> = args.iter().map(|&t| type_name(t)).collect();
    format!("{name}({})", types.join(", "))
}

/// `42883` for a function, with PostgreSQL's text and hint.
pub fn undefined_function(name: &str, args: &[Oid]) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("function {} does not exist", call_text(name, args)))
        .hint("No function matches the given name and argument types. You might need to add explicit type casts.")
}

// ---------------------------------------------------------------------------------------------------------------------
// Operators

/// Chooses a built-in operator; `left` is `None` for prefix operators.
///
/// # Errors
/// `42883` when none fits, `42725` when several do.
pub fn resolve_operator(name: &str, left: Option<Oid>, right: Oid) -> Result<ResolvedOp, SqlError> {
    // Rows of all types have the operators of records.
    let row = |t: Oid| t >= oids::FIRST_NORMAL && is_composite(t);
    let (left, right) = match left {
        Some(l) if (row(l) || row(right)) && [l, right].iter().all(|&t| is_composite(t) || t == oids::UNKNOWN) => {
            let record = |t: Oid| if t == oids::UNKNOWN { t } else { oids::RECORD };
            (Some(record(l)), record(right))
        }
        _ => (left, right),
    };
    let all = opers_by_name(name);
    let actual: Vec<Oid> = left.into_iter().chain([right]).collect();
    let types_of = |o: &OperEntry| if left.is_some() { vec![o.left, o.right] } else { vec![o.right] };
    let kind = if left.is_some() { b'b' } else { b'l' };
    // An unknown literal is first supposed to have the other side's type.
    let supposed = match left {
        Some(oids::UNKNOWN) => vec![right, right],
        Some(l) if right == oids::UNKNOWN => vec![l, l],
        _ => actual.clone(),
    };
    let mut fitting = all.iter().copied().filter(|o| o.kind == kind);
    let chosen = match fitting.clone().find(|o| types_of(o) == supposed) {
        Some(exact) => exact,
        None => {
            let candidates: Vec<Candidate<&'static OperEntry>> = fitting
                .by_ref()
                .map(|item| Candidate { item, types: types_of(item) })
                .filter(|c| all_coercible(&actual, &c.types))
                .collect();
            match candidates.as_slice() {
                [] => return Err(undefined_operator(name, left, right)),
                [one] => one.item,
                _ => match select_candidate(&actual, candidates) {
                    Some(c) => c.item,
                    None => {
                        return Err(SqlError::new(
                            SqlState::AMBIGUOUS_FUNCTION,
                            format!("operator is not unique: {}", operator_text(name, left, right)),
                        )
                        .hint("Could not choose a best candidate operator. You might need to add explicit type casts."));
                    }
                },
            }
        }
    };
    let func = proc_by_oid(chosen.func).ok_or_else(|| SqlError::internal(format!("operator {} has no function", chosen.oid)))?;
    let (types, result) = make_concrete(&types_of(chosen), &actual, chosen.result)?;
    let (left, right) = match types.as_slice() {
        [l, r] => (*l, *r),
        [r] => (0, *r),
        _ => (0, 0),
    };
    Ok(ResolvedOp { oper: chosen, func, left, right, result })
}

fn operator_text(name: &str, left: Option<Oid>, right: Oid) -> String {
    match left {
        Some(l) => format!("{} {name} {}", type_name(l), type_name(right)),
        None => format!("{name} {}", type_name(right)),
    }
}

/// `42883` for an operator, with PostgreSQL's text and hint.
pub fn undefined_operator(name: &str, left: Option<Oid>, right: Oid) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_FUNCTION, format!("operator does not exist: {}", operator_text(name, left, right))).hint(
        if left.is_some() {
            "No operator matches the given name and argument types. You might need to add explicit type casts."
        } else {
            "No operator matches the given name and argument type. You might need to add an explicit type cast."
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(name: &str, l: Oid, r: Oid) -> String {
        match resolve_operator(name, Some(l), r) {
            Ok(o) => format!("{} {} -> {}", type_name(o.left), type_name(o.right), type_name(o.result)),
            Err(e) => e.to_string(),
        }
    }

    fn func(name: &str, args: &[Oid]) -> String {
        match resolve_function(name, args, &[], false) {
            Ok(Some(f)) => {
                format!("{} -> {}", f.arg_types.iter().map(|&t| type_name(t)).collect::<Vec<_>>().join(","), type_name(f.result))
            }
            Ok(None) => "none".to_owned(),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn operators_resolve_as_postgres_does() {
        use oids::*;
        assert_eq!(op("=", INT4, INT4), "integer integer -> boolean");
        assert_eq!(op("=", INT4, UNKNOWN), "integer integer -> boolean");
        assert_eq!(op("=", INT4, INT8), "integer bigint -> boolean");
        assert_eq!(op("=", VARCHAR, UNKNOWN), "text text -> boolean");
        assert_eq!(op("+", INT4, NUMERIC), "numeric numeric -> numeric");
        assert_eq!(op("||", TEXT, INT4), "text integer -> text");
        assert_eq!(op("||", UNKNOWN, UNKNOWN), "text text -> text");
        assert_eq!(op("=", INT4, TEXT), "operator does not exist: integer = text");
        assert_eq!(op("~", NAME, UNKNOWN), "name text -> boolean");
        assert_eq!(op("=", NAME, UNKNOWN), "name name -> boolean");
        assert_eq!(op("=", OID, INT4), "oid oid -> boolean");
        assert_eq!(op("=", REGCLASS, UNKNOWN), "oid oid -> boolean");
        assert_eq!(op("||", INT4_ARRAY, INT4), "integer[] integer -> integer[]");
        assert_eq!(op("-", TIMESTAMPTZ, UNKNOWN), "timestamp with time zone timestamp with time zone -> interval");
        assert_eq!(op("+", DATE, INT4), "date integer -> date");
        assert_eq!(op("<", BPCHAR, UNKNOWN), "character character -> boolean");
    }

    #[test]
    fn functions_resolve_as_postgres_does() {
        use oids::*;
        assert_eq!(func("abs", &[INT4]), "integer -> integer");
        assert_eq!(func("lower", &[UNKNOWN]), "text -> text");
        assert_eq!(func("sum", &[INT4]), "integer -> bigint");
        assert_eq!(func("max", &[VARCHAR]), "text -> text");
        assert_eq!(func("count", &[]), " -> bigint");
        assert_eq!(func("round", &[FLOAT8, INT4]), "none");
        assert_eq!(func("round", &[NUMERIC, INT4]), "numeric,integer -> numeric");
        assert_eq!(func("concat", &[INT4, TEXT]), "integer,text -> text");
        assert_eq!(func("array_agg", &[TEXT]), "text -> text[]");
        assert_eq!(func("array_to_string", &[INT4_ARRAY, UNKNOWN]), "integer[],text -> text");
        assert_eq!(func("generate_series", &[INT4, INT4]), "integer,integer -> integer");
        assert_eq!(func("generate_series", &[INT4, INT8]), "bigint,bigint -> bigint");
        assert_eq!(func("to_char", &[TIMESTAMP, UNKNOWN]), "timestamp without time zone,text -> text");
        assert_eq!(func("unnest", &[INT2VECTOR]), "int2vector -> smallint");
        assert_eq!(func("pg_promote", &[]), "boolean,integer -> boolean");
        assert_eq!(func("string_agg", &[TEXT, UNKNOWN]), "text,text -> text");
        assert_eq!(func("json_build_object", &[UNKNOWN, INT4]), "unknown,integer -> json");
        assert_eq!(func("coalesce_none", &[INT4]), "none");
        assert_eq!(func("substring", &[TEXT, INT4, INT4]), "text,integer,integer -> text");
        assert_eq!(func("length", &[UNKNOWN]), "text -> integer");
        let f = resolve_function("format", &[TEXT, INT4], &[], false).unwrap().unwrap();
        assert!(f.gather.is_none());
        let f = resolve_function("pg_promote", &[INT4], &[Some("wait_seconds")], false).unwrap().unwrap();
        assert_eq!((f.positions, f.defaults), (vec![1], vec![("true".to_owned(), BOOL)]));
    }

    #[test]
    fn common_types() {
        use oids::*;
        assert_eq!(select_common_type(&[INT4, INT8, UNKNOWN], "CASE").unwrap(), INT8);
        assert_eq!(select_common_type(&[UNKNOWN, UNKNOWN], "UNION").unwrap(), TEXT);
        assert_eq!(select_common_type(&[INT4, NUMERIC, FLOAT8], "UNION").unwrap(), FLOAT8);
        assert_eq!(select_common_type(&[INT4, TEXT], "CASE").unwrap_err().to_string(), "CASE types integer and text cannot be matched");
    }
}
