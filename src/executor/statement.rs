//! One parsed statement: its nodes, its text, and what the session must know of it.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf::{self, TransactionStmtKind};

/// A statement as the grammar read it.
#[derive(Clone, Debug)]
pub struct RawStmt {
    /// The statement's node.
    pub node: Arc<NodeEnum>,
    /// The whole text it came in; error positions count from its begin.
    pub source: Arc<str>,
    /// First byte of this statement in `source`.
    pub start: usize,
    /// End of this statement in `source`, exclusive.
    pub end: usize,
}

/// What a session must do with a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StmtKind {
    /// Transaction control: the session's own business.
    Transaction(TransactionKind),
    /// `PREPARE name AS ..`: see [`protobuf::PrepareStmt`].
    Prepare,
    /// `EXECUTE name(..)`.
    Execute,
    /// `DEALLOCATE name | ALL` (`None`).
    Deallocate(Option<String>),
    /// `DECLARE name CURSOR FOR ..`.
    DeclareCursor,
    /// `FETCH` and `MOVE`.
    Fetch,
    /// `CLOSE name | ALL` (`None`).
    ClosePortal(Option<String>),
    /// `COPY`.
    Copy,
    /// `SELECT`, `VALUES`, `TABLE`.
    Select,
    /// `INSERT`, `UPDATE`, `DELETE`, `MERGE`.
    Modify,
    /// `EXPLAIN`.
    Explain,
    /// `SET`, `RESET`.
    Set,
    /// `SHOW`.
    Show,
    /// `LISTEN`, `NOTIFY`, `UNLISTEN`.
    Notify,
    /// Everything else: run by `executor::ddl` and `executor::utility`.
    Utility,
}

/// Transaction control statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionKind {
    /// `BEGIN`, `START TRANSACTION`, with (name, value) options: `transaction_isolation`, `transaction_read_only`,
    /// `transaction_deferrable`; and its tag.
    Begin(Vec<(String, String)>, &'static str),
    /// `COMMIT`, `END`; and whether `AND CHAIN`.
    Commit(bool),
    /// `ROLLBACK`, `ABORT`; and whether `AND CHAIN`.
    Rollback(bool),
    /// `SAVEPOINT name`.
    Savepoint(String),
    /// `RELEASE name`.
    Release(String),
    /// `ROLLBACK TO name`.
    RollbackTo(String),
    /// `PREPARE TRANSACTION gid`.
    Prepare(String),
    /// `COMMIT PREPARED gid`.
    CommitPrepared(String),
    /// `ROLLBACK PREPARED gid`.
    RollbackPrepared(String),
}

impl RawStmt {
    /// The statement's own text.
    pub fn text(&self) -> &str {
        self.source.get(self.start..self.end).unwrap_or(&self.source)
    }

    /// A statement made of another node of the same text, as the query inside `EXPLAIN`.
    #[must_use]
    pub fn with_node(&self, node: NodeEnum) -> Self {
        Self { node: Arc::new(node), source: self.source.clone(), start: self.start, end: self.end }
    }

    /// What the session must do with it.
    pub fn kind(&self) -> StmtKind {
        #[expect(clippy::wildcard_enum_match_arm, reason = "all other nodes are utility statements")]
        match &*self.node {
            NodeEnum::TransactionStmt(t) => match transaction_kind(t) {
                Some(kind) => StmtKind::Transaction(kind),
                None => StmtKind::Utility,
            },
            NodeEnum::PrepareStmt(_) => StmtKind::Prepare,
            NodeEnum::ExecuteStmt(_) => StmtKind::Execute,
            NodeEnum::DeallocateStmt(d) => StmtKind::Deallocate((!d.name.is_empty()).then(|| d.name.clone())),
            NodeEnum::DeclareCursorStmt(_) => StmtKind::DeclareCursor,
            NodeEnum::FetchStmt(_) => StmtKind::Fetch,
            NodeEnum::ClosePortalStmt(c) => StmtKind::ClosePortal((!c.portalname.is_empty()).then(|| c.portalname.clone())),
            NodeEnum::CopyStmt(_) => StmtKind::Copy,
            NodeEnum::SelectStmt(s) if s.into_clause.is_none() => StmtKind::Select,
            NodeEnum::InsertStmt(_) | NodeEnum::UpdateStmt(_) | NodeEnum::DeleteStmt(_) | NodeEnum::MergeStmt(_) => StmtKind::Modify,
            NodeEnum::ExplainStmt(_) => StmtKind::Explain,
            NodeEnum::VariableSetStmt(_) => StmtKind::Set,
            NodeEnum::VariableShowStmt(_) => StmtKind::Show,
            NodeEnum::ListenStmt(_) | NodeEnum::NotifyStmt(_) | NodeEnum::UnlistenStmt(_) => StmtKind::Notify,
            _ => StmtKind::Utility,
        }
    }
}

fn transaction_kind(t: &protobuf::TransactionStmt) -> Option<TransactionKind> {
    Some(match TransactionStmtKind::try_from(t.kind).ok()? {
        TransactionStmtKind::TransStmtBegin => TransactionKind::Begin(options(&t.options), "BEGIN"),
        TransactionStmtKind::TransStmtStart => TransactionKind::Begin(options(&t.options), "START TRANSACTION"),
        TransactionStmtKind::TransStmtCommit => TransactionKind::Commit(t.chain),
        TransactionStmtKind::TransStmtRollback => TransactionKind::Rollback(t.chain),
        TransactionStmtKind::TransStmtSavepoint => TransactionKind::Savepoint(t.savepoint_name.clone()),
        TransactionStmtKind::TransStmtRelease => TransactionKind::Release(t.savepoint_name.clone()),
        TransactionStmtKind::TransStmtRollbackTo => TransactionKind::RollbackTo(t.savepoint_name.clone()),
        TransactionStmtKind::TransStmtPrepare => TransactionKind::Prepare(t.gid.clone()),
        TransactionStmtKind::TransStmtCommitPrepared => TransactionKind::CommitPrepared(t.gid.clone()),
        TransactionStmtKind::TransStmtRollbackPrepared => TransactionKind::RollbackPrepared(t.gid.clone()),
        TransactionStmtKind::Undefined => return None,
    })
}

fn options(list: &[protobuf::Node]) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for node in list {
        let Some(NodeEnum::DefElem(element)) = &node.node else { continue };
        let value = match element.arg.as_ref().and_then(|arg| arg.node.as_ref()) {
            Some(NodeEnum::AConst(constant)) => match &constant.val {
                Some(protobuf::a_const::Val::Sval(s)) => s.sval.clone(),
                Some(protobuf::a_const::Val::Ival(i)) => if i.ival == 0 { "off" } else { "on" }.to_owned(),
                Some(protobuf::a_const::Val::Boolval(b)) => if b.boolval { "on" } else { "off" }.to_owned(),
                Some(protobuf::a_const::Val::Fval(_) | protobuf::a_const::Val::Bsval(_)) | None => continue,
            },
            _ => continue,
        };
        out.push((element.defname.clone(), value));
    }
    out
}
