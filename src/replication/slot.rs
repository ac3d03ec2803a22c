//! Physical replication slots: a promise to one standby that the WAL it still needs is kept.
//!
//! A slot lives in `pg_replslot/<name>/state`: magic, format version, length, crc, then the fields. It is written when it
//! is made and by [`Slots::save`] at every checkpoint; a position lost in a crash only keeps more WAL than needed.
//! PostgreSQL: replication/slot.c.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use afterimage_wal::disk::{Disk as _, RealDisk, durable_replace};
use afterimage_wal::ids::Lsn;
use parking_lot::{Condvar, Mutex};

/// First bytes of a state file.
const MAGIC: u32 = 0x4146_534C;
/// Version of the state file.
const FORMAT_VERSION: u32 = 1;
/// Longest slot name, as `NAMEDATALEN - 1`.
const NAME_LIMIT_BYTES: usize = 63;

/// Failures around slots.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The empty name.
    #[error("replication slot name \"{0}\" is too short")]
    NameTooShort(String),
    /// More than 63 bytes.
    #[error("replication slot name \"{0}\" is too long")]
    NameTooLong(String),
    /// Anything but lower-case letters, digits, underscore.
    #[error("replication slot name \"{0}\" contains invalid character")]
    InvalidName(String),
    /// Made already.
    #[error("replication slot \"{0}\" already exists")]
    Exists(String),
    /// Not made.
    #[error("replication slot \"{0}\" does not exist")]
    Missing(String),
    /// `max_replication_slots` reached.
    #[error("all replication slots are in use")]
    AllInUse,
    /// `max_replication_slots` is 0.
    #[error("replication slots can only be used if max_replication_slots > 0")]
    Disabled,
    /// Somebody streams from it.
    #[error("replication slot \"{name}\" is active for PID {pid}")]
    Active {
        /// Slot.
        name: String,
        /// Who uses it.
        pid: i32,
    },
    /// Its WAL is gone.
    #[error("cannot read from replication slot \"{0}\"")]
    Invalidated(String),
    /// The state file is not what it should be.
    #[error("replication slot file \"{}\" is damaged: {what}", path.display())]
    Damaged {
        /// File.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The disk.
    #[error("could not access replication slot file \"{}\": {source}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What `pg_replication_slots` shows of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    /// Name.
    pub name: String,
    /// WAL from here on (inclusive) is kept; `None` while nothing is reserved.
    pub restart_lsn: Option<Lsn>,
    /// Dropped with its session.
    pub temporary: bool,
    /// Session that uses it.
    pub active_pid: Option<i32>,
    /// Its WAL was removed because of `max_slot_wal_keep_size`.
    pub invalidated: bool,
    /// Oldest xid its standby's snapshots need, from hot standby feedback; 0 for none. Shown; what is kept is decided by `horizon`.
    pub xmin: u64,
    /// Commit LSN below which its standby's snapshots need nothing. Not in the state file: after a restart the standby tells again.
    pub horizon: Option<Lsn>,
}

struct Slot {
    info: SlotInfo,
    /// Session that made a temporary slot.
    owner: Option<i32>,
    dirty: bool,
}

/// All slots of a node.
pub struct Slots {
    dir: PathBuf,
    max: usize,
    /// Every slot by name. Rank 60; the state file is written under it when a slot is made or dropped, never on a hot path.
    slots: Mutex<BTreeMap<String, Slot>>,
    /// A slot was released or dropped.
    released: Condvar,
}

/// Use of a slot by one session; released when dropped.
pub struct SlotGuard {
    slots: Arc<Slots>,
    name: String,
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SlotGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlotGuard").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Checks a name by PostgreSQL's rule (ReplicationSlotValidateName).
///
/// # Errors
/// The three name errors.
pub fn validate_name(name: &str) -> Result<(), SlotError> {
    if name.is_empty() {
        return Err(SlotError::NameTooShort(name.to_owned()));
    }
    if name.len() > NAME_LIMIT_BYTES {
        return Err(SlotError::NameTooLong(name.to_owned()));
    }
    if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        return Err(SlotError::InvalidName(name.to_owned()));
    }
    Ok(())
}

