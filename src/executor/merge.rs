//! Merge joins: both sides come in the order of their keys and are read side by side.

use std::cmp::Ordering;
use std::sync::Arc;

use super::eval::{Exec, Row};
use super::hash::{compare_values, row_bytes};
use super::node::Node;
use super::plan::{JoinKind, MergeJoin, MergeKey, PlanNode, PlanOp};
use super::spill::{Part, PartReader, Store};
use crate::config::Setting;
use crate::sql::types::Datum;
use crate::sqlstate::SqlError;

fn wrong_plan() -> SqlError {
    SqlError::internal("a node got another node's plan")
}

/// Inner rows with the keys of the outer row at hand, read once for each outer row that has them. What is more than `work_mem` is in a file.
#[derive(Default)]
struct Group {
    rows: Vec<Row>,
    bytes: usize,
    store: Option<Store>,
    part: Part,
    reader: Option<PartReader>,
}

impl Group {
    fn clear(&mut self) -> Result<(), SqlError> {
        self.rows.clear();
        self.bytes = 0;
        self.part = Part::default();
        self.reader = None;
        match &mut self.store {
            Some(store) => store.clear(),
            None => Ok(()),
        }
    }

    fn push(&mut self, x: &Exec<'_>, row: Row, memory: usize) -> Result<(), SqlError> {
        if self.part.rows == 0 && self.bytes <= memory {
            self.bytes += row_bytes(&row);
            self.rows.push(row);
            return Ok(());
        }
        if self.store.is_none() {
            self.store = Some(Store::new(x)?);
        }
        match &mut self.store {
            Some(store) => store.push(&mut self.part, &row, 64 << 10),
            None => Err(wrong_plan()),
        }
    }

    /// Appends row `at` to `out`; after those in memory those in the file, in turn.
    fn append(&mut self, at: usize, out: &mut Row) -> Result<bool, SqlError> {
        if let Some(row) = self.rows.get(at) {
            out.extend_from_slice(row);
            return Ok(true);
        }
        if at == self.rows.len() {
            self.reader = Some(Store::read_again(&self.part));
        }
        let row = match (&self.store, &mut self.reader) {
            (Some(store), Some(reader)) => store.next(reader)?,
            _ => None,
        };
        let Some(mut row) = row else { return Ok(false) };
        out.append(&mut row);
        Ok(true)
    }
}

/// Where a merge join is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The next outer row is to be read.
    Outer,
    /// The inner side is to catch up with the outer row.
    Inner,
    /// The outer row meets the group, from this row of it.
    Group(usize),
    /// The outer side is at its end.
    Rest,
    /// So are both.
    Done,
}

/// A merge join.
///
/// NULLs are equal to nothing, so that rows with one among their keys are left aside wherever they come in the order. Every outer row of a
/// group's keys meets all of the group: where inner rows without a match are shown, there is no further condition, so that they are those that
/// never get into a group.
pub(super) struct MergeJoinNode {
    plan: Arc<PlanNode>,
    left: Box<dyn Node>,
    right: Box<dyn Node>,
    row: Row,
    keys: Vec<Datum>,
    matched: bool,
    /// The inner row after the group.
    ahead: Row,
    ahead_keys: Vec<Datum>,
    have_ahead: bool,
    /// The inner side has no more rows.
    ended: bool,
    group: Group,
    group_keys: Vec<Datum>,
    have_group: bool,
    phase: Phase,
    count: u32,
    memory: usize,
}

impl MergeJoinNode {
    pub(super) fn new(plan: Arc<PlanNode>, left: Box<dyn Node>, right: Box<dyn Node>) -> Self {
        Self {
            plan,
            left,
            right,
            row: Row::new(),
            keys: Vec::new(),
            matched: false,
            ahead: Row::new(),
            ahead_keys: Vec::new(),
            have_ahead: false,
            ended: false,
            group: Group::default(),
            group_keys: Vec::new(),
            have_group: false,
            phase: Phase::Outer,
            count: 0,
            memory: 0,
        }
    }

    fn tick(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.count = self.count.wrapping_add(1);
        if self.count & 1023 == 0 { x.session.check_cancel() } else { Ok(()) }
    }

    /// Reads the inner row after the group, unless it was read already; false at the end.
    fn look_ahead(&mut self, x: &mut Exec<'_>, j: &MergeJoin) -> Result<bool, SqlError> {
        if self.have_ahead || self.ended {
            return Ok(self.have_ahead);
        }
        self.tick(x)?;
        if !self.right.next(x, &mut self.ahead)? {
            self.ended = true;
            return Ok(false);
        }
        self.ahead_keys.clear();
        for k in &j.keys {
            let v = k.right.eval(x, &self.ahead)?;
            self.ahead_keys.push(v);
        }
        self.have_ahead = true;
        Ok(true)
    }

    /// All inner rows with the keys of the one ahead.
    fn gather(&mut self, x: &mut Exec<'_>, j: &MergeJoin) -> Result<(), SqlError> {
        self.group.clear()?;
        self.group_keys.clone_from(&self.ahead_keys);
        self.have_group = true;
        loop {
            self.have_ahead = false;
            let row = std::mem::take(&mut self.ahead);
            self.group.push(x, row, self.memory)?;
            if !self.look_ahead(x, j)?
                || self.ahead_keys.iter().any(Datum::is_null)
                || compare_keys(&self.ahead_keys, &self.group_keys, &j.keys).is_ne()
            {
                return Ok(());
            }
        }
    }

