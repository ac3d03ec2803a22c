//! Which layer redoes a record, and what recovery itself learns from those of the WAL.

use std::sync::Arc;

use afterimage_wal::{
    Lsn, Record, TimelineId, Xid,
    control_file::{Checkpoint, Parameters},
    rmgr,
};

use super::{error::RecoveryError, progress::Progress};
use crate::{
    access::{self, AccessCtx, AccessError},
    control::{
        checkpoint::{RestartCandidate, RestartPoints},
        oids::OidCounter,
    },
    storage::{database, smgr_redo},
    txn,
};

/// Applies records.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    /// Pages, WAL, transactions.
    pub ctx: AccessCtx,
    /// Next OID.
    pub oids: Arc<OidCounter>,
    /// Checkpoints passed.
    pub restart: Arc<RestartPoints>,
    /// How far.
    pub progress: Arc<Progress>,
}

/// What the loop has to know about a record it just applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Nothing special.
    Plain,
    /// A base backup that began at this redo point is complete here.
    BackupEnd(Lsn),
    /// The primary's settings changed.
    Parameters(Parameters),
}

impl Dispatcher {
    /// Redoes one record.
    ///
    /// # Errors
    /// A record that is not understood or does not fit its page; I/O.
    pub fn apply(&self, record: &Record<'_>) -> Result<Applied, RecoveryError> {
        if record.xid().is_valid() {
            self.ctx.txns.note_xid(record.xid());
        }
        let at = record.start();
        let access = |source: AccessError| RecoveryError::Redo { at, rmgr: rmgr::name(record.rmgr()), kind: record.kind(), source };
        match record.rmgr() {
            rmgr::XLOG => return self.xlog(record),
            rmgr::XACT => {
                if record.kind() == txn::record::KIND_TRIM {
                    // A standby that starts anew reads no page as of before this: it may name what is forgotten.
                    self.ctx.pool.pass_write_gate(record.end())?;
                }
                txn::redo::redo(&self.ctx.txns, record)?;
                if !matches!(record.kind(), txn::record::KIND_PREPARE | txn::record::KIND_TRIM)
                    && let Some(decision) = txn::record::Decision::decode(record.main(), record.xid())
                {
                    self.progress.set_commit_time(decision.time);
                }
            }
            rmgr::SMGR => smgr_redo::redo(&self.ctx.pool, record)?,
            rmgr::HEAP => access::heap::redo::redo(&self.ctx, record).map_err(access)?,
            rmgr::BTREE => access::btree::redo(&self.ctx, record).map_err(access)?,
            rmgr::SEQUENCE => access::sequence::redo(&self.ctx, record).map_err(access)?,
            rmgr::DATABASE => database::redo(&self.ctx.pool, record)?,
            rmgr::STANDBY => txn::standby::redo(&self.ctx.txns, record)?,
            rmgr::LOGICAL_MESSAGE => {}
            _ => return Err(RecoveryError::UnknownRecord { at, what: "unknown resource manager" }),
        }
        Ok(Applied::Plain)
    }