impl Slots {
    /// Loads the slots under `pg_replslot` of a data directory. Temporary leftovers of a crash are removed.
    ///
    /// # Errors
    /// A damaged state file is an error: the promise it holds may not be forgotten silently.
    pub fn open(data_dir: &Path, max: usize) -> Result<Arc<Self>, SlotError> {
        let dir = data_dir.join("pg_replslot");
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| SlotError::Io { path, source }
        };
        fs::create_dir_all(&dir).map_err(at(&dir))?;
        let mut slots = BTreeMap::new();
        for entry in fs::read_dir(&dir).map_err(at(&dir))? {
            let entry = entry.map_err(at(&dir))?;
            let path = entry.path();
            // What else somebody put there is not ours.
            if !entry.file_type().map_err(at(&path))?.is_dir() {
                continue;
            }
            let Some(name) = path.file_name().and_then(|n| n.to_str()).map(str::to_owned) else { continue };
            let state = path.join("state");
            if name.ends_with(".tmp") || !state.try_exists().map_err(at(&state))? {
                fs::remove_dir_all(&path).map_err(at(&path))?;
                continue;
            }
            let bytes = fs::read(&state).map_err(at(&state))?;
            let info = decode(&bytes).map_err(|what| SlotError::Damaged { path: state.clone(), what })?;
            if info.temporary {
                fs::remove_dir_all(&path).map_err(at(&path))?;
                continue;
            }
            slots.insert(name, Slot { info, owner: None, dirty: false });
        }
        Ok(Arc::new(Self { dir, max, slots: Mutex::new(slots), released: Condvar::new() }))
    }

    /// Makes a slot and its state file. `owner` is the session of a temporary slot.
    ///
    /// # Errors
    /// Name, duplicate, limit, disk.
    pub fn create(&self, name: &str, owner: Option<i32>, reserve: Option<Lsn>) -> Result<(), SlotError> {
        validate_name(name)?;
        if self.max == 0 {
            return Err(SlotError::Disabled);
        }
        let mut slots = self.slots.lock();
        if slots.contains_key(name) {
            return Err(SlotError::Exists(name.to_owned()));
        }
        if slots.len() >= self.max {
            return Err(SlotError::AllInUse);
        }
        let info = SlotInfo {
            name: name.to_owned(),
            restart_lsn: reserve,
            temporary: owner.is_some(),
            active_pid: owner,
            invalidated: false,
            xmin: 0,
            horizon: None,
        };
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).map_err(|source| SlotError::Io { path: dir.clone(), source })?;
        self.write_state(&info)?;
        sync_dir(&self.dir)?;
        slots.insert(name.to_owned(), Slot { info, owner, dirty: false });
        Ok(())
    }

    /// Removes a slot; with `wait`, first waits until its user has left.
    ///
    /// # Errors
    /// Missing, active, disk.
    pub fn drop_slot(&self, name: &str, session: i32, wait: bool) -> Result<(), SlotError> {
        let mut slots = self.slots.lock();
        loop {
            let slot = slots.get(name).ok_or_else(|| SlotError::Missing(name.to_owned()))?;
            match slot.info.active_pid {
                Some(pid) if pid != session && wait => self.released.wait(&mut slots),
                Some(pid) if pid != session => return Err(SlotError::Active { name: name.to_owned(), pid }),
                Some(_) | None => break,
            }
        }
        self.remove_files(name)?;
        slots.remove(name);
        self.released.notify_all();
        Ok(())
    }

    /// Takes a slot for a session.
    ///
    /// # Errors
    /// Missing, active, invalidated.
    pub fn acquire(self: &Arc<Self>, name: &str, session: i32) -> Result<SlotGuard, SlotError> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(name).ok_or_else(|| SlotError::Missing(name.to_owned()))?;
        match slot.info.active_pid {
            Some(pid) if pid != session => return Err(SlotError::Active { name: name.to_owned(), pid }),
            Some(_) | None => {}
        }
        if slot.info.invalidated {
            return Err(SlotError::Invalidated(name.to_owned()));
        }
        slot.info.active_pid = Some(session);
        Ok(SlotGuard { slots: Arc::clone(self), name: name.to_owned() })
    }

    /// Drops the temporary slots of a session that ends.
    pub fn end_session(&self, session: i32) {
        let mut slots = self.slots.lock();
        let ended: Vec<String> = slots.iter().filter(|(_, s)| s.owner == Some(session)).map(|(n, _)| n.clone()).collect();
        for name in ended {
            if let Err(error) = self.remove_files(&name) {
                tracing::warn!("{error}");
            }
            slots.remove(&name);
        }
        self.released.notify_all();
    }

    /// One slot's state.
    pub fn get(&self, name: &str) -> Option<SlotInfo> {
        self.slots.lock().get(name).map(|slot| slot.info.clone())
    }

    /// Every slot, by name.
    pub fn list(&self) -> Vec<SlotInfo> {
        self.slots.lock().values().map(|slot| slot.info.clone()).collect()
    }

    /// The oldest WAL position a valid slot still needs.
    pub fn min_restart_lsn(&self) -> Option<Lsn> {
        self.slots.lock().values().filter(|s| !s.info.invalidated).filter_map(|s| s.info.restart_lsn).min()
    }

    /// The least horizon that slots hold, also those whose standby is away.
    pub fn horizon(&self) -> Option<Lsn> {
        self.slots.lock().values().filter(|s| !s.info.invalidated).filter_map(|s| s.info.horizon).min()
    }

    /// Moves a slot forward by hand (`pg_replication_slot_advance`); never backward.
    ///
    /// # Errors
    /// Missing, active elsewhere.
    pub fn advance(&self, name: &str, session: i32, upto: Lsn) -> Result<Lsn, SlotError> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(name).ok_or_else(|| SlotError::Missing(name.to_owned()))?;
        match slot.info.active_pid {
            Some(pid) if pid != session => return Err(SlotError::Active { name: name.to_owned(), pid }),
            Some(_) | None => {}
        }
        let moved = slot.info.restart_lsn.map_or(upto, |at| at.max(upto));
        slot.dirty |= slot.info.restart_lsn != Some(moved);
        slot.info.restart_lsn = Some(moved);
        Ok(moved)
    }

    /// Invalidates slots that need WAL before `oldest`, which is about to be removed; returns them with their positions.
    pub fn invalidate_before(&self, oldest: Lsn) -> Vec<SlotInfo> {
        let mut slots = self.slots.lock();
        let mut hit = Vec::new();
        for slot in slots.values_mut() {
            if !slot.info.invalidated && slot.info.restart_lsn.is_some_and(|at| at < oldest) {
                hit.push(slot.info.clone());
                slot.info.invalidated = true;
                slot.dirty = true;
            }
        }
        hit
    }

    /// Writes the slots that changed since their last write. Called at checkpoints.
    ///
    /// # Errors
    /// The disk.
    pub fn save(&self) -> Result<(), SlotError> {
        let mut slots = self.slots.lock();
        for slot in slots.values_mut().filter(|s| s.dirty) {
            self.write_state(&slot.info)?;
            slot.dirty = false;
        }
        Ok(())
    }

    /// Replaced whole: a crash leaves the old state or the new one.
    fn write_state(&self, info: &SlotInfo) -> Result<(), SlotError> {
        let path = self.dir.join(&info.name).join("state");
        durable_replace(&RealDisk, &path, &encode(info)).map_err(|source| SlotError::Io { path, source })
    }

    fn remove_files(&self, name: &str) -> Result<(), SlotError> {
        let dir = self.dir.join(name);
        let doomed = self.dir.join(format!("{name}.tmp"));
        // Renamed first: a crash half way through the removal must not leave a slot without its state file.
        RealDisk
            .rename(&dir, &doomed)
            .and_then(|()| RealDisk.sync_dir(&self.dir))
            .map_err(|source| SlotError::Io { path: dir.clone(), source })?;
        fs::remove_dir_all(&doomed).map_err(|source| SlotError::Io { path: doomed.clone(), source })?;
        sync_dir(&self.dir)
    }
}

