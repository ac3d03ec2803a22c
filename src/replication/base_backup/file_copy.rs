//! `pg_backup_start` and `pg_backup_stop`: a backup whose files somebody else copies, with `cp` or a snapshot of the volume.
//!
//! It belongs to the session that began it and ends with it. While it runs, pages go into the WAL before they are written in place
//! ([`crate::storage::backup_images`]), so that recovery can replace those of which the copy has half.
//!
//! A standby writes no WAL: a page that the copy tore there is fetched from the upstream by the standby that the copy becomes, and refuses any other
//! recovery. The label of a standby's backup says where the copy is consistent, whenever `pg_control` was copied.
//!
//! PostgreSQL: access/transam/xlogfuncs.c.

use std::collections::HashMap;

use afterimage_wal::ids::{Lsn, TimelineId};
use parking_lot::Mutex;

use super::super::services::Replication;
use super::archive::tablespaces;
use super::label::{self, ArchiveWait};
use crate::config::Setting;
use crate::engine::BackupStart;
use crate::recovery::backup_label;
use crate::sqlstate::{SqlError, SqlState};
use crate::storage::LoggedImages;

/// Longest label, as PostgreSQL's MAXPGPATH.
const LABEL_BYTES: usize = 1024;

/// One that runs.
#[derive(Debug)]
pub struct Running {
    start: BackupStart,
    label: String,
    tablespace_map: String,
    /// On a primary: pages are logged before they are written.
    images: Option<LoggedImages>,
}

/// The backups that run, by session.
#[derive(Debug, Default)]
pub struct FileCopies {
    /// Rank 63, a leaf.
    running: Mutex<HashMap<i32, Running>>,
}

/// What `pg_backup_stop` answers.
#[derive(Debug)]
pub struct Stopped {
    /// Recovery must come this far.
    pub end: Lsn,
    /// On this timeline.
    pub tli: TimelineId,
    /// `backup_label`.
    pub label: String,
    /// `tablespace_map`.
    pub tablespace_map: String,
    start: BackupStart,
}

impl Stopped {
    /// The wait for its WAL to be archived.
    pub fn archive_wait(&self, node: &Replication) -> Option<ArchiveWait> {
        ArchiveWait::new(node, &self.start, (self.end, self.tli))
    }
}

fn not_now(text: &str) -> SqlError {
    SqlError::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, text)
}

/// Whether the WAL says enough for a backup.
///
/// # Errors
/// 55000 with `wal_level = minimal`.
pub fn check_wal_level(node: &Replication) -> Result<(), SqlError> {
    if !node.engine.is_in_recovery() && node.config.current().str(Setting::WalLevel) == "minimal" {
        return Err(not_now("WAL level not sufficient for making an online backup")
            .hint("wal_level must be set to \"replica\" or \"logical\" at server start."));
    }
    Ok(())
}

impl Running {
    /// Begins one: a checkpoint, and from then on images. It ends when this is dropped.
    ///
    /// # Errors
    /// The checkpoint's.
    pub fn begin(node: &Replication, name: &str, fast: bool) -> Result<Self, SqlError> {
        let standby = node.engine.is_in_recovery();
        let start = node.engine.backup_start(fast)?;
        let images = (!standby).then(|| node.engine.pool().log_images());
        let label = label::label(node, name, &start);
        let tablespace_map = label::tablespace_map(&tablespaces(node.engine.data_dir()));
        Ok(Self { start, label, tablespace_map, images })
    }
}

impl FileCopies {
    /// Whether a session may begin one.
    ///
    /// # Errors
    /// 55000 if it has one, or the WAL does not say enough; 22023 for the label.
    pub fn check(&self, node: &Replication, session: i32, name: &str) -> Result<(), SqlError> {
        if self.running.lock().contains_key(&session) {
            return Err(not_now("a backup is already in progress in this session"));
        }
        check_wal_level(node)?;
        if name.len() > LABEL_BYTES {
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("backup label too long (max {LABEL_BYTES} bytes)")));
        }
        Ok(())
    }

    /// It belongs to this session from now on. Returns where its WAL begins.
    pub fn enter(&self, session: i32, running: Running) -> Lsn {
        let redo_lsn = running.start.redo_lsn;
        self.running.lock().insert(session, running);
        redo_lsn
    }

    /// Ends a session's.
    ///
    /// # Errors
    /// 55000 if it has none, or the standby was promoted meanwhile; I/O.
    pub fn stop(&self, node: &Replication, session: i32) -> Result<Stopped, SqlError> {
        let found = self.running.lock().remove(&session);
        let running = found.ok_or_else(|| not_now("backup is not in progress").hint("Did you call pg_backup_start()?"))?;
        let Running { start, mut label, tablespace_map, images } = running;
        check_wal_level(node)?;
        let standby = node.engine.is_in_recovery();
        if images.is_none() && !standby {
            return Err(not_now("the standby was promoted during online backup")
                .hint("This means that the backup being taken is corrupt and should not be used. Try taking another online backup."));
        }
        let (end, tli) = node.engine.backup_stop(&start)?;
        // Not before the record that ends the backup: up to it redo counts on an image of whatever was torn.
        drop(images);
        if standby {
            label.push_str(&format!("{} {end}\n", backup_label::END_KEY));
        } else {
            let written = label::write_history(node, &label, &start, (end, tli));
            written.map_err(|e| SqlError::new(SqlState::IO_ERROR, e.to_string()))?;
        }
        Ok(Stopped { end, tli, label, tablespace_map, start })
    }

    /// The session is over. True: it had one.
    pub fn end_session(&self, session: i32) -> bool {
        self.running.lock().remove(&session).is_some()
    }
}