    /// Shows the row ahead as one without a match.
    fn show_ahead(&mut self, out: &mut Row) {
        self.have_ahead = false;
        out.clear();
        out.resize(self.plan.width - self.ahead.len(), Datum::Null);
        out.append(&mut self.ahead);
    }

    /// Done with the outer row; true if it is shown, without a match.
    fn finish_outer(&mut self, kind: JoinKind, out: &mut Row) -> bool {
        self.phase = Phase::Outer;
        match kind {
            JoinKind::Left | JoinKind::Full if !self.matched => {
                out.clear();
                out.append(&mut self.row);
                out.resize(self.plan.width, Datum::Null);
                true
            }
            JoinKind::Anti if !self.matched => {
                out.clear();
                out.append(&mut self.row);
                true
            }
            JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full | JoinKind::Semi | JoinKind::Anti => false,
        }
    }
}

/// Compares keys without NULLs.
fn compare_keys(a: &[Datum], b: &[Datum], keys: &[MergeKey]) -> Ordering {
    for ((x, y), k) in a.iter().zip(b).zip(keys) {
        let order = compare_values(x, y);
        if order.is_ne() {
            return if k.desc { order.reverse() } else { order };
        }
    }
    Ordering::Equal
}

impl Node for MergeJoinNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let plan = self.plan.clone();
        let PlanOp::MergeJoin(j) = &plan.op else { return Err(wrong_plan()) };
        let all_right = matches!(j.kind, JoinKind::Right | JoinKind::Full);
        let all_left = matches!(j.kind, JoinKind::Left | JoinKind::Full | JoinKind::Anti);
        if self.memory == 0 {
            self.memory = usize::try_from(x.session.settings.bytes(Setting::WorkMem).unwrap_or(4 << 20)).unwrap_or(usize::MAX);
        }
        loop {
            match self.phase {
                Phase::Outer => {
                    self.tick(x)?;
                    if !self.left.next(x, &mut self.row)? {
                        self.phase = Phase::Rest;
                        continue;
                    }
                    self.matched = false;
                    self.keys.clear();
                    for k in &j.keys {
                        let v = k.left.eval(x, &self.row)?;
                        self.keys.push(v);
                    }
                    if self.keys.iter().any(Datum::is_null) {
                        if self.finish_outer(j.kind, out) {
                            return Ok(true);
                        }
                        continue;
                    }
                    if self.have_group {
                        if compare_keys(&self.keys, &self.group_keys, &j.keys).is_eq() {
                            self.phase = Phase::Group(0);
                            continue;
                        }
                        self.have_group = false;
                        self.group.clear()?;
                    }
                    self.phase = Phase::Inner;
                }
                Phase::Inner => {
                    if !self.look_ahead(x, j)? {
                        if !all_left {
                            // Nothing is left that anything could match.
                            self.phase = Phase::Done;
                        } else if self.finish_outer(j.kind, out) {
                            return Ok(true);
                        }
                        continue;
                    }
                    let null = self.ahead_keys.iter().any(Datum::is_null);
                    match if null { Ordering::Less } else { compare_keys(&self.ahead_keys, &self.keys, &j.keys) } {
                        Ordering::Less if all_right => {
                            self.show_ahead(out);
                            return Ok(true);
                        }
                        Ordering::Less => self.have_ahead = false,
                        Ordering::Equal => {
                            self.gather(x, j)?;
                            self.phase = Phase::Group(0);
                        }
                        Ordering::Greater => {
                            if self.finish_outer(j.kind, out) {
                                return Ok(true);
                            }
                        }
                    }
                }
                Phase::Group(at) => {
                    self.tick(x)?;
                    out.clear();
                    out.extend_from_slice(&self.row);
                    if !self.group.append(at, out)? {
                        if self.finish_outer(j.kind, out) {
                            return Ok(true);
                        }
                        continue;
                    }
                    self.phase = Phase::Group(at + 1);
                    let holds = match &j.condition {
                        Some(c) => c.holds(x, out)?,
                        None => true,
                    };
                    if !holds {
                        continue;
                    }
                    self.matched = true;
                    match j.kind {
                        JoinKind::Semi => {
                            out.truncate(self.row.len());
                            self.phase = Phase::Outer;
                            return Ok(true);
                        }
                        JoinKind::Anti => self.phase = Phase::Outer,
                        JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => return Ok(true),
                    }
                }
                Phase::Rest => {
                    if all_right && self.look_ahead(x, j)? {
                        self.show_ahead(out);
                        return Ok(true);
                    }
                    self.phase = Phase::Done;
                }
                Phase::Done => {
                    out.clear();
                    return Ok(false);
                }
            }
        }
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.have_ahead = false;
        self.ended = false;
        self.have_group = false;
        self.group.clear()?;
        self.phase = Phase::Outer;
        self.left.rescan(x)?;
        self.right.rescan(x)
    }
}