impl SlotGuard {
    /// Name of the slot.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The standby has `flushed` safely: WAL before it is no longer kept for it.
    pub fn confirm(&self, flushed: Lsn) {
        if let Some(slot) = self.slots.slots.lock().get_mut(&self.name)
            && slot.info.restart_lsn.is_none_or(|at| at < flushed)
        {
            slot.info.restart_lsn = Some(flushed);
            slot.dirty = true;
        }
    }

    /// A standby that streams from here on is promised what follows, though it has not confirmed anything yet.
    pub fn reserve(&self, start: Lsn) {
        if let Some(slot) = self.slots.slots.lock().get_mut(&self.name).filter(|slot| slot.info.restart_lsn.is_none()) {
            slot.info.restart_lsn = Some(start);
            slot.dirty = true;
        }
    }

    /// What the standby's snapshots need, as it told; 0 and `None` for nothing.
    pub fn feedback(&self, change: impl FnOnce(&mut u64, &mut Option<Lsn>)) {
        if let Some(slot) = self.slots.slots.lock().get_mut(&self.name) {
            let before = slot.info.xmin;
            change(&mut slot.info.xmin, &mut slot.info.horizon);
            slot.dirty |= before != slot.info.xmin;
        }
    }

    /// Was it invalidated under our hands?
    pub fn is_invalidated(&self) -> bool {
        self.slots.slots.lock().get(&self.name).is_none_or(|slot| slot.info.invalidated)
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        if let Some(slot) = self.slots.slots.lock().get_mut(&self.name) {
            // A temporary slot stays its session's until that ends.
            slot.info.active_pid = slot.owner;
        }
        self.slots.released.notify_all();
    }
}

fn sync_dir(dir: &Path) -> Result<(), SlotError> {
    fs::File::open(dir).and_then(|d| d.sync_all()).map_err(|source| SlotError::Io { path: dir.to_owned(), source })
}

