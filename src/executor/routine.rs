//! What functions with bodies keep in a session: the variables a statement of theirs may name, and what was prepared for them.

use std::any::Any;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::code::Code;
use super::context::SessionContext;
use super::portal::Prepared;
use crate::sql::types::{Oid, TupleDesc, oids};
use crate::sqlstate::SqlError;

/// A name a statement may use: the block it is declared in, itself, and its number.
pub type VariableName = (Option<Arc<str>>, Arc<str>, usize);

/// Variables in scope of a statement. Variable `i` is the statement's parameter `i`.
#[derive(Debug)]
pub struct Variables {
    /// Names, innermost first.
    pub names: Arc<[VariableName]>,
    /// Types and modifiers of all variables.
    pub types: Arc<[(Oid, i32)]>,
    /// Columns of those that hold rows, as far as known.
    pub shapes: Vec<Option<Arc<TupleDesc>>>,
    /// A column of the same name wins (SQL functions); else the name is ambiguous.
    pub prefer_columns: bool,
}

/// What a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning<'n> {
    /// A variable.
    Variable(usize),
    /// A field of one.
    Field(usize, &'n str),
}

impl Variables {
    fn find(&self, block: Option<&str>, name: &str) -> Option<usize> {
        self.names.iter().find(|(b, n, _)| &**n == name && block.is_none_or(|block| b.as_deref() == Some(block))).map(|(_, _, i)| *i)
    }

    /// What a dotted name means here.
    pub fn meaning<'n>(&self, parts: &[&'n str]) -> Option<Meaning<'n>> {
        match *parts {
            [name] => self.find(None, name).map(Meaning::Variable),
            [a, b] => {
                let row = || self.find(None, a).filter(|&i| self.is_row(i)).map(|i| Meaning::Field(i, b));
                row().or_else(|| self.find(Some(a), b).map(Meaning::Variable))
            }
            [block, name, field] => self.find(Some(block), name).filter(|&i| self.is_row(i)).map(|i| Meaning::Field(i, field)),
            _ => None,
        }
    }

    /// Whether a variable holds rows.
    pub fn is_row(&self, variable: usize) -> bool {
        let known = self.shapes.get(variable).is_some_and(Option::is_some);
        known || self.types.get(variable).is_some_and(|(ty, _)| *ty == oids::RECORD || *ty >= oids::FIRST_NORMAL)
    }
}

/// A statement of a function, prepared.
#[derive(Clone, Debug)]
pub struct RoutinePlan {
    /// It.
    pub prepared: Arc<Prepared>,
    /// What it was bound with.
    pub variables: Arc<Variables>,
    /// The transaction's own catalog changes then.
    pub epoch: u64,
    /// If it is a lone expression: that, with the variables as the columns of a row. PostgreSQL: `exec_eval_simple_expr` in pl_exec.c.
    pub simple: Option<Arc<Code>>,
}

impl RoutinePlan {
    /// A statement that was prepared now.
    pub fn new(prepared: Arc<Prepared>, variables: Arc<Variables>, epoch: u64) -> Self {
        let simple = prepared.simple().map(Arc::new);
        Self { prepared, variables, epoch, simple }
    }

    /// Locks what the statement reads and changes; whether it may then be run: nothing it was bound to has changed.
    ///
    /// # Errors
    /// A lock cannot be had.
    pub fn is_good(&self, session: &mut SessionContext) -> Result<bool, SqlError> {
        Ok(!self.prepared.is_lasting() || self.prepared.lock(session)?)
    }
}

/// A session's share of the functions it called.
#[derive(Default)]
pub struct Routines {
    /// Statements, by function and their number in it.
    pub plans: FxHashMap<(usize, usize), RoutinePlan>,
    /// Conversions between types: from, to, modifier.
    pub casts: FxHashMap<(Oid, Oid, i32), Arc<Code>>,
    /// Compiled bodies, by what the layer above keys them with; of triggers' functions one per table, of
    /// polymorphic ones one per list of types.
    pub bodies: FxHashMap<(usize, Vec<Oid>), Arc<dyn Any + Send + Sync>>,
    /// Calls that are running.
    pub depth: usize,
    /// [`SessionContext::in_block`] is true for their sake only.
    ///
    /// [`SessionContext::in_block`]: super::SessionContext::in_block
    pub alone: bool,
    /// Triggers that are running.
    pub trigger_depth: i32,
    /// Rises whenever what was prepared may no longer hold: a subtransaction was undone.
    pub undone: u64,
}

impl std::fmt::Debug for Routines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Routines").field("plans", &self.plans.len()).field("depth", &self.depth).finish_non_exhaustive()
    }
}