    fn xlog(&self, record: &Record<'_>) -> Result<Applied, RecoveryError> {
        use rmgr::xlog as kind;
        let bad = |what| RecoveryError::UnknownRecord { at: record.start(), what };
        match record.kind() {
            kind::CHECKPOINT_ONLINE | kind::CHECKPOINT_SHUTDOWN => {
                let checkpoint = Checkpoint::decode(record.main()).ok_or_else(|| bad("checkpoint of the wrong length"))?;
                if record.kind() == kind::CHECKPOINT_SHUTDOWN {
                    // Nobody ran: the counters are exact, and whatever was undecided before is aborted.
                    self.ctx.txns.note_writer_restart(checkpoint.next_xid);
                    self.oids.set(checkpoint.next_oid);
                } else if checkpoint.next_xid > self.ctx.txns.next_xid() {
                    self.ctx.txns.note_xid(Xid::from_u64(checkpoint.next_xid.as_u64() - 1));
                }
                // A restartpoint here would lose what explains the missing blocks.
                if self.ctx.pool.missing().is_empty() {
                    self.restart.offer(RestartCandidate { at: record.start(), end: record.end(), checkpoint });
                }
            }
            kind::NEXTOID => {
                let next = record.main().try_into().map(u32::from_le_bytes).map_err(|_| bad("OID record of the wrong length"))?;
                self.oids.set(next);
            }
            kind::END_OF_RECOVERY => {
                let next = EndOfRecovery::decode(record.main()).ok_or_else(|| bad("end-of-recovery record of the wrong length"))?;
                self.ctx.txns.note_writer_restart(next.next_xid);
            }
            kind::FPI_FOR_BACKUP => self.ctx.pool.redo_backup_image(record)?,
            kind::FPI => {
                for i in 0..record.blocks().len() {
                    self.ctx.pool.redo_block(record, i, |_page, _data| Ok::<(), crate::storage::StorageError>(()))?;
                }
            }
            kind::PARAMETER_CHANGE => {
                let parameters = Parameters::decode(record.main()).ok_or_else(|| bad("parameter change of the wrong length"))?;
                return Ok(Applied::Parameters(parameters));
            }
            kind::OVERWRITE_CONTRECORD => {
                let torn = OverwrittenRecord::decode(record.main()).ok_or_else(|| bad("overwritten record of the wrong length"))?;
                let time = super::target::time_text(torn.time);
                tracing::info!("successfully skipped missing contrecord at {}, overwritten at {time}", torn.at);
            }
            kind::BACKUP_END => {
                let start = record.main().try_into().map(Lsn::from_le_bytes).map_err(|_| bad("backup end of the wrong length"))?;
                return Ok(Applied::BackupEnd(start));
            }
            _ => {}
        }
        Ok(Applied::Plain)
    }
}

/// Main data of an overwritten record: a crash left its beginning, and the WAL goes on in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverwrittenRecord {
    /// Where it began.
    pub at: Lsn,
    /// When it was overwritten, microseconds since 2000.
    pub time: i64,
}

impl OverwrittenRecord {
    /// Main data.
    pub fn encode(&self) -> Vec<u8> {
        [self.at.to_le_bytes(), self.time.to_le_bytes()].concat()
    }

    /// From main data.
    pub fn decode(main: &[u8]) -> Option<Self> {
        let main: &[u8; 16] = main.try_into().ok()?;
        Some(Self { at: Lsn::from_le_bytes(*main.first_chunk()?), time: i64::from_le_bytes(*main[8..].first_chunk()?) })
    }
}

/// Main data of an end-of-recovery record: the first act of a new writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndOfRecovery {
    /// Timeline that begins or goes on.
    pub tli: TimelineId,
    /// Timeline before.
    pub prev_tli: TimelineId,
    /// Unix seconds.
    pub time: i64,
    /// Next xid: those below that are undecided are aborted.
    pub next_xid: Xid,
}

impl EndOfRecovery {
    /// Main data.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        out.extend_from_slice(&self.tli.to_le_bytes());
        out.extend_from_slice(&self.prev_tli.to_le_bytes());
        out.extend_from_slice(&self.time.to_le_bytes());
        out.extend_from_slice(&self.next_xid.to_le_bytes());
        out
    }

    /// From main data.
    pub fn decode(main: &[u8]) -> Option<Self> {
        let main: &[u8; 24] = main.try_into().ok()?;
        Some(Self {
            tli: TimelineId::from_le_bytes(*main.first_chunk()?),
            prev_tli: TimelineId::from_le_bytes(*main[4..].first_chunk()?),
            time: i64::from_le_bytes(*main[8..].first_chunk()?),
            next_xid: Xid::from_le_bytes(*main[16..].first_chunk()?),
        })
    }
}