/// magic, version, body length, crc32c of body; body: restart_lsn (0 for none), xmin, flags, name.
fn encode(info: &SlotInfo) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(info.restart_lsn.unwrap_or(Lsn::INVALID).as_u64().to_le_bytes());
    body.extend(info.xmin.to_le_bytes());
    body.push(u8::from(info.temporary) | (u8::from(info.invalidated) << 1));
    body.extend(info.name.as_bytes());
    let mut out = Vec::with_capacity(16 + body.len());
    out.extend(MAGIC.to_le_bytes());
    out.extend(FORMAT_VERSION.to_le_bytes());
    out.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(crc32c::crc32c(&body).to_le_bytes());
    out.extend(body);
    out
}

fn decode(bytes: &[u8]) -> Result<SlotInfo, String> {
    let word = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes).ok_or("file is too short");
    let magic = word(0)?;
    if magic != MAGIC {
        return Err(format!("wrong magic number: {magic:#x} instead of {MAGIC:#x}"));
    }
    let version = word(4)?;
    if version != FORMAT_VERSION {
        return Err(format!("unsupported version {version}"));
    }
    let length = usize::try_from(word(8)?).unwrap_or(usize::MAX);
    let body = bytes.get(16..).filter(|b| b.len() == length).ok_or_else(|| format!("corrupted length {length}"))?;
    let (stored, computed) = (word(12)?, crc32c::crc32c(body));
    if stored != computed {
        return Err(format!("checksum mismatch: is {computed}, should be {stored}"));
    }
    let long = |at: usize| body.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes).ok_or("body is too short");
    let flags = *body.get(16).ok_or("body is too short")?;
    let name = body.get(17..).and_then(|n| std::str::from_utf8(n).ok()).ok_or("name is not text")?;
    let restart = Lsn::from_u64(long(0)?);
    Ok(SlotInfo {
        name: name.to_owned(),
        restart_lsn: (restart != Lsn::INVALID).then_some(restart),
        temporary: flags & 1 != 0,
        active_pid: None,
        invalidated: flags & 2 != 0,
        xmin: long(8)?,
        horizon: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_survive_a_restart_and_temporary_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::open(dir.path(), 3).unwrap();
        slots.create("a", None, Some(Lsn::from_u64(0x1000))).unwrap();
        slots.create("t", Some(7), None).unwrap();
        let guard = slots.acquire("a", 1).unwrap();
        guard.confirm(Lsn::from_u64(0x2000));
        guard.confirm(Lsn::from_u64(0x1800));
        assert!(matches!(slots.acquire("a", 2), Err(SlotError::Active { pid: 1, .. })));
        assert!(matches!(slots.drop_slot("a", 2, false), Err(SlotError::Active { .. })));
        slots.save().unwrap();
        drop(guard);
        let again = Slots::open(dir.path(), 3).unwrap();
        assert_eq!(again.list().len(), 1);
        assert_eq!(again.get("a").unwrap().restart_lsn, Some(Lsn::from_u64(0x2000)));
        again.drop_slot("a", 1, false).unwrap();
        assert!(Slots::open(dir.path(), 3).unwrap().list().is_empty());
    }

    #[test]
    fn limits_and_names() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::open(dir.path(), 1).unwrap();
        assert!(matches!(slots.create("Bad", None, None), Err(SlotError::InvalidName(_))));
        assert!(matches!(slots.create("", None, None), Err(SlotError::NameTooShort(_))));
        slots.create("a", None, None).unwrap();
        assert!(matches!(slots.create("a", None, None), Err(SlotError::Exists(_))));
        assert!(matches!(slots.create("b", None, None), Err(SlotError::AllInUse)));
        assert!(matches!(slots.acquire("zz", 1), Err(SlotError::Missing(_))));
    }

    #[test]
    fn an_invalidated_slot_keeps_nothing_and_cannot_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::open(dir.path(), 2).unwrap();
        slots.create("a", None, Some(Lsn::from_u64(0x1000))).unwrap();
        assert_eq!(slots.min_restart_lsn(), Some(Lsn::from_u64(0x1000)));
        assert_eq!(slots.invalidate_before(Lsn::from_u64(0x2000)).len(), 1);
        assert_eq!(slots.min_restart_lsn(), None);
        assert!(matches!(slots.acquire("a", 1), Err(SlotError::Invalidated(_))));
    }

    #[test]
    fn every_flipped_bit_in_a_state_file_is_found() {
        let good = encode(&SlotInfo {
            name: "s".into(),
            restart_lsn: Some(Lsn::from_u64(9)),
            temporary: false,
            active_pid: None,
            invalidated: false,
            xmin: 0,
            horizon: None,
        });
        assert!(decode(&good).is_ok());
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(decode(&bad).is_err(), "byte {at} bit {bit}");
            }
            assert!(decode(&good[..at]).is_err());
        }
    }
}
