//! Running nodes: each has its plan and its state. A parent pulls a row at a time into a buffer it owns.

use std::sync::Arc;
use std::time::Instant;

use super::aggregate::AggregateNode;
use super::eval::{Exec, Row};
use super::join::{HashJoinNode, NestLoopNode};
use super::lock_rows::LockRowsNode;
use super::merge::MergeJoinNode;
use super::modify::ModifyNode;
use super::plan::{PlanNode, PlanOp};
use super::scan::{FunctionNode, IndexScanNode, SeqScanNode, TidScanNode, ValuesNode, VirtualScanNode};
use super::set::{AppendNode, CteScanNode, HashUniqueNode, RecursiveNode, SetOpNode, UniqueNode, WorkingScanNode};
use super::simple::{FilterNode, GateNode, LimitNode, MaterializeNode, ProjectNode, ProjectSetNode, ResultNode};
use super::sort::SortNode;
use super::window::WindowNode;
use crate::sqlstate::SqlError;

/// A node that runs.
pub trait Node: Send {
    /// Puts the next row into `out` (cleared first); false at the end.
    ///
    /// # Errors
    /// What the statement fails with.
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError>;

    /// Starts over, with the exec slots as they are now.
    ///
    /// # Errors
    /// As [`Self::next`].
    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError>;

    /// No more than `rows` rows will be asked for.
    fn bound(&mut self, _rows: u64) {}
}

/// Makes a plan's nodes. Nothing is read yet. Its rows have no packed values.
///
/// # Errors
/// A relation has no file.
pub fn build(plan: &Arc<PlanNode>, x: &mut Exec<'_>) -> Result<Box<dyn Node>, SqlError> {
    build_as(plan, x, false)
}

/// As [`build`]; with `packed` its rows may hold values as they lie in tables ([`crate::sql::types::Packed`]), for parents that only hand
/// them on or look at them through expressions.
///
/// # Errors
/// A relation has no file.
pub fn build_as(plan: &Arc<PlanNode>, x: &mut Exec<'_>, packed: bool) -> Result<Box<dyn Node>, SqlError> {
    crate::stack::check()?;
    let p = plan.clone();
    let node: Box<dyn Node> = match &plan.op {
        PlanOp::Result { .. } => Box::new(ResultNode::new(p)),
        PlanOp::Gate(child, _) => Box::new(GateNode::new(p.clone(), build_as(child, x, packed)?)),
        PlanOp::Append(children) => Box::new(AppendNode::new(children.iter().map(|c| build_as(c, x, packed)).collect::<Result<_, _>>()?)),
        PlanOp::SeqScan(_) => Box::new(SeqScanNode::new(p, packed)?),
        PlanOp::IndexScan(_) => Box::new(IndexScanNode::new(p, packed)?),
        PlanOp::VirtualScan(_) => Box::new(VirtualScanNode::new(p)),
        PlanOp::TidScan(..) => Box::new(TidScanNode::new(p, packed)),
        PlanOp::Values(_) => Box::new(ValuesNode::new(p)),
        PlanOp::Function(_) => Box::new(FunctionNode::new(p)),
        PlanOp::ProjectSet(child, _) => Box::new(ProjectSetNode::new(p.clone(), build(child, x)?)),
        PlanOp::Filter(child, _) => Box::new(FilterNode::new(p.clone(), build_as(child, x, packed)?)),
        PlanOp::Project(child, _) => Box::new(ProjectNode::new(p.clone(), build_as(child, x, true)?, packed)),
        PlanOp::NestLoop(j) => Box::new(NestLoopNode::new(p.clone(), build_as(&j.left, x, packed)?, build_as(&j.right, x, packed)?)),
        PlanOp::HashJoin(j) => Box::new(HashJoinNode::new(p.clone(), build_as(&j.left, x, packed)?, build_as(&j.right, x, packed)?)),
        PlanOp::MergeJoin(j) => {
            // A merge join keeps the rows it goes back to by itself.
            let right = if let PlanOp::Materialize(child) = &j.right.op {
                measured(build_as(child, x, packed)?, &j.right, x)
            } else {
                build_as(&j.right, x, packed)?
            };
            Box::new(MergeJoinNode::new(p.clone(), build_as(&j.left, x, packed)?, right))
        }
        PlanOp::Materialize(child) => Box::new(MaterializeNode::new(p.clone(), build_as(child, x, packed)?)),
        PlanOp::Sort(child, _) => Box::new(SortNode::new(p.clone(), build_as(child, x, packed)?)),
        PlanOp::Unique(child, _) => Box::new(UniqueNode::new(p.clone(), build(child, x)?)),
        PlanOp::Limit(l) => Box::new(LimitNode::new(p.clone(), build_as(&l.child, x, packed && l.ties.is_none())?)),
        PlanOp::Aggregate(a) => Box::new(AggregateNode::new(p.clone(), build_as(&a.child, x, true)?)),
        PlanOp::Window(w) => Box::new(WindowNode::new(p.clone(), build(&w.child, x)?)),
        PlanOp::SetOp(s) => Box::new(SetOpNode::new(p.clone(), build(&s.left, x)?, build(&s.right, x)?)),
        PlanOp::HashUnique(child) => Box::new(HashUniqueNode::new(p.clone(), build(child, x)?)),
        PlanOp::RecursiveUnion { left, right, .. } => Box::new(RecursiveNode::new(p.clone(), build(left, x)?, build(right, x)?)),
        PlanOp::WorkingScan(n) => Box::new(WorkingScanNode::new(*n)),
        PlanOp::CteScan(n) => Box::new(CteScanNode::new(*n)),
        PlanOp::LockRows(child, _) => Box::new(LockRowsNode::new(p.clone(), build(child, x)?)),
        PlanOp::Modify(m) => Box::new(ModifyNode::new(p.clone(), build_as(&m.child, x, true)?)),
    };
    Ok(measured(node, plan, x))
}

/// With its rows and time counted, if they are asked for.
fn measured(node: Box<dyn Node>, plan: &PlanNode, x: &Exec<'_>) -> Box<dyn Node> {
    match &x.state.stats {
        Some(_) => Box::new(Measured { node, id: plan.id, started: false }),
        None => node,
    }
}

/// A node whose rows and time are counted.
struct Measured {
    node: Box<dyn Node>,
    id: usize,
    started: bool,
}

impl Node for Measured {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let begin = Instant::now();
        let found = self.node.next(x, out)?;
        let spent = begin.elapsed();
        if let Some(s) = x.state.stats.as_mut().and_then(|s| s.get_mut(self.id)) {
            s.total += spent;
            if !self.started {
                s.loops += 1;
                s.startup += spent;
            }
            s.rows += u64::from(found);
        }
        self.started = true;
        Ok(found)
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.started = false;
        self.node.rescan(x)
    }

    fn bound(&mut self, rows: u64) {
        self.node.bound(rows);
    }
}
