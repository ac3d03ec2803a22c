//! Joins.

use std::sync::Arc;

use hashbrown::HashTable;

use super::eval::{Exec, Row};
use super::hash::{hash_values, same_rows};
use super::node::Node;
use super::plan::{JoinKind, NestLoop, PlanNode, PlanOp};
use crate::sql::types::Datum;
use crate::sqlstate::SqlError;

fn wrong_plan() -> SqlError {
    SqlError::internal("a node got another node's plan")
}

/// For each left row the right side again.
pub(super) struct NestLoopNode {
    plan: Arc<PlanNode>,
    left: Box<dyn Node>,
    right: Box<dyn Node>,
    row: Row,
    inner: Row,
    have: bool,
    matched: bool,
    first: bool,
    count: u32,
}

impl NestLoopNode {
    pub(super) fn new(plan: Arc<PlanNode>, left: Box<dyn Node>, right: Box<dyn Node>) -> Self {
        Self { plan, left, right, row: Row::new(), inner: Row::new(), have: false, matched: false, first: true, count: 0 }
    }

    /// The next left row, and the right side made ready for it.
    fn advance(&mut self, x: &mut Exec<'_>, j: &NestLoop) -> Result<bool, SqlError> {
        if !self.left.next(x, &mut self.row)? {
            return Ok(false);
        }
        self.have = true;
        self.matched = false;
        for (slot, column) in &j.params {
            let mut v = self.row.get(*column).cloned().unwrap_or_default();
            super::large::unpack_in_place(x.session.engine.ctx(), &mut v)?;
            if let Some(s) = x.state.exec.get_mut(*slot) {
                *s = v;
            }
        }
        if self.first {
            self.first = false;
        } else {
            self.right.rescan(x)?;
        }
        Ok(true)
    }
}

impl Node for NestLoopNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let plan = self.plan.clone();
        let PlanOp::NestLoop(j) = &plan.op else { return Err(wrong_plan()) };
        loop {
            if !self.have && !self.advance(x, j)? {
                return Ok(false);
            }
            self.count = self.count.wrapping_add(1);
            if self.count & 1023 == 0 {
                x.session.check_cancel()?;
            }
            // One match is enough: do not ask again.
            let done = self.matched && (j.single || matches!(j.kind, JoinKind::Semi | JoinKind::Anti));
            if !done && self.right.next(x, &mut self.inner)? {
                out.clear();
                out.extend_from_slice(&self.row);
                out.append(&mut self.inner);
                let holds = match &j.condition {
                    Some(c) => c.holds(x, out)?,
                    None => true,
                };
                if holds {
                    self.matched = true;
                    match j.kind {
                        JoinKind::Anti => {}
                        JoinKind::Semi => {
                            out.truncate(self.row.len());
                            return Ok(true);
                        }
                        JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => return Ok(true),
                    }
                }
                continue;
            }
            self.have = false;
            let unmatched = !self.matched;
            match j.kind {
                JoinKind::Left if unmatched => {
                    out.clear();
                    out.extend_from_slice(&self.row);
                    out.resize(plan.width, Datum::Null);
                    return Ok(true);
                }
                JoinKind::Anti if unmatched => {
                    out.clear();
                    out.extend_from_slice(&self.row);
                    return Ok(true);
                }
                JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full | JoinKind::Semi | JoinKind::Anti => {}
            }
        }
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.have = false;
        self.left.rescan(x)
    }
}

/// Build side rows: key values, then the row.
struct Built {
    rows: Vec<(Box<[Datum]>, Row)>,
    matched: Vec<bool>,
    table: HashTable<u32>,
    /// Next row with the same hash bucket entry, by row.
    chain: Vec<u32>,
}

const NONE: u32 = u32::MAX;

/// Right side into a hash table.
pub(super) struct HashJoinNode {
    plan: Arc<PlanNode>,
    left: Box<dyn Node>,
    right: Box<dyn Node>,
    built: Option<Built>,
    row: Row,
    keys: Vec<Datum>,
    /// Candidate at hand for the current left row.
    at: u32,
    have: bool,
    matched: bool,
    /// Left side is done; unmatched right rows from here on.
    rest: Option<usize>,
    count: u32,
}

impl HashJoinNode {
    pub(super) fn new(plan: Arc<PlanNode>, left: Box<dyn Node>, right: Box<dyn Node>) -> Self {
        Self {
            plan,
            left,
            right,
            built: None,
            row: Row::new(),
            keys: Vec::new(),
            at: NONE,
            have: false,
            matched: false,
            rest: None,
            count: 0,
        }
    }

