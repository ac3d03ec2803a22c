//! Overload resolution: which function, operator or cast an expression means.
//!
//! PostgreSQL: parser/parse_func.c, parse_oper.c, parse_coerce.c.

use super::registry::{OperEntry, ProcEntry};
use crate::sql::types::Oid;
use crate::sqlstate::SqlError;

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
    /// `int4` to `oid` and back: binary-coercible in PostgreSQL, another [`crate::sql::types::Datum`] variant here.
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
    /// Type each argument of the call is coerced to, polymorphic ones made concrete; in the order of the parameters
    /// once `positions` are applied. Variadic ones are repeated.
    pub arg_types: Vec<Oid>,
    /// Result type, polymorphic ones made concrete.
    pub result: Oid,
    /// When arguments from this parameter on must be gathered into an array of this element type.
    pub gather: Option<(usize, Oid)>,
    /// Values for trailing parameters not given: SQL text of constants, with the parameter's type.
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

/// How `source` becomes `target`, if it may in this context. `unknown` literals are the caller's: they go through text input.
pub fn coercion(source: Oid, target: Oid, context: CoercionContext) -> Option<Coercion> {
    let _ = (target, context);
    (source == target).then_some(Coercion::Relabel)
}

/// Chooses a built-in function. `names` are given for `name => value` arguments (`None` entries are positional; may be empty).
/// `variadic`: the last argument was written `VARIADIC`. `Ok(None)`: no function of that name at all or none that fits;
/// the caller words the error with [`undefined_function`].
///
/// # Errors
/// `42725` when several fit equally well.
pub fn resolve_function(
    name: &str,
    args: &[Oid],
    names: &[Option<&str>],
    variadic: bool,
) -> Result<Option<ResolvedFn>, SqlError> {
    let _ = (name, args, names, variadic);
    Ok(None)
}

/// Chooses a built-in operator; `left` is `None` for prefix operators.
///
/// # Errors
/// `42883` when none fits, `42725` when several do.
pub fn resolve_operator(name: &str, left: Option<Oid>, right: Oid) -> Result<ResolvedOp, SqlError> {
    let _ = (left, right);
    Err(SqlError::internal(format!("operator {name}")))
}

/// The type that UNION, CASE, VALUES, ARRAY, COALESCE give their branches. `what` is the word in the error ("UNION", "CASE", ...).
///
/// # Errors
/// `42804` when the types cannot be matched.
pub fn select_common_type(types: &[Oid], what: &str) -> Result<Oid, SqlError> {
    types.first().copied().ok_or_else(|| SqlError::internal(format!("{what} without types")))
}

/// `42883` for a function, with PostgreSQL's text and hint.
pub fn undefined_function(name: &str, args: &[Oid]) -> SqlError {
    let _ = args;
    SqlError::new(crate::sqlstate::SqlState::UNDEFINED_FUNCTION, format!("function {name} does not exist"))
}
