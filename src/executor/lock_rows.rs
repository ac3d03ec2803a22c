//! FOR UPDATE and its kin.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::eval::{Exec, Row};
use super::modify::concurrent_update;
use super::node::Node;
use super::plan::{LockStrength, PlanNode, PlanOp, WaitPolicy};
use super::scan::datum_tid;
use crate::access::heap::{self, ChangeResult};
use crate::sqlstate::{SqlError, SqlState};
use crate::txn::{self, Isolation, RowLockMode};

/// Locks rows as they pass; a row another transaction changed meanwhile is checked again.
pub(super) struct LockRowsNode {
    plan: Arc<PlanNode>,
    child: Box<dyn Node>,
}

impl LockRowsNode {
    pub(super) fn new(plan: Arc<PlanNode>, child: Box<dyn Node>) -> Self {
        Self { plan, child }
    }
}

impl Node for LockRowsNode {
    fn next(&mut self, x: &mut Exec<'_>, out: &mut Row) -> Result<bool, SqlError> {
        let plan = self.plan.clone();
        let PlanOp::LockRows(child, marks) = &plan.op else { return Err(SqlError::internal("a node got another node's plan")) };
        'rows: while self.child.next(x, out)? {
            let mut moved: FxHashMap<usize, Option<(crate::access::Tid, Vec<u8>)>> = FxHashMap::default();
            'again: loop {
                for mark in marks {
                    let Some(tid) = out.get(mark.tid).and_then(datum_tid) else { continue };
                    let Some(rel) = mark.relation.rel_handle() else { continue };
                    let mode = match mark.strength {
                        LockStrength::KeyShare => RowLockMode::KeyShare,
                        LockStrength::Share => RowLockMode::Share,
                        LockStrength::NoKeyUpdate => RowLockMode::NoKeyUpdate,
                        LockStrength::Update => RowLockMode::Update,
                    };
                    let wait = match mark.wait {
                        WaitPolicy::Wait => txn::WaitPolicy::Block,
                        WaitPolicy::Skip => txn::WaitPolicy::Skip,
                        WaitPolicy::Error => txn::WaitPolicy::Error,
                    };
                    let engine = x.state.engine()?.clone();
                    let snapshot = x.state.snapshot()?.clone();
                    let t = x.session.transaction()?;
                    let result = heap::lock_row(engine.ctx(), t, &rel, &snapshot, tid, mode, wait)
                        .map_err(|e| not_available(e.into(), &mark.relation.name))?;
                    match result {
                        ChangeResult::Done { .. } => {}
                        // What this transaction did to it since the statement began, the statement does not see.
                        ChangeResult::Skipped | ChangeResult::SelfModified { .. } => continue 'rows,
                        ChangeResult::Deleted { .. } => {
                            if t.isolation() != Isolation::ReadCommitted {
                                return Err(concurrent_update());
                            }
                            continue 'rows;
                        }
                        ChangeResult::Updated { next, .. } => {
                            if t.isolation() != Isolation::ReadCommitted {
                                return Err(concurrent_update());
                            }
                            let cid = snapshot.cid();
                            let newest = heap::fetch_latest(engine.ctx(), t, &rel, next, cid, |tid, bytes| (tid, bytes.to_vec()))?;
                            let Some(newest) = newest.row() else { continue 'rows };
                            moved.insert(mark.scan_id, Some(newest));
                            // The other locked tables keep their rows.
                            for other in marks.iter().filter(|m| m.scan_id != mark.scan_id) {
                                if moved.contains_key(&other.scan_id) {
                                    continue;
                                }
                                let entry = match (out.get(other.tid).and_then(datum_tid), other.relation.rel_handle()) {
                                    (Some(tid), Some(rel)) => {
                                        let t = x.session.transaction()?;
                                        heap::fetch_latest(engine.ctx(), t, &rel, tid, cid, |tid, bytes| (tid, bytes.to_vec()))?.row()
                                    }
                                    _ => None,
                                };
                                moved.insert(other.scan_id, entry);
                            }
                            match x.recheck(child, moved.clone())? {
                                Some(mut row) => {
                                    super::large::unpack_row(engine.ctx(), &mut row)?;
                                    *out = row;
                                }
                                None => continue 'rows,
                            }
                            continue 'again;
                        }
                    }
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn rescan(&mut self, x: &mut Exec<'_>) -> Result<(), SqlError> {
        self.child.rescan(x)
    }
}

/// NOWAIT's refusal names the relation.
fn not_available(e: SqlError, relation: &str) -> SqlError {
    if e.state() == SqlState::LOCK_NOT_AVAILABLE && !e.fields().message.contains("timeout") {
        SqlError::new(SqlState::LOCK_NOT_AVAILABLE, format!("could not obtain lock on row in relation \"{relation}\""))
    } else {
        e
    }
}