    fn build(&mut self, x: &mut Exec<'_>) -> Result<Built, SqlError> {
        let PlanOp::HashJoin(j) = &self.plan.op else { return Err(wrong_plan()) };
        let outer = matches!(j.kind, JoinKind::Right | JoinKind::Full);
        let mut built = Built { rows: Vec::new(), matched: Vec::new(), table: HashTable::new(), chain: Vec::new() };
        let mut row = Row::new();
        while self.right.next(x, &mut row)? {
            if built.rows.len() & 1023 == 0 {
                x.session.check_cancel()?;
            }
            let keys = j.right_keys.iter().map(|k| k.eval(x, &row)).collect::<Result<Box<[Datum]>, _>>()?;
            let null = keys.iter().any(Datum::is_null);
            if null && !outer {
                continue;
            }
            let n = u32::try_from(built.rows.len())
                .map_err(|_| SqlError::new(crate::sqlstate::SqlState::PROGRAM_LIMIT_EXCEEDED, "too many rows in a hash join"))?;
            built.rows.push((keys, std::mem::take(&mut row)));
            built.chain.push(NONE);
            built.matched.push(false);
            if null {
                continue;
            }
            let Built { rows, table, chain, .. } = &mut built;
            let keys = match rows.last() {
                Some((k, _)) => k,
                None => return Err(wrong_plan()),
            };
            let hash = hash_values(keys.iter());
            let entry = table.entry(
                hash,
                |other| rows.get(*other as usize).is_some_and(|(k, _)| same_rows(k, keys)),
                |other| rows.get(*other as usize).map_or(0, |(k, _)| hash_values(k.iter())),
            );
            match entry {
                hashbrown::hash_table::Entry::Occupied(mut e) => {
                    // Newest first; the order within a key does not matter.
                    if let Some(slot) = chain.last_mut() {
                        *slot = *e.get();
                    }
                    *e.get_mut() = n;
                }
                hashbrown::hash_table::Entry::Vacant(e) => {
                    e.insert(n);
                }
            }
        }
        Ok(built)
    }
}

impl Node for HashJoinNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let plan = self.plan.clone();
        let PlanOp::HashJoin(j) = &plan.op else { return Err(wrong_plan()) };
        if self.built.is_none() {
            let built = self.build(x)?;
            self.built = Some(built);
        }
        loop {
            let Some(built) = &mut self.built else { return Err(wrong_plan()) };
            if let Some(at) = &mut self.rest {
                // Right rows nobody matched.
                while let Some((_, row)) = built.rows.get(*at) {
                    let taken = built.matched.get(*at).copied().unwrap_or(true);
                    *at += 1;
                    if !taken {
                        out.clear();
                        out.resize(plan.width - row.len(), Datum::Null);
                        out.extend_from_slice(row);
                        return Ok(true);
                    }
                }
                return Ok(false);
            }
            if !self.have {
                // Nothing to find in an empty table.
                if built.rows.is_empty() && matches!(j.kind, JoinKind::Inner | JoinKind::Semi | JoinKind::Right) {
                    return Ok(false);
                }
                if !self.left.next(x, &mut self.row)? {
                    if matches!(j.kind, JoinKind::Right | JoinKind::Full) {
                        self.rest = Some(0);
                        continue;
                    }
                    return Ok(false);
                }
                self.count = self.count.wrapping_add(1);
                if self.count & 1023 == 0 {
                    x.session.check_cancel()?;
                }
                self.have = true;
                self.matched = false;
                self.keys.clear();
                for k in &j.left_keys {
                    let v = k.eval(x, &self.row)?;
                    self.keys.push(v);
                }
                self.at = if self.keys.iter().any(Datum::is_null) {
                    NONE
                } else {
                    let hash = hash_values(self.keys.iter());
                    let keys = &self.keys;
                    built
                        .table
                        .find(hash, |n| built.rows.get(*n as usize).is_some_and(|(k, _)| same_rows(k, keys)))
                        .copied()
                        .unwrap_or(NONE)
                };
            }
            while self.at != NONE {
                let n = self.at as usize;
                self.at = built.chain.get(n).copied().unwrap_or(NONE);
                let Some((_, inner)) = built.rows.get(n) else { continue };
                out.clear();
                out.extend_from_slice(&self.row);
                out.extend_from_slice(inner);
                let holds = match &j.condition {
                    Some(c) => c.holds(x, out)?,
                    None => true,
                };
                if !holds {
                    continue;
                }
                self.matched = true;
                if let Some(m) = built.matched.get_mut(n) {
                    *m = true;
                }
                match j.kind {
                    JoinKind::Semi => {
                        self.have = false;
                        out.truncate(self.row.len());
                        return Ok(true);
                    }
                    JoinKind::Anti => {
                        self.at = NONE;
                    }
                    JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => return Ok(true),
                }
            }
            self.have = false;
            if !self.matched {
                match j.kind {
                    JoinKind::Left | JoinKind::Full => {
                        out.clear();
                        out.extend_from_slice(&self.row);
                        out.resize(plan.width, Datum::Null);
                        return Ok(true);
                    }
                    JoinKind::Anti => {
                        out.clear();
                        out.extend_from_slice(&self.row);
                        return Ok(true);
                    }
                    JoinKind::Inner | JoinKind::Right | JoinKind::Semi => {}
                }
            }
        }
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.have = false;
        self.rest = None;
        let PlanOp::HashJoin(j) = &self.plan.op else { return Err(wrong_plan()) };
        if j.right.correlated {
            self.built = None;
            self.right.rescan(x)?;
        } else if let Some(b) = &mut self.built {
            b.matched.iter_mut().for_each(|m| *m = false);
        }
        self.left.rescan(x)
    }
}
